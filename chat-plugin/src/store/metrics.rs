//! What a store measures.

use broker::metrics::{Commits, Counter};

/// Since the start of the process.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Commits that somebody waited for.
    pub commits: Commits,
    /// Entries of conversations that became durable.
    pub entries: Counter,
}
