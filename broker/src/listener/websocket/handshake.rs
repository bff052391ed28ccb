//! The opening handshake (RFC 6455 §4.2): one bounded HTTP request, one answer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use data_encoding::BASE64;
use httparse::{EMPTY_HEADER, Header, Request, Status};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::ListenerConfig;

/// Who may open a WebSocket.
#[derive(Debug)]
pub(crate) struct Terms {
    path: String,
    origins: Vec<String>,
}

impl Terms {
    /// The terms of the listener; `None` if it does not speak WebSocket.
    pub(crate) fn of(config: &ListenerConfig) -> Option<Self> {
        config.protocol.is_websocket().then(|| Self {
            path: config
                .websocket_path
                .clone()
                .unwrap_or_else(|| PATH_DEFAULT.to_owned()),
            origins: config.origins.clone(),
        })
    }

    fn allow(&self, origin: &[u8], host: &[u8]) -> bool {
        let mut origins = self.origins.iter();
        is_own(origin, host) || origins.any(|allowed| allowed == "*" || is(origin, allowed))
    }
}

/// Is this the origin of a page of this very server, which has none? Some clients that are no browsers send it (paho).
/// Only for addresses and `localhost`: whoever owns another name can let it point here, and load a page under it first.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_fixed = host.parse::<SocketAddr>().is_ok()
        || host.parse::<Ipv4Addr>().is_ok()
        || is_ipv6(host)
        || name.eq_ignore_ascii_case("localhost");
    let own = ["http://", "https://"].map(|scheme| format!("{scheme}{host}"));
    is_fixed && own.iter().any(|own| is(origin, own))
}

/// Is it an address of IPv6 without a port?
fn is_ipv6(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("closed within the request")]
    Closed,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed request")]
    Malformed,
    #[error("request larger than {HEAD_BYTES_MAX} bytes")]
    TooLarge,
    #[error("another path")]
    Path,
    #[error("not a WebSocket handshake")]
    NoUpgrade,
    #[error("another version of WebSocket")]
    Version,
    #[error("origin is not allowed")]
    Origin,
    /// [MQTT-6.0.0-3].
    #[error("sub-protocol mqtt is not offered")]
    Protocol,
}

impl Refusal {
    fn answer(self) -> String {
        let status = match self {
            Self::Malformed | Self::Protocol => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Path => "404 Not Found",
            Self::NoUpgrade | Self::Version => {
                "426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
            }
            Self::Origin => "403 Forbidden",
        };
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    }
}

/// Reads the request and answers it. What follows on the stream are frames.
///
/// # Errors
/// The request was refused (which has been answered), or did not come.
pub(crate) async fn accept<S>(stream: &mut S, terms: &Terms) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let judged = match read_head(stream).await? {
        Ok(head) => judge(&head, terms),
        Err(refusal) => Err(refusal),
    };
    let answer = match &judged {
        Ok(key) => format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
        ),
        Err(refusal) => refusal.answer(),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    judged?;
    Ok(())
}

/// Reads up to the empty line. Who sends more before the answer is no WebSocket client.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Result<Vec<u8>, Refusal>, HandshakeError> {
    let mut head = Vec::new();
    let mut searched = 0;
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(HandshakeError::Closed);
        }
        // Each byte is looked at once, however slowly they come.
        let unseen = head.get(searched..).unwrap_or_default();
        if let Some(found) = unseen.windows(END.len()).position(|four| four == END) {
            let is_all = searched + found + END.len() == head.len();
            return Ok(is_all.then_some(head).ok_or(Refusal::Malformed));
        }
        searched = head.len().saturating_sub(END.len() - 1);
        if head.len() > HEAD_BYTES_MAX {
            return Ok(Err(Refusal::TooLarge));
        }
    }
}

/// Judges a request; returns what proves that it was understood (§4.2.2).
fn judge(head: &[u8], terms: &Terms) -> Result<String, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        _ => return Err(Refusal::Malformed),
    }
    let headers = Headers(request.headers);
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path != terms.path {
        return Err(Refusal::Path);
    }
    let is_upgrade = request.method == Some("GET")
        && headers.list("upgrade").any(|it| is(it, "websocket"))
        && headers.list("connection").any(|it| is(it, "upgrade"));
    if !is_upgrade {
        return Err(Refusal::NoUpgrade);
    }
    let host = headers.one("host")?.filter(|_| request.version == Some(1));
    let host = host.ok_or(Refusal::Malformed)?;
    if headers.one("sec-websocket-version")? != Some(b"13") {
        return Err(Refusal::Version);
    }
    if headers
        .one("origin")?
        .is_some_and(|origin| !terms.allow(origin, host))
    {
        return Err(Refusal::Origin);
    }
    let key = headers.one("sec-websocket-key")?;
    let key = key.filter(|key| is_key(key)).ok_or(Refusal::Malformed)?;
    let mut protocols = headers.list("sec-websocket-protocol");
    if !protocols.any(|it| it == PROTOCOL.as_bytes()) {
        return Err(Refusal::Protocol);
    }
    let proof = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX);
    Ok(BASE64.encode(&proof.finalize()))
}

