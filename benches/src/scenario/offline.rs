//! `offline`: messages for sessions whose clients are away, and how fast these get them when they come back.
//!
//! 1. N persistent sessions subscribe, and their clients go.
//! 2. Publishers send M messages to each, at most a window unacknowledged, and wait for all acks.
//! 3. All clients come back at one moment. The time until the last message is measured, connecting included.
//! 4. They listen a little longer for surplus. In chat, they mark it as read, so that the next run finds nothing waiting.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Bench;
use crate::args::{Topics, parse_payload, parse_qos};
use crate::client::{Client, Connected, Login};
use crate::clock::nanos;
use crate::crowd::{Role, connect_all, handle, login};
use crate::error::BenchError;
use crate::heard::{Arrival, Heard};
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{self, Latency, Report, Value, float};
use crate::rpc;

/// Options of `offline`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OfflineArgs {
    /// How many sessions
    #[arg(long, default_value = "100")]
    pub(crate) sessions: NonZeroU16,
    /// How many messages for each
    #[arg(long, default_value = "1000")]
    pub(crate) messages: NonZeroU32,
    /// QoS of the subscriptions (publishes are at 1)
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: Qos,
    /// Payload in bytes, at least 40
    #[arg(long, default_value = "100", value_parser = parse_payload)]
    pub(crate) payload: usize,
    /// Unacknowledged publishes per publisher
    #[arg(long, default_value = "100")]
    pub(crate) window: NonZeroU16,
    /// Where to publish: to topics, or to users of mqchat, a device each
    #[arg(long, value_enum, default_value = "plain")]
    pub(crate) topics: Topics,
}

pub(super) async fn run(bench: Bench, args: &OfflineArgs) -> Result<Report, BenchError> {
    let bench = Offline {
        bench: bench.on(args.topics),
        args,
    };
    let (server, clock) = (&bench.bench.server, bench.bench.clock);
    if args.topics == Topics::Chat {
        rpc::ask_for_chat(&bench.bench).await?;
    }
    bench.leave_sessions().await?;
    let memory = |server: &Option<Process>| server.as_ref().map(Process::rss_kb).transpose();
    let before = memory(server)?;
    let publishers = bench.publishers().await?;
    let begun = clock.elapsed();
    bench.fill(publishers).await?;
    let filled = clock.elapsed().saturating_sub(begun);
    let full = memory(server)?;
    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let drained = bench.drain().await?;
    let cpu = server.as_ref().map(Process::cpu).transpose()?;
    let (seen, left) = bench.leave(drained).await;

    let all = bench.all();
    let mut report = Report::new("offline");
    report.value("messages", Value::Count(all));
    let per_s = |count: u64, time: Duration| Value::Rate(float(count) / time.as_secs_f64());
    report.value("acked_per_s", per_s(all, filled));
    report.value("drained", Value::Count(seen.arrived));
    report.value("drained_per_s", per_s(seen.arrived, seen.last));
    report.value("repeated", Value::Count(seen.repeated));
    report.value("reordered", Value::Count(seen.reordered));
    report.latency("session_drained", &seen.took);
    if let (Some(server), Some(cpu_before), Some(cpu)) = (server, cpu_before, cpu) {
        let cpu = cpu.saturating_sub(cpu_before).as_secs_f64();
        let each = cpu * 1e6 / float(seen.arrived.max(1));
        report.value("server_cpu_us_per_delivered", Value::Fraction(each));
        report.value("server_rss_kb_before", Value::Count(before.unwrap_or(0)));
        report.value("server_rss_kb_full", Value::Count(full.unwrap_or(0)));
        report.value("server_rss_kb_after", Value::Count(server.rss_kb()?));
    }
    if let Err(error) = left {
        report.note(format!("leaving: {error}"));
    }
    report.checks(report::ALL_CAME);
    report.fault_if(seen.arrived < all, "acknowledged messages did not arrive");
    report.fault_if(seen.reordered > 0, "messages came out of order");
    report.fault_if(seen.repeated > 0, "messages came twice on one connection");
    Ok(report)
}

