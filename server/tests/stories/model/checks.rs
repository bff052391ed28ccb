//! What a user is shown, compared with what the rules say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::rules::{Conversation, Kind, NAMES, Place, User, World};
use super::shown;
use crate::harness::{Client, Login, eventually};

/// Most that is asked for at once: small, so that there are several pages.
const PAGE: u64 = 40;

/// Everything that a user is shown of a conversation.
pub(super) fn conversation(client: &mut Client, world: &mut World, user: User, place: Place) {
    overview(client, world, user, place);
    history(client, world, user, place);
    pins(client, world, user, place);
    status(client, world, user, place);
    held(client, world, user, place);
    queue(client, world, user, place);
}

// -- conversations

/// A conversation as `conv.get`, `conv.list` and `sync.changes` tell it.
fn seen(conversation: &Conversation, user: User) -> Value {
    let member = &conversation.members[&user];
    let marks = &member.marks;
    json!({
        "cid": conversation.cid,
        "kind": conversation.kind.name(),
        "title": conversation.title,
        "history": conversation.history.in_json(),
        "role": member.role.name(),
        "head": conversation.head(),
        "mseq": conversation.mseq(conversation.head()),
        "read": marks.read,
        "private_read": marks.private_read,
        "unread": conversation.unread(user),
        "unread_flag": marks.unread_flag,
        "muted_until": if marks.muted { (1_u64 << 48) - 1 } else { 0 },
        "archived": marks.archived,
        "pinned": marks.on_top,
        "watch": marks.watch,
    })
}

/// The same fields of what the server told.
fn told(conversation: &Value, like: &Value) -> Value {
    let fields = like.as_object().unwrap().keys();
    fields
        .map(|name| (name.clone(), conversation[name].clone()))
        .collect()
}

/// Head, marks, members: all at once, but for what devices have acknowledged a moment ago.
pub(super) fn overview(client: &mut Client, world: &mut World, user: User, place: Place) {
    let name = NAMES[user];
    let cid = world.conversations[place].cid.clone();
    let ask = json!({"cid": cid});
    if !world.conversations[place].is_present(user) {
        let refused = client.call("conv.get", &ask);
        assert_eq!(refused, Err("not_found".to_owned()), "{name} in {cid}");
        return;
    }
    let now = client.call("conv.get", &ask).unwrap();
    let expected = seen(&world.conversations[place], user);
    assert_eq!(told(&now, &expected), expected, "conv.get of {name}");
    let conversation = &world.conversations[place];
    let roles: BTreeMap<_, _> = conversation
        .told_of()
        .map(|user| {
            let member = &conversation.members[&user];
            let told = json!([member.role.name(), member.joined, member.marks.read]);
            (NAMES[user].to_owned(), told)
        })
        .collect();
    assert_eq!(members(&now), roles, "members of {cid} for {name}");
    let mut now = Some(now);
    eventually(
        &format!("the acknowledgements in {cid} to count for {name}"),
        || {
            let now = now.take().or_else(|| client.call("conv.get", &ask).ok())?;
            is_delivered(&now, &mut world.conversations[place], user).then_some(())
        },
    );
}

fn members(conversation: &Value) -> BTreeMap<String, Value> {
    let one = |member: &Value| {
        let told = json!([member["role"], member["joined"], member["read"]]);
        (member["handle"].as_str().unwrap().to_owned(), told)
    };
    let members = conversation["members"].as_array().unwrap();
    members.iter().map(one).collect()
}

/// Are the delivered marks what they can be? Then that is what they are.
fn is_delivered(now: &Value, conversation: &mut Conversation, user: User) -> bool {
    let mut all = vec![(user, now["delivered"].as_u64().unwrap())];
    for member in now["members"].as_array().unwrap() {
        let other = NAMES.iter().position(|name| member["handle"] == *name);
        all.push((other.unwrap(), member["delivered"].as_u64().unwrap()));
    }
    all.into_iter().all(|(user, delivered)| {
        let marks = &mut conversation.members.get_mut(&user).unwrap().marks;
        marks.learn(delivered);
        marks.shown_delivered() == delivered
    })
}

