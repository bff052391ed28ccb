//! Edges that reviews found open once, each a story of its own.

use broker::codec::packet::{Packet, PacketId, Publish, Qos, Unsubscribe};
use broker::codec::properties::{PublishProperties, SubscribeProperties};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, Stopwatch};

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

#[test]
fn receipts_that_were_cut_off_are_told_again() {
    const GROUPS: usize = 12;
    let server = Server::dev();
    let phone = Login::new("alice").device("phone").receive_maximum(1);
    let mut alice = phone.connect(server.address());
    alice.subscribe("chat/me/rcpt/+");
    let mut bob = Login::new("bob").connect(server.address());
    let groups: Vec<String> = (0..GROUPS)
        .map(|_| {
            let group = alice
                .call("conv.create", &json!({"members": ["@bob"]}))
                .unwrap();
            group["cid"].as_str().unwrap().to_owned()
        })
        .collect();
    for cid in &groups {
        alice.publish(&format!("chat/to/{cid}"), "read me");
    }
    alice.disconnect();
    for cid in &groups {
        bob.publish(&format!("chat/c/{cid}/read"), "2");
    }
    // Again and again the connection ends before the first receipt is acknowledged.
    for _ in 0..5 {
        let mut alice = phone.connect(server.address());
        alice.acks_by_itself = false;
        alice.next_message();
    }
    let mut alice = phone.connect(server.address());
    let mut told = std::collections::BTreeSet::new();
    while told.len() < GROUPS {
        let event = alice.next_json();
        if event["read_all"] == 2 {
            told.insert(event["cid"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(told, groups.into_iter().collect());
}

#[test]
fn what_a_device_sends_right_after_its_suback_comes_back_to_it() {
    let server = Server::dev();
    for number in 0..20 {
        let mut alice = Login::new("alice")
            .device(&format!("phone-{number}"))
            .connect(server.address());
        alice.subscribe("chat/me/in/+");
        let text = format!("note {number}");
        alice.publish("chat/to/me", &text);
        assert_eq!(texts(&mut alice, 1), [text]);
    }
}

#[test]
fn a_log_subscribed_twice_at_once_keeps_the_later_position() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let cid = cid_of(&alice.publish("chat/to/me", "one"));
    let bot = Login::new("alice").device("bot");
    let log = format!("chat/c/{cid}/log/from/1");
    let mut reading = bot.connect(server.address());
    // Both are made in the same millisecond; what the second takes over from the first is not its position.
    let twice = [(log.as_str(), Qos::AtLeastOnce, false); 2];
    assert_eq!(reading.subscribe_all(&twice), [ReasonCode::GrantedQos1; 2]);
    alice.publish("chat/to/me", "two");
    while text_of(&reading.next_message()) != "two" {}
    reading.settle();
    reading.disconnect();
    alice.publish("chat/to/me", "three");
    let mut reading = bot.connect(server.address());
    assert_eq!(texts(&mut reading, 1), ["three"]);
}

#[test]
fn a_client_with_a_small_maximum_packet_size_gets_pages_that_fit() {
    let server = Server::dev();
    let small = Login::new("alice").maximum_packet_size(4_096);
    let mut alice = small.connect(server.address());
    for _ in 0..30 {
        alice.publish("chat/to/me", "x".repeat(400));
    }
    let cid = cid_of(&alice.publish("chat/to/me", "last"));
    let mut seen = 0;
    while seen < 31 {
        let page = json!({"cid": cid, "after": seen, "limit": 100});
        let page = alice.call("msg.history", &page).unwrap();
        let entries = page["entries"].as_array().unwrap();
        assert!(!entries.is_empty());
        for entry in entries {
            seen += 1;
            assert_eq!(entry["seq"], seen);
        }
        assert_eq!(page["more"], seen < 31);
    }
}

/// A group with more members than those for whom each mark is noted one by one, of which alice is the sender.
fn big_group(server: &Server, alice: &mut Client) -> (String, Vec<String>) {
    let names: Vec<String> = (1..=20).map(|number| format!("m{number}")).collect();
    let members: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
    for name in &names {
        Login::new(name).connect(server.address()).disconnect();
    }
    let group = alice.call("conv.create", &json!({"members": members}));
    (group.unwrap()["cid"].as_str().unwrap().to_owned(), names)
}

#[test]
fn every_slow_reader_of_a_big_group_is_told_when_nothing_is_in_memory() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let (cid, names) = big_group(&server, &mut alice);
    for number in 0..100 {
        alice.publish(&format!("chat/to/{cid}"), number.to_string());
    }
    server.restart();
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/rcpt/+");
    let mut expected = serde_json::Map::new();
    for (number, name) in names.iter().enumerate() {
        let mut reader = Login::new(name).connect(server.address());
        let read = 2 + 5 * number; // each at another place
        reader.publish(&format!("chat/c/{cid}/read"), read.to_string());
        let uid = reader.call("me.get", &json!({})).unwrap()["uid"].clone();
        expected.insert(uid.as_str().unwrap().to_owned(), json!(read));
    }
    let mut told = serde_json::Map::new();
    while told != expected {
        for one in alice.next_json()["moves"].as_array().unwrap() {
            told.insert(one["u"].as_str().unwrap().to_owned(), one["r"].clone());
        }
    }
}

#[test]
fn a_receipt_in_a_big_group_survives_a_kill_right_after_the_mark() {
    let mut server = Server::dev();
    let phone = Login::new("alice").device("phone");
    let mut alice = phone.connect(server.address());
    alice.subscribe("chat/me/rcpt/+");
    let (cid, names) = big_group(&server, &mut alice);
    alice.publish(&format!("chat/to/{cid}"), "read me");
    alice.settle();
    alice.disconnect();
    let mut reader = Login::new(&names[0]).connect(server.address());
    reader.publish(&format!("chat/c/{cid}/read"), "2");
    server.kill();
    server.restart();
    let mut alice = phone.connect(server.address());
    let event = alice.next_json();
    assert_eq!(event["cid"], cid.as_str());
    assert_eq!(event["moves"][0]["r"], 2);
}

/// The filter of UNSUBSCRIBE, without waiting for UNSUBACK.
fn unsubscribe(client: &mut Client, filter: &str) {
    client.send(&Packet::Unsubscribe(Unsubscribe {
        packet_id: PacketId::new(60_000).unwrap(),
        properties: SubscribeProperties::default(),
        filters: vec![TopicFilter::parse(filter.into()).unwrap()],
    }));
}

#[test]
fn a_receipt_comes_whatever_else_changes_in_the_group_meanwhile() {
    let server = Server::in_new_directory(|launch| {
        // Twelve rounds of receipts, each soon.
        launch
            .dev()
            .variable("MQCHAT_CHAT__RECEIPT_INTERVAL_MAX_MS", "250")
    });
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    let mut carol = Login::new("carol").connect(server.address());
    alice.subscribe("chat/me/rcpt/+");
    let group = alice.call("conv.create", &json!({"members": ["@bob", "@carol"]}));
    let cid = group.unwrap()["cid"].as_str().unwrap().to_owned();
    let admin = json!({"cid": cid, "member": "@carol", "role": "admin"});
    alice.call("conv.role", &admin).unwrap();
    carol.subscribe("chat/me/rpc/+");
    for round in 0..12 {
        let seq = alice.publish(&format!("chat/to/{cid}"), "read me").seq();
        // Both on their way at once.
        let settings = json!({"cid": cid, "title": format!("title {round}")}).to_string();
        let none = PublishProperties::default();
        let topic = format!("chat/rpc/conv.settings/r{round}");
        carol.send_publish(&topic, settings, none);
        bob.publish(&format!("chat/c/{cid}/read"), seq.to_string());
        carol.next_answer().unwrap();
        while alice.next_json()["moves"][0]["r"] != seq {}
    }
}

#[test]
fn many_may_leave_a_group_at_once() {
    const LEAVING: usize = 30;
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut clients: Vec<Client> = (0..LEAVING)
        .map(|number| Login::new(&format!("m{number}")).connect(server.address()))
        .collect();
    let members: Vec<String> = (0..LEAVING).map(|number| format!("@m{number}")).collect();
    let group = alice.call("conv.create", &json!({"members": members}));
    let cid = group.unwrap()["cid"].clone();
    for client in &mut clients {
        let none = PublishProperties::default();
        let leave = json!({"cid": cid}).to_string();
        client.send_publish("chat/rpc/conv.leave/bye", leave, none);
    }
    for client in &mut clients {
        assert_eq!(client.next_answer().unwrap().reason, ReasonCode::Success);
    }
    let group = alice.call("conv.get", &json!({"cid": cid})).unwrap();
    assert_eq!(group["members"].as_array().unwrap().len(), 1, "{group}");
}

#[test]
fn who_left_learns_nothing_by_asking_for_changes() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    Login::new("dave").connect(server.address()).disconnect();
    let group = alice.call("conv.create", &json!({"members": ["@bob"]}));
    let cid = group.unwrap()["cid"].clone();
    let out = json!({"cid": cid, "member": "@bob"});
    alice.call("conv.remove", &out).unwrap();
    for dave_is_in in [false, true] {
        if dave_is_in {
            let add = json!({"cid": cid, "members": ["@dave"]});
            alice.call("conv.add", &add).unwrap();
        }
        let dave = json!({"cid": cid, "member": "@dave"});
        let role = json!({"cid": cid, "member": "@dave", "role": "admin"});
        let title = json!({"cid": cid, "title": "mine"});
        let add = json!({"cid": cid, "members": ["@dave"]});
        for (method, request) in [
            ("conv.role", &role),
            ("conv.remove", &dave),
            ("conv.add", &add),
            ("conv.settings", &title),
            ("conv.leave", &json!({"cid": cid})),
        ] {
            let answer = bob.call(method, request).unwrap_err();
            assert_eq!(answer, "not_found", "{method}, dave is in: {dave_is_in}");
        }
    }
}

#[test]
fn acks_that_come_after_unsubscribe_count() {
    let server = Server::dev();
    let mut bob = Login::new("bob").device("phone").connect(server.address());
    bob.subscribe("chat/me/in/+");
    bob.acks_by_itself = false;
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/rcpt/+");
    for number in 1..=3 {
        alice.publish("chat/to/@bob", number.to_string());
    }
    let messages: Vec<Publish> = (0..3).map(|_| bob.next_message()).collect();
    unsubscribe(&mut bob, "chat/me/in/+");
    for message in &messages {
        bob.ack(message);
    }
    while alice.next_json()["delivered_all"] != 3 {}
    bob.subscribe("chat/me/in/+");
    alice.publish("chat/to/@bob", "4");
    assert_eq!(texts(&mut bob, 1), ["4"], "nothing that was acked again");
}

#[test]
fn an_exchange_of_a_session_without_subscriptions_survives_a_crash() {
    for version in super::harness::VERSIONS {
        let mut server = Server::dev();
        let phone = Login::new("alice").version(version).device("phone");
        let mut alice = phone.connect(server.address());
        alice.begin_qos2(9, false, "chat/to/me", "once");
        server.restart();
        let mut alice = phone.connect(server.address());
        assert!(alice.session_present, "{version:?}");
        alice.begin_qos2(9, true, "chat/to/me", "once");
        alice.end_qos2(9);
        let next = Login::new("alice").connect(server.address());
        let mut next = next;
        assert_eq!(next.publish("chat/to/me", "twice").seq(), 2, "{version:?}");
    }
}

#[test]
fn receipts_fit_a_small_maximum_packet_size() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let small = Login::new("alice").maximum_packet_size(1_024);
    let mut small = small.connect(server.address());
    small.subscribe("chat/me/rcpt/+");
    let mut bob = Login::new("bob").connect(server.address());
    let group = alice.call("conv.create", &json!({"members": ["@bob"]}));
    let cid = group.unwrap()["cid"].as_str().unwrap().to_owned();
    for number in 1..=60 {
        alice.publish(&format!("chat/to/{cid}"), number.to_string());
    }
    bob.publish(&format!("chat/c/{cid}/read"), "61");
    let event = small.next_json();
    assert_eq!(event["read_all"], 61);
    let counts = event["counts"].as_array().unwrap();
    assert_eq!(counts.last().unwrap()["seq"], 61, "the newest are kept");
}

