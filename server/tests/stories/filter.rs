//! The content filter: words, a service over HTTP, and messages that wait for a moderator.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, Stopwatch, VERSIONS, eventually};

/// A group of alice (owner), bob (moderator), carol (member); and eve, who is none.
struct World {
    server: Server,
    clients: Vec<(&'static str, Client)>,
    cid: String,
    folder: tempfile::TempDir,
}

impl World {
    /// On a server with this section `[filter]`; `{dir}` stands for a directory that has a file `words`.
    fn new(version: Version, filter: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("words"), "# bad\nviagra\nvery bad\n").unwrap();
        let config = folder.path().join("mqchat.toml");
        std::fs::write(&config, format!("[filter]\n{filter}\n")).unwrap();
        let config = config.to_str().unwrap();
        let server = Server::in_new_directory(|launch: Launch| {
            launch.dev().argument("--config").argument(config)
        });
        let connect = |name| {
            let mut client = Login::new(name).version(version).connect(server.address());
            client.subscribe("chat/me/err/+");
            (name, client)
        };
        let mut clients: Vec<_> = ["alice", "bob", "carol", "eve"].map(connect).into();
        let group = json!({"members": ["@bob", "@carol"], "roles": {"@bob": "moderator"}});
        let made = clients[0].1.call("conv.create", &group).unwrap();
        let cid = made["cid"].as_str().unwrap().to_owned();
        Self {
            server,
            clients,
            cid,
            folder,
        }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        let found = self.clients.iter_mut().find(|(known, _)| *known == name);
        &mut found.unwrap().1
    }

    fn words(&self) -> std::path::PathBuf {
        self.folder.path().join("words")
    }

    /// The error that is told, if any.
    fn told(&mut self, name: &str, topic: &str, text: &str) -> Option<String> {
        let client = self.client(name);
        client.publish(topic, text);
        let told: Value = serde_json::from_slice(&client.arrived()?.payload).unwrap();
        Some(told["error"].as_str().unwrap().to_owned())
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        let cid = self.cid.clone();
        let history = self.client(name).history(&cid);
        let texts = history.iter().filter_map(|entry| entry["t"].as_str());
        texts.map(str::to_owned).collect()
    }

    fn held(&mut self, name: &str) -> Result<Vec<Value>, String> {
        let asked = json!({"cid": self.cid});
        let mut page = self.client(name).call("mod.held", &asked)?;
        let Value::Array(held) = page["held"].take() else {
            panic!("{page}")
        };
        Ok(held)
    }
}

#[test]
fn words_that_are_not_allowed_are_refused_everywhere() {
    for version in VERSIONS {
        let mut world = World::new(version, "words_file = \"words\"");
        let topic = format!("chat/to/{}", world.cid);
        let (as_json, direct) = (
            json!({"t": "ViAgRa"}).to_string(),
            "chat/to/@eve".to_owned(),
        );
        for (topic, text, expected) in [
            (&topic, "hello", None),
            (&topic, "buy VIAGRA now", Some("forbidden")),
            (&topic, &as_json, Some("forbidden")),
            (&direct, "a Very-Bad thing", Some("forbidden")),
            (&topic, "viagras are other things", None),
        ] {
            let told = world.told("carol", topic, text);
            assert_eq!(told.as_deref(), expected, "{text}");
        }
        let edit = format!("chat/c/{}/m/2/edit", world.cid);
        let told = world.told("carol", &edit, "viagra");
        assert_eq!(
            told.as_deref(),
            Some("forbidden"),
            "an edit is no way around it"
        );
        let asked = json!({"cid": world.cid, "t": "viagra"});
        let refused = world.client("carol").call("msg.send", &asked);
        assert_eq!(refused, Err("forbidden".to_owned()));
        assert_eq!(world.texts("bob"), ["hello", "viagras are other things"]);

        std::fs::write(world.words(), "hello").unwrap();
        world.server.signal("HUP");
        eventually("the list to be read again", || {
            world.told("carol", &topic, "hello")
        });
        assert_eq!(world.told("carol", &topic, "viagra"), None);
        // What was stored once is only repeated.
        std::fs::write(world.words(), "stored").unwrap();
        let mid = format!("{topic}/once");
        assert_eq!(world.told("carol", &mid, "stored"), None);
        world.server.signal("HUP");
        eventually("the list to be read again", || {
            world.told("carol", &topic, "stored")
        });
        assert_eq!(world.told("carol", &mid, "stored"), None);
    }
}

