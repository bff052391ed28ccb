//! Hex examples: what the decoder refuses, with the rule and the Reason Code, and what it must accept.
//!
//! Rules without «3.1.1» are those of MQTT 5.0. Spaces separate fields and mean nothing. What holds for every text, every
//! property or every packet is written once, in `strict`.

#![expect(
    clippy::indexing_slicing,
    reason = "helpers of tests may panic like tests"
)]

mod strict;
mod template;

use broker::codec::decode::{DecodeError, Decoder};
use broker::codec::encode::encode;
use broker::codec::packet::{Packet, Version};
use broker::codec::reason::ReasonCode;
use bytes::BytesMut;

const LIMIT: u32 = 1_000;
const MALFORMED: ReasonCode = ReasonCode::MalformedPacket;
const PROTOCOL: ReasonCode = ReasonCode::ProtocolError;

/// The rule, the bytes, the Reason Code.
type Refused = (&'static str, &'static str, ReasonCode);

#[test]
fn first_packets_that_break_a_rule_are_refused() {
    assert_refused(&Decoder::new(LIMIT), FIRST_REFUSED);
}

#[test]
fn packets_of_a_3_1_1_client_that_break_a_rule_are_refused() {
    assert_refused(&Decoder::with_version(Version::V311, LIMIT), V311_REFUSED);
}

#[test]
fn packets_of_a_5_0_client_that_break_a_rule_are_refused() {
    assert_refused(&Decoder::with_version(Version::V5, LIMIT), V5_REFUSED);
}

#[test]
fn packets_of_a_3_1_1_server_that_break_a_rule_are_refused() {
    assert_refused(
        &Decoder::for_client(Version::V311, LIMIT),
        V311_SERVER_REFUSED,
    );
}

#[test]
fn packets_of_a_5_0_server_that_break_a_rule_are_refused() {
    assert_refused(&Decoder::for_client(Version::V5, LIMIT), V5_SERVER_REFUSED);
}

#[test]
fn valid_first_packets_are_accepted() {
    for hex in FIRST_ACCEPTED {
        let mut decoder = Decoder::new(LIMIT);
        let packet = accepted(&mut decoder, hex);
        let version = decoder.version().expect("CONNECT sets it");
        assert_eq!(written(&packet, version), bytes(hex), "{hex}");
    }
}

#[test]
fn valid_packets_of_a_client_are_accepted_and_written_as_they_were() {
    for hex in V311_ACCEPTED {
        let packet = accepted(&mut Decoder::with_version(Version::V311, LIMIT), hex);
        assert_eq!(written(&packet, Version::V311), bytes(hex), "{hex}");
    }
    for hex in V5_ACCEPTED {
        let packet = accepted(&mut Decoder::with_version(Version::V5, LIMIT), hex);
        assert_eq!(written(&packet, Version::V5), bytes(hex), "{hex}");
    }
}

#[test]
fn valid_packets_of_a_server_are_accepted_and_written_as_they_were() {
    for hex in V311_SERVER_ACCEPTED {
        let packet = accepted(&mut Decoder::for_client(Version::V311, LIMIT), hex);
        assert_eq!(written(&packet, Version::V311), bytes(hex), "{hex}");
    }
    for hex in V5_SERVER_ACCEPTED {
        let packet = accepted(&mut Decoder::for_client(Version::V5, LIMIT), hex);
        assert_eq!(written(&packet, Version::V5), bytes(hex), "{hex}");
    }
}

#[test]
fn forms_that_could_be_shorter_are_accepted() {
    let pairs = [
        ("40 03 0001 00", "40 02 0001"), // Reason Code of success written out
        ("40 04 0001 10 00", "40 03 0001 10"), // empty properties written out
        ("E0 01 00", "E0 00"),
        ("E0 02 00 00", "E0 00"),
        ("E0 01 04", "E0 02 04 00"), // without property length; written with it
    ];
    for (long, short) in pairs {
        let packet = accepted(&mut Decoder::with_version(Version::V5, LIMIT), long);
        assert_eq!(written(&packet, Version::V5), bytes(short), "{long}");
    }
}

#[test]
fn a_vector_in_parts_gives_the_same() {
    let groups = [(Version::V311, V311_ACCEPTED), (Version::V5, V5_ACCEPTED)];
    for (version, vectors) in groups {
        for hex in vectors {
            let whole = bytes(hex);
            let mut decoder = Decoder::with_version(version, LIMIT);
            let mut input = BytesMut::new();
            for byte in &whole[..whole.len() - 1] {
                input.extend_from_slice(&[*byte]);
                assert_eq!(decoder.decode(&mut input), Ok(None), "{hex}");
            }
            input.extend_from_slice(&whole[whole.len() - 1..]);
            assert!(decoder.decode(&mut input).unwrap().is_some(), "{hex}");
        }
    }
}

