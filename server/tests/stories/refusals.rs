//! Each row of the table of results, in both versions: with a Reason Code and `error` in 5.0, on `chat/me/err/…` before
//! the PUBACK in 3.1.1.

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Answer, Client, Login, Server, VERSIONS, with_mid};

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

/// What was refused: its error, and where it was told (5.0: in the answer).
fn refusal_of(client: &mut Client, version: Version, topic: &str, payload: &[u8]) -> (String, u64) {
    let answer = client.publish(topic, payload);
    refusal_in(client, version, topic, &answer)
        .unwrap_or_else(|| panic!("{topic} was accepted: {answer:?}"))
}

fn refusal_in(
    client: &mut Client,
    version: Version,
    topic: &str,
    answer: &Answer,
) -> Option<(String, u64)> {
    if version == Version::V5 {
        let event = client.arrived();
        if !answer.reason.is_error() {
            assert!(event.is_none(), "{event:?}");
            return None;
        }
        let error = answer
            .get("error")
            .unwrap_or_else(|| panic!("no error in {answer:?}"));
        return Some((error.to_owned(), answer.reason as u64));
    }
    assert_eq!(answer.reason, ReasonCode::Success, "3.1.1 knows no other");
    let event = client.arrived()?;
    let told: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(told["topic"], topic);
    let mid = told["mid"].as_str();
    assert!(
        mid.is_none_or(|mid| topic.ends_with(mid)),
        "only an id that the client knows"
    );
    let packet_id = format!("@{}", answer.packet_id);
    let key = mid.unwrap_or(&packet_id);
    assert_eq!(&*event.topic, format!("chat/me/err/{key}"));
    Some((
        told["error"].as_str().unwrap().to_owned(),
        told["reason"].as_u64().unwrap(),
    ))
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
            ("chat/me/presence".into(), b"online", "not_found", 0x90),
            (format!("chat/c/{group}/typing"), b"1", "not_found", 0x90),
            (format!("chat/c/{group}/m/1/edit"), b"x", "not_found", 0x90),
        ];
        for (topic, payload, error, reason) in rows {
            let told = refusal_of(&mut world.alice, version, &topic, payload);
            assert_eq!(told, (error.to_owned(), reason), "{topic} in {version:?}");
        }
        let to_group = format!("chat/to/{group}");
        let told = refusal_of(&mut world.bob, version, &to_group, b"I only read");
        assert_eq!(told, ("forbidden".to_owned(), 0x87), "{version:?}");

        let with_id = "chat/to/@carol/m-7";
        assert!(world.alice.publish(with_id, "one").reason == ReasonCode::Success);
        assert!(world.alice.arrived().is_none());
        let told = refusal_of(&mut world.alice, version, with_id, b"another");
        assert_eq!(
            told,
            ("idempotency_conflict".to_owned(), 0x83),
            "{version:?}"
        );

        let texts: Vec<_> = world
            .alice
            .history(direct)
            .iter()
            .map(|entry| entry["t"].clone())
            .collect();
        assert_eq!(texts, ["hello", "one"], "what was refused is not there");
        assert_eq!(world.alice.history(group).len(), 1);
        drop(world.server);
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
    let rows: [(&str, &[u8], Option<&str>); 6] = [
        ("text/plain", json.as_bytes(), None),
        ("application/json", json.as_bytes(), None),
        ("application/json", b"text", Some("format")),
        ("text/plain", b"\xff", Some("format")),
        ("image/png", b"x", Some("format")),
        (
            "application/x-mqchat+protobuf",
            b"\x0a\x01x",
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
    }
    let log = alice.history("@bob");
    assert_eq!(log[0]["format"], "text");
    assert_eq!(log[0]["t"], json);
    assert_eq!(log[1]["format"], "json");
    assert_eq!(log[1]["m"]["unknown"], json!({"kept": [1, 2.5]}));
    assert_eq!(log.len(), 2);
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
                if let Some(wait) = answer.get("retry_ms") {
                    assert!(wait.parse::<u64>().unwrap() > 0);
                }
                refusal_in(&mut alice, version, "chat/to/me", &answer)
            })
            .collect();
        assert_eq!(refusals[..3], [None, None, None], "a burst is fine");
        let refused = refusals.iter().flatten().count();
        assert!(refused > 0);
        assert!(
            refusals.contains(&Some(("rate".to_owned(), 0x97))),
            "{refusals:?}"
        );
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
        let told = refusal_in(&mut alice, version, "chat/to/me", &answer).unwrap();
        assert_eq!(told, ("format".to_owned(), 0x99));
        assert_eq!(alice.history("me").len(), 1);
    }
}
