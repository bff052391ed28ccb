//! An address becomes a stream of bytes: TCP, TLS over it, WebSocket over either. MQTT begins above.

#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

use std::fmt;
use std::io;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::error::Error;

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
    let stream = TcpStream::connect((address.host(), address.port())).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
