//! [`WaitingStore`] of the embedded store.

use async_trait::async_trait;
use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, MessageId, UserId};

use super::super::queue::Job;
use super::super::{EmbeddedStore, happened, keys, scheduled, values};
use crate::domain::audit::AuditLine;
use crate::domain::entry::Draft;
use crate::domain::held::{Held, Holding};
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::store::{StoreError, WaitingStore, tables};

#[async_trait]
impl<K: KvEngine> WaitingStore for EmbeddedStore<K> {
    async fn schedule(&self, scheduled: Scheduled, max: usize) -> Result<Scheduling, StoreError> {
        self.ask_to_write(|reply| Job::Schedule(Box::new(scheduled), max, reply))
            .await
    }

    async fn reschedule(
        &self,
        before: Scheduled,
        after: Option<Scheduled>,
    ) -> Result<bool, StoreError> {
        self.ask(|reply| Job::Reschedule(Box::new((before, after)), reply))
            .await
    }

    async fn scheduled(
        &self,
        user: UserId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<Scheduled>, StoreError> {
        self.read(move |engine, _| scheduled::of_user(engine, user, after.as_ref(), limit))
            .await
    }

    async fn scheduled_as(
        &self,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Scheduled>, StoreError> {
        let (key, mid) = (keys::scheduled(user, mid), mid.clone());
        self.read_row(tables::SCHEDULED, key, move |row| {
            values::read_scheduled(user, mid, row)
        })
        .await
    }

    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Scheduled>, StoreError> {
        self.read(move |engine, _| scheduled::due(engine, now_ms, limit))
            .await
    }

    async fn hold(&self, draft: Draft, reason: String) -> Result<Holding, StoreError> {
        self.ask_to_write(|reply| Job::Hold(Box::new((draft, reason)), reply))
            .await
    }

    async fn held(
        &self,
        conversation: ConversationId,
        after: Option<(UserId, MessageId)>,
        size: (usize, usize),
    ) -> Result<(Vec<Held>, bool), StoreError> {
        let after = after.map(|(from, mid)| keys::held(conversation, from, mid.as_str()));
        self.read(move |engine, _| happened::held(engine, conversation, after.as_deref(), size))
            .await
    }

    async fn held_message(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<Option<Held>, StoreError> {
        let key = keys::held(conversation, from, mid.as_str());
        self.read_row(tables::HELD, key, move |row| {
            values::read_held(conversation, row)
        })
        .await
    }

    async fn reject_held(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError> {
        let rejected = Box::new((mid.clone(), line));
        self.ask(|reply| Job::RejectHeld(conversation, from, rejected, reply))
            .await
    }
}
