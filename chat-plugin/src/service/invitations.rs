//! How often a user may put others into groups: what it costs them, they cannot refuse.

use std::sync::{Mutex, PoisonError};

use proto::ids::UserId;
use quick_cache::unsync::Cache;

use super::Refusal;
use crate::config::Config;
use crate::rate::{Bucket, Rate};

/// The buckets of those who made groups or added members lately. Not kept by the connection: another one would begin with
/// a full one. A bucket that has filled up again is the same as none, so that the bounded cache may forget.
pub(crate) struct Invitations {
    rate: Rate,
    buckets: Mutex<Cache<UserId, Bucket>>,
}

impl Invitations {
    pub(crate) fn new(config: &Config) -> Self {
        let rate = Rate::per_min(
            config.user_invitations_per_min,
            config.user_invitations_burst,
        );
        Self::with(rate, config)
    }

    /// The same for those who search: who may ask for ever finds everybody.
    pub(crate) fn searches(config: &Config) -> Self {
        let rate = Rate::per_min(config.user_searches_per_min, config.user_searches_burst);
        Self::with(rate, config)
    }

    fn with(rate: Rate, config: &Config) -> Self {
        let kept = usize::try_from(config.conversation_cache_max).unwrap_or(usize::MAX);
        Self {
            rate,
            buckets: Mutex::new(Cache::new(kept.max(16))),
        }
    }

    /// One more group, or one more call that adds members.
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
