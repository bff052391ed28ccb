//! Members: users in a conversation, with a role and the stretches of the log that they may see.

use proto::ids::{ConversationKind, Seq, UserId};
use serde::{Deserialize, Serialize};

use super::rights::{Mask, Rights};

/// What a member may do: owner ⊃ admin ⊃ moderator ⊃ member ⊃ reader. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// Reads only.
    Reader = 1,
    /// Writes.
    Member = 2,
    /// Moderates.
    Moderator = 3,
    /// Changes members and settings.
    Admin = 4,
    /// Everything, and hands over.
    Owner = 5,
}

impl Role {
    /// The byte at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// Is a member of this role one of very many there, who come and go without an entry: a reader of a channel, or somebody
    /// to whom a broadcast list goes?
    pub const fn is_one_of_many(self, kind: ConversationKind) -> bool {
        matches!(
            kind,
            ConversationKind::Channel | ConversationKind::Broadcast
        ) && matches!(self, Self::Reader)
    }

    /// The role of a byte at rest.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Reader,
            2 => Self::Member,
            3 => Self::Moderator,
            4 => Self::Admin,
            5 => Self::Owner,
            _ => return None,
        })
    }
}

/// A part of the log, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First entry.
    pub from: Seq,
    /// Last entry.
    pub to: Seq,
}

/// One membership, from joining to leaving, with what may be seen of the time before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First visible entry, at or before the joining.
    pub from: Seq,
    /// The entry of this joining.
    pub joined: Seq,
    /// Last visible entry, that of the leaving; [`Seq::MAX`] while a member.
    pub to: Seq,
}

impl Interval {
    /// What may be seen.
    pub fn visible(&self) -> Stretch {
        Stretch {
            from: self.from,
            to: self.to,
        }
    }

    /// What waits for the member: not the history that the joining granted.
    pub fn awaited(&self) -> Stretch {
        Stretch {
            from: self.joined,
            to: self.to,
        }
    }
}

/// A member, present or former.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// The role; of a former member the last one.
    pub role: Role,
    /// What was decided about his rights beside the role.
    pub mask: Mask,
    /// The entry of the first joining; zero for those with whom a direct conversation was made.
    pub joined: Seq,
    /// The memberships and what may be seen, ascending and disjoint; the last one is open while a member.
    pub intervals: Vec<Interval>,
}

impl Member {
    /// A member now, not a former one.
    pub fn is_present(&self) -> bool {
        self.intervals
            .last()
            .is_some_and(|last| last.to == Seq::MAX)
    }

    /// What he may do here while a member.
    pub fn rights(&self, kind: ConversationKind) -> Rights {
        self.mask.rights(kind, self.role)
    }

    /// What waits for this member: what was or is said between a joining and the next leaving.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> {
        self.intervals.iter().map(Interval::awaited)
    }

    /// Did, or does, the entry at `seq` wait for this member?
    pub fn awaits(&self, seq: Seq) -> bool {
        self.stretches()
            .any(|stretch| stretch.from <= seq && seq <= stretch.to)
    }

    /// The first entry that waits for this member.
    pub fn first_place(&self) -> Seq {
        let first = self.stretches().next();
        first.map_or_else(|| self.joined.max(Seq::new(1)), |first| first.from)
    }

    /// With a mark at `mark`: nothing up to here waits for this member any more.
    pub fn reached(&self, mark: Seq) -> Seq {
        let next = self.stretches().find(|stretch| mark < stretch.to);
        next.map_or(Seq::MAX, |next| next.from.previous().max(mark))
    }

    /// May this member see the entry at `seq`?
    pub fn sees(&self, seq: Seq) -> bool {
        self.intervals
            .iter()
            .any(|interval| interval.from <= seq && seq <= interval.to)
    }
}

/// How far a user has got in a conversation. All marks are monotone and merge by maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Some device of the user has everything up to here.
    pub delivered: Seq,
    /// The user has read up to here, for all to see.
    pub read: Seq,
    /// The user has read up to here, for the own devices only.
    pub private_read: Seq,
    /// The user wants it shown as unread. Moves no watermark.
    pub unread_flag: bool,
    /// When `delivered` or `read` moved last, in ms since 1970.
    pub moved_ms: u64,
    /// The last entry that is hidden from this user; zero: none is.
    pub hidden: Seq,
    /// In a direct conversation: this user has blocked the other one, to whom these marks do not move meanwhile.
    pub blocks: bool,
}

impl Marks {
    /// Delivered as receipts tell it: what is read has been delivered.
    pub fn delivered(&self) -> Seq {
        self.delivered.max(self.read)
    }

    /// These and later marks in one: each watermark by maximum, the flag of the later, the time of the last move.
    #[must_use]
    pub fn merged(self, later: Self) -> Self {
        let merged = Self {
            delivered: self.delivered.max(later.delivered),
            read: self.read.max(later.read),
            private_read: self.private_read.max(later.private_read),
            unread_flag: later.unread_flag,
            moved_ms: self.moved_ms,
            hidden: self.hidden.max(later.hidden),
            blocks: self.blocks, // no move changes it
        };
        let moved = merged.delivered() > self.delivered() || merged.read > self.read;
        Self {
            moved_ms: if moved {
                self.moved_ms.max(later.moved_ms)
            } else {
                self.moved_ms
            },
            ..merged
        }
    }

    /// Read as the own unread count sees it.
    pub fn own_read(&self) -> Seq {
        self.read.max(self.private_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(intervals: [(u64, u64, u64); 2]) -> Member {
        let interval = |(from, joined, to)| Interval {
            from: Seq::new(from),
            joined: Seq::new(joined),
            to: Seq::new(to),
        };
        Member {
            user: UserId::new(0, [1; 10]),
            role: Role::Member,
            mask: Mask::default(),
            joined: Seq::new(5),
            intervals: intervals.map(interval).to_vec(),
        }
    }

    #[test]
    fn the_history_that_a_return_grants_is_seen_and_does_not_wait() {
        let member = member([(1, 5, 8), (9, 12, u64::MAX)]);
        assert!((1..=14).all(|seq| member.sees(Seq::new(seq))));
        let waits: Vec<u64> = (1..=14)
            .filter(|seq| member.awaits(Seq::new(*seq)))
            .collect();
        assert_eq!(waits, [5, 6, 7, 8, 12, 13, 14]);
        assert_eq!(member.first_place(), Seq::new(5));
        let reached = |mark| member.reached(Seq::new(mark)).get();
        assert_eq!([0, 4, 6, 8, 10, 13].map(reached), [4, 4, 6, 11, 11, 13]);
    }

    #[test]
    fn what_was_said_while_a_member_was_out_does_not_wait_for_that_member() {
        let member = member([(2, 5, 8), (12, 12, u64::MAX)]);
        assert!(
            member.sees(Seq::new(2)) && !member.awaits(Seq::new(2)),
            "history"
        );
        let waits: Vec<u64> = (1..=14)
            .filter(|seq| member.awaits(Seq::new(*seq)))
            .collect();
        assert_eq!(waits, [5, 6, 7, 8, 12, 13, 14]);
        assert_eq!(member.first_place(), Seq::new(5));
        let reached = |mark| member.reached(Seq::new(mark)).get();
        assert_eq!([0, 4, 6, 8, 10, 13].map(reached), [4, 4, 6, 11, 11, 13]);
    }
}
