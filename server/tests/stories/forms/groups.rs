//! Groups: who comes and goes, who may do what, and what later members see.

use serde_json::{Value, json};

use crate::harness::Login;
use crate::rows::{EVERYBODY, Person, Seen, World, items, number, others};

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

/// Somebody makes a group with others; its id.
fn group(world: &mut World, who: usize, with: &[usize], settings: Value) -> String {
    let members: Vec<String> = with.iter().map(|other| world.handle(*other)).collect();
    let mut request = settings;
    request["title"] = json!("Lunch");
    request["members"] = json!(members);
    let made = world.people[who].call("conv.create", &request).unwrap();
    made["cid"].as_str().unwrap().to_owned()
}

fn texts(history: &[Value]) -> Vec<String> {
    let text = |entry: &Value| {
        let text = entry["t"].as_str().or_else(|| entry["m"]["t"].as_str());
        text.map(str::to_owned)
    };
    history.iter().filter_map(text).collect()
}

fn call_in(person: &mut Person, cid: &str, method: &str, asked: Value) -> Result<Value, String> {
    let mut request = asked;
    request["cid"] = json!(cid);
    person.call(method, &request)
}

#[test]
fn members_come_go_and_change_by_calls_in_every_form() {
    let mut world = World::new();
    Login::new("dave")
        .connect(world.server.address())
        .disconnect();
    for who in EVERYBODY {
        let [one, other] = others(who);
        let [first, second] = [one, other].map(|user| world.handle(user));
        let cid = group(&mut world, who, &[one], json!({"history": "all"}));
        let from = world.people[who].name;
        let entry = |kind: &str, seq: u64| Seen {
            seq,
            kind: kind.into(),
            from: from.into(),
            ..Seen::default()
        };
        world.people[one].sees_in(&cid, &entry("created", 1));
        let changes = [
            (
                "conv.add",
                json!({"members": [second], "role": "moderator"}),
                "added",
            ),
            (
                "conv.role",
                json!({"member": first, "role": "admin"}),
                "role",
            ),
            (
                "conv.settings",
                json!({"title": "Dinner", "description": "late"}),
                "settings",
            ),
            (
                "conv.rights",
                json!({"member": second, "given": "send"}),
                "role",
            ),
            ("conv.ban", json!({"member": "@dave"}), "banned"),
            ("conv.unban", json!({"member": "@dave"}), "unbanned"),
            ("conv.remove", json!({"member": second}), "removed"),
            ("conv.add", json!({"members": [second]}), "added"),
            ("conv.transfer", json!({"member": first}), "role"),
        ];
        for ((method, asked, kind), seq) in changes.into_iter().zip(2..) {
            let done = call_in(&mut world.people[who], &cid, method, asked).unwrap();
            assert_eq!(done["seq"], seq, "{method}");
            for reader in [one, other] {
                world.people[reader].sees_in(&cid, &entry(kind, seq));
            }
        }
        // The owner leaves when another one is there, and comes back as a member.
        let leave = |person: &mut Person, asked| call_in(person, &cid, "conv.leave", asked);
        assert_eq!(
            leave(&mut world.people[one], json!({})),
            refused("last_owner")
        );
        let heir = json!({"owner": world.handle(who)});
        leave(&mut world.people[one], heir).unwrap();
        assert_eq!(
            call_in(&mut world.people[one], &cid, "conv.get", json!({})),
            refused("not_found")
        );
        let back = json!({"members": [first]});
        call_in(&mut world.people[who], &cid, "conv.add", back).unwrap();
        let seen = call_in(&mut world.people[one], &cid, "conv.get", json!({})).unwrap();
        let roles: Vec<_> = items(&seen["members"])
            .iter()
            .map(|member| &member["role"])
            .collect();
        assert_eq!(roles.iter().filter(|role| **role == "owner").count(), 1);
        assert_eq!(
            (&seen["title"], &seen["role"]),
            (&json!("Dinner"), &json!("member"))
        );
        assert_eq!(world.all_see_the_same_of(&cid).len(), 12);
    }
}

