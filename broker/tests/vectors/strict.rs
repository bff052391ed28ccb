//! Rules that hold everywhere, tried everywhere: each text, each property in each packet, all flags of all packets, each
//! length. The tables are those of the specification, not those of the decoder.

use broker::codec::decode::Decoder;
use broker::codec::packet::{Packet, Version};
use broker::codec::reason::ReasonCode;
use bytes::BytesMut;

use super::template::{body, framed, packet, varint};
use super::{
    FIRST_ACCEPTED, MALFORMED, PROTOCOL, V5_ACCEPTED, V5_SERVER_ACCEPTED, V311_ACCEPTED,
    V311_SERVER_ACCEPTED, bytes, written,
};

/// Whose packets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// A client that has not sent CONNECT.
    Stranger,
    Client311,
    Client5,
    Server311,
    Server5,
}

use self::Sender::{Client5, Client311, Server5, Server311, Stranger};

impl Sender {
    fn decoder(self) -> Decoder {
        match self {
            Stranger => Decoder::new(u32::MAX),
            Client311 => Decoder::with_version(Version::V311, u32::MAX),
            Client5 => Decoder::with_version(Version::V5, u32::MAX),
            Server311 => Decoder::for_client(Version::V311, u32::MAX),
            Server5 => Decoder::for_client(Version::V5, u32::MAX),
        }
    }

    /// What becomes of a whole packet: itself, or the Reason Code of the refusal.
    fn read(self, packet: &[u8]) -> Result<Packet, ReasonCode> {
        let mut input = BytesMut::from(packet);
        let read = self.decoder().decode(&mut input);
        let packet = read.map_err(|error| error.reason_code())?;
        assert!(input.is_empty(), "a whole packet is taken");
        Ok(packet.expect("a whole packet is not waited for"))
    }
}

// Texts.

