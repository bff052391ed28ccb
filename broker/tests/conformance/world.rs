//! A broker with a plugin that records what it is told and does what the test says.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::acl::Who;
use broker::acl::{Acl, AclFile, Rules};
use broker::codec::packet::{ConnAck, Connect, PacketId, Publish, Qos, SubscribeFilter, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use broker::hooks::{
    Access, AuthenticateRequest, Authentication, AuthenticationStep, ClientInfo, Credit, Delivery,
    DeliveryOutcome, DeliveryRef, Hooks, Identity, PublishAnswer, Room, SessionEnd, SessionOpen,
    SessionRestored, Ticket,
};
use broker::scram::Credential;
use broker::store::EngineKind;
use broker::store::sessions::SessionOptions;
use broker::{Address, Broker, Certificates, Config, Metrics};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{Client, connect, connect_persistent};

/// Longer than anything that a test waits for; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    /// Of all listeners.
    pub(crate) addresses: Vec<Address>,
    pub(crate) certificates: Certificates,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rules: Arc<Rules>,
    broker: JoinSet<()>,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// A broker whose options are changed.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..Config::default()
        };
        change(&mut config);
        let plugin = Arc::new(Plugin::default());
        let broker = Broker::bind(config, Arc::clone(&plugin) as _).unwrap();
        Self::run(broker, plugin)
    }

    /// A broker whose sessions are at rest, as long as it lives.
    pub(crate) fn with_sessions() -> Self {
        let options = SessionOptions {
            engine: EngineKind::Memory,
            directory: PathBuf::new(),
            memory_bytes: 0,
            disk_bytes_max: 0,
            accept_loss: false,
        };
        let sessions = broker::store::sessions::open(&options).unwrap();
        let config = Config {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..Config::default()
        };
        let plugin = Arc::new(Plugin::default());
        let broker = Broker::bind(config, Arc::clone(&plugin) as _).unwrap();
        Self::run(broker.with_sessions(sessions), plugin)
    }

    fn run(broker: Broker, plugin: Arc<Plugin>) -> Self {
        let (address, metrics) = (broker.local_addr().unwrap(), broker.metrics());
        let rules = broker.rules();
        let addresses = broker.addresses().cloned().collect();
        let certificates = broker.certificates();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(broker.run(shutdown.clone()));
        Self {
            address,
            addresses,
            certificates,
            plugin,
            shutdown,
            metrics,
            rules,
            broker: tasks,
        }
    }

    /// Replaces the rules by these.
    pub(crate) fn rule(&self, rules: &serde_json::Value) {
        let file: AclFile = serde_json::from_value(serde_json::json!({"rules": rules})).unwrap();
        self.rules.replace(Acl::new(file).unwrap());
    }

    pub(crate) async fn open(&self, version: Version) -> Client {
        Client::open(self.address, version).await
    }

    /// A connected client without a session that lives on.
    pub(crate) async fn connect(&self, version: Version, client_id: &'static str) -> Client {
        self.connect_with(connect(version, client_id)).await.0
    }

    /// A connected client whose session lives on.
    pub(crate) async fn connect_persistent(
        &self,
        version: Version,
        client_id: &'static str,
    ) -> (Client, ConnAck) {
        self.connect_with(connect_persistent(version, client_id))
            .await
    }

    pub(crate) async fn connect_with(&self, connect: Connect) -> (Client, ConnAck) {
        let mut client = self.open(connect.version).await;
        let ack = client.connect(connect).await;
        assert_eq!(ack.reason, ReasonCode::Success);
        (client, ack)
    }

    /// Waits until the broker has stopped.
    pub(crate) async fn stopped(&mut self) {
        let stopped = timeout(PATIENCE, self.broker.join_next()).await;
        stopped.expect("the broker goes on").unwrap().unwrap();
    }
}

/// What the plugin was told.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(SessionOpen),
    Published(Vec<Publish>),
    Released(PacketId),
    Subscribed(Vec<SubscribeFilter>, Option<u32>),
    Unsubscribed(Vec<TopicFilter>),
    Delivered(Vec<(DeliveryRef, DeliveryOutcome)>),
    Disconnected(SessionEnd),
    ScramRefused,
    Shutdown,
}

