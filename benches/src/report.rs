//! What came out, for people and for programs.

mod latency;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use serde_json::{Map, Value as Json, json};

use crate::error::BenchError;
use crate::series::Table;
use crate::steps::Steps;
use crate::versus::Versus;
pub(crate) use latency::Latency;

/// One measurement, or what several of them say together.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    name: &'static str,
    lines: Vec<(String, Value)>,
    curves: Vec<(String, Latency)>,
    pub(crate) series: Option<Table>,
    /// Of a search for saturation; the figures are those of the best one.
    pub(crate) steps: Option<Steps>,
    /// Of a comparison; there are no other figures then.
    pub(crate) versus: Option<Versus>,
    notes: Vec<String>,
    faults: Vec<&'static str>,
    checked: Option<&'static str>,
}

/// Of streams in which every message was ticked off.
pub(crate) const ALL_CAME: &str =
    "All messages that were acknowledged have come, once and in order; none was refused.";
/// Of a search, in which others may have been refused.
pub(crate) const NONE_LOST: &str =
    "No message that was acknowledged was lost, came twice or out of order.";
/// Of QoS 0, where messages may be lost.
pub(crate) const IN_ORDER: &str =
    "What came, came once and in order. At QoS 0 messages may be lost.";

/// Deliveries need longer than a run waits for them: with this load.
pub(crate) const LATE: &str = "acknowledged messages were still coming long after the end";

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
            curves: Vec::new(),
            series: None,
            steps: None,
            versus: None,
            notes: Vec::new(),
            faults: Vec::new(),
            checked: None,
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
        self.curves.push((name.to_owned(), latency.clone()));
    }

    /// Something to know about the figures.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What is true of it if it is clean, and was checked.
    pub(crate) const fn checks(&mut self, checked: &'static str) {
        self.checked = Some(checked);
    }

    /// What may be said of it.
    pub(crate) fn all_is_well(&self) -> Option<&'static str> {
        self.checked.filter(|_| self.is_clean())
    }

    /// The broker did what it must not: the exit code tells.
    pub(crate) fn fault_if(&mut self, found: bool, fault: &'static str) {
        if found && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Adds all that another one says.
    pub(crate) fn take_over(&mut self, other: &Self) {
        self.lines.extend(other.lines.iter().cloned());
        self.curves.extend(other.curves.iter().cloned());
        self.series.clone_from(&other.series);
        self.notes.extend(other.notes.iter().cloned());
        for fault in &other.faults {
            self.fault_if(true, fault);
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn lines(&self) -> &[(String, Value)] {
        &self.lines
    }

    /// A figure by its name.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let line = self.lines.iter().find(|(it, _)| it == name);
        line.map(|(_, value)| value.number())
    }

    /// Latencies as they were recorded.
    pub(crate) fn curves(&self) -> &[(String, Latency)] {
        &self.curves
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn faults(&self) -> &[&'static str] {
        &self.faults
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.name);
        for (name, value) in &self.lines {
            line(&mut text, format_args!("{name:<30} {value:>12}"));
        }
        if let Some(steps) = &self.steps {
            text.push_str(&steps.text());
        }
        if let Some(versus) = &self.versus {
            text.push_str(&versus.text());
        }
        for note in &self.notes {
            line(&mut text, format_args!("note: {note}"));
        }
        for fault in &self.faults {
            line(&mut text, format_args!("FAULT: {fault}"));
        }
        text
    }

    /// Its figures by their names.
    pub(crate) fn json(&self) -> Map<String, Json> {
        let mut object = Map::new();
        object.insert("bench".to_owned(), json!(self.name));
        for (name, value) in &self.lines {
            object.insert(name.clone(), value.json());
        }
        if let Some(series) = &self.series {
            object.insert("series".to_owned(), series.json());
        }
        if let Some(steps) = &self.steps {
            object.insert("steps".to_owned(), steps.json());
        }
        if let Some(versus) = &self.versus {
            object.insert("versus".to_owned(), versus.json());
        }
        object.insert("notes".to_owned(), json!(self.notes));
        object.insert("faults".to_owned(), json!(self.faults));
        object
    }
}

impl Value {
    pub(crate) const fn number(self) -> f64 {
        match self {
            Self::Count(count) => float(count),
            Self::Rate(number) | Self::Fraction(number) | Self::Micros(number) => number,
        }
    }

    pub(crate) fn json(self) -> Json {
        match self {
            Self::Count(count) => json!(count),
            other => json!((other.number() * 100.0).round() / 100.0),
        }
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

/// Of these figures those that say most, most important first.
pub(crate) fn main_figures<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let names: Vec<_> = names.collect();
    let mut found = MAIN.to_vec();
    found.retain(|name| names.contains(name));
    found
}

const MAIN: [&str; 24] = [
    "saturation_per_s",
    "drained_per_s",
    "all_back_after_s",
    "connects_per_s",
    "server_kb_per_connection",
    "delivered_per_s",
    "acked_per_s",
    "reads_per_s",
    "read_all_after_s",
    "events_to_sender",
    "ack_p50_us",
    "ack_p99_us",
    "last_delivery_p50_us",
    "last_delivery_p99_us",
    "delivery_p99_us",
    "connack_p99_us",
    "back_p99_us",
    "session_drained_p50_us",
    "server_cpu_us_per_delivered",
    "server_cpu_us_per_operation",
    "server_cpu_us_per_connect",
    "server_cpu_us_per_session",
    "server_cpu_us_per_message",
    "server_rss_kb",
];

/// Writes it to where programs look for it.
pub(crate) fn print(text: &str) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(BenchError::Report)
}

/// Appends a line of a report.
pub(crate) fn line(text: &mut String, content: fmt::Arguments<'_>) {
    writeln!(text, "  {content}").expect("a String takes everything");
}

/// For ratios; exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2⁵³")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// A whole number with commas between its thousands.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", &*digits), |digits| ("-", digits));
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with as many digits as say something.
pub(crate) fn short(number: f64) -> String {
    if number.abs() < 100.0 && number.fract() != 0.0 {
        format!("{number:.2}")
    } else {
        grouped(number)
    }
}

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
        let json = report.json();
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

    #[test]
    fn thousands_are_grouped() {
        let grouped = [0.4, 999.0, 1_000.0, 1_234_567.0, -12_345.0].map(grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567", "-12,345"]);
    }
}
