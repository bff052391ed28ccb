//! Remote calls, with Response Topics in 5.0 and with request ids in 3.1.1.

use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Login, Server, VERSIONS};

fn handles_and_roles(conversation: &Value) -> Vec<(String, String)> {
    let mut members: Vec<_> = conversation["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| {
            let text = |name: &str| member[name].as_str().unwrap().to_owned();
            (text("handle"), text("role"))
        })
        .collect();
    members.sort();
    members
}

fn roles(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(handle, role)| ((*handle).to_owned(), (*role).to_owned()))
        .collect()
}

#[test]
fn life_of_a_group() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user| Login::new(user).version(version).connect(server.address());
        let (mut alice, mut bob, mut carol) = (login("alice"), login("bob"), login("carol"));
        let group = alice
            .call(
                "conv.create",
                &json!({"kind": "group", "title": "Lunch", "members": ["@bob"], "roles": {"@bob": "admin"}}),
            )
            .unwrap();
        assert_eq!(
            (&group["title"], &group["kind"], &group["role"]),
            (&json!("Lunch"), &json!("group"), &json!("owner"))
        );
        assert_eq!(
            handles_and_roles(&group),
            roles(&[("alice", "owner"), ("bob", "admin")])
        );
        let cid = group["cid"].as_str().unwrap();

        let added = bob
            .call("conv.add", &json!({"cid": cid, "members": ["@carol"]}))
            .unwrap();
        assert_eq!(added["seq"], 2);
        let again = bob
            .call("conv.add", &json!({"cid": cid, "members": ["@carol"]}))
            .unwrap();
        assert_eq!(again["seq"], 2, "nothing changed");
        let denied = |result: Result<Value, String>| result.unwrap_err();
        assert_eq!(
            denied(carol.call("conv.add", &json!({"cid": cid, "members": ["@alice"]}))),
            "forbidden"
        );
        assert_eq!(
            denied(carol.call("conv.settings", &json!({"cid": cid, "title": "x"}))),
            "forbidden"
        );
        assert_eq!(
            denied(bob.call(
                "conv.role",
                &json!({"cid": cid, "member": "@bob", "role": "owner"})
            )),
            "forbidden"
        );
        assert_eq!(
            denied(bob.call("conv.remove", &json!({"cid": cid, "member": "@alice"}))),
            "forbidden"
        );
        assert_eq!(
            denied(bob.call("conv.add", &json!({"cid": cid, "members": ["@nobody"]}))),
            "not_found"
        );

        bob.call("conv.settings", &json!({"cid": cid, "title": "Dinner"}))
            .unwrap();
        alice
            .call(
                "conv.role",
                &json!({"cid": cid, "member": "@carol", "role": "reader"}),
            )
            .unwrap();
        assert_eq!(
            denied(alice.call("conv.leave", &json!({"cid": cid}))),
            "last_owner"
        );
        assert_eq!(
            denied(alice.call(
                "conv.role",
                &json!({"cid": cid, "member": "@alice", "role": "member"})
            )),
            "last_owner"
        );
        alice
            .call("conv.leave", &json!({"cid": cid, "owner": "@bob"}))
            .unwrap();
        assert_eq!(
            denied(alice.call("conv.get", &json!({"cid": cid}))),
            "not_found"
        );
        bob.call("conv.remove", &json!({"cid": cid, "member": "@carol"}))
            .unwrap();

        let now = bob.call("conv.get", &json!({"cid": cid})).unwrap();
        assert_eq!(now["title"], "Dinner");
        assert_eq!(handles_and_roles(&now), roles(&[("bob", "owner")]));
        let kinds: Vec<_> = bob
            .history(cid)
            .iter()
            .map(|entry| entry["kind"].clone())
            .collect();
        assert_eq!(
            kinds,
            ["created", "added", "settings", "role", "left", "removed"]
        );
        bob.call("conv.leave", &json!({"cid": cid})).unwrap();
        assert_eq!(
            bob.call("conv.list", &json!({})).unwrap()["conversations"],
            json!([])
        );
    }
}

