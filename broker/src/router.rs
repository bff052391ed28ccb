//! Ordinary messages: from a topic name to the queues of the sessions that subscribed.
//!
//! 1. Sessions subscribe ([`subscriber`]): to filters in a table ([`subscriptions`], [`trie`]), alone or as members of a
//!    group that shares the subscription ([`shared`]). A group is one receiver, whoever comes and goes in it.
//! 2. Publishers share a read lock on the table, and not even that while nothing changes: each keeps the [`receivers`] of
//!    its last topics with the generation of the trie that they were read from. Long lists of receivers are kept once, for
//!    all publishers.
//! 3. What is [`retained`] waits for who subscribes later.

mod receivers;
mod retained;
mod shared;
mod subscriber;
mod subscriptions;
#[cfg(test)]
mod tests;
mod trie;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use self::receivers::Large;
pub(crate) use self::receivers::Publisher;
use self::retained::Retained;
pub(crate) use self::retained::{Finding, Message};
pub(crate) use self::subscriber::{Asked, Subscriber};
use self::subscriptions::Table;
use crate::budget::{Budgets, Share};
use crate::codec::packet::{Publish, Qos};
use crate::config::Config;
use crate::journal::{Entry as Journaled, Journal};
use crate::session::queue::{Pushed, Queue, Queued, Shared};

/// All subscriptions to ordinary topics, and the retained messages.
#[derive(Debug)]
pub(crate) struct Router {
    table: RwLock<Table>,
    /// Moves with each change of the trie.
    generation: AtomicU64,
    large: RwLock<Large>,
    retained: RwLock<Retained>,
    /// The server's own retained messages, below `$SYS`.
    statistics: RwLock<Retained>,
    /// The next queue or group.
    next_number: AtomicU64,
    limits: Limits,
    /// For all queues, and for what is in flight.
    queued: Budgets,
    /// For all filters.
    filters: Budgets,
    /// What is to be at rest goes there.
    journal: Option<Arc<Journal>>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Shared ones included.
    pub(crate) subscriptions: usize,
    pub(crate) shared: usize,
    pub(crate) retained: usize,
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the names of the options")]
struct Limits {
    subscriptions_max: usize,
    subscription_bytes_max: usize,
    filter_levels_max: usize,
    queue_messages_max: usize,
    queue_bytes_max: usize,
}

/// What became of a publish.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    /// What is to be at rest of it.
    pub(crate) entry: Option<Journaled>,
    /// Sessions whose queue was full.
    pub(crate) dropped: usize,
    /// It was to be retained, and there was no room.
    pub(crate) retained_refused: bool,
    /// Nobody got it: it was to be at rest, and the disk budget is used up.
    pub(crate) no_disk: bool,
}

impl Router {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            table: RwLock::default(),
            generation: AtomicU64::new(1),
            large: RwLock::default(),
            retained: RwLock::new(Retained::of_clients(config)),
            statistics: RwLock::new(Retained::new(usize::MAX, usize::MAX)),
            next_number: AtomicU64::new(1),
            limits: Limits {
                subscriptions_max: config.subscriptions_max,
                subscription_bytes_max: config.subscription_bytes_max,
                filter_levels_max: config.filter_levels_max,
                queue_messages_max: config.queue_messages_max,
                queue_bytes_max: config.queue_bytes_max,
            },
            queued: Budgets::new(
                config.queue_bytes_total_max,
                config.queue_bytes_per_user_max,
            ),
            filters: Budgets::new(
                config.subscription_bytes_total_max,
                config.subscription_bytes_per_user_max,
            ),
            journal: None,
        }
    }

    /// What is to be at rest goes there.
    pub(crate) fn with_journal(mut self, journal: Option<Arc<Journal>>) -> Self {
        self.journal = journal;
        self
    }

    /// Numbers up to this one are taken.
    pub(crate) fn reserve_numbers(&self, last: u64) {
        self.next_number.fetch_max(last + 1, Ordering::Relaxed);
    }

    /// Gives a message to every session that subscribed, without waiting for any.
    pub(crate) fn publish(
        &self,
        publish: Arc<Publish>,
        publisher: &mut Publisher,
        now: Instant,
    ) -> Routed {
        let expires_at = publish
            .properties
            .message_expiry_interval
            .and_then(|seconds| now.checked_add(Duration::from_secs(seconds.into())));
        let mut shared = Shared::new(publish, expires_at);
        let owner = publisher.user.as_ref();
        let retained_refused =
            shared.live().retain && self.retain(&mut shared, owner, now).is_err();
        if retained_refused && publisher.is_told && shared.live().qos > Qos::AtMostOnce {
            // It will try again: nobody is to have it twice.
            return Routed {
                retained_refused,
                ..Routed::default()
            };
        }
        let receivers = publisher.receivers(self, &shared.live().topic);
        let kept = shared.live().qos > Qos::AtMostOnce && receivers.may_store();
        if kept && publisher.is_told && self.is_full() {
            return Routed {
                no_disk: true,
                ..Routed::default()
            };
        }
        if shared.entry.is_none() && kept {
            shared.entry = self.open();
        }
        let dropped = receivers.give(&mut shared, publisher.number);
        Routed {
            entry: shared.entry.filter(|entry| !entry.is_empty()),
            dropped,
            retained_refused,
            no_disk: false,
        }
    }

    /// Forgets what has expired of what waits for a client that is away. Returns how many messages that are.
    pub(crate) fn expire_queued(&self, queue: &Queue, now: Instant) -> usize {
        let expired = queue.take_if(|queued| queued.is_expired(now));
        if !expired.is_empty() {
            queue.settle(&expired, self.open().as_mut());
        }
        expired.len()
    }

    /// How much there is now.
    pub(crate) fn counts(&self) -> Counts {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let retained = self.retained.read().unwrap_or_else(PoisonError::into_inner);
        Counts {
            subscriptions: table.subscriptions + table.shared,
            shared: table.shared,
            retained: retained.len(),
        }
    }

    /// Gives what a session left behind to the others of its shared subscriptions. Returns how many found no room.
    pub(crate) fn give_on(
        &self,
        left: impl IntoIterator<Item = Queued>,
        entry: &mut Option<Journaled>,
    ) -> usize {
        let mut full = 0;
        for queued in left {
            let Some(group) = queued.share.as_deref().and_then(|name| self.group(name)) else {
                continue;
            };
            let mut shared = Shared::again(queued, entry.take());
            full += usize::from(group.give(&mut shared) == Pushed::Full);
            *entry = shared.entry;
        }
        full
    }

    /// Is there no disk for what is to be at rest?
    fn is_full(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.is_full())
    }

    /// Of the bytes for all queues, and for what is in flight: for a client of this user that is away.
    pub(crate) fn queue_share(&self, user: &Arc<str>) -> Share {
        self.queued.share(user)
    }

    /// A place in the order of what is to be at rest, if anything is.
    pub(crate) fn open(&self) -> Option<Journaled> {
        self.journal.as_ref().map(Journal::open)
    }

    /// A number that no other session, queue or group has.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}
