//! What members do to messages: reply, thread, edit, delete, hide, react, pin, report; and messages that expire.

use std::fs;

use broker::codec::packet::{Publish, Version};
use broker::codec::properties::PublishProperties;
use serde_json::{Value, json};

use std::time::Duration;

use super::harness::{Client, Launch, Login, Server, Stopwatch, VERSIONS, eventually, with_mid};

/// A group of alice (owner), bob (moderator), carol (member) and dave (reader); these connections have no inbox.
struct World {
    server: Server,
    version: Version,
    alice: Client,
    bob: Client,
    carol: Client,
    dave: Client,
    cid: String,
}

impl World {
    fn new(version: Version) -> Self {
        Self::on(Server::dev(), version)
    }

    /// On a server with this section `[chat]`.
    fn with(version: Version, chat: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mqchat.toml");
        fs::write(&config, format!("[chat]\n{chat}\n")).unwrap();
        let config = config.to_str().unwrap();
        let set = |launch: Launch| launch.dev().argument("--config").argument(config);
        Self::on(Server::in_new_directory(set), version)
    }

    fn on(server: Server, version: Version) -> Self {
        let connect = |name: &str| {
            let login = Login::new(name).version(version).client_id("actor");
            let mut client = login.connect(server.address());
            client.subscribe("chat/me/err/+");
            client
        };
        let mut alice = connect("alice");
        let (bob, carol, dave) = (connect("bob"), connect("carol"), connect("dave"));
        let group = json!({
            "members": ["@bob", "@carol", "@dave"],
            "roles": {"@bob": "moderator", "@dave": "reader"},
        });
        let group = alice.call("conv.create", &group).unwrap();
        let cid = group["cid"].as_str().unwrap().to_owned();
        Self {
            server,
            version,
            alice,
            bob,
            carol,
            dave,
            cid,
        }
    }

    /// Alice writes; the place of her message.
    fn say(&mut self, text: &str) -> u64 {
        let before = self.head();
        self.alice.publish(&format!("chat/to/{}", self.cid), text);
        before + 1
    }

    fn head(&mut self) -> u64 {
        let now = self.alice.call("conv.get", &json!({"cid": self.cid}));
        now.unwrap()["head"].as_u64().unwrap()
    }

    fn topic(&self, seq: u64, action: &str) -> String {
        format!("chat/c/{}/m/{seq}/{action}", self.cid)
    }

    /// A reader who comes with this filter.
    fn reader(&self, name: &str, device: &str, filter: &str) -> Client {
        let login = Login::new(name).version(self.version).device(device);
        let mut reader = login.connect(self.server.address());
        reader.subscribe(filter);
        reader
    }

    fn unread(&mut self, name: &str) -> u64 {
        let login = Login::new(name).version(self.version).client_id("counter");
        let mut client = login.connect(self.server.address());
        let seen = client.call("conv.get", &json!({"cid": self.cid})).unwrap();
        seen["unread"].as_u64().unwrap()
    }
}

/// What the server says to a publish: the name of the refusal, or nothing.
fn told(client: &mut Client, topic: &str, payload: &str) -> Option<String> {
    let answer = client.publish(topic, payload);
    let refusal = client.arrived()?;
    let refusal: Value = serde_json::from_slice(&refusal.payload).unwrap();
    assert_eq!(refusal["topic"], topic);
    let error = refusal["error"].as_str().unwrap().to_owned();
    if answer.reason.is_error() {
        assert_eq!(answer.get("error"), Some(error.as_str()));
    }
    Some(error)
}

fn json_of(message: &Publish) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

fn property(message: &Publish, name: &str) -> Option<String> {
    let pairs = message.properties.user_properties.iter();
    pairs
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value.to_string())
        .next()
}

fn text(message: &Publish) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

/// The entries of a history by their places.
fn entry(history: &[Value], seq: u64) -> &Value {
    let found = history.iter().find(|entry| entry["seq"] == seq);
    found.unwrap_or_else(|| panic!("no entry {seq} in {history:?}"))
}

