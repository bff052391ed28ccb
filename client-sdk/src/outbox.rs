//! Who may be sent next. One of each conversation is under way at a time: a refusal for being too fast must not let the next
//! one overtake. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use proto::ids::ConversationId;

use crate::store::{OutboxKind, Queued};

/// Lanes that are under way at once.
const UNDER_WAY_MAX: usize = 32;

/// What waits, by conversation.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lanes: HashMap<String, Lane>,
    /// Which conversations targets turned out to be.
    learned: HashMap<String, ConversationId>,
    /// In which lane a number is.
    places: HashMap<u64, String>,
    under_way: usize,
    /// To be tried again, though it was not heard yet that they were refused.
    again: BTreeMap<u64, Queued>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<u64, Queued>,
    under_way: BTreeSet<u64>,
    paused_until: Option<Instant>,
}

impl Outbox {
    /// Something waits. Returns what it takes the place of: a read mark that was not sent yet.
    pub(crate) fn add(&mut self, queued: Queued) -> Option<u64> {
        if queued.failed {
            return None;
        }
        if self.places.contains_key(&queued.number) {
            if self.is_under_way(queued.number) {
                self.again.insert(queued.number, queued);
            }
            return None;
        }
        // What was put into the outbox a moment before its conversation became known does not say which one it is.
        let known = self.learned.get(&queued.target).copied();
        let name = match queued.cid.or(known) {
            Some(cid) => {
                self.learn(&queued.target, cid);
                cid.to_string()
            }
            None => queued.target.clone(),
        };
        let lane = self.lanes.entry(name.clone()).or_default();
        let older = lane.waiting.values().find(|older| {
            let marks = matches!(queued.kind, OutboxKind::Read | OutboxKind::ReadPrivately);
            marks && older.kind == queued.kind && older.seq <= queued.seq
        });
        let older = older.map(|older| older.number);
        if let Some(older) = older {
            lane.waiting.remove(&older);
            self.places.remove(&older);
        }
        self.places.insert(queued.number, name);
        lane.waiting.insert(queued.number, queued);
        older
    }

    /// A target is this conversation: their lanes are one from now on.
    pub(crate) fn learn(&mut self, target: &str, cid: ConversationId) {
        let name = cid.to_string();
        if name == target {
            return;
        }
        self.learned.insert(target.to_owned(), cid);
        let Some(known_by_handle) = self.lanes.remove(target) else {
            return;
        };
        let waiting = known_by_handle.waiting.keys();
        for number in waiting.chain(&known_by_handle.under_way) {
            self.places.insert(*number, name.clone());
        }
        let lane = self.lanes.entry(name).or_default();
        lane.waiting.extend(known_by_handle.waiting);
        lane.under_way.extend(known_by_handle.under_way);
        lane.paused_until = lane.paused_until.max(known_by_handle.paused_until);
    }

