//! [`DeviceStore`] of the embedded store.

use async_trait::async_trait;
use broker::store::kv::KvEngine;
use proto::ids::{DeviceId, UserId};

use super::super::queue::Job;
use super::super::reads::{bad_key, visit_user};
use super::super::{EmbeddedStore, keys, reads, values};
use crate::domain::device::{Device, Inflight, SharedSubscription};
use crate::domain::queue::{DeviceEvent, Queuing, ToDevice};
use crate::store::{DeviceStore, Durability, Exchange, Place, StoreError, tables};

#[async_trait]
impl<K: KvEngine> DeviceStore for EmbeddedStore<K> {
    async fn device(&self, user: UserId, device: DeviceId) -> Result<Option<Device>, StoreError> {
        self.read_row(tables::DEVICE, keys::device(user, device), move |row| {
            values::read_device(user, device, row)
        })
        .await
    }

    async fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError> {
        self.read(move |engine, _| {
            let mut devices = Vec::new();
            visit_user(engine, tables::DEVICE, user, |rest, row| {
                let id: [u8; 16] = rest.try_into().map_err(|_| bad_key(tables::DEVICE))?;
                devices.push(values::read_device(user, DeviceId::from_bytes(id), row)?);
                Ok(())
            })?;
            Ok(devices)
        })
        .await
    }

    async fn put_device(
        &self,
        device: Device,
        inflight: Option<Vec<Inflight>>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        if let Err(full) = self.shared.condition.may_grow()
            && self.device(device.user, device.id).await?.is_none()
        {
            return Err(full.into());
        }
        self.ask(|reply| Job::PutDevice(Box::new(device), inflight, durability, reply))
            .await
    }

    async fn take_inflight(&self, device: DeviceId) -> Result<Vec<Inflight>, StoreError> {
        self.ask(|reply| Job::TakeInflight(device, reply)).await
    }

    async fn remove_device(&self, user: UserId, device: DeviceId) -> Result<(), StoreError> {
        self.ask(|reply| Job::RemoveDevice(user, device, reply))
            .await
    }

    async fn put_shared(&self, shared: SharedSubscription, max: usize) -> Result<bool, StoreError> {
        if let Err(full) = self.shared.condition.may_grow() {
            let key = keys::device(shared.user, shared.id);
            let known = self.read_row(tables::SHARED, key, |_| Ok(()));
            known.await?.ok_or(full)?;
        }
        self.ask(|reply| Job::PutShared(Box::new(shared), max, reply))
            .await
    }

    async fn queue_event(&self, sent: ToDevice) -> Result<Queuing, StoreError> {
        self.ask_to_write(|reply| Job::QueueEvent(Box::new(sent), reply))
            .await
    }

    async fn device_events(
        &self,
        device: DeviceId,
        after: u64,
        size: (usize, usize),
        now_ms: u64,
    ) -> Result<(Vec<DeviceEvent>, bool), StoreError> {
        self.read(move |engine, _| reads::device_events(engine, device, after, size, now_ms))
            .await
    }

    async fn end_device_events(
        &self,
        device: DeviceId,
        places: Vec<u64>,
    ) -> Result<(), StoreError> {
        self.ask(|reply| Job::EndDeviceEvents(device, places, reply))
            .await
    }

    async fn shared(&self, user: UserId) -> Result<Vec<SharedSubscription>, StoreError> {
        self.read(move |engine, _| {
            let mut shared = Vec::new();
            visit_user(engine, tables::SHARED, user, |rest, row| {
                let id: [u8; 16] = rest.try_into().map_err(|_| bad_key(tables::SHARED))?;
                shared.push(values::devices::read_shared(
                    user,
                    DeviceId::from_bytes(id),
                    row,
                )?);
                Ok(())
            })?;
            Ok(shared)
        })
        .await
    }

    async fn remove_shared(&self, user: UserId, id: DeviceId) -> Result<(), StoreError> {
        self.ask(|reply| Job::RemoveShared(user, id, reply)).await
    }

    async fn exchange(
        &self,
        device: DeviceId,
        packet_id: u16,
    ) -> Result<Option<Exchange>, StoreError> {
        let key = keys::exchange(device, packet_id);
        self.read_row(tables::EXCHANGE, key, |row| {
            let row = values::read_exchanged(row)?;
            Ok(Exchange {
                conversation: row.conversation,
                place: Place {
                    seq: row.seq,
                    ts_ms: row.ts_ms,
                    digest: row.digest,
                },
            })
        })
        .await
    }

    async fn end_exchanges(&self, device: DeviceId) -> Result<(), StoreError> {
        self.ask(|reply| Job::EndExchanges(device, reply)).await
    }

    async fn end_exchange(&self, device: DeviceId, packet_id: u16) -> Result<bool, StoreError> {
        self.ask(|reply| Job::EndExchange(device, packet_id, reply))
            .await
    }
}