#[test]
fn what_is_shown_beside_the_text_is_looked_at_too() {
    for version in VERSIONS {
        let mut world = World::new(version, "words_file = \"words\"");
        let topic = format!("chat/to/{}", world.cid);
        for message in [
            json!({"t": "a poll", "kind": "poll", "poll": {"options": ["tea", "viagra"]}}),
            json!({"t": "a file", "kind": "file", "media": [{"id": "m1", "name": "viagra.pdf"}]}),
            json!({"t": "me", "kind": "contact", "contact": {"name": "Very Bad"}}),
            json!({"t": "here", "kind": "location", "location": {"lat": 1, "lon": 2, "name": "Viagra"}}),
        ] {
            let told = world.told("carol", &topic, &message.to_string());
            assert_eq!(told.as_deref(), Some("forbidden"), "{message}");
        }
        let fine = json!({"t": "a poll", "kind": "poll", "poll": {"options": ["tea", "coffee"]}});
        assert_eq!(world.told("carol", &topic, &fine.to_string()), None);
        let cid = world.cid.clone();
        let history = world.client("bob").history(&cid);
        let messages = history.iter().filter(|entry| entry["kind"] == "message");
        assert_eq!(messages.count(), 1);
    }
    let filter = "words_file = \"words\"\nwords_policy = \"hold\"";
    let mut world = World::new(Version::V5, filter);
    let topic = format!("chat/to/{}", world.cid);
    let poll = json!({"t": "a poll", "kind": "poll", "poll": {"options": ["tea", "viagra"]}});
    assert_eq!(world.told("carol", &topic, &poll.to_string()), None);
    let held = world.held("bob").unwrap();
    assert_eq!(held[0]["text"], "a poll\ntea\nviagra", "what he decides on");
}

#[test]
fn what_else_others_read_is_looked_at_too() {
    for (version, policy) in [(Version::V311, "reject"), (Version::V5, "hold")] {
        let filter = format!("words_file = \"words\"\nwords_policy = \"{policy}\"");
        let mut world = World::new(version, &filter);
        let cid = world.cid.clone();
        let texts = [("viagra", Err("forbidden".to_owned())), ("tea", Ok(()))];
        for (text, expected) in texts {
            for (method, asked) in [
                ("conv.create", json!({"title": text, "members": ["@bob"]})),
                (
                    "conv.create",
                    json!({"kind": "channel", "description": text}),
                ),
                (
                    "conv.create",
                    json!({"kind": "broadcast", "title": text, "members": ["@bob"]}),
                ),
                ("conv.settings", json!({"cid": cid, "title": text})),
                (
                    "conv.settings",
                    json!({"cid": cid, "description": format!("on\n{text}")}),
                ),
                ("conv.settings", json!({"cid": cid, "tags": text})),
                ("me.set", json!({"name": text})),
                ("me.set", json!({"name": "Alice", "status": text})),
                ("me.set", json!({"tags": format!("one {text}")})),
                ("me.handle", json!({"handle": format!("a.{text}")})),
            ] {
                let done = world.client("alice").call(method, &asked).map(drop);
                assert_eq!(done, expected, "{method} {asked}");
            }
            let told = world.told("alice", "chat/me/presence", &format!("away {text}"));
            assert_eq!(told, expected.err());
        }
        let known = world.client("alice").call("me.get", &json!({})).unwrap();
        assert_eq!(
            (&known["name"], &known["status"], &known["handle"]),
            (&json!("Alice"), &json!("tea"), &json!("a.tea"))
        );
        // Who may not change it learns nothing of the list.
        let asked = json!({"cid": cid, "title": "viagra"});
        let refused = world.client("eve").call("conv.settings", &asked);
        assert_eq!(refused, Err("not_found".to_owned()));
        // What was stored once is only repeated.
        let asked = json!({"cid": cid, "title": "stored"});
        let alice = world.client("alice");
        let first = alice.call_as("again", "conv.settings", &asked).unwrap();
        std::fs::write(world.words(), "stored\ntea").unwrap();
        world.server.signal("HUP");
        eventually("the list to be read again", || {
            world.told("carol", &format!("chat/to/{cid}"), "stored")
        });
        let alice = world.client("alice");
        let again = alice.call_as("again", "conv.settings", &asked);
        assert_eq!(again.unwrap()["seq"], first["seq"]);
        let same = json!({"status": "tea", "locale": "de"});
        let kept = world.client("alice").call("me.set", &same);
        assert!(kept.is_ok(), "it is no other than before: {kept:?}");
    }
}

