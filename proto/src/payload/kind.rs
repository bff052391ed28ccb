//! Kinds of messages: an open set. Of the kinds that are known, what belongs to them is checked; others are the senders'
//! own, and only the bounds that hold for every message hold for them.

use std::collections::HashSet;

use super::mention::{MENTIONS_MAX, Mention};
use super::{Body, PayloadError};
use crate::ids::{MessageId, UserId};
use crate::quote::quoted;
use crate::schema::{ClientMessage, Contact, Location, Media, Poll};

/// Attachments of one message.
const MEDIA_MAX: usize = 64;
/// Bytes of the word that names a kind.
const KIND_BYTES_MAX: usize = 64;
/// Bytes of the name of a file, a place or a person.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a reference to something that was uploaded.
const REFERENCE_BYTES_MAX: usize = 128;
/// Bytes of a media type (RFC 6838 §4.2: twice 127 and the slash between).
const MIME_BYTES_MAX: usize = 255;
/// Bytes of a `BlurHash`: 9 by 9 components have 166.
const BLURHASH_BYTES_MAX: usize = 166;
/// Telephone numbers of a contact, and mail addresses.
const CONTACT_PARTS_MAX: usize = 16;
/// Bytes of one of them (RFC 5321 §4.5.3.1.3).
const CONTACT_BYTES_MAX: usize = 254;
/// Answers of a poll.
const OPTIONS_MIN: usize = 2;
const OPTIONS_MAX: usize = 12;
/// Bytes of one answer.
const OPTION_BYTES_MAX: usize = 256;

/// What may be chosen in a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollTerms {
    /// How many answers there are.
    pub options: usize,
    /// More than one may be chosen.
    pub multiple: bool,
    /// When it closes, in ms since 1970.
    pub closes: Option<u64>,
}

impl Body<'_> {
    /// What may be chosen, if this is a poll.
    pub fn poll(&self) -> Option<PollTerms> {
        let message = self.message().filter(|message| message.kind == "poll")?;
        let poll = message.poll.as_ref()?;
        Some(PollTerms {
            options: poll.options.len(),
            multiple: poll.multiple,
            closes: poll.closes,
        })
    }
}

impl Body<'_> {
    /// What people are shown of it beside its text: answers of a poll, names of files, places and persons, and how to reach these.
    pub fn names(&self) -> Vec<String> {
        let Some(message) = self.message() else {
            return Vec::new();
        };
        let mut names = Vec::new();
        names.extend(message.media.iter().map(|medium| medium.name.clone()));
        names.extend(message.location.iter().map(|place| place.name.clone()));
        if let Some(contact) = &message.contact {
            names.push(contact.name.clone());
            names.extend_from_slice(&contact.phones);
            names.extend_from_slice(&contact.emails);
        }
        if let Some(poll) = &message.poll {
            names.extend_from_slice(&poll.options);
        }
        names.retain(|name| !name.is_empty());
        names
    }
}

/// What the types of the schema do not say.
pub(super) fn check(message: &ClientMessage) -> Result<(), PayloadError> {
    if message.t.is_empty() {
        return Err(PayloadError::Empty);
    }
    if let Some(mid) = &message.mid
        && let Err(error) = mid.parse::<MessageId>()
    {
        return Err(bad("mid", &format!("{error}: {}", quoted(mid))));
    }
    at_most("mentions", message.mentions.len(), MENTIONS_MAX)?;
    at_most("media", message.media.len(), MEDIA_MAX)?;
    if let Some(word) = message
        .mentions
        .iter()
        .find(|word| Mention::parse(word).is_none())
    {
        let said = format!("not @handle, u.{{uid}} or @all: {}", quoted(word));
        return Err(bad("mentions", &said));
    }
    for medium in &message.media {
        check_medium(medium)?;
    }
    message.location.as_ref().map_or(Ok(()), check_location)?;
    message.contact.as_ref().map_or(Ok(()), check_contact)?;
    message.poll.as_ref().map_or(Ok(()), check_poll)?;
    check_kind(message)
}

