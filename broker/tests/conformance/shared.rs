//! Shared Subscriptions (MQTT 5.0 §4.8.2), for 3.1.1 clients as well.

use broker::codec::packet::{Packet, Qos, RetainHandling, Version};
use broker::codec::reason::ReasonCode;

use super::client::{
    Client, V5, V311, connect_persistent, filter, message, puback, pubrec, pubrel, qos0, qos1,
    qos2, with_reason,
};
use super::world::World;

const SHARE: &str = "$share/g/t/#";

/// Connected members, subscribed at this QoS.
async fn members<const N: usize>(
    world: &World,
    version: Version,
    names: [&'static str; N],
    qos: Qos,
) -> Vec<Client> {
    let mut members = Vec::new();
    for name in names {
        let mut member = world.connect(version, name).await;
        let ack = member.subscribe(&[(SHARE, qos)]).await;
        assert!(!ack.reasons[0].is_error());
        members.push(member);
    }
    members
}

async fn payload(client: &mut Client) -> String {
    let publish = client.receive_publish().await;
    String::from_utf8(publish.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn each_message_goes_to_one_member_in_turn() {
    let world = World::start();
    for version in [V5, V311] {
        let mut members = members(&world, version, ["a", "b"], Qos::AtMostOnce).await;
        let mut sender = world.connect(version, "sender").await;
        for number in ["1", "2", "3", "4"] {
            sender.send(&qos0("t/x", number)).await;
        }
        for (member, expected) in members.iter_mut().zip([["1", "3"], ["2", "4"]]) {
            for number in expected {
                assert_eq!(payload(member).await, number);
            }
            member.expect_quiet().await;
        }
    }
}

/// «Each Shared Subscription is identified by share name and filter»: other groups and own subscriptions get theirs.
#[tokio::test]
async fn groups_and_own_subscriptions_do_not_disturb_each_other() {
    let world = World::start();
    let mut one = world.connect(V5, "one").await;
    one.subscribe_with(vec![filter(SHARE, Qos::AtLeastOnce)], Some(1))
        .await;
    one.subscribe_with(vec![filter("t/+", Qos::AtLeastOnce)], Some(2))
        .await;
    one.subscribe_with(vec![filter("$share/h/t/#", Qos::AtMostOnce)], Some(3))
        .await;
    world
        .connect(V5, "sender")
        .await
        .publish_qos1("t/x", 1)
        .await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let publish = one.receive_publish().await;
        got.push((
            publish.properties.subscription_identifiers.clone(),
            publish.qos,
        ));
    }
    got.sort();
    assert_eq!(
        got,
        [
            (vec![1], Qos::AtLeastOnce),
            (vec![2], Qos::AtLeastOnce),
            (vec![3], Qos::AtMostOnce)
        ]
    );
    one.expect_quiet().await;
}

/// [MQTT-4.8.2-3]: each member gets the message at the QoS of its own subscription at most.
#[tokio::test]
async fn the_subscription_of_the_chosen_member_limits_the_qos() {
    let world = World::start();
    let mut low = members(&world, V5, ["low"], Qos::AtMostOnce)
        .await
        .remove(0);
    let mut high = members(&world, V5, ["high"], Qos::ExactlyOnce)
        .await
        .remove(0);
    let mut sender = world.connect(V5, "sender").await;
    sender.publish_qos1("t/x", 1).await;
    sender.publish_qos1("t/x", 2).await;
    assert_eq!(low.receive_publish().await.qos, Qos::AtMostOnce);
    assert_eq!(high.receive_publish().await.qos, Qos::AtLeastOnce);
}

/// [MQTT-3.8.3-4].
#[tokio::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let mut bytes = vec![0x82, 6 + 12, 0, 1, 0, 0, 12];
    bytes.extend_from_slice(SHARE.as_bytes());
    bytes.push(0b0100);
    client.send_bytes(&bytes).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}

/// §3.8.4: «If a shared subscription … no Retained Messages are sent».
#[tokio::test]
async fn retained_messages_are_not_sent_to_a_shared_subscription() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let mut publish = message("t/r", Qos::AtLeastOnce, 1, "kept");
    publish.retain = true;
    client.send(&Packet::Publish(publish)).await;
    assert_eq!(client.receive().await, puback(1));
    let mut wanted = filter(SHARE, Qos::AtLeastOnce);
    wanted.retain_handling = RetainHandling::Always;
    client.subscribe_with(vec![wanted], None).await;
    client.expect_quiet().await;
}

