//! Token buckets: how many messages a device or a user may send, and how many logins may fail.

use std::time::Duration;

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