#[test]
fn a_refusal_of_the_version_goes_in_the_form_that_the_client_knows() {
    for (level, version) in [(3, Version::V311), (6, Version::V5)] {
        let error = DecodeError::UnsupportedVersion { level };
        assert_eq!(error.version_of_refusal(None), Some(version));
    }
    let (old, new) = (Some(Version::V311), Some(Version::V5));
    assert_eq!(DecodeError::EmptyClientId.version_of_refusal(old), old);
    assert_eq!(DecodeError::Utf8.version_of_refusal(old), None);
    assert_eq!(DecodeError::Utf8.version_of_refusal(new), new);
    assert_eq!(DecodeError::Utf8.version_of_refusal(None), None);
}

/// The first packet of a connection, to a server that does not know the version yet.
#[rustfmt::skip] // one vector, one line
const FIRST_REFUSED: &[Refused] = &[
    ("[MQTT-3.1.0-1] PINGREQ first", "C0 00", PROTOCOL),
    ("[MQTT-3.1.0-1] PUBLISH first", "30 04 0001 61 78", PROTOCOL),
    ("[MQTT-3.1.0-1] AUTH first", "F0 00", PROTOCOL),
    ("§2.1.2 type 0", "00 00", MALFORMED),
    ("[MQTT-2.1.3-1] flags of CONNECT", "11 0D 0004 4D515454 05 02 0000 00 0000", MALFORMED),
    ("[MQTT-1.5.5-1] length of five bytes", "10 80 80 80 80 01", MALFORMED),
    ("[MQTT-1.5.5-1] length longer than needed", "10 8D 00 0004 4D515454 05 02 0000 00 0000", MALFORMED),
    ("§3.2.2.3.6 above the limit", "10 E7 07", ReasonCode::PacketTooLarge),
    ("[MQTT-3.1.2-1] protocol name", "10 0C 0004 6D717474 04 02 0000 0000", ReasonCode::UnsupportedProtocolVersion),
    ("[MQTT-3.1.2-2] level 3", "10 0E 0006 4D5149736470 03 02 0000 0000", ReasonCode::UnsupportedProtocolVersion),
    ("[MQTT-3.1.2-2] level 6", "10 0C 0004 4D515454 06 02 0000 0000", ReasonCode::UnsupportedProtocolVersion),
    ("[MQTT-3.1.2-2] bridge bit of mosquitto", "10 0C 0004 4D515454 84 02 0000 0000", ReasonCode::UnsupportedProtocolVersion),
    ("[MQTT-3.1.2-3] reserved flag", "10 0D 0004 4D515454 05 03 0000 00 0000", MALFORMED),
    ("3.1.1 [MQTT-3.1.2-3] reserved flag", "10 0C 0004 4D515454 04 03 0000 0000", MALFORMED),
    ("[MQTT-3.1.2-11] Will QoS without will", "10 0D 0004 4D515454 05 0A 0000 00 0000", MALFORMED),
    ("3.1.1 [MQTT-3.1.2-13] Will QoS without will", "10 0C 0004 4D515454 04 0A 0000 0000", MALFORMED),
    ("[MQTT-3.1.2-13] Will Retain without will", "10 0D 0004 4D515454 05 22 0000 00 0000", MALFORMED),
    ("3.1.1 [MQTT-3.1.2-15] Will Retain without will", "10 0C 0004 4D515454 04 22 0000 0000", MALFORMED),
    ("[MQTT-3.1.2-12] Will QoS 3", "10 14 0004 4D515454 05 1E 0000 00 0000 00 0001 61 0001 78", MALFORMED),
    ("3.1.1 [MQTT-3.1.2-14] Will QoS 3", "10 12 0004 4D515454 04 1E 0000 0000 0001 61 0001 78", MALFORMED),
    ("3.1.1 [MQTT-3.1.2-22] password without user name", "10 0F 0004 4D515454 04 42 0000 0000 0001 70", MALFORMED),
    ("3.1.1 [MQTT-3.1.3-8] empty client identifier, clean session 0", "10 0C 0004 4D515454 04 00 0000 0000", ReasonCode::ClientIdentifierNotValid),
    ("[MQTT-3.1.3-4] client identifier not UTF-8", "10 0E 0004 4D515454 05 02 0000 00 0001 FF", MALFORMED),
    ("[MQTT-1.5.4-1] surrogate in client identifier", "10 10 0004 4D515454 05 02 0000 00 0003 EDA080", MALFORMED),
    ("[MQTT-1.5.4-1] overlong form in client identifier", "10 0F 0004 4D515454 05 02 0000 00 0002 C080", MALFORMED),
    ("[MQTT-1.5.4-2] U+0000 in client identifier", "10 0E 0004 4D515454 05 02 0000 00 0001 00", MALFORMED),
    ("[MQTT-1.5.4-2] U+0000 in user name", "10 10 0004 4D515454 05 82 0000 00 0000 0001 00", MALFORMED),
    ("[MQTT-3.1.3-12] user name not UTF-8", "10 10 0004 4D515454 05 82 0000 00 0000 0001 FF", MALFORMED),
    ("[MQTT-3.1.2-17] user name missing", "10 0D 0004 4D515454 05 82 0000 00 0000", MALFORMED),
    ("[MQTT-3.1.2-19] password missing", "10 0F 0004 4D515454 05 C2 0000 00 0000 0000", MALFORMED),
    ("[MQTT-3.1.2-16] bytes that no flag announces", "10 10 0004 4D515454 05 02 0000 00 0000 0001 75", MALFORMED),
    ("3.1.1 [MQTT-3.1.2-18] bytes that no flag announces", "10 0F 0004 4D515454 04 02 0000 0000 0001 75", MALFORMED),
    ("[MQTT-3.1.3-1] ends before the client identifier", "10 0B 0004 4D515454 05 02 0000 00", MALFORMED),
    ("§3.1 ends in the keep alive", "10 09 0004 4D515454 05 02 00", MALFORMED),
    ("[MQTT-3.1.3-11] Will Topic not UTF-8", "10 14 0004 4D515454 05 06 0000 00 0000 00 0001 FF 0001 78", MALFORMED),
    ("[MQTT-4.7.1-1] wildcard in Will Topic", "10 14 0004 4D515454 05 06 0000 00 0000 00 0001 23 0001 78", MALFORMED),
    ("3.1.1 [MQTT-4.7.1-1] wildcard in Will Topic", "10 12 0004 4D515454 04 06 0000 0000 0001 2B 0001 78", MALFORMED),
    ("[MQTT-4.7.3-1] empty Will Topic", "10 13 0004 4D515454 05 06 0000 00 0000 00 0000 0001 78", MALFORMED),
    ("§2.2.2 property runs over the section", "10 10 0004 4D515454 05 02 0000 02 21 000A 0000", MALFORMED),
    ("§2.2.2 section runs over the packet", "10 0D 0004 4D515454 05 02 0000 7F 0000", MALFORMED),
    ("[MQTT-1.5.5-1] property length longer than needed", "10 0E 0004 4D515454 05 02 0000 8000 0000", MALFORMED),
    ("§2.2.2.2 unknown property", "10 0F 0004 4D515454 05 02 0000 02 2B 00 0000", MALFORMED),
    ("§2.2.2.2 Topic Alias in CONNECT", "10 10 0004 4D515454 05 02 0000 03 23 0001 0000", MALFORMED),
    ("§3.1.2.11.2 Session Expiry Interval twice", "10 17 0004 4D515454 05 02 0000 0A 1100000001 1100000001 0000", PROTOCOL),
    ("§3.1.2.11.3 Receive Maximum twice", "10 13 0004 4D515454 05 02 0000 06 210001 210001 0000", PROTOCOL),
    ("§3.1.2.11.3 Receive Maximum 0", "10 10 0004 4D515454 05 02 0000 03 210000 0000", PROTOCOL),
    ("§3.1.2.11.4 Maximum Packet Size 0", "10 12 0004 4D515454 05 02 0000 05 2700000000 0000", PROTOCOL),
    ("§3.1.2.11.6 Request Response Information 2", "10 0F 0004 4D515454 05 02 0000 02 1902 0000", PROTOCOL),
    ("§3.1.2.11.7 Request Problem Information 2", "10 0F 0004 4D515454 05 02 0000 02 1702 0000", PROTOCOL),
    ("§3.1.2.11.10 Authentication Data without method", "10 11 0004 4D515454 05 02 0000 04 16 0001 78 0000", PROTOCOL),
    ("[MQTT-1.5.4-2] U+0000 in a user property", "10 14 0004 4D515454 05 02 0000 07 26 0001 61 0001 00 0000", MALFORMED),
    ("§3.1.3.2 Receive Maximum among will properties", "10 17 0004 4D515454 05 06 0000 00 0000 03 210001 0001 61 0001 78", MALFORMED),
    ("§3.1.3.2.2 Will Delay Interval twice", "10 1E 0004 4D515454 05 06 0000 00 0000 0A 1800000001 1800000001 0001 61 0001 78", PROTOCOL),
    ("[MQTT-3.3.2-14] wildcard in Response Topic of the will", "10 18 0004 4D515454 05 06 0000 00 0000 04 08 0001 23 0001 61 0001 78", MALFORMED),
];

