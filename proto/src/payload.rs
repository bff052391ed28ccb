//! What is in a payload: which kind a body is, entries and receipts as JSON, messages as lines of text.
//!
//! The sender's bytes are never rewritten: [`classify`] looks at them and says what they are, and they are stored as
//! they came, unknown fields included.

mod entry;
pub(crate) mod line;

pub use entry::{
    Edited, EntryBody, Gap, GoneReason, LogEntry, Receipts, SenderCount, WatermarkMove,
};
pub use line::escape_line;

use serde::Deserialize;

use crate::error::ErrorName;
use crate::ids::{MessageId, Seq};
use crate::quote::quoted;

/// Content Type of a text body.
pub const TEXT: &str = "text/plain";
/// Content Type of a JSON body, and of everything the server writes as JSON.
pub const JSON: &str = "application/json";
/// Content Type of a protobuf body.
pub const PROTOBUF: &str = "application/x-mqchat+protobuf";

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
    /// Protobuf is not accepted yet.
    #[error("protobuf is not accepted yet")]
    Protobuf,
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

/// A body that has been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// UTF-8 text.
    Text,
    /// A JSON `ClientMessage`.
    Json(ClientMessage),
}

/// What the server reads of a message in JSON. All other fields are kept in the body as they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ClientMessage {
    /// The text that people see.
    pub t: String,
    /// The idempotency key; weaker than the one in the topic or in the user property.
    #[serde(default)]
    pub mid: Option<MessageId>,
    /// The message that this one quotes.
    #[serde(default)]
    pub reply_to: Option<Seq>,
    /// The message whose thread this one is written in.
    #[serde(default)]
    pub thread: Option<Seq>,
    /// Seconds that it lasts.
    #[serde(default)]
    pub ttl_s: Option<u32>,
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
pub fn classify(
    content_type: Option<&str>,
    payload: &[u8],
    limits: &PayloadLimits,
) -> Result<Body, PayloadError> {
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
        Some(Kind::Protobuf) => Err(PayloadError::Protobuf),
        None => match payload.first() {
            Some(b'{') if looks_like_message(payload, limits) => as_json(payload, limits),
            Some(0xC1) => Err(PayloadError::Protobuf),
            _ => as_text(payload),
        },
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

fn as_text(payload: &[u8]) -> Result<Body, PayloadError> {
    std::str::from_utf8(payload)
        .map(|_| Body::Text)
        .map_err(|_| PayloadError::NotUtf8)
}

fn as_json(payload: &[u8], limits: &PayloadLimits) -> Result<Body, PayloadError> {
    if json_depth(payload) > limits.json_depth_max {
        return Err(PayloadError::TooDeep {
            max: limits.json_depth_max,
        });
    }
    let message: ClientMessage =
        crate::json::read_object(payload).map_err(PayloadError::NotClientMessage)?;
    if message.t.is_empty() {
        return Err(PayloadError::Empty);
    }
    Ok(Body::Json(message))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PayloadLimits = PayloadLimits {
        body_bytes_max: 1000,
        json_depth_max: 4,
    };

    fn is_json(content_type: Option<&str>, payload: &str) -> bool {
        matches!(
            classify(content_type, payload.as_bytes(), &LIMITS),
            Ok(Body::Json(_))
        )
    }

    fn is_text(content_type: Option<&str>, payload: &str) -> bool {
        classify(content_type, payload.as_bytes(), &LIMITS) == Ok(Body::Text)
    }

    #[test]
    fn undeclared_body_is_what_it_looks_like() {
        assert!(is_text(None, "hello"));
        assert!(is_text(None, "{ not json"));
        assert!(is_text(None, r#"{"temperature":21.5}"#), "no key t");
        assert!(
            is_text(None, r#" {"t":"x"}"#),
            "does not begin with a brace"
        );
        assert!(is_text(None, r#"{"t":"x"} and more"#));
        assert!(
            is_text(None, &"{".repeat(900)),
            "a drawing, not a stack overflow"
        );
        assert!(is_json(None, r#"{"t":"x"}"#));
        assert!(is_json(None, "{\n\"t\":\"x\",\"unknown\":[1,{}]\n}\n"));
    }

    #[test]
    fn declared_body_has_to_parse_as_declared() {
        assert!(is_text(Some("text/plain"), r#"{"t":"x"}"#));
        assert!(is_text(Some("Text/Plain; charset=UTF-8"), "x"));
        assert!(is_json(Some("application/json"), "\t{\"t\":\"x\"}"));
        for (content_type, payload, error) in [
            ("application/json", "hello", "NotClientMessage"),
            ("application/json", r#"{"text":"x"}"#, "NotClientMessage"),
            ("application/json", r#"{"t":1}"#, "NotClientMessage"),
            ("application/json", r#"["t"]"#, "NotClientMessage"),
            ("application/json", r#"{"t":""}"#, "Empty"),
            (
                "application/json",
                r#"{"t":"x","mid":"a/b"}"#,
                "NotClientMessage",
            ),
            (
                "application/json",
                r#"{"t":"x","t":"y"}"#,
                "NotClientMessage",
            ),
            ("application/json", r#"{"t":"x","a":[[[[]]]]}"#, "TooDeep"),
            ("text/plain; charset=latin1", "x", "UnknownContentType"),
            ("image/png", "x", "UnknownContentType"),
            ("", "x", "UnknownContentType"),
            ("application/x-mqchat+protobuf", "x", "Protobuf"),
        ] {
            let refused = classify(Some(content_type), payload.as_bytes(), &LIMITS).unwrap_err();
            assert!(
                format!("{refused:?}").starts_with(error),
                "{content_type} {payload}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_message_with_a_bad_field_is_refused_rather_than_shown_as_text() {
        for payload in [
            r#"{"t":"x","mid":""}"#,
            r#"{"t":["x"]}"#,
            r#"{"t":"x","reply_to":-1}"#,
        ] {
            let refused = classify(None, payload.as_bytes(), &LIMITS);
            assert!(
                matches!(refused, Err(PayloadError::NotClientMessage(_))),
                "{payload}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert_eq!(classify(None, b"", &LIMITS), Err(PayloadError::Empty));
        assert_eq!(classify(None, b"\xff", &LIMITS), Err(PayloadError::NotUtf8));
        assert_eq!(
            classify(None, b"\xc1\x01", &LIMITS),
            Err(PayloadError::Protobuf)
        );
        assert_eq!(
            classify(None, &[b'x'; 1001], &LIMITS),
            Err(PayloadError::TooLarge {
                bytes: 1001,
                max: 1000
            })
        );
    }

    #[test]
    fn fields_of_a_message_are_read() {
        let payload = r#"{"t":"hi\u0021","mid":"m-1","reply_to":7,"later":true}"#;
        let Ok(Body::Json(message)) = classify(None, payload.as_bytes(), &LIMITS) else {
            panic!("not JSON");
        };
        assert_eq!(message.t, "hi!");
        assert_eq!(message.mid, Some("m-1".parse().unwrap()));
        assert_eq!(message.reply_to, Some(Seq::new(7)));
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert_eq!(json_depth(br#"{"a":[1,{"b":"[[[\"{{{"}]}"#), 3);
        assert_eq!(json_depth(b"17"), 0);
        assert_eq!(json_depth(b"]]]["), 1);
    }

    #[test]
    fn read_mark_has_three_forms() {
        let mark = |seq, private| Ok(ReadMark { seq, private });
        let at = |seq| Some(Seq::new(seq));
        assert_eq!(ReadMark::parse(b""), mark(None, false));
        assert_eq!(ReadMark::parse(b"123\n"), mark(at(123), false));
        assert_eq!(ReadMark::parse(br#"{"seq":123}"#), mark(at(123), false));
        assert_eq!(ReadMark::parse(br#"{"private":true}"#), mark(None, true));
        assert_eq!(
            ReadMark::parse(br#"{"seq":9,"private":true}"#),
            mark(at(9), true)
        );
        for bad in [
            "-1",
            "1.5",
            "x",
            "18446744073709551616",
            "{",
            r#"{"seq":"9"}"#,
            "1 2",
        ] {
            assert_eq!(
                ReadMark::parse(bad.as_bytes()),
                Err(PayloadError::NotAMark),
                "{bad}"
            );
        }
        assert_eq!(parse_seq(b" 7 "), Ok(Seq::new(7)));
        assert_eq!(parse_seq(b""), Err(PayloadError::NotAMark));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload: Vec<u8>, content_type: Option<String>) {
            let _ = classify(content_type.as_deref(), &payload, &LIMITS);
            let _ = classify(Some(JSON), &payload, &LIMITS);
            let _ = ReadMark::parse(&payload);
            let _ = json_depth(&payload);
        }
    }
}
