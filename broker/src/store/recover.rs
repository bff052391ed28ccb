//! What is checked when a store is opened.

use super::kv::{EngineError, KvBatch, KvEngine, Table};
use super::watermark::Watermark;

/// Schema and commit number: the table that every store has.
pub const META: Table = Table::new(0x00, "meta");
const SCHEMA_KEY: &[u8] = b"schema";
/// The key of a [`CommitRow`].
pub(super) const COMMIT_KEY: &[u8] = b"commit";
/// The format byte of the meta rows.
const FORMAT: u8 = 1;

/// The number of the last commit, and the time saved with it, by whichever clock the store goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitRow {
    /// 1, 2, 3, …
    pub number: u64,
    /// In ms.
    pub clock_ms: u64,
}

impl CommitRow {
    /// Adds the row to a commit.
    pub fn put(self, batch: &mut KvBatch) {
        batch.put_with(META, COMMIT_KEY, |out| {
            out.push(FORMAT);
            out.extend_from_slice(&self.number.to_be_bytes());
            out.extend_from_slice(&self.clock_ms.to_be_bytes());
        });
    }

    pub(super) fn read(value: &[u8]) -> Result<Self, EngineError> {
        let fields = |value: &[u8]| {
            let (number, rest) = value.strip_prefix(&[FORMAT])?.split_first_chunk()?;
            Some(Self {
                number: u64::from_be_bytes(*number),
                clock_ms: u64::from_be_bytes(rest.try_into().ok()?),
            })
        };
        fields(value).ok_or_else(|| EngineError::Corrupt("a bad commit row".to_owned()))
    }
}

/// Checks what the engine holds against the schema and the watermark, and makes a first durable commit: it shows that the
/// disk takes writes, and makes durable what a killed process left in the page cache.
///
/// # Errors
/// [`EngineError::NewerSchema`], [`EngineError::Behind`] or [`EngineError::Corrupt`] if the engine does not hold what it
/// should; [`EngineError::Io`] if the disk refuses.
pub fn recover(
    engine: &impl KvEngine,
    schema: u32,
    watermark: Option<&mut Watermark>,
    is_new: bool,
    accept_loss: bool,
) -> Result<CommitRow, EngineError> {
    let known = watermark.as_ref().and_then(|watermark| watermark.known());
    let mut batch = KvBatch::default();
    let found = match check(engine, schema, known, accept_loss)? {
        Some(found) => found,
        None if is_new => {
            let [a, b, c, d] = schema.to_be_bytes();
            batch.put(META, SCHEMA_KEY, &[FORMAT, a, b, c, d]);
            CommitRow::default()
        }
        None => {
            return Err(EngineError::Corrupt(
                "the engine is empty, but the store was in use".to_owned(),
            ));
        }
    };
    if known.is_none() && watermark.is_some() && found.number > 0 {
        tracing::warn!("no commit watermark: whether the data is complete is not known");
    }
    let first = CommitRow {
        number: found.number + 1,
        clock_ms: found.clock_ms,
    };
    first.put(&mut batch);
    engine.commit_durable(&batch)?;
    if let Some(watermark) = watermark {
        watermark
            .write(first.number)
            .map_err(|error| EngineError::Io(format!("commit watermark: {error}")))?;
    }
    Ok(first)
}

/// The last commit of an engine, `None` if it is empty; compared with the schema and the watermark.
fn check(
    engine: &impl KvEngine,
    schema: u32,
    known: Option<u64>,
    accept_loss: bool,
) -> Result<Option<CommitRow>, EngineError> {
    let written = engine.get(META, SCHEMA_KEY)?;
    let commit = engine.get(META, COMMIT_KEY)?;
    let found = match (written, commit) {
        (Some(written), Some(commit)) => {
            check_schema(&written, schema)?;
            Some(CommitRow::read(&commit)?)
        }
        (None, None) => None,
        _ => {
            return Err(EngineError::Corrupt(
                "half of the meta rows are missing".to_owned(),
            ));
        }
    };
    let number = found.map_or(0, |found| found.number);
    match known {
        Some(known) if known > number && !accept_loss => {
            return Err(EngineError::Behind {
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
///
/// # Errors
/// As [`recover`].
pub fn last_commit(
    engine: &impl KvEngine,
    schema: u32,
    known: Option<u64>,
    accept_loss: bool,
) -> Result<u64, EngineError> {
    check(engine, schema, known, accept_loss)?
        .map(|row| row.number)
        .ok_or_else(|| EngineError::Corrupt("there are no meta rows".to_owned()))
}

fn check_schema(value: &[u8], known: u32) -> Result<(), EngineError> {
    let bytes = value.strip_prefix(&[FORMAT]).map(<[u8; 4]>::try_from);
    match bytes {
        Some(Ok(bytes)) if bytes != [0; 4] => {
            let found = u32::from_be_bytes(bytes);
            // Migrations from older schemas go here; there is none yet.
            if found > known {
                return Err(EngineError::NewerSchema { found, known });
            }
            Ok(())
        }
        _ => Err(EngineError::Corrupt("a bad schema row".to_owned())),
    }
}