/// Rules that hold for the packets of a 3.1.1 client; the numbers are those of 3.1.1.
#[rustfmt::skip] // one vector, one line
const V311_REFUSED: &[Refused] = &[
    ("§2.2.1 type 0", "00 00", MALFORMED),
    ("§2.2.1 type 15", "F0 00", MALFORMED),
    ("§2.2.1 CONNACK from a client", "20 02 00 00", PROTOCOL),
    ("§2.2.1 SUBACK from a client", "90 03 0001 00", PROTOCOL),
    ("§2.2.1 UNSUBACK from a client", "B0 02 0001", PROTOCOL),
    ("§2.2.1 PINGRESP from a client", "D0 00", PROTOCOL),
    ("[MQTT-2.2.2-2] flags of PUBACK", "42 02 0001", MALFORMED),
    ("[MQTT-2.2.2-2] flags of PUBREC", "51 02 0001", MALFORMED),
    ("[MQTT-3.6.1-1] flags of PUBREL", "60 02 0001", MALFORMED),
    ("[MQTT-2.2.2-2] flags of PUBCOMP", "74 02 0001", MALFORMED),
    ("[MQTT-3.8.1-1] flags of SUBSCRIBE", "80 06 0001 0001 61 00", MALFORMED),
    ("[MQTT-3.10.1-1] flags of UNSUBSCRIBE", "A0 05 0001 0001 61", MALFORMED),
    ("[MQTT-2.2.2-2] flags of PINGREQ", "C8 00", MALFORMED),
    ("[MQTT-3.14.1-1] flags of DISCONNECT", "E1 00", MALFORMED),
    ("§2.2.3 length of five bytes", "30 FF FF FF FF 01", MALFORMED),
    ("§2.2.3 length longer than needed", "C0 80 00", MALFORMED),
    ("§2.2.3 PINGREQ with a body", "C0 01 00", MALFORMED),
    ("§2.2.3 DISCONNECT with a body", "E0 01 00", MALFORMED),
    ("[MQTT-3.3.1-4] QoS 3", "36 06 0001 61 0001 78", MALFORMED),
    ("[MQTT-3.3.1-2] DUP at QoS 0", "38 04 0001 61 78", MALFORMED),
    ("[MQTT-2.3.1-1] packet identifier 0 in PUBLISH", "32 06 0001 61 0000 78", PROTOCOL),
    ("[MQTT-2.3.1-1] packet identifier 0 in SUBSCRIBE", "82 06 0000 0001 61 00", PROTOCOL),
    ("[MQTT-2.3.1-1] packet identifier 0 in UNSUBSCRIBE", "A2 05 0000 0001 61", PROTOCOL),
    ("[MQTT-2.3.1-1] packet identifier 0 in PUBACK", "40 02 0000", PROTOCOL),
    ("[MQTT-2.3.1-1] packet identifier 0 in PUBREL", "62 02 0000", PROTOCOL),
    ("[MQTT-4.7.3-1] empty topic", "30 03 0000 78", MALFORMED),
    ("[MQTT-3.3.2-2] wildcard + in topic", "30 06 0003 612F2B 78", MALFORMED),
    ("[MQTT-3.3.2-2] wildcard # in topic", "30 06 0003 612F23 78", MALFORMED),
    ("[MQTT-3.3.2-1] topic not UTF-8", "30 04 0001 C3 78", MALFORMED),
    ("[MQTT-4.7.3-2] U+0000 in topic", "30 06 0003 610062 78", MALFORMED),
    ("§3.3.2.1 topic runs over the packet", "30 04 0003 61 78", MALFORMED),
    ("§3.3.2.2 ends in the packet identifier", "32 04 0001 61 00", MALFORMED),
    ("§3.4.2 PUBACK of one byte", "40 01 00", MALFORMED),
    ("§3.4.2 PUBACK of three bytes", "40 03 0001 00", MALFORMED),
    ("§3.4.2 PUBACK without a body", "40 00", MALFORMED),
    ("[MQTT-3.8.3-3] SUBSCRIBE without a filter", "82 02 0001", PROTOCOL),
    ("[MQTT-3-8.3-4] QoS 3 requested", "82 06 0001 0001 61 03", PROTOCOL),
    ("[MQTT-3-8.3-4] reserved bits of requested QoS", "82 06 0001 0001 61 04", MALFORMED),
    ("[MQTT-4.7.3-1] empty filter", "82 05 0001 0000 00", MALFORMED),
    ("[MQTT-4.7.1-2] # before the end", "82 0A 0001 0005 612F232F62 00", MALFORMED),
    ("[MQTT-4.7.1-2] # within a level", "82 07 0001 0002 6123 00", MALFORMED),
    ("[MQTT-4.7.1-3] + within a level", "82 07 0001 0002 612B 00", MALFORMED),
    ("[MQTT-3.8.3-1] filter not UTF-8", "82 06 0001 0001 FF 00", MALFORMED),
    ("[MQTT-4.7.3-2] U+0000 in filter", "82 06 0001 0001 00 00", MALFORMED),
    ("§3.8.3 filter without QoS", "82 05 0001 0001 61", MALFORMED),
    ("[MQTT-3.10.3-2] UNSUBSCRIBE without a filter", "A2 02 0001", PROTOCOL),
    ("[MQTT-4.7.1-2] # before the end in UNSUBSCRIBE", "A2 09 0001 0005 612F232F62", MALFORMED),
    ("§3.10.3 byte after the last filter", "A2 06 0001 0001 61 00", MALFORMED),
    ("§2.2.3 above the limit", "30 E7 07", ReasonCode::PacketTooLarge),
];

