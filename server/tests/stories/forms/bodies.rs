//! Bodies, results and actions: what is said, by topic and by call, and what is refused.

use broker::codec::packet::Qos;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use crate::harness::{Client, Launch, Login, Server, eventually};
use crate::rows::{EVERYBODY, Kind, Seen, World, gone_at, items, others};
use crate::scheduled::in_ms;

fn message(from: &str, text: &str) -> Seen {
    Seen {
        kind: "message".into(),
        from: from.into(),
        text: text.into(),
        ..Seen::default()
    }
}

#[test]
fn a_body_is_known_by_its_first_byte_in_every_version() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        for kind in Kind::ALL {
            let text = format!("{kind:?} of {who}");
            world.people[who].act(&to, kind.body(&text));
            world.all_see(message(world.people[who].name, &text));
        }
    }
    let history = world.all_see_the_same_of(&world.cid.clone());
    let formats: Vec<&Value> = history[1..].iter().map(|entry| &entry["format"]).collect();
    assert_eq!(formats, ["text", "json", "protobuf"].repeat(3));
}

#[test]
fn a_message_is_stored_once_at_each_qos_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let person = &mut world.people[who];
            let text = format!("{qos:?}");
            let answer = person.client.publish_at(qos, &to, person.kind.body(&text));
            assert!(answer.is_none_or(|answer| answer.reason == ReasonCode::Success));
            world.all_see(message(world.people[who].name, &text));
        }
        // Again within its exchange: the same one.
        let person = &mut world.people[who];
        for again in [false, true] {
            let body = person.kind.body("in one exchange");
            let answer = person.client.begin_qos2(900, again, &to, body);
            assert_eq!(answer.reason, ReasonCode::Success);
        }
        person.client.end_qos2(900);
        world.all_see(message(world.people[who].name, "in one exchange"));
    }
    world.all_have_the_same_history();
}

#[test]
fn each_refusal_is_told_in_every_form() {
    let mut world = World::new();
    let cid = world.cid.clone();
    let to = format!("chat/to/{cid}");
    let nowhere = "g.00000000000000000000000000";
    let too_large = "x".repeat(64 * 1024 + 1);
    for who in EVERYBODY {
        let theirs = world.say(others(who)[0], &to, "theirs", &Seen::default());
        let mid = format!("{to}/mid-{who}");
        world.say(who, &mid, "one", &Seen::default());
        let on = |seq: u64, action: &str| format!("chat/c/{cid}/m/{seq}/{action}");
        let bodies: [(String, &str, &str, u64); 9] = [
            ("chat/to/@nobody".into(), "x", "not_found", 0x90),
            (format!("chat/to/{nowhere}"), "x", "not_found", 0x90),
            ("chat/elsewhere".into(), "x", "not_found", 0x90),
            (on(999, "reply"), "x", "not_found", 0x90),
            (on(1, "edit"), "x", "not_found", 0x90),
            (on(theirs, "edit"), "x", "forbidden", 0x87),
            (to.clone(), &too_large, "format", 0x99),
            (format!("{to}/not a mid"), "x", "format", 0x99),
            (mid, "another", "idempotency_conflict", 0x83),
        ];
        for (topic, text, error, reason) in bodies {
            let told = world.people[who].says_in_vain(&topic, text);
            assert_eq!(
                (&told["error"], &told["reason"]),
                (&json!(error), &json!(reason))
            );
        }
        let payloads: [(String, &[u8], &str, u64); 12] = [
            (to.clone(), b"", "format", 0x99),
            (to.clone(), b"\xff", "format", 0x99),
            (to.clone(), br#"{"t":7}"#, "format", 0x99),
            (to.clone(), b"\xc1\x0a\x05x", "format", 0x99),
            (format!("chat/c/{cid}/read"), b"999", "format", 0x99),
            (format!("chat/c/{cid}/recv"), b"soon", "format", 0x99),
            (format!("chat/c/{nowhere}/read"), b"1", "not_found", 0x90),
            (on(theirs, "del"), b"", "format", 0x99),
            (on(theirs, "pin"), b"2", "format", 0x99),
            (on(1, "react"), b"+1", "not_found", 0x90),
            ("chat/me/presence".into(), b"busy", "format", 0x99),
            (format!("chat/c/{cid}/typing"), b"2", "format", 0x99),
        ];
        for (topic, payload, error, reason) in payloads {
            let told = world.people[who].acts_in_vain(&topic, payload);
            assert_eq!(
                (&told["error"], &told["reason"]),
                (&json!(error), &json!(reason))
            );
        }
        let answer = world.people[who].client.publish_retained(&to, "retained");
        let told = world.people[who].refusal(&to, &answer);
        assert_eq!(told["error"], "format");
        for (method, request, error) in [
            ("msg.send", json!({"cid": "@nobody", "t": "x"}), "not_found"),
            ("msg.send", json!({"cid": cid, "t": ""}), "format"),
            (
                "msg.edit",
                json!({"cid": cid, "seq": theirs, "t": "x"}),
                "forbidden",
            ),
            (
                "msg.delete",
                json!({"cid": cid, "seq": theirs, "for": "you"}),
                "format",
            ),
            (
                "msg.react",
                json!({"cid": cid, "seq": 999, "emoji": "+1"}),
                "not_found",
            ),
            (
                "msg.status",
                json!({"cid": cid, "seq": theirs}),
                "forbidden",
            ),
            ("conv.get", json!({"cid": nowhere}), "not_found"),
        ] {
            let told = world.people[who].call(method, &request);
            assert_eq!(told, Err(error.to_owned()), "{method} {request}");
        }
    }
    let cid = world.cid.clone();
    let history = world.all_see_the_same_of(&cid);
    assert_eq!(history.len() as u64, world.head, "nothing else is there");
}

#[test]
fn what_was_said_long_ago_is_not_edited_by_any_kind_of_client() {
    let launch = |launch: Launch| launch.dev().variable("MQCHAT_CHAT__EDIT_WINDOW_S", "1");
    let mut world = World::of(Server::in_new_directory(launch));
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    let old = EVERYBODY.map(|who| world.say(who, &to, "for ever", &Seen::default()));
    let said = in_ms(0);
    while in_ms(0) < said + 1_100 {
        world.people[0].client.ping();
    }
    for who in EVERYBODY {
        let told = world.people[who].says_in_vain(&world.on(old[who], "edit"), "other");
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("edit_closed"), &json!(0x83))
        );
        let request = json!({"cid": cid, "seq": old[who], "t": "other"});
        let told = world.people[who].call("msg.edit", &request);
        assert_eq!(told, Err("edit_closed".to_owned()));
    }
    world.all_have_the_same_history();
}

