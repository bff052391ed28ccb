//! Devices, with all that is theirs: deliveries, exchanges, shared subscriptions, private queues.

use async_trait::async_trait;
use proto::ids::{DeviceId, UserId};

use super::{Durability, Exchange, StoreError};
use crate::domain::device::{Device, Inflight, SharedSubscription};
use crate::domain::queue::{DeviceEvent, Queuing, ToDevice};

/// Devices, with all that is theirs: deliveries, exchanges, shared subscriptions, private queues.
#[async_trait]
pub trait DeviceStore: Send + Sync + 'static {
    /// One device.
    async fn device(&self, user: UserId, device: DeviceId) -> Result<Option<Device>, StoreError>;

    /// All devices of a user.
    async fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError>;

    /// Stores a device (and, if given, its unacknowledged deliveries, replacing the old ones).
    async fn put_device(
        &self,
        device: Device,
        inflight: Option<Vec<Inflight>>,
        durability: Durability,
    ) -> Result<(), StoreError>;

    /// Unacknowledged deliveries of a device, in order of the first sending; relaxed, they are removed by reading.
    async fn take_inflight(&self, device: DeviceId) -> Result<Vec<Inflight>, StoreError>;

    /// Removes a device with its cursors, in-flight references, QoS 2 exchanges and private queue.
    async fn remove_device(&self, user: UserId, device: DeviceId) -> Result<(), StoreError>;

    /// Stores a shared subscription, or that it is still held: one of at most `max` of its user. `false`: there are as many.
    async fn put_shared(&self, shared: SharedSubscription, max: usize) -> Result<bool, StoreError>;

    /// The shared subscriptions of a user.
    async fn shared(&self, user: UserId) -> Result<Vec<SharedSubscription>, StoreError>;

    /// Puts something into the private queue of a device, once for each message id of its sender. Durable.
    async fn queue_event(&self, sent: ToDevice) -> Result<Queuing, StoreError>;

    /// What waits in the queue of a device after `after`, ascending, and whether there is more: at most so many and so many
    /// bytes of data, but one; without what is over at `now_ms`.
    async fn device_events(
        &self,
        device: DeviceId,
        after: u64,
        size: (usize, usize),
        now_ms: u64,
    ) -> Result<(Vec<DeviceEvent>, bool), StoreError>;

    /// The device has these: they go. Relaxed, seen by reads when it returns.
    async fn end_device_events(&self, device: DeviceId, places: Vec<u64>)
    -> Result<(), StoreError>;

    /// Removes a shared subscription with its position.
    async fn remove_shared(&self, user: UserId, id: DeviceId) -> Result<(), StoreError>;

    /// What the QoS 2 exchange of a device under this packet identifier came to, if it has not ended.
    async fn exchange(
        &self,
        device: DeviceId,
        packet_id: u16,
    ) -> Result<Option<Exchange>, StoreError>;

    /// Ends all QoS 2 exchanges of a device: their rows are gone, durably.
    async fn end_exchanges(&self, device: DeviceId) -> Result<(), StoreError>;

    /// Ends a QoS 2 exchange: its row is gone, durably. Says whether there was one.
    async fn end_exchange(&self, device: DeviceId, packet_id: u16) -> Result<bool, StoreError>;
}
