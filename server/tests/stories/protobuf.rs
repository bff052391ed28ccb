//! Protobuf as the third form: of messages, of the inbox, and of calls.

use broker::codec::packet::{Publish, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use proto::payload::{PROTOBUF, PROTOBUF_MARK};
use proto::schema::rpc_reply::Result as Outcome;
use proto::schema::rpc_request::Params;
use proto::schema::{
    ClientMessage, ConvAdd, ConvCreate, ConvGet, ConvLeave, ConvList, ConvRemove, ConvRole,
    ConvSettings, LogEntry, MeGet, MeSet, Media, Message, MsgHistory, MsgReact, MsgReactions,
    MsgStatus, RpcReply, RpcRequest,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::harness::{Answer, Client, Login, Random, Server, VERSIONS};

fn message(t: &str) -> ClientMessage {
    ClientMessage {
        t: t.into(),
        ..ClientMessage::default()
    }
}

fn marked(bytes: &[u8]) -> Vec<u8> {
    [&[PROTOBUF_MARK], bytes].concat()
}

fn declared() -> PublishProperties {
    PublishProperties {
        content_type: Some(PROTOBUF.into()),
        ..PublishProperties::default()
    }
}

/// Sends protobuf as this version can: with a Content Type, or with the mark before it.
fn send(client: &mut Client, version: Version, topic: &str, bytes: &[u8]) -> Answer {
    match version {
        Version::V5 => client.publish_with(topic, bytes, declared()),
        Version::V311 => client.publish(topic, marked(bytes)),
    }
}

fn entry(publish: &Publish) -> LogEntry {
    LogEntry::decode(&*publish.payload).unwrap_or_else(|error| panic!("{error} in {publish:?}"))
}

/// An entry in protobuf as it is in JSON: without what stands there only to keep it whole.
fn in_json(entry: &LogEntry) -> Value {
    let entry = LogEntry {
        json: String::new(),
        ..entry.clone()
    };
    as_json(&entry)
}

fn as_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Leaves out what protobuf leaves out: fields with their default value.
fn drop_defaults(value: &mut Value) {
    let is_default =
        |value: &Value| [json!(0), json!(""), json!(false), json!([]), json!(null)].contains(value);
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !is_default(field));
            fields.values_mut().for_each(drop_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_defaults),
        _ => {}
    }
}

/// Calls a method in protobuf, as this version can.
fn call(client: &mut Client, version: Version, params: Params, method: &str, req: &str) -> Outcome {
    let request = RpcRequest {
        params: Some(params),
    };
    let bytes = request.encode_to_vec();
    let reply_topic = format!("chat/me/rpc/{req}");
    match version {
        Version::V5 => {
            let properties = PublishProperties {
                response_topic: Some(reply_topic.as_str().into()),
                ..declared()
            };
            client.publish_with(&format!("chat/rpc/{method}"), bytes, properties);
        }
        Version::V311 => {
            client.publish(&format!("chat/rpc/{method}/{req}"), marked(&bytes));
        }
    }
    let reply = client.next_on(&reply_topic);
    if version == Version::V5 {
        assert_eq!(reply.properties.content_type.as_deref(), Some(PROTOBUF));
    }
    let reply = RpcReply::decode(&*reply.payload).unwrap();
    reply.result.expect("a result or a refusal")
}

