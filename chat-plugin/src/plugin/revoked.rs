//! Devices that their user does not trust any more, and the sessions of users who go.

use std::sync::Arc;

use broker::operator::{OperatorError, SessionId};
use proto::ids::{DeviceId, UserId};

use super::ChatPlugin;
use crate::accounts::AccountError;
use crate::service::Refusal;
use crate::store::StoreError;

impl ChatPlugin {
    /// Ends a device: its connection (DISCONNECT 0x98), its session, its cursors, and the token with which it logged in.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the user has no such device.
    pub(super) async fn revoke_device(&self, user: UserId, id: DeviceId) -> Result<(), Refusal> {
        let store = &self.service.store;
        let unknown = || Refusal::NotFound("no such device".into());
        let device = store.device(user, id).await?.ok_or_else(unknown)?;
        self.end_session(user, &device.client_id).await?;
        self.forget_positions(user, id, &device.subscriptions)
            .await?;
        match self.accounts.forget_device(user, id).await {
            Ok(()) => Ok(()),
            Err(AccountError::Store(error)) => Err(error.into()),
            Err(_) => Err(unknown()),
        }
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

    /// Nobody can log in any more to go on with these.
    pub(super) async fn drop_sessions(&self, user: UserId) {
        let key: Arc<str> = user.to_string().into();
        let mut after: Option<SessionId> = None;
        while let Some(operator) = self.operator.get()
            && !self.stop.is_cancelled()
        {
            let Ok(page) = operator.sessions(after.as_ref()) else {
                return; // it does not serve any more
            };
            for session in page.items.iter().filter(|session| session.user == key) {
                if let Err(error) = self.end_session(user, &session.client_id).await {
                    tracing::error!(%user, %error, "a session of a removed user is still there");
                }
            }
            after = page.next;
            if after.is_none() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}
