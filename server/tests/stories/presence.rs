//! Presence and typing: who is online, who types, and who may know it.

use std::net::SocketAddr;

use broker::codec::packet::{Publish, Qos, RetainHandling, SubscribeFilter, Version};
use broker::codec::properties::SubscribeProperties;
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use serde_json::{Value, json};

use super::harness::{
    Client, Login, Server, Sub, VERSIONS, attempt_publish, attempt_subscribe, publish,
};

/// A server where things happen soon: grace 300 ms, changes and typing told every 50 ms, typing gone after 500 ms.
fn quick_server() -> Server {
    Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__PRESENCE_GRACE_MS", "300")
            .variable("MQCHAT_CHAT__PRESENCE_INTERVAL_MS", "50")
            .variable("MQCHAT_CHAT__TYPING_INTERVAL_MS", "50")
            .variable("MQCHAT_CHAT__TYPING_EXPIRY_MS", "500")
    })
}

/// A server where nothing ends by itself within a test, and every reconnect is within the grace.
fn patient_server() -> Server {
    Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__PRESENCE_GRACE_MS", "600000")
            .variable("MQCHAT_CHAT__PRESENCE_INTERVAL_MS", "0")
            .variable("MQCHAT_CHAT__TYPING_INTERVAL_MS", "60000")
            .variable("MQCHAT_CHAT__TYPING_EXPIRY_MS", "600000")
    })
}

fn login(user: &str, version: Version, address: SocketAddr) -> Client {
    Login::new(user).version(version).connect(address)
}

/// Two users who have written to each other and are each other's contacts, and whose presence is no secret to each other.
fn friends(version: Version, address: SocketAddr) -> (Client, Client) {
    let mut alice = login("alice", version, address);
    let mut bob = login("bob", version, address);
    alice.publish("chat/to/@bob", "hello");
    bob.publish("chat/to/@alice", "hello");
    alice.call("people.add", &json!({"user": "@bob"})).unwrap();
    bob.call("people.add", &json!({"user": "@alice"})).unwrap();
    (alice, bob)
}

fn watch(client: &mut Client, target: &str) -> ReasonCode {
    client.try_subscribe(&format!("chat/u/{target}/presence"), Qos::AtLeastOnce)
}

fn json_of(message: &Publish) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// The next state of a user: (state, text, retain flag, last seen).
fn next_state(client: &mut Client, target: &str) -> (String, String, bool, Option<u64>) {
    let message = client.next_on(&format!("chat/u/{target}/presence"));
    assert_eq!(message.qos, Qos::AtMostOnce);
    let event = json_of(&message);
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    let seen = event.get("last_seen").map(|seen| seen.as_u64().unwrap());
    (text("state"), text("text"), message.retain, seen)
}

fn next_word(client: &mut Client, target: &str) -> String {
    next_state(client, target).0
}

fn state(word: &str, text: &str, retain: bool) -> (String, String, bool, Option<u64>) {
    (word.to_owned(), text.to_owned(), retain, None)
}

