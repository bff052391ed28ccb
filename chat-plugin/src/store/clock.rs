//! The store's clock: how long it has been running. It never asks for the date.

use std::time::{Duration, Instant};

/// Time since some moment before the store was opened; never goes back.
pub trait Clock: Send + Sync + 'static {
    /// The time passed.
    fn elapsed(&self) -> Duration;
}

/// The monotonic clock of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock that begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the store reads the clock"
    )]
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the store reads the clock"
    )]
    fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }
}
