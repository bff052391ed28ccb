//! `mqchat serve`: build, run, drain.

use std::fmt::Display;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker::acl::Rules;
use broker::config::{Persistence, Protocol};
use broker::hooks::Hooks;
use broker::store::sessions::{self, SessionOptions, Sessions, SessionsHealth};
use broker::{Address, AddressPlace, Broker, Certificates};
use chat_plugin::accounts::Accounts;
use chat_plugin::domain::audit::{AuditLine, AuditOutcome};
use chat_plugin::plugin::ChatPlugin;
use chat_plugin::store::{self, ChatStore, EngineKind, Health, StoreError};
use tokio::net::TcpSocket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::Failure;
use crate::acl;
use crate::admin::{AdminSocket, Live, audit_line};
use crate::config::{Config, OrdinaryTopics};
use crate::filter::Words;
use crate::log::LogFilter;
use crate::monitor::{Monitor, Sources};

/// How often the store is asked how it is.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Where sessions are at rest, in the data directory.
const SESSIONS: &str = "sessions";
/// The file in the data directory that tells the addresses listened on, one a line.
const ADDRESS_FILE: &str = "listen";

/// Runs the server until a signal, or until the store fails.
pub(crate) fn run(config: &Config, dev: bool, log: LogFilter) -> Result<(), Failure> {
    let mut runtime = match config.server.worker_threads {
        // The other scheduler runs first what was woken last.
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if config.server.worker_threads > 1 {
        runtime.worker_threads(config.server.worker_threads);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(Failure::io("the runtime"))?;
    runtime.block_on(serve(config, dev, log))
}

/// Makes the data directory, for its owner only.
pub(crate) fn make_data_dir(data_dir: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700) // messages and password hashes are for nobody else on this machine
        .create(data_dir)
        .map_err(Failure::io(format!(
            "the data directory {}",
            data_dir.display()
        )))
}

async fn serve(config: &Config, dev: bool, log: LogFilter) -> Result<(), Failure> {
    // First of all, so that a signal during a long recovery of the store is not lost.
    let signals = Signals::new().map_err(Failure::io("signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(Failure::io("signals"))?;
    // Before the store is touched: a mistake in the rules is no reason to wait for its recovery.
    let rules = acl::read(&config.server.acl_file)?;
    try_addresses(config)?;
    make_data_dir(&config.server.data_dir)?;
    let store = store::open(&config.store_options()).map_err(config.store_failure())?;
    if config.store.accept_loss {
        let line = audit_line("serve --accept-loss", "command line".to_owned());
        let noted = store.audit(line, None).await;
        noted.map_err(config.store_failure())?;
    }
    let sessions = open_sessions(config)?;
    let sessions_health = sessions.as_ref().map(Sessions::health);
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    // Until the very end: a second signal ends also a close that hangs.
    let _signals = AbortOnDropHandle::new(tracker.spawn(signals.stop_or_end(stop.clone())));
    let health = Stores {
        chat: Arc::clone(&store),
        sessions: sessions_health,
    };
    let served = match build(config, dev, &health, sessions) {
        Ok(server) => {
            server.broker.rules().replace(rules);
            server
                .run(health.clone(), config, log, (hangup, stop))
                .await;
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    let health = health.health();
    let closed = store.close().await;
    served?;
    if let Health::Poisoned(why) = health {
        return Err(Failure::Poisoned(why));
    }
    closed.map_err(|error| Failure::Poisoned(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the sessions at rest, beside the store: an engine of their own in the same data directory.
fn open_sessions(config: &Config) -> Result<Option<Sessions>, Failure> {
    if config.broker.persistence == Persistence::Off || config.store.engine == EngineKind::Memory {
        return Ok(None);
    }
    let options = session_options(config);
    let failure = |error| Failure::Store {
        directory: options.directory.clone(),
        error: StoreError::from(error),
    };
    sessions::open(&options).map(Some).map_err(failure)
}

/// How to open the sessions: what is said of the store's engine holds for theirs.
pub(crate) fn session_options(config: &Config) -> SessionOptions {
    SessionOptions {
        engine: config.store.engine,
        directory: config.server.data_dir.join(SESSIONS),
        // Read at the start only.
        memory_bytes: config.store.memory_bytes / 16,
        disk_bytes_max: config.broker.sessions_disk_bytes_max,
        accept_loss: config.store.accept_loss,
    }
}

/// What the server must not go on without.
#[derive(Clone)]
pub(crate) struct Stores {
    chat: Arc<dyn ChatStore>,
    sessions: Option<SessionsHealth>,
}

impl Stores {
    /// The worst of all.
    pub(crate) fn health(&self) -> Health {
        let sessions = self.sessions.as_ref().map(SessionsHealth::health);
        match (self.chat.health(), sessions) {
            (Health::Ready | Health::ReadOnly(_), Some(Health::Poisoned(why))) => {
                Health::Poisoned(why)
            }
            (Health::Ready, Some(Health::ReadOnly(why))) => {
                Health::ReadOnly(format!("sessions: {why}"))
            }
            (health, _) => health,
        }
    }
}

/// Can the addresses be had? Asked first, so that «address in use» leaves no new data directory and touches no store. They
/// are taken later, when the store is open: until then clients are better refused than kept waiting.
fn try_addresses(config: &Config) -> Result<(), Failure> {
    let further = config.broker.listeners.iter();
    let further = further.filter_map(|listener| listener.address);
    let addresses = config.broker.listen.into_iter().chain(further);
    for address in addresses.chain(config.monitor.listen) {
        try_address(address).map_err(cannot_listen(&address))?;
    }
    Ok(())
}

fn try_address(address: SocketAddr) -> std::io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?; // as the broker does: connections of an earlier process are no obstacle
    socket.bind(address)
}

fn cannot_listen(address: &impl Display) -> impl FnOnce(std::io::Error) -> Failure {
    Failure::io(format!("cannot listen on {address}"))
}

/// What listens, and does not serve yet.
struct Server {
    broker: Broker,
    accounts: Arc<Accounts>,
    admin: AdminSocket,
    monitor: Option<(Monitor, Arc<Sources>)>,
    words: Words,
}

fn build(
    config: &Config,
    dev: bool,
    stores: &Stores,
    sessions: Option<Sessions>,
) -> Result<Server, Failure> {
    let store = &stores.chat;
    let accounts = Accounts::new(Arc::clone(store), &config.accounts, dev);
    let accounts = Arc::new(accounts.map_err(|error| Failure::Usage(error.to_string()))?);
    let open = config.server.ordinary_topics == OrdinaryTopics::Open;
    let plugin = ChatPlugin::new(
        Arc::clone(store),
        Arc::clone(&accounts),
        config.chat.clone(),
        open,
    );
    let (filter, words) = crate::filter::build(&config.filter)?;
    if let Some(filter) = filter {
        plugin.set_filter(filter);
    }
    let hooks = Arc::clone(&plugin) as Arc<dyn Hooks>;
    let broker = Broker::bind(config.broker.clone(), hooks).map_err(|error| match error {
        broker::Error::Bind { address, source } => cannot_listen(&address)(source),
        other => Failure::Usage(other.to_string()),
    })?;
    plugin.attach(broker.operator());
    let sources = Sources {
        broker: broker.metrics(),
        operator: broker.operator(),
        plugin,
        accounts: Arc::clone(&accounts),
        store: Arc::clone(store),
        sessions: sessions.as_ref().map(Sessions::commits),
        stores: stores.clone(),
    };
    let monitor = match config.monitor.listen {
        Some(address) => {
            let monitor = Monitor::bind(address).map_err(cannot_listen(&address))?;
            Some((monitor, Arc::new(sources)))
        }
        None => None,
    };
    let broker = match sessions {
        Some(sessions) => broker.with_sessions(sessions),
        None => broker,
    };
    let data_dir = &config.server.data_dir;
    let admin = AdminSocket::open(data_dir)?;
    let monitored = monitor.as_ref().map(|(monitor, _)| monitor.address());
    tell_addresses(data_dir, &broker, monitored)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %data_dir.display(),
        engine = config.store.engine.name(),
        "starting"
    );
    if dev {
        tracing::warn!(
            "--dev: anybody on this machine can log in; an unknown user is made at the first CONNECT"
        );
    }
    if config.store.engine == EngineKind::Memory {
        tracing::warn!("the store is in memory: nothing survives the end of this process");
    }
    Ok(Server {
        broker,
        accounts,
        admin,
        monitor,
        words,
    })
}

impl Server {
    /// Serves until stopped, and until everything has been drained.
    async fn run(
        self,
        stores: Stores,
        config: &Config,
        log: LogFilter,
        (hangup, stop): (Signal, CancellationToken),
    ) {
        let tracker = TaskTracker::new();
        let drained = CancellationToken::new();
        let reload = Reload {
            acl_file: config.server.acl_file.clone(),
            rules: self.broker.rules(),
            certificates: self.broker.certificates(),
            log: log.clone(),
            words: self.words,
            accounts: Arc::clone(&self.accounts),
        };
        let live = Live {
            operator: self.broker.operator(),
            log,
            stop: stop.clone(),
        };
        tracker.spawn(reload.run(hangup, stop.clone()));
        tracker.spawn(
            self.admin
                .run(self.accounts, live, tracker.clone(), stop.clone()),
        );
        tracker.spawn(watch(stores, config.server.exit_on_poison, stop.clone()));
        if let Some((monitor, sources)) = self.monitor {
            // Its own token: it tells until the last client has gone.
            tracker.spawn(monitor.run(sources, tracker.clone(), drained.clone()));
        }
        self.broker.run(stop.clone()).await;
        drained.cancel();
        stop.cancel();
        tracker.close();
        tracker.wait().await;
        let file = config.server.data_dir.join(ADDRESS_FILE);
        if let Err(error) = std::fs::remove_file(&file) {
            tracing::warn!(%error, file = %file.display(), "could not be removed");
        }
    }
}

/// Writes the addresses listened on into the data directory: with port 0 nobody else knows them. Renamed into place, so
/// that who sees it sees all of it.
fn tell_addresses(
    data_dir: &Path,
    broker: &Broker,
    monitor: Option<SocketAddr>,
) -> Result<(), Failure> {
    let monitor = monitor.map(|address| format!("http://{address}"));
    let lines = broker.addresses().map(line_of).chain(monitor);
    let lines: String = lines.map(|line| line + "\n").collect();
    let (file, draft) = (data_dir.join(ADDRESS_FILE), data_dir.join("listen.new"));
    std::fs::write(&draft, lines)
        .and_then(|()| std::fs::rename(&draft, &file))
        .map_err(Failure::io(file.display().to_string()))
}

/// Plain TCP is the address alone.
fn line_of(address: &Address) -> String {
    match (address.protocol, &address.place) {
        (Protocol::Tcp, AddressPlace::Network(address)) => address.to_string(),
        _ => address.to_string(),
    }
}

/// What SIGHUP reads again: what may change while the server runs.
struct Reload {
    acl_file: PathBuf,
    rules: Arc<Rules>,
    certificates: Certificates,
    log: LogFilter,
    words: Words,
    accounts: Arc<Accounts>,
}

impl Reload {
    async fn run(self, mut hangup: Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                _ = hangup.recv() => {}
                () = stop.cancelled() => return,
            }
            self.reload().await;
        }
    }

    async fn reload(&self) {
        let mut line = audit_line("config reload", "SIGHUP".to_owned());
        let number = self.note(line.clone(), None).await;
        if let Err(error) = self.log.reset() {
            tracing::error!(error, "the log stays as it is");
        }
        tracing::info!("SIGHUP: reading the certificates and the rules again");
        self.certificates.reload().await;
        line.outcome = AuditOutcome::Done;
        if let Err(error) = self.replace_rules() {
            tracing::error!(error, "the rules cannot be read: the old ones stay");
            line.outcome = AuditOutcome::Refused;
            line.add("why", error);
        }
        self.words.reload();
        self.note(line, number).await;
    }

    /// Writes a line of the audit log. Nobody can be told that a signal was not obeyed: it is in any case.
    async fn note(&self, line: AuditLine, number: Option<u64>) -> Option<u64> {
        let noted = self.accounts.store().audit(line, number).await;
        noted
            .inspect_err(|error| tracing::error!(%error, "a SIGHUP is not in the audit log"))
            .ok()
    }

    fn replace_rules(&self) -> Result<(), String> {
        let acl = acl::read(&self.acl_file).map_err(|error| error.to_string())?;
        tracing::info!(rules = acl.len(), "the rules were read");
        self.rules.replace(acl);
        Ok(())
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The first signal drains. One that comes while draining, whatever began it, ends the process at once.
    async fn stop_or_end(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.next() => tracing::info!("draining; a second signal ends at once"),
            () = stop.cancelled() => {}
        }
        stop.cancel();
        self.next().await;
        std::process::exit(130);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says when the store takes no writes any more, and ends the server if it never will again.
async fn watch(stores: Stores, exit_on_poison: bool, stop: CancellationToken) {
    let mut last = Health::Ready;
    loop {
        tokio::select! {
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        let health = stores.health();
        if health == last {
            continue;
        }
        match &health {
            Health::Ready => tracing::info!("the store takes writes again"),
            Health::ReadOnly(why) => {
                tracing::error!(why, "the store is read-only: nothing is accepted");
            }
            Health::Poisoned(why) => {
                tracing::error!(
                    why,
                    "a write could not be made durable: nothing more is acknowledged until a restart"
                );
                if exit_on_poison {
                    stop.cancel();
                    return;
                }
            }
        }
        last = health;
    }
}