#[test]
fn three_forms_share_one_conversation_and_one_history() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user: &str, filter: &str| {
            let mut client = Login::new(user).version(version).connect(server.address());
            client.subscribe(filter);
            client
        };
        let mut text = login("text", "chat/me/txt/+");
        let mut json = login("json", "chat/me/in/+");
        let mut pb = login("pb", "chat/me/pb/+");
        let group = json
            .call(
                "conv.create",
                &json!({"title": "Three", "members": ["@text", "@pb"]}),
            )
            .unwrap();
        let cid = group["cid"].as_str().unwrap();
        let to = format!("chat/to/{cid}");

        text.publish(&to, "plain, ä");
        json.publish(&to, r#"{"t":"in JSON","kind":"x-own","ext":{"n":2.50}}"#);
        let picture = ClientMessage {
            kind: "image".into(),
            mid: Some("pb-1".into()),
            reply_to: Some(2),
            media: vec![Media {
                id: "m1".into(),
                size: u64::MAX,
                ..Media::default()
            }],
            opaque: b"\0\xff".as_slice().into(),
            ..message("in\nprotobuf")
        };
        let mut bytes = picture.encode_to_vec();
        bytes.extend(b"\xa2\x3f\x03new"); // field 1012, of a later schema
        send(&mut pb, version, &to, &bytes);

        let lines: Vec<_> = (0..3)
            .map(|_| String::from_utf8(text.next_message().payload.to_vec()).unwrap())
            .collect();
        assert_eq!(
            lines,
            ["text: plain, ä", "json: in JSON", r"pb: in\nprotobuf"]
        );
        let seen: Vec<_> = (0..4).map(|_| json.next_json()).collect();
        let formats: Vec<_> = seen.iter().map(|entry| &entry["format"]).collect();
        assert_eq!(formats, ["system", "text", "json", "protobuf"]);
        assert_eq!(seen[3]["m"], serde_json::to_value(&picture).unwrap());
        assert_eq!(seen[3]["mid"], "pb-1");

        let arrived: Vec<_> = (0..4).map(|_| pb.next_message()).collect();
        for publish in &arrived {
            assert_eq!(*publish.topic, format!("chat/me/pb/{cid}"));
            if version == Version::V5 {
                let properties = &publish.properties;
                assert_eq!(properties.content_type.as_deref(), Some(PROTOBUF));
                assert_eq!(properties.payload_format_indicator, None, "not UTF-8");
                let names = properties.user_properties.iter().map(|(name, _)| &**name);
                let names: Vec<_> = names.collect();
                assert_eq!(names[..6], ["cid", "seq", "from", "mid", "ts", "kind"]);
            }
        }
        let entries: Vec<_> = arrived.iter().map(entry).collect();
        assert_eq!(
            entries[0].data.as_ref().unwrap().title.as_deref(),
            Some("Three")
        );
        assert_eq!(
            entries[2].json,
            r#"{"t":"in JSON","kind":"x-own","ext":{"n":2.50}}"#
        );
        let whole = &arrived[3].payload;
        assert!(
            whole.windows(bytes.len()).any(|part| part == bytes),
            "what was sent is in the entry as it was, unknown fields included"
        );

        // The same in JSON, but for the unknown field of JSON.
        let mut in_protobuf: Vec<_> = entries.iter().map(in_json).collect();
        in_protobuf[2]["m"]["ext"] = json!({"n": 2.5});
        let mut in_json_form = Value::from(seen.clone());
        drop_defaults(&mut in_json_form);
        assert_eq!(Value::from(in_protobuf), in_json_form);

        // And by call, for everybody.
        let asked = MsgHistory {
            cid: cid.into(),
            after: Some(0),
            ..MsgHistory::default()
        };
        pb.subscribe("chat/me/rpc/+");
        let Outcome::History(page) = call(
            &mut pb,
            version,
            Params::MsgHistory(asked),
            "msg.history",
            "h1",
        ) else {
            panic!("no page");
        };
        assert_eq!((page.entries, page.more, page.head), (entries, false, 4));
        for client in [&mut text, &mut json, &mut pb] {
            assert_eq!(client.history(cid), seen);
        }
    }
}

