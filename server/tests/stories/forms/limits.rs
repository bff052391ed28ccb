//! Limits: what is too much is refused by its name, in every form, and with the time to wait where waiting helps.

use broker::codec::packet::Qos;
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use crate::harness::{Launch, Login, Server};
use crate::rows::{EVERYBODY, Kind, Seen, World, items, number, others};

fn world(limits: &[(&str, &str)]) -> World {
    let set = |launch: Launch| {
        let launch = launch.dev();
        let limits = limits.iter();
        limits.fold(launch, |launch, (name, value)| {
            launch.variable(&format!("MQCHAT_CHAT__{name}"), value)
        })
    };
    World::of(Server::in_new_directory(set))
}

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

#[test]
fn groups_conversations_devices_and_bodies_have_limits_in_every_form() {
    let mut world = world(&[
        ("GROUP_MEMBERS_MAX", "3"),
        ("CONVERSATIONS_PER_USER_MAX", "2"),
        ("DEVICES_PER_USER_MAX", "1"),
        ("BODY_BYTES_MAX", "1000"),
        ("SCHEDULED_PER_USER_MAX", "1"),
    ]);
    let to = format!("chat/to/{}", world.cid);
    Login::new("dave")
        .connect(world.server.address())
        .disconnect();
    for who in EVERYBODY {
        let person = &mut world.people[who];
        let three = json!({"members": ["@text", "@json", "@proto", "@dave"]});
        assert_eq!(person.call("conv.create", &three), refused("limit"));
        let made = person
            .call("conv.create", &json!({"title": "mine"}))
            .unwrap();
        assert_eq!(person.call("conv.create", &json!({})), refused("limit"));
        let told = person.says_in_vain("chat/to/@dave", "one more");
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("limit"), &json!(0x97))
        );
        person
            .call("conv.leave", &json!({"cid": made["cid"]}))
            .unwrap();

        let too_large = "x".repeat(1_001);
        let told = person.says_in_vain(&to, &too_large);
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("format"), &json!(0x99))
        );
        let request = json!({"cid": world.cid, "t": too_large});
        assert_eq!(person.call("msg.send", &request), refused("format"));

        let at = crate::scheduled::in_ms(3_600_000);
        let later = |mid: &str| json!({"cid": "me", "t": "later", "mid": mid, "at": at});
        person.call("msg.send", &later("first")).unwrap();
        assert_eq!(person.call("msg.send", &later("second")), refused("limit"));

        let login = Login::new(person.name).version(person.kind.version());
        let mut tablet = login.device("tablet").connect(world.server.address());
        let filter = format!("chat/me/{}/+", person.kind.form());
        let granted = tablet.try_subscribe(&filter, Qos::AtLeastOnce);
        let expected = match person.kind {
            Kind::Text => ReasonCode::UnspecifiedError,
            Kind::Json | Kind::Protobuf => ReasonCode::QuotaExceeded,
        };
        assert_eq!(granted, expected, "no second device");
        person.client.settle(); // what came of the group that was left
    }
    for who in EVERYBODY {
        world.say(who, &to, "as before", &Seen::default());
    }
    world.all_have_the_same_history();
}

#[test]
fn edits_and_reactions_have_limits_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for who in EVERYBODY {
        let seq = world.say(who, &to, "edit me", &Seen::default());
        for number in 0..64 {
            let edit = Seen {
                kind: "edit".into(),
                target: seq,
                ..Seen::default()
            };
            world.say(who, &world.on(seq, "edit"), &number.to_string(), &edit);
        }
        for number in 0..16 {
            world.act(who, seq, "react", &format!("r{number}"), "reaction");
        }
        let person = &mut world.people[who];
        let on = |action: &str| format!("chat/c/{cid}/m/{seq}/{action}");
        let edit = person.says_in_vain(&on("edit"), "once more");
        let react = person.acts_in_vain(&on("react"), "more");
        for told in [edit, react] {
            assert_eq!(
                (&told["error"], &told["reason"]),
                (&json!("limit"), &json!(0x97))
            );
            assert_eq!(told["retry_ms"], Value::Null, "waiting does not help");
        }
        let edit = json!({"cid": cid, "seq": seq, "t": "once more"});
        assert_eq!(person.call("msg.edit", &edit), refused("limit"));
        let react = json!({"cid": cid, "seq": seq, "emoji": "more"});
        assert_eq!(person.call("msg.react", &react), refused("limit"));
    }
    world.all_have_the_same_history();
}

#[test]
fn who_sends_too_much_is_told_when_to_go_on_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        world.say(who, &to, "before", &Seen::default());
    }
    let slow = |launch: Launch| {
        let launch = launch.variable("MQCHAT_CHAT__USER_MESSAGES_PER_S", "1");
        launch.variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "4")
    };
    world.server.terminate();
    assert!(world.server.wait_for_exit().success());
    world.server.restart_as(slow);
    let mut sent = 0;
    for person in &mut world.people {
        person.resume(&world.server);
        let told = loop {
            let answer = person.client.publish(&to, person.kind.body("more"));
            if let Some(told) = person.client.arrived_below("chat/me/err/") {
                break told;
            }
            assert_eq!(answer.reason, ReasonCode::Success);
            sent += 1;
        };
        let told: Value = serde_json::from_slice(&told.payload).unwrap();
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("rate"), &json!(0x97))
        );
        assert!((1..=1_000).contains(&number(&told["retry_ms"])), "{told}");
    }
    let fast = |launch: Launch| launch.variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "100000");
    world.server.restart_as(fast);
    for person in &mut world.people {
        person.resume(&world.server);
    }
    let cid = world.cid.clone();
    let history = world.all_see_the_same_of(&cid);
    assert_eq!(history.len(), 4 + sent, "what was refused is not there");
}

#[test]
fn a_device_that_is_revoked_makes_room_for_another_one_in_every_form() {
    let mut world = world(&[("DEVICES_PER_USER_MAX", "2")]);
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let login = Login::new(world.people[who].name).version(world.people[who].kind.version());
        let filter = format!("chat/me/{}/+", world.people[who].kind.form());
        let mut tablet = login
            .clone()
            .device("tablet")
            .connect(world.server.address());
        tablet.subscribe(&filter);
        let mut third = login
            .clone()
            .device("third")
            .connect(world.server.address());
        assert!(third.try_subscribe(&filter, Qos::AtLeastOnce).is_error());
        let listed = world.people[who].call("me.devices", &json!({})).unwrap();
        let devices = items(&listed["devices"]);
        let known = devices
            .iter()
            .find(|one| one["client_id"] == "tablet")
            .unwrap();
        let request = json!({"device": known["id"]});
        world.people[who].call("me.revoke", &request).unwrap();
        tablet.wait_for_end();
        third.subscribe(&filter);
        // Begun anew: nothing of what the one before had got, or had not.
        world.say(
            others(who)[0],
            &to,
            "for the devices that are left",
            &Seen::default(),
        );
        let mut again = login.device("tablet").connect(world.server.address());
        assert!(!again.session_present);
        assert!(again.try_subscribe(&filter, Qos::AtLeastOnce).is_error());
    }
    world.all_have_the_same_history();
}
