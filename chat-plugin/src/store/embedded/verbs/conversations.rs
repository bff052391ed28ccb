//! [`ConversationStore`] of the embedded store.

use async_trait::async_trait;
use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, Seq, UserId};

use super::super::queue::Job;
use super::super::reads::members;
use super::super::{EmbeddedStore, joining, keys, readers, reads, values};
use crate::domain::conversation::Conversation;
use crate::domain::member::{Marks, Member};
use crate::domain::support::CaseState;
use crate::store::{Broadcast, ConversationStore, StoreError, tables};

#[async_trait]
impl<K: KvEngine> ConversationStore for EmbeddedStore<K> {
    async fn conversations(
        &self,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError> {
        let mut found: Vec<_> = ids
            .iter()
            .map(|id| (*id, self.shared.heads.peek(*id)))
            .collect();
        if found.iter().any(|(_, known)| known.is_none()) {
            found = self
                .read(move |engine, shared| {
                    for (id, known) in &mut found {
                        if known.is_none() {
                            *known = shared.heads.find(engine, *id)?;
                        }
                    }
                    Ok(found)
                })
                .await?;
        }
        Ok(found
            .into_iter()
            .map(|(id, known)| known.map(|known| known.into_conversation(id)))
            .collect())
    }

    async fn members(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(Member, Marks)>, StoreError> {
        self.read(move |engine, shared| {
            members(engine, &shared.overlay, conversation, after, limit)
        })
        .await
    }

    async fn readers(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, StoreError> {
        self.read(move |engine, _| readers::page(engine, conversation, after, limit))
            .await
    }

    async fn readers_among(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
    ) -> Result<Vec<(Member, Marks)>, StoreError> {
        self.read(move |engine, shared| {
            readers::among(engine, &shared.overlay, conversation, users)
        })
        .await
    }

    async fn reader_count(&self, conversation: ConversationId) -> Result<u64, StoreError> {
        let table = tables::READER_COUNT;
        let count = self
            .read_row(table, keys::cid(conversation), move |row| {
                values::read_number(table.name(), row)
            })
            .await?;
        Ok(count.unwrap_or_default())
    }

    async fn broadcasts(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<Broadcast>, StoreError> {
        self.read(move |engine, _| readers::broadcasts(engine, after, limit))
            .await
    }

    async fn broadcast_to(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::BroadcastTo((list, seq), after, reply))
            .await
    }

    async fn copies(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Seq)>, StoreError> {
        self.read(move |engine, _| readers::copies(engine, (list, seq), after, limit))
            .await
    }

    async fn conversations_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, _| reads::conversations_of(engine, user, after, limit, |_| true))
            .await
    }

    async fn memberships_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, _| {
            let is_member = |row: &[u8]| row != values::LEFT_CONVERSATION;
            reads::conversations_of(engine, user, after, limit, is_member)
        })
        .await
    }

    async fn conversation_count(&self, user: UserId) -> Result<u64, StoreError> {
        let table = tables::CONVERSATION_COUNT;
        let count = self
            .read_row(table, *user.as_bytes(), move |row| {
                values::read_number(table.name(), row)
            })
            .await?;
        Ok(count.unwrap_or_default())
    }

    async fn cases(
        &self,
        desk: ConversationId,
        state: CaseState,
        after: Option<(u64, ConversationId)>,
        limit: usize,
    ) -> Result<Vec<(u64, ConversationId)>, StoreError> {
        self.read(move |engine, _| joining::cases(engine, (desk, state), after, limit))
            .await
    }

    async fn desks(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, _| joining::desks(engine, after, limit))
            .await
    }

    async fn share_conversation(&self, one: UserId, other: UserId) -> Result<bool, StoreError> {
        self.read(move |engine, _| reads::share_conversation(engine, (one, other)))
            .await
    }
}
