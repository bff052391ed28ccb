//! How strangers come in: by invitation, into what is public, and after approval.

use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

fn group(alice: &mut Client, settings: Value) -> String {
    let mut request = settings;
    request["title"] = json!("Lunch");
    let made = alice.call("conv.create", &request).unwrap();
    made["cid"].as_str().unwrap().to_owned()
}

fn not_found<T>() -> Result<T, String> {
    Err("not_found".to_owned())
}

#[test]
fn whoever_has_a_code_joins_as_long_as_it_is_worth_something() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let connect = |server: &Server, name: &str| {
            Login::new(name).version(version).connect(server.address())
        };
        let mut alice = connect(&server, "alice");
        alice.subscribe("chat/me/in/+");
        let cid = group(&mut alice, json!({"history": "all"}));
        alice.subscribe("chat/me/rpc/+");
        let twice = json!({"cid": cid, "uses": 2, "role": "reader"});
        let first = alice.call_as("i-1", "conv.invite", &twice).unwrap();
        let again = alice.call_as("i-1", "conv.invite", &twice).unwrap();
        assert_eq!(first["id"], again["id"], "one invitation");
        assert_ne!(first["code"], again["code"]);
        assert_eq!(first["created"], again["created"], "as it was made");
        assert_eq!(first["code"].as_str().unwrap().len(), 26);
        server.kill();
        server.restart();

        let mut alice = connect(&server, "alice");
        let [mut bob, mut carol, mut dave] =
            ["bob", "carol", "dave"].map(|name| connect(&server, name));
        let code = |invitation: &Value| json!({"code": invitation["code"]});
        let glimpse = bob.call("conv.peek", &code(&first)).unwrap();
        let shown = json!({"title": "Lunch", "members": 1, "approval": false});
        assert_eq!(glimpse, shown, "that and nothing else");
        assert_eq!(bob.call("conv.get", &json!({"cid": cid})), not_found());
        bob.subscribe("chat/me/rpc/+");
        let joined = bob.call_as("j-1", "conv.join", &code(&first)).unwrap();
        let retried = bob.call_as("j-1", "conv.join", &code(&first)).unwrap();
        assert_eq!(joined["seq"], 2);
        assert_eq!(retried, json!({"cid": cid, "seq": 2, "dup": true}));
        let member = bob.call("conv.join", &code(&first)).unwrap();
        assert_eq!(member, json!({"cid": cid, "seq": 2}), "he is in");
        let own = bob.call("conv.get", &json!({"cid": cid})).unwrap();
        assert_eq!(own["role"], "reader");
        carol.call("conv.join", &code(&again)).unwrap();
        let log = alice.history(&cid);
        let uid = bob.call("me.get", &json!({})).unwrap()["uid"].clone();
        assert_eq!(log[1]["kind"], "joined");
        assert_eq!(
            log[1]["data"],
            json!({"uid": uid, "role": "reader", "via": "link"})
        );
        assert_eq!(bob.history(&cid).len(), 3, "as the settings say");

        // Every miss is the same.
        let gone = json!({"cid": cid, "expires_s": 0});
        let revoked = alice.call("conv.invite", &gone).unwrap();
        let id = json!({"cid": cid, "id": revoked["id"]});
        for _ in 0..2 {
            alice.call("conv.revoke", &id).unwrap();
        }
        let listed = alice
            .call("conv.invitations", &json!({"cid": cid}))
            .unwrap();
        let listed = listed["invitations"].as_array().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["uses"], 2);
        assert_eq!(listed[0].get("code"), None);
        let misses = [
            code(&first),
            code(&revoked),
            json!({"code": "0".repeat(26)}),
            json!({"code": "not a code"}),
            json!({"code": ""}),
        ];
        let told = misses.map(|miss| {
            let refused =
                ["conv.peek", "conv.join"].map(|method| dave.try_call(method, &miss).unwrap_err());
            assert_eq!(refused[0], refused[1]);
            refused[0].clone()
        });
        assert_eq!(told[0]["code"], "not_found");
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    }
}

