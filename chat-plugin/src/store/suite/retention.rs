//! Where something is over a limit.

use proto::ids::{ConversationId, ConversationKind};

use super::world::*;
use crate::domain::conversation::Settings;
use crate::domain::entry::{Change, Draft, EntryKind};
use crate::domain::purge::{Limits, Overdue, Purge, Retention};
use crate::store::ChatStore;

super::stories![
    conversations_over_their_own_limits_are_found,
    conversations_over_the_limits_of_all_are_found,
    what_was_looked_at_is_not_found_again,
    all_conversations_are_looked_at_page_by_page,
];

/// A group with a limit of its own, and messages.
async fn group(store: &dyn ChatStore, number: u8, settings: Settings, messages: u64) {
    let mut first = created(cid(number), &[1, 2]);
    first.changes.push(Change::Settings(settings));
    append(store, first).await;
    for message in 0..messages {
        let one = Draft {
            ts_ms: 1_000 * (message + 1),
            ..draft(cid(number), 1, &format!("m{message}"), 1)
        };
        place(append(store, one).await);
    }
}

fn keeps(retention_messages: u32) -> Settings {
    Settings {
        retention_messages,
        ..Settings::default()
    }
}

fn found(overdue: &Overdue) -> Vec<u8> {
    let ids = overdue.found.iter().map(|(id, _)| id.as_bytes()[0]);
    ids.collect()
}

async fn conversations_over_their_own_limits_are_found(world: World) {
    let store = world.open();
    group(&*store, 1, Settings::default(), 5).await;
    group(&*store, 2, keeps(2), 5).await;
    group(&*store, 3, keeps(5), 5).await;
    let store = world.reopen(store).await;
    let overdue = async || store.overdue(Limits::default(), None).await.unwrap();
    let newest = Retention {
        before_ms: 0,
        newest: 2,
    };
    let expected = Overdue {
        found: vec![(cid(2), newest)],
        next: None,
    };
    assert_eq!(overdue().await, expected);
    // Its owner thinks better of it.
    let change = Draft {
        kind: EntryKind::Settings,
        changes: vec![Change::Settings(keeps(0))],
        ..draft(cid(2), 1, "settings", 1)
    };
    place(append(&*store, change).await);
    assert_eq!(overdue().await, Overdue::default());
}

async fn conversations_over_the_limits_of_all_are_found(world: World) {
    let store = world.open();
    group(&*store, 1, Settings::default(), 5).await;
    group(&*store, 2, keeps(2), 3).await;
    group(&*store, 3, Settings::default(), 4).await;
    let limits = Limits {
        messages: 4,
        ..Limits::default()
    };
    let overdue = store.overdue(limits, None).await.unwrap();
    assert_eq!(found(&overdue), [1, 2]);
    let overdue = store.overdue(limits, Some(cid(1))).await.unwrap();
    assert_eq!(found(&overdue), [2]);
    let days = |now_ms| Limits {
        now_ms,
        days: 1,
        messages: 0,
    };
    let now_ms = Some(DAY_MS + 1_001);
    let overdue = store.overdue(days(now_ms), None).await.unwrap();
    assert_eq!(found(&overdue), [1, 2, 3]);
    let overdue = store.overdue(days(None), None).await.unwrap();
    assert_eq!(found(&overdue), [2], "without a clock nothing is too old");
}

async fn what_was_looked_at_is_not_found_again(world: World) {
    let store = world.open();
    group(&*store, 1, keeps(2), 5).await;
    let overdue = async || store.overdue(Limits::default(), None).await.unwrap();
    let (id, retention) = overdue().await.found.pop().unwrap();
    let purged = store.purge(id, Purge::Old(retention)).await.unwrap();
    assert_eq!(purged.messages, 3);
    assert_eq!(overdue().await, Overdue::default());
    say(&*store, cid(1), 2, "one-more").await;
    assert_eq!(found(&overdue().await), [1]);
}

async fn all_conversations_are_looked_at_page_by_page(world: World) {
    let store = world.open();
    let all = (1..=250).chain(1..=250);
    let kinds = [ConversationKind::Group, ConversationKind::Channel];
    let groups = all.enumerate().map(|(index, number)| {
        let id = ConversationId::from_parts(kinds[index / 250], [number; 16]);
        Draft {
            conversation: id,
            ..created(id, &[1])
        }
    });
    store.append(groups.collect()).await.unwrap();
    let limits = Limits {
        now_ms: Some(u64::MAX),
        days: 1,
        messages: 0,
    };
    let (mut after, mut count, mut pages) = (None, 0, 0);
    loop {
        let page = store.overdue(limits, after).await.unwrap();
        assert!(page.found.iter().all(|(id, _)| Some(*id) > after));
        count += page.found.len();
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((count, pages), (500, 2));
}
