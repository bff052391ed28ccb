//! Rates, one after the other, until latency or deliveries do not keep up: where a server is saturated.
//!
//! 1. Each step is a run of its own at a fixed rate (open loop). It held if the 99th percentile of latency is within the
//!    limit, and at least 99 % of what was offered was acknowledged and delivered in the measured time.
//! 2. Rates go up by a factor until one does not hold (down, if the first does not), then lie between the highest that held
//!    and the lowest that did not. Of a list, each is tried.
//! 3. What does not hold is tried once more, so that a hiccup of the machine is not taken for saturation.
//! 4. A broker that breaks the protocol, or is gone, is not saturated: the search ends with a fault.

mod ladder;

use std::num::NonZeroU32;
use std::str::FromStr;

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use crate::args::Target;
use crate::error::{BenchError, Blame};
use crate::progress::Progress;
use crate::report::{IN_ORDER, LATE, NONE_LOST, Report, Value, grouped, line};
use crate::scenario::{Bench, Scenario};
use ladder::Ladder;

/// Which rates, and what holds.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Steps")]
pub(crate) struct StepsArgs {
    /// Find the highest rate that holds. Publishes per second to try: 1000x1.5 (from 1,000 up by this factor, then in between), or a list: 1000,2000,4000
    #[arg(long, value_name = "RATES", conflicts_with = "rate")]
    pub(crate) steps: Option<Rates>,
    /// A step holds if the 99th percentile of latency is within this
    #[arg(long, default_value = "20", requires = "steps", value_parser = parse_limit)]
    pub(crate) latency_limit_ms: f64,
    /// Of which latency (at QoS 0 there are no acks)
    #[arg(long, value_enum, default_value = "ack", requires = "steps")]
    pub(crate) latency_of: LatencyOf,
    /// Steps at most on the way up
    #[arg(long, default_value = "20", requires = "steps")]
    pub(crate) steps_max: u16,
    /// Steps between the last that held and the first that did not
    #[arg(long, default_value = "3", requires = "steps")]
    pub(crate) refine: u16,
    /// How often a rate is tried before it counts as not held
    #[arg(long, default_value = "2", requires = "steps")]
    pub(crate) tries: std::num::NonZeroU16,
}

/// The rates of `--steps`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rates {
    Up { start: NonZeroU32, factor: f64 },
    List(Vec<NonZeroU32>),
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || "a start and a factor above 1 (1000x1.5), or a list (1000,2000)".to_owned();
        let rate = |text: &str| text.trim().parse::<NonZeroU32>().map_err(|_| told());
        if let Some((start, factor)) = text.split_once('x') {
            let start = rate(start)?;
            let factor = factor.trim().parse().map_err(|_| told())?;
            if !(1.01..=100.0).contains(&factor) {
                return Err(told());
            }
            return Ok(Self::Up { start, factor });
        }
        let list = text.split(',').map(rate).collect::<Result<_, _>>()?;
        Ok(Self::List(list))
    }
}

fn parse_limit(text: &str) -> Result<f64, String> {
    let limit = text.parse().ok().filter(|limit: &f64| *limit > 0.0);
    limit.ok_or_else(|| "milliseconds, more than 0".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LatencyOf {
    /// From when a message was due to PUBACK or PUBCOMP
    Ack,
    /// From when a message was due to its arrival
    Delivery,
}

/// All steps of a search.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub(crate) limit_ms: f64,
    pub(crate) latency_of: LatencyOf,
    pub(crate) tried: Vec<Step>,
}

/// One rate, tried once.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) rate: u32,
    /// Why it did not hold.
    pub(crate) failure: Option<String>,
    /// The generator itself was late, or had no CPU left: the figures are not the server's.
    pub(crate) generator_limited: bool,
    /// What was measured, if there is a result.
    pub(crate) report: Option<Report>,
}

