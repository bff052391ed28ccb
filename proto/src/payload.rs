//! What is in a payload: which kind a body is, entries and receipts as JSON, messages as lines of text.
//!
//! The sender's bytes are never rewritten: [`classify`] looks at them and says what they are, and they are stored as
//! they came, unknown fields included.

mod entry;
mod kind;
pub(crate) mod line;
mod mention;
mod presence;

pub use entry::{
    Edited, EntryBody, Gap, GoneReason, LogEntry, Receipts, SenderCount, WatermarkMove, json_of,
};
pub use kind::PollTerms;
pub use line::escape_line;
pub use mention::{MENTIONS_MAX, Mention, Mentioned};
pub use presence::{
    PRESENCE_TEXT_MAX, Presence, PresenceChoice, PresenceState, Typing, TypingState,
};

use prost::Message;
use serde::Deserialize;

use crate::error::ErrorName;
use crate::ids::{MessageId, Seq};
use crate::quote::quoted;
use crate::schema::ClientMessage;

/// Content Type of a text body.
pub const TEXT: &str = "text/plain";
/// Content Type of a JSON body, and of everything the server writes as JSON.
pub const JSON: &str = "application/json";
/// Content Type of a protobuf body.
pub const PROTOBUF: &str = "application/x-mqchat+protobuf";
/// Before protobuf where no Content Type tells of it. Never in UTF-8.
pub const PROTOBUF_MARK: u8 = 0xC1;

/// How large a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimits {
    /// In bytes, marks of the format included.
    pub body_bytes_max: usize,
    /// How deep JSON may be nested; at most 100 are of use.
    pub json_depth_max: usize,
}

impl Default for PayloadLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 * 1024,
            json_depth_max: 32,
        }
    }
}

/// Why a payload is refused. The client sees [`ErrorName::Format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Nothing to say.
    #[error("an empty message")]
    Empty,
    /// Over the limit.
    #[error("{bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// As sent.
        bytes: usize,
        /// As allowed.
        max: usize,
    },
    /// Text that is not UTF-8.
    #[error("text must be UTF-8")]
    NotUtf8,
    /// Nested too deep.
    #[error("JSON is nested more than {max} deep")]
    TooDeep {
        /// As allowed.
        max: usize,
    },
    /// Not JSON, or not an object with the text `t`.
    #[error("no message: {0}")]
    NotClientMessage(String),
    /// A Content Type that is none of chat's.
    #[error("unknown content type {0}")]
    UnknownContentType(String),
    /// Not a protobuf `ClientMessage`.
    #[error("not a message in protobuf: {0}")]
    NotProtobuf(String),
    /// More of something than a message may have.
    #[error("field `{field}` has {count} parts, at most {max} are allowed")]
    TooMany {
        /// Of which field.
        field: &'static str,
        /// As sent.
        count: usize,
        /// As allowed.
        max: usize,
    },
    /// A choice of presence is a state and a text, or JSON with `state` and `text`.
    #[error("online, away, dnd or invisible, then a text of at most {PRESENCE_TEXT_MAX} bytes")]
    NotAPresence,
    /// Typing is `1`, `0` or `rec`.
    #[error("1, 0 or rec is wanted")]
    NotTyping,
    /// A mark is a number, or JSON with `seq` and `private`.
    #[error("not a place in a conversation")]
    NotAMark,
}

impl PayloadError {
    /// How the publish is refused.
    pub const fn refusal(&self) -> ErrorName {
        ErrorName::Format
    }
}

/// A body that has been looked at: the bytes to be stored, and what they say.
#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    /// UTF-8 text.
    Text(&'a str),
    /// A `ClientMessage` in JSON.
    Json(&'a [u8], Box<ClientMessage>),
    /// A `ClientMessage` in protobuf, without the mark before it.
    Protobuf(&'a [u8], Box<ClientMessage>),
}

impl<'a> Body<'a> {
    /// What is stored: the payload as it was sent, but for the mark of protobuf.
    pub const fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Json(bytes, _) | Self::Protobuf(bytes, _) => bytes,
        }
    }

    /// What is known of the message; `None` for text.
    pub fn message(&self) -> Option<&ClientMessage> {
        match self {
            Self::Text(_) => None,
            Self::Json(_, message) | Self::Protobuf(_, message) => Some(message),
        }
    }

    /// The message id in the body.
    pub fn mid(&self) -> Option<MessageId> {
        let mid = self.message()?.mid.as_deref()?;
        mid.parse().ok() // it has been checked
    }
}

