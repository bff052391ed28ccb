//! Account versions: who syncs by them knows everything, and who does not costs nothing.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proto::ids::{ConversationId, Seq};

use super::world::*;
use crate::domain::account::{Preferences, Subject};
use crate::domain::entry::{Change, Draft, EntryKind};
use crate::store::{ChatStore, Durability, Move};

super::stories![
    who_never_asked_has_no_changes,
    one_change_between_two_hand_outs,
    coming_and_leaving_are_changes,
    marks_and_preferences_are_changes,
    a_removed_user_leaves_nothing,
    a_device_that_syncs_knows_everything,
];

fn conversation(about: Subject) -> ConversationId {
    match about {
        Subject::Conversation(id) => id,
        Subject::Person(other) => panic!("{other} is a person"),
    }
}

async fn changed(store: &dyn ChatStore, since: u64) -> (u64, Vec<ConversationId>) {
    let changes = store.changes(uid(1), since, usize::MAX - 1).await.unwrap();
    assert!(!changes.more);
    let list = changes.list.iter().map(|(_, about)| conversation(*about));
    let list = list.collect();
    (changes.upto, list)
}

fn read(user: u8, conversation: ConversationId, place: u64) -> Move {
    Move::Marks {
        conversation,
        user: uid(user),
        delivered: Seq::ZERO,
        read: seq(place),
        private_read: Seq::ZERO,
        unread_flag: None,
        ts_ms: 5,
    }
}

async fn who_never_asked_has_no_changes(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    say(&*store, cid(1), 2, "a").await;
    assert_eq!(changed(&*store, 0).await, (0, vec![]));
}

async fn one_change_between_two_hand_outs(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    make_group(&*store, cid(2), &[1, 2]).await;
    let ids = vec![cid(1), cid(2)];
    let version = store.hand_out(uid(1), ids.clone()).await.unwrap();
    assert_eq!(changed(&*store, version).await, (version, vec![]));
    for mid in ["a", "b", "c"] {
        say(&*store, cid(1), 2, mid).await;
    }
    say(&*store, cid(2), 1, "own").await;
    assert_eq!(changed(&*store, version).await, (version + 2, ids.clone()));
    say(&*store, cid(1), 2, "d").await;
    assert_eq!(changed(&*store, version).await, (version + 2, ids.clone()));
    let page = store.changes(uid(1), version, 1).await.unwrap();
    assert!(page.more);
    assert_eq!(
        (page.upto, page.list),
        (version + 1, vec![(version + 1, cid(1).into())])
    );

    let store = world.reopen(store).await;
    assert_eq!(store.hand_out(uid(1), vec![cid(1)]).await, Ok(version + 2));
    let store = world.reopen(store).await;
    say(&*store, cid(2), 2, "e").await;
    say(&*store, cid(1), 2, "f").await;
    let known = (version + 3, vec![cid(2), cid(1)]);
    assert_eq!(changed(&*store, version).await, known);
    assert_eq!(
        changed(&*store, version + 2).await,
        (version + 3, vec![cid(1)])
    );
}

async fn coming_and_leaving_are_changes(world: World) {
    let store = world.open();
    let version = store.hand_out(uid(1), vec![]).await.unwrap();
    make_group(&*store, cid(1), &[1, 2]).await;
    assert_eq!(changed(&*store, version).await, (version + 1, vec![cid(1)]));
    store.hand_out(uid(1), vec![cid(1)]).await.unwrap();
    let leave = Draft {
        kind: EntryKind::Left,
        changes: vec![Change::Leave { user: uid(1) }],
        ..draft(cid(1), 1, "bye", 1)
    };
    append(&*store, leave).await;
    let left = (version + 2, vec![cid(1)]);
    assert_eq!(changed(&*store, version).await, left);
    store.hand_out(uid(1), vec![cid(1)]).await.unwrap();
    append(&*store, draft(cid(1), 2, "among-ourselves", 2)).await;
    assert_eq!(changed(&*store, version).await, left);
}