/// Every text of every packet. Those that are topics are marked: no wildcard may stand there.
#[rustfmt::skip] // one text, one line
const TEXTS: &[(Sender, &str, &str)] = &[
    (Stranger, "3.1.1 Client Identifier", "10: 0004 4D515454 04 02 0000 <>"),
    (Stranger, "3.1.1 Will Topic", "10: 0004 4D515454 04 06 0000 0001 61 <> 0000"),
    (Stranger, "3.1.1 User Name", "10: 0004 4D515454 04 82 0000 0001 61 <>"),
    (Stranger, "Client Identifier", "10: 0004 4D515454 05 02 0000 [] <>"),
    (Stranger, "Authentication Method", "10: 0004 4D515454 05 02 0000 [15 <>] 0000"),
    (Stranger, "name of a User Property of CONNECT", "10: 0004 4D515454 05 02 0000 [26 <> 0001 61] 0000"),
    (Stranger, "value of a User Property of CONNECT", "10: 0004 4D515454 05 02 0000 [26 0001 61 <>] 0000"),
    (Stranger, "Will Topic", "10: 0004 4D515454 05 06 0000 [] 0001 61 [] <> 0000"),
    (Stranger, "Content Type of a will", "10: 0004 4D515454 05 06 0000 [] 0001 61 [03 <>] 0001 61 0000"),
    (Stranger, "Response Topic of a will", "10: 0004 4D515454 05 06 0000 [] 0001 61 [08 <>] 0001 61 0000"),
    (Stranger, "name of a User Property of a will", "10: 0004 4D515454 05 06 0000 [] 0001 61 [26 <> 0001 61] 0001 61 0000"),
    (Stranger, "value of a User Property of a will", "10: 0004 4D515454 05 06 0000 [] 0001 61 [26 0001 61 <>] 0001 61 0000"),
    (Stranger, "User Name", "10: 0004 4D515454 05 82 0000 [] 0001 61 <>"),
    (Client311, "3.1.1 Topic Name", "30: <> 78"),
    (Client311, "3.1.1 Topic Filter of SUBSCRIBE", "82: 0001 <> 00"),
    (Client311, "3.1.1 second Topic Filter of SUBSCRIBE", "82: 0001 0001 61 00 <> 00"),
    (Client311, "3.1.1 Topic Filter of UNSUBSCRIBE", "A2: 0001 <>"),
    (Client5, "Topic Name", "30: <> [] 78"),
    (Client5, "Response Topic", "30: 0001 61 [08 <>]"),
    (Client5, "Content Type", "30: 0001 61 [03 <>]"),
    (Client5, "name of a User Property of PUBLISH", "30: 0001 61 [26 <> 0001 61]"),
    (Client5, "value of a User Property of PUBLISH", "30: 0001 61 [26 0001 61 <>]"),
    (Client5, "Reason String of PUBACK", "40: 0001 00 [1F <>]"),
    (Client5, "name of a User Property of PUBACK", "40: 0001 00 [26 <> 0001 61]"),
    (Client5, "value of a User Property of PUBACK", "40: 0001 00 [26 0001 61 <>]"),
    (Client5, "Reason String of PUBREC", "50: 0001 00 [1F <>]"),
    (Client5, "User Property of PUBREC", "50: 0001 00 [26 <> <>]"),
    (Client5, "Reason String of PUBREL", "62: 0001 00 [1F <>]"),
    (Client5, "User Property of PUBREL", "62: 0001 00 [26 <> <>]"),
    (Client5, "Reason String of PUBCOMP", "70: 0001 00 [1F <>]"),
    (Client5, "User Property of PUBCOMP", "70: 0001 00 [26 <> <>]"),
    (Client5, "Topic Filter of SUBSCRIBE", "82: 0001 [] <> 00"),
    (Client5, "second Topic Filter of SUBSCRIBE", "82: 0001 [] 0001 61 00 <> 00"),
    (Client5, "User Property of SUBSCRIBE", "82: 0001 [26 <> <>] 0001 61 00"),
    (Client5, "Topic Filter of UNSUBSCRIBE", "A2: 0001 [] <>"),
    (Client5, "User Property of UNSUBSCRIBE", "A2: 0001 [26 <> <>] 0001 61"),
    (Client5, "Reason String of DISCONNECT", "E0: 00 [1F <>]"),
    (Client5, "User Property of DISCONNECT", "E0: 00 [26 <> <>]"),
    (Client5, "Server Reference of DISCONNECT", "E0: 00 [1C <>]"),
    (Client5, "Authentication Method of AUTH", "F0: 18 [15 <>]"),
    (Client5, "Reason String of AUTH", "F0: 18 [15 0001 61 1F <>]"),
    (Client5, "User Property of AUTH", "F0: 18 [15 0001 61 26 <> <>]"),
    (Server5, "Assigned Client Identifier", "20: 00 00 [12 <>]"),
    (Server5, "Reason String of CONNACK", "20: 00 00 [1F <>]"),
    (Server5, "User Property of CONNACK", "20: 00 00 [26 <> <>]"),
    (Server5, "Response Information", "20: 00 00 [1A <>]"),
    (Server5, "Server Reference of CONNACK", "20: 00 00 [1C <>]"),
    (Server5, "Authentication Method of CONNACK", "20: 00 00 [15 <>]"),
    (Server5, "Reason String of SUBACK", "90: 0001 [1F <>] 00"),
    (Server5, "User Property of SUBACK", "90: 0001 [26 <> <>] 00"),
    (Server5, "Reason String of UNSUBACK", "B0: 0001 [1F <>] 00"),
    (Server5, "User Property of UNSUBACK", "B0: 0001 [26 <> <>] 00"),
];

const ILL_FORMED: &[(&str, &[u8])] = &[
    ("U+0000", b"\0"),
    ("U+0000 inside", b"a\0b"),
    ("U+0000 at the end", b"ab\0"),
    ("a lone continuation byte", b"\x80"),
    ("a sequence cut short", b"a\xC3"),
    ("a sequence cut short inside", b"\xE2\x82a"),
    ("U+0000 in two bytes", b"\xC0\x80"),
    ("/ in two bytes", b"\xC0\xAF"),
    ("/ in three bytes", b"\xE0\x80\xAF"),
    ("U+D800", b"\xED\xA0\x80"),
    ("U+DFFF", b"\xED\xBF\xBF"),
    ("a pair of surrogates", b"\xED\xA0\x80\xED\xB0\x80"),
    ("U+110000", b"\xF4\x90\x80\x80"),
    ("a byte of no sequence", b"a\xFF"),
    ("five bytes", b"\xF8\x88\x80\x80\x80"),
];

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.7-1]: ill-formed UTF-8 and U+0000, in every text of every packet.
/// [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12], [MQTT-3.3.2-1], [MQTT-3.3.2-13], [MQTT-3.3.2-19]: among them these.
/// [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.7.3-2]: and filters.
/// 3.1.1 [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-3.1.3-4], [MQTT-3.1.3-10], [MQTT-3.1.3-11], [MQTT-3.3.2-1].
/// 3.1.1 [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.7.3-2].
#[test]
fn ill_formed_text_is_refused_wherever_there_is_text() {
    for (from, name, template) in TEXTS {
        for (what, text) in ILL_FORMED {
            let read = from.read(&packet(template, text));
            assert_eq!(read, Err(MALFORMED), "{what} in {name}");
        }
    }
}

