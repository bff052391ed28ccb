//! Token buckets: how many messages a device or a user may send.

use std::time::Duration;

use tokio::time::Instant;

/// A rate with a burst. A rate of 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens per second.
    pub(crate) per_s: u32,
    /// Tokens that a rested bucket holds.
    pub(crate) burst: u32,
}

/// One bucket, full at first.
#[derive(Debug)]
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
            tokens: f64::from(rate.burst.max(1)),
            filled: None,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.rate.per_s == 0 {
            return Ok(());
        }
        let per_s = f64::from(self.rate.per_s);
        if let Some(filled) = self.filled {
            let gained = now.saturating_duration_since(filled).as_secs_f64() * per_s;
            self.tokens = (self.tokens + gained).min(f64::from(self.rate.burst.max(1)));
        }
        self.filled = Some(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / per_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rate_holds_afterwards() {
        let mut bucket = Bucket::new(Rate {
            per_s: 10,
            burst: 3,
        });
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
        let mut bucket = Bucket::new(Rate { per_s: 0, burst: 0 });
        for _ in 0..1_000 {
            bucket.take(crate::clock::monotonic()).unwrap();
        }
    }
}
