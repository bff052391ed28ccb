//! Edges that reviews found open once, each a story of its own.

use broker::codec::packet::{Publish, Qos};
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server};

fn text_of(message: &Publish) -> String {
    let entry: Value = serde_json::from_slice(&message.payload).unwrap();
    entry["t"].as_str().unwrap_or_default().to_owned()
}

fn texts(client: &mut Client, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| text_of(&client.next_message()))
        .collect()
}

fn cid_of(answer: &super::harness::Answer) -> String {
    answer.get("cid").unwrap().to_owned()
}

#[test]
fn a_second_filter_does_not_repeat_what_was_delivered() {
    let server = Server::dev();
    let mut bob = Login::new("bob").connect(server.address());
    bob.subscribe("chat/me/in/+");
    let mut alice = Login::new("alice").connect(server.address());
    for number in 1..=3 {
        alice.publish("chat/to/@bob", number.to_string());
    }
    assert_eq!(texts(&mut bob, 3), ["1", "2", "3"]);
    bob.settle();
    bob.subscribe("chat/me/txt/+");
    let cid = cid_of(&alice.publish("chat/to/@bob", "4"));
    let in_topic = format!("chat/me/in/{cid}");
    let line = bob.next_on(&format!("chat/me/txt/{cid}"));
    assert_eq!(&line.payload[..], b"alice: 4", "not 1 to 3 again");
    assert_eq!(text_of(&bob.next_on(&in_topic)), "4");
}

#[test]
fn a_resumed_log_goes_on_where_it_was_subscribed() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let cid = cid_of(&alice.publish("chat/to/@alice", "before"));
    let bot = Login::new("alice").device("bot");
    let mut reading = bot.connect(server.address());
    reading.subscribe(&format!("chat/c/{cid}/log"));
    reading.disconnect();
    alice.publish("chat/to/me", "meanwhile");
    server.restart();
    let mut reading = bot.connect(server.address());
    assert!(reading.session_present);
    assert_eq!(texts(&mut reading, 1), ["meanwhile"]);
}

#[test]
fn an_exchange_ends_with_its_session() {
    let server = Server::dev();
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe("chat/me/in/+");
    assert!(
        !bob.begin_qos2(7, false, "chat/to/@bob", "one")
            .is_duplicate()
    );
    drop(bob);
    // A clean start under the same client id: the client has forgotten the exchange.
    let clean = Login::new("bob").client_id("phone");
    clean.connect(server.address()).disconnect();
    let mut bob = phone.connect(server.address());
    assert!(!bob.session_present);
    let answer = bob.begin_qos2(7, false, "chat/to/@bob", "two");
    assert_eq!(answer.reason, ReasonCode::Success);
    assert!(
        !answer.is_duplicate(),
        "another message under the same packet id"
    );
    assert_eq!(answer.seq(), 2);
    bob.end_qos2(7);
}

#[test]
fn who_comes_back_to_a_group_is_not_stuck_at_the_gap() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe("chat/me/txt/+");
    let group = json!({"title": "g", "members": ["@bob"]});
    let group = alice.call("conv.create", &group).unwrap();
    let cid = group["cid"].as_str().unwrap().to_owned();
    let to = format!("chat/to/{cid}");
    alice.publish(&to, "before");
    assert_eq!(&bob.next_message().payload[..], b"alice: before");
    bob.settle();
    bob.disconnect();
    let member = json!({"cid": cid, "member": "@bob"});
    alice.call("conv.remove", &member).unwrap();
    for _ in 0..10 {
        alice.publish(&to, "behind his back");
    }
    alice
        .call("conv.add", &json!({"cid": cid, "members": ["@bob"]}))
        .unwrap();
    alice.publish(&to, "welcome back");
    let mut bob = phone.connect(server.address());
    assert_eq!(&bob.next_message().payload[..], b"alice: welcome back");
}

