//! What one client may take from the others: nothing.

use broker::codec::packet::{Packet, Qos};
use broker::codec::reason::ReasonCode;
use broker::hooks::PublishAnswer;

use super::client::{V5, V311, connect, connect_persistent, puback, qos0, qos1};
use super::world::{OnPublish, World};

#[tokio::test]
async fn connections_are_limited_in_all_and_per_address() {
    for change in [
        |config: &mut broker::Config| config.connections_max = 1,
        |config: &mut broker::Config| config.connections_per_address_max = 1,
    ] {
        let world = World::with(change);
        let first = world.connect(V5, "a").await;
        let mut second = world.open(V5).await;
        second.expect_closed().await;
        assert_eq!(world.metrics.connections_over_limit.value(), 1);
        first.disconnect().await;
        while world.metrics.connections_open.value() > 0 {
            tokio::task::yield_now().await;
        }
        world.connect(V5, "a").await;
    }
}

#[tokio::test]
async fn a_large_packet_before_authentication_is_refused() {
    let world = World::with(|config| config.packet_bytes_before_auth_max = 200);
    let mut asked = connect(V5, "a");
    asked.user_name = Some("x".repeat(300).into());
    let mut client = world.open(V5).await;
    client.send(&Packet::Connect(Box::new(asked))).await;
    client.expect_closed().await;
    // Afterwards the larger limit holds.
    let mut client = world.connect(V5, "a").await;
    client.send(&qos1("t", 1, &"x".repeat(1_000))).await;
    assert_eq!(client.receive().await, puback(1));
}

#[tokio::test]
async fn who_fills_all_queues_keeps_nobody_else_from_having_one() {
    let world = World::with(|config| {
        config.queue_bytes_total_max = 1_000_000;
        config.queue_bytes_per_user_max = 500_000;
    });
    let asked = |client_id: &'static str| {
        let mut asked = connect_persistent(V5, client_id);
        asked.user_name = client_id.split('-').next().map(Into::into);
        asked
    };
    for client_id in ["hoard-1", "hoard-2", "hoard-3", "modest"] {
        let (mut client, _) = world.connect_with(asked(client_id)).await;
        client.subscribe(&[(client_id, Qos::AtLeastOnce)]).await;
        client.disconnect().await;
        world.plugin.disconnected().await;
    }
    let mut sender = world.connect(V5, "sender").await;
    let payload = "x".repeat(20_000);
    for topic in ["hoard-1", "hoard-2", "hoard-3"] {
        for number in 1..=50 {
            sender.send(&qos1(topic, number, &payload)).await;
            assert_eq!(sender.receive().await, puback(number));
        }
    }
    let dropped = world.metrics.messages_dropped_queue_full.value();
    assert!(dropped >= 100, "only {dropped} of 3 MB");
    sender.send(&qos1("modest", 1, &payload)).await;
    assert_eq!(sender.receive().await, puback(1));
    let (mut modest, _) = world.connect_with(asked("modest")).await;
    assert_eq!(modest.receive_publish().await.payload, payload);
    // Who leaves gives back what it had.
    let mut leaves = asked("hoard-1");
    leaves.clean_start = true;
    world.connect_with(leaves).await;
    for number in 1..=10 {
        sender.send(&qos1("hoard-3", number, &payload)).await;
        assert_eq!(sender.receive().await, puback(number));
    }
    let now_dropped = world.metrics.messages_dropped_queue_full.value();
    assert_eq!(now_dropped, dropped);
}

/// Fills everything between the server and a client that does not read.
async fn flood(world: &World) {
    let mut sender = world.connect(V5, "sender").await;
    let payload = "x".repeat(100_000);
    for number in 1..=200 {
        sender.send(&qos1("t", number, &payload)).await;
        assert_eq!(sender.receive().await, puback(number));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_after_the_write_timeout() {
    let world = World::with(|config| config.write_timeout_ms = 100);
    let mut stalled = world.connect(V5, "stalled").await;
    stalled.subscribe(&[("t", Qos::AtMostOnce)]).await;
    flood(&world).await;
    let end = world
        .plugin
        .wait(|event| match event {
            super::world::Event::Disconnected(end) => Some(end),
            _ => None,
        })
        .await;
    assert!(end.discarded);
    while world.metrics.write_timeouts.value() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_can_be_taken_over_and_stops_no_shutdown() {
    let mut world = World::start();
    let mut stalled = world.connect(V5, "stalled").await;
    stalled.subscribe(&[("t", Qos::AtMostOnce)]).await;
    flood(&world).await;
    let mut next = world.connect(V5, "stalled").await;
    next.subscribe(&[("t", Qos::AtMostOnce)]).await;
    flood(&world).await;
    world.shutdown.cancel();
    world.stopped().await;
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let world = World::with(|config| config.queue_messages_max = 2);
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    client.disconnect().await;
    let mut sender = world.connect(V5, "sender").await;
    for number in 1..=5 {
        sender.send(&qos1("t", number, &number.to_string())).await;
        assert_eq!(sender.receive().await, puback(number));
    }
    assert_eq!(world.metrics.messages_dropped_queue_full.value(), 3);
    let (mut client, _) = world.connect_with(connect_persistent(V5, "a")).await;
    assert_eq!(client.receive_publish().await.payload, "1");
    assert_eq!(client.receive_publish().await.payload, "2");
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_sender_is_read_no_further_than_its_pending_bound() {
    let world = World::with(|config| config.pending_publishes_max = 3);
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V311, "a").await;
    let all: Vec<Packet> = (0..10).map(|_| qos0("plug/t", "x")).collect();
    client.send_all(&all).await;
    let mut seen = 0;
    while seen < 10 {
        let batch = world.plugin.published((10 - seen).min(3)).await.len();
        let tickets = world.plugin.tickets();
        assert!(batch <= 3 && tickets.len() == batch);
        for ticket in tickets {
            ticket.answer(PublishAnswer::SUCCESS);
        }
        seen += batch;
    }
}

#[tokio::test]
async fn a_sender_is_read_no_further_than_its_pending_bytes() {
    let world = World::with(|config| config.pending_bytes_max = 100_000);
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V311, "a").await;
    let payload = "x".repeat(60_000);
    client
        .send_all(&[
            qos1("plug/t", 1, &payload),
            qos1("plug/t", 2, &payload),
            qos1("plug/t", 3, &payload),
        ])
        .await;
    world.plugin.published(2).await;
    // The third is read when an answer has made room.
    let mut tickets = world.plugin.tickets();
    assert_eq!(tickets.len(), 2);
    tickets.remove(0).answer(PublishAnswer::SUCCESS);
    assert_eq!(client.receive().await, puback(1));
    world.plugin.published(1).await;
}

#[tokio::test]
async fn bytes_that_are_no_mqtt_close_their_connection_only() {
    let world = World::start();
    let mut bystander = world.connect(V5, "bystander").await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 64],
        b"\x10\xff\xff\xff\x7f",
    ];
    for bytes in garbage {
        let mut client = world.open(V5).await;
        client.send_bytes(bytes).await;
        client.expect_closed().await;
    }
    bystander.expect_quiet().await;
}

#[tokio::test]
async fn a_subscription_with_too_many_levels_is_refused() {
    let world = World::with(|config| config.filter_levels_max = 3);
    let mut client = world.connect(V5, "a").await;
    let ack = client
        .subscribe(&[("a/b/c", Qos::AtMostOnce), ("a/b/c/d", Qos::AtMostOnce)])
        .await;
    assert_eq!(
        ack.reasons,
        [ReasonCode::Success, ReasonCode::TopicFilterInvalid]
    );
}