#[test]
fn a_reply_and_a_message_in_a_thread_say_what_they_refer_to() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let mut live = world.reader("carol", "phone", "chat/me/in/+");
        let root = world.say("root");
        let (reply, thread) = (world.topic(root, "reply"), world.topic(root, "thread"));
        assert_eq!(told(&mut world.carol, &reply, "quoted"), None);
        assert_eq!(told(&mut world.bob, &thread, "in the thread"), None);
        let in_thread = world.topic(root + 2, "thread");
        assert_eq!(told(&mut world.carol, &in_thread, "as well"), None);
        let quoting = world.topic(root + 2, "reply");
        assert_eq!(told(&mut world.alice, &quoting, "quoted there"), None);
        let by_json = json!({"t": "by json", "reply_to": root}).to_string();
        world
            .bob
            .publish(&format!("chat/to/{}", world.cid), by_json);

        let history = world.alice.history(&world.cid);
        let refer = |seq| {
            (
                &entry(&history, seq)["reply_to"],
                &entry(&history, seq)["thread"],
            )
        };
        let (root_, none) = (&json!(root), &Value::Null);
        assert_eq!(refer(root), (none, none));
        assert_eq!(refer(root + 1), (root_, none));
        assert_eq!(refer(root + 2), (none, root_));
        assert_eq!(refer(root + 3), (none, root_), "a thread has one root");
        assert_eq!(
            refer(root + 4),
            (&json!(root + 2), root_),
            "a reply stays in it"
        );
        assert_eq!(refer(root + 5), (root_, none));
        for _ in 0..=root {
            live.next_message();
        }
        let delivered = live.next_on(&format!("chat/me/in/{}", world.cid));
        let seq = json_of(&delivered)["seq"].as_u64().unwrap();
        if version == Version::V5 && seq == root + 1 {
            assert_eq!(property(&delivered, "reply_to"), Some(root.to_string()));
        }
        for (topic, payload, expected) in [
            (world.topic(99, "reply"), "x", "not_found"),
            (world.topic(1, "reply"), "x", "not_found"),
            (world.topic(root, "thread"), "", "format"),
        ] {
            let refusal = told(&mut world.carol, &topic, payload);
            assert_eq!(refusal.as_deref(), Some(expected), "{topic}");
        }
        let refusal = told(&mut world.dave, &reply, "x");
        assert_eq!(refusal.as_deref(), Some("forbidden"));
    }
}

#[test]
fn an_edit_reaches_those_who_are_there_and_is_what_latecomers_see() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let mut live = world.reader("carol", "phone", "chat/me/in/+");
        let mut lines = world.reader("carol", "terminal", "chat/me/txt/+");
        let message = world.say("frist");
        let edit = world.topic(message, "edit");
        assert_eq!(told(&mut world.alice, &edit, "first"), None);
        let by_json = json!({"t": "First!", "x": 1}).to_string();
        assert_eq!(told(&mut world.alice, &edit, &by_json), None);

        assert_eq!(live.next_json()["kind"], "created");
        let told_first = live.next_json();
        assert_eq!(told_first["seq"], message);
        let mut edits = Vec::new();
        while edits.len() < 2 {
            let delivered = live.next_message();
            let entry = json_of(&delivered);
            assert_eq!(
                (&entry["kind"], &entry["target"]),
                (&json!("edit"), &json!(message))
            );
            if version == Version::V5 {
                assert_eq!(property(&delivered, "target"), Some(message.to_string()));
                assert_eq!(property(&delivered, "kind").as_deref(), Some("edit"));
            }
            edits.push(entry);
        }
        assert_eq!(edits[0]["t"], "first");
        assert_eq!(edits[1]["m"], json!({"t": "First!", "x": 1}));
        let mut line = text(&lines.next_message()).to_owned();
        while !line.starts_with("alice: *") {
            line = text(&lines.next_message()).to_owned();
        }
        assert_eq!(line, "alice: * first");
        assert_eq!(text(&lines.next_message()), "alice: * First!");

        let late = world.reader("bob", "late", "chat/me/in/+");
        let log = format!("chat/c/{}/log/from/1", world.cid);
        let log = world.reader("bob", "log", &log);
        for mut reader in [late, log] {
            assert_eq!(reader.next_json()["kind"], "created");
            let shown = reader.next_json();
            assert_eq!(shown["seq"], message);
            assert_eq!(
                (&shown["format"], &shown["m"]["t"]),
                (&json!("json"), &json!("First!"))
            );
            assert_eq!(shown["edited"]["seq"], message + 2);
            assert_eq!(shown["edited"]["ts"], edits[1]["ts"]);
        }
        let history = world.bob.history(&world.cid);
        assert_eq!(entry(&history, message)["m"]["t"], "First!");
        assert_eq!(world.unread("carol"), 1, "an edit is never unread");

        for name in ["bob", "carol", "dave"] {
            let client = match name {
                "bob" => &mut world.bob,
                "carol" => &mut world.carol,
                _ => &mut world.dave,
            };
            let refusal = told(client, &edit, "hijacked");
            assert_eq!(refusal.as_deref(), Some("forbidden"), "{name}");
        }
        for (payload, seq, expected) in [
            ("", message, "format"),
            ("x", 99, "not_found"),
            ("x", 1, "not_found"),
        ] {
            let topic = world.topic(seq, "edit");
            let refusal = told(&mut world.alice, &topic, payload);
            assert_eq!(refusal.as_deref(), Some(expected), "{seq} {payload}");
        }
    }
}

