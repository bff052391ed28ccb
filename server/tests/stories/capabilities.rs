//! What there is beside messages and marks, by three kinds of client that share one conversation, as in `rows`.

use proto::schema::{DeviceEvent, Message as _};
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, eventually};
use super::rows::{EVERYBODY, Kind, Seen, World, gone_at, items};
use super::scheduled::in_ms;

#[test]
fn mentions_are_counted_and_found_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let other = (who + 1) % 3;
        let name = world.people[other].name;
        let before = world.overview(other)["mentions"].as_u64().unwrap();
        let text = format!("@{name} look");
        let seq = world.say(who, &to, &text, &Seen::default());
        let all = world.say(who, &to, "@all look", &Seen::default());
        assert_eq!(world.overview(other)["mentions"], before + 2);
        let request = json!({"cid": world.cid, "limit": 2});
        let page = world.people[other].call("msg.mentions", &request).unwrap();
        let found: Vec<_> = items(&page["mentions"])
            .iter()
            .map(|it| &it["seq"])
            .collect();
        assert_eq!(found, [&json!(all), &json!(seq)]);
        world.act(who, seq, "del", "all", "deleted");
        assert_eq!(world.overview(other)["mentions"], before + 1);
    }
    world.all_have_the_same_history();
}

#[test]
fn what_is_scheduled_is_sent_and_seen_in_every_form() {
    let mut world = World::new();
    for who in EVERYBODY {
        let soon = in_ms(1_000);
        for (mid, at) in [("soon", soon), ("never", in_ms(3_600_000))] {
            let mid = format!("{mid}-{who}");
            let request = json!({"cid": world.cid, "t": mid, "at": at, "mid": mid});
            let sent = world.people[who].call("msg.send", &request).unwrap();
            assert_eq!(sent["at"], at);
        }
        let list = |world: &mut World, who: usize| {
            let page = world.people[who].call("msg.scheduled", &json!({})).unwrap();
            items(&page["scheduled"]).len()
        };
        assert_eq!(list(&mut world, who), 2);
        assert_eq!(list(&mut world, (who + 1) % 3), 0, "nobody else's");
        let request = json!({"mid": format!("never-{who}")});
        let gone = world.people[who].call("msg.unschedule", &request).unwrap();
        assert_eq!(gone["cancelled"], true);
        let from = world.people[who].name.to_owned();
        world.all_see(Seen {
            kind: "message".into(),
            from,
            text: format!("soon-{who}"),
            ..Seen::default()
        });
        assert_eq!(list(&mut world, who), 0);
    }
    world.all_have_the_same_history();
}

#[test]
fn a_log_is_shared_by_bots_of_every_kind() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    let filter = format!("$share/bots/chat/c/{}/log", world.cid);
    let mut bots: Vec<Vec<Client>> = EVERYBODY
        .map(|who| ["one", "two"].map(|id| world.another(who, id)).into())
        .into();
    for bot in bots.iter_mut().flatten() {
        bot.subscribe(&filter);
    }
    let wanted: Vec<u64> = (0..12)
        .map(|number| world.say(number % 3, &to, "work", &Seen::default()))
        .collect();
    for of_one in &mut bots {
        let mut came = Vec::new();
        eventually("all work to be handed out", || {
            for bot in of_one.iter_mut() {
                let arrived = bot.arrivals();
                came.extend(arrived.iter().map(|publish| {
                    let entry: Value = serde_json::from_slice(&publish.payload).unwrap();
                    entry["seq"].as_u64().unwrap()
                }));
            }
            (came.len() >= wanted.len()).then_some(())
        });
        came.sort_unstable();
        assert_eq!(came, wanted, "each once");
    }
    world.all_have_the_same_history();
}

#[test]
fn what_is_for_one_device_comes_to_it_in_every_form() {
    let mut world = World::new();
    for person in &mut world.people {
        person.client.subscribe("chat/me/dev");
    }
    for who in EVERYBODY {
        for to in EVERYBODY.into_iter().filter(|to| *to != who) {
            let handle = format!("@{}", world.people[to].name);
            let request = json!({"user": handle});
            let found = world.people[who].call("dev.list", &request).unwrap();
            let device = &items(&found["devices"])[0];
            let request = json!({"user": handle, "device": device, "kind": "key",
                "data": "c2VjcmV0"});
            world.people[who].call("dev.send", &request).unwrap();
            let from = world.people[who].name;
            let receiver = &mut world.people[to];
            let publish = receiver.client.next_on("chat/me/dev");
            let event = match receiver.kind {
                Kind::Protobuf => DeviceEvent::decode(&*publish.payload).unwrap(),
                Kind::Text | Kind::Json => serde_json::from_slice(&publish.payload).unwrap(),
            };
            assert_eq!(event.from.unwrap().handle, from);
            assert_eq!((&*event.kind, &event.data[..]), ("key", &b"secret"[..]));
        }
    }
    world.all_have_the_same_history();
}

