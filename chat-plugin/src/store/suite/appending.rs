//! Order, density, duplicates.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::entry::{Basis, Draft, EntryKind, Outcome};
use crate::store::{ChatStore, DroppedIds, StoreError};
use proto::ids::{ConversationId, ConversationKind, Seq, UserId, digest16};

super::stories![
    concurrent_appends_are_dense_and_in_each_senders_order,
    outcomes_come_in_the_order_of_the_drafts,
    a_large_call_is_split_and_stays_in_order,
    duplicates_return_their_first_place,
    duplicates_are_known_after_a_restart,
    the_same_mid_with_another_digest_is_a_conflict,
    keys_are_per_conversation_and_sender,
    a_message_is_found_by_its_id,
    keys_live_for_a_week_of_uptime_and_no_longer_than_two,
    an_operator_drops_keys_of_weeks_that_are_over,
    the_first_of_a_qos_2_exchange_wins_whatever_the_mid_says,
    an_exchange_ends_once,
    exchanges_that_nobody_came_back_for_end_in_time,
    time_never_goes_back_within_a_conversation,
    the_feed_tells_every_entry_in_order,
    ids_of_the_wrong_kind_find_nothing,
    a_body_that_is_too_large_is_refused,
    appending_nothing_is_nothing,
    own_entries_of_one_batch_are_counted_whatever_the_cache_holds,
];

async fn concurrent_appends_are_dense_and_in_each_senders_order(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3, 4]).await;
    let senders: Vec<_> = (1..=4u8)
        .map(|sender| {
            let store = Arc::clone(&store);
            // A test may: it waits for all of them below.
            #[expect(clippy::disallowed_methods, reason = "joined below")]
            tokio::spawn(async move {
                let mut places = Vec::new();
                for number in 0..50 {
                    let mid = format!("m{number}");
                    places.push(say(&*store, cid(1), sender, &mid).await);
                }
                places
            })
        })
        .collect();
    let mut seen = BTreeSet::from([Seq::new(1)]);
    for sender in senders {
        let places = sender.await.unwrap();
        assert!(places.is_sorted(), "a sender's order is kept");
        seen.extend(places);
    }
    assert_eq!(seen.len(), 201, "no place twice");
    assert_eq!(seen.last(), Some(&seq(201)), "no hole");
    let entries = all(&*store, cid(1)).await;
    assert_eq!(entries.len(), 201);
    let head = store
        .conversations(&[cid(1)])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!((head.head, head.mseq), (seq(201), 200));
}

async fn outcomes_come_in_the_order_of_the_drafts(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    make_group(&*store, cid(2), &[1]).await;
    let batch = vec![
        draft(cid(1), 1, "a", 1),
        draft(cid(2), 1, "a", 1),
        draft(cid(1), 1, "b", 1),
        draft(cid(1), 1, "a", 1),
        draft(cid(3), 1, "a", 1),
    ];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(place(outcomes[0]), seq(2));
    assert_eq!(place(outcomes[1]), seq(2));
    assert_eq!(place(outcomes[2]), seq(3));
    assert_eq!(first(outcomes[3]), seq(2), "twice in one batch");
    assert_eq!(outcomes[4], Outcome::MembersMoved, "no such conversation");
}

async fn a_large_call_is_split_and_stays_in_order(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let drafts: Vec<Draft> = (0..1_500)
        .map(|number| draft(cid(1), 1, &format!("m{number}"), 1))
        .collect();
    let outcomes = store.append(drafts).await.unwrap();
    let places: Vec<_> = outcomes.into_iter().map(place).collect();
    let expected: Vec<_> = (2..=1_501).map(Seq::new).collect();
    assert!(places == expected, "{} places", places.len());
}

async fn duplicates_return_their_first_place(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    say(&*store, cid(1), 1, "a").await;
    say(&*store, cid(1), 1, "b").await;
    let again = append(
        &*store,
        Draft {
            ts_ms: 9_999,
            ..draft(cid(1), 1, "a", 1)
        },
    )
    .await;
    let expected = Outcome::Duplicate {
        seq: seq(2),
        ts_ms: 1_000,
    };
    assert_eq!(again, expected);
    let stale = append(&*store, draft(cid(1), 1, "a", 77)).await;
    assert_eq!(
        stale, expected,
        "what is stored is stored, whatever the basis"
    );
    assert_eq!(all(&*store, cid(1)).await.len(), 3);
}

