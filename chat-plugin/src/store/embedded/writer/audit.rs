//! Lines of the audit log: in the very commit that does what they tell of.

use broker::store::kv::KvEngine;
use proto::ids::{Handle, UserId};

use super::super::audit;
use super::super::keys;
use super::super::values::audit as values;
use super::Writer;
use crate::domain::audit::AuditLine;
use crate::store::{StoreError, tables};

/// Lines of one log, however fast they come: the hourly upkeep keeps fewer.
const LINES_MAX: u64 = 1_000_000;

impl<K: KvEngine> Writer<K> {
    /// The number that a line gets. Looked up before anything is written.
    pub(super) fn plan_audit(&mut self, line: Option<&AuditLine>) -> Result<u64, StoreError> {
        let Some(log) = line.map(AuditLine::log) else {
            return Ok(0); // none is written
        };
        if let Some((_, last)) = self.audited.iter().find(|(known, _)| *known == log) {
            return Ok(last + 1);
        }
        let last = audit::last(self.engine(), log)?.unwrap_or_default();
        self.audited.push((log, last));
        Ok(last + 1)
    }

    /// Writes a line under the number that was planned.
    pub(super) fn write_audit(&mut self, line: Option<&AuditLine>, number: u64) {
        let Some(line) = line else { return };
        let log = line.log();
        for (known, last) in &mut self.audited {
            if *known == log {
                *last = number.max(*last);
            }
        }
        if let Some(oldest) = number.checked_sub(LINES_MAX) {
            self.remove(tables::AUDIT, &keys::audit(log, oldest));
        }
        self.put(
            tables::AUDIT,
            &keys::audit(log, number),
            values::write_line(line),
        );
    }

    /// Writes a line on its own, or another one in its place. Says its number.
    pub(super) fn audit(
        &mut self,
        line: &AuditLine,
        number: Option<u64>,
    ) -> Result<u64, StoreError> {
        let planned = self.plan_audit(Some(line))?;
        let number = number.unwrap_or(planned);
        self.write_audit(Some(line), number);
        Ok(number)
    }

    /// Lets go of what these lines say of a user beside his id.
    pub(super) fn forget_audit(
        &mut self,
        (user, handle): (UserId, Option<&Handle>),
        keys: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        for key in keys {
            let Some(row) = self.row(tables::AUDIT, key)? else {
                continue; // too old meanwhile
            };
            let mut line = values::read_line(&row)?;
            if line.forget(user, handle) {
                self.put(tables::AUDIT, key, values::write_line(&line));
            }
        }
        Ok(())
    }
}