struct Offline<'a> {
    bench: Bench,
    args: &'a OfflineArgs,
}

/// What the sessions got.
#[derive(Debug, Default)]
struct Seen {
    arrived: u64,
    repeated: u64,
    reordered: u64,
    /// From the moment when all come back until one got its last message.
    took: Latency,
    /// The same of who got it last.
    last: Duration,
}

/// A session that has come back.
struct Back {
    client: Client,
    heard: Heard,
    repeated: u64,
    reordered: u64,
    /// In chat: where the messages came from.
    conversation: Option<String>,
    /// From the moment when all come back to the last message.
    last: Duration,
}

impl Offline<'_> {
    fn all(&self) -> u64 {
        u64::from(self.args.sessions.get()) * u64::from(self.args.messages.get())
    }

    fn sessions(&self) -> usize {
        usize::from(self.args.sessions.get())
    }

    fn login(&self, session: usize) -> Login {
        let role = Role::Subscriber;
        let mut login = login(
            &self.bench.target,
            role,
            session,
            session,
            self.bench.run,
            true,
        );
        // Not what an earlier run left.
        login.client_id = format!("{}-{:08x}", login.client_id, self.bench.run);
        login
    }

    fn topic(&self, session: usize) -> String {
        let user = handle(&self.bench.target, Role::Subscriber, session).unwrap_or_default();
        match self.args.topics {
            Topics::Plain => format!("bench/{:08x}/{session}", self.bench.run),
            Topics::Chat => format!("chat/to/@{user}"),
        }
    }

    async fn leave_sessions(&self) -> Result<(), BenchError> {
        let logins = (0..self.sessions()).map(|session| self.login(session));
        let all = Goal::Count(self.sessions() as u64);
        self.bench.progress.phase("leaving sessions", all);
        let connected = connect_all(&self.bench, logins.collect()).await?;
        for (session, mut connected) in connected.into_iter().enumerate() {
            let filter = match self.args.topics {
                Topics::Plain => self.topic(session),
                Topics::Chat => "chat/me/in/+".to_owned(),
            };
            let client = &mut connected.client;
            match self.args.topics {
                Topics::Plain => client.subscribe_at(&filter, self.args.qos).await?,
                // Chat delivers at 1 at most.
                Topics::Chat => drop(client.subscribe(&filter, self.args.qos).await?),
            }
            connected.client.leave().await?;
        }
        Ok(())
    }

    async fn publishers(&self) -> Result<Vec<Connected>, BenchError> {
        const PUBLISHERS: usize = 10;
        let (target, run) = (&self.bench.target, self.bench.run);
        let logins = (0..PUBLISHERS.min(self.sessions()))
            .map(|index| login(target, Role::Publisher, index, index, run, false));
        connect_all(&self.bench, logins.collect()).await
    }

    async fn fill(&self, publishers: Vec<Connected>) -> Result<(), BenchError> {
        let all = Goal::Count(self.all());
        self.bench.progress.phase("filling", all);
        let mut tasks = JoinSet::new();
        let count = publishers.len();
        for (index, connected) in publishers.into_iter().enumerate() {
            let topics = (index..self.sessions()).step_by(count);
            let topics: Vec<String> = topics.map(|session| self.topic(session)).collect();
            let (messages, payload) = (self.args.messages.get(), self.args.payload);
            let limit = connected.connack.properties.receive_maximum;
            let window = self.args.window.get().min(limit.unwrap_or(u16::MAX));
            tasks.spawn(fill_topics(
                connected.client,
                topics,
                (messages, payload),
                window,
                self.bench.clone(),
            ));
        }
        while let Some(finished) = tasks.join_next().await {
            finished??;
        }
        Ok(())
    }

    /// Everybody comes back and takes what there is.
    async fn drain(&self) -> Result<Vec<Back>, BenchError> {
        let mut tasks = JoinSet::new();
        let all = Goal::Count(self.all());
        self.bench.progress.phase("draining", all);
        let begun = self.bench.clock.elapsed();
        for session in 0..self.sessions() {
            let (login, bench) = (self.login(session), self.bench.clone());
            let messages = self.args.messages.get().into();
            tasks.spawn(async move {
                let mut back = Back::connect(&login, &bench).await?;
                back.drain(messages, begun, &bench).await?;
                Ok::<_, BenchError>(back)
            });
        }
        let mut all = Vec::with_capacity(self.sessions());
        while let Some(finished) = tasks.join_next().await {
            all.push(finished??);
        }
        Ok(all)
    }

    /// Listens for surplus, and says goodbye. An error there changes no figure.
    async fn leave(&self, all: Vec<Back>) -> (Seen, Result<(), BenchError>) {
        let (mut seen, mut result) = (Seen::default(), Ok(()));
        let mut tasks = JoinSet::new();
        for mut back in all {
            let bench = self.bench.clone();
            tasks.spawn(async move {
                let lingered = back.linger(&bench).await;
                (back.seen(), lingered.and(back.leave().await))
            });
        }
        while let Some(finished) = tasks.join_next().await {
            match finished {
                Ok((one, left)) => {
                    seen.add(&one);
                    result = result.and(left);
                }
                Err(error) => result = Err(error.into()),
            }
        }
        (seen, result)
    }
}

