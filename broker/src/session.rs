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
mod error;
mod inflight;
pub(crate) mod queue;
mod received;
mod terms;
#[cfg(test)]
mod tests;
pub(crate) mod will;

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

pub(crate) use self::action::{AckKind, Action, Outgoing, Subscribing};
pub(crate) use self::error::ProtocolError;
use self::inflight::{Content, Inflight, Message};
use self::queue::Queued;
use self::received::{Due, Owner, Pending, Received, Step};
pub(crate) use self::terms::Terms;
use crate::codec::encode::{PublishHead, encoded_len, publish_len};
use crate::codec::packet::{
    Ack, Disconnect, Packet, PacketId, Publish, Qos, SubAck, Subscribe, SubscribeFilter, UnsubAck,
    Unsubscribe, Version,
};
use crate::codec::properties::AckProperties;
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::hooks::{Credit, Delivery, DeliveryOutcome, DeliveryRef, PublishAnswer};
use crate::mailbox::Answer;

/// What a Session keeps while its client is away (MQTT 5.0 §4.1), subscriptions and queue aside.
#[derive(Debug, Default)]
pub(crate) struct SessionState {
    inflight: Inflight,
    received: Received,
}

/// A Session with its connection.
#[derive(Debug)]
pub(crate) struct Session {
    terms: Terms,
    state: SessionState,
    pending: Pending,
    requests: Vec<Request>,
    next_request: u64,
    /// Tickets of `on_release` that are out.
    releasing: usize,
    /// How many unanswered publishes the plugin wants to see at most.
    credit: usize,
    /// Topic aliases that the client has set, from 1.
    aliases: Vec<Option<ByteString>>,
    /// Deliveries that the plugin gave beyond the room that it was told.
    held: VecDeque<Delivery>,
    outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
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

/// A SUBSCRIBE or UNSUBSCRIBE that waits for Reason Codes.
#[derive(Debug)]
struct Request {
    number: u64,
    packet_id: PacketId,
    subscribe: bool,
    /// Per filter: does it belong to the plugin, and its Reason Code when known.
    reasons: Vec<(bool, Option<ReasonCode>)>,
}

impl Session {
    /// A session on a connection whose CONNECT has just been accepted.
    pub(crate) fn new(terms: Terms, state: SessionState, now: Instant) -> Self {
        Self {
            terms,
            state,
            pending: Pending::default(),
            requests: Vec::new(),
            next_request: 0,
            releasing: 0,
            credit: usize::MAX,
            aliases: Vec::new(),
            held: VecDeque::new(),
            outcomes: Vec::new(),
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
            Packet::Publish(publish) => self.handle_publish(publish, out)?,
            Packet::PubAck(ack) => self.handle_puback(&ack)?,
            Packet::PubRec(ack) => self.handle_pubrec(&ack, out)?,
            Packet::PubRel(ack) => self.handle_pubrel(&ack, out)?,
            Packet::PubComp(ack) => self.handle_pubcomp(&ack)?,
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(unsubscribe, out),
            Packet::PingReq => out.push(Action::Send(Box::new(Packet::PingResp))),
            Packet::Disconnect(disconnect) => self.handle_disconnect(&disconnect, out)?,
            Packet::Connect(_) => return Err(ProtocolError::SecondConnect),
            Packet::Auth(_) => return Err(ProtocolError::UnexpectedAuth),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(ProtocolError::ServerPacket);
            }
        }
        Ok(())
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
            Answer::Reasons(reasons) => self.handle_reasons(number, reasons, out),
            Answer::Dropped => return Err(ProtocolError::TicketDropped),
        }
        Ok(())
    }

    /// The plugin says how many unanswered publishes it wants to see.
    pub(crate) fn handle_credit(&mut self, credit: Credit) {
        self.credit = usize::try_from(credit.0).unwrap_or(usize::MAX).max(1);
    }

    /// Sends again what an earlier connection left unacknowledged, in its order, as far as the window allows; then what
    /// the plugin gave too much of. Called first on a connection, and when acknowledgements have made room.
    pub(crate) fn resume(&mut self, now: Instant, out: &mut Vec<Action>) {
        while self.window() > 0
            && let Some((packet_id, content)) = self.state.inflight.next_unsent()
        {
            match content.clone() {
                Content::Released => {
                    out.push(Action::SendAck(AckKind::PubRel, Ack::success(packet_id)));
                }
                Content::Message(message) => self.send_message(now, packet_id, message, true, out),
                Content::Plugin(_) => {}
            }
        }
        while self.window() > 0
            && let Some(delivery) = self.held.pop_front()
        {
            self.deliver(delivery, out);
        }
    }

    /// Sends an ordinary message. The caller took it within `window`.
    pub(crate) fn handle_message(&mut self, now: Instant, queued: Queued, out: &mut Vec<Action>) {
        let message = Message {
            publish: queued.publish,
            expires_at: queued.expires_at,
            qos: queued.qos,
            retain: queued.retain,
            subscription_identifiers: queued.subscription_identifiers,
        };
        if message.qos == Qos::AtMostOnce {
            if let Some(outgoing) = self.outgoing(now, message, None, false) {
                out.push(Action::Deliver(outgoing));
            }
            return;
        }
        // Judged before it gets an identifier: what is not sent must not be in flight.
        if message.is_expired(now) {
            self.tally.expired += 1;
            return;
        }
        let content = Content::Message(message.clone());
        if let Some(packet_id) = self.state.inflight.insert(content) {
            self.send_message(now, packet_id, message, false, out);
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
                self.settle_qos2(packet_id, answer, &mut unsent);
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
        self.pending.len() < self.credit && self.pending.len() + requests < self.terms.pending_max
    }

    /// Nothing of the client waits for an answer.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.len() == 0 && self.requests.is_empty() && self.releasing == 0
    }

    /// Free places for deliveries at QoS 1 and 2.
    pub(crate) fn window(&self) -> usize {
        self.terms.window.saturating_sub(self.state.inflight.sent())
    }

    /// The plugin gave more than it was told: nothing is to be pulled.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
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

    fn belongs_to_plugin(&self, topic: &str) -> bool {
        crate::acl::is_below(self.terms.root, topic)
    }
}