#[test]
fn an_edit_after_its_window_is_refused() {
    for version in VERSIONS {
        let mut world = World::with(version, "edit_window_s = 1\ndelete_window_s = 1");
        let message = world.say("for ever");
        let edit = world.topic(message, "edit");
        let watch = Stopwatch::start();
        eventually("the windows to close", || {
            (watch.elapsed() > Duration::from_millis(1_100)).then_some(())
        });
        let refusal = told(&mut world.alice, &edit, "other");
        assert_eq!(refusal.as_deref(), Some("edit_closed"));
        let own = format!("chat/to/{}", world.cid);
        world.carol.publish(&own, "mine");
        let delete = world.topic(message, "del");
        assert_eq!(
            told(&mut world.bob, &delete, "all"),
            None,
            "a moderator always may"
        );
        let delete = world.topic(message + 1, "del");
        assert_eq!(told(&mut world.carol, &delete, "all"), None, "in time");
    }
}

#[test]
fn a_deleted_message_leaves_nothing_but_its_place() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let mut away = world.reader("carol", "phone", "chat/me/in/+");
        assert_eq!(away.next_json()["kind"], "created");
        away.settle();
        away.disconnect();
        let mut holding = world.reader("bob", "phone", "chat/me/in/+");
        let mut lines = world.reader("bob", "terminal", "chat/me/txt/+");
        for reader in [&mut holding, &mut lines] {
            reader.acks_by_itself = false;
        }
        let message = world.say("utterly-secret-body");
        let edit = world.topic(message, "edit");
        assert_eq!(told(&mut world.alice, &edit, "utterly-secret-edit"), None);
        let react = world.topic(message, "react");
        assert_eq!(told(&mut world.bob, &react, "👍"), None);
        let keep = world.say("stays");
        assert_eq!(holding.next_json()["kind"], "created");
        let held = holding.next_message();
        assert_eq!(json_of(&held)["t"], "utterly-secret-body");
        let line = lines.next_message();
        assert_eq!(text(&line), "alice: utterly-secret-body");
        drop((holding, lines));

        let delete = world.topic(message, "del");
        for client in [&mut world.carol, &mut world.dave] {
            assert_eq!(told(client, &delete, "all").as_deref(), Some("forbidden"));
        }
        for payload in ["", "everything"] {
            assert_eq!(
                told(&mut world.alice, &delete, payload).as_deref(),
                Some("format")
            );
        }
        assert_eq!(told(&mut world.alice, &delete, "all"), None);
        assert_eq!(
            told(&mut world.alice, &delete, "all"),
            None,
            "once more changes nothing"
        );

        // In flight before: the same identifiers, the present state.
        let mut holding = world.reader("bob", "phone", "chat/me/in/+");
        let created = holding.next_message();
        assert!(created.dup, "{created:?}");
        let again = holding.next_message();
        assert_eq!((again.packet_id, again.dup), (held.packet_id, true));
        let gone = json_of(&again);
        assert_eq!(
            (&gone["kind"], &gone["reason"]),
            (&json!("gone"), &json!("deleted"))
        );
        let mut lines = world.reader("bob", "terminal", "chat/me/txt/+");
        let again = lines.next_message();
        assert_eq!((again.packet_id, again.dup), (line.packet_id, true));
        assert_eq!(text(&again), "", "a line of nothing");

        let mut away = world.reader("carol", "phone", "chat/me/in/+");
        let log = format!("chat/c/{}/log/from/{message}", world.cid);
        let mut log = world.reader("carol", "log", &log);
        for reader in [&mut away, &mut log] {
            let kinds: Vec<Value> = (message..=keep + 1)
                .map(|_| reader.next_json()["kind"].take())
                .collect();
            assert_eq!(kinds, ["gone", "gone", "reaction", "message", "deleted"]);
        }
        let history = world.carol.history(&world.cid);
        let gap = json!({"cid": world.cid, "kind": "gap", "gap": {"from": message, "to": message + 1, "reason": "deleted"}});
        assert_eq!(history[1], gap);
        assert_eq!(
            entry(&history, keep + 1)["data"],
            json!({"target": message})
        );
        assert_eq!(entry(&history, keep + 1)["target"], message);
        assert_eq!(world.unread("carol"), 1);
        assert_eq!(world.unread("bob"), 1);
        for action in ["edit", "react", "pin", "reply"] {
            let topic = world.topic(message, action);
            let refusal = told(&mut world.alice, &topic, "1");
            assert_eq!(refusal.as_deref(), Some("not_found"), "{action}");
        }

        let mut server = world.server;
        server.terminate();
        assert!(server.wait_for_exit().success());
        let dump = server.data_dir().with_extension("dump");
        let dumped = server.command(&["store", "dump", dump.to_str().unwrap()], "");
        assert!(dumped.status.success(), "{dumped:?}");
        let bytes = fs::read(&dump).unwrap();
        let holds = |text: &str| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert!(holds("stays"), "bodies are found that way");
        assert!(!holds("utterly-secret"), "nothing of it is stored");
    }
}

