//! A TCP proxy of the checker's own, on loopback: connections go through it so that it can reset them or swallow what flows.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of the connections that there are. Each is born between two events.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    events: u64,
    /// Those born before this event are reset.
    cut: u64,
    /// Those born before this event swallow what the server answers.
    deaf: u64,
    /// Those born before this event swallow what the clients send.
    dumb: u64,
}

/// Stands before the server; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Aborted when it is dropped.
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port, and connects to this one.
    pub(crate) async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, weather.subscribe()));
        Ok(Self {
            address,
            weather,
            _tasks: tasks,
        })
    }

    /// Where clients connect.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets all connections that there are.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| {
            weather.events += 1;
            weather.cut = weather.events;
        });
    }

    /// The connections that there are swallow one direction from now on: both sides think that they are connected. New ones
    /// are well.
    pub(crate) fn mute(&self, answers: bool) {
        self.weather.send_modify(|weather| {
            weather.events += 1;
            if answers {
                weather.deaf = weather.events;
            } else {
                weather.dumb = weather.events;
            }
        });
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    relays.spawn(relay(client, server, weather.clone()));
                }
                // Too many open files, say.
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = relays.join_next() => {}
        }
    }
}

/// Until one side closes, or the connection is cut. A server that is not there closes at once.
async fn relay(client: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let born = weather.borrow_and_update().events;
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for stream in [&client, &server] {
        // Best effort: a connection that is closed in order ends as well.
        let _slow = stream.set_nodelay(true);
        let _orderly = stream.set_zero_linger();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, down) = (weather.clone(), weather.clone());
    let is_dumb = move || born < up.borrow().dumb;
    let is_deaf = move || born < down.borrow().deaf;
    tokio::select! {
        () = pass(from_client, to_server, is_dumb) => {}
        () = pass(from_server, to_client, is_deaf) => {}
        _ = weather.wait_for(|weather| born < weather.cut) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallows: impl Fn() -> bool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let chunk = buffer.get(..bytes).unwrap_or_default();
        if !swallows() && to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

const BUFFER_BYTES: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets.
    async fn world() -> (Proxy, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(async move {
                    let (from, to) = stream.into_split();
                    pass(from, to, || false).await;
                });
            }
        });
        (proxy, echo)
    }

    async fn echoes(stream: &mut TcpStream, byte: u8) -> bool {
        stream.write_all(&[byte]).await.unwrap();
        let mut back = [0];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut back));
        matches!(read.await, Ok(Ok(1))) && back == [byte]
    }

    #[tokio::test]
    async fn connections_pass_swallow_and_are_cut_and_new_ones_are_well() {
        let (proxy, _echo) = world().await;
        for answers in [true, false] {
            let mut old = TcpStream::connect(proxy.address()).await.unwrap();
            assert!(echoes(&mut old, 1).await);
            proxy.mute(answers);
            assert!(!echoes(&mut old, 2).await, "swallowed");
            let mut new = TcpStream::connect(proxy.address()).await.unwrap();
            assert!(echoes(&mut new, 3).await);
            proxy.cut();
            let mut end = [0];
            let read = tokio::time::timeout(Duration::from_secs(5), new.read(&mut end))
                .await
                .unwrap();
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
    }
}
