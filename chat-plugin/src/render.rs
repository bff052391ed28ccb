//! Entries as they go out: each form is made once and shared between all receivers.

use std::sync::{Arc, OnceLock};

use broker::codec::packet::{Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::Bytes;
use bytestring::ByteString;
use proto::ids::Handle;
use proto::payload::{self, Edited, EntryBody, Gap, LogEntry, escape_line};
use proto::schema::{self, Message as _};
use proto::topics::{self, Form};

use crate::domain::entry::{BodyFormat, Entry, EntryKind};
use crate::domain::queue::DeviceEvent;
use crate::plugin::{json_publish, pair, server_publish};

/// An entry with the name of its sender, and what has been made of it.
pub struct Line {
    /// The entry.
    pub entry: Arc<Entry>,
    handle: Option<Handle>,
    json: OnceLock<Arc<Publish>>,
    text: OnceLock<Option<Arc<Publish>>>,
    protobuf: OnceLock<Arc<Publish>>,
    log: OnceLock<Arc<Publish>>,
}

/// A run of entries that are left out, in a form of the inbox; `None`: this form does not show it.
pub(crate) fn gap(gap: &Gap, form: Form) -> Option<Publish> {
    let topic = form.topic(gap.cid);
    let mut publish = match form {
        Form::In => server_publish(&topic, gap.to_json().into_bytes(), payload::JSON),
        Form::Txt => return None,
        Form::Pb => server_publish(&topic, gap.to_protobuf(), payload::PROTOBUF),
    };
    publish.properties.user_properties = vec![
        pair("cid", gap.cid.to_string()),
        pair("kind", "gap".to_owned()),
    ];
    Some(publish)
}

/// An event of the private queue of a device, as it goes out.
pub(crate) fn event(
    event: &DeviceEvent,
    handle: Option<&Handle>,
    protobuf: bool,
    now_ms: u64,
) -> Publish {
    let message = schema::DeviceEvent {
        dseq: event.dseq,
        ts: event.ts_ms,
        kind: event.kind.clone(),
        from: Some(schema::User {
            uid: event.from.to_string(),
            handle: handle.map_or_else(String::new, Handle::to_string),
            name: String::new(),
        }),
        device: event.device.to_string(),
        data: event.data.clone(),
    };
    let mut publish = if protobuf {
        server_publish(
            topics::DEVICE_TOPIC,
            message.encode_to_vec(),
            payload::PROTOBUF,
        )
    } else {
        json_publish(topics::DEVICE_TOPIC, &message)
    };
    let left_s = event.expires_ms.saturating_sub(now_ms).div_ceil(1_000);
    publish.properties.message_expiry_interval =
        Some(u32::try_from(left_s.max(1)).unwrap_or(u32::MAX));
    publish
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
            log: OnceLock::new(),
        }
    }

    /// About how many bytes of memory it takes, with one form made of it.
    pub(crate) fn size(&self) -> usize {
        const OVERHEAD: usize = 1_024;
        OVERHEAD + 2 * self.entry.body.len()
    }

    /// The line as it is to be seen at this time: gone, if the time of the entry is over.
    #[must_use]
    pub fn present(self: Arc<Self>, now_ms: u64) -> Arc<Self> {
        if self.entry.gone.is_some() {
            return self;
        }
        let Some(reason) = self.entry.gone_at(now_ms) else {
            return self;
        };
        let mut entry = Entry::clone(&self.entry);
        entry.make_gone(reason);
        Arc::new(Self::new(Arc::new(entry), self.handle.clone()))
    }

    /// The entry in a form of the inbox; `None`: this form does not show it.
    pub fn publish(&self, form: Form) -> Option<Arc<Publish>> {
        match form {
            Form::In => Some(self.json()),
            Form::Txt => self
                .text
                .get_or_init(|| self.make_text().map(Arc::new))
                .clone()
                .map(|publish| self.expiring(publish)),
            Form::Pb => {
                let make = || Arc::new(self.make_protobuf());
                Some(self.expiring(Arc::clone(self.protobuf.get_or_init(make))))
            }
        }
    }

    /// As [`Line::publish`], for a delivery that has a packet identifier already: what the form does not show any more is
    /// empty there.
    pub fn publish_again(&self, form: Form) -> Arc<Publish> {
        self.publish(form).unwrap_or_else(|| {
            let topic = topics::txt_topic(self.entry.conversation);
            Arc::new(self.make(topic.into(), Bytes::new(), payload::TEXT))
        })
    }

    /// The message with the time that it has left (MQTT 5.0 §3.3.2.3.3).
    fn expiring(&self, message: Arc<Publish>) -> Arc<Publish> {
        let Some(at_ms) = self.entry.expires_ms.filter(|_| self.entry.gone.is_none()) else {
            return message;
        };
        let left_s = at_ms.saturating_sub(crate::clock::now_ms()).div_ceil(1_000);
        let mut message = Arc::unwrap_or_clone(message);
        message.properties.message_expiry_interval =
            Some(u32::try_from(left_s.max(1)).unwrap_or(u32::MAX));
        Arc::new(message)
    }

    /// The entry as JSON, in the inbox.
    pub fn json(&self) -> Arc<Publish> {
        let make = || {
            let topic = topics::in_topic(self.entry.conversation);
            let payload = Bytes::from(self.to_json(&[]));
            Arc::new(self.make(topic.into(), payload, payload::JSON))
        };
        self.expiring(Arc::clone(self.json.get_or_init(make)))
    }

    /// The entry as JSON, under the topic of a `…/log` subscription. The first topic that is asked for is that of most: its
    /// message is made once.
    pub fn log(&self, topic: &ByteString) -> Arc<Publish> {
        let make = || {
            let inbox = self.json();
            Arc::new(Publish {
                topic: topic.clone(),
                ..(*inbox).clone()
            })
        };
        if self.entry.expires_ms.is_some() {
            return make(); // with the time that it has left
        }
        let shared = self.log.get_or_init(make);
        if shared.topic == *topic {
            Arc::clone(shared)
        } else {
            make()
        }
    }

    /// The plain `…/log` topic of the conversation.
    pub(crate) fn log_topic(&self) -> ByteString {
        topics::log_topic(self.entry.conversation, topics::LogStart::Live).into()
    }

    /// The entry as one line of JSON, with the reactions of its reader marked.
    pub fn to_json(&self, mine: &[Box<str>]) -> String {
        self.log_entry(mine).to_json()
    }

    /// The entry as a protobuf `LogEntry`, with the reactions of its reader marked.
    pub fn to_protobuf(&self, mine: &[Box<str>]) -> Vec<u8> {
        self.log_entry(mine).to_protobuf()
    }

    fn log_entry<'a>(&'a self, mine: &'a [Box<str>]) -> LogEntry<'a> {
        let entry = &*self.entry;
        let text = || std::str::from_utf8(&entry.body).unwrap_or_default();
        let body = match (entry.gone, entry.format) {
            (Some(reason), _) => EntryBody::Gone(reason),
            (None, _) if !entry.kind.is_written() => EntryBody::System(text()),
            (None, BodyFormat::Text) => EntryBody::Text(text()),
            (None, BodyFormat::Json) => EntryBody::Json(text()),
            (None, BodyFormat::Protobuf) => EntryBody::Protobuf(&entry.body),
        };
        let overlay = entry.overlay.as_deref();
        let is_message = entry.kind == EntryKind::Message;
        LogEntry {
            cid: entry.conversation,
            seq: entry.seq,
            mseq: entry.mseq,
            ts: entry.ts_ms,
            kind: self.kind(),
            from: entry.from,
            handle: self.handle(),
            mid: &entry.mid,
            reply_to: entry.target.filter(|_| is_message),
            target: entry.target.filter(|_| !is_message),
            thread: entry.thread,
            expires: entry.expires_ms,
            mentions: &entry.mentions,
            body,
            edited: overlay.and_then(|overlay| {
                Some(Edited {
                    seq: *overlay.edits.last()?,
                    ts: overlay.edited_ms,
                })
            }),
            reactions: overlay.map_or(&[], |overlay| &overlay.reactions),
            mine,
            pinned: overlay.is_some_and(|overlay| overlay.pinned),
        }
    }

    fn kind(&self) -> &'static str {
        if self.entry.gone.is_some() {
            return "gone";
        }
        self.entry.kind.name()
    }

    fn handle(&self) -> &str {
        self.handle.as_ref().map_or("?", Handle::as_str)
    }

    fn make_text(&self) -> Option<Publish> {
        let shown = self.log_entry(&[]).body.shown()?;
        let line = match self.entry.kind {
            EntryKind::Edit => escape_line(self.handle(), &format!("* {shown}")),
            _ => escape_line(self.handle(), &shown),
        };
        let topic = topics::txt_topic(self.entry.conversation);
        Some(self.make(topic.into(), Bytes::from(line), payload::TEXT))
    }

    fn make_protobuf(&self) -> Publish {
        let topic = topics::pb_topic(self.entry.conversation);
        let payload = Bytes::from(self.to_protobuf(&[]));
        self.make(topic.into(), payload, payload::PROTOBUF)
    }

    fn make(&self, topic: ByteString, payload: Bytes, content_type: &'static str) -> Publish {
        let entry = &*self.entry;
        let mut user_properties = vec![
            pair("cid", entry.conversation.to_string()),
            pair("seq", entry.seq.to_string()),
            pair("from", entry.from.to_string()),
            pair("mid", entry.mid.to_string()),
            pair("ts", entry.ts_ms.to_string()),
            pair("kind", self.kind().to_owned()),
        ];
        let target = match entry.kind {
            EntryKind::Message => "reply_to",
            _ => "target",
        };
        user_properties.extend(entry.target.map(|seq| pair(target, seq.to_string())));
        user_properties.extend(entry.thread.map(|seq| pair("thread", seq.to_string())));
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
            }
            .into(),
        }
    }
}
