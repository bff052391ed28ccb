//! Members who are one of many: readers of channels, and those to whom broadcast lists go.

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, Seq};

use super::world::*;
use crate::domain::account::Subject;
use crate::domain::conversation::Settings;
use crate::domain::entry::{Change, Draft, EntryKind, Outcome};
use crate::domain::member::{Member, Role};
use crate::domain::overlay::{Act, GoneReason, React};
use crate::store::{Broadcast, ChatStore, Durability, Move};

super::stories![
    readers_come_and_go_without_an_entry,
    a_reader_who_becomes_more_comes_and_goes_with_an_entry,
    whoever_has_gone_reacts_no_more,
    what_is_said_in_a_channel_writes_nothing_for_its_readers,
    a_body_that_goes_to_many_is_stored_once,
    a_broadcast_goes_on_where_it_was,
    public_conversations_are_found_by_title_and_tags,
];

fn channel() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Channel, [7; 16])
}

fn list() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Broadcast, [8; 16])
}

fn join_as(user: u8, role: Role) -> Change {
    Change::Join {
        user: uid(user),
        role,
        history_from: None,
    }
}

fn leave(user: u8) -> Change {
    Change::Leave { user: uid(user) }
}

/// A channel or list of user 1; its version is 1, its head 1.
async fn make(store: &dyn ChatStore, id: ConversationId) {
    let made = Draft {
        changes: vec![join_as(1, Role::Owner)],
        ..created(id, &[1])
    };
    assert_eq!(place(append(store, made).await), seq(1));
}

fn change(id: ConversationId, mid: &str, kind: EntryKind, changes: Vec<Change>) -> Draft {
    Draft {
        kind,
        changes,
        ..draft(id, 1, mid, 1)
    }
}

fn silent(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Silent { seq, .. } => seq,
        other => panic!("not silent: {other:?}"),
    }
}

async fn reader(store: &dyn ChatStore, id: ConversationId, user: u8) -> Option<Member> {
    let found = store.readers_among(id, vec![uid(user)]).await.unwrap();
    found.into_iter().next().map(|(member, _)| member)
}

async fn members(store: &dyn ChatStore, id: ConversationId) -> Vec<u8> {
    let members = store.members(id, None, 10).await.unwrap();
    let users = members.iter().map(|(member, _)| member.user.as_bytes()[0]);
    users.collect()
}

async fn readers_come_and_go_without_an_entry(world: World) {
    let store = world.open();
    make(&*store, channel()).await;
    let joins = (2..=5).map(|user| join_as(user, Role::Reader)).collect();
    let coming = change(channel(), "add", EntryKind::Added, joins);
    assert_eq!(silent(append(&*store, coming.clone()).await), seq(1));
    assert_eq!(first(append(&*store, coming.clone()).await), seq(1), "once");
    assert_eq!(store.reader_count(channel()).await, Ok(4));
    say(&*store, channel(), 1, "hello").await;
    let left = Draft {
        from: uid(3),
        ..change(channel(), "left", EntryKind::Left, vec![leave(3)])
    };
    assert_eq!(silent(append(&*store, left).await), seq(2));
    let store = world.reopen(store).await;
    assert_eq!(store.reader_count(channel()).await, Ok(3));
    assert_eq!(members(&*store, channel()).await, [1]);
    let page = store.readers(channel(), Some(uid(2)), 2).await.unwrap();
    let page: Vec<_> = page
        .iter()
        .map(|one| (one.user, one.is_present()))
        .collect();
    assert_eq!(page, [(uid(3), false), (uid(4), true)]);
    let gone = reader(&*store, channel(), 3).await.unwrap();
    assert!(gone.sees(seq(2)) && !gone.sees(seq(1)) && !gone.sees(seq(3)));
    assert_eq!(store.memberships_of(uid(3), None, 9).await, Ok(vec![]));
    let of_two = store.memberships_of(uid(2), None, 9).await;
    assert_eq!(of_two, Ok(vec![channel()]));
    assert_eq!(store.conversation_count(uid(2)).await, Ok(1));
    assert_eq!(store.conversation_count(uid(3)).await, Ok(0));
    assert_eq!(all(&*store, channel()).await.len(), 2, "no entry of it");
    let version = store.conversations(&[channel()]).await.unwrap();
    assert_eq!(version[0].as_ref().unwrap().version, 1);

    let again = change(
        channel(),
        "again",
        EntryKind::Added,
        vec![join_as(3, Role::Reader)],
    );
    silent(append(&*store, again).await);
    let back = reader(&*store, channel(), 3).await.unwrap();
    assert_eq!(back.intervals.len(), 1, "without a gap");
    // Who comes and goes while nothing is said has seen nothing.
    let quick = vec![join_as(9, Role::Reader)];
    silent(append(&*store, change(channel(), "q1", EntryKind::Joined, quick)).await);
    silent(
        append(
            &*store,
            change(channel(), "q2", EntryKind::Left, vec![leave(9)]),
        )
        .await,
    );
    let quick = reader(&*store, channel(), 9).await.unwrap();
    assert!(!quick.is_present() && quick.intervals.is_empty());
    let banned = change(
        channel(),
        "ban",
        EntryKind::Banned,
        vec![Change::Ban { user: uid(4) }, leave(4)],
    );
    assert_eq!(
        place(append(&*store, banned).await),
        seq(3),
        "that is an entry"
    );
    let back = Draft {
        basis: crate::domain::entry::Basis::Version(2),
        ..change(
            channel(),
            "back",
            EntryKind::Joined,
            vec![join_as(4, Role::Reader)],
        )
    };
    assert_eq!(append(&*store, back).await, Outcome::Banned);
}

