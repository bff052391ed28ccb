//! Entries as the server writes them, in JSON and in protobuf, and receipts.

use std::borrow::Cow;
use std::fmt::Write;

use prost::Message;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Mentioned;
use crate::ids::{ConversationId, MessageId, Seq, UserId};
use crate::schema::{Change, ClientMessage};
use crate::wire::Wire;

/// One entry as JSON, in this order: `cid`, `seq`, `mseq`, `ts`, `kind`, `from`, `mid`, then what it refers to, `format`, and
/// the body, whose key tells its kind, at last what happened to it since. Always one line: line breaks between the tokens of a JSON body, the only bytes of it that change,
/// become blanks.
///
/// ```json
/// {"cid":"g.01…","seq":7,"mseq":5,"ts":1760000000000,"kind":"message","from":{"uid":"01…","handle":"bob"},"mid":"m-1","format":"text","t":"hello"}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// Of which conversation.
    pub cid: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// How many countable entries there are up to it.
    pub mseq: u64,
    /// When it was stored, in ms since 1970.
    pub ts: u64,
    /// What it is: `message`, `created`, `added` …
    pub kind: &'a str,
    /// Who wrote it or did it.
    pub from: UserId,
    /// The name of that user now.
    pub handle: &'a str,
    /// The sender's idempotency key.
    pub mid: &'a MessageId,
    /// Of a message: the one that it quotes.
    pub reply_to: Option<Seq>,
    /// Of an action: the message that it acts on.
    pub target: Option<Seq>,
    /// The message that began the thread.
    pub thread: Option<Seq>,
    /// From then on there is nothing to see any more, in ms since 1970.
    pub expires: Option<u64>,
    /// Whom it mentions: `"mentions":["@all","01…"]`.
    pub mentions: &'a Mentioned,
    /// What it says.
    pub body: EntryBody<'a>,
    /// The edit whose body is shown.
    pub edited: Option<Edited>,
    /// How many users reacted, and with what: `"reactions":[{"emoji":"👍","count":2}]`.
    pub reactions: &'a [(Box<str>, u32)],
    /// With which of them the reader did: `"mine":true`.
    pub mine: &'a [Box<str>],
    /// It is pinned.
    pub pinned: bool,
}

/// The latest edit of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// Its place.
    pub seq: Seq,
    /// Its time, in ms since 1970.
    pub ts: u64,
}

/// The body of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryBody<'a> {
    /// A text: `"format":"text","t":"…"`.
    Text(&'a str),
    /// A message in JSON, as the sender wrote it: `"format":"json","m":{…}`. It must be JSON.
    Json(&'a str),
    /// A message in protobuf, as the sender wrote it: in JSON `"format":"protobuf","m":{…}`, the fields that the schema
    /// knows. It must be a `ClientMessage`.
    Protobuf(&'a [u8]),
    /// What the server says of a change: `"format":"system","data":{…}`. It must be JSON.
    System(&'a str),
    /// Nothing more to be seen: `"format":"none","reason":"…"`, with the kind `gone`.
    Gone(GoneReason),
}

/// Why an entry has no body any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GoneReason {
    /// Deleted for everybody.
    Deleted,
    /// Its time was over.
    Expired,
    /// Not to be seen by this user: by his own wish, or as he had blocked its sender.
    Hidden,
    /// Not for this user to see.
    Unseen,
    /// Removed by those who run the server.
    Purged,
}

impl GoneReason {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Hidden => "hidden",
            Self::Unseen => "unseen",
            Self::Purged => "purged",
        }
    }
}

