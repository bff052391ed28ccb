//! The log of conversations, and what happened to its entries.

use async_trait::async_trait;
use proto::ids::{ConversationId, MessageId, Seq, UserId};

use super::{Counts, PageRange, Place, StoreError, Written};
use crate::domain::entry::{Draft, Entry, Outcome};
use crate::domain::member::Stretch;
use crate::domain::overlay::{HiddenBy, Pin, Reactions};

/// So many of the entries that a user has hidden from himself are known in their order, of each conversation.
pub const HIDDEN_LATELY_MAX: usize = 32;

/// The log of conversations, and what happened to its entries.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Appends each draft at the next place of its conversation: 1, 2, 3, … without gaps. Durable once it returns; a
    /// `MessageId` seen before stores nothing and returns its first place. Outcomes come in the order of the drafts.
    /// Drafts of one call, and of calls that follow each other's return, are stored in order. Waits while the queue of
    /// the store is full.
    async fn append(&self, batch: Vec<Draft>) -> Result<Vec<Outcome>, StoreError>;

    /// Where a message of this sender with this id was stored, as long as its idempotency key is kept.
    async fn place_of(
        &self,
        conversation: ConversationId,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Place>, StoreError>;

    /// Entries of one conversation, ascending by `seq`, each with what happened to it since.
    async fn page(
        &self,
        conversation: ConversationId,
        range: PageRange,
    ) -> Result<Vec<Entry>, StoreError>;

    /// How many countable entries a conversation has up to `seq`, how many of them are the user's own, and how many of the
    /// others are gone for all or hidden from the user. O(log n).
    async fn count_up_to(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Counts, StoreError>;

    /// Hides an entry from one user, for ever. Says whether it was to be seen before.
    async fn hide(
        &self,
        conversation: ConversationId,
        seq: Seq,
        user: UserId,
        ts_ms: u64,
    ) -> Result<bool, StoreError>;

    /// What a user has hidden from himself lately, in this order: the last [`HIDDEN_LATELY_MAX`] of a conversation.
    async fn hidden_lately(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Vec<Seq>, StoreError>;

    /// Which of these entries are hidden from one user, and by what.
    async fn hidden(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, HiddenBy)>, StoreError>;

    /// Who reacted to a message, and with what: at most `limit` after `after` in the order of user ids.
    async fn reactions(
        &self,
        conversation: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Reactions, StoreError>;

    /// With what one user reacted to each of these messages, if at all.
    async fn reacted(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, Vec<Box<str>>)>, StoreError>;

    /// The pinned messages of a conversation, ascending by `seq`.
    async fn pins(&self, conversation: ConversationId) -> Result<Vec<Pin>, StoreError>;

    /// Messages of others in a stretch of the log that mention `user`, or all, and are neither gone nor hidden from the
    /// user: the newest first, at most `limit`.
    async fn mentions(
        &self,
        conversation: ConversationId,
        user: UserId,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError>;

    /// Messages of one user that are there, as they are now: looks at so many behind `after`, gone ones included, and takes at
    /// most so many bytes of bodies, but one; ascending.
    async fn written(
        &self,
        conversation: ConversationId,
        user: UserId,
        after: Seq,
        size: (usize, usize),
    ) -> Result<Written, StoreError>;

    /// The last own countable entry of `user` at or before `seq`. O(log n).
    async fn last_own(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Option<Seq>, StoreError>;
}
