//! Messages that are made gone many at a time, and what is left of them in the files.

use std::path::Path;

use bytes::Bytes;
use proto::ids::Seq;

use super::world::*;
use crate::domain::entry::{BodyFormat, Draft, EntryKind, Outcome};
use crate::domain::overlay::{Act, GoneReason, React, Report};
use crate::domain::profile::{Circle, Profile};
use crate::domain::purge::{Purge, Purged, Retention};
use crate::store::{ChatStore, StoreError};

super::stories![
    a_range_is_gone_and_its_places_stay,
    a_large_range_goes_in_steps,
    what_one_user_wrote_goes_by_place_and_time,
    traces_of_a_user_are_edits_and_reactions_too,
    an_erased_message_that_comes_again_is_not_stored,
    retention_takes_the_oldest_and_remembers_how_far_it_was,
    readers_are_told_of_a_purge,
    a_purge_survives_a_kill,
    what_a_user_told_of_himself_is_forgotten,
    what_a_user_wrote_is_listed_as_it_is_now,
    all_conversations_are_found,
    what_was_erased_is_in_no_file_after_compaction,
    what_was_erased_is_in_no_file_while_the_store_goes_on,
];

/// In no other text.
const NEEDLE: &str = "Zq8vTj3mWx0kRb7yNc5hPd2sLf9gEa4u";

async fn purge_all(store: &dyn ChatStore, purge: Purge) -> Purged {
    let mut sum = Purged::default();
    let mut next = purge;
    loop {
        let done = store.purge(cid(1), next).await.unwrap();
        sum.messages += done.messages;
        sum.reactions += done.reactions;
        match done.next {
            Some(from) => next = next.from(from),
            None => return sum,
        }
    }
}

/// Places of the messages that are there.
async fn there(store: &dyn ChatStore) -> Vec<u64> {
    let entries = all(store, cid(1)).await;
    let places = entries.iter().map(|entry| entry.seq.get());
    assert!(places.eq(1..=entries.len() as u64), "dense");
    let there = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Message && entry.gone.is_none());
    there.map(|entry| entry.seq.get()).collect()
}

async fn unread(store: &dyn ChatStore, user: u8) -> u64 {
    let count = |at| store.count_up_to(cid(1), uid(user), at);
    let (to, from) = (count(Seq::MAX).await, count(Seq::ZERO).await);
    to.unwrap().unread_since(from.unwrap())
}

async fn fill(store: &dyn ChatStore, messages: u64) {
    make_group(store, cid(1), &[1, 2, 3]).await;
    for number in 0..messages {
        let from = if number % 2 == 0 { 1 } else { 2 };
        say(store, cid(1), from, &format!("m{number}")).await;
    }
}

fn written(by: u8, from: u64, to: u64) -> Purge {
    Purge::Written {
        by: uid(by),
        from: seq(from),
        to: seq(to),
        since_ms: 0,
        until_ms: u64::MAX,
    }
}

fn act(from: u8, mid: &str, target: u64, act: Act) -> Draft {
    let (kind, format) = match act {
        Act::Edit => (EntryKind::Edit, BodyFormat::Text),
        _ => (EntryKind::Reaction, BodyFormat::Json),
    };
    Draft {
        kind,
        format,
        target: Some(seq(target)),
        act: Some(act),
        ..draft(cid(1), from, mid, 1)
    }
}

async fn a_range_is_gone_and_its_places_stay(world: World) {
    let store = world.open();
    fill(&*store, 6).await; // places 2 to 7
    place(append(&*store, act(2, "edit", 3, Act::Edit)).await);
    assert_eq!((unread(&*store, 1).await, unread(&*store, 3).await), (3, 6));
    let range = Purge::Range {
        from: seq(1),
        to: seq(4),
    };
    let purged = purge_all(&*store, range).await;
    assert_eq!(purged.messages, 3, "the creation stays");
    let store = world.reopen(store).await;
    assert_eq!(there(&*store).await, [5, 6, 7]);
    let entries = all(&*store, cid(1)).await;
    for gone in [1, 2, 3, 7] {
        assert_eq!(entries[gone].gone, Some(GoneReason::Purged), "{gone}");
        assert!(entries[gone].body.is_empty());
    }
    assert_eq!(unread(&*store, 1).await, 2, "one of the three of the other");
    assert_eq!(unread(&*store, 3).await, 3);
    assert_eq!(purge_all(&*store, range).await, Purged::default(), "again");
    let nowhere = store.purge(cid(9), range).await;
    assert_eq!(nowhere, Ok(Purged::default()));
    assert_eq!(say(&*store, cid(1), 1, "later").await, seq(9));
}

