//! Property sections (MQTT 5.0 §2.2.2), each with its length before it. Empty values are left out.

use bytes::Bytes;
use bytestring::ByteString;

use super::PublishHead;
use super::sink::{Counter, Sink};
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PropertyId as Id, PublishProperties, SubscribeProperties, WillProperties,
};
use crate::codec::varint::VARINT_MAX;

pub(super) fn publish(p: &PublishProperties, head: &PublishHead<'_>, out: &mut impl Sink) {
    let section = PublishSection(p, head);
    put_section(&section, out);
}

struct PublishSection<'a>(&'a PublishProperties, &'a PublishHead<'a>);

/// A list of properties that can be counted and written.
trait Section {
    fn put(&self, out: &mut impl Sink);
}

fn put_section(section: &impl Section, out: &mut impl Sink) {
    let mut counter = Counter::default();
    section.put(&mut counter);
    // A section that long makes a packet that cannot be framed, which is left out as a whole.
    out.varint(u32::try_from(counter.bytes()).unwrap_or(VARINT_MAX));
    section.put(out);
}

macro_rules! section {
    ($name:ident, $properties:ty) => {
        pub(super) fn $name(properties: &$properties, out: &mut impl Sink) {
            put_section(properties, out);
        }
    };
}

section!(connect, ConnectProperties);
section!(will, WillProperties);
section!(connack, ConnAckProperties);
section!(ack, AckProperties);
section!(disconnect, DisconnectProperties);
section!(auth, AuthProperties);
section!(subscribe, SubscribeProperties);

/// No Subscription Identifier here (§3.10.2.1).
pub(super) fn unsubscribe(p: &SubscribeProperties, out: &mut impl Sink) {
    put_section(&UnsubscribeSection(p), out);
}

struct UnsubscribeSection<'a>(&'a SubscribeProperties);

impl Section for PublishSection<'_> {
    fn put(&self, out: &mut impl Sink) {
        let Self(p, head) = self;
        flag(Id::PayloadFormatIndicator, p.payload_format_indicator, out);
        long(Id::MessageExpiryInterval, p.message_expiry_interval, out);
        short(Id::TopicAlias, head.topic_alias, out);
        text(Id::ResponseTopic, p.response_topic.as_ref(), out);
        binary(Id::CorrelationData, p.correlation_data.as_ref(), out);
        pairs(&p.user_properties, out);
        for identifier in head.subscription_identifiers {
            varint(Id::SubscriptionIdentifier, Some(*identifier), out);
        }
        text(Id::ContentType, p.content_type.as_ref(), out);
    }
}

impl Section for ConnectProperties {
    fn put(&self, out: &mut impl Sink) {
        long(Id::SessionExpiryInterval, self.session_expiry_interval, out);
        short(Id::ReceiveMaximum, self.receive_maximum, out);
        long(Id::MaximumPacketSize, self.maximum_packet_size, out);
        short(Id::TopicAliasMaximum, self.topic_alias_maximum, out);
        flag(
            Id::RequestResponseInformation,
            self.request_response_information,
            out,
        );
        flag(
            Id::RequestProblemInformation,
            self.request_problem_information,
            out,
        );
        pairs(&self.user_properties, out);
        text(
            Id::AuthenticationMethod,
            self.authentication_method.as_ref(),
            out,
        );
        binary(
            Id::AuthenticationData,
            self.authentication_data.as_ref(),
            out,
        );
    }
}

impl Section for WillProperties {
    fn put(&self, out: &mut impl Sink) {
        long(Id::WillDelayInterval, self.will_delay_interval, out);
        flag(
            Id::PayloadFormatIndicator,
            self.payload_format_indicator,
            out,
        );
        long(Id::MessageExpiryInterval, self.message_expiry_interval, out);
        text(Id::ContentType, self.content_type.as_ref(), out);
        text(Id::ResponseTopic, self.response_topic.as_ref(), out);
        binary(Id::CorrelationData, self.correlation_data.as_ref(), out);
        pairs(&self.user_properties, out);
    }
}

