//! The local store: conversations, the log, the feed and the outbox at rest, in verbs of the SDK.
//!
//! Each verb that writes is one commit, and durable once it returns. Verbs block: the worker and the client call them on the
//! blocking pool, by [`run`]. Nothing here knows of connections.

mod account;
mod engine;
mod feed;
mod gap;
mod log;
mod outbox;
mod read;
mod rows;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use prost::Message;
use proto::ids::{ConversationId, UserId};

pub(crate) use self::account::Profile;
use self::engine::{Engine, Order, Row, Writes};
pub(crate) use self::log::{Inbound, Page, Stale, Taken};
pub(crate) use self::outbox::{Queued, Settled};
pub(crate) use self::read::{Known, SearchPlace};
use self::rows::{Meta, Positions, SCHEMA};
pub(crate) use self::rows::{OutboxKind, OutboxRow};
use crate::clock::{self, ServerTime};
use crate::config::Storage;
use crate::error::{Error, StoreError};

/// Runs a verb where it may block.
///
/// # Errors
/// What the verb says; [`Error::Closed`] if the runtime ends.
pub(crate) async fn run<T: Send + 'static>(
    store: &Arc<Store>,
    verb: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || verb(&store)).await {
        Ok(done) => done.map_err(Error::from),
        Err(_) => Err(Error::Closed),
    }
}

/// The local store of one user on one device.
pub(crate) struct Store {
    /// `None` once it was closed.
    engine: RwLock<Option<Engine>>,
    /// Writes one after the other. After a failure none at all: what was not made durable must not be built upon.
    writer: Mutex<Result<(), StoreError>>,
    /// Rows of the outbox; changed by the writer only.
    queued: AtomicUsize,
    /// Rows of the feed; changed by the writer only.
    fed: AtomicU64,
    time: ServerTime,
    /// Entries wait for the app.
    feeds: bool,
    durable: bool,
}

impl Store {
    /// Opens or makes it. `device` is the Client Identifier of one that is made.
    pub(crate) fn open(
        storage: &Storage,
        device: Option<&str>,
        feeds: bool,
    ) -> Result<Self, StoreError> {
        let (engine, durable) = match storage {
            Storage::Memory => (Engine::memory(), false),
            Storage::Folder(folder) => (Engine::open(folder)?, true),
        };
        let store = Self {
            engine: RwLock::new(Some(engine)),
            writer: Mutex::new(Ok(())),
            queued: AtomicUsize::new(0),
            fed: AtomicU64::new(0),
            time: ServerTime::default(),
            feeds,
            durable,
        };
        store.prepare(device)?;
        store.fed.store(store.count_fed()?, Ordering::Relaxed);
        store.queued.store(store.outbox()?.len(), Ordering::Relaxed);
        Ok(store)
    }

    fn prepare(&self, device: Option<&str>) -> Result<(), StoreError> {
        self.write(|txn| {
            match txn.number(Meta::Schema)? {
                0 => {
                    txn.put_number(Meta::Schema, SCHEMA);
                    txn.begin_feed();
                }
                SCHEMA => txn.leap_feed()?,
                found => {
                    let known = SCHEMA;
                    return Err(StoreError::Newer { found, known });
                }
            }
            if txn.text(Meta::ClientId)?.is_none() {
                let by_chance = || format!("sdk-{}", uuid::Uuid::now_v7().simple());
                let device = device.map_or_else(by_chance, str::to_owned);
                txn.put(Meta::ClientId.key(), device.into_bytes());
            }
            Ok(())
        })
    }

    /// Does it outlive the process?
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// The time by which bodies end, in ms since 1970: that of the server, as soon as it has said anything.
    pub(crate) fn now_ms(&self) -> u64 {
        self.time.now_ms().unwrap_or_else(clock::wall_ms)
    }

    /// Has the server said what time it is?
    pub(crate) fn knows_time(&self) -> bool {
        self.time.now_ms().is_some()
    }

