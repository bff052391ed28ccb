//! The audit log: who did what, when, from where; complete, for operators only, and without what was erased.

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use serde_json::{Value, json};

use super::harness::{Launch, Login, Server, eventually};
use super::retention::{World, run};

/// Lines of the log as objects, the oldest first.
fn lines(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["audit", "list", "--json"];
    all.extend(arguments);
    let listed = run(server, &all);
    let lines = listed.lines().rev();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Those of operators: action, outcome, and whom it is about.
fn of_operators(server: &Server) -> Vec<(String, String, Value)> {
    let lines = lines(server, &["--limit", "1000"]).into_iter();
    let lines = lines.filter(|line| line["by"] == "operator");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    lines
        .map(|line| {
            (
                text(&line["action"]),
                text(&line["outcome"]),
                line["about"].clone(),
            )
        })
        .collect()
}

/// Those of moderators: who, what, and about whom.
fn of_moderators(server: &Server) -> Vec<[String; 3]> {
    let lines = lines(server, &["--limit", "1000"]).into_iter();
    let lines = lines.filter(|line| !line["uid"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines
        .map(|line| ["by", "action", "about"].map(|field| text(&line[field])))
        .collect()
}

#[test]
fn what_moderators_do_leaves_a_line_each_and_survives_a_kill() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let seq = world.say("carol", "rude");
    let report = format!("chat/c/{cid}/m/{seq}/report");
    world.client("dave").publish(&report, "rude");
    let reports = world
        .call("bob", "mod.reports", json!({"cid": cid}))
        .unwrap();
    let settle = json!({"cid": cid, "id": reports["reports"][0]["id"]});
    let member = |name: &str| json!({"cid": cid, "member": name});
    let mut expected = Vec::new();
    for (by, method, asked, about) in [
        ("bob", "mod.settle", settle, "dave"),
        (
            "alice",
            "conv.role",
            json!({"cid": cid, "member": "@dave", "role": "moderator"}),
            "dave",
        ),
        (
            "alice",
            "conv.rights",
            json!({"cid": cid, "member": "@dave", "given": "send delete"}),
            "dave",
        ),
        (
            "alice",
            "conv.settings",
            json!({"cid": cid, "title": "in words", "slow_s": 1}),
            "",
        ),
        (
            "alice",
            "conv.settings",
            json!({"cid": cid, "slow_s": 0, "public": true, "approval": true}),
            "",
        ),
        (
            "bob",
            "mod.purge_user",
            json!({"cid": cid, "user": "@carol"}),
            "carol",
        ),
        ("alice", "conv.trim", json!({"cid": cid, "to": 3}), ""),
        (
            "alice",
            "conv.ban",
            json!({"cid": cid, "member": "@eve"}),
            "eve",
        ),
        (
            "alice",
            "conv.unban",
            json!({"cid": cid, "member": "@eve"}),
            "eve",
        ),
        ("alice", "conv.remove", member("@dave"), "dave"),
        ("alice", "conv.transfer", member("@bob"), "bob"),
    ] {
        world
            .call(by, method, &asked)
            .unwrap_or_else(|code| panic!("{method}: {code}"));
        expected.push([by, method, about].map(str::to_owned));
    }
    for (name, method) in [("eve", "conv.approve"), ("dave", "conv.refuse")] {
        world.call(name, "conv.join", json!({"cid": cid})).unwrap();
        let asked = json!({"cid": cid, "member": format!("@{name}")});
        world.call("bob", method, asked).unwrap();
        expected.push(["bob", method, name].map(str::to_owned));
    }
    let seq = world.say("carol", "rude again");
    let delete = format!("chat/c/{cid}/m/{seq}/del");
    world.client("bob").publish(&delete, "all");
    expected.push(["bob", "msg.delete", "carol"].map(str::to_owned));
    world.server.kill();
    world.server.restart();
    world.connect_again();
    assert_eq!(of_moderators(&world.server), expected);

    // Done again, refused, or of no moderator: no line.
    world.client("bob").publish(&delete, "all");
    let own = world.say("carol", "mine");
    world
        .client("carol")
        .publish(&format!("chat/c/{cid}/m/{own}/del"), "all");
    let ban = json!({"cid": cid, "member": "@bob"});
    assert_eq!(
        world.call("carol", "conv.ban", ban),
        Err("forbidden".to_owned())
    );
    world
        .call("eve", "conv.leave", json!({"cid": cid}))
        .unwrap();
    assert_eq!(of_moderators(&world.server), expected);

    let all = lines(&world.server, &["--user", "bob", "--action", "msg."]);
    let [line] = &all[..] else { panic!("{all:?}") };
    let from = line["from"].as_str().unwrap();
    assert!(from.starts_with("127.0.0.1:"), "{line}");
    assert_eq!(
        (&line["cid"], &line["outcome"]),
        (&json!(cid), &json!("done"))
    );
    assert_eq!(line["detail"], json!({"seq": seq}));
    let text = run(&world.server, &["audit", "list"]);
    assert!(
        !text.contains("in words") && !text.contains("rude"),
        "{text}"
    );
}

#[test]
fn what_becomes_of_held_messages_and_of_cases_leaves_its_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("words"), "viagra\n").unwrap();
    let config = folder.path().join("mqchat.toml");
    let filter = "[filter]\nwords_file = \"words\"\nwords_policy = \"hold\"\n";
    std::fs::write(&config, filter).unwrap();
    let config = config.to_str().unwrap();
    let start = |launch: Launch| launch.dev().argument("--config").argument(config);
    let mut world = World::new(Server::in_new_directory(start));
    let cid = world.cid.clone();
    for (mid, method) in [("one", "mod.approve"), ("two", "mod.reject")] {
        let topic = format!("chat/to/{cid}/{mid}");
        world
            .client("carol")
            .publish_with(&topic, "viagra", PublishProperties::default());
        let asked = json!({"cid": cid, "from": "@carol", "mid": mid});
        for _ in 0..2 {
            world.call("bob", method, &asked).unwrap();
        }
    }
    let desk = json!({"members": ["@bob", "@carol"], "desk": true});
    let desk = world.call("alice", "conv.create", desk).unwrap();
    let opened = json!({"desk": desk["cid"], "title": "help"});
    let case = world.call("eve", "case.open", opened).unwrap()["cid"].take();
    for (name, method, asked) in [
        ("bob", "case.claim", json!({"cid": case})),
        ("bob", "case.transfer", json!({"cid": case, "to": "@carol"})),
        ("carol", "case.transfer", json!({"cid": case})),
        ("carol", "case.claim", json!({"cid": case})),
        ("carol", "case.close", json!({"cid": case})),
    ] {
        world
            .call(name, method, &asked)
            .unwrap_or_else(|code| panic!("{method}: {code}"));
    }
    // The visitor opens it again, and closes it.
    let topic = format!("chat/to/{}", case.as_str().unwrap());
    world.client("eve").publish(&topic, "more");
    world
        .call("eve", "case.close", json!({"cid": case}))
        .unwrap();
    world.server.kill();
    world.server.restart();
    let expected = [
        ["bob", "mod.approve", "carol"],
        ["bob", "mod.reject", "carol"],
        ["bob", "case.claim", "bob"],
        ["bob", "case.transfer", "carol"],
        ["carol", "case.transfer", ""],
        ["carol", "case.claim", "carol"],
        ["carol", "case.close", ""],
    ];
    let expected = expected.map(|line| line.map(str::to_owned));
    assert_eq!(of_moderators(&world.server), expected);
    let rejected = &lines(&world.server, &["--action", "mod.reject"])[0];
    assert_eq!(rejected["detail"], json!({"mid": "two"}));
}

