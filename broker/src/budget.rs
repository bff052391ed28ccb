//! Bytes that all sessions share, so that no number of them takes more memory than the operator allows, and no user the
//! room of all.
//!
//! 1. [`Budgets`] are one for all and, within it, one for each user. Each holder (a queue, what is in flight, the filters
//!    of a session) has a [`Share`] of its user's.
//! 2. A share holds some bytes for nothing and takes the rest in pieces, so that what everybody touches is left alone
//!    while messages come and go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What there is for all, and what of it for each user.
#[derive(Debug)]
pub(crate) struct Budgets {
    all: Arc<Left>,
    per_user: usize,
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    /// Of those who hold something, and of some who do not any more.
    budgets: HashMap<Arc<str>, Weak<Budget>>,
    /// So many of them make it worth to look for the latter.
    sweep_at: usize,
}

/// What one user may hold.
#[derive(Debug)]
struct Budget {
    own: Left,
    all: Arc<Left>,
}

/// Bytes that are left: fewer than none after more was held than there was.
#[derive(Debug)]
struct Left(AtomicIsize);

/// What one holder has. Given back when it is dropped. The default is without limit.
#[derive(Debug, Default)]
pub(crate) struct Share {
    budget: Option<Arc<Budget>>,
    /// Held for nothing.
    free: usize,
    granted: usize,
}

impl Budgets {
    pub(crate) fn new(total: usize, per_user: usize) -> Self {
        Self {
            all: Arc::new(Left::new(total)),
            per_user,
            users: Mutex::default(),
        }
    }

    /// A share for this user.
    pub(crate) fn share(&self, user: &Arc<str>) -> Share {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let known = users.budgets.get(user).and_then(Weak::upgrade);
        let budget = known.unwrap_or_else(|| {
            let budget = Arc::new(Budget {
                own: Left::new(self.per_user),
                all: Arc::clone(&self.all),
            });
            users.insert(user, &budget);
            budget
        });
        Share {
            budget: Some(budget),
            ..Share::default()
        }
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.all.now()
    }
}

impl Users {
    fn insert(&mut self, user: &Arc<str>, budget: &Arc<Budget>) {
        if self.budgets.len() >= self.sweep_at {
            self.budgets.retain(|_, budget| budget.strong_count() > 0);
            self.sweep_at = (2 * self.budgets.len()).max(SWEEP_FROM);
        }
        self.budgets
            .insert(Arc::clone(user), Arc::downgrade(budget));
    }
}

impl Budget {
    fn left(&self) -> usize {
        self.own.now().min(self.all.now())
    }

    /// Takes so many bytes. True if there were so many.
    fn take(&self, bytes: usize) -> bool {
        let of_own = self.own.take(bytes);
        self.all.take(bytes) && of_own
    }

    fn give_back(&self, bytes: usize) {
        self.own.give_back(bytes);
        self.all.give_back(bytes);
    }
}

impl Left {
    fn new(bytes: usize) -> Self {
        Self(AtomicIsize::new(signed(bytes)))
    }

    fn now(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn take(&self, bytes: usize) -> bool {
        let bytes = signed(bytes);
        self.0.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(signed(bytes), Ordering::Relaxed);
    }
}

impl Share {
    /// Holds so many bytes now, if there is room for them.
    pub(crate) fn try_hold(&mut self, bytes: usize) -> bool {
        let Some(needed) = self.missing(bytes) else {
            self.shrink(bytes);
            return true;
        };
        let Some(budget) = &self.budget else {
            return true;
        };
        for more in [needed + (bytes / 4).min(PIECE_BYTES), needed] {
            if budget.take(more) {
                self.granted += more;
                return true;
            }
            budget.give_back(more);
        }
        false
    }

    /// Holds so many bytes now, with or without room.
    pub(crate) fn hold(&mut self, bytes: usize) {
        let Some(needed) = self.missing(bytes) else {
            return self.shrink(bytes);
        };
        if let Some(budget) = &self.budget {
            budget.take(needed);
            self.granted += needed;
        }
    }

