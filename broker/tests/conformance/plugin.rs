//! The seam to a plugin: tickets, releases, deliveries.

use std::collections::VecDeque;

use broker::codec::packet::{Ack, Packet, PacketId, Qos};
use broker::codec::properties::AckProperties;
use broker::codec::reason::ReasonCode;
use broker::hooks::{DeliveryOutcome, PublishAnswer, SessionRestored};

use super::client::{
    V5, V311, connect, connect_persistent, id, message, puback, pubcomp, pubrec, pubrel, qos0,
    qos1, qos2, with_reason,
};
use super::world::{Event, OnPublish, World, delivery, reference};

fn answer(reason: ReasonCode) -> PublishAnswer {
    PublishAnswer {
        notice: None,
        reason,
        properties: Some(Box::new(AckProperties {
            reason_string: None,
            user_properties: vec![("seq".into(), "7".into())],
        })),
    }
}

// Publishes.

#[tokio::test]
async fn publishes_below_the_root_reach_the_plugin_in_order_and_nobody_else() {
    let world = World::start();
    let mut other = world.connect(V5, "other").await;
    other.subscribe(&[("#", Qos::AtMostOnce)]).await;
    let mut client = world.connect(V5, "a").await;
    client
        .send_all(&[
            qos0("plug/a", "1"),
            qos1("plug/b", 1, "2"),
            qos0("plugged", "ordinary"),
            qos2("plug", 2, "3"),
        ])
        .await;
    let payloads: Vec<_> = world
        .plugin
        .published(3)
        .await
        .into_iter()
        .map(|publish| publish.payload)
        .collect();
    assert_eq!(payloads, ["1", "2", "3"]);
    assert_eq!(other.receive_publish().await.payload, "ordinary");
    other.expect_quiet().await;
}

#[tokio::test]
async fn publishes_of_one_read_cross_the_seam_together() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let many: Vec<Packet> = (0..100).map(|_| qos0("plug/t", "x")).collect();
    client.send_all(&many).await;
    let mut batches = Vec::new();
    while batches.iter().sum::<usize>() < 100 {
        batches.push(
            world
                .plugin
                .wait(|event| match event {
                    Event::Published(batch) => Some(batch.len()),
                    _ => None,
                })
                .await,
        );
    }
    assert!(batches.len() < 10, "{batches:?}");
}

/// 3.1.1 [MQTT-4.6.0-2], [MQTT-4.6.0-3]: PUBACK and PUBREC leave in the order of arrival.
#[tokio::test]
async fn acks_leave_in_the_order_of_arrival_whatever_the_order_of_answers() {
    let world = World::start();
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V5, "a").await;
    client
        .send_all(&[
            qos1("plug/t", 1, "x"),
            qos2("plug/t", 2, "x"),
            qos1("ordinary", 3, "x"),
            qos1("plug/t", 4, "x"),
        ])
        .await;
    world.plugin.published(3).await;
    let mut tickets = world.plugin.tickets();
    tickets.pop().unwrap().answer(PublishAnswer::SUCCESS);
    tickets.pop().unwrap().answer(PublishAnswer::SUCCESS);
    client.expect_quiet().await;
    tickets.pop().unwrap().answer(PublishAnswer::SUCCESS);
    assert_eq!(client.receive().await, puback(1));
    assert_eq!(client.receive().await, pubrec(2));
    assert_eq!(client.receive().await, puback(3));
    assert_eq!(client.receive().await, puback(4));
}

#[tokio::test]
async fn the_answer_is_carried_in_5_0_and_plain_in_3_1_1() {
    let world = World::start();
    for reason in [ReasonCode::Success, ReasonCode::QuotaExceeded] {
        world.plugin.on_publish(OnPublish::Answer(answer(reason)));
        let mut five = world.connect(V5, "five").await;
        let ack = five.publish_qos1("plug/t", 1).await;
        assert_eq!(ack.reason, reason);
        assert_eq!(ack.properties, answer(reason).properties);
        let mut three = world.connect(V311, "three").await;
        three.send(&qos1("plug/t", 1, "x")).await;
        assert_eq!(three.receive().await, puback(1));
    }
}

