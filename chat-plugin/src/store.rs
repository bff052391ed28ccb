//! Where conversations, users and devices live: a trait in verbs of the domain, and its backends.
//!
//! Every method is one round trip that a database can do natively. What returns `Ok` for a write is durable, except where
//! [`Durability::Relaxed`] says otherwise. After an I/O error a store is poisoned: it refuses every further write.
//!
//! [`open`] chooses the backend: [`embedded::EmbeddedStore`] over one of the engines. `docs/storage.md` draws the rows.

pub mod clock;
mod conversations;
mod devices;
pub mod embedded;
mod joining;
mod log;
mod marks;
mod metrics;
mod moderation;
mod options;
mod people;
mod retention;
#[cfg(test)]
mod suite;
mod tables;
mod waiting;

use std::sync::Arc;

use async_trait::async_trait;
pub use broker::store::Health;
use broker::store::kv::EngineError;
#[cfg(any(feature = "fjall", feature = "sled"))]
use broker::store::offline::OfflineError;
use proto::ids::{ConversationId, DeviceId, Seq, UserId};
use tokio_util::sync::CancellationToken;

use crate::domain::audit::AuditKeep;
use crate::domain::entry::Entry;
use crate::domain::joining::JoinRequest;
use crate::domain::member::Member;

pub use self::conversations::ConversationStore;
pub use self::devices::DeviceStore;
pub use self::joining::JoiningStore;
pub use self::log::{HIDDEN_LATELY_MAX, LogStore};
pub use self::marks::MarkStore;
pub use self::metrics::StoreMetrics;
pub use self::moderation::ModerationStore;
#[cfg(any(feature = "fjall", feature = "sled"))]
pub use self::options::engine_of;
pub use self::options::{EngineKind, StoreOptions, open, open_with_clock};
pub use self::people::PeopleStore;
pub use self::retention::RetentionStore;
pub use self::waiting::WaitingStore;

/// What the service needs of a store: the verbs of all its subjects, and what concerns all of them.
#[async_trait]
pub trait ChatStore:
    LogStore
    + ConversationStore
    + MarkStore
    + WaitingStore
    + RetentionStore
    + JoiningStore
    + ModerationStore
    + DeviceStore
    + PeopleStore
{
    /// Gives back space while others read and write: then no file holds what was removed before, or is gone. May take
    /// minutes. `false`: the engine cannot, or was held up.
    ///
    /// # Errors
    /// [`StoreError::NotNow`] if it is stopped, is going on already, or has no room.
    async fn reclaim(&self, stop: &CancellationToken) -> Result<bool, StoreError>;

    /// Tells of everything committed from now on, in the order of the commits. Called once, before the first append.
    /// The store waits while the receiver is behind by its bound; whoever reads it must not wait for a write meanwhile.
    fn feed(&self) -> tokio::sync::mpsc::Receiver<Committed>;

    /// How the store is.
    fn health(&self) -> Health;

    /// What the store measures.
    fn metrics(&self) -> Arc<StoreMetrics>;

    /// Waits until every relaxed write so far is durable.
    async fn flush(&self) -> Result<(), StoreError>;

    /// Drops idempotency keys and receipt rows whose time is over, and QoS 2 exchanges that began before `oldest_ms`: their
    /// client is not waited for any longer; and lines of the audit log. Compacts if the engine wants to. Called every hour.
    async fn maintain(
        &self,
        now_ms: u64,
        oldest_ms: u64,
        audit: AuditKeep,
    ) -> Result<(), StoreError>;

    /// Flushes, writes the commit watermark, and closes. Nothing works afterwards.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Which entries [`LogStore::page`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First place wanted.
    pub from: Seq,
    /// Last place wanted.
    pub to: Seq,
    /// Take the newest `limit` of the range instead of the oldest.
    pub newest: bool,
    /// At most so many entries.
    pub limit: usize,
    /// At most so many bytes of bodies, but one entry at least.
    pub bytes: usize,
    /// Of what happened to them, what is to be shown: all ([`Seq::MAX`]), or only edits up to this place.
    pub as_of: Seq,
}

/// Result of [`LogStore::written`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The messages.
    pub entries: Vec<Entry>,
    /// How many were looked at.
    pub looked_at: usize,
    /// The last one that was looked at; `None`: there are no more.
    pub next: Option<Seq>,
}

/// What [`MarkStore::channels_behind`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Those that have gone on.
    pub found: Vec<ConversationId>,
    /// How many were looked at.
    pub looked_at: usize,
    /// The last one that was looked at, if there may be more behind it.
    pub next: Option<ConversationId>,
}

/// An entry of a broadcast list on its way to the direct conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The list.
    pub list: ConversationId,
    /// The entry.
    pub seq: Seq,
    /// The last one whom it has reached.
    pub after: Option<UserId>,
}

/// What [`JoiningStore::ask_to_join`] takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskToJoin {
    /// Who asks, and where.
    pub request: JoinRequest,
    /// Hash of the code on which it rests, one use of which it costs.
    pub code: Option<[u8; 16]>,
    /// Requests of one conversation.
    pub limit: usize,
    /// For whom the conversation has changed.
    pub tell: Vec<UserId>,
}

/// Result of [`LogStore::place_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place.
    pub seq: Seq,
    /// Its time, in ms since 1970.
    pub ts_ms: u64,
    /// Digest of what was stored.
    pub digest: [u8; 16],
}

/// Result of [`DeviceStore::exchange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Where the message was stored.
    pub conversation: ConversationId,
    /// Its place there.
    pub place: Place,
}

