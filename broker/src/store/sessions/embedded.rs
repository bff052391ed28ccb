//! Sessions at rest on an embedded engine.
//!
//! A commit is worked out in memory first: rows of queues that come and go within it are never written, and a message is
//! written once, however many queues refer to it, and only while one does.

use std::collections::{HashMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use super::rows::{self, EXCHANGE, MESSAGE, QUEUE, RETAINED, SESSION, SUBSCRIPTION, WILL, Wall};
use super::{Found, SessionStore, load};
use crate::clock;
use crate::journal::{Change, MessageRow, QueueRow};
use crate::session::queue::Stored;
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
    /// How often each message is referred to.
    references: HashMap<u64, u32>,
    group: Group,
}

/// What has been gathered for a commit.
#[derive(Debug, Default)]
struct Group {
    batch: KvBatch,
    queue: HashMap<(u64, u64), Pending>,
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
            directory.set_ready()?;
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
            Change::Queued(row) => self.put(row, true),
            Change::Moved(row) => self.put(row, false),
            Change::Settled { session, at } => self.settle(session, at),
            Change::Retained(message) => {
                self.refer(message);
                let batch = &mut self.group.batch;
                batch.put(RETAINED, &rows::key(message), &[rows::FORMAT]);
            }
            Change::Cleared(message) => {
                self.release(message);
                self.group.batch.remove(RETAINED, &rows::key(message));
            }
            Change::Received { session, packet_id } => {
                if self.sessions.contains(&session) {
                    let key = rows::exchange(session, packet_id);
                    self.group.batch.put(EXCHANGE, &key, &[rows::FORMAT]);
                }
            }
            Change::Released { session, packet_id } => {
                let key = rows::exchange(session, packet_id);
                self.group.batch.remove(EXCHANGE, &key);
            }
        }
        Ok(())
    }

    fn put(&mut self, mut row: Box<QueueRow>, is_new: bool) {
        if !self.sessions.contains(&row.session) {
            return;
        }
        if is_new {
            self.refer(row.at.message);
        } else if row.released {
            self.release(row.at.message);
            row.at.message = 0;
        }
        let pending = self
            .group
            .queue
            .entry((row.session, row.at.place))
            .or_insert(Pending { is_new, row: None });
        pending.row = Some(row);
    }

    fn settle(&mut self, session: u64, at: Stored) {
        if !self.sessions.contains(&session) {
            return;
        }
        self.release(at.message);
        let key = (session, at.place);
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

    fn refer(&mut self, message: u64) {
        if message > 0 {
            *self.references.entry(message).or_default() += 1;
        }
    }

    /// One reference less. 0 stands for no message.
    fn release(&mut self, message: u64) {
        let Some(count) = self.references.get_mut(&message) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.references.remove(&message);
            self.group.loose.push(message);
        }
    }

    /// Removes a session with everything that belongs to it, in the engine and in this commit.
    fn end(&mut self, session: u64) -> Result<(), EngineError> {
        if !self.sessions.remove(&session) {
            return Ok(());
        }
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
            .extract_if(|(owner, _), _| *owner == session)
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
        for table in [SUBSCRIPTION, EXCHANGE] {
            for key in self.keys_of(table, session)? {
                self.group.batch.remove(table, &key);
            }
        }
        self.group.batch.remove(WILL, &rows::key(session));
        self.group.batch.remove(SESSION, &rows::key(session));
        Ok(())
    }

    /// The keys of a session's rows in the engine and in this commit.
    fn keys_of(&self, table: Table, session: u64) -> Result<Vec<Vec<u8>>, EngineError> {
        let prefix = rows::key(session);
        let lines = self.group.batch.lines();
        let mut keys: Vec<Vec<u8>> = lines
            .filter(|(of, key, value)| *of == table && value.is_some() && key.starts_with(&prefix))
            .map(|(_, key, _)| key.to_vec())
            .collect();
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

    /// Puts the rows of queues and messages into the batch.
    fn gather(&mut self) {
        let Group {
            batch,
            queue,
            messages,
            loose,
        } = &mut self.group;
        for ((session, place), pending) in queue.drain() {
            let key = rows::pair(session, place);
            match pending.row {
                Some(row) => batch.put_with(QUEUE, &key, |out| rows::write_queue(out, &row)),
                None => batch.remove(QUEUE, &key),
            }
        }
        for message in loose.drain(..) {
            let is_new = messages.contains_key(&message);
            if !self.references.contains_key(&message) && !is_new {
                batch.remove(MESSAGE, &rows::key(message));
            }
        }
        let wall = self.wall;
        for (number, row) in messages.drain() {
            if self.references.contains_key(&number) {
                batch.put_with(MESSAGE, &rows::key(number), |out| {
                    rows::write_message(out, &row, wall);
                });
            }
        }
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
        self.gather();
        if self.group.batch.is_empty() {
            return Ok(());
        }
        let row = self.next_row();
        row.put(&mut self.group.batch);
        self.engine.commit_durable(&self.group.batch)?;
        self.written += self.group.batch.bytes();
        self.group.batch.clear();
        self.durable = row.number;
        self.last = row;
        Ok(())
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
