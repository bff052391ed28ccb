//! TCP sockets that listen.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket};

use super::BACKLOG;

/// Listens on an address. Accepted sockets inherit that the system asks a peer who was silent for so long.
pub(super) fn bind(address: SocketAddr, keep_alive: Option<Duration>) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(silence) = keep_alive {
        let asking = TcpKeepalive::new().with_time(silence);
        SockRef::from(&socket).set_tcp_keepalive(&asking)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn the_system_asks_silent_peers_of_accepted_sockets() {
        for silence in [Some(Duration::from_secs(77)), None] {
            let listener = bind(([127, 0, 0, 1], 0).into(), silence).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
            let (socket, _) = listener.accept().await.unwrap();
            let socket = SockRef::from(&socket);
            assert_eq!(socket.keepalive().unwrap(), silence.is_some());
            if let Some(silence) = silence {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), silence);
            }
        }
    }
}
