//! Rates of connections and addresses: what is slowed down, what is refused, and how that is told.

use broker::codec::packet::{Packet, Qos};
use broker::codec::reason::ReasonCode;
use broker::config::OverRate;

use super::client::{
    Client, V5, V311, connect, message, puback, pubcomp, pubrec, pubrel, qos0, qos1, qos2,
};
use super::world::World;

/// A broker that lets three publishes of [`TEXT`] pass and, for longer than a test lasts, nothing more.
fn strict(over_rate: OverRate) -> World {
    World::with(|config| {
        config.connection_bytes_per_s = 1;
        config.connection_bytes_burst = 210;
        config.over_rate = over_rate;
    })
}

/// With its packet some 100 bytes.
const TEXT: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890";

async fn receive_payloads(client: &mut Client, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let payload = client.receive_publish().await.payload;
        payloads.push(String::from_utf8(payload.to_vec()).unwrap());
    }
    payloads
}

#[tokio::test]
async fn who_sends_too_much_is_slowed_down_and_loses_nothing() {
    let world = World::with(|config| {
        config.connection_publishes_per_s = 100;
        config.connection_publishes_burst = 1;
    });
    let mut subscriber = world.connect(V5, "subscriber").await;
    subscriber.subscribe(&[("t", Qos::AtMostOnce)]).await;
    for version in [V5, V311] {
        let mut sender = world.connect(version, "sender").await;
        let sent: Vec<String> = (0..20).map(|number: u8| number.to_string()).collect();
        let packets: Vec<Packet> = sent.iter().map(|text| qos0("t", text)).collect();
        sender.send_all(&packets).await;
        assert_eq!(receive_payloads(&mut subscriber, 20).await, sent);
        sender.expect_quiet().await;
    }
    assert!(world.metrics.rate_pauses.value() >= 30);
    assert_eq!(world.metrics.publishes_over_rate.value(), 0);
}

#[tokio::test]
async fn bytes_are_a_rate_of_their_own() {
    let world = World::with(|config| {
        config.connection_bytes_per_s = 100_000;
        config.connection_bytes_burst = 1_000;
    });
    let mut client = world.connect(V5, "a").await;
    let payload = "x".repeat(5_000);
    for number in 1..=3 {
        client.send(&qos1("t", number, &payload)).await;
        assert!(matches!(client.receive().await, Packet::PubAck(_)));
    }
    assert!(world.metrics.rate_pauses.value() >= 3);
}

#[tokio::test]
async fn who_is_slowed_down_still_receives_and_can_be_taken_over() {
    let world = strict(OverRate::Slow);
    let mut slow = world.connect(V5, "slow").await;
    slow.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let flood: Vec<Packet> = (0..1_000).map(|_| qos0("u", "x")).collect();
    slow.send_all(&flood).await;
    while world.metrics.rate_pauses.value() == 0 {
        tokio::task::yield_now().await;
    }
    let mut sender = world.connect(V5, "sender").await;
    sender.send(&qos0("t", "hi")).await;
    assert_eq!(slow.receive_publish().await.payload, "hi");
    world.connect(V5, "slow").await;
    slow.expect_disconnect(ReasonCode::SessionTakenOver).await;
}

/// 5.0 §3.4.2.1, §3.5.2.1.
#[tokio::test]
async fn what_is_too_much_is_refused_in_5_0_if_the_operator_says_so() {
    let world = strict(OverRate::Refuse);
    let mut subscriber = world.connect(V5, "subscriber").await;
    subscriber.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let mut client = world.connect(V5, "a").await;
    let packets: Vec<Packet> = (1..=4).map(|number| qos1("t", number, TEXT)).collect();
    client.send_all(&packets).await;
    for number in 1..=3 {
        assert_eq!(client.receive().await, puback(number));
    }
    let refused = ReasonCode::QuotaExceeded;
    assert_eq!(client.receive_result().await, (4, refused));
    client.send(&qos2("t", 5, TEXT)).await;
    assert_eq!(client.receive_result().await, (5, refused));
    // The exchange is over: its identifier is free.
    client.send(&qos2("t", 5, TEXT)).await;
    assert_eq!(client.receive_result().await, (5, refused));
    client.send(&qos0("t", TEXT)).await;
    client.expect_quiet().await;
    assert_eq!(world.metrics.publishes_over_rate.value(), 4);
    assert_eq!(receive_payloads(&mut subscriber, 3).await.len(), 3);
    subscriber.expect_quiet().await;
}

#[tokio::test]
async fn what_is_too_much_is_dropped_in_3_1_1_if_the_operator_says_so() {
    let world = strict(OverRate::Refuse);
    let mut subscriber = world.connect(V5, "subscriber").await;
    subscriber.subscribe(&[("t", Qos::AtMostOnce)]).await;
    let mut client = world.connect(V311, "a").await;
    let packets: Vec<Packet> = (1..=4).map(|number| qos1("t", number, TEXT)).collect();
    client.send_all(&packets).await;
    for number in 1..=4 {
        assert_eq!(client.receive().await, puback(number));
    }
    client.send(&qos2("t", 5, TEXT)).await;
    assert_eq!(client.receive().await, pubrec(5));
    client.send(&pubrel(5)).await;
    assert_eq!(client.receive().await, pubcomp(5));
    assert_eq!(world.metrics.publishes_over_rate.value(), 2);
    assert_eq!(receive_payloads(&mut subscriber, 3).await.len(), 3);
    subscriber.expect_quiet().await;
}