async fn a_reader_who_becomes_more_comes_and_goes_with_an_entry(world: World) {
    let store = world.open();
    make(&*store, channel()).await;
    let joins = vec![join_as(2, Role::Reader)];
    silent(append(&*store, change(channel(), "a", EntryKind::Added, joins)).await);
    let role = |role| Change::Role { user: uid(2), role };
    let at = |version, mid: &str, kind, changes| Draft {
        basis: crate::domain::entry::Basis::Version(version),
        ..change(channel(), mid, kind, changes)
    };
    place(
        append(
            &*store,
            at(1, "up", EntryKind::Role, vec![role(Role::Member)]),
        )
        .await,
    );
    assert_eq!(members(&*store, channel()).await, [1, 2]);
    assert_eq!(reader(&*store, channel(), 2).await, None);
    assert_eq!(store.reader_count(channel()).await, Ok(0));
    place(
        append(
            &*store,
            at(2, "down", EntryKind::Role, vec![role(Role::Reader)]),
        )
        .await,
    );
    assert_eq!(members(&*store, channel()).await, [1]);
    assert_eq!(store.reader_count(channel()).await, Ok(1));
    place(
        append(
            &*store,
            at(3, "again", EntryKind::Role, vec![role(Role::Member)]),
        )
        .await,
    );
    place(append(&*store, at(4, "out", EntryKind::Removed, vec![leave(2)])).await);
    let joins = vec![join_as(2, Role::Reader)];
    place(append(&*store, at(5, "back", EntryKind::Joined, joins)).await);
    let back = reader(&*store, channel(), 2).await.unwrap();
    assert!(back.is_present() && back.intervals.len() == 1);
    assert_eq!(members(&*store, channel()).await, [1]);
    assert_eq!(store.conversation_count(uid(2)).await, Ok(1));
}

async fn whoever_has_gone_reacts_no_more(world: World) {
    let store = world.open();
    make(&*store, channel()).await;
    say(&*store, channel(), 1, "hello").await;
    let joins = vec![join_as(2, Role::Reader)];
    silent(append(&*store, change(channel(), "a", EntryKind::Added, joins)).await);
    let react = |mid: &str| Draft {
        from: uid(2),
        kind: EntryKind::Reaction,
        target: Some(seq(2)),
        act: Some(Act::React(React::Add("+1".into()))),
        ..draft(channel(), 2, mid, 1)
    };
    assert_eq!(place(append(&*store, react("r1")).await), seq(3));
    let out = change(channel(), "out", EntryKind::Removed, vec![leave(2)]);
    silent(append(&*store, out).await);
    assert_eq!(append(&*store, react("r2")).await, Outcome::MembersMoved);
}

