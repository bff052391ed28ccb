//! Members who are one of many: readers of channels, and those to whom broadcast lists go.

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, Seq};

use super::world::*;
use crate::domain::account::Subject;
use crate::domain::conversation::Settings;
use crate::domain::entry::{Change, Draft, EntryKind, Outcome};
use crate::domain::member::{Member, Role};
use crate::domain::overlay::{Act, ActRefused, GoneReason, React};
use crate::domain::user::User;
use crate::store::{Broadcast, ChatStore, Durability, Move};

super::stories![
    readers_come_and_go_without_an_entry,
    a_reader_who_becomes_more_comes_and_goes_with_an_entry,
    whoever_has_gone_reacts_no_more,
    who_comes_or_goes_silently_while_it_is_judged_moves_a_ban_and_a_role,
    what_a_reader_wants_of_his_rights_is_told_to_nobody,
    channels_that_have_gone_on_are_all_found_some_at_a_time,
    what_is_said_in_a_channel_writes_nothing_for_its_readers,
    a_body_that_goes_to_many_is_stored_once,
    a_broadcast_goes_on_where_it_was,
    a_copy_is_found_by_its_deletion_and_comes_no_more_after_it,
    public_conversations_are_found_by_title_and_tags,
    public_conversations_are_found_behind_any_number_of_people,
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

async fn who_comes_or_goes_silently_while_it_is_judged_moves_a_ban_and_a_role(world: World) {
    let store = world.open();
    make(&*store, channel()).await;
    let joins = vec![join_as(2, Role::Reader)];
    silent(append(&*store, change(channel(), "a", EntryKind::Added, joins)).await);
    // All of these were judged before he came, or before he went.
    let ban = |mid, changes| change(channel(), mid, EntryKind::Banned, changes);
    let alone = ban("b1", vec![Change::Ban { user: uid(2) }]);
    assert_eq!(append(&*store, alone).await, Outcome::MembersMoved);
    let out = change(channel(), "out", EntryKind::Left, vec![leave(2)]);
    silent(append(&*store, out).await);
    let role = Change::Role {
        user: uid(2),
        role: Role::Owner,
    };
    let given = Change::Given {
        user: uid(2),
        rights: None,
    };
    for (mid, changed) in [("r", role), ("g", given)] {
        let draft = change(channel(), mid, EntryKind::Role, vec![changed]);
        assert_eq!(append(&*store, draft).await, Outcome::MembersMoved, "{mid}");
    }
    let again = ban("b2", vec![Change::Ban { user: uid(2) }]);
    assert_eq!(place(append(&*store, again).await), seq(2));
}

async fn what_a_reader_wants_of_his_rights_is_told_to_nobody(world: World) {
    let store = world.open();
    make(&*store, channel()).await;
    let joins = vec![join_as(2, Role::Reader)];
    silent(append(&*store, change(channel(), "a", EntryKind::Added, joins)).await);
    let version = store.hand_out(uid(2), vec![channel()]).await.unwrap();
    let wants = |user: u8, mid: &str| Draft {
        from: uid(user),
        ..change(
            channel(),
            mid,
            EntryKind::Role,
            vec![Change::Want {
                user: uid(user),
                rights: Some("react".parse().unwrap()),
            }],
        )
    };
    assert_eq!(silent(append(&*store, wants(2, "w")).await), seq(1));
    let wanted = reader(&*store, channel(), 2).await.unwrap().mask.want;
    assert!(wanted.is_some());
    let about = store.changes(uid(2), version, 9).await.unwrap();
    assert_eq!(about.list.len(), 1, "but to his other devices");
    let found = store.conversations(&[channel()]).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().version, 1);
    assert_eq!(
        place(append(&*store, wants(1, "w")).await),
        seq(2),
        "an owner"
    );
}

