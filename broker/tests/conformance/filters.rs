//! Subscriptions: which messages they get, how they are replaced and ended (MQTT 5.0 §3.8.4, §3.10.4, §4.7; 3.1.1 the same).

use broker::codec::packet::{Packet, Qos, RetainHandling};
use broker::codec::reason::ReasonCode;

use super::client::{
    Client, V5, V311, connect, connect_persistent, filter, frame, message, no_properties, puback,
    pubcomp, pubrec, pubrel, qos0, qos1, qos2, text,
};
use super::world::World;

/// [MQTT-3.3.2-3], [MQTT-4.7.3-4], [MQTT-4.7.2-1]: a topic comes to the filters that match it, level by level, byte by byte;
/// `$` is hidden from wildcards. 3.1.1 [MQTT-3.3.2-3], [MQTT-4.7.3-4], [MQTT-4.7.2-1].
#[tokio::test]
async fn a_message_comes_to_the_filters_that_match_its_topic() {
    let world = World::start();
    let topics = [
        "a", "a/b", "a/b/c", "/", "/a", "a/", "a//b", "A", "a b", "é", "e\u{301}", "$x", "$x/a",
        "a/$x",
    ];
    let cases: [(&'static str, &[&str]); 16] = [
        (
            "#",
            &[
                "a", "a/b", "a/b/c", "/", "/a", "a/", "a//b", "A", "a b", "é", "e\u{301}", "a/$x",
            ],
        ),
        ("+", &["a", "A", "a b", "é", "e\u{301}"]),
        ("+/+", &["a/b", "/", "/a", "a/", "a/$x"]),
        ("+/a", &["/a"]),
        ("a", &["a"]),
        ("a/#", &["a", "a/b", "a/b/c", "a/", "a//b", "a/$x"]),
        ("a/+", &["a/b", "a/", "a/$x"]),
        ("a/+/b", &["a//b"]),
        ("a/+/#", &["a/b", "a/b/c", "a/", "a//b", "a/$x"]),
        ("/+", &["/", "/a"]),
        ("/", &["/"]),
        ("é", &["é"]),
        ("$x", &["$x"]),
        ("$x/#", &["$x", "$x/a"]),
        ("$x/+", &["$x/a"]),
        ("a/$x", &["a/$x"]),
    ];
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        for (wanted, matching) in cases {
            client.subscribe(&[(wanted, Qos::AtMostOnce)]).await;
            let all: Vec<Packet> = topics.iter().map(|topic| qos0(topic, "x")).collect();
            client.send_all(&all).await;
            for expected in matching {
                assert_eq!(client.receive_publish().await.topic, *expected, "{wanted}");
            }
            client.expect_quiet().await;
            client.unsubscribe(&[wanted]).await;
        }
    }
}

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT-4.8.2-1], [MQTT-4.8.2-2]: a filter that breaks the rules closes
/// the connection. 3.1.1 [MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.3-1].
#[tokio::test]
async fn a_malformed_filter_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for bad in [
            "",
            "a#",
            "a/#/b",
            "#/",
            "a+",
            "+a/b",
            "$share//t",
            "$share/g",
            "$share/+/t",
        ] {
            for packet in [
                frame(0x82, &[b"\0\x01", none, &text(bad), b"\0"]),
                frame(0xA2, &[b"\0\x01", none, &text(bad)]),
            ] {
                let mut client = world.connect(version, "a").await;
                client.send_bytes(&packet).await;
                if version == V5 {
                    client.expect_disconnect(ReasonCode::MalformedPacket).await;
                } else {
                    client.expect_closed().await;
                }
            }
        }
    }
}

/// [MQTT-3.8.3-2], [MQTT-3.10.3-2]: there is a filter, [MQTT-3.8.3-5]: reserved bits are 0, [MQTT-3.8.3-4]: no No Local on a
/// Shared Subscription. 3.1.1 [MQTT-3.8.3-3], [MQTT-3-8.3-4], [MQTT-3.10.3-2].
#[tokio::test]
async fn a_malformed_subscribe_closes_the_connection() {
    let world = World::start();
    let (malformed, error) = (ReasonCode::MalformedPacket, ReasonCode::ProtocolError);
    for (bytes, reason) in [
        (&b"\x82\x03\0\x01\0"[..], error),
        (b"\xA2\x03\0\x01\0", error),
        (b"\x82\x07\0\x01\0\0\x01t\x40", malformed),
        (b"\x82\x07\0\x01\0\0\x01t\x80", malformed),
        (b"\x82\x07\0\x01\0\0\x01t\x03", error),
        (b"\x82\x07\0\x01\0\0\x01t\x30", error),
        (b"\x82\x10\0\x01\0\0\x0A$share/g/t\x04", error),
    ] {
        let mut client = world.connect(V5, "a").await;
        client.send_bytes(bytes).await;
        client.expect_disconnect(reason).await;
    }
    for bytes in [
        &b"\x82\x02\0\x01"[..],
        b"\xA2\x02\0\x01",
        b"\x82\x06\0\x01\0\x01t\x03",
        b"\x82\x06\0\x01\0\x01t\x04",
        b"\x82\x06\0\x01\0\x01t\x80",
    ] {
        let mut client = world.connect(V311, "a").await;
        client.send_bytes(bytes).await;
        client.expect_closed().await;
    }
}

