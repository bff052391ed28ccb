//! Retained messages (MQTT 5.0 §3.3.1.3), in memory: the last one of each topic, until it is cleared or expires.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use super::trie::Trie;
use crate::codec::packet::Publish;
use crate::session::queue::size;

/// The retained messages of all topics, bounded in number and bytes.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: BTreeMap<ByteString, Message>,
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
}

/// The limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Retained {
    pub(crate) const fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages: BTreeMap::new(),
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
        let old = self.messages.get(topic).map(|old| size(&old.publish));
        let bytes = self.bytes - old.unwrap_or(0) + size(&message.publish);
        let full = old.is_none() && self.messages.len() >= self.messages_max;
        if full || bytes > self.bytes_max {
            return Err(Full);
        }
        self.bytes = bytes;
        Ok(self.messages.insert(topic.clone(), message))
    }

    /// Goes on with a search, for some thousand topics.
    pub(crate) fn search(&self, search: &mut Search, now: Instant) {
        for (place, filter) in std::mem::take(&mut search.literal) {
            if let Some(message) = self.messages.get(&filter) {
                search.found.add(place, message, now);
            }
        }
        let mut left = SEARCH_TOPICS;
        while let Some((prefix, after)) = search.ranges.last_mut() {
            let from = match after {
                Some(topic) => Bound::Excluded(&**topic),
                None => Bound::Included(&**prefix),
            };
            let topics = self.messages.range::<str, _>((from, Bound::Unbounded));
            let mut last = None;
            for (topic, message) in topics.take_while(|(topic, _)| topic.starts_with(&**prefix)) {
                search.filters.matches(topic, |place, ()| {
                    search.found.add(place, message, now);
                });
                last = Some(topic);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            if search.found.left == 0 {
                search.ranges.clear();
            } else if left == 0 {
                *after = last.cloned();
            } else {
                search.ranges.pop();
            }
            if left == 0 {
                return;
            }
        }
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
        let over = |message: &Message| message.expires_at.is_some_and(|at| at <= now);
        let expired: Vec<_> = self
            .messages
            .extract_if(.., |_, message| over(message))
            .collect();
        for (_, message) in &expired {
            self.bytes -= size(&message.publish);
        }
        expired.into_iter().map(|(_, message)| message).collect()
    }

    /// Removes the message of a topic.
    pub(crate) fn remove(&mut self, topic: &str) -> Option<Message> {
        let old = self.messages.remove(topic)?;
        self.bytes -= size(&old.publish);
        Some(old)
    }
}

/// A search for what matches any of some filters: one walk over the topics for all of them, so that a SUBSCRIBE costs the
/// same however many filters with wildcards it has; in pieces, so that nobody who retains waits for all of it.
#[derive(Debug)]
pub(crate) struct Search {
    literal: Vec<(u64, ByteString)>,
    /// Those with wildcards.
    filters: Trie<()>,
    /// Where their topics are, the last one first: how they begin, and the last topic that was looked at.
    ranges: Vec<(ByteString, Option<ByteString>)>,
    found: Matches,
}

#[derive(Debug)]
struct Matches {
    lists: Vec<Vec<Message>>,
    /// How many more are taken.
    left: usize,
}

impl Search {
    /// A search for filters without `$share`; it finds at most so many messages in all.
    pub(crate) fn new<'a>(filters: impl Iterator<Item = &'a str>, messages_max: usize) -> Self {
        let mut search = Self {
            literal: Vec::new(),
            filters: Trie::default(),
            ranges: Vec::new(),
            found: Matches {
                lists: Vec::new(),
                left: messages_max,
            },
        };
        let mut prefixes = Vec::new();
        for (place, filter) in (0..).zip(filters) {
            search.found.lists.push(Vec::new());
            if filter.contains(['+', '#']) {
                search.filters.insert(filter, place, ());
                prefixes.push(literal_prefix(filter));
            } else {
                search.literal.push((place, filter.into()));
            }
        }
        prefixes.sort_unstable();
        // One that begins like the one before it is within its range.
        prefixes.dedup_by(|later, earlier| later.starts_with(*earlier));
        let ranges = prefixes.into_iter().rev();
        search.ranges = ranges.map(|prefix| (prefix.into(), None)).collect();
        search
    }

    /// Is nothing left to be looked at?
    pub(crate) fn is_over(&self) -> bool {
        self.literal.is_empty() && self.ranges.is_empty()
    }

    /// What was found for each filter, in the order of the topics, expired messages left out.
    pub(crate) fn found(self) -> Vec<Vec<Message>> {
        self.found.lists
    }
}

impl Matches {
    fn add(&mut self, place: u64, message: &Message, now: Instant) {
        let fresh = message.expires_at.is_none_or(|at| at > now);
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(list) = self.lists.get_mut(place)
            && fresh
            && self.left > 0
        {
            self.left -= 1;
            list.push(message.clone());
        }
    }
}

/// The levels before the first wildcard, without the separator before it: `a/#` also matches `a`.
fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let literal = filter.get(..end).unwrap_or_default();
    literal.strip_suffix('/').unwrap_or(literal)
}

/// Topics that are looked at in one go.
const SEARCH_TOPICS: usize = 4_096;

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
                properties: PublishProperties::default(),
            }),
            expires_at: None,
            number: None,
        }
    }

    fn found(
        retained: &Retained,
        filters: &[&str],
        messages_max: usize,
        now: Instant,
    ) -> Vec<Vec<String>> {
        let mut search = Search::new(filters.iter().copied(), messages_max);
        while !search.is_over() {
            retained.search(&mut search, now);
        }
        let topic = |message: &Message| message.publish.topic.to_string();
        let lists = search.found().into_iter();
        lists.map(|list| list.iter().map(topic).collect()).collect()
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
    }
}
