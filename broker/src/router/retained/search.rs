//! Finding retained messages by filters.

use std::ops::Bound;
use std::time::Instant;

use bytestring::ByteString;

use super::{Message, Retained};
use crate::router::trie::Trie;

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
    /// The place of a filter, and what it matches.
    found: Vec<(usize, Message)>,
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
                found: Vec::new(),
                left: messages_max,
            },
        };
        let mut prefixes = Vec::new();
        for (place, filter) in (0..).zip(filters) {
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

    /// What was found since the last time, expired messages left out: the place of a filter and a message, for each filter
    /// with wildcards in the order of the topics.
    pub(crate) fn take_found(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.found.found)
    }
}

impl Matches {
    fn add(&mut self, place: u64, message: &Message, now: Instant) {
        let fresh = message.expires_at.is_none_or(|at| at > now);
        if let Ok(place) = usize::try_from(place)
            && fresh
            && self.left > 0
        {
            self.left -= 1;
            self.found.push((place, message.clone()));
        }
    }
}

impl Retained {
    /// Goes on with a search, for some topics.
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
}

/// The levels before the first wildcard, without the separator before it: `a/#` also matches `a`.
pub(super) fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    let literal = filter.get(..end).unwrap_or_default();
    literal.strip_suffix('/').unwrap_or(literal)
}

/// Topics that are looked at in one go: with as many filters as a client may have, each takes longest.
const SEARCH_TOPICS: usize = 64;