const WELL_FORMED: &[(&str, &[u8])] = &[
    ("U+FEFF", b"\xEF\xBB\xBF"),
    ("U+FEFF before and inside", b"\xEF\xBB\xBFa\xEF\xBB\xBFb"),
    ("U+0001", b"\x01"),
    ("U+007F", b"\x7F"),
    ("U+009F", b"\xC2\x9F"),
    ("U+D7FF", b"\xED\x9F\xBF"),
    ("U+E000", b"\xEE\x80\x80"),
    ("U+FFFF", b"\xEF\xBF\xBF"),
    ("U+10FFFF", b"\xF4\x8F\xBF\xBF"),
    ("255 bytes", &[b'a'; 255]),
    ("65,535 bytes", &[b'a'; 65_535]),
];

/// [MQTT-1.5.4-3]: U+FEFF is a character like any other, never skipped. What only SHOULD NOT be sent is accepted.
/// [MQTT-4.7.3-3]: up to 65,535 bytes.
/// 3.1.1 [MQTT-1.5.3-3], [MQTT-4.7.3-3].
#[test]
fn well_formed_text_is_kept_as_it_came_wherever_there_is_text() {
    for (from, name, template) in TEXTS {
        for (what, text) in WELL_FORMED {
            let bytes = packet(template, text);
            let read = from.read(&bytes);
            let read = read.unwrap_or_else(|reason| panic!("{what} in {name}: {reason:?}"));
            let version = match (&read, from) {
                (Packet::Connect(connect), _) => connect.version,
                (_, Client311 | Server311) => Version::V311,
                _ => Version::V5,
            };
            assert!(written(&read, version) == bytes, "{what} in {name}");
        }
    }
}

/// §1.5.4: a text cannot be longer than the packet, nor than its length says.
#[test]
fn text_that_runs_over_its_packet_is_refused_wherever_there_is_text() {
    for (from, name, template) in TEXTS {
        let whole = packet(template, b"abc");
        let whole = body(&whole);
        let place = whole.windows(5).position(|it| it == b"\0\x03abc");
        let place = place.expect("the text");
        let mut longer = whole.to_vec();
        longer[place] = 0xFF;
        let first = packet(template, b"abc")[0];
        let read = from.read(&framed(first, &longer));
        assert_eq!(read, Err(MALFORMED), "{name}");
    }
}

// Topics.

#[rustfmt::skip] // one topic, one line
const TOPIC_NAMES: &[(Sender, &str, &str)] = &[
    (Stranger, "3.1.1 Will Topic", "10: 0004 4D515454 04 06 0000 0001 61 <> 0000"),
    (Stranger, "Will Topic", "10: 0004 4D515454 05 06 0000 [] 0001 61 [] <> 0000"),
    (Stranger, "Response Topic of a will", "10: 0004 4D515454 05 06 0000 [] 0001 61 [08 <>] 0001 61 0000"),
    (Client311, "3.1.1 Topic Name", "30: <> 78"),
    (Client5, "Topic Name", "30: <> [] 78"),
    (Client5, "Topic Name with an alias", "30: <> [23 0001] 78"),
    (Client5, "Response Topic", "30: 0001 61 [08 <>]"),
    (Server311, "3.1.1 Topic Name from a server", "30: <> 78"),
    (Server5, "Topic Name from a server", "30: <> [] 78"),
];

