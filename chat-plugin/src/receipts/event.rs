//! One receipt as its receiver gets it, and the counting behind it.

use std::collections::{BTreeMap, BTreeSet};

use broker::codec::packet::Publish;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};
use proto::payload;
use proto::topics::rcpt_topic;

use super::ReceiptLimits;
use crate::conversations::Live;
use crate::domain::member::{Marks, Member};
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
    /// Moves of others, and counts for the newest of these messages of the receiver.
    pub(super) fn new(
        live: &Live,
        members: &[(Member, Marks)],
        (receiver, since_ms): (UserId, u64),
        moves: BTreeMap<UserId, (Seq, Seq)>,
        own: &BTreeSet<Seq>,
        limits: &ReceiptLimits,
    ) -> Self {
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
        self.moves.extend(later.moves);
        self.counts.extend(later.counts);
        while self.moves.len() > self.moves_max {
            self.moves.pop_last();
        }
        while self.counts.len() > self.counts_max {
            self.counts.pop_first();
        }
    }
}

/// The marks of all present members but one, sorted, so that a message is counted in O(log members).
pub(crate) struct Others {
    joined: Vec<Seq>,
    delivered: Vec<Seq>,
    read: Vec<Seq>,
}

impl Others {
    pub(crate) fn new(members: &[(Member, Marks)], receiver: UserId) -> Self {
        let mut others = Self {
            joined: Vec::new(),
            delivered: Vec::new(),
            read: Vec::new(),
        };
        for (member, marks) in members {
            if member.is_present() && member.user != receiver {
                // What was written before somebody joined is not waiting for that member.
                let before = member.joined.previous();
                others.joined.push(member.joined);
                others.delivered.push(marks.delivered().max(before));
                others.read.push(marks.read.max(before));
            }
        }
        others.joined.sort_unstable();
        others.delivered.sort_unstable();
        others.read.sort_unstable();
        others
    }

    fn delivered_all(&self) -> Seq {
        self.delivered.first().copied().unwrap_or_default()
    }

    fn read_all(&self) -> Seq {
        self.read.first().copied().unwrap_or_default()
    }

    /// How many of those who were there have the message at `seq`, and how many have read it.
    pub(crate) fn count(&self, seq: Seq) -> (u32, u32) {
        let later = self.joined.len() - self.joined.partition_point(|joined| *joined <= seq);
        let at_least =
            |marks: &[Seq]| marks.len() - marks.partition_point(|mark| *mark < seq) - later;
        (
            number(at_least(&self.delivered)),
            number(at_least(&self.read)),
        )
    }

    /// How many were there when the message at `seq` was written.
    pub(crate) fn of(&self, seq: Seq) -> u32 {
        number(self.joined.partition_point(|joined| *joined <= seq))
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
