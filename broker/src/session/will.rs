//! The Will Message (MQTT 5.0 §3.1.2.5): published when the connection ends without a goodbye.

use std::time::{Duration, Instant};

use crate::codec::packet::{Publish, Will};
use crate::codec::properties::PublishProperties;

/// The publish that a will stands for.
pub(crate) fn into_publish(will: Will) -> Publish {
    let properties = will.properties;
    Publish {
        dup: false,
        qos: will.qos,
        retain: will.retain,
        topic: will.topic,
        // Routed, never acknowledged: there is no identifier.
        packet_id: None,
        payload: will.payload,
        properties: PublishProperties {
            payload_format_indicator: properties.payload_format_indicator,
            message_expiry_interval: properties.message_expiry_interval,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user_properties: properties.user_properties,
            content_type: properties.content_type,
            ..PublishProperties::default()
        }
        .into(),
    }
}

/// When a will is due for a session that lives on for `session_expiry` seconds: after its delay, or with the end of the
/// session, whichever comes first (MQTT 5.0 §3.1.3.2.2). `None`: at once.
pub(crate) fn due_at(will: &Will, session_expiry: u32, now: Instant) -> Option<Instant> {
    let delay = will.properties.will_delay_interval.unwrap_or(0);
    let seconds = delay.min(session_expiry);
    if seconds == 0 {
        return None;
    }
    now.checked_add(Duration::from_secs(seconds.into()))
}
