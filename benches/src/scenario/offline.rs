//! `offline`: messages for sessions whose clients are away, and how fast these get them when they come back.
//!
//! 1. N persistent sessions subscribe, and their clients go.
//! 2. Publishers send M messages to each, at most a window unacknowledged, and wait for all acks.
//! 3. All clients come back at one moment. The time until the last one has everything is measured, connecting included.
//! 4. In chat, they mark it as read, so that the next run finds nothing waiting.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Bench;
use crate::args::{Topics, parse_payload, parse_qos};
use crate::client::{Client, Login};
use crate::clock::nanos;
use crate::crowd::{Role, connect_all, handle, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{Latency, Report, Value, float};

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
    bench.leave_sessions().await?;
    let memory = |server: &Option<Process>| server.as_ref().map(Process::rss_kb).transpose();
    let before = memory(server)?;
    let begun = clock.elapsed();
    bench.fill().await?;
    let filled = clock.elapsed().saturating_sub(begun);
    let full = memory(server)?;
    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let begun = clock.elapsed();
    let seen = bench.drain().await?;
    let drained = clock.elapsed().saturating_sub(begun);

    let all = bench.all();
    let mut report = Report::new("offline");
    report.value("messages", Value::Count(all));
    let per_s = |seconds: f64| Value::Rate(float(all) / seconds);
    report.value("acked_per_s", per_s(filled.as_secs_f64()));
    report.value("drained", Value::Count(seen.arrived));
    report.value("drained_per_s", per_s(drained.as_secs_f64()));
    report.value("repeated", Value::Count(seen.repeated));
    report.value("reordered", Value::Count(seen.reordered));
    report.latency("session_drained", &seen.took);
    if let (Some(server), Some(cpu_before)) = (server, cpu_before) {
        let cpu = server.cpu()?.saturating_sub(cpu_before).as_secs_f64();
        let each = cpu * 1e6 / float(seen.arrived.max(1));
        report.value("server_cpu_us_per_delivered", Value::Fraction(each));
        report.value("server_rss_kb_before", Value::Count(before.unwrap_or(0)));
        report.value("server_rss_kb_full", Value::Count(full.unwrap_or(0)));
        report.value("server_rss_kb_after", Value::Count(server.rss_kb()?));
    }
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
    /// From the moment when all come back until one has everything.
    took: Latency,
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
            connected.client.subscribe(&filter, self.args.qos).await?;
            connected.client.leave().await?;
        }
        Ok(())
    }

    async fn fill(&self) -> Result<(), BenchError> {
        const PUBLISHERS: usize = 10;
        let (target, run) = (&self.bench.target, self.bench.run);
        let logins = (0..PUBLISHERS.min(self.sessions()))
            .map(|index| login(target, Role::Publisher, index, index, run, false));
        let publishers = connect_all(&self.bench, logins.collect()).await?;
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

    async fn drain(&self) -> Result<Seen, BenchError> {
        let mut tasks = JoinSet::new();
        let all = Goal::Count(self.all());
        self.bench.progress.phase("draining", all);
        let begun = self.bench.clock.elapsed();
        for session in 0..self.sessions() {
            let (login, bench) = (self.login(session), self.bench.clone());
            tasks.spawn(drain_session(login, bench, self.args.messages.get(), begun));
        }
        let mut all = Seen::default();
        while let Some(finished) = tasks.join_next().await {
            let seen = finished??;
            all.arrived += seen.arrived;
            all.repeated += seen.repeated;
            all.reordered += seen.reordered;
            all.took.add(&seen.took);
        }
        Ok(all)
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

/// Comes back and takes everything, as long as something comes.
async fn drain_session(
    login: Login,
    bench: Bench,
    messages: u32,
    begun: Duration,
) -> Result<Seen, BenchError> {
    let mut client = Client::connect(&login, bench.clock).await?.client;
    let mut seen = Seen::default();
    let mut next = 0_u64;
    let (mark, mut conversation) = (mark(bench.run), None);
    while next < u64::from(messages) {
        let Ok(packet) = timeout(QUIET, client.next()).await else {
            break; // what is missing is lost
        };
        match packet? {
            Packet::Publish(message) => {
                // What an earlier run left has no number here.
                let number = number_in(&message.payload, &mark);
                match number.map(|number| number.cmp(&next)) {
                    Some(std::cmp::Ordering::Less) => seen.repeated += 1,
                    Some(std::cmp::Ordering::Greater) => seen.reordered += 1,
                    _ => {}
                }
                if let Some(number) = number.filter(|number| *number >= next) {
                    seen.arrived += 1;
                    bench.progress.advance(1);
                    next = number + 1;
                    if conversation.is_none() {
                        let cid = message.topic.strip_prefix("chat/me/in/");
                        conversation = cid.map(str::to_owned);
                    }
                }
                client.acknowledge(&message);
            }
            Packet::PubRel(ack) => client.push(&Packet::PubComp(Ack::success(ack.packet_id))),
            other => return Err(client.unexpected(&other)),
        }
    }
    let took = bench.clock.elapsed().saturating_sub(begun);
    seen.took.record(nanos(took));
    if let Some(cid) = conversation {
        let topic = format!("chat/c/{cid}/read");
        client
            .publish_and_wait(&topic, Bytes::new(), |_| {})
            .await?;
    }
    client.disconnect().await?;
    Ok(seen)
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

#[cfg(test)]
mod tests {
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
}
