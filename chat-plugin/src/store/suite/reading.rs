//! Pages and counts.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proto::ids::Seq;

use super::world::*;
use crate::domain::entry::{Draft, EntryKind};
use crate::store::{ChatStore, Counts, PageRange};

super::stories![
    pages_end_at_the_floor_and_at_the_head,
    pages_keep_to_the_bytes,
    counts_are_those_of_a_recount,
    counts_of_nothing_are_zero,
];

async fn seqs(store: &dyn ChatStore, range: PageRange) -> Vec<u64> {
    let entries = store.page(cid(1), range).await.unwrap();
    entries.iter().map(|entry| entry.seq.get()).collect()
}

fn range(from: u64, to: u64, limit: usize) -> PageRange {
    PageRange {
        from: seq(from),
        to: seq(to),
        newest: false,
        limit,
        bytes: usize::MAX,
        as_of: Seq::MAX,
    }
}

fn newest(from: u64, to: u64, limit: usize) -> PageRange {
    PageRange {
        newest: true,
        ..range(from, to, limit)
    }
}

async fn pages_end_at_the_floor_and_at_the_head(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    for number in 2..=10 {
        say(&*store, cid(1), 1, &number.to_string()).await;
    }
    make_group(&*store, cid(2), &[1]).await;
    let store = world.reopen(store).await;
    assert_eq!(seqs(&*store, range(0, 3, 10)).await, [1, 2, 3]);
    assert_eq!(seqs(&*store, range(9, u64::MAX, 10)).await, [9, 10]);
    assert_eq!(seqs(&*store, range(3, 8, 2)).await, [3, 4]);
    assert_eq!(seqs(&*store, newest(3, 8, 2)).await, [7, 8]);
    assert_eq!(seqs(&*store, newest(0, u64::MAX, 3)).await, [8, 9, 10]);
    assert_eq!(seqs(&*store, newest(9, 100, 5)).await, [9, 10]);
    assert_eq!(
        seqs(&*store, newest(0, u64::MAX, usize::MAX)).await.len(),
        10
    );
    assert!(seqs(&*store, range(11, 20, 5)).await.is_empty());
    assert!(seqs(&*store, range(5, 4, 5)).await.is_empty());
    assert!(seqs(&*store, range(1, 5, 0)).await.is_empty());
    assert!(seqs(&*store, range(0, 0, 5)).await.is_empty());
    assert!(store.page(cid(9), range(1, 5, 5)).await.unwrap().is_empty());
}

async fn pages_keep_to_the_bytes(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    for number in 2..=6 {
        let body = vec![b'x'; 100].into();
        append(
            &*store,
            Draft {
                body,
                ..draft(cid(1), 1, &number.to_string(), 1)
            },
        )
        .await;
    }
    let limited = |range: PageRange, bytes| PageRange { bytes, ..range };
    assert_eq!(seqs(&*store, limited(range(2, 6, 9), 250)).await, [2, 3]);
    assert_eq!(seqs(&*store, limited(newest(2, 6, 9), 250)).await, [5, 6]);
    assert_eq!(seqs(&*store, limited(range(2, 6, 9), 200)).await, [2, 3]);
    assert_eq!(
        seqs(&*store, limited(range(2, 6, 9), 0)).await,
        [2],
        "one at least"
    );
    assert_eq!(
        seqs(&*store, limited(newest(2, 6, 9), 99)).await,
        [6],
        "one at least"
    );
}

async fn counts_of_nothing_are_zero(world: World) {
    let store = world.open();
    let none = store.count_up_to(cid(1), uid(1), seq(5)).await.unwrap();
    assert_eq!(none, Counts::default());
    assert_eq!(
        store.last_own(cid(1), uid(1), Seq::MAX).await.unwrap(),
        None
    );
    make_group(&*store, cid(1), &[1]).await;
    let none = store.count_up_to(cid(1), uid(1), Seq::MAX).await.unwrap();
    assert_eq!(none, Counts::default());
}

async fn counts_are_those_of_a_recount(world: World) {
    let store = world.open();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let lines = proptest::collection::vec((1..=3u8, any::<bool>()), 0..40);
    for number in 1..=4 {
        let lines = lines.new_tree(&mut runner).unwrap().current();
        make_group(&*store, cid(number), &[1, 2, 3]).await;
        let drafts = lines
            .iter()
            .enumerate()
            .map(|(index, (from, counts))| Draft {
                kind: if *counts {
                    EntryKind::Message
                } else {
                    EntryKind::Role
                },
                ..draft(cid(number), *from, &index.to_string(), 1)
            });
        let drafts: Vec<_> = drafts.collect();
        for chunk in drafts.chunks(7) {
            store.append(chunk.to_vec()).await.unwrap();
        }
    }
    let store = world.reopen(store).await;
    for number in 1..=4 {
        say(&*store, cid(number), 2, "after-the-restart").await;
        let entries = all(&*store, cid(number)).await;
        for (user, place) in (1..=4u8).flat_map(|user| (0..=45u64).map(move |at| (user, at))) {
            let upto = || entries.iter().filter(|entry| entry.seq.get() <= place);
            let countable = || upto().filter(|entry| entry.kind.is_countable());
            let own = || countable().filter(|entry| entry.from == uid(user));
            let counts = store.count_up_to(cid(number), uid(user), seq(place)).await;
            let expected = Counts {
                all: countable().count() as u64,
                own: own().count() as u64,
                excluded: 0,
            };
            assert_eq!(counts, Ok(expected), "user {user} at {place}");
            let last = store.last_own(cid(number), uid(user), seq(place)).await;
            assert_eq!(last, Ok(own().last().map(|entry| entry.seq)));
            if let Some(entry) = upto().last() {
                assert_eq!(entry.mseq, expected.all);
            }
        }
    }
}
