//! What happened to an entry after it was stored: edits, reactions, a pin, its end.

use bytes::Bytes;
use proto::ids::{Seq, UserId};

use super::entry::{BodyFormat, Entry, Mentioned};

pub use proto::payload::GoneReason;

/// Edits of one message.
pub const EDITS_MAX: usize = 64;
/// Different emoji on one message.
pub const EMOJI_PER_MESSAGE_MAX: usize = 64;
/// Emoji of one user on one message: votes for all answers of a poll, and some more.
pub const EMOJI_PER_USER_MAX: usize = 16;
/// Bytes of one emoji: families with skin tones take some 40.
pub const EMOJI_BYTES_MAX: usize = 64;
/// Pinned messages of one conversation.
pub const PINS_MAX: usize = 100;

/// What happened to a message since. Read together with it, so that whoever comes late needs no second look-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Its edits, ascending; the last one has the body that is shown.
    pub edits: Vec<Seq>,
    /// When it was edited last, in ms since 1970.
    pub edited_ms: u64,
    /// How many users reacted with what, in the order of first use.
    pub reactions: Vec<(Box<str>, u32)>,
    /// It is pinned.
    pub pinned: bool,
}

impl Overlay {
    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.reactions.is_empty() && !self.pinned
    }

    /// One more, or one fewer, user reacts with this. `false`: there are too many different ones.
    #[must_use]
    pub fn count(&mut self, emoji: &str, added: bool) -> bool {
        let has_room = self.reactions.len() < EMOJI_PER_MESSAGE_MAX;
        let mut all = self.reactions.iter_mut();
        match (all.find(|(known, _)| **known == *emoji), added) {
            (Some((_, count)), true) => *count = count.saturating_add(1),
            (Some((_, count)), false) => *count = count.saturating_sub(1),
            (None, true) if !has_room => return false,
            (None, true) => self.reactions.push((emoji.into(), 1)),
            (None, false) => {}
        }
        self.reactions.retain(|(_, count)| *count > 0);
        true
    }
}

/// By what an entry is hidden from one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenBy {
    /// He wanted it to be.
    Wish,
    /// He had blocked who wrote it, and never is to see it. He is not told that this is why.
    Block,
}

/// What an action does to the message that it names as its target; committed with the entry that tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The body of this entry takes the place of the message's.
    Edit,
    /// Nothing of the message is left but its place.
    Delete,
    /// The set of reactions of this user changes.
    React(React),
    /// It is pinned, or no longer.
    Pin(bool),
}

/// With what a reaction begins that is a vote: `#2` is one for the second answer of a poll.
pub const VOTE: char = '#';

/// A change of the reactions of one user to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum React {
    /// This one, too.
    Add(Box<str>),
    /// This one, in the place of all others that begin with [`VOTE`].
    Choose(Box<str>),
    /// No longer this one.
    Remove(Box<str>),
    /// None.
    Clear,
}

/// Why an action on a message was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActRefused {
    /// There is no such message, or nothing of it any more.
    NoTarget,
    /// It would change nothing.
    Unchanged,
    /// There are as many edits, reactions or pins as there may be.
    Full,
}

/// A page of reactions to one message: who, and with what.
pub type Reactions = Vec<(UserId, Vec<Box<str>>)>;

/// A pinned message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Which.
    pub seq: Seq,
    /// By whom.
    pub by: UserId,
    /// When, in ms since 1970.
    pub ts_ms: u64,
}

/// A complaint about a message, for those who run the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When, in ms since 1970.
    pub ts_ms: u64,
    /// Who complains.
    pub by: UserId,
    /// The idempotency key of the complaint.
    pub mid: proto::ids::MessageId,
    /// In which conversation.
    pub conversation: proto::ids::ConversationId,
    /// About which message.
    pub seq: Seq,
    /// Why.
    pub text: String,
    /// The moderators of the conversation have settled it; for those who run the server it is there as before.
    pub settled: bool,
}

impl Report {
    /// What names it.
    pub fn key(&self) -> ReportKey {
        ReportKey {
            ts_ms: self.ts_ms,
            by: self.by,
            mid: self.mid.clone(),
        }
    }
}

/// What names a report: `1760000000000.01jz….my-id`. The oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportKey {
    /// When it was made, in ms since 1970.
    pub ts_ms: u64,
    /// By whom.
    pub by: UserId,
    /// Its idempotency key.
    pub mid: proto::ids::MessageId,
}

/// A text that names no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that names no report")]
pub struct BadReportKey;

impl std::fmt::Display for ReportKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.ts_ms, self.by, self.mid)
    }
}

impl std::str::FromStr for ReportKey {
    type Err = BadReportKey;

    fn from_str(text: &str) -> Result<Self, BadReportKey> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(BadReportKey);
        Ok(Self {
            ts_ms: next()?.parse().map_err(|_| BadReportKey)?,
            by: next()?.parse().map_err(|_| BadReportKey)?,
            mid: next()?.parse().map_err(|_| BadReportKey)?,
        })
    }
}

/// Bytes of the text of a report.
pub const REPORT_BYTES_MAX: usize = 2_048;

impl Entry {
    /// Lets go of all but the place: what was said, and what happened to it since.
    pub fn make_gone(&mut self, reason: GoneReason) {
        self.gone = Some(reason);
        self.body = Bytes::new();
        self.format = BodyFormat::Text;
        self.opaque = false;
        self.mentions = Mentioned::default();
        self.source = None;
        self.overlay = None;
    }

    /// Why there is nothing more to see of it at this time, if there is not.
    pub fn gone_at(&self, now_ms: u64) -> Option<GoneReason> {
        let is_over = self.expires_ms.is_some_and(|expires| expires <= now_ms);
        self.gone.or_else(|| is_over.then_some(GoneReason::Expired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactions_are_counted_and_bounded() {
        let mut overlay = Overlay::default();
        assert!(overlay.count("a", true));
        assert!(overlay.count("a", true));
        assert!(overlay.count("a", false));
        assert_eq!(overlay.reactions, [("a".into(), 1)]);
        assert!(overlay.count("a", false));
        assert!(overlay.is_empty());
        for number in 0..EMOJI_PER_MESSAGE_MAX {
            assert!(overlay.count(&number.to_string(), true));
        }
        assert!(!overlay.count("one more", true));
        assert!(overlay.count("0", true), "a known one has room");
    }
}