#[test]
fn same_request_changes_something_once() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let login = Login::new("alice").version(version);
        Login::new("bob").connect(server.address()).disconnect();
        let request = json!({"title": "once", "members": ["@bob"]});
        let mut alice = login.connect(server.address());
        alice.subscribe("chat/me/rpc/+");
        let first = alice.call_as("req-1", "conv.create", &request).unwrap();
        assert_eq!(
            alice.call_as("req-1", "conv.create", &request).unwrap()["cid"],
            first["cid"]
        );
        server.restart();
        let mut alice = login.connect(server.address());
        alice.subscribe("chat/me/rpc/+");
        assert_eq!(
            alice.call_as("req-1", "conv.create", &request).unwrap()["cid"],
            first["cid"]
        );
        assert_ne!(
            alice.call_as("req-2", "conv.create", &request).unwrap()["cid"],
            first["cid"]
        );
        assert_eq!(alice.history(first["cid"].as_str().unwrap()).len(), 1);
    }
}

#[test]
fn a_retry_finds_what_was_done_although_it_would_be_refused_today() {
    let mut server = Server::in_new_directory(|launch| {
        let launch = launch.dev();
        launch.variable("MQCHAT_CHAT__CONVERSATIONS_PER_USER_MAX", "2")
    });
    for user in ["bob", "carol"] {
        Login::new(user).connect(server.address()).disconnect();
    }
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/rpc/+");
    let with_bob = json!({"title": "with bob", "members": ["@bob"]});
    let first = alice.call_as("a", "conv.create", &with_bob).unwrap();
    let second = alice.call_as("b", "conv.create", &with_bob).unwrap();
    assert!(alice.call_as("c", "conv.create", &with_bob).is_err());
    let again = alice.call_as("b", "conv.create", &with_bob).unwrap();
    assert_eq!(again["cid"], second["cid"]);

    let carol = json!({"cid": first["cid"], "members": ["@carol"]});
    let added = alice.call_as("d", "conv.add", &carol).unwrap()["seq"].clone();
    assert!(
        server
            .command(&["user", "remove", "carol"], "")
            .status
            .success()
    );
    assert_eq!(
        alice.call_as("d", "conv.add", &carol).unwrap()["seq"],
        added
    );
    let other = alice.call_as(
        "d",
        "conv.add",
        &json!({"cid": first["cid"], "members": ["@bob"]}),
    );
    assert_eq!(other.unwrap_err(), "idempotency_conflict");

    server.restart();
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/rpc/+");
    assert_eq!(
        alice.call_as("d", "conv.add", &carol).unwrap()["seq"],
        added
    );
}

#[test]
fn nobody_uses_up_the_conversations_of_another_one() {
    let server = Server::in_new_directory(|launch| {
        let launch = launch.dev();
        let launch = launch.variable("MQCHAT_CHAT__CONVERSATIONS_PER_USER_MAX", "2");
        let launch = launch.variable("MQCHAT_CHAT__USER_INVITATIONS_PER_MIN", "1");
        launch.variable("MQCHAT_CHAT__USER_INVITATIONS_BURST", "2")
    });
    let login = |user| {
        let mut client = Login::new(user).connect(server.address());
        client.subscribe("chat/me/rpc/+");
        client
    };
    let (mut alice, mut bob, mut eve) = (login("alice"), login("bob"), login("eve"));
    let with_bob = json!({"title": "join us", "members": ["@bob"]});
    let first = eve.call_as("1", "conv.create", &with_bob).unwrap();
    eve.call_as("2", "conv.create", &with_bob).unwrap();
    let mut eve = login("eve");
    let more = json!({"cid": first["cid"], "members": ["@alice"]});
    let refused = eve.call_as("3", "conv.add", &more).unwrap_err();
    assert_eq!(refused, "rate", "another connection has no other rate");
    let again = eve.call_as("1", "conv.create", &with_bob).unwrap();
    assert_eq!(again["cid"], first["cid"], "a retry costs nothing");

    let refused = alice.call("conv.create", &with_bob).unwrap_err();
    assert_eq!(refused, "limit", "bob is in two groups");
    let reached = alice.publish("chat/to/@bob", "hello");
    assert_eq!(reached.seq(), 1);
    for stranger in ["mallory", "trent", "walter"] {
        login(stranger).publish("chat/to/@alice", "buy this").seq();
    }
    alice.publish("chat/to/me", "her second one").seq();
    let own = bob.publish("chat/to/@eve", "his third one");
    assert_eq!(own.get("error"), Some("limit"));
}

