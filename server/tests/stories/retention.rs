//! Messages that go many at a time: trimmed, purged, too old.

use std::borrow::Borrow;

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use serde_json::{Value, json};

use super::harness::{
    Client, Launch, Login, Preload, Server, VERSIONS, compile, eventually, publish_lines,
};

/// A group of alice (owner), bob (moderator), carol and dave (members), and eve, who is none.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) clients: Vec<(&'static str, Client)>,
    pub(super) cid: String,
}

impl World {
    pub(super) fn new(server: Server) -> Self {
        let names = ["alice", "bob", "carol", "dave", "eve"];
        let connect = |name| (name, Login::new(name).connect(server.address()));
        let mut clients: Vec<_> = names.into_iter().map(connect).collect();
        let group = json!({
            "members": ["@bob", "@carol", "@dave"],
            "roles": {"@bob": "moderator"},
        });
        let made = clients[0].1.call("conv.create", &group).unwrap();
        let cid = made["cid"].as_str().unwrap().to_owned();
        Self {
            server,
            clients,
            cid,
        }
    }

    pub(super) fn client(&mut self, name: &str) -> &mut Client {
        let found = self.clients.iter_mut().find(|(known, _)| *known == name);
        &mut found.unwrap().1
    }

    pub(super) fn connect_again(&mut self) {
        for (name, client) in &mut self.clients {
            *client = Login::new(name).connect(self.server.address());
        }
    }

    pub(super) fn say(&mut self, name: &str, text: &str) -> u64 {
        let topic = format!("chat/to/{}", self.cid);
        self.client(name).publish(&topic, text).seq()
    }

    pub(super) fn call(
        &mut self,
        name: &str,
        method: &str,
        asked: impl Borrow<Value>,
    ) -> Result<Value, String> {
        self.client(name).call(method, asked.borrow())
    }

    pub(super) fn unread(&mut self, name: &str) -> u64 {
        let cid = self.cid.clone();
        let seen = self.call(name, "conv.get", json!({"cid": cid})).unwrap();
        seen["unread"].as_u64().unwrap()
    }

    /// The texts that are there, and where there are none.
    pub(super) fn seen(&mut self, name: &str) -> (Vec<String>, Vec<u64>) {
        let (mut texts, mut gone) = (Vec::new(), Vec::new());
        let cid = self.cid.clone();
        for entry in self.client(name).history(&cid) {
            match entry["kind"].as_str().unwrap() {
                "message" => texts.push(entry["t"].as_str().unwrap().to_owned()),
                "gone" => {
                    assert_eq!(entry["reason"], "purged", "{entry}");
                    gone.push(entry["seq"].as_u64().unwrap());
                }
                "gap" => {
                    let gap = &entry["gap"];
                    assert_eq!(gap["reason"], "purged", "{entry}");
                    gone.extend(gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap());
                }
                _ => {}
            }
        }
        (texts, gone)
    }
}

pub(super) fn run(server: &Server, arguments: &[&str]) -> String {
    let output = server.command(arguments, "");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_range_that_is_trimmed_leaves_its_places_and_one_entry() {
    for version in VERSIONS {
        let mut world = World::new(Server::dev());
        let cid = world.cid.clone();
        for text in ["one", "two", "three"] {
            world.say("alice", text);
        }
        world.say("carol", "four");
        let device = Login::new("dave").version(version).device("phone");
        let mut dave = device.connect(world.server.address());
        dave.subscribe("chat/me/in/+");
        for _ in 0..5 {
            dave.next_message();
        }
        let mut late = Login::new("carol").device("tablet");
        late = late.version(version);
        for (name, expected) in [
            ("bob", "forbidden"),
            ("dave", "forbidden"),
            ("eve", "not_found"),
        ] {
            let refused = world.call(name, "conv.trim", json!({"cid": cid, "to": 4}));
            assert_eq!(refused, Err(expected.to_owned()), "{name}");
        }
        let backwards = json!({"cid": cid, "from": 4, "to": 3});
        let refused = world.call("alice", "conv.trim", backwards);
        assert_eq!(refused, Err("format".to_owned()));

        let trim = json!({"cid": cid, "from": 1, "to": 3});
        let trimmed = world.call("alice", "conv.trim", trim).unwrap();
        assert_eq!(trimmed, json!({"cid": cid, "seq": 6, "messages": 2}));
        let told = dave.next_json();
        assert_eq!((&told["kind"], &told["seq"]), (&json!("purged"), &json!(6)));
        assert_eq!(told["data"], json!({"from": 1, "to": 3}));

        let mut late = late.connect(world.server.address());
        late.subscribe("chat/me/in/+");
        let kinds: Vec<_> = (0..6)
            .map(|_| late.next_json()["kind"].as_str().unwrap().to_owned())
            .collect();
        let expected = ["created", "gone", "gone", "message", "message", "purged"];
        assert_eq!(kinds, expected);
        world.server.restart();
        world.connect_again();
        for name in ["alice", "carol", "dave"] {
            let seen = world.seen(name);
            assert_eq!(seen, (vec!["three".into(), "four".into()], vec![2, 3]));
        }
        assert_eq!(world.unread("bob"), 2);
        assert_eq!(world.unread("carol"), 1);
    }
}

#[test]
fn an_admin_trims_what_he_sees_and_an_owner_all() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    world.say("carol", "old");
    let add = json!({"cid": cid, "members": ["@eve"], "history": "joined"});
    world.call("alice", "conv.add", add).unwrap();
    let admin = json!({"cid": cid, "member": "@eve", "role": "admin"});
    world.call("alice", "conv.role", admin).unwrap();
    world.say("carol", "new");
    let trim = json!({"cid": cid, "to": 2});
    let refused = world.call("eve", "conv.trim", trim);
    assert_eq!(refused, Err("format".to_owned()), "nothing that she sees");
    let trim = json!({"cid": cid, "to": 90});
    let trimmed = world.call("eve", "conv.trim", &trim).unwrap();
    assert_eq!(trimmed["messages"], 1);
    let (texts, gone) = world.seen("carol");
    assert_eq!((texts, gone), (vec!["old".to_owned()], vec![5]));

    let owner = json!({"cid": cid, "member": "@eve"});
    world.call("alice", "conv.transfer", owner).unwrap();
    let trimmed = world.call("eve", "conv.trim", &trim).unwrap();
    assert_eq!(trimmed["messages"], 1);
    assert_eq!(world.seen("carol").1, [2, 5]);
}

