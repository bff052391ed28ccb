//! The packet model: one type per Control Packet (MQTT 5.0 §3), the same for 3.1.1 and 5.0.

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;
use bytestring::ByteString;

use super::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    MaybeProperties, SubscribeProperties, WillProperties,
};
use super::reason::ReasonCode;

/// A protocol version that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V311,
    /// MQTT 5.0 (protocol level 5).
    V5,
}

/// Quality of Service (§4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS with this number; `None` above 2.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A Packet Identifier: never 0 [MQTT-2.2.1-3].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// The identifier with this number; `None` for 0.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, 1 to 65,535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Debug for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The kind of a Control Packet (§2.1.2); as a number, the high four bits of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of MQTT 5.0 §2.1.2")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type with this number; `None` for 0 and above 15.
    pub const fn new(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }
}

/// A Control Packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of MQTT 5.0 §3")]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

impl Packet {
    /// What kind of packet this is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (§3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Which protocol the client speaks on this connection.
    pub version: Version,
    /// Start without the old session («Clean Session» in 3.1.1).
    pub clean_start: bool,
    /// Seconds; 0 turns the mechanism off.
    pub keep_alive: u16,
    /// Empty means: choose one for me.
    pub client_id: ByteString,
    /// What to publish when the connection is lost.
    pub will: Option<Will>,
    /// Who the client says it is.
    pub user_name: Option<ByteString>,
    /// Binary.
    pub password: Option<Bytes>,
    /// Empty in 3.1.1.
    pub properties: ConnectProperties,
}

/// A Will Message (§3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// A checked topic name.
    pub topic: ByteString,
    /// Any bytes.
    pub payload: Bytes,
    /// At which QoS it is published.
    pub qos: Qos,
    /// Published as a retained message.
    pub retain: bool,
    /// Empty in 3.1.1.
    pub properties: WillProperties,
}

/// CONNACK (§3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// The server has a session of this client; always false with a refusal [MQTT-3.2.2-6].
    pub session_present: bool,
    /// In 3.1.1 mapped to its return codes 0 to 5.
    pub reason: ReasonCode,
    /// Not sent in 3.1.1.
    pub properties: ConnAckProperties,
}

/// PUBLISH (§3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Sent before, perhaps.
    pub dup: bool,
    /// 0 to 2.
    pub qos: Qos,
    /// Retained message.
    pub retain: bool,
    /// A checked topic name; empty only with a Topic Alias in 5.0.
    pub topic: ByteString,
    /// Present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// Any bytes.
    pub payload: Bytes,
    /// Empty in 3.1.1.
    pub properties: MaybeProperties,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (§3.4 to §3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Of the PUBLISH that this belongs to.
    pub packet_id: PacketId,
    /// Always success in 3.1.1.
    pub reason: ReasonCode,
    /// Not sent in 3.1.1. Boxed: most acks have none.
    pub properties: Option<Box<AckProperties>>,
}

impl Ack {
    /// An ack that tells success and nothing else.
    pub const fn success(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason: ReasonCode::Success,
            properties: None,
        }
    }
}

/// SUBSCRIBE (§3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// To be returned in SUBACK.
    pub packet_id: PacketId,
    /// Empty in 3.1.1.
    pub properties: SubscribeProperties,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
}

/// One Topic Filter of a SUBSCRIBE with its options (§3.8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// A checked filter; may begin with `$share/{name}/`.
    pub filter: super::topic::TopicFilter,
    /// Highest QoS at which to deliver.
    pub qos: Qos,
    /// Do not send me what I published; false in 3.1.1.
    pub no_local: bool,
    /// Keep the retain flag as published; false in 3.1.1.
    pub retain_as_published: bool,
    /// When to send retained messages; `Always` in 3.1.1.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent at subscribe (§3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    Always = 0,
    /// Only if the subscription is new.
    IfNew = 1,
    /// Never.
    Never = 2,
}

/// SUBACK (§3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One per filter, in order; in 3.1.1 any refusal becomes 0x80.
    pub reasons: Vec<ReasonCode>,
    /// Not sent in 3.1.1.
    pub properties: AckProperties,
}

/// UNSUBSCRIBE (§3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// To be returned in UNSUBACK.
    pub packet_id: PacketId,
    /// No subscription identifier here; empty in 3.1.1.
    pub properties: SubscribeProperties,
    /// At least one.
    pub filters: Vec<super::topic::TopicFilter>,
}

/// UNSUBACK (§3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One per filter, in order; not sent in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// Not sent in 3.1.1.
    pub properties: AckProperties,
}

/// DISCONNECT (§3.14). Servers send it in 5.0 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Always success in 3.1.1.
    pub reason: ReasonCode,
    /// Not sent in 3.1.1.
    pub properties: DisconnectProperties,
}

/// AUTH (§3.15), 5.0 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Success, Continue authentication or Re-authenticate.
    pub reason: ReasonCode,
    /// Method and data.
    pub properties: AuthProperties,
}
