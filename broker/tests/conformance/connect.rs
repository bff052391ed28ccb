//! CONNECT, CONNACK, wills and takeover (MQTT 5.0 §3.1, §3.2; 3.1.1 §3.1, §3.2).

use broker::codec::packet::{Packet, Qos, Will};
use broker::codec::properties::WillProperties;
use broker::codec::reason::ReasonCode;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::client::{Client, V5, V311, connect, connect_persistent, disconnect, message, qos0};
use super::world::{Event, World};

pub(crate) fn will(topic: &'static str, delay: Option<u32>) -> Will {
    Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtMostOnce,
        retain: false,
        properties: WillProperties {
            will_delay_interval: delay,
            ..WillProperties::default()
        },
    }
}

#[tokio::test]
async fn connack_announces_the_limits_of_the_server() {
    let world = World::with(|config| {
        config.receive_maximum = 7;
        config.packet_bytes_max = 5_000;
        config.topic_alias_maximum = 3;
    });
    let (_client, ack) = world.connect_with(connect(V5, "a")).await;
    assert!(!ack.session_present);
    assert_eq!(ack.properties.receive_maximum, Some(7));
    assert_eq!(ack.properties.maximum_packet_size, Some(5_000));
    assert_eq!(ack.properties.topic_alias_maximum, Some(3));
    // Absent means available (MQTT 5.0 §3.2.2.3.13).
    assert_eq!(ack.properties.shared_subscription_available, None);
    assert_eq!(ack.properties.maximum_qos, None);
}

/// [MQTT-3.1.0-1]. 3.1.1 [MQTT-3.1.0-1].
#[tokio::test]
async fn a_first_packet_that_is_not_connect_closes_the_connection() {
    let world = World::start();
    let mut client = world.open(V311).await;
    client.send(&Packet::PingReq).await;
    client.expect_closed().await;
}

/// [MQTT-3.1.0-2]: a second CONNECT is a Protocol Error. 3.1.1 [MQTT-3.1.0-2].
#[tokio::test]
async fn second_connect_closes_the_connection() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let again = Packet::Connect(Box::new(connect(V5, "a")));
    client.send(&again).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;

    let mut old = world.connect(V311, "b").await;
    let again = Packet::Connect(Box::new(connect(V311, "b")));
    old.send(&again).await;
    old.expect_closed().await;
}

/// [MQTT-3.1.2-2]. 3.1.1 [MQTT-3.1.2-2]: CONNACK says so, and the connection is closed.
#[tokio::test]
async fn other_protocol_versions_are_told_in_a_form_that_they_read() {
    let world = World::start();
    let mut three = world.open(V311).await;
    three
        .send_bytes(b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x00\x00\x03abc")
        .await;
    match three.receive().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::UnsupportedProtocolVersion),
        other => panic!("{other:?}"),
    }
    let mut six = world.open(V5).await;
    six.send_bytes(b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01a")
        .await;
    match six.receive().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::UnsupportedProtocolVersion),
        other => panic!("{other:?}"),
    }
}

/// 3.1: CONNACK knows no session, and DUP may be set in SUBSCRIBE.
#[tokio::test]
async fn mqtt_3_1_is_accepted_by_option() {
    let world = World::with(|config| config.mqtt31 = true);
    for _ in 0..2 {
        let mut client = world.open(V311).await;
        client
            .send_bytes(b"\x10\x11\x00\x06MQIsdp\x03\x00\x00\x00\x00\x03abc")
            .await;
        match client.receive().await {
            Packet::ConnAck(ack) => {
                assert_eq!(
                    (ack.reason, ack.session_present),
                    (ReasonCode::Success, false)
                );
            }
            other => panic!("CONNACK expected, not {other:?}"),
        }
        client.send_bytes(b"\x8A\x06\x00\x01\x00\x01t\x01").await;
        assert!(matches!(client.receive().await, Packet::SubAck(_)));
        client.send(&qos0("t", "hi")).await;
        assert_eq!(client.receive_publish().await.payload, "hi");
        client.disconnect().await;
        world.plugin.disconnected().await;
    }
    let mut newer = world.connect(V311, "b").await;
    newer.send_bytes(b"\x8A\x06\x00\x01\x00\x01t\x01").await;
    newer.expect_closed().await;
}