/// The list of conversations, page by page, and the unread messages of all that are not muted.
pub(super) fn list(client: &mut Client, world: &World, user: User) {
    let name = NAMES[user];
    let mut listed = Vec::new();
    let mut ask = json!({"limit": 5});
    loop {
        let page = client.call("conv.list", &ask).unwrap();
        listed.extend(page["conversations"].as_array().unwrap().iter().cloned());
        if page["more"] != true {
            break;
        }
        ask["after"] = listed.last().unwrap()["cid"].clone();
    }
    let present = |conversation: &&Conversation| conversation.is_present(user);
    let mut mine: Vec<&Conversation> = world.conversations.iter().filter(present).collect();
    mine.sort_by(|one, other| (one.kind, &one.cid).cmp(&(other.kind, &other.cid)));
    let expected: Vec<Value> = mine.iter().map(|one| seen(one, user)).collect();
    let listed: Vec<Value> = listed
        .iter()
        .map(|one| match expected.first() {
            Some(like) => told(one, like),
            None => one.clone(),
        })
        .collect();
    assert_eq!(listed, expected, "conv.list of {name}");
    let me = client.call("me.get", &json!({})).unwrap();
    let counted = mine
        .iter()
        .filter(|one| !one.members[&user].marks.muted)
        .map(|one| one.unread(user));
    assert_eq!(me["unread"], counted.sum::<u64>(), "badge of {name}");
}

/// An account sync tells exactly what changed since the last one.
pub(super) fn sync(client: &mut Client, world: &mut World, user: User, version: u64) -> u64 {
    let name = NAMES[user];
    let mut told_of = BTreeSet::new();
    let mut ask = json!({"ver": version, "limit": 4});
    world.look_at_channels(user);
    loop {
        let page = client.call("sync.changes", &ask).unwrap();
        for one in page["conversations"].as_array().unwrap() {
            let place = world.place_named(one["cid"].as_str().unwrap()).unwrap();
            assert!(told_of.insert(place), "{name} is told twice of {one}");
            synced(one, &world.conversations[place], user, &world.uids);
        }
        if let Some(version) = page["ver"].as_u64() {
            let changed = world.is_told(user);
            let names = |places: &BTreeSet<Place>| -> Vec<String> {
                let cid = |place: &Place| format!("{place}: {}", world.conversations[*place].cid);
                places.iter().map(cid).collect()
            };
            assert_eq!(names(&told_of), names(&changed), "changes of {name}");
            return version;
        }
        ask = json!({"next": page["next"], "limit": 4});
    }
}

fn synced(one: &Value, conversation: &Conversation, user: User, uids: &[String]) {
    let name = NAMES[user];
    let last = conversation.last_visible(user);
    assert_eq!(one["head"], last, "sync of {name}: {one}");
    if !conversation.is_present(user) {
        let left = json!({"cid": conversation.cid, "head": last, "left": true});
        assert_eq!(*one, left, "sync of {name}");
        return;
    }
    let expected = seen(conversation, user);
    let told = told(&one["conversation"], &expected);
    assert_eq!(told, expected, "sync of {name}");
    if !conversation.members[&user].sees(last) {
        assert_eq!(one["last"], Value::Null, "{name} has just come");
        return;
    }
    let expected = shown::delivered(conversation.shown(user, last, uids));
    let last = shown::delivered(shown::of_json(&one["last"]));
    assert_eq!(last, expected, "last entry in the sync of {name}");
}

// -- entries

/// The whole log as a user sees it, forwards and the newest page backwards.
pub(super) fn history(client: &mut Client, world: &World, user: User, place: Place) {
    let name = NAMES[user];
    let conversation = &world.conversations[place];
    let cid = &conversation.cid;
    if !conversation.members.contains_key(&user) {
        let refused = client.call("msg.history", &json!({"cid": cid}));
        assert_eq!(refused, Err("not_found".to_owned()), "{name} in {cid}");
        return;
    }
    let last = conversation.last_visible(user);
    let member = &conversation.members[&user];
    let expected: Vec<Value> = (1..=last)
        .filter(|seq| member.sees(*seq))
        .map(|seq| in_history(conversation, user, seq, &world.uids))
        .collect();
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let ask = json!({"cid": cid, "after": after, "limit": PAGE});
        let page = client.call("msg.history", &ask).unwrap();
        assert_eq!(page["head"], last, "head of {cid} for {name}");
        for entry in page["entries"].as_array().unwrap() {
            entries.extend(unfolded(entry));
        }
        if page["more"] != true {
            break;
        }
        after = entries.last().unwrap()["seq"].as_u64().unwrap();
    }
    compare(&entries, &expected, &format!("history of {cid} for {name}"));
    let page = client.call("msg.history", &json!({"cid": cid})).unwrap();
    let newest = page["entries"].as_array().unwrap();
    let newest: Vec<Value> = newest.iter().flat_map(unfolded).collect();
    let from = expected.len().saturating_sub(newest.len());
    compare(
        &newest,
        &expected[from..],
        &format!("newest of {cid} for {name}"),
    );
    assert!(newest.len() == expected.len() || page["more"] == true);
}

/// Of what is gone, a gap tells nothing but the reason.
fn in_history(conversation: &Conversation, user: User, seq: u64, uids: &[String]) -> Value {
    match conversation.gone(user, seq) {
        Some(reason) => json!({"seq": seq, "kind": "gone", "reason": reason}),
        None => conversation.shown(user, seq, uids),
    }
}

