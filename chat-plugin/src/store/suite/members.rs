//! Conversations, versions, members and their intervals.

use proto::ids::{ConversationId, Seq};

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::entry::{Basis, Change, Draft, EntryKind, Outcome};
use crate::domain::member::{Interval, Member, Role};
use crate::store::ChatStore;

super::stories![
    a_group_begins_with_its_members_and_settings,
    every_change_moves_the_version_and_stale_drafts_are_sent_back,
    two_first_messages_make_one_direct_conversation,
    a_direct_conversation_is_for_its_members_only,
    a_second_creation_is_answered_by_its_mid,
    intervals_follow_joining_and_leaving,
    members_come_in_pages,
    conversations_of_a_user_come_in_pages,
    a_direct_conversation_counts_for_who_began_it,
    memberships_end_with_leaving_and_begin_again_with_joining,
    several_changes_of_one_draft_add_up,
];

fn change(mid: &str, version: u32, kind: EntryKind, change: Change) -> Draft {
    Draft {
        kind,
        changes: vec![change],
        ..draft(cid(1), 1, mid, version)
    }
}

async fn version(store: &dyn ChatStore, conversation: ConversationId) -> u32 {
    let found = store.conversations(&[conversation]).await.unwrap();
    found[0].as_ref().unwrap().version
}

async fn member(store: &dyn ChatStore, user: u8) -> Member {
    let members = store.members(cid(1), None, usize::MAX).await.unwrap();
    let mut members = members.into_iter().map(|(member, _)| member);
    members.find(|member| member.user == uid(user)).unwrap()
}

fn open(from: u64, joined: u64) -> Interval {
    closed(from, joined, u64::MAX)
}

fn closed(from: u64, joined: u64, to: u64) -> Interval {
    Interval {
        from: seq(from),
        joined: seq(joined),
        to: seq(to),
    }
}

async fn a_group_begins_with_its_members_and_settings(world: World) {
    let store = world.open();
    let settings = Settings {
        ttl_s: 60,
        title: "Friends".to_owned(),
        description: "ä".to_owned(),
        history: HistoryPolicy::Last(20),
        photo: "media:1".to_owned(),
        public: true,
        approval: true,
        slow_s: 5,
        closed: true,
        desk: true,
        ..Settings::default()
    };
    let mut first = created(cid(1), &[1, 2]);
    first.changes.push(Change::Settings(settings.clone()));
    append(&*store, first).await;
    for store in [store.clone(), world.reopen(store).await] {
        let Ok(found) = store.conversations(&[cid(1), cid(2)]).await else {
            continue; // the closed one
        };
        let group = found[0].as_ref().unwrap();
        assert_eq!((group.head, group.mseq, group.version), (seq(1), 0, 1));
        assert_eq!(group.settings, settings);
        assert_eq!(found[1], None);
    }
}

async fn every_change_moves_the_version_and_stale_drafts_are_sent_back(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let batch = vec![
        draft(cid(1), 1, "a", 1),
        change("add", 1, EntryKind::Added, join(2)),
        draft(cid(1), 1, "b", 1),
        draft(cid(1), 1, "c", 2),
    ];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(place(outcomes[0]), seq(2));
    assert_eq!(place(outcomes[1]), seq(3));
    assert_eq!(
        outcomes[2],
        Outcome::MembersMoved,
        "judged before the change"
    );
    assert_eq!(place(outcomes[3]), seq(4));
    assert_eq!(version(&*store, cid(1)).await, 2);

    let settings = Change::Settings(Settings::default());
    append(&*store, change("set", 2, EntryKind::Settings, settings)).await;
    assert_eq!(version(&*store, cid(1)).await, 3);
    let store = world.reopen(store).await;
    assert_eq!(
        append(&*store, draft(cid(1), 1, "b", 2)).await,
        Outcome::MembersMoved
    );
    assert_eq!(
        place(append(&*store, draft(cid(1), 1, "b", 3)).await),
        seq(6)
    );
}

fn first_words(from: u8, mid: &str) -> Draft {
    Draft {
        basis: Basis::Create,
        changes: vec![join(1), join(2)],
        ..draft(ConversationId::direct(uid(1), uid(2)), from, mid, 0)
    }
}

