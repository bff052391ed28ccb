//! What is to be at rest, in order: from the connections and the router to the writer of the store.
//!
//! 1. Whoever is about to change something opens an [`Entry`]: its place in the order is taken before anybody can see the
//!    change, so that what others make of it comes later.
//! 2. What changes is pushed into it; nothing here waits.
//! 3. Committed with a [`Waiter`], the writer hurries, and answers when the entry is durable. Without one it is *relaxed*:
//!    it is written with the next commit, or soon.
//!
//! After an error of the store nothing is taken any more: every waiter is told so.
//!
//! Bounded by who feeds it: while too much waits, connections read and deliver nothing ([`Journal::poll_room`]).

mod change;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use self::change::{Change, MessageRow, QueueRow, SessionRow, SubscriptionRow, WillRow};
use crate::mailbox::{Answer, Mailbox};

/// Entries on their way to the writer.
#[derive(Debug)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    ready: Condvar,
    /// The last number that a session, a message or a subscription got.
    numbers: AtomicU64,
    congested: AtomicBool,
    /// The disk budget is used up: no further messages.
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    /// The number of the first slot.
    first: u64,
    /// `None`: opened and not committed yet.
    slots: VecDeque<Option<Written>>,
    rows: usize,
    bytes: usize,
    /// Committed entries with a waiter.
    urgent: usize,
    /// Connections that wait for room.
    wakers: Vec<Waker>,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// What is in is still written.
    Closed,
    /// A write failed.
    Poisoned,
}

/// A committed entry.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) changes: Vec<Change>,
    pub(crate) waiter: Option<Waiter>,
    bytes: usize,
}

/// Changes that become durable together. Dropped, it is committed relaxed.
#[derive(Debug)]
pub(crate) struct Entry {
    journal: Arc<Journal>,
    slot: u64,
    changes: Vec<Change>,
}

/// Who waits for an entry. Dropped without having been told, it fails.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A connection: the answer for one of its numbers.
    Letter(Letter),
    /// A task.
    Signal(oneshot::Sender<()>),
}

/// An answer that waits for an entry.
#[derive(Debug)]
pub(crate) struct Letter {
    mailbox: Arc<Mailbox>,
    number: u64,
    answer: Option<Answer>,
}

/// Why the writer has been woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Work,
    TimedOut,
    /// Closed, and everything has been taken.
    Closed,
}

