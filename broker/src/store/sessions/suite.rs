//! What sessions at rest have to do on every engine. Each test is a story told once, and run for each engine.

mod model;
mod writing;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::embedded::EmbeddedSessions;
use super::rows::{self, MESSAGE, QUEUE, Wall};
#[cfg(any(feature = "fjall", feature = "sled"))]
use super::{FORMAT, for_engine};
use super::{Found, FoundSession, SessionOptions, SessionStore};
use crate::clock;
use crate::codec::packet::{PacketId, Publish, Qos};
use crate::codec::properties::PublishProperties;
use crate::codec::topic::TopicFilter;
use crate::journal::{Change, MessageRow, QueueRow, SessionRow, SubscriptionRow, WillRow};
use crate::registry::PendingWill;
use crate::session::Content;
use crate::session::queue::Stored;
use crate::store::EngineKind;
#[cfg(any(feature = "fjall", feature = "sled"))]
use crate::store::directory::Directory;
use crate::store::kv::{EngineError, KeyRange, KvEngine, Order, Table};
use crate::store::memory::MemoryEngine;

/// The wall clock when a world begins.
const BEGIN_MS: u64 = 1_000_000;

/// A store that can be opened again, later.
struct World {
    options: SessionOptions,
    memory: Arc<MemoryEngine>,
    begin: Instant,
    /// How far the wall clock has gone on while the store was closed.
    passed_ms: u64,
    _home: TempDir,
}

impl World {
    fn new(engine: EngineKind) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self {
            options: SessionOptions {
                engine,
                directory: home.path().join("sessions"),
                memory_bytes: 8 * 1024 * 1024,
                disk_bytes_max: 0,
                accept_loss: false,
            },
            memory: Arc::default(),
            begin: clock::now(),
            passed_ms: 0,
            _home: home,
        }
    }

    fn try_open(&self) -> Result<Box<dyn SessionStore>, EngineError> {
        let wall = Wall::new(self.begin, BEGIN_MS + self.passed_ms);
        let options = &self.options;
        #[cfg(any(feature = "fjall", feature = "sled"))]
        let directory = || Directory::open(&options.directory, FORMAT, options.engine.name());
        match options.engine {
            #[cfg(feature = "fjall")]
            EngineKind::Fjall => {
                let directory = directory()?;
                let engine =
                    crate::store::fjall::FjallEngine::open(&directory, &for_engine(options))?;
                let store = EmbeddedSessions::open(engine, Some(directory), false, wall)?;
                Ok(Box::new(store))
            }
            #[cfg(feature = "sled")]
            EngineKind::Sled => {
                let directory = directory()?;
                let engine =
                    crate::store::sled::SledEngine::open(&directory, &for_engine(options))?;
                let store = EmbeddedSessions::open(engine, Some(directory), false, wall)?;
                Ok(Box::new(store))
            }
            _ => {
                let engine = Arc::clone(&self.memory);
                Ok(Box::new(EmbeddedSessions::open(engine, None, false, wall)?))
            }
        }
    }

    fn open(&self) -> (Box<dyn SessionStore>, Found) {
        let mut store = self.try_open().unwrap();
        let found = store.load(self.begin).unwrap();
        (store, found)
    }

    /// The same store as it would be found had the process been killed now: its files are copied while it is open.
    fn killed(&self) -> Self {
        let mut other = Self::new(self.options.engine);
        other.memory = Arc::clone(&self.memory);
        (other.begin, other.passed_ms) = (self.begin, self.passed_ms);
        if self.options.directory.exists() {
            copy(&self.options.directory, &other.options.directory);
        }
        other
    }

    fn after(&self, by: Duration) -> Instant {
        self.begin + by
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else if let Err(error) = std::fs::copy(file.path(), &target) {
            // Engines remove files while we look.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

fn commit(store: &mut Box<dyn SessionStore>, changes: Vec<Change>) {
    store.commit(&mut changes.into_iter()).unwrap();
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn publish(topic: &str, qos: Qos) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: None,
        payload: Bytes::from_static(b"hi"),
        properties: PublishProperties::default().into(),
    }
}

fn session(number: u64) -> Change {
    Change::Session(Box::new(SessionRow {
        number,
        user: "user".into(),
        name: "name".into(),
        client_id: format!("client-{number}").into(),
        expiry: 60,
        away_since: None,
    }))
}

fn message(number: u64, expires_at: Option<Instant>) -> Change {
    Change::Message(MessageRow {
        number,
        publish: Arc::new(publish(&format!("topic/{number}"), Qos::ExactlyOnce)),
        expires_at,
    })
}

/// Too large to be within the row of a queue.
fn large(number: u64) -> Change {
    let mut publish = publish(&format!("topic/{number}"), Qos::ExactlyOnce);
    publish.payload = Bytes::from_static(&[b'x'; 2048]);
    Change::Message(MessageRow {
        number,
        publish: Arc::new(publish),
        expires_at: None,
    })
}

fn row(session: u64, place: u64, message: u64) -> QueueRow {
    QueueRow {
        session,
        at: Stored { place, message },
        qos: Qos::ExactlyOnce,
        retain: false,
        subscription_identifiers: vec![7],
        share: None,
        packet_id: None,
        released: false,
    }
}

fn retained(number: u64) -> Change {
    let owner = Some("user".into());
    Change::Retained { number, owner }
}

fn queued(session: u64, place: u64, message: u64) -> Change {
    Change::Queued(Box::new(row(session, place, message)))
}

fn sent(session: u64, place: u64, message: u64, packet_id: u16) -> Change {
    let mut row = row(session, place, message);
    row.packet_id = Some(id(packet_id));
    Change::Moved(Box::new(row))
}

fn settled(session: u64, place: u64, message: u64) -> Change {
    let at = Stored { place, message };
    Change::Settled { session, at }
}

fn queue_of(session: &FoundSession) -> Vec<(u64, u64)> {
    let places = session.queue.iter().filter_map(|queued| queued.stored);
    places.map(|at| (at.place, at.message)).collect()
}

/// Runs each of these stories for every engine.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod memory {
            $(#[test]
            fn $story() {
                super::$story(&mut super::World::new(crate::store::EngineKind::Memory));
            })+
        }
        #[cfg(feature = "fjall")]
        mod fjall {
            $(#[test]
            fn $story() {
                super::$story(&mut super::World::new(crate::store::EngineKind::Fjall));
            })+
        }
        #[cfg(feature = "sled")]
        mod sled {
            $(#[test]
            fn $story() {
                super::$story(&mut super::World::new(crate::store::EngineKind::Sled));
            })+
        }
    };
}