impl Step {
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.report.as_ref()?.figure(name)
    }

    /// There is no result.
    fn without(rate: NonZeroU32, error: &BenchError) -> Self {
        Self {
            rate: rate.get(),
            failure: Some(format!("no result: {error}")),
            generator_limited: false,
            report: None,
        }
    }

    /// Everything in one object.
    fn json(&self) -> Json {
        let mut object = Map::new();
        object.insert("offered_per_s".to_owned(), json!(self.rate));
        object.insert("held".to_owned(), json!(self.failure.is_none()));
        object.insert("failure".to_owned(), json!(self.failure));
        let limited = json!(self.generator_limited);
        object.insert("generator_limited".to_owned(), limited);
        for (name, value) in self.report.iter().flat_map(Report::lines) {
            object.insert(name.clone(), value.json());
        }
        Json::Object(object)
    }
}

impl Steps {
    pub(crate) fn json(&self) -> Json {
        self.tried.iter().map(Step::json).collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        line(
            &mut text,
            format_args!(
                "{:>11} {:>11} {:>11} {:>10} {:>10} {:>12} {:>6}",
                "offered/s", "acked/s", "delivered/s", "ack p99", "deliv. p99", "server CPU %", "",
            ),
        );
        for step in &self.tried {
            let figure = |name| step.figure(name).map_or_else(|| "-".to_owned(), grouped);
            let failure = step.failure.as_deref().unwrap_or("held");
            let limited = if step.generator_limited {
                " (generator at its limit)"
            } else {
                ""
            };
            line(
                &mut text,
                format_args!(
                    "{:>11} {:>11} {:>11} {:>10} {:>10} {:>12} {failure}{limited}",
                    grouped(f64::from(step.rate)),
                    figure("acked_per_s"),
                    figure("delivered_per_s"),
                    figure("ack_p99_us"),
                    figure("delivery_p99_us"),
                    figure("server_cpu_percent"),
                ),
            );
        }
        text
    }

    /// The highest rate that held.
    pub(crate) fn best(&self) -> Option<&Step> {
        let held = self.tried.iter().filter(|step| step.failure.is_none());
        held.max_by_key(|step| step.rate)
    }

    /// Which latency is judged, where it was measured.
    pub(crate) fn latency(&self, figure: impl Fn(&'static str) -> Option<f64>) -> Option<f64> {
        let ack = figure("ack_p99_us").filter(|_| self.latency_of == LatencyOf::Ack);
        ack.or_else(|| figure("delivery_p99_us"))
    }
}

/// Searches, each step against a target of its own making.
pub(crate) async fn run(
    scenario: &Scenario,
    (args, rates): (&StepsArgs, &Rates),
    target: &Target,
    (progress, threads): (&Progress, usize),
) -> Result<Report, BenchError> {
    let mut ladder = Ladder::new(rates.clone(), args.steps_max, args.refine);
    let mut steps = Steps {
        limit_ms: args.latency_limit_ms,
        latency_of: args.latency_of,
        tried: Vec::new(),
    };
    let mut broken = None;
    'search: while let Some(rate) = ladder.next() {
        for _ in 0..args.tries.get() {
            progress.step(format!("step {}, {rate}/s: ", steps.tried.len() + 1));
            let scenario = scenario.at_rate(rate);
            let finished = scenario.run(Bench::new(target, progress)).await;
            let step = match finished {
                Ok(report) => judge(&steps, rate, report, threads),
                Err(error) if steps.tried.is_empty() => return Err(error),
                Err(error) => match error.blame() {
                    Blame::Own => return Err(error),
                    Blame::Load => Step::without(rate, &error),
                    Blame::Broker => {
                        steps.tried.push(Step::without(rate, &error));
                        broken = Some(error);
                        break 'search;
                    }
                },
            };
            let held = step.failure.is_none();
            steps.tried.push(step);
            if held {
                break;
            }
        }
        let held = steps.tried.last().is_some_and(|it| it.failure.is_none());
        ladder.note(rate, held);
    }
    let mut report = conclude(scenario.name(), steps, ladder.failed());
    if let Some(error) = broken {
        report.note(format!("the search ended early: {error}"));
        report.fault_if(true, "the broker failed while it was measured");
    }
    Ok(report)
}

