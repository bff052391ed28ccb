//! `mqchat serve`: build, run, drain.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use chat_plugin::accounts::Accounts;
use chat_plugin::plugin::ChatPlugin;
use chat_plugin::store::{self, ChatStore, Health, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;
use crate::admin::AdminSocket;
use crate::config::{Config, OrdinaryTopics};

/// How often the store is asked how it is.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the server until a signal, or until the store fails.
pub(crate) fn run(config: Config, dev: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("the runtime"))?;
    runtime.block_on(serve(config, dev))
}

async fn serve(config: Config, dev: bool) -> Result<(), Failure> {
    let data_dir = config.server.data_dir.clone();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700) // messages and password hashes are for nobody else on this machine
        .create(&data_dir)
        .map_err(Failure::io(format!(
            "the data directory {}",
            data_dir.display()
        )))?;
    let store = store::open(&config.store)?;
    let served = serve_store(&config, dev, Arc::clone(&store)).await;
    let health = store.health();
    match store.close().await {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(%error, "the store could not be closed cleanly"),
    }
    served?;
    match health {
        Health::Poisoned(why) => Err(StoreError::Unavailable(why).into()),
        _ => Ok(()),
    }
}

async fn serve_store(config: &Config, dev: bool, store: Arc<dyn ChatStore>) -> Result<(), Failure> {
    let accounts = Accounts::new(Arc::clone(&store), &config.accounts, dev);
    let accounts = Arc::new(accounts.map_err(|error| Failure::Usage(error.to_string()))?);
    let open = config.server.ordinary_topics == OrdinaryTopics::Open;
    let plugin = ChatPlugin::new(
        Arc::clone(&store),
        Arc::clone(&accounts),
        config.chat.clone(),
        open,
    );
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let broker = Broker::bind(config.broker.clone(), plugin)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let admin = AdminSocket::open(&config.server.data_dir)?;
    let address = broker.local_addr();
    tell_address(&config.server.data_dir, &address.to_string())?;
    tracing::info!(%address, data = %config.server.data_dir.display(), engine = config.store.engine.name(), "listening");
    if dev {
        tracing::warn!(
            "--dev: anybody on this machine can log in; an unknown user is made at the first CONNECT"
        );
    }
    tracker.spawn(admin.run(accounts, tracker.clone(), stop.clone()));
    let signals =
        tokio_util::task::AbortOnDropHandle::new(tracker.spawn(stop_at_signal(stop.clone())));
    tracker.spawn(watch(store, config.server.exit_on_poison, stop.clone()));
    broker.run(stop.clone()).await;
    stop.cancel();
    drop(signals);
    tracker.close();
    tracker.wait().await;
    Ok(())
}

/// Writes the address listened on into `listen` in the data directory: with port 0 nobody else knows it. Renamed into
/// place, so that who sees it sees all of it.
fn tell_address(data_dir: &Path, address: &str) -> Result<(), Failure> {
    let (file, draft) = (data_dir.join("listen"), data_dir.join("listen.new"));
    std::fs::write(&draft, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&draft, &file))
        .map_err(Failure::io(file.display().to_string()))
}

/// The first SIGTERM or SIGINT drains, the second one ends the process at once.
async fn stop_at_signal(stop: CancellationToken) {
    let (mut terminate, mut interrupt) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be received: SIGTERM will end the process without draining");
            return;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => return,
    }
    tracing::info!("draining; a second signal ends at once");
    stop.cancel();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    std::process::exit(130);
}

/// Says when the store takes no writes any more, and ends the server if it never will again.
async fn watch(store: Arc<dyn ChatStore>, exit_on_poison: bool, stop: CancellationToken) {
    let mut last = Health::Ready;
    loop {
        tokio::select! {
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        let health = store.health();
        if health == last {
            continue;
        }
        match &health {
            Health::Ready => tracing::info!("the store takes writes again"),
            Health::ReadOnly(why) => {
                tracing::error!(why, "the store is read-only: nothing is accepted")
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
