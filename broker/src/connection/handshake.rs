//! From the first byte to CONNACK.
//!
//! 1. CONNECT is read, within the small limits of somebody unknown, and refused if its address connects too often.
//! 2. The plugin authenticates; with an authentication method, in a dialogue.
//! 3. The session is claimed: an earlier connection of it ends first.
//! 4. The plugin opens the session; only then an old one is resumed or discarded.
//! 5. CONNACK.
//!
//! Steps 1 to 3 share the connect timeout. Step 4 is not cut short, so that the plugin never sees half an opening.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tracing::debug;

use super::authentication::converse;
use super::disconnect::{close, hang_up};
use super::link::{Link, ReadError};
use crate::acl::{self, Request};
use crate::clock;
use crate::codec::encode::encoded_len;
use crate::codec::packet::{ConnAck, Connect, Packet, Version, Will};
use crate::codec::properties::ConnAckProperties;
use crate::codec::reason::ReasonCode;
use crate::hooks::{AuthenticateRequest, ClientInfo, Peer, SessionOpen};
use crate::journal::Waiter;
use crate::listener::{self, Arrival};
use crate::registry::{Claim, KeptSession};
use crate::router::Subscriber;
use crate::server::Server;
use crate::session::{Session, SessionState, Terms};
use crate::vitals::Vitals;

/// A connection that has been let in.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) client: Arc<ClientInfo>,
    pub(super) claim: Claim,
    pub(super) session: Session,
    pub(super) subscriber: Subscriber,
    pub(super) will: Option<Box<Will>>,
}

/// A connection that is not let in.
#[derive(Debug)]
pub(super) struct Refused {
    /// What CONNACK says, if one is due, and in which form.
    pub(super) answer: Option<(Version, ReasonCode)>,
    /// For the log.
    pub(super) cause: Cause,
}

/// Why a connection is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("closed before CONNECT")]
    Closed,
    #[error("connect timeout")]
    Timeout,
    #[error("server is shutting down")]
    Shutdown,
    #[error("a later connection took over")]
    TakenOver,
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{0:?}")]
    Reason(ReasonCode),
    #[error("CONNACK or AUTH is larger than the client's maximum packet size")]
    AnswerTooLarge,
}

/// What steps 1 to 3 found.
struct Admitted {
    connect: Box<Connect>,
    terms: Terms,
    properties: ConnAckProperties,
    client: Arc<ClientInfo>,
    claim: Claim,
}

/// Lets a connection in, up to and including CONNACK (which waits in the output buffer).
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    link: &mut Link<S>,
    arrival: Arrival,
) -> Result<Opened, Refused> {
    let timeout = clock::sleep_until(arrival.deadline);
    let admitted = tokio::select! {
        biased;
        () = server.stop.cancelled() => Err(Refused::silently(Cause::Shutdown)),
        admitted = admit(server, link, arrival) => admitted,
        () = timeout => Err(Refused::silently(Cause::Timeout)),
    };
    let admitted = match admitted {
        Err(mut refused) if refused.answer.is_none() => {
            refused.answer = late_answer(link, &refused.cause);
            return Err(refused);
        }
        other => other?,
    };
    open_session(server, link, admitted).await
}

/// A CONNECT that was read deserves an answer, also when its time ran out later.
fn late_answer<S: AsyncRead + AsyncWrite + Unpin>(
    link: &Link<S>,
    cause: &Cause,
) -> Option<(Version, ReasonCode)> {
    let busy = matches!(cause, Cause::Timeout | Cause::Shutdown | Cause::TakenOver);
    let version = link.version().filter(|_| busy)?;
    Some((version, ReasonCode::ServerUnavailable))
}

pub(super) async fn refuse<S>(server: &Server, mut link: Link<S>, peer: Peer, refused: Refused)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    server.metrics.connects_refused.increment();
    debug!(%peer, cause = %refused.cause, "connection refused");
    let Some((version, reason)) = refused.answer else {
        hang_up(server, &mut link).await;
        return;
    };
    let text = match &refused.cause {
        Cause::Read(error) => Some(error.to_string().into()),
        _ => reason.text().map(ByteString::from_static),
    };
    let connack = |reason_string| {
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason,
            properties: ConnAckProperties {
                reason_string,
                ..ConnAckProperties::default()
            },
        }))
    };
    let mut answer = connack(text);
    // [MQTT-3.2.2-19]; in 3.1.1 there are no properties.
    if !link.may_explain(encoded_len(&answer, version)) {
        answer = connack(None);
    }
    link.send(&answer, version);
    close(server, &mut link).await;
}

