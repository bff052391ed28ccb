//! How far an export or an erasure has got.

use std::fmt;
use std::str::FromStr;

use proto::ids::{ConversationId, Seq, UserId};

/// How far an export or an erasure has got: `m:g.01jz…:17:3:120`, opaque to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub(super) stage: Stage,
    pub(super) conversations: u64,
    pub(super) messages: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What is known of the account: behind so many lines.
    Account(u64),
    /// Contacts, behind this one.
    Contacts(Option<UserId>),
    /// Those who are blocked and no contacts, behind this one.
    Blocked(Option<UserId>),
    /// Reports, behind so many.
    Reports(u64),
    /// What was done as a moderator, before this line of the audit log, if any is said.
    Moderated(Option<u64>),
    /// Messages of this conversation that are held, behind so many.
    Held(ConversationId, u64),
    /// Messages of this conversation, from behind this place (of an erasure: from this place on).
    Messages(ConversationId, Seq),
    /// The conversation behind this one, if any is said.
    Conversation(Option<ConversationId>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Account(0)
    }
}

/// A `next` that no page has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("next must be what the page before said")]
pub struct BadProgress;

impl Progress {
    pub(super) fn at(stage: Stage) -> Self {
        Self {
            stage,
            ..Self::default()
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = |user: Option<UserId>| user.map_or_else(String::new, |user| user.to_string());
        match self.stage {
            Stage::Account(lines) => write!(f, "a::{lines}"),
            Stage::Contacts(after) => write!(f, "c:{}:", user(after)),
            Stage::Blocked(after) => write!(f, "b:{}:", user(after)),
            Stage::Reports(lines) => write!(f, "r::{lines}"),
            Stage::Moderated(Some(before)) => write!(f, "l::{before}"),
            Stage::Moderated(None) => write!(f, "l::"),
            Stage::Held(id, lines) => write!(f, "h:{id}:{lines}"),
            Stage::Messages(id, seq) => write!(f, "m:{id}:{seq}"),
            Stage::Conversation(Some(after)) => write!(f, "n:{after}:"),
            Stage::Conversation(None) => write!(f, "n::"),
        }?;
        write!(f, ":{}:{}", self.conversations, self.messages)
    }
}

impl FromStr for Progress {
    type Err = BadProgress;

    fn from_str(text: &str) -> Result<Self, BadProgress> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let [stage, about, place, conversations, messages] = parts[..] else {
            return Err(BadProgress);
        };
        Ok(Self {
            stage: match (stage, about, place) {
                ("a", "", lines) => Stage::Account(parse(lines)?),
                ("c", after, "") => Stage::Contacts(optional(after)?),
                ("b", after, "") => Stage::Blocked(optional(after)?),
                ("r", "", lines) => Stage::Reports(parse(lines)?),
                ("l", "", before) => Stage::Moderated(optional(before)?),
                ("h", id, lines) => Stage::Held(parse(id)?, parse(lines)?),
                ("m", id, seq) => Stage::Messages(parse(id)?, Seq::new(parse(seq)?)),
                ("n", after, "") => Stage::Conversation(optional(after)?),
                _ => return Err(BadProgress),
            },
            conversations: parse(conversations)?,
            messages: parse(messages)?,
        })
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, BadProgress> {
    text.parse().map_err(|_| BadProgress)
}

fn optional<T: FromStr>(text: &str) -> Result<Option<T>, BadProgress> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some)
}

#[cfg(test)]
mod tests {
    use proto::ids::ConversationKind;

    use super::*;

    #[test]
    fn progress_comes_back_and_nonsense_does_not() {
        let id = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        let user = UserId::from_bytes([3; 16]);
        for stage in [
            Stage::default(),
            Stage::Account(7),
            Stage::Contacts(None),
            Stage::Contacts(Some(user)),
            Stage::Blocked(Some(user)),
            Stage::Reports(5),
            Stage::Moderated(None),
            Stage::Moderated(Some(9)),
            Stage::Held(id, 2),
            Stage::Messages(id, Seq::new(17)),
            Stage::Conversation(None),
            Stage::Conversation(Some(id)),
        ] {
            let progress = Progress {
                stage,
                conversations: 3,
                messages: 120,
            };
            assert_eq!(progress.to_string().parse(), Ok(progress));
        }
        for bad in [
            "",
            "x",
            "m:g.x:1:2:3",
            "a:::1",
            "a::x:1:2",
            "a::1:2:3:4",
            "z::1:2:3",
            "h::1:2:3",
        ] {
            assert_eq!(bad.parse::<Progress>(), Err(BadProgress), "{bad}");
        }
    }
}