/// Did it hold?
fn judge(steps: &Steps, rate: NonZeroU32, report: Report, threads: usize) -> Step {
    let figure = |name: &'static str| report.figure(name);
    let percent =
        |got: &'static str, offered: &'static str| Some(100.0 * figure(got)? / figure(offered)?);
    let limit_us = steps.limit_ms * 1_000.0;
    let acked = figure("ack_p99_us").and_then(|_| percent("acked_per_s", "offered_per_s"));
    let delivered = percent("delivered_per_s", "offered_deliveries_per_s");
    let read = percent("reads_per_s", "offered_reads_per_s");
    let latency = steps.latency(figure);
    let failure = if let Some(fault) = report.faults().first() {
        Some((*fault).to_owned())
    } else if let Some(acked) = acked.filter(|percent| *percent < HELD_PERCENT) {
        Some(format!("{acked:.2} % acknowledged"))
    } else if let Some(delivered) = delivered.filter(|percent| *percent < HELD_PERCENT) {
        Some(format!("{delivered:.2} % delivered"))
    } else if let Some(read) = read.filter(|percent| *percent < HELD_PERCENT) {
        Some(format!("{read:.2} % of the reads answered"))
    } else if let Some(latency) = latency.filter(|latency| *latency > limit_us) {
        Some(format!("p99 {:.1} ms", latency / 1_000.0))
    } else if let Some(read) = slowest_read(&report).filter(|latency| *latency > limit_us) {
        Some(format!("p99 of reads {:.1} ms", read / 1_000.0))
    } else if latency.is_none() {
        Some("no latency".to_owned())
    } else {
        None
    };
    let cores = u32::try_from(threads).map_or(f64::MAX, f64::from);
    let is_busy = figure("generator_cpu_percent").is_some_and(|it| it > BUSY_PERCENT * cores);
    let is_late = figure("generator_lag_p99_us").is_some_and(|lag| lag > limit_us / 2.0);
    Step {
        rate: rate.get(),
        failure,
        generator_limited: is_busy || is_late,
        report: Some(report),
    }
}

/// The 99th percentile of the kind of read that takes longest.
fn slowest_read(report: &Report) -> Option<f64> {
    let is_read = |name: &str| name.starts_with("read_") && name.ends_with("_p99_us");
    let reads = report.lines().iter().filter(|(name, _)| is_read(name));
    reads.map(|(_, value)| value.number()).reduce(f64::max)
}

/// The best step, and what all of them say; `failed` is the lowest rate that did not hold.
fn conclude(name: &'static str, steps: Steps, failed: Option<u32>) -> Report {
    let best = steps.best().and_then(|best| best.report.clone());
    let mut report = Report::new(name);
    let saturation = steps.best().map_or(0, |best| u64::from(best.rate));
    report.value("saturation_per_s", Value::Count(saturation));
    report.value("latency_limit_ms", Value::Fraction(steps.limit_ms));
    report.value("steps_tried", Value::Count(steps.tried.len() as u64));
    if let Some(best) = best {
        report.take_over(&best);
    } else {
        report.note("no rate held: begin lower, or allow more latency".to_owned());
    }
    let tries = |rate: Option<u32>| {
        let tries = steps.tried.iter();
        tries.filter(move |step| Some(step.rate) == rate && step.failure.is_some())
    };
    if failed.is_none() && saturation > 0 {
        report.note("every rate held: the saturation lies above".to_owned());
    }
    let hiccups = tries(steps.best().map(|best| best.rate)).count();
    if hiccups > 0 {
        report.note(format!(
            "{saturation}/s held after it had not held, tries before: {hiccups}"
        ));
    }
    if tries(failed).any(|step| step.generator_limited) {
        let note = "the generator was at its limit where it did not hold: the server may be capable of more";
        report.note(note.to_owned());
    }
    // Above the saturation messages may be refused or wait, but what was acknowledged is not lost.
    for step in steps.tried.iter().filter_map(|step| step.report.as_ref()) {
        for fault in step.faults() {
            let is_load = fault.starts_with("publishes") || *fault == LATE;
            report.fault_if(!is_load, fault);
        }
    }
    let certain = report.figure("ack_p99_us").is_some();
    report.checks(if certain { NONE_LOST } else { IN_ORDER });
    report.steps = Some(steps);
    report
}

