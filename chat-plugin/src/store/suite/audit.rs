//! The audit log: in the commit of what it tells of, bounded, and without what was erased.

use super::world::*;
use crate::domain::audit::{AuditBy, AuditKeep, AuditLine, AuditLog, AuditOutcome};
use crate::domain::entry::{Change, Draft, EntryKind, Outcome};
use crate::domain::joining::JoinRequest;
use crate::domain::member::Role;
use crate::domain::overlay::Report;
use crate::store::{AskToJoin, ChatStore};

super::stories![
    a_line_goes_with_the_commit_of_what_it_tells_of,
    what_is_not_stored_has_no_line,
    a_reader_who_is_removed_has_a_line_though_the_log_does_not_tell,
    a_line_of_its_own_is_durable_and_can_be_settled,
    lines_are_read_backwards_page_by_page,
    lines_that_are_too_many_or_too_old_go_the_oldest_first,
    of_whom_is_erased_only_ids_stay,
];

fn by_operator(action: &str, ts_ms: u64) -> AuditLine {
    AuditLine {
        ts_ms,
        by: AuditBy::Operator,
        from: "admin socket".to_owned(),
        action: action.to_owned(),
        conversation: None,
        about: None,
        detail: String::new(),
        outcome: AuditOutcome::Begun,
    }
}

fn by_user(user: u8, action: &str, about: u8) -> AuditLine {
    AuditLine {
        by: AuditBy::User {
            user: uid(user),
            device: dev(user),
        },
        from: "192.0.2.7:1883".to_owned(),
        conversation: Some(cid(1)),
        about: Some(uid(about)),
        detail: r#"{"mid":"in words"}"#.to_owned(),
        outcome: AuditOutcome::Done,
        ..by_operator(action, 1_000)
    }
}

async fn lines(store: &dyn ChatStore, log: AuditLog) -> Vec<(u64, AuditLine)> {
    store.audited(log, None, usize::MAX).await.unwrap()
}

/// The actions of moderators with their numbers, the oldest first.
async fn actions(store: &dyn ChatStore) -> Vec<(u64, String)> {
    let mut lines = lines(store, AuditLog::Moderators).await;
    lines.reverse();
    let lines = lines.into_iter();
    lines.map(|(number, line)| (number, line.action)).collect()
}

/// As it would be found after a kill.
fn after_a_kill(
    world: &World,
    store: std::sync::Arc<dyn ChatStore>,
) -> std::sync::Arc<dyn ChatStore> {
    if world.is_on_disk() {
        world.killed().open()
    } else {
        store
    }
}

/// User 1 removes user 2.
fn removal(mid: &str, version: u32) -> Draft {
    Draft {
        kind: EntryKind::Removed,
        changes: vec![Change::Leave { user: uid(2) }],
        audit: Some(Box::new(by_user(1, "conv.remove", 2))),
        ..draft(cid(1), 1, mid, version)
    }
}

