//! What reaches a connection from elsewhere: answers of tickets, wakes, a request to close.
//!
//! Bounded by construction: at most one answer per outstanding ticket, and the connection bounds its tickets; a wake and a
//! close are flags.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::codec::reason::ReasonCode;
use crate::hooks::PublishAnswer;

/// The answer of a ticket, of whatever kind.
#[derive(Debug)]
pub enum Answer {
    /// Of `on_publish`.
    Published(PublishAnswer),
    /// Of `on_release`.
    Released(bool),
    /// Of `on_subscribe` and `on_unsubscribe`.
    Reasons(Vec<ReasonCode>),
    /// The ticket was dropped: close the connection.
    Dropped,
}

impl From<PublishAnswer> for Answer {
    fn from(answer: PublishAnswer) -> Self {
        Self::Published(answer)
    }
}

impl From<bool> for Answer {
    fn from(existed: bool) -> Self {
        Self::Released(existed)
    }
}

impl From<Vec<ReasonCode>> for Answer {
    fn from(reasons: Vec<ReasonCode>) -> Self {
        Self::Reasons(reasons)
    }
}

/// One per connection, shared with everybody who may have something for it.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    notify: Notify,
}

/// What was in a mailbox.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) answers: Vec<(u64, Answer)>,
    pub(crate) wake: bool,
    pub(crate) close: Option<ReasonCode>,
}

impl Mailbox {
    pub(crate) fn answer(&self, number: u64, answer: Answer) {
        self.change(|inner| inner.answers.push((number, answer)));
    }

    pub(crate) fn wake(&self) {
        self.change(|inner| inner.wake = true);
    }

    pub(crate) fn close(&self, reason: ReasonCode) {
        self.change(|inner| inner.close = inner.close.or(Some(reason)));
    }

    /// Waits until there is something. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> Inner {
        std::mem::take(&mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }
}