/// [MQTT-3.3.2-2], [MQTT-3.3.2-14], [MQTT-4.7.0-1]: no wildcard in a Topic Name, Will Topic or Response Topic.
/// 3.1.1 [MQTT-3.3.2-2], [MQTT-4.7.1-1].
#[test]
fn wildcards_are_refused_wherever_there_is_a_topic_name() {
    for (from, name, template) in TOPIC_NAMES {
        for topic in ["#", "+", "a/#", "a/+/b", "a#", "+a", "/+", "$share/g/#"] {
            let read = from.read(&packet(template, topic.as_bytes()));
            assert_eq!(read, Err(MALFORMED), "{topic} as {name}");
        }
    }
}

/// [MQTT-4.7.3-1]: a Topic Name has a character; with an alias it may be left out. 3.1.1 [MQTT-4.7.3-1].
#[test]
fn an_empty_topic_name_is_refused_where_no_alias_stands_for_it() {
    for (from, name, template) in TOPIC_NAMES {
        let read = from.read(&packet(template, b""));
        match *name {
            "Topic Name with an alias" => assert!(read.is_ok()),
            "Topic Name" | "Topic Name from a server" => assert_eq!(read, Err(PROTOCOL), "{name}"),
            _ => assert_eq!(read, Err(MALFORMED), "{name}"),
        }
    }
}

const FILTERS: &[(Sender, &str)] = &[
    (Client311, "82: 0001 <> 00"),
    (Client311, "A2: 0001 <>"),
    (Client5, "82: 0001 [] <> 00"),
    (Client5, "A2: 0001 [] <>"),
];

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT-4.8.2-1], [MQTT-4.8.2-2]: wildcards and share names only where
/// they may stand. 3.1.1 [MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.3-1].
#[test]
fn malformed_filters_are_refused() {
    let filters = [
        "",
        "a#",
        "#a",
        "#/",
        "#/a",
        "a/#/b",
        "a/b#",
        "/#/",
        "##",
        "+#",
        "#+",
        "a+",
        "+a",
        "a/+b",
        "a/b+/c",
        "++",
        "a/++",
        "$share/",
        "$share/g",
        "$share//a",
        "$share/g/",
        "$share/+/a",
        "$share/#/a",
        "$share/g+/a",
        "$share/g#/a",
        "$share/g/a#",
        "$share/g/#/a",
    ];
    for (from, template) in FILTERS {
        for filter in filters {
            let read = from.read(&packet(template, filter.as_bytes()));
            assert_eq!(read, Err(MALFORMED), "{filter}");
        }
    }
}

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-3]: what may stand there stands there, up to 65,535 bytes.
/// 3.1.1 [MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.3-3].
#[test]
fn well_formed_filters_are_accepted() {
    let deep = "+/".repeat(32_767) + "#";
    let filters = [
        "#",
        "+",
        "/",
        "//",
        "+/",
        "/+",
        "+/+",
        "/#",
        "+/#",
        "a/#",
        "a/+/#",
        "+/a/+",
        "a//b",
        " ",
        "a b",
        "$SYS/#",
        "$share",
        "$sharex/g/a",
        "$SHARE/g",
        "$share/g/#",
        "$share/g/+",
        "$share/g//",
        "$share/g/$SYS/#",
        "$share/$share/$share/a",
        deep.as_str(),
    ];
    for (from, template) in FILTERS {
        for filter in filters {
            let read = from.read(&packet(template, filter.as_bytes()));
            assert!(read.is_ok(), "{filter}: {read:?}");
        }
    }
}

/// [MQTT-3.8.3-4]: No Local on a Shared Subscription is a Protocol Error, on anything else it is not.
/// [MQTT-3.8.3-5]: reserved bits are malformed.
#[test]
fn all_subscription_options_are_judged() {
    for (filter, shared) in [("$share/g/a", true), ("$share", false), ("a", false)] {
        for options in 0..=u8::MAX {
            let template = format!("82: 0001 [] <> {options:02X}");
            let read = Client5.read(&packet(&template, filter.as_bytes()));
            let no_local = options & 0b100 != 0;
            let expected = if options & 0b1100_0000 != 0 {
                Some(MALFORMED)
            } else if options & 0b11 == 3 || options >> 4 == 3 || shared && no_local {
                Some(PROTOCOL)
            } else {
                None
            };
            assert_eq!(read.err(), expected, "{options:#010b} for {filter}");
        }
    }
}

