//! Why an account did not do what it was asked.

use crate::store::StoreError;

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No such user, a wrong password, a token that is not this user's. Which of them is not told.
    #[error("bad user name or password")]
    BadCredentials,
    /// Too many passwords wait to be hashed: try again.
    #[error("too many logins at once")]
    Busy,
    /// The store does not answer: try again.
    #[error("the store is unavailable")]
    Unavailable,
}

/// Why a user or a token could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The handle belongs to somebody, or did within the last 90 days.
    #[error("the handle {0} is taken (a removed user's handle rests for 90 days)")]
    HandleTaken(String),
    /// There is no such user (any more).
    #[error("no user {0}")]
    NoSuchUser(String),
    /// The user has no token with this id.
    #[error("no token {0} of this user")]
    NoSuchToken(String),
    /// Too short.
    #[error("a password has at least {min} bytes")]
    PasswordTooShort {
        /// The configured minimum.
        min: u32,
    },
    /// Too long.
    #[error("a password has at most {max} bytes")]
    PasswordTooLong {
        /// The maximum.
        max: usize,
    },
    /// It looks like a token, and would be taken for one.
    #[error("a password cannot begin with {prefix}: tokens do")]
    PasswordLikeToken {
        /// How tokens begin.
        prefix: &'static str,
    },
    /// A display name or label is too long.
    #[error("a name or label has at most {max} bytes")]
    TextTooLong {
        /// The maximum.
        max: usize,
    },
    /// A display name or label with control characters.
    #[error("a name or label has no control characters")]
    TextWithControls,
    /// The user has as many tokens as the configuration allows.
    #[error("the user has {max} tokens already: revoke one first")]
    TooManyTokens {
        /// The configured maximum.
        max: u32,
    },
    /// Too many passwords wait to be hashed: try again.
    #[error("too many logins at once: try again")]
    Busy,
    /// The operating system gives no random bytes, or the parameters of argon2 do not fit this machine.
    #[error("the password cannot be hashed: {0}")]
    Hashing(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
