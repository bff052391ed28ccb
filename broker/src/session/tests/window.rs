//! Messages in flight to the client: as many as it allows, and what becomes of them when the connection ends.

use super::*;

#[test]
fn the_window_opens_with_acknowledgements_in_any_order() {
    let mut pair = Pair::connected(Version::V5);
    for number in 1..=6 {
        pair.deliver(number, Qos::AtLeastOnce);
    }
    let sent = pair.take_sent();
    assert_eq!(sent.len(), 4);
    pair.send(Packet::PubAck(Ack::success(id(3))));
    pair.send(Packet::PubAck(Ack::success(id(1))));
    assert_eq!(pair.take_sent().len(), 2);
    assert_eq!(pair.session().window(), 0);
}

#[test]
fn deliveries_beyond_the_window_are_held_not_lost() {
    let mut pair = Pair::connected(Version::V5);
    let deliveries = (1..=6)
        .map(|number| delivery(number, Qos::AtLeastOnce, None))
        .collect();
    pair.turn(|session, out| {
        session.handle_deliveries(deliveries, out);
        Ok(())
    });
    assert_eq!(pair.take_sent().len(), 4);
    assert!(pair.session().is_holding());
    pair.send(Packet::PubAck(Ack::success(id(1))));
    pair.send(Packet::PubAck(Ack::success(id(2))));
    assert_eq!(pair.take_sent().len(), 2);
    assert!(!pair.session().is_holding());
    assert_eq!(pair.outcomes.len(), 2);
}

#[test]
fn a_restored_delivery_keeps_its_identifier_and_new_ones_get_others() {
    let mut pair = Pair::connected(Version::V5);
    let inflight = (1..=3).map(|n| (id(u16::from(n)), DeliveryRef([n; 32])));
    let inflight: Vec<_> = inflight.collect();
    pair.session().restore(inflight.clone());
    let deliveries = vec![
        delivery(1, Qos::AtLeastOnce, Some(id(1))),
        delivery(3, Qos::AtLeastOnce, Some(id(3))),
        delivery(9, Qos::AtLeastOnce, None),
    ];
    pair.turn(|session, out| {
        session.handle_deliveries(deliveries, out);
        Ok(())
    });
    let sent: Vec<(u16, bool)> = pair
        .take_sent()
        .iter()
        .map(|packet| match packet {
            Packet::Publish(it) => (it.packet_id.unwrap().get(), it.dup),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [(1, true), (3, true), (4, false)]);
    // The second was never offered again: it is given back all the same.
    assert_eq!(pair.disconnect()[..3], inflight);
}

#[test]
fn acknowledgements_of_the_wrong_kind_are_errors() {
    let cases = [
        (Qos::AtLeastOnce, Packet::PubRec(Ack::success(id(1)))),
        (Qos::AtLeastOnce, Packet::PubComp(Ack::success(id(1)))),
        (Qos::ExactlyOnce, Packet::PubAck(Ack::success(id(1)))),
        (Qos::ExactlyOnce, Packet::PubComp(Ack::success(id(1)))),
    ];
    for (qos, packet) in cases {
        let mut pair = Pair::connected(Version::V5);
        pair.deliver(1, qos);
        pair.send(packet);
        assert_eq!(pair.error, Some(ProtocolError::WrongAck { packet_id: 1 }));
    }
}

#[test]
fn what_was_never_sent_is_no_duplicate() {
    let mut pair = Pair::at_rest(Version::V5, |_| {});
    // The first waits to be at rest, the second stands behind it.
    pair.deliver(1, Qos::ExactlyOnce);
    pair.deliver(2, Qos::AtLeastOnce);
    assert_eq!(pair.take_sent(), []);
    pair.disconnect();
    let duplicates = |pair: &mut Pair| {
        pair.connect();
        pair.commit(usize::MAX);
        let sent = pair.take_sent().into_iter();
        sent.map(|packet| matches!(packet, Packet::Publish(publish) if publish.dup))
            .collect::<Vec<_>>()
    };
    assert_eq!(duplicates(&mut pair), [false, false]);
    pair.disconnect();
    assert_eq!(duplicates(&mut pair), [true, true]);
}

#[test]
fn what_was_never_sent_of_a_shared_subscription_is_for_others() {
    let mut pair = Pair::at_rest(Version::V5, |_| {});
    pair.deliver_by(Some("$share/g/t"), 1, Qos::ExactlyOnce);
    pair.commit(usize::MAX);
    assert_eq!(pair.take_sent().len(), 1);
    for (number, qos) in [(2, Qos::ExactlyOnce), (3, Qos::AtLeastOnce)] {
        pair.deliver_by(Some("$share/g/t"), number, qos);
    }
    pair.deliver(4, Qos::ExactlyOnce);
    pair.disconnect();
    let state = std::mem::take(&mut pair.kept);
    let left: Vec<u32> = state
        .into_shared()
        .map(|it| number_of(&it.publish))
        .collect();
    assert_eq!(left, [2, 3]);
}

/// Numbers of the ordinary messages that have been sent since the last call.
fn sent_numbers(pair: &mut Pair) -> Vec<u32> {
    let sent = pair.take_sent().into_iter();
    sent.filter_map(|packet| match packet {
        Packet::Publish(publish) => Some(number_of(&publish)),
        _ => None,
    })
    .collect()
}

#[test]
fn messages_in_flight_are_bounded_in_bytes() {
    let bytes = queue::size(&publish("t", Qos::AtLeastOnce, None, 0));
    let mut pair = Pair::new(Version::V5, |config| config.queue_bytes_max = 2 * bytes);
    for number in 1..=4 {
        pair.deliver(number, Qos::AtLeastOnce);
    }
    pair.queue.push_front(pair.queue[0].clone());
    pair.queue[0].qos = Qos::AtMostOnce;
    assert_eq!(sent_numbers(&mut pair), [1, 2]);
    pair.send(Packet::PubAck(Ack::success(id(1))));
    assert_eq!(sent_numbers(&mut pair), [3, 3], "QoS 0 takes no room");
    pair.disconnect();
    pair.connect();
    assert_eq!(sent_numbers(&mut pair), [2, 3]);
    pair.send(Packet::PubAck(Ack::success(id(2))));
    assert_eq!(sent_numbers(&mut pair), [4]);
    for number in [3, 4] {
        pair.send(Packet::PubAck(Ack::success(id(number))));
    }
    assert_eq!(pair.session().queue_bytes(), 2 * bytes);
}

#[test]
fn what_is_sent_again_waits_for_room_in_the_output_and_nothing_overtakes_it() {
    let mut pair = Pair::connected(Version::V5);
    for number in 1..=3 {
        pair.deliver(number, Qos::AtLeastOnce);
    }
    pair.disconnect();
    pair.take_sent();
    pair.output_bytes = 1;
    pair.connect();
    pair.deliver(4, Qos::AtLeastOnce);
    assert_eq!(sent_numbers(&mut pair), [1, 2]);
    assert!(pair.session().is_resuming());
    pair.output_bytes = 0;
    pair.turn(|_, _| Ok(()));
    assert_eq!(sent_numbers(&mut pair), [0; 0]);
    pair.output_bytes = usize::MAX;
    pair.turn(|_, _| Ok(()));
    assert_eq!(sent_numbers(&mut pair), [3, 4]);
    assert!(!pair.session().is_resuming());
}
