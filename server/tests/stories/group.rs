//! Groups: one order for everybody.

use std::sync::Barrier;
use std::thread;

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

const MEMBERS: usize = 100;
const SENDERS: usize = 10;
const EACH: usize = 30;

/// Sends its share if it is a sender, and returns every entry in the order of arrival, and the places of the acks (which
/// 3.1.1 does not tell).
fn take_part(
    mut client: Client,
    index: usize,
    cid: &str,
    together: &Barrier,
) -> (Vec<Value>, Vec<u64>) {
    together.wait();
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
    let entries = (0..=SENDERS * EACH).map(|_| client.next_json()).collect();
    let mut places = Vec::new();
    if index < SENDERS {
        for _ in 0..EACH {
            let answer = client.next_answer().unwrap();
            places.extend(answer.get("seq").map(|seq| seq.parse::<u64>().unwrap()));
        }
    }
    // Everybody has everything now: what came twice, or too much, would be here.
    together.wait();
    assert_eq!(client.arrivals(), [], "member {index}");
    (entries, places)
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

    let together = Barrier::new(MEMBERS);
    let seen: Vec<_> = thread::scope(|scope| {
        let together = &together;
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(index, client)| scope.spawn(move || take_part(client, index, cid, together)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });

    let (log, _) = &seen[0];
    for (seq, entry) in (1_u64..).zip(log) {
        assert_eq!((&entry["cid"], &entry["seq"]), (&json!(cid), &json!(seq)));
    }
    for (index, (other, _)) in seen.iter().enumerate() {
        assert_eq!(other, log, "member {index}");
    }
    for (sender, (_, places)) in seen.iter().enumerate().take(SENDERS) {
        let handle = format!("m{sender}");
        let own: Vec<_> = log[1..]
            .iter()
            .filter(|entry| entry["from"]["handle"] == *handle)
            .collect();
        let texts: Vec<_> = own.iter().map(|entry| entry["t"].clone()).collect();
        let sent: Vec<_> = (0..EACH)
            .map(|number| format!("{number} of {sender}"))
            .collect();
        assert_eq!(texts, sent, "in the order of publishing");
        let seqs: Vec<_> = own
            .iter()
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect();
        let is_v5 = VERSIONS[sender % 2] == Version::V5;
        assert_eq!(*places, if is_v5 { seqs } else { vec![] }, "as acked");
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

#[test]
fn who_comes_back_to_a_group_that_shows_all_gets_nothing_that_was_said_meanwhile() {
    for (version, history) in VERSIONS
        .into_iter()
        .flat_map(|version| [json!("all"), json!({"last": 3})].map(|history| (version, history)))
    {
        let server = Server::dev();
        let connect = |name| {
            let mut client = Login::new(name).version(version).connect(server.address());
            client.subscribe("chat/me/in/+");
            client
        };
        let mut bob = connect("bob");
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        let request = json!({"title": "open", "members": ["@bob"], "history": history});
        let group = alice.call("conv.create", &request).unwrap();
        let cid = group["cid"].as_str().unwrap();
        let to = format!("chat/to/{cid}");
        alice.publish(&to, "2");
        let member = json!({"cid": cid, "member": "@bob"});
        alice.call("conv.remove", &member).unwrap();
        for text in ["4", "5", "6"] {
            alice.publish(&to, text);
        }
        let status = |client: &mut Client, seq: u64| {
            let message = json!({"cid": cid, "seq": seq});
            let status = client.call("msg.status", &message).unwrap();
            ["delivered", "read", "of"].map(|what| status[what].as_u64().unwrap())
        };
        assert_eq!(status(&mut alice, 5), [0, 0, 0]);
        let members = json!({"cid": cid, "members": ["@bob"]});
        alice.call("conv.add", &members).unwrap();
        alice.publish(&to, "8");

        let mut got = Vec::new();
        while got.last() != Some(&8) {
            got.push(bob.next_json()["seq"].as_u64().unwrap());
        }
        assert_eq!(got, [1, 2, 3, 7, 8]);
        let found = bob.call("conv.get", &json!({"cid": cid})).unwrap();
        assert_eq!(found["unread"], 2, "2 and 8");
        let history = bob.history(cid);
        assert_eq!(history.len(), 8, "what may be seen can be read");
        bob.publish(&format!("chat/c/{cid}/read"), "8");
        assert_eq!(status(&mut alice, 5), [0, 0, 0], "he was not there");
        assert_eq!(status(&mut alice, 2), [1, 1, 1]);
        bob.subscribe(&format!("chat/c/{cid}/log/from/4"));
        for seq in 4..=8 {
            assert_eq!(bob.next_json()["seq"], seq);
        }
    }
}

#[test]
fn who_comes_back_to_a_group_gets_what_came_before_the_leaving() {
    for version in VERSIONS {
        let server = Server::dev();
        let bob = Login::new("bob").version(version);
        let phone = bob.clone().device("phone");
        let mut client = phone.connect(server.address());
        client.subscribe("chat/me/in/+");
        client.disconnect();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        alice.subscribe("chat/me/rcpt/+");
        let request = json!({"title": "two", "members": ["@bob"]});
        let group = alice.call("conv.create", &request).unwrap();
        let cid = group["cid"].as_str().unwrap();
        let to = format!("chat/to/{cid}");
        for text in ["2", "3", "4"] {
            alice.publish(&to, text);
        }
        let member = json!({"cid": cid, "member": "@bob"});
        alice.call("conv.remove", &member).unwrap();
        alice.publish(&to, "behind his back");
        let members = json!({"cid": cid, "members": ["@bob"]});
        alice.call("conv.add", &members).unwrap();
        alice.publish(&to, "8");

        let status = |client: &mut Client, seq: u64| {
            let message = json!({"cid": cid, "seq": seq});
            let status = client.call("msg.status", &message).unwrap();
            ["delivered", "read", "of"].map(|what| status[what].as_u64().unwrap())
        };
        assert_eq!(status(&mut alice, 3), [0, 0, 1]);
        assert_eq!(status(&mut alice, 6), [0, 0, 0], "he was not there");

        let mut guest = bob.connect(server.address());
        guest.subscribe("chat/me/in/+");
        let seqs = |client: &mut Client| -> Vec<u64> {
            (0..7)
                .map(|_| client.next_json()["seq"].as_u64().unwrap())
                .collect()
        };
        assert_eq!(seqs(&mut guest), [1, 2, 3, 4, 5, 7, 8]);
        let unread = |client: &mut Client| {
            let found = client.call("conv.get", &json!({"cid": cid})).unwrap();
            found["unread"].as_u64().unwrap()
        };
        assert_eq!(unread(&mut guest), 4, "2, 3, 4 and 8");
        guest.publish(&format!("chat/c/{cid}/read"), "3");
        assert_eq!(unread(&mut guest), 2);

        let mut client = phone.connect(server.address());
        assert_eq!(seqs(&mut client), [1, 2, 3, 4, 5, 7, 8], "a device, too");
        client.settle();
        client.publish(&format!("chat/c/{cid}/read"), "5");
        loop {
            let receipt = alice.next_on(&format!("chat/me/rcpt/{cid}"));
            let receipt: Value = serde_json::from_slice(&receipt.payload).unwrap();
            if receipt["delivered_all"] == 8 && receipt["read_all"] == 6 {
                break; // 6 was not for him
            }
        }
    }
}
