//! A session as the router sees it: its subscriptions, and the queue of what they bring.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Router;
use super::retained::{Finding, Message};
use super::subscriptions::Subscription;
use super::trie::Trie;
use crate::budget::Share;
use crate::codec::packet::{Qos, RetainHandling, SubscribeFilter};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::journal::{Change, Entry as Journaled, SubscriptionRow};
use crate::session::queue::{Queue, Queued, Stored};

/// The subscriptions of one session to ordinary topics, and its queue. Both live as long as the session; neither takes
/// memory before the first subscription.
#[derive(Debug, Default)]
pub(crate) struct Subscriber {
    /// The user's key.
    user: Arc<str>,
    /// Of the session at rest.
    number: Option<u64>,
    /// Subscriptions and messages are at rest, too.
    durable: bool,
    queue: Option<Arc<Queue>>,
    filters: HashMap<TopicFilter, Held>,
    /// What the filters count.
    filter_bytes: usize,
    /// Of the bytes for all filters.
    share: Share,
}

impl Subscriber {
    /// The subscriber of a new session of this user.
    pub(crate) fn new(user: &Arc<str>) -> Self {
        Self {
            user: Arc::clone(user),
            ..Self::default()
        }
    }

    /// The session has a row at rest from now on.
    pub(crate) const fn set_number(&mut self, number: u64) {
        self.number = Some(number);
    }

    /// As it was found at rest: the client is away.
    pub(crate) fn restored(
        router: &Router,
        user: &Arc<str>,
        number: u64,
        subscriptions: Vec<SubscriptionRow>,
        messages: VecDeque<Queued>,
        next_place: u64,
    ) -> Self {
        let mut subscriber = Self::new(user);
        subscriber.set_number(number);
        subscriber.durable = true;
        if subscriptions.is_empty() && messages.is_empty() && next_place == 0 {
            return subscriber;
        }
        let queue = subscriber.queue_or_new(router);
        queue.restore(messages, next_place);
        for row in subscriptions {
            let held = Held {
                number: row.number,
                qos: row.qos,
            };
            subscriber.filters.insert(row.filter.clone(), held);
            subscriber.filter_bytes += filter_bytes(&row.filter);
            let subscription = Subscription {
                queue: Arc::clone(&queue),
                qos: row.qos,
                no_local: row.no_local,
                retain_as_published: row.retain_as_published,
                identifier: row.identifier,
            };
            router.subscribe(&row.filter, subscription);
        }
        subscriber.share.hold(subscriber.filter_bytes);
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
        if known.is_none() {
            self.make_room(router, &filter)?;
        }
        let subscription = Subscription {
            queue: Arc::clone(&queue),
            qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            identifier,
        };
        let number = self.note(known.map(|it| it.number), &filter, &subscription, entry);
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
                admitted: None,
            });
        }
        self.filters.insert(filter, Held { number, qos });
        Ok(granted(qos))
    }

    /// Finds retained messages for the subscriptions of a SUBSCRIBE, as far as these are still there, and queues them: for a
    /// moment, and no longer. True: that was all.
    pub(crate) fn queue_retained(
        &self,
        router: &Router,
        finding: &mut Finding,
        now: Instant,
        entry: &mut Option<Journaled>,
    ) -> bool {
        let Some(queue) = &self.queue else {
            return true;
        };
        router.go_on_finding(finding, now, |asked, message| {
            if let Some(held) = self.filters.get(&asked.filter) {
                asked.qos = asked.qos.min(held.qos);
                let queued = asked.queued(message);
                queue.push_retained(queued, &mut asked.admitted, entry);
            }
        })
    }

    /// Counts the bytes of a filter that comes.
    fn make_room(&mut self, router: &Router, filter: &TopicFilter) -> Result<(), ReasonCode> {
        let bytes = self.filter_bytes + filter_bytes(filter);
        if bytes > router.limits.subscription_bytes_max || !self.share.try_hold(bytes) {
            return Err(ReasonCode::QuotaExceeded);
        }
        self.filter_bytes = bytes;
        Ok(())
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
        let Some((queue, held)) = self.queue.as_ref().zip(self.filters.remove(filter)) else {
            return (ReasonCode::NoSubscriptionExisted, Vec::new());
        };
        self.filter_bytes -= filter_bytes(filter);
        self.share.hold(self.filter_bytes);
        let left = if remove(router, filter, queue.number()) {
            queue.take_share(filter.as_str())
        } else {
            Vec::new()
        };
        if let (Some(entry), Some(session)) = (entry, self.number) {
            let number = held.number;
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
        self.filter_bytes = 0;
        self.share.hold(0);
        queue.end()
    }

    /// Lowers the QoS of a subscription; what waits already keeps its own.
    pub(crate) fn lower(
        &mut self,
        router: &Router,
        filter: &TopicFilter,
        qos: Qos,
        entry: &mut Option<Journaled>,
    ) {
        let Some((queue, held)) = self.queue.as_ref().zip(self.filters.get_mut(filter)) else {
            return;
        };
        held.qos = qos;
        let number = held.number;
        if let Some(subscription) = router.lower(filter, queue.number(), qos) {
            self.note(Some(number), filter, &subscription, entry);
        }
    }

    /// Its filters with what was granted, in no order.
    pub(crate) fn granted(&self) -> impl Iterator<Item = (&TopicFilter, Qos)> {
        self.filters.iter().map(|(filter, held)| (filter, held.qos))
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
        if let Some(queue) = &self.queue {
            return Arc::clone(queue);
        }
        let queue = Queue::new(
            self.number.unwrap_or_else(|| router.next_number()),
            router.limits.queue_messages_max,
            router.limits.queue_bytes_max,
            router.queue_share(&self.user),
        );
        queue.connect();
        queue.set_durable(self.durable);
        let queue = Arc::new(queue);
        self.queue = Some(Arc::clone(&queue));
        self.share = router.filters.share(&self.user);
        queue
    }
}

/// What is known of a subscription beside its filter.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// At rest; 0: it is not.
    number: u64,
    qos: Qos,
}

/// A subscription that asks for retained messages.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) filter: TopicFilter,
    qos: Qos,
    identifier: Option<u32>,
    /// Was there room when the first message was found?
    admitted: Option<bool>,
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

/// What a subscription counts in bytes: the text of its filter, and what each level takes in the trie.
fn filter_bytes(filter: &TopicFilter) -> usize {
    let filter = filter.as_str();
    filter.len() + filter.split('/').count() * LEVEL_BYTES
}

/// Ends one subscription of a session. True if others share it.
fn remove(router: &Router, filter: &TopicFilter, subscriber: u64) -> bool {
    if filter.split_share().0.is_some() {
        return router.part(filter, subscriber);
    }
    router.remove(filter.as_str(), subscriber);
    false
}

/// About what the trie takes for a level.
const LEVEL_BYTES: usize = 100;

const fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
