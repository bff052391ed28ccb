//! `reconnect-storm`: every client of a broker loses its connection at one moment and comes back, as after a failed switch.
//!
//! 1. N persistent sessions subscribe to a topic of their own.
//! 2. All connections are cut without DISCONNECT.
//! 3. All clients come back at one moment. One is back when a message that it publishes at QoS 1 is acknowledged and has
//!    come to it, by the subscription of its session.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Bench;
use crate::args::Topics;
use crate::client::{Client, Login};
use crate::clock::{Clock, nanos};
use crate::crowd::{Role, connect_all, connect_patiently, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{Latency, Report, Value};

/// Options of `reconnect-storm`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StormArgs {
    /// How many sessions
    #[arg(long, default_value = "1000")]
    pub(crate) sessions: NonZeroU32,
    /// How many different users, with --user-prefix
    #[arg(long, default_value = "1")]
    pub(crate) users: NonZeroU32,
    /// How many come back at once; each that is back makes room for the next
    #[arg(long, default_value = "1000")]
    pub(crate) at_once: NonZeroUsize,
}

/// One client that came back.
#[derive(Debug)]
struct Back {
    client: Client,
    session_present: bool,
    /// From the moment of the storm.
    connected_after: Duration,
    settled_after: Duration,
}

pub(super) async fn run(bench: Bench, args: &StormArgs) -> Result<Report, BenchError> {
    let bench = bench.on(Topics::Plain);
    let (target, clock, run) = (&bench.target, bench.clock, bench.run);
    let all = Goal::Count(args.sessions.get().into());
    bench.progress.phase("connecting", all);
    let (users, sessions) = (args.users.get() as usize, args.sessions.get() as usize);
    let logins = (0..sessions).map(|index| {
        let mut login = login(target, Role::Subscriber, index, index % users, run, true);
        // Not what an earlier run left.
        login.client_id = format!("{}-{run:08x}", login.client_id);
        login
    });
    let logins: Vec<Login> = logins.collect();
    let mut connected = connect_all(&bench, logins.clone()).await?;
    for (index, connected) in connected.iter_mut().enumerate() {
        let topic = topic(run, index);
        connected.client.subscribe(&topic, Qos::AtLeastOnce).await?;
    }
    let server = bench.server.as_ref();
    let cpu_before = server.map(Process::cpu).transpose()?;
    bench.progress.phase("coming back", all);
    let begun = clock.elapsed();
    drop(connected);
    let permits = Arc::new(Semaphore::new(args.at_once.get()));
    let mut coming = JoinSet::new();
    for (index, login) in logins.into_iter().enumerate() {
        let permits = Arc::clone(&permits);
        coming.spawn(async move {
            let _permit = permits.acquire().await;
            come_back(&login, topic(run, index), begun, clock).await
        });
    }
    let (mut connected, mut back) = (Latency::default(), Latency::default());
    let (mut lost, mut clients, mut last) = (0, Vec::new(), Duration::ZERO);
    while let Some(one) = coming.join_next().await {
        let one = one??;
        bench.progress.advance(1);
        connected.record(nanos(one.connected_after));
        back.record(nanos(one.settled_after));
        last = last.max(one.settled_after);
        lost += u64::from(!one.session_present);
        clients.push(one.client);
    }

    let mut report = Report::new("reconnect-storm");
    report.value("sessions", Value::Count(clients.len() as u64));
    report.value("all_back_after_s", Value::Fraction(last.as_secs_f64()));
    report.latency("connected", &connected);
    report.latency("back", &back);
    report.value("sessions_lost", Value::Count(lost));
    if let (Some(server), Some(before)) = (server, cpu_before) {
        let micros = (server.cpu()?.saturating_sub(before)).as_secs_f64() * 1e6;
        let each = micros / f64::from(args.sessions.get());
        report.value("server_cpu_us_per_session", Value::Fraction(each));
        report.value("server_rss_kb", Value::Count(server.rss_kb()?));
    }
    report.fault_if(lost > 0, "sessions were lost");
    for client in clients {
        client.disconnect().await?;
    }
    Ok(report)
}

fn topic(run: u32, index: usize) -> String {
    format!("bench/{run:08x}/storm/{index}")
}

async fn come_back(
    login: &Login,
    topic: String,
    begun: Duration,
    clock: Clock,
) -> Result<Back, BenchError> {
    let connected = connect_patiently(login, clock).await?;
    let connected_after = clock.elapsed().saturating_sub(begun);
    let session_present = connected.connack.session_present;
    let mut client = connected.client;
    if !session_present {
        client.subscribe(&topic, Qos::AtLeastOnce).await?;
    }
    client.push(&Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: topic.into(),
        packet_id: PacketId::new(2),
        payload: Bytes::from_static(b"back"),
        properties: PublishProperties::default().into(),
    }));
    let (mut acknowledged, mut arrived) = (false, false);
    while !(acknowledged && arrived) {
        match client.answer().await? {
            Packet::PubAck(Ack { reason, .. }) if reason.is_error() => {
                return Err(BenchError::Refused {
                    client: login.client_id.clone(),
                    reason,
                });
            }
            Packet::PubAck(_) => acknowledged = true,
            Packet::Publish(publish) => {
                client.acknowledge(&publish);
                arrived = true;
            }
            other => return Err(client.unexpected(&other)),
        }
    }
    client.write()?;
    Ok(Back {
        client,
        session_present,
        connected_after,
        settled_after: clock.elapsed().saturating_sub(begun),
    })
}
