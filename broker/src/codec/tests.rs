//! What holds for all packets: `tests/vectors.rs` has the single rules.

mod packets;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use proptest::prelude::*;

use super::decode::{DecodeError, Decoder};
use super::encode::{PublishHead, encode, encode_publish, encoded_len, publish_len};
use super::packet::{
    Ack, ConnAck, Disconnect, Packet, PacketId, PacketType, Publish, Qos, SubAck, UnsubAck, Version,
};
use super::properties::{
    AckProperties, ConnAckProperties, DisconnectProperties, PublishProperties,
};
use super::reason::ReasonCode;
use packets::{from_client, from_server};

fn decode_all(mut decoder: Decoder, bytes: &[u8]) -> Result<Vec<Packet>, DecodeError> {
    let mut input = BytesMut::from(bytes);
    let mut packets = Vec::new();
    while let Some(packet) = decoder.decode(&mut input)? {
        packets.push(packet);
    }
    Ok(packets)
}

#[test]
fn connect_sets_the_version() {
    let mut decoder = Decoder::new(100);
    let mut input = BytesMut::from(&b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"[..]);
    let packet = decoder.decode(&mut input).unwrap().unwrap();
    assert_eq!(packet.packet_type(), PacketType::Connect);
    assert_eq!(decoder.version(), Some(Version::V5));
    assert!(input.is_empty());
}

#[test]
fn the_version_is_known_when_the_rest_of_connect_is_refused() {
    let mut decoder = Decoder::new(100);
    let mut input = BytesMut::from(&b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x00\x00\x00"[..]);
    let refused = decoder.decode(&mut input);
    assert_eq!(refused, Err(DecodeError::ConnectFlags(3)));
    assert_eq!(decoder.version(), Some(Version::V311));
}

#[test]
fn an_announced_length_reserves_nothing() {
    let mut decoder = Decoder::with_version(Version::V5, u32::MAX);
    let mut input = BytesMut::from(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..]);
    let capacity = input.capacity();
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert_eq!((input.len(), input.capacity()), (5, capacity));
}

#[test]
fn a_packet_above_the_limit_is_refused_before_it_has_arrived() {
    let refused = decode_all(Decoder::with_version(Version::V311, 99), &[0x30, 98]);
    let (bytes, limit) = (100, 99);
    assert_eq!(refused, Err(DecodeError::PacketTooLarge { bytes, limit }));
    let waiting = decode_all(Decoder::with_version(Version::V311, 100), &[0x30, 98]);
    assert_eq!(waiting, Ok(Vec::new()));
}

#[test]
fn what_3_1_1_cannot_say_is_left_out() {
    let properties = AckProperties {
        reason_string: Some("no".into()),
        ..AckProperties::default()
    };
    let packet_id = PacketId::new(7).unwrap();
    let refusal = Ack {
        packet_id,
        reason: ReasonCode::NotAuthorized,
        properties: Some(Box::new(properties.clone())),
    };
    let suback = SubAck {
        packet_id,
        reasons: vec![ReasonCode::GrantedQos2, ReasonCode::TopicFilterInvalid],
        properties: properties.clone(),
    };
    let unsuback = UnsubAck {
        packet_id,
        reasons: vec![ReasonCode::NoSubscriptionExisted],
        properties,
    };
    let connack = ConnAck {
        session_present: false,
        reason: ReasonCode::ServerBusy,
        properties: ConnAckProperties::default(),
    };
    let disconnect = Disconnect {
        reason: ReasonCode::SessionTakenOver,
        properties: DisconnectProperties::default(),
    };
    let cases: [(Packet, &[u8]); 5] = [
        (Packet::PubAck(refusal), &[0x40, 2, 0, 7]),
        (Packet::SubAck(suback), &[0x90, 4, 0, 7, 2, 0x80]),
        (Packet::UnsubAck(unsuback), &[0xB0, 2, 0, 7]),
        (Packet::ConnAck(Box::new(connack)), &[0x20, 2, 0, 3]),
        (Packet::Disconnect(disconnect), &[0xE0, 0]),
    ];
    for (packet, expected) in cases {
        assert_eq!(written(&packet, Version::V311), expected);
    }
}

#[test]
fn one_publish_goes_out_with_the_head_of_each_receiver() {
    let publish = Publish {
        dup: true,
        qos: Qos::ExactlyOnce,
        retain: true,
        topic: "a".into(),
        packet_id: PacketId::new(9),
        payload: Bytes::from_static(b"x"),
        properties: PublishProperties {
            topic_alias: Some(5),
            subscription_identifiers: vec![3],
            content_type: Some("t".into()),
            ..PublishProperties::default()
        }
        .into(),
    };
    let head = PublishHead {
        qos: Qos::AtLeastOnce,
        packet_id: PacketId::new(2),
        subscription_identifiers: &[1, 200],
        ..PublishHead::default()
    };
    let mut out = BytesMut::new();
    encode_publish(&publish, &head, Version::V5, &mut out);
    assert_eq!(
        out.as_ref(),
        b"\x32\x10\x00\x01a\x00\x02\x09\x0B\x01\x0B\xC8\x01\x03\x00\x01tx"
    );
    assert_eq!(publish_len(&publish, &head, Version::V5), out.len());
    out.clear();
    let known = PublishHead {
        topic_alias: Some(7),
        omit_topic: true,
        ..PublishHead::default()
    };
    encode_publish(&publish, &known, Version::V5, &mut out);
    assert_eq!(
        out.as_ref(),
        b"\x30\x0B\x00\x00\x07\x23\x00\x07\x03\x00\x01tx"
    );
    out.clear();
    encode_publish(&publish, &PublishHead::default(), Version::V311, &mut out);
    assert_eq!(out.as_ref(), b"\x30\x04\x00\x01ax");
}

#[test]
fn a_text_that_is_too_long_is_cut_between_characters() {
    let long = AckProperties {
        reason_string: Some(ByteString::from("é".repeat(40_000))),
        ..AckProperties::default()
    };
    let ack = Ack {
        packet_id: PacketId::new(1).unwrap(),
        reason: ReasonCode::Success,
        properties: Some(Box::new(long)),
    };
    let bytes = written(&Packet::PubAck(ack), Version::V5);
    let decoder = Decoder::with_version(Version::V5, u32::MAX);
    let packets = decode_all(decoder, &bytes).unwrap();
    let [Packet::PubAck(ack)] = &packets[..] else {
        panic!("{packets:?}")
    };
    let reason = ack.properties.as_ref().unwrap().reason_string.as_ref();
    assert_eq!(reason.unwrap().len(), 65_534);
}

#[test]
fn payload_and_topic_refer_to_the_input() {
    let mut input = BytesMut::from(&b"\x30\x06\x00\x01abcd"[..]);
    let memory = input.as_ptr_range();
    let mut decoder = Decoder::with_version(Version::V311, 100);
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut input) else {
        panic!("not a PUBLISH")
    };
    assert!(memory.contains(&publish.payload.as_ptr()));
    assert!(memory.contains(&publish.topic.as_bytes().as_ptr()));
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

proptest! {
    #[test]
    fn what_a_client_writes_a_server_reads(
        (version, packet) in version().prop_flat_map(|v| (Just(v), from_client(v)))
    ) {
        let bytes = written(&packet, version);
        prop_assert_eq!(encoded_len(&packet, version), bytes.len());
        let decoder = Decoder::with_version(version, u32::MAX);
        prop_assert_eq!(decode_all(decoder, &bytes), Ok(vec![packet]));
    }

    #[test]
    fn what_a_server_writes_a_client_reads(
        (version, packet) in version().prop_flat_map(|v| (Just(v), from_server(v)))
    ) {
        let bytes = written(&packet, version);
        prop_assert_eq!(encoded_len(&packet, version), bytes.len());
        let decoder = Decoder::for_client(version, u32::MAX);
        prop_assert_eq!(decode_all(decoder, &bytes), Ok(vec![packet]));
    }

    #[test]
    fn input_in_two_parts_gives_the_same(
        (version, packets) in version()
            .prop_flat_map(|v| (Just(v), prop::collection::vec(from_client(v), 1..4))),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = BytesMut::new();
        for packet in &packets {
            encode(packet, version, &mut bytes);
        }
        let cut = cut.index(bytes.len());
        let mut decoder = Decoder::with_version(version, u32::MAX);
        let mut input = BytesMut::from(&bytes[..cut]);
        let mut decoded = Vec::new();
        while let Some(packet) = decoder.decode(&mut input).unwrap() {
            decoded.push(packet);
        }
        input.extend_from_slice(&bytes[cut..]);
        while let Some(packet) = decoder.decode(&mut input).unwrap() {
            decoded.push(packet);
        }
        prop_assert_eq!(decoded, packets);
    }

    #[test]
    fn input_byte_by_byte_gives_the_same_packets_or_the_same_error(
        version in version(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let at_once = decode_all(Decoder::with_version(version, u32::MAX), &bytes);
        let mut decoder = Decoder::with_version(version, u32::MAX);
        let (mut input, mut packets) = (BytesMut::new(), Vec::new());
        let mut error = None;
        for byte in bytes {
            input.extend_from_slice(&[byte]);
            match decoder.decode(&mut input) {
                Ok(packet) => packets.extend(packet),
                Err(found) => {
                    error = Some(found);
                    break;
                }
            }
        }
        prop_assert_eq!(error.map_or(Ok(packets), Err), at_once);
    }

    #[test]
    fn a_damaged_packet_never_panics_and_what_decodes_round_trips(
        (version, packet) in version().prop_flat_map(|v| (Just(v), from_client(v))),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = BytesMut::from(&written(&packet, version)[..]);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let mut decoder = Decoder::with_version(version, u32::MAX);
        while let Ok(Some(packet)) = decoder.decode(&mut bytes) {
            let version = match &packet {
                Packet::Connect(connect) => connect.version,
                _ => version,
            };
            let again = decode_all(
                Decoder::with_version(version, u32::MAX),
                &written(&packet, version),
            );
            prop_assert_eq!(again, Ok(vec![packet]));
        }
    }
}

fn written(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out);
    out.to_vec()
}
