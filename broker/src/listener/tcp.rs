//! The plain TCP listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::{debug, warn};

use super::Doorkeeper;
use crate::connection;
use crate::server::Server;

/// Listens on an address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the broker stops; each becomes a task.
pub(crate) async fn run(server: &Arc<Server>, listener: &TcpListener) {
    let doorkeeper = Arc::new(Doorkeeper::new(
        server.config.connections_max,
        server.config.connections_per_address_max,
        Arc::clone(&server.metrics),
    ));
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            () = server.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                accept(server, &doorkeeper, stream, peer);
            }
            Err(error) if is_about_one_connection(&error) => {
                debug!(%error, "connection was gone before it was accepted");
            }
            Err(error) => {
                // Out of descriptors, or of memory: waiting is all that helps.
                server.metrics.accept_errors.increment();
                warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                tokio::select! {
                    () = server.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn accept(server: &Arc<Server>, doorkeeper: &Arc<Doorkeeper>, stream: TcpStream, peer: SocketAddr) {
    server.metrics.connections_accepted.increment();
    let Some(place) = doorkeeper.admit(peer.ip()) else {
        server.metrics.connections_over_limit.increment();
        debug!(%peer, "connection over the limit");
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "connection was gone before it was served");
        return;
    }
    let server = Arc::clone(server);
    let tasks = server.tasks.clone();
    tasks.spawn(async move {
        let _place = place;
        connection::serve(server, stream, peer).await;
    });
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
