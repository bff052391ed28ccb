//! Work beside the commits: the hourly removal of what is over.

use std::collections::{HashMap, VecDeque};
use std::ops::{Bound, ControlFlow};

use broker::store::kv::{EngineError, KeyRange, KvBatch, KvEngine, Order, Progress, Table};

use super::queue::Reply;
use super::writer::waiting::Tally;
use super::{audit, keys, reads, values};
use crate::domain::audit::{AuditKeep, AuditLog};
use crate::store::{IdPage, StoreError, tables};

/// Rows that one piece of the hourly work looks at.
const SLICE_ROWS: usize = 1_000;
/// The same, of rows that hold whole messages.
const HELD_ROWS: usize = 32;
/// Receipts are kept so long.
const RECEIPT_KEEP_MS: u64 = 30 * 24 * 3600 * 1000;
/// Moderators have so long to decide; then a message that was held is as good as rejected.
const HELD_KEEP_MS: u64 = 14 * 24 * 3600 * 1000;

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
    /// Drop times of moved marks from before this time; from this key on.
    Moved {
        keep_ms: u64,
        after: Option<Vec<u8>>,
    },
    /// Drop messages that were held before this time; from this key on.
    Held {
        keep_ms: u64,
        after: Option<Vec<u8>>,
    },
    /// Forget messages that were rejected and had come before this time; from this key on.
    Rejected {
        keep_ms: u64,
        after: Option<Vec<u8>>,
    },
    /// Drop lines of an audit log.
    Audit { log: AuditLog, keep: AuditKeep },
    /// Drop what is over of the private queues of devices: events, then their data; from this key on.
    DeviceEvents {
        table: Table,
        now_ms: u64,
        after: Option<Vec<u8>>,
    },
    /// Drop QoS 2 exchanges that began before this time, and whose client has not come back to end them; from this key on.
    Exchanges {
        from_ms: u64,
        after: Option<Vec<u8>>,
    },
}

