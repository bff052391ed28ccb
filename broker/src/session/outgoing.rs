//! Publishes to the client: identifiers, the window, what does not fit, and the client's acknowledgements.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use super::inflight::Content;
use super::queue::Queued;
use super::{AckKind, Action, Keep, Outgoing, ProtocolError, Session};
use crate::codec::encode::{PublishHead, publish_len};
use crate::codec::packet::{Ack, PacketId, Publish, Qos, Version};
use crate::codec::reason::ReasonCode;
use crate::hooks::{Delivery, DeliveryOutcome};

impl Session {
    pub(super) fn handle_puback(
        &mut self,
        ack: &Ack,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
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
        self.finish(ack.packet_id, out);
        Ok(())
    }

    pub(super) fn handle_pubrec(
        &mut self,
        ack: &Ack,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        let packet_id = ack.packet_id;
        let reason = match self.state.inflight.content(packet_id) {
            Some(Content::Message(message)) if message.qos == Qos::ExactlyOnce => {
                if ack.reason.is_error() {
                    self.finish(packet_id, out);
                    return Ok(());
                }
                if let Some(at) = self.state.inflight.release(packet_id) {
                    out.push(Action::Keep(Keep::Released(at, packet_id)));
                }
                ReasonCode::Success
            }
            Some(Content::Released(_)) => ReasonCode::Success,
            Some(_) => return Err(wrong_ack(packet_id)),
            None if ack.reason.is_error() => return Ok(()),
            None if self.terms.version == Version::V311 => ReasonCode::Success,
            None => ReasonCode::PacketIdentifierNotFound,
        };
        if self.state.inflight.waits(packet_id) {
            return Ok(());
        }
        let release = Ack {
            packet_id,
            reason,
            properties: None,
        };
        out.push(Action::SendAck(AckKind::PubRel, release, None));
        Ok(())
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        ack: &Ack,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        match self.state.inflight.content(ack.packet_id) {
            Some(Content::Released(_)) => {
                self.finish(ack.packet_id, out);
                Ok(())
            }
            Some(_) => Err(wrong_ack(ack.packet_id)),
            None => Ok(()),
        }
    }

    pub(super) fn send_message(
        &mut self,
        now: Instant,
        packet_id: PacketId,
        message: Queued,
        dup: bool,
        out: &mut Vec<Action>,
    ) {
        match self.outgoing(now, message, Some(packet_id), dup) {
            Some(outgoing) => {
                self.state.inflight.begin(packet_id);
                out.push(Action::Deliver(outgoing));
            }
            None => self.finish(packet_id, out),
        }
    }

    /// The PUBLISH for an ordinary message; `None` if it has expired or is too large for the client.
    pub(super) fn outgoing(
        &mut self,
        now: Instant,
        message: Queued,
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
            topic_alias: None,
            subscription_identifiers: message.subscription_identifiers,
        };
        if self.fits(|| publish_len(&outgoing.publish, &outgoing.head(), self.terms.version)) {
            return Some(self.aliased(outgoing));
        }
        self.tally.too_large += 1;
        None
    }

    /// Gives a Topic Alias to what is about to be sent, unless the packet would become too large by it. What is sent again
    /// has none.
    fn aliased(&mut self, mut outgoing: Outgoing) -> Outgoing {
        let bytes = || publish_len(&outgoing.publish, &outgoing.head(), self.terms.version);
        let allowed = self.terms.topic_alias_out_max > 0 && !outgoing.dup;
        if allowed && self.fits(|| bytes() + ALIAS_BYTES) {
            outgoing.topic_alias = self.aliases_out.assign(&outgoing.publish.topic);
        }
        outgoing
    }

    pub(super) fn deliver(&mut self, delivery: Delivery, out: &mut Vec<Action>) {
        let at_most_once = delivery.qos == Qos::AtMostOnce;
        let mut outgoing = Outgoing {
            publish: delivery.message,
            dup: delivery.resend.is_some() && !at_most_once,
            qos: delivery.qos.min(Qos::AtLeastOnce),
            retain: delivery.retain,
            // Any identifier has the same length.
            packet_id: (!at_most_once).then_some(PacketId(NonZeroU16::MIN)),
            topic_alias: None,
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
        out.push(Action::Deliver(self.aliased(outgoing)));
    }

    pub(super) fn send_notice(&mut self, notice: Publish, out: &mut Vec<Action>) {
        let outgoing = Outgoing {
            subscription_identifiers: notice.properties.subscription_identifiers.clone(),
            publish: Arc::new(notice),
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            packet_id: None,
            topic_alias: None,
        };
        if self.fits(|| publish_len(&outgoing.publish, &outgoing.head(), self.terms.version)) {
            out.push(Action::Deliver(outgoing));
        } else {
            self.tally.too_large += 1;
        }
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
            topic_alias: self.topic_alias.map(|alias| alias.number),
            omit_topic: self.topic_alias.is_some_and(|alias| alias.established),
            subscription_identifiers: &self.subscription_identifiers,
        }
    }
}

const fn wrong_ack(packet_id: PacketId) -> ProtocolError {
    ProtocolError::WrongAck {
        packet_id: packet_id.get(),
    }
}

/// What an alias adds at most: the property itself, and a byte more for the lengths before it.
const ALIAS_BYTES: usize = 5;
