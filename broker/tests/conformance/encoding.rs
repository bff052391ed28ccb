//! Texts, lengths, flags and packet identifiers on the wire (MQTT 5.0 §1.5, §2; 3.1.1 §1.5, §2).
//!
//! `tests/vectors` tries the decoder with every field of every packet; here is what a connection makes of it.

use broker::codec::packet::{Packet, Qos, Version};
use broker::codec::reason::ReasonCode;
use bytes::Bytes;

use super::client::{V5, V311, connect, frame, message, no_properties, puback, qos0, qos1, text};
use super::world::World;

/// A fresh connection ends when it sends these bytes: in 5.0 with the reason.
async fn refused(world: &World, version: Version, bytes: &[u8], reason: ReasonCode) {
    let mut client = world.connect(version, "refused").await;
    client.send_bytes(bytes).await;
    match version {
        V5 => client.expect_disconnect(reason).await,
        V311 => client.expect_closed().await,
    }
}

async fn malformed(world: &World, version: Version, bytes: &[u8]) {
    refused(world, version, bytes, ReasonCode::MalformedPacket).await;
}

const ILL_FORMED: [&[u8]; 5] = [b"\xC3", b"\xFF", b"\xC0\xAF", b"\xED\xA0\x80", b"a\0b"];

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.3.2-1], [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.7.3-2]: texts are well-formed
/// UTF-8 without U+0000.
/// 3.1.1 [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-3.3.2-1], [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.7.3-2].
#[tokio::test]
async fn ill_formed_text_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for bad in ILL_FORMED {
            for packet in [
                frame(0x30, &[&text(bad), none, b"x"]),
                frame(0x82, &[b"\0\x01", none, &text(bad), b"\0"]),
                frame(0xA2, &[b"\0\x01", none, &text(bad)]),
            ] {
                malformed(&world, version, &packet).await;
            }
        }
    }
}

/// [MQTT-3.3.2-13], [MQTT-3.3.2-19]: Response Topic and Content Type are UTF-8.
/// [MQTT-1.5.7-1]: so are both texts of a User Property.
#[tokio::test]
async fn ill_formed_text_in_a_property_closes_the_connection() {
    let world = World::start();
    for bad in ILL_FORMED {
        let bad = text(bad);
        for property in [
            [b"\x08", &*bad].concat(),
            [b"\x03", &*bad].concat(),
            [b"\x26", &*bad, b"\0\x01a"].concat(),
            [b"\x26\0\x01a", &*bad].concat(),
        ] {
            let length = [u8::try_from(property.len()).unwrap()];
            malformed(&world, V5, &frame(0x30, &[b"\0\x01t", &length, &property])).await;
        }
    }
}

/// [MQTT-1.5.4-3]: U+FEFF is a character like any other. [MQTT-4.7.3-4]: names are compared as they are.
/// 3.1.1 [MQTT-1.5.3-3], [MQTT-4.7.3-4].
#[tokio::test]
async fn u_feff_is_neither_skipped_nor_stripped() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client
            .subscribe(&[("\u{FEFF}t", Qos::AtMostOnce), ("u", Qos::AtMostOnce)])
            .await;
        client
            .send_all(&[
                qos0("t", "1"),
                qos0("\u{FEFF}u", "2"),
                qos0("\u{FEFF}t", "3"),
            ])
            .await;
        let got = client.receive_raw().await;
        let expected = frame(0x30, &[&text("\u{FEFF}t"), no_properties(version), b"3"]);
        assert_eq!(got, expected);
        client.expect_quiet().await;
    }
}

