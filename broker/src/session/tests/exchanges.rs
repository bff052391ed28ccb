//! QoS 2: each message once, whatever is lost.

use super::*;

#[test]
fn qos2_message_is_accepted_once_when_pubrec_is_lost() {
    for topic in ["t", "plug/t"] {
        let mut pair = Pair::connected(Version::V5);
        let packet = pair.client.publish(topic, Qos::ExactlyOnce, 7).unwrap();
        pair.send(packet);
        pair.disconnect();
        pair.connect();
        pair.run();
        assert_eq!(pair.accepted, [7]);
        assert!(pair.client.sent.is_empty());
    }
}

/// The connection ended on an error before it got to the publish.
#[test]
fn qos2_message_that_was_never_routed_is_routed_when_it_comes_again() {
    let mut pair = Pair::at_rest(Version::V5, |_| {});
    let packet = pair.client.publish("t", Qos::ExactlyOnce, 7).unwrap();
    let now = pair.now;
    let mut lost = Vec::new();
    pair.session()
        .handle_packet(now, packet, &mut lost)
        .unwrap();
    pair.disconnect();
    pair.connect();
    pair.run();
    assert_eq!(pair.accepted, [7]);
    assert!(pair.client.sent.is_empty());
}

/// Found by the simulation: the PUBREC of the ordinary message waited behind an unanswered publish of the plugin.
#[test]
fn qos2_message_is_accepted_once_when_its_pubrec_was_still_waiting() {
    let mut pair = Pair::connected(Version::V311);
    let plugin = pair.client.publish("plug/t", Qos::AtMostOnce, 1).unwrap();
    let exact = pair.client.publish("t", Qos::ExactlyOnce, 2).unwrap();
    pair.send(plugin);
    pair.send(exact);
    pair.disconnect();
    pair.connect();
    pair.run();
    assert_eq!(pair.accepted, [1, 2]);
}

#[test]
fn qos2_message_is_received_once_when_pubcomp_is_lost() {
    let mut pair = Pair::connected(Version::V311);
    pair.deliver(7, Qos::ExactlyOnce);
    pair.step_client();
    let pubrec = pair.client.acknowledge(0);
    pair.send(pubrec);
    pair.step_client();
    pair.disconnect();
    pair.connect();
    pair.run();
    assert_eq!(pair.client.received, [7]);
    assert!(pair.session().state.inflight.next_unsent().is_none());
    assert_eq!(pair.session().window(), 4);
}

#[test]
fn reuse_of_an_identifier_before_pubcomp_is_an_error() {
    let mut pair = Pair::connected(Version::V5);
    let mut out = Vec::new();
    let now = pair.now;
    let qos2 = Packet::Publish(publish("plug/t", Qos::ExactlyOnce, Some(id(1)), 1));
    pair.send(qos2.clone());
    pair.answer(0);
    let session = pair.session();
    let release = Packet::PubRel(Ack::success(id(1)));
    session.handle_packet(now, release, &mut out).unwrap();
    assert_eq!(
        session.handle_packet(now, qos2, &mut out),
        Err(ProtocolError::PacketIdInUse { packet_id: 1 })
    );
}

#[test]
fn a_refused_qos2_delivery_is_over() {
    let mut pair = Pair::connected(Version::V5);
    pair.deliver(1, Qos::ExactlyOnce);
    pair.take_sent();
    pair.send(Packet::PubRec(Ack {
        packet_id: id(1),
        reason: ReasonCode::QuotaExceeded,
        properties: None,
    }));
    assert!(pair.take_sent().is_empty());
    assert_eq!(pair.session().window(), 4);
}
