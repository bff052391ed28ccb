//! What reaches a connection from elsewhere: answers of tickets, wakes, steps of an authentication, a request to close.
//!
//! Bounded by construction: at most one answer per outstanding ticket, and the connection bounds its tickets; a wake and a
//! close are flags.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::codec::reason::ReasonCode;
use crate::connection::Stepped;
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
    /// What was noted about a delivery is at rest.
    Kept,
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
}

#[derive(Debug, Default)]
struct Inner {
    letters: Letters,
    /// Of the connection while it waits: taken by the first who has something, so that a burst wakes once.
    waker: Option<Waker>,
    /// The connection has ended: nothing is kept any more.
    closed: bool,
}

/// What was in a mailbox.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) answers: Vec<(u64, Answer)>,
    pub(crate) wake: bool,
    pub(crate) close: Option<ReasonCode>,
    /// A step of a re-authentication: at most one is under way.
    pub(crate) stepped: Option<Box<Stepped>>,
}

impl Letters {
    fn is_empty(&self) -> bool {
        self.answers.is_empty() && !self.wake && self.close.is_none() && self.stepped.is_none()
    }
}

impl Mailbox {
    pub(crate) fn answer(&self, number: u64, answer: Answer) {
        self.change(|letters| letters.answers.push((number, answer)));
    }

    pub(crate) fn wake(&self) {
        self.change(|letters| letters.wake = true);
    }

    pub(crate) fn stepped(&self, stepped: Stepped) {
        self.change(|letters| letters.stepped = Some(Box::new(stepped)));
    }

    /// The first request counts.
    pub(crate) fn close(&self, reason: ReasonCode) {
        self.change(|letters| letters.close = letters.close.or(Some(reason)));
    }

    /// Takes everything, if there is something; otherwise the task is woken when there is.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Poll<Letters> {
        let mut inner = self.lock();
        if inner.letters.is_empty() {
            match &mut inner.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut inner.letters))
    }

    /// The request to close, if there is one; it stays.
    pub(crate) fn close_requested(&self) -> Option<ReasonCode> {
        self.lock().letters.close
    }

    /// The connection has ended: what comes from now on is dropped.
    pub(crate) fn shut(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.letters = Letters::default();
        inner.waker = None;
    }

    fn change(&self, change: impl FnOnce(&mut Letters)) {
        let waker = {
            let mut inner = self.lock();
            if inner.closed {
                return;
            }
            change(&mut inner.letters);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_burst_wakes_once_and_is_taken_at_once() {
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        let cx = Context::from_waker(&waker);
        let mailbox = Mailbox::default();
        assert!(mailbox.poll_take(&cx).is_pending());
        mailbox.answer(1, Answer::Released(true));
        mailbox.answer(2, Answer::Released(true));
        mailbox.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let Poll::Ready(letters) = mailbox.poll_take(&cx) else {
            panic!("nothing there")
        };
        assert_eq!((letters.answers.len(), letters.wake), (2, true));
        assert!(mailbox.poll_take(&cx).is_pending());
    }

    #[test]
    fn the_first_request_to_close_counts() {
        let mailbox = Mailbox::default();
        mailbox.close(ReasonCode::SessionTakenOver);
        mailbox.close(ReasonCode::AdministrativeAction);
        assert_eq!(
            mailbox.close_requested(),
            Some(ReasonCode::SessionTakenOver)
        );
    }

    #[test]
    fn a_shut_mailbox_keeps_nothing() {
        let mailbox = Mailbox::default();
        mailbox.shut();
        mailbox.answer(1, Answer::Dropped);
        assert!(mailbox.lock().letters.is_empty());
    }
}
