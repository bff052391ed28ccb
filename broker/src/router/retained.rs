//! Retained messages (MQTT 5.0 §3.3.1.3), in memory: the last one of each topic, until it is cleared or expires. What the
//! router changes of them it notes at rest.

mod owners;
mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

use bytestring::ByteString;

use self::owners::{Held, Owners};
use self::search::{Search, literal_prefix};
use super::Router;
use super::subscriber::Asked;
use super::trie::Trie;
use crate::acl;
use crate::codec::packet::Publish;
use crate::config::Config;
use crate::journal::{Change, Entry as Journaled};
use crate::session::queue::{Shared, size};
use crate::sys;

/// The retained messages of all topics, bounded in number and bytes.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: BTreeMap<ByteString, Message>,
    /// Those that expire, in the order in which they do.
    expiring: BTreeSet<(Instant, ByteString)>,
    owners: Owners,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

/// One retained message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) publish: Arc<Publish>,
    pub(crate) expires_at: Option<Instant>,
    /// Its number at rest.
    pub(crate) number: Option<u64>,
    /// The key of the user who published it last.
    pub(crate) owner: Option<Arc<str>>,
}

/// The limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A search for what subscriptions ask for, among the messages of clients and the server's own.
#[derive(Debug)]
pub(crate) struct Finding {
    asked: Vec<Asked>,
    searches: [Search; 2],
}

impl Retained {
    /// For the messages of clients.
    pub(super) fn of_clients(config: &Config) -> Self {
        let max = Held {
            messages: config.retained_messages_per_user_max,
            bytes: config.retained_bytes_per_user_max,
        };
        Self {
            owners: Owners::new(max),
            ..Self::new(config.retained_messages_max, config.retained_bytes_max)
        }
    }

    /// For messages that nobody owns.
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages: BTreeMap::new(),
            expiring: BTreeSet::new(),
            owners: Owners::new(Held::default()),
            bytes: 0,
            messages_max,
            bytes_max,
        }
    }

    /// Replaces the message of a topic; an empty payload removes it [MQTT-3.3.1-6]. Returns the one that was there.
    pub(crate) fn set(&mut self, message: Message) -> Result<Option<Message>, Full> {
        let topic = &message.publish.topic;
        if message.publish.payload.is_empty() {
            return Ok(self.remove(&topic.clone()));
        }
        let bytes = size(&message.publish);
        let old = self.messages.get(topic);
        let old = old.map(|old| (old.owner.as_ref(), size(&old.publish)));
        let total = self.bytes - old.map_or(0, |(_, bytes)| bytes) + bytes;
        let full = old.is_none() && self.messages.len() >= self.messages_max;
        let has_room = self.owners.has_room(message.owner.as_ref(), bytes, old);
        if full || total > self.bytes_max || !has_room {
            return Err(Full);
        }
        let topic = topic.clone();
        let replaced = self.remove(&topic);
        self.bytes += bytes;
        self.owners.add(message.owner.as_ref(), bytes);
        if let Some(at) = message.expires_at {
            self.expiring.insert((at, topic.clone()));
        }
        self.messages.insert(topic, message);
        Ok(replaced)
    }

    /// Messages whose topics match a filter and come after `after`, expired ones included; at most `max` are looked at.
    /// And behind which topic to go on.
    pub(crate) fn page(
        &self,
        filter: &str,
        after: Option<&str>,
        max: usize,
    ) -> (Vec<Message>, Option<ByteString>) {
        let mut filters = Trie::default();
        filters.insert(filter, 0, ());
        let prefix = literal_prefix(filter);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let range = self.messages.range::<str, _>((from, Bound::Unbounded));
        let near = range.take_while(|(topic, _)| topic.starts_with(prefix));
        let (mut found, mut looked_at, mut last) = (Vec::new(), 0, None);
        for (topic, message) in near.take(max) {
            looked_at += 1;
            last = Some(topic);
            filters.matches(topic, |_, ()| found.push(message.clone()));
        }
        (found, last.filter(|_| looked_at == max).cloned())
    }

    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Forgets what has expired, and returns it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Message> {
        let mut expired = Vec::new();
        while let Some((_, topic)) = self.expiring.first().filter(|(at, _)| *at <= now) {
            let topic = topic.clone();
            expired.extend(self.remove(&topic));
        }
        expired
    }

    /// Removes the message of a topic.
    pub(crate) fn remove(&mut self, topic: &str) -> Option<Message> {
        let (topic, old) = self.messages.remove_entry(topic)?;
        let bytes = size(&old.publish);
        self.bytes -= bytes;
        self.owners.remove(old.owner.as_ref(), bytes);
        if let Some(at) = old.expires_at {
            self.expiring.remove(&(at, topic));
        }
        Some(old)
    }
}