async fn a_large_range_goes_in_steps(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    for chunk in 0..3 {
        let drafts =
            (0..400).map(|number| draft(cid(1), 1, &format!("m{}", chunk * 400 + number), 1));
        store.append(drafts.collect()).await.unwrap();
    }
    let all = Purge::Range {
        from: Seq::ZERO,
        to: Seq::MAX,
    };
    let first = store.purge(cid(1), all).await.unwrap();
    assert!(first.next.is_some() && first.messages < 1_200);
    let rest = purge_all(&*store, all.from(first.next.unwrap())).await;
    assert_eq!(first.messages + rest.messages, 1_200);
    assert_eq!(there(&*store).await, [0; 0]);
    assert_eq!(unread(&*store, 2).await, 0);
}

async fn what_one_user_wrote_goes_by_place_and_time(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    for number in 0..8 {
        let from = if number % 2 == 0 { 1 } else { 2 };
        let draft = Draft {
            ts_ms: 1_000 + 100 * number,
            ..draft(cid(1), from, &format!("m{number}"), 1)
        };
        place(append(&*store, draft).await);
    }
    // Of user 1: places 2, 4, 6, 8 at 1,000, 1,200, 1,400, 1,600.
    assert_eq!(purge_all(&*store, written(1, 3, 5)).await.messages, 1);
    assert_eq!(there(&*store).await, [2, 3, 5, 6, 7, 8, 9]);
    let by_time = Purge::Written {
        by: uid(1),
        from: Seq::ZERO,
        to: Seq::MAX,
        since_ms: 1_400,
        until_ms: 1_600,
    };
    assert_eq!(purge_all(&*store, by_time).await.messages, 1);
    assert_eq!(there(&*store).await, [2, 3, 5, 7, 8, 9]);
    assert_eq!(unread(&*store, 2).await, 2);
}

async fn traces_of_a_user_are_edits_and_reactions_too(world: World) {
    let store = world.open();
    fill(&*store, 4).await; // user 1: 2, 4; user 2: 3, 5
    place(append(&*store, act(1, "edit", 2, Act::Edit)).await);
    let react = |emoji: &str| Act::React(React::Add(emoji.into()));
    place(append(&*store, act(1, "r1", 3, react("👍"))).await);
    place(append(&*store, act(1, "r2", 3, react("🎉"))).await);
    place(append(&*store, act(2, "r3", 3, react("👍"))).await);
    let traces = Purge::Traces {
        of: uid(1),
        from: Seq::ZERO,
    };
    let purged = purge_all(&*store, traces).await;
    assert_eq!((purged.messages, purged.reactions), (2, 1));
    assert_eq!(there(&*store).await, [3, 5]);
    let entries = all(&*store, cid(1)).await;
    let of_one = entries.iter().filter(|entry| {
        entry.from == uid(1) && entry.kind != EntryKind::Created && entry.gone.is_none()
    });
    assert_eq!(of_one.count(), 0);
    let overlay = entries[2].overlay.as_deref().unwrap();
    assert_eq!(overlay.reactions, [("👍".into(), 1)]);
    let left = store.reactions(cid(1), seq(3), None, 9).await.unwrap();
    assert_eq!(left, [(uid(2), vec!["👍".into()])]);
}

async fn an_erased_message_that_comes_again_is_not_stored(world: World) {
    let store = world.open();
    fill(&*store, 1).await;
    let traces = Purge::Traces {
        of: uid(1),
        from: Seq::ZERO,
    };
    purge_all(&*store, traces).await;
    let again = append(&*store, draft(cid(1), 1, "m0", 1)).await;
    assert_eq!(
        again,
        Outcome::Conflict,
        "what it said is not known any more"
    );
    assert_eq!(there(&*store).await, [0; 0]);
}

