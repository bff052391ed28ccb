use proptest::prelude::*;

use super::*;
use crate::schema::{Location, Media};

const LIMITS: PayloadLimits = PayloadLimits {
    body_bytes_max: 1000,
    json_depth_max: 4,
};

fn is_json(content_type: Option<&str>, payload: &str) -> bool {
    matches!(
        classify(content_type, payload.as_bytes(), &LIMITS),
        Ok(Body::Json(..))
    )
}

fn is_text(content_type: Option<&str>, payload: &str) -> bool {
    classify(content_type, payload.as_bytes(), &LIMITS) == Ok(Body::Text(payload))
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
        ("application/json", r#"{"text":"x"}"#, "Empty"),
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
        ("application/x-mqchat+protobuf", "x", "NotProtobuf"),
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
    let Ok(Body::Json(_, message)) = classify(None, payload.as_bytes(), &LIMITS) else {
        panic!("not JSON");
    };
    assert_eq!(message.t, "hi!");
    assert_eq!(message.mid.as_deref(), Some("m-1"));
    assert_eq!(message.reply_to, Some(7));
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

fn in_protobuf(message: &ClientMessage) -> Vec<u8> {
    message.encode_to_vec()
}

fn said(t: &str) -> ClientMessage {
    ClientMessage {
        t: t.into(),
        ..ClientMessage::default()
    }
}

#[test]
fn protobuf_is_known_by_its_content_type_or_by_the_mark_before_it() {
    let message = ClientMessage {
        mid: Some("m-1".into()),
        reply_to: Some(7),
        ..said("hi")
    };
    let plain = in_protobuf(&message);
    let marked = [&[PROTOBUF_MARK][..], &plain].concat();
    for (content_type, payload) in [
        (Some("application/x-mqchat+protobuf"), &plain),
        (Some("Application/X-Mqchat+Protobuf; v=1"), &plain),
        (None, &marked),
    ] {
        let body = classify(content_type, payload, &LIMITS).unwrap();
        assert_eq!(body, Body::Protobuf(&plain, Box::new(message.clone())));
        assert_eq!(body.bytes(), plain, "the mark is not stored");
        assert_eq!(body.mid(), Some("m-1".parse().unwrap()));
        assert_eq!(protobuf_in(content_type, payload), Some(&*plain));
    }
    assert_eq!(classify(None, &plain, &LIMITS).unwrap().message(), None);
    assert_eq!(protobuf_in(None, &plain), None);
    assert_eq!(protobuf_in(Some(JSON), &marked), None);
    let declared = classify(Some(TEXT), &marked, &LIMITS);
    assert_eq!(declared, Err(PayloadError::NotUtf8));
}

#[test]
fn what_is_no_message_in_protobuf_is_refused() {
    let with = |change: fn(&mut ClientMessage)| {
        let mut message = said("x");
        change(&mut message);
        in_protobuf(&message)
    };
    for (payload, error) in [
        (vec![], "Empty"),
        (in_protobuf(&said("")), "Empty"),
        (b"\x0a\x05x".to_vec(), "NotProtobuf"),
        (b"\x0a\x02\xff\xfe".to_vec(), "NotProtobuf"),
        (b"\x08\x01".to_vec(), "NotProtobuf"),
        (
            with(|message| message.mid = Some("a/b".into())),
            "NotClientMessage",
        ),
        (
            with(|message| message.mid = Some(String::new())),
            "NotClientMessage",
        ),
        (
            with(|message| message.mentions = vec![String::new(); 257]),
            "TooMany",
        ),
        (
            with(|message| message.media = vec![Media::default(); 65]),
            "TooMany",
        ),
        (
            with(|message| {
                message.location = Some(Location {
                    lat: f64::NAN,
                    ..Location::default()
                });
            }),
            "NotClientMessage",
        ),
    ] {
        let marked = [&[PROTOBUF_MARK][..], &payload].concat();
        for refused in [
            classify(Some(PROTOBUF), &payload, &LIMITS),
            classify(None, &marked, &LIMITS),
        ] {
            let refused = refused.unwrap_err();
            assert!(
                format!("{refused:?}").starts_with(error),
                "{payload:x?}: {refused:?}"
            );
        }
    }
}

#[test]
fn a_field_that_is_known_must_be_of_its_type_in_json_too() {
    for field in [
        r#""kind":7"#,
        r#""mentions":"@bob""#,
        r#""media":{"id":"x"}"#,
        r#""ttl_s":-1"#,
        r#""opaque":"???""#,
        r#""location":{"lat":91}"#,
    ] {
        let payload = format!("{{\"t\":\"x\",{field}}}");
        let refused = classify(None, payload.as_bytes(), &LIMITS);
        assert!(
            matches!(refused, Err(PayloadError::NotClientMessage(_))),
            "{payload}: {refused:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_payload_panics(payload: Vec<u8>, content_type: Option<String>) {
        let _ = classify(content_type.as_deref(), &payload, &LIMITS);
        let _ = classify(Some(JSON), &payload, &LIMITS);
        let _ = ReadMark::parse(&payload);
        let _ = json_depth(&payload);
    }

    #[test]
    fn random_bytes_are_a_protobuf_message_only_if_they_are_one(payload: Vec<u8>) {
        let marked = [&[PROTOBUF_MARK][..], &payload].concat();
        match classify(None, &marked, &LIMITS) {
            Ok(body) => {
                let decoded = ClientMessage::decode(&*payload).unwrap();
                prop_assert!(!decoded.t.is_empty());
                prop_assert_eq!(body.message(), Some(&decoded));
            }
            Err(_) => prop_assert!(
                ClientMessage::decode(&*payload).is_err() || payload.is_empty()
                    || kind::check(&ClientMessage::decode(&*payload).unwrap()).is_err()
            ),
        }
    }

    #[test]
    fn a_damaged_message_is_refused_or_is_another_message(
        t in "[a-z]{1,9}",
        mutations in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut: proptest::sample::Index,
    ) {
        let mut payload = in_protobuf(&ClientMessage {
            media: vec![Media { id: "m".into(), size: 9, ..Media::default() }],
            mentions: vec!["@bob".into()],
            ..said(&t)
        });
        for (index, byte) in mutations {
            let at = index.index(payload.len());
            payload[at] = byte;
        }
        payload.truncate(cut.index(payload.len()) + 1);
        if let Ok(body) = classify(Some(PROTOBUF), &payload, &LIMITS) {
            prop_assert_eq!(body.bytes(), &*payload);
            prop_assert!(serde_json::to_string(&body.message()).is_ok());
        }
    }
}
