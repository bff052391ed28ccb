//! One receipt as its receiver gets it, and the counting behind it.

use std::collections::{BTreeMap, BTreeSet};

use broker::codec::packet::Publish;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};
use proto::payload;
use proto::topics::rcpt_topic;

use super::ReceiptLimits;
use crate::conversations::Live;
use crate::domain::member::{Marks, Member, Stretch};
use crate::plugin::json_publish;

/// One event for one receiver; also what waits for a slow one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) conversation: ConversationId,
    /// When the oldest move that it tells of may have been, in ms since 1970.
    pub(crate) since_ms: u64,
    pub(crate) delivered_all: Seq,
    pub(crate) read_all: Seq,
    pub(crate) moves: BTreeMap<UserId, (Seq, Seq)>,
    pub(crate) counts: BTreeMap<Seq, (u32, u32)>,
    moves_max: usize,
    counts_max: usize,
}

impl Event {
    /// Moves of others, as their marks are now, and counts for the newest of these messages of the receiver.
    pub(super) fn new(
        live: &Live,
        members: &[(Member, Marks)],
        (receiver, since_ms): (UserId, u64),
        mut moves: BTreeMap<UserId, (Seq, Seq)>,
        own: &BTreeSet<Seq>,
        limits: &ReceiptLimits,
    ) -> Self {
        for (member, marks) in members {
            if let Some(told) = moves.get_mut(&member.user) {
                *told = (marks.delivered(), marks.read);
            }
        }
        let others = Others::new(members, receiver);
        let counts_max = if live.id().kind() == ConversationKind::Direct {
            0
        } else {
            limits.counts_max
        };
        let counted = own.iter().rev().take(counts_max);
        Self {
            conversation: live.id(),
            since_ms,
            delivered_all: others.delivered_all(),
            read_all: others.read_all(),
            moves,
            counts: counted.map(|seq| (*seq, others.count(*seq))).collect(),
            moves_max: limits.moves_max,
            counts_max: limits.counts_max,
        }
    }

    /// The event as it goes out.
    pub(crate) fn publish(self) -> Publish {
        let moves = self
            .moves
            .into_iter()
            .map(|(u, (d, r))| payload::WatermarkMove { u, d, r });
        let counts = self
            .counts
            .into_iter()
            .map(|(seq, (d, r))| payload::SenderCount { seq, d, r });
        let receipts = payload::Receipts {
            cid: self.conversation,
            delivered_all: self.delivered_all,
            read_all: self.read_all,
            moves: moves.collect(),
            counts: counts.collect(),
        };
        json_publish(&rcpt_topic(self.conversation), &receipts)
    }

    /// The event as it goes out to a client with a Maximum Packet Size: what does not fit is left out, first the counts of
    /// older messages, then the moves of single members. The watermarks of all always go.
    pub(crate) fn publish_within(mut self, packet_max: Option<u32>) -> Publish {
        /// Topic, fixed header and properties.
        const OVERHEAD: usize = 128;
        let Some(max) = packet_max.and_then(|max| usize::try_from(max).ok()) else {
            return self.publish();
        };
        loop {
            let publish = self.clone().publish();
            if publish.payload.len() + OVERHEAD <= max || self.details() == 0 {
                return publish;
            }
            if self.counts.is_empty() {
                let left = self.moves.len() / 2;
                while self.moves.len() > left {
                    self.moves.pop_last();
                }
            } else {
                let left = self.counts.len() / 2;
                while self.counts.len() > left {
                    self.counts.pop_first();
                }
            }
        }
    }

    /// Moves and counts.
    pub(crate) fn details(&self) -> usize {
        self.moves.len() + self.counts.len()
    }

    /// Leaves only the watermarks of all.
    pub(crate) fn shed_details(&mut self) {
        self.moves.clear();
        self.counts.clear();
    }

    /// A later event of the same conversation joins this one.
    pub(crate) fn join(&mut self, later: Self) {
        self.since_ms = self.since_ms.min(later.since_ms);
        self.delivered_all = self.delivered_all.max(later.delivered_all);
        self.read_all = self.read_all.max(later.read_all);
        for (user, (delivered, read)) in later.moves {
            let told = self.moves.entry(user).or_default();
            *told = (told.0.max(delivered), told.1.max(read));
        }
        self.counts.extend(later.counts);
        while self.moves.len() > self.moves_max {
            self.moves.pop_last();
        }
        while self.counts.len() > self.counts_max {
            self.counts.pop_first();
        }
    }
}

/// What waited for all present members but one, and how far they have got, so that a message is counted in O(log members).
#[derive(Default)]
pub(crate) struct Others {
    there: Stretches,
    delivered: Stretches,
    read: Stretches,
    delivered_all: Option<Seq>,
    read_all: Option<Seq>,
}

impl Others {
    pub(crate) fn new(members: &[(Member, Marks)], receiver: UserId) -> Self {
        let mut others = Self::default();
        for (member, marks) in members {
            if member.is_present() && member.user != receiver {
                others.add(member, marks);
            }
        }
        for stretches in [&mut others.there, &mut others.delivered, &mut others.read] {
            stretches.sort();
        }
        others
    }

