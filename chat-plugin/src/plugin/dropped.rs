//! A session that an operator drops: what is at rest of it goes. The device keeps its cursors: what it has seen it has.

use proto::ids::{DeviceId, UserId};

use super::ChatPlugin;
use crate::domain::device::Device;
use crate::store::{Durability, StoreError};

impl ChatPlugin {
    /// Says whether there was a session. Nobody is connected with it meanwhile.
    pub(super) async fn drop_session(
        &self,
        user: UserId,
        client_id: &str,
    ) -> Result<bool, StoreError> {
        let id = DeviceId::new(user, client_id);
        let leaving = self.leaving().get(&id).cloned();
        if let Some(peer) = leaving {
            peer.departed.cancelled().await;
        }
        self.progress.settled().await;
        let store = &self.service.store;
        let Some(device) = store.device(user, id).await? else {
            return Ok(false);
        };
        let existed = !device.subscriptions.is_empty();
        self.forget_positions(user, id, &device.subscriptions)
            .await?;
        let over = Device {
            subscriptions: Vec::new(),
            session_expiry: 0,
            has_queue: false,
            connected: false,
            ..device
        };
        store
            .put_device(over, Some(Vec::new()), Durability::Durable)
            .await?;
        self.service.store.end_exchanges(id).await?;
        Ok(existed)
    }
}
