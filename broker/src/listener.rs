//! Lets connections in: from accept to a byte stream that carries MQTT.
//!
//! 1. A connection is accepted and counted ([`doorkeeper`]): in all, and for its address.
//! 2. It becomes a task. Nothing of what follows holds up the next accept, and all of it together, CONNECT included, has
//!    until the connect timeout.
//! 3. With `proxy_protocol`: the balancer's header is read ([`proxy`]), and the connection counts for the address in it.
//! 4. With TLS or WebSocket: an address that connects too often is turned away before the handshake. With TLS: the handshake, perhaps with a client certificate that names a user ([`tls`]).
//! 5. With WebSocket: the handshake, and frames from then on ([`websocket`]).
//! 6. [`connection::open`] takes the [`Stream`].
//!
//! One socket per listener accepts for all threads. A socket per thread (`SO_REUSEPORT`) was left out: a task per
//! connection is all that the loop does, and connections that wait on a busy thread's socket could not go elsewhere.

mod doorkeeper;
mod proxy;
mod stream;
mod tcp;
mod tls;
mod unix;
mod websocket;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::doorkeeper::Place;
pub(crate) use self::doorkeeper::{Doorkeeper, network};
use self::proxy::{ProxyError, Source};
use self::stream::{Socket, Stream};
use self::tls::Tls;
pub use self::tls::{Certificates, TlsError};
use self::unix::LocalListener;
use self::websocket::{HandshakeError, WebSocket};
use crate::config::{Config, ListenerConfig, Network, Protocol};
use crate::error::Error;
use crate::hooks::{CertificateIdentity, Peer};
use crate::metrics::Metrics;
use crate::server::Server;
use crate::{clock, connection};

/// What is known of a connection before it says anything in MQTT.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: Peer,
    pub(crate) certificate: Option<CertificateIdentity>,
    /// It counts already among the connections of its address in this second.
    pub(crate) is_counted: bool,
    /// When CONNECT has to be answered.
    pub(crate) deadline: Option<Instant>,
}

/// Where the broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The place.
    pub place: AddressPlace,
}

/// An address of the network, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPlace {
    /// Address and port: the one that port 0 became.
    Network(SocketAddr),
    /// The file of a Unix socket.
    Local(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.protocol)?;
        match &self.place {
            AddressPlace::Network(address) => address.fmt(f),
            AddressPlace::Local(path) => path.display().fmt(f),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    door: Door,
    address: Address,
    welcome: Arc<Welcome>,
}

#[derive(Debug)]
enum Door {
    Tcp(TcpListener),
    Unix(LocalListener),
}

/// What a listener does with a connection before MQTT begins.
#[derive(Debug)]
struct Welcome {
    /// The balancers that may connect, if every connection comes through one.
    balancers: Option<Vec<Network>>,
    tls: Option<Arc<Tls>>,
    websocket: Option<websocket::Terms>,
}

/// Listens wherever the configuration says.
///
/// # Errors
/// An address cannot be had, or a certificate not be used.
pub(crate) fn bind(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Vec<Listener>, Certificates), Error> {
    let keep_alive = config.tcp_keep_alive();
    let mut listeners = Vec::new();
    let mut certificates = Vec::new();
    for config in config.all_listeners() {
        let listener = Listener::bind(&config, keep_alive)?;
        certificates.extend(listener.welcome.tls.clone());
        listeners.push(listener);
    }
    Ok((
        listeners,
        Certificates::new(certificates, Arc::clone(metrics)),
    ))
}

impl Listener {
    fn bind(config: &ListenerConfig, keep_alive: Option<Duration>) -> Result<Self, Error> {
        let protocol = config.protocol;
        let tls = match tls::Files::of(config) {
            Some(files) => Some(Arc::new(Tls::load(files)?)),
            None => None,
        };
        let welcome = Welcome {
            balancers: config.proxy_protocol.then(|| config.proxy_sources.clone()),
            tls,
            websocket: websocket::Terms::of(config),
        };
        let (door, place) = match (config.address, &config.socket) {
            (Some(address), _) => {
                let failed = |source| Error::Bind {
                    address: address.to_string(),
                    source,
                };
                let listener = tcp::bind(address, keep_alive).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                (Door::Tcp(listener), AddressPlace::Network(address))
            }
            (None, Some(path)) => {
                let failed = |source| Error::Bind {
                    address: path.display().to_string(),
                    source,
                };
                let listener = LocalListener::bind(path, config.mode).map_err(failed)?;
                (Door::Unix(listener), AddressPlace::Local(path.clone()))
            }
            (None, None) => unreachable!("the configuration was checked"),
        };
        Ok(Self {
            door,
            address: Address { protocol, place },
            welcome: Arc::new(welcome),
        })
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts connections until the broker stops; each becomes a task.
    pub(crate) async fn run(self, server: Arc<Server>, doorkeeper: Arc<Doorkeeper>) {
        info!(address = %self.address, "listening");
        let mut pause = PAUSE_MIN;
        loop {
            let accepted = tokio::select! {
                () = server.stop.cancelled() => return,
                accepted = self.door.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    pause = PAUSE_MIN;
                    self.admit(&server, &doorkeeper, socket, peer);
                }
                Err(error) if is_about_one_connection(&error) => {
                    debug!(%error, "connection was gone before it was accepted");
                }
                Err(error) => {
                    // Out of descriptors, or of memory: waiting is all that helps.
                    server.metrics.accept_errors.increment();
                    warn!(
                        %error,
                        address = %self.address,
                        pause_ms = pause.as_millis(),
                        "cannot accept connections"
                    );
                    tokio::select! {
                        () = server.stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn admit(
        &self,
        server: &Arc<Server>,
        doorkeeper: &Arc<Doorkeeper>,
        socket: Socket,
        peer: Peer,
    ) {
        server.metrics.connections_accepted.increment();
        if !self.welcome.trusts(&peer) {
            server.metrics.handshakes_failed.increment();
            debug!(%peer, "not one of the balancers");
            return;
        }
        let counted_for = match self.welcome.balancers {
            Some(_) => None,
            None => peer.ip(),
        };
        let Some(place) = doorkeeper.admit(counted_for) else {
            server.metrics.connections_over_limit.increment();
            debug!(%peer, "connection over the limit");
            return;
        };
        let arrival = Arrival {
            peer,
            certificate: None,
            is_counted: false,
            deadline: clock::now().checked_add(server.config.connect_timeout()),
        };
        let (server, welcome) = (Arc::clone(server), Arc::clone(&self.welcome));
        let tasks = server.tasks.clone();
        tasks.spawn(async move {
            // Boxed: handshakes take no memory during the connection's long life.
            let opened = Box::pin(async move {
                let welcomed = welcome.receive(&server, socket, arrival, place).await;
                let (stream, arrival, place) = welcomed?;
                let connection = connection::open(server, stream, arrival).await?;
                Some((connection, place))
            });
            if let Some((connection, _place)) = opened.await {
                connection.run().await;
            }
        });
    }
}

impl Door {
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%peer, %error, "connection was gone before it was served");
                }
                Ok((Socket::Tcp(stream), Peer::Network(peer)))
            }
            Self::Unix(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Unix(stream), peer))
            }
        }
    }
}

