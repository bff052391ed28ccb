//! Who sends too much: what is refused, to whom, and until when.

use broker::codec::packet::{Qos, Version};
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, VERSIONS, with_mid};

/// One token in a hundred seconds would be none at all; one in a second may come while a story runs.
const BURST: u32 = 8;

fn server(whose: &str) -> Server {
    let variable = |what: &str| format!("MQCHAT_CHAT__{}_MESSAGES_{what}", whose.to_uppercase());
    Server::in_new_directory(|launch: Launch| {
        let burst = BURST.to_string();
        let launch = launch.dev().variable(&variable("PER_S"), "1");
        launch.variable(&variable("BURST"), burst)
    })
}

/// Is it refused for its rate? In 5.0 on PUBACK, and to both as an event, with the time to wait.
fn is_refused(client: &mut Client, version: Version, topic: &str, mid: &str) -> bool {
    let (topic, properties) = match version {
        Version::V5 => (topic.to_owned(), with_mid(mid)),
        Version::V311 => (
            format!("{topic}/{mid}"),
            broker::codec::properties::PublishProperties::default(),
        ),
    };
    let answer = client.publish_with(&topic, "again", properties);
    let told = client.arrived();
    let Some(told) = told else {
        assert!(!answer.reason.is_error(), "{answer:?}");
        return false;
    };
    assert_eq!(&*told.topic, format!("chat/me/err/{mid}"));
    let told: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(
        (&told["error"], &told["reason"]),
        (&json!("rate"), &json!(0x97))
    );
    let retry_ms = told["retry_ms"].as_u64().unwrap();
    assert!((1..=1_000).contains(&retry_ms), "{told}");
    if version == Version::V5 {
        assert_eq!(answer.reason as u8, 0x97);
        assert_eq!(answer.get("error"), Some("rate"));
        assert_eq!(answer.get("retry_ms"), Some(retry_ms.to_string().as_str()));
    }
    true
}

/// Sends until it is refused, a burst at least.
fn exhaust(client: &mut Client, version: Version, topic: &str) {
    let refused =
        (0..100).position(|number| is_refused(client, version, topic, &format!("m{number}")));
    let sent = refused.expect("somewhere is a limit");
    assert!(sent <= 2 * BURST as usize, "{sent}");
}

/// May this device of this user subscribe, and send twice? A token may have come meanwhile for the first of it.
fn sends(server: &Server, version: Version, (user, device): (&str, &str), topic: &str) -> bool {
    let login = Login::new(user).version(version).client_id(device);
    let mut client = login.connect(server.address());
    let granted = client.try_subscribe("chat/me/err/+", Qos::AtLeastOnce);
    if granted.is_error() {
        return false;
    }
    let mut refused = |mid: &str| is_refused(&mut client, version, topic, mid);
    !(refused(&format!("{device}-1")) | refused(&format!("{device}-2")))
}

#[test]
fn each_rate_stops_those_whom_it_concerns() {
    // Whose rate: may then still send: the same device when it comes back, another one of the user, another user, and in another conversation.
    for (whose, same, other_device, other_user, elsewhere) in [
        ("device", false, true, true, false),
        ("user", false, false, true, false),
        ("address", false, false, false, false),
        ("conversation", false, false, false, true),
    ] {
        for version in VERSIONS {
            let server = server(whose);
            let connect = |user: &str, device: &str| {
                let login = Login::new(user).version(version).client_id(device);
                let mut client = login.connect(server.address());
                client.subscribe("chat/me/err/+");
                client
            };
            connect("bob", "bob").disconnect();
            let mut alice = connect("alice", "phone");
            alice.publish("chat/to/@bob", "first");
            exhaust(&mut alice, version, "chat/to/@bob");
            alice.disconnect();
            for (who, topic, expected) in [
                (("alice", "phone"), "chat/to/@bob", same),
                (("alice", "tablet"), "chat/to/@bob", other_device),
                (("bob", "bob-2"), "chat/to/@alice", other_user),
                (("alice", "phone"), "chat/to/me", elsewhere),
            ] {
                let may = sends(&server, version, who, topic);
                assert_eq!(may, expected, "rate of the {whose}: {who:?} {topic}");
            }
        }
    }
}

#[test]
fn a_call_that_is_too_much_says_when_to_try_again() {
    let server = server("conversation");
    let mut alice = Login::new("alice").connect(server.address());
    alice.subscribe("chat/me/err/+");
    exhaust(&mut alice, Version::V5, "chat/to/me");
    let refused = (0..3).find_map(|number| {
        let asked = json!({"cid": "me", "t": "again", "mid": format!("c{number}")});
        alice.try_call("msg.send", &asked).err()
    });
    let refused = refused.unwrap();
    assert_eq!(refused["code"], "rate");
    assert!(
        refused["retry_ms"]
            .as_u64()
            .is_some_and(|ms| (1..=1_000).contains(&ms))
    );
    // Who may not see the conversation does not use up its rate, and is not told of it.
    let cid = alice.call("conv.get", &json!({"cid": "me"})).unwrap()["cid"].clone();
    let mut eve = Login::new("eve").connect(server.address());
    let topic = format!("chat/to/{}", cid.as_str().unwrap());
    for _ in 0..20 {
        assert_eq!(eve.publish(&topic, "x").get("error"), Some("not_found"));
    }
}
