//! Reading JSON objects that people wrote: what is wrong is told in words of JSON, with the field.

use serde::Deserialize;
use serde_path_to_error::{Path, Segment};

use crate::quote::quoted;

/// Reads an object.
///
/// # Errors
/// What is wrong, for the one who wrote it: «field `title` must be a text». What was written is quoted short and escaped.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    // serde would take an array for a struct.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err("a JSON object is wanted".into());
    }
    serde_json::from_slice(text).map_err(|error| {
        if error.is_data() {
            // Once more, to find out where.
            let mut deserializer = serde_json::Deserializer::from_slice(text);
            let again = serde_path_to_error::deserialize::<_, T>(&mut deserializer);
            again.map_or_else(
                |error| data_error(error.path(), &error.inner().to_string()),
                |_| without_place(&error.to_string()).to_owned(),
            )
        } else {
            format!("not JSON: {error}")
        }
    })
}

/// Says in words of JSON what serde says in words of Rust.
fn data_error(path: &Path, said: &str) -> String {
    let said = without_place(said);
    let name_in = |rest: &str| rest.trim_end_matches('`').to_owned();
    if let Some(rest) = said.strip_prefix("unknown field `") {
        // The name is not ours and may hold anything; the list behind it is.
        let (name, known) = rest.rsplit_once("`, expected ").unwrap_or((rest, ""));
        let known = known.strip_prefix("one of ").unwrap_or(known);
        return match known {
            "" => format!("unknown field {}", quoted(&name_in(name))),
            known => format!("unknown field {}, known: {known}", quoted(name)),
        };
    }
    if let Some(name) = said.strip_prefix("missing field `") {
        return format!("field {} is missing", quoted(&name_in(name)));
    }
    if let Some(name) = said.strip_prefix("duplicate field `") {
        return format!("field {} is there twice", quoted(&name_in(name)));
    }
    let field = field_of(path);
    if let Some(rest) = said.strip_prefix("unknown variant `") {
        let (word, known) = rest
            .rsplit_once("`, expected ")
            .unwrap_or((rest, "another"));
        return format!("{field} must be {known}, not {}", quoted(word));
    }
    let is_serde = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .any(|beginning| said.starts_with(beginning));
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if is_serde => format!("{field} must be {}", in_json(expected)),
        _ => format!("{field}: {said}"),
    }
}

/// What Rust expected, in words of JSON.
fn in_json(expected: &str) -> &'static str {
    match expected {
        "a string" | "a borrowed string" | "str" | "a character" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" | "map" => "an object",
        "string or map" => "a text or an object",
        "i8" | "i16" | "i32" | "i64" | "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not too large",
        "unit" => "null",
        _ if expected.starts_with("struct ") => "an object",
        _ if expected.starts_with("a sequence") || expected.starts_with("tuple") => "an array",
        _ => "something else",
    }
}

/// ``field `members[1]` ``.
fn field_of(path: &Path) -> String {
    let mut name = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                name.push('[');
                name.push_str(&index.to_string());
                name.push(']');
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    if name.is_empty() {
        return "a field".into();
    }
    format!("field {}", quoted(&name))
}

/// Without « at line 1 column 12», which helps nobody in one line that a program wrote.
fn without_place(said: &str) -> &str {
    said.rsplit_once(" at line ").map_or(said, |(said, _)| said)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::ids::Seq;
    use crate::topics::Target;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        #[default]
        One,
        Two,
        Three(#[allow(dead_code, reason = "only read")] u32),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "deep")]
        _deep: Option<bool>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Request {
        cid: Target,
        title: Option<String>,
        #[serde(default)]
        members: Vec<Target>,
        #[serde(default)]
        roles: HashMap<String, Word>,
        #[serde(default)]
        word: Word,
        limit: Option<usize>,
        seq: Option<Seq>,
        inner: Option<Inner>,
    }

    fn refusal(fields: &str) -> String {
        let text = format!("{{\"cid\":\"me\",{fields}}}");
        read_object::<Request>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_told_in_words_of_json() {
        for (fields, said) in [
            (r#""title":7"#, "field `title` must be a text"),
            (r#""members":"x""#, "field `members` must be an array"),
            (
                r#""limit":-1"#,
                "field `limit` must be a whole number, not too large",
            ),
            (
                r#""limit":1.5"#,
                "field `limit` must be a whole number, not too large",
            ),
            (r#""roles":[]"#, "field `roles` must be an object"),
            (r#""inner":7"#, "field `inner` must be an object"),
            (
                r#""inner":{"deep":1}"#,
                "field `inner.deep` must be true or false",
            ),
            (
                r#""roles":{"@bob":"x"}"#,
                "field `roles.@bob` must be one of `one`, `two`, `three`, not `x`",
            ),
            (r#""cid":"me""#, "field `cid` is there twice"),
            (
                r#""members":["me","a\nb"]"#,
                r"field `members[1]`: not a handle, user, conversation or me: `a\nb`",
            ),
        ] {
            assert_eq!(refusal(fields), said, "{fields}");
        }
        let unknown = refusal("\"titel\\u001b\":7");
        assert!(
            unknown.starts_with(r"unknown field `titel\u{1b}`, known: `cid`, `title`"),
            "{unknown}"
        );
        assert_eq!(
            read_object::<Request>(b"{}").unwrap_err(),
            "field `cid` is missing"
        );
        assert_eq!(
            read_object::<Request>(b"[]").unwrap_err(),
            "a JSON object is wanted"
        );
        let broken = read_object::<Request>(b"{\"cid\" 7}").unwrap_err();
        assert_eq!(broken, "not JSON: expected `:` at line 1 column 8");
    }

    #[test]
    fn nothing_that_is_told_is_long_or_of_rust() {
        let values = [
            "7",
            "-1",
            "1.5",
            "1e400",
            "null",
            "true",
            "[]",
            "{}",
            "\"x\"",
            "[[7]]",
            "{\"a\":{}}",
        ];
        for field in [
            "cid", "title", "members", "roles", "word", "limit", "seq", "inner",
        ] {
            for value in values {
                let text = format!("{{\"{field}\":{value}}}");
                if let Err(said) = read_object::<Request>(text.as_bytes()) {
                    assert!(said.len() < 200, "{said}");
                    for rust in [
                        "struct", "usize", "u64", "sequence", "map", "enum", "variant",
                    ] {
                        assert!(!said.contains(rust), "{text}: {said}");
                    }
                }
            }
        }
        let long = refusal(&format!("\"{}\":1", "x".repeat(50_000)));
        assert!(long.len() < 300, "{long}");
    }
}
