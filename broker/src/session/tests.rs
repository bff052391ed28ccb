//! A session and a client model, joined by a link that loses what a broken connection loses.
//!
//! `Pair` is the world of both the examples here and the simulation.

mod disk;
mod simulation;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

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

/// A client that obeys the specification and acknowledges when it is told to.
#[derive(Default)]
struct ClientModel {
    receive_maximum: usize,
    /// Unacknowledged publishes, in order; `true` after PUBREC.
    sent: Vec<(Publish, bool)>,
    /// Publishes that wait for the server's Receive Maximum.
    waiting: VecDeque<Publish>,
    /// Acknowledgements to be sent, in any order.
    due: Vec<Packet>,
    /// QoS 2 messages received and not released.
    open: HashSet<PacketId>,
    /// Messages in flight to this client.
    inflight: HashSet<PacketId>,
    received: Vec<u32>,
    /// Topics that the server has set aliases for on this connection.
    aliases: HashMap<u16, ByteString>,
    /// First acknowledgements of this connection, in their order.
    acks: Vec<PacketId>,
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

impl ClientModel {
    fn publish(&mut self, topic: &'static str, qos: Qos, number: u32) -> Option<Packet> {
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

    fn receive(&mut self, packet: Packet) -> Vec<Packet> {
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
    fn acknowledge(&mut self, place: usize) -> Packet {
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

    fn disconnect(&mut self) {
        self.due.clear();
        self.inflight.clear();
        self.aliases.clear();
        self.acks.clear();
    }

    /// What is sent again on a new connection [MQTT-4.4.0-1].
    fn reconnect(&mut self) -> Vec<Packet> {
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

fn publish(topic: &'static str, qos: Qos, packet_id: Option<PacketId>, number: u32) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id,
        payload: Bytes::copy_from_slice(&number.to_be_bytes()),
        properties: PublishProperties::default(),
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

#[test]
fn qos2_message_is_accepted_once_when_pubrec_is_lost() {
    for topic in ["t", "plug/t"] {
        let mut pair = Pair::connected(Version::V5);
        let packet = pair.client.publish(topic, Qos::ExactlyOnce, 7).unwrap();
        pair.send(packet);
        pair.disconnect();
        pair.connect();
        pair.run();
        assert_eq!(pair.accepted, [7]);
        assert!(pair.client.sent.is_empty());
    }
}

/// The connection ended on an error before it got to the publish.
#[test]
fn qos2_message_that_was_never_routed_is_routed_when_it_comes_again() {
    let mut pair = Pair::at_rest(Version::V5, |_| {});
    let packet = pair.client.publish("t", Qos::ExactlyOnce, 7).unwrap();
    let now = pair.now;
    let mut lost = Vec::new();
    pair.session()
        .handle_packet(now, packet, &mut lost)
        .unwrap();
    pair.disconnect();
    pair.connect();
    pair.run();
    assert_eq!(pair.accepted, [7]);
    assert!(pair.client.sent.is_empty());
}

/// Found by the simulation: the PUBREC of the ordinary message waited behind an unanswered publish of the plugin.
#[test]
fn qos2_message_is_accepted_once_when_its_pubrec_was_still_waiting() {
    let mut pair = Pair::connected(Version::V311);
    let plugin = pair.client.publish("plug/t", Qos::AtMostOnce, 1).unwrap();
    let exact = pair.client.publish("t", Qos::ExactlyOnce, 2).unwrap();
    pair.send(plugin);
    pair.send(exact);
    pair.disconnect();
    pair.connect();
    pair.run();
    assert_eq!(pair.accepted, [1, 2]);
}

#[test]
fn qos2_message_is_received_once_when_pubcomp_is_lost() {
    let mut pair = Pair::connected(Version::V311);
    pair.deliver(7, Qos::ExactlyOnce);
    pair.step_client();
    let pubrec = pair.client.acknowledge(0);
    pair.send(pubrec);
    pair.step_client();
    pair.disconnect();
    pair.connect();
    pair.run();
    assert_eq!(pair.client.received, [7]);
    assert!(pair.session().state.inflight.next_unsent().is_none());
    assert_eq!(pair.session().window(), 4);
}

#[test]
fn the_window_opens_with_acknowledgements_in_any_order() {
    let mut pair = Pair::connected(Version::V5);
    for number in 1..=6 {
        pair.deliver(number, Qos::AtLeastOnce);
    }
    let sent = pair.take_sent();
    assert_eq!(sent.len(), 4);
    pair.send(Packet::PubAck(Ack::success(id(3))));
    pair.send(Packet::PubAck(Ack::success(id(1))));
    assert_eq!(pair.take_sent().len(), 2);
    assert_eq!(pair.session().window(), 0);
}

#[test]
fn silence_beyond_the_keep_alive_ends_the_connection() {
    let mut pair = Pair::connected(Version::V5);
    let begin = pair.now;
    let session = pair.session();
    assert_eq!(
        session.next_timeout(),
        Some(begin + Duration::from_secs(15))
    );
    let almost = begin + Duration::from_millis(14_999);
    assert_eq!(session.handle_timeout(almost, true), Ok(()));
    session
        .handle_packet(almost, Packet::PingReq, &mut Vec::new())
        .unwrap();
    let later = begin + Duration::from_secs(15);
    assert_eq!(session.handle_timeout(later, true), Ok(()));
    let end = almost + Duration::from_secs(15);
    assert_eq!(session.handle_timeout(end, false), Ok(()));
    assert_eq!(
        session.handle_timeout(end + Duration::from_secs(15), true),
        Err(ProtocolError::KeepAliveTimeout)
    );
}

#[test]
fn what_only_servers_send_is_refused() {
    let connack = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties::default(),
    }));
    for packet in [connack, Packet::PingResp] {
        let mut pair = Pair::connected(Version::V5);
        pair.send(packet);
        assert_eq!(pair.error, Some(ProtocolError::ServerPacket));
    }
}

#[test]
fn goodbye_tells_about_the_will_and_the_expiry() {
    for (reason, publish_will) in [
        (ReasonCode::Success, false),
        (ReasonCode::DisconnectWithWillMessage, true),
    ] {
        let mut pair = Pair::connected(Version::V5);
        pair.send(Packet::Disconnect(Disconnect {
            reason,
            properties: DisconnectProperties {
                session_expiry_interval: Some(7),
                ..DisconnectProperties::default()
            },
        }));
        assert_eq!(pair.goodbye, Some(publish_will));
        assert_eq!(pair.session.take().unwrap().end().session_expiry, 7);
    }
}

#[test]
fn subscribe_is_answered_once_both_parts_are() {
    let mut pair = Pair::connected(Version::V5);
    let wanted = |text: &'static str| SubscribeFilter {
        filter: TopicFilter::parse(text.into()).unwrap(),
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    };
    let mut out = Vec::new();
    let now = pair.now;
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: id(9),
        properties: SubscribeProperties::default(),
        filters: vec![wanted("a"), wanted("plug/b"), wanted("c")],
    });
    let session = pair.session();
    session.handle_packet(now, subscribe, &mut out).unwrap();
    let [Action::SubscribePlugin(theirs), Action::Subscribe(ours)] = &out[..] else {
        panic!("{out:?}")
    };
    let (theirs, ours) = (theirs.number, ours.number);
    let mut out = Vec::new();
    let granted = Answer::Reasons(vec![ReasonCode::GrantedQos1]);
    session.handle_answer(theirs, granted, &mut out).unwrap();
    assert!(out.is_empty() && !session.is_settled());
    // One Reason Code is missing: the filter counts as refused.
    let short = Answer::Reasons(vec![ReasonCode::Success]);
    session.handle_answer(ours, short, &mut out).unwrap();
    let [Action::Send(packet)] = &out[..] else {
        panic!("{out:?}")
    };
    let Packet::SubAck(ack) = &**packet else {
        panic!("{packet:?}")
    };
    assert_eq!(
        ack.reasons,
        [
            ReasonCode::Success,
            ReasonCode::GrantedQos1,
            ReasonCode::UnspecifiedError
        ]
    );
    assert!(session.is_settled());
}

#[test]
fn deliveries_beyond_the_window_are_held_not_lost() {
    let mut pair = Pair::connected(Version::V5);
    let deliveries = (1..=6)
        .map(|number| delivery(number, Qos::AtLeastOnce, None))
        .collect();
    pair.turn(|session, out| {
        session.handle_deliveries(deliveries, out);
        Ok(())
    });
    assert_eq!(pair.take_sent().len(), 4);
    assert!(pair.session().is_holding());
    pair.send(Packet::PubAck(Ack::success(id(1))));
    pair.send(Packet::PubAck(Ack::success(id(2))));
    assert_eq!(pair.take_sent().len(), 2);
    assert!(!pair.session().is_holding());
    assert_eq!(pair.outcomes.len(), 2);
}

#[test]
fn a_restored_delivery_keeps_its_identifier_and_new_ones_get_others() {
    let mut pair = Pair::connected(Version::V5);
    let inflight = (1..=3).map(|n| (id(u16::from(n)), DeliveryRef([n; 32])));
    let inflight: Vec<_> = inflight.collect();
    pair.session().restore(inflight.clone());
    let deliveries = vec![
        delivery(1, Qos::AtLeastOnce, Some(id(1))),
        delivery(3, Qos::AtLeastOnce, Some(id(3))),
        delivery(9, Qos::AtLeastOnce, None),
    ];
    pair.turn(|session, out| {
        session.handle_deliveries(deliveries, out);
        Ok(())
    });
    let sent: Vec<(u16, bool)> = pair
        .take_sent()
        .iter()
        .map(|packet| match packet {
            Packet::Publish(it) => (it.packet_id.unwrap().get(), it.dup),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [(1, true), (3, true), (4, false)]);
    // The second was never offered again: it is given back all the same.
    assert_eq!(pair.disconnect()[..3], inflight);
}

#[test]
fn acknowledgements_of_the_wrong_kind_are_errors() {
    let cases = [
        (Qos::AtLeastOnce, Packet::PubRec(Ack::success(id(1)))),
        (Qos::AtLeastOnce, Packet::PubComp(Ack::success(id(1)))),
        (Qos::ExactlyOnce, Packet::PubAck(Ack::success(id(1)))),
        (Qos::ExactlyOnce, Packet::PubComp(Ack::success(id(1)))),
    ];
    for (qos, packet) in cases {
        let mut pair = Pair::connected(Version::V5);
        pair.deliver(1, qos);
        pair.send(packet);
        assert_eq!(pair.error, Some(ProtocolError::WrongAck { packet_id: 1 }));
    }
}

#[test]
fn a_refused_qos2_delivery_is_over() {
    let mut pair = Pair::connected(Version::V5);
    pair.deliver(1, Qos::ExactlyOnce);
    pair.take_sent();
    pair.send(Packet::PubRec(Ack {
        packet_id: id(1),
        reason: ReasonCode::QuotaExceeded,
        properties: None,
    }));
    assert!(pair.take_sent().is_empty());
    assert_eq!(pair.session().window(), 4);
}

#[test]
fn reuse_of_an_identifier_before_pubcomp_is_an_error() {
    let mut pair = Pair::connected(Version::V5);
    let mut out = Vec::new();
    let now = pair.now;
    let qos2 = Packet::Publish(publish("plug/t", Qos::ExactlyOnce, Some(id(1)), 1));
    pair.send(qos2.clone());
    pair.answer(0);
    let session = pair.session();
    let release = Packet::PubRel(Ack::success(id(1)));
    session.handle_packet(now, release, &mut out).unwrap();
    assert_eq!(
        session.handle_packet(now, qos2, &mut out),
        Err(ProtocolError::PacketIdInUse { packet_id: 1 })
    );
}

#[test]
fn topics_have_aliases_from_the_first_message_on_and_not_when_they_are_sent_again() {
    let mut pair = Pair::connected(Version::V5);
    pair.deliver(1, Qos::AtLeastOnce);
    pair.deliver(2, Qos::AtMostOnce);
    let heads = |pair: &mut Pair| {
        let sent = pair.take_sent().into_iter();
        sent.filter_map(|packet| match packet {
            Packet::Publish(publish) => {
                Some((publish.topic.to_string(), publish.properties.topic_alias))
            }
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(
        heads(&mut pair),
        [("t".to_owned(), Some(1)), (String::new(), Some(1))]
    );
    pair.disconnect();
    pair.connect();
    assert_eq!(heads(&mut pair), [("t".to_owned(), None)]);
    pair.deliver(3, Qos::AtMostOnce);
    assert_eq!(heads(&mut pair), [("t".to_owned(), Some(1))]);
}

#[test]
fn a_packet_that_only_its_alias_makes_too_large_has_none() {
    let mut pair = Pair::connected(Version::V5);
    let queued = Publish {
        payload: Bytes::from_static(&[0; 4]),
        ..publish("t", Qos::AtMostOnce, None, 1)
    };
    let bytes = publish_len(&queued, &PublishHead::of(&queued), Version::V5);
    pair.session().terms.packet_bytes_max = u32::try_from(bytes).ok();
    pair.deliver(1, Qos::AtMostOnce);
    let Packet::Publish(sent) = pair.to_client.pop_front().unwrap() else {
        panic!("PUBLISH expected")
    };
    assert_eq!((&*sent.topic, sent.properties.topic_alias), ("t", None));
}

#[test]
fn what_was_never_sent_is_no_duplicate() {
    let mut pair = Pair::at_rest(Version::V5, |_| {});
    // The first waits to be at rest, the second stands behind it.
    pair.deliver(1, Qos::ExactlyOnce);
    pair.deliver(2, Qos::AtLeastOnce);
    assert_eq!(pair.take_sent(), []);
    pair.disconnect();
    let duplicates = |pair: &mut Pair| {
        pair.connect();
        pair.commit(usize::MAX);
        let sent = pair.take_sent().into_iter();
        sent.map(|packet| matches!(packet, Packet::Publish(publish) if publish.dup))
            .collect::<Vec<_>>()
    };
    assert_eq!(duplicates(&mut pair), [false, false]);
    pair.disconnect();
    assert_eq!(duplicates(&mut pair), [true, true]);
}

#[test]
fn what_was_never_sent_of_a_shared_subscription_is_for_others() {
    let mut pair = Pair::at_rest(Version::V5, |_| {});
    pair.deliver_by(Some("$share/g/t"), 1, Qos::ExactlyOnce);
    pair.commit(usize::MAX);
    assert_eq!(pair.take_sent().len(), 1);
    for (number, qos) in [(2, Qos::ExactlyOnce), (3, Qos::AtLeastOnce)] {
        pair.deliver_by(Some("$share/g/t"), number, qos);
    }
    pair.deliver(4, Qos::ExactlyOnce);
    pair.disconnect();
    let state = std::mem::take(&mut pair.kept);
    let left: Vec<u32> = state
        .into_shared()
        .map(|it| number_of(&it.publish))
        .collect();
    assert_eq!(left, [2, 3]);
}

/// Numbers of the ordinary messages that have been sent since the last call.
fn sent_numbers(pair: &mut Pair) -> Vec<u32> {
    let sent = pair.take_sent().into_iter();
    sent.filter_map(|packet| match packet {
        Packet::Publish(publish) => Some(number_of(&publish)),
        _ => None,
    })
    .collect()
}

#[test]
fn messages_in_flight_are_bounded_in_bytes() {
    let bytes = queue::size(&publish("t", Qos::AtLeastOnce, None, 0));
    let mut pair = Pair::new(Version::V5, |config| config.queue_bytes_max = 2 * bytes);
    for number in 1..=4 {
        pair.deliver(number, Qos::AtLeastOnce);
    }
    pair.queue.push_front(pair.queue[0].clone());
    pair.queue[0].qos = Qos::AtMostOnce;
    assert_eq!(sent_numbers(&mut pair), [1, 2]);
    pair.send(Packet::PubAck(Ack::success(id(1))));
    assert_eq!(sent_numbers(&mut pair), [3, 3], "QoS 0 takes no room");
    pair.disconnect();
    pair.connect();
    assert_eq!(sent_numbers(&mut pair), [2, 3]);
    pair.send(Packet::PubAck(Ack::success(id(2))));
    assert_eq!(sent_numbers(&mut pair), [4]);
    for number in [3, 4] {
        pair.send(Packet::PubAck(Ack::success(id(number))));
    }
    assert_eq!(pair.session().queue_bytes(), 2 * bytes);
}

#[test]
fn what_is_sent_again_waits_for_room_in_the_output_and_nothing_overtakes_it() {
    let mut pair = Pair::connected(Version::V5);
    for number in 1..=3 {
        pair.deliver(number, Qos::AtLeastOnce);
    }
    pair.disconnect();
    pair.take_sent();
    pair.output_bytes = 1;
    pair.connect();
    pair.deliver(4, Qos::AtLeastOnce);
    assert_eq!(sent_numbers(&mut pair), [1, 2]);
    assert!(pair.session().is_resuming());
    pair.output_bytes = 0;
    pair.turn(|_, _| Ok(()));
    assert_eq!(sent_numbers(&mut pair), [0; 0]);
    pair.output_bytes = usize::MAX;
    pair.turn(|_, _| Ok(()));
    assert_eq!(sent_numbers(&mut pair), [3, 4]);
    assert!(!pair.session().is_resuming());
}
