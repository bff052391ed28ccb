//! The clock of the stories: deadlines and durations. Nothing else here asks what time it is.

use std::time::{Duration, Instant};

/// How long a story waits for something before it fails. Long, because two cores may be shared by many builds.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Time since it was started.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the stories read the clock"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// What is left of [`PATIENCE`]; `None` when nothing is.
    pub(crate) fn left(self) -> Option<Duration> {
        PATIENCE
            .checked_sub(self.elapsed())
            .filter(|left| !left.is_zero())
    }
}

/// Looks again and again until `look` finds something. Only for what gives no event: files and exits of processes.
///
/// # Panics
/// When [`PATIENCE`] is over.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(watch.left().is_some(), "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
