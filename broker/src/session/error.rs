//! Rules that a client can break after CONNECT. Each ends the connection.

use crate::codec::reason::ReasonCode;

/// Why a session ends its connection. In 5.0 the client is told by DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProtocolError {
    /// [MQTT-3.1.0-2].
    #[error("second CONNECT")]
    SecondConnect,
    /// Only servers send it.
    #[error("a packet that only a server may send")]
    ServerPacket,
    /// No extended authentication was begun [MQTT-4.12.0-1].
    #[error("AUTH without an authentication method")]
    UnexpectedAuth,
    /// [MQTT-4.12.1-1].
    #[error("AUTH names another authentication method than CONNECT")]
    AuthenticationMethodChanged,
    /// An authentication has not begun, has begun already, or waits for the server (MQTT 5.0 §4.12.1).
    #[error("AUTH when it is not the client's turn")]
    AuthOutOfTurn,
    /// The client has more publishes in flight than CONNACK allowed [MQTT-3.3.4-9].
    #[error("more than {limit} unacknowledged PUBLISH packets")]
    ReceiveMaximumExceeded { limit: usize },
    /// 0, or above the Topic Alias Maximum [MQTT-3.3.2-8], [MQTT-3.3.2-9].
    #[error("topic alias {alias} is not in 1 to {limit}")]
    TopicAliasInvalid { alias: u16, limit: u16 },
    /// An empty topic needs an alias that was set (MQTT 5.0 §3.3.2.3.4).
    #[error("topic alias {alias} was never set")]
    TopicAliasUnknown { alias: u16 },
    /// Neither topic nor alias.
    #[error("PUBLISH without a topic")]
    NoTopic,
    /// An acknowledgement of the wrong kind: PUBACK for QoS 2, PUBREC for QoS 1, PUBREL before PUBREC.
    #[error("acknowledgement of the wrong kind for packet {packet_id}")]
    WrongAck { packet_id: u16 },
    /// An identifier was used for a second publish before its exchange was over.
    #[error("packet identifier {packet_id} is in use")]
    PacketIdInUse { packet_id: u16 },
    /// A SUBACK or UNSUBACK that the client does not take, and that cannot be made smaller [MQTT-3.1.2-24].
    #[error("answer of {bytes} bytes is too large for the client")]
    AnswerTooLarge { bytes: usize },
    /// DISCONNECT may not give life to a session that was to end with its connection (MQTT 5.0 §3.14.2.2.2).
    #[error("DISCONNECT sets a session expiry where CONNECT had none")]
    SessionExpiryRaised,
    /// [MQTT-3.1.2-22].
    #[error("nothing came for one and a half times the keep alive")]
    KeepAliveTimeout,
    /// The plugin cannot settle a publish now.
    #[error("a request could not be settled")]
    TicketDropped,
}

impl ProtocolError {
    /// The Reason Code of DISCONNECT.
    pub(crate) const fn reason_code(self) -> ReasonCode {
        match self {
            Self::SecondConnect
            | Self::ServerPacket
            | Self::UnexpectedAuth
            | Self::AuthenticationMethodChanged
            | Self::AuthOutOfTurn
            | Self::TopicAliasUnknown { .. }
            | Self::NoTopic
            | Self::WrongAck { .. }
            // 0x91 is no Reason Code of DISCONNECT [MQTT-3.14.2-1].
            | Self::PacketIdInUse { .. }
            | Self::SessionExpiryRaised => ReasonCode::ProtocolError,
            Self::AnswerTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::ReceiveMaximumExceeded { .. } => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid { .. } => ReasonCode::TopicAliasInvalid,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::TicketDropped => ReasonCode::ServerBusy,
        }
    }

    /// The client broke a rule (and did not just fall silent, and it is not the world's fault).
    pub(crate) const fn is_violation(self) -> bool {
        !matches!(self, Self::KeepAliveTimeout | Self::TicketDropped)
    }
}
