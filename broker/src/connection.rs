//! The one place where a stream, the clock and a session meet: one task per connection.
//!
//! 1. [`open`]: from the first byte to CONNACK ([`handshake`], [`authentication`]).
//! 2. [`Connection::run`]: turns, until the connection ends. A turn: answers and packets that came ([`input`]) → session →
//!    its actions ([`actions`], [`publish`], [`subscribe`]) → deliveries of the plugin and the queue ([`delivery`]) → one
//!    write ([`link`]).
//! 3. Nothing in a turn waits. Between turns the task waits for input, letters, messages, room in the socket, time and the
//!    stop token at once ([`events`]), so that a stalled reader stops none of them. While the output buffer is full nothing
//!    is read or pulled; a write without progress for too long ends the connection.
//! 4. The end: DISCONNECT, the will, and what is kept of the session ([`disconnect`]).

mod actions;
mod authentication;
mod delivery;
mod disconnect;
mod events;
mod handshake;
mod input;
mod link;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tracing::debug;

pub(crate) use self::authentication::Stepped;
use self::disconnect::{End, close, hang_up};
use self::events::Events;
use self::handshake::{Opened, refuse};
use self::link::Link;
use self::subscribe::Answering;
use crate::acl::{Generation, Permit};
use crate::clock;
use crate::codec::packet::{Version, Will};
use crate::hooks::{Authentication, ClientInfo, Ticket};
use crate::journal::Entry;
use crate::listener::Arrival;
use crate::mailbox::{Answer, Letters};
use crate::rate::Meter;
use crate::registry::Claim;
use crate::router::{Publisher, Subscriber};
use crate::server::Server;
use crate::session::queue::Queued;
use crate::session::{Action, Came, Session};

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
    /// A SUBSCRIBE that is not answered yet; nothing is read before it is.
    answering: Option<Box<Answering>>,
    /// The client sent too much, or too much was done for it: it is read no further until then.
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
        let is_told = opened.session.version() == Version::V5;
        Self {
            meter: Meter::new(&server.config, now),
            answering: None,
            paused_until: None,
            server,
            link,
            publisher: Publisher::new(&opened.client.identity.user, is_told),
            client: opened.client,
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
        let end = self.drive_to_the_end().await;
        debug!(client = ?self.client, cause = %end, "connection ends");
        self.count(&end);
        self.say_goodbye(&end);
        // Before the peer has read the last packet: a later connection of this session waits for this.
        let (server, mut link) = self.finish(&end);
        server.metrics.clients_connected.decrement();
        match end {
            End::Lost(error) if error.kind() != io::ErrorKind::InvalidData => {}
            // It may read on, and TLS and WebSocket have a last word.
            End::Client { .. } | End::Closed | End::Bug => {
                Box::pin(hang_up(&server, &mut link)).await;
            }
            _ => Box::pin(close(&server, &mut link)).await,
        }
        link.take_traffic().count(&server.metrics);
    }

    /// A panic, ours or the plugin's, ends this connection like any other: its device may come back.
    async fn drive_to_the_end(&mut self) -> End {
        let mut driving = pin!(self.drive());
        poll_fn(|cx| {
            let poll = AssertUnwindSafe(|| driving.as_mut().poll(cx));
            match catch_unwind(poll) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(Ok(never))) => match never {},
                Ok(Poll::Ready(Err(end))) => Poll::Ready(end),
                Err(_told_by_the_panic_hook) => Poll::Ready(End::Bug),
            }
        })
        .await
    }

    async fn drive(&mut self) -> Result<Infallible, End> {
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
        self.go_on_subscribing(now, &mut scratch.actions)?;
        self.read_packets(scratch, now)?;
        let bytes = self.room().bytes;
        self.session.resume(now, bytes, &mut scratch.actions);
        self.perform(scratch, now)?;
        self.report();
        self.deliver(scratch, now)?;
        self.end_if_drained(now)
    }

    fn write_now(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.link.poll_write(cx) {
            Poll::Ready(Err(error)) => Err(End::Lost(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// For whoever looks at the connection from outside.
    fn note_vitals(&self) {
        let since = self.client.authenticated_since;
        let blocked = self.link.blocked_since();
        let blocked = blocked.map(|at| at.saturating_duration_since(since));
        self.client.vitals.note(self.session.inflight(), blocked);
    }

    fn ticket<A: Into<Answer>>(&self, number: u64) -> Ticket<A> {
        Ticket::new(Arc::clone(&self.client.mailbox), number)
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
}
