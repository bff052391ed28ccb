//! `check`: a server is broken in every way that a schedule says, while clients work with it, and then judged by what these
//! recorded (`docs/checker.md`).

pub(crate) mod args;

mod adapter;
mod campaign;
mod disk;
mod history;
mod nemesis;
mod proxy;
mod schedule;
mod server;
mod verify;
mod worker;
mod world;

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Map, Value, json};

use crate::error::BenchError;
use adapter::{Mqchat, Plain, beside};
use args::{CheckArgs, Kind, WorkerArgs};
use campaign::Outcome;
use history::History;
use verify::{Figures, Verdict};

/// Runs a campaign, or judges one again, and prints what came of it; `true` if nothing was broken.
pub(crate) async fn run(
    args: &CheckArgs,
    password: Option<&String>,
    as_json: bool,
) -> Result<bool, BenchError> {
    if let Some(folder) = &args.verify {
        let histories = History::read_all(folder)?;
        if histories.is_empty() {
            return Err(BenchError::Check(format!(
                "no history in {}",
                folder.display()
            )));
        }
        let verdict = verify::verify(&histories);
        print(
            &Told {
                verdict: &verdict,
                histories: &histories,
                outcome: None,
            },
            as_json,
        )?;
        return Ok(verdict.is_clean());
    }
    let outcome = match args.adapter {
        Kind::Mqchat => {
            let program = match &args.server {
                Some(program) => program.clone(),
                None => beside("mqchat")?,
            };
            campaign::run(&Mqchat { program }, args).await?
        }
        Kind::Mosquitto => campaign::run(&Plain::mosquitto(), args).await?,
        Kind::Plain => {
            let start = args.start.as_deref().unwrap_or_default();
            let plain = Plain::new(start, args.conf.as_ref(), password.cloned())?;
            campaign::run(&plain, args).await?
        }
    };
    let told = Told {
        verdict: &outcome.verdict,
        histories: &outcome.histories,
        outcome: Some(&outcome),
    };
    print(&told, as_json)?;
    Ok(outcome.verdict.is_clean())
}

/// Lives as a worker.
pub(crate) async fn work(args: &WorkerArgs) -> Result<(), BenchError> {
    worker::live(&args.folder, &args.name).await
}

struct Told<'a> {
    verdict: &'a Verdict,
    histories: &'a [History],
    outcome: Option<&'a Outcome>,
}

fn print(told: &Told<'_>, as_json: bool) -> Result<(), BenchError> {
    let text = if as_json { told.json() } else { told.text() };
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(BenchError::Report)
}

impl Told<'_> {
    fn text(&self) -> String {
        let mut lines = vec!["check".to_owned()];
        if let Some(outcome) = self.outcome {
            let (server, seed) = (&outcome.server, outcome.seed);
            lines.push(format!("{server}, seed {seed}, {} s", outcome.seconds));
            let faults = outcome
                .faults
                .iter()
                .map(|(fault, count)| format!("{fault} {count}"));
            let faults = faults.collect::<Vec<_>>().join(", ");
            lines.push(format!(
                "faults: {faults}; {} processes killed",
                outcome.kills
            ));
            lines.extend(outcome.notes.iter().map(|note| format!("note: {note}")));
        }
        for (name, figure) in figures(&self.verdict.figures) {
            lines.push(format!("{name:<12} {figure:>10}"));
        }
        for (count, finding) in self.verdict.shortest_first() {
            let (name, promise) = finding.rule.name();
            let what = &finding.what;
            lines.push(format!("BROKEN: {name} ({promise}), {count} ×: {what}"));
            let shown = finding.places.iter();
            lines.extend(shown.map(|place| format!("  {}", place.show(self.histories))));
        }
        if self.verdict.is_clean() {
            lines.push("nothing was broken".to_owned());
        }
        if let Some(folder) = self.outcome.and_then(|outcome| outcome.folder.as_ref()) {
            lines.push(format!("kept in {}", folder.display()));
        }
        lines.into_iter().fold(String::new(), |mut text, line| {
            let _infallible = writeln!(text, "{line}");
            text
        })
    }

    fn json(&self) -> String {
        let broken = self.verdict.shortest_first().into_iter();
        let broken: Vec<_> = broken
            .map(|(count, finding)| {
                let (name, promise) = finding.rule.name();
                let lines = finding.places.iter();
                let lines: Vec<_> = lines.map(|place| place.show(self.histories)).collect();
                json!({"rule": name, "promise": promise, "times": count, "what": finding.what, "lines": lines})
            })
            .collect();
        let mut object = Map::new();
        object.insert("bench".to_owned(), json!("check"));
        for (name, figure) in figures(&self.verdict.figures) {
            object.insert(name.to_owned(), json!(figure));
        }
        if let Some(outcome) = self.outcome {
            let faults: Map<_, _> = outcome
                .faults
                .iter()
                .map(|(fault, count)| (fault.to_string(), json!(count)))
                .collect();
            object.insert("server".to_owned(), json!(outcome.server));
            object.insert("seed".to_owned(), json!(outcome.seed));
            object.insert("seconds".to_owned(), json!(outcome.seconds));
            object.insert("faults".to_owned(), Value::Object(faults));
            object.insert("kills".to_owned(), json!(outcome.kills));
            object.insert("notes".to_owned(), json!(outcome.notes));
            object.insert("folder".to_owned(), json!(outcome.folder));
        }
        object.insert("broken".to_owned(), json!(broken));
        format!("{}\n", Value::Object(object))
    }
}

fn figures(figures: &Figures) -> [(&'static str, u64); 7] {
    [
        ("sent", figures.sent),
        ("acked", figures.acked),
        ("refused", figures.refused),
        ("retried", figures.retried),
        ("received", figures.received),
        ("connections", figures.connections),
        ("lives", figures.lives),
    ]
}
