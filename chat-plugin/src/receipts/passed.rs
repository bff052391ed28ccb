//! Whose messages were passed by marks that moved.
//!
//! A mark passes a stretch of the log. What is in memory is looked at entry by entry; of what is not, the store tells the
//! last message of each member in the stretch. Looking up is bounded: what exceeds the bound is told a little later.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::ids::{Seq, UserId};

use super::Moves;
use crate::conversations::Live;
use crate::domain::member::{Marks, Member};
use crate::store::{ChatStore, StoreError};

/// Places that one mark passed: after the first, up to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) after: Seq,
    pub(super) to: Seq,
}

/// What one sender is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// (delivered, read) of those whose marks passed a message of this sender.
    pub(super) moves: BTreeMap<UserId, (Seq, Seq)>,
    /// The messages, as far as they are known singly.
    pub(super) own: BTreeSet<Seq>,
}

/// Senders to be told, and moves that were too expensive to look up together with the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) senders: HashMap<UserId, Told>,
    pub(super) later: Moves,
}

/// After so many look-ups in the store the other members of a conversation wait for the next round.
const LOOKUPS_MAX: usize = 16_384;

/// The stretches that (delivered, read) passed: none, one, or two.
pub(super) fn stretches(before: (Seq, Seq), now: (Seq, Seq)) -> impl Iterator<Item = Stretch> {
    let both = [(before.0, now.0), (before.1, now.1)];
    let moved = both.into_iter().filter(|(after, to)| after < to);
    moved.map(|(after, to)| Stretch { after, to })
}

/// Who wrote what the moves passed.
pub(super) async fn look_up(
    store: &dyn ChatStore,
    live: &Live,
    members: &[(Member, Marks)],
    moves: Moves,
) -> Result<Passed, StoreError> {
    let present = members.iter().filter(|(member, _)| member.is_present());
    let marks: HashMap<UserId, &Marks> = present
        .map(|(member, marks)| (member.user, marks))
        .collect();
    let mut passed = Passed::default();
    // Most marks move to the same few places, so that most look-ups have been made before.
    let mut last_own: HashMap<(UserId, Seq), Option<Seq>> = HashMap::new();
    for (mover, before) in moves {
        let Some(own) = marks.get(&mover) else {
            continue; // left meanwhile
        };
        let now = (own.delivered(), own.read);
        for stretch in stretches(before, now) {
            if let Some(messages) = live.recent_messages(stretch.after, stretch.to) {
                for (seq, sender) in messages {
                    passed.note(sender, (mover, now), seq);
                }
            } else if last_own.len() < LOOKUPS_MAX {
                for sender in marks.keys() {
                    let last = match last_own.entry((*sender, stretch.to)) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(unknown) => {
                            let last = store.last_own(live.id(), *sender, stretch.to).await?;
                            *unknown.insert(last)
                        }
                    };
                    if let Some(seq) = last.filter(|seq| *seq > stretch.after) {
                        passed.note(*sender, (mover, now), seq);
                    }
                }
            } else {
                passed.later.insert(mover, before);
            }
        }
    }
    // A former member is told nothing more.
    passed
        .senders
        .retain(|sender, _| marks.contains_key(sender));
    Ok(passed)
}

impl Passed {
    fn note(&mut self, sender: UserId, (mover, now): (UserId, (Seq, Seq)), seq: Seq) {
        if sender != mover {
            let told = self.senders.entry(sender).or_default();
            told.moves.insert(mover, now);
            told.own.insert(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(after: u64, to: u64) -> Stretch {
        Stretch {
            after: Seq::new(after),
            to: Seq::new(to),
        }
    }

    fn passed(before: (u64, u64), now: (u64, u64)) -> Vec<Stretch> {
        let pair = |(delivered, read)| (Seq::new(delivered), Seq::new(read));
        stretches(pair(before), pair(now)).collect()
    }

    #[test]
    fn a_mark_that_lags_far_behind_the_other_does_not_lengthen_its_stretch() {
        assert_eq!(passed((10_000, 3), (10_001, 3)), [stretch(10_000, 10_001)]);
    }

    #[test]
    fn each_mark_passes_its_own_stretch() {
        assert_eq!(passed((5, 2), (7, 7)), [stretch(5, 7), stretch(2, 7)]);
        assert_eq!(passed((5, 2), (5, 2)), []);
    }
}
