//! What holds for all packets: `tests/vectors.rs` has the single rules.

use bytes::BytesMut;

use super::*;

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
