//! What holds of the store in memory and on disk.

mod bodies;
mod gaps;
mod outbox;

use std::path::Path;

use proptest::prelude::*;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};
use proto::schema::{
    AccountEvent, Change, ChangedConversation, ClientMessage, Conversation, Gap, LogEntry, Me,
    Message, Receipts, User, WatermarkMove,
};
use proto::topics::Target;
use tempfile::TempDir;

use super::{Inbound, OutboxKind, OutboxRow, Page, Settled, Store, Taken};
use crate::config::Storage;
use crate::entry::{Progress, Status};
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
        .map(|(_, entry)| crate::store::log::span(entry))
        .map(|(from, to)| (from.get(), to.get()))
        .collect()
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
fn without_a_reader_nothing_waits_and_the_log_has_all() {
    let store = introduced(Store::open(&Storage::Memory, None, false).unwrap());
    push(&store, (1..=9).map(message));
    let queued = store.enqueue(&outgoing("a"), 10).unwrap().unwrap();
    store.settle(queued.number, &settled(10)).unwrap();
    assert_eq!((store.waiting(), fed(&store)), (0, vec![]));
    assert_eq!(store.page(cid(), None, 99).unwrap().len(), 10);
}

fn gone(seq: u64) -> LogEntry {
    LogEntry {
        reason: "deleted".into(),
        ..entry(seq, "gone", BOB)
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

fn receipts(delivered_all: u64, read_all: u64) -> Inbound {
    let receipts = Receipts {
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
    Inbound::Receipts(cid(), receipts)
}

#[test]
fn receipts_only_move_forward() {
    for (store, _folder) in stores() {
        for (delivered, read) in [(5, 3), (4, 4)] {
            store.take(vec![receipts(delivered, read)]).unwrap();
        }
        let status = |seq| store.reached(cid()).unwrap().status(Seq::new(seq));
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
                        let (from, to) = crate::store::log::span(&entry);
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