#[test]
fn what_a_newcomer_sees_is_what_the_policy_says_in_every_form() {
    let mut world = World::new();
    for who in EVERYBODY {
        let [owner, third] = others(who);
        let handle = world.handle(who);
        for (policy, before, after) in [
            (
                json!("all"),
                &["1", "2", "3"][..],
                &["1", "2", "3", "4", "5"][..],
            ),
            (json!("joined"), &[], &["5"]),
            (json!({"last": 2}), &["2", "3"], &["2", "3", "4", "5"]),
        ] {
            let cid = group(&mut world, owner, &[third], json!({"history": policy}));
            let to = format!("chat/to/{cid}");
            for text in ["1", "2", "3"] {
                world.people[third].say(&to, text); // 2 to 4
            }
            let add = json!({"members": [handle]});
            call_in(&mut world.people[owner], &cid, "conv.add", add.clone()).unwrap();
            assert_eq!(texts(&world.people[who].history(&cid)), before, "{policy}");
            let mut log = world.another(who, "log");
            log.subscribe(&format!("chat/c/{cid}/log/from/1"));
            let mut told = Vec::new();
            while told.len() < before.len() {
                let entry = log.next_json();
                told.extend(texts(&[entry]));
            }
            assert_eq!(told, before);

            let remove = json!({"member": handle});
            call_in(&mut world.people[owner], &cid, "conv.remove", remove).unwrap();
            world.people[third].say(&to, "4"); // 7
            let past = world.people[who].history(&cid);
            assert_eq!(
                past.last().unwrap()["kind"],
                "removed",
                "the last that he sees"
            );
            assert_eq!(texts(&past), before);
            let told = world.people[who].says_in_vain(&to, "still there?");
            assert_eq!(told["error"], "forbidden");
            let told = call_in(&mut world.people[who], &cid, "conv.get", json!({}));
            assert_eq!(told, refused("not_found"));

            call_in(&mut world.people[owner], &cid, "conv.add", add).unwrap(); // 8
            world.people[owner].say(&to, "5");
            let now = world.people[who].history(&cid);
            assert_eq!(texts(&now), after, "{policy}");
            if policy == "all" {
                world.all_see_the_same_of(&cid);
            }
        }
    }
}

#[test]
fn rights_slow_mode_and_closing_hold_in_every_form() {
    let mut world = World::new();
    for who in EVERYBODY {
        let [owner, third] = others(who);
        let cid = group(&mut world, owner, &[who, third], json!({}));
        let (to, handle) = (format!("chat/to/{cid}"), world.handle(who));
        let send = json!({"t": "by call"});
        let set = |world: &mut World, asked: Value| {
            call_in(&mut world.people[owner], &cid, "conv.settings", asked).unwrap();
        };
        let give = |world: &mut World, given: &str| {
            let asked = json!({"member": handle, "given": given});
            call_in(&mut world.people[owner], &cid, "conv.rights", asked).unwrap();
        };
        world.people[third].say(&to, "react to this"); // 2
        give(&mut world, "react");
        let told = world.people[who].says_in_vain(&to, "a word");
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("forbidden"), &json!(0x87))
        );
        let told = call_in(&mut world.people[who], &cid, "msg.send", send.clone());
        assert_eq!(told, refused("forbidden"));
        world.people[who].act(&format!("chat/c/{cid}/m/2/react"), "+1");
        give(&mut world, "default");

        set(&mut world, json!({"slow_s": 60}));
        world.people[who].say(&to, "the first for a minute");
        let told = world.people[who].says_in_vain(&to, "too soon");
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("rate"), &json!(0x97))
        );
        assert!((1..=60_000).contains(&number(&told["retry_ms"])), "{told}");
        let mut request = send.clone();
        request["cid"] = json!(cid);
        let told = world.people[who]
            .try_call("msg.send", &request)
            .unwrap_err();
        assert_eq!(told["code"], "rate");
        assert!((1..=60_000).contains(&number(&told["retry_ms"])), "{told}");
        world.people[owner].say(&to, "for others");
        world.people[owner].say(&to, "only");
        set(&mut world, json!({"slow_s": 0}));
        world.people[who].say(&to, "again");

        set(&mut world, json!({"closed": true}));
        for silent in EVERYBODY {
            let told = world.people[silent].says_in_vain(&to, "a word");
            assert_eq!(told["error"], "forbidden");
            let told = call_in(&mut world.people[silent], &cid, "msg.send", send.clone());
            assert_eq!(told, refused("forbidden"));
        }
        set(&mut world, json!({"closed": false}));
        world.people[who].say(&to, "open");
        world.all_see_the_same_of(&cid);
    }
}