/// §4.8.2: «If the Client's Session terminates before the Client reconnects, the Server SHOULD send the Application Message
/// to another Client».
#[tokio::test]
async fn unacknowledged_and_queued_messages_of_a_session_that_ends_go_to_another_member() {
    let world = World::start();
    for version in [V5, V311] {
        let mut leaving = members(&world, version, ["leaving"], Qos::AtLeastOnce)
            .await
            .remove(0);
        let mut sender = world.connect(version, "sender").await;
        sender.publish_qos1("t/x", 1).await;
        let first = leaving.receive_publish().await;
        assert_eq!(first.qos, Qos::AtLeastOnce);
        let mut staying = members(&world, version, ["staying"], Qos::AtLeastOnce)
            .await
            .remove(0);
        leaving.vanish();
        let again = staying.receive_publish().await;
        assert_eq!(again.payload, first.payload);
        assert!(!again.dup, "its first delivery to this client");
    }
}

/// What waits for a window goes to another member when its own unsubscribes; what was sent stays with it.
#[tokio::test]
async fn queued_messages_of_a_member_that_unsubscribes_go_to_another_member() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "leaving");
    asked.properties.receive_maximum = Some(1);
    let (mut leaving, _) = world.connect_with(asked).await;
    leaving.subscribe(&[(SHARE, Qos::AtLeastOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    for number in 1..=3 {
        sender.send(&qos1("t/x", number, &number.to_string())).await;
        assert_eq!(sender.receive().await, puback(number));
    }
    assert_eq!(payload(&mut leaving).await, "1");
    let mut staying = members(&world, V5, ["staying"], Qos::AtLeastOnce)
        .await
        .remove(0);
    leaving.unsubscribe(&[SHARE]).await;
    assert_eq!(payload(&mut staying).await, "2");
    assert_eq!(payload(&mut staying).await, "3");
    leaving.send(&puback(1)).await;
    leaving.expect_quiet().await;
}

/// A member whose session lives on keeps its messages; when the session expires, another one gets them.
#[tokio::test]
async fn messages_of_an_expired_session_go_to_another_member() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "away");
    asked.properties.session_expiry_interval = Some(1);
    let (mut away, _) = world.connect_with(asked).await;
    away.subscribe(&[(SHARE, Qos::ExactlyOnce)]).await;
    away.disconnect().await;
    world.plugin.disconnected().await;
    let mut sender = world.connect(V5, "sender").await;
    sender.publish_qos1("t/x", 1).await;
    sender.send(&qos2("t/x", 2, "queued at QoS 2")).await;
    assert_eq!(sender.receive().await, pubrec(2));
    let mut staying = members(&world, V5, ["staying"], Qos::ExactlyOnce)
        .await
        .remove(0);
    staying.expect_quiet().await;
    assert_eq!(staying.receive_publish().await.qos, Qos::AtLeastOnce);
    assert_eq!(staying.receive_publish().await.qos, Qos::ExactlyOnce);
}

/// [MQTT-4.8.2-4], [MQTT-4.8.2-5]: «MUST complete the delivery of the message to that Client when it reconnects», and «MUST
/// NOT send the Application Message to any other subscribed Client» when it does not.
#[tokio::test]
async fn a_qos2_delivery_that_has_begun_is_for_its_member_alone() {
    let world = World::start();
    let (mut first, _) = world.connect_persistent(V5, "first").await;
    first.subscribe(&[(SHARE, Qos::ExactlyOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    sender.send(&qos2("t/x", 1, "once")).await;
    assert_eq!(sender.receive().await, pubrec(1));
    let begun = first.receive_publish().await;
    let mut other = members(&world, V5, ["other"], Qos::ExactlyOnce)
        .await
        .remove(0);
    first.vanish();
    world.plugin.disconnected().await;
    let (mut first, ack) = world.connect_persistent(V5, "first").await;
    assert!(ack.session_present);
    let again = first.receive_publish().await;
    assert_eq!((again.packet_id, again.dup), (begun.packet_id, true));
    let packet_id = again.packet_id.unwrap().get();
    first.send(&pubrec(packet_id)).await;
    assert_eq!(first.receive().await, pubrel(packet_id));
    // Its session ends now.
    let _new = world.connect(V5, "first").await;
    other.expect_quiet().await;
}

/// [MQTT-4.8.2-6]: «MUST discard the Application Message and not attempt to send it to any other Subscriber».
#[tokio::test]
async fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    let world = World::start();
    let mut members = members(&world, V5, ["a", "b"], Qos::AtLeastOnce).await;
    let mut sender = world.connect(V5, "sender").await;
    sender.publish_qos1("t/x", 1).await;
    let refused = members[0].receive_publish().await.packet_id.unwrap().get();
    let ack = with_reason(refused, ReasonCode::UnspecifiedError);
    members[0].send(&Packet::PubAck(ack)).await;
    members.remove(0).disconnect().await;
    world.plugin.disconnected().await;
    members[0].expect_quiet().await;
}
