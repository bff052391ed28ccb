//! The one place where a stream, the clock and a session meet: one task per connection.
//!
//! A turn: read packets → session → carry out its actions → report outcomes → pull deliveries → one write. Nothing in a turn
//! waits; between turns the task waits for input, letters, messages, room in the socket, time and the stop token at once, so
//! that a stalled reader stops none of them. While the output buffer is full nothing is read or pulled; a write without
//! progress for too long ends the connection. Who sends more than its rates allow is read no further for a while, or
//! refused.

mod authentication;
mod handshake;
mod link;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, timeout};
use tracing::{debug, info};

pub(crate) use self::authentication::Stepped;
use self::handshake::{Opened, Refused, end_all, permit_will};
use self::link::Link;
use crate::acl::{self, Generation, Permit, Request};
use crate::clock;
use crate::codec::decode::DecodeError;
use crate::codec::encode::encoded_len;
use crate::codec::packet::{
    ConnAck, Disconnect, Packet, PacketId, Publish, Qos, SubscribeFilter, Version, Will,
};
use crate::codec::properties::{AckProperties, ConnAckProperties, DisconnectProperties};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::config::OverRate;
use crate::hooks::{
    Authentication, AuthenticationStep, ClientInfo, Peer, PublishAnswer, Room, SessionEnd, Ticket,
};
use crate::journal::{Change, Entry, Journal, QueueRow, Waiter, WillRow};
use crate::listener::Arrival;
use crate::mailbox::{Answer, Letters};
use crate::rate::Meter;
use crate::registry::{Claim, KeptSession, PendingWill, expires_at};
use crate::router::{Asked, Publisher, Subscriber};
use crate::server::{Server, session_row};
use crate::session::queue::Queued;
use crate::session::{Action, Came, Keep, Owner, ProtocolError, Session, Subscribing, will};

/// Lets the client of a stream in; `None`: it was refused, and the stream has ended.
pub(crate) async fn open<S>(
    server: Arc<Server>,
    stream: S,
    arrival: Arrival,
) -> Option<Box<Connection<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut link = Link::new(stream, server.config.packet_bytes_before_auth_max);
    if server.config.mqtt31 {
        link.accept_mqtt31();
    }
    let peer = arrival.peer;
    match handshake::open(&server, &mut link, arrival).await {
        Ok(opened) => {
            server.metrics.connects_accepted.increment();
            Some(Box::new(Connection::new(server, link, opened)))
        }
        Err(refused) => {
            refuse(&server, link, peer, refused).await;
            None
        }
    }
}

async fn refuse<S>(server: &Server, mut link: Link<S>, peer: Peer, refused: Refused)
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
        handshake::Cause::Read(error) => Some(error.to_string().into()),
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

/// Writes what waits and lets the peer read it, for a bounded time. How that ends changes nothing.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(server: &Server, link: &mut Link<S>) {
    match timeout(server.config.close_timeout(), link.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection ended while it was closed"),
        Err(_) => debug!("peer did not close in time"),
    }
}

fn refused(reason: ReasonCode, text: &'static str) -> PublishAnswer {
    PublishAnswer {
        notice: None,
        reason,
        properties: Some(Box::new(AckProperties {
            reason_string: Some(text.into()),
            ..AckProperties::default()
        })),
    }
}

/// Closes without waiting for the peer: TLS and WebSocket have a last word of their own.
async fn hang_up<S: AsyncRead + AsyncWrite + Unpin>(server: &Server, link: &mut Link<S>) {
    match timeout(server.config.close_timeout(), link.shut()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection ended while it was closed"),
        Err(_) => debug!("peer took nothing more"),
    }
}

/// A connection whose CONNECT was accepted.
pub(crate) struct Connection<S> {
    server: Arc<Server>,
    link: Link<S>,
    client: Arc<ClientInfo>,
    session: Session,
    subscriber: Subscriber,
    publisher: Publisher,
    /// What the rules said to the last publish.
    permit: Option<Permit>,
    /// The rules that the subscriptions were judged by.
    judged_by: Option<Generation>,
    claim: Claim,
    will: Option<Box<Will>>,
    /// A re-authentication that waits for the client.
    dialogue: Option<Box<dyn Authentication>>,
    /// Publishes that came together and were acknowledged in this turn, and how many.
    acknowledged: Option<(Came, usize)>,
    plugin: Plugin,
    /// Who is asked first next time: the plugin or the queue.
    plugin_first: bool,
    /// Armed for `armed_for`, or for an earlier time that has no meaning any more.
    timer: Pin<Box<Sleep>>,
    armed_for: Option<Instant>,
    /// What the client may send, if that is limited.
    meter: Option<Box<Meter>>,
    /// The client sent too much: it is read no further until then.
    paused_until: Option<Instant>,
    /// No complete packet is left of what was read.
    input_used_up: bool,
    /// Set when the broker stops: until then requests may be answered.
    drain_until: Option<Instant>,
}