impl Maintenance {
    pub(super) fn new(
        keep_week: u16,
        (now_ms, exchanges_from_ms, keep): (u64, u64, AuditKeep),
    ) -> Self {
        let audit = AuditLog::ALL.map(|log| Step::Audit { log, keep });
        let mut steps = VecDeque::from(audit);
        steps.extend([
            Step::Weeks {
                keep: keep_week,
                after: None,
            },
            Step::Receipts {
                keep_ms: now_ms.saturating_sub(RECEIPT_KEEP_MS),
                after: None,
            },
            Step::Moved {
                keep_ms: now_ms.saturating_sub(RECEIPT_KEEP_MS),
                after: None,
            },
            Step::Held {
                keep_ms: now_ms.saturating_sub(HELD_KEEP_MS),
                after: None,
            },
            Step::Rejected {
                keep_ms: now_ms.saturating_sub(HELD_KEEP_MS),
                after: None,
            },
            device_events(tables::DEVICE_EVENT, now_ms),
            device_events(tables::DEVICE_DATA, now_ms),
            Step::Exchanges {
                from_ms: exchanges_from_ms,
                after: None,
            },
        ]);
        Self {
            steps,
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
                let progress = drop_weeks(engine, keep, after.as_deref())?;
                let next = progress.more_after.map(|key| Step::Weeks {
                    keep,
                    after: Some(key),
                });
                (progress.removed, next)
            }
            Step::Receipts { keep_ms, after } => {
                // A row that makes no sense is dropped, too: all it could cause is a repeated receipt.
                let is_old = |value: &[u8]| {
                    let ts_ms = values::read_time(tables::RECEIPT_DUE.name(), value);
                    ts_ms.unwrap_or_default() < keep_ms
                };
                let (removed, last) =
                    drop_old(engine, tables::RECEIPT_DUE, after.as_deref(), is_old)?;
                let next = last.map(|key| Step::Receipts {
                    keep_ms,
                    after: Some(key),
                });
                (removed, next)
            }
            Step::Moved { keep_ms, after } => {
                let is_old = |value: &[u8]| {
                    let ts_ms = values::read_time(tables::MOVED.name(), value);
                    ts_ms.unwrap_or_default() < keep_ms
                };
                let (removed, last) = drop_old(engine, tables::MOVED, after.as_deref(), is_old)?;
                let next = last.map(|key| Step::Moved {
                    keep_ms,
                    after: Some(key),
                });
                (removed, next)
            }
            Step::Held { keep_ms, after } => {
                let (removed, last) = drop_held(engine, after.as_deref(), keep_ms)?;
                let next = last.map(|key| Step::Held {
                    keep_ms,
                    after: Some(key),
                });
                (removed, next)
            }
            Step::Rejected { keep_ms, after } => {
                let is_old = |value: &[u8]| {
                    let row = values::audit::read_rejected(value);
                    row.map_or(true, |(_, ts_ms)| ts_ms < keep_ms)
                };
                let (removed, last) = drop_old(engine, tables::REJECTED, after.as_deref(), is_old)?;
                let next = last.map(|key| Step::Rejected {
                    keep_ms,
                    after: Some(key),
                });
                (removed, next)
            }
            Step::Audit { log, keep } => {
                let (removed, more) = audit::drop_old(engine, log, keep, SLICE_ROWS)?;
                (removed, more.then_some(Step::Audit { log, keep }))
            }
            Step::DeviceEvents {
                table,
                now_ms,
                after,
            } => {
                let is_old = |value: &[u8]| {
                    values::devices::read_expires(value).is_ok_and(|at_ms| at_ms <= now_ms)
                };
                let (removed, last) = drop_old(engine, table, after.as_deref(), is_old)?;
                let next = last.map(|key| Step::DeviceEvents {
                    table,
                    now_ms,
                    after: Some(key),
                });
                (removed, next)
            }
            Step::Exchanges { from_ms, after } => {
                let is_old = |value: &[u8]| {
                    let row = values::read_exchanged(value);
                    row.is_ok_and(|row| row.ts_ms < from_ms)
                };
                let (removed, last) = drop_old(engine, tables::EXCHANGE, after.as_deref(), is_old)?;
                let next = last.map(|key| Step::Exchanges {
                    from_ms,
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

/// Removes some of the idempotency keys of weeks before this one, behind a key.
pub(super) fn drop_weeks(
    engine: &impl KvEngine,
    keep: u16,
    after: Option<&[u8]>,
) -> Result<Progress, EngineError> {
    let end = keep.to_be_bytes();
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Excluded(&end),
    };
    engine.delete_range(tables::IDEMPOTENCY, range, SLICE_ROWS)
}

/// Counts at most so many idempotency keys, behind a key.
pub(super) fn ids(
    engine: &impl KvEngine,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<IdPage, StoreError> {
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Unbounded,
    };
    let mut page = IdPage::default();
    let mut left = limit;
    reads::visit(engine, tables::IDEMPOTENCY, range, limit, |key, row| {
        let week = key
            .first_chunk()
            .ok_or_else(|| reads::bad_key(tables::IDEMPOTENCY))?;
        let week = u16::from_be_bytes(*week);
        if page.weeks.last().is_none_or(|(last, ..)| *last != week) {
            page.weeks.push((week, 0, 0));
        }
        if let Some((_, rows, bytes)) = page.weeks.last_mut() {
            *rows += 1;
            *bytes += (key.len() + row.len()) as u64;
        }
        left -= 1;
        page.next = (left == 0).then(|| key.to_vec());
        Ok(())
    })?;
    Ok(page)
}

fn device_events(table: Table, now_ms: u64) -> Step {
    Step::DeviceEvents {
        table,
        now_ms,
        after: None,
    }
}

/// Looks at one page of a table, and says after which key the next one begins.
fn drop_old(
    engine: &impl KvEngine,
    table: Table,
    after: Option<&[u8]>,
    is_old: impl Fn(&[u8]) -> bool,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Unbounded,
    };
    let mut batch = KvBatch::default();
    let mut seen = 0;
    let mut last = None;
    engine.scan(table, range, Order::Ascending, &mut |key, value| {
        if is_old(value) {
            batch.remove(table, key);
        }
        seen += 1;
        if seen < SLICE_ROWS {
            return ControlFlow::Continue(());
        }
        last = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    if !batch.is_empty() {
        engine.commit_relaxed(&batch)?;
    }
    Ok((batch.len(), last))
}

/// As [`drop_old`], of messages that are held: how many there are is counted.
fn drop_held(
    engine: &impl KvEngine,
    after: Option<&[u8]>,
    keep_ms: u64,
) -> Result<(usize, Option<Vec<u8>>), StoreError> {
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Unbounded,
    };
    let mut batch = KvBatch::default();
    let mut dropped: HashMap<Vec<u8>, u64> = HashMap::new();
    let (mut seen, mut removed, mut last) = (0, 0, None);
    engine.scan(tables::HELD, range, Order::Ascending, &mut |key, value| {
        if values::read_held_time(value).is_ok_and(|ts_ms| ts_ms < keep_ms) {
            batch.remove(tables::HELD, key);
            removed += 1;
            for bytes in [keys::CID_BYTES, keys::CID_BYTES + 16] {
                let of = key.get(..bytes).unwrap_or(key);
                *dropped.entry(of.to_vec()).or_default() += 1;
            }
        }
        seen += 1;
        if seen < HELD_ROWS {
            return ControlFlow::Continue(());
        }
        last = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    for (key, count) in dropped {
        let row = engine.get(tables::WAITING, &key)?;
        let tally = row.map_or_else(|| Ok(Tally::default()), |row| values::read_tally(&row));
        match tally?.less(count).row() {
            Some(value) => batch.put(tables::WAITING, &key, &value),
            None => batch.remove(tables::WAITING, &key),
        }
    }
    if !batch.is_empty() {
        engine.commit_relaxed(&batch)?;
    }
    Ok((removed, last))
}
