//! Reads everything that is at rest, once, at the start. What refers to nothing is removed, and who was connected is away
//! from then on, so that another start does not count again from the beginning.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::embedded::Reference;
use super::rows::{self, EXCHANGE, MESSAGE, QUEUE, RETAINED, SESSION, SUBSCRIPTION, WILL, Wall};
use super::{Found, FoundSession};
use crate::codec::packet::Publish;
use crate::journal::QueueRow;
use crate::registry::{PendingWill, expires_at};
use crate::router::Message;
use crate::session::Content;
use crate::session::queue::Queued;
use crate::store::kv::{EngineError, KeyRange, KvBatch, KvEngine, Order, Table};

/// What was found, and what is left to be done.
pub(super) struct Loaded {
    pub(super) found: Found,
    /// Where each message is, and how often it is referred to.
    pub(super) references: HashMap<u64, Reference>,
    /// Rows that are of no use, and those that say otherwise now.
    pub(super) mends: KvBatch,
}

struct Loader<'a, K> {
    engine: &'a K,
    wall: Wall,
    alive_ms: u64,
    now: Instant,
    messages: HashMap<u64, Kept>,
    sessions: BTreeMap<u64, FoundSession>,
    loaded: Loaded,
}

/// Reads everything. The broker was last known to be alive at `alive_ms`: whoever was connected is away since then.
pub(super) fn load(
    engine: &impl KvEngine,
    wall: Wall,
    alive_ms: u64,
    now: Instant,
) -> Result<Loaded, EngineError> {
    let mut loader = Loader {
        engine,
        wall,
        alive_ms: alive_ms.min(wall.ms_of(now)),
        now,
        messages: HashMap::new(),
        sessions: BTreeMap::new(),
        loaded: Loaded {
            found: Found::default(),
            references: HashMap::new(),
            mends: KvBatch::default(),
        },
    };
    loader.messages()?;
    loader.sessions()?;
    loader.wills()?;
    loader.subscriptions()?;
    loader.queues()?;
    loader.exchanges()?;
    loader.retained()?;
    Ok(loader.finish())
}

