//! The engine for small sites: sled 0.34.7, one tree, every key with the byte of its table before it.
//!
//! sled's own `flush` is `sync_file_range` on Linux, which is not durable: a power cut lost acknowledged messages in three
//! tests of three. A durable commit is therefore `apply_batch` → `flush` → `fdatasync` of sled's `db` file.
//!
//! 1. sled shows a batch to readers before it is durable; here readers wait until it is.
//! 2. A process killed while sled wrote a snapshot leaves a `snap.*.generating` that it cannot open again: removed before.
//! 3. A damaged snapshot is not needed, sled rebuilds from its log: on corruption they are moved aside, once.
//! 4. Nodes that do not fit into a quarter of a segment become files of their own, which sled does not sync. Segments are
//!    so large that it does not come to that; if it does, those files are synced as well.

use std::fs::File;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ::sled::{Batch, Config, Db, Error, IVec};

use super::OpenOptions;
use super::directory::{Directory, disk_usage, sync_directory, unavailable};
use super::kv::{EngineError, EngineStats, KeyRange, KvBatch, KvEngine, Order, Stop, Table, Visit};

/// A node has at most 17 rows when it is split; 17 of the largest fit into a quarter of this.
const SEGMENT_BYTES: usize = 16 * 1024 * 1024;
/// sled cleans up and takes snapshots in this rhythm.
const FLUSH_EVERY_MS: u64 = 500;
/// sled uses two to three times what it is told.
const CACHE_SHARE: u64 = 3;
/// How often sled's own lock is tried, and the pause between.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The file that holds everything.
const DB_FILE: &str = "db";
/// What sled wrote about it when it was made.
const CONF_FILE: &str = "conf";
/// Where sled puts nodes that do not fit.
const BLOBS: &str = "blobs";
/// Where damaged snapshots go.
const ASIDE: &str = "snapshots-aside";

/// An open database.
#[derive(Debug)]
pub struct SledEngine {
    path: PathBuf,
    db: Db,
    /// Opened at start, so that errors of writing back are reported to it.
    file: File,
    /// Held while a batch is visible and not durable.
    gate: RwLock<()>,
}

impl SledEngine {
    /// Opens the database in a locked directory; makes it only if the directory is new, or loss is accepted.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] if its files are missing or make no sense, [`EngineError::Io`] if they cannot be read.
    pub fn open(directory: &Directory, options: &OpenOptions) -> Result<Self, EngineError> {
        let path = directory.engine_path();
        finish_compaction(&path)?;
        let may_create = directory.is_new() || options.accept_loss;
        let is_there = |name| path.join(name).metadata().is_ok_and(|file| file.len() > 0);
        let is_whole = is_there(DB_FILE) && is_there(CONF_FILE);
        if !may_create && !is_whole {
            return Err(EngineError::Corrupt(format!(
                "the files of the engine in {} are missing",
                path.display()
            )));
        }
        remove_unfinished_snapshots(&path)?;
        let cache_bytes = options.memory_bytes / CACHE_SHARE;
        match open_at(&path, cache_bytes) {
            Err(EngineError::Corrupt(reason)) if move_snapshots_aside(&path)? => {
                tracing::warn!(%reason, path = %path.display(), "sled could not be opened; trying again without its snapshots");
                open_at(&path, cache_bytes)
            }
            other => other,
        }
    }

    /// Syncs the files of nodes that did not fit. There are none, as a rule.
    fn sync_blobs(&self) -> Result<(), EngineError> {
        let path = self.path.join(BLOBS);
        let mut has_blobs = false;
        for file in std::fs::read_dir(&path)? {
            match File::open(file?.path()) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            has_blobs = true;
        }
        if has_blobs {
            File::open(&path)?.sync_all()?;
        }
        Ok(())
    }
}

impl KvEngine for SledEngine {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.db.apply_batch(to_sled(batch))?;
        self.db.flush()?;
        self.sync_blobs()?;
        self.file.sync_data()?;
        Ok(())
    }

    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.db.apply_batch(to_sled(batch))?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let row = self.db.get(prefixed(table, key))?;
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
        let from = match range.from {
            Bound::Included(key) => Bound::Included(prefixed(table, key)),
            Bound::Excluded(key) => Bound::Excluded(prefixed(table, key)),
            Bound::Unbounded => Bound::Included(vec![table.to_byte()]),
        };
        let to = match range.to {
            Bound::Included(key) => Bound::Included(prefixed(table, key)),
            Bound::Excluded(key) => Bound::Excluded(prefixed(table, key)),
            Bound::Unbounded => Bound::Excluded(vec![table.to_byte() + 1]),
        };
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let rows = self.db.range((from, to));
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

    /// sled cannot give space back in place; see [`compact_at`].
    fn reclaim(&self, _stop: &Stop<'_>) -> Result<bool, EngineError> {
        Ok(false)
    }
}

