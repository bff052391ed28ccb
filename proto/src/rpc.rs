//! The envelope of remote calls: `{"ok":…}` or `{"error":{"code":…,"message":…}}`, and the same in [`protobuf`]. The requests and results of each
//! method are in `docs/protocol.md`.

pub mod protobuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::ErrorName;

/// The reply to a call: exactly one of the two keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    /// It is done; the result of the method.
    Ok(T),
    /// It was refused, and nothing changed.
    Error(Failure),
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: ErrorName,
    /// For people: says which field, and what is allowed.
    pub message: String,
    /// When it may be tried again, with [`ErrorName::Rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl<T> Reply<T> {
    /// A refusal.
    pub fn refused(code: ErrorName, message: impl Into<String>) -> Self {
        Self::Error(Failure {
            code,
            message: message.into(),
            retry_ms: None,
        })
    }
}

/// Reads a request: an empty payload is `{}`, and JSON may be nested at most `depth_max` deep.
///
/// # Errors
/// What is wrong, in words for the one who called.
pub fn parse_request<'a, T: Deserialize<'a>>(
    payload: &'a [u8],
    depth_max: usize,
) -> Result<T, String> {
    let payload = if payload.trim_ascii().is_empty() {
        b"{}".as_slice()
    } else {
        payload
    };
    if crate::payload::json_depth(payload) > depth_max {
        return Err(format!("nested more than {depth_max} deep"));
    }
    crate::json::read_object(payload)
}

/// A result that is JSON text already.
pub type RawReply = Reply<Box<RawValue>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_one_key() {
        let done = Reply::Ok(serde_json::json!({"cid": "g.x"}));
        assert_eq!(
            serde_json::to_string(&done).unwrap(),
            r#"{"ok":{"cid":"g.x"}}"#
        );
        let refused: Reply<()> = Reply::refused(ErrorName::NotFound, "no such user: @nobody");
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"error":{"code":"not_found","message":"no such user: @nobody"}}"#
        );
    }

    #[test]
    fn a_request_may_be_empty_but_not_bottomless() {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            limit: u32,
        }
        assert_eq!(
            parse_request::<Page>(b" \n", 8).map(|page| page.limit),
            Ok(0)
        );
        assert_eq!(
            parse_request::<Page>(br#"{"limit":3}"#, 8).map(|page| page.limit),
            Ok(3)
        );
        assert!(parse_request::<Page>(b"[3]", 8).is_err(), "not an object");
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(9), "]".repeat(9));
        assert!(parse_request::<Page>(deep.as_bytes(), 8).is_err());
    }
}
