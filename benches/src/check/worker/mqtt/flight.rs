//! What was published and is not settled, over connections and lives.

use std::collections::{BTreeMap, VecDeque};

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::Bytes;

use crate::check::history::{Event, Journal, Record};
use crate::check::worker::text;
use crate::client::Client;
use crate::error::BenchError;

/// In the order of publishing.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: VecDeque<Flight>,
    last_id: u16,
}

#[derive(Debug)]
struct Flight {
    what: What,
    qos: Qos,
    packet_id: PacketId,
    /// PUBREC came: PUBREL goes out until PUBCOMP.
    received: bool,
}

#[derive(Debug)]
enum What {
    Message {
        id: String,
        to: String,
        text: String,
    },
    Mark {
        to: String,
        seq: u64,
        private: bool,
    },
}

impl Flights {
    /// From what earlier lives wrote. Marks are forgotten: later ones say more.
    pub(super) fn restore(before: &[Record]) -> Self {
        let mut restored = Self::default();
        for Record { event, .. } in before {
            match event {
                Event::Send {
                    id,
                    to,
                    text,
                    qos,
                    packet_id,
                } => restored.recall((id, to, text), *qos, *packet_id),
                Event::Acked { id, .. } => restored.received(id),
                Event::Refused { id, .. } | Event::Completed { id } => {
                    restored.flights.retain(|flight| !flight.is(id));
                }
                Event::Connected { present: false } => restored.forget_session(),
                _ => {}
            }
        }
        restored
    }

    fn recall(&mut self, (id, to, text): (&str, &str, &str), qos: u8, packet_id: u16) {
        let (Some(qos), Some(packet_id)) = (Qos::new(qos), PacketId::new(packet_id)) else {
            return;
        };
        self.last_id = packet_id.get();
        if self.flights.iter().any(|flight| flight.is(id)) {
            return;
        }
        self.flights.push_back(Flight {
            what: What::Message {
                id: id.to_owned(),
                to: to.to_owned(),
                text: text.to_owned(),
            },
            qos,
            packet_id,
            received: false,
        });
    }

    fn received(&mut self, id: &str) {
        self.flights.retain_mut(|flight| {
            if !flight.is(id) {
                return true;
            }
            flight.received = true;
            flight.qos == Qos::ExactlyOnce
        });
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The server knows nothing of exchanges under way: what was received is settled, the rest begins anew.
    pub(super) fn forget_session(&mut self) {
        self.flights.retain(|flight| !flight.received);
    }

    /// Sends everything again, in order.
    pub(super) fn send_again(
        &self,
        client: &mut Client,
        present: bool,
        journal: &mut Journal,
    ) -> Result<(), BenchError> {
        let open = self.flights.iter().filter(|flight| !flight.received);
        journal.write_all(open.map(Flight::event))?;
        for flight in &self.flights {
            if flight.received {
                client.push(&Packet::PubRel(Ack::success(flight.packet_id)));
            } else {
                client.push(&Packet::Publish(flight.publish(present)));
            }
        }
        Ok(())
    }

    /// A new message to a conversation or a topic.
    pub(super) fn send(
        &mut self,
        (id, to): (String, &str),
        qos: u8,
        client: &mut Client,
        journal: &mut Journal,
    ) -> Result<(), BenchError> {
        let qos = Qos::new(qos).unwrap_or(Qos::AtLeastOnce);
        let (to, text) = (to.to_owned(), text(&id));
        self.launch(What::Message { id, to, text }, qos, client, journal)
    }

    /// A read mark.
    pub(super) fn mark(
        &mut self,
        (to, seq, private): (&str, u64, bool),
        client: &mut Client,
        journal: &mut Journal,
    ) -> Result<(), BenchError> {
        let to = to.to_owned();
        let what = What::Mark { to, seq, private };
        self.launch(what, Qos::AtLeastOnce, client, journal)
    }

    fn launch(
        &mut self,
        what: What,
        qos: Qos,
        client: &mut Client,
        journal: &mut Journal,
    ) -> Result<(), BenchError> {
        let flight = Flight {
            what,
            qos,
            packet_id: self.free_id(),
            received: false,
        };
        journal.write(flight.event())?;
        client.push(&Packet::Publish(flight.publish(false)));
        self.flights.push_back(flight);
        Ok(())
    }

    /// There are far more identifiers than flights.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id % IDS + 1;
            let is_free = |id: &PacketId| self.flights.iter().all(|one| one.packet_id != *id);
            if let Some(free) = PacketId::new(self.last_id).filter(is_free) {
                return free;
            }
        }
    }

    /// PUBACK or PUBREC; `None` if it is of no flight, or came before.
    pub(super) fn answer(
        &mut self,
        ack: &Ack,
        refused: &mut BTreeMap<String, String>,
    ) -> Option<Event> {
        let is_it = |flight: &Flight| flight.packet_id == ack.packet_id;
        let at = self.flights.iter().position(is_it)?;
        let flight = self.flights.get_mut(at)?;
        let again = std::mem::replace(&mut flight.received, true);
        let told = match &flight.what {
            What::Message { id, .. } => refused.remove(id),
            What::Mark { .. } => None,
        };
        let code = ack.reason.is_error().then(|| format!("{:?}", ack.reason));
        let event = flight.settled(ack, code.or(told));
        if ack.reason.is_error() || flight.qos != Qos::ExactlyOnce {
            self.flights.remove(at);
        }
        (!again).then_some(event)
    }

    /// PUBCOMP: the message whose exchange is over.
    pub(super) fn complete(&mut self, packet_id: u16) -> Option<String> {
        let is_it = |flight: &Flight| flight.packet_id.get() == packet_id && flight.received;
        let at = self.flights.iter().position(is_it)?;
        match self.flights.remove(at)?.what {
            What::Message { id, .. } => Some(id),
            What::Mark { .. } => None,
        }
    }
}

