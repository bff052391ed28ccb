//! A message as it waits, and as it is shared between all sessions that it waits for.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use crate::codec::packet::{Publish, Qos};
use crate::journal::{Change, Entry, MessageRow, QueueRow};

/// A message on its way to one session.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    /// Shared between all receivers.
    pub(crate) publish: Arc<Publish>,
    /// When the message is not worth sending any more (MQTT 5.0 §3.3.2.3.3).
    pub(crate) expires_at: Option<Instant>,
    /// The lower one of published and subscribed.
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_identifiers: Vec<u32>,
    /// The shared subscription that it came by: filter with `$share/{name}/` before it.
    pub(crate) share: Option<Arc<str>>,
    /// Where it is at rest. If it is, `publish` is a compact copy that all its receivers share.
    pub(crate) stored: Option<Stored>,
}

/// Where a message is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    /// In the queue of the session.
    pub(crate) place: u64,
    /// The number of the message itself, which several queues may share.
    pub(crate) message: u64,
}

impl Queued {
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A publish that is about to be shared. Receivers that may keep it long get a copy of just its bytes, made once: the
/// original holds on to the whole buffer that it was read into.
#[derive(Debug)]
pub(crate) struct Shared {
    live: Arc<Publish>,
    compact: Option<Arc<Publish>>,
    /// When it is not worth sending any more.
    pub(crate) expires_at: Option<Instant>,
    /// Where rows for it go, if any are wanted.
    pub(crate) entry: Option<Entry>,
    /// Its number at rest.
    number: Option<u64>,
}

impl Shared {
    pub(crate) const fn new(live: Arc<Publish>, expires_at: Option<Instant>) -> Self {
        Self {
            live,
            compact: None,
            expires_at,
            entry: None,
            number: None,
        }
    }

    /// A message that may be at rest already.
    pub(crate) fn again(queued: Queued, entry: Option<Entry>) -> Self {
        Self {
            number: queued.stored.map(|at| at.message),
            compact: queued.stored.map(|_| Arc::clone(&queued.publish)),
            entry,
            ..Self::new(queued.publish, queued.expires_at)
        }
    }

    /// The number of the message at rest, if it is to be there.
    pub(crate) fn store(&mut self) -> Option<u64> {
        let entry = self.entry.as_mut()?;
        Some(*self.number.get_or_insert_with(|| {
            let number = entry.next_number();
            entry.push(Change::Message(MessageRow {
                number,
                publish: Arc::clone(&self.live),
                expires_at: self.expires_at,
            }));
            number
        }))
    }

    /// May it be at rest? What is there already takes no more room to speak of.
    pub(super) fn has_disk(&self) -> bool {
        self.number.is_some() || self.entry.as_ref().is_none_or(|entry| !entry.is_full())
    }

    /// Notes that a session's queue has it.
    pub(super) fn note(&mut self, session: u64, place: u64, queued: &mut Queued) {
        let Some(message) = self.store() else { return };
        let at = Stored { place, message };
        queued.stored = Some(at);
        if let Some(entry) = &mut self.entry {
            let row = QueueRow::waiting(session, at, queued);
            entry.push(Change::Queued(Box::new(row)));
        }
    }

    pub(crate) fn live(&self) -> &Arc<Publish> {
        &self.live
    }

    pub(crate) fn compact(&mut self) -> &Arc<Publish> {
        self.compact
            .get_or_insert_with(|| Arc::new(copy(&self.live)))
    }
}

/// What a message counts in bytes: its contents and what it takes to keep it.
pub(crate) fn size(publish: &Publish) -> usize {
    let properties = &publish.properties;
    let pairs: usize = properties
        .user_properties
        .iter()
        .map(|(name, value)| name.len() + value.len() + PAIR_BYTES)
        .sum();
    let optional = properties.response_topic.as_ref().map_or(0, |it| it.len())
        + properties
            .correlation_data
            .as_ref()
            .map_or(0, bytes::Bytes::len)
        + properties.content_type.as_ref().map_or(0, |it| it.len());
    size_of::<Publish>() + publish.topic.len() + publish.payload.len() + pairs + optional
}

/// The same publish in memory of its own.
pub(crate) fn copy(publish: &Publish) -> Publish {
    let text = |text: &ByteString| ByteString::from(&**text);
    let binary = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let mut copy = publish.clone();
    copy.topic = text(&publish.topic);
    copy.payload = binary(&publish.payload);
    let Some(properties) = copy.properties.as_mut() else {
        return copy;
    };
    properties.response_topic = properties.response_topic.as_ref().map(text);
    properties.correlation_data = properties.correlation_data.as_ref().map(binary);
    properties.content_type = properties.content_type.as_ref().map(text);
    for (name, value) in &mut properties.user_properties {
        *name = text(name);
        *value = text(value);
    }
    copy
}

/// Memory of a user property beside its text.
const PAIR_BYTES: usize = size_of::<(ByteString, ByteString)>();
