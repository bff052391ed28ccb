//! Property sections (MQTT 5.0 §2.2.2), one function per packet that has one.

use bytes::Bytes;
use bytestring::ByteString;

use super::DecodeError;
use super::reader::Reader;
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    MaybeProperties, PropertyId as Id, SubscribeProperties, UserProperties, WillProperties,
    property_lists,
};

type Done = Result<(), DecodeError>;

macro_rules! readers {
    ($($packet:ident $properties:ident { $($id:ident: $form:ident $field:ident,)* })*) => {$(
        pub(super) fn $packet(body: &mut Reader) -> Result<$properties, DecodeError> {
            let mut p = $properties::default();
            each(body, |id, section| match id {
                $(Id::$id => $form(id, &mut p.$field, section),)*
                _ => Err(DecodeError::MisplacedProperty(id)),
            })?;
            Ok(p)
        }
    )*};
}

property_lists!(readers);

pub(super) fn publish(body: &mut Reader) -> Result<MaybeProperties, DecodeError> {
    let mut p = MaybeProperties::default();
    each(body, |id, section| match id {
        Id::PayloadFormatIndicator => flag(id, &mut p.payload_format_indicator, section),
        Id::MessageExpiryInterval => long(id, &mut p.message_expiry_interval, section),
        Id::TopicAlias => match section.u16()? {
            0 => Err(DecodeError::TopicAliasZero),
            alias => set(id, &mut p.topic_alias, alias),
        },
        Id::ResponseTopic => topic_name(id, &mut p.response_topic, section),
        Id::CorrelationData => binary(id, &mut p.correlation_data, section),
        Id::UserProperty => pairs(id, &mut p.user_properties, section),
        Id::SubscriptionIdentifier => {
            p.subscription_identifiers
                .push(positive(id, section.varint()?)?);
            Ok(())
        }
        Id::ContentType => text(id, &mut p.content_type, section),
        _ => Err(DecodeError::MisplacedProperty(id)),
    })?;
    Ok(p)
}

/// Authentication Data without a method is an error, in CONNECT and in CONNACK (§3.1.2.11.10).
pub(super) fn check_method(method: Option<&ByteString>, data: Option<&Bytes>) -> Done {
    if data.is_some() && method.is_none() {
        return Err(DecodeError::AuthenticationMethodMissing);
    }
    Ok(())
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
fn set<T>(id: Id, place: &mut Option<T>, value: T) -> Done {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::DuplicateProperty(id)),
    }
}

/// A byte that is 0 or 1.
fn bit(id: Id, place: &mut Option<u8>, section: &mut Reader) -> Done {
    match section.u8()? {
        value @ (0 | 1) => set(id, place, value),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

fn flag(id: Id, place: &mut Option<bool>, section: &mut Reader) -> Done {
    match section.u8()? {
        value @ (0 | 1) => set(id, place, value == 1),
        _ => Err(DecodeError::PropertyValue(id)),
    }
}

fn short(id: Id, place: &mut Option<u16>, section: &mut Reader) -> Done {
    set(id, place, section.u16()?)
}

fn long(id: Id, place: &mut Option<u32>, section: &mut Reader) -> Done {
    set(id, place, section.u32()?)
}

fn positive_short(id: Id, place: &mut Option<u16>, section: &mut Reader) -> Done {
    set(id, place, positive(id, section.u16()?)?)
}

fn positive_long(id: Id, place: &mut Option<u32>, section: &mut Reader) -> Done {
    set(id, place, positive(id, section.u32()?)?)
}

fn positive_varint(id: Id, place: &mut Option<u32>, section: &mut Reader) -> Done {
    set(id, place, positive(id, section.varint()?)?)
}

fn text(id: Id, place: &mut Option<ByteString>, section: &mut Reader) -> Done {
    set(id, place, section.text()?)
}

fn topic_name(id: Id, place: &mut Option<ByteString>, section: &mut Reader) -> Done {
    set(id, place, section.topic_name()?)
}

fn binary(id: Id, place: &mut Option<Bytes>, section: &mut Reader) -> Done {
    set(id, place, section.binary()?)
}

/// A UTF-8 String Pair (§1.5.7): these may occur as often as they like.
fn pairs(_id: Id, pairs: &mut UserProperties, section: &mut Reader) -> Done {
    let name = section.text()?;
    pairs.push((name, section.text()?));
    Ok(())
}

/// A number that must not be 0.
fn positive<T: Default + PartialEq>(id: Id, value: T) -> Result<T, DecodeError> {
    if value == T::default() {
        return Err(DecodeError::PropertyValue(id));
    }
    Ok(value)
}