async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    link: &mut Link<S>,
    arrival: Arrival,
) -> Result<Admitted, Refused> {
    let peer = arrival.peer;
    let mut connect = read_connect(link).await?;
    let version = connect.version;
    let bytes_max = connect.properties.maximum_packet_size;
    if bytes_max.is_some_and(|max| max < CONNACK_BYTES_MIN) {
        // Not even a refusal fits [MQTT-3.1.2-24].
        return Err(Refused::silently(Cause::AnswerTooLarge));
    }
    let refuse = |reason| Refused::with(version, reason);
    let address = peer.ip().map(listener::network);
    if address.is_some_and(|address| !server.arrivals.admit(address, clock::now())) {
        server.metrics.connects_over_rate.increment();
        return Err(refuse(ReasonCode::ConnectionRateExceeded));
    }
    let request = AuthenticateRequest {
        client_id: connect.client_id.clone(),
        user_name: connect.user_name.take(),
        password: connect.password.take(),
        peer,
        certificate: arrival.certificate,
        version,
    };
    let authenticated_since = clock::now();
    let (identity, answer) = match connect.properties.authentication_method.clone() {
        Some(method) => converse(server, link, &mut connect, &method, request).await?,
        None => (
            server.hooks.authenticate(request).await.map_err(refuse)?,
            None,
        ),
    };
    link.set_packet_bytes_max(server.config.packet_bytes_max);
    let (terms, mut properties) = Terms::agree(&connect, &server.config, server.hooks.root());
    properties.authentication_data = answer;
    if connect.client_id.is_empty() {
        connect.client_id = random_client_id().map_err(|error| Refused {
            answer: Some((version, ReasonCode::ServerUnavailable)),
            cause: Cause::Random(error),
        })?;
        properties.assigned_client_identifier = Some(connect.client_id.clone());
    }
    let len = encoded_len(&connack(false, properties.clone()), version);
    if terms
        .packet_bytes_max
        .is_some_and(|max| len as u64 > u64::from(max))
    {
        return Err(Refused::silently(Cause::AnswerTooLarge));
    }
    let client = Arc::new(ClientInfo {
        identity,
        client_id: connect.client_id.clone(),
        version,
        peer,
        authenticated_since,
        connection: server.next_connection(),
        packet_bytes_max: connect.properties.maximum_packet_size,
        user_properties: std::mem::take(&mut connect.properties.user_properties),
        rules: Arc::clone(&server.rules),
        vitals: Vitals::new(terms.keep_alive_s()),
        mailbox: Arc::default(),
    });
    if let Some(will) = &connect.will {
        permit_will(server, &client, will).map_err(refuse)?;
    }
    let claim = claim(server, &client).await?;
    Ok(Admitted {
        connect,
        terms,
        properties,
        client,
        claim,
    })
}

async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
) -> Result<Box<Connect>, Refused> {
    match link.read_packet().await {
        Ok(Some(Packet::Connect(connect))) => {
            link.note_limits(&connect.properties);
            Ok(connect)
        }
        Ok(None) => Err(Refused::silently(Cause::Closed)),
        // The decoder lets nothing but CONNECT through as the first packet.
        Ok(Some(_)) => Err(Refused::silently(Cause::Reason(ReasonCode::ProtocolError))),
        Err(error) => Err(Refused::unreadable(error, link.version())),
    }
}

/// A will is an ordinary publish: below the plugin's root there are none.
pub(super) fn permit_will(
    server: &Server,
    client: &ClientInfo,
    will: &Will,
) -> Result<(), ReasonCode> {
    if acl::is_below(server.hooks.root(), &will.topic) {
        return Err(ReasonCode::NotAuthorized);
    }
    let request = Request::Publish {
        topic: &will.topic,
        qos: will.qos,
        retain: will.retain,
    };
    acl::permit(&*server.hooks, client, request).map(|_| ())
}

async fn claim(server: &Arc<Server>, client: &Arc<ClientInfo>) -> Result<Claim, Refused> {
    let key = Arc::new((Arc::clone(&client.identity.user), client.client_id.clone()));
    let claiming = server
        .registry
        .claim(key, client.connection, &client.mailbox);
    let (claim, others) = claiming.await;
    server.metrics.takeovers.add(others);
    if client.mailbox.close_requested().is_some() {
        return Err(Refused::silently(Cause::TakenOver));
    }
    Ok(claim)
}

