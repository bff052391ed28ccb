//! Publishes from the client: flow control, aliases, duplicates, and the order of acknowledgements; and its goodbye.

use std::sync::Arc;

use bytestring::ByteString;

use super::received::{Came, Due, Owner, Step};
use super::{AckKind, Action, ProtocolError, Session, queue};
use crate::codec::encode::encoded_len;
use crate::codec::packet::{Ack, Disconnect, PacketId, Publish, Qos, Version};
use crate::codec::reason::ReasonCode;
use crate::hooks::PublishAnswer;

impl Session {
    /// With a refusal an ordinary publish goes no further. Returns whether it was refused.
    pub(super) fn handle_publish(
        &mut self,
        mut publish: Publish,
        refusal: Option<PublishAnswer>,
        out: &mut Vec<Action>,
    ) -> Result<bool, ProtocolError> {
        self.resolve_alias(&mut publish)?;
        let plugin = self.belongs_to_plugin(&publish.topic);
        let owner = if plugin { Owner::Plugin } else { Owner::Broker };
        let due = match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(packet_id)) => {
                self.check_quota()?;
                Due::PubAck(packet_id)
            }
            (Qos::ExactlyOnce, Some(packet_id)) => {
                if self.handle_duplicate(packet_id, out)? {
                    return Ok(false);
                }
                self.check_quota()?;
                self.state.received.begin(packet_id, owner);
                Due::PubRec(packet_id)
            }
            _ => Due::Nothing,
        };
        let came = self.came(owner);
        let number = self.pending.push(due, queue::size(&publish), came);
        match refusal {
            _ if plugin => hand_over(publish, number, out),
            None => out.push(Action::Route(Arc::new(publish), number)),
            Some(refusal) => {
                self.pending.answer(number, refusal);
                self.settle(out);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Replaces an alias by its topic, or remembers it (MQTT 5.0 §3.3.2.3.4).
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), ProtocolError> {
        let properties = publish.properties.as_mut();
        let Some(alias) = properties.and_then(|properties| properties.topic_alias.take()) else {
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
        let came = self.came(Owner::Broker);
        let Some(exchange) = self.state.received.exchange_mut(packet_id) else {
            return Ok(false);
        };
        match &exchange.step {
            Step::Published => {}
            // Routed on an earlier connection, which ended before this was at rest: it has to be, before PUBREC.
            Step::Answered(_) if !exchange.at_rest => {
                exchange.step = Step::Published;
                let number = self.pending.push(Due::PubRec(packet_id), 0, came);
                out.push(Action::Accept(packet_id, number));
            }
            Step::Answered(ack) => {
                out.push(Action::SendAck(AckKind::PubRec, ack.clone(), None));
            }
            Step::Releasing(_) => {
                return Err(ProtocolError::PacketIdInUse {
                    packet_id: packet_id.get(),
                });
            }
        }
        Ok(true)
    }

    /// Sends the acknowledgements of all answered publishes that no unanswered one precedes.
    pub(super) fn settle(&mut self, out: &mut Vec<Action>) {
        while let Some((due, mut answer, came)) = self.pending.pop() {
            if let Some(notice) = answer.notice.take() {
                self.send_notice(*notice, out);
            }
            match due {
                Due::Nothing => {}
                Due::PubAck(packet_id) => {
                    let ack = self.ack(AckKind::PubAck, packet_id, answer);
                    out.push(Action::SendAck(AckKind::PubAck, ack, Some(came)));
                }
                Due::PubRec(packet_id) => self.settle_qos2(packet_id, answer, Some(came), out),
            }
        }
    }

    pub(super) fn settle_qos2(
        &mut self,
        packet_id: PacketId,
        answer: PublishAnswer,
        came: Option<Came>,
        out: &mut Vec<Action>,
    ) {
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
            exchange.at_rest = true;
        }
        out.push(Action::SendAck(AckKind::PubRec, ack, came));
    }

    /// A publish of the packet that is being handled.
    const fn came(&self, owner: Owner) -> Came {
        Came {
            at: self.last_input,
            owner,
        }
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

    pub(super) fn handle_pubrel(
        &mut self,
        ack: &Ack,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
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
        match exchange.owner {
            Owner::Broker if !self.terms.durable => {
                self.complete(packet_id, ReasonCode::Success, out);
            }
            Owner::Broker => {
                exchange.step = Step::Releasing(answered);
                self.releasing += 1;
                out.push(Action::Forget(packet_id, packet_id.get().into()));
            }
            Owner::Plugin | Owner::Unknown => {
                exchange.step = Step::Releasing(answered);
                self.release(packet_id, out);
            }
        }
        Ok(())
    }

    fn release(&mut self, packet_id: PacketId, out: &mut Vec<Action>) {
        self.releasing += 1;
        out.push(Action::Release(packet_id, packet_id.get().into()));
    }

    /// The number of a release is its Packet Identifier: there is one release at most for each.
    pub(super) fn handle_released(&mut self, number: u64, existed: bool, out: &mut Vec<Action>) {
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
        out.push(Action::SendAck(AckKind::PubComp, ack, None));
    }

    pub(super) fn handle_disconnect(
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

/// Publishes in a row cross the seam together.
fn hand_over(publish: Publish, number: u64, out: &mut Vec<Action>) {
    match out.last_mut() {
        Some(Action::HandOver(batch)) => batch.push((publish, number)),
        _ => out.push(Action::HandOver(vec![(publish, number)])),
    }
}