async fn a_line_goes_with_the_commit_of_what_it_tells_of(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    place(append(&*store, removal("r", 1)).await);
    first(append(&*store, removal("r", 1)).await);
    let held = draft(cid(1), 1, "h", 2);
    store.hold(held.clone(), "a word".to_owned()).await.unwrap();
    let report = Report {
        ts_ms: 5,
        by: uid(1),
        mid: "p".parse().unwrap(),
        conversation: cid(1),
        seq: seq(1),
        text: "rude".to_owned(),
        settled: false,
    };
    store.report(report.clone()).await.unwrap();
    let asked = AskToJoin {
        request: JoinRequest {
            conversation: cid(1),
            user: uid(3),
            role: Role::Member,
            ts_ms: 5,
        },
        code: None,
        limit: 9,
        tell: vec![],
    };
    store.ask_to_join(asked).await.unwrap();
    let line = |action: &str| Some(Box::new(by_user(1, action, 3)));
    for is_there in [true, false] {
        let rejected = store.reject_held(cid(1), uid(1), &held.mid, line("mod.reject"));
        assert_eq!(rejected.await, Ok(is_there));
        let key = report.key();
        let settled = store.settle_report(&key, line("mod.settle"));
        assert_eq!(settled.await, Ok(is_there));
        let refused = store.drop_join_request(cid(1), uid(3), vec![], line("conv.refuse"));
        assert_eq!(refused.await, Ok(is_there));
    }
    let expected = [
        (1, "conv.remove".to_owned()),
        (2, "mod.reject".to_owned()),
        (3, "mod.settle".to_owned()),
        (4, "conv.refuse".to_owned()),
    ];
    assert_eq!(actions(&*store).await, expected, "one line for each, once");
    let store = after_a_kill(&world, store);
    assert_eq!(actions(&*store).await, expected);
    let removed = &lines(&*store, AuditLog::Moderators).await[3];
    assert_eq!(removed, &(1, by_user(1, "conv.remove", 2)));
    assert_eq!(lines(&*store, AuditLog::Operators).await, []);
}

async fn what_is_not_stored_has_no_line(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let outdated = append(&*store, removal("r", 7)).await;
    assert_eq!(outdated, Outcome::MembersMoved);
    assert_eq!(actions(&*store).await, []);
    place(append(&*store, removal("r", 1)).await);
    let again = Draft {
        digest: [9; 16],
        ..removal("r", 2)
    };
    assert_eq!(append(&*store, again).await, Outcome::Conflict);
    let expected = [(1, "conv.remove".to_owned())];
    assert_eq!(
        actions(&*store).await,
        expected,
        "and no number is left out"
    );
}

async fn a_reader_who_is_removed_has_a_line_though_the_log_does_not_tell(world: World) {
    let store = world.open();
    let id = proto::ids::ConversationId::from_parts(proto::ids::ConversationKind::Channel, [1; 16]);
    let made = Draft {
        changes: vec![
            Change::Join {
                user: uid(1),
                role: Role::Owner,
                history_from: None,
            },
            Change::Join {
                user: uid(2),
                role: Role::Reader,
                history_from: None,
            },
        ],
        ..created(id, &[1])
    };
    place(append(&*store, made).await);
    let removed = Draft {
        conversation: id,
        ..removal("r", 1)
    };
    let outcome = append(&*store, removed).await;
    assert!(matches!(outcome, Outcome::Silent { .. }), "{outcome:?}");
    let store = after_a_kill(&world, store);
    assert_eq!(actions(&*store).await, [(1, "conv.remove".to_owned())]);
}

async fn a_line_of_its_own_is_durable_and_can_be_settled(world: World) {
    let store = world.open();
    let begun = by_operator("user passwd", 7);
    assert_eq!(store.audit(begun.clone(), None).await, Ok(1));
    let found = after_a_kill(&world, store.clone());
    let all = lines(&*found, AuditLog::Operators).await;
    assert_eq!(all, [(1, begun.clone())]);
    let other = by_operator("user add", 8);
    assert_eq!(store.audit(other.clone(), None).await, Ok(2));
    let done = AuditLine {
        outcome: AuditOutcome::Done,
        about: Some(uid(1)),
        ..begun
    };
    assert_eq!(store.audit(done.clone(), Some(1)).await, Ok(1));
    let all = lines(&*store, AuditLog::Operators).await;
    assert_eq!(all, [(2, other), (1, done)]);
}

