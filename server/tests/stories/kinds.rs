//! Kinds of messages: what belongs to them is checked, in every form; polls, and votes by reactions.

use broker::codec::packet::Version;
use proto::schema::{ClientMessage, Message as _};
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

/// Sends a message in JSON or in protobuf; the name of the refusal, if it was refused.
fn sent(client: &mut Client, to: &str, message: &Value, in_protobuf: bool) -> Option<String> {
    if in_protobuf {
        let message: ClientMessage = serde_json::from_value(message.clone()).unwrap();
        client.publish(to, [&[0xC1][..], &message.encode_to_vec()].concat());
    } else {
        client.publish(to, message.to_string());
    }
    let notice = client.arrived()?;
    let notice: Value = serde_json::from_slice(&notice.payload).unwrap();
    Some(notice["error"].as_str().unwrap().to_owned())
}

#[test]
fn known_kinds_are_checked_and_others_pass_unchanged() {
    let poll = json!({"options": ["yes", "no"]});
    let file = json!([{"id": "f1", "mime": "application/pdf", "name": "a.pdf", "size": 7, "sha256": "0a".repeat(32),
        "thumbnail": "t1"}]);
    for version in VERSIONS {
        let server = Server::dev();
        let connect = |name| Login::new(name).version(version).connect(server.address());
        let (mut alice, _bob) = (connect("alice"), connect("bob"));
        alice.subscribe("chat/me/err/+");
        for in_protobuf in [false, true] {
            let mut good = vec![
                json!({"t": "x", "kind": "file", "media": file}),
                json!({"t": "x", "kind": "location", "location": {"lat": 52.5, "lon": 13.25}}),
                json!({"t": "x", "kind": "contact", "contact": {"name": "Carol"}}),
                json!({"t": "?", "kind": "poll", "poll": poll}),
                json!({"t": "x", "kind": "x-game", "poll": poll}),
            ];
            if !in_protobuf {
                good.push(json!({"t": "x", "kind": "x-game", "board": {"e4": "pawn"}}));
            }
            for message in good {
                let refused = sent(&mut alice, "chat/to/@bob", &message, in_protobuf);
                assert_eq!(refused, None, "{message}");
                let history = alice.history("@bob");
                assert_eq!(history.last().unwrap()["m"], message);
            }
            for bad in [
                json!({"t": "x", "kind": "file"}),
                json!({"t": "x", "kind": "image", "media": file}),
                json!({"t": "x", "kind": "video", "media": [{"mime": "video/mp4"}]}),
                json!({"t": "x", "kind": "location"}),
                json!({"t": "x", "kind": "contact", "contact": {"uid": "x"}}),
                json!({"t": "x", "kind": "poll", "poll": {"options": ["one"]}}),
                json!({"t": "x", "kind": "two words"}),
                json!({"t": "x", "media": [{"id": "f1", "name": "../../etc"}]}),
            ] {
                let refused = sent(&mut alice, "chat/to/@bob", &bad, in_protobuf);
                assert_eq!(refused.as_deref(), Some("format"), "{bad}");
            }
        }
        let head = alice.history("@bob").len() as u64;
        let edit = format!("chat/c/{}/m/1/edit", direct(&mut alice));
        let bad = json!({"t": "x", "kind": "poll"});
        assert_eq!(
            sent(&mut alice, &edit, &bad, true).as_deref(),
            Some("format")
        );

        // References go with the body.
        let delete = json!({"cid": "@bob", "seq": 1, "for": "all"});
        alice.call("msg.delete", &delete).unwrap();
        let history = alice.history("@bob");
        assert_eq!(history.len() as u64, head + 1);
        assert_eq!(history[0]["reason"], "deleted");
        assert_eq!(history[0]["m"], Value::Null);
    }
}

fn direct(client: &mut Client) -> String {
    let seen = client.call("conv.get", &json!({"cid": "@bob"})).unwrap();
    seen["cid"].as_str().unwrap().to_owned()
}

/// The reactions to an entry: emoji and how many.
fn votes(client: &mut Client, cid: &str, seq: u64) -> Vec<(String, u64)> {
    let history = client.history(cid);
    let entry = history.iter().find(|entry| entry["seq"] == seq).unwrap();
    let reactions = entry["reactions"].as_array().cloned().unwrap_or_default();
    let vote = |reaction: &Value| {
        let emoji = reaction["emoji"].as_str().unwrap().to_owned();
        (emoji, reaction["count"].as_u64().unwrap())
    };
    reactions.iter().map(vote).collect()
}

fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    let owned = |(emoji, count): &(&str, u64)| ((*emoji).to_owned(), *count);
    pairs.iter().map(owned).collect()
}

