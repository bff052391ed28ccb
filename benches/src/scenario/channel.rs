//! `channel`: a channel with very many readers of whom few are connected, and what publishing in it costs.
//!
//! 1. N users log in once each, and the owner adds all of them as readers.
//! 2. Some of them connect and subscribe to `chat/c/{cid}/log`.
//! 3. The owner publishes one message after the other: the next one when all who are connected have got the last one. Each of
//!    them has to get each message, once and in order.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use broker::codec::packet::{Packet, Qos};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Bench;
use crate::args::{Topics, parse_payload, parse_qos};
use crate::client::Client;
use crate::clock::nanos;
use crate::crowd::{Role, connect_all, connect_patiently, handle, login};
use crate::error::BenchError;
use crate::heard::{Arrival, Heard};
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{self, Latency, Report, Value, float};
use crate::rpc;
use crate::stamp::Stamp;

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
    /// Payload in bytes, at least 40
    #[arg(long, default_value = "100", value_parser = parse_payload)]
    pub(crate) payload: usize,
}

pub(super) async fn run(bench: Bench, args: &ChannelArgs) -> Result<Report, BenchError> {
    let bench = bench.on(Topics::Chat);
    rpc::ask_for_chat(&bench).await?;
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
    let clients = listeners.into_iter().map(|listener| listener.client);
    let mut listeners = Listeners::start(clients, run);

    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let written_before = disk()?;
    let (mut acks, mut last) = (Latency::default(), Latency::default());
    let mut missing = 0;
    let messages = u64::from(args.messages.get());
    bench.progress.phase("publishing", Goal::Count(messages));
    for number in 0..args.messages.get() {
        let to = format!("chat/to/{cid}/{run:08x}-{number}");
        let begun = clock.elapsed();
        let stamp = Stamp {
            run,
            stream: 0,
            number,
            sent_at: nanos(begun),
        };
        let payload = stamp.payload(args.payload);
        let publishing = owner.publish_and_wait(&to, payload, rpc::drop_it);
        let arriving = timeout(PATIENCE, async {
            listeners.all_have(number).await?;
            Ok::<_, BenchError>(clock.elapsed().saturating_sub(begun))
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
            Ok(arrived) => last.record(nanos(arrived?)),
            Err(_) => missing += 1,
        }
    }
    let cpu = server.as_ref().map(Process::cpu).transpose()?;
    let written = disk()?;
    let seen = listeners.finish(args.messages.get()).await?;
    owner.disconnect().await?;

    let mut report = Report::new("channel");
    report.value("readers", Value::Count(readers as u64));
    report.value("connected", Value::Count(connected as u64));
    report.value("messages", Value::Count(args.messages.get().into()));
    report.value("lost", Value::Count(seen.lost));
    report.value("duplicates", Value::Count(seen.duplicates));
    report.value("reordered", Value::Count(seen.reordered));
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
    report.fault_if(
        missing > 0,
        "a message did not come to all who listen within 30 s",
    );
    report.checks(report::ALL_CAME);
    report.fault_if(seen.lost > 0, "acknowledged messages were lost");
    report.fault_if(seen.duplicates > 0, "messages came twice");
    report.fault_if(seen.reordered > 0, "messages came out of order");
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

/// Everybody who is connected, each in a task.
struct Listeners {
    /// Who has got which message.
    arrivals: mpsc::Receiver<(usize, u32)>,
    tasks: JoinSet<Result<(), BenchError>>,
    heard: Vec<Heard>,
    seen: Seen,
}

/// What was wrong.
#[derive(Debug, Default)]
struct Seen {
    lost: u64,
    duplicates: u64,
    reordered: u64,
}

impl Listeners {
    fn start(clients: impl Iterator<Item = Client>, run: u32) -> Self {
        let (told, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut tasks = JoinSet::new();
        for (listener, client) in clients.enumerate() {
            tasks.spawn(listen(client, run, listener, told.clone()));
        }
        let heard = (0..tasks.len()).map(|_| Heard::default()).collect();
        Self {
            arrivals,
            tasks,
            heard,
            seen: Seen::default(),
        }
    }

    /// Waits until each has this message, which was not published before.
    async fn all_have(&mut self, number: u32) -> Result<(), BenchError> {
        let mut left = self.heard.len();
        while left > 0 {
            let (listener, arrived) = self.next().await?;
            let is_first = self.note(listener, arrived);
            left -= usize::from(is_first && arrived == number);
        }
        Ok(())
    }

    /// The next arrival. A listener who ends before all others has failed.
    async fn next(&mut self) -> Result<(usize, u32), BenchError> {
        tokio::select! {
            Some(arrival) = self.arrivals.recv() => Ok(arrival),
            Some(ended) = self.tasks.join_next() => {
                ended??;
                Err(BenchError::ListenerEnded)
            }
            else => Err(BenchError::ListenerEnded),
        }
    }

    /// True if this one did not have it.
    fn note(&mut self, listener: usize, number: u32) -> bool {
        let Some(heard) = self.heard.get_mut(listener) else {
            return false;
        };
        let arrival = heard.note(number);
        self.seen.reordered += u64::from(arrival == Arrival::Reordered);
        self.seen.duplicates += u64::from(arrival == Arrival::Repeated);
        arrival != Arrival::Repeated
    }

    /// Waits for surplus, and tells what was wrong.
    async fn finish(mut self, messages: u32) -> Result<Seen, BenchError> {
        while let Ok(next) = timeout(LINGER, self.next()).await {
            let (listener, number) = next?;
            self.note(listener, number);
        }
        self.tasks.abort_all();
        let all = u64::from(messages);
        let missing = |heard: &Heard| all.saturating_sub(heard.count());
        self.seen.lost = self.heard.iter().map(missing).sum();
        Ok(self.seen)
    }
}

/// Tells of each message of this run that comes.
async fn listen(
    mut client: Client,
    run: u32,
    listener: usize,
    told: mpsc::Sender<(usize, u32)>,
) -> Result<(), BenchError> {
    let mut hint = 0;
    loop {
        let Packet::Publish(publish) = client.next().await? else {
            continue;
        };
        client.acknowledge(&publish);
        client.write()?;
        let stamp = Stamp::find(&publish.payload, &mut hint).filter(|stamp| stamp.run == run);
        if let Some(stamp) = stamp
            && told.send((listener, stamp.number)).await.is_err()
        {
            return Ok(());
        }
    }
}

/// So long may the last delivery of a message take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long surplus is listened for.
const LINGER: Duration = Duration::from_millis(250);
/// Arrivals that are not counted yet; who brings more waits.
const ARRIVALS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use broker::codec::encode::encode;
    use broker::codec::packet::{Publish, Version};
    use broker::codec::properties::PublishProperties;
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

    const RUN: u32 = 7;

    async fn two() -> (Listeners, [TcpStream; 2]) {
        let (one, to_one) = Client::of_test(Version::V5).await;
        let (two, to_two) = Client::of_test(Version::V5).await;
        let listeners = Listeners::start([one, two].into_iter(), RUN);
        (listeners, [to_one, to_two])
    }

    async fn deliver(stream: &mut TcpStream, run: u32, number: u32) {
        let stamp = Stamp {
            run,
            stream: 0,
            number,
            sent_at: 0,
        };
        let publish = Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "chat/c/1/log".into(),
            packet_id: None,
            payload: stamp.payload(60),
            properties: PublishProperties::default().into(),
        });
        let mut bytes = BytesMut::new();
        encode(&publish, Version::V5, &mut bytes);
        stream.write_all(&bytes).await.unwrap();
    }

    #[tokio::test]
    async fn the_duplicate_of_one_is_not_the_delivery_of_another() {
        let (mut listeners, [mut one, mut two]) = two().await;
        deliver(&mut one, RUN, 0).await;
        deliver(&mut one, RUN, 0).await;
        deliver(&mut one, RUN + 1, 1).await;
        let short = Duration::from_millis(100);
        let waiting = timeout(short, listeners.all_have(0)).await;
        assert!(waiting.is_err());
        deliver(&mut two, RUN, 1).await;
        deliver(&mut one, RUN, 1).await;
        listeners.all_have(1).await.unwrap();
        let seen = listeners.finish(2).await.unwrap();
        assert_eq!((seen.lost, seen.duplicates, seen.reordered), (1, 1, 0));
    }

    #[tokio::test]
    async fn listeners_whose_connections_have_ended_have_nothing() {
        let (mut listeners, streams) = two().await;
        drop(streams);
        assert!(listeners.all_have(0).await.is_err());
        // Nor when the last one is gone.
        assert!(listeners.all_have(0).await.is_err());
        assert!(listeners.all_have(0).await.is_err());
    }
}