/// Rules that hold for the packets of a 5.0 client.
#[rustfmt::skip] // one vector, one line
const V5_REFUSED: &[Refused] = &[
    ("§2.1.2 type 0", "00 00", MALFORMED),
    ("§2.1.2 CONNACK from a client", "20 03 00 00 00", PROTOCOL),
    ("§2.1.2 SUBACK from a client", "90 04 0001 00 00", PROTOCOL),
    ("§2.1.2 UNSUBACK from a client", "B0 04 0001 00 00", PROTOCOL),
    ("§2.1.2 PINGRESP from a client", "D0 00", PROTOCOL),
    ("[MQTT-2.1.3-1] flags of PUBACK", "42 02 0001", MALFORMED),
    ("[MQTT-2.1.3-1] flags of PUBREC", "51 02 0001", MALFORMED),
    ("[MQTT-3.6.1-1] flags of PUBREL", "60 02 0001", MALFORMED),
    ("[MQTT-2.1.3-1] flags of PUBCOMP", "74 02 0001", MALFORMED),
    ("[MQTT-3.8.1-1] flags of SUBSCRIBE", "80 07 0001 00 0001 61 00", MALFORMED),
    ("[MQTT-3.10.1-1] flags of UNSUBSCRIBE", "A0 06 0001 00 0001 61", MALFORMED),
    ("[MQTT-2.1.3-1] flags of PINGREQ", "C8 00", MALFORMED),
    ("[MQTT-3.14.1-1] flags of DISCONNECT", "E1 00", MALFORMED),
    ("[MQTT-3.15.1-1] flags of AUTH", "F1 00", MALFORMED),
    ("[MQTT-1.5.5-1] length of five bytes", "30 FF FF FF FF 01", MALFORMED),
    ("[MQTT-1.5.5-1] length longer than needed", "C0 80 80 00", MALFORMED),
    ("§3.12.2 PINGREQ with a body", "C0 01 00", MALFORMED),
    ("[MQTT-3.3.1-4] QoS 3", "36 07 0001 61 0001 00 78", MALFORMED),
    ("[MQTT-3.3.1-2] DUP at QoS 0", "38 05 0001 61 00 78", MALFORMED),
    ("[MQTT-2.2.1-3] packet identifier 0 in PUBLISH", "32 07 0001 61 0000 00 78", PROTOCOL),
    ("[MQTT-2.2.1-3] packet identifier 0 in SUBSCRIBE", "82 07 0000 00 0001 61 00", PROTOCOL),
    ("[MQTT-2.2.1-3] packet identifier 0 in UNSUBSCRIBE", "A2 06 0000 00 0001 61", PROTOCOL),
    ("[MQTT-2.2.1-3] packet identifier 0 in PUBACK", "40 02 0000", PROTOCOL),
    ("[MQTT-2.2.1-3] packet identifier 0 in PUBREC with reason", "50 03 0000 00", PROTOCOL),
    ("§3.3.2.1 neither topic nor alias", "30 04 0000 00 78", PROTOCOL),
    ("[MQTT-3.3.2-2] wildcard in topic", "30 05 0001 23 00 78", MALFORMED),
    ("[MQTT-3.3.2-2] wildcard in topic with an alias", "30 08 0001 2B 03 230001 78", MALFORMED),
    ("[MQTT-3.3.2-1] topic not UTF-8", "30 05 0001 FF 00 78", MALFORMED),
    ("[MQTT-4.7.3-2] U+0000 in topic", "30 05 0001 00 00 78", MALFORMED),
    ("§3.3.2.3 no property length", "30 03 0001 61", MALFORMED),
    ("§3.3.2.3.2 Payload Format Indicator 2", "30 06 0001 61 02 0102", PROTOCOL),
    ("§3.3.2.3.2 Payload Format Indicator twice", "30 08 0001 61 04 0101 0101", PROTOCOL),
    ("§3.3.2.3.3 Message Expiry Interval twice", "30 0E 0001 61 0A 0200000001 0200000001", PROTOCOL),
    ("[MQTT-3.3.2-8] Topic Alias 0", "30 07 0001 61 03 230000", ReasonCode::TopicAliasInvalid),
    ("§3.3.2.3.4 Topic Alias twice", "30 0A 0001 61 06 230001 230001", PROTOCOL),
    ("§3.3.2.3.5 Response Topic twice", "30 0C 0001 61 08 08000162 08000162", PROTOCOL),
    ("[MQTT-3.3.2-14] wildcard in Response Topic", "30 08 0001 61 04 08000123", MALFORMED),
    ("[MQTT-3.3.2-13] Response Topic not UTF-8", "30 08 0001 61 04 080001FF", MALFORMED),
    ("§3.3.2.3.6 Correlation Data twice", "30 0C 0001 61 08 09000162 09000162", PROTOCOL),
    ("[MQTT-3.3.4-6] Subscription Identifier from a client", "30 06 0001 61 02 0B01", PROTOCOL),
    ("§3.3.2.3.8 Subscription Identifier 0", "30 06 0001 61 02 0B00", PROTOCOL),
    ("§3.3.2.3.9 Content Type twice", "30 0C 0001 61 08 03000162 03000162", PROTOCOL),
    ("[MQTT-3.3.2-19] Content Type not UTF-8", "30 08 0001 61 04 030001FF", MALFORMED),
    ("[MQTT-1.5.4-2] U+0000 in Content Type", "30 08 0001 61 04 03000100", MALFORMED),
    ("§2.2.2.2 Receive Maximum in PUBLISH", "30 07 0001 61 03 210001", MALFORMED),
    ("§2.2.2.2 unknown property", "30 06 0001 61 02 7F00", MALFORMED),
    ("[MQTT-1.5.5-1] property identifier longer than needed", "30 07 0001 61 03 810001", MALFORMED),
    ("§2.2.2 property runs over the section", "30 07 0001 61 02 020001", MALFORMED),
    ("§2.2.2 section runs over the packet", "30 05 0001 61 09 78", MALFORMED),
    ("§2.2.2 section ends after an identifier", "30 05 0001 61 01 01", MALFORMED),
    ("§3.4.2.1 Reason Code of SUBACK in PUBACK", "40 03 0001 01", PROTOCOL),
    ("§3.4.2.1 unknown Reason Code", "40 03 0001 FF", PROTOCOL),
    ("§3.4.2.2.2 Reason String twice", "40 0C 0001 00 08 1F000161 1F000161", PROTOCOL),
    ("§2.2.2.2 Topic Alias in PUBACK", "40 07 0001 00 03 230001", MALFORMED),
    ("§3.4.2.2 bytes after the properties", "40 05 0001 00 00 00", MALFORMED),
    ("§3.4.2.2 section runs over the packet", "40 04 0001 00 05", MALFORMED),
    ("§3.6.2.1 Reason Code of PUBACK in PUBREL", "62 03 0001 87", PROTOCOL),
    ("§3.7.2.1 Reason Code of PUBACK in PUBCOMP", "70 03 0001 10", PROTOCOL),
    ("[MQTT-3.8.3-2] SUBSCRIBE without a filter", "82 03 0001 00", PROTOCOL),
    ("[MQTT-3.8.3-5] reserved bits of Subscription Options", "82 07 0001 00 0001 61 40", MALFORMED),
    ("§3.8.3.1 QoS 3 requested", "82 07 0001 00 0001 61 03", PROTOCOL),
    ("§3.8.3.1 Retain Handling 3", "82 07 0001 00 0001 61 30", PROTOCOL),
    ("[MQTT-3.8.3-4] No Local on a Shared Subscription", "82 10 0001 00 000A 2473686172652F672F74 04", PROTOCOL),
    ("[MQTT-4.8.2-1] share without name", "82 0F 0001 00 0009 2473686172652F2F74 00", MALFORMED),
    ("[MQTT-4.8.2-1] share without filter", "82 0E 0001 00 0008 2473686172652F67 00", MALFORMED),
    ("[MQTT-4.8.2-2] wildcard in share name", "82 10 0001 00 000A 2473686172652F2B2F74 00", MALFORMED),
    ("[MQTT-4.7.3-1] empty filter", "82 06 0001 00 0000 00", MALFORMED),
    ("[MQTT-4.7.1-1] # before the end", "82 0B 0001 00 0005 612F232F62 00", MALFORMED),
    ("[MQTT-4.7.1-1] # within a level", "82 08 0001 00 0002 6123 00", MALFORMED),
    ("[MQTT-4.7.1-2] + within a level", "82 08 0001 00 0002 612B 00", MALFORMED),
    ("[MQTT-3.8.3-1] filter not UTF-8", "82 07 0001 00 0001 FF 00", MALFORMED),
    ("§3.8.3 filter without options", "82 06 0001 00 0001 61", MALFORMED),
    ("§3.8.2.1.2 Subscription Identifier 0", "82 09 0001 02 0B00 0001 61 00", PROTOCOL),
    ("§3.8.2.1.2 Subscription Identifier twice", "82 0B 0001 04 0B01 0B01 0001 61 00", PROTOCOL),
    ("[MQTT-1.5.5-1] Subscription Identifier of five bytes", "82 0D 0001 06 0B8080808001 0001 61 00", MALFORMED),
    ("[MQTT-3.10.3-2] UNSUBSCRIBE without a filter", "A2 03 0001 00", PROTOCOL),
    ("§3.10.2.1 Subscription Identifier in UNSUBSCRIBE", "A2 08 0001 02 0B01 0001 61", MALFORMED),
    ("[MQTT-4.7.1-2] + within a level in UNSUBSCRIBE", "A2 07 0001 00 0002 612B", MALFORMED),
    ("§3.14.2.1 Reason Code of a server", "E0 01 8E", PROTOCOL),
    ("§3.14.2.1 unknown Reason Code", "E0 01 05", PROTOCOL),
    ("§3.14.2.2.2 Session Expiry Interval twice", "E0 0C 00 0A 1100000001 1100000001", PROTOCOL),
    ("§3.14.2.2 bytes after the properties", "E0 03 00 00 00", MALFORMED),
    ("[MQTT-3.15.2-1] AUTH without a body: success, which a server says", "F0 00", PROTOCOL),
    ("§3.15.2.1 Reason Code of a server", "F0 06 00 04 15 0001 61", PROTOCOL),
    ("§3.15.2.1 Reason Code of something else", "F0 06 87 04 15 0001 61", PROTOCOL),
    ("§3.15.2.2.2 AUTH without method", "F0 02 18 00", PROTOCOL),
    ("§3.15.2.2.3 Authentication Data without method", "F0 06 18 04 16 0001 61", PROTOCOL),
    ("§3.15.2.2.2 method twice", "F0 0A 18 08 15000161 15000161", PROTOCOL),
    ("[MQTT-3.1.2-24] above the limit", "30 E7 07", ReasonCode::PacketTooLarge),
];

