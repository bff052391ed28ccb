//! Token buckets: how many messages a device, a user, an address and a conversation may send, and how many logins may fail.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quick_cache::unsync::Cache;

use tokio::time::Instant;

/// A rate with a burst. A rate of 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    tokens: u32,
    each: Duration,
    /// Tokens that a rested bucket holds.
    burst: u32,
}

impl Rate {
    /// So many tokens per second.
    pub(crate) const fn per_s(tokens: u32, burst: u32) -> Self {
        Self {
            tokens,
            each: Duration::from_secs(1),
            burst,
        }
    }

    /// So many tokens per minute.
    pub(crate) const fn per_min(tokens: u32, burst: u32) -> Self {
        Self {
            tokens,
            each: Duration::from_mins(1),
            burst,
        }
    }

    /// Is there a limit at all?
    pub(crate) const fn is_limited(&self) -> bool {
        self.tokens > 0
    }

    fn per_second(&self) -> f64 {
        f64::from(self.tokens) / self.each.as_secs_f64()
    }

    fn most(&self) -> f64 {
        f64::from(self.burst.max(1))
    }
}

/// One bucket, full at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            tokens: rate.most(),
            filled: None,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.check(now)?;
        self.owe(now, 1);
        Ok(())
    }

    /// Is there a token?
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.rate.tokens == 0 || self.tokens >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / self.rate.per_second(),
        ))
    }

    /// Takes tokens for what has been done already, also those that are not there: at most a burst is owed.
    pub(crate) fn owe(&mut self, now: Instant, tokens: u32) {
        self.fill(now);
        self.tokens = (self.tokens - f64::from(tokens)).max(-self.rate.most());
    }

    /// Puts a token back that was taken for nothing.
    pub(crate) fn give_back(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = (self.tokens + 1.0).min(self.rate.most());
    }

    fn fill(&mut self, now: Instant) {
        if let Some(filled) = self.filled {
            let gained =
                now.saturating_duration_since(filled).as_secs_f64() * self.rate.per_second();
            self.tokens = (self.tokens + gained).min(self.rate.most());
        }
        self.filled = Some(now);
    }
}

/// A bucket that several share.
pub(crate) type SharedBucket = Arc<Mutex<Bucket>>;

/// Buckets by whose they are. Those in use, and those used lately, are found again: who comes back goes on where he was.
pub(crate) struct Buckets<K> {
    rate: Rate,
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    known: HashMap<K, Weak<Mutex<Bucket>>>,
    sweep_at: usize,
    /// A bucket that has filled up again is the same as none, so that this may forget.
    recent: Cache<K, SharedBucket>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// At most `kept_max` are kept beside those in use.
    pub(crate) fn new(rate: Rate, kept_max: usize) -> Self {
        Self {
            rate,
            inner: Mutex::new(Inner {
                known: HashMap::new(),
                sweep_at: 0,
                recent: Cache::new(kept_max.max(16)),
            }),
        }
    }

    /// The bucket of this one; `None` if there is no limit.
    pub(crate) fn of(&self, key: K) -> Option<SharedBucket> {
        if !self.rate.is_limited() {
            return None;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = inner.recent.get(&key) {
            return Some(Arc::clone(bucket));
        }
        let known = inner.known.get(&key).and_then(Weak::upgrade);
        let bucket = known.unwrap_or_else(|| {
            if inner.known.len() >= inner.sweep_at.max(1_024) {
                inner.known.retain(|_, bucket| bucket.strong_count() > 0);
                inner.sweep_at = inner.known.len() * 2;
            }
            let bucket = Arc::new(Mutex::new(Bucket::new(self.rate)));
            inner.known.insert(key, Arc::downgrade(&bucket));
            bucket
        });
        inner.recent.insert(key, Arc::clone(&bucket));
        Some(bucket)
    }
}

/// Takes a token from each of these buckets, or none from any.
///
/// # Errors
/// How long until all have one.
pub(crate) fn take_all<'a>(
    buckets: impl IntoIterator<Item = &'a SharedBucket> + Clone,
    now: Instant,
) -> Result<(), Duration> {
    let wait = |bucket: &SharedBucket| lock(bucket).check(now).err();
    if let Some(longest) = buckets.clone().into_iter().filter_map(wait).max() {
        return Err(longest);
    }
    for bucket in buckets {
        lock(bucket).owe(now, 1);
    }
    Ok(())
}

/// The bucket, for whoever comes first.
pub(crate) fn lock(bucket: &Mutex<Bucket>) -> MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// IPv4 (also inside IPv6) as it is, IPv6 by its /64, which is what one customer gets.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rate_holds_afterwards() {
        let mut bucket = Bucket::new(Rate::per_s(10, 3));
        let start = crate::clock::monotonic();
        for _ in 0..3 {
            bucket.take(start).unwrap();
        }
        let wait = bucket.take(start).unwrap_err();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        bucket.take(start + Duration::from_millis(101)).unwrap();
        bucket.take(start + Duration::from_millis(102)).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_no_limit() {
        let mut bucket = Bucket::new(Rate::per_s(0, 0));
        for _ in 0..1_000 {
            bucket.take(crate::clock::monotonic()).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_finds_the_bucket_as_it_was() {
        let buckets = Buckets::new(Rate::per_s(1, 2), 16);
        let start = crate::clock::monotonic();
        let mine = buckets.of(1).unwrap();
        let shared = buckets.of(9).unwrap();
        take_all([&mine, &shared], start).unwrap();
        take_all([&mine], start).unwrap();
        let wait = take_all([&mine, &shared], start).unwrap_err();
        assert_eq!(wait.as_secs(), 1);
        take_all([&shared], start).expect("it was not taken from for nothing");
        drop(mine);
        let again = buckets.of(1).unwrap();
        assert!(take_all([&again], start).is_err());
        for other in 10..10_000 {
            buckets.of(other).unwrap();
        }
        assert!(
            take_all([&buckets.of(1).unwrap()], start).is_err(),
            "in use"
        );
        assert!(Buckets::new(Rate::per_s(0, 0), 16).of(1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_done_is_paid_afterwards_up_to_a_burst() {
        let mut bucket = Bucket::new(Rate::per_min(60, 5));
        let start = crate::clock::monotonic();
        bucket.owe(start, 1_000);
        let wait = bucket.check(start).unwrap_err();
        assert_eq!(wait.as_secs(), 6, "five are owed, one is needed");
        assert!(bucket.check(start + Duration::from_secs(5)).is_err());
        bucket.take(start + Duration::from_secs(6)).unwrap();
        assert!(bucket.check(start + Duration::from_secs(6)).is_err());
    }
}