fn is(value: &[u8], expected: &str) -> bool {
    value.eq_ignore_ascii_case(expected.as_bytes())
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    BASE64.decode(key).is_ok_and(|key| key.len() == 16)
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a header that may be there once.
    fn one(&self, name: &str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (value, None) => Ok(value.map(<[u8]>::trim_ascii)),
            _ => Err(Refusal::Malformed),
        }
    }

    /// The parts of a header that is a list.
    fn list(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }
}

const PATH_DEFAULT: &str = "/mqtt";
const PROTOCOL: &str = "mqtt";
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const END: &[u8] = b"\r\n\r\n";
/// Cookies and tokens that pages send along fit.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn terms() -> Terms {
        Terms {
            path: "/mqtt".into(),
            origins: vec!["https://good.example".into()],
        }
    }

    fn judged(request: &str) -> Result<String, Refusal> {
        judge(request.as_bytes(), &terms())
    }

    #[test]
    fn the_key_of_the_specification_is_answered() {
        // RFC 6455 §1.3.
        assert_eq!(judged(GOOD).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn requests_are_refused_for_what_is_wrong_with_them() {
        for (from, to, refusal) in [
            ("/mqtt", "/", Refusal::Path),
            ("GET", "POST", Refusal::NoUpgrade),
            ("Upgrade: websocket\r\n", "", Refusal::NoUpgrade),
            ("keep-alive, Upgrade", "keep-alive", Refusal::NoUpgrade),
            ("HTTP/1.1", "HTTP/1.0", Refusal::Malformed),
            ("Host: server.example.com\r\n", "", Refusal::Malformed),
            ("n: 13", "n: 8", Refusal::Version),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", Refusal::Malformed),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", Refusal::Malformed),
            ("chat, mqtt", "chat, mqttv3.1", Refusal::Protocol),
            (
                "Sec-WebSocket-Protocol: chat, mqtt\r\n",
                "",
                Refusal::Protocol,
            ),
            (
                "Host:",
                "Origin: https://bad.example\r\nHost:",
                Refusal::Origin,
            ),
            ("Host:", "Origin: null\r\nHost:", Refusal::Origin),
            (
                "Host:",
                "Origin: https://good.example\r\nOrigin: https://bad.example\r\nHost:",
                Refusal::Malformed,
            ),
            ("Host:", "Ho st:", Refusal::Malformed),
        ] {
            assert_eq!(judged(&GOOD.replacen(from, to, 1)), Err(refusal), "{to}");
        }
    }

    #[test]
    fn an_allowed_origin_and_a_query_pass() {
        let request = GOOD.replace("Host:", "Origin: HTTPS://good.example\r\nHost:");
        assert!(judged(&request).is_ok());
        assert!(judged(&GOOD.replace("/mqtt", "/mqtt?token=x")).is_ok());
        let any = Terms {
            origins: vec!["*".into()],
            ..terms()
        };
        let request = GOOD.replace("Host:", "Origin: https://bad.example\r\nHost:");
        assert!(judge(request.as_bytes(), &any).is_ok());
    }

    #[test]
    fn the_own_origin_passes_where_nobody_can_fake_it() {
        for (origin, host, expected) in [
            ("http://127.0.0.1:8083", "127.0.0.1:8083", true),
            ("http://192.0.2.1", "192.0.2.1", true),
            ("https://[::1]:8083", "[::1]:8083", true),
            ("http://[::1]", "[::1]", true),
            ("http://[x]", "[x]", false),
            ("http://localhost:8083", "localhost:8083", true),
            ("http://localhost:8000", "localhost:8083", false),
            ("http://127.0.0.1:8083", "localhost:8083", false),
            ("http://evil.example:8083", "evil.example:8083", false),
            (
                "http://localhost.evil.example",
                "localhost.evil.example",
                false,
            ),
            ("null", "localhost", false),
        ] {
            let request = GOOD.replace("server.example.com", host);
            let request = request.replace("Host:", &format!("Origin: {origin}\r\nHost:"));
            assert_eq!(judged(&request).is_ok(), expected, "{origin} at {host}");
        }
    }

    #[tokio::test]
    async fn a_request_without_end_and_one_with_more_behind_it_are_refused() {
        let endless = format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(9_000));
        let more = format!("{GOOD}\u{2}");
        for (request, expected) in [(endless, "HTTP/1.1 431"), (more, "HTTP/1.1 400")] {
            let (mut server, mut client) = tokio::io::duplex(20_000);
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(accept(&mut server, &terms()).await.is_err());
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_request_is_judged(request in "[ -~\r\n]{0,200}", at in 0..GOOD.len()) {
            let _ = judged(&request);
            let mut mutated = GOOD.as_bytes().to_vec();
            mutated.splice(at..at, request.bytes());
            let _ = judge(&mutated, &terms());
        }
    }
}