#[test]
fn an_invitation_reaches_no_further_than_its_maker() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut carol, mut eve] =
            ["alice", "bob", "carol", "eve"].map(connect);
        let request = json!({"members": ["@bob", "@carol"], "roles": {"@bob": "admin"}});
        let cid = group(&mut alice, request);
        let invite = |client: &mut Client, role: &str| {
            client.call("conv.invite", &json!({"cid": cid, "role": role}))
        };
        let forbidden = Err("forbidden".to_owned());
        assert_eq!(invite(&mut carol, "member"), forbidden);
        assert_eq!(invite(&mut bob, "admin"), forbidden);
        assert_eq!(invite(&mut eve, "member"), not_found());
        let asked = json!({"cid": cid});
        assert_eq!(carol.call("conv.invitations", &asked), forbidden);
        assert_eq!(eve.call("conv.invitations", &asked), not_found());
        let long = json!({"cid": cid, "expires_s": 400_000_000});
        let long = alice.call("conv.invite", &long);
        assert_eq!(long, Err("format".to_owned()));

        let moderator = invite(&mut bob, "moderator").unwrap();
        let code = json!({"code": moderator["code"]});
        let id = json!({"cid": cid, "id": moderator["id"]});
        assert_eq!(carol.call("conv.revoke", &id), forbidden);
        let demote = json!({"cid": cid, "member": "@bob", "role": "member"});
        alice.call("conv.role", &demote).unwrap();
        for method in ["conv.peek", "conv.join"] {
            assert_eq!(
                eve.call(method, &code),
                not_found(),
                "its maker may no longer"
            );
        }
        let promote = json!({"cid": cid, "member": "@bob", "role": "admin"});
        alice.call("conv.role", &promote).unwrap();
        eve.call("conv.join", &code).unwrap();
        let own = eve.call("conv.get", &asked).unwrap();
        assert_eq!(own["role"], "moderator");

        // Who comes back by himself comes back with no more than he had.
        let reader = json!({"cid": cid, "member": "@eve", "role": "reader"});
        alice.call("conv.role", &reader).unwrap();
        eve.call("conv.leave", &asked).unwrap();
        eve.call("conv.join", &code).unwrap();
        let own = eve.call("conv.get", &asked).unwrap();
        assert_eq!(own["role"], "reader");
    }
}

#[test]
fn who_asks_to_join_waits_for_those_who_may_let_him_in() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let connect = |server: &Server, name: &str| {
            Login::new(name).version(version).connect(server.address())
        };
        let names = ["alice", "bob", "carol", "dave", "eve"];
        let [mut alice, mut bob, mut carol, mut dave, mut eve] =
            names.map(|name| connect(&server, name));
        let cid = group(&mut alice, json!({"members": ["@bob"]}));
        let asked = json!({"cid": cid, "approval": true});
        let link = alice.call("conv.invite", &asked).unwrap();
        let code = json!({"code": link["code"]});
        let known = alice.call("sync.changes", &json!({})).unwrap();
        for client in [&mut carol, &mut dave, &mut eve] {
            let waits = client.call("conv.join", &code).unwrap();
            assert_eq!(waits, json!({"cid": cid, "pending": true}));
            let again = client.call("conv.join", &code).unwrap();
            assert_eq!(again, waits);
            let seen = client.call("conv.get", &json!({"cid": cid}));
            assert_eq!(seen, not_found(), "not yet");
            let seen = client.call("msg.history", &json!({"cid": cid}));
            assert_eq!(seen, not_found());
        }
        let since = json!({"ver": known["ver"]});
        let changes = alice.call("sync.changes", &since).unwrap();
        assert_eq!(changes["conversations"][0]["conversation"]["requests"], 3);
        let changes = bob.call("sync.changes", &json!({})).unwrap();
        let shown = &changes["conversations"][0]["conversation"];
        assert_eq!(shown.get("requests"), None, "not for members");

        drop((alice, bob, carol, dave, eve));
        server.kill();
        server.restart();
        let [mut alice, mut bob, mut carol, mut dave, mut eve] =
            names.map(|name| connect(&server, name));
        carol.subscribe("chat/me/in/+");
        let page = json!({"cid": cid, "limit": 2});
        let first = alice.call("conv.requests", &page).unwrap();
        assert_eq!(first["more"], true);
        let last = first["requests"][1]["uid"].clone();
        let rest = json!({"cid": cid, "after": last});
        let rest = alice.call("conv.requests", &rest).unwrap();
        assert_eq!(
            (rest["requests"].as_array().unwrap().len(), &rest["more"]),
            (1, &json!(false))
        );
        let of = |name: &str| json!({"cid": cid, "member": name});
        for method in ["conv.approve", "conv.refuse"] {
            let refused = bob.call(method, &of("@carol"));
            assert_eq!(refused, Err("forbidden".to_owned()), "{method}");
            assert_eq!(eve.call(method, &of("@carol")), not_found(), "{method}");
        }
        assert_eq!(eve.call("conv.requests", &page), not_found());
        alice.call("conv.approve", &of("@carol")).unwrap();
        let joined = carol.next_json();
        assert_eq!(joined["kind"], "joined");
        assert_eq!(joined["data"]["via"], "request");
        assert_eq!(joined["from"]["handle"], "alice");
        alice.call("conv.refuse", &of("@dave")).unwrap();
        assert_eq!(alice.call("conv.approve", &of("@dave")), not_found());
        eve.call("conv.withdraw", &json!({"cid": cid})).unwrap();
        let nowhere = json!({"cid": "g.00000000000000000000000000"});
        eve.call("conv.withdraw", &nowhere).unwrap();
        assert_eq!(alice.call("conv.approve", &of("@eve")), not_found());
        let none = alice.call("conv.requests", &json!({"cid": cid})).unwrap();
        assert_eq!(none["requests"], json!([]));
        dave.call("conv.join", &code).unwrap();
        alice
            .call("conv.add", &json!({"cid": cid, "members": ["@dave"]}))
            .unwrap();
        let none = alice.call("conv.requests", &json!({"cid": cid})).unwrap();
        assert_eq!(none["requests"], json!([]), "who was added asks no longer");
    }
}

