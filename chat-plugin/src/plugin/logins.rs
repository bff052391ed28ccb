//! Which logins are over: those that rest on a password, a token or a user of before a change.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker::hooks::ClientInfo;
use proto::ids::UserId;
use tokio::time::Instant;

/// When the credentials of users changed last, for as long as a login from before may still be on its way in.
#[derive(Default)]
pub(super) struct Logins {
    changed: Mutex<HashMap<UserId, Instant>>,
}

/// Longer than any login takes.
const KEPT: Duration = Duration::from_mins(10);
/// From so many on, those that are too old are dropped.
const SWEEP: usize = 1_024;

impl Logins {
    /// Whoever began to log in before `at` rests on what is no more.
    pub(super) fn changed(&self, user: UserId, at: Instant) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.len() >= SWEEP {
            changed.retain(|_, then| at.saturating_duration_since(*then) < KEPT);
        }
        let latest = changed.entry(user).or_insert(at);
        *latest = at.max(*latest);
    }

    /// Does this connection of a user rest on what is no more?
    pub(super) fn are_over(&self, user: UserId, client: &ClientInfo) -> bool {
        self.began_too_early(user, client.authenticated_since.into())
    }

    fn began_too_early(&self, user: UserId, began: Instant) -> bool {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.get(&user).is_some_and(|at| began <= *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_began_before_a_change_is_over_and_a_later_one_is_not() {
        let (alice, bob) = (UserId::new(1, [1; 10]), UserId::new(1, [2; 10]));
        let (logins, change) = (Logins::default(), crate::clock::monotonic());
        let later = change + Duration::from_millis(1);
        assert!(!logins.began_too_early(alice, change));
        logins.changed(alice, change);
        assert!(logins.began_too_early(alice, change));
        assert!(!logins.began_too_early(alice, later));
        assert!(!logins.began_too_early(bob, change));
    }

    #[test]
    fn old_changes_are_forgotten() {
        let logins = Logins::default();
        let start = crate::clock::monotonic();
        for number in 0..SWEEP {
            logins.changed(UserId::new(number as u64, [0; 10]), start);
        }
        logins.changed(UserId::new(0, [1; 10]), start + KEPT);
        assert_eq!(logins.changed.lock().unwrap().len(), 1);
    }
}