/// Has a message of a kind that is known what belongs to it?
fn check_kind(message: &ClientMessage) -> Result<(), PayloadError> {
    let kind = message.kind.as_str();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if kind.len() > KIND_BYTES_MAX || !kind.bytes().all(known) {
        let said = format!("a word of at most {KIND_BYTES_MAX} characters of a-z, 0-9 and . _ -");
        return Err(bad("kind", &said));
    }
    let (field, is_there) = match kind {
        "image" => ("media", begins_with(message, "image/")),
        "video" => ("media", begins_with(message, "video/")),
        "voice" => ("media", begins_with(message, "audio/")),
        "file" => ("media", !message.media.is_empty()),
        "location" => ("location", message.location.is_some()),
        "contact" => ("contact", message.contact.is_some()),
        "poll" => ("poll", message.poll.is_some()),
        _ => return Ok(()),
    };
    if is_there {
        return Ok(());
    }
    Err(bad(
        field,
        &format!("a message of the kind {kind} needs it"),
    ))
}

/// Is the first attachment of this type, as far as it is told?
fn begins_with(message: &ClientMessage, of: &str) -> bool {
    let first = message.media.first();
    first.is_some_and(|medium| medium.mime.is_empty() || medium.mime.starts_with(of))
}

fn check_medium(medium: &Media) -> Result<(), PayloadError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:@-".contains(&byte);
    let is_reference = |id: &str| id.len() <= REFERENCE_BYTES_MAX && id.bytes().all(known);
    if medium.id.is_empty() || !is_reference(&medium.id) {
        return Err(bad(
            "media.id",
            "a reference of at most 128 characters is wanted",
        ));
    }
    if !is_reference(&medium.thumbnail) {
        return Err(bad(
            "media.thumbnail",
            "a reference of at most 128 characters is wanted",
        ));
    }
    if !is_mime(&medium.mime) {
        return Err(bad("media.mime", "a type as image/jpeg is wanted"));
    }
    check_name("media.name", &medium.name)?;
    if medium.name.contains(['/', '\\']) {
        return Err(bad("media.name", "a name without folders is wanted"));
    }
    let is_short = medium.blurhash.len() <= BLURHASH_BYTES_MAX;
    if !is_short || !medium.blurhash.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("media.blurhash", "not a BlurHash"));
    }
    let is_digest =
        medium.sha256.len() == 64 && medium.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !medium.sha256.is_empty() && !is_digest {
        return Err(bad("media.sha256", "64 hexadecimal digits are wanted"));
    }
    Ok(())
}

/// `type/subtype`, or nothing; parameters may follow.
fn is_mime(mime: &str) -> bool {
    let is_token = |text: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !text.is_empty() && text.bytes().all(known)
    };
    let essence = mime.split(';').next().unwrap_or_default().trim_end();
    let is_type = |(of, sub)| is_token(of) && is_token(sub);
    let is_visible = mime.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    mime.is_empty()
        || mime.len() <= MIME_BYTES_MAX
            && is_visible
            && essence.split_once('/').is_some_and(is_type)
}

fn check_location(place: &Location) -> Result<(), PayloadError> {
    // Not every number of protobuf is one of JSON.
    let is_on_earth = place.lat.abs() <= 90.0 && place.lon.abs() <= 180.0;
    if !is_on_earth || !place.accuracy.is_finite() || place.accuracy < 0.0 {
        return Err(bad("location", "no place on Earth"));
    }
    check_name("location.name", &place.name)
}

fn check_contact(contact: &Contact) -> Result<(), PayloadError> {
    check_name("contact.name", &contact.name)?;
    if contact.name.is_empty() {
        return Err(bad("contact.name", "a name is wanted"));
    }
    if !contact.uid.is_empty() && contact.uid.parse::<UserId>().is_err() {
        return Err(bad("contact.uid", "not a uid"));
    }
    for (field, parts) in [
        ("contact.phones", &contact.phones),
        ("contact.emails", &contact.emails),
    ] {
        at_most(field, parts.len(), CONTACT_PARTS_MAX)?;
        let is_bad = |part: &String| {
            part.is_empty() || part.len() > CONTACT_BYTES_MAX || part.contains(char::is_control)
        };
        if parts.iter().any(is_bad) {
            return Err(bad(field, "each has 1 to 254 bytes"));
        }
    }
    Ok(())
}

