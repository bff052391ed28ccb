//! The writer thread: takes what waits, works it off through the rows of the very batch, commits once, answers.
//!
//! Nothing is rolled back here: what was changed in memory before a commit that failed is never looked at again, because
//! that failure poisons the store. What readers see (`heads`, the engine) changes only by a commit.

mod account;
mod acts;
mod append;
mod audit;
mod commit;
mod contacts;
mod control;
mod held;
mod jobs;
mod joining;
mod purge;
mod queue;
mod readers;
mod reports;
mod rows;
mod scheduled;
mod search;
pub(super) mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use broker::store::budget::{Budget, DiskGuard};
use broker::store::kv::{KvBatch, KvEngine, Table};
use broker::store::recover::CommitRow;
use broker::store::watermark::Watermark;
use proto::ids::{ConversationId, UserId};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use super::heads::Known;
use super::overlay::Waiting;
use super::queue::{Reply, Wake};
use super::upkeep::{self, Maintenance};
use super::values::First;
use super::{Opened, Shared};
use crate::domain::audit::{AuditKeep, AuditLog};
use crate::domain::contact::Decided;
use crate::domain::device::Inflight;
use crate::domain::entry::Outcome;
use crate::domain::held::Holding;
use crate::domain::joining::Requested;
use crate::domain::purge::Purged;
use crate::domain::queue::Queuing;
use crate::domain::scheduled::Scheduling;
use crate::store::{Committed, DroppedIds, Place, StoreError};

/// Relaxed moves are written with the first commit after this.
const RELAXED_DELAY: Duration = Duration::from_millis(200);
/// The commit watermark is written at most this often.
const WATERMARK_INTERVAL: Duration = Duration::from_secs(5);
/// A week of uptime, for idempotency keys.
const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;
/// The only row of its table.
pub(super) const TRUSTED_KEY: &[u8] = b"wall";
/// How long the thread waits before it looks again whether the receiver of the feed has room.
const FEED_PAUSE: Duration = Duration::from_millis(1);

/// All that the thread owns.
pub(super) struct Writer<K> {
    shared: Arc<Shared<K>>,
    opened: Arc<Opened<K>>,
    watermark: Option<Watermark>,
    watermark_at: Duration,
    disk: DiskGuard,
    maintenance: Option<Maintenance>,
    /// The last commit, relaxed ones included.
    last: CommitRow,
    /// Number of the last durable commit.
    durable: u64,
    /// Uptime saved before this start, less the clock at this start.
    uptime_base: Duration,
    clock_start: Duration,
    /// Number of own countable entries by `cid uid`, as far as the engine has them.
    owns: Cache<[u8; 33], u64>,
    /// Whether the user of `cid uid` has blocked the other one of a direct conversation.
    blocks: Cache<[u8; 33], bool>,
    /// For whom a conversation is clean.
    cleans: Cache<ConversationId, Arc<HashSet<UserId>>, Members>,
    /// Since when something relaxed waits to become durable.
    relaxed_since: Option<Duration>,
    /// Relaxed commits that no durable one has followed.
    relaxed_rows: bool,
    /// Reports that are kept, once they have been read.
    reports: Option<reports::Reports>,
    /// The newest lines of the audit logs, once they have been looked up.
    audited: Vec<(AuditLog, u64)>,
    /// Whether there is anything in tables that are empty for most: see [`Writer::plan_waiting`].
    occupied: HashMap<Table, bool>,
    closing: Option<Reply<()>>,
    group: Group,
}

/// A set of members weighs what it holds.
#[derive(Clone)]
struct Members;

impl Weighter<ConversationId, Arc<HashSet<UserId>>> for Members {
    fn weight(&self, _: &ConversationId, members: &Arc<HashSet<UserId>>) -> u64 {
        1 + members.len() as u64
    }
}

/// What has been gathered for the next commit.
#[derive(Default)]
struct Group {
    batch: KvBatch,
    /// Rows of the batch that somebody may look up again, by table.
    rows: HashMap<Table, HashMap<Vec<u8>, Option<Vec<u8>>>>,
    has_rows: bool,
    conversations: HashMap<ConversationId, Pending>,
    /// Idempotency keys of the batch, with week zero.
    mids: HashMap<Vec<u8>, First>,
    /// Numbers of own countable entries in the batch: a cache may forget what the engine does not know yet.
    owns: HashMap<[u8; 33], u64>,
    committed: Vec<Committed>,
    folded: Vec<Waiting>,
    done: Vec<Done>,
    /// Somebody waits for a durable commit.
    is_durable: bool,
    /// There has to be a commit even without rows.
    is_forced: bool,
}

