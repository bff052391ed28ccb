//! Support cases: visitors, a queue, agents who take a case, hand it on and close it.

use std::thread;

use broker::codec::packet::{Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS, eventually};

/// A desk of alice, who owns it, and bob and carol; dave only looks on.
struct Desk {
    server: Server,
    version: Version,
    cid: String,
}

impl Desk {
    fn new(version: Version) -> (Self, Client) {
        let server = Server::dev();
        for name in ["bob", "carol", "dave"] {
            Login::new(name).connect(server.address()).disconnect();
        }
        let login = Login::new("alice").version(version);
        let mut alice = login.connect(server.address());
        let request = json!({"title": "Help", "members": ["@bob", "@carol", "@dave"],
            "roles": {"@dave": "reader"}, "desk": true});
        let made = alice.call("conv.create", &request).unwrap();
        let cid = made["cid"].as_str().unwrap().to_owned();
        let desk = Self {
            server,
            version,
            cid,
        };
        (desk, alice)
    }

    fn connect(&self, name: &str) -> Client {
        let login = Login::new(name).version(self.version);
        login.connect(self.server.address())
    }

    fn visitor(&self, host: &mut Client) -> (Client, Value) {
        let made = host
            .call("case.visitor", &json!({"desk": self.cid}))
            .unwrap();
        let login = Login::new(made["handle"].as_str().unwrap()).version(self.version);
        let login = login.password(made["token"].as_str().unwrap());
        (login.connect(self.server.address()), made)
    }

    fn open(&self, visitor: &mut Client, title: &str) -> String {
        let request = json!({"desk": self.cid, "title": title});
        let case = visitor.call("case.open", &request).unwrap();
        case["cid"].as_str().unwrap().to_owned()
    }

