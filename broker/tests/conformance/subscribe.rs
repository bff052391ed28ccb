//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0 §3.8 to §3.11).

use broker::codec::packet::{Packet, Qos, RetainHandling};
use broker::codec::reason::ReasonCode;

use super::client::{V5, V311, filter, message, puback, qos0, qos1};
use super::world::{Event, World};

fn retained(topic: &'static str, payload: &'static str) -> Packet {
    let mut retained = message(topic, Qos::AtMostOnce, 0, payload);
    retained.retain = true;
    Packet::Publish(retained)
}

/// [MQTT-3.9.3-1], [MQTT-3.9.3-2], [MQTT-3.8.4-6].
#[tokio::test]
async fn suback_answers_each_filter_in_order() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let ack = client
        .subscribe(&[
            ("a", Qos::AtMostOnce),
            ("plug/in", Qos::ExactlyOnce),
            ("forbidden", Qos::AtMostOnce),
            ("b/#", Qos::ExactlyOnce),
            ("plug/forbidden", Qos::AtMostOnce),
            ("$share/g/b", Qos::AtLeastOnce),
            ("+", Qos::AtLeastOnce),
        ])
        .await;
    assert_eq!(
        ack.reasons,
        [
            ReasonCode::Success,
            ReasonCode::GrantedQos1,
            ReasonCode::NotAuthorized,
            ReasonCode::GrantedQos2,
            ReasonCode::NotAuthorized,
            ReasonCode::GrantedQos1,
            ReasonCode::GrantedQos1,
        ]
    );
}

/// However often the same filter comes: each time is a search for retained messages.
#[tokio::test]
async fn one_subscribe_has_as_many_filters_as_a_session_may_have() {
    let world = World::with(|config| config.subscriptions_max = 2);
    let mut client = world.connect(V5, "a").await;
    client.send(&retained("t", "x")).await;
    let ack = client.subscribe(&[("+", Qos::AtMostOnce); 3]).await;
    let quota = ReasonCode::QuotaExceeded;
    assert_eq!(
        ack.reasons,
        [ReasonCode::Success, ReasonCode::Success, quota]
    );
    for _ in 0..2 {
        assert_eq!(&*client.receive_publish().await.topic, "t");
    }
    client.expect_quiet().await;
}

/// 3.1.1 [MQTT-3.9.3-2].
#[tokio::test]
async fn a_refusal_is_0x80_in_3_1_1() {
    let world = World::start();
    let mut client = world.connect(V311, "a").await;
    let ack = client
        .subscribe(&[("forbidden", Qos::AtMostOnce), ("a", Qos::AtLeastOnce)])
        .await;
    assert_eq!(
        ack.reasons,
        [ReasonCode::UnspecifiedError, ReasonCode::GrantedQos1]
    );
}

/// [MQTT-3.11.3-1], [MQTT-3.11.3-2], [MQTT-3.10.4-2].
#[tokio::test]
async fn unsuback_tells_what_existed() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.subscribe(&[("a", Qos::AtMostOnce)]).await;
    let ack = client.unsubscribe(&["b", "plug/x", "a"]).await;
    assert_eq!(
        ack.reasons,
        [
            ReasonCode::NoSubscriptionExisted,
            ReasonCode::Success,
            ReasonCode::Success
        ]
    );
    client.send(&qos0("a", "x")).await;
    client.expect_quiet().await;
}

/// 3.1.1 [MQTT-3.10.4-5].
#[tokio::test]
async fn unsuback_comes_in_3_1_1_whether_it_existed_or_not() {
    let world = World::start();
    let mut client = world.connect(V311, "a").await;
    client.unsubscribe(&["nothing", "else"]).await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn the_plugin_sees_only_filters_below_its_root() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let filters = ["plugged/x", "plug", "$share/g/plug/x", "plug/+"]
        .map(|text| filter(text, Qos::AtLeastOnce))
        .into();
    client.subscribe_with(filters, Some(9)).await;
    let (filters, identifier) = world
        .plugin
        .wait(|event| match event {
            Event::Subscribed(filters, identifier) => Some((filters, identifier)),
            _ => None,
        })
        .await;
    let texts: Vec<&str> = filters.iter().map(|it| it.filter.as_str()).collect();
    assert_eq!(texts, ["plug", "$share/g/plug/x", "plug/+"]);
    assert_eq!(identifier, Some(9));
    client.unsubscribe(&["plug/+", "plugged/x"]).await;
    let filters = world
        .plugin
        .wait(|event| match event {
            Event::Unsubscribed(filters) => Some(filters),
            _ => None,
        })
        .await;
    assert_eq!(filters.len(), 1);
}

