//! Sessions at rest on an embedded engine.
//!
//! A commit is worked out in memory first: rows of queues that come and go within it are never written, and a message is
//! written once, however many queues refer to it, and only while one does: within the row of the queue if that is the only
//! one and the message is small, else apart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use super::rows::{self, EXCHANGE, MESSAGE, QUEUE, RETAINED, SESSION, SUBSCRIPTION, WILL, Wall};
use super::sent::Sent;
use super::{Found, SessionStore, load};
use crate::clock;
use crate::journal::{Change, MessageRow, QueueRow};
use crate::session::queue::{Stored, size};
use crate::store::budget::{Budget, DiskGuard};
use crate::store::directory::Directory;
use crate::store::kv::{EngineError, KeyRange, KvBatch, KvEngine, Order, Table};
use crate::store::recover::{CommitRow, recover};
use crate::store::watermark::Watermark;

/// The schema of the rows written today.
pub(super) const SCHEMA: u32 = 1;

/// Sessions on an engine.
#[derive(Debug)]
pub(super) struct EmbeddedSessions<K> {
    engine: K,
    watermark: Option<Watermark>,
    /// Released after the engine.
    _directory: Option<Directory>,
    wall: Wall,
    last: CommitRow,
    /// Number of the last durable commit.
    durable: u64,
    /// Bytes written since the disk was looked at last.
    written: usize,
    /// When the broker was last known to be alive, before this start.
    alive_ms: u64,
    /// Sessions that have a row: what comes for others is too late.
    sessions: HashSet<u64>,
    /// Where each message is, and how often it is referred to.
    references: HashMap<u64, Reference>,
    /// Rows that were sent, and are not written as such yet.
    sent: Sent,
    group: Group,
}

/// Where a message is at rest, or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// In a row of its own, which so many others refer to.
    Apart(u32),
    /// Within the only row that refers to it.
    Within(Home),
    /// It was within this row, which goes with this commit.
    Left(Home),
}

/// The row of a queue that a message is within: its session and its place.
pub(super) type Home = (u64, u64);

/// What has been gathered for a commit.
#[derive(Debug, Default)]
struct Group {
    batch: KvBatch,
    queue: BTreeMap<(u64, u64), Pending>,
    /// Keys of subscriptions and exchanges that are in the batch, by session.
    rows: HashMap<u64, Vec<(Table, Vec<u8>)>>,
    /// Messages that are not written yet.
    messages: HashMap<u64, MessageRow>,
    /// Messages that nothing refers to, at least for the moment.
    loose: Vec<u64>,
}

/// A row of a queue within a commit.
#[derive(Debug)]
struct Pending {
    /// It is not in the engine.
    is_new: bool,
    /// `None`: removed.
    row: Option<Box<QueueRow>>,
}

impl Group {
    /// A small row of a session is in the batch.
    fn note(&mut self, session: u64, table: Table, key: &[u8]) {
        let rows = self.rows.entry(session).or_default();
        rows.push((table, key.to_vec()));
    }
}

impl<K: KvEngine> EmbeddedSessions<K> {
    /// Checks an engine. Without a directory there is no lock and no commit watermark.
    pub(super) fn open(
        engine: K,
        mut directory: Option<Directory>,
        accept_loss: bool,
        wall: Wall,
    ) -> Result<Self, EngineError> {
        let mut watermark = directory.as_ref().map(Directory::watermark).transpose()?;
        let is_new = directory
            .as_ref()
            .is_none_or(|directory| directory.is_new() || accept_loss);
        let last = recover(&engine, SCHEMA, watermark.as_mut(), is_new, accept_loss)?;
        if let Some(directory) = &mut directory {
            directory.set_ready(super::rows::TABLES)?;
        }
        Ok(Self {
            engine,
            watermark,
            _directory: directory,
            wall,
            // The first commit has taken over the time of the one before.
            alive_ms: last.clock_ms,
            durable: last.number,
            written: 0,
            last,
            sessions: HashSet::new(),
            references: HashMap::new(),
            sent: Sent::new(wall.moment()),
            group: Group::default(),
        })
    }

