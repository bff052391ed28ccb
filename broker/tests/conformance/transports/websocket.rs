//! MQTT over WebSocket: with a client of somebody else's making, and by hand where that one is too polite.

use std::io::{Read, Write};

use broker::codec::encode::encode;
use broker::codec::packet::{Packet, Version};
use broker::codec::reason::ReasonCode;
use broker::config::{ListenerConfig, Protocol};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use super::super::client::{Client, Stream, V5, V311, connect};
use super::super::world::World;
use super::{address, connected, listener, world_with};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A WebSocket by hand, after its handshake.
pub(super) struct ByHand<S>(S);

/// Opens one with the last listener.
pub(super) async fn open(world: &World) -> ByHand<TcpStream> {
    over(TcpStream::connect(address(world)).await.unwrap()).await
}

/// Shakes hands over an open stream.
pub(super) async fn over<S: Stream>(mut stream: S) -> ByHand<S> {
    let head = request(&mut stream, REQUEST).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    ByHand(stream)
}

/// The head of the answer to a request.
async fn request<S: Stream>(stream: &mut S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.unwrap()));
    }
    head
}

impl<S: Stream + 'static> ByHand<S> {
    async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match u8::try_from(payload.len()) {
            Ok(len) if len < 126 => frame.push(0x80 | len),
            _ => {
                frame.push(0xFE);
                frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        // A mask of zeros is one.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// First byte and payload of the next frame.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.unwrap();
        let len = match self.0.read_u8().await.unwrap() {
            127 => self.0.read_u64().await.unwrap(),
            126 => self.0.read_u16().await.unwrap().into(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.0.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    async fn connect(&mut self) {
        self.send(BINARY, &connect_bytes(V5)).await;
        let (first, payload) = self.receive().await;
        assert_eq!((first, payload[0]), (BINARY, 0x20), "CONNACK");
    }

    /// The next frame closes, with this code, and nothing follows.
    async fn expect_close(&mut self, code: u16) {
        assert_eq!(self.receive().await, (CLOSE, code.to_be_bytes().to_vec()));
        assert!(self.0.read_u8().await.is_err(), "more after close");
    }

    /// An MQTT client over it, frames being somebody else's business.
    pub(super) async fn mqtt(mut self, version: Version, client_id: &'static str) -> Client {
        let (stream, mut data) = tokio::io::duplex(1 << 16);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { self.pump(&mut data).await });
        // Ends with the client, whose stream closes then.
        tasks.detach_all();
        connected(Client::over(stream, version), version, client_id).await
    }

    async fn pump(&mut self, data: &mut DuplexStream) {
        let (mut reader, mut writer) = tokio::io::split(&mut self.0);
        let (mut input, mut output) = tokio::io::split(data);
        let send = async {
            let mut bytes = [0; 1_000];
            while let Ok(len @ 1..) = input.read(&mut bytes).await {
                let mut frame = vec![BINARY, 0xFE];
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
                if len < 126 {
                    frame.truncate(1);
                    frame.push(0x80 | u8::try_from(len).unwrap());
                }
                frame.extend([0; 4]);
                frame.extend(&bytes[..len]);
                if writer.write_all(&frame).await.is_err() {
                    return;
                }
            }
        };
        let receive = async {
            loop {
                let Ok(BINARY) = reader.read_u8().await else {
                    return;
                };
                let len = match reader.read_u8().await.unwrap() {
                    126 => reader.read_u16().await.unwrap().into(),
                    short => u64::from(short),
                };
                let mut payload = (&mut reader).take(len);
                tokio::io::copy(&mut payload, &mut output).await.unwrap();
            }
        };
        tokio::select! {
            () = send => {}
            () = receive => {}
        }
    }
}

fn connect_bytes(version: Version) -> Vec<u8> {
    bytes_of(&Packet::Connect(Box::new(connect(version, "a"))), version)
}

fn bytes_of(packet: &Packet, version: Version) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(packet, version, &mut bytes);
    bytes.to_vec()
}

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

/// [MQTT-6.0.0-2]: packets may span frames, and frames may hold several packets. 3.1.1 [MQTT-6.0.0-2].
#[tokio::test]
async fn packets_need_not_fit_frames() {
    let world = world_with(listener(Protocol::Ws));
    for version in [V311, V5] {
        let mut client = open(&world).await;
        let connect = connect_bytes(version);
        // A message of three fragments, cut anywhere; then one that ends within a packet.
        client.send(0x02, &connect[..1]).await;
        client.send(PING, b"in between").await;
        client.send(0x00, &connect[1..7]).await;
        client.send(0x80, &connect[7..]).await;
        let pings = [PINGREQ, PINGREQ].concat();
        client.send(BINARY, &pings[..3]).await;
        client.send(BINARY, &pings[3..]).await;
        let mut data = Vec::new();
        let mut pongs = Vec::new();
        while !data.ends_with(&[PINGRESP, PINGRESP].concat()) {
            match client.receive().await {
                (BINARY, payload) => data.extend(payload),
                (PONG, payload) => pongs.push(payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(data[0], 0x20, "CONNACK");
        assert_eq!(pongs, [b"in between"]);
    }
}

/// [MQTT-6.0.0-1]: anything but binary frames closes the connection. 3.1.1 [MQTT-6.0.0-1].
#[tokio::test]
async fn a_text_frame_closes_before_and_after_connect() {
    let world = world_with(listener(Protocol::Ws));
    let mut early = open(&world).await;
    early.send(0x81, &connect_bytes(V5)).await;
    early.expect_close(1003).await;
    let mut late = open(&world).await;
    late.connect().await;
    late.send(0x81, &PINGREQ).await;
    late.expect_close(1003).await;
    assert_eq!(world.metrics.protocol_errors.value(), 1);
}

#[tokio::test]
async fn a_frame_without_mask_closes() {
    let world = world_with(listener(Protocol::Ws));
    let mut client = open(&world).await;
    client.connect().await;
    client.0.write_all(&[BINARY, 2, 0xC0, 0]).await.unwrap();
    client.expect_close(1002).await;
}

#[tokio::test]
async fn a_malformed_packet_closes_as_everywhere() {
    let world = world_with(listener(Protocol::Ws));
    let mut client = open(&world).await;
    client.connect().await;
    client.send(BINARY, &[0xF3, 0]).await;
    let (first, payload) = client.receive().await;
    assert_eq!((first, payload[0]), (BINARY, 0xE0), "DISCONNECT");
    client.expect_close(1000).await;
}

#[tokio::test]
async fn mqtt_ends_and_the_websocket_after_it() {
    let world = world_with(listener(Protocol::Ws));
    let mut client = open(&world).await;
    client.connect().await;
    client.send(BINARY, &[0xE0, 0]).await;
    client.expect_close(1000).await;
    let mut client = open(&world).await;
    client.connect().await;
    client.send(CLOSE, &1001_u16.to_be_bytes()).await;
    client.expect_close(1001).await;
}

#[tokio::test]
async fn a_stop_is_going_away() {
    let mut world = world_with(listener(Protocol::Ws));
    let mut client = open(&world).await;
    client.connect().await;
    world.shutdown.cancel();
    let goodbye = vec![0xE0, 2, ReasonCode::ServerShuttingDown as u8, 0];
    assert_eq!(client.receive().await, (BINARY, goodbye));
    client.expect_close(1001).await;
    drop(client);
    world.stopped().await;
}

/// [MQTT-6.0.0-3]: also one that does not offer `mqtt`. 3.1.1 [MQTT-6.0.0-3].
#[tokio::test]
async fn requests_are_refused_with_the_status_that_fits() {
    let world = world_with(ListenerConfig {
        origins: vec!["https://good.example".into()],
        websocket_path: Some("/mqtt".into()),
        ..listener(Protocol::Ws)
    });
    let with_origin = |origin: &str| REQUEST.replace("Host", &format!("Origin: {origin}\r\nHost"));
    for (text, status) in [
        (with_origin("https://bad.example"), "403"),
        (with_origin("https://good.example.bad.example"), "403"),
        (with_origin("null"), "403"),
        (with_origin("https://good.example"), "101"),
        (REQUEST.replace("/mqtt", "/other"), "404"),
        (REQUEST.replace("Protocol: mqtt", "Protocol: other"), "400"),
        (REQUEST.replace("Version: 13", "Version: 7"), "426"),
        (
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            "426",
        ),
        ("\x10\x0c\0\x04MQTT\r\n\r\n".into(), "400"),
        (REQUEST.to_owned(), "101"),
    ] {
        let mut stream = TcpStream::connect(address(&world)).await.unwrap();
        let head = request(&mut stream, &text).await;
        assert_eq!(&head[9..12], status, "{text}");
    }
}

#[tokio::test]
async fn no_page_may_connect_by_default() {
    let world = world_with(listener(Protocol::Ws));
    let mut stream = TcpStream::connect(address(&world)).await.unwrap();
    let text = REQUEST.replace("Host", "Origin: http://page.example\r\nHost");
    let head = request(&mut stream, &text).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_without_end_is_cut() {
    let world = world_with(listener(Protocol::Ws));
    let mut stream = TcpStream::connect(address(&world)).await.unwrap();
    let start = format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(9_000));
    let head = request(&mut stream, &start).await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

/// tungstenite, which knows nothing of this broker. [MQTT-6.0.0-4]: the sub-protocol is `mqtt`. 3.1.1 [MQTT-6.0.0-4].
#[tokio::test]
async fn another_implementation_agrees() {
    let world = world_with(listener(Protocol::Ws));
    let address = address(&world);
    let talk = tokio::task::spawn_blocking(move || {
        let mut request = format!("ws://{address}/mqtt")
            .into_client_request()
            .unwrap();
        let protocol = HeaderValue::from_static("mqtt");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let stream = std::net::TcpStream::connect(address).unwrap();
        let (mut socket, response) = tungstenite::client::client(request, stream).unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        talk(&mut socket);
    });
    talk.await.unwrap();
}

fn talk<S: Read + Write>(socket: &mut WebSocket<S>) {
    let send = |socket: &mut WebSocket<S>, bytes: Vec<u8>| {
        socket.send(Message::Binary(bytes.into())).unwrap();
    };
    send(socket, connect_bytes(V5));
    assert_eq!(socket.read().unwrap().into_data()[0], 0x20);
    for len in [1, 100, 60_000, 200_000] {
        let publish = super::super::client::qos0_of("echo", vec![5; len]);
        socket.send(Message::Ping(vec![1; 125].into())).unwrap();
        send(socket, bytes_of(&publish, V5));
        assert!(matches!(socket.read().unwrap(), Message::Pong(it) if it == vec![1; 125]));
    }
    send(socket, PINGREQ.to_vec());
    assert_eq!(socket.read().unwrap().into_data(), PINGRESP.to_vec());
    socket.close(None).unwrap();
    loop {
        match socket.read() {
            Ok(Message::Close(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(tungstenite::Error::ConnectionClosed) => break,
            Err(error) => panic!("{error}"),
        }
    }
}
