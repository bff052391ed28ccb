//! Why bytes are not a packet, and which Reason Code says so to the peer.

use super::packet::{PacketType, Version};
use super::properties::PropertyId;
use super::reason::ReasonCode;
use super::topic::TopicError;

/// The peer broke a rule of the specification; its Network Connection is to be closed [MQTT-4.13.1-1].
///
/// What was read before the error is gone, what follows it cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A Variable Byte Integer of more than four bytes, or of more than it needs [MQTT-1.5.5-1].
    #[error("malformed variable byte integer")]
    MalformedLength,
    /// A packet type that the protocol version does not have (§2.1.2).
    #[error("no packet of type {0}")]
    UnknownPacketType(u8),
    /// Flags of the fixed header other than prescribed [MQTT-2.1.3-1].
    #[error("flags {flags:#06b} in {packet_type:?}")]
    FixedHeaderFlags {
        /// Of which packet.
        packet_type: PacketType,
        /// The low four bits of its first byte.
        flags: u8,
    },
    /// The first packet of a client is something else than CONNECT [MQTT-3.1.0-1].
    #[error("{0:?} before CONNECT")]
    ConnectExpected(PacketType),
    /// A packet that this side of a connection never sends.
    #[error("{0:?} from the wrong side")]
    WrongSender(PacketType),
    /// More bytes than the receiver takes [MQTT-3.1.2-24], [MQTT-3.2.2-15].
    #[error("packet of {bytes} bytes, limit {limit}")]
    PacketTooLarge {
        /// Size of the packet, fixed header included.
        bytes: u64,
        /// Largest size accepted.
        limit: u32,
    },
    /// Neither MQTT 3.1.1 nor MQTT 5.0 [MQTT-3.1.2-1], [MQTT-3.1.2-2].
    #[error("unsupported protocol version {level}")]
    UnsupportedVersion {
        /// As sent, 3 for MQTT 3.1.
        level: u8,
    },
    /// The packet, or its property section, ends inside a field.
    #[error("packet ends inside a field")]
    Truncated,
    /// The packet goes on after its last field.
    #[error("{0} bytes after the end of the packet")]
    TrailingBytes(usize),
    /// Text that is not UTF-8 [MQTT-1.5.4-1].
    #[error("text is not UTF-8")]
    Utf8,
    /// Text with U+0000 [MQTT-1.5.4-2].
    #[error("text contains U+0000")]
    NullCharacter,
    /// The Connect Flags contradict each other or set the reserved bit [MQTT-3.1.2-3], [MQTT-3.1.2-11],
    /// [MQTT-3.1.2-12], [MQTT-3.1.2-13]; 3.1.1: [MQTT-3.1.2-22].
    #[error("connect flags {0:#010b}")]
    ConnectFlags(u8),
    /// The reserved bits of the Connect Acknowledge Flags are set [MQTT-3.2.2-1].
    #[error("connect acknowledge flags {0:#010b}")]
    ConnAckFlags(u8),
    /// Session Present together with a refusal [MQTT-3.2.2-6].
    #[error("session present in a refusal")]
    SessionPresentInRefusal,
    /// An empty Client Identifier without Clean Session; 3.1.1: [MQTT-3.1.3-8].
    #[error("empty client identifier without clean session")]
    EmptyClientId,
    /// QoS 3 in a PUBLISH [MQTT-3.3.1-4].
    #[error("QoS 3")]
    Qos,
    /// DUP in a PUBLISH at QoS 0 [MQTT-3.3.1-2].
    #[error("DUP at QoS 0")]
    DupAtQos0,
    /// A Packet Identifier of 0 [MQTT-2.2.1-3].
    #[error("packet identifier 0")]
    PacketIdZero,
    /// A Topic Name, Will Topic or Response Topic that is none (§4.7).
    #[error("topic name: {0}")]
    TopicName(#[source] TopicError),
    /// A PUBLISH with neither Topic Name nor Topic Alias (§3.3.2.1).
    #[error("neither topic name nor topic alias")]
    TopicMissing,
    /// A Topic Filter that is none (§4.7).
    #[error("topic filter: {0}")]
    TopicFilter(#[source] TopicError),
    /// SUBSCRIBE, SUBACK, UNSUBSCRIBE or UNSUBACK without an entry [MQTT-3.8.3-2], [MQTT-3.10.3-2].
    #[error("{0:?} without an entry")]
    EmptyList(PacketType),
    /// The reserved bits of the Subscription Options are set [MQTT-3.8.3-5].
    #[error("subscription options {0:#010b}")]
    SubscriptionOptions(u8),
    /// QoS 3 or Retain Handling 3 in the Subscription Options (§3.8.3.1).
    #[error("value 3 in subscription options {0:#010b}")]
    SubscriptionOptionValue(u8),
    /// No Local on a Shared Subscription [MQTT-3.8.3-4].
    #[error("no local on a shared subscription")]
    NoLocalOnShared,
    /// A property identifier that the specification does not know (§2.2.2.2).
    #[error("no property {0:#04x}")]
    UnknownProperty(u32),
    /// A property that has no place in this packet (§2.2.2.2).
    #[error("property {0:?} does not belong here")]
    MisplacedProperty(PropertyId),
    /// A property that may occur once occurs again.
    #[error("property {0:?} twice")]
    DuplicateProperty(PropertyId),
    /// A value that the property must not have: 0, or other than 0 and 1.
    #[error("value of property {0:?}")]
    PropertyValue(PropertyId),
    /// A Topic Alias of 0 [MQTT-3.3.2-8].
    #[error("topic alias 0")]
    TopicAliasZero,
    /// A Subscription Identifier in a PUBLISH from a client [MQTT-3.3.4-6].
    #[error("subscription identifier from a client")]
    SubscriptionIdentifierFromClient,
    /// A Session Expiry Interval in a DISCONNECT from a server [MQTT-3.14.2-2].
    #[error("session expiry interval from a server")]
    SessionExpiryFromServer,
    /// Authentication Data without Authentication Method, or AUTH without the latter (§3.1.2.11.10, §3.15.2.2.2).
    #[error("no authentication method")]
    AuthenticationMethodMissing,
    /// A Reason Code that the specification does not know or not for this packet (§2.4).
    #[error("reason code {code:#04x} in {packet_type:?}")]
    ReasonCode {
        /// Of which packet.
        packet_type: PacketType,
        /// As sent.
        code: u8,
    },
}

impl DecodeError {
    /// What CONNACK or DISCONNECT tells the peer (§4.13.1).
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::MalformedLength
            | Self::UnknownPacketType(_)
            | Self::FixedHeaderFlags { .. }
            | Self::Truncated
            | Self::TrailingBytes(_)
            | Self::Utf8
            | Self::NullCharacter
            | Self::ConnectFlags(_)
            | Self::ConnAckFlags(_)
            | Self::Qos
            | Self::DupAtQos0
            | Self::TopicName(_)
            | Self::TopicFilter(_)
            | Self::SubscriptionOptions(_)
            | Self::UnknownProperty(_)
            | Self::MisplacedProperty(_) => ReasonCode::MalformedPacket,
            Self::ConnectExpected(_)
            | Self::WrongSender(_)
            | Self::SessionPresentInRefusal
            | Self::PacketIdZero
            | Self::TopicMissing
            | Self::EmptyList(_)
            | Self::SubscriptionOptionValue(_)
            | Self::NoLocalOnShared
            | Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::SubscriptionIdentifierFromClient
            | Self::SessionExpiryFromServer
            | Self::AuthenticationMethodMissing
            | Self::ReasonCode { .. } => ReasonCode::ProtocolError,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::EmptyClientId => ReasonCode::ClientIdentifierNotValid,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
        }
    }

    /// In which form a CONNACK tells a client of `version` (if it came to say so) that its CONNECT is refused; `None`: not
    /// at all. Clients of versions before 5.0 that this server does not speak expect the form of 3.1.1, which has a
    /// return code for a Client Identifier, and none for what is malformed (3.1.1: [MQTT-3.1.4-1], [MQTT-3.2.2-6]).
    pub const fn version_of_refusal(&self, version: Option<Version>) -> Option<Version> {
        match (self, version) {
            (Self::UnsupportedVersion { level: 0..=4 }, _) => Some(Version::V311),
            (Self::UnsupportedVersion { .. }, _) => Some(Version::V5),
            (Self::EmptyClientId, _) | (_, Some(Version::V5)) => version,
            _ => None,
        }
    }
}