#[test]
fn history_pages_in_both_directions() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    for number in 1..=10 {
        alice.publish("chat/to/me", number.to_string());
    }
    let mut page = |request: Value| {
        let page = alice.call("msg.history", &request).unwrap();
        assert_eq!(page["head"], 10);
        let seqs: Vec<_> = page["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect();
        (seqs, page["more"].as_bool().unwrap())
    };
    assert_eq!(
        page(json!({"cid": "me", "limit": 3})),
        (vec![8, 9, 10], true)
    );
    assert_eq!(
        page(json!({"cid": "me", "before": 8, "limit": 3})),
        (vec![5, 6, 7], true)
    );
    assert_eq!(
        page(json!({"cid": "me", "before": 3, "limit": 3})),
        (vec![1, 2], false)
    );
    assert_eq!(
        page(json!({"cid": "me", "after": 0, "limit": 4})),
        (vec![1, 2, 3, 4], true)
    );
    assert_eq!(
        page(json!({"cid": "me", "after": 7, "limit": 3})),
        (vec![8, 9, 10], false)
    );
    assert_eq!(page(json!({"cid": "me", "after": 10})), (vec![], false));
}

#[test]
fn sender_sees_who_got_and_who_read() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user| Login::new(user).version(version).connect(server.address());
        let (mut alice, mut bob, carol) = (login("alice"), login("bob"), login("carol"));
        let group = alice
            .call("conv.create", &json!({"members": ["@bob", "@carol"]}))
            .unwrap();
        let cid = group["cid"].as_str().unwrap();
        alice.subscribe("chat/me/rcpt/+");
        alice.publish(&format!("chat/to/{cid}"), "who reads this?");
        carol.disconnect();
        bob.subscribe("chat/me/in/+");
        bob.next_message();
        bob.next_message();
        bob.publish(&format!("chat/c/{cid}/read"), "2");

        let uid = bob.call("me.get", &json!({})).unwrap()["uid"].clone();
        loop {
            let receipt = alice.next_json();
            assert_eq!(
                (&receipt["cid"], &receipt["read_all"]),
                (&json!(cid), &json!(0)),
                "not all"
            );
            let moves = receipt["moves"].as_array().unwrap();
            if moves.iter().any(|step| step["u"] == uid && step["r"] == 2) {
                break;
            }
        }
        let status = alice
            .call("msg.status", &json!({"cid": cid, "seq": 2}))
            .unwrap();
        let counts = ["delivered", "read", "of"].map(|name| status[name].as_u64().unwrap());
        assert_eq!(counts, [1, 1, 2]);
        let reader = &status["members"]
            .as_array()
            .unwrap()
            .iter()
            .find(|member| member["handle"] == "bob")
            .unwrap();
        assert_eq!(
            (&reader["delivered"], &reader["read"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(
            bob.call("msg.status", &json!({"cid": cid, "seq": 2}))
                .unwrap_err(),
            "forbidden"
        );
    }
}

#[test]
fn unread_counts_what_others_wrote_after_the_mark() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    for text in ["1", "2", "3"] {
        alice.publish("chat/to/@bob", text);
    }
    bob.publish("chat/to/@alice", "4");
    alice.publish("chat/to/@bob", "5");
    let mut unread = |payload: &str| {
        if !payload.is_empty() {
            let cid = bob.call("conv.get", &json!({"cid": "@alice"})).unwrap()["cid"].clone();
            bob.publish(&format!("chat/c/{}/read", cid.as_str().unwrap()), payload);
        }
        bob.call("conv.get", &json!({"cid": "@alice"})).unwrap()["unread"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(unread(""), 4);
    assert_eq!(unread("2"), 2);
    assert_eq!(unread("1"), 2, "marks never go back");
    assert_eq!(unread(r#"{"seq":3,"private":true}"#), 1);
    assert_eq!(unread("5"), 0);
    assert_eq!(
        alice.call("conv.get", &json!({"cid": "@bob"})).unwrap()["unread"],
        1,
        "sending moves no mark"
    );
}

#[test]
fn empty_read_mark_means_what_was_delivered() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").device("phone").connect(server.address());
    bob.subscribe("chat/me/in/+");
    alice.subscribe("chat/me/rcpt/+");
    let cid = alice
        .publish("chat/to/@bob", "1")
        .get("cid")
        .unwrap()
        .to_owned();
    let read = format!("chat/c/{cid}/read");
    let mut wait_for = |name: &str, seq: u64| while alice.next_json()[name] != seq {};
    bob.next_message();
    wait_for("delivered_all", 1);
    bob.publish(&read, "");
    wait_for("read_all", 1);
    Login::new("alice")
        .connect(server.address())
        .publish("chat/to/@bob", "2");
    bob.next_message();
    wait_for("delivered_all", 2);
    // As `mosquitto_pub -n` does it, beside `mosquitto_sub`.
    Login::new("bob")
        .connect(server.address())
        .publish(&read, "");
    wait_for("read_all", 2);
}

#[test]
fn private_read_mark_is_shown_to_nobody() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut bob = Login::new("bob").connect(server.address());
    let cid = alice
        .publish("chat/to/@bob", "secret reader")
        .get("cid")
        .unwrap()
        .to_owned();
    bob.publish(&format!("chat/c/{cid}/read"), r#"{"seq":1,"private":true}"#);
    let status = alice
        .call("msg.status", &json!({"cid": cid, "seq": 1}))
        .unwrap();
    assert_eq!(status["read"], 0);
    let text = alice.call("conv.get", &json!({"cid": cid})).unwrap()["members"].to_string();
    assert!(!text.contains("private"), "{text}");
}

#[test]
fn conversations_are_listed_in_pages() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut all: Vec<String> = (0..5)
        .map(|number| {
            let group = alice
                .call("conv.create", &json!({"title": number.to_string()}))
                .unwrap();
            group["cid"].as_str().unwrap().to_owned()
        })
        .collect();
    all.sort();
    let mut listed: Vec<String> = Vec::new();
    loop {
        let request = match listed.last() {
            Some(last) => json!({"limit": 2, "after": last}),
            None => json!({"limit": 2}),
        };
        let page = alice.call("conv.list", &request).unwrap();
        let page_cids = page["conversations"].as_array().unwrap().iter();
        listed.extend(page_cids.map(|found| found["cid"].as_str().unwrap().to_owned()));
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(listed, all);
}

#[test]
fn a_page_of_conversations_fits_into_the_packets_of_the_client() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    for number in 0..100 {
        let request = json!({"title": number.to_string(), "description": "ä\n".repeat(680)});
        alice.call("conv.create", &request).unwrap();
    }
    let mut narrow = Login::new("alice")
        .maximum_packet_size(20_000)
        .connect(server.address());
    for client in [&mut alice, &mut narrow] {
        let (mut after, mut listed, mut pages) = (Value::Null, 0, 0);
        loop {
            let page = client
                .call("conv.list", &json!({"limit": 1_000, "after": after}))
                .unwrap();
            let conversations = page["conversations"].as_array().unwrap();
            listed += conversations.len();
            pages += 1;
            if page["more"] == false {
                break;
            }
            after = conversations.last().unwrap()["cid"].clone();
        }
        assert_eq!(listed, 100);
        assert!(pages > 1, "bounded by bytes, too");
    }
}

#[test]
fn conversations_that_were_left_make_room_for_others() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__CONVERSATIONS_PER_USER_MAX", "2")
    });
    let mut bob = Login::new("bob").connect(server.address());
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/err/+");
    let mut create = || alice.call("conv.create", &json!({"members": []}));
    let first = create().unwrap();
    create().unwrap();
    assert_eq!(create().unwrap_err(), "limit");
    let refused = alice.publish("chat/to/@bob", "one more");
    assert_eq!(
        (refused.reason, refused.get("error")),
        (ReasonCode::QuotaExceeded, Some("limit"))
    );
    alice
        .call("conv.leave", &json!({"cid": first["cid"]}))
        .unwrap();
    alice.publish("chat/to/@bob", "now there is room");
    assert_eq!(bob.history("@alice").len(), 1);
    let again = alice.call("conv.create", &json!({"members": []}));
    assert_eq!(again.unwrap_err(), "limit", "the direct one counts");
}

