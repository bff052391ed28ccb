//! Broadcast lists: one message, and as many direct ones as the list is long.

use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, VERSIONS, eventually};
use super::retention::run;

fn list(owner: &mut Client, members: &[&str]) -> String {
    let request = json!({"kind": "broadcast", "title": "Family", "members": members});
    let made = owner.call("conv.create", &request).unwrap();
    assert_eq!(made["readers"], members.len());
    made["cid"].as_str().unwrap().to_owned()
}

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

fn told(entries: &[Value]) -> Vec<(&str, &str)> {
    let told = entries.iter().map(|entry| {
        let text = entry["t"].as_str().unwrap_or_default();
        (entry["kind"].as_str().unwrap(), text)
    });
    told.collect()
}

#[test]
fn each_on_the_list_gets_a_direct_message_and_answers_there() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| {
            let mut client = Login::new(name).version(version).connect(server.address());
            client.subscribe("chat/me/in/+");
            client
        };
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        let [mut bob, mut carol, mut dave] = ["bob", "carol", "dave"].map(connect);
        dave.call("people.block", &json!({"user": "@alice"}))
            .unwrap();
        let cid = list(&mut alice, &["@bob", "@carol", "@dave"]);
        let (to, asked) = (format!("chat/to/{cid}/m-1"), json!({"cid": cid}));
        for _ in 0..2 {
            alice.publish(&to, "happy new year");
        }
        let mut direct = String::new();
        for client in [&mut bob, &mut carol] {
            let entry = client.next_json();
            assert_eq!(
                told(std::slice::from_ref(&entry)),
                [("message", "happy new year")]
            );
            assert_eq!(entry["from"]["handle"], "alice");
            direct = entry["cid"].as_str().unwrap().to_owned();
            assert!(direct.starts_with("d."), "{direct}");
            for method in ["conv.get", "msg.history", "conv.readers", "conv.leave"] {
                assert_eq!(
                    client.call(method, &asked),
                    refused("not_found"),
                    "{method}"
                );
            }
            let listed = client.call("conv.list", &json!({})).unwrap();
            assert_eq!(listed["conversations"].as_array().unwrap().len(), 1);
            assert_eq!(listed["conversations"][0]["unread"], 1);
        }
        carol.publish(&format!("chat/to/{direct}"), "and to you");
        assert_eq!(
            told(&alice.history(&direct)),
            [("message", "happy new year"), ("message", "and to you")]
        );
        assert_eq!(alice.history(&cid).len(), 2, "created, and what was said");
        for arrived in dave.arrivals() {
            let entry: Value = serde_json::from_slice(&arrived.payload).unwrap();
            let shown = told(std::slice::from_ref(&entry));
            assert_eq!(shown, [("gone", "")], "he has blocked her");
        }

        carol.publish(&format!("chat/c/{direct}/read"), "1");
        let status = json!({"cid": cid, "seq": 2});
        let found = alice.call("msg.status", &status).unwrap();
        assert_eq!((&found["of"], &found["read"]), (&json!(3), &json!(1)));
        alice
            .call("msg.delete", &json!({"cid": cid, "seq": 2, "for": "all"}))
            .unwrap();
        for client in [&mut bob, &mut carol] {
            while client.next_json()["kind"] != "deleted" {}
        }
        for (client, with) in [(&mut bob, "@alice"), (&mut alice, "@bob")] {
            let history = client.history(with);
            assert_eq!(told(&history)[0], ("gone", ""), "{history:?}");
        }
        assert_eq!(
            bob.call("conv.list", &json!({})).unwrap()["conversations"][0]["unread"],
            0
        );
    }
}

#[test]
fn a_broadcast_is_told_once_to_each_though_the_server_is_killed_in_its_midst() {
    const LENGTH: usize = 150;
    for version in VERSIONS {
        let mut server = Server::in_new_directory(|launch: Launch| {
            let launch = launch
                .dev()
                .variable("MQCHAT_ACCOUNTS__ARGON2_MEMORY_KIB", "8");
            launch.variable("MQCHAT_CHAT__USER_INVITATIONS_BURST", "1000")
        });
        let connect = |server: &Server, name: &str| {
            Login::new(name).version(version).connect(server.address())
        };
        let names: Vec<String> = (0..LENGTH).map(|number| format!("r{number}")).collect();
        for name in &names {
            connect(&server, name).disconnect();
        }
        let mut alice = connect(&server, "alice");
        let members: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        let cid = list(&mut alice, &members);
        alice.publish(&format!("chat/to/{cid}/m-1"), "one");
        alice.publish(&format!("chat/to/{cid}/m-2"), "two");
        server.kill();
        server.restart();
        for name in &names {
            let mut client = connect(&server, name);
            client.subscribe("chat/me/in/+");
            let arrived = [client.next_json(), client.next_json()];
            assert_eq!(told(&arrived), [("message", "one"), ("message", "two")]);
            let direct = arrived[0]["cid"].as_str().unwrap();
            assert_eq!(client.history(direct).len(), 2, "once each");
        }
        let mut alice = connect(&server, "alice");
        let status = json!({"cid": cid, "seq": 3});
        assert_eq!(alice.call("msg.status", &status).unwrap()["of"], LENGTH);
        assert_eq!(alice.history(&cid).len(), 3);
    }
}

