//! An address becomes a stream of bytes: TCP, TLS over it, WebSocket over either. MQTT begins above.

#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use crate::clock;
use crate::config::Config;
use crate::error::Error;

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 16;
/// After so long without an answer the next address is tried as well.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// What MQTT runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A stream of any kind.
pub(crate) type BoxStream = Box<dyn Stream>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Mqtt,
    Mqtts,
    Ws,
    Wss,
}

/// Where a server is: `mqtt://host:1883`, `mqtts://host:8883`, `ws://host:80/mqtt`, `wss://host:443/mqtt`; the ports are the
/// defaults, and so is the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

impl Address {
    /// Name or number, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid =
            |why: &str| Error::Invalid(format!("not an address of a server: {text}: {why}"));
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("it begins with mqtt://, mqtts://, ws:// or wss://"))?;
        let (scheme, default_port) = match scheme {
            "mqtt" => (Scheme::Mqtt, 1883),
            "mqtts" => (Scheme::Mqtts, 8883),
            "ws" => (Scheme::Ws, 80),
            "wss" => (Scheme::Wss, 443),
            _ => return Err(invalid("mqtt, mqtts, ws or wss")),
        };
        if matches!(scheme, Scheme::Mqtts | Scheme::Wss) && !cfg!(feature = "tls") {
            return Err(invalid("the feature `tls` is not built in"));
        }
        if matches!(scheme, Scheme::Ws | Scheme::Wss) && !cfg!(feature = "websocket") {
            return Err(invalid("the feature `websocket` is not built in"));
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, "/mqtt".to_owned()),
        };
        if authority.contains('@') {
            return Err(invalid("the login goes into `login`"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| invalid("bad port"))?)
            }
            _ => (authority, default_port),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(invalid("no host"));
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Mqtt => "mqtt",
            Scheme::Mqtts => "mqtts",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        write!(f, "{scheme}://{host}:{}", self.port)?;
        match self.scheme {
            Scheme::Ws | Scheme::Wss => f.write_str(&self.path),
            Scheme::Mqtt | Scheme::Mqtts => Ok(()),
        }
    }
}

/// Makes the stream.
///
/// # Errors
/// What the network, TLS or the handshake of WebSocket said.
pub(crate) async fn connect(config: &Config) -> io::Result<BoxStream> {
    let address = &config.address;
    let found = lookup_host((address.host(), address.port())).await?;
    let stream = race(alternating(found.take(ADDRESSES_MAX)), TcpStream::connect).await?;
    stream.set_nodelay(true)?;
    match address.scheme {
        Scheme::Mqtt => Ok(Box::new(stream)),
        #[cfg(feature = "tls")]
        Scheme::Mqtts => Ok(Box::new(tls::connect(stream, config).await?)),
        #[cfg(feature = "websocket")]
        Scheme::Ws => Ok(Box::new(
            websocket::connect(stream, &address.to_string()).await?,
        )),
        #[cfg(all(feature = "tls", feature = "websocket"))]
        Scheme::Wss => {
            let stream = tls::connect(stream, config).await?;
            Ok(Box::new(
                websocket::connect(stream, &address.to_string()).await?,
            ))
        }
        #[cfg(not(all(feature = "tls", feature = "websocket")))]
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "not built in: an address with this scheme is refused",
        )),
    }
}

/// The families of addresses take turns, beginning with that of the first one (RFC 8305 §4).
fn alternating(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found = found.peekable();
    let begins_with_v6 = found.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.partition(|address| address.is_ipv6() == begins_with_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let turn = [first.next(), second.next()];
        if turn == [None, None] {
            return ordered;
        }
        ordered.extend(turn.into_iter().flatten());
    }
}

/// Tries one address after the other: the next one when one has failed, or none has answered for a moment (RFC 8305 §5). A host
/// of which one family is a black hole is reached by the other.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut left = addresses.into_iter();
    let mut tried = FuturesUnordered::new();
    let mut failed = None;
    loop {
        match left.next() {
            Some(address) => tried.push(connect(address)),
            None if tried.is_empty() => {
                let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                return Err(failed.unwrap_or_else(nowhere));
            }
            None => {}
        }
        let patience = (left.len() > 0).then(|| clock::now() + NEXT_ADDRESS_AFTER);
        tokio::select! {
            Some(made) = tried.next() => match made {
                Ok(made) => return Ok(made),
                Err(error) => failed = Some(error),
            },
            () = clock::sleep_until(patience) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_of_addresses_take_turns() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        let wanted = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(alternating(found.into_iter()), wanted);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_holds_up_nobody() {
        let all = addresses(&["[::1]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let began = clock::now();
        let reached = race(all.clone(), async |address: SocketAddr| {
            match address.to_string().as_str() {
                "[::1]:1" => std::future::pending().await,
                "1.1.1.1:1" => Err(io::Error::other("refused")),
                _ => Ok(address),
            }
        });
        assert_eq!(reached.await.unwrap(), all[2]);
        assert_eq!(clock::now() - began, NEXT_ADDRESS_AFTER);
        let refused = race(all, async |_| Err::<(), _>(io::Error::other("refused")));
        assert_eq!(refused.await.unwrap_err().to_string(), "refused");
        assert!(race(Vec::new(), async |_| Ok(())).await.is_err());
    }

    #[test]
    fn an_address_has_scheme_host_and_port() {
        let parsed = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(
            parsed("mqtt://example.org").unwrap(),
            "mqtt://example.org:1883"
        );
        assert_eq!(parsed("mqtt://[::1]:7").unwrap(), "mqtt://[::1]:7");
        assert_eq!(parsed("mqtt://[::1]").unwrap(), "mqtt://[::1]:1883");
        for bad in [
            "example.org:1883",
            "http://example.org",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://example.org:port",
            "mqtt://alice@example.org",
        ] {
            assert!(matches!(parsed(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    #[cfg(all(feature = "tls", feature = "websocket"))]
    fn a_websocket_has_a_path() {
        let parsed = |text: &str| text.parse::<Address>().unwrap().to_string();
        assert_eq!(parsed("wss://example.org"), "wss://example.org:443/mqtt");
        assert_eq!(
            parsed("ws://localhost:8080/chat"),
            "ws://localhost:8080/chat"
        );
        assert_eq!(parsed("mqtts://example.org"), "mqtts://example.org:8883");
    }
}
