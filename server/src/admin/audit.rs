//! The audit log: a line for each command that changes something, or shows what users wrote; and reading it.
//!
//! 1. The line is durable before the command begins, as `begun`: what was done is never missing.
//! 2. With the answer it becomes `done` or `refused`. What has further pages stays `begun`; the last page has a line of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::unix::fs::MetadataExt;

use chat_plugin::accounts::Accounts;
use chat_plugin::domain::audit::{AuditBy, AuditLine, AuditLog, AuditOutcome, AuditPlace};
use chat_plugin::store::StoreError;
use proto::ids::{Handle, UserId};
use serde_json::json;

use super::Request;
use super::reply::{AuditedLine, Reply};

/// Lines of each log that one page looks at.
const PAGE: usize = 1_000;

/// From where a command comes.
pub(super) enum Whence {
    /// Through the admin socket, from a process of this user of the system, where it tells.
    Socket(Option<u32>),
    /// From the command line, while no server runs.
    CommandLine,
}

impl std::fmt::Display for Whence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (place, user) = match self {
            Self::Socket(user) => ("admin socket", *user),
            Self::CommandLine => {
                let own = std::fs::metadata("/proc/self").map(|process| process.uid());
                ("command line", own.ok())
            }
        };
        match user {
            Some(user) => write!(f, "{place}, system user {user}"),
            None => f.write_str(place),
        }
    }
}

/// What a line says of a command.
struct Command<'a> {
    action: &'static str,
    user: Option<&'a str>,
    details: Vec<(&'static str, serde_json::Value)>,
    /// The first page has told of it.
    goes_on: bool,
}

impl<'a> Command<'a> {
    /// `None`: it changes nothing, and shows nothing that users wrote.
    fn of(request: &'a Request) -> Option<Self> {
        let (action, user) = match request {
            Request::UserAdd { handle, .. } => ("user add", Some(handle.as_str())),
            Request::UserImport { .. } => ("user import", None),
            Request::UserPasswd { handle, .. } => ("user passwd", Some(handle.as_str())),
            Request::UserRemove { handle } => ("user remove", Some(handle.as_str())),
            Request::UserExport { user, .. } => ("user export", Some(user.as_str())),
            Request::UserErase { user, .. } => ("user erase", Some(user.as_str())),
            Request::ReportList { .. } => ("report list", None),
            Request::ReportShow { .. } => ("report show", None),
            Request::ReportClose { .. } => ("report close", None),
            Request::StoreReclaim => ("store compact", None),
            Request::StoreDropIds { .. } => ("store drop-ids", None),
            Request::ClockTrust => ("trust-clock", None),
            Request::TokenIssue { handle, .. } => ("token issue", Some(handle.as_str())),
            Request::TokenRevoke { handle, .. } => ("token revoke", Some(handle.as_str())),
            Request::DeviceRevoke { handle, .. } => ("device revoke", Some(handle.as_str())),
            Request::ClientKick { user, .. } => ("client kick", Some(user.as_str())),
            Request::SessionDrop { user, .. } => ("session drop", Some(user.as_str())),
            Request::RetainedClear { .. } => ("retained clear", None),
            Request::LogLevel { .. } => ("log level", None),
            Request::UserList { .. }
            | Request::TokenList { .. }
            | Request::DeviceList { .. }
            | Request::ClientList { .. }
            | Request::ClientSlow
            | Request::SessionList { .. }
            | Request::RetainedList { .. }
            | Request::StoreIds { .. }
            | Request::AuditList { .. } => return None,
        };
        Some(Self {
            action,
            user,
            details: details(request),
            goes_on: matches!(
                request,
                Request::UserExport { next: Some(_), .. }
                    | Request::UserErase { next: Some(_), .. }
                    | Request::ReportList { after: Some(_) }
            ),
        })
    }
}

/// No password, no label, nothing that a user wrote.
fn details(request: &Request) -> Vec<(&'static str, serde_json::Value)> {
    match request {
        Request::UserAdd { password, .. } => vec![("password", json!(password.is_some()))],
        Request::UserImport { users } => vec![("users", json!(users.len()))],
        Request::ReportShow { id }
        | Request::ReportClose { id }
        | Request::TokenRevoke { id, .. } => vec![("id", json!(id))],
        Request::DeviceRevoke { id, .. } => vec![("id", json!(id.to_string()))],
        Request::StoreDropIds { before } => vec![("before", json!(before))],
        Request::ClientKick { client_id, .. } | Request::SessionDrop { client_id, .. } => {
            vec![("client_id", json!(client_id))]
        }
        Request::RetainedClear { filter } | Request::LogLevel { filter } => {
            vec![("filter", json!(filter))]
        }
        _ => Vec::new(),
    }
}

