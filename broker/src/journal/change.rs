//! What can change at rest. Rows refer to each other by number; `docs/storage.md` draws them.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use crate::codec::packet::{PacketId, Publish, Qos};
use crate::codec::topic::TopicFilter;
use crate::session::queue::{Queued, Stored};

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    /// A session begins, goes on, or is left.
    Session(Box<SessionRow>),
    /// A session is over, with everything that belongs to it.
    End(u64),
    /// The will of a session.
    Will(Box<WillRow>),
    /// A session has no will any more.
    NoWill(u64),
    /// A subscription, new or with other terms.
    Subscription(Box<SubscriptionRow>),
    /// The session with this number has no such subscription any more.
    Unsubscribed { session: u64, number: u64 },
    /// A message: kept while something refers to it.
    Message(MessageRow),
    /// A message comes into a queue.
    Queued(Box<QueueRow>),
    /// It has been sent, or released.
    Moved(Box<QueueRow>),
    /// It is done with.
    Settled { session: u64, at: Stored },
    /// The message is the retained one of its topic, by this user.
    Retained {
        number: u64,
        owner: Option<Arc<str>>,
    },
    /// It is not any more.
    Cleared(u64),
    /// A QoS 2 publish of this session was accepted.
    Received { session: u64, packet_id: PacketId },
    /// Its exchange is over.
    Released { session: u64, packet_id: PacketId },
}

/// Whose session it is and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRow {
    pub(crate) number: u64,
    pub(crate) user: Arc<str>,
    /// What rules call the user.
    pub(crate) name: Arc<str>,
    pub(crate) client_id: ByteString,
    /// Seconds; `u32::MAX`: for ever.
    pub(crate) expiry: u32,
    /// Since when the client is away; `None`: it is connected.
    pub(crate) away_since: Option<Instant>,
}

/// A will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WillRow {
    pub(crate) session: u64,
    /// When it is to be published; `None`: the client is connected.
    pub(crate) due: Option<Instant>,
    /// Seconds from the end of the connection.
    pub(crate) delay: u32,
    pub(crate) publish: Publish,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionRow {
    pub(crate) session: u64,
    pub(crate) number: u64,
    pub(crate) filter: TopicFilter,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageRow {
    pub(crate) number: u64,
    pub(crate) publish: Arc<Publish>,
    pub(crate) expires_at: Option<Instant>,
}

/// A message in the queue of one session, or in flight to its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub(crate) session: u64,
    pub(crate) at: Stored,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_identifiers: Vec<u32>,
    pub(crate) share: Option<Arc<str>>,
    /// Under which it was sent.
    pub(crate) packet_id: Option<PacketId>,
    /// PUBREC came: the message itself is not needed any more.
    pub(crate) released: bool,
}

impl QueueRow {
    /// The row of a message that waits.
    pub(crate) fn waiting(session: u64, at: Stored, queued: &Queued) -> Self {
        Self {
            session,
            at,
            qos: queued.qos,
            retain: queued.retain,
            subscription_identifiers: queued.subscription_identifiers.clone(),
            share: queued.share.clone(),
            packet_id: None,
            released: false,
        }
    }

    /// The row of a QoS 2 message after PUBREC.
    pub(crate) const fn released(session: u64, at: Stored, packet_id: PacketId) -> Self {
        Self {
            session,
            at,
            qos: Qos::ExactlyOnce,
            retain: false,
            subscription_identifiers: Vec::new(),
            share: None,
            packet_id: Some(packet_id),
            released: true,
        }
    }
}

impl Change {
    /// What it takes in a commit, about.
    pub(super) fn bytes(&self) -> usize {
        let more = match self {
            Self::Message(row) => crate::session::queue::size(&row.publish),
            Self::Will(row) => crate::session::queue::size(&row.publish),
            Self::Subscription(row) => row.filter.as_str().len(),
            _ => 0,
        };
        ROW_BYTES + more
    }
}

/// What a small row counts.
const ROW_BYTES: usize = 64;
