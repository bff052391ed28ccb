//! The PROXY protocol, versions 1 and 2: a balancer says whom it passes on, before anything else.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. The header is read to its last byte and not beyond, so
//! that what follows stays in the socket. Additions (TLVs) of version 2 are passed over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Whom a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The client, as the balancer sees it.
    Client(SocketAddr),
    /// The balancer itself (its health check), or a client whose address it does not know or tell.
    Balancer,
}

/// A header that is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("no header: {0}")]
    Io(#[from] io::Error),
    #[error("not a header")]
    Signature,
    #[error("malformed header of version 1")]
    Text,
    #[error("version and command 0x{0:02x} are unknown")]
    Command(u8),
    #[error("address family and transport 0x{0:02x} are not those of a stream")]
    Family(u8),
    #[error("{0} bytes are not the length of its addresses")]
    Length(u16),
}

/// Reads the header.
///
/// # Errors
/// What comes is no header, or too little comes.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Source, ProxyError> {
    // No header of either version is shorter.
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    if head.starts_with(TEXT_START) {
        return read_text(stream, &head).await;
    }
    let [signature @ .., command, family, length] = head;
    if signature != SIGNATURE {
        return Err(ProxyError::Signature);
    }
    let length = u16::from_be_bytes([length, stream.read_u8().await?]);
    if length > ADDITIONS_BYTES_MAX {
        return Err(ProxyError::Length(length));
    }
    let mut body = vec![0; length.into()];
    stream.read_exact(&mut body).await?;
    parse_binary(command, family, &body)
}

/// Version 1: one line.
async fn read_text<S: AsyncRead + Unpin>(
    stream: &mut S,
    head: &[u8],
) -> Result<Source, ProxyError> {
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == TEXT_BYTES_MAX {
            return Err(ProxyError::Text);
        }
        line.push(stream.read_u8().await?);
    }
    parse_text(&line)
}

/// Parses a line of version 1, its end included.
fn parse_text(line: &[u8]) -> Result<Source, ProxyError> {
    let text = line
        .strip_prefix(TEXT_START)
        .and_then(|rest| rest.strip_suffix(b"\r\n"))
        .and_then(|rest| std::str::from_utf8(rest).ok())
        .ok_or(ProxyError::Text)?;
    let mut words = text.split(' ');
    let source = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => return Ok(Source::Balancer),
        Some("TCP4") => parse_words::<Ipv4Addr>(words),
        Some("TCP6") => parse_words::<Ipv6Addr>(words),
        _ => None,
    };
    source.map(Source::Client).ok_or(ProxyError::Text)
}

/// Source address, destination address, source port, destination port, and nothing else.
fn parse_words<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let port = parse_port(words.next()?)?;
    parse_port(words.next()?)?;
    match words.next() {
        None => Some(SocketAddr::new(source.into(), port)),
        Some(_) => None,
    }
}

/// 0 to 65535, without sign or leading zeros.
fn parse_port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = word.len() > 1 && word.starts_with('0');
    (digits && !leading_zero).then(|| word.parse().ok())?
}

/// Parses a header of version 2 behind its signature; `body` has the announced length.
fn parse_binary(command: u8, family: u8, body: &[u8]) -> Result<Source, ProxyError> {
    let length = || ProxyError::Length(u16::try_from(body.len()).unwrap_or(u16::MAX));
    match command {
        LOCAL => return Ok(Source::Balancer),
        PROXY => {}
        other => return Err(ProxyError::Command(other)),
    }
    match family {
        UNSPECIFIED => Ok(Source::Balancer),
        TCP4 => {
            let addresses: &[u8; 12] = body.first_chunk().ok_or_else(length)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            let address = Ipv4Addr::new(a, b, c, d);
            let port = u16::from_be_bytes([high, low]);
            Ok(Source::Client((address, port).into()))
        }
        TCP6 => {
            let addresses: &[u8; 36] = body.first_chunk().ok_or_else(length)?;
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or_else(length)?;
            let [high, low, ..] = *rest.last_chunk::<4>().ok_or_else(length)?;
            let address = Ipv6Addr::from_octets(*source);
            let port = u16::from_be_bytes([high, low]);
            Ok(Source::Client((address, port).into()))
        }
        UNIX_STREAM if body.len() >= UNIX_BYTES => Ok(Source::Balancer),
        UNIX_STREAM => Err(length()),
        other => Err(ProxyError::Family(other)),
    }
}