#[test]
fn what_operators_do_leaves_a_line_each_with_its_outcome() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").version(Version::V5).device("phone");
    alice = alice.client_id("phone");
    let mut phone = alice.connect(server.address());
    phone.subscribe("chat/me/in/+");
    phone.publish_retained("news/today", "rain");
    Login::new("bob").connect(server.address()).disconnect();
    let about = |name: &str| json!(name);
    let mut expected = Vec::new();
    let mut told = |arguments: &[&str], action: &str, outcome: &str, about: Value| {
        let output = server.command(arguments, "secret in words\n");
        assert_eq!(
            output.status.success(),
            outcome == "done",
            "{arguments:?}: {output:?}"
        );
        expected.push((action.to_owned(), outcome.to_owned(), about));
        String::from_utf8(output.stdout).unwrap()
    };
    told(
        &["user", "add", "carol"],
        "user add",
        "done",
        about("carol"),
    );
    told(
        &["user", "add", "carol"],
        "user add",
        "refused",
        about("carol"),
    );
    told(
        &["user", "passwd", "carol"],
        "user passwd",
        "done",
        about("carol"),
    );
    told(
        &["user", "passwd", "nobody"],
        "user passwd",
        "refused",
        Value::Null,
    );
    let token = told(
        &["token", "issue", "carol", "--label", "label in words"],
        "token issue",
        "done",
        about("carol"),
    );
    told(
        &["token", "revoke", "carol", "nonsense"],
        "token revoke",
        "refused",
        about("carol"),
    );
    told(
        &["user", "export", "alice"],
        "user export",
        "done",
        about("alice"),
    );
    told(&["report", "list"], "report list", "done", Value::Null);
    told(
        &["report", "show", "x"],
        "report show",
        "refused",
        Value::Null,
    );
    told(
        &["report", "close", "x"],
        "report close",
        "refused",
        Value::Null,
    );
    told(&["trust-clock"], "trust-clock", "done", Value::Null);
    told(&["log", "level", "info"], "log level", "done", Value::Null);
    told(
        &["client", "kick", "alice", "phone"],
        "client kick",
        "done",
        about("alice"),
    );
    told(
        &["session", "drop", "bob", "none"],
        "session drop",
        "refused",
        about("bob"),
    );
    told(
        &["retained", "clear", "news/#"],
        "retained clear",
        "done",
        Value::Null,
    );
    for list in [
        ["user", "list"],
        ["client", "list"],
        ["session", "list"],
        ["retained", "list"],
    ] {
        run(&server, &list);
    }
    assert_eq!(
        of_operators(&server),
        expected,
        "lists of no words have none"
    );
    server.signal("HUP");
    expected.push(("config reload".to_owned(), "done".to_owned(), Value::Null));
    eventually("the reload to be noted", || {
        (of_operators(&server) == expected).then_some(())
    });
    server.kill();
    server.restart();
    assert_eq!(of_operators(&server), expected);
    let all = lines(&server, &[]);
    let from = all[0]["from"].as_str().unwrap();
    assert!(from.starts_with("admin socket, system user "), "{from}");
    let numbers: Vec<_> = all
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!((numbers[0], numbers[15]), ("o1", "o16"), "dense");
    let kicked = &lines(&server, &["--action", "client kick"])[0];
    assert_eq!(kicked["detail"], json!({"client_id": "phone"}));
    let text = run(&server, &["audit", "list"]);
    assert!(
        !text.contains("in words") && !text.contains(token.trim()),
        "{text}"
    );

    server.terminate();
    server.wait_for_exit();
    run(&server, &["user", "remove", "carol"]);
    let last = lines(&server, &[]).pop().unwrap();
    let from = last["from"].as_str().unwrap();
    assert!(from.starts_with("command line, system user "), "{last}");
    assert_eq!(
        last["about"], last["about_uid"],
        "a removed user has no handle"
    );
}

