//! `receipts`: a large group whose members all get one message and read it within some seconds, and what comes of that
//! to its sender.
//!
//! 1. N members connect, each with an inbox in a persistent session; a group of all is made.
//! 2. The sender writes one message, and all members get and acknowledge it.
//! 3. The reads are published at even distances over the given time. Events to the sender are counted until the last one
//!    says that everybody has read.
//! 4. `msg.status` of that message is asked a hundred times.

use std::num::NonZeroU32;
use std::time::Duration;

use broker::codec::packet::{Packet, Publish, Qos};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Bench;
use crate::args::Topics;
use crate::client::{Client, Connected};
use crate::clock::{Clock, nanos};
use crate::crowd::{Role, connect_all, handle, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{Latency, Report, Value, float};
use crate::rpc;

/// Options of `receipts`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReceiptsArgs {
    /// How many members read
    #[arg(long, default_value = "5000")]
    pub(crate) members: NonZeroU32,
    /// Seconds over which the reads are spread
    #[arg(long, default_value = "5")]
    pub(crate) within: u32,
}

/// What the sender was told.
#[derive(Debug, Default)]
struct Told {
    /// Events after the first read.
    events: u64,
    bytes: u64,
    read_all: u64,
}

impl Told {
    fn take(&mut self, publish: &Publish) {
        let event: Json = serde_json::from_slice(&publish.payload).unwrap_or_default();
        let read_all = event.get("read_all").and_then(Json::as_u64);
        self.events += 1;
        self.bytes += publish.payload.len() as u64;
        self.read_all = self.read_all.max(read_all.unwrap_or(0));
    }
}

pub(super) async fn run(bench: Bench, args: &ReceiptsArgs) -> Result<Report, BenchError> {
    let bench = bench.on(Topics::Chat);
    rpc::ask_for_chat(&bench).await?;
    let (target, server) = (&bench.target, &bench.server);
    let (clock, run) = (bench.clock, bench.run);
    let members = args.members.get() as usize;
    let all = u64::from(args.members.get());
    bench.progress.phase("connecting members", Goal::Count(all));

    let logins = (0..members).map(|index| login(target, Role::Subscriber, index, index, run, true));
    let mut readers = connect_all(&bench, logins.collect()).await?;
    for reader in &mut readers {
        let inbox = "chat/me/in/+";
        reader.client.subscribe(inbox, Qos::AtLeastOnce).await?;
    }
    let sender = vec![login(target, Role::Publisher, 0, 0, run, false)];
    let mut sender = connect_all(&bench, sender).await?.remove(0).client;
    bench.progress.phase("making the group", Goal::None);
    let handles: Vec<_> = (0..members)
        .map(|index| handle(target, Role::Subscriber, index).unwrap_or_default())
        .collect();
    let cid = rpc::create_group(&mut sender, &handles, &format!("mqb-{run:08x}")).await?;
    sender.subscribe("chat/me/rcpt/+", Qos::AtLeastOnce).await?;
    let to = format!("chat/to/{cid}/{run:08x}");
    let text = Bytes::from_static(b"to everybody");
    sender.publish_and_wait(&to, text, rpc::drop_it).await?;
    let got = got_by_all(readers, &cid, run).await?;
    let (readers, seq) = (got.readers, got.seq);
    quiet(&mut sender).await?;

    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let written_before = server.as_ref().map(Process::disk_bytes).transpose()?;
    let within = Duration::from_secs(args.within.into());
    bench.progress.phase("reading", Goal::Time(within));
    let begun = clock.elapsed();
    let reading = read_by_all(readers, &cid, seq, begun, within, clock);
    let mut told = Told::default();
    let listening = timeout(within + PATIENCE, async {
        while told.read_all < seq {
            match sender.answer().await? {
                Packet::Publish(publish) => {
                    told.take(&publish);
                    sender.acknowledge(&publish);
                }
                other => return Err(sender.unexpected(&other)),
            }
        }
        Ok(clock.elapsed().saturating_sub(begun))
    });
    let (acks, listened) = tokio::join!(reading, listening);
    let acks = acks?;
    let told_after = listened.ok().transpose()?;
    let cpu = server.as_ref().map(Process::cpu).transpose()?;
    let written = server.as_ref().map(Process::disk_bytes).transpose()?;

    let mut status = Latency::default();
    for number in 0..STATUS_CALLS {
        let request = json!({"cid": cid, "seq": seq});
        let id = format!("status-{run:08x}-{number}");
        let asked = clock.elapsed();
        let found = rpc::call(&mut sender, "msg.status", &request, &id, |_| {}).await?;
        status.record(nanos(clock.elapsed().saturating_sub(asked)));
        let read = found.get("read").and_then(Json::as_u64);
        if read != Some(members as u64) {
            return Err(BenchError::Call {
                method: "msg.status",
                told: format!("read by {read:?} of {members}"),
            });
        }
    }
    sender.disconnect().await?;

    let mut report = Report::new("receipts");
    report.value("members", Value::Count(members as u64));
    report.value("within_s", Value::Count(args.within.into()));
    report.value("events_to_sender", Value::Count(told.events));
    report.value("event_bytes", Value::Count(told.bytes));
    if let Some(after) = told_after {
        report.value("read_all_after_s", Value::Fraction(after.as_secs_f64()));
    }
    report.latency("read_ack", &acks);
    report.latency("status", &status);
    let each = |total: f64| Value::Fraction(total / float(members as u64));
    if let (Some(before), Some(after)) = (cpu_before, cpu) {
        let micros = after.saturating_sub(before).as_secs_f64() * 1e6;
        report.value("server_cpu_us_per_read", each(micros));
    }
    if let (Some(before), Some(after)) = (written_before, written) {
        let bytes = float(after.saturating_sub(before));
        report.value("server_disk_bytes_per_read", each(bytes));
    }
    let is_missing = told_after.is_none();
    report.fault_if(is_missing, "the sender was not told that all have read");
    Ok(report)
}

