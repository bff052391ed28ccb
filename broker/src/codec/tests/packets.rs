//! Any packet that one side of a connection may send.

use bytes::Bytes;
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use crate::codec::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, Publish, Qos, RetainHandling,
    SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Version, Will,
};
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UserProperties, WillProperties,
};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;

/// A packet that a client may send; CONNECT is of `version` too.
pub(super) fn from_client(version: Version) -> BoxedStrategy<Packet> {
    let common = prop_oneof![
        connect(version).prop_map(|connect| Packet::Connect(Box::new(connect))),
        publish(version, false).prop_map(Packet::Publish),
        acks(version),
        subscribe(version).prop_map(Packet::Subscribe),
        unsubscribe(version).prop_map(Packet::Unsubscribe),
        Just(Packet::PingReq),
        disconnect(version, false).prop_map(Packet::Disconnect),
    ];
    match version {
        Version::V311 => common.boxed(),
        Version::V5 => prop_oneof![7 => common, 1 => auth()].boxed(),
    }
}

/// A packet that a server may send.
pub(super) fn from_server(version: Version) -> BoxedStrategy<Packet> {
    let common = prop_oneof![
        connack(version).prop_map(|connack| Packet::ConnAck(Box::new(connack))),
        publish(version, true).prop_map(Packet::Publish),
        acks(version),
        suback(version).prop_map(Packet::SubAck),
        unsuback(version).prop_map(Packet::UnsubAck),
        Just(Packet::PingResp),
    ];
    match version {
        Version::V311 => common.boxed(),
        Version::V5 => prop_oneof![
            6 => common,
            1 => auth(),
            1 => disconnect(version, true).prop_map(Packet::Disconnect),
        ]
        .boxed(),
    }
}

fn text() -> impl Strategy<Value = ByteString> {
    prop_oneof![Just(String::new()), "[^\0]{0,9}", "[a-z]{100,300}"].prop_map(ByteString::from)
}

fn topic_name() -> impl Strategy<Value = ByteString> {
    "[^\0+#]{1,9}".prop_map(ByteString::from)
}

fn topic_filter() -> impl Strategy<Value = TopicFilter> {
    prop_oneof![
        "[^\0+#$]{1,9}",
        "(\\+|[a-z]{0,3})(/(\\+|[a-z]{0,3})){1,3}(/#)?",
        "\\$share/[a-z]{1,3}/(\\+|[a-z]{1,3})(/#)?",
        Just("#".to_owned()),
    ]
    .prop_map(|text| TopicFilter::parse(text.into()).unwrap())
}

fn binary() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 100..20_000)]
        .prop_map(Bytes::from)
}

fn pairs() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

fn qos() -> impl Strategy<Value = Qos> {
    (0..3u8).prop_map(|number| Qos::new(number).unwrap())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|number| PacketId::new(number).unwrap())
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    prop::sample::select(codes).prop_map(|code| ReasonCode::new(code).unwrap())
}

/// `properties` in 5.0, none in 3.1.1.
fn in_v5<T: Default + Clone + std::fmt::Debug + 'static>(
    version: Version,
    properties: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    match version {
        Version::V311 => Just(T::default()).boxed(),
        Version::V5 => prop_oneof![Just(T::default()), properties].boxed(),
    }
}

