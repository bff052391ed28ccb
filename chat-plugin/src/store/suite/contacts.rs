//! Contacts and blocks: lists of people, and what a block hides in the commit that stores it.

use proto::ids::{ConversationId, Seq};

use super::world::*;
use crate::domain::account::{Changes, Subject};
use crate::domain::contact::{Contact, ContactChange, ContactCounts, ContactList, Decided};
use crate::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Outcome};
use crate::domain::member::Role;
use crate::domain::overlay::{Act, HiddenBy, React};
use crate::domain::profile::Profile;
use crate::domain::user::User;
use crate::store::{ChatStore, Durability, StoreError};

super::stories![
    lists_of_people_come_in_pages,
    a_list_is_no_longer_than_it_may_be_however_many_change_it_at_once,
    what_changes_of_oneself_is_one_change_of_the_account,
    a_change_of_a_contact_moves_the_account_version,
    what_is_written_to_who_has_blocked_is_hidden_for_ever,
    a_block_before_the_first_message_holds,
    a_blocked_message_is_no_change_for_who_blocks,
    a_conversation_begun_under_a_block_is_told_with_the_first_word_to_be_seen,
    what_is_done_to_what_a_block_hides_is_hidden_as_well,
    nobody_is_told_that_somebody_got_as_far_as_what_was_hidden_from_him,
    a_removed_user_has_no_lists,
];

async fn users(store: &dyn ChatStore) {
    for (number, handle) in [(1, "alice"), (2, "bob")] {
        store.create_user(user(number, handle)).await.unwrap();
    }
}

const MAX: ContactCounts = ContactCounts {
    contacts: 9,
    blocked: 9,
};

async fn change(store: &dyn ChatStore, of: u8, other: u8, change: ContactChange) -> bool {
    let changed = store.change_contact(uid(of), uid(other), change, MAX, 50);
    changed.await.unwrap() == Decided::Changed
}

fn add(called: &str) -> ContactChange {
    let called = called.to_owned();
    ContactChange::Add { called }
}

fn direct() -> ConversationId {
    ConversationId::direct(uid(1), uid(2))
}

/// A message of one of the two to the other, as a first one or a later one.
fn to_other(from: u8, mid: &str) -> Draft {
    let other = 3 - from;
    let join = |number| Change::Join {
        user: uid(number),
        role: Role::Member,
        history_from: Some(Seq::new(1)),
    };
    Draft {
        basis: Basis::Create,
        peer: Some(uid(other)),
        changes: vec![join(from), join(other)],
        ..draft(direct(), from, mid, 0)
    }
}

async fn is_hidden(store: &dyn ChatStore, of: u8, at: Seq) -> Option<HiddenBy> {
    let hidden = store.hidden(direct(), uid(of), vec![at]).await.unwrap();
    hidden.first().map(|(_, reason)| *reason)
}

async fn unread(store: &dyn ChatStore, of: u8) -> u64 {
    let count = |at| store.count_up_to(direct(), uid(of), at);
    let (all, none) = (
        count(Seq::MAX).await.unwrap(),
        count(Seq::ZERO).await.unwrap(),
    );
    all.unread_since(none)
}

async fn lists_of_people_come_in_pages(world: World) {
    let store = world.open();
    users(&*store).await;
    for other in 3..=9 {
        assert!(change(&*store, 1, other, add("")).await);
        if other % 2 == 0 {
            assert!(change(&*store, 1, other, ContactChange::Block).await);
        }
    }
    assert!(change(&*store, 1, 9, add("Nine")).await);
    assert!(!change(&*store, 1, 9, add("Nine")).await, "it is so");
    assert!(change(&*store, 1, 4, ContactChange::Remove).await);
    assert!(change(&*store, 1, 3, ContactChange::Remove).await);
    let store = world.reopen(store).await;
    let list = |list, after: Option<u8>, limit| {
        let store = store.clone();
        async move {
            let found = store.contacts(uid(1), list, after.map(uid), limit).await;
            let found = found.unwrap().into_iter();
            found.map(|it| it.other).collect::<Vec<_>>()
        }
    };
    let contacts = ContactList::Contacts;
    assert_eq!(list(contacts, None, 2).await, [uid(5), uid(6)]);
    assert_eq!(list(contacts, Some(6), 9).await, [uid(7), uid(8), uid(9)]);
    let blocked = list(ContactList::Blocked, None, 9).await;
    assert_eq!(blocked, [uid(4), uid(6), uid(8)]);
    let counts = store.contact_counts(uid(1)).await.unwrap();
    let expected = ContactCounts {
        contacts: 5,
        blocked: 3,
    };
    assert_eq!(counts, expected);
    let nine = Contact {
        other: uid(9),
        added_ms: Some(50),
        blocked_ms: None,
        called: "Nine".to_owned(),
    };
    assert_eq!(store.contact(uid(1), uid(9)).await.unwrap(), nine);
    let none = store.contact(uid(2), uid(1)).await.unwrap();
    assert!(none.is_none(), "it is not mutual");
}