/// What a command came to.
fn results(reply: &Reply) -> Vec<(&'static str, serde_json::Value)> {
    match reply {
        Reply::Refused(why) => vec![("why", json!(why))],
        Reply::Token { id, .. } => vec![("id", json!(id))],
        Reply::Cleared(count) => vec![("count", json!(count))],
        Reply::IdsDropped { rows, .. } => vec![("rows", json!(rows))],
        Reply::Imported { refused } => vec![("refused", json!(refused.len()))],
        _ => Vec::new(),
    }
}

/// A line that tells of something an operator does now.
pub(crate) fn line(action: &str, from: String) -> AuditLine {
    AuditLine {
        ts_ms: chat_plugin::clock::now_ms(),
        by: AuditBy::Operator,
        from,
        action: action.to_owned(),
        conversation: None,
        about: None,
        detail: String::new(),
        outcome: AuditOutcome::Begun,
    }
}

/// Carries out a command between the two halves of its line.
pub(super) async fn noted(
    accounts: &Accounts,
    whence: &Whence,
    request: &Request,
    carry_out: impl Future<Output = Reply>,
) -> Reply {
    let Some(command) = Command::of(request) else {
        return carry_out.await;
    };
    let store = accounts.store();
    let mut line = line(command.action, whence.to_string());
    if let Err(error) = name(accounts, &mut line, command.user).await {
        return Reply::Refused(error.to_string());
    }
    for (name, value) in command.details {
        line.add(name, value);
    }
    let mut number = None;
    if !command.goes_on {
        match store.audit(line.clone(), None).await {
            Ok(given) => number = Some(given),
            Err(error) => {
                return Reply::Refused(format!("the audit log takes no line: {error}"));
            }
        }
    }
    let reply = carry_out.await;
    if has_more(&reply) {
        return reply;
    }
    line.outcome = match &reply {
        Reply::Refused(_) => AuditOutcome::Refused,
        _ => AuditOutcome::Done,
    };
    for (name, value) in results(&reply) {
        line.add(name, value);
    }
    let settled = match name(accounts, &mut line, command.user).await {
        Ok(()) => store.audit(line, number).await.map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = settled {
        tracing::error!(action = command.action, %error, "the audit log does not tell the outcome");
    }
    reply
}

/// Says whom a command is about: a user by the id, anybody else by what was given.
async fn name(
    accounts: &Accounts,
    line: &mut AuditLine,
    user: Option<&str>,
) -> Result<(), StoreError> {
    let Some(user) = user.filter(|_| line.about.is_none()) else {
        return Ok(());
    };
    line.about = find(accounts, user).await?;
    if line.about.is_some() {
        line.remove_name();
    } else {
        line.add_name(user);
    }
    Ok(())
}

/// A user who is named by the handle, or by the id.
async fn find(accounts: &Accounts, user: &str) -> Result<Option<UserId>, StoreError> {
    let store = accounts.store();
    if let Ok(handle) = user.parse::<Handle>()
        && let Some(found) = store.user_by_handle(&handle).await?
    {
        return Ok(Some(found.id));
    }
    let Ok(id) = user.parse::<UserId>() else {
        return Ok(None);
    };
    Ok(store.user(id).await?.map(|found| found.id))
}

/// Are there further pages?
fn has_more(reply: &Reply) -> bool {
    match reply {
        Reply::Exported { next, .. } | Reply::Erased { next, .. } | Reply::Reports { next, .. } => {
            next.is_some()
        }
        _ => false,
    }
}

/// Which lines are wanted.
pub(super) struct Wanted {
    since_ms: u64,
    until_ms: u64,
    user: Option<UserId>,
    action: String,
}

impl Wanted {
    fn has(&self, line: &AuditLine) -> bool {
        (self.since_ms..self.until_ms).contains(&line.ts_ms)
            && line.action.starts_with(&self.action)
            && self.user.is_none_or(|user| line.concerns(user))
    }
}

/// `None`: it is another kind of request.
pub(super) async fn carry_out(
    accounts: &Accounts,
    request: &Request,
) -> Option<Result<Reply, String>> {
    let Request::AuditList {
        since_ms,
        until_ms,
        user,
        action,
        limit,
        before,
    } = request
    else {
        return None;
    };
    let user = match user {
        Some(user) => match super::personal::user_of(accounts, user).await {
            Ok(user) => Some(user),
            Err(why) => return Some(Err(why)),
        },
        None => None,
    };
    let wanted = Wanted {
        since_ms: since_ms.unwrap_or_default(),
        until_ms: until_ms.unwrap_or(u64::MAX),
        user,
        action: action.clone().unwrap_or_default(),
    };
    let page = list(accounts, &wanted, *limit, *before).await;
    Some(page.map_err(|error| error.to_string()))
}

/// One of the logs, from the newest line of a page on.
struct Source {
    log: AuditLog,
    lines: std::iter::Peekable<std::vec::IntoIter<(u64, AuditLine)>>,
    /// Older lines than those of this page may be there.
    is_cut: bool,
    /// The last line that was passed.
    before: u64,
}

impl Source {
    async fn open(accounts: &Accounts, log: AuditLog, before: u64) -> Result<Self, StoreError> {
        let found = accounts.store().audited(log, Some(before), PAGE).await?;
        Ok(Self {
            log,
            is_cut: found.len() == PAGE,
            lines: found.into_iter().peekable(),
            before,
        })
    }

    fn newest_ms(&mut self) -> Option<u64> {
        self.lines.peek().map(|(_, line)| line.ts_ms)
    }
}

/// Both logs, the newest lines first: at most `limit` of those that are wanted.
async fn list(
    accounts: &Accounts,
    wanted: &Wanted,
    limit: usize,
    before: Option<(u64, u64)>,
) -> Result<Reply, StoreError> {
    let (operators, moderators) = before.unwrap_or((u64::MAX, u64::MAX));
    let mut operators = Source::open(accounts, AuditLog::Operators, operators).await?;
    let mut moderators = Source::open(accounts, AuditLog::Moderators, moderators).await?;
    let mut lines = Vec::new();
    let mut names = HashMap::new();
    let mut is_over = false;
    while lines.len() < limit.min(PAGE) {
        let newest = (operators.newest_ms(), moderators.newest_ms());
        let is_cut = |newest: Option<u64>, source: &Source| newest.is_none() && source.is_cut;
        if is_cut(newest.0, &operators) || is_cut(newest.1, &moderators) {
            break; // what comes next in this log is on its next page
        }
        let source = match newest {
            (None, None) => {
                is_over = true;
                break;
            }
            (Some(one), Some(other)) if one >= other => &mut operators,
            (Some(_), None) => &mut operators,
            _ => &mut moderators,
        };
        let Some((number, line)) = source.lines.next() else {
            break;
        };
        source.before = number;
        if wanted.has(&line) {
            let place = AuditPlace {
                log: source.log,
                number,
            };
            lines.push(told(accounts, &mut names, place, line).await?);
        }
    }
    let next = (operators.before, moderators.before);
    Ok(Reply::Audit {
        lines,
        next: (!is_over).then_some(next),
    })
}

async fn told(
    accounts: &Accounts,
    names: &mut HashMap<UserId, String>,
    place: AuditPlace,
    line: AuditLine,
) -> Result<AuditedLine, StoreError> {
    let (uid, device) = match line.by {
        AuditBy::Operator => (None, None),
        AuditBy::User { user, device } => (Some(user), Some(device)),
    };
    for user in [uid, line.about].into_iter().flatten() {
        if let Entry::Vacant(unknown) = names.entry(user) {
            let found = accounts.store().user(user).await?;
            let present = found.filter(|found| found.removed_ms.is_none());
            let name = present.map_or_else(|| user.to_string(), |found| found.handle.to_string());
            unknown.insert(name);
        }
    }
    let name = |user: UserId| names.get(&user).cloned();
    let detail = line.details();
    Ok(AuditedLine {
        id: place.to_string(),
        ts_ms: line.ts_ms,
        by: uid.and_then(name).unwrap_or_else(|| "operator".to_owned()),
        uid,
        device,
        from: line.from,
        action: line.action,
        cid: line.conversation,
        about: line.about.and_then(name),
        about_uid: line.about,
        outcome: line.outcome.name().to_owned(),
        detail,
    })
}
