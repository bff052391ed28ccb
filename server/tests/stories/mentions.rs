//! Mentions: who is meant, how many are not read, where they are.

use broker::codec::packet::Version;
use proto::schema::{ClientMessage, Message as _};
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS, eventually};

/// A group of alice (owner), bob and carol (members).
fn group(server: &Server, version: Version) -> (Client, Client, Client, String) {
    let connect = |name: &str| {
        let login = Login::new(name).version(version);
        login.connect(server.address())
    };
    let (mut alice, bob, carol) = (connect("alice"), connect("bob"), connect("carol"));
    let group = json!({"members": ["@bob", "@carol"], "history": "all"});
    let group = alice.call("conv.create", &group).unwrap();
    let cid = group["cid"].as_str().unwrap().to_owned();
    (alice, bob, carol, cid)
}

fn unread_mentions(client: &mut Client, cid: &str) -> u64 {
    let seen = client.call("conv.get", &json!({"cid": cid})).unwrap();
    seen["mentions"].as_u64().unwrap()
}

/// The places of messages that mention the caller.
fn mentions(client: &mut Client, request: &Value) -> Vec<u64> {
    let page = client.call("msg.mentions", request).unwrap();
    let list = page["mentions"].as_array().unwrap().iter();
    list.map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

fn uid_of(client: &mut Client) -> Value {
    client.call("me.get", &json!({})).unwrap()["uid"].take()
}

#[test]
fn members_are_mentioned_in_every_form_and_all_by_those_who_may() {
    for version in VERSIONS {
        let server = Server::dev();
        let (mut alice, mut bob, mut carol, cid) = group(&server, version);
        let _eve = Login::new("eve").connect(server.address());
        let (bobs, carols) = (uid_of(&mut bob), uid_of(&mut carol));
        let to = format!("chat/to/{cid}");
        alice.publish(&to, "hello @Bob, mail x@carol.org; @eve @nobody"); // 2
        alice.publish(
            &to,
            json!({"t": "look, @bob.", "mentions": ["@carol"]}).to_string(),
        ); // 3
        let in_protobuf = ClientMessage {
            t: "in protobuf @carol".into(),
            ..ClientMessage::default()
        };
        alice.publish(&to, [&[0xC1][..], &in_protobuf.encode_to_vec()].concat()); // 4
        alice.publish(&to, "@all!"); // 5
        bob.publish(&to, "@all, says a member"); // 6
        let secret = json!({"t": "@bob @all", "opaque": "AAEC"}).to_string();
        alice.publish(&to, secret); // 7
        alice.publish(&to, "nobody"); // 8

        let history = alice.history(&cid);
        let told: Vec<_> = history.iter().map(|entry| &entry["mentions"]).collect();
        let none = &Value::Null;
        assert_eq!(
            told[1..],
            [
                &json!([bobs]),
                &json!([carols, bobs]),
                &json!([carols]),
                &json!(["@all"]),
                none,
                none,
                none
            ]
        );
        let everywhere = &json!({});
        assert_eq!(mentions(&mut bob, everywhere), [5, 3, 2]);
        assert_eq!(mentions(&mut carol, &json!({"cid": cid})), [5, 4, 3]);
        assert_eq!(mentions(&mut alice, everywhere), [0; 0], "not by herself");
        assert_eq!(unread_mentions(&mut bob, &cid), 3);
        bob.publish(&format!("chat/c/{cid}/read"), "3");
        assert_eq!(unread_mentions(&mut bob, &cid), 1, "by the mark");
        assert_eq!(mentions(&mut bob, everywhere).len(), 3, "all are listed");

        // In a direct conversation both may mean all, from the first message on.
        bob.publish("chat/to/@carol", "@all of us");
        let direct = carol.call("conv.get", &json!({"cid": "@bob"})).unwrap();
        assert_eq!(direct["mentions"], 1);
        let page = carol.call("msg.mentions", &json!({"limit": 2})).unwrap();
        let next = &page["next"];
        let rest = carol.call("msg.mentions", &json!({"limit": 9, "next": next}));
        let all = [page, rest.unwrap()];
        let pages = all.iter().map(|page| page["mentions"].as_array().unwrap());
        let texts: Vec<_> = pages.flatten().map(|entry| entry["seq"].clone()).collect();
        assert_eq!(texts, [1, 5, 4, 3], "{all:?}");
        assert_eq!(all[1]["next"], Value::Null);
    }
}

#[test]
fn mentions_follow_edits_and_deletions_into_the_account() {
    for version in VERSIONS {
        let server = Server::dev();
        let (mut alice, mut bob, mut carol, cid) = group(&server, version);
        let told = |client: &mut Client| {
            let all = client.call("sync.changes", &json!({})).unwrap();
            all["conversations"][0]["conversation"]["mentions"].clone()
        };
        bob.subscribe("chat/me/ev/account");
        alice.publish(&format!("chat/to/{cid}"), "@bob come"); // 2
        eventually("the event to tell", || {
            let event = bob.next_on("chat/me/ev/account");
            let event: Value = serde_json::from_slice(&event.payload).unwrap();
            (event["conversations"][0]["conversation"]["mentions"] == 1).then_some(())
        });
        assert_eq!((told(&mut bob), told(&mut carol)), (json!(1), json!(0)));
        alice.publish(&format!("chat/c/{cid}/m/2/edit"), "@carol come");
        assert_eq!((told(&mut bob), told(&mut carol)), (json!(0), json!(1)));
        assert_eq!(mentions(&mut carol, &json!({})), [2]);
        carol.publish(&format!("chat/c/{cid}/m/2/del"), "me");
        assert_eq!(told(&mut carol), json!(0), "hidden");
        alice.publish(&format!("chat/to/{cid}"), "@all"); // 4
        assert_eq!((told(&mut bob), told(&mut carol)), (json!(1), json!(1)));
        alice.publish(&format!("chat/c/{cid}/m/4/del"), "all");
        assert_eq!((told(&mut bob), told(&mut carol)), (json!(0), json!(0)));
        assert_eq!(mentions(&mut bob, &json!({})), [0; 0]);
    }
}

#[test]
fn who_cannot_see_a_message_finds_no_mention_in_it() {
    let mut server = Server::dev();
    let (mut alice, mut bob, mut carol, cid) = group(&server, Version::V5);
    let to = format!("chat/to/{cid}");
    alice.publish(&to, "@all before"); // 2
    alice
        .call("conv.remove", &json!({"cid": cid, "member": "@bob"}))
        .unwrap();
    alice.publish(&to, "@bob @carol @all after"); // 4
    let bobs = uid_of(&mut bob);
    let named = json!({"t": "by id", "mentions": [format!("u.{}", bobs.as_str().unwrap())]});
    alice.publish(&to, named.to_string()); // 5
    assert_eq!(alice.history(&cid)[4]["mentions"], Value::Null);
    assert_eq!(mentions(&mut bob, &json!({})), [0; 0]);
    for stranger in [&mut bob, &mut Login::new("eve").connect(server.address())] {
        let refused = stranger.call("msg.mentions", &json!({"cid": cid}));
        assert_eq!(refused, Err("not_found".to_owned()));
        let ended = format!("{cid}:9");
        assert_eq!(mentions(stranger, &json!({"next": ended})), [0; 0]);
    }
    for (request, code) in [
        (json!({"next": "x"}), "format"),
        (json!({"next": format!("{cid}:")}), "format"),
        (json!({"limit": -1}), "format"),
        (json!({"cid": "@nobody"}), "not_found"),
    ] {
        assert_eq!(
            carol.call("msg.mentions", &request),
            Err(code.into()),
            "{request}"
        );
    }
    let refused = alice.publish(&to, json!({"t": "x", "mentions": ["bob"]}).to_string());
    assert_eq!(refused.get("error"), Some("format"));

    server.kill();
    server.restart();
    let mut carol = Login::new("carol").connect(server.address());
    assert_eq!(mentions(&mut carol, &json!({"cid": cid})), [4, 2]);
    assert_eq!(unread_mentions(&mut carol, &cid), 2);
}
