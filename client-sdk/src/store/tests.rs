//! What holds of the store in memory and on disk.

use std::path::Path;

use proptest::prelude::*;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};
use proto::schema::{
    AccountEvent, Change, ChangedConversation, ClientMessage, Conversation, Gap, LogEntry, Me,
    Message, Receipts, User, WatermarkMove,
};
use tempfile::TempDir;

use super::{Inbound, OutboxKind, OutboxRow, Page, Settled, Store, Taken};
use crate::config::Storage;
use crate::entry::Status;
use crate::error::StoreError;

const ME: UserId = UserId::from_bytes([1; 16]);
const BOB: UserId = UserId::from_bytes([2; 16]);

fn cid() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Group, [7; 16])
}

fn open(folder: &Path) -> Store {
    Store::open(&Storage::Folder(folder.to_owned()), None, true).unwrap()
}

fn introduced(store: Store) -> Store {
    let me = Me {
        uid: ME.to_string(),
        handle: "alice".into(),
        ..Me::default()
    };
    store.adopt(&me).unwrap();
    store
}

/// A store of each kind, which knows whose it is.
fn stores() -> Vec<(Store, Option<TempDir>)> {
    let folder = TempDir::new().unwrap();
    let disk = open(folder.path());
    let memory = Store::open(&Storage::Memory, None, true).unwrap();
    vec![(introduced(memory), None), (introduced(disk), Some(folder))]
}

fn entry(seq: u64, kind: &str, by: UserId) -> LogEntry {
    LogEntry {
        cid: cid().to_string(),
        seq,
        ts: 1_000 + seq,
        kind: kind.into(),
        from: Some(User {
            uid: by.to_string(),
            ..User::default()
        }),
        ..LogEntry::default()
    }
}

fn message(seq: u64) -> LogEntry {
    LogEntry {
        format: "text".into(),
        t: format!("number {seq}"),
        mid: format!("m-{seq}"),
        ..entry(seq, "message", BOB)
    }
}

fn action(seq: u64, kind: &str, target: u64) -> LogEntry {
    LogEntry {
        target: Some(target),
        ..entry(seq, kind, BOB)
    }
}

fn push(store: &Store, entries: impl IntoIterator<Item = LogEntry>) -> Taken {
    let batch = entries
        .into_iter()
        .map(|entry| Inbound::Entry(cid(), Box::new(entry)));
    store.take(batch.collect()).unwrap()
}

fn fed(store: &Store) -> Vec<u64> {
    let fed = store.fed_after(0, usize::MAX / 2).unwrap();
    fed.into_iter()
        .map(|(_, entry)| entry.gap.map_or(entry.seq, |gap| gap.to))
        .collect()
}

fn text(store: &Store, seq: u64) -> Option<String> {
    let entry = store.entry(cid(), Seq::new(seq)).unwrap()?;
    (entry.kind == "message").then_some(entry.t)
}

fn outgoing(mid: &str) -> OutboxRow {
    let body = ClientMessage {
        t: mid.to_owned(),
        ..ClientMessage::default()
    };
    OutboxRow {
        target: cid().to_string(),
        topic: format!("chat/to/{}", cid()),
        payload: body.encode_to_vec().into(),
        mid: mid.to_owned(),
        kind: OutboxKind::Message as i32,
        ..OutboxRow::default()
    }
}

fn settled(seq: u64) -> Settled {
    Settled {
        cid: Some(cid()),
        seq: Some(Seq::new(seq)),
        ts: 5,
    }
}

#[test]
fn the_feed_begins_where_the_server_begins_and_has_each_entry_once() {
    for (store, _folder) in stores() {
        push(&store, [message(4), message(5)]);
        push(&store, [message(4), message(5), message(6)]);
        assert_eq!(fed(&store), [4, 5, 6]);
        let number = |at: usize| store.fed_after(0, 9).unwrap()[at].0;
        let second = number(1);
        assert!(store.confirm(second).unwrap());
        assert_eq!((fed(&store), store.waiting()), (vec![6], 1));
        push(&store, [message(5), message(6)]);
        assert_eq!(fed(&store), [6]);
        assert!(!store.confirm(number(0) + 1).unwrap(), "it was not given");
        assert!(store.confirm(second).unwrap(), "it was given");
        assert_eq!((fed(&store), store.waiting()), (vec![6], 1));
    }
}

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

