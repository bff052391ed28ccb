//! Chance that a seed repeats: splitmix64.

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A row of numbers that follows from this seed and a name.
    pub(crate) fn named(seed: u64, name: &str) -> Self {
        let mixed = name
            .bytes()
            .fold(seed, |mixed, byte| Self(mixed ^ u64::from(byte)).next());
        Self(mixed)
    }

    /// The next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From `low` to `high`, without `high`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let bound = of.len() as u64;
        (bound > 0)
            .then(|| self.below(bound))
            .and_then(|at| of.get(usize::try_from(at).ok()?).copied())
    }
}
