//! QoS 2 publishes from the client whose exchange is not over (MQTT 5.0 §4.3.3), and the order of acknowledgements.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::codec::packet::{Ack, PacketId};
use crate::hooks::PublishAnswer;

/// The QoS 2 exchanges of one session, by Packet Identifier. Outlives the connection.
#[derive(Debug, Default)]
pub(crate) struct Received {
    exchanges: HashMap<PacketId, Exchange>,
    /// Exchanges that count against the Receive Maximum: those begun on this connection.
    counted: usize,
}

/// One QoS 2 exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Begun on this connection.
    counted: bool,
    /// The plugin took the publish, or may have taken it in an earlier life of the broker.
    pub(crate) owner: Owner,
    /// An ordinary message: it has been routed, or refused.
    pub(crate) routed: bool,
    pub(crate) step: Step,
    /// What was answered is at rest, or need not be.
    pub(crate) at_rest: bool,
}

/// Who settles an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The broker: an ordinary message, or one that the plugin refused to a 3.1.1 client.
    Broker,
    /// The plugin.
    Plugin,
    /// The broker does not know the exchange; the plugin may (after a restart).
    Unknown,
}

/// How far an exchange has come.
#[derive(Debug)]
pub(crate) enum Step {
    /// PUBLISH came; PUBREC waits for the answer.
    Published,
    /// PUBREC was sent; this is it, to be sent again for a duplicate.
    Answered(Ack),
    /// PUBREL came; PUBCOMP waits for the plugin. The PUBREC that was sent.
    Releasing(Ack),
}

impl Received {
    /// Exchanges of ordinary messages that were found at rest.
    pub(crate) fn restored(packet_ids: impl IntoIterator<Item = PacketId>) -> Self {
        let mut received = Self::default();
        for packet_id in packet_ids {
            let step = Step::Answered(Ack::success(packet_id));
            received.insert(packet_id, Owner::Broker, step, false);
        }
        received
    }

    pub(crate) fn begin(&mut self, packet_id: PacketId, owner: Owner) {
        self.insert(packet_id, owner, Step::Published, true);
    }

    /// PUBREL for an exchange that is not known here.
    pub(crate) fn begin_unknown(&mut self, packet_id: PacketId) {
        let step = Step::Releasing(Ack::success(packet_id));
        self.insert(packet_id, Owner::Unknown, step, false);
    }

    pub(crate) fn exchange_mut(&mut self, packet_id: PacketId) -> Option<&mut Exchange> {
        self.exchanges.get_mut(&packet_id)
    }

    pub(crate) fn end(&mut self, packet_id: PacketId) {
        if let Some(exchange) = self.exchanges.remove(&packet_id) {
            self.counted -= usize::from(exchange.counted);
        }
        if self.exchanges.is_empty() && self.exchanges.capacity() > IDLE_CAPACITY {
            self.exchanges = HashMap::new();
        }
    }

    /// Exchanges that count against the Receive Maximum.
    pub(crate) const fn counted(&self) -> usize {
        self.counted
    }

    /// The connection has ended: what was not answered will be published again, what was not released, released again.
    /// An ordinary message that has been routed and only waited for its answer is not routed again.
    pub(crate) fn disconnect(&mut self) {
        self.exchanges
            .retain(|_, exchange| match (&exchange.step, exchange.owner) {
                (Step::Published, Owner::Broker) => exchange.routed,
                (Step::Published, _) | (_, Owner::Unknown) => false,
                (Step::Answered(_) | Step::Releasing(_), _) => true,
            });
        for (packet_id, exchange) in &mut self.exchanges {
            exchange.counted = false;
            if let Step::Published = exchange.step {
                exchange.step = Step::Answered(Ack::success(*packet_id));
                exchange.at_rest = false;
            }
            if let Step::Releasing(ack) = &exchange.step {
                exchange.step = Step::Answered(ack.clone());
            }
        }
        self.counted = 0;
        self.exchanges.shrink_to_fit();
    }

    fn insert(&mut self, packet_id: PacketId, owner: Owner, step: Step, counted: bool) {
        self.counted += usize::from(counted);
        self.exchanges.insert(
            packet_id,
            Exchange {
                counted,
                owner,
                routed: false,
                step,
                at_rest: true,
            },
        );
    }
}

/// Publishes that wait for their answers, in the order of arrival: PUBACK and PUBREC go out in that order
/// [MQTT-4.6.0-2], [MQTT-4.6.0-3], whatever the order of the answers.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Waiting>,
    qos1: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    due: Due,
    bytes: usize,
    came: Came,
    answer: Option<PublishAnswer>,
}

/// When a publish came, and who settles it: for whoever measures how long its acknowledgement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) at: Instant,
    pub(crate) owner: Owner,
}

