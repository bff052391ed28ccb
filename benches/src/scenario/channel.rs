//! `channel`: a channel with very many readers of whom few are connected, and what publishing in it costs.
//!
//! 1. N users log in once each, and the owner adds all of them as readers.
//! 2. Some of them connect and subscribe to `chat/c/{cid}/log`.
//! 3. The owner publishes one message after the other: the next one when all who are connected have got the last one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use broker::codec::packet::{Packet, Publish, Qos};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Bench;
use crate::args::{Topics, parse_payload, parse_qos};
use crate::client::Client;
use crate::clock::nanos;
use crate::crowd::{Role, connect_all, connect_patiently, handle, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{Latency, Report, Value, float};
use crate::rpc;

/// Options of `channel`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChannelArgs {
    /// How many readers the channel has
    #[arg(long, default_value = "100000")]
    pub(crate) readers: NonZeroU32,
    /// How many of them are connected and listen
    #[arg(long, default_value = "2000")]
    pub(crate) connected: NonZeroU32,
    /// How many messages are published, one after the other
    #[arg(long, default_value = "100")]
    pub(crate) messages: NonZeroU32,
    /// QoS of the subscriptions
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: Qos,
    /// Payload in bytes
    #[arg(long, default_value = "100", value_parser = parse_payload)]
    pub(crate) payload: usize,
}

pub(super) async fn run(bench: Bench, args: &ChannelArgs) -> Result<Report, BenchError> {
    let bench = bench.on(Topics::Chat);
    let (target, server) = (&bench.target, &bench.server);
    let (clock, run) = (bench.clock, bench.run);
    let readers = args.readers.get() as usize;
    let connected = (args.connected.get() as usize).min(readers);

    make_users(&bench, readers).await?;
    let owner = vec![login(target, Role::Publisher, 0, 0, run, false)];
    let mut owner = connect_all(&bench, owner).await?.remove(0).client;
    bench.progress.phase("adding readers", Goal::None);
    let handles: Vec<_> = (0..readers)
        .map(|index| handle(target, Role::Subscriber, index).unwrap_or_default())
        .collect();
    let disk = || server.as_ref().map(Process::disk_bytes).transpose();
    let before_readers = disk()?;
    let added_at = clock.elapsed();
    let cid = rpc::create_channel(&mut owner, &handles, &format!("mqb-{run:08x}")).await?;
    let added_in = clock.elapsed().saturating_sub(added_at);
    let after_readers = disk()?;

    let logins =
        (0..connected).map(|index| login(target, Role::Subscriber, index, index, run, false));
    let mut listeners = connect_all(&bench, logins.collect()).await?;
    for listener in &mut listeners {
        let log = format!("chat/c/{cid}/log");
        listener.client.subscribe(&log, args.qos).await?;
    }
    let (told, mut arrivals) = mpsc::channel(connected.max(1));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(listen(listener.client, told.clone()));
    }
    drop(told);

    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let written_before = disk()?;
    let (mut acks, mut last) = (Latency::default(), Latency::default());
    let mut missing = 0;
    let payload = Bytes::from("x".repeat(args.payload));
    let messages = u64::from(args.messages.get());
    bench.progress.phase("publishing", Goal::Count(messages));
    for number in 0..args.messages.get() {
        let to = format!("chat/to/{cid}/{run:08x}-{number}");
        let begun = clock.elapsed();
        let publishing = owner.publish_and_wait(&to, payload.clone(), rpc::drop_it);
        let arriving = timeout(PATIENCE, async {
            for _ in 0..connected {
                arrivals.recv().await;
            }
            clock.elapsed().saturating_sub(begun)
        });
        let acked = async {
            let reason = publishing.await;
            (reason, clock.elapsed().saturating_sub(begun))
        };
        let ((reason, acked), arrived) = tokio::join!(acked, arriving);
        let reason = reason?;
        if reason.is_error() {
            return Err(BenchError::Call {
                method: "publish",
                told: format!("{reason:?}"),
            });
        }
        bench.progress.advance(1);
        acks.record(nanos(acked));
        match arrived {
            Ok(arrived) => last.record(nanos(arrived)),
            Err(_) => missing += 1,
        }
    }
    let cpu = server.as_ref().map(Process::cpu).transpose()?;
    let written = disk()?;
    tasks.abort_all();
    owner.disconnect().await?;

    let mut report = Report::new("channel");
    report.value("readers", Value::Count(readers as u64));
    report.value("connected", Value::Count(connected as u64));
    report.value("messages", Value::Count(args.messages.get().into()));
    let per_s = float(readers as u64) / added_in.as_secs_f64();
    report.value("readers_added_per_s", Value::Rate(per_s));
    report.latency("ack", &acks);
    report.latency("last_delivery", &last);
    let messages = float(args.messages.get().into());
    let each = |before: Option<u64>, after: Option<u64>, of: f64| {
        let (before, after) = (before?, after?);
        Some(Value::Fraction(float(after.saturating_sub(before)) / of))
    };
    if let Some(bytes) = each(before_readers, after_readers, float(readers as u64)) {
        report.value("server_disk_bytes_per_reader", bytes);
    }
    if let Some(bytes) = each(written_before, written, messages) {
        report.value("server_disk_bytes_per_message", bytes);
    }
    if let (Some(before), Some(after)) = (cpu_before, cpu) {
        let micros = after.saturating_sub(before).as_secs_f64() * 1e6;
        let per_message = micros / messages;
        report.value("server_cpu_us_per_message", Value::Micros(per_message));
        let per_delivered = per_message / float(connected as u64);
        report.value(
            "server_cpu_us_per_delivered",
            Value::Fraction(per_delivered),
        );
    }
    if let Some(server) = &server {
        report.value("server_rss_kb", Value::Count(server.rss_kb()?));
    }
    report.fault_if(missing > 0, "a message did not come to all who listen");
    Ok(report)
}

/// Each logs in once: so a `--dev` server makes them.
async fn make_users(bench: &Bench, count: usize) -> Result<(), BenchError> {
    let (target, clock) = (&bench.target, bench.clock);
    let permits = Arc::new(Semaphore::new(target.connecting.get()));
    bench
        .progress
        .phase("making users", Goal::Count(count as u64));
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let permit = permits.clone().acquire_owned().await;
        let login = login(target, Role::Subscriber, index, index, bench.run, false);
        let progress = bench.progress.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let connected = connect_patiently(&login, clock).await?;
            progress.advance(1);
            connected.client.disconnect().await
        });
        while let Some(made) = tasks.try_join_next() {
            made??;
        }
    }
    while let Some(made) = tasks.join_next().await {
        made??;
    }
    Ok(())
}

/// Tells of each message that comes.
async fn listen(mut client: Client, told: mpsc::Sender<()>) -> Result<(), BenchError> {
    loop {
        let Packet::Publish(publish) = client.next().await? else {
            continue;
        };
        client.acknowledge(&publish);
        client.write()?;
        if is_message(&publish) && told.send(()).await.is_err() {
            return Ok(());
        }
    }
}

fn is_message(publish: &Publish) -> bool {
    let entry: Json = serde_json::from_slice(&publish.payload).unwrap_or_else(|_| json!({}));
    entry.get("kind").and_then(Json::as_str) == Some("message")
}

/// So long may the last delivery of a message take.
const PATIENCE: Duration = Duration::from_secs(30);
