//! SUBSCRIBE and UNSUBSCRIBE: split between the router and the plugin, answered when both have answered.

use bytestring::ByteString;

use super::{Action, ProtocolError, Session, Subscribing};
use crate::acl;
use crate::codec::encode::encoded_len;
use crate::codec::packet::{
    Packet, PacketId, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Version,
};
use crate::codec::properties::AckProperties;
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;

/// A SUBSCRIBE or UNSUBSCRIBE that waits for Reason Codes.
#[derive(Debug)]
pub(super) struct Request {
    number: u64,
    packet_id: PacketId,
    subscribe: bool,
    bytes: usize,
    /// Per filter: does it belong to the plugin, and its Reason Code when known.
    reasons: Vec<(bool, Option<ReasonCode>)>,
}

impl Session {
    pub(super) fn handle_subscribe(&mut self, subscribe: Subscribe, out: &mut Vec<Action>) {
        let plugin = |wanted: &SubscribeFilter| {
            acl::is_below(self.terms.root, wanted.filter.split_share().1)
        };
        let bytes = subscribe
            .filters
            .iter()
            .map(|it| filter_bytes(&it.filter))
            .sum();
        let owners = subscribe.filters.iter().map(plugin).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = subscribe.filters.into_iter().partition(plugin);
        let number = self.open_request(subscribe.packet_id, true, bytes, owners);
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

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: Unsubscribe, out: &mut Vec<Action>) {
        let plugin = |filter: &TopicFilter| acl::is_below(self.terms.root, filter.split_share().1);
        let bytes = unsubscribe.filters.iter().map(filter_bytes).sum();
        let owners = unsubscribe.filters.iter().map(plugin).collect();
        let (theirs, ours): (Vec<_>, Vec<_>) = unsubscribe.filters.into_iter().partition(plugin);
        let number = self.open_request(unsubscribe.packet_id, false, bytes, owners);
        if !theirs.is_empty() {
            out.push(Action::UnsubscribePlugin(theirs, number));
        }
        if !ours.is_empty() {
            out.push(Action::Unsubscribe(ours, number | ORDINARY_PART));
        }
    }

    fn open_request(
        &mut self,
        packet_id: PacketId,
        subscribe: bool,
        bytes: usize,
        plugin: Vec<bool>,
    ) -> u64 {
        let number = self.next_request;
        self.next_request += 2;
        self.request_bytes += bytes;
        self.requests.push(Request {
            number,
            packet_id,
            subscribe,
            bytes,
            reasons: plugin.into_iter().map(|plugin| (plugin, None)).collect(),
        });
        number
    }

    pub(super) fn handle_reasons(
        &mut self,
        number: u64,
        reasons: Vec<ReasonCode>,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        let ordinary = number & ORDINARY_PART != 0;
        let number = number & !ORDINARY_PART;
        let Some(place) = self.requests.iter().position(|it| it.number == number) else {
            return Ok(());
        };
        let Some(request) = self.requests.get_mut(place) else {
            return Ok(());
        };
        let mut reasons = reasons.into_iter();
        for (plugin, reason) in &mut request.reasons {
            if *plugin != ordinary {
                *reason = Some(reasons.next().unwrap_or(ReasonCode::UnspecifiedError));
            }
        }
        let reasons = request.reasons.iter().map(|(_, reason)| *reason);
        let Some(reasons) = reasons.collect::<Option<Vec<_>>>() else {
            return Ok(());
        };
        let request = self.requests.swap_remove(place);
        self.request_bytes -= request.bytes;
        let explains = self.terms.version == Version::V5 && self.terms.problem_information;
        let properties = AckProperties {
            reason_string: if explains { explained(&reasons) } else { None },
            ..AckProperties::default()
        };
        let mut packet = request.answer(reasons, properties);
        let len = |packet: &Packet| encoded_len(packet, self.terms.version);
        if !self.fits(|| len(&packet)) {
            // The Reason String is left out first [MQTT-3.9.2-1] [MQTT-3.11.2-1].
            let (Packet::SubAck(SubAck { properties, .. })
            | Packet::UnsubAck(UnsubAck { properties, .. })) = &mut packet
            else {
                return Ok(());
            };
            *properties = AckProperties::default();
        }
        let bytes = len(&packet);
        if !self.fits(|| bytes) {
            return Err(ProtocolError::AnswerTooLarge { bytes });
        }
        out.push(Action::Send(Box::new(packet)));
        Ok(())
    }
}

/// What a filter that waits for its Reason Code takes, about.
fn filter_bytes(filter: &TopicFilter) -> usize {
    size_of::<SubscribeFilter>() + filter.as_str().len()
}

/// Set in the number of the part of a request that the router answers; request numbers are even.
const ORDINARY_PART: u64 = 1;

impl Request {
    fn answer(&self, reasons: Vec<ReasonCode>, properties: AckProperties) -> Packet {
        let packet_id = self.packet_id;
        if self.subscribe {
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
        }
    }
}

/// The Reason String of an answer: which filters were refused, and why; `None` if none was.
fn explained(reasons: &[ReasonCode]) -> Option<ByteString> {
    let refused = reasons.iter().zip(1_u32..);
    let mut refused = refused.filter_map(|(reason, number)| Some((number, reason.text()?)));
    let (first, text) = refused.next()?;
    if reasons.len() == 1 {
        return Some(ByteString::from_static(text));
    }
    let mut parts = vec![format!("filter {first}: {text}")];
    let others = refused.by_ref().take(EXPLAINED_MAX - 1);
    parts.extend(others.map(|(number, text)| format!("filter {number}: {text}")));
    let more = refused.count();
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    Some(parts.join(", ").into())
}

/// So many refusals are named in one Reason String.
const EXPLAINED_MAX: usize = 4;
