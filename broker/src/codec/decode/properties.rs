//! Property sections (MQTT 5.0 §2.2.2), one function per packet that has one.

use bytestring::ByteString;

use super::DecodeError;
use super::reader::Reader;
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PropertyId as Id, PublishProperties, SubscribeProperties, WillProperties,
};

pub(super) fn publish(body: &mut Reader) -> Result<PublishProperties, DecodeError> {
    let mut p = PublishProperties::default();
    each(body, |id, section| match id {
        Id::PayloadFormatIndicator => set(id, &mut p.payload_format_indicator, flag(id, section)?),
        Id::MessageExpiryInterval => set(id, &mut p.message_expiry_interval, section.u32()?),
        Id::TopicAlias => match section.u16()? {
            0 => Err(DecodeError::TopicAliasZero),
            alias => set(id, &mut p.topic_alias, alias),
        },
        Id::ResponseTopic => set(id, &mut p.response_topic, section.topic_name()?),
        Id::CorrelationData => set(id, &mut p.correlation_data, section.binary()?),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        Id::SubscriptionIdentifier => {
            p.subscription_identifiers
                .push(positive(id, section.varint()?)?);
            Ok(())
        }
        Id::ContentType => set(id, &mut p.content_type, section.text()?),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

pub(super) fn connect(body: &mut Reader) -> Result<ConnectProperties, DecodeError> {
    let mut p = ConnectProperties::default();
    each(body, |id, section| match id {
        Id::SessionExpiryInterval => set(id, &mut p.session_expiry_interval, section.u32()?),
        Id::ReceiveMaximum => set(id, &mut p.receive_maximum, positive(id, section.u16()?)?),
        Id::MaximumPacketSize => set(
            id,
            &mut p.maximum_packet_size,
            positive(id, section.u32()?)?,
        ),
        Id::TopicAliasMaximum => set(id, &mut p.topic_alias_maximum, section.u16()?),
        Id::RequestResponseInformation => {
            set(id, &mut p.request_response_information, flag(id, section)?)
        }
        Id::RequestProblemInformation => {
            set(id, &mut p.request_problem_information, flag(id, section)?)
        }
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        Id::AuthenticationMethod => set(id, &mut p.authentication_method, section.text()?),
        Id::AuthenticationData => set(id, &mut p.authentication_data, section.binary()?),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    if p.authentication_data.is_some() && p.authentication_method.is_none() {
        return Err(DecodeError::AuthenticationMethodMissing);
    }
    Ok(p)
}

pub(super) fn will(body: &mut Reader) -> Result<WillProperties, DecodeError> {
    let mut p = WillProperties::default();
    each(body, |id, section| match id {
        Id::WillDelayInterval => set(id, &mut p.will_delay_interval, section.u32()?),
        Id::PayloadFormatIndicator => set(id, &mut p.payload_format_indicator, flag(id, section)?),
        Id::MessageExpiryInterval => set(id, &mut p.message_expiry_interval, section.u32()?),
        Id::ContentType => set(id, &mut p.content_type, section.text()?),
        Id::ResponseTopic => set(id, &mut p.response_topic, section.topic_name()?),
        Id::CorrelationData => set(id, &mut p.correlation_data, section.binary()?),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

pub(super) fn connack(body: &mut Reader) -> Result<ConnAckProperties, DecodeError> {
    let mut p = ConnAckProperties::default();
    each(body, |id, section| match id {
        Id::SessionExpiryInterval => set(id, &mut p.session_expiry_interval, section.u32()?),
        Id::ReceiveMaximum => set(id, &mut p.receive_maximum, positive(id, section.u16()?)?),
        Id::MaximumQos => set(id, &mut p.maximum_qos, u8::from(flag(id, section)?)),
        Id::RetainAvailable => set(id, &mut p.retain_available, flag(id, section)?),
        Id::MaximumPacketSize => set(
            id,
            &mut p.maximum_packet_size,
            positive(id, section.u32()?)?,
        ),
        Id::AssignedClientIdentifier => set(id, &mut p.assigned_client_identifier, section.text()?),
        Id::TopicAliasMaximum => set(id, &mut p.topic_alias_maximum, section.u16()?),
        Id::ReasonString => set(id, &mut p.reason_string, section.text()?),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        Id::WildcardSubscriptionAvailable => set(
            id,
            &mut p.wildcard_subscription_available,
            flag(id, section)?,
        ),
        Id::SubscriptionIdentifiersAvailable => set(
            id,
            &mut p.subscription_identifiers_available,
            flag(id, section)?,
        ),
        Id::SharedSubscriptionAvailable => {
            set(id, &mut p.shared_subscription_available, flag(id, section)?)
        }
        Id::ServerKeepAlive => set(id, &mut p.server_keep_alive, section.u16()?),
        Id::ResponseInformation => set(id, &mut p.response_information, section.text()?),
        Id::ServerReference => set(id, &mut p.server_reference, section.text()?),
        Id::AuthenticationMethod => set(id, &mut p.authentication_method, section.text()?),
        Id::AuthenticationData => set(id, &mut p.authentication_data, section.binary()?),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    if p.authentication_data.is_some() && p.authentication_method.is_none() {
        return Err(DecodeError::AuthenticationMethodMissing);
    }
    Ok(p)
}

pub(super) fn ack(body: &mut Reader) -> Result<AckProperties, DecodeError> {
    let mut p = AckProperties::default();
    each(body, |id, section| match id {
        Id::ReasonString => set(id, &mut p.reason_string, section.text()?),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

pub(super) fn subscribe(body: &mut Reader) -> Result<SubscribeProperties, DecodeError> {
    let mut p = SubscribeProperties::default();
    each(body, |id, section| match id {
        Id::SubscriptionIdentifier => set(
            id,
            &mut p.subscription_identifier,
            positive(id, section.varint()?)?,
        ),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

pub(super) fn unsubscribe(body: &mut Reader) -> Result<SubscribeProperties, DecodeError> {
    let mut p = SubscribeProperties::default();
    each(body, |id, section| match id {
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

pub(super) fn disconnect(body: &mut Reader) -> Result<DisconnectProperties, DecodeError> {
    let mut p = DisconnectProperties::default();
    each(body, |id, section| match id {
        Id::SessionExpiryInterval => set(id, &mut p.session_expiry_interval, section.u32()?),
        Id::ReasonString => set(id, &mut p.reason_string, section.text()?),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        Id::ServerReference => set(id, &mut p.server_reference, section.text()?),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

pub(super) fn auth(body: &mut Reader) -> Result<AuthProperties, DecodeError> {
    let mut p = AuthProperties::default();
    each(body, |id, section| match id {
        Id::AuthenticationMethod => set(id, &mut p.authentication_method, section.text()?),
        Id::AuthenticationData => set(id, &mut p.authentication_data, section.binary()?),
        Id::ReasonString => set(id, &mut p.reason_string, section.text()?),
        Id::UserProperty => push_pair(&mut p.user_properties, section),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

/// Splits the section off `body`, so that no property can run over it, and hands on one property after the other.
fn each(
    body: &mut Reader,
    mut take: impl FnMut(Id, &mut Reader) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let bytes = body.varint()?;
    if bytes == 0 {
        return Ok(());
    }
    let mut section = Reader::new(body.take(bytes as usize)?);
    while !section.is_empty() {
        let number = section.varint()?;
        let id = Id::new(number).ok_or(DecodeError::UnknownProperty(number))?;
        take(id, &mut section)?;
    }
    Ok(())
}

/// Most properties may occur once.
fn set<T>(id: Id, place: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::DuplicateProperty(id)),
    }
}

/// A byte that is 0 or 1.
fn flag(id: Id, section: &mut Reader) -> Result<bool, DecodeError> {
    match section.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

/// A number that must not be 0.
fn positive<T: Default + PartialEq>(id: Id, value: T) -> Result<T, DecodeError> {
    if value == T::default() {
        return Err(DecodeError::PropertyValue(id));
    }
    Ok(value)
}

/// A UTF-8 String Pair (§1.5.7).
fn push_pair(
    pairs: &mut Vec<(ByteString, ByteString)>,
    section: &mut Reader,
) -> Result<(), DecodeError> {
    let name = section.text()?;
    pairs.push((name, section.text()?));
    Ok(())
}
