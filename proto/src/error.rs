//! Names of refusals: the user property `error` of a PUBACK, the `code` of an RPC reply, the `error` of an error event.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::MessageId;

/// Why something was refused. The name is part of the contract, the Reason Code is what MQTT 5 carries beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorName {
    /// A member who lacks this right; read-only.
    Forbidden,
    /// No such user, message or topic, or no conversation that this user can see, existing or not.
    NotFound,
    /// Over a rate limit or quota.
    Rate,
    /// A bad payload: too large, not UTF-8, not what its Content Type says; a bad `mid`; a mark beyond the head.
    Format,
    /// The same `mid` with another body.
    IdempotencyConflict,
    /// The time in which a message can be edited is over.
    EditClosed,
    /// End-to-end encryption: the group has another epoch.
    EpochConflict,
    /// RPC: somebody else changed it first.
    Conflict,
    /// RPC: there is no such method.
    UnknownMethod,
    /// RPC: the last owner cannot leave without handing over.
    LastOwner,
    /// RPC: the conversation or the user has as many of these as the server allows.
    Limit,
    /// RPC: the server cannot do it now; the same request again is safe.
    Unavailable,
}

impl ErrorName {
    /// Every name, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Forbidden,
        Self::NotFound,
        Self::Rate,
        Self::Format,
        Self::IdempotencyConflict,
        Self::EditClosed,
        Self::EpochConflict,
        Self::Conflict,
        Self::UnknownMethod,
        Self::LastOwner,
        Self::Limit,
        Self::Unavailable,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Rate => "rate",
            Self::Format => "format",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::EditClosed => "edit_closed",
            Self::EpochConflict => "epoch_conflict",
            Self::Conflict => "conflict",
            Self::UnknownMethod => "unknown_method",
            Self::LastOwner => "last_owner",
            Self::Limit => "limit",
            Self::Unavailable => "unavailable",
        }
    }

    /// The Reason Code of PUBACK and PUBREC (MQTT 5.0 §3.4.2.1).
    pub const fn reason_code(self) -> u8 {
        match self {
            Self::Forbidden => 0x87,
            Self::NotFound | Self::UnknownMethod => 0x90,
            Self::Rate | Self::Limit => 0x97,
            Self::Format => 0x99,
            Self::IdempotencyConflict
            | Self::EditClosed
            | Self::EpochConflict
            | Self::Conflict
            | Self::LastOwner
            | Self::Unavailable => 0x83,
        }
    }
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is published on `chat/me/err/…` when a publish was refused: the only way in which 3.1.1 can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEvent {
    /// Why.
    pub error: ErrorName,
    /// The Reason Code that MQTT 5 would carry.
    pub reason: u8,
    /// For people: which limit, which field.
    #[serde(default)]
    pub message: String,
    /// The Topic Name of the refused publish.
    pub topic: String,
    /// Its message id, if it had a valid one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<MessageId>,
    /// When it may be tried again, with [`ErrorName::Rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_json_are_the_same_text() {
        for error in ErrorName::ALL {
            let json = serde_json::to_string(&error).unwrap();
            assert_eq!(json, format!("\"{error}\""));
            assert_eq!(serde_json::from_str::<ErrorName>(&json).unwrap(), error);
            assert!(error.reason_code() >= 0x80);
        }
    }

    #[test]
    fn an_event_is_that_of_the_schema() {
        let event = ErrorEvent {
            error: ErrorName::Rate,
            reason: 0x97,
            message: "too fast".into(),
            topic: "chat/to/@bob".into(),
            mid: Some("m-1".parse().unwrap()),
            retry_ms: Some(7),
        };
        let json = serde_json::to_value(&event).unwrap();
        let in_schema: crate::schema::Error = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&in_schema).unwrap(), json);
    }
}
