//! A user who takes out what he wrote and told of himself, or erases it; and what is left of him in the files.

use std::path::Path;

use broker::codec::packet::{Qos, Version};
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, eventually};
use super::retention::{World, run};

/// In no other text; in lower case, too, where words are found by it.
const NEEDLE: &str = "Zq8vTj3mWx0kRb7yNc5hPd2sLf9gEa4u";

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
    let nowhere = "g.01jz0000000000000000000000";
    for bad in ["x", "m:g.x:1:2:3", "", &format!("m:{nowhere}:0:0:0")] {
        let refused = world.call("carol", "me.export", json!({"next": bad}));
        assert_eq!(refused, Err("format".to_owned()));
    }
    // Of a conversation that is another's no more is told than of none.
    let foreign = json!({"next": format!("m:{cid}:0:0:0")});
    for method in ["me.export", "me.erase"] {
        let refused = world.call("eve", method, &foreign);
        assert_eq!(refused, Err("format".to_owned()), "{method}");
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
        // She was seen meanwhile.
        let same = |line: &Value| line["type"] != "presence";
        let printed: Vec<Value> = printed.filter(same).collect();
        let lines = lines.iter().filter(|line| same(line));
        assert_eq!(
            printed.iter().collect::<Vec<_>>(),
            lines.collect::<Vec<_>>()
        );
    }
    let unknown = world.server.command(&["user", "export", "nobody"], "");
    assert!(!unknown.status.success());
}

