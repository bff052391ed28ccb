//! Accounts: who may connect, by password or by token, and what an operator does with users.
//!
//! How a CONNECT is judged:
//! 1. The user name must be a handle. A password with the form of a token is looked up by its SHA-256; nothing is hashed
//!    slowly, and the token must be that user's.
//! 2. Otherwise the user's row is read. A password that was verified lately under the same row is accepted (`verified`).
//! 3. Otherwise argon2id, behind a bounded queue (`hashing`); a full queue is [`AuthError::Busy`]. An unknown user, or one
//!    without a password, costs the same hash.
//! 4. With [`UnknownUsers::Create`] (`--dev`) an unknown handle becomes a user with the password given.
//!
//! Neither passwords nor tokens are logged, and none is in a `Debug` text.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::ids::{Handle, UserId};
use tokio::sync::mpsc;

pub use self::config::{AccountsConfig, AccountsConfigError};
pub use self::error::{AccountError, AuthError};
use self::hashing::{HashError, Hashing};
pub use self::secret::{TOKEN_PREFIX, TokenSecret};
use self::verified::Verified;
use crate::clock;
use crate::domain::user::User;
use crate::store::{ChatStore, StoreError};

mod config;
mod error;
mod hashing;
mod manage;
mod secret;
#[cfg(test)]
mod tests;
mod verified;

/// Users, passwords and tokens over a store. One value serves all connections.
pub struct Accounts {
    store: Arc<dyn ChatStore>,
    config: AccountsConfig,
    unknown: UnknownUsers,
    hashing: Hashing,
    verified: Verified,
    listeners: Mutex<Vec<mpsc::Sender<UserEvent>>>,
    /// Held while a user's row is read, changed and written.
    changes: tokio::sync::Mutex<()>,
    /// The last login found the queue full: said once, not for each.
    busy: AtomicBool,
}

/// What happens when a handle connects that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownUsers {
    /// It is refused.
    Refuse,
    /// It becomes a user with the password of this CONNECT: `--dev`, on loopback only.
    Create,
}

/// Something by which open connections of a user lose their right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserEvent {
    /// The password is another one.
    PasswordChanged(UserId),
    /// The user was removed.
    Removed(UserId),
    /// A token was revoked.
    TokenRevoked(UserId),
}

/// Longest password in bytes; a longer one is refused unread.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// Events that a listener may be behind before the next change waits for it.
const EVENTS_MAX: usize = 64;

impl Accounts {
    /// Accounts over a store.
    ///
    /// # Errors
    /// [`AccountError::Hashing`] if argon2 does not take the parameters, or the system gives no random bytes.
    pub fn new(
        store: Arc<dyn ChatStore>,
        config: AccountsConfig,
        unknown: UnknownUsers,
    ) -> Result<Self, AccountError> {
        let failed = |error: &dyn ToString| AccountError::Hashing(error.to_string());
        let lines_max = usize::try_from(config.verified_cache_max).unwrap_or(usize::MAX);
        let lasts = Duration::from_secs(u64::from(config.verified_cache_s));
        Ok(Self {
            store,
            unknown,
            hashing: Hashing::new(&config).map_err(|error| failed(&error))?,
            verified: Verified::new(lines_max, lasts).map_err(|error| failed(&error))?,
            listeners: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
            busy: AtomicBool::new(false),
            config,
        })
    }

