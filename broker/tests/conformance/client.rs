//! A client that sends what it is told to and says what comes.

use std::net::SocketAddr;
use std::time::Duration;

use broker::codec::decode::Decoder;
use broker::codec::encode::encode;
use broker::codec::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketId, Publish, Qos, RetainHandling, SubAck,
    Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Version,
};
use broker::codec::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties,
};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const V5: Version = Version::V5;
pub(crate) const V311: Version = Version::V311;

/// Longer than anything that a test waits for; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What carries the packets.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) struct Client {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    input: BytesMut,
    version: Version,
}

impl Client {
    pub(crate) async fn open(address: SocketAddr, version: Version) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), version)
    }

    /// A client over a stream that is open already.
    pub(crate) fn over(stream: impl Stream + 'static, version: Version) -> Self {
        Self {
            stream: Box::new(stream),
            decoder: Decoder::for_client(version, u32::MAX),
            input: BytesMut::new(),
            version,
        }
    }

    /// Sends CONNECT and returns what comes back.
    pub(crate) async fn connect(&mut self, connect: Connect) -> ConnAck {
        self.send(&Packet::Connect(Box::new(connect))).await;
        match self.receive().await {
            Packet::ConnAck(ack) => *ack,
            other => panic!("CONNACK expected, not {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode(packet, self.version, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    /// Sends packets with one write.
    pub(crate) async fn send_all(&mut self, packets: &[Packet]) {
        let mut bytes = BytesMut::new();
        for packet in packets {
            encode(packet, self.version, &mut bytes);
        }
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet.
    pub(crate) async fn receive(&mut self) -> Packet {
        timeout(PATIENCE, self.next())
            .await
            .expect("nothing came")
            .expect("the connection was closed")
    }

    async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(packet);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next packet, byte for byte.
    pub(crate) async fn receive_raw(&mut self) -> Vec<u8> {
        let packet = async {
            loop {
                if let Some(bytes) = framed_bytes(&self.input)
                    && bytes <= self.input.len()
                {
                    return self.input.split_to(bytes).to_vec();
                }
                let read = self.stream.read_buf(&mut self.input).await.unwrap();
                assert_ne!(read, 0, "the connection was closed");
            }
        };
        timeout(PATIENCE, packet).await.expect("nothing came")
    }

    pub(crate) async fn receive_publish(&mut self) -> Publish {
        match self.receive().await {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH expected, not {other:?}"),
        }
    }

    /// The next packet is DISCONNECT with this reason, and then the connection is closed.
    pub(crate) async fn expect_disconnect(&mut self, reason: ReasonCode) {
        match self.receive().await {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
            other => panic!("DISCONNECT expected, not {other:?}"),
        }
        self.expect_closed().await;
    }

    pub(crate) async fn expect_closed(&mut self) {
        let next = timeout(PATIENCE, self.next())
            .await
            .expect("the connection stays open");
        assert_eq!(next, None, "close expected");
    }

    /// PINGREQ is answered next: nothing else was on the way.
    pub(crate) async fn expect_quiet(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.receive().await, Packet::PingResp);
    }

    pub(crate) async fn subscribe(&mut self, filters: &[(&'static str, Qos)]) -> SubAck {
        let filters = filters
            .iter()
            .map(|(text, qos)| filter(text, *qos))
            .collect();
        self.subscribe_with(filters, None).await
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        filters: Vec<SubscribeFilter>,
        subscription_identifier: Option<u32>,
    ) -> SubAck {
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: id(1),
            properties: SubscribeProperties {
                subscription_identifier,
                ..SubscribeProperties::default()
            },
            filters,
        }))
        .await;
        match self.receive().await {
            Packet::SubAck(ack) => ack,
            other => panic!("SUBACK expected, not {other:?}"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filters: &[&'static str]) -> UnsubAck {
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: id(2),
            properties: SubscribeProperties::default(),
            filters: filters
                .iter()
                .map(|text| TopicFilter::parse(ByteString::from_static(text)).unwrap())
                .collect(),
        }))
        .await;
        match self.receive().await {
            Packet::UnsubAck(ack) => ack,
            other => panic!("UNSUBACK expected, not {other:?}"),
        }
    }

    /// The next packet is PUBACK or PUBREC: its Packet Identifier and Reason Code.
    pub(crate) async fn receive_result(&mut self) -> (u16, ReasonCode) {
        match self.receive().await {
            Packet::PubAck(ack) | Packet::PubRec(ack) => (ack.packet_id.get(), ack.reason),
            other => panic!("PUBACK or PUBREC expected, not {other:?}"),
        }
    }

    /// Publishes at QoS 1 and returns the answer.
    pub(crate) async fn publish_qos1(&mut self, topic: &'static str, number: u16) -> Ack {
        self.send(&qos1(topic, number, "hi")).await;
        match self.receive().await {
            Packet::PubAck(ack) => ack,
            other => panic!("PUBACK expected, not {other:?}"),
        }
    }

    pub(crate) async fn disconnect(mut self) {
        self.send(&disconnect(ReasonCode::Success, None)).await;
        self.expect_closed().await;
    }

    /// Closes without a goodbye.
    pub(crate) fn vanish(self) {
        drop(self.stream);
    }
}

/// How long the packet is that begins here, once its length is there.
fn framed_bytes(input: &[u8]) -> Option<usize> {
    let length = input.get(1..)?;
    let last = length.iter().position(|byte| byte & 0x80 == 0)?;
    let remaining = length[..=last]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7F));
    Some(2 + last + remaining)
}