#[test]
fn a_moderator_removes_what_one_member_wrote() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    for number in 0..4 {
        world.say("carol", &format!("spam {number}"));
        world.say("dave", &format!("fine {number}"));
    }
    let asked = json!({"cid": cid, "user": "@carol", "from": 3});
    for (name, expected) in [("dave", "forbidden"), ("eve", "not_found")] {
        let refused = world.call(name, "mod.purge_user", asked.clone());
        assert_eq!(refused, Err(expected.to_owned()), "{name}");
    }
    let unknown = json!({"cid": cid, "user": "@nobody"});
    let refused = world.call("bob", "mod.purge_user", unknown);
    assert_eq!(refused, Err("not_found".to_owned()));
    let removed = json!({"cid": cid, "member": "@carol"});
    world.call("alice", "conv.remove", removed).unwrap();
    let purged = world.call("bob", "mod.purge_user", asked).unwrap();
    assert_eq!(purged["messages"], 3);
    world.server.restart();
    world.connect_again();
    let (texts, gone) = world.seen("dave");
    assert_eq!(texts, ["spam 0", "fine 0", "fine 1", "fine 2", "fine 3"]);
    assert_eq!(gone, [4, 6, 8]);
    let head = world.client("dave").history(&cid).pop().unwrap();
    let carol = &head["data"]["uid"];
    assert_eq!(head["kind"], "purged");
    assert!(carol.is_string());
    assert_eq!(world.unread("alice"), 5);
}

#[test]
fn what_a_moderator_does_not_see_stays() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let bob = |role| json!({"cid": cid, "members": ["@bob"], "role": role, "history": "joined"});
    world.say("carol", "seen before");
    for (out, role) in [("one", "moderator"), ("two", "admin")] {
        let removed = json!({"cid": cid, "member": "@bob"});
        world.call("alice", "conv.remove", removed).unwrap();
        world.say("carol", &format!("unseen {out}"));
        world.call("alice", "conv.add", bob(role)).unwrap();
        world.say("carol", &format!("seen {out}"));
    }
    let asked = json!({"cid": cid, "user": "@carol"});
    let unseen = json!({"cid": cid, "user": "@carol", "from": 4, "to": 4});
    let refused = world.call("bob", "mod.purge_user", unseen);
    assert_eq!(refused, Err("format".to_owned()), "nothing that he sees");
    let purged = world.call("bob", "mod.purge_user", &asked).unwrap();
    assert_eq!(purged["messages"], 3);
    assert_eq!(world.seen("dave").0, ["unseen one", "unseen two"]);
    let head = world.client("dave").history(&cid).pop().unwrap();
    let gaps = json!([{"from": 4, "to": 4}, {"from": 8, "to": 8}]);
    assert_eq!(head["data"]["gaps"], gaps);
    assert_eq!(
        (&head["data"]["from"], &head["data"]["to"]),
        (&json!(1), &json!(10))
    );
    let trim = json!({"cid": cid, "to": 90});
    let trimmed = world.call("bob", "conv.trim", &trim).unwrap();
    assert_eq!(trimmed["messages"], 0, "an admin trims no more than that");
    let purged = world.call("alice", "mod.purge_user", &asked).unwrap();
    assert_eq!(purged["messages"], 2, "she sees all");
    assert!(purged["data"]["gaps"].is_null());
}