// From the client.
impl Session {
    fn handle_publish(
        &mut self,
        mut publish: Publish,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        self.resolve_alias(&mut publish)?;
        let plugin = self.belongs_to_plugin(&publish.topic);
        let due = match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(packet_id)) => {
                self.check_quota()?;
                Due::PubAck(packet_id)
            }
            (Qos::ExactlyOnce, Some(packet_id)) => {
                if self.handle_duplicate(packet_id, out)? {
                    return Ok(());
                }
                self.check_quota()?;
                let owner = if plugin { Owner::Plugin } else { Owner::Broker };
                self.state.received.begin(packet_id, owner);
                Due::PubRec(packet_id)
            }
            _ => Due::Nothing,
        };
        let number = self.pending.push(due);
        if plugin {
            hand_over(publish, number, out);
        } else {
            out.push(Action::Route(Arc::new(publish), number));
        }
        Ok(())
    }

    /// Replaces an alias by its topic, or remembers it (MQTT 5.0 §3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), ProtocolError> {
        let Some(alias) = publish.properties.topic_alias.take() else {
            return if publish.topic.is_empty() {
                Err(ProtocolError::NoTopic)
            } else {
                Ok(())
            };
        };
        let limit = self.terms.topic_alias_maximum;
        if alias == 0 || alias > limit {
            return Err(ProtocolError::TopicAliasInvalid { alias, limit });
        }
        let place = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            let known = self.aliases.get(place).and_then(Option::as_ref);
            publish.topic = known
                .ok_or(ProtocolError::TopicAliasUnknown { alias })?
                .clone();
            return Ok(());
        }
        if self.aliases.len() <= place {
            self.aliases.resize(place + 1, None);
        }
        if let Some(known) = self.aliases.get_mut(place) {
            // In memory of its own: the packet's topic holds on to a whole buffer.
            *known = Some(ByteString::from(&*publish.topic));
        }
        Ok(())
    }

    /// The Receive Maximum of the server [MQTT-3.3.4-9]; 3.1.1 has none.
    fn check_quota(&self) -> Result<(), ProtocolError> {
        let limit = self.terms.receive_maximum;
        let used = self.pending.qos1() + self.state.received.counted();
        if self.terms.version == Version::V5 && used >= limit {
            return Err(ProtocolError::ReceiveMaximumExceeded { limit });
        }
        Ok(())
    }

    /// A QoS 2 publish whose exchange is not over is not accepted twice [MQTT-4.3.3-10].
    fn handle_duplicate(
        &mut self,
        packet_id: PacketId,
        out: &mut Vec<Action>,
    ) -> Result<bool, ProtocolError> {
        let Some(exchange) = self.state.received.exchange_mut(packet_id) else {
            return Ok(false);
        };
        match &exchange.step {
            Step::Published => {}
            Step::Answered(ack) => out.push(Action::SendAck(AckKind::PubRec, ack.clone())),
            Step::Releasing(_) => {
                return Err(ProtocolError::PacketIdInUse {
                    packet_id: packet_id.get(),
                });
            }
        }
        Ok(true)
    }

    /// Sends the acknowledgements of all answered publishes that no unanswered one precedes.
    fn settle(&mut self, out: &mut Vec<Action>) {
        while let Some((due, mut answer)) = self.pending.pop() {
            if let Some(notice) = answer.notice.take() {
                self.send_notice(*notice, out);
            }
            match due {
                Due::Nothing => {}
                Due::PubAck(packet_id) => {
                    let ack = self.ack(AckKind::PubAck, packet_id, answer);
                    out.push(Action::SendAck(AckKind::PubAck, ack));
                }
                Due::PubRec(packet_id) => self.settle_qos2(packet_id, answer, out),
            }
        }
    }

    fn send_notice(&mut self, notice: Publish, out: &mut Vec<Action>) {
        let outgoing = Outgoing {
            subscription_identifiers: notice.properties.subscription_identifiers.clone(),
            publish: Arc::new(notice),
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            packet_id: None,
        };
        if self.fits(|| publish_len(&outgoing.publish, &outgoing.head(), self.terms.version)) {
            out.push(Action::Deliver(outgoing));
        } else {
            self.tally.too_large += 1;
        }
    }

    fn settle_qos2(&mut self, packet_id: PacketId, answer: PublishAnswer, out: &mut Vec<Action>) {
        let refused = answer.reason.is_error();
        let ack = self.ack(AckKind::PubRec, packet_id, answer);
        if refused && self.terms.version == Version::V5 {
            self.state.received.end(packet_id);
        } else if let Some(exchange) = self.state.received.exchange_mut(packet_id) {
            if refused {
                // 3.1.1 cannot tell: the exchange goes on, and nobody knows of it but us.
                exchange.owner = Owner::Broker;
            }
            exchange.step = Step::Answered(ack.clone());
        }
        out.push(Action::SendAck(AckKind::PubRec, ack));
    }

    fn ack(&self, kind: AckKind, packet_id: PacketId, answer: PublishAnswer) -> Ack {
        if self.terms.version == Version::V311 {
            return Ack::success(packet_id);
        }
        let mut ack = Ack {
            packet_id,
            reason: answer.reason,
            properties: answer.properties,
        };
        if ack.properties.is_some() {
            let len = || encoded_len(&kind.packet(ack.clone()), Version::V5);
            if !self.terms.problem_information || !self.fits(len) {
                ack.properties = None;
            }
        }
        ack
    }

    fn handle_pubrel(&mut self, ack: &Ack, out: &mut Vec<Action>) -> Result<(), ProtocolError> {
        let packet_id = ack.packet_id;
        let Some(exchange) = self.state.received.exchange_mut(packet_id) else {
            self.state.received.begin_unknown(packet_id);
            self.release(packet_id, out);
            return Ok(());
        };
        let answered = match &exchange.step {
            Step::Published => {
                return Err(ProtocolError::WrongAck {
                    packet_id: packet_id.get(),
                });
            }
            Step::Releasing(_) => return Ok(()),
            Step::Answered(ack) => ack.clone(),
        };
        if exchange.owner == Owner::Broker {
            self.complete(packet_id, ReasonCode::Success, out);
        } else {
            exchange.step = Step::Releasing(answered);
            self.release(packet_id, out);
        }
        Ok(())
    }

    fn release(&mut self, packet_id: PacketId, out: &mut Vec<Action>) {
        self.releasing += 1;
        out.push(Action::Release(packet_id, packet_id.get().into()));
    }

    /// The number of a release is its Packet Identifier: there is one release at most for each.
    fn handle_released(&mut self, number: u64, existed: bool, out: &mut Vec<Action>) {
        let packet_id = u16::try_from(number).ok().and_then(PacketId::new);
        let Some(packet_id) = packet_id else { return };
        let Some(exchange) = self.state.received.exchange_mut(packet_id) else {
            return;
        };
        if !matches!(exchange.step, Step::Releasing(_)) {
            return;
        }
        let known = existed || exchange.owner != Owner::Unknown;
        let reason = if known || self.terms.version == Version::V311 {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.releasing -= 1;
        self.complete(packet_id, reason, out);
    }

    fn complete(&mut self, packet_id: PacketId, reason: ReasonCode, out: &mut Vec<Action>) {
        self.state.received.end(packet_id);
        let ack = Ack {
            packet_id,
            reason,
            properties: None,
        };
        out.push(Action::SendAck(AckKind::PubComp, ack));
    }

    fn handle_subscribe(&mut self, subscribe: Subscribe, out: &mut Vec<Action>) {
        let plugin = |wanted: &SubscribeFilter| {
            crate::acl::is_below(self.terms.root, wanted.filter.split_share().1)
        };
        let owners = subscribe.filters.iter().map(plugin).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = subscribe.filters.into_iter().partition(plugin);
        let number = self.open_request(subscribe.packet_id, true, owners);
        let identifier = subscribe.properties.subscription_identifier;
        let part = |filters| Subscribing {
            filters,
            identifier,
            number,
        };
        if !theirs.is_empty() {
            out.push(Action::SubscribePlugin(part(theirs)));
        }
        if !ours.is_empty() {
            out.push(Action::Subscribe(Subscribing {
                number: number | ORDINARY_PART,
                ..part(ours)
            }));
        }
    }

    fn handle_unsubscribe(&mut self, unsubscribe: Unsubscribe, out: &mut Vec<Action>) {
        let plugin =
            |filter: &TopicFilter| crate::acl::is_below(self.terms.root, filter.split_share().1);
        let owners = unsubscribe.filters.iter().map(plugin).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = unsubscribe.filters.into_iter().partition(plugin);
        let number = self.open_request(unsubscribe.packet_id, false, owners);
        if !theirs.is_empty() {
            out.push(Action::UnsubscribePlugin(theirs, number));
        }
        if !ours.is_empty() {
            out.push(Action::Unsubscribe(ours, number | ORDINARY_PART));
        }
    }

    fn open_request(&mut self, packet_id: PacketId, subscribe: bool, plugin: Vec<bool>) -> u64 {
        let number = self.next_request;
        self.next_request += 2;
        self.requests.push(Request {
            number,
            packet_id,
            subscribe,
            reasons: plugin.into_iter().map(|plugin| (plugin, None)).collect(),
        });
        number
    }

    fn handle_reasons(&mut self, number: u64, reasons: Vec<ReasonCode>, out: &mut Vec<Action>) {
        let ordinary = number & ORDINARY_PART != 0;
        let number = number & !ORDINARY_PART;
        let Some(place) = self.requests.iter().position(|it| it.number == number) else {
            return;
        };
        let Some(request) = self.requests.get_mut(place) else {
            return;
        };
        let mut reasons = reasons.into_iter();
        for (plugin, reason) in &mut request.reasons {
            if *plugin != ordinary {
                *reason = Some(reasons.next().unwrap_or(ReasonCode::UnspecifiedError));
            }
        }
        let Some(reasons) = request.reasons.iter().map(|(_, reason)| *reason).collect() else {
            return;
        };
        let request = self.requests.swap_remove(place);
        let (packet_id, properties) = (request.packet_id, AckProperties::default());
        out.push(Action::Send(Box::new(if request.subscribe {
            Packet::SubAck(SubAck {
                packet_id,
                reasons,
                properties,
            })
        } else {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                reasons,
                properties,
            })
        })));
    }

    fn handle_disconnect(
        &mut self,
        disconnect: &Disconnect,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        if let Some(expiry) = disconnect.properties.session_expiry_interval {
            if self.terms.session_expiry == 0 && expiry != 0 {
                return Err(ProtocolError::SessionExpiryRaised);
            }
            self.terms.session_expiry = expiry.min(self.terms.session_expiry_max);
        }
        out.push(Action::Disconnect {
            publish_will: disconnect.reason != ReasonCode::Success,
        });
        Ok(())
    }
}

