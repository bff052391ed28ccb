//! Ordinary messages: from a topic name to the queues of the sessions that subscribed.
//!
//! Publishers share a read lock on the trie, and not even that while nothing changes: each keeps the receivers of its last
//! topics with the generation of the trie that they were read from. Long lists of receivers are kept once, for all
//! publishers. A group that shares a subscription is one receiver, whoever comes and goes in it.

mod retained;
mod shared;
#[cfg(test)]
mod tests;
mod trie;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytestring::ByteString;

pub(crate) use self::retained::Message;
use self::retained::{Retained, Search};
use self::shared::{Group, Member};
use self::trie::Trie;
use crate::codec::packet::{Publish, Qos, RetainHandling, SubscribeFilter};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::config::Config;
use crate::journal::{Change, Entry as Journaled, Journal, SubscriptionRow};
use crate::session::queue::{Pushed, Queue, Queued, Shared, Stored};
use crate::{acl, sys};

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
    /// What is to be at rest goes there.
    journal: Option<Arc<Journal>>,
}

#[derive(Debug, Default)]
struct Table {
    trie: Trie<Entry>,
    /// By their names. A group with nobody in it is not here.
    groups: HashMap<Arc<str>, Arc<Group>>,
    /// Of sessions alone.
    subscriptions: usize,
    /// Of members of groups.
    shared: usize,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Shared ones included.
    pub(crate) subscriptions: usize,
    pub(crate) shared: usize,
    pub(crate) retained: usize,
}

/// Who subscribed to a filter: one session, or a group that shares the subscription.
#[derive(Debug)]
enum Entry {
    Session(Subscription),
    Group(Arc<Group>),
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the names of the options")]
struct Limits {
    subscriptions_max: usize,
    filter_levels_max: usize,
    queue_messages_max: usize,
    queue_bytes_max: usize,
}

#[derive(Clone, Debug)]
struct Subscription {
    queue: Arc<Queue>,
    qos: Qos,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<u32>,
}

/// Who gets the messages of a topic.
#[derive(Debug)]
struct Receivers {
    sessions: Box<[Receiver]>,
    /// One session of each.
    groups: Box<[Arc<Group>]>,
}

/// One session that gets a message, over all its subscriptions that match.
#[derive(Debug)]
struct Receiver {
    queue: Arc<Queue>,
    /// How it gets what others publish.
    others: Terms,
    /// How it gets what it publishes itself.
    own: Own,
}

/// What several subscriptions of one session come to.
#[derive(Debug)]
struct Terms {
    qos: Qos,
    retain_as_published: bool,
    identifiers: Vec<u32>,
}

/// What No Local changes.
#[derive(Debug)]
enum Own {
    Same,
    Nothing,
    Different(Box<Terms>),
}

/// Long lists of receivers by topic, of one generation of the trie.
#[derive(Debug, Default)]
struct Large {
    generation: u64,
    /// In all lists.
    receivers: usize,
    lists: HashMap<ByteString, Arc<Receivers>>,
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
            retained: RwLock::new(Retained::new(
                config.retained_messages_max,
                config.retained_bytes_max,
            )),
            statistics: RwLock::new(Retained::new(usize::MAX, usize::MAX)),
            next_number: AtomicU64::new(1),
            limits: Limits {
                subscriptions_max: config.subscriptions_max,
                filter_levels_max: config.filter_levels_max,
                queue_messages_max: config.queue_messages_max,
                queue_bytes_max: config.queue_bytes_max,
            },
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

    /// Retained messages that were found at rest. What there is no room for is cleared there, too: it must not come back when
    /// there is, older than what was published meanwhile. Returns how many that are.
    pub(crate) fn restore_retained(&self, messages: Vec<Message>) -> usize {
        let mut retained = self.retained_mut();
        let mut entry = self.open();
        let mut refused = 0;
        for message in messages {
            let number = message.number;
            let gone = if let Ok(replaced) = retained.set(message) {
                replaced.and_then(|message| message.number)
            } else {
                refused += 1;
                number
            };
            if let (Some(entry), Some(number)) = (&mut entry, gone) {
                entry.push(Change::Cleared(number));
            }
        }
        refused
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
        let retained_refused = shared.live().retain && self.retain(&mut shared, now).is_err();
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
        let mut dropped = 0;
        for receiver in &receivers.sessions {
            let Some(terms) = receiver.terms(publisher.number) else {
                continue;
            };
            let qos = shared.live().qos.min(terms.qos);
            let retain = shared.live().retain && terms.retain_as_published;
            let pushed = receiver.queue.push(&mut shared, qos, |publish| Queued {
                publish,
                expires_at,
                qos,
                retain,
                subscription_identifiers: terms.identifiers.clone(),
                share: None,
                stored: None,
            });
            dropped += usize::from(pushed == Pushed::Full);
        }
        for group in &receivers.groups {
            let pushed = group.give(&mut shared);
            dropped += usize::from(pushed == Pushed::Full);
        }
        Routed {
            entry: shared.entry.filter(|entry| !entry.is_empty()),
            dropped,
            retained_refused,
            no_disk: false,
        }
    }

