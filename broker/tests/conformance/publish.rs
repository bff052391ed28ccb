//! PUBLISH and its acknowledgements, ordinary topics (MQTT 5.0 §3.3 to §3.7, §4.3).

use broker::codec::packet::{Ack, Packet, Qos};
use broker::codec::reason::ReasonCode;
use bytes::Bytes;

use super::client::{
    Client, V5, V311, connect, id, message, puback, pubcomp, pubrec, pubrel, qos0, qos1, qos2,
    with_reason,
};
use super::world::World;

async fn subscriber(world: &World, filter: &'static str, qos: Qos) -> Client {
    let mut client = world.connect(V5, "subscriber").await;
    client.subscribe(&[(filter, qos)]).await;
    client
}

/// [MQTT-3.8.4-8]. 3.1.1 [MQTT-3.8.4-6].
#[tokio::test]
async fn a_message_is_delivered_at_the_lower_qos() {
    let world = World::start();
    let all = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
    for (version, subscribed) in [V5, V311]
        .into_iter()
        .zip([all, all])
        .flat_map(|(v, all)| all.map(|qos| (v, qos)))
    {
        let mut receiver = world.connect(version, "receiver").await;
        receiver.subscribe(&[("t", subscribed)]).await;
        let mut sender = world.connect(version, "sender").await;
        sender
            .send_all(&[
                qos0("t", "0"),
                qos1("t", 1, "1"),
                qos2("t", 2, "2"),
                pubrel(2),
            ])
            .await;
        for published in all {
            let got = receiver.receive_publish().await;
            assert_eq!(got.qos, published.min(subscribed));
            assert!(!got.dup && !got.retain);
        }
    }
}

/// [MQTT-3.3.4-1]. 3.1.1 [MQTT-3.3.4-1].
#[tokio::test]
async fn qos1_and_qos2_are_acknowledged_by_their_own_packets() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.send(&qos1("t", 7, "x")).await;
        assert_eq!(client.receive().await, puback(7));
        client.send(&qos2("t", 8, "x")).await;
        assert_eq!(client.receive().await, pubrec(8));
        client.send(&pubrel(8)).await;
        assert_eq!(client.receive().await, pubcomp(8));
    }
}

/// [MQTT-4.3.3-10], [MQTT-4.3.3-12].
#[tokio::test]
async fn a_qos2_message_sent_twice_is_delivered_once() {
    let world = World::start();
    let mut receiver = subscriber(&world, "t", Qos::AtMostOnce).await;
    let mut client = world.connect(V5, "a").await;
    let mut again = message("t", Qos::ExactlyOnce, 5, "once");
    again.dup = true;
    client.send(&qos2("t", 5, "once")).await;
    assert_eq!(client.receive().await, pubrec(5));
    client.send(&Packet::Publish(again)).await;
    assert_eq!(client.receive().await, pubrec(5));
    client.send(&pubrel(5)).await;
    assert_eq!(client.receive().await, pubcomp(5));
    client.send(&qos2("t", 5, "new")).await;
    assert_eq!(receiver.receive_publish().await.payload, "once");
    assert_eq!(receiver.receive_publish().await.payload, "new");
}

/// [MQTT-3.6.2-1], [MQTT-3.7.2-1]. 3.1.1 [MQTT-4.3.3-1], [MQTT-4.3.3-2]: PUBREC and PUBREL are answered, whatever is known of them.
#[tokio::test]
async fn acknowledgements_of_unknown_packets_follow_the_version() {
    let world = World::start();
    let mut five = world.connect(V5, "five").await;
    five.send_all(&[puback(9), pubcomp(9), pubrec(9)]).await;
    let not_found = with_reason(9, ReasonCode::PacketIdentifierNotFound);
    assert_eq!(five.receive().await, Packet::PubRel(not_found.clone()));
    five.send(&pubrel(9)).await;
    assert_eq!(five.receive().await, Packet::PubComp(not_found));

    let mut three = world.connect(V311, "three").await;
    three.send_all(&[puback(9), pubcomp(9), pubrec(9)]).await;
    assert_eq!(three.receive().await, pubrel(9));
    three.send(&pubrel(9)).await;
    assert_eq!(three.receive().await, pubcomp(9));
    three.expect_quiet().await;
}

