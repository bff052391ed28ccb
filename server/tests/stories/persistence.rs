//! Ordinary MQTT outlives the process: sessions with their queues and exchanges, retained messages, wills.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos, Unsubscribe, Version};
use broker::codec::properties::{PublishProperties, SubscribeProperties};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use bytes::Bytes;

use super::harness::{Client, Launch, Login, Lost, Preload, Random, Server, Stopwatch, eventually};

/// Sessions, and messages for each of them, in the large story.
const SESSIONS: usize = 1_000;
const MESSAGES: usize = 100;

fn device(name: &str) -> Login {
    Login::new("fleet").device(name)
}

fn publish(topic: &str, qos: Qos, packet_id: u16, payload: &str) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: PacketId::new(packet_id),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: PublishProperties::default().into(),
    })
}

fn text(publish: &Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).unwrap()
}

/// Odd ones at QoS 1, even ones at QoS 2; all at once, then all answers.
fn publish_all(sender: &mut Client, topic: &str, count: usize) {
    for number in 1..=count {
        let id = u16::try_from(number).unwrap();
        let qos = if number % 2 == 1 {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        };
        sender.send(&publish(topic, qos, id, &number.to_string()));
    }
    let mut open = count;
    while open > 0 {
        match sender.read().unwrap() {
            Packet::PubAck(_) | Packet::PubComp(_) => open -= 1,
            Packet::PubRec(ack) => sender.send(&Packet::PubRel(Ack::success(ack.packet_id))),
            other => panic!("{other:?}"),
        }
    }
}

/// For each session, several at a time: so commits have company.
fn each_session(act: impl Fn(usize) + Sync) {
    const AT_ONCE: usize = 8;
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let act = &act;
            scope.spawn(move || (first..SESSIONS).step_by(AT_ONCE).for_each(act));
        }
    });
}

#[test]
fn a_thousand_sessions_get_their_hundred_messages_after_sigkill() {
    let mut server = Server::dev();
    Login::new("fleet").connect(server.address());
    each_session(|number| {
        let mut client = device(&number.to_string()).connect(server.address());
        assert!(!client.session_present);
        let granted = client.try_subscribe("fleet/#", Qos::ExactlyOnce);
        assert_eq!(granted, ReasonCode::GrantedQos2);
        // No goodbye: the connection breaks.
    });
    let mut sender = device("sender").connect(server.address());
    sender.publish_retained("state", "on");
    publish_all(&mut sender, "fleet/all", MESSAGES);
    server.kill();
    server.restart();
    let expected: Vec<String> = (1..=MESSAGES).map(|number| number.to_string()).collect();
    each_session(|number| {
        let mut client = device(&number.to_string()).connect(server.address());
        assert!(client.session_present, "session {number}");
        let got: Vec<String> = (0..MESSAGES)
            .map(|_| text(&client.next_message()))
            .collect();
        assert_eq!(got, expected, "session {number}");
        assert_eq!(client.arrivals(), []);
    });
    let mut reader = Login::new("fleet").connect(server.address());
    reader.subscribe("state");
    assert_eq!(text(&reader.next_message()), "on");
}

#[test]
fn retained_messages_and_subscriptions_outlive_the_server() {
    for engine in ["fjall", "sled"] {
        let mut server = Server::in_new_directory(|launch| {
            launch.dev().variable("MQCHAT_STORE__ENGINE", engine)
        });
        let mut client = device("phone").connect(server.address());
        client.try_subscribe("news/+", Qos::AtLeastOnce);
        client.try_subscribe("gone", Qos::AtLeastOnce);
        client.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::new(99).unwrap(),
            properties: SubscribeProperties::default(),
            filters: vec![TopicFilter::parse("gone".into()).unwrap()],
        }));
        while !matches!(client.read().unwrap(), Packet::UnsubAck(_)) {}
        let mut sender = Login::new("fleet").connect(server.address());
        for (topic, payload) in [
            ("news/a", "old"),
            ("news/a", "new"),
            ("news/b", "x"),
            ("news/b", ""),
        ] {
            sender.publish_retained(topic, payload);
        }
        // With SIGKILL, then with SIGTERM: it is the same.
        server.kill();
        server.restart();
        server.terminate();
        server.wait_for_exit();
        server.restart();
        let mut reader = Login::new("fleet").connect(server.address());
        reader.subscribe("news/#");
        assert_eq!(text(&reader.next_message()), "new");
        assert_eq!(reader.arrivals(), [], "what was cleared stays away");

        // The subscription goes on, the ended one does not.
        let mut client = device("phone").connect(server.address());
        assert!(client.session_present);
        while text(&client.next_message()) != "new" {}
        reader.publish("gone", "not for me");
        reader.publish("news/c", "still here");
        let mut next = client.next_message();
        while text(&next) != "still here" {
            assert!(["", "x", "old", "new"].contains(&text(&next).as_str()));
            next = client.next_message();
        }
    }
}

