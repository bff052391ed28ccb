//! A client of plain MQTT, 3.1.1 or 5, on a kept session: in mqchat's topics or in ordinary ones.
//!
//! 1. It connects, subscribes unless its session is there, and sends again what was not settled: in order, under the same packet
//!    and message identifiers.
//! 2. It sends, marks as read and asks, and holds some deliveries for a while.
//! 3. A delivery is recorded, then acknowledged. What it held when its connection ended comes again.

mod calls;
mod flight;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use broker::codec::packet::{
    Ack, Packet, PacketId, Publish, Qos, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    Version,
};
use broker::codec::properties::SubscribeProperties;
use broker::codec::topic::TopicFilter;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Phase, abandoned, entry, say};
use crate::check::history::{Event, Journal, Kind, Record, Seen};
use crate::check::world::{Part, World};
use crate::client::{Client, Login};
use crate::clock::{self, Clock};
use crate::error::BenchError;
use crate::random::Random;
use calls::{Call, Reply};
use flight::Flights;

/// One worker, over all of its connections.
pub(super) struct Worker<'a> {
    world: &'a World,
    part: &'a Part,
    journal: Journal,
    random: Random,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    flights: Flights,
    /// Number of the next message.
    next: u64,
    /// The session has its subscriptions.
    ready: bool,
    /// Deliveries at QoS 2 that are recorded and whose identifiers are not released.
    taken: HashSet<u16>,
    held: VecDeque<Publish>,
    /// By conversation: the last place that came.
    reached: BTreeMap<String, u64>,
    /// By conversation: the last place that was marked.
    marked: BTreeMap<String, u64>,
    /// Messages that an event told to be refused, for 3.1.1.
    refused: BTreeMap<String, String>,
    call: Option<Call>,
    /// The reply that is waited for.
    reply: Option<Reply>,
    times: Times,
    is_quiet: bool,
    /// Whom it removes is out at the moment.
    has_removed: bool,
}

