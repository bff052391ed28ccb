//! Delivery to clients: QoS, DUP, order, retransmission, expiry (MQTT 5.0 §4.1 to §4.6, §4.9; 3.1.1 §4.1 to §4.6).

use broker::codec::packet::{Ack, Packet, PacketType, Publish, Qos};
use broker::codec::reason::ReasonCode;

use super::client::{
    Client, V5, V311, connect, connect_persistent, disconnect, id, message, puback, pubcomp,
    pubrec, pubrel, qos0, qos1, qos2, with_reason,
};
use super::world::World;

fn number(publish: &Publish) -> u16 {
    publish.packet_id.unwrap().get()
}

/// Publishes at QoS 2 from the first packet to the last.
async fn publish_qos2(client: &mut Client, topic: &'static str, payload: &str) {
    client.send(&qos2(topic, 1, payload)).await;
    assert_eq!(client.receive().await, pubrec(1));
    client.send(&pubrel(1)).await;
    assert_eq!(client.receive().await, pubcomp(1));
}

/// [MQTT-3.3.1-3]: DUP of what comes in is not that of what goes out. 3.1.1 [MQTT-3.3.1-3].
#[tokio::test]
async fn dup_is_not_passed_on() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut publish = message("t", qos, 1, "x");
            publish.dup = true;
            sender.send(&Packet::Publish(publish)).await;
            sender.receive().await;
            assert!(!client.receive_publish().await.dup);
        }
    }
}

/// [MQTT-4.3.2-2], [MQTT-4.3.3-2], [MQTT-4.3.1-1]: first copies have the QoS of the delivery and no DUP.
/// [MQTT-4.3.2-3], [MQTT-4.3.3-3], [MQTT-4.3.3-5]: what is not acknowledged stays so, however long.
/// [MQTT-4.3.3-4]: PUBREC is answered by PUBREL of the same identifier, every time.
/// 3.1.1 [MQTT-4.3.1-1], [MQTT-4.3.2-1], [MQTT-4.3.3-1].
#[tokio::test]
async fn a_delivery_goes_through_the_steps_of_its_qos() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        sender.send(&qos0("t", "0")).await;
        sender.publish_qos1("t", 1).await;
        publish_qos2(&mut sender, "t", "2").await;
        let zero = client.receive_publish().await;
        assert_eq!(
            (zero.qos, zero.dup, zero.packet_id),
            (Qos::AtMostOnce, false, None)
        );
        let one = client.receive_publish().await;
        assert_eq!((one.qos, one.dup), (Qos::AtLeastOnce, false));
        let two = client.receive_publish().await;
        assert_eq!((two.qos, two.dup), (Qos::ExactlyOnce, false));
        client.send(&puback(number(&one))).await;
        for _ in 0..2 {
            client.send(&pubrec(number(&two))).await;
            assert_eq!(client.receive().await, pubrel(number(&two)));
        }
        client.send(&pubcomp(number(&two))).await;
        client.expect_quiet().await;
    }
}

/// [MQTT-3.3.1-1], [MQTT-4.4.0-1]: what was not acknowledged comes again on the next connection, under its identifier, with
/// DUP, and at no other time. 3.1.1 [MQTT-3.3.1-1], [MQTT-4.4.0-1], [MQTT-4.6.0-1]: in the order of the first sending.
#[tokio::test]
async fn what_is_unacknowledged_is_sent_again_on_the_next_connection_only() {
    let world = World::start();
    for version in [V5, V311] {
        let (mut client, _) = world.connect_persistent(version, "a").await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        for payload in ["1", "2", "3"] {
            sender.send(&qos1("t", 1, payload)).await;
            assert_eq!(sender.receive().await, puback(1));
            publish_qos2(&mut sender, "t", payload).await;
        }
        let mut first = Vec::new();
        for _ in 0..6 {
            first.push(client.receive_publish().await);
        }
        client.expect_quiet().await;
        for _ in 0..2 {
            client.vanish();
            world.plugin.disconnected().await;
            (client, _) = world.connect_persistent(version, "a").await;
            for sent in &first {
                let again = client.receive_publish().await;
                assert!(again.dup);
                assert_eq!(again.packet_id, sent.packet_id);
                assert_eq!(again.payload, sent.payload);
            }
            client.expect_quiet().await;
        }
        client.vanish();
        world.connect(version, "a").await;
    }
}