#[test]
fn a_user_erases_what_he_wrote() {
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

#[test]
fn an_export_fits_into_small_packets() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let quotes = "\"".repeat(150);
    for _ in 0..5 {
        world.say("carol", &quotes);
    }
    let large = world.say("carol", &"x".repeat(5_000));
    let last = world.say("carol", "last");
    let status = json!({"status": "s".repeat(100), "name": "n".repeat(40)});
    world.call("carol", "me.set", status).unwrap();
    let small = Login::new("carol").version(Version::V5);
    let mut carol = small
        .maximum_packet_size(2_048)
        .connect(world.server.address());
    let lines = export(&mut carol);
    let of = |kind: &str| -> Vec<&Value> {
        let found = lines.iter().filter(|line| line["type"] == kind);
        found.collect()
    };
    assert_eq!(of("profile").len(), 1);
    assert_eq!(of("message").len(), 6);
    assert_eq!(of("message").last().unwrap()["seq"], last);
    let [too_large] = of("too_large")[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(
        (&too_large["of"], &too_large["seq"]),
        (&json!("message"), &json!(large))
    );
    assert_eq!(too_large["cid"], json!(cid));
    let counts = json!({"type": "counts", "conversations": 1, "messages": 7});
    assert_eq!(lines.last(), Some(&counts));
}

#[test]
fn all_that_is_known_of_a_user_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(Server::in_new_directory(|launch| {
        filtered(launch, folder.path())
    }));
    tell_much(&mut world, "in words");
    let prefs = json!({"cid": world.cid, "archived": true});
    world.call("carol", "conv.prefs", prefs).unwrap();
    world
        .call("carol", "people.block", json!({"user": "@eve"}))
        .unwrap();
    let own = json!({"desk": true, "members": ["@dave"]});
    let own = world.call("carol", "conv.create", own).unwrap();
    let ban = json!({"cid": own["cid"], "member": "@dave"});
    world.call("carol", "conv.ban", ban).unwrap();
    // How she wants to be seen is written within a moment.
    let lines = eventually("her presence to be at rest", || {
        let lines = export(world.client("carol"));
        let has_text = |line: &Value| line["type"] == "presence" && line["text"] == "in words";
        lines.iter().any(has_text).then_some(lines)
    });
    let of = |kind: &str| {
        let mut found = lines.iter().filter(|line| line["type"] == kind);
        let first = found
            .next()
            .unwrap_or_else(|| panic!("no {kind}: {lines:?}"));
        (first, found.count())
    };
    assert_eq!(of("profile").0["name"], "in words");
    assert_eq!(of("device").0["client_id"], "phone");
    assert_eq!(of("token").0["label"], "in words");
    assert_eq!(of("scheduled").0["t"], "in words");
    let (contact, blocked) = of("contact");
    assert_eq!((&contact["called"], blocked), (&json!("in words"), 1));
    assert_eq!(of("report").0["text"], "in words");
    let is_this = |line: &&Value| line["type"] == "conversation" && line["cid"] == world.cid;
    let conversation = lines.iter().find(is_this).unwrap();
    assert_eq!(conversation["archived"], true);
    assert_eq!(of("held").0["t"], "viagra in words");
    let (moderated, others) = of("moderated");
    assert_eq!((&moderated["action"], others), (&json!("conv.ban"), 0));
    assert!(
        moderated["from"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(of("message").0["t"], "in words");
}

#[test]
fn an_erasure_goes_page_by_page() {
    const PEOPLE: usize = 20;
    let mut world = World::new(Server::dev());
    for number in 0..PEOPLE {
        let name = format!("user{number}");
        Login::new(&name)
            .connect(world.server.address())
            .disconnect();
        let topic = format!("chat/to/@{name}");
        world.client("carol").publish(&topic, "hello");
    }
    let (mut pages, mut asked) = (Vec::new(), json!({}));
    loop {
        let page = world.call("carol", "me.erase", &asked).unwrap();
        asked = json!({"next": page["next"]});
        let is_last = page["next"].is_null();
        pages.push(page);
        if is_last {
            break;
        }
    }
    assert!(pages.len() > 1);
    let sum = |name: &str| -> u64 { pages.iter().map(|page| page[name].as_u64().unwrap()).sum() };
    assert_eq!(sum("messages"), PEOPLE as u64);
    assert_eq!(sum("conversations"), PEOPLE as u64 + 1);
}

/// A server that holds what has a bad word in it.
fn filtered(launch: Launch, folder: &Path) -> Launch {
    std::fs::write(folder.join("words"), "viagra\n").unwrap();
    let config = folder.join("mqchat.toml");
    let words = folder.join("words");
    let words = words.to_str().unwrap();
    std::fs::write(
        &config,
        format!("[filter]\nwords_file = \"{words}\"\nwords_policy = \"hold\"\n"),
    )
    .unwrap();
    launch
        .dev()
        .argument("--config")
        .argument(config.to_str().unwrap())
}

/// Carol says this wherever she can.
fn tell_much(world: &mut World, words: &str) {
    let cid = world.cid.clone();
    let first = world.say("carol", words);
    let edit = format!("chat/c/{cid}/m/{first}/edit");
    world.client("carol").publish(&edit, words);
    let report = format!("chat/c/{cid}/m/{first}/report");
    world.client("carol").publish(&report, words);
    let react = format!("chat/c/{cid}/m/{first}/react");
    world
        .client("carol")
        .publish(&react, words.replace(' ', "-"));
    let profile = json!({"name": words, "status": words});
    world.call("carol", "me.set", profile).unwrap();
    let contact = json!({"user": "@dave", "called": words});
    world.call("carol", "people.add", contact).unwrap();
    let presence = format!("away {words}");
    world.client("carol").publish("chat/me/presence", presence);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() * 1_000;
    let later = json!({"cid": cid, "t": words, "at": now + 24 * 3_600 * 1_000});
    world.call("carol", "msg.send", later).unwrap();
    let held = format!("viagra {words}");
    let topic = format!("chat/to/{cid}");
    world.client("carol").publish(&topic, held);
    run(
        &world.server,
        &["token", "issue", "carol", "--label", words],
    );
    let phone = Login::new("carol").device("phone");
    let mut phone = phone.connect(world.server.address());
    phone.subscribe("chat/me/in/+");
    phone.disconnect();
}

fn texts(world: &mut World, name: &str) -> Vec<String> {
    let cid = world.cid.clone();
    let history = world.client(name).history(&cid);
    let texts = history.iter().filter_map(|entry| entry["t"].as_str());
    texts.map(str::to_owned).collect()
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
        let lower = NEEDLE.to_lowercase();
        [NEEDLE, &lower].iter().any(|needle| {
            let needle = needle.as_bytes();
            let mut starts = bytes.iter().enumerate();
            starts.any(|(at, byte)| *byte == needle[0] && bytes[at..].starts_with(needle))
        })
    })
}

