//! Ordinary messages that wait for one session: filled by publishers, emptied by the session's connection.
//!
//! While nobody is connected only QoS 1 and 2 are kept. A full queue drops what comes, and says so; it is also full when
//! nothing is left for all queues, or those of its user, together ([`budget`](crate::budget)). What has a place at
//! rest got it under the lock of the queue, so that places are in order.

mod message;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

pub(crate) use self::message::{Queued, Shared, Stored, copy, size};
use crate::budget::{CONNECTED_BYTES, Share};
use crate::codec::packet::{Publish, Qos};
use crate::journal::{Change, Entry};

/// The queue of one session. Its number names the session in the router, and at rest.
#[derive(Debug)]
pub(crate) struct Queue {
    number: u64,
    /// The session is at rest: what comes at QoS 1 and 2 is to be as well.
    durable: AtomicBool,
    messages_max: usize,
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    messages: VecDeque<Queued>,
    bytes: usize,
    /// Of the bytes for all queues.
    share: Share,
    state: State,
    /// The next place at rest.
    next_place: u64,
    /// Messages that found no room.
    dropped: u64,
    /// How many of them were known at the last look, and whether there were new ones then.
    looked_at: u64,
    was_dropping: bool,
    /// Of the connection while it waits.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Connected,
    Away,
    /// The session has ended; nothing is kept.
    Ended,
}

/// What `push` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits for the session.
    Waits,
    /// Nobody is there for it: QoS 0 to a client that is away, or the session has ended.
    Nobody,
    /// The queue is full.
    Full,
}

/// What waits in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) dropped: u64,
    /// Since the last look.
    pub(crate) dropped_lately: u64,
    /// There were none between the last two looks.
    pub(crate) begins_to_drop: bool,
}