#[test]
fn a_user_is_online_while_any_device_is_and_a_change_is_told() {
    for version in VERSIONS {
        let server = quick_server();
        let address = server.address();
        let (mut alice, bob) = friends(version, address);
        assert_eq!(watch(&mut alice, "@bob"), ReasonCode::Success, "QoS 0");
        assert_eq!(next_state(&mut alice, "@bob"), state("online", "", true));
        let mut tablet = login("bob", version, address);
        tablet.publish("chat/me/presence", "away Back at two");
        let told = next_state(&mut alice, "@bob");
        assert_eq!(told, state("away", "Back at two", false), "a change");
        bob.disconnect();
        // Said by the device that is left: it is still he, and it is the next that is told.
        tablet.publish("chat/me/presence", r#"{"state":"dnd","text":"🎬"}"#);
        assert_eq!(next_state(&mut alice, "@bob"), state("dnd", "🎬", false));
        tablet.disconnect();
        let (word, text, retain, seen) = next_state(&mut alice, "@bob");
        assert_eq!(
            (word.as_str(), text.as_str(), retain),
            ("offline", "", false)
        );
        let seen = seen.expect("a friend sees when");
        assert_eq!(seen % 60_000, 0, "to the minute");
        let mut bob = login("bob", version, address);
        let told = next_state(&mut alice, "@bob");
        assert_eq!(told, state("dnd", "🎬", false), "his choice holds");
        bob.publish("chat/me/presence", "online");
        assert_eq!(next_state(&mut alice, "@bob"), state("online", "", false));
    }
}

#[test]
fn events_name_the_user_in_every_form_of_the_target() {
    let server = patient_server();
    let (mut alice, mut bob) = friends(Version::V5, server.address());
    let uid = bob.call("me.get", &json!({})).unwrap()["uid"].clone();
    let uid = uid.as_str().unwrap().to_owned();
    let expected = json!({"uid": uid, "handle": "bob", "state": "online", "text": ""});
    for target in ["@bob".to_owned(), format!("u.{uid}")] {
        assert_eq!(watch(&mut alice, &target), ReasonCode::Success);
        let message = alice.next_message();
        assert_eq!(&*message.topic, format!("chat/u/{target}/presence"));
        assert_eq!(
            message.properties.content_type.as_deref(),
            Some("application/json")
        );
        assert_eq!(json_of(&message), expected);
    }
    bob.publish("chat/me/presence", "away");
    for _ in 0..2 {
        assert_eq!(alice.next_json()["state"], "away", "each under its topic");
    }
    assert_eq!(watch(&mut bob, "me"), ReasonCode::Success);
    assert_eq!(next_word(&mut bob, "me"), "away");
}

#[test]
fn a_reconnect_within_the_grace_shows_nothing() {
    for version in VERSIONS {
        let server = patient_server();
        let address = server.address();
        let (mut alice, mut bob) = friends(version, address);
        watch(&mut alice, "@bob");
        assert_eq!(next_word(&mut alice, "@bob"), "online");
        for round in 0..5 {
            bob.disconnect();
            bob = login("bob", version, address);
            bob.publish("chat/me/presence", format!("away {round}"));
            let told = next_state(&mut alice, "@bob");
            assert_eq!(told, state("away", &round.to_string(), false));
        }
        bob.disconnect();
        let mut carol = login("alice", version, address);
        watch(&mut carol, "@bob");
        assert_eq!(next_word(&mut carol, "@bob"), "away", "still in the grace");
        assert_eq!(alice.arrivals(), [], "nothing in between");
    }
}

#[test]
fn invisible_looks_exactly_like_offline() {
    for version in VERSIONS {
        let server = quick_server();
        let address = server.address();
        let (mut alice, mut bob) = friends(version, address);
        bob.publish("chat/me/presence", "away at sea");
        watch(&mut alice, "@bob");
        assert_eq!(next_word(&mut alice, "@bob"), "away");
        bob.publish("chat/me/presence", "invisible at sea");
        let hidden = alice.next_on("chat/u/@bob/presence");
        watch(&mut bob, "me");
        let own = next_state(&mut bob, "me");
        assert_eq!((own.0.as_str(), own.1.as_str()), ("invisible", "at sea"));
        // To one who comes now, and to one who knows him as gone: the same bytes.
        let mut tablet = login("alice", version, address);
        watch(&mut tablet, "@bob");
        let while_hidden = tablet.next_on("chat/u/@bob/presence");
        assert_eq!(while_hidden.payload, hidden.payload);
        // Typing would show that he is there. An answer shows what he said, and nothing else.
        let cid = bob.call("conv.get", &json!({"cid": "@alice"})).unwrap()["cid"].clone();
        let topic = format!("chat/c/{}/typing", cid.as_str().unwrap());
        alice.try_subscribe("chat/me/ev/typing/+", Qos::AtMostOnce);
        assert_eq!(bob.publish(&topic, "1").reason, ReasonCode::Success);
        // Really gone, and back: nothing of it is seen.
        bob.disconnect();
        let mut bob = login("bob", version, address);
        let own = watch(&mut bob, "me");
        assert_eq!(own, ReasonCode::Success);
        assert_eq!(next_word(&mut bob, "me"), "invisible", "also after a while");
        bob.publish("chat/me/presence", "online");
        let next = alice.next_message();
        assert_eq!(
            json_of(&next)["state"],
            "online",
            "nothing before: {next:?}"
        );
        bob.disconnect();
        let offline = alice.next_on("chat/u/@bob/presence");
        let without_when = |message: &Publish| {
            let mut event = json_of(message);
            assert!(event["last_seen"].take().as_u64().unwrap() > 0);
            event
        };
        assert_eq!(without_when(&offline), without_when(&hidden));
        assert_eq!(offline.retain, hidden.retain);
    }
}

#[test]
fn a_choice_and_when_one_was_seen_survive_the_server() {
    let mut server = quick_server();
    let (alice, mut bob) = friends(Version::V5, server.address());
    bob.publish("chat/me/presence", "invisible");
    bob.disconnect();
    let carol = login("carol", Version::V5, server.address());
    server.terminate();
    server.wait_for_exit();
    drop((alice, carol));
    server.restart();
    let mut bob = login("bob", Version::V5, server.address());
    let mut alice = login("alice", Version::V5, server.address());
    watch(&mut alice, "@bob");
    let (word, _, _, seen) = next_state(&mut alice, "@bob");
    assert_eq!(word, "offline", "invisible");
    assert!(seen.is_some());
    watch(&mut bob, "@alice");
    assert_eq!(next_word(&mut bob, "@alice"), "online");
    let mut carol = login("carol", Version::V5, server.address());
    watch(&mut carol, "me");
    assert_eq!(next_word(&mut carol, "me"), "online");
}

#[test]
fn a_device_that_was_connected_when_the_server_was_killed_was_seen() {
    let mut server = quick_server();
    let (mut alice, mut bob) = friends(Version::V5, server.address());
    let mut device = Login::new("bob").device("phone").connect(server.address());
    device.subscribe("chat/me/in/+");
    bob.settle();
    alice.settle();
    server.restart();
    let mut alice = login("alice", Version::V5, server.address());
    watch(&mut alice, "@bob");
    let (word, _, _, seen) = next_state(&mut alice, "@bob");
    assert_eq!((word.as_str(), seen.is_some()), ("offline", true));
}

#[test]
fn a_resumed_session_is_told_the_state_again() {
    for version in VERSIONS {
        let server = quick_server();
        let address = server.address();
        let (mut alice, mut bob) = friends(version, address);
        alice.settle();
        let phone = Login::new("alice").version(version).device("phone");
        let mut device = phone.connect(address);
        watch(&mut device, "@bob");
        assert_eq!(next_state(&mut device, "@bob"), state("online", "", true));
        device.disconnect();
        bob.publish("chat/me/presence", "dnd Missed");
        let mut device = phone.connect(address);
        assert!(device.session_present);
        assert_eq!(
            next_state(&mut device, "@bob"),
            state("dnd", "Missed", true)
        );
        bob.publish("chat/me/presence", "dnd Seen");
        assert_eq!(next_state(&mut device, "@bob"), state("dnd", "Seen", false));
        // One that may no longer is told nothing.
        device.disconnect();
        let nobody = json!({"presence": {"who": "nobody"}});
        bob.call("me.privacy", &nobody).unwrap();
        let mut device = phone.connect(address);
        assert!(device.session_present);
        device.call("me.get", &json!({})).unwrap();
        bob.publish("chat/me/presence", "online");
        let everybody = json!({"presence": {"who": "everybody"}});
        bob.call("me.privacy", &everybody).unwrap();
        let next = device.next_message();
        assert_eq!(json_of(&next)["state"], "online", "nothing before");
    }
}

#[test]
fn whom_one_may_not_watch_is_like_nobody() {
    for version in VERSIONS {
        let server = patient_server();
        let address = server.address();
        let (mut alice, mut bob) = friends(version, address);
        let mut eve = login("eve", version, address);
        let uid = alice.call("me.get", &json!({})).unwrap()["uid"].clone();
        let alice_uid = format!("u.{}", uid.as_str().unwrap());
        let nobody = ["@nobody", "u.01arz3ndektsv4rrffq69g5fav"];
        let refused = |eve: &mut Client| {
            for target in ["@alice", &alice_uid] {
                let reason = watch(eve, target);
                for nobody in nobody {
                    assert_eq!(reason, watch(eve, nobody), "{target}");
                }
                let expected = match version {
                    Version::V5 => ReasonCode::NotAuthorized,
                    Version::V311 => ReasonCode::UnspecifiedError,
                };
                assert_eq!(reason, expected);
            }
        };
        refused(&mut eve);
        // Writing to somebody, or sharing a group with him, does not make him known to her.
        eve.publish("chat/to/@alice", "hello");
        let group = json!({"title": "trap", "members": ["@alice"]});
        eve.call("conv.create", &group).unwrap();
        refused(&mut eve);
        // Nor does an answer: only that she becomes a contact.
        alice.publish("chat/to/@eve", "who are you?");
        refused(&mut eve);
        alice.call("people.add", &json!({"user": "@eve"})).unwrap();
        assert_eq!(watch(&mut eve, "@alice"), ReasonCode::Success);
        assert_eq!(next_word(&mut eve, "@alice"), "online");
        // And an exception takes it back, also for those who watch already.
        let except = json!({"presence": {"who": "contacts", "except": ["@eve"]}});
        alice.call("me.privacy", &except).unwrap();
        let (word, _, _, seen) = next_state(&mut eve, "@alice");
        assert_eq!(
            (word.as_str(), seen),
            ("offline", None),
            "the last that she hears"
        );
        refused(&mut login("eve", version, address));
        watch(&mut bob, "@alice");
        assert_eq!(next_word(&mut bob, "@alice"), "online");
        alice.publish("chat/me/presence", "away");
        assert_eq!(next_word(&mut bob, "@alice"), "away");
        assert_eq!(eve.arrivals(), []);
    }
}

#[test]
fn privacy_has_circles_and_exceptions_for_state_and_last_seen() {
    let server = quick_server();
    let address = server.address();
    let (mut alice, mut bob) = friends(Version::V5, address);
    let mut eve = login("eve", Version::V5, address);
    let defaults = json!({"who": "contacts", "except": []});
    let privacy = bob.call("me.privacy", &json!({})).unwrap();
    assert_eq!(
        privacy,
        json!({
            "presence": defaults,
            "last_seen": defaults,
            "profile": {"who": "everybody", "except": []},
            "search": true,
            "delivered": true,
            "read": true,
        })
    );
    let everybody = json!({"presence": {"who": "everybody"}});
    let privacy = bob.call("me.privacy", &everybody).unwrap();
    assert_eq!(privacy["presence"]["who"], "everybody");
    assert_eq!(privacy["last_seen"], defaults, "what is not given stays");
    assert_eq!(watch(&mut eve, "@bob"), ReasonCode::Success);
    assert_eq!(watch(&mut alice, "@bob"), ReasonCode::Success);
    assert_eq!(next_word(&mut eve, "@bob"), "online");
    assert_eq!(next_word(&mut alice, "@bob"), "online");
    bob.disconnect();
    let (word, _, _, seen) = next_state(&mut eve, "@bob");
    assert_eq!((word.as_str(), seen), ("offline", None), "a stranger");
    let (word, _, _, seen) = next_state(&mut alice, "@bob");
    assert_eq!(
        (word.as_str(), seen.is_some()),
        ("offline", true),
        "a contact"
    );

    let mut bob = login("bob", Version::V5, address);
    assert_eq!(next_word(&mut eve, "@bob"), "online");
    assert_eq!(next_word(&mut alice, "@bob"), "online");
    let only_eve = json!({"last_seen": {"who": "nobody", "except": ["@eve"]}});
    bob.call("me.privacy", &only_eve).unwrap();
    bob.disconnect();
    assert!(next_state(&mut eve, "@bob").3.is_some(), "the exception");
    assert!(next_state(&mut alice, "@bob").3.is_none());

    let mut bob = login("bob", Version::V5, address);
    for bad in [
        json!({"presence": "everybody"}),
        json!({"presence": {"who": "friends"}}),
        json!({"everything": {"who": "nobody"}}),
    ] {
        assert_eq!(bob.call("me.privacy", &bad), Err("format".to_owned()));
    }
    let unknown = json!({"presence": {"who": "nobody", "except": ["@nobody"]}});
    let refused = bob.call("me.privacy", &unknown);
    assert_eq!(refused, Err("not_found".to_owned()));
}

#[test]
fn what_is_no_presence_is_refused_and_watching_is_bounded() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__PRESENCE_WATCHED_PER_CONNECTION_MAX", "2")
            .variable("MQCHAT_CHAT__PRESENCE_WATCHERS_PER_USER_MAX", "1")
    });
    let address = server.address();
    let (mut alice, mut bob) = friends(Version::V5, address);
    let longest = format!("away {}", "x".repeat(256));
    assert_eq!(
        alice.publish("chat/me/presence", &longest).reason,
        ReasonCode::Success
    );
    for bad in ["", "offline", "busy", &format!("{longest}x"), "away \u{7}"] {
        let answer = alice.publish("chat/me/presence", bad);
        assert_eq!(answer.reason, ReasonCode::PayloadFormatInvalid, "{bad}");
    }
    assert_eq!(watch(&mut alice, "@bob"), ReasonCode::Success);
    assert_eq!(watch(&mut alice, "@bob"), ReasonCode::Success, "the same");
    assert_eq!(watch(&mut alice, "me"), ReasonCode::Success);
    assert_eq!(watch(&mut alice, "@nobody"), ReasonCode::QuotaExceeded);
    let mut tablet = login("alice", Version::V5, address);
    assert_eq!(watch(&mut tablet, "@bob"), ReasonCode::QuotaExceeded);
    let mut eve = login("eve", Version::V5, address);
    assert_eq!(
        watch(&mut eve, "@bob"),
        ReasonCode::NotAuthorized,
        "not a word about how many watch him"
    );
    alice.disconnect();
    assert_eq!(
        watch(&mut tablet, "@bob"),
        ReasonCode::Success,
        "one has gone"
    );
    bob.settle();
}

