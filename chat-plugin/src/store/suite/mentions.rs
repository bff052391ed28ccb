//! Mentions: they follow what happens to the message.

use proto::ids::{Seq, UserId};

use super::world::*;
use crate::domain::entry::{Draft, EntryKind, Mentioned};
use crate::domain::member::Stretch;
use crate::domain::overlay::Act;
use crate::store::ChatStore;

super::stories![
    those_who_are_mentioned_find_it,
    a_mention_follows_edits_and_goes_with_its_message,
    mentions_survive_a_kill,
];

fn mentioning(from: u8, mid: &str, all: bool, users: &[u8]) -> Draft {
    let users: Vec<UserId> = users.iter().map(|user| uid(*user)).collect();
    let users = users.into();
    Draft {
        mentions: Mentioned { all, users },
        ..draft(cid(1), from, mid, 1)
    }
}

fn act(from: u8, mid: &str, target: Seq, act: Act) -> Draft {
    let kind = match act {
        Act::Edit => EntryKind::Edit,
        _ => EntryKind::Deleted,
    };
    Draft {
        kind,
        target: Some(target),
        act: Some(act),
        ..draft(cid(1), from, mid, 1)
    }
}

async fn found(store: &dyn ChatStore, user: u8, from: u64, to: u64, limit: usize) -> Vec<u64> {
    let stretch = Stretch {
        from: seq(from),
        to: seq(to),
    };
    let found = store.mentions(cid(1), uid(user), stretch, limit).await;
    found.unwrap().into_iter().map(Seq::get).collect()
}

async fn those_who_are_mentioned_find_it(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3]).await;
    let one = place(append(&*store, mentioning(1, "a", false, &[1, 2])).await).get();
    let both = place(append(&*store, mentioning(2, "b", false, &[1, 3])).await).get();
    let all = place(append(&*store, mentioning(1, "c", true, &[2])).await).get();
    say(&*store, cid(1), 1, "nobody").await;
    assert_eq!(
        found(&*store, 1, 1, 99, 9).await,
        [both],
        "nobody mentions himself"
    );
    assert_eq!(found(&*store, 2, 1, 99, 9).await, [all, one]);
    assert_eq!(found(&*store, 3, 1, 99, 9).await, [all, both]);
    assert_eq!(found(&*store, 2, 1, 99, 1).await, [all], "the newest first");
    assert_eq!(found(&*store, 2, one + 1, all - 1, 9).await, [0; 0]);
    assert_eq!(found(&*store, 4, 1, 99, 9).await, [all]);
    let entries = super::world::all(&*store, cid(1)).await;
    assert_eq!(entries[1].mentions.users[..], [uid(1), uid(2)]);
    assert!(entries[3].mentions.all);
    assert!(entries[4].mentions.is_empty());

    assert_eq!(store.hide(cid(1), seq(all), uid(2), 5).await, Ok(true));
    assert_eq!(
        found(&*store, 2, 1, 99, 1).await,
        [one],
        "hidden ones take no room"
    );
    assert_eq!(found(&*store, 3, 1, 99, 1).await, [all]);
}

async fn a_mention_follows_edits_and_goes_with_its_message(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3]).await;
    let message = place(append(&*store, mentioning(1, "a", false, &[2])).await);
    let edited = |mid: &str, all, users: &[u8]| Draft {
        mentions: mentioning(1, mid, all, users).mentions,
        ..act(1, mid, message, Act::Edit)
    };
    place(append(&*store, edited("e1", false, &[3])).await);
    assert_eq!(found(&*store, 2, 1, 99, 9).await, [0; 0]);
    assert_eq!(found(&*store, 3, 1, 99, 9).await, [message.get()]);
    place(append(&*store, edited("e2", true, &[])).await);
    assert_eq!(found(&*store, 2, 1, 99, 9).await, [message.get()]);
    let shown = super::world::all(&*store, cid(1)).await.remove(1);
    assert!(shown.mentions.all, "as the latest edit says");
    place(append(&*store, act(1, "d", message, Act::Delete)).await);
    assert_eq!(found(&*store, 2, 1, 99, 9).await, [0; 0]);
    let shown = super::world::all(&*store, cid(1)).await.remove(1);
    assert!(shown.mentions.is_empty());

    let short = Draft {
        expires_ms: Some(2_000),
        ..mentioning(1, "short", false, &[2])
    };
    place(append(&*store, short).await);
    assert_eq!(found(&*store, 2, 1, 99, 9).await.len(), 1);
    store.expire(2_000).await.unwrap();
    assert_eq!(found(&*store, 2, 1, 99, 9).await, [0; 0]);
}

async fn mentions_survive_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = place(append(&*store, mentioning(1, "a", false, &[2])).await);
    let killed = world.killed();
    let store = killed.open();
    assert_eq!(found(&*store, 2, 1, 99, 9).await, [message.get()]);
}
