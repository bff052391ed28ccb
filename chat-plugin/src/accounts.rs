//! Accounts: who may connect, and how they prove it.
//!
//! * **Tokens** (`mqt_…`, 256 random bits, stored as SHA-256) are looked up in microseconds: for devices.
//! * **Passwords** are argon2id hashes. Hashing takes tens of milliseconds on purpose, so it runs on few threads behind a
//!   bounded queue, and a verification that succeeded is remembered for a while, under a key that only this process
//!   knows. Unknown users take as long as known ones.

mod passwords;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};

use proto::ids::{Handle, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::passwords::Passwords;
use crate::domain::user::{Token, User};
use crate::store::{ChatStore, StoreError};

/// Shortest and longest password, in bytes.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 1..=1_024;
/// Events that may wait for the chat.
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
        }
    }
}

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No such user, wrong password, revoked token: not told apart.
    #[error("bad user name or password")]
    BadCredentials,
    /// Too many logins wait for their hash.
    #[error("too many logins at once")]
    Busy,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a change of an account was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// There is no such user.
    #[error("there is no user {0}")]
    NoSuchUser(Handle),
    /// There is no such token.
    #[error("there is no token {0}")]
    NoSuchToken(String),
    /// Empty, or too long.
    #[error("a password has {} to {} bytes", PASSWORD_BYTES.start(), PASSWORD_BYTES.end())]
    PasswordLength,
    /// Somebody has the handle, or had it within the last 90 days.
    #[error("the handle {0} is taken")]
    HandleTaken(Handle),
    /// Too many passwords are being hashed.
    #[error("too many passwords are being hashed")]
    Busy,
    /// Hashing failed.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// The store does not take it.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What changed about a user whose connections may rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserEvent {
    /// Another password: whoever logged in with the old one has to do it again.
    PasswordChanged(UserId),
    /// The user is gone.
    Removed(UserId),
    /// A token of the user is gone.
    TokenRevoked(UserId),
}