/// What the plugin may have for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    /// Nothing, until it wakes.
    Idle,
    /// Perhaps something.
    Ready,
    /// Perhaps something, but nothing that may be sent before acknowledgements make room.
    WaitsForRoom,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("client disconnected")]
    Client { publish_will: bool },
    #[error("client closed the connection")]
    Closed,
    #[error("connection lost: {0}")]
    Lost(io::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("asked to close: {0:?}")]
    Asked(ReasonCode),
    #[error("client takes nothing")]
    WriteTimeout,
    #[error("server shuts down")]
    Shutdown,
}

/// What has come while a connection waited, beside messages in its queue and the timer.
#[derive(Debug)]
struct Events {
    stop: bool,
    letters: Letters,
    read: Option<io::Result<usize>>,
    /// At some moment nothing was read, or something was left of what had been.
    deaf: bool,
    written: io::Result<()>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            stop: false,
            letters: Letters::default(),
            read: None,
            deaf: false,
            written: Ok(()),
        }
    }
}

/// Lists that each turn needs and no idle connection holds.
#[derive(Default)]
struct Scratch {
    actions: Vec<Action>,
    running: Vec<Action>,
    messages: Vec<Queued>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(server: Arc<Server>, link: Link<S>, opened: Opened) -> Self {
        let now = clock::now();
        Self {
            meter: Meter::new(&server.config, now),
            paused_until: None,
            server,
            link,
            client: opened.client,
            publisher: Publisher::new(opened.session.version() == Version::V5),
            session: opened.session,
            subscriber: opened.subscriber,
            permit: None,
            judged_by: None,
            claim: opened.claim,
            will: opened.will,
            dialogue: None,
            acknowledged: None,
            // The plugin may have something from the beginning, for example what was in flight.
            plugin: Plugin::Ready,
            plugin_first: true,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            armed_for: None,
            input_used_up: false,
            drain_until: None,
        }
    }

    /// Serves it until it has ended.
    pub(crate) async fn run(mut self: Box<Self>) {
        self.server.metrics.clients_connected.increment();
        let end = match self.drive().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        debug!(client = ?self.client, cause = %end, "connection ends");
        self.count(&end);
        self.say_goodbye(&end);
        // Before the peer has read the last packet: a later connection of this session waits for this.
        let (server, mut link) = self.finish(&end);
        server.metrics.clients_connected.decrement();
        match end {
            End::Closed => {}
            End::Lost(error) if error.kind() != io::ErrorKind::InvalidData => {}
            End::Client { .. } => Box::pin(hang_up(&server, &mut link)).await,
            _ => Box::pin(close(&server, &mut link)).await,
        }
        link.take_traffic().count(&server.metrics);
    }

