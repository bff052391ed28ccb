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
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use broker::store::budget::DiskGuard;
use broker::store::condition::Condition;
use broker::store::directory::Directory;
use broker::store::kv::{KeyRange, KvEngine, Table};
use broker::store::recover::recover;
use proto::ids::{ConversationId, DeviceId, Handle, InvitationId, MessageId, Seq, UserId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::heads::Heads;
use self::overlay::{Overlay, OverlayKey};
use self::queue::{Job, Queue, Reply, Size, draft_size};
use self::reads::{
    all_cursors, bad_key, changes, hole, members, own_before, page, read_seq, tail_cid, visit,
    visit_user,
};
use self::writer::{TRUSTED_KEY, Writer};
use super::clock::Clock;
use super::{
    AskToJoin, Behind, Broadcast, ChatStore, Committed, Counts, DroppedIds, Durability, Exchange,
    Health, IdPage, Move, MovedOver, PageRange, Place, StoreError, StoreMetrics, StoreOptions,
    Written, tables,
};
use crate::domain::account::{Changes, Preferences, Subject};
use crate::domain::audit::{AuditKeep, AuditLine, AuditLog};
use crate::domain::contact::{Contact, ContactChange, ContactCounts, ContactList, Decided};
use crate::domain::conversation::Conversation;
use crate::domain::device::{Device, Inflight, SharedSubscription};
use crate::domain::entry::{Change, Draft, Entry, Outcome};
use crate::domain::held::{Held, Holding};
use crate::domain::joining::{Ban, Invitation, JoinRequest, Requested};
use crate::domain::member::{Marks, Member, Stretch};
use crate::domain::overlay::{HiddenBy, Pin, Reactions, Report, ReportKey};
use crate::domain::presence::{PresenceChange, Standing};
use crate::domain::profile::Profile;
use crate::domain::purge::{Limits, Overdue, Purge, Purged};
use crate::domain::queue::{DeviceEvent, Queuing, ToDevice};
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::domain::support::CaseState;
use crate::domain::user::{Token, User};

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
    async fn append(&self, batch: Vec<Draft>) -> Result<Vec<Outcome>, StoreError> {
        let largest = batch.iter().map(|draft| draft.body.len()).max();
        if let Some(bytes) = largest
            && bytes > BODY_BYTES_MAX
        {
            return Err(StoreError::TooLarge {
                bytes,
                max: BODY_BYTES_MAX,
            });
        }
        let mut chunks = chunks(batch);
        let Some(first) = chunks.pop_front() else {
            return Ok(Vec::new());
        };
        if !first.iter().all(makes_room) {
            self.shared.condition.may_grow()?;
        }
        // Almost always it is the only one.
        let mut outcomes = self.ask(|reply| Job::Append(first, reply)).await?;
        for chunk in chunks {
            outcomes.extend(self.ask_to_write(|reply| Job::Append(chunk, reply)).await?);
        }
        Ok(outcomes)
    }

    async fn page(
        &self,
        conversation: ConversationId,
        range: PageRange,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(move |engine, shared| {
            let known = shared.heads.find(engine, conversation)?;
            known.map_or_else(
                || Ok(Vec::new()),
                |known| page(engine, conversation, known.head.seq, range),
            )
        })
        .await
    }

    async fn conversations(
        &self,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError> {
        let mut found: Vec<_> = ids
            .iter()
            .map(|id| (*id, self.shared.heads.peek(*id)))
            .collect();
        if found.iter().any(|(_, known)| known.is_none()) {
            found = self
                .read(move |engine, shared| {
                    for (id, known) in &mut found {
                        if known.is_none() {
                            *known = shared.heads.find(engine, *id)?;
                        }
                    }
                    Ok(found)
                })
                .await?;
        }
        Ok(found
            .into_iter()
            .map(|(id, known)| known.map(|known| known.into_conversation(id)))
            .collect())
    }

    async fn members(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(Member, Marks)>, StoreError> {
        self.read(move |engine, shared| {
            members(engine, &shared.overlay, conversation, after, limit)
        })
        .await
    }

    async fn readers(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, StoreError> {
        self.read(move |engine, _| readers::page(engine, conversation, after, limit))
            .await
    }

    async fn readers_among(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
    ) -> Result<Vec<(Member, Marks)>, StoreError> {
        self.read(move |engine, shared| {
            readers::among(engine, &shared.overlay, conversation, users)
        })
        .await
    }

    async fn reader_count(&self, conversation: ConversationId) -> Result<u64, StoreError> {
        let table = tables::READER_COUNT;
        let count = self
            .read_row(table, keys::cid(conversation), move |row| {
                values::read_number(table.name(), row)
            })
            .await?;
        Ok(count.unwrap_or_default())
    }

    async fn channels_behind(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Behind, StoreError> {
        self.read(move |engine, shared| {
            readers::behind(engine, &shared.heads, (user, after), limit)
        })
        .await
    }

    async fn note_changed(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::NoteChanged(user, conversations, reply))
            .await
    }

    async fn broadcasts(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<Broadcast>, StoreError> {
        self.read(move |engine, _| readers::broadcasts(engine, after, limit))
            .await
    }

    async fn broadcast_to(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::BroadcastTo((list, seq), after, reply))
            .await
    }

    async fn copies(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Seq)>, StoreError> {
        self.read(move |engine, _| readers::copies(engine, (list, seq), after, limit))
            .await
    }

    async fn conversations_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, _| reads::conversations_of(engine, user, after, limit, |_| true))
            .await
    }

    async fn memberships_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, _| {
            let is_member = |row: &[u8]| row != values::LEFT_CONVERSATION;
            reads::conversations_of(engine, user, after, limit, is_member)
        })
        .await
    }

    async fn conversation_count(&self, user: UserId) -> Result<u64, StoreError> {
        let table = tables::CONVERSATION_COUNT;
        let count = self
            .read_row(table, *user.as_bytes(), move |row| {
                values::read_number(table.name(), row)
            })
            .await?;
        Ok(count.unwrap_or_default())
    }

    async fn count_up_to(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Counts, StoreError> {
        self.read(move |engine, shared| {
            let Some(known) = shared.heads.find(engine, conversation)? else {
                return Ok(Counts::default());
            };
            let seq = seq.min(known.head.seq);
            if seq == Seq::ZERO {
                return Ok(Counts::default());
            }
            let all = if seq == known.head.seq {
                known.head.mseq
            } else {
                let row = engine.get(tables::MESSAGE, &keys::message(conversation, seq))?;
                values::read_entry_mseq(&row.ok_or_else(|| hole(conversation, seq))?)?
            };
            let own = own_before(engine, conversation, user, seq)?;
            Ok(Counts {
                all,
                own: own.map_or(0, |(_, count)| count),
                excluded: excluded::up_to(engine, conversation, user, seq)?,
            })
        })
        .await
    }

    async fn hide(
        &self,
        conversation: ConversationId,
        seq: Seq,
        user: UserId,
        ts_ms: u64,
    ) -> Result<bool, StoreError> {
        self.ask_to_write(|reply| Job::Hide((conversation, seq), user, ts_ms, reply))
            .await
    }

    async fn hidden(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, HiddenBy)>, StoreError> {
        self.read(move |engine, _| {
            let mut hidden = Vec::new();
            for seq in seqs {
                let key = keys::entry_user(conversation, seq, user);
                if let Some(row) = engine.get(tables::HIDDEN, &key)? {
                    hidden.push((seq, values::read_hidden(&row)?));
                }
            }
            Ok(hidden)
        })
        .await
    }

    async fn reactions(
        &self,
        conversation: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Reactions, StoreError> {
        self.read(move |engine, _| happened::reactions(engine, conversation, seq, (after, limit)))
            .await
    }

    async fn reacted(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, Vec<Box<str>>)>, StoreError> {
        self.read(move |engine, _| {
            let mut reacted = Vec::new();
            for seq in seqs {
                let key = keys::entry_user(conversation, seq, user);
                if let Some(row) = engine.get(tables::REACTION, &key)? {
                    reacted.push((seq, values::read_emoji(&row)?));
                }
            }
            Ok(reacted)
        })
        .await
    }

    async fn pins(&self, conversation: ConversationId) -> Result<Vec<Pin>, StoreError> {
        self.read(move |engine, _| happened::pins(engine, conversation))
            .await
    }

    async fn mentions(
        &self,
        conversation: ConversationId,
        user: UserId,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError> {
        self.read(move |engine, _| happened::mentions(engine, (conversation, user), stretch, limit))
            .await
    }

    async fn schedule(&self, scheduled: Scheduled, max: usize) -> Result<Scheduling, StoreError> {
        self.ask_to_write(|reply| Job::Schedule(Box::new(scheduled), max, reply))
            .await
    }

    async fn reschedule(
        &self,
        before: Scheduled,
        after: Option<Scheduled>,
    ) -> Result<bool, StoreError> {
        self.ask(|reply| Job::Reschedule(Box::new((before, after)), reply))
            .await
    }

    async fn scheduled(
        &self,
        user: UserId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<Scheduled>, StoreError> {
        self.read(move |engine, _| scheduled::of_user(engine, user, after.as_ref(), limit))
            .await
    }

    async fn scheduled_as(
        &self,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Scheduled>, StoreError> {
        let (key, mid) = (keys::scheduled(user, mid), mid.clone());
        self.read_row(tables::SCHEDULED, key, move |row| {
            values::read_scheduled(user, mid, row)
        })
        .await
    }

    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Scheduled>, StoreError> {
        self.read(move |engine, _| scheduled::due(engine, now_ms, limit))
            .await
    }

    async fn expire(&self, now_ms: u64) -> Result<usize, StoreError> {
        self.ask(|reply| Job::Expire(now_ms, reply)).await
    }

    async fn purge(
        &self,
        conversation: ConversationId,
        purge: Purge,
    ) -> Result<Purged, StoreError> {
        self.ask(|reply| Job::Purge(conversation, Box::new(purge), reply))
            .await
    }

    async fn purges_under_way(
        &self,
        after: Option<(ConversationId, Seq)>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        self.read(move |engine, _| retention::purges_under_way(engine, after, limit))
            .await
    }

    async fn overdue(
        &self,
        limits: Limits,
        after: Option<ConversationId>,
    ) -> Result<Overdue, StoreError> {
        self.read(move |engine, shared| retention::overdue(engine, &shared.heads, limits, after))
            .await
    }

    async fn trusted_ms(&self) -> Result<Option<u64>, StoreError> {
        self.read_row(tables::TRUSTED, TRUSTED_KEY, |row| {
            values::read_number(tables::TRUSTED.name(), row)
        })
        .await
    }

    async fn trust(&self, now_ms: u64) -> Result<(), StoreError> {
        self.ask(|reply| Job::Trust(now_ms, reply)).await
    }

    async fn forget(&self, user: UserId) -> Result<usize, StoreError> {
        let handle = self.user(user).await?.map(|user| user.handle);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let name = handle.clone();
            let found = self.read(move |engine, _| {
                audit::of_user(engine, (user, name.as_ref()), after.as_deref())
            });
            let (keys, next) = found.await?;
            if !keys.is_empty() {
                let of = Box::new((user, handle.clone()));
                self.ask(|reply| Job::ForgetAudit(of, keys, reply)).await?;
            }
            match next {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        self.ask(|reply| Job::Forget(user, reply)).await
    }

    async fn hold(&self, draft: Draft, reason: String) -> Result<Holding, StoreError> {
        self.ask_to_write(|reply| Job::Hold(Box::new((draft, reason)), reply))
            .await
    }

    async fn held(
        &self,
        conversation: ConversationId,
        after: Option<(UserId, MessageId)>,
        size: (usize, usize),
    ) -> Result<(Vec<Held>, bool), StoreError> {
        let after = after.map(|(from, mid)| keys::held(conversation, from, mid.as_str()));
        self.read(move |engine, _| happened::held(engine, conversation, after.as_deref(), size))
            .await
    }

    async fn held_message(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<Option<Held>, StoreError> {
        let key = keys::held(conversation, from, mid.as_str());
        self.read_row(tables::HELD, key, move |row| {
            values::read_held(conversation, row)
        })
        .await
    }

    async fn reject_held(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError> {
        let rejected = Box::new((mid.clone(), line));
        self.ask(|reply| Job::RejectHeld(conversation, from, rejected, reply))
            .await
    }

    async fn written(
        &self,
        conversation: ConversationId,
        user: UserId,
        after: Seq,
        size: (usize, usize),
    ) -> Result<Written, StoreError> {
        self.read(move |engine, _| happened::written(engine, (conversation, user), after, size))
            .await
    }

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

    async fn ids(&self, after: Option<Vec<u8>>, limit: usize) -> Result<IdPage, StoreError> {
        self.read(move |engine, _| upkeep::ids(engine, after.as_deref(), limit))
            .await
    }

    async fn drop_ids(
        &self,
        before: u16,
        after: Option<Vec<u8>>,
    ) -> Result<DroppedIds, StoreError> {
        self.ask(|reply| Job::DropIds(before, after, reply)).await
    }

    async fn report(&self, report: Report) -> Result<bool, StoreError> {
        self.ask_to_write(|reply| Job::Report(Box::new(report), reply))
            .await
    }

    async fn reports(
        &self,
        after: Option<&ReportKey>,
        limit: usize,
    ) -> Result<Vec<Report>, StoreError> {
        let after = after.map(keys::report);
        self.read(move |engine, _| happened::reports(engine, after.as_deref(), limit))
            .await
    }

    async fn reported(&self, key: &ReportKey) -> Result<Option<Report>, StoreError> {
        let key = keys::report(key);
        let row = key.clone();
        self.read_row(tables::REPORT, key, move |value| {
            happened::read_report(&row, value)
        })
        .await
    }

    async fn settle_report(
        &self,
        key: &ReportKey,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError> {
        let key = keys::report(key);
        self.ask(|reply| Job::SettleReport(key, line, reply)).await
    }

    async fn close_report(&self, key: &ReportKey) -> Result<bool, StoreError> {
        let key = keys::report(key);
        self.ask(|reply| Job::CloseReport(key, reply)).await
    }

    async fn put_invitation(
        &self,
        invitation: Invitation,
        hash: [u8; 16],
    ) -> Result<bool, StoreError> {
        self.ask_to_write(|reply| Job::PutInvitation(Box::new(invitation), hash, reply))
            .await
    }

    async fn invited(&self, hash: [u8; 16]) -> Result<Option<Invitation>, StoreError> {
        self.read(move |engine, _| joining::invited(engine, hash))
            .await
    }

    async fn invitations(
        &self,
        conversation: ConversationId,
    ) -> Result<Vec<Invitation>, StoreError> {
        let rows = self.read(move |engine, _| joining::invitations(engine, conversation));
        Ok(rows.await?.into_iter().map(|row| row.invitation).collect())
    }

    async fn revoke_invitation(
        &self,
        conversation: ConversationId,
        id: InvitationId,
    ) -> Result<bool, StoreError> {
        self.ask(|reply| Job::RevokeInvitation(conversation, id, reply))
            .await
    }

    async fn ask_to_join(&self, asked: AskToJoin) -> Result<Requested, StoreError> {
        self.ask_to_write(|reply| Job::AskToJoin(Box::new(asked), reply))
            .await
    }

    async fn drop_join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
        tell: Vec<UserId>,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError> {
        let told = Box::new((tell, line));
        self.ask(|reply| Job::DropJoinRequest(conversation, user, told, reply))
            .await
    }

    async fn join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<JoinRequest>, StoreError> {
        let key = keys::member(conversation, user);
        self.read_row(tables::JOIN_REQUEST, key, move |row| {
            values::joining::read_join_request(conversation, user, row)
        })
        .await
    }

    async fn join_requests(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<JoinRequest>, StoreError> {
        self.read(move |engine, _| joining::requests(engine, conversation, after, limit))
            .await
    }

    async fn cases(
        &self,
        desk: ConversationId,
        state: CaseState,
        after: Option<(u64, ConversationId)>,
        limit: usize,
    ) -> Result<Vec<(u64, ConversationId)>, StoreError> {
        self.read(move |engine, _| joining::cases(engine, (desk, state), after, limit))
            .await
    }

    async fn desks(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, _| joining::desks(engine, after, limit))
            .await
    }

    async fn ban(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<Ban>, StoreError> {
        let key = keys::member(conversation, user);
        self.read_row(tables::BAN, key, move |row| {
            values::joining::read_ban(user, row)
        })
        .await
    }

    async fn bans(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError> {
        self.read(move |engine, _| joining::bans(engine, conversation, after, limit))
            .await
    }

    async fn last_own(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Option<Seq>, StoreError> {
        self.read(move |engine, _| {
            let last = own_before(engine, conversation, user, seq)?;
            Ok(last.map(|(seq, _)| seq))
        })
        .await
    }

    async fn told_mark(
        &self,
        conversation: ConversationId,
        user: UserId,
        other: UserId,
        from: Seq,
        to: Seq,
    ) -> Result<Seq, StoreError> {
        self.read(move |engine, _| {
            reads::told_mark(engine, conversation, (user, other), (from, to))
        })
        .await
    }

    async fn advance(&self, moves: Vec<Move>, durability: Durability) -> Result<(), StoreError> {
        if let Some(error) = self.shared.condition.refusal() {
            return Err(error);
        }
        if self.shared.overlay.len() >= OVERLAY_MAX {
            self.flush().await?;
        }
        if self.shared.overlay.merge(&moves) {
            self.shared.queue.nudge();
        }
        if durability == Durability::Relaxed {
            return Ok(());
        }
        let keys = moves.iter().map(OverlayKey::of).collect();
        self.ask(|reply| Job::Settle(keys, reply)).await
    }

    async fn cursors(
        &self,
        device: DeviceId,
        conversation: Option<ConversationId>,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
        self.read(move |engine, shared| {
            // The overlay first: what leaves it meanwhile is in the engine already.
            let Some(conversation) = conversation else {
                return all_cursors(engine, device, shared.overlay.cursors(device));
            };
            let waiting = shared.overlay.cursor(device, conversation);
            let row = engine.get(tables::CURSOR, &keys::cursor(device, conversation))?;
            let stored = row.map(|row| read_seq(&row)).transpose()?;
            let seq = waiting.max(stored);
            Ok(seq.map(|seq| (conversation, seq)).into_iter().collect())
        })
        .await
    }

    async fn changes(&self, user: UserId, since: u64, limit: usize) -> Result<Changes, StoreError> {
        self.read(move |engine, _| changes(engine, user, since, limit))
            .await
    }

    async fn hand_out(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<u64, StoreError> {
        self.ask(|reply| Job::HandOut(user, conversations, reply))
            .await
    }

    async fn preferences(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<Vec<Preferences>, StoreError> {
        self.read(move |engine, _| {
            let read = |id: &ConversationId| {
                let row = engine.get(tables::CHANGED, &keys::changed(user, (*id).into()))?;
                let row = row.map(|row| values::read_changed(&row)).transpose()?;
                Ok(row.unwrap_or_default().preferences)
            };
            conversations.iter().map(read).collect()
        })
        .await
    }

    async fn set_preferences(
        &self,
        user: UserId,
        conversation: ConversationId,
        preferences: Preferences,
    ) -> Result<(), StoreError> {
        self.ask_to_write(|reply| Job::SetPreferences(user, conversation, preferences, reply))
            .await
    }

    async fn moved_over(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
        seq: Seq,
    ) -> Result<Vec<(UserId, MovedOver)>, StoreError> {
        self.read(move |engine, _| reads::moved_over(engine, conversation, users, seq))
            .await
    }

    async fn receipts_due(
        &self,
        user: UserId,
        since_ms: u64,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(move |engine, shared| {
            let mut due: BTreeMap<_, _> = shared.overlay.receipts_due(user).into_iter().collect();
            let from = keys::join::<33>(&[user.as_bytes(), &keys::FIRST_CID]);
            let to = keys::join::<33>(&[user.as_bytes(), &keys::LAST_CID]);
            let range = KeyRange::closed(&from, &to);
            visit(
                engine,
                tables::RECEIPT_DUE,
                range,
                usize::MAX,
                |key, row| {
                    let ts_ms = values::read_time(tables::RECEIPT_DUE.name(), row)?;
                    let known = due.entry(tail_cid(key)?).or_default();
                    *known = (*known).max(ts_ms);
                    Ok(())
                },
            )?;
            let mut due: Vec<_> = due.into_iter().filter(|(_, ts)| *ts >= since_ms).collect();
            due.sort_by_key(|(id, ts_ms)| (std::cmp::Reverse(*ts_ms), *id));
            due.truncate(limit);
            Ok(due.into_iter().map(|(id, _)| id).collect())
        })
        .await
    }

    async fn device(&self, user: UserId, device: DeviceId) -> Result<Option<Device>, StoreError> {
        self.read_row(tables::DEVICE, keys::device(user, device), move |row| {
            values::read_device(user, device, row)
        })
        .await
    }

    async fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError> {
        self.read(move |engine, _| {
            let mut devices = Vec::new();
            visit_user(engine, tables::DEVICE, user, |rest, row| {
                let id: [u8; 16] = rest.try_into().map_err(|_| bad_key(tables::DEVICE))?;
                devices.push(values::read_device(user, DeviceId::from_bytes(id), row)?);
                Ok(())
            })?;
            Ok(devices)
        })
        .await
    }

    async fn put_device(
        &self,
        device: Device,
        inflight: Option<Vec<Inflight>>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        if let Err(full) = self.shared.condition.may_grow()
            && self.device(device.user, device.id).await?.is_none()
        {
            return Err(full.into());
        }
        self.ask(|reply| Job::PutDevice(Box::new(device), inflight, durability, reply))
            .await
    }

    async fn take_inflight(&self, device: DeviceId) -> Result<Vec<Inflight>, StoreError> {
        self.ask(|reply| Job::TakeInflight(device, reply)).await
    }

    async fn remove_device(&self, user: UserId, device: DeviceId) -> Result<(), StoreError> {
        self.ask(|reply| Job::RemoveDevice(user, device, reply))
            .await
    }

    async fn put_shared(&self, shared: SharedSubscription, max: usize) -> Result<bool, StoreError> {
        if let Err(full) = self.shared.condition.may_grow() {
            let key = keys::device(shared.user, shared.id);
            let known = self.read_row(tables::SHARED, key, |_| Ok(()));
            known.await?.ok_or(full)?;
        }
        self.ask(|reply| Job::PutShared(Box::new(shared), max, reply))
            .await
    }

    async fn queue_event(&self, sent: ToDevice) -> Result<Queuing, StoreError> {
        self.ask_to_write(|reply| Job::QueueEvent(Box::new(sent), reply))
            .await
    }

    async fn device_events(
        &self,
        device: DeviceId,
        after: u64,
        size: (usize, usize),
        now_ms: u64,
    ) -> Result<(Vec<DeviceEvent>, bool), StoreError> {
        self.read(move |engine, _| reads::device_events(engine, device, after, size, now_ms))
            .await
    }

    async fn end_device_events(
        &self,
        device: DeviceId,
        places: Vec<u64>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::EndDeviceEvents(device, places, reply))
            .await
    }

    async fn share_conversation(&self, one: UserId, other: UserId) -> Result<bool, StoreError> {
        self.read(move |engine, _| reads::share_conversation(engine, (one, other)))
            .await
    }

    async fn shared(&self, user: UserId) -> Result<Vec<SharedSubscription>, StoreError> {
        self.read(move |engine, _| {
            let mut shared = Vec::new();
            visit_user(engine, tables::SHARED, user, |rest, row| {
                let id: [u8; 16] = rest.try_into().map_err(|_| bad_key(tables::SHARED))?;
                shared.push(values::devices::read_shared(
                    user,
                    DeviceId::from_bytes(id),
                    row,
                )?);
                Ok(())
            })?;
            Ok(shared)
        })
        .await
    }

    async fn remove_shared(&self, user: UserId, id: DeviceId) -> Result<(), StoreError> {
        self.ask(|reply| Job::RemoveShared(user, id, reply)).await
    }

    async fn exchange(
        &self,
        device: DeviceId,
        packet_id: u16,
    ) -> Result<Option<Exchange>, StoreError> {
        let key = keys::exchange(device, packet_id);
        self.read_row(tables::EXCHANGE, key, |row| {
            let row = values::read_exchanged(row)?;
            Ok(Exchange {
                conversation: row.conversation,
                place: Place {
                    seq: row.seq,
                    ts_ms: row.ts_ms,
                    digest: row.digest,
                },
            })
        })
        .await
    }

    async fn end_exchanges(&self, device: DeviceId) -> Result<(), StoreError> {
        self.ask(|reply| Job::EndExchanges(device, reply)).await
    }

    async fn end_exchange(&self, device: DeviceId, packet_id: u16) -> Result<bool, StoreError> {
        self.ask(|reply| Job::EndExchange(device, packet_id, reply))
            .await
    }

    async fn place_of(
        &self,
        conversation: ConversationId,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Place>, StoreError> {
        let mid = mid.clone();
        self.ask(|reply| Job::Place(conversation, user, mid, reply))
            .await
    }

    async fn create_user(&self, user: User) -> Result<(), StoreError> {
        self.ask_to_write(|reply| Job::CreateUser(Box::new(user), reply))
            .await
    }

    async fn update_user(&self, user: User) -> Result<(), StoreError> {
        self.ask(|reply| Job::UpdateUser(Box::new(user), reply))
            .await
    }

    async fn change_handle(
        &self,
        user: UserId,
        from: Handle,
        to: Handle,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let handles = Box::new((from, to));
        self.ask_to_write(|reply| Job::ChangeHandle(user, handles, now_ms, reply))
            .await
    }

    async fn search(
        &self,
        prefix: String,
        people: bool,
        limit: usize,
    ) -> Result<Vec<Subject>, StoreError> {
        self.read(move |engine, _| reads::search(engine, &prefix, people, limit))
            .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read_row(tables::USER, *id.as_bytes(), move |row| {
            values::read_user(id, row)
        })
        .await
    }

    async fn last_of_handle(&self, handle: &Handle) -> Result<Option<UserId>, StoreError> {
        self.read_row(tables::HANDLE, handle.as_str().to_owned(), |row| {
            values::read_handle(row).map(|row| row.user)
        })
        .await
    }

    async fn user_by_handle(&self, handle: &Handle) -> Result<Option<User>, StoreError> {
        let handle = handle.clone();
        self.read(move |engine, _| {
            let Some(row) = engine.get(tables::HANDLE, handle.as_str().as_bytes())? else {
                return Ok(None);
            };
            let row = values::read_handle(&row)?;
            if row.freed_ms > 0 {
                return Ok(None);
            }
            let id = row.user;
            let Some(row) = engine.get(tables::USER, id.as_bytes())? else {
                return Ok(None);
            };
            let user = values::read_user(id, &row)?;
            Ok(user.removed_ms.is_none().then_some(user))
        })
        .await
    }

    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<Vec<User>, StoreError> {
        self.read(move |engine, _| {
            let after = after.as_ref().map(UserId::as_bytes);
            let range = KeyRange {
                from: after.map_or(Bound::Unbounded, |id| Bound::Excluded(id)),
                to: Bound::Unbounded,
            };
            let mut users = Vec::new();
            visit(engine, tables::USER, range, limit, |key, row| {
                let id: [u8; 16] = key.try_into().map_err(|_| bad_key(tables::USER))?;
                users.push(values::read_user(UserId::from_bytes(id), row)?);
                Ok(())
            })?;
            Ok(users)
        })
        .await
    }

    async fn profile(&self, user: UserId) -> Result<Profile, StoreError> {
        let row = self.read_row(tables::PROFILE, *user.as_bytes(), values::read_profile);
        Ok(row.await?.unwrap_or_default())
    }

    async fn replace_profile(
        &self,
        user: UserId,
        before: Profile,
        after: Profile,
    ) -> Result<bool, StoreError> {
        let change = Box::new((before, after));
        self.ask_to_write(|reply| Job::ReplaceProfile(user, change, reply))
            .await
    }

    async fn contact(&self, user: UserId, other: UserId) -> Result<Contact, StoreError> {
        let key = keys::contact(user, other);
        let decode = move |row: &[u8]| values::read_contact(other, row);
        let row = self.read_row(tables::CONTACT, key, decode).await?;
        Ok(row.unwrap_or_else(|| Contact::none(other)))
    }

    async fn contacts(
        &self,
        user: UserId,
        list: ContactList,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Contact>, StoreError> {
        self.read(move |engine, _| reads::contacts(engine, user, list, (after, limit)))
            .await
    }

    async fn contact_counts(&self, user: UserId) -> Result<ContactCounts, StoreError> {
        let key = keys::contact(user, keys::NO_USER);
        let row = self.read_row(tables::CONTACT, key, values::read_contact_counts);
        Ok(row.await?.unwrap_or_default())
    }

    async fn change_contact(
        &self,
        user: UserId,
        other: UserId,
        change: ContactChange,
        max: ContactCounts,
        now_ms: u64,
    ) -> Result<Decided, StoreError> {
        let job = |reply| Job::ChangeContact((user, other), change, (max, now_ms), reply);
        self.ask_to_write(job).await
    }

    async fn presence(&self, user: UserId) -> Result<Standing, StoreError> {
        let row = self.read_row(tables::PRESENCE, *user.as_bytes(), values::read_presence);
        Ok(row.await?.unwrap_or_default())
    }

    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError> {
        for some in changes.chunks(queue::GROUP_ITEMS_MAX) {
            let some = some.to_vec();
            self.ask_to_write(|reply| Job::PutPresence(some, reply))
                .await?;
        }
        Ok(())
    }

    async fn put_token(&self, token: Token) -> Result<(), StoreError> {
        self.ask(|reply| Job::PutToken(Box::new(token), reply))
            .await
    }

    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>, StoreError> {
        self.read_row(tables::TOKEN, hash, move |row| {
            values::read_token(hash, row)
        })
        .await
    }

    async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError> {
        self.read(move |engine, _| {
            let mut tokens = Vec::new();
            visit_user(engine, tables::USER_TOKEN, user, |_, row| {
                let hash = values::read_hash(row)?;
                // It may have been removed meanwhile.
                if let Some(row) = engine.get(tables::TOKEN, &hash)? {
                    tokens.push(values::read_token(hash, &row)?);
                }
                Ok(())
            })?;
            Ok(tokens)
        })
        .await
    }

    async fn remove_token(&self, user: UserId, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.ask(|reply| Job::RemoveToken(user, id, reply)).await
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

    async fn audit(&self, line: AuditLine, number: Option<u64>) -> Result<u64, StoreError> {
        self.ask(|reply| Job::Audit(Box::new(line), number, reply))
            .await
    }

    async fn audited(
        &self,
        log: AuditLog,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditLine)>, StoreError> {
        self.read(move |engine, _| audit::lines(engine, log, before, limit))
            .await
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

/// Is it stored while the store is read-only, too? What announces a purge takes little, and makes room.
fn makes_room(draft: &Draft) -> bool {
    matches!(draft.changes.as_slice(), [Change::Purge(_)])
}

/// Splits a call into what single commits can hold.
fn chunks(batch: Vec<Draft>) -> VecDeque<Vec<Draft>> {
    let mut chunks = VecDeque::new();
    let mut chunk = Vec::new();
    let mut size = Size::default();
    for draft in batch {
        size = size.and(draft_size(&draft));
        chunk.push(draft);
        if size.fills_a_commit() {
            chunks.push_back(std::mem::take(&mut chunk));
            size = Size::default();
        }
    }
    if !chunk.is_empty() {
        chunks.push_back(chunk);
    }
    chunks
}