/// [MQTT-3.1.2-28].
#[tokio::test]
async fn response_information_is_given_to_who_asks_for_it() {
    let world = World::with(|config| config.response_information = "answers/".to_owned());
    for (asked, expected) in [
        (None, None),
        (Some(false), None),
        (Some(true), Some("answers/")),
    ] {
        let mut connect = connect(V5, "a");
        connect.properties.request_response_information = asked;
        let (_client, ack) = world.connect_with(connect).await;
        assert_eq!(ack.properties.response_information.as_deref(), expected);
    }
}

/// [MQTT-3.1.4-2], [MQTT-3.2.2-7]. 3.1.1 [MQTT-3.2.2-5].
#[tokio::test]
async fn refused_credentials_are_told() {
    let world = World::start();
    for (version, reason) in [
        (V5, ReasonCode::BadUserNameOrPassword),
        (V311, ReasonCode::BadUserNameOrPassword),
    ] {
        let mut refused = connect(version, "a");
        refused.user_name = Some("nobody".into());
        let mut client = world.open(version).await;
        let ack = client.connect(refused).await;
        assert_eq!((ack.reason, ack.session_present), (reason, false));
        client.expect_closed().await;
    }
    assert_eq!(world.metrics.connects_refused.value(), 2);
}

#[tokio::test]
async fn a_session_that_the_plugin_refuses_is_not_opened() {
    let world = World::start();
    world.plugin.refuse_sessions(ReasonCode::QuotaExceeded);
    let mut client = world.open(V5).await;
    let ack = client.connect(connect(V5, "a")).await;
    assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
    client.expect_closed().await;
}

/// [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]: who comes without a Client Identifier gets a new one, and is told.
/// 3.1.1 [MQTT-3.1.3-6].
#[tokio::test]
async fn an_empty_client_id_is_replaced_by_the_server() {
    let world = World::start();
    let (_one, first) = world.connect_with(connect(V5, "")).await;
    let (_two, second) = world.connect_with(connect(V5, "")).await;
    let first = first.properties.assigned_client_identifier.unwrap();
    let second = second.properties.assigned_client_identifier.unwrap();
    assert_ne!(first, second);
    world.connect(V311, "").await;
}

/// 3.1.1 [MQTT-3.1.3-7], [MQTT-3.1.3-8], [MQTT-3.1.3-9]: return code 2, and the connection is closed.
#[tokio::test]
async fn an_empty_client_id_without_clean_session_is_refused_in_3_1_1() {
    let world = World::start();
    let mut client = world.open(V311).await;
    let ack = client.connect(connect_persistent(V311, "")).await;
    assert_eq!(ack.reason, ReasonCode::ClientIdentifierNotValid);
    client.expect_closed().await;
}

#[tokio::test]
async fn keep_alive_is_capped_by_the_server() {
    let world = World::with(|config| config.keep_alive_max_s = 60);
    let mut asked = connect(V5, "a");
    // Without one, a client that is gone would never be noticed.
    for keep_alive in [120, 0] {
        asked.keep_alive = keep_alive;
        let (_client, ack) = world.connect_with(asked.clone()).await;
        assert_eq!(ack.properties.server_keep_alive, Some(60));
    }
}

#[tokio::test]
async fn a_slow_authentication_holds_up_nobody_else() {
    let world = World::start();
    let mut slow = connect(V5, "slow");
    slow.user_name = Some("slow".into());
    let mut waiting = world.open(V5).await;
    waiting.send(&Packet::Connect(Box::new(slow))).await;
    world.connect(V5, "fast").await;
    world.plugin.let_in();
    assert!(matches!(waiting.receive().await, Packet::ConnAck(_)));
}

#[tokio::test]
async fn packets_behind_connect_need_not_wait_for_connack() {
    let world = World::start();
    let mut client = world.open(V311).await;
    client
        .send_all(&[
            Packet::Connect(Box::new(connect(V311, "a"))),
            qos0("t", "early"),
            Packet::PingReq,
        ])
        .await;
    assert!(matches!(client.receive().await, Packet::ConnAck(_)));
    assert_eq!(client.receive().await, Packet::PingResp);
}

