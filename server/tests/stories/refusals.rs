//! Each row of the table of results, in both versions and at each QoS: with a Reason Code and `error` in 5.0, and on
//! `chat/me/err/…` before the PUBACK.

use broker::codec::packet::{Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Answer, Client, Login, Lost, Preload, Server, VERSIONS, with_mid};

/// Alice owns a group in which Bob only reads, and has a direct conversation with Carol.
struct World {
    server: Server,
    alice: Client,
    bob: Client,
    group: String,
    direct: String,
}

impl World {
    fn new(version: Version) -> Self {
        let server = Server::dev();
        let login = |user| Login::new(user).version(version).connect(server.address());
        let (mut alice, mut bob) = (login("alice"), login("bob"));
        login("carol").disconnect();
        let group = alice
            .call(
                "conv.create",
                &json!({"title": "g", "members": ["@bob"], "roles": {"@bob": "reader"}}),
            )
            .unwrap();
        alice.subscribe("chat/me/err/+");
        bob.subscribe("chat/me/err/+");
        alice.publish("chat/to/@carol", "hello");
        let direct = alice.call("conv.get", &json!({"cid": "@carol"})).unwrap();
        let cid = |conversation: &Value| conversation["cid"].as_str().unwrap().to_owned();
        Self {
            group: cid(&group),
            direct: cid(&direct),
            server,
            alice,
            bob,
        }
    }
}

/// What was refused: its error and its Reason Code.
fn refusal_at(
    client: &mut Client,
    version: Version,
    qos: Qos,
    (topic, payload): (&str, &[u8]),
) -> (String, u64) {
    let answer = client.publish_at(qos, topic, payload);
    refusal_in(client, version, topic, answer.as_ref())
        .unwrap_or_else(|| panic!("{topic} was accepted: {answer:?}"))
}

/// What the server told to a client that subscribed to `chat/me/err/+`. In 3.1.1 an ack without such an event is success.
fn refusal_in(
    client: &mut Client,
    version: Version,
    topic: &str,
    answer: Option<&Answer>,
) -> Option<(String, u64)> {
    let event = match answer {
        None => client.next_message(), // at QoS 0 it is the only answer
        Some(answer) if version == Version::V5 && answer.reason.is_error() => {
            client.arrived().expect("the event comes before the ack")
        }
        Some(answer) => {
            assert_eq!(answer.reason, ReasonCode::Success, "3.1.1 knows no other");
            let event = client.arrived()?;
            assert_eq!(version, Version::V311, "{event:?} and success");
            event
        }
    };
    let told: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(told["topic"], topic);
    assert_ne!(told["message"], "", "{told}");
    let mid = told["mid"].as_str();
    assert!(
        mid.is_none_or(|mid| topic.ends_with(mid)),
        "only an id that the client knows"
    );
    let packet_id = format!("@{}", answer.map_or(0, |answer| answer.packet_id));
    let key = mid.unwrap_or(&packet_id);
    assert_eq!(&*event.topic, format!("chat/me/err/{key}"));
    let error = told["error"].as_str().unwrap();
    let is_rate = error == "rate";
    assert_eq!(told["retry_ms"].as_u64().is_some_and(|ms| ms > 0), is_rate);
    if let (Version::V5, Some(answer)) = (version, answer) {
        assert_eq!(answer.get("error"), Some(error), "{answer:?}");
        assert_eq!(json!(answer.reason as u8), told["reason"], "{answer:?}");
        assert_eq!(json!(answer.reason_string), told["message"], "{answer:?}");
        let retry_ms = answer.get("retry_ms").map(str::parse::<u64>);
        assert_eq!(retry_ms.is_some_and(|ms| ms.unwrap() > 0), is_rate);
    }
    Some((error.to_owned(), told["reason"].as_u64().unwrap()))
}