#[test]
fn a_service_judges_what_else_others_read_but_no_presence() {
    let (url, thread) = service();
    for (policy, failed) in [
        ("reject", Err("rate")),
        ("hold", Err("rate")),
        ("allow", Ok(())),
    ] {
        let settings = format!("url = \"{url}\"\ntimeout_ms = 700\nfailure_policy = \"{policy}\"");
        let mut world = World::new(Version::V5, &settings);
        let cid = world.cid.clone();
        for (text, expected) in [
            ("fine", Ok(())),
            ("reject", Err("forbidden")),
            ("hold", Err("forbidden")),
            ("fail", failed),
        ] {
            let title = json!({"cid": cid, "title": text});
            let named = json!({"name": text});
            for (method, asked) in [("conv.settings", title), ("me.set", named)] {
                let done = world.client("alice").call(method, &asked);
                let done = done.map(drop);
                let expected = expected.map_err(str::to_owned);
                assert_eq!(done, expected, "{policy}: {method} {text}");
            }
            let told = world.told("alice", "chat/me/presence", &format!("away {text}"));
            assert_eq!(told, None, "it is not asked about {text}");
        }
        if policy == "allow" {
            let stop = json!({"name": "stop"});
            world.client("alice").call("me.set", &stop).unwrap();
        }
    }
    thread.join().unwrap();
}

