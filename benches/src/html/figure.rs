//! How a figure is called and written for people.

use crate::report::{grouped, short};

/// Its name in words, without its unit.
pub(super) fn label(name: &str) -> String {
    let (stem, per) = match name.strip_suffix("_per_s") {
        Some(stem) => (stem, " per second"),
        None => (name, ""),
    };
    let units = ["_us", "_kb", "_percent", "_ms", "_s"];
    let stem = units
        .iter()
        .find_map(|unit| stem.strip_suffix(unit))
        .unwrap_or(stem);
    let words = stem
        .replace("_us_per_", "_per_")
        .replace("_kb_per_", "_memory_per_")
        .replace("p999", "p99.9")
        .replace('_', " ");
    let words = words
        .replace("cpu", "CPU")
        .replace("rss kb", "memory")
        .replace("rss", "memory");
    format!("{words}{per}")
}

/// Its value with its unit, by what its name says.
pub(super) fn value(name: &str, number: f64) -> String {
    if !number.is_finite() {
        "–".to_owned()
    } else if name.ends_with("_us") || name.contains("_us_per_") {
        micros(number)
    } else if name.contains("_kb") {
        kilobytes(number)
    } else if name.ends_with("_percent") {
        format!("{number:.0} %")
    } else if name.ends_with("_ms") {
        format!("{} ms", short(number))
    } else if name.ends_with("_s") && !name.ends_with("_per_s") {
        format!("{} s", short(number))
    } else {
        short(number)
    }
}

/// Microseconds, as µs, ms or s.
pub(super) fn micros(number: f64) -> String {
    if number < 1_000.0 {
        format!("{} µs", digits(number))
    } else if number < 1_000_000.0 {
        format!("{} ms", digits(number / 1_000.0))
    } else {
        format!("{} s", digits(number / 1_000_000.0))
    }
}

/// KB of 1,024 bytes, as KB, MB or GB.
pub(super) fn kilobytes(number: f64) -> String {
    if number < 1_024.0 {
        format!("{} KB", digits(number))
    } else if number < 1_048_576.0 {
        format!("{} MB", digits(number / 1_024.0))
    } else {
        format!("{} GB", digits(number / 1_048_576.0))
    }
}

/// A count or a rate, as short as an axis needs it.
pub(super) fn count(number: f64) -> String {
    if number < 10_000.0 {
        digits(number)
    } else if number < 1_000_000.0 {
        format!("{}k", digits(number / 1_000.0))
    } else {
        format!("{}M", digits(number / 1_000_000.0))
    }
}

/// Three that say something.
fn digits(number: f64) -> String {
    let text = match number.abs() {
        magnitude if magnitude >= 99.95 => return grouped(number),
        magnitude if magnitude >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_from_names() {
        let written = |name, number| format!("{}: {}", label(name), value(name, number));
        assert_eq!(written("ack_p999_us", 1_278.0), "ack p99.9: 1.28 ms");
        assert_eq!(
            written("delivered_per_s", 71_472.0),
            "delivered per second: 71,472"
        );
        assert_eq!(written("server_rss_kb", 204_800.0), "server memory: 200 MB");
        assert_eq!(
            written("server_cpu_us_per_delivered", 1.45),
            "server CPU per delivered: 1.45 µs"
        );
        assert_eq!(
            written("server_kb_per_connection", 5.34),
            "server memory per connection: 5.34 KB"
        );
        assert_eq!(written("all_back_after_s", 1.8), "all back after: 1.80 s");
        assert_eq!(written("lost", 0.0), "lost: 0");
        assert_eq!(count(12_345.0), "12.3k");
    }
}
