//! The numbered messages of one sender, as they came.

use crate::bits::Bits;

/// Which have come, and in which order.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    received: Bits,
    highest: Option<u32>,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the first time, behind all earlier ones or with a gap.
    New,
    /// For the first time, after a later one.
    Reordered,
    Repeated,
}

impl Heard {
    /// A message came.
    pub(crate) fn note(&mut self, number: u32) -> Arrival {
        if !self.received.insert(number) {
            return Arrival::Repeated;
        }
        let is_late = self.highest.is_some_and(|highest| number < highest);
        self.highest = self.highest.max(Some(number));
        if is_late {
            Arrival::Reordered
        } else {
            Arrival::New
        }
    }

    /// How many different ones have come.
    pub(crate) const fn count(&self) -> u64 {
        self.received.len()
    }

    /// How many of these have not come.
    pub(crate) fn missing(&self, of: &Bits) -> u64 {
        of.missing_in(&self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_no_disorder_and_what_comes_late_is_no_repeat() {
        let mut heard = Heard::default();
        let came = [0, 2, 1, 2, 3].map(|number| heard.note(number));
        let expected = [
            Arrival::New,
            Arrival::New,
            Arrival::Reordered,
            Arrival::Repeated,
            Arrival::New,
        ];
        assert_eq!((came, heard.count()), (expected, 4));
        let mut sent = Bits::default();
        (0..6).for_each(|number| assert!(sent.insert(number)));
        assert_eq!(heard.missing(&sent), 2);
    }
}
