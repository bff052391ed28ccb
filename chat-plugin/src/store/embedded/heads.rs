//! The bounded cache of conversation heads that readers and the writer share. It holds committed states only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use broker::store::kv::KvEngine;
use proto::ids::ConversationId;
use quick_cache::unsync::Cache;

use super::{keys, values};
use crate::domain::conversation::{Conversation, Settings};
use crate::store::{StoreError, tables};

/// Number of locks; a power of two.
const SHARDS: usize = 16;

/// A committed conversation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) head: values::Head,
    pub(super) settings: Arc<Settings>,
}

impl Known {
    /// As the service sees it.
    pub(super) fn into_conversation(self, id: ConversationId) -> Conversation {
        Conversation {
            id,
            head: self.head.seq,
            mseq: self.head.mseq,
            ts_ms: self.head.ts_ms,
            version: self.head.version,
            settings: Settings::clone(&self.settings),
        }
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct Heads {
    shards: Box<[Mutex<Shard>]>,
    /// After a failed commit: how its conversations were before it. Some engines show rows that never became durable.
    pinned: OnceLock<HashMap<ConversationId, Option<Known>>>,
}

#[derive(Debug)]
struct Shard {
    known: Cache<ConversationId, Known>,
    /// Moves with every publication: what a reader loaded before it may be old, and is not kept.
    published: u64,
}

impl Heads {
    /// A cache for so many conversations.
    pub(super) fn new(capacity: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                known: Cache::new(capacity / SHARDS),
                published: 0,
            })
        };
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            pinned: OnceLock::new(),
        }
    }

    /// The committed state of a conversation, if it is in memory.
    pub(super) fn peek(&self, id: ConversationId) -> Option<Known> {
        if let Some(pinned) = self.pinned.get().and_then(|pinned| pinned.get(&id)) {
            return pinned.clone();
        }
        self.lock(id)?.known.get(&id).cloned()
    }

    /// The committed state of a conversation, from memory or the engine.
    pub(super) fn find(
        &self,
        engine: &impl KvEngine,
        id: ConversationId,
    ) -> Result<Option<Known>, StoreError> {
        if let Some(pinned) = self.pinned.get().and_then(|pinned| pinned.get(&id)) {
            return Ok(pinned.clone());
        }
        let published = {
            let Some(shard) = self.lock(id) else {
                return Ok(None);
            };
            if let Some(known) = shard.known.get(&id) {
                return Ok(Some(known.clone()));
            }
            shard.published
        };
        let Some(loaded) = load(engine, id)? else {
            return Ok(None);
        };
        if let Some(mut shard) = self.lock(id)
            && shard.published == published
        {
            shard.known.insert(id, loaded.clone());
        }
        Ok(Some(loaded))
    }

    /// The same, by somebody who looks at all conversations: what is in memory for others stays there.
    pub(super) fn look_at(
        &self,
        engine: &impl KvEngine,
        id: ConversationId,
    ) -> Result<Option<Known>, StoreError> {
        match self.peek(id) {
            Some(known) => Ok(Some(known)),
            None => load(engine, id),
        }
    }

    /// Makes a state known to readers. Only the writer calls it, after the commit.
    pub(super) fn publish(&self, id: ConversationId, known: Known) {
        if let Some(mut shard) = self.lock(id) {
            shard.published += 1;
            shard.known.insert(id, known);
        }
    }

    /// Holds the states before a failed commit for ever.
    pub(super) fn pin(&self, before: HashMap<ConversationId, Option<Known>>) {
        // A second failure cannot be: nothing is written after the first.
        let _already = self.pinned.set(before);
    }

    fn lock(&self, id: ConversationId) -> Option<MutexGuard<'_, Shard>> {
        let place = usize::from(id.as_bytes().last().copied().unwrap_or_default()) & (SHARDS - 1);
        let shard = self.shards.get(place)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn load(engine: &impl KvEngine, id: ConversationId) -> Result<Option<Known>, StoreError> {
    let key = keys::cid(id);
    let Some(head) = engine.get(tables::CONVERSATION, &key)? else {
        return Ok(None);
    };
    let settings = engine.get(tables::SETTINGS, &key)?;
    Ok(Some(Known {
        head: values::read_head(&head)?,
        settings: settings
            .map(|row| values::read_settings(&row).map(Arc::new))
            .transpose()?
            .unwrap_or_default(),
    }))
}
