//! The seam where a plugin joins the broker: typed, batched, with defaults.
//!
//! A plugin owns one root level of the topic tree ([`Hooks::root`]). Publishes and subscriptions below it go to the
//! plugin and never reach the router; all others never reach the plugin. The life of a connection:
//!
//! 1. `authenticate` says who the CONNECT is (with an authentication method in 5.0: a dialogue does). Nothing else is called for a refused one.
//! 2. `on_connected` opens the session: it may bring back what the plugin keeps at rest. CONNACK waits for it.
//! 3. `on_publish`, `on_subscribe`, `on_unsubscribe`, `on_release` hand over work together with a [`Ticket`]. They return
//!    at once; the packet that answers waits for the ticket.
//! 4. [`ClientInfo::wake`] makes the connection call `pull`, as often as its window has room; `on_delivered` says what
//!    became of each delivery.
//! 5. `on_disconnected` is the last call for that connection: no ticket of it matters any more.
//!
//! No hook may block: those that may wait are async, and all the others only touch memory.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;

use crate::acl::{Request, Rules, Verdict, Who};
use crate::codec::packet::{PacketId, Publish, Qos, SubscribeFilter, Version};
use crate::codec::properties::{AckProperties, UserProperties};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::scram::Credential;
use crate::vitals::Vitals;