#[tokio::test]
async fn an_acknowledgement_of_the_wrong_kind_closes_the_connection() {
    let world = World::start();
    let mut receiver = subscriber(&world, "t", Qos::AtLeastOnce).await;
    world.connect(V5, "a").await.publish_qos1("t", 1).await;
    let packet_id = receiver.receive_publish().await.packet_id.unwrap();
    receiver
        .send(&Packet::PubRec(Ack::success(packet_id)))
        .await;
    receiver.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// [MQTT-4.3.3-9]. 3.1.1 [MQTT-3.3.5-2].
#[tokio::test]
async fn a_publish_that_is_not_authorized_is_refused_as_the_version_allows() {
    let world = World::start();
    let mut receiver = subscriber(&world, "#", Qos::AtMostOnce).await;
    let mut five = world.connect(V5, "five").await;
    let ack = five.publish_qos1("forbidden/t", 1).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    five.send(&qos2("forbidden/t", 2, "x")).await;
    match five.receive().await {
        Packet::PubRec(ack) => assert_eq!(ack.reason, ReasonCode::NotAuthorized),
        other => panic!("PUBREC expected, not {other:?}"),
    }
    // The exchange is over: the identifier is free.
    five.send(&qos1("t", 2, "allowed")).await;

    let mut three = world.connect(V311, "three").await;
    three.send(&qos2("forbidden/t", 2, "x")).await;
    assert_eq!(three.receive().await, pubrec(2));
    three.send(&pubrel(2)).await;
    assert_eq!(three.receive().await, pubcomp(2));
    assert_eq!(receiver.receive_publish().await.payload, "allowed");
    receiver.expect_quiet().await;
    assert_eq!(world.metrics.publishes_refused.value(), 3);
}

#[tokio::test]
async fn nobody_publishes_to_sys_and_is_told_so_without_being_closed() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let ack = client.publish_qos1("$SYS/uptime", 1).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    let ack = client.publish_qos1("$other/t", 1).await;
    assert_eq!(ack.reason, ReasonCode::Success);
}

/// [MQTT-4.7.2-1].
#[tokio::test]
async fn wildcards_at_the_root_match_neither_dollar_topics_nor_the_plugin() {
    let world = World::start();
    let mut receiver = subscriber(&world, "#", Qos::AtMostOnce).await;
    receiver.subscribe(&[("+/t", Qos::AtMostOnce)]).await;
    let mut client = world.connect(V5, "a").await;
    client
        .send_all(&[qos0("$x/t", "1"), qos0("plug/t", "2"), qos0("é/t", "3")])
        .await;
    assert_eq!(receiver.receive_publish().await.payload, "3");
    receiver.expect_quiet().await;
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]: unaltered, and User
/// Properties in their order.
#[tokio::test]
async fn properties_reach_the_subscriber_unaltered() {
    let world = World::start();
    let mut receiver = subscriber(&world, "t", Qos::AtLeastOnce).await;
    let mut publish = message("t", Qos::AtLeastOnce, 1, "hi");
    let properties = &mut publish.properties;
    properties.payload_format_indicator = Some(true);
    properties.response_topic = Some("answers".into());
    properties.correlation_data = Some(Bytes::from_static(b"\x00\xff"));
    properties.content_type = Some("text/plain".into());
    properties.user_properties = vec![("b".into(), "2".into()), ("a".into(), "1".into())];
    let mut client = world.connect(V5, "a").await;
    client.send(&Packet::Publish(publish.clone())).await;
    let got = receiver.receive_publish().await;
    assert_eq!(got.properties, publish.properties);
}

#[tokio::test]
async fn a_5_0_message_reaches_a_3_1_1_client_without_properties() {
    let world = World::start();
    let mut receiver = world.connect(V311, "receiver").await;
    receiver.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let mut publish = message("t", Qos::AtMostOnce, 0, "hi");
    publish.properties.content_type = Some("text/plain".into());
    let mut client = world.connect(V5, "a").await;
    client.send(&Packet::Publish(publish)).await;
    assert_eq!(
        receiver.receive_publish().await,
        message("t", Qos::AtMostOnce, 0, "hi")
    );
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6].
#[tokio::test]
async fn a_message_that_expired_in_the_queue_is_not_sent() {
    let world = World::start();
    let (mut receiver, _) = world.connect_persistent(V5, "receiver").await;
    receiver.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    receiver.disconnect().await;
    let mut client = world.connect(V5, "a").await;
    for (number, expiry) in [(1, 0), (2, 1_000)] {
        let mut publish = message("t", Qos::AtLeastOnce, number, &number.to_string());
        publish.properties.message_expiry_interval = Some(expiry);
        client.send(&Packet::Publish(publish)).await;
        assert_eq!(client.receive().await, puback(number));
    }
    let (mut receiver, _) = world.connect_persistent(V5, "receiver").await;
    let got = receiver.receive_publish().await;
    assert_eq!(got.payload, "2");
    let left = got.properties.message_expiry_interval.unwrap();
    assert!((990..=1_000).contains(&left), "{left}");
}

