//! Beside devices: shared subscriptions with their positions, and private queues.

use bytes::Bytes;

use proto::ids::digest16;

use super::crash::dump;
use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::contact::{ContactChange, ContactCounts};
use crate::domain::device::SharedSubscription;
use crate::domain::entry::{Basis, Change, EntryKind};
use crate::domain::queue::{DeviceEvent, QueueLimits, Queuing, ToDevice};
use crate::domain::user::User;
use crate::store::{ChatStore, Durability, Move};

super::stories![
    shared_subscriptions_are_bounded_and_go_with_their_user,
    a_shared_subscription_ends_with_its_position,
    events_for_a_device_are_numbered_without_gaps,
    an_event_is_queued_once,
    the_queue_of_a_device_is_bounded,
    strangers_fill_a_part_and_the_own_devices_have_a_reserve,
    what_is_over_is_neither_handed_out_nor_kept,
    a_queue_goes_with_its_device,
    of_a_removed_user_no_place_is_kept,
    shared_conversations_are_found,
    queues_and_positions_survive_a_kill,
];

fn shared(user: u8, name: &str) -> SharedSubscription {
    let filter = format!("$share/{name}/chat/c/x/log");
    SharedSubscription {
        id: SharedSubscription::id_of(uid(user), &filter),
        user: uid(user),
        conversation: cid(1),
        filter,
        seen_ms: 1_000,
    }
}

fn position(of: &SharedSubscription, at: u64) -> Move {
    Move::Cursor {
        device: of.id,
        conversation: of.conversation,
        seq: seq(at),
    }
}

async fn shared_subscriptions_are_bounded_and_go_with_their_user(world: World) {
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    let (a, b) = (shared(1, "a"), shared(1, "b"));
    for one in [&a, &b, &a] {
        assert_eq!(store.put_shared(one.clone(), 2).await, Ok(true));
    }
    assert_eq!(store.put_shared(shared(1, "c"), 2).await, Ok(false));
    let later = SharedSubscription {
        seen_ms: 2_000,
        ..a.clone()
    };
    assert_eq!(store.put_shared(later.clone(), 2).await, Ok(true));
    store
        .advance(vec![position(&a, 7)], Durability::Durable)
        .await
        .unwrap();
    let store = world.reopen(store).await;
    let mut found = store.shared(uid(1)).await.unwrap();
    found.sort_by(|one, other| one.filter.cmp(&other.filter));
    assert_eq!(found, [later, b]);
    let cursors = store.cursors(a.id, None).await;
    assert_eq!(cursors, Ok(vec![(cid(1), seq(7))]));

    let mut removed = user(1, "alice");
    removed.removed_ms = Some(2_000);
    store.update_user(removed).await.unwrap();
    assert_eq!(store.shared(uid(1)).await, Ok(vec![]));
    assert_eq!(store.cursors(a.id, None).await, Ok(vec![]));
    assert!(store.put_shared(a, 2).await.is_err(), "nobody's");
}

async fn a_shared_subscription_ends_with_its_position(world: World) {
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    let (a, b) = (shared(1, "a"), shared(1, "b"));
    for one in [&a, &b] {
        store.put_shared(one.clone(), 9).await.unwrap();
        let moves = vec![position(one, 5)];
        store.advance(moves, Durability::Relaxed).await.unwrap();
    }
    store.remove_shared(uid(1), a.id).await.unwrap();
    assert_eq!(store.cursors(a.id, None).await, Ok(vec![]));
    let store = world.reopen(store).await;
    assert_eq!(store.cursors(a.id, None).await, Ok(vec![]));
    assert_eq!(store.cursors(b.id, None).await, Ok(vec![(cid(1), seq(5))]));
    assert_eq!(store.shared(uid(1)).await, Ok(vec![b]));
}

const LIMITS: QueueLimits = QueueLimits {
    events: 4,
    events_of_sender: 3,
    bytes: 100,
};

/// Something from device `from` of the user with this number, to device 9 of user 9.
fn event(from: u8, mid: &str) -> ToDevice {
    ToDevice {
        user: uid(9),
        to: dev(9),
        mid: mid.parse().unwrap(),
        digest: [from; 16],
        event: DeviceEvent {
            dseq: 0,
            from: uid(from),
            device: dev(from),
            ts_ms: 1_000,
            expires_ms: 5_000,
            kind: "welcome".to_owned(),
            data: Bytes::copy_from_slice(mid.as_bytes()),
        },
        limits: LIMITS,
    }
}

/// A device of user 9, who knows users 1, 2 and 3.
async fn put_device_9(store: &dyn ChatStore) {
    const MAX: ContactCounts = ContactCounts {
        contacts: 9,
        blocked: 9,
    };
    if store.user(uid(9)).await.unwrap().is_none() {
        store.create_user(user(9, "owner")).await.unwrap();
    }
    for known in 1..=3 {
        let called = String::new();
        let add = ContactChange::Add { called };
        let added = store.change_contact(uid(9), uid(known), add, MAX, 1);
        added.await.unwrap();
    }
    let put = store.put_device(device(9, 9), None, Durability::Durable);
    put.await.unwrap();
}

