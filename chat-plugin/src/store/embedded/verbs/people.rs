//! [`PeopleStore`] of the embedded store.

use std::ops::Bound;

use async_trait::async_trait;
use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{Handle, UserId};

use super::super::queue::Job;
use super::super::reads::{bad_key, visit, visit_user};
use super::super::{EmbeddedStore, keys, queue, reads, values};
use crate::domain::account::Subject;
use crate::domain::contact::{Contact, ContactChange, ContactCounts, ContactList, Decided};
use crate::domain::presence::{PresenceChange, Standing};
use crate::domain::profile::Profile;
use crate::domain::user::{Token, User};
use crate::store::{PeopleStore, StoreError, tables};

#[async_trait]
impl<K: KvEngine> PeopleStore for EmbeddedStore<K> {
    async fn create_user(&self, user: User) -> Result<(), StoreError> {
        self.ask_to_write(|reply| Job::CreateUser(Box::new(user), reply))
            .await
    }

    async fn update_user(&self, user: User) -> Result<(), StoreError> {
        self.ask(|reply| Job::UpdateUser(Box::new(user), reply))
            .await
    }

    async fn change_handle(
        &self,
        user: UserId,
        from: Handle,
        to: Handle,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let handles = Box::new((from, to));
        self.ask_to_write(|reply| Job::ChangeHandle(user, handles, now_ms, reply))
            .await
    }

    async fn search(
        &self,
        prefix: String,
        people: bool,
        limit: usize,
    ) -> Result<Vec<Subject>, StoreError> {
        self.read(move |engine, _| reads::search(engine, &prefix, people, limit))
            .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read_row(tables::USER, *id.as_bytes(), move |row| {
            values::read_user(id, row)
        })
        .await
    }

    async fn last_of_handle(&self, handle: &Handle) -> Result<Option<UserId>, StoreError> {
        self.read_row(tables::HANDLE, handle.as_str().to_owned(), |row| {
            values::read_handle(row).map(|row| row.user)
        })
        .await
    }

    async fn user_by_handle(&self, handle: &Handle) -> Result<Option<User>, StoreError> {
        let handle = handle.clone();
        self.read(move |engine, _| {
            let Some(row) = engine.get(tables::HANDLE, handle.as_str().as_bytes())? else {
                return Ok(None);
            };
            let row = values::read_handle(&row)?;
            if row.freed_ms > 0 {
                return Ok(None);
            }
            let id = row.user;
            let Some(row) = engine.get(tables::USER, id.as_bytes())? else {
                return Ok(None);
            };
            let user = values::read_user(id, &row)?;
            Ok(user.removed_ms.is_none().then_some(user))
        })
        .await
    }

    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<Vec<User>, StoreError> {
        self.read(move |engine, _| {
            let after = after.as_ref().map(UserId::as_bytes);
            let range = KeyRange {
                from: after.map_or(Bound::Unbounded, |id| Bound::Excluded(id)),
                to: Bound::Unbounded,
            };
            let mut users = Vec::new();
            visit(engine, tables::USER, range, limit, |key, row| {
                let id: [u8; 16] = key.try_into().map_err(|_| bad_key(tables::USER))?;
                users.push(values::read_user(UserId::from_bytes(id), row)?);
                Ok(())
            })?;
            Ok(users)
        })
        .await
    }

    async fn profile(&self, user: UserId) -> Result<Profile, StoreError> {
        let row = self.read_row(tables::PROFILE, *user.as_bytes(), values::read_profile);
        Ok(row.await?.unwrap_or_default())
    }

    async fn replace_profile(
        &self,
        user: UserId,
        before: Profile,
        after: Profile,
    ) -> Result<bool, StoreError> {
        let change = Box::new((before, after));
        self.ask_to_write(|reply| Job::ReplaceProfile(user, change, reply))
            .await
    }

    async fn contact(&self, user: UserId, other: UserId) -> Result<Contact, StoreError> {
        let key = keys::contact(user, other);
        let decode = move |row: &[u8]| values::read_contact(other, row);
        let row = self.read_row(tables::CONTACT, key, decode).await?;
        Ok(row.unwrap_or_else(|| Contact::none(other)))
    }

    async fn contacts(
        &self,
        user: UserId,
        list: ContactList,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Contact>, StoreError> {
        self.read(move |engine, _| reads::contacts(engine, user, list, (after, limit)))
            .await
    }

    async fn contact_counts(&self, user: UserId) -> Result<ContactCounts, StoreError> {
        let key = keys::contact(user, keys::NO_USER);
        let row = self.read_row(tables::CONTACT, key, values::read_contact_counts);
        Ok(row.await?.unwrap_or_default())
    }

    async fn change_contact(
        &self,
        user: UserId,
        other: UserId,
        change: ContactChange,
        max: ContactCounts,
        now_ms: u64,
    ) -> Result<Decided, StoreError> {
        let job = |reply| Job::ChangeContact((user, other), change, (max, now_ms), reply);
        self.ask_to_write(job).await
    }

    async fn presence(&self, user: UserId) -> Result<Standing, StoreError> {
        let row = self.read_row(tables::PRESENCE, *user.as_bytes(), values::read_presence);
        Ok(row.await?.unwrap_or_default())
    }

    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError> {
        for some in changes.chunks(queue::GROUP_ITEMS_MAX) {
            let some = some.to_vec();
            self.ask_to_write(|reply| Job::PutPresence(some, reply))
                .await?;
        }
        Ok(())
    }

    async fn put_token(&self, token: Token) -> Result<(), StoreError> {
        self.ask(|reply| Job::PutToken(Box::new(token), reply))
            .await
    }

    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>, StoreError> {
        self.read_row(tables::TOKEN, hash, move |row| {
            values::read_token(hash, row)
        })
        .await
    }

    async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError> {
        self.read(move |engine, _| {
            let mut tokens = Vec::new();
            visit_user(engine, tables::USER_TOKEN, user, |_, row| {
                let hash = values::read_hash(row)?;
                // It may have been removed meanwhile.
                if let Some(row) = engine.get(tables::TOKEN, &hash)? {
                    tokens.push(values::read_token(hash, &row)?);
                }
                Ok(())
            })?;
            Ok(tokens)
        })
        .await
    }

    async fn remove_token(&self, user: UserId, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.ask(|reply| Job::RemoveToken(user, id, reply)).await
    }
}