#[test]
fn what_is_held_waits_for_a_moderator() {
    for version in VERSIONS {
        let filter = "words_file = \"words\"\nwords_policy = \"hold\"";
        let mut world = World::new(version, filter);
        let (cid, topic) = (world.cid.clone(), format!("chat/to/{}", world.cid));
        let mut reader = Login::new("alice").version(version).device("phone");
        reader = reader.client_id("phone");
        let mut reader = reader.connect(world.server.address());
        reader.subscribe("chat/me/in/+");
        for number in 1..=3 {
            let topic = format!("{topic}/held-{number}");
            let text = format!("viagra {number}");
            let none = PublishProperties::default();
            let answer = world.client("carol").publish_with(&topic, &text, none);
            assert!(!answer.reason.is_error());
            if version == Version::V5 {
                assert_eq!((answer.get("held"), answer.get("seq")), (Some("1"), None));
            }
            assert_eq!(world.told("carol", &topic, &text), None, "again");
        }
        let told = world.told("carol", &format!("{topic}/held-1"), "very bad");
        assert_eq!(told.as_deref(), Some("idempotency_conflict"));
        let told = world.told("carol", &format!("{topic}/held-1"), "hello");
        assert_eq!(
            told.as_deref(),
            Some("idempotency_conflict"),
            "nothing against it, but its message id is taken"
        );
        let direct = world.told("carol", "chat/to/@eve", "viagra");
        assert_eq!(
            direct.as_deref(),
            Some("forbidden"),
            "nobody moderates there"
        );
        let asked = json!({"cid": cid, "t": "very bad", "mid": "by-call"});
        let called = world.client("carol").call("msg.send", &asked).unwrap();
        assert_eq!(called, json!({"cid": cid, "held": true}));

        world.server.restart();
        for (name, client) in &mut world.clients {
            let login = Login::new(name).version(version);
            *client = login.connect(world.server.address());
            client.subscribe("chat/me/err/+");
        }
        assert_eq!(
            world.texts("carol"),
            [""; 0],
            "also her own is not there yet"
        );
        for (name, expected) in [("carol", "forbidden"), ("eve", "not_found")] {
            assert_eq!(world.held(name), Err(expected.to_owned()), "{name}");
            let decide = json!({"cid": cid, "from": "@carol", "mid": "held-1"});
            for method in ["mod.approve", "mod.reject"] {
                let refused = world.client(name).call(method, &decide);
                assert_eq!(refused, Err(expected.to_owned()), "{name} {method}");
            }
        }
        let held = world.held("bob").unwrap();
        assert_eq!(held.len(), 4);
        assert_eq!(
            (&held[1]["mid"], &held[1]["text"]),
            (&json!("held-1"), &json!("viagra 1"))
        );
        assert_eq!(held[1]["from"]["handle"], "carol");
        let page = json!({"cid": cid, "limit": 3});
        let first = world.client("bob").call("mod.held", &page).unwrap();
        let page = json!({"cid": cid, "next": first["next"]});
        let last = world.client("bob").call("mod.held", &page).unwrap();
        assert_eq!(last["held"].as_array().unwrap().len(), 1);
        assert!(last["next"].is_null());

        let mut decide = |method: &str, mid: &str| {
            let asked = json!({"cid": cid, "from": "@carol", "mid": mid});
            world.client("bob").call(method, &asked)
        };
        let approved = decide("mod.approve", "held-2").unwrap();
        assert_eq!(approved, json!({"cid": cid, "seq": 2}));
        let again = decide("mod.approve", "held-2").unwrap();
        assert_eq!(again["seq"], 2, "the same request has the same result");
        let late = decide("mod.reject", "held-2");
        assert_eq!(late, Err("not_found".to_owned()), "all have read it");
        for _ in 0..2 {
            decide("mod.reject", "held-1").unwrap();
        }
        let late = decide("mod.approve", "held-1");
        assert_eq!(late, Err("not_found".to_owned()));
        assert_eq!(world.held("bob").unwrap().len(), 2);
        assert_eq!(world.texts("carol"), ["viagra 2"]);
        let again = world.told("carol", &format!("{topic}/held-2"), "viagra 2");
        assert_eq!(again, None, "a repeated message finds its place");
        assert_eq!(world.texts("alice").len(), 1);
        let late = json!({"cid": cid, "from": "@carol", "mid": "held-3"});
        let reader = json!({"cid": cid, "member": "@carol", "role": "reader"});
        world.client("alice").call("conv.role", &reader).unwrap();
        let refused = world.client("bob").call("mod.approve", &late);
        assert_eq!(refused, Err("forbidden".to_owned()), "she may not write");
        let leave = json!({"cid": cid});
        world.client("carol").call("conv.leave", &leave).unwrap();
        let refused = world.client("bob").call("mod.approve", &late);
        assert_eq!(
            refused,
            Err("forbidden".to_owned()),
            "she is no member any more"
        );
    }
}