async fn a_change_of_a_contact_moves_the_account_version(world: World) {
    let store = world.open();
    users(&*store).await;
    let version = store.hand_out(uid(1), Vec::new()).await.unwrap();
    change(&*store, 1, 2, add("")).await;
    change(&*store, 1, 2, add("Bobby")).await;
    let changes = store.changes(uid(1), version, 9).await.unwrap();
    assert_eq!(
        changes.list,
        [(version + 2, Subject::Person(uid(2)))],
        "once, with the last"
    );
    assert_eq!(store.changes(uid(2), 0, 9).await.unwrap().list, []);
}

async fn a_list_is_no_longer_than_it_may_be_however_many_change_it_at_once(world: World) {
    let store = world.open();
    users(&*store).await;
    let max = ContactCounts {
        contacts: 2,
        blocked: 1,
    };
    let change = |other, change| store.change_contact(uid(1), uid(other), change, max, 50);
    let (one, two, three, blocked, too_many) = tokio::join!(
        change(3, add("")),
        change(4, add("")),
        change(5, add("")),
        change(6, ContactChange::Block),
        change(7, ContactChange::Block),
    );
    let mut decided = [one, two, three].map(|one| one.unwrap() == Decided::Changed);
    decided.sort_unstable();
    assert_eq!(decided, [false, true, true]);
    let full = Decided::Full(ContactList::Blocked);
    let decided = [blocked.unwrap(), too_many.unwrap()];
    assert!(decided.contains(&Decided::Changed) && decided.contains(&full));
    assert_eq!(store.contact_counts(uid(1)).await, Ok(max));
    // What is on a list changes, and goes, also when it is full.
    let known = store
        .contacts(uid(1), ContactList::Contacts, None, 1)
        .await
        .unwrap();
    let other = known[0].other;
    let renamed = store.change_contact(uid(1), other, add("Bobby"), max, 60);
    assert_eq!(renamed.await, Ok(Decided::Changed));
    let smaller = ContactCounts::default();
    let gone = store.change_contact(uid(1), other, ContactChange::Remove, smaller, 70);
    assert_eq!(gone.await, Ok(Decided::Changed));
    let none = store.change_contact(uid(1), uid(8), add(""), smaller, 80);
    assert_eq!(none.await, Ok(Decided::Full(ContactList::Contacts)));
}

async fn what_changes_of_oneself_is_one_change_of_the_account(world: World) {
    let store = world.open();
    users(&*store).await;
    let version = store.hand_out(uid(2), Vec::new()).await.unwrap();
    let told = async |since| {
        let changes = store.changes(uid(2), since, 9).await.unwrap();
        let about = changes.list.into_iter().map(|(_, about)| about);
        (changes.upto, about.collect::<Vec<_>>())
    };
    let me = Subject::Person(uid(2));
    let mut since = version;
    let profile = |status: &str| Profile {
        status: status.to_owned(),
        ..Profile::default()
    };
    for (before, after) in [("", "at sea"), ("at sea", "back")] {
        let replaced = store.replace_profile(uid(2), profile(before), profile(after));
        assert!(replaced.await.unwrap());
    }
    let same = store.replace_profile(uid(2), profile("back"), profile("back"));
    assert!(same.await.unwrap());
    assert_eq!(told(since).await, (version + 2, vec![me]));
    since = version + 2;
    let new = device(2, 1);
    for _ in 0..2 {
        let put = store.put_device(new.clone(), None, Durability::Durable);
        put.await.unwrap();
    }
    assert_eq!(told(since).await, (since + 1, vec![me]), "a device, once");
    store.remove_device(uid(2), new.id).await.unwrap();
    store.remove_device(uid(2), new.id).await.unwrap();
    assert_eq!(told(since).await, (since + 2, vec![me]), "and its end");
    assert_eq!(told(version).await.1, [me], "one row");
}

