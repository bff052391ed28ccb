//! Entries and receipts as the server writes them in JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::ids::{ConversationId, MessageId, Seq, UserId};

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
    /// What it says.
    pub body: EntryBody<'a>,
    /// The edit whose body is shown.
    pub edited: Option<Edited>,
    /// How many users reacted, and with what: `"reactions":{"👍":{"n":2}}`.
    pub reactions: &'a [(Box<str>, u32)],
    /// With which of them the reader did: `"me":true`.
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
    /// Hidden for this user.
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
        let body_bytes = match self.body {
            EntryBody::Text(text) | EntryBody::Json(text) | EntryBody::System(text) => text.len(),
            EntryBody::Gone(_) => 0,
        };
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
        match self.body {
            EntryBody::Text(text) => {
                out.push_str(r#""format":"text","t":"#);
                push_json_string(&mut out, text);
            }
            EntryBody::Json(json) => {
                out.push_str(r#""format":"json","m":"#);
                push_one_line(&mut out, json);
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

    fn push_happened(&self, out: &mut String) {
        if let Some(Edited { seq, ts }) = self.edited {
            write!(out, r#","edited":{{"seq":{seq},"ts":{ts}}}"#)
                .expect("writing to a String cannot fail");
        }
        for (index, (emoji, count)) in self.reactions.iter().enumerate() {
            out.push_str(if index == 0 { r#","reactions":{"# } else { "," });
            push_json_string(out, emoji);
            write!(out, r#":{{"n":{count}"#).expect("writing to a String cannot fail");
            if self.mine.contains(emoji) {
                out.push_str(r#","me":true"#);
            }
            out.push('}');
        }
        if !self.reactions.is_empty() {
            out.push('}');
        }
        if self.pinned {
            out.push_str(r#","pinned":true"#);
        }
    }
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
    /// Why.
    pub reason: GoneReason,
}

impl Gap {
    /// `{"kind":"gap","cid":…,"from":…,"to":…,"reason":…}`.
    pub fn to_json(&self) -> String {
        let Self {
            cid,
            from,
            to,
            reason,
        } = self;
        let reason = reason.name();
        format!(r#"{{"kind":"gap","cid":"{cid}","from":{from},"to":{to},"reason":"{reason}"}}"#)
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
                r#""edited":{"seq":8,"ts":5},"reactions":{"👍":{"n":2,"me":true},"\"":{"n":1}},"pinned":true}"#
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