/// Rules that hold for the packets of a 3.1.1 server; the numbers are those of 3.1.1.
#[rustfmt::skip] // one vector, one line
const V311_SERVER_REFUSED: &[Refused] = &[
    ("§2.2.1 CONNECT from a server", "10 0C 0004 4D515454 04 02 0000 0000", PROTOCOL),
    ("§2.2.1 SUBSCRIBE from a server", "82 06 0001 0001 61 00", PROTOCOL),
    ("§2.2.1 PINGREQ from a server", "C0 00", PROTOCOL),
    ("§2.2.1 DISCONNECT from a server", "E0 00", PROTOCOL),
    ("§3.2.2.1 reserved flags of CONNACK", "20 02 02 00", MALFORMED),
    ("§3.2.2.3 reserved return code", "20 02 00 06", PROTOCOL),
    ("[MQTT-3.2.2-4] session present in a refusal", "20 02 01 05", PROTOCOL),
    ("§3.2 CONNACK with properties", "20 03 00 00 00", MALFORMED),
    ("[MQTT-3.9.3-2] reserved return code in SUBACK", "90 03 0001 03", PROTOCOL),
    ("[MQTT-3.9.3-2] Reason Code of 5.0 in SUBACK", "90 03 0001 87", PROTOCOL),
    ("§3.9.3 SUBACK without a return code", "90 02 0001", PROTOCOL),
    ("§3.11.3 UNSUBACK with a payload", "B0 03 0001 00", MALFORMED),
    ("[MQTT-2.2.2-2] flags of SUBACK", "92 03 0001 00", MALFORMED),
];