stories!(
    everything_comes_back,
    what_a_killed_process_committed_is_there,
    an_ended_session_takes_everything_with_it,
    what_expired_meanwhile_is_gone,
    who_was_connected_is_away_since_then_however_often_the_broker_starts,
    what_refers_to_nothing_is_removed,
    what_comes_for_an_ended_session_is_too_late,
);

fn everything_comes_back(world: &mut World) {
    let (mut store, found) = world.open();
    assert!(found.sessions.is_empty() && found.retained.is_empty());
    let filter = |text: &str| TopicFilter::parse(text.to_owned().into()).unwrap();
    let subscription = SubscriptionRow {
        session: 1,
        number: 20,
        filter: filter("$share/g/a/+"),
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        identifier: Some(9),
    };
    let will = WillRow {
        session: 1,
        due: Some(world.after(Duration::from_secs(5))),
        delay: 0,
        publish: publish("will", Qos::AtLeastOnce),
    };
    commit(
        &mut store,
        vec![
            session(1),
            session(2),
            Change::Subscription(Box::new(subscription.clone())),
            Change::Will(Box::new(will.clone())),
            message(10, None),
            queued(1, 0, 10),
            queued(2, 0, 10),
            message(11, None),
            queued(1, 1, 11),
            message(12, None),
            queued(1, 2, 12),
            message(13, None),
            retained(13),
            Change::Received {
                session: 2,
                packet_id: id(7),
            },
        ],
    );
    commit(
        &mut store,
        vec![
            sent(1, 1, 11, 4),
            sent(1, 0, 10, 3),
            Change::Moved(Box::new(QueueRow::released(
                1,
                Stored {
                    place: 0,
                    message: 10,
                },
                id(3),
            ))),
        ],
    );
    drop(store);

    let (_store, found) = world.open();
    assert_eq!((found.last_session, found.last_number), (2, 20));
    let [one, two] = &found.sessions[..] else {
        panic!("{found:?}")
    };
    assert_eq!((&*one.user, &*one.client_id), ("user", "client-1"));
    assert_eq!(one.subscriptions, [subscription]);
    let pending = PendingWill {
        due: will.due.unwrap(),
        publish: will.publish,
        user: "user".into(),
        name: "name".into(),
        client_id: "client-1".into(),
    };
    assert_eq!(one.will.as_deref(), Some(&pending));
    assert_eq!(queue_of(one), [(2, 12)]);
    assert_eq!(one.next_place, 3);
    let [
        (released, Content::Released(Some(place))),
        (in_flight, Content::Message(queued)),
    ] = &one.inflight[..]
    else {
        panic!("{:?}", one.inflight)
    };
    assert_eq!((*released, *in_flight), (id(3), id(4)));
    assert_eq!((place.place, place.message), (0, 0));
    assert_eq!(&*queued.publish.topic, "topic/11");
    assert_eq!(queued.subscription_identifiers, [7]);
    assert_eq!(queue_of(two), [(0, 10)]);
    assert_eq!(two.received, [id(7)]);
    let topics: Vec<_> = found.retained.iter().map(|it| &*it.publish.topic).collect();
    let owners = found.retained.iter().map(|it| it.owner.as_deref());
    assert!(owners.eq([Some("user")]));
    assert_eq!(topics, ["topic/13"]);
}