#[test]
fn what_is_over_the_limit_goes_by_itself() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let limit = |number: u32| json!({"cid": cid, "retention_messages": number});
    for number in 0..6 {
        world.say("carol", &number.to_string());
    }
    for (name, expected) in [("bob", "forbidden"), ("eve", "not_found")] {
        let refused = world.call(name, "conv.settings", limit(3));
        assert_eq!(refused, Err(expected.to_owned()), "{name}");
    }
    let admin = json!({"cid": cid, "member": "@bob", "role": "admin"});
    world.call("alice", "conv.role", admin).unwrap();
    let refused = world.call("bob", "conv.settings", limit(3));
    assert_eq!(refused, Err("forbidden".to_owned()), "for owners");
    world.call("alice", "conv.settings", limit(3)).unwrap();
    eventually("the oldest to go", || {
        (world.seen("dave").0.len() == 3).then_some(())
    });
    assert_eq!(world.seen("dave").1, [2, 3, 4]);
    assert_eq!(world.unread("dave"), 3);
    let known = world.call("dave", "conv.get", json!({"cid": cid})).unwrap();
    assert_eq!(known["retention_messages"], 3);
    world.say("carol", "6");
    world.server.restart();
    world.connect_again();
    eventually("one more to go", || {
        (world.seen("dave").0 == ["4", "5", "6"]).then_some(())
    });
    let stricter = |launch: Launch| launch.variable("MQCHAT_CHAT__RETENTION_MESSAGES", "1");
    world.server.restart_as(stricter);
    world.connect_again();
    eventually("all but one to go", || {
        (world.seen("dave").0 == ["6"]).then_some(())
    });
    assert_eq!(world.unread("dave"), 1);
}

#[test]
fn a_trim_is_not_asked_for_what_nobody_sees() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    world.say("carol", "before frank");
    let server = world.server.address();
    let mut frank = Login::new("frank").connect(server);
    let added = json!({"cid": cid, "members": ["@frank"], "role": "moderator"});
    world.call("alice", "conv.add", added).unwrap();
    let asked = json!({"cid": cid, "user": "@carol", "to": 2});
    let refused = frank.call("mod.purge_user", &asked);
    assert_eq!(refused, Err("format".to_owned()), "he came later");
    world.say("carol", "for frank");
    let asked = json!({"cid": cid, "user": "@carol"});
    let purged = frank.call("mod.purge_user", &asked).unwrap();
    assert_eq!(purged["messages"], 1);
    assert_eq!(world.seen("dave").0, ["before frank"]);
    let beyond = json!({"cid": cid, "from": 99, "to": 100});
    let refused = world.call("alice", "conv.trim", beyond);
    assert_eq!(refused, Err("format".to_owned()));
}

#[test]
fn a_trim_that_a_kill_cut_off_is_finished_and_told_once() {
    const COUNT: u64 = 1_500;
    for engine in ["fjall", "sled"] {
        let launch = |launch: Launch| launch.dev().variable("MQCHAT_STORE__ENGINE", engine);
        let mut world = World::new(Server::in_new_directory(launch));
        let cid = world.cid.clone();
        let lines = (0..COUNT).map(|number| number.to_string());
        let topic = format!("chat/to/{cid}");
        publish_lines(world.server.address(), Version::V5, "carol", &topic, lines);
        let asked = json!({"cid": cid, "to": COUNT + 1});
        let alice = world.client("alice");
        let request = "chat/rpc/conv.trim/again";
        alice.send_publish(request, asked.to_string(), PublishProperties::default());
        let announced = format!("chat/c/{cid}/log/from/{}", COUNT + 2);
        world.client("dave").subscribe(&announced);
        assert_eq!(world.client("dave").next_json()["kind"], "purged");
        if engine == "sled" {
            // A stop does not wait for all of it either.
            world.server.terminate();
            world.server.wait_for_exit();
        }
        world.server.restart();
        world.connect_again();
        eventually("all of them to go", || {
            world.seen("dave").0.is_empty().then_some(())
        });
        let alice = world.client("alice");
        alice.subscribe("chat/me/rpc/+");
        let mut again = || -> Value {
            alice.publish(request, asked.to_string());
            let reply = alice.next_on("chat/me/rpc/again");
            serde_json::from_slice::<Value>(&reply.payload).unwrap()["ok"].take()
        };
        assert_eq!(again()["messages"], COUNT);
        assert_eq!(again()["seq"], COUNT + 2);
        let history = world.client("dave").history(&cid);
        let told = history.iter().filter(|entry| entry["kind"] == "purged");
        assert_eq!(told.count(), 1);
        world.say("carol", "later");
        assert_eq!(world.seen("dave").0, ["later"]);
    }
}