#[test]
fn wills_come_after_a_restart() {
    let mut server = Server::dev();
    let delayed = device("delayed").will("will/delayed", "gone for long", 1);
    drop(delayed.connect(server.address()));
    // Of clients that are connected when the server is killed; one without a session.
    let mut waiting = device("waiting").will("will/waiting", "server died", 1);
    let mut first = waiting.connect(server.address());
    let mut clean = Login::new("fleet")
        .will("will/clean", "clean", 0)
        .connect(server.address());
    // A client that came back, and one that said goodbye, have none.
    let back = device("back").will("will/back", "wrong", 1);
    drop(back.connect(server.address()));
    let mut back = device("back").connect(server.address());
    let goodbye = device("goodbye").will("will/goodbye", "wrong", 1);
    goodbye.connect(server.address()).disconnect();
    for client in [&mut first, &mut clean, &mut back] {
        // What has been said so far is at rest when this is.
        client.publish_retained("sync", "x");
    }
    server.kill();
    server.restart();
    let mut reader = Login::new("fleet").connect(server.address());
    reader.subscribe("will/#");
    let mut got: Vec<String> = (0..3).map(|_| text(&reader.next_message())).collect();
    got.sort();
    assert_eq!(got, ["clean", "gone for long", "server died"]);
    // Nobody's will comes twice.
    reader.publish_retained("sync", "y");
    server.kill();
    server.restart();
    waiting = device("waiting");
    assert!(waiting.connect(server.address()).session_present);
    let mut reader = Login::new("fleet").connect(server.address());
    reader.subscribe("will/#");
    let mut again: Vec<String> = (0..3).map(|_| text(&reader.next_message())).collect();
    again.sort();
    assert_eq!(again, got, "retained, once each");
    assert_eq!(reader.arrivals(), []);
}

#[test]
fn deliveries_in_flight_go_on_under_their_identifiers() {
    let mut server = Server::dev();
    let mut client = device("phone").connect(server.address());
    client.acks_by_itself = false;
    client.try_subscribe("t", Qos::ExactlyOnce);
    let mut sender = Login::new("fleet").connect(server.address());
    sender.publish("t", "once or more");
    sender.publish_qos2("t", "exactly once");
    sender.publish_qos2("t", "released");
    sender.publish("t", "acked");
    let sent: Vec<Publish> = (0..4).map(|_| client.next_message()).collect();
    let id = |place: usize| sent[place].packet_id.unwrap();
    client.send(&Packet::PubRec(Ack::success(id(2))));
    while !matches!(client.read().unwrap(), Packet::PubRel(ack) if ack.packet_id == id(2)) {}
    client.ack(&sent[3]);
    client.settle();
    // One more commit, and everything before it is at rest.
    sender.publish_retained("sync", "x");
    server.kill();
    server.restart();

    let mut client = device("phone").connect(server.address());
    client.acks_by_itself = false;
    let mut again = Vec::new();
    for _ in 0..3 {
        again.push(match client.read().unwrap() {
            Packet::Publish(publish) => (text(&publish), publish.packet_id, publish.dup),
            Packet::PubRel(ack) => ("PUBREL".to_owned(), Some(ack.packet_id), true),
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        ("once or more".to_owned(), Some(id(0)), true),
        ("exactly once".to_owned(), Some(id(1)), true),
        ("PUBREL".to_owned(), Some(id(2)), true),
    ];
    assert_eq!(again, expected);
    assert_eq!(client.arrivals(), [], "what was acked stays away");
}

#[test]
fn sessions_and_messages_expire_while_the_server_is_down() {
    let mut server = Server::dev();
    let short = Login::new("fleet").client_id("short").session(1);
    let mut client = short.connect(server.address());
    client.try_subscribe("t", Qos::AtLeastOnce);
    drop(client);
    let mut client = device("long").connect(server.address());
    client.try_subscribe("t", Qos::AtLeastOnce);
    drop(client);
    let mut sender = Login::new("fleet").connect(server.address());
    let brief = PublishProperties {
        message_expiry_interval: Some(1),
        ..PublishProperties::default()
    };
    sender.publish_with("t", "brief", brief);
    sender.publish("t", "lasting");
    server.kill();
    let watch = Stopwatch::start();
    eventually("two seconds to pass", || {
        (watch.elapsed().as_millis() > 2_000).then_some(())
    });
    server.restart();
    assert!(!short.connect(server.address()).session_present);
    let mut client = device("long").connect(server.address());
    assert!(client.session_present);
    assert_eq!(text(&client.next_message()), "lasting");
}

#[test]
fn a_session_that_the_broker_has_no_more_is_over_for_chat_too() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_BROKER__SESSIONS_KEPT_MAX", "1")
    });
    let phone = device("phone").session(1_000);
    let mut client = phone.connect(server.address());
    client.try_subscribe("chat/me/in/+", Qos::AtLeastOnce);
    client.try_subscribe("t", Qos::AtLeastOnce);
    drop(client);
    // Only one session is kept: the one that lasts longer.
    let tablet = device("tablet").session(2_000);
    eventually("the tablet to push out the phone", || {
        drop(tablet.connect(server.address()));
        let client = phone.connect(server.address());
        (!client.session_present).then_some(())
    });
}

