//! Who is found by which words: rows that follow the users in the same commit. And handles that change.

use std::collections::BTreeSet;

use broker::store::kv::KvEngine;
use proto::ids::{Handle, UserId};

use super::super::keys;
use super::super::values::{self, HandleRow};
use super::Writer;
use crate::domain::account::Subject;
use crate::domain::profile::Profile;
use crate::domain::search::words_of_user;
use crate::domain::user::User;
use crate::store::{StoreError, tables};

/// A freed handle rests so long.
const HANDLE_REST_MS: u64 = 90 * 24 * 3600 * 1000;

impl<K: KvEngine> Writer<K> {
    /// Gives a user another handle, if he still has the one that he is known by. The old one rests, and may be taken back.
    pub(super) fn change_handle(
        &mut self,
        user: UserId,
        (from, to): &(Handle, Handle),
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let before = self.live_user(user)?;
        if before.handle != *from || from == to {
            return Ok(false);
        }
        self.check_handle(to, user, now_ms)?;
        let profile = self.profile(user)?;
        let after = User {
            handle: to.clone(),
            ..before.clone()
        };
        self.changed(user, Subject::Person(user))?;
        self.put_handle(&before, now_ms.max(1));
        self.put_handle(&after, 0);
        self.put(tables::USER, user.as_bytes(), values::write_user(&after));
        self.index(
            Subject::Person(user),
            &words_of_user(&before, &profile),
            &words_of_user(&after, &profile),
        );
        Ok(true)
    }

    /// What a user told of himself in his profile goes, and is not found any more. Who stays keeps his privacy.
    pub(super) fn forget_profile(&mut self, user: UserId) -> Result<(), StoreError> {
        let before = self.profile(user)?;
        let after = Profile {
            privacy: before.privacy.clone(),
            handle_changes: before.handle_changes.clone(),
            ..Profile::default()
        };
        match self.live_user(user) {
            Ok(known) => {
                let value = values::write_profile(&after)?;
                self.put(tables::PROFILE, user.as_bytes(), value);
                let words = [&before, &after].map(|profile| words_of_user(&known, profile));
                let [before, after] = &words;
                self.index(Subject::Person(user), before, after);
                self.changed(user, Subject::Person(user))
            }
            Err(StoreError::NotFound) => {
                self.remove(tables::PROFILE, user.as_bytes());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Can this user have this handle now?
    pub(super) fn check_handle(
        &self,
        handle: &Handle,
        user: UserId,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let Some(row) = self.row(tables::HANDLE, handle.as_str().as_bytes())? else {
            return Ok(());
        };
        let HandleRow { user: of, freed_ms } = values::read_handle(&row)?;
        let is_own = of == user;
        let rests_until = freed_ms.saturating_add(HANDLE_REST_MS);
        if freed_ms == 0 || (!is_own && now_ms < rests_until) {
            return Err(StoreError::HandleTaken);
        }
        Ok(())
    }

    /// A user who has not been removed.
    pub(super) fn live_user(&self, user: UserId) -> Result<User, StoreError> {
        let row = self.row(tables::USER, user.as_bytes())?;
        let found = values::read_user(user, &row.ok_or(StoreError::NotFound)?)?;
        match found.removed_ms {
            None => Ok(found),
            Some(_) => Err(StoreError::NotFound),
        }
    }

    /// Was there such a user?
    pub(super) fn is_removed(&self, user: UserId) -> Result<bool, StoreError> {
        let row = self.row(tables::USER, user.as_bytes())?;
        let found = row.map(|row| values::read_user(user, &row)).transpose()?;
        Ok(found.is_some_and(|found| found.removed_ms.is_some()))
    }

    pub(super) fn profile(&self, user: UserId) -> Result<Profile, StoreError> {
        let row = self.row(tables::PROFILE, user.as_bytes())?;
        let profile = row.map(|row| values::read_profile(&row)).transpose()?;
        Ok(profile.unwrap_or_default())
    }

    /// What was found by those words is found by these.
    pub(super) fn index(
        &mut self,
        about: Subject,
        before: &BTreeSet<String>,
        after: &BTreeSet<String>,
    ) {
        for word in before.difference(after) {
            self.remove(tables::SEARCH, &keys::search(word, about));
        }
        for word in after.difference(before) {
            self.put(
                tables::SEARCH,
                &keys::search(word, about),
                values::EMPTY.to_vec(),
            );
        }
    }
}