async fn two_first_messages_make_one_direct_conversation(world: World) {
    let store = world.open();
    let direct = ConversationId::direct(uid(1), uid(2));
    let batch = vec![first_words(1, "a"), first_words(2, "b")];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(place(outcomes[0]), seq(1));
    assert_eq!(place(outcomes[1]), seq(2));
    assert_eq!(place(append(&*store, first_words(1, "c")).await), seq(3));
    assert_eq!(version(&*store, direct).await, 1);
    let members = store.members(direct, None, 10).await.unwrap();
    assert_eq!(members.len(), 2);
    for (member, _) in members {
        assert_eq!(member.joined, Seq::ZERO);
        assert_eq!(member.intervals, [open(1, 1)]);
    }
    for user in [1, 2] {
        let of = store.conversations_of(uid(user), None, 10).await.unwrap();
        assert_eq!(of, [direct]);
    }
}

async fn a_direct_conversation_is_for_its_members_only(world: World) {
    let store = world.open();
    append(&*store, first_words(1, "a")).await;
    let mut stranger = first_words(3, "b");
    stranger.changes.push(join(3));
    assert_eq!(append(&*store, stranger).await, Outcome::MembersMoved);
}

async fn a_second_creation_is_answered_by_its_mid(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let again = append(&*store, created(cid(1), &[1, 2])).await;
    assert_eq!(first(again), seq(1));

    world.clock.advance(21 * DAY);
    store.maintain(0, 0, AuditKeep::ALL).await.unwrap();
    let again = append(&*store, created(cid(1), &[1, 2])).await;
    assert_eq!(first(again), seq(1), "the key is gone, the entry is not");

    let other = Draft {
        mid: "other".parse().unwrap(),
        ..created(cid(1), &[1, 3])
    };
    assert_eq!(append(&*store, other).await, Outcome::Conflict);
    assert_eq!(store.members(cid(1), None, 10).await.unwrap().len(), 2);
}

async fn intervals_follow_joining_and_leaving(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    append(&*store, change("add", 1, EntryKind::Added, join(2))).await;
    assert_eq!(member(&*store, 2).await.intervals, [open(2, 2)]);
    assert_eq!(member(&*store, 2).await.joined, seq(2));

    let leave = Change::Leave { user: uid(2) };
    append(&*store, change("leave", 2, EntryKind::Left, leave)).await;
    let former = member(&*store, 2).await;
    assert_eq!(
        former.intervals,
        [closed(2, 2, 3)],
        "the leaving is the last one seen"
    );
    assert!(!former.is_present());

    append(&*store, draft(cid(1), 1, "unseen", 3)).await;
    append(&*store, change("again", 3, EntryKind::Added, join(2))).await;
    let back = member(&*store, 2).await;
    assert_eq!(back.intervals, [closed(2, 2, 3), open(5, 5)]);
    assert_eq!(back.joined, seq(2), "what waits for him began there");

    let leave = Change::Leave { user: uid(2) };
    append(&*store, change("leave2", 4, EntryKind::Left, leave)).await;
    append(&*store, draft(cid(1), 1, "shown-later", 5)).await;
    let all = Change::Join {
        user: uid(2),
        role: Role::Admin,
        history_from: Some(seq(1)),
    };
    append(&*store, change("all", 5, EntryKind::Added, all)).await;
    let store = world.reopen(store).await;
    let back = member(&*store, 2).await;
    let shown = [closed(1, 2, 3), closed(4, 5, 6), open(7, 8)];
    assert_eq!(back.intervals, shown, "all is seen, and each joining known");
    assert_eq!(back.role, Role::Admin);
    assert_eq!(
        store.conversations_of(uid(2), None, 10).await.unwrap(),
        [cid(1)]
    );

    let role = Change::Role {
        user: uid(2),
        role: Role::Reader,
    };
    append(&*store, change("role", 6, EntryKind::Role, role)).await;
    let back = member(&*store, 2).await;
    assert_eq!((back.role, back.intervals), (Role::Reader, shown.to_vec()));
}

async fn members_come_in_pages(world: World) {
    let store = world.open();
    let users: Vec<u8> = (1..=25).collect();
    make_group(&*store, cid(1), &users).await;
    make_group(&*store, cid(2), &[1, 2]).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.members(cid(1), after, 10).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.user);
        seen.extend(page.iter().map(|(member, _)| member.user));
    }
    let expected: Vec<_> = users.into_iter().map(uid).collect();
    assert_eq!(seen, expected);
    assert!(store.members(cid(1), None, 0).await.unwrap().is_empty());
}

