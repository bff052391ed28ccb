//! The private queue of a device: what other devices send to it alone, such as keys of end-to-end encryption.

use bytes::Bytes;
use proto::ids::{DeviceId, MessageId, UserId};

/// One piece of the queue of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    /// Its place: 1, 2, 3 … for each device.
    pub dseq: u64,
    /// Who sent it.
    pub from: UserId,
    /// From which device or connection.
    pub device: DeviceId,
    /// When it was stored, in ms since 1970.
    pub ts_ms: u64,
    /// From then on it is gone, in ms since 1970.
    pub expires_ms: u64,
    /// What it is, in a word of the clients.
    pub kind: String,
    /// Not for the server to read.
    pub data: Bytes,
}

/// Something for the queue of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToDevice {
    /// Whose device.
    pub user: UserId,
    /// Which.
    pub to: DeviceId,
    /// The sender's key of idempotency.
    pub mid: MessageId,
    /// Digest of the request.
    pub digest: [u8; 16],
    /// What is sent; the store gives it its place.
    pub event: DeviceEvent,
    /// How much of it there may be.
    pub limits: QueueLimits,
}

/// Bounds of the queue of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Events that wait.
    pub events: usize,
    /// Those of one sender.
    pub events_of_sender: usize,
    /// Bytes of their data.
    pub bytes: usize,
}

/// What became of something for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queuing {
    /// It has this place.
    Queued(u64),
    /// The same was queued before.
    Duplicate,
    /// Something else was, under this key of idempotency.
    Conflict,
    /// There is no such device, or it has no queue.
    NoQueue,
    /// There is no room.
    Full,
}