/// A packet of less than 128 bytes behind its length, from its fields.
pub(crate) fn frame(first: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    assert!(body.len() < 128);
    let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
    bytes.extend(body);
    bytes
}

/// A text, or binary data, behind its length.
pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut field = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend_from_slice(bytes);
    field
}

/// An empty property section, where there is one.
pub(crate) fn no_properties(version: Version) -> &'static [u8] {
    match version {
        V5 => &[0],
        V311 => &[],
    }
}

/// The first part of CONNECT: up to its properties.
pub(crate) fn connect_head(version: Version, flags: u8) -> Vec<u8> {
    let mut head = b"\0\x04MQTT".to_vec();
    head.extend([if version == V5 { 5 } else { 4 }, flags, 0, 0]);
    head.extend(no_properties(version));
    head
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub(crate) fn connect(version: Version, client_id: &'static str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive: 0,
        client_id: client_id.into(),
        will: None,
        user_name: Some("alice".into()),
        password: (version == V5).then(Bytes::new),
        properties: ConnectProperties::default(),
    }
}

/// A CONNECT of a session that lives on for a minute (5.0) or as long as the server lets it (3.1.1).
pub(crate) fn connect_persistent(version: Version, client_id: &'static str) -> Connect {
    let mut connect = connect(version, client_id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = (version == V5).then_some(60);
    connect
}

pub(crate) fn filter(text: &'static str, qos: Qos) -> SubscribeFilter {
    SubscribeFilter {
        filter: TopicFilter::parse(ByteString::from_static(text)).unwrap(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    }
}

pub(crate) fn message(topic: &'static str, qos: Qos, number: u16, payload: &str) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: PacketId::new(number),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: PublishProperties::default().into(),
    }
}

pub(crate) fn qos0(topic: &'static str, payload: &str) -> Packet {
    Packet::Publish(message(topic, Qos::AtMostOnce, 0, payload))
}

/// QoS 0 with a payload that is no text.
pub(crate) fn qos0_of(topic: &'static str, payload: Vec<u8>) -> Packet {
    let mut publish = message(topic, Qos::AtMostOnce, 0, "");
    publish.payload = payload.into();
    Packet::Publish(publish)
}

pub(crate) fn qos1(topic: &'static str, number: u16, payload: &str) -> Packet {
    Packet::Publish(message(topic, Qos::AtLeastOnce, number, payload))
}

pub(crate) fn qos2(topic: &'static str, number: u16, payload: &str) -> Packet {
    Packet::Publish(message(topic, Qos::ExactlyOnce, number, payload))
}

pub(crate) fn puback(number: u16) -> Packet {
    Packet::PubAck(Ack::success(id(number)))
}

pub(crate) fn pubrec(number: u16) -> Packet {
    Packet::PubRec(Ack::success(id(number)))
}

pub(crate) fn pubrel(number: u16) -> Packet {
    Packet::PubRel(Ack::success(id(number)))
}

pub(crate) fn pubcomp(number: u16) -> Packet {
    Packet::PubComp(Ack::success(id(number)))
}

pub(crate) fn with_reason(packet_id: u16, reason: ReasonCode) -> Ack {
    Ack {
        packet_id: id(packet_id),
        reason,
        properties: None,
    }
}

pub(crate) fn disconnect(reason: ReasonCode, session_expiry_interval: Option<u32>) -> Packet {
    Packet::Disconnect(Disconnect {
        reason,
        properties: DisconnectProperties {
            session_expiry_interval,
            ..DisconnectProperties::default()
        },
    })
}
