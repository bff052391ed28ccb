//! The one place where the broker reads the clock. Everything below the connection gets time as an argument.

use std::time::Instant;

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
