//! Messages that are made gone many at a time, and what is left of them in the files.

use std::path::Path;

use bytes::Bytes;
use proto::ids::Seq;
use tokio_util::sync::CancellationToken;

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Outcome};
use crate::domain::member::Stretch;
use crate::domain::overlay::{Act, GoneReason, React, Report};
use crate::domain::purge::{Purge, Purged, Range, Retention};
use crate::store::{ChatStore, Counts, StoreError, Written};

super::stories![
    a_range_is_gone_and_its_places_stay,
    what_one_user_wrote_goes_by_place_and_time,
    traces_of_a_user_are_edits_and_reactions_too,
    reactions_go_with_what_is_purged,
    every_kind_of_purge_goes_in_steps,
    a_message_with_many_reactions_is_a_step_of_its_own,
    an_erased_message_that_comes_again_is_not_stored,
    retention_takes_the_oldest_and_remembers_how_far_it_was,
    what_was_announced_is_finished_after_a_kill,
    what_one_user_wrote_is_announced_too,
    what_lies_between_the_parts_of_a_range_stays,
    a_full_store_takes_what_announces_a_purge,
    a_step_of_retention_looks_at_what_goes_and_one_more,
    the_clock_is_trusted_up_to_what_was_said_last,
    readers_are_told_of_a_purge,
    a_purge_survives_a_kill,
    what_a_user_wrote_is_listed_as_it_is_now,
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
        sum.looked_at += done.looked_at;
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
    assert_eq!(purge_all(&*store, range).await.messages, 0, "again");
    let nowhere = store.purge(cid(9), range).await;
    assert_eq!(nowhere, Ok(Purged::default()));
    assert_eq!(say(&*store, cid(1), 1, "later").await, seq(9));
}

async fn every_kind_of_purge_goes_in_steps(world: World) {
    let of = uid(1);
    let kinds = [
        Purge::Range {
            from: Seq::ZERO,
            to: Seq::MAX,
        },
        written(1, 0, u64::MAX),
        Purge::Traces {
            of,
            from: Seq::ZERO,
        },
        Purge::Old(Retention {
            before_ms: 0,
            newest: 0,
        }),
    ];
    let store = world.open();
    for (number, purge) in (1..).zip(kinds) {
        make_group(&*store, cid(number), &[1, 2]).await;
        for chunk in 0..3 {
            let one = |n| draft(cid(number), 1, &format!("m{}", chunk * 400 + n), 1);
            store.append((0..400).map(one).collect()).await.unwrap();
        }
        let mut step = store.purge(cid(number), purge).await.unwrap();
        let mut messages = step.messages;
        assert!(messages > 0 && messages < 1_200, "{purge:?}: {step:?}");
        while let Some(next) = step.next {
            step = store.purge(cid(number), purge.from(next)).await.unwrap();
            assert!(step.looked_at <= 512 && step.messages <= 512);
            messages += step.messages;
        }
        assert_eq!(messages, 1_200, "{purge:?}");
        let left = all(&*store, cid(number)).await;
        let left = left.iter().filter(|entry| entry.gone.is_none());
        assert_eq!(left.count(), 1, "the creation");
        let counts = store.count_up_to(cid(number), uid(2), Seq::MAX).await;
        assert_eq!(counts.unwrap().unread_since(Counts::default()), 0);
    }
}

async fn reactions_go_with_what_is_purged(world: World) {
    let react = |from, mid: &str, target, emoji: &str| {
        act(from, mid, target, Act::React(React::Add(emoji.into())))
    };
    let told = async |store: &dyn ChatStore| {
        let entries = all(store, cid(1)).await;
        let told = entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::Reaction && entry.gone.is_none());
        told.map(|entry| entry.seq.get()).collect::<Vec<_>>()
    };
    let store = world.open();
    fill(&*store, 2).await; // user 1: 2; user 2: 3
    place(append(&*store, react(1, "r1", 3, "rude")).await);
    place(append(&*store, react(2, "r2", 2, "nice")).await);
    place(append(&*store, react(1, "r3", 2, "own")).await);
    assert_eq!(told(&*store).await, [4, 5, 6]);
    // What is over a limit, and a range: what tells of reactions in it.
    let range = Purge::Range {
        from: seq(5),
        to: seq(5),
    };
    assert_eq!(
        purge_all(&*store, range).await,
        Purged {
            looked_at: 1,
            ..Purged::default()
        }
    );
    assert_eq!(told(&*store).await, [4, 6]);
    let entries = all(&*store, cid(1)).await;
    let nice = (Box::from("nice"), 1);
    let reactions = &entries[1].overlay.as_deref().unwrap().reactions;
    assert!(reactions.contains(&nice), "the message still has it");
    // What one user wrote: his reactions are taken back.
    let purged = purge_all(&*store, written(1, 0, 99)).await;
    assert_eq!((purged.messages, purged.reactions), (1, 1));
    assert_eq!(told(&*store).await, [0; 0]);
    let entries = all(&*store, cid(1)).await;
    assert_eq!(entries[2].overlay, None);
    let store = world.reopen(store).await;
    place(append(&*store, react(1, "r4", 3, "late")).await);
    let old = Purge::Old(Retention {
        before_ms: 0,
        newest: 0,
    });
    assert_eq!(purge_all(&*store, old).await.messages, 1);
    assert_eq!(told(&*store).await, [0; 0], "older than the newest none");
}