/// [MQTT-4.3.3-6]: after PUBREC only PUBREL is sent again. 3.1.1 [MQTT-4.3.3-1].
#[tokio::test]
async fn after_pubrec_only_pubrel_comes_again() {
    let world = World::start();
    for version in [V5, V311] {
        let (mut client, _) = world.connect_persistent(version, "a").await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        publish_qos2(&mut world.connect(version, "sender").await, "t", "x").await;
        let got = number(&client.receive_publish().await);
        client.send(&pubrec(got)).await;
        assert_eq!(client.receive().await, pubrel(got));
        for _ in 0..2 {
            client.vanish();
            (client, _) = world.connect_persistent(version, "a").await;
            assert_eq!(client.receive().await, pubrel(got));
            client.expect_quiet().await;
        }
        client.send(&pubcomp(got)).await;
        client.vanish();
        let (mut client, _) = world.connect_persistent(version, "a").await;
        client.expect_quiet().await;
        client.vanish();
        world.connect(version, "a").await;
    }
}

/// [MQTT-4.4.0-2]: what the client refuses is acknowledged, and not sent again.
#[tokio::test]
async fn what_the_client_refuses_is_not_sent_again() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    sender.publish_qos1("t", 1).await;
    publish_qos2(&mut sender, "t", "x").await;
    let one = number(&client.receive_publish().await);
    let two = number(&client.receive_publish().await);
    let refused = |number| with_reason(number, ReasonCode::QuotaExceeded);
    client.send(&Packet::PubAck(refused(one))).await;
    client.send(&Packet::PubRec(refused(two))).await;
    client.expect_quiet().await;
    client.vanish();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.expect_quiet().await;
}

/// [MQTT-4.3.2-4], [MQTT-4.3.2-5]: QoS 1 is acknowledged, and each PUBLISH is new after it, whatever its DUP.
/// 3.1.1 [MQTT-4.3.2-2].
#[tokio::test]
async fn a_qos1_publish_after_puback_is_new() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = world.connect(version, "watcher").await;
        watcher.subscribe(&[("t", Qos::AtMostOnce)]).await;
        let mut client = world.connect(version, "a").await;
        for (dup, payload) in [(false, "1"), (true, "2"), (true, "2")] {
            let mut publish = message("t", Qos::AtLeastOnce, 7, payload);
            publish.dup = dup;
            client.send(&Packet::Publish(publish)).await;
            assert_eq!(client.receive().await, puback(7));
            assert_eq!(watcher.receive_publish().await.payload, payload);
        }
    }
}

/// [MQTT-4.3.3-8], [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12]: QoS 2 is acknowledged by PUBREC as often as it comes,
/// delivered once until PUBREL, completed by PUBCOMP, and then new.
/// 3.1.1 [MQTT-4.3.3-2].
#[tokio::test]
async fn a_qos2_publish_is_new_after_pubcomp_only() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = world.connect(version, "watcher").await;
        watcher.subscribe(&[("t", Qos::AtMostOnce)]).await;
        let mut client = world.connect(version, "a").await;
        for round in ["1", "2"] {
            for dup in [false, true, true] {
                let mut publish = message("t", Qos::ExactlyOnce, 7, round);
                publish.dup = dup;
                client.send(&Packet::Publish(publish)).await;
                assert_eq!(client.receive().await, pubrec(7));
            }
            client.send(&pubrel(7)).await;
            assert_eq!(client.receive().await, pubcomp(7));
            assert_eq!(watcher.receive_publish().await.payload, round);
        }
        watcher.expect_quiet().await;
    }
}

