//! Bytes that all sessions share, so that no number of them takes more memory than the operator allows.
//!
//! 1. Each holder (a queue, what is in flight, the filters of a session) has a [`Share`] of one [`Budget`]. It holds some
//!    bytes for nothing and takes the rest in pieces, so that the budget, which everybody touches, is left alone while
//!    messages come and go.
//! 2. No share grows beyond what is left for all. So the largest stop growing first, and whoever has little finds room:
//!    with n large ones, each gets the n+1st part.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

/// What is left for all.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Negative after more was held than there was.
    left: AtomicIsize,
}

/// What one holder has. Given back when it is dropped. The default is without limit.
#[derive(Debug, Default)]
pub(crate) struct Share {
    budget: Option<Arc<Budget>>,
    /// Held for nothing.
    free: usize,
    granted: usize,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let left = AtomicIsize::new(signed(total));
        Arc::new(Self { left })
    }

    pub(crate) fn left(&self) -> usize {
        let left = self.left.load(Ordering::Relaxed);
        usize::try_from(left).unwrap_or(0)
    }

    /// Takes so many bytes, and tells what is left then.
    fn take(&self, bytes: usize) -> isize {
        let bytes = signed(bytes);
        self.left.fetch_sub(bytes, Ordering::Relaxed) - bytes
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(signed(bytes), Ordering::Relaxed);
    }
}

impl Share {
    /// A share of which `free` bytes need no budget.
    pub(crate) const fn new(budget: Arc<Budget>, free: usize) -> Self {
        Self {
            budget: Some(budget),
            free,
            granted: 0,
        }
    }

    /// Holds so many bytes now, if there is room for them and the share is not too large.
    pub(crate) fn try_hold(&mut self, bytes: usize) -> bool {
        self.try_hold_beside(bytes, true)
    }

    /// Holds so many bytes now, if there is room for them, however large the share is.
    pub(crate) fn try_hold_all(&mut self, bytes: usize) -> bool {
        self.try_hold_beside(bytes, false)
    }

    /// Holds so many bytes now, with or without room.
    pub(crate) fn hold(&mut self, bytes: usize) {
        if bytes <= self.free + self.granted {
            self.shrink(bytes);
        } else if let Some(budget) = &self.budget {
            let more = bytes - self.free - self.granted;
            budget.take(more);
            self.granted += more;
        }
    }

    /// How many bytes more there is room for.
    pub(crate) fn room(&self, held: usize) -> usize {
        let Some(budget) = &self.budget else {
            return usize::MAX;
        };
        let own = (self.free + self.granted).saturating_sub(held);
        own + budget.left().saturating_sub(self.granted) / 2
    }

    /// From now on so many bytes need no budget.
    pub(crate) fn set_free(&mut self, free: usize, held: usize) {
        if self.budget.is_some() {
            self.free = free;
            // What is not needed goes back, and what is needed is taken.
            self.release();
            self.hold(held);
        }
    }

    /// If it is to be fair, as much must be left for others as the share has then.
    fn try_hold_beside(&mut self, bytes: usize, fair: bool) -> bool {
        if bytes <= self.free + self.granted {
            self.shrink(bytes);
            return true;
        }
        let Some(budget) = &self.budget else {
            return true;
        };
        let needed = bytes - self.free - self.granted;
        for piece in [(bytes / 4).min(PIECE_BYTES), 0] {
            let more = needed + piece;
            let for_others = if fair { self.granted + more } else { 0 };
            if budget.take(more) >= signed(for_others) {
                self.granted += more;
                return true;
            }
            budget.give_back(more);
        }
        false
    }

    /// Gives back what is not needed, if it is worth it: what goes up and down stays.
    fn shrink(&mut self, bytes: usize) {
        if self.granted == 0 {
            return;
        }
        let spare = self.free + self.granted - bytes;
        if bytes <= self.free / 2 {
            self.release();
        } else if spare > 2 * PIECE_BYTES
            && let Some(budget) = &self.budget
        {
            let much = (spare - PIECE_BYTES).min(self.granted);
            budget.give_back(much);
            self.granted -= much;
        }
    }

    fn release(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(std::mem::take(&mut self.granted));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

/// What a connected client's queue holds for nothing, and what is in flight to it again: some tens of small messages.
pub(crate) const CONNECTED_BYTES: usize = 16 * 1024;
/// Most that is taken at once beyond what is needed.
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_bytes_touch_nothing() {
        let budget = Budget::new(1_000);
        let mut share = Share::new(Arc::clone(&budget), 100);
        assert!(share.try_hold(100));
        assert_eq!(budget.left(), 1_000);
    }

    #[test]
    fn what_goes_up_and_down_touches_the_budget_once() {
        let budget = Budget::new(1 << 20);
        let mut share = Share::new(Arc::clone(&budget), 1_000);
        assert!(share.try_hold(2_000));
        let left = budget.left();
        for _ in 0..10 {
            share.hold(1_000);
            assert!(share.try_hold(2_000));
        }
        assert_eq!(budget.left(), left);
        share.hold(0);
        assert_eq!(budget.left(), 1 << 20);
    }

    #[test]
    fn the_large_stop_growing_first() {
        let budget = Budget::new(1_000);
        let share = || Share::new(Arc::clone(&budget), 0);
        let (mut large, mut small) = (share(), share());
        assert!(large.try_hold(500));
        assert!(!large.try_hold(501));
        assert_eq!(large.room(500), 0);
        assert!(small.try_hold(250));
        assert!(!small.try_hold(251));
        assert!(share().try_hold(125));
        drop(large);
        assert!(small.try_hold(500));
    }

    #[test]
    fn what_must_be_held_is_held_and_others_wait() {
        let budget = Budget::new(100);
        let mut share = Share::new(Arc::clone(&budget), 0);
        share.hold(300);
        let mut other = Share::new(Arc::clone(&budget), 10);
        assert_eq!((other.room(0), other.try_hold(11)), (10, false));
        share.hold(0);
        assert_eq!(budget.left(), 100);
    }

    proptest! {
        #[test]
        fn all_comes_back_and_no_more_is_taken_than_there_is(
            steps in prop::collection::vec((0..4_usize, 0..2_000_000_usize), 0..100),
        ) {
            const TOTAL: usize = 3_000_000;
            let budget = Budget::new(TOTAL);
            let mut shares: Vec<(Share, usize)> = (0..4)
                .map(|free| (Share::new(Arc::clone(&budget), free * 1_000), 0))
                .collect();
            for (which, bytes) in steps {
                let (share, held) = &mut shares[which];
                if bytes < *held {
                    share.hold(bytes);
                    *held = bytes;
                } else if share.try_hold(bytes) {
                    *held = bytes;
                }
                let needed: usize = shares.iter().map(|(share, held)| held.saturating_sub(share.free)).sum();
                prop_assert!(needed + budget.left() <= TOTAL);
            }
            drop(shares);
            prop_assert_eq!(budget.left(), TOTAL);
        }
    }
}
