//! A stranger can neither read nor write a conversation that is not his, nor find out whether it exists.

use broker::codec::packet::{Qos, Version};
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

/// Every topic of the table through which something could be done to a conversation.
fn topics(cid: &str) -> Vec<(String, &'static str)> {
    let mut topics: Vec<_> = [
        ("read", "1"),
        ("read", ""),
        ("read", r#"{"seq":1,"private":true}"#),
        ("unread", "1"),
        ("recv", "1"),
        ("typing", "1"),
        ("m/1/reply", "x"),
        ("m/1/thread", "x"),
        ("m/1/edit", "x"),
        ("m/1/del", "all"),
        ("m/1/react", "👍"),
        ("m/1/pin", "1"),
        ("m/1/report", "x"),
        ("log", "x"),
    ]
    .into_iter()
    .map(|(rest, payload)| (format!("chat/c/{cid}/{rest}"), payload))
    .collect();
    for (topic, payload) in [
        (format!("chat/to/{cid}"), "x"),
        (format!("chat/to/{cid}/mid-1"), "x"),
        (format!("chat/me/in/{cid}"), "x"),
        (format!("chat/me/txt/{cid}"), "alice: x"),
        (format!("chat/me/rcpt/{cid}"), "{}"),
    ] {
        topics.push((topic, payload));
    }
    topics
}

/// Every filter that is a conversation's, and those that could catch one.
fn filters(cid: &str) -> Vec<String> {
    let own = [
        format!("chat/me/in/{cid}"),
        format!("chat/me/txt/{cid}"),
        format!("chat/me/pb/{cid}"),
        format!("chat/me/rcpt/{cid}"),
        format!("chat/me/ev/typing/{cid}"),
        format!("chat/c/{cid}/log"),
        format!("chat/c/{cid}/log/from/1"),
        format!("chat/c/{cid}/log/last/10"),
        format!("$share/bots/chat/c/{cid}/log"),
        format!("$share/bots/chat/c/{cid}/log/from/1"),
        format!("chat/c/{cid}/#"),
        format!("chat/c/{cid}/+"),
        format!("chat/c/{cid}/m/+/edit"),
        format!("chat/to/{cid}"),
        format!("chat/+/{cid}/log"),
    ];
    let catching = [
        "chat/#",
        "chat/+",
        "chat/+/+",
        "chat/+/+/+",
        "chat/+/#",
        "chat/c/#",
        "chat/c/+/log",
        "chat/c/+/#",
        "chat/me/#",
        "chat/me/+",
        "chat/me/+/+",
        "chat/me/in/#",
        "chat/to/#",
        "chat/to/+",
        "chat/u/#",
        "chat/u/+/presence",
        "chat/u/@alice/+",
        "$share/x/chat/#",
        "$share/x/chat/me/in/+",
        "chat/rpc/#",
        "chat/rpc/+",
    ];
    own.into_iter().chain(catching.map(str::to_owned)).collect()
}

/// Calls that name a conversation.
fn calls(cid: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("conv.get", json!({"cid": cid})),
        ("conv.add", json!({"cid": cid, "members": ["@eve"]})),
        ("conv.remove", json!({"cid": cid, "member": "@alice"})),
        ("conv.leave", json!({"cid": cid})),
        (
            "conv.role",
            json!({"cid": cid, "member": "@eve", "role": "owner"}),
        ),
        (
            "conv.settings",
            json!({"cid": cid, "title": "Eve's", "history": "all"}),
        ),
        ("msg.history", json!({"cid": cid})),
        ("msg.history", json!({"cid": cid, "after": 0, "limit": 10})),
        ("msg.status", json!({"cid": cid, "seq": 1})),
    ]
}

