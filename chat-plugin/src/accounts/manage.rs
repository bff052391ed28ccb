//! What an operator does with users and tokens, through the command line or the admin socket.
//!
//! Changes of one user's row are read-modify-write: they go through here one at a time, so that none undoes another.

use proto::ids::{DeviceId, Handle, UserId};

use super::error::AccountError;
use super::hashing::{HashError, Kept};
use super::mosquitto::MosquittoHash;
use super::tokens::{self, PREFIX};
use super::{Accounts, PASSWORD_BYTES_MAX, UserChange, UserEvent};
use crate::clock;
use crate::domain::device::Device;
use crate::domain::support::{VISITOR_PREFIX, is_visitor};
use crate::domain::user::{ScramKeys, Token, User};
use crate::store::{ChatStore, StoreError};

/// How users are called who are no more.
const DELETED: &str = "deleted user";

impl Accounts {
    /// Makes a user. Without a password only tokens let the user in.
    ///
    /// # Errors
    /// [`AccountError::HandleTaken`], what is wrong with the password, or the store's error.
    pub async fn add_user(
        &self,
        handle: Handle,
        password: Option<&[u8]>,
    ) -> Result<User, AccountError> {
        let (password_hash, scram) = match password {
            Some(password) => {
                let kept = self.keep(password).await?;
                (Some(kept.phc), kept.scram)
            }
            None => (None, None),
        };
        self.create(handle, password_hash, scram).await
    }

    /// Makes a user with a hash out of a password file of Mosquitto (`$7$…`, `$6$…`). It is kept until the user's first
    /// login.
    ///
    /// # Errors
    /// [`AccountError::UnknownHash`], [`AccountError::HandleTaken`], or the store's error.
    pub async fn import_user(&self, handle: Handle, hash: &str) -> Result<User, AccountError> {
        if MosquittoHash::parse(hash).is_none() {
            return Err(AccountError::UnknownHash);
        }
        self.create(handle, Some(hash.to_owned()), None).await
    }

    /// Makes a visitor of a support desk, with a token and no password: one for each `name`, who gets one more token each
    /// time.
    ///
    /// # Errors
    /// [`AccountError::TooManyTokens`], or the store's error.
    pub async fn make_visitor(&self, name: [u8; 16]) -> Result<(User, String), AccountError> {
        let name = UserId::from_bytes(name); // for its text
        let handle: Handle = format!("{VISITOR_PREFIX}{name}")
            .parse()
            .map_err(|error: proto::ids::IdError| AccountError::Hash(error.to_string()))?;
        let user = match self.create_any(handle.clone(), None, None).await {
            Err(AccountError::HandleTaken(_)) => self.known(&handle).await?,
            made => made?,
        };
        let (_, token) = self.issue_token(&handle, "visitor").await?;
        Ok((user, token))
    }

    /// Replaces a password. Open connections of the user are closed, and the old password is refused at once.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`], what is wrong with the password, or the store's error.
    pub async fn set_password(&self, handle: &Handle, password: &[u8]) -> Result<(), AccountError> {
        self.known(handle).await?;
        let kept = self.keep(password).await?;
        let user = self
            .change(handle, |user| {
                user.password_hash = Some(kept.phc);
                user.scram = kept.scram;
            })
            .await?;
        self.verified.forget(user.id);
        self.tell(user.id, UserChange::Password).await;
        Ok(())
    }

    /// Replaces a display name, which the caller has checked; empty: the handle.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`] or the store's error.
    pub async fn set_name(&self, id: UserId, name: String) -> Result<User, AccountError> {
        let _alone = self.changes.lock().await;
        let found = self.store.user(id).await?;
        let mut user = found
            .filter(|user| user.removed_ms.is_none())
            .ok_or_else(|| AccountError::NoSuchUser(id.to_string()))?;
        user.name = name;
        self.store.update_user(user.clone()).await?;
        Ok(user)
    }

    /// Gives a user another handle: from then on he logs in with it.
    ///
    /// # Errors
    /// [`AccountError::HandleTaken`], [`AccountError::NoSuchUser`], or the store's error.
    pub async fn change_handle(
        &self,
        id: UserId,
        to: Handle,
    ) -> Result<(User, User), AccountError> {
        if is_visitor(&to) {
            return Err(AccountError::HandleReserved(to));
        }
        let _alone = self.changes.lock().await;
        let known = |user: Option<User>| {
            let present = user.filter(|user| user.removed_ms.is_none());
            present.ok_or_else(|| AccountError::NoSuchUser(id.to_string()))
        };
        let before = known(self.store.user(id).await?)?;
        let from = before.handle.clone();
        let changed = self
            .store
            .change_handle(id, from, to.clone(), clock::now_ms());
        match changed.await {
            Ok(_) => {}
            Err(StoreError::HandleTaken) => return Err(AccountError::HandleTaken(to)),
            Err(error) => return Err(error.into()),
        }
        self.verified.forget(id);
        Ok((before, known(self.store.user(id).await?)?))
    }

