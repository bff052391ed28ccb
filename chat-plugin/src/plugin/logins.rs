//! Which logins are over: those that rest on a password, a token or a user of before a change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker::hooks::ClientInfo;
use proto::ids::{DeviceId, UserId};
use tokio::time::Instant;

/// When the credentials of users changed last, and devices were revoked, for as long as a login from before may still be on
/// its way in.
#[derive(Default)]
pub(super) struct Logins {
    users: Changes<UserId>,
    devices: Changes<DeviceId>,
}

struct Changes<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Longer than any login takes.
const KEPT: Duration = Duration::from_mins(10);
/// From so many on, those that are too old are dropped.
const SWEEP: usize = 1_024;

impl Logins {
    /// Whoever began to log in before `at` rests on what is no more.
    pub(super) fn changed(&self, user: UserId, at: Instant) {
        self.users.note(user, at);
    }

    /// Whoever began to log in as this device before `at` is not trusted any more.
    pub(super) fn revoked(&self, device: DeviceId, at: Instant) {
        self.devices.note(device, at);
    }

    /// Does this connection of a user rest on what is no more?
    pub(super) fn are_over(&self, user: UserId, client: &ClientInfo) -> bool {
        self.users
            .is_later(&user, client.authenticated_since.into())
    }

    /// Was this device revoked since this connection logged in?
    pub(super) fn is_revoked(&self, device: DeviceId, client: &ClientInfo) -> bool {
        self.devices
            .is_later(&device, client.authenticated_since.into())
    }
}

impl<K: Eq + Hash> Changes<K> {
    fn note(&self, key: K, at: Instant) {
        let mut changed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.len() >= SWEEP {
            changed.retain(|_, then| at.saturating_duration_since(*then) < KEPT);
        }
        let latest = changed.entry(key).or_insert(at);
        *latest = at.max(*latest);
    }

    fn is_later(&self, key: &K, began: Instant) -> bool {
        let changed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changed.get(key).is_some_and(|at| began <= *at)
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
        assert!(!logins.users.is_later(&alice, change));
        logins.changed(alice, change);
        assert!(logins.users.is_later(&alice, change));
        assert!(!logins.users.is_later(&alice, later));
        assert!(!logins.users.is_later(&bob, change));
    }

    #[test]
    fn old_changes_are_forgotten() {
        let logins = Logins::default();
        let start = crate::clock::monotonic();
        for number in 0..SWEEP {
            logins.changed(UserId::new(number as u64, [0; 10]), start);
        }
        logins.changed(UserId::new(0, [1; 10]), start + KEPT);
        assert_eq!(logins.users.0.lock().unwrap().len(), 1);
    }
}
