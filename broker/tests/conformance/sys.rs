//! `$SYS/broker/…` (MQTT 5.0 §4.7.2): what the server tells about itself.

use std::collections::HashMap;

use broker::codec::packet::{Packet, Qos};
use broker::codec::reason::ReasonCode;

use super::client::{Client, V5, V311, connect, message, puback, qos0};
use super::world::World;

/// The values that come with a subscription, by name.
async fn values(client: &mut Client) -> HashMap<String, String> {
    client
        .subscribe(&[("$SYS/broker/#", Qos::AtLeastOnce)])
        .await;
    client.send(&Packet::PingReq).await;
    let mut values = HashMap::new();
    loop {
        match client.receive().await {
            Packet::Publish(publish) => {
                assert!(publish.retain && publish.qos == Qos::AtMostOnce);
                let value = String::from_utf8(publish.payload.to_vec()).unwrap();
                let name = publish.topic.strip_prefix("$SYS/broker/").unwrap();
                values.insert(name.to_owned(), value);
            }
            Packet::PingResp => return values,
            other => panic!("PUBLISH expected, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_subscriber_gets_current_values_at_once() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        let values = values(&mut client).await;
        for name in [
            "version",
            "uptime",
            "clients/connected",
            "clients/disconnected",
            "clients/total",
            "clients/expired",
            "messages/received",
            "messages/sent",
            "bytes/received",
            "bytes/sent",
            "publish/messages/received",
            "publish/messages/sent",
            "publish/messages/dropped",
            "publish/bytes/received",
            "publish/bytes/sent",
            "subscriptions/count",
            "shared_subscriptions/count",
            "retained messages/count",
            "load/messages/received/1min",
            "load/publish/bytes/sent/15min",
        ] {
            assert!(values.contains_key(name), "{name}");
        }
        assert_eq!(values["version"], env!("CARGO_PKG_VERSION"));
    }
}

#[tokio::test]
async fn changed_values_are_published() {
    let world = World::with(|config| config.sys_interval_s = 1);
    let mut client = world.connect(V5, "a").await;
    client
        .subscribe(&[
            ("$SYS/broker/clients/connected", Qos::AtMostOnce),
            ("$SYS/broker/publish/bytes/received", Qos::AtMostOnce),
            ("$SYS/broker/clients/disconnected", Qos::AtMostOnce),
        ])
        .await;
    for _ in 0..3 {
        assert!(client.receive_publish().await.retain);
    }
    client.send(&qos0("t", "12345")).await;
    let (mut connected, mut bytes) = (String::new(), String::new());
    while connected != "1" || bytes != "5" {
        let publish = client.receive_publish().await;
        assert!(!publish.retain, "a change, not a retained message");
        let value = String::from_utf8(publish.payload.to_vec()).unwrap();
        match &*publish.topic {
            "$SYS/broker/clients/connected" => connected = value,
            "$SYS/broker/publish/bytes/received" => bytes = value,
            other => panic!("{other} has not changed"),
        }
    }
}

/// [MQTT-4.7.2-1].
#[tokio::test]
async fn wildcards_at_the_root_do_not_match_statistics() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client
        .subscribe(&[("#", Qos::AtMostOnce), ("+/broker/uptime", Qos::AtMostOnce)])
        .await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn clients_may_not_publish_statistics() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let before = values(&mut client).await["version"].clone();
    let mut forged = message("$SYS/broker/version", Qos::AtLeastOnce, 1, "forged");
    forged.retain = true;
    client.send(&Packet::Publish(forged.clone())).await;
    match client.receive().await {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::NotAuthorized),
        other => panic!("PUBACK expected, not {other:?}"),
    }
    let mut old = world.connect(V311, "b").await;
    old.send(&Packet::Publish(forged)).await;
    assert_eq!(old.receive().await, puback(1));
    assert_eq!(values(&mut old).await["version"], before);

    let mut asked = connect(V5, "c");
    asked.will = Some(super::connect::will("$SYS/broker/version", None));
    let ack = world.open(V5).await.connect(asked).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn statistics_can_be_turned_off() {
    let world = World::with(|config| config.sys_interval_s = 0);
    let mut client = world.connect(V5, "a").await;
    assert!(values(&mut client).await.is_empty());
}
