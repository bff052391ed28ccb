//! Reads of messages that wait for their time.

use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};

use broker::store::kv::{KeyRange, KvEngine, Order};
use proto::ids::{MessageId, UserId};

use super::{keys, reads, values};
use crate::domain::scheduled::Scheduled;
use crate::store::{StoreError, tables};

/// Of one user, in the order of their message ids, at most `limit` after `after`.
pub(super) fn of_user(
    engine: &impl KvEngine,
    user: UserId,
    after: Option<&MessageId>,
    limit: usize,
) -> Result<Vec<Scheduled>, StoreError> {
    let first = after.map_or_else(
        || user.as_bytes().to_vec(),
        |mid| keys::scheduled(user, mid),
    );
    let last = keys::join::<17>(&[user.as_bytes(), &[0xFF]]); // no message id has this byte
    let range = KeyRange {
        from: Bound::Excluded(&first),
        to: Bound::Excluded(&last),
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::SCHEDULED, range, limit, |key, row| {
        found.push(values::read_scheduled(user, mid_of(key)?, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Messages of one user that are due, in one answer: the others' are not to wait behind them.
const DUE_OF_USER: usize = 16;
/// Rows that are looked at for one answer.
const DUE_LOOKED_AT: usize = 8_192;

/// What is due, the oldest first, at most `limit`.
pub(super) fn due(
    engine: &impl KvEngine,
    now_ms: u64,
    limit: usize,
) -> Result<Vec<Scheduled>, StoreError> {
    let end = keys::short_time(now_ms.saturating_add(1));
    let (mut due, mut failed) = (Vec::new(), Ok(()));
    let mut of_user: HashMap<UserId, usize> = HashMap::new();
    let mut left = DUE_LOOKED_AT;
    let range = KeyRange::between(&[], &end);
    engine.scan(tables::DUE, range, Order::Ascending, &mut |key, _| {
        let key = key.get(6..).unwrap_or_default();
        let Some(user) = key.first_chunk() else {
            failed = Err(reads::bad_key(tables::DUE));
            return ControlFlow::Break(());
        };
        let user = UserId::from_bytes(*user);
        let count = of_user.entry(user).or_default();
        *count += 1;
        if *count <= DUE_OF_USER {
            due.push((user, key.to_vec()));
        }
        left -= 1;
        if due.len() >= limit || left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    failed?;
    let mut found = Vec::with_capacity(due.len());
    for (user, key) in due {
        // It may have been cancelled meanwhile.
        if let Some(row) = engine.get(tables::SCHEDULED, &key)? {
            found.push(values::read_scheduled(user, mid_of(&key)?, &row)?);
        }
    }
    Ok(found)
}

/// The message id at the end of a key.
pub(super) fn mid_of(key: &[u8]) -> Result<MessageId, StoreError> {
    let mid = key.get(16..).and_then(|mid| std::str::from_utf8(mid).ok());
    let mid = mid.and_then(|mid| mid.parse().ok());
    mid.ok_or_else(|| reads::bad_key(tables::SCHEDULED))
}
