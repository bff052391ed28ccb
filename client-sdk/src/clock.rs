//! The one place where the SDK reads the clock and takes chance.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The monotonic time of the runtime (tests may pause and advance it).
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the clock is read"
)]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until then; for ever without a time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The wall clock, in ms since 1970: for what outlives the process.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the clock is read"
)]
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The time of the server, as far as what it has said tells: never ahead of it. The wall clock of a device may be wrong.
#[derive(Debug, Default)]
pub(crate) struct ServerTime(Mutex<Option<(u64, Instant)>>);

impl ServerTime {
    /// The server says that this is the time, in ms since 1970, or was.
    pub(crate) fn heard(&self, ts: u64) {
        let now = now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| since(known, now) < ts) {
            *known = Some((ts, now));
        }
    }

    /// What it is now, if the server has said anything.
    pub(crate) fn now_ms(&self) -> Option<u64> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|known| since(known, now()))
    }
}

fn since((ts, at): (u64, Instant), now: Instant) -> u64 {
    let passed = now.saturating_duration_since(at).as_millis();
    ts.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
}

/// A number by chance, of 62 bits.
pub(crate) fn large_number() -> u64 {
    // What a UUID of version 7 ends with is chance.
    uuid::Uuid::now_v7().as_u64_pair().1 & ((1 << 62) - 1)
}

/// By chance, less than this.
pub(crate) fn chance(below: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    below.mul_f64(f64::from(random) / (f64::from(u32::MAX) + 1.0))
}
