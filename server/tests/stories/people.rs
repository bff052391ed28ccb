//! People: contacts, and those whom one does not want to know.

use broker::codec::packet::{Publish, Qos, Version};
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS, eventually};

fn login(server: &Server, user: &str, version: Version) -> Client {
    Login::new(user).version(version).connect(server.address())
}

/// The direct conversation with this user.
fn direct(client: &mut Client, target: &str) -> String {
    let conversation = client.call(
        "conv.create",
        &json!({"kind": "direct", "members": [target]}),
    );
    conversation.unwrap()["cid"].as_str().unwrap().to_owned()
}

fn overview(client: &mut Client, cid: &str) -> Value {
    client.call("conv.get", &json!({"cid": cid})).unwrap()
}

fn user(target: &str) -> Value {
    json!({"user": target})
}

/// What a client can see of a conversation, without what only time moves.
fn seen(client: &mut Client, cid: &str) -> (Value, Vec<Value>) {
    (overview(client, cid), client.history(cid))
}

/// What comes until there is all of it.
fn gather(client: &mut Client, is_all: impl Fn(&[Publish]) -> bool) -> Vec<Publish> {
    let mut gathered = Vec::new();
    while !is_all(&gathered) {
        gathered.push(client.next_message());
    }
    gathered
}

/// Those that came under a topic, as JSON.
fn on(topic: &str, messages: &[Publish]) -> Vec<Value> {
    let on_it = messages.iter().filter(|message| *message.topic == *topic);
    let read = on_it.map(|message| serde_json::from_slice(&message.payload).unwrap());
    read.collect()
}

fn count(topic: &str, messages: &[Publish]) -> usize {
    let on_it = messages.iter().filter(|message| *message.topic == *topic);
    on_it.count()
}

fn only(topics: &[&str], messages: &[Publish]) -> bool {
    let mut all = messages.iter();
    all.all(|message| topics.contains(&&*message.topic))
}

fn has(messages: &[Publish], text: &str) -> bool {
    let text = text.as_bytes();
    let holds = |message: &Publish| message.payload.windows(text.len()).any(|part| part == text);
    messages.iter().any(holds)
}

/// A server where presence and typing are told soon.
fn quick_server() -> Server {
    Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__PRESENCE_GRACE_MS", "100")
            .variable("MQCHAT_CHAT__PRESENCE_INTERVAL_MS", "0")
            .variable("MQCHAT_CHAT__TYPING_INTERVAL_MS", "50")
    })
}

