//! What devices send to each other past all conversations: into the private queue of a device.

use std::borrow::Cow;

use bytes::Bytes;
use proto::ids::{ConversationId, DeviceId, MessageId, UserId};

use super::{Actor, Refusal, Service};
use crate::domain::queue::{DeviceEvent, QueueLimits, Queuing, ToDevice};

/// Bytes of the word that says what it is.
const KIND_MAX: usize = 64;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Nobody can be told apart from somebody who blocks the caller, or whom he shares nothing with.
const NO_DEVICE: Refusal = Refusal::NotFound(Cow::Borrowed("no such device"));

/// Something for a device.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it is, in a word of the clients.
    pub kind: String,
    /// Not for the server to read.
    pub data: Bytes,
    /// Seconds that it waits, at most.
    pub ttl_s: Option<u32>,
}

impl Service {
    /// The devices of a user to which the actor may send: those that have had a queue.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such user.
    pub async fn queues_of(&self, actor: Actor, user: UserId) -> Result<Vec<DeviceId>, Refusal> {
        if !self.may_send_to_devices(actor.user, user).await? {
            return Ok(Vec::new());
        }
        let devices = self.store.devices(user).await?.into_iter();
        let with_queue = devices.filter(|device| device.has_queue);
        Ok(with_queue.map(|device| device.id).collect())
    }

    /// Puts something into the queue of a device; once for each `mid`. Durable, and on its way when it returns.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such device, or none for this actor; [`Refusal::Limit`] if its queue is full;
    /// [`Refusal::Format`] for a bad kind.
    pub async fn send_to_device(
        &self,
        actor: Actor,
        (user, to): (UserId, DeviceId),
        (mid, digest): (MessageId, [u8; 16]),
        sent: Sent,
    ) -> Result<(), Refusal> {
        check_kind(&sent.kind)?;
        if !self.may_send_to_devices(actor.user, user).await? {
            return Err(NO_DEVICE);
        }
        let ts_ms = crate::clock::now_ms();
        let most_ms = u64::from(self.config.device_event_days) * DAY_MS;
        let lasts_ms = sent.ttl_s.map_or(most_ms, |ttl_s| u64::from(ttl_s) * 1_000);
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let to_device = ToDevice {
            user,
            to,
            mid,
            digest,
            event: DeviceEvent {
                dseq: 0,
                from: actor.user,
                device: actor.device,
                ts_ms,
                expires_ms: ts_ms + lasts_ms.min(most_ms),
                kind: sent.kind,
                data: sent.data,
            },
            limits: QueueLimits {
                events: size(self.config.device_queue_max),
                events_of_sender: size(self.config.device_queue_per_sender_max),
                bytes: size(self.config.device_queue_bytes_max),
            },
        };
        match self.store.queue_event(to_device).await? {
            Queuing::Queued(_) => {
                self.delivery.queue_grew(user, to);
                Ok(())
            }
            Queuing::Duplicate => Ok(()),
            Queuing::Conflict => Err(Refusal::IdempotencyConflict),
            Queuing::NoQueue => Err(NO_DEVICE),
            Queuing::Full => Err(Refusal::Limit("too much waits for this device")),
        }
    }

    /// To the own devices, and to those of whoever is in a conversation with the actor and has not blocked him.
    async fn may_send_to_devices(&self, from: UserId, to: UserId) -> Result<bool, Refusal> {
        if from == to {
            return Ok(true);
        }
        if self.store.contact(to, from).await?.is_blocked() {
            return Ok(false);
        }
        let direct = self
            .conversations
            .load(ConversationId::direct(from, to))
            .await?;
        let both = |live: &crate::conversations::Live| live.is_present(from) && live.is_present(to);
        if direct.is_some_and(|live| both(&live)) {
            return Ok(true);
        }
        Ok(self.store.share_conversation(from, to).await?)
    }
}

fn check_kind(kind: &str) -> Result<(), Refusal> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if kind.is_empty() || kind.len() > KIND_MAX || !kind.bytes().all(is_good) {
        return Err(Refusal::format(
            "kind is 1 to 64 characters of A-Z, a-z, 0-9 and . _ -",
        ));
    }
    Ok(())
}
