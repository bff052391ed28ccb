//! Results of a publish: places and refusals as PUBACK, and as `chat/me/err/…` for clients whose PUBACK cannot carry a
//! reason.

use broker::codec::packet::{Publish, Qos};
use broker::codec::properties::{AckProperties, PublishProperties, UserProperties};
use broker::codec::reason::ReasonCode;
use broker::hooks::PublishAnswer;
use bytes::Bytes;
use bytestring::ByteString;
use proto::error::{ErrorEvent, ErrorName};
use proto::ids::MessageId;
use proto::payload;
use serde::Serialize;

use crate::service::scheduled::Arranged;
use crate::service::{Placed, Refusal};

/// PUBACK of something stored.
pub(super) fn placed(place: &Placed, mid: Option<&MessageId>) -> PublishAnswer {
    let mut user_properties: UserProperties = vec![
        pair("seq", place.seq.to_string()),
        pair("cid", place.conversation.to_string()),
        pair("ts", place.ts_ms.to_string()),
    ];
    user_properties.extend(mid.map(|mid| pair("mid", mid.as_str().to_owned())));
    if place.duplicate {
        user_properties.push(pair("dup", "1".into()));
    }
    answer(ReasonCode::Success, None, user_properties)
}

/// PUBACK of something that is sent later.
pub(super) fn arranged(arranged: &Arranged, mid: Option<&MessageId>) -> PublishAnswer {
    let (conversation, at_ms, duplicate) = match arranged {
        Arranged::Sent(place) => return placed(place, mid),
        Arranged::Waits {
            conversation,
            at_ms,
            duplicate,
        } => (conversation, at_ms, *duplicate),
    };
    let mut user_properties: UserProperties = vec![
        pair("cid", conversation.to_string()),
        pair("at", at_ms.to_string()),
    ];
    user_properties.extend(mid.map(|mid| pair("mid", mid.as_str().to_owned())));
    user_properties.extend(duplicate.then(|| pair("dup", "1".into())));
    answer(ReasonCode::Success, None, user_properties)
}

/// PUBACK of something refused. [`Refusal::Store`] has none: `None`.
pub(super) fn refused(refusal: &Refusal) -> Option<PublishAnswer> {
    if matches!(refusal, Refusal::Store(_)) {
        return None;
    }
    if let Refusal::Held(conversation) = refusal {
        let properties = vec![
            pair("cid", conversation.to_string()),
            pair("held", "1".into()),
        ];
        return Some(answer(ReasonCode::Success, None, properties));
    }
    let mut user_properties = vec![pair("error", refusal.name().name().into())];
    if let Refusal::Rate { retry_ms } = refusal {
        user_properties.push(pair("retry_ms", retry_ms.to_string()));
    }
    Some(answer(
        reason(refusal.name()),
        Some(refusal.to_string()),
        user_properties,
    ))
}

/// The Reason Code of a refusal.
fn reason(name: ErrorName) -> ReasonCode {
    match name.reason_code() {
        0x87 => ReasonCode::NotAuthorized,
        0x90 => ReasonCode::TopicNameInvalid,
        0x97 => ReasonCode::QuotaExceeded,
        0x99 => ReasonCode::PayloadFormatInvalid,
        _ => ReasonCode::ImplementationSpecificError,
    }
}

/// The notice of a refusal on `chat/me/err/…`.
pub(super) fn notice(topic: &str, refusal: &Refusal, of: &str, mid: Option<&MessageId>) -> Publish {
    let event = ErrorEvent {
        error: refusal.name(),
        reason: refusal.name().reason_code(),
        message: refusal.to_string(),
        topic: of.to_owned(),
        mid: mid.cloned(),
        retry_ms: match refusal {
            Refusal::Rate { retry_ms } => Some(*retry_ms),
            _ => None,
        },
    };
    json_publish(topic, &event)
}

/// A JSON message of the server under a topic.
pub(crate) fn json_publish(topic: &str, body: &impl Serialize) -> Publish {
    json_message(ByteString::from(topic), Bytes::from(json_bytes(body)))
}

/// A message of the server under a topic, from what is JSON already.
pub(crate) fn json_message(topic: ByteString, payload: Bytes) -> Publish {
    message(topic, payload, payload::JSON)
}

/// An answer of the server as JSON.
pub(super) fn json_bytes(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Vec::new()
    })
}

/// A message of the server under a topic.
pub(crate) fn server_publish(topic: &str, payload: Vec<u8>, content_type: &'static str) -> Publish {
    message(ByteString::from(topic), Bytes::from(payload), content_type)
}

fn message(topic: ByteString, payload: Bytes, content_type: &'static str) -> Publish {
    Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        payload,
        properties: PublishProperties {
            content_type: Some(ByteString::from_static(content_type)),
            payload_format_indicator: (content_type != payload::PROTOBUF).then_some(true),
            ..PublishProperties::default()
        }
        .into(),
    }
}

fn answer(
    reason: ReasonCode,
    text: Option<String>,
    user_properties: UserProperties,
) -> PublishAnswer {
    let reason_string = text.map(ByteString::from);
    PublishAnswer {
        notice: None,
        reason,
        properties: Some(Box::new(AckProperties {
            reason_string,
            user_properties,
        })),
    }
}

/// A user property.
pub(crate) fn pair(name: &'static str, value: String) -> (ByteString, ByteString) {
    (ByteString::from_static(name), ByteString::from(value))
}
