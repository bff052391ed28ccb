//! [`LogStore`] of the embedded store.

use std::collections::VecDeque;

use async_trait::async_trait;
use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, MessageId, Seq, UserId};

use super::super::queue::{Job, Size, draft_size};
use super::super::reads::{hole, own_before, page};
use super::super::{BODY_BYTES_MAX, EmbeddedStore, excluded, happened, keys, values};
use crate::domain::entry::{Change, Draft, Entry, Outcome};
use crate::domain::member::Stretch;
use crate::domain::overlay::{HiddenBy, Pin, Reactions};
use crate::store::{Counts, LogStore, PageRange, Place, StoreError, Written, tables};

#[async_trait]
impl<K: KvEngine> LogStore for EmbeddedStore<K> {
    async fn append(&self, batch: Vec<Draft>) -> Result<Vec<Outcome>, StoreError> {
        let largest = batch.iter().map(|draft| draft.body.len()).max();
        if let Some(bytes) = largest
            && bytes > BODY_BYTES_MAX
        {
            return Err(StoreError::TooLarge {
                bytes,
                max: BODY_BYTES_MAX,
            });
        }
        let mut chunks = chunks(batch);
        let Some(first) = chunks.pop_front() else {
            return Ok(Vec::new());
        };
        if !first.iter().all(makes_room) {
            self.shared.condition.may_grow()?;
        }
        // Almost always it is the only one.
        let mut outcomes = self.ask(|reply| Job::Append(first, reply)).await?;
        for chunk in chunks {
            outcomes.extend(self.ask_to_write(|reply| Job::Append(chunk, reply)).await?);
        }
        Ok(outcomes)
    }

    async fn page(
        &self,
        conversation: ConversationId,
        range: PageRange,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(move |engine, shared| {
            let known = shared.heads.find(engine, conversation)?;
            known.map_or_else(
                || Ok(Vec::new()),
                |known| page(engine, conversation, known.head.seq, range),
            )
        })
        .await
    }

    async fn count_up_to(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Counts, StoreError> {
        self.read(move |engine, shared| {
            let Some(known) = shared.heads.find(engine, conversation)? else {
                return Ok(Counts::default());
            };
            let seq = seq.min(known.head.seq);
            if seq == Seq::ZERO {
                return Ok(Counts::default());
            }
            let all = if seq == known.head.seq {
                known.head.mseq
            } else {
                let row = engine.get(tables::MESSAGE, &keys::message(conversation, seq))?;
                values::read_entry_mseq(&row.ok_or_else(|| hole(conversation, seq))?)?
            };
            let own = own_before(engine, conversation, user, seq)?;
            Ok(Counts {
                all,
                own: own.map_or(0, |(_, count)| count),
                excluded: excluded::up_to(engine, conversation, user, seq)?,
            })
        })
        .await
    }

    async fn hide(
        &self,
        conversation: ConversationId,
        seq: Seq,
        user: UserId,
        ts_ms: u64,
    ) -> Result<bool, StoreError> {
        self.ask_to_write(|reply| Job::Hide((conversation, seq), user, ts_ms, reply))
            .await
    }

    async fn hidden_lately(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Vec<Seq>, StoreError> {
        let key = keys::changed(user, conversation.into());
        let row = self.read_row(tables::CHANGED, key, values::read_changed);
        Ok(row.await?.map(|row| row.hidden).unwrap_or_default())
    }

    async fn hidden(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, HiddenBy)>, StoreError> {
        self.read(move |engine, _| {
            let mut hidden = Vec::new();
            for seq in seqs {
                let key = keys::entry_user(conversation, seq, user);
                if let Some(row) = engine.get(tables::HIDDEN, &key)? {
                    hidden.push((seq, values::read_hidden(&row)?));
                }
            }
            Ok(hidden)
        })
        .await
    }

    async fn reactions(
        &self,
        conversation: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Reactions, StoreError> {
        self.read(move |engine, _| happened::reactions(engine, conversation, seq, (after, limit)))
            .await
    }

    async fn reacted(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, Vec<Box<str>>)>, StoreError> {
        self.read(move |engine, _| {
            let mut reacted = Vec::new();
            for seq in seqs {
                let key = keys::entry_user(conversation, seq, user);
                if let Some(row) = engine.get(tables::REACTION, &key)? {
                    reacted.push((seq, values::read_emoji(&row)?));
                }
            }
            Ok(reacted)
        })
        .await
    }

    async fn pins(&self, conversation: ConversationId) -> Result<Vec<Pin>, StoreError> {
        self.read(move |engine, _| happened::pins(engine, conversation))
            .await
    }

    async fn mentions(
        &self,
        conversation: ConversationId,
        user: UserId,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError> {
        self.read(move |engine, _| happened::mentions(engine, (conversation, user), stretch, limit))
            .await
    }

    async fn written(
        &self,
        conversation: ConversationId,
        user: UserId,
        after: Seq,
        size: (usize, usize),
    ) -> Result<Written, StoreError> {
        self.read(move |engine, _| happened::written(engine, (conversation, user), after, size))
            .await
    }

    async fn last_own(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Option<Seq>, StoreError> {
        self.read(move |engine, _| {
            let last = own_before(engine, conversation, user, seq)?;
            Ok(last.map(|(seq, _)| seq))
        })
        .await
    }

    async fn place_of(
        &self,
        conversation: ConversationId,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Place>, StoreError> {
        let mid = mid.clone();
        self.ask(|reply| Job::Place(conversation, user, mid, reply))
            .await
    }
}

/// Is it stored while the store is read-only, too? What announces a purge takes little, and makes room.
fn makes_room(draft: &Draft) -> bool {
    matches!(draft.changes.as_slice(), [Change::Purge(_)])
}

/// Splits a call into what single commits can hold.
fn chunks(batch: Vec<Draft>) -> VecDeque<Vec<Draft>> {
    let mut chunks = VecDeque::new();
    let mut chunk = Vec::new();
    let mut size = Size::default();
    for draft in batch {
        size = size.and(draft_size(&draft));
        chunk.push(draft);
        if size.fills_a_commit() {
            chunks.push_back(std::mem::take(&mut chunk));
            size = Size::default();
        }
    }
    if !chunk.is_empty() {
        chunks.push_back(chunk);
    }
    chunks
}