/// [MQTT-4.3.3-9]: after a PUBREC that refuses, the identifier is free.
#[tokio::test]
async fn a_refused_qos2_publish_is_over() {
    let world = World::start();
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let mut client = world.connect(V5, "a").await;
    client.send(&qos2("forbidden", 7, "x")).await;
    match client.receive().await {
        Packet::PubRec(ack) => assert_eq!(ack.reason, ReasonCode::NotAuthorized),
        other => panic!("{other:?}"),
    }
    publish_qos2(&mut client, "t", "new").await;
    client.send(&qos2("t", 7, "newer")).await;
    assert_eq!(client.receive().await, pubrec(7));
    assert_eq!(watcher.receive_publish().await.payload, "new");
    assert_eq!(watcher.receive_publish().await.payload, "newer");
}

/// A clock for what expires after a second: waits until a session of that lifetime has.
async fn a_second_passes(world: &World) {
    let mut asked = connect_persistent(V5, "clock");
    asked.properties.session_expiry_interval = Some(1);
    let before = world.metrics.sessions_kept.value();
    world.connect_with(asked).await.0.disconnect().await;
    while world.metrics.sessions_kept.value() == before {
        tokio::task::yield_now().await;
    }
    while world.metrics.sessions_kept.value() > before {
        tokio::task::yield_now().await;
    }
}

/// [MQTT-4.3.3-7]: what was sent once does not expire, [MQTT-4.3.3-13]: nor does an exchange whose message has.
#[tokio::test]
async fn an_exchange_goes_on_after_its_message_has_expired() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    let mut publish = message("t", Qos::ExactlyOnce, 1, "x");
    publish.properties.message_expiry_interval = Some(1);
    sender.send(&Packet::Publish(publish)).await;
    assert_eq!(sender.receive().await, pubrec(1));
    let sent = client.receive_publish().await;
    client.vanish();
    world.plugin.disconnected().await;
    a_second_passes(&world).await;
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    let again = client.receive_publish().await;
    assert!(again.dup);
    assert_eq!(again.packet_id, sent.packet_id);
    let got = number(&again);
    client.send(&pubrec(got)).await;
    assert_eq!(client.receive().await, pubrel(got));
    client.send(&pubcomp(got)).await;
    sender.send(&pubrel(1)).await;
    assert_eq!(sender.receive().await, pubcomp(1));
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6]: what waits too long is deleted, and what does not is delivered with the rest of its time.
#[tokio::test]
async fn a_message_that_waits_loses_lifetime() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    client.disconnect().await;
    let mut sender = world.connect(V5, "sender").await;
    for (expiry, payload) in [(Some(1), "short"), (Some(100), "long"), (None, "for ever")] {
        let mut publish = message("t", Qos::AtLeastOnce, 1, payload);
        publish.properties.message_expiry_interval = expiry;
        sender.send(&Packet::Publish(publish)).await;
        assert_eq!(sender.receive().await, puback(1));
    }
    a_second_passes(&world).await;
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    let long = client.receive_publish().await;
    assert_eq!(long.payload, "long");
    let left = long.properties.message_expiry_interval.unwrap();
    assert!((90..100).contains(&left), "{left}");
    let forever = client.receive_publish().await;
    assert_eq!(forever.payload, "for ever");
    assert_eq!(forever.properties.message_expiry_interval, None);
    client.expect_quiet().await;
}

/// [MQTT-4.5.0-1], [MQTT-3.1.2-23]: messages are added to the session of everyone who subscribed, there or away.
/// 3.1.1 [MQTT-4.5.0-1], [MQTT-3.1.2-5], [MQTT-4.1.0-1].
#[tokio::test]
async fn a_message_is_added_to_every_session_that_subscribed() {
    let world = World::start();
    for version in [V5, V311] {
        let mut here = world.connect(version, "here").await;
        here.subscribe(&[("t", Qos::AtLeastOnce)]).await;
        let (mut away, _) = world.connect_persistent(version, "away").await;
        away.subscribe(&[("t", Qos::AtLeastOnce), ("u", Qos::ExactlyOnce)])
            .await;
        away.disconnect().await;
        let mut sender = world.connect(version, "sender").await;
        sender.publish_qos1("t", 1).await;
        publish_qos2(&mut sender, "u", "x").await;
        assert_eq!(here.receive_publish().await.topic, "t");
        here.expect_quiet().await;
        let (mut away, _) = world.connect_persistent(version, "away").await;
        assert_eq!(away.receive_publish().await.topic, "t");
        let two = away.receive_publish().await;
        assert_eq!((&*two.topic, two.qos), ("u", Qos::ExactlyOnce));
        away.vanish();
        world.connect(version, "away").await;
    }
}

