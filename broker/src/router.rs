//! Ordinary messages: from a topic name to the queues of the sessions that subscribed.
//!
//! Publishers share a read lock on the trie, and not even that while nothing changes: each keeps the receivers of its last
//! topics with the generation of the trie that they were read from. Long lists of receivers are kept once, for all
//! publishers.

mod retained;
mod trie;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytestring::ByteString;

use self::retained::{Message, Retained};
use self::trie::Trie;
use crate::codec::packet::{Publish, Qos, RetainHandling, SubscribeFilter};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::config::Config;
use crate::session::queue::{Pushed, Queue, Queued, Shared};

/// All subscriptions to ordinary topics, and the retained messages.
#[derive(Debug)]
pub(crate) struct Router {
    trie: RwLock<Trie<Subscription>>,
    /// Moves with each change of the trie.
    generation: AtomicU64,
    large: RwLock<Large>,
    retained: RwLock<Retained>,
    queues: AtomicU64,
    limits: Limits,
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
    lists: HashMap<ByteString, Arc<[Receiver]>>,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Sessions whose queue was full.
    pub(crate) dropped: usize,
    /// It was to be retained, and there was no room.
    pub(crate) retained_refused: bool,
}

impl Router {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            trie: RwLock::default(),
            generation: AtomicU64::new(1),
            large: RwLock::default(),
            retained: RwLock::new(Retained::new(
                config.retained_messages_max,
                config.retained_bytes_max,
            )),
            queues: AtomicU64::new(1),
            limits: Limits {
                subscriptions_max: config.subscriptions_max,
                filter_levels_max: config.filter_levels_max,
                queue_messages_max: config.queue_messages_max,
                queue_bytes_max: config.queue_bytes_max,
            },
        }
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
        let mut shared = Shared::new(publish);
        let retained_refused =
            shared.live().retain && self.retain(&mut shared, expires_at, now).is_err();
        let receivers = publisher.receivers(self, &shared.live().topic);
        let mut dropped = 0;
        for receiver in receivers.iter() {
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
            });
            dropped += usize::from(pushed == Pushed::Full);
        }
        Routed {
            dropped,
            retained_refused,
        }
    }

    fn retain(
        &self,
        shared: &mut Shared,
        expires_at: Option<Instant>,
        now: Instant,
    ) -> Result<(), retained::Full> {
        let message = Message {
            publish: Arc::clone(shared.compact()),
            expires_at,
        };
        let mut retained = self
            .retained
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        retained.set(message.clone()).or_else(|_| {
            retained.expire(now);
            retained.set(message)
        })
    }

    /// The receivers of a topic, from the trie.
    fn receivers(&self, topic: &str) -> Arc<[Receiver]> {
        let mut found: Vec<&Subscription> = Vec::new();
        let trie = self.trie.read().unwrap_or_else(PoisonError::into_inner);
        trie.matches(topic, |_, subscription| found.push(subscription));
        found.sort_by_key(|subscription| subscription.queue.number());
        found
            .chunk_by(|one, other| one.queue.number() == other.queue.number())
            .filter_map(Receiver::new)
            .collect()
    }

    fn large(&self, topic: &ByteString, generation: u64) -> Option<Arc<[Receiver]>> {
        let large = self.large.read().unwrap_or_else(PoisonError::into_inner);
        let list = large.lists.get(topic)?;
        (large.generation == generation).then(|| Arc::clone(list))
    }

    fn keep_large(&self, topic: ByteString, generation: u64, list: &Arc<[Receiver]>) {
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

    fn insert(&self, filter: &str, subscription: Subscription) -> bool {
        let number = subscription.queue.number();
        let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = trie.insert(filter, number, subscription).is_some();
        self.generation.fetch_add(1, Ordering::Release);
        replaced
    }

    fn remove<'a>(&self, filters: impl Iterator<Item = &'a TopicFilter>, subscriber: u64) {
        let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
        for filter in filters {
            trie.remove(filter.as_str(), subscriber);
        }
        self.generation.fetch_add(1, Ordering::Release);
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
    generation: u64,
    recent: Vec<(ByteString, Arc<[Receiver]>)>,
    next: usize,
}

impl Publisher {
    /// The publisher's own session has this queue.
    pub(crate) const fn set_queue(&mut self, queue: &Queue) {
        self.number = queue.number();
    }

