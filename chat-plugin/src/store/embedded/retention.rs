//! Reads that retention needs: where something is over a limit, and which purges are under way.

use std::ops::Bound;

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, Seq};

use super::heads::Heads;
use super::{happened, keys, reads, values};
use crate::domain::purge::{Limits, Overdue, Retention};
use crate::store::{StoreError, tables};

/// Conversations that one call looks at.
const PAGE: usize = 256;

/// Places of entries that have announced a purge which is not done yet.
pub(super) fn purges_under_way(
    engine: &impl KvEngine,
    after: Option<(ConversationId, Seq)>,
    limit: usize,
) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
    let after = after.map(|(id, at)| keys::purge(false, id, at));
    let from = after.as_ref().map_or(&[0][..], |key| key);
    let range = KeyRange {
        from: Bound::Excluded(from),
        to: Bound::Excluded(&[1]),
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::PURGE, range, limit, |key, _| {
        let id = key.get(1..1 + keys::CID_BYTES).and_then(keys::read_cid);
        let id = id.ok_or_else(|| reads::bad_key(tables::PURGE))?;
        found.push((id, happened::tail_seq(key)?));
        Ok(())
    })?;
    Ok(found)
}

/// Conversations in which something is over the limits. Nothing that it reads is kept in memory: it looks at them all.
pub(super) fn overdue(
    engine: &impl KvEngine,
    heads: &Heads,
    limits: Limits,
    after: Option<ConversationId>,
) -> Result<Overdue, StoreError> {
    let table = if limits.is_none() {
        tables::LIMITED
    } else {
        tables::CONVERSATION
    };
    let after = after.map(keys::cid);
    let range = KeyRange {
        from: after
            .as_ref()
            .map_or(Bound::Unbounded, |id| Bound::Excluded(id)),
        to: Bound::Unbounded,
    };
    let mut ids = Vec::new();
    reads::visit(engine, table, range, PAGE, |key, _| {
        ids.push(keys::read_cid(key).ok_or_else(|| reads::bad_key(table))?);
        Ok(())
    })?;
    let mut overdue = Overdue {
        found: Vec::new(),
        next: ids.last().copied().filter(|_| ids.len() == PAGE),
    };
    for id in ids {
        match over(engine, heads, id, limits) {
            Ok(Some(retention)) => overdue.found.push((id, retention)),
            Ok(None) => {}
            Err(StoreError::Corrupt(reason)) => {
                tracing::error!(conversation = %id, %reason, "old messages stay");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(overdue)
}

/// What is over the limits of a conversation, if its oldest entry that retention has not passed is.
fn over(
    engine: &impl KvEngine,
    heads: &Heads,
    id: ConversationId,
    limits: Limits,
) -> Result<Option<Retention>, StoreError> {
    let Some(known) = heads.look_at(engine, id)? else {
        return Ok(None);
    };
    let Some(retention) = limits.with(&known.settings) else {
        return Ok(None);
    };
    let row = engine.get(tables::TRIMMED, &keys::cid(id))?;
    let trimmed = row.map(|row| values::read_number(tables::TRIMMED.name(), &row));
    let oldest = trimmed.transpose()?.map_or(Seq::ZERO, Seq::new).next();
    let Some(row) = engine.get(tables::MESSAGE, &keys::message(id, oldest))? else {
        return Ok(None);
    };
    let oldest = values::read_entry(id, oldest, &row)?;
    let is_over = retention.is_over(oldest.ts_ms, oldest.mseq, known.head.mseq);
    Ok(is_over.then_some(retention))
}
