//! How far users and devices have got, and what their devices are told of that.

use async_trait::async_trait;
use proto::ids::{ConversationId, DeviceId, Seq, UserId};

use super::{Behind, Durability, Move, MovedOver, StoreError};
use crate::domain::account::{Changes, Preferences};

/// How far users and devices have got, and what their devices are told of that.
#[async_trait]
pub trait MarkStore: Send + Sync + 'static {
    /// Channels that `user` reads and that have gone on since his devices were told of them by an account sync, among at most
    /// `limit` of his behind `after`. Reads rows for each that is looked at: what is said there notes nothing for its readers.
    async fn channels_behind(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Behind, StoreError>;

    /// Moves the account version of `user` to these conversations: the next sync tells of them. Durable.
    async fn note_changed(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<(), StoreError>;

    /// How far `other` may be told that `user` has got, who was at the first place and is at the second one: not to where the
    /// last messages of `other` are such as `user` never sees, as he had blocked him. What is costly to find out is not told:
    /// then it is the first place.
    async fn told_mark(
        &self,
        conversation: ConversationId,
        user: UserId,
        other: UserId,
        from: Seq,
        to: Seq,
    ) -> Result<Seq, StoreError>;

    /// Moves cursors and marks: monotone, merged by maximum (the unread flag: last one wins). Relaxed moves are seen by
    /// reads at once, are coalesced, and become durable within 250 ms or at `flush`, whichever comes first.
    async fn advance(&self, moves: Vec<Move>, durability: Durability) -> Result<(), StoreError>;

    /// Cursors of a device: of one conversation, or of all.
    async fn cursors(
        &self,
        device: DeviceId,
        conversation: Option<ConversationId>,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError>;

    /// What changed for `user` after the account version `since`, in the order of the changes, at most `limit`. Version 0 with nothing: [`MarkStore::hand_out`] was never called for this user.
    async fn changes(&self, user: UserId, since: u64, limit: usize) -> Result<Changes, StoreError>;

    /// The devices of `user` are told of these conversations as they are when this returns, or later: the next change of
    /// each moves the account version. Returns the version. Durable.
    async fn hand_out(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<u64, StoreError>;

    /// What a user has decided about each of these conversations.
    async fn preferences(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<Vec<Preferences>, StoreError>;

    /// Replaces what a user has decided about a conversation. Durable.
    async fn set_preferences(
        &self,
        user: UserId,
        conversation: ConversationId,
        preferences: Preferences,
    ) -> Result<(), StoreError>;

    /// When marks of these users moved over an entry, for all to see; kept for 30 days: of all that was read, and in direct
    /// conversations of what was delivered.
    async fn moved_over(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
        seq: Seq,
    ) -> Result<Vec<(UserId, MovedOver)>, StoreError>;

    /// Conversations in which receipts for `user` moved at or after `since_ms`, at most `limit`, newest first.
    async fn receipts_due(
        &self,
        user: UserId,
        since_ms: u64,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;
}