/// When things are due, from the beginning of the process.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    send: Duration,
    mark: Duration,
    ask: Duration,
    remove: Duration,
    /// Deliveries are held until then.
    slow: Duration,
    /// When the next slow time may begin.
    brisk: Duration,
    heard: Duration,
    pinged: Duration,
    /// When the last delivery came.
    arrived: Duration,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        world: &'a World,
        part: &'a Part,
        journal: Journal,
        before: &[Record],
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let lives = before
            .iter()
            .filter(|one| matches!(one.event, Event::Began { .. }));
        let life = format!("{}-{}", part.name, lives.count());
        let mut worker = Self {
            world,
            part,
            journal,
            random: Random::named(world.seed, &life),
            clock: Clock::start(),
            phase,
            flights: Flights::restore(before),
            next: crate::check::history::unsettled(before).0,
            ready: false,
            taken: HashSet::new(),
            held: VecDeque::new(),
            reached: BTreeMap::new(),
            marked: BTreeMap::new(),
            refused: BTreeMap::new(),
            call: None,
            reply: None,
            times: Times {
                remove: REMOVE_AFTER,
                ..Times::default()
            },
            is_quiet: false,
            has_removed: false,
        };
        for record in before {
            worker.recall(&record.event);
        }
        worker
    }

    /// What an earlier life wrote.
    fn recall(&mut self, event: &Event) {
        match event {
            Event::Ready { .. } => self.ready = true,
            Event::Connected { present: false } => {
                self.ready = false;
                self.taken.clear();
            }
            Event::Got { seen, packet_id } => {
                self.reached.insert(seen.to.clone(), seen.seq);
                self.taken.extend(packet_id);
            }
            Event::Released { packet_id } => {
                self.taken.remove(packet_id);
            }
            Event::Called { method, .. } => self.has_removed = method == calls::REMOVE,
            _ => {}
        }
    }

    pub(super) async fn live(mut self) -> Result<(), BenchError> {
        loop {
            match self.connect_and_work().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_connection() => {
                    let why = error.to_string();
                    self.journal.write(Event::Lost { why })?;
                }
                Err(error) => return Err(error),
            }
            if *self.phase.borrow() == Phase::Gone {
                return Err(abandoned());
            }
            sleep(Duration::from_millis(self.random.between(10, 60))).await;
        }
    }

    async fn connect_and_work(&mut self) -> Result<(), BenchError> {
        let login = self.login();
        let connecting = timeout(PATIENCE, Client::connect(&login, self.clock)).await;
        let connected = connecting.map_err(|_| self.silent())??;
        let (mut client, present) = (connected.client, connected.connack.session_present);
        self.journal.write(Event::Connected { present })?;
        self.held.clear();
        if !present {
            self.ready = false;
            self.taken.clear();
            self.flights.forget_session();
        }
        let now = self.clock.elapsed();
        (self.times.heard, self.times.pinged) = (now, now);
        if !self.ready && self.part.listen.is_empty() {
            self.get_ready()?; // it only publishes
        } else if !self.ready {
            client.push(&self.subscription()?);
        }
        self.flights
            .send_again(&mut client, present, &mut self.journal)?;
        self.ask_again(&mut client);
        loop {
            self.turn(&mut client).await?;
            let phase = *self.phase.borrow();
            match phase {
                Phase::Go if self.ready => self.act(&mut client)?,
                Phase::Wait | Phase::Go => {}
                Phase::Quiet => self.settle()?,
                Phase::End => {
                    self.finish(&mut client).await?;
                    self.journal.write(Event::Ended)?;
                    say("end")?;
                    return client.leave().await;
                }
                Phase::Gone => return Err(abandoned()),
            }
        }
    }

    fn login(&self) -> Login {
        Login {
            addr: self.world.address,
            version: if self.part.mqtt == 3 {
                Version::V311
            } else {
                Version::V5
            },
            client_id: format!("check-{}", self.part.name),
            user: self.part.password.as_ref().map(|_| self.part.name.clone()),
            password: self.part.password.clone(),
            persistent: true,
        }
    }

    fn is_chat(&self) -> bool {
        self.part.kind == Kind::Chat
    }

    fn subscription(&self) -> Result<Packet, BenchError> {
        let chat = [
            "chat/me/in/+",
            "chat/me/rpc/+",
            "chat/me/rcpt/+",
            "chat/me/err/+",
        ];
        let names: Vec<&str> = if self.is_chat() {
            chat.into()
        } else {
            self.part.listen.iter().map(String::as_str).collect()
        };
        let filter = |name: &str| {
            let filter = TopicFilter::parse(name.into());
            Ok(SubscribeFilter {
                filter: filter.map_err(|_| BenchError::Filter(name.to_owned()))?,
                qos: Qos::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Always,
            })
        };
        Ok(Packet::Subscribe(Subscribe {
            packet_id: SUBSCRIBE_ID,
            properties: SubscribeProperties::default(),
            filters: names
                .into_iter()
                .map(filter)
                .collect::<Result<_, BenchError>>()?,
        }))
    }

    /// Reads and writes for a moment, takes what came and lets go what was held long enough.
    async fn turn(&mut self, client: &mut Client) -> Result<(), BenchError> {
        client.write()?;
        if let Ok(pumped) = timeout(TICK, client.pump()).await {
            pumped?;
        }
        while let Some(packet) = client.next_packet()? {
            self.times.heard = self.clock.elapsed();
            self.take(packet, client)?;
        }
        let now = self.clock.elapsed();
        if now.saturating_sub(self.times.heard) > PATIENCE {
            return Err(self.silent());
        }
        if now.saturating_sub(self.times.heard.max(self.times.pinged)) > PING_AFTER {
            self.times.pinged = now;
            client.push(&Packet::PingReq);
        }
        self.hold_or_let_go(now, client)
    }

    fn silent(&self) -> BenchError {
        BenchError::Timeout {
            client: self.part.name.clone(),
            seconds: PATIENCE.as_secs(),
        }
    }

    fn hold_or_let_go(&mut self, now: Duration, client: &mut Client) -> Result<(), BenchError> {
        let is_busy = *self.phase.borrow() == Phase::Go;
        if is_busy && now >= self.times.brisk {
            let slow = Duration::from_millis(self.random.between(50, 700));
            self.times.slow = now + slow;
            self.times.brisk = now + slow + Duration::from_millis(self.random.between(100, 1_500));
        }
        if (is_busy && now < self.times.slow) || self.held.is_empty() {
            return Ok(());
        }
        let mut events = Vec::with_capacity(self.held.len());
        for publish in &self.held {
            let at_2 = (publish.qos == Qos::ExactlyOnce)
                .then_some(publish.packet_id)
                .flatten();
            let packet_id = at_2.map(PacketId::get);
            if packet_id.is_some_and(|packet_id| !self.taken.insert(packet_id)) {
                continue; // recorded before; only its PUBREC was lost
            }
            let seen = if self.is_chat() {
                let entry: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                entry::of_json(&entry, &self.world.users)
            } else {
                entry::of_publish(publish)
            };
            self.reached.insert(seen.to.clone(), seen.seq);
            events.push(Event::Got { seen, packet_id });
        }
        self.journal.write_all(events)?;
        for publish in self.held.drain(..) {
            client.acknowledge(&publish);
        }
        Ok(())
    }

    fn take(&mut self, packet: Packet, client: &mut Client) -> Result<(), BenchError> {
        match packet {
            Packet::SubAck(suback) => self.subscribed(&suback),
            Packet::Publish(publish) => self.delivered(publish, client),
            Packet::PubAck(ack) => self.answered(&ack, Qos::AtLeastOnce, client),
            Packet::PubRec(ack) => self.answered(&ack, Qos::ExactlyOnce, client),
            Packet::PubRel(ack) => {
                let packet_id = ack.packet_id.get();
                if self.taken.remove(&packet_id) {
                    self.journal.write(Event::Released { packet_id })?;
                }
                client.push(&Packet::PubComp(Ack::success(ack.packet_id)));
                Ok(())
            }
            Packet::PubComp(ack) => match self.flights.complete(ack.packet_id.get()) {
                Some(id) => self.journal.write(Event::Completed { id }),
                None => Ok(()),
            },
            Packet::PingResp => Ok(()),
            other => Err(client.unexpected(&other)),
        }
    }

    fn subscribed(&mut self, suback: &SubAck) -> Result<(), BenchError> {
        if let Some(reason) = suback.reasons.iter().find(|reason| reason.is_error()) {
            return Err(BenchError::SubscriptionRefused {
                client: self.part.name.clone(),
                filter: self.part.listen.join(" "),
                reason: *reason,
            });
        }
        self.get_ready()
    }

    fn get_ready(&mut self) -> Result<(), BenchError> {
        self.ready = true;
        let to = self.part.listen.clone();
        self.journal.write(Event::Ready { to })?;
        say("ready")
    }

    fn delivered(&mut self, publish: Publish, client: &mut Client) -> Result<(), BenchError> {
        self.times.arrived = self.clock.elapsed();
        if !self.is_chat() || publish.topic.starts_with("chat/me/in/") {
            self.held.push_back(publish); // at most Receive Maximum
            return Ok(());
        }
        let value: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
        if let Some(id) = publish.topic.strip_prefix("chat/me/rpc/") {
            self.replied(id, value)?;
        } else if publish.topic.starts_with("chat/me/rcpt/") {
            let events = self.receipts(&value);
            self.journal.write_all(events)?;
        } else if let Some(id) = publish.topic.strip_prefix("chat/me/err/") {
            let reason = value.get("error").and_then(Value::as_str);
            self.refused
                .insert(id.to_owned(), reason.unwrap_or("?").to_owned());
        }
        client.acknowledge(&publish);
        Ok(())
    }

    fn receipts(&self, value: &Value) -> Vec<Event> {
        let to = value.get("cid").and_then(Value::as_str).unwrap_or_default();
        let moves = value.get("moves").and_then(Value::as_array);
        let receipt = |one: &Value| {
            let uid = one.get("u").and_then(Value::as_str)?;
            Some(Event::Receipt {
                to: to.to_owned(),
                user: self.world.users.get(uid)?.clone(),
                delivered: entry::number(one, "d"),
                read: entry::number(one, "r"),
            })
        };
        moves.into_iter().flatten().filter_map(receipt).collect()
    }

    /// PUBACK or PUBREC.
    fn answered(&mut self, ack: &Ack, qos: Qos, client: &mut Client) -> Result<(), BenchError> {
        // `None` of a call, whose reply counts.
        if let Some(settled) = self.flights.answer(ack, &mut self.refused) {
            self.journal.write(settled)?;
        }
        if qos == Qos::ExactlyOnce && !ack.reason.is_error() {
            client.push(&Packet::PubRel(Ack::success(ack.packet_id)));
        }
        Ok(())
    }

    /// Sends, marks, asks and removes what is due.
    fn act(&mut self, client: &mut Client) -> Result<(), BenchError> {
        let now = self.clock.elapsed();
        if now >= self.times.send && self.flights.len() < WINDOW {
            let pause = self
                .random
                .between(SEND_PAUSE_MS / 2, SEND_PAUSE_MS * 3 / 2);
            self.times.send = now + Duration::from_millis(pause);
            if let Some(to) = self.random.pick(&self.targets()) {
                let id = format!("{}-{}", self.part.name, self.next);
                self.next += 1;
                self.flights
                    .send((id, to), self.part.qos, client, &mut self.journal)?;
            }
        }
        if !self.is_chat() {
            return Ok(());
        }
        if now >= self.times.mark {
            self.times.mark = now + Duration::from_millis(self.random.between(200, 900));
            self.mark(client)?;
        }
        if self.part.removes.is_some() && now >= self.times.remove && self.call.is_none() {
            self.times.remove = now + Duration::from_millis(self.random.between(2_500, 9_000));
            self.remove_or_add(client)?;
        }
        if now >= self.times.ask && self.call.is_none() {
            self.times.ask = now + Duration::from_millis(self.random.between(300, 1_000));
            if let Some(to) = self.random.pick(&self.listened()) {
                self.ask_state(to, client);
            }
        }
        Ok(())
    }

    fn targets(&self) -> Vec<&'a str> {
        self.part.to.iter().map(String::as_str).collect()
    }

    fn listened(&self) -> Vec<&'a str> {
        self.part.listen.iter().map(String::as_str).collect()
    }

    /// Marks what came as read, up to some place, for others to see or not.
    fn mark(&mut self, client: &mut Client) -> Result<(), BenchError> {
        let Some(to) = self.random.pick(&self.listened()) else {
            return Ok(());
        };
        let reached = self.reached.get(to).copied().unwrap_or(0);
        let marked = self.marked.get(to).copied().unwrap_or(0);
        if reached <= marked {
            return Ok(());
        }
        let seq = self.random.between(marked + 1, reached + 1);
        self.marked.insert(to.to_owned(), seq);
        let private = self.random.below(4) == 0;
        self.flights
            .mark((to, seq, private), client, &mut self.journal)
    }

    /// Nothing new: until all is settled.
    fn settle(&mut self) -> Result<(), BenchError> {
        if !self.is_quiet && self.ready && self.flights.is_empty() && self.call.is_none() {
            self.is_quiet = true;
            self.journal.write(Event::Quiet)?;
            say("quiet")?;
        }
        Ok(())
    }

    /// Takes what is still to come, and records what the server has.
    async fn finish(&mut self, client: &mut Client) -> Result<(), BenchError> {
        if !self.is_chat() {
            self.times.arrived = self.clock.elapsed();
            return self.until_nothing_comes(client, PLAIN_SILENCE).await;
        }
        for to in self.listened() {
            let asked = self.state_of(to, client).await?;
            let head = asked.map_or(0, |state| state.head);
            self.times.arrived = self.clock.elapsed();
            while self.reached.get(to).copied().unwrap_or(0) < head {
                if self.clock.elapsed().saturating_sub(self.times.arrived) > CHAT_SILENCE {
                    break; // what is missing now is missing
                }
                self.turn(client).await?;
            }
            let asked = clock::monotonic_micros();
            if let Some(state) = self.state_of(to, client).await? {
                let to = to.to_owned();
                self.journal.write(Event::State { to, asked, state })?;
            }
            let (head, entries) = self.log_of(to, client).await?;
            let to = to.to_owned();
            self.journal.write(Event::Log { to, head, entries })?;
        }
        self.times.arrived = self.clock.elapsed();
        self.until_nothing_comes(client, LEAK_SILENCE).await
    }

    async fn until_nothing_comes(
        &mut self,
        client: &mut Client,
        silence: Duration,
    ) -> Result<(), BenchError> {
        while self.clock.elapsed().saturating_sub(self.times.arrived) < silence {
            self.turn(client).await?;
        }
        Ok(())
    }

    /// The whole log as this user sees it, and its head.
    async fn log_of(
        &mut self,
        to: &str,
        client: &mut Client,
    ) -> Result<(u64, Vec<Seen>), BenchError> {
        let (mut entries, mut head) = (Vec::new(), 0);
        loop {
            let after = entries.last().map_or(0, |seen: &Seen| seen.seq);
            let asked = serde_json::json!({"cid": to, "after": after, "limit": PAGE});
            let Some(page) = self.ask("msg.history", &asked, client).await? else {
                return Ok((head, entries));
            };
            head = entry::number(&page, "head");
            let listed = page.get("entries").and_then(Value::as_array);
            let read = |entry| entry::of_json(entry, &self.world.users);
            entries.extend(listed.into_iter().flatten().map(read));
            if page.get("more") != Some(&Value::Bool(true)) {
                return Ok((head, entries));
            }
        }
    }
}

const SUBSCRIBE_ID: PacketId = match PacketId::new(u16::MAX) {
    Some(packet_id) => packet_id,
    None => unreachable!(),
};
/// Messages that wait for their acks.
const WINDOW: usize = 12;
const SEND_PAUSE_MS: u64 = 20;
/// The group has something to say before somebody is removed.
const REMOVE_AFTER: Duration = Duration::from_secs(2);
/// How long one turn waits for the socket.
const TICK: Duration = Duration::from_millis(10);
const PING_AFTER: Duration = Duration::from_millis(800);
/// A connection on which nothing comes for so long is given up.
const PATIENCE: Duration = Duration::from_secs(4);
/// So long after the last delivery nothing is expected any more, if something is missing.
const CHAT_SILENCE: Duration = Duration::from_secs(8);
/// … of ordinary topics, where nobody knows what is to come.
const PLAIN_SILENCE: Duration = Duration::from_secs(2);
/// … of what nobody should get.
const LEAK_SILENCE: Duration = Duration::from_millis(300);
/// Entries of the log at once.
const PAGE: u32 = 500;