#[test]
fn without_persistence_nothing_outlives_the_server() {
    let mut server = Server::in_new_directory(|launch| {
        launch.dev().variable("MQCHAT_BROKER__PERSISTENCE", "off")
    });
    let mut client = device("phone").connect(server.address());
    client.try_subscribe("t", Qos::AtLeastOnce);
    client.publish_retained("t", "x");
    assert!(!server.data_dir().join("sessions").exists());
    server.kill();
    server.restart();
    let mut reader = Login::new("fleet").connect(server.address());
    reader.subscribe("t");
    assert_eq!(reader.arrivals(), []);
}

// -- exactly once, however often the server dies

/// Where the server is at the moment, and how far everybody has come.
struct Stage {
    address: Mutex<SocketAddr>,
    received: AtomicUsize,
    is_over: AtomicBool,
}

impl Stage {
    /// Until the server takes the connection.
    fn connect(&self, login: &Login) -> Client {
        eventually("the server to be back", || {
            let address = *self.address.lock().unwrap();
            login.try_connect(address).ok()
        })
    }
}

/// Publishes at QoS 2 what is left to be said, with some in flight, until all of it is settled.
fn send_all(stage: &Stage, count: usize) {
    let login = device("sender");
    let mut left: VecDeque<usize> = (1..=count).collect();
    // Identifier, number, and whether PUBREC came.
    let mut open: VecDeque<(u16, usize, bool)> = VecDeque::new();
    let mut next_id: u16 = 0;
    while !(left.is_empty() && open.is_empty()) {
        let mut client = stage.connect(&login);
        for (id, number, released) in &open {
            client.send(&if *released {
                Packet::PubRel(Ack::success(PacketId::new(*id).unwrap()))
            } else {
                let Packet::Publish(mut again) =
                    publish("exact", Qos::ExactlyOnce, *id, &number.to_string())
                else {
                    panic!()
                };
                again.dup = true;
                Packet::Publish(again)
            });
        }
        let result: Result<(), Lost> = loop {
            while open.len() < 8
                && let Some(number) = left.pop_front()
            {
                next_id = next_id % 1_000 + 1;
                open.push_back((next_id, number, false));
                let text = number.to_string();
                client.send(&publish("exact", Qos::ExactlyOnce, next_id, &text));
            }
            if open.is_empty() {
                break Ok(());
            }
            match client.read() {
                Ok(Packet::PubRec(ack)) => {
                    let id = ack.packet_id.get();
                    open.iter_mut()
                        .filter(|(known, ..)| *known == id)
                        .for_each(|(.., released)| *released = true);
                    client.send(&Packet::PubRel(Ack::success(ack.packet_id)));
                }
                Ok(Packet::PubComp(ack)) => open.retain(|(id, ..)| *id != ack.packet_id.get()),
                Ok(other) => panic!("{other:?}"),
                Err(lost) => break Err(lost),
            }
        };
        if let Err(Lost::Refused(reason)) = result {
            panic!("{reason:?}");
        }
    }
}

