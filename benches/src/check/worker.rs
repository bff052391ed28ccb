//! A worker: a process of its own, which can be killed at any moment. What it needs to go on is in its history.
//!
//! Its standard input says what to do: `go`, `quiet` (send nothing new and settle what is under way), `end` (take what is
//! still to come, and say what the server has). It says on standard output when it is `ready`, `quiet` and at its `end`. When
//! its input ends, so does it.

mod entry;
mod mqtt;
mod sdk;

use std::io::{BufRead, Write};
use std::path::Path;

use tokio::sync::watch;

use super::history::{Event, Journal, Kind};
use super::world::World;
use crate::error::BenchError;

/// What a worker is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Wait,
    Go,
    Quiet,
    End,
    /// Nobody is there any more.
    Gone,
}

/// Lives until it is killed or at its end.
pub(crate) async fn live(folder: &Path, name: &str) -> Result<(), BenchError> {
    let world = World::read(folder)?;
    let part = world.part(name)?;
    let phase = listen();
    let (mut journal, before) = Journal::open(folder, name)?;
    journal.write(Event::Began {
        user: name.to_owned(),
        kind: part.kind,
    })?;
    match part.kind {
        Kind::Sdk => {
            sdk::App::new(&world, part, folder, phase)
                .live(journal, &before)
                .await
        }
        _ => {
            mqtt::Worker::new(&world, part, journal, &before, phase)
                .live()
                .await
        }
    }
}

/// Follows the standard input.
fn listen() -> watch::Receiver<Phase> {
    let (sender, receiver) = watch::channel(Phase::Wait);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let phase = match line.as_str() {
                "go" => Phase::Go,
                "quiet" => Phase::Quiet,
                "end" => Phase::End,
                _ => continue,
            };
            sender.send_replace(phase);
        }
        sender.send_replace(Phase::Gone);
    });
    receiver
}

/// Tells whoever started this worker.
fn say(word: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{word}").and_then(|()| out.flush());
    said.map_err(BenchError::Report)
}

/// A body that can be recognised, and that shows when it is torn.
fn text(id: &str) -> String {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
    format!("{id} {LETTERS}{LETTERS}.")
}

/// Who asked for this worker is gone.
fn abandoned() -> BenchError {
    BenchError::Check("the checker is gone".to_owned())
}
