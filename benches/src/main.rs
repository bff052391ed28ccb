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
mod heard;
mod html;
mod process;
mod progress;
mod random;
mod report;
mod rpc;
mod scenario;
mod series;
mod setting;
mod stamp;
mod steps;
mod versus;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value as Json;

use args::{Args, Command, Target};
use clock::run_number;
use error::BenchError;
use progress::Progress;
use report::Report;
use scenario::{Bench, Scenario};
use setting::Setting;

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
            Command::Check(_) if args.versus.vs.is_some() || args.output.html.is_some() => {
                let told =
                    "check has a report of its own, and judges one server: no --vs, no --html";
                Err(BenchError::Options(told.to_owned()))
            }
            Command::Check(check) => {
                check::run(check, args.target.password.as_ref(), args.output.json).await
            }
            Command::CheckWorker(worker) => check::work(worker).await.map(|()| true),
            Command::Measure(scenario) => {
                let mut setting = Setting::now(args);
                if let Some(path) = &args.output.html {
                    try_to_write(path)?;
                }
                let report = measure(args, scenario).await?;
                if args.output.html.is_some() {
                    setting.ask_versions(args).await;
                }
                tell(args, &report, &setting)?;
                Ok(report.is_clean())
            }
        }
    })
}

/// One broker, or two alternately.
async fn measure(args: &Args, scenario: &Scenario) -> Result<Report, BenchError> {
    let (progress, _shown) = Progress::start(args.output.quiet);
    let target = &args.target;
    let scenario = &scenario.with_seed(run_number().into());
    let Some(other) = versus::other(target, &args.versus) else {
        return once(args, scenario, target, &progress).await;
    };
    let there = match args.versus.vs_topics {
        Some(topics) => &scenario.on(topics)?,
        None => scenario,
    };
    let targets = [target, &other];
    let rounds = args.versus.rounds;
    let measure = |round, is_other| {
        let (scenario, target) = if is_other {
            (there, &other)
        } else {
            (scenario, target)
        };
        progress.begin(format!("round {round}/{rounds}, {}: ", target.addr));
        once(args, scenario, target, &progress)
    };
    versus::run(scenario.name(), (targets, &args.versus), measure).await
}

/// At one rate, or at many until they do not hold.
async fn once(
    args: &Args,
    scenario: &Scenario,
    target: &Target,
    progress: &Progress,
) -> Result<Report, BenchError> {
    match scenario.steps() {
        Some(options) if let Some(rates) = &options.steps => {
            let shared = (progress, args.threads());
            steps::run(scenario, (options, rates), target, shared).await
        }
        _ => scenario.run(Bench::new(target, progress)).await,
    }
}

/// Better known before a long measurement than after it.
fn try_to_write(path: &Path) -> Result<(), BenchError> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| BenchError::at(path, error))?;
    Ok(())
}

/// To who called, and into the file for people.
fn tell(args: &Args, report: &Report, setting: &Setting) -> Result<(), BenchError> {
    let text = if args.output.json {
        let mut object = report.json();
        object.insert("setting".to_owned(), setting.json());
        format!("{}\n", Json::Object(object))
    } else {
        report.text()
    };
    report::print(&text)?;
    if let Some(path) = &args.output.html {
        let written = std::fs::write(path, html::page(report, setting));
        written.map_err(|error| BenchError::at(path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_chosen_once_for_all_runs() {
        let seed = |options: &[&str]| {
            let args = Args::parse_from(options);
            let Command::Measure(scenario) = args.command else {
                panic!("{options:?}")
            };
            let rate = std::num::NonZeroU32::MIN;
            match scenario.with_seed(5).at_rate(rate).with_seed(6) {
                Scenario::Mix(mix) => mix.seed,
                _ => None,
            }
        };
        assert_eq!(seed(&["mqchat-bench", "mix"]), Some(5));
        assert_eq!(seed(&["mqchat-bench", "mix", "--seed", "7"]), Some(7));
        assert_eq!(seed(&["mqchat-bench", "pairs"]), None);
    }
}
