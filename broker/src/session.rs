//! One MQTT Session on one connection, after CONNECT: no socket, no task, no clock.
//!
//! Packets, answers, deliveries and time go in; [`Action`]s come out, to be carried out in order. What outlives the
//! connection is a value of its own ([`SessionState`]).
//!
//! A publish from the client:
//! 1. `handle_packet` judges it (flow control, alias, duplicate) and emits `Route` or `HandOver` with a number.
//! 2. `handle_answer` brings the result for that number, at once or much later.
//! 3. PUBACK and PUBREC leave in the order of arrival; QoS 2 goes on with PUBREL (`Release` for the plugin) and PUBCOMP.
//!
//! A publish to the client: `handle_message` and `handle_deliveries` give it a Packet Identifier and emit `Deliver`; its
//! acknowledgements make room again. What the plugin delivered is reported back as outcomes.

mod action;
mod aliases;
mod authentication;
mod error;
mod incoming;
mod inflight;
mod outgoing;
pub(crate) mod queue;
mod received;
mod requests;
mod terms;
#[cfg(test)]
mod tests;
pub(crate) mod will;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytestring::ByteString;

pub(crate) use self::action::{AckKind, Action, Keep, Outgoing, Subscribing};
use self::aliases::Aliases;
use self::authentication::Turn;
pub(crate) use self::authentication::auth_packet;
pub(crate) use self::error::ProtocolError;
pub(crate) use self::inflight::Content;
use self::inflight::Inflight;
use self::queue::Queued;
pub(crate) use self::received::{Came, Owner};
use self::received::{Due, Pending, Received};
use self::requests::Request;
pub(crate) use self::terms::Terms;
use crate::budget::Share;
use crate::codec::packet::{Ack, Packet, PacketId, Publish, Qos, Version};
use crate::hooks::{Credit, Delivery, DeliveryOutcome, DeliveryRef, PublishAnswer};
use crate::mailbox::Answer;

/// What a Session keeps while its client is away (MQTT 5.0 §4.1), subscriptions and queue aside.
#[derive(Debug, Default)]
pub(crate) struct SessionState {
    inflight: Inflight,
    received: Received,
}

impl SessionState {
    /// Of a new session. What is in flight counts against this share.
    pub(crate) fn new(share: Share) -> Self {
        Self {
            inflight: Inflight::new(share),
            received: Received::default(),
        }
    }

    /// As it was found at rest.
    pub(crate) fn restored(
        inflight: impl IntoIterator<Item = (PacketId, Content)>,
        received: impl IntoIterator<Item = PacketId>,
        share: Share,
    ) -> Self {
        Self {
            inflight: Inflight::restored(inflight, share),
            received: Received::restored(received),
        }
    }

    /// The session has ended: what others of its shared subscriptions are to get. A QoS 2 message that
    /// the client may have is for nobody else [MQTT-4.8.2-5]; one that only waited to be sent is.
    pub(crate) fn into_shared(self) -> impl Iterator<Item = Queued> {
        self.inflight
            .into_messages()
            .filter(|(message, begun)| {
                message.share.is_some() && (message.qos == Qos::AtLeastOnce || !begun)
            })
            .map(|(message, _)| message)
    }
}

/// A Session with its connection.
#[derive(Debug)]
pub(crate) struct Session {
    terms: Terms,
    state: SessionState,
    pending: Pending,
    requests: Vec<Request>,
    /// Size of the requests.
    request_bytes: usize,
    next_request: u64,
    /// Tickets of `on_release` that are out.
    releasing: usize,
    /// How many unanswered publishes the plugin wants to see at most.
    credit: usize,
    /// Topic aliases that the client has set, from 1.
    aliases: Vec<Option<ByteString>>,
    /// Topic aliases that the client has been told.
    aliases_out: Aliases,
    /// Deliveries that the plugin gave beyond the room that it was told.
    held: VecDeque<Delivery>,
    outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
    authentication: Turn,
    last_input: Instant,
    tally: Tally,
}

/// What the session has dropped since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) too_large: usize,
    pub(crate) expired: usize,
}

