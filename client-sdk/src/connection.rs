//! One MQTT connection, on rumqttc. It ends when anything is wrong with it; another one is made then.
//!
//! rumqttc gets an empty session for each connection: what it would try again is in the outbox, and is tried again from
//! there, by message id. What the server tries again comes from its session.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use proto::error::ErrorName;
use proto::payload::PROTOBUF;
use rumqttc::{
    AckMode, AsyncClient, ConnectProperties, ConnectReturnCode, ConnectionError,
    DisconnectReasonCode, Event, EventLoop, Incoming, MqttOptions, PubAck, PubAckReason, Publish,
    PublishOptions, PublishProperties, PublishResult, QoS, StateError, SubscribeFilter,
    SubscribeReasonCode,
};
use rumqttc::{
    PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Login};
use crate::error::Refusal;
use crate::transport;

/// Requests that may wait for rumqttc: acks, publishes, subscriptions.
const REQUESTS_MAX: usize = 2_048;
/// What may wait for the worker: more than the server may have on the way.
const ARRIVALS_MAX: usize = 2_048;
/// Hints (QoS 0) are dropped if less room than this is left.
const ROOM_FOR_QOS1: usize = 1_024;
/// Largest packet that is taken: the server sends at most 256 KiB.
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// How this version of rumqttc writes a session down.
const SESSION_FORMAT: u16 = 1;
/// Time for DISCONNECT to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection tells.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// CONNACK.
    Up {
        /// The session goes on.
        resumed: bool,
    },
    /// A publish, to be acked when it is safe.
    Publish(Publish),
    /// It is over.
    Down(Down),
}

/// Why a connection is over.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// The network, or the server for the moment: try again.
    Lost(String),
    /// The login was refused.
    SignIn(String),
    /// Another connection has taken the session.
    Replaced,
    /// The user has as many devices as may be.
    TooManyDevices,
}

/// What became of a publish.
#[derive(Clone, Debug)]
pub(crate) enum Acked {
    /// PUBACK 0x00, with its user properties.
    Done(Vec<(String, String)>),
    Refused(Refusal),
    /// The connection ended first.
    Lost,
}

/// The handle of a connection.
pub(crate) struct Link {
    client: AsyncClient,
    stop: CancellationToken,
}

