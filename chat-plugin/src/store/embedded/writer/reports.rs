//! Reports: one of each user and message, so many of one user, and so many in all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use broker::store::kv::{KeyRange, KvEngine, Order};
use proto::ids::{ConversationId, Seq, UserId, digest16};

use super::super::values::{self, First};
use super::super::{happened, keys};
use super::Writer;
use crate::domain::audit::AuditLine;
use crate::domain::overlay::Report;
use crate::store::{StoreError, tables};

/// Reports that are kept.
const REPORTS_MAX: usize = 10_000;
/// Those of one user.
const REPORTS_OF_USER_MAX: usize = 100;

/// Keys of all reports. Keys of one user are in the order of time.
#[derive(Default)]
pub(super) struct Reports {
    all: BTreeSet<Vec<u8>>,
    of: BTreeMap<UserId, BTreeMap<Vec<u8>, (ConversationId, Seq)>>,
}

impl Reports {
    fn insert(&mut self, report: &Report) {
        let key = keys::report(&report.key());
        self.all.insert(key.clone());
        let about = (report.conversation, report.seq);
        self.of.entry(report.by).or_default().insert(key, about);
    }

    fn remove(&mut self, key: &[u8]) {
        self.all.remove(key);
        let Some(by) = happened::reporter(key) else {
            return;
        };
        if let Some(of_user) = self.of.get_mut(&by) {
            of_user.remove(key);
            if of_user.is_empty() {
                self.of.remove(&by);
            }
        }
    }

    /// What makes room for a report: the one of the same message, or the oldest of too many.
    fn in_the_way(&self, report: &Report) -> Option<Vec<u8>> {
        let of_user = self.of.get(&report.by);
        let same = of_user.and_then(|of_user| {
            let about = (report.conversation, report.seq);
            let mut all = of_user.iter();
            all.find(|(_, of)| **of == about).map(|(key, _)| key)
        });
        let oldest_of_user = || {
            let full = of_user.filter(|of_user| of_user.len() >= REPORTS_OF_USER_MAX);
            full.and_then(|of_user| of_user.keys().next())
        };
        let oldest = || self.all.first().filter(|_| self.all.len() >= REPORTS_MAX);
        same.or_else(oldest_of_user).or_else(oldest).cloned()
    }
}

impl<K: KvEngine> Writer<K> {
    /// Stores a report, unless it was stored before. `false`: something else has its message id.
    pub(super) fn report(&mut self, report: &Report) -> Result<bool, StoreError> {
        let mut mid_key = Vec::new();
        keys::idempotency(&mut mid_key, report.conversation, report.by, &report.mid);
        let seq = report.seq.get().to_be_bytes();
        let digest = digest16(&[b"report", &seq, report.text.as_bytes()]);
        if let Some(first) = self.first(report.conversation, &mut mid_key)? {
            return Ok(first.digest == digest);
        }
        let mut reports = match self.reports.take() {
            Some(reports) => reports,
            None => self.read_reports()?,
        };
        if let Some(key) = reports.in_the_way(report) {
            self.remove(tables::REPORT, &key);
            reports.remove(&key);
        }
        reports.insert(report);
        self.reports = Some(reports);
        let first = First {
            seq: report.seq,
            ts_ms: report.ts_ms,
            digest,
        };
        self.put_first(mid_key, first);
        let key = keys::report(&report.key());
        self.put(tables::REPORT, &key, values::write_report(report));
        Ok(true)
    }

    /// Says whether there was one that was not settled.
    pub(super) fn settle_report(
        &mut self,
        key: &[u8],
        line: Option<&AuditLine>,
    ) -> Result<bool, StoreError> {
        let number = self.plan_audit(line)?;
        let row = self.row(tables::REPORT, key)?;
        let report = row
            .map(|row| happened::read_report(key, &row))
            .transpose()?;
        let Some(mut report) = report.filter(|report| !report.settled) else {
            return Ok(false);
        };
        report.settled = true;
        self.write_audit(line, number);
        self.put(tables::REPORT, key, values::write_report(&report));
        Ok(true)
    }

    /// Says whether there was one.
    pub(super) fn close_report(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let was_there = self.row(tables::REPORT, key)?.is_some();
        if was_there {
            self.remove(tables::REPORT, key);
            if let Some(reports) = &mut self.reports {
                reports.remove(key);
            }
        }
        Ok(was_there)
    }

    fn read_reports(&mut self) -> Result<Reports, StoreError> {
        self.commit_so_far()?;
        let mut reports = Reports::default();
        let mut read = Ok(());
        self.engine().scan(
            tables::REPORT,
            KeyRange::ALL,
            Order::Ascending,
            &mut |key, row| match happened::read_report(key, row) {
                Ok(report) => {
                    reports.insert(&report);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    read = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        read.map(|()| reports)
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::ConversationKind;

    use super::*;

    fn report(by: u8, ts_ms: u64, seq: u64) -> Report {
        Report {
            ts_ms,
            by: UserId::from_bytes([by; 16]),
            mid: "m".parse().unwrap(),
            conversation: ConversationId::from_parts(ConversationKind::Group, [7; 16]),
            seq: Seq::new(seq),
            text: String::new(),
            settled: false,
        }
    }

    #[test]
    fn nobody_drives_out_what_others_report() {
        let mut reports = Reports::default();
        let mut take = |one: &Report| {
            let goes = reports.in_the_way(one);
            if let Some(key) = &goes {
                reports.remove(key);
            }
            reports.insert(one);
            goes
        };
        let key = |one: &Report| Some(keys::report(&one.key()));
        assert_eq!(take(&report(1, 1, 5)), None);
        let last = REPORTS_OF_USER_MAX as u64;
        for number in 1..=last {
            assert_eq!(take(&report(2, 1 + number, number)), None);
        }
        assert_eq!(take(&report(2, 900, 7)), key(&report(2, 8, 7)), "the same");
        assert_eq!(take(&report(2, 901, 999)), key(&report(2, 2, 1)), "his own");
        assert_eq!(take(&report(1, 902, 5)), key(&report(1, 1, 5)));
    }
}