#[test]
fn nobody_is_handed_a_body_after_its_deletion_was_acked() {
    let mut world = World::new(Version::V5);
    let mut live = world.reader("carol", "phone", "chat/me/in/+");
    for round in 0..40 {
        live.settle();
        let message = world.say("for a moment");
        let delete = world.topic(message, "del");
        assert_eq!(told(&mut world.alice, &delete, "all"), None);
        let log = format!("chat/c/{}/log/from/{message}", world.cid);
        world.bob.subscribe(&log);
        let first = world.bob.next_on(&log);
        assert_eq!(json_of(&first)["kind"], "gone", "round {round}");
    }
}

#[test]
fn a_message_is_hidden_for_one_user_on_all_devices() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let first = world.say("one");
        world.say("two");
        assert_eq!(world.unread("dave"), 2);
        let delete = world.topic(first, "del");
        assert_eq!(told(&mut world.dave, &delete, "me"), None);
        assert_eq!(told(&mut world.dave, &delete, "me"), None, "twice is once");
        assert_eq!(world.unread("dave"), 1);
        assert_eq!(world.unread("carol"), 2, "nobody else");
        let log = format!("chat/c/{}/log/from/1", world.cid);
        for filter in ["chat/me/in/+", &log] {
            let mut reader = world.reader("dave", "phone", filter);
            assert_eq!(reader.next_json()["kind"], "created");
            let hidden = reader.next_json();
            assert_eq!(
                (&hidden["kind"], &hidden["reason"]),
                (&json!("gone"), &json!("hidden"))
            );
            assert_eq!(reader.next_json()["t"], "two");
            assert!(hidden.get("t").is_none());
        }
        let mut lines = world.reader("dave", "terminal", "chat/me/txt/+");
        assert_eq!(text(&lines.next_message()), "alice: two");
        assert_eq!(
            entry(&world.dave.history(&world.cid), first)["reason"],
            "hidden"
        );
        assert_eq!(entry(&world.carol.history(&world.cid), first)["t"], "one");
        let nowhere = world.topic(99, "del");
        assert_eq!(
            told(&mut world.dave, &nowhere, "me").as_deref(),
            Some("not_found")
        );
        world.server.restart();
        let mut dave = Login::new("dave")
            .version(version)
            .connect(world.server.address());
        assert_eq!(entry(&dave.history(&world.cid), first)["reason"], "hidden");
        let seen = dave.call("conv.get", &json!({"cid": world.cid})).unwrap();
        assert_eq!(seen["unread"], 1);
    }
}

