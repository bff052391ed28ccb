//! Properties (MQTT 5.0 §2.2.2), one struct per packet that carries some: a property that does not belong to a packet
//! cannot be written down. Empty in 3.1.1.
//!
//! What belongs to which packet is written down once more at the end, in the form that it has on the wire: reading and
//! writing are both made of that list. PUBLISH is not in it; only there do alias and identifiers differ from one receiver to
//! the next.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use bytestring::ByteString;

/// Name of a property on the wire (§2.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of MQTT 5.0 §2.2.2.2")]
pub enum PropertyId {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQos = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifiersAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

impl PropertyId {
    /// The property with this identifier; `None` if there is none.
    pub const fn new(number: u32) -> Option<Self> {
        Some(match number {
            0x01 => Self::PayloadFormatIndicator,
            0x02 => Self::MessageExpiryInterval,
            0x03 => Self::ContentType,
            0x08 => Self::ResponseTopic,
            0x09 => Self::CorrelationData,
            0x0B => Self::SubscriptionIdentifier,
            0x11 => Self::SessionExpiryInterval,
            0x12 => Self::AssignedClientIdentifier,
            0x13 => Self::ServerKeepAlive,
            0x15 => Self::AuthenticationMethod,
            0x16 => Self::AuthenticationData,
            0x17 => Self::RequestProblemInformation,
            0x18 => Self::WillDelayInterval,
            0x19 => Self::RequestResponseInformation,
            0x1A => Self::ResponseInformation,
            0x1C => Self::ServerReference,
            0x1F => Self::ReasonString,
            0x21 => Self::ReceiveMaximum,
            0x22 => Self::TopicAliasMaximum,
            0x23 => Self::TopicAlias,
            0x24 => Self::MaximumQos,
            0x25 => Self::RetainAvailable,
            0x26 => Self::UserProperty,
            0x27 => Self::MaximumPacketSize,
            0x28 => Self::WildcardSubscriptionAvailable,
            0x29 => Self::SubscriptionIdentifiersAvailable,
            0x2A => Self::SharedSubscriptionAvailable,
            _ => return None,
        })
    }
}

/// Name and value pairs in the order of the packet; a name may occur more than once.
pub type UserProperties = Vec<(ByteString, ByteString)>;

/// Properties of PUBLISH (§3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// `Some(true)`: the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// Lifetime in seconds.
    pub message_expiry_interval: Option<u32>,
    /// 1 to Topic Alias Maximum.
    pub topic_alias: Option<u16>,
    /// Where the answer of a request goes: a checked topic name.
    pub response_topic: Option<ByteString>,
    /// What the asker knows its request by.
    pub correlation_data: Option<Bytes>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
    /// Only from server to client: the identifiers of the subscriptions that matched.
    pub subscription_identifiers: Vec<u32>,
    /// Media type of the payload.
    pub content_type: Option<ByteString>,
}

/// The properties of a PUBLISH, which take no room where there are none: most have none, and a PUBLISH is moved often.
#[derive(Clone, Debug, Default)]
pub struct MaybeProperties(Option<Box<PublishProperties>>);

impl MaybeProperties {
    /// To change what there is; reading goes by [`Deref`].
    pub fn as_mut(&mut self) -> Option<&mut PublishProperties> {
        self.0.as_deref_mut()
    }
}

impl Deref for MaybeProperties {
    type Target = PublishProperties;

    fn deref(&self) -> &PublishProperties {
        static NONE: PublishProperties = PublishProperties {
            payload_format_indicator: None,
            message_expiry_interval: None,
            topic_alias: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            subscription_identifiers: Vec::new(),
            content_type: None,
        };
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for MaybeProperties {
    /// Makes room if there was none: to look whether there is something use [`Deref`].
    fn deref_mut(&mut self) -> &mut PublishProperties {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for MaybeProperties {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for MaybeProperties {}

impl From<PublishProperties> for MaybeProperties {
    fn from(properties: PublishProperties) -> Self {
        let has_any = properties != PublishProperties::default();
        Self(has_any.then(|| Box::new(properties)))
    }
}

/// Properties of CONNECT (§3.1.2.11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties {
    /// Seconds; absent means 0, 0xFFFFFFFF means for ever.
    pub session_expiry_interval: Option<u32>,
    /// At least 1; absent means 65,535.
    pub receive_maximum: Option<u16>,
    /// At least 1; absent means no limit.
    pub maximum_packet_size: Option<u32>,
    /// Absent means 0: the server must not send aliases.
    pub topic_alias_maximum: Option<u16>,
    /// Absent means false.
    pub request_response_information: Option<bool>,
    /// Absent means true.
    pub request_problem_information: Option<bool>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
    /// Name of the extended authentication.
    pub authentication_method: Option<ByteString>,
    /// Only with a method.
    pub authentication_data: Option<Bytes>,
}

/// Properties of a Will Message (§3.1.3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WillProperties {
    /// Seconds between the end of the connection and the publication.
    pub will_delay_interval: Option<u32>,
    /// `Some(true)`: the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// Lifetime in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Media type of the payload.
    pub content_type: Option<ByteString>,
    /// Where the answer of a request goes.
    pub response_topic: Option<ByteString>,
    /// What the asker knows its request by.
    pub correlation_data: Option<Bytes>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
}

/// Properties of CONNACK (§3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAckProperties {
    /// Seconds, if other than asked for.
    pub session_expiry_interval: Option<u32>,
    /// How many QoS 1 and 2 publishes the client may have unacknowledged.
    pub receive_maximum: Option<u16>,
    /// 0 or 1; absent means 2.
    pub maximum_qos: Option<u8>,
    /// Absent means true.
    pub retain_available: Option<bool>,
    /// Bytes; absent means no limit.
    pub maximum_packet_size: Option<u32>,
    /// The Client Identifier that the server chose.
    pub assigned_client_identifier: Option<ByteString>,
    /// Highest alias that the client may send.
    pub topic_alias_maximum: Option<u16>,
    /// Why, for people.
    pub reason_string: Option<ByteString>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
    /// Absent means true.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent means true.
    pub subscription_identifiers_available: Option<bool>,
    /// Absent means true.
    pub shared_subscription_available: Option<bool>,
    /// Seconds, if other than asked for.
    pub server_keep_alive: Option<u16>,
    /// Basis of response topics.
    pub response_information: Option<ByteString>,
    /// Another server to use.
    pub server_reference: Option<ByteString>,
    /// Name of the extended authentication.
    pub authentication_method: Option<ByteString>,
    /// Only with a method.
    pub authentication_data: Option<Bytes>,
}

/// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckProperties {
    /// Why, for people.
    pub reason_string: Option<ByteString>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
}

/// Properties of SUBSCRIBE (§3.8.2.1) and UNSUBSCRIBE (§3.10.2.1; no identifier there).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeProperties {
    /// 1 to 268,435,455; in SUBSCRIBE only.
    pub subscription_identifier: Option<u32>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
}