// To the client.
impl Session {
    fn handle_puback(&mut self, ack: &Ack) -> Result<(), ProtocolError> {
        match self.state.inflight.content(ack.packet_id) {
            Some(Content::Plugin(reference)) => {
                let outcome = if ack.reason.is_error() {
                    DeliveryOutcome::Refused(ack.reason)
                } else {
                    DeliveryOutcome::Acknowledged
                };
                self.outcomes.push((*reference, outcome));
            }
            Some(Content::Message(message)) if message.qos == Qos::AtLeastOnce => {}
            Some(_) => return Err(wrong_ack(ack.packet_id)),
            // Of an exchange that an earlier connection has ended: nothing to do.
            None => return Ok(()),
        }
        self.state.inflight.remove(ack.packet_id);
        Ok(())
    }

    fn handle_pubrec(&mut self, ack: &Ack, out: &mut Vec<Action>) -> Result<(), ProtocolError> {
        let packet_id = ack.packet_id;
        let reason = match self.state.inflight.content(packet_id) {
            Some(Content::Message(message)) if message.qos == Qos::ExactlyOnce => {
                if ack.reason.is_error() {
                    self.state.inflight.remove(packet_id);
                    return Ok(());
                }
                self.state.inflight.release(packet_id);
                ReasonCode::Success
            }
            Some(Content::Released) => ReasonCode::Success,
            Some(_) => return Err(wrong_ack(packet_id)),
            None if ack.reason.is_error() => return Ok(()),
            None if self.terms.version == Version::V311 => ReasonCode::Success,
            None => ReasonCode::PacketIdentifierNotFound,
        };
        let release = Ack {
            packet_id,
            reason,
            properties: None,
        };
        out.push(Action::SendAck(AckKind::PubRel, release));
        Ok(())
    }