    fn retain(&self, shared: &mut Shared, now: Instant) -> Result<(), retained::Full> {
        let topic = &shared.live().topic;
        let mut retained = self
            .retained(topic)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Opened under the lock: what is retained last is at rest last. Statistics are not.
        if !acl::is_below(sys::ROOT, topic) {
            shared.entry = self.open();
        }
        let clears = shared.live().payload.is_empty();
        if !clears && shared.entry.as_ref().is_some_and(Journaled::is_full) {
            return Err(retained::Full);
        }
        let message = Message {
            publish: Arc::clone(shared.compact()),
            expires_at: shared.expires_at,
            number: if clears { None } else { shared.store() },
        };
        let number = message.number;
        let mut gone = Vec::new();
        let replaced = retained.set(message.clone()).or_else(|_| {
            gone = retained.expire(now);
            retained.set(message)
        });
        if let Ok(Some(replaced)) = &replaced {
            gone.push(replaced.clone());
        }
        if let Some(entry) = &mut shared.entry {
            if let (Some(number), Ok(_)) = (number, &replaced) {
                entry.push(Change::Retained(number));
            }
            let gone = gone.iter().filter_map(|message| message.number);
            gone.for_each(|number| entry.push(Change::Cleared(number)));
        }
        replaced.map(drop)
    }