#[test]
fn what_goes_out_again_has_its_subscription_identifier() {
    let server = Server::dev();
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.acks_by_itself = false;
    bob.subscribe_identified("chat/me/in/+", 7);
    let mut alice = Login::new("alice").connect(server.address());
    alice.publish("chat/to/@bob", "hello");
    let first = bob.next_message();
    assert_eq!(first.properties.subscription_identifiers, [7]);
    drop(bob);
    let mut bob = phone.connect(server.address());
    let again = bob.next_message();
    assert_eq!((again.dup, again.packet_id), (true, first.packet_id));
    assert_eq!(again.properties.subscription_identifiers, [7]);
}

#[test]
fn a_log_from_a_place_to_come_begins_there() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let cid = cid_of(&alice.publish("chat/to/me", "1"));
    alice.subscribe(&format!("chat/c/{cid}/log/from/4"));
    for number in 2..=4 {
        alice.publish("chat/to/me", number.to_string());
    }
    assert_eq!(texts(&mut alice, 1), ["4"]);
}

/// A server, bob's phone that has subscribed and gone, and alice.
fn bob_is_away(filter: &str) -> (Server, Login, Client) {
    let server = Server::dev();
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe(filter);
    bob.disconnect();
    let alice = Login::new("alice").connect(server.address());
    (server, phone, alice)
}

