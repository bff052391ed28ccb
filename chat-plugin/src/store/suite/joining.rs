//! Rights, bans, slow mode, invitations and requests to join.

use proto::ids::InvitationId;

use super::world::*;
use crate::domain::entry::{Change, Draft, EntryKind, Outcome};
use crate::domain::joining::{CODES_MAX, INVITATIONS_MAX, Invitation, JoinRequest, Requested};
use crate::domain::member::{Member, Role};
use crate::domain::rights::{Mask, Rights};
use crate::store::{AskToJoin, ChatStore};

super::stories![
    rights_are_kept_and_what_was_taken_away_stays_so,
    a_banned_user_comes_back_by_no_change,
    slow_mode_counts_from_the_last_message_also_within_one_call,
    a_code_is_used_as_often_as_it_may_be_and_dies_with_its_invitation,
    invitations_are_bounded_and_those_that_are_over_make_room,
    a_request_to_join_waits_until_it_is_settled,
    requests_are_bounded_and_use_up_a_code,
];

fn change(mid: &str, version: u32, changes: Vec<Change>) -> Draft {
    Draft {
        kind: EntryKind::Role,
        changes,
        ..draft(cid(1), 1, mid, version)
    }
}

async fn member(store: &dyn ChatStore, user: u8) -> Member {
    let members = store.members(cid(1), None, usize::MAX).await.unwrap();
    let mut members = members.into_iter().map(|(member, _)| member);
    members.find(|member| member.user == uid(user)).unwrap()
}

async fn rights_are_kept_and_what_was_taken_away_stays_so(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let (user, given) = (uid(2), Some(Rights::REACT.and(Rights::PIN)));
    let given = Change::Given {
        user,
        rights: given,
    };
    let want = Change::Want {
        user,
        rights: Some(Rights::ALL),
    };
    append(&*store, change("a", 1, vec![given, want])).await;
    let store = world.reopen(store).await;
    let mask = Mask {
        given: Some(Rights::REACT.and(Rights::PIN)),
        want: Some(Rights::ALL),
    };
    assert_eq!(member(&*store, 2).await.mask, mask);
    append(&*store, change("b", 2, vec![Change::Leave { user }])).await;
    append(&*store, change("c", 3, vec![join(2)])).await;
    let back = member(&*store, 2).await.mask;
    assert_eq!(back.given, Some(Rights::REACT), "but not beyond the role");
    let role = Change::Role {
        user,
        role: Role::Moderator,
    };
    append(&*store, change("d", 4, vec![role])).await;
    assert_eq!(member(&*store, 2).await.mask.given, None);
}

async fn a_banned_user_comes_back_by_no_change(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let user = uid(2);
    let ban = vec![Change::Ban { user }, Change::Leave { user }];
    append(&*store, change("ban", 1, ban)).await;
    assert!(!member(&*store, 2).await.is_present());
    let stranger = Change::Ban { user: uid(3) };
    append(&*store, change("ban-3", 2, vec![stranger])).await;
    assert_eq!(
        append(&*store, change("old", 2, vec![])).await,
        Outcome::MembersMoved,
        "a ban moves the version, also of somebody who was never in"
    );
    let store = world.reopen(store).await;
    for number in [2, 3] {
        let back = append(&*store, change("back", 3, vec![join(number)])).await;
        assert_eq!(back, Outcome::Banned);
    }
    let bans = store.bans(cid(1), None, 10).await.unwrap();
    let banned: Vec<_> = bans.iter().map(|ban| (ban.user, ban.by)).collect();
    assert_eq!(banned, [(uid(2), uid(1)), (uid(3), uid(1))]);
    let behind = store.bans(cid(1), Some(uid(2)), 10).await.unwrap();
    assert_eq!(behind, bans[1..]);
    assert!(store.bans(cid(2), None, 10).await.unwrap().is_empty());

    let batch = vec![
        change("unban", 3, vec![Change::Unban { user }]),
        change("again", 4, vec![join(2)]),
    ];
    let outcomes = store.append(batch).await.unwrap();
    assert!(
        matches!(outcomes[1], Outcome::Stored { .. }),
        "{outcomes:?}"
    );
    assert_eq!(store.ban(cid(1), user).await.unwrap(), None);
    assert!(store.ban(cid(1), uid(3)).await.unwrap().is_some());
}