/// Says what a body is:
///
/// 1. A Content Type decides, and what does not parse as it says is refused. Parameters of it are ignored, except that a
///    charset must be UTF-8.
/// 2. Without one, the first byte `{` of valid JSON with the key `t` means JSON, the first byte `0xC1` (never valid
///    UTF-8) protobuf, and anything else is text. What is nested too deep to be looked at is text.
///
/// # Errors
/// [`PayloadError`]: empty, too large, not what it says to be.
pub fn classify<'a>(
    content_type: Option<&str>,
    payload: &'a [u8],
    limits: &PayloadLimits,
) -> Result<Body<'a>, PayloadError> {
    if payload.len() > limits.body_bytes_max {
        return Err(PayloadError::TooLarge {
            bytes: payload.len(),
            max: limits.body_bytes_max,
        });
    }
    if payload.is_empty() {
        return Err(PayloadError::Empty);
    }
    match content_type.map(declared_kind).transpose()? {
        Some(Kind::Text) => as_text(payload),
        Some(Kind::Json) => as_json(payload, limits),
        Some(Kind::Protobuf) => as_protobuf(payload),
        None => match payload.split_first() {
            Some((b'{', _)) if looks_like_message(payload, limits) => as_json(payload, limits),
            Some((&PROTOBUF_MARK, message)) => as_protobuf(message),
            _ => as_text(payload),
        },
    }
}

/// The protobuf in a payload that says to be protobuf, by its Content Type or by the mark before it.
pub fn protobuf_in<'a>(content_type: Option<&str>, payload: &'a [u8]) -> Option<&'a [u8]> {
    match content_type.map(declared_kind) {
        Some(Ok(Kind::Protobuf)) => Some(payload),
        Some(_) => None,
        None => payload.strip_prefix(&[PROTOBUF_MARK]),
    }
}

/// The deepest nesting of arrays and objects in a JSON text, found without recursion. Of a text that is not JSON it is
/// some number.
pub fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What `chat/c/{cid}/read` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// Up to here; `None`: everything that this device has been delivered.
    pub seq: Option<Seq>,
    /// Shown to nobody else.
    pub private: bool,
}

impl ReadMark {
    /// Parses `123`, an empty payload, or `{"seq":123,"private":false}`, each field optional. Blanks around are ignored.
    ///
    /// # Errors
    /// [`PayloadError::NotAMark`] for anything else.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        #[derive(Deserialize)]
        struct Json {
            #[serde(default)]
            seq: Option<Seq>,
            #[serde(default)]
            private: bool,
        }
        let payload = payload.trim_ascii();
        if payload.is_empty() {
            return Ok(Self {
                seq: None,
                private: false,
            });
        }
        if payload.first() == Some(&b'{') {
            let Json { seq, private } =
                serde_json::from_slice(payload).map_err(|_| PayloadError::NotAMark)?;
            return Ok(Self { seq, private });
        }
        Ok(Self {
            seq: Some(parse_seq(payload)?),
            private: false,
        })
    }
}

/// Parses the payload of `chat/c/{cid}/recv`: a number in decimal digits, blanks around it ignored.
///
/// # Errors
/// [`PayloadError::NotAMark`] for anything else.
pub fn parse_seq(payload: &[u8]) -> Result<Seq, PayloadError> {
    std::str::from_utf8(payload.trim_ascii())
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(PayloadError::NotAMark)
}

enum Kind {
    Text,
    Json,
    Protobuf,
}

fn declared_kind(content_type: &str) -> Result<Kind, PayloadError> {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let foreign_charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"'))
        .any(|charset| {
            !["utf-8", "utf8", "us-ascii"].contains(&charset.to_ascii_lowercase().as_str())
        });
    if foreign_charset {
        return Err(PayloadError::UnknownContentType(quoted(content_type)));
    }
    [
        (TEXT, Kind::Text),
        (JSON, Kind::Json),
        (PROTOBUF, Kind::Protobuf),
    ]
    .into_iter()
    .find_map(|(name, kind)| essence.eq_ignore_ascii_case(name).then_some(kind))
    .ok_or_else(|| PayloadError::UnknownContentType(quoted(content_type)))
}

fn as_text(payload: &[u8]) -> Result<Body<'_>, PayloadError> {
    std::str::from_utf8(payload)
        .map(Body::Text)
        .map_err(|_| PayloadError::NotUtf8)
}

fn as_json<'a>(payload: &'a [u8], limits: &PayloadLimits) -> Result<Body<'a>, PayloadError> {
    if json_depth(payload) > limits.json_depth_max {
        return Err(PayloadError::TooDeep {
            max: limits.json_depth_max,
        });
    }
    let message: Box<ClientMessage> =
        crate::json::read_object(payload).map_err(PayloadError::NotClientMessage)?;
    kind::check(&message)?;
    Ok(Body::Json(payload, message))
}

fn as_protobuf(payload: &[u8]) -> Result<Body<'_>, PayloadError> {
    let message = ClientMessage::decode(payload)
        .map(Box::new)
        .map_err(|error| PayloadError::NotProtobuf(error.to_string()))?;
    kind::check(&message)?;
    Ok(Body::Protobuf(payload, message))
}

fn looks_like_message(payload: &[u8], limits: &PayloadLimits) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "t")]
        _t: serde::de::IgnoredAny,
    }
    json_depth(payload) <= limits.json_depth_max && serde_json::from_slice::<Probe>(payload).is_ok()
}

#[cfg(test)]
mod tests;