impl Router {
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

    /// Retains a message of this user, who may be nobody.
    pub(super) fn retain(
        &self,
        shared: &mut Shared,
        owner: Option<&Arc<str>>,
        now: Instant,
    ) -> Result<(), Full> {
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
            return Err(Full);
        }
        let message = Message {
            publish: Arc::clone(shared.compact()),
            expires_at: shared.expires_at,
            number: if clears { None } else { shared.store() },
            owner: owner.cloned(),
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
                let owner = owner.cloned();
                entry.push(Change::Retained { number, owner });
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

    /// Begins to look for the retained messages that these subscriptions ask for. All that there are for one of them, and
    /// together no more than a queue has room for beside: the rest is left out.
    pub(crate) fn find_retained(&self, asked: Vec<Asked>) -> Finding {
        let searches = self.retained_stores().map(|store| {
            let stored = store.read().unwrap_or_else(PoisonError::into_inner).len();
            let messages_max = self.limits.queue_messages_max.saturating_add(stored);
            let filters = asked.iter().map(|asked| asked.filter.as_str());
            Search::new(filters, messages_max)
        });
        Finding { asked, searches }
    }

    /// Looks for a moment, and no longer. True: all was found. Until `queue` returns nothing newer is routed: who gets a
    /// newer message is not sent back to an older one.
    pub(crate) fn go_on_finding(
        &self,
        finding: &mut Finding,
        now: Instant,
        mut queue: impl FnMut(&mut Asked, Message),
    ) -> bool {
        for (store, search) in self
            .retained_stores()
            .into_iter()
            .zip(&mut finding.searches)
        {
            if !search.is_over() {
                let retained = store.read().unwrap_or_else(PoisonError::into_inner);
                retained.search(search, now);
                for (place, message) in search.take_found() {
                    if let Some(asked) = finding.asked.get_mut(place) {
                        queue(asked, message);
                    }
                }
                break;
            }
        }
        finding.searches.iter().all(Search::is_over)
    }

    fn retained_stores(&self) -> [&RwLock<Retained>; 2] {
        [&self.retained, &self.statistics]
    }

    fn retained_mut(&self) -> RwLockWriteGuard<'_, Retained> {
        self.retained
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::codec::packet::Qos;
    use crate::codec::properties::PublishProperties;
    use bytes::Bytes;
    use std::time::Duration;

    fn message(topic: &'static str, payload: &'static [u8]) -> Message {
        Message {
            publish: Arc::new(Publish {
                dup: false,
                qos: Qos::AtMostOnce,
                retain: true,
                topic: topic.into(),
                packet_id: None,
                payload: Bytes::from_static(payload),
                properties: PublishProperties::default().into(),
            }),
            expires_at: None,
            number: None,
            owner: None,
        }
    }

    fn found(
        retained: &Retained,
        filters: &[&str],
        messages_max: usize,
        now: Instant,
    ) -> Vec<Vec<String>> {
        let mut search = Search::new(filters.iter().copied(), messages_max);
        let mut lists = vec![Vec::new(); filters.len()];
        while !search.is_over() {
            retained.search(&mut search, now);
            for (place, message) in search.take_found() {
                lists[place].push(message.publish.topic.to_string());
            }
        }
        lists
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        found(retained, &[filter], 100, clock::now()).remove(0)
    }

    fn filled() -> Retained {
        let mut retained = Retained::new(10, usize::MAX);
        for topic in ["a", "a/b", "a/b/c", "ab", "$s/a"] {
            retained.set(message(topic, b"x")).unwrap();
        }
        retained
    }

    #[test]
    fn wildcards_find_what_they_match() {
        let retained = filled();
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&retained, "a/+"), ["a/b"]);
        assert_eq!(topics(&retained, "+"), ["a", "ab"]);
        assert_eq!(topics(&retained, "#"), ["a", "a/b", "a/b/c", "ab"]);
        assert_eq!(topics(&retained, "$s/#"), ["$s/a"]);
        assert_eq!(topics(&retained, "a/b"), ["a/b"]);
    }

    #[test]
    fn a_page_goes_on_behind_the_last_topic_that_was_looked_at() {
        let retained = filled();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = retained.page("a/+", after.as_deref(), 2);
            found.extend(page.iter().map(|it| it.publish.topic.to_string()));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ["a/b"]);
    }

    #[test]
    fn a_search_for_many_filters_finds_what_each_alone_would() {
        let mut retained = Retained::new(20_000, usize::MAX);
        for first in 0..100 {
            for second in 0..100 {
                let topic: &'static str = format!("{first}/{second}").leak();
                retained.set(message(topic, b"x")).unwrap();
            }
        }
        let filters = [
            "7/+", "+/z", "70/1", "+/8", "7/#", "70/+", "#", "7/1", "x/#",
        ];
        let now = clock::now();
        let alone = filters.map(|filter| found(&retained, &[filter], usize::MAX, now).remove(0));
        assert_eq!(
            alone.each_ref().map(Vec::len),
            [100, 0, 1, 100, 100, 100, 10_000, 1, 0]
        );
        assert_eq!(found(&retained, &filters, usize::MAX, now), alone);
        // However many match, only so many are found.
        let some = found(&retained, &["+/+", "#", "+/#"], 5_000, now).concat();
        assert_eq!(some.len(), 5_000);
    }

    #[test]
    fn an_empty_payload_clears_the_topic() {
        let mut retained = filled();
        retained.set(message("a/b", b"")).unwrap();
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b/c"]);
        for topic in ["a", "a/b/c", "ab", "$s/a"] {
            retained.set(message(topic, b"")).unwrap();
        }
        assert_eq!(retained.bytes, 0);
    }

    #[test]
    fn one_user_cannot_take_the_room_of_all() {
        let one = size(&message("a", b"1").publish);
        for max in [(2, usize::MAX), (usize::MAX, 2 * one)] {
            let (messages, bytes) = max;
            let mut retained = Retained {
                owners: Owners::new(Held { messages, bytes }),
                ..Retained::new(10, usize::MAX)
            };
            let mut set = |topic, payload, owner: &str| {
                let owner = Some(owner.into());
                let message = Message {
                    owner,
                    ..message(topic, payload)
                };
                retained.set(message).is_ok()
            };
            assert!(set("a", b"1", "alice") && set("b", b"1", "alice"));
            assert!(!set("c", b"1", "alice"));
            assert!(set("b", b"2", "alice"), "the same again");
            assert!(set("c", b"1", "bob"));
            assert!(!set("c", b"1", "alice"), "in the place of another's");
            assert!(set("a", b"2", "bob") && set("c", b"1", "alice"));
            for topic in ["a", "b", "c"] {
                assert!(set(topic, b"", "bob"));
            }
            assert!(retained.owners.is_empty());
        }
    }

    #[test]
    fn a_full_store_refuses_new_topics_and_replaces_old_ones() {
        let mut retained = Retained::new(1, usize::MAX);
        retained.set(message("a", b"1")).unwrap();
        assert_eq!(retained.set(message("b", b"1")).err(), Some(Full));
        assert!(retained.set(message("a", b"2")).unwrap().is_some());
    }

    #[test]
    fn an_expired_message_is_not_found() {
        let now = clock::now();
        let mut retained = Retained::new(10, usize::MAX);
        let mut short = message("a", b"x");
        short.expires_at = Some(now + Duration::from_secs(1));
        retained.set(short).unwrap();
        assert_eq!(found(&retained, &["#", "a"], 100, now), [["a"], ["a"]]);
        let later = now + Duration::from_secs(1);
        assert!(
            found(&retained, &["#", "a"], 100, later)
                .concat()
                .is_empty()
        );
        retained.expire(later);
        assert_eq!((retained.messages.len(), retained.bytes), (0, 0));
        assert!(retained.expiring.is_empty());
    }
}
