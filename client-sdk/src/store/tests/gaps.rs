//! Of runs and gaps.

use super::*;

#[test]
fn an_island_waits_until_the_gap_before_it_is_filled() {
    for (store, _folder) in stores() {
        push(&store, [message(1)]);
        let taken = push(&store, [message(4), message(5)]);
        assert!(taken.gaps.contains(&cid()));
        assert_eq!(fed(&store), [1]);
        let (after, known) = store.gap(cid()).unwrap().unwrap();
        assert_eq!((after, known), (Seq::new(1), Seq::new(5)));
        let page = Page {
            entries: vec![message(2)],
            more: true,
            head: 5,
        };
        assert!(store.fill(cid(), page).unwrap().gaps.contains(&cid()));
        assert_eq!(fed(&store), [1, 2]);
        // 3 is not for this user.
        let page = Page {
            entries: vec![message(4), message(5)],
            more: false,
            head: 5,
        };
        assert!(store.fill(cid(), page).unwrap().gaps.is_empty());
        assert_eq!(fed(&store), [1, 2, 4, 5]);
        assert_eq!(store.gap(cid()).unwrap(), None);
        assert_eq!(store.gaps().unwrap(), []);
    }
}

#[test]
fn what_was_passed_over_and_comes_after_all_is_fed() {
    for (store, _folder) in stores() {
        pass_over_second(&store);
        assert_eq!(fed(&store), [1, 3]);
        push(&store, [message(2)]);
        assert_eq!(fed(&store), [1, 3, 2]);
    }
}

#[test]
fn a_gap_of_the_server_is_one_entry() {
    for (store, _folder) in stores() {
        let gap = LogEntry {
            cid: cid().to_string(),
            kind: "gap".into(),
            gap: Some(proto::schema::Gap {
                from: 2,
                to: 9,
                reason: "deleted".into(),
            }),
            ..LogEntry::default()
        };
        push(&store, [message(1), message(10)]);
        let page = Page {
            entries: vec![gap],
            more: true,
            head: 10,
        };
        store.fill(cid(), page).unwrap();
        assert_eq!(fed(&store), [1, 9, 10]);
    }
}

#[test]
fn what_a_gap_stood_for_is_not_fed_again_when_it_is_pushed() {
    for (store, _folder) in stores() {
        push(&store, (1..=6).map(message));
        let page = Page {
            entries: vec![gap(7, 9), message(10), message(11)],
            more: false,
            head: 11,
        };
        store.fill(cid(), page).unwrap();
        let wanted: Vec<_> = (1..=6)
            .map(|seq| (seq, seq))
            .chain([(7, 9), (10, 10), (11, 11)])
            .collect();
        assert_eq!(spans(&store), wanted);
        for _ in 0..2 {
            push(&store, [gone(7), gone(8), gone(9), message(10)]);
            assert_eq!(spans(&store), wanted);
        }
    }
}

#[test]
fn a_gap_tells_only_of_what_is_not_here() {
    for (store, _folder) in stores() {
        // 6 is an island that was deleted meanwhile.
        push(&store, [message(1), gone(2), gone(3), message(6)]);
        let page = Page {
            entries: vec![gap(2, 9), message(10)],
            more: false,
            head: 10,
        };
        store.fill(cid(), page).unwrap();
        let wanted = [(1, 1), (2, 2), (3, 3), (4, 5), (6, 6), (7, 9), (10, 10)];
        assert_eq!(spans(&store), wanted);
        assert_eq!(text(&store, 6), None, "it is gone");
        let page = Page {
            entries: vec![gap(2, 9)],
            more: false,
            head: 10,
        };
        store.backfill(cid(), page).unwrap();
        push(&store, [gone(4), gone(9)]);
        assert_eq!(spans(&store), wanted);
    }
}

#[test]
fn a_device_that_begins_within_a_gap_is_told_of_the_rest_of_it() {
    for (store, _folder) in stores() {
        let page = Page {
            entries: vec![message(1), gap(2, 9), message(10)],
            more: false,
            head: 10,
        };
        store.backfill(cid(), page).unwrap();
        push(&store, [gone(5)]);
        assert_eq!(spans(&store), [(5, 9), (10, 10)]);
    }
}

#[test]
fn history_is_not_fed_and_stays_below_what_is() {
    for (store, _folder) in stores() {
        let page = Page {
            entries: (6..=9).map(message).collect(),
            more: true,
            head: 9,
        };
        store.backfill(cid(), page).unwrap();
        assert_eq!(fed(&store), [0; 0]);
        // The server begins at 8, what the user has not read; then at once all that is here is fed.
        push(&store, [message(8)]);
        assert_eq!(fed(&store), [8, 9]);
        push(&store, [message(9), message(10)]);
        assert_eq!(fed(&store), [8, 9, 10]);
        let page = Page {
            entries: (1..=5).map(message).collect(),
            more: false,
            head: 10,
        };
        store.backfill(cid(), page).unwrap();
        let page = store.page(cid(), None, 100).unwrap();
        let seqs: Vec<_> = page.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
        assert_eq!(fed(&store), [8, 9, 10]);
    }
}

#[test]
fn a_run_that_is_not_fed_goes_on_or_begins_anew() {
    for (store, _folder) in stores() {
        let page = |range: std::ops::RangeInclusive<u64>, head| Page {
            entries: range.map(message).collect(),
            more: true,
            head,
        };
        store.backfill(cid(), page(5..=9, 9)).unwrap();
        store.fill(cid(), page(10..=20, 20)).unwrap();
        assert_eq!(store.page(cid(), None, 99).unwrap().len(), 16);
        assert_eq!(fed(&store), [0; 0]);
        store.begin_anew(cid()).unwrap();
        store.backfill(cid(), page(98..=99, 99)).unwrap();
        assert_eq!(store.page(cid(), None, 99).unwrap().len(), 2);
    }
}
