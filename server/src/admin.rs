//! Commands about users and tokens: through the admin socket while the server runs, on the store while it does not.
//!
//! The socket is `admin.sock` in the data directory, open to its owner only. One request and one reply per connection,
//! each one line of JSON.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_plugin::accounts::{AccountError, Accounts};
use chat_plugin::domain::user::{Token, User};
use proto::ids::Handle;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;
use crate::config::Config;

const REQUEST_BYTES_MAX: u64 = 16 * 1024;
const REPLY_BYTES_MAX: u64 = 256 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What an operator asks for.
#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    UserAdd {
        handle: Handle,
        password: Option<String>,
    },
    UserPasswd {
        handle: Handle,
        password: String,
    },
    UserList,
    UserRemove {
        handle: Handle,
    },
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
}

/// What came of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Users(Vec<ListedUser>),
    Token { id: String, text: String },
    Tokens(Vec<ListedToken>),
    Refused(String),
}

/// A line of `user list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedUser {
    uid: String,
    handle: String,
    name: String,
    password: bool,
}

/// A line of `token list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedToken {
    id: String,
    created_ms: u64,
    label: String,
}

/// Has a request carried out, by the server if it runs.
pub(crate) fn request(config: &Config, request: &Request) -> Result<Reply, Failure> {
    let reply = match UnixStream::connect(socket(&config.server.data_dir)) {
        Ok(stream) => ask(stream, request).map_err(Failure::io("the admin socket"))?,
        Err(_) => on_store(config, request)?, // nobody listens: the server does not run
    };
    match reply {
        Reply::Refused(why) => Err(Failure::Refused(why)),
        done => Ok(done),
    }
}

fn ask(mut stream: UnixStream, request: &Request) -> std::io::Result<Reply> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut reply)?;
    Ok(serde_json::from_str(&reply)?)
}

fn on_store(config: &Config, request: &Request) -> Result<Reply, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::io("the runtime"))?;
    runtime.block_on(async {
        let store = chat_plugin::store::open(&config.store)?;
        let accounts = Accounts::new(Arc::clone(&store), &config.accounts, false);
        let accounts = accounts.map_err(|error| Failure::Usage(error.to_string()))?;
        let reply = carry_out(&accounts, request).await;
        store.close().await?;
        Ok(reply)
    })
}

async fn carry_out(accounts: &Accounts, request: &Request) -> Reply {
    match try_carry_out(accounts, request).await {
        Ok(reply) => reply,
        Err(error) => Reply::Refused(error.to_string()),
    }
}

async fn try_carry_out(accounts: &Accounts, request: &Request) -> Result<Reply, AccountError> {
    match request {
        Request::UserAdd { handle, password } => {
            accounts
                .add_user(handle.clone(), password.as_ref().map(String::as_bytes))
                .await?;
        }
        Request::UserPasswd { handle, password } => {
            accounts.set_password(handle, password.as_bytes()).await?
        }
        Request::UserRemove { handle } => accounts.remove_user(handle).await?,
        Request::TokenRevoke { handle, id } => accounts.revoke_token(handle, id).await?,
        Request::UserList => {
            const PAGE: usize = 1_000;
            let mut users: Vec<User> = Vec::new();
            let mut after = None;
            loop {
                let page = accounts.list_users(after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                users.extend(page.into_iter().filter(|user| user.removed_ms.is_none()));
            }
            return Ok(Reply::Users(
                users.into_iter().map(ListedUser::from).collect(),
            ));
        }
        Request::TokenIssue { handle, label } => {
            let (token, text) = accounts.issue_token(handle, label).await?;
            return Ok(Reply::Token { id: token.id, text });
        }
        Request::TokenList { handle } => {
            let tokens = accounts.list_tokens(handle).await?;
            return Ok(Reply::Tokens(
                tokens.into_iter().map(ListedToken::from).collect(),
            ));
        }
    }
    Ok(Reply::Done)
}

impl From<User> for ListedUser {
    fn from(user: User) -> Self {
        Self {
            uid: user.id.to_string(),
            handle: user.handle.to_string(),
            name: user.name,
            password: user.password_hash.is_some(),
        }
    }
}

impl From<Token> for ListedToken {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            created_ms: token.created_ms,
            label: token.label,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => Ok(()),
            Self::Refused(why) => f.write_str(why),
            Self::Token { text, .. } => f.write_str(text),
            Self::Users(users) => users.iter().try_for_each(|user| {
                let login = if user.password {
                    "password"
                } else {
                    "tokens only"
                };
                writeln!(f, "{}\t{}\t{}\t{}", user.handle, user.uid, login, user.name)
            }),
            Self::Tokens(tokens) => tokens.iter().try_for_each(|token| {
                writeln!(f, "{}\t{}\t{}", token.id, token.created_ms, token.label)
            }),
        }
    }
}

/// The admin socket of a running server.
pub(crate) struct AdminSocket {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket. The store is locked by this process, so that a file in its place is a leftover.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Failure> {
        let path = socket(data_dir);
        let what = format!("the admin socket {}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::Io { what, error });
            }
            _ => {}
        }
        let listener = tokio::net::UnixListener::bind(&path).map_err(Failure::io(what.clone()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(Failure::io(what))?;
        Ok(Self { listener, path })
    }

    /// Answers until stopped.
    pub(crate) async fn run(
        self,
        accounts: Arc<Accounts>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let accounts = Arc::clone(&accounts);
                    tracker.spawn(async move {
                        match tokio::time::timeout(TIMEOUT, answer(stream, &accounts)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => {
                                tracing::warn!(%error, "an admin command could not be answered")
                            }
                            Err(_) => tracing::warn!("an admin command took too long"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket does not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the admin socket could not be removed");
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, accounts: &Accounts) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => carry_out(accounts, &request).await,
        Err(error) => Reply::Refused(format!("not a request: {error}")),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}