/// Of what is offered.
const HELD_PERCENT: f64 = 99.0;
/// Of a core for each thread of the generator.
const BUSY_PERCENT: f64 = 90.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(p99_ms: f64, delivered: f64) -> Step {
        let mut report = Report::new("test");
        report.value("offered_per_s", Value::Count(100));
        report.value("offered_deliveries_per_s", Value::Count(1_000));
        report.value("acked_per_s", Value::Rate(100.0));
        report.value("delivered_per_s", Value::Rate(delivered));
        report.value("ack_p99_us", Value::Micros(p99_ms * 1_000.0));
        report.value("generator_cpu_percent", Value::Fraction(120.0));
        let steps = Steps {
            limit_ms: 10.0,
            latency_of: LatencyOf::Ack,
            tried: Vec::new(),
        };
        judge(&steps, NonZeroU32::new(100).unwrap(), report, 2)
    }

    #[test]
    fn a_step_holds_within_latency_and_deliveries() {
        assert_eq!(measured(10.0, 990.0).failure, None);
        assert_eq!(measured(10.1, 990.0).failure.unwrap(), "p99 10.1 ms");
        let lacking = measured(1.0, 980.0);
        assert_eq!(lacking.failure.unwrap(), "98.00 % delivered");
        assert!(!lacking.generator_limited);
    }

    #[test]
    fn slow_reads_do_not_hold() {
        let mut report = Report::new("test");
        report.value("ack_p99_us", Value::Micros(1_000.0));
        report.value("read_last_p99_us", Value::Micros(2_000.0));
        report.value("read_history_p99_us", Value::Micros(12_000.0));
        report.value("generator_lag_p99_us", Value::Micros(6_000.0));
        let step = judge(&all_of([]), NonZeroU32::MIN, report, 2);
        assert_eq!(step.failure.unwrap(), "p99 of reads 12.0 ms");
        assert!(step.generator_limited);
    }

    fn all_of(tried: impl IntoIterator<Item = (u32, Option<&'static str>, bool)>) -> Steps {
        let step = |(rate, fault, generator_limited): (u32, Option<&'static str>, bool)| {
            let mut report = Report::new("test");
            report.fault_if(fault.is_some(), fault.unwrap_or_default());
            Step {
                rate,
                failure: fault.map(str::to_owned),
                generator_limited,
                report: Some(report),
            }
        };
        Steps {
            limit_ms: 10.0,
            latency_of: LatencyOf::Ack,
            tried: tried.into_iter().map(step).collect(),
        }
    }

    fn notes(report: &Report) -> String {
        report.notes().join("; ")
    }

    #[test]
    fn a_hiccup_is_not_where_it_was_saturated() {
        let late = Some("publishes were not acknowledged");
        let tried = [(10, late, true), (10, None, false), (20, None, false)];
        let report = conclude("test", all_of(tried), None);
        assert!(notes(&report).contains("the saturation lies above"));
        assert!(!notes(&report).contains("generator"));
        let tried = [(10, late, false), (10, None, false)];
        let above = [(20, late, false), (20, late, true)];
        let report = conclude("test", all_of(tried.into_iter().chain(above)), Some(20));
        assert!(notes(&report).contains("10/s held after it had not held"));
        assert!(notes(&report).contains("the generator was at its limit"));
        assert!(!notes(&report).contains("lies above"));
        assert_eq!(report.figure("saturation_per_s"), Some(10.0));
    }

    #[test]
    fn above_the_saturation_only_what_load_does_is_no_fault() {
        let refused = Some("publishes were refused");
        let tried = [
            (10, None, false),
            (20, refused, false),
            (30, Some(LATE), false),
        ];
        let report = conclude("test", all_of(tried), Some(20));
        assert!(report.is_clean(), "{:?}", report.faults());
        let lost = Some("acknowledged messages were lost");
        let report = conclude(
            "test",
            all_of([(10, None, false), (20, lost, false)]),
            Some(20),
        );
        assert_eq!(report.faults(), ["acknowledged messages were lost"]);
    }

    #[test]
    fn rates_are_read() {
        let one = NonZeroU32::new(1_000).unwrap();
        let factor = 1.5;
        let up = Rates::Up { start: one, factor };
        assert_eq!("1000x1.5".parse(), Ok(up));
        let two = NonZeroU32::new(20).unwrap();
        assert_eq!("1000, 20".parse(), Ok(Rates::List(vec![one, two])));
        for wrong in ["", "0", "10x1", "10x", "x2", "1,,2", "-5", "10xNaN"] {
            assert!(wrong.parse::<Rates>().is_err(), "{wrong}");
        }
    }
}
