//! What an operator does with what one user wrote: hand it out, make it gone, also in the files.

use chat_plugin::accounts::{AccountError, Accounts};
use chat_plugin::personal::{self, BadProgress, Progress, Size};
use proto::ids::{Handle, UserId};
use tokio_util::sync::CancellationToken;

use super::Request;
use super::reply::Reply;

/// Bytes of lines in one reply.
const EXPORT_BYTES: usize = 1024 * 1024;

/// `None`: it is another kind of request.
pub(super) async fn carry_out(
    accounts: &Accounts,
    stop: &CancellationToken,
    request: &Request,
) -> Option<Result<Reply, String>> {
    match request {
        Request::UserExport { user, next } => Some(export(accounts, user, next.as_deref()).await),
        Request::UserErase { user, next } => Some(erase(accounts, user, next.as_deref()).await),
        Request::StoreReclaim => Some(reclaim(accounts, stop).await),
        Request::ClockTrust => Some(trust_clock(accounts).await),
        _ => None,
    }
}

async fn export(accounts: &Accounts, user: &str, next: Option<&str>) -> Result<Reply, String> {
    let id = user_of(accounts, user).await?;
    let from = progress(next)?;
    let size = Size {
        page: EXPORT_BYTES,
        line: usize::MAX,
    };
    let page = personal::export(accounts.store(), id, from, size).await;
    let page = page.map_err(told)?;
    if next.is_none() {
        tracing::info!(%user, "what a user wrote is handed out");
    }
    Ok(Reply::Exported {
        lines: page.lines,
        next: page.next.map(|next| next.to_string()),
    })
}

async fn erase(accounts: &Accounts, user: &str, next: Option<&str>) -> Result<Reply, String> {
    let id = user_of(accounts, user).await?;
    let from = progress(next)?;
    let page = personal::erase(accounts.store(), id, from)
        .await
        .map_err(told)?;
    let mut reports = 0;
    if page.next.is_none() {
        reports = accounts.forget(id).await.map_err(told)?;
        tracing::info!(%user, "what a user wrote is erased");
    }
    Ok(Reply::Erased {
        conversations: page.conversations,
        messages: page.messages,
        reactions: page.reactions,
        reports,
        next: page.next.map(|next| next.to_string()),
    })
}

async fn reclaim(accounts: &Accounts, stop: &CancellationToken) -> Result<Reply, String> {
    let reclaimed = accounts.store().reclaim(stop).await;
    let reclaimed =
        reclaimed.map_err(|error| format!("the files still hold what is gone: {error}"))?;
    tracing::info!(reclaimed, "the files were compacted");
    Ok(Reply::Reclaimed(reclaimed))
}

async fn trust_clock(accounts: &Accounts) -> Result<Reply, String> {
    accounts.trust_clock().await.map_err(told)?;
    tracing::warn!("an operator trusts the clock");
    Ok(Reply::Done)
}

/// A user who is named by the handle, or by the id: a removed user has no handle.
pub(super) async fn user_of(accounts: &Accounts, user: &str) -> Result<UserId, String> {
    if let Ok(handle) = user.parse::<Handle>() {
        match accounts.user_of(&handle).await {
            Ok(user) => return Ok(user.id),
            Err(AccountError::NoSuchUser(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let unknown = || AccountError::NoSuchUser(user.to_owned()).to_string();
    let id = user.parse::<UserId>().map_err(|_| unknown())?;
    let found = accounts.user(id).await.map_err(told)?;
    found.map(|user| user.id).ok_or_else(unknown)
}

fn progress(next: Option<&str>) -> Result<Progress, String> {
    let wrong = |error: BadProgress| error.to_string();
    next.map_or_else(
        || Ok(Progress::default()),
        |next| next.parse().map_err(wrong),
    )
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives the error away"
)]
fn told(error: impl ToString) -> String {
    error.to_string()
}
