//! Channels: a few write, and many read, who come and go without a word.

use broker::codec::packet::{Qos, Version};
use broker::codec::reason::ReasonCode;
use proto::payload::PROTOBUF_MARK;
use proto::schema::rpc_reply::Result as Outcome;
use proto::schema::rpc_request::Params;
use proto::schema::{
    ConvCreate, ConvJoin, ConvReaders, Message as _, RpcReply, RpcRequest, SearchConversations,
};
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, VERSIONS, eventually};

fn channel(owner: &mut Client, settings: Value) -> String {
    let mut request = settings;
    request["kind"] = json!("channel");
    let made = owner.call("conv.create", &request).unwrap();
    assert_eq!(
        (&made["kind"], &made["role"]),
        (&json!("channel"), &json!("owner"))
    );
    made["cid"].as_str().unwrap().to_owned()
}

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

/// What a publish is refused with, as this version tells it.
fn refusal(client: &mut Client, topic: &str, payload: &str) -> Option<String> {
    client.publish(topic, payload);
    let notice = client.arrived()?;
    let notice: Value = serde_json::from_slice(&notice.payload).unwrap();
    Some(notice["error"].as_str().unwrap().to_owned())
}

fn texts(entries: &[Value]) -> Vec<&str> {
    let texts = entries.iter().filter_map(|entry| entry["t"].as_str());
    texts.collect()
}

#[test]
fn readers_come_read_react_and_go_and_the_log_does_not_tell() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(connect);
        let cid = channel(
            &mut alice,
            json!({"title": "News", "public": true, "history": "all"}),
        );
        let (to, asked) = (format!("chat/to/{cid}"), json!({"cid": cid}));
        alice.publish(&to, "one");
        let shown = json!({"title": "News", "members": 1, "approval": false});
        assert_eq!(bob.call("conv.peek", &asked), Ok(shown));
        bob.subscribe("chat/me/rpc/+");
        let joined = bob.call_as("j", "conv.join", &asked).unwrap();
        assert_eq!(joined, json!({"cid": cid, "seq": 2}), "no entry of its own");
        let again = bob.call_as("j", "conv.join", &asked).unwrap();
        assert_eq!(again, json!({"cid": cid, "seq": 2, "dup": true}));
        carol.call("conv.join", &asked).unwrap();

        assert_eq!(texts(&bob.history(&cid)), ["one"]);
        bob.subscribe(&format!("chat/c/{cid}/log/from/1"));
        assert_eq!(bob.next_json()["kind"], "created");
        assert_eq!(bob.next_json()["t"], "one");
        alice.publish(&to, "two");
        let live = bob.next_json();
        assert_eq!((&live["seq"], &live["t"]), (&json!(3), &json!("two")));
        let own = bob.call("conv.get", &asked).unwrap();
        assert_eq!(own["unread"], 1, "what was said since he came");
        assert_eq!(
            (&own["role"], &own["readers"]),
            (&json!("reader"), &json!(2))
        );
        let members = own["members"].as_array().unwrap();
        assert_eq!(members.len(), 1, "readers are not listed: {members:?}");

        alice.subscribe("chat/me/rcpt/+");
        bob.publish(&format!("chat/c/{cid}/read"), "3");
        let own = bob.call("conv.get", &asked).unwrap();
        assert_eq!((&own["unread"], &own["read"]), (&json!(0), &json!(3)));
        bob.publish(&format!("chat/c/{cid}/m/3/react"), "👍");
        let reaction = bob.next_json();
        assert_eq!(reaction["kind"], "reaction");
        let seen = carol.history(&cid);
        assert_eq!(seen[2]["reactions"], json!([{"emoji": "👍", "count": 1}]));
        let status = alice
            .call("msg.status", &json!({"cid": cid, "seq": 3}))
            .unwrap();
        assert_eq!((&status["of"], &status["read"]), (&json!(0), &json!(0)));

        bob.subscribe("chat/me/err/+");
        for (topic, payload) in [
            (to.clone(), "x"),
            (format!("chat/c/{cid}/m/3/edit"), "x"),
            (format!("chat/c/{cid}/m/3/del"), "all"),
            (format!("chat/c/{cid}/m/3/pin"), "1"),
            (format!("chat/c/{cid}/m/3/reply"), "x"),
            (format!("chat/c/{cid}/typing"), "1"),
        ] {
            let told = refusal(&mut bob, &topic, payload);
            assert_eq!(told.as_deref(), Some("forbidden"), "{topic}");
        }
        let cases = [
            ("conv.readers", json!({"cid": cid})),
            ("conv.add", json!({"cid": cid, "members": ["@dave"]})),
            ("conv.ban", json!({"cid": cid, "member": "@carol"})),
            ("conv.remove", json!({"cid": cid, "member": "@carol"})),
            ("conv.settings", json!({"cid": cid, "title": "x"})),
            (
                "conv.role",
                json!({"cid": cid, "member": "@bob", "role": "member"}),
            ),
        ];
        connect("dave").disconnect();
        for (method, request) in &cases {
            assert_eq!(bob.call(method, request), refused("forbidden"), "{method}");
        }
        let listed = alice
            .call("conv.readers", &json!({"cid": cid, "limit": 1}))
            .unwrap();
        assert_eq!(listed["more"], true);
        let first = &listed["readers"][0]["uid"];
        let rest = json!({"cid": cid, "after": first});
        let rest = alice.call("conv.readers", &rest).unwrap();
        assert_eq!(rest["readers"].as_array().unwrap().len(), 1);

        bob.call("conv.leave", &asked).unwrap();
        alice.publish(&to, "three");
        assert_eq!(alice.call("conv.get", &asked).unwrap()["readers"], 1);
        assert_eq!(bob.call("conv.get", &asked), refused("not_found"));
        let told = refusal(&mut bob, &format!("chat/c/{cid}/m/3/react"), "👎");
        assert_eq!(told.as_deref(), Some("not_found"));
        assert!(bob.arrivals().is_empty(), "nothing after he left");
        let kinds: Vec<_> = alice
            .history(&cid)
            .iter()
            .map(|one| one["kind"].clone())
            .collect();
        assert_eq!(
            kinds,
            ["created", "message", "message", "reaction", "message"]
        );
        let told = alice.arrivals();
        assert!(told.is_empty(), "no receipts: {told:?}");
    }
}

