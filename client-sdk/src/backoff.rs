//! How long to wait before the next connection: longer each time, and partly by chance, so that devices which were cut
//! off together do not come back together.

use std::time::{Duration, Instant};

/// A connection that held so long begins a new count.
const STEADY: Duration = Duration::from_mins(1);

/// The wait before the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    /// Waits between half of `min` and `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
            up_since: None,
        }
    }

    /// The next attempt is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A connection was accepted.
    pub(crate) fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// A connection ended, or could not be made. How long to wait, with `chance` for a random part of what it is given.
    pub(crate) fn down(
        &mut self,
        now: Instant,
        chance: impl FnOnce(Duration) -> Duration,
    ) -> Duration {
        let steady = self
            .up_since
            .take()
            .is_some_and(|since| now.duration_since(since) >= STEADY);
        if steady {
            self.failures = 0;
        }
        let factor = 1u32 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let wait = self.min.saturating_mul(factor).min(self.max);
        wait / 2 + chance(wait / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_shrink_after_a_steady_connection() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        let start = crate::clock::now();
        let waits: Vec<u64> = (0..5)
            .map(|_| backoff.down(start, |half| half).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 8]);
        backoff.up(start);
        assert_eq!(
            backoff
                .down(start + Duration::from_secs(1), |half| half)
                .as_secs(),
            8,
            "it did not hold"
        );
        backoff.up(start);
        assert_eq!(
            backoff.down(start + Duration::from_mins(2), |_| Duration::ZERO),
            Duration::from_millis(500)
        );
    }
}
