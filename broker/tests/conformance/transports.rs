//! What carries MQTT: TLS, WebSocket, the PROXY protocol, Unix sockets.

mod authority;
mod proxy;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;

use broker::AddressPlace;
use broker::codec::packet::{Packet, Qos, Version};
use broker::codec::reason::ReasonCode;
use broker::config::{ListenerConfig, Protocol};
use broker::hooks::Peer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::client::{Client, PATIENCE, V5, V311, connect, qos0};
use super::world::World;

/// The defaults of a protocol, on a free port of loopback.
fn listener(protocol: Protocol) -> ListenerConfig {
    ListenerConfig {
        address: Some(([127, 0, 0, 1], 0).into()),
        ..ListenerConfig::new(protocol)
    }
}

/// A broker with one more listener.
fn world_with(listener: ListenerConfig) -> World {
    World::with(|config| config.listeners.push(listener))
}

/// Where that one listens.
fn address(world: &World) -> SocketAddr {
    match world.addresses.last().unwrap().place {
        AddressPlace::Network(address) => address,
        AddressPlace::Local(_) => panic!("not in the network"),
    }
}

async fn connected(mut client: Client, version: Version, client_id: &'static str) -> Client {
    let ack = client.connect(connect(version, client_id)).await;
    assert_eq!(ack.reason, ReasonCode::Success);
    client
}

/// Sends what is no handshake, or half of one, then nothing: the broker hangs up by itself.
async fn expect_cut(world: &World, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address(world)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    // An alert may come, or a reset.
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _how = end.expect("the connection stays open");
}

fn unix_world() -> (World, PathBuf, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let world = world_with(ListenerConfig {
        socket: Some(path.clone()),
        ..ListenerConfig::new(Protocol::Unix)
    });
    (world, path, folder)
}

#[tokio::test]
async fn clients_of_all_listeners_meet() {
    let (world, path, _folder) = unix_world();
    for version in [V311, V5] {
        let stream = UnixStream::connect(&path).await.unwrap();
        let mut local = connected(Client::over(stream, version), version, "local").await;
        let mut plain = world.connect(version, "plain").await;
        local.subscribe(&[("t", Qos::AtMostOnce)]).await;
        plain.send(&qos0("t", "x")).await;
        assert_eq!(&local.receive_publish().await.payload[..], b"x");
    }
}

#[tokio::test]
async fn a_local_client_is_known_by_its_process() {
    let (mut world, path, _folder) = unix_world();
    let stream = UnixStream::connect(&path).await.unwrap();
    let client = connected(Client::over(stream, V5), V5, "local").await;
    let Peer::Local { process, .. } = world.plugin.client("local").peer else {
        panic!("not local");
    };
    assert_eq!(process, i32::try_from(std::process::id()).ok());
    drop(client);
    world.shutdown.cancel();
    world.stopped().await;
    assert!(!path.exists(), "the socket is removed");
}

#[tokio::test]
async fn all_listeners_count_together() {
    let world = World::with(|config| {
        config.connections_max = 1;
        config.listeners.push(listener(Protocol::Tcp));
    });
    let client = world.connect(V5, "a").await;
    let stream = TcpStream::connect(address(&world)).await.unwrap();
    Client::over(stream, V5).expect_closed().await;
    assert_eq!(world.metrics.connections_over_limit.value(), 1);
    drop(client);
}

#[tokio::test]
async fn handshakes_that_do_not_end_are_cut() {
    let authority = authority::Authority::new();
    let certificate = authority.issue("localhost");
    let proxied = ListenerConfig {
        proxy_protocol: true,
        proxy_sources: vec!["127.0.0.1".parse().unwrap()],
        ..listener(Protocol::Tcp)
    };
    let listeners = [
        (
            certificate.tls_listener(Protocol::Tls),
            &b"\x16\x03\x01"[..],
        ),
        (listener(Protocol::Ws), b"GET /mqtt HTTP/1.1\r\nHost:"),
        (proxied, b"PROXY TCP4 1.2.3.4"),
        (listener(Protocol::Tcp), b"\x10"),
    ];
    for (listener, start) in listeners {
        let world = World::with(|config| {
            config.connect_timeout_ms = 100;
            config.listeners.push(listener);
        });
        expect_cut(&world, start).await;
        let metrics = &world.metrics;
        let failed = metrics.handshakes_failed.value() + metrics.connects_refused.value();
        assert_eq!(failed, 1);
    }
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody() {
    let world = world_with(listener(Protocol::Ws));
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address(&world)).await.unwrap());
    }
    let stream = websocket::open(&world).await;
    let mut client = stream.mqtt(V5, "quick").await;
    client.send(&Packet::PingReq).await;
    assert_eq!(client.receive().await, Packet::PingResp);
}
