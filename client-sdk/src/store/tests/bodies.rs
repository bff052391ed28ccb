//! Of what becomes of a message.

use super::*;

#[test]
fn an_edit_finds_its_message_whichever_comes_first() {
    for (store, _folder) in stores() {
        let edit = |seq: u64, text: &str| LogEntry {
            t: text.into(),
            format: "text".into(),
            ..action(seq, "edit", 1)
        };
        push(&store, [message(1), edit(2, "better"), edit(3, "best")]);
        assert_eq!(text(&store, 1).as_deref(), Some("best"));
        // An older state, that was on its way, does not come back.
        push(&store, [message(1)]);
        assert_eq!(text(&store, 1).as_deref(), Some("best"));

        let (other, _folder) = stores().remove(0);
        push(&other, [edit(3, "best")]);
        let page = Page {
            entries: vec![message(1), edit(2, "better")],
            more: false,
            head: 3,
        };
        other.backfill(cid(), page).unwrap();
        assert_eq!(text(&other, 1).as_deref(), Some("best"));
    }
}

#[test]
fn what_is_deleted_stays_deleted_with_all_its_edits() {
    for (store, _folder) in stores() {
        let edit = LogEntry {
            t: "secret".into(),
            ..action(2, "edit", 1)
        };
        push(&store, [message(1), edit, action(3, "deleted", 1)]);
        push(&store, [message(1)]);
        for seq in [1, 2] {
            let gone = store.entry(cid(), Seq::new(seq)).unwrap().unwrap();
            assert_eq!((gone.kind.as_str(), gone.t.as_str()), ("gone", ""));
        }
        // Also what was not here when the deletion came.
        push(&store, [action(4, "deleted", 9)]);
        push(&store, [message(9)]);
        assert_eq!(text(&store, 9), None);
        let purge = LogEntry {
            data: Some(Change {
                from: Some(4),
                to: Some(6),
                gaps: vec![Gap {
                    from: 5,
                    to: 5,
                    ..Gap::default()
                }],
                ..Change::default()
            }),
            ..entry(8, "purged", BOB)
        };
        push(&store, [message(5), message(6), message(7), purge]);
        assert_eq!(
            [5, 6, 7].map(|seq| text(&store, seq).is_some()),
            [true, false, true]
        );
        let words = vec!["number".to_owned()];
        let (found, next) = store.search(&words, None, None, 10).unwrap();
        let found: Vec<u64> = found.iter().map(|entry| entry.seq).collect();
        assert_eq!(found, [7, 5], "what the gap kept is found, too");
        assert_eq!(next, None);
    }
}

#[test]
fn a_body_ends_with_its_time_to_live() {
    for (store, _folder) in stores() {
        let soon = LogEntry {
            expires: Some(crate::clock::wall_ms() + 3_600_000),
            ..message(1)
        };
        let over = LogEntry {
            expires: Some(1),
            ..message(2)
        };
        push(&store, [soon, over]);
        assert!(store.expire().unwrap().is_some(), "one is due in an hour");
        assert!(text(&store, 1).is_some());
        assert_eq!(text(&store, 2), None);
    }
}

#[test]
fn a_body_does_not_end_by_a_clock_that_is_ahead_of_the_server() {
    const HOUR: u64 = 3_600_000;
    let folder = TempDir::new().unwrap();
    let store = introduced(open(folder.path()));
    // Here it is two hours later than there.
    let there = crate::clock::wall_ms() - 2 * HOUR;
    let brief = LogEntry {
        ts: there,
        expires: Some(there + HOUR),
        ..message(1)
    };
    push(&store, [brief]);
    let read = |store: &Store| {
        let entry = store.entry(cid(), Seq::new(1)).unwrap().unwrap();
        let entry = crate::entry::Entry::read(entry, store.now_ms()).unwrap();
        entry.text().map(str::to_owned)
    };
    store.expire().unwrap();
    assert_eq!(read(&store).as_deref(), Some("number 1"));
    drop(store);
    // Before the server has said anything it is not shown, and not destroyed.
    let store = open(folder.path());
    store.expire().unwrap();
    assert_eq!(read(&store), None);
    assert!(text(&store, 1).is_some());
    let later = |seq, ts| LogEntry { ts, ..message(seq) };
    push(&store, [later(2, there + HOUR / 2)]);
    store.expire().unwrap();
    assert_eq!(read(&store).as_deref(), Some("number 1"));
    push(&store, [later(3, there + HOUR)]);
    store.expire().unwrap();
    assert_eq!(text(&store, 1), None);
}

#[test]
fn reactions_make_a_message_stale_until_it_is_fetched() {
    for (store, _folder) in stores() {
        assert!(push(&store, [message(1), action(2, "reaction", 1)]).stale);
        let stale = store.stale(9).unwrap()[0];
        assert_eq!((stale.cid, stale.seq), (cid(), Seq::new(1)));
        let now = LogEntry {
            pinned: true,
            ..message(1)
        };
        // Another one reacts while it is fetched.
        push(&store, [action(3, "reaction", 1)]);
        let taken = store.refresh(&stale, Some(now.clone())).unwrap();
        assert!(taken.stale && taken.updated.contains(&(cid(), Seq::new(1))));
        assert!(store.entry(cid(), Seq::new(1)).unwrap().unwrap().pinned);
        let stale = store.stale(9).unwrap()[0];
        assert!(!store.refresh(&stale, Some(now)).unwrap().stale);
        assert_eq!(store.stale(9).unwrap(), []);
    }
}
