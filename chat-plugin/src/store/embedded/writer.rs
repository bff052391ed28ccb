//! The writer thread: takes what waits, works it off through the rows of the very batch, commits once, answers.
//!
//! Nothing is rolled back here: what was changed in memory before a commit that failed is never looked at again, because
//! that failure poisons the store. What readers see (`heads`, the engine) changes only by a commit.

mod account;
mod acts;
mod append;
mod audit;
mod contacts;
mod control;
mod held;
mod joining;
mod purge;
mod queue;
mod readers;
mod reports;
mod scheduled;
mod search;
pub(super) mod waiting;

use std::collections::{HashMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use broker::store::budget::{Budget, DiskGuard};
use broker::store::kv::{EngineError, KeyRange, KvBatch, KvEngine, Order, Table};
use broker::store::recover::CommitRow;
use broker::store::watermark::Watermark;
use proto::ids::{ConversationId, MessageId, Seq, UserId};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use tokio::sync::mpsc::error::TrySendError;

use super::heads::Known;
use super::keys;
use super::overlay::Waiting;
use super::queue::{Job, Reply, Wake};
use super::upkeep::{self, Maintenance};
use super::values::{self, First};
use super::{Opened, Shared};
use crate::domain::audit::{AuditKeep, AuditLog};
use crate::domain::contact::Decided;
use crate::domain::device::Inflight;
use crate::domain::entry::Outcome;
use crate::domain::held::Holding;
use crate::domain::joining::Requested;
use crate::domain::member::Member;
use crate::domain::purge::Purged;
use crate::domain::queue::Queuing;
use crate::domain::scheduled::Scheduling;
use crate::store::{Committed, DroppedIds, Durability, Place, StoreError, tables};

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

    // -- jobs

    fn handle(&mut self, job: Job) {
        if let Job::Close(reply) = job {
            self.shared.queue.close();
            if let Some(earlier) = self.closing.replace(reply) {
                Done::Unit(earlier).finish(Ok(()));
            }
            return;
        }
        if let Some(error) = self.shared.condition.refusal() {
            return job.refuse(error);
        }
        match job {
            Job::Append(drafts, reply) => {
                // Also if it fails half-way: a retry is told of duplicates, which have to be durable.
                self.group.is_durable = true;
                let outcomes = self.append(drafts);
                self.answer(outcomes, reply, Durability::Durable, Done::Append);
            }
            Job::Settle(keys, reply) => {
                let result = self.settle(&keys);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::PutDevice(device, inflight, durability, reply) => {
                let result = self.put_device(&device, inflight.as_deref());
                self.answer(result, reply, durability, |reply, ()| Done::Unit(reply));
            }
            Job::TakeInflight(device, reply) => {
                let inflight = self.take_inflight(device);
                self.answer(inflight, reply, Durability::Relaxed, Done::Inflight);
            }
            Job::RemoveDevice(user, device, reply) => {
                let result = self.remove_device(user, device);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::PutShared(shared, max, reply) => {
                let had_room = self.put_shared(&shared, max);
                self.answer(had_room, reply, Durability::Durable, Done::Flag);
            }
            Job::QueueEvent(sent, reply) => {
                let queued = self.queue_event(&sent);
                self.answer(queued, reply, Durability::Durable, Done::Queuing);
            }
            Job::EndDeviceEvents(device, places, reply) => {
                self.end_device_events(device, &places);
                self.answer(Ok(()), reply, Durability::Relaxed, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::RemoveShared(user, id, reply) => {
                let result = self.remove_shared(user, id);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::EndExchanges(device, reply) => {
                let result = self.end_exchanges(device);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::EndExchange(device, packet_id, reply) => {
                let had = self.end_exchange(device, packet_id);
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::HandOut(user, conversations, reply) => {
                let version = self.hand_out(user, &conversations);
                self.answer(version, reply, Durability::Durable, Done::Number);
            }
            Job::NoteChanged(user, conversations, reply) => {
                let result = self.note_changed(user, &conversations);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::SetPreferences(user, conversation, preferences, reply) => {
                let result = self.set_preferences(user, conversation, preferences);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Place(conversation, user, mid, reply) => {
                let place = self.place_of(conversation, user, &mid);
                self.answer(place, reply, Durability::Relaxed, Done::Place);
            }
            Job::CreateUser(user, reply) => {
                let result = self.create_user(&user);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::UpdateUser(user, reply) => {
                let result = self.update_user(&user);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::ReplaceProfile(user, change, reply) => {
                let replaced = self.replace_profile(user, &change);
                self.answer(replaced, reply, Durability::Durable, Done::Flag);
            }
            Job::PutPresence(changes, reply) => {
                let result = self.put_presence(changes);
                self.answer(result, reply, Durability::Relaxed, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::ChangeContact(pair, change, bounds, reply) => {
                let decided = self.change_contact(pair, &change, bounds);
                self.answer(decided, reply, Durability::Durable, Done::Decided);
            }
            Job::ChangeHandle(user, handles, now_ms, reply) => {
                let has_changed = self.change_handle(user, &handles, now_ms);
                self.answer(has_changed, reply, Durability::Durable, Done::Flag);
            }
            Job::PutToken(token, reply) => {
                let result = self.put_token(&token);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::RemoveToken(user, id, reply) => {
                let had = self.remove_token(user, &id);
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::PutInvitation(invitation, hash, reply) => {
                let had_room = self.put_invitation(*invitation, hash);
                self.answer(had_room, reply, Durability::Durable, Done::Flag);
            }
            Job::RevokeInvitation(conversation, id, reply) => {
                let had = self.revoke_invitation(conversation, id);
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::AskToJoin(asked, reply) => {
                let requested = self.ask_to_join(&asked);
                self.answer(requested, reply, Durability::Durable, Done::Requested);
            }
            Job::DropJoinRequest(conversation, user, told, reply) => {
                let (tell, line) = *told;
                let had = self.drop_join_request((conversation, user), &tell, line.as_deref());
                self.answer(had, reply, Durability::Durable, Done::Flag);
            }
            Job::Hide(place, user, ts_ms, reply) => {
                let was_seen = self.hide(place, user, ts_ms);
                self.answer(was_seen, reply, Durability::Durable, Done::Flag);
            }
            Job::Schedule(scheduled, max, reply) => {
                let scheduling = self.schedule(&scheduled, max);
                self.answer(scheduling, reply, Durability::Durable, Done::Scheduling);
            }
            Job::Reschedule(change, reply) => {
                let was_so = self.reschedule(&change.0, change.1.as_ref());
                self.answer(was_so, reply, Durability::Durable, Done::Flag);
            }
            Job::Expire(now_ms, reply) => {
                let expired = self.expire(now_ms);
                self.answer(expired, reply, Durability::Relaxed, Done::Count);
            }
            Job::Purge(conversation, purge, reply) => {
                let purged = self.purge(conversation, *purge);
                self.answer(purged, reply, Durability::Durable, Done::Purged);
            }
            Job::BroadcastTo(at, after, reply) => {
                let result = self.broadcast_to(at, after);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Hold(held, reply) => {
                let (draft, reason) = *held;
                let holding = self.hold(draft, reason);
                self.answer(holding, reply, Durability::Durable, Done::Holding);
            }
            Job::RejectHeld(conversation, from, rejected, reply) => {
                let (mid, line) = *rejected;
                let was_held = self.reject_held((conversation, from, &mid), line.as_deref());
                self.answer(was_held, reply, Durability::Durable, Done::Flag);
            }
            Job::Forget(user, reply) => {
                let reports = self.forget_user(user);
                self.answer(reports, reply, Durability::Durable, Done::Count);
            }
            Job::Trust(now_ms, reply) => {
                let value = values::write_number(now_ms).to_vec();
                self.put(tables::TRUSTED, TRUSTED_KEY, value);
                self.answer(Ok(()), reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Report(report, reply) => {
                let is_it = self.report(&report);
                self.answer(is_it, reply, Durability::Durable, Done::Flag);
            }
            Job::SettleReport(key, line, reply) => {
                let was_open = self.settle_report(&key, line.as_deref());
                self.answer(was_open, reply, Durability::Durable, Done::Flag);
            }
            Job::CloseReport(key, reply) => {
                let was_there = self.close_report(&key);
                self.answer(was_there, reply, Durability::Durable, Done::Flag);
            }
            Job::DropIds(before, after, reply) => {
                let dropped = self.drop_ids(before, after.as_deref());
                self.answer(dropped, reply, Durability::Durable, Done::Ids);
            }
            Job::Audit(line, number, reply) => {
                let number = self.audit(&line, number);
                self.answer(number, reply, Durability::Durable, Done::Number);
            }
            Job::ForgetAudit(of, keys, reply) => {
                let (user, handle) = *of;
                let result = self.forget_audit((user, handle.as_ref()), &keys);
                self.answer(result, reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Flush(reply) => {
                self.fold_all();
                self.group.is_forced |= self.relaxed_rows;
                self.answer(Ok(()), reply, Durability::Durable, |reply, ()| {
                    Done::Unit(reply)
                });
            }
            Job::Maintain(now_ms, exchanges_from_ms, audit, reply) => {
                self.maintain((now_ms, exchanges_from_ms, audit), reply);
            }
            Job::Close(_) => {}
        }
    }

    /// Answers after the commit; a refusal at once.
    fn answer<T>(
        &mut self,
        result: Result<T, StoreError>,
        reply: Reply<T>,
        durability: Durability,
        done: impl FnOnce(Reply<T>, T) -> Done,
    ) {
        match result {
            Ok(value) => {
                self.group.is_durable |= durability == Durability::Durable;
                self.group.done.push(done(reply, value));
            }
            Err(error) => {
                if let StoreError::Unavailable(reason) = &error {
                    self.poison(reason.clone());
                }
                // A caller that no longer waits does not want the answer either.
                let _gone = reply.send(Err(error)).is_err();
            }
        }
    }

    // -- reading through the batch

    fn engine(&self) -> &K {
        &self.opened.engine
    }

    /// A row as it is within the batch.
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let rows = self.group.rows.get(&table);
        if let Some(row) = rows.and_then(|rows| rows.get(key)) {
            return Ok(row.clone());
        }
        self.engine().get(table, key)
    }

    /// Writes a row that may be looked up again within the batch.
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.group.batch.put(table, key, &value);
        self.note(table, key, Some(value));
    }

    fn remove(&mut self, table: Table, key: &[u8]) {
        self.group.batch.remove(table, key);
        self.note(table, key, None);
    }

    fn note(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        self.group.has_rows = true;
        let rows = self.group.rows.entry(table).or_default();
        rows.insert(key.to_vec(), value);
    }

    /// Commits what has been gathered, so that a scan of the engine sees it.
    fn barrier(&mut self) -> Result<(), StoreError> {
        if self.group.has_rows {
            self.commit();
        }
        self.shared.condition.refusal().map_or(Ok(()), Err)
    }

    fn keys(&self, table: Table, range: KeyRange<'_>) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut found = Vec::new();
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, _| {
                found.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    fn rows_in(&self, table: Table, range: KeyRange<'_>) -> Result<Vec<Row>, EngineError> {
        let mut found = Vec::new();
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    fn rows_of(&self, table: Table, user: UserId) -> Result<Vec<Row>, EngineError> {
        let mut found = Vec::new();
        let prefix = user.as_bytes().as_slice();
        let range = KeyRange {
            from: Bound::Included(prefix),
            to: Bound::Unbounded,
        };
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, value| {
                if !key.starts_with(prefix) {
                    return ControlFlow::Break(());
                }
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    /// A conversation as it is within the batch.
    fn conversation(&mut self, id: ConversationId) -> Result<Option<Known>, StoreError> {
        if let Some(pending) = self.group.conversations.get(&id) {
            return Ok(pending.now.clone());
        }
        let known = self.shared.heads.find(&self.opened.engine, id)?;
        let pending = Pending {
            before: known.clone(),
            now: known.clone(),
            is_changed: false,
            settings_changed: false,
        };
        self.group.conversations.insert(id, pending);
        Ok(known)
    }

    fn member(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<Member>, StoreError> {
        let seat = self.seat(conversation, user)?;
        Ok(seat.map(|(member, _)| member))
    }

    /// Where this key of idempotency was seen, in this batch, this week or the last one. The key's week is changed.
    fn first(
        &self,
        conversation: ConversationId,
        key: &mut [u8],
    ) -> Result<Option<First>, StoreError> {
        keys::set_week(key, 0);
        if let Some(first) = self.group.mids.get(&*key) {
            return Ok(Some(*first));
        }
        let pending = self.group.conversations.get(&conversation);
        if pending.is_some_and(|pending| pending.before.is_none()) {
            return Ok(None); // made in this batch: the engine knows nothing of it
        }
        let week = self.week();
        for week in [Some(week), week.checked_sub(1)].into_iter().flatten() {
            keys::set_week(key, week);
            if let Some(row) = self.engine().get(tables::IDEMPOTENCY, key)? {
                return values::read_first(&row).map(Some);
            }
        }
        Ok(None)
    }

    fn place_of(
        &self,
        conversation: ConversationId,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Place>, StoreError> {
        let mut key = Vec::new();
        keys::idempotency(&mut key, conversation, user, mid);
        let first = self.first(conversation, &mut key)?;
        Ok(first.map(|First { seq, ts_ms, digest }| Place { seq, ts_ms, digest }))
    }

    /// Number of own countable entries of a user.
    fn own_count(&mut self, conversation: ConversationId, user: UserId) -> Result<u64, StoreError> {
        let key = keys::member(conversation, user);
        if let Some(count) = self.group.owns.get(&key).or_else(|| self.owns.get(&key)) {
            return Ok(*count);
        }
        super::reads::own_before(self.engine(), conversation, user, Seq::MAX)
            .map(|last| last.map_or(0, |(_, count)| count))
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

    // -- commit

    fn commit(&mut self) {
        let follows_relaxed = self.group.is_durable && self.relaxed_rows;
        let is_nothing = self.group.batch.is_empty() && !self.group.is_forced && !follows_relaxed;
        if self.shared.condition.is_poisoned() {
            return self.fail_group();
        }
        if is_nothing {
            return self.finish_group();
        }
        let began = self.shared.clock.elapsed();
        if let Err(error) = self.commit_rows() {
            return self.fail(error);
        }
        self.measure(began);
        for (id, pending) in self.group.conversations.drain() {
            if let Pending {
                now: Some(known),
                is_changed: true,
                ..
            } = pending
            {
                self.shared.heads.publish(id, known);
            }
        }
        for (key, count) in self.group.owns.drain() {
            self.owns.insert(key, count);
        }
        self.feed();
        self.shared.overlay.settle(&self.group.folded);
        self.finish_group();
    }

    fn commit_rows(&mut self) -> Result<(), StoreError> {
        let batch = &mut self.group.batch;
        for (id, pending) in &self.group.conversations {
            let Pending {
                now: Some(known),
                is_changed: true,
                ..
            } = pending
            else {
                continue;
            };
            let key = keys::cid(*id);
            batch.put_with(tables::CONVERSATION, &key, |out| {
                values::write_head(out, &known.head);
            });
            if pending.settings_changed {
                let value = values::write_settings(&known.settings)?;
                batch.put(tables::SETTINGS, &key, &value);
                let settings = &known.settings;
                if settings.retention_days > 0 || settings.retention_messages > 0 {
                    batch.put(tables::LIMITED, &key, values::PRESENT);
                } else {
                    batch.remove(tables::LIMITED, &key);
                }
            }
        }
        let row = CommitRow {
            number: self.last.number + 1,
            clock_ms: self.uptime_ms(),
        };
        let batch = &mut self.group.batch;
        row.put(batch);
        if self.group.is_durable {
            self.opened.engine.commit_durable(batch)?;
            self.durable = row.number;
            self.relaxed_rows = false;
        } else {
            self.opened.engine.commit_relaxed(batch)?;
            self.relaxed_rows = true;
        }
        self.disk.note_written(batch.bytes());
        self.last = row;
        Ok(())
    }

    fn measure(&self, began: Duration) {
        let metrics = &self.shared.metrics;
        let committed = self.group.committed.iter();
        metrics
            .entries
            .add(committed.filter(|one| one.entry.is_some()).count());
        if self.group.is_durable {
            let took = self.shared.clock.elapsed().saturating_sub(began);
            metrics.commits.note(took, self.group.done.len());
        }
    }

    /// Tells the receiver of the feed, and waits while it has no room.
    fn feed(&mut self) {
        let Some(sender) = self.shared.feed_sender() else {
            self.group.committed.clear();
            return;
        };
        for committed in self.group.committed.drain(..) {
            let mut waiting = committed;
            loop {
                match sender.try_send(waiting) {
                    Ok(()) => break,
                    Err(TrySendError::Full(back)) if !self.shared.queue.is_closed() => {
                        waiting = back;
                        std::thread::park_timeout(FEED_PAUSE);
                    }
                    Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                        self.shared.end_feed();
                        return;
                    }
                }
            }
        }
    }

    fn finish_group(&mut self) {
        for done in self.group.done.drain(..) {
            done.finish(Ok(()));
        }
        self.group.clear();
    }

    fn fail_group(&mut self) {
        let error = self.shared.condition.refusal().unwrap_or_else(|| {
            StoreError::Unavailable("a write could not be made durable".to_owned())
        });
        for done in self.group.done.drain(..) {
            done.finish(Err(error.clone()));
        }
        self.group.clear();
    }

    fn fail(&mut self, error: StoreError) {
        match error {
            StoreError::Unavailable(reason) => self.poison(reason),
            other => self.poison(other.to_string()),
        }
    }

    /// The end of all writing: whatever waits fails, readers keep the state before this batch.
    fn poison(&mut self, reason: String) {
        tracing::error!(%reason, "the store could not make a write durable and takes no more");
        let conversations = self.group.conversations.drain();
        let before = conversations.map(|(id, pending)| (id, pending.before));
        self.shared.heads.pin(before.collect());
        self.shared.condition.poison(reason);
        self.fail_group();
        if let Some(maintenance) = self.maintenance.take() {
            let refusal = self.shared.condition.refusal().map_or(Ok(()), Err);
            maintenance.finish(&refusal);
        }
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