fn unfolded(entry: &Value) -> Vec<Value> {
    let gone = |seq: u64, reason: &Value| json!({"seq": seq, "kind": "gone", "reason": reason});
    if entry["kind"] == "gap" {
        let gap = &entry["gap"];
        let places = gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap();
        return places.map(|seq| gone(seq, &gap["reason"])).collect();
    }
    if entry["kind"] == "gone" {
        return vec![gone(entry["seq"].as_u64().unwrap(), &entry["reason"])];
    }
    vec![shown::of_json(entry)]
}

/// One by one: the first difference says more than two long lists.
fn compare(told: &[Value], expected: &[Value], what: &str) {
    for (told, expected) in told.iter().zip(expected) {
        assert_eq!(told, expected, "{what}");
    }
    assert_eq!(told.len(), expected.len(), "{what}");
}

/// The same log by SUBSCRIBE, for present members.
pub(super) fn log(login: &Login, world: &World, server: SocketAddr, place: Place) {
    let conversation = &world.conversations[place];
    let Some(user) = conversation.present().next() else {
        return;
    };
    let mut client = login.clone().connect(server);
    client.subscribe(&format!("chat/c/{}/log/from/1", conversation.cid));
    for seq in (1..=conversation.head()).filter(|seq| conversation.members[&user].sees(*seq)) {
        let told = shown::delivered(shown::of_json(&client.next_json()));
        let expected = shown::delivered(conversation.shown(user, seq, &world.uids));
        assert_eq!(
            told, expected,
            "log of {} for {}",
            conversation.cid, NAMES[user]
        );
    }
    assert!(client.arrivals().is_empty(), "more than there is");
}

fn pins(client: &mut Client, world: &World, user: User, place: Place) {
    let conversation = &world.conversations[place];
    let told = client.call("msg.pins", &json!({"cid": conversation.cid}));
    if !conversation.is_present(user) {
        assert_eq!(
            told,
            Err("not_found".to_owned()),
            "pins for {}",
            NAMES[user]
        );
        return;
    }
    let told: Vec<Value> = told.unwrap()["pins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pin| json!([pin["seq"], pin["by"]]))
        .collect();
    let pin = |(seq, by): (u64, User)| json!([seq, world.uids[by]]);
    let expected: Vec<Value> = conversation.pins(user).into_iter().map(pin).collect();
    assert_eq!(
        told, expected,
        "pins of {} for {}",
        conversation.cid, NAMES[user]
    );
}

/// Who has the last message that this user wrote, and the last one that a block kept from the other.
fn status(client: &mut Client, world: &World, user: User, place: Place) {
    let conversation = &world.conversations[place];
    if !conversation.is_present(user) {
        return;
    }
    let head = conversation.head();
    for seq in [
        conversation.last_own(user, head),
        conversation.last_kept(user),
    ] {
        if seq > 0 && conversation.members[&user].sees(seq) {
            status_of(client, world, user, (place, seq));
        }
    }
}

/// Who has a message, and who reacted to it.
fn status_of(client: &mut Client, world: &World, user: User, (place, seq): (Place, u64)) {
    let conversation = &world.conversations[place];
    let cid = &conversation.cid;
    let told = client.call("msg.status", &json!({"cid": cid, "seq": seq}));
    let told = told.unwrap();
    let (there, of) = match conversation.kind {
        Kind::Broadcast => world.copies_status(place, seq),
        _ => having(conversation, user, seq),
    };
    let by_name = |(user, has): (&User, &(bool, bool))| (NAMES[*user].to_owned(), *has);
    let there: BTreeMap<String, (bool, bool)> = there.iter().map(by_name).collect();
    let count = |which: fn(&(bool, bool)) -> bool| there.values().filter(|has| which(has)).count();
    let expected = json!([count(|has| has.0), count(|has| has.1), of]);
    let counted = json!([told["delivered"], told["read"], told["of"]]);
    assert_eq!(counted, expected, "status of {seq} of {cid}");
    let members: BTreeMap<String, (bool, bool)> = told["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| {
            let has = (member["delivered"] == true, member["read"] == true);
            (member["handle"].as_str().unwrap().to_owned(), has)
        })
        .collect();
    assert_eq!(members, there, "members in the status of {seq} of {cid}");
    reactions(client, world, user, (place, seq));
}

/// Who has a message, and who has read it; and of how many.
fn having(
    conversation: &Conversation,
    user: User,
    seq: u64,
) -> (BTreeMap<User, (bool, bool)>, usize) {
    let mut there = BTreeMap::new();
    for other in conversation.told_of().filter(|other| *other != user) {
        let member = &conversation.members[&other];
        if member.awaits(seq) {
            // What a block hid he never had, however far he got.
            let is_for_him = conversation.entry(seq).unwrap().kept_from != Some(other);
            let has = (
                is_for_him && member.marks.shown_delivered() >= seq,
                is_for_him && member.marks.read >= seq,
            );
            there.insert(other, has);
        }
    }
    let of = there.len();
    (there, of)
}