#[tokio::test]
async fn a_client_that_sends_no_connect_is_closed() {
    let world = World::with(|config| config.connect_timeout_ms = 50);
    let mut client = world.open(V5).await;
    client.expect_closed().await;
    let mut half = world.open(V5).await;
    half.send_bytes(b"\x10\x20\x00\x04MQTT").await;
    half.expect_closed().await;
}

#[tokio::test]
async fn a_login_that_takes_too_long_is_told() {
    let world = World::with(|config| config.connect_timeout_ms = 50);
    let mut slow = connect(V5, "slow");
    slow.user_name = Some("slow".into());
    let mut client = world.open(V5).await;
    let ack = client.connect(slow).await;
    assert_eq!(ack.reason, ReasonCode::ServerUnavailable);
}

// Takeover.

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let world = World::start();
    let mut first = world.connect(V5, "a").await;
    let _second = world.connect(V5, "a").await;
    first.expect_disconnect(ReasonCode::SessionTakenOver).await;
    let events: Vec<Event> = [
        world.plugin.next().await,
        world.plugin.next().await,
        world.plugin.next().await,
    ]
    .map(|(_, event)| event)
    .into();
    assert!(
        matches!(
            events[..],
            [
                Event::Connected(_),
                Event::Disconnected(_),
                Event::Connected(_)
            ]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn the_same_client_id_of_another_user_is_another_session() {
    let world = World::start();
    let mut first = world.connect(V5, "a").await;
    let mut other = connect(V5, "a");
    other.user_name = Some("bob".into());
    let (_second, _) = world.connect_with(other).await;
    first.expect_quiet().await;
}

#[tokio::test]
async fn of_many_connections_at_once_exactly_one_stays() {
    const CLIENTS: usize = 20;
    let world = World::start();
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let address = world.address;
        tasks.spawn(async move {
            let mut client = Client::open(address, V5).await;
            let connect = Packet::Connect(Box::new(connect_persistent(V5, "a")));
            client.send(&connect).await;
            client
        });
    }
    let clients = tasks.join_all().await;
    // Each is let in, or overtaken before its turn; the last one is let in.
    let metrics = &world.metrics;
    while metrics.connects_accepted.value() + metrics.connects_refused.value() < CLIENTS as u64 {
        tokio::task::yield_now().await;
    }
    let (mut live, mut most) = (0, 0);
    for event in world.plugin.events_so_far().await {
        match event {
            Event::Connected(_) => live += 1,
            Event::Disconnected(_) => live -= 1,
            _ => {}
        }
        most = most.max(live);
    }
    assert_eq!((live, most), (1, 1));
    drop(clients);
}

#[tokio::test]
async fn a_session_survives_takeover() {
    let world = World::start();
    let (mut first, _) = world.connect_persistent(V5, "a").await;
    first.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    let (mut second, ack) = world.connect_persistent(V5, "a").await;
    assert!(ack.session_present);
    world.connect(V5, "b").await.publish_qos1("t", 1).await;
    assert_eq!(second.receive_publish().await.topic, "t");
}

// Wills.

async fn watcher(world: &World) -> Client {
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("will/#", Qos::ExactlyOnce)]).await;
    watcher
}

/// [MQTT-3.1.2-8]. 3.1.1 [MQTT-3.1.2-8].
#[tokio::test]
async fn a_will_is_published_when_the_client_vanishes() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = watcher(&world).await;
        let mut connect = connect(version, "a");
        connect.will = Some(will("will/a", None));
        let (client, _) = world.connect_with(connect).await;
        client.vanish();
        assert_eq!(watcher.receive_publish().await.payload, "gone");
    }
}

/// [MQTT-3.14.4-3], [MQTT-3.1.2-10].
#[tokio::test]
async fn a_goodbye_deletes_the_will_unless_it_asks_for_it() {
    let world = World::start();
    let mut watcher = watcher(&world).await;
    let mut connect = connect(V5, "a");
    connect.will = Some(will("will/a", None));
    let (client, _) = world.connect_with(connect.clone()).await;
    client.disconnect().await;
    watcher.expect_quiet().await;
    let (mut client, _) = world.connect_with(connect).await;
    client
        .send(&disconnect(ReasonCode::DisconnectWithWillMessage, None))
        .await;
    assert_eq!(watcher.receive_publish().await.topic, "will/a");
}

