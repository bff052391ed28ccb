//! Accounts: who may connect, and how they prove it.
//!
//! How a CONNECT is judged:
//! 0. Where too many logins have failed (`throttle`), a password is refused unread.
//! 1. The user name must be a handle. A password with the form of a **token** (`mqt_…`, 256 random bits) is looked up by
//!    its SHA-256 in microseconds, and must be that user's.
//! 2. Otherwise it is compared with the **password** of the user's row. One that was verified lately under the same row is
//!    accepted at once (`verified`).
//! 3. Otherwise argon2id, which takes tens of milliseconds on purpose: on few threads behind a bounded queue (`hashing`),
//!    and [`AuthError::Busy`] when that is full. An unknown user, or one without a password, costs the same.
//!    A hash imported from Mosquitto (`mosquitto`) takes the same way, and is replaced by argon2id when it was right.
//! 4. In dev mode an unknown handle becomes a user with the password given.
//!
//! SCRAM-SHA-256 proves a password without sending it, by keys of its own (`scram`), if the configuration wants them kept.
//!
//! A CONNECT without a password, over a connection whose client certificate was verified, is that of the user whom the
//! certificate names, if the configuration says so.
//!
//! A refusal is a line of the log (`refused`). Neither passwords nor tokens are logged, and none is in a `Debug` text.

mod error;
mod hashing;
mod manage;
mod mosquitto;
mod refused;
mod scram;
#[cfg(test)]
mod tests;
mod throttle;
mod tokens;
mod verified;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::hooks::AuthenticateRequest;
use proto::ids::{DeviceId, Handle, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::error::{AccountError, AuthError};
use self::hashing::{HashError, Hashing, Kept};
use self::mosquitto::MosquittoHash;
use self::refused::RefusedLogins;
use self::throttle::{Attempt, Throttle};
use self::verified::Verified;
use crate::clock;
use crate::domain::user::User;
use crate::store::ChatStore;

/// Longest password, in bytes; a longer one is refused unread.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Events that may wait for the chat; then the next change waits as well.
const EVENTS_MAX: usize = 1_024;

/// Options of the accounts: the section `[accounts]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// Passwords that are being hashed at the same time. Each takes a core and `argon2_memory_kib`.
    pub hashes_at_once: u32,
    /// Logins that may wait for their hash; more are answered «server busy».
    pub hash_queue_max: u32,
    /// How long a successful verification is remembered, in seconds; 0: not at all.
    pub cache_s: u32,
    /// How many of them.
    pub cache_max: u32,
    /// Memory of one argon2id hash, in KiB (OWASP: at least 19,456).
    pub argon2_memory_kib: u32,
    /// Passes of argon2id over it (OWASP: at least 2).
    pub argon2_passes: u32,
    /// Keep what SCRAM-SHA-256 needs of each password as well. It is easier to attack than the argon2id hash, for whoever
    /// steals the store.
    pub scram: bool,
    /// Tokens of one user.
    pub tokens_per_user_max: u32,
    /// Let whom a verified client certificate names in without a password.
    pub certificate_login: bool,
    /// Logins with one user name from one address (IPv6: from one /64) that may fail per minute; 0: no limit.
    pub login_failures_per_min: u32,
    /// How many may fail at once after a rest.
    pub login_failures_burst: u32,
    /// Logins from one address that may fail per minute, whatever the user names; 0: no limit.
    pub address_login_failures_per_min: u32,
    /// How many may fail at once after a rest.
    pub address_login_failures_burst: u32,
    /// Addresses, and user names with addresses, whose failures are remembered.
    pub login_failures_kept_max: u32,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self {
            hashes_at_once: 2,
            hash_queue_max: 256,
            cache_s: 600,
            cache_max: 10_000,
            argon2_memory_kib: 19_456,
            argon2_passes: 2,
            scram: false,
            tokens_per_user_max: 100,
            certificate_login: false,
            login_failures_per_min: 6,
            login_failures_burst: 10,
            address_login_failures_per_min: 60,
            address_login_failures_burst: 200,
            login_failures_kept_max: 50_000,
        }
    }
}

