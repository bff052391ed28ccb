//! Why an account did not do what it was asked.

use std::time::Duration;

use proto::ids::Handle;

use crate::store::StoreError;

/// Why a CONNECT is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No such user, a wrong password, a token that is not this user's. Which of them is not told.
    #[error("bad user name or password")]
    BadCredentials,
    /// CONNECT without user name or password.
    #[error("no user name or no password")]
    Incomplete,
    /// Too many logins have failed from this address, or with this user name from there.
    #[error("too many failed logins: nothing is checked for {} s", retry.as_secs().max(1))]
    Throttled {
        /// When to try again.
        retry: Duration,
    },
    /// Too many passwords wait to be hashed: try again.
    #[error("too many logins at once")]
    Busy,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// argon2 does not work on this machine, or a stored hash is damaged.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Why a user or a token could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The handle belongs to somebody, or did within the last 90 days.
    #[error("the handle {0} is taken (a removed user's handle rests for 90 days)")]
    HandleTaken(Handle),
    /// Handles that begin so are those of visitors of support desks.
    #[error("the handle {0} is reserved for visitors of a support desk")]
    HandleReserved(Handle),
    /// There is no such user (any more).
    #[error("there is no user {0}")]
    NoSuchUser(String),
    /// The user has no token with this id.
    #[error("there is no token {0} of this user")]
    NoSuchToken(String),
    /// The user has no device with this id.
    #[error("there is no device {0} of this user")]
    NoSuchDevice(String),
    /// Empty, or too long.
    #[error("a password has 1 to {max} bytes")]
    PasswordLength {
        /// The longest.
        max: usize,
    },
    /// Not a hash of a password file of Mosquitto.
    #[error("no hash that mosquitto_passwd makes ($7$ or $6$)")]
    UnknownHash,
    /// It looks like a token, and would be taken for one.
    #[error("a password cannot begin with {prefix}: tokens do")]
    PasswordLikeToken {
        /// How tokens begin.
        prefix: &'static str,
    },
    /// A label is too long.
    #[error("a label has at most {max} bytes")]
    LabelTooLong {
        /// The maximum.
        max: usize,
    },
    /// A label with control characters.
    #[error("a label has no control characters")]
    LabelWithControls,
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
    Hash(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