    fn receivers(&mut self, router: &Router, topic: &ByteString) -> Arc<[Receiver]> {
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
        let receivers = router.receivers(topic);
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
    queue: Option<Arc<Queue>>,
    filters: HashSet<TopicFilter>,
}

impl Subscriber {
    /// Subscribes, and queues the retained messages that the subscription asks for.
    ///
    /// # Errors
    /// The Reason Code for SUBACK.
    pub(crate) fn subscribe(
        &mut self,
        router: &Router,
        wanted: SubscribeFilter,
        identifier: Option<u32>,
        now: Instant,
    ) -> Result<ReasonCode, ReasonCode> {
        let SubscribeFilter { filter, qos, .. } = wanted;
        if filter.split_share().0.is_some() {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if filter.as_str().split('/').count() > router.limits.filter_levels_max {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if self.filters.len() >= router.limits.subscriptions_max && !self.filters.contains(&filter)
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        let queue = Arc::clone(self.queue.get_or_insert_with(|| new_queue(router)));
        let subscription = Subscription {
            queue: Arc::clone(&queue),
            qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            identifier,
        };
        let replaced = router.insert(filter.as_str(), subscription);
        let send_retained = match wanted.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => !replaced,
            RetainHandling::Never => false,
        };
        if send_retained {
            queue_retained(router, &queue, &filter, qos, identifier, now);
        }
        self.filters.insert(filter);
        Ok(granted(qos))
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, router: &Router, filter: &TopicFilter) -> ReasonCode {
        if !self.filters.remove(filter) {
            return ReasonCode::NoSubscriptionExisted;
        }
        if let Some(queue) = &self.queue {
            router.remove(std::iter::once(filter), queue.number());
        }
        ReasonCode::Success
    }

    /// Ends all subscriptions: the session is over.
    pub(crate) fn end(&mut self, router: &Router) {
        if let Some(queue) = self.queue.take() {
            router.remove(self.filters.iter(), queue.number());
            queue.end();
        }
        self.filters = HashSet::new();
    }

    pub(crate) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }
}

fn new_queue(router: &Router) -> Arc<Queue> {
    Arc::new(Queue::new(
        router.queues.fetch_add(1, Ordering::Relaxed),
        router.limits.queue_messages_max,
        router.limits.queue_bytes_max,
    ))
}

fn queue_retained(
    router: &Router,
    queue: &Queue,
    filter: &TopicFilter,
    qos: Qos,
    identifier: Option<u32>,
    now: Instant,
) {
    let found = router
        .retained
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .matching(filter.as_str(), now);
    if found.is_empty() {
        return;
    }
    let messages = found
        .into_iter()
        .map(|message| Queued {
            qos: message.publish.qos.min(qos),
            publish: message.publish,
            expires_at: message.expires_at,
            retain: true,
            subscription_identifiers: identifier.into_iter().collect(),
        })
        .collect();
    queue.push_retained(messages);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::codec::properties::PublishProperties;
    use bytes::Bytes;

    fn publish(topic: &'static str, qos: Qos) -> Publish {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.into(),
            packet_id: None,
            payload: Bytes::from_static(b"hi"),
            properties: PublishProperties::default(),
        }
    }

    fn filter(text: &'static str, qos: Qos) -> SubscribeFilter {
        SubscribeFilter {
            filter: TopicFilter::parse(text.into()).unwrap(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        }
    }

    fn subscribed(router: &Router, filters: &[(&'static str, Qos, Option<u32>)]) -> Subscriber {
        let mut subscriber = Subscriber::default();
        for (text, qos, identifier) in filters {
            subscriber
                .subscribe(router, filter(text, *qos), *identifier, clock::now())
                .unwrap();
        }
        subscriber
    }

    fn received(subscriber: &Subscriber) -> Vec<Queued> {
        let mut taken = Vec::new();
        if let Some(queue) = subscriber.queue() {
            queue.take(usize::MAX, usize::MAX, &mut taken);
        }
        taken
    }

    fn send(router: &Router, publisher: &mut Publisher, publish: Publish) -> Routed {
        router.publish(Arc::new(publish), publisher, clock::now())
    }

    #[test]
    fn overlapping_subscriptions_give_one_copy_with_all_identifiers_at_the_highest_qos() {
        let router = Router::new(&Config::default());
        let subscriber = subscribed(
            &router,
            &[
                ("a/+", Qos::AtLeastOnce, Some(1)),
                ("a/#", Qos::AtMostOnce, Some(2)),
            ],
        );
        let mut publisher = Publisher::default();
        send(&router, &mut publisher, publish("a/b", Qos::ExactlyOnce));
        let got = received(&subscriber);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].qos, Qos::AtLeastOnce);
        let mut identifiers = got[0].subscription_identifiers.clone();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [1, 2]);
    }

    #[test]
    fn no_local_keeps_my_own_messages_from_me() {
        let router = Router::new(&Config::default());
        let mut subscriber = Subscriber::default();
        let mut wanted = filter("a", Qos::AtMostOnce);
        wanted.no_local = true;
        subscriber
            .subscribe(&router, wanted, None, clock::now())
            .unwrap();
        let mut own = Publisher::default();
        own.set_queue(subscriber.queue().unwrap());
        send(&router, &mut own, publish("a", Qos::AtMostOnce));
        assert!(received(&subscriber).is_empty());
        send(
            &router,
            &mut Publisher::default(),
            publish("a", Qos::AtMostOnce),
        );
        assert_eq!(received(&subscriber).len(), 1);
    }

