//! What can be seen of a live connection from outside, without asking it: written by its task, read by whoever looks.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::session::queue::Queue;

/// Of one connection.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Keep Alive in seconds; 0: none.
    pub(crate) keep_alive_s: u64,
    /// The queue of its session, once there is one.
    queue: OnceLock<Arc<Queue>>,
    subscriptions: AtomicUsize,
    inflight: AtomicUsize,
    /// Since when the client takes nothing: ms since it began to log in, from 1 on; 0: it takes what comes.
    blocked_ms: AtomicU64,
    /// Somebody was told that it takes nothing.
    told: AtomicBool,
}

impl Vitals {
    pub(crate) fn new(keep_alive_s: u64) -> Self {
        Self {
            keep_alive_s,
            ..Self::default()
        }
    }

    pub(crate) fn set_queue(&self, queue: &Arc<Queue>) {
        self.queue.get_or_init(|| Arc::clone(queue));
    }

    pub(crate) fn set_subscriptions(&self, count: usize) {
        self.subscriptions.store(count, Ordering::Relaxed);
    }

    /// After each turn: deliveries in flight, and when, after the begin of the login, the client took something last, if
    /// it takes nothing now.
    pub(crate) fn note(&self, inflight: usize, blocked: Option<Duration>) {
        self.inflight.store(inflight, Ordering::Relaxed);
        let ms = blocked.map_or(0, |since| {
            u64::try_from(since.as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1))
        });
        // Written by the connection's task alone: no exchange is needed.
        if self.blocked_ms.load(Ordering::Relaxed) != ms {
            self.blocked_ms.store(ms, Ordering::Relaxed);
            self.told.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.get()
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    pub(crate) fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Relaxed)
    }

    /// For how long the client has taken nothing of what waits for it. `age`: since the begin of the login.
    pub(crate) fn blocked_for(&self, age: Duration) -> Option<Duration> {
        let since = self.blocked_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(age.saturating_sub(Duration::from_millis(since)))
    }

    /// True the first time since the client stopped to take what comes.
    pub(crate) fn tell(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_again_is_told_of_again() {
        let vitals = Vitals::new(60);
        let second = Duration::from_secs(1);
        assert_eq!(vitals.blocked_for(second), None);
        vitals.note(3, Some(second));
        assert_eq!(vitals.blocked_for(second * 4), Some(second * 3));
        assert!(vitals.tell());
        vitals.note(4, Some(second));
        assert!(!vitals.tell(), "it is the same time");
        vitals.note(0, None);
        assert_eq!(vitals.blocked_for(second), None);
        vitals.note(0, Some(second * 2));
        assert!(vitals.tell());
    }
}