async fn a_message_with_many_reactions_is_a_step_of_its_own(world: World) {
    let store = world.open();
    let many: Vec<u8> = (1..=250).collect();
    make_group(&*store, cid(1), &many).await;
    for number in 0..12 {
        say(&*store, cid(1), 1, &format!("m{number}")).await;
    }
    for target in 2..=12 {
        let react = |from: u8| {
            act(
                from,
                &format!("r{target}-{from}"),
                target,
                Act::React(React::Add("x".into())),
            )
        };
        store
            .append(many.iter().map(|from| react(*from)).collect())
            .await
            .unwrap();
    }
    let range = Purge::Range {
        from: seq(1),
        to: seq(13),
    };
    let step = store.purge(cid(1), range).await.unwrap();
    assert!(step.next.is_some() && step.messages < 11, "{step:?}");
    let rest = purge_all(&*store, range.from(step.next.unwrap())).await;
    assert_eq!(step.messages + rest.messages, 12);
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

/// The entry that announces a purge.
fn announcement(mid: &str, from: u64, to: u64, by: Option<u8>) -> Draft {
    let range = Range::between(seq(from), seq(to), by.map(uid));
    Draft {
        kind: EntryKind::Purged,
        format: BodyFormat::Json,
        basis: Basis::Version(1),
        changes: vec![Change::Purge(range)],
        ..draft(cid(1), 1, mid, 1)
    }
}

async fn what_was_announced_is_finished_after_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    for chunk in 0..3 {
        let drafts =
            (0..400).map(|number| draft(cid(1), 1, &format!("m{}", chunk * 400 + number), 1));
        store.append(drafts.collect()).await.unwrap();
    }
    let at = place(append(&*store, announcement("trim", 1, 1_201, None)).await);
    let killed = world.killed();
    let other = killed.open();
    let under_way = [(cid(1), at)];
    assert_eq!(other.purges_under_way(None, 9).await.unwrap(), under_way);
    let announced = Purge::Announced { at };
    let step = other.purge(cid(1), announced).await.unwrap();
    assert!(step.next.is_some() && step.messages > 0 && step.messages < 1_200);
    // Between two steps.
    let killed = killed.killed();
    let other = killed.open();
    assert_eq!(other.purges_under_way(None, 9).await.unwrap(), under_way);
    let mut step = step;
    while step.next.is_some() {
        step = other.purge(cid(1), announced).await.unwrap();
    }
    assert_eq!(step.messages, 1_200, "of all steps");
    assert_eq!(there(&*other).await, [0; 0]);
    assert_eq!(other.purges_under_way(None, 9).await.unwrap(), []);
    say(&*other, cid(1), 2, "later").await;
    let again = other.purge(cid(1), announced).await.unwrap();
    assert_eq!((again.messages, again.looked_at), (1_200, 0));
    assert_eq!(there(&*other).await.len(), 1);
}

async fn what_one_user_wrote_is_announced_too(world: World) {
    let store = world.open();
    fill(&*store, 4).await; // user 1: 2, 4; user 2: 3, 5
    let at = place(append(&*store, announcement("purge", 1, 5, Some(2))).await);
    let version = store.conversations(&[cid(1)]).await.unwrap();
    assert_eq!(version[0].as_ref().unwrap().version, 1, "nobody moved");
    let announced = Purge::Announced { at };
    assert_eq!(purge_all(&*store, announced).await.messages, 2);
    assert_eq!(there(&*store).await, [2, 4]);
    let nothing = Purge::Announced { at: seq(2) };
    assert_eq!(purge_all(&*store, nothing).await, Purged::default());
}

