//! Cursors: every device gets everything from where it was, in order, once, unless the connection was lost.

use broker::codec::packet::{Publish, Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, Stopwatch, VERSIONS};

fn send_numbers(client: &mut Client, to: &str, numbers: std::ops::RangeInclusive<u32>) {
    let count = numbers.clone().count();
    for number in numbers {
        client.send_publish(to, number.to_string(), PublishProperties::default());
    }
    for _ in 0..count {
        let answer = client.next_answer().unwrap();
        assert_eq!(answer.reason, ReasonCode::Success, "{answer:?}");
    }
}

fn text_of(message: &Publish) -> String {
    let entry: Value = serde_json::from_slice(&message.payload).unwrap();
    entry["t"].as_str().unwrap().to_owned()
}

/// Reads `count` messages and returns packet id, DUP and text of each.
fn read(client: &mut Client, count: usize) -> Vec<(u16, bool, String)> {
    (0..count)
        .map(|_| {
            let message = client.next_message();
            (
                message.packet_id.unwrap().get(),
                message.dup,
                text_of(&message),
            )
        })
        .collect()
}

#[test]
fn resumed_session_gets_unacked_messages_first_with_dup_and_the_same_ids() {
    for version in VERSIONS {
        let server = Server::dev();
        let phone = Login::new("bob").version(version).device("phone");
        let mut bob = phone.connect(server.address());
        assert!(!bob.session_present);
        bob.subscribe("chat/me/in/+");
        bob.acks_by_itself = false;
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        send_numbers(&mut alice, "chat/to/@bob", 1..=5);
        let first = read(&mut bob, 5);
        assert!(first.iter().all(|(_, dup, _)| !dup));
        drop(bob);
        send_numbers(&mut alice, "chat/to/@bob", 6..=7);

        let mut bob = phone.connect(server.address());
        assert!(bob.session_present);
        let again = read(&mut bob, 7);
        for (before, now) in first.iter().zip(&again) {
            assert_eq!((before.0, true, &before.2), (now.0, now.1, &now.2));
        }
        let fresh: Vec<_> = again[5..]
            .iter()
            .map(|(_, dup, text)| (*dup, text.as_str()))
            .collect();
        assert_eq!(fresh, [(false, "6"), (false, "7")]);
    }
}

#[test]
fn unacked_messages_keep_their_ids_over_a_stop_of_the_server() {
    let mut server = Server::dev();
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe("chat/me/in/+");
    bob.acks_by_itself = false;
    let mut alice = Login::new("alice").connect(server.address());
    send_numbers(&mut alice, "chat/to/@bob", 1..=3);
    let first = read(&mut bob, 3);
    server.terminate();
    server.wait_for_exit();
    server.restart();
    let mut bob = phone.connect(server.address());
    assert!(
        bob.session_present,
        "sessions of devices outlive the process"
    );
    for (before, now) in first.iter().zip(read(&mut bob, 3)) {
        assert_eq!((before.0, true, &before.2), (now.0, now.1, &now.2));
    }
}

#[test]
fn device_goes_on_at_its_cursor_after_a_kill() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let phone = Login::new("bob").version(version).device("phone");
        let mut bob = phone.connect(server.address());
        bob.subscribe("chat/me/in/+");
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        send_numbers(&mut alice, "chat/to/@bob", 1..=10);
        read(&mut bob, 10);
        server.restart();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        let mut bob = phone.connect(server.address());
        assert!(bob.session_present, "subscriptions are durable");
        send_numbers(&mut alice, "chat/to/@bob", 11..=20);
        let mut texts: Vec<u32> = Vec::new();
        while texts.last() != Some(&20) {
            texts.push(text_of(&bob.next_message()).parse().unwrap());
        }
        let first = texts[0];
        assert!(first <= 11, "lost {first}..11");
        assert_eq!(texts, (first..=20).collect::<Vec<_>>());
    }
}

