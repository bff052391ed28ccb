//! Durations in an HDR histogram.

use hdrhistogram::Histogram;

use super::float;

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

    /// The other one's, too.
    pub(crate) fn add(&mut self, other: &Self) {
        if other.count() > 0 {
            self.0.add(&other.0).expect("all have the same bounds");
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn micros_at(&self, quantile: f64) -> f64 {
        float(self.0.value_at_quantile(quantile)) / 1_000.0
    }

    /// With those that were not begun while one took longer than `interval`, the intended time between two of one
    /// who waits for each: the correction of `HdrHistogram` for coordinated omission.
    pub(crate) fn corrected(&self, interval_nanos: u64) -> Self {
        Self(self.0.clone_correct(interval_nanos.max(1)))
    }

    /// (1 / (1 − quantile), microseconds) for a curve, as far out as there are values.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        let end = float(self.count().max(1));
        let mut inverse = 1.0;
        while inverse < end {
            points.push((inverse, self.micros_at(1.0 - 1.0 / inverse)));
            inverse *= CURVE_STEP;
        }
        points.push((end, self.micros_at(1.0)));
        points
    }
}

const LOWEST_NANOS: u64 = 1_000;
const HIGHEST_NANOS: u64 = 600_000_000_000;
/// About twelve points for each further nine.
const CURVE_STEP: f64 = 1.211_528; // the twelfth root of ten

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_for_those_that_it_kept_back() {
        let mut latency = Latency::default();
        for _ in 0..99 {
            latency.record(1_000_000);
        }
        latency.record(1_000_000_000);
        let corrected = latency.corrected(10_000_000);
        assert_eq!(corrected.count(), 199);
        assert!((latency.micros_at(0.9) - 1_000.0).abs() < 20.0);
        assert!(corrected.micros_at(0.9) > 700_000.0);
    }

    #[test]
    fn a_curve_goes_from_the_least_to_the_most() {
        let mut latency = Latency::default();
        for micros in 1..=1_000 {
            latency.record(micros * 1_000);
        }
        let curve = latency.curve();
        assert!((30..60).contains(&curve.len()), "{}", curve.len());
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert!(curve[0].1 < 3.0, "{curve:?}");
        let (end, most) = *curve.last().unwrap();
        assert!((end - 1_000.0).abs() < 1e-6 && most > 990.0, "{curve:?}");
    }
}