impl Section for ConnAckProperties {
    fn put(&self, out: &mut impl Sink) {
        long(Id::SessionExpiryInterval, self.session_expiry_interval, out);
        short(Id::ReceiveMaximum, self.receive_maximum, out);
        byte(Id::MaximumQos, self.maximum_qos, out);
        flag(Id::RetainAvailable, self.retain_available, out);
        long(Id::MaximumPacketSize, self.maximum_packet_size, out);
        text(
            Id::AssignedClientIdentifier,
            self.assigned_client_identifier.as_ref(),
            out,
        );
        short(Id::TopicAliasMaximum, self.topic_alias_maximum, out);
        text(Id::ReasonString, self.reason_string.as_ref(), out);
        pairs(&self.user_properties, out);
        flag(
            Id::WildcardSubscriptionAvailable,
            self.wildcard_subscription_available,
            out,
        );
        flag(
            Id::SubscriptionIdentifiersAvailable,
            self.subscription_identifiers_available,
            out,
        );
        flag(
            Id::SharedSubscriptionAvailable,
            self.shared_subscription_available,
            out,
        );
        short(Id::ServerKeepAlive, self.server_keep_alive, out);
        text(
            Id::ResponseInformation,
            self.response_information.as_ref(),
            out,
        );
        text(Id::ServerReference, self.server_reference.as_ref(), out);
        text(
            Id::AuthenticationMethod,
            self.authentication_method.as_ref(),
            out,
        );
        binary(
            Id::AuthenticationData,
            self.authentication_data.as_ref(),
            out,
        );
    }
}

impl Section for AckProperties {
    fn put(&self, out: &mut impl Sink) {
        text(Id::ReasonString, self.reason_string.as_ref(), out);
        pairs(&self.user_properties, out);
    }
}

impl Section for SubscribeProperties {
    fn put(&self, out: &mut impl Sink) {
        varint(
            Id::SubscriptionIdentifier,
            self.subscription_identifier,
            out,
        );
        pairs(&self.user_properties, out);
    }
}

impl Section for UnsubscribeSection<'_> {
    fn put(&self, out: &mut impl Sink) {
        pairs(&self.0.user_properties, out);
    }
}

impl Section for DisconnectProperties {
    fn put(&self, out: &mut impl Sink) {
        long(Id::SessionExpiryInterval, self.session_expiry_interval, out);
        text(Id::ReasonString, self.reason_string.as_ref(), out);
        pairs(&self.user_properties, out);
        text(Id::ServerReference, self.server_reference.as_ref(), out);
    }
}

impl Section for AuthProperties {
    fn put(&self, out: &mut impl Sink) {
        text(
            Id::AuthenticationMethod,
            self.authentication_method.as_ref(),
            out,
        );
        binary(
            Id::AuthenticationData,
            self.authentication_data.as_ref(),
            out,
        );
        text(Id::ReasonString, self.reason_string.as_ref(), out);
        pairs(&self.user_properties, out);
    }
}

fn byte(id: Id, value: Option<u8>, out: &mut impl Sink) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.u8(value);
    }
}

fn flag(id: Id, value: Option<bool>, out: &mut impl Sink) {
    byte(id, value.map(u8::from), out);
}

fn short(id: Id, value: Option<u16>, out: &mut impl Sink) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.u16(value);
    }
}

fn long(id: Id, value: Option<u32>, out: &mut impl Sink) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.u32(value);
    }
}

fn varint(id: Id, value: Option<u32>, out: &mut impl Sink) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.varint(value);
    }
}

fn text(id: Id, value: Option<&ByteString>, out: &mut impl Sink) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.text(value);
    }
}

fn binary(id: Id, value: Option<&Bytes>, out: &mut impl Sink) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.binary(value);
    }
}

fn pairs(pairs: &[(ByteString, ByteString)], out: &mut impl Sink) {
    for (name, value) in pairs {
        out.u8(Id::UserProperty as u8);
        out.text(name);
        out.text(value);
    }
}
