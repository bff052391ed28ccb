//! The audit log: what those who run the server have done, and those who moderate conversations.
//!
//! There are two logs, each with bounds of its own: members, who can make as many groups to moderate as they like, cannot push
//! out what operators did. A line names users by their ids; it has no bodies, passwords or tokens.

use std::fmt;

use proto::ids::{ConversationId, DeviceId, Handle, UserId};
use serde_json::{Map, Value};

/// Longest text of somebody else in the details of a line, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// The detail under which an operator's line has a name that is no user's, or not yet.
const NAMED: &str = "user";

/// One of the two logs. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AuditLog {
    /// What those who run the server have done.
    Operators = 0,
    /// What members have done who moderate a conversation.
    Moderators = 1,
}

impl AuditLog {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Operators, Self::Moderators];

    /// The byte at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }
}

/// Names a line: `o17` of operators, `m203` of moderators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// In which log.
    pub log: AuditLog,
    /// Its number there: dense from 1, so that a line that is missing shows.
    pub number: u64,
}

impl fmt::Display for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = match self.log {
            AuditLog::Operators => 'o',
            AuditLog::Moderators => 'm',
        };
        write!(f, "{log}{}", self.number)
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditBy {
    /// Who runs the server.
    Operator,
    /// A member.
    User {
        /// Who.
        user: UserId,
        /// From which device or connection.
        device: DeviceId,
    },
}

/// What came of it. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AuditOutcome {
    /// It was begun; whether it came to its end is not known, or is told by a later line.
    Begun = 0,
    /// It was done.
    Done = 1,
    /// It was refused, or could not be done.
    Refused = 2,
}

impl AuditOutcome {
    /// The byte at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The outcome of a byte at rest.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Begun,
            1 => Self::Done,
            2 => Self::Refused,
            _ => return None,
        })
    }

    /// The name that people and programs are told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// The server's clock, in ms since 1970.
    pub ts_ms: u64,
    /// Who did it.
    pub by: AuditBy,
    /// From where: an address, the admin socket, a signal. Empty if the one who did it was erased.
    pub from: String,
    /// What: a command (`user passwd`) or a call (`conv.ban`).
    pub action: String,
    /// In which conversation.
    pub conversation: Option<ConversationId>,
    /// To whom.
    pub about: Option<UserId>,
    /// Further arguments and results, as a JSON object; empty: none, or erased with whom it was about.
    pub detail: String,
    /// What came of it.
    pub outcome: AuditOutcome,
}

impl AuditLine {
    /// In which log it is.
    pub const fn log(&self) -> AuditLog {
        match self.by {
            AuditBy::Operator => AuditLog::Operators,
            AuditBy::User { .. } => AuditLog::Moderators,
        }
    }

    /// Is it by this user?
    pub fn is_by(&self, user: UserId) -> bool {
        matches!(self.by, AuditBy::User { user: by, .. } if by == user)
    }

    /// Is it by this user, or about him?
    pub fn concerns(&self, user: UserId) -> bool {
        self.about == Some(user) || self.is_by(user)
    }

    /// Adds to the details; of a long text only the beginning.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        let value = match value.into() {
            Value::String(text) => Value::String(shortened(text)),
            other => other,
        };
        let mut details = self.details();
        details.insert(name.to_owned(), value);
        self.detail = Value::Object(details).to_string();
    }

    /// The name of somebody who is no user, or not yet.
    pub fn add_name(&mut self, name: &str) {
        self.add(NAMED, name);
    }

    /// Such a name goes: it turned out who that is.
    pub fn remove_name(&mut self) {
        let mut details = self.details();
        if details.remove(NAMED).is_some() {
            self.detail = text_of(details);
        }
    }

    /// The details.
    pub fn details(&self) -> Map<String, Value> {
        serde_json::from_str(&self.detail).unwrap_or_default()
    }

    /// Lets go of all that says more of a user than his id. Says whether there was anything.
    pub fn forget(&mut self, user: UserId, handle: Option<&Handle>) -> bool {
        let before = (self.from.len(), self.detail.len());
        if self.is_by(user) {
            self.from.clear();
        }
        let is_named = || {
            let details = self.details();
            let name = details.get(NAMED).and_then(Value::as_str);
            name.is_some() && name == handle.map(Handle::as_str)
        };
        if self.about == Some(user) || (self.about.is_none() && is_named()) {
            self.detail.clear();
        }
        before != (self.from.len(), self.detail.len())
    }
}

/// How long lines are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditKeep {
    /// Lines from before this time go, the oldest first, in ms since 1970.
    pub from_ms: u64,
    /// So many of the newest lines of each log stay.
    pub lines_max: u64,
}

impl AuditKeep {
    /// All of them.
    pub const ALL: Self = Self {
        from_ms: 0,
        lines_max: u64::MAX,
    };
}

/// Details as a line has them.
pub fn text_of(details: Map<String, Value>) -> String {
    if details.is_empty() {
        return String::new();
    }
    Value::Object(details).to_string()
}

fn shortened(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let mut end = TEXT_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(by: AuditBy, about: Option<UserId>) -> AuditLine {
        AuditLine {
            ts_ms: 7,
            by,
            from: "here".to_owned(),
            action: "token revoke".to_owned(),
            conversation: None,
            about,
            detail: String::new(),
            outcome: AuditOutcome::Done,
        }
    }

    fn user(number: u8) -> UserId {
        UserId::from_bytes([number; 16])
    }

    #[test]
    fn of_whom_is_erased_only_ids_stay() {
        let by = AuditBy::User {
            user: user(1),
            device: DeviceId::from_bytes([9; 16]),
        };
        let mut own = line(by, Some(user(2)));
        own.add("mid", "my-id");
        assert!(own.forget(user(1), None));
        assert_eq!(
            (own.from.as_str(), own.detail.as_str()),
            ("", r#"{"mid":"my-id"}"#)
        );
        assert!(own.forget(user(2), None));
        assert_eq!(own.detail, "");
        assert!(!own.forget(user(2), None), "nothing is left");

        let bob: Handle = "bob".parse().unwrap();
        let mut named = line(AuditBy::Operator, None);
        named.add_name("bob");
        assert!(!named.forget(user(3), Some(&"bobby".parse().unwrap())));
        assert!(named.forget(user(3), Some(&bob)));
        assert_eq!((named.from.as_str(), named.detail.as_str()), ("here", ""));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut long = line(AuditBy::Operator, None);
        long.add("client_id", "ü".repeat(1_000));
        let details = long.details();
        let text = details["client_id"].as_str().unwrap();
        assert_eq!(text.chars().count(), TEXT_BYTES_MAX / 2 + 1);
        assert!(text.ends_with("ü…"));
    }
}