/// Rules that hold for the packets of a 5.0 server.
#[rustfmt::skip] // one vector, one line
const V5_SERVER_REFUSED: &[Refused] = &[
    ("§2.1.2 CONNECT from a server", "10 0D 0004 4D515454 05 02 0000 00 0000", PROTOCOL),
    ("§2.1.2 UNSUBSCRIBE from a server", "A2 06 0001 00 0001 61", PROTOCOL),
    ("§2.1.2 PINGREQ from a server", "C0 00", PROTOCOL),
    ("[MQTT-3.2.2-1] reserved flags of CONNACK", "20 03 80 00 00", MALFORMED),
    ("[MQTT-3.2.2-6] session present in a refusal", "20 03 01 87 00", PROTOCOL),
    ("[MQTT-3.2.2-8] unknown Reason Code in CONNACK", "20 03 00 01 00", PROTOCOL),
    ("§3.2.2.3.3 Receive Maximum 0", "20 06 00 00 03 210000", PROTOCOL),
    ("§3.2.2.3.4 Maximum QoS 2", "20 05 00 00 02 2402", PROTOCOL),
    ("§3.2.2.3.6 Maximum Packet Size 0", "20 08 00 00 05 2700000000", PROTOCOL),
    ("§3.2.2.3.11 Wildcard Subscription Available 2", "20 05 00 00 02 2802", PROTOCOL),
    ("§2.2.2.2 Topic Alias in CONNACK", "20 06 00 00 03 230001", MALFORMED),
    ("[MQTT-3.9.2-1] SUBACK without a Reason Code", "90 03 0001 00", PROTOCOL),
    ("[MQTT-3.9.3-2] Reason Code of PUBACK in SUBACK", "90 04 0001 00 10", PROTOCOL),
    ("[MQTT-3.11.3-2] Reason Code of SUBACK in UNSUBACK", "B0 04 0001 00 01", PROTOCOL),
    ("[MQTT-3.14.2-2] Session Expiry Interval from a server", "E0 07 00 05 1100000001", PROTOCOL),
    ("§3.14.2.1 Reason Code of a client", "E0 01 04", PROTOCOL),
    ("§3.15.2.1 Re-authenticate from a server", "F0 06 19 04 15 0001 61", PROTOCOL),
];

