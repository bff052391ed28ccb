//! Receipts, unread counts and the account: who has what, and who is told.

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::rows::{EVERYBODY, Seen, World, items, json_on, number, others};

/// What somebody is told of the conversation, by each call that tells it.
fn shown(world: &mut World, who: usize) -> [Value; 2] {
    let cid = world.cid.clone();
    let person = &mut world.people[who];
    let one = person.call("conv.get", &json!({"cid": cid})).unwrap();
    let all = person.call("conv.list", &json!({})).unwrap();
    let all = items(&all["conversations"]).iter();
    let listed = all.clone().find(|one| one["cid"] == cid);
    [one, listed.unwrap().clone()]
}

fn badge(world: &mut World, who: usize) -> u64 {
    let me = world.people[who].call("me.get", &json!({})).unwrap();
    number(&me["unread"])
}

#[test]
fn unread_is_what_others_said_and_what_is_still_there() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        let [one, other] = others(who);
        let read = format!("chat/c/{cid}/read");
        world.people[who].act(&read, world.head.to_string());
        for by in [one, other, one, who] {
            world.say(by, &to, "read me", &Seen::default());
        }
        let deleted = world.head - 3;
        world.act(one, deleted, "del", "all", "deleted");
        assert_eq!(badge(&mut world, who), 2);
        let hidden = deleted + 1;
        world.people[who].act(&world.on(hidden, "del"), "me");
        for seen in shown(&mut world, who) {
            assert_eq!(number(&seen["unread"]), 1, "{seen}");
        }
        assert_eq!(badge(&mut world, who), 1);
        for (muted_until, expected) in [(u64::MAX, 0), (0, 1)] {
            let request = json!({"cid": cid, "muted_until": muted_until, "archived": true});
            let seen = world.people[who].call("conv.prefs", &request).unwrap();
            assert_eq!(
                (&seen["unread"], &seen["archived"]),
                (&json!(1), &json!(true))
            );
            assert_eq!(
                badge(&mut world, who),
                expected,
                "a mute is about the badge"
            );
        }
        world.people[who].act(&read, world.head.to_string());
        for seen in shown(&mut world, who) {
            assert_eq!(number(&seen["unread"]), 0);
            assert_eq!(number(&seen["read"]), world.head);
        }
        world.act(other, hidden, "del", "all", "deleted"); // for all now, as it was for him
    }
    world.all_have_the_same_history();
}

#[test]
fn who_has_a_message_is_told_to_its_sender_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        let [reader, other] = others(who);
        let seq = world.say(who, &to, "who has this?", &Seen::default());
        let told = format!("chat/me/rcpt/{cid}");
        let mut watcher = world.another(who, "watcher");
        watcher.subscribe(&told);
        let read = format!("chat/c/{cid}/read");
        world.people[reader].act(&read, seq.to_string());
        while json_on(&mut watcher, &told)["delivered_all"] != seq {}
        let request = json!({"cid": cid, "seq": seq});
        let status = world.people[who].call("msg.status", &request).unwrap();
        let counts = ["delivered", "read", "of"].map(|name| number(&status[name]));
        assert_eq!(counts, [2, 1, 2]);
        for member in items(&status["members"]) {
            let has_read = member["handle"] == world.people[reader].name;
            assert_eq!(member["delivered"], true);
            assert_eq!(member["read"] == true, has_read, "{member}");
            assert_eq!(number(&member["read_ts"]) > 0, has_read, "{member}");
        }
        for asking in [reader, other] {
            let refused = world.people[asking].call("msg.status", &request);
            assert_eq!(refused, Err("forbidden".to_owned()), "not his message");
        }
        // What is read alone is told to nobody, and clears the own count.
        let private = json!({"seq": seq, "private": true}).to_string();
        world.people[other].act(&read, private);
        assert_eq!(world.overview(other)["unread"], 0);
        let status = world.people[who].call("msg.status", &request).unwrap();
        assert_eq!(number(&status["read"]), 1);
        let seen = world.overview(reader);
        let members = items(&seen["members"]).iter();
        let theirs = members
            .clone()
            .find(|one| one["handle"] == world.people[other].name);
        assert!(number(&theirs.unwrap()["read"]) < seq);
    }
    world.all_have_the_same_history();
}

#[test]
fn a_sync_tells_what_changed_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        let all = world.people[who].call("sync.changes", &json!({})).unwrap();
        assert!(
            items(&all["conversations"])
                .iter()
                .any(|one| one["cid"] == cid)
        );
        let mut known = all["ver"].clone();
        let mut changed = |world: &mut World| {
            let request = json!({"ver": known, "badge": true});
            let changes = world.people[who].call("sync.changes", &request).unwrap();
            known = changes["ver"].clone();
            let one = items(&changes["conversations"]).first().cloned();
            (one.unwrap_or_default(), number(&changes["badge"]))
        };
        let (none, before) = changed(&mut world);
        assert_eq!(none, Value::Null, "nothing since");
        let seq = world.say(others(who)[0], &to, "news", &Seen::default());
        let (one, now) = changed(&mut world);
        assert_eq!((&one["cid"], &one["head"]), (&json!(cid), &json!(seq)));
        assert_eq!(one["last"]["seq"], seq);
        assert_eq!(now, before + 1);
        // The own marks and decisions, for the own other devices; nothing of it for others.
        let mut tablet = world.another(who, "tablet");
        tablet.subscribe("chat/me/ev/account");
        json_on(&mut tablet, "chat/me/ev/account");
        world.people[who].act(&format!("chat/c/{cid}/read"), seq.to_string());
        eventually("the other device to be told", || {
            let event = json_on(&mut tablet, "chat/me/ev/account");
            let one = items(&event["conversations"]).first()?.clone();
            (one["conversation"]["read"] == seq).then_some(())
        });
        let (one, now) = changed(&mut world);
        let seen = &one["conversation"];
        assert_eq!(
            (number(&seen["read"]), number(&seen["unread"]), now),
            (seq, 0, 0)
        );
        let request = json!({"cid": cid, "pinned": true});
        world.people[who].call("conv.prefs", &request).unwrap();
        assert_eq!(changed(&mut world).0["conversation"]["pinned"], true);
    }
    world.all_have_the_same_history();
}