#[test]
fn a_vote_takes_the_place_of_the_one_before_unless_several_are_asked_for() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let connect = |server: &Server, name| {
            let login = Login::new(name).version(version);
            let mut client = login.connect(server.address());
            client.subscribe("chat/me/err/+");
            client
        };
        let (mut alice, mut bob) = (connect(&server, "alice"), connect(&server, "bob"));
        let request = json!({"members": ["@bob"]});
        let group = alice.call("conv.create", &request).unwrap();
        let cid = group["cid"].as_str().unwrap();
        let to = format!("chat/to/{cid}");
        let poll = |terms: Value| json!({"t": "?", "kind": "poll", "poll": terms});
        let options = json!(["a", "b", "c"]);
        let one = poll(json!({"options": options})); // 2
        let several = poll(json!({"options": options, "multiple": true})); // 3
        let closed = poll(json!({"options": options, "closes": 1})); // 4
        for (index, message) in [one, several, closed].iter().enumerate() {
            assert_eq!(sent(&mut alice, &to, message, index % 2 == 1), None);
        }
        alice.publish(&to, "no poll"); // 5
        let react = |client: &mut Client, seq: u64, emoji: &str| {
            client.publish(&format!("chat/c/{cid}/m/{seq}/react"), emoji);
            let notice = client.arrived()?;
            let notice: Value = serde_json::from_slice(&notice.payload).unwrap();
            Some(notice["error"].as_str().unwrap().to_owned())
        };
        for emoji in ["#1", "👍", "#2", "#2"] {
            assert_eq!(react(&mut bob, 2, emoji), None);
        }
        assert_eq!(react(&mut alice, 2, "#2"), None);
        assert_eq!(votes(&mut alice, cid, 2), pairs(&[("👍", 1), ("#2", 2)]));
        assert_eq!(react(&mut alice, 2, "-#2"), None);
        for emoji in ["#1", "#3"] {
            assert_eq!(react(&mut bob, 3, emoji), None);
        }
        assert_eq!(votes(&mut alice, cid, 3), pairs(&[("#1", 1), ("#3", 1)]));
        for (seq, emoji, error) in [
            (2, "#4", "format"),
            (2, "#0", "format"),
            (2, "#01", "format"),
            (3, "#x", "format"),
            (4, "#1", "edit_closed"),
            (4, "-#1", "edit_closed"),
            (4, "", "edit_closed"),
        ] {
            assert_eq!(
                react(&mut bob, seq, emoji).as_deref(),
                Some(error),
                "{emoji}"
            );
        }
        assert_eq!(react(&mut bob, 4, "👍"), None, "it is no vote");
        assert_eq!(react(&mut bob, 5, "#9"), None, "no poll: a text as any");

        server.kill();
        server.restart();
        let mut bob = connect(&server, "bob");
        assert_eq!(votes(&mut bob, cid, 2), pairs(&[("👍", 1), ("#2", 1)]));
        let who = bob
            .call("msg.reactions", &json!({"cid": cid, "seq": 3}))
            .unwrap();
        assert_eq!(who["reactions"][0]["emoji"], json!(["#1", "#3"]));
        let changes = bob.history(cid);
        let ops = changes.iter().filter(|entry| entry["kind"] == "reaction");
        let ops: Vec<_> = ops.map(|entry| entry["data"]["op"].clone()).collect();
        assert_eq!(ops[..3], ["choose", "add", "choose"]);
    }
}

#[test]
fn a_time_to_live_holds_in_every_form() {
    let server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    let mut old = Login::new("bob")
        .version(Version::V311)
        .connect(server.address());
    for filter in ["chat/me/in/+", "chat/me/txt/+", "chat/me/pb/+"] {
        old.subscribe(filter);
    }
    let group = json!({"members": ["@bob"], "ttl_s": 1});
    let group = alice.call("conv.create", &group).unwrap();
    let cid = group["cid"].as_str().unwrap();
    let to = format!("chat/to/{cid}");
    let long = json!({"t": "in JSON", "ttl_s": 3_600});
    alice.publish(&to, "as text");
    assert_eq!(sent(&mut alice, &to, &long, false), None);
    assert_eq!(sent(&mut alice, &to, &long, true), None);
    for form in ["in", "txt", "pb"] {
        for _ in 0..3 {
            old.next_on(&format!("chat/me/{form}/{cid}"));
        }
    }
    let history = super::harness::eventually("all to expire", || {
        let history = alice.history(cid);
        let left = history.iter().filter(|entry| entry["kind"] == "message");
        (left.count() == 0).then_some(history)
    });
    let gap = &history.last().unwrap()["gap"];
    assert_eq!(gap["reason"], "expired", "the shortest counts: {history:?}");
    let mut late = Login::new("bob")
        .version(Version::V311)
        .connect(server.address());
    late.subscribe(&format!("chat/c/{cid}/log/from/2"));
    for _ in 0..3 {
        let gone = late.next_json();
        assert_eq!(
            (&gone["kind"], &gone["reason"]),
            (&json!("gone"), &json!("expired"))
        );
    }
    late.subscribe("chat/me/txt/+");
    late.settle();
    assert!(late.arrived().is_none(), "no line for what is gone");
}