#[test]
fn a_device_in_protobuf_goes_on_where_it_was() {
    for version in VERSIONS {
        let server = Server::dev();
        let device = Login::new("bob").version(version).device("phone");
        let mut bob = device.connect(server.address());
        bob.subscribe("chat/me/pb/+");
        bob.subscribe("chat/me/in/+");
        bob.acks_by_itself = false;
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        send(
            &mut alice,
            version,
            "chat/to/@bob",
            &message("one").encode_to_vec(),
        );
        let first: Vec<_> = (0..2).map(|_| bob.next_message()).collect();
        let forms = |messages: &[Publish]| {
            let mut forms: Vec<_> = messages
                .iter()
                .map(|message| (message.topic.to_string(), message.payload.clone()))
                .collect();
            forms.sort();
            forms
        };
        let is_json = first
            .iter()
            .position(|message| message.topic.starts_with("chat/me/in/"));
        bob.ack(&first[is_json.unwrap()]);
        bob.settle();
        drop(bob);
        alice.publish("chat/to/@bob", "two");

        let mut bob = device.connect(server.address());
        assert!(bob.session_present);
        let again = bob.next_message();
        assert!(again.dup, "one copy was acknowledged, the other was not");
        assert!(again.topic.starts_with("chat/me/pb/"));
        assert_eq!(entry(&again).m, Some(message("one")));
        let behind: Vec<_> = (0..2).map(|_| bob.next_message()).collect();
        assert_eq!(forms(&behind).len(), 2);
        for message in &behind {
            let is_protobuf = message.topic.starts_with("chat/me/pb/");
            let t = if is_protobuf {
                entry(message).t
            } else {
                let entry: Value = serde_json::from_slice(&message.payload).unwrap();
                entry["t"].as_str().unwrap().to_owned()
            };
            assert_eq!(t, "two");
        }
        assert_eq!(bob.arrivals(), []);
    }
}

#[test]
fn an_inbox_in_protobuf_of_one_conversation_has_no_other() {
    let server = Server::dev();
    let mut bob = Login::new("bob").connect(server.address());
    let mut alice = Login::new("alice").connect(server.address());
    let cid = alice
        .publish("chat/to/@bob", "first")
        .get("cid")
        .unwrap()
        .to_owned();
    bob.subscribe(&format!("chat/me/pb/{cid}"));
    assert_eq!(entry(&bob.next_message()).t, "first");
    Login::new("carol")
        .connect(server.address())
        .publish("chat/to/@bob", "elsewhere");
    alice.publish("chat/to/@bob", "second");
    assert_eq!(entry(&bob.next_message()).t, "second");
    assert_eq!(bob.arrivals(), []);
    let stranger = alice.try_subscribe(
        "chat/me/pb/g.00000000000000000000000000",
        broker::codec::packet::Qos::AtLeastOnce,
    );
    assert_eq!(stranger, ReasonCode::NotAuthorized);
}

#[test]
fn the_same_message_is_stored_once_however_it_says_to_be_protobuf() {
    let server = Server::dev();
    Login::new("bob").connect(server.address()).disconnect();
    let mut alice = Login::new("alice").connect(server.address());
    let mut with_mid = message("once");
    with_mid.mid = Some("m-1".into());
    let bytes = with_mid.encode_to_vec();
    let first = alice.publish_with("chat/to/@bob", &bytes, declared());
    assert_eq!((first.seq(), first.get("mid")), (1, Some("m-1")));
    let again = alice.publish("chat/to/@bob/m-1", marked(&bytes));
    assert_eq!((again.seq(), again.is_duplicate()), (1, true));
    with_mid.t = "another".into();
    let other = alice.publish_with("chat/to/@bob", with_mid.encode_to_vec(), declared());
    assert_eq!(other.get("error"), Some("idempotency_conflict"));
    let text = alice.publish("chat/to/@bob/m-1", "once");
    assert_eq!(text.get("error"), Some("idempotency_conflict"));
    let differ = alice.publish_with("chat/to/@bob/m-2", &bytes, declared());
    assert_eq!(differ.get("error"), Some("format"), "two ids that differ");
}