async fn duplicates_are_known_after_a_restart(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    say(&*store, cid(1), 1, "a").await;
    let store = world.reopen(store).await;
    assert_eq!(
        first(append(&*store, draft(cid(1), 1, "a", 1)).await),
        seq(2)
    );
    assert_eq!(say(&*store, cid(1), 1, "b").await, seq(3));
}

async fn the_same_mid_with_another_digest_is_a_conflict(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let other = Draft {
        digest: [9; 16],
        ..draft(cid(1), 1, "a", 1)
    };
    let batch = vec![draft(cid(1), 1, "a", 1), other.clone()];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(outcomes[1], Outcome::Conflict, "within a batch");
    assert_eq!(append(&*store, other.clone()).await, Outcome::Conflict);
    let store = world.reopen(store).await;
    assert_eq!(append(&*store, other).await, Outcome::Conflict);
    assert_eq!(all(&*store, cid(1)).await.len(), 2);
}

async fn keys_are_per_conversation_and_sender(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    make_group(&*store, cid(2), &[1, 2]).await;
    assert_eq!(say(&*store, cid(1), 1, "a").await, seq(2));
    assert_eq!(say(&*store, cid(1), 2, "a").await, seq(3));
    assert_eq!(say(&*store, cid(2), 1, "a").await, seq(2));
}

async fn a_message_is_found_by_its_id(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    say(&*store, cid(1), 1, "a").await;
    let store = world.reopen(store).await;
    let place_of = |user, mid: &str| {
        let (store, mid) = (Arc::clone(&store), mid.parse().unwrap());
        async move { store.place_of(cid(1), uid(user), &mid).await.unwrap() }
    };
    let found = place_of(1, "a").await.unwrap();
    assert_eq!((found.seq, found.ts_ms), (seq(2), 1_000));
    assert_eq!(found.digest, digest16(&[b"a"]));
    assert_eq!(place_of(2, "a").await, None);
    assert_eq!(place_of(1, "b").await, None);
}

async fn an_operator_drops_keys_of_weeks_that_are_over(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    say(&*store, cid(1), 1, "a").await;
    world.clock.advance(7 * DAY);
    say(&*store, cid(1), 1, "b").await;
    let pages = async |store: &dyn ChatStore, limit| {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = store.ids(after, limit).await.unwrap();
            assert!(page.weeks.iter().all(|(_, rows, bytes)| bytes > rows));
            rows.extend(page.weeks.iter().map(|(week, rows, _)| (*week, *rows)));
            match page.next {
                Some(next) => after = Some(next),
                None => return rows,
            }
        }
    };
    assert_eq!(pages(&*store, 9).await, [(0, 2), (1, 1)]);
    assert_eq!(pages(&*store, 1).await, [(0, 1), (0, 1), (1, 1)]);
    let dropped = |rows| {
        Ok(DroppedIds {
            week: 1,
            rows,
            next: None,
        })
    };
    assert_eq!(store.drop_ids(0, None).await, dropped(0));
    assert_eq!(pages(&*store, 9).await, [(0, 2), (1, 1)]);
    assert_eq!(store.drop_ids(u16::MAX, None).await, dropped(2));
    assert_eq!(store.drop_ids(u16::MAX, None).await, dropped(0));
    let store = world.reopen(store).await;
    assert_eq!(pages(&*store, 9).await, [(1, 1)]);
    let again = append(&*store, draft(cid(1), 1, "b", 1)).await;
    assert_eq!(first(again), seq(3), "this week's");
    assert_eq!(say(&*store, cid(1), 1, "a").await, seq(4), "it was dropped");
}

async fn keys_live_for_a_week_of_uptime_and_no_longer_than_two(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    world.clock.advance(6 * DAY);
    say(&*store, cid(1), 1, "a").await;

    world.clock.advance(7 * DAY);
    store.maintain(u64::MAX, 0, AuditKeep::ALL).await.unwrap();
    let again = append(&*store, draft(cid(1), 1, "a", 1)).await;
    assert_eq!(first(again), seq(2), "last week's, whatever the date is");

    let store = world.reopen(store).await;
    store.maintain(0, 0, AuditKeep::ALL).await.unwrap();
    let again = append(&*store, draft(cid(1), 1, "a", 1)).await;
    assert_eq!(first(again), seq(2), "a restart does not count as time");

    world.clock.advance(7 * DAY);
    store.maintain(0, 0, AuditKeep::ALL).await.unwrap();
    assert_eq!(say(&*store, cid(1), 1, "a").await, seq(3), "dropped");
    assert_eq!(
        first(append(&*store, draft(cid(1), 1, "a", 1)).await),
        seq(3)
    );
}

