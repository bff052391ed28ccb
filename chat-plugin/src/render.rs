//! Entries as they go out: each form is made once and shared between all receivers.

use std::sync::{Arc, OnceLock};

use broker::codec::packet::{Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::Bytes;
use bytestring::ByteString;
use proto::ids::Handle;
use proto::payload::{self, EntryBody, LogEntry, escape_line};
use proto::topics::{self, Form};

use crate::domain::entry::{BodyFormat, Entry, EntryKind};
use crate::plugin::pair;

/// An entry with the name of its sender, and what has been made of it.
pub struct Line {
    /// The entry.
    pub entry: Arc<Entry>,
    handle: Option<Handle>,
    json: OnceLock<Arc<Publish>>,
    text: OnceLock<Option<Arc<Publish>>>,
    protobuf: OnceLock<Arc<Publish>>,
}

impl Line {
    /// A line that nobody has asked for yet.
    pub fn new(entry: Arc<Entry>, handle: Option<Handle>) -> Self {
        Self {
            entry,
            handle,
            json: OnceLock::new(),
            text: OnceLock::new(),
            protobuf: OnceLock::new(),
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
            Form::Pb => Some(Arc::clone(
                self.protobuf.get_or_init(|| Arc::new(self.make_protobuf())),
            )),
        }
    }

    /// The entry as JSON, in the inbox.
    pub fn json(&self) -> Arc<Publish> {
        let make = || {
            let topic = topics::in_topic(self.entry.conversation);
            Arc::new(self.make(topic.into(), Bytes::from(self.to_json()), payload::JSON))
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
        self.log_entry().to_json()
    }

    /// The entry as a protobuf `LogEntry`.
    pub fn to_protobuf(&self) -> Vec<u8> {
        self.log_entry().to_protobuf()
    }

    fn log_entry(&self) -> LogEntry<'_> {
        let entry = &*self.entry;
        let text = || std::str::from_utf8(&entry.body).unwrap_or_default();
        let body = match (entry.kind, entry.format) {
            (EntryKind::Message, BodyFormat::Text) => EntryBody::Text(text()),
            (EntryKind::Message, BodyFormat::Json) => EntryBody::Json(text()),
            (EntryKind::Message, BodyFormat::Protobuf) => EntryBody::Protobuf(&entry.body),
            _ => EntryBody::System(text()),
        };
        LogEntry {
            cid: entry.conversation,
            seq: entry.seq,
            mseq: entry.mseq,
            ts: entry.ts_ms,
            kind: entry.kind.name(),
            from: entry.from,
            handle: self.handle(),
            mid: &entry.mid,
            body,
        }
    }

    fn handle(&self) -> &str {
        self.handle.as_ref().map_or("?", Handle::as_str)
    }

    fn make_text(&self) -> Option<Publish> {
        let line = escape_line(self.handle(), &self.log_entry().body.shown()?);
        let topic = topics::txt_topic(self.entry.conversation);
        Some(self.make(topic.into(), Bytes::from(line), payload::TEXT))
    }

    fn make_protobuf(&self) -> Publish {
        let topic = topics::pb_topic(self.entry.conversation);
        let payload = Bytes::from(self.to_protobuf());
        self.make(topic.into(), payload, payload::PROTOBUF)
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
                payload_format_indicator: (content_type != payload::PROTOBUF).then_some(true),
                content_type: Some(ByteString::from_static(content_type)),
                user_properties,
                ..PublishProperties::default()
            },
        }
    }
}
