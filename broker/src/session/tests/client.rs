//! The client of the model: it obeys the specification.

use super::*;

/// A client that obeys the specification and acknowledges when it is told to.
#[derive(Default)]
pub(super) struct ClientModel {
    pub(super) receive_maximum: usize,
    /// Unacknowledged publishes, in order; `true` after PUBREC.
    pub(super) sent: Vec<(Publish, bool)>,
    /// Publishes that wait for the server's Receive Maximum.
    pub(super) waiting: VecDeque<Publish>,
    /// Acknowledgements to be sent, in any order.
    pub(super) due: Vec<Packet>,
    /// QoS 2 messages received and not released.
    pub(super) open: HashSet<PacketId>,
    /// Messages in flight to this client.
    pub(super) inflight: HashSet<PacketId>,
    pub(super) received: Vec<u32>,
    /// Topics that the server has set aliases for on this connection.
    pub(super) aliases: HashMap<u16, ByteString>,
    /// First acknowledgements of this connection, in their order.
    pub(super) acks: Vec<PacketId>,
}

impl ClientModel {
    pub(super) fn publish(&mut self, topic: &'static str, qos: Qos, number: u32) -> Option<Packet> {
        let packet_id = (qos != Qos::AtMostOnce).then(|| {
            // The lowest one that is free, so that they come again soon.
            let sent = self.sent.iter().map(|(publish, _)| publish);
            let taken: HashSet<_> = sent
                .chain(&self.waiting)
                .filter_map(|publish| publish.packet_id)
                .collect();
            (1..=u16::MAX)
                .map(id)
                .find(|id| !taken.contains(id))
                .unwrap()
        });
        let publish = publish(topic, qos, packet_id, number);
        if qos == Qos::AtMostOnce {
            return Some(Packet::Publish(publish));
        }
        if self.sent.len() >= self.receive_maximum {
            self.waiting.push_back(publish);
            return None;
        }
        self.sent.push((publish.clone(), false));
        Some(Packet::Publish(publish))
    }

    fn next_waiting(&mut self) -> Option<Packet> {
        let publish = self.waiting.pop_front()?;
        self.sent.push((publish.clone(), false));
        Some(Packet::Publish(publish))
    }

    pub(super) fn receive(&mut self, packet: Packet) -> Vec<Packet> {
        match packet {
            Packet::Publish(publish) => {
                self.receive_publish(&publish);
                Vec::new()
            }
            Packet::PubAck(ack) => {
                self.acks.push(ack.packet_id);
                self.forget(ack.packet_id);
                self.next_waiting().into_iter().collect()
            }
            Packet::PubRec(ack) => {
                self.acks.push(ack.packet_id);
                for (publish, released) in &mut self.sent {
                    *released |= publish.packet_id == Some(ack.packet_id);
                }
                vec![Packet::PubRel(Ack::success(ack.packet_id))]
            }
            Packet::PubRel(ack) => {
                self.open.remove(&ack.packet_id);
                self.inflight.remove(&ack.packet_id);
                vec![Packet::PubComp(Ack::success(ack.packet_id))]
            }
            Packet::PubComp(ack) => {
                self.forget(ack.packet_id);
                self.next_waiting().into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn receive_publish(&mut self, publish: &Publish) {
        let number = number_of(publish);
        self.check_alias(publish);
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(id)) => {
                self.received.push(number);
                self.inflight.insert(id);
                self.due.push(Packet::PubAck(Ack::success(id)));
            }
            (Qos::ExactlyOnce, Some(id)) => {
                if self.open.insert(id) {
                    self.received.push(number);
                }
                self.inflight.insert(id);
                self.due.push(Packet::PubRec(Ack::success(id)));
            }
            _ => self.received.push(number),
        }
        assert!(self.inflight.len() <= 4, "more than the receive maximum");
    }

    fn check_alias(&mut self, publish: &Publish) {
        match publish.properties.topic_alias {
            None => assert!(!publish.topic.is_empty()),
            Some(alias) if publish.topic.is_empty() => {
                assert!(
                    self.aliases.contains_key(&alias),
                    "alias {alias} is not known"
                );
            }
            Some(alias) => {
                assert!((1..=2).contains(&alias) && !publish.dup);
                self.aliases.insert(alias, publish.topic.clone());
            }
        }
    }

    /// Sends an acknowledgement that is due.
    pub(super) fn acknowledge(&mut self, place: usize) -> Packet {
        let packet = self.due.swap_remove(place);
        if let Packet::PubAck(ack) = &packet {
            self.inflight.remove(&ack.packet_id);
        }
        packet
    }

    fn forget(&mut self, packet_id: PacketId) {
        self.sent
            .retain(|(publish, _)| publish.packet_id != Some(packet_id));
    }

    pub(super) fn disconnect(&mut self) {
        self.due.clear();
        self.inflight.clear();
        self.aliases.clear();
        self.acks.clear();
    }

    /// What is sent again on a new connection [MQTT-4.4.0-1].
    pub(super) fn reconnect(&mut self) -> Vec<Packet> {
        self.sent
            .iter()
            .map(|(publish, released)| match (publish.packet_id, released) {
                (Some(packet_id), true) => Packet::PubRel(Ack::success(packet_id)),
                _ => Packet::Publish(Publish {
                    dup: true,
                    ..publish.clone()
                }),
            })
            .collect()
    }
}
