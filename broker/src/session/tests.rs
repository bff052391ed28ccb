//! A session and a client model, joined by a link that loses what a broken connection loses.
//!
//! `Pair` is the world of both the examples and the simulation.

mod aliases;
mod client;
mod disk;
mod exchanges;
mod requests;
mod simulation;
mod window;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::client::ClientModel;
use self::disk::Disk;
use super::*;
use crate::clock;
use crate::codec::encode::{PublishHead, publish_len};
use crate::codec::packet::{
    ConnAck, Connect, Disconnect, Publish, RetainHandling, Subscribe, SubscribeFilter,
};
use crate::codec::properties::{
    ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    SubscribeProperties,
};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::config::Config;
use crate::hooks::PublishAnswer;

/// Packets in one direction.
type Link = VecDeque<Packet>;

struct Pair {
    version: Version,
    config: Config,
    now: Instant,
    session: Option<Session>,
    /// Room in the output buffer, in each turn.
    output_bytes: usize,
    kept: SessionState,
    client: ClientModel,
    to_server: Link,
    to_client: Link,
    /// Ordinary messages that wait for the client.
    queue: VecDeque<Queued>,
    /// Payloads that the server has accepted.
    accepted: Vec<u32>,
    /// Numbers of publishes that the plugin has taken and not answered yet.
    tickets: Vec<u64>,
    /// QoS 2 exchanges that the plugin knows.
    plugin_exchanges: HashSet<PacketId>,
    outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
    error: Option<ProtocolError>,
    goodbye: Option<bool>,
    /// Of a session at rest.
    disk: Option<Disk>,
}

impl Pair {
    fn new(version: Version, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mut pair = Self {
            version,
            client: ClientModel {
                receive_maximum: config.receive_maximum.into(),
                ..ClientModel::default()
            },
            config,
            now: clock::now(),
            session: None,
            output_bytes: usize::MAX,
            kept: SessionState::default(),
            to_server: Link::new(),
            to_client: Link::new(),
            queue: VecDeque::new(),
            accepted: Vec::new(),
            tickets: Vec::new(),
            plugin_exchanges: HashSet::new(),
            outcomes: Vec::new(),
            error: None,
            goodbye: None,
            disk: None,
        };
        pair.connect();
        pair
    }

    fn connected(version: Version) -> Self {
        Self::new(version, |_| {})
    }

