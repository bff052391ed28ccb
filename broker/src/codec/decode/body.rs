//! What follows the fixed header, for all packets but CONNECT.

use super::reader::Reader;
use super::{Context, DecodeError, Sender, properties};
use crate::codec::packet::{
    Ack, Auth, ConnAck, Disconnect, Packet, PacketType, Publish, Qos, RetainHandling, SubAck,
    Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Version,
};
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, DisconnectProperties, MaybeProperties,
    SubscribeProperties,
};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::{TopicError, TopicFilter, check_topic_name};

/// The packet that `context` names; what it leaves in `body` is too much.
pub(super) fn packet(
    context: Context,
    flags: u8,
    body: &mut Reader,
) -> Result<Packet, DecodeError> {
    Ok(match context.packet_type {
        PacketType::Publish => Packet::Publish(publish(context, flags, body)?),
        PacketType::PubAck => Packet::PubAck(ack(context, body)?),
        PacketType::PubRec => Packet::PubRec(ack(context, body)?),
        PacketType::PubRel => Packet::PubRel(ack(context, body)?),
        PacketType::PubComp => Packet::PubComp(ack(context, body)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe(context, body)?),
        PacketType::SubAck => Packet::SubAck(suback(context, body)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(context, body)?),
        PacketType::UnsubAck => Packet::UnsubAck(unsuback(context, body)?),
        PacketType::ConnAck => Packet::ConnAck(Box::new(connack(context, body)?)),
        PacketType::Disconnect => Packet::Disconnect(disconnect(context, body)?),
        PacketType::Auth => Packet::Auth(auth(context, body)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Connect => return Err(DecodeError::WrongSender(PacketType::Connect)),
    })
}

/// DUP, QoS and RETAIN (§3.3.1): no QoS 3 [MQTT-3.3.1-4], no DUP at QoS 0 [MQTT-3.3.1-2].
pub(super) fn publish_flags(flags: u8) -> Result<(bool, Qos, bool), DecodeError> {
    let (dup, retain) = (flags & 0b1000 != 0, flags & 0b0001 != 0);
    let qos = Qos::new((flags >> 1) & 0b11).ok_or(DecodeError::Qos)?;
    if dup && qos == Qos::AtMostOnce {
        return Err(DecodeError::DupAtQos0);
    }
    Ok((dup, qos, retain))
}

fn publish(context: Context, flags: u8, body: &mut Reader) -> Result<Publish, DecodeError> {
    let (dup, qos, retain) = publish_flags(flags)?;
    let topic = body.text()?;
    let packet_id = match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce | Qos::ExactlyOnce => Some(body.packet_id()?),
    };
    let properties = match context.version {
        Version::V311 => MaybeProperties::default(),
        Version::V5 => properties::publish(body)?,
    };
    if context.sender == Sender::Client && !properties.subscription_identifiers.is_empty() {
        return Err(DecodeError::SubscriptionIdentifierFromClient);
    }
    match check_topic_name(&topic) {
        Err(TopicError::Empty) if context.version == Version::V5 => {
            if properties.topic_alias.is_none() {
                return Err(DecodeError::TopicMissing);
            }
        }
        checked => checked.map_err(DecodeError::TopicName)?,
    }
    Ok(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        payload: body.take_rest(),
        properties,
    })
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP. In 5.0 Reason Code and properties may be left out (§3.4.2.1).
fn ack(context: Context, body: &mut Reader) -> Result<Ack, DecodeError> {
    let packet_id = body.packet_id()?;
    if context.version == Version::V311 || body.is_empty() {
        return Ok(Ack::success(packet_id));
    }
    let reason = reason(context, body)?;
    let properties = if body.is_empty() {
        AckProperties::default()
    } else {
        properties::ack(body)?
    };
    let properties = (properties != AckProperties::default()).then(|| Box::new(properties));
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}

fn subscribe(context: Context, body: &mut Reader) -> Result<Subscribe, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = match context.version {
        Version::V311 => SubscribeProperties::default(),
        Version::V5 => properties::subscribe(body)?,
    };
    let filters = list(context, body, |body| {
        let filter = body.topic_filter()?;
        let options = body.u8()?;
        subscribe_filter(context.version, filter, options)
    })?;
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

