//! [`ChatStore`] over any [`KvEngine`].
//!
//! 1. A write is a job: it waits for room in the bounded queue and goes to the one writer thread.
//! 2. The writer drains what is there, works it off, commits it at once, and answers (`writer`).
//! 3. A read goes to the engine on a thread for blocking work, or is served from memory (`heads`, `overlay`).
//!
//! The rows and the rules of a commit are in `docs/storage.md`.

mod audit;
mod excluded;
mod happened;
mod heads;
mod joining;
mod keys;
mod overlay;
mod queue;
mod readers;
mod reads;
mod retention;
mod scheduled;
mod upkeep;
mod values;
mod verbs;
mod writer;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use broker::store::budget::DiskGuard;
use broker::store::condition::Condition;
use broker::store::directory::Directory;
use broker::store::kv::{KvEngine, Table};
use broker::store::recover::recover;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::heads::Heads;
use self::overlay::Overlay;
use self::queue::{Job, Queue, Reply};
use self::writer::Writer;
use super::clock::Clock;
use super::{ChatStore, Committed, Health, StoreError, StoreMetrics, StoreOptions, tables};
use crate::domain::audit::AuditKeep;

/// The schema of the rows written today.
pub const SCHEMA: u32 = 1;
/// Largest body of an entry, in bytes.
pub const BODY_BYTES_MAX: usize = 128 * 1024;
/// Entries that the feed holds while its receiver is busy.
const FEED_MAX: usize = 8_192;
/// Relaxed moves that wait in memory at most; then callers wait for a commit.
const OVERLAY_MAX: usize = 65_536;
/// Reads on threads for blocking work at once, for each core; more wait. Each thread has a heap of its own, which grows to
/// megabytes: with 32 of them a storm of logins cost 150 MB.
const READS_PER_CORE: usize = 2;
/// At least so many, for disks that are slow.
const READS_MIN: usize = 4;
/// Bytes of the memory budget that one cached head is counted for.
const HEAD_BUDGET_BYTES: u64 = 2_048;

fn reads_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    READS_MIN.max(cores * READS_PER_CORE)
}

/// A store on an embedded engine.
#[derive(Debug)]
pub struct EmbeddedStore<K: KvEngine> {
    shared: Arc<Shared<K>>,
    writer: Option<JoinHandle<()>>,
}

/// What callers, readers and the writer share.
struct Shared<K> {
    opened: RwLock<Option<Arc<Opened<K>>>>,
    heads: Heads,
    overlay: Overlay,
    queue: Queue,
    condition: Condition,
    feed: Mutex<Option<mpsc::Sender<Committed>>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<StoreMetrics>,
    /// The files are written anew, by one at a time.
    reclaiming: Arc<tokio::sync::Mutex<()>>,
    reads_in_memory: bool,
    /// Room for reads that may block: each takes a thread.
    reads: Arc<Semaphore>,
}

/// The engine, and the lock of its directory, which is released after it.
struct Opened<K> {
    engine: K,
    _directory: Option<Directory>,
}

