//! Passwords: argon2id behind a bounded queue, and a short memory of successful verifications.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use proto::ids::UserId;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{AccountError, AccountsConfig, AuthError};

/// Hashes and verifies passwords.
pub(super) struct Passwords {
    argon2: Argon2<'static>,
    /// What an unknown user is verified against, so that it takes as long.
    nobody: String,
    at_once: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    verified: Mutex<Verified>,
    /// Keys of the memory are hashed with this: a dump of it tells no password.
    secret: [u8; 32],
}

struct Verified {
    until: HashMap<UserId, ([u8; 32], Instant)>,
    keep: Duration,
    max: usize,
}

impl Passwords {
    pub(super) fn new(config: &AccountsConfig) -> Result<Self, AccountError> {
        let params = Params::new(config.argon2_memory_kib, config.argon2_passes, 1, None)
            .map_err(hash_error)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, b"nobody has this password").map_err(hash_error)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(hash_error)?;
        let at_once = usize::try_from(config.hashes_at_once.max(1)).unwrap_or(1);
        Ok(Self {
            argon2,
            nobody,
            at_once: Arc::new(Semaphore::new(at_once)),
            waiting: AtomicUsize::new(0),
            waiting_max: usize::try_from(config.hash_queue_max)
                .unwrap_or(usize::MAX)
                .max(1),
            verified: Mutex::new(Verified {
                until: HashMap::new(),
                keep: Duration::from_secs(config.cache_s.into()),
                max: usize::try_from(config.cache_max).unwrap_or(usize::MAX),
            }),
            secret,
        })
    }

    /// The PHC string of a password.
    pub(super) async fn hash(&self, password: &[u8]) -> Result<String, AccountError> {
        let (argon2, password) = (self.argon2.clone(), password.to_vec());
        let hashed = self.run(move || hash(&argon2, &password)).await;
        hashed.map_err(|_| AccountError::Busy)?.map_err(hash_error)
    }

    /// Is this the password of that user? Without a user (or one without password) it takes as long, and is not.
    pub(super) async fn verify(
        &self,
        of: Option<(UserId, String)>,
        password: &[u8],
    ) -> Result<bool, AuthError> {
        let key = of
            .as_ref()
            .map(|(user, hash)| (*user, self.key(*user, hash, password)));
        if key
            .is_some_and(|(user, key)| self.verified().knows(user, key, crate::clock::monotonic()))
        {
            return Ok(true);
        }
        let (argon2, password) = (self.argon2.clone(), password.to_vec());
        let hash = of.map_or_else(|| self.nobody.clone(), |(_, hash)| hash);
        let right = self
            .run(move || {
                PasswordHash::new(&hash)
                    .is_ok_and(|hash| argon2.verify_password(&password, &hash).is_ok())
            })
            .await?;
        match key {
            Some((user, key)) if right => {
                self.verified()
                    .remember(user, key, crate::clock::monotonic());
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The password of a user is another one now.
    pub(super) fn forget(&self, user: UserId) {
        self.verified().until.remove(&user);
    }

    /// Runs a hash on a thread that may block, when it is its turn.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let _place = Place::take(&self.waiting, self.waiting_max).ok_or(AuthError::Busy)?;
        let permit = Arc::clone(&self.at_once)
            .acquire_owned()
            .await
            .map_err(|_| AuthError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit); // held by the thread: one who does not wait any more does not make room
            done
        });
        done.await.map_err(|_| AuthError::Busy)
    }

    fn key(&self, user: UserId, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.secret);
        digest.update(user.as_bytes());
        digest.update((hash.len() as u64).to_be_bytes());
        digest.update(hash.as_bytes());
        digest.update(password);
        digest.finalize().into()
    }

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verified {
    fn knows(&self, user: UserId, key: [u8; 32], now: Instant) -> bool {
        self.until
            .get(&user)
            .is_some_and(|(known, until)| *known == key && now < *until)
    }

    fn remember(&mut self, user: UserId, key: [u8; 32], now: Instant) {
        if self.keep.is_zero() {
            return;
        }
        if self.until.len() >= self.max {
            self.until.retain(|_, (_, until)| now < *until);
        }
        if self.until.len() < self.max {
            self.until.insert(user, (key, now + self.keep));
        }
    }
}

/// A place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    argon2.hash_password(password).map(|hash| hash.to_string())
}

fn hash_error(error: impl std::fmt::Display) -> AccountError {
    AccountError::Hash(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AccountsConfig {
        AccountsConfig {
            argon2_memory_kib: 64,
            argon2_passes: 1,
            ..AccountsConfig::default()
        }
    }

    #[tokio::test]
    async fn the_right_password_is_verified_and_remembered() {
        let passwords = Passwords::new(&config()).unwrap();
        let user = UserId::from_bytes([1; 16]);
        let hash = passwords.hash(b"secret").await.unwrap();
        assert_eq!(
            passwords.verify(Some((user, hash.clone())), b"wrong").await,
            Ok(false)
        );
        assert_eq!(
            passwords
                .verify(Some((user, hash.clone())), b"secret")
                .await,
            Ok(true)
        );
        assert_eq!(passwords.verified().until.len(), 1);
        assert_eq!(
            passwords.verify(Some((user, hash.clone())), b"wrong").await,
            Ok(false)
        );
        assert_eq!(
            passwords.verify(Some((user, hash)), b"secret").await,
            Ok(true)
        );
    }

    #[tokio::test]
    async fn another_hash_is_another_login() {
        let passwords = Passwords::new(&config()).unwrap();
        let user = UserId::from_bytes([1; 16]);
        let old = passwords.hash(b"old").await.unwrap();
        assert_eq!(passwords.verify(Some((user, old)), b"old").await, Ok(true));
        let new = passwords.hash(b"new").await.unwrap();
        assert_eq!(passwords.verify(Some((user, new)), b"old").await, Ok(false));
    }

    #[tokio::test]
    async fn nobody_is_never_verified() {
        let passwords = Passwords::new(&config()).unwrap();
        assert_eq!(
            passwords.verify(None, b"nobody has this password").await,
            Ok(false)
        );
    }

    #[tokio::test]
    async fn a_full_queue_is_busy() {
        let passwords = Passwords::new(&AccountsConfig {
            hash_queue_max: 1,
            ..config()
        })
        .unwrap();
        let place = Place::take(&passwords.waiting, passwords.waiting_max).unwrap();
        assert_eq!(passwords.verify(None, b"x").await, Err(AuthError::Busy));
        drop(place);
        assert_eq!(passwords.verify(None, b"x").await, Ok(false));
    }
}
