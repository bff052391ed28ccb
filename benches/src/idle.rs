//! `idle`: connections that do nothing, and what they cost the broker.

use std::time::Duration;

use broker::codec::packet::Qos;

use crate::args::{IdleArgs, Target};
use crate::clock::{Clock, run_number};
use crate::crowd::{Role, connect_all, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::report::{Report, Value, float};

pub(crate) async fn run(target: &Target, args: &IdleArgs) -> Result<Report, BenchError> {
    let pid = target.server_pid.ok_or(BenchError::ServerPidMissing)?;
    let (clock, run, server) = (Clock::start(), run_number(), Process::new(pid));
    let (users, connections) = (args.users.get() as usize, args.connections.get() as usize);

    // Each user logs in once before: hashing a password needs memory that is no cost of the connection.
    let logins = (0..users).map(|user| login(target, Role::Subscriber, user, user, run, false));
    for connected in connect_all(target, logins.collect(), clock).await? {
        connected.client.disconnect().await?;
    }
    tokio::time::sleep(Duration::from_secs(args.settle.into())).await;
    let before = server.rss_kb()?;

    let begun = clock.elapsed();
    let logins = (users..users + connections)
        .map(|index| login(target, Role::Subscriber, index, index % users, run, false));
    let mut clients = connect_all(target, logins.collect(), clock).await?;
    let seconds = clock.elapsed().saturating_sub(begun).as_secs_f64();
    if let Some(filter) = &args.filter {
        for connected in &mut clients {
            connected.client.subscribe(filter, Qos::AtLeastOnce).await?;
        }
    }
    let cpu_before = server.cpu()?;
    tokio::time::sleep(Duration::from_secs(args.settle.into())).await;
    let idle_cpu = server.cpu()?.saturating_sub(cpu_before);
    let after = server.rss_kb()?;

    let mut report = Report::new("idle");
    report.value("connections", Value::Count(clients.len() as u64));
    report.value(
        "opened_per_s",
        Value::Rate(f64::from(args.connections.get()) / seconds),
    );
    report.value("server_rss_kb_before", Value::Count(before));
    report.value("server_rss_kb_after", Value::Count(after));
    let grown = float(after.saturating_sub(before));
    report.value(
        "server_kb_per_connection",
        Value::Fraction(grown / f64::from(args.connections.get())),
    );
    let percent = 100.0 * idle_cpu.as_secs_f64() / f64::from(args.settle.max(1));
    report.value("server_idle_cpu_percent", Value::Fraction(percent));
    if cpu_before > FRESH_CPU_MAX {
        let note = "the broker has worked before: memory that it has in reserve hides the cost, start it anew";
        report.note(note.to_owned());
    }
    for connected in clients {
        connected.client.disconnect().await?;
    }
    Ok(report)
}

/// A broker that has used more CPU time than this has served something else before.
const FRESH_CPU_MAX: Duration = Duration::from_secs(3);