// Topic aliases from the client (§3.3.2.3.4).

fn aliased(topic: &'static str, alias: u16, payload: &str) -> Packet {
    let mut publish = message(topic, Qos::AtMostOnce, 0, payload);
    publish.properties.topic_alias = Some(alias);
    Packet::Publish(publish)
}

#[tokio::test]
async fn an_alias_stands_for_the_topic_it_was_last_given() {
    let world = World::start();
    let mut receiver = subscriber(&world, "#", Qos::AtMostOnce).await;
    let mut client = world.connect(V5, "a").await;
    client
        .send_all(&[
            aliased("one", 1, "1"),
            aliased("", 1, "2"),
            aliased("two", 1, "3"),
            aliased("", 1, "4"),
        ])
        .await;
    for expected in ["one", "one", "two", "two"] {
        let got = receiver.receive_publish().await;
        assert_eq!(got.topic, expected);
        assert_eq!(got.properties.topic_alias, None);
    }
}

/// [MQTT-3.3.2-8], [MQTT-3.3.2-9].
#[tokio::test]
async fn a_bad_alias_closes_the_connection_with_its_reason() {
    let world = World::with(|config| config.topic_alias_maximum = 2);
    for (packet, reason) in [
        (aliased("t", 3, "x"), ReasonCode::TopicAliasInvalid),
        (aliased("", 2, "x"), ReasonCode::ProtocolError),
        (qos0("", "x"), ReasonCode::ProtocolError),
    ] {
        let mut client = world.connect(V5, "a").await;
        client.send(&packet).await;
        client.expect_disconnect(reason).await;
    }
    let mut client = world.connect(V5, "a").await;
    // PUBLISH to "t" with Topic Alias 0.
    client
        .send_bytes(b"\x30\x07\x00\x01t\x03\x23\x00\x00")
        .await;
    client
        .expect_disconnect(ReasonCode::TopicAliasInvalid)
        .await;
}

/// [MQTT-3.3.2-7]: no alias is carried over to another connection.
#[tokio::test]
async fn an_alias_ends_with_its_connection() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.send(&aliased("t", 1, "x")).await;
    client.disconnect().await;
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.send(&aliased("", 1, "x")).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

// Retained messages (§3.3.1.3).

fn retained(topic: &'static str, payload: &str) -> Packet {
    let mut publish = message(topic, Qos::AtLeastOnce, 1, payload);
    publish.retain = true;
    Packet::Publish(publish)
}

#[tokio::test]
async fn the_last_retained_message_comes_with_a_subscription() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client
            .send_all(&[
                retained("r/1", "old"),
                retained("r/1", "new"),
                retained("r/2", "x"),
            ])
            .await;
        for _ in 0..3 {
            assert_eq!(client.receive().await, puback(1));
        }
        client.send(&retained("r/2", "")).await;
        assert_eq!(client.receive().await, puback(1));
        let mut receiver = world.connect(version, "receiver").await;
        receiver.subscribe(&[("r/+", Qos::AtMostOnce)]).await;
        let got = receiver.receive_publish().await;
        assert_eq!((&*got.topic, &*got.payload), ("r/1", &b"new"[..]));
        assert!(got.retain);
        receiver.expect_quiet().await;
    }
}

/// [MQTT-3.3.1-8]: «MUST NOT store the message as a retained message and MUST NOT remove or replace any existing» one.
#[tokio::test]
async fn an_empty_payload_deletes_only_when_it_is_retained() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.send(&retained("r/1", "kept")).await;
    assert_eq!(client.receive().await, puback(1));
    client.publish_qos1("r/1", 2).await;
    client.send(&qos1("r/1", 3, "")).await;
    assert_eq!(client.receive().await, puback(3));
    client.subscribe(&[("r/+", Qos::AtMostOnce)]).await;
    assert_eq!(client.receive_publish().await.payload, "kept");
    client.expect_quiet().await;
}