#[test]
fn what_is_sent_during_a_trim_stays_or_goes_by_its_place() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let address = world.server.address();
    let topic = format!("chat/to/{cid}");
    let sender = std::thread::spawn(move || {
        let lines = (0..400).map(|number| number.to_string());
        publish_lines(address, Version::V5, "carol", &topic, lines);
    });
    world.client("dave").subscribe("chat/me/in/+");
    let mut ends = Vec::new();
    for _ in 0..5 {
        while world.client("dave").next_json()["kind"] != "message" {}
        let asked = json!({"cid": cid, "to": 1_000_000});
        let trimmed = world.call("alice", "conv.trim", asked).unwrap();
        ends.push(trimmed["seq"].as_u64().unwrap());
    }
    sender.join().unwrap();
    let history = world.client("bob").history(&cid);
    let mut to = 0;
    for seq in &ends {
        let entry = history.iter().find(|entry| entry["seq"] == *seq).unwrap();
        assert_eq!(entry["kind"], "purged");
        to = entry["data"]["to"].as_u64().unwrap();
        assert!(to < *seq);
    }
    let messages = history.iter().filter(|entry| entry["kind"] == "message");
    let there: Vec<u64> = messages
        .map(|entry| entry["seq"].as_u64().unwrap())
        .collect();
    let last = history.last().unwrap()["seq"].as_u64().unwrap();
    let expected: Vec<u64> = (to + 1..=last).filter(|seq| !ends.contains(seq)).collect();
    assert_eq!(there, expected);
}

#[test]
fn a_full_store_is_trimmed() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    for number in 0..3 {
        world.say("carol", &number.to_string());
    }
    let full = |launch: Launch| launch.variable("MQCHAT_STORE__MAX_DISK_BYTES", "1");
    world.server.restart_as(full);
    eventually("no room for one more message", || {
        let mut carol = Login::new("carol").connect(world.server.address());
        carol.send_publish("chat/to/me", "more", PublishProperties::default());
        carol.next_answer().err()
    });
    world.connect_again();
    let trimmed = world.call("alice", "conv.trim", json!({"cid": cid, "to": 3}));
    assert_eq!(trimmed.unwrap()["messages"], 2);
    assert_eq!(world.seen("dave").0, ["2"]);
}

#[test]
fn a_trim_that_was_answered_survives_a_power_cut() {
    let mut disk = Preload::new();
    let mut world = World::new(disk.launch().dev().start());
    let cid = world.cid.clone();
    for number in 0..5 {
        world.say("carol", &number.to_string());
    }
    let trimmed = world.call("alice", "conv.trim", json!({"cid": cid, "to": 4}));
    assert_eq!(trimmed.unwrap()["messages"], 3);
    disk.cut(world.server);
    world.server = disk.launch().dev().start();
    world.connect_again();
    assert_eq!(
        world.seen("dave"),
        (vec!["3".into(), "4".into()], vec![2, 3, 4])
    );
    let head = world.client("dave").history(&cid).pop().unwrap();
    assert_eq!(head["kind"], "purged");
}

#[test]
fn a_clock_that_is_far_ahead_removes_nothing_until_an_operator_says_so() {
    const DAYS: u64 = 400;
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    for number in 0..6 {
        world.say("carol", &number.to_string());
    }
    let library = compile("ahead.c", &["-shared", "-fPIC"]);
    let ahead = (DAYS * 24 * 3_600).to_string();
    world.server.restart_as(|launch| {
        let launch = launch.variable("LD_PRELOAD", &library);
        launch.variable("CLOCK_AHEAD_S", &ahead)
    });
    world.connect_again();
    let limits = json!({"cid": cid, "retention_days": 30, "retention_messages": 4});
    world.call("alice", "conv.settings", limits).unwrap();
    eventually("those beyond the newest four to go", || {
        (world.seen("dave").0.len() == 4).then_some(())
    });
    let topic = format!("chat/to/{cid}");
    world.client("carol").publish(&topic, "now");
    let limits = json!({"cid": cid, "retention_days": 29});
    world.call("alice", "conv.settings", limits).unwrap();
    eventually("one more to go, as it is the fifth", || {
        (world.seen("dave").0 == ["3", "4", "5", "now"]).then_some(())
    });
    run(&world.server, &["trust-clock"]);
    let limits = json!({"cid": cid, "retention_days": 28});
    world.call("alice", "conv.settings", limits).unwrap();
    eventually("what is 400 days old by this clock to go", || {
        (world.seen("dave").0 == ["now"]).then_some(())
    });
}
