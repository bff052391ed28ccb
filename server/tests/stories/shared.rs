//! Shared subscriptions to a log: each entry goes to one of the sessions that hold one, and none is lost.

use std::collections::BTreeSet;

use broker::codec::packet::{Publish, Qos, Version};
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS, eventually};

fn connect(server: &Server, name: &str, version: Version) -> Client {
    let login = Login::new(name).version(version);
    login.connect(server.address())
}

/// A group of alice with a bot and mallory; its head is 1.
fn group(alice: &mut Client) -> String {
    let group = json!({"title": "Jobs", "members": ["@bot", "@mallory"], "history": "all"});
    let group = alice.call("conv.create", &group).unwrap();
    group["cid"].as_str().unwrap().to_owned()
}

fn say(client: &mut Client, cid: &str, texts: impl IntoIterator<Item = u32>) {
    for text in texts {
        client.publish(&format!("chat/to/{cid}"), text.to_string());
    }
}

fn seq(message: &Publish) -> u64 {
    let entry: Value = serde_json::from_slice(&message.payload).unwrap();
    entry["seq"].as_u64().unwrap()
}

/// What comes to each of them until all these places have come.
fn until_all(clients: &mut [&mut Client], wanted: std::ops::RangeInclusive<u64>) -> Vec<Vec<u64>> {
    let mut came = vec![Vec::new(); clients.len()];
    let wanted: BTreeSet<u64> = wanted.collect();
    eventually("all entries", || {
        for (client, came) in clients.iter_mut().zip(&mut came) {
            came.extend(client.arrivals().iter().map(seq));
        }
        let all: BTreeSet<u64> = came.iter().flatten().copied().collect();
        wanted.is_subset(&all).then_some(())
    });
    came
}

#[test]
fn each_entry_goes_to_one_of_those_who_share_a_log() {
    for version in VERSIONS {
        let server = Server::dev();
        for name in ["bot", "mallory"] {
            connect(&server, name, version).disconnect();
        }
        let mut alice = connect(&server, "alice", version);
        let cid = group(&mut alice);
        say(&mut alice, &cid, 2..=40);
        let filter = format!("$share/workers/chat/c/{cid}/log/from/1");
        let [mut one, mut other] = [(); 2].map(|()| connect(&server, "bot", version));
        one.subscribe(&filter);
        other.subscribe(&filter);
        say(&mut alice, &cid, 41..=120);
        let came = until_all(&mut [&mut one, &mut other], 1..=120);
        assert_eq!(came[0].len() + came[1].len(), 120, "each once: {came:?}");
        assert!(came.iter().all(|of| of.len() > 10), "both work: {came:?}");

        // With its own topic, and the rights of its user: another one shares nothing with him.
        say(&mut alice, &cid, [121]);
        let last = eventually("the last one", || {
            let mut arrived = one.arrivals();
            arrived.extend(other.arrivals());
            arrived.pop()
        });
        assert_eq!(&*last.topic, format!("chat/c/{cid}/log/from/1"));
        let mut mallory = connect(&server, "mallory", version);
        mallory.subscribe(&filter);
        let came = until_all(&mut [&mut mallory], 1..=121);
        assert_eq!(
            came[0].len(),
            121,
            "a shared subscription is that of one user"
        );

        // Nobody else may, and nothing else is shared.
        let mut stranger = connect(&server, "stranger", version);
        let refused = stranger.try_subscribe(&filter, Qos::AtLeastOnce);
        assert!(refused.is_error());
        for other in [
            "chat/me/in/+",
            "chat/me/txt/+",
            "chat/me/dev",
            "chat/me/rcpt/+",
        ] {
            let filter = format!("$share/workers/{other}");
            let refused = one.try_subscribe(&filter, Qos::AtLeastOnce);
            if version == Version::V5 {
                assert_eq!(refused, ReasonCode::SharedSubscriptionsNotSupported);
            }
            assert!(refused.is_error(), "{filter}");
        }
    }
}

