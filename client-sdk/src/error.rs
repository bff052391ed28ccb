//! What can go wrong, sorted by what the app can do about it.

use std::time::Duration;

use proto::error::ErrorName;

/// Why something was not done. [`Error::advice`] says what can be done about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for what cannot be: a bad address, an empty message.
    #[error("{0}")]
    Invalid(String),
    /// The server looked at it and said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The server does not let this user in. The client has stopped trying.
    #[error("not let in: {0}")]
    SignIn(String),
    /// Another program has connected as this device. The client has stopped, so that the two do not throw each other out.
    #[error("another program is connected as this device")]
    Replaced,
    /// The user has as many devices as the server allows. The client has stopped: first another one has to be signed out.
    #[error("this user has too many devices")]
    TooManyDevices,
    /// The server did not answer in time. What was asked for may still happen.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// As much waits for the server as may.
    #[error("{0} messages wait to be sent")]
    OutboxFull(usize),
    /// Too many calls at once wait for their answers.
    #[error("{0} calls wait for their answers")]
    Busy(usize),
    /// It is not known yet which conversation this is: nothing has been sent to, or come from, this user.
    #[error("nothing is known of this conversation yet")]
    UnknownConversation,
    /// Somebody reads the events of this client already.
    #[error("the events are being read already")]
    EventsTaken,
    /// The local store has not given this position: it is another one than that of the app's database, or an older state of
    /// it.
    #[error("the local store has not given the position {0}")]
    UnknownPosition(u64),
    /// The local store failed.
    #[error(transparent)]
    Store(StoreError),
    /// The server said what nobody can understand.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// A refusal of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct Refusal {
    /// For programs: a name of `docs/protocol.md`, as `forbidden`, `not_found`, `rate`.
    pub code: String,
    /// For people.
    pub message: String,
    /// With `rate`: when it may be tried again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    /// Is it this refusal?
    pub fn is(&self, name: ErrorName) -> bool {
        self.code == name.name()
    }
}

/// Why the local store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full, or failed. Nothing more is written until the client is opened again.
    #[error("the local store cannot be written or read: {0}")]
    Io(String),
    /// Another client has the folder open.
    #[error("the folder is in use")]
    InUse,
    /// It was written by a later version.
    #[error("the folder has schema {found}, this version knows {known}")]
    Newer {
        /// What it has.
        found: u64,
        /// What is known here.
        known: u64,
    },
    /// It belongs to another user.
    #[error("the folder belongs to {owner}")]
    OtherUser {
        /// Whose it is.
        owner: String,
    },
    /// What is in it makes no sense.
    #[error("the local store is damaged: {0}")]
    Damaged(String),
    /// The client was closed.
    #[error("the local store is closed")]
    Closed,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::Closed,
            error => Self::Store(error),
        }
    }
}

/// What an app can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Try it again after a while; [`Duration::ZERO`]: whenever it is convenient.
    Retry(Duration),
    /// Ask the user for the password, or for a new token, and open the client anew.
    SignIn,
    /// Tell the user: it will be refused again.
    Explain,
    /// Wait for events, then try again: more has to be known or settled first. What changes something and was not answered
    /// in time is tried again under its own [`RequestId`](crate::RequestId), or after a look at what became of it.
    Wait,
    /// Look after the disk or the folder, and open the client anew. With [`Error::UnknownPosition`]: go on without the
    /// position, and pass over the entries that the app has already.
    CheckStorage,
    /// Install a newer version of the app.
    Update,
    /// Close the other program, or this one.
    CloseOther,
    /// The program that calls is wrong.
    Fix,
}

impl Error {
    /// What the app can do about it.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Invalid(_) | Self::EventsTaken | Self::Closed => Advice::Fix,
            Self::Refused(refusal) => match refusal.retry_after {
                Some(after) => Advice::Retry(after),
                None if refusal.is(ErrorName::Unavailable) => Advice::Retry(Duration::ZERO),
                None => Advice::Explain,
            },
            Self::TooManyDevices => Advice::Explain,
            Self::SignIn(_) => Advice::SignIn,
            Self::Replaced | Self::Store(StoreError::InUse) => Advice::CloseOther,
            // Not `Retry`: what was asked for may have been done.
            Self::Timeout(_) | Self::OutboxFull(_) | Self::Busy(_) | Self::UnknownConversation => {
                Advice::Wait
            }
            Self::Store(StoreError::Newer { .. }) | Self::Protocol(_) => Advice::Update,
            Self::Store(_) | Self::UnknownPosition(_) => Advice::CheckStorage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_can_be_done() {
        let rate = Refusal {
            retry_after: Some(Duration::from_millis(7)),
            ..Refusal::new("rate", "too fast")
        };
        for (error, advice) in [
            (
                Error::Refused(rate),
                Advice::Retry(Duration::from_millis(7)),
            ),
            (
                Error::Refused(Refusal::new("forbidden", "no")),
                Advice::Explain,
            ),
            (
                Error::Refused(Refusal::new("unavailable", "later")),
                Advice::Retry(Duration::ZERO),
            ),
            (Error::SignIn("bad password".into()), Advice::SignIn),
            (StoreError::InUse.into(), Advice::CloseOther),
            (StoreError::Io("full".into()).into(), Advice::CheckStorage),
            (
                StoreError::Newer { found: 2, known: 1 }.into(),
                Advice::Update,
            ),
            (Error::OutboxFull(1), Advice::Wait),
            (Error::Timeout(Duration::ZERO), Advice::Wait),
        ] {
            assert_eq!(error.advice(), advice, "{error}");
        }
    }
}
