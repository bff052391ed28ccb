//! How a run went, second by second.
//!
//! Tasks note what they see on a [`Tape`] of their own, which gives it to the [`Series`] when a second is over: nothing
//! is shared in between. A run of more than ten minutes has longer parts, so that there are 600 at most.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::report::{Latency, float};

/// All parts of the measured time.
#[derive(Debug)]
pub(crate) struct Series {
    from: u64,
    to: u64,
    /// Length of a part, in nanoseconds.
    part: u64,
    parts: Mutex<Vec<Part>>,
    /// CPU percent and memory of the server, one for each part.
    usage: Mutex<Vec<(f64, u64)>>,
}

#[derive(Clone, Debug, Default)]
struct Part {
    acked: u64,
    delivered: u64,
    ack: Option<Latency>,
    delivery: Option<Latency>,
}

/// What is noted on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    Ack,
    Delivery,
}

impl Series {
    /// Of the time between these two moments.
    pub(crate) fn new(from: u64, to: u64) -> Arc<Self> {
        let part = (to - from).div_ceil(PARTS_MAX * SECOND).max(1) * SECOND;
        Arc::new(Self {
            from,
            to,
            part,
            parts: Mutex::new(Vec::new()),
            usage: Mutex::new(Vec::new()),
        })
    }

    /// When each part ends.
    pub(crate) fn ends(&self) -> impl Iterator<Item = u64> {
        let count = (self.to - self.from).div_ceil(self.part);
        (1..=count).map(|number| (self.from + number * self.part).min(self.to))
    }

    /// The processes in the next part.
    pub(crate) fn note_usage(&self, cpu_percent: f64, rss_kb: u64) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.push((cpu_percent, rss_kb));
    }

    /// As columns.
    pub(crate) fn table(&self) -> Table {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::default();
        let mut begins = self.from;
        for (index, end) in self.ends().enumerate() {
            let seconds = float(end - begins) / float(SECOND);
            let part = parts.get(index).cloned().unwrap_or_default();
            let micros = |latency: Option<&Latency>| latency.map(|it| it.micros_at(0.99));
            table.at_s.push(float(end - self.from) / float(SECOND));
            table.acked_per_s.push(float(part.acked) / seconds);
            table.delivered_per_s.push(float(part.delivered) / seconds);
            table.ack_p99_us.push(micros(part.ack.as_ref()));
            table.delivery_p99_us.push(micros(part.delivery.as_ref()));
            let used = usage.get(index);
            table.server_cpu_percent.push(used.map(|(cpu, _)| *cpu));
            table.server_rss_kb.push(used.map(|(_, rss)| float(*rss)));
            begins = end;
        }
        table
    }

    fn add(&self, index: u64, noted: Noted, count: u64, latency: &Latency) {
        let Ok(index) = usize::try_from(index) else {
            return;
        };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.len() <= index {
            parts.resize(index + 1, Part::default());
        }
        let Some(part) = parts.get_mut(index) else {
            return;
        };
        let sum = match noted {
            Noted::Ack => {
                part.acked += count;
                &mut part.ack
            }
            Noted::Delivery => {
                part.delivered += count;
                &mut part.delivery
            }
        };
        sum.get_or_insert_default().add(latency);
    }
}

/// The columns of a series, of equal length; what was not measured is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// When the part ends, from the beginning of the measured time.
    pub(crate) at_s: Vec<f64>,
    pub(crate) acked_per_s: Vec<f64>,
    pub(crate) delivered_per_s: Vec<f64>,
    pub(crate) ack_p99_us: Vec<Option<f64>>,
    pub(crate) delivery_p99_us: Vec<Option<f64>>,
    pub(crate) server_cpu_percent: Vec<Option<f64>>,
    pub(crate) server_rss_kb: Vec<Option<f64>>,
}

impl Table {
    pub(crate) fn json(&self) -> Value {
        let rounded = |number: f64| (number * 100.0).round() / 100.0;
        let all = |column: &[f64]| -> Value { column.iter().copied().map(rounded).collect() };
        let some = |column: &[Option<f64>]| -> Value {
            column.iter().map(|one| one.map(rounded)).collect()
        };
        json!({
            "at_s": all(&self.at_s),
            "acked_per_s": all(&self.acked_per_s),
            "delivered_per_s": all(&self.delivered_per_s),
            "ack_p99_us": some(&self.ack_p99_us),
            "delivery_p99_us": some(&self.delivery_p99_us),
            "server_cpu_percent": some(&self.server_cpu_percent),
            "server_rss_kb": some(&self.server_rss_kb),
        })
    }
}

/// What one task has seen in the present part.
#[derive(Debug)]
pub(crate) struct Tape {
    series: Arc<Series>,
    noted: Noted,
    index: u64,
    begins: u64,
    ends: u64,
    count: u64,
    latency: Latency,
}

impl Tape {
    pub(crate) fn new(series: &Arc<Series>, noted: Noted) -> Self {
        Self {
            noted,
            index: 0,
            begins: series.from,
            ends: (series.from + series.part).min(series.to),
            count: 0,
            latency: Latency::default(),
            series: Arc::clone(series),
        }
    }

    /// Something happened now that took so long, in nanoseconds. Outside of the measured time it is not noted.
    pub(crate) fn note(&mut self, now: u64, took: u64) {
        if now >= self.ends {
            self.turn_to(now);
        }
        if now >= self.begins && now < self.ends {
            self.count += 1;
            self.latency.record(took);
        }
    }

    fn turn_to(&mut self, now: u64) {
        self.give();
        let now = now.min(self.series.to);
        self.index = (now - self.series.from) / self.series.part;
        self.begins = self.series.from + self.index * self.series.part;
        self.ends = (self.begins + self.series.part).min(self.series.to);
    }

    fn give(&mut self) {
        if self.count > 0 {
            let (index, noted) = (self.index, self.noted);
            self.series.add(index, noted, self.count, &self.latency);
            self.count = 0;
            self.latency.clear();
        }
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.give();
    }
}

const SECOND: u64 = 1_000_000_000;
const PARTS_MAX: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_what_happened_in_it() {
        let series = Series::new(SECOND, 4 * SECOND + SECOND / 2);
        let mut acks = Tape::new(&series, Noted::Ack);
        let mut other = Tape::new(&series, Noted::Delivery);
        for at in [0, SECOND, SECOND + 1, 3 * SECOND, 4 * SECOND, 5 * SECOND] {
            acks.note(at, 2_000_000);
            other.note(at, 1_000);
        }
        drop((acks, other));
        let table = series.table();
        assert_eq!(table.at_s, [1.0, 2.0, 3.0, 3.5]);
        assert_eq!(table.acked_per_s, [2.0, 0.0, 1.0, 2.0]);
        assert_eq!(table.delivered_per_s, table.acked_per_s);
        let p99 = table.ack_p99_us[0].unwrap();
        assert!((1_980.0..2_020.0).contains(&p99), "{p99}");
        assert_eq!(table.ack_p99_us[1], None);
        assert_eq!(table.server_rss_kb, [None; 4]);
    }

    #[test]
    fn a_long_run_has_a_bounded_number_of_parts() {
        let series = Series::new(0, 7_201 * SECOND);
        assert_eq!(series.ends().count(), 554);
        assert_eq!(series.ends().last(), Some(7_201 * SECOND));
    }
}