/// Answers of the server to everything that a stranger can try on `cid`.
fn try_everything(eve: &mut Client, version: Version, cid: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for (topic, payload) in topics(cid) {
        let answer = eve.publish(&topic, payload);
        let told = if version == Version::V5 {
            assert!(answer.reason.is_error(), "{topic}: {answer:?}");
            format!("{answer:?}")
        } else {
            let event = eve.next_message();
            assert!(
                event.topic.starts_with("chat/me/err/"),
                "{topic}: {event:?}"
            );
            let told: Value = serde_json::from_slice(&event.payload).unwrap();
            format!("{} {}", told["error"], told["reason"])
        };
        answers.push(told);
    }
    for filter in filters(cid) {
        let reason = eve.try_subscribe(&filter, Qos::AtLeastOnce);
        let not_yet = ["/pb/", "/ev/typing/"]
            .iter()
            .any(|part| filter.contains(part));
        let refused = match version {
            Version::V311 => ReasonCode::UnspecifiedError,
            Version::V5 if filter.starts_with("$share/") => {
                ReasonCode::SharedSubscriptionsNotSupported
            }
            Version::V5 if not_yet => ReasonCode::ImplementationSpecificError,
            Version::V5 => ReasonCode::NotAuthorized,
        };
        assert_eq!(reason, refused, "{filter}");
    }
    for (method, request) in calls(cid) {
        let code = eve.call(method, &request).expect_err(method);
        assert_eq!(code, "not_found", "{method}");
        answers.push(code);
    }
    answers
}

#[test]
fn a_stranger_reaches_nothing_and_learns_nothing() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user| Login::new(user).version(version).connect(server.address());
        let (mut alice, mut bob, mut eve) = (login("alice"), login("bob"), login("eve"));
        let group = alice
            .call(
                "conv.create",
                &json!({"title": "secret", "members": ["@bob"]}),
            )
            .unwrap();
        let group = group["cid"].as_str().unwrap().to_owned();
        alice.publish(&format!("chat/to/{group}"), "to the group");
        alice.publish("chat/to/@bob", "to bob");
        let direct = alice.call("conv.get", &json!({"cid": "@bob"})).unwrap()["cid"].clone();
        let direct = direct.as_str().unwrap().to_owned();
        let before = [alice.history(&group), alice.history(&direct)];
        let state =
            [&group, &direct].map(|cid| alice.call("conv.get", &json!({"cid": cid})).unwrap());

        eve.subscribe("chat/me/err/+");
        let of_group = try_everything(&mut eve, version, &group);
        let of_direct = try_everything(&mut eve, version, &direct);
        let nowhere = [
            "g.01arz3ndektsv4rrffq69g5fav",
            "d.01arz3ndektsv4rrffq69g5fav",
        ];
        assert_eq!(
            of_group,
            try_everything(&mut eve, version, nowhere[0]),
            "ids cannot be probed"
        );
        assert_eq!(
            of_direct,
            try_everything(&mut eve, version, nowhere[1]),
            "ids cannot be probed"
        );

        // Now with all that she may have.
        eve.settle();
        eve.subscribe("chat/me/in/+");
        eve.subscribe("chat/me/txt/+");
        eve.subscribe("chat/me/rcpt/+");
        for filter in ["#", "+/#", "+/+/+/+"] {
            eve.try_subscribe(filter, Qos::AtLeastOnce);
        }
        alice.publish(&format!("chat/to/{group}"), "more for the group");
        bob.publish("chat/to/@alice", "more for alice");
        bob.publish(&format!("chat/c/{group}/read"), "1");
        alice.publish("chat/to/@eve", "for eve");
        for _ in 0..2 {
            let message = eve.next_message();
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            assert!(text.contains("for eve"), "{message:?}");
        }
        for (cid, (before, state)) in [&group, &direct].into_iter().zip(before.iter().zip(&state)) {
            let now = alice.history(cid);
            assert_eq!(now[..before.len()], before[..]);
            assert_eq!(now.len(), before.len() + 1);
            let conversation = alice.call("conv.get", &json!({"cid": cid})).unwrap();
            assert_eq!(conversation["title"], state["title"]);
            let handles = |value: &Value| -> Vec<Value> {
                value["members"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|member| member["handle"].clone())
                    .collect()
            };
            assert_eq!(handles(&conversation), handles(state));
        }
    }
}

#[test]
fn replies_go_to_the_asking_connection_only() {
    let server = Server::dev();
    let mut tablet = Login::new("alice").connect(server.address());
    tablet.subscribe("chat/me/rpc/+");
    tablet.subscribe("chat/me/in/+");
    let mut phone = Login::new("alice").connect(server.address());
    phone.call("me.get", &json!({})).unwrap();
    phone.publish("chat/to/me", "note");
    assert!(
        tablet.next_message().topic.starts_with("chat/me/in/"),
        "no reply came before"
    );
}