#[test]
fn a_call_costs_as_much_as_its_work() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__USER_MESSAGES_PER_S", "1")
            .variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "60")
    });
    for number in 0..30 {
        let login = Login::new(&format!("m{number}"));
        login.connect(server.address()).disconnect();
    }
    let members: Vec<_> = (0..30).map(|number| format!("@m{number}")).collect();
    let calls_until_refused = |user: &str, method: &str, request: Value| {
        let mut client = Login::new(user).connect(server.address());
        for _ in 0..6 {
            client.call("conv.create", &json!({"members": []})).unwrap();
        }
        let mut calls = 0;
        let topic = format!("chat/rpc/{method}");
        while client.publish(&topic, request.to_string()).get("error") != Some("rate") {
            calls += 1;
        }
        calls
    };
    // 53 tokens are left after the groups. Without a charge it would be so many calls.
    let request = json!({"members": members});
    let made = calls_until_refused("alice", "conv.create", request);
    assert!(made <= 4, "{made} times 31");
    for (user, method, request) in [
        ("bob", "conv.list", json!({})),
        ("carol", "me.get", json!({})),
        ("dave", "me.set", json!({"name": "Dave"})),
    ] {
        let calls = calls_until_refused(user, method, request);
        assert!((5..20).contains(&calls), "{method}: {calls} times 7");
    }
}