/// What a plugin does with the broker's events. One value serves all connections.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// The first topic level that the plugin owns, for example `"chat"`. Wildcards at the root never match it.
    fn root(&self) -> &'static str;

    /// Decides who a CONNECT is. Bounded by the connect timeout, together with reading CONNECT.
    ///
    /// # Errors
    /// The refusal that CONNACK carries (in 3.1.1: the return code that stands for it).
    async fn authenticate(&self, request: AuthenticateRequest) -> Result<Identity, ReasonCode>;

    /// What the built-in method SCRAM-SHA-256 is to know of a user; `None`: there is no such user. Bounded like
    /// `authenticate`. The default does not offer the method.
    ///
    /// # Errors
    /// The refusal that CONNACK carries.
    async fn scram_credential(
        &self,
        _user: &str,
        _request: &AuthenticateRequest,
    ) -> Result<Option<Credential>, ReasonCode> {
        Err(ReasonCode::BadAuthenticationMethod)
    }

    /// Who a login by SCRAM-SHA-256 is whose proof was judged: `proved` is what `scram_credential` said, if the client
    /// has the password to it; `None` after a wrong proof, and always for a user whom nobody knows. A failed login is
    /// counted here, and one that is right may be refused all the same: nothing has been answered yet.
    ///
    /// # Errors
    /// The refusal that CONNACK carries; always one if nothing was proved.
    async fn scram_login(
        &self,
        _user: &str,
        _request: &AuthenticateRequest,
        _proved: Option<&Credential>,
    ) -> Result<Identity, ReasonCode> {
        Err(ReasonCode::BadAuthenticationMethod)
    }

    /// Begins an enhanced authentication (5.0) by a method that is not built in, at CONNECT or, without user name and
    /// password, on a live connection. The default knows no method.
    ///
    /// # Errors
    /// The refusal that CONNACK carries.
    async fn begin_authentication(
        &self,
        _method: &str,
        _request: AuthenticateRequest,
    ) -> Result<Box<dyn Authentication>, ReasonCode> {
        Err(ReasonCode::BadAuthenticationMethod)
    }

    /// May they publish to, or subscribe to, this ordinary topic (one outside the plugin's root)? Asked when the operator's
    /// rules say nothing; for the will of a client that is away too, when its time has come.
    fn authorize(&self, who: Who<'_>, access: Access, topic: &str) -> bool;

    /// A session opens, before CONNACK. An earlier connection of the same (user, client identifier) has been closed and
    /// its `on_disconnected` has been called.
    ///
    /// # Errors
    /// The refusal that CONNACK carries; `on_disconnected` is not called then.
    async fn on_connected(
        &self,
        client: &Arc<ClientInfo>,
        open: SessionOpen,
    ) -> Result<SessionRestored, ReasonCode>;

    /// Takes publishes in the order of arrival, without waiting. Each ticket is answered once, in any order, when the
    /// publish is settled; PUBACK or PUBREC carries the answer (a QoS 0 publish has a ticket too, whose answer only
    /// gives the credit back). A dropped ticket closes the connection.
    fn on_publish(
        &self,
        client: &Arc<ClientInfo>,
        batch: Vec<(Publish, Ticket<PublishAnswer>)>,
    ) -> Credit;

    /// PUBREL for a QoS 2 publish that `on_publish` took, or for an identifier that the broker's session does not know
    /// (after a restart). The answer says whether there was such an exchange; PUBCOMP waits for it.
    fn on_release(&self, client: &Arc<ClientInfo>, packet_id: PacketId, ticket: Ticket<bool>);

    /// SUBSCRIBE to filters below the plugin's root (with or without `$share/{name}/` before it). One Reason Code per
    /// filter, in order; SUBACK waits for it.
    fn on_subscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<SubscribeFilter>,
        identifier: Option<u32>,
        ticket: Ticket<Vec<ReasonCode>>,
    );

    /// UNSUBSCRIBE from filters below the plugin's root; as for `on_subscribe`.
    fn on_unsubscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<TopicFilter>,
        ticket: Ticket<Vec<ReasonCode>>,
    );

    /// Takes what is ready for this connection, at most `room.packets` deliveries at QoS 1 and about `room.bytes` in
    /// all. Called after each wake, and again while it returns something and acks make room.
    fn pull(&self, client: &Arc<ClientInfo>, room: Room) -> Vec<Delivery>;

    /// What became of pulled deliveries, in the order of the events.
    fn on_delivered(&self, client: &Arc<ClientInfo>, outcomes: Vec<(DeliveryRef, DeliveryOutcome)>);

    /// The connection has ended: by the client, by a fault, by takeover or by shutdown.
    fn on_disconnected(&self, client: &Arc<ClientInfo>, end: SessionEnd);

    /// An operator dropped a session; nobody is connected with it, and nobody is while this lasts. What the plugin keeps
    /// at rest of it goes, durably. Says whether there was something. The default keeps nothing.
    ///
    /// # Errors
    /// It could not be made durable.
    async fn on_session_dropped(&self, _user: &str, _client_id: &str) -> Result<bool, ReasonCode> {
        Ok(false)
    }

    /// The broker has drained all connections. What the plugin still holds becomes durable before this returns.
    async fn on_shutdown(&self);
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// From the network; behind a balancer that says so, the address that the balancer sees.
    Network(SocketAddr),
    /// Through a Unix socket.
    Local {
        /// Number of the user whose process it is.
        user: u32,
        /// Number of the process, where the system tells it.
        process: Option<i32>,
    },
}

impl Peer {
    /// The address, if it comes from the network.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Network(address) => Some(address.ip()),
            Self::Local { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Local {
                user,
                process: Some(process),
            } => write!(f, "local process {process} of user {user}"),
            Self::Local { user, .. } => write!(f, "local process of user {user}"),
        }
    }
}

/// Whom a client certificate names. The certificate was verified: issued by one whom the listener trusts, not expired,
/// and the client has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The part of the certificate that the listener is configured to take.
    pub user: ByteString,
}

/// What CONNECT says about who is there.
pub struct AuthenticateRequest {
    /// As sent; empty if the client asks for one.
    pub client_id: ByteString,
    /// As sent.
    pub user_name: Option<ByteString>,
    /// As sent. Never log it.
    pub password: Option<Bytes>,
    /// Where the connection comes from.
    pub peer: Peer,
    /// Whom the client's certificate names, if it sent one that the listener trusts.
    pub certificate: Option<CertificateIdentity>,
    /// 3.1.1 or 5.0.
    pub version: Version,
}