/// [MQTT-3.8.4-3].
#[tokio::test]
async fn a_second_subscription_to_a_filter_replaces_the_first() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.subscribe(&[("t", Qos::AtMostOnce)]).await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    client.send(&qos1("t", 1, "x")).await;
    let mut got = [client.receive().await, client.receive().await];
    got.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
    assert_eq!(got[0], puback(1));
    assert!(matches!(&got[1], Packet::Publish(it) if it.qos == Qos::AtLeastOnce));
    client.expect_quiet().await;
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-4].
#[tokio::test]
async fn overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client
        .subscribe_with(vec![filter("t/+", Qos::AtMostOnce)], Some(1))
        .await;
    client
        .subscribe_with(vec![filter("t/#", Qos::AtLeastOnce)], Some(2))
        .await;
    let mut sender = world.connect(V5, "sender").await;
    sender.publish_qos1("t/x", 1).await;
    let got = client.receive_publish().await;
    assert_eq!(got.qos, Qos::AtLeastOnce);
    let mut identifiers = got.properties.subscription_identifiers.clone();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 2]);
    client.expect_quiet().await;
}

/// [MQTT-3.8.3-3].
#[tokio::test]
async fn no_local_spares_the_publisher_its_own_messages() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let mut wanted = filter("t", Qos::AtMostOnce);
    wanted.no_local = true;
    client.subscribe_with(vec![wanted], None).await;
    client.send(&qos0("t", "mine")).await;
    client.expect_quiet().await;
    world
        .connect(V5, "b")
        .await
        .send(&qos0("t", "theirs"))
        .await;
    assert_eq!(client.receive_publish().await.payload, "theirs");
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11].
#[tokio::test]
async fn retain_handling_decides_when_retained_messages_come() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let mut publish = message("r", Qos::AtLeastOnce, 1, "x");
    publish.retain = true;
    client.send(&Packet::Publish(publish)).await;
    assert_eq!(client.receive().await, puback(1));
    for (handling, first, second) in [
        (RetainHandling::Always, true, true),
        (RetainHandling::IfNew, true, false),
        (RetainHandling::Never, false, false),
    ] {
        let mut wanted = filter("r", Qos::AtMostOnce);
        wanted.retain_handling = handling;
        for expected in [first, second] {
            client.subscribe_with(vec![wanted.clone()], None).await;
            if expected {
                assert!(client.receive_publish().await.retain);
            }
            client.expect_quiet().await;
        }
        client.unsubscribe(&["r"]).await;
    }
}

/// [MQTT-3.3.1-13].
#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let mut wanted = filter("r", Qos::AtMostOnce);
    wanted.retain_as_published = true;
    client.subscribe_with(vec![wanted], None).await;
    let mut publish = message("r", Qos::AtMostOnce, 0, "x");
    publish.retain = true;
    client.send(&Packet::Publish(publish)).await;
    assert!(client.receive_publish().await.retain);
}

#[tokio::test]
async fn malformed_filters_close_the_connection() {
    let world = World::start();
    for text in ["a/#/b", "a+", "", "$share/g"] {
        let mut client = world.connect(V5, "a").await;
        let mut bytes = vec![0x82, u8::try_from(text.len() + 6).unwrap(), 0, 1, 0, 0];
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        client.send_bytes(&bytes).await;
        match client.receive().await {
            Packet::Disconnect(disconnect) => assert!(disconnect.reason.is_error(), "{text}"),
            other => panic!("{text}: {other:?}"),
        }
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn too_many_subscriptions_are_refused() {
    let world = World::with(|config| config.subscriptions_max = 1);
    let mut client = world.connect(V5, "a").await;
    let ack = client
        .subscribe(&[("a", Qos::AtMostOnce), ("b", Qos::AtMostOnce)])
        .await;
    assert_eq!(
        ack.reasons,
        [ReasonCode::Success, ReasonCode::QuotaExceeded]
    );
}