impl Flight {
    fn is(&self, other: &str) -> bool {
        matches!(&self.what, What::Message { id, .. } if id == other)
    }

    fn event(&self) -> Event {
        match &self.what {
            What::Message { id, to, text } => Event::Send {
                id: id.clone(),
                to: to.clone(),
                text: text.clone(),
                qos: self.qos as u8,
                packet_id: self.packet_id.get(),
            },
            What::Mark { to, seq, private } => Event::Mark {
                to: to.clone(),
                seq: *seq,
                private: *private,
            },
        }
    }

    fn settled(&self, ack: &Ack, refused: Option<String>) -> Event {
        let property = |wanted: &str| {
            let pairs = ack.properties.iter().flat_map(|all| &all.user_properties);
            let mut named = pairs.filter(|(name, _)| name == wanted);
            named.next().map(|(_, value)| value)
        };
        match (&self.what, refused) {
            (What::Message { id, .. }, Some(reason)) => Event::Refused {
                id: id.clone(),
                reason,
            },
            (What::Mark { to, seq, .. }, Some(reason)) => Event::Refused {
                id: format!("mark {seq} in {to}"),
                reason,
            },
            (What::Message { id, .. }, None) => Event::Acked {
                id: id.clone(),
                seq: property("seq").and_then(|seq| seq.parse().ok()),
                dup: property("dup").is_some(),
            },
            (What::Mark { to, seq, private }, None) => Event::Marked {
                to: to.clone(),
                seq: *seq,
                private: *private,
            },
        }
    }

    fn publish(&self, dup: bool) -> Publish {
        let (topic, payload) = match &self.what {
            What::Message { id, to, text } if is_conversation(to) => {
                (format!("chat/to/{to}/{id}"), text.clone())
            }
            What::Message { to, text, .. } => (to.clone(), text.clone()),
            What::Mark { to, seq, private } => {
                let mark = serde_json::json!({"seq": seq, "private": private});
                (format!("chat/c/{to}/read"), mark.to_string())
            }
        };
        Publish {
            dup,
            qos: self.qos,
            retain: false,
            topic: topic.into(),
            packet_id: Some(self.packet_id),
            payload: Bytes::from(payload),
            properties: PublishProperties::default().into(),
        }
    }
}

/// `g.…`, `d.…`; topics have slashes.
fn is_conversation(to: &str) -> bool {
    !to.contains('/')
}

/// Packet identifiers of messages and marks; those of calls are above.
const IDS: u16 = 60_000;
