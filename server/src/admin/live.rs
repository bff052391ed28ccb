//! What only a server that runs can do: its clients, sessions, retained messages and log.

use std::collections::HashMap;
use std::sync::Arc;

use broker::codec::packet::Version;
use broker::codec::topic::TopicFilter;
use broker::operator::{ConnectedClient, ListedRetained, ListedSession, Operator, SessionId};
use chat_plugin::accounts::{AccountError, Accounts};
use proto::ids::{Handle, UserId};
use proto::quote::quoted;
use tokio_util::sync::CancellationToken;

use super::Request;
use super::reply::{ClientLine, Reply, RetainedLine, SessionLine};
use crate::log::LogFilter;

/// Most lines of `client list --slow`.
const SLOW_MAX: usize = 50;

/// The running server, for whoever carries out requests.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) operator: Operator,
    pub(crate) log: LogFilter,
    /// The end of the server: what takes long is broken off.
    pub(crate) stop: CancellationToken,
}

impl Live {
    /// Ends the connection and the session of a device.
    pub(super) async fn end_session(&self, user: UserId, client_id: &str) -> Result<(), String> {
        let user = user.to_string();
        let ended = self.operator.drop_session(&user, client_id);
        ended.await.map(|_| ()).map_err(told)
    }

    /// Says why not, if it cannot be done.
    pub(super) async fn carry_out(
        &self,
        accounts: &Accounts,
        request: &Request,
    ) -> Result<Reply, String> {
        let operator = &self.operator;
        Ok(match request {
            Request::ClientList { after } => {
                let page = operator
                    .clients(cursor(after.as_ref()).as_ref())
                    .map_err(told)?;
                Reply::Clients {
                    clients: page.items.iter().map(client).collect(),
                    next: page.next.map(texts),
                }
            }
            Request::ClientSlow => {
                let slow = operator.slow_clients(SLOW_MAX).await.map_err(told)?;
                Reply::Clients {
                    clients: slow.iter().map(client).collect(),
                    next: None,
                }
            }
            Request::ClientKick { user, client_id } => {
                let key = key_of(accounts, user).await?;
                if !operator.kick(&key, client_id).map_err(told)? {
                    return Err(format!(
                        "no client {} of {user} is connected",
                        quoted(client_id)
                    ));
                }
                tracing::info!(user, ?client_id, "client kicked");
                Reply::Done
            }
            Request::SessionList { after } => {
                let page = operator
                    .sessions(cursor(after.as_ref()).as_ref())
                    .map_err(told)?;
                Reply::Sessions {
                    sessions: sessions(accounts, page.items).await?,
                    next: page.next.map(texts),
                }
            }
            Request::SessionDrop { user, client_id } => {
                let key = key_of(accounts, user).await?;
                let dropped = operator.drop_session(&key, client_id).await;
                if !dropped.map_err(told)? {
                    return Err(format!("{user} has no session {}", quoted(client_id)));
                }
                tracing::info!(user, ?client_id, "session dropped");
                Reply::Done
            }
            Request::RetainedList { filter, after } => {
                let filter = parse(filter)?;
                let page = operator.retained(&filter, after.as_deref()).map_err(told)?;
                Reply::Retained {
                    messages: page.items.iter().map(retained).collect(),
                    next: page.next.map(|topic| topic.to_string()),
                }
            }
            Request::RetainedClear { filter } => {
                let parsed = parse(filter)?;
                let count = operator.clear_retained(&parsed).await.map_err(told)?;
                tracing::info!(filter, count, "retained messages cleared");
                Reply::Cleared(count)
            }
            Request::LogLevel { filter } => {
                self.log.set(filter)?;
                tracing::info!(filter, "the log has another filter, until a SIGHUP");
                Reply::Done
            }
            _ => return Err("it is no request to a running server".to_owned()),
        })
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives the error away"
)]
fn told(error: impl ToString) -> String {
    error.to_string()
}

fn parse(filter: &str) -> Result<TopicFilter, String> {
    TopicFilter::parse(filter.into()).map_err(|_| format!("{} is no topic filter", quoted(filter)))
}

fn cursor(after: Option<&(String, String)>) -> Option<SessionId> {
    let (user, client_id) = after?;
    Some((user.as_str().into(), client_id.as_str().into()))
}

fn texts((user, client_id): SessionId) -> (String, String) {
    (user.to_string(), client_id.to_string())
}

/// The key of a user who is named by the handle, or by the id: a removed user has no handle.
async fn key_of(accounts: &Accounts, user: &str) -> Result<String, String> {
    let unknown = match user.parse::<Handle>() {
        Ok(handle) => match accounts.user_of(&handle).await {
            Ok(user) => return Ok(user.id.to_string()),
            Err(error @ AccountError::NoSuchUser(_)) => error.to_string(),
            Err(error) => return Err(error.to_string()),
        },
        Err(error) => error.to_string(),
    };
    let id = user.parse::<UserId>().map_err(|_| unknown)?;
    Ok(id.to_string())
}

fn client(client: &ConnectedClient) -> ClientLine {
    ClientLine {
        user: client.name.to_string(),
        uid: client.user.to_string(),
        client_id: client.client_id.to_string(),
        address: client.peer.to_string(),
        version: match client.version {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        }
        .to_owned(),
        connected_ms: client.connected_ms,
        keep_alive_s: client.keep_alive_s,
        subscriptions: client.subscriptions,
        queue_messages: client.queue.messages,
        queue_bytes: client.queue.bytes,
        dropped: client.queue.dropped,
        inflight: client.inflight,
        blocked_ms: client
            .blocked
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// With the handles of their users.
async fn sessions(
    accounts: &Accounts,
    listed: Vec<ListedSession>,
) -> Result<Vec<SessionLine>, String> {
    let mut handles: HashMap<Arc<str>, String> = HashMap::new();
    let mut lines = Vec::new();
    for session in listed {
        let known = handles.get(&session.user).cloned();
        let user = if let Some(handle) = known {
            handle
        } else {
            let handle = handle_of(accounts, &session.user).await?;
            handles.insert(Arc::clone(&session.user), handle.clone());
            handle
        };
        lines.push(SessionLine {
            user,
            uid: session.user.to_string(),
            client_id: session.client_id.to_string(),
            connected: session.connected,
            expires_in_s: session.expires_in.map(|time| time.as_secs()),
            subscriptions: session.subscriptions,
            queue_messages: session.queue.messages,
            queue_bytes: session.queue.bytes,
            dropped: session.queue.dropped,
        });
    }
    Ok(lines)
}

/// The id, if there is no such user any more.
async fn handle_of(accounts: &Accounts, key: &str) -> Result<String, String> {
    let Ok(id) = key.parse::<UserId>() else {
        return Ok(key.to_owned());
    };
    let user = accounts.user(id).await.map_err(told)?;
    let present = user.filter(|user| user.removed_ms.is_none());
    Ok(present.map_or_else(|| key.to_owned(), |user| user.handle.to_string()))
}

fn retained(message: &ListedRetained) -> RetainedLine {
    RetainedLine {
        topic: message.topic.to_string(),
        qos: message.qos as u8,
        payload_bytes: message.payload_bytes,
        expires_in_s: message.expires_in.map(|time| time.as_secs()),
    }
}
