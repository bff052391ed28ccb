//! Messages that wait for a moderator: bounded, let in once, and known by their message ids.

use bytes::Bytes;

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::entry::{Draft, Outcome};
use crate::domain::held::{HELD_MAX, HELD_OF_SENDER_MAX, Held, Holding};
use crate::domain::purge::Purge;
use crate::store::ChatStore;

super::stories![
    what_is_held_waits_and_is_forgotten,
    what_is_held_is_bounded_in_all_and_of_one_sender,
    what_is_held_is_let_in_once,
    what_was_rejected_or_erased_is_not_let_in,
    what_was_rejected_gets_the_answer_of_before,
    the_message_id_of_what_is_held_is_taken,
    a_held_message_settles_its_exchange,
    slow_mode_is_for_what_is_held_too,
];

fn held(from: u8, mid: &str, body: &str, ts_ms: u64) -> Draft {
    Draft {
        ts_ms,
        body: Bytes::from(body.to_owned()),
        digest: proto::ids::digest16(&[body.as_bytes()]),
        ..draft(cid(1), from, mid, 1)
    }
}

async fn hold(store: &dyn ChatStore, draft: Draft) -> Holding {
    store.hold(draft, "a word".to_owned()).await.unwrap()
}

fn let_in(draft: &Draft) -> Draft {
    Draft {
        was_held: true,
        ts_ms: 2_000,
        ..draft.clone()
    }
}

async fn count(store: &dyn ChatStore) -> usize {
    let all = (usize::MAX, usize::MAX);
    store.held(cid(1), None, all).await.unwrap().0.len()
}

async fn what_is_held_waits_and_is_forgotten(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let a = held(1, "a", "one", DAY_MS);
    let b = held(1, "b", "two", 9 * DAY_MS);
    assert_eq!(hold(&*store, a.clone()).await, Holding::Held);
    let again = held(1, "a", "one", 2 * DAY_MS);
    assert_eq!(hold(&*store, again).await, Holding::Held);
    let another = held(1, "a", "two", DAY_MS);
    assert_eq!(hold(&*store, another).await, Holding::Conflict);
    assert_eq!(hold(&*store, b.clone()).await, Holding::Held);
    let expected = [a, b].map(|draft| Held::of(draft, "a word".to_owned()));
    let page = async |after: Option<&str>, size| {
        let after = after.map(|mid| (uid(1), mid.parse().unwrap()));
        store.held(cid(1), after, size).await.unwrap()
    };
    assert_eq!(page(None, (9, 9_999)).await, (expected.to_vec(), false));
    assert_eq!(page(Some("a"), (9, 9_999)).await.0, expected[1..]);
    let one = (expected[..1].to_vec(), true);
    assert_eq!(page(None, (1, 9_999)).await, one);
    assert_eq!(page(None, (9, 1)).await, one, "one, whatever its size");
    let elsewhere = store.held(cid(2), None, (9, 9_999)).await.unwrap();
    assert_eq!(elsewhere, (vec![], false));

    store
        .maintain(16 * DAY_MS, 0, AuditKeep::ALL)
        .await
        .unwrap();
    let mid = |mid: &str| mid.parse().unwrap();
    let found = store.held_message(cid(1), uid(1), &mid("a")).await;
    assert_eq!(found, Ok(None), "nobody decided in 14 days");
    assert_eq!(
        store.reject_held(cid(1), uid(1), &mid("b"), None).await,
        Ok(true)
    );
    assert_eq!(
        store.reject_held(cid(1), uid(1), &mid("b"), None).await,
        Ok(false)
    );
}

async fn what_is_held_is_bounded_in_all_and_of_one_sender(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let fill = async |store: &dyn ChatStore, from, ts_ms| {
        let mut taken = 0;
        while hold(store, held(from, &format!("m{taken}"), "x", ts_ms)).await == Holding::Held {
            taken += 1;
        }
        taken
    };
    assert_eq!(fill(&*store, 1, DAY_MS).await, HELD_OF_SENDER_MAX);
    for from in 2..=10 {
        assert_eq!(fill(&*store, from, 9 * DAY_MS).await, HELD_OF_SENDER_MAX);
    }
    assert_eq!(count(&*store).await as u64, HELD_MAX);
    let store = world.reopen(store).await;
    assert_eq!(fill(&*store, 11, 9 * DAY_MS).await, 0);
    let elsewhere = Draft {
        conversation: cid(2),
        ..held(1, "m", "x", DAY_MS)
    };
    assert_eq!(hold(&*store, elsewhere).await, Holding::Held);

    // Whatever ends it makes room: a decision, an erasure, time.
    let mid = "m0".parse().unwrap();
    assert_eq!(
        store.reject_held(cid(1), uid(2), &mid, None).await,
        Ok(true)
    );
    assert_eq!(fill(&*store, 11, 9 * DAY_MS).await, 1);
    let traces = Purge::Traces {
        of: uid(3),
        from: seq(0),
    };
    store.purge(cid(1), traces).await.unwrap();
    assert_eq!(fill(&*store, 12, 9 * DAY_MS).await, HELD_OF_SENDER_MAX);
    store
        .maintain(16 * DAY_MS, 0, AuditKeep::ALL)
        .await
        .unwrap();
    assert_eq!(fill(&*store, 1, 16 * DAY_MS).await, HELD_OF_SENDER_MAX);
    assert_eq!(fill(&*store, 3, 16 * DAY_MS).await, 0);
}