/// [MQTT-3.8.4-5]: several filters are as good as several SUBSCRIBEs, [MQTT-3.9.3-1], [MQTT-3.8.4-6]: answered in their
/// order, [MQTT-3.10.4-6], [MQTT-3.11.3-1]: and so with UNSUBSCRIBE.
/// 3.1.1 [MQTT-3.8.4-4], [MQTT-3.8.4-5], [MQTT-3.9.3-1], [MQTT-3.10.4-6].
#[tokio::test]
async fn several_filters_are_as_good_as_several_requests() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        let ack = client
            .subscribe(&[
                ("a", Qos::ExactlyOnce),
                ("forbidden", Qos::AtMostOnce),
                ("b", Qos::AtLeastOnce),
                ("a", Qos::AtMostOnce),
            ])
            .await;
        let refusal = if version == V5 {
            ReasonCode::NotAuthorized
        } else {
            ReasonCode::UnspecifiedError
        };
        assert_eq!(
            ack.reasons,
            [
                ReasonCode::GrantedQos2,
                refusal,
                ReasonCode::GrantedQos1,
                ReasonCode::Success
            ]
        );
        // The later one to «a» has replaced the first.
        client
            .send_all(&[qos1("a", 1, "x"), qos1("b", 2, "x")])
            .await;
        let mut qos = Vec::new();
        for _ in 0..4 {
            if let Packet::Publish(publish) = client.receive().await {
                qos.push(publish.qos);
            }
        }
        assert_eq!(qos, [Qos::AtMostOnce, Qos::AtLeastOnce]);
        let ack = client.unsubscribe(&["b", "none", "a", "a"]).await;
        if version == V5 {
            let (yes, no) = (ReasonCode::Success, ReasonCode::NoSubscriptionExisted);
            assert_eq!(ack.reasons, [yes, no, yes, no]);
        }
        client.send_all(&[qos0("a", "x"), qos0("b", "x")]).await;
        client.expect_quiet().await;
    }
}

/// [MQTT-3.8.4-8], [MQTT-3.8.4-7]: the QoS of a delivery is the lower one of publish and grant.
/// 3.1.1 [MQTT-3.8.4-6].
#[tokio::test]
async fn the_granted_qos_is_the_most_that_comes() {
    let world = World::start();
    let all = [
        (Qos::AtMostOnce, ReasonCode::Success),
        (Qos::AtLeastOnce, ReasonCode::GrantedQos1),
        (Qos::ExactlyOnce, ReasonCode::GrantedQos2),
    ];
    for version in [V5, V311] {
        for (wanted, granted) in all {
            let mut client = world.connect(version, "a").await;
            let ack = client.subscribe(&[("t", wanted)]).await;
            assert_eq!(ack.reasons, [granted]);
            let mut sender = world.connect(version, "sender").await;
            for (published, _) in all {
                let number = u16::from(published != Qos::AtMostOnce);
                sender
                    .send(&Packet::Publish(message("t", published, number, "x")))
                    .await;
                assert_eq!(client.receive_publish().await.qos, published.min(wanted));
                if number > 0 {
                    sender.receive().await;
                }
            }
        }
    }
}

