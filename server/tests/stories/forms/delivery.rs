//! Order and delivery: what is on its way, what was missed, and where a device begins.

use broker::codec::packet::Publish;
use serde_json::{Value, json};

use crate::harness::Login;
use crate::rows::{EVERYBODY, Kind, Person, Seen, World, gone_at, others};

/// Somebody says or does something while only the two others are there; how it looks to them.
fn behind_his_back(world: &mut World, who: usize, by: usize, said: Said<'_>) -> Seen {
    world.head += 1;
    let (topic, kind, text, target) = match said {
        Said::Message(text) => (format!("chat/to/{}", world.cid), "message", text, 0),
        Said::Edit(seq, text) => (world.on(seq, "edit"), "edit", text, seq),
        Said::Deletion(seq) => (world.on(seq, "del"), "deleted", "", seq),
    };
    if kind == "deleted" {
        world.people[by].act(&topic, "all");
    } else {
        world.people[by].say(&topic, text);
    }
    let seen = Seen {
        seq: world.head,
        kind: kind.into(),
        from: world.people[by].name.into(),
        text: text.into(),
        target,
        ..Seen::default()
    };
    for other in others(who) {
        world.people[other].sees(&seen);
    }
    seen
}

#[derive(Clone, Copy)]
enum Said<'a> {
    Message(&'a str),
    Edit(u64, &'a str),
    Deletion(u64),
}

#[test]
fn what_all_send_at_once_is_acked_in_its_order_and_seen_in_one() {
    const COUNT: usize = 40;
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    let sent = EVERYBODY.map(|who| {
        let person = &mut world.people[who];
        let begin = |number: usize| person.begin_to_say(&to, &number.to_string());
        (0..COUNT).map(begin).collect::<Vec<_>>()
    });
    let mut seen: Vec<Vec<(String, String)>> = Vec::new();
    for (person, ids) in world.people.iter_mut().zip(sent) {
        for id in ids {
            let answer = person.client.next_answer().unwrap();
            assert_eq!(answer.packet_id, id, "in the order of publishing");
        }
        let hears = |_| person.hears();
        seen.push((0..3 * COUNT).map(hears).collect());
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "one order for all");
    for person in &world.people {
        let own = seen[0].iter().filter(|(from, _)| from == person.name);
        let own: Vec<usize> = own.map(|(_, text)| text.parse().unwrap()).collect();
        assert_eq!(own, (0..COUNT).collect::<Vec<_>>(), "and that of each");
    }
    world.all_have_the_same_history();
    let times: Vec<u64> = world.people[0]
        .history(&world.cid)
        .iter()
        .map(|entry| entry["ts"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted(), "time does not go back");
}

#[test]
fn who_was_away_is_told_what_was_missed_as_it_is_then() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let [one, other] = others(who);
        world.people[who].client.settle();
        world.people[who].client.say_goodbye();
        let first = behind_his_back(&mut world, who, one, Said::Message("first"));
        let second = behind_his_back(&mut world, who, other, Said::Message("sekond"));
        let edit = Said::Edit(second.seq, "second");
        let edit = behind_his_back(&mut world, who, other, edit);
        let deletion = behind_his_back(&mut world, who, one, Said::Deletion(first.seq));
        let missed = [
            Seen {
                kind: "gone".into(),
                text: String::new(),
                ..first
            },
            Seen {
                text: "second".into(),
                ..second
            },
            edit,
            deletion,
        ];
        if who == 2 {
            world.server.terminate();
            assert!(world.server.wait_for_exit().success());
            world.server.restart();
            for there in [one, other] {
                world.people[there].resume(&world.server);
            }
        }
        world.people[who].resume(&world.server);
        for seen in &missed {
            world.people[who].sees(seen);
        }
        world.say(who, &to, "there again", &Seen::default());
    }
    world.all_have_the_same_history();
}

#[test]
fn what_was_not_acknowledged_comes_first_and_under_the_same_identifier() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        world.people[who].client.settle();
        world.people[who].client.acks_by_itself = false;
        for text in ["one", "two"] {
            behind_his_back(&mut world, who, others(who)[0], Said::Message(text));
        }
        let get =
            |person: &mut Person| [person.client.next_message(), person.client.next_message()];
        let first = get(&mut world.people[who]);
        world.people[who].resume(&world.server);
        let again = get(&mut world.people[who]);
        let said = |publish: &Publish| (publish.packet_id, publish.payload.clone());
        for (first, again) in first.iter().zip(&again) {
            assert!(!first.dup && again.dup);
            assert_eq!(said(first), said(again));
        }
        world.say(others(who)[1], &to, "behind them", &Seen::default());
    }
    world.all_have_the_same_history();
}