#[test]
fn me_is_who_is_connected() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let me = alice.call("me.get", &json!({})).unwrap();
    assert_eq!(me["handle"], "alice");
    alice.call("me.set", &json!({"name": "Alice A."})).unwrap();
    assert_eq!(
        alice.call("me.get", &json!({})).unwrap()["name"],
        "Alice A."
    );
    assert_eq!(
        alice
            .call("me.set", &json!({"name": "x".repeat(257)}))
            .unwrap_err(),
        "format"
    );
    let answer = alice.publish("chat/to/me", "note to self");
    assert_eq!(
        alice.call("conv.get", &json!({"cid": "me"})).unwrap()["cid"],
        answer.get("cid").unwrap()
    );
}

#[test]
fn bad_calls_are_refused() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    for (method, request, code) in [
        ("no.such", json!({}), "unknown_method"),
        (
            "conv.create",
            json!({"kind": "support", "members": []}),
            "format",
        ),
        ("conv.create", json!({"members": ["@nobody"]}), "not_found"),
        ("conv.create", json!({"title": "x".repeat(257)}), "format"),
        ("conv.create", json!({"members": 7}), "format"),
        ("msg.history", json!({}), "format"),
        (
            "msg.history",
            json!({"cid": "me", "before": 3, "after": 1}),
            "format",
        ),
        ("conv.leave", json!({"cid": "me"}), "not_found"),
    ] {
        assert_eq!(
            alice.call(method, &request).unwrap_err(),
            code,
            "{method} {request}"
        );
    }
    for (method, request, said) in [
        (
            "conv.create",
            json!({"title": 7}),
            "field `title` must be a text",
        ),
        (
            "conv.create",
            json!({"members": ["@bob", "Bob\u{1b}"]}),
            r"field `members[1]`: not a handle, user, conversation or me: `Bob\u{1b}`",
        ),
        ("me.set", json!({}), "nothing to change"),
        (
            "me.set",
            json!({"nam": "x"}),
            "unknown field `nam`, known: `name`, `status`, `photo`, `locale`, `tags`",
        ),
        ("me.get", json!([]), "a JSON object is wanted"),
        (
            "conv.create",
            json!({"kind": "support"}),
            "field `kind` must be one of `group`, `direct`, `channel`, `broadcast`, not `support`",
        ),
    ] {
        let error = alice.try_call(method, &request).unwrap_err();
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!("format"), &json!(said))
        );
    }
    let answer = alice.publish("chat/else\u{202e}where", "x");
    assert_eq!(
        answer.reason_string.as_deref(),
        Some(r"no such topic in chat/: `chat/else\u{202e}where`")
    );
    let done = alice.publish("chat/rpc/me.set", r#"{"name":"quiet"}"#);
    assert_eq!(
        done.reason,
        ReasonCode::Success,
        "done, though nobody is told how"
    );
    assert_eq!(alice.call("me.get", &json!({})).unwrap()["name"], "quiet");
    let refused = alice.publish("chat/rpc/me.set", r#"{"name":7}"#);
    assert_eq!(
        refused.get("error"),
        Some("format"),
        "no address for a reply"
    );
    for response_topic in ["chat/me/in/x", "chat/to/@bob", "chat/me/rpc/a/b"] {
        let properties = PublishProperties {
            response_topic: Some(response_topic.into()),
            ..PublishProperties::default()
        };
        let answer = alice.publish_with("chat/rpc/me.get", "{}", properties);
        assert_eq!(
            answer.reason,
            ReasonCode::PayloadFormatInvalid,
            "{response_topic}"
        );
    }
}
