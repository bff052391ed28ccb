//! Account sync: a device asks for what changed, or is told, and never needs everything again.

use std::collections::{BTreeMap, BTreeSet};

use broker::codec::packet::Qos;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

fn fast(server: super::harness::Launch) -> super::harness::Launch {
    server
        .dev()
        .variable("MQCHAT_CHAT__USER_MESSAGES_PER_S", "1000000")
        .variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "1000000")
        .variable("MQCHAT_CHAT__DEVICE_MESSAGES_PER_S", "1000000")
        .variable("MQCHAT_CHAT__DEVICE_MESSAGES_BURST", "1000000")
}

fn make_group(owner: &mut Client, title: &str) -> String {
    let request = json!({"title": title, "members": ["@bob"]});
    let group = owner.call("conv.create", &request).unwrap();
    group["cid"].as_str().unwrap().to_owned()
}

/// What is known of the chat list: conversation by id.
type Known = BTreeMap<String, Value>;

/// Asks for all pages from a version on, and returns the version up to which everything is known, and what changed.
fn sync(client: &mut Client, version: u64, limit: u64) -> (u64, Known) {
    let mut known = Known::new();
    let mut request = json!({"ver": version, "limit": limit});
    loop {
        let page = client.call("sync.changes", &request).unwrap();
        take(&mut known, &page);
        match page["next"].as_str() {
            Some(next) => {
                assert_eq!(page["ver"], Value::Null, "{page}");
                request = json!({"next": next, "limit": limit});
            }
            None => return (page["ver"].as_u64().unwrap(), known),
        }
    }
}

fn take(known: &mut Known, page: &Value) {
    for one in page["conversations"].as_array().unwrap() {
        known.insert(one["cid"].as_str().unwrap().to_owned(), one.clone());
    }
}

/// Takes events up to one that ends the story, and returns what they told and the badge.
fn told(client: &mut Client) -> (Known, u64) {
    let mut known = Known::new();
    loop {
        let event = client.next_on("chat/me/ev/account");
        let event: Value = serde_json::from_slice(&event.payload).unwrap();
        take(&mut known, &event);
        if event["next"].is_null() {
            assert!(event["ver"].is_u64(), "{event}");
            return (known, event["badge"].as_u64().unwrap());
        }
    }
}

#[test]
fn of_five_thousand_conversations_the_twenty_that_changed_are_sent() {
    const ALL: usize = 5_000;
    let server = Server::in_new_directory(|launch| {
        fast(launch).variable("MQCHAT_CHAT__USER_INVITATIONS_PER_MIN", "0")
    });
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    for batch in 0..ALL / 100 {
        for number in 0..100 {
            let topic = format!("chat/rpc/conv.create/{batch}-{number}");
            let request = json!({"title": format!("{batch}"), "members": ["@bob"]}).to_string();
            alice.send_publish(&topic, request, PublishProperties::default());
        }
        for _ in 0..100 {
            alice.next_answer().unwrap();
        }
    }
    bob.subscribe("chat/me/rpc/+");
    let (version, all) = sync(&mut bob, 0, 200);
    assert_eq!(all.len(), ALL);
    assert_eq!(sync(&mut bob, version, 200), (version, Known::new()));

    let changed: BTreeSet<String> = all.keys().step_by(ALL / 20).cloned().collect();
    assert_eq!(changed.len(), 20);
    for round in 0..3 {
        for cid in &changed {
            alice.publish(&format!("chat/to/{cid}"), format!("round {round}"));
        }
    }
    let (later, news) = sync(&mut bob, version, 7);
    assert_eq!(news.keys().cloned().collect::<BTreeSet<_>>(), changed);
    assert_eq!(later, version + 20, "once for each conversation");
    for one in news.values() {
        assert_eq!(
            (&one["conversation"]["unread"], &one["head"]),
            (&json!(3), &json!(4)),
            "{one}"
        );
        assert_eq!(one["last"]["t"], "round 2");
    }
    assert_eq!(sync(&mut bob, later, 200), (later, Known::new()));
}