    fn apply(&mut self, change: Change) -> Result<(), EngineError> {
        match change {
            Change::Session(row) => {
                self.sessions.insert(row.number);
                let (batch, wall) = (&mut self.group.batch, self.wall);
                batch.put_with(SESSION, &rows::key(row.number), |out| {
                    rows::write_session(out, &row, wall);
                });
            }
            Change::End(session) => self.end(session)?,
            Change::Will(row) => {
                if self.sessions.contains(&row.session) {
                    let (batch, wall) = (&mut self.group.batch, self.wall);
                    batch.put_with(WILL, &rows::key(row.session), |out| {
                        rows::write_will(out, &row, wall);
                    });
                }
            }
            Change::NoWill(session) => self.group.batch.remove(WILL, &rows::key(session)),
            Change::Subscription(row) => {
                if self.sessions.contains(&row.session) {
                    let key = rows::pair(row.session, row.number);
                    let batch = &mut self.group.batch;
                    batch.put_with(SUBSCRIPTION, &key, |out| {
                        rows::write_subscription(out, &row);
                    });
                    self.group.note(row.session, SUBSCRIPTION, &key);
                }
            }
            Change::Unsubscribed { session, number } => {
                let key = rows::pair(session, number);
                self.group.batch.remove(SUBSCRIPTION, &key);
            }
            Change::Message(row) => {
                self.group.loose.push(row.number);
                self.group.messages.insert(row.number, row);
            }
            Change::Queued(row) => self.put(row, true)?,
            Change::Moved(row) => self.put(row, false)?,
            Change::Settled { session, at } => self.settle(session, at),
            Change::Retained { number, owner } => {
                self.refer(number)?;
                let batch = &mut self.group.batch;
                batch.put_with(RETAINED, &rows::key(number), |out| {
                    rows::write_retained(out, owner.as_deref());
                });
            }
            Change::Cleared(message) => {
                self.release(message);
                self.group.batch.remove(RETAINED, &rows::key(message));
            }
            Change::Received { session, packet_id } => {
                if self.sessions.contains(&session) {
                    let key = rows::exchange(session, packet_id);
                    self.group.batch.put(EXCHANGE, &key, &[rows::FORMAT]);
                    self.group.note(session, EXCHANGE, &key);
                }
            }
            Change::Released { session, packet_id } => {
                let key = rows::exchange(session, packet_id);
                self.group.batch.remove(EXCHANGE, &key);
            }
        }
        Ok(())
    }

    fn put(&mut self, mut row: Box<QueueRow>, is_new: bool) -> Result<(), EngineError> {
        if !self.sessions.contains(&row.session) {
            return Ok(());
        }
        if is_new {
            self.refer(row.at.message)?;
        } else if row.released {
            self.release(row.at.message);
            row.at.message = 0;
        }
        let home = (row.session, row.at.place);
        if !is_new && Sent::takes(&row) {
            self.sent.insert(home, row);
            return Ok(());
        }
        if !is_new {
            // What is found as sent goes first: no message may be overtaken by one that was sent after it.
            let earlier = self.sent.take_of(row.session);
            self.gather_sent(earlier);
        }
        let pending = self.group.queue.entry(home);
        pending.or_insert(Pending { is_new, row: None }).row = Some(row);
        Ok(())
    }

    fn settle(&mut self, session: u64, at: Stored) {
        if !self.sessions.contains(&session) {
            return;
        }
        self.release(at.message);
        let key = (session, at.place);
        self.sent.remove(key);
        if self.group.queue.get(&key).is_some_and(|it| it.is_new) {
            self.group.queue.remove(&key);
        } else {
            let removed = Pending {
                is_new: false,
                row: None,
            };
            self.group.queue.insert(key, removed);
        }
    }

    /// One reference more. 0 stands for no message.
    fn refer(&mut self, message: u64) -> Result<(), EngineError> {
        if message == 0 {
            return Ok(());
        }
        let reference = self.references.entry(message);
        let reference = reference.or_insert(Reference::Apart(0));
        match *reference {
            Reference::Apart(count) => *reference = Reference::Apart(count + 1),
            Reference::Within(home) => {
                *reference = Reference::Apart(2);
                let row = Box::new(self.take_out(message, home)?);
                let row = Some(self.sent.remove(home).unwrap_or(row));
                let is_new = false;
                let pending = self.group.queue.entry(home);
                pending.or_insert(Pending { is_new, row });
            }
            Reference::Left(home) => {
                *reference = Reference::Apart(1);
                self.take_out(message, home)?;
            }
        }
        Ok(())
    }