/// Places and data of what waits for device 9.
async fn waiting(store: &dyn ChatStore, now_ms: u64) -> Vec<(u64, String)> {
    let found = store.device_events(dev(9), 0, (99, 9_999), now_ms).await;
    let (events, more) = found.unwrap();
    assert!(!more);
    let text = |event: &DeviceEvent| String::from_utf8(event.data.to_vec()).unwrap();
    events.iter().map(|it| (it.dseq, text(it))).collect()
}

async fn events_for_a_device_are_numbered_without_gaps(world: World) {
    let store = world.open();
    let refused = store.queue_event(event(1, "a")).await;
    assert_eq!(refused, Ok(Queuing::NoQueue), "no such device");
    let mut without = device(9, 9);
    without.has_queue = false;
    let put = store.put_device(without, None, Durability::Durable);
    put.await.unwrap();
    let refused = store.queue_event(event(1, "a")).await;
    assert_eq!(refused, Ok(Queuing::NoQueue));
    put_device_9(&*store).await;
    for (place, mid) in [(1, "a"), (2, "bb"), (3, "c")] {
        let queued = store.queue_event(event(1, mid)).await;
        assert_eq!(queued, Ok(Queuing::Queued(place)));
    }
    let found = store
        .device_events(dev(9), 0, (9, 99), 1_000)
        .await
        .unwrap();
    let first = DeviceEvent {
        dseq: 1,
        ..event(1, "a").event
    };
    assert_eq!(found.0[0], first);
    // Pages: by number, and by bytes of data, one at least.
    for ((limit, bytes), expected) in [((1, 99), 1), ((9, 3), 2), ((9, 0), 1), ((9, 4), 3)] {
        let page = store.device_events(dev(9), 0, (limit, bytes), 1_000);
        let (events, more) = page.await.unwrap();
        assert_eq!((events.len(), more), (expected, expected < 3));
    }
    store
        .end_device_events(dev(9), vec![2, 3, 7])
        .await
        .unwrap();
    assert_eq!(waiting(&*store, 1_000).await, [(1, "a".into())]);
    store.end_device_events(dev(9), vec![1]).await.unwrap();
    let store = world.reopen(store).await;
    assert_eq!(waiting(&*store, 1_000).await, []);
    let queued = store.queue_event(event(2, "d")).await;
    assert_eq!(queued, Ok(Queuing::Queued(4)), "never a place again");
    let behind = store.device_events(dev(9), 4, (9, 99), 1_000).await;
    assert_eq!(behind, Ok((vec![], false)));
}

async fn an_event_is_queued_once(world: World) {
    let store = world.open();
    put_device_9(&*store).await;
    store.queue_event(event(1, "a")).await.unwrap();
    assert_eq!(
        store.queue_event(event(1, "a")).await,
        Ok(Queuing::Duplicate)
    );
    store.end_device_events(dev(9), vec![1]).await.unwrap();
    assert_eq!(
        store.queue_event(event(1, "a")).await,
        Ok(Queuing::Duplicate),
        "also when the device has it"
    );
    let mut other = event(1, "a");
    other.digest = [77; 16];
    assert_eq!(store.queue_event(other).await, Ok(Queuing::Conflict));
    assert_eq!(
        store.queue_event(event(2, "a")).await,
        Ok(Queuing::Queued(2)),
        "of another sender"
    );
}

async fn the_queue_of_a_device_is_bounded(world: World) {
    let store = world.open();
    put_device_9(&*store).await;
    for mid in ["a", "b", "c"] {
        store.queue_event(event(1, mid)).await.unwrap();
    }
    assert_eq!(store.queue_event(event(1, "d")).await, Ok(Queuing::Full));
    let mut large = event(2, "e");
    large.event.data = Bytes::from(vec![1; 98]);
    assert_eq!(store.queue_event(large.clone()).await, Ok(Queuing::Full));
    large.event.data.truncate(97);
    assert_eq!(store.queue_event(large).await, Ok(Queuing::Queued(4)));
    assert_eq!(store.queue_event(event(3, "f")).await, Ok(Queuing::Full));
    store.end_device_events(dev(9), vec![1, 4]).await.unwrap();
    for (from, place) in [(1, 5), (3, 6)] {
        let queued = store.queue_event(event(from, "g")).await;
        assert_eq!(
            queued,
            Ok(Queuing::Queued(place)),
            "what was refused left no trace"
        );
    }
}

