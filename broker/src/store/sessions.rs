//! Sessions at rest: subscriptions, queued messages, exchanges in progress, retained messages and wills.
//!
//! Everything is in memory while the broker runs; what is here is read once, at the start. Changes come by the
//! journal, and one thread writes them: it takes what waits, commits it at once with one fsync, and tells who waited
//! (`writer`). After an error nothing is written any more. `docs/storage.md` draws the rows.

mod embedded;
mod load;
mod rows;
mod sent;
#[cfg(test)]
mod suite;
mod writer;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytestring::ByteString;

use self::embedded::EmbeddedSessions;
use self::rows::Wall;
use self::writer::Writer;
#[cfg(any(feature = "fjall", feature = "sled"))]
use super::OpenOptions;
use super::budget::{Budget, DiskGuard};
use super::condition::Condition;
#[cfg(any(feature = "fjall", feature = "sled"))]
use super::directory::{Directory, Format};
use super::kv::EngineError;
use super::memory::MemoryEngine;
#[cfg(any(feature = "fjall", feature = "sled"))]
use super::offline::Place;
use super::{EngineKind, Health};
use crate::clock;
use crate::codec::packet::PacketId;
use crate::journal::{Change, Journal, SubscriptionRow};
use crate::metrics::Commits;
use crate::registry::PendingWill;
use crate::router::Message;
use crate::session::Content;
use crate::session::queue::Queued;

/// How to open the sessions at rest.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// What keeps them.
    pub engine: EngineKind,
    /// A directory of their own; made if it does not exist. Not used by `memory`.
    pub directory: PathBuf,
    /// Memory for caches, in bytes. They are read at the start only: little is enough.
    pub memory_bytes: u64,
    /// No further messages are kept when the files occupy so many bytes of disk; 0: no limit.
    pub disk_bytes_max: u64,
    /// Start although acknowledged data is missing.
    pub accept_loss: bool,
}

impl SessionOptions {
    /// The sessions on the disk, to be dumped, loaded and compacted while nobody has them open.
    #[cfg(any(feature = "fjall", feature = "sled"))]
    pub fn place(&self) -> Place {
        Place {
            engine: self.engine,
            directory: self.directory.clone(),
            format: FORMAT,
            schema: embedded::SCHEMA,
            options: for_engine(self),
            title: "mqtt sessions dump 1\n",
        }
    }
}

/// Open sessions at rest, to be given to a [`crate::Broker`]. Dropped, they are closed.
#[derive(Debug)]
pub struct Sessions {
    journal: Arc<Journal>,
    condition: Arc<Condition>,
    commits: Arc<Commits>,
    found: Option<Found>,
    writer: Option<JoinHandle<()>>,
}

/// Tells how the sessions at rest are.
#[derive(Clone, Debug)]
pub struct SessionsHealth(Arc<Condition>);

impl SessionsHealth {
    /// Now.
    pub fn health(&self) -> Health {
        self.0.health()
    }
}

/// Where sessions are at rest.
trait SessionStore: Send {
    /// Everything that is there. Called once, before the first commit; what makes no sense any more is removed.
    fn load(&mut self, now: Instant) -> Result<Found, EngineError>;

    /// Makes changes durable, all or none. They come in their order; nothing is written for what cancels itself out. Under
    /// which identifier a message at QoS 1 was sent may be held back for a moment.
    fn commit(&mut self, changes: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError>;

    /// Is something held back, so that a commit is due soon?
    fn holds_back(&self) -> bool;

    /// Makes durable what is held back, too, before the end.
    fn finish(&mut self) -> Result<(), EngineError>;

    /// Notes that the broker is alive, and how far it has come: called now and then.
    fn beat(&mut self) -> Result<(), EngineError>;

    /// How the disk budget stands.
    fn budget(&mut self, guard: &mut DiskGuard) -> Result<Budget, EngineError>;
}

/// What was at rest.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) sessions: Vec<FoundSession>,
    pub(crate) retained: Vec<Message>,
    /// The highest number of a session.
    pub(crate) last_session: u64,
    /// The highest number of a message or a subscription.
    pub(crate) last_number: u64,
}

