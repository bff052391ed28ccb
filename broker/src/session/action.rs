//! What a session wants done: effects in the order in which they are to be carried out.

use std::sync::Arc;

use bytes::Bytes;

use super::aliases::Alias;
use super::queue::{Queued, Stored};
use super::received::Came;
use crate::codec::packet::{Ack, Packet, PacketId, Publish, Qos, SubscribeFilter};
use crate::codec::topic::TopicFilter;

/// One effect.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send PUBACK, PUBREC, PUBREL or PUBCOMP; the publish that it answers, if it is the first to do so.
    SendAck(AckKind, Ack, Option<Came>),
    /// Send another packet.
    Send(Box<Packet>),
    /// Send PUBLISH.
    Deliver(Outgoing),
    /// Route an ordinary publish, say so (`handle_routed`), and answer with its number.
    Route(Arc<Publish>, u64),
    /// Give publishes to the plugin; a ticket with the number each.
    HandOver(Vec<(Publish, u64)>),
    /// Tell the plugin of PUBREL.
    Release(PacketId, u64),
    /// Note at rest that a QoS 2 publish was accepted, and answer as for `Route`.
    Accept(PacketId, u64),
    /// Note at rest that the exchange of a QoS 2 publish is over, and answer as for `Release`.
    Forget(PacketId, u64),
    /// Note at rest how far a delivery has come.
    Keep(Keep),
    /// Subscribe to ordinary filters; the answer is one Reason Code per filter.
    Subscribe(Subscribing),
    /// Subscribe to filters of the plugin.
    SubscribePlugin(Subscribing),
    /// Unsubscribe from ordinary filters; the answer is one Reason Code per filter.
    Unsubscribe(Vec<TopicFilter>, u64),
    /// Unsubscribe from filters of the plugin.
    UnsubscribePlugin(Vec<TopicFilter>, u64),
    /// Take a step of a re-authentication.
    Authenticate { begin: bool, data: Bytes },
    /// The client has said goodbye: close, and publish the will if it asks for that.
    Disconnect { publish_will: bool },
}

/// How far a delivery of a message at rest has come.
#[derive(Debug)]
pub(crate) enum Keep {
    /// It is sent, under this identifier. For QoS 2 it waits for the answer, whose number is the identifier.
    Sent(Box<Queued>, Stored, PacketId),
    /// PUBREC came; PUBREL waits for the answer, as above.
    Released(Stored, PacketId),
    /// It is done with.
    Settled(Stored),
}

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the names of the packets")]
pub(crate) enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl AckKind {
    pub(crate) const fn packet(self, ack: Ack) -> Packet {
        match self {
            Self::PubAck => Packet::PubAck(ack),
            Self::PubRec => Packet::PubRec(ack),
            Self::PubRel => Packet::PubRel(ack),
            Self::PubComp => Packet::PubComp(ack),
        }
    }
}

/// A PUBLISH on its way to the client. What it does not share with others stands here.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) publish: Arc<Publish>,
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) topic_alias: Option<Alias>,
    pub(crate) subscription_identifiers: Vec<u32>,
}

/// A part of a SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Subscribing {
    pub(crate) filters: Vec<SubscribeFilter>,
    pub(crate) identifier: Option<u32>,
    /// Of the answer.
    pub(crate) number: u64,
}