#[test]
fn a_channel_comes_to_the_inboxes_of_who_watches_it() {
    for version in VERSIONS {
        let mut server = Server::in_new_directory(|launch: Launch| {
            launch.dev().variable("MQCHAT_CHAT__CHANNEL_INBOX_MAX", "1")
        });
        let session = |server: &Server, name: &str| {
            let login = Login::new(name).version(version).session(3_600);
            login.device(name).connect(server.address())
        };
        let mut alice = session(&server, "alice");
        let [mut bob, mut carol, mut dave] =
            ["bob", "carol", "dave"].map(|name| session(&server, name));
        for client in [&mut bob, &mut carol, &mut dave] {
            client.subscribe("chat/me/in/+");
        }
        let cid = channel(&mut alice, json!({"title": "News", "public": true}));
        let (to, asked) = (format!("chat/to/{cid}"), json!({"cid": cid}));
        bob.call("conv.join", &asked).unwrap();
        alice.publish(&to, "to the first");
        assert_eq!(bob.next_json()["t"], "to the first", "few: like a group");
        for client in [&mut carol, &mut dave] {
            client.call("conv.join", &asked).unwrap();
        }
        let watch = json!({"cid": cid, "watch": true});
        assert_eq!(bob.call("conv.prefs", &watch).unwrap()["watch"], true);
        carol.subscribe(&format!("chat/me/in/{cid}"));
        alice.publish(&to, "to who watches");
        assert_eq!(bob.next_json()["t"], "to who watches");
        assert_eq!(carol.next_json()["t"], "to who watches");
        assert!(dave.arrivals().is_empty());
        let unread = dave.call("conv.get", &asked).unwrap()["unread"].clone();
        assert_eq!(unread, 1, "but he is told how many he has not read");
        for client in [bob, carol, dave] {
            client.disconnect();
        }
        alice.publish(&to, "while they are away");
        server.kill();
        server.restart();

        let [mut bob, mut dave] = ["bob", "dave"].map(|name| session(&server, name));
        // The kill may have come before the last acks were stored.
        while bob.next_json()["t"] != "while they are away" {}
        assert!(dave.arrivals().is_empty());
        assert_eq!(dave.call("conv.get", &asked).unwrap()["unread"], 2);
        let mut alice = session(&server, "alice");
        assert_eq!(alice.call("conv.get", &asked).unwrap()["readers"], 3);
        bob.call("conv.prefs", &json!({"cid": cid, "watch": false}))
            .unwrap();
        alice.publish(&to, "to nobody");
        bob.ping();
        assert!(bob.arrivals().is_empty(), "no longer");
        bob.call("conv.prefs", &watch).unwrap();
        alice
            .call("conv.remove", &json!({"cid": cid, "member": "@bob"}))
            .unwrap();
        alice.publish(&to, "without him");
        assert!(bob.arrivals().is_empty(), "removed");
    }
}