impl fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateRequest")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("peer", &self.peer)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// A dialogue that finds out who a client is (MQTT 5.0 §4.12).
#[async_trait]
pub trait Authentication: Send {
    /// Takes what the client says; the first time, the data of its CONNECT (or of the AUTH that begins). Bounded by the
    /// connect timeout.
    ///
    /// # Errors
    /// The refusal that CONNACK carries; on a live connection DISCONNECT says «not authorized», or «server busy» for
    /// 0x88 and 0x89.
    async fn step(&mut self, data: Bytes) -> Result<AuthenticationStep, ReasonCode>;
}

/// How an authentication goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthenticationStep {
    /// The client is to answer this.
    Continue(Bytes),
    /// It is known who the client is. Who authenticates again must be who he was.
    Done {
        /// Who.
        identity: Identity,
        /// The last word of the server.
        data: Option<Bytes>,
    },
}

/// Who a client is, as `authenticate` found. Sessions belong to (user, client identifier): nobody can take over the
/// connection of another user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Key of the user: stable, opaque to the broker.
    pub user: Arc<str>,
    /// What rules and logs call the user.
    pub name: Arc<str>,
}

/// One connected client, as the plugin sees it. Shared for the life of the connection.
pub struct ClientInfo {
    /// Who it is.
    pub identity: Identity,
    /// As sent, or as assigned.
    pub client_id: ByteString,
    /// 3.1.1 or 5.0.
    pub version: Version,
    /// Where it comes from.
    pub peer: Peer,
    /// When `authenticate` was asked: the identity rests on what it found then or later.
    pub authenticated_since: Instant,
    /// Number of the connection in this process, from 1, never used twice.
    pub connection: u64,
    /// Largest packet that the client takes, in bytes, fixed header included; `None`: any.
    pub packet_bytes_max: Option<u32>,
    /// User properties of CONNECT; empty in 3.1.1.
    pub user_properties: UserProperties,
    pub(crate) rules: Arc<Rules>,
    pub(crate) vitals: Vitals,
    pub(crate) mailbox: Arc<crate::mailbox::Mailbox>,
}

impl ClientInfo {
    /// What the operator's rules say to this.
    pub fn judge(&self, request: Request<'_>) -> Verdict {
        self.rules.current().judge(self.who(), request)
    }

    /// Who is asked about.
    pub fn who(&self) -> Who<'_> {
        Who {
            user: &self.identity.name,
            client_id: &self.client_id,
        }
    }

    /// Asks the connection to `pull` soon. Cheap, from any thread, also after the connection has ended.
    pub fn wake(&self) {
        self.mailbox.wake();
    }

    /// Asks the connection to close, with this reason in DISCONNECT (5.0).
    pub fn close(&self, reason: ReasonCode) {
        self.mailbox.close(reason);
    }
}

impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientInfo")
            .field("user", &self.identity.name)
            .field("client_id", &self.client_id)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// What may be allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// PUBLISH to a topic name.
    Publish,
    /// SUBSCRIBE to a topic filter.
    Subscribe,
}

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOpen {
    /// The client wants no state of an earlier session.
    pub clean_start: bool,
    /// Seconds that the session outlives the connection; 0: not at all, `u32::MAX`: for ever. In 3.1.1: 0 with Clean
    /// Session, else the configured maximum.
    pub session_expiry: u32,
    /// The broker itself still holds this session.
    pub present: bool,
    /// The broker keeps its sessions at rest: one that it does not hold is over, whatever the plugin remembers.
    pub authoritative: bool,
}