#[test]
fn what_an_erased_user_said_of_himself_is_told_to_nobody() {
    let mut world = World::new(Server::dev());
    let everybody = json!({"presence": {"who": "everybody"}});
    let privacy = world.call("carol", "me.privacy", everybody).unwrap();
    let presence = |text: &str| format!("away {text}");
    world
        .client("carol")
        .publish("chat/me/presence", presence("in words"));
    let presence = "chat/u/@carol/presence";
    world
        .client("eve")
        .subscribe_with(presence, Qos::AtMostOnce, false);
    let told = world.client("eve").next_json();
    assert_eq!(
        (&told["state"], &told["text"]),
        (&json!("away"), &json!("in words"))
    );
    run(&world.server, &["user", "erase", "carol"]);
    let told = world.client("eve").next_json();
    assert_eq!(
        (&told["state"], &told["text"]),
        (&json!("away"), &json!(""))
    );
    let after = world.call("carol", "me.privacy", json!({})).unwrap();
    assert_eq!(after, privacy);
    world.server.restart();
    world.connect_again();
    world
        .client("eve")
        .subscribe_with(presence, Qos::AtMostOnce, false);
    let told = world.client("eve").next_json();
    assert_eq!(
        (&told["state"], &told["text"]),
        (&json!("away"), &json!(""))
    );
}

#[test]
fn what_an_operator_erases_is_in_no_file() {
    for (engine, is_removed) in [("fjall", true), ("fjall", false), ("sled", true)] {
        let folder = tempfile::tempdir().unwrap();
        let launch = |launch: Launch| {
            filtered(launch, folder.path()).variable("MQCHAT_STORE__ENGINE", engine)
        };
        let mut world = World::new(Server::in_new_directory(launch));
        let cid = world.cid.clone();
        for number in 0..20 {
            world.say("carol", &format!("{NEEDLE} {number}"));
            world.say("dave", "of another");
        }
        let deleted = world.say("carol", NEEDLE);
        let delete = format!("chat/c/{cid}/m/{deleted}/del");
        world.client("carol").publish(&delete, "all");
        tell_much(&mut world, NEEDLE);
        let device = Login::new("dave").device("phone");
        let mut phone = device.connect(world.server.address());
        phone.subscribe("chat/me/in/+");
        phone.disconnect();
        let data = world.server.data_dir().to_owned();
        assert!(is_in_files(&data), "{engine}: the search finds it");

        let unknown = world.server.command(&["user", "erase", "nobody"], "");
        assert!(!unknown.status.success());
        let id = world.client("dave").history(&cid)[1]["from"]["uid"].clone();
        let id = id.as_str().unwrap();
        if is_removed {
            run(&world.server, &["user", "remove", "carol"]);
        } else {
            // Of a user who stays the devices stay.
            let listed = run(&world.server, &["device", "list", "carol"]);
            let phone = listed.split('\t').next().unwrap();
            run(&world.server, &["device", "revoke", "carol", phone]);
        }
        let said = run(&world.server, &["user", "erase", id]);
        assert!(said.starts_with("21 messages in 1 conversations"), "{said}");
        assert!(said.contains("1 reports"), "{said}");
        assert_eq!(texts(&mut world, "dave").len(), 20);
        if engine == "sled" {
            assert!(said.contains("mqchat store compact"), "{said}");
        } else {
            assert!(said.contains("nothing that is gone is left"), "{said}");
            assert!(!is_in_files(&data), "{engine}");
            let again = run(&world.server, &["store", "compact"]);
            assert!(again.contains("nothing that is gone is left"), "{again}");
        }
        world.server.terminate();
        world.server.wait_for_exit();
        let compact = ["store", "compact", "--config"];
        let config = folder.path().join("mqchat.toml");
        let with_engine = format!(
            "[store]\nengine = \"{engine}\"\n{}",
            std::fs::read_to_string(&config).unwrap()
        );
        std::fs::write(&config, with_engine).unwrap();
        let config = config.to_str().unwrap();
        run(&world.server, &[&compact[..], &[config]].concat());
        assert!(!is_in_files(&data), "{engine}");
        world.server.restart();
        world.clients.retain(|(name, _)| *name != "carol");
        world.connect_again();
        assert_eq!(texts(&mut world, "dave").len(), 20);
        assert_eq!(world.unread("alice"), 20);
        world.say("dave", "goes on");
        let mut phone = device.connect(world.server.address());
        let mut last = String::new();
        while last != "goes on" {
            let entry = phone.next_json();
            assert!(!entry.to_string().contains(NEEDLE));
            last = entry["t"].as_str().unwrap_or_default().to_owned();
        }
    }
}
