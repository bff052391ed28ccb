//! Presence and typing: who is shown as what, and to whom.

use broker::codec::packet::Qos;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use crate::harness::{Client, Launch, Server};
use crate::rows::{EVERYBODY, Kind, Seen, World, json_on, number, others};

/// Where things happen soon.
fn quick_world() -> World {
    World::of(Server::in_new_directory(|launch: Launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__PRESENCE_GRACE_MS", "300")
            .variable("MQCHAT_CHAT__PRESENCE_INTERVAL_MS", "0")
            .variable("MQCHAT_CHAT__TYPING_INTERVAL_MS", "50")
            .variable("MQCHAT_CHAT__TYPING_EXPIRY_MS", "500")
    }))
}

fn listen(client: &mut Client, filter: &str) -> ReasonCode {
    client.try_subscribe(filter, Qos::AtMostOnce)
}

#[test]
fn presence_is_shown_in_every_form_to_those_who_may_see_it() {
    let mut world = quick_world();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let [friend, stranger] = others(who);
        let filter = format!("chat/u/{}/presence", world.handle(who));
        let contact = json!({"user": world.handle(friend)});
        world.people[who].call("people.add", &contact).unwrap();
        let mut watcher = world.another(friend, "watcher");
        assert_eq!(listen(&mut watcher, &filter), ReasonCode::Success);
        let next = |watcher: &mut Client| {
            let told: Value = json_on(watcher, &filter);
            let text = |name: &str| told[name].as_str().unwrap().to_owned();
            (text("state"), text("text"), number(&told["last_seen"]))
        };
        let state = |state: &str, text: &str| (state.to_owned(), text.to_owned(), 0);
        assert_eq!(next(&mut watcher), state("online", ""));
        let mut refused = world.another(stranger, "stranger");
        let expected = match world.people[stranger].kind {
            Kind::Text => ReasonCode::UnspecifiedError,
            Kind::Json | Kind::Protobuf => ReasonCode::NotAuthorized,
        };
        assert_eq!(listen(&mut refused, &filter), expected);

        world.people[who].act("chat/me/presence", "away Back at two");
        assert_eq!(next(&mut watcher), state("away", "Back at two"));
        let dnd = json!({"state": "dnd", "text": "In a test"}).to_string();
        world.people[who].act("chat/me/presence", dnd);
        assert_eq!(next(&mut watcher), state("dnd", "In a test"));
        world.people[who].act("chat/me/presence", "invisible");
        let (hidden, _, seen) = next(&mut watcher);
        assert_eq!((hidden.as_str(), seen % 60_000), ("offline", 0));
        world.people[who].act("chat/me/presence", "online");
        assert_eq!(next(&mut watcher), state("online", ""));
        // He goes, and comes back.
        world.people[who].client.settle();
        world.people[who].client.say_goodbye();
        let (gone, _, seen) = next(&mut watcher);
        assert_eq!((gone.as_str(), seen > 0), ("offline", true));
        world.people[who].resume(&world.server);
        assert_eq!(next(&mut watcher), state("online", ""));
        // And wants to be seen by nobody.
        let nobody = json!({"presence": {"who": "nobody"}});
        let privacy = world.people[who].call("me.privacy", &nobody).unwrap();
        assert_eq!(privacy["presence"]["who"], "nobody");
        assert_eq!(next(&mut watcher), state("offline", ""));
        world.people[who].act("chat/me/presence", "away");
        let contacts = json!({"presence": {"who": "contacts"}});
        world.people[who].call("me.privacy", &contacts).unwrap();
        let mut again = world.another(friend, "again");
        listen(&mut again, &filter);
        for watching in [&mut again, &mut watcher] {
            assert_eq!(next(watching), state("away", ""), "shown again");
        }
        world.people[who].act("chat/me/presence", "online");
        world.say(who, &to, "here I am", &Seen::default());
    }
    world.all_have_the_same_history();
}

#[test]
fn typing_is_told_in_every_form_and_ends() {
    let mut world = quick_world();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        let filter = format!("chat/me/ev/typing/{cid}");
        let mut watchers = others(who).map(|other| world.another(other, "watcher"));
        for watcher in &mut watchers {
            assert_eq!(listen(watcher, "chat/me/ev/typing/+"), ReasonCode::Success);
        }
        let name = world.people[who].name;
        let mut told = |expected: &str| {
            for watcher in &mut watchers {
                let event = json_on(watcher, &filter);
                let seen = (&event["handle"], &event["typing"]);
                assert_eq!(seen, (&json!(name), &json!(expected)));
            }
        };
        let typing = format!("chat/c/{cid}/typing");
        world.people[who].act(&typing, "1");
        told("1");
        told("0"); // by itself
        world.people[who].act(&typing, "rec");
        told("rec");
        world.people[who].act(&typing, "0");
        told("0");
        world.say(who, &to, "that was it", &Seen::default());
    }
    world.all_have_the_same_history();
    // Who may not write may not type.
    let request = json!({"cid": cid, "member": "@text", "given": "react"});
    world.people[1].call("conv.rights", &request).unwrap();
    let told = world.people[0].acts_in_vain(&format!("chat/c/{cid}/typing"), "1");
    assert_eq!(told["error"], "forbidden");
}