fn connect(version: Version) -> impl Strategy<Value = Connect> {
    (
        any::<bool>(),
        any::<u16>(),
        text(),
        of(will(version)),
        of(text()),
        of(binary()),
        in_v5(version, connect_properties()),
    )
        .prop_map(
            move |(clean_start, keep_alive, client_id, will, user_name, password, properties)| {
                let v311 = version == Version::V311;
                Connect {
                    version,
                    clean_start: clean_start || (v311 && client_id.is_empty()),
                    keep_alive,
                    client_id,
                    will,
                    password: password.filter(|_| !v311 || user_name.is_some()),
                    user_name,
                    properties,
                }
            },
        )
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    let properties = (
        of(any::<u32>()),
        of(any::<bool>()),
        of(any::<u32>()),
        of(text()),
        of(topic_name()),
        of(binary()),
        pairs(),
    )
        .prop_map(|fields| WillProperties {
            will_delay_interval: fields.0,
            payload_format_indicator: fields.1,
            message_expiry_interval: fields.2,
            content_type: fields.3,
            response_topic: fields.4,
            correlation_data: fields.5,
            user_properties: fields.6,
        });
    (
        topic_name(),
        binary(),
        qos(),
        any::<bool>(),
        in_v5(version, properties),
    )
        .prop_map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(1..=u32::MAX),
        of(any::<u16>()),
        of(any::<bool>()),
        of(any::<bool>()),
        pairs(),
        of((text(), of(binary()))),
    )
        .prop_map(|fields| {
            let (authentication_method, authentication_data) = fields.7.unzip();
            ConnectProperties {
                session_expiry_interval: fields.0,
                receive_maximum: fields.1,
                maximum_packet_size: fields.2,
                topic_alias_maximum: fields.3,
                request_response_information: fields.4,
                request_problem_information: fields.5,
                user_properties: fields.6,
                authentication_method,
                authentication_data: authentication_data.flatten(),
            }
        })
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck> {
    let reasons: &[u8] = match version {
        Version::V311 => &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88],
        Version::V5 => &[0x00, 0x80, 0x81, 0x89, 0x8C, 0x95, 0x9D, 0x9F],
    };
    (
        any::<bool>(),
        reason(reasons),
        in_v5(version, connack_properties()),
    )
        .prop_map(|(session_present, reason, properties)| ConnAck {
            session_present: session_present && reason == ReasonCode::Success,
            reason,
            properties,
        })
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties> {
    let numbers = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(0..2u8),
        of(1..=u32::MAX),
        of(any::<u16>()),
        of(any::<u16>()),
    );
    let flags = (
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of(any::<bool>()),
    );
    let texts = (of(text()), of(text()), of(text()), of(text()), pairs());
    (numbers, flags, texts, of((text(), of(binary())))).prop_map(
        |(numbers, flags, texts, authentication)| {
            let (authentication_method, authentication_data) = authentication.unzip();
            ConnAckProperties {
                session_expiry_interval: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos: numbers.2,
                retain_available: flags.0,
                maximum_packet_size: numbers.3,
                assigned_client_identifier: texts.0,
                topic_alias_maximum: numbers.4,
                reason_string: texts.1,
                user_properties: texts.4,
                wildcard_subscription_available: flags.1,
                subscription_identifiers_available: flags.2,
                shared_subscription_available: flags.3,
                server_keep_alive: numbers.5,
                response_information: texts.2,
                server_reference: texts.3,
                authentication_method,
                authentication_data: authentication_data.flatten(),
            }
        },
    )
}

fn publish(version: Version, from_server: bool) -> impl Strategy<Value = Publish> {
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic_name(),
        any::<bool>(),
        packet_id(),
        binary(),
        in_v5(version, publish_properties(from_server)),
    )
        .prop_map(
            |(dup, qos, retain, topic, by_alias, packet_id, payload, properties)| Publish {
                dup: dup && qos != Qos::AtMostOnce,
                qos,
                retain,
                topic: if by_alias && properties.topic_alias.is_some() {
                    ByteString::new()
                } else {
                    topic
                },
                packet_id: (qos != Qos::AtMostOnce).then_some(packet_id),
                payload,
                properties: properties.into(),
            },
        )
}

fn publish_properties(from_server: bool) -> impl Strategy<Value = PublishProperties> {
    let identifiers = if from_server { 0..3 } else { 0..1 };
    (
        of(any::<bool>()),
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(topic_name()),
        of(binary()),
        pairs(),
        vec(1..=268_435_455u32, identifiers),
        of(text()),
    )
        .prop_map(|fields| PublishProperties {
            payload_format_indicator: fields.0,
            message_expiry_interval: fields.1,
            topic_alias: fields.2,
            response_topic: fields.3,
            correlation_data: fields.4,
            user_properties: fields.5,
            subscription_identifiers: fields.6,
            content_type: fields.7,
        })
}

fn acks(version: Version) -> impl Strategy<Value = Packet> {
    let (taken, released): (&[u8], &[u8]) = match version {
        Version::V311 => (&[0], &[0]),
        Version::V5 => (
            &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
            &[0, 0x92],
        ),
    };
    prop_oneof![
        ack(version, taken).prop_map(Packet::PubAck),
        ack(version, taken).prop_map(Packet::PubRec),
        ack(version, released).prop_map(Packet::PubRel),
        ack(version, released).prop_map(Packet::PubComp),
    ]
}