#[test]
fn reactions_are_a_set_per_user_that_everybody_sees() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let message = world.say("news");
        let react = world.topic(message, "react");
        for payload in ["👍", "👍", "🎉"] {
            assert_eq!(told(&mut world.carol, &react, payload), None);
        }
        assert_eq!(told(&mut world.bob, &react, "👍"), None);
        assert_eq!(
            told(&mut world.bob, &react, "-🎉"),
            None,
            "not there: nothing"
        );
        let history = world.carol.history(&world.cid);
        let expected = json!([{"emoji": "👍", "count": 2, "mine": true}, {"emoji": "🎉", "count": 1, "mine": true}]);
        assert_eq!(entry(&history, message)["reactions"], expected);
        let changes: Vec<_> = history
            .iter()
            .filter(|entry| entry["kind"] == "reaction")
            .collect();
        assert_eq!(changes.len(), 3, "what changed nothing is no entry");
        let data = json!({"target": message, "emoji": "👍", "op": "add"});
        assert_eq!(
            (&changes[0]["data"], &changes[0]["target"]),
            (&data, &json!(message))
        );

        assert_eq!(told(&mut world.carol, &react, "-👍"), None);
        let mut late = world.reader(
            "alice",
            "late",
            &format!("chat/c/{}/log/from/{message}", world.cid),
        );
        let shown = late.next_json();
        assert_eq!(
            shown["reactions"],
            json!([{"emoji": "👍", "count": 1}, {"emoji": "🎉", "count": 1}])
        );
        let who = world
            .alice
            .call("msg.reactions", &json!({"cid": world.cid, "seq": message}));
        let who = who.unwrap();
        assert_eq!(who["reactions"].as_array().unwrap().len(), 2);
        assert_eq!(who["more"], false);
        assert_eq!(told(&mut world.carol, &react, ""), None, "none at all");
        assert_eq!(told(&mut world.bob, &react, ""), None);
        let history = world.carol.history(&world.cid);
        assert_eq!(entry(&history, message).get("reactions"), None);
        assert_eq!(
            told(&mut world.dave, &react, "👍").as_deref(),
            Some("forbidden")
        );
        for bad in ["two words", &"x".repeat(65), "-"] {
            assert_eq!(
                told(&mut world.carol, &react, bad).as_deref(),
                Some("format"),
                "{bad}"
            );
        }
        for number in 0..16 {
            assert_eq!(told(&mut world.carol, &react, &format!("e{number}")), None);
        }
        assert_eq!(
            told(&mut world.carol, &react, "e16").as_deref(),
            Some("limit")
        );
        assert_eq!(world.unread("dave"), 1);
    }
}

#[test]
fn moderators_pin_and_everybody_sees_it() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let message = world.say("agenda");
        let pin = world.topic(message, "pin");
        for client in [&mut world.carol, &mut world.dave] {
            assert_eq!(told(client, &pin, "1").as_deref(), Some("forbidden"));
        }
        assert_eq!(told(&mut world.bob, &pin, "yes").as_deref(), Some("format"));
        for _ in 0..2 {
            assert_eq!(told(&mut world.bob, &pin, "1"), None);
        }
        let history = world.dave.history(&world.cid);
        assert_eq!(entry(&history, message)["pinned"], true);
        let data = json!({"target": message, "pinned": true});
        assert_eq!(entry(&history, message + 1)["data"], data);
        assert_eq!(history.len() as u64, message + 1, "pinned once");
        let pins = world
            .dave
            .call("msg.pins", &json!({"cid": world.cid}))
            .unwrap();
        assert_eq!(pins["pins"][0]["seq"], message);
        assert_eq!(told(&mut world.alice, &pin, "0"), None);
        let pins = world
            .dave
            .call("msg.pins", &json!({"cid": world.cid}))
            .unwrap();
        assert_eq!(pins, json!({"pins": []}));
        assert_eq!(
            entry(&world.dave.history(&world.cid), message).get("pinned"),
            None
        );
        // In a direct conversation both may.
        world.alice.publish("chat/to/@carol", "hi");
        let direct = world
            .carol
            .call("conv.get", &json!({"cid": "@alice"}))
            .unwrap();
        let pin = format!("chat/c/{}/m/1/pin", direct["cid"].as_str().unwrap());
        assert_eq!(told(&mut world.carol, &pin, "1"), None);
        let delete = format!("chat/c/{}/m/1/del", direct["cid"].as_str().unwrap());
        assert_eq!(
            told(&mut world.carol, &delete, "all").as_deref(),
            Some("forbidden")
        );
    }
}

