//! What is checked when a store is opened.

use super::values::{self, CommitRow};
use super::watermark::Watermark;
use super::{SCHEMA, keys};
use crate::store::StoreError;
use crate::store::kv::{KvBatch, KvEngine, Table};

/// Checks what the engine holds against the schema and the watermark, and makes a first durable commit: it shows that the
/// disk takes writes, and makes durable what a killed process left in the page cache.
pub(super) fn recover(
    engine: &impl KvEngine,
    watermark: Option<&mut Watermark>,
    is_new: bool,
    accept_loss: bool,
) -> Result<CommitRow, StoreError> {
    let known = watermark.as_ref().and_then(|watermark| watermark.known());
    let mut batch = KvBatch::default();
    let found = match check(engine, known, accept_loss)? {
        Some(found) => found,
        None if is_new => {
            batch.put(Table::Meta, keys::SCHEMA, &values::write_schema(SCHEMA));
            CommitRow::default()
        }
        None => {
            return Err(StoreError::Corrupt(
                "the engine is empty, but the store was in use".to_owned(),
            ));
        }
    };
    if known.is_none() && watermark.is_some() && found.number > 0 {
        tracing::warn!("no commit watermark: whether the data is complete is not known");
    }
    let first = CommitRow {
        number: found.number + 1,
        uptime_ms: found.uptime_ms,
    };
    batch.put(Table::Meta, keys::COMMIT, &values::write_commit(first));
    engine.commit_durable(&batch)?;
    if let Some(watermark) = watermark {
        watermark
            .write(first.number)
            .map_err(|error| StoreError::Unavailable(format!("commit watermark: {error}")))?;
    }
    Ok(first)
}

/// The last commit of an engine, `None` if it is empty; compared with the schema and the watermark.
fn check(
    engine: &impl KvEngine,
    known: Option<u64>,
    accept_loss: bool,
) -> Result<Option<CommitRow>, StoreError> {
    let schema = engine.get(Table::Meta, keys::SCHEMA)?;
    let commit = engine.get(Table::Meta, keys::COMMIT)?;
    let found = match (schema, commit) {
        (Some(schema), Some(commit)) => {
            check_schema(values::read_schema(&schema)?)?;
            Some(values::read_commit(&commit)?)
        }
        (None, None) => None,
        _ => {
            return Err(StoreError::Corrupt(
                "half of the meta rows are missing".to_owned(),
            ));
        }
    };
    let number = found.map_or(0, |found| found.number);
    match known {
        Some(known) if known > number && !accept_loss => {
            return Err(StoreError::Behind {
                found: number,
                known,
            });
        }
        Some(known) if known > number => {
            tracing::error!(
                found = number,
                known,
                "acknowledged data is missing, as accepted"
            );
        }
        _ => {}
    }
    Ok(found)
}

/// The number of the last commit of an engine; checked like at a start.
#[cfg(any(feature = "fjall", feature = "sled"))]
pub(in crate::store) fn last_commit(
    engine: &impl KvEngine,
    known: Option<u64>,
    accept_loss: bool,
) -> Result<u64, StoreError> {
    check(engine, known, accept_loss)?
        .map(|row| row.number)
        .ok_or_else(|| StoreError::Corrupt("there are no meta rows".to_owned()))
}

fn check_schema(found: u32) -> Result<(), StoreError> {
    match found {
        0 => Err(StoreError::Corrupt("schema 0 was never written".to_owned())),
        found if found > SCHEMA => Err(StoreError::NewerSchema {
            found,
            known: SCHEMA,
        }),
        _ => Ok(()), // migrations from older schemas go here; there is none yet
    }
}
