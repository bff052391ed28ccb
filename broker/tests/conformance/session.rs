//! Sessions that outlive their connection (MQTT 5.0 §3.1.2.4, §3.1.2.11.2, §4.1, §4.4).

use broker::codec::packet::{Ack, Packet, PacketId, Qos, Version};
use broker::codec::reason::ReasonCode;
use broker::hooks::SessionRestored;

use super::client::{
    V5, V311, connect, connect_persistent, disconnect, id, pubcomp, pubrec, pubrel, qos0, qos1,
    qos2,
};
use super::world::{Event, World};

async fn away_subscriber(world: &World, version: Version) {
    let (mut client, ack) = world.connect_persistent(version, "a").await;
    assert!(!ack.session_present);
    client
        .subscribe(&[("one", Qos::AtLeastOnce), ("two", Qos::ExactlyOnce)])
        .await;
    client.disconnect().await;
}

/// [MQTT-3.1.2-5], [MQTT-3.1.2-23]. 3.1.1 [MQTT-3.1.2-4], [MQTT-3.1.2-5].
#[tokio::test]
async fn messages_wait_for_a_client_that_is_away() {
    let world = World::start();
    for version in [V5, V311] {
        away_subscriber(&world, version).await;
        let mut sender = world.connect(version, "sender").await;
        sender.send(&qos0("one", "lost")).await;
        sender.publish_qos1("one", 1).await;
        sender.publish_qos1("two", 1).await;
        let (mut client, ack) = world.connect_persistent(version, "a").await;
        assert!(ack.session_present);
        assert_eq!(client.receive_publish().await.topic, "one");
        assert_eq!(client.receive_publish().await.topic, "two");
        let mut over = connect(version, "a");
        over.clean_start = true;
        let (_client, ack) = world.connect_with(over).await;
        assert!(!ack.session_present);
    }
}

/// [MQTT-3.1.2-4].
#[tokio::test]
async fn clean_start_discards_the_session() {
    let world = World::start();
    away_subscriber(&world, V5).await;
    world
        .connect(V5, "sender")
        .await
        .publish_qos1("one", 1)
        .await;
    let (mut client, ack) = world.connect_with(connect(V5, "a")).await;
    assert!(!ack.session_present);
    world
        .connect(V5, "sender")
        .await
        .publish_qos1("one", 1)
        .await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    let world = World::start();
    let mut short = connect(V5, "a");
    short.clean_start = false;
    let (client, _) = world.connect_with(short.clone()).await;
    client.disconnect().await;
    assert!(world.plugin.disconnected().await.discarded);
    let (_client, ack) = world.connect_with(short).await;
    assert!(!ack.session_present);
}

#[tokio::test]
async fn a_session_with_clean_start_and_an_expiry_is_kept() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "a");
    asked.clean_start = true;
    world.connect_with(asked).await.0.disconnect().await;
    let (_client, ack) = world.connect_persistent(V5, "a").await;
    assert!(ack.session_present);
}

/// [MQTT-4.1.0-2].
#[tokio::test]
async fn a_session_expires() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "a");
    asked.properties.session_expiry_interval = Some(1);
    let (mut client, _) = world.connect_with(asked).await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    client.disconnect().await;
    // Kept first, then gone: the gauge tells, without our asking for the session.
    while world.metrics.sessions_kept.value() == 0 {
        tokio::task::yield_now().await;
    }
    while world.metrics.sessions_kept.value() == 1 {
        tokio::task::yield_now().await;
    }
    let (_client, ack) = world.connect_persistent(V5, "a").await;
    assert!(!ack.session_present);
}

#[tokio::test]
async fn disconnect_may_change_the_expiry_but_not_give_life() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.send(&disconnect(ReasonCode::Success, Some(0))).await;
    client.expect_closed().await;
    let end = world.plugin.disconnected().await;
    assert_eq!((end.discarded, end.session_expiry), (true, 0));

    let mut client = world.connect(V5, "a").await;
    client.send(&disconnect(ReasonCode::Success, Some(5))).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1], [MQTT-4.3.3-6]. 3.1.1 [MQTT-4.4.0-1], [MQTT-4.6.0-1].