/// Copies a database that nobody has open into a new one, and puts that in its place. Each step can be cut off: the next
/// opening finishes or undoes it.
///
/// # Errors
/// As [`SledEngine::open`]; the old database is then still there.
pub fn compact_at(directory: &Directory, options: &OpenOptions) -> Result<(), EngineError> {
    let path = directory.engine_path();
    let engine = SledEngine::open(directory, options)?;
    let (new, old) = (beside(&path, "compact"), beside(&path, "old"));
    let copy = open_at(&new, options.memory_bytes / CACHE_SHARE)?;
    super::bulk::copy(&engine, &copy, options.tables)?;
    drop(copy);
    drop(engine);
    sync_directory(&new)?;
    rename(&path, &old)?;
    rename(&new, &path)?;
    remove(&old)?;
    // They hold what was deleted since.
    let aside = path.with_file_name(ASIDE);
    if aside.exists() {
        remove(&aside)?;
    }
    Ok(())
}

/// Finishes or undoes what [`compact_at`] had begun.
fn finish_compaction(path: &Path) -> Result<(), EngineError> {
    let (new, old) = (beside(path, "compact"), beside(path, "old"));
    if old.exists() {
        if path.exists() {
            remove(&old)?;
        } else {
            rename(&old, path)?;
        }
    }
    if new.exists() {
        remove(&new)?;
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    path.with_extension(suffix)
}

fn rename(from: &Path, to: &Path) -> Result<(), EngineError> {
    std::fs::rename(from, to).map_err(|error| unavailable(from, &error))?;
    from.parent().map_or(Ok(()), sync_directory)
}

fn remove(path: &Path) -> Result<(), EngineError> {
    std::fs::remove_dir_all(path).map_err(|error| unavailable(path, &error))
}

fn open_at(path: &Path, cache_bytes: u64) -> Result<SledEngine, EngineError> {
    super::kv::guarded(|| {
        let config = Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let db = open_unlocked(&config)?;
        // sled never syncs its `conf`; without it, it takes the log for an empty one.
        File::open(path.join(CONF_FILE))?.sync_all()?;
        let file = File::open(path.join(DB_FILE))?;
        file.sync_all()?;
        File::open(path)?.sync_all()?;
        Ok(SledEngine {
            path: path.to_owned(),
            db,
            file,
            gate: RwLock::new(()),
        })
    })
}

/// Opens the database, and waits for the threads of an earlier instance in this process, which outlive it by a moment. No
/// other process can have it: we hold the lock of the directory.
fn open_unlocked(config: &Config) -> Result<Db, EngineError> {
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCK_PAUSE);
            }
            other => return Ok(other?),
        }
    }
    Err(EngineError::Locked)
}

/// The snapshot files of a database; all, or the unfinished ones.
fn snapshots(path: &Path, suffix: &str) -> Result<Vec<PathBuf>, EngineError> {
    let io = |error: std::io::Error| unavailable(path, &error);
    let mut found = Vec::new();
    if !path.exists() {
        return Ok(found);
    }
    for file in std::fs::read_dir(path).map_err(io)? {
        let file = file.map_err(io)?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(suffix) {
            found.push(file.path());
        }
    }
    Ok(found)
}

fn remove_unfinished_snapshots(path: &Path) -> Result<(), EngineError> {
    for snapshot in snapshots(path, ".generating")? {
        tracing::warn!(path = %snapshot.display(), "removing an unfinished snapshot of sled");
        std::fs::remove_file(&snapshot).map_err(|error| unavailable(&snapshot, &error))?;
    }
    Ok(())
}

/// Says whether there was any.
fn move_snapshots_aside(path: &Path) -> Result<bool, EngineError> {
    let found = snapshots(path, "")?;
    let aside = path.with_file_name(ASIDE);
    for snapshot in &found {
        std::fs::create_dir_all(&aside).map_err(|error| unavailable(&aside, &error))?;
        let name = snapshot.file_name().unwrap_or_default();
        std::fs::rename(snapshot, aside.join(name))
            .map_err(|error| unavailable(snapshot, &error))?;
    }
    Ok(!found.is_empty())
}

fn to_sled(batch: &KvBatch) -> Batch {
    let mut rows = Batch::default();
    for (table, key, value) in batch.lines() {
        let key = prefixed(table, key);
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(key),
        }
    }
    rows
}

fn prefixed(table: Table, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(table.to_byte());
    bytes.extend_from_slice(key);
    bytes
}

fn show(
    rows: impl Iterator<Item = Result<(IVec, IVec), Error>>,
    visit: &mut Visit<'_>,
) -> Result<(), EngineError> {
    for row in rows {
        let (key, value) = row?;
        let key = key.get(1..).unwrap_or_default();
        if let ControlFlow::Break(()) = visit(key, &value) {
            break;
        }
    }
    Ok(())
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error.into(),
            other => Self::Corrupt(other.to_string()),
        }
    }
}
