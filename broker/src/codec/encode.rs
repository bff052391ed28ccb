//! Packets → bytes.
//!
//! Each packet is described once, as writes into a sink; the same description counts the bytes, for the lengths that
//! stand before them, and writes them. Nothing is allocated but room in the output.
//!
//! In 3.1.1 properties are left out and Reason Codes become the return codes that stand for them.
//!
//! Texts and binary data in front of the payload have lengths of 16 bits. What came from the decoder always fits; what
//! is longer is cut to what fits, so that a packet is well-formed whatever it carries.

mod properties;
mod sink;

use bytes::BytesMut;

use super::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, PacketType, Publish, Qos, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version,
};
use super::properties::AckProperties;
use super::reason::ReasonCode;
use super::varint::{VARINT_MAX, varint_len};
use sink::{Counter, Sink};

/// Largest packet that the protocol can frame, in bytes, fixed header included.
pub const PACKET_BYTES_MAX: usize = 5 + VARINT_MAX as usize;

/// What differs when one PUBLISH goes to many receivers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishHead<'a> {
    /// Sent before; only above QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// At which QoS this receiver gets it.
    pub qos: Qos,
    /// The retain flag for this receiver.
    pub retain: bool,
    /// Present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// 5.0 only: the number that stands for the Topic Name on this connection.
    pub topic_alias: Option<u16>,
    /// The receiver knows the alias: the Topic Name is left empty.
    pub omit_topic: bool,
    /// 5.0 only: the identifiers of the subscriptions that matched.
    pub subscription_identifiers: &'a [u32],
}

impl<'a> PublishHead<'a> {
    /// The head that `publish` has by itself.
    pub fn of(publish: &'a Publish) -> Self {
        Self {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            topic_alias: publish.properties.topic_alias,
            omit_topic: false,
            subscription_identifiers: &publish.properties.subscription_identifiers,
        }
    }

    /// The low four bits of the first byte.
    fn flags(&self) -> u8 {
        u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }
}

/// Appends `packet` to `out`, in the form of `version`.
///
/// A packet that cannot be framed (more than [`PACKET_BYTES_MAX`] bytes) and AUTH in 3.1.1, which has none, are left
/// out; [`encoded_len`] tells before.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) {
    if let Packet::Publish(publish) = packet {
        return encode_publish(publish, &PublishHead::of(publish), version, out);
    }
    if !exists(packet, version) {
        return;
    }
    let flags = match packet.packet_type() {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    if put_header(packet.packet_type(), flags, body_len(packet, version), out) {
        put_body(packet, version, out);
    }
}

/// How many bytes [`encode`] writes: what Maximum Packet Size limits. 0 for AUTH in 3.1.1.
pub fn encoded_len(packet: &Packet, version: Version) -> usize {
    match packet {
        _ if !exists(packet, version) => 0,
        Packet::Publish(publish) => publish_len(publish, &PublishHead::of(publish), version),
        _ => framed_len(body_len(packet, version)),
    }
}

/// Appends `publish` with the head that one receiver gets; its own head is not looked at.
///
/// A packet of more than [`PACKET_BYTES_MAX`] bytes is left out; [`publish_len`] tells before.
pub fn encode_publish(
    publish: &Publish,
    head: &PublishHead<'_>,
    version: Version,
    out: &mut BytesMut,
) {
    debug_assert_eq!(
        head.qos > Qos::AtMostOnce,
        head.packet_id.is_some(),
        "a packet identifier belongs to QoS 1 and 2"
    );
    let remaining = publish_body_len(publish, head, version);
    if put_header(PacketType::Publish, head.flags(), remaining, out) {
        put_publish(publish, head, version, out);
    }
}

/// How many bytes [`encode_publish`] writes: what Maximum Packet Size limits.
pub fn publish_len(publish: &Publish, head: &PublishHead<'_>, version: Version) -> usize {
    framed_len(publish_body_len(publish, head, version))
}

fn exists(packet: &Packet, version: Version) -> bool {
    version == Version::V5 || !matches!(packet, Packet::Auth(_))
}

fn body_len(packet: &Packet, version: Version) -> usize {
    let mut counter = Counter::default();
    put_body(packet, version, &mut counter);
    counter.bytes()
}

fn publish_body_len(publish: &Publish, head: &PublishHead<'_>, version: Version) -> usize {
    let mut counter = Counter::default();
    put_publish(publish, head, version, &mut counter);
    counter.bytes()
}

/// The size with the fixed header; correct for what can be framed, above [`PACKET_BYTES_MAX`] for all else.
fn framed_len(remaining: usize) -> usize {
    let length_bytes = u32::try_from(remaining).map_or(4, varint_len);
    1 + length_bytes + remaining
}

/// Writes the fixed header and makes room for the body; false if the length cannot be expressed.
fn put_header(packet_type: PacketType, flags: u8, remaining: usize, out: &mut BytesMut) -> bool {
    let framed = framed_len(remaining);
    match u32::try_from(remaining) {
        Ok(length) if length <= VARINT_MAX => {
            out.reserve(framed);
            out.u8((packet_type as u8) << 4 | flags);
            out.varint(length);
            true
        }
        _ => false,
    }
}