/// Makes groups with bob, each with so many messages: "0", "1", "2" …
fn leave_backlogs(alice: &mut Client, groups: usize, messages: usize) {
    for _ in 0..groups {
        let group = alice.call("conv.create", &json!({"members": ["@bob"]}));
        let cid = group.unwrap()["cid"].as_str().unwrap().to_owned();
        let numbers: Vec<usize> = (0..messages).collect();
        for batch in numbers.chunks(250) {
            for number in batch {
                let none = PublishProperties::default();
                alice.send_publish(&format!("chat/to/{cid}"), number.to_string(), none);
            }
            for _ in batch {
                assert_eq!(alice.next_answer().unwrap().reason, ReasonCode::Success);
            }
        }
    }
}

#[test]
fn who_is_behind_everywhere_gets_everything_in_order() {
    const GROUPS: usize = 12;
    const MESSAGES: usize = 100;
    let (mut server, phone, mut alice) = bob_is_away("chat/me/in/+");
    leave_backlogs(&mut alice, GROUPS, MESSAGES);
    server.restart();
    let mut bob = phone.receive_maximum(3).connect(server.address());
    let mut next = std::collections::HashMap::new();
    for _ in 0..GROUPS * (MESSAGES + 1) {
        let entry = bob.next_json();
        let cid = entry["cid"].as_str().unwrap().to_owned();
        let expected = next.entry(cid).or_insert(1);
        assert_eq!(entry["seq"], *expected, "{entry}");
        *expected += 1;
    }
    assert_eq!(next.len(), GROUPS);
}

