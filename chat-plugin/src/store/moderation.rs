//! Reports, and what moderators and operators did.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::audit::{AuditLine, AuditLog};
use crate::domain::overlay::{Report, ReportKey};

/// Reports, and what moderators and operators did.
#[async_trait]
pub trait ModerationStore: Send + Sync + 'static {
    /// Stores a report, once for each message id of its writer; a later one of the same message takes the place of his earlier
    /// one. There are at most 100 of one user, and 10,000 in all: then the oldest go, his own first. `false`: something else has
    /// this message id.
    async fn report(&self, report: Report) -> Result<bool, StoreError>;

    /// Reports, oldest first, at most `limit` after `after`.
    async fn reports(
        &self,
        after: Option<&ReportKey>,
        limit: usize,
    ) -> Result<Vec<Report>, StoreError>;

    /// One of them.
    async fn reported(&self, key: &ReportKey) -> Result<Option<Report>, StoreError>;

    /// Notes that the moderators of its conversation have settled a report. Says whether there was one that they had not.
    async fn settle_report(
        &self,
        key: &ReportKey,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError>;

    /// Lets go of a report. Says whether there was one.
    async fn close_report(&self, key: &ReportKey) -> Result<bool, StoreError>;

    /// Writes a line of the audit log, or this one in the place of the one with that number; durable. Says its number. Lines of
    /// what is stored otherwise go with it ([`Draft::audit`](crate::domain::entry::Draft::audit),
    /// [`WaitingStore::reject_held`](super::WaitingStore::reject_held) …).
    async fn audit(&self, line: AuditLine, number: Option<u64>) -> Result<u64, StoreError>;

    /// Lines of one of the logs with their numbers, the newest first, at most `limit` before `before`.
    async fn audited(
        &self,
        log: AuditLog,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditLine)>, StoreError>;
}
