//! The writer thread: takes what waits in the journal, commits it, tells who waited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SessionStore;
use super::sent::HELD_BACK;
use crate::clock;
use crate::journal::{Journal, Wake, Written};
use crate::metrics::Commits;
use crate::store::budget::{Budget, DiskGuard};
use crate::store::condition::Condition;
use crate::store::kv::EngineError;

/// All that the thread owns.
pub(super) struct Writer<S> {
    store: S,
    end: Farewell,
    commits: Arc<Commits>,
    disk: DiskGuard,
    beaten_at: Instant,
}

/// Leaves nobody waiting, however the thread ends.
struct Farewell {
    journal: Arc<Journal>,
    condition: Arc<Condition>,
}

impl<S: SessionStore> Writer<S> {
    pub(super) fn new(
        store: S,
        journal: Arc<Journal>,
        condition: Arc<Condition>,
        commits: Arc<Commits>,
        disk: DiskGuard,
    ) -> Self {
        Self {
            store,
            commits,
            disk,
            end: Farewell { journal, condition },
            beaten_at: clock::now(),
        }
    }

    /// Works until the journal is closed and empty, or a write fails.
    pub(super) fn run(mut self) {
        if let Err(error) = self.work() {
            self.end.poison(&error.to_string());
        }
    }

    fn work(&mut self) -> Result<(), EngineError> {
        let mut group: Vec<Written> = Vec::new();
        loop {
            let idle = if self.store.holds_back() {
                HELD_BACK
            } else {
                BEAT_INTERVAL
            };
            let wake = self.end.journal.take(&mut group, idle, RELAXED_DELAY);
            if wake == Wake::Closed {
                return self.store.finish();
            }
            let (began, entries) = (clock::now(), group.len());
            let mut waiters = Vec::new();
            let mut changes = group.drain(..).flat_map(|written| {
                waiters.extend(written.waiter);
                written.changes
            });
            self.store.commit(&mut changes)?;
            drop(changes);
            let now = clock::now();
            if entries > 0 {
                self.commits
                    .note(now.saturating_duration_since(began), entries);
            }
            for waiter in waiters {
                waiter.tell();
            }
            self.look_at_disk()?;
            if now.saturating_duration_since(self.beaten_at) >= BEAT_INTERVAL {
                self.beaten_at = now;
                self.store.beat()?;
            }
        }
    }

    fn look_at_disk(&mut self) -> Result<(), EngineError> {
        let full = match self.store.budget(&mut self.disk)? {
            Budget::NotLooked => return Ok(()),
            Budget::Room => None,
            Budget::Full(reason) => Some(reason),
        };
        self.end.journal.set_full(full.is_some());
        self.end.condition.set_read_only(full);
        Ok(())
    }
}

impl Farewell {
    fn poison(&self, reason: &str) {
        tracing::error!(%reason, "sessions could not be made durable; nothing more is written");
        self.condition.poison(reason.to_owned());
        self.journal.poison();
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.poison("the writer thread panicked");
        }
    }
}

/// What nobody waits for is written after this at the latest.
const RELAXED_DELAY: Duration = Duration::from_millis(200);
/// How often the store notes that the broker is alive.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