async fn retention_takes_the_oldest_and_remembers_how_far_it_was(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    for number in 0..10 {
        let draft = Draft {
            ts_ms: 1_000 + 100 * number,
            ..draft(cid(1), 1, &format!("m{number}"), 1)
        };
        place(append(&*store, draft).await);
    }
    let old = |before_ms, newest| Purge::Old(Retention { before_ms, newest });
    assert_eq!(purge_all(&*store, old(1_200, u64::MAX)).await.messages, 2);
    assert_eq!(there(&*store).await, (4..=11).collect::<Vec<_>>());
    assert_eq!(purge_all(&*store, old(1_200, u64::MAX)).await.messages, 0);
    assert_eq!(purge_all(&*store, old(0, 5)).await.messages, 3);
    let store = world.reopen(store).await;
    assert_eq!(there(&*store).await, (7..=11).collect::<Vec<_>>());
    assert_eq!(purge_all(&*store, old(0, 5)).await.messages, 0);
    say(&*store, cid(1), 1, "later").await;
    assert_eq!(purge_all(&*store, old(0, 5)).await.messages, 1);
    assert_eq!(unread(&*store, 2).await, 5);
}

async fn readers_are_told_of_a_purge(world: World) {
    let store = world.open();
    fill(&*store, 2).await;
    place(append(&*store, act(1, "edit", 2, Act::Edit)).await);
    let mut feed = store.feed();
    purge_all(&*store, written(1, 0, 99)).await;
    let told = feed.recv().await.unwrap();
    assert!(told.entry.is_none());
    assert_eq!(told.head, seq(4));
    let mut changed: Vec<_> = told.changed.iter().map(|entry| entry.seq.get()).collect();
    changed.sort_unstable();
    assert_eq!(changed, [2, 4]);
    assert!(told.changed.iter().all(|entry| entry.body.is_empty()));
}

async fn a_purge_survives_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store, 4).await;
    purge_all(&*store, written(1, 0, 99)).await;
    let killed = world.killed();
    let other = killed.open();
    assert_eq!(there(&*other).await, [3, 5]);
    assert_eq!(unread(&*other, 3).await, 2);
}

async fn what_a_user_told_of_himself_is_forgotten(world: World) {
    let store = world.open();
    fill(&*store, 2).await;
    store.create_user(user(1, "alice")).await.unwrap();
    let mut left = Profile::default();
    left.privacy.presence.who = Circle::Nobody;
    let profile = Profile {
        status: NEEDLE.to_owned(),
        ..left.clone()
    };
    let before = Profile::default();
    let replaced = store.replace_profile(uid(1), before, profile).await;
    assert!(replaced.unwrap());
    for (by, mid) in [(1, "a"), (2, "b")] {
        let report = Report {
            ts_ms: 5,
            by: uid(by),
            mid: mid.parse().unwrap(),
            conversation: cid(1),
            seq: seq(2),
            text: format!("he is {NEEDLE}"),
        };
        store.report(report).await.unwrap();
    }
    assert_eq!(store.forget(uid(1)).await, Ok(1));
    let kept = store.profile(uid(1)).await.unwrap();
    assert_eq!(kept, left, "who stays does not open up");
    let reports = store.reports(None, 9).await.unwrap();
    let empty: Vec<_> = reports.iter().map(|one| one.text.is_empty()).collect();
    assert_eq!(empty, [true, false], "the report stays, its words go");
    assert_eq!(store.forget(uid(1)).await, Ok(0));
}

async fn what_a_user_wrote_is_listed_as_it_is_now(world: World) {
    let store = world.open();
    fill(&*store, 6).await; // user 1: 2, 4, 6
    place(append(&*store, act(1, "edited", 2, Act::Edit)).await);
    purge_all(&*store, written(1, 4, 4)).await;
    let written = async |after, size| {
        let found = store.written(cid(1), uid(1), seq(after), size).await;
        let found = found.unwrap().into_iter();
        found
            .map(|entry| (entry.seq.get(), entry.body))
            .collect::<Vec<_>>()
    };
    let (first, last) = ((2, Bytes::from("edited")), (6, Bytes::from("m4")));
    assert_eq!(written(0, (9, 999)).await, [first.clone(), last.clone()]);
    assert_eq!(written(0, (1, 999)).await, std::slice::from_ref(&first));
    assert_eq!(written(0, (9, 1)).await, [first]);
    assert_eq!(written(2, (1, 1)).await, [last]);
    assert_eq!(written(6, (9, 9)).await, []);
}

