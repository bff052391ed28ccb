//! Of the outbox.

use super::*;

#[test]
fn what_is_hidden_is_gone_here_with_the_ack() {
    for (store, _folder) in stores() {
        push(&store, [message(1), message(2)]);
        let hide = OutboxRow {
            kind: OutboxKind::Hide as i32,
            seq: 1,
            ..outgoing("h")
        };
        let queued = store.enqueue(&hide, 10).unwrap().unwrap();
        assert!(text(&store, 1).is_some(), "the server has to agree");
        // Its PUBACK names no place.
        let taken = store.settle(queued.number, &Settled::default()).unwrap();
        assert!(taken.updated.contains(&(cid(), Seq::new(1))));
        assert_eq!(text(&store, 1), None);
        push(&store, [message(1)]);
        assert_eq!(text(&store, 1), None);
        assert!(text(&store, 2).is_some());
    }
}

#[test]
fn a_read_mark_goes_no_further_than_what_is_known() {
    for (store, _folder) in stores() {
        store.take(vec![told(9, 4, 5)]).unwrap();
        let mark = |seq| OutboxRow {
            kind: OutboxKind::Read as i32,
            mid: String::new(),
            seq,
            ..outgoing("")
        };
        let read = || store.positions(cid()).unwrap().read;
        let first = store.enqueue(&mark(6), 10).unwrap().unwrap();
        assert_eq!(read(), 6);
        let second = store.enqueue(&mark(u64::MAX), 10).unwrap().unwrap();
        assert_eq!(read(), 9);
        store.fail(second.number, "format", "beyond").unwrap();
        assert_eq!(read(), 6, "the other one still waits");
        store.fail(first.number, "forbidden", "no").unwrap();
        assert_eq!(read(), 4, "as the server told");
        assert!(store.outbox().unwrap().is_empty());
    }
}

#[test]
fn an_own_message_goes_from_the_outbox_to_its_place() {
    for (store, _folder) in stores() {
        push(&store, [message(1)]);
        let first = store.enqueue(&outgoing("a"), 10).unwrap().unwrap();
        let second = store.enqueue(&outgoing("b"), 10).unwrap().unwrap();
        store.settle(first.number, &settled(2)).unwrap();
        assert_eq!(store.waiting(), 2);
        assert_eq!(fed(&store), [1, 2]);
        // The next one is behind one of somebody else, which was not pushed yet.
        store.settle(second.number, &settled(4)).unwrap();
        assert_eq!(fed(&store), [1, 2]);
        push(&store, [message(3)]);
        assert_eq!(fed(&store), [1, 2, 3, 4]);
        assert!(store.outbox().unwrap().is_empty());
        let own = store.entry(cid(), Seq::new(4)).unwrap().unwrap();
        assert_eq!(own.m.unwrap().t, "b");
        // The copies in the inbox change nothing.
        let copy = LogEntry {
            mid: "b".into(),
            ..entry(4, "message", ME)
        };
        push(&store, [copy]);
        assert_eq!(fed(&store), [1, 2, 3, 4]);
    }
}

#[test]
fn a_copy_in_the_inbox_settles_what_waits() {
    for (store, _folder) in stores() {
        let queued = store.enqueue(&outgoing("a"), 10).unwrap().unwrap();
        let copy = LogEntry {
            mid: "a".into(),
            ..entry(1, "message", ME)
        };
        let others = LogEntry {
            from: Some(User {
                uid: BOB.to_string(),
                ..User::default()
            }),
            ..copy.clone()
        };
        assert_eq!(push(&store, [others]).stored, []);
        let taken = push(&store, [LogEntry { seq: 2, ..copy }]);
        assert_eq!(taken.stored, [(queued.number, cid(), Seq::new(2))]);
        assert!(store.outbox().unwrap().is_empty());
        assert!(!store.discard(queued.number).unwrap());
    }
}

#[test]
fn the_outbox_is_bounded_and_remembers_refusals() {
    for (store, _folder) in stores() {
        let first = store.enqueue(&outgoing("a"), 2).unwrap().unwrap();
        store.enqueue(&outgoing("b"), 2).unwrap().unwrap();
        assert!(store.enqueue(&outgoing("c"), 2).unwrap().is_none());
        store.fail(first.number, "forbidden", "no").unwrap();
        let outbox = store.outbox().unwrap();
        assert_eq!(
            outbox
                .iter()
                .map(|queued| queued.failed)
                .collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(store.outbox_number("a").unwrap(), Some(first.number));
        assert!(!store.retry(first.number).unwrap().unwrap().failed);
        assert!(store.discard(first.number).unwrap());
        assert_eq!(store.outbox_number("a").unwrap(), None);
    }
}

#[test]
fn what_became_of_a_message_is_known_by_its_id() {
    for (store, _folder) in stores() {
        let target: Target = cid().to_string().parse().unwrap();
        let progress = |mid| store.progress(&target, mid).unwrap();
        let at = |seq, status| {
            Some(Progress {
                seq: Some(Seq::new(seq)),
                status,
                refusal: None,
            })
        };
        assert_eq!(progress("a"), None);
        let queued = store.enqueue(&outgoing("a"), 10).unwrap().unwrap();
        let waiting = progress("a").unwrap();
        assert_eq!((waiting.seq, waiting.status), (None, Status::Pending));
        assert_eq!(waiting.refusal, None);
        store.fail(queued.number, "forbidden", "no").unwrap();
        let refused = progress("a").unwrap().refusal.unwrap();
        assert_eq!(refused.code, "forbidden");
        store.settle(queued.number, &settled(1)).unwrap();
        assert_eq!(progress("a"), at(1, Status::Sent));
        // Elsewhere the same id is another message, or none.
        let other: Target = "@bob".parse().unwrap();
        assert_eq!(store.progress(&other, "a").unwrap(), None);
        // One of another device of this user, and one of somebody else.
        let of = |seq, mid: &str, by| LogEntry {
            mid: mid.into(),
            ..entry(seq, "message", by)
        };
        push(&store, [of(2, "b", ME), of(3, "c", BOB)]);
        assert_eq!(progress("b"), at(2, Status::Sent));
        assert_eq!(progress("c"), None);
        store.take(vec![receipts(2, 1)]).unwrap();
        assert_eq!(progress("a"), at(1, Status::Read));
        assert_eq!(progress("b"), at(2, Status::Delivered));
    }
}