#[test]
fn what_was_rejected_gets_the_answer_of_before_when_it_comes_again() {
    for version in VERSIONS {
        let filter = "words_file = \"words\"\nwords_policy = \"hold\"";
        let mut world = World::new(version, filter);
        let (cid, topic) = (world.cid.clone(), format!("chat/to/{}", world.cid));
        let rejected = format!("{topic}/rejected");
        let by_call = json!({"cid": cid, "t": "very bad", "mid": "by-call"});
        assert_eq!(world.told("carol", &rejected, "viagra"), None);
        world.client("carol").call("msg.send", &by_call).unwrap();
        for mid in ["rejected", "by-call"] {
            let asked = json!({"cid": cid, "from": "@carol", "mid": mid});
            world.client("bob").call("mod.reject", &asked).unwrap();
        }
        let again = |world: &mut World| {
            let none = PublishProperties::default();
            let answer = world
                .client("carol")
                .publish_with(&rejected, "viagra", none);
            assert!(!answer.reason.is_error());
            if version == Version::V5 {
                assert_eq!((answer.get("held"), answer.get("seq")), (Some("1"), None));
            }
            assert_eq!(world.client("carol").arrived(), None, "she is not told");
            let called = world.client("carol").call("msg.send", &by_call).unwrap();
            assert_eq!(called, json!({"cid": cid, "held": true}));
            let other = world.told("carol", &rejected, "hello");
            assert_eq!(other.as_deref(), Some("idempotency_conflict"));
        };
        again(&mut world);
        // Also when nothing is said against it any more.
        std::fs::write(world.words(), "another word").unwrap();
        world.server.kill();
        world.server.restart();
        for (name, client) in &mut world.clients {
            let login = Login::new(name).version(version);
            *client = login.connect(world.server.address());
            client.subscribe("chat/me/err/+");
        }
        assert_eq!(world.told("carol", &topic, "viagra, another one"), None);
        again(&mut world);
        assert_eq!(world.held("bob").unwrap().len(), 0, "it was decided");
        assert_eq!(world.texts("alice"), ["viagra, another one"]);
    }
}

#[test]
fn nobody_approves_what_he_wrote_himself() {
    for version in VERSIONS {
        let filter = "words_file = \"words\"\nwords_policy = \"hold\"";
        let mut world = World::new(version, filter);
        let (cid, topic) = (world.cid.clone(), format!("chat/to/{}", world.cid));
        let own = format!("{topic}/own");
        assert_eq!(world.told("bob", &own, "viagra"), None);
        let asked = json!({"cid": cid, "from": "@bob", "mid": "own"});
        let refused = world.client("bob").call("mod.approve", &asked);
        assert_eq!(refused, Err("forbidden".to_owned()), "{version:?}");
        assert_eq!(world.texts("carol"), [""; 0]);
        let demote = json!({"cid": cid, "member": "@bob", "role": "member"});
        world.client("alice").call("conv.role", &demote).unwrap();
        let alone = world.told("alice", &topic, "viagra");
        assert_eq!(alone.as_deref(), Some("forbidden"), "nobody else moderates");
        let promote = json!({"cid": cid, "member": "@bob", "role": "moderator"});
        world.client("alice").call("conv.role", &promote).unwrap();
        let hers = format!("{topic}/hers");
        assert_eq!(world.told("alice", &hers, "viagra"), None, "it is held");
        world.client("alice").call("conv.role", &demote).unwrap();
        assert_eq!(world.told("alice", &hers, "viagra"), None, "it still is");
        world.client("alice").call("mod.approve", &asked).unwrap();
        assert_eq!(world.texts("carol"), ["viagra"]);
    }
}

#[test]
fn where_nobody_may_be_to_decide_nothing_is_held() {
    for version in VERSIONS {
        let filter = "words_file = \"words\"\nwords_policy = \"hold\"";
        let mut world = World::new(version, filter);
        let list = json!({"kind": "broadcast", "members": ["@bob", "@eve"]});
        let list = world.client("carol").call("conv.create", &list).unwrap();
        let desk = json!({"title": "Help", "desk": true});
        let desk = world.client("alice").call("conv.create", &desk).unwrap();
        let open = json!({"desk": desk["cid"], "title": "it smokes"});
        let case = world.client("carol").call("case.open", &open).unwrap();
        let of_case = json!({"cid": case["cid"]});
        let [list, to] =
            [&list, &case].map(|made| format!("chat/to/{}", made["cid"].as_str().unwrap()));
        for (topic, what) in [(&list, "a list"), (&to, "a case that nobody has")] {
            let told = world.told("carol", topic, "viagra");
            assert_eq!(told.as_deref(), Some("forbidden"), "{what}");
            assert_eq!(world.told("carol", topic, "hello"), None, "{what}");
        }
        for method in ["case.claim", "case.close"] {
            world.client("alice").call(method, &of_case).unwrap();
            let told = world.told("carol", &to, "viagra");
            assert_eq!(told.as_deref(), Some("forbidden"), "{method}");
        }
        assert_eq!(world.told("carol", &to, "it smokes again"), None);
        let queue = json!({"desk": desk["cid"], "state": "queued"});
        let queue = world.client("alice").call("case.queue", &queue).unwrap();
        assert_eq!(queue["cases"].as_array().unwrap().len(), 1, "opened again");
    }
}

