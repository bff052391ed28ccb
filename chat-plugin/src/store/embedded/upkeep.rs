//! Work beside the commits: the hourly removal of what is over.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};

use broker::store::kv::{KeyRange, KvBatch, KvEngine, Order};

use super::queue::Reply;
use super::values;
use crate::store::{StoreError, tables};

/// Rows that one piece of the hourly work looks at.
const SLICE_ROWS: usize = 1_000;
/// Receipts are kept so long.
const RECEIPT_KEEP_MS: u64 = 30 * 24 * 3600 * 1000;

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
