//! Users, and what they decided about themselves and others.

use async_trait::async_trait;
use proto::ids::{Handle, UserId};

use super::StoreError;
use crate::domain::account::Subject;
use crate::domain::contact::{Contact, ContactChange, ContactCounts, ContactList, Decided};
use crate::domain::presence::{PresenceChange, Standing};
use crate::domain::profile::Profile;
use crate::domain::user::{Token, User};

/// Users, and what they decided about themselves and others.
#[async_trait]
pub trait PeopleStore: Send + Sync + 'static {
    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError::HandleTaken`] if the handle belongs to somebody, or belonged within the last 90 days.
    async fn create_user(&self, user: User) -> Result<(), StoreError>;

    /// Replaces a user's row; the handle must not change. A row with `removed_ms` frees the handle (after 90 days), the
    /// tokens and the devices.
    async fn update_user(&self, user: User) -> Result<(), StoreError>;

    /// Gives a user another handle, if he still has `from`; says whether he had. The old one names nobody from then on, and
    /// rests like that of a removed user; only he may take it back.
    ///
    /// # Errors
    /// [`StoreError::HandleTaken`] as in [`PeopleStore::create_user`].
    async fn change_handle(
        &self,
        user: UserId,
        from: Handle,
        to: Handle,
        now_ms: u64,
    ) -> Result<bool, StoreError>;

    /// Users (or else public conversations) that are found by a word that begins with `prefix`, in the order of the words, at
    /// most `limit`. They follow users, profiles and settings in the same commit.
    async fn search(
        &self,
        prefix: String,
        people: bool,
        limit: usize,
    ) -> Result<Vec<Subject>, StoreError>;

    /// One user.
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The user of a handle, removed ones excluded.
    async fn user_by_handle(&self, handle: &Handle) -> Result<Option<User>, StoreError>;

    /// Who has this handle, or had it last, also if he is removed.
    async fn last_of_handle(&self, handle: &Handle) -> Result<Option<UserId>, StoreError>;

    /// Users in the order of their ids, at most `limit` after `after`, removed ones included.
    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<Vec<User>, StoreError>;

    /// What a user decided about himself; the defaults where nothing was stored.
    async fn profile(&self, user: UserId) -> Result<Profile, StoreError>;

    /// Replaces a profile, if it is still as it was. Says whether it was.
    async fn replace_profile(
        &self,
        user: UserId,
        before: Profile,
        after: Profile,
    ) -> Result<bool, StoreError>;

    /// What `user` has decided about `other`.
    async fn contact(&self, user: UserId, other: UserId) -> Result<Contact, StoreError>;

    /// Those in a list of `user`, in the order of their ids, at most `limit` after `after`.
    async fn contacts(
        &self,
        user: UserId,
        list: ContactList,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Contact>, StoreError>;

    /// How long the lists of `user` are. O(1).
    async fn contact_counts(&self, user: UserId) -> Result<ContactCounts, StoreError>;

    /// Changes what `user` has decided about `other`, unless a list would become longer than `max`; durable, and told by the
    /// next account version. What `other` writes in their direct conversation while he is blocked is stored, and hidden from
    /// `user` in the same commit.
    async fn change_contact(
        &self,
        user: UserId,
        other: UserId,
        change: ContactChange,
        max: ContactCounts,
        now_ms: u64,
    ) -> Result<Decided, StoreError>;

    /// How a user wants to be seen, and when he was; the defaults where nothing was stored.
    async fn presence(&self, user: UserId) -> Result<Standing, StoreError>;

    /// Changes what is at rest of the presence of users, as [`Standing::apply`] says: relaxed, seen by reads when it returns.
    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError>;

    /// Stores a token.
    async fn put_token(&self, token: Token) -> Result<(), StoreError>;

    /// The token of a hash.
    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>, StoreError>;

    /// All tokens of a user.
    async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError>;

    /// Removes a token by its public id. Says whether there was one.
    async fn remove_token(&self, user: UserId, id: &str) -> Result<bool, StoreError>;
}
