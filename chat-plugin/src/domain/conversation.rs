//! Conversations: what is known of one beside its log.

use proto::ids::{ConversationId, Seq};
use serde::{Deserialize, Serialize};

use super::support::Case;

/// A conversation at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Which one.
    pub id: ConversationId,
    /// Place of the last entry.
    pub head: Seq,
    /// Number of countable entries.
    pub mseq: u64,
    /// Time of the last entry, in ms since 1970.
    pub ts_ms: u64,
    /// Moves with every change of members, roles or settings.
    pub version: u32,
    /// What its admins decided.
    pub settings: Settings,
}

/// What the admins of a conversation decide, and of a case where it stands. Stored as JSON, so that later fields need no migration, and shown so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
pub struct Settings {
    /// Shown to members; at most 256 bytes.
    pub title: String,
    /// Shown to members; at most 2,048 bytes.
    pub description: String,
    /// What a member sees that comes later.
    pub history: HistoryPolicy,
    /// Seconds that messages last; 0: for ever.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl_s: u32,
    /// Reference of a picture; at most 256 bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub photo: String,
    /// Whoever knows of it may join, and it may be found.
    #[serde(skip_serializing_if = "is_default")]
    pub public: bool,
    /// Words by which a public one is found, beside those of its title.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Who joins a public one has to be approved.
    #[serde(skip_serializing_if = "is_default")]
    pub approval: bool,
    /// Seconds between two messages of one member; 0: as fast as they like. Moderators and above are exempt.
    #[serde(skip_serializing_if = "is_default")]
    pub slow_s: u32,
    /// Its owner has closed it: it can be read, and nothing more is said.
    #[serde(skip_serializing_if = "is_default")]
    pub closed: bool,
    /// Of a group: its members answer support cases, which anybody may open who knows of it.
    #[serde(skip_serializing_if = "is_default")]
    pub desk: bool,
    /// Of a support case: where it stands.
    #[serde(skip_serializing_if = "is_default")]
    pub case: Option<Case>,
    /// Days that messages stay; 0: for ever.
    #[serde(skip_serializing_if = "is_default")]
    pub retention_days: u32,
    /// So many of the newest messages stay; 0: all.
    #[serde(skip_serializing_if = "is_default")]
    pub retention_messages: u32,
}

/// What a member who is added later may see of the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryPolicy {
    /// Everything.
    All,
    /// Only what comes after joining.
    #[default]
    Joined,
    /// The last so many entries before joining, too.
    Last(u32),
}

/// What a conversation does not have is left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
