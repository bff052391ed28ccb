//! What the feed does not wait for, and what holds of it nevertheless.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use broker::store::kv::{
    EngineError, EngineStats, KeyRange, KvBatch, KvEngine, Order, Stop, Table, Visit,
};
use broker::store::memory::MemoryEngine;
use tokio::time::timeout;

use super::super::sight::tests::{World, message, uid};
use super::*;
use crate::domain::entry::{Basis, Change, Draft, EntryKind, Outcome};
use crate::domain::member::Role;
use crate::store::StoreOptions;
use crate::store::clock::MonotonicClock;
use crate::store::embedded::EmbeddedStore;

const ALICE: u8 = 1;
const RITA: u8 = 2;

/// As long as somebody says so no row of a reader is read.
#[derive(Default)]
struct Slow {
    inner: MemoryEngine,
    is_held_up: Mutex<bool>,
    goes_on: Condvar,
}

impl Slow {
    fn hold_up(&self) -> HeldUp<'_> {
        *self.is_held_up.lock().unwrap() = true;
        HeldUp(self)
    }

    fn wait(&self, table: Table) {
        if table.name() == "reader" {
            let is_held_up = self.is_held_up.lock().unwrap();
            drop(self.goes_on.wait_while(is_held_up, |held_up| *held_up));
        }
    }
}

/// Until this is dropped, also by a test that fails.
struct HeldUp<'a>(&'a Slow);

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        *self.0.is_held_up.lock().unwrap() = false;
        self.0.goes_on.notify_all();
    }
}

impl KvEngine for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.inner.commit_durable(batch)
    }

    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.inner.commit_relaxed(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.wait(table);
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange<'_>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.wait(table);
        self.inner.scan(table, range, order, visit)
    }

    fn stats(&self) -> Result<EngineStats, EngineError> {
        self.inner.stats()
    }

    fn reclaim(&self, stop: &Stop<'_>) -> Result<bool, EngineError> {
        self.inner.reclaim(stop)
    }
}

fn channel() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Channel, [7; 16])
}

fn draft(mid: &'static str, kind: EntryKind, changes: Vec<Change>) -> Draft {
    let basis = match kind {
        EntryKind::Created => Basis::Create,
        _ => Basis::Version(1),
    };
    Draft {
        conversation: channel(),
        peer: None,
        kind,
        basis,
        changes,
        ..message(ALICE, mid)
    }
}

fn join(user: u8, role: Role) -> Change {
    Change::Join {
        user: uid(user),
        role,
        history_from: None,
    }
}

#[tokio::test]
async fn who_comes_or_goes_holds_up_nobody_and_sees_what_he_may() {
    const ENOUGH: Duration = Duration::from_secs(10);
    let engine = Arc::new(Slow::default());
    let clock = Arc::new(MonotonicClock::start());
    let options = StoreOptions::default();
    let store = EmbeddedStore::start(Arc::clone(&engine), None, &options, clock).unwrap();
    let mut world = World::on(Arc::new(store)).await;
    let owner = vec![join(ALICE, Role::Owner)];
    world.append(draft("made", EntryKind::Created, owner)).await;
    let stored = async |draft: Draft| {
        let outcomes = world.store.append(vec![draft]).await.unwrap();
        matches!(outcomes[..], [Outcome::Silent { .. }])
    };
    let rita = || vec![join(RITA, Role::Reader)];
    assert!(stored(draft("comes", EntryKind::Joined, rita())).await);
    let conversations = Arc::clone(&world.delivery.conversations);
    let live = conversations.load(channel()).await.unwrap().unwrap();
    let _follows = conversations.follow(&live, uid(RITA)).await.unwrap();
    let leaves = vec![Change::Leave { user: uid(RITA) }];
    for one in [
        draft("one", EntryKind::Message, vec![]),
        draft("goes", EntryKind::Left, leaves),
        draft("two", EntryKind::Message, vec![]),
        draft("again", EntryKind::Joined, rita()),
        draft("three", EntryKind::Message, vec![]),
    ] {
        stored(one).await;
    }
    let held_up = engine.hold_up();
    timeout(ENOUGH, world.follow_one()).await.unwrap(); // made
    timeout(ENOUGH, world.follow_one()).await.unwrap(); // comes
    // Place 1 made it; the messages are at 2, 3 and 4.
    let sees = |seq| live.sees(uid(RITA), Seq::new(seq));
    for expected in [
        [true, true, true],
        [true, false, false],
        [true, false, false],
        [true, false, true],
        [true, false, true],
    ] {
        timeout(ENOUGH, world.follow_one()).await.unwrap();
        assert_eq!([2, 3, 4].map(sees), expected);
    }
    assert_eq!(live.head(), Seq::new(4));
    drop(held_up);
    let _row = conversations.keep(&live, uid(RITA)).await.unwrap();
    assert_eq!(
        [2, 3, 4].map(sees),
        [true, false, true],
        "as the store says"
    );
}

#[test]
fn whoever_comes_and_goes_often_is_looked_at_once_from_the_first_place() {
    let waiting = Admissions::default();
    let (one, other) = (channel(), ConversationId::direct(uid(1), uid(2)));
    let at = |user, place| (uid(user), Seq::new(place));
    assert!(waiting.add(one, at(1, 7)), "somebody has to come");
    assert!(!waiting.add(one, at(1, 5)) && !waiting.add(one, at(1, 9)));
    assert!(!waiting.add(one, at(2, 3)) && waiting.add(other, at(1, 1)));
    assert_eq!(waiting.next(one), Some(at(1, 5)));
    assert!(!waiting.add(one, at(1, 8)), "he comes still");
    assert_eq!(waiting.next(one), Some(at(1, 8)));
    assert_eq!(waiting.next(one), Some(at(2, 3)));
    assert_eq!(waiting.next(one), None);
    assert!(waiting.add(one, at(1, 9)));
}