impl LogEntry<'_> {
    /// The entry as one line of JSON.
    pub fn to_json(&self) -> String {
        let body_bytes = self.body.len();
        let mut out = String::with_capacity(320 + body_bytes + body_bytes / 8);
        // Ids, kinds and handles have no character that JSON would escape.
        write!(
            out,
            r#"{{"cid":"{}","seq":{},"mseq":{},"ts":{},"kind":"{}","from":{{"uid":"{}","handle":"{}"}},"mid":"{}","#,
            self.cid, self.seq, self.mseq, self.ts, self.kind, self.from, self.handle, self.mid
        )
        .expect("writing to a String cannot fail");
        let places = [
            ("reply_to", self.reply_to.map(Seq::get)),
            ("target", self.target.map(Seq::get)),
            ("thread", self.thread.map(Seq::get)),
            ("expires", self.expires),
        ];
        for (name, number) in places {
            if let Some(number) = number {
                write!(out, r#""{name}":{number},"#).expect("writing to a String cannot fail");
            }
        }
        self.push_mentions(&mut out);
        match self.body {
            EntryBody::Text(text) => {
                out.push_str(r#""format":"text","t":"#);
                push_json_string(&mut out, text);
            }
            EntryBody::Json(json) => {
                out.push_str(r#""format":"json","m":"#);
                push_one_line(&mut out, json);
            }
            EntryBody::Protobuf(message) => {
                out.push_str(r#""format":"protobuf","m":"#);
                out.push_str(&json_of(message));
            }
            EntryBody::System(json) => {
                out.push_str(r#""format":"system","data":"#);
                push_one_line(&mut out, json);
            }
            EntryBody::Gone(reason) => {
                out.push_str(r#""format":"none","reason":""#);
                out.push_str(reason.name());
                out.push('"');
            }
        }
        self.push_happened(&mut out);
        out.push('}');
        out
    }

    fn push_mentions(&self, out: &mut String) {
        if self.mentions.is_empty() {
            return;
        }
        for (index, word) in self.mentions.words().enumerate() {
            out.push_str(if index == 0 { r#""mentions":["# } else { "," });
            write!(out, r#""{word}""#).expect("writing to a String cannot fail");
        }
        out.push_str("],");
    }

    fn write_happened(&self, out: &mut Wire) {
        let places = [(15, self.reply_to), (16, self.thread)];
        for (field, place) in places {
            out.number(field, place.map_or(0, Seq::get));
        }
        if let Some(Edited { seq, ts }) = self.edited {
            let mut edited = Wire::with_capacity(16);
            edited.number(1, seq.get());
            edited.number(2, ts);
            out.bytes(17, &edited.into_bytes());
        }
        for (emoji, count) in self.reactions {
            let mut reaction = Wire::with_capacity(16 + emoji.len());
            reaction.text(1, emoji);
            reaction.number(2, u64::from(*count));
            reaction.number(3, u64::from(self.mine.contains(emoji)));
            out.bytes(18, &reaction.into_bytes());
        }
        out.number(19, u64::from(self.pinned));
        out.number(20, self.expires.unwrap_or_default());
        out.number(21, self.target.map_or(0, Seq::get));
        for word in self.mentions.words() {
            out.text(22, &word);
        }
    }

    fn push_happened(&self, out: &mut String) {
        if let Some(Edited { seq, ts }) = self.edited {
            write!(out, r#","edited":{{"seq":{seq},"ts":{ts}}}"#)
                .expect("writing to a String cannot fail");
        }
        for (index, (emoji, count)) in self.reactions.iter().enumerate() {
            out.push_str(if index == 0 { r#","reactions":["# } else { "," });
            out.push_str(r#"{"emoji":"#);
            push_json_string(out, emoji);
            write!(out, r#","count":{count}"#).expect("writing to a String cannot fail");
            if self.mine.contains(emoji) {
                out.push_str(r#","mine":true"#);
            }
            out.push('}');
        }
        if !self.reactions.is_empty() {
            out.push(']');
        }
        if self.pinned {
            out.push_str(r#","pinned":true"#);
        }
    }

    /// The entry as a protobuf `LogEntry`. A body in protobuf is in it as the sender wrote it, unknown fields included; of
    /// a body in JSON the known fields, and beside them the text itself.
    pub fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Wire::with_capacity(192 + 2 * self.body.len());
        out.text(1, &self.cid.to_string());
        out.number(2, self.seq.get());
        out.number(3, self.mseq);
        out.number(4, self.ts);
        out.text(5, self.kind);
        let mut from = Wire::with_capacity(32 + self.handle.len());
        from.text(1, &self.from.to_string());
        from.text(2, self.handle);
        out.bytes(6, &from.into_bytes());
        out.text(7, self.mid.as_str());
        match self.body {
            EntryBody::Text(text) => {
                out.text(8, "text");
                out.text(9, text);
            }
            EntryBody::Json(json) => {
                out.text(8, "json");
                out.bytes(10, &protobuf_of::<ClientMessage>(json));
                out.text(11, json);
            }
            EntryBody::Protobuf(message) => {
                out.text(8, "protobuf");
                out.bytes(10, message);
            }
            EntryBody::System(json) => {
                out.text(8, "system");
                out.bytes(12, &protobuf_of::<Change>(json));
            }
            EntryBody::Gone(reason) => {
                out.text(8, "none");
                out.text(13, reason.name());
            }
        }
        self.write_happened(&mut out);
        out.into_bytes()
    }
}

impl<'a> EntryBody<'a> {
    /// The text that people see; `None`: there is nothing to be seen.
    pub fn shown(&self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Shown<'b> {
            #[serde(borrow)]
            t: Cow<'b, str>,
        }
        match *self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Json(json) => serde_json::from_str(json).ok().map(|Shown { t }| t),
            Self::Protobuf(message) => ClientMessage::decode(message)
                .ok()
                .map(|message| Cow::Owned(message.t)),
            Self::System(_) | Self::Gone(_) => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) | Self::System(text) => text.len(),
            Self::Protobuf(message) => message.len(),
            Self::Gone(_) => 0,
        }
    }
}

/// What the schema knows of a body in JSON; nothing, if it is none of its messages.
fn protobuf_of<T: Message + Default + for<'de> Deserialize<'de>>(json: &str) -> Vec<u8> {
    let message: T = serde_json::from_str(json).unwrap_or_default();
    message.encode_to_vec()
}

/// What the schema knows of a body in protobuf, as JSON; nothing, if it is no message.
pub fn json_of(message: &[u8]) -> String {
    let message = ClientMessage::decode(message).unwrap_or_default();
    serde_json::to_string(&message).unwrap_or_else(|_| "{}".to_owned())
}

/// As [`LogEntry::to_json`], inside of a larger JSON text. Fails if a body that must be JSON is not.
impl Serialize for LogEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_json())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// A run of entries that are not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of which conversation.
    pub cid: ConversationId,
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// Why: the name of a [`GoneReason`], or [`Gap::WINDOW`].
    pub reason: &'static str,
}

impl Gap {
    /// The reader wanted the newest entries only; the others are there.
    pub const WINDOW: &'static str = "window";

    /// A `LogEntry` of the kind `gap`: `{"cid":…,"kind":"gap","gap":{"from":…,"to":…,"reason":…}}`.
    pub fn to_json(&self) -> String {
        let Self { cid, from, to, .. } = self;
        let reason = self.reason;
        format!(
            r#"{{"cid":"{cid}","kind":"gap","gap":{{"from":{from},"to":{to},"reason":"{reason}"}}}}"#
        )
    }

    /// The same in protobuf.
    pub fn to_protobuf(&self) -> Vec<u8> {
        let mut gap = Wire::with_capacity(32);
        gap.number(1, self.from.get());
        gap.number(2, self.to.get());
        gap.text(3, self.reason);
        let mut out = Wire::with_capacity(80);
        out.text(1, &self.cid.to_string());
        out.text(5, "gap");
        out.bytes(14, &gap.into_bytes());
        out.into_bytes()
    }
}

/// What is published on `chat/me/rcpt/{cid}`: how far the others have got with what this user sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// In which conversation.
    pub cid: ConversationId,
    /// Every other member has been delivered everything up to here.
    pub delivered_all: Seq,
    /// Every other member has read everything up to here.
    pub read_all: Seq,
    /// Members whose watermarks moved since the last event, at most 256.
    #[serde(default)]
    pub moves: Vec<WatermarkMove>,
    /// Counts of single messages, where there are too many members to name, at most 5,000.
    #[serde(default)]
    pub counts: Vec<SenderCount>,
}

/// How far one member has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkMove {
    /// Who.
    pub u: UserId,
    /// Delivered up to here.
    pub d: Seq,
    /// Read up to here.
    pub r: Seq,
}

/// How many members have got one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderCount {
    /// Which message.
    pub seq: Seq,
    /// Delivered to so many.
    pub d: u32,
    /// Read by so many.
    pub r: u32,
}

fn push_json_string(out: &mut String, text: &str) {
    let quoted = serde_json::to_string(text).expect("a text is always a JSON string");
    out.push_str(&quoted);
}

/// A line break is never part of a token in JSON (inside of a string it is escaped), thus a blank means the same.
fn push_one_line(out: &mut String, json: &str) {
    let mut lines = json.split(['\n', '\r']);
    out.push_str(lines.next().unwrap_or_default());
    for line in lines {
        out.push(' ');
        out.push_str(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::ids::ConversationKind;
    use crate::schema;

    fn entry<'a>(mid: &'a MessageId, body: EntryBody<'a>) -> LogEntry<'a> {
        LogEntry {
            cid: ConversationId::from_parts(ConversationKind::Group, [0; 16]),
            seq: Seq::new(7),
            mseq: 5,
            ts: 1_760_000_000_000,
            kind: "message",
            from: UserId::from_bytes([0; 16]),
            handle: "bob",
            mid,
            reply_to: None,
            target: None,
            thread: None,
            expires: None,
            mentions: Box::leak(Box::default()),
            body,
            edited: None,
            reactions: &[],
            mine: &[],
            pinned: false,
        }
    }

    #[test]
    fn fields_come_in_the_documented_order() {
        let mid = "m-1".parse().unwrap();
        assert_eq!(
            entry(&mid, EntryBody::Text("a \"b\"\n")).to_json(),
            concat!(
                r#"{"cid":"g.00000000000000000000000000","seq":7,"mseq":5,"ts":1760000000000,"kind":"message","#,
                r#""from":{"uid":"00000000000000000000000000","handle":"bob"},"mid":"m-1","#,
                r#""format":"text","t":"a \"b\"\n"}"#
            )
        );
    }

    #[test]
    fn json_body_is_embedded_with_its_unknown_fields() {
        let mid = "m-1".parse().unwrap();
        let body = "{\"t\":\"hi\",\r\n \"ext\":\n[1, 2.50]}";
        let json = entry(&mid, EntryBody::Json(body)).to_json();
        assert!(
            json.ends_with(r#""format":"json","m":{"t":"hi",   "ext": [1, 2.50]}}"#),
            "{json}"
        );
        assert_eq!(
            serde_json::to_string(&entry(&mid, EntryBody::Json(body))).unwrap(),
            json
        );
        assert!(serde_json::to_string(&entry(&mid, EntryBody::Json("{"))).is_err());
    }

    fn bodies<'a>(message: &'a [u8], json: &'a str) -> [EntryBody<'a>; 5] {
        let change = r#"{"title":"a","history":{"last":3},"members":[{"uid":"u","role":"owner"}]}"#;
        [
            EntryBody::Text("hello\n"),
            EntryBody::Json(json),
            EntryBody::Protobuf(message),
            EntryBody::System(change),
            EntryBody::Gone(GoneReason::Expired),
        ]
    }

    #[test]
    fn an_entry_is_the_same_in_json_and_in_protobuf() {
        let mid = "m-1".parse().unwrap();
        let json = r#"{"t":"hi","kind":"image","media":[{"id":"x","w":3}],"opaque":"AAE="}"#;
        let message: ClientMessage = serde_json::from_str(json).unwrap();
        let reactions = [("👍".into(), 2), ("a".into(), 1)];
        let mine = ["a".into()];
        for body in bodies(&message.encode_to_vec(), json) {
            let entry = LogEntry {
                reply_to: Some(Seq::new(3)),
                target: Some(Seq::new(4)),
                thread: Some(Seq::new(2)),
                expires: Some(9),
                edited: Some(Edited {
                    seq: Seq::new(8),
                    ts: 5,
                }),
                reactions: &reactions,
                mine: &mine,
                pinned: true,
                ..entry(&mid, body)
            };
            let from_json: schema::LogEntry = serde_json::from_str(&entry.to_json()).unwrap();
            let mut from_protobuf = schema::LogEntry::decode(&*entry.to_protobuf()).unwrap();
            let verbatim = std::mem::take(&mut from_protobuf.json);
            assert_eq!(from_protobuf, from_json);
            let is_json = matches!(body, EntryBody::Json(_));
            assert_eq!(verbatim, if is_json { json } else { "" });
            let value: Value = serde_json::from_str(&entry.to_json()).unwrap();
            assert_eq!(
                serde_json::to_value(&from_json).unwrap(),
                value,
                "no key is lost"
            );
        }
    }

    #[test]
    fn a_gap_is_the_same_in_json_and_in_protobuf() {
        let gap = Gap {
            cid: ConversationId::from_parts(ConversationKind::Group, [0; 16]),
            from: Seq::new(3),
            to: Seq::new(5),
            reason: GoneReason::Deleted.name(),
        };
        let from_json: schema::LogEntry = serde_json::from_str(&gap.to_json()).unwrap();
        let from_protobuf = schema::LogEntry::decode(&*gap.to_protobuf()).unwrap();
        assert_eq!(from_json, from_protobuf);
        assert_eq!(from_json.kind, "gap");
        assert_eq!(from_json.gap.unwrap().to, 5);
    }

    #[test]
    fn people_see_the_text() {
        let json = r#"{"x":1,"t":"a\u0021\n","kind":"image"}"#;
        let message = b"\x0a\x02b!";
        let shown = bodies(message, json).map(|body| body.shown());
        let shown = shown.each_ref().map(Option::as_deref);
        assert_eq!(
            shown,
            [Some("hello\n"), Some("a!\n"), Some("b!"), None, None]
        );
    }

    #[test]
    fn unknown_fields_of_a_body_survive_in_its_own_form() {
        let mid = "m-1".parse().unwrap();
        let mut message = b"\x0a\x02hi".to_vec();
        message.extend(b"\xa2\x3f\x03new"); // field 1012
        let in_protobuf = entry(&mid, EntryBody::Protobuf(&message)).to_protobuf();
        assert!(
            in_protobuf
                .windows(message.len())
                .any(|part| part == message)
        );
        let json = r#"{"t":"hi","ext":[1,2.50]}"#;
        let in_protobuf = entry(&mid, EntryBody::Json(json)).to_protobuf();
        let decoded = schema::LogEntry::decode(&*in_protobuf).unwrap();
        assert_eq!(
            (decoded.m.unwrap().t.as_str(), decoded.json.as_str()),
            ("hi", json)
        );
    }

    #[test]
    fn what_it_refers_to_comes_before_the_body_and_what_happened_behind() {
        let mid = "m-1".parse().unwrap();
        let reactions = [("👍".into(), 2), ("\"".into(), 1)];
        let mine = ["👍".into()];
        let json = LogEntry {
            reply_to: Some(Seq::new(3)),
            thread: Some(Seq::new(2)),
            expires: Some(9),
            edited: Some(Edited {
                seq: Seq::new(8),
                ts: 5,
            }),
            reactions: &reactions,
            mine: &mine,
            pinned: true,
            ..entry(&mid, EntryBody::Text("a"))
        }
        .to_json();
        assert!(
            json.ends_with(concat!(
                r#""mid":"m-1","reply_to":3,"thread":2,"expires":9,"format":"text","t":"a","#,
                r#""edited":{"seq":8,"ts":5},"reactions":[{"emoji":"👍","count":2,"mine":true},{"emoji":"\"","count":1}],"pinned":true}"#
            )),
            "{json}"
        );
        let _: Value = serde_json::from_str(&json).unwrap();
    }

    #[test]
    fn gone_entry_says_why() {
        let mid = "m-1".parse().unwrap();
        let json = entry(&mid, EntryBody::Gone(GoneReason::Deleted)).to_json();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["reason"], json!("deleted"));
        assert_eq!(value["format"], json!("none"));
    }

    #[test]
    fn receipts_are_short() {
        let receipts = Receipts {
            cid: ConversationId::from_parts(ConversationKind::Direct, [0; 16]),
            delivered_all: Seq::new(2),
            read_all: Seq::new(1),
            moves: vec![WatermarkMove {
                u: UserId::from_bytes([0; 16]),
                d: Seq::new(2),
                r: Seq::new(1),
            }],
            counts: vec![],
        };
        let json = serde_json::to_string(&receipts).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"cid":"d.00000000000000000000000000","delivered_all":2,"read_all":1,"#,
                r#""moves":[{"u":"00000000000000000000000000","d":2,"r":1}],"counts":[]}"#
            )
        );
        assert_eq!(serde_json::from_str::<Receipts>(&json).unwrap(), receipts);
        let in_schema: schema::Receipts = serde_json::from_str(&json).unwrap();
        assert_eq!((in_schema.read_all, in_schema.moves[0].d), (1, 2));
    }

    proptest! {
        #[test]
        fn every_text_is_one_line_of_json(text: String) {
            let mid = "m-1".parse().unwrap();
            let line = entry(&mid, EntryBody::Text(&text)).to_json();
            prop_assert!(!line.contains(['\n', '\r']));
            let value: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(value["t"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn every_text_survives_protobuf(text in "(?s).{0,300}", mseq: u64) {
            let mid = "m-1".parse().unwrap();
            let entry = LogEntry { mseq, ..entry(&mid, EntryBody::Text(&text)) };
            let decoded = schema::LogEntry::decode(&*entry.to_protobuf()).unwrap();
            prop_assert_eq!((decoded.t, decoded.mseq), (text, mseq));
        }

        #[test]
        fn every_json_body_is_one_line(key: String, text: String) {
            let mid = "m-1".parse().unwrap();
            let body = serde_json::to_string_pretty(&json!({"t": text, "x": {key: [1, 2]}})).unwrap();
            let line = entry(&mid, EntryBody::Json(&body)).to_json();
            prop_assert!(!line.contains(['\n', '\r']));
            let value: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&value["m"], &serde_json::from_str::<Value>(&body).unwrap());
        }
    }
}
