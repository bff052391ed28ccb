//! What users report, and who reads and settles it: the moderators of that conversation, and operators.

use serde_json::{Value, json};

use super::harness::Server;
use super::retention::{World, run};

/// Dave has reported a message of carol and one of bob, the moderator.
fn reported() -> World {
    let mut world = World::new(Server::dev());
    let cid = world.cid.clone();
    for (name, text) in [("carol", "rude"), ("bob", "ruder")] {
        let seq = world.say(name, text);
        let topic = format!("chat/c/{cid}/m/{seq}/report");
        let about = format!("about {name}");
        world.client("dave").publish(&topic, about);
    }
    world
}

/// All pages of one report each.
fn reports(world: &mut World, name: &str) -> Result<Vec<Value>, String> {
    let mut asked = json!({"cid": world.cid, "limit": 1});
    let mut found = Vec::new();
    loop {
        let mut page = world.call(name, "mod.reports", &asked)?;
        let Value::Array(reports) = page["reports"].take() else {
            panic!("{page}")
        };
        assert!(reports.len() <= 1);
        found.extend(reports);
        if page["next"].is_null() {
            return Ok(found);
        }
        asked["next"] = page["next"].take();
    }
}

fn texts(reports: &[Value]) -> Vec<&str> {
    let texts = reports.iter().map(|report| report["text"].as_str());
    texts.map(Option::unwrap).collect()
}

#[test]
fn moderators_settle_what_is_reported_of_others() {
    let mut world = reported();
    let cid = world.cid.clone();
    let all = reports(&mut world, "alice").unwrap();
    assert_eq!(texts(&all), ["about carol", "about bob"]);
    assert_eq!(all[0]["by"]["handle"], "dave");
    assert_eq!(all[0]["seq"], 2);
    let of_bob = reports(&mut world, "bob").unwrap();
    assert_eq!(texts(&of_bob), ["about carol"], "none of his own messages");
    let settle = |report: &Value| json!({"cid": cid, "id": report["id"]});
    for (name, expected) in [
        ("carol", "forbidden"),
        ("dave", "forbidden"),
        ("eve", "not_found"),
    ] {
        assert_eq!(
            reports(&mut world, name),
            Err(expected.to_owned()),
            "{name}"
        );
        let refused = world.call(name, "mod.settle", settle(&all[0]));
        assert_eq!(refused, Err(expected.to_owned()), "{name}");
    }
    let refused = world.call("bob", "mod.settle", settle(&all[1]));
    assert_eq!(refused, Err("not_found".to_owned()), "about himself");
    for bad in ["", "7", "7.x.mid"] {
        let asked = json!({"cid": cid, "id": bad});
        let refused = world.call("bob", "mod.settle", asked);
        assert_eq!(refused, Err("format".to_owned()), "{bad}");
    }
    world.call("bob", "mod.settle", settle(&all[0])).unwrap();
    world.server.kill();
    world.server.restart();
    world.connect_again();
    let again = world.call("bob", "mod.settle", settle(&all[0]));
    assert_eq!(again, Err("not_found".to_owned()));
    let left = reports(&mut world, "alice").unwrap();
    assert_eq!(texts(&left), ["about bob"]);
    // Whoever rules a conversation settles nothing for those who run the server.
    let id = all[0]["id"].as_str().unwrap();
    let listed = run(&world.server, &["report", "list", "--json"]);
    let listed = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let listed: Vec<Value> = listed.collect();
    let settled = |report: &Value| (report["id"].clone(), report["settled"].clone());
    assert_eq!(settled(&listed[0]), (json!(id), json!(true)));
    assert_eq!(settled(&listed[1]), (all[1]["id"].clone(), json!(false)));
    run(&world.server, &["report", "close", id]);
    let listed = run(&world.server, &["report", "list"]);
    assert!(!listed.contains("about carol"), "{listed}");
}

#[test]
fn operators_read_and_close_reports_also_while_no_server_runs() {
    let mut world = reported();
    let listed = run(&world.server, &["report", "list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[1].contains("about carol") && lines[1].contains("dave"));
    let ids: Vec<String> = lines[1..]
        .iter()
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect();
    let shown = run(&world.server, &["report", "show", &ids[0]]);
    assert!(
        shown.contains("about carol") && shown.contains("rude"),
        "{shown}"
    );
    run(&world.server, &["report", "close", &ids[0]]);
    let again = world.server.command(&["report", "close", &ids[0]], "");
    assert!(!again.status.success());
    world.server.terminate();
    world.server.wait_for_exit();
    let json = run(&world.server, &["report", "list", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&report["id"], &report["text"]),
        (&json!(ids[1]), &json!("about bob"))
    );
    run(&world.server, &["report", "close", &ids[1]]);
    assert_eq!(run(&world.server, &["report", "list"]), "");
}
