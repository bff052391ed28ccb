//! Under which identifier a message at QoS 1 went out: written only if it is not acknowledged soon.
//!
//! Most are acknowledged within moments, and then their rows go: to write first that they were sent would cost as much
//! again. A server that is killed meanwhile sends them anew, as it may at QoS 1, without DUP.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::embedded::Home;
use crate::codec::packet::Qos;
use crate::journal::QueueRow;

/// Rows that are held back, in two generations.
#[derive(Debug)]
pub(super) struct Sent {
    young: BTreeMap<Home, Box<QueueRow>>,
    old: BTreeMap<Home, Box<QueueRow>>,
    turned: Instant,
}

impl Sent {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            young: BTreeMap::new(),
            old: BTreeMap::new(),
            turned: now,
        }
    }

    /// May this change of a row be held back?
    pub(super) fn takes(row: &QueueRow) -> bool {
        row.qos == Qos::AtLeastOnce && !row.released
    }

    pub(super) fn insert(&mut self, home: Home, row: Box<QueueRow>) {
        self.old.remove(&home);
        self.young.insert(home, row);
    }

    pub(super) fn remove(&mut self, home: Home) -> Option<Box<QueueRow>> {
        self.young.remove(&home).or_else(|| self.old.remove(&home))
    }

    /// What is held back of a session: it has ended, or what was sent later is written now.
    pub(super) fn take_of(&mut self, session: u64) -> BTreeMap<Home, Box<QueueRow>> {
        let all = (session, 0)..=(session, u64::MAX);
        let [young, old] = [&mut self.young, &mut self.old];
        old.extract_if(all.clone(), |_, _| true)
            .chain(young.extract_if(all, |_, _| true))
            .collect()
    }

    /// What has waited for its acknowledgement for long enough, or is too much to be held.
    pub(super) fn overdue(&mut self, now: Instant) -> BTreeMap<Home, Box<QueueRow>> {
        let is_time = now.saturating_duration_since(self.turned) >= HELD_BACK;
        if !is_time && self.young.len() < ROWS_MAX {
            return BTreeMap::new();
        }
        self.turned = now;
        let young = std::mem::take(&mut self.young);
        std::mem::replace(&mut self.old, young)
    }

    /// Everything.
    pub(super) fn take(&mut self) -> BTreeMap<Home, Box<QueueRow>> {
        let mut all = std::mem::take(&mut self.young);
        all.append(&mut self.old);
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

/// A row is held back so long, at most twice: the time that a client on a phone may take to acknowledge.
pub(super) const HELD_BACK: Duration = Duration::from_millis(500);
/// Rows of one generation.
const ROWS_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::session::queue::Stored;

    fn row(place: u64) -> QueueRow {
        let (message, qos) = (place, Qos::AtLeastOnce);
        QueueRow {
            session: 1,
            at: Stored { place, message },
            qos,
            retain: false,
            subscription_identifiers: Vec::new(),
            share: None,
            packet_id: None,
            released: false,
        }
    }

    #[test]
    fn a_row_is_held_back_for_one_turn_to_two() {
        let begin = clock::now();
        let mut sent = Sent::new(begin);
        sent.insert((1, 1), Box::new(row(1)));
        assert!(sent.overdue(begin + HELD_BACK / 2).is_empty());
        assert!(sent.overdue(begin + HELD_BACK).is_empty(), "young");
        sent.insert((1, 2), Box::new(row(2)));
        let due = sent.overdue(begin + 2 * HELD_BACK);
        assert_eq!(due.into_keys().collect::<Vec<_>>(), [(1, 1)]);
        assert_eq!(sent.take().into_keys().collect::<Vec<_>>(), [(1, 2)]);
        assert!(sent.is_empty());
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let begin = clock::now();
        let mut sent = Sent::new(begin);
        for place in 0..ROWS_MAX as u64 {
            sent.insert((1, place), Box::new(row(place)));
        }
        assert!(sent.overdue(begin).is_empty());
        sent.insert((1, u64::MAX), Box::new(row(1)));
        for place in 1..ROWS_MAX as u64 {
            sent.insert((2, place), Box::new(row(place)));
        }
        assert_eq!(sent.overdue(begin).len(), ROWS_MAX);
    }

    #[test]
    fn what_is_held_back_of_a_session_is_taken_from_both_generations() {
        let begin = clock::now();
        let mut sent = Sent::new(begin);
        sent.insert((1, 1), Box::new(row(1)));
        sent.overdue(begin + HELD_BACK);
        sent.insert((1, 2), Box::new(row(2)));
        sent.insert((2, 1), Box::new(row(1)));
        let taken = sent.take_of(1);
        assert_eq!(taken.into_keys().collect::<Vec<_>>(), [(1, 1), (1, 2)]);
        assert_eq!(sent.take().into_keys().collect::<Vec<_>>(), [(2, 1)]);
    }
}