/// Result of [`MarkStore::moved_over`]: when, in ms since 1970, if it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedOver {
    /// It was delivered.
    pub delivered_ms: Option<u64>,
    /// It was read.
    pub read_ms: Option<u64>,
}

/// Result of [`LogStore::count_up_to`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Countable entries.
    pub all: u64,
    /// Those of the user.
    pub own: u64,
    /// Those of others that are gone for all or hidden from the user.
    pub excluded: u64,
}

impl Counts {
    /// Those that the user has not seen, if these are the counts up to here and `read` those up to the read mark.
    pub fn unread_since(self, read: Self) -> u64 {
        let passed = |to: u64, from: u64| to.saturating_sub(from);
        passed(self.all, read.all)
            .saturating_sub(passed(self.own, read.own))
            .saturating_sub(passed(self.excluded, read.excluded))
    }
}

/// A cursor or mark that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The device has everything up to `seq`.
    Cursor {
        /// Which device.
        device: DeviceId,
        /// In which conversation.
        conversation: ConversationId,
        /// How far.
        seq: Seq,
    },
    /// Marks of a user: those of the old and new that are higher; `unread_flag` as given, if given.
    Marks {
        /// In which conversation.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
        /// Some device has everything up to here.
        delivered: Seq,
        /// Read, for all to see.
        read: Seq,
        /// Read, for the own devices.
        private_read: Seq,
        /// Shown as unread.
        unread_flag: Option<bool>,
        /// Time of the move.
        ts_ms: u64,
    },
    /// Receipts for this sender moved.
    ReceiptDue {
        /// The sender.
        user: UserId,
        /// In which conversation.
        conversation: ConversationId,
        /// When.
        ts_ms: u64,
    },
}

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    Durable,
    /// Soon: losing it means only that something is repeated.
    Relaxed,
}

/// Rows by which repeated messages are known. Weeks are those of the server's uptime, from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdPage {
    /// Week, rows, and bytes of keys and values; ascending.
    pub weeks: Vec<(u16, u64, u64)>,
    /// The last row that was looked at; `None`: there are no more.
    pub next: Option<Vec<u8>>,
}

/// What has been dropped of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroppedIds {
    /// The present week, which stays.
    pub week: u16,
    /// Rows.
    pub rows: u64,
    /// Where the next step begins; `None`: that was all.
    pub next: Option<Vec<u8>>,
}

/// What was committed in one conversation, for live delivery: a new entry, or earlier ones that have changed, or both.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Where.
    pub conversation: ConversationId,
    /// The head.
    pub head: Seq,
    /// The entry at the head. `None`: it is not new, or (a store shared between nodes) has to be read.
    pub entry: Option<Arc<Entry>>,
    /// Earlier entries as they are now: whatever was made of them before must not be handed out any more.
    pub changed: Vec<Arc<Entry>>,
    /// Members, roles or settings changed with it: what was cached of them is old.
    pub members_changed: bool,
    /// Who has blocked the sender of the entry, and never sees it.
    pub hidden_from: Option<UserId>,
    /// Who came into a channel, went or became another, as they are now: what was cached of them is old. With neither an
    /// entry nor changed ones that is all.
    pub readers: Vec<Member>,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The write may or may not have happened; nothing more is accepted. Ask again after a restart.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store takes no writes (disk budget used up).
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// What was read makes no sense.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Another process has the data directory.
    #[error("the data directory is in use by another process")]
    Locked,
    /// Written by a newer mqchat.
    #[error("the store has schema {found}, this mqchat knows up to {known}")]
    NewerSchema {
        /// In the store.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// The engine is behind the commit watermark: acknowledged data is missing.
    #[error(
        "the store ends at commit {found}, but commit {known} was acknowledged: data is missing (--accept-loss starts anyway)"
    )]
    Behind {
        /// Last commit in the engine.
        found: u64,
        /// Last commit known to have been acknowledged.
        known: u64,
    },
    /// The handle belongs to somebody, or did within the last 90 days.
    #[error("the handle is taken")]
    HandleTaken,
    /// The body of an entry is larger than the store keeps.
    #[error("a body of {bytes} bytes, the store keeps at most {max}")]
    TooLarge {
        /// Bytes of the body.
        bytes: usize,
        /// Most bytes of a body.
        max: usize,
    },
    /// A file that is not the store's cannot be written or read, or is no dump.
    #[error("{0}")]
    File(String),
    /// A store is to be made where one is.
    #[error("there is a store already")]
    Exists,
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// It was not done, or not to its end; nothing is lost by trying again later.
    #[error("{0}")]
    NotNow(String),
}

impl StoreError {
    /// Is it about what was to be read or written, and not about all writing?
    pub(crate) fn is_damage(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::ReadOnly(_))
    }
}

#[cfg(any(feature = "fjall", feature = "sled"))]
impl From<OfflineError> for StoreError {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::File(why) => Self::File(why),
            OfflineError::Exists => Self::Exists,
            OfflineError::Engine(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Io(reason) => Self::Unavailable(reason),
            EngineError::ReadOnly(reason) => Self::ReadOnly(reason),
            EngineError::NotNow(reason) => Self::NotNow(reason),
            EngineError::Locked => Self::Locked,
            EngineError::NotFound => Self::NotFound,
            EngineError::NewerSchema { found, known } => Self::NewerSchema { found, known },
            EngineError::Behind { found, known } => Self::Behind { found, known },
            EngineError::Corrupt(reason) => Self::Corrupt(reason),
            other => Self::Corrupt(other.to_string()),
        }
    }
}
