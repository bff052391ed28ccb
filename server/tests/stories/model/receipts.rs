//! Receipts: state that must be the marks of the others, once these stand still.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::acting::{Actor, Told, moved};
use super::rules::{Conversation, NAMES, User, World};
use crate::harness::{Login, eventually};

/// What the acting connection has been told since it subscribed.
pub(super) fn told(actor: &mut Actor, world: &World, user: User) {
    let name = NAMES[user];
    eventually(&format!("the receipts of {name}"), || {
        actor.client.ping();
        actor.sort_inbox();
        let is_told = |conversation: &Conversation| {
            let told = actor.receipts.get(&conversation.cid);
            has_been_told(told, conversation, user, &world.uids)
        };
        let all = world.conversations.iter();
        let mut mine = all.filter(|one| has_receipts(one, user));
        mine.all(is_told).then_some(())
    });
}

/// Does this user know who has his messages? Of moves while one of the two was out nobody is told.
fn has_been_told(
    told: Option<&Told>,
    conversation: &Conversation,
    user: User,
    uids: &[String],
) -> bool {
    conversation.told_of().all(|other| {
        let (delivered, read) = marks_of(conversation, other);
        let (told_delivered, told_read) = told
            .and_then(|told| told.get(&uids[other]).copied())
            .unwrap_or_default();
        assert!(
            told_delivered <= delivered && told_read <= read,
            "{} was told too much of {}: {told:?}",
            NAMES[user],
            NAMES[other]
        );
        let always = [user, other]
            .iter()
            .all(|one| conversation.members[one].was_always_there());
        let least = |mark| conversation.last_owned(user, other, mark);
        user == other || !always || (told_delivered >= least(delivered) && told_read >= least(read))
    })
}

/// Is he told who has his messages? A reader of a channel has none; that he had some once is not looked at.
fn has_receipts(conversation: &Conversation, user: User) -> bool {
    conversation.is_present(user) && !conversation.is_many(user)
}

fn marks_of(conversation: &Conversation, user: User) -> (u64, u64) {
    let marks = &conversation.members[&user].marks;
    (marks.shown_delivered(), marks.read)
}

/// What a connection is told first that subscribes now: the state of all conversations with receipts.
pub(super) fn state(world: &World, user: User, server: SocketAddr) {
    let mut client = Login::new(NAMES[user]).connect(server);
    client.subscribe("chat/me/rcpt/+");
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let is_told = |conversation: &&Conversation| {
        has_receipts(conversation, user)
            && conversation.told_of().any(|other| {
                let (delivered, _) = marks_of(conversation, other);
                other != user && conversation.last_owned(user, other, delivered) > 0
            })
    };
    for conversation in world.conversations.iter().filter(is_told) {
        while !known.contains_key(&conversation.cid) {
            let told = client.next_json();
            known.insert(told["cid"].as_str().unwrap().to_owned(), told);
        }
    }
    for (cid, told) in known {
        let place = world.place_named(&cid).unwrap();
        let conversation = &world.conversations[place];
        let name = NAMES[user];
        assert!(
            conversation.is_present(user),
            "{name} is out of {cid}: {told}"
        );
        if conversation.is_many(user) {
            continue;
        }
        let others: Vec<User> = conversation
            .told_of()
            .filter(|other| *other != user)
            .collect();
        let moves: Told = told["moves"]
            .as_array()
            .unwrap()
            .iter()
            .map(moved)
            .collect();
        let expected: Told = others
            .iter()
            .map(|other| (world.uids[*other].clone(), marks_of(conversation, *other)))
            .filter(|(_, (delivered, _))| *delivered > 0)
            .collect();
        assert_eq!(moves, expected, "receipts of {cid} for {name}");
        let all = |mark: fn((u64, u64)) -> u64| {
            let reached =
                |other: &User| conversation.reached(*other, mark(marks_of(conversation, *other)));
            others.iter().map(reached).min().unwrap_or(0)
        };
        assert_eq!(
            told["delivered_all"],
            all(|marks| marks.0),
            "{cid} for {name}"
        );
        assert_eq!(told["read_all"], all(|marks| marks.1), "{cid} for {name}");
    }
}
