//! Support cases: conversations of a visitor with whoever has taken the case from the queue of a desk.

use proto::ids::{ConversationId, Handle, UserId};
use serde::{Deserialize, Serialize};

/// What the settings of a case say beside those of every conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The group whose members answer.
    pub desk: ConversationId,
    /// Who asks for help.
    pub visitor: UserId,
    /// Where it stands.
    pub state: CaseState,
    /// Who has taken it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<UserId>,
    /// Since when it stands there, in ms since 1970.
    pub since: u64,
}

/// Where a case stands. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum CaseState {
    /// Nobody has taken it.
    Queued = 1,
    /// An agent has it.
    Claimed = 2,
    /// It is over, until the visitor says something more.
    Closed = 3,
}

impl CaseState {
    /// The byte at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Closed => "closed",
        }
    }
}

/// What the handles of visitors begin with: users whom a desk has made, and who can do nothing but talk to desks.
pub const VISITOR_PREFIX: &str = "visitor.";

/// Is this the handle of a visitor? Nobody else gets one that begins so.
pub fn is_visitor(handle: &Handle) -> bool {
    handle.as_str().starts_with(VISITOR_PREFIX)
}