#[test]
fn every_refusal_has_its_name_and_its_reason_code() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let (group, direct) = (&world.group, &world.direct);
        let nowhere = "g.00000000000000000000000000";
        let too_large = vec![b'x'; 64 * 1024 + 1];
        let rows: Vec<(String, &[u8], &str, u64)> = vec![
            ("chat/to/@nobody".into(), b"x", "not_found", 0x90),
            ("chat/to/@nobody/m-1".into(), b"x", "not_found", 0x90),
            (
                "chat/to/u.00000000000000000000000000".into(),
                b"x",
                "not_found",
                0x90,
            ),
            (format!("chat/to/{nowhere}"), b"x", "not_found", 0x90),
            ("chat/to/@Alice".into(), b"x", "not_found", 0x90),
            ("chat/elsewhere".into(), b"x", "not_found", 0x90),
            (format!("chat/c/{nowhere}/read"), b"1", "not_found", 0x90),
            (format!("chat/c/{nowhere}/recv"), b"1", "not_found", 0x90),
            (format!("chat/to/{group}"), b"\xff", "format", 0x99),
            (format!("chat/to/{group}"), b"", "format", 0x99),
            (format!("chat/to/{group}"), &too_large, "format", 0x99),
            (format!("chat/to/{group}"), br#"{"t":7}"#, "format", 0x99),
            (format!("chat/to/{group}/not a mid"), b"x", "format", 0x99),
            (format!("chat/c/{direct}/read"), b"2", "format", 0x99),
            (format!("chat/c/{direct}/recv"), b"2", "format", 0x99),
            (format!("chat/c/{direct}/read"), b"soon", "format", 0x99),
            ("chat/me/presence".into(), b"busy", "format", 0x99),
            (format!("chat/c/{group}/typing"), b"2", "format", 0x99),
            (format!("chat/c/{group}/m/1/edit"), b"x", "not_found", 0x90),
        ];
        for (topic, payload, error, reason) in rows {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let told = refusal_at(&mut world.alice, version, qos, (&topic, payload));
                let expected = (error.to_owned(), reason);
                assert_eq!(told, expected, "{topic} at {qos:?} in {version:?}");
            }
        }
        let to_group = format!("chat/to/{group}");
        let with_id = "chat/to/@carol/m-7";
        assert!(world.alice.publish(with_id, "one").reason == ReasonCode::Success);
        assert!(world.alice.arrived().is_none());
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let rows: [(&mut Client, &str, (&str, u64)); 2] = [
                (&mut world.bob, &to_group, ("forbidden", 0x87)),
                (&mut world.alice, with_id, ("idempotency_conflict", 0x83)),
            ];
            for (client, topic, (error, reason)) in rows {
                let told = refusal_at(client, version, qos, (topic, b"another"));
                assert_eq!(told, (error.to_owned(), reason), "{qos:?} in {version:?}");
            }
        }

        let texts: Vec<_> = world
            .alice
            .history(direct)
            .iter()
            .map(|entry| entry["t"].clone())
            .collect();
        assert_eq!(texts, ["hello", "one"], "what was refused is not there");
        assert_eq!(world.alice.history(group).len(), 1);
        for cid in [direct, group] {
            let now = world.alice.call("conv.get", &json!({"cid": cid})).unwrap();
            for mark in ["read", "private_read", "delivered"] {
                assert_eq!(now[mark], 0, "no mark moved");
            }
        }
        drop(world.server);
    }
}

#[test]
fn what_is_stored_is_acked_without_a_refusal() {
    for version in VERSIONS {
        let mut world = World::new(version);
        for (number, qos) in (2..).zip([Qos::AtLeastOnce, Qos::ExactlyOnce]) {
            let (topic, mid) = (format!("chat/to/@carol/m-{number}"), format!("m-{number}"));
            for again in [false, true] {
                let answer = world.alice.publish_at(qos, &topic, "stored").unwrap();
                assert_eq!(answer.reason, ReasonCode::Success);
                if version == Version::V5 {
                    assert_eq!(answer.seq(), number, "{answer:?}");
                    assert_eq!(answer.get("cid"), Some(&*world.direct));
                    assert_eq!(answer.get("mid"), Some(&*mid));
                    assert!(answer.get("ts").is_some_and(|ts| ts.parse::<u64>().is_ok()));
                    assert_eq!(answer.get("dup"), again.then_some("1"));
                }
            }
        }
        assert_eq!(world.alice.arrivals(), [], "no refusal");
        let mids: Vec<_> = world
            .alice
            .history(&world.direct)
            .iter()
            .map(|entry| entry["mid"].clone())
            .collect();
        assert_eq!(mids[1..], ["m-2", "m-3"], "each once");
    }
}

