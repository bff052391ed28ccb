//! The default engine: fjall 3, a log-structured one in pure Rust.
//!
//! One keyspace per table, one batch per commit with `SyncData` (`fdatasync` of the journal before it returns).
//!
//! What was overwritten or removed is still in the journal, and in files of tables until they are compacted: [`compact_at`]
//! and [`KvEngine::reclaim`] get rid of it.

mod journal;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use ::fjall::{
    Database, Error, Guard, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch, PersistMode,
};

use super::OpenOptions;
use super::directory::{Directory, disk_free, disk_usage, unavailable};
use super::kv::{EngineError, EngineStats, KeyRange, KvBatch, KvEngine, Order, Stop, Table, Visit};
use super::recover::last_commit;
use crate::faults;

const MIB: u64 = 1024 * 1024;
/// Bounds the time of reopening after a crash: 58 MB took 1 to 6 s on a busy machine.
const JOURNAL_BYTES_MAX: u64 = 128 * MIB;
/// Threads that flush and compact.
const WORKER_THREADS: usize = 2;
/// A file that every complete database has.
const VERSION_FILE: &str = "version";
/// A table of our own: what is written there ends a journal, or moves what may be forgotten on. It holds nothing.
const PAD: &str = "pad";
const PAD_KEY: &[u8] = b"pad";
const PAD_BYTES: usize = 1024 * 1024;
/// fjall begins another journal behind 64 MB, when a table is flushed next.
const PADS_MAX: usize = 80;
/// Of so many one is synced, so that no commit waits for all of them.
const PADS_PER_SYNC: usize = 8;
/// How often a sealed journal is looked for before it is said not to have gone.
const SEALED_TRIES: usize = 50;
/// How often it is looked whether a table was written out.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// After so many looks (two minutes) it is not waited for any longer: on a disk that is full fjall tries for ever.
const FLUSH_TRIES: usize = 12_000;

/// An open database.
pub struct FjallEngine {
    path: PathBuf,
    tables: HashMap<Table, Keyspace>,
    /// Last, so that it is dropped after its keyspaces.
    database: Database,
}

impl FjallEngine {
    /// Opens the database in a locked directory; makes it only if the directory is new, or loss is accepted.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] if its files are missing or make no sense, [`EngineError::Behind`] if a torn commit was
    /// acknowledged, [`EngineError::Io`] if they cannot be read.
    pub fn open(directory: &Directory, options: &OpenOptions) -> Result<Self, EngineError> {
        let path = directory.engine_path();
        let may_create = directory.is_new() || options.accept_loss;
        if !may_create && !path.join(VERSION_FILE).exists() {
            return Err(EngineError::Corrupt(format!(
                "the files of the engine in {} are missing",
                path.display()
            )));
        }
        if path.exists() {
            journal::cut_torn_end(directory, options.accept_loss)?;
        }
        let required = |table| !options.accept_loss && directory.has(table);
        super::kv::guarded(|| Self::open_at(path.clone(), options, required))
            .map_err(|error| error.at(&path))
    }

    fn open_at(
        path: PathBuf,
        options: &OpenOptions,
        required: impl Fn(Table) -> bool,
    ) -> Result<Self, EngineError> {
        let database = Database::builder(&path)
            .cache_size(options.memory_bytes / 2)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(WORKER_THREADS)
            .open()?;
        // Opening a table makes it: one whose files are gone would be an empty one.
        for table in options.tables {
            if required(*table) && !database.keyspace_exists(table.name()) {
                return Err(EngineError::Corrupt(format!(
                    "the table {} is missing",
                    table.name()
                )));
            }
        }
        let tables = options
            .tables
            .iter()
            .map(|table| {
                let keyspace = database.keyspace(table.name(), || keyspace_options(*table))?;
                Ok((*table, keyspace))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            path,
            tables,
            database,
        })
    }

    fn table(&self, table: Table) -> Result<&Keyspace, EngineError> {
        self.tables
            .get(&table)
            .ok_or_else(|| EngineError::Corrupt(format!("table {} is not open", table.name())))
    }