    /// The oldest that may be sent. It is under way then.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Queued> {
        if self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        let ready = self.lanes.values_mut().filter(|lane| lane.is_ready(now));
        let lane = ready.min_by_key(|lane| lane.waiting.keys().next().copied())?;
        let (number, queued) = lane.waiting.pop_first()?;
        lane.under_way.insert(number);
        lane.paused_until = None;
        self.under_way += 1;
        Some(queued)
    }

    /// It is settled, failed or discarded.
    pub(crate) fn remove(&mut self, number: u64) {
        self.again.remove(&number);
        let Some(name) = self.places.remove(&number) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&name) else {
            return;
        };
        lane.waiting.remove(&number);
        if lane.under_way.remove(&number) {
            self.under_way -= 1;
        }
        if lane.waiting.is_empty() && lane.under_way.is_empty() {
            self.lanes.remove(&name);
        }
    }

    /// The server refuses it. It waits if the app, who knew that before, wants it tried again.
    pub(crate) fn refused(&mut self, number: u64) {
        let again = self.again.remove(&number);
        self.remove(number);
        if let Some(queued) = again {
            self.add(queued);
        }
    }

    /// It is not under way any more, and waits again, for some time if that is said.
    pub(crate) fn again(&mut self, queued: Queued, until: Option<Instant>) {
        let number = queued.number;
        let Some(name) = self.places.get(&number) else {
            return; // Settled by its copy in the inbox.
        };
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        if lane.under_way.remove(&number) {
            self.under_way -= 1;
        }
        lane.waiting.insert(number, queued);
        lane.paused_until = until;
    }

    /// Is it under way?
    pub(crate) fn is_under_way(&self, number: u64) -> bool {
        let lane = self
            .places
            .get(&number)
            .and_then(|name| self.lanes.get(name));
        lane.is_some_and(|lane| lane.under_way.contains(&number))
    }

    /// When the first pause ends.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        let paused = self.lanes.values().filter(|lane| lane.under_way.is_empty());
        paused.filter_map(|lane| lane.paused_until).min()
    }

    /// Nothing waits and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl Lane {
    fn is_ready(&self, now: Instant) -> bool {
        !self.waiting.is_empty()
            && self.under_way.is_empty()
            && self.paused_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CID: &str = "g.01jz0000000000000000000000";

    fn queued(number: u64, target: &str) -> Queued {
        Queued {
            number,
            target: target.to_owned(),
            cid: target.parse().ok(),
            kind: OutboxKind::Message,
            seq: 0,
            failed: false,
            mid: format!("m-{number}"),
        }
    }

    fn numbers(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next(now).map(|next| next.number)).collect()
    }

    #[test]
    fn one_of_each_conversation_is_under_way() {
        let now = crate::clock::now();
        let mut outbox = Outbox::default();
        for (number, target) in [(1, "@bob"), (2, "@bob"), (3, CID), (4, "@carol")] {
            assert_eq!(outbox.add(queued(number, target)), None);
        }
        assert_eq!(numbers(&mut outbox, now), [1, 3, 4]);
        outbox.remove(1);
        assert_eq!(numbers(&mut outbox, now), [2]);
        for number in [2, 3, 4] {
            outbox.remove(number);
        }
        assert!(outbox.is_empty() && outbox.lanes.is_empty());
    }

    #[test]
    fn what_was_refused_for_being_too_fast_is_not_overtaken() {
        let now = crate::clock::now();
        let mut outbox = Outbox::default();
        outbox.add(queued(1, CID));
        outbox.add(queued(2, CID));
        let first = outbox.next(now).unwrap();
        let later = now + Duration::from_secs(1);
        outbox.again(first, Some(later));
        assert_eq!(numbers(&mut outbox, now), [0; 0]);
        assert_eq!(outbox.next_timeout(), Some(later));
        assert_eq!(numbers(&mut outbox, later), [1]);
    }

    #[test]
    fn a_handle_and_its_conversation_are_one_lane_once_that_is_known() {
        let now = crate::clock::now();
        let mut outbox = Outbox::default();
        outbox.add(queued(1, "@bob"));
        outbox.add(queued(2, "@bob"));
        assert_eq!(numbers(&mut outbox, now), [1]);
        let by_handle = Queued {
            cid: CID.parse().ok(),
            ..queued(3, "@bob")
        };
        outbox.add(by_handle);
        outbox.add(queued(4, CID));
        assert_eq!(numbers(&mut outbox, now), [0; 0], "1 is under way");
        outbox.remove(1);
        assert_eq!(numbers(&mut outbox, now), [2]);
        assert!(outbox.is_under_way(2));
    }

    #[test]
    fn what_came_before_its_conversation_was_known_does_not_overtake() {
        let now = crate::clock::now();
        let mut outbox = Outbox::default();
        for number in 1..=3 {
            outbox.add(queued(number, "@bob"));
        }
        assert_eq!(numbers(&mut outbox, now), [1]);
        outbox.learn("@bob", CID.parse().unwrap());
        outbox.add(queued(4, "@bob"));
        assert_eq!(numbers(&mut outbox, now), [0; 0]);
        outbox.remove(1);
        assert_eq!(numbers(&mut outbox, now), [2]);
    }

    #[test]
    fn a_read_mark_takes_the_place_of_one_that_waits() {
        let mut outbox = Outbox::default();
        let mark = |number| Queued {
            kind: OutboxKind::Read,
            ..queued(number, CID)
        };
        assert_eq!(outbox.add(mark(1)), None);
        assert_eq!(outbox.add(queued(2, CID)), None);
        assert_eq!(outbox.add(mark(3)), Some(1));
        assert_eq!(numbers(&mut outbox, crate::clock::now()), [2]);
        let lower = Queued { seq: 1, ..mark(5) };
        let higher = Queued { seq: 9, ..mark(4) };
        assert_eq!(outbox.add(higher), Some(3));
        assert_eq!(outbox.add(lower), None, "what goes back takes no place");
    }

    #[test]
    fn what_is_tried_again_before_its_refusal_was_heard_waits() {
        let now = crate::clock::now();
        let mut outbox = Outbox::default();
        outbox.add(queued(1, CID));
        assert_eq!(numbers(&mut outbox, now), [1]);
        // The store knows of the refusal, the app asks for another try, and then the worker hears.
        assert_eq!(outbox.add(queued(1, CID)), None);
        outbox.refused(1);
        assert_eq!(numbers(&mut outbox, now), [1]);
        outbox.refused(1);
        assert!(outbox.is_empty() && outbox.lanes.is_empty());
    }
}