const TEXT_START: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN\r\n`; version 2 has one byte more.
const HEAD_BYTES: usize = 15;
const TEXT_BYTES_MAX: usize = 107;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
const UNIX_BYTES: usize = 216;
/// Addresses and additions of version 2: some hundred bytes in practice.
const ADDITIONS_BYTES_MAX: u16 = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a header says, and how many bytes behind it are left.
    fn read_all(bytes: &[u8]) -> Result<(Source, usize), ProxyError> {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let source = runtime.block_on(read(&mut rest))?;
        Ok((source, rest.len()))
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    #[test]
    fn lines_of_version_1() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                client("192.168.0.1:56324"),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                client("255.255.255.255:65535"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 1 0\r\n",
                client("[2001:db8::1]:1"),
            ),
            (
                "PROXY TCP6 ffff:f:f:f:f:f:f:f ffff:f:f:f:f:f:f:f 65535 65535\r\n",
                client("[ffff:f:f:f:f:f:f:f]:65535"),
            ),
            ("PROXY UNKNOWN\r\n", Source::Balancer),
            (
                "PROXY UNKNOWN ffff:f:f:f:f:f:f:f anything 65535 65535\r\n",
                Source::Balancer,
            ),
        ] {
            let bytes = [line.as_bytes(), b"\x10\x0c"].concat();
            assert_eq!(read_all(&bytes).unwrap(), (expected, 2), "{line}");
        }
    }

    #[test]
    fn malformed_lines_of_version_1() {
        for line in [
            "GET /mqtt HTTP/1.1\r\n\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 65536\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 +5632 443\r\n",
            "PROXY TCP4 192.168.0.256 192.168.0.11 1 443\r\n",
            "PROXY TCP4 ::1 192.168.0.11 1 443\r\n",
            "PROXY TCP6 192.168.0.1 ::1 1 443\r\n",
            "PROXY  TCP4 192.168.0.1 192.168.0.11 1 443\r\n",
            "PROXY UDP4 192.168.0.1 192.168.0.11 1 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 1 443\n\r\n",
            "proxy TCP4 192.168.0.1 192.168.0.11 1 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 1 443",
        ] {
            assert!(read_all(line.as_bytes()).is_err(), "{line}");
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        assert!(matches!(read_all(&endless), Err(ProxyError::Text)));
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 168, 0, 1, 10, 0, 0, 1, 0xDC, 0x04, 1, 0xBB];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 1;
        v6[32..].copy_from_slice(&[0xDC, 0x04, 1, 0xBB]);
        let with_additions = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (command, family, body, expected) in [
            (PROXY, TCP4, &v4[..], client("192.168.0.1:56324")),
            (PROXY, TCP4, &with_additions, client("192.168.0.1:56324")),
            (PROXY, TCP6, &v6, client("[2001:db8::1]:56324")),
            (PROXY, UNSPECIFIED, &[], Source::Balancer),
            (PROXY, UNIX_STREAM, &[b'/'; 216], Source::Balancer),
            (LOCAL, UNSPECIFIED, &[], Source::Balancer),
            (LOCAL, TCP4, &v4, Source::Balancer),
            (LOCAL, 0xFF, &[1, 2, 3], Source::Balancer),
        ] {
            let bytes = [&binary(command, family, body)[..], b"\x10\x0c"].concat();
            assert_eq!(read_all(&bytes).unwrap(), (expected, 2));
        }
    }

    #[test]
    fn malformed_headers_of_version_2() {
        let v4 = [1; 12];
        for (command, family, body) in [
            (0x11, TCP4, &v4[..]),
            (0x22, TCP4, &v4),
            (0x31, TCP4, &v4),
            (PROXY, 0x12, &v4),
            (PROXY, 0x41, &v4),
            (PROXY, TCP4, &v4[1..]),
            (PROXY, TCP6, &v4),
            (PROXY, UNIX_STREAM, &v4),
            (PROXY, TCP4, &[0; 5_000]),
        ] {
            let bytes = binary(command, family, body);
            assert!(read_all(&bytes).is_err(), "{command:x} {family:x}");
        }
        let mut signature = binary(PROXY, TCP4, &v4);
        signature[4] = b'0';
        assert!(matches!(read_all(&signature), Err(ProxyError::Signature)));
        let cut = &binary(PROXY, TCP4, &v4)[..20];
        assert!(matches!(read_all(cut), Err(ProxyError::Io(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(
            start in prop_oneof![Just(&b""[..]), Just(TEXT_START), Just(&SIGNATURE[..])],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = read_all(&[start, &rest].concat());
        }
    }
}
