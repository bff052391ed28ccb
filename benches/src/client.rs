//! A light MQTT client on the codec of the broker: one socket, two buffers, no tasks.
//!
//! Keep Alive is 0 (off). Packets that are read together are handled together, and their answers leave in one write.

use std::io;
use std::time::Duration;

use broker::codec::decode::Decoder;
use broker::codec::encode::encode;
use broker::codec::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketId, Publish, Qos, RetainHandling, Subscribe,
    SubscribeFilter, Version,
};
use broker::codec::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties,
};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::error::BenchError;

/// Who connects, and how.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) addr: std::net::SocketAddr,
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// Clean Session 0, or a Session Expiry Interval of an hour.
    pub(crate) persistent: bool,
}

/// What CONNACK told.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) connack: Box<ConnAck>,
    /// From the beginning of the TCP connection to CONNACK.
    pub(crate) total: Duration,
    /// From the writing of CONNECT to CONNACK.
    pub(crate) connack_after: Duration,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    version: Version,
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
}

impl Client {
    /// Connects and waits for CONNACK.
    pub(crate) async fn connect(login: &Login, clock: Clock) -> Result<Connected, BenchError> {
        let begun = clock.elapsed();
        let connecting = timeout(ANSWER_TIMEOUT, TcpStream::connect(login.addr));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(BenchError::Connect {
                    addr: login.addr,
                    error,
                });
            }
            Err(_) => return Err(no_answer(&login.client_id)),
        };
        let mut client = Self {
            name: login.client_id.clone(),
            version: login.version,
            stream,
            decoder: Decoder::for_client(login.version, u32::MAX),
            input: BytesMut::new(),
            output: BytesMut::new(),
        };
        let no_delay = client.stream.set_nodelay(true);
        no_delay.map_err(|error| client.io(error))?;
        let written_at = clock.elapsed();
        client.push(&Packet::Connect(Box::new(connect(login))));
        match client.answer().await? {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => {
                let now = clock.elapsed();
                Ok(Connected {
                    client,
                    connack,
                    total: now.saturating_sub(begun),
                    connack_after: now.saturating_sub(written_at),
                })
            }
            Packet::ConnAck(connack) => Err(BenchError::Refused {
                client: client.name,
                reason: connack.reason,
            }),
            other => Err(client.unexpected(&other)),
        }
    }

    /// One that has connected, for tests; what the test writes at the other end comes to it.
    #[cfg(test)]
    pub(crate) async fn of_test(version: Version) -> (Self, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, accepted) = tokio::join!(stream, listener.accept());
        let client = Self {
            name: "test".to_owned(),
            version,
            stream: stream.unwrap(),
            decoder: Decoder::for_client(version, u32::MAX),
            input: BytesMut::new(),
            output: BytesMut::new(),
        };
        (client, accepted.unwrap().0)
    }

    /// As if the broker had sent this packet, for tests.
    #[cfg(test)]
    pub(crate) fn hear(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.input);
    }

    /// Subscribes, before other traffic, and waits for SUBACK; an error unless the broker grants it. Gives the QoS that it grants.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: Qos) -> Result<Qos, BenchError> {
        let parsed = TopicFilter::parse(filter.into());
        let parsed = parsed.map_err(|_| BenchError::Filter(filter.to_owned()))?;
        self.push(&Packet::Subscribe(Subscribe {
            packet_id: FIRST_ID,
            properties: SubscribeProperties::default(),
            filters: vec![SubscribeFilter {
                filter: parsed,
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Always,
            }],
        }));
        loop {
            match self.answer().await? {
                Packet::SubAck(suback) => {
                    return match suback.reasons.first() {
                        Some(ReasonCode::Success) => Ok(Qos::AtMostOnce),
                        Some(ReasonCode::GrantedQos1) => Ok(Qos::AtLeastOnce),
                        Some(ReasonCode::GrantedQos2) => Ok(Qos::ExactlyOnce),
                        reason => Err(BenchError::SubscriptionRefused {
                            client: self.name.clone(),
                            filter: filter.to_owned(),
                            reason: reason.copied().unwrap_or(ReasonCode::UnspecifiedError),
                        }),
                    };
                }
                // What waited for this session, or was retained, may come first.
                Packet::Publish(publish) => self.acknowledge(&publish),
                Packet::PubRel(ack) => self.push(&Packet::PubComp(Ack::success(ack.packet_id))),
                other => return Err(self.unexpected(&other)),
            }
        }
    }

    /// Subscribes to an ordinary topic: a lower QoS would be another measurement.
    pub(crate) async fn subscribe_at(&mut self, filter: &str, qos: Qos) -> Result<(), BenchError> {
        let granted = self.subscribe(filter, qos).await?;
        if granted < qos {
            return Err(BenchError::GrantedQos {
                filter: filter.to_owned(),
                granted,
                asked: qos,
            });
        }
        Ok(())
    }

    /// Publishes one message at QoS 1, outside of the measurement, and waits for its ack; deliveries go to `other`.
    pub(crate) async fn publish_and_wait(
        &mut self,
        topic: &str,
        payload: Bytes,
        mut other: impl FnMut(&Publish),
    ) -> Result<ReasonCode, BenchError> {
        self.push(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            packet_id: Some(FIRST_ID),
            payload,
            properties: PublishProperties::default().into(),
        }));
        loop {
            match self.answer().await? {
                Packet::PubAck(ack) => return Ok(ack.reason),
                Packet::Publish(publish) => {
                    other(&publish);
                    self.acknowledge(&publish);
                }
                Packet::PubRel(ack) => self.push(&Packet::PubComp(Ack::success(ack.packet_id))),
                packet => return Err(self.unexpected(&packet)),
            }
        }
    }

    /// Says goodbye and closes; in 5.0 the session ends with it.
    pub(crate) async fn disconnect(mut self) -> Result<(), BenchError> {
        self.push(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties {
                session_expiry_interval: Some(0),
                ..DisconnectProperties::default()
            },
        }));
        self.flush().await
    }

    /// Says goodbye and closes; a persistent session goes on.
    pub(crate) async fn leave(mut self) -> Result<(), BenchError> {
        self.push(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        }));
        self.flush().await
    }

    /// Queues a packet; it leaves with the next [`Client::write`] or [`Client::pump`].
    pub(crate) fn push(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.output);
    }

    /// Queues the first answer to a delivered PUBLISH.
    pub(crate) fn acknowledge(&mut self, publish: &Publish) {
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let ack = Ack::success(packet_id);
        match publish.qos {
            Qos::ExactlyOnce => self.push(&Packet::PubRec(ack)),
            _ => self.push(&Packet::PubAck(ack)),
        }
    }

    /// Of the protocol.
    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    /// Where queued bytes go.
    pub(crate) const fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// How many queued bytes have not left yet.
    pub(crate) fn queued(&self) -> usize {
        self.output.len()
    }

    /// Waits until the socket can do something, then reads once and writes what it takes. May be dropped at any time.
    pub(crate) async fn pump(&mut self) -> Result<(), BenchError> {
        let interest = if self.output.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let ready = self.stream.ready(interest).await;
        let ready = ready.map_err(|error| self.io(error))?;
        if ready.is_writable() {
            self.write()?;
        }
        if ready.is_readable() || ready.is_read_closed() {
            self.read()?;
        }
        Ok(())
    }

    /// Writes what the socket takes now.
    pub(crate) fn write(&mut self) -> Result<(), BenchError> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(bytes) => self.output.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(())
    }

    /// The next packet of those that have been read. A DISCONNECT of the broker is an error.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, BenchError> {
        match self.decoder.decode(&mut self.input) {
            Ok(Some(Packet::Disconnect(disconnect))) => Err(BenchError::Disconnected {
                client: self.name.clone(),
                reason: disconnect.reason,
            }),
            Ok(packet) => Ok(packet),
            Err(error) => Err(BenchError::Decode {
                client: self.name.clone(),
                error,
            }),
        }
    }

    pub(crate) fn unexpected(&self, packet: &Packet) -> BenchError {
        BenchError::Unexpected {
            client: self.name.clone(),
            packet_type: packet.packet_type(),
        }
    }

    fn read(&mut self) -> Result<(), BenchError> {
        if self.input.capacity() - self.input.len() < READ_BYTES_MIN {
            self.input.reserve(READ_BYTES);
        }
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(BenchError::Closed {
                client: self.name.clone(),
            }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(BenchError::Closed {
                    client: self.name.clone(),
                })
            }
            Err(error) => Err(self.io(error)),
        }
    }

    /// The next packet, whenever it comes; what is queued is written before waiting.
    pub(crate) async fn next(&mut self) -> Result<Packet, BenchError> {
        loop {
            if let Some(packet) = self.next_packet()? {
                return Ok(packet);
            }
            self.write()?;
            self.pump().await?;
        }
    }

    /// The next packet, within the time that an answer may take.
    pub(crate) async fn answer(&mut self) -> Result<Packet, BenchError> {
        let name = self.name.clone();
        let answered = timeout(ANSWER_TIMEOUT, self.next()).await;
        answered.unwrap_or_else(|_| Err(no_answer(&name)))
    }

    async fn flush(&mut self) -> Result<(), BenchError> {
        self.write()?;
        while !self.output.is_empty() {
            let ready = timeout(ANSWER_TIMEOUT, self.stream.writable()).await;
            let ready = ready.map_err(|_| no_answer(&self.name))?;
            ready.map_err(|error| self.io(error))?;
            self.write()?;
        }
        Ok(())
    }

    fn io(&self, error: io::Error) -> BenchError {
        BenchError::Io {
            client: self.name.clone(),
            error,
        }
    }
}

fn connect(login: &Login) -> Connect {
    let expiry = login.persistent.then_some(SESSION_EXPIRY_SECONDS);
    Connect {
        version: login.version,
        clean_start: !login.persistent,
        keep_alive: 0,
        client_id: login.client_id.as_str().into(),
        will: None,
        user_name: login.user.as_deref().map(Into::into),
        password: login.password.clone().map(Bytes::from),
        properties: ConnectProperties {
            session_expiry_interval: expiry,
            ..ConnectProperties::default()
        },
    }
}

fn no_answer(name: &str) -> BenchError {
    BenchError::Timeout {
        client: name.to_owned(),
        seconds: ANSWER_TIMEOUT.as_secs(),
    }
}

/// For exchanges outside of the measurement, one at a time.
const FIRST_ID: PacketId = match PacketId::new(1) {
    Some(packet_id) => packet_id,
    None => unreachable!(),
};
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const SESSION_EXPIRY_SECONDS: u32 = 3_600;
const READ_BYTES: usize = 64 * 1024;
const READ_BYTES_MIN: usize = 4 * 1024;
