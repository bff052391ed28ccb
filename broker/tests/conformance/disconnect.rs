//! DISCONNECT, AUTH and what errors lead to (MQTT 5.0 §3.14, §3.15, §4.13; 3.1.1 §3.14, §4.8).

use broker::codec::packet::{Packet, Qos};
use broker::codec::reason::ReasonCode;

use super::client::{V5, V311, connect, frame, pubrec, pubrel, qos0, qos1, qos2};
use super::world::World;

/// [MQTT-3.14.4-1], [MQTT-3.14.4-2]: after its DISCONNECT the server sends nothing and closes.
/// [MQTT-3.14.2-1], [MQTT-3.14.2-2], [MQTT-4.13.1-1], [MQTT-4.13.2-1]: which has a Reason Code, and no Session Expiry
/// Interval; the test's client would not read it.
#[tokio::test]
async fn after_disconnect_of_the_server_nothing_comes_but_the_close() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
    let mut bytes = frame(0xC1, &[]);
    bytes.extend(frame(0x32, &[b"\0\x01t\0\x01\0x"]));
    bytes.extend(frame(0xC0, &[]));
    client.send_bytes(&bytes).await;
    client.expect_disconnect(ReasonCode::MalformedPacket).await;
    assert_eq!(world.metrics.publishes_received.value(), 0);
}

/// [MQTT-3.14.2-3], [MQTT-3.14.2-4]: its Reason String is left out for a client that takes no such packet.
#[tokio::test]
async fn disconnect_leaves_out_what_would_make_it_too_large() {
    let world = World::start();
    // A Session Expiry Interval where CONNECT had none.
    let wrong = frame(0xE0, &[b"\0\x05\x11\0\0\0\x05"]);
    let mut full = u32::MAX;
    for _ in 0..3 {
        let mut asked = connect(V5, "a");
        asked.properties.maximum_packet_size = Some(full);
        let (mut client, _) = world.connect_with(asked).await;
        client.send_bytes(&wrong).await;
        let got = client.receive_raw().await;
        client.expect_closed().await;
        match full {
            // First everything, then exactly that much, then not quite.
            u32::MAX => full = u32::try_from(got.len()).unwrap(),
            _ if got.len() > 4 => {
                assert_eq!(got.len(), full as usize);
                full -= 1;
            }
            _ => {
                assert_eq!(got, frame(0xE0, &[b"\x82\0"]));
                return;
            }
        }
    }
    panic!("the Reason String is never left out");
}

/// [MQTT-3.14.2-1]: a Reason Code that a client must not send is a Protocol Error.
#[tokio::test]
async fn a_reason_code_that_is_not_the_clients_closes_the_connection() {
    let world = World::start();
    for reason in [0x8E, 0x8B, 0x01, 0x05, 0xFF] {
        let mut client = world.connect(V5, "a").await;
        client.send_bytes(&frame(0xE0, &[&[reason]])).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.14.2-1], [MQTT-2.2.1-3]: also for an identifier that is in use, which has a Reason Code of its own elsewhere.
/// 3.1.1 [MQTT-4.8.0-1].
#[tokio::test]
async fn a_packet_identifier_in_use_closes_the_connection() {
    let world = World::start();
    world.plugin.keep_releases();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.send(&qos2("plug/t", 1, "x")).await;
        assert_eq!(client.receive().await, pubrec(1));
        client.send(&pubrel(1)).await;
        client.send(&qos2("plug/t", 1, "y")).await;
        if version == V5 {
            client.expect_disconnect(ReasonCode::ProtocolError).await;
        } else {
            client.expect_closed().await;
        }
    }
}

/// 3.1.1 [MQTT-3.14.4-1], [MQTT-3.14.4-2]: whoever sends more after its DISCONNECT is not heard. The same in 5.0.
#[tokio::test]
async fn nothing_is_read_after_disconnect() {
    let world = World::start();
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("t", Qos::AtMostOnce)]).await;
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        let goodbye = super::client::disconnect(ReasonCode::Success, None);
        client.send_all(&[goodbye, qos0("t", "x")]).await;
        client.expect_closed().await;
    }
    watcher.expect_quiet().await;
}

/// [MQTT-4.12.0-7], [MQTT-4.12.1-1]: AUTH without an Authentication Method in CONNECT is a Protocol Error.
/// [MQTT-3.15.2-1]: and so are Reason Codes that are not a client's.
#[tokio::test]
async fn auth_without_a_method_in_connect_closes_the_connection() {
    let world = World::start();
    for packet in [
        frame(0xF0, &[b"\x18\x04\x15\0\x01a"]),
        frame(0xF0, &[b"\x19\x04\x15\0\x01a"]),
        frame(0xF0, &[b"\x00\x04\x15\0\x01a"]),
        frame(0xF0, &[b"\x87\x04\x15\0\x01a"]),
        frame(0xF0, &[b"\x18\0"]),
        frame(0xF0, &[]),
    ] {
        let mut client = world.connect(V5, "a").await;
        client.send_bytes(&packet).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
    let mut old = world.connect(V311, "a").await;
    old.send_bytes(b"\xF0\0").await;
    old.expect_closed().await;
}

/// [MQTT-4.12.0-1]: an Authentication Method that the server does not know is refused, and the connection closed.
#[tokio::test]
async fn an_unknown_authentication_method_is_refused() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.authentication_method = Some("NO-SUCH-METHOD".into());
    let mut client = world.open(V5).await;
    let ack = client.connect(asked).await;
    assert_eq!(ack.reason, ReasonCode::BadAuthenticationMethod);
    client.expect_closed().await;
}

/// 3.1.1 [MQTT-4.8.0-1], [MQTT-4.8.0-2]: who breaks a rule is closed. The same in 5.0, with what was before the error
/// carried out, and nothing behind it.
#[tokio::test]
async fn what_came_before_an_error_is_carried_out() {
    let world = World::start();
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("t", Qos::AtMostOnce)]).await;
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client
            .send_all(&[
                qos1("t", 1, "before"),
                Packet::Connect(Box::new(connect(version, "a"))),
                qos1("t", 2, "behind"),
            ])
            .await;
        assert!(matches!(client.receive().await, Packet::PubAck(_)));
        if version == V5 {
            client.expect_disconnect(ReasonCode::ProtocolError).await;
        } else {
            client.expect_closed().await;
        }
        assert_eq!(watcher.receive_publish().await.payload, "before");
    }
    watcher.expect_quiet().await;
}
