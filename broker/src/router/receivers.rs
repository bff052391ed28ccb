//! Who gets the messages of a topic, and what publishers remember of that.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytestring::ByteString;

use super::Router;
use super::shared::Group;
use super::subscriptions::{Entry, Subscription};
use crate::codec::packet::Qos;
use crate::session::queue::{Pushed, Queue, Queued, Shared};

/// Who gets the messages of a topic.
#[derive(Debug)]
pub(super) struct Receivers {
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

/// What a publisher remembers of the router: the receivers of its last topics.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    /// The queue of the publisher's own session, if it has one: for No Local.
    pub(super) number: u64,
    /// It is told what was refused, and then nobody gets it; otherwise what is not retained is delivered all the same.
    pub(super) is_told: bool,
    generation: u64,
    pub(super) recent: Vec<(ByteString, Arc<Receivers>)>,
    next: usize,
}

/// Long lists of receivers by topic, of one generation of the trie.
#[derive(Debug, Default)]
pub(super) struct Large {
    generation: u64,
    /// In all lists.
    receivers: usize,
    lists: HashMap<ByteString, Arc<Receivers>>,
}

impl Receivers {
    /// Is there anybody whose messages are at rest? Who gets what a group shares shows only when it is given.
    pub(super) fn may_store(&self) -> bool {
        !self.groups.is_empty() || self.sessions.iter().any(|it| it.queue.is_durable())
    }

    /// Gives a message to each of them. Returns how many had no room.
    pub(super) fn give(&self, shared: &mut Shared, publisher: u64) -> usize {
        let expires_at = shared.expires_at;
        let mut dropped = 0;
        for receiver in &self.sessions {
            let Some(terms) = receiver.terms(publisher) else {
                continue;
            };
            let qos = shared.live().qos.min(terms.qos);
            let retain = shared.live().retain && terms.retain_as_published;
            let pushed = receiver.queue.push(shared, qos, |publish| Queued {
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
        for group in &self.groups {
            let pushed = group.give(shared);
            dropped += usize::from(pushed == Pushed::Full);
        }
        dropped
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

    pub(super) fn receivers(&mut self, router: &Router, topic: &ByteString) -> Arc<Receivers> {
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

impl Router {
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
}

/// Topics whose receivers a publisher remembers.
const RECENT_MAX: usize = 8;
/// Longer lists are kept once for all.
pub(super) const RECENT_RECEIVERS_MAX: usize = 16;
/// Receivers in all long lists that are kept: some 50 MB.
const LARGE_RECEIVERS_MAX: usize = 1_000_000;