async fn what_is_written_to_who_has_blocked_is_hidden_for_ever(world: World) {
    let store = world.open();
    users(&*store).await;
    let before = place(append(&*store, to_other(1, "before")).await);
    change(&*store, 2, 1, ContactChange::Block).await;
    let meanwhile = place(append(&*store, to_other(1, "meanwhile")).await);
    let own = place(append(&*store, to_other(2, "own")).await);
    let edit = Draft {
        kind: EntryKind::Edit,
        target: Some(before),
        act: Some(Act::Edit),
        ..to_other(1, "edit")
    };
    let edit = place(append(&*store, edit).await);
    change(&*store, 2, 1, ContactChange::Unblock).await;
    let after = place(append(&*store, to_other(1, "after")).await);
    let store = world.reopen(store).await;
    for (at, hidden) in [
        (before, None),
        (meanwhile, Some(HiddenBy::Block)),
        (own, None),
        (edit, Some(HiddenBy::Block)),
        (after, None),
    ] {
        assert_eq!(is_hidden(&*store, 2, at).await, hidden, "{at}");
        assert_eq!(is_hidden(&*store, 1, at).await, None, "{at}: of the sender");
    }
    assert_eq!(unread(&*store, 2).await, 2, "before and after");
    assert_eq!(unread(&*store, 1).await, 1);
    let marks = store.members(direct(), None, 9).await.unwrap()[1].1;
    assert_eq!((marks.hidden, marks.blocks), (edit, false));

    // Deleted for all it counts once, and is still not even told to be gone.
    let delete = |target, mid| Draft {
        kind: EntryKind::Deleted,
        format: BodyFormat::Json,
        target: Some(target),
        act: Some(Act::Delete),
        ..to_other(1, mid)
    };
    change(&*store, 2, 1, ContactChange::Block).await;
    let told = place(append(&*store, delete(meanwhile, "delete-1")).await);
    assert_eq!(is_hidden(&*store, 2, told).await, Some(HiddenBy::Block));
    let hidden = is_hidden(&*store, 2, meanwhile).await;
    assert_eq!(hidden, Some(HiddenBy::Block));
    assert_eq!(unread(&*store, 2).await, 2);
    let told = place(append(&*store, delete(before, "delete-2")).await);
    assert_eq!(is_hidden(&*store, 2, told).await, None, "he saw that one");
    assert_eq!(unread(&*store, 2).await, 1);
}