/// Sends the numbers 0, 1, 2 … of this run to each topic in turn.
async fn fill_topics(
    mut client: Client,
    topics: Vec<String>,
    (messages, bytes): (u32, usize),
    window: u16,
    bench: Bench,
) -> Result<(), BenchError> {
    let mut open = 0;
    let mut last_id = 0_u16;
    for number in 0..messages {
        let mut payload = BytesMut::with_capacity(bytes);
        payload.put_slice(mark(bench.run).as_bytes());
        payload.put_slice(format!("{number:010}").as_bytes());
        payload.resize(bytes, b'x');
        let payload = payload.freeze();
        for topic in &topics {
            while open >= window {
                settle(&mut client, &mut open).await?;
            }
            last_id = last_id % u16::MAX + 1;
            client.push(&publish(topic, last_id, payload.clone()));
            open += 1;
        }
        client.write()?;
        bench.progress.advance(topics.len() as u64);
    }
    while open > 0 {
        settle(&mut client, &mut open).await?;
    }
    client.disconnect().await
}

/// Waits for one ack.
async fn settle(client: &mut Client, open: &mut u16) -> Result<(), BenchError> {
    match client.answer().await? {
        Packet::PubAck(ack) if !ack.reason.is_error() => {
            *open -= 1;
            Ok(())
        }
        other => Err(client.unexpected(&other)),
    }
}

fn publish(topic: &str, packet_id: u16, payload: Bytes) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: topic.into(),
        packet_id: PacketId::new(packet_id),
        payload,
        properties: PublishProperties::default().into(),
    })
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.took.add(&other.took);
        self.last = self.last.max(other.last);
    }
}

impl Back {
    async fn connect(login: &Login, bench: &Bench) -> Result<Self, BenchError> {
        let connected = Client::connect(login, bench.clock).await?;
        Ok(Self::new(connected.client))
    }

    fn new(client: Client) -> Self {
        Self {
            client,
            heard: Heard::default(),
            repeated: 0,
            reordered: 0,
            conversation: None,
            last: Duration::ZERO,
        }
    }

    /// Takes everything, as long as something comes.
    async fn drain(
        &mut self,
        messages: u64,
        begun: Duration,
        bench: &Bench,
    ) -> Result<(), BenchError> {
        let mark = mark(bench.run);
        while self.heard.count() < messages {
            let Ok(packet) = timeout(QUIET, self.client.next()).await else {
                break; // what is missing is lost
            };
            if self.take(&packet?, &mark)? {
                self.last = bench.clock.elapsed().saturating_sub(begun);
                bench.progress.advance(1);
            }
        }
        Ok(())
    }