/// [MQTT-3.1.2-29].
#[tokio::test]
async fn without_problem_information_acks_carry_no_properties() {
    let world = World::start();
    world
        .plugin
        .on_publish(OnPublish::Answer(answer(ReasonCode::QuotaExceeded)));
    let mut asked = connect(V5, "a");
    asked.properties.request_problem_information = Some(false);
    let (mut client, _) = world.connect_with(asked).await;
    let ack = client.publish_qos1("plug/t", 1).await;
    assert_eq!(ack, with_reason(1, ReasonCode::QuotaExceeded));
}

/// [MQTT-3.4.2-3].
#[tokio::test]
async fn an_answer_that_is_too_large_for_the_client_loses_its_properties() {
    let world = World::start();
    world
        .plugin
        .on_publish(OnPublish::Answer(answer(ReasonCode::Success)));
    let mut asked = connect(V5, "a");
    asked.properties.maximum_packet_size = Some(30);
    let (mut client, _) = world.connect_with(asked).await;
    let big = PublishAnswer {
        notice: None,
        reason: ReasonCode::Success,
        properties: Some(Box::new(AckProperties {
            reason_string: Some("x".repeat(50).into()),
            user_properties: Vec::new(),
        })),
    };
    world.plugin.on_publish(OnPublish::Answer(big));
    client.send(&qos1("plug/t", 1, "x")).await;
    assert_eq!(client.receive().await, puback(1));
}

#[tokio::test]
async fn a_notice_comes_right_before_the_ack_that_it_explains() {
    let world = World::start();
    let notice = message("plug/err", Qos::AtMostOnce, 0, "because");
    let refusal = PublishAnswer {
        reason: ReasonCode::QuotaExceeded,
        properties: None,
        notice: Some(Box::new(notice.clone())),
    };
    world.plugin.on_publish(OnPublish::Answer(refusal));
    let mut client = world.connect(V311, "a").await;
    client.send(&qos1("plug/t", 1, "x")).await;
    assert_eq!(client.receive_publish().await, notice);
    assert_eq!(client.receive().await, puback(1));
}

#[tokio::test]
async fn a_dropped_ticket_closes_the_connection_without_an_ack() {
    let world = World::start();
    world.plugin.on_publish(OnPublish::Drop);
    let mut five = world.connect(V5, "five").await;
    five.send(&qos1("plug/t", 1, "x")).await;
    five.expect_disconnect(ReasonCode::ServerBusy).await;
    let mut three = world.connect(V311, "three").await;
    three.send(&qos1("plug/t", 1, "x")).await;
    three.expect_closed().await;
}

#[tokio::test]
async fn credit_bounds_what_the_plugin_holds() {
    let world = World::start();
    world.plugin.on_publish(OnPublish::Keep);
    world.plugin.credit(1);
    let mut client = world.connect(V311, "a").await;
    client.send(&qos1("plug/t", 1, "x")).await;
    world.plugin.published(1).await;
    client
        .send_all(&[qos1("plug/t", 2, "x"), qos1("plug/t", 3, "x")])
        .await;
    for number in 1..=3 {
        let tickets = world.plugin.tickets();
        assert_eq!(tickets.len(), 1);
        for ticket in tickets {
            ticket.answer(PublishAnswer::SUCCESS);
        }
        assert_eq!(client.receive().await, puback(number));
        if number < 3 {
            world.plugin.published(1).await;
        }
    }
}

// QoS 2.

#[tokio::test]
async fn a_duplicate_is_not_handed_over_twice_and_gets_the_same_answer() {
    let world = World::start();
    world.plugin.on_publish(OnPublish::Keep);
    world.plugin.know_releases();
    let mut client = world.connect(V5, "a").await;
    let mut again = message("plug/t", Qos::ExactlyOnce, 5, "x");
    again.dup = true;
    let again = Packet::Publish(again);
    client.send(&qos2("plug/t", 5, "x")).await;
    client.send(&again).await;
    client.expect_quiet().await;
    world.plugin.published(1).await;
    let tickets = world.plugin.tickets();
    assert_eq!(tickets.len(), 1);
    for ticket in tickets {
        ticket.answer(answer(ReasonCode::Success));
    }
    let first = client.receive().await;
    assert!(matches!(&first, Packet::PubRec(ack) if ack.properties.is_some()));
    client.send(&again).await;
    assert_eq!(client.receive().await, first);
    client.send(&pubrel(5)).await;
    assert_eq!(client.receive().await, pubcomp(5));
    let released = world
        .plugin
        .wait(|event| match event {
            Event::Released(packet_id) => Some(packet_id),
            Event::Published(_) => panic!("handed over twice"),
            _ => None,
        })
        .await;
    assert_eq!(released, id(5));
}