/// An option has a value with which accounts cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must be {min} to {max}")]
pub struct AccountsConfigError {
    option: &'static str,
    min: u32,
    max: u32,
}

impl AccountsConfig {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first option whose value is out of its range.
    pub fn check(&self) -> Result<(), AccountsConfigError> {
        let bounds = [
            ("hashes_at_once", self.hashes_at_once, 1, 256),
            ("hash_queue_max", self.hash_queue_max, 1, 100_000),
            ("cache_max", self.cache_max, 1, 100_000_000),
            // Below 8 KiB argon2 has no room for its blocks; above 4 GiB one login could exhaust the machine.
            ("argon2_memory_kib", self.argon2_memory_kib, 8, 4 << 20),
            ("argon2_passes", self.argon2_passes, 1, 1_000),
            (
                "login_failures_kept_max",
                self.login_failures_kept_max,
                1,
                100_000_000,
            ),
        ];
        for (option, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(AccountsConfigError { option, min, max });
            }
        }
        Ok(())
    }
}

/// Something changed about a user whose connections may rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// Whose.
    pub user: UserId,
    /// What.
    pub change: UserChange,
    /// Who logs in from then on knows it.
    pub at: Instant,
}

/// What changed about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserChange {
    /// Another password: whoever logged in with the old one has to do it again.
    Password,
    /// The user is gone.
    Removed,
    /// A token of the user is gone.
    TokenRevoked,
    /// A device of the user is gone: the others are told, and it has to log in anew.
    DeviceRevoked(DeviceId),
    /// What the user told of himself is gone; logins are not concerned.
    Erased,
}

/// All users, with their passwords and tokens.
pub struct Accounts {
    store: Arc<dyn ChatStore>,
    config: AccountsConfig,
    /// Create unknown users at their first login.
    dev: bool,
    hashing: Hashing,
    verified: Verified,
    throttle: Throttle,
    refused: RefusedLogins,
    /// Held while a user's row is read, changed and written.
    changes: tokio::sync::Mutex<()>,
    /// The queue was found full since a password was last hashed: said once, not for each.
    busy: AtomicBool,
    events: mpsc::Sender<UserEvent>,
    receiver: Mutex<Option<mpsc::Receiver<UserEvent>>>,
}

impl Accounts {
    /// Accounts over a store. `dev`: an unknown user is made at the first login, with the password given there.
    ///
    /// # Errors
    /// [`AccountError::Hash`] if the options of argon2 make no sense, or there is no randomness.
    pub fn new(
        store: Arc<dyn ChatStore>,
        config: &AccountsConfig,
        dev: bool,
    ) -> Result<Self, AccountError> {
        let failed = |error: &dyn ToString| AccountError::Hash(error.to_string());
        let hashing = Hashing::new(config).map_err(|error| failed(&error))?;
        let lines_max = usize::try_from(config.cache_max).unwrap_or(usize::MAX);
        let lasts = Duration::from_secs(config.cache_s.into());
        let turns_max = config.hash_queue_max.saturating_add(config.hashes_at_once);
        let turns_max = usize::try_from(turns_max).unwrap_or(usize::MAX);
        let verified =
            Verified::new(lines_max, lasts, turns_max).map_err(|error| failed(&error))?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        Ok(Self {
            store,
            config: config.clone(),
            dev,
            hashing,
            verified,
            throttle: Throttle::new(config),
            refused: RefusedLogins::default(),
            changes: tokio::sync::Mutex::default(),
            busy: AtomicBool::new(false),
            events,
            receiver: Mutex::new(Some(receiver)),
        })
    }