/// CONNECT packets that are valid, however odd.
#[rustfmt::skip] // one vector, one line
const FIRST_ACCEPTED: &[&str] = &[
    "10 0C 0004 4D515454 04 02 0000 0000", // empty client identifier with clean session
    "10 0D 0004 4D515454 05 00 0000 00 0000", // without clean start: allowed in 5.0
    "10 10 0004 4D515454 05 42 0000 00 0000 0001 FF", // password alone, binary: allowed in 5.0
    "10 12 0004 4D515454 04 C2 0000 0000 0001 75 0001 00", // binary password
    "10 10 0004 4D515454 04 C2 0000 0000 0000 0000", // empty user name and password
    "10 13 0004 4D515454 05 06 0000 00 0000 00 0001 61 0000", // empty will payload
    "10 11 0004 4D515454 04 36 FFFF 0000 0001 61 0000", // will at QoS 2, retained
    "10 10 0004 4D515454 05 02 0000 00 0003 EFBBBF", // U+FEFF is not stripped [MQTT-1.5.4-3]
    "10 10 0004 4D515454 05 02 0000 00 0003 EFBFBF", // U+FFFF, a noncharacter
    "10 0E 0004 4D515454 05 02 0000 00 0001 01", // a control character
    "10 12 0004 4D515454 05 02 0000 05 11FFFFFFFF 0000", // a session for ever
    "10 1B 0004 4D515454 05 02 0000 0E 26 0001 61 0001 62 26 0001 61 0001 62 0000", // a user property twice
    "10 18 0004 4D515454 05 02 0000 0B 15 0004 706C6169 16 0001 00 0000", // authentication data
    "10 19 0004 4D515454 05 06 0000 00 0000 05 0200000000 0001 61 0001 78", // Message Expiry Interval 0
];

