//! What users have reported, for those who run the server.

use chat_plugin::accounts::Accounts;
use chat_plugin::domain::overlay::{BadReportKey, Report, ReportKey};
use chat_plugin::personal;

use super::Request;
use super::reply::{Reply, ReportLine};

/// Reports in one reply.
const PAGE: usize = 500;

/// `None`: it is another kind of request.
pub(super) async fn carry_out(
    accounts: &Accounts,
    request: &Request,
) -> Option<Result<Reply, String>> {
    match request {
        Request::ReportList { after } => Some(list(accounts, after.as_deref()).await),
        Request::ReportShow { id } => Some(show(accounts, id).await),
        Request::ReportClose { id } => Some(close(accounts, id).await),
        _ => None,
    }
}

async fn list(accounts: &Accounts, after: Option<&str>) -> Result<Reply, String> {
    let after = after.map(key).transpose()?;
    let found = accounts.store().reports(after.as_ref(), PAGE).await;
    let found = found.map_err(told)?;
    let last = found.last().filter(|_| found.len() == PAGE);
    let next = last.map(|last| last.key().to_string());
    let mut reports = Vec::with_capacity(found.len());
    for report in found {
        reports.push(line(accounts, report).await?);
    }
    Ok(Reply::Reports { reports, next })
}

async fn show(accounts: &Accounts, id: &str) -> Result<Reply, String> {
    let report = accounts.store().reported(&key(id)?).await;
    let report = report.map_err(told)?.ok_or("there is no such report")?;
    let message = personal::message(accounts.store(), report.conversation, report.seq).await;
    Ok(Reply::Report {
        message: message.map_err(told)?,
        report: line(accounts, report).await?,
    })
}

async fn close(accounts: &Accounts, id: &str) -> Result<Reply, String> {
    let closed = accounts.store().close_report(&key(id)?).await;
    if !closed.map_err(told)? {
        return Err("there is no such report".to_owned());
    }
    tracing::info!(id, "report closed");
    Ok(Reply::Done)
}

async fn line(accounts: &Accounts, report: Report) -> Result<ReportLine, String> {
    let id = report.key().to_string();
    let by = accounts.user(report.by).await.map_err(told)?;
    Ok(ReportLine {
        id,
        by: by.map_or_else(|| report.by.to_string(), |user| user.handle.to_string()),
        cid: report.conversation,
        seq: report.seq,
        ts_ms: report.ts_ms,
        settled: report.settled,
        text: report.text,
    })
}

fn key(id: &str) -> Result<ReportKey, String> {
    id.parse().map_err(|error: BadReportKey| error.to_string())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives the error away"
)]
fn told(error: impl ToString) -> String {
    error.to_string()
}
