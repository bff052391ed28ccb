//! What an embedded engine provides: atomic writes over ordered tables, reads, and nothing of chat.
//!
//! Only the writer thread of [`super::embedded::EmbeddedStore`] writes; any thread reads. The rows are drawn in
//! `docs/storage.md`.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// A table. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Schema and commit number.
    Meta = 0x00,
    /// Entries.
    Message = 0x10,
    /// Keys of idempotency, by week.
    Idempotency = 0x11,
    /// Heads of conversations.
    Conversation = 0x12,
    /// Settings of conversations.
    Settings = 0x13,
    /// Members with their intervals.
    Member = 0x14,
    /// Watermarks of members.
    Marks = 0x15,
    /// Conversations of a user.
    UserConversation = 0x16,
    /// Cumulative number of own countable entries.
    Own = 0x17,
    /// Cursors of devices.
    Cursor = 0x18,
    /// Conversations with receipts for a user.
    ReceiptDue = 0x19,
    /// Devices.
    Device = 0x1A,
    /// Unacknowledged deliveries of devices.
    Inflight = 0x1B,
    /// QoS 2 exchanges.
    Exchange = 0x1C,
    /// Users.
    User = 0x1D,
    /// Users by handle.
    Handle = 0x1E,
    /// Tokens by hash.
    Token = 0x1F,
    /// Tokens by user.
    UserToken = 0x20,
}

impl Table {
    /// All tables, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Meta,
        Self::Message,
        Self::Idempotency,
        Self::Conversation,
        Self::Settings,
        Self::Member,
        Self::Marks,
        Self::UserConversation,
        Self::Own,
        Self::Cursor,
        Self::ReceiptDue,
        Self::Device,
        Self::Inflight,
        Self::Exchange,
        Self::User,
        Self::Handle,
        Self::Token,
        Self::UserToken,
    ];

    /// The number at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The table of a number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.to_byte() == byte)
    }

    /// Its place in [`Table::ALL`].
    pub const fn index(self) -> usize {
        match self.to_byte() {
            0 => 0,
            byte => (byte - 0x0F) as usize,
        }
    }

    /// Its name, for engines whose tables have names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Message => "message",
            Self::Idempotency => "idempotency",
            Self::Conversation => "conversation",
            Self::Settings => "settings",
            Self::Member => "member",
            Self::Marks => "marks",
            Self::UserConversation => "user_conversation",
            Self::Own => "own",
            Self::Cursor => "cursor",
            Self::ReceiptDue => "receipt_due",
            Self::Device => "device",
            Self::Inflight => "inflight",
            Self::Exchange => "exchange",
            Self::User => "user",
            Self::Handle => "handle",
            Self::Token => "token",
            Self::UserToken => "user_token",
        }
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

/// Why an engine did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The operating system, or the engine after such an error, refused.
    #[error("{0}")]
    Io(String),
    /// What was read makes no sense.
    #[error("{0}")]
    Corrupt(String),
    /// Another process has the engine's files.
    #[error("the engine's files are in use by another process")]
    Locked,
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

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

    /// Gives back what space it can. May take minutes; only called while nobody else uses the engine.
    ///
    /// # Errors
    /// If the disk refuses.
    fn compact(&self) -> Result<(), EngineError>;
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

    fn compact(&self) -> Result<(), EngineError> {
        (**self).compact()
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

/// The buffer of a batch shrinks to this after an extraordinary commit.
const BUFFER_BYTES_KEPT: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_know_their_places() {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table.index(), index);
            assert_eq!(Table::from_byte(table.to_byte()), Some(table));
        }
        assert_eq!(Table::from_byte(0x0F), None);
    }

    #[test]
    fn batch_gives_back_what_was_put_in() {
        let mut batch = KvBatch::default();
        batch.put(Table::User, b"k", b"value");
        batch.remove(Table::Handle, b"gone");
        batch.put(Table::User, b"empty", b"");
        let lines: Vec<_> = batch.lines().collect();
        assert_eq!(
            lines,
            [
                (Table::User, &b"k"[..], Some(&b"value"[..])),
                (Table::Handle, &b"gone"[..], None),
                (Table::User, &b"empty"[..], Some(&b""[..])),
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
