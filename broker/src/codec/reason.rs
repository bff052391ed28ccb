//! Reason Codes (MQTT 5.0 §2.4) and the return codes of 3.1.1 that stand for them.

/// A Reason Code. Values below 0x80 tell success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of MQTT 5.0 §2.4")]
pub enum ReasonCode {
    /// Also «Normal disconnection» and «Granted QoS 0».
    Success = 0x00,
    GrantedQos1 = 0x01,
    GrantedQos2 = 0x02,
    DisconnectWithWillMessage = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QosNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// What a refusal means, for people; `None` for what is none.
    pub const fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::Success
            | Self::GrantedQos1
            | Self::GrantedQos2
            | Self::DisconnectWithWillMessage
            | Self::NoMatchingSubscribers
            | Self::NoSubscriptionExisted
            | Self::ContinueAuthentication
            | Self::ReAuthenticate => return None,
            Self::UnspecifiedError => "an error on the server",
            Self::MalformedPacket => "malformed packet",
            Self::ProtocolError => "protocol error",
            Self::ImplementationSpecificError => "not possible on this server",
            Self::UnsupportedProtocolVersion => "unsupported protocol version",
            Self::ClientIdentifierNotValid => "client identifier not valid",
            Self::BadUserNameOrPassword => "bad user name or password",
            Self::NotAuthorized => "not authorized",
            Self::ServerUnavailable => "server unavailable, try again later",
            Self::ServerBusy => "server busy, try again later",
            Self::Banned => "banned",
            Self::ServerShuttingDown => "the server is shutting down",
            Self::BadAuthenticationMethod => "authentication method not offered",
            Self::KeepAliveTimeout => "keep alive timeout",
            Self::SessionTakenOver => "another connection took the session over",
            Self::TopicFilterInvalid => "topic filter not valid here",
            Self::TopicNameInvalid => "topic name not valid here",
            Self::PacketIdentifierInUse => "packet identifier in use",
            Self::PacketIdentifierNotFound => "packet identifier not found",
            Self::ReceiveMaximumExceeded => "receive maximum exceeded",
            Self::TopicAliasInvalid => "topic alias not valid",
            Self::PacketTooLarge => "packet too large",
            Self::MessageRateTooHigh => "too many messages at once",
            Self::QuotaExceeded => "quota exceeded",
            Self::AdministrativeAction => "ended by an operator",
            Self::PayloadFormatInvalid => "payload is not what it is said to be",
            Self::RetainNotSupported => "retained messages not allowed here",
            Self::QosNotSupported => "QoS not allowed here",
            Self::UseAnotherServer => "use another server",
            Self::ServerMoved => "the server has moved",
            Self::SharedSubscriptionsNotSupported => "shared subscriptions not allowed here",
            Self::ConnectionRateExceeded => {
                "too many connections or failed logins, try again later"
            }
            Self::MaximumConnectTime => "connected for too long",
            Self::SubscriptionIdentifiersNotSupported => {
                "subscription identifiers not allowed here"
            }
            Self::WildcardSubscriptionsNotSupported => "wildcards not allowed here",
        })
    }

    /// The Reason Code with this number; `None` if there is none.
    pub const fn new(number: u8) -> Option<Self> {
        Some(match number {
            0x00 => Self::Success,
            0x01 => Self::GrantedQos1,
            0x02 => Self::GrantedQos2,
            0x04 => Self::DisconnectWithWillMessage,
            0x10 => Self::NoMatchingSubscribers,
            0x11 => Self::NoSubscriptionExisted,
            0x18 => Self::ContinueAuthentication,
            0x19 => Self::ReAuthenticate,
            0x80 => Self::UnspecifiedError,
            0x81 => Self::MalformedPacket,
            0x82 => Self::ProtocolError,
            0x83 => Self::ImplementationSpecificError,
            0x84 => Self::UnsupportedProtocolVersion,
            0x85 => Self::ClientIdentifierNotValid,
            0x86 => Self::BadUserNameOrPassword,
            0x87 => Self::NotAuthorized,
            0x88 => Self::ServerUnavailable,
            0x89 => Self::ServerBusy,
            0x8A => Self::Banned,
            0x8B => Self::ServerShuttingDown,
            0x8C => Self::BadAuthenticationMethod,
            0x8D => Self::KeepAliveTimeout,
            0x8E => Self::SessionTakenOver,
            0x8F => Self::TopicFilterInvalid,
            0x90 => Self::TopicNameInvalid,
            0x91 => Self::PacketIdentifierInUse,
            0x92 => Self::PacketIdentifierNotFound,
            0x93 => Self::ReceiveMaximumExceeded,
            0x94 => Self::TopicAliasInvalid,
            0x95 => Self::PacketTooLarge,
            0x96 => Self::MessageRateTooHigh,
            0x97 => Self::QuotaExceeded,
            0x98 => Self::AdministrativeAction,
            0x99 => Self::PayloadFormatInvalid,
            0x9A => Self::RetainNotSupported,
            0x9B => Self::QosNotSupported,
            0x9C => Self::UseAnotherServer,
            0x9D => Self::ServerMoved,
            0x9E => Self::SharedSubscriptionsNotSupported,
            0x9F => Self::ConnectionRateExceeded,
            0xA0 => Self::MaximumConnectTime,
            0xA1 => Self::SubscriptionIdentifiersNotSupported,
            0xA2 => Self::WildcardSubscriptionsNotSupported,
            _ => return None,
        })
    }

    /// Does it tell a failure (0x80 and above)?
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The Connect Return Code of 3.1.1 that comes nearest, 0 to 5 (3.1.1 §3.2.2.3).
    pub const fn to_v311_connack(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => 4,
            Self::NotAuthorized | Self::Banned | Self::TopicNameInvalid => 5,
            _ => 3,
        }
    }

    /// What a Connect Return Code of 3.1.1 means; `None` for the reserved ones.
    pub const fn from_v311_connack(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// The return code of a SUBACK of 3.1.1: a granted QoS, or 0x80 for any refusal (3.1.1 §3.9.3).
    pub const fn to_v311_suback(self) -> u8 {
        match self {
            Self::Success | Self::GrantedQos1 | Self::GrantedQos2 => self as u8,
            _ => Self::UnspecifiedError as u8,
        }
    }
}
