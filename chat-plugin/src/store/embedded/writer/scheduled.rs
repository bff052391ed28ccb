//! Messages that wait for their time: a row of their own, and one by which they are found when they are due.

use broker::store::kv::KvEngine;
use proto::ids::UserId;

use super::super::{keys, values};
use super::Writer;
use crate::domain::entry::Draft;
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    /// Lets a message wait, one of at most `max` of its user.
    pub(super) fn schedule(
        &mut self,
        scheduled: &Scheduled,
        max: usize,
    ) -> Result<Scheduling, StoreError> {
        let key = keys::scheduled(scheduled.user, &scheduled.mid);
        if let Some(row) = self.row(tables::SCHEDULED, &key)? {
            let before = values::read_scheduled(scheduled.user, scheduled.mid.clone(), &row)?;
            let is_same = before.digest == scheduled.digest && before.at_ms == scheduled.at_ms;
            return Ok(if is_same {
                Scheduling::Waited
            } else {
                Scheduling::Conflict
            });
        }
        self.barrier()?;
        if self.rows_of(tables::SCHEDULED, scheduled.user)?.len() >= max {
            return Ok(Scheduling::Full);
        }
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
        self.remove_scheduled(before);
        if let Some(after) = after {
            self.put_scheduled(after);
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

    pub(super) fn remove_scheduled(&mut self, scheduled: &Scheduled) {
        let (user, mid) = (scheduled.user, &scheduled.mid);
        self.remove(tables::SCHEDULED, &keys::scheduled(user, mid));
        self.remove(tables::DUE, &keys::due(scheduled.at_ms, user, mid));
    }

    /// Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn remove_all_scheduled(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, row) in self.rows_of(tables::SCHEDULED, user)? {
            let mid = super::super::scheduled::mid_of(&key)?;
            let scheduled = values::read_scheduled(user, mid, &row)?;
            self.remove_scheduled(&scheduled);
        }
        Ok(())
    }

    fn put_scheduled(&mut self, scheduled: &Scheduled) {
        let (user, mid) = (scheduled.user, &scheduled.mid);
        let value = values::write_scheduled(scheduled);
        self.put(tables::SCHEDULED, &keys::scheduled(user, mid), value);
        if scheduled.refused.is_none() {
            let key = keys::due(scheduled.at_ms, user, mid);
            self.put(tables::DUE, &key, values::PRESENT.to_vec());
        }
    }
}
