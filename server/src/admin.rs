//! Commands: through the admin socket while the server runs. Those about users, tokens and the store work on the store while it
//! does not.
//!
//! The socket is `admin.sock` in the data directory, open to its owner only. One request and one reply per connection,
//! each one line of JSON. A request that was read is carried out to its end, whatever becomes of the connection.

mod audit;
mod ids;
mod live;
mod personal;
mod reply;
mod reports;
mod short;
mod socket;
mod table;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_plugin::accounts::{AccountError, Accounts};
use chat_plugin::store::{self, ChatStore, EngineKind, StoreError};
use proto::ids::{DeviceId, Handle, UserId};
use serde::{Deserialize, Serialize};

use self::audit::Whence;
pub(crate) use self::audit::line as audit_line;
pub(crate) use self::ids::IdWeek;
pub(crate) use self::live::Live;
pub(crate) use self::reply::Reply;
use self::short::with_short;
pub(crate) use self::socket::AdminSocket;
use crate::Failure;
use crate::config::Config;

/// Largest reply that the command line reads.
const REPLY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long one side waits for the other. Longer than the queue of passwords to be hashed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same for what rewrites all files.
const RECLAIM_TIMEOUT: Duration = Duration::from_hours(6);
/// Users in one reply; the next request goes on behind them.
const USERS_PAGE: usize = 1_000;

/// What an operator asks for.
#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    UserAdd {
        handle: Handle,
        password: Option<String>,
    },
    UserImport {
        users: Vec<ImportedUser>,
    },
    UserPasswd {
        handle: Handle,
        password: String,
    },
    UserList {
        after: Option<UserId>,
    },
    UserRemove {
        handle: Handle,
    },
    /// A page of what is known of a user; the handle, or the id of one who was removed.
    UserExport {
        user: String,
        next: Option<String>,
    },
    /// A page of the erasure of what a user wrote.
    UserErase {
        user: String,
        next: Option<String>,
    },
    /// Reports behind this one.
    ReportList {
        after: Option<String>,
    },
    ReportShow {
        id: String,
    },
    ReportClose {
        id: String,
    },
    /// Nothing that is gone is left in the files, if the engine can do that while the store is open.
    StoreReclaim,
    /// Message ids by which repeated messages are known: those behind this row.
    StoreIds {
        after: Option<Vec<u8>>,
    },
    /// Those of weeks before this one go.
    StoreDropIds {
        before: u16,
    },
    /// The wall clock is right, however far it has gone.
    ClockTrust,
    TokenIssue {
        handle: Handle,
        label: String,
    },
    TokenList {
        handle: Handle,
    },
    TokenRevoke {
        handle: Handle,
        id: String,
    },
    DeviceList {
        handle: Handle,
    },
    DeviceRevoke {
        handle: Handle,
        id: DeviceId,
    },
    ClientList {
        /// User and Client Identifier of the last one that was looked at.
        after: Option<(String, String)>,
    },
    ClientSlow,
    ClientKick {
        user: String,
        client_id: String,
    },
    SessionList {
        /// As for `ClientList`.
        after: Option<(String, String)>,
    },
    SessionDrop {
        user: String,
        client_id: String,
    },
    RetainedList {
        filter: String,
        /// The last topic that was looked at.
        after: Option<String>,
    },
    RetainedClear {
        filter: String,
    },
    LogLevel {
        filter: String,
    },
    /// Lines of the audit log, the newest first.
    AuditList {
        since_ms: Option<u64>,
        until_ms: Option<u64>,
        /// By whom, or about whom: the handle, or the id of one who was removed.
        user: Option<String>,
        /// How the action begins.
        action: Option<String>,
        limit: usize,
        /// The last lines that were looked at: of operators, and of moderators.
        before: Option<(u64, u64)>,
    },
}

/// A line of a password file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportedUser {
    /// Its number, from 1.
    pub(crate) line: usize,
    pub(crate) handle: Handle,
    pub(crate) hash: String,
}

impl Request {
    /// Only these make a store: a mistyped directory does not become one.
    const fn makes_users(&self) -> bool {
        matches!(self, Self::UserAdd { .. } | Self::UserImport { .. })
    }

    /// Only a server that runs can do it.
    const fn needs_server(&self) -> bool {
        matches!(
            self,
            Self::ClientList { .. }
                | Self::ClientSlow
                | Self::ClientKick { .. }
                | Self::SessionList { .. }
                | Self::SessionDrop { .. }
                | Self::RetainedList { .. }
                | Self::RetainedClear { .. }
                | Self::LogLevel { .. }
        )
    }

    /// How long the reply may take.
    const fn patience(&self) -> Duration {
        match self {
            Self::StoreReclaim | Self::StoreDropIds { .. } => RECLAIM_TIMEOUT,
            _ => TIMEOUT,
        }
    }

