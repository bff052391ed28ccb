//! Messages that are sent later: once, when they are due, by those who still may.

use std::time::{SystemTime, UNIX_EPOCH};

use broker::codec::packet::Version;
use broker::codec::reason::ReasonCode;
use proto::schema::{ClientMessage, Message as _};
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS, eventually};

/// So many ms from now.
#[expect(
    clippy::disallowed_methods,
    reason = "the server goes by the same clock"
)]
pub(super) fn in_ms(ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap() + ms
}

const HOUR: u64 = 3_600_000;

fn login(server: &Server, name: &str, version: Version) -> Client {
    let login = Login::new(name).version(version);
    login.connect(server.address())
}

fn listed(client: &mut Client) -> Vec<Value> {
    let page = client.call("msg.scheduled", &json!({})).unwrap();
    assert_eq!(page["more"], false);
    page["scheduled"].as_array().unwrap().clone()
}

fn texts(client: &mut Client, cid: &str) -> Vec<Value> {
    match client.call("msg.history", &json!({"cid": cid})) {
        Ok(page) => {
            let entries = page["entries"].as_array().unwrap().iter();
            let text = |entry: &Value| match &entry["t"] {
                Value::Null => entry["m"]["t"].clone(),
                text => text.clone(),
            };
            entries.map(text).collect()
        }
        Err(code) => {
            assert_eq!(code, "not_found", "no message: no conversation");
            Vec::new()
        }
    }
}

#[test]
fn a_message_is_sent_when_it_is_due_in_every_form() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut alice = login(&server, "alice", version);
        let mut bob = login(&server, "bob", version);
        bob.subscribe("chat/me/in/+");
        let soon = in_ms(1_500);
        let in_json = json!({"t": "in JSON", "mid": "s-1", "at": soon}).to_string();
        let answer = alice.publish("chat/to/@bob", &in_json);
        if version == Version::V5 {
            assert_eq!(answer.get("at"), Some(&*soon.to_string()));
            assert_eq!((answer.get("seq"), answer.get("mid")), (None, Some("s-1")));
            let again = alice.publish("chat/to/@bob", &in_json);
            assert!(again.is_duplicate(), "{again:?}");
        }
        let in_protobuf = ClientMessage {
            t: "in protobuf @bob".into(),
            at: Some(soon),
            ..ClientMessage::default()
        };
        let in_protobuf = [&[0xC1][..], &in_protobuf.encode_to_vec()].concat();
        alice.publish("chat/to/@bob/s-2", in_protobuf);
        let by_call = json!({"cid": "@bob", "t": "by call", "at": soon, "mid": "s-3", "ttl_s": 90});
        let waits = alice.call("msg.send", &by_call).unwrap();
        assert_eq!((&waits["at"], &waits["seq"]), (&json!(soon), &Value::Null));
        let list = listed(&mut alice);
        let mids: Vec<_> = list.iter().map(|one| one["mid"].clone()).collect();
        assert_eq!(mids, ["s-1", "s-2", "s-3"]);
        assert_eq!(list[0]["m"]["t"], "in JSON");
        assert_eq!(
            (&list[1]["format"], &list[1]["at"]),
            (&json!("protobuf"), &json!(soon))
        );
        assert_eq!(
            (&list[2]["t"], &list[2]["ttl_s"]),
            (&json!("by call"), &json!(90))
        );
        assert_eq!(listed(&mut bob), [Value::Null; 0], "nobody else sees it");
        assert_eq!(
            texts(&mut bob, "@alice"),
            [Value::Null; 0],
            "nor before its time"
        );

        let arrived: Vec<_> = (0..3).map(|_| bob.next_json()).collect();
        for (entry, mid) in arrived.iter().zip(["s-1", "s-2", "s-3"]) {
            assert_eq!(entry["mid"], mid);
            assert!(entry["ts"].as_u64().unwrap() >= soon);
        }
        assert!(arrived[1]["mentions"].is_array());
        let lasts = arrived[2]["expires"].as_u64().unwrap() - arrived[2]["ts"].as_u64().unwrap();
        // The time of an entry is that of the one before it, at least: some milliseconds later, perhaps.
        assert!((89_500..=90_000).contains(&lasts), "from then on: {lasts}");
        assert_eq!(listed(&mut alice), [Value::Null; 0]);
        let late = alice.publish("chat/to/@bob", &in_json);
        if version == Version::V5 {
            assert!(
                late.is_duplicate() && late.seq() == 1,
                "its time is over: sent before"
            );
        }
        assert_eq!(texts(&mut alice, "@bob").len(), 3);
    }
}

