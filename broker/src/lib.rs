//! An MQTT 3.1.1 and 5.0 server that has never heard of chat.
//!
//! [`Broker::bind`] listens, [`Broker::run`] serves until its token is cancelled. A plugin joins by [`hooks::Hooks`] and owns
//! one root level of the topic tree; everything else is ordinary MQTT.
//!
//! How it stops:
//! 1. The token is cancelled: no connection is accepted, and none is read any more.
//! 2. Each connection waits until its requests are answered (at most `drain_timeout_ms`), sends the answers and DISCONNECT
//!    0x8B, and tells the plugin of its end.
//! 3. When the last task is over, the plugin is told of the shutdown, and the sessions at rest are closed.
//!
//! What it does not do yet: extended authentication, TLS, WebSocket.

mod acl;
mod clock;
pub mod codec;
pub mod config;
mod connection;
mod error;
pub mod hooks;
mod journal;
mod listener;
pub mod mailbox;
pub mod metrics;
mod registry;
mod router;
mod server;
mod session;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use crate::config::{Config, ConfigError};
pub use crate::error::Error;
use crate::hooks::Hooks;
use crate::listener::tcp;
pub use crate::metrics::Metrics;
use crate::server::Server;
use crate::store::sessions::Sessions;

/// A broker that listens and does not serve yet.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    hooks: HooksBox,
    listener: TcpListener,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    sessions: Option<Sessions>,
}

struct HooksBox(Arc<dyn Hooks>);

impl std::fmt::Debug for HooksBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks({:?})", self.0.root())
    }
}

impl Broker {
    /// Listens on the configured address. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The configuration contradicts itself, or the address cannot be had.
    pub fn bind(config: Config, hooks: Arc<dyn Hooks>) -> Result<Self, Error> {
        config.check()?;
        let failed = |source| Error::Bind {
            address: config.listen,
            source,
        };
        let listener = tcp::bind(config.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            config,
            hooks: HooksBox(hooks),
            listener,
            address,
            metrics: Arc::default(),
            sessions: None,
        })
    }

    /// Keeps sessions, retained messages and wills there, and begins with what was found there. Without this nothing
    /// outlives the process.
    #[must_use]
    pub fn with_sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = Some(sessions);
        self
    }

    /// Where it listens: with the port that port 0 became.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves until `shutdown` is cancelled and everything has been drained.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop = shutdown.child_token();
        // Whoever drops this future before its end stops the connections as well.
        let _stop_on_drop = stop.clone().drop_guard();
        let server = Arc::new(Server::new(
            self.config,
            self.hooks.0,
            self.metrics,
            self.sessions.as_ref().map(Sessions::journal),
            stop.clone(),
        ));
        let mut sessions = self.sessions;
        if let Some(sessions) = &mut sessions {
            server.restore(sessions.take_found());
        }
        server.tasks.spawn(Arc::clone(&server).watch_sessions());
        info!(address = %self.address, "listening");
        tcp::run(&server, &self.listener).await;
        drop(self.listener);
        info!("draining connections");
        server.tasks.close();
        server.tasks.wait().await;
        server.hooks.on_shutdown().await;
        if let Some(sessions) = sessions {
            let closing = tokio::task::spawn_blocking(move || sessions.close());
            if let Err(error) = closing.await {
                error!(%error, "sessions could not be closed");
            }
        }
    }
}