#[test]
fn what_is_not_a_message_in_protobuf_is_refused() {
    let large = message(&"x".repeat(64 * 1024)).encode_to_vec();
    let bad_mid = ClientMessage {
        mid: Some("a/b".into()),
        ..message("x")
    };
    let crowd = ClientMessage {
        media: vec![Media::default(); 65],
        ..message("x")
    };
    let rows = [
        vec![],
        message("").encode_to_vec(),
        b"\x0a\x05x".to_vec(),
        b"\x0a\x02\xff\xfe".to_vec(),
        b"hello".to_vec(),
        bad_mid.encode_to_vec(),
        crowd.encode_to_vec(),
        large,
    ];
    for version in VERSIONS {
        let server = Server::dev();
        Login::new("bob").connect(server.address()).disconnect();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.subscribe("chat/me/err/+");
        for bytes in &rows {
            let answer = send(&mut alice, version, "chat/to/@bob", bytes);
            let shown = &bytes[..bytes.len().min(20)];
            if version == Version::V5 {
                assert_eq!(
                    answer.reason,
                    ReasonCode::PayloadFormatInvalid,
                    "{shown:x?}"
                );
            }
            let told = alice.next_json();
            assert_eq!(
                (&told["error"], &told["reason"]),
                (&json!("format"), &json!(0x99))
            );
        }
        assert_eq!(
            alice
                .call("msg.history", &json!({"cid": "@bob"}))
                .unwrap_err(),
            "not_found",
            "nothing was stored"
        );
    }
}

#[test]
fn random_bytes_are_stored_only_if_they_are_a_message() {
    let server = Server::dev();
    let mut random = Random::new(0xC1);
    let byte = |random: &mut Random| u8::try_from(random.below(256)).unwrap();
    let mut alice = Login::new("alice").connect(server.address());
    let whole = ClientMessage {
        mentions: vec!["@bob".into()],
        media: vec![Media {
            id: "m".into(),
            ..Media::default()
        }],
        ..message("a seed of some length")
    };
    let whole = whole.encode_to_vec();
    let mut stored = Vec::new();
    for round in 0..400 {
        let mut bytes: Vec<u8> = if round % 2 == 0 {
            (0..random.below(40)).map(|_| byte(&mut random)).collect()
        } else {
            whole.clone()
        };
        for _ in 0..=random.below(3) {
            if !bytes.is_empty() {
                let at = random.below(bytes.len() as u64);
                bytes[usize::try_from(at).unwrap()] = byte(&mut random);
            }
        }
        let answer = alice.publish("chat/to/me", marked(&bytes));
        let is_message = ClientMessage::decode(&*bytes).is_ok_and(|message| !message.t.is_empty());
        if answer.reason == ReasonCode::Success {
            assert!(is_message, "{bytes:x?}");
            stored.push(bytes);
        } else {
            assert_eq!(
                answer.reason,
                ReasonCode::PayloadFormatInvalid,
                "{bytes:x?}"
            );
        }
    }
    assert!(!stored.is_empty(), "some are damaged little enough");
    let log = alice.history("me");
    assert_eq!(log.len(), stored.len());
    for (entry, bytes) in log.iter().zip(&stored) {
        let sent = ClientMessage::decode(&**bytes).unwrap();
        assert_eq!(entry["m"], serde_json::to_value(&sent).unwrap());
    }
}