#[test]
fn what_who_leaves_has_not_acknowledged_goes_to_another_one() {
    for version in VERSIONS {
        let server = Server::dev();
        for name in ["bot", "mallory"] {
            connect(&server, name, version).disconnect();
        }
        let mut alice = connect(&server, "alice", version);
        let cid = group(&mut alice);
        let filter = format!("$share/workers/chat/c/{cid}/log");
        // One is a device whose session is kept: its entries do not wait for it.
        let phone = Login::new("bot").version(version).device("phone");
        let mut lazy = phone.connect(server.address());
        lazy.acks_by_itself = false;
        lazy.subscribe(&filter);
        say(&mut alice, &cid, 2..=9);
        let came = until_all(&mut [&mut lazy], 2..=9);
        assert_eq!(came[0].len(), 8);
        let mut busy = connect(&server, "bot", version);
        busy.subscribe(&filter);
        drop(lazy);
        let came = until_all(&mut [&mut busy], 2..=9);
        assert_eq!(came[0], [2, 3, 4, 5, 6, 7, 8, 9], "first of all, in order");
        let mut lazy = phone.connect(server.address());
        assert!(lazy.session_present);
        say(&mut alice, &cid, 10..=40);
        let came = until_all(&mut [&mut lazy, &mut busy], 10..=40);
        assert_eq!(came[0].len() + came[1].len(), 31, "it is one of them again");

        // The one that unsubscribes leaves as well.
        let mut idle = connect(&server, "bot", version);
        idle.acks_by_itself = false;
        for client in [&mut lazy, &mut busy] {
            client.unsubscribe(&filter);
        }
        idle.subscribe(&filter);
        say(&mut alice, &cid, 41..=44);
        assert_eq!(until_all(&mut [&mut idle], 41..=44)[0].len(), 4);
        busy.subscribe(&filter);
        idle.unsubscribe(&filter);
        assert_eq!(until_all(&mut [&mut busy], 41..=44)[0], [41, 42, 43, 44]);
    }
}

#[test]
fn who_does_not_acknowledge_gets_no_more_than_its_receive_maximum() {
    let server = Server::dev();
    for name in ["bot", "mallory"] {
        connect(&server, name, Version::V5).disconnect();
    }
    let mut alice = connect(&server, "alice", Version::V5);
    let cid = group(&mut alice);
    let filter = format!("$share/workers/chat/c/{cid}/log");
    let mut stuck = Login::new("bot")
        .receive_maximum(3)
        .connect(server.address());
    stuck.acks_by_itself = false;
    stuck.subscribe(&filter);
    let mut busy = connect(&server, "bot", Version::V5);
    busy.subscribe(&filter);
    say(&mut alice, &cid, 2..=200);
    let came = until_all(&mut [&mut stuck, &mut busy], 2..=200);
    assert_eq!(came[0].len() + came[1].len(), 199);
    assert!(came[0].len() <= 3, "{:?}", came[0]);
    drop(stuck);
    let open: BTreeSet<u64> = came[0].iter().copied().collect();
    if let (Some(first), Some(last)) = (open.first(), open.last()) {
        let again = eventually("what was open", || {
            let arrived = busy.arrivals();
            (!arrived.is_empty()).then_some(arrived)
        });
        assert!(
            again
                .iter()
                .map(seq)
                .all(|seq| (*first..=*last).contains(&seq))
        );
    }
}