#[test]
fn a_message_that_has_ended_is_gone_for_every_kind_of_client() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    let mut ended = Vec::new();
    for who in EVERYBODY {
        let name = world.people[who].name;
        let request = json!({"cid": cid, "t": "by call", "ttl_s": 1});
        world.people[who].call("msg.send", &request).unwrap();
        ended.push(world.all_see(message(name, "by call")));
        if world.people[who].kind == Kind::Text {
            continue; // 3.1.1 has no Message Expiry Interval
        }
        let properties = PublishProperties {
            message_expiry_interval: Some(1),
            ..PublishProperties::default()
        };
        let person = &mut world.people[who];
        let body = person.kind.body("by property");
        person.client.publish_with(&to, body, properties);
        ended.push(world.all_see(message(name, "by property")));
    }
    for who in EVERYBODY {
        eventually("all to end", || {
            let history = world.people[who].history(&cid);
            let is_over = |seq: &u64| gone_at(&history, *seq) == Some("expired");
            ended.iter().all(is_over).then_some(())
        });
    }
    // That of the conversation holds for who cannot say so himself.
    let request = json!({"cid": cid, "ttl_s": 1});
    world.people[1].call("conv.settings", &request).unwrap();
    world.all_see(Seen {
        kind: "settings".into(),
        from: "json".into(),
        ..Seen::default()
    });
    let last = EVERYBODY.map(|who| world.say(who, &to, "soon gone", &Seen::default()));
    eventually("these to end as well", || {
        let history = world.people[0].history(&cid);
        let is_over = |seq: &u64| gone_at(&history, *seq) == Some("expired");
        last.iter().all(is_over).then_some(())
    });
    world.all_have_the_same_history();
}

