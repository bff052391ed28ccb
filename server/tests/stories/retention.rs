//! Messages that go many at a time: trimmed, purged, too old; and a user who takes out or erases what he wrote.

use std::borrow::Borrow;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, VERSIONS, eventually};

/// In no other text.
const NEEDLE: &str = "Zq8vTj3mWx0kRb7yNc5hPd2sLf9gEa4u";

/// A group of alice (owner), bob (moderator), carol and dave (members), and eve, who is none.
struct World {
    server: Server,
    clients: Vec<(&'static str, Client)>,
    cid: String,
}

impl World {
    fn new(server: Server) -> Self {
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

    fn client(&mut self, name: &str) -> &mut Client {
        let found = self.clients.iter_mut().find(|(known, _)| *known == name);
        &mut found.unwrap().1
    }

    fn connect_again(&mut self) {
        for (name, client) in &mut self.clients {
            *client = Login::new(name).connect(self.server.address());
        }
    }

    fn say(&mut self, name: &str, text: &str) -> u64 {
        let topic = format!("chat/to/{}", self.cid);
        self.client(name).publish(&topic, text).seq()
    }

    fn call(
        &mut self,
        name: &str,
        method: &str,
        asked: impl Borrow<Value>,
    ) -> Result<Value, String> {
        self.client(name).call(method, asked.borrow())
    }

    fn unread(&mut self, name: &str) -> u64 {
        let cid = self.cid.clone();
        let seen = self.call(name, "conv.get", json!({"cid": cid})).unwrap();
        seen["unread"].as_u64().unwrap()
    }

    /// The texts that are there, and where there are none.
    fn seen(&mut self, name: &str) -> (Vec<String>, Vec<u64>) {
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

fn run(server: &Server, arguments: &[&str]) -> String {
    let output: Output = server.command(arguments, "");
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
        assert_eq!(told["data"], json!({"from": 1, "to": 3, "messages": 2}));
        let nothing = world
            .call("alice", "conv.trim", json!({"cid": cid, "to": 3}))
            .unwrap();
        assert_eq!(nothing, json!({"cid": cid, "messages": 0}));

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

/// The lines of all pages.
fn export(client: &mut Client) -> Vec<Value> {
    let mut lines = Vec::new();
    let mut asked = json!({});
    loop {
        let page = client.call("me.export", &asked).unwrap();
        for line in page["lines"].as_array().unwrap() {
            lines.push(serde_json::from_str(line.as_str().unwrap()).unwrap());
        }
        if page["next"].is_null() {
            return lines;
        }
        asked = json!({"next": page["next"]});
    }
}

#[test]
fn a_user_takes_out_what_he_wrote_and_nothing_else() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let long = "x".repeat(30_000);
    for _ in 0..8 {
        world.say("carol", &long);
        world.say("dave", "of another");
    }
    let frist = world.client("carol").publish("chat/to/@eve", "frist").seq();
    let direct = world.call("carol", "conv.get", json!({"cid": "@eve"}));
    let direct = direct.unwrap()["cid"].as_str().unwrap().to_owned();
    let edit = format!("chat/c/{direct}/m/{frist}/edit");
    world.client("carol").publish(&edit, "first");
    let deleted = world.say("carol", "deleted");
    let topic = format!("chat/c/{cid}/m/{deleted}/del");
    world.client("carol").publish(&topic, "all");

    let lines = export(world.client("carol"));
    let of = |kind: &str| -> Vec<&Value> {
        let found = lines.iter().filter(|line| line["type"] == kind);
        found.collect()
    };
    assert_eq!(lines[0]["type"], "profile");
    assert_eq!(lines[0]["handle"], "carol");
    assert_eq!(of("conversation").len(), 2);
    assert_eq!(of("message").len(), 9);
    assert!(
        of("message")
            .iter()
            .all(|line| line["from"]["handle"] == "carol")
    );
    assert!(of("message").iter().any(|line| line["t"] == "first"));
    let counts = json!({"type": "counts", "conversations": 2, "messages": 9});
    assert_eq!(lines.last(), Some(&counts));
    for bad in ["x", "g.x:1:2:3", ""] {
        let refused = world.call("carol", "me.export", json!({"next": bad}));
        assert_eq!(refused, Err("format".to_owned()));
    }

    for stopped in [false, true] {
        if stopped {
            world.server.terminate();
            world.server.wait_for_exit();
        }
        let printed = run(&world.server, &["user", "export", "carol"]);
        let printed = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        assert_eq!(printed.collect::<Vec<Value>>(), lines);
    }
    let unknown = world.server.command(&["user", "export", "nobody"], "");
    assert!(!unknown.status.success());
}

#[test]
fn a_user_erases_what_he_wrote_page_by_page() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    for number in 0..3 {
        world.say("carol", &number.to_string());
        world.say("dave", &number.to_string());
    }
    let react = format!("chat/c/{cid}/m/3/react");
    for name in ["carol", "bob"] {
        world.client(name).publish(&react, "👍");
    }
    world.client("carol").publish("chat/to/@eve", "to eve");
    let erased = world.call("carol", "me.erase", json!({})).unwrap();
    let expected = json!({"conversations": 2, "messages": 4, "reactions": 1});
    assert_eq!(erased, expected);
    let again = world.call("carol", "me.erase", json!({})).unwrap();
    assert_eq!(again["messages"], 0);
    world.server.restart();
    world.connect_again();
    let (texts, gone) = world.seen("dave");
    assert_eq!(texts, ["0", "1", "2"]);
    assert_eq!(gone, [2, 4, 6, 8], "her reaction is gone, too");
    let reacted = &world.client("dave").history(&cid);
    let reacted = reacted.iter().find(|entry| entry["seq"] == 3).unwrap();
    assert_eq!(reacted["reactions"], json!([{"emoji": "👍", "count": 1}]));
    let eve = world.call("eve", "me.get", json!({})).unwrap();
    assert_eq!(eve["unread"], 0);
    assert_eq!(world.unread("alice"), 3);
    let counts = export(world.client("carol")).pop().unwrap();
    assert_eq!(counts["messages"], 0);
}

/// Is it in any file below a directory?
fn is_in_files(path: &Path) -> bool {
    std::fs::read_dir(path).unwrap().any(|file| {
        let path = file.unwrap().path();
        if path.is_dir() {
            return is_in_files(&path);
        }
        // Engines remove files while we look; a socket cannot be read.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let needle = NEEDLE.as_bytes();
        let mut starts = bytes.iter().enumerate();
        starts.any(|(at, byte)| *byte == needle[0] && bytes[at..].starts_with(needle))
    })
}

#[test]
fn what_an_operator_erases_is_in_no_file() {
    for engine in ["fjall", "sled"] {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mqchat.toml");
        std::fs::write(&config, format!("[store]\nengine = \"{engine}\"")).unwrap();
        let config = config.to_str().unwrap();
        let launch = |launch: Launch| launch.dev().argument("--config").argument(config);
        let mut world = World::new(Server::in_new_directory(launch));
        let cid = world.cid.clone();
        for number in 0..20 {
            world.say("carol", &format!("{NEEDLE} {number}"));
            world.say("dave", "of another");
        }
        let edit = format!("chat/c/{cid}/m/2/edit");
        world
            .client("carol")
            .publish(&edit, format!("edit {NEEDLE}"));
        let report = format!("chat/c/{cid}/m/3/report");
        world
            .client("carol")
            .publish(&report, format!("he {NEEDLE}"));
        let name = json!({"name": NEEDLE});
        world.call("carol", "me.set", name).unwrap();
        let device = Login::new("dave").device("phone");
        let mut phone = device.connect(world.server.address());
        phone.subscribe("chat/me/in/+");
        phone.disconnect();
        let data = world.server.data_dir().to_owned();
        assert!(is_in_files(&data), "{engine}: the search finds it");

        let unknown = world.server.command(&["user", "erase", "nobody"], "");
        assert!(!unknown.status.success());
        run(&world.server, &["user", "remove", "carol"]);
        let id = world.client("dave").history(&cid)[1]["from"]["uid"].clone();
        let said = run(&world.server, &["user", "erase", id.as_str().unwrap()]);
        assert!(said.starts_with("20 messages in 1 conversations"), "{said}");
        assert!(said.contains("1 reports"), "{said}");
        let (texts, gone) = world.seen("dave");
        assert_eq!((texts.len(), gone.len()), (20, 21));
        if engine == "sled" {
            assert!(said.contains("mqchat store compact"), "{said}");
            world.server.terminate();
            world.server.wait_for_exit();
            run(&world.server, &["store", "compact", "--config", config]);
            assert!(!is_in_files(&data), "{engine}");
        } else {
            assert!(said.contains("nothing that is gone is left"), "{said}");
            assert!(!is_in_files(&data), "{engine}");
            let again = run(&world.server, &["store", "compact", "--config", config]);
            assert!(again.contains("nothing that is gone is left"), "{again}");
            world.server.terminate();
            world.server.wait_for_exit();
            run(&world.server, &["store", "compact", "--config", config]);
            assert!(!is_in_files(&data), "{engine}");
        }
        world.server.restart();
        world.clients.retain(|(name, _)| *name != "carol");
        world.connect_again();
        assert_eq!(world.seen("dave").0.len(), 20);
        assert_eq!(world.unread("alice"), 20);
        world.say("dave", "goes on");
        let mut phone = device.connect(world.server.address());
        for _ in 0..43 {
            let entry = phone.next_json();
            assert!(!entry.to_string().contains(NEEDLE));
        }
    }
}