fn check_poll(poll: &Poll) -> Result<(), PayloadError> {
    at_most("poll.options", poll.options.len(), OPTIONS_MAX)?;
    if poll.options.len() < OPTIONS_MIN {
        return Err(bad("poll.options", "two or more are wanted"));
    }
    let is_bad = |option: &String| option.trim().is_empty() || option.len() > OPTION_BYTES_MAX;
    let different: HashSet<&String> = poll.options.iter().collect();
    if poll.options.iter().any(is_bad) || different.len() < poll.options.len() {
        return Err(bad(
            "poll.options",
            "different texts of 1 to 256 bytes are wanted",
        ));
    }
    Ok(())
}

/// A name for people, or none.
fn check_name(field: &'static str, name: &str) -> Result<(), PayloadError> {
    if name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let said = format!("at most {NAME_BYTES_MAX} bytes without controls are allowed");
        return Err(bad(field, &said));
    }
    Ok(())
}

fn at_most(field: &'static str, count: usize, max: usize) -> Result<(), PayloadError> {
    if count > max {
        return Err(PayloadError::TooMany { field, count, max });
    }
    Ok(())
}

fn bad(field: &str, said: &str) -> PayloadError {
    PayloadError::NotClientMessage(format!("field `{field}`: {said}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::payload::{JSON, PROTOBUF, PayloadLimits, classify};
    use prost::Message;

    /// What is said of a message, which must be the same in JSON and in protobuf.
    fn refusal(message: &Value) -> Option<String> {
        let limits = PayloadLimits::default();
        let said = |content_type, bytes: &[u8]| {
            let refused = classify(Some(content_type), bytes, &limits).err();
            refused.map(|error| error.to_string())
        };
        let in_json = said(JSON, message.to_string().as_bytes());
        let message: ClientMessage = serde_json::from_value(message.clone()).unwrap();
        assert_eq!(said(PROTOBUF, &message.encode_to_vec()), in_json.clone());
        in_json
    }

    #[test]
    fn what_is_shown_beside_the_text_is_the_same_in_both_forms() {
        let limits = PayloadLimits::default();
        let message = json!({"t": "x", "kind": "poll", "poll": {"options": ["one", "two"]},
            "media": [{"id": "m1", "name": "cat.png"}, {"id": "m2"}],
            "location": {"lat": 1, "lon": 2, "name": "there"},
            "contact": {"name": "Bob", "phones": ["+1"], "emails": ["b@example.org"]}});
        let expected = [
            "cat.png",
            "there",
            "Bob",
            "+1",
            "b@example.org",
            "one",
            "two",
        ];
        let names = |content_type, bytes: &[u8]| {
            let body = classify(Some(content_type), bytes, &limits);
            body.unwrap().names()
        };
        assert_eq!(names(JSON, message.to_string().as_bytes()), expected);
        let message: ClientMessage = serde_json::from_value(message).unwrap();
        assert_eq!(names(PROTOBUF, &message.encode_to_vec()), expected);
        assert!(names(crate::payload::TEXT, b"x").is_empty());
    }

    #[test]
    fn a_known_kind_has_what_belongs_to_it() {
        let picture = json!([{"id": "m1", "mime": "image/png; x=1", "name": "cat.png", "size": 7, "sha256": "0a".repeat(32)}]);
        for good in [
            json!({"t": "x"}),
            json!({"t": "x", "kind": "text"}),
            json!({"t": "x", "kind": "x-my.own_KIND", "anything": {"of": "it"}}),
            json!({"t": "x", "kind": "image", "media": picture}),
            json!({"t": "x", "kind": "image", "media": [{"id": "m1"}]}),
            json!({"t": "x", "kind": "file", "media": picture}),
            json!({"t": "x", "kind": "video", "media": [{"id": "m", "mime": "video/mp4", "thumbnail": "t"}]}),
            json!({"t": "x", "kind": "voice", "media": [{"id": "m", "mime": "audio/ogg", "duration_ms": 9}]}),
            json!({"t": "x", "kind": "location", "location": {"lat": 52.5, "lon": -13.4, "name": "there"}}),
            json!({"t": "x", "kind": "contact", "contact": {"name": "Bob", "phones": ["+49 30 1"]}}),
            json!({"t": "x", "kind": "poll", "poll": {"options": ["yes", "no"], "multiple": true}}),
        ] {
            assert_eq!(refusal(&good), None, "{good}");
        }
        for (field, bad) in [
            ("kind", json!({"t": "x", "kind": "a b"})),
            ("kind", json!({"t": "x", "kind": "x".repeat(65)})),
            ("media", json!({"t": "x", "kind": "image"})),
            (
                "media",
                json!({"t": "x", "kind": "voice", "media": picture}),
            ),
            ("media", json!({"t": "x", "kind": "file"})),
            ("location", json!({"t": "x", "kind": "location"})),
            ("contact", json!({"t": "x", "kind": "contact"})),
            ("poll", json!({"t": "x", "kind": "poll"})),
            ("media.id", json!({"t": "x", "media": [{"name": "x"}]})),
            (
                "media.id",
                json!({"t": "x", "kind": "x-own", "media": [{"id": "../x"}]}),
            ),
            (
                "media.thumbnail",
                json!({"t": "x", "media": [{"id": "m", "thumbnail": "a b"}]}),
            ),
            (
                "media.mime",
                json!({"t": "x", "media": [{"id": "m", "mime": "image"}]}),
            ),
            (
                "media.mime",
                json!({"t": "x", "media": [{"id": "m", "mime": "image/png\r\nX: y"}]}),
            ),
            (
                "media.name",
                json!({"t": "x", "media": [{"id": "m", "name": "../cat"}]}),
            ),
            (
                "media.name",
                json!({"t": "x", "media": [{"id": "m", "name": "a\nb"}]}),
            ),
            (
                "media.blurhash",
                json!({"t": "x", "media": [{"id": "m", "blurhash": "x".repeat(167)}]}),
            ),
            (
                "media.sha256",
                json!({"t": "x", "media": [{"id": "m", "sha256": "0a"}]}),
            ),
            ("location", json!({"t": "x", "location": {"lat": 91.0}})),
            (
                "location",
                json!({"t": "x", "location": {"accuracy": -1.0}}),
            ),
            (
                "location.name",
                json!({"t": "x", "location": {"name": "x".repeat(257)}}),
            ),
            ("contact.name", json!({"t": "x", "contact": {"uid": ""}})),
            (
                "contact.uid",
                json!({"t": "x", "contact": {"name": "x", "uid": "x"}}),
            ),
            (
                "contact.emails",
                json!({"t": "x", "contact": {"name": "x", "emails": [""]}}),
            ),
            (
                "contact.phones",
                json!({"t": "x", "contact": {"name": "x", "phones": vec!["1"; 17]}}),
            ),
            (
                "poll.options",
                json!({"t": "x", "poll": {"options": ["only"]}}),
            ),
            (
                "poll.options",
                json!({"t": "x", "poll": {"options": ["same", "same"]}}),
            ),
            (
                "poll.options",
                json!({"t": "x", "poll": {"options": ["", "x"]}}),
            ),
            (
                "poll.options",
                json!({"t": "x", "poll": {"options": (0..13).map(|n| n.to_string()).collect::<Vec<_>>()}}),
            ),
        ] {
            let said = refusal(&bad).unwrap_or_default();
            assert!(said.contains(&format!("field `{field}`")), "{bad}: {said}");
        }
    }

    #[test]
    fn a_poll_says_what_may_be_chosen() {
        let terms = |json: &Value| {
            let text = json.to_string();
            let limits = PayloadLimits::default();
            classify(Some(JSON), text.as_bytes(), &limits).map(|body| body.poll())
        };
        let poll = json!({"options": ["a", "b", "c"], "closes": 5});
        let asked = json!({"t": "?", "kind": "poll", "poll": poll});
        let expected = PollTerms {
            options: 3,
            multiple: false,
            closes: Some(5),
        };
        assert_eq!(terms(&asked), Ok(Some(expected)));
        assert_eq!(
            terms(&json!({"t": "?", "kind": "x-own", "poll": poll})),
            Ok(None)
        );
        assert_eq!(Body::Text("?").poll(), None);
    }
}