#[test]
fn a_sync_tells_a_reader_which_channels_have_gone_on() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob] = ["alice", "bob"].map(connect);
        let news = channel(&mut alice, json!({"title": "News", "public": true}));
        let quiet = channel(&mut alice, json!({"title": "Quiet", "public": true}));
        bob.subscribe("chat/me/ev/account");
        bob.settle();
        let known = bob.call("sync.changes", &json!({})).unwrap()["ver"].clone();
        for cid in [&news, &quiet] {
            bob.call("conv.join", &json!({"cid": cid})).unwrap();
        }
        let told = |bob: &mut Client, known: &Value| {
            let changes = bob.call("sync.changes", &json!({"ver": known})).unwrap();
            let list = changes["conversations"].as_array().unwrap().iter();
            let list: Vec<_> = list
                .map(|one| (one["cid"].clone(), one["conversation"]["unread"].clone()))
                .collect();
            (list, changes["ver"].clone())
        };
        let (joined, known) = told(&mut bob, &known);
        assert_eq!(joined.len(), 2, "{joined:?}");
        let mut events = 0;
        while events < 2 {
            let event = bob.next_on("chat/me/ev/account");
            let event: Value = serde_json::from_slice(&event.payload).unwrap();
            let of_both = event["conversations"].as_array().unwrap().iter();
            let is_one = |one: &&Value| one["cid"] == news.as_str() || one["cid"] == quiet.as_str();
            events += of_both.filter(is_one).count();
        }
        alice.publish(&format!("chat/to/{news}"), "one");
        let (moved, next) = told(&mut bob, &known);
        assert_eq!(moved, [(json!(news), json!(1))]);
        let (again, _) = told(&mut bob, &known);
        assert_eq!(again, moved, "for the next device, too");
        assert_eq!(told(&mut bob, &next).0, []);
    }
}

#[test]
fn readers_are_promoted_banned_and_removed() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let connect = |server: &Server, name: &str| {
            Login::new(name).version(version).connect(server.address())
        };
        let mut alice = connect(&server, "alice");
        let [mut bob, mut carol] = ["bob", "carol"].map(|name| connect(&server, name));
        let cid = channel(
            &mut alice,
            json!({"title": "News", "members": ["@bob", "@carol"]}),
        );
        let (to, asked) = (format!("chat/to/{cid}"), json!({"cid": cid}));
        assert_eq!(alice.call("conv.get", &asked).unwrap()["readers"], 2);
        for client in [&mut bob, &mut carol] {
            client.subscribe(&format!("chat/c/{cid}/log"));
        }
        let role = |member: &str, role: &str| json!({"cid": cid, "member": member, "role": role});
        alice.call("conv.role", &role("@bob", "member")).unwrap();
        for client in [&mut bob, &mut carol] {
            assert_eq!(client.next_json()["kind"], "role");
        }
        assert_eq!(bob.publish(&to, "from bob").reason, ReasonCode::Success);
        assert_eq!(bob.next_json()["t"], "from bob");
        assert_eq!(carol.next_json()["t"], "from bob");
        alice.call("conv.role", &role("@bob", "reader")).unwrap();
        assert_eq!(bob.next_json()["kind"], "role", "he still reads");
        assert_eq!(carol.next_json()["kind"], "role");
        bob.subscribe("chat/me/err/+");
        assert_eq!(
            refusal(&mut bob, &to, "again").as_deref(),
            Some("forbidden")
        );
        alice
            .call("conv.ban", &json!({"cid": cid, "member": "@bob"}))
            .unwrap();
        assert_eq!(bob.next_json()["kind"], "banned", "the last that he gets");
        assert_eq!(carol.next_json()["kind"], "banned");
        alice
            .call("conv.remove", &json!({"cid": cid, "member": "@carol"}))
            .unwrap();
        alice.publish(&to, "to nobody");
        for client in [&mut bob, &mut carol] {
            assert!(client.arrivals().is_empty());
            assert_eq!(client.call("conv.get", &asked), refused("not_found"));
        }
        server.kill();
        server.restart();
        let mut alice = connect(&server, "alice");
        let [mut bob, mut carol] = ["bob", "carol"].map(|name| connect(&server, name));
        assert_eq!(alice.call("conv.get", &asked).unwrap()["readers"], 0);
        alice
            .call("conv.settings", &json!({"cid": cid, "public": true}))
            .unwrap();
        assert_eq!(bob.call("conv.join", &asked), refused("forbidden"));
        carol.call("conv.join", &asked).unwrap();
        assert_eq!(carol.call("conv.leave", &asked).unwrap()["cid"], json!(cid));
        carol.call("conv.join", &asked).unwrap();
        let leaves = alice.call("conv.leave", &asked);
        assert_eq!(leaves, refused("last_owner"), "somebody reads");
        let hands_over = json!({"cid": cid, "owner": "@carol"});
        alice.call("conv.leave", &hands_over).unwrap();
        let own = carol.call("conv.get", &asked).unwrap();
        assert_eq!(
            (&own["role"], &own["readers"]),
            (&json!("owner"), &json!(0))
        );
    }
}