    /// Gives a message that is within the row of a queue a row of its own. Returns that of the queue.
    fn take_out(&mut self, message: u64, home: Home) -> Result<QueueRow, EngineError> {
        let value = within(&self.engine, home)?;
        let (row, body) = rows::read_queue(home.0, home.1, &value)?;
        let body = body.ok_or_else(|| missing(home))?;
        let batch = &mut self.group.batch;
        batch.put_with(MESSAGE, &rows::key(message), |out| {
            out.push(rows::FORMAT);
            out.extend_from_slice(body);
        });
        Ok(row)
    }

    /// One reference less. 0 stands for no message.
    fn release(&mut self, message: u64) {
        let Some(reference) = self.references.get_mut(&message) else {
            return;
        };
        match *reference {
            Reference::Apart(count) if count > 1 => *reference = Reference::Apart(count - 1),
            Reference::Apart(_) => {
                self.references.remove(&message);
                self.group.loose.push(message);
            }
            Reference::Within(home) => {
                *reference = Reference::Left(home);
                self.group.loose.push(message);
            }
            Reference::Left(_) => {}
        }
    }

    /// Removes a session with everything that belongs to it, in the engine and in this commit.
    fn end(&mut self, session: u64) -> Result<(), EngineError> {
        if !self.sessions.remove(&session) {
            return Ok(());
        }
        drop(self.sent.take_of(session));
        let mut settled = Vec::new();
        let (from, to) = (rows::pair(session, 0), rows::pair(session, u64::MAX));
        let range = KeyRange::closed(&from, &to);
        let mut bad = None;
        self.engine
            .scan(QUEUE, range, Order::Ascending, &mut |key, value| {
                let row = rows::read_key(QUEUE, key)
                    .and_then(|[_, place]: [u64; 2]| Ok((place, rows::read_reference(value)?)));
                match row {
                    Ok(row) => settled.push(row),
                    Err(error) => bad = Some(error),
                }
                ControlFlow::Continue(())
            })?;
        bad.map_or(Ok(()), Err)?;
        let pending: Vec<_> = self
            .group
            .queue
            .extract_if((session, 0)..=(session, u64::MAX), |_, _| true)
            .collect();
        let known: HashSet<u64> = pending.iter().map(|((_, place), _)| *place).collect();
        for (place, message) in settled {
            if !known.contains(&place) {
                self.release(message);
            }
            self.group.batch.remove(QUEUE, &rows::pair(session, place));
        }
        for (_, pending) in pending {
            if let Some(row) = pending.row {
                self.release(row.at.message);
            }
        }
        for (table, key) in self.group.rows.remove(&session).unwrap_or_default() {
            self.group.batch.remove(table, &key);
        }
        for table in [SUBSCRIPTION, EXCHANGE] {
            for key in self.keys_of(table, session)? {
                self.group.batch.remove(table, &key);
            }
        }
        self.group.batch.remove(WILL, &rows::key(session));
        self.group.batch.remove(SESSION, &rows::key(session));
        Ok(())
    }

