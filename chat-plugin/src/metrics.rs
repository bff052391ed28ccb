//! Counters of the chat, for whoever exports them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use broker::metrics::{Counter, Gauge};
use proto::error::ErrorName;

/// Counters since the start of the process, and one of what there is now.
#[derive(Debug, Default)]
pub struct Metrics {
    refused: [AtomicU64; ErrorName::ALL.len()],
    /// Subscriptions to the presence of a user, now.
    pub presence_watches: Gauge,
    /// States of users that connections were told.
    pub presence_events: Counter,
    /// Rows written because a user went offline, or chose how to be seen.
    pub presence_writes: Counter,
    /// Hints of typing that connections were told.
    pub typing_events: Counter,
}

impl Metrics {
    pub(crate) fn refused(&self, error: ErrorName) {
        let place = ErrorName::ALL.iter().position(|known| *known == error);
        if let Some(counter) = place.and_then(|index| self.refused.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refused publishes by name of the error.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let counts = ErrorName::ALL.iter().zip(&self.refused);
        counts
            .map(|(error, count)| (error.name(), count.load(Ordering::Relaxed)))
            .collect()
    }
}