#[test]
fn a_private_channel_is_nothing_to_a_stranger_and_to_who_was_removed() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut eve] = ["alice", "bob", "eve"].map(connect);
        let cid = channel(&mut alice, json!({"title": "Secret", "members": ["@bob"]}));
        let asked = json!({"cid": cid});
        alice
            .call("conv.remove", &json!({"cid": cid, "member": "@bob"}))
            .unwrap();
        alice.publish(&format!("chat/to/{cid}"), "after him");
        for client in [&mut bob, &mut eve] {
            client.subscribe("chat/me/in/+");
            client.subscribe("chat/me/err/+");
            for method in [
                "conv.get",
                "conv.join",
                "conv.peek",
                "conv.readers",
                "conv.leave",
            ] {
                assert_eq!(
                    client.call(method, &asked),
                    refused("not_found"),
                    "{method}"
                );
            }
            for topic in ["m/2/react", "m/2/report", "m/2/edit"] {
                let topic = format!("chat/c/{cid}/{topic}");
                let payload = if topic.ends_with("react") {
                    "👍"
                } else {
                    "1"
                };
                let told = refusal(client, &topic, payload);
                assert_eq!(told.as_deref(), Some("not_found"), "{topic}");
            }
            let listed = client.call("conv.list", &json!({})).unwrap();
            assert_eq!(listed["conversations"], json!([]));
            let found = client.call("search.conversations", &json!({"q": "secret"}));
            assert_eq!(found.unwrap()["conversations"], json!([]));
        }
        let filter = format!("chat/c/{cid}/log/from/1");
        let inbox = format!("chat/me/in/{cid}");
        for filter in [&filter, &inbox] {
            assert!(eve.try_subscribe(filter, Qos::AtLeastOnce).is_error());
        }
        assert!(bob.try_subscribe(&inbox, Qos::AtLeastOnce).is_error());
        assert_eq!(eve.call("msg.history", &asked), refused("not_found"));
        let past = texts(&bob.history(&cid)).len();
        assert_eq!(past, 0, "nothing of what was said after he had gone");
        assert!(eve.arrivals().is_empty() && bob.arrivals().is_empty());
    }
}