    /// Takes what comes although everything has come.
    async fn linger(&mut self, bench: &Bench) -> Result<(), BenchError> {
        let mark = mark(bench.run);
        while let Ok(packet) = timeout(LINGER, self.client.next()).await {
            self.take(&packet?, &mark)?;
        }
        Ok(())
    }

    /// True if it is a message of this run that had not come before.
    fn take(&mut self, packet: &Packet, mark: &str) -> Result<bool, BenchError> {
        let message = match packet {
            Packet::Publish(message) => message,
            Packet::PubRel(ack) => {
                let complete = Ack::success(ack.packet_id);
                self.client.push(&Packet::PubComp(complete));
                return Ok(false);
            }
            other => return Err(self.client.unexpected(other)),
        };
        self.client.acknowledge(message);
        // What an earlier run left has no number here.
        let number = number_in(&message.payload, mark).and_then(|it| u32::try_from(it).ok());
        let Some(number) = number else {
            return Ok(false);
        };
        if self.conversation.is_none() {
            let cid = message.topic.strip_prefix("chat/me/in/");
            self.conversation = cid.map(str::to_owned);
        }
        let arrival = self.heard.note(number);
        self.repeated += u64::from(arrival == Arrival::Repeated);
        self.reordered += u64::from(arrival == Arrival::Reordered);
        Ok(arrival != Arrival::Repeated)
    }

    fn seen(&self) -> Seen {
        let mut took = Latency::default();
        took.record(nanos(self.last));
        Seen {
            arrived: self.heard.count(),
            repeated: self.repeated,
            reordered: self.reordered,
            took,
            last: self.last,
        }
    }

    async fn leave(mut self) -> Result<(), BenchError> {
        if let Some(cid) = &self.conversation {
            let topic = format!("chat/c/{cid}/read");
            let marked = self.client.publish_and_wait(&topic, Bytes::new(), |_| {});
            marked.await?;
        }
        self.client.disconnect().await
    }
}

/// Before the number of each message of a run.
fn mark(run: u32) -> String {
    format!("mqo~{run:08x}~")
}

/// The number behind the mark in a payload, also inside of a JSON entry.
fn number_in(payload: &[u8], mark: &str) -> Option<u64> {
    let mark = mark.as_bytes();
    let at = if payload.starts_with(mark) {
        0
    } else {
        payload.windows(mark.len()).position(|part| part == mark)?
    };
    let digits = payload.get(at + mark.len()..)?;
    std::str::from_utf8(digits.get(..10)?).ok()?.parse().ok()
}

/// Nothing for so long means that nothing more comes.
const QUIET: Duration = Duration::from_secs(30);
/// How long surplus is listened for.
const LINGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use broker::codec::packet::Version;

    use super::*;

    #[test]
    fn a_number_is_found_in_plain_payloads_and_in_entries() {
        let mark = mark(10);
        assert_eq!(number_in(b"mqo~0000000a~0000000042xxxx", &mark), Some(42));
        let entry = br#"{"seq":7,"kind":"message","t":"mqo~0000000a~0000000043xx"}"#;
        assert_eq!(number_in(entry, &mark), Some(43));
        let earlier = br#"{"seq":7,"kind":"message","t":"mqo~0000000b~0000000043xx"}"#;
        assert_eq!(number_in(earlier, &mark), None);
        assert_eq!(number_in(b"nonsense", &mark), None);
    }

    #[tokio::test]
    async fn what_comes_late_is_out_of_order_and_neither_repeated_nor_missing() {
        let (client, _broker) = Client::of_test(Version::V5).await;
        let mut back = Back::new(client);
        let mark = mark(10);
        let mut first = Vec::new();
        for number in [0, 2, 1, 3, 3] {
            let payload = format!("{mark}{number:010}xx");
            let packet = publish("chat/me/in/c", 1, payload.into());
            first.push(back.take(&packet, &mark).unwrap());
        }
        let seen = back.seen();
        assert_eq!(first, [true, true, true, true, false]);
        assert_eq!((seen.arrived, seen.reordered, seen.repeated), (4, 1, 1));
        assert_eq!(back.conversation.as_deref(), Some("c"));
    }
}