    fn connect(&mut self) {
        let connect = Connect {
            version: self.version,
            clean_start: false,
            keep_alive: 10,
            client_id: "client".into(),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: Some(100),
                receive_maximum: Some(4),
                topic_alias_maximum: Some(2),
                ..ConnectProperties::default()
            },
        };
        let (mut terms, _) = Terms::agree(&connect, &self.config, "plug");
        terms.durable = self.disk.is_some();
        let state = std::mem::take(&mut self.kept);
        self.session = Some(Session::new(terms, state, self.now));
        let again = self.client.reconnect();
        self.to_server.extend(again);
        self.turn(|_, _| Ok(()));
    }

    /// The connection breaks: what is on the way is lost.
    fn disconnect(&mut self) -> Vec<(PacketId, DeliveryRef)> {
        let Some(session) = self.session.take() else {
            return Vec::new();
        };
        let ended = session.end();
        self.kept = ended.state;
        self.disk.iter_mut().for_each(Disk::disconnect);
        self.to_server.clear();
        self.to_client.clear();
        self.tickets.clear();
        self.client.disconnect();
        ended.inflight
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    /// Lets the session handle something, as the connection does.
    fn turn(
        &mut self,
        handle: impl FnOnce(&mut Session, &mut Vec<Action>) -> Result<(), ProtocolError>,
    ) {
        let Some(session) = self.session.as_mut() else {
            return;
        };
        let mut actions = Vec::new();
        if let Err(error) = handle(session, &mut actions) {
            self.error = Some(error);
        }
        session.resume(self.now, self.output_bytes, &mut actions);
        while let Some(queued) = self.queue.pop_front() {
            if queued.qos != Qos::AtMostOnce && session.queue_window() == 0 {
                self.queue.push_front(queued);
                break;
            }
            session.handle_message(self.now, queued, &mut actions);
        }
        self.perform(actions);
        let outcomes = self.session().take_outcomes();
        self.outcomes.extend(outcomes);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            let mut more = Vec::new();
            match action {
                Action::SendAck(kind, ack, _) => self.to_client.push_back(kind.packet(ack)),
                Action::Send(packet) => self.to_client.push_back(*packet),
                Action::Deliver(outgoing) => self.to_client.push_back(packet_of(&outgoing)),
                Action::Route(publish, number) => {
                    self.session().handle_routed(&publish);
                    self.accepted.push(number_of(&publish));
                    let answer = Answer::Published(PublishAnswer::SUCCESS);
                    if let Some(disk) = &mut self.disk {
                        disk.route(&publish, number, answer);
                        continue;
                    }
                    self.session()
                        .handle_answer(number, answer, &mut more)
                        .unwrap();
                }
                Action::HandOver(batch) => {
                    for (publish, number) in batch {
                        let known = match (publish.qos, publish.packet_id) {
                            (Qos::ExactlyOnce, Some(id)) => !self.plugin_exchanges.insert(id),
                            _ => false,
                        };
                        if !known {
                            self.accepted.push(number_of(&publish));
                            // The plugin has a store of its own.
                            let disk = self.disk.iter_mut();
                            disk.for_each(|disk| disk.accepted.push(number_of(&publish)));
                        }
                        self.tickets.push(number);
                    }
                }
                Action::Release(packet_id, number) => {
                    let answer = Answer::Released(self.plugin_exchanges.remove(&packet_id));
                    self.session()
                        .handle_answer(number, answer, &mut more)
                        .unwrap();
                }
                Action::Subscribe(part) | Action::SubscribePlugin(part) => {
                    let reasons = part.filters.iter().map(|_| ReasonCode::Success).collect();
                    self.session()
                        .handle_answer(part.number, Answer::Reasons(reasons), &mut more)
                        .unwrap();
                }
                Action::Unsubscribe(filters, number)
                | Action::UnsubscribePlugin(filters, number) => {
                    let reasons = filters.iter().map(|_| ReasonCode::Success).collect();
                    self.session()
                        .handle_answer(number, Answer::Reasons(reasons), &mut more)
                        .unwrap();
                }
                Action::Authenticate { .. } => {}
                Action::Disconnect { publish_will } => self.goodbye = Some(publish_will),
                action @ (Action::Keep(_) | Action::Accept(..) | Action::Forget(..)) => {
                    let disk = self.disk.as_mut().unwrap();
                    disk.note(action);
                }
            }
            self.perform(more);
        }
    }

    /// One packet reaches the server.
    fn step_server(&mut self) -> bool {
        if !self.session.as_ref().is_some_and(Session::wants_input) {
            return false;
        }
        let Some(packet) = self.to_server.pop_front() else {
            return false;
        };
        let now = self.now;
        self.turn(|session, out| session.handle_packet(now, packet, out));
        true
    }

    /// One packet reaches the client.
    fn step_client(&mut self) -> bool {
        let Some(packet) = self.to_client.pop_front() else {
            return false;
        };
        let answers = self.client.receive(packet);
        self.to_server.extend(answers);
        true
    }

    fn answer(&mut self, place: usize) {
        let number = self.tickets.remove(place);
        let answer = Answer::Published(PublishAnswer::SUCCESS);
        self.turn(|session, out| session.handle_answer(number, answer, out));
    }

    /// Until nothing happens any more.
    fn run(&mut self) {
        loop {
            let mut busy = self.step_server() | self.step_client();
            if !self.tickets.is_empty() {
                self.answer(0);
                busy = true;
            }
            busy |= self.commit(usize::MAX);
            while !self.client.due.is_empty() {
                let packet = self.client.acknowledge(0);
                self.to_server.push_back(packet);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        let now = self.now;
        self.turn(|session, out| session.handle_packet(now, packet, out));
    }

    fn deliver(&mut self, number: u32, qos: Qos) {
        self.deliver_by(None, number, qos);
    }

    /// Delivers what came by a shared subscription, or by one of its own.
    fn deliver_by(&mut self, share: Option<&str>, number: u32, qos: Qos) {
        let mut queued = Queued {
            publish: Arc::new(publish("t", qos, None, number)),
            expires_at: None,
            qos,
            retain: false,
            subscription_identifiers: Vec::new(),
            share: share.map(Arc::from),
            stored: None,
        };
        if let Some(disk) = &mut self.disk
            && qos > Qos::AtMostOnce
        {
            disk.queue(&mut queued);
        }
        self.queue.push_back(queued);
        self.turn(|_, _| Ok(()));
    }

    fn take_sent(&mut self) -> Vec<Packet> {
        self.to_client.drain(..).collect()
    }
}

fn publish(topic: &'static str, qos: Qos, packet_id: Option<PacketId>, number: u32) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id,
        payload: Bytes::copy_from_slice(&number.to_be_bytes()),
        properties: PublishProperties::default().into(),
    }
}

fn number_of(publish: &Publish) -> u32 {
    u32::from_be_bytes(publish.payload[..].try_into().unwrap())
}

fn packet_of(outgoing: &Outgoing) -> Packet {
    let mut publish = Publish::clone(&outgoing.publish);
    publish.dup = outgoing.dup;
    publish.qos = outgoing.qos;
    publish.retain = outgoing.retain;
    publish.packet_id = outgoing.packet_id;
    publish.properties.topic_alias = outgoing.topic_alias.map(|alias| alias.number);
    if outgoing.head().omit_topic {
        publish.topic = ByteString::new();
    }
    Packet::Publish(publish)
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn delivery(number: u8, qos: Qos, resend: Option<PacketId>) -> Delivery {
    Delivery {
        reference: DeliveryRef([number; 32]),
        message: Arc::new(publish("plug/in", Qos::AtMostOnce, None, number.into())),
        qos,
        retain: false,
        resend,
        subscription_identifiers: Vec::new(),
    }
}