async fn strangers_fill_a_part_and_the_own_devices_have_a_reserve(world: World) {
    let store = world.open();
    put_device_9(&*store).await;
    let send = async |from, mid| store.queue_event(event(from, mid)).await;
    for (from, place) in [(4, 1), (5, 2)] {
        assert_eq!(send(from, "a").await, Ok(Queuing::Queued(place)));
    }
    assert_eq!(send(6, "a").await, Ok(Queuing::Full), "the strangers' part");
    for (from, place) in [(1, 3), (2, 4)] {
        assert_eq!(send(from, "a").await, Ok(Queuing::Queued(place)));
    }
    assert_eq!(send(3, "a").await, Ok(Queuing::Full));
    for (mid, place) in [("a", 5), ("b", 6), ("c", 7)] {
        assert_eq!(send(9, mid).await, Ok(Queuing::Queued(place)), "his own");
    }
    assert_eq!(send(9, "d").await, Ok(Queuing::Full));
    store
        .end_device_events(dev(9), vec![5, 6, 7])
        .await
        .unwrap();
    // He answers one of them, who is no stranger any more.
    let direct = proto::ids::ConversationId::direct(uid(9), uid(4));
    let said = crate::domain::entry::Draft {
        kind: EntryKind::Message,
        from: uid(9),
        ..created(direct, &[9, 4])
    };
    place(append(&*store, said).await);
    store.end_device_events(dev(9), vec![3]).await.unwrap();
    assert_eq!(send(6, "a").await, Ok(Queuing::Queued(8)));
    assert_eq!(send(4, "b").await, Ok(Queuing::Full), "that was all");
}

async fn what_is_over_is_neither_handed_out_nor_kept(world: World) {
    let store = world.open();
    put_device_9(&*store).await;
    for mid in ["a", "b", "c"] {
        store.queue_event(event(1, mid)).await.unwrap();
    }
    assert_eq!(waiting(&*store, 4_999).await.len(), 3);
    assert_eq!(waiting(&*store, 5_000).await, []);
    let mut later = event(1, "d");
    later.event.ts_ms = 5_000;
    later.event.expires_ms = 9_000;
    assert_eq!(
        store.queue_event(later).await,
        Ok(Queuing::Queued(4)),
        "they make room"
    );
    assert_eq!(waiting(&*store, 1_000).await, [(4, "d".into())]);
    store.maintain(9_000, 0, AuditKeep::ALL).await.unwrap();
    assert_eq!(waiting(&*store, 1_000).await, []);
    let queued = store.queue_event(event(1, "e")).await;
    assert_eq!(queued, Ok(Queuing::Queued(5)), "the last place is known");
}

async fn a_queue_goes_with_its_device(world: World) {
    let store = world.open();
    put_device_9(&*store).await;
    for (from, mid) in [(1, "a"), (2, "b"), (1, "c")] {
        store.queue_event(event(from, mid)).await.unwrap();
    }
    store.forget(uid(1)).await.unwrap();
    assert_eq!(
        waiting(&*store, 1_000).await,
        [(2, "b".into())],
        "what an erased user sent is forgotten"
    );
    store.remove_device(uid(9), dev(9)).await.unwrap();
    assert_eq!(waiting(&*store, 1_000).await, []);
    put_device_9(&*store).await;
    let queued = store.queue_event(event(3, "d")).await;
    assert_eq!(queued, Ok(Queuing::Queued(4)), "no place is given twice");
}

async fn of_a_removed_user_no_place_is_kept(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let place = digest16(&[b"queues", uid(9).as_bytes()]);
    let is_kept = || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dumped");
        dump(&world.options, &file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        bytes.windows(place.len()).any(|part| part == place)
    };
    let store = world.open();
    put_device_9(&*store).await;
    store.queue_event(event(1, "a")).await.unwrap();
    store.remove_device(uid(9), dev(9)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert!(is_kept());
    let store = world.open();
    let removed = User {
        removed_ms: Some(5),
        ..user(9, "owner")
    };
    store.update_user(removed).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert!(!is_kept());
}

async fn shared_conversations_are_found(world: World) {
    let store = world.open();
    let share = |one, other| store.share_conversation(uid(one), uid(other));
    assert_eq!(share(1, 2).await, Ok(false));
    make_group(&*store, cid(1), &[1, 2]).await;
    make_group(&*store, cid(2), &[3, 2]).await;
    for (one, other, expected) in [(1, 2, true), (2, 1, true), (1, 3, false), (2, 3, true)] {
        assert_eq!(share(one, other).await, Ok(expected), "{one} and {other}");
    }
    let leaving = crate::domain::entry::Draft {
        kind: EntryKind::Left,
        basis: Basis::Version(1),
        changes: vec![Change::Leave { user: uid(2) }],
        ..draft(cid(1), 2, "leave", 1)
    };
    place(append(&*store, leaving).await);
    assert_eq!(share(1, 2).await, Ok(false));
    assert_eq!(share(2, 1).await, Ok(false));
}

async fn queues_and_positions_survive_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    put_device_9(&*store).await;
    store.put_shared(shared(1, "a"), 9).await.unwrap();
    for mid in ["a", "b"] {
        store.queue_event(event(1, mid)).await.unwrap();
    }
    let killed = world.killed();
    let store = killed.open();
    assert_eq!(
        waiting(&*store, 1_000).await,
        [(1, "a".into()), (2, "b".into())]
    );
    assert_eq!(store.shared(uid(1)).await, Ok(vec![shared(1, "a")]));
    assert_eq!(
        store.queue_event(event(1, "b")).await,
        Ok(Queuing::Duplicate)
    );
}
