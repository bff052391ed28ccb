//! Messages that are made gone many at a time: retention, trimming, purges, erasure.

use proto::ids::{ConversationId, Seq, UserId};

use super::conversation::Settings;
use super::member::Stretch;

/// Places that are announced to be purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which, ascending and disjoint.
    pub parts: Vec<Stretch>,
    /// Only messages of this user.
    pub by: Option<UserId>,
}

impl Range {
    /// The places from one to another one.
    pub fn between(from: Seq, to: Seq, by: Option<UserId>) -> Self {
        let parts = vec![Stretch { from, to }];
        Self { parts, by }
    }

    /// The first place and the last one.
    pub fn ends(&self) -> Option<(Seq, Seq)> {
        let (first, last) = (self.parts.first()?, self.parts.last()?);
        Some((first.from, last.to))
    }

    /// What lies between its parts.
    pub fn gaps(&self) -> impl Iterator<Item = Stretch> {
        let after = self.parts.iter().skip(1);
        let gap = |(before, after): (&Stretch, &Stretch)| Stretch {
            from: before.to.next(),
            to: after.from.previous(),
        };
        self.parts.iter().zip(after).map(gap)
    }

    /// What is to be done next: its first part. `None`: nothing is left.
    pub fn purge(&self) -> Option<Purge> {
        let Stretch { from, to } = *self.parts.first()?;
        Some(match self.by {
            Some(by) => Purge::Written {
                by,
                from,
                to,
                since_ms: 0,
                until_ms: u64::MAX,
            },
            None => Purge::Range { from, to },
        })
    }

    /// Its first part is done up to before this place, or all of it. Where the next step begins, if there is one.
    pub fn advance(&mut self, next: Option<Seq>) -> Option<Seq> {
        match (next, self.parts.first_mut()) {
            (Some(next), Some(first)) if next <= first.to => first.from = next,
            (_, Some(_)) => drop(self.parts.remove(0)),
            (_, None) => {}
        }
        self.parts.first().map(|first| first.from)
    }
}

/// Which entries of a conversation are to be gone: messages with their edits, and what tells of reactions. Their places stay;
/// of what members did to the conversation itself (joined, settings …) nothing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// The messages of these places.
    Range {
        /// First place.
        from: Seq,
        /// Last place.
        to: Seq,
    },
    /// The messages of one user, and his reactions.
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
    /// All that one user wrote: messages, edits, reactions; and by what anything that he sent would be recognised.
    Traces {
        /// Whose.
        of: UserId,
        /// First place.
        from: Seq,
    },
    /// The messages that are over a limit, from the oldest that is there.
    Old(Retention),
    /// What the entry at this place has announced, from where it was left off.
    Announced {
        /// The place of the entry.
        at: Seq,
    },
}

/// How long messages stay in all conversations; the settings of one may be stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Now, in ms since 1970; `None`: the clock cannot be trusted, and no message is too old.
    pub now_ms: Option<u64>,
    /// For so many days; 0: for ever.
    pub days: u32,
    /// So many of the newest; 0: all.
    pub messages: u32,
}

impl Limits {
    /// Is there no limit but those of single conversations?
    pub fn is_none(self) -> bool {
        self.days == 0 && self.messages == 0
    }

    /// What is over the limits in a conversation with these settings. `None`: nothing ever.
    pub fn with(self, settings: &Settings) -> Option<Retention> {
        let days = stricter(self.days, settings.retention_days);
        let messages = stricter(self.messages, settings.retention_messages);
        match self.now_ms {
            Some(now_ms) => Retention::of(now_ms, days, messages),
            None => Retention::of(0, 0, messages),
        }
    }
}

/// Of two limits, 0 being none.
fn stricter(a: u32, b: u32) -> u32 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

/// Conversations in which something is over the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overdue {
    /// Which, and what is over theirs.
    pub found: Vec<(ConversationId, Retention)>,
    /// The last one that was looked at; `None`: there are no more.
    pub next: Option<ConversationId>,
}

/// How long messages stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What was stored before this time goes, in ms since 1970; 0: nothing.
    pub before_ms: u64,
    /// So many of the newest messages stay, those that are gone by themselves included.
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
        let too_many = all.checked_sub(self.newest).filter(|more| *more > 0);
        ts_ms < self.before_ms || too_many.is_some_and(|more| mseq <= more)
    }
}

/// What came of one step of a [`Purge`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Messages that are gone now; of what was announced all that went so far.
    pub messages: u64,
    /// Reactions that are gone now.
    pub reactions: u64,
    /// Entries that were looked at.
    pub looked_at: u64,
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
            Self::Old(_) | Self::Announced { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_never_the_stricter_one() {
        assert_eq!(stricter(0, 0), 0);
        assert_eq!(stricter(0, 7), 7);
        assert_eq!(stricter(7, 0), 7);
        assert_eq!(stricter(7, 3), 3);
    }

    #[test]
    fn without_a_clock_nothing_is_too_old() {
        let limits = |now_ms| Limits {
            now_ms,
            days: 1,
            messages: 0,
        };
        let settings = Settings::default();
        assert!(limits(Some(u64::MAX)).with(&settings).is_some());
        assert_eq!(limits(None).with(&settings), None);
        let settings = Settings {
            retention_messages: 5,
            ..settings
        };
        let retention = limits(None).with(&settings).unwrap();
        assert!(!retention.is_over(0, 6, 9) && retention.is_over(0, 4, 9));
    }

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
        assert!(!by_count.is_over(0, 0, 3), "there are not too many");
        let both = Retention::of(10 * DAY_MS, 2, 3).unwrap();
        assert!(both.is_over(0, 9, 9) && both.is_over(u64::MAX, 6, 9));
        assert!(!both.is_over(9 * DAY_MS, 7, 9));
    }
}