/// [MQTT-3.8.4-3], [MQTT-3.8.4-4]: a second subscription to a filter replaces the first, retained messages come again, and
/// no message is lost. 3.1.1 [MQTT-3.8.4-3].
#[tokio::test]
async fn replacing_a_subscription_loses_nothing() {
    const MESSAGES: u16 = 50;
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[("t/+", Qos::AtLeastOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        let mut retained = message("t/r", Qos::AtLeastOnce, 1, "r");
        retained.retain = true;
        sender.send(&Packet::Publish(retained)).await;
        assert_eq!(sender.receive().await, puback(1));
        let again = frame(0x82, &[b"\0\x01", no_properties(version), b"\0\x03t/+\x01"]);
        for number in 1..=MESSAGES {
            sender.send(&qos1("t/x", number, &number.to_string())).await;
            client.send_bytes(&again).await;
            assert_eq!(sender.receive().await, puback(number));
        }
        // Once live, and once for each subscription.
        let (mut subacks, mut retained, mut heard) = (0, 0, Vec::new());
        while subacks < MESSAGES || retained <= MESSAGES || heard.len() < usize::from(MESSAGES) {
            match client.receive().await {
                Packet::SubAck(_) => subacks += 1,
                Packet::Publish(publish) => {
                    client.send(&puback(publish.packet_id.unwrap().get())).await;
                    if publish.topic == "t/r" {
                        retained += 1;
                    } else {
                        heard.push(publish.payload);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<_> = (1..=MESSAGES).map(|number| number.to_string()).collect();
        assert_eq!(heard, expected);
        client.expect_quiet().await;
        let mut delete = message("t/r", Qos::AtLeastOnce, 1, "");
        delete.retain = true;
        sender.send(&Packet::Publish(delete)).await;
        assert_eq!(sender.receive().await, puback(1));
    }
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]: what Retain Handling asks for comes.
#[tokio::test]
async fn retained_messages_come_as_retain_handling_says() {
    let world = World::start();
    let mut sender = world.connect(V5, "sender").await;
    for topic in ["r/1", "r/2"] {
        let mut publish = message(topic, Qos::AtLeastOnce, 1, "x");
        publish.retain = true;
        sender.send(&Packet::Publish(publish)).await;
        assert_eq!(sender.receive().await, puback(1));
    }
    for (handling, at_first, again) in [
        (RetainHandling::Always, 2, 2),
        (RetainHandling::IfNew, 2, 0),
        (RetainHandling::Never, 0, 0),
    ] {
        let mut client = world.connect(V5, "a").await;
        for expected in [at_first, again] {
            let mut wanted = filter("r/+", Qos::AtMostOnce);
            wanted.retain_handling = handling;
            client.subscribe_with(vec![wanted], None).await;
            for _ in 0..expected {
                assert!(client.receive_publish().await.retain);
            }
            client.expect_quiet().await;
        }
    }
}

async fn subscribe_identified(client: &mut Client, text: &'static str, qos: Qos, number: u32) {
    client
        .subscribe_with(vec![filter(text, qos)], Some(number))
        .await;
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]: of overlapping subscriptions there comes one copy, at the highest QoS, with
/// all their identifiers. 3.1.1 [MQTT-3.3.5-1].
#[tokio::test]
async fn overlapping_subscriptions_give_one_copy() {
    let world = World::start();
    for version in [V5, V311] {
        let five = version == V5;
        let mut client = world.connect(version, "a").await;
        let filters = [
            ("t/+", Qos::AtMostOnce, 1),
            ("t/#", Qos::ExactlyOnce, 268_435_455),
            ("t/x", Qos::AtLeastOnce, 128),
            ("+/x", Qos::AtMostOnce, 128),
        ];
        for (text, qos, number) in filters {
            if five {
                subscribe_identified(&mut client, text, qos, number).await;
            } else {
                client.subscribe(&[(text, qos)]).await;
            }
        }
        client.subscribe(&[("t/x/#", Qos::AtMostOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        sender.send(&qos2("t/x", 1, "x")).await;
        let got = client.receive_publish().await;
        assert_eq!(got.qos, Qos::ExactlyOnce);
        let mut identifiers = got.properties.subscription_identifiers.clone();
        identifiers.sort_unstable();
        identifiers.dedup();
        let expected: &[u32] = if five { &[1, 128, 268_435_455] } else { &[] };
        assert_eq!(identifiers, expected);
        client.expect_quiet().await;
    }
}

/// [MQTT-3.3.4-6]: a client sends no Subscription Identifier.
#[tokio::test]
async fn a_subscription_identifier_from_a_client_closes_the_connection() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.send_bytes(b"\x30\x06\0\x01t\x02\x0B\x01").await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// [MQTT-3.8.3-3]: with No Local nothing comes back to the Client Identifier that published it, on whatever connection.
#[tokio::test]
async fn no_local_holds_for_the_client_identifier() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    let mut wanted = filter("t", Qos::AtLeastOnce);
    wanted.no_local = true;
    client.subscribe_with(vec![wanted], None).await;
    client.publish_qos1("t", 1).await;
    client.expect_quiet().await;
    client.disconnect().await;
    let (mut client, _) = world.connect_with(connect_persistent(V5, "a")).await;
    client.publish_qos1("t", 2).await;
    client.expect_quiet().await;
    world.connect(V5, "b").await.publish_qos1("t", 1).await;
    assert_eq!(client.receive_publish().await.payload, "hi");
}

/// [MQTT-3.10.4-1]: filters are compared character by character. 3.1.1 [MQTT-3.10.4-1].
#[tokio::test]
async fn unsubscribe_ends_the_very_same_filter() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client
            .subscribe(&[("t/+", Qos::AtMostOnce), ("t/a", Qos::AtMostOnce)])
            .await;
        client
            .unsubscribe(&["t/#", "#", "T/a", "t/+/", "+/+", "t"])
            .await;
        client.send(&qos0("t/b", "x")).await;
        assert_eq!(client.receive_publish().await.topic, "t/b");
        client.unsubscribe(&["t/+"]).await;
        client.send_all(&[qos0("t/b", "x"), qos0("t/a", "y")]).await;
        assert_eq!(client.receive_publish().await.payload, "y");
        client.expect_quiet().await;
    }
}

/// [MQTT-3.10.4-2], [MQTT-3.10.4-3]: after UNSUBSCRIBE nothing new comes, and what has begun goes on to its end.
/// 3.1.1 [MQTT-3.10.4-2], [MQTT-3.10.4-3].
#[tokio::test]
async fn what_was_begun_before_unsubscribe_is_completed() {
    let world = World::start();
    for version in [V5, V311] {
        let mut asked = connect_persistent(version, "a");
        asked.properties.receive_maximum = (version == V5).then_some(10);
        let (mut client, _) = world.connect_with(asked.clone()).await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        sender.send(&qos2("t", 1, "two")).await;
        sender.send(&qos1("t", 2, "one")).await;
        assert_eq!(sender.receive().await, pubrec(1));
        assert_eq!(sender.receive().await, puback(2));
        let two = client.receive_publish().await.packet_id.unwrap().get();
        let one = client.receive_publish().await.packet_id.unwrap().get();
        client.unsubscribe(&["t"]).await;
        sender.publish_qos1("t", 3).await;
        client.expect_quiet().await;
        client.vanish();
        let (mut client, _) = world.connect_with(asked).await;
        let again = client.receive_publish().await;
        assert_eq!(
            (&*again.payload, again.packet_id.unwrap().get()),
            (&b"two"[..], two)
        );
        assert_eq!(client.receive_publish().await.packet_id.unwrap().get(), one);
        client.send(&pubrec(two)).await;
        assert_eq!(client.receive().await, pubrel(two));
        client.send_all(&[pubcomp(two), puback(one)]).await;
        client.expect_quiet().await;
        client.vanish();
        world.connect(version, "a").await;
    }
}

/// [MQTT-3.3.2-12]: every Topic Alias up to the announced maximum is accepted, [MQTT-3.2.2-17], [MQTT-3.3.2-9]: none above it,
/// [MQTT-3.2.2-18]: and none at all where none is announced, [MQTT-3.3.2-8]: nor 0.
#[tokio::test]
async fn topic_aliases_are_accepted_up_to_the_announced_maximum() {
    for maximum in [0_u16, 1, 300] {
        let world = World::with(|config| config.topic_alias_maximum = maximum);
        let (mut client, ack) = world.connect_with(connect(V5, "a")).await;
        assert_eq!(ack.properties.topic_alias_maximum.unwrap_or(0), maximum);
        client.subscribe(&[("t/+", Qos::AtMostOnce)]).await;
        for alias in 1..=maximum {
            let topic: &'static str = format!("t/{alias}").leak();
            for name in [topic, ""] {
                let mut publish = message(name, Qos::AtMostOnce, 0, "x");
                publish.properties.topic_alias = Some(alias);
                client.send(&Packet::Publish(publish)).await;
                assert_eq!(client.receive_publish().await.topic, topic);
            }
        }
        for wrong in [0, maximum + 1] {
            let mut client = world.connect(V5, "b").await;
            let [high, low] = wrong.to_be_bytes();
            client
                .send_bytes(&frame(0x30, &[b"\0\x01t\x03\x23", &[high, low]]))
                .await;
            client
                .expect_disconnect(ReasonCode::TopicAliasInvalid)
                .await;
        }
    }
}