/// [MQTT-4.1.0-1]: a session lasts as long as its connection, whatever its expiry, [MQTT-4.1.0-2]: and then no longer
/// than that. 3.1.1 [MQTT-4.1.0-2].
#[tokio::test]
async fn a_session_lasts_as_long_as_its_connection() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "a");
    asked.properties.session_expiry_interval = Some(1);
    let (mut client, _) = world.connect_with(asked.clone()).await;
    client.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let mut old = world.connect(V311, "old").await;
    old.subscribe(&[("t", Qos::AtMostOnce)]).await;
    a_second_passes(&world).await;
    client.send(&qos0("t", "x")).await;
    assert_eq!(client.receive_publish().await.payload, "x");
    assert_eq!(old.receive_publish().await.payload, "x");
    client.disconnect().await;
    a_second_passes(&world).await;
    let (_client, ack) = world.connect_with(asked).await;
    assert!(!ack.session_present);
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6]: messages of one client reach everybody in the order of sending, at each QoS.
/// 3.1.1 [MQTT-4.6.0-2], [MQTT-4.6.0-3], [MQTT-4.6.0-4], [MQTT-4.6.0-5], [MQTT-4.6.0-6]: and their acknowledgements too.
#[tokio::test]
async fn messages_keep_their_order() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client
            .subscribe(&[
                ("0", Qos::AtMostOnce),
                ("1", Qos::AtLeastOnce),
                ("2", Qos::ExactlyOnce),
            ])
            .await;
        let mut sender = world.connect(version, "sender").await;
        for (topic, qos) in [
            ("0", Qos::AtMostOnce),
            ("1", Qos::AtLeastOnce),
            ("2", Qos::ExactlyOnce),
        ] {
            let packets: Vec<Packet> = (1..=100_u16)
                .map(|number| {
                    let packet_id = if qos == Qos::AtMostOnce { 0 } else { number };
                    Packet::Publish(message(topic, qos, packet_id, &number.to_string()))
                })
                .collect();
            sender.send_all(&packets).await;
            let (mut heard, mut received, mut released) = (Vec::new(), Vec::new(), Vec::new());
            while heard.len() < 100 || qos == Qos::ExactlyOnce && released.len() < 100 {
                match client.receive().await {
                    Packet::Publish(got) => {
                        assert_eq!(got.topic, topic);
                        match qos {
                            Qos::AtMostOnce => {}
                            Qos::AtLeastOnce => client.send(&puback(number(&got))).await,
                            Qos::ExactlyOnce => {
                                client.send(&pubrec(number(&got))).await;
                                received.push(number(&got));
                            }
                        }
                        heard.push(got.payload);
                    }
                    Packet::PubRel(ack) => {
                        client.send(&pubcomp(ack.packet_id.get())).await;
                        released.push(ack.packet_id.get());
                    }
                    other => panic!("{other:?}"),
                }
            }
            let expected: Vec<_> = (1..=100).map(|number| number.to_string()).collect();
            assert_eq!(heard, expected);
            assert_eq!(released, received);
            // The acknowledgements come in the order of arrival as well.
            for number in 1..=100 {
                match qos {
                    Qos::AtMostOnce => {}
                    Qos::AtLeastOnce => assert_eq!(sender.receive().await, puback(number)),
                    Qos::ExactlyOnce => {
                        assert_eq!(sender.receive().await, pubrec(number));
                    }
                }
            }
            if qos == Qos::ExactlyOnce {
                let rest: Vec<Packet> = (1..=100).map(pubrel).collect();
                sender.send_all(&rest).await;
                for number in 1..=100 {
                    assert_eq!(sender.receive().await, pubcomp(number));
                }
            }
        }
    }
}

