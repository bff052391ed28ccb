//! Calls about the private queues of devices.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::BASE64;
use proto::ids::DeviceId;
use serde::{Deserialize, Deserializer, Serialize};

use super::wire::{AskUser, Done, UserAsked};
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::membership::Request;
use crate::service::queues::Sent;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Send {
    user: UserAsked,
    device: DeviceId,
    kind: String,
    #[serde(default, deserialize_with = "bytes")]
    data: Bytes,
    ttl_s: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Queues {
    devices: Vec<DeviceId>,
}

/// Bytes as base64 (RFC 4648 §4).
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    let bytes = BASE64.decode(text.as_bytes());
    bytes
        .map(Bytes::from)
        .map_err(|_| serde::de::Error::custom("not base64"))
}

impl ChatPlugin {
    pub(super) async fn dev_list(&self, peer: &Peer, asked: AskUser) -> Result<Queues, Refusal> {
        let user = self.service.user_of(peer.actor, &asked.user.0).await?;
        let devices = self.service.queues_of(peer.actor, user).await?;
        Ok(Queues { devices })
    }

    pub(super) async fn dev_send(
        &self,
        peer: &Peer,
        request: Request,
        asked: Send,
    ) -> Result<Done, Refusal> {
        let user = self.service.user_of(peer.actor, &asked.user.0).await?;
        let sent = Sent {
            kind: asked.kind,
            data: asked.data,
            ttl_s: asked.ttl_s,
        };
        let (to, once) = ((user, asked.device), (request.id, request.digest));
        let sending = self.service.send_to_device(peer.actor, to, once, sent);
        sending.await?;
        Ok(Done {})
    }
}
