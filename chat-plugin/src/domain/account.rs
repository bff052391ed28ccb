//! What a user's devices have to know of the own chat list.

use proto::ids::ConversationId;
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
}

impl Preferences {
    /// The largest time that is kept.
    pub const MUTED_FOR_EVER: u64 = (1 << 48) - 1;

    /// Muted at this time, in ms since 1970.
    pub fn is_muted(&self, now_ms: u64) -> bool {
        self.muted_until > now_ms
    }
}

/// Conversations of a user that changed, by account version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Version up to which the list tells everything.
    pub upto: u64,
    /// Version of the change, and conversation; ascending, each conversation once.
    pub list: Vec<(u64, ConversationId)>,
    /// There are more behind `upto`.
    pub more: bool,
}
