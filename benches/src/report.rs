//! What came out, for people and for programs.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use hdrhistogram::Histogram;
use serde_json::{Map, json};

use crate::error::BenchError;

/// One measurement.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    lines: Vec<(String, Value)>,
    notes: Vec<String>,
    faults: Vec<&'static str>,
}

/// A figure, by how it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Count(u64),
    Rate(f64),
    Fraction(f64),
    /// In microseconds.
    Micros(f64),
}

impl Report {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            lines: Vec::new(),
            notes: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn value(&mut self, name: impl Into<String>, value: Value) {
        self.lines.push((name.into(), value));
    }

    /// Percentiles in microseconds; nothing if nothing was recorded.
    pub(crate) fn latency(&mut self, name: &str, latency: &Latency) {
        if latency.count() == 0 {
            return;
        }
        for (suffix, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            let micros = latency.micros_at(quantile);
            self.value(format!("{name}_{suffix}_us"), Value::Micros(micros));
        }
    }

    /// Something to know about the figures.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The broker did what it must not: the exit code tells.
    pub(crate) fn fault_if(&mut self, found: bool, fault: &'static str) {
        if found {
            self.faults.push(fault);
        }
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    pub(crate) fn print(&self, as_json: bool) -> Result<(), BenchError> {
        let text = if as_json { self.json() } else { self.text() };
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(BenchError::Report)
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.name);
        for (name, value) in &self.lines {
            line(&mut text, format_args!("{name:<30} {value:>12}"));
        }
        for note in &self.notes {
            line(&mut text, format_args!("note: {note}"));
        }
        for fault in &self.faults {
            line(&mut text, format_args!("FAULT: {fault}"));
        }
        text
    }

    fn json(&self) -> String {
        let mut object = Map::new();
        object.insert("bench".to_owned(), json!(self.name));
        for (name, value) in &self.lines {
            let value = match value {
                Value::Count(count) => json!(count),
                Value::Rate(number) | Value::Fraction(number) | Value::Micros(number) => {
                    json!((number * 100.0).round() / 100.0)
                }
            };
            object.insert(name.clone(), value);
        }
        object.insert("notes".to_owned(), json!(self.notes));
        object.insert("faults".to_owned(), json!(self.faults));
        format!("{}\n", serde_json::Value::Object(object))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Count(count) => count.to_string(),
            Self::Rate(number) | Self::Micros(number) => format!("{number:.0}"),
            Self::Fraction(fraction) => format!("{fraction:.2}"),
        };
        f.pad(&text)
    }
}

fn line(text: &mut String, content: fmt::Arguments<'_>) {
    writeln!(text, "  {content}").expect("a String takes everything");
}

/// For ratios; exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2⁵³")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// Durations, to about one percent, from a microsecond to ten minutes.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST_NANOS, HIGHEST_NANOS, 2);
        Self(histogram.expect("the bounds are constants"))
    }
}

impl Latency {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    fn micros_at(&self, quantile: f64) -> f64 {
        float(self.0.value_at_quantile(quantile)) / 1_000.0
    }
}

const LOWEST_NANOS: u64 = 1_000;
const HIGHEST_NANOS: u64 = 600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut latency = Latency::default();
        for micros in 1..=1_000 {
            latency.record(micros * 1_000);
        }
        let mut report = Report::new("test");
        report.latency("ack", &latency);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        let (median, p99) = (&json["ack_p50_us"], &json["ack_p99_us"]);
        assert!(
            (495.0..515.0).contains(&median.as_f64().unwrap()),
            "{median}"
        );
        assert!((980.0..1_010.0).contains(&p99.as_f64().unwrap()), "{p99}");
    }

    #[test]
    fn a_fault_makes_the_report_unclean() {
        let mut report = Report::new("test");
        report.fault_if(false, "lost");
        assert!(report.is_clean());
        report.fault_if(true, "lost");
        assert!(!report.is_clean());
    }
}