#[test]
fn devices_are_listed_and_revoked_in_every_form() {
    let world = &mut World::new();
    for who in EVERYBODY {
        let person = &world.people[who];
        let login = Login::new(person.name).version(person.kind.version());
        let mut tablet = login.device("tablet").connect(world.server.address());
        tablet.subscribe("chat/me/in/+");
        let listed = world.people[who].call("me.devices", &json!({})).unwrap();
        let devices = items(&listed["devices"]);
        assert_eq!(devices.len(), 2, "{devices:?}");
        let found = devices.iter().find(|one| one["client_id"] == "tablet");
        let request = json!({"device": found.unwrap()["id"]});
        let left = world.people[who].call("me.revoke", &request).unwrap();
        assert_eq!(items(&left["devices"]).len(), 1);
        tablet.wait_for_end();
    }
}

#[test]
fn people_are_found_in_every_form() {
    let mut world = World::new();
    for who in EVERYBODY {
        let tag = format!("chess{who}");
        let set = world.people[who]
            .client
            .call("me.set", &json!({"tags": tag}));
        set.unwrap();
        for asking in EVERYBODY.into_iter().filter(|asking| *asking != who) {
            let request = json!({"q": tag});
            let found = world.people[asking].call("search.users", &request).unwrap();
            let handles: Vec<_> = items(&found["users"])
                .iter()
                .map(|it| &it["handle"])
                .collect();
            assert_eq!(handles, [world.people[who].name]);
        }
        let hidden = json!({"search": false});
        world.people[who].call("me.privacy", &hidden).unwrap();
        let request = json!({"q": tag});
        let found = world.people[(who + 1) % 3].call("search.users", &request);
        assert_eq!(items(&found.unwrap()["users"]).len(), 0);
    }
}