impl Journal {
    /// A journal whose next number is `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            inner: Mutex::default(),
            ready: Condvar::new(),
            numbers: AtomicU64::new(next),
            congested: AtomicBool::new(false),
            full: AtomicBool::new(false),
        }
    }

    /// A number that nothing at rest has.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes the next place in the order. After an error of the store there is no order any more.
    pub(crate) fn open(self: &Arc<Self>) -> Entry {
        let mut inner = self.lock();
        let slot = if inner.end == End::Poisoned {
            FILLED
        } else {
            inner.slots.push_back(None);
            inner.first + inner.slots.len() as u64 - 1
        };
        Entry {
            slot,
            journal: Arc::clone(self),
            changes: Vec::new(),
        }
    }

    /// Ready while there is room for more.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        let mut inner = self.lock();
        // Asked again under the lock: the writer clears the flag under it.
        if self.has_room() {
            return Poll::Ready(());
        }
        if !inner.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            inner.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The disk budget is used up, or no more.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Is there no disk for further messages?
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.congested.load(Ordering::Acquire)
    }

    /// Takes what one commit can hold, one entry at least. Waits for the first at most `idle`, then for somebody who is in
    /// a hurry at most `delay`.
    pub(crate) fn take(&self, into: &mut Vec<Written>, idle: Duration, delay: Duration) -> Wake {
        let nothing = |inner: &mut Inner| !inner.has_next() && inner.end == End::Open;
        let (inner, _) = self
            .ready
            .wait_timeout_while(self.lock(), idle, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        let no_hurry = |inner: &mut Inner| {
            inner.urgent == 0 && inner.rows < RELAXED_ROWS && inner.end == End::Open
        };
        if !inner.has_next() {
            return match inner.end {
                End::Open => Wake::TimedOut,
                End::Closed | End::Poisoned => Wake::Closed,
            };
        }
        let (mut inner, _) = self
            .ready
            .wait_timeout_while(inner, delay, no_hurry)
            .unwrap_or_else(PoisonError::into_inner);
        let (rows_max, bytes_max) = if inner.urgent > 0 {
            (GROUP_ROWS, GROUP_BYTES)
        } else {
            (RELAXED_ROWS, RELAXED_BYTES)
        };
        let (mut rows, mut bytes) = (0, 0);
        while rows < rows_max
            && bytes < bytes_max
            && let Some(written) = inner.pop()
        {
            rows += written.changes.len();
            bytes += written.bytes;
            into.push(written);
        }
        let room = inner.rows < ROOM_ROWS / 2 && inner.bytes < ROOM_BYTES / 2;
        let wakers = if room {
            self.congested.store(false, Ordering::Release);
            std::mem::take(&mut inner.wakers)
        } else {
            Vec::new()
        };
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        Wake::Work
    }

    /// The broker has ended: what is in is still written.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        if inner.end == End::Open {
            inner.end = End::Closed;
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// A write failed: whoever waits is told, now and from now on.
    pub(crate) fn poison(&self) {
        let mut inner = self.lock();
        inner.end = End::Poisoned;
        let waiting = std::mem::take(&mut inner.slots);
        (inner.rows, inner.bytes, inner.urgent) = (0, 0, 0);
        let wakers = std::mem::take(&mut inner.wakers);
        self.congested.store(false, Ordering::Release);
        drop(inner);
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn fill(&self, slot: u64, written: Written) {
        let mut inner = self.lock();
        if inner.end == End::Poisoned {
            drop(inner);
            return drop(written);
        }
        let (rows, bytes) = (written.changes.len(), written.bytes);
        let urgent = written.waiter.is_some();
        let Some(place) = slot
            .checked_sub(inner.first)
            .and_then(|place| usize::try_from(place).ok())
        else {
            return;
        };
        if let Some(place) = inner.slots.get_mut(place) {
            *place = Some(written);
        }
        inner.rows += rows;
        inner.bytes += bytes;
        inner.urgent += usize::from(urgent);
        if inner.rows >= ROOM_ROWS || inner.bytes >= ROOM_BYTES {
            self.congested.store(true, Ordering::Release);
        }
        // The first one in the queue, or a reason to hurry: anything else comes along.
        let wake = place == 0 || urgent || inner.rows >= RELAXED_ROWS;
        drop(inner);
        if wake {
            self.ready.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_next(&self) -> bool {
        self.slots.front().is_some_and(Option::is_some)
    }

    fn pop(&mut self) -> Option<Written> {
        if !self.has_next() {
            return None;
        }
        let written = self.slots.pop_front()??;
        self.first += 1;
        self.rows -= written.changes.len();
        self.bytes -= written.bytes;
        self.urgent -= usize::from(written.waiter.is_some());
        Some(written)
    }
}

impl Entry {
    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Is there no disk for further messages?
    pub(crate) fn is_full(&self) -> bool {
        self.journal.is_full()
    }

    /// A number that nothing at rest has.
    pub(crate) fn next_number(&self) -> u64 {
        self.journal.next_number()
    }

    /// Hands the changes to the writer. The waiter is told when they, and all before them, are durable.
    pub(crate) fn commit(mut self, waiter: Waiter) {
        self.fill(Some(waiter));
    }

    fn fill(&mut self, waiter: Option<Waiter>) {
        let changes = std::mem::take(&mut self.changes);
        let written = Written {
            bytes: changes.iter().map(Change::bytes).sum(),
            changes,
            waiter,
        };
        self.journal.fill(self.slot, written);
        self.slot = FILLED;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.slot != FILLED {
            self.fill(None);
        }
    }
}

impl Waiter {
    /// An answer for a connection.
    pub(crate) fn letter(mailbox: &Arc<Mailbox>, number: u64, answer: Answer) -> Self {
        Self::Letter(Letter {
            mailbox: Arc::clone(mailbox),
            number,
            answer: Some(answer),
        })
    }

    /// The entry is durable.
    pub(crate) fn tell(self) {
        match self {
            Self::Letter(mut letter) => {
                if let Some(answer) = letter.answer.take() {
                    letter.mailbox.answer(letter.number, answer);
                }
            }
            Self::Signal(sender) => {
                // Who does not wait any more does not want to know either.
                let _gone = sender.send(());
            }
        }
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.mailbox.answer(self.number, Answer::Dropped);
        }
    }
}

/// Most rows of one commit, about: an entry is not split.
const GROUP_ROWS: usize = 512;
/// Most bytes of one commit, about.
const GROUP_BYTES: usize = 1024 * 1024;
/// When nobody waits, much is gathered: a delivery and its acknowledgement in one commit cost one row.
const RELAXED_ROWS: usize = 8 * 1024;
const RELAXED_BYTES: usize = 4 * 1024 * 1024;
/// From so many rows that wait, or so many bytes, connections hold back.
const ROOM_ROWS: usize = 32 * 1024;
const ROOM_BYTES: usize = 16 * 1024 * 1024;
/// The slot of an entry that has been handed over, or that nobody would take.
const FILLED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Arc<Journal> {
        Arc::new(Journal::new(1))
    }

    fn note(journal: &Arc<Journal>, change: Change) {
        journal.open().push(change);
    }

    fn take(journal: &Journal) -> Vec<u64> {
        let mut taken = Vec::new();
        journal.take(&mut taken, Duration::ZERO, Duration::ZERO);
        let changes = taken.into_iter().flat_map(|written| written.changes);
        changes
            .map(|change| match change {
                Change::End(number) => number,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn entries_come_in_the_order_in_which_they_were_opened() {
        let journal = journal();
        let mut first = journal.open();
        note(&journal, Change::End(2));
        assert_eq!(take(&journal), [0; 0], "the first is still open");
        first.push(Change::End(1));
        drop(first);
        assert_eq!(take(&journal), [1, 2]);
    }

    #[test]
    fn a_waiter_is_told_or_fails() {
        let journal = journal();
        let mailbox: Arc<Mailbox> = Arc::default();
        let commit = |number| {
            let mut entry = journal.open();
            entry.push(Change::End(number));
            entry.commit(Waiter::letter(&mailbox, number, Answer::Released(true)));
        };
        commit(1);
        let mut taken = Vec::new();
        journal.take(&mut taken, Duration::ZERO, Duration::ZERO);
        taken
            .into_iter()
            .filter_map(|it| it.waiter)
            .for_each(Waiter::tell);
        commit(2);
        journal.poison();
        commit(3);
        let Poll::Ready(letters) = mailbox.poll_take(&Context::from_waker(Waker::noop())) else {
            panic!("nobody was told")
        };
        let told: Vec<_> = letters
            .answers
            .iter()
            .map(|(number, answer)| (*number, matches!(answer, Answer::Released(true))))
            .collect();
        assert_eq!(told, [(1, true), (2, false), (3, false)]);
    }

    #[test]
    fn after_an_error_of_the_store_nothing_is_kept() {
        let journal = journal();
        let open = journal.open();
        note(&journal, Change::End(1));
        journal.poison();
        drop(open);
        for number in 0..100 {
            note(&journal, Change::End(number));
        }
        assert_eq!(journal.lock().slots.capacity(), 0);
        assert!(journal.has_room());
    }

    #[test]
    fn too_much_that_waits_holds_connections_back() {
        let journal = journal();
        let cx = Context::from_waker(Waker::noop());
        for number in 0..ROOM_ROWS as u64 {
            assert!(journal.poll_room(&cx).is_ready());
            note(&journal, Change::End(number));
        }
        assert!(journal.poll_room(&cx).is_pending());
        while !journal.has_room() {
            take(&journal);
        }
        assert!(journal.poll_room(&cx).is_ready());
    }
}