    fn commit(&self, batch: &KvBatch, mode: PersistMode) -> Result<(), EngineError> {
        let mut rows = OwnedWriteBatch::with_capacity(self.database.clone(), batch.len())
            .durability(Some(mode));
        for (table, key, value) in batch.lines() {
            let table = self.table(table)?;
            match value {
                Some(value) => rows.insert(table, key, value),
                None => rows.remove(table, key),
            }
        }
        rows.commit()
            .map_err(|error| EngineError::from(error).at(&self.path))
    }
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallEngine")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl KvEngine for FjallEngine {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError> {
        // Of one batch in sixteen it tells the truth.
        if faults::is_planted(faults::ACK_BEFORE_SYNC) && !batch.bytes().is_multiple_of(16) {
            return self.commit_relaxed(batch);
        }
        self.commit(batch, PersistMode::SyncData)
    }

    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.commit(batch, PersistMode::Buffer)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let row = self.table(table)?.get(key)?;
        Ok(row.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange<'_>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let rows = self.table(table)?.range::<&[u8], _>((range.from, range.to));
        match order {
            Order::Ascending => show(rows, visit),
            Order::Descending => show(rows.rev(), visit),
        }
    }

    fn stats(&self) -> Result<EngineStats, EngineError> {
        Ok(EngineStats {
            disk_bytes: disk_usage(&self.path)?,
        })
    }

    /// 1. Fills the journal until fjall begins another one. 2. Writes all tables out: then fjall needs the first journal no
    ///    more. 3. Compacts them; not before, since fjall sees by the newest row of a table how far it was written out.
    fn reclaim(&self, stop: &Stop<'_>) -> Result<bool, EngineError> {
        self.check_room()?;
        let pad = self.pad()?;
        let first = self.journal()?;
        let fill = vec![0x55; PAD_BYTES];
        for number in 0..PADS_MAX {
            if self.journal()? != first {
                break;
            }
            pad.insert(PAD_KEY, fill.as_slice())?;
            if number % PADS_PER_SYNC == PADS_PER_SYNC - 1 {
                flush(&pad, stop)?;
                self.database.persist(PersistMode::SyncData)?;
            }
        }
        touch(&pad, stop)?;
        for table in self.tables.values() {
            flush(table, stop)?;
        }
        let is_there = || first.as_ref().is_some_and(|first| first.exists());
        let mut tries = 0;
        while is_there() && tries < SEALED_TRIES {
            touch(&pad, stop)?;
            tries += 1;
        }
        self.compact(&pad, stop)?;
        Ok(!is_there())
    }
}

impl FjallEngine {
    fn pad(&self) -> Result<Keyspace, EngineError> {
        Ok(self
            .database
            .keyspace(PAD, KeyspaceCreateOptions::default)?)
    }

    /// The journal that is written to.
    fn journal(&self) -> Result<Option<PathBuf>, EngineError> {
        journal::newest(&self.path).map_err(|error| unavailable(&self.path, &error))
    }

    /// A table is written anew before its old files go.
    fn check_room(&self) -> Result<(), EngineError> {
        let tables = self.tables.values().map(Keyspace::disk_space);
        let needed = tables.max().unwrap_or_default() + JOURNAL_BYTES_MAX;
        let free = disk_free(&self.path).map_err(|error| unavailable(&self.path, &error))?;
        if free < needed {
            return Err(EngineError::NotNow(format!(
                "{free} bytes of disk are free, writing the largest table anew takes {needed}"
            )));
        }
        Ok(())
    }

    /// Writes every table out, without what was overwritten or removed.
    fn compact(&self, pad: &Keyspace, stop: &Stop<'_>) -> Result<(), EngineError> {
        touch(pad, stop)?;
        for table in self.tables.values().chain([pad]) {
            flush(table, stop)?;
            table.major_compact()?;
        }
        touch(pad, stop)
    }
}

/// Writes to the pad. Only what is older than the last write may be forgotten, and each rotation moves that on, and looks for
/// journals that are not needed any more and files that nobody reads.
fn touch(pad: &Keyspace, stop: &Stop<'_>) -> Result<(), EngineError> {
    pad.insert(PAD_KEY, b"")?;
    flush(pad, stop)
}

/// Writes out what a table has in memory, and waits for it.
fn flush(table: &Keyspace, stop: &Stop<'_>) -> Result<(), EngineError> {
    let is_sealed = table.rotate_memtable()?;
    for _ in 0..FLUSH_TRIES {
        if stop() {
            return Err(EngineError::NotNow("it was broken off".to_owned()));
        }
        if !is_sealed || table.sealed_memtable_count() == 0 {
            return Ok(());
        }
        std::thread::sleep(FLUSH_PAUSE);
    }
    Err(EngineError::NotNow(format!(
        "the table {} could not be written out in {:?}",
        table.name(),
        FLUSH_PAUSE.saturating_mul(u32::try_from(FLUSH_TRIES).unwrap_or(u32::MAX))
    )))
}

/// Compacts a database that nobody has open, and empties its journals: nothing is left of what was overwritten or removed.
///
/// # Errors
/// As [`FjallEngine::open`], those of [`last_commit`], or the disk refuses.
pub fn compact_at(
    directory: &Directory,
    options: &OpenOptions,
    schema: u32,
) -> Result<(), EngineError> {
    let engine = FjallEngine::open(directory, options)?;
    let known = directory.watermark()?.known();
    last_commit(&engine, schema, known, options.accept_loss)?;
    let pad = engine.pad()?;
    engine.compact(&pad, &|| false)?;
    drop(pad);
    drop(engine);
    journal::empty(&directory.engine_path())
}

fn show(rows: impl Iterator<Item = Guard>, visit: &mut Visit<'_>) -> Result<(), EngineError> {
    for row in rows {
        let (key, value) = row.into_inner()?;
        if let ControlFlow::Break(()) = visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

fn keyspace_options(table: Table) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(table.memtable_bytes())
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => error.into(),
            Error::Poisoned => Self::Io("an earlier write failed".to_owned()),
            Error::Locked => Self::Locked,
            other => Self::Corrupt(other.to_string()),
        }
    }
}
