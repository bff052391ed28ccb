//! What a user's devices have to know of the own chat list.

use proto::ids::{ConversationId, UserId};
use serde::{Deserialize, Serialize};

/// What a user has decided about one conversation, for all own devices; nobody else sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// Neither push nor badge until then, in ms since 1970; 0: not muted, [`Preferences::MUTED_FOR_EVER`]: until further
    /// notice.
    pub muted_until: u64,
    /// Out of the way.
    pub archived: bool,
    /// On top of the list.
    pub pinned: bool,
    /// What is said in this channel comes to the inbox, however many readers it has.
    pub watch: bool,
}

impl Preferences {
    /// The largest time that is kept.
    pub const MUTED_FOR_EVER: u64 = (1 << 48) - 1;

    /// Muted at this time, in ms since 1970.
    pub fn is_muted(&self, now_ms: u64) -> bool {
        self.muted_until > now_ms
    }
}

/// Something of which the devices of a user are told when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A conversation in the list.
    Conversation(ConversationId),
    /// What is decided about another user; about oneself: the own profile, privacy and devices.
    Person(UserId),
}

impl Subject {
    /// Which conversation it is, if it is one.
    pub fn conversation(self) -> Option<ConversationId> {
        match self {
            Self::Conversation(id) => Some(id),
            Self::Person(_) => None,
        }
    }
}

impl From<ConversationId> for Subject {
    fn from(id: ConversationId) -> Self {
        Self::Conversation(id)
    }
}

/// What changed for a user, by account version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Version up to which the list tells everything.
    pub upto: u64,
    /// Version of the change, and what changed; ascending, each once.
    pub list: Vec<(u64, Subject)>,
    /// There are more behind `upto`.
    pub more: bool,
}