#[test]
fn a_device_is_told_what_changed_while_it_was_away() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        Login::new("bob").connect(server.address()).disconnect();
        let groups: Vec<String> = (0..60)
            .map(|number| make_group(&mut alice, &number.to_string()))
            .collect();
        let phone = Login::new("bob").version(version).device("phone");
        let mut bob = phone.connect(server.address());
        bob.subscribe("chat/me/ev/account");
        let (known, badge) = told(&mut bob);
        assert_eq!((known.len(), badge), (groups.len(), 0));

        alice.publish(&format!("chat/to/{}", groups[7]), "hi");
        let (known, badge) = told(&mut bob);
        assert_eq!((known.len(), badge), (1, 1));
        assert_eq!(known[&groups[7]]["last"]["t"], "hi");
        bob.settle();
        bob.disconnect();

        for group in &groups[20..25] {
            alice.publish(&format!("chat/to/{group}"), "while you were away");
        }
        let mut bob = phone.connect(server.address());
        assert!(bob.session_present);
        let (known, badge) = told(&mut bob);
        let names: BTreeSet<&String> = known.keys().collect();
        assert_eq!(names, groups[20..25].iter().collect());
        assert_eq!(badge, 6);

        server.kill();
        server.restart();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        let mut bob = phone.connect(server.address());
        let (known, _) = told(&mut bob);
        assert!(known.len() <= 6, "not everything again: {}", known.len());
        alice.publish(&format!("chat/to/{}", groups[30]), "after the restart");
        let (known, badge) = told(&mut bob);
        assert_eq!((known.contains_key(&groups[30]), badge), (true, 7));
    }
}

#[test]
fn own_marks_and_decisions_reach_the_other_devices() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").device("laptop").connect(server.address());
    let cid = make_group(&mut alice, "Lunch");
    alice.publish(&format!("chat/to/{cid}"), "one");
    let mut phone = Login::new("bob").device("phone").connect(server.address());
    phone.subscribe("chat/me/ev/account");
    let (known, badge) = told(&mut phone);
    assert_eq!(
        (&known[&cid]["conversation"]["unread"], badge),
        (&json!(1), 1)
    );

    bob.publish(&format!("chat/c/{cid}/read"), "2");
    let (known, badge) = told(&mut phone);
    assert_eq!(
        (&known[&cid]["conversation"]["read"], badge),
        (&json!(2), 0)
    );

    bob.publish(&format!("chat/c/{cid}/unread"), "1");
    assert_eq!(
        told(&mut phone).0[&cid]["conversation"]["unread_flag"],
        true
    );

    let forever = (1_u64 << 48) - 1;
    let muted = bob.call(
        "conv.prefs",
        &json!({"cid": cid, "muted_until": u64::MAX, "pinned": true}),
    );
    assert_eq!(muted.unwrap()["muted_until"], forever);
    let (known, _) = told(&mut phone);
    assert_eq!(known[&cid]["conversation"]["muted_until"], forever);
    assert_eq!(
        (
            &known[&cid]["conversation"]["pinned"],
            &known[&cid]["conversation"]["archived"]
        ),
        (&json!(true), &json!(false))
    );
    alice.publish(&format!("chat/to/{cid}"), "two");
    let (known, badge) = told(&mut phone);
    assert_eq!(
        (&known[&cid]["conversation"]["unread"], badge),
        (&json!(1), 0),
        "muted: no badge"
    );
    assert_eq!(bob.call("me.get", &json!({})).unwrap()["unread"], 0);

    let strange = bob.call(
        "conv.prefs",
        &json!({"cid": "g.01jz0000000000000000000000", "pinned": true}),
    );
    assert_eq!(strange.unwrap_err(), "not_found");
}

