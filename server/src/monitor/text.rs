//! The text form of Prometheus (exposition format 0.0.4): HELP and TYPE, then a line per value.

use std::fmt::Write;

use broker::metrics::Distribution;

/// What `Content-Type` says.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Of which kind the values of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One value of a family, with the labels that set it apart (`qos="1"`).
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) labels: String,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    Number(u64),
    /// In microseconds; told in seconds.
    Latency(Distribution),
    Sizes(Distribution),
}

impl Sample {
    pub(super) fn number(value: u64) -> Self {
        Self {
            labels: String::new(),
            value: Value::Number(value),
        }
    }

    /// With one label. Its value needs no escapes: it is a word of ours.
    pub(super) fn labelled(mut self, name: &str, value: &str) -> Self {
        let separator = if self.labels.is_empty() { "" } else { "," };
        self.labels = format!("{}{separator}{name}=\"{value}\"", self.labels);
        self
    }
}

/// Writes one family.
pub(super) fn write(out: &mut String, name: &str, kind: Kind, help: &str, samples: Vec<Sample>) {
    let kind = kind.name();
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
    for Sample { labels, value } in samples {
        match value {
            Value::Number(number) if labels.is_empty() => {
                line(out, format_args!("{name} {number}"));
            }
            Value::Number(number) => line(out, format_args!("{name}{{{labels}}} {number}")),
            Value::Latency(told) => distribution(out, name, &labels, &told, seconds),
            Value::Sizes(told) => distribution(out, name, &labels, &told, |size| size.to_string()),
        }
    }
}

fn distribution(
    out: &mut String,
    name: &str,
    labels: &str,
    told: &Distribution,
    unit: impl Fn(u64) -> String,
) {
    let separator = if labels.is_empty() { "" } else { "," };
    let mut bucket = |bound: &str, count: u64| {
        let labels = format_args!("{{{labels}{separator}le=\"{bound}\"}}");
        line(out, format_args!("{name}_bucket{labels} {count}"));
    };
    for (bound, count) in told.up_to {
        bucket(&unit(bound), count);
    }
    bucket("+Inf", told.count);
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    line(out, format_args!("{name}_sum{labels} {}", unit(told.sum)));
    line(out, format_args!("{name}_count{labels} {}", told.count));
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(out, "{line}");
}

/// Microseconds as seconds, without needless zeros.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::metrics::Latency;
    use std::time::Duration;

    #[test]
    fn times_are_told_in_seconds() {
        for (micros, told) in [
            (0, "0"),
            (100, "0.0001"),
            (1_500_000, "1.5"),
            (10_000_000, "10"),
        ] {
            assert_eq!(seconds(micros), told);
        }
    }

    #[test]
    fn a_histogram_has_buckets_sum_and_count() {
        let latency = Latency::default();
        latency.took(Duration::from_micros(150), 2);
        let sample = Sample {
            labels: "kind=\"a\"".into(),
            value: Value::Latency(latency.read()),
        };
        let mut out = String::new();
        write(
            &mut out,
            "x_seconds",
            Kind::Histogram,
            "How long.",
            vec![sample],
        );
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "# HELP x_seconds How long.",
                "# TYPE x_seconds histogram",
                "x_seconds_bucket{kind=\"a\",le=\"0.0001\"} 0",
            ]
        );
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "x_seconds_bucket{kind=\"a\",le=\"+Inf\"} 2",
                "x_seconds_sum{kind=\"a\"} 0.0003",
                "x_seconds_count{kind=\"a\"} 2",
            ]
        );
    }
}