impl<K: KvEngine> EmbeddedStore<K> {
    /// Starts a store on an open engine. Without a directory there is no lock and no commit watermark.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`], [`StoreError::Behind`], [`StoreError::Corrupt`] if the engine does not hold what it
    /// should; [`StoreError::Unavailable`] if the first commit fails.
    pub fn start(
        engine: K,
        directory: Option<Directory>,
        options: &StoreOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let mut directory = directory;
        let mut watermark = directory.as_ref().map(Directory::watermark).transpose()?;
        let is_new = directory
            .as_ref()
            .is_none_or(|directory| directory.is_new() || options.accept_loss);
        let last = recover(
            &engine,
            SCHEMA,
            watermark.as_mut(),
            is_new,
            options.accept_loss,
        )?;
        if let Some(directory) = &mut directory {
            directory.set_ready(tables::ALL)?;
        }
        let heads_max = heads_max(options.memory_bytes);
        let shared = Arc::new(Shared {
            reads_in_memory: engine.reads_in_memory(),
            reads: Arc::new(Semaphore::new(reads_max())),
            opened: RwLock::new(None),
            heads: Heads::new(heads_max),
            overlay: Overlay::default(),
            queue: Queue::new(),
            condition: Condition::default(),
            feed: Mutex::new(None),
            reclaiming: Arc::default(),
            clock,
            metrics: Arc::default(),
        });
        let opened = Arc::new(Opened {
            engine,
            _directory: directory,
        });
        *shared
            .opened
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&opened));
        let disk = DiskGuard::new(options.max_disk_bytes);
        let writer = Writer::new(
            Arc::clone(&shared),
            opened,
            watermark,
            last,
            disk,
            2 * heads_max,
        );
        let farewell = Farewell(Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let _farewell = farewell;
                writer.run();
            })
            .map_err(|error| StoreError::Unavailable(format!("no writer thread: {error}")))?;
        Ok(Self {
            shared,
            writer: Some(thread),
        })
    }

    /// Hands a job to the writer and waits for the answer.
    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        if let Some(error) = self.shared.condition.refusal() {
            return Err(error);
        }
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(job(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// As [`EmbeddedStore::ask`], but not while the store is read-only.
    async fn ask_to_write<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        self.shared.condition.may_grow()?;
        self.ask(job).await
    }

    /// Runs a read where it may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&K, &Shared<K>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let opened = self.shared.opened().ok_or_else(|| self.gone())?;
        let shared = Arc::clone(&self.shared);
        if shared.reads_in_memory {
            return read(&opened.engine, &shared);
        }
        let permit = Arc::clone(&shared.reads).acquire_owned().await;
        let permit = permit.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&opened.engine, &shared)
        })
        .await
        .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Reads one row.
    async fn read_row<T: Send + 'static>(
        &self,
        table: Table,
        key: impl AsRef<[u8]> + Send + 'static,
        decode: impl FnOnce(&[u8]) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        self.read(move |engine, _| {
            let row = engine.get(table, key.as_ref())?;
            row.map(|row| decode(&row)).transpose()
        })
        .await
    }

    fn gone(&self) -> StoreError {
        self.shared
            .condition
            .refusal()
            .unwrap_or_else(|| StoreError::Unavailable("it is closed".to_owned()))
    }
}

impl<K: KvEngine> Drop for EmbeddedStore<K> {
    /// Ends the writer thread in order: what is in the queue is still done.
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread of the store panicked");
        }
    }
}

#[async_trait]
impl<K: KvEngine> ChatStore for EmbeddedStore<K> {
    async fn reclaim(&self, stop: &CancellationToken) -> Result<bool, StoreError> {
        let opened = self.shared.opened().ok_or_else(|| self.gone())?;
        let Ok(alone) = Arc::clone(&self.shared.reclaiming).try_lock_owned() else {
            return Err(StoreError::NotNow("it is being done already".to_owned()));
        };
        let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
        let reclaim = move || {
            let _alone = alone;
            let is_over = || stop.is_cancelled() || shared.condition.is_over();
            opened.engine.reclaim(&is_over)
        };
        let reclaimed = tokio::task::spawn_blocking(reclaim).await;
        let reclaimed = reclaimed.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(reclaimed?)
    }

    fn feed(&self) -> mpsc::Receiver<Committed> {
        let (sender, receiver) = mpsc::channel(FEED_MAX);
        *self.shared.lock_feed() = Some(sender);
        receiver
    }

    fn metrics(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    fn health(&self) -> Health {
        self.shared.condition.health()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.ask(Job::Flush).await
    }

    async fn maintain(
        &self,
        now_ms: u64,
        oldest_ms: u64,
        audit: AuditKeep,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::Maintain(now_ms, oldest_ms, audit, reply))
            .await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Job::Close(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }
}

impl<K> Shared<K> {
    fn opened(&self) -> Option<Arc<Opened<K>>> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.clone()
    }

    /// Lets go of the engine. Reads that have begun still hold it.
    fn release(&self) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        *opened = None;
    }

    fn lock_feed(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Committed>>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed_sender(&self) -> Option<mpsc::Sender<Committed>> {
        self.lock_feed().clone()
    }

    fn end_feed(&self) {
        *self.lock_feed() = None;
    }
}

impl<K> std::fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("condition", &self.condition)
            .finish_non_exhaustive()
    }
}

/// Leaves nobody waiting, should the writer thread panic.
struct Farewell<K>(Arc<Shared<K>>);

impl<K> Drop for Farewell<K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the writer thread panicked".to_owned();
            self.0.condition.poison(reason);
        }
        self.0.queue.abandon();
    }
}

fn heads_max(memory_bytes: u64) -> usize {
    usize::try_from((memory_bytes / HEAD_BUDGET_BYTES).clamp(4_096, 262_144)).unwrap_or(4_096)
}