#[test]
fn the_list_is_that_of_the_moment_and_its_owners_alone() {
    for version in VERSIONS {
        let server = Server::in_new_directory(|launch: Launch| {
            let launch = launch
                .dev()
                .variable("MQCHAT_CHAT__BROADCAST_RECIPIENTS_MAX", "2");
            launch.variable("MQCHAT_CHAT__USER_BROADCASTS_BURST", "4")
        });
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut carol, _dave] = ["alice", "bob", "carol", "dave"].map(connect);
        for client in [&mut bob, &mut carol] {
            client.subscribe("chat/me/in/+");
        }
        let cid = list(&mut alice, &["@bob"]);
        let to = format!("chat/to/{cid}");
        let add = |member: &str| json!({"cid": cid, "members": [member]});
        alice.publish(&to, "to bob");
        assert_eq!(bob.next_json()["t"], "to bob");
        alice.call("conv.add", &add("@carol")).unwrap();
        assert_eq!(alice.call("conv.add", &add("@dave")), refused("limit"));
        alice
            .call("conv.remove", &json!({"cid": cid, "member": "@bob"}))
            .unwrap();
        alice.publish(&to, "to carol");
        assert_eq!(
            carol.next_json()["t"],
            "to carol",
            "and nothing from before"
        );
        assert!(bob.arrivals().is_empty());
        let listed = alice.call("conv.readers", &json!({"cid": cid})).unwrap();
        assert_eq!(listed["readers"].as_array().unwrap().len(), 1);
        assert_eq!(listed["readers"][0]["handle"], "carol");

        let request = |fields: Value| {
            let mut request = fields;
            request["cid"] = json!(cid);
            request
        };
        for (method, fields, code) in [
            (
                "conv.add",
                json!({"members": ["@dave"], "role": "member"}),
                "forbidden",
            ),
            ("conv.add", json!({"members": ["@nobody"]}), "not_found"),
            ("conv.ban", json!({"member": "@carol"}), "forbidden"),
            (
                "conv.role",
                json!({"member": "@carol", "role": "member"}),
                "forbidden",
            ),
            ("conv.transfer", json!({"member": "@carol"}), "forbidden"),
            ("conv.invite", json!({}), "forbidden"),
            ("conv.settings", json!({"public": true}), "format"),
            ("conv.trim", json!({"to": 2}), "forbidden"),
            ("msg.edit", json!({"seq": 2, "t": "x"}), "forbidden"),
            ("msg.react", json!({"seq": 2, "emoji": "+1"}), "forbidden"),
            ("msg.pin", json!({"seq": 2, "pinned": true}), "forbidden"),
            ("msg.send", json!({"t": "x", "reply_to": 2}), "format"),
        ] {
            let told = alice.call(method, &request(fields));
            assert_eq!(told, refused(code), "{method}");
        }
        for client in [&mut bob, &mut carol] {
            for (method, fields) in [
                ("msg.send", json!({"t": "x"})),
                ("conv.add", json!({"members": ["@dave"]})),
                ("conv.settings", json!({"title": "x"})),
                ("msg.status", json!({"seq": 2})),
            ] {
                let told = client.call(method, &request(fields));
                assert_eq!(told, refused("not_found"), "{method}");
            }
        }
        let bad = json!({"kind": "broadcast", "public": true});
        assert_eq!(alice.call("conv.create", &bad), refused("format"));
        let send = request(json!({"t": "x"}));
        let limit = (0..9).find_map(|_| alice.call("msg.send", &send).err());
        assert_eq!(limit.as_deref(), Some("rate"));
    }
}

#[test]
fn whoever_is_no_more_is_passed_over_also_where_there_is_a_conversation() {
    let server = Server::dev();
    let [mut alice, mut bob, mut carol] =
        ["alice", "bob", "carol"].map(|name| Login::new(name).connect(server.address()));
    for client in [&mut bob, &mut carol] {
        client.subscribe("chat/me/in/+");
    }
    let cid = list(&mut alice, &["@bob", "@carol"]);
    alice.publish(&format!("chat/to/{cid}"), "to both");
    let direct = bob.next_json()["cid"].as_str().unwrap().to_owned();
    assert_eq!(carol.next_json()["t"], "to both");
    run(&server, &["user", "remove", "bob"]);
    alice.publish(&format!("chat/to/{cid}"), "to who is there");
    assert_eq!(carol.next_json()["t"], "to who is there");
    assert_eq!(told(&alice.history(&direct)), [("message", "to both")]);
}

#[test]
fn a_deletion_comes_through_to_who_talks_without_a_pause() {
    let launch = |launch: Launch| {
        let launch = launch.dev();
        let launch = launch.variable("MQCHAT_CHAT__CONVERSATION_MESSAGES_PER_S", "1");
        launch.variable("MQCHAT_CHAT__CONVERSATION_MESSAGES_BURST", "4")
    };
    let server = Server::in_new_directory(launch);
    let [mut alice, mut bob, mut carol] =
        ["alice", "bob", "carol"].map(|name| Login::new(name).connect(server.address()));
    for client in [&mut bob, &mut carol] {
        client.subscribe("chat/me/in/+");
    }
    let cid = list(&mut alice, &["@bob", "@carol"]);
    let seq = alice.publish(&format!("chat/to/{cid}"), "taken back").seq();
    let direct = bob.next_json()["cid"].as_str().unwrap().to_owned();
    carol.next_json();
    bob.unsubscribe("chat/me/in/+");
    let to_alice = format!("chat/to/{direct}");
    let mut talks = || {
        let mut answers = (0..20).map(|_| bob.publish(&to_alice, "and"));
        let is_full = answers.any(|answer| answer.get("error") == Some("rate"));
        let history = bob.history(&direct);
        let is_deleted = history.iter().any(|entry| entry["kind"] == "deleted");
        (is_full, is_deleted)
    };
    assert_eq!(talks(), (true, false), "there is no room for more");
    alice.publish(&format!("chat/c/{cid}/m/{seq}/del"), "all");
    eventually("the deletion", || talks().1.then_some(()));
}
