//! Flow control, packet sizes and Keep Alive (MQTT 5.0 §3.1.2.10, §3.1.2.11.3 f., §4.9).

use std::time::Instant;

use broker::codec::packet::{Ack, Packet, Qos};
use broker::codec::reason::ReasonCode;

use super::client::{V5, V311, connect, message, puback, pubcomp, pubrec, pubrel, qos1, qos2};
use super::world::{OnPublish, World};

/// [MQTT-3.3.4-7]: a client that sends more than Receive Maximum is closed with 0x93.
#[tokio::test]
async fn more_publishes_than_receive_maximum_are_answered_by_disconnect() {
    let world = World::with(|config| config.receive_maximum = 3);
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V5, "a").await;
    for number in 1..=4 {
        client.send(&qos1("plug/t", number, "x")).await;
    }
    client
        .expect_disconnect(ReasonCode::ReceiveMaximumExceeded)
        .await;
}

/// [MQTT-3.3.4-7].
#[tokio::test]
async fn a_qos2_exchange_counts_until_it_is_complete() {
    let world = World::with(|config| config.receive_maximum = 2);
    let mut client = world.connect(V5, "a").await;
    for number in 1..=2 {
        client.send(&qos2("t", number, "x")).await;
        assert_eq!(client.receive().await, pubrec(number));
    }
    client.send(&pubrel(1)).await;
    assert_eq!(client.receive().await, pubcomp(1));
    client.send(&qos2("t", 3, "x")).await;
    assert_eq!(client.receive().await, pubrec(3));
    client.send(&qos1("t", 4, "x")).await;
    client
        .expect_disconnect(ReasonCode::ReceiveMaximumExceeded)
        .await;
}

#[tokio::test]
async fn a_client_that_sends_too_much_before_it_reads_can_read_why() {
    let world = World::with(|config| config.receive_maximum = 10);
    let mut client = world.connect(V5, "a").await;
    let surplus: Vec<Packet> = (1..=11).map(|number| qos2("t", number, "x")).collect();
    client.send_all(&surplus).await;
    // And it goes on sending, as if nothing had happened.
    client.send_all(&surplus).await;
    for number in 1..=10 {
        assert_eq!(client.receive().await, pubrec(number));
    }
    client
        .expect_disconnect(ReasonCode::ReceiveMaximumExceeded)
        .await;
}

#[tokio::test]
async fn receive_maximum_does_not_exist_in_3_1_1() {
    let world = World::with(|config| config.receive_maximum = 1);
    let mut client = world.connect(V311, "a").await;
    client
        .send_all(&[qos2("t", 1, "x"), qos2("t", 2, "x"), qos1("t", 3, "x")])
        .await;
    assert_eq!(client.receive().await, pubrec(1));
    assert_eq!(client.receive().await, pubrec(2));
    assert_eq!(client.receive().await, puback(3));
}

/// [MQTT-3.3.4-9], [MQTT-4.9.0-2].
#[tokio::test]
async fn the_clients_receive_maximum_is_kept_and_acknowledgements_may_come_in_any_order() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.receive_maximum = Some(2);
    let (mut client, _) = world.connect_with(asked).await;
    client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    for number in 1..=3 {
        sender.publish_qos1("t", number).await;
    }
    sender.send(&qos2("t", 4, "x")).await;
    assert_eq!(sender.receive().await, pubrec(4));
    let first = client.receive_publish().await.packet_id.unwrap();
    let second = client.receive_publish().await.packet_id.unwrap();
    client.expect_quiet().await;
    client.send(&Packet::PubAck(Ack::success(second))).await;
    let third = client.receive_publish().await.packet_id.unwrap();
    client.expect_quiet().await;
    client.send(&Packet::PubAck(Ack::success(third))).await;
    let exact = client.receive_publish().await;
    assert_eq!(exact.qos, Qos::ExactlyOnce);
    let exact = exact.packet_id.unwrap();
    // A QoS 2 exchange counts until PUBCOMP.
    sender.publish_qos1("t", 5).await;
    client.send(&Packet::PubRec(Ack::success(exact))).await;
    assert_eq!(client.receive().await, Packet::PubRel(Ack::success(exact)));
    client.expect_quiet().await;
    client.send(&Packet::PubComp(Ack::success(exact))).await;
    client.receive_publish().await;
    client.send(&Packet::PubAck(Ack::success(first))).await;
    client.expect_quiet().await;
}

/// [MQTT-3.2.2-15]: a packet above the Maximum Packet Size of the server closes with 0x95.
#[tokio::test]
async fn a_packet_larger_than_the_servers_maximum_is_answered_by_disconnect() {
    let world = World::with(|config| config.packet_bytes_max = 100);
    let mut client = world.connect(V5, "a").await;
    client.send(&qos1("t", 1, &"x".repeat(200))).await;
    client.expect_disconnect(ReasonCode::PacketTooLarge).await;
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25].
#[tokio::test]
async fn a_message_larger_than_the_clients_maximum_is_not_sent() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.maximum_packet_size = Some(100);
    let (mut client, _) = world.connect_with(asked).await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    sender.send(&qos1("t", 1, &"x".repeat(100))).await;
    assert_eq!(sender.receive().await, puback(1));
    sender.publish_qos1("t", 2).await;
    assert_eq!(client.receive_publish().await.payload, "hi");
    assert_eq!(world.metrics.messages_dropped_too_large.value(), 1);
}

#[tokio::test]
async fn a_large_message_passes_in_both_directions() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let payload = "x".repeat(250_000);
    let publish = message("t", Qos::AtMostOnce, 0, &payload);
    client.send(&Packet::Publish(publish.clone())).await;
    assert_eq!(client.receive_publish().await, publish);
}

/// [MQTT-3.1.2-22], [MQTT-3.2.2-22]: closed after one and a half times the Keep Alive. 3.1.1 [MQTT-3.1.2-24].
#[tokio::test]
async fn a_silent_client_is_closed_after_one_and_a_half_times_its_keep_alive() {
    let world = World::start();
    for version in [V5, V311] {
        let mut asked = connect(version, "a");
        asked.keep_alive = 1;
        let (mut client, _) = world.connect_with(asked).await;
        let begin = now();
        match version {
            V5 => client.expect_disconnect(ReasonCode::KeepAliveTimeout).await,
            V311 => client.expect_closed().await,
        }
        let silence = now() - begin;
        assert!((1_300..3_000).contains(&silence.as_millis()), "{silence:?}");
    }
    assert_eq!(world.metrics.keep_alive_timeouts.value(), 2);
}

#[expect(clippy::disallowed_methods, reason = "the test measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn any_packet_keeps_a_client_alive_and_keep_alive_0_is_for_ever() {
    let world = World::start();
    let mut forever = world.connect(V311, "forever").await;
    let mut asked = connect(V5, "a");
    asked.keep_alive = 1;
    let (mut client, _) = world.connect_with(asked).await;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(700));
    for number in 1..=4 {
        tick.tick().await;
        client.publish_qos1("t", number).await;
    }
    forever.expect_quiet().await;
}