fn put_body(packet: &Packet, version: Version, out: &mut impl Sink) {
    match packet {
        Packet::Connect(connect) => put_connect(connect, version, out),
        Packet::ConnAck(connack) => put_connack(connack, version, out),
        Packet::Publish(publish) => {
            put_publish(publish, &PublishHead::of(publish), version, out);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put_ack(ack, version, out);
        }
        Packet::Subscribe(subscribe) => put_subscribe(subscribe, version, out),
        Packet::SubAck(suback) => put_suback(suback, version, out),
        Packet::Unsubscribe(unsubscribe) => put_unsubscribe(unsubscribe, version, out),
        Packet::UnsubAck(unsuback) => put_unsuback(unsuback, version, out),
        Packet::Disconnect(disconnect) => put_disconnect(disconnect, version, out),
        Packet::Auth(auth) => put_auth(auth, out),
        Packet::PingReq | Packet::PingResp => {}
    }
}

fn put_connect(connect: &Connect, version: Version, out: &mut impl Sink) {
    out.text("MQTT");
    out.u8(match version {
        Version::V311 => 4,
        Version::V5 => 5,
    });
    let will_flags = connect.will.as_ref().map_or(0, |will| {
        u8::from(will.retain) << 5 | (will.qos as u8) << 3 | 0b0100
    });
    out.u8(u8::from(connect.user_name.is_some()) << 7
        | u8::from(connect.password.is_some()) << 6
        | will_flags
        | u8::from(connect.clean_start) << 1);
    out.u16(connect.keep_alive);
    if version == Version::V5 {
        properties::connect(&connect.properties, out);
    }
    out.text(&connect.client_id);
    if let Some(will) = &connect.will {
        if version == Version::V5 {
            properties::will(&will.properties, out);
        }
        out.text(&will.topic);
        out.binary(&will.payload);
    }
    if let Some(user_name) = &connect.user_name {
        out.text(user_name);
    }
    if let Some(password) = &connect.password {
        out.binary(password);
    }
}

fn put_connack(connack: &ConnAck, version: Version, out: &mut impl Sink) {
    out.u8(u8::from(connack.session_present));
    match version {
        Version::V311 => out.u8(connack.reason.to_v311_connack()),
        Version::V5 => {
            out.u8(connack.reason as u8);
            properties::connack(&connack.properties, out);
        }
    }
}

fn put_publish(publish: &Publish, head: &PublishHead<'_>, version: Version, out: &mut impl Sink) {
    out.text(if head.omit_topic { "" } else { &publish.topic });
    if let Some(packet_id) = head.packet_id {
        out.u16(packet_id.get());
    }
    if version == Version::V5 {
        properties::publish(&publish.properties, head, out);
    }
    out.slice(&publish.payload);
}

/// The shortest form: Reason Code and properties are left out where they say nothing (§3.4.2.1).
fn put_ack(ack: &Ack, version: Version, out: &mut impl Sink) {
    out.u16(ack.packet_id.get());
    if version == Version::V311 {
        return;
    }
    let properties = ack
        .properties
        .as_deref()
        .filter(|properties| **properties != AckProperties::default());
    match properties {
        Some(properties) => {
            out.u8(ack.reason as u8);
            properties::ack(properties, out);
        }
        None if ack.reason != ReasonCode::Success => out.u8(ack.reason as u8),
        None => {}
    }
}

fn put_subscribe(subscribe: &Subscribe, version: Version, out: &mut impl Sink) {
    out.u16(subscribe.packet_id.get());
    if version == Version::V5 {
        properties::subscribe(&subscribe.properties, out);
    }
    for filter in &subscribe.filters {
        out.text(filter.filter.as_str());
        out.u8(match version {
            Version::V311 => filter.qos as u8,
            Version::V5 => {
                (filter.retain_handling as u8) << 4
                    | u8::from(filter.retain_as_published) << 3
                    | u8::from(filter.no_local) << 2
                    | filter.qos as u8
            }
        });
    }
}

fn put_suback(suback: &SubAck, version: Version, out: &mut impl Sink) {
    out.u16(suback.packet_id.get());
    if version == Version::V5 {
        properties::ack(&suback.properties, out);
    }
    for reason in &suback.reasons {
        out.u8(match version {
            Version::V311 => reason.to_v311_suback(),
            Version::V5 => *reason as u8,
        });
    }
}

fn put_unsubscribe(unsubscribe: &Unsubscribe, version: Version, out: &mut impl Sink) {
    out.u16(unsubscribe.packet_id.get());
    if version == Version::V5 {
        properties::unsubscribe(&unsubscribe.properties, out);
    }
    for filter in &unsubscribe.filters {
        out.text(filter.as_str());
    }
}

fn put_unsuback(unsuback: &UnsubAck, version: Version, out: &mut impl Sink) {
    out.u16(unsuback.packet_id.get());
    if version == Version::V5 {
        properties::ack(&unsuback.properties, out);
        for reason in &unsuback.reasons {
            out.u8(*reason as u8);
        }
    }
}

/// The property length is always written after a Reason Code: not all clients know that it may be left out.
fn put_disconnect(disconnect: &Disconnect, version: Version, out: &mut impl Sink) {
    let says_nothing = disconnect.reason == ReasonCode::Success
        && disconnect.properties == super::properties::DisconnectProperties::default();
    if version == Version::V311 || says_nothing {
        return;
    }
    out.u8(disconnect.reason as u8);
    properties::disconnect(&disconnect.properties, out);
}

fn put_auth(auth: &Auth, out: &mut impl Sink) {
    let says_nothing = auth.reason == ReasonCode::Success
        && auth.properties == super::properties::AuthProperties::default();
    if says_nothing {
        return;
    }
    out.u8(auth.reason as u8);
    properties::auth(&auth.properties, out);
}