#[test]
fn a_session_that_is_over_takes_its_exchanges_with_it() {
    for version in super::harness::VERSIONS {
        let server = Server::dev();
        let kept = Login::new("alice").version(version).device("pub");
        let mut alice = kept.connect(server.address());
        alice.begin_qos2(1, false, "chat/to/me", "same");
        drop(alice);
        let clean = Login::new("alice").version(version).client_id("pub");
        clean.connect(server.address()).disconnect();
        let mut alice = kept.connect(server.address());
        assert!(!alice.session_present, "{version:?}");
        alice.begin_qos2(1, false, "chat/to/me", "same");
        alice.end_qos2(1);
        let mut other = Login::new("alice").connect(server.address());
        assert_eq!(other.publish("chat/to/me", "third").seq(), 3, "{version:?}");
    }
}

#[test]
fn another_message_under_a_packet_id_in_use_is_not_taken_for_a_repeat() {
    let mut server = Server::dev();
    let phone = Login::new("alice").device("phone");
    let mut alice = phone.connect(server.address());
    alice.subscribe("chat/me/txt/+");
    alice.begin_qos2(1, false, "chat/to/me", "one");
    server.restart();
    let mut alice = phone.connect(server.address());
    let answer = alice.begin_qos2(1, false, "chat/to/me", "two");
    assert_eq!((answer.seq(), answer.is_duplicate()), (2, false));
}