#[test]
fn who_is_removed_is_told_so_and_then_nothing_more() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    let (left, other) = (
        make_group(&mut alice, "left"),
        make_group(&mut alice, "other"),
    );
    bob.subscribe("chat/me/ev/account");
    told(&mut bob);
    alice
        .call("conv.remove", &json!({"cid": left, "member": "@bob"}))
        .unwrap();
    let (known, _) = told(&mut bob);
    assert_eq!(known[&left], json!({"cid": left, "head": 2, "left": true}));
    alice.publish(&format!("chat/to/{left}"), "among ourselves");
    alice.publish(&format!("chat/to/{other}"), "for bob");
    let (known, _) = told(&mut bob);
    assert_eq!(known.keys().collect::<Vec<_>>(), [&other]);
    let call = bob.call("sync.changes", &json!({"ver": 1})).unwrap();
    assert!(!call.to_string().contains("among"), "{call}");
}

#[test]
fn an_event_that_waits_does_not_show_what_was_deleted_meanwhile() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob")
        .receive_maximum(1)
        .connect(server.address());
    let cid = make_group(&mut alice, "Lunch");
    bob.acks_by_itself = false;
    bob.subscribe("chat/me/ev/account");
    let first = bob.next_on("chat/me/ev/account");
    let sent = alice.publish(&format!("chat/to/{cid}"), "not for ever");
    // Another device sees that the event of it is due; that of this one waits for an ack.
    let mut other = Login::new("bob").device("other").connect(server.address());
    other.subscribe("chat/me/ev/account");
    told(&mut other);
    let deleted = alice.publish(&format!("chat/c/{cid}/m/{}/del", sent.seq()), "all");
    assert_eq!(deleted.reason, ReasonCode::Success);
    bob.ack(&first);
    bob.acks_by_itself = true;
    let (known, badge) = told(&mut bob);
    let told = known[&cid].to_string();
    assert!(!told.contains("not for ever"), "{told}");
    assert_eq!(badge, 0);
}

#[test]
fn what_one_hides_the_other_devices_are_told() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    let mut tablet = Login::new("bob").device("tablet").connect(server.address());
    let cid = make_group(&mut alice, "Lunch");
    let seqs: Vec<u64> = ["one", "two", "three"]
        .map(|text| alice.publish(&format!("chat/to/{cid}"), text).seq())
        .into();
    let (version, known) = sync(&mut tablet, 0, 100);
    assert_eq!(known[&cid]["hidden"], Value::Null);
    bob.subscribe("chat/me/ev/account");
    alice.subscribe("chat/me/ev/account");
    told(&mut bob);
    told(&mut alice);
    for seq in [seqs[2], seqs[0]] {
        let hidden = tablet.publish(&format!("chat/c/{cid}/m/{seq}/del"), "me");
        assert_eq!(hidden.reason, ReasonCode::Success);
    }
    // One that is there, perhaps by two events, and one that comes back.
    let both = json!([seqs[2], seqs[0]]);
    let mut known = told(&mut bob).0;
    while known[&cid]["hidden"] != both {
        known = told(&mut bob).0;
    }
    let (_, known) = sync(&mut tablet, version, 100);
    assert_eq!(known[&cid]["hidden"], both);
    // It is nobody else's business.
    let (_, known) = sync(&mut alice, 0, 100);
    assert_eq!(known[&cid]["hidden"], Value::Null);
}

#[test]
fn bad_requests_are_refused() {
    let server = Server::dev();
    let mut bob = Login::new("bob").connect(server.address());
    for request in [
        json!({"ver": 1, "next": "s1"}),
        json!({"next": "x1"}),
        json!({"next": "a1.g.nonsense"}),
        json!({"ver": -1}),
        json!({"ver": 1, "unknown": 1}),
    ] {
        let refused = bob.call("sync.changes", &request).unwrap_err();
        assert_eq!(refused, "format", "{request}");
    }
    let (version, known) = sync(&mut bob, u64::MAX, 100);
    assert_eq!(
        (version, known.len()),
        (1, 0),
        "a version from elsewhere begins anew"
    );
    let refused = bob.try_subscribe("chat/me/ev/other", Qos::AtLeastOnce);
    assert_eq!(refused, ReasonCode::NotAuthorized);
}
