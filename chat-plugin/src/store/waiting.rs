//! Messages that are not in the log yet: they wait for their time, or for a moderator.

use async_trait::async_trait;
use proto::ids::{ConversationId, MessageId, UserId};

use super::StoreError;
use crate::domain::audit::AuditLine;
use crate::domain::entry::Draft;
use crate::domain::held::{Held, Holding};
use crate::domain::scheduled::{Scheduled, Scheduling};

/// Messages that are not in the log yet: they wait for their time, or for a moderator.
#[async_trait]
pub trait WaitingStore: Send + Sync + 'static {
    /// Lets a message wait for its time, one of at most `max` of its user; once for each message id of the user. Durable.
    async fn schedule(&self, scheduled: Scheduled, max: usize) -> Result<Scheduling, StoreError>;

    /// Changes a scheduled message, or cancels it, if it is still as it was. Says whether it was. Durable.
    async fn reschedule(
        &self,
        before: Scheduled,
        after: Option<Scheduled>,
    ) -> Result<bool, StoreError>;

    /// Scheduled messages of a user, in the order of their message ids, at most `limit` after `after`.
    async fn scheduled(
        &self,
        user: UserId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<Scheduled>, StoreError>;

    /// The scheduled message with this message id.
    async fn scheduled_as(
        &self,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Scheduled>, StoreError>;

    /// Scheduled messages whose time has come, the oldest first, at most `limit`, and at most 16 of one user. They go with the
    /// draft that is their sending ([`Draft::scheduled`]), or with any other that stores this message.
    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Scheduled>, StoreError>;

    /// Puts a message aside for a moderator to decide on, for this reason: once for each message id of its sender, at most
    /// 1,000 in a conversation and 100 of one sender, for 14 days. Its exchange, if it came in one, is settled with that: its
    /// place is zero. Durable. It goes with the draft that lets it into the log ([`Draft::was_held`]), or with any other
    /// that stores this message; one with another digest is a conflict. One that was rejected is held as before for who sends
    /// it again, and for nobody else.
    async fn hold(&self, draft: Draft, reason: String) -> Result<Holding, StoreError>;

    /// Messages that are held in a conversation, in the order of senders and message ids: at most so many behind `after`, and
    /// at most so many bytes of bodies, but one; and whether there are more.
    async fn held(
        &self,
        conversation: ConversationId,
        after: Option<(UserId, MessageId)>,
        size: (usize, usize),
    ) -> Result<(Vec<Held>, bool), StoreError>;

    /// One of them.
    async fn held_message(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<Option<Held>, StoreError>;

    /// Ends the holding of a message that a moderator has rejected. Says whether it was held. Until 14 days after it was sent it
    /// is known: what comes again under its message id gets the answer of before, and nothing is stored.
    async fn reject_held(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError>;
}