#[test]
fn a_case_is_claimed_handed_on_and_closed_in_every_form() {
    let mut world = World::new();
    let cid = world.cid.clone();
    let desk = json!({"cid": cid, "desk": true});
    world.people[1].call("conv.settings", &desk).unwrap();
    world.all_see(Seen {
        kind: "settings".into(),
        from: "json".into(),
        ..Seen::default()
    });
    for who in EVERYBODY {
        let (first, second) = ((who + 1) % 3, (who + 2) % 3);
        let open = json!({"desk": cid, "title": "it smokes"});
        let case = world.people[who].call("case.open", &open).unwrap();
        let case = case["cid"].as_str().unwrap().to_owned();
        let queue = json!({"desk": cid, "state": "queued"});
        let queue = world.people[first].call("case.queue", &queue).unwrap();
        assert!(items(&queue["cases"]).iter().any(|it| it["cid"] == case));
        let the_case = json!({"cid": case});
        world.people[first].call("case.claim", &the_case).unwrap();
        let late = world.people[second].call("case.claim", &the_case);
        assert_eq!(late, Err("conflict".to_owned()));
        let on = json!({"cid": case, "to": format!("@{}", world.people[second].name)});
        world.people[first].call("case.transfer", &on).unwrap();
        let to = format!("chat/to/{case}");
        world.people[second].say(&to, "have you tried water?");
        world.people[who].say(&to, "it is out");
        world.people[second].call("case.close", &the_case).unwrap();
        let seen = world.people[who].history(&case);
        assert_eq!(world.people[second].history(&case), seen);
        let kinds: Vec<_> = seen.iter().map(|it| it["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds.last(), Some(&"case"));
        assert_eq!(kinds.iter().filter(|kind| **kind == "message").count(), 2);
        for person in &mut world.people {
            person.client.settle(); // what the case brought into the inboxes
        }
    }
    world.all_have_the_same_history();
}

#[test]
fn what_the_filter_does_not_want_is_refused_or_held_in_every_form() {
    for (action, is_held) in [("reject", false), ("hold", true)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("words"), "viagra\n").unwrap();
        let config = folder.path().join("mqchat.toml");
        let filter = format!("[filter]\nwords_file = \"words\"\nwords_policy = \"{action}\"\n");
        std::fs::write(&config, filter).unwrap();
        let config = config.to_str().unwrap();
        let launch = |launch: Launch| launch.dev().argument("--config").argument(config);
        let mut world = World::of(Server::in_new_directory(launch));
        let to = format!("chat/to/{}", world.cid);
        for who in EVERYBODY {
            let mid = format!("bad-{who}");
            let request = json!({"cid": world.cid, "t": "viagra!", "mid": mid});
            let sent = world.people[who].call("msg.send", &request);
            if !is_held {
                assert_eq!(sent, Err("forbidden".to_owned()));
                world.people[who].client.publish(&to, "VIAGRA");
                let told = world.people[who].client.arrived().unwrap();
                assert!(told.topic.starts_with("chat/me/err/"));
                continue;
            }
            assert_eq!(sent.unwrap()["held"], true);
            let decides = usize::from(who == 0); // another one than who wrote it
            let asked = json!({"cid": world.cid});
            let page = world.people[decides].call("mod.held", &asked).unwrap();
            assert_eq!(items(&page["held"]).len(), 1);
            let from = format!("@{}", world.people[who].name);
            let approve = json!({"cid": world.cid, "from": from, "mid": mid});
            world.people[decides]
                .client
                .call("mod.approve", &approve)
                .unwrap();
            let from = world.people[who].name.to_owned();
            world.all_see(Seen {
                kind: "message".into(),
                from,
                text: "viagra!".into(),
                ..Seen::default()
            });
        }
        world.all_have_the_same_history();
    }
}

#[test]
fn what_is_purged_or_erased_is_gone_in_every_form() {
    let mut world = World::new();
    let cid = world.cid.clone();
    let to = format!("chat/to/{cid}");
    let own: Vec<u64> = EVERYBODY
        .map(|who| world.say(who, &to, "old", &Seen::default()))
        .into();
    // A range, by the owner; what one user wrote, by a moderator; what oneself wrote; all by calls.
    let range = json!({"cid": cid, "from": own[0], "to": own[0]});
    let purged = world.people[1].call("conv.trim", &range).unwrap();
    assert_eq!(purged["messages"], 1);
    world.all_see(Seen {
        kind: "purged".into(),
        from: "json".into(),
        ..Seen::default()
    });
    for (who, of) in [(2, "@json"), (0, "@proto")] {
        let request = json!({"cid": cid, "user": of});
        world.people[who].call("mod.purge_user", &request).unwrap();
        let from = world.people[who].name.to_owned();
        world.all_see(Seen {
            kind: "purged".into(),
            from,
            ..Seen::default()
        });
    }
    for who in EVERYBODY {
        let seq = world.say(who, &to, "mine", &Seen::default());
        let erased = world.people[who].call("me.erase", &json!({})).unwrap();
        assert!(erased["messages"].as_u64() >= Some(1), "{erased}");
        for reader in EVERYBODY {
            let history = world.people[reader].history(&cid);
            assert_eq!(gone_at(&history, seq), Some("purged"));
        }
    }
    world.all_have_the_same_history();
    // Retention, by its owner.
    let kept = world.say(0, &to, "the newest", &Seen::default());
    let newest = json!({"cid": cid, "retention_messages": 1});
    let older = world.say(2, &to, "newer", &Seen::default());
    world.people[1].call("conv.settings", &newest).unwrap();
    eventually("all but the newest to go", || {
        let history = world.people[1].history(&cid);
        (gone_at(&history, kept) == Some("purged")).then_some(())
    });
    assert_eq!(gone_at(&world.people[1].history(&cid), older), None);
    world.all_have_the_same_history();
}

#[test]
fn who_hides_what_he_reads_is_told_about_by_nobody() {
    let mut world = World::new();
    let cid = world.cid.clone();
    let to = format!("chat/to/{cid}");
    for who in EVERYBODY {
        let (reader, other) = ((who + 1) % 3, (who + 2) % 3);
        let hide = json!({"read": false, "delivered": false});
        let privacy = world.people[reader].call("me.privacy", &hide).unwrap();
        assert!(privacy["search"] == true && privacy["read"] != true);
        let seq = world.say(who, &to, "who reads this?", &Seen::default());
        let read = format!("chat/c/{cid}/read");
        for index in [reader, other] {
            world.people[index].act(&read, seq.to_string());
        }
        assert_eq!(
            world.overview(reader)["unread"],
            0,
            "for himself it is read"
        );
        let request = json!({"cid": cid, "seq": seq});
        let status = world.people[who].call("msg.status", &request).unwrap();
        assert_eq!((&status["read"], &status["of"]), (&json!(1), &json!(2)));
        for member in items(&status["members"]) {
            let is_shown = member["handle"] == world.people[other].name;
            assert_eq!(member["read"] == true, is_shown, "{member}");
            assert_eq!(member["read_ts"].as_u64().is_some(), is_shown);
            assert!(is_shown || member["delivered"] != true, "{member}");
        }
        let show = json!({"read": true, "delivered": true});
        world.people[reader].call("me.privacy", &show).unwrap();
        world.people[reader].act(&read, seq.to_string());
        let request = json!({"cid": cid, "seq": seq});
        let status = world.people[who].call("msg.status", &request).unwrap();
        assert_eq!(status["read"], 2, "he has told it himself now");
    }
    world.all_have_the_same_history();
}

#[test]
fn when_each_message_was_read_is_kept() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let phone = Login::new("bob").device("phone");
    let mut bob = phone.connect(server.address());
    bob.subscribe("chat/me/in/+");
    let mut times = Vec::new();
    let cid = alice
        .publish("chat/to/@bob", "1")
        .get("cid")
        .unwrap()
        .to_owned();
    for seq in 1..=3_u64 {
        if seq > 1 {
            alice.publish("chat/to/@bob", seq.to_string());
        }
        bob.next_message();
        let read = format!("chat/c/{cid}/read");
        bob.publish(&read, seq.to_string());
        let request = json!({"cid": cid, "seq": seq});
        let status = alice.call("msg.status", &request).unwrap();
        times.push(status["members"][0]["read_ts"].as_u64().unwrap());
        while in_ms(0) <= times[times.len() - 1] {
            bob.ping();
        }
    }
    assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
    server.restart();
    let mut alice = Login::new("alice").connect(server.address());
    for (seq, time) in (1..=3_u64).zip(&times) {
        let request = json!({"cid": cid, "seq": seq});
        let status = alice.call("msg.status", &request).unwrap();
        let member = &status["members"][0];
        assert_eq!(member["read_ts"], *time, "not when the last one was");
        assert!(member["delivered_ts"].as_u64() <= member["read_ts"].as_u64());
        assert!(member["delivered_ts"].as_u64().is_some());
    }
}