/// [MQTT-3.3.4-9], [MQTT-4.9.0-1], [MQTT-4.9.0-2]: no more than Receive Maximum are in flight to the client,
/// [MQTT-3.3.4-10], [MQTT-4.9.0-3]: and everything else goes on.
#[tokio::test]
async fn a_full_window_holds_up_publishes_only() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.receive_maximum = Some(1);
    let (mut client, _) = world.connect_with(asked).await;
    client
        .subscribe(&[("t", Qos::ExactlyOnce), ("u", Qos::AtMostOnce)])
        .await;
    let mut sender = world.connect(V5, "sender").await;
    sender.publish_qos1("t", 1).await;
    sender.publish_qos1("t", 2).await;
    let first = number(&client.receive_publish().await);
    client.expect_quiet().await;
    client.subscribe(&[("v", Qos::AtMostOnce)]).await;
    client.unsubscribe(&["v"]).await;
    client.publish_qos1("w", 1).await;
    client.send(&qos2("w", 2, "x")).await;
    assert_eq!(client.receive().await, pubrec(2));
    client.send(&pubrel(2)).await;
    assert_eq!(client.receive().await, pubcomp(2));
    client.send(&puback(first)).await;
    let second = number(&client.receive_publish().await);
    client.send(&puback(second)).await;
    client.expect_quiet().await;
}

/// [MQTT-3.1.2-25]: a message that is too large for the client counts as delivered: it holds up nothing.
#[tokio::test]
async fn a_message_that_is_too_large_takes_no_place_in_the_window() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "a");
    asked.properties.maximum_packet_size = Some(100);
    asked.properties.receive_maximum = Some(1);
    let (mut client, _) = world.connect_with(asked.clone()).await;
    client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    for number in 1..=5 {
        sender.send(&qos1("t", number, &"x".repeat(200))).await;
        assert_eq!(sender.receive().await, puback(number));
    }
    sender.publish_qos1("t", 6).await;
    let got = client.receive_publish().await;
    assert_eq!(got.payload, "hi");
    client
        .send(&Packet::PubAck(Ack::success(id(number(&got)))))
        .await;
    client.send(&disconnect(ReasonCode::Success, None)).await;
    client.expect_closed().await;
    let (mut client, _) = world.connect_with(asked).await;
    client.expect_quiet().await;
}

/// [MQTT-3.1.2-24]: whatever comes to a client is within its Maximum Packet Size, at each size around the border.
#[tokio::test]
async fn a_message_of_exactly_the_maximum_packet_size_is_sent() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.maximum_packet_size = Some(100);
    let (mut client, _) = world.connect_with(asked).await;
    client.subscribe(&[("t", Qos::AtMostOnce)]).await;
    // Six bytes are not payload.
    for bytes in 90..=100 {
        client.send(&qos0("t", &"x".repeat(bytes))).await;
    }
    for bytes in 90..=94 {
        let got = client.receive_publish().await;
        assert_eq!(got.payload.len(), bytes);
    }
    client.expect_quiet().await;
}

/// [MQTT-3.1.4-3]: the second connection of a Client Identifier ends the first, in 5.0 with 0x8E.
/// 3.1.1 [MQTT-3.1.4-2].
#[tokio::test]
async fn a_second_connection_ends_the_first() {
    let world = World::start();
    for (first, second) in [(V5, V5), (V311, V311), (V5, V311), (V311, V5)] {
        let mut old = world.connect(first, "a").await;
        let mut new = world.connect(second, "a").await;
        if first == V5 {
            old.expect_disconnect(ReasonCode::SessionTakenOver).await;
        } else {
            old.expect_closed().await;
        }
        new.expect_quiet().await;
        assert_eq!(
            new.subscribe(&[("t", Qos::AtMostOnce)]).await.reasons.len(),
            1
        );
        new.send(&qos0("t", "x")).await;
        assert_eq!(new.receive().await.packet_type(), PacketType::Publish);
    }
}
