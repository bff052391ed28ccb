//! [`ModerationStore`] of the embedded store.

use async_trait::async_trait;
use broker::store::kv::KvEngine;

use super::super::queue::Job;
use super::super::{EmbeddedStore, audit, happened, keys};
use crate::domain::audit::{AuditLine, AuditLog};
use crate::domain::overlay::{Report, ReportKey};
use crate::store::{ModerationStore, StoreError, tables};

#[async_trait]
impl<K: KvEngine> ModerationStore for EmbeddedStore<K> {
    async fn report(&self, report: Report) -> Result<bool, StoreError> {
        self.ask_to_write(|reply| Job::Report(Box::new(report), reply))
            .await
    }

    async fn reports(
        &self,
        after: Option<&ReportKey>,
        limit: usize,
    ) -> Result<Vec<Report>, StoreError> {
        let after = after.map(keys::report);
        self.read(move |engine, _| happened::reports(engine, after.as_deref(), limit))
            .await
    }

    async fn reported(&self, key: &ReportKey) -> Result<Option<Report>, StoreError> {
        let key = keys::report(key);
        let row = key.clone();
        self.read_row(tables::REPORT, key, move |value| {
            happened::read_report(&row, value)
        })
        .await
    }

    async fn settle_report(
        &self,
        key: &ReportKey,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError> {
        let key = keys::report(key);
        self.ask(|reply| Job::SettleReport(key, line, reply)).await
    }

    async fn close_report(&self, key: &ReportKey) -> Result<bool, StoreError> {
        let key = keys::report(key);
        self.ask(|reply| Job::CloseReport(key, reply)).await
    }

    async fn audit(&self, line: AuditLine, number: Option<u64>) -> Result<u64, StoreError> {
        self.ask(|reply| Job::Audit(Box::new(line), number, reply))
            .await
    }

    async fn audited(
        &self,
        log: AuditLog,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditLine)>, StoreError> {
        self.read(move |engine, _| audit::lines(engine, log, before, limit))
            .await
    }
}