#[test]
fn a_blocked_user_is_neither_seen_nor_told() {
    for version in VERSIONS {
        let mut server = quick_server();
        let (mut mallory, mut bob) = (
            login(&server, "mallory", version),
            login(&server, "bob", version),
        );
        // What comes of Carol, by the same ways, shows that nothing else was on its way.
        let mut carol = login(&server, "carol", version);
        mallory.publish("chat/to/@bob", "before");
        mallory.publish("chat/to/@carol", "before");
        let cid = direct(&mut mallory, "@bob");
        let [of_carol, to_carol] = [&mut bob, &mut mallory].map(|client| direct(client, "@carol"));
        bob.publish("chat/to/@mallory", "hello");
        mallory.subscribe("chat/me/rcpt/+");
        bob.publish(&format!("chat/c/{cid}/read"), "1");
        let receipts = format!("chat/me/rcpt/{cid}");
        gather(&mut mallory, |told| {
            on(&receipts, told)
                .iter()
                .any(|event| event["read_all"] == 1)
        });
        let blocked = bob.call("people.block", &user("@mallory")).unwrap();
        assert_eq!(
            (&blocked["blocked"], &blocked["contact"]),
            (&json!(true), &json!(false))
        );
        let before = overview(&mut mallory, &cid);

        for filter in [
            "chat/me/in/+",
            "chat/me/txt/+",
            "chat/me/pb/+",
            "chat/me/ev/account",
        ] {
            bob.subscribe(filter);
        }
        let account = "chat/me/ev/account";
        gather(&mut bob, |told| count(account, told) > 0);
        let place = mallory.publish(&format!("chat/to/{cid}"), "meanwhile");
        assert_eq!(place.reason, ReasonCode::Success);
        mallory.publish("chat/to/@bob", r#"{"t":"again"}"#);
        mallory.publish(&format!("chat/c/{cid}/m/2/react"), "\u{1f4a9}");
        mallory.publish(&format!("chat/c/{cid}/m/1/edit"), "the first one, worse");
        carol.publish("chat/to/@bob", "from carol");
        let [json, lines, protobuf] =
            ["in", "txt", "pb"].map(|form| (format!("chat/me/{form}/{cid}"), form));
        let told = gather(&mut bob, |told| {
            let hers = |form: &str| count(&format!("chat/me/{form}/{of_carol}"), told);
            let is_shown = ["in", "txt", "pb"].into_iter().all(|form| hers(form) == 1);
            let are_gone = count(&json.0, told) == 4 && count(&protobuf.0, told) == 4;
            is_shown && are_gone && count(account, told) > 0
        });
        for (entry, seq) in on(&json.0, &told).iter().zip(3..) {
            let seen = (&entry["seq"], &entry["kind"], &entry["reason"]);
            assert_eq!(seen, (&json!(seq), &json!("gone"), &json!("hidden")));
        }
        assert_eq!(count(&lines.0, &told), 0, "a text shows nothing");
        for said in ["meanwhile", "again", "worse", "\u{1f4a9}", "blocked"] {
            assert!(!has(&told, said), "{said}");
        }
        for event in on(account, &told) {
            let changed = event["conversations"].as_array().unwrap();
            assert!(changed.iter().all(|one| one["cid"] == of_carol), "{event}");
        }
        assert_eq!(overview(&mut bob, &cid)["unread"], 0);
        assert_eq!(bob.call("me.get", &json!({})).unwrap()["unread"], 1);
        let history = bob.history(&cid);
        assert_eq!(history[0]["t"], "before", "not the edit");
        assert_eq!(history[1]["t"], "hello");
        assert!(history[1].get("reactions").is_none(), "{}", history[1]);
        let gap = json!({"from": 3, "to": 6, "reason": "hidden"});
        assert_eq!(history[2]["gap"], gap);

        // His own words and marks tell her nothing.
        bob.publish(&format!("chat/to/{cid}"), "to himself");
        let told = gather(&mut bob, |told| count(&json.0, told) == 1);
        assert_eq!(on(&json.0, &told)[0]["seq"], 7);
        bob.publish(&format!("chat/c/{cid}/read"), "7");
        bob.publish(&format!("chat/c/{cid}/recv"), "7");
        carol.publish(&format!("chat/c/{to_carol}/read"), "1");
        let carols = format!("chat/me/rcpt/{to_carol}");
        let told = gather(&mut mallory, |told| count(&carols, told) > 0);
        for again in on(&receipts, &told) {
            let known = (&again["delivered_all"], &again["read_all"]);
            assert_eq!(known, (&json!(1), &json!(1)), "no news: {again}");
        }
        let after = overview(&mut mallory, &cid);
        assert_eq!(after["members"], before["members"], "no mark moved");
        let status = json!({"cid": cid, "seq": 3});
        let status = mallory.call("msg.status", &status).unwrap();
        assert_eq!(
            (&status["delivered"], &status["of"]),
            (&json!(0), &json!(1))
        );

        // For ever: after a kill, after unblocking, for a new device, as a log.
        let entries = seen(&mut bob, &cid).1;
        server.restart();
        let mut bob = login(&server, "bob", version);
        let mut mallory = login(&server, "mallory", version);
        assert_eq!(bob.history(&cid), entries);
        bob.call("people.unblock", &user("@mallory")).unwrap();
        mallory.publish(&format!("chat/to/{cid}"), "after");
        let unblocked = bob.history(&cid);
        assert_eq!(unblocked[2]["gap"], gap);
        assert_eq!(unblocked[0]["t"], "before");
        assert_eq!(unblocked.last().unwrap()["t"], "after");
        assert_eq!(overview(&mut bob, &cid)["unread"], 1);
        let mut tablet = Login::new("bob")
            .version(version)
            .device("tablet")
            .connect(server.address());
        tablet.subscribe(&format!("chat/me/in/{cid}"));
        assert_eq!(tablet.next_json()["t"], "after");
        tablet.subscribe(&format!("chat/c/{cid}/log/from/1"));
        let log: Vec<_> = (1..=8).map(|_| tablet.next_json()).collect();
        let reasons: Vec<_> = log[2..6].iter().map(|entry| &entry["reason"]).collect();
        assert_eq!(reasons, [&json!("hidden"); 4]);
        assert_eq!(mallory.history(&cid).len(), 8, "she sees all of it");
    }
}

#[test]
fn of_what_a_block_hid_nobody_is_ever_told_that_it_arrived() {
    for version in VERSIONS {
        let mut server = quick_server();
        let (mut mallory, mut bob) = (
            login(&server, "mallory", version),
            login(&server, "bob", version),
        );
        let mut carol = login(&server, "carol", version);
        carol.publish("chat/to/@mallory", "hello");
        mallory.publish("chat/to/@bob", "before");
        mallory.publish("chat/to/@carol", "to carol");
        let cid = direct(&mut mallory, "@bob");
        let of_carol = direct(&mut mallory, "@carol");
        bob.call("people.block", &user("@mallory")).unwrap();
        mallory.publish(&format!("chat/to/{cid}"), "do you hear @bob");
        mallory.publish(&format!("chat/to/{cid}"), "hello?");
        bob.call("people.unblock", &user("@mallory")).unwrap();
        server.restart();
        let (mut mallory, mut bob) = (
            login(&server, "mallory", version),
            login(&server, "bob", version),
        );
        let mut carol = login(&server, "carol", version);
        bob.subscribe("chat/me/err/+");
        let seen = overview(&mut bob, &cid);
        assert_eq!((&seen["unread"], &seen["mentions"]), (&json!(1), &json!(0)));
        // It is not there: nothing can be done to it, nor asked about it.
        for (action, payload) in [
            ("reply", "yes"),
            ("thread", "yes"),
            ("react", "+1"),
            ("edit", "no"),
            ("del", "all"),
            ("del", "me"),
            ("pin", "1"),
            ("report", "rude"),
        ] {
            bob.publish(&format!("chat/c/{cid}/m/2/{action}"), payload);
            assert_eq!(bob.next_json()["error"], "not_found", "{action}");
        }
        let asked = bob.call("msg.reactions", &json!({"cid": cid, "seq": 2}));
        assert_eq!(asked, Err("not_found".to_owned()));
        let mentions = bob.call("msg.mentions", &json!({})).unwrap();
        assert_eq!(mentions["mentions"], json!([]));

        let status = |client: &mut Client, seq: u64| {
            let asked = json!({"cid": cid, "seq": seq});
            let told = client.call("msg.status", &asked).unwrap();
            (
                told["delivered"].clone(),
                told["read"].clone(),
                told["members"][0]["ts"] != 0,
            )
        };
        let marks = |client: &mut Client| {
            let told = overview(client, &cid);
            let members = told["members"].as_array().unwrap().iter();
            let bob = members.clone().find(|one| one["handle"] == "bob").unwrap();
            (bob["delivered"].clone(), bob["read"].clone())
        };
        // He gets and reads what there is: she is told as far as the last one that he saw.
        mallory.subscribe("chat/me/rcpt/+");
        bob.publish(&format!("chat/c/{cid}/recv"), "3");
        bob.publish(&format!("chat/c/{cid}/read"), "3");
        carol.publish(&format!("chat/c/{of_carol}/read"), "2");
        let carols = format!("chat/me/rcpt/{of_carol}");
        let told = gather(&mut mallory, |told| {
            on(&carols, told).iter().any(|event| event["read_all"] == 2)
        });
        let receipts = format!("chat/me/rcpt/{cid}");
        for event in on(&receipts, &told) {
            let shown = [&event["delivered_all"], &event["read_all"]];
            assert!(shown.iter().all(|mark| mark.as_u64() <= Some(1)), "{event}");
        }
        assert_eq!(marks(&mut mallory), (json!(1), json!(1)));
        assert_eq!(status(&mut mallory, 1), (json!(1), json!(1), true));
        let nothing = (json!(0), json!(0), false);
        assert_eq!(status(&mut mallory, 2), nothing);
        let own = overview(&mut bob, &cid);
        assert_eq!(
            (&own["unread"], &own["private_read"]),
            (&json!(0), &json!(3))
        );
        // Behind what he sees again there is no telling; of those before it, too, nobody has any.
        mallory.publish(&format!("chat/to/{cid}"), "after");
        bob.publish(&format!("chat/c/{cid}/read"), "4");
        gather(&mut mallory, |told| {
            on(&receipts, told)
                .iter()
                .any(|event| event["read_all"] == 4)
        });
        assert_eq!(status(&mut mallory, 4), (json!(1), json!(1), true));
        for seq in [2, 3] {
            assert_eq!(status(&mut mallory, seq), nothing);
        }
    }
}

#[test]
fn a_device_that_acks_what_a_block_hid_has_not_got_it() {
    for version in VERSIONS {
        let server = quick_server();
        let mut mallory = login(&server, "mallory", version);
        let phone = Login::new("bob").version(version).device("phone");
        let mut bob = phone.connect(server.address());
        mallory.publish("chat/to/@bob", "before");
        let cid = direct(&mut mallory, "@bob");
        bob.call("people.block", &user("@mallory")).unwrap();
        mallory.publish(&format!("chat/to/{cid}"), "meanwhile");
        bob.call("people.unblock", &user("@mallory")).unwrap();
        bob.subscribe("chat/me/in/+");
        let delivered = |client: &mut Client| {
            let told = overview(client, &cid);
            let members = told["members"].as_array().unwrap().iter();
            let mut bobs = members.filter(|one| one["handle"] == "bob");
            bobs.next().unwrap()["delivered"].clone()
        };
        assert_eq!(bob.next_json()["t"], "before");
        assert_eq!(bob.next_json()["reason"], "hidden");
        eventually("the first one to be delivered", || {
            let delivered = delivered(&mut mallory);
            assert_ne!(delivered, 2, "that is not told");
            (delivered == 1).then_some(())
        });
        bob.ping();
        mallory.publish(&format!("chat/to/{cid}"), "after");
        assert_eq!(bob.next_json()["t"], "after");
        eventually("the last one to be delivered", || {
            let delivered = delivered(&mut mallory);
            assert_ne!(delivered, 2, "that is not told");
            (delivered == 3).then_some(())
        });
    }
}

#[test]
fn a_block_before_the_first_word_holds() {
    for version in VERSIONS {
        let server = Server::dev();
        let (mut mallory, mut bob) = (
            login(&server, "mallory", version),
            login(&server, "bob", version),
        );
        bob.call("people.block", &user("@mallory")).unwrap();
        for filter in ["chat/me/in/+", "chat/me/txt/+"] {
            bob.subscribe(filter);
        }
        bob.settle();
        assert!(mallory.publish("chat/to/@bob", "hello").reason == ReasonCode::Success);
        assert_eq!(bob.call("me.get", &json!({})).unwrap()["unread"], 0);
        // In a group they are members like others.
        let group = json!({"title": "T", "members": ["@bob"]});
        let group = mallory.call("conv.create", &group).unwrap();
        let group = group["cid"].as_str().unwrap();
        mallory.publish(&format!("chat/to/{group}"), "to all");
        let cid = direct(&mut bob, "@mallory");
        let [json, line] = [format!("chat/me/in/{cid}"), format!("chat/me/txt/{group}")];
        let told = gather(&mut bob, |told| {
            count(&json, told) == 1 && count(&line, told) == 1
        });
        assert!(!has(&told, "hello"));
        assert_eq!(on(&json, &told)[0]["reason"], "hidden");
        assert!(has(&told, "mallory: to all"));
    }
}

#[test]
fn who_is_blocked_sees_somebody_who_is_away() {
    for version in VERSIONS {
        let server = quick_server();
        let (mut mallory, mut bob) = (
            login(&server, "mallory", version),
            login(&server, "bob", version),
        );
        mallory.publish("chat/to/@bob", "hello");
        let cid = direct(&mut mallory, "@bob");
        bob.call("people.add", &user("@mallory")).unwrap();
        // What is seen of Carol, by the same ways, shows that nothing else was on its way.
        let mut carol = login(&server, "carol", version);
        let with_carol = [&mut bob, &mut mallory].map(|client| {
            client.publish("chat/to/@carol", "hello");
            direct(client, "@carol")
        });
        let watch = |client: &mut Client| {
            let granted = client.try_subscribe("chat/u/@bob/presence", Qos::AtMostOnce);
            assert_eq!(granted, ReasonCode::Success);
        };
        for user in ["@bob", "@mallory"] {
            carol.call("people.add", &json!({"user": user})).unwrap();
        }
        watch(&mut mallory);
        assert_eq!(mallory.next_json()["state"], "online");
        bob.call("people.block", &user("@mallory")).unwrap();
        // As if he had left then.
        let told = mallory.next_json();
        assert_eq!(told["state"], "offline");
        let last_seen = told["last_seen"].as_u64().unwrap();
        let ts = mallory.history(&cid)[0]["ts"].as_u64().unwrap();
        assert!(last_seen % 60_000 == 0 && last_seen + 60_000 > ts, "{told}");
        // Whatever he does, it does not show, nor when; and a new subscription is granted as before.
        mallory.try_subscribe("chat/me/ev/typing/+", Qos::AtMostOnce);
        let mut tablet = login(&server, "mallory", version);
        watch(&mut tablet);
        assert_eq!(tablet.next_json(), told);
        bob.try_subscribe("chat/me/ev/typing/+", Qos::AtMostOnce);
        bob.try_subscribe("chat/u/me/presence", Qos::AtMostOnce);
        assert_eq!(bob.next_json()["state"], "online");
        for state in ["away", "dnd", "online"] {
            bob.publish("chat/me/presence", state);
            assert_eq!(bob.next_json()["state"], state);
            bob.publish(&format!("chat/c/{cid}/typing"), "1");
            mallory.publish(&format!("chat/c/{cid}/typing"), "1");
        }
        let hers = "chat/u/@carol/presence";
        for client in [&mut mallory, &mut tablet] {
            client.try_subscribe(hers, Qos::AtMostOnce);
        }
        for cid in &with_carol {
            carol.publish(&format!("chat/c/{cid}/typing"), "1");
        }
        let [to_bob, to_mallory] = with_carol.map(|cid| format!("chat/me/ev/typing/{cid}"));
        let told = gather(&mut bob, |told| count(&to_bob, told) > 0);
        assert!(only(&[&to_bob], &told), "nor does he hear of her: {told:?}");
        let told = gather(&mut mallory, |told| {
            count(hers, told) > 0 && count(&to_mallory, told) > 0
        });
        assert!(only(&[hers, &to_mallory], &told), "{told:?}");
        let told = gather(&mut tablet, |told| count(hers, told) > 0);
        assert!(only(&[hers], &told), "{told:?}");
        bob.call("people.unblock", &user("@mallory")).unwrap();
        let told = mallory.next_on("chat/u/@bob/presence");
        assert!(has(&[told], r#""state":"online""#));
    }
}

#[test]
fn contacts_are_listed_named_and_told_to_the_own_devices() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let (mut alice, mut bob) = (
            login(&server, "alice", version),
            login(&server, "bob", version),
        );
        let mut tablet = login(&server, "alice", version);
        tablet.subscribe("chat/me/ev/account");
        let first = tablet.next_json();
        let version_before = first["ver"].as_u64().unwrap();
        let carol = login(&server, "carol", version);
        let added = alice.call("people.add", &json!({"user": "@bob", "called": "Bobby"}));
        let added = added.unwrap();
        assert_eq!(
            (&added["handle"], &added["called"]),
            (&json!("bob"), &json!("Bobby"))
        );
        let told = tablet.next_json();
        assert_eq!(told["people"], json!([added]));
        assert!(told["ver"].as_u64().unwrap() > version_before);
        alice.call("people.add", &user("@carol")).unwrap();
        alice.call("people.block", &user("@carol")).unwrap();
        bob.subscribe("chat/me/ev/account");
        assert_eq!(bob.next_json()["conversations"], json!([]));

        server.restart();
        drop((tablet, carol));
        let mut alice = login(&server, "alice", version);
        let page = |alice: &mut Client, method: &str, request: Value| {
            alice.call(method, &request).unwrap()
        };
        let names = |page: &Value| {
            let list = page["contacts"].as_array().unwrap().iter();
            list.map(|contact| contact["handle"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let all = page(&mut alice, "people.list", json!({}));
        let mut both = names(&all);
        both.sort();
        assert_eq!(
            (both, &all["more"]),
            (vec!["bob".into(), "carol".into()], &json!(false))
        );
        let one = page(&mut alice, "people.list", json!({"limit": 1}));
        assert_eq!((names(&one).len(), &one["more"]), (1, &json!(true)));
        let after = one["contacts"][0]["uid"].clone();
        let rest = page(
            &mut alice,
            "people.list",
            json!({"limit": 1, "after": after}),
        );
        assert_eq!(rest["more"], false);
        assert_ne!(names(&rest), names(&one));
        assert_eq!(
            names(&page(&mut alice, "people.blocks", json!({}))),
            ["carol"]
        );
        let changes = json!({"ver": version_before});
        let changes = page(&mut alice, "sync.changes", changes);
        assert_eq!(changes["people"].as_array().unwrap().len(), 2, "{changes}");
        let removed = alice.call("people.remove", &user("@bob")).unwrap();
        assert_eq!(
            (&removed["contact"], removed.get("called")),
            (&json!(false), None)
        );
        let left = page(&mut alice, "people.list", json!({}));
        assert_eq!(names(&left), ["carol"]);
    }
}

#[test]
fn what_is_no_contact_is_refused() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__CONTACTS_PER_USER_MAX", "1")
            .variable("MQCHAT_CHAT__BLOCKED_PER_USER_MAX", "1")
    });
    let others = ["bob", "carol"].map(|user| login(&server, user, Version::V5));
    for version in VERSIONS {
        let mut alice = login(&server, "alice", version);
        for method in ["people.add", "people.block"] {
            alice.call(method, &user("@bob")).unwrap();
            alice.call(method, &user("@bob")).unwrap();
        }
        let long = "x".repeat(257);
        for (method, request, code) in [
            ("people.add", user("@nobody"), "not_found"),
            (
                "people.add",
                user("u.01arz3ndektsv4rrffq69g5fav"),
                "not_found",
            ),
            ("people.block", user("@nobody"), "not_found"),
            ("people.unblock", user("@nobody"), "not_found"),
            (
                "people.remove",
                user("u.00000000000000000000000000"),
                "not_found",
            ),
            ("people.add", user("me"), "format"),
            ("people.block", user("@alice"), "format"),
            (
                "people.add",
                json!({"user": "@bob", "called": long}),
                "format",
            ),
            (
                "people.add",
                json!({"user": "@bob", "called": "a\nb"}),
                "format",
            ),
            ("people.add", json!({}), "format"),
            ("people.list", json!({"after": "@bob"}), "format"),
            ("people.add", user("@carol"), "limit"),
            ("people.block", user("@carol"), "limit"),
        ] {
            let refused = alice.try_call(method, &request).unwrap_err();
            assert_eq!(refused["code"], code, "{method} {request}");
        }
    }
    drop(others);
}
