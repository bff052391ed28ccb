//! When a gap is filled by asking. No I/O, no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::ids::ConversationId;

/// So many times as long a gap waits at most while others shrink: they may be those of a busy day.
const PATIENCE_MAX: u32 = 30;

/// Conversations with a gap.
#[derive(Debug)]
pub(super) struct Gaps {
    /// Since when, or since some of it came.
    since: BTreeMap<ConversationId, Instant>,
    /// When some of any came last: the server is still telling what was missed.
    shrank: Option<Instant>,
    patience: Duration,
}

impl Gaps {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            since: BTreeMap::new(),
            shrank: None,
            patience,
        }
    }

    /// There is a gap.
    pub(super) fn found(&mut self, cid: ConversationId, now: Instant) {
        self.since.entry(cid).or_insert(now);
    }

    /// The server pushed some of what is missing.
    pub(super) fn shrank(&mut self, cid: ConversationId, now: Instant) {
        self.shrank = Some(now);
        if let Some(since) = self.since.get_mut(&cid) {
            *since = now;
        }
    }

    /// There is none, or it is looked after.
    pub(super) fn closed(&mut self, cid: ConversationId) {
        self.since.remove(&cid);
    }

    /// When the next one is to be filled.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.since.values().map(|since| self.due(*since)).min()
    }

    /// Some of those that are to be filled now.
    pub(super) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<ConversationId> {
        let due = self
            .since
            .iter()
            .filter(|(_, since)| self.due(**since) <= now);
        let due: Vec<_> = due.map(|(cid, _)| *cid).take(limit).collect();
        self.since.retain(|cid, _| !due.contains(cid));
        due
    }

    fn due(&self, since: Instant) -> Instant {
        let others = self.shrank.map_or(since, |shrank| shrank.max(since));
        let longest = since + self.patience * PATIENCE_MAX;
        (others + self.patience).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::ConversationKind;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn cid(number: u8) -> ConversationId {
        ConversationId::from_parts(ConversationKind::Group, [number; 16])
    }

    #[test]
    fn a_gap_is_filled_when_nothing_has_come_for_some_time() {
        let start = crate::clock::now();
        let mut gaps = Gaps::new(2 * S);
        gaps.found(cid(1), start);
        gaps.found(cid(1), start + S);
        assert_eq!(gaps.take_due(start + S, 9), []);
        assert_eq!(gaps.next_timeout(), Some(start + 2 * S));
        assert_eq!(gaps.take_due(start + 2 * S, 9), [cid(1)]);
        assert_eq!(gaps.next_timeout(), None);
    }

    #[test]
    fn while_the_server_pushes_what_is_missing_no_gap_is_filled() {
        let start = crate::clock::now();
        let mut gaps = Gaps::new(2 * S);
        gaps.found(cid(1), start);
        gaps.found(cid(2), start);
        for second in 1..20 {
            gaps.shrank(cid(1), start + second * S);
            assert_eq!(gaps.take_due(start + second * S, 9), []);
        }
        assert_eq!(gaps.next_timeout(), Some(start + 21 * S));
        assert_eq!(gaps.take_due(start + 21 * S, 1), [cid(1)]);
        assert_eq!(gaps.take_due(start + 21 * S, 9), [cid(2)]);
    }

    #[test]
    fn a_gap_does_not_wait_for_others_for_ever() {
        let start = crate::clock::now();
        let mut gaps = Gaps::new(2 * S);
        gaps.found(cid(1), start);
        gaps.found(cid(2), start);
        for second in 1..60 {
            gaps.shrank(cid(1), start + second * S);
            assert_eq!(gaps.take_due(start + second * S, 9), []);
        }
        gaps.shrank(cid(1), start + 60 * S);
        assert_eq!(gaps.take_due(start + 60 * S, 9), [cid(2)]);
    }
}