    /// The MQTT Client Identifier of this device.
    pub(crate) fn client_id(&self) -> Result<String, StoreError> {
        let text = self.view().text(Meta::ClientId)?;
        text.ok_or_else(|| StoreError::Damaged("no client id".to_owned()))
    }

    /// Ends it: the folder is free when this returns. Waits for verbs that are under way.
    pub(crate) fn close(&self) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn view(&self) -> Txn<'_> {
        Txn {
            engine: self.engine.read().unwrap_or_else(PoisonError::into_inner),
            writes: Writes::new(),
            me: None,
            now: self.now_ms(),
            queued_more: 0,
            fed_more: 0,
            feeds: self.feeds,
        }
    }

    fn write<T>(
        &self,
        verb: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.clone()?;
        let mut txn = self.view();
        txn.me = txn.text(Meta::Uid)?.and_then(|uid| uid.parse().ok());
        let done = verb(&mut txn)?;
        if !txn.writes.is_empty()
            && let Err(error) = txn.engine()?.commit(&txn.writes)
        {
            *writer = Err(error.clone());
            return Err(error);
        }
        let queued = self.queued.load(Ordering::Relaxed);
        let queued = queued.saturating_add_signed(txn.queued_more);
        self.queued.store(queued, Ordering::Relaxed);
        let fed = self.waiting().saturating_add_signed(txn.fed_more);
        self.fed.store(fed, Ordering::Relaxed);
        Ok(done)
    }
}

/// Rows as they are and as they will be.
struct Txn<'a> {
    engine: RwLockReadGuard<'a, Option<Engine>>,
    writes: Writes,
    /// Whose store it is, once that is known.
    me: Option<UserId>,
    now: u64,
    /// So many more rows in the outbox.
    queued_more: isize,
    /// So many more rows in the feed.
    fed_more: i64,
    feeds: bool,
}

impl Txn<'_> {
    fn engine(&self) -> Result<&Engine, StoreError> {
        self.engine.as_ref().ok_or(StoreError::Closed)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.engine()?.get(key),
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// At most `limit` rows of a range, from this end of it.
    fn range(
        &self,
        range: Range<Vec<u8>>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let bounds = range.start.as_slice()..range.end.as_slice();
        if bounds.start >= bounds.end {
            return Ok(Vec::new());
        }
        let written: Vec<_> = self.writes.range(range.clone()).collect();
        let mut rows = self.engine()?.range(bounds, order, limit + written.len())?;
        if written.is_empty() {
            return Ok(rows);
        }
        rows.retain(|(key, _)| !self.writes.contains_key(key));
        rows.extend(written.into_iter().filter_map(|(key, value)| {
            let value = value.as_ref()?;
            Some((key.clone(), value.clone()))
        }));
        rows.sort();
        if order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// At most `limit` rows that begin with this prefix.
    fn prefix(&self, prefix: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let range = prefix.to_vec()..rows::behind(prefix);
        self.range(range, Order::Ascending, limit)
    }

    fn decoded<T: Message + Default>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|value| decode(&value)).transpose()
    }

    fn number(&self, meta: Meta) -> Result<u64, StoreError> {
        let value = self.get(&meta.key())?;
        Ok(value.as_deref().and_then(rows::number_of).unwrap_or(0))
    }

    fn put_number(&mut self, meta: Meta, number: u64) {
        self.put(meta.key(), number.to_be_bytes().to_vec());
    }

    fn text(&self, meta: Meta) -> Result<Option<String>, StoreError> {
        let value = self.get(&meta.key())?;
        let text = value.map(String::from_utf8).transpose();
        text.map_err(|_| StoreError::Damaged(format!("{meta:?} is not text")))
    }

    fn positions(&self, cid: ConversationId) -> Result<Positions, StoreError> {
        Ok(self.decoded(&rows::positions(cid))?.unwrap_or_default())
    }

    fn put_positions(&mut self, cid: ConversationId, positions: &Positions) {
        self.put(rows::positions(cid), positions.encode_to_vec());
    }
}

fn decode<T: Message + Default>(value: &[u8]) -> Result<T, StoreError> {
    T::decode(value).map_err(|error| StoreError::Damaged(error.to_string()))
}