impl<K: KvEngine> Loader<'_, K> {
    fn messages(&mut self) -> Result<(), EngineError> {
        let mut last = 0;
        let (messages, wall) = (&mut self.messages, self.wall);
        each(self.engine, MESSAGE, &mut |key, value| {
            let [number] = rows::read_key(MESSAGE, key)?;
            messages.insert(number, kept(rows::read_message(value)?, wall));
            last = last.max(number);
            Ok(())
        })?;
        self.loaded.found.last_number = last;
        Ok(())
    }

    fn sessions(&mut self) -> Result<(), EngineError> {
        let (wall, alive_ms, now) = (self.wall, self.alive_ms, self.now);
        let Loaded { found, mends, .. } = &mut self.loaded;
        let sessions = &mut self.sessions;
        each(self.engine, SESSION, &mut |key, value| {
            let [number] = rows::read_key(SESSION, key)?;
            let mut row = rows::read_session(value)?;
            if row.away_ms == 0 {
                row.away_ms = alive_ms;
                mends.put_with(SESSION, key, |out| rows::write_session_found(out, &row));
            }
            let expires_at = if row.expiry == u32::MAX {
                expires_at(now, row.expiry)
            } else {
                let ends_ms = row.away_ms.saturating_add(u64::from(row.expiry) * 1000);
                // A wall clock that went back must not make a session live longer than it was to.
                let end = wall.moment_of(ends_ms).unwrap_or(now);
                end.min(expires_at(now, row.expiry))
            };
            found.last_session = found.last_session.max(number);
            sessions.insert(
                number,
                FoundSession {
                    number,
                    user: row.user,
                    name: row.name,
                    client_id: row.client_id,
                    expires_at,
                    will: None,
                    subscriptions: Vec::new(),
                    queue: VecDeque::new(),
                    next_place: 0,
                    inflight: Vec::new(),
                    received: Vec::new(),
                },
            );
            Ok(())
        })
    }

    fn wills(&mut self) -> Result<(), EngineError> {
        let (wall, alive_ms, now) = (self.wall, self.alive_ms, self.now);
        let (sessions, mends) = (&mut self.sessions, &mut self.loaded.mends);
        each(self.engine, WILL, &mut |key, value| {
            let [number] = rows::read_key(WILL, key)?;
            let Some(session) = sessions.get_mut(&number) else {
                mends.remove(WILL, key);
                return Ok(());
            };
            let mut will = rows::read_will(value)?;
            if will.due_ms == 0 {
                will.due_ms = alive_ms.saturating_add(u64::from(will.delay) * 1000);
                mends.put_with(WILL, key, |out| rows::write_will_found(out, &will));
            }
            let due = wall.moment_of(will.due_ms).unwrap_or(now);
            session.will = Some(Box::new(PendingWill {
                due: due.min(session.expires_at),
                publish: will.publish,
                user: Arc::clone(&session.user),
                name: Arc::clone(&session.name),
                client_id: session.client_id.clone(),
            }));
            Ok(())
        })
    }

    fn subscriptions(&mut self) -> Result<(), EngineError> {
        let sessions = &mut self.sessions;
        let Loaded { found, mends, .. } = &mut self.loaded;
        each(self.engine, SUBSCRIPTION, &mut |key, value| {
            let [number, subscription] = rows::read_key(SUBSCRIPTION, key)?;
            let Some(session) = sessions.get_mut(&number) else {
                mends.remove(SUBSCRIPTION, key);
                return Ok(());
            };
            let row = rows::read_subscription(number, subscription, value)?;
            session.subscriptions.push(row);
            found.last_number = found.last_number.max(subscription);
            Ok(())
        })
    }

    fn queues(&mut self) -> Result<(), EngineError> {
        let Self {
            sessions,
            messages,
            loaded,
            wall,
            now,
            ..
        } = self;
        each(self.engine, QUEUE, &mut |key, value| {
            let [number, place] = rows::read_key(QUEUE, key)?;
            let (row, body) = rows::read_queue(number, place, value)?;
            let Some(session) = sessions.get_mut(&number) else {
                loaded.mends.remove(QUEUE, key);
                return Ok(());
            };
            session.next_place = session.next_place.max(place + 1);
            let (message, packet_id) = (row.at.message, row.packet_id);
            let found = match body {
                Some(body) => Some(kept(rows::read_body(body)?, *wall)),
                None => messages.get(&message).cloned(),
            };
            match (content(row, found, *now), packet_id) {
                (Some(Content::Message(queued)), None) => session.queue.push_back(queued),
                (Some(content), Some(packet_id)) => session.inflight.push((packet_id, content)),
                _ => {
                    loaded.mends.remove(QUEUE, key);
                    return Ok(());
                }
            }
            loaded.found.last_number = loaded.found.last_number.max(message);
            if body.is_some() {
                let within = Reference::Within((number, place));
                loaded.references.insert(message, within);
            } else if message > 0 {
                refer(&mut loaded.references, message);
            }
            Ok(())
        })
    }

    fn exchanges(&mut self) -> Result<(), EngineError> {
        let (sessions, mends) = (&mut self.sessions, &mut self.loaded.mends);
        each(self.engine, EXCHANGE, &mut |key, _| {
            let (number, packet_id) = rows::read_exchange(key)?;
            match sessions.get_mut(&number) {
                Some(session) => session.received.push(packet_id),
                None => mends.remove(EXCHANGE, key),
            }
            Ok(())
        })
    }

    fn retained(&mut self) -> Result<(), EngineError> {
        let Self {
            messages,
            loaded,
            now,
            ..
        } = self;
        each(self.engine, RETAINED, &mut |key, value| {
            let [number] = rows::read_key(RETAINED, key)?;
            match messages.get(&number) {
                Some((publish, expires_at)) if expires_at.is_none_or(|at| at > *now) => {
                    loaded.found.retained.push(Message {
                        publish: Arc::clone(publish),
                        expires_at: *expires_at,
                        number: Some(number),
                        owner: rows::read_retained(value)?,
                    });
                    refer(&mut loaded.references, number);
                }
                _ => loaded.mends.remove(RETAINED, key),
            }
            Ok(())
        })
    }

    fn finish(mut self) -> Loaded {
        let loaded = &mut self.loaded;
        for number in self.messages.keys() {
            if !loaded.references.contains_key(number) {
                loaded.mends.remove(MESSAGE, &rows::key(*number));
            }
        }
        loaded.found.sessions = self.sessions.into_values().collect();
        self.loaded
    }
}

/// A message, and when it expires.
type Kept = (Arc<Publish>, Option<Instant>);

/// A message as it was read, with when it expires; 0: never.
fn kept((publish, expires_ms): (Publish, u64), wall: Wall) -> Kept {
    let expires_at = Some(expires_ms)
        .filter(|ms| *ms > 0)
        .and_then(|ms| wall.moment_of(ms));
    (Arc::new(publish), expires_at)
}

/// One reference more to a message that has a row of its own.
fn refer(references: &mut HashMap<u64, Reference>, message: u64) {
    let reference = references.entry(message);
    if let Reference::Apart(count) = reference.or_insert(Reference::Apart(0)) {
        *count += 1;
    }
}

/// What a row of a queue stands for; `None` if its message is not there, or has expired before it was sent.
fn content(row: QueueRow, message: Option<Kept>, now: Instant) -> Option<Content> {
    if row.released {
        return Some(Content::Released(Some(row.at)));
    }
    let (publish, expires_at) = message?;
    let is_sent = row.packet_id.is_some();
    if !is_sent && expires_at.is_some_and(|at| at <= now) {
        return None;
    }
    Some(Content::Message(Queued {
        publish,
        expires_at,
        qos: row.qos,
        retain: row.retain,
        subscription_identifiers: row.subscription_identifiers,
        share: row.share,
        stored: Some(row.at),
    }))
}

/// What is called for each key and value.
type Read<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), EngineError> + 'a;

fn each(engine: &impl KvEngine, table: Table, read: &mut Read<'_>) -> Result<(), EngineError> {
    let mut result = Ok(());
    engine.scan(table, KeyRange::ALL, Order::Ascending, &mut |key, value| {
        result = read(key, value);
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    result
}
