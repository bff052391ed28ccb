//! Work beside the commits: the disk budget, and the hourly removal of what is over.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use broker::store::kv::{EngineError, KeyRange, KvBatch, KvEngine, Order};

use super::queue::Reply;
use super::values;
use crate::store::{StoreError, tables};

/// The budget is looked at so often, if something was written.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// And whenever so much was written, or an eighth of what is left.
const CHECK_BYTES: u64 = 32 * 1024 * 1024;
/// Rows that one piece of the hourly work looks at.
const SLICE_ROWS: usize = 1_000;
/// Receipts are kept so long.
const RECEIPT_KEEP_MS: u64 = 30 * 24 * 3600 * 1000;

/// Watches what the store occupies on the disk.
#[derive(Debug)]
pub(super) struct DiskGuard {
    /// 0: no budget.
    bytes_max: u64,
    written: u64,
    check_at_bytes: u64,
    checked_at: Option<Duration>,
    is_full: bool,
}

impl DiskGuard {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            written: 0,
            check_at_bytes: 0,
            checked_at: None,
            is_full: false,
        }
    }

    pub(super) fn note_written(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
    }

    /// Looks, if it is time.
    pub(super) fn check(
        &mut self,
        engine: &impl KvEngine,
        now: Duration,
    ) -> Result<Budget, EngineError> {
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
pub(super) enum Budget {
    /// It was not time to look.
    NotLooked,
    /// There is room.
    Room,
    /// It is used up, in words.
    Full(String),
}

/// The hourly work, in pieces that do not hold up commits.
pub(super) struct Maintenance {
    steps: VecDeque<Step>,
    replies: Vec<Reply<()>>,
}

enum Step {
    /// Drop idempotency keys of weeks before this one; from this key on.
    Weeks { keep: u16, after: Option<Vec<u8>> },
    /// Drop receipt rows from before this time; from this key on.
    Receipts {
        keep_ms: u64,
        after: Option<Vec<u8>>,
    },
}

impl Maintenance {
    pub(super) fn new(keep_week: u16, now_ms: u64) -> Self {
        Self {
            steps: VecDeque::from([
                Step::Weeks {
                    keep: keep_week,
                    after: None,
                },
                Step::Receipts {
                    keep_ms: now_ms.saturating_sub(RECEIPT_KEEP_MS),
                    after: None,
                },
            ]),
            replies: Vec::new(),
        }
    }

    /// One more caller waits for the end.
    pub(super) fn join(&mut self, reply: Reply<()>) {
        self.replies.push(reply);
    }

    pub(super) fn is_over(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn finish(self, result: &Result<(), StoreError>) {
        for reply in self.replies {
            // A caller that no longer waits does not want the answer either.
            let _gone = reply.send(result.clone()).is_err();
        }
    }

    /// Does one piece; says how many rows it removed.
    pub(super) fn slice(&mut self, engine: &impl KvEngine) -> Result<usize, StoreError> {
        let Some(step) = self.steps.pop_front() else {
            return Ok(0);
        };
        let (removed, next) = match step {
            Step::Weeks { keep, after } => {
                let end = keep.to_be_bytes();
                let range = KeyRange {
                    from: after.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
                    to: Bound::Excluded(&end),
                };
                let progress = engine.delete_range(tables::IDEMPOTENCY, range, SLICE_ROWS)?;
                let next = progress.more_after.map(|key| Step::Weeks {
                    keep,
                    after: Some(key),
                });
                (progress.removed, next)
            }
            Step::Receipts { keep_ms, after } => {
                let (removed, last) = drop_receipts(engine, keep_ms, after.as_deref())?;
                let next = last.map(|key| Step::Receipts {
                    keep_ms,
                    after: Some(key),
                });
                (removed, next)
            }
        };
        if let Some(next) = next {
            self.steps.push_front(next);
        }
        Ok(removed)
    }
}

fn drop_receipts(
    engine: &impl KvEngine,
    keep_ms: u64,
    after: Option<&[u8]>,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Unbounded,
    };
    let mut batch = KvBatch::default();
    let mut seen = 0;
    let mut last = None;
    engine.scan(
        tables::RECEIPT_DUE,
        range,
        Order::Ascending,
        &mut |key, value| {
            // A row that makes no sense is dropped, too: all it could cause is a repeated receipt.
            let ts_ms = values::read_time(tables::RECEIPT_DUE.name(), value).unwrap_or_default();
            if ts_ms < keep_ms {
                batch.remove(tables::RECEIPT_DUE, key);
            }
            seen += 1;
            if seen < SLICE_ROWS {
                return ControlFlow::Continue(());
            }
            last = Some(key.to_vec());
            ControlFlow::Break(())
        },
    )?;
    if !batch.is_empty() {
        engine.commit_relaxed(&batch)?;
    }
    Ok((batch.len(), last))
}
