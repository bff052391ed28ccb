//! Rates: how much one connection may send, and how often one address may connect.
//!
//! Token buckets. What comes may take a bucket below zero: it is the next one that is too early. So a packet of any size
//! passes some time, and the rate holds on the average.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;

/// Tokens per second, and how many a rested bucket holds. 0 per second means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_s: u32,
    burst: u32,
}

impl Rate {
    /// A burst of 0 means as much as comes in one second.
    pub(crate) const fn new(per_s: u32, burst: u32) -> Self {
        let burst = if burst == 0 { per_s } else { burst };
        Self { per_s, burst }
    }

    const fn is_limited(self) -> bool {
        self.per_s > 0
    }
}

/// One bucket, full at first.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: rate.burst.into(),
            filled: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + gained * f64::from(rate.per_s)).min(rate.burst.into());
        self.filled = now;
    }

    /// How long until there is a token; `None`: there is one. For a bucket that was just filled.
    fn wait(&self, rate: Rate) -> Option<Duration> {
        let missing = 1.0 - self.tokens;
        (rate.is_limited() && missing > 0.0)
            .then(|| Duration::from_secs_f64(missing / f64::from(rate.per_s)))
    }
}

/// What one connection may send: publishes, and bytes of all packets.
#[derive(Debug)]
pub(crate) struct Meter {
    publishes: (Rate, Bucket),
    bytes: (Rate, Bucket),
}

impl Meter {
    /// `None` without a limit.
    pub(crate) fn new(config: &Config, now: Instant) -> Option<Box<Self>> {
        let publishes = Rate::new(
            config.connection_publishes_per_s,
            config.connection_publishes_burst,
        );
        let bytes = Rate::new(config.connection_bytes_per_s, config.connection_bytes_burst);
        (publishes.is_limited() || bytes.is_limited()).then(|| {
            Box::new(Self {
                publishes: (publishes, Bucket::new(publishes, now)),
                bytes: (bytes, Bucket::new(bytes, now)),
            })
        })
    }

    /// A packet has come.
    pub(crate) fn charge(&mut self, publish: bool, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.publishes.1.tokens -= f64::from(u8::from(publish));
        self.bytes.1.tokens -= f64::from(bytes);
    }

    /// How long until the next packet is in time; `None`: it is now.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let wait = |(rate, bucket): &mut (Rate, Bucket)| {
            bucket.fill(*rate, now);
            bucket.wait(*rate)
        };
        wait(&mut self.publishes).max(wait(&mut self.bytes))
    }
}

/// How often each address may connect.
#[derive(Debug)]
pub(crate) struct Arrivals {
    rate: Rate,
    known: Mutex<Known>,
}

/// The addresses whose bucket may not be full.
#[derive(Debug, Default)]
struct Known {
    buckets: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

impl Arrivals {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            known: Mutex::default(),
        }
    }

    /// May a client of this address connect now? With very many addresses at once new ones are let in uncounted: their
    /// number is what the limits of connections are for.
    pub(crate) fn admit(&self, address: IpAddr, now: Instant) -> bool {
        if !self.rate.is_limited() {
            return true;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.buckets.len() >= ADDRESSES_MAX {
            known.sweep(self.rate, now);
        }
        let is_full = known.buckets.len() >= ADDRESSES_MAX;
        if is_full && !known.buckets.contains_key(&address) {
            return true;
        }
        let bucket = known.buckets.entry(address);
        let bucket = bucket.or_insert_with(|| Bucket::new(self.rate, now));
        bucket.fill(self.rate, now);
        let in_time = bucket.wait(self.rate).is_none();
        if in_time {
            bucket.tokens -= 1.0;
        }
        in_time
    }
}

impl Known {
    /// Forgets the rested ones, from time to time.
    fn sweep(&mut self, rate: Rate, now: Instant) {
        let lately = |swept| now.saturating_duration_since(swept) < SWEEP_INTERVAL;
        if self.swept.is_some_and(lately) {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| {
            bucket.fill(rate, now);
            bucket.tokens < rate.burst.into()
        });
    }
}

/// Addresses that are counted at once.
const ADDRESSES_MAX: usize = 65_536;
/// Between two looks at all of them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn meter(change: impl FnOnce(&mut Config), now: Instant) -> Option<Box<Meter>> {
        let mut config = Config::default();
        change(&mut config);
        Meter::new(&config, now)
    }

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_rate_nothing_is_metered() {
        assert!(meter(|_| {}, clock::now()).is_none());
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let now = clock::now();
        let set = |config: &mut Config| {
            config.connection_publishes_per_s = 10;
            config.connection_publishes_burst = 3;
        };
        let mut meter = meter(set, now).unwrap();
        for _ in 0..3 {
            assert_eq!(meter.wait(now), None);
            meter.charge(true, 1_000_000);
        }
        assert_eq!(meter.wait(now), Some(SECOND / 10));
        meter.charge(false, 1_000_000);
        assert_eq!(meter.wait(now), Some(SECOND / 10));
        assert_eq!(meter.wait(now + SECOND / 10), None);
        assert_eq!(meter.wait(now + SECOND * 60), None);
        for _ in 0..3 {
            meter.charge(true, 1);
        }
        assert!(
            meter.wait(now + SECOND * 60).is_some(),
            "rest saves no more than a burst"
        );
    }

    #[test]
    fn a_packet_larger_than_the_burst_passes_and_is_paid_for_afterwards() {
        let now = clock::now();
        let set = |config: &mut Config| config.connection_bytes_per_s = 1_000;
        let mut meter = meter(set, now).unwrap();
        assert_eq!(meter.wait(now), None);
        meter.charge(true, 5_999);
        assert_eq!(meter.wait(now), Some(SECOND * 5));
        assert_eq!(meter.wait(now + SECOND * 5), None);
    }

    #[test]
    fn each_address_has_its_own_rate() {
        let arrivals = Arrivals::new(Rate::new(2, 0));
        let now = clock::now();
        let admitted = |number, now| arrivals.admit(address(number), now);
        assert_eq!(
            [1, 1, 1, 2].map(|number| admitted(number, now)),
            [true, true, false, true]
        );
        assert!(
            !admitted(1, now + SECOND / 4),
            "who is refused pays nothing"
        );
        assert!(admitted(1, now + SECOND / 2));
    }

    #[test]
    fn rested_addresses_are_forgotten_when_there_are_many() {
        let arrivals = Arrivals::new(Rate::new(1, 1));
        let now = clock::now();
        let many = u32::try_from(ADDRESSES_MAX).unwrap();
        assert!((0..many).all(|number| arrivals.admit(address(number), now)));
        assert!(arrivals.admit(address(many), now), "let in, not counted");
        assert!(!arrivals.admit(address(0), now));
        assert!(arrivals.admit(address(many), now + SECOND * 2));
        assert_eq!(arrivals.known.lock().unwrap().buckets.len(), 1);
    }

    #[test]
    fn no_rate_lets_everybody_in() {
        let arrivals = Arrivals::new(Rate::new(0, 0));
        assert!((0..1_000).all(|_| arrivals.admit(address(1), clock::now())));
    }
}