#[test]
fn a_new_device_begins_at_what_was_not_read_and_a_known_one_where_it_was() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let [one, other] = others(who);
        let read = world.say(one, &to, "read", &Seen::default());
        world.say(who, &to, "his own", &Seen::default()); // directly behind: known, too
        let unread = world.say(other, &to, "not read", &Seen::default());
        let mark = format!("chat/c/{}/read", world.cid);
        world.people[who].act(&mark, read.to_string());
        let (kind, name) = (world.people[who].kind, world.people[who].name);
        let mut tablet = Person::on_device(&world.server, kind, name, "tablet");
        let expected = Seen {
            seq: unread,
            kind: "message".into(),
            from: world.people[other].name.into(),
            text: "not read".into(),
            ..Seen::default()
        };
        tablet.sees(&expected);
        tablet.client.settle();
        drop(tablet);
        let behind = world.say(one, &to, "behind", &Seen::default());
        let login = Login::new(name).version(kind.version()).device("tablet");
        let mut tablet = login.connect(world.server.address());
        assert!(tablet.session_present);
        let expected = Seen {
            seq: behind,
            from: world.people[one].name.into(),
            text: "behind".into(),
            ..expected
        };
        let next = tablet.next_message();
        world.people[who].is(&next, &expected);
        tablet.settle();
    }
    world.all_have_the_same_history();
}

#[test]
fn filters_of_each_form_give_one_copy_to_every_kind_of_client() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        world.people[who].act(&format!("chat/c/{cid}/read"), world.head.to_string());
        let mut guest = world.another(who, "guest");
        for form in ["in", "txt", "pb"] {
            guest.subscribe(&format!("chat/me/{form}/+"));
            guest.subscribe(&format!("chat/me/{form}/{cid}"));
        }
        world.say(who, &to, "once in each form", &Seen::default());
        let mut topics: Vec<String> = (0..3)
            .map(|_| guest.next_message().topic.to_string())
            .collect();
        topics.sort_unstable();
        let forms = ["in", "pb", "txt"].map(|form| format!("chat/me/{form}/{cid}"));
        assert_eq!(topics, forms);
        assert_eq!(guest.arrivals(), []);
    }
    world.all_have_the_same_history();
}

#[test]
fn an_inbox_of_one_conversation_has_no_other_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    let mut dave = Login::new("dave").connect(world.server.address());
    for who in EVERYBODY {
        let person = &world.people[who];
        let filter = format!("chat/me/{}/{cid}", person.kind.form());
        let mut narrow = world.another(who, "narrow");
        world.people[who].act(&format!("chat/c/{cid}/read"), world.head.to_string());
        narrow.subscribe(&filter);
        dave.publish(&format!("chat/to/{}", world.handle(who)), "elsewhere");
        world.people[who].client.next_message();
        world.say(others(who)[0], &to, "here", &Seen::default());
        assert_eq!(*narrow.next_message().topic, *filter);
        assert_eq!(narrow.arrivals(), []);
    }
    world.all_have_the_same_history();
}

#[test]
fn what_is_gone_in_a_row_is_one_gap_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    let doomed = EVERYBODY.map(|who| world.say(who, &to, "a mistake", &Seen::default()));
    for who in EVERYBODY {
        world.act(who, doomed[who], "del", "all", "deleted");
    }
    let history = world.all_see_the_same_of(&cid);
    let gap = json!({"from": doomed[0], "to": doomed[2], "reason": "deleted"});
    assert_eq!(history[1]["gap"], gap);
    for who in EVERYBODY {
        let mut log = world.another(who, "log");
        log.subscribe(&format!("chat/c/{cid}/log/from/{}", doomed[0]));
        for seq in doomed {
            let gone = log.next_json();
            assert_eq!(
                (&gone["seq"], &gone["reason"]),
                (&json!(seq), &json!("deleted"))
            );
        }
        let (kind, name) = (world.people[who].kind, world.people[who].name);
        let mut tablet = Person::on_device(&world.server, kind, name, "tablet");
        if kind == Kind::Text {
            tablet.client.settle();
            assert_eq!(tablet.client.arrived(), None, "no line for what is gone");
            continue;
        }
        let first = tablet.client.next_message();
        let text = String::from_utf8_lossy(&first.payload).into_owned();
        assert!(!text.contains("a mistake"), "{text}");
    }
    let request = json!({"cid": cid, "before": doomed[2] + 1, "limit": 1});
    for person in &mut world.people {
        let page: Value = person.call("msg.history", &request).unwrap();
        let entries = page["entries"].as_array().unwrap();
        assert_eq!(gone_at(entries, doomed[2]), Some("deleted"));
    }
}