    /// The keys of a session's rows in the engine.
    fn keys_of(&self, table: Table, session: u64) -> Result<Vec<Vec<u8>>, EngineError> {
        let prefix = rows::key(session);
        let mut keys = Vec::new();
        let range = KeyRange {
            from: Bound::Included(&prefix),
            to: Bound::Unbounded,
        };
        self.engine
            .scan(table, range, Order::Ascending, &mut |key, _| {
                if !key.starts_with(&prefix) {
                    return ControlFlow::Break(());
                }
                keys.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
        Ok(keys)
    }

    /// These rows are held back no longer.
    fn gather_sent(&mut self, sent: BTreeMap<Home, Box<QueueRow>>) {
        for (home, row) in sent {
            let unknown = Pending {
                is_new: false,
                row: None,
            };
            let pending = self.group.queue.entry(home);
            pending.or_insert(unknown).row = Some(row);
        }
    }

    /// Puts the rows of queues and messages into the batch.
    fn gather(&mut self) -> Result<(), EngineError> {
        let Group {
            batch,
            queue,
            rows: _,
            messages,
            loose,
        } = &mut self.group;
        let (references, wall) = (&mut self.references, self.wall);
        for (home @ (session, place), pending) in std::mem::take(queue) {
            let key = rows::pair(session, place);
            let Some(row) = pending.row else {
                batch.remove(QUEUE, &key);
                continue;
            };
            let message = row.at.message;
            match references.get_mut(&message) {
                Some(reference @ Reference::Apart(1))
                    if let Some(body) = messages.get(&message).filter(|it| is_small(it)) =>
                {
                    *reference = Reference::Within(home);
                    batch.put_with(QUEUE, &key, |out| {
                        rows::write_queue(out, &row, true);
                        rows::write_body(out, body, wall);
                    });
                    messages.remove(&message);
                }
                Some(Reference::Within(_)) => {
                    let value = within(&self.engine, home)?;
                    let (_, body) = rows::read_queue(session, place, &value)?;
                    let body = body.ok_or_else(|| missing(home))?;
                    batch.put_with(QUEUE, &key, |out| {
                        rows::write_queue(out, &row, true);
                        out.extend_from_slice(body);
                    });
                }
                _ => batch.put_with(QUEUE, &key, |out| rows::write_queue(out, &row, false)),
            }
        }
        for message in loose.drain(..) {
            match references.get(&message) {
                Some(Reference::Left(_)) => drop(references.remove(&message)),
                None if !messages.contains_key(&message) => {
                    batch.remove(MESSAGE, &rows::key(message));
                }
                _ => {}
            }
        }
        for (number, row) in messages.drain() {
            if references.contains_key(&number) {
                batch.put_with(MESSAGE, &rows::key(number), |out| {
                    rows::write_message(out, &row, wall);
                });
            }
        }
        Ok(())
    }

    /// Commits what has been gathered, and these rows that were sent.
    fn write(&mut self, sent: BTreeMap<Home, Box<QueueRow>>) -> Result<(), EngineError> {
        self.gather_sent(sent);
        self.gather()?;
        if self.group.batch.is_empty() {
            return Ok(());
        }
        let row = self.next_row();
        row.put(&mut self.group.batch);
        self.engine.commit_durable(&self.group.batch)?;
        self.written += self.group.batch.bytes();
        self.group.batch.clear();
        self.group.rows.clear();
        self.durable = row.number;
        self.last = row;
        Ok(())
    }

    fn next_row(&self) -> CommitRow {
        CommitRow {
            number: self.last.number + 1,
            clock_ms: self.wall.ms_of(clock::now()),
        }
    }
}

impl<K: KvEngine> SessionStore for EmbeddedSessions<K> {
    fn load(&mut self, now: Instant) -> Result<Found, EngineError> {
        let loaded = load::load(&self.engine, self.wall, self.alive_ms, now)?;
        let sessions = loaded.found.sessions.iter();
        self.sessions = sessions.map(|session| session.number).collect();
        self.references = loaded.references;
        self.group.batch = loaded.mends;
        self.commit(&mut std::iter::empty())?;
        Ok(loaded.found)
    }

    fn commit(&mut self, changes: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError> {
        for change in changes {
            self.apply(change)?;
        }
        let overdue = self.sent.overdue(clock::now());
        self.write(overdue)
    }

    fn holds_back(&self) -> bool {
        !self.sent.is_empty()
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        let rest = self.sent.take();
        self.write(rest)?;
        self.beat()
    }

    fn budget(&mut self, guard: &mut DiskGuard) -> Result<Budget, EngineError> {
        guard.note_written(std::mem::take(&mut self.written));
        let now = clock::now().saturating_duration_since(self.wall.moment());
        guard.check(&self.engine, now)
    }

    fn beat(&mut self) -> Result<(), EngineError> {
        // Until when the broker was alive matters to sessions only.
        if !self.sessions.is_empty() {
            let row = self.next_row();
            let mut batch = KvBatch::default();
            row.put(&mut batch);
            self.engine.commit_relaxed(&batch)?;
            self.last = row;
        }
        if let Some(watermark) = &mut self.watermark {
            watermark
                .write(self.durable)
                .map_err(|error| EngineError::Io(format!("commit watermark: {error}")))?;
        }
        Ok(())
    }
}

/// Is it small enough to be written again when its row moves?
fn is_small(message: &MessageRow) -> bool {
    size(&message.publish) <= WITHIN_BYTES_MAX
}

/// The row that a message is within.
fn within(engine: &impl KvEngine, home: Home) -> Result<Vec<u8>, EngineError> {
    let value = engine.get(QUEUE, &rows::pair(home.0, home.1))?;
    value.ok_or_else(|| missing(home))
}

fn missing((session, place): Home) -> EngineError {
    EngineError::Corrupt(format!(
        "the message at place {place} of session {session} is missing"
    ))
}

/// Most bytes in memory of a message that is written within the row of a queue.
const WITHIN_BYTES_MAX: usize = 1024;