#[test]
fn the_log_is_listed_by_time_user_and_action_in_pages() {
    let server = Server::in_new_directory(|launch| launch);
    for number in 0..5 {
        let name = format!("user{number}");
        run(&server, &["user", "add", &name, "--no-password"]);
    }
    run(&server, &["user", "remove", "user0"]);
    let ids = |arguments: &[&str]| -> Vec<String> {
        let lines = lines(&server, arguments).into_iter();
        lines
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&["--limit", "2"]), ["o5", "o6"], "the newest");
    assert_eq!(ids(&["--user", "user3"]), ["o4"]);
    assert_eq!(ids(&["--action", "user remove"]), ["o6"]);
    assert_eq!(ids(&["--action", "user"]).len(), 6);
    assert_eq!(ids(&["--since", "1h"]).len(), 6);
    assert_eq!(ids(&["--until", "1h"]).len(), 0);
    assert_eq!(
        ids(&["--since", "2020-01-01", "--until", "2020-02-01T00:00:00Z"]).len(),
        0
    );
    let removed = lines(&server, &["--action", "user remove"]);
    let uid = removed[0]["about_uid"].as_str().unwrap();
    assert_eq!(ids(&["--user", uid]), ["o1", "o6"]);
    let unknown = server.command(&["audit", "list", "--user", "nobody"], "");
    assert!(!unknown.status.success());
    let wrong = server.command(&["audit", "list", "--since", "soon"], "");
    assert_eq!(wrong.status.code(), Some(2));
    let table = run(&server, &["audit", "list", "--limit", "1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
}

#[test]
fn of_an_erased_user_only_the_id_is_left_and_no_call_reads_the_log() {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    let admin = json!({"cid": cid, "member": "@bob", "role": "admin"});
    world.call("alice", "conv.role", admin).unwrap();
    let ban = json!({"cid": cid, "member": "@carol"});
    world.call("bob", "conv.ban", ban).unwrap();
    for name in ["bob", "carol"] {
        run(&world.server, &["user", "remove", name]);
    }
    let ids: Vec<String> = lines(&world.server, &["--action", "user remove"])
        .iter()
        .map(|line| line["about_uid"].as_str().unwrap().to_owned())
        .collect();
    for id in &ids {
        run(&world.server, &["user", "erase", id]);
    }
    let all = run(&world.server, &["audit", "list", "--json"]);
    assert!(!all.contains("bob") && !all.contains("carol"), "{all}");
    let ban = &lines(&world.server, &["--action", "conv.ban"])[0];
    assert_eq!(
        (&ban["uid"], &ban["about_uid"]),
        (&json!(ids[0]), &json!(ids[1]))
    );
    assert_eq!((&ban["from"], &ban["detail"]), (&json!(""), &json!({})));

    for method in ["audit.list", "mod.audit", "admin.audit"] {
        let refused = world.call("alice", method, json!({"cid": cid}));
        assert_eq!(refused, Err("unknown_method".to_owned()));
    }
}
