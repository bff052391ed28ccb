//! A set of message numbers, one bit each.

/// Grows with the highest number in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    /// Adds a number; false if it was there.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let (index, bit) = (number as usize / 64, 1u64 << (number % 64));
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let Some(word) = self.words.get_mut(index) else {
            return false;
        };
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(new);
        new
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// How many of these are not in `other`.
    pub(crate) fn missing_in(&self, other: &Self) -> u64 {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        let missing = self
            .words
            .iter()
            .zip(others)
            .map(|(mine, theirs)| mine & !theirs);
        missing.map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted() {
        let (mut sent, mut received) = (Bits::default(), Bits::default());
        for number in 0..200 {
            assert!(sent.insert(number));
        }
        for number in (0..200).filter(|number| number % 100 != 7) {
            assert!(received.insert(number));
        }
        assert!(!received.insert(0));
        assert_eq!((received.len(), sent.missing_in(&received)), (198, 2));
        assert_eq!(received.missing_in(&sent), 0);
    }
}
