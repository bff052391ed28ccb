//! Cursors and marks on their way to the store: coalesced, so that a million acks cost a few writes.
//!
//! Bounded by construction: one entry per (device, conversation), (user, conversation), departed device and event that waits for one. One task
//! carries them over; the store makes them durable within 250 ms.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::ids::{ConversationId, DeviceId, UserId};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::device::{Device, Inflight};
use crate::store::{ChatStore, Durability, Move, StoreError};

/// What has moved and is not in the store yet.
pub(crate) struct Progress {
    store: Arc<dyn ChatStore>,
    pending: Mutex<Pending>,
    notify: Notify,
    /// What failed last, if nothing has succeeded since.
    failing: Mutex<Option<StoreError>>,
}

#[derive(Default)]
struct Pending {
    moves: HashMap<Key, Move>,
    departed: HashMap<DeviceId, Departed>,
    /// What devices have of their private queues.
    events: HashMap<DeviceId, Vec<u64>>,
    barriers: Vec<oneshot::Sender<()>>,
    /// The task has ended: nobody else carries over what comes.
    ended: bool,
}

/// What a device leaves when its connection ends.
pub(crate) struct Departed {
    pub(crate) device: Device,
    /// Deliveries unacknowledged.
    pub(crate) inflight: Vec<Inflight>,
    /// Positions of `…/log` subscriptions that are over.
    pub(crate) positions: Vec<DeviceId>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Cursor(DeviceId, ConversationId),
    Marks(UserId, ConversationId),
    Receipt(UserId, ConversationId),
}

impl Progress {
    pub(crate) fn new(store: Arc<dyn ChatStore>) -> Self {
        Self {
            store,
            pending: Mutex::default(),
            notify: Notify::new(),
            failing: Mutex::default(),
        }
    }

    /// Takes moves; those of the same thing become one.
    pub(crate) fn push(&self, moves: impl IntoIterator<Item = Move>) {
        let mut pending = self.pending();
        for one in moves {
            match pending.moves.entry(key(&one)) {
                std::collections::hash_map::Entry::Occupied(mut held) => {
                    let merged = merge(*held.get(), one);
                    held.insert(merged);
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(one);
                }
            }
        }
        drop(pending);
        self.notify.notify_one();
    }

    /// A device has these events of its private queue.
    pub(crate) fn events_ended(&self, device: DeviceId, places: Vec<u64>) {
        let mut pending = self.pending();
        pending.events.entry(device).or_default().extend(places);
        drop(pending);
        self.notify.notify_one();
    }

    /// A device has gone.
    pub(crate) fn departed(&self, departed: Departed) {
        let device = departed.device.id;
        self.pending().departed.insert(device, departed);
        self.notify.notify_one();
    }

    /// Waits until everything so far is in the store (where reads see it; durable is another matter).
    pub(crate) async fn settled(&self) {
        let (sender, receiver) = oneshot::channel();
        let ended = {
            let mut pending = self.pending();
            pending.barriers.push(sender); // what was taken before is carried over before this
            pending.ended
        };
        if ended {
            return self.finish().await;
        }
        self.notify.notify_one();
        let _ended = receiver.await; // an error means that the task has ended and carried over what there was
    }

    /// Carries over until stopped, and once more then.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = self.notify.notified() => false,
                () = stop.cancelled() => true,
            };
            if stopping {
                self.pending().ended = true;
            }
            self.finish().await;
            if stopping {
                return;
            }
        }
    }

    /// Carries over what there is. What fails is lost and offered again later; the rest is not held up by it.
    pub(crate) async fn finish(&self) {
        let taken = {
            let mut pending = self.pending();
            let ended = pending.ended;
            std::mem::replace(
                &mut *pending,
                Pending {
                    ended,
                    ..Pending::default()
                },
            )
        };
        if !taken.moves.is_empty() {
            let moves = taken.moves.into_values().collect();
            self.report(self.store.advance(moves, Durability::Relaxed).await);
        }
        for (device, places) in taken.events {
            self.report(self.store.end_device_events(device, places).await);
        }
        for departed in taken.departed.into_values() {
            let user = departed.device.user;
            for position in departed.positions {
                self.report(self.store.remove_device(user, position).await);
            }
            let (device, inflight) = (departed.device, Some(departed.inflight));
            let put = self.store.put_device(device, inflight, Durability::Relaxed);
            self.report(put.await);
        }
        for barrier in taken.barriers {
            let _gone = barrier.send(());
        }
    }

    /// Tells of a failure once, not for each of the acks that meet it.
    fn report(&self, stored: Result<(), StoreError>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match stored {
            Ok(()) => *failing = None,
            Err(error) if failing.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cursors and marks could not be stored");
                *failing = Some(error);
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(one: &Move) -> Key {
    match *one {
        Move::Cursor {
            device,
            conversation,
            ..
        } => Key::Cursor(device, conversation),
        Move::Marks {
            conversation, user, ..
        } => Key::Marks(user, conversation),
        Move::ReceiptDue {
            user, conversation, ..
        } => Key::Receipt(user, conversation),
    }
}

fn merge(held: Move, later: Move) -> Move {
    match (held, later) {
        (
            Move::Cursor { seq: held, .. },
            Move::Cursor {
                device,
                conversation,
                seq,
            },
        ) => Move::Cursor {
            device,
            conversation,
            seq: seq.max(held),
        },
        (
            Move::Marks {
                delivered: d,
                read: r,
                private_read: p,
                unread_flag: f,
                ..
            },
            Move::Marks { .. },
        ) => {
            let Move::Marks {
                conversation,
                user,
                delivered,
                read,
                private_read,
                unread_flag,
                ts_ms,
            } = later
            else {
                return later;
            };
            Move::Marks {
                conversation,
                user,
                delivered: delivered.max(d),
                read: read.max(r),
                private_read: private_read.max(p),
                unread_flag: unread_flag.or(f),
                ts_ms,
            }
        }
        _ => later,
    }
}
