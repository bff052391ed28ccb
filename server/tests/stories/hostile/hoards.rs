//! Who fills what all share: queues, filters, sessions, retained messages.

use broker::codec::packet::Qos;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;

use super::super::harness::{Client, Launch, Login, Server};
use super::beside_a_good_pair;

/// Queues and filters of one user take a quarter of what the server may take.
fn small_totals(launch: Launch) -> Launch {
    [
        "QUEUE_BYTES_PER_USER_MAX",
        "SUBSCRIPTION_BYTES_PER_USER_MAX",
    ]
    .into_iter()
    .fold(launch, |launch, option| {
        launch.variable(&format!("MQCHAT_BROKER__{option}"), "67108864")
    })
}

/// Publishes so many large messages, each of them acknowledged.
fn flood(writer: &mut Client, topic: &str, count: usize) {
    const AT_ONCE: usize = 50;
    for batch in (0..count).collect::<Vec<_>>().chunks(AT_ONCE) {
        for _ in batch {
            let none = PublishProperties::default();
            writer.send_publish(topic, vec![b'x'; 60_000], none);
        }
        for _ in batch {
            assert_eq!(writer.next_answer().unwrap().reason, ReasonCode::Success);
        }
    }
}

#[test]
fn thirty_readers_that_never_read_each_a_flood_of_its_own() {
    beside_a_good_pair(small_totals, |server| {
        let mut writer = Login::new("hose").connect(server.address());
        let readers: Vec<Client> = (0..30)
            .map(|number| {
                let mut reader = Login::new("sloth").connect(server.address());
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce][number % 2];
                let topic = format!("flood/{number}");
                reader.try_subscribe(&topic, qos);
                flood(&mut writer, &topic, 150);
                reader
            })
            .collect();
        drop(readers);
    });
}

#[test]
fn forty_sessions_that_are_left_with_full_queues() {
    beside_a_good_pair(small_totals, |server| {
        let mut writer = Login::new("hose").connect(server.address());
        let patient = leave(server, Login::new("patient"), "patience");
        for number in 0..40 {
            let topic = format!("hoard/{number}");
            leave(server, Login::new("sloth"), &topic);
            flood(&mut writer, &topic, 100);
        }
        // There is room for whoever wants little.
        flood(&mut writer, "patience", 1);
        let mut patient = patient.connect(server.address());
        assert_eq!(patient.next_message().payload.len(), 60_000);
    });
}

/// A session with a subscription whose client is away.
fn leave(server: &Server, login: Login, topic: &str) -> Login {
    let login = login.session(1_000);
    let mut client = login.connect(server.address());
    client.try_subscribe(topic, Qos::AtLeastOnce);
    client.disconnect();
    login
}

#[test]
fn filters_as_long_as_they_may_be() {
    beside_a_good_pair(small_totals, |server| {
        let long = "x".repeat(64_900);
        for session in 0..4 {
            let login = Login::new("greedy").client_id(&format!("greedy-{session}"));
            let mut client = login.session(1_000).connect(server.address());
            let granted = (0..30).filter(|number| {
                let filter = format!("{session}/{number}/{long}");
                client.try_subscribe(&filter, Qos::AtMostOnce) == ReasonCode::Success
            });
            assert_eq!(granted.count(), 16, "1 MiB of them");
        }
        let mut modest = Login::new("modest").connect(server.address());
        modest.subscribe("a/+/c");
    });
}
