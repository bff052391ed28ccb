//! Cursors and marks, devices, users, handles, tokens.

use super::world::*;
use crate::domain::account::Subject;
use crate::domain::audit::AuditKeep;
use crate::domain::device::Inflight;
use crate::domain::entry::Draft;
use crate::domain::member::Marks;
use crate::domain::presence::{PresenceChange, Standing};
use crate::domain::profile::{Audience, Circle, Profile};
use crate::domain::user::User;
use crate::store::embedded::EmbeddedStore;
use crate::store::{ChatStore, Durability, MarkStore, Move, StoreError};
use proto::ids::{ConversationId, Seq};
use proto::payload::{PresenceChoice, PresenceState};

super::stories![
    cursors_only_go_up,
    relaxed_moves_are_seen_at_once_and_kept_by_flush,
    relaxed_moves_become_durable_by_themselves,
    marks_merge_by_maximum,
    the_times_of_marks_are_kept_for_a_month,
    receipts_due_come_newest_first_and_are_dropped_after_30_days,
    devices_are_kept_with_what_is_in_flight,
    a_removed_device_leaves_nothing,
    a_handle_has_one_user,
    a_freed_handle_rests_for_90_days,
    a_handle_changes_for_who_has_it,
    users_are_found_by_their_words,
    a_removed_user_has_no_tokens_and_devices,
    a_profile_is_replaced_only_as_it_was_known,
    presence_is_kept_and_merged,
    users_come_in_pages,
    tokens_are_found_by_hash_and_removed_by_id,
];

fn cursor(device: u8, conversation: u8, to: u64) -> Move {
    Move::Cursor {
        device: dev(device),
        conversation: cid(conversation),
        seq: seq(to),
    }
}

