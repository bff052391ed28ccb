//! What is being done, on one line of a terminal; nothing where stderr is a file or a pipe.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::clock::Clock;
use crate::report::{float, grouped};

/// Shared by all who make progress; costs nothing where nobody looks.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Option<Arc<Line>>);

/// When a phase is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Not known.
    None,
    Time(Duration),
    Count(u64),
}

#[derive(Debug)]
struct Line {
    state: Mutex<State>,
    count: AtomicU64,
    stopped: AtomicBool,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct State {
    /// Which of several measurements.
    part: String,
    step: String,
    what: &'static str,
    goal: Goal,
    begun: Duration,
}

/// Shows the line until it is dropped.
#[derive(Debug)]
pub(crate) struct Shown {
    line: Option<Arc<Line>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shown if there is a terminal, and nobody wants quiet.
    pub(crate) fn start(quiet: bool) -> (Self, Shown) {
        if quiet || !io::stderr().is_terminal() {
            let (line, thread) = (None, None);
            return (Self(None), Shown { line, thread });
        }
        let line = Arc::new(Line {
            state: Mutex::new(State {
                part: String::new(),
                step: String::new(),
                what: "starting",
                goal: Goal::None,
                begun: Duration::ZERO,
            }),
            count: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            clock: Clock::start(),
        });
        let shown = Arc::clone(&line);
        let thread = std::thread::spawn(move || shown.show());
        let shown = Shown {
            line: Some(Arc::clone(&line)),
            thread: Some(thread),
        };
        (Self(Some(line)), shown)
    }

    /// Which of several measurements begins now.
    pub(crate) fn begin(&self, part: String) {
        if let Some(line) = &self.0 {
            line.change(|state| {
                state.part = part;
                state.step.clear();
            });
        }
    }

    /// Which step of it.
    pub(crate) fn step(&self, step: String) {
        if let Some(line) = &self.0 {
            line.change(|state| state.step = step);
        }
    }

    /// What begins now.
    pub(crate) fn phase(&self, what: &'static str, goal: Goal) {
        if let Some(line) = &self.0 {
            line.count.store(0, Ordering::Relaxed);
            let begun = line.clock.elapsed();
            line.change(|state| {
                state.what = what;
                state.goal = goal;
                state.begun = begun;
            });
        }
    }

    /// So many more are done.
    pub(crate) fn advance(&self, count: u64) {
        if let Some(line) = &self.0 {
            line.count.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Line {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn show(&self) {
        let mut before = (0, Duration::ZERO);
        while !self.stopped.load(Ordering::Relaxed) {
            sleep(PAUSE);
            let now = (self.count.load(Ordering::Relaxed), self.clock.elapsed());
            let counted = float(now.0.saturating_sub(before.0));
            let rate = counted / now.1.saturating_sub(before.1).as_secs_f64().max(1e-3);
            before = now;
            let state = self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            write_out(&state.line(now.1.saturating_sub(state.begun), now.0, rate));
        }
        write_out("");
    }
}

impl State {
    fn line(&self, passed: Duration, count: u64, rate: f64) -> String {
        let mut line = format!("{}{}", self.part, self.step);
        let seconds = passed.as_secs_f64();
        let parts = match self.goal {
            Goal::None => write!(line, "{} {seconds:.0} s", self.what),
            Goal::Time(total) => {
                let total = total.as_secs_f64();
                let bar = bar(seconds / total);
                write!(
                    line,
                    "{} {bar} {:.0}/{total:.0} s",
                    self.what,
                    seconds.min(total)
                )
            }
            Goal::Count(total) => {
                let bar = bar(float(count) / float(total.max(1)));
                write!(
                    line,
                    "{} {bar} {}/{}",
                    self.what,
                    grouped(float(count)),
                    grouped(float(total))
                )
            }
        };
        if rate > 0.0 {
            parts.and_then(|()| write!(line, "  {}/s", grouped(rate)))
        } else {
            parts
        }
        .expect("a String takes everything");
        line
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.stopped.store(true, Ordering::Relaxed);
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread costs the line, not the measurement.
            drop(thread.join());
        }
    }
}

/// Replaces the line; a terminal that has gone is nobody's loss.
fn write_out(line: &str) {
    let mut out = io::stderr().lock();
    drop(write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush()));
}

fn bar(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and its width"
    )]
    let full = (share.clamp(0.0, 1.0) * float(BAR as u64)) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full.min(BAR)))
}

const PAUSE: Duration = Duration::from_millis(200);
const BAR: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_and_how_far() {
        let mut state = State {
            part: "round 1: ".to_owned(),
            step: String::new(),
            what: "measuring",
            goal: Goal::Time(Duration::from_secs(10)),
            begun: Duration::ZERO,
        };
        assert_eq!(
            state.line(Duration::from_secs(5), 7, 12_345.0),
            "round 1: measuring [##########----------] 5/10 s  12,345/s"
        );
        state.goal = Goal::Count(2_000);
        assert_eq!(
            state.line(Duration::from_secs(5), 4_000, 0.0),
            "round 1: measuring [####################] 4,000/2,000"
        );
    }
}
