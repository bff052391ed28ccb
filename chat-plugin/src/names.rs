//! Names of users and users of handles in memory.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::ids::{Handle, UserId};

use crate::domain::user::User;
use crate::store::{ChatStore, StoreError};

/// Names of users and users of handles, as far as they were asked for lately.
pub struct Names {
    store: Arc<dyn ChatStore>,
    profiles: quick_cache::sync::Cache<UserId, Profile>,
    users: quick_cache::sync::Cache<Handle, UserId>,
    /// Moves with every change: what was read before one is not kept after it.
    changes: AtomicU64,
}

/// How a user is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// By which people address this user.
    pub handle: Handle,
    /// Display name; empty: the handle.
    pub name: Arc<str>,
}

impl Names {
    /// At most `cached_max` of each are kept.
    pub fn new(store: Arc<dyn ChatStore>, cached_max: usize) -> Self {
        Self {
            store,
            profiles: quick_cache::sync::Cache::new(cached_max.max(16)),
            users: quick_cache::sync::Cache::new(cached_max.max(16)),
            changes: AtomicU64::new(0),
        }
    }

    /// How a user is called, removed ones included; `None` if there never was one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn profile(&self, user: UserId) -> Result<Option<Profile>, StoreError> {
        if let Some(profile) = self.profiles.get(&user) {
            return Ok(Some(profile));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let Some(found) = self.store.user(user).await? else {
            return Ok(None);
        };
        let profile = Profile {
            handle: found.handle,
            name: found.name.into(),
        };
        self.keep(&self.profiles, &user, profile.clone(), changes);
        Ok(Some(profile))
    }

    /// The handle of a user, removed ones included; `None` if there never was one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn handle(&self, user: UserId) -> Result<Option<Handle>, StoreError> {
        Ok(self.profile(user).await?.map(|profile| profile.handle))
    }

    /// The user of a handle, removed ones excluded.
    ///
    /// # Errors
    /// What the store says.
    pub async fn user(&self, handle: &Handle) -> Result<Option<UserId>, StoreError> {
        if let Some(user) = self.users.get(handle) {
            return Ok(Some(user));
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let Some(found) = self.store.user_by_handle(handle).await? else {
            return Ok(None);
        };
        self.keep(&self.users, handle, found.id, changes);
        Ok(Some(found.id))
    }

    /// Is this a user who can receive messages?
    ///
    /// # Errors
    /// What the store says.
    pub async fn exists(&self, user: UserId) -> Result<bool, StoreError> {
        let Some(found) = self.store.user(user).await? else {
            return Ok(false);
        };
        Ok(found.removed_ms.is_none())
    }

    /// The user has another name now, or was removed: the handle may name nobody any more.
    pub fn changed(&self, user: &User) {
        // First: who keeps the old name after this finds out, and who did before is undone by what follows.
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.profiles.remove(&user.id);
        self.users.remove(&user.handle);
    }

    /// Keeps what was read after so many changes, unless there was another one meanwhile.
    fn keep<K: Hash + Eq + Clone, V: Clone>(
        &self,
        cache: &quick_cache::sync::Cache<K, V>,
        key: &K,
        value: V,
        changes: u64,
    ) {
        cache.insert(key.clone(), value);
        if self.changes.load(Ordering::SeqCst) != changes {
            cache.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, EngineKind, StoreOptions};

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_kept_after_it() {
        let options = StoreOptions {
            engine: EngineKind::Memory,
            ..StoreOptions::default()
        };
        let names = Names::new(store::open(&options).unwrap(), 16);
        let handle: Handle = "bob".parse().unwrap();
        let bob = UserId::from_bytes([1; 16]);
        let before = names.changes.load(Ordering::SeqCst);
        names.changed(&User {
            id: bob,
            handle: handle.clone(),
            name: String::new(),
            password_hash: None,
            scram: None,
            created_ms: 1,
            removed_ms: Some(2),
        });
        names.keep(&names.users, &handle, bob, before);
        assert_eq!(names.user(&handle).await, Ok(None));
        let now = names.changes.load(Ordering::SeqCst);
        names.keep(&names.users, &handle, bob, now);
        assert_eq!(names.user(&handle).await, Ok(Some(bob)));
    }
}