/// What waits for a moderator, for those who decide on it.
fn held(client: &mut Client, world: &World, user: User, place: Place) {
    let cid = &world.conversations[place].cid;
    let told = client.call("mod.held", &json!({"cid": cid}));
    let told = told.map(|page| {
        let one = |held: &Value| {
            let text = |field: &Value| field.as_str().unwrap().to_owned();
            let from = text(&held["from"]["handle"]);
            (from, text(&held["mid"]), text(&held["text"]))
        };
        let mut told: Vec<_> = page["held"].as_array().unwrap().iter().map(one).collect();
        told.sort();
        told
    });
    let expected = world.held_for(user, place).map(|held| {
        let named = |(from, id, text): (User, String, String)| (NAMES[from].to_owned(), id, text);
        let mut held: Vec<_> = held.into_iter().map(named).collect();
        held.sort();
        held
    });
    let expected = expected.map_err(str::to_owned);
    assert_eq!(told, expected, "held in {cid} for {}", NAMES[user]);
}

/// The cases of a desk, for those who answer there.
fn queue(client: &mut Client, world: &World, user: User, place: Place) {
    if !world.conversations[place].desk || !world.answers_at(user, place) {
        return;
    }
    for state in ["queued", "claimed", "closed"] {
        let ask = json!({"desk": world.conversations[place].cid, "state": state});
        let told = client.call("case.queue", &ask).unwrap();
        let told: BTreeMap<String, Value> = told["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|case| {
                (
                    case["cid"].as_str().unwrap().to_owned(),
                    case["agent"].clone(),
                )
            })
            .collect();
        let expected = world.queue(place, state).into_iter();
        let expected: BTreeMap<String, Value> = expected
            .map(|(cid, agent)| (cid, json!(agent.map(|agent| &world.uids[agent]))))
            .collect();
        assert_eq!(told, expected, "{state} for {}", NAMES[user]);
    }
}

/// What waits for its time.
pub(super) fn scheduled(client: &mut Client, world: &World, user: User) {
    let told = told_of_scheduled(client);
    assert_eq!(
        told,
        expected_scheduled(world, user),
        "what {} has scheduled",
        NAMES[user]
    );
}

/// What was due has been sent or refused, as it had to be.
pub(super) fn settled(client: &mut Client, world: &World, user: User) {
    let expected = expected_scheduled(world, user);
    eventually("what is due to be sent", || {
        (told_of_scheduled(client) == expected).then_some(())
    });
}

fn told_of_scheduled(client: &mut Client) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    let mut ask = json!({});
    loop {
        let page = client.call("msg.scheduled", &ask).unwrap();
        for one in page["scheduled"].as_array().unwrap() {
            let mid = one["mid"].as_str().unwrap().to_owned();
            told.insert(
                mid.clone(),
                json!([one["cid"], one["t"], one["error"]["code"]]),
            );
            ask = json!({"after": mid});
        }
        if page["more"] != true {
            return told;
        }
    }
}

fn expected_scheduled(world: &World, user: User) -> BTreeMap<String, Value> {
    let of_user = world.scheduled.iter().filter(|((by, _), _)| *by == user);
    let shown = |((_, id), one): (&(User, String), &super::rules::Scheduled)| {
        let cid = world.cid_of(user, one.to);
        (id.clone(), json!([cid, one.text, one.refused]))
    };
    of_user.map(shown).collect()
}

fn reactions(client: &mut Client, world: &World, user: User, (place, seq): (Place, u64)) {
    let conversation = &world.conversations[place];
    if conversation.entry(seq).unwrap().deleted {
        return;
    }
    let ask = json!({"cid": conversation.cid, "seq": seq});
    let told = client.call("msg.reactions", &ask).unwrap();
    let emoji = |one: &Value| -> BTreeSet<String> {
        let all = one["emoji"].as_array().unwrap().iter();
        all.map(|emoji| emoji.as_str().unwrap().to_owned())
            .collect()
    };
    let told: BTreeMap<String, BTreeSet<String>> = told["reactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["uid"].as_str().unwrap().to_owned(), emoji(one)))
        .collect();
    let expected: BTreeMap<String, BTreeSet<String>> = conversation
        .reactions(user, seq)
        .into_iter()
        .map(|(user, emoji)| (world.uids[user].clone(), emoji))
        .collect();
    assert_eq!(told, expected, "reactions to {seq} of {}", conversation.cid);
}