async fn all_conversations_are_found(world: World) {
    let store = world.open();
    for number in [3, 1, 2] {
        make_group(&*store, cid(number), &[1]).await;
    }
    let found = store.all_conversations(None, 2).await.unwrap();
    let ids: Vec<_> = found.iter().map(|found| found.id).collect();
    assert_eq!(ids, [cid(1), cid(2)]);
    let rest = store.all_conversations(Some(cid(2)), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].head, seq(1));
}

/// Is it in any file below a directory?
fn is_in_files(path: &Path, needle: &str) -> bool {
    std::fs::read_dir(path).unwrap().any(|file| {
        let path = file.unwrap().path();
        if path.is_dir() {
            return is_in_files(&path, needle);
        }
        // Engines remove files while we look.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let first = needle.as_bytes()[0];
        let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
        starts
            .into_iter()
            .any(|(at, _)| bytes[at..].starts_with(needle.as_bytes()))
    })
}

/// Everything that may hold what a user wrote: a message, an edit, a deleted message, a report.
async fn fill_with_needles(store: &dyn ChatStore) {
    fill(store, 200).await;
    let body = |number: u8| Bytes::from(format!("{NEEDLE} {number}"));
    for number in 0..20 {
        let draft = Draft {
            body: body(number),
            ..draft(cid(1), 1, &format!("secret{number}"), 1)
        };
        place(append(store, draft).await);
    }
    let edit = Draft {
        body: body(20),
        ..act(1, "edit", 2, Act::Edit)
    };
    place(append(store, edit).await);
    let deletion = Draft {
        kind: EntryKind::Deleted,
        format: BodyFormat::Json,
        ..act(1, "deletion", 205, Act::Delete)
    };
    place(append(store, deletion).await);
    let report = Report {
        ts_ms: 5,
        by: uid(1),
        mid: "report".parse().unwrap(),
        conversation: cid(1),
        seq: seq(3),
        text: format!("he is {NEEDLE}"),
    };
    store.report(report).await.unwrap();
}

async fn erase(store: &dyn ChatStore) -> Result<usize, StoreError> {
    let traces = Purge::Traces {
        of: uid(1),
        from: Seq::ZERO,
    };
    purge_all(store, traces).await;
    store.forget(uid(1)).await
}

async fn what_was_erased_is_in_no_file_after_compaction(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let directory = &world.options.directory;
    let store = world.open();
    fill_with_needles(&*store).await;
    let store = world.reopen(store).await;
    assert!(is_in_files(directory, NEEDLE), "the search finds it");
    erase(&*store).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    world.options.place().compact().unwrap();
    assert!(!is_in_files(directory, NEEDLE));
    assert!(is_in_files(directory, "secret3"), "keys of messages stay");
    let store = world.open();
    assert_eq!(there(&*store).await.len(), 100);
    assert_eq!(unread(&*store, 3).await, 100);
    assert_eq!(say(&*store, cid(1), 2, "later").await, seq(224));
    let store = world.reopen(store).await;
    assert_eq!(there(&*store).await.len(), 101);
}

async fn what_was_erased_is_in_no_file_while_the_store_goes_on(world: World) {
    let store = world.open();
    fill_with_needles(&*store).await;
    erase(&*store).await.unwrap();
    let reclaimed = store.reclaim().await.unwrap();
    if !world.is_on_disk() {
        return;
    }
    let is_fjall = world.options.engine == crate::store::EngineKind::Fjall;
    assert_eq!(reclaimed, is_fjall, "sled gives space back offline only");
    assert_eq!(!is_in_files(&world.options.directory, NEEDLE), is_fjall);
    assert_eq!(say(&*store, cid(1), 2, "later").await, seq(224));
    let killed = world.killed();
    assert_eq!(there(&*killed.open()).await.len(), 101);
    // Again, with files that are there already.
    let draft = Draft {
        body: Bytes::from(NEEDLE),
        ..draft(cid(1), 1, "one-more", 1)
    };
    place(append(&*store, draft).await);
    assert!(is_in_files(&world.options.directory, NEEDLE));
    erase(&*store).await.unwrap();
    assert_eq!(store.reclaim().await, Ok(is_fjall));
    assert_eq!(!is_in_files(&world.options.directory, NEEDLE), is_fjall);
    let store = world.reopen(store).await;
    assert_eq!(there(&*store).await.len(), 101);
}