#[test]
fn what_is_public_can_be_joined_and_what_is_not_cannot_be_found() {
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name: &str| Login::new(name).version(version).connect(server.address());
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(connect);
        let private = group(&mut alice, json!({}));
        let public = group(&mut alice, json!({"public": true}));
        alice.publish("chat/to/@bob", "direct");
        let direct = alice.call("conv.get", &json!({"cid": "@bob"})).unwrap();
        let nowhere = "g.00000000000000000000000000".to_owned();
        let direct = direct["cid"].as_str().unwrap().to_owned();
        let mut told = Vec::new();
        for cid in [private, direct, nowhere] {
            for method in ["conv.peek", "conv.join"] {
                told.push(carol.try_call(method, &json!({"cid": cid})).unwrap_err());
            }
        }
        assert_eq!(told[0]["code"], "not_found");
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
        let way = json!({"cid": public});
        let shown = json!({"title": "Lunch", "members": 1, "approval": false});
        assert_eq!(bob.call("conv.peek", &way), Ok(shown));
        bob.call("conv.join", &way).unwrap();
        assert_eq!(bob.history(&public)[0]["data"]["via"], "open");
        let approval = json!({"cid": public, "approval": true});
        alice.call("conv.settings", &approval).unwrap();
        let waits = carol.call("conv.join", &way).unwrap();
        assert_eq!(waits["pending"], true);
        let both = carol.call("conv.join", &json!({"cid": public, "code": "x"}));
        assert_eq!(both, Err("format".to_owned()));
    }
}

#[test]
fn codes_are_not_tried_out_for_long() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut eve = Login::new("eve").version(version).connect(server.address());
        let miss = json!({"code": "0".repeat(26)});
        let mut refused: Vec<_> = (0..60)
            .map(|number| {
                let method = ["conv.peek", "conv.join"][number % 2];
                eve.call(method, &miss).unwrap_err()
            })
            .collect();
        refused.dedup();
        assert_eq!(refused, ["not_found", "rate"]);
        let mut again = Login::new("eve").version(version).connect(server.address());
        let rate = again.call("conv.join", &miss);
        assert_eq!(
            rate,
            Err("rate".to_owned()),
            "another connection has no other rate"
        );
    }
}
