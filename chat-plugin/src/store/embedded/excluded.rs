//! Counts of messages that do not count as unread, without reading them: a tree of counters over the places of a log.
//!
//! A counter of level 0 holds 256 places, one of each level above 256 of the level below; a leaf is a place. All that is
//! at or before a place is a stretch of leaves and one stretch of each level: at most 255 rows of each. Rows that come to
//! zero are not there.

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, Seq, UserId};

use super::{keys, reads, values};
use crate::store::{StoreError, tables};

/// Levels above the leaves; the last one takes all that is left.
const LEVELS: u8 = 4;
/// The level of the leaves.
const LEAF: u8 = 0xFF;
/// Whose counters those are that hold for everybody.
pub(super) const EVERYBODY: UserId = UserId::from_bytes([0; 16]);

/// The counters that a place belongs to: level and block.
pub(super) fn path(seq: Seq) -> impl Iterator<Item = (u8, u64)> {
    let seq = seq.get();
    let above = (0..LEVELS).map(move |level| (level, seq >> (8 * (level + 1))));
    std::iter::once((LEAF, seq)).chain(above)
}

/// The counters that add up to everything at or before a place: level, first and last block.
fn cover(seq: Seq) -> impl Iterator<Item = (u8, u64, u64)> {
    let end = seq.get().saturating_add(1);
    let leaves = (LEAF, end & !0xFF, end);
    let above = (0..LEVELS).map(move |level| {
        let end = end >> (8 * (level + 1));
        let begin = if level + 1 == LEVELS { 0 } else { end & !0xFF };
        (level, begin, end)
    });
    let stretches = std::iter::once(leaves).chain(above);
    let stretches = stretches.filter(|(_, begin, end)| begin < end);
    stretches.map(|(level, begin, end)| (level, begin, end - 1))
}

/// How many there are at or before `seq` for `user`.
pub(super) fn up_to(
    engine: &impl KvEngine,
    conversation: ConversationId,
    user: UserId,
    seq: Seq,
) -> Result<u64, StoreError> {
    if !has_any(engine, conversation)? {
        return Ok(0);
    }
    let mut sum = 0_i64;
    for who in [EVERYBODY, user] {
        for (level, first, last) in cover(seq) {
            let first = keys::excluded(conversation, who, level, first);
            let last = keys::excluded(conversation, who, level, last);
            let range = KeyRange::closed(&first, &last);
            reads::visit(engine, tables::EXCLUDED, range, usize::MAX, |_, row| {
                sum = sum.saturating_add(values::read_count(row)?);
                Ok(())
            })?;
        }
    }
    Ok(u64::try_from(sum).unwrap_or_default())
}

/// Most conversations have none: one look tells.
fn has_any(engine: &impl KvEngine, conversation: ConversationId) -> Result<bool, StoreError> {
    let last = UserId::from_bytes([0xFF; 16]);
    let first = keys::excluded(conversation, EVERYBODY, 0, 0);
    let last = keys::excluded(conversation, last, LEAF, u64::MAX);
    let range = KeyRange::closed(&first, &last);
    let mut found = false;
    reads::visit(engine, tables::EXCLUDED, range, 1, |_, _| {
        found = true;
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn sum(counters: &HashMap<(u8, u64), i64>, seq: u64) -> i64 {
        let stretches = cover(Seq::new(seq));
        let blocks = stretches.flat_map(|(level, first, last)| {
            let is_there =
                move |key: &&(u8, u64)| key.0 == level && (first..=last).contains(&key.1);
            counters.keys().filter(is_there)
        });
        blocks.map(|key| counters[key]).sum()
    }

    proptest! {
        #[test]
        fn a_sum_is_what_was_added_at_or_before(
            places in proptest::collection::vec((1..5_000_000_u64, -1..=1_i64), 0..40),
            far in (1_u64 << 33)..(1 << 41),
            asked in 0..5_000_000_u64,
        ) {
            let mut counters = HashMap::new();
            for (place, by) in places.iter().copied().chain([(far, 1)]) {
                for key in path(Seq::new(place)) {
                    *counters.entry(key).or_default() += by;
                }
            }
            let all: i64 = places.iter().map(|(_, by)| by).sum();
            for end in places.iter().map(|(place, _)| *place).chain([asked]) {
                let naive: i64 = places
                    .iter()
                    .filter(|(place, _)| *place <= end)
                    .map(|(_, by)| by)
                    .sum();
                prop_assert_eq!(sum(&counters, end), naive);
            }
            prop_assert_eq!(sum(&counters, far - 1), all);
            prop_assert_eq!(sum(&counters, far), all + 1);
            prop_assert!(cover(Seq::new(far)).all(|(_, first, last)| last - first < 512));
        }
    }
}
