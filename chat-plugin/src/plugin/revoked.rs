//! Devices that their user does not trust any more, and the sessions of users who go.

use broker::codec::reason::ReasonCode;
use broker::operator::{OperatorError, SessionId};
use proto::ids::{DeviceId, UserId};

use super::ChatPlugin;
use crate::accounts::AccountError;
use crate::delivery::reader::Reader;
use crate::service::Refusal;
use crate::store::StoreError;

impl ChatPlugin {
    /// Ends a device: its connection (DISCONNECT 0x98), its session, its cursors, and the token with which it logged in.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the user has no such device.
    pub(super) async fn revoke_device(&self, user: UserId, id: DeviceId) -> Result<(), Refusal> {
        let unknown = || Refusal::NotFound("no such device".into());
        let told = |error| match error {
            AccountError::Store(error) => error.into(),
            _ => unknown(),
        };
        let device = self.accounts.distrust_device(user, id).await;
        let device = device.map_err(told)?;
        self.end_session(user, &device.client_id).await?;
        self.forget_positions(user, id, &device.subscriptions)
            .await?;
        self.accounts.forget_device(user, id).await.map_err(told)
    }

    /// A connection that logged in as a device before that was revoked, and came in behind it: it ends, with all that it left.
    pub(super) fn end_late(&self, reader: &Reader) {
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        reader.client.close(ReasonCode::NotAuthorized);
        let (user, device) = (reader.user, reader.device);
        let client_id = reader.client.client_id.clone();
        self.tracker.spawn(async move {
            if let Err(error) = plugin.end_session(user, &client_id).await {
                tracing::error!(%user, %device, %error, "the session of a revoked device is still there");
            }
            if let Err(error) = plugin.service.store.remove_device(user, device).await {
                tracing::error!(%user, %device, %error, "a revoked device is still listed");
            }
        });
    }

    async fn end_session(&self, user: UserId, client_id: &str) -> Result<(), StoreError> {
        let Some(operator) = self.operator.get() else {
            return Ok(());
        };
        match operator.drop_session(&user.to_string(), client_id).await {
            Ok(_) | Err(OperatorError::NotServing) => Ok(()),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }

    /// Nobody can log in any more to go on with these: the sessions of one removed user, or of all.
    pub(super) async fn drop_sessions(&self, of: Option<UserId>) -> Result<(), StoreError> {
        let mut after: Option<SessionId> = None;
        while let Some(operator) = self.operator.get()
            && !self.stop.is_cancelled()
        {
            let Ok(page) = operator.sessions(after.as_ref()) else {
                return Ok(()); // it does not serve any more
            };
            for session in page.items {
                let Ok(user) = session.user.parse::<UserId>() else {
                    continue; // none of ours
                };
                let is_over = match of {
                    Some(removed) => user == removed,
                    None => !self.service.names.exists(user).await?,
                };
                if is_over {
                    self.end_session(user, &session.client_id).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
