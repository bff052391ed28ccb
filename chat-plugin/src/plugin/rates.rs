//! How much one connection may ask for: the rates of its device, its user and its address.

use std::net::IpAddr;

use proto::ids::{DeviceId, UserId};

use crate::config::Config;
use crate::rate::{Buckets, Rate, SharedBucket, lock, network, take_all};
use crate::service::Refusal;

use super::ChatPlugin;
use super::peer::Peer;

/// The rates of all who are connected, or were lately.
pub(super) struct Rates {
    devices: Buckets<DeviceId>,
    users: Buckets<UserId>,
    addresses: Buckets<IpAddr>,
}

impl Rates {
    pub(super) fn new(config: &Config) -> Self {
        let kept = super::size(config.conversation_cache_max);
        let device = Rate::per_s(config.device_messages_per_s, config.device_messages_burst);
        let user = Rate::per_s(config.user_messages_per_s, config.user_messages_burst);
        let address = Rate::per_s(config.address_messages_per_s, config.address_messages_burst);
        Self {
            devices: Buckets::new(device, kept),
            users: Buckets::new(user, kept),
            addresses: Buckets::new(address, kept),
        }
    }

    /// The buckets that a connection takes from. One through a Unix socket has no address.
    pub(super) fn of(
        &self,
        user: UserId,
        device: DeviceId,
        address: Option<IpAddr>,
    ) -> Vec<SharedBucket> {
        let address = address.and_then(|address| self.addresses.of(network(address)));
        let buckets = [self.devices.of(device), self.users.of(user), address];
        buckets.into_iter().flatten().collect()
    }
}

impl ChatPlugin {
    /// One more message, call or subscription.
    ///
    /// # Errors
    /// [`Refusal::Rate`] while one of the buckets is empty; then nothing is taken from the others.
    pub(super) fn check_rate(peer: &Peer) -> Result<(), Refusal> {
        let now = crate::clock::monotonic();
        take_all(&peer.limits, now).map_err(Refusal::rate)
    }

    /// Takes more tokens for one call that is as much work as so many messages. It is not refused for that, but what
    /// follows is, until the rate has paid for it.
    pub(super) fn charge(peer: &Peer, tokens: usize) {
        let now = crate::clock::monotonic();
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        for bucket in &peer.limits {
            lock(bucket).owe(now, tokens);
        }
    }
}