/// A conversation as it is within the batch.
struct Pending {
    before: Option<Known>,
    now: Option<Known>,
    is_changed: bool,
    settings_changed: bool,
}

/// An answer that waits for the commit.
enum Done {
    Append(Reply<Vec<Outcome>>, Vec<Outcome>),
    Ids(Reply<DroppedIds>, DroppedIds),
    Unit(Reply<()>),
    Flag(Reply<bool>, bool),
    Count(Reply<usize>, usize),
    Number(Reply<u64>, u64),
    Scheduling(Reply<Scheduling>, Scheduling),
    Inflight(Reply<Vec<Inflight>>, Vec<Inflight>),
    Place(Reply<Option<Place>>, Option<Place>),
    Requested(Reply<Requested>, Requested),
    Purged(Reply<Purged>, Purged),
    Holding(Reply<Holding>, Holding),
    Decided(Reply<Decided>, Decided),
    Queuing(Reply<Queuing>, Queuing),
}

impl Done {
    fn finish(self, result: Result<(), StoreError>) {
        // A caller that no longer waits does not want the answer either.
        let _gone = match self {
            Self::Append(reply, outcomes) => reply.send(result.map(|()| outcomes)).is_err(),
            Self::Unit(reply) => reply.send(result).is_err(),
            Self::Number(reply, number) => reply.send(result.map(|()| number)).is_err(),
            Self::Scheduling(reply, done) => reply.send(result.map(|()| done)).is_err(),
            Self::Flag(reply, flag) => reply.send(result.map(|()| flag)).is_err(),
            Self::Count(reply, count) => reply.send(result.map(|()| count)).is_err(),
            Self::Requested(reply, requested) => reply.send(result.map(|()| requested)).is_err(),
            Self::Place(reply, place) => reply.send(result.map(|()| place)).is_err(),
            Self::Holding(reply, holding) => reply.send(result.map(|()| holding)).is_err(),
            Self::Decided(reply, decided) => reply.send(result.map(|()| decided)).is_err(),
            Self::Ids(reply, dropped) => reply.send(result.map(|()| dropped)).is_err(),
            Self::Queuing(reply, queuing) => reply.send(result.map(|()| queuing)).is_err(),
            Self::Purged(reply, purged) => reply.send(result.map(|()| purged)).is_err(),
            Self::Inflight(reply, inflight) => reply.send(result.map(|()| inflight)).is_err(),
        };
    }
}

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

impl<K: KvEngine> Writer<K> {
    pub(super) fn new(
        shared: Arc<Shared<K>>,
        opened: Arc<Opened<K>>,
        watermark: Option<Watermark>,
        last: CommitRow,
        disk: DiskGuard,
        owns_max: usize,
    ) -> Self {
        let clock_start = shared.clock.elapsed();
        Self {
            shared,
            opened,
            watermark,
            watermark_at: clock_start,
            disk,
            maintenance: None,
            durable: last.number,
            uptime_base: Duration::from_millis(last.clock_ms),
            last,
            clock_start,
            owns: Cache::new(owns_max),
            blocks: Cache::new(owns_max),
            cleans: Cache::with_weighter(owns_max / 2, owns_max as u64, Members),
            relaxed_since: None,
            relaxed_rows: false,
            reports: None,
            audited: Vec::new(),
            occupied: HashMap::new(),
            closing: None,
            group: Group::default(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            let waited_for = self.relaxed_since;
            let wake = self.shared.queue.take(&mut jobs, self.patience());
            if wake == Wake::Closed {
                break;
            }
            for job in jobs.drain(..) {
                self.handle(job);
            }
            let now = self.shared.clock.elapsed();
            let is_due = waited_for.is_some_and(|since| {
                wake == Wake::TimedOut || now.saturating_sub(since) >= RELAXED_DELAY
            });
            if is_due {
                self.fold_all();
            }
            self.commit();
            self.upkeep(now);
            self.note_relaxed(now);
        }
        self.stop();
    }

    /// How long to wait for work.
    fn patience(&self) -> Duration {
        if self.maintenance.is_some() {
            return Duration::ZERO;
        }
        match self.relaxed_since {
            Some(since) => {
                RELAXED_DELAY.saturating_sub(self.shared.clock.elapsed().saturating_sub(since))
            }
            None => WATERMARK_INTERVAL,
        }
    }

    fn note_relaxed(&mut self, now: Duration) {
        let waits = self.relaxed_rows || self.shared.overlay.len() > 0;
        let can_write = !self.shared.condition.is_over();
        self.relaxed_since = (waits && can_write).then(|| self.relaxed_since.unwrap_or(now));
    }

    fn stop(mut self) {
        self.fold_all();
        self.commit();
        self.write_watermark();
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.finish(&Err(StoreError::Unavailable("it is closed".to_owned())));
        }
        let result = self.shared.condition.refusal().map_or(Ok(()), Err);
        self.shared.condition.close();
        self.shared.release();
        let closing = self.closing.take();
        drop(self);
        if let Some(reply) = closing {
            Done::Unit(reply).finish(result);
        }
    }