/// Properties of DISCONNECT (§3.14.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties {
    /// Only from the client: seconds, a new value for the session.
    pub session_expiry_interval: Option<u32>,
    /// Why, for people.
    pub reason_string: Option<ByteString>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
    /// Only from the server: another server to use.
    pub server_reference: Option<ByteString>,
}

/// Properties of AUTH (§3.15.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthProperties {
    /// Name of the extended authentication.
    pub authentication_method: Option<ByteString>,
    /// Only with a method.
    pub authentication_data: Option<Bytes>,
    /// Why, for people.
    pub reason_string: Option<ByteString>,
    /// Pairs of the application.
    pub user_properties: UserProperties,
}

/// Hands to a macro, for each packet but PUBLISH: its properties in the order in which they are written, each with its name,
/// its form and its field.
macro_rules! property_lists {
    ($make:ident) => {
        $make! {
            connect ConnectProperties {
                SessionExpiryInterval: long session_expiry_interval,
                ReceiveMaximum: positive_short receive_maximum,
                MaximumPacketSize: positive_long maximum_packet_size,
                TopicAliasMaximum: short topic_alias_maximum,
                RequestResponseInformation: flag request_response_information,
                RequestProblemInformation: flag request_problem_information,
                UserProperty: pairs user_properties,
                AuthenticationMethod: text authentication_method,
                AuthenticationData: binary authentication_data,
            }
            will WillProperties {
                WillDelayInterval: long will_delay_interval,
                PayloadFormatIndicator: flag payload_format_indicator,
                MessageExpiryInterval: long message_expiry_interval,
                ContentType: text content_type,
                ResponseTopic: topic_name response_topic,
                CorrelationData: binary correlation_data,
                UserProperty: pairs user_properties,
            }
            connack ConnAckProperties {
                SessionExpiryInterval: long session_expiry_interval,
                ReceiveMaximum: positive_short receive_maximum,
                MaximumQos: bit maximum_qos,
                RetainAvailable: flag retain_available,
                MaximumPacketSize: positive_long maximum_packet_size,
                AssignedClientIdentifier: text assigned_client_identifier,
                TopicAliasMaximum: short topic_alias_maximum,
                ReasonString: text reason_string,
                UserProperty: pairs user_properties,
                WildcardSubscriptionAvailable: flag wildcard_subscription_available,
                SubscriptionIdentifiersAvailable: flag subscription_identifiers_available,
                SharedSubscriptionAvailable: flag shared_subscription_available,
                ServerKeepAlive: short server_keep_alive,
                ResponseInformation: text response_information,
                ServerReference: text server_reference,
                AuthenticationMethod: text authentication_method,
                AuthenticationData: binary authentication_data,
            }
            ack AckProperties {
                ReasonString: text reason_string,
                UserProperty: pairs user_properties,
            }
            subscribe SubscribeProperties {
                SubscriptionIdentifier: positive_varint subscription_identifier,
                UserProperty: pairs user_properties,
            }
            unsubscribe SubscribeProperties {
                UserProperty: pairs user_properties,
            }
            disconnect DisconnectProperties {
                SessionExpiryInterval: long session_expiry_interval,
                ReasonString: text reason_string,
                UserProperty: pairs user_properties,
                ServerReference: text server_reference,
            }
            auth AuthProperties {
                AuthenticationMethod: text authentication_method,
                AuthenticationData: binary authentication_data,
                ReasonString: text reason_string,
                UserProperty: pairs user_properties,
            }
        }
    };
}
pub(super) use property_lists;