#[test]
fn receive_maximum_bounds_what_is_in_flight() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob")
        .receive_maximum(2)
        .connect(server.address());
    bob.subscribe("chat/me/in/+");
    bob.acks_by_itself = false;
    send_numbers(&mut alice, "chat/to/@bob", 1..=6);
    let (one, two) = (bob.next_message(), bob.next_message());
    assert_eq!((text_of(&one), text_of(&two)), ("1".into(), "2".into()));
    bob.settle();
    // A third one would be here by now: it was stored before the ping was sent.
    bob.ack(&two);
    bob.ack(&one);
    let texts: Vec<_> = (0..2).map(|_| text_of(&bob.next_message())).collect();
    assert_eq!(texts, ["3", "4"]);
}

#[test]
fn new_device_begins_at_the_read_mark_and_own_devices_get_copies() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user| Login::new(user).version(version);
        let mut alice = login("alice").connect(server.address());
        let mut bob = login("bob").connect(server.address());
        send_numbers(&mut alice, "chat/to/@bob", 1..=5);
        let cid = bob.call("conv.list", &json!({})).unwrap()["conversations"][0]["cid"].clone();
        let cid = cid.as_str().unwrap();
        assert_eq!(
            bob.publish(&format!("chat/c/{cid}/read"), "3").reason,
            ReasonCode::Success
        );

        let mut tablet = login("bob").device("tablet").connect(server.address());
        tablet.subscribe("chat/me/in/+");
        assert_eq!(text_of(&tablet.next_message()), "4");
        assert_eq!(text_of(&tablet.next_message()), "5");

        let mut other = login("alice").connect(server.address());
        other.subscribe("chat/me/in/+");
        other.settle();
        alice.publish("chat/to/@bob", "to all");
        assert_eq!(
            text_of(&other.next_message()),
            "to all",
            "own other devices"
        );
        assert_eq!(text_of(&tablet.next_message()), "to all");
    }
}

#[test]
fn no_local_spares_the_sending_connection_only() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe_with("chat/me/in/+", Qos::AtLeastOnce, true);
    let mut tablet = Login::new("alice").connect(server.address());
    tablet.subscribe("chat/me/in/+");
    Login::new("bob").connect(server.address()).disconnect();
    alice.publish("chat/to/@bob", "mine");
    assert_eq!(text_of(&tablet.next_message()), "mine");
    tablet.publish("chat/to/@bob", "from the tablet");
    assert_eq!(text_of(&alice.next_message()), "from the tablet");
}

#[test]
fn forms_give_one_copy_each_and_overlapping_filters_one() {
    let server = Server::dev();
    let mut bob = Login::new("bob").connect(server.address());
    let mut alice = Login::new("alice").connect(server.address());
    let place = alice.publish("chat/to/@bob", "first");
    let cid = place.get("cid").unwrap().to_owned();
    bob.publish(&format!("chat/c/{cid}/read"), "1");
    bob.subscribe("chat/me/in/+");
    bob.subscribe(&format!("chat/me/in/{cid}"));
    bob.subscribe("chat/me/txt/+");
    alice.publish("chat/to/@bob", "second");
    alice.publish("chat/to/@bob", "third");
    let mut topics: Vec<_> = (0..4)
        .map(|_| {
            let message = bob.next_message();
            (
                message.topic.to_string(),
                String::from_utf8_lossy(&message.payload).contains("second"),
            )
        })
        .collect();
    topics.sort();
    let (json, text) = (format!("chat/me/in/{cid}"), format!("chat/me/txt/{cid}"));
    let expected = [
        (json.clone(), false),
        (json, true),
        (text.clone(), false),
        (text, true),
    ];
    assert_eq!(topics, expected);
    alice.publish("chat/to/@bob", "fourth");
    let rest = [bob.next_message(), bob.next_message()];
    assert!(
        rest.iter()
            .all(|message| String::from_utf8_lossy(&message.payload).contains("fourth"))
    );
}