#[test]
fn whoever_sees_a_message_can_report_it() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let message = world.say("rude");
        let report = world.topic(message, "report");
        assert_eq!(told(&mut world.dave, &report, "he was rude"), None);
        let answer = world.dave.publish_mid(&report, "again", "r-1");
        assert_eq!(answer.get("seq"), None, "no entry is stored");
        let nowhere = world.topic(99, "report");
        assert_eq!(
            told(&mut world.dave, &nowhere, "x").as_deref(),
            Some("not_found")
        );
        assert_eq!(
            told(&mut world.dave, &report, &"x".repeat(2_049)).as_deref(),
            Some("format")
        );
        assert_eq!(world.head(), message);
    }
}

#[test]
fn an_act_with_a_message_id_is_done_once() {
    let mut world = World::new(Version::V5);
    let message = world.say("one");
    for (action, payload) in [
        ("edit", "two"),
        ("react", "👍"),
        ("pin", "1"),
        ("del", "all"),
    ] {
        let topic = world.topic(message, action);
        let mid = format!("{action}-1");
        let first = world.alice.publish_mid(&topic, payload, &mid);
        let again = world.alice.publish_mid(&topic, payload, &mid);
        assert_eq!(
            (first.seq(), again.seq()),
            (again.seq(), first.seq()),
            "{action}"
        );
        assert!(again.is_duplicate() && !first.is_duplicate(), "{action}");
        assert_eq!(again.get("mid"), Some(mid.as_str()));
        if action != "del" {
            let other = if action == "pin" { "0" } else { "other" };
            let conflict = world.alice.publish_mid(&topic, other, &mid);
            assert_eq!(
                conflict.get("error"),
                Some("idempotency_conflict"),
                "{action}"
            );
            world.alice.settle();
        }
    }
    let second = world.say("second");
    for seq in 2..4 {
        let topic = world.topic(second, "react");
        let answer = world
            .alice
            .begin_qos2(seq, false, &topic, format!("e{seq}"));
        let again = world.alice.begin_qos2(seq, true, &topic, format!("e{seq}"));
        assert_eq!(again.reason, answer.reason);
        world.alice.end_qos2(seq);
    }
    let history = world.alice.history(&world.cid);
    assert_eq!(history.last().unwrap()["seq"], second + 2, "once each");
}

#[test]
fn calls_do_what_the_topics_do() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let cid = world.cid.clone();
        let send = json!({"cid": cid, "t": "hello"});
        let first = world.alice.call_as("r1", "msg.send", &send).unwrap();
        let again = world.alice.call_as("r1", "msg.send", &send).unwrap();
        assert_eq!(first["seq"], again["seq"]);
        assert_eq!(again["dup"], true);
        let seq = first["seq"].as_u64().unwrap();
        let rich =
            json!({"cid": cid, "m": {"t": "rich", "x": [1]}, "reply_to": seq, "mid": "own-id"});
        let rich = world.carol.call("msg.send", &rich).unwrap();
        let history = world.carol.history(&cid);
        let shown = entry(&history, rich["seq"].as_u64().unwrap());
        assert_eq!(
            (&shown["mid"], &shown["m"]["x"]),
            (&json!("own-id"), &json!([1]))
        );
        assert_eq!(shown["reply_to"], seq);

        let on = |fields: Value| {
            let mut request = json!({"cid": cid, "seq": seq});
            for (name, value) in fields.as_object().unwrap() {
                request[name] = value.clone();
            }
            request
        };
        let edited = world
            .alice
            .call_as("r2", "msg.edit", &on(json!({"t": "hullo"})))
            .unwrap();
        let again = world
            .alice
            .call_as("r2", "msg.edit", &on(json!({"t": "hullo"})))
            .unwrap();
        assert_eq!(
            (&edited["seq"], &again["dup"]),
            (&again["seq"], &json!(true))
        );
        let reacted = world
            .carol
            .call("msg.react", &on(json!({"emoji": "👍"})))
            .unwrap();
        assert!(reacted["seq"].is_u64());
        let unchanged = world
            .carol
            .call("msg.react", &on(json!({"emoji": "👍", "op": "add"})));
        assert_eq!(unchanged.unwrap(), json!({"cid": cid}));
        world
            .bob
            .call("msg.pin", &on(json!({"pinned": true})))
            .unwrap();
        let reported = world
            .dave
            .call("msg.report", &on(json!({"text": "spam"})))
            .unwrap();
        assert_eq!(reported, json!({"cid": cid}));
        let history = world.dave.history(&cid);
        let shown = entry(&history, seq);
        assert_eq!(shown["t"], "hullo");
        assert_eq!(shown["reactions"], json!([{"emoji": "👍", "count": 1}]));
        assert_eq!(shown["pinned"], true);
        world
            .dave
            .call("msg.delete", &on(json!({"for": "me"})))
            .unwrap();
        assert_eq!(entry(&world.dave.history(&cid), seq)["reason"], "hidden");
        let refused = world
            .carol
            .try_call("msg.delete", &on(json!({"for": "all"})));
        assert_eq!(refused.unwrap_err()["code"], "forbidden");
        let refused = world.carol.try_call("msg.delete", &on(json!({})));
        assert_eq!(refused.unwrap_err()["code"], "format");
        world
            .bob
            .call("msg.delete", &on(json!({"for": "all"})))
            .unwrap();
        assert_eq!(entry(&world.alice.history(&cid), seq)["reason"], "deleted");
        assert_eq!(entry(&world.dave.history(&cid), seq)["reason"], "deleted");
    }
}