fn group(owner: &mut Client, request: &Value) -> String {
    let made = owner.call("conv.create", request).unwrap();
    made["cid"].as_str().unwrap().to_owned()
}

#[test]
fn typing_is_told_to_others_who_listen_and_expires() {
    for version in VERSIONS {
        let server = quick_server();
        let address = server.address();
        let mut alice = login("alice", version, address);
        let mut bob = login("bob", version, address);
        let mut carol = login("carol", version, address);
        let members = json!({"title": "us", "members": ["@bob", "@carol"]});
        let cid = group(&mut alice, &members);
        let events = format!("chat/me/ev/typing/{cid}");
        let granted = bob.try_subscribe("chat/me/ev/typing/+", Qos::AtLeastOnce);
        assert_eq!(granted, ReasonCode::Success, "QoS 0");
        assert_eq!(
            carol.try_subscribe(&events, Qos::AtMostOnce),
            ReasonCode::Success
        );
        alice.try_subscribe("chat/me/ev/typing/+", Qos::AtMostOnce);
        alice.publish_qos0(&format!("chat/c/{cid}/typing"), "1");
        let uid = alice.call("me.get", &json!({})).unwrap()["uid"].clone();
        for word in ["1", "0"] {
            for other in [&mut bob, &mut carol] {
                let message = other.next_on(&events);
                assert_eq!((message.qos, message.retain), (Qos::AtMostOnce, false));
                let expected = json!({"cid": cid, "uid": uid, "handle": "alice", "typing": word});
                assert_eq!(json_of(&message), expected, "it ends by itself, once");
            }
        }
        alice.publish_qos0(&format!("chat/c/{cid}/typing"), "rec");
        assert_eq!(bob.next_json()["typing"], "rec");
        alice.publish_qos0(&format!("chat/c/{cid}/typing"), "0");
        assert_eq!(bob.next_json()["typing"], "0");
        assert_eq!(alice.arrivals(), [], "nothing of oneself");
        let entries = alice.history(&cid);
        assert_eq!(entries.len(), 1, "nothing is stored: {entries:?}");
        for bad in ["", "2", "typing"] {
            let answer = alice.publish(&format!("chat/c/{cid}/typing"), bad);
            if version == Version::V5 {
                assert_eq!(answer.reason, ReasonCode::PayloadFormatInvalid);
            }
        }
    }
}