async fn the_first_of_a_qos_2_exchange_wins_whatever_the_mid_says(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    make_group(&*store, cid(2), &[1]).await;
    let exchanged = |conversation, mid: &str| Draft {
        exchange: Some((dev(1), 5)),
        ..draft(conversation, 1, mid, 1)
    };
    // Without a message id of the sender's each attempt has another one, and the same digest.
    let again = |mid: &str| Draft {
        digest: exchanged(cid(1), "a").digest,
        ..exchanged(cid(1), mid)
    };
    let batch = vec![exchanged(cid(1), "a"), again("b")];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(place(outcomes[0]), seq(2));
    let expected = Outcome::Duplicate {
        seq: seq(2),
        ts_ms: 1_000,
    };
    assert_eq!(outcomes[1], expected, "within a batch");
    let store = world.reopen(store).await;
    assert_eq!(append(&*store, again("c")).await, expected);
    let found = store.exchange(dev(1), 5).await.unwrap().unwrap();
    assert_eq!((found.conversation, found.place.seq), (cid(1), seq(2)));
    assert_eq!(found.place.digest, again("c").digest);
    assert_eq!(store.exchange(dev(1), 6).await.unwrap(), None);

    let other = append(&*store, exchanged(cid(2), "d")).await;
    assert_eq!(
        place(other),
        seq(2),
        "another message under this identifier"
    );
    assert!(store.end_exchange(dev(1), 5).await.unwrap());
    assert_eq!(place(append(&*store, again("c")).await), seq(3));
    assert!(store.end_exchange(dev(1), 5).await.unwrap());

    let repeated = append(&*store, exchanged(cid(1), "a")).await;
    assert_eq!(first(repeated), seq(2), "by its mid");
    assert!(
        store.end_exchange(dev(1), 5).await.unwrap(),
        "the answer to a duplicate belongs to an exchange, too"
    );
}

async fn an_exchange_ends_once(world: World) {
    let store = world.open();
    assert!(!store.end_exchange(dev(1), 1).await.unwrap());
    make_group(&*store, cid(1), &[1]).await;
    let exchanged = Draft {
        exchange: Some((dev(1), 1)),
        ..draft(cid(1), 1, "a", 1)
    };
    append(&*store, exchanged).await;
    assert!(store.end_exchange(dev(1), 1).await.unwrap());
    assert!(!store.end_exchange(dev(1), 1).await.unwrap());
    let store = world.reopen(store).await;
    assert!(!store.end_exchange(dev(1), 1).await.unwrap());
}

async fn time_never_goes_back_within_a_conversation(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let at = |mid: &str, ts_ms| Draft {
        ts_ms,
        ..draft(cid(1), 1, mid, 1)
    };
    let batch = vec![at("a", 5_000), at("b", 4_000), at("c", 6_000), at("d", 1)];
    store.append(batch).await.unwrap();
    append(&*store, at("e", 2)).await;
    let times: Vec<_> = all(&*store, cid(1))
        .await
        .iter()
        .map(|entry| entry.ts_ms)
        .collect();
    assert_eq!(times, [1_000, 5_000, 5_000, 6_000, 6_000, 6_000]);
}

async fn the_feed_tells_every_entry_in_order(world: World) {
    let store = world.open();
    let mut feed = store.feed();
    make_group(&*store, cid(1), &[1]).await;
    say(&*store, cid(1), 1, "a").await;
    append(&*store, draft(cid(1), 1, "a", 1)).await;
    let drafts = (0..100).map(|number| draft(cid(1), 1, &number.to_string(), 1));
    store.append(drafts.collect()).await.unwrap();
    for number in 1..=102 {
        let committed = feed.recv().await.unwrap();
        assert_eq!(committed.conversation, cid(1));
        assert_eq!(committed.head, seq(number));
        assert_eq!(committed.members_changed, number == 1);
        let entry = committed.entry.unwrap();
        assert_eq!(entry.seq, seq(number));
        assert_eq!(entry.kind == EntryKind::Created, number == 1);
    }
    drop(feed);
    say(&*store, cid(1), 1, "nobody-listens").await;
}