#[test]
fn every_call_is_answered_in_the_form_in_which_it_was_asked() {
    for version in VERSIONS {
        let server = Server::dev();
        for user in ["bob", "carol"] {
            Login::new(user).connect(server.address()).disconnect();
        }
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.subscribe("chat/me/rpc/+");
        let mut number = 0;
        let mut ask = |client: &mut Client, method: &str, params: Params| {
            number += 1;
            call(client, version, params, method, &format!("r{number}"))
        };
        // What came in protobuf, as JSON; fields without a value are left out there.
        let same = |client: &mut Client, method: &str, request: Value, protobuf: Value| {
            let mut json = client.call(method, &request).unwrap();
            drop_defaults(&mut json);
            assert_eq!(protobuf, json, "{method}");
        };

        let create = ConvCreate {
            title: Some("Lunch".into()),
            members: vec!["@bob".into(), "@carol".into()],
            roles: [("@bob".to_owned(), "admin".to_owned())].into(),
            ..ConvCreate::default()
        };
        let Outcome::Conversation(made) =
            ask(&mut alice, "conv.create", Params::ConvCreate(create))
        else {
            panic!("no conversation");
        };
        assert_eq!((made.title.as_str(), made.members.len()), ("Lunch", 3));
        let cid = made.cid.clone();
        same(&mut alice, "conv.get", json!({"cid": cid}), as_json(&made));

        alice.publish(&format!("chat/to/{cid}"), "who reads this?");
        let get = ConvGet { cid: cid.clone() };
        let Outcome::Conversation(got) = ask(&mut alice, "conv.get", Params::ConvGet(get)) else {
            panic!("no conversation");
        };
        assert_eq!(got.head, 2);
        let Outcome::Conversations(list) = ask(
            &mut alice,
            "conv.list",
            Params::ConvList(ConvList::default()),
        ) else {
            panic!("no list");
        };
        same(&mut alice, "conv.list", json!({}), as_json(&list));
        let status = MsgStatus {
            cid: cid.clone(),
            seq: 2,
        };
        let Outcome::Status(status) = ask(&mut alice, "msg.status", Params::MsgStatus(status))
        else {
            panic!("no status");
        };
        assert_eq!(status.of, 2);
        same(
            &mut alice,
            "msg.status",
            json!({"cid": cid, "seq": 2}),
            as_json(&status),
        );

        let changes = [
            (
                "conv.role",
                Params::ConvRole(ConvRole {
                    cid: cid.clone(),
                    member: "@carol".into(),
                    role: "reader".into(),
                }),
            ),
            (
                "conv.settings",
                Params::ConvSettings(ConvSettings {
                    cid: cid.clone(),
                    title: Some("Dinner".into()),
                    ..ConvSettings::default()
                }),
            ),
            (
                "conv.remove",
                Params::ConvRemove(ConvRemove {
                    cid: cid.clone(),
                    member: "@carol".into(),
                }),
            ),
            (
                "conv.add",
                Params::ConvAdd(ConvAdd {
                    cid: cid.clone(),
                    members: vec!["@carol".into()],
                    ..ConvAdd::default()
                }),
            ),
            (
                "conv.leave",
                Params::ConvLeave(ConvLeave {
                    cid: cid.clone(),
                    owner: Some("@bob".into()),
                }),
            ),
        ];
        for (seq, (method, params)) in (3..).zip(changes) {
            let outcome = ask(&mut alice, method, params);
            assert!(
                matches!(&outcome, Outcome::Changed(changed) if changed.seq == seq),
                "{method}: {outcome:?}"
            );
        }
        let name = MeSet {
            name: Some("Alice A.".into()),
            ..MeSet::default()
        };
        let set = ask(&mut alice, "me.set", Params::MeSet(name));
        let Outcome::Me(me) = ask(&mut alice, "me.get", Params::MeGet(MeGet {})) else {
            panic!("not me");
        };
        assert_eq!(set, Outcome::Me(me.clone()));
        same(&mut alice, "me.get", json!({}), as_json(&me));
    }
}

