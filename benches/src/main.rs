//! `mqchat-bench`: load generator and no-loss checker for MQTT brokers, in plain topics and in chat.
//!
//! Messages carry their number, so that nothing is taken on trust: what a subscriber did not get, got twice or got out of
//! order is counted. Each scenario stands in a file of its own in `scenario/`; `check` breaks a server in every way and
//! proves that it kept its promises. What each figure means: `benches/README.md`.

mod args;
mod bits;
mod check;
mod client;
mod clock;
mod crowd;
mod error;
mod process;
mod progress;
mod report;
mod rpc;
mod scenario;
mod series;
mod stamp;
mod steps;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use error::BenchError;
use progress::Progress;
use report::Report;
use scenario::{Bench, Scenario};

fn main() -> ExitCode {
    let args = Args::parse();
    let finished = run(&args);
    match finished {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mqchat-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// `true`: the broker did nothing that it must not.
fn run(args: &Args) -> Result<bool, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads())
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    runtime.block_on(async {
        match &args.command {
            Command::Check(check) => {
                check::run(check, args.target.password.as_ref(), args.output.json).await
            }
            Command::CheckWorker(worker) => check::work(worker).await.map(|()| true),
            Command::Measure(scenario) => {
                let report = measure(args, scenario).await?;
                let text = if args.output.json {
                    format!("{}\n", serde_json::Value::Object(report.json()))
                } else {
                    report.text()
                };
                report::print(&text)?;
                Ok(report.is_clean())
            }
        }
    })
}

async fn measure(args: &Args, scenario: &Scenario) -> Result<Report, BenchError> {
    let (progress, _shown) = Progress::start(args.output.quiet);
    let target = &args.target;
    match scenario.steps() {
        Some(options) if let Some(rates) = &options.steps => {
            let shared = (&progress, args.threads());
            steps::run(scenario, (options, rates), target, shared).await
        }
        _ => scenario.run(Bench::new(target, &progress)).await,
    }
}