impl Link {
    /// Begins to connect. What happens arrives at the receiver.
    pub(crate) fn start(
        config: &Config,
        login: &Login,
        client_id: &str,
        durable: bool,
        tasks: &TaskTracker,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        let options = options(config, login, client_id, durable);
        let (client, events) = AsyncClient::builder(options).capacity(REQUESTS_MAX).build();
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        let stop = CancellationToken::new();
        let link = Self {
            client: client.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(drive(events, client, arrivals, stop));
        (link, receiver)
    }

    /// Acks a publish.
    pub(crate) async fn ack(&self, publish: &Publish) {
        if let Err(error) = self.client.ack(publish).await {
            // The connection is over: it comes again on the next one.
            tracing::debug!(%error, "an ack was not sent");
        }
    }

    /// Publishes at QoS 0, if there is room.
    pub(crate) fn hint(&self, topic: String, payload: Bytes) {
        let options = PublishOptions::at_most_once();
        if let Err(error) = self.client.try_publish(topic, payload, options) {
            tracing::debug!(%error, "a hint was not sent");
        }
    }

    /// Subscribes. `None`: the connection ended first; otherwise each filter, and why it was refused.
    pub(crate) async fn subscribe(
        client: AsyncClient,
        filters: Vec<(String, QoS)>,
    ) -> Option<Vec<(String, Option<Refusal>)>> {
        let asked = filters.iter();
        let asked: Vec<_> = asked
            .map(|(filter, qos)| SubscribeFilter::new(filter.clone(), *qos))
            .collect();
        let notice = client.subscribe_many_tracked(asked).await.ok()?;
        let suback = notice.wait_async().await.ok()?;
        let answered = filters.into_iter().zip(suback.return_codes);
        let answered = answered.map(|((filter, _), code)| (filter, refusal_of(code)));
        Some(answered.collect())
    }

    /// No longer wants a filter.
    pub(crate) fn unsubscribe(&self, filter: String) {
        if let Err(error) = self.client.try_unsubscribe(filter) {
            tracing::debug!(%error, "an UNSUBSCRIBE was not sent");
        }
    }

    /// For what outlives a borrow of the link.
    pub(crate) fn client(&self) -> AsyncClient {
        self.client.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A publish at QoS 1.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    topic: String,
    payload: Bytes,
    properties: PublishProperties,
}

impl Outgoing {
    /// Of protobuf.
    pub(crate) fn protobuf(topic: impl Into<String>, payload: Bytes) -> Self {
        let mut outgoing = Self::plain(topic, payload);
        outgoing.properties.content_type = Some(PROTOBUF.to_owned());
        outgoing
    }

    /// Of what the topic says.
    pub(crate) fn plain(topic: impl Into<String>, payload: Bytes) -> Self {
        Self {
            topic: topic.into(),
            payload,
            properties: PublishProperties::default(),
        }
    }

    /// With a message id.
    pub(crate) fn mid(mut self, mid: &str) -> Self {
        if !mid.is_empty() {
            let property = ("mid".to_owned(), mid.to_owned());
            self.properties.user_properties.push(property);
        }
        self
    }

    /// With where the reply goes, and what is to come back with it.
    pub(crate) fn reply_to(mut self, topic: &str, correlation: Bytes) -> Self {
        self.properties.response_topic = Some(topic.to_owned());
        self.properties.correlation_data = Some(correlation);
        self
    }
}

/// Publishes at QoS 1. What became of it.
pub(crate) async fn publish(client: AsyncClient, outgoing: Outgoing) -> Acked {
    let options = PublishOptions::at_least_once().properties(outgoing.properties);
    let published = client.publish_tracked(outgoing.topic, outgoing.payload, options);
    let Ok(notice) = published.await else {
        return Acked::Lost;
    };
    match notice.wait_async().await {
        Ok(PublishResult::Qos1(ack)) => outcome(ack),
        Ok(_) | Err(_) => Acked::Lost,
    }
}

fn refusal_of(code: SubscribeReasonCode) -> Option<Refusal> {
    use SubscribeReasonCode::{NotAuthorized, QuotaExceeded, Success};
    let (name, message) = match code {
        Success(_) => return None,
        NotAuthorized => (
            ErrorName::Forbidden,
            "the server does not allow it".to_owned(),
        ),
        QuotaExceeded => (
            ErrorName::Limit,
            "the server allows no more of these".to_owned(),
        ),
        code => (ErrorName::Unavailable, format!("{code:?}")),
    };
    Some(Refusal::new(name.name(), message))
}

fn outcome(ack: PubAck) -> Acked {
    let reason = ack.reason;
    let (message, properties) = match ack.properties {
        Some(properties) => (properties.reason_string, properties.user_properties),
        None => (None, Vec::new()),
    };
    if matches!(
        reason,
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers
    ) {
        return Acked::Done(properties);
    }
    let property = |name: &str| {
        let mut all = properties.iter();
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let mut refusal = Refusal::new(
        property("error").unwrap_or("refused"),
        message.unwrap_or_else(|| format!("{reason:?}")),
    );
    let retry_ms = property("retry_ms").and_then(|ms| ms.parse().ok());
    refusal.retry_after = retry_ms.map(Duration::from_millis);
    Acked::Refused(refusal)
}

fn options(config: &Config, login: &Login, client_id: &str, durable: bool) -> MqttOptions {
    let limits = &config.limits;
    let address = (config.address.host(), config.address.port());
    let mut options = MqttOptions::new(client_id, address);
    let keep_alive = u16::try_from(limits.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let expiry = u32::try_from(limits.session_expiry.as_secs()).unwrap_or(u32::MAX);
    options
        .set_credentials(login.handle.clone(), login.secret.clone())
        .set_keep_alive(keep_alive)
        .set_clean_start(false)
        .set_session_store(EmptySession)
        .set_ack_mode(AckMode::Manual)
        .set_connect_timeout(limits.connect_timeout)
        .set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(if durable { expiry } else { 0 }),
            receive_maximum: Some(limits.receive_maximum),
            max_packet_size: Some(PACKET_BYTES_MAX),
            ..ConnectProperties::new()
        });
    let config = config.clone();
    options.set_socket_connector(move |_, _| {
        let config = config.clone();
        async move { transport::connect(&config).await }
    });
    options
}

/// The client's part of every session, as MQTT sees it: nothing is on its way at QoS 1 or 2 when a connection begins
/// [MQTT-4.1.0-1]. Without it rumqttc takes a session that the server has kept for one of somebody else.
#[derive(Debug)]
struct EmptySession;

type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for EmptySession {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Stored<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: SESSION_FORMAT,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: None,
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async { Ok(Some(session)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Stored<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Stored<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Polls rumqttc until the connection ends.
async fn drive(
    mut events: EventLoop,
    client: AsyncClient,
    arrivals: mpsc::Sender<Arrival>,
    stop: CancellationToken,
) {
    let down = tokio::select! {
        down = poll(&mut events, &arrivals) => down,
        () = stop.cancelled() => {
            if client.try_disconnect().is_ok() {
                let farewell = async { while events.poll().await.is_ok() {} };
                if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
                    tracing::debug!("the connection was closed without DISCONNECT");
                }
            }
            return;
        }
    };
    if arrivals.send(Arrival::Down(down)).await.is_err() {
        tracing::debug!("nobody waits for the end of the connection");
    }
}

async fn poll(events: &mut EventLoop, arrivals: &mpsc::Sender<Arrival>) -> Down {
    loop {
        let arrival = match events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(connack))) => Arrival::Up {
                resumed: connack.session_present,
            },
            Ok(Event::Incoming(Incoming::Publish(publish))) => {
                let hint =
                    publish.qos == QoS::AtMostOnce && !publish.topic.starts_with(b"chat/me/rpc/");
                if hint && arrivals.capacity() < ROOM_FOR_QOS1 {
                    continue;
                }
                Arrival::Publish(publish)
            }
            Ok(_) => continue,
            Err(error) => return reason(&error),
        };
        if arrivals.send(arrival).await.is_err() {
            return Down::Lost("nobody listens".to_owned());
        }
    }
}

fn reason(error: &ConnectionError) -> Down {
    use ConnectReturnCode::{
        BadAuthenticationMethod, BadClientId, BadUserNamePassword, Banned,
        ClientIdentifierNotValid, NotAuthorized,
    };
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => match code {
            BadUserNamePassword
            | NotAuthorized
            | Banned
            | BadAuthenticationMethod
            | BadClientId
            | ClientIdentifierNotValid => Down::SignIn(format!("{code:?}")),
            code => Down::Lost(format!("the server refuses: {code:?}")),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => Down::Replaced,
        error => Down::Lost(error.to_string()),
    }
}