/// [MQTT-1.5.5-1]: lengths take as few bytes as they need, in both directions. 3.1.1 §2.2.3.
#[tokio::test]
async fn lengths_are_minimal() {
    let world = World::start();
    for version in [V5, V311] {
        malformed(&world, version, &[0xC0, 0x80, 0x00]).await;
        malformed(&world, version, &[0xC0, 0x80, 0x80, 0x80, 0x00]).await;
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[("t", Qos::AtMostOnce)]).await;
        let fields = 3 + no_properties(version).len();
        for (remaining, length) in [
            (127, &[0x7F][..]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
        ] {
            client
                .send(&qos0("t", &"x".repeat(remaining - fields)))
                .await;
            let got = client.receive_raw().await;
            assert_eq!(got[1..=length.len()], *length);
            assert_eq!(got.len(), 1 + length.len() + remaining);
        }
    }
    malformed(&world, V5, b"\x30\x05\0\x01t\x80\0").await;
}

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]: reserved flags have
/// their value, or the packet is malformed.
/// 3.1.1 [MQTT-2.2.2-1], [MQTT-2.2.2-2], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1].
#[tokio::test]
async fn wrong_flags_close_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for packet in [
            frame(0x41, &[b"\0\x01"]),
            frame(0x52, &[b"\0\x01"]),
            frame(0x60, &[b"\0\x01"]),
            frame(0x63, &[b"\0\x01"]),
            frame(0x78, &[b"\0\x01"]),
            frame(0x80, &[b"\0\x01", none, b"\0\x01t\0"]),
            frame(0x83, &[b"\0\x01", none, b"\0\x01t\0"]),
            frame(0xA0, &[b"\0\x01", none, b"\0\x01t"]),
            frame(0xA6, &[b"\0\x01", none, b"\0\x01t"]),
            frame(0xC1, &[]),
            frame(0xE2, &[]),
            frame(0xF4, &[]),
        ] {
            malformed(&world, version, &packet).await;
        }
    }
}

/// [MQTT-3.3.1-2]: no DUP at QoS 0, [MQTT-3.3.1-4]: no QoS 3, [MQTT-4.7.0-1], [MQTT-3.3.2-2]: no wildcard in a topic,
/// [MQTT-4.7.3-1]: which is not empty, [MQTT-4.13.1-1].
/// 3.1.1 [MQTT-3.3.1-2], [MQTT-3.3.1-4], [MQTT-4.7.1-1], [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.8.0-1].
#[tokio::test]
async fn a_malformed_publish_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for (first, topic) in [(0x38, "t"), (0x30, "#"), (0x30, "a/+/b"), (0x30, "a+")] {
            malformed(&world, version, &frame(first, &[&text(topic), none])).await;
        }
        for first in [0x36, 0x3E] {
            malformed(&world, version, &frame(first, &[b"\0\x01t\0\x01", none])).await;
        }
    }
    malformed(&world, V311, &frame(0x30, &[b"\0\0x"])).await;
    refused(
        &world,
        V5,
        &frame(0x30, &[b"\0\0\0x"]),
        ReasonCode::ProtocolError,
    )
    .await;
}

/// [MQTT-2.2.1-3]: a Packet Identifier is not 0. 3.1.1 [MQTT-2.3.1-1].
#[tokio::test]
async fn packet_identifier_0_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for packet in [
            frame(0x32, &[b"\0\x01t\0\0", none]),
            frame(0x34, &[b"\0\x01t\0\0", none]),
            frame(0x82, &[b"\0\0", none, b"\0\x01t\0"]),
            frame(0xA2, &[b"\0\0", none, b"\0\x01t"]),
        ] {
            refused(&world, version, &packet, ReasonCode::ProtocolError).await;
        }
    }
}

