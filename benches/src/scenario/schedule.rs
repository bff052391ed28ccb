//! The moments of a run, and what server and generator used between them.

use std::time::Duration;

use crate::clock::{Clock, nanos};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::{Goal, Progress};
use crate::report::{Report, Value, float};
use crate::series::Series;

/// In nanoseconds of the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) clock: Clock,
    pub(super) start: u64,
    pub(super) measure_from: u64,
    pub(super) stop: u64,
    pub(super) drain: Duration,
}

impl Schedule {
    /// Begins at once; all in seconds.
    pub(super) fn new(clock: Clock, warmup: u32, seconds: u32, drain: u32) -> Self {
        let start = clock.nanos() + nanos(Duration::from_millis(20));
        let measure_from = start + nanos(Duration::from_secs(warmup.into()));
        Self {
            clock,
            start,
            measure_from,
            stop: measure_from + nanos(Duration::from_secs(seconds.into())),
            drain: Duration::from_secs(drain.into()),
        }
    }

    /// Is this moment measured?
    pub(super) const fn measures(&self, at: u64) -> bool {
        at >= self.measure_from && at < self.stop
    }

    pub(super) fn deadline(&self, at: u64) -> tokio::time::Instant {
        self.clock.deadline(Duration::from_nanos(at))
    }

    /// What becomes of messages that have not come by now, if the last one came at `last_arrival`.
    pub(super) fn patience(&self, now: u64, last_arrival: u64) -> Patience {
        let drain = nanos(self.drain);
        // Acks may take one drain, and what was acknowledged last may take another.
        let quiet_from = last_arrival.max(self.stop + drain);
        if now >= quiet_from + drain {
            Patience::Lost
        } else if now >= self.stop + DRAINS_MAX * drain {
            Patience::Late
        } else {
            Patience::Wait
        }
    }

    /// Looks at the processes from the beginning of the measured time to its end, once in each part of the series.
    pub(super) async fn watch(
        &self,
        server: Option<&Process>,
        series: &Series,
        progress: &Progress,
    ) -> Result<Used, BenchError> {
        if self.measure_from > self.start {
            let warmup = Duration::from_nanos(self.measure_from - self.start);
            progress.phase("warming up", Goal::Time(warmup));
        }
        tokio::time::sleep_until(self.deadline(self.measure_from)).await;
        let measured = Duration::from_nanos(self.stop - self.measure_from);
        progress.phase("measuring", Goal::Time(measured));
        let first = Usage::now(self.clock, server)?;
        let mut last = first;
        for moment in series.ends() {
            tokio::time::sleep_until(self.deadline(moment)).await;
            let usage = Usage::now(self.clock, server)?;
            if let (Some(cpu), Some(rss)) = (usage.percent_since(&last), usage.server_rss_kb) {
                series.note_usage(cpu, rss);
            }
            last = usage;
        }
        progress.phase("waiting for the rest", Goal::None);
        Ok(Used { first, last })
    }
}

/// Whether messages that are missing may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Wait,
    /// Nothing comes any more.
    Lost,
    /// Others still come, but it has taken too long.
    Late,
}

/// What was used in the measured time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    first: Usage,
    last: Usage,
}

impl Used {
    /// The figures; CPU of the server for each of so many things as well, under this name.
    pub(super) fn tell(&self, (name, count): (&str, u64), report: &mut Report) {
        let (first, last) = (&self.first, &self.last);
        if let (Some(before), Some(cpu), Some(rss)) =
            (first.server_cpu, last.server_cpu, last.server_rss_kb)
        {
            let micros = cpu.saturating_sub(before).as_secs_f64() * 1e6;
            let each = micros / float(count.max(1));
            report.value(name, Value::Fraction(each));
            let percent = last.percent_since(first).unwrap_or_default();
            report.value("server_cpu_percent", Value::Fraction(percent));
            report.value("server_rss_kb", Value::Count(rss));
        }
        let own = last.own_cpu.saturating_sub(first.own_cpu);
        let percent = last.percent(first, own);
        report.value("generator_cpu_percent", Value::Fraction(percent));
    }
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    at: Duration,
    own_cpu: Duration,
    server_cpu: Option<Duration>,
    server_rss_kb: Option<u64>,
}

impl Usage {
    fn now(clock: Clock, server: Option<&Process>) -> Result<Self, BenchError> {
        Ok(Self {
            at: clock.elapsed(),
            own_cpu: Process::own().cpu()?,
            server_cpu: server.map(Process::cpu).transpose()?,
            server_rss_kb: server.map(Process::rss_kb).transpose()?,
        })
    }

    /// CPU of the server since then; 100 is one core.
    fn percent_since(&self, before: &Self) -> Option<f64> {
        let used = self.server_cpu?.saturating_sub(before.server_cpu?);
        Some(self.percent(before, used))
    }

    fn percent(&self, before: &Self, used: Duration) -> f64 {
        let passed = self.at.saturating_sub(before.at).as_secs_f64();
        100.0 * used.as_secs_f64() / passed.max(1e-3)
    }
}

/// So many times `--drain` after the end waiting is over, whatever comes.
const DRAINS_MAX: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_still_gets_messages_is_waited_for_and_not_for_ever() {
        let schedule = Schedule::new(Clock::start(), 0, 1, 10);
        let after = |seconds: u64| schedule.stop + seconds * 1_000_000_000;
        let all = [
            (after(19), after(0), Patience::Wait),
            (after(20), after(0), Patience::Lost),
            (after(20), after(11), Patience::Wait),
            (after(21), after(11), Patience::Lost),
            (after(299), after(299), Patience::Wait),
            (after(300), after(299), Patience::Late),
        ];
        for (now, last_arrival, expected) in all {
            assert_eq!(schedule.patience(now, last_arrival), expected);
        }
    }
}