    /// The same, for what comes behind a page.
    fn behind(&self, reply: &Reply) -> Option<Self> {
        Some(match reply {
            Reply::Users { next, .. } => Self::UserList {
                after: Some((*next)?),
            },
            Reply::Ids { next, .. } => Self::StoreIds {
                after: Some(next.clone()?),
            },
            Reply::Reports { next, .. } => Self::ReportList {
                after: Some(next.clone()?),
            },
            Reply::Exported { next, .. } | Reply::Erased { next, .. } => {
                let next = Some(next.clone()?);
                match self {
                    Self::UserExport { user, .. } => Self::UserExport {
                        user: user.clone(),
                        next,
                    },
                    Self::UserErase { user, .. } => Self::UserErase {
                        user: user.clone(),
                        next,
                    },
                    _ => return None,
                }
            }
            Reply::Audit { lines, next } => match self {
                Self::AuditList {
                    since_ms,
                    until_ms,
                    user,
                    action,
                    limit,
                    ..
                } => Self::AuditList {
                    since_ms: *since_ms,
                    until_ms: *until_ms,
                    user: user.clone(),
                    action: action.clone(),
                    limit: limit.checked_sub(lines.len()).filter(|left| *left > 0)?,
                    before: Some((*next)?),
                },
                _ => return None,
            },
            Reply::Clients { next, .. } => Self::ClientList {
                after: Some(next.clone()?),
            },
            Reply::Sessions { next, .. } => Self::SessionList {
                after: Some(next.clone()?),
            },
            Reply::Retained { next, .. } => match self {
                Self::RetainedList { filter, .. } => Self::RetainedList {
                    filter: filter.clone(),
                    after: Some(next.clone()?),
                },
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// Has requests carried out, by the server if it runs, until one is refused, and hands each reply to `each`.
///
/// # Errors
/// [`Failure::Refused`] with the reason, or what kept a request from being carried out.
pub(crate) fn request(
    config: &Config,
    requests: impl IntoIterator<Item = Request>,
    mut each: impl FnMut(&Reply) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut requests = requests.into_iter().peekable();
    let Some(first) = requests.peek() else {
        return Ok(());
    };
    let office = Office::find(config, first)?;
    let result = requests.try_for_each(|request| office.serve(request, &mut each));
    office.close(config).and(result)
}

/// Does a server run on this data directory?
pub(crate) fn is_running(config: &Config) -> bool {
    let socket = socket_path(&config.server.data_dir);
    with_short(&socket, |path| UnixStream::connect(path)).is_ok()
}

/// Who carries out requests.
enum Office {
    /// The server that runs, through its socket.
    Server(PathBuf),
    /// This process, on the store.
    Store(Box<Offline>),
}

/// A store that nobody else has open.
struct Offline {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn ChatStore>,
    accounts: Accounts,
}

impl Office {
    fn find(config: &Config, request: &Request) -> Result<Self, Failure> {
        let socket = socket_path(&config.server.data_dir);
        match with_short(&socket, |path| UnixStream::connect(path)) {
            Ok(_) => Ok(Self::Server(socket)),
            Err(refused) if request.needs_server() => Err(Failure::Refused(format!(
                "no server runs on this data directory ({}: {refused})",
                socket.display()
            ))),
            Err(refused) => match Self::on_store(config, request) {
                Err(Failure::Store {
                    error: StoreError::Locked,
                    ..
                }) => Err(Failure::Refused(format!(
                    "the data directory is in use by another process, which does not answer at {}: {refused}",
                    socket.display()
                ))),
                other => other,
            },
        }
    }

    fn on_store(config: &Config, request: &Request) -> Result<Self, Failure> {
        if config.store.engine == EngineKind::Memory {
            return Err(Failure::Refused(
                "the store is in memory and the server does not run: there are no users".into(),
            ));
        }
        // Only a first user makes a store: a mistyped directory does not become one.
        match store::engine_of(&config.store_options().directory) {
            Err(StoreError::NotFound) if !request.makes_users() => {
                return Err(Failure::Refused(format!(
                    "there is no store in {} (is --data-dir right?)",
                    config.store_options().directory.display()
                )));
            }
            _ => crate::serve::make_data_dir(&config.server.data_dir)?,
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Failure::io("the runtime"))?;
        let _entered = runtime.enter();
        let store =
            chat_plugin::store::open(&config.store_options()).map_err(config.store_failure())?;
        let accounts = Accounts::new(Arc::clone(&store), &config.accounts, false)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Self::Store(Box::new(Offline {
            runtime,
            store,
            accounts,
        })))
    }

    /// Carries out a request, page by page.
    fn serve(
        &self,
        mut request: Request,
        each: &mut impl FnMut(&Reply) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let reply = match self.carry_out(&request)? {
                Reply::Refused(why) => return Err(Failure::Refused(why)),
                reply => reply,
            };
            each(&reply)?;
            match request.behind(&reply) {
                Some(next) => request = next,
                None => return Ok(()),
            }
        }
    }

    fn carry_out(&self, request: &Request) -> Result<Reply, Failure> {
        match self {
            Self::Server(socket) => ask(socket, request).map_err(Failure::io("the admin socket")),
            Self::Store(offline) => Ok(offline.runtime.block_on(carry_out(
                &offline.accounts,
                None,
                Whence::CommandLine,
                request,
            ))),
        }
    }

    fn close(self, config: &Config) -> Result<(), Failure> {
        match self {
            Self::Server(_) => Ok(()),
            Self::Store(offline) => offline
                .runtime
                .block_on(offline.store.close())
                .map_err(config.store_failure()),
        }
    }
}

fn ask(socket: &Path, request: &Request) -> std::io::Result<Reply> {
    let mut stream = with_short(socket, |path| UnixStream::connect(path))?;
    stream.set_read_timeout(Some(request.patience()))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut reply)?;
    Ok(serde_json::from_str(&reply)?)
}

async fn carry_out(
    accounts: &Accounts,
    live: Option<&Live>,
    whence: Whence,
    request: &Request,
) -> Reply {
    let carried_out = carry_out_unnoted(accounts, live, request);
    audit::noted(accounts, &whence, request, carried_out).await
}

async fn carry_out_unnoted(accounts: &Accounts, live: Option<&Live>, request: &Request) -> Reply {
    if request.needs_server() {
        let Some(live) = live else {
            return Reply::Refused("only a server that runs can do that".to_owned());
        };
        let done = live.carry_out(accounts, request).await;
        return done.unwrap_or_else(Reply::Refused);
    }
    if let Request::DeviceRevoke { handle, id } = request
        && let Err(why) = end_device(accounts, live, handle, *id).await
    {
        return Reply::Refused(why);
    }
    if let Some(done) = audit::carry_out(accounts, request).await {
        return done.unwrap_or_else(Reply::Refused);
    }
    if let Some(done) = reports::carry_out(accounts, request).await {
        return done.unwrap_or_else(Reply::Refused);
    }
    let stop = live.map(|live| live.stop.clone()).unwrap_or_default();
    if let Some(done) = ids::carry_out(accounts.store(), &stop, request).await {
        return done.unwrap_or_else(Reply::Refused);
    }
    if let Some(done) = personal::carry_out(accounts, &stop, request).await {
        return done.unwrap_or_else(Reply::Refused);
    }
    match try_carry_out(accounts, request).await {
        Ok(reply) => reply,
        Err(error) => Reply::Refused(error.to_string()),
    }
}

/// Its token goes first, then its connection and session: so it does not come back meanwhile.
async fn end_device(
    accounts: &Accounts,
    live: Option<&Live>,
    handle: &Handle,
    id: DeviceId,
) -> Result<(), String> {
    let told = |error: AccountError| error.to_string();
    let user = accounts.user_of(handle).await.map_err(told)?;
    let device = accounts.distrust_device(user.id, id).await.map_err(told)?;
    match live {
        Some(live) => live.end_session(user.id, &device.client_id).await,
        None => Ok(()),
    }
}

async fn try_carry_out(accounts: &Accounts, request: &Request) -> Result<Reply, AccountError> {
    match request {
        Request::UserAdd { handle, password } => {
            let password = password.as_ref().map(String::as_bytes);
            accounts.add_user(handle.clone(), password).await?;
            tracing::info!(%handle, "user added");
        }
        Request::UserImport { users } => return Ok(import(accounts, users).await),
        Request::UserPasswd { handle, password } => {
            accounts.set_password(handle, password.as_bytes()).await?;
            tracing::info!(%handle, "password changed");
        }
        Request::UserRemove { handle } => {
            accounts.remove_user(handle).await?;
            tracing::info!(%handle, "user removed");
        }
        Request::TokenRevoke { handle, id } => {
            accounts.revoke_token(handle, id).await?;
            tracing::info!(%handle, id, "token revoked");
        }
        Request::UserList { after } => {
            let page = accounts.list_users(*after, USERS_PAGE).await?;
            return Ok(Reply::users(page, USERS_PAGE));
        }
        Request::TokenIssue { handle, label } => {
            let (token, text) = accounts.issue_token(handle, label).await?;
            tracing::info!(%handle, id = token.id, "token issued");
            return Ok(Reply::Token { id: token.id, text });
        }
        Request::TokenList { handle } => {
            return Ok(Reply::tokens(accounts.list_tokens(handle).await?));
        }
        Request::DeviceList { handle } => {
            return Ok(Reply::devices(accounts.list_devices(handle).await?));
        }
        Request::DeviceRevoke { handle, id } => {
            let user = accounts.user_of(handle).await?;
            accounts.forget_device(user.id, *id).await?;
            tracing::info!(%handle, %id, "device revoked");
        }
        _ => return Ok(Reply::Refused("it is no request about users".to_owned())),
    }
    Ok(Reply::Done)
}

async fn import(accounts: &Accounts, users: &[ImportedUser]) -> Reply {
    let mut refused = Vec::new();
    for ImportedUser { line, handle, hash } in users {
        match accounts.import_user(handle.clone(), hash).await {
            Ok(_) => tracing::info!(%handle, "user imported"),
            Err(error) => refused.push((*line, error.to_string())),
        }
    }
    Reply::Imported { refused }
}

fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}
