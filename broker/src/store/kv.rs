//! What an embedded engine provides: atomic writes over ordered tables, reads, and no idea of what the rows mean.
//!
//! Only the writer thread of a store writes; any thread reads. The rows are drawn in `docs/storage.md`.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

/// A table: the number and the name that it has at rest.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    byte: u8,
    name: &'static str,
    memtable_bytes: u64,
}

impl Table {
    /// A table of ordinary size.
    pub const fn new(byte: u8, name: &'static str) -> Self {
        Self {
            byte,
            name,
            memtable_bytes: SMALL_MEMTABLE_BYTES,
        }
    }

    /// A table that takes most of what is written.
    pub const fn large(byte: u8, name: &'static str) -> Self {
        Self {
            byte,
            name,
            memtable_bytes: LARGE_MEMTABLE_BYTES,
        }
    }

    /// The number at rest.
    pub const fn to_byte(self) -> u8 {
        self.byte
    }

    /// Its name, for engines whose tables have names.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Rows that an engine may gather in memory before it sorts them into files.
    pub const fn memtable_bytes(self) -> u64 {
        self.memtable_bytes
    }
}

// Tables are told apart by their numbers.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.byte == other.byte
    }
}

impl Eq for Table {}

impl std::hash::Hash for Table {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.byte.hash(state);
    }
}

/// Rows to be written and removed in one atomic step. Later lines win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct KvBatch {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

/// One row of a [`KvBatch`]: the key stands before the value in `bytes`.
#[derive(Clone, Copy, Debug)]
struct Line {
    table: Table,
    start: usize,
    key_end: usize,
    end: usize,
    removes: bool,
}

impl KvBatch {
    /// Writes a row.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.put_with(table, key, |bytes| bytes.extend_from_slice(value));
    }

    /// Writes a row whose value is appended to the batch's own buffer by `value`.
    pub fn put_with(&mut self, table: Table, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        value(&mut self.bytes);
        self.lines.push(Line {
            table,
            start,
            key_end,
            end: self.bytes.len(),
            removes: false,
        });
    }

    /// Removes a row.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let end = self.bytes.len();
        self.lines.push(Line {
            table,
            start,
            key_end: end,
            end,
            removes: true,
        });
    }

    /// The lines in order: table, key, value or `None` for a removal.
    pub fn lines(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.lines.iter().map(|line| {
            let key = self.bytes.get(line.start..line.key_end).unwrap_or_default();
            let value = self.bytes.get(line.key_end..line.end).unwrap_or_default();
            (line.table, key, (!line.removes).then_some(value))
        })
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// No line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the lines, keeps a buffer of ordinary size.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.lines.clear();
    }
}

/// A stretch of keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyRange<'a> {
    /// Where it begins.
    pub from: Bound<&'a [u8]>,
    /// Where it ends.
    pub to: Bound<&'a [u8]>,
}

impl<'a> KeyRange<'a> {
    /// Every key.
    pub const ALL: Self = Self {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
    };

    /// From `from` to `to`, both included.
    pub const fn closed(from: &'a [u8], to: &'a [u8]) -> Self {
        Self {
            from: Bound::Included(from),
            to: Bound::Included(to),
        }
    }

    /// Keys after `after` that are before `end`.
    pub const fn between(after: &'a [u8], end: &'a [u8]) -> Self {
        Self {
            from: Bound::Excluded(after),
            to: Bound::Excluded(end),
        }
    }

    /// No key can be in it. Ordered maps panic on such ranges, so engines ask first.
    pub fn is_empty(&self) -> bool {
        let (Bound::Included(from) | Bound::Excluded(from)) = self.from else {
            return false;
        };
        match (self.from, self.to) {
            (_, Bound::Unbounded) => false,
            (Bound::Included(_), Bound::Included(to)) => from > to,
            (_, Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        }
    }
}

/// In which order a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From low keys to high ones.
    Ascending,
    /// From high keys to low ones.
    Descending,
}

/// What a scan calls for each key and value; it stops at [`ControlFlow::Break`].
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// How an engine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// What its files occupy on the disk; 0 if it has none.
    pub disk_bytes: u64,
}

/// How far a [`KvEngine::delete_range`] got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows removed.
    pub removed: usize,
    /// The last key removed, if there may be more behind it.
    pub more_after: Option<Vec<u8>>,
}

/// Why an engine, or a store on it, did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The operating system, or the engine after such an error, refused.
    #[error("{0}")]
    Io(String),
    /// What was read makes no sense.
    #[error("{0}")]
    Corrupt(String),
    /// Another process has the files.
    #[error("the files are in use by another process")]
    Locked,
    /// There is no store.
    #[error("not found")]
    NotFound,
    /// Nothing that needs room is taken.
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// It was not done, or not to its end; nothing is lost by trying again later.
    #[error("{0}")]
    NotNow(String),
    /// Written by a newer program.
    #[error("the store has schema {found}, this program knows up to {known}")]
    NewerSchema {
        /// In the store.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// The engine is behind the commit watermark: acknowledged data is missing.
    #[error(
        "the store ends at commit {found}, but commit {known} was acknowledged: data is missing"
    )]
    Behind {
        /// Last commit in the engine.
        found: u64,
        /// Last commit known to have been acknowledged.
        known: u64,
    },
}