#[tokio::test]
async fn a_refusal_ends_the_exchange_in_5_0() {
    let world = World::start();
    world
        .plugin
        .on_publish(OnPublish::Answer(answer(ReasonCode::NotAuthorized)));
    let mut client = world.connect(V5, "a").await;
    for _ in 0..2 {
        client.send(&qos2("plug/t", 5, "x")).await;
        let packet = client.receive().await;
        assert!(matches!(&packet, Packet::PubRec(ack) if ack.reason == ReasonCode::NotAuthorized));
    }
    world.plugin.published(2).await;
}

#[tokio::test]
async fn a_refused_exchange_runs_to_its_end_in_3_1_1_without_the_plugin() {
    let world = World::start();
    world
        .plugin
        .on_publish(OnPublish::Answer(answer(ReasonCode::NotAuthorized)));
    world.plugin.keep_releases();
    let mut client = world.connect(V311, "a").await;
    client.send(&qos2("plug/t", 5, "x")).await;
    assert_eq!(client.receive().await, pubrec(5));
    client.send(&pubrel(5)).await;
    assert_eq!(client.receive().await, pubcomp(5));
}

#[tokio::test]
async fn pubcomp_waits_for_the_release() {
    let world = World::start();
    world.plugin.keep_releases();
    let mut client = world.connect(V5, "a").await;
    client.send(&qos2("plug/t", 5, "x")).await;
    assert_eq!(client.receive().await, pubrec(5));
    client.send_all(&[pubrel(5), pubrel(5)]).await;
    client.expect_quiet().await;
    let releases = world.plugin.releases();
    assert_eq!(releases.len(), 1);
    for ticket in releases {
        ticket.answer(true);
    }
    assert_eq!(client.receive().await, pubcomp(5));
}

#[tokio::test]
async fn a_release_that_only_the_plugin_knows_is_completed() {
    let world = World::start();
    world.plugin.know_releases();
    let mut client = world.connect(V5, "a").await;
    client.send(&pubrel(6)).await;
    assert_eq!(client.receive().await, pubcomp(6));
}

#[tokio::test]
async fn pubrel_before_pubrec_is_a_protocol_error() {
    let world = World::start();
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V5, "a").await;
    client.send_all(&[qos2("plug/t", 5, "x"), pubrel(5)]).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

// Deliveries.

#[tokio::test]
async fn deliveries_are_pulled_after_a_wake_and_acknowledged() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    world.plugin.offer(
        "a",
        [
            delivery(1, Qos::AtLeastOnce),
            delivery(2, Qos::AtMostOnce),
            delivery(3, Qos::AtLeastOnce),
        ],
    );
    let first = client.receive_publish().await;
    assert_eq!((&*first.topic, first.qos), ("plug/in", Qos::AtLeastOnce));
    assert_eq!(client.receive_publish().await.qos, Qos::AtMostOnce);
    let third = client.receive_publish().await;
    client
        .send(&Packet::PubAck(Ack::success(third.packet_id.unwrap())))
        .await;
    client
        .send(&Packet::PubAck(Ack {
            packet_id: first.packet_id.unwrap(),
            reason: ReasonCode::ImplementationSpecificError,
            properties: None,
        }))
        .await;
    let refused = DeliveryOutcome::Refused(ReasonCode::ImplementationSpecificError);
    assert_eq!(
        world.plugin.outcomes(3).await,
        [
            (2, DeliveryOutcome::HandedOver),
            (3, DeliveryOutcome::Acknowledged),
            (1, refused)
        ]
    );
}

#[tokio::test]
async fn the_window_bounds_what_is_pulled() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.receive_maximum = Some(2);
    let (mut client, _) = world.connect_with(asked).await;
    world.plugin.offer(
        "a",
        (1..=5).map(|number| delivery(number, Qos::AtLeastOnce)),
    );
    let mut unacked = VecDeque::new();
    for number in 1..=5 {
        let publish = client.receive_publish().await;
        assert_eq!(publish.payload[..], [number]);
        unacked.extend(publish.packet_id);
        if unacked.len() == 2 {
            client.expect_quiet().await;
            let oldest = unacked.pop_front().unwrap();
            client.send(&Packet::PubAck(Ack::success(oldest))).await;
        }
    }
    assert!(world.plugin.rooms().iter().all(|room| room.packets <= 2));
}