/// The Subscription Options (§3.8.3.1); in 3.1.1 the requested QoS alone.
fn subscribe_filter(
    version: Version,
    filter: TopicFilter,
    options: u8,
) -> Result<SubscribeFilter, DecodeError> {
    let reserved = match version {
        Version::V311 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if options & reserved != 0 {
        return Err(DecodeError::SubscriptionOptions(options));
    }
    let retain_handling = match options >> 4 {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(DecodeError::SubscriptionOptionValue(options)),
    };
    let no_local = options & 0b0100 != 0;
    if no_local && filter.split_share().0.is_some() {
        return Err(DecodeError::NoLocalOnShared);
    }
    Ok(SubscribeFilter {
        filter,
        qos: Qos::new(options & 0b11).ok_or(DecodeError::SubscriptionOptionValue(options))?,
        no_local,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    })
}

fn unsubscribe(context: Context, body: &mut Reader) -> Result<Unsubscribe, DecodeError> {
    Ok(Unsubscribe {
        packet_id: body.packet_id()?,
        properties: match context.version {
            Version::V311 => SubscribeProperties::default(),
            Version::V5 => properties::unsubscribe(body)?,
        },
        filters: list(context, body, Reader::topic_filter)?,
    })
}

fn suback(context: Context, body: &mut Reader) -> Result<SubAck, DecodeError> {
    Ok(SubAck {
        packet_id: body.packet_id()?,
        properties: match context.version {
            Version::V311 => AckProperties::default(),
            Version::V5 => properties::ack(body)?,
        },
        reasons: list(context, body, |body| reason(context, body))?,
    })
}

fn unsuback(context: Context, body: &mut Reader) -> Result<UnsubAck, DecodeError> {
    let packet_id = body.packet_id()?;
    let (properties, reasons) = match context.version {
        Version::V311 => (AckProperties::default(), Vec::new()),
        Version::V5 => (
            properties::ack(body)?,
            list(context, body, |body| reason(context, body))?,
        ),
    };
    Ok(UnsubAck {
        packet_id,
        reasons,
        properties,
    })
}

fn connack(context: Context, body: &mut Reader) -> Result<ConnAck, DecodeError> {
    let flags = body.u8()?;
    if flags & 0b1111_1110 != 0 {
        return Err(DecodeError::ConnAckFlags(flags));
    }
    let session_present = flags != 0;
    let reason = reason(context, body)?;
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::SessionPresentInRefusal);
    }
    let properties = match context.version {
        Version::V311 => ConnAckProperties::default(),
        Version::V5 => properties::connack(body)?,
    };
    let (method, data) = (
        &properties.authentication_method,
        &properties.authentication_data,
    );
    properties::check_method(method.as_ref(), data.as_ref())?;
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

/// Without a body: normal disconnection. With one byte: without properties (§3.14.2.1).
fn disconnect(context: Context, body: &mut Reader) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect {
        reason: ReasonCode::Success,
        properties: DisconnectProperties::default(),
    };
    if context.version == Version::V311 || body.is_empty() {
        return Ok(disconnect);
    }
    disconnect.reason = reason(context, body)?;
    if !body.is_empty() {
        disconnect.properties = properties::disconnect(body)?;
    }
    let session_expiry = disconnect.properties.session_expiry_interval;
    if context.sender == Sender::Server && session_expiry.is_some() {
        return Err(DecodeError::SessionExpiryFromServer);
    }
    Ok(disconnect)
}

/// Without a body: success (§3.15.2.1), which only a server says [MQTT-3.15.2-1]; otherwise it names its method
/// (§3.15.2.2.2).
fn auth(context: Context, body: &mut Reader) -> Result<Auth, DecodeError> {
    if body.is_empty() {
        let reason = ReasonCode::Success;
        if !belongs(reason, context) {
            return Err(DecodeError::ReasonCode {
                packet_type: context.packet_type,
                code: reason as u8,
            });
        }
        return Ok(Auth {
            reason,
            properties: AuthProperties::default(),
        });
    }
    let reason = reason(context, body)?;
    let properties = properties::auth(body)?;
    if properties.authentication_method.is_none() {
        return Err(DecodeError::AuthenticationMethodMissing);
    }
    Ok(Auth { reason, properties })
}