#[test]
fn a_publish_that_was_stored_is_told_so_though_its_sender_was_removed_meanwhile() {
    let mut server = Server::dev();
    let mut bob = Login::new("bob").connect(server.address());
    let phone = Login::new("alice").device("phone");
    let mut alice = phone.connect(server.address());
    alice.subscribe("chat/me/in/+");
    let group = bob.call("conv.create", &json!({"members": ["@alice"]}));
    let cid = group.unwrap()["cid"].as_str().unwrap().to_owned();
    let to = format!("chat/to/{cid}");
    let first = alice.begin_qos2(1, false, &to, "stored");
    server.restart();
    let mut bob = Login::new("bob").connect(server.address());
    let out = json!({"cid": cid, "member": "@alice"});
    bob.call("conv.remove", &out).unwrap();
    let mut alice = phone.connect(server.address());
    let again = alice.begin_qos2(1, true, &to, "stored");
    assert_eq!(again.reason, ReasonCode::Success);
    assert_eq!((again.seq(), again.is_duplicate()), (first.seq(), true));
    alice.end_qos2(1);
    let direct = alice.begin_qos2(1, false, "chat/to/@bob", "stored");
    assert_eq!((direct.seq(), direct.is_duplicate()), (1, false));
}

#[test]
fn thousands_of_receipt_filters_are_one_look_up() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    for _ in 0..100 {
        let group = alice.call("conv.create", &json!({"members": ["@bob"]}));
        let cid = group.unwrap()["cid"].as_str().unwrap().to_owned();
        alice.publish(&format!("chat/to/{cid}"), "read me");
        bob.publish(&format!("chat/c/{cid}/read"), "2");
    }
    let again = vec![("chat/me/rcpt/+", Qos::AtLeastOnce, false); 5_000];
    let mut flood = Login::new("alice").connect(server.address());
    assert_eq!(flood.subscribe_all(&again).len(), 5_000);
    drop(flood);
    // Others are let in, and the server stops, without waiting for thousands of look-ups.
    let mut carol = Login::new("carol").connect(server.address());
    carol.publish("chat/to/me", "still served");
    let watch = Stopwatch::start();
    server.terminate();
    assert!(server.wait_for_exit().success());
    assert!(watch.elapsed().as_secs() < 20, "{:?}", watch.elapsed());
}

#[test]
fn a_form_that_is_added_while_five_conversations_catch_up_stops_nothing() {
    const GROUPS: usize = 5;
    const MESSAGES: usize = 150;
    let (mut server, phone, mut alice) = bob_is_away("chat/me/in/+");
    leave_backlogs(&mut alice, GROUPS, MESSAGES);
    server.restart();
    let mut bob = phone.connect(server.address());
    let mut entries = 0;
    for _ in 0..100 {
        bob.next_message();
        entries += 1;
    }
    bob.subscribe("chat/me/txt/+");
    let mut last = std::collections::HashSet::new();
    while entries < GROUPS * (MESSAGES + 1) || last.len() < GROUPS {
        let message = bob.next_message();
        if message.topic.starts_with("chat/me/in/") {
            entries += 1;
        } else if message
            .payload
            .ends_with(format!(": {}", MESSAGES - 1).as_bytes())
        {
            last.insert(message.topic.to_string());
        }
    }
}

#[test]
fn a_direct_message_does_not_wait_for_four_long_backlogs() {
    const MESSAGES: usize = 1_000;
    let (mut server, phone, mut alice) = bob_is_away("chat/me/txt/+");
    alice.publish("chat/to/@bob", "urgent");
    leave_backlogs(&mut alice, 4, MESSAGES);
    server.restart();
    let mut bob = phone.receive_maximum(32).connect(server.address());
    let before = (0..).take_while(|_| &bob.next_message().payload[..] != b"alice: urgent");
    let before = before.count();
    assert!(before < 1_000, "{before} of 4,000 messages came first");
}

#[test]
fn the_same_words_to_somebody_else_are_another_message() {
    let mut server = Server::dev();
    Login::new("bob").connect(server.address()).disconnect();
    Login::new("carol").connect(server.address()).disconnect();
    let phone = Login::new("alice").device("phone");
    let mut alice = phone.connect(server.address());
    alice.subscribe("chat/me/err/+");
    let bobs = cid_of(&alice.begin_qos2(1, false, "chat/to/@bob", "ok"));
    server.restart();
    let mut alice = phone.connect(server.address());
    let answer = alice.begin_qos2(1, true, "chat/to/@carol", "ok");
    assert_ne!(cid_of(&answer), bobs);
    assert_eq!((answer.seq(), answer.is_duplicate()), (1, false));
}