    /// Tells of changes from now on. For one listener: the second gets a channel that is closed.
    pub fn events(&self) -> mpsc::Receiver<UserEvent> {
        let taken = self
            .receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        taken.unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// The user whom a CONNECT proves to come from. A refusal is told in the log.
    ///
    /// # Errors
    /// As [`Accounts::authenticate`], and [`AuthError::Incomplete`].
    pub async fn login(&self, request: &AuthenticateRequest) -> Result<User, AuthError> {
        let name = request.user_name.as_ref();
        let certificate = request.certificate.as_ref();
        let result = match (name, &request.password, certificate) {
            // Who sends a password is judged by it.
            (Some(name), Some(password), _) => {
                self.authenticate(place_of(request), name, password).await
            }
            (None, None, Some(certificate)) => self.login_by_certificate(&certificate.user).await,
            (Some(name), None, Some(certificate)) if *name == certificate.user => {
                self.login_by_certificate(name).await
            }
            _ => Err(AuthError::Incomplete),
        };
        if let Err(error) = &result {
            let name = request.user_name.as_deref();
            self.refused.tell(name, request, error, clock::monotonic());
        }
        result
    }

    /// Refused logins since the start of the process.
    pub fn logins_refused(&self) -> u64 {
        self.refused.count.value()
    }

    /// Says how many refused logins had no line of their own in the log. Called every minute, and at the end.
    pub fn tell_untold(&self) {
        self.refused.tell_untold();
    }

    /// The user whom these credentials of a CONNECT from this address prove.
    ///
    /// # Errors
    /// [`AuthError::BadCredentials`] if they prove nobody, [`AuthError::Throttled`] if too many did so from there; any
    /// other if that could not be found out now.
    pub async fn authenticate(
        &self,
        from: IpAddr,
        name: &str,
        password: &[u8],
    ) -> Result<User, AuthError> {
        let token = tokens::hash_of(password);
        let attempt = self.throttle.attempt(from, name, token.is_some());
        if token.is_some() {
            return self.login_by_token(&attempt, name, password, token).await;
        }
        // Where the way is closed a password is not even compared with one that was verified lately.
        let open = self.throttle.check(&attempt, clock::monotonic());
        open.map_err(|retry| AuthError::Throttled { retry })?;
        if let Some(user) = self.verified_lately(name, password).await? {
            self.throttle.succeeded(&attempt);
            return Ok(user);
        }
        // The same credentials at once, as of a fleet that comes back, are hashed once.
        let Some(_turn) = self.verified.turn(name, password).await else {
            return Err(self.too_busy());
        };
        if let Some(user) = self.verified_lately(name, password).await? {
            self.throttle.succeeded(&attempt);
            return Ok(user);
        }
        let begun = self.throttle.begin(&attempt, clock::monotonic());
        begun.map_err(|retry| AuthError::Throttled { retry })?;
        let proved = self.prove(name, password, None).await;
        match &proved {
            Ok(_) => {
                self.throttle.undecided(&attempt, clock::monotonic());
                self.throttle.succeeded(&attempt);
            }
            Err(AuthError::BadCredentials) => {}
            Err(_) => self.throttle.undecided(&attempt, clock::monotonic()),
        }
        proved
    }

    /// Is this the password of a user who has logged in before? Tokens do not count. Failures are throttled as logins are.
    ///
    /// # Errors
    /// As [`Accounts::authenticate`].
    pub async fn prove_password(
        &self,
        from: IpAddr,
        user: &User,
        password: &[u8],
    ) -> Result<(), AuthError> {
        if tokens::hash_of(password).is_some() {
            return Err(AuthError::BadCredentials);
        }
        let proved = self
            .authenticate(from, user.handle.as_str(), password)
            .await?;
        if proved.id == user.id {
            Ok(())
        } else {
            Err(AuthError::BadCredentials)
        }
    }

    /// The public id of the token with which somebody logs in, if it is one.
    ///
    /// # Errors
    /// The store's.
    pub async fn token_of(
        &self,
        request: &AuthenticateRequest,
    ) -> Result<Option<String>, AuthError> {
        let hash = request.password.as_deref().and_then(tokens::hash_of);
        let Some(hash) = hash else {
            return Ok(None);
        };
        let token = self.store.token(hash).await?;
        Ok(token.map(|token| token.id))
    }

    /// The user, if this password was verified lately under the user's row as it is now.
    async fn verified_lately(
        &self,
        name: &str,
        password: &[u8],
    ) -> Result<Option<User>, AuthError> {
        let Ok(handle) = name.parse::<Handle>() else {
            return Ok(None);
        };
        let user = self.store.user_by_handle(&handle).await?;
        Ok(user.filter(|user| {
            let phc = user.password_hash.as_deref();
            let key = phc.and_then(|phc| self.verified.key(user, phc, password));
            key.is_some_and(|key| self.verified.contains(&key, clock::monotonic()))
        }))
    }

    /// Nobody can guess a token, so the right one is let in whatever else fails from there.
    async fn login_by_token(
        &self,
        attempt: &Attempt,
        name: &str,
        password: &[u8],
        token: Option<[u8; 32]>,
    ) -> Result<User, AuthError> {
        let open = self.throttle.check(attempt, clock::monotonic());
        match (self.prove(name, password, token).await, open) {
            (Ok(user), _) => {
                self.throttle.succeeded(attempt);
                Ok(user)
            }
            (Err(AuthError::BadCredentials), Err(retry)) => Err(AuthError::Throttled { retry }),
            (Err(AuthError::BadCredentials), Ok(())) => {
                self.throttle.failed(attempt, clock::monotonic());
                Err(AuthError::BadCredentials)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn prove(
        &self,
        name: &str,
        password: &[u8],
        token: Option<[u8; 32]>,
    ) -> Result<User, AuthError> {
        let Ok(handle) = name.parse::<Handle>() else {
            return Err(AuthError::BadCredentials);
        };
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(AuthError::BadCredentials);
        }
        let user = self.store.user_by_handle(&handle).await?;
        if let Some(hash) = token {
            return self.check_token(user, hash).await;
        }
        match user {
            Some(user) => self.check_password(user, password).await,
            None if self.dev => self.first_login(handle, password).await,
            None => self.refuse_as_slowly(password).await,
        }
    }

    /// The user whom a verified certificate names: a handle, exactly.
    async fn login_by_certificate(&self, name: &str) -> Result<User, AuthError> {
        let Ok(handle) = name.parse::<Handle>() else {
            return Err(AuthError::BadCredentials);
        };
        if !self.config.certificate_login {
            return Err(AuthError::BadCredentials);
        }
        match self.store.user_by_handle(&handle).await? {
            Some(user) => Ok(user),
            None if self.dev => self.first_certificate(handle).await,
            None => Err(AuthError::BadCredentials),
        }
    }

    /// In dev mode: makes the user, without a password. Of two first logins at once, one makes it.
    async fn first_certificate(&self, handle: Handle) -> Result<User, AuthError> {
        match self.add_user(handle, None).await {
            Ok(user) => {
                tracing::info!(handle = %user.handle, "made a user at the first certificate (--dev)");
                Ok(user)
            }
            Err(AccountError::HandleTaken(handle)) => {
                let user = self.store.user_by_handle(&handle).await?;
                user.ok_or(AuthError::BadCredentials)
            }
            Err(AccountError::Store(error)) => Err(error.into()),
            Err(AccountError::Hash(error)) => Err(AuthError::Hash(error)),
            Err(_) => Err(AuthError::BadCredentials),
        }
    }

    async fn check_token(&self, user: Option<User>, hash: [u8; 32]) -> Result<User, AuthError> {
        let token = self.store.token(hash).await?;
        match (user, token) {
            (Some(user), Some(token)) if user.id == token.user => Ok(user),
            _ => Err(AuthError::BadCredentials),
        }
    }

    async fn check_password(&self, user: User, password: &[u8]) -> Result<User, AuthError> {
        let Some(phc) = &user.password_hash else {
            return self.refuse_as_slowly(password).await;
        };
        let key = self.verified.key(&user, phc, password);
        if key.is_some_and(|key| self.verified.contains(&key, clock::monotonic())) {
            return Ok(user);
        }
        if MosquittoHash::claims(phc) {
            return self.check_imported(&user, phc, password).await;
        }
        let right = self.hashing.verify(password, phc).await;
        if !self.hashed(right)? {
            return Err(AuthError::BadCredentials);
        }
        // The row may have changed while the hash was computed: what counts is the row as it is now.
        let now = self.store.user_by_handle(&user.handle).await?;
        if now.is_none_or(|now| now.id != user.id || now.password_hash != user.password_hash) {
            return Err(AuthError::BadCredentials);
        }
        self.remember(&user, password);
        self.follow_scram_option(user, password).await
    }

    /// Keeps the keys of a password that was right if SCRAM has been allowed since it was set, or gives them up.
    async fn follow_scram_option(&self, user: User, password: &[u8]) -> Result<User, AuthError> {
        if user.scram.is_some() == self.config.scram {
            return Ok(user);
        }
        let scram = self.hashing.scram(password).await;
        let scram = self.hashed(scram)?;
        let phc = user.password_hash.clone().unwrap_or_default();
        let now = self.renew(&user, Kept { phc, scram }).await?;
        now.filter(|now| now.password_hash == user.password_hash)
            .ok_or(AuthError::BadCredentials)
    }

    /// The password of a user whose hash came from Mosquitto. Of two first logins at once, one replaces the hash, and the
    /// other is judged by the new one.
    async fn check_imported(
        &self,
        user: &User,
        imported: &str,
        password: &[u8],
    ) -> Result<User, AuthError> {
        let renewed = self.hashing.renew(password, imported).await;
        let Some(kept) = self.hashed(renewed)? else {
            return Err(AuthError::BadCredentials);
        };
        let phc = kept.phc.clone();
        let Some(now) = self.renew(user, kept).await? else {
            return Err(AuthError::BadCredentials);
        };
        let stored = now.password_hash.as_deref().unwrap_or_default();
        if stored.is_empty() {
            return Err(AuthError::BadCredentials);
        }
        if stored != phc && stored != imported {
            // Another login was faster, or there is a new password.
            let right = self.hashing.verify(password, stored).await;
            if !self.hashed(right)? {
                return Err(AuthError::BadCredentials);
            }
        }
        self.remember(&now, password);
        Ok(now)
    }

    fn remember(&self, user: &User, password: &[u8]) {
        let phc = user.password_hash.as_deref().unwrap_or_default();
        if let Some(key) = self.verified.key(user, phc, password) {
            self.verified.insert(key, user.id, clock::monotonic());
        }
    }

    /// As slow as a wrong password of a known user, so that handles cannot be probed.
    async fn refuse_as_slowly(&self, password: &[u8]) -> Result<User, AuthError> {
        let wasted = self.hashing.waste(password).await;
        self.hashed(wasted)?;
        Err(AuthError::BadCredentials)
    }

    /// In dev mode: makes the user. Of two first logins at once, one makes it and the other must know the same password.
    async fn first_login(&self, handle: Handle, password: &[u8]) -> Result<User, AuthError> {
        match self.add_user(handle, Some(password)).await {
            Ok(user) => {
                tracing::info!(handle = %user.handle, "made a user at the first login (--dev)");
                self.remember(&user, password);
                Ok(user)
            }
            Err(AccountError::HandleTaken(handle)) => {
                match self.store.user_by_handle(&handle).await? {
                    Some(user) => self.check_password(user, password).await,
                    // The handle of a removed user rests.
                    None => Err(AuthError::BadCredentials),
                }
            }
            Err(AccountError::Store(error)) => Err(error.into()),
            Err(AccountError::Busy) => Err(AuthError::Busy),
            Err(AccountError::Hash(error)) => Err(AuthError::Hash(error)),
            Err(_) => Err(AuthError::BadCredentials),
        }
    }

    fn hashed<T>(&self, result: Result<T, HashError>) -> Result<T, AuthError> {
        match result {
            Ok(value) => {
                self.busy.store(false, Ordering::Relaxed);
                Ok(value)
            }
            Err(HashError::Busy) => Err(self.too_busy()),
            Err(HashError::Failed(error)) => Err(AuthError::Hash(error)),
        }
    }

    fn too_busy(&self) -> AuthError {
        if !self.busy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                queue = self.config.hash_queue_max,
                "too many logins at once: some are refused with «server busy» (tokens need no queue)"
            );
        }
        AuthError::Busy
    }
}

/// Where somebody comes from. All processes of this machine are one place.
fn place_of(request: &AuthenticateRequest) -> IpAddr {
    let address = request.peer.ip();
    address.unwrap_or_else(|| Ipv4Addr::LOCALHOST.into())
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("config", &self.config)
            .field("dev", &self.dev)
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}
