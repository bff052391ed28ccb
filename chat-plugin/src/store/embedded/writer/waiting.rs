//! Messages that wait, for their time or for a moderator: how many there are, and what becomes of one that is sent meanwhile.

use std::ops::ControlFlow;

use broker::store::kv::{KeyRange, KvEngine, Order, Table};

use super::super::{keys, values};
use super::Writer;
use super::joining::Rows;
use crate::domain::entry::{Draft, Outcome};
use crate::store::{StoreError, tables};

/// How many wait, and when the newest came: so that nobody has to read them to count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Tally {
    pub(in super::super) count: u64,
    pub(in super::super) last_ms: u64,
}

impl Tally {
    pub(super) fn and(self, ts_ms: u64) -> Self {
        Self {
            count: self.count + 1,
            last_ms: ts_ms,
        }
    }

    pub(in super::super) fn less(self, count: u64) -> Self {
        Self {
            count: self.count.saturating_sub(count),
            ..self
        }
    }

    /// As it is at rest; `None`: there is no row.
    pub(in super::super) fn row(self) -> Option<Vec<u8>> {
        (self.count > 0).then(|| values::write_tally(self))
    }
}

impl<K: KvEngine> Writer<K> {
    /// Under `cid`: held in a conversation; under `cid uid`: of one sender; under `uid`: scheduled.
    pub(super) fn tally(&self, key: &[u8]) -> Result<Tally, StoreError> {
        let row = self.row(tables::WAITING, key)?;
        row.map_or_else(|| Ok(Tally::default()), |row| values::read_tally(&row))
    }

    pub(super) fn put_tally(&mut self, key: &[u8], tally: Tally) {
        match tally.row() {
            Some(value) => self.put(tables::WAITING, key, value),
            None => self.remove(tables::WAITING, key),
        }
    }

    /// What waits under the message id of a draft goes with the commit that stores it: these rows. Of a scheduled message the
    /// sender may send something else himself; what is held is settled, and so its id is taken.
    pub(super) fn plan_waiting(
        &mut self,
        draft: &Draft,
    ) -> Result<Result<Rows, Outcome>, StoreError> {
        let mut rows = Rows::new();
        if !draft.kind.is_written() {
            return Ok(Ok(rows));
        }
        let (conversation, from) = (draft.conversation, draft.from);
        if self.has_any(tables::SCHEDULED)? {
            let key = keys::scheduled(from, &draft.mid);
            if let Some(row) = self.row(tables::SCHEDULED, &key)? {
                let scheduled = values::read_scheduled(from, draft.mid.clone(), &row)?;
                if scheduled.conversation == conversation {
                    rows.extend(self.ends_schedule(&scheduled)?);
                }
            }
        }
        if !draft.was_held
            && let Some(outcome) = self.rejected(draft)?
        {
            return Ok(Err(outcome));
        }
        let mut is_held = false;
        if self.has_any(tables::HELD)? {
            let key = keys::held(conversation, from, draft.mid.as_str());
            if let Some(row) = self.row(tables::HELD, &key)? {
                if values::read_held_digest(&row)? != draft.digest {
                    return Ok(Err(Outcome::Conflict));
                }
                is_held = true;
                rows.extend(self.ends_hold(conversation, from, &draft.mid)?);
            }
        }
        if draft.was_held && !is_held {
            return Ok(Err(Outcome::NotHeld));
        }
        Ok(Ok(rows))
    }

    /// Whether there is anything in a table, or was since the start: what nobody uses costs nothing.
    pub(super) fn has_any(&mut self, table: Table) -> Result<bool, StoreError> {
        if let Some(has_any) = self.occupied.get(&table) {
            return Ok(*has_any);
        }
        let mut has_any = false;
        self.engine()
            .scan(table, KeyRange::ALL, Order::Ascending, &mut |_, _| {
                has_any = true;
                ControlFlow::Break(())
            })?;
        self.occupied.insert(table, has_any);
        Ok(has_any)
    }
}