/// [MQTT-3.1.2-29].
#[tokio::test]
async fn a_refusal_says_why_unless_the_client_wants_no_problem_information() {
    let world = World::start();
    for (wanted, expected) in [
        (None, Some("not authorized for this topic")),
        (Some(true), Some("not authorized for this topic")),
        (Some(false), None),
    ] {
        let mut asked = connect(V5, "a");
        asked.properties.request_problem_information = wanted;
        let (mut client, _) = world.connect_with(asked).await;
        let ack = client.publish_qos1("forbidden", 1).await;
        assert_eq!(ack.reason, ReasonCode::NotAuthorized);
        let text = ack.properties.and_then(|it| it.reason_string);
        assert_eq!(text.as_deref(), expected);
    }
}

#[tokio::test]
async fn a_retained_message_that_is_live_comes_without_the_flag() {
    let world = World::start();
    let mut receiver = subscriber(&world, "r", Qos::AtMostOnce).await;
    world.connect(V5, "a").await.send(&retained("r", "x")).await;
    assert!(!receiver.receive_publish().await.retain);
}

#[tokio::test]
async fn a_full_retained_store_refuses() {
    let world = World::with(|config| config.retained_messages_max = 1);
    let mut client = world.connect(V5, "a").await;
    client
        .send_all(&[retained("r/1", "x"), retained("r/2", "x")])
        .await;
    assert_eq!(client.receive().await, puback(1));
    match client.receive().await {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::QuotaExceeded),
        other => panic!("PUBACK expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_publish_that_was_refused_is_delivered_to_nobody() {
    let world = World::with(|config| config.retained_messages_max = 1);
    let mut receiver = subscriber(&world, "r/#", Qos::AtMostOnce).await;
    let mut client = world.connect(V5, "a").await;
    client
        .send_all(&[retained("r/1", "x"), retained("r/2", "x")])
        .await;
    client.receive().await;
    client.receive().await;
    // Who cannot be told is not refused.
    let Packet::Publish(mut untold) = retained("r/3", "x") else {
        panic!("PUBLISH expected")
    };
    (untold.qos, untold.packet_id) = (Qos::AtMostOnce, None);
    client
        .send_all(&[Packet::Publish(untold), Packet::PingReq])
        .await;
    assert_eq!(client.receive().await, Packet::PingResp);
    let mut old = world.connect(V311, "b").await;
    old.send(&retained("r/4", "x")).await;
    assert_eq!(old.receive().await, puback(1));
    for topic in ["r/1", "r/3", "r/4"] {
        assert_eq!(receiver.receive_publish().await.topic, topic);
    }
}

// Malformed packets.

/// [MQTT-4.13.1-1], [MQTT-4.13.2-1]. 3.1.1 [MQTT-4.8.0-1].
#[tokio::test]
async fn a_malformed_packet_closes_its_connection_and_nothing_else() {
    let world = World::start();
    let mut bystander = world.connect(V5, "bystander").await;
    let cases: [(&[u8], ReasonCode); 6] = [
        // QoS 3.
        (
            b"\x36\x06\x00\x01t\x00\x01\x00",
            ReasonCode::MalformedPacket,
        ),
        // A topic with a wildcard.
        (b"\x30\x04\x00\x01#\x00", ReasonCode::MalformedPacket),
        // Packet identifier 0.
        (b"\x32\x06\x00\x01t\x00\x00\x00", ReasonCode::ProtocolError),
        // A reserved packet type.
        (b"\x00\x00", ReasonCode::MalformedPacket),
        // A length of five bytes.
        (b"\x30\xff\xff\xff\xff\x01", ReasonCode::MalformedPacket),
        // What only a server sends.
        (b"\xd0\x00", ReasonCode::ProtocolError),
    ];
    for (bytes, reason) in cases {
        let mut client = world.connect(V5, "a").await;
        client.send_bytes(bytes).await;
        client.expect_disconnect(reason).await;
        let mut old = world.connect(V311, "b").await;
        old.send_bytes(bytes).await;
        old.expect_closed().await;
    }
    bystander.expect_quiet().await;
}

#[tokio::test]
async fn a_packet_may_come_byte_by_byte() {
    let world = World::start();
    let mut client = world.connect(V311, "a").await;
    for byte in b"\x32\x07\x00\x01t\x00\x07hi" {
        client.send_bytes(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.receive().await, Packet::PubAck(Ack::success(id(7))));
}