/// [MQTT-2.2.1-2]: a PUBLISH at QoS 0 has no Packet Identifier, [MQTT-4.3.1-1]: and no DUP.
/// [MQTT-2.2.2-1]: what has no properties has a length of 0 in their place.
/// 3.1.1 [MQTT-2.3.1-5], [MQTT-4.3.1-1].
#[tokio::test]
async fn packets_of_the_server_are_those_of_the_specification() {
    let world = World::start();
    for version in [V5, V311] {
        let five = version == V5;
        let none = no_properties(version);
        let mut client = world.open(version).await;
        let mut asked = connect(version, "a");
        asked.password = Some(Bytes::new());
        client.send(&Packet::Connect(Box::new(asked))).await;
        let connack = client.receive_raw().await;
        assert_eq!(connack[0], 0x20);
        assert_eq!(connack[2..4], [0, 0]);
        let connack_bytes = if five { 5 } else { 4 };
        assert!(connack.len() >= connack_bytes);
        client
            .send_bytes(&frame(0x82, &[b"\0\x07", none, b"\0\x01t\x01"]))
            .await;
        assert_eq!(
            client.receive_raw().await,
            frame(0x90, &[b"\0\x07", none, b"\x01"])
        );
        client.send(&qos0("t", "x")).await;
        assert_eq!(
            client.receive_raw().await,
            frame(0x30, &[b"\0\x01t", none, b"x"])
        );
        client.send(&qos1("t", 9, "x")).await;
        let mut got = [client.receive_raw().await, client.receive_raw().await];
        got.sort();
        assert_eq!(got[0], frame(0x32, &[b"\0\x01t\0\x01", none, b"x"]));
        assert_eq!(got[1], frame(0x40, &[b"\0\x09"]));
        client.send(&puback(1)).await;
        client
            .send_bytes(&frame(0xA2, &[b"\0\x08", none, b"\0\x01t"]))
            .await;
        let reasons: &[u8] = if five { b"\0" } else { b"" };
        assert_eq!(
            client.receive_raw().await,
            frame(0xB0, &[b"\0\x08", none, reasons])
        );
        client.send(&Packet::PingReq).await;
        assert_eq!(client.receive_raw().await, [0xD0, 0]);
    }
}

/// [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]: the server's Packet Identifiers are not 0 and not in use.
/// 3.1.1 [MQTT-2.3.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1].
#[tokio::test]
async fn packet_identifiers_of_the_server_are_unused() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
        let mut sender = world.connect(version, "sender").await;
        let mut open = Vec::new();
        for round in 0..200_u16 {
            sender.publish_qos1("t", 1).await;
            let packet_id = client.receive_publish().await.packet_id.unwrap();
            assert!(!open.contains(&packet_id), "{packet_id:?} is in use");
            // Every tenth stays unacknowledged.
            if round % 10 == 0 {
                open.push(packet_id);
            } else {
                client.send(&puback(packet_id.get())).await;
            }
        }
    }
}

/// [MQTT-4.7.3-3]: topics have up to 65,535 bytes. 3.1.1 [MQTT-4.7.3-3].
#[tokio::test]
async fn a_topic_may_have_65535_bytes() {
    let world = World::start();
    let topic: &'static str = "x".repeat(65_535).leak();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[(topic, Qos::AtMostOnce)]).await;
        client.send(&qos0(topic, "x")).await;
        assert_eq!(client.receive_publish().await.topic, topic);
    }
}

/// [MQTT-4.13.1-1]: bytes that are missing or too many make a packet malformed. 3.1.1 [MQTT-4.8.0-1].
#[tokio::test]
async fn a_packet_of_the_wrong_length_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for packet in [
            frame(0xC0, &[b"\0"]),
            frame(0x40, &[b"\0"]),
            frame(0x62, &[]),
            frame(0x82, &[b"\0\x01", none, b"\0\x05t\0"]),
            frame(0x82, &[b"\0\x01", none, b"\0\x01t"]),
            frame(0xA2, &[b"\0\x01", none, b"\0\x01t\0"]),
            frame(0x32, &[b"\0\x01t\0"]),
        ] {
            malformed(&world, version, &packet).await;
        }
    }
    malformed(&world, V311, &frame(0xE0, &[b"\0"])).await;
    malformed(&world, V311, &frame(0x40, &[b"\0\x01\0"])).await;
    malformed(&world, V5, &frame(0xE0, &[b"\0\0\0"])).await;
}

/// [MQTT-4.2.0-1]: TCP is an ordered, lossless stream of bytes.
/// 3.1.1 [MQTT-7.1.1-1], [MQTT-7.0.0-2]: and nothing beyond the standard is needed.
#[tokio::test]
async fn a_client_is_served_over_tcp() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.subscribe(&[("t", Qos::AtMostOnce)]).await;
        let publish = message("t", Qos::AtMostOnce, 0, "x");
        client.send(&Packet::Publish(publish.clone())).await;
        assert_eq!(client.receive_publish().await, publish);
    }
}