async fn marks_and_preferences_are_changes(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    say(&*store, cid(1), 2, "a").await;
    let version = store.hand_out(uid(1), vec![cid(1)]).await.unwrap();
    let moves = vec![read(1, cid(1), 2), read(2, cid(1), 2)];
    store.advance(moves, Durability::Durable).await.unwrap();
    assert_eq!(changed(&*store, version).await, (version + 1, vec![cid(1)]));
    let muted = Preferences {
        muted_until: Preferences::MUTED_FOR_EVER,
        archived: true,
        pinned: false,
        watch: true,
    };
    store.set_preferences(uid(1), cid(1), muted).await.unwrap();
    store.set_preferences(uid(1), cid(1), muted).await.unwrap();
    assert_eq!(changed(&*store, version).await, (version + 2, vec![cid(1)]));
    let store = world.reopen(store).await;
    let found = store.preferences(uid(1), vec![cid(1), cid(2)]).await;
    assert_eq!(found, Ok(vec![muted, Preferences::default()]));
}

async fn a_removed_user_leaves_nothing(world: World) {
    let store = world.open();
    let one = user(1, "one");
    store.create_user(one.clone()).await.unwrap();
    make_group(&*store, cid(1), &[1, 2]).await;
    store.hand_out(uid(1), vec![cid(1)]).await.unwrap();
    say(&*store, cid(1), 2, "a").await;
    store.hand_out(uid(1), vec![cid(1)]).await.unwrap();
    let removed = crate::domain::user::User {
        removed_ms: Some(9),
        ..one
    };
    store.update_user(removed).await.unwrap();
    say(&*store, cid(1), 2, "b").await;
    assert_eq!(changed(&*store, 0).await, (0, vec![]));
}

/// What happens in the model: who writes where, or which device of user 1 takes a step of its sync.
#[derive(Clone, Copy, Debug)]
enum Step {
    Say(u8, u8),
    Read(u8),
    Sync(usize),
    Reopen,
}

/// A device that knows conversations by their heads and read marks, and syncs in pages of two.
#[derive(Default)]
struct Replica {
    version: u64,
    known: HashMap<ConversationId, (Seq, Seq)>,
}

async fn state(store: &dyn ChatStore, id: ConversationId) -> (Seq, Seq) {
    let found = store.conversations(&[id]).await.unwrap();
    let members = store.members(id, None, 10).await.unwrap();
    let mine = members.iter().find(|(member, _)| member.user == uid(1));
    (found[0].as_ref().unwrap().head, mine.unwrap().1.read)
}

impl Replica {
    async fn sync(&mut self, store: &dyn ChatStore) {
        let changes = store.changes(uid(1), self.version, 2).await.unwrap();
        let about = changes.list.iter().map(|(_, about)| *about);
        let ids: Vec<_> = about.map(conversation).collect();
        store.hand_out(uid(1), ids.clone()).await.unwrap();
        for id in ids {
            self.known.insert(id, state(store, id).await);
        }
        self.version = changes.upto;
    }
}

async fn a_device_that_syncs_knows_everything(world: World) {
    const CONVERSATIONS: u8 = 5;
    let step = prop_oneof![
        8 => (1..=2u8, 1..=CONVERSATIONS).prop_map(|(from, to)| Step::Say(from, to)),
        3 => (1..=CONVERSATIONS).prop_map(Step::Read),
        6 => (0..2usize).prop_map(Step::Sync),
        1 => Just(Step::Reopen),
    ];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = proptest::collection::vec(step, 300);
    let steps = steps.new_tree(&mut runner).unwrap().current();

    let mut store = world.open();
    let mut devices = [Replica::default(), Replica::default()];
    store.hand_out(uid(1), vec![]).await.unwrap();
    for number in 1..=CONVERSATIONS {
        make_group(&*store, cid(number), &[1, 2]).await;
    }
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Say(from, to) => {
                say(&*store, cid(to), from, &number.to_string()).await;
            }
            Step::Read(to) => {
                let (head, _) = state(&*store, cid(to)).await;
                let moves = vec![read(1, cid(to), head.get())];
                store.advance(moves, Durability::Durable).await.unwrap();
            }
            Step::Sync(device) => devices[device].sync(&*store).await,
            Step::Reopen if world.is_on_disk() && number % 3 > 0 => {}
            Step::Reopen => store = world.reopen(store).await,
        }
    }
    for device in &mut devices {
        while !changed(&*store, device.version).await.1.is_empty() {
            device.sync(&*store).await;
        }
        for number in 1..=CONVERSATIONS {
            let truth = state(&*store, cid(number)).await;
            assert_eq!(device.known.get(&cid(number)), Some(&truth), "{number}");
        }
    }
}