    async fn drive(&mut self) -> Result<std::convert::Infallible, End> {
        let server = Arc::clone(&self.server);
        let mut stopped = pin!(server.stop.cancelled());
        self.note_subscriptions();
        let mut letters = Letters::default();
        loop {
            self.turn(std::mem::take(&mut letters))?;
            poll_fn(|cx| Poll::Ready(self.write_now(cx))).await?;
            self.note_vitals();
            self.arm();
            // Others have their turn, too.
            tokio::task::consume_budget().await;
            let mut events = Events::default();
            poll_fn(|cx| {
                events.stop = self.drain_until.is_none() && stopped.as_mut().poll(cx).is_ready();
                let ready = self.poll_events(cx, &mut events) || events.stop;
                if ready {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            letters = self.handle_events(events)?;
        }
    }

    /// Looks at everything that may have come; all of it each time, so that nothing that comes often holds up the rest.
    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Events) -> bool {
        let mut ready = false;
        if let Poll::Ready(letters) = self.client.mailbox.poll_take(cx) {
            events.letters = letters;
            ready = true;
        }
        // First: it makes room for what follows.
        if self.link.has_output()
            && let Poll::Ready(written) = self.link.poll_write(cx)
        {
            events.written = written;
            ready = true;
        }
        // Asked once: the writer changes it at any moment, and all that follows has to mean the same.
        let store_room = self.poll_store_room(cx).is_ready();
        let reading = self.is_reading(store_room);
        let delivering = self.is_delivering(store_room);
        ready |= reading && !self.input_used_up || delivering && self.plugin == Plugin::Ready;
        ready |= self.has_room() && self.session.is_resuming();
        if reading && let Poll::Ready(read) = self.link.poll_read(cx) {
            events.read = Some(read);
            ready = true;
        }
        events.deaf |= !reading || !self.input_used_up;
        if delivering && let Some(queue) = self.subscriber.queue() {
            ready |= queue.poll_ready(self.session.queue_window(), cx).is_ready();
        }
        if self.armed_for.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed_for = None;
            ready = true;
        }
        ready
    }

    /// What the next turn does not do anyway. Returns what that one is to handle.
    fn handle_events(&mut self, events: Events) -> Result<Letters, End> {
        events.written.map_err(End::Lost)?;
        let silent = !events.deaf && events.read.is_none();
        if let Some(read) = events.read
            && read.map_err(End::Lost)? == 0
        {
            return Err(End::Closed);
        }
        let now = clock::now();
        if events.stop {
            self.drain_until = now.checked_add(self.server.config.drain_timeout());
        }
        if self.write_deadline().is_some_and(|at| at <= now) {
            return Err(End::WriteTimeout);
        }
        self.session.handle_timeout(now, silent)?;
        Ok(events.letters)
    }

    fn end_if_drained(&self, now: Instant) -> Result<(), End> {
        match self.drain_until {
            Some(until) if until <= now || self.session.is_settled() => Err(End::Shutdown),
            _ => Ok(()),
        }
    }

    /// Sets the timer for the next deadline. A deadline that moves away does not touch it: it rings early, once, and is
    /// set again then.
    fn arm(&mut self) {
        let deadlines = [
            self.session.next_timeout(),
            self.write_deadline(),
            self.paused_until,
            self.drain_until,
        ];
        let Some(next) = deadlines.into_iter().flatten().min() else {
            return;
        };
        if self.armed_for.is_none_or(|armed| next < armed) {
            self.timer.as_mut().reset(next.into());
            self.armed_for = Some(next);
        }
    }

    fn write_deadline(&self) -> Option<Instant> {
        let since = self.link.blocked_since()?;
        since.checked_add(self.server.config.write_timeout())
    }

    fn has_room(&self) -> bool {
        self.link.output_bytes() < self.server.config.output_bytes_max
    }

    /// The store keeps up with what is to be at rest.
    fn has_store_room(&self) -> bool {
        let journal = self.server.journal.as_deref();
        journal.is_none_or(Journal::has_room)
    }

    /// As `has_store_room`; without room, whoever waits is woken when there is some.
    fn poll_store_room(&self, cx: &Context<'_>) -> Poll<()> {
        let journal = self.server.journal.as_deref();
        journal.map_or(Poll::Ready(()), |journal| journal.poll_room(cx))
    }

    fn is_reading(&self, store_room: bool) -> bool {
        store_room
            && self.drain_until.is_none()
            && self.paused_until.is_none()
            && self.session.wants_input()
            && self.has_room()
    }

    fn is_delivering(&self, store_room: bool) -> bool {
        store_room && self.drain_until.is_none() && self.has_room() && !self.session.is_holding()
    }

    fn write_now(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.link.poll_write(cx) {
            Poll::Ready(Err(error)) => Err(End::Lost(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}

// A turn.
impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn turn(&mut self, letters: Letters) -> Result<(), End> {
        let mut scratch = SCRATCH.take();
        let result = self.turn_with(&mut scratch, letters);
        scratch.actions.clear();
        scratch.running.clear();
        scratch.messages.clear();
        SCRATCH.set(scratch);
        let tally = self.session.take_tally();
        let metrics = &self.server.metrics;
        metrics.messages_dropped_too_large.add(tally.too_large);
        metrics.messages_dropped_expired.add(tally.expired);
        self.link.take_traffic().count(metrics);
        self.count_acknowledged();
        result
    }

    fn turn_with(&mut self, scratch: &mut Scratch, letters: Letters) -> Result<(), End> {
        let now = clock::now();
        self.judge_subscriptions();
        self.paused_until = self.paused_until.filter(|until| *until > now);
        for (number, answer) in letters.answers {
            self.session
                .handle_answer(number, answer, &mut scratch.actions)?;
        }
        self.perform(scratch, now)?;
        if let Some(reason) = letters.close {
            return Err(End::Asked(reason));
        }
        if let Some(stepped) = letters.stepped {
            self.handle_stepped(*stepped, &mut scratch.actions);
            self.perform(scratch, now)?;
        }
        if letters.wake {
            self.plugin = Plugin::Ready;
        }
        self.read_packets(scratch, now)?;
        let bytes = self.room().bytes;
        self.session.resume(now, bytes, &mut scratch.actions);
        self.perform(scratch, now)?;
        self.report();
        self.deliver(scratch, now)?;
        self.end_if_drained(now)
    }

    fn read_packets(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        let read = self.read_into(&mut scratch.actions, now);
        // What came before a bad packet was in order and is carried out.
        self.perform(scratch, now)?;
        read
    }

    fn read_into(&mut self, actions: &mut Vec<Action>, now: Instant) -> Result<(), End> {
        self.input_used_up = false;
        while self.is_reading(self.has_store_room()) {
            let before = self.link.input_bytes();
            let Some(packet) = self.link.next_packet()? else {
                self.input_used_up = true;
                break;
            };
            if self.meter.is_some() {
                let bytes = before - self.link.input_bytes();
                self.handle_metered(packet, bytes, actions, now)?;
            } else {
                self.session.handle_packet(now, packet, actions)?;
            }
            // A goodbye is the last packet, and a SUBSCRIBE may be much work.
            if let Some(Action::Disconnect { .. } | Action::Subscribe(_)) = actions.last() {
                break;
            }
        }
        Ok(())
    }

    /// Handles a packet of this size, and counts it against the rates of the connection.
    fn handle_metered(
        &mut self,
        packet: Packet,
        bytes: usize,
        actions: &mut Vec<Action>,
        now: Instant,
    ) -> Result<(), End> {
        let Some(meter) = &mut self.meter else {
            return Ok(self.session.handle_packet(now, packet, actions)?);
        };
        let refuses = self.server.config.over_rate == OverRate::Refuse;
        let is_early = meter.wait(now).is_some();
        let is_publish = matches!(packet, Packet::Publish(_));
        match packet {
            Packet::Publish(publish) if refuses && is_early => {
                let refusal = refused(
                    ReasonCode::QuotaExceeded,
                    "too much for the rate of this connection",
                );
                let session = &mut self.session;
                if session.handle_excess(now, publish, refusal, actions)? {
                    self.server.metrics.publishes_over_rate.increment();
                    return Ok(());
                }
            }
            packet => self.session.handle_packet(now, packet, actions)?,
        }
        meter.charge(is_publish, bytes);
        if !refuses || (is_early && is_publish) {
            let wait = meter.wait(now);
            self.paused_until = wait.and_then(|wait| now.checked_add(wait));
            let paused = usize::from(self.paused_until.is_some());
            self.server.metrics.rate_pauses.add(paused);
        }
        Ok(())
    }

    /// Carries out all actions, and those that follow from them. Never waits: output is queued up to its bound.
    fn perform(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        while !scratch.actions.is_empty() {
            std::mem::swap(&mut scratch.actions, &mut scratch.running);
            for action in scratch.running.drain(..) {
                self.perform_one(action, now, &mut scratch.actions)?;
            }
        }
        Ok(())
    }

    fn perform_one(
        &mut self,
        action: Action,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        match action {
            Action::SendAck(kind, ack, came) => {
                self.link.send(&kind.packet(ack), self.session.version());
                self.note_acknowledged(came);
            }
            Action::Send(packet) => self.link.send(&packet, self.session.version()),
            Action::Deliver(outgoing) => {
                self.link.send_publish(&outgoing, self.session.version());
            }
            Action::Route(publish, number) => {
                self.session.handle_routed(&publish);
                if let Some(answer) = self.route(publish, number, now) {
                    let answer = Answer::Published(answer);
                    self.session.handle_answer(number, answer, out)?;
                }
            }
            Action::HandOver(batch) => self.hand_over(batch),
            Action::Release(packet_id, number) => self.release(packet_id, number),
            Action::Accept(packet_id, number) => {
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                self.note_exchange(number, answer, |session| Change::Received {
                    session,
                    packet_id,
                });
            }
            Action::Forget(packet_id, number) => {
                self.note_exchange(number, Answer::Released(true), |session| Change::Released {
                    session,
                    packet_id,
                });
            }
            Action::Keep(keep) => self.keep(keep),
            Action::Subscribe(wanted) => {
                let number = wanted.number;
                let mut entry = self.open_if_durable();
                let reasons = self.subscribe(wanted, now, &mut entry);
                self.answer_reasons(number, reasons, entry, out)?;
            }
            Action::SubscribePlugin(wanted) => self.subscribe_plugin(wanted),
            Action::Unsubscribe(filters, number) => {
                let mut entry = self.open_if_durable();
                let reasons = self.unsubscribe(&filters, &mut entry);
                self.answer_reasons(number, reasons, entry, out)?;
            }
            Action::UnsubscribePlugin(filters, number) => {
                let ticket = self.ticket(number);
                self.server
                    .hooks
                    .on_unsubscribe(&self.client, filters, ticket);
            }
            Action::Authenticate { begin, data } => self.authenticate(begin, data),
            Action::Disconnect { publish_will } => return Err(End::Client { publish_will }),
        }
        Ok(())
    }

    /// Those that came together are counted together.
    fn note_acknowledged(&mut self, came: Option<Came>) {
        let Some(came) = came else { return };
        match &mut self.acknowledged {
            Some((known, count)) if *known == came => *count += 1,
            _ => {
                self.count_acknowledged();
                self.acknowledged = Some((came, 1));
            }
        }
    }

    fn count_acknowledged(&mut self) {
        let Some((came, count)) = self.acknowledged.take() else {
            return;
        };
        let metrics = &self.server.metrics;
        let latency = match came.owner {
            Owner::Plugin => &metrics.ack_latency_plugin,
            Owner::Broker | Owner::Unknown => &metrics.ack_latency,
        };
        latency.took(clock::now().saturating_duration_since(came.at), count);
    }

    /// For whoever looks at the connection from outside.
    fn note_vitals(&self) {
        let since = self.client.authenticated_since;
        let blocked = self.link.blocked_since();
        let blocked = blocked.map(|at| at.saturating_duration_since(since));
        self.client.vitals.note(self.session.inflight(), blocked);
    }

    fn note_subscriptions(&mut self) {
        if let Some(queue) = self.subscriber.queue() {
            self.publisher.set_queue(queue);
            self.client.vitals.set_queue(queue);
        }
        let count = self.subscriber.subscriptions();
        self.client.vitals.set_subscriptions(count);
    }

    fn ticket<A: Into<Answer>>(&self, number: u64) -> Ticket<A> {
        Ticket::new(Arc::clone(&self.client.mailbox), number)
    }

    /// `None`: the answer comes when the message is at rest.
    fn route(&mut self, publish: Arc<Publish>, number: u64, now: Instant) -> Option<PublishAnswer> {
        let server = &self.server;
        server.metrics.publishes_received.increment();
        let permitted =
            acl::permit_publish(&*server.hooks, &self.client, &publish, &mut self.permit);
        if let Err(reason) = permitted {
            server.metrics.publishes_refused.increment();
            debug!(client = ?self.client, topic = %publish.topic, "publish not authorized");
            return Some(match reason {
                ReasonCode::NotAuthorized => refused(reason, "not authorized for this topic"),
                // The rule says not to tell.
                reason => PublishAnswer::refusal(reason),
            });
        }
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let mut routed = server.route(publish, &mut self.publisher, now);
        if routed.no_disk {
            return Some(refused(ReasonCode::QuotaExceeded, "no disk to keep it"));
        }
        if routed.retained_refused && self.session.version() == Version::V5 {
            return Some(refused(ReasonCode::QuotaExceeded, "no room to retain it"));
        }
        if qos == Qos::ExactlyOnce
            && let (Some(packet_id), Some(session)) = (packet_id, self.durable_session())
        {
            routed.entry = routed.entry.or_else(|| server.router.open());
            if let Some(entry) = &mut routed.entry {
                entry.push(Change::Received { session, packet_id });
            }
        }
        match routed.entry {
            Some(entry) if qos > Qos::AtMostOnce => {
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                entry.commit(Waiter::letter(&self.client.mailbox, number, answer));
                None
            }
            // What nobody waits for is written soon.
            _ => Some(PublishAnswer::SUCCESS),
        }
    }

    /// The number of the session at rest, if its subscriptions, messages and exchanges are, too.
    fn durable_session(&self) -> Option<u64> {
        self.subscriber
            .number()
            .filter(|_| self.session.is_durable())
    }

    fn open_if_durable(&self) -> Option<Entry> {
        self.durable_session()
            .and_then(|_| self.server.router.open())
    }

    /// The answer waits until what was asked for is at rest.
    fn answer_reasons(
        &mut self,
        number: u64,
        reasons: Vec<ReasonCode>,
        entry: Option<Entry>,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        let answer = Answer::Reasons(reasons);
        match entry {
            Some(entry) if !entry.is_empty() => {
                entry.commit(Waiter::letter(&self.client.mailbox, number, answer));
            }
            _ => self.session.handle_answer(number, answer, out)?,
        }
        Ok(())
    }

    /// Notes the beginning or the end of a QoS 2 exchange, and answers when that is at rest.
    fn note_exchange(&self, number: u64, answer: Answer, change: impl FnOnce(u64) -> Change) {
        let waiter = Waiter::letter(&self.client.mailbox, number, answer);
        match self.subscriber.number().zip(self.server.router.open()) {
            Some((session, mut entry)) => {
                entry.push(change(session));
                entry.commit(waiter);
            }
            None => waiter.tell(),
        }
    }

    /// Notes how far a delivery has come. At QoS 1 nobody waits for that: it would only be sent again.
    fn keep(&self, keep: Keep) {
        let Some((session, mut entry)) = self.subscriber.number().zip(self.server.router.open())
        else {
            return;
        };
        let (change, waits_for) = match keep {
            Keep::Sent(queued, at, packet_id) => {
                let mut row = QueueRow::waiting(session, at, &queued);
                row.packet_id = Some(packet_id);
                let waits = queued.qos == Qos::ExactlyOnce;
                (Change::Moved(Box::new(row)), waits.then_some(packet_id))
            }
            Keep::Released(at, packet_id) => {
                let row = QueueRow::released(session, at, packet_id);
                (Change::Moved(Box::new(row)), Some(packet_id))
            }
            Keep::Settled(at) => (Change::Settled { session, at }, None),
        };
        entry.push(change);
        if let Some(packet_id) = waits_for {
            let number = packet_id.get().into();
            entry.commit(Waiter::letter(&self.client.mailbox, number, Answer::Kept));
        }
    }

    fn hand_over(&mut self, batch: Vec<(Publish, u64)>) {
        self.server.metrics.publishes_handed_over.add(batch.len());
        let batch = batch
            .into_iter()
            .map(|(publish, number)| (publish, self.ticket(number)))
            .collect();
        let credit = self.server.hooks.on_publish(&self.client, batch);
        self.session.handle_credit(credit);
    }

    fn release(&self, packet_id: PacketId, number: u64) {
        let ticket = self.ticket(number);
        self.server
            .hooks
            .on_release(&self.client, packet_id, ticket);
    }

    /// Takes a step of a re-authentication, beside the connection. A refusal asks the connection to close.
    fn authenticate(&mut self, begin: bool, data: Bytes) {
        let dialogue = self.dialogue.take().filter(|_| !begin);
        let (server, client) = (Arc::clone(&self.server), Arc::clone(&self.client));
        let method = self.session.authentication_method();
        self.server.tasks.spawn(async move {
            let step = authentication::step(&server, &client, &method, dialogue, data);
            match server.stop.run_until_cancelled(step).await {
                Some(Ok(stepped)) => client.mailbox.stepped(stepped),
                Some(Err(reason)) => client.mailbox.close(reason),
                None => {}
            }
        });
    }

    fn handle_stepped(&mut self, stepped: Stepped, out: &mut Vec<Action>) {
        match stepped.step {
            AuthenticationStep::Continue(data) => {
                self.dialogue = Some(stepped.dialogue);
                self.session.handle_authenticated(false, Some(data), out);
            }
            AuthenticationStep::Done { data, .. } => {
                self.session.handle_authenticated(true, data, out);
            }
        }
    }

    fn subscribe(
        &mut self,
        wanted: Subscribing,
        now: Instant,
        entry: &mut Option<Entry>,
    ) -> Vec<ReasonCode> {
        let identifier = wanted.identifier;
        let filters_max = self.server.config.subscriptions_max;
        let mut asked = Vec::new();
        let mut reasons = Vec::new();
        for (place, filter) in wanted.filters.into_iter().enumerate() {
            reasons.push(if place < filters_max {
                self.subscribe_one(filter, identifier, &mut asked, entry)
            } else {
                // More than it may have: the same ones again, at best.
                let metrics = &self.server.metrics;
                metrics.subscriptions_over_limit.increment();
                ReasonCode::QuotaExceeded
            });
        }
        self.note_subscriptions();
        let begin = clock::now();
        let router = &self.server.router;
        self.subscriber.queue_retained(router, &asked, now, entry);
        self.pause_after(begin);
        reasons
    }

    /// Work that began then was done for the client at once. If it was much, others have the worker for as long now.
    fn pause_after(&mut self, begin: Instant) {
        let end = clock::now();
        let took = end.saturating_duration_since(begin);
        if took >= MUCH_WORK {
            self.paused_until = self.paused_until.max(end.checked_add(took));
        }
    }

    fn subscribe_one(
        &mut self,
        mut wanted: SubscribeFilter,
        identifier: Option<u32>,
        asked: &mut Vec<Asked>,
        entry: &mut Option<Entry>,
    ) -> ReasonCode {
        let metrics = &self.server.metrics;
        match self.permit_subscription(&wanted.filter) {
            Ok(qos_max) => wanted.qos = wanted.qos.min(qos_max),
            Err(reason) => {
                metrics.subscriptions_refused.increment();
                debug!(client = ?self.client, filter = wanted.filter.as_str(), "subscription not authorized");
                return reason;
            }
        }
        let result =
            self.subscriber
                .subscribe(&self.server.router, wanted, identifier, asked, entry);
        if result == Err(ReasonCode::QuotaExceeded) {
            metrics.subscriptions_over_limit.increment();
        }
        result.unwrap_or_else(|refusal| refusal)
    }

    fn permit_subscription(&self, filter: &TopicFilter) -> Result<Qos, ReasonCode> {
        let filter = filter.split_share().1;
        let request = Request::Subscribe { filter };
        acl::permit(&*self.server.hooks, &self.client, request)
    }

    /// Ends the subscriptions that are no longer allowed: when the rules were replaced, and when a session resumes.
    fn judge_subscriptions(&mut self) {
        let generation = self.server.rules.generation();
        if self.judged_by == Some(generation) {
            return;
        }
        self.judged_by = Some(generation);
        let filters = self.subscriber.filters();
        let over = filters.filter(|filter| self.permit_subscription(filter).is_err());
        let over: Vec<TopicFilter> = over.cloned().collect();
        if over.is_empty() {
            return;
        }
        info!(client = ?self.client, count = over.len(), "subscriptions end: no longer allowed");
        self.server.metrics.subscriptions_revoked.add(over.len());
        let mut entry = self.open_if_durable();
        self.unsubscribe(&over, &mut entry);
        if let Some(queue) = self.subscriber.queue() {
            let left = self.subscriber.coverage();
            // Judged by its topic only if no subscription is left that brings it.
            let forbidden = |queued: &Queued| {
                let filter = &queued.publish.topic;
                let request = Request::Subscribe { filter };
                acl::permit(&*self.server.hooks, &self.client, request).is_err()
                    && !left.brings(queued)
            };
            let dropped = queue.take_if(forbidden);
            let metrics = &self.server.metrics;
            metrics.messages_dropped_not_allowed.add(dropped.len());
            queue.settle(&dropped, entry.as_mut());
        }
    }

    fn subscribe_plugin(&self, wanted: Subscribing) {
        let ticket = self.ticket(wanted.number);
        let Subscribing {
            filters,
            identifier,
            ..
        } = wanted;
        self.server
            .hooks
            .on_subscribe(&self.client, filters, identifier, ticket);
    }

    fn unsubscribe(
        &mut self,
        filters: &[TopicFilter],
        entry: &mut Option<Entry>,
    ) -> Vec<ReasonCode> {
        let mut reasons = Vec::new();
        for filter in filters {
            let router = &self.server.router;
            let (reason, left) = self.subscriber.unsubscribe(router, filter, entry);
            let places: Vec<_> = left.iter().filter_map(|queued| queued.stored).collect();
            // Others may have rows at rest for what this session has none for.
            let mut given = entry.take().or_else(|| router.open());
            self.server.give_on(left, &mut given);
            if let (Some(given), Some(session)) = (&mut given, self.subscriber.number()) {
                let settled = places.into_iter().map(|at| Change::Settled { session, at });
                settled.for_each(|change| given.push(change));
            }
            *entry = given;
            reasons.push(reason);
        }
        self.note_subscriptions();
        reasons
    }

    /// Tells the plugin what became of its deliveries.
    fn report(&mut self) {
        let outcomes = self.session.take_outcomes();
        if !outcomes.is_empty() {
            self.server.hooks.on_delivered(&self.client, outcomes);
        }
    }

    /// Fills the output buffer with what the plugin and the queue have, each in its turn.
    fn deliver(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        if self.plugin == Plugin::WaitsForRoom && self.session.window() > 0 {
            self.plugin = Plugin::Ready;
        }
        let mut idle = 0;
        while self.is_delivering(self.has_store_room()) && idle < 2 {
            let found = if self.plugin_first {
                self.pull(scratch)
            } else {
                self.take_messages(scratch, now)
            };
            self.plugin_first = !self.plugin_first;
            idle = if found { 0 } else { idle + 1 };
            self.perform(scratch, now)?;
            self.report();
        }
        Ok(())
    }

    fn room(&self) -> Room {
        let bytes_max = self.server.config.output_bytes_max;
        Room {
            packets: self.session.window(),
            bytes: bytes_max.saturating_sub(self.link.output_bytes()),
        }
    }

    fn pull(&mut self, scratch: &mut Scratch) -> bool {
        if self.plugin != Plugin::Ready {
            return false;
        }
        let room = self.room();
        let deliveries = self.server.hooks.pull(&self.client, room);
        self.server.metrics.publishes_pulled.add(deliveries.len());
        if deliveries.is_empty() {
            self.plugin = if room.packets == 0 {
                Plugin::WaitsForRoom
            } else {
                Plugin::Idle
            };
            return false;
        }
        self.session
            .handle_deliveries(deliveries, &mut scratch.actions);
        true
    }

    fn take_messages(&mut self, scratch: &mut Scratch, now: Instant) -> bool {
        let packets = self.session.queue_window();
        let mut bytes = self.room().bytes;
        if packets > 0 {
            bytes = bytes.min(self.session.queue_bytes());
        }
        let Some(queue) = self.subscriber.queue() else {
            return false;
        };
        queue.take(packets, bytes, &mut scratch.messages);
        let found = !scratch.messages.is_empty();
        for queued in scratch.messages.drain(..) {
            self.session
                .handle_message(now, queued, &mut scratch.actions);
        }
        found
    }
}

// The end.
impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn count(&self, end: &End) {
        let metrics = &self.server.metrics;
        match end {
            End::Decode(_) => metrics.protocol_errors.increment(),
            // What is below MQTT, TLS or WebSocket, found something wrong.
            End::Lost(error) if error.kind() == io::ErrorKind::InvalidData => {
                metrics.protocol_errors.increment();
            }
            End::Protocol(ProtocolError::KeepAliveTimeout) => {
                metrics.keep_alive_timeouts.increment();
            }
            End::Protocol(ProtocolError::ReceiveMaximumExceeded { .. }) => {
                metrics.receive_maximum_exceeded.increment();
                metrics.protocol_errors.increment();
            }
            End::Protocol(error) if error.is_violation() => metrics.protocol_errors.increment(),
            End::WriteTimeout => metrics.write_timeouts.increment(),
            _ => {}
        }
    }

    /// DISCONNECT, in 5.0 and where there is somebody to read it.
    fn say_goodbye(&mut self, end: &End) {
        let reason = match end {
            End::Decode(error) => error.reason_code(),
            End::Protocol(error) => error.reason_code(),
            End::Asked(reason) => *reason,
            End::Shutdown => ReasonCode::ServerShuttingDown,
            End::Client { .. } | End::Closed | End::Lost(_) | End::WriteTimeout => return,
        };
        if self.session.version() == Version::V311 {
            return;
        }
        let explained = matches!(end, End::Decode(_) | End::Protocol(_));
        let mut disconnect = Disconnect {
            reason,
            properties: DisconnectProperties {
                reason_string: explained.then(|| end.to_string().into()),
                ..DisconnectProperties::default()
            },
        };
        let len = encoded_len(&Packet::Disconnect(disconnect.clone()), Version::V5);
        if !self.session.fits(|| len) {
            disconnect.properties = DisconnectProperties::default();
        }
        self.link.send(&Packet::Disconnect(disconnect), Version::V5);
    }

    /// Ends the session's part of the connection: the plugin is told, the session kept or discarded, the claim given up.
    #[expect(
        clippy::boxed_local,
        reason = "unboxed, the task would hold the connection twice"
    )]
    fn finish(mut self: Box<Self>, end: &End) -> (Arc<Server>, Link<S>) {
        self.report();
        let now = clock::now();
        let server = self.server;
        let ended = self.session.end();
        let discarded = ended.session_expiry == 0;
        self.client.mailbox.shut();
        server.hooks.on_disconnected(
            &self.client,
            SessionEnd {
                discarded,
                session_expiry: ended.session_expiry,
                inflight: ended.inflight,
            },
        );
        let goodbye = matches!(
            end,
            End::Client {
                publish_will: false
            }
        );
        let mut pending_will = None;
        // Judged again: the rules may have been replaced since CONNECT.
        let allowed = |will: &Will| permit_will(&server, &self.client, will).is_ok();
        if let Some(will) = self.will.filter(|will| !goodbye && allowed(will)) {
            let due = will::due_at(&will, ended.session_expiry, now);
            let publish = will::into_publish(*will);
            match due {
                Some(due) => {
                    pending_will = Some(Box::new(PendingWill {
                        due,
                        publish,
                        name: Arc::clone(&self.client.identity.name),
                        client_id: self.client.client_id.clone(),
                    }));
                }
                None => server.publish_will(publish, self.subscriber.number(), now),
            }
        }
        if discarded {
            server.end_subscriber(&mut self.subscriber, ended.state, None);
            drop(self.claim);
        } else {
            let number = self.subscriber.number();
            if let Some((number, mut entry)) = number.zip(server.router.open()) {
                let expiry = ended.session_expiry;
                entry.push(session_row(&self.client, number, expiry, Some(now)));
                entry.push(match &pending_will {
                    Some(will) => Change::Will(Box::new(WillRow {
                        session: number,
                        due: Some(will.due),
                        delay: 0,
                        publish: will.publish.clone(),
                    })),
                    None => Change::NoWill(number),
                });
            }
            if let Some(queue) = self.subscriber.queue() {
                queue.leave();
            }
            let evicted = self.claim.keep(KeptSession {
                state: ended.state,
                subscriber: self.subscriber,
                will: pending_will,
                expires_at: expires_at(now, ended.session_expiry),
            });
            end_all(&server, evicted);
        }
        (server, self.link)
    }
}

/// From here on a connection pauses for the work that was done for it.
const MUCH_WORK: Duration = Duration::from_millis(1);