    /// The user whom these credentials of a CONNECT prove.
    ///
    /// # Errors
    /// [`AuthError::BadCredentials`] if they prove nobody; [`AuthError::Busy`] and [`AuthError::Unavailable`] if that
    /// could not be found out now.
    pub async fn authenticate(&self, user_name: &str, password: &[u8]) -> Result<User, AuthError> {
        let Ok(handle) = user_name.parse::<Handle>() else {
            return Err(AuthError::BadCredentials);
        };
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(AuthError::BadCredentials);
        }
        if let Some(secret) = TokenSecret::parse(password) {
            return self.by_token(&handle, &secret).await;
        }
        match self.user_of(&handle).await? {
            Some(user) => self.by_password(user, password).await,
            None if self.unknown == UnknownUsers::Create => {
                self.first_connect(&handle, password).await
            }
            None => {
                // As slow as a wrong password of a known user, so that handles cannot be probed.
                self.hash(password).await?;
                Err(AuthError::BadCredentials)
            }
        }
    }

    /// Events from now on; the receiver must be emptied without delay, since a change waits while it is full.
    pub fn events(&self) -> mpsc::Receiver<UserEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        self.listeners().push(sender);
        receiver
    }

    async fn by_token(&self, handle: &Handle, secret: &TokenSecret) -> Result<User, AuthError> {
        let token = self.store.token(secret.hash()).await.map_err(unavailable)?;
        let token = token.ok_or(AuthError::BadCredentials)?;
        let user = self.store.user(token.user).await.map_err(unavailable)?;
        let user = user.ok_or(AuthError::BadCredentials)?;
        if user.removed_ms.is_some() || user.handle != *handle {
            return Err(AuthError::BadCredentials);
        }
        Ok(user)
    }

    async fn by_password(&self, user: User, password: &[u8]) -> Result<User, AuthError> {
        let Some(phc) = &user.password_hash else {
            self.hash(password).await?;
            return Err(AuthError::BadCredentials);
        };
        let key = self.verified.key(&user, phc, password);
        if key.is_some_and(|key| self.verified.contains(&key, clock::monotonic())) {
            return Ok(user);
        }
        let verified = self.hashing.verify(password, phc).await;
        if !verified.map_err(|error| self.not_hashed(error))? {
            return Err(AuthError::BadCredentials);
        }
        self.busy.store(false, Ordering::Relaxed);
        if let Some(key) = key {
            self.verified.insert(key, user.id, clock::monotonic());
        }
        // The row may have changed while the hash was computed: what counts is the row as it is now.
        match self.user_of(&user.handle).await? {
            Some(now) if now.id == user.id && now.password_hash == user.password_hash => Ok(now),
            _ => Err(AuthError::BadCredentials),
        }
    }

    /// Makes the user of an unknown handle. Of two first connections at once one makes it, and the other must know the
    /// same password.
    async fn first_connect(&self, handle: &Handle, password: &[u8]) -> Result<User, AuthError> {
        if password.starts_with(TOKEN_PREFIX.as_bytes()) {
            return Err(AuthError::BadCredentials);
        }
        let phc = self.hash(password).await?;
        match self.create(handle, "", Some(phc.clone())).await {
            Ok(user) => {
                tracing::info!(user = %handle, "made a user on first CONNECT (--dev)");
                if let Some(key) = self.verified.key(&user, &phc, password) {
                    self.verified.insert(key, user.id, clock::monotonic());
                }
                Ok(user)
            }
            Err(AccountError::HandleTaken(_)) => match self.user_of(handle).await? {
                Some(user) => self.by_password(user, password).await,
                // The handle of a removed user rests.
                None => Err(AuthError::BadCredentials),
            },
            Err(AccountError::Store(error)) => Err(unavailable(error)),
            Err(error) => {
                tracing::error!(%error, "a user could not be made");
                Err(AuthError::Unavailable)
            }
        }
    }

    async fn user_of(&self, handle: &Handle) -> Result<Option<User>, AuthError> {
        self.store.user_by_handle(handle).await.map_err(unavailable)
    }

    async fn hash(&self, password: &[u8]) -> Result<String, AuthError> {
        let hash = self.hashing.hash(password).await;
        hash.map_err(|error| self.not_hashed(error))
    }

    fn not_hashed(&self, error: HashError) -> AuthError {
        match error {
            HashError::Busy => {
                if !self.busy.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        queue = self.config.hash_queue_max,
                        "too many logins at once: some are refused with 0x89 (tokens need no queue)"
                    );
                }
                AuthError::Busy
            }
            HashError::Failed(error) => {
                tracing::error!(%error, "a password could not be hashed or verified");
                AuthError::Unavailable
            }
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<mpsc::Sender<UserEvent>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("config", &self.config)
            .field("unknown", &self.unknown)
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}

/// The store itself says what is wrong with it; here it is said to whom it happened.
fn unavailable(error: StoreError) -> AuthError {
    tracing::debug!(%error, "nobody can be authenticated");
    AuthError::Unavailable
}