async fn ids_of_the_wrong_kind_find_nothing(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    say(&*store, cid(1), 1, "a").await;
    let wrong = ConversationId::from_parts(ConversationKind::Channel, [1; 16]);
    assert_eq!(store.conversations(&[wrong]).await.unwrap(), [None]);
    assert!(all(&*store, wrong).await.is_empty());
    assert!(store.members(wrong, None, 10).await.unwrap().is_empty());
    let outcome = append(&*store, draft(wrong, 1, "b", 1)).await;
    assert_eq!(outcome, Outcome::MembersMoved);
    assert_eq!(
        store.conversations_of(uid(1), None, 10).await.unwrap(),
        [cid(1)]
    );
}

async fn a_body_that_is_too_large_is_refused(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let max = crate::store::embedded::BODY_BYTES_MAX;
    let body = |bytes: usize, mid: &str| Draft {
        body: vec![7; bytes].into(),
        digest: digest16(&[mid.as_bytes()]),
        basis: Basis::Version(1),
        ..draft(cid(1), 1, mid, 1)
    };
    let refused = store.append(vec![body(max + 1, "a")]).await;
    assert_eq!(
        refused,
        Err(StoreError::TooLarge {
            bytes: max + 1,
            max
        })
    );
    assert_eq!(place(append(&*store, body(max, "b")).await), seq(2));
    let store = world.reopen(store).await;
    assert_eq!(all(&*store, cid(1)).await[1].body.len(), max);
}

async fn appending_nothing_is_nothing(world: World) {
    let store = world.open();
    assert_eq!(store.append(Vec::new()).await, Ok(Vec::new()));
    store.flush().await.unwrap();
}

async fn exchanges_that_nobody_came_back_for_end_in_time(world: World) {
    /// More than one page of the hourly work.
    const OLD: u16 = 1_300;
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let begun = |packet_id: u16, device, ts_ms| Draft {
        exchange: Some((dev(device), packet_id)),
        ts_ms,
        ..draft(cid(1), 1, &format!("{device}-{packet_id}"), 1)
    };
    let old: Vec<_> = (1..=OLD).map(|number| begun(number, 1, 1_000)).collect();
    for batch in old.chunks(400) {
        store.append(batch.to_vec()).await.unwrap();
    }
    append(&*store, begun(1, 2, 5_000)).await;
    store
        .maintain(1_000_000, 1_000, AuditKeep::ALL)
        .await
        .unwrap();
    assert!(store.exchange(dev(1), 1).await.unwrap().is_some());
    store
        .maintain(1_000_000, 1_001, AuditKeep::ALL)
        .await
        .unwrap();
    for packet_id in [1, 1_000, 1_001, OLD] {
        let found = store.exchange(dev(1), packet_id).await.unwrap();
        assert_eq!(found, None, "{packet_id}");
    }
    assert!(store.exchange(dev(2), 1).await.unwrap().is_some());
    assert!(!store.end_exchange(dev(1), 2).await.unwrap());
    let store = world.reopen(store).await;
    assert!(!store.end_exchange(dev(1), OLD).await.unwrap());
    assert!(store.end_exchange(dev(2), 1).await.unwrap());
}

async fn own_entries_of_one_batch_are_counted_whatever_the_cache_holds(mut world: World) {
    const ROUNDS: u16 = 60;
    if world.is_on_disk() {
        return; // the counting is above the engine
    }
    world.options.memory_bytes = 8 * 1024 * 1024; // the smallest cache
    let store = world.open();
    let user = |number: u16| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        UserId::from_bytes(bytes)
    };
    let message = |from: u16, mid: String| Draft {
        from: user(from),
        ..draft(cid(1), 1, &mid, 1)
    };
    make_group(&*store, cid(1), &[1]).await;
    // The cache is full after the first rounds, and what is new may be the first to go.
    for round in 0..ROUNDS {
        let sender = 1 + round;
        let mut batch = vec![message(sender, format!("first-{round}"))];
        let others = (0..500).map(|number| 100 + (round * 500 + number) % 12_000);
        batch.extend(others.map(|from| message(from, format!("other-{round}"))));
        batch.push(message(sender, format!("second-{round}")));
        store.append(batch).await.unwrap();
        let counts = store.count_up_to(cid(1), user(sender), Seq::MAX);
        assert_eq!(counts.await.unwrap().own, 2, "round {round}");
    }
}
