//! Messages that wait for their time: a row of their own, and one by which they are found when they are due.

use broker::store::kv::KvEngine;
use proto::ids::UserId;

use super::super::{keys, values};
use super::Writer;
use super::joining::Rows;
use super::waiting::Tally;
use crate::domain::entry::Draft;
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    /// Lets a message wait, one of at most `max` of its user. Among them a message id names one, wherever it goes.
    pub(super) fn schedule(
        &mut self,
        scheduled: &Scheduled,
        max: usize,
    ) -> Result<Scheduling, StoreError> {
        let key = keys::scheduled(scheduled.user, &scheduled.mid);
        if let Some(row) = self.row(tables::SCHEDULED, &key)? {
            let before = values::read_scheduled(scheduled.user, scheduled.mid.clone(), &row)?;
            let is_same = before.conversation == scheduled.conversation
                && before.digest == scheduled.digest
                && before.at_ms == scheduled.at_ms;
            return Ok(if is_same {
                Scheduling::Waited
            } else {
                Scheduling::Conflict
            });
        }
        let of_user = scheduled.user.as_bytes();
        let waiting = self.tally(of_user)?;
        if waiting.count >= max as u64 {
            return Ok(Scheduling::Full);
        }
        self.put_tally(of_user, waiting.and(scheduled.at_ms));
        self.occupied.insert(tables::SCHEDULED, true);
        self.put_scheduled(scheduled);
        Ok(Scheduling::Waits)
    }

    /// Changes a scheduled message, or cancels it, if it is still as it was. Says whether it was.
    pub(super) fn reschedule(
        &mut self,
        before: &Scheduled,
        after: Option<&Scheduled>,
    ) -> Result<bool, StoreError> {
        if !self.is_scheduled(before)? {
            return Ok(false);
        }
        if let Some(after) = after {
            self.remove(tables::DUE, &due_key(before));
            self.put_scheduled(after);
        } else {
            let rows = self.ends_schedule(before)?;
            self.write_rows(rows);
        }
        Ok(true)
    }

    /// Is this draft not the sending of a scheduled message, or of one that is as it was?
    pub(super) fn is_due(&self, draft: &Draft) -> Result<bool, StoreError> {
        let scheduled = draft.scheduled.as_deref();
        scheduled.map_or(Ok(true), |scheduled| self.is_scheduled(scheduled))
    }

    fn is_scheduled(&self, scheduled: &Scheduled) -> Result<bool, StoreError> {
        let key = keys::scheduled(scheduled.user, &scheduled.mid);
        let row = self.row(tables::SCHEDULED, &key)?;
        Ok(row.is_some_and(|row| row == values::write_scheduled(scheduled)))
    }

    /// The rows without one that waits.
    pub(super) fn ends_schedule(&self, scheduled: &Scheduled) -> Result<Rows, StoreError> {
        let of_user = scheduled.user.as_bytes().to_vec();
        let left = self.tally(&of_user)?.less(1);
        let key = keys::scheduled(scheduled.user, &scheduled.mid);
        Ok(vec![
            (tables::SCHEDULED, key, None),
            (tables::DUE, due_key(scheduled), None),
            (tables::WAITING, of_user, left.row()),
        ])
    }

    /// Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn remove_all_scheduled(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, row) in self.rows_of(tables::SCHEDULED, user)? {
            let mid = super::super::scheduled::mid_of(&key)?;
            let scheduled = values::read_scheduled(user, mid, &row)?;
            self.remove(tables::SCHEDULED, &key);
            self.remove(tables::DUE, &due_key(&scheduled));
        }
        self.put_tally(user.as_bytes(), Tally::default());
        Ok(())
    }

    fn put_scheduled(&mut self, scheduled: &Scheduled) {
        let key = keys::scheduled(scheduled.user, &scheduled.mid);
        self.put(tables::SCHEDULED, &key, values::write_scheduled(scheduled));
        if scheduled.refused.is_none() {
            let key = due_key(scheduled);
            self.put(tables::DUE, &key, values::PRESENT.to_vec());
        }
    }
}

fn due_key(scheduled: &Scheduled) -> Vec<u8> {
    keys::due(scheduled.due_ms, scheduled.user, &scheduled.mid)
}