#[tokio::test]
async fn unacknowledged_messages_come_again_in_order_with_dup() {
    let world = World::start();
    for version in [V5, V311] {
        let (mut client, _) = world.connect_persistent(version, "a").await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        sender
            .send_all(&[
                qos1("t", 1, "1"),
                qos2("t", 2, "2"),
                qos1("t", 3, "3"),
                qos2("t", 4, "4"),
            ])
            .await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(client.receive_publish().await.packet_id.unwrap().get());
        }
        // The third is acknowledged, the fourth is half way.
        client.send(&Packet::PubAck(Ack::success(id(ids[2])))).await;
        client.send(&pubrec(ids[3])).await;
        assert_eq!(client.receive().await, pubrel(ids[3]));
        client.vanish();
        let (mut client, ack) = world.connect_persistent(version, "a").await;
        assert!(ack.session_present);
        for (payload, packet_id) in [("1", ids[0]), ("2", ids[1])] {
            let again = client.receive_publish().await;
            assert_eq!(again.payload, payload);
            assert_eq!(again.packet_id, PacketId::new(packet_id));
            assert!(again.dup);
        }
        assert_eq!(client.receive().await, pubrel(ids[3]));
        client.send(&pubcomp(ids[3])).await;
        client.expect_quiet().await;
        world.connect(version, "a").await;
    }
}

#[tokio::test]
async fn a_qos2_exchange_survives_a_reconnect() {
    let world = World::start();
    let mut receiver = world.connect(V5, "receiver").await;
    receiver.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.send(&qos2("t", 3, "once")).await;
    assert_eq!(client.receive().await, pubrec(3));
    client.vanish();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.send(&qos2("t", 3, "once")).await;
    assert_eq!(client.receive().await, pubrec(3));
    client.send(&pubrel(3)).await;
    assert_eq!(client.receive().await, pubcomp(3));
    assert_eq!(receiver.receive_publish().await.payload, "once");
    receiver.expect_quiet().await;
}

#[tokio::test]
async fn the_plugin_learns_how_a_session_opens_and_ends() {
    let world = World::start();
    world
        .connect_persistent(V311, "a")
        .await
        .0
        .disconnect()
        .await;
    let opened = async || {
        world
            .plugin
            .wait(|event| match event {
                Event::Connected(open) => Some(open),
                _ => None,
            })
            .await
    };
    let open = opened().await;
    assert!(!open.clean_start && !open.present);
    assert_eq!(open.session_expiry, 90 * 24 * 3_600);
    let end = world.plugin.disconnected().await;
    assert!(!end.discarded);
    let _again = world.connect_persistent(V311, "a").await;
    assert!(opened().await.present);
}

/// The broker whose own sessions are at rest knows better [MQTT-3.2.2-3].
#[tokio::test]
async fn a_session_that_only_the_plugin_remembers_is_present_if_the_broker_keeps_none_at_rest() {
    for (world, is_present) in [(World::start(), true), (World::with_sessions(), false)] {
        let present = SessionRestored {
            present: true,
            inflight: Vec::new(),
        };
        world.plugin.restore("a", present);
        let (_client, ack) = world.connect_persistent(V5, "a").await;
        assert_eq!(ack.session_present, is_present);
    }
}

#[tokio::test]
async fn too_many_kept_sessions_push_out_the_one_that_expires_first() {
    let world = World::with(|config| config.sessions_kept_max = 1);
    for (client_id, expiry) in [("late", 100), ("soon", 50)] {
        let mut asked = connect_persistent(V5, client_id);
        asked.properties.session_expiry_interval = Some(expiry);
        world.connect_with(asked).await.0.disconnect().await;
        world.plugin.disconnected().await;
    }
    let (_late, ack) = world.connect_persistent(V5, "late").await;
    assert!(ack.session_present);
    let (_soon, ack) = world.connect_persistent(V5, "soon").await;
    assert!(!ack.session_present);
    assert_eq!(world.metrics.sessions_evicted.value(), 1);
}
