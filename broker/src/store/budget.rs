//! The disk budget: what a store occupies is looked at now and then, and it stops growing before the disk is full.

use std::time::Duration;

use super::kv::{EngineError, KvEngine};

/// The budget is looked at so often, if something was written.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// And whenever so much was written, or an eighth of what is left.
const CHECK_BYTES: u64 = 32 * 1024 * 1024;

/// Watches what the store occupies on the disk.
#[derive(Debug)]
pub struct DiskGuard {
    /// 0: no budget.
    bytes_max: u64,
    written: u64,
    check_at_bytes: u64,
    checked_at: Option<Duration>,
    is_full: bool,
}

impl DiskGuard {
    /// A guard of so many bytes; 0: no limit.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            written: 0,
            check_at_bytes: 0,
            checked_at: None,
            is_full: false,
        }
    }

    /// So much was written since.
    pub fn note_written(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    /// Looks, if it is time. `now` is measured from wherever, by a clock that does not jump.
    ///
    /// # Errors
    /// The files cannot be looked at.
    pub fn check(&mut self, engine: &impl KvEngine, now: Duration) -> Result<Budget, EngineError> {
        let is_early = self
            .checked_at
            .is_some_and(|at| now.saturating_sub(at) < CHECK_INTERVAL);
        if self.bytes_max == 0 || (is_early && self.written < self.check_at_bytes) {
            return Ok(Budget::NotLooked);
        }
        let used = engine.stats()?.disk_bytes;
        let left = self.bytes_max.saturating_sub(used);
        self.written = 0;
        self.check_at_bytes = (left / 8).min(CHECK_BYTES);
        self.checked_at = Some(now);
        let resumes_at = self.bytes_max / 100 * 95;
        self.is_full = used
            >= if self.is_full {
                resumes_at
            } else {
                self.bytes_max
            };
        Ok(if self.is_full {
            Budget::Full(format!(
                "{used} bytes of disk are used, max_disk_bytes is {}",
                self.bytes_max
            ))
        } else {
            Budget::Room
        })
    }
}

/// How the disk budget stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Budget {
    /// It was not time to look.
    NotLooked,
    /// There is room.
    Room,
    /// It is used up, in words.
    Full(String),
}