/// What it does with publishes.
#[derive(Clone, Debug, Default)]
pub(crate) enum OnPublish {
    /// Answers at once.
    #[default]
    Accept,
    /// Answers at once with this.
    Answer(PublishAnswer),
    /// Keeps the tickets until the test takes them.
    Keep,
    /// Drops the tickets.
    Drop,
}

#[derive(Default)]
struct State {
    on_publish: OnPublish,
    credit: Option<u32>,
    tickets: Vec<Ticket<PublishAnswer>>,
    keep_releases: bool,
    releases: Vec<Ticket<bool>>,
    /// What `on_release` answers.
    known_releases: bool,
    restore: HashMap<String, SessionRestored>,
    deliveries: HashMap<String, VecDeque<Delivery>>,
    rooms: Vec<Room>,
    clients: HashMap<String, Arc<ClientInfo>>,
    refuse_session: Option<ReasonCode>,
    forbidden: Option<String>,
    authentications: Vec<oneshot::Sender<()>>,
    sender: Option<mpsc::Sender<(String, Event)>>,
}

/// Owns `plug/…`. User names decide (without one, the certificate's): `nobody` is refused, `slow` waits until the test lets
/// it in.
pub(crate) struct Plugin {
    state: Mutex<State>,
    events: tokio::sync::Mutex<mpsc::Receiver<(String, Event)>>,
}

impl Default for Plugin {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(100_000);
        Self {
            state: Mutex::new(State {
                sender: Some(sender),
                ..State::default()
            }),
            events: tokio::sync::Mutex::new(receiver),
        }
    }
}

// What tests say and ask.
impl Plugin {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn on_publish(&self, behaviour: OnPublish) {
        self.with(|state| state.on_publish = behaviour);
    }

    pub(crate) fn credit(&self, credit: u32) {
        self.with(|state| state.credit = Some(credit));
    }

    pub(crate) fn keep_releases(&self) {
        self.with(|state| state.keep_releases = true);
    }

    pub(crate) fn know_releases(&self) {
        self.with(|state| state.known_releases = true);
    }

    pub(crate) fn refuse_sessions(&self, reason: ReasonCode) {
        self.with(|state| state.refuse_session = Some(reason));
    }

    /// From now on nobody may publish there.
    pub(crate) fn forbid(&self, topic: &str) {
        self.with(|state| state.forbidden = Some(topic.to_owned()));
    }

    /// The tickets of publishes that were kept, in the order of arrival.
    pub(crate) fn tickets(&self) -> Vec<Ticket<PublishAnswer>> {
        self.with(|state| std::mem::take(&mut state.tickets))
    }

    pub(crate) fn releases(&self) -> Vec<Ticket<bool>> {
        self.with(|state| std::mem::take(&mut state.releases))
    }

    /// Authentications that wait.
    pub(crate) fn waiting_authentications(&self) -> usize {
        self.with(|state| state.authentications.len())
    }

    pub(crate) fn let_in(&self) {
        self.with(|state| state.authentications.clear());
    }

    pub(crate) fn restore(&self, client_id: &str, restored: SessionRestored) {
        self.with(|state| state.restore.insert(client_id.to_owned(), restored));
    }

    pub(crate) fn rooms(&self) -> Vec<Room> {
        self.with(|state| state.rooms.clone())
    }

    pub(crate) fn client(&self, client_id: &str) -> Arc<ClientInfo> {
        self.with(|state| Arc::clone(&state.clients[client_id]))
    }

    /// Offers deliveries to a connected client.
    pub(crate) fn offer(&self, client_id: &str, deliveries: impl IntoIterator<Item = Delivery>) {
        let client = self.with(|state| {
            state
                .deliveries
                .entry(client_id.to_owned())
                .or_default()
                .extend(deliveries);
            state.clients.get(client_id).map(Arc::clone)
        });
        if let Some(client) = client {
            client.wake();
        }
    }

    /// The next event of any client.
    pub(crate) async fn next(&self) -> (String, Event) {
        let next = async { self.events.lock().await.recv().await };
        timeout(PATIENCE, next)
            .await
            .expect("nothing happened")
            .unwrap()
    }