async fn slow_mode_counts_from_the_last_message_also_within_one_call(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let at = |from, mid: &str, ts_ms| Draft {
        ts_ms,
        slow_ms: 5_000,
        ..draft(cid(1), from, mid, 1)
    };
    let batch = vec![
        at(1, "a", 10_000),
        at(1, "b", 11_000),
        at(2, "c", 11_500),
        at(1, "a", 12_000),
    ];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(place(outcomes[0]), seq(2));
    assert_eq!(outcomes[1], Outcome::TooSoon { retry_ms: 4_000 });
    assert_eq!(place(outcomes[2]), seq(3), "each counts for himself");
    assert_eq!(first(outcomes[3]), seq(2), "a retry is not refused");
    let store = world.reopen(store).await;
    let soon = append(&*store, at(1, "d", 14_999)).await;
    assert_eq!(soon, Outcome::TooSoon { retry_ms: 1 });
    assert_eq!(place(append(&*store, at(1, "e", 15_000)).await), seq(4));
    let back = append(&*store, at(1, "f", 1_000)).await;
    assert_eq!(place(back), seq(5), "the clock went back");
}

fn invitation(number: u8, uses_max: u32) -> Invitation {
    Invitation {
        conversation: cid(1),
        id: InvitationId::from_bytes([number; 16]),
        by: uid(1),
        role: Role::Reader,
        approval: false,
        created_ms: 1_000,
        expires_ms: 5_000,
        uses_max,
        uses: 0,
    }
}

fn join_by(mid: &str, version: u32, user: u8, hash: [u8; 16]) -> Draft {
    change(mid, version, vec![Change::Invited { hash }, join(user)])
}

async fn a_code_is_used_as_often_as_it_may_be_and_dies_with_its_invitation(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    make_group(&*store, cid(2), &[1]).await;
    let (one, other) = ([1; 16], [2; 16]);
    assert!(store.put_invitation(invitation(7, 2), one).await.unwrap());
    assert!(store.put_invitation(invitation(7, 2), other).await.unwrap());
    let store = world.reopen(store).await;
    let elsewhere = Draft {
        conversation: cid(2),
        ..join_by("x", 1, 2, one)
    };
    assert_eq!(append(&*store, elsewhere).await, Outcome::Void);
    let late = Draft {
        ts_ms: 5_000,
        ..join_by("late", 1, 2, one)
    };
    assert_eq!(append(&*store, late).await, Outcome::Void);
    let batch = vec![
        join_by("a", 1, 2, one),
        join_by("b", 2, 3, other),
        join_by("c", 3, 4, one),
    ];
    let outcomes = store.append(batch).await.unwrap();
    assert_eq!(place(outcomes[1]), seq(3));
    assert_eq!(outcomes[2], Outcome::Void, "both codes are one invitation");
    let used = Invitation {
        uses: 2,
        ..invitation(7, 2)
    };
    assert_eq!(store.invited(one).await.unwrap(), Some(used.clone()));
    assert_eq!(store.invitations(cid(1)).await.unwrap(), [used]);

    let id = InvitationId::from_bytes([7; 16]);
    assert!(store.revoke_invitation(cid(1), id).await.unwrap());
    assert!(!store.revoke_invitation(cid(1), id).await.unwrap());
    for code in [one, other] {
        assert_eq!(store.invited(code).await.unwrap(), None);
    }
    for number in 1..=CODES_MAX + 1 {
        let hash = [u8::try_from(number).unwrap(); 16];
        let put = store.put_invitation(invitation(8, 0), hash).await.unwrap();
        assert_eq!(put, number <= CODES_MAX);
    }
}