async fn channels_that_have_gone_on_are_all_found_some_at_a_time(world: World) {
    let store = world.open();
    let one = |number| ConversationId::from_parts(ConversationKind::Channel, [number; 16]);
    for number in 1..=5 {
        make(&*store, one(number)).await;
        let joins = vec![join_as(2, Role::Reader)];
        silent(append(&*store, change(one(number), "a", EntryKind::Added, joins)).await);
        store.hand_out(uid(2), vec![one(number)]).await.unwrap();
    }
    for number in [1, 4, 5] {
        say(&*store, one(number), 1, "hello").await;
    }
    let (mut found, mut looked_at, mut after) = (Vec::new(), 0, None);
    loop {
        let page = store.channels_behind(uid(2), after, 2).await.unwrap();
        looked_at += page.looked_at;
        found.extend(page.found);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found, looked_at), ([1, 4, 5].map(one).to_vec(), 5));
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
    let behind = async |user| {
        store
            .channels_behind(uid(user), None, 9)
            .await
            .unwrap()
            .found
    };
    assert_eq!(behind(2).await, [channel()]);
    store.note_changed(uid(2), vec![channel()]).await.unwrap();
    let changes = store.changes(uid(2), version, 9).await.unwrap();
    assert_eq!(changes.list.len(), 1);
    let version = store.hand_out(uid(2), vec![channel()]).await.unwrap();
    assert_eq!(behind(2).await, []);
    assert_eq!(behind(1).await, [], "he is told");
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
    assert_eq!(store.broadcasts(None, 9).await, Ok(vec![]));
    let at = say(&*store, list(), 1, "hello").await;
    let later = say(&*store, list(), 1, "more").await;
    let other = ConversationId::from_parts(ConversationKind::Broadcast, [9; 16]);
    make(&*store, other).await;
    let elsewhere = say(&*store, other, 1, "hello").await;
    let one = |list, seq, after| Broadcast { list, seq, after };
    let (first, last) = (one(list(), at, None), one(other, elsewhere, None));
    let under_way = store.broadcasts(None, 9).await;
    assert_eq!(under_way, Ok(vec![first, last]), "one of each list");
    let behind = store.broadcasts(Some(list()), 9).await;
    assert_eq!(behind, Ok(vec![last]));
    let told = store.broadcast_to(list(), at, Some(uid(3)));
    told.await.unwrap();
    let store = world.reopen(store).await;
    let first = one(list(), at, Some(uid(3)));
    assert_eq!(store.broadcasts(None, 1).await, Ok(vec![first]));
    let rest = store.broadcast_to(list(), at, None);
    rest.await.unwrap();
    let next = one(list(), later, None);
    assert_eq!(store.broadcasts(None, 9).await, Ok(vec![next, last]));
    let twice = store.broadcast_to(list(), at, None).await;
    assert_eq!(twice, Err(crate::store::StoreError::NotFound));
}

async fn a_copy_is_found_by_its_deletion_and_comes_no_more_after_it(world: World) {
    let store = world.open();
    make(&*store, list()).await;
    let at = say(&*store, list(), 1, "hello").await;
    let brought = |to: u8| Draft {
        kind: EntryKind::Message,
        peer: Some(uid(to)),
        ..copy(at, to, "hello")
    };
    let placed = place(append(&*store, brought(3)).await);
    // Nothing else was noted before it was killed.
    let store = world.reopen(store).await;
    let copies = store.copies(list(), at, None, 9).await.unwrap();
    assert_eq!(copies, [(uid(3), placed)]);
    let delete = Draft {
        kind: EntryKind::Deleted,
        target: Some(at),
        act: Some(Act::Delete),
        ..draft(list(), 1, "del", 1)
    };
    place(append(&*store, delete).await);
    let late = append(&*store, brought(4)).await;
    assert_eq!(late, Outcome::Refused(ActRefused::NoTarget));
    first(append(&*store, brought(3)).await);
}

async fn public_conversations_are_found_behind_any_number_of_people(world: World) {
    let store = world.open();
    for number in 0..=140 {
        let words: Vec<String> = (0..32)
            .map(|word| format!("ann{number:03}{word}"))
            .collect();
        let user = User {
            name: words.join(" "),
            ..user(number, &format!("u{number}"))
        };
        store.create_user(user).await.unwrap();
    }
    let settings = Settings {
        title: "Annual meeting".to_owned(),
        public: true,
        ..Settings::default()
    };
    let made = Draft {
        changes: vec![join_as(1, Role::Owner), Change::Settings(settings)],
        ..created(channel(), &[1])
    };
    append(&*store, made).await;
    let found = store.search("ann".to_owned(), false, 9).await.unwrap();
    assert_eq!(found, [Subject::Conversation(channel())]);
    assert_eq!(
        store.search("ann".to_owned(), true, 9).await.unwrap().len(),
        9
    );
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
