//! People: profiles, contacts, those whom one does not want to know, handles, and the end of an account.

use broker::codec::properties::PublishProperties;
use proto::payload::PROTOBUF_MARK;
use serde_json::{Value, json};

use crate::harness::{Login, Lost, request_in_protobuf};
use crate::rows::{EVERYBODY, Kind, Person, Seen, World, gone_at, items, number, others};

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

#[test]
fn a_block_holds_in_every_form_and_for_ever() {
    let mut world = World::new();
    let to_group = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let [mallory, other] = others(who);
        let to = format!("chat/to/{}", world.handle(who));
        world.people[mallory].say(&to, "before");
        let with = json!({"cid": world.handle(mallory)});
        let direct = world.people[who].call("conv.get", &with).unwrap();
        let first = number(&direct["head"]);
        let cid = direct["cid"].as_str().unwrap().to_owned();
        let message = |by: &Person, seq: u64, text: &str| Seen {
            seq,
            kind: "message".into(),
            from: by.name.into(),
            text: text.into(),
            ..Seen::default()
        };
        let before = message(&world.people[mallory], first, "before");
        for one in [who, mallory] {
            world.people[one].sees_in(&cid, &before);
        }
        let of_mallory = json!({"user": world.handle(mallory)});
        let blocked = world.people[who].call("people.block", &of_mallory).unwrap();
        assert_eq!(blocked["blocked"], true);
        let listed = world.people[who].call("people.blocks", &json!({})).unwrap();
        assert_eq!(
            items(&listed["contacts"])[0]["handle"],
            world.people[mallory].name
        );

        world.people[mallory].say(&to, "hidden");
        let hidden = Seen {
            kind: "gone".into(),
            text: String::new(),
            ..message(&world.people[mallory], first + 1, "")
        };
        world.people[who].sees_in(&cid, &hidden);
        let own = message(&world.people[mallory], first + 1, "hidden");
        world.people[mallory].sees_in(&cid, &own);
        let read = format!("chat/c/{cid}/read");
        world.people[who].act(&read, (first + 1).to_string());
        let status = json!({"cid": cid, "seq": first + 1});
        let status = world.people[mallory].call("msg.status", &status).unwrap();
        let counts = ["delivered", "read", "of"].map(|name| number(&status[name]));
        assert_eq!(counts, [0, 0, 1], "she cannot tell");
        let told = world.people[mallory].call("people.get", &json!({"user": world.handle(who)}));
        assert_eq!(told.unwrap()["blocked"], Value::Null);
        // Groups are not concerned.
        world.say(mallory, &to_group, "to all", &Seen::default());

        world.people[who]
            .call("people.unblock", &of_mallory)
            .unwrap();
        world.people[mallory].say(&to, "after");
        let after = message(&world.people[mallory], first + 2, "after");
        for one in [who, mallory] {
            world.people[one].sees_in(&cid, &after);
        }
        let history = world.people[who].history(&cid);
        assert_eq!(
            gone_at(&history, first + 1),
            Some("hidden"),
            "also afterwards"
        );
        assert_eq!(gone_at(&history, first), None);
        let own = world.people[mallory].history(&cid);
        assert_eq!(gone_at(&own, first + 1), None);
        let stranger = world.people[other].call("msg.history", &json!({"cid": cid}));
        assert_eq!(stranger, refused("not_found"));
    }
    world.all_have_the_same_history();
}

#[test]
fn profiles_and_contacts_are_shown_in_every_form_to_whom_they_may_be() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let [friend, stranger] = others(who);
        let profile = json!({"name": "A Name", "status": "at sea", "photo": "media:1",
            "locale": "de-AT", "tags": "chess"});
        let me = world.people[who].call("me.set", &profile).unwrap();
        assert_eq!(
            (&me["locale"], &me["tags"]),
            (&json!("de-AT"), &json!(["chess"]))
        );
        let contacts = json!({"profile": {"who": "contacts"}});
        world.people[who].call("me.privacy", &contacts).unwrap();
        let add = json!({"user": world.handle(friend), "called": "Friend"});
        let added = world.people[who].call("people.add", &add).unwrap();
        assert_eq!(
            (&added["called"], &added["contact"]),
            (&json!("Friend"), &json!(true))
        );
        let ask = json!({"user": world.handle(who)});
        for (reader, status) in [(friend, json!("at sea")), (stranger, Value::Null)] {
            let seen = world.people[reader].call("people.get", &ask).unwrap();
            assert_eq!(
                (&seen["name"], &seen["status"]),
                (&json!("A Name"), &status)
            );
            assert_eq!(seen["locale"], Value::Null);
        }
        let listed = world.people[who].call("people.list", &json!({})).unwrap();
        assert_eq!(items(&listed["contacts"])[0]["called"], "Friend");
        let remove = json!({"user": world.handle(friend)});
        world.people[who].call("people.remove", &remove).unwrap();
        let seen = world.people[friend].call("people.get", &ask).unwrap();
        assert_eq!(seen["status"], Value::Null);
        let nobody = json!({"user": "@nobody"});
        let told = world.people[who].call("people.get", &nobody);
        assert_eq!(told, refused("not_found"));
        let bad = json!({"locale": "de_AT"});
        assert_eq!(world.people[who].call("me.set", &bad), refused("format"));
        world.say(who, &to, "that is me", &Seen::default());
    }
    world.all_have_the_same_history();
}

