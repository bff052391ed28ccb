//! How many logins may fail: per address, and per user name and address.
//!
//! Each failure takes a token from the two buckets of its attempt; when one is empty, passwords are refused unread. A
//! password takes its tokens before it is looked at, so that many at once are not more than many in a row, and gets them
//! back unless it was wrong. What has been tried from one address never closes the way for a user from another one. A bucket that has filled up again is
//! the same as none, so that the bounded caches may forget: an attacker with many addresses gains as many attempts as
//! with addresses that were never seen.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::unsync::Cache;
use tokio::time::Instant;

use super::AccountsConfig;
use crate::rate::{Bucket, Rate, network};

/// The buckets of all addresses and names that have failed lately.
pub(super) struct Throttle {
    of_address: Rate,
    of_name: Rate,
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    addresses: Cache<IpAddr, Bucket>,
    names: Cache<(IpAddr, u64), Bucket>,
}

/// Who tries to log in, from where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    address: IpAddr,
    name: u64,
}

impl Throttle {
    pub(super) fn new(config: &AccountsConfig) -> Self {
        let kept = usize::try_from(config.login_failures_kept_max).unwrap_or(usize::MAX);
        Self {
            of_address: Rate::per_min(
                config.address_login_failures_per_min,
                config.address_login_failures_burst,
            ),
            of_name: Rate::per_min(config.login_failures_per_min, config.login_failures_burst),
            hasher: RandomState::new(),
            buckets: Mutex::new(Buckets {
                addresses: Cache::new(kept),
                names: Cache::new(kept),
            }),
        }
    }

    /// An attempt with this user name. A device that goes on with a revoked token does not stand in the way of the
    /// password: the two are counted apart.
    pub(super) fn attempt(&self, from: IpAddr, name: &str, with_token: bool) -> Attempt {
        Attempt {
            address: network(from),
            name: self.hasher.hash_one((name, with_token)),
        }
    }

    /// May it be tried? If not: how long until then.
    pub(super) fn check(&self, attempt: &Attempt, now: Instant) -> Result<(), Duration> {
        let buckets = self.lock();
        let name = buckets.names.get(&(attempt.address, attempt.name));
        let address = buckets.addresses.get(&attempt.address);
        let (name, address) = (name.copied(), address.copied());
        drop(buckets);
        [name, address]
            .into_iter()
            .flatten()
            .try_for_each(|mut bucket| bucket.check(now))
    }

    /// May it be tried? If so it counts as failed until it is known not to be.
    pub(super) fn begin(&self, attempt: &Attempt, now: Instant) -> Result<(), Duration> {
        self.check(attempt, now)?;
        self.failed(attempt, now);
        Ok(())
    }

    /// What was begun has not been decided: it does not count.
    pub(super) fn undecided(&self, attempt: &Attempt, now: Instant) {
        let mut buckets = self.lock();
        if let Some(mut bucket) = buckets.names.get_mut(&(attempt.address, attempt.name)) {
            bucket.give_back(now);
        }
        if let Some(mut bucket) = buckets.addresses.get_mut(&attempt.address) {
            bucket.give_back(now);
        }
    }

    /// It has failed.
    pub(super) fn failed(&self, attempt: &Attempt, now: Instant) {
        let mut buckets = self.lock();
        let key = (attempt.address, attempt.name);
        let name = buckets.names.get(&key).copied();
        let mut name = name.unwrap_or_else(|| Bucket::new(self.of_name));
        name.owe(now, 1);
        buckets.names.insert(key, name);
        let address = buckets.addresses.get(&attempt.address).copied();
        let mut address = address.unwrap_or_else(|| Bucket::new(self.of_address));
        address.owe(now, 1);
        buckets.addresses.insert(attempt.address, address);
    }

    /// It has succeeded: the bucket of the name is full again. That of the address is not: an attacker may well have a
    /// password of his own.
    pub(super) fn succeeded(&self, attempt: &Attempt) {
        self.lock().names.remove(&(attempt.address, attempt.name));
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn throttle(kept: u32) -> Throttle {
        Throttle::new(&AccountsConfig {
            login_failures_per_min: 6,
            login_failures_burst: 3,
            address_login_failures_per_min: 60,
            address_login_failures_burst: 10,
            login_failures_kept_max: kept,
            ..AccountsConfig::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_closed_where_it_failed_and_opens_by_time_or_success() {
        let throttle = throttle(100);
        let start = clock::monotonic();
        let here = throttle.attempt(address("192.0.2.1"), "alice", false);
        let there = throttle.attempt(address("192.0.2.2"), "alice", false);
        for _ in 0..3 {
            assert_eq!(throttle.check(&here, start), Ok(()));
            throttle.failed(&here, start);
        }
        assert_eq!(throttle.check(&here, start).unwrap_err().as_secs(), 10);
        assert_eq!(throttle.check(&there, start), Ok(()));
        let later = start + Duration::from_secs(10);
        assert_eq!(throttle.check(&here, later), Ok(()));
        throttle.failed(&here, later);
        assert!(throttle.check(&here, later).is_err());
        throttle.succeeded(&here);
        for _ in 0..3 {
            assert_eq!(throttle.check(&here, later), Ok(()));
            throttle.failed(&here, later);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_not_more_than_many_in_a_row() {
        let throttle = throttle(100);
        let start = clock::monotonic();
        let attempt = throttle.attempt(address("192.0.2.1"), "alice", false);
        let begun = (0..200).filter(|_| throttle.begin(&attempt, start).is_ok());
        assert_eq!(begun.count(), 3);
        throttle.undecided(&attempt, start);
        assert_eq!(throttle.begin(&attempt, start), Ok(()));
        assert!(throttle.begin(&attempt, start).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_closed_for_all_names_and_success_does_not_open_it() {
        let throttle = throttle(100);
        let start = clock::monotonic();
        let attempt = |name: &str| throttle.attempt(address("192.0.2.1"), name, false);
        for number in 0..10 {
            throttle.failed(&attempt(&format!("user-{number}")), start);
        }
        throttle.succeeded(&attempt("mallory"));
        assert!(throttle.check(&attempt("mallory"), start).is_err());
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.check(&attempt("alice"), later), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_customer_of_ipv6_is_one_address() {
        let throttle = throttle(100);
        let start = clock::monotonic();
        for last in 0..10 {
            let from = address(&format!("2001:db8::{last}"));
            throttle.failed(&throttle.attempt(from, "alice", false), start);
        }
        let check = |from: &str| {
            let attempt = throttle.attempt(address(from), "bob", false);
            throttle.check(&attempt, start)
        };
        assert!(check("2001:db8::ffff").is_err());
        assert_eq!(check("2001:db8:0:1::1"), Ok(()), "another /64");
        assert_eq!(network(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let throttle = throttle(50);
        let start = clock::monotonic();
        for number in 0..10_000_u32 {
            let from = IpAddr::V4(number.into());
            throttle.failed(&throttle.attempt(from, "alice", false), start);
        }
        let buckets = throttle.lock();
        assert!(buckets.addresses.len() <= 50 && buckets.names.len() <= 50);
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_no_limit() {
        let throttle = Throttle::new(&AccountsConfig {
            login_failures_per_min: 0,
            address_login_failures_per_min: 0,
            ..AccountsConfig::default()
        });
        let attempt = throttle.attempt(address("192.0.2.1"), "alice", false);
        for _ in 0..10_000 {
            throttle.failed(&attempt, clock::monotonic());
        }
        assert_eq!(throttle.check(&attempt, clock::monotonic()), Ok(()));
    }
}