/// What the plugin brings back.
#[derive(Debug, Default)]
pub struct SessionRestored {
    /// The plugin holds state of this session at rest (never with `clean_start`; of no account if the broker is
    /// authoritative).
    pub present: bool,
    /// Unacknowledged deliveries in the order of the first sending. Their identifiers are reserved; `pull` offers each
    /// again with `resend` set.
    pub inflight: Vec<(PacketId, DeliveryRef)>,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct SessionEnd {
    /// The session ends with the connection.
    pub discarded: bool,
    /// Seconds that the session lives on, if it does (DISCONNECT may have changed it).
    pub session_expiry: u32,
    /// Unacknowledged deliveries, in the order of the first sending.
    pub inflight: Vec<(PacketId, DeliveryRef)>,
}

/// The result of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishAnswer {
    /// Below 0x80: accepted. In 3.1.1 every answer becomes a plain PUBACK or PUBREC.
    pub reason: ReasonCode,
    /// Sent in 5.0, unless the client asked for no problem information [MQTT-3.1.2-29].
    pub properties: Option<Box<AckProperties>>,
    /// A message to this client at QoS 0, sent right before the ack that it explains (at QoS 0: in its place).
    pub notice: Option<Box<Publish>>,
}

impl PublishAnswer {
    /// Accepted, nothing to add.
    pub const SUCCESS: Self = Self {
        reason: ReasonCode::Success,
        properties: None,
        notice: None,
    };

    /// Refused, without further words.
    pub const fn refusal(reason: ReasonCode) -> Self {
        Self {
            reason,
            properties: None,
            notice: None,
        }
    }
}

/// How many unanswered publishes this connection may have from now on; the broker takes at least 1. A plugin whose
/// queue is full gives less than usual, and the connection stops reading until enough is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit(pub u32);

impl Credit {
    /// As many as the configuration allows.
    pub const FULL: Self = Self(u32::MAX);
}

/// What a connection has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free places for unacknowledged packets. At 0 only QoS 0 deliveries may come.
    pub packets: usize,
    /// Free bytes of the output buffer; one delivery may exceed it.
    pub bytes: usize,
}

/// The plugin's name for one delivery: opaque to the broker, kept with the packet identifier until it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryRef(pub [u8; 32]);

/// One message for one connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Given back by `on_delivered`.
    pub reference: DeliveryRef,
    /// Shared between all receivers; its own `qos`, `dup` and `packet_id` are not used.
    pub message: Arc<Publish>,
    /// QoS 0 or 1.
    pub qos: Qos,
    /// Retain flag of this delivery.
    pub retain: bool,
    /// Set when an unacknowledged delivery is offered again: sent under this identifier, with DUP.
    pub resend: Option<PacketId>,
    /// Subscription Identifiers of the filters that matched (5.0).
    pub subscription_identifiers: Vec<u32>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// QoS 0: handed to the socket.
    HandedOver,
    /// QoS 1: PUBACK came, with success.
    Acknowledged,
    /// QoS 1: PUBACK came with a refusal (5.0): the client does not want it again [MQTT-4.4.0-2].
    Refused(ReasonCode),
    /// Larger than the client's Maximum Packet Size: not sent, not to be sent [MQTT-3.1.2-25].
    TooLarge,
}

/// A promise to answer once. Dropped without an answer it closes the connection.
pub struct Ticket<A: Into<crate::mailbox::Answer>> {
    mailbox: Arc<crate::mailbox::Mailbox>,
    number: u64,
    answered: bool,
    answer: std::marker::PhantomData<fn(A)>,
}

impl<A: Into<crate::mailbox::Answer>> Ticket<A> {
    pub(crate) fn new(mailbox: Arc<crate::mailbox::Mailbox>, number: u64) -> Self {
        Self {
            mailbox,
            number,
            answered: false,
            answer: std::marker::PhantomData,
        }
    }

    /// Gives the answer.
    pub fn answer(mut self, answer: A) {
        self.answered = true;
        self.mailbox.answer(self.number, answer.into());
    }
}

impl<A: Into<crate::mailbox::Answer>> Drop for Ticket<A> {
    fn drop(&mut self) {
        if !self.answered {
            self.mailbox
                .answer(self.number, crate::mailbox::Answer::Dropped);
        }
    }
}

impl<A: Into<crate::mailbox::Answer>> fmt::Debug for Ticket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.number)
    }
}