/// 3.1.1 [MQTT-3-8.3-4]: reserved bits and QoS 3 close the connection.
#[test]
fn all_requested_qos_of_3_1_1_are_judged() {
    for options in 0..=u8::MAX {
        let read = Client311.read(&packet(&format!("82: 0001 <> {options:02X}"), b"a"));
        assert_eq!(read.is_ok(), options < 3, "{options:#010b}");
    }
}

// Properties.

/// Where properties stand; `@` is the place.
#[rustfmt::skip] // one place, one line
const PLACES: &[(&str, Sender, &str)] = &[
    ("CONNECT", Stranger, "10: 0004 4D515454 05 02 0000 [@] 0000"),
    ("will", Stranger, "10: 0004 4D515454 05 06 0000 [] 0001 61 [@] 0001 61 0000"),
    ("CONNACK", Server5, "20: 00 00 [@]"),
    ("PUBLISH", Client5, "30: 0001 61 [@] 78"),
    ("PUBLISH to a client", Server5, "30: 0001 61 [@] 78"),
    ("PUBACK", Client5, "40: 0001 00 [@]"),
    ("PUBREC", Client5, "50: 0001 00 [@]"),
    ("PUBREL", Client5, "62: 0001 00 [@]"),
    ("PUBCOMP", Client5, "70: 0001 00 [@]"),
    ("SUBSCRIBE", Client5, "82: 0001 [@] 0001 61 00"),
    ("SUBACK", Server5, "90: 0001 [@] 00"),
    ("UNSUBSCRIBE", Client5, "A2: 0001 [@] 0001 61"),
    ("UNSUBACK", Server5, "B0: 0001 [@] 00"),
    ("DISCONNECT", Client5, "E0: 00 [@]"),
    ("DISCONNECT to a client", Server5, "E0: 00 [@]"),
    ("AUTH", Client5, "F0: 18 [@]"),
];

const MESSAGES: &[&str] = &["PUBLISH", "PUBLISH to a client", "will"];