/// A session that was at rest. Its client is away.
#[derive(Debug)]
pub(crate) struct FoundSession {
    pub(crate) number: u64,
    pub(crate) user: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) client_id: ByteString,
    pub(crate) expires_at: Instant,
    pub(crate) will: Option<Box<PendingWill>>,
    pub(crate) subscriptions: Vec<SubscriptionRow>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) next_place: u64,
    pub(crate) inflight: Vec<(PacketId, Content)>,
    pub(crate) received: Vec<PacketId>,
}

/// How the directory is known.
#[cfg(any(feature = "fjall", feature = "sled"))]
const FORMAT: Format = Format {
    marker: "SESSIONS",
    title: "mqtt sessions 1",
    watermark: *b"sessions",
};

/// Opens the sessions at rest, and reads them.
///
/// # Errors
/// [`EngineError::Locked`] if another process has them, [`EngineError::Behind`] if acknowledged data is missing,
/// [`EngineError::NewerSchema`], [`EngineError::Corrupt`] if the directory holds something else or makes no sense,
/// [`EngineError::Io`] if the disk refuses, or this program was built without the engine.
pub fn open(options: &SessionOptions) -> Result<Sessions, EngineError> {
    let wall = Wall::new(clock::now(), clock::wall_ms());
    match options.engine {
        EngineKind::Memory => {
            let engine = MemoryEngine::default();
            let store = EmbeddedSessions::open(engine, None, false, wall)?;
            Sessions::start(store, options)
        }
        #[cfg(feature = "fjall")]
        EngineKind::Fjall => {
            let directory = directory(options)?;
            let engine = super::fjall::FjallEngine::open(&directory, &for_engine(options))?;
            let directory = Some(directory);
            let store = EmbeddedSessions::open(engine, directory, options.accept_loss, wall)?;
            Sessions::start(store, options)
        }
        #[cfg(feature = "sled")]
        EngineKind::Sled => {
            let directory = directory(options)?;
            let engine = super::sled::SledEngine::open(&directory, &for_engine(options))?;
            let directory = Some(directory);
            let store = EmbeddedSessions::open(engine, directory, options.accept_loss, wall)?;
            Sessions::start(store, options)
        }
        #[cfg(not(all(feature = "fjall", feature = "sled")))]
        engine => Err(EngineError::Io(format!(
            "this program was built without the engine {}",
            engine.name()
        ))),
    }
}

#[cfg(any(feature = "fjall", feature = "sled"))]
fn directory(options: &SessionOptions) -> Result<Directory, EngineError> {
    Directory::open(&options.directory, FORMAT, options.engine.name())
}

#[cfg(any(feature = "fjall", feature = "sled"))]
const fn for_engine(options: &SessionOptions) -> OpenOptions {
    OpenOptions {
        tables: rows::TABLES,
        memory_bytes: options.memory_bytes,
        accept_loss: options.accept_loss,
    }
}

impl Sessions {
    fn start(
        mut store: impl SessionStore + 'static,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        let found = store.load(clock::now())?;
        let journal = Arc::new(Journal::new(found.last_number + 1));
        let condition = Arc::new(Condition::default());
        let commits: Arc<Commits> = Arc::default();
        let writer = Writer::new(
            store,
            Arc::clone(&journal),
            Arc::clone(&condition),
            Arc::clone(&commits),
            DiskGuard::new(options.disk_bytes_max),
        );
        let thread = std::thread::Builder::new()
            .name("sessions".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| EngineError::Io(format!("no writer thread: {error}")))?;
        Ok(Self {
            journal,
            condition,
            commits,
            found: Some(found),
            writer: Some(thread),
        })
    }

    /// Tells how they are, also after they have been closed.
    pub fn health(&self) -> SessionsHealth {
        SessionsHealth(Arc::clone(&self.condition))
    }

    /// How their commits are.
    pub fn commits(&self) -> Arc<Commits> {
        Arc::clone(&self.commits)
    }

    pub(crate) fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// What was there: once.
    pub(crate) fn take_found(&mut self) -> Found {
        self.found.take().unwrap_or_default()
    }

    /// Writes what waits, and closes. Blocks for a commit.
    pub(crate) fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.journal.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread of the sessions panicked");
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.end();
    }
}