impl EngineError {
    /// With the files that it is about.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        let located = |reason: String| format!("{}: {reason}", path.display());
        match self {
            Self::Io(reason) => Self::Io(located(reason)),
            Self::Corrupt(reason) => Self::Corrupt(located(reason)),
            other => other,
        }
    }
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Says whether long work is to break off.
pub type Stop<'a> = dyn Fn() -> bool + 'a;

/// An embedded engine: ordered tables, one writer, many readers.
pub trait KvEngine: Send + Sync + 'static {
    /// Its name in the configuration and in the store's directory.
    fn name(&self) -> &'static str;

    /// Reads never wait for a disk, so they need no thread for blocking work.
    fn reads_in_memory(&self) -> bool {
        false
    }

    /// Writes all lines atomically, over all tables. Whoever reads afterwards sees them; they are durable, together with
    /// every earlier relaxed commit, when this returns.
    ///
    /// # Errors
    /// Whatever went wrong: nobody knows then what is on the disk, and the caller must write nothing more.
    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError>;

    /// Writes all lines atomically; they are durable with the next durable commit.
    ///
    /// # Errors
    /// As [`KvEngine::commit_durable`].
    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError>;

    /// The value of a key.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Shows rows to `visit`, in order, until it breaks off. Rows committed meanwhile may be seen or not.
    ///
    /// # Errors
    /// If a row cannot be read.
    fn scan(
        &self,
        table: Table,
        range: KeyRange<'_>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError>;

    /// Removes at most `limit` rows of a range, lowest keys first, relaxed.
    ///
    /// # Errors
    /// As [`KvEngine::commit_durable`].
    fn delete_range(
        &self,
        table: Table,
        range: KeyRange<'_>,
        limit: usize,
    ) -> Result<Progress, EngineError> {
        let mut batch = KvBatch::default();
        let mut last = None;
        self.scan(table, range, Order::Ascending, &mut |key, _| {
            batch.remove(table, key);
            if batch.len() < limit {
                return ControlFlow::Continue(());
            }
            last = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        if !batch.is_empty() {
            self.commit_relaxed(&batch)?;
        }
        Ok(Progress {
            removed: batch.len(),
            more_after: last,
        })
    }

    /// How it stands.
    ///
    /// # Errors
    /// If its files cannot be looked at.
    fn stats(&self) -> Result<EngineStats, EngineError>;

    /// Gives back space while others read and write: then no file holds what was overwritten or removed before. May take
    /// minutes. `false`: this engine cannot, or something held it up; nothing is lost by trying again.
    ///
    /// # Errors
    /// [`EngineError::NotNow`] if `stop` says so, or there is no room for it; or the disk refuses.
    fn reclaim(&self, stop: &Stop<'_>) -> Result<bool, EngineError>;
}

impl<K: KvEngine> KvEngine for Arc<K> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn reads_in_memory(&self) -> bool {
        (**self).reads_in_memory()
    }

    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError> {
        (**self).commit_durable(batch)
    }

    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError> {
        (**self).commit_relaxed(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        (**self).get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange<'_>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        (**self).scan(table, range, order, visit)
    }

    fn stats(&self) -> Result<EngineStats, EngineError> {
        (**self).stats()
    }

    fn reclaim(&self, stop: &Stop<'_>) -> Result<bool, EngineError> {
        (**self).reclaim(stop)
    }
}

/// Runs the opening of an engine. Engines panic on some kinds of damage; that becomes an error here.
#[cfg(any(feature = "fjall", feature = "sled"))]
pub(super) fn guarded<T>(open: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    // What the closure leaves behind when it panics is dropped with it, and never looked at.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown reason");
        Err(EngineError::Corrupt(format!(
            "the engine panicked while it was opened: {reason}"
        )))
    })
}

/// Of a table that takes most of what is written.
const LARGE_MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;
/// Of every other table.
const SMALL_MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// The buffer of a batch shrinks to this after an extraordinary commit.
const BUFFER_BYTES_KEPT: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Table = Table::new(1, "one");
    const TWO: Table = Table::new(2, "two");

    #[test]
    fn batch_gives_back_what_was_put_in() {
        let mut batch = KvBatch::default();
        batch.put(ONE, b"k", b"value");
        batch.remove(TWO, b"gone");
        batch.put(ONE, b"empty", b"");
        let lines: Vec<_> = batch.lines().collect();
        assert_eq!(
            lines,
            [
                (ONE, &b"k"[..], Some(&b"value"[..])),
                (TWO, &b"gone"[..], None),
                (ONE, &b"empty"[..], Some(&b""[..])),
            ]
        );
    }

    #[test]
    fn empty_ranges_are_known_as_such() {
        assert!(KeyRange::closed(b"b", b"a").is_empty());
        assert!(!KeyRange::closed(b"a", b"a").is_empty());
        assert!(KeyRange::between(b"a", b"a").is_empty());
        assert!(!KeyRange::between(b"a", b"b").is_empty());
        assert!(!KeyRange::ALL.is_empty());
    }
}