    fn add(&mut self, member: &Member, marks: &Marks) {
        let (delivered, read) = (marks.delivered(), marks.read);
        for Stretch { from, to } in member.stretches() {
            self.there.push(from, to);
            self.delivered.push(from, to.min(delivered));
            self.read.push(from, to.min(read));
        }
        let least = |all: Option<Seq>, mark| {
            let reached = member.reached(mark);
            Some(all.map_or(reached, |all| all.min(reached)))
        };
        self.delivered_all = least(self.delivered_all, delivered);
        self.read_all = least(self.read_all, read);
    }

    fn delivered_all(&self) -> Seq {
        self.delivered_all.unwrap_or_default()
    }

    fn read_all(&self) -> Seq {
        self.read_all.unwrap_or_default()
    }

    /// How many of those who were there have the message at `seq`, and how many have read it.
    pub(crate) fn count(&self, seq: Seq) -> (u32, u32) {
        (self.delivered.count(seq), self.read.count(seq))
    }

    /// How many were there when the message at `seq` was written.
    pub(crate) fn of(&self, seq: Seq) -> u32 {
        self.there.count(seq)
    }
}

/// Stretches of the log, of which those of one member do not overlap.
#[derive(Default)]
struct Stretches {
    from: Vec<Seq>,
    to: Vec<Seq>,
}

impl Stretches {
    fn push(&mut self, from: Seq, to: Seq) {
        if from <= to {
            self.from.push(from);
            self.to.push(to);
        }
    }

    fn sort(&mut self) {
        self.from.sort_unstable();
        self.to.sort_unstable();
    }

    /// How many cover the entry at `seq`: those that have begun less those that have ended.
    fn count(&self, seq: Seq) -> u32 {
        let begun = self.from.partition_point(|from| *from <= seq);
        let ended = self.to.partition_point(|to| *to < seq);
        u32::try_from(begun - ended).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::member::{Interval, Role};
    use crate::domain::rights::Mask;

    fn event(moves: u8, counts: u64) -> Event {
        let user = |number| UserId::new(0, [number; 10]);
        Event {
            conversation: ConversationId::direct(user(0), user(1)),
            since_ms: 0,
            delivered_all: Seq::new(9),
            read_all: Seq::new(8),
            moves: (0..moves)
                .map(|number| (user(number), (Seq::new(9), Seq::new(8))))
                .collect(),
            counts: (1..=counts).map(|seq| (Seq::new(seq), (1, 1))).collect(),
            moves_max: 256,
            counts_max: 5_000,
        }
    }

    #[test]
    fn what_was_told_does_not_go_back_when_an_older_event_joins() {
        let (mut newer, mut older) = (event(2, 2), event(2, 2));
        for told in newer.moves.values_mut() {
            *told = (Seq::new(11), Seq::new(8));
        }
        for told in older.moves.values_mut() {
            *told = (Seq::new(10), Seq::new(9));
        }
        newer.join(older);
        for told in newer.moves.values() {
            assert_eq!(*told, (Seq::new(11), Seq::new(9)));
        }
    }

    #[test]
    fn an_event_sheds_what_does_not_fit() {
        let whole = event(200, 5_000);
        for max in [1_024, 8_192, 65_536] {
            let payload = whole.clone().publish_within(Some(max)).payload;
            assert!(payload.len() < max as usize, "{max}");
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(
                (&json["delivered_all"], &json["read_all"]),
                (&9.into(), &8.into())
            );
            if let Some(newest) = json["counts"].as_array().unwrap().last() {
                assert_eq!(newest["seq"], 5_000);
            }
        }
        assert_eq!(
            whole.clone().publish_within(None).payload,
            whole.publish().payload
        );
    }

    #[test]
    fn a_member_who_was_out_is_counted_where_he_was_in() {
        let user = |number| UserId::new(0, [number; 10]);
        let member = |number, intervals: &[(u64, u64)]| {
            let interval = |(joined, to): &(u64, u64)| Interval {
                from: Seq::new(1),
                joined: Seq::new(*joined),
                to: Seq::new(*to),
            };
            Member {
                user: user(number),
                role: Role::Member,
                mask: Mask::default(),
                joined: Seq::new(intervals[0].0),
                intervals: intervals.iter().map(interval).collect(),
            }
        };
        let at = |delivered, read| Marks {
            delivered: Seq::new(delivered),
            read: Seq::new(read),
            ..Marks::default()
        };
        let in_and_out = member(1, &[(2, 4), (8, u64::MAX)]);
        let always = member(2, &[(1, u64::MAX)]);
        let late = member(3, &[(9, u64::MAX)]);
        let sender = member(0, &[(1, u64::MAX)]);
        let members = [
            (in_and_out, at(4, 3)),
            (always, at(9, 9)),
            (late, Marks::default()),
            (sender, Marks::default()),
        ];
        let others = Others::new(&members, user(0));
        let of = |seq| others.of(Seq::new(seq));
        assert_eq!([1, 2, 4, 5, 7, 8, 9].map(of), [1, 2, 2, 1, 1, 2, 3]);
        let count = |seq| others.count(Seq::new(seq));
        assert_eq!(
            [1, 3, 4, 6, 8, 9].map(count),
            [(1, 1), (2, 2), (2, 1), (1, 1), (1, 1), (1, 1)]
        );
        assert_eq!(
            (others.delivered_all(), others.read_all()),
            (Seq::new(7), Seq::new(3)),
            "5 to 7 wait for nobody"
        );
    }
}
