//! Messages that wait for their time: sent once, by the commit that takes them from the list.

use bytes::Bytes;
use proto::error::ErrorName;
use proto::topics::Target;

use super::world::*;
use crate::domain::entry::{BodyFormat, Draft, Outcome};
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::store::ChatStore;

super::stories![
    a_scheduled_message_is_listed_until_it_is_sent,
    what_was_changed_meanwhile_is_not_sent,
    scheduled_messages_are_bounded_and_go_with_their_user,
    scheduled_messages_survive_a_kill,
];

fn later(user: u8, mid: &str, at_ms: u64) -> Scheduled {
    Scheduled {
        user: uid(user),
        device: dev(user),
        mid: mid.parse().unwrap(),
        at_ms,
        target: Target::Conversation(cid(1)),
        conversation: cid(1),
        digest: draft(cid(1), user, mid, 1).digest,
        format: BodyFormat::Text,
        opaque: false,
        body: Bytes::copy_from_slice(mid.as_bytes()),
        reply_to: Some(seq(3)),
        thread: None,
        ttl_s: Some(7),
        refused: None,
    }
}

fn sending(scheduled: &Scheduled) -> Draft {
    Draft {
        scheduled: Some(Box::new(scheduled.clone())),
        ..draft(cid(1), 1, scheduled.mid.as_str(), 1)
    }
}

async fn listed(store: &dyn ChatStore, user: u8) -> Vec<Scheduled> {
    store.scheduled(uid(user), None, 99).await.unwrap()
}

async fn a_scheduled_message_is_listed_until_it_is_sent(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let (a, b, other) = (
        later(1, "a", 5_000),
        later(1, "b", 4_000),
        later(2, "a", 6_000),
    );
    for one in [&b, &a, &other] {
        assert_eq!(store.schedule(one.clone(), 9).await, Ok(Scheduling::Waits));
    }
    assert_eq!(store.schedule(a.clone(), 9).await, Ok(Scheduling::Waited));
    for another in [
        later(1, "a", 5_001),
        Scheduled {
            digest: [9; 16],
            ..a.clone()
        },
    ] {
        assert_eq!(store.schedule(another, 9).await, Ok(Scheduling::Conflict));
    }
    let store = world.reopen(store).await;
    assert_eq!(listed(&*store, 1).await, [a.clone(), b.clone()]);
    let page = store.scheduled(uid(1), Some(a.mid.clone()), 1).await;
    assert_eq!(page, Ok(vec![b.clone()]));
    assert_eq!(
        store.scheduled_as(uid(2), &a.mid).await,
        Ok(Some(other.clone()))
    );

    assert_eq!(store.due(3_999, 9).await, Ok(vec![]));
    assert_eq!(
        store.due(5_000, 9).await,
        Ok(vec![b.clone(), a.clone()]),
        "the oldest first"
    );
    assert_eq!(store.due(5_000, 1).await, Ok(vec![b.clone()]));
    let sent = place(append(&*store, sending(&b)).await);
    assert_eq!(store.due(5_000, 9).await, Ok(vec![a.clone()]));
    assert_eq!(listed(&*store, 1).await, std::slice::from_ref(&a));
    assert_eq!(
        append(&*store, sending(&b)).await,
        Outcome::Rescheduled,
        "once"
    );
    assert_eq!(first(append(&*store, draft(cid(1), 1, "b", 1)).await), sent);

    // Sent by hand meanwhile: it is not sent again.
    let by_hand = say(&*store, cid(1), 1, "a").await;
    assert_eq!(first(append(&*store, sending(&a)).await), by_hand);
    assert_eq!(listed(&*store, 1).await, []);
    assert_eq!(store.due(9_000, 9).await, Ok(vec![other]));
}

async fn what_was_changed_meanwhile_is_not_sent(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let before = later(1, "a", 5_000);
    store.schedule(before.clone(), 9).await.unwrap();
    let after = Scheduled {
        body: Bytes::from_static(b"changed"),
        ..later(1, "a", 7_000)
    };
    let change = store.reschedule(before.clone(), Some(after.clone()));
    assert_eq!(change.await, Ok(true));
    let change = store.reschedule(before.clone(), None);
    assert_eq!(change.await, Ok(false), "it is another one now");
    assert_eq!(
        append(&*store, sending(&before)).await,
        Outcome::Rescheduled
    );
    assert_eq!(store.due(6_999, 9).await, Ok(vec![]));
    assert_eq!(store.due(7_000, 9).await, Ok(vec![after.clone()]));

    let refused = Scheduled {
        refused: Some((ErrorName::Forbidden, "you may not write here".to_owned())),
        ..after.clone()
    };
    let change = store.reschedule(after, Some(refused.clone()));
    assert_eq!(change.await, Ok(true));
    assert_eq!(
        store.due(9_000, 9).await,
        Ok(vec![]),
        "it waits for its user"
    );
    assert_eq!(listed(&*store, 1).await, std::slice::from_ref(&refused));
    assert_eq!(store.reschedule(refused, None).await, Ok(true));
    assert_eq!(listed(&*store, 1).await, []);
    assert_eq!(all(&*store, cid(1)).await.len(), 1, "nothing was sent");
}

async fn scheduled_messages_are_bounded_and_go_with_their_user(world: World) {
    let store = world.open();
    store.create_user(user(1, "alice")).await.unwrap();
    for mid in ["a", "b"] {
        assert_eq!(
            store.schedule(later(1, mid, 5_000), 2).await,
            Ok(Scheduling::Waits)
        );
    }
    assert_eq!(
        store.schedule(later(1, "c", 5_000), 2).await,
        Ok(Scheduling::Full)
    );
    assert_eq!(
        store.schedule(later(2, "c", 5_000), 2).await,
        Ok(Scheduling::Waits)
    );
    let mut removed = user(1, "alice");
    removed.removed_ms = Some(2_000);
    store.update_user(removed).await.unwrap();
    assert_eq!(listed(&*store, 1).await, []);
    assert_eq!(store.due(9_000, 9).await.unwrap().len(), 1);
}

async fn scheduled_messages_survive_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let (a, b) = (later(1, "a", 5_000), later(1, "b", 5_000));
    for one in [&a, &b] {
        store.schedule(one.clone(), 9).await.unwrap();
    }
    place(append(&*store, sending(&a)).await);
    let killed = world.killed();
    let store = killed.open();
    assert_eq!(store.due(5_000, 9).await, Ok(vec![b.clone()]));
    assert_eq!(append(&*store, sending(&a)).await, Outcome::Rescheduled);
    place(append(&*store, sending(&b)).await);
}
