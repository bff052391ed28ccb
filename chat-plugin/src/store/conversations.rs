//! Conversations, who is in them, and what goes from one into others.

use async_trait::async_trait;
use proto::ids::{ConversationId, Seq, UserId};

use super::{Broadcast, StoreError};
use crate::domain::conversation::Conversation;
use crate::domain::member::{Marks, Member};
use crate::domain::support::CaseState;

/// Conversations, who is in them, and what goes from one into others.
#[async_trait]
pub trait ConversationStore: Send + Sync + 'static {
    /// Each of these conversations, or `None` where there is none.
    async fn conversations(
        &self,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError>;

    /// All members of a conversation, former ones included, with their marks; at most `limit` after `after` in the order
    /// of user ids.
    async fn members(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(Member, Marks)>, StoreError>;

    /// Members of a channel or broadcast list who are one of many ([`crate::domain::member::Role::is_one_of_many`]), former
    /// ones included, in the order of their ids, at most `limit` after `after`. [`ConversationStore::members`] has the others.
    async fn readers(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, StoreError>;

    /// Those of `users` who are or were such members, with their marks.
    async fn readers_among(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
    ) -> Result<Vec<(Member, Marks)>, StoreError>;

    /// How many such members there are now. O(1).
    async fn reader_count(&self, conversation: ConversationId) -> Result<u64, StoreError>;

    /// Of each broadcast list behind `after` the first entry that is not in all direct conversations yet: of at most `limit`
    /// lists.
    async fn broadcasts(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<Broadcast>, StoreError>;

    /// Notes how far an entry of a broadcast list has come; `None`: everywhere. Durable.
    async fn broadcast_to(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
    ) -> Result<(), StoreError>;

    /// In whose direct conversations a message of a broadcast list is, and where, as is noted with each that is stored: in the
    /// order of the users, at most `limit` after `after`.
    async fn copies(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Seq)>, StoreError>;

    /// Conversations in which a user is or was a member, in the order of their ids, at most `limit` after `after`.
    async fn conversations_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Conversations in which a user is a member now, in the order of their ids, at most `limit` after `after`.
    async fn memberships_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// How many conversations count against the limit of a user: those in which the user is a member now, but not the
    /// direct ones that the other one began. O(1).
    async fn conversation_count(&self, user: UserId) -> Result<u64, StoreError>;

    /// Support cases of a desk that stand there, and since when, in this order, at most `limit` after `after`.
    async fn cases(
        &self,
        desk: ConversationId,
        state: CaseState,
        after: Option<(u64, ConversationId)>,
        limit: usize,
    ) -> Result<Vec<(u64, ConversationId)>, StoreError>;

    /// Groups that have support cases, in the order of their ids, at most `limit` after `after`.
    async fn desks(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Are both members of one conversation now, channels and broadcast lists aside?
    async fn share_conversation(&self, one: UserId, other: UserId) -> Result<bool, StoreError>;
}