async fn a_block_before_the_first_message_holds(world: World) {
    let store = world.open();
    users(&*store).await;
    change(&*store, 2, 1, ContactChange::Block).await;
    let store = world.reopen(store).await;
    let drafts = vec![to_other(1, "first"), to_other(1, "second")];
    for outcome in store.append(drafts).await.unwrap() {
        let Outcome::Stored {
            seq, hidden_from, ..
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!(hidden_from, Some(uid(2)));
        assert!(is_hidden(&*store, 2, seq).await.is_some());
    }
    assert_eq!(unread(&*store, 2).await, 0);
    let again = append(&*store, to_other(1, "first")).await;
    assert_eq!(first(again), Seq::new(1), "acked like any");
    if world.is_on_disk() {
        let killed = world.killed().open();
        assert!(is_hidden(&*killed, 2, Seq::new(2)).await.is_some());
    }
}

async fn a_blocked_message_is_no_change_for_who_blocks(world: World) {
    let store = world.open();
    users(&*store).await;
    append(&*store, to_other(1, "before")).await;
    change(&*store, 2, 1, ContactChange::Block).await;
    let mut versions = Vec::new();
    for number in [1, 2] {
        versions.push(store.hand_out(uid(number), vec![direct()]).await.unwrap());
    }
    append(&*store, to_other(1, "meanwhile")).await;
    let changes = store.changes(uid(1), versions[0], 9).await.unwrap();
    assert_eq!(changes.list, [(versions[0] + 1, direct().into())]);
    let changes = store.changes(uid(2), versions[1], 9).await.unwrap();
    assert_eq!(changes.list, []);
    append(&*store, to_other(2, "own")).await;
    let changes = store.changes(uid(2), versions[1], 9).await.unwrap();
    assert_eq!(changes.list, [(versions[1] + 1, direct().into())]);
}

async fn a_conversation_begun_under_a_block_is_told_with_the_first_word_to_be_seen(world: World) {
    let mut store = world.open();
    users(&*store).await;
    let version = store.hand_out(uid(2), Vec::new()).await.unwrap();
    change(&*store, 2, 1, ContactChange::Block).await;
    append(&*store, to_other(1, "first")).await;
    change(&*store, 2, 1, ContactChange::Unblock).await;
    let about = |changes: Changes| changes.list.into_iter().map(|(_, about)| about);
    let told = async |store: &dyn ChatStore, since| {
        about(store.changes(uid(2), since, 9).await.unwrap()).collect::<Vec<_>>()
    };
    let person = Subject::Person(uid(1));
    assert_eq!(told(&*store, version).await, [person]);
    if world.is_on_disk() {
        store = world.reopen(store).await;
    }
    append(&*store, to_other(1, "after")).await;
    assert_eq!(told(&*store, version).await, [person, direct().into()]);
    append(&*store, to_other(1, "again")).await;
    assert_eq!(told(&*store, version).await.len(), 2, "it was dirty");
}

async fn what_is_done_to_what_a_block_hides_is_hidden_as_well(world: World) {
    let store = world.open();
    users(&*store).await;
    let seen = place(append(&*store, to_other(1, "seen")).await);
    change(&*store, 2, 1, ContactChange::Block).await;
    let meanwhile = place(append(&*store, to_other(1, "meanwhile")).await);
    change(&*store, 2, 1, ContactChange::Unblock).await;
    let react = |emoji: &str| Act::React(React::Add(emoji.into()));
    for (number, (act, target, hidden)) in [
        (react("+"), meanwhile, Some(HiddenBy::Block)),
        (Act::Pin(true), meanwhile, Some(HiddenBy::Block)),
        (Act::Edit, meanwhile, Some(HiddenBy::Block)),
        (Act::Delete, meanwhile, Some(HiddenBy::Block)),
        (react("+"), seen, None),
        (Act::Pin(true), seen, None),
        (Act::Edit, seen, None),
        (Act::Delete, seen, None),
    ]
    .into_iter()
    .enumerate()
    {
        let kind = match act {
            Act::Edit => EntryKind::Edit,
            Act::Delete => EntryKind::Deleted,
            Act::React(_) => EntryKind::Reaction,
            Act::Pin(_) => EntryKind::Pin,
        };
        let draft = Draft {
            kind,
            target: Some(target),
            act: Some(act),
            ..to_other(1, &format!("act-{number}"))
        };
        let at = place(append(&*store, draft).await);
        assert_eq!(is_hidden(&*store, 2, at).await, hidden, "act {number}");
    }
    assert_eq!(unread(&*store, 2).await, 0);
}

async fn nobody_is_told_that_somebody_got_as_far_as_what_was_hidden_from_him(world: World) {
    let mut store = world.open();
    users(&*store).await;
    // 1 seen, 2 and 3 hidden, 4 own, 5 hidden, 6 own, 7 seen, 8 own.
    append(&*store, to_other(1, "seen")).await;
    for (from, mid, blocked) in [
        (1, "hidden-1", true),
        (1, "hidden-2", true),
        (2, "own-1", true),
        (1, "hidden-3", true),
        (2, "own-2", false),
        (1, "after", false),
        (2, "own-3", false),
    ] {
        let to = if blocked {
            ContactChange::Block
        } else {
            ContactChange::Unblock
        };
        change(&*store, 2, 1, to).await;
        append(&*store, to_other(from, mid)).await;
    }
    // What one hides oneself has been seen.
    let (seen, after) = (Seq::new(1), Seq::new(7));
    for at in [seen, after] {
        store.hide(direct(), at, uid(2), 60).await.unwrap();
    }
    if world.is_on_disk() {
        store = world.reopen(store).await;
    }
    let told = async |user, other, (from, to)| {
        let (from, to) = (Seq::new(from), Seq::new(to));
        let told = store.told_mark(direct(), uid(user), uid(other), from, to);
        told.await.unwrap().get()
    };
    for (from, to, expected) in [
        (0, 1, 1),
        (0, 2, 1),
        (1, 3, 1),
        (0, 4, 1),
        (1, 6, 1),
        (1, 7, 7),
        (0, 8, 8),
        (7, 8, 8),
        (7, 7, 7),
        (8, 3, 8),
    ] {
        assert_eq!(told(2, 1, (from, to)).await, expected, "{from} to {to}");
    }
    assert_eq!(told(1, 2, (0, 8)).await, 8, "he has blocked nobody");
}

async fn a_removed_user_has_no_lists(world: World) {
    let store = world.open();
    users(&*store).await;
    change(&*store, 1, 2, add("Bobby")).await;
    change(&*store, 1, 2, ContactChange::Block).await;
    let removed = User {
        removed_ms: Some(60),
        ..user(1, "alice")
    };
    store.update_user(removed).await.unwrap();
    let contact = store.contact(uid(1), uid(2)).await.unwrap();
    assert!(contact.is_none());
    let counts = store.contact_counts(uid(1)).await.unwrap();
    assert_eq!(counts, ContactCounts::default());
    let changed = store.change_contact(uid(1), uid(2), add(""), MAX, 70).await;
    assert_eq!(changed, Err(StoreError::NotFound));
}