    /// What has happened and was not asked for yet.
    pub(crate) async fn events_so_far(&self) -> Vec<Event> {
        let mut events = self.events.lock().await;
        std::iter::from_fn(|| events.try_recv().ok())
            .map(|(_, event)| event)
            .collect()
    }

    /// Waits for an event that `pick` takes; others are passed over.
    pub(crate) async fn wait<T>(&self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await.1) {
                return found;
            }
        }
    }

    /// Waits until so many publishes have come.
    pub(crate) async fn published(&self, count: usize) -> Vec<Publish> {
        let mut found = Vec::new();
        while found.len() < count {
            found.extend(
                self.wait(|event| match event {
                    Event::Published(batch) => Some(batch),
                    _ => None,
                })
                .await,
            );
        }
        assert_eq!(found.len(), count);
        found
    }

    pub(crate) async fn disconnected(&self) -> SessionEnd {
        self.wait(|event| match event {
            Event::Disconnected(end) => Some(end),
            _ => None,
        })
        .await
    }

    /// Waits until so many outcomes have come.
    pub(crate) async fn outcomes(&self, count: usize) -> Vec<(u8, DeliveryOutcome)> {
        let mut found = Vec::new();
        while found.len() < count {
            let outcomes = self
                .wait(|event| match event {
                    Event::Delivered(outcomes) => Some(outcomes),
                    _ => None,
                })
                .await;
            found.extend(outcomes.into_iter().map(|(it, outcome)| (it.0[0], outcome)));
        }
        found
    }

    fn record(&self, client: &ClientInfo, event: Event) {
        self.record_as(&client.client_id, event);
    }

    fn record_as(&self, client_id: &str, event: Event) {
        let sender = self.with(|state| state.sender.clone()).unwrap();
        sender.try_send((client_id.to_owned(), event)).unwrap();
    }
}

#[async_trait]
impl Hooks for Plugin {
    fn root(&self) -> &'static str {
        "plug"
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<Identity, ReasonCode> {
        let named = request.certificate.map(|certificate| certificate.user);
        let user = request.user_name.or(named).unwrap_or_default();
        match &*user {
            "nobody" => return Err(ReasonCode::BadUserNameOrPassword),
            "slow" => {
                let (sender, let_in) = oneshot::channel();
                self.with(|state| state.authentications.push(sender));
                // Dropping the sender lets in.
                let _ = let_in.await;
            }
            _ => {}
        }
        Ok(identity(&user))
    }

    async fn scram_credential(
        &self,
        user: &str,
        _request: &AuthenticateRequest,
    ) -> Result<Option<Credential>, ReasonCode> {
        let password: &[u8] = match user {
            "alice" => b"secret of alice",
            "bob" => b"secret of bob",
            "busy" => return Err(ReasonCode::ServerUnavailable),
            _ => return Ok(None),
        };
        Ok(Some(Credential::derive(password, b"salt", 4_096)))
    }

    async fn scram_login(
        &self,
        user: &str,
        _request: &AuthenticateRequest,
        proved: Option<&Credential>,
    ) -> Result<Identity, ReasonCode> {
        if proved.is_some() {
            return Ok(identity(user));
        }
        self.record_as(user, Event::ScramRefused);
        Err(ReasonCode::NotAuthorized)
    }

    /// `ECHO`: who says the same thing twice is `alice`.
    async fn begin_authentication(
        &self,
        method: &str,
        _request: AuthenticateRequest,
    ) -> Result<Box<dyn Authentication>, ReasonCode> {
        match method {
            "ECHO" => Ok(Box::new(Echo(None))),
            _ => Err(ReasonCode::BadAuthenticationMethod),
        }
    }

    fn authorize(&self, _who: Who<'_>, _access: Access, topic: &str) -> bool {
        !topic.contains("forbidden") && self.with(|state| state.forbidden.as_deref() != Some(topic))
    }

    async fn on_connected(
        &self,
        client: &Arc<ClientInfo>,
        open: SessionOpen,
    ) -> Result<SessionRestored, ReasonCode> {
        let client_id = client.client_id.to_string();
        self.record(client, Event::Connected(open));
        self.with(|state| {
            if let Some(reason) = state.refuse_session {
                return Err(reason);
            }
            state.clients.insert(client_id.clone(), Arc::clone(client));
            Ok(state.restore.remove(&client_id).unwrap_or_default())
        })
    }