#[test]
fn a_bad_call_in_protobuf_is_refused_in_protobuf() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.subscribe("chat/me/rpc/+");
        let rows = [
            (
                "conv.get",
                Params::ConvGet(ConvGet::default()),
                "format",
                "field `cid` is missing",
            ),
            (
                "conv.get",
                Params::MeGet(MeGet {}),
                "format",
                "the parameters are those of me.get",
            ),
            (
                "no.such",
                Params::MeGet(MeGet {}),
                "format",
                "not of `no.such`",
            ),
            (
                "conv.get",
                Params::ConvGet(ConvGet {
                    cid: "@nobody".into(),
                }),
                "not_found",
                "no such user",
            ),
        ];
        for (number, (method, params, code, said)) in rows.into_iter().enumerate() {
            let outcome = call(&mut alice, version, params, method, &format!("r{number}"));
            let Outcome::Error(error) = outcome else {
                panic!("{method}: {outcome:?}");
            };
            assert_eq!(error.code, code, "{error:?}");
            assert!(error.message.contains(said), "{error:?}");
        }
        alice.publish("chat/rpc/me.get/broken", marked(b"\x0a\x05x"));
        let reply = RpcReply::decode(&*alice.next_on("chat/me/rpc/broken").payload).unwrap();
        assert!(matches!(reply.result, Some(Outcome::Error(error)) if error.code == "format"));
        alice.publish("chat/rpc/me.get/short", [PROTOBUF_MARK]);
        let reply = RpcReply::decode(&*alice.next_on("chat/me/rpc/short").payload).unwrap();
        assert!(
            matches!(reply.result, Some(Outcome::Me(me)) if me.handle == "alice"),
            "where nothing has to be said nothing has to be sent"
        );
    }
}

#[test]
fn actions_are_those_of_json_in_protobuf() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user: &str| Login::new(user).version(version).connect(server.address());
        let (mut alice, mut bob) = (login("alice"), login("bob"));
        alice.subscribe("chat/me/rpc/+");
        send(
            &mut alice,
            version,
            "chat/to/@bob",
            &message("first").encode_to_vec(),
        );
        let direct = alice.call("conv.get", &json!({"cid": "@bob"})).unwrap();
        let cid = direct["cid"].as_str().unwrap().to_owned();
        let on = |action: &str| format!("chat/c/{cid}/m/1/{action}");
        send(
            &mut alice,
            version,
            &on("edit"),
            &message("better").encode_to_vec(),
        );
        send(
            &mut bob,
            version,
            &on("reply"),
            &message("indeed").encode_to_vec(),
        );
        let react = Params::MsgReact(MsgReact {
            cid: cid.clone(),
            seq: 1,
            emoji: Some("👍".into()),
            ..MsgReact::default()
        });
        for (req, seq) in [("r1", 4), ("r2", 0)] {
            let done = call(&mut alice, version, react.clone(), "msg.react", req);
            assert!(
                matches!(&done, Outcome::Changed(done) if done.seq == seq),
                "{done:?}"
            );
        }
        let page = Params::MsgReactions(MsgReactions {
            cid: cid.clone(),
            seq: 1,
            ..MsgReactions::default()
        });
        let page = call(&mut alice, version, page, "msg.reactions", "r3");
        assert!(
            matches!(&page, Outcome::Reactions(page) if page.reactions[0].emoji == ["👍"]),
            "{page:?}"
        );
        let history = Params::MsgHistory(MsgHistory {
            cid: cid.clone(),
            ..MsgHistory::default()
        });
        let Outcome::History(page) = call(&mut alice, version, history, "msg.history", "r4") else {
            panic!("no history");
        };
        let first = &page.entries[0];
        assert_eq!(first.m.as_ref().unwrap().t, "better");
        assert_eq!(first.edited.as_ref().unwrap().seq, 2);
        let [reaction] = &first.reactions[..] else {
            panic!("{first:?}")
        };
        assert_eq!((reaction.count, reaction.mine), (1, true));
        assert_eq!(
            (page.entries[1].kind.as_str(), page.entries[1].target),
            ("edit", Some(1))
        );
        assert_eq!(page.entries[2].reply_to, Some(1));
        assert_eq!(page.entries[3].data.as_ref().unwrap().op, "add");

        alice.publish(&on("del"), "all");
        let mut late = login("bob");
        late.subscribe("chat/me/pb/+");
        for _ in 0..2 {
            let gone = entry(&late.next_message());
            assert_eq!(
                (gone.kind.as_str(), gone.reason.as_str()),
                ("gone", "deleted")
            );
            assert!(gone.m.is_none() && gone.reactions.is_empty());
        }
    }
}
