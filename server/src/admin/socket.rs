//! The admin socket of a running server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_plugin::accounts::Accounts;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reply::Reply;
use super::short::with_short;
use super::{Live, TIMEOUT, Whence, carry_out, socket_path};
use crate::Failure;

/// The longest Client Identifier, with every character escaped, has room.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;
/// Requests at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// After a failed accept (too many open files), before the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens; its file goes when it is dropped.
pub(crate) struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl AdminSocket {
    /// Opens the socket. The store is locked by this process, so that a file in its place is a leftover.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Failure> {
        let path = socket_path(data_dir);
        let what = format!("the admin socket {}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::Io { what, error });
            }
            _ => {}
        }
        let listener = with_short(&path, |path| UnixListener::bind(path));
        let listener = listener.map_err(Failure::io(what.clone()))?;
        let file = SocketFile(path);
        std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(0o600))
            .map_err(Failure::io(what))?;
        Ok(Self { listener, file })
    }

    /// Answers until stopped.
    pub(crate) async fn run(
        self,
        accounts: Arc<Accounts>,
        live: Live,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accept = async || {
            // Never closed: without a place there is an accept less to try.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            self.listener
                .accept()
                .await
                .map(|(stream, _)| (stream, place))
        };
        loop {
            let accepted = tokio::select! {
                accepted = accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (accounts, live) = (Arc::clone(&accounts), live.clone());
                    let stop = stop.clone();
                    tracker.spawn(async move {
                        if let Err(error) = answer(stream, &accounts, &live, &stop).await {
                            tracing::warn!(%error, "an admin command could not be answered");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket does not accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self.file);
    }
}

async fn answer(
    stream: UnixStream,
    accounts: &Accounts,
    live: &Live,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let whence = Whence::Socket(stream.peer_cred().map(|peer| peer.uid()).ok());
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    let read = tokio::select! {
        read = tokio::time::timeout(TIMEOUT, reader.read_line(&mut line)) => read??,
        () = stop.cancelled() => return Ok(()),
    };
    if read == 0 {
        return Ok(()); // somebody looked whether the server runs
    }
    let reply = match serde_json::from_str(&line) {
        Ok(request) => carry_out(accounts, Some(live), whence, &request).await,
        Err(error) => Reply::Refused(format!("not a request: {error}")),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    tokio::time::timeout(TIMEOUT, writer.write_all(&line)).await?
}

/// The file of a socket.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the admin socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_plugin::accounts::AccountsConfig;
    use chat_plugin::store::{self, EngineKind, StoreOptions};

    use super::*;

    struct World {
        directory: tempfile::TempDir,
        stop: CancellationToken,
        tracker: TaskTracker,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let options = StoreOptions {
                engine: EngineKind::Memory,
                ..StoreOptions::default()
            };
            let config = AccountsConfig {
                argon2_memory_kib: 8,
                argon2_passes: 1,
                ..AccountsConfig::default()
            };
            let accounts = Accounts::new(store::open(&options).unwrap(), &config, false).unwrap();
            let socket = AdminSocket::open(directory.path()).unwrap();
            let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
            let live = Live {
                operator: broker::operator::Operator::default(),
                log: crate::log::LogFilter::none(),
                stop: stop.clone(),
            };
            tracker.spawn(socket.run(Arc::new(accounts), live, tracker.clone(), stop.clone()));
            tracker.close();
            Self {
                directory,
                stop,
                tracker,
            }
        }

        async fn connect(&self) -> UnixStream {
            let path = socket_path(self.directory.path());
            UnixStream::connect(path).await.unwrap()
        }

        async fn ask(&self, line: &str) -> String {
            let mut stream = self.connect().await;
            stream.write_all(line.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            reply
        }
    }

    #[tokio::test]
    async fn each_request_is_answered_on_one_line() {
        let world = World::new();
        let add = "{\"command\":\"user_add\",\"handle\":\"alice\",\"password\":\"secret\"}\n";
        assert_eq!(world.ask(add).await, "\"done\"\n");
        assert!(world.ask(add).await.contains("taken"));
        let listed = world
            .ask("{\"command\":\"user_list\",\"after\":null}\n")
            .await;
        assert!(
            listed.contains("\"alice\"") && !listed.contains("argon2"),
            "{listed}"
        );
        assert!(
            world
                .ask("{\"command\":\"reboot\"}\n")
                .await
                .contains("not a request")
        );
        assert!(
            world
                .ask(&"x".repeat(1_000))
                .await
                .contains("not a request")
        );
    }

    #[tokio::test]
    async fn who_asks_for_clients_before_the_broker_serves_is_told_so() {
        let world = World::new();
        let list = "{\"command\":\"client_list\",\"after\":null}\n";
        assert!(world.ask(list).await.contains("does not serve"));
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_does_not_hold_up_a_stop() {
        let world = World::new();
        let silent = world.connect().await;
        world.ask("{}\n").await;
        world.stop.cancel();
        world.tracker.wait().await;
        drop(silent);
        assert!(!socket_path(world.directory.path()).exists());
    }

    #[test]
    fn only_the_owner_may_connect() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let directory = tempfile::tempdir().unwrap();
        let _socket = AdminSocket::open(directory.path()).unwrap();
        let file = std::fs::metadata(socket_path(directory.path())).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
}
