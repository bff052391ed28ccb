//! One connection as the plugin keeps it, and the queue of what it asks for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::codec::packet::{Publish, SubscribeFilter};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use broker::hooks::{PublishAnswer, Ticket};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::reader::Reader;
use crate::domain::device::Device;
use crate::rate::SharedBucket;
use crate::service::Actor;

/// One connection.
pub(super) struct Peer {
    pub(super) actor: Actor,
    /// A visitor of a support desk, who may do little.
    pub(super) is_visitor: bool,
    pub(super) reader: Arc<Reader>,
    pub(super) sessions: Sessions,
    /// What it takes from: see `rates`.
    pub(super) limits: Vec<SharedBucket>,
    queue: Mutex<Queue>,
    pub(super) record: tokio::sync::Mutex<Record>,
    /// What is being done for this connection: the next one of the same device waits for it.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the connection has been over for a while: what still waits for the content filter is given up.
    pub(super) late: CancellationToken,
    /// Cancelled when nothing is done any more and the record is on its way to the store.
    pub(super) departed: CancellationToken,
}

/// The session as it is, or would be, at rest.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) device: Device,
    /// It is at rest: a device, not a guest.
    pub(super) stored: bool,
}

/// What the session of a connection is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sessions {
    /// It outlives the connection: it may be, or become, a device.
    pub(super) persistent: bool,
    /// QoS 2 exchanges of it are, or may be, at rest.
    pub(super) exchanges: bool,
}

/// What a client asked for, in the order of arrival. Bounded by the tickets that the broker gives a connection.
#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// A task takes from this queue.
    running: bool,
}

/// Something that waits for its answer.
pub(super) enum Item {
    Publish(Publish, Ticket<PublishAnswer>),
    Subscribe(Vec<SubscribeFilter>, Option<u32>, Ticket<Vec<ReasonCode>>),
    Unsubscribe(Vec<TopicFilter>, Ticket<Vec<ReasonCode>>),
}

impl Peer {
    pub(super) fn new(
        (actor, is_visitor): (Actor, bool),
        reader: Arc<Reader>,
        sessions: Sessions,
        limits: Vec<SharedBucket>,
        record: Record,
    ) -> Self {
        Self {
            actor,
            is_visitor,
            reader,
            sessions,
            limits,
            queue: Mutex::default(),
            record: tokio::sync::Mutex::new(record),
            tasks: TaskTracker::new(),
            late: CancellationToken::new(),
            departed: CancellationToken::new(),
        }
    }

    /// Queues work. `true`: a task has to be started for it.
    pub(super) fn queue(&self, items: impl IntoIterator<Item = Item>) -> bool {
        let mut queue = self.lock();
        queue.items.extend(items);
        !std::mem::replace(&mut queue.running, true)
    }

    /// Takes everything that waits. Empty: the task ends, and the next publish starts another.
    pub(super) fn take(&self) -> VecDeque<Item> {
        let mut queue = self.lock();
        if queue.items.is_empty() {
            queue.running = false;
        }
        std::mem::take(&mut queue.items)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