async fn what_is_held_is_let_in_once(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let one = held(1, "a", "one", DAY_MS);
    hold(&*store, one.clone()).await;
    let at = place(append(&*store, let_in(&one)).await);
    assert_eq!(count(&*store).await, 0);
    let store = if world.is_on_disk() {
        world.killed().open()
    } else {
        store
    };
    assert_eq!(count(&*store).await, 0, "in the same commit");
    assert_eq!(first(append(&*store, let_in(&one)).await), at);
    assert_eq!(all(&*store, cid(1)).await.len(), 2);
}

async fn what_was_rejected_or_erased_is_not_let_in(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let one = held(1, "a", "one", DAY_MS);
    hold(&*store, one.clone()).await;
    store
        .reject_held(cid(1), uid(1), &one.mid, None)
        .await
        .unwrap();
    assert_eq!(append(&*store, let_in(&one)).await, Outcome::NotHeld);
    let other = held(1, "b", "two", DAY_MS);
    hold(&*store, other.clone()).await;
    let traces = Purge::Traces {
        of: uid(1),
        from: seq(0),
    };
    store.purge(cid(1), traces).await.unwrap();
    assert_eq!(append(&*store, let_in(&other)).await, Outcome::NotHeld);
    place(append(&*store, one).await);
    assert_eq!(
        all(&*store, cid(1)).await.len(),
        2,
        "nothing of what was rejected is left"
    );
}

async fn what_was_rejected_gets_the_answer_of_before(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let one = held(1, "a", "one", DAY_MS);
    hold(&*store, one.clone()).await;
    let rejected = store.reject_held(cid(1), uid(1), &one.mid, None);
    assert_eq!(rejected.await, Ok(true));
    let store = world.reopen(store).await;
    assert_eq!(hold(&*store, one.clone()).await, Holding::Held);
    assert_eq!(append(&*store, one.clone()).await, Outcome::Held);
    let exchanged = Draft {
        exchange: Some((dev(1), 7)),
        ..one.clone()
    };
    assert_eq!(hold(&*store, exchanged).await, Holding::Held);
    let known = store.exchange(dev(1), 7).await.unwrap().unwrap();
    assert_eq!(known.place.seq, seq(0));
    let another = held(1, "a", "two", DAY_MS);
    assert_eq!(hold(&*store, another.clone()).await, Holding::Conflict);
    assert_eq!(append(&*store, another).await, Outcome::Conflict);
    assert_eq!(count(&*store).await, 0, "nobody decides on it again");
    assert_eq!(all(&*store, cid(1)).await.len(), 1, "nor is it in the log");
    let of_other = held(2, "a", "one", DAY_MS);
    assert_eq!(hold(&*store, of_other).await, Holding::Held);
    assert_eq!(count(&*store).await, 1, "a message id is its sender's");

    store
        .maintain(14 * DAY_MS, 0, AuditKeep::ALL)
        .await
        .unwrap();
    assert_eq!(append(&*store, one.clone()).await, Outcome::Held);
    store
        .maintain(16 * DAY_MS, 0, AuditKeep::ALL)
        .await
        .unwrap();
    place(append(&*store, one).await);
}

async fn the_message_id_of_what_is_held_is_taken(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let one = held(1, "a", "one", DAY_MS);
    hold(&*store, one.clone()).await;
    let store = world.reopen(store).await;
    let another = held(1, "a", "two", DAY_MS);
    assert_eq!(append(&*store, another).await, Outcome::Conflict);
    place(append(&*store, held(2, "a", "two", DAY_MS)).await);
    assert_eq!(count(&*store).await, 1, "a message id is its sender's");
    place(append(&*store, one).await);
    assert_eq!(count(&*store).await, 0, "it is in the log");
}

async fn a_held_message_settles_its_exchange(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    // Without a message id of the client, each attempt comes with another one.
    let attempt = |mid: &str| Draft {
        exchange: Some((dev(1), 7)),
        ..held(1, mid, "one", DAY_MS)
    };
    assert_eq!(hold(&*store, attempt("a")).await, Holding::Held);
    let store = world.reopen(store).await;
    assert_eq!(hold(&*store, attempt("b")).await, Holding::Held);
    assert_eq!(count(&*store).await, 1);
    assert_eq!(append(&*store, attempt("c")).await, Outcome::Held);
    let known = store.exchange(dev(1), 7).await.unwrap().unwrap();
    assert_eq!((known.conversation, known.place.seq), (cid(1), seq(0)));
    assert_eq!(store.end_exchange(dev(1), 7).await, Ok(true));
    assert_eq!(hold(&*store, attempt("d")).await, Holding::Held);
    assert_eq!(count(&*store).await, 2, "another exchange");
}

async fn slow_mode_is_for_what_is_held_too(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let slow = |mid: &str, ts_ms| Draft {
        slow_ms: 1_000,
        ..held(1, mid, "one", ts_ms)
    };
    assert_eq!(hold(&*store, slow("a", 5_000)).await, Holding::Held);
    let soon = Holding::TooSoon { retry_ms: 400 };
    assert_eq!(hold(&*store, slow("b", 5_600)).await, soon);
    assert_eq!(hold(&*store, slow("b", 6_000)).await, Holding::Held);
    place(append(&*store, held(1, "c", "said", 8_000)).await);
    assert_eq!(hold(&*store, slow("d", 8_600)).await, soon);
}
