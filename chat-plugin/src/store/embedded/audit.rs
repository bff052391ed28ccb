//! Reads and upkeep of the audit log.

use std::ops::{Bound, ControlFlow};

use broker::store::kv::{KeyRange, KvBatch, KvEngine, Order};
use proto::ids::{Handle, UserId};

use super::values::audit as values;
use super::{keys, reads};
use crate::domain::audit::{AuditKeep, AuditLine, AuditLog};
use crate::store::{StoreError, tables};

/// Keys of lines, and behind which one to go on.
type Found = (Vec<Vec<u8>>, Option<Vec<u8>>);

/// Lines that one look for those of a user passes.
const PAGE: usize = 1_000;

/// Lines of a log, the newest first, at most `limit` before `before`.
pub(super) fn lines(
    engine: &impl KvEngine,
    log: AuditLog,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, AuditLine)>, StoreError> {
    let (first, last) = (keys::audit(log, 0), keys::audit(log, u64::MAX));
    let end = before.map(|before| keys::audit(log, before));
    let range = KeyRange {
        from: Bound::Included(&first),
        to: end
            .as_ref()
            .map_or(Bound::Included(&last), |end| Bound::Excluded(end)),
    };
    let mut found = Vec::new();
    let mut failed = Ok(());
    if limit == 0 {
        return Ok(found);
    }
    engine.scan(tables::AUDIT, range, Order::Descending, &mut |key, row| {
        match number(key).and_then(|number| Ok((number, values::read_line(row)?))) {
            Ok(line) => found.push(line),
            Err(error) => failed = Err(error),
        }
        if failed.is_err() || found.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    failed.map(|()| found)
}

/// The number of the newest line.
pub(super) fn last(engine: &impl KvEngine, log: AuditLog) -> Result<Option<u64>, StoreError> {
    let (first, last) = (keys::audit(log, 0), keys::audit(log, u64::MAX));
    let range = KeyRange::closed(&first, &last);
    let mut found = None;
    engine.scan(tables::AUDIT, range, Order::Descending, &mut |key, _| {
        found = Some(number(key));
        ControlFlow::Break(())
    })?;
    found.transpose()
}

/// Keys of lines that say more of a user than his id, of some that are looked at behind `after`; and where to go on.
pub(super) fn of_user(
    engine: &impl KvEngine,
    (user, handle): (UserId, Option<&Handle>),
    after: Option<&[u8]>,
) -> Result<Found, StoreError> {
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Unbounded,
    };
    let (mut found, mut seen, mut end) = (Vec::new(), 0, None);
    reads::visit(engine, tables::AUDIT, range, PAGE, |key, row| {
        if values::read_line(row)?.forget(user, handle) {
            found.push(key.to_vec());
        }
        seen += 1;
        end = Some(key.to_vec());
        Ok(())
    })?;
    Ok((found, end.filter(|_| seen == PAGE)))
}

/// Drops the oldest lines of a log that are too old or too many, some of them at once; the newest one stays, so that no number
/// comes twice. Says how many went, and whether there may be more.
pub(super) fn drop_old(
    engine: &impl KvEngine,
    log: AuditLog,
    keep: AuditKeep,
    slice: usize,
) -> Result<(usize, bool), StoreError> {
    let Some(newest) = last(engine, log)? else {
        return Ok((0, false));
    };
    let enough = newest.saturating_sub(keep.lines_max.max(1));
    let (first, last) = (keys::audit(log, 0), keys::audit(log, u64::MAX));
    let range = KeyRange::closed(&first, &last);
    let mut batch = KvBatch::default();
    engine.scan(tables::AUDIT, range, Order::Ascending, &mut |key, row| {
        // One that makes no sense is as old as it can be.
        let number = number(key).unwrap_or_default();
        let ts_ms = values::read_line_time(row).unwrap_or_default();
        let is_over = number <= enough || ts_ms < keep.from_ms;
        if number == newest || !is_over || batch.len() >= slice {
            return ControlFlow::Break(());
        }
        batch.remove(tables::AUDIT, key);
        ControlFlow::Continue(())
    })?;
    if !batch.is_empty() {
        engine.commit_relaxed(&batch)?;
    }
    Ok((batch.len(), batch.len() >= slice))
}

fn number(key: &[u8]) -> Result<u64, StoreError> {
    let number = key.last_chunk().filter(|_| key.len() == 9);
    let number = number.ok_or_else(|| reads::bad_key(tables::AUDIT))?;
    Ok(u64::from_be_bytes(*number))
}