/// A service that judges by what it is told, and says how.
fn service() -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/judge", listener.local_addr().unwrap());
    let serve = move || {
        let mut hanging = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let Some(asked) = request(&mut stream) else {
                continue;
            };
            let text = asked["text"].as_str().unwrap();
            let ok = |body: &str| {
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            };
            let answer = match text {
                "stop" => return,
                "hang" => {
                    hanging.push(stream);
                    continue;
                }
                "redirect" => "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".into(),
                "fail" => "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".into(),
                "large" => ok(&format!("{{\"verdict\":\"allow\",\"x\":\"{}\"}}", "x".repeat(70_000))),
                "nonsense" => ok("yes"),
                "hold" => ok(r#"{"verdict":"hold","reason":"look at it"}"#),
                "reject" => ok(r#"{"verdict":"reject","reason":"not nice"}"#),
                _ => ok(r#"{"verdict":"allow"}"#),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    };
    (url, std::thread::spawn(serve))
}

/// The object that was posted.
fn request(stream: &mut TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let head = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        if let Some(head) = head
            && let Ok(body) = serde_json::from_slice(&bytes[head + 4..])
        {
            assert!(bytes.starts_with(b"POST /judge HTTP/1.1\r\n"));
            return Some(body);
        }
        match stream.read(&mut buffer).unwrap_or(0) {
            0 => return None,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

#[test]
fn a_service_judges_and_its_silence_stops_nobody_else() {
    let (url, thread) = service();
    let settings =
        |policy: &str| format!("url = \"{url}\"\ntimeout_ms = 700\nfailure_policy = \"{policy}\"");
    let mut world = World::new(Version::V5, &settings("reject"));
    let topic = format!("chat/to/{}", world.cid);
    for text in ["fine", "also fine"] {
        assert_eq!(world.told("carol", &topic, text), None);
    }
    let answer = world.client("carol").publish(&topic, "reject");
    assert_eq!(answer.get("error"), Some("forbidden"));
    assert_eq!(answer.reason_string.as_deref(), Some("refused: not nice"));
    world.client("carol").arrived();
    assert_eq!(world.told("carol", &topic, "hold"), None);
    assert_eq!(world.held("bob").unwrap()[0]["reason"], "look at it");
    for bad in ["redirect", "fail", "large", "nonsense", "hang"] {
        let told = world.told("carol", &topic, bad);
        assert_eq!(told.as_deref(), Some("rate"), "{bad}: nobody judged it");
    }
    let none = PublishProperties::default();
    let began = Stopwatch::start();
    world.client("carol").send_publish(&topic, "hang", none);
    assert_eq!(world.told("alice", &topic, "meanwhile"), None);
    assert!(
        began.elapsed() < Duration::from_millis(600),
        "she waited for nobody"
    );
    assert!(
        world
            .client("carol")
            .next_answer()
            .unwrap()
            .reason
            .is_error()
    );
    assert_eq!(world.texts("bob"), ["fine", "also fine", "meanwhile"]);

    for (policy, text_is_there, is_held) in [("allow", true, false), ("hold", false, true)] {
        let mut world = World::new(Version::V5, &settings(policy));
        let topic = format!("chat/to/{}", world.cid);
        assert_eq!(world.told("carol", &topic, "fail"), None, "{policy}");
        assert_eq!(world.texts("bob") == ["fail"], text_is_there, "{policy}");
        assert_eq!(!world.held("bob").unwrap().is_empty(), is_held, "{policy}");
        let direct = world.told("carol", "chat/to/@eve", "fail");
        let expected = is_held.then_some("rate");
        assert_eq!(direct.as_deref(), expected, "nobody moderates there");
    }
    world
        .client("carol")
        .send_publish(&topic, "stop", PublishProperties::default());
    thread.join().unwrap();
}

/// So long a service may be silent here: whoever waits for it is found out.
const SILENCE: Duration = Duration::from_secs(20);

fn silent(url: &str) -> String {
    format!(
        "url = \"{url}\"\ntimeout_ms = 20000\nfailure_policy = \"reject\"\n[broker]\ndrain_timeout_ms = 300"
    )
}

#[test]
fn a_silent_service_holds_up_neither_what_passed_nor_the_next_connection_nor_the_end() {
    let (url, thread) = service();
    let mut world = World::new(Version::V5, &silent(&url));
    let topic = format!("chat/to/{}", world.cid);
    let login = Login::new("carol").version(Version::V5).client_id("phone");
    let mut phone = login.connect(world.server.address());
    let began = Stopwatch::start();
    phone.send_publish(&topic, "fine", PublishProperties::default());
    for _ in 0..40 {
        phone.send_publish(&topic, "hang", PublishProperties::default());
    }
    assert!(!phone.next_answer().unwrap().reason.is_error());
    assert_eq!(world.texts("bob"), ["fine"]);
    drop(phone);
    let mut phone = login.connect(world.server.address());
    assert!(began.elapsed() < SILENCE, "it waited for what nobody needs");
    assert_eq!(world.told("bob", &topic, "others go on"), None);

    phone.send_publish(&topic, "hang", PublishProperties::default());
    world
        .client("bob")
        .send_publish(&topic, "stop", PublishProperties::default());
    thread.join().unwrap();
    world.server.terminate();
    assert!(world.server.wait_for_exit().success());
    assert!(
        began.elapsed() < SILENCE,
        "it ends though a service is silent"
    );
}

#[test]
fn a_scheduled_message_waits_for_no_answer_about_another() {
    let (url, thread) = service();
    let mut world = World::new(Version::V5, &silent(&url));
    let cid = world.cid.clone();
    let at = super::scheduled::in_ms(1_500);
    let began = Stopwatch::start();
    for (name, text) in [("alice", "hang"), ("carol", "fail"), ("bob", "fine")] {
        let asked = json!({"cid": cid, "t": text, "at": at, "mid": "later"});
        let waits = world.client(name).call("msg.send", &asked).unwrap();
        assert_eq!(waits["at"], at, "{waits}");
    }
    eventually("the message that passed", || {
        (world.texts("alice") == ["fine"]).then_some(())
    });
    assert!(began.elapsed() < SILENCE, "others wait, this one does not");
    // Nobody has judged the others: they are tried again, and are what they were.
    for name in ["alice", "carol"] {
        let page = world
            .client(name)
            .call("msg.scheduled", &json!({}))
            .unwrap();
        let one = &page["scheduled"][0];
        assert_eq!((&one["at"], &one["error"]), (&json!(at), &Value::Null));
    }
    world.client("carol").send_publish(
        &format!("chat/to/{cid}"),
        "stop",
        PublishProperties::default(),
    );
    thread.join().unwrap();
}

#[test]
fn a_filter_that_makes_no_sense_is_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mqchat.toml");
    for (filter, said) in [
        ("words_file = \"nowhere\"", "words_file"),
        ("url = \"ftp://example.com\"", "http"),
        (
            "url = \"https://example.com\"\nca_file = \"/nowhere\"",
            "ca_file",
        ),
        ("words_policy = \"shrug\"", "words_policy"),
    ] {
        std::fs::write(&config, format!("[filter]\n{filter}\n")).unwrap();
        let config = ["check-config", "--config", config.to_str().unwrap()];
        let output = check(&config);
        assert!(!output.0, "{filter}");
        assert!(output.1.contains(said), "{filter}: {}", output.1);
    }
}

fn check(arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mqchat"))
        .args(arguments)
        .current_dir(Path::new("/"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}