    /// Forgets the retained messages that have expired.
    pub(crate) fn expire_retained(&self, now: Instant) {
        let mut retained = self.retained_mut();
        let gone = retained.expire(now);
        let numbers = gone.iter().filter_map(|message| message.number);
        if !gone.is_empty()
            && let Some(mut entry) = self.open()
        {
            numbers.for_each(|number| entry.push(Change::Cleared(number)));
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

    /// Where the retained messages below the first level of a topic name or filter are. Wildcards there never match a `$`.
    fn retained(&self, topic: &str) -> &RwLock<Retained> {
        if acl::is_below(sys::ROOT, topic) {
            &self.statistics
        } else {
            &self.retained
        }
    }

    /// Retained messages, in a page: as [`Retained::page`].
    pub(crate) fn page_retained(
        &self,
        filter: &str,
        after: Option<&str>,
        max: usize,
    ) -> (Vec<Message>, Option<ByteString>) {
        let retained = self.retained(filter).read();
        let retained = retained.unwrap_or_else(PoisonError::into_inner);
        retained.page(filter, after, max)
    }

    /// Clears the retained messages of clients in such a page. Returns how many, behind which topic to go on, and what is
    /// to be at rest of it.
    pub(crate) fn clear_retained(
        &self,
        filter: &str,
        after: Option<&str>,
        max: usize,
    ) -> (usize, Option<ByteString>, Option<Journaled>) {
        let mut retained = self.retained_mut();
        let (found, next) = retained.page(filter, after, max);
        // Opened under the lock, as in `retain`.
        let mut entry = self.open();
        for message in &found {
            retained.remove(&message.publish.topic);
            if let (Some(entry), Some(number)) = (&mut entry, message.number) {
                entry.push(Change::Cleared(number));
            }
        }
        (found.len(), next, entry)
    }

    /// The retained messages that each of these subscriptions asks for. All that there are for one of them, and together no
    /// more than a queue has room for beside: the rest is left out.
    fn find_retained(&self, asked: &[Asked], now: Instant) -> Vec<Vec<Message>> {
        let mut lists: Vec<Vec<Message>> = asked.iter().map(|_| Vec::new()).collect();
        for store in [&self.retained, &self.statistics] {
            let here = |asked: &Asked| std::ptr::eq(self.retained(asked.filter.as_str()), store);
            let filters = asked.iter().filter(|asked| here(asked));
            let read = || store.read().unwrap_or_else(PoisonError::into_inner);
            let messages_max = self.limits.queue_messages_max.saturating_add(read().len());
            let filters = filters.map(|asked| asked.filter.as_str());
            let mut search = Search::new(filters, messages_max);
            while !search.is_over() {
                read().search(&mut search, now);
            }
            let places = lists.iter_mut().zip(asked).filter(|(_, asked)| here(asked));
            for ((list, _), found) in places.zip(search.found()) {
                *list = found;
            }
        }
        lists
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

    /// A place in the order of what is to be at rest, if anything is.
    pub(crate) fn open(&self) -> Option<Journaled> {
        self.journal.as_ref().map(Journal::open)
    }

    /// The receivers of a topic, from the trie.
    fn receivers(&self, topic: &str) -> Receivers {
        let mut found: Vec<&Subscription> = Vec::new();
        let mut groups = Vec::new();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.trie.matches(topic, |_, entry| match entry {
            Entry::Session(subscription) => found.push(subscription),
            Entry::Group(group) => groups.push(Arc::clone(group)),
        });
        found.sort_by_key(|subscription| subscription.queue.number());
        let sessions = found
            .chunk_by(|one, other| one.queue.number() == other.queue.number())
            .filter_map(Receiver::new)
            .collect();
        Receivers {
            sessions,
            groups: groups.into(),
        }
    }

    fn large(&self, topic: &ByteString, generation: u64) -> Option<Arc<Receivers>> {
        let large = self.large.read().unwrap_or_else(PoisonError::into_inner);
        let list = large.lists.get(topic)?;
        (large.generation == generation).then(|| Arc::clone(list))
    }

    fn keep_large(&self, topic: ByteString, generation: u64, list: &Arc<Receivers>) {
        let mut large = self.large.write().unwrap_or_else(PoisonError::into_inner);
        if generation < large.generation {
            return;
        }
        if generation > large.generation || large.receivers + list.len() > LARGE_RECEIVERS_MAX {
            *large = Large {
                generation,
                ..Large::default()
            };
        }
        if large.lists.insert(topic, Arc::clone(list)).is_none() {
            large.receivers += list.len();
        }
    }

    /// Adds a subscription, or changes its terms. True if it is new, or shared.
    fn subscribe(&self, filter: &TopicFilter, subscription: Subscription) -> bool {
        if filter.split_share().0.is_none() {
            return self.insert(filter.as_str(), subscription);
        }
        let member = Member {
            queue: subscription.queue,
            qos: subscription.qos,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
        };
        self.join(filter, member);
        true
    }

    /// True if the subscription is new.
    fn insert(&self, filter: &str, subscription: Subscription) -> bool {
        let number = subscription.queue.number();
        let entry = Entry::Session(subscription);
        let mut table = self.write();
        let new = table.trie.insert(filter, number, entry).is_none();
        table.subscriptions += usize::from(new);
        self.generation.fetch_add(1, Ordering::Release);
        new
    }

    fn remove(&self, filter: &str, subscriber: u64) {
        let mut table = self.write();
        let removed = table.trie.remove(filter, subscriber).is_some();
        table.subscriptions -= usize::from(removed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds a session to the group of a shared subscription.
    fn join(&self, filter: &TopicFilter, member: Member) {
        let mut table = self.write();
        if let Some(group) = table.groups.get(filter.as_str()) {
            let new = group.join(member);
            table.shared += usize::from(new);
            return;
        }
        let name: Arc<str> = filter.as_str().into();
        let group = Arc::new(Group::new(Arc::clone(&name), self.next_number()));
        group.join(member);
        let entry = Entry::Group(Arc::clone(&group));
        let (_, shared) = filter.split_share();
        table.trie.insert(shared, group.number(), entry);
        table.groups.insert(name, group);
        table.shared += 1;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Removes a member from its group. True if others are left.
    fn part(&self, filter: &TopicFilter, subscriber: u64) -> bool {
        let mut table = self.write();
        let Some(group) = table.groups.get(filter.as_str()) else {
            return false;
        };
        let (number, left) = (group.number(), group.part(subscriber));
        table.shared -= 1;
        if left > 0 {
            return true;
        }
        table.trie.remove(filter.split_share().1, number);
        table.groups.remove(filter.as_str());
        self.generation.fetch_add(1, Ordering::Release);
        false
    }

    fn group(&self, name: &str) -> Option<Arc<Group>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.groups.get(name).cloned()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn retained_mut(&self) -> RwLockWriteGuard<'_, Retained> {
        self.retained
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other session, queue or group has.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

impl Receivers {
    /// Is there anybody whose messages are at rest? Who gets what a group shares shows only when it is given.
    fn may_store(&self) -> bool {
        !self.groups.is_empty() || self.sessions.iter().any(|it| it.queue.is_durable())
    }

    fn len(&self) -> usize {
        self.sessions.len() + self.groups.len()
    }
}

impl Receiver {
    /// All subscriptions of one session that match.
    fn new(subscriptions: &[&Subscription]) -> Option<Self> {
        let queue = Arc::clone(&subscriptions.first()?.queue);
        let others = Terms::new(subscriptions.iter().copied())?;
        let mut own = subscriptions.iter().copied().filter(|it| !it.no_local);
        let own = if subscriptions.iter().all(|it| !it.no_local) {
            Own::Same
        } else {
            Terms::new(&mut own).map_or(Own::Nothing, |own| Own::Different(Box::new(own)))
        };
        Some(Self { queue, others, own })
    }

    /// How it gets a message of this publisher: who asked for No Local gets nothing from itself [MQTT-3.8.3-3].
    fn terms(&self, publisher: u64) -> Option<&Terms> {
        match &self.own {
            Own::Nothing if self.queue.number() == publisher => None,
            Own::Different(own) if self.queue.number() == publisher => Some(own),
            _ => Some(&self.others),
        }
    }
}

impl Terms {
    /// `None` without any subscription.
    fn new<'a>(subscriptions: impl Iterator<Item = &'a Subscription>) -> Option<Self> {
        subscriptions
            .map(|it| Self {
                qos: it.qos,
                retain_as_published: it.retain_as_published,
                identifiers: it.identifier.into_iter().collect(),
            })
            .reduce(|mut all, it| {
                all.qos = all.qos.max(it.qos);
                all.retain_as_published |= it.retain_as_published;
                all.identifiers.extend(it.identifiers);
                all
            })
    }
}

/// What a publisher remembers of the router: the receivers of its last topics.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    /// The queue of the publisher's own session, if it has one: for No Local.
    number: u64,
    /// It is told what was refused, and then nobody gets it; otherwise what is not retained is delivered all the same.
    is_told: bool,
    generation: u64,
    recent: Vec<(ByteString, Arc<Receivers>)>,
    next: usize,
}

impl Publisher {
    /// One that is told what was refused, or not: 3.1.1 has no words for it.
    pub(crate) fn new(is_told: bool) -> Self {
        Self {
            is_told,
            ..Self::default()
        }
    }

    /// The publisher's own session has this queue.
    pub(crate) const fn set_queue(&mut self, queue: &Queue) {
        self.number = queue.number();
    }

    fn receivers(&mut self, router: &Router, topic: &ByteString) -> Arc<Receivers> {
        // Read before the trie: a change in between makes this entry too old, never too new.
        let generation = router.generation.load(Ordering::Acquire);
        if self.generation != generation {
            self.recent.clear();
            self.next = 0;
            self.generation = generation;
        }
        if let Some((_, receivers)) = self.recent.iter().find(|(known, _)| known == topic) {
            return Arc::clone(receivers);
        }
        if let Some(receivers) = router.large(topic, generation) {
            return receivers;
        }
        let receivers = Arc::new(router.receivers(topic));
        // The name in memory of its own: the packet's holds on to a whole buffer.
        let name = ByteString::from(&**topic);
        if receivers.len() > RECENT_RECEIVERS_MAX {
            router.keep_large(name, generation, &receivers);
            return receivers;
        }
        let entry = (name, Arc::clone(&receivers));
        match self.recent.get_mut(self.next) {
            Some(place) => *place = entry,
            None => self.recent.push(entry),
        }
        self.next = (self.next + 1) % RECENT_MAX;
        receivers
    }
}

/// The subscriptions of one session to ordinary topics, and its queue. Both live as long as the session; neither takes
/// memory before the first subscription.
#[derive(Debug, Default)]
pub(crate) struct Subscriber {
    /// Of the session at rest.
    number: Option<u64>,
    /// Subscriptions and messages are at rest, too.
    durable: bool,
    queue: Option<Arc<Queue>>,
    /// With their numbers at rest; 0 without.
    filters: HashMap<TopicFilter, u64>,
}

impl Subscriber {
    /// The subscriber of a session that has a row at rest.
    pub(crate) fn at_rest(number: u64) -> Self {
        Self {
            number: Some(number),
            ..Self::default()
        }
    }

    /// As it was found at rest: the client is away.
    pub(crate) fn restored(
        router: &Router,
        number: u64,
        subscriptions: Vec<SubscriptionRow>,
        messages: VecDeque<Queued>,
        next_place: u64,
    ) -> Self {
        let mut subscriber = Self::at_rest(number);
        subscriber.durable = true;
        if subscriptions.is_empty() && messages.is_empty() && next_place == 0 {
            return subscriber;
        }
        let queue = subscriber.queue_or_new(router);
        queue.restore(messages, next_place);
        for row in subscriptions {
            subscriber.filters.insert(row.filter.clone(), row.number);
            let subscription = Subscription {
                queue: Arc::clone(&queue),
                qos: row.qos,
                no_local: row.no_local,
                retain_as_published: row.retain_as_published,
                identifier: row.identifier,
            };
            router.subscribe(&row.filter, subscription);
        }
        subscriber
    }

    /// Of the session at rest, if it is there.
    pub(crate) const fn number(&self) -> Option<u64> {
        self.number
    }

    /// Are subscriptions and messages at rest from now on?
    pub(crate) fn set_durable(&mut self, durable: bool) {
        self.durable = durable;
        if let Some(queue) = &self.queue {
            queue.set_durable(durable);
        }
    }

    /// Subscribes. If the subscription asks for retained messages, that is added to `asked`.
    ///
    /// # Errors
    /// The Reason Code for SUBACK.
    pub(crate) fn subscribe(
        &mut self,
        router: &Router,
        wanted: SubscribeFilter,
        identifier: Option<u32>,
        asked: &mut Vec<Asked>,
        entry: &mut Option<Journaled>,
    ) -> Result<ReasonCode, ReasonCode> {
        let SubscribeFilter { filter, qos, .. } = wanted;
        let (share, shared_filter) = filter.split_share();
        if shared_filter.split('/').count() > router.limits.filter_levels_max {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let known = self.filters.get(&filter).copied();
        if self.filters.len() >= router.limits.subscriptions_max && known.is_none() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let queue = self.queue_or_new(router);
        let subscription = Subscription {
            queue: Arc::clone(&queue),
            qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            identifier,
        };
        let number = self.note(known, &filter, &subscription, entry);
        let new = router.subscribe(&filter, subscription);
        let send_retained = share.is_none()
            && match wanted.retain_handling {
                RetainHandling::Always => true,
                RetainHandling::IfNew => new,
                RetainHandling::Never => false,
            };
        if send_retained {
            asked.push(Asked {
                filter: filter.clone(),
                qos,
                identifier,
            });
        }
        self.filters.insert(filter, number);
        Ok(granted(qos))
    }

    /// Queues the retained messages that the subscriptions of a SUBSCRIBE ask for. Whoever gets a newer message before is
    /// not sent back to an older one: what is found now is not older than what has been routed.
    pub(crate) fn queue_retained(
        &self,
        router: &Router,
        asked: &[Asked],
        now: Instant,
        entry: &mut Option<Journaled>,
    ) {
        let Some(queue) = self.queue.as_ref().filter(|_| !asked.is_empty()) else {
            return;
        };
        for (asked, found) in asked.iter().zip(router.find_retained(asked, now)) {
            if found.is_empty() {
                continue;
            }
            let messages = found.into_iter().map(|message| asked.queued(message));
            queue.push_retained(messages.collect(), entry);
        }
    }

    /// Notes a subscription at rest; returns its number.
    fn note(
        &self,
        known: Option<u64>,
        filter: &TopicFilter,
        subscription: &Subscription,
        entry: &mut Option<Journaled>,
    ) -> u64 {
        let (Some(entry), Some(session), true) = (entry, self.number, self.durable) else {
            return 0;
        };
        let number = known.unwrap_or_else(|| entry.next_number());
        entry.push(Change::Subscription(Box::new(SubscriptionRow {
            session,
            number,
            filter: filter.clone(),
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
        })));
        number
    }

    /// Ends a subscription. Returns the Reason Code, and what waited for this session and is now for others that share
    /// the subscription; without others it is delivered as if nothing had happened.
    pub(crate) fn unsubscribe(
        &mut self,
        router: &Router,
        filter: &TopicFilter,
        entry: &mut Option<Journaled>,
    ) -> (ReasonCode, Vec<Queued>) {
        let Some((queue, number)) = self.queue.as_ref().zip(self.filters.remove(filter)) else {
            return (ReasonCode::NoSubscriptionExisted, Vec::new());
        };
        let left = if remove(router, filter, queue.number()) {
            queue.take_share(filter.as_str())
        } else {
            Vec::new()
        };
        if let (Some(entry), Some(session)) = (entry, self.number) {
            entry.push(Change::Unsubscribed { session, number });
        }
        (ReasonCode::Success, left)
    }

    /// Ends all subscriptions: the session is over. Returns what waited for it and is now for others that share a
    /// subscription.
    pub(crate) fn end(&mut self, router: &Router) -> Vec<Queued> {
        let Some(queue) = self.queue.take() else {
            return Vec::new();
        };
        for filter in std::mem::take(&mut self.filters).into_keys() {
            remove(router, &filter, queue.number());
        }
        queue.end()
    }

    /// Its filters, in no order.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.filters.keys()
    }

    /// How many there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.filters.len()
    }

    /// What its subscriptions bring.
    pub(crate) fn coverage(&self) -> Coverage<'_> {
        let mut filters = Trie::default();
        for filter in self.filters() {
            if filter.split_share().0.is_none() {
                filters.insert(filter.as_str(), 0, ());
            }
        }
        Coverage {
            subscriber: self,
            filters,
        }
    }

    /// The queue, once there was a subscription.
    pub(crate) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    fn queue_or_new(&mut self, router: &Router) -> Arc<Queue> {
        let (number, durable) = (self.number, self.durable);
        let queue = self.queue.get_or_insert_with(|| {
            let queue = Queue::new(
                number.unwrap_or_else(|| router.next_number()),
                router.limits.queue_messages_max,
                router.limits.queue_bytes_max,
            );
            queue.set_durable(durable);
            Arc::new(queue)
        });
        Arc::clone(queue)
    }
}

/// A subscription that asks for retained messages.
#[derive(Debug)]
pub(crate) struct Asked {
    filter: TopicFilter,
    qos: Qos,
    identifier: Option<u32>,
}

impl Asked {
    fn queued(&self, message: Message) -> Queued {
        Queued {
            qos: message.publish.qos.min(self.qos),
            publish: message.publish,
            expires_at: message.expires_at,
            retain: true,
            subscription_identifiers: self.identifier.into_iter().collect(),
            share: None,
            // Only the message: the queue gives it a place, if it is to have one.
            stored: message.number.map(|message| Stored { place: 0, message }),
        }
    }
}

/// What the subscriptions of a session bring.
#[derive(Debug)]
pub(crate) struct Coverage<'a> {
    subscriber: &'a Subscriber,
    /// Those that are not shared.
    filters: Trie<()>,
}

impl Coverage<'_> {
    /// Is there a subscription that a waiting message may have come by?
    pub(crate) fn brings(&self, queued: &Queued) -> bool {
        if let Some(share) = &queued.share {
            return self.subscriber.filters().any(|it| it.as_str() == &**share);
        }
        let mut found = false;
        self.filters
            .matches(&queued.publish.topic, |_, ()| found = true);
        found
    }
}

/// Ends one subscription of a session. True if others share it.
fn remove(router: &Router, filter: &TopicFilter, subscriber: u64) -> bool {
    if filter.split_share().0.is_some() {
        return router.part(filter, subscriber);
    }
    router.remove(filter.as_str(), subscriber);
    false
}

const fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}

/// Topics whose receivers a publisher remembers.
const RECENT_MAX: usize = 8;
/// Longer lists are kept once for all.
const RECENT_RECEIVERS_MAX: usize = 16;
/// Receivers in all long lists that are kept: some 50 MB.
const LARGE_RECEIVERS_MAX: usize = 1_000_000;