#[test]
fn a_scheduled_message_is_changed_and_cancelled_by_its_sender_only() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut alice = login(&server, "alice", version);
        let mut bob = login(&server, "bob", version);
        for (mid, text) in [("s-1", "frist"), ("s-2", "second")] {
            let message = json!({"t": text, "at": in_ms(HOUR)}).to_string();
            alice.publish(&format!("chat/to/@bob/{mid}"), message);
        }
        let other = json!({"mid": "s-1", "t": "mine"});
        assert_eq!(bob.call("msg.reschedule", &other), Err("not_found".into()));
        let other = json!({"mid": "s-1"});
        assert_eq!(
            bob.call("msg.unschedule", &other).unwrap()["cancelled"],
            false
        );

        let at = in_ms(2 * HOUR);
        let changed = alice.call(
            "msg.reschedule",
            &json!({"mid": "s-1", "at": at, "t": "later"}),
        );
        let changed = changed.unwrap();
        assert_eq!(
            (&changed["at"], &changed["t"]),
            (&json!(at), &json!("later"))
        );
        assert_eq!(listed(&mut alice)[0], changed);
        let cancelled = alice
            .call("msg.unschedule", &json!({"mid": "s-2"}))
            .unwrap();
        assert_eq!(cancelled, json!({"mid": "s-2", "cancelled": true}));
        let again = alice
            .call("msg.unschedule", &json!({"mid": "s-2"}))
            .unwrap();
        assert_eq!(again["cancelled"], false);
        let now = json!({"mid": "s-1", "m": {"t": "first", "at": in_ms(0)}});
        alice.call("msg.reschedule", &now).unwrap();
        eventually("the message", || {
            (texts(&mut bob, "@alice") == ["first"]).then_some(())
        });
        assert_eq!(listed(&mut alice), [Value::Null; 0]);
    }
}

#[test]
fn what_a_scheduled_message_quotes_and_how_long_it_lasts_stays() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut alice = login(&server, "alice", version);
        login(&server, "bob", version);
        let first = alice.publish("chat/to/@bob", "quote me");
        let cid = match version {
            Version::V5 => first.get("cid").unwrap().to_owned(),
            Version::V311 => "@bob".to_owned(),
        };
        let message = json!({"t": "as it was", "at": in_ms(HOUR), "reply_to": 1, "ttl_s": 60});
        alice.publish(&format!("chat/to/{cid}/s-1"), message.to_string());
        let before = listed(&mut alice);
        for (field, value) in [("ttl_s", 5), ("reply_to", 1), ("thread", 1)] {
            let changed = json!({"mid": "s-1", "m": {"t": "other", field: value}});
            let refused = alice.call("msg.reschedule", &changed);
            assert_eq!(refused, Err("format".into()), "{field}");
        }
        assert_eq!(listed(&mut alice), before);
        let text = json!({"mid": "s-1", "m": {"t": "other"}});
        let changed = alice.call("msg.reschedule", &text).unwrap();
        assert_eq!(changed["m"]["t"], "other");
    }
}