/// The server has 1 and 3, and says that there is nothing between.
fn pass_over_second(store: &Store) {
    push(store, [message(1), message(3)]);
    let page = Page {
        entries: vec![message(3)],
        more: false,
        head: 3,
    };
    store.fill(cid(), page).unwrap();
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
fn without_a_reader_nothing_waits_and_the_log_has_all() {
    let store = introduced(Store::open(&Storage::Memory, None, false).unwrap());
    push(&store, (1..=9).map(message));
    let queued = store.enqueue(&outgoing("a"), 10).unwrap().unwrap();
    store.settle(queued.number, &settled(10)).unwrap();
    assert_eq!((store.waiting(), fed(&store)), (0, vec![]));
    assert_eq!(store.page(cid(), None, 99).unwrap().len(), 10);
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

fn gone(seq: u64) -> LogEntry {
    LogEntry {
        reason: "deleted".into(),
        ..entry(seq, "gone", BOB)
    }
}

fn gap(from: u64, to: u64) -> LogEntry {
    LogEntry {
        cid: cid().to_string(),
        kind: "gap".into(),
        gap: Some(proto::schema::Gap {
            from,
            to,
            reason: "deleted".into(),
        }),
        ..LogEntry::default()
    }
}

/// The places that what waits for the app stands for.
fn spans(store: &Store) -> Vec<(u64, u64)> {
    let fed = store.fed_after(0, usize::MAX / 2).unwrap();
    fed.iter()
        .map(|(_, entry)| super::log::span(entry))
        .map(|(from, to)| (from.get(), to.get()))
        .collect()
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
fn what_is_gone_and_comes_late_is_a_hint() {
    for (store, _folder) in stores() {
        pass_over_second(&store);
        let taken = push(&store, [gone(2)]);
        assert_eq!(fed(&store), [1, 3]);
        assert!(taken.updated.contains(&(cid(), Seq::new(2))));
    }
}

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

#[test]
fn receipts_only_move_forward() {
    for (store, _folder) in stores() {
        let receipts = |delivered_all, read_all| Receipts {
            cid: cid().to_string(),
            delivered_all,
            read_all,
            moves: vec![WatermarkMove {
                u: BOB.to_string(),
                d: delivered_all,
                r: read_all,
            }],
            counts: vec![],
        };
        for (delivered, read) in [(5, 3), (4, 4)] {
            store
                .take(vec![Inbound::Receipts(cid(), receipts(delivered, read))])
                .unwrap();
        }
        let status = |seq| store.status(cid(), Seq::new(seq)).unwrap();
        assert_eq!(
            [3, 4, 5, 6].map(status),
            [Status::Read, Status::Read, Status::Delivered, Status::Sent]
        );
    }
}

fn told(head: u64, read: u64, unread: u64) -> Inbound {
    Inbound::Account(Box::new(AccountEvent {
        ver: Some(head),
        conversations: vec![ChangedConversation {
            cid: cid().to_string(),
            head,
            conversation: Some(Conversation {
                cid: cid().to_string(),
                title: "Lunch".into(),
                head,
                read,
                unread,
                ..Conversation::default()
            }),
            last: Some(message(head)),
            ..ChangedConversation::default()
        }],
        ..AccountEvent::default()
    }))
}

#[test]
fn unread_is_what_was_counted_and_what_came_since() {
    for (store, _folder) in stores() {
        store.take(vec![told(9, 4, 5)]).unwrap();
        let unread = || store.conversation(cid()).unwrap().unwrap().unread;
        assert_eq!(unread(), 5);
        push(&store, (5..=11).map(message));
        assert_eq!(unread(), 7);
        let mark = OutboxRow {
            kind: OutboxKind::Read as i32,
            mid: String::new(),
            seq: 8,
            ..outgoing("")
        };
        store.enqueue(&mark, 10).unwrap().unwrap();
        assert_eq!(unread(), 3, "read here, though the server does not know");
        store.take(vec![told(11, 11, 0)]).unwrap();
        assert_eq!(unread(), 0);
        assert_eq!(store.version().unwrap(), 11);
        let list = store.conversations().unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].last.as_ref().unwrap().seq, 11);
    }
}

#[test]
fn a_folder_has_one_owner_and_one_user_at_a_time() {
    let folder = TempDir::new().unwrap();
    let store = introduced(open(folder.path()));
    let client_id = store.client_id().unwrap();
    let again = Store::open(&Storage::Folder(folder.path().to_owned()), None, true);
    assert_eq!(again.err(), Some(StoreError::InUse));
    let bob = Me {
        uid: BOB.to_string(),
        ..Me::default()
    };
    let owner = "alice".to_owned();
    assert_eq!(store.adopt(&bob), Err(StoreError::OtherUser { owner }));
    drop(store);
    assert_eq!(open(folder.path()).client_id().unwrap(), client_id);
}

#[test]
fn a_position_of_before_a_restored_backup_confirms_nothing() {
    let (folder, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = introduced(open(folder.path()));
    push(&store, [message(1)]);
    drop(store);
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from.join("store.redb"), to.join("store.redb")).unwrap();
    };
    copy(folder.path(), backup.path());
    let store = open(folder.path());
    push(&store, (2..=9).map(message));
    let (position, _) = store.fed_after(0, 9).unwrap().pop().unwrap();
    drop(store);
    copy(backup.path(), folder.path());
    let store = open(folder.path());
    push(&store, (2..=50).map(message));
    assert_eq!(store.waiting(), 50);
    assert!(!store.confirm(position).unwrap());
    assert_eq!(fed(&store).len(), 50);
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store
        .write(|txn| {
            txn.put_number(super::Meta::Schema, 2);
            Ok(())
        })
        .unwrap();
    drop(store);
    let storage = Storage::Folder(folder.path().to_owned());
    let newer = StoreError::Newer { found: 2, known: 1 };
    assert_eq!(Store::open(&storage, None, true).err(), Some(newer));
}

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody writes; it is pushed with the next batch.
    Others,
    /// So far from the end something is deleted.
    Delete(usize),
    /// This user writes.
    Own,
    /// The server pushes so many more, and repeats so many.
    Push(usize, usize),
    /// The connection is lost: all that was pushed and not acked comes again.
    Fill,
    Page,
    Confirm(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Others),
        2 => (0usize..6).prop_map(Step::Delete),
        2 => Just(Step::Own),
        4 => (0usize..4, 0usize..4).prop_map(|(more, again)| Step::Push(more, again)),
        1 => Just(Step::Fill),
        1 => Just(Step::Page),
        2 => (0usize..5).prop_map(Step::Confirm),
        1 => Just(Step::Reopen),
    ]
}

