//! Passwords that were verified lately, so that a reconnect does not cost a hash.
//!
//! What is kept is a digest under a secret of this process over user, stored hash and password. The stored hash is part of
//! it: after a change of the password no old line can match, whatever was being verified meanwhile.

use std::fmt;
use std::time::Duration;

use proto::ids::UserId;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::domain::user::User;

/// Bounded, and each line for a limited time.
pub(super) struct Verified {
    secret: [u8; 32],
    lasts: Duration,
    lines: Cache<Key, Line>,
    turns: [Mutex<()>; TURNS],
    /// Those who have a turn, or wait for one.
    places: Semaphore,
}

/// The right to have credentials verified.
pub(super) struct Turn<'a> {
    _alone: MutexGuard<'a, ()>,
    _place: SemaphorePermit<'a>,
}

/// Different credentials share a turn now and then: they only wait for each other.
const TURNS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

#[derive(Clone, Copy)]
struct Line {
    user: UserId,
    until: Instant,
}

impl Verified {
    /// At most `turns_max` wait for their turn.
    pub(super) fn new(
        lines_max: usize,
        lasts: Duration,
        turns_max: usize,
    ) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            secret,
            lasts,
            lines: Cache::new(lines_max),
            turns: [const { Mutex::const_new(()) }; TURNS],
            places: Semaphore::new(turns_max.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// Waits for one's turn to have these credentials verified: when it comes, somebody else may have done it. `None`: too
    /// many wait.
    pub(super) async fn turn(&self, name: &str, password: &[u8]) -> Option<Turn<'_>> {
        let place = self.places.try_acquire().ok()?;
        let [first, ..] = self.digest(&[name.as_bytes(), password]);
        let [zeroth, ..] = &self.turns;
        let turn = self.turns.get(usize::from(first) % TURNS);
        Some(Turn {
            _alone: turn.unwrap_or(zeroth).lock().await,
            _place: place,
        })
    }

    /// The key of a password of this user as stored now; `None` if passwords are not remembered.
    pub(super) fn key(&self, user: &User, phc: &str, password: &[u8]) -> Option<Key> {
        if self.lasts.is_zero() {
            return None;
        }
        let inner = self.digest(&[user.id.as_bytes(), phc.as_bytes(), password]);
        Some(Key(self.digest(&[&inner])))
    }

    pub(super) fn contains(&self, key: &Key, now: Instant) -> bool {
        self.lines.get(key).is_some_and(|line| now < line.until)
    }

    pub(super) fn insert(&self, key: Key, user: UserId, now: Instant) {
        let until = now + self.lasts;
        self.lines.insert(key, Line { user, until });
    }

    /// Forgets everything about a user. Linear in the bound of the cache; called when a password changes.
    pub(super) fn forget(&self, user: UserId) {
        self.lines.retain(|_, line| line.user != user);
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({} lines)", self.lines.len())
    }
}