#[test]
fn calls_do_what_the_topics_do_in_every_form() {
    let mut world = World::new();
    let cid = world.cid.clone();
    for who in EVERYBODY {
        let name = world.people[who].name;
        let mid = format!("mid-{who}");
        let send = json!({"cid": cid, "t": "by call", "mid": mid});
        let sent = world.people[who].call("msg.send", &send).unwrap();
        let seq = world.all_see(message(name, "by call"));
        assert_eq!(sent["seq"], seq);
        let again = world.people[who].call("msg.send", &send).unwrap();
        assert_eq!((&again["seq"], &again["dup"]), (&json!(seq), &json!(true)));
        for (field, expected) in [
            (
                "reply_to",
                Seen {
                    reply_to: seq,
                    ..message(name, "more")
                },
            ),
            (
                "thread",
                Seen {
                    thread: seq,
                    ..message(name, "more")
                },
            ),
        ] {
            let request = json!({"cid": cid, "t": "more", field: seq});
            world.people[who].call("msg.send", &request).unwrap();
            world.all_see(expected);
        }
        for (method, asked, kind) in [
            ("msg.edit", json!({"t": "edited"}), "edit"),
            ("msg.react", json!({"emoji": "👍"}), "reaction"),
            (
                "msg.react",
                json!({"emoji": "👍", "op": "remove"}),
                "reaction",
            ),
            ("msg.react", json!({"emoji": "🎉"}), "reaction"),
            ("msg.pin", json!({"pinned": true}), "pin"),
        ] {
            let mut request = asked;
            request["cid"] = json!(cid);
            request["seq"] = json!(seq);
            let done = world.people[who].call(method, &request).unwrap();
            let text = request["t"].as_str().unwrap_or_default();
            let place = world.all_see(Seen {
                kind: kind.into(),
                target: seq,
                ..message(name, text)
            });
            assert_eq!(done["seq"], place, "{method}");
        }
        for reader in EVERYBODY {
            let person = &mut world.people[reader];
            let pins = person.call("msg.pins", &json!({"cid": cid})).unwrap();
            assert!(items(&pins["pins"]).iter().any(|pin| pin["seq"] == seq));
            let request = json!({"cid": cid, "seq": seq});
            let reactions = person.call("msg.reactions", &request).unwrap();
            assert_eq!(reactions["reactions"][0]["emoji"], json!(["🎉"]));
        }
        let request = json!({"cid": cid, "t": "a mistake"});
        let doomed = world.people[who].call("msg.send", &request).unwrap()["seq"].clone();
        world.all_see(message(name, "a mistake"));
        let request = json!({"cid": cid, "seq": doomed, "for": "all"});
        world.people[who].call("msg.delete", &request).unwrap();
        world.all_see(Seen {
            kind: "deleted".into(),
            target: doomed.as_u64().unwrap(),
            ..message(name, "")
        });
    }
    world.all_have_the_same_history();
    for who in EVERYBODY {
        let request = json!({"cid": cid, "seq": 2, "for": "me"});
        world.people[who].call("msg.delete", &request).unwrap();
    }
    let history = world.all_see_the_same_of(&cid);
    assert_eq!(gone_at(&history, 2), Some("hidden"));
}

#[test]
fn what_is_not_to_be_heard_is_refused_to_every_kind_of_client() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    let mut eve = Login::new("eve").connect(world.server.address());
    let request = json!({"title": "another", "members": []});
    let foreign = eve.call("conv.create", &request).unwrap();
    let foreign = foreign["cid"].as_str().unwrap();
    for who in EVERYBODY {
        let mut client = world.another(who, "listens");
        let refused = |client: &mut Client, filter: &str, in_5: ReasonCode| {
            let expected = match world.people[who].kind {
                Kind::Text => ReasonCode::UnspecifiedError,
                Kind::Json | Kind::Protobuf => in_5,
            };
            let told = client.try_subscribe(filter, Qos::AtLeastOnce);
            assert_eq!(told, expected, "{filter}");
        };
        for filter in [
            "chat/#",
            "chat/me/#",
            "chat/me/+/+",
            "chat/to/+",
            "chat/c/+/log",
            "chat/me/in/#",
            "chat/u/@eve/presence",
            &format!("chat/c/{foreign}/log"),
            &format!("chat/c/{foreign}/log/from/1"),
            &format!("chat/me/in/{foreign}"),
            &format!("$share/x/chat/c/{foreign}/log"),
        ] {
            refused(&mut client, filter, ReasonCode::NotAuthorized);
        }
        let shared = ReasonCode::SharedSubscriptionsNotSupported;
        refused(&mut client, "$share/x/chat/me/in/+", shared);
        // A wildcard at the root is for ordinary topics.
        client.subscribe("#");
        world.say(who, &to, "not to be heard there", &Seen::default());
        client.publish("ordinary", "heard");
        assert_eq!(&*client.next_message().topic, "ordinary");
    }
    world.all_have_the_same_history();
}