#[test]
fn a_message_ends_with_its_time() {
    let mut world = World::new(Version::V5);
    let mut live = world.reader("carol", "phone", "chat/me/in/+");
    assert_eq!(live.next_json()["kind"], "created");
    let lasting = |seconds| PublishProperties {
        message_expiry_interval: Some(seconds),
        ..with_mid(&format!("m-{seconds}"))
    };
    let to = format!("chat/to/{}", world.cid);
    let short = world
        .alice
        .publish_with(&to, "for a second", lasting(1))
        .seq();
    let long = world
        .alice
        .publish_with(&to, "for an hour", lasting(3_600))
        .seq();
    let by_json = json!({"t": "by json", "ttl_s": 1}).to_string();
    let json_ = world.alice.publish(&to, by_json).seq();
    let delivered = live.next_message();
    assert_eq!(delivered.properties.message_expiry_interval, Some(1));
    let shown = json_of(&delivered);
    assert_eq!(
        shown["expires"].as_u64(),
        shown["ts"].as_u64().map(|ts| ts + 1_000)
    );
    let delivered = live.next_message();
    let left = delivered.properties.message_expiry_interval.unwrap();
    assert!((3_000..=3_600).contains(&left), "{left}");

    let history = eventually("the messages to expire", || {
        let history = world.bob.history(&world.cid);
        let is_over = |seq| entry(&history, seq)["kind"] == "gone";
        (is_over(short) && is_over(json_)).then_some(history)
    });
    assert_eq!(entry(&history, short)["reason"], "expired");
    assert_eq!(entry(&history, long)["t"], "for an hour");
    eventually("the count to follow", || {
        (world.unread("bob") == 1).then_some(())
    });
    let mut late = world.reader("bob", "late", "chat/me/in/+");
    let kinds: Vec<Value> = (0..4).map(|_| late.next_json()["kind"].take()).collect();
    assert_eq!(kinds, ["created", "gone", "message", "gone"]);

    // Of the conversation: all that comes later.
    let settings = json!({"cid": world.cid, "ttl_s": 1});
    world.alice.call("conv.settings", &settings).unwrap();
    let seen = world
        .carol
        .call("conv.get", &json!({"cid": world.cid}))
        .unwrap();
    assert_eq!(seen["ttl_s"], 1);
    let seq = world.say("short, too");
    eventually("the last one to expire", || {
        let history = world.bob.history(&world.cid);
        (entry(&history, seq)["reason"] == "expired").then_some(())
    });
    let mut server = world.server;
    server.terminate();
    assert!(server.wait_for_exit().success());
    let dump = server.data_dir().with_extension("dump");
    let dumped = server.command(&["store", "dump", dump.to_str().unwrap()], "");
    assert!(dumped.status.success(), "{dumped:?}");
    let bytes = fs::read(&dump).unwrap();
    let holds = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(holds("for an hour") && !holds("for a second"));
}

