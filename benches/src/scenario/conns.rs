//! `conns`: what a connection costs.
//!
//! 1. Each user logs in once before, unless first logins are what is to be measured: hashing a password takes time and
//!    memory that are no cost of the connection.
//! 2. N connections are opened, some at once. They stay, or with `--churn` each is closed after its CONNACK.
//! 3. Those that stay do nothing for a while; then the memory of the broker tells what one takes.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use broker::codec::packet::Qos;
use tokio::task::JoinSet;

use super::Bench;
use crate::args::Topics;
use crate::client::Client;
use crate::clock::nanos;
use crate::crowd::{Role, connect_all, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::Goal;
use crate::report::{Latency, Report, Value, float};

/// Options of `conns`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnsArgs {
    /// How many connections in all
    #[arg(long, default_value = "1000")]
    pub(crate) connections: NonZeroU32,
    /// How many are opened at once
    #[arg(long, default_value = "20")]
    pub(crate) concurrency: NonZeroU16,
    /// How many different users, with --user-prefix
    #[arg(long, default_value = "1")]
    pub(crate) users: NonZeroU32,
    /// Close each connection as soon as its CONNACK has come: logins alone
    #[arg(long)]
    pub(crate) churn: bool,
    /// Measure first logins, too (password hashing, new users)
    #[arg(long)]
    pub(crate) first_logins: bool,
    /// A filter that each connection subscribes to
    #[arg(long, conflicts_with = "churn")]
    pub(crate) filter: Option<String>,
    /// Seconds of quiet before memory is read
    #[arg(long, default_value = "3")]
    pub(crate) settle: u32,
}

/// What the workers have seen.
#[derive(Debug, Default)]
struct Seen {
    connack: Latency,
    total: Latency,
    failed: u64,
    first_error: Option<String>,
    /// Those that stay.
    clients: Vec<Client>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.connack.add(&other.connack);
        self.total.add(&other.total);
        self.failed += other.failed;
        self.first_error = self.first_error.take().or(other.first_error);
        self.clients.extend(other.clients);
    }
}

pub(super) async fn run(bench: Bench, args: &ConnsArgs) -> Result<Report, BenchError> {
    let bench = bench.on(Topics::Plain);
    let (clock, server) = (bench.clock, bench.server.clone());
    if !args.first_logins {
        log_in_once(&bench, args).await?;
    }
    if !args.churn {
        settle(&bench, args).await;
    }
    let before = server.as_ref().map(Process::rss_kb).transpose()?;
    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let begun = clock.elapsed();
    let mut seen = open_all(&bench, args).await?;
    let seconds = clock.elapsed().saturating_sub(begun).as_secs_f64();
    let cpu_after = server.as_ref().map(Process::cpu).transpose()?;

    let connected = seen.total.count();
    let mut report = Report::new("conns");
    report.value("connected", Value::Count(connected));
    report.value("failed", Value::Count(seen.failed));
    report.value("connects_per_s", Value::Rate(float(connected) / seconds));
    report.latency("connack", &seen.connack);
    report.latency("total", &seen.total);
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        let micros = after.saturating_sub(before).as_secs_f64() * 1e6;
        let each = micros / float(connected.max(1));
        report.value("server_cpu_us_per_connect", Value::Fraction(each));
    }
    if let Some(filter) = &args.filter {
        for client in &mut seen.clients {
            client.subscribe(filter, Qos::AtLeastOnce).await?;
        }
    }
    match (&server, before) {
        (Some(server), Some(before)) if !args.churn => {
            hold(&bench, args, (server, before), &mut report).await?;
        }
        (Some(server), _) => report.value("server_rss_kb", Value::Count(server.rss_kb()?)),
        (None, _) => {}
    }
    if let Some(error) = seen.first_error {
        report.note(format!("first error: {error}"));
    }
    report.fault_if(seen.failed > 0, "connections failed");
    for client in seen.clients {
        client.disconnect().await?;
    }
    Ok(report)
}

async fn log_in_once(bench: &Bench, args: &ConnsArgs) -> Result<(), BenchError> {
    let users = args.users.get() as usize;
    bench
        .progress
        .phase("first logins", Goal::Count(args.users.get().into()));
    let (target, run) = (&bench.target, bench.run);
    let logins = (0..users).map(|user| login(target, Role::Subscriber, user, user, run, false));
    for connected in connect_all(bench, logins.collect()).await? {
        connected.client.disconnect().await?;
    }
    Ok(())
}

async fn settle(bench: &Bench, args: &ConnsArgs) {
    let quiet = Duration::from_secs(args.settle.into());
    bench.progress.phase("quiet", Goal::Time(quiet));
    tokio::time::sleep(quiet).await;
}

async fn open_all(bench: &Bench, args: &ConnsArgs) -> Result<Seen, BenchError> {
    let all = Goal::Count(args.connections.get().into());
    bench.progress.phase("connecting", all);
    let next = Arc::new(AtomicU32::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..args.concurrency.get() {
        workers.spawn(open_some(bench.clone(), args.clone(), Arc::clone(&next)));
    }
    let mut all = Seen::default();
    while let Some(seen) = workers.join_next().await {
        all.add(seen?);
    }
    Ok(all)
}

/// One after the other, as long as there is a next one.
async fn open_some(bench: Bench, args: ConnsArgs, next: Arc<AtomicU32>) -> Seen {
    let mut seen = Seen::default();
    let users = args.users.get() as usize;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= args.connections.get() {
            return seen;
        }
        let index = index as usize;
        let (target, role) = (&bench.target, Role::Subscriber);
        let login = login(target, role, users + index, index % users, bench.run, false);
        let opened = async {
            let connected = Client::connect(&login, bench.clock).await?;
            seen.connack.record(nanos(connected.connack_after));
            seen.total.record(nanos(connected.total));
            if args.churn {
                return connected.client.disconnect().await;
            }
            seen.clients.push(connected.client);
            Ok::<_, BenchError>(())
        };
        if let Err(error) = opened.await {
            seen.failed += 1;
            seen.first_error.get_or_insert_with(|| error.to_string());
        }
        bench.progress.advance(1);
    }
}

/// Leaves them alone, and looks at what they took.
async fn hold(
    bench: &Bench,
    args: &ConnsArgs,
    (server, before): (&Process, u64),
    report: &mut Report,
) -> Result<(), BenchError> {
    let cpu_before = server.cpu()?;
    settle(bench, args).await;
    let idle_cpu = server.cpu()?.saturating_sub(cpu_before);
    let after = server.rss_kb()?;
    report.value("server_rss_kb_before", Value::Count(before));
    report.value("server_rss_kb_after", Value::Count(after));
    let grown = float(after.saturating_sub(before));
    let each = grown / f64::from(args.connections.get());
    report.value("server_kb_per_connection", Value::Fraction(each));
    let percent = 100.0 * idle_cpu.as_secs_f64() / f64::from(args.settle.max(1));
    report.value("server_idle_cpu_percent", Value::Fraction(percent));
    if cpu_before > FRESH_CPU_MAX {
        let note = "the broker has worked before: memory that it has in reserve hides the cost, start it anew";
        report.note(note.to_owned());
    }
    Ok(())
}

/// A broker that has used more CPU time than this has served something else before.
const FRESH_CPU_MAX: Duration = Duration::from_secs(3);