async fn open_session<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    link: &mut Link<S>,
    admitted: Admitted,
) -> Result<Opened, Refused> {
    let Admitted {
        connect,
        mut terms,
        properties,
        client,
        claim,
    } = admitted;
    let kept = claim.take_kept();
    let open = SessionOpen {
        clean_start: connect.clean_start,
        session_expiry: terms.session_expiry,
        present: kept.is_some() && !connect.clean_start,
        authoritative: server.journal.is_some(),
    };
    let restored = match server.hooks.on_connected(&client, open).await {
        Ok(restored) => restored,
        Err(reason) => {
            // Nothing has happened: the old session waits on.
            if let Some(kept) = kept {
                end_all(server, claim.keep(kept));
            }
            return Err(Refused::with(terms.version, reason));
        }
    };
    let now = clock::now();
    let (state, mut subscriber) = resume_or_discard(server, kept, connect.clean_start, now).await;
    terms.durable = server.journal.is_some() && terms.session_expiry > 0;
    let is_noted = server.note_session(
        &client,
        &mut subscriber,
        terms.session_expiry,
        connect.will.as_ref(),
    );
    // Who is told that the session outlives the connection finds it also after a crash.
    if let Some(is_noted) = is_noted
        && is_noted.await.is_err()
    {
        debug!("a session began, but not at rest: the store has failed");
    }
    if let Some(queue) = subscriber.queue() {
        queue.connect();
    }
    claim.enter(&client);
    let mut session = Session::new(terms, state, now);
    session.restore(restored.inflight);
    // MQTT 3.1 has no such flag in CONNACK.
    let remembered = open.present || (restored.present && !open.authoritative);
    let present = !connect.clean_start && remembered && !link.speaks_mqtt31();
    link.send(&connack(present, properties), session.version());
    Ok(Opened {
        client,
        claim,
        session,
        subscriber,
        will: connect.will.map(Box::new),
    })
}

fn connack(session_present: bool, properties: ConnAckProperties) -> Packet {
    Packet::ConnAck(Box::new(ConnAck {
        session_present,
        reason: ReasonCode::Success,
        properties,
    }))
}

/// What the new connection begins with. What is discarded is gone for good before the client is told so.
async fn resume_or_discard(
    server: &Server,
    kept: Option<KeptSession>,
    clean_start: bool,
    now: Instant,
) -> (SessionState, Subscriber) {
    match kept {
        Some(session) if clean_start => {
            let (gone, is_gone) = oneshot::channel();
            let at_rest = session.subscriber.number().is_some();
            server.end_session(session, now, Some(Waiter::Signal(gone)));
            if at_rest && is_gone.await.is_err() {
                debug!("a session was discarded, but not at rest: the store has failed");
            }
            Default::default()
        }
        // Its will is not published any more: the client is back [MQTT-3.1.3-9].
        Some(session) => (session.state, session.subscriber),
        None => Default::default(),
    }
}

/// Ends sessions that had to make room.
pub(super) fn end_all(server: &Server, sessions: Vec<KeptSession>) {
    let now = clock::now();
    server.metrics.sessions_evicted.add(sessions.len());
    for session in sessions {
        server.end_session(session, now, None);
    }
}

fn random_client_id() -> Result<ByteString, getrandom::Error> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)?;
    let number = bytes
        .iter()
        .fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Ok(format!("auto-{number:024x}").into())
}

impl Refused {
    /// The answer to what is no packet, for a client of this version.
    pub(super) fn unreadable(error: ReadError, version: Option<Version>) -> Self {
        Self {
            answer: match &error {
                ReadError::Decode(decode) => decode
                    .version_of_refusal(version)
                    .map(|version| (version, decode.reason_code())),
                ReadError::Io(_) => None,
            },
            cause: error.into(),
        }
    }

    pub(super) const fn silently(cause: Cause) -> Self {
        Self {
            answer: None,
            cause,
        }
    }

    pub(super) const fn with(version: Version, reason: ReasonCode) -> Self {
        Self {
            answer: Some((version, reason)),
            cause: Cause::Reason(reason),
        }
    }
}

/// A CONNACK of 5.0 without properties.
const CONNACK_BYTES_MIN: u32 = 5;