#[test]
fn a_removed_member_gets_no_receipts() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut mallory = Login::new("mallory").connect(server.address());
    mallory.subscribe("chat/me/rcpt/+");
    let mut bob = Login::new("bob").connect(server.address());
    let group = json!({"members": ["@bob", "@mallory"]});
    let group = alice.call("conv.create", &group).unwrap();
    let cid = group["cid"].as_str().unwrap().to_owned();
    mallory.publish(&format!("chat/to/{cid}"), "mine");
    alice
        .call("conv.remove", &json!({"cid": cid, "member": "@mallory"}))
        .unwrap();
    mallory.publish("chat/to/@bob", "also mine");
    bob.publish(&format!("chat/c/{cid}/read"), "2");
    let direct = mallory
        .call(
            "conv.create",
            &json!({"kind": "direct", "members": ["@bob"]}),
        )
        .unwrap();
    let direct = direct["cid"].as_str().unwrap().to_owned();
    bob.publish(&format!("chat/c/{direct}/read"), "1");
    let first = mallory.next_json();
    assert_eq!(
        first["cid"],
        direct.as_str(),
        "nothing of the group: {first}"
    );
    let refused = mallory.try_subscribe(&format!("chat/me/rcpt/{cid}"), Qos::AtLeastOnce);
    assert_eq!(refused, ReasonCode::NotAuthorized);
}

#[test]
fn receipts_are_exact_when_the_messages_are_not_in_memory() {
    let mut server = Server::dev();
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe("chat/me/in/+");
    let mut alice = Login::new("alice").connect(server.address());
    let mut cid = String::new();
    for number in 1..=100 {
        cid = cid_of(&alice.publish("chat/to/@bob", number.to_string()));
    }
    texts(&mut bob, 100);
    bob.settle();
    server.restart();
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/rcpt/+");
    let mut bob = phone.connect(server.address());
    bob.publish(&format!("chat/c/{cid}/recv"), "100");
    bob.publish(&format!("chat/c/{cid}/read"), "50");
    loop {
        let event = alice.next_json();
        assert!(event["read_all"].as_u64().unwrap() <= 50);
        if event["read_all"] == 50 {
            return;
        }
    }
}

#[test]
fn a_receipt_survives_a_kill_right_after_the_mark() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let cid = cid_of(&alice.publish("chat/to/@alice", "to make alice"));
    let mut bob = Login::new("bob").connect(server.address());
    bob.publish("chat/to/@alice", "from bob");
    let direct = alice
        .call(
            "conv.create",
            &json!({"kind": "direct", "members": ["@bob"]}),
        )
        .unwrap();
    let direct = direct["cid"].as_str().unwrap().to_owned();
    assert_ne!(cid, direct);
    alice.publish(&format!("chat/c/{direct}/read"), "1");
    server.kill();
    server.restart();
    let mut bob = Login::new("bob").connect(server.address());
    bob.subscribe("chat/me/rcpt/+");
    let event = bob.next_json();
    assert_eq!(
        (&event["cid"], &event["read_all"]),
        (&json!(direct), &json!(1))
    );
}

#[test]
fn the_last_owner_cannot_hand_over_to_himself() {
    let server = Server::dev();
    Login::new("bob").connect(server.address()).disconnect();
    let mut alice = Login::new("alice").connect(server.address());
    let group = alice
        .call("conv.create", &json!({"members": ["@bob"]}))
        .unwrap();
    let leave = json!({"cid": group["cid"], "owner": "me"});
    assert_eq!(alice.call("conv.leave", &leave).unwrap_err(), "last_owner");
}

#[test]
fn the_same_request_id_for_another_request_is_a_conflict() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/rpc/+");
    let one = alice
        .call_as("r1", "conv.create", &json!({"title": "one"}))
        .unwrap();
    let again = alice
        .call_as("r1", "conv.create", &json!({"title": "one"}))
        .unwrap();
    assert_eq!(one["cid"], again["cid"]);
    let other = alice.call_as("r1", "conv.create", &json!({"title": "two"}));
    assert_eq!(other.unwrap_err(), "idempotency_conflict");
}