#[tokio::test]
async fn a_delivery_that_is_too_large_is_reported_and_not_sent() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.maximum_packet_size = Some(60);
    let (mut client, _) = world.connect_with(asked).await;
    let mut large = delivery(1, Qos::AtLeastOnce);
    large.message = std::sync::Arc::new(message("plug/in", Qos::AtMostOnce, 0, &"x".repeat(60)));
    world
        .plugin
        .offer("a", [large, delivery(2, Qos::AtMostOnce)]);
    assert_eq!(client.receive_publish().await.payload[..], [2]);
    assert_eq!(
        world.plugin.outcomes(2).await,
        [
            (1, DeliveryOutcome::TooLarge),
            (2, DeliveryOutcome::HandedOver)
        ]
    );
}

#[tokio::test]
async fn unacknowledged_deliveries_are_given_back_and_sent_again_under_their_identifiers() {
    let world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    world.plugin.offer(
        "a",
        (1..=3).map(|number| delivery(number, Qos::AtLeastOnce)),
    );
    let ids: Vec<PacketId> = {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(client.receive_publish().await.packet_id.unwrap());
        }
        ids
    };
    client.send(&Packet::PubAck(Ack::success(ids[1]))).await;
    world.plugin.outcomes(1).await;
    client.vanish();
    let end = world.plugin.disconnected().await;
    assert_eq!(
        end.inflight,
        [(ids[0], reference(1)), (ids[2], reference(3))]
    );

    world.plugin.restore(
        "a",
        SessionRestored {
            present: true,
            inflight: end.inflight,
        },
    );
    let again = |number, packet_id| {
        let mut again = delivery(number, Qos::AtLeastOnce);
        again.resend = Some(packet_id);
        again
    };
    world.plugin.offer(
        "a",
        [
            again(1, ids[0]),
            again(3, ids[2]),
            delivery(4, Qos::AtLeastOnce),
        ],
    );
    let (mut client, _) = world.connect_with(connect_persistent(V5, "a")).await;
    for (number, packet_id) in [(1, ids[0]), (3, ids[2])] {
        let again = client.receive_publish().await;
        assert_eq!(again.payload[..], [number]);
        assert_eq!((again.packet_id, again.dup), (Some(packet_id), true));
    }
    let new = client.receive_publish().await;
    assert!(
        !new.dup && !ids[..].contains(&new.packet_id.unwrap()) || new.packet_id == Some(ids[1])
    );
}

#[tokio::test]
async fn subscription_identifiers_and_retain_of_a_delivery_are_sent() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let mut marked = delivery(1, Qos::AtMostOnce);
    marked.retain = true;
    marked.subscription_identifiers = vec![4, 5];
    world.plugin.offer("a", [marked]);
    let got = client.receive_publish().await;
    assert!(got.retain);
    assert_eq!(got.properties.subscription_identifiers, [4, 5]);
}

#[tokio::test]
async fn the_plugin_can_close_a_connection() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    world
        .plugin
        .client("a")
        .close(ReasonCode::AdministrativeAction);
    client
        .expect_disconnect(ReasonCode::AdministrativeAction)
        .await;
    // Too late is harmless.
    world.plugin.disconnected().await;
    world.plugin.client("a").wake();
    world.plugin.client("a").close(ReasonCode::Banned);
}

#[tokio::test]
async fn ordinary_messages_and_deliveries_share_the_window_fairly() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.receive_maximum = Some(1);
    let (mut client, _) = world.connect_with(asked).await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    for number in 1..=5 {
        sender.publish_qos1("t", number).await;
    }
    world.plugin.offer(
        "a",
        (1..=5).map(|number| delivery(number, Qos::AtLeastOnce)),
    );
    let mut ordinary = 0;
    let mut delivered = 0;
    for _ in 0..10 {
        let publish = client.receive_publish().await;
        if publish.topic == "t" {
            ordinary += 1;
        } else {
            delivered += 1;
        }
        let packet_id = publish.packet_id.unwrap();
        client.send(&Packet::PubAck(Ack::success(packet_id))).await;
    }
    assert_eq!((ordinary, delivered), (5, 5));
}