/// A connection that did not come as far as MQTT, and its stream, if what was written on it last is worth reading.
type TurnedAway = (Unwelcome, Option<Stream>);

/// Why a connection did not come as far as MQTT.
#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error("connect timeout")]
    Timeout,
    #[error("server is shutting down")]
    Shutdown,
    #[error("PROXY protocol: {0}")]
    Proxy(#[from] ProxyError),
    #[error("too many connections of that address")]
    OverLimit,
    #[error("that address connects too often")]
    OverRate,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("WebSocket: {0}")]
    WebSocket(#[from] HandshakeError),
}

impl Welcome {
    fn trusts(&self, peer: &Peer) -> bool {
        match (&self.balancers, peer.ip()) {
            (Some(balancers), Some(ip)) => balancers.iter().any(|network| network.contains(ip)),
            // The permissions of a Unix socket say who may connect.
            _ => true,
        }
    }

    async fn receive(
        &self,
        server: &Server,
        socket: Socket,
        mut arrival: Arrival,
        mut place: Place,
    ) -> Option<(Stream, Arrival, Place)> {
        let deadline = clock::sleep_until(arrival.deadline);
        let received = tokio::select! {
            biased;
            () = server.stop.cancelled() => Err((Unwelcome::Shutdown, None)),
            received = self.shake_hands(server, socket, &mut arrival, &mut place) => received,
            () = deadline => Err((Unwelcome::Timeout, None)),
        };
        match received {
            Ok(stream) => Some((stream, arrival, place)),
            Err((cause, stream)) => {
                let metrics = &server.metrics;
                match cause {
                    Unwelcome::OverLimit => metrics.connections_over_limit.increment(),
                    Unwelcome::OverRate => metrics.connects_over_rate.increment(),
                    _ => metrics.handshakes_failed.increment(),
                }
                debug!(peer = %arrival.peer, %cause, "connection ended before CONNECT");
                if let Some(stream) = stream {
                    linger(stream, server.config.close_timeout()).await;
                }
                None
            }
        }
    }

    async fn shake_hands(
        &self,
        server: &Server,
        mut socket: Socket,
        arrival: &mut Arrival,
        place: &mut Place,
    ) -> Result<Stream, TurnedAway> {
        if self.balancers.is_some() {
            match proxy::read(&mut socket).await {
                Ok(Source::Client(address)) => arrival.peer = Peer::Network(address),
                Ok(Source::Balancer) => {}
                Err(error) => return Err((error.into(), Some(Stream::Plain(socket)))),
            }
            if !place.relocate(arrival.peer.ip()) {
                return Err((Unwelcome::OverLimit, None));
            }
        }
        // A handshake costs more than a CONNECT.
        if self.tls.is_some() || self.websocket.is_some() {
            arrival.is_counted = true;
            if !server.admits(arrival.peer) {
                return Err((Unwelcome::OverRate, None));
            }
        }
        let mut stream = match &self.tls {
            None => Stream::Plain(socket),
            Some(tls) => {
                let accepted = tls.accept(socket).await;
                let (stream, certificate) = accepted.map_err(|(error, socket)| {
                    let stream = Stream::Plain(socket);
                    (Unwelcome::Tls(error), Some(stream))
                })?;
                arrival.certificate = certificate;
                Stream::Tls(Box::new(stream))
            }
        };
        let Some(terms) = &self.websocket else {
            return Ok(stream);
        };
        if let Err(error) = websocket::accept(&mut stream, terms).await {
            return Err((error.into(), Some(stream)));
        }
        let websocket = WebSocket::new(stream, server.stop.clone());
        Ok(Stream::WebSocket(Box::new(websocket)))
    }
}

/// Closes the sending side and reads on until the peer closes too, for a bounded time: with unread input the system would
/// reset the connection, and the peer might never read what was written last.
async fn linger(mut stream: Stream, patience: Duration) {
    let ending = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    match timeout(patience, ending).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%error, "connection ended while it was closed"),
        Err(_) => debug!("peer did not close in time"),
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 4_096;
/// First and longest pause after a failed accept.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