#[test]
fn a_handle_changes_in_every_form_and_the_old_one_names_nobody() {
    let mut world = World::new();
    let mut dave = Login::new("dave").connect(world.server.address());
    for who in EVERYBODY {
        let [one, _] = others(who);
        let old = world.people[who].name;
        let taken = json!({"handle": world.people[one].name});
        assert_eq!(
            world.people[who].call("me.handle", &taken),
            refused("forbidden")
        );
        let new = json!({"handle": format!("{old}.new")});
        let me = world.people[who].call("me.handle", &new).unwrap();
        assert_eq!(me["handle"], new["handle"]);
        let told = world.people[one].says_in_vain(&format!("chat/to/@{old}"), "to nobody");
        assert_eq!(
            (&told["error"], &told["reason"]),
            (&json!("not_found"), &json!(0x90))
        );
        let rests = json!({"handle": old});
        assert_eq!(dave.call("me.handle", &rests), refused("forbidden"));
        world.people[one].say(&format!("chat/to/@{old}.new"), "is that you?");
        assert_eq!(world.people[who].hears().1, "is that you?");
        world.people[one].client.settle(); // his own word
        let back = world.people[who].call("me.handle", &rests).unwrap();
        assert_eq!(back["handle"], old, "it is his to take back");
        let told = world.people[who].try_call("me.handle", &new).unwrap_err();
        assert_eq!(told["code"], "rate", "twice in a month");
        let to = format!("chat/to/{}", world.cid);
        world.say(who, &to, "it is me", &Seen::default());
    }
    world.all_have_the_same_history();
}

#[test]
fn who_is_no_more_has_left_and_what_was_said_stays_in_every_form() {
    let mut world = World::new();
    let (cid, to) = (world.cid.clone(), format!("chat/to/{}", world.cid));
    for (kind, name) in Kind::ALL.into_iter().zip(["old", "older", "oldest"]) {
        let mut person = Person::connect(&world.server, kind, name);
        let request = json!({"cid": cid, "members": [format!("@{name}")]});
        world.people[1].call("conv.add", &request).unwrap();
        let seen = |kind: &str, from: &str, text: &str| Seen {
            kind: kind.into(),
            from: from.into(),
            text: text.into(),
            ..Seen::default()
        };
        world.all_see(seen("added", "json", ""));
        person.say(&to, "my last words");
        world.all_see(seen("message", name, "my last words"));
        let wrong = json!({"password": "wrong"});
        assert_eq!(person.call("me.delete", &wrong), refused("forbidden"));
        let password = json!({"password": format!("{name}-secret")});
        let payload = match kind {
            Kind::Protobuf => {
                let request = request_in_protobuf("me.delete", &password);
                [&[PROTOBUF_MARK], &*request].concat()
            }
            Kind::Text | Kind::Json => password.to_string().into(),
        };
        // The reply may come too late for the connection.
        let none = PublishProperties::default();
        person
            .client
            .send_publish("chat/rpc/me.delete/last", payload, none);
        let end = person.client.wait_for_end();
        assert!(
            kind == Kind::Text || matches!(end, Lost::Disconnected(_)),
            "{end:?}"
        );
        let login = Login::new(name).version(kind.version());
        assert!(
            login.try_connect(world.server.address()).is_err(),
            "the handle rests"
        );
        world.all_see(seen("left", name, ""));
        for reader in EVERYBODY {
            let told = world.people[reader].says_in_vain(&format!("chat/to/@{name}"), "x");
            assert_eq!(told["error"], "not_found");
        }
    }
    world.all_have_the_same_history();
}

#[test]
fn what_one_has_said_is_exported_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        world.say(who, &to, "to be exported", &Seen::default());
    }
    for person in &mut world.people {
        let mut lines: Vec<Value> = Vec::new();
        let mut ask = json!({});
        loop {
            let page = person.call("me.export", &ask).unwrap();
            let text = |line: &Value| serde_json::from_str(line.as_str().unwrap()).unwrap();
            lines.extend(items(&page["lines"]).iter().map(text));
            match &page["next"] {
                Value::Null => break,
                next => ask = json!({"next": next}),
            }
        }
        let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
        assert_eq!(
            [of("profile"), of("conversation"), of("message")],
            [1, 1, 1]
        );
        let counts = lines.last().unwrap();
        assert_eq!(
            (&counts["type"], &counts["messages"]),
            (&json!("counts"), &json!(1))
        );
    }
    world.all_have_the_same_history();
}