#[test]
fn what_is_for_all_is_found_and_joined_by_title_and_tags() {
    for version in VERSIONS {
        let server = Server::in_new_directory(|launch: Launch| {
            launch
                .dev()
                .variable("MQCHAT_CHAT__USER_SEARCHES_BURST", "14")
        });
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob] = ["alice", "bob"].map(connect);
        let settings = json!({"title": "Morning News", "public": true, "tags": "Chess go"});
        let news = channel(&mut alice, settings);
        let group = json!({"title": "Morning run", "public": true, "approval": true});
        let run = alice.call("conv.create", &group).unwrap()["cid"].clone();
        channel(&mut alice, json!({"title": "Morning secret"}));
        let find = |client: &mut Client, question: &str| {
            let asked = json!({"q": question});
            let found = client.call("search.conversations", &asked)?;
            let found = found["conversations"].as_array().unwrap().clone();
            Ok::<_, String>(found)
        };
        let cids = |found: Vec<Value>| -> Vec<Value> {
            found.into_iter().map(|hit| hit["cid"].clone()).collect()
        };
        let mut both = cids(find(&mut bob, "morn").unwrap());
        both.sort_by_key(|cid| cid == &run);
        assert_eq!(both, [json!(news), run.clone()]);
        let hits = find(&mut bob, "chess news").unwrap();
        let shown = json!({"cid": news, "kind": "channel", "title": "Morning News", "tags": ["chess", "go"],
            "members": 1, "approval": false});
        assert_eq!(hits, [shown]);
        assert_eq!(find(&mut bob, "se"), refused("format"));
        assert_eq!(find(&mut bob, "secret").unwrap(), [] as [Value; 0]);
        alice
            .call(
                "conv.settings",
                &json!({"cid": news, "title": "Evening", "tags": ""}),
            )
            .unwrap();
        assert_eq!(find(&mut bob, "chess").unwrap(), [] as [Value; 0]);
        assert_eq!(cids(find(&mut bob, "evening").unwrap()), [json!(news)]);
        alice
            .call("conv.ban", &json!({"cid": news, "member": "@bob"}))
            .unwrap();
        assert_eq!(find(&mut bob, "evening").unwrap(), [] as [Value; 0]);
        alice
            .call("conv.settings", &json!({"cid": run, "public": false}))
            .unwrap();
        assert_eq!(find(&mut bob, "morning").unwrap(), [] as [Value; 0]);
        let limit = (0..9).find_map(|_| find(&mut bob, "morning").err());
        assert_eq!(limit.as_deref(), Some("rate"));
        let bad = json!({"kind": "channel", "tags": "two-words"});
        assert_eq!(alice.call("conv.create", &bad), refused("format"));
    }
}

#[test]
fn limits_of_channels_are_told() {
    let server = Server::in_new_directory(|launch: Launch| {
        let launch = launch
            .dev()
            .variable("MQCHAT_CHAT__CHANNEL_READERS_MAX", "2");
        launch.variable("MQCHAT_CHAT__GROUP_MEMBERS_MAX", "2")
    });
    let connect = |name: &str| Login::new(name).connect(server.address());
    let [mut alice, _bob, _carol, mut dave] = ["alice", "bob", "carol", "dave"].map(connect);
    let many = json!({"kind": "channel", "members": ["@bob", "@carol", "@dave"]});
    assert_eq!(alice.call("conv.create", &many), refused("limit"));
    let cid = channel(
        &mut alice,
        json!({"public": true, "members": ["@bob", "@carol"]}),
    );
    let asked = json!({"cid": cid});
    assert_eq!(dave.call("conv.join", &asked), refused("limit"));
    let add = json!({"cid": cid, "members": ["@dave"], "role": "member"});
    alice.call("conv.add", &add).unwrap();
    let nobody = json!({"cid": cid, "member": "@bob", "role": "nobody"});
    assert_eq!(alice.call("conv.role", &nobody), refused("format"));
    let role = |member: &str, role: &str| json!({"cid": cid, "member": member, "role": role});
    let promoted = alice.call("conv.role", &role("@bob", "member"));
    assert_eq!(promoted, refused("limit"), "not by promotion either");
    let heir = json!({"cid": cid, "member": "@bob"});
    assert_eq!(alice.call("conv.transfer", &heir), refused("limit"));
    let demoted = alice.call("conv.role", &role("@dave", "reader"));
    assert_eq!(demoted, refused("limit"), "nor by the contrary");
}

#[test]
fn a_channel_that_nobody_owns_any_more_is_closed_and_found_by_nobody() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut carol, mut dave] =
            ["alice", "bob", "carol", "dave"].map(connect);
        let public = |title: &str| json!({"title": title, "public": true});
        let read = channel(&mut alice, public("Read by bob"));
        let (asked, found) = (json!({"cid": read}), json!({"q": "read"}));
        bob.call("conv.join", &asked).unwrap();
        let of_carol = json!({"cid": channel(&mut carol, public("Lonely"))});
        carol.call("conv.leave", &of_carol).unwrap();
        assert_eq!(dave.call("conv.join", &of_carol), refused("not_found"));
        assert_eq!(carol.call("conv.join", &of_carol), refused("not_found"));

        let password = json!({"password": "alice-secret"}).to_string();
        alice.publish("chat/rpc/me.delete", password);
        eventually("the channel to be closed", || {
            let own = bob.call("conv.get", &asked).unwrap();
            (own["closed"] == true).then_some(())
        });
        assert_eq!(dave.call("conv.join", &asked), refused("not_found"));
        let found = dave.call("search.conversations", &found).unwrap();
        assert_eq!(found["conversations"], json!([]));
        bob.call("conv.leave", &asked).unwrap();
    }
}

