//! Counters of the chat, for whoever exports them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::error::ErrorName;

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    refused: [AtomicU64; ErrorName::ALL.len()],
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
