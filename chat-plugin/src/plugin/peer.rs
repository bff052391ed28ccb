//! One connection as the plugin keeps it, and the queue of its publishes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::codec::packet::Publish;
use broker::hooks::{PublishAnswer, Ticket};

use crate::delivery::reader::Reader;
use crate::domain::device::Device;
use crate::rate::Bucket;
use crate::service::Actor;

/// One connection.
pub(super) struct Peer {
    pub(super) actor: Actor,
    pub(super) reader: Arc<Reader>,
    /// The session outlives the connection: it may be, or become, a device.
    pub(super) persistent: bool,
    pub(super) limits: Limits,
    queue: Mutex<Queue>,
    pub(super) record: tokio::sync::Mutex<Record>,
}

/// The session as it is, or would be, at rest.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) device: Device,
    /// It is at rest: a device, not a guest.
    pub(super) stored: bool,
}

/// Rates of one connection.
pub(super) struct Limits {
    pub(super) device: Mutex<Bucket>,
    pub(super) user: Arc<Mutex<Bucket>>,
}

/// Publishes in the order of arrival. Bounded by the tickets that the broker gives a connection.
#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// A task takes from this queue.
    running: bool,
}

/// A publish that waits for its answer.
pub(super) struct Item {
    pub(super) publish: Publish,
    pub(super) ticket: Ticket<PublishAnswer>,
}

impl Peer {
    pub(super) fn new(
        actor: Actor,
        reader: Arc<Reader>,
        persistent: bool,
        limits: Limits,
        record: Record,
    ) -> Self {
        Self {
            actor,
            reader,
            persistent,
            limits,
            queue: Mutex::default(),
            record: tokio::sync::Mutex::new(record),
        }
    }

    /// Queues publishes. `true`: a task has to be started for them.
    pub(super) fn queue(&self, batch: Vec<(Publish, Ticket<PublishAnswer>)>) -> bool {
        let mut queue = self.lock();
        queue.items.extend(
            batch
                .into_iter()
                .map(|(publish, ticket)| Item { publish, ticket }),
        );
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
