//! Wills: what of them is published, how and how often (MQTT 5.0 §3.1.2.5, §3.1.3.2; 3.1.1 §3.1.2.5). When they are is in
//! `connect`.

use broker::codec::packet::{Packet, PacketId, Qos, Version, Will};
use broker::codec::properties::WillProperties;
use broker::codec::reason::ReasonCode;
use bytes::Bytes;

use super::client::{Client, V5, V311, connect, disconnect, message, puback, pubcomp, pubrec};
use super::world::World;

fn will(qos: Qos, retain: bool) -> Will {
    Will {
        topic: "will/a".into(),
        payload: Bytes::from_static(b"gone"),
        qos,
        retain,
        properties: WillProperties::default(),
    }
}

async fn watcher(world: &World, version: Version) -> Client {
    let mut watcher = world.connect(version, "watcher").await;
    watcher.subscribe(&[("will/#", Qos::ExactlyOnce)]).await;
    watcher
}

async fn connect_with(world: &World, version: Version, will: Option<Will>) -> Client {
    let mut asked = connect(version, "a");
    asked.will = will;
    world.connect_with(asked).await.0
}

/// [MQTT-3.1.2-7], [MQTT-3.1.2-8]: a will is published when the connection ends, [MQTT-3.1.2-12], [MQTT-3.1.2-14]: at its
/// QoS and not retained.
/// 3.1.1 [MQTT-3.1.2-8], [MQTT-3.1.2-9], [MQTT-3.1.2-14], [MQTT-3.1.2-16].
#[tokio::test]
async fn a_will_is_published_at_its_qos_and_not_retained() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = watcher(&world, version).await;
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            connect_with(&world, version, Some(will(qos, false)))
                .await
                .vanish();
            let got = watcher.receive_publish().await;
            assert_eq!((&*got.topic, &*got.payload), ("will/a", &b"gone"[..]));
            assert_eq!((got.qos, got.retain, got.dup), (qos, false, false));
            let number = got.packet_id.map_or(0, PacketId::get);
            match qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => watcher.send(&puback(number)).await,
                Qos::ExactlyOnce => {
                    watcher.send(&pubrec(number)).await;
                    assert!(matches!(watcher.receive().await, Packet::PubRel(_)));
                    watcher.send(&pubcomp(number)).await;
                }
            }
        }
        // Nothing was retained.
        watcher.subscribe(&[("will/#", Qos::AtMostOnce)]).await;
        watcher.expect_quiet().await;
    }
}

/// [MQTT-3.1.2-15]: with Will Retain, a will is retained. 3.1.1 [MQTT-3.1.2-17].
#[tokio::test]
async fn a_will_with_will_retain_is_retained() {
    let world = World::start();
    for version in [V5, V311] {
        let mut first = watcher(&world, version).await;
        connect_with(&world, version, Some(will(Qos::AtMostOnce, true)))
            .await
            .vanish();
        assert!(!first.receive_publish().await.retain);
        let mut watcher = watcher(&world, version).await;
        assert!(watcher.receive_publish().await.retain);
        let mut delete = message("will/a", Qos::AtMostOnce, 0, "");
        delete.retain = true;
        watcher.send(&Packet::Publish(delete)).await;
        watcher.receive_publish().await;
    }
}

/// [MQTT-3.1.2-10]: a will is gone once it was published, or after DISCONNECT. 3.1.1 [MQTT-3.1.2-10], [MQTT-3.1.2-12]: and
/// without a will there is none.
#[tokio::test]
async fn a_will_is_published_once() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = watcher(&world, version).await;
        connect_with(&world, version, Some(will(Qos::AtMostOnce, false)))
            .await
            .vanish();
        watcher.receive_publish().await;
        // The next connection has none.
        connect_with(&world, version, None).await.vanish();
        world.plugin.disconnected().await;
        world.plugin.disconnected().await;
        watcher.expect_quiet().await;
        // One that said goodbye has none either, also when it is followed by one that vanishes.
        let said = connect_with(&world, version, Some(will(Qos::AtMostOnce, false))).await;
        said.disconnect().await;
        connect_with(&world, version, None).await.vanish();
        world.plugin.disconnected().await;
        world.plugin.disconnected().await;
        watcher.expect_quiet().await;
    }
}

/// The will of a client that is away is a publish of then, for the plugin as for the operator's rules.
#[tokio::test]
async fn a_delayed_will_is_published_with_the_rights_of_then() {
    for forbidden in [None, Some("will/a")] {
        let world = World::start();
        let mut watcher = watcher(&world, V5).await;
        let mut delayed = will(Qos::AtMostOnce, false);
        delayed.properties.will_delay_interval = Some(1_000);
        let mut asked = connect(V5, "a");
        asked.properties.session_expiry_interval = Some(2_000);
        asked.will = Some(delayed);
        world.connect_with(asked).await.0.vanish();
        world.plugin.disconnected().await;
        if let Some(topic) = forbidden {
            world.plugin.forbid(topic);
        }
        watcher.expect_quiet().await;
        // The session ends before its time, and the will with it.
        connect_with(&world, V5, None).await;
        match forbidden {
            None => drop(watcher.receive_publish().await),
            Some(_) => watcher.expect_quiet().await,
        }
    }
}

/// [MQTT-3.14.4-3]: a normal DISCONNECT deletes the will. 3.1.1 [MQTT-3.14.4-3]: every DISCONNECT does.
#[tokio::test]
async fn a_normal_disconnect_deletes_the_will() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = watcher(&world, version).await;
        let mut client = connect_with(&world, version, Some(will(Qos::AtMostOnce, false))).await;
        client.send(&disconnect(ReasonCode::Success, None)).await;
        client.expect_closed().await;
        world.plugin.disconnected().await;
        watcher.expect_quiet().await;
    }
}

/// [MQTT-3.1.2-8]: anything but a normal DISCONNECT publishes it: an error of the client, a Keep Alive that ran out.
/// 3.1.1 [MQTT-3.1.2-8].
#[tokio::test]
async fn a_will_is_published_after_an_error_and_after_silence() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = watcher(&world, version).await;
        let mut client = connect_with(&world, version, Some(will(Qos::AtMostOnce, false))).await;
        client.send_bytes(b"\0\0").await;
        watcher.receive_publish().await;
        let mut asked = connect(version, "silent");
        asked.keep_alive = 1;
        asked.will = Some(will(Qos::AtMostOnce, false));
        let _silent = world.connect_with(asked).await;
        watcher.receive_publish().await;
    }
}