    // -- time

    fn uptime_ms(&self) -> u64 {
        let here = self.shared.clock.elapsed().saturating_sub(self.clock_start);
        u64::try_from((self.uptime_base + here).as_millis()).unwrap_or(u64::MAX)
    }

    /// The week of idempotency keys: counted in uptime.
    fn week(&self) -> u16 {
        u16::try_from(self.uptime_ms() / WEEK_MS).unwrap_or(u16::MAX)
    }

    /// Drops some of what the weeks before this one have, but never of the present week.
    fn drop_ids(&mut self, before: u16, after: Option<&[u8]>) -> Result<DroppedIds, StoreError> {
        self.barrier()?;
        let week = self.week();
        let weeks = before.min(week);
        let progress = upkeep::drop_weeks(self.engine(), weeks, after)?;
        self.relaxed_rows |= progress.removed > 0;
        Ok(DroppedIds {
            week,
            rows: u64::try_from(progress.removed).unwrap_or(u64::MAX),
            next: progress.more_after,
        })
    }

    // -- upkeep

    fn upkeep(&mut self, now: Duration) {
        if self.shared.condition.is_poisoned() {
            return;
        }
        if now.saturating_sub(self.watermark_at) >= WATERMARK_INTERVAL {
            self.watermark_at = now;
            self.write_watermark();
        }
        match self.disk.check(&self.opened.engine, now) {
            Ok(Budget::NotLooked) => {}
            Ok(Budget::Room) => self.shared.condition.set_read_only(None),
            Ok(Budget::Full(reason)) => self.shared.condition.set_read_only(Some(reason)),
            Err(error) => self.fail(error.into()),
        }
        self.maintain_slice();
    }

    fn write_watermark(&mut self) {
        if self.shared.condition.is_poisoned() {
            return;
        }
        let Some(watermark) = &mut self.watermark else {
            return;
        };
        if let Err(error) = watermark.write(self.durable) {
            self.poison(format!("the commit watermark cannot be written: {error}"));
        }
    }

    /// Begins (or joins) the hourly work; the uptime is saved in any case.
    fn maintain(&mut self, times: (u64, u64, AuditKeep), reply: Reply<()>) {
        self.group.is_forced = true;
        self.group.is_durable = true;
        let keep_week = self.week().saturating_sub(1);
        self.maintenance
            .get_or_insert_with(|| Maintenance::new(keep_week, times))
            .join(reply);
    }

    /// One bounded piece of the hourly work.
    fn maintain_slice(&mut self) {
        let Some(mut maintenance) = self.maintenance.take() else {
            return;
        };
        match maintenance.slice(&self.opened.engine) {
            Ok(removed) => {
                self.relaxed_rows |= removed > 0;
                if maintenance.is_over() {
                    maintenance.finish(&Ok(()));
                } else {
                    self.maintenance = Some(maintenance);
                }
            }
            Err(error) => {
                self.maintenance = Some(maintenance);
                self.fail(error);
            }
        }
    }
}

impl Group {
    fn clear(&mut self) {
        self.batch.clear();
        if self.has_rows {
            self.rows.values_mut().for_each(HashMap::clear);
        }
        self.has_rows = false;
        self.conversations.clear();
        self.mids.clear();
        self.owns.clear();
        self.committed.clear();
        self.folded.clear();
        self.done.clear();
        self.is_durable = false;
        self.is_forced = false;
    }
}