#[test]
fn typing_is_throttled_and_its_end_is_not() {
    let server = patient_server();
    let (mut alice, mut bob) = friends(Version::V5, server.address());
    let cid = bob.call("conv.get", &json!({"cid": "@alice"})).unwrap()["cid"].clone();
    let topic = format!("chat/c/{}/typing", cid.as_str().unwrap());
    alice.try_subscribe("chat/me/ev/typing/+", Qos::AtMostOnce);
    let said = |bob: &mut Client, words: &[&str]| {
        for word in words {
            assert_eq!(bob.publish(&topic, word).reason, ReasonCode::Success);
        }
    };
    said(&mut bob, &["1"]);
    assert_eq!(alice.next_json()["typing"], "1");
    said(&mut bob, &["1", "rec", "1", "0"]);
    assert_eq!(alice.next_json()["typing"], "0", "nothing in between");
    said(&mut bob, &["1", "rec", "0", "0"]);
    alice.subscribe("chat/me/in/+");
    bob.publish("chat/to/@alice", "done");
    while alice.next_json()["t"] != "done" {}
    assert_eq!(alice.arrivals(), []);
}

#[test]
fn only_members_who_may_write_type_and_only_members_are_told() {
    for version in VERSIONS {
        let server = quick_server();
        let address = server.address();
        let mut alice = login("alice", version, address);
        let mut bob = login("bob", version, address);
        let mut carol = login("carol", version, address);
        let mut eve = login("eve", version, address);
        let members =
            json!({"title": "us", "members": ["@bob", "@carol"], "roles": {"@bob": "reader"}});
        let cid = group(&mut alice, &members);
        let typing = format!("chat/c/{cid}/typing");
        let events = format!("chat/me/ev/typing/{cid}");
        for client in [&mut alice, &mut bob, &mut carol, &mut eve] {
            client.try_subscribe("chat/me/ev/typing/+", Qos::AtMostOnce);
            client.subscribe("chat/me/err/+");
        }
        assert!(eve.try_subscribe(&events, Qos::AtMostOnce).is_error());
        for (client, error) in [(&mut bob, "forbidden"), (&mut eve, "not_found")] {
            for said in ["1", "0", "rec"] {
                client.publish(&typing, said);
                assert_eq!(client.next_json()["error"], error);
            }
        }
        carol.publish(&typing, "1");
        for client in [&mut alice, &mut bob] {
            assert_eq!(client.next_json()["typing"], "1", "a reader may know");
        }
        let remove = json!({"cid": cid, "member": "@carol"});
        alice.call("conv.remove", &remove).unwrap();
        carol.publish(&typing, "1");
        assert_eq!(carol.next_json()["error"], "not_found");
        // It ends for the others; what comes after it is not for her.
        for client in [&mut alice, &mut bob] {
            assert_eq!(json_of(&client.next_on(&events))["typing"], "0");
        }
        alice.publish(&typing, "1");
        assert_eq!(bob.next_json()["typing"], "1");
        assert_eq!(bob.next_json()["typing"], "0");
        assert_eq!(carol.arrivals(), []);
        assert_eq!(eve.arrivals(), []);
        assert!(carol.try_subscribe(&events, Qos::AtMostOnce).is_error());
    }
}