#[test]
fn who_has_missed_much_is_handed_the_newest_if_he_asks_for_that() {
    let few = |launch: Launch| launch.dev().variable("MQCHAT_CHAT__REPLAY_MAX", "5");
    let server = Server::in_new_directory(few);
    let asked = Login::new("bob")
        .device("phone")
        .property("replay", "window");
    let plain = Login::new("bob").device("tablet");
    for (login, filter) in [(&asked, "chat/me/in/+"), (&plain, "chat/me/in/+")] {
        let mut device = login.connect(server.address());
        device.subscribe(filter);
        device.disconnect();
    }
    let mut alice = Login::new("alice").connect(server.address());
    for number in 1..=20 {
        alice.publish("chat/to/@bob", number.to_string());
    }
    let mut phone = asked.connect(server.address());
    let gap = phone.next_json();
    assert_eq!(gap["kind"], "gap");
    assert_eq!(gap["gap"], json!({"from": 1, "to": 15, "reason": "window"}));
    for seq in 16..=20 {
        assert_eq!(phone.next_json()["seq"], seq);
    }
    assert_eq!(
        phone.history("@alice").len(),
        20,
        "the others can be asked for"
    );
    alice.publish("chat/to/@bob", "21");
    assert_eq!(phone.next_json()["seq"], 21);
    phone.settle();
    phone.disconnect();
    // Few are handed out as ever, and the gap was acknowledged.
    for number in 22..=26 {
        alice.publish("chat/to/@bob", number.to_string());
    }
    let mut phone = asked.connect(server.address());
    assert_eq!(phone.next_json()["seq"], 22);
    let mut tablet = plain.connect(server.address());
    for seq in 1..=26 {
        assert_eq!(tablet.next_json()["seq"], seq, "who did not ask gets all");
    }
}