#[test]
fn an_edit_shows_nobody_what_the_message_did_not() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let message = world.say("before");
        let edit = world.topic(message, "edit");
        let delete = world.topic(message, "del");
        assert_eq!(told(&mut world.alice, &edit, "while carol is there"), None);
        assert_eq!(told(&mut world.dave, &delete, "me"), None);
        let mut hiding = world.reader("dave", "phone", "chat/me/in/+");
        let kinds: Vec<Value> = (0..3)
            .map(|_| hiding.next_json()["reason"].take())
            .collect();
        assert_eq!(kinds, [json!(null), json!("hidden"), json!("hidden")]);

        let carol = json!({"cid": world.cid, "member": "@carol"});
        world.alice.call("conv.remove", &carol).unwrap();
        let eve = json!({"cid": world.cid, "members": ["@eve"]});
        let _made = world.reader("eve", "laptop", "chat/me/in/+");
        world.alice.call("conv.add", &eve).unwrap();
        let mut live = world.reader("eve", "phone", "chat/me/in/+");
        assert_eq!(live.next_json()["kind"], "added");
        assert_eq!(told(&mut world.alice, &edit, "carol is gone"), None);
        let react = world.topic(message, "react");
        assert_eq!(told(&mut world.bob, &react, "👍"), None);

        let unseen = live.next_json();
        assert_eq!(
            (&unseen["kind"], &unseen["reason"]),
            (&json!("gone"), &json!("unseen"))
        );
        let hidden = (0..3).map(|_| hiding.next_json()).last().unwrap();
        assert_eq!(
            (&hidden["kind"], &hidden["reason"]),
            (&json!("gone"), &json!("hidden"))
        );
        let mut eve = Login::new("eve")
            .version(version)
            .connect(world.server.address());
        let history = eve.history(&world.cid);
        assert_eq!(history[1]["reason"], "unseen");
        assert_eq!(
            eve.try_call("msg.reactions", &json!({"cid": world.cid, "seq": message}))
                .unwrap_err()["code"],
            "not_found"
        );

        let shown = world.carol.history(&world.cid);
        let shown = entry(&shown, message);
        assert_eq!(shown["t"], "while carol is there");
        assert_eq!(shown.get("reactions"), None, "that came later");
        let mut former = world.reader("carol", "late", "chat/me/in/+");
        former.next_json();
        assert_eq!(former.next_json()["t"], "while carol is there");
        for (action, payload) in [("edit", "x"), ("react", "x"), ("del", "all"), ("pin", "1")] {
            let topic = world.topic(message, action);
            let refusal = told(&mut world.carol, &topic, payload);
            assert_eq!(refusal.as_deref(), Some("not_found"), "{action}");
        }
        assert_eq!(told(&mut world.alice, &delete, "all"), None);
        let shown = world.carol.history(&world.cid);
        assert_eq!(
            shown[1]["gap"]["reason"], "deleted",
            "for those who left, too"
        );
    }
}

#[test]
fn what_happens_while_a_reader_is_away_is_what_the_reader_finds() {
    for version in VERSIONS {
        let mut world = World::new(version);
        let mut phone = world.reader("carol", "phone", "chat/me/in/+");
        assert_eq!(phone.next_json()["kind"], "created");
        phone.settle();
        phone.disconnect();
        let edited = world.say("edited");
        let deleted = world.say("deleted");
        let liked = world.say("liked");
        for (seq, action, payload) in [
            (edited, "edit", "better"),
            (deleted, "del", "all"),
            (liked, "react", "👍"),
            (liked, "pin", "1"),
        ] {
            let topic = world.topic(seq, action);
            assert_eq!(told(&mut world.alice, &topic, payload), None);
        }
        world.server.restart();
        let mut phone = world.reader("carol", "phone", "chat/me/in/+");
        // Where a phone stood is stored lazily: what it had may come again.
        let mut entries = Vec::new();
        while entries.len() < 7 {
            let entry = phone.next_json();
            if entry["seq"].as_u64() >= Some(edited) {
                entries.push(entry);
            }
        }
        assert_eq!(entry(&entries, edited)["t"], "better");
        assert_eq!(entry(&entries, deleted)["reason"], "deleted");
        assert_eq!(
            entry(&entries, liked)["reactions"],
            json!([{"emoji": "👍", "count": 1}])
        );
        assert_eq!(entry(&entries, liked)["pinned"], true);
        let seqs: Vec<u64> = entries
            .iter()
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (edited..edited + 7).collect();
        assert_eq!(seqs, expected, "every place is offered, in order");
        assert_eq!(world.unread("carol"), 2);
    }
}
