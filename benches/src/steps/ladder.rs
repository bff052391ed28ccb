//! Which rate comes next.

use std::num::NonZeroU32;

use super::Rates;

/// What is known so far.
#[derive(Debug)]
pub(super) struct Ladder {
    rates: Rates,
    /// The highest rate that held below all that did not.
    held: Option<u32>,
    /// The lowest that did not.
    failed: Option<u32>,
    tried: usize,
    up_max: u16,
    refine_left: u16,
}

impl Ladder {
    pub(super) fn new(rates: Rates, up_max: u16, refine: u16) -> Self {
        Self {
            rates,
            held: None,
            failed: None,
            tried: 0,
            up_max,
            refine_left: refine,
        }
    }

    /// The lowest rate that did not hold.
    pub(super) const fn failed(&self) -> Option<u32> {
        self.failed
    }

    /// A rate held, or did not.
    pub(super) fn note(&mut self, rate: NonZeroU32, held: bool) {
        let rate = rate.get();
        if held {
            self.held = self.held.max(Some(rate));
        } else {
            self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
        }
        self.tried += 1;
    }

    pub(super) fn next(&mut self) -> Option<NonZeroU32> {
        let (start, factor) = match &self.rates {
            Rates::List(list) => return list.get(self.tried).copied(),
            Rates::Up { start, factor } => (start.get(), *factor),
        };
        let rate = match (self.held, self.failed) {
            (None, None) => start,
            (Some(held), Some(failed)) => {
                self.refine_left = self.refine_left.checked_sub(1)?;
                let between = times((f64::from(held) * f64::from(failed)).sqrt(), 1.0);
                // Closer than a few percent is within what two runs differ.
                if f64::from(failed) < f64::from(held) * CLOSE || between <= held {
                    return None;
                }
                between
            }
            _ if self.tried >= usize::from(self.up_max) => return None,
            (Some(held), None) => times(held.into(), factor).max(held.saturating_add(1)),
            (None, Some(failed)) => times(failed.into(), 1.0 / factor).min(failed - 1),
        };
        NonZeroU32::new(rate)
    }
}

/// Whole numbers are enough for rates; a float that is too large becomes the largest one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and saturating"
)]
fn times(rate: f64, factor: f64) -> u32 {
    (rate * factor).round() as u32
}

const CLOSE: f64 = 1.04;

#[cfg(test)]
mod tests {
    use super::*;

    /// All rates that are tried at a server that takes so many.
    fn tried(rates: &str, capacity: u32) -> (Vec<u32>, Option<u32>) {
        let mut ladder = Ladder::new(rates.parse().unwrap(), 8, 3);
        let mut all = Vec::new();
        while let Some(rate) = ladder.next() {
            all.push(rate.get());
            ladder.note(rate, rate.get() <= capacity);
        }
        (all, ladder.held)
    }

    #[test]
    fn rates_go_up_and_then_close_in() {
        let (all, held) = tried("100x2", 1_000);
        assert_eq!(all, [100, 200, 400, 800, 1_600, 1_131, 951, 1_037]);
        assert_eq!(held, Some(951));
    }

    #[test]
    fn rates_go_down_if_the_first_is_too_high() {
        assert_eq!(
            tried("100x2", 30),
            (vec![100, 50, 25, 35, 30, 32], Some(30))
        );
        assert_eq!(tried("4x2", 0), (vec![4, 2, 1], None));
    }

    #[test]
    fn there_is_an_end_where_everything_holds() {
        let (all, _) = tried("1000000000x10", u32::MAX);
        assert_eq!(all.len(), 8);
        assert_eq!(all[1], u32::MAX);
    }

    #[test]
    fn each_of_a_list_is_tried() {
        assert_eq!(tried("5,50,10", 10), (vec![5, 50, 10], Some(10)));
    }
}