fn ack(version: Version, reasons: &'static [u8]) -> impl Strategy<Value = Ack> {
    (packet_id(), reason(reasons), ack_properties(version)).prop_map(
        |(packet_id, reason, properties)| Ack {
            packet_id,
            reason,
            properties: (properties != AckProperties::default()).then(|| Box::new(properties)),
        },
    )
}

fn ack_properties(version: Version) -> impl Strategy<Value = AckProperties> {
    let properties =
        (of(text()), pairs()).prop_map(|(reason_string, user_properties)| AckProperties {
            reason_string,
            user_properties,
        });
    in_v5(version, properties)
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let properties =
        (of(1..=268_435_455u32), pairs()).prop_map(|(subscription_identifier, user_properties)| {
            SubscribeProperties {
                subscription_identifier,
                user_properties,
            }
        });
    (
        packet_id(),
        in_v5(version, properties),
        vec(subscribe_filter(version), 1..4),
    )
        .prop_map(|(packet_id, properties, filters)| Subscribe {
            packet_id,
            properties,
            filters,
        })
}

fn subscribe_filter(version: Version) -> impl Strategy<Value = SubscribeFilter> {
    let handling = prop_oneof![
        Just(RetainHandling::Always),
        Just(RetainHandling::IfNew),
        Just(RetainHandling::Never),
    ];
    let options = in_v5(version, (any::<bool>(), any::<bool>(), handling));
    (topic_filter(), qos(), options).prop_map(|(filter, qos, options)| SubscribeFilter {
        no_local: options.0 && filter.split_share().0.is_none(),
        filter,
        qos,
        retain_as_published: options.1,
        retain_handling: options.2,
    })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe> {
    let properties = pairs().prop_map(|user_properties| SubscribeProperties {
        subscription_identifier: None,
        user_properties,
    });
    (
        packet_id(),
        in_v5(version, properties),
        vec(topic_filter(), 1..4),
    )
        .prop_map(|(packet_id, properties, filters)| Unsubscribe {
            packet_id,
            properties,
            filters,
        })
}

fn suback(version: Version) -> impl Strategy<Value = SubAck> {
    let reasons: &[u8] = match version {
        Version::V311 => &[0, 1, 2, 0x80],
        Version::V5 => &[
            0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ],
    };
    (
        packet_id(),
        vec(reason(reasons), 1..4),
        ack_properties(version),
    )
        .prop_map(|(packet_id, reasons, properties)| SubAck {
            packet_id,
            reasons,
            properties,
        })
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck> {
    let reasons = match version {
        Version::V311 => Just(Vec::new()).boxed(),
        Version::V5 => vec(reason(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]), 1..4).boxed(),
    };
    (packet_id(), reasons, ack_properties(version)).prop_map(|(packet_id, reasons, properties)| {
        UnsubAck {
            packet_id,
            reasons,
            properties,
        }
    })
}

fn disconnect(version: Version, from_server: bool) -> impl Strategy<Value = Disconnect> {
    let reasons: &[u8] = match (version, from_server) {
        (Version::V311, _) => &[0],
        (Version::V5, false) => &[0, 0x04, 0x80, 0x81, 0x93, 0x99],
        (Version::V5, true) => &[0, 0x81, 0x89, 0x8B, 0x8D, 0x8E, 0x9D, 0xA2],
    };
    let properties = (of(any::<u32>()), of(text()), pairs(), of(text())).prop_map(move |fields| {
        DisconnectProperties {
            session_expiry_interval: fields.0.filter(|_| !from_server),
            reason_string: fields.1,
            user_properties: fields.2,
            server_reference: fields.3,
        }
    });
    (reason(reasons), in_v5(version, properties))
        .prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth() -> impl Strategy<Value = Packet> {
    (text(), of(binary()), of(text()), pairs()).prop_map(|fields| {
        Packet::Auth(Auth {
            reason: ReasonCode::ContinueAuthentication,
            properties: AuthProperties {
                authentication_method: Some(fields.0),
                authentication_data: fields.1,
                reason_string: fields.2,
                user_properties: fields.3,
            },
        })
    })
}