#[test]
fn what_a_reader_is_given_he_can_use_and_what_he_wants_is_his_own_affair() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(connect);
        let cid = channel(&mut alice, json!({"title": "News", "members": ["@bob"]}));
        let asked = json!({"cid": cid});
        let given = json!({"cid": cid, "member": "@bob", "given": "react invite"});
        alice.call("conv.rights", &given).unwrap();
        let told = alice.history(&cid).len();
        for want in ["react invite", "invite", "default"] {
            let want = json!({"cid": cid, "want": want});
            bob.call("conv.rights", &want).unwrap();
        }
        assert_eq!(alice.history(&cid).len(), told, "nobody is told");
        let want = json!({"cid": cid, "want": "invite"});
        bob.call("conv.rights", &want).unwrap();
        alice.publish(&format!("chat/to/{cid}"), "hello");
        bob.subscribe("chat/me/err/+");
        let react = format!("chat/c/{cid}/m/{}/react", told + 1);
        assert_eq!(
            refusal(&mut bob, &react, "+1").as_deref(),
            Some("forbidden")
        );
        let code = bob.call("conv.invite", &asked).unwrap()["code"].clone();
        let code = json!({"code": code});
        assert_eq!(carol.call("conv.peek", &code).unwrap()["title"], "News");
        carol.call("conv.join", &code).unwrap();
        assert_eq!(carol.call("conv.get", &asked).unwrap()["role"], "reader");
    }
}

/// Calls a method in protobuf with the mark before it.
fn in_protobuf(client: &mut Client, method: &str, req: &str, params: Params) -> Outcome {
    let request = RpcRequest {
        params: Some(params),
    };
    let bytes = [&[PROTOBUF_MARK][..], &request.encode_to_vec()].concat();
    client.publish(&format!("chat/rpc/{method}/{req}"), bytes);
    let reply = client.next_on(&format!("chat/me/rpc/{req}"));
    RpcReply::decode(&*reply.payload).unwrap().result.unwrap()
}

#[test]
fn channels_are_made_joined_and_found_in_protobuf() {
    let server = Server::dev();
    let connect = |name: &str| {
        let login = Login::new(name).version(Version::V311);
        let mut client = login.connect(server.address());
        client.subscribe("chat/me/rpc/+");
        client
    };
    let [mut alice, mut bob] = ["alice", "bob"].map(connect);
    let create = Params::ConvCreate(ConvCreate {
        kind: "channel".into(),
        title: Some("Morning News".into()),
        public: true,
        tags: "chess".into(),
        ..ConvCreate::default()
    });
    let Outcome::Conversation(made) = in_protobuf(&mut alice, "conv.create", "1", create) else {
        panic!("no conversation")
    };
    assert_eq!(
        (made.readers, &*made.tags),
        (Some(0), &["chess".to_owned()][..])
    );
    let search = Params::SearchConversations(SearchConversations {
        q: "ches".into(),
        limit: None,
    });
    let found = in_protobuf(&mut bob, "search.conversations", "2", search);
    let Outcome::Found(found) = found else {
        panic!("{found:?}")
    };
    assert_eq!(found.conversations[0].cid, made.cid);
    let join = Params::ConvJoin(ConvJoin {
        cid: Some(made.cid.clone()),
        ..ConvJoin::default()
    });
    let joined = in_protobuf(&mut bob, "conv.join", "3", join);
    assert!(matches!(joined, Outcome::Joined(_)), "{joined:?}");
    let readers = |limit| {
        Params::ConvReaders(ConvReaders {
            cid: made.cid.clone(),
            limit,
            ..ConvReaders::default()
        })
    };
    let Outcome::Readers(listed) = in_protobuf(&mut alice, "conv.readers", "4", readers(None))
    else {
        panic!("no readers")
    };
    assert_eq!(listed.readers[0].handle, "bob");
    let refused = in_protobuf(&mut bob, "conv.readers", "5", readers(Some(1)));
    let Outcome::Error(error) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(error.code, "forbidden");
}
