//! Channels and broadcast lists: one says something to many.

use serde_json::{Value, json};

use crate::harness::{Launch, Server, eventually};
use crate::rows::{EVERYBODY, Seen, World, gone_at, items, number, others};

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

fn made(world: &mut World, who: usize, request: &Value) -> String {
    let made = world.people[who].call("conv.create", request).unwrap();
    made["cid"].as_str().unwrap().to_owned()
}

fn message(world: &World, by: usize, seq: u64, text: &str) -> Seen {
    Seen {
        seq,
        kind: "message".into(),
        from: world.people[by].name.into(),
        text: text.into(),
        ..Seen::default()
    }
}

#[test]
fn a_channel_is_joined_read_and_left_without_a_word_in_every_form() {
    let mut world = World::new();
    for who in EVERYBODY {
        let readers = others(who);
        let channel = json!({"kind": "channel", "title": format!("News{who}"), "public": true,
            "history": "all"});
        let cid = made(&mut world, who, &channel);
        let (to, asked) = (format!("chat/to/{cid}"), json!({"cid": cid}));
        for reader in readers {
            let search = json!({"q": format!("news{who}")});
            let found = world.people[reader]
                .call("search.conversations", &search)
                .unwrap();
            assert_eq!(items(&found["conversations"])[0]["cid"], cid);
            let joined = world.people[reader].call("conv.join", &asked).unwrap();
            assert_eq!(joined["seq"], 1, "no entry of its own");
        }
        world.people[who].say(&to, "one"); // 2
        for reader in readers {
            let expected = message(&world, who, 2, "one");
            world.people[reader].sees_in(&cid, &expected);
            let own = world.people[reader].call("conv.get", &asked).unwrap();
            let told = (
                &own["role"],
                number(&own["unread"]),
                number(&own["readers"]),
            );
            assert_eq!(told, (&json!("reader"), 1, 2));
            world.people[reader].act(&format!("chat/c/{cid}/read"), "2");
            let own = world.people[reader].call("conv.get", &asked).unwrap();
            assert_eq!(number(&own["unread"]), 0);
            let react = format!("chat/c/{cid}/m/2/react");
            world.people[reader].act(&react, "👍"); // 3, 4
            for topic in [to.clone(), format!("chat/c/{cid}/m/2/reply")] {
                let told = world.people[reader].says_in_vain(&topic, "me, too");
                assert_eq!(told["error"], "forbidden", "{topic}");
            }
            let told = world.people[reader].acts_in_vain(&format!("chat/c/{cid}/typing"), "1");
            assert_eq!(told["error"], "forbidden");
            let told = world.people[reader].call("conv.readers", &asked);
            assert_eq!(told, refused("forbidden"));
        }
        let listed = world.people[who].call("conv.readers", &asked).unwrap();
        assert_eq!(items(&listed["readers"]).len(), 2);
        let status = json!({"cid": cid, "seq": 2});
        let status = world.people[who].call("msg.status", &status).unwrap();
        assert_eq!(number(&status["of"]), 0, "no receipts of readers");

        let [one, other] = readers;
        let member = |world: &World, reader: usize| world.handle(reader);
        let promote = json!({"cid": cid, "member": member(&world, one), "role": "member"});
        world.people[who].call("conv.role", &promote).unwrap(); // 5
        world.people[one].say(&to, "two"); // 6
        let mut log = world.another(other, "log");
        log.subscribe(&format!("chat/c/{cid}/log/from/5"));
        assert_eq!(log.next_json()["kind"], "role");
        assert_eq!(log.next_json()["seq"], 6);
        let ban = json!({"cid": cid, "member": member(&world, other)});
        world.people[who].call("conv.ban", &ban).unwrap(); // 7
        assert_eq!(log.next_json()["kind"], "banned", "the last that he gets");
        world.people[who].say(&to, "behind his back"); // 8
        assert_eq!(
            world.people[other].call("conv.join", &asked),
            refused("forbidden")
        );
        assert_eq!(
            world.people[other].call("conv.get", &asked),
            refused("not_found")
        );
        world.people[who].call("conv.unban", &ban).unwrap(); // 9
        world.people[other].call("conv.join", &asked).unwrap();
        assert_eq!(log.arrivals(), []);
        let history = world.all_see_the_same_of(&cid);
        let kinds: Vec<_> = history
            .iter()
            .map(|entry| entry["kind"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds[..7],
            [
                "created", "message", "reaction", "reaction", "role", "message", "banned"
            ]
        );
        world.people[other].call("conv.leave", &asked).unwrap();
        assert_eq!(
            world.people[other].call("conv.get", &asked),
            refused("not_found")
        );
    }
}

#[test]
fn a_large_channel_comes_to_who_watches_it_in_every_form() {
    let launch = |launch: Launch| launch.dev().variable("MQCHAT_CHAT__CHANNEL_INBOX_MAX", "1");
    let mut world = World::of(Server::in_new_directory(launch));
    for who in EVERYBODY {
        let [watches, does_not] = others(who);
        let channel = json!({"kind": "channel", "title": "News", "history": "all",
            "members": others(who).map(|reader| world.handle(reader))});
        let cid = made(&mut world, who, &channel);
        let (to, asked) = (format!("chat/to/{cid}"), json!({"cid": cid}));
        let watch = json!({"cid": cid, "watch": true});
        let seen = world.people[watches].call("conv.prefs", &watch).unwrap();
        assert_eq!(seen["watch"], true);
        world.people[who].say(&to, "to who watches"); // 2
        let expected = message(&world, who, 2, "to who watches");
        world.people[watches].sees_in(&cid, &expected);
        let own = world.people[does_not].call("conv.get", &asked).unwrap();
        assert_eq!(number(&own["unread"]), 1);
        let arrived = world.people[does_not].client.arrived_below("chat/me/");
        assert_eq!(arrived, None, "he is told how many, and looks himself");
        let no_more = json!({"cid": cid, "watch": false});
        world.people[watches].call("conv.prefs", &no_more).unwrap();
        world.people[who].say(&to, "to nobody");
        let mut log = world.another(does_not, "log");
        log.subscribe(&format!("chat/c/{cid}/log/last/1"));
        assert_eq!(log.next_json()["seq"], 3);
        world.people[watches].client.ping();
        assert_eq!(world.people[watches].client.arrived_below("chat/me/"), None);
        world.all_see_the_same_of(&cid);
        world.people[who].client.settle(); // what its owner was sent of it
    }
}

#[test]
fn a_broadcast_is_a_direct_message_to_each_in_every_form() {
    let mut world = World::new();
    for who in EVERYBODY {
        let list = json!({"kind": "broadcast", "title": "Family",
            "members": others(who).map(|other| world.handle(other))});
        let cid = made(&mut world, who, &list);
        let asked = json!({"cid": cid});
        world.people[who].say(&format!("chat/to/{cid}"), "to all of you"); // 2
        let to_him = json!({"cid": world.handle(who)});
        let directs = others(who).map(|other| {
            let (_, text) = world.people[other].hears();
            assert_eq!(text, "to all of you");
            for method in ["conv.get", "msg.history", "conv.readers"] {
                let told = world.people[other].call(method, &asked);
                assert_eq!(told, refused("not_found"), "{method}");
            }
            let told = world.people[other].says_in_vain(&format!("chat/to/{cid}"), "x");
            assert_eq!(told["error"], "not_found");
            let direct = world.people[other].call("conv.get", &to_him).unwrap();
            let seq = number(&direct["head"]);
            let direct = direct["cid"].as_str().unwrap().to_owned();
            world.people[other].act(&format!("chat/c/{direct}/read"), seq.to_string());
            world.people[other].say(&format!("chat/to/{direct}"), "thank you");
            let expected = message(&world, who, seq, "to all of you");
            world.people[who].sees_in(&direct, &expected); // his own, there
            let expected = message(&world, other, seq + 1, "thank you");
            world.people[who].sees_in(&direct, &expected);
            world.people[other].sees_in(&direct, &expected);
            (other, direct, seq)
        });
        let status = json!({"cid": cid, "seq": 2});
        let status = world.people[who].call("msg.status", &status).unwrap();
        assert_eq!((number(&status["of"]), number(&status["read"])), (2, 2));
        let delete = json!({"cid": cid, "seq": 2, "for": "all"});
        world.people[who].call("msg.delete", &delete).unwrap();
        for (other, direct, seq) in directs {
            let deleted = Seen {
                seq: seq + 2,
                kind: "deleted".into(),
                target: seq,
                ..message(&world, who, 0, "")
            };
            for one in [who, other] {
                world.people[one].sees_in(&direct, &deleted);
            }
            // A line of text tells nothing of it: the history does.
            let theirs = eventually("the deletion", || {
                let history = world.people[other].history(&direct);
                (gone_at(&history, seq) == Some("deleted")).then_some(history)
            });
            assert_eq!(world.people[who].history(&direct), theirs);
        }
        world.people[who].client.settle(); // what came of the list itself
    }
}