async fn what_is_said_in_a_channel_writes_nothing_for_its_readers(world: World) {
    let store = world.open();
    make(&*store, channel()).await;
    let joins = (2..=3).map(|user| join_as(user, Role::Reader)).collect();
    silent(append(&*store, change(channel(), "a", EntryKind::Added, joins)).await);
    let version = store.hand_out(uid(2), vec![channel()]).await.unwrap();
    say(&*store, channel(), 1, "hello").await;
    let changes = store.changes(uid(2), version, 9).await.unwrap();
    assert_eq!(changes.list, []);
    let read = Move::Marks {
        conversation: channel(),
        user: uid(2),
        delivered: Seq::ZERO,
        read: seq(1),
        private_read: Seq::ZERO,
        unread_flag: None,
        ts_ms: 5,
    };
    store
        .advance(vec![read], Durability::Relaxed)
        .await
        .unwrap();
    let found = store.readers_among(channel(), vec![uid(3), uid(2), uid(9)]);
    let marks: Vec<_> = found
        .await
        .unwrap()
        .into_iter()
        .map(|(_, marks)| marks.read)
        .collect();
    assert_eq!(marks, [Seq::ZERO, seq(1)], "also what waits to be written");
    // He looks for himself.
    let behind = store.channels_behind(uid(2), 9).await;
    assert_eq!(behind, Ok(vec![channel()]));
    store.note_changed(uid(2), vec![channel()]).await.unwrap();
    let changes = store.changes(uid(2), version, 9).await.unwrap();
    assert_eq!(changes.list.len(), 1);
    let version = store.hand_out(uid(2), vec![channel()]).await.unwrap();
    assert_eq!(store.channels_behind(uid(2), 9).await, Ok(vec![]));
    assert_eq!(
        store.channels_behind(uid(1), 9).await,
        Ok(vec![]),
        "he is told"
    );
    // Whoever comes or goes is told so.
    silent(
        append(
            &*store,
            change(channel(), "l", EntryKind::Left, vec![leave(2)]),
        )
        .await,
    );
    let changes = store.changes(uid(2), version, 9).await.unwrap();
    let about: Vec<_> = changes.list.iter().map(|(_, about)| *about).collect();
    assert_eq!(about, [Subject::Conversation(channel())]);
}

/// A message to the list as a direct message to a user.
fn copy(at: Seq, to: u8, body: &str) -> Draft {
    let direct = ConversationId::direct(uid(1), uid(to));
    Draft {
        body: Bytes::copy_from_slice(body.as_bytes()),
        source: Some((list(), at)),
        ..created(direct, &[1, to])
    }
}

async fn a_body_that_goes_to_many_is_stored_once(world: World) {
    let store = world.open();
    make(&*store, list()).await;
    let body = "a body that is told to all of them";
    let told = Draft {
        body: Bytes::from(body),
        ..draft(list(), 1, "m", 1)
    };
    let at = place(append(&*store, told).await);
    for to in 2..=4 {
        let made = Draft {
            kind: EntryKind::Message,
            ..copy(at, to, body)
        };
        place(append(&*store, made).await);
    }
    let store = world.reopen(store).await;
    let direct = |to| ConversationId::direct(uid(1), uid(to));
    for to in 2..=4 {
        let found = all(&*store, direct(to)).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].body, body);
        assert_eq!(found[0].source, Some((list(), at)));
    }
    let written = store.written(direct(2), uid(1), Seq::ZERO, (9, 999)).await;
    assert_eq!(written.unwrap().entries[0].body, body);
    // What happens to it there is its own business.
    let react = Draft {
        kind: EntryKind::Reaction,
        target: Some(seq(1)),
        act: Some(Act::React(React::Add("+1".into()))),
        ..draft(direct(2), 2, "r", 1)
    };
    place(append(&*store, react).await);
    assert_eq!(all(&*store, direct(2)).await[0].body, body);
    let delete = |id, target, from| Draft {
        kind: EntryKind::Deleted,
        target: Some(target),
        act: Some(Act::Delete),
        ..draft(id, from, "del", 1)
    };
    place(append(&*store, delete(direct(3), seq(1), 1)).await);
    assert_eq!(
        all(&*store, direct(3)).await[0].gone,
        Some(GoneReason::Deleted)
    );
    assert_eq!(all(&*store, direct(4)).await[0].body, body);
    // Without its body nothing of it is shown anywhere, before its own deletion has come.
    place(append(&*store, delete(list(), at, 1)).await);
    let found = all(&*store, direct(4)).await;
    assert_eq!(
        (found[0].gone, &*found[0].body),
        (Some(GoneReason::Deleted), &b""[..])
    );
    let written = store.written(direct(4), uid(1), Seq::ZERO, (9, 999)).await;
    assert_eq!(written.unwrap().entries, []);
    place(append(&*store, delete(direct(4), seq(1), 1)).await);
    let unread = store.count_up_to(direct(4), uid(4), seq(2)).await.unwrap();
    assert_eq!((unread.all, unread.excluded), (1, 1));
}