/// As `msg.history` tells it: a run of what is gone is a gap.
fn page_of(log: &[LogEntry]) -> Vec<LogEntry> {
    let is_run = |a: &LogEntry, b: &LogEntry| a.kind == "gone" && b.kind == "gone";
    let runs = log.chunk_by(is_run);
    runs.flat_map(|run| match run {
        [first, .., last] if first.kind == "gone" => vec![gap(first.seq, last.seq)],
        run => run.to_vec(),
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However pushes, own messages, pages and restarts follow each other: the app gets each entry once, in order, from where the
    /// server began.
    #[test]
    fn each_entry_is_handed_out_once_and_in_order(
        start in 0u64..4,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let folder = TempDir::new().unwrap();
        let mut store = introduced(open(folder.path()));
        // The log of the server, and how far it has pushed.
        let mut log: Vec<LogEntry> = (1..=start).map(message).collect();
        let mut pushed = usize::try_from(start).unwrap();
        let mut handed: Vec<(u64, u64)> = Vec::new();
        let mut number = 0;
        for step in steps {
            let head = log.len() as u64;
            match step {
                Step::Others => log.push(message(head + 1)),
                Step::Delete(back) => {
                    if let Some(at) = log.len().checked_sub(back + 1) {
                        log[at] = gone(log[at].seq);
                    }
                }
                Step::Own => {
                    let mid = format!("own-{head}");
                    let queued = store.enqueue(&outgoing(&mid), 1_000).unwrap().unwrap();
                    log.push(LogEntry { mid, ..entry(head + 1, "message", ME) });
                    store.settle(queued.number, &settled(head + 1)).unwrap();
                }
                Step::Push(more, again) => {
                    let from = pushed.saturating_sub(again).max(usize::try_from(start).unwrap());
                    pushed = log.len().min(pushed + more);
                    push(&store, log[from..pushed].to_vec());
                }
                Step::Fill => {
                    if let Some((after, _)) = store.gap(cid()).unwrap() {
                        let after = usize::try_from(after.get()).unwrap();
                        let end = log.len().min(after + 4);
                        let (entries, more) = (page_of(&log[after..end]), end < log.len());
                        store.fill(cid(), Page { entries, more, head }).unwrap();
                    }
                }
                Step::Page => {
                    let page = Page { entries: page_of(&log), more: false, head };
                    if head > 0 {
                        store.backfill(cid(), page).unwrap();
                    }
                }
                Step::Confirm(max) => {
                    for (at, entry) in store.fed_after(number, max).unwrap() {
                        number = at;
                        let (from, to) = super::log::span(&entry);
                        handed.push((from.get(), to.get()));
                    }
                    assert!(number == 0 || store.confirm(number).unwrap());
                }
                Step::Reopen => {
                    drop(store);
                    store = open(folder.path());
                    number = store.confirmed().unwrap();
                }
            }
        }
        push(&store, log[pushed..].to_vec());
        handed.extend(spans(&store));
        let first = handed.first().map_or(log.len() as u64 + 1, |(from, _)| *from);
        prop_assert!(first > start || handed.is_empty());
        let handed: Vec<_> = handed.into_iter().flat_map(|(from, to)| from..=to).collect();
        prop_assert_eq!(handed, (first..=log.len() as u64).collect::<Vec<_>>());
    }
}
