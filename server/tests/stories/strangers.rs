//! A stranger can neither read nor write a conversation that is not his, nor find out whether it exists.

use broker::codec::packet::{Qos, Version};
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// Every topic of the table, with every payload that means something there, through which something could be done to a
/// conversation; those on which only the server speaks included.
fn topics(cid: &str) -> Vec<(String, String)> {
    let call = format!(r#"{{"cid":"{cid}"}}"#);
    let rows: [(&str, &[&str]); 31] = [
        (
            "chat/to/{cid}",
            &["x", r#"{"t":"x"}"#, r#"{"t":"x","mid":"m"}"#],
        ),
        ("chat/to/{cid}/mid-1", &["x", r#"{"t":"x"}"#]),
        ("chat/c/{cid}/m/1/reply", &["x"]),
        ("chat/c/{cid}/m/1/thread", &["x"]),
        ("chat/c/{cid}/m/1/edit", &["x"]),
        ("chat/c/{cid}/m/1/del", &["all", "me", ""]),
        ("chat/c/{cid}/m/1/react", &["👍", "-👍", ""]),
        ("chat/c/{cid}/m/1/pin", &["1", "0"]),
        ("chat/c/{cid}/m/1/report", &["x"]),
        (
            "chat/c/{cid}/read",
            &["1", "", r#"{"seq":1}"#, r#"{"seq":1,"private":true}"#, "99"],
        ),
        ("chat/c/{cid}/unread", &["1", "0"]),
        ("chat/c/{cid}/recv", &["1", "99"]),
        ("chat/c/{cid}/typing", &["1", "0", "rec"]),
        ("chat/c/{cid}/log", &["x"]),
        ("chat/c/{cid}/log/from/1", &["x"]),
        ("chat/c/{cid}/log/last/1", &["x"]),
        ("chat/c/{cid}", &["x"]),
        ("chat/me/in/{cid}", &["x"]),
        ("chat/me/txt/{cid}", &["alice: x"]),
        ("chat/me/pb/{cid}", &["x"]),
        ("chat/me/rcpt/{cid}", &["{}"]),
        ("chat/me/ev/typing/{cid}", &["{}"]),
        ("chat/me/ev/account", &["{}"]),
        ("chat/me/dev", &["x"]),
        ("chat/me/rpc/{cid}", &["{}"]),
        ("chat/me/err/{cid}", &["{}"]),
        ("chat/u/@alice/presence", &["offline"]),
        // Calls to which no reply can go are refused like a publish.
        ("chat/rpc/conv.get", &["CALL"]),
        ("chat/rpc/conv.leave", &["CALL"]),
        ("chat/rpc/msg.history", &["CALL"]),
        ("chat/elsewhere/{cid}", &["x"]),
    ];
    let fill = |(topic, payloads): (&str, &'static [&str])| {
        let topic = topic.replace("{cid}", cid);
        let filled = payloads
            .iter()
            .map(|payload| payload.replace("CALL", &call));
        filled
            .map(|payload| (topic.clone(), payload))
            .collect::<Vec<_>>()
    };
    rows.into_iter().flat_map(fill).collect()
}

/// Every filter that is a conversation's, and those that could catch one.
fn filters(cid: &str) -> Vec<String> {
    let filters = [
        "chat/me/in/{cid}",
        "chat/me/txt/{cid}",
        "chat/me/pb/{cid}",
        "chat/me/rcpt/{cid}",
        "chat/me/ev/typing/{cid}",
        "chat/me/+/{cid}",
        "chat/+/in/{cid}",
        "chat/+/+/{cid}",
        "chat/c/{cid}/log",
        "chat/c/{cid}/log/from/1",
        "chat/c/{cid}/log/from/0",
        "chat/c/{cid}/log/last/10",
        "chat/c/{cid}/log/#",
        "chat/c/{cid}/log/+/1",
        "chat/c/{cid}/log/from/+",
        "$share/bots/chat/c/{cid}/log",
        "$share/bots/chat/c/{cid}/log/from/1",
        "$share/bots/chat/me/in/{cid}",
        "chat/c/{cid}/#",
        "chat/c/{cid}/+",
        "chat/c/{cid}/read",
        "chat/c/{cid}/m/+/edit",
        "chat/c/{cid}/m/1/edit",
        "chat/to/{cid}",
        "chat/to/{cid}/+",
        "chat/+/{cid}/log",
        "chat/rpc/conv.get/{cid}",
        "chat/#",
        "chat/+",
        "chat/+/+",
        "chat/+/+/+",
        "chat/+/+/+/+",
        "chat/+/#",
        "chat/c/#",
        "chat/c/+/log",
        "chat/c/+/log/from/1",
        "chat/c/+/#",
        "chat/me/#",
        "chat/me/+",
        "chat/me/+/+",
        "chat/me/in/#",
        "chat/me/in",
        "chat/to/#",
        "chat/to/+",
        "chat/to/@alice",
        "chat/u/#",
        "chat/u/+/presence",
        "chat/u/@alice/+",
        "chat/u/@alice/presence",
        "chat/u/@bob/presence",
        "chat/u/@nobody/presence",
        "chat/u/{cid}/presence",
        "chat/u/@alice/in/{cid}",
        "$share/x/chat/#",
        "$share/x/chat/me/in/+",
        "chat/rpc/#",
        "chat/rpc/+",
    ];
    filters.map(|filter| filter.replace("{cid}", cid)).into()
}

/// Filters outside of `chat/`, which ordinary MQTT grants: they must not match what is below it.
fn root_filters(cid: &str) -> Vec<String> {
    let filters = [
        "#",
        "+/#",
        "+/+/+/+",
        "+/me/in/{cid}",
        "+/me/in/+",
        "+/c/{cid}/log",
        "+/c/{cid}/#",
        "+/to/#",
        "+/u/+/presence",
        "+/me/ev/typing/+",
    ];
    filters.map(|filter| filter.replace("{cid}", cid)).into()
}

/// Calls that name a conversation.
fn calls(cid: &str) -> Vec<(&'static str, Value)> {
    let role = |member: &str, role: &str| json!({"cid": cid, "member": member, "role": role});
    vec![
        ("conv.get", json!({"cid": cid})),
        ("conv.add", json!({"cid": cid, "members": ["@eve"]})),
        (
            "conv.add",
            json!({"cid": cid, "members": ["me"], "role": "owner"}),
        ),
        ("conv.remove", json!({"cid": cid, "member": "@alice"})),
        ("conv.remove", json!({"cid": cid, "member": "@eve"})),
        ("conv.leave", json!({"cid": cid})),
        ("conv.leave", json!({"cid": cid, "owner": "@alice"})),
        ("conv.role", role("@eve", "owner")),
        ("conv.role", role("@alice", "reader")),
        ("conv.settings", json!({"cid": cid, "title": "Eve's"})),
        ("conv.settings", json!({"cid": cid, "history": "all"})),
        ("conv.settings", json!({"cid": cid, "closed": true})),
        ("conv.transfer", json!({"cid": cid, "member": "@eve"})),
        ("conv.rights", json!({"cid": cid, "want": "send"})),
        (
            "conv.rights",
            json!({"cid": cid, "member": "@alice", "given": ""}),
        ),
        ("conv.ban", json!({"cid": cid, "member": "@alice"})),
        ("conv.unban", json!({"cid": cid, "member": "@eve"})),
        ("conv.bans", json!({"cid": cid})),
        ("conv.invite", json!({"cid": cid})),
        ("conv.invitations", json!({"cid": cid})),
        (
            "conv.revoke",
            json!({"cid": cid, "id": "00000000000000000000000000"}),
        ),
        ("conv.peek", json!({"cid": cid})),
        ("conv.join", json!({"cid": cid})),
        ("conv.requests", json!({"cid": cid})),
        ("conv.approve", json!({"cid": cid, "member": "@eve"})),
        ("conv.refuse", json!({"cid": cid, "member": "@eve"})),
        ("msg.history", json!({"cid": cid})),
        ("msg.history", json!({"cid": cid, "after": 0, "limit": 10})),
        ("msg.history", json!({"cid": cid, "before": 3, "limit": 10})),
        ("msg.status", json!({"cid": cid, "seq": 1})),
        ("msg.status", json!({"cid": cid, "seq": 99})),
        ("msg.send", json!({"cid": cid, "t": "x"})),
        ("msg.edit", json!({"cid": cid, "seq": 1, "t": "x"})),
        ("msg.delete", json!({"cid": cid, "seq": 1, "for": "all"})),
        ("msg.delete", json!({"cid": cid, "seq": 1, "for": "me"})),
        ("msg.react", json!({"cid": cid, "seq": 1, "emoji": "x"})),
        ("msg.pin", json!({"cid": cid, "seq": 1, "pinned": true})),
        ("msg.report", json!({"cid": cid, "seq": 1, "text": "x"})),
        ("msg.pins", json!({"cid": cid})),
        ("msg.reactions", json!({"cid": cid, "seq": 1})),
        ("msg.mentions", json!({"cid": cid})),
    ]
}

/// Answers of the server to everything that a stranger can try on `cid`, without the id.
fn try_everything(eve: &mut Client, version: Version, cid: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for (topic, payload) in topics(cid) {
        for qos in QOS {
            let answer = eve.publish_at(qos, &topic, &payload);
            let event = eve.next_message();
            assert!(
                event.topic.starts_with("chat/me/err/"),
                "{topic}: {event:?}"
            );
            let told: Value = serde_json::from_slice(&event.payload).unwrap();
            assert_eq!(told["error"], "not_found", "{topic} {payload}: {told}");
            if let (Version::V5, Some(answer)) = (version, &answer) {
                assert_eq!(answer.reason, ReasonCode::TopicNameInvalid, "{topic}");
            }
            let (reason, message) = (&told["reason"], &told["message"]);
            answers.push(format!("{topic} {payload}: {reason} {message} {answer:?}"));
        }
    }
    for filter in filters(cid) {
        for qos in QOS {
            let reason = eve.try_subscribe(&filter, qos);
            assert!(reason.is_error(), "{filter}: {reason:?}");
            answers.push(format!("{filter}: {reason:?}"));
        }
    }
    for (method, request) in calls(cid) {
        let error = eve.try_call(method, &request).expect_err(method);
        assert_eq!(error["code"], "not_found", "{method}");
        answers.push(format!("{method} {request}: {error}"));
    }
    answers
        .into_iter()
        .map(|answer| answer.replace(cid, "{cid}"))
        .collect()
}

/// Everything that two members see of a conversation: log, settings, members and all marks.
fn seen_by(members: [&mut Client; 2], cid: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for member in members {
        seen.push(member.call("conv.get", &json!({"cid": cid})).unwrap());
        seen.extend(member.history(cid));
    }
    seen
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
        alice.publish("chat/to/me", "to herself");
        let own = alice.call("conv.get", &json!({"cid": "me"})).unwrap()["cid"].clone();
        let own = own.as_str().unwrap().to_owned();
        let before = [&group, &direct].map(|cid| seen_by([&mut alice, &mut bob], cid));
        let note = alice.history(&own);

        eve.subscribe("chat/me/err/+");
        let nowhere = [
            "g.01arz3ndektsv4rrffq69g5fav",
            "d.01arz3ndektsv4rrffq69g5fav",
        ];
        for (cid, nowhere) in [
            (&group, nowhere[0]),
            (&direct, nowhere[1]),
            (&own, nowhere[1]),
        ] {
            let told = try_everything(&mut eve, version, cid);
            let of_nothing = try_everything(&mut eve, version, nowhere);
            for (told, of_nothing) in told.iter().zip(&of_nothing) {
                assert_eq!(told, of_nothing, "ids cannot be probed");
            }
        }
        assert_eq!(eve.arrivals(), [], "nothing beside the refusals");
        let after = [&group, &direct].map(|cid| seen_by([&mut alice, &mut bob], cid));
        assert_eq!(after, before, "nothing was written, marked or changed");
        assert_eq!(alice.history(&own), note);
        let list = eve.call("conv.list", &json!({})).unwrap();
        assert_eq!(list["conversations"], json!([]));
        assert_eq!(eve.call("me.get", &json!({})).unwrap()["unread"], 0);

        // Now with all that she may have.
        eve.subscribe("chat/me/in/+");
        eve.subscribe("chat/me/txt/+");
        eve.subscribe("chat/me/rcpt/+");
        for filter in ["chat/me/ev/typing/+", "chat/u/me/presence"] {
            let granted = eve.try_subscribe(filter, Qos::AtLeastOnce);
            assert_eq!(granted, ReasonCode::Success, "{filter}: QoS 0");
        }
        assert_eq!(eve.next_json()["state"], "online", "of herself");
        for filter in [&group, &direct]
            .into_iter()
            .flat_map(|cid| root_filters(cid))
        {
            let granted = eve.try_subscribe(&filter, Qos::AtLeastOnce);
            assert_eq!(granted, ReasonCode::GrantedQos1, "{filter}: ordinary MQTT");
        }
        alice.subscribe("chat/me/rcpt/+");
        alice.settle();
        alice.publish(&format!("chat/to/{group}"), "more for the group");
        bob.publish("chat/to/@alice", "more for alice");
        for cid in [&group, &direct] {
            alice.publish(&format!("chat/c/{cid}/typing"), "1");
        }
        bob.publish("chat/me/presence", "dnd not for eve");
        bob.publish(&format!("chat/c/{group}/read"), "3");
        // When the sender has her receipt, it has gone to everybody to whom it goes.
        while alice.next_json()["read_all"] != 3 {}
        alice.publish("chat/to/@eve", "for eve");
        for _ in 0..2 {
            let message = eve.next_message();
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            assert!(text.contains("for eve"), "{message:?}");
        }
        assert_eq!(eve.arrivals(), [], "nothing else");
        let list = eve.call("conv.list", &json!({})).unwrap();
        assert_eq!(list["conversations"].as_array().unwrap().len(), 1);
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
