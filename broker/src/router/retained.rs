//! Retained messages (MQTT 5.0 §3.3.1.3), in memory: the last one of each topic, until it is cleared or expires.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

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

    /// The messages whose topics match a filter, in the order of the topics, expired ones left out.
    pub(crate) fn matching(&self, filter: &str, now: Instant) -> Vec<Message> {
        let fresh = |message: &&Message| message.expires_at.is_none_or(|at| at > now);
        if !filter.contains(['+', '#']) {
            return self
                .messages
                .get(filter)
                .filter(fresh)
                .cloned()
                .into_iter()
                .collect();
        }
        let prefix = literal_prefix(filter);
        self.messages
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .filter(|(topic, _)| matches(filter, topic))
            .map(|(_, message)| message)
            .filter(fresh)
            .cloned()
            .collect()
    }

    /// Messages whose topics match a filter and come after `after`, expired ones included; at most `max` are looked at.
    /// And behind which topic to go on.
    pub(crate) fn page(
        &self,
        filter: &str,
        after: Option<&str>,
        max: usize,
    ) -> (Vec<Message>, Option<ByteString>) {
        let prefix = literal_prefix(filter);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let range = self.messages.range::<str, _>((from, Bound::Unbounded));
        let near = range.take_while(|(topic, _)| topic.starts_with(prefix));
        let (mut found, mut looked_at, mut last) = (Vec::new(), 0, None);
        for (topic, message) in near.take(max) {
            looked_at += 1;
            last = Some(topic);
            if matches(filter, topic) {
                found.push(message.clone());
            }
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

/// The levels before the first wildcard, without the separator before it: `a/#` also matches `a`.
fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let literal = filter.get(..end).unwrap_or_default();
    literal.strip_suffix('/').unwrap_or(literal)
}

/// Does a valid filter match a topic name (§4.7)?
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
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
                properties: PublishProperties::default(),
            }),
            expires_at: None,
            number: None,
        }
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        retained
            .matching(filter, clock::now())
            .iter()
            .map(|message| message.publish.topic.to_string())
            .collect()
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
        assert_eq!(retained.matching("#", now).len(), 1);
        let later = now + Duration::from_secs(1);
        assert!(retained.matching("#", later).is_empty());
        retained.expire(later);
        assert_eq!((retained.messages.len(), retained.bytes), (0, 0));
    }
}