#[test]
fn what_cannot_be_made_durable_gets_no_answer_and_ends_the_connection() {
    for version in VERSIONS {
        let disk = Preload::new();
        let mut server = disk.launch().dev().start();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.publish("chat/to/me", "durable");
        let own = alice.call("conv.get", &json!({"cid": "me"})).unwrap();
        let read = format!("chat/c/{}/read", own["cid"].as_str().unwrap());
        let asked = [
            ("chat/to/me", "1"),
            (&read, "1"),
            ("chat/rpc/me.set/1", r#"{"name":"A"}"#),
        ];
        let clients = asked.map(|asked| {
            let login = Login::new("alice").version(version);
            let mut client = login.connect(server.address());
            client.subscribe("chat/me/err/+");
            client.subscribe("chat/me/rpc/+");
            (asked, client)
        });
        disk.fail_syncs();
        let clients = clients.map(|((topic, payload), mut client)| {
            client.send_publish(topic, payload, PublishProperties::default());
            (topic, client)
        });
        for (topic, mut client) in clients {
            let lost = match client.next_answer() {
                Ok(answer) => panic!("{topic} was answered: {answer:?}"),
                Err(lost) => lost,
            };
            let as_promised = match version {
                Version::V5 => matches!(lost, Lost::Disconnected(ReasonCode::ServerBusy)),
                Version::V311 => matches!(lost, Lost::Closed(_)),
            };
            assert!(as_promised, "{topic}: {lost:?}");
            assert_eq!(client.arrived(), None, "{topic}: no refusal either");
        }
        assert_eq!(server.wait_for_exit().code(), Some(3));
    }
}

#[test]
fn a_retry_gets_the_first_place_again() {
    let server = Server::dev();
    Login::new("bob").connect(server.address()).disconnect();
    let mut alice = Login::new("alice").connect(server.address());
    let first = alice.publish_mid("chat/to/@bob", "x", "m-1");
    assert!(!first.is_duplicate());
    assert_eq!((first.seq(), first.get("mid")), (1, Some("m-1")));
    assert!(first.get("ts").is_some() && first.get("cid").is_some());
    alice.publish("chat/to/@bob", "between");
    for again in [
        alice.publish_mid("chat/to/@bob", "x", "m-1"),
        alice.publish("chat/to/@bob/m-1", "x"),
    ] {
        assert!(again.is_duplicate());
        for name in ["seq", "cid", "mid", "ts"] {
            assert_eq!(again.get(name), first.get(name), "{name}");
        }
    }
    let cid = first.get("cid").unwrap();
    assert_eq!(alice.history(cid).len(), 2);
}

#[test]
fn message_id_comes_from_topic_property_or_json() {
    let server = Server::dev();
    Login::new("bob").connect(server.address()).disconnect();
    let mut alice = Login::new("alice").connect(server.address());
    let json = r#"{"t":"x","mid":"from-json"}"#;
    let answer = alice.publish("chat/to/@bob", json);
    assert_eq!(answer.get("mid"), Some("from-json"));
    let answer = alice.publish("chat/to/@bob/from-topic", "x");
    assert_eq!(answer.get("mid"), Some("from-topic"));
    let answer = alice.publish("chat/to/@bob", "x");
    assert!(
        answer.get("mid").is_some_and(|mid| !mid.is_empty()),
        "the server chose one"
    );
    for (topic, property) in [("chat/to/@bob/one", "two"), ("chat/to/@bob", "two")] {
        let answer = alice.publish_with(topic, json, with_mid(property));
        assert_eq!(answer.get("error"), Some("format"), "two ids that differ");
    }
}

#[test]
fn body_is_what_its_content_type_says() {
    let server = Server::dev();
    Login::new("bob").connect(server.address()).disconnect();
    let mut alice = Login::new("alice").connect(server.address());
    let json = r#"{"t":"x","unknown":{"kept":[1,2.50]}}"#;
    let rows: [(&str, &[u8], Option<&str>); 7] = [
        ("text/plain", json.as_bytes(), None),
        ("application/json", json.as_bytes(), None),
        ("application/json", b"text", Some("format")),
        ("text/plain", b"\xff", Some("format")),
        ("image/png", b"x", Some("format")),
        ("application/x-mqchat+protobuf", b"\x0a\x01x", None),
        (
            "application/x-mqchat+protobuf",
            b"\x0a\x05x",
            Some("format"),
        ),
    ];
    for (content_type, payload, error) in rows {
        let properties = PublishProperties {
            content_type: Some(content_type.into()),
            ..PublishProperties::default()
        };
        let answer = alice.publish_with("chat/to/@bob", payload, properties);
        assert_eq!(answer.get("error"), error, "{content_type} {payload:?}");
        let reason = error.map_or(ReasonCode::Success, |_| ReasonCode::PayloadFormatInvalid);
        assert_eq!(answer.reason, reason, "{content_type} {payload:?}");
    }
    let log = alice.history("@bob");
    assert_eq!(log[0]["format"], "text");
    assert_eq!(log[0]["t"], json);
    assert_eq!(log[1]["format"], "json");
    assert_eq!(log[1]["m"]["unknown"], json!({"kept": [1, 2.5]}));
    assert_eq!(log[2]["format"], "protobuf");
    assert_eq!(log[2]["m"], json!({"t": "x"}));
    assert_eq!(log.len(), 3);
}

#[test]
fn refusal_without_a_listener_is_only_an_ack() {
    let server = Server::dev();
    let mut alice = Login::new("alice")
        .version(Version::V311)
        .connect(server.address());
    assert_eq!(
        alice.publish("chat/to/@nobody", "x").reason,
        ReasonCode::Success
    );
    alice.subscribe("chat/me/err/+");
    alice.publish_qos2("chat/to/@nobody", "x");
    let told: Value = serde_json::from_slice(&alice.next_message().payload).unwrap();
    assert_eq!(told["error"], "not_found");
}

#[test]
fn too_many_messages_are_refused_for_a_while() {
    for version in VERSIONS {
        let mut server = Server::in_new_directory(|launch| {
            launch
                .dev()
                .variable("MQCHAT_CHAT__USER_MESSAGES_PER_S", "1")
                .variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "4") // a subscription counts, too
        });
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.subscribe("chat/me/err/+");
        let refusals: Vec<_> = (0..20)
            .map(|_| {
                let answer = alice.publish("chat/to/me", "again");
                refusal_in(&mut alice, version, "chat/to/me", Some(&answer))
            })
            .collect();
        assert_eq!(refusals[..3], [None, None, None], "a burst is fine");
        let refused = refusals.iter().flatten().count();
        assert!(refused > 0);
        for refusal in refusals.into_iter().flatten() {
            assert_eq!(refusal, ("rate".to_owned(), 0x97));
        }
        server.restart_as(|launch| launch.variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "1000"));
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        assert_eq!(alice.history("me").len(), 20 - refused);
    }
}

#[test]
fn retained_publishes_are_refused() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.subscribe("chat/me/err/+");
        alice.publish("chat/to/me", "not retained");
        let answer = alice.publish_retained("chat/to/me", "retained");
        let told = refusal_in(&mut alice, version, "chat/to/me", Some(&answer)).unwrap();
        assert_eq!(told, ("format".to_owned(), 0x99));
        assert_eq!(alice.history("me").len(), 1);
    }
}