#[test]
fn who_watches_nobody_any_more_is_told_nothing() {
    let server = patient_server();
    let (mut alice, mut bob) = friends(Version::V5, server.address());
    watch(&mut alice, "@bob");
    assert_eq!(next_word(&mut alice, "@bob"), "online");
    alice.unsubscribe("chat/u/@bob/presence");
    bob.publish("chat/me/presence", "away");
    watch(&mut bob, "me");
    assert_eq!(next_word(&mut bob, "me"), "away", "it has been told to all");
    assert_eq!(alice.arrivals(), []);
}

#[test]
fn the_tools_of_mosquitto_watch_and_are_watched() {
    for version in VERSIONS {
        let server = quick_server();
        let address = server.address();
        let mut bob = Login::new("bob").connect(address);
        Login::new("alice").connect(address).disconnect();
        bob.call("people.add", &json!({"user": "@alice"})).unwrap();
        bob.disconnect();
        publish(
            address,
            version,
            "alice",
            &["-t", "chat/to/@bob", "-m", "hi"],
        );
        publish(
            address,
            version,
            "bob",
            &["-t", "chat/to/@alice", "-m", "hi"],
        );
        let line = |sub: &Sub| {
            let line = sub.next_line();
            let (retain, event) = line.split_once(' ').unwrap();
            let event: Value = serde_json::from_str(event).unwrap();
            (retain == "1", event["state"].as_str().unwrap().to_owned())
        };
        let bob = Sub::start(address, version, "bob", &["-t", "chat/me/txt/+"]);
        assert_eq!(bob.next_lines(2), ["alice: hi", "bob: hi"]);
        let watching = ["-t", "chat/u/@bob/presence", "-F", "%r %p"];
        let watch = Sub::start(address, version, "alice", &watching);
        assert_eq!(line(&watch), (true, "online".to_owned()));
        let away = ["-t", "chat/me/presence", "-m", "away Lunch"];
        publish(address, version, "bob", &away);
        assert_eq!(line(&watch), (false, "away".to_owned()));
        bob.kill();
        assert_eq!(line(&watch), (false, "offline".to_owned()));
        watch.kill();
        let refused = attempt_subscribe(address, version, "eve", &watching[..2]);
        assert!(refused.contains("denied"), "{refused}");
        let bad = ["-t", "chat/me/presence", "-m", "busy"];
        let refused = attempt_publish(address, version, "bob", &bad);
        assert_eq!(refused.is_empty(), version == Version::V311, "{refused}");
    }
}

#[test]
fn the_state_at_the_beginning_comes_as_retain_handling_says() {
    let server = patient_server();
    let (mut alice, mut bob) = friends(Version::V5, server.address());
    let subscribe = |alice: &mut Client, retain_handling| {
        let filter = SubscribeFilter {
            filter: TopicFilter::parse("chat/u/@bob/presence".into()).unwrap(),
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling,
        };
        let reasons = alice.subscribe_as(vec![filter], SubscribeProperties::default());
        assert_eq!(reasons, [ReasonCode::Success]);
    };
    subscribe(&mut alice, RetainHandling::IfNew);
    assert_eq!(next_state(&mut alice, "@bob"), state("online", "", true));
    subscribe(&mut alice, RetainHandling::IfNew);
    subscribe(&mut alice, RetainHandling::Never);
    // The first to come is the change, even if it happens while she subscribes again.
    bob.publish("chat/me/presence", "away");
    subscribe(&mut alice, RetainHandling::Never);
    assert_eq!(next_state(&mut alice, "@bob"), state("away", "", false));
    subscribe(&mut alice, RetainHandling::Always);
    assert_eq!(next_state(&mut alice, "@bob"), state("away", "", true));
}
