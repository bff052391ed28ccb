//! Members: users in a conversation, with a role and the stretches of the log that they may see.

use proto::ids::{Seq, UserId};
use serde::{Deserialize, Serialize};

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

/// A stretch of the log that a member may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First visible entry.
    pub from: Seq,
    /// Last visible entry; [`Seq::MAX`] while a member.
    pub to: Seq,
}

/// A member, present or former.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// The role; of a former member the last one.
    pub role: Role,
    /// The entry of the first joining; zero for those with whom a direct conversation was made.
    pub joined: Seq,
    /// What the member may see, ascending and disjoint; the last one is open while a member.
    pub intervals: Vec<Interval>,
}

impl Member {
    /// A member now, not a former one.
    pub fn is_present(&self) -> bool {
        self.intervals
            .last()
            .is_some_and(|last| last.to == Seq::MAX)
    }

    /// What waits for this member: what may be seen, but for the history from before the first joining.
    pub fn stretches(&self) -> impl Iterator<Item = Interval> {
        let since_joining = |interval: &Interval| Interval {
            from: interval.from.max(self.joined),
            to: interval.to,
        };
        let stretches = self.intervals.iter().map(since_joining);
        stretches.filter(|stretch| stretch.from <= stretch.to)
    }

    /// Did, or does, the entry at `seq` wait for this member?
    pub fn awaits(&self, seq: Seq) -> bool {
        self.joined <= seq && self.sees(seq)
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

    #[test]
    fn what_was_said_while_a_member_was_out_does_not_wait_for_that_member() {
        let interval = |from, to| Interval {
            from: Seq::new(from),
            to: Seq::new(to),
        };
        let member = Member {
            user: UserId::new(0, [1; 10]),
            role: Role::Member,
            joined: Seq::new(5),
            intervals: vec![interval(2, 8), interval(12, u64::MAX)],
        };
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