async fn a_broadcast_goes_on_where_it_was(world: World) {
    let store = world.open();
    make(&*store, list()).await;
    let joins = (2..=4).map(|user| join_as(user, Role::Reader)).collect();
    silent(append(&*store, change(list(), "a", EntryKind::Added, joins)).await);
    assert_eq!(store.reader_count(list()).await, Ok(3));
    let of_two = store.conversations_of(uid(2), None, 9).await;
    assert_eq!(of_two, Ok(vec![]), "he does not know of it");
    assert_eq!(store.conversation_count(uid(2)).await, Ok(0));
    assert_eq!(store.conversation_count(uid(1)).await, Ok(1));
    assert_eq!(store.broadcasts(9).await, Ok(vec![]));
    let at = say(&*store, list(), 1, "hello").await;
    let later = say(&*store, list(), 1, "more").await;
    let one = |seq, after| Broadcast {
        list: list(),
        seq,
        after,
    };
    assert_eq!(
        store.broadcasts(9).await,
        Ok(vec![one(at, None), one(later, None)])
    );
    let copies = vec![(uid(2), seq(1)), (uid(3), seq(7))];
    let told = store.broadcast_to(list(), at, copies.clone(), Some(uid(3)));
    told.await.unwrap();
    let store = world.reopen(store).await;
    assert_eq!(store.broadcasts(1).await, Ok(vec![one(at, Some(uid(3)))]));
    let rest = store.broadcast_to(list(), at, vec![(uid(4), seq(9))], None);
    rest.await.unwrap();
    assert_eq!(store.broadcasts(9).await, Ok(vec![one(later, None)]));
    let behind = store.copies(list(), at, Some(uid(2)), 9).await.unwrap();
    assert_eq!(behind, [(uid(3), seq(7)), (uid(4), seq(9))]);
    assert_eq!(store.copies(list(), at, None, 2).await, Ok(copies));
    let twice = store.broadcast_to(list(), at, vec![], None).await;
    assert_eq!(twice, Err(crate::store::StoreError::NotFound));
}

async fn public_conversations_are_found_by_title_and_tags(world: World) {
    let store = world.open();
    let settings = |title: &str, public| Settings {
        title: title.to_owned(),
        tags: vec!["chess".to_owned()],
        public,
        ..Settings::default()
    };
    let made = |id, settings| Draft {
        changes: vec![join_as(1, Role::Owner), Change::Settings(settings)],
        ..created(id, &[1])
    };
    let found = async |store: &dyn ChatStore, prefix: &str| {
        let found = store.search(prefix.to_owned(), false, 9).await.unwrap();
        found
            .into_iter()
            .filter_map(Subject::conversation)
            .collect::<Vec<_>>()
    };
    append(&*store, made(channel(), settings("Morning News", true))).await;
    append(&*store, made(cid(3), settings("Morning Run", false))).await;
    assert_eq!(
        found(&*store, "morn").await,
        [channel()],
        "not what is private"
    );
    assert_eq!(found(&*store, "che").await, [channel()]);
    let changed = |id, version, settings| Draft {
        kind: EntryKind::Settings,
        changes: vec![Change::Settings(settings)],
        ..draft(id, 1, "settings", version)
    };
    append(&*store, changed(cid(3), 1, settings("Evening Run", true))).await;
    append(&*store, changed(channel(), 1, Settings::default())).await;
    let store = world.reopen(store).await;
    assert_eq!(found(&*store, "che").await, [cid(3)]);
    assert_eq!(found(&*store, "morn").await, []);
    assert_eq!(found(&*store, "eve").await, [cid(3)]);
    assert_eq!(store.search("eve".to_owned(), true, 9).await, Ok(vec![]));
}
