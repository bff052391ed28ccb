//! How a client is made: where the server is, who logs in, where things are kept, and limits.

use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::Client;
use crate::error::Error;
use crate::transport::Address;

/// Bounds of a client, and how patient it is. The defaults suit an app on a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// As much may wait for the server; [`Error::OutboxFull`] beyond it. 10,000.
    pub outbox_messages_max: usize,
    /// If more than this waits for [`Events`](crate::Events), nothing is taken from the server until the app has caught up;
    /// see [`Client::waiting`] and [`Builder::without_entries`]. 10,000.
    pub feed_entries_max: u64,
    /// Calls that wait for their answers; [`Error::Busy`] beyond it. 256.
    pub calls_max: usize,
    /// Hints that wait for the app; beyond it they become one [`Event::Refresh`](crate::Event::Refresh). 1,024.
    pub hints_max: usize,
    /// Entries that the server may have on the way to this client, 1 to 1,000. 256.
    pub receive_maximum: u16,
    /// Time for an answer of the server to a call; [`Error::Timeout`] after it. 30 s.
    pub call_timeout: Duration,
    /// Time for making a connection, from the name of the server to its CONNACK. 10 s.
    pub connect_timeout: Duration,
    /// Wait after the first failure of a connection. 500 ms.
    pub reconnect_min: Duration,
    /// Longest wait between attempts. 60 s.
    pub reconnect_max: Duration,
    /// After this much silence the connection is probed. 30 s.
    pub keep_alive: Duration,
    /// How long the server keeps the session of this device after it was last connected; not with a memory store. 90 days.
    pub session_expiry: Duration,
    /// How long nothing of what is missing has to have come before a gap in the log is filled by asking. 2 s.
    pub gap_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbox_messages_max: 10_000,
            feed_entries_max: 10_000,
            calls_max: 256,
            hints_max: 1_024,
            receive_maximum: 256,
            call_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_mins(1),
            keep_alive: Duration::from_secs(30),
            session_expiry: Duration::from_hours(24 * 90),
            gap_patience: Duration::from_secs(2),
        }
    }
}

/// Where things are kept.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Memory,
    Folder(PathBuf),
}

/// Who it is, and how the server can tell.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) handle: String,
    pub(crate) secret: String,
}

impl Login {
    pub(crate) fn new(handle: impl Into<String>, secret: impl Into<String>) -> Result<Self, Error> {
        let handle = handle.into();
        if handle.is_empty() {
            return Err(Error::Invalid("a client needs a login".to_owned()));
        }
        Ok(Self {
            handle,
            secret: secret.into(),
        })
    }
}

/// All that a client is made of.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) address: Address,
    pub(crate) login: Login,
    pub(crate) storage: Storage,
    pub(crate) device: Option<String>,
    pub(crate) feeds: bool,
    #[cfg(feature = "tls")]
    pub(crate) roots: Vec<u8>,
    /// Made with the first connection; the next ones resume its sessions.
    #[cfg(feature = "tls")]
    pub(crate) tls: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
    pub(crate) limits: Limits,
}

/// Makes a [`Client`].
#[derive(Clone)]
#[must_use = "nothing happens before open"]
pub struct Builder {
    server: String,
    handle: String,
    secret: String,
    storage: Storage,
    device: Option<String>,
    feeds: bool,
    #[cfg(feature = "tls")]
    roots: Vec<u8>,
    limits: Limits,
}

impl Builder {
    pub(crate) fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            handle: String::new(),
            secret: String::new(),
            storage: Storage::Memory,
            device: None,
            feeds: true,
            #[cfg(feature = "tls")]
            roots: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// The user's handle, and the password or a device token (`mqchat token issue`).
    pub fn login(mut self, handle: impl Into<String>, secret: impl Into<String>) -> Self {
        self.handle = handle.into();
        self.secret = secret.into();
        self
    }

    /// Keeps everything in this folder, which is made if it is not there. One client at a time may have it open. Without
    /// this everything is in memory, and the server treats this device as a guest: it keeps nothing for it.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.storage = Storage::Folder(folder.into());
        self
    }

    /// The MQTT Client Identifier of a new store; without this one by chance. A store that is there keeps its own.
    pub fn device(mut self, client_id: impl Into<String>) -> Self {
        self.device = Some(client_id.into());
        self
    }

    /// No entry waits for [`Events`](crate::Events), which gives hints only: for an app that shows what is in the log, or only
    /// writes. Otherwise an app that does not take its entries stops getting any, see [`Limits::feed_entries_max`].
    pub fn without_entries(mut self) -> Self {
        self.feeds = false;
        self
    }

    /// Trusts the certificates in this PEM instead of those of the system.
    #[cfg(feature = "tls")]
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = pem.into();
        self
    }

    /// Other limits than the default.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens the store and starts to connect. Works without a network: [`Client::online`] waits for the server.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad address, handle or limit; [`Error::Store`] for a folder that cannot be used.
    pub async fn open(self) -> Result<Client, Error> {
        Client::start(self.check()?).await
    }

    fn check(self) -> Result<Config, Error> {
        let invalid = |what: &str| Err(Error::Invalid(what.to_owned()));
        if !(1..=1_000).contains(&self.limits.receive_maximum) {
            return invalid("receive_maximum is 1 to 1,000");
        }
        if self.limits.keep_alive < Duration::from_secs(1) {
            return invalid("keep_alive is at least a second");
        }
        Ok(Config {
            address: self.server.parse()?,
            login: Login::new(self.handle, self.secret)?,
            storage: self.storage,
            device: self.device,
            feeds: self.feeds,
            #[cfg(feature = "tls")]
            roots: self.roots,
            #[cfg(feature = "tls")]
            tls: Arc::default(),
            limits: self.limits,
        })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("server", &self.server)
            .field("handle", &self.handle)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}