/// What a publish waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// QoS 0.
    Nothing,
    /// QoS 1.
    PubAck(PacketId),
    /// QoS 2.
    PubRec(PacketId),
}

impl Pending {
    /// Adds a publish of this size; returns its number.
    pub(crate) fn push(&mut self, due: Due, bytes: usize, came: Came) -> u64 {
        self.entries.push_back(Waiting {
            due,
            bytes,
            came,
            answer: None,
        });
        self.bytes += bytes;
        self.qos1 += usize::from(matches!(due, Due::PubAck(_)));
        self.first + self.entries.len() as u64 - 1
    }

    /// Notes an answer; answers with unknown numbers are ignored.
    pub(crate) fn answer(&mut self, number: u64, answer: PublishAnswer) {
        let place = number
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| self.entries.get_mut(place));
        if let Some(waiting) = place {
            waiting.answer.get_or_insert(answer);
            self.bytes -= std::mem::take(&mut waiting.bytes);
        }
    }

    /// The first publish, if it has been answered.
    pub(crate) fn pop(&mut self) -> Option<(Due, PublishAnswer, Came)> {
        self.entries.front()?.answer.as_ref()?;
        let Waiting {
            due, answer, came, ..
        } = self.entries.pop_front()?;
        self.first += 1;
        self.qos1 -= usize::from(matches!(due, Due::PubAck(_)));
        if self.entries.is_empty() && self.entries.capacity() > IDLE_CAPACITY {
            self.entries = VecDeque::new();
        }
        Some((due, answer?, came))
    }

    /// All publishes that have been answered.
    pub(crate) fn into_answered(self) -> impl Iterator<Item = (Due, PublishAnswer)> {
        self.entries
            .into_iter()
            .filter_map(|waiting| Some((waiting.due, waiting.answer?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Size of those that have not been answered.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// QoS 1 publishes among them.
    pub(crate) const fn qos1(&self) -> usize {
        self.qos1
    }
}

/// An empty table with more room than this gives its memory back.
const IDLE_CAPACITY: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::reason::ReasonCode;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    fn came() -> Came {
        Came {
            at: crate::clock::now(),
            owner: Owner::Broker,
        }
    }

    #[test]
    fn answers_leave_in_the_order_of_arrival() {
        let mut pending = Pending::default();
        let numbers: Vec<u64> = (1..=3)
            .map(|n| pending.push(Due::PubAck(id(n)), 10, came()))
            .collect();
        assert_eq!(pending.bytes(), 30);
        pending.answer(numbers[2], PublishAnswer::SUCCESS);
        pending.answer(numbers[1], PublishAnswer::SUCCESS);
        assert!(pending.pop().is_none());
        pending.answer(numbers[0], PublishAnswer::SUCCESS);
        let order: Vec<Due> = std::iter::from_fn(|| pending.pop())
            .map(|(due, ..)| due)
            .collect();
        assert_eq!(
            order,
            [Due::PubAck(id(1)), Due::PubAck(id(2)), Due::PubAck(id(3))]
        );
        assert_eq!((pending.len(), pending.qos1(), pending.bytes()), (0, 0, 0));
    }

    #[test]
    fn the_first_answer_counts_and_strays_are_ignored() {
        let mut pending = Pending::default();
        let number = pending.push(Due::Nothing, 10, came());
        pending.answer(number, PublishAnswer::SUCCESS);
        let refusal = PublishAnswer {
            notice: None,
            reason: ReasonCode::QuotaExceeded,
            properties: None,
        };
        pending.answer(number, refusal.clone());
        pending.answer(number + 1, refusal);
        let popped = pending.pop().map(|(due, answer, _)| (due, answer));
        assert_eq!(popped, Some((Due::Nothing, PublishAnswer::SUCCESS)));
    }

    #[test]
    fn disconnect_forgets_what_was_not_answered() {
        let mut received = Received::default();
        received.begin(id(1), Owner::Plugin);
        received.begin(id(2), Owner::Plugin);
        received.exchange_mut(id(2)).unwrap().step = Step::Releasing(Ack::success(id(2)));
        received.begin_unknown(id(3));
        assert_eq!(received.counted(), 2);
        received.begin(id(4), Owner::Broker);
        received.begin(id(5), Owner::Broker);
        received.exchange_mut(id(5)).unwrap().routed = true;
        received.disconnect();
        assert!(received.exchange_mut(id(1)).is_none());
        assert!(matches!(
            received.exchange_mut(id(2)).unwrap().step,
            Step::Answered(_)
        ));
        assert!(received.exchange_mut(id(3)).is_none());
        assert!(received.exchange_mut(id(4)).is_none());
        let exchange = received.exchange_mut(id(5)).unwrap();
        assert!(matches!(exchange.step, Step::Answered(_)) && !exchange.at_rest);
        assert_eq!(received.counted(), 0);
    }
}