    /// How many bytes more there is room for.
    pub(crate) fn room(&self, held: usize) -> usize {
        let Some(budget) = &self.budget else {
            return usize::MAX;
        };
        let own = (self.free + self.granted).saturating_sub(held);
        own + budget.left()
    }

    /// From now on so many bytes are held for nothing.
    pub(crate) fn set_free(&mut self, free: usize, held: usize) {
        if self.budget.is_some() {
            self.free = free;
            // What is not needed goes back, and what is needed is taken.
            self.release();
            self.hold(held);
        }
    }

    /// How many bytes it takes to hold so many; `None`: none.
    fn missing(&self, bytes: usize) -> Option<usize> {
        let missing = bytes.checked_sub(self.free + self.granted)?;
        (missing > 0).then_some(missing)
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
/// Fewer users are not worth looking through.
const SWEEP_FROM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(budgets: &Budgets, free: usize) -> Share {
        let mut share = budgets.share(&"alice".into());
        share.set_free(free, 0);
        share
    }

    #[test]
    fn a_few_bytes_touch_nothing() {
        let budgets = Budgets::new(1_000, 1_000);
        assert!(share(&budgets, 100).try_hold(100));
        let mut share = share(&budgets, 100);
        assert!(share.try_hold(100));
        assert_eq!(budgets.left(), 1_000);
    }

    #[test]
    fn what_goes_up_and_down_touches_the_budget_once() {
        let budgets = Budgets::new(1 << 20, 1 << 20);
        let mut share = share(&budgets, 1_000);
        assert!(share.try_hold(2_000));
        let left = budgets.left();
        for _ in 0..10 {
            share.hold(1_000);
            assert!(share.try_hold(2_000));
        }
        assert_eq!(budgets.left(), left);
        share.hold(0);
        assert_eq!(budgets.left(), 1 << 20);
    }

    #[test]
    fn a_user_takes_no_more_than_its_part_with_any_number_of_holders() {
        let budgets = Budgets::new(1_000, 600);
        let (mut one, mut two) = (share(&budgets, 0), share(&budgets, 0));
        assert!(one.try_hold(500) && !two.try_hold(101) && two.try_hold(100));
        let mut other = budgets.share(&"bob".into());
        assert!(!other.try_hold(401) && other.try_hold(400));
        drop(one);
        assert!(other.try_hold(600) && !other.try_hold(601));
        assert!(two.try_hold(400) && !two.try_hold(401));
    }

    #[test]
    fn what_must_be_held_is_held_and_others_wait() {
        let budgets = Budgets::new(100, 100);
        let mut large = share(&budgets, 0);
        large.hold(300);
        let mut small = share(&budgets, 10);
        assert_eq!((small.room(0), small.try_hold(11)), (10, false));
        large.hold(0);
        assert_eq!(budgets.left(), 100);
    }

    #[test]
    fn users_who_hold_nothing_are_forgotten() {
        let budgets = Budgets::new(100, 100);
        for number in 0..10 * SWEEP_FROM {
            budgets.share(&number.to_string().into());
        }
        let users = budgets.users.lock().unwrap();
        assert!(users.budgets.len() <= SWEEP_FROM);
    }

    proptest! {
        #[test]
        fn all_comes_back_and_no_more_is_taken_than_there_is(
            steps in prop::collection::vec((0..4_usize, 0..2_000_000_usize), 0..100),
        ) {
            const TOTAL: usize = 3_000_000;
            let budgets = Budgets::new(TOTAL, TOTAL);
            let mut shares: Vec<_> = (0..4).map(|free| (share(&budgets, free * 1_000), 0)).collect();
            for (which, bytes) in steps {
                let (share, held) = &mut shares[which];
                if bytes < *held {
                    share.hold(bytes);
                    *held = bytes;
                } else if share.try_hold(bytes) {
                    *held = bytes;
                }
                let needed = shares.iter().map(|(share, held)| held.saturating_sub(share.free));
                prop_assert!(needed.sum::<usize>() + budgets.left() <= TOTAL);
            }
            drop(shares);
            prop_assert_eq!(budgets.left(), TOTAL);
        }
    }
}
