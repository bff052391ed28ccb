//! The default engine: fjall 3, a log-structured one in pure Rust.
//!
//! One keyspace per table, one batch per commit with `SyncData` (`fdatasync` of the journal before it returns).

mod journal;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use ::fjall::{
    Database, Error, Guard, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch, PersistMode,
};

use super::OpenOptions;
use super::directory::{Directory, disk_usage};
use super::kv::{EngineError, EngineStats, KeyRange, KvBatch, KvEngine, Order, Table, Visit};

const MIB: u64 = 1024 * 1024;
/// Bounds the time of reopening after a crash: 58 MB took 1 to 6 s on a busy machine.
const JOURNAL_BYTES_MAX: u64 = 128 * MIB;
/// Threads that flush and compact.
const WORKER_THREADS: usize = 2;
/// A file that every complete database has.
const VERSION_FILE: &str = "version";

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

    fn compact(&self) -> Result<(), EngineError> {
        for table in self.tables.values() {
            table.rotate_memtable_and_wait()?;
            table.major_compact()?;
        }
        Ok(())
    }
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
