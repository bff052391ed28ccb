//! Groups: one order for everybody.

use std::thread;

use broker::codec::properties::PublishProperties;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

const MEMBERS: usize = 100;
const SENDERS: usize = 10;
const EACH: usize = 30;

/// Sends its share if it is a sender, and returns every entry in the order of arrival.
fn take_part(mut client: Client, index: usize, cid: &str) -> Vec<(u64, String)> {
    if index < SENDERS {
        for number in 0..EACH {
            let text = format!("{number} of {index}");
            client.send_publish(
                &format!("chat/to/{cid}"),
                text,
                PublishProperties::default(),
            );
        }
    }
    let mut entries = Vec::new();
    while entries.len() < 1 + SENDERS * EACH {
        let entry = client.next_json();
        assert_eq!(entry["cid"], cid);
        let text = entry["t"].as_str().unwrap_or_default().to_owned();
        entries.push((entry["seq"].as_u64().unwrap(), text));
    }
    if index < SENDERS {
        for _ in 0..EACH {
            client.next_answer().unwrap();
        }
    }
    entries
}

#[test]
fn a_hundred_members_see_one_order_while_ten_write_at_once() {
    let server = Server::dev();
    let mut clients: Vec<_> = (0..MEMBERS)
        .map(|index| {
            let login = Login::new(&format!("m{index}")).version(VERSIONS[index % 2]);
            let login = if index % 3 == 0 {
                login.device("phone")
            } else {
                login
            };
            let mut client = login.connect(server.address());
            client.subscribe("chat/me/in/+");
            client
        })
        .collect();
    let members: Vec<_> = (1..MEMBERS).map(|index| format!("@m{index}")).collect();
    let request = json!({"kind": "group", "title": "hundred", "members": members});
    let group = clients[0].call("conv.create", &request).unwrap();
    let cid = group["cid"].as_str().unwrap();

    let logs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(index, client)| scope.spawn(move || take_part(client, index, cid)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });

    let seqs: Vec<_> = logs[0].iter().map(|(seq, _)| *seq).collect();
    let dense: Vec<_> = (1..=1 + (SENDERS * EACH) as u64).collect();
    assert_eq!(seqs, dense);
    for (index, log) in logs.iter().enumerate() {
        assert_eq!(log, &logs[0], "member {index}");
    }
    for sender in 0..SENDERS {
        let own: Vec<_> = logs[0]
            .iter()
            .filter(|(_, text)| text.ends_with(&format!(" of {sender}")))
            .map(|(_, text)| text.clone())
            .collect();
        let sent: Vec<_> = (0..EACH)
            .map(|number| format!("{number} of {sender}"))
            .collect();
        assert_eq!(own, sent, "in the order of publishing");
    }
}

#[test]
fn a_removed_member_gets_the_removal_last() {
    for version in VERSIONS {
        let server = Server::dev();
        let login = |user| Login::new(user).version(version);
        let mut bob = login("bob").device("phone").connect(server.address());
        bob.subscribe("chat/me/in/+");
        let mut carol = login("carol").connect(server.address());
        carol.subscribe("chat/me/in/+");
        let mut alice = login("alice").connect(server.address());
        let group = alice
            .call(
                "conv.create",
                &json!({"title": "three", "members": ["@bob", "@carol"]}),
            )
            .unwrap();
        let cid = group["cid"].as_str().unwrap();
        let to = format!("chat/to/{cid}");
        alice.publish(&to, "before");
        alice
            .call("conv.remove", &json!({"cid": cid, "member": "@bob"}))
            .unwrap();
        alice.publish(&to, "behind his back");
        alice.publish("chat/to/@bob", "you are out");

        let kinds = |client: &mut Client, count: usize| -> Vec<String> {
            (0..count)
                .map(|_| client.next_json()["kind"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(kinds(&mut bob, 3), ["created", "message", "removed"]);
        assert_eq!(
            bob.next_json()["t"],
            "you are out",
            "nothing else came before"
        );
        assert_eq!(
            kinds(&mut carol, 4),
            ["created", "message", "removed", "message"]
        );

        let page = bob.call("msg.history", &json!({"cid": cid})).unwrap();
        assert_eq!(page["head"], 3, "a former member sees the past, as it was");
        assert_eq!(page["entries"].as_array().unwrap().len(), 3);
        let now = bob.call("conv.get", &json!({"cid": cid}));
        assert_eq!(
            now.err().as_deref(),
            Some("not_found"),
            "the present is not his"
        );
        alice
            .call("conv.add", &json!({"cid": cid, "members": ["@bob"]}))
            .unwrap();
        alice.publish(&to, "welcome back");
        let added = bob.next_json();
        assert_eq!(added["kind"], "added");
        assert_eq!(added["seq"], 5);
        assert_eq!(bob.next_json()["t"], "welcome back");
        let seen: Vec<Value> = bob
            .history(cid)
            .iter()
            .map(|entry| entry["seq"].clone())
            .collect();
        assert_eq!(
            seen,
            [1, 2, 3, 5, 6],
            "never what was said while he was out"
        );
    }
}