    fn on_publish(
        &self,
        client: &Arc<ClientInfo>,
        batch: Vec<(Publish, Ticket<PublishAnswer>)>,
    ) -> Credit {
        let (publishes, tickets): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let (behaviour, credit) = self.with(|state| (state.on_publish.clone(), state.credit));
        match behaviour {
            OnPublish::Accept => tickets
                .into_iter()
                .for_each(|ticket| ticket.answer(PublishAnswer::SUCCESS)),
            OnPublish::Answer(answer) => tickets
                .into_iter()
                .for_each(|ticket| ticket.answer(answer.clone())),
            OnPublish::Keep => self.with(|state| state.tickets.extend(tickets)),
            OnPublish::Drop => drop(tickets),
        }
        self.record(client, Event::Published(publishes));
        credit.map_or(Credit::FULL, Credit)
    }

    fn on_release(&self, client: &Arc<ClientInfo>, packet_id: PacketId, ticket: Ticket<bool>) {
        self.with(|state| {
            if state.keep_releases {
                state.releases.push(ticket);
            } else {
                ticket.answer(state.known_releases);
            }
        });
        self.record(client, Event::Released(packet_id));
    }

    fn on_subscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<SubscribeFilter>,
        identifier: Option<u32>,
        ticket: Ticket<Vec<ReasonCode>>,
    ) {
        let reasons = filters.iter().map(|filter| {
            if filter.filter.as_str().contains("forbidden") {
                ReasonCode::NotAuthorized
            } else {
                ReasonCode::GrantedQos1
            }
        });
        ticket.answer(reasons.collect());
        self.record(client, Event::Subscribed(filters, identifier));
    }

    fn on_unsubscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<TopicFilter>,
        ticket: Ticket<Vec<ReasonCode>>,
    ) {
        ticket.answer(filters.iter().map(|_| ReasonCode::Success).collect());
        self.record(client, Event::Unsubscribed(filters));
    }

    fn pull(&self, client: &Arc<ClientInfo>, room: Room) -> Vec<Delivery> {
        self.with(|state| {
            state.rooms.push(room);
            let Some(waiting) = state.deliveries.get_mut(&*client.client_id) else {
                return Vec::new();
            };
            let mut packets = 0;
            let mut pulled = Vec::new();
            while let Some(front) = waiting.front() {
                packets += usize::from(front.qos != Qos::AtMostOnce);
                if packets > room.packets {
                    break;
                }
                pulled.extend(waiting.pop_front());
            }
            pulled
        })
    }

    fn on_delivered(
        &self,
        client: &Arc<ClientInfo>,
        outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
    ) {
        self.record(client, Event::Delivered(outcomes));
    }

    fn on_disconnected(&self, client: &Arc<ClientInfo>, end: SessionEnd) {
        self.record(client, Event::Disconnected(end));
    }

    async fn on_shutdown(&self) {
        self.record_as("", Event::Shutdown);
    }
}

fn identity(user: &str) -> Identity {
    Identity {
        user: user.into(),
        name: user.into(),
    }
}

struct Echo(Option<Bytes>);

#[async_trait]
impl Authentication for Echo {
    async fn step(&mut self, data: Bytes) -> Result<AuthenticationStep, ReasonCode> {
        match self.0.take() {
            None => {
                self.0 = Some(data.clone());
                Ok(AuthenticationStep::Continue(data))
            }
            Some(first) if first == data => Ok(AuthenticationStep::Done {
                identity: identity("alice"),
                data: None,
            }),
            Some(_) => Err(ReasonCode::BadUserNameOrPassword),
        }
    }
}

/// A delivery whose reference begins with `number`.
pub(crate) fn delivery(number: u8, qos: Qos) -> Delivery {
    Delivery {
        reference: reference(number),
        message: Arc::new(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "plug/in".into(),
            packet_id: None,
            payload: Bytes::from(vec![number]),
            properties: PublishProperties::default().into(),
        }),
        qos,
        retain: false,
        resend: None,
        subscription_identifiers: Vec::new(),
    }
}

pub(crate) fn reference(number: u8) -> DeliveryRef {
    let mut bytes = [0; 32];
    bytes[0] = number;
    DeliveryRef(bytes)
}
