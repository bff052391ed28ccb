//! How often a user may do what costs others something, or what is worth trying often.

use std::sync::{Mutex, PoisonError};

use proto::ids::UserId;
use quick_cache::unsync::Cache;

use super::Refusal;
use crate::config::Config;
use crate::rate::{Bucket, Rate};

/// The rates of users, for those things that have one of their own.
pub(crate) struct UserRates {
    /// Making groups and adding members: others cannot refuse to be added.
    pub(super) invitations: UserRate,
    /// Looking at codes, joining and asking to join: nobody tries out codes.
    pub(super) joins: UserRate,
    /// Making visitors: users whom nobody has seen.
    pub(super) visitors: UserRate,
    /// Sending to broadcast lists: each message becomes many.
    pub(super) broadcasts: UserRate,
    /// Searching: who may ask for ever finds everybody.
    pub(super) searches: UserRate,
}

impl UserRates {
    pub(crate) fn new(config: &Config) -> Self {
        let kept = usize::try_from(config.conversation_cache_max).unwrap_or(usize::MAX);
        let rate = |per_min, burst| UserRate::new(Rate::per_min(per_min, burst), kept);
        Self {
            invitations: rate(
                config.user_invitations_per_min,
                config.user_invitations_burst,
            ),
            joins: rate(config.user_joins_per_min, config.user_joins_burst),
            visitors: rate(config.user_visitors_per_min, config.user_visitors_burst),
            broadcasts: rate(config.user_broadcasts_per_min, config.user_broadcasts_burst),
            searches: rate(config.user_searches_per_min, config.user_searches_burst),
        }
    }
}

/// The buckets of those who did it lately. Not kept by the connection: another one would begin with a full one. A bucket
/// that has filled up again is the same as none, so that the bounded cache may forget.
pub(super) struct UserRate {
    rate: Rate,
    buckets: Mutex<Cache<UserId, Bucket>>,
}

impl UserRate {
    fn new(rate: Rate, kept: usize) -> Self {
        Self {
            rate,
            buckets: Mutex::new(Cache::new(kept.max(16))),
        }
    }

    /// Once more.
    pub(super) fn take(&self, user: UserId) -> Result<(), Refusal> {
        let now = crate::clock::monotonic();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bucket = buckets
            .get(&user)
            .copied()
            .unwrap_or_else(|| Bucket::new(self.rate));
        let taken = bucket.take(now);
        buckets.insert(user, bucket);
        taken.map_err(Refusal::rate)
    }
}