fn what_a_killed_process_committed_is_there(world: &mut World) {
    let (mut store, _) = world.open();
    commit(&mut store, vec![session(1)]);
    for number in 1..=50 {
        let changes = vec![message(number, None), queued(1, number, number)];
        commit(&mut store, changes);
    }
    store.beat().unwrap();
    let killed = world.killed();
    let (mut store, found) = killed.open();
    let places: Vec<(u64, u64)> = (1..=50).map(|number| (number, number)).collect();
    assert_eq!(queue_of(&found.sessions[0]), places);
    // And goes on from there.
    commit(&mut store, vec![settled(1, 1, 1)]);
    drop(store);
    let (_store, found) = killed.open();
    assert_eq!(queue_of(&found.sessions[0]), places[1..]);
}

fn an_ended_session_takes_everything_with_it(world: &mut World) {
    let (mut store, _) = world.open();
    let everything = |from: u64| {
        vec![
            message(from, None),
            queued(1, from, from),
            queued(2, from, from),
            Change::Subscription(Box::new(SubscriptionRow {
                session: 1,
                number: 100 + from,
                filter: TopicFilter::parse("a".into()).unwrap(),
                qos: Qos::AtMostOnce,
                no_local: false,
                retain_as_published: false,
                identifier: None,
            })),
            Change::Received {
                session: 1,
                packet_id: id(u16::try_from(from).unwrap()),
            },
        ]
    };
    commit(&mut store, vec![session(1), session(2)]);
    commit(&mut store, everything(1));
    commit(&mut store, vec![sent(1, 1, 1, 9)]);
    // What is in the same commit goes as well.
    let mut changes = everything(2);
    changes.extend([Change::End(1), settled(2, 1, 1)]);
    commit(&mut store, changes);
    drop(store);
    let (mut store, found) = world.open();
    assert_eq!(found.sessions.len(), 1);
    assert_eq!(queue_of(&found.sessions[0]), [(2, 2)]);
    // Of the messages only that one is left: a session with this number finds nothing.
    commit(&mut store, vec![session(1)]);
    drop(store);
    let (_store, found) = world.open();
    let one = &found.sessions[0];
    assert!(one.queue.is_empty() && one.inflight.is_empty() && one.received.is_empty());
    assert!(one.subscriptions.is_empty() && one.will.is_none());
}