/// What is left when the connection has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) state: SessionState,
    /// Unacknowledged deliveries of the plugin.
    pub(crate) inflight: Vec<(PacketId, DeliveryRef)>,
    /// Seconds that the session lives on.
    pub(crate) session_expiry: u32,
}

impl Session {
    /// A session on a connection whose CONNECT has just been accepted.
    pub(crate) fn new(terms: Terms, mut state: SessionState, now: Instant) -> Self {
        state.inflight.connect();
        let aliases_out = Aliases::new(terms.topic_alias_out_max);
        Self {
            terms,
            state,
            pending: Pending::default(),
            requests: Vec::new(),
            request_bytes: 0,
            next_request: 0,
            releasing: 0,
            credit: usize::MAX,
            aliases: Vec::new(),
            aliases_out,
            held: VecDeque::new(),
            outcomes: Vec::new(),
            authentication: Turn::default(),
            last_input: now,
            tally: Tally::default(),
        }
    }

    /// Reserves identifiers for what the plugin brought back; those that are taken are not delivered again under them.
    pub(crate) fn restore(&mut self, inflight: Vec<(PacketId, DeliveryRef)>) {
        for (packet_id, reference) in inflight {
            self.state.inflight.reserve(packet_id, reference);
        }
    }

    /// Handles one packet of the client.
    ///
    /// # Errors
    /// The rule that the client broke: the connection must be closed.
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        packet: Packet,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        self.last_input = now;
        match packet {
            Packet::Publish(publish) => {
                self.handle_publish(publish, None, out)?;
            }
            Packet::PubAck(ack) => self.handle_puback(&ack, out)?,
            Packet::PubRec(ack) => self.handle_pubrec(&ack, out)?,
            Packet::PubRel(ack) => self.handle_pubrel(&ack, out)?,
            Packet::PubComp(ack) => self.handle_pubcomp(&ack, out)?,
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(unsubscribe, out),
            Packet::PingReq => out.push(Action::Send(Box::new(Packet::PingResp))),
            Packet::Disconnect(disconnect) => self.handle_disconnect(&disconnect, out)?,
            Packet::Connect(_) => return Err(ProtocolError::SecondConnect),
            Packet::Auth(auth) => self.handle_auth(auth, out)?,
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(ProtocolError::ServerPacket);
            }
        }
        Ok(())
    }

    /// Handles a publish that is one too many: if it is an ordinary one it is answered with this refusal. Returns whether
    /// it was.
    ///
    /// # Errors
    /// As for `handle_packet`.
    pub(crate) fn handle_excess(
        &mut self,
        now: Instant,
        publish: Publish,
        refusal: PublishAnswer,
        out: &mut Vec<Action>,
    ) -> Result<bool, ProtocolError> {
        self.last_input = now;
        self.handle_publish(publish, Some(refusal), out)
    }

    /// An ordinary publish of the client is routed now. One that never was, because the connection ended before, is routed
    /// when it comes again.
    pub(crate) fn handle_routed(&mut self, publish: &Publish) {
        if let (Qos::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id)
            && let Some(exchange) = self.state.received.exchange_mut(packet_id)
        {
            exchange.routed = true;
        }
    }

    /// Handles the answer of a ticket, or of an action with a number.
    ///
    /// # Errors
    /// The ticket was dropped: the connection must be closed.
    pub(crate) fn handle_answer(
        &mut self,
        number: u64,
        answer: Answer,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        match answer {
            Answer::Published(answer) => {
                self.pending.answer(number, answer);
                self.settle(out);
            }
            Answer::Released(existed) => self.handle_released(number, existed, out),
            Answer::Reasons(reasons) => self.handle_reasons(number, reasons, out)?,
            Answer::Kept => {
                if let Some(packet_id) = u16::try_from(number).ok().and_then(PacketId::new) {
                    self.state.inflight.handle_kept(packet_id);
                }
            }
            Answer::Dropped => return Err(ProtocolError::TicketDropped),
        }
        Ok(())
    }

    /// The plugin says how many unanswered publishes it wants to see.
    pub(crate) fn handle_credit(&mut self, credit: Credit) {
        self.credit = usize::try_from(credit.0).unwrap_or(usize::MAX).max(1);
    }

    /// Sends what has waited to be at rest; then again what an earlier connection left unacknowledged, in its order, as
    /// far as the window and about so many `bytes` allow; then what the plugin gave too much of. Called in each turn.
    pub(crate) fn resume(&mut self, now: Instant, mut bytes: usize, out: &mut Vec<Action>) {
        while bytes > 0
            && let Some(unsent) = self.state.inflight.next_ready()
        {
            bytes = bytes.saturating_sub(unsent.content.bytes());
            let (packet_id, content, dup) = (unsent.packet_id, unsent.content.clone(), unsent.dup);
            self.send_content(now, packet_id, content, dup, out);
        }
        while bytes > 0
            && self.window() > 0
            && let Some(unsent) = self.state.inflight.next_unsent()
        {
            bytes = bytes.saturating_sub(unsent.content.bytes());
            let (packet_id, content, dup) = (unsent.packet_id, unsent.content.clone(), unsent.dup);
            let (asks, waits) = (unsent.asks, unsent.waits);
            if asks {
                keep(packet_id, &content, out);
            }
            if !waits {
                self.send_content(now, packet_id, content, dup, out);
            }
        }
        while self.window() > 0
            && let Some(delivery) = self.held.pop_front()
        {
            self.deliver(delivery, out);
        }
    }

    /// Is there something that `resume` would send, given the bytes?
    pub(crate) fn is_resuming(&self) -> bool {
        let inflight = &self.state.inflight;
        inflight.has_ready() || (self.window() > 0 && inflight.has_unsent())
    }

    /// Sends an ordinary message. The caller took it within `queue_window`.
    pub(crate) fn handle_message(&mut self, now: Instant, message: Queued, out: &mut Vec<Action>) {
        if message.qos == Qos::AtMostOnce {
            if let Some(outgoing) = self.outgoing(now, message, None, false) {
                out.push(Action::Deliver(outgoing));
            }
            return;
        }
        // Judged before it gets an identifier: what is not sent must not be in flight.
        if message.is_expired(now) {
            self.tally.expired += 1;
            out.extend(message.stored.map(|at| Action::Keep(Keep::Settled(at))));
            return;
        }
        let content = Content::Message(message);
        let Some(packet_id) = self.state.inflight.insert(content.clone()) else {
            return;
        };
        keep(packet_id, &content, out);
        if !self.state.inflight.is_last_in_line(packet_id) {
            self.send_content(now, packet_id, content, false, out);
        }
    }

    /// Sends what the plugin gave. What exceeds the window waits.
    pub(crate) fn handle_deliveries(&mut self, deliveries: Vec<Delivery>, out: &mut Vec<Action>) {
        for delivery in deliveries {
            let blocked = delivery.qos != Qos::AtMostOnce && self.window() == 0;
            if blocked || !self.held.is_empty() {
                self.held.push_back(delivery);
            } else {
                self.deliver(delivery, out);
            }
        }
    }

    /// The time has come that `next_timeout` told. While the connection does not read, silence is not the client's.
    ///
    /// # Errors
    /// The client has been silent for too long: the connection must be closed.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        reading: bool,
    ) -> Result<(), ProtocolError> {
        if self.next_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        if reading {
            return Err(ProtocolError::KeepAliveTimeout);
        }
        self.last_input = now;
        Ok(())
    }

    /// When `handle_timeout` is to be called, if nothing comes before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let silence_max: Duration = self.terms.silence_max?;
        self.last_input.checked_add(silence_max)
    }

    /// The connection has ended.
    pub(crate) fn end(mut self) -> Ended {
        // What was accepted and only waited for its turn to be acknowledged must not be accepted again.
        let mut unsent = Vec::new();
        for (due, answer) in std::mem::take(&mut self.pending).into_answered() {
            if let Due::PubRec(packet_id) = due {
                self.settle_qos2(packet_id, answer, None, &mut unsent);
            }
        }
        self.state.received.disconnect();
        let inflight = self.state.inflight.disconnect();
        if self.terms.session_expiry > 0 {
            self.state.inflight.compact(queue::copy);
        }
        Ended {
            state: self.state,
            inflight,
            session_expiry: self.terms.session_expiry,
        }
    }

    /// Is there room for further packets of the client? False while too much is unanswered.
    pub(crate) fn wants_input(&self) -> bool {
        let requests = self.requests.len() + self.releasing;
        self.pending.len() < self.credit
            && self.pending.len() + requests < self.terms.pending_max
            && self.pending.bytes() + self.request_bytes < self.terms.pending_bytes_max
    }

    /// Nothing of the client waits for an answer.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.len() == 0 && self.requests.is_empty() && self.releasing == 0
    }

    /// Free places for deliveries at QoS 1 and 2.
    pub(crate) fn window(&self) -> usize {
        self.terms.window.saturating_sub(self.state.inflight.sent())
    }

    /// Deliveries at QoS 1 and 2 that wait for their acknowledgements.
    pub(crate) const fn inflight(&self) -> usize {
        self.state.inflight.sent()
    }

    /// Takes out what is in flight and over, and was never sent.
    pub(crate) fn take_unbegun(&mut self, over: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        self.state.inflight.take_unbegun(over)
    }

    /// Free places for ordinary messages at QoS 1 and 2: none while too many bytes are in flight, or what is to be sent
    /// again is not yet.
    pub(crate) fn queue_window(&self) -> usize {
        if self.queue_bytes() == 0 || self.state.inflight.has_unsent() {
            0
        } else {
            self.window()
        }
    }

    /// How many bytes of ordinary messages may still be in flight.
    pub(crate) fn queue_bytes(&self) -> usize {
        self.state.inflight.room(self.terms.inflight_bytes_max)
    }

    /// The plugin gave more than it was told: nothing is to be pulled.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Is it at rest, with its messages and exchanges?
    pub(crate) const fn is_durable(&self) -> bool {
        self.terms.durable
    }

    pub(crate) const fn version(&self) -> Version {
        self.terms.version
    }

    /// Outcomes of the plugin's deliveries since the last call.
    pub(crate) fn take_outcomes(&mut self) -> Vec<(DeliveryRef, DeliveryOutcome)> {
        std::mem::take(&mut self.outcomes)
    }

    /// What was dropped since the last call.
    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// May a packet of this many bytes be sent to the client [MQTT-3.1.2-24]?
    pub(crate) fn fits(&self, bytes: impl FnOnce() -> usize) -> bool {
        self.terms
            .packet_bytes_max
            .is_none_or(|max| bytes() as u64 <= u64::from(max))
    }

    fn send_content(
        &mut self,
        now: Instant,
        packet_id: PacketId,
        content: Content,
        dup: bool,
        out: &mut Vec<Action>,
    ) {
        match content {
            Content::Released(_) => {
                let ack = Ack::success(packet_id);
                out.push(Action::SendAck(AckKind::PubRel, ack, None));
            }
            Content::Message(message) => self.send_message(now, packet_id, message, dup, out),
            Content::Plugin(_) => {}
        }
    }

    /// A delivery is over: its identifier is free, and nothing of it stays at rest.
    fn finish(&mut self, packet_id: PacketId, out: &mut Vec<Action>) {
        let content = self.state.inflight.remove(packet_id);
        let stored = content.and_then(|content| content.stored());
        out.extend(stored.map(|at| Action::Keep(Keep::Settled(at))));
    }

    fn belongs_to_plugin(&self, topic: &str) -> bool {
        crate::acl::is_below(self.terms.root, topic)
    }
}

/// Notes how far a delivery of a message at rest has come.
fn keep(packet_id: PacketId, content: &Content, out: &mut Vec<Action>) {
    let Some(at) = content.stored() else { return };
    match content {
        Content::Message(message) => {
            let message = Box::new(message.clone());
            out.push(Action::Keep(Keep::Sent(message, at, packet_id)));
        }
        Content::Released(_) => out.push(Action::Keep(Keep::Released(at, packet_id))),
        Content::Plugin(_) => {}
    }
}
