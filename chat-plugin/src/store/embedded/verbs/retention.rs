//! [`RetentionStore`] of the embedded store.

use async_trait::async_trait;
use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, Seq, UserId};

use super::super::queue::Job;
use super::super::writer::TRUSTED_KEY;
use super::super::{EmbeddedStore, audit, retention, upkeep, values};
use crate::domain::purge::{Limits, Overdue, Purge, Purged};
use crate::store::{DroppedIds, IdPage, PeopleStore, RetentionStore, StoreError, tables};

#[async_trait]
impl<K: KvEngine> RetentionStore for EmbeddedStore<K> {
    async fn expire(&self, now_ms: u64) -> Result<usize, StoreError> {
        self.ask(|reply| Job::Expire(now_ms, reply)).await
    }

    async fn purge(
        &self,
        conversation: ConversationId,
        purge: Purge,
    ) -> Result<Purged, StoreError> {
        self.ask(|reply| Job::Purge(conversation, Box::new(purge), reply))
            .await
    }

    async fn purges_under_way(
        &self,
        after: Option<(ConversationId, Seq)>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        self.read(move |engine, _| retention::purges_under_way(engine, after, limit))
            .await
    }

    async fn overdue(
        &self,
        limits: Limits,
        after: Option<ConversationId>,
    ) -> Result<Overdue, StoreError> {
        self.read(move |engine, shared| retention::overdue(engine, &shared.heads, limits, after))
            .await
    }

    async fn ids(&self, after: Option<Vec<u8>>, limit: usize) -> Result<IdPage, StoreError> {
        self.read(move |engine, _| upkeep::ids(engine, after.as_deref(), limit))
            .await
    }

    async fn drop_ids(
        &self,
        before: u16,
        after: Option<Vec<u8>>,
    ) -> Result<DroppedIds, StoreError> {
        self.ask(|reply| Job::DropIds(before, after, reply)).await
    }

    async fn trusted_ms(&self) -> Result<Option<u64>, StoreError> {
        self.read_row(tables::TRUSTED, TRUSTED_KEY, |row| {
            values::read_number(tables::TRUSTED.name(), row)
        })
        .await
    }

    async fn trust(&self, now_ms: u64) -> Result<(), StoreError> {
        self.ask(|reply| Job::Trust(now_ms, reply)).await
    }

    async fn forget(&self, user: UserId) -> Result<usize, StoreError> {
        let handle = self.user(user).await?.map(|user| user.handle);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let name = handle.clone();
            let found = self.read(move |engine, _| {
                audit::of_user(engine, (user, name.as_ref()), after.as_deref())
            });
            let (keys, next) = found.await?;
            if !keys.is_empty() {
                let of = Box::new((user, handle.clone()));
                self.ask(|reply| Job::ForgetAudit(of, keys, reply)).await?;
            }
            match next {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        self.ask(|reply| Job::Forget(user, reply)).await
    }
}