    fn handle_pubcomp(&mut self, ack: &Ack) -> Result<(), ProtocolError> {
        match self.state.inflight.content(ack.packet_id) {
            Some(Content::Released) => {
                self.state.inflight.remove(ack.packet_id);
                Ok(())
            }
            Some(_) => Err(wrong_ack(ack.packet_id)),
            None => Ok(()),
        }
    }

    fn send_message(
        &mut self,
        now: Instant,
        packet_id: PacketId,
        message: Message,
        dup: bool,
        out: &mut Vec<Action>,
    ) {
        match self.outgoing(now, message, Some(packet_id), dup) {
            Some(outgoing) => out.push(Action::Deliver(outgoing)),
            None => {
                self.state.inflight.remove(packet_id);
            }
        }
    }

    /// The PUBLISH for an ordinary message; `None` if it has expired or is too large for the client.
    fn outgoing(
        &mut self,
        now: Instant,
        message: Message,
        packet_id: Option<PacketId>,
        dup: bool,
    ) -> Option<Outgoing> {
        // One that may be with the client already is sent again all the same, to end its exchange.
        if message.is_expired(now) && !dup {
            self.tally.expired += 1;
            return None;
        }
        let mut publish = message.publish;
        if let Some(at) = message.expires_at {
            // The receiver gets what is left of the lifetime [MQTT-3.3.2-6].
            let left = at.saturating_duration_since(now).as_secs_f64().ceil();
            let mut aged = Publish::clone(&publish);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at most the u32 that it was made of"
            )]
            let left = left as u32;
            aged.properties.message_expiry_interval = Some(left);
            publish = Arc::new(aged);
        }
        let outgoing = Outgoing {
            publish,
            dup,
            qos: message.qos,
            retain: message.retain,
            packet_id,
            subscription_identifiers: message.subscription_identifiers,
        };
        if self.fits(|| publish_len(&outgoing.publish, &outgoing.head(), self.terms.version)) {
            return Some(outgoing);
        }
        self.tally.too_large += 1;
        None
    }

    fn deliver(&mut self, delivery: Delivery, out: &mut Vec<Action>) {
        let at_most_once = delivery.qos == Qos::AtMostOnce;
        let mut outgoing = Outgoing {
            publish: delivery.message,
            dup: delivery.resend.is_some() && !at_most_once,
            qos: delivery.qos.min(Qos::AtLeastOnce),
            retain: delivery.retain,
            // Any identifier has the same length.
            packet_id: (!at_most_once).then_some(PacketId(NonZeroU16::MIN)),
            subscription_identifiers: delivery.subscription_identifiers,
        };
        let reference = delivery.reference;
        if !self.fits(|| publish_len(&outgoing.publish, &outgoing.head(), self.terms.version)) {
            if let Some(packet_id) = delivery.resend {
                self.state.inflight.remove(packet_id);
            }
            self.tally.too_large += 1;
            self.outcomes.push((reference, DeliveryOutcome::TooLarge));
            return;
        }
        if at_most_once {
            self.outcomes.push((reference, DeliveryOutcome::HandedOver));
        } else {
            let resent = delivery
                .resend
                .filter(|packet_id| self.state.inflight.resend(*packet_id, reference));
            outgoing.dup = resent.is_some();
            outgoing.packet_id =
                resent.or_else(|| self.state.inflight.insert(Content::Plugin(reference)));
            if outgoing.packet_id.is_none() {
                return;
            }
        }
        out.push(Action::Deliver(outgoing));
    }
}

impl Message {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl Outgoing {
    /// What differs from the shared publish.
    pub(crate) fn head(&self) -> PublishHead<'_> {
        PublishHead {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            packet_id: self.packet_id,
            topic_alias: None,
            subscription_identifiers: &self.subscription_identifiers,
        }
    }
}

/// Publishes in a row cross the seam together.
fn hand_over(publish: Publish, number: u64, out: &mut Vec<Action>) {
    match out.last_mut() {
        Some(Action::HandOver(batch)) => batch.push((publish, number)),
        _ => out.push(Action::HandOver(vec![(publish, number)])),
    }
}

const fn wrong_ack(packet_id: PacketId) -> ProtocolError {
    ProtocolError::WrongAck {
        packet_id: packet_id.get(),
    }
}

/// Set in the number of the part of a request that the router answers; request numbers are even.
const ORDINARY_PART: u64 = 1;