/// Receives at QoS 2, by the book: a PUBLISH under an open identifier is no new message.
fn receive_all(stage: &Stage, count: usize) -> Vec<usize> {
    let login = device("receiver").receive_maximum(5);
    let mut open: HashSet<PacketId> = HashSet::new();
    let mut got = Vec::new();
    loop {
        let mut client = stage.connect(&login);
        client.acks_by_itself = false;
        loop {
            match client.read() {
                Ok(Packet::Publish(publish)) => {
                    let id = publish.packet_id.unwrap();
                    if open.insert(id) {
                        got.push(text(&publish).parse().unwrap());
                        stage.received.fetch_add(1, Ordering::SeqCst);
                    }
                    client.send(&Packet::PubRec(Ack::success(id)));
                }
                Ok(Packet::PubRel(ack)) => {
                    open.remove(&ack.packet_id);
                    client.send(&Packet::PubComp(Ack::success(ack.packet_id)));
                    if got.len() >= count && open.is_empty() {
                        // Whatever is wrong comes before the answer.
                        for more in client.arrivals() {
                            got.push(text(&more).parse().unwrap());
                        }
                        stage.is_over.store(true, Ordering::SeqCst);
                        return got;
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
    }
}

/// Ends the server again and again while messages pass, and starts it anew with `again`.
fn exactly_once(
    mut server: Server,
    count: usize,
    ends: usize,
    mut again: impl FnMut(Server) -> Server,
) {
    let mut receiver = device("receiver").connect(server.address());
    receiver.try_subscribe("exact", Qos::ExactlyOnce);
    drop(receiver);
    let stage = Arc::new(Stage {
        address: Mutex::new(server.address()),
        received: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    });
    let sender = thread::spawn({
        let stage = Arc::clone(&stage);
        move || send_all(&stage, count)
    });
    let receiver = thread::spawn({
        let stage = Arc::clone(&stage);
        move || receive_all(&stage, count)
    });
    let mut random = Random::new(17);
    for end in 1..=ends {
        let share = u64::try_from(count / ends).unwrap();
        let at = (end - 1) * (count / ends) + usize::try_from(random.below(share)).unwrap();
        eventually("messages to pass", || {
            let over = stage.is_over.load(Ordering::SeqCst);
            (over || stage.received.load(Ordering::SeqCst) > at).then_some(())
        });
        server = again(server);
        *stage.address.lock().unwrap() = server.address();
    }
    sender.join().unwrap();
    let got = receiver.join().unwrap();
    let expected: Vec<usize> = (1..=count).collect();
    assert_eq!(got, expected, "each once, in order");
}

#[test]
fn qos2_is_exactly_once_over_ten_kills() {
    exactly_once(Server::dev(), 600, 10, |mut server| {
        server.restart();
        server
    });
}

#[test]
fn qos2_is_exactly_once_over_kills_with_sled() {
    let server =
        Server::in_new_directory(|launch| launch.dev().variable("MQCHAT_STORE__ENGINE", "sled"));
    exactly_once(server, 150, 4, |mut server| {
        server.restart();
        server
    });
}

#[test]
fn qos2_is_exactly_once_over_power_cuts() {
    let mut disk = Preload::new();
    let server = disk.launch().dev().start();
    exactly_once(server, 200, 5, |server| {
        disk.cut(server);
        disk.launch().dev().start()
    });
}

#[test]
fn nothing_is_acknowledged_that_cannot_be_synced() {
    let disk = Preload::new();
    let keep = |launch: Launch| {
        launch
            .dev()
            .variable("MQCHAT_SERVER__EXIT_ON_POISON", "false")
    };
    let server = keep(disk.launch()).start();
    let mut receiver = device("receiver").connect(server.address());
    receiver.try_subscribe("t", Qos::AtLeastOnce);
    let mut sender = Login::new("fleet").connect(server.address());
    assert_eq!(sender.publish("t", "kept").reason, ReasonCode::Success);
    disk.fail_syncs();
    sender.send(&publish("t", Qos::AtLeastOnce, 7, "lost"));
    match sender.read() {
        Err(Lost::Disconnected(ReasonCode::ServerBusy)) => {}
        other => panic!("{other:?}"),
    }
    // Who needs nothing at rest is served.
    let mut other = Login::new("fleet").connect(server.address());
    other.subscribe("elsewhere");
    assert_eq!(other.publish("elsewhere", "x").reason, ReasonCode::Success);
    assert_eq!(text(&other.next_message()), "x");
}

#[test]
fn beyond_the_disk_budget_nothing_more_is_kept_and_who_can_be_told_is() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_BROKER__SESSIONS_DISK_BYTES_MAX", "1")
    });
    let mut away = device("one").connect(server.address());
    away.subscribe("kept/#");
    away.disconnect();
    let mut live = Login::new("live").connect(server.address());
    live.subscribe("live");
    let mut sender = Login::new("sender").connect(server.address());
    let refused = |sender: &mut Client| {
        let reason = sender.publish("kept/a", "a").reason;
        reason == ReasonCode::QuotaExceeded
    };
    // The first commits may come before the first look.
    eventually("the budget is used up", || {
        refused(&mut sender).then_some(())
    });
    let retained = sender.publish_retained("state", "x").reason;
    assert_eq!(retained, ReasonCode::QuotaExceeded);
    let cleared = sender.publish_retained("state", "").reason;
    assert_eq!(cleared, ReasonCode::Success);
    assert_eq!(
        sender.publish("live", "goes on").reason,
        ReasonCode::Success
    );
    assert_eq!(text(&live.next_on("live")), "goes on");
    let mut old = Login::new("old")
        .version(Version::V311)
        .connect(server.address());
    assert_eq!(old.publish("kept/b", "b").reason, ReasonCode::Success);
    let mut back = device("one").connect(server.address());
    assert!(back.session_present, "sessions go on");
    back.settle();
    let kept = back.arrivals();
    assert!(kept.iter().all(|it| it.topic == "kept/a"), "{kept:?}");
}