    /// Removes a user: open connections are closed, password and tokens are refused at once. What the user wrote stays.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`] or the store's error.
    pub async fn remove_user(&self, handle: &Handle) -> Result<(), AccountError> {
        let user = self
            .change(handle, |user| {
                user.removed_ms = Some(clock::now_ms());
                DELETED.clone_into(&mut user.name);
                user.password_hash = None;
                user.scram = None;
            })
            .await?;
        self.verified.forget(user.id);
        self.tell(user.id, UserChange::Removed).await;
        Ok(())
    }

    /// Forgets what a user, removed or not, told of himself: the display name, the profile, the words of reports. Says how
    /// many reports there were.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`] or the store's error.
    pub async fn forget(&self, id: UserId) -> Result<usize, AccountError> {
        let alone = self.changes.lock().await;
        let found = self.store.user(id).await?;
        let mut user = found.ok_or_else(|| AccountError::NoSuchUser(id.to_string()))?;
        user.name.clear();
        self.store.update_user(user).await?;
        let reports = self.store.forget(id).await?;
        drop(alone);
        self.tell(id, UserChange::Erased).await;
        Ok(reports)
    }

    /// Takes the wall clock as right, however far it has gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn trust_clock(&self) -> Result<(), StoreError> {
        self.store.trust(crate::clock::now_ms()).await
    }

    /// The store that users are in.
    pub fn store(&self) -> &dyn ChatStore {
        &*self.store
    }

    /// Users in the order of their making, removed ones included, at most `limit` after `after`.
    ///
    /// # Errors
    /// The store's error.
    pub async fn list_users(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<User>, AccountError> {
        Ok(self.store.users(after, limit).await?)
    }

    /// One user, removed or not.
    ///
    /// # Errors
    /// The store's error.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, AccountError> {
        Ok(self.store.user(id).await?)
    }

    /// The user of a handle.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`] or the store's error.
    pub async fn user_of(&self, handle: &Handle) -> Result<User, AccountError> {
        self.known(handle).await
    }

    /// Makes a token. Its text is returned once and stored nowhere; `label` says what for.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`], [`AccountError::TooManyTokens`], or the store's error.
    pub async fn issue_token(
        &self,
        handle: &Handle,
        label: &str,
    ) -> Result<(Token, String), AccountError> {
        check_label(label)?;
        let _alone = self.changes.lock().await;
        let user = self.known(handle).await?;
        let max = self.config.tokens_per_user_max;
        let had = self.store.tokens(user.id).await?.len();
        if had >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(AccountError::TooManyTokens { max });
        }
        let (token, text) = tokens::make(user.id, label, clock::now_ms())?;
        self.store.put_token(token.clone()).await?;
        Ok((token, text))
    }

    /// All tokens of a user; the secrets are not known.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`] or the store's error.
    pub async fn list_tokens(&self, handle: &Handle) -> Result<Vec<Token>, AccountError> {
        let user = self.known(handle).await?;
        Ok(self.store.tokens(user.id).await?)
    }

    /// Revokes a token by its public id. It is refused at once; open connections of the user are closed, since which of
    /// them rests on this token is not kept (the others come back by themselves).
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`], [`AccountError::NoSuchToken`], or the store's error.
    pub async fn revoke_token(&self, handle: &Handle, id: &str) -> Result<(), AccountError> {
        let user = self.known(handle).await?;
        if !self.store.remove_token(user.id, id).await? {
            return Err(AccountError::NoSuchToken(id.to_owned()));
        }
        self.tell(user.id, UserChange::TokenRevoked).await;
        Ok(())
    }

    /// The devices of a user.
    ///
    /// # Errors
    /// [`AccountError::NoSuchUser`] or the store's error.
    pub async fn list_devices(&self, handle: &Handle) -> Result<Vec<Device>, AccountError> {
        let user = self.known(handle).await?;
        Ok(self.store.devices(user.id).await?)
    }

    /// Removes the token with which a device logged in last, unless another device did so too: the first step of a
    /// revocation, so that the device does not come back while its session is ended.
    ///
    /// # Errors
    /// [`AccountError::NoSuchDevice`] or the store's error.
    pub async fn distrust_device(
        &self,
        user: UserId,
        id: DeviceId,
    ) -> Result<Device, AccountError> {
        let devices = self.store.devices(user).await?;
        let Some(device) = devices.iter().find(|device| device.id == id) else {
            return Err(AccountError::NoSuchDevice(id.to_string()));
        };
        let shares = |other: &&Device| other.id != id && other.token == device.token;
        if let Some(token) = &device.token
            && !devices.iter().any(|other| shares(&other))
        {
            self.store.remove_token(user, token).await?;
        }
        Ok(device.clone())
    }

    /// Removes what is at rest of a device, which was [distrusted](Self::distrust_device) and whose session was ended. Who
    /// logged in as this device before has to do it again; the other devices of the user are told.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_device(&self, user: UserId, id: DeviceId) -> Result<(), AccountError> {
        self.store.remove_device(user, id).await?;
        self.tell(user, UserChange::DeviceRevoked(id)).await;
        Ok(())
    }

    pub(super) async fn create(
        &self,
        handle: Handle,
        password_hash: Option<String>,
        scram: Option<ScramKeys>,
    ) -> Result<User, AccountError> {
        if is_visitor(&handle) {
            return Err(AccountError::HandleReserved(handle));
        }
        self.create_any(handle, password_hash, scram).await
    }

    async fn create_any(
        &self,
        handle: Handle,
        password_hash: Option<String>,
        scram: Option<ScramKeys>,
    ) -> Result<User, AccountError> {
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|error| AccountError::Hash(error.to_string()))?;
        let created_ms = clock::now_ms();
        let user = User {
            id: UserId::new(created_ms, random),
            handle: handle.clone(),
            name: String::new(),
            password_hash,
            scram,
            created_ms,
            removed_ms: None,
        };
        // One at a time: a store may tell that a handle is taken before the row of who took it can be read.
        let _alone = self.changes.lock().await;
        match self.store.create_user(user.clone()).await {
            Ok(()) => Ok(user),
            Err(StoreError::HandleTaken) => Err(AccountError::HandleTaken(handle)),
            Err(error) => Err(error.into()),
        }
    }

    async fn change(
        &self,
        handle: &Handle,
        change: impl FnOnce(&mut User),
    ) -> Result<User, AccountError> {
        let _alone = self.changes.lock().await;
        let mut user = self.known(handle).await?;
        change(&mut user);
        self.store.update_user(user.clone()).await?;
        Ok(user)
    }

    /// Keeps the password that the caller verified against the row that he saw in the form of today. Returns the user's
    /// row as it is then: if another password stands there, or the store takes no writes, nothing is changed.
    pub(super) async fn renew(&self, seen: &User, kept: Kept) -> Result<Option<User>, StoreError> {
        let _alone = self.changes.lock().await;
        let now = self.store.user_by_handle(&seen.handle).await?;
        let Some(mut user) = now.filter(|now| now.id == seen.id) else {
            return Ok(None);
        };
        if user.password_hash != seen.password_hash {
            return Ok(Some(user));
        }
        user.password_hash = Some(kept.phc);
        user.scram = kept.scram;
        match self.store.update_user(user.clone()).await {
            Ok(()) => {
                let (handle, scram) = (&user.handle, user.scram.is_some());
                if user.password_hash == seen.password_hash {
                    tracing::info!(%handle, scram, "the keys for SCRAM follow the option now");
                } else {
                    tracing::info!(%handle, "an imported password is hashed by argon2id now");
                }
                Ok(Some(user))
            }
            Err(StoreError::ReadOnly(_)) => Ok(Some(seen.clone())),
            Err(error) => Err(error),
        }
    }

    async fn known(&self, handle: &Handle) -> Result<User, AccountError> {
        let user = self.store.user_by_handle(handle).await?;
        user.ok_or_else(|| AccountError::NoSuchUser(handle.to_string()))
    }

    async fn keep(&self, password: &[u8]) -> Result<Kept, AccountError> {
        check_password(password)?;
        match self.hashing.keep(password).await {
            Ok(kept) => Ok(kept),
            Err(HashError::Busy) => Err(AccountError::Busy),
            Err(HashError::Failed(error)) => Err(AccountError::Hash(error)),
        }
    }

    /// Nobody listens while the server does not run: then there is no connection to close either. Waits for a listener
    /// that is behind: an event that is lost leaves a connection open that must not be.
    async fn tell(&self, user: UserId, change: UserChange) {
        let at = clock::monotonic();
        let event = UserEvent { user, change, at };
        if self.events.send(event).await.is_err() {
            tracing::debug!(?event, "nobody listens to changes of accounts");
        }
    }
}

fn check_password(password: &[u8]) -> Result<(), AccountError> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        let max = PASSWORD_BYTES_MAX;
        return Err(AccountError::PasswordLength { max });
    }
    if password.starts_with(PREFIX.as_bytes()) {
        return Err(AccountError::PasswordLikeToken { prefix: PREFIX });
    }
    Ok(())
}

/// A label reaches terminals, so it has no control characters.
fn check_label(label: &str) -> Result<(), AccountError> {
    const MAX: usize = 128;
    if label.len() > MAX {
        return Err(AccountError::LabelTooLong { max: MAX });
    }
    if label.chars().any(char::is_control) {
        return Err(AccountError::LabelWithControls);
    }
    Ok(())
}