/// [MQTT-3.1.3-9]: no will if the client is back before its delay has passed.
#[tokio::test]
async fn a_delayed_will_is_not_published_if_the_client_comes_back() {
    let world = World::start();
    let mut watcher = watcher(&world).await;
    let mut asked = connect_persistent(V5, "a");
    asked.will = Some(will("will/a", Some(1)));
    let (client, _) = world.connect_with(asked.clone()).await;
    client.vanish();
    world.plugin.disconnected().await;
    asked.will = None;
    world.connect_with(asked).await.0.disconnect().await;
    // The will of somebody who is not back comes after the same delay, and first.
    let mut other = connect_persistent(V5, "b");
    other.will = Some(will("will/b", Some(1)));
    world.connect_with(other).await.0.vanish();
    assert_eq!(watcher.receive_publish().await.topic, "will/b");
}

/// [MQTT-3.1.2-8]: the end of the session comes before the delay.
#[tokio::test]
async fn a_delayed_will_is_published_when_the_session_ends() {
    let world = World::start();
    let mut watcher = watcher(&world).await;
    let mut asked = connect_persistent(V5, "a");
    asked.will = Some(will("will/a", Some(1_000)));
    let (client, _) = world.connect_with(asked).await;
    client.vanish();
    world.plugin.disconnected().await;
    let _clean = world.connect(V5, "a").await;
    assert_eq!(watcher.receive_publish().await.topic, "will/a");
}

#[tokio::test]
async fn a_will_that_its_client_may_not_publish_is_refused() {
    let world = World::start();
    for topic in ["forbidden/a", "plug/a", "$SYS/a"] {
        let mut asked = connect(V5, "a");
        asked.will = Some(will(topic, None));
        let mut client = world.open(V5).await;
        let ack = client.connect(asked).await;
        assert_eq!(ack.reason, ReasonCode::NotAuthorized, "{topic}");
    }
}

/// [MQTT-3.1.3-10], §3.1.3.2: the properties of a will become those of its PUBLISH; its own QoS and lifetime count.
#[tokio::test]
async fn a_will_has_all_its_properties() {
    let world = World::start();
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("w", Qos::ExactlyOnce)]).await;
    let mut asked = connect(V5, "a");
    let properties = WillProperties {
        will_delay_interval: Some(0),
        payload_format_indicator: Some(true),
        message_expiry_interval: Some(1_000),
        content_type: Some("text/plain".into()),
        response_topic: Some("answers".into()),
        correlation_data: Some(Bytes::from_static(b"7")),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
    };
    asked.will = Some(Will {
        qos: Qos::AtLeastOnce,
        properties: properties.clone(),
        ..will("w", None)
    });
    world.connect_with(asked).await.0.vanish();
    let got = watcher.receive_publish().await;
    assert_eq!(
        (got.qos, &got.payload[..]),
        (Qos::AtLeastOnce, &b"gone"[..])
    );
    let left = got.properties.message_expiry_interval.unwrap();
    assert!((990..=1_000).contains(&left), "{left}");
    assert_eq!(got.properties.payload_format_indicator, Some(true));
    assert_eq!(got.properties.content_type, properties.content_type);
    assert_eq!(got.properties.response_topic, properties.response_topic);
    assert_eq!(got.properties.correlation_data, properties.correlation_data);
    assert_eq!(got.properties.user_properties, properties.user_properties);
}

/// [MQTT-3.1.2-15].
#[tokio::test]
async fn a_will_can_be_retained() {
    let world = World::start();
    let mut connect = connect(V5, "a");
    let mut retained = will("will/a", None);
    retained.retain = true;
    connect.will = Some(retained);
    let (client, _) = world.connect_with(connect).await;
    client.vanish();
    world.plugin.disconnected().await;
    let mut watcher = watcher(&world).await;
    let received = watcher.receive_publish().await;
    let mut expected = message("will/a", Qos::AtMostOnce, 0, "gone");
    expected.retain = true;
    assert_eq!(received, expected);
}
