//! `connects`: connection after connection, closed as soon as CONNACK has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinSet;

use crate::args::{ConnectsArgs, Target};
use crate::client::Client;
use crate::clock::{Clock, nanos, run_number};
use crate::crowd::{Role, connect_all, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::report::{Latency, Report, Value, float};

/// What one worker has seen.
#[derive(Debug, Default)]
struct Seen {
    connack: Latency,
    total: Latency,
    refused: u64,
    first_error: Option<String>,
}

pub(crate) async fn run(target: &Target, args: &ConnectsArgs) -> Result<Report, BenchError> {
    let (clock, run) = (Clock::start(), run_number());
    let users = args.users.get() as usize;
    if args.prime {
        let logins = (0..users).map(|user| login(target, Role::Subscriber, user, user, run, false));
        for connected in connect_all(target, logins.collect(), clock).await? {
            connected.client.disconnect().await?;
        }
    }
    let server = target.server_pid.map(Process::new);
    let cpu_before = server.as_ref().map(Process::cpu).transpose()?;
    let begun = clock.elapsed();
    let next = Arc::new(AtomicU32::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..args.concurrency.get() {
        let (next, target, connections) = (Arc::clone(&next), target.clone(), args.connections);
        workers.spawn(async move {
            let mut seen = Seen::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= connections.get() {
                    return seen;
                }
                let index = index as usize;
                let login = login(&target, Role::Subscriber, index, index % users, run, false);
                match Client::connect(&login, clock).await {
                    Ok(connected) => {
                        seen.connack.record(nanos(connected.connack_after));
                        seen.total.record(nanos(connected.total));
                        if let Err(error) = connected.client.disconnect().await {
                            seen.first_error.get_or_insert_with(|| error.to_string());
                        }
                    }
                    Err(error) => {
                        seen.refused += 1;
                        seen.first_error.get_or_insert_with(|| error.to_string());
                    }
                }
            }
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = workers.join_next().await {
        let seen = seen?;
        all.connack.add(&seen.connack);
        all.total.add(&seen.total);
        all.refused += seen.refused;
        all.first_error = all.first_error.or(seen.first_error);
    }
    let seconds = clock.elapsed().saturating_sub(begun).as_secs_f64();
    let connected = all.total.count();

    let mut report = Report::new("connects");
    report.value("connected", Value::Count(connected));
    report.value("failed", Value::Count(all.refused));
    report.value("connects_per_s", Value::Rate(float(connected) / seconds));
    report.latency("connack", &all.connack);
    report.latency("total", &all.total);
    if let (Some(server), Some(before)) = (server, cpu_before) {
        let micros = (server.cpu()?.saturating_sub(before)).as_secs_f64() * 1e6;
        let each = micros / float(connected.max(1));
        report.value("server_cpu_us_per_connect", Value::Fraction(each));
        report.value("server_rss_kb", Value::Count(server.rss_kb()?));
    }
    if let Some(error) = all.first_error {
        report.note(format!("first error: {error}"));
    }
    report.fault_if(all.refused > 0, "connections failed");
    Ok(report)
}