fn what_expired_meanwhile_is_gone(world: &mut World) {
    let (mut store, _) = world.open();
    let soon = Some(world.after(Duration::from_secs(10)));
    let Change::Session(mut away) = session(1) else {
        panic!()
    };
    away.away_since = Some(world.begin);
    commit(
        &mut store,
        vec![
            Change::Session(away),
            session(2),
            message(10, soon),
            message(11, soon),
            message(12, None),
            queued(1, 0, 10),
            queued(1, 1, 11),
            queued(1, 2, 12),
            retained(10),
            Change::Will(Box::new(WillRow {
                session: 2,
                due: None,
                delay: 30,
                publish: publish("will", Qos::AtMostOnce),
            })),
        ],
    );
    // What was sent is sent again all the same, to end its exchange.
    commit(&mut store, vec![sent(1, 1, 11, 5)]);
    drop(store);
    world.passed_ms = 20_000;
    let (_store, found) = world.open();
    let (one, two) = (&found.sessions[0], &found.sessions[1]);
    assert_eq!(queue_of(one), [(2, 12)]);
    assert_eq!(one.inflight.len(), 1);
    assert!(found.retained.is_empty());
    let left = |at: Instant| at.duration_since(world.begin).as_secs();
    assert_eq!(left(one.expires_at), 40, "of 60 s");
    // Who was connected is away since the last commit, which is a moment later than the begin.
    assert!((40..=41).contains(&left(two.expires_at)));
    let due = two.will.as_ref().unwrap().due;
    assert!((10..=11).contains(&left(due)));
}

fn who_was_connected_is_away_since_then_however_often_the_broker_starts(world: &mut World) {
    let (mut store, _) = world.open();
    let will = WillRow {
        session: 1,
        due: None,
        delay: 30,
        publish: publish("will", Qos::AtMostOnce),
    };
    commit(&mut store, vec![session(1), Change::Will(Box::new(will))]);
    drop(store);
    for (passed_ms, left) in [(10_000, 50), (20_000, 40), (40_000, 20)] {
        world.passed_ms = passed_ms;
        let (mut store, found) = world.open();
        store.beat().unwrap();
        let one = &found.sessions[0];
        let seconds = |at: Instant| at.saturating_duration_since(world.begin).as_secs();
        // The last commit was a moment later than the begin.
        assert!((left..=left + 1).contains(&seconds(one.expires_at)));
        let due = one.will.as_ref().unwrap().due;
        let due_in = left.saturating_sub(30);
        assert!((due_in..=due_in + 1).contains(&seconds(due)));
    }
}

fn what_refers_to_nothing_is_removed(world: &mut World) {
    let (mut store, _) = world.open();
    // A message that never comes, as after a crash between two entries.
    commit(&mut store, vec![session(1), queued(1, 0, 99)]);
    drop(store);
    let (mut store, found) = world.open();
    assert!(found.sessions[0].queue.is_empty());
    commit(&mut store, vec![message(1, None), queued(1, 1, 1)]);
    drop(store);
    let (_store, found) = world.open();
    assert_eq!(queue_of(&found.sessions[0]), [(1, 1)]);
}

fn what_comes_for_an_ended_session_is_too_late(world: &mut World) {
    let (mut store, _) = world.open();
    commit(&mut store, vec![session(1), Change::End(1)]);
    commit(
        &mut store,
        vec![
            message(1, None),
            queued(1, 0, 1),
            Change::Received {
                session: 1,
                packet_id: id(1),
            },
            settled(1, 0, 1),
        ],
    );
    drop(store);
    let (_store, found) = world.open();
    assert!(found.sessions.is_empty());
}

#[test]
fn another_process_is_kept_out() {
    for engine in [EngineKind::Fjall, EngineKind::Sled] {
        let built = match engine {
            EngineKind::Fjall => cfg!(feature = "fjall"),
            _ => cfg!(feature = "sled"),
        };
        if !built {
            continue;
        }
        let world = World::new(engine);
        let _store = world.open();
        assert!(matches!(world.try_open().err(), Some(EngineError::Locked)));
    }
}

/// The rows of messages in an engine.
fn show(engine: &MemoryEngine, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) {
    let visit = &mut |key: &[u8], value: &[u8]| {
        visit(key, value);
        ControlFlow::Continue(())
    };
    engine
        .scan(table, KeyRange::ALL, Order::Ascending, visit)
        .unwrap();
}