#[test]
fn a_shared_subscription_goes_on_where_it_was_after_a_kill() {
    let mut server = Server::dev();
    for name in ["bot", "mallory"] {
        connect(&server, name, Version::V5).disconnect();
    }
    let mut alice = connect(&server, "alice", Version::V5);
    let cid = group(&mut alice);
    let filter = format!("$share/workers/chat/c/{cid}/log");
    let mut bot = connect(&server, "bot", Version::V5);
    bot.subscribe(&filter);
    say(&mut alice, &cid, 2..=20);
    until_all(&mut [&mut bot], 2..=20);
    bot.settle();
    bot.disconnect();
    say(&mut alice, &cid, 21..=30);

    server.terminate();
    server.wait_for_exit();
    server.restart();
    let mut bot = connect(&server, "bot", Version::V5);
    bot.acks_by_itself = false;
    bot.subscribe(&filter);
    let came = until_all(&mut [&mut bot], 21..=30);
    assert_eq!(came[0], (21..=30).collect::<Vec<_>>(), "nothing again");

    // Not acknowledged: it all comes again, to whoever is there.
    server.restart();
    let mut alice = connect(&server, "alice", Version::V5);
    say(&mut alice, &cid, 31..=33);
    let [mut one, mut other] = [(); 2].map(|()| connect(&server, "bot", Version::V5));
    one.subscribe(&filter);
    other.subscribe(&filter);
    let came = until_all(&mut [&mut one, &mut other], 21..=33);
    assert!(came.iter().flatten().all(|seq| *seq >= 21), "{came:?}");

    // Nobody holds it any more: the same name begins anew.
    one.unsubscribe(&filter);
    other.unsubscribe(&filter);
    say(&mut alice, &cid, 34..=36);
    one.subscribe(&filter);
    say(&mut alice, &cid, 37..=38);
    assert_eq!(until_all(&mut [&mut one], 37..=38)[0], [37, 38]);
}

#[test]
fn who_cannot_take_anything_now_leaves_it_to_the_others() {
    let server = Server::dev();
    connect(&server, "mallory", Version::V5).disconnect();
    let [mut idle, mut stalled] = [65_535, 1].map(|window| {
        let login = Login::new("bot").version(Version::V5);
        login.receive_maximum(window).connect(server.address())
    });
    let mut alice = connect(&server, "alice", Version::V5);
    let cid = group(&mut alice);
    let filter = format!("$share/workers/chat/c/{cid}/log");
    idle.subscribe(&filter);
    // It had room when it came: nobody knows that it has none now, as its inbox stands in front, with a window that is full.
    stalled.acks_by_itself = false;
    stalled.subscribe(&filter);
    stalled.subscribe("chat/me/in/+");
    alice.publish("chat/to/@bot", "hello");
    stalled.next_message();
    stalled.ping();
    say(&mut alice, &cid, [2]);
    until_all(&mut [&mut idle], 2..=2);
}

#[test]
fn a_shared_log_shows_what_its_user_may_see() {
    let server = Server::dev();
    for name in ["bot", "mallory"] {
        connect(&server, name, Version::V5).disconnect();
    }
    let mut alice = connect(&server, "alice", Version::V5);
    let cid = group(&mut alice);
    let filter = format!("$share/workers/chat/c/{cid}/log/from/1");
    let mut bot = connect(&server, "bot", Version::V5);
    bot.subscribe(&filter);
    say(&mut alice, &cid, [2, 3]);
    alice.publish(&format!("chat/c/{cid}/m/3/del"), "all");
    until_all(&mut [&mut bot], 1..=4);
    let member = json!({"cid": cid, "member": "@bot"});
    alice.call("conv.remove", &member).unwrap();
    say(&mut alice, &cid, [6, 7]);
    let back = json!({"cid": cid, "members": ["@bot"], "history": "joined"});
    alice.call("conv.add", &back).unwrap();
    say(&mut alice, &cid, [9]);
    // The removal is the last thing, and what was said behind his back never comes.
    let came = until_all(&mut [&mut bot], 8..=9);
    assert_eq!(came[0], [5, 8, 9]);
    bot.disconnect();
    let mut bot = connect(&server, "bot", Version::V5);
    let anew = format!("$share/others/chat/c/{cid}/log/from/1");
    bot.subscribe(&anew);
    let mut seen = Vec::new();
    while seen.len() < 7 {
        seen.push(bot.next_json());
    }
    let places: Vec<_> = seen.iter().map(|entry| &entry["seq"]).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 8, 9]);
    assert_eq!(seen[2]["kind"], "gone");
    assert!(!seen.iter().any(|entry| entry["t"] == "3"), "{seen:?}");
}