/// The table of §2.2.2.2: a property, a value, other values that it must not have, where it may stand.
type Property = (
    u8,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

#[rustfmt::skip] // one property, one line
const PROPERTIES: &[Property] = &[
    (0x01, "01", &["02", "FF"], MESSAGES),                                        // Payload Format Indicator
    (0x02, "00000000", &[], MESSAGES),                                            // Message Expiry Interval
    (0x03, "0001 61", &[], MESSAGES),                                             // Content Type
    (0x08, "0001 61", &["0000", "0001 23"], MESSAGES),                            // Response Topic
    (0x09, "0001 00", &[], MESSAGES),                                             // Correlation Data
    (0x0B, "FFFFFF7F", &["00"], &["PUBLISH to a client", "SUBSCRIBE"]),           // Subscription Identifier
    (0x11, "00000000", &[], &["CONNECT", "CONNACK", "DISCONNECT"]),               // Session Expiry Interval
    (0x12, "0001 61", &[], &["CONNACK"]),                                         // Assigned Client Identifier
    (0x13, "0000", &[], &["CONNACK"]),                                            // Server Keep Alive
    (0x15, "0001 61", &[], &["CONNECT", "CONNACK", "AUTH"]),                      // Authentication Method
    (0x16, "0001 00", &[], &["CONNECT", "CONNACK", "AUTH"]),                      // Authentication Data
    (0x17, "00", &["02", "FF"], &["CONNECT"]),                                    // Request Problem Information
    (0x18, "00000000", &[], &["will"]),                                           // Will Delay Interval
    (0x19, "01", &["02", "FF"], &["CONNECT"]),                                    // Request Response Information
    (0x1A, "0001 61", &[], &["CONNACK"]),                                         // Response Information
    (0x1C, "0001 61", &[], &["CONNACK", "DISCONNECT", "DISCONNECT to a client"]), // Server Reference
    (0x1F, "0001 61", &[], &["CONNACK", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT", "DISCONNECT to a client", "AUTH"]), // Reason String
    (0x21, "0001", &["0000"], &["CONNECT", "CONNACK"]),                           // Receive Maximum
    (0x22, "0000", &[], &["CONNECT", "CONNACK"]),                                 // Topic Alias Maximum
    (0x23, "0001", &["0000"], &["PUBLISH", "PUBLISH to a client"]),               // Topic Alias
    (0x24, "01", &["02", "FF"], &["CONNACK"]),                                    // Maximum QoS
    (0x25, "00", &["02", "FF"], &["CONNACK"]),                                    // Retain Available
    (0x26, "0000 0000", &[], &["CONNECT", "will", "CONNACK", "PUBLISH", "PUBLISH to a client", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "DISCONNECT", "DISCONNECT to a client", "AUTH"]), // User Property
    (0x27, "00000001", &["00000000"], &["CONNECT", "CONNACK"]),                   // Maximum Packet Size
    (0x28, "00", &["02", "FF"], &["CONNACK"]),                                    // Wildcard Subscription Available
    (0x29, "00", &["02", "FF"], &["CONNACK"]),                                    // Subscription Identifier Available
    (0x2A, "00", &["02", "FF"], &["CONNACK"]),                                    // Shared Subscription Available
];

/// The packet with these properties, and with the method that AUTH and Authentication Data cannot be without.
fn with_properties(place: &str, template: &str, id: u8, properties: &str) -> Vec<u8> {
    let needs_method = id == 0x16 || place == "AUTH" && id != 0x15;
    let method = if needs_method && matches!(place, "AUTH" | "CONNECT" | "CONNACK") {
        "15 0001 61 "
    } else {
        ""
    };
    packet(
        &template.replace('@', &format!("{method}{properties}")),
        b"",
    )
}

/// §2.2.2.2: each property in each packet; what has no place there is malformed.
/// [MQTT-3.3.4-6]: a Subscription Identifier from a client, [MQTT-3.14.2-2]: a Session Expiry Interval from a server.
#[test]
fn a_property_is_accepted_where_it_has_a_place_and_refused_elsewhere() {
    for (place, from, template) in PLACES {
        for (id, value, _, places) in PROPERTIES {
            let property = format!("{id:02X} {value}");
            let read = from.read(&with_properties(place, template, *id, &property));
            let expected = match (*id, *place) {
                (0x0B, "PUBLISH") | (0x11, "DISCONNECT to a client") => Some(PROTOCOL),
                _ if places.contains(place) => None,
                _ => Some(MALFORMED),
            };
            assert_eq!(read.err(), expected, "{id:#04x} in {place}");
        }
    }
}

/// §2.2.2.2 and the section of each property: once is enough, but for User Properties and the Subscription Identifiers
/// of a delivery.
#[test]
fn a_property_twice_is_a_protocol_error() {
    for (place, from, template) in PLACES {
        for (id, value, _, places) in PROPERTIES {
            if !places.contains(place) {
                continue;
            }
            let twice = format!("{id:02X} {value} {id:02X} {value}");
            let read = from.read(&with_properties(place, template, *id, &twice));
            let often = *id == 0x26 || *id == 0x0B && *place == "PUBLISH to a client";
            let expected = (!often).then_some(PROTOCOL);
            assert_eq!(read.err(), expected, "{id:#04x} twice in {place}");
        }
    }
}

/// §3.1.2.11.3, §3.1.2.11.4, §3.3.2.3.4, §3.8.2.1.2 and others: no zero where zero is forbidden, no 2 where only 0 and 1
/// are allowed. [MQTT-3.3.2-8]: Topic Alias 0 has a Reason Code of its own.
#[test]
fn a_value_that_a_property_must_not_have_is_refused() {
    for (place, from, template) in PLACES {
        for (id, _, forbidden, places) in PROPERTIES {
            if !places.contains(place) {
                continue;
            }
            for value in *forbidden {
                let property = format!("{id:02X} {value}");
                let read = from.read(&with_properties(place, template, *id, &property));
                let expected = match id {
                    0x08 => MALFORMED,
                    0x23 => ReasonCode::TopicAliasInvalid,
                    _ => PROTOCOL,
                };
                assert_eq!(read, Err(expected), "{id:#04x} {value} in {place}");
            }
        }
    }
}

/// §2.2.2.2: there are no other properties.
#[test]
fn unknown_properties_are_malformed() {
    let known = |number: usize| PROPERTIES.iter().any(|(id, ..)| usize::from(*id) == number);
    for (place, from, template) in PLACES {
        for number in (0..300).filter(|number| !known(*number)) {
            let id = match number {
                0..128 => format!("{number:02X}"),
                _ => format!("{:02X} {:02X}", number % 128 + 128, number / 128),
            };
            let property = format!("{id} 00000000");
            let read = from.read(&with_properties(place, template, 0, &property));
            assert_eq!(read, Err(MALFORMED), "{number} in {place}");
        }
    }
}

/// [MQTT-2.2.2-1]: no properties are told by a length of zero, not by no length, where more follows.
/// [MQTT-1.5.5-1]: and the length takes as few bytes as it needs.
#[test]
fn the_length_of_the_properties_is_there_and_minimal() {
    for (place, from, template) in PLACES {
        let method = if *place == "AUTH" { "15 0001 61" } else { "" };
        let (head, tail) = template.split_once("[@]").expect("a place");
        let section = varint(if method.is_empty() { 0 } else { 4 })[0];
        let right = packet(&format!("{head} {section:02X} {method} {tail}"), b"");
        assert!(from.read(&right).is_ok(), "{place}");
        let long = packet(
            &format!("{head} {:02X} 00 {method} {tail}", section | 0x80),
            b"",
        );
        assert_eq!(from.read(&long), Err(MALFORMED), "{place}");
        if !matches!(*place, "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP")
            && !place.starts_with("DISCONNECT")
        {
            let none = packet(&format!("{head} {method} {tail}"), b"");
            assert!(from.read(&none).is_err(), "{place}");
        }
    }
}

// Fixed headers and lengths.

#[rustfmt::skip] // one packet, one line
const PACKETS: &[(Sender, u8, &str)] = &[
    (Stranger, 0x10, "0004 4D515454 04 02 0000 0000"),
    (Stranger, 0x10, "0004 4D515454 05 02 0000 [] 0000"),
    (Client311, 0x40, "0001"), (Client311, 0x50, "0001"), (Client311, 0x62, "0001"), (Client311, 0x70, "0001"),
    (Client311, 0x82, "0001 0001 61 00"), (Client311, 0xA2, "0001 0001 61"),
    (Client311, 0xC0, ""), (Client311, 0xE0, ""),
    (Client5, 0x40, "0001"), (Client5, 0x50, "0001"), (Client5, 0x62, "0001"), (Client5, 0x70, "0001"),
    (Client5, 0x82, "0001 [] 0001 61 00"), (Client5, 0xA2, "0001 [] 0001 61"),
    (Client5, 0xC0, ""), (Client5, 0xE0, ""), (Client5, 0xF0, "18 [15 0001 61]"),
    (Server311, 0x20, "00 00"), (Server311, 0x90, "0001 00"), (Server311, 0xB0, "0001"), (Server311, 0xD0, ""),
    (Server5, 0x20, "00 00 []"), (Server5, 0x90, "0001 [] 00"), (Server5, 0xB0, "0001 [] 00"), (Server5, 0xD0, ""),
];

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]: all sixteen flags of
/// every packet but PUBLISH: exactly one is right.
/// 3.1.1 [MQTT-2.2.2-1], [MQTT-2.2.2-2], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1].
#[test]
fn reserved_flags_have_one_value() {
    for (from, first, rest) in PACKETS {
        for flags in 0..16 {
            let tried = first & 0xF0 | flags;
            let read = from.read(&packet(&format!("{tried:02X}: {rest}"), b""));
            let expected = (tried != *first).then_some(MALFORMED);
            assert_eq!(read.err(), expected, "{tried:#04x}");
        }
    }
}

/// [MQTT-3.3.1-2]: no DUP at QoS 0, [MQTT-3.3.1-4]: no QoS 3.
/// 3.1.1 [MQTT-3.3.1-2], [MQTT-3.3.1-4].
#[test]
fn flags_of_publish_are_judged_by_their_meaning() {
    for from in [Client311, Client5, Server311, Server5] {
        for flags in 0..16_u8 {
            let packet_id = if flags & 0b0110 == 0 { "" } else { "0001" };
            let section = if from == Client5 || from == Server5 {
                "[]"
            } else {
                ""
            };
            let template = format!("{:02X}: 0001 61 {packet_id} {section} 78", 0x30 | flags);
            let read = from.read(&packet(&template, b""));
            let wrong = matches!(flags, 6 | 7 | 14 | 15 | 8 | 9);
            assert_eq!(read.err(), wrong.then_some(MALFORMED), "{flags:#06b}");
        }
    }
}

/// All vectors that are accepted, with who sends them.
fn accepted() -> impl Iterator<Item = (Sender, &'static str)> {
    [
        (Stranger, FIRST_ACCEPTED),
        (Client311, V311_ACCEPTED),
        (Client5, V5_ACCEPTED),
        (Server311, V311_SERVER_ACCEPTED),
        (Server5, V5_SERVER_ACCEPTED),
    ]
    .into_iter()
    .flat_map(|(from, vectors)| vectors.iter().map(move |hex| (from, *hex)))
}

/// [MQTT-1.5.5-1]: the Remaining Length takes as few bytes as it needs, four at most. 3.1.1 §2.2.3.
#[test]
fn a_remaining_length_is_minimal_and_has_four_bytes_at_most() {
    for (from, hex) in accepted() {
        let whole = bytes(hex);
        let length = varint(body(&whole).len());
        for zeroes in 1..=4 {
            let mut long = vec![whole[0]];
            long.extend(&length[..length.len() - 1]);
            long.push(length[length.len() - 1] | 0x80);
            long.extend(vec![0x80; zeroes - 1]);
            long.push(0);
            long.extend(body(&whole));
            assert_eq!(from.read(&long), Err(MALFORMED), "{hex}, {zeroes} more");
        }
    }
}

/// [MQTT-4.13.1-1]: a packet whose length does not fit its fields is malformed: one byte more. 3.1.1 [MQTT-4.8.0-1].
#[test]
fn a_byte_after_the_last_field_is_refused() {
    for (from, hex) in accepted() {
        let whole = bytes(hex);
        let mut longer = body(&whole).to_vec();
        longer.push(0);
        let read = from.read(&framed(whole[0], &longer));
        // A payload has no end of its own, a list may go on, and what was left out may be told.
        let goes_on = match (from, whole[0] >> 4) {
            (_, 3 | 9) | (Server5, 11) => true,
            (Client5 | Server5, 4..=7) => body(&whole).len() < 4,
            (Client5 | Server5, 14) => body(&whole).len() < 2,
            _ => false,
        };
        assert_eq!(read.is_ok(), goes_on, "{hex}: {read:?}");
    }
}

/// [MQTT-4.13.1-1]: a packet whose length does not fit its fields is malformed: any number of bytes less.
/// 3.1.1 [MQTT-4.8.0-1].
#[test]
fn a_packet_that_ends_inside_a_field_is_refused() {
    for (from, hex) in accepted() {
        let whole = bytes(hex);
        let fields = body(&whole);
        for kept in 0..fields.len() {
            let read = from.read(&framed(whole[0], &fields[..kept]));
            let Ok(packet) = read else { continue };
            // What is shorter and still a packet ends in a payload or a list, or leaves out what may be left out.
            let may = match &packet {
                Packet::Publish(_)
                | Packet::SubAck(_)
                | Packet::UnsubAck(_)
                | Packet::Subscribe(_) => true,
                Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
                    kept == 2 || kept == 3
                }
                Packet::Disconnect(_) => kept < 2,
                Packet::Auth(_) => from == Server5 && kept == 0,
                _ => false,
            };
            assert!(may, "{hex} cut to {kept}: {packet:?}");
        }
    }
}

/// §2.1.2 (3.1.1 §2.2.1): a client sends nothing that only a server sends, and no packet type that does not exist.
#[test]
fn packets_that_a_client_must_not_send_are_refused() {
    for from in [Client311, Client5] {
        for (kind, reason) in [
            (0, MALFORMED),
            (2, PROTOCOL),
            (9, PROTOCOL),
            (11, PROTOCOL),
            (13, PROTOCOL),
        ] {
            for rest in ["", "00 00", "0001 00", "0001 [] 00"] {
                let read = from.read(&packet(&format!("{kind:X}0: {rest}"), b""));
                assert_eq!(read, Err(reason), "{kind} {rest}");
            }
        }
    }
    assert_eq!(Client311.read(b"\xF0\x00"), Err(MALFORMED));
}

/// [MQTT-3.1.0-1]: CONNECT comes first, and is told from anything else by its first byte. 3.1.1 [MQTT-3.1.0-1].
#[test]
fn every_other_first_packet_is_refused_at_its_first_byte() {
    for first in 0..=u8::MAX {
        let mut input = BytesMut::from(&[first][..]);
        let read = Stranger.decoder().decode(&mut input);
        assert_eq!(read.is_ok(), first == 0x10, "{first:#04x}");
    }
}