async fn memberships_end_with_leaving_and_begin_again_with_joining(world: World) {
    let store = world.open();
    for number in 1..=3 {
        make_group(&*store, cid(number), &[1, 2]).await;
    }
    let leave = Change::Leave { user: uid(2) };
    append(&*store, change("leave", 1, EntryKind::Left, leave)).await;
    let store = world.reopen(store).await;
    let of = async |after, limit| store.memberships_of(uid(2), after, limit).await.unwrap();
    assert_eq!(of(None, 10).await, [cid(2), cid(3)]);
    assert_eq!(of(None, 1).await, [cid(2)], "what was left takes no place");
    assert_eq!(of(Some(cid(2)), 10).await, [cid(3)]);
    assert_eq!(of(None, 0).await, []);
    let past = store.conversations_of(uid(2), None, 10).await.unwrap();
    assert_eq!(past, [cid(1), cid(2), cid(3)], "he was there");
    let join = Change::Join {
        user: uid(2),
        role: Role::Member,
        history_from: None,
    };
    append(&*store, change("again", 2, EntryKind::Added, join)).await;
    assert_eq!(of(None, 10).await, [cid(1), cid(2), cid(3)]);
}

async fn a_direct_conversation_counts_for_who_began_it(world: World) {
    let store = world.open();
    let counts = async |store: &dyn ChatStore| {
        let mut counts = Vec::new();
        for user in 1..=3 {
            counts.push(store.conversation_count(uid(user)).await.unwrap());
        }
        counts
    };
    let first = Draft {
        basis: Basis::Create,
        changes: vec![join(1), join(2)],
        ..draft(ConversationId::direct(uid(1), uid(2)), 1, "hello", 0)
    };
    append(&*store, first).await;
    assert_eq!(counts(&*store).await, [1, 0, 0]);
    let group = |number, users: &[u8]| created(cid(number), users);
    let batch = vec![group(1, &[1, 2]), group(2, &[2, 1, 3])];
    store.append(batch).await.unwrap();
    assert_eq!(counts(&*store).await, [3, 2, 1]);
    let leave = Change::Leave { user: uid(2) };
    append(&*store, change("leave", 1, EntryKind::Left, leave)).await;
    let store = world.reopen(store).await;
    assert_eq!(counts(&*store).await, [3, 1, 1]);
    append(&*store, change("again", 2, EntryKind::Added, join(2))).await;
    assert_eq!(counts(&*store).await, [3, 2, 1]);
    append(&*store, change("twice", 3, EntryKind::Added, join(2))).await;
    assert_eq!(counts(&*store).await, [3, 2, 1], "he was in already");
}

async fn conversations_of_a_user_come_in_pages(world: World) {
    let store = world.open();
    for number in 1..=7 {
        make_group(&*store, cid(number), &[1]).await;
    }
    let store = world.reopen(store).await;
    let one = store.conversations_of(uid(1), None, 5).await.unwrap();
    let two = store
        .conversations_of(uid(1), one.last().copied(), 5)
        .await
        .unwrap();
    let expected: Vec<_> = (1..=7).map(cid).collect();
    assert_eq!([one, two].concat(), expected);
    assert!(
        store
            .conversations_of(uid(2), None, 5)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn several_changes_of_one_draft_add_up(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let handover = Draft {
        kind: EntryKind::Left,
        changes: vec![
            Change::Role {
                user: uid(2),
                role: Role::Owner,
            },
            Change::Leave { user: uid(1) },
            join(3),
            Change::Role {
                user: uid(3),
                role: Role::Admin,
            },
        ],
        ..draft(cid(1), 1, "leave", 1)
    };
    append(&*store, handover).await;
    assert_eq!(version(&*store, cid(1)).await, 2, "one entry, one step");
    assert_eq!(member(&*store, 2).await.role, Role::Owner);
    assert!(!member(&*store, 1).await.is_present());
    let third = member(&*store, 3).await;
    assert_eq!((third.role, third.is_present()), (Role::Admin, true));
}
