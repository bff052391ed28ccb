//! What goes, and by which clock.

use async_trait::async_trait;
use proto::ids::{ConversationId, Seq, UserId};

use super::{DroppedIds, IdPage, StoreError};
use crate::domain::purge::{Limits, Overdue, Purge, Purged};

/// What goes, and by which clock.
#[async_trait]
pub trait RetentionStore: Send + Sync + 'static {
    /// Makes entries gone whose time is over, the oldest first; at most some hundred at once. Says how many were.
    async fn expire(&self, now_ms: u64) -> Result<usize, StoreError>;

    /// One step of a purge: makes at most some hundred entries gone, and says where the next one begins.
    async fn purge(&self, conversation: ConversationId, purge: Purge)
    -> Result<Purged, StoreError>;

    /// Places of entries that have announced a purge which is not done yet: at most `limit` behind `after`.
    async fn purges_under_way(
        &self,
        after: Option<(ConversationId, Seq)>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError>;

    /// Conversations in which something is over these limits, or over stricter ones of their own. Looks at some hundred behind
    /// `after`; without `limits` only at those that have their own. One that cannot be read is told to the log, and left out.
    async fn overdue(
        &self,
        limits: Limits,
        after: Option<ConversationId>,
    ) -> Result<Overdue, StoreError>;

    /// Counts the rows by which repeated messages are known, week by week: looks at so many behind a key.
    async fn ids(&self, after: Option<Vec<u8>>, limit: usize) -> Result<IdPage, StoreError>;

    /// Drops those of weeks before this one, some thousand behind a key; never those of the present week. With 0 none: it only
    /// tells which week it is. Durable when it returns.
    async fn drop_ids(&self, before: u16, after: Option<Vec<u8>>)
    -> Result<DroppedIds, StoreError>;

    /// Up to when the wall clock has been trusted, in ms since 1970; `None`: never yet.
    async fn trusted_ms(&self) -> Result<Option<u64>, StoreError>;

    /// Trusts the wall clock up to this time.
    async fn trust(&self, now_ms: u64) -> Result<(), StoreError>;

    /// What a user told of himself goes: profile, the text of his presence, what waits to be sent, how he calls others, what his
    /// tokens are for, the words of reports, what the audit log says of him but his id; of one who was removed all that belonged to
    /// him. Says how many reports there were.
    async fn forget(&self, user: UserId) -> Result<usize, StoreError>;
}
