//! Entries as they go out: each form is made once and shared between all receivers.

use std::sync::{Arc, OnceLock};

use broker::codec::packet::{Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::Bytes;
use bytestring::ByteString;
use proto::ids::Handle;
use proto::payload::{EntryBody, LogEntry, escape_line};
use proto::topics;
use serde::Deserialize;

use crate::domain::entry::{BodyFormat, Entry, EntryKind};
use crate::plugin::pair;

/// The forms of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON `LogEntry`.
    In,
    /// One line of text.
    Txt,
}

impl Form {
    /// The form that this server offers for a form of the protocol.
    pub fn of(form: topics::Form) -> Option<Self> {
        match form {
            topics::Form::In => Some(Self::In),
            topics::Form::Txt => Some(Self::Txt),
            topics::Form::Pb => None,
        }
    }

    pub(crate) fn slot(self) -> usize {
        match self {
            Self::In => 0,
            Self::Txt => 1,
        }
    }

    pub(crate) fn from_slot(slot: u8) -> Option<Self> {
        match slot {
            0 => Some(Self::In),
            1 => Some(Self::Txt),
            _ => None,
        }
    }
}

/// An entry with the name of its sender, and what has been made of it.
pub struct Line {
    /// The entry.
    pub entry: Arc<Entry>,
    handle: Option<Handle>,
    json: OnceLock<Arc<Publish>>,
    text: OnceLock<Option<Arc<Publish>>>,
}

impl Line {
    /// A line that nobody has asked for yet.
    pub fn new(entry: Arc<Entry>, handle: Option<Handle>) -> Self {
        Self {
            entry,
            handle,
            json: OnceLock::new(),
            text: OnceLock::new(),
        }
    }

    /// About how many bytes of memory it takes, with one form made of it.
    pub(crate) fn size(&self) -> usize {
        const OVERHEAD: usize = 1_024;
        OVERHEAD + 2 * self.entry.body.len()
    }

    /// The entry in a form of the inbox; `None`: this form does not show it.
    pub fn publish(&self, form: Form) -> Option<Arc<Publish>> {
        match form {
            Form::In => Some(self.json()),
            Form::Txt => self
                .text
                .get_or_init(|| self.make_text().map(Arc::new))
                .clone(),
        }
    }

    /// The entry as JSON, in the inbox.
    pub fn json(&self) -> Arc<Publish> {
        let make = || {
            let topic = topics::in_topic(self.entry.conversation);
            Arc::new(self.make(
                topic.into(),
                Bytes::from(self.to_json()),
                "application/json",
            ))
        };
        Arc::clone(self.json.get_or_init(make))
    }

    /// The entry as JSON, under the topic of a `…/log` subscription.
    pub fn log(&self, topic: &ByteString) -> Arc<Publish> {
        let inbox = self.json();
        Arc::new(Publish {
            topic: topic.clone(),
            ..(*inbox).clone()
        })
    }

    /// The plain `…/log` topic of the conversation.
    pub(crate) fn log_topic(&self) -> ByteString {
        topics::log_topic(self.entry.conversation, topics::LogStart::Live).into()
    }

    /// The entry as one line of JSON.
    pub fn to_json(&self) -> String {
        let entry = &*self.entry;
        let body = std::str::from_utf8(&entry.body).unwrap_or_default();
        let body = match (entry.kind, entry.format) {
            (EntryKind::Message, BodyFormat::Json) => EntryBody::Json(body),
            (EntryKind::Message, _) => EntryBody::Text(body),
            _ => EntryBody::System(body),
        };
        let entry = LogEntry {
            cid: entry.conversation,
            seq: entry.seq,
            mseq: entry.mseq,
            ts: entry.ts_ms,
            kind: entry.kind.name(),
            from: entry.from,
            handle: self.handle(),
            mid: &entry.mid,
            body,
        };
        entry.to_json()
    }

    fn handle(&self) -> &str {
        self.handle.as_ref().map_or("?", Handle::as_str)
    }

    fn make_text(&self) -> Option<Publish> {
        #[derive(Deserialize)]
        struct Shown {
            t: String,
        }
        if self.entry.kind != EntryKind::Message {
            return None;
        }
        let line = match self.entry.format {
            BodyFormat::Json => {
                let shown: Shown = serde_json::from_slice(&self.entry.body).ok()?;
                escape_line(self.handle(), &shown.t)
            }
            _ => escape_line(self.handle(), std::str::from_utf8(&self.entry.body).ok()?),
        };
        let topic = topics::txt_topic(self.entry.conversation);
        Some(self.make(topic.into(), Bytes::from(line), "text/plain"))
    }

    fn make(&self, topic: ByteString, payload: Bytes, content_type: &'static str) -> Publish {
        let entry = &*self.entry;
        let user_properties = vec![
            pair("cid", entry.conversation.to_string()),
            pair("seq", entry.seq.to_string()),
            pair("from", entry.from.to_string()),
            pair("mid", entry.mid.to_string()),
            pair("ts", entry.ts_ms.to_string()),
            pair("kind", entry.kind.name().to_owned()),
        ];
        Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic,
            packet_id: None,
            payload,
            properties: PublishProperties {
                payload_format_indicator: Some(true),
                content_type: Some(ByteString::from_static(content_type)),
                user_properties,
                ..PublishProperties::default()
            },
        }
    }
}