/// Messages that have a row of their own.
fn messages_apart(engine: &MemoryEngine) -> Vec<u64> {
    let mut found = Vec::new();
    show(engine, MESSAGE, &mut |key, _| {
        let [number] = rows::read_key(MESSAGE, key).unwrap();
        found.push(number);
    });
    found
}

/// Messages that are within the row of a queue.
fn messages_within(engine: &MemoryEngine) -> Vec<u64> {
    let mut found = Vec::new();
    show(engine, QUEUE, &mut |key, value| {
        let [session, place] = rows::read_key(QUEUE, key).unwrap();
        let (row, body) = rows::read_queue(session, place, value).unwrap();
        if let Some(body) = body {
            rows::read_body(body).unwrap();
            found.push(row.at.message);
        }
    });
    found
}

#[test]
fn a_message_is_written_once_and_goes_with_its_last_reference() {
    let world = World::new(EngineKind::Memory);
    let (mut store, _) = world.open();
    commit(&mut store, vec![session(1), session(2)]);
    let everywhere = vec![
        message(5, None),
        queued(1, 0, 5),
        queued(2, 0, 5),
        retained(5),
    ];
    commit(&mut store, everywhere);
    assert_eq!(messages_apart(&world.memory), [5]);
    commit(&mut store, vec![settled(1, 0, 5), Change::Cleared(5)]);
    drop(store);
    let (mut store, _) = world.open();
    assert_eq!(messages_apart(&world.memory), [5]);
    let released = QueueRow::released(
        2,
        Stored {
            place: 0,
            message: 5,
        },
        id(1),
    );
    commit(&mut store, vec![Change::Moved(Box::new(released))]);
    assert_eq!(messages_apart(&world.memory), [0; 0]);
    commit(&mut store, vec![settled(2, 0, 0)]);
}

#[test]
fn what_comes_and_goes_within_a_commit_is_not_written() {
    let world = World::new(EngineKind::Memory);
    let (mut store, _) = world.open();
    commit(&mut store, vec![session(1)]);
    let before = format!("{:?}", world.memory);
    commit(
        &mut store,
        vec![
            message(5, None),
            queued(1, 0, 5),
            sent(1, 0, 5, 1),
            settled(1, 0, 5),
        ],
    );
    assert_eq!(format!("{:?}", world.memory), before);
}

#[test]
fn a_message_that_comes_after_the_reference_is_written() {
    let world = World::new(EngineKind::Memory);
    let (mut store, _) = world.open();
    commit(&mut store, vec![session(1), queued(1, 0, 5)]);
    commit(&mut store, vec![message(5, None)]);
    drop(store);
    let (_store, found) = world.open();
    assert_eq!(queue_of(&found.sessions[0]), [(0, 5)]);
}

fn apart_and_within(world: &World) -> (Vec<u64>, Vec<u64>) {
    (
        messages_apart(&world.memory),
        messages_within(&world.memory),
    )
}

#[test]
fn a_small_message_for_one_queue_is_within_its_row() {
    let world = World::new(EngineKind::Memory);
    let (mut store, _) = world.open();
    let begin = vec![
        session(1),
        session(2),
        message(5, None),
        queued(1, 0, 5),
        message(6, None),
        queued(1, 1, 6),
        retained(6),
        large(7),
        queued(1, 2, 7),
    ];
    commit(&mut store, begin);
    assert_eq!(apart_and_within(&world), (vec![6, 7], vec![5]));
    // It stays there when it is sent.
    commit(&mut store, vec![sent(1, 0, 5, 9)]);
    assert_eq!(apart_and_within(&world), (vec![6, 7], vec![5]));
    drop(store);
    let (mut store, found) = world.open();
    assert_eq!(found.last_number, 7);
    let [(_, Content::Message(queued))] = &found.sessions[0].inflight[..] else {
        panic!("{found:?}")
    };
    assert_eq!(&*queued.publish.topic, "topic/5");
    commit(&mut store, vec![settled(1, 0, 5)]);
    assert_eq!(apart_and_within(&world), (vec![6, 7], vec![]));
}