    #[test]
    fn a_remembered_topic_notices_new_subscriptions_and_ended_ones() {
        let router = Router::new(&Config::default());
        let mut publisher = Publisher::default();
        send(&router, &mut publisher, publish("a", Qos::AtMostOnce));
        let mut subscriber = subscribed(&router, &[("a", Qos::AtMostOnce, None)]);
        send(&router, &mut publisher, publish("a", Qos::AtMostOnce));
        assert_eq!(received(&subscriber).len(), 1);
        let reason = subscriber.unsubscribe(&router, &filter("a", Qos::AtMostOnce).filter);
        assert_eq!(reason, ReasonCode::Success);
        send(&router, &mut publisher, publish("a", Qos::AtMostOnce));
        assert!(received(&subscriber).is_empty());
    }

    #[test]
    fn a_long_list_of_receivers_follows_changes_too() {
        let router = Router::new(&Config::default());
        let filters = [("a", Qos::AtMostOnce, None)];
        let mut subscribers: Vec<Subscriber> = (0..=RECENT_RECEIVERS_MAX)
            .map(|_| subscribed(&router, &filters))
            .collect();
        let mut publishers = [Publisher::default(), Publisher::default()];
        for publisher in &mut publishers {
            send(&router, publisher, publish("a", Qos::AtMostOnce));
        }
        assert!(publishers.iter().all(|it| it.recent.is_empty()));
        let mut gone = subscribers.pop().unwrap();
        gone.end(&router);
        subscribers.extend([subscribed(&router, &filters), subscribed(&router, &filters)]);
        for publisher in &mut publishers {
            send(&router, publisher, publish("a", Qos::AtMostOnce));
        }
        let counts: Vec<usize> = subscribers.iter().map(|it| received(it).len()).collect();
        let mut expected = vec![4; RECENT_RECEIVERS_MAX];
        expected.extend([2, 2]);
        assert_eq!(counts, expected);
    }

    #[test]
    fn of_overlapping_subscriptions_no_local_silences_its_own_only() {
        let router = Router::new(&Config::default());
        let mut subscriber = subscribed(&router, &[("a/#", Qos::AtMostOnce, Some(1))]);
        let mut wanted = filter("a/b", Qos::AtLeastOnce);
        wanted.no_local = true;
        subscriber
            .subscribe(&router, wanted, Some(2), clock::now())
            .unwrap();
        let mut own = Publisher::default();
        own.set_queue(subscriber.queue().unwrap());
        send(&router, &mut own, publish("a/b", Qos::AtLeastOnce));
        let got = received(&subscriber);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].qos, Qos::AtMostOnce);
        assert_eq!(got[0].subscription_identifiers, [1]);
    }

    #[test]
    fn a_full_queue_is_told() {
        let config = Config {
            queue_messages_max: 1,
            ..Config::default()
        };
        let router = Router::new(&config);
        let _subscriber = subscribed(&router, &[("a", Qos::AtLeastOnce, None)]);
        let mut publisher = Publisher::default();
        let dropped: Vec<usize> = (0..2)
            .map(|_| send(&router, &mut publisher, publish("a", Qos::AtLeastOnce)).dropped)
            .collect();
        assert_eq!(dropped, [0, 1]);
    }

    #[test]
    fn subscriptions_and_levels_are_bounded() {
        let config = Config {
            subscriptions_max: 1,
            filter_levels_max: 2,
            ..Config::default()
        };
        let router = Router::new(&config);
        let mut subscriber = Subscriber::default();
        let mut subscribe =
            |text| subscriber.subscribe(&router, filter(text, Qos::AtMostOnce), None, clock::now());
        assert_eq!(subscribe("a/b/c"), Err(ReasonCode::TopicFilterInvalid));
        assert_eq!(subscribe("a"), Ok(ReasonCode::Success));
        assert_eq!(subscribe("b"), Err(ReasonCode::QuotaExceeded));
        assert_eq!(subscribe("a"), Ok(ReasonCode::Success));
    }

    #[test]
    fn retained_messages_come_with_the_subscription() {
        let router = Router::new(&Config::default());
        let mut retained = publish("a/b", Qos::AtLeastOnce);
        retained.retain = true;
        send(&router, &mut Publisher::default(), retained);
        let subscriber = subscribed(&router, &[("a/#", Qos::ExactlyOnce, Some(7))]);
        let got = received(&subscriber);
        assert_eq!(got.len(), 1);
        assert!(got[0].retain);
        assert_eq!(got[0].qos, Qos::AtLeastOnce);
        assert_eq!(got[0].subscription_identifiers, [7]);
    }
}