/// Readers who have the message, and where it is.
struct Got {
    readers: Vec<Client>,
    seq: u64,
}

async fn got_by_all(readers: Vec<Connected>, cid: &str, run: u32) -> Result<Got, BenchError> {
    let (topic, mid) = (format!("chat/me/in/{cid}"), format!("{run:08x}"));
    let mut tasks = JoinSet::new();
    for reader in readers {
        let (mut client, topic, mid) = (reader.client, topic.clone(), mid.clone());
        tasks.spawn(async move {
            loop {
                let Packet::Publish(publish) = client.answer().await? else {
                    continue;
                };
                client.acknowledge(&publish);
                let entry: Json = serde_json::from_slice(&publish.payload).unwrap_or_default();
                let is_it = entry.get("mid").and_then(Json::as_str) == Some(&*mid);
                if *publish.topic == *topic && is_it {
                    client.write()?;
                    let seq = entry.get("seq").and_then(Json::as_u64).unwrap_or(0);
                    return Ok::<_, BenchError>((client, seq));
                }
            }
        });
    }
    let mut got = Got {
        readers: Vec::new(),
        seq: 0,
    };
    while let Some(one) = tasks.join_next().await {
        let (client, seq) = one??;
        got.readers.push(client);
        got.seq = seq;
    }
    Ok(got)
}

/// Waits until nothing comes any more: of the message's delivery the sender is told, too.
async fn quiet(sender: &mut Client) -> Result<(), BenchError> {
    while let Ok(packet) = timeout(QUIET, sender.next()).await {
        if let Packet::Publish(publish) = packet? {
            sender.acknowledge(&publish);
        }
    }
    Ok(())
}

/// Each reads at its time; how long the acknowledgements took, from when they were due.
async fn read_by_all(
    readers: Vec<Client>,
    cid: &str,
    seq: u64,
    begun: Duration,
    within: Duration,
    clock: Clock,
) -> Result<Latency, BenchError> {
    let count = u32::try_from(readers.len()).unwrap_or(u32::MAX).max(1);
    let mut tasks = JoinSet::new();
    for (index, mut client) in (0..).zip(readers) {
        let due = begun + within * index / count;
        let topic = format!("chat/c/{cid}/read");
        tasks.spawn(async move {
            tokio::time::sleep_until(clock.deadline(due)).await;
            let mark = Bytes::from(seq.to_string());
            let reason = client.publish_and_wait(&topic, mark, rpc::drop_it).await?;
            if reason.is_error() {
                return Err(BenchError::Call {
                    method: "read",
                    told: format!("{reason:?}"),
                });
            }
            Ok((client, clock.elapsed().saturating_sub(due)))
        });
    }
    let (mut acks, mut clients) = (Latency::default(), Vec::new());
    while let Some(one) = tasks.join_next().await {
        let (client, took) = one??;
        acks.record(nanos(took));
        clients.push(client);
    }
    for client in clients {
        client.disconnect().await?;
    }
    Ok(acks)
}

const PATIENCE: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(6);
const STATUS_CALLS: u32 = 100;