impl Queue {
    pub(crate) fn new(number: u64, messages_max: usize, bytes_max: usize, share: Share) -> Self {
        let inner = Inner {
            share,
            ..Inner::default()
        };
        Self {
            number,
            durable: AtomicBool::new(false),
            messages_max,
            bytes_max,
            inner: Mutex::new(inner),
        }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// A queue as it was found at rest, for a client that is away.
    pub(crate) fn restore(&self, messages: VecDeque<Queued>, next_place: u64) {
        let mut inner = self.lock();
        inner.state = State::Away;
        inner.messages = messages;
        inner.count_again(0);
        inner.next_place = next_place;
    }

    /// Is what comes to be at rest?
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    pub(crate) fn set_durable(&self, durable: bool) {
        self.durable.store(durable, Ordering::Relaxed);
    }

    /// Adds a message at the end. `envelope` makes the entry from the form of the publish to be kept.
    pub(crate) fn push(
        &self,
        shared: &mut Shared,
        qos: Qos,
        envelope: impl FnOnce(Arc<Publish>) -> Queued,
    ) -> Pushed {
        let waker = {
            let mut inner = self.lock();
            let away = inner.state == State::Away;
            if inner.state == State::Ended || (away && qos == Qos::AtMostOnce) {
                return Pushed::Nobody;
            }
            let bytes = size(shared.live());
            let total = inner.bytes + bytes;
            if inner.messages.len() >= self.messages_max
                || total > self.bytes_max
                || !inner.share.try_hold(total)
            {
                inner.dropped += 1;
                return Pushed::Full;
            }
            let durable = qos > Qos::AtMostOnce && self.is_durable();
            if durable && !shared.has_disk() {
                inner.dropped += 1;
                return Pushed::Full;
            }
            let publish = if away || durable || inner.messages.len() >= COMPACT_FROM {
                shared.compact()
            } else {
                shared.live()
            };
            let mut queued = envelope(Arc::clone(publish));
            if durable {
                shared.note(self.number, inner.next_place, &mut queued);
                inner.next_place += 1;
            }
            inner.bytes = total;
            inner.messages.push_back(queued);
            inner.waker.take()
        };
        wake(waker);
        Pushed::Waits
    }

    /// Adds a retained message that a subscription asks for. They are shared with the retained store, so that only their
    /// number counts, and it is looked at once for each subscription (`admitted`): one SUBSCRIBE may exceed the limit of this
    /// queue. It takes from what all queues may hold: what is retained may be replaced while it waits.
    pub(crate) fn push_retained(
        &self,
        mut queued: Queued,
        admitted: &mut Option<bool>,
        entry: &mut Option<Entry>,
    ) -> Pushed {
        let waker = {
            let mut inner = self.lock();
            if inner.state == State::Ended {
                return Pushed::Nobody;
            }
            let has_room = inner.messages.len() < self.messages_max;
            let total = inner.bytes + size(&queued.publish);
            if !*admitted.get_or_insert(has_room) || !inner.share.try_hold(total) {
                *admitted = Some(false);
                inner.dropped += 1;
                return Pushed::Full;
            }
            if queued.qos > Qos::AtMostOnce && self.is_durable() {
                let mut shared = Shared::again(queued.clone(), entry.take());
                queued.stored = None;
                shared.note(self.number, inner.next_place, &mut queued);
                inner.next_place += 1;
                *entry = shared.entry;
            } else {
                queued.stored = None;
            }
            inner.messages.push_back(queued);
            inner.bytes = total;
            inner.waker.take()
        };
        wake(waker);
        Pushed::Waits
    }

    /// Takes messages from the front into `into`: at most `packets` of QoS 1 and 2, and about `bytes` in all (at least one
    /// message).
    pub(crate) fn take(&self, mut packets: usize, bytes: usize, into: &mut Vec<Queued>) {
        let mut inner = self.lock();
        let mut taken = 0;
        while taken < bytes
            && let Some(front) = inner.messages.front()
        {
            if front.qos != Qos::AtMostOnce {
                let Some(left) = packets.checked_sub(1) else {
                    break;
                };
                packets = left;
            }
            let Some(queued) = inner.messages.pop_front() else {
                break;
            };
            let bytes = size(&queued.publish);
            inner.bytes = inner.bytes.saturating_sub(bytes);
            taken += bytes;
            into.push(queued);
        }
        inner.hold();
        if inner.messages.is_empty() && inner.messages.capacity() > IDLE_CAPACITY {
            inner.messages = VecDeque::new();
        }
    }

    /// Ready while `take(packets, ..)` would find something.
    pub(crate) fn poll_ready(&self, packets: usize, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        match inner.messages.front() {
            Some(front) if packets > 0 || front.qos == Qos::AtMostOnce => Poll::Ready(()),
            // Behind a message that must wait for an ack there is nothing to wake for.
            Some(_) => Poll::Pending,
            None => {
                match &mut inner.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// A connection has come.
    pub(crate) fn connect(&self) {
        let mut inner = self.lock();
        inner.state = State::Connected;
        let bytes = inner.bytes;
        inner.share.set_free(CONNECTED_BYTES, bytes);
    }

    /// The connection has gone; the session goes on.
    pub(crate) fn leave(&self) {
        let mut inner = self.lock();
        inner.state = State::Away;
        inner.waker = None;
        inner
            .messages
            .retain(|queued| queued.qos != Qos::AtMostOnce);
        inner.count_again(0);
        for queued in inner.messages.iter_mut().filter(|it| it.stored.is_none()) {
            queued.publish = Arc::new(copy(&queued.publish));
        }
        inner.messages.shrink_to_fit();
    }

    /// What waits now.
    pub(crate) fn load(&self) -> Load {
        self.lock().load()
    }

    /// What waits now, for the one who looks now and then.
    pub(crate) fn look(&self) -> Load {
        let mut inner = self.lock();
        let load = inner.load();
        inner.looked_at = inner.dropped;
        inner.was_dropping = load.dropped_lately > 0;
        load
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lock().state == State::Connected
    }

    /// Takes out what came by a shared subscription.
    pub(crate) fn take_share(&self, share: &str) -> Vec<Queued> {
        let mut inner = self.lock();
        let mut taken = Vec::new();
        for _ in 0..inner.messages.len() {
            let Some(queued) = inner.messages.pop_front() else {
                break;
            };
            if queued.share.as_deref() == Some(share) {
                let bytes = size(&queued.publish);
                inner.bytes = inner.bytes.saturating_sub(bytes);
                taken.push(queued);
            } else {
                inner.messages.push_back(queued);
            }
        }
        inner.hold();
        taken
    }

    /// Takes out what is over, in order.
    pub(crate) fn take_if(&self, over: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let mut inner = self.lock();
        if !inner.messages.iter().any(&over) {
            return Vec::new();
        }
        let messages = std::mem::take(&mut inner.messages).into_iter();
        let (taken, left): (Vec<_>, VecDeque<_>) =
            messages.fold(Default::default(), |(mut taken, mut left), queued| {
                if over(&queued) {
                    taken.push(queued);
                } else {
                    left.push_back(queued);
                }
                (taken, left)
            });
        inner.messages = left;
        let bytes: usize = taken.iter().map(|queued| size(&queued.publish)).sum();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        inner.hold();
        taken
    }

    /// Notes that messages that were taken out are done with.
    pub(crate) fn settle(&self, taken: &[Queued], entry: Option<&mut Entry>) {
        let Some(entry) = entry else { return };
        for at in taken.iter().filter_map(|queued| queued.stored) {
            entry.push(Change::Settled {
                session: self.number,
                at,
            });
        }
    }

    /// The session has ended. Returns what came by shared subscriptions: it is for others now.
    pub(crate) fn end(&self) -> Vec<Queued> {
        let ended = Inner {
            state: State::Ended,
            ..Inner::default()
        };
        let inner = std::mem::replace(&mut *self.lock(), ended);
        let shared = inner.messages.into_iter();
        shared.filter(|queued| queued.share.is_some()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives back what is not held any more.
    fn hold(&mut self) {
        self.share.hold(self.bytes);
    }

    /// Counts the bytes again, of which so many need no budget from now on.
    fn count_again(&mut self, free: usize) {
        let bytes = self.messages.iter().map(|queued| size(&queued.publish));
        self.bytes = bytes.sum();
        self.share.set_free(free, self.bytes);
    }

    fn load(&self) -> Load {
        let dropped_lately = self.dropped - self.looked_at;
        Load {
            messages: self.messages.len(),
            bytes: self.bytes,
            dropped: self.dropped,
            dropped_lately,
            begins_to_drop: dropped_lately > 0 && !self.was_dropping,
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// From this many waiting messages on, new ones are kept as compact copies.
const COMPACT_FROM: usize = 64;
/// An empty queue with more room than this gives its memory back.
const IDLE_CAPACITY: usize = 8;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budgets;
    use bytes::Bytes;

    use crate::codec::properties::PublishProperties;
    use crate::journal::Journal;

    fn publish(qos: Qos) -> Shared {
        Shared::new(
            Arc::new(Publish {
                dup: false,
                qos,
                retain: false,
                topic: "t".into(),
                packet_id: None,
                payload: Bytes::from_static(b"hi"),
                properties: PublishProperties::default().into(),
            }),
            None,
        )
    }

    fn queue(messages_max: usize, bytes_max: usize) -> Queue {
        Queue::new(1, messages_max, bytes_max, Share::default())
    }

    fn push(queue: &Queue, qos: Qos) -> Pushed {
        push_shared(queue, &mut publish(qos), qos)
    }

    fn push_shared(queue: &Queue, shared: &mut Shared, qos: Qos) -> Pushed {
        queue.push(shared, qos, |publish| Queued {
            publish,
            expires_at: None,
            qos,
            retain: false,
            subscription_identifiers: Vec::new(),
            share: None,
            stored: None,
        })
    }

    #[test]
    fn a_full_queue_drops_what_comes() {
        let queue = queue(2, usize::MAX);
        assert_eq!(push(&queue, Qos::AtLeastOnce), Pushed::Waits);
        assert_eq!(push(&queue, Qos::AtMostOnce), Pushed::Waits);
        assert_eq!(push(&queue, Qos::AtLeastOnce), Pushed::Full);
    }

    #[test]
    fn it_begins_to_drop_once_until_it_has_stopped() {
        let queue = queue(1, usize::MAX);
        let begins = || {
            let load = queue.look();
            (load.dropped, load.begins_to_drop)
        };
        push(&queue, Qos::AtLeastOnce);
        assert_eq!(begins(), (0, false));
        push(&queue, Qos::AtLeastOnce);
        assert_eq!(begins(), (1, true));
        push(&queue, Qos::AtLeastOnce);
        assert_eq!(begins(), (2, false));
        assert_eq!(begins(), (2, false));
        push(&queue, Qos::AtLeastOnce);
        assert_eq!(begins(), (3, true));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = queue(100, size_of::<Publish>() * 2);
        assert_eq!(push(&queue, Qos::AtLeastOnce), Pushed::Waits);
        assert_eq!(push(&queue, Qos::AtLeastOnce), Pushed::Full);
        let mut taken = Vec::new();
        queue.take(1, 1, &mut taken);
        assert_eq!(push(&queue, Qos::AtLeastOnce), Pushed::Waits);
    }

    #[test]
    fn queues_share_what_they_may_hold() {
        let one = size_of::<Publish>() + 3;
        let budgets = Budgets::new(one * 100, one * 75);
        let queue = |user: &str| {
            let share = budgets.share(&user.into());
            Queue::new(1, 1_000, usize::MAX, share)
        };
        let fill =
            |queue: &Queue| (0..1_000).find(|_| push(queue, Qos::AtLeastOnce) == Pushed::Full);
        let (first, second, third) = (queue("alice"), queue("alice"), queue("bob"));
        assert_eq!(fill(&first), Some(75));
        assert_eq!(fill(&second), Some(0));
        assert_eq!(fill(&third), Some(25));
        first.end();
        assert_eq!(fill(&second), Some(75));
        third.take(usize::MAX, usize::MAX, &mut Vec::new());
        second.leave();
        assert_eq!(budgets.left(), one * 25);
        drop(second);
        assert_eq!(budgets.left(), one * 100);
    }

    #[test]
    fn qos0_is_not_kept_for_a_client_that_is_away() {
        let queue = queue(10, usize::MAX);
        push(&queue, Qos::AtMostOnce);
        push(&queue, Qos::AtLeastOnce);
        queue.leave();
        assert_eq!(push(&queue, Qos::AtMostOnce), Pushed::Nobody);
        assert_eq!(push(&queue, Qos::ExactlyOnce), Pushed::Waits);
        let mut taken = Vec::new();
        queue.take(10, usize::MAX, &mut taken);
        let qos: Vec<Qos> = taken.iter().map(|queued| queued.qos).collect();
        assert_eq!(qos, [Qos::AtLeastOnce, Qos::ExactlyOnce]);
    }

    #[test]
    fn the_order_is_kept_when_the_window_is_closed() {
        let queue = queue(10, usize::MAX);
        push(&queue, Qos::AtMostOnce);
        push(&queue, Qos::AtLeastOnce);
        push(&queue, Qos::AtMostOnce);
        let mut taken = Vec::new();
        queue.take(0, usize::MAX, &mut taken);
        assert_eq!(taken.len(), 1);
        queue.take(1, usize::MAX, &mut taken);
        assert_eq!(taken.len(), 3);
    }

    #[test]
    fn sessions_at_rest_share_a_message_also_when_they_are_left() {
        let queues = [1, 2].map(|number| Queue::new(number, 10, usize::MAX, Share::default()));
        let mut shared = publish(Qos::AtLeastOnce);
        shared.entry = Some(Arc::new(Journal::new(1)).open());
        for queue in &queues {
            queue.set_durable(true);
            push_shared(queue, &mut shared, Qos::AtLeastOnce);
            queue.leave();
        }
        let [first, second] = queues.map(|queue| queue.lock().messages[0].publish.clone());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, shared.live()));
    }

    #[test]
    fn an_ended_session_takes_nothing() {
        let queue = queue(10, usize::MAX);
        queue.end();
        assert_eq!(push(&queue, Qos::AtLeastOnce), Pushed::Nobody);
    }
}