async fn lines_are_read_backwards_page_by_page(world: World) {
    let store = world.open();
    for ts_ms in 1..=5 {
        store
            .audit(by_operator("log level", ts_ms), None)
            .await
            .unwrap();
    }
    store.audit(by_user(1, "conv.ban", 2), None).await.unwrap();
    let store = world.reopen(store).await;
    let page = async |before, limit| {
        let found = store.audited(AuditLog::Operators, before, limit).await;
        let numbers = found.unwrap().into_iter();
        numbers.map(|(number, _)| number).collect::<Vec<u64>>()
    };
    assert_eq!(page(None, 2).await, [5, 4]);
    assert_eq!(page(Some(4), 2).await, [3, 2]);
    assert_eq!(page(Some(2), 2).await, [1]);
    assert!(page(Some(1), 2).await.is_empty());
    assert_eq!(page(Some(u64::MAX), 9).await.len(), 5);
    assert!(page(None, 0).await.is_empty());
    assert_eq!(actions(&*store).await, [(1, "conv.ban".to_owned())]);
}

async fn lines_that_are_too_many_or_too_old_go_the_oldest_first(world: World) {
    let store = world.open();
    for ts_ms in [10, 30, 20, 40, 50] {
        store
            .audit(by_operator("log level", ts_ms), None)
            .await
            .unwrap();
    }
    for _ in 0..3 {
        store.audit(by_user(1, "conv.ban", 2), None).await.unwrap();
    }
    let numbers = async |log| {
        let found = lines(&*store, log).await.into_iter();
        found.map(|(number, _)| number).collect::<Vec<u64>>()
    };
    let keep = async |from_ms, lines_max| {
        let keep = AuditKeep { from_ms, lines_max };
        store.maintain(0, 0, keep).await.unwrap();
    };
    keep(0, u64::MAX).await;
    assert_eq!(numbers(AuditLog::Operators).await, [5, 4, 3, 2, 1]);
    keep(25, u64::MAX).await;
    assert_eq!(
        numbers(AuditLog::Operators).await,
        [5, 4, 3, 2],
        "in their order"
    );
    keep(0, 2).await;
    assert_eq!(numbers(AuditLog::Operators).await, [5, 4]);
    assert_eq!(numbers(AuditLog::Moderators).await, [3, 2]);
    keep(u64::MAX, 0).await;
    let store = world.reopen(store).await;
    let all = lines(&*store, AuditLog::Operators).await;
    assert_eq!((all.len(), all[0].0), (1, 5), "the newest one stays");
    let next = store.audit(by_operator("log level", 60), None).await;
    assert_eq!(next, Ok(6), "no number comes twice");
}

async fn of_whom_is_erased_only_ids_stay(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3]).await;
    store.create_user(user(1, "alice")).await.unwrap();
    // More than one look takes.
    let many = (0..1_100).map(|number| Draft {
        audit: Some(Box::new(by_user(1, "conv.ban", 2))),
        ..draft(cid(1), 1, &format!("m{number}"), 1)
    });
    store.append(many.collect()).await.unwrap();
    let of_her = by_user(2, "msg.delete", 1);
    let of_others = by_user(2, "msg.delete", 3);
    let mut named = by_operator("user add", 7);
    named.add_name("alice");
    let mut other = named.clone();
    other.add_name("bob");
    for line in [&of_her, &of_others, &named, &other] {
        store.audit(line.clone(), None).await.unwrap();
    }
    store.forget(uid(1)).await.unwrap();
    let store = after_a_kill(&world, store);
    let moderators = lines(&*store, AuditLog::Moderators).await;
    assert_eq!(moderators.len(), 1_102);
    assert_eq!(moderators[0].1, of_others);
    let expected = AuditLine {
        detail: String::new(),
        ..of_her
    };
    assert_eq!(moderators[1].1, expected, "of what was done to her");
    let expected = AuditLine {
        from: String::new(),
        ..by_user(1, "conv.ban", 2)
    };
    let own = &moderators[2..];
    assert!(own.iter().all(|(_, line)| *line == expected), "her address");
    let operators = lines(&*store, AuditLog::Operators).await;
    let details: Vec<_> = operators.iter().map(|(_, line)| &line.detail[..]).collect();
    assert_eq!(details, [r#"{"user":"bob"}"#, ""]);
}
