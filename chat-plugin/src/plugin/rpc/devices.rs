//! Calls about the own devices, and the end of the own account.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::wire::{DeleteMe, Devices, Done, ListedDevice, Nothing, Revoke};
use crate::accounts::{AccountError, AuthError};
use crate::domain::user::User;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::store::StoreError;

/// A login is proof enough for so long, of who has no password.
const FRESH_LOGIN: Duration = Duration::from_mins(5);

impl ChatPlugin {
    pub(super) async fn me_devices(&self, peer: &Peer, _: Nothing) -> Result<Devices, Refusal> {
        let user = peer.actor.user;
        let online = self.online.of(user);
        let listed = self.service.store.devices(user).await?.into_iter();
        let devices = listed.map(|device| ListedDevice {
            id: device.id,
            first_seen: device.first_seen_ms,
            last_seen: self.seen_ms(&device),
            connected: online.iter().any(|reader| reader.device == device.id),
            current: device.id == peer.actor.device,
            client_id: device.client_id,
        });
        let devices = devices.collect();
        Ok(Devices { devices })
    }

    pub(super) async fn me_revoke(&self, peer: &Peer, asked: Revoke) -> Result<Devices, Refusal> {
        if asked.device == peer.actor.device {
            return Err(Refusal::format(
                "a device ends its own session by Clean Start",
            ));
        }
        self.revoke_device(peer.actor.user, asked.device).await?;
        self.me_devices(peer, Nothing {}).await
    }

    /// The end of the own account. The connections of the user are closed, so that the reply may not arrive.
    pub(super) async fn me_delete(&self, peer: &Peer, asked: DeleteMe) -> Result<Done, Refusal> {
        let user = self.service.me(peer.actor).await?;
        self.prove(peer, &user, asked.password.as_deref()).await?;
        match self.accounts.remove_user(&user.handle).await {
            Ok(()) => Ok(Done {}),
            Err(AccountError::Store(error)) => Err(error.into()),
            Err(error) => Err(Refusal::NotFound(error.to_string().into())),
        }
    }

    /// Is it really the user who asks, and not somebody who found the device? The password tells, not a token.
    async fn prove(&self, peer: &Peer, user: &User, password: Option<&str>) -> Result<(), Refusal> {
        let client = &peer.reader.client;
        if user.password_hash.is_none() {
            let since = client.authenticated_since.into();
            let logged_in = crate::clock::monotonic().saturating_duration_since(since);
            return if logged_in <= FRESH_LOGIN {
                Ok(())
            } else {
                Err(Refusal::Forbidden("log in again first"))
            };
        }
        let password = password.ok_or(Refusal::Forbidden("the password is wanted"))?;
        let from = client
            .peer
            .ip()
            .unwrap_or_else(|| Ipv4Addr::LOCALHOST.into());
        let proved = self
            .accounts
            .prove_password(from, user, password.as_bytes());
        proved.await.map_err(|error| match error {
            AuthError::Throttled { retry } => Refusal::Rate {
                retry_ms: u64::try_from(retry.as_millis()).unwrap_or(u64::MAX),
            },
            AuthError::Busy => Refusal::BUSY,
            AuthError::Store(error) => Refusal::Store(error),
            AuthError::Hash(reason) => Refusal::Store(StoreError::Unavailable(reason)),
            AuthError::BadCredentials | AuthError::Incomplete => {
                Refusal::Forbidden("this is not the password")
            }
        })
    }
}