/// All users, with their passwords and tokens.
pub struct Accounts {
    store: Arc<dyn ChatStore>,
    passwords: Passwords,
    /// Held from reading a user's row to writing it: one change does not undo another.
    changing: tokio::sync::Mutex<()>,
    /// Create unknown users at their first login.
    dev: bool,
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
        let passwords = Passwords::new(config)?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        Ok(Self {
            store,
            passwords,
            changing: tokio::sync::Mutex::default(),
            dev,
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

    /// Checks a login.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, name: &str, password: &[u8]) -> Result<User, AuthError> {
        let user = match name.parse::<Handle>() {
            Ok(handle) => match self.store.user_by_handle(&handle).await? {
                None if self.dev => Some(self.first_login(handle, password).await?),
                found => found,
            },
            Err(_) => None,
        };
        if let Some(hash) = tokens::hash_of(password) {
            return self.check_token(user, hash).await;
        }
        if !PASSWORD_BYTES.contains(&password.len()) {
            return Err(AuthError::BadCredentials);
        }
        let hash = user
            .as_ref()
            .and_then(|user| Some((user.id, user.password_hash.clone()?)));
        if self.passwords.verify(hash, password).await? {
            return user.ok_or(AuthError::BadCredentials);
        }
        Err(AuthError::BadCredentials)
    }

    async fn check_token(&self, user: Option<User>, hash: [u8; 32]) -> Result<User, AuthError> {
        let token = self.store.token(hash).await?;
        let matching = user
            .zip(token)
            .filter(|(user, token)| user.id == token.user);
        matching
            .map(|(user, _)| user)
            .ok_or(AuthError::BadCredentials)
    }

    /// In dev mode: makes the user. Of two first logins at once, one makes it and both are checked against it.
    async fn first_login(&self, handle: Handle, password: &[u8]) -> Result<User, AuthError> {
        match self.add_user(handle.clone(), Some(password)).await {
            Ok(user) => {
                tracing::info!(%handle, "made a user at the first login (--dev)");
                Ok(user)
            }
            Err(AccountError::HandleTaken(_)) => self
                .store
                .user_by_handle(&handle)
                .await?
                .ok_or(AuthError::BadCredentials),
            Err(AccountError::Store(error)) => Err(error.into()),
            Err(AccountError::Busy) => Err(AuthError::Busy),
            Err(_) => Err(AuthError::BadCredentials),
        }
    }

    /// Makes a user; without a password it can log in with tokens only.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn add_user(
        &self,
        handle: Handle,
        password: Option<&[u8]>,
    ) -> Result<User, AccountError> {
        let password_hash = match password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|error| AccountError::Hash(error.to_string()))?;
        let created_ms = crate::clock::now_ms();
        let user = User {
            id: UserId::new(created_ms, random),
            handle: handle.clone(),
            name: String::new(),
            password_hash,
            created_ms,
            removed_ms: None,
        };
        match self.store.create_user(user.clone()).await {
            Ok(()) => Ok(user),
            Err(StoreError::HandleTaken) => Err(AccountError::HandleTaken(handle)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a user another password. Connections that rest on the old one are closed.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_password(&self, handle: &Handle, password: &[u8]) -> Result<(), AccountError> {
        let password_hash = Some(self.hash(password).await?);
        let _alone = self.changing.lock().await;
        let user = self.user(handle).await?;
        let id = user.id;
        self.store
            .update_user(User {
                password_hash,
                ..user
            })
            .await?;
        self.passwords.forget(id);
        self.tell(UserEvent::PasswordChanged(id)).await;
        Ok(())
    }

    /// Removes a user: no login any more, tokens and devices gone, the handle rests for 90 days. The log keeps the messages.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn remove_user(&self, handle: &Handle) -> Result<(), AccountError> {
        let _alone = self.changing.lock().await;
        let user = self.user(handle).await?;
        let id = user.id;
        let removed_ms = Some(crate::clock::now_ms());
        self.store
            .update_user(User {
                password_hash: None,
                removed_ms,
                ..user
            })
            .await?;
        self.passwords.forget(id);
        self.tell(UserEvent::Removed(id)).await;
        Ok(())
    }

    /// Gives a user another display name; durable when it returns.
    ///
    /// # Errors
    /// What the store says.
    pub async fn set_name(&self, id: UserId, name: String) -> Result<Option<User>, StoreError> {
        let _alone = self.changing.lock().await;
        let Some(user) = self
            .store
            .user(id)
            .await?
            .filter(|user| user.removed_ms.is_none())
        else {
            return Ok(None);
        };
        let user = User { name, ..user };
        self.store.update_user(user.clone()).await?;
        Ok(Some(user))
    }

    /// All users who can log in, in the order of their making.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list_users(&self) -> Result<Vec<User>, AccountError> {
        const PAGE: usize = 1_000;
        let mut users: Vec<User> = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.users(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(users);
            };
            after = Some(last.id);
            users.extend(page.into_iter().filter(|user| user.removed_ms.is_none()));
        }
    }

    /// Makes a token. Its text is returned once and stored nowhere.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn issue_token(
        &self,
        handle: &Handle,
        label: &str,
    ) -> Result<(Token, String), AccountError> {
        let user = self.user(handle).await?;
        let (token, text) = tokens::make(user.id, label, crate::clock::now_ms())?;
        self.store.put_token(token.clone()).await?;
        Ok((token, text))
    }

    /// The tokens of a user, without their texts.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn list_tokens(&self, handle: &Handle) -> Result<Vec<Token>, AccountError> {
        let user = self.user(handle).await?;
        Ok(self.store.tokens(user.id).await?)
    }

    /// Ends a token. Connections of the user are closed; those with other credentials just come back.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn revoke_token(&self, handle: &Handle, id: &str) -> Result<(), AccountError> {
        let user = self.user(handle).await?;
        if !self.store.remove_token(user.id, id).await? {
            return Err(AccountError::NoSuchToken(id.to_owned()));
        }
        self.tell(UserEvent::TokenRevoked(user.id)).await;
        Ok(())
    }

    async fn user(&self, handle: &Handle) -> Result<User, AccountError> {
        let found = self.store.user_by_handle(handle).await?;
        found.ok_or_else(|| AccountError::NoSuchUser(handle.clone()))
    }

    async fn hash(&self, password: &[u8]) -> Result<String, AccountError> {
        if !PASSWORD_BYTES.contains(&password.len()) {
            return Err(AccountError::PasswordLength);
        }
        self.passwords.hash(password).await
    }

    /// Nobody listens while the server does not run: then there is no connection to close either.
    async fn tell(&self, event: UserEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!(?event, "nobody listens to changes of accounts");
        }
    }
}
