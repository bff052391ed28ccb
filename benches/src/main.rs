//! `mqchat-bench`: load generator and no-loss checker for MQTT brokers, in plain topics and in chat.
//!
//! `pairs`, `fanout` and `offline` move messages that carry their number, so that nothing is taken on trust: what a
//! subscriber did not get, got twice or got out of order is counted. `connects` and `idle` measure what a connection costs, `storm` how
//! long it takes until all that were cut are back, `receipts` what reading costs in a large group, `channel` what publishing costs in a large channel. `check` breaks a server in every way and proves that it kept its promises. What each figure means: `benches/README.md`.

mod args;
mod bits;
mod channel;
mod check;
mod client;
mod clock;
mod connects;
mod crowd;
mod error;
mod idle;
mod load;
mod offline;
mod process;
mod receipts;
mod report;
mod rpc;
mod stamp;
mod storm;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, Target};
use error::BenchError;
use report::Report;

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
                check::run(check, args.target.password.as_ref(), args.json).await
            }
            Command::CheckWorker(worker) => check::work(worker).await.map(|()| true),
            measured => {
                let report = measure(&args.target, measured).await?;
                report.print(args.json)?;
                Ok(report.is_clean())
            }
        }
    })
}

async fn measure(target: &Target, command: &Command) -> Result<Report, BenchError> {
    match command {
        Command::Pairs(pairs) => load::pairs(target, pairs).await,
        Command::Fanout(fanout) => load::fanout(target, fanout).await,
        Command::Connects(connects) => connects::run(target, connects).await,
        Command::Idle(idle) => idle::run(target, idle).await,
        Command::Offline(offline) => offline::run(target, offline).await,
        Command::Receipts(receipts) => receipts::run(target, receipts).await,
        Command::Channel(channel) => channel::run(target, channel).await,
        Command::Storm(storm) => storm::run(target, storm).await,
        Command::Check(_) | Command::CheckWorker(_) => {
            Err(BenchError::Check("nothing is measured by check".to_owned()))
        }
    }
}