#[test]
fn a_message_within_a_row_moves_to_another_queue() {
    let orders: [&dyn Fn() -> Vec<Change>; 4] = [
        &|| vec![queued(2, 0, 5), settled(1, 0, 5)],
        &|| vec![settled(1, 0, 5), queued(2, 0, 5)],
        &|| vec![Change::End(1), queued(2, 0, 5)],
        &|| vec![sent(1, 0, 5, 9), queued(2, 0, 5), settled(1, 0, 5)],
    ];
    for order in orders {
        let world = World::new(EngineKind::Memory);
        let (mut store, _) = world.open();
        let begin = vec![session(1), session(2), message(5, None), queued(1, 0, 5)];
        commit(&mut store, begin);
        assert_eq!(apart_and_within(&world), (vec![], vec![5]));
        commit(&mut store, order());
        assert_eq!(apart_and_within(&world), (vec![5], vec![]));
        drop(store);
        let (mut store, found) = world.open();
        let other = found.sessions.iter().find(|it| it.number == 2).unwrap();
        assert_eq!(queue_of(other), [(0, 5)]);
        let rest = found.sessions.iter().filter(|it| it.number == 1);
        assert!(rest.flat_map(queue_of).next().is_none());
        commit(&mut store, vec![settled(2, 0, 5)]);
        assert_eq!(apart_and_within(&world), (vec![], vec![]));
    }
}

#[test]
fn a_message_for_two_queues_in_two_commits_is_apart() {
    let world = World::new(EngineKind::Memory);
    let (mut store, _) = world.open();
    let begin = vec![session(1), session(2), message(5, None), queued(1, 0, 5)];
    commit(&mut store, begin);
    commit(&mut store, vec![queued(2, 0, 5)]);
    assert_eq!(apart_and_within(&world), (vec![5], vec![]));
    drop(store);
    let (_store, found) = world.open();
    let queues: Vec<_> = found.sessions.iter().map(queue_of).collect();
    assert_eq!(queues, [[(0, 5)], [(0, 5)]]);
}

#[test]
fn what_was_sent_at_qos_1_is_written_if_it_is_not_acknowledged_soon() {
    let world = World::new(EngineKind::Memory);
    let (mut store, _) = world.open();
    let at_least_once = |place, packet_id: Option<u16>| {
        Box::new(QueueRow {
            qos: Qos::AtLeastOnce,
            packet_id: packet_id.map(id),
            ..row(1, place, place)
        })
    };
    let mut begin = vec![session(1), message(4, None), queued(1, 4, 4)];
    for place in 1..4 {
        begin.push(message(place, None));
        begin.push(Change::Queued(at_least_once(place, None)));
    }
    commit(&mut store, begin);
    let sent = |place| Change::Moved(at_least_once(place, Some(9)));
    commit(&mut store, vec![sent(1), sent(2)]);
    assert!(store.holds_back());
    let (_, found) = world.killed().open();
    let waiting = [(1, 1), (2, 2), (3, 3), (4, 4)];
    assert_eq!(queue_of(&found.sessions[0]), waiting);
    commit(&mut store, vec![settled(1, 1, 1)]);
    store.finish().unwrap();
    assert!(!store.holds_back());
    let (_, found) = world.killed().open();
    assert_eq!(queue_of(&found.sessions[0]), [(3, 3), (4, 4)]);
    let [(packet_id, Content::Message(queued))] = &found.sessions[0].inflight[..] else {
        panic!("{found:?}")
    };
    assert_eq!((*packet_id, &*queued.publish.topic), (id(9), "topic/2"));
    // It is not overtaken by one that is written at once, though it came with the same commit.
    let latest = QueueRow {
        qos: Qos::AtLeastOnce,
        ..row(1, 5, 5)
    };
    let together = vec![
        message(5, None),
        Change::Queued(Box::new(latest.clone())),
        sent(3),
        Change::Moved(Box::new(QueueRow {
            packet_id: Some(id(11)),
            ..latest
        })),
        super::suite::sent(1, 4, 4, 10),
    ];
    commit(&mut store, together);
    let (_, found) = world.killed().open();
    assert_eq!(queue_of(&found.sessions[0]), [(0, 0); 0]);
    assert_eq!(found.sessions[0].inflight.len(), 4);
}
