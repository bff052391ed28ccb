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

pub mod acl;
mod budget;
mod clock;
pub mod codec;
pub mod config;
mod connection;
mod error;
pub mod faults;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hooks;
mod journal;
mod listener;
pub mod mailbox;
pub mod metrics;
pub mod operator;
mod rate;
mod registry;
mod router;
pub mod scram;
mod server;
mod session;
pub mod store;
mod survey;
mod sys;
mod vitals;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::acl::Rules;
pub use crate::config::{Config, ConfigError};
pub use crate::error::Error;
use crate::hooks::Hooks;
pub use crate::listener::{Address, AddressPlace, Certificates, TlsError};
use crate::listener::{Doorkeeper, Listener};
pub use crate::metrics::Metrics;
use crate::operator::Operator;
use crate::server::Server;
use crate::store::sessions::Sessions;
use crate::sys::Statistics;

/// A broker that listens and does not serve yet.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    hooks: HooksBox,
    listeners: Vec<Listener>,
    certificates: Certificates,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    operator: Operator,
    sessions: Option<Sessions>,
}

struct HooksBox(Arc<dyn Hooks>);

impl std::fmt::Debug for HooksBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks({:?})", self.0.root())
    }
}

impl Broker {
    /// Listens wherever the configuration says. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The configuration contradicts itself, an address cannot be had, or a certificate cannot be used.
    pub fn bind(config: Config, hooks: Arc<dyn Hooks>) -> Result<Self, Error> {
        config.check()?;
        let metrics = Arc::default();
        let (listeners, certificates) = listener::bind(&config, &metrics)?;
        Ok(Self {
            config,
            hooks: HooksBox(hooks),
            listeners,
            certificates,
            rules: Arc::default(),
            metrics,
            operator: Operator::default(),
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

    /// Where it listens: the simple listener first, if there is one, then the others in their order.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(Listener::address)
    }

    /// Where the first listener of the network listens, with the port that port 0 became.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses().find_map(|address| match address.place {
            AddressPlace::Network(address) => Some(address),
            AddressPlace::Local(_) => None,
        })
    }

    /// The certificates of its listeners.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// The operator's rules: none at first, to be replaced at any time.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// What an operator sees and does while it serves.
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Serves until `shutdown` is cancelled and everything has been drained.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop = shutdown.child_token();
        // Whoever drops this future before its end stops the connections as well.
        let _stop_on_drop = stop.clone().drop_guard();
        let server = Arc::new(Server::new(
            self.config,
            self.hooks.0,
            self.rules,
            self.metrics,
            self.sessions.as_ref().map(Sessions::journal),
            stop.clone(),
        ));
        let mut sessions = self.sessions;
        if let Some(sessions) = &mut sessions {
            server.restore(sessions.take_found());
        }
        server.tasks.spawn(Arc::clone(&server).watch_sessions());
        server.tasks.spawn(Arc::clone(&server).watch_rules());
        server.tasks.spawn(survey::run(Arc::clone(&server)));
        if let Some(interval) = server.config.sys_interval() {
            let statistics = Statistics::begin(Arc::clone(&server));
            server.tasks.spawn(statistics.run(interval));
        }
        let certificates = self.certificates;
        let interval = server.config.certificate_check();
        server
            .tasks
            .spawn(certificates.watch(interval, stop.clone()));
        let doorkeeper = Arc::new(Doorkeeper::new(
            server.config.connections_max,
            server.config.connections_per_address_max,
            Arc::clone(&server.metrics),
        ));
        for listener in self.listeners {
            let accepting = listener.run(Arc::clone(&server), Arc::clone(&doorkeeper));
            server.tasks.spawn(accepting);
        }
        self.operator.attach(&server);
        stop.cancelled().await;
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