    fn queue(&self, agent: &mut Client, state: &str) -> Vec<String> {
        let request = json!({"desk": self.cid, "state": state});
        let queue = agent.call("case.queue", &request).unwrap();
        let cases = queue["cases"].as_array().unwrap().iter();
        cases
            .map(|case| case["cid"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn states(client: &mut Client, cid: &str) -> Vec<String> {
    let entries = client.history(cid);
    let state = |entry: &Value| match entry["kind"].as_str().unwrap() {
        "case" => entry["data"]["state"].as_str().unwrap().to_owned(),
        kind => kind.to_owned(),
    };
    entries.iter().map(state).collect()
}

#[test]
fn a_case_goes_from_the_queue_to_an_agent_to_another_and_is_closed_and_opened_again() {
    for version in VERSIONS {
        let (mut desk, mut alice) = Desk::new(version);
        let [mut bob, mut carol] = ["bob", "carol"].map(|name| desk.connect(name));
        let (mut visitor, made) = desk.visitor(&mut alice);
        visitor.subscribe("chat/me/in/+");
        let known = bob.call("sync.changes", &json!({})).unwrap();
        let case = desk.open(&mut visitor, "it smokes");
        let to = format!("chat/to/{case}");
        visitor.publish(&to, "the printer");
        assert_eq!(desk.open(&mut visitor, "again"), case, "the same case");
        let since = json!({"ver": known["ver"]});
        let changes = bob.call("sync.changes", &since).unwrap();
        let told = &changes["conversations"][0];
        assert_eq!(
            (&told["cid"], &told["conversation"]["queued"]),
            (&json!(desk.cid), &json!(1))
        );
        assert_eq!(desk.queue(&mut bob, "queued"), [case.as_str()]);
        let cid = json!({"cid": case});
        let unseen = bob.call("msg.history", &cid);
        assert_eq!(
            unseen,
            Err("not_found".into()),
            "not before he has claimed it"
        );

        bob.subscribe("chat/me/in/+");
        bob.call("case.claim", &cid).unwrap();
        let claimed = carol.call("case.claim", &cid);
        assert_eq!(claimed, Err("conflict".into()));
        let unseen = carol.call("conv.get", &cid);
        assert_eq!(unseen, Err("not_found".into()));
        while bob.next_json()["kind"] != "case" {} // before or behind the making of the desk
        bob.publish(&to, "turn it off");
        let kinds: Vec<_> = (0..4)
            .map(|_| visitor.next_json()["kind"].clone())
            .collect();
        assert_eq!(kinds, ["created", "message", "case", "message"]);

        drop((alice, bob, carol, visitor));
        desk.server.kill();
        desk.server.restart();
        let [mut alice, mut bob, mut carol] =
            ["alice", "bob", "carol"].map(|name| desk.connect(name));
        let login = Login::new(made["handle"].as_str().unwrap()).version(version);
        let login = login.password(made["token"].as_str().unwrap());
        let mut visitor = login.connect(desk.server.address());
        let hand_on = json!({"cid": case, "to": "@carol"});
        let refused = carol.call("case.transfer", &hand_on);
        assert_eq!(refused, Err("forbidden".into()), "it is bob's");
        bob.call("case.transfer", &hand_on).unwrap();
        assert_eq!(
            states(&mut bob, &case).last().unwrap(),
            "transferred",
            "the last he sees"
        );
        carol.publish(&to, "and on");
        assert_eq!(states(&mut bob, &case).len(), 5);
        let to_dave = carol.call("case.transfer", &json!({"cid": case, "to": "@dave"}));
        assert_eq!(to_dave, Err("not_found".into()), "he only looks on");
        carol.call("case.close", &cid).unwrap();
        assert_eq!(desk.queue(&mut alice, "closed"), [case.as_str()]);
        assert!(desk.queue(&mut alice, "claimed").is_empty());
        // What is refused opens nothing.
        visitor.publish(&format!("chat/c/{case}/m/999/reply"), "to nothing");
        assert!(desk.queue(&mut alice, "queued").is_empty());
        visitor.publish(&to, "it smokes again");
        assert_eq!(desk.queue(&mut alice, "queued"), [case.as_str()]);
        assert_eq!(
            states(&mut visitor, &case),
            [
                "created",
                "message",
                "claimed",
                "message",
                "transferred",
                "message",
                "closed",
                "queued",
                "message"
            ]
        );
        alice.call("case.claim", &cid).unwrap();
        alice.call("case.transfer", &cid).unwrap();
        visitor.call("case.close", &cid).unwrap();
        let claimed = alice.call("case.claim", &cid);
        assert_eq!(claimed, Err("conflict".into()), "closed");
    }
}

#[test]
fn of_two_who_claim_at_once_one_is_too_late() {
    for version in VERSIONS {
        let (desk, mut alice) = Desk::new(version);
        let (mut visitor, _) = desk.visitor(&mut alice);
        let case = json!({"cid": desk.open(&mut visitor, "")});
        let agents = [desk.connect("bob"), desk.connect("carol"), alice];
        let mut results = thread::scope(|scope| {
            let threads = agents.map(|mut agent| {
                let case = &case;
                scope.spawn(move || agent.call("case.claim", case).err())
            });
            threads.map(|thread| thread.join().unwrap())
        });
        results.sort();
        let late = || Some("conflict".to_owned());
        assert_eq!(results, [None, late(), late()]);
    }
}

#[test]
fn a_visitor_talks_to_desks_and_does_nothing_else() {
    for version in VERSIONS {
        let (desk, mut alice) = Desk::new(version);
        let (mut visitor, _) = desk.visitor(&mut alice);
        visitor.subscribe("chat/me/err/+");
        let case = desk.open(&mut visitor, "");
        for (topic, payload) in [
            ("chat/to/@alice", "hello"),
            ("chat/to/me", "note"),
            (&*format!("chat/to/{}", desk.cid), "hello"),
            ("chat/me/presence", "away"),
        ] {
            visitor.publish(topic, payload);
            let told: Value = serde_json::from_slice(&visitor.arrived().unwrap().payload).unwrap();
            assert_eq!(told["error"], "forbidden", "{topic}");
        }
        for (method, request) in [
            ("conv.create", json!({"members": ["@alice"]})),
            ("conv.join", json!({"cid": desk.cid})),
            ("msg.send", json!({"cid": "@alice", "t": "hello"})),
            ("case.visitor", json!({"desk": desk.cid})),
            ("case.queue", json!({"desk": desk.cid})),
            ("case.claim", json!({"cid": case})),
            ("people.add", json!({"user": "@alice"})),
        ] {
            let refused = visitor.call(method, &request);
            assert_eq!(refused, Err("forbidden".into()), "{method}");
        }
        for target in ["@alice", "@nobody"] {
            let seen = visitor.try_call("conv.get", &json!({"cid": target}));
            assert_eq!(seen.unwrap_err()["message"], "no such conversation");
        }
        let watched = visitor.try_subscribe("chat/u/@alice/presence", Qos::AtMostOnce);
        assert!(watched.is_error(), "{watched:?}");
        let log = visitor.try_subscribe(&format!("chat/c/{}/log", desk.cid), Qos::AtLeastOnce);
        assert!(log.is_error());
        let log = visitor.try_subscribe(&format!("chat/c/{case}/log"), Qos::AtLeastOnce);
        assert_eq!(log, ReasonCode::GrantedQos1);
    }
}

#[test]
fn who_is_not_of_the_desk_sees_neither_queue_nor_cases() {
    for version in VERSIONS {
        let (desk, mut alice) = Desk::new(version);
        let [mut bob, mut dave, mut eve] = ["bob", "dave", "eve"].map(|name| desk.connect(name));
        let (mut visitor, _) = desk.visitor(&mut alice);
        let case = desk.open(&mut visitor, "secret");
        visitor.publish(&format!("chat/to/{case}"), "secret");
        let nowhere = "s.00000000000000000000000000";
        let not_found = Err("not_found".to_owned());
        for cid in [case.as_str(), nowhere] {
            for method in [
                "case.claim",
                "case.transfer",
                "case.close",
                "conv.get",
                "conv.leave",
            ] {
                assert_eq!(
                    eve.call(method, &json!({"cid": cid})),
                    not_found,
                    "{method}"
                );
            }
        }
        for method in ["case.queue", "case.visitor"] {
            let asked = json!({"desk": desk.cid});
            assert_eq!(eve.call(method, &asked), not_found, "{method}");
            let asked = dave.call(method, &asked);
            assert_eq!(asked, Err("forbidden".into()), "{method} by a reader");
        }
        let claimed = dave.call("case.claim", &json!({"cid": case}));
        assert_eq!(claimed, Err("forbidden".into()));
        let made = bob.call("case.visitor", &json!({"desk": desk.cid}));
        assert_eq!(made, Err("forbidden".into()), "without the right to invite");
        // What is no desk answers nobody.
        let group = alice
            .call("conv.create", &json!({"title": "no desk"}))
            .unwrap();
        for cid in [
            group["cid"].as_str().unwrap(),
            "g.00000000000000000000000000",
        ] {
            let opened = eve.try_call("case.open", &json!({"desk": cid}));
            assert_eq!(opened.unwrap_err()["message"], "no such desk");
        }
        // Everybody may open a case, but for whom the desk has banned; and nobody answers himself.
        let own = desk.open(&mut bob, "mine");
        let claimed = bob.call("case.claim", &json!({"cid": own}));
        assert_eq!(claimed, Err("forbidden".into()));
        alice
            .call("conv.ban", &json!({"cid": desk.cid, "member": "@eve"}))
            .unwrap();
        let opened = eve.call("case.open", &json!({"desk": desk.cid}));
        assert_eq!(opened, Err("forbidden".into()));
        let mine = json!({"cid": own, "title": "x"});
        assert_eq!(bob.call("conv.settings", &mine), Err("forbidden".into()));
        let added = bob.call("conv.add", &json!({"cid": own, "members": ["@eve"]}));
        assert_eq!(added, Err("forbidden".into()));
    }
}

#[test]
fn who_is_no_longer_of_the_desk_has_no_case_any_more() {
    for version in VERSIONS {
        let (desk, mut alice) = Desk::new(version);
        let mut bob = desk.connect("bob");
        let (mut visitor, _) = desk.visitor(&mut alice);
        let case = desk.open(&mut visitor, "");
        let to = format!("chat/to/{case}");
        bob.call("case.claim", &json!({"cid": case})).unwrap();
        alice
            .call("conv.remove", &json!({"cid": desk.cid, "member": "@bob"}))
            .unwrap();
        visitor.publish(&to, "are you there?");
        assert_eq!(desk.queue(&mut alice, "queued"), [case.as_str()]);
        assert_eq!(states(&mut bob, &case), ["created", "claimed", "queued"]);
        let seen = bob.call("conv.get", &json!({"cid": case}));
        assert_eq!(seen, Err("not_found".into()));
    }
}

#[test]
fn who_answers_no_more_has_no_case_any_more() {
    for version in VERSIONS {
        let (desk, mut alice) = Desk::new(version);
        let (mut visitor, _) = desk.visitor(&mut alice);
        let case = desk.open(&mut visitor, "");
        let mut bob = desk.connect("bob");
        bob.call("case.claim", &json!({"cid": case})).unwrap();
        let demoted = json!({"cid": desk.cid, "member": "@bob", "role": "reader"});
        alice.call("conv.role", &demoted).unwrap();
        assert_eq!(desk.queue(&mut alice, "queued"), [case.as_str()]);
        let seen = bob.call("conv.get", &json!({"cid": case}));
        assert_eq!(seen, Err("not_found".into()), "a reader is no agent");
        let mut carol = desk.connect("carol");
        carol.call("case.claim", &json!({"cid": case})).unwrap();
        let password = json!({"password": "carol-secret"});
        let none = PublishProperties::default();
        carol.send_publish("chat/rpc/me.delete", password.to_string(), none);
        carol.wait_for_end(); // the reply may come too late
        eventually("the case to wait again", || {
            (desk.queue(&mut alice, "queued") == [case.as_str()]).then_some(())
        });
    }
}

#[test]
fn nobody_finds_visitors_writes_to_them_or_adds_them() {
    for version in VERSIONS {
        let (desk, mut alice) = Desk::new(version);
        let (mut visitor, made) = desk.visitor(&mut alice);
        let handle = format!("@{}", made["handle"].as_str().unwrap());
        visitor.subscribe("chat/me/in/+");
        for question in ["visitor", &handle[1..12]] {
            let found = alice.call("search.users", &json!({"q": question}));
            assert_eq!(found.unwrap()["users"], json!([]), "{question}");
        }
        let sent = alice.call("msg.send", &json!({"cid": handle, "t": "hello"}));
        assert_eq!(sent, Err("not_found".into()));
        let added = json!({"cid": desk.cid, "members": [handle]});
        assert_eq!(alice.call("conv.add", &added), Err("not_found".into()));
        let begun = json!({"kind": "direct", "members": [handle]});
        assert_eq!(alice.call("conv.create", &begun), Err("not_found".into()));
        let open = json!({"cid": desk.cid, "public": true});
        let refused = alice.call("conv.settings", &open);
        assert_eq!(refused, Err("format".into()), "strangers would be agents");
        let open = json!({"cid": desk.cid, "public": true, "approval": true});
        alice.call("conv.settings", &open).unwrap();
        let taken = alice.call("me.handle", &json!({"handle": "visitor.alice"}));
        assert_eq!(taken, Err("forbidden".into()));
        let case = desk.open(&mut visitor, "");
        assert_eq!(
            visitor.next_json()["cid"],
            case.as_str(),
            "and nothing before"
        );
    }
}