async fn cursors_only_go_up(world: World) {
    let store = world.open();
    for (to, durability) in [
        (5, Durability::Durable),
        (3, Durability::Durable),
        (4, Durability::Relaxed),
    ] {
        store
            .advance(vec![cursor(1, 1, to)], durability)
            .await
            .unwrap();
        let cursors = store.cursors(dev(1), Some(cid(1))).await.unwrap();
        assert_eq!(cursors, [(cid(1), seq(5))]);
    }
    let store = world.reopen(store).await;
    assert_eq!(
        store.cursors(dev(1), None).await.unwrap(),
        [(cid(1), seq(5))]
    );
    assert!(store.cursors(dev(2), None).await.unwrap().is_empty());
    assert!(
        store
            .cursors(dev(1), Some(cid(2)))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn relaxed_moves_are_seen_at_once_and_kept_by_flush(world: World) {
    let store = world.open();
    let moves = vec![cursor(1, 2, 7), cursor(1, 1, 3), cursor(2, 1, 9)];
    store.advance(moves, Durability::Relaxed).await.unwrap();
    let expected = [(cid(1), seq(3)), (cid(2), seq(7))];
    assert_eq!(store.cursors(dev(1), None).await.unwrap(), expected);
    store.flush().await.unwrap();
    store
        .advance(vec![cursor(1, 2, 8)], Durability::Relaxed)
        .await
        .unwrap();
    let merged = [(cid(1), seq(3)), (cid(2), seq(8))];
    assert_eq!(store.cursors(dev(1), None).await.unwrap(), merged);
    store.flush().await.unwrap();
    if world.is_on_disk() {
        let killed = world.killed();
        assert_eq!(killed.open().cursors(dev(1), None).await.unwrap(), merged);
    }
}

async fn relaxed_moves_become_durable_by_themselves(world: World) {
    let store = world.open();
    store
        .advance(vec![cursor(1, 1, 3)], Durability::Relaxed)
        .await
        .unwrap();
    let store = world.reopen(store).await;
    assert_eq!(
        store.cursors(dev(1), None).await.unwrap(),
        [(cid(1), seq(3))]
    );

    // A commit that comes after 200 ms takes them along.
    store
        .advance(vec![cursor(1, 1, 4)], Durability::Relaxed)
        .await
        .unwrap();
    make_group(&*store, cid(1), &[1]).await;
    world.clock.advance(std::time::Duration::from_millis(200));
    say(&*store, cid(1), 1, "a").await;
    if world.is_on_disk() {
        let killed = world.killed();
        let cursors = killed.open().cursors(dev(1), None).await.unwrap();
        assert_eq!(cursors, [(cid(1), seq(4))]);
    }
}

fn marks(delivered: u64, read: u64, private: u64, flag: Option<bool>, ts_ms: u64) -> Move {
    Move::Marks {
        conversation: cid(1),
        user: uid(1),
        delivered: seq(delivered),
        read: seq(read),
        private_read: seq(private),
        unread_flag: flag,
        ts_ms,
    }
}

async fn marks_of_1(store: &dyn ChatStore) -> Marks {
    let members = store.members(cid(1), None, 10).await.unwrap();
    members[0].1
}

/// When user 1 was delivered and had read entries.
async fn times_of_1(
    store: &dyn ChatStore,
    conversation: ConversationId,
    seqs: &[u64],
) -> Vec<(Option<u64>, Option<u64>)> {
    let mut times = Vec::new();
    for number in seqs {
        let moved = store.moved_over(conversation, vec![uid(1)], seq(*number));
        let (user, moved) = moved.await.unwrap()[0];
        assert_eq!(user, uid(1));
        times.push((moved.delivered_ms, moved.read_ms));
    }
    times
}

async fn the_times_of_marks_are_kept_for_a_month(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let in_direct = |one: Move| match one {
        Move::Marks {
            user,
            delivered,
            read,
            private_read,
            unread_flag,
            ts_ms,
            ..
        } => Move::Marks {
            conversation: ConversationId::direct(uid(1), uid(2)),
            user,
            delivered,
            read,
            private_read,
            unread_flag,
            ts_ms,
        },
        other => other,
    };
    let direct = ConversationId::direct(uid(1), uid(2));
    for one in [
        marks(2, 0, 0, None, DAY_MS),
        marks(5, 3, 0, None, 2 * DAY_MS),
        marks(5, 0, 9, Some(true), 3 * DAY_MS), // private: nobody is told
        marks(5, 5, 0, None, 4 * DAY_MS),
    ] {
        for one in [one, in_direct(one)] {
            store.advance(vec![one], Durability::Durable).await.unwrap();
        }
    }
    let store = world.reopen(store).await;
    let day = |number: u64| Some(number * DAY_MS);
    let seqs = [1, 2, 3, 4, 5, 6];
    assert_eq!(
        times_of_1(&*store, cid(1), &seqs).await,
        [
            (day(2), day(2)),
            (day(2), day(2)),
            (day(2), day(2)),
            (day(4), day(4)),
            (day(4), day(4)),
            (None, None)
        ],
        "of a group what was read"
    );
    assert_eq!(
        times_of_1(&*store, direct, &seqs).await,
        [
            (day(1), day(2)),
            (day(1), day(2)),
            (day(2), day(2)),
            (day(2), day(4)),
            (day(2), day(4)),
            (None, None)
        ]
    );
    store
        .maintain(33 * DAY_MS, 0, AuditKeep::ALL)
        .await
        .unwrap();
    assert_eq!(
        times_of_1(&*store, direct, &[1, 5]).await,
        [(day(4), day(4)), (day(4), day(4))],
        "those before are forgotten"
    );
}

async fn marks_merge_by_maximum(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    assert_eq!(marks_of_1(&*store).await, Marks::default());
    let moves = vec![marks(5, 0, 0, None, 10), marks(3, 2, 0, Some(true), 20)];
    store.advance(moves, Durability::Relaxed).await.unwrap();
    let mut expected = Marks {
        delivered: seq(5),
        read: seq(2),
        private_read: Seq::ZERO,
        unread_flag: true,
        moved_ms: 20,
        ..Marks::default()
    };
    assert_eq!(marks_of_1(&*store).await, expected, "relaxed");
    store
        .advance(vec![marks(0, 1, 4, None, 30)], Durability::Durable)
        .await
        .unwrap();
    expected.private_read = seq(4);
    assert_eq!(
        marks_of_1(&*store).await,
        expected,
        "durable, on top of relaxed ones"
    );
    store
        .advance(vec![marks(0, 6, 0, Some(false), 40)], Durability::Durable)
        .await
        .unwrap();
    expected = Marks {
        read: seq(6),
        unread_flag: false,
        moved_ms: 40,
        ..expected
    };
    let store = world.reopen(store).await;
    assert_eq!(marks_of_1(&*store).await, expected);
    let others = store.members(cid(1), Some(uid(1)), 10).await.unwrap();
    assert_eq!(others[0].1, Marks::default());
}

async fn receipts_due_come_newest_first_and_are_dropped_after_30_days(world: World) {
    let store = world.open();
    let due = |conversation, ts_ms| Move::ReceiptDue {
        user: uid(1),
        conversation: cid(conversation),
        ts_ms,
    };
    let day = DAY_MS;
    let moves = vec![due(1, day), due(2, 3 * day), due(3, 2 * day)];
    store.advance(moves, Durability::Durable).await.unwrap();
    store
        .advance(vec![due(1, 4 * day), due(2, day)], Durability::Relaxed)
        .await
        .unwrap();
    let found = store.receipts_due(uid(1), 2 * day, 10).await.unwrap();
    assert_eq!(found, [cid(1), cid(2), cid(3)]);
    assert_eq!(
        store.receipts_due(uid(1), 2 * day, 1).await.unwrap(),
        [cid(1)]
    );
    assert_eq!(
        store.receipts_due(uid(1), 3 * day + 1, 9).await.unwrap(),
        [cid(1)]
    );
    store.flush().await.unwrap();
    store.maintain(33 * day, 0, AuditKeep::ALL).await.unwrap();
    let store = world.reopen(store).await;
    let found = store.receipts_due(uid(1), 0, 10).await.unwrap();
    assert_eq!(found, [cid(1), cid(2)]);
    assert!(store.receipts_due(uid(2), 0, 10).await.unwrap().is_empty());
}

fn inflight(count: u16) -> Vec<Inflight> {
    (1..=count)
        .map(|packet_id| Inflight {
            packet_id,
            conversation: cid(1),
            seq: seq(u64::from(packet_id) + 10),
            form: 1,
        })
        .collect()
}

async fn devices_are_kept_with_what_is_in_flight(world: World) {
    let store = world.open();
    let (one, two) = (device(1, 1), device(1, 2));
    store
        .put_device(one.clone(), Some(inflight(3)), Durability::Relaxed)
        .await
        .unwrap();
    store
        .put_device(two.clone(), None, Durability::Durable)
        .await
        .unwrap();
    store
        .put_device(device(2, 3), None, Durability::Durable)
        .await
        .unwrap();
    assert_eq!(
        store.device(uid(1), dev(1)).await.unwrap(),
        Some(one.clone())
    );
    assert_eq!(store.device(uid(2), dev(1)).await.unwrap(), None);
    let store = world.reopen(store).await;
    assert_eq!(store.devices(uid(1)).await.unwrap(), [one.clone(), two]);
    store
        .put_device(one.clone(), None, Durability::Durable)
        .await
        .unwrap();
    assert_eq!(store.take_inflight(dev(1)).await.unwrap(), inflight(3));
    assert!(store.take_inflight(dev(1)).await.unwrap().is_empty());
    let many = Some(inflight(3_000));
    store
        .put_device(one, many, Durability::Durable)
        .await
        .unwrap();
    assert_eq!(store.take_inflight(dev(1)).await.unwrap(), inflight(2_048));
}

async fn a_removed_device_leaves_nothing(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    for number in [1, 2] {
        store
            .put_device(device(1, number), Some(inflight(1)), Durability::Relaxed)
            .await
            .unwrap();
        let exchanged = Draft {
            exchange: Some((dev(number), 9)),
            ..draft(cid(1), 1, &format!("m{number}"), 1)
        };
        append(&*store, exchanged).await;
        store
            .advance(vec![cursor(number, 1, 1)], Durability::Durable)
            .await
            .unwrap();
        store
            .advance(vec![cursor(number, 2, 1)], Durability::Relaxed)
            .await
            .unwrap();
    }
    store.remove_device(uid(1), dev(1)).await.unwrap();
    let store = world.reopen(store).await;
    assert_eq!(store.devices(uid(1)).await.unwrap(), [device(1, 2)]);
    assert!(store.cursors(dev(1), None).await.unwrap().is_empty());
    assert!(store.take_inflight(dev(1)).await.unwrap().is_empty());
    assert!(!store.end_exchange(dev(1), 9).await.unwrap());
    assert_eq!(store.cursors(dev(2), None).await.unwrap().len(), 2);
    assert_eq!(store.take_inflight(dev(2)).await.unwrap().len(), 1);
    assert!(store.end_exchange(dev(2), 9).await.unwrap());
    store.remove_device(uid(1), dev(9)).await.unwrap();
}

async fn a_handle_has_one_user(world: World) {
    let store = world.open();
    let alice = user(1, "alice");
    store.create_user(alice.clone()).await.unwrap();
    let taken = store.create_user(user(2, "alice")).await;
    assert_eq!(taken, Err(StoreError::HandleTaken));
    let twice = store.create_user(user(1, "other")).await;
    assert_eq!(twice, Err(StoreError::HandleTaken));
    let (one, other) = tokio::join!(
        store.create_user(user(3, "bob")),
        store.create_user(user(4, "bob"))
    );
    assert_ne!(one, other, "one of two at once");
    let store = world.reopen(store).await;
    assert_eq!(store.user(uid(1)).await.unwrap(), Some(alice.clone()));
    let found = store
        .user_by_handle(&"alice".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(found, Some(alice.clone()));
    let nobody = store
        .user_by_handle(&"carol".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(nobody, None);

    let renamed = User {
        name: "Alice".to_owned(),
        ..alice.clone()
    };
    store.update_user(renamed.clone()).await.unwrap();
    assert_eq!(store.user(uid(1)).await.unwrap(), Some(renamed));
    assert_eq!(
        store.update_user(user(9, "nobody")).await,
        Err(StoreError::NotFound)
    );
    let moved = User {
        handle: "alicia".parse().unwrap(),
        ..alice
    };
    assert_eq!(store.update_user(moved).await, Err(StoreError::NotFound));
}

async fn a_handle_changes_for_who_has_it(world: World) {
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    store.create_user(user(2, "bob")).await.unwrap();
    let change = |number: u8, from: &str, to: &str, day: u64| {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        store.change_handle(uid(number), from, to, day * DAY_MS)
    };
    assert_eq!(change(1, "alice", "ally", 1).await, Ok(true));
    assert_eq!(change(1, "alice", "al", 1).await, Ok(false), "it moved");
    assert_eq!(
        change(2, "bob", "ally", 1).await,
        Err(StoreError::HandleTaken)
    );
    let resting = change(2, "bob", "alice", 90).await;
    assert_eq!(resting, Err(StoreError::HandleTaken));
    assert_eq!(change(1, "ally", "alice", 2).await, Ok(true), "taken back");
    assert_eq!(change(1, "alice", "ally", 3).await, Ok(true));
    assert_eq!(
        change(2, "bob", "alice", 93).await,
        Ok(true),
        "it has rested"
    );
    let store = world.reopen(store).await;
    let found = |handle: &str| {
        let (store, handle) = (store.clone(), handle.parse().unwrap());
        async move { store.user_by_handle(&handle).await.unwrap() }
    };
    assert_eq!(found("ally").await, Some(user(1, "ally")));
    assert_eq!(found("alice").await, Some(user(2, "alice")));
    assert_eq!(found("bob").await, None);
    if world.is_on_disk() {
        let killed = world.killed().open();
        let handle = "ally".parse().unwrap();
        assert!(killed.user_by_handle(&handle).await.unwrap().is_some());
    }
}

async fn users_are_found_by_their_words(world: World) {
    let store = world.open();
    let named = |number, handle: &str, name: &str| User {
        name: name.to_owned(),
        ..user(number, handle)
    };
    let anna = named(1, "anna.b", "Anna Berg");
    store.create_user(anna.clone()).await.unwrap();
    store.create_user(named(2, "bert", "Bert")).await.unwrap();
    let find = |prefix: &str| {
        let (store, prefix) = (store.clone(), prefix.to_owned());
        async move {
            let found = store.search(prefix, true, 9).await.unwrap();
            let number = |about: Subject| match about {
                Subject::Person(user) => user.as_bytes()[0],
                Subject::Conversation(id) => panic!("{id}"),
            };
            found.into_iter().map(number).collect::<Vec<u8>>()
        }
    };
    assert_eq!(find("ann").await, [1]);
    assert_eq!(find("be").await, [1, 2], "by the order of words");
    assert_eq!(find("x").await, [0; 0]);
    assert!(
        store
            .search("be".into(), false, 9)
            .await
            .unwrap()
            .is_empty()
    );
    let renamed = User {
        name: "Anna Tal".to_owned(),
        ..anna.clone()
    };
    store.update_user(renamed.clone()).await.unwrap();
    assert_eq!(find("ber").await, [2]);
    assert_eq!(find("tal").await, [1]);
    let (before, mut after) = (Profile::default(), Profile::default());
    after.tags = vec!["chess".to_owned()];
    let replaced = store.replace_profile(uid(1), before, after.clone());
    assert!(replaced.await.unwrap());
    assert_eq!(find("che").await, [1]);
    let changed = store.change_handle(uid(1), anna.handle, "zoe".parse().unwrap(), 5);
    assert!(changed.await.unwrap());
    assert_eq!((find("zoe").await, find("anna.").await), (vec![1], vec![]));
    let mut hidden = after.clone();
    hidden.privacy.search = false;
    let replaced = store.replace_profile(uid(1), after, hidden);
    assert!(replaced.await.unwrap());
    assert_eq!((find("tal").await, find("zoe").await), (vec![], vec![]));
    let gone = User {
        removed_ms: Some(9),
        ..named(2, "bert", "Bert")
    };
    store.update_user(gone).await.unwrap();
    assert_eq!(find("ber").await, [0; 0]);
}

async fn a_freed_handle_rests_for_90_days(world: World) {
    let store = world.open();
    let alice = user(1, "alice");
    store.create_user(alice.clone()).await.unwrap();
    let removed = User {
        removed_ms: Some(5 * DAY_MS),
        ..alice
    };
    store.update_user(removed.clone()).await.unwrap();
    let handle = "alice".parse().unwrap();
    assert_eq!(store.user_by_handle(&handle).await.unwrap(), None);
    assert_eq!(store.user(uid(1)).await.unwrap(), Some(removed.clone()));

    let at = |created_ms| User {
        created_ms,
        ..user(2, "alice")
    };
    let store = world.reopen(store).await;
    let early = store.create_user(at(95 * DAY_MS - 1)).await;
    assert_eq!(early, Err(StoreError::HandleTaken));
    store.create_user(at(95 * DAY_MS)).await.unwrap();
    let found = store.user_by_handle(&handle).await.unwrap();
    assert_eq!(found, Some(at(95 * DAY_MS)));
    assert_eq!(store.user(uid(1)).await.unwrap(), Some(removed.clone()));

    let back = User {
        removed_ms: None,
        ..removed.clone()
    };
    assert_eq!(store.update_user(back).await, Err(StoreError::NotFound));
    let renamed = User {
        name: "gone".to_owned(),
        ..removed
    };
    store.update_user(renamed).await.unwrap();
    let found = store.user_by_handle(&handle).await.unwrap();
    assert_eq!(found.map(|user| user.id), Some(uid(2)), "not freed again");
}

async fn a_removed_user_has_no_tokens_and_devices(world: World) {
    let store = world.open();
    for number in [1, 2] {
        store
            .create_user(user(number, &format!("user{number}")))
            .await
            .unwrap();
        store.put_token(token(number, "t1")).await.unwrap();
        store.put_token(token(number, "t2")).await.unwrap();
        store
            .put_device(
                device(number, number),
                Some(inflight(1)),
                Durability::Durable,
            )
            .await
            .unwrap();
        store
            .advance(vec![cursor(number, 1, 1)], Durability::Relaxed)
            .await
            .unwrap();
    }
    let removed = User {
        removed_ms: Some(5),
        ..user(1, "user1")
    };
    store.update_user(removed).await.unwrap();
    // Its connection ends behind the removal.
    let late = store.put_device(device(1, 1), Some(inflight(1)), Durability::Durable);
    late.await.unwrap();
    let store = world.reopen(store).await;
    assert!(store.tokens(uid(1)).await.unwrap().is_empty());
    assert_eq!(store.token(token(1, "t1").hash).await.unwrap(), None);
    assert!(store.devices(uid(1)).await.unwrap().is_empty());
    assert!(store.cursors(dev(1), None).await.unwrap().is_empty());
    assert_eq!(store.tokens(uid(2)).await.unwrap().len(), 2);
    assert_eq!(store.devices(uid(2)).await.unwrap().len(), 1);
}

async fn a_profile_is_replaced_only_as_it_was_known(world: World) {
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    let before = store.profile(uid(1)).await.unwrap();
    assert_eq!(before, Profile::default());
    let mut after = before.clone();
    after.privacy.last_seen = Audience {
        who: Circle::Nobody,
        except: vec![uid(2)],
    };
    let replace = |before: &Profile| {
        let (before, after) = (before.clone(), after.clone());
        store.replace_profile(uid(1), before, after)
    };
    assert!(replace(&before).await.unwrap());
    assert!(!replace(&before).await.unwrap(), "somebody was faster");
    let store = world.reopen(store).await;
    assert_eq!(store.profile(uid(1)).await.unwrap(), after);
    let gone = User {
        removed_ms: Some(9),
        ..user(1, "alice")
    };
    store.update_user(gone).await.unwrap();
    assert_eq!(store.profile(uid(1)).await.unwrap(), Profile::default());
    let refused = store.replace_profile(uid(1), Profile::default(), after);
    assert_eq!(refused.await, Err(StoreError::NotFound));
}

async fn presence_is_kept_and_merged(world: World) {
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    store.create_user(user(2, "bob")).await.unwrap();
    let seen = |person, seen_ms| PresenceChange {
        user: uid(person),
        choice: None,
        seen_ms,
    };
    let hidden = PresenceChange {
        choice: Some(PresenceChoice {
            state: PresenceState::Invisible,
            text: "🤫".to_owned(),
        }),
        ..seen(1, 180_000)
    };
    // One call may change the same user twice; of nobody nothing is kept.
    let changes = vec![seen(1, 60_000), hidden.clone(), seen(2, 60_000), seen(9, 1)];
    store.put_presence(changes).await.unwrap();
    store.put_presence(vec![seen(1, 240_000)]).await.unwrap();
    store.put_presence(vec![seen(2, 30_000)]).await.unwrap();
    let expected = Standing {
        choice: hidden.choice.unwrap(),
        seen_ms: 180_000,
    };
    assert_eq!(store.presence(uid(1)).await.unwrap(), expected);
    let store = world.reopen(store).await;
    assert_eq!(store.presence(uid(1)).await.unwrap(), expected);
    assert_eq!(store.presence(uid(2)).await.unwrap().seen_ms, 60_000);
    assert_eq!(store.presence(uid(9)).await.unwrap(), Standing::default());
    let gone = User {
        removed_ms: Some(9),
        ..user(1, "alice")
    };
    store.update_user(gone).await.unwrap();
    store.put_presence(vec![seen(1, 300_000)]).await.unwrap();
    assert_eq!(store.presence(uid(1)).await.unwrap(), Standing::default());
}

async fn users_come_in_pages(world: World) {
    let store = world.open();
    for number in 1..=7 {
        store
            .create_user(user(number, &format!("user{number}")))
            .await
            .unwrap();
    }
    let one = store.users(None, 5).await.unwrap();
    let two = store.users(Some(one[4].id), 5).await.unwrap();
    let ids: Vec<_> = one.iter().chain(&two).map(|user| user.id).collect();
    let expected: Vec<_> = (1..=7).map(uid).collect();
    assert_eq!(ids, expected);
}

async fn tokens_are_found_by_hash_and_removed_by_id(world: World) {
    let store = world.open();
    let (one, two) = (token(1, "t1"), token(1, "t2"));
    store.put_token(one.clone()).await.unwrap();
    store.put_token(two.clone()).await.unwrap();
    let store = world.reopen(store).await;
    assert_eq!(store.token(one.hash).await.unwrap(), Some(one.clone()));
    assert_eq!(store.token([9; 32]).await.unwrap(), None);
    assert_eq!(
        store.tokens(uid(1)).await.unwrap(),
        [one.clone(), two.clone()]
    );
    assert!(!store.remove_token(uid(2), "t1").await.unwrap());
    assert!(store.remove_token(uid(1), "t1").await.unwrap());
    assert!(!store.remove_token(uid(1), "t1").await.unwrap());
    assert_eq!(store.token(one.hash).await.unwrap(), None);
    let mut issued_again = token(1, "t2");
    issued_again.hash = [8; 32];
    store.put_token(issued_again.clone()).await.unwrap();
    assert_eq!(
        store.token(two.hash).await.unwrap(),
        None,
        "one token per id"
    );
    assert_eq!(store.tokens(uid(1)).await.unwrap(), [issued_again]);
}

#[tokio::test]
async fn a_relaxed_move_is_written_without_anybody_asking() {
    use crate::store::tables;
    use broker::store::kv::KvEngine;
    let engine = std::sync::Arc::new(broker::store::memory::MemoryEngine::default());
    let clock = std::sync::Arc::new(ManualClock::default());
    let options = crate::store::StoreOptions::default();
    let started = EmbeddedStore::start(engine.clone(), None, &options, clock);
    let store = started.unwrap();
    store
        .advance(vec![cursor(1, 1, 3)], Durability::Relaxed)
        .await
        .unwrap();
    let mut key = vec![1; 33];
    key[16] = 2; // a group
    while engine.get(tables::CURSOR, &key).unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.cursors(dev(1), None).await.unwrap().len(), 1);
}