#[rustfmt::skip] // one vector, one line
const V311_ACCEPTED: &[&str] = &[
    "30 03 0001 61", // empty payload
    "30 04 0001 2F 78",
    "3D 06 0001 61 FFFF 78",
    "30 07 0004 2474 C3A9 78", // a topic with $ and with é
    "40 02 0001",
    "50 02 FFFF",
    "62 02 0001",
    "70 02 0001",
    "82 06 0001 0001 23 02",
    "82 0C 0001 0001 2B 00 0003 2F2B2F 01",
    "82 0F 0001 000A 2473686172652F672F74 01",
    "A2 08 0001 0004 612F2F23",
    "C0 00",
    "E0 00",
];

#[rustfmt::skip] // one vector, one line
const V5_ACCEPTED: &[&str] = &[
    "30 04 0001 61 00",
    "30 07 0000 03 230001 78", // topic by alias
    "30 0A 0001 61 05 0200000000 78", // Message Expiry Interval 0
    "30 0E 0001 61 0A 0100 080001 62 090001 00",
    "35 06 0001 61 0001 00",
    "40 02 0001",
    "40 03 0001 10",
    "40 0B 0001 00 07 26 0001 61 0001 62",
    "50 08 0001 99 04 1F 0001 61",
    "62 03 0001 92",
    "70 02 0001",
    "82 07 0001 00 0001 23 2E",
    "82 0C 0001 00 0006 247368617265 00", // $share alone is a filter like any other
    "82 10 0001 00 000A 2453484152452F2F74 2F 04", // so is $SHARE//t/, with No Local
    "82 0C 0001 05 0BFFFFFF7F 0001 61 00",
    "82 10 0001 00 000A 2473686172652F672F23 1A",
    "A2 0D 0001 07 26 0001 61 0001 62 0001 61",
    "C0 00",
    "E0 00",
    "E0 02 04 00",
    "E0 07 00 05 1100000000",
    "F0 0A 18 08 15 0001 61 16 0001 00",
    "F0 06 19 04 15 0001 61",
];

#[rustfmt::skip] // one vector, one line
const V311_SERVER_ACCEPTED: &[&str] = &[
    "20 02 01 00",
    "20 02 00 05",
    "90 06 0001 00 01 02 80",
    "B0 02 0001",
    "D0 00",
    "3A 06 0001 61 0001 78",
];

#[rustfmt::skip] // one vector, one line
const V5_SERVER_ACCEPTED: &[&str] = &[
    "20 03 01 00 00",
    "20 03 00 9F 00",
    "20 07 00 00 04 2400 2500",
    "20 17 00 00 14 21000A 2700000400 12 0003 616263 220000 13003C",
    "90 06 0001 00 00 87 A2",
    "B0 05 0001 00 00 11",
    "D0 00",
    "F0 00",
    "30 09 0001 61 04 0B01 0B02 78", // two subscriptions matched
    "E0 02 8E 00",
    "E0 06 9C 04 1C 0001 61",
    "F0 06 00 04 15 0001 61",
];

fn assert_refused(decoder: &Decoder, vectors: &[Refused]) {
    for (rule, hex, reason) in vectors {
        let mut input = BytesMut::from(&bytes(hex)[..]);
        match decoder.clone().decode(&mut input) {
            Err(error) => assert_eq!(error.reason_code(), *reason, "{rule}: {hex}: {error}"),
            other => panic!("{rule}: {hex}: {other:?}"),
        }
    }
}

fn accepted(decoder: &mut Decoder, hex: &str) -> Packet {
    let mut input = BytesMut::from(&bytes(hex)[..]);
    let packet = decoder.decode(&mut input);
    assert!(input.is_empty(), "{hex}: {packet:?}");
    match packet {
        Ok(Some(packet)) => packet,
        other => panic!("{hex}: {other:?}"),
    }
}

fn written(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out);
    out.to_vec()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect()
}
