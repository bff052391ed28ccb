//! Behind a balancer.

use broker::config::{ListenerConfig, Protocol};
use broker::hooks::Peer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::client::{Client, V5};
use super::super::world::World;
use super::authority::{Authority, tls};
use super::{address, connected, expect_cut, listener, world_with};

fn proxied(listener: ListenerConfig) -> ListenerConfig {
    ListenerConfig {
        proxy_protocol: true,
        proxy_sources: vec!["127.0.0.0/8".parse().unwrap()],
        ..listener
    }
}

async fn open(world: &World, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address(world)).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

fn version_2(command: u8) -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5B];
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    [&start[..], &[command, 0x11, 0, 12], &addresses].concat()
}

#[tokio::test]
async fn the_address_in_the_header_counts() {
    let world = world_with(proxied(listener(Protocol::Tcp)));
    for (header, expected) in [
        (
            b"PROXY TCP4 198.51.100.7 10.0.0.1 4000 1883\r\n".to_vec(),
            Some("198.51.100.7:4000"),
        ),
        (version_2(0x21), Some("203.0.113.9:12345")),
        (version_2(0x20), None),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
    ] {
        let stream = open(&world, &header).await;
        let own = stream.local_addr().unwrap();
        let _client = connected(Client::over(stream, V5), V5, "a").await;
        let expected = expected.map_or(own, |address| address.parse().unwrap());
        assert_eq!(world.plugin.client("a").peer, Peer::Network(expected));
    }
}

#[tokio::test]
async fn a_connection_without_header_is_cut() {
    let world = world_with(proxied(listener(Protocol::Tcp)));
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a\xC0\x00";
    expect_cut(&world, connect).await;
    expect_cut(&world, b"PROXY TCP4 198.51.100.7 10.0.0.1 4000\r\n").await;
    assert_eq!(world.metrics.handshakes_failed.value(), 2);
}

#[tokio::test]
async fn nobody_but_a_balancer_may_connect() {
    let world = world_with(ListenerConfig {
        proxy_sources: vec!["10.0.0.0/8".parse().unwrap()],
        ..proxied(listener(Protocol::Tcp))
    });
    let stream = TcpStream::connect(address(&world)).await.unwrap();
    Client::over(stream, V5).expect_closed().await;
    assert_eq!(world.metrics.handshakes_failed.value(), 1);
}

#[tokio::test]
async fn clients_behind_a_balancer_are_limited_one_by_one() {
    let world = World::with(|config| {
        config.connections_per_address_max = 1;
        config.listeners.push(proxied(listener(Protocol::Tcp)));
    });
    let header = |last: u8| format!("PROXY TCP4 198.51.100.{last} 10.0.0.1 4000 1883\r\n");
    let mut kept = Vec::new();
    for (last, client_id) in [(1, "a"), (2, "b")] {
        let stream = open(&world, header(last).as_bytes()).await;
        kept.push(connected(Client::over(stream, V5), V5, client_id).await);
    }
    let stream = open(&world, header(1).as_bytes()).await;
    Client::over(stream, V5).expect_closed().await;
    assert_eq!(world.metrics.connections_over_limit.value(), 1);
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let authority = Authority::new();
    let certificate = authority.issue("localhost");
    let world = world_with(proxied(certificate.tls_listener(Protocol::Tls)));
    let stream = open(&world, &version_2(0x21)).await;
    let stream = super::authority::tls_over(stream, authority.client(None)).await;
    let _client = connected(Client::over(stream.unwrap(), V5), V5, "a").await;
    let expected = Peer::Network("203.0.113.9:12345".parse().unwrap());
    assert_eq!(world.plugin.client("a").peer, expected);
    // TLS at once is no header.
    assert!(tls(address(&world), authority.client(None)).await.is_err());
}