#[test]
fn strangers_come_in_by_link_by_request_and_into_what_is_public() {
    let mut world = World::new();
    for who in EVERYBODY {
        let [owner, third] = others(who);
        let cid = group(&mut world, owner, &[], json!({"history": "all"}));
        let there =
            |person: &mut Person, method: &str, asked: Value| call_in(person, &cid, method, asked);
        // An invitation for one.
        let once = json!({"uses": 1});
        let link = there(&mut world.people[owner], "conv.invite", once).unwrap();
        let code = json!({"code": link["code"]});
        let glimpse = world.people[who].call("conv.peek", &code).unwrap();
        assert_eq!(glimpse, json!({"title": "Lunch", "members": 1}));
        let joined = world.people[who].call("conv.join", &code).unwrap();
        assert_eq!(joined["seq"], 2);
        assert_eq!(
            world.people[third].call("conv.join", &code),
            refused("not_found")
        );
        // One that asks.
        let asks = json!({"approval": true});
        let link = there(&mut world.people[owner], "conv.invite", asks).unwrap();
        let code = json!({"code": link["code"]});
        let member = json!({"member": world.handle(third)});
        for decision in ["conv.refuse", "conv.approve"] {
            let waits = world.people[third].call("conv.join", &code).unwrap();
            assert_eq!(waits["pending"], true);
            let asked = there(&mut world.people[owner], "conv.requests", json!({})).unwrap();
            assert_eq!(
                items(&asked["requests"])[0]["handle"],
                world.people[third].name
            );
            there(&mut world.people[owner], decision, member.clone()).unwrap();
        }
        let listed = there(&mut world.people[owner], "conv.invitations", json!({})).unwrap();
        for one in items(&listed["invitations"]) {
            let id = json!({"id": one["id"]});
            there(&mut world.people[owner], "conv.revoke", id).unwrap();
        }
        there(&mut world.people[third], "conv.leave", json!({})).unwrap();
        assert_eq!(
            world.people[third].call("conv.join", &code),
            refused("not_found")
        );
        // What is public, perhaps after approval; who asks may think better of it.
        assert_eq!(
            there(&mut world.people[third], "conv.join", json!({})),
            refused("not_found")
        );
        let public = json!({"public": true, "approval": true, "tags": format!("lunch{who}")});
        there(&mut world.people[owner], "conv.settings", public).unwrap();
        let search = json!({"q": format!("lunch{who}")});
        let found = world.people[third]
            .call("search.conversations", &search)
            .unwrap();
        assert_eq!(items(&found["conversations"])[0]["cid"], cid);
        let waits = there(&mut world.people[third], "conv.join", json!({})).unwrap();
        assert_eq!(waits["pending"], true);
        there(&mut world.people[third], "conv.withdraw", json!({})).unwrap();
        let approved = there(&mut world.people[owner], "conv.approve", member.clone());
        assert_eq!(approved, refused("not_found"));
        there(
            &mut world.people[owner],
            "conv.settings",
            json!({"approval": false}),
        )
        .unwrap();
        there(&mut world.people[third], "conv.join", json!({})).unwrap();
        // Who is banned comes in by no way.
        there(&mut world.people[owner], "conv.ban", member.clone()).unwrap();
        assert_eq!(
            there(&mut world.people[third], "conv.join", json!({})),
            refused("forbidden")
        );
        let bans = there(&mut world.people[owner], "conv.bans", json!({})).unwrap();
        assert_eq!(items(&bans["bans"])[0]["handle"], world.people[third].name);
        there(&mut world.people[owner], "conv.unban", member).unwrap();
        there(&mut world.people[third], "conv.join", json!({})).unwrap();
        world.all_see_the_same_of(&cid);
    }
}

#[test]
fn what_is_reported_is_settled_by_moderators_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        let [rude, moderator] = others(who);
        let first = world.say(rude, &to, "something rude", &Seen::default());
        let second = world.say(rude, &to, "something ruder", &Seen::default());
        world.people[who].act(&world.on(first, "report"), "by topic");
        let request = json!({"cid": cid, "seq": second, "text": "by call"});
        world.people[who].call("msg.report", &request).unwrap();
        let asked = json!({"cid": cid});
        let reports = world.people[moderator].call("mod.reports", &asked).unwrap();
        let listed: Vec<_> = items(&reports["reports"])
            .iter()
            .map(|report| (&report["seq"], &report["text"], &report["by"]["handle"]))
            .collect();
        let by = json!(world.people[who].name);
        let expected = [
            (&json!(first), &json!("by topic"), &by),
            (&json!(second), &json!("by call"), &by),
        ];
        assert_eq!(listed, expected);
        let own = world.people[rude].call("mod.reports", &asked).unwrap();
        assert_eq!(items(&own["reports"]).len(), 0, "not of the own messages");
        for report in items(&reports["reports"]) {
            let settle = json!({"cid": cid, "id": report["id"]});
            world.people[moderator].call("mod.settle", &settle).unwrap();
        }
        let left = world.people[moderator].call("mod.reports", &asked).unwrap();
        assert_eq!(items(&left["reports"]).len(), 0);
    }
    world.all_have_the_same_history();
}