#[test]
fn what_cannot_be_scheduled_is_refused() {
    for version in VERSIONS {
        let server = Server::in_new_directory(|launch| {
            launch
                .dev()
                .variable("MQCHAT_CHAT__SCHEDULED_PER_USER_MAX", "2")
        });
        let mut alice = login(&server, "alice", version);
        let _bob = login(&server, "bob", version);
        alice.subscribe("chat/me/err/+");
        let year = 367 * 24 * HOUR;
        let later = |text: &str| json!({"t": text, "at": in_ms(HOUR)}).to_string();
        let at = in_ms(HOUR);
        let first = json!({"t": "x", "at": at}).to_string();
        alice.publish("chat/to/@bob/s-1", &first);
        for (topic, payload, error) in [
            ("chat/to/@bob/s-1", later("y"), "idempotency_conflict"),
            ("chat/to/me/s-1", first, "idempotency_conflict"),
            ("chat/to/@bob", later("x"), "format"),
            ("chat/to/@nobody/s-2", later("x"), "not_found"),
            (
                "chat/to/g.00000000000000000000000000/s-2",
                later("x"),
                "not_found",
            ),
            (
                "chat/to/@bob/s-2",
                json!({"t": "x", "at": in_ms(year)}).to_string(),
                "format",
            ),
            (
                "chat/to/@bob/s-2",
                json!({"t": "x", "at": in_ms(HOUR), "reply_to": 9}).to_string(),
                "not_found",
            ),
        ] {
            let answer = alice.publish(topic, payload);
            let told: Value = serde_json::from_slice(&alice.arrived().unwrap().payload).unwrap();
            assert_eq!(told["error"], error, "{topic}: {told}");
            if version == Version::V5 {
                assert_eq!(answer.get("error"), Some(error));
            }
        }
        alice.publish("chat/to/@bob/s-3", later("x"));
        alice.publish("chat/to/@bob/s-4", later("x"));
        let told: Value = serde_json::from_slice(&alice.arrived().unwrap().payload).unwrap();
        assert_eq!(
            (&told["error"], &told["mid"]),
            (&json!("limit"), &json!("s-4"))
        );
        assert_eq!(listed(&mut alice).len(), 2);
        // Whoever sends it himself does not send it twice.
        alice.publish("chat/to/@bob/s-3", "now");
        assert_eq!(listed(&mut alice).len(), 1);
        let far = json!({"mid": "s-1", "at": in_ms(year)});
        assert_eq!(alice.call("msg.reschedule", &far), Err("format".into()));
        let past = json!({"t": "at once", "at": 5}).to_string();
        alice.publish("chat/to/@bob", past);
        let edit = json!({"cid": "@bob", "seq": 1, "m": {"t": "x", "at": 5}});
        assert_eq!(alice.call("msg.edit", &edit), Err("format".into()));
        assert_eq!(texts(&mut alice, "@bob"), ["now", "at once"]);
    }
}

#[test]
fn who_may_not_send_when_it_is_due_is_told() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let mut alice = login(&server, "alice", version);
        let mut bob = login(&server, "bob", version);
        bob.subscribe("chat/me/err/+");
        let group = alice
            .call("conv.create", &json!({"members": ["@bob"]}))
            .unwrap();
        let cid = group["cid"].as_str().unwrap();
        let message = json!({"t": "too late", "at": in_ms(1_500)}).to_string();
        bob.publish(&format!("chat/to/{cid}/s-1"), message);
        let reader = json!({"cid": cid, "member": "@bob", "role": "reader"});
        alice.call("conv.role", &reader).unwrap();

        let told = bob.next_on("chat/me/err/s-1");
        let told: Value = serde_json::from_slice(&told.payload).unwrap();
        assert_eq!(told["error"], "forbidden");
        assert_eq!(told["topic"], format!("chat/to/{cid}"));
        let list = listed(&mut bob);
        assert_eq!(list[0]["error"]["code"], "forbidden");
        assert!(!texts(&mut alice, cid).contains(&json!("too late")));

        // It waits to be changed, also through a restart.
        let member = json!({"cid": cid, "member": "@bob", "role": "member"});
        alice.call("conv.role", &member).unwrap();
        server.kill();
        server.restart();
        let mut bob = login(&server, "bob", version);
        assert_eq!(listed(&mut bob), list);
        let retry = json!({"mid": "s-1", "at": in_ms(0)});
        bob.call("msg.reschedule", &retry).unwrap();
        eventually("the message", || {
            texts(&mut bob, cid)
                .contains(&json!("too late"))
                .then_some(())
        });
        assert_eq!(listed(&mut bob), [Value::Null; 0]);
    }
}

#[test]
fn what_is_due_while_the_server_is_dead_is_sent_once() {
    let mut server = Server::dev();
    let mut alice = login(&server, "alice", Version::V5);
    let _bob = login(&server, "bob", Version::V5);
    for number in 0..20 {
        let message = json!({"t": format!("{number}"), "at": in_ms(800)}).to_string();
        let answer = alice.publish(&format!("chat/to/@bob/s-{number:02}"), message);
        assert_eq!(answer.reason, ReasonCode::Success);
    }
    for round in 0..6 {
        server.kill();
        server.restart();
        let mut bob = login(&server, "bob", Version::V5);
        // Some rounds end in the midst of the sending.
        if round % 2 == 1 {
            eventually("a message", || {
                (!texts(&mut bob, "@alice").is_empty()).then_some(())
            });
        }
    }
    let mut bob = login(&server, "bob", Version::V5);
    let wanted: Vec<_> = (0..20).map(|number| json!(format!("{number}"))).collect();
    eventually("all of them", || {
        (texts(&mut bob, "@alice").len() >= wanted.len()).then_some(())
    });
    assert_eq!(texts(&mut bob, "@alice"), wanted);
    let mut alice = login(&server, "alice", Version::V5);
    assert_eq!(listed(&mut alice), [Value::Null; 0]);
}