async fn invitations_are_bounded_and_those_that_are_over_make_room(world: World) {
    let store = world.open();
    for number in 0..INVITATIONS_MAX {
        let number = u8::try_from(number).unwrap();
        let made = invitation(number, 0);
        assert!(store.put_invitation(made, [number; 16]).await.unwrap());
    }
    let more = invitation(200, 0);
    let put = store.put_invitation(more.clone(), [200; 16]);
    assert!(!put.await.unwrap());
    let later = Invitation {
        created_ms: 5_000,
        ..more
    };
    assert!(store.put_invitation(later, [200; 16]).await.unwrap());
    assert_eq!(store.invitations(cid(1)).await.unwrap().len(), 1);
    assert_eq!(store.invited([7; 16]).await.unwrap(), None);
}

fn asked(user: u8, code: Option<[u8; 16]>) -> AskToJoin {
    AskToJoin {
        request: JoinRequest {
            conversation: cid(1),
            user: uid(user),
            role: Role::Member,
            ts_ms: 1_000 + u64::from(user),
        },
        code,
        limit: 2,
        tell: vec![uid(1)],
    }
}

fn approve(mid: &str, version: u32, user: u8, role: Role) -> Draft {
    let approved = Change::Approved {
        user: uid(user),
        role,
    };
    change(mid, version, vec![approved, join(user)])
}

async fn a_request_to_join_waits_until_it_is_settled(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let known = store.hand_out(uid(1), vec![cid(1)]).await.unwrap();
    let first = store.ask_to_join(asked(2, None)).await.unwrap();
    assert_eq!(first, Requested::Waits);
    let changes = store.changes(uid(1), known, 10).await.unwrap();
    assert_eq!(changes.list.len(), 1, "those who approve are told");
    let store = world.reopen(store).await;
    let request = asked(2, None).request;
    let found = store.join_request(cid(1), uid(2)).await.unwrap();
    assert_eq!(found, Some(request));
    let other_role = append(&*store, approve("a", 1, 2, Role::Reader)).await;
    assert_eq!(other_role, Outcome::Void);
    place(append(&*store, approve("b", 1, 2, Role::Member)).await);
    assert!(member(&*store, 2).await.is_present());
    let twice = append(&*store, approve("c", 2, 2, Role::Member)).await;
    assert_eq!(twice, Outcome::Void, "it is settled");

    let late = store.ask_to_join(asked(2, None)).await.unwrap();
    assert_eq!(late, Requested::Member, "and keeps the role");
    assert_eq!(store.join_request(cid(1), uid(2)).await.unwrap(), None);

    store.ask_to_join(asked(3, None)).await.unwrap();
    let dropped = store.drop_join_request(cid(1), uid(3), vec![], None);
    assert!(dropped.await.unwrap());
    let dropped = store.drop_join_request(cid(1), uid(3), vec![], None);
    assert!(!dropped.await.unwrap());
    store.ask_to_join(asked(4, None)).await.unwrap();
    store.ask_to_join(asked(5, None)).await.unwrap();
    append(&*store, change("add", 2, vec![join(4)])).await;
    let ban = Change::Ban { user: uid(5) };
    append(&*store, change("ban", 3, vec![ban])).await;
    let left = store.join_requests(cid(1), None, 10).await.unwrap();
    assert_eq!(left, [], "added or banned, they ask no longer");
    let again = store.ask_to_join(asked(5, None)).await.unwrap();
    assert_eq!(again, Requested::Banned);
}

async fn requests_are_bounded_and_use_up_a_code(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    let code = [1; 16];
    store.put_invitation(invitation(7, 2), code).await.unwrap();
    let ask = async |user| {
        let asked = asked(user, Some(code));
        store.ask_to_join(asked).await.unwrap()
    };
    assert_eq!(ask(2).await, Requested::Waits);
    assert_eq!(ask(2).await, Requested::Waits, "and uses it up once");
    assert_eq!(ask(3).await, Requested::Waits);
    assert_eq!(ask(4).await, Requested::Full);
    let dropped = store.drop_join_request(cid(1), uid(3), vec![], None);
    dropped.await.unwrap();
    assert_eq!(ask(4).await, Requested::Void, "used up");
    let listed = store.join_requests(cid(1), None, 1).await.unwrap();
    assert_eq!(listed, [asked(2, None).request]);
    let behind = store.join_requests(cid(1), Some(uid(2)), 1).await.unwrap();
    assert_eq!(behind, []);
}
