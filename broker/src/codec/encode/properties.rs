//! Property sections (MQTT 5.0 §2.2.2), each with its length before it. Empty values are left out.

use bytes::Bytes;
use bytestring::ByteString;

use super::PublishHead;
use super::sink::{Counter, Sink};
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PropertyId as Id, PublishProperties, SubscribeProperties, WillProperties, property_lists,
};
use crate::codec::varint::VARINT_MAX;

// What is checked when it is read is written like any other.
use {long as positive_long, short as positive_short, text as topic_name};

macro_rules! writers {
    ($($packet:ident $properties:ident { $($id:ident: $form:ident $field:ident,)* })*) => {$(
        pub(super) fn $packet(p: &$properties, out: &mut impl Sink) {
            fn put(p: &$properties, out: &mut impl Sink) {
                $($form(Id::$id, p.$field.as_ref(), out);)*
            }
            let mut counter = Counter::default();
            put(p, &mut counter);
            length(&counter, out);
            put(p, out);
        }
    )*};
}

property_lists!(writers);

pub(super) fn publish(p: &PublishProperties, head: &PublishHead<'_>, out: &mut impl Sink) {
    let mut counter = Counter::default();
    put_publish(p, head, &mut counter);
    length(&counter, out);
    put_publish(p, head, out);
}

fn put_publish(p: &PublishProperties, head: &PublishHead<'_>, out: &mut impl Sink) {
    let indicator = p.payload_format_indicator.as_ref();
    flag(Id::PayloadFormatIndicator, indicator, out);
    let interval = p.message_expiry_interval.as_ref();
    long(Id::MessageExpiryInterval, interval, out);
    short(Id::TopicAlias, head.topic_alias.as_ref(), out);
    text(Id::ResponseTopic, p.response_topic.as_ref(), out);
    binary(Id::CorrelationData, p.correlation_data.as_ref(), out);
    pairs(Id::UserProperty, &p.user_properties, out);
    for identifier in head.subscription_identifiers {
        positive_varint(Id::SubscriptionIdentifier, Some(identifier), out);
    }
    text(Id::ContentType, p.content_type.as_ref(), out);
}

fn length(counter: &Counter, out: &mut impl Sink) {
    // A section that long makes a packet that cannot be framed, which is left out as a whole.
    out.varint(u32::try_from(counter.bytes()).unwrap_or(VARINT_MAX));
}

fn put<T, S: Sink>(id: Id, value: Option<&T>, out: &mut S, put: impl FnOnce(&mut S, &T)) {
    if let Some(value) = value {
        out.u8(id as u8);
        put(out, value);
    }
}

fn bit(id: Id, value: Option<&u8>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.u8(*value));
}

fn flag(id: Id, value: Option<&bool>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.u8((*value).into()));
}

fn short(id: Id, value: Option<&u16>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.u16(*value));
}

fn long(id: Id, value: Option<&u32>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.u32(*value));
}

fn positive_varint(id: Id, value: Option<&u32>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.varint(*value));
}

fn text(id: Id, value: Option<&ByteString>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.text(value));
}

fn binary(id: Id, value: Option<&Bytes>, out: &mut impl Sink) {
    put(id, value, out, |out, value| out.binary(value));
}

fn pairs(id: Id, pairs: &[(ByteString, ByteString)], out: &mut impl Sink) {
    for (name, value) in pairs {
        out.u8(id as u8);
        out.text(name);
        out.text(value);
    }
}
