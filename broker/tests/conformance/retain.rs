//! Retained messages (MQTT 5.0 §3.3.1.3; 3.1.1 §3.3.1.3).

use broker::codec::packet::{Packet, Publish, Qos, Version};

use super::client::{Client, V5, V311, filter, message, puback, pubcomp, pubrec, pubrel, qos1};
use super::world::World;

fn retained(qos: Qos, payload: &str) -> Packet {
    let number = u16::from(qos != Qos::AtMostOnce);
    let mut publish = message("r", qos, number, payload);
    publish.retain = true;
    Packet::Publish(publish)
}

async fn publish(client: &mut Client, qos: Qos, payload: &str) {
    client.send(&retained(qos, payload)).await;
    match qos {
        Qos::AtMostOnce => client.expect_quiet().await,
        Qos::AtLeastOnce => assert_eq!(client.receive().await, puback(1)),
        Qos::ExactlyOnce => {
            assert_eq!(client.receive().await, pubrec(1));
            client.send(&pubrel(1)).await;
            assert_eq!(client.receive().await, pubcomp(1));
        }
    }
}

/// What a new subscription gets.
async fn found(world: &World, version: Version) -> Option<Publish> {
    let mut client = world.connect(version, "reader").await;
    client.subscribe(&[("r", Qos::ExactlyOnce)]).await;
    client.send(&Packet::PingReq).await;
    match client.receive().await {
        Packet::Publish(publish) => Some(publish),
        Packet::PingResp => {
            // What was queued by SUBSCRIBE would have come first, or come now.
            client.send(&Packet::PingReq).await;
            match client.receive().await {
                Packet::Publish(publish) => Some(publish),
                _ => None,
            }
        }
        other => panic!("{other:?}"),
    }
}

/// [MQTT-3.3.1-5]: the last retained message replaces the one before it, with its QoS.
/// 3.1.1 [MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7], [MQTT-3.3.1-8].
#[tokio::test]
async fn a_retained_message_is_replaced_by_the_next_and_keeps_its_qos() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        for (qos, payload) in [
            (Qos::AtLeastOnce, "1"),
            (Qos::ExactlyOnce, "2"),
            (Qos::AtMostOnce, "3"),
            (Qos::AtLeastOnce, "4"),
        ] {
            publish(&mut client, qos, payload).await;
            let got = found(&world, version).await.unwrap();
            assert_eq!((got.qos, &*got.payload), (qos, payload.as_bytes()));
            assert!(got.retain && !got.dup);
        }
    }
}

/// [MQTT-3.3.1-6]: an empty retained message is delivered like any and removes the one that was retained,
/// [MQTT-3.3.1-7]: and is not retained itself.
/// 3.1.1 [MQTT-3.3.1-10], [MQTT-3.3.1-11].
#[tokio::test]
async fn an_empty_retained_message_is_delivered_and_deletes() {
    let world = World::start();
    for version in [V5, V311] {
        let mut watcher = world.connect(version, "watcher").await;
        watcher.subscribe(&[("r", Qos::AtMostOnce)]).await;
        let mut client = world.connect(version, "a").await;
        publish(&mut client, Qos::AtLeastOnce, "x").await;
        publish(&mut client, Qos::AtLeastOnce, "").await;
        assert_eq!(watcher.receive_publish().await.payload, "x");
        let empty = watcher.receive_publish().await;
        assert_eq!((&*empty.payload, empty.retain), (&b""[..], false));
        assert_eq!(found(&world, version).await, None);
        // Nor when there was none.
        publish(&mut client, Qos::AtLeastOnce, "").await;
        assert_eq!(found(&world, version).await, None);
    }
}

/// [MQTT-3.3.1-8]: without RETAIN nothing is stored, replaced or removed, also not by an empty message.
/// 3.1.1 [MQTT-3.3.1-12].
#[tokio::test]
async fn without_retain_a_message_leaves_the_retained_one_alone() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        let plain = async |client: &mut Client, payload| {
            client.send(&qos1("r", 1, payload)).await;
            assert_eq!(client.receive().await, puback(1));
        };
        plain(&mut client, "x").await;
        assert_eq!(found(&world, version).await, None);
        publish(&mut client, Qos::AtLeastOnce, "kept").await;
        plain(&mut client, "y").await;
        plain(&mut client, "").await;
        assert_eq!(found(&world, version).await.unwrap().payload, "kept");
        publish(&mut client, Qos::AtLeastOnce, "").await;
    }
}

/// 3.1.1 [MQTT-3.1.2.7]: retained messages are not part of a session.
#[tokio::test]
async fn a_retained_message_outlives_the_session_of_its_sender() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        publish(&mut client, Qos::AtLeastOnce, "x").await;
        client.disconnect().await;
        assert!(world.plugin.disconnected().await.discarded);
        assert_eq!(found(&world, version).await.unwrap().payload, "x");
    }
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]: RETAIN is forwarded as it came with Retain As Published, and is 0 without it.
/// 3.1.1 [MQTT-3.3.1-9].
#[tokio::test]
async fn retain_is_forwarded_only_with_retain_as_published() {
    let world = World::start();
    for version in [V5, V311] {
        for as_published in [false, true] {
            let mut client = world.connect(version, "a").await;
            let mut wanted = filter("r", Qos::AtMostOnce);
            wanted.retain_as_published = as_published && version == V5;
            client.subscribe_with(vec![wanted], None).await;
            for retain in [true, false] {
                let mut publish = message("r", Qos::AtMostOnce, 0, "x");
                publish.retain = retain;
                client.send(&Packet::Publish(publish)).await;
                let got = client.receive_publish().await;
                assert_eq!(got.retain, retain && as_published && version == V5);
            }
            let mut delete = message("r", Qos::AtMostOnce, 0, "");
            delete.retain = true;
            client.send(&Packet::Publish(delete)).await;
            client.receive_publish().await;
        }
    }
}