#[test]
fn entry_carries_its_place_in_user_properties() {
    let server = Server::dev();
    let mut bob = Login::new("bob").connect(server.address());
    bob.subscribe("chat/me/in/+");
    let mut alice = Login::new("alice").connect(server.address());
    let answer = alice.publish_mid("chat/to/@bob", "hi", "my-1");
    let message = bob.next_message();
    let property = |name: &str| {
        message
            .properties
            .user_properties
            .iter()
            .find_map(|(known, value)| (*known == *name).then(|| value.to_string()))
    };
    assert_eq!(property("cid").as_deref(), answer.get("cid"));
    assert_eq!(property("seq").as_deref(), Some("1"));
    assert_eq!(property("mid").as_deref(), Some("my-1"));
    assert_eq!(property("ts").as_deref(), answer.get("ts"));
    assert_eq!(property("kind").as_deref(), Some("message"));
    assert_eq!(
        message.properties.content_type.as_deref(),
        Some("application/json")
    );
}

#[test]
fn qos_2_and_qos_0_are_stored_once() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut bob = Login::new("bob").version(version).connect(server.address());
        bob.subscribe("chat/me/in/+");
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.publish_qos2("chat/to/@bob", "twice");
        alice.publish_qos0("chat/to/@bob", "zero");
        alice.publish("chat/to/@bob", "once");
        let texts: Vec<_> = (0..3).map(|_| text_of(&bob.next_message())).collect();
        assert_eq!(texts, ["twice", "zero", "once"]);
    }
}

#[test]
fn qos_2_exchange_is_recognised_after_a_kill() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let phone = Login::new("alice").version(version).device("phone");
        let mut alice = phone.connect(server.address());
        alice.subscribe("chat/me/in/+");
        alice.begin_qos2(7, false, "chat/to/me", "once");
        server.restart();
        let mut alice = phone.connect(server.address());
        assert!(alice.session_present);
        let again = alice.begin_qos2(7, true, "chat/to/me", "once");
        if version == Version::V5 {
            assert!(again.is_duplicate(), "{again:?}");
        }
        alice.end_qos2(7);
        server.restart();
        let mut alice = phone.connect(server.address());
        alice.begin_qos2(7, false, "chat/to/me", "another under the same id");
        alice.end_qos2(7);
        let texts: Vec<_> = alice
            .history("me")
            .iter()
            .map(|entry| entry["t"].clone())
            .collect();
        assert_eq!(texts, ["once", "another under the same id"]);
    }
}

#[test]
fn memory_stays_flat_while_a_user_is_away() {
    let server = Server::dev();
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe("chat/me/in/+");
    bob.disconnect();
    let mut alice = Login::new("alice").connect(server.address());
    let count: u32 = 100_000;
    let batch = 250;
    send_numbers(&mut alice, "chat/to/@bob", 1..=batch);
    let (before, watch) = (server.memory_kib(), Stopwatch::start());
    for from in (batch + 1..=count).step_by(batch as usize) {
        send_numbers(&mut alice, "chat/to/@bob", from..=from + batch - 1);
    }
    let (after, stored) = (server.memory_kib(), watch.elapsed());
    let mut bob = phone.connect(server.address());
    for number in 1..=count {
        assert_eq!(text_of(&bob.next_message()), number.to_string());
    }
    let drained = server.memory_kib();
    let disk: u64 = bytes_below(server.data_dir());
    eprintln!(
        "{count} messages to an absent user: memory {before} → {after} KiB, after redelivery {drained} KiB; stored in \
         {stored:?}, all delivered after {:?}; {} bytes of disk per message",
        watch.elapsed(),
        disk / u64::from(count)
    );
    // Memtables and caches of the engine have their bounds; a queue of 100,000 messages would not fit into this.
    assert!(
        after.max(drained) < before + 192 * 1024,
        "{before} → {after} → {drained} KiB"
    );
}

fn bytes_below(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let info = entry.metadata().unwrap();
            if info.is_dir() {
                bytes_below(&entry.path())
            } else {
                info.len()
            }
        })
        .sum()
}
