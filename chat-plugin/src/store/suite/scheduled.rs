//! Messages that wait for their time: sent once, by the commit that takes them from the list.

use bytes::Bytes;
use proto::error::ErrorName;
use proto::topics::Target;

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::entry::{BodyFormat, Draft, Outcome};
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::store::ChatStore;

super::stories![
    a_scheduled_message_is_listed_until_it_is_sent,
    what_was_changed_meanwhile_is_not_sent,
    scheduled_messages_are_bounded_and_go_with_their_user,
    scheduled_messages_survive_a_kill,
    what_is_sent_by_hand_does_not_wait_any_more,
    one_user_does_not_fill_what_is_due,
    what_is_put_off_keeps_its_time,
];

fn later(user: u8, mid: &str, at_ms: u64) -> Scheduled {
    Scheduled {
        user: uid(user),
        device: dev(user),
        mid: mid.parse().unwrap(),
        at_ms,
        due_ms: at_ms,
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
        Scheduled {
            conversation: cid(2),
            target: Target::Conversation(cid(2)),
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

    assert_eq!(store.due(9_000, 9).await, Ok(vec![a, other]));
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
    // Who changes has as many as before; who cancels has room again, also after a restart.
    let change = store.reschedule(later(1, "a", 5_000), Some(later(1, "a", 6_000)));
    assert_eq!(change.await, Ok(true));
    let store = world.reopen(store).await;
    let full = store.schedule(later(1, "c", 5_000), 2);
    assert_eq!(full.await, Ok(Scheduling::Full));
    let cancel = store.reschedule(later(1, "a", 6_000), None);
    assert_eq!(cancel.await, Ok(true));
    let waits = store.schedule(later(1, "c", 5_000), 2);
    assert_eq!(waits.await, Ok(Scheduling::Waits));
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

async fn what_is_sent_by_hand_does_not_wait_any_more(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    make_group(&*store, cid(2), &[1]).await;
    let a = later(1, "a", 5_000);
    let others = later(2, "a", 5_000);
    for one in [&a, &others] {
        store.schedule(one.clone(), 9).await.unwrap();
    }
    say(&*store, cid(2), 1, "a").await;
    assert_eq!(listed(&*store, 1).await.len(), 1, "it waits elsewhere");

    let changed = Draft {
        digest: [9; 16],
        ..draft(cid(1), 1, "a", 1)
    };
    place(append(&*store, changed).await);
    assert_eq!(listed(&*store, 1).await, []);
    assert_eq!(store.due(9_000, 9).await, Ok(vec![others]));
    // Long afterwards nobody remembers that it was stored: it is not sent a second time.
    for _ in 0..3 {
        world.clock.advance(7 * DAY);
        store.maintain(0, 0, AuditKeep::ALL).await.unwrap();
    }
    assert_eq!(append(&*store, sending(&a)).await, Outcome::Rescheduled);
    assert_eq!(all(&*store, cid(1)).await.len(), 2);
}

async fn one_user_does_not_fill_what_is_due(world: World) {
    let store = world.open();
    for number in 0..40 {
        let one = later(1, &format!("m{number:02}"), 1_000);
        store.schedule(one, 99).await.unwrap();
    }
    let other = later(2, "a", 2_000);
    store.schedule(other.clone(), 99).await.unwrap();
    let due = store.due(5_000, 20).await.unwrap();
    assert_eq!(due.len(), 17);
    assert_eq!(due.last(), Some(&other));
}

async fn what_is_put_off_keeps_its_time(world: World) {
    let store = world.open();
    let before = later(1, "a", 1_000);
    store.schedule(before.clone(), 9).await.unwrap();
    let put_off = Scheduled {
        due_ms: 9_000,
        ..before.clone()
    };
    let change = store.reschedule(before.clone(), Some(put_off.clone()));
    assert_eq!(change.await, Ok(true));
    let store = world.reopen(store).await;
    assert_eq!(store.schedule(before, 9).await, Ok(Scheduling::Waited));
    assert_eq!(store.due(8_999, 9).await, Ok(vec![]));
    assert_eq!(store.due(9_000, 9).await, Ok(vec![put_off]));
}
