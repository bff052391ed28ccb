//! The one place where the clock is read.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Counts from the beginning of the run; publishers and subscribers live in one process and share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { epoch: now() }
    }

    /// Since the beginning.
    pub(crate) fn elapsed(self) -> Duration {
        now().duration_since(self.epoch)
    }

    /// Since the beginning, in nanoseconds.
    pub(crate) fn nanos(self) -> u64 {
        nanos(self.elapsed())
    }

    /// When `elapsed` will be `at`, for a timer.
    pub(crate) fn deadline(self, at: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.epoch + at)
    }
}

/// As a number, for stamps and histograms; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The monotonic clock of the machine, which all processes share, in microseconds.
pub(crate) fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let since = Duration::try_from(now).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The time of day, UTC, as RFC 3339 to the second.
pub(crate) fn utc() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let now = OffsetDateTime::from_unix_timestamp(now.tv_sec).ok();
    now.and_then(|now| now.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Tells this run from earlier ones, whose messages may still be on their way.
pub(crate) fn run_number() -> u32 {
    let random = RandomState::new().hash_one(std::process::id());
    (random >> 32) as u32
}

#[expect(clippy::disallowed_methods, reason = "the one place")]
fn now() -> Instant {
    Instant::now()
}