async fn what_lies_between_the_parts_of_a_range_stays(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store, 8).await; // 2 to 9
    let parts = [(1, 3), (5, 6), (8, 20)].map(|(from, to)| Stretch {
        from: seq(from),
        to: seq(to),
    });
    let range = Range {
        parts: parts.to_vec(),
        by: None,
    };
    let draft = Draft {
        changes: vec![Change::Purge(range)],
        ..announcement("purge", 1, 1, None)
    };
    let at = place(append(&*store, draft).await);
    let announced = Purge::Announced { at };
    let step = store.purge(cid(1), announced).await.unwrap();
    assert_eq!((step.messages, step.next), (2, Some(seq(5))));
    let killed = world.killed();
    let store = killed.open();
    let step = store.purge(cid(1), announced).await.unwrap();
    assert_eq!((step.messages, step.next), (4, Some(seq(8))));
    let step = store.purge(cid(1), announced).await.unwrap();
    assert_eq!((step.messages, step.next), (6, None), "of all steps");
    assert_eq!(there(&*store).await, [4, 7]);
    assert_eq!(store.purges_under_way(None, 9).await.unwrap(), []);
}

async fn a_full_store_takes_what_announces_a_purge(mut world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store, 4).await;
    store.close().await.unwrap();
    drop(store);
    world.options.max_disk_bytes = 1;
    let store = world.open();
    store.maintain(0, 0, AuditKeep::ALL).await.unwrap();
    let refused = store.append(vec![draft(cid(1), 1, "more", 1)]).await;
    assert!(
        matches!(refused, Err(StoreError::ReadOnly(_))),
        "{refused:?}"
    );
    let at = place(append(&*store, announcement("trim", 1, 5, None)).await);
    let announced = Purge::Announced { at };
    assert_eq!(purge_all(&*store, announced).await.messages, 4);
}

async fn a_step_of_retention_looks_at_what_goes_and_one_more(world: World) {
    let store = world.open();
    fill(&*store, 40).await;
    let old = |newest| {
        Purge::Old(Retention {
            before_ms: 0,
            newest,
        })
    };
    let step = store.purge(cid(1), old(38)).await.unwrap();
    assert_eq!((step.messages, step.looked_at), (2, 4), "and the creation");
    let step = store.purge(cid(1), old(38)).await.unwrap();
    assert_eq!((step.messages, step.looked_at), (0, 1));
}

async fn the_clock_is_trusted_up_to_what_was_said_last(world: World) {
    let store = world.open();
    assert_eq!(store.trusted_ms().await, Ok(None));
    store.trust(7_000).await.unwrap();
    store.trust(5_000).await.unwrap();
    let store = world.reopen(store).await;
    assert_eq!(store.trusted_ms().await, Ok(Some(5_000)));
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

async fn what_a_user_wrote_is_listed_as_it_is_now(world: World) {
    let store = world.open();
    fill(&*store, 6).await; // user 1: 2, 4, 6
    place(append(&*store, act(1, "edited", 2, Act::Edit)).await);
    purge_all(&*store, written(1, 4, 4)).await;
    let written = async |after, size| {
        let found = store.written(cid(1), uid(1), seq(after), size).await;
        let Written {
            entries,
            looked_at,
            next,
        } = found.unwrap();
        let entries = entries.into_iter();
        let entries = entries.map(|entry| (entry.seq.get(), entry.body));
        (entries.collect::<Vec<_>>(), looked_at, next.map(Seq::get))
    };
    let (first, last) = ((2, Bytes::from("edited")), (6, Bytes::from("m4")));
    let both = vec![first.clone(), last.clone()];
    assert_eq!(written(0, (9, 999)).await, (both, 3, None));
    assert_eq!(
        written(0, (1, 999)).await,
        (vec![first.clone()], 1, Some(2))
    );
    assert_eq!(
        written(0, (2, 999)).await,
        (vec![first.clone()], 2, Some(4)),
        "one is gone"
    );
    assert_eq!(written(0, (9, 1)).await, (vec![first], 2, Some(4)));
    assert_eq!(written(2, (1, 1)).await, (vec![], 1, Some(4)));
    assert_eq!(written(4, (2, 1)).await, (vec![last], 1, None));
    assert_eq!(written(6, (9, 9)).await, (vec![], 0, None));
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
        settled: false,
        text: format!("he is {NEEDLE}"),
    };
    store.report(report).await.unwrap();
}

pub(super) async fn erase(store: &dyn ChatStore) -> Result<usize, StoreError> {
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
    let reclaimed = store.reclaim(&CancellationToken::new()).await.unwrap();
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
    assert_eq!(store.reclaim(&CancellationToken::new()).await, Ok(is_fjall));
    assert_eq!(!is_in_files(&world.options.directory, NEEDLE), is_fjall);
    let store = world.reopen(store).await;
    assert_eq!(there(&*store).await.len(), 101);
}
