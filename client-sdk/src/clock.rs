//! The one place where the SDK reads the clock and takes chance.

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
