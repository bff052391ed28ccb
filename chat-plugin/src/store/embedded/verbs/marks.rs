//! [`MarkStore`] of the embedded store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, DeviceId, Seq, UserId};

use super::super::overlay::OverlayKey;
use super::super::queue::Job;
use super::super::reads::{all_cursors, changes, read_seq, tail_cid, visit};
use super::super::{EmbeddedStore, OVERLAY_MAX, keys, readers, reads, values};
use crate::domain::account::{Changes, Preferences};
use crate::store::{Behind, ChatStore, Durability, MarkStore, Move, MovedOver, StoreError, tables};

#[async_trait]
impl<K: KvEngine> MarkStore for EmbeddedStore<K> {
    async fn channels_behind(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Behind, StoreError> {
        self.read(move |engine, shared| {
            readers::behind(engine, &shared.heads, (user, after), limit)
        })
        .await
    }

    async fn note_changed(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::NoteChanged(user, conversations, reply))
            .await
    }

    async fn told_mark(
        &self,
        conversation: ConversationId,
        user: UserId,
        other: UserId,
        from: Seq,
        to: Seq,
    ) -> Result<Seq, StoreError> {
        self.read(move |engine, _| {
            reads::told_mark(engine, conversation, (user, other), (from, to))
        })
        .await
    }

    async fn advance(&self, moves: Vec<Move>, durability: Durability) -> Result<(), StoreError> {
        if let Some(error) = self.shared.condition.refusal() {
            return Err(error);
        }
        if self.shared.overlay.len() >= OVERLAY_MAX {
            ChatStore::flush(self).await?;
        }
        if self.shared.overlay.merge(&moves) {
            self.shared.queue.nudge();
        }
        if durability == Durability::Relaxed {
            return Ok(());
        }
        let keys = moves.iter().map(OverlayKey::of).collect();
        self.ask(|reply| Job::Settle(keys, reply)).await
    }

    async fn cursors(
        &self,
        device: DeviceId,
        conversation: Option<ConversationId>,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        self.read(move |engine, shared| {
            // The overlay first: what leaves it meanwhile is in the engine already.
            let Some(conversation) = conversation else {
                return all_cursors(engine, device, shared.overlay.cursors(device));
            };
            let waiting = shared.overlay.cursor(device, conversation);
            let row = engine.get(tables::CURSOR, &keys::cursor(device, conversation))?;
            let stored = row.map(|row| read_seq(&row)).transpose()?;
            let seq = waiting.max(stored);
            Ok(seq.map(|seq| (conversation, seq)).into_iter().collect())
        })
        .await
    }

    async fn changes(&self, user: UserId, since: u64, limit: usize) -> Result<Changes, StoreError> {
        self.read(move |engine, _| changes(engine, user, since, limit))
            .await
    }

    async fn hand_out(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<u64, StoreError> {
        self.ask(|reply| Job::HandOut(user, conversations, reply))
            .await
    }

    async fn preferences(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<Vec<Preferences>, StoreError> {
        self.read(move |engine, _| {
            let read = |id: &ConversationId| {
                let row = engine.get(tables::CHANGED, &keys::changed(user, (*id).into()))?;
                let row = row.map(|row| values::read_changed(&row)).transpose()?;
                Ok(row.unwrap_or_default().preferences)
            };
            conversations.iter().map(read).collect()
        })
        .await
    }

    async fn set_preferences(
        &self,
        user: UserId,
        conversation: ConversationId,
        preferences: Preferences,
    ) -> Result<(), StoreError> {
        self.ask_to_write(|reply| Job::SetPreferences(user, conversation, preferences, reply))
            .await
    }

    async fn moved_over(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
        seq: Seq,
    ) -> Result<Vec<(UserId, MovedOver)>, StoreError> {
        self.read(move |engine, _| reads::moved_over(engine, conversation, users, seq))
            .await
    }

    async fn receipts_due(
        &self,
        user: UserId,
        since_ms: u64,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, shared| {
            let mut due: BTreeMap<_, _> = shared.overlay.receipts_due(user).into_iter().collect();
            let from = keys::join::<33>(&[user.as_bytes(), &keys::FIRST_CID]);
            let to = keys::join::<33>(&[user.as_bytes(), &keys::LAST_CID]);
            let range = KeyRange::closed(&from, &to);
            visit(
                engine,
                tables::RECEIPT_DUE,
                range,
                usize::MAX,
                |key, row| {
                    let ts_ms = values::read_time(tables::RECEIPT_DUE.name(), row)?;
                    let known = due.entry(tail_cid(key)?).or_default();
                    *known = (*known).max(ts_ms);
                    Ok(())
                },
            )?;
            let mut due: Vec<_> = due.into_iter().filter(|(_, ts)| *ts >= since_ms).collect();
            due.sort_by_key(|(id, ts_ms)| (std::cmp::Reverse(*ts_ms), *id));
            due.truncate(limit);
            Ok(due.into_iter().map(|(id, _)| id).collect())
        })
        .await
    }
}