/// The entries up to the end of the packet, at least one.
fn list<T>(
    context: Context,
    body: &mut Reader,
    mut entry: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        entries.push(entry(body)?);
    }
    if entries.is_empty() {
        return Err(DecodeError::EmptyList(context.packet_type));
    }
    Ok(entries)
}

/// A Reason Code that this packet may carry (§2.4), or the return code of 3.1.1 that stands for it.
fn reason(context: Context, body: &mut Reader) -> Result<ReasonCode, DecodeError> {
    let code = body.u8()?;
    let reason = match (context.version, context.packet_type) {
        (Version::V311, PacketType::ConnAck) => ReasonCode::from_v311_connack(code),
        (Version::V311, _) => {
            ReasonCode::new(code).filter(|reason| reason.to_v311_suback() == code)
        }
        (Version::V5, _) => ReasonCode::new(code).filter(|reason| belongs(*reason, context)),
    };
    reason.ok_or(DecodeError::ReasonCode {
        packet_type: context.packet_type,
        code,
    })
}

/// The table of §2.4, with who may send the reasons of DISCONNECT (§3.14.2.1) and AUTH (§3.15.2.1).
const fn belongs(reason: ReasonCode, context: Context) -> bool {
    use ReasonCode as R;
    let from_server = matches!(context.sender, Sender::Server);
    match context.packet_type {
        PacketType::ConnAck => matches!(
            reason,
            R::Success
                | R::UnspecifiedError
                | R::MalformedPacket
                | R::ProtocolError
                | R::ImplementationSpecificError
                | R::UnsupportedProtocolVersion
                | R::ClientIdentifierNotValid
                | R::BadUserNameOrPassword
                | R::NotAuthorized
                | R::ServerUnavailable
                | R::ServerBusy
                | R::Banned
                | R::BadAuthenticationMethod
                | R::TopicNameInvalid
                | R::PacketTooLarge
                | R::QuotaExceeded
                | R::PayloadFormatInvalid
                | R::RetainNotSupported
                | R::QosNotSupported
                | R::UseAnotherServer
                | R::ServerMoved
                | R::ConnectionRateExceeded
        ),
        PacketType::PubAck | PacketType::PubRec => matches!(
            reason,
            R::Success
                | R::NoMatchingSubscribers
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicNameInvalid
                | R::PacketIdentifierInUse
                | R::QuotaExceeded
                | R::PayloadFormatInvalid
        ),
        PacketType::PubRel | PacketType::PubComp => {
            matches!(reason, R::Success | R::PacketIdentifierNotFound)
        }
        PacketType::SubAck => matches!(
            reason,
            R::Success
                | R::GrantedQos1
                | R::GrantedQos2
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicFilterInvalid
                | R::PacketIdentifierInUse
                | R::QuotaExceeded
                | R::SharedSubscriptionsNotSupported
                | R::SubscriptionIdentifiersNotSupported
                | R::WildcardSubscriptionsNotSupported
        ),
        PacketType::UnsubAck => matches!(
            reason,
            R::Success
                | R::NoSubscriptionExisted
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicFilterInvalid
                | R::PacketIdentifierInUse
        ),
        PacketType::Disconnect => match reason {
            R::Success
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::TopicNameInvalid
            | R::ReceiveMaximumExceeded
            | R::TopicAliasInvalid
            | R::PacketTooLarge
            | R::MessageRateTooHigh
            | R::QuotaExceeded
            | R::AdministrativeAction
            | R::PayloadFormatInvalid => true,
            R::DisconnectWithWillMessage => !from_server,
            R::NotAuthorized
            | R::ServerBusy
            | R::ServerShuttingDown
            | R::BadAuthenticationMethod
            | R::KeepAliveTimeout
            | R::SessionTakenOver
            | R::TopicFilterInvalid
            | R::RetainNotSupported
            | R::QosNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::SharedSubscriptionsNotSupported
            | R::ConnectionRateExceeded
            | R::MaximumConnectTime
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported => from_server,
            _ => false,
        },
        PacketType::Auth => match reason {
            R::ContinueAuthentication => true,
            R::Success => from_server,
            R::ReAuthenticate => !from_server,
            _ => false,
        },
        _ => false,
    }
}
