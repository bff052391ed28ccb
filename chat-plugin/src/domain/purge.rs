//! Messages that are made gone many at a time: retention, trimming, purges, erasure.

use proto::ids::{Seq, UserId};

/// Which entries of a conversation are to be gone. Their places stay; of what members did to the conversation itself
/// (joined, settings …) nothing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// The messages of these places.
    Range {
        /// First place.
        from: Seq,
        /// Last place.
        to: Seq,
    },
    /// The messages of one user.
    Written {
        /// Whose.
        by: UserId,
        /// First place.
        from: Seq,
        /// Last place.
        to: Seq,
        /// Stored at or after this time, in ms since 1970.
        since_ms: u64,
        /// Stored before this time.
        until_ms: u64,
    },
    /// All that one user wrote: messages, edits, reactions; and by what a repeated message would be recognised.
    Traces {
        /// Whose.
        of: UserId,
        /// First place.
        from: Seq,
    },
    /// The messages that are over a limit, from the oldest that is there.
    Old(Retention),
}

/// How long messages stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What was stored before this time goes, in ms since 1970; 0: nothing.
    pub before_ms: u64,
    /// So many of the newest messages stay.
    pub newest: u64,
}

impl Retention {
    /// After so many days, and beyond so many messages; 0: no limit. `None`: everything stays.
    pub fn of(now_ms: u64, days: u32, messages: u32) -> Option<Self> {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        if days == 0 && messages == 0 {
            return None;
        }
        let before_ms = match days {
            0 => 0,
            days => now_ms.saturating_sub(u64::from(days) * DAY_MS),
        };
        let newest = match messages {
            0 => u64::MAX,
            messages => u64::from(messages),
        };
        Some(Self { before_ms, newest })
    }

    /// Does an entry of this time go, that is the `mseq`th message of `all`?
    pub fn is_over(self, ts_ms: u64, mseq: u64, all: u64) -> bool {
        ts_ms < self.before_ms || mseq <= all.saturating_sub(self.newest)
    }
}

/// What came of one step of a [`Purge`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Messages that are gone now.
    pub messages: u64,
    /// Reactions that are gone now.
    pub reactions: u64,
    /// Where the next step begins; `None`: that was all.
    pub next: Option<Seq>,
}

impl Purge {
    /// The rest of it, from this place on.
    #[must_use]
    pub fn from(self, next: Seq) -> Self {
        match self {
            Self::Range { to, .. } => Self::Range { from: next, to },
            Self::Written {
                by,
                to,
                since_ms,
                until_ms,
                ..
            } => Self::Written {
                by,
                from: next,
                to,
                since_ms,
                until_ms,
            },
            Self::Traces { of, .. } => Self::Traces { of, from: next },
            Self::Old(retention) => Self::Old(retention),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_limit_counts() {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        assert_eq!(Retention::of(7, 0, 0), None);
        let by_age = Retention::of(10 * DAY_MS, 2, 0).unwrap();
        assert!(by_age.is_over(8 * DAY_MS - 1, 9, 9));
        assert!(!by_age.is_over(8 * DAY_MS, 1, 9));
        let by_count = Retention::of(10 * DAY_MS, 0, 3).unwrap();
        assert!(by_count.is_over(u64::MAX, 6, 9));
        assert!(!by_count.is_over(0, 7, 9));
        let both = Retention::of(10 * DAY_MS, 2, 3).unwrap();
        assert!(both.is_over(0, 9, 9) && both.is_over(u64::MAX, 6, 9));
        assert!(!both.is_over(9 * DAY_MS, 7, 9));
    }
}