#[tokio::test]
async fn an_alias_set_by_a_refused_publish_is_set() {
    let world = strict(OverRate::Refuse);
    let mut client = world.connect(V5, "a").await;
    let packets: Vec<Packet> = (1..=3).map(|number| qos1("t", number, TEXT)).collect();
    client.send_all(&packets).await;
    for number in 1..=3 {
        assert_eq!(client.receive().await, puback(number));
    }
    for (number, topic) in [(4, "t"), (5, "")] {
        let mut publish = message(topic, Qos::AtLeastOnce, number, TEXT);
        publish.properties.topic_alias = Some(1);
        client.send(&Packet::Publish(publish)).await;
        let refused = (number, ReasonCode::QuotaExceeded);
        assert_eq!(client.receive_result().await, refused);
    }
}

#[tokio::test]
async fn the_plugins_publishes_are_slowed_down_and_never_refused() {
    let world = World::with(|config| {
        config.connection_publishes_per_s = 100;
        config.connection_publishes_burst = 1;
        config.over_rate = OverRate::Refuse;
    });
    let mut client = world.connect(V311, "a").await;
    let packets: Vec<Packet> = (1..=10).map(|number| qos1("plug/t", number, "x")).collect();
    client.send_all(&packets).await;
    for number in 1..=10 {
        assert_eq!(client.receive().await, puback(number));
    }
    world.plugin.published(10).await;
    assert_eq!(world.metrics.publishes_over_rate.value(), 0);
    assert!(world.metrics.rate_pauses.value() > 0);
}

#[tokio::test]
async fn what_cannot_be_refused_is_slowed_down() {
    let world = World::with(|config| {
        config.connection_bytes_per_s = 1_000;
        config.connection_bytes_burst = 20;
        config.over_rate = OverRate::Refuse;
    });
    let mut client = world.connect(V5, "a").await;
    let packets: Vec<Packet> = (0..50).map(|_| Packet::PingReq).collect();
    client.send_all(&packets).await;
    for _ in 0..50 {
        assert_eq!(client.receive().await, Packet::PingResp);
    }
    assert!(world.metrics.rate_pauses.value() > 10);
}

/// 5.0 §3.2.2.2, 3.1.1 §3.2.2.3.
#[tokio::test]
async fn an_address_that_connects_too_often_is_refused() {
    let world = World::with(|config| {
        config.address_connects_per_s = 1;
        config.address_connects_burst = 2;
    });
    let mut wrong = connect(V5, "a");
    wrong.user_name = Some("nobody".into());
    let ack = world.open(V5).await.connect(wrong).await;
    assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
    let mut refused = 0;
    for (version, reason) in [
        (V5, ReasonCode::ConnectionRateExceeded),
        (V311, ReasonCode::ServerUnavailable),
    ] {
        // On a machine that stands still for seconds, one more gets in.
        for _ in 0..100 {
            let mut client = world.open(version).await;
            let ack = client.connect(connect(version, "b")).await;
            if ack.reason != ReasonCode::Success {
                assert_eq!(ack.reason, reason);
                client.expect_closed().await;
                refused += 1;
                break;
            }
        }
    }
    assert_eq!(refused, 2);
    assert_eq!(world.metrics.connects_over_rate.value(), 2);
}

#[tokio::test]
async fn an_address_that_connects_too_often_gets_no_handshake() {
    let world = World::with(|config| {
        config.address_connects_per_s = 1;
        config.address_connects_burst = 1;
        config.listeners.push(broker::config::ListenerConfig {
            address: Some(([127, 0, 0, 1], 0).into()),
            ..broker::config::ListenerConfig::new(broker::config::Protocol::Ws)
        });
    });
    let broker::AddressPlace::Network(address) = world.addresses[1].place.clone() else {
        panic!("no address")
    };
    // The first may wait; those that follow it are closed before they say anything.
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    while world.metrics.connects_over_rate.value() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.metrics.handshakes_failed.value(), 0);
}

#[tokio::test]
async fn a_subscription_too_many_is_refused_and_counted() {
    let world = World::with(|config| config.subscriptions_max = 1);
    let mut client = world.connect(V5, "a").await;
    let filters = [("a", Qos::AtMostOnce), ("b", Qos::AtMostOnce)];
    let ack = client.subscribe(&filters).await;
    assert_eq!(
        ack.reasons,
        [ReasonCode::Success, ReasonCode::QuotaExceeded]
    );
    assert_eq!(world.metrics.subscriptions_over_limit.value(), 1);
}

#[tokio::test]
async fn filters_that_are_too_long_together_are_refused_and_make_room_again() {
    for change in [
        |config: &mut broker::Config| config.subscription_bytes_max = 1_000,
        |config: &mut broker::Config| config.subscription_bytes_per_user_max = 1_000,
        |config: &mut broker::Config| config.subscription_bytes_total_max = 1_000,
    ] {
        let world = World::with(change);
        let mut client = world.connect(V5, "a").await;
        let [long, other] = ["x", "y"].map(|text| &*text.repeat(800).leak());
        let granted = [ReasonCode::Success];
        let ask = |filter| [(filter, Qos::AtMostOnce)];
        assert_eq!(client.subscribe(&ask(long)).await.reasons, granted);
        // The same one again takes no more.
        assert_eq!(client.subscribe(&ask(long)).await.reasons, granted);
        let ack = client.subscribe(&ask(other)).await;
        assert_eq!(ack.reasons, [ReasonCode::QuotaExceeded]);
        client.unsubscribe(&[long]).await;
        assert_eq!(client.subscribe(&ask(other)).await.reasons, granted);
    }
}
