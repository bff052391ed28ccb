//! Account versions: which conversations a user's devices have to look at again.
//!
//! A conversation is *clean* for a user whose devices have been told of its present state ([`Writer::hand_out`]). The first
//! change after that makes it dirty and moves the version; further ones find it dirty and write nothing. So a member
//! who is away costs one small write per conversation, and one who has never asked for changes none.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use broker::store::kv::{KeyRange, KvEngine, Order};
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};

use super::super::keys;
use super::super::values::{self, Changed};
use super::Writer;
use crate::domain::account::{Preferences, Subject};
use crate::domain::member::Member;
use crate::store::{HIDDEN_LATELY_MAX, StoreError, tables};

/// The version of an account that nobody has changed.
const FIRST: u64 = 1;

impl<K: KvEngine> Writer<K> {
    /// The devices of this user are going to be told of these conversations as they are from now on. From the first time
    /// on, the user has an account version; it is returned.
    pub(super) fn hand_out(
        &mut self,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<u64, StoreError> {
        let version = if let Some(version) = self.account_version(user)? {
            version
        } else {
            self.put_account_version(user, FIRST);
            FIRST
        };
        for conversation in conversations {
            let member = self.member(*conversation, user)?;
            let Some(member) = member.filter(Member::is_present) else {
                continue; // what happens there is no business of those who left
            };
            if member.role.is_one_of_many(conversation.kind()) {
                self.note_told(user, *conversation)?; // too many to be told when it changes: they look
            } else {
                self.make_clean(user, *conversation)?;
            }
        }
        Ok(version)
    }

    /// The devices of a reader are told of a channel up to its head.
    fn note_told(&mut self, user: UserId, conversation: ConversationId) -> Result<(), StoreError> {
        let known = self.conversation(conversation)?;
        let told = known.map_or(Seq::ZERO, |known| known.head.seq);
        let key = keys::changed(user, conversation.into());
        let row = self.changed_row(&key)?;
        if row.told < told {
            let value = values::write_changed(&Changed { told, ..row });
            self.put(tables::CHANGED, &key, value);
        }
        Ok(())
    }

    /// These channels have gone on since the devices of a reader were told of them.
    pub(super) fn note_changed(
        &mut self,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<(), StoreError> {
        for conversation in conversations {
            self.changed(user, Subject::Conversation(*conversation))?;
        }
        Ok(())
    }

    /// A user becomes a member and is not to know of it: the next change is the first of which his devices are told.
    pub(super) fn joined_unknowing(
        &mut self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<(), StoreError> {
        if self.account_version(user)?.is_some() {
            self.make_clean(user, conversation)?;
        }
        Ok(())
    }

    /// A conversation changed for all whose devices know it as it was, but for one who is not to know.
    pub(super) fn changed_for_all(
        &mut self,
        conversation: ConversationId,
        unless: Option<UserId>,
    ) -> Result<(), StoreError> {
        let clean = self.clean(conversation)?;
        if clean.is_empty() {
            return Ok(());
        }
        let unknowing = unless.filter(|user| clean.contains(user));
        let still_clean = Arc::new(unknowing.into_iter().collect());
        self.cleans.insert(conversation, still_clean);
        for user in clean.iter().filter(|user| unknowing != Some(**user)) {
            self.remove(tables::CLEAN, &keys::member(conversation, *user));
            self.move_version(*user, conversation.into())?;
        }
        Ok(())
    }

    /// A conversation changed for one user. Nothing happens if it is dirty already. Of readers it is not known whether it is: what
    /// is their own is told each time.
    pub(super) fn changed_for(
        &mut self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<(), StoreError> {
        if self.is_reader(user, conversation)? || self.clean(conversation)?.contains(&user) {
            self.changed(user, conversation.into())?;
        }
        Ok(())
    }

    fn is_reader(&self, user: UserId, conversation: ConversationId) -> Result<bool, StoreError> {
        let kind = conversation.kind();
        if kind != ConversationKind::Channel {
            return Ok(false);
        }
        let member = self.member(conversation, user)?;
        Ok(member.is_some_and(|member| member.is_present() && member.role.is_one_of_many(kind)))
    }

    /// Moves the version of a user, if there is one, to this change.
    pub(super) fn changed(&mut self, user: UserId, about: Subject) -> Result<(), StoreError> {
        if let Subject::Conversation(conversation) = about {
            self.make_dirty(user, conversation)?;
        }
        self.move_version(user, about)
    }

    fn move_version(&mut self, user: UserId, about: Subject) -> Result<(), StoreError> {
        let Some(before) = self.account_version(user)? else {
            return Ok(());
        };
        let key = keys::changed(user, about);
        let row = self.changed_row(&key)?;
        if row.version > 0 {
            self.remove(tables::CHANGE, &keys::change(user, row.version));
        }
        let version = before.saturating_add(1);
        self.put_account_version(user, version);
        let value = values::write_subject(about);
        self.put(tables::CHANGE, &keys::change(user, version), value);
        let value = values::write_changed(&Changed { version, ..row });
        self.put(tables::CHANGED, &key, value);
        Ok(())
    }

    fn changed_row(&self, key: &[u8]) -> Result<Changed, StoreError> {
        let row = self.row(tables::CHANGED, key)?;
        let row = row.map(|row| values::read_changed(&row)).transpose()?;
        Ok(row.unwrap_or_default())
    }

    /// A user has hidden an entry from himself: his other devices are told.
    pub(super) fn note_hidden(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<(), StoreError> {
        let key = keys::changed(user, conversation.into());
        let mut row = self.changed_row(&key)?;
        row.hidden.push(seq);
        let too_many = row.hidden.len().saturating_sub(HIDDEN_LATELY_MAX);
        row.hidden.drain(..too_many);
        let value = values::write_changed(&row);
        self.put(tables::CHANGED, &key, value);
        self.changed_for(user, conversation)
    }

    /// Replaces what a user has decided about a conversation.
    pub(super) fn set_preferences(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        preferences: Preferences,
    ) -> Result<(), StoreError> {
        let key = keys::changed(user, conversation.into());
        let row = self.changed_row(&key)?;
        if row.preferences == preferences {
            return Ok(());
        }
        let value = values::write_changed(&Changed { preferences, ..row });
        self.put(tables::CHANGED, &key, value);
        self.changed(user, conversation.into())
    }

    /// Removes what is kept for the devices of a user. Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn remove_account(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, _) in self.rows_of(tables::CHANGED, user)? {
            if let Some(conversation) = key.get(16..).and_then(keys::read_cid) {
                self.make_dirty(user, conversation)?;
            }
            self.remove(tables::CHANGED, &key);
        }
        for (key, _) in self.rows_of(tables::CHANGE, user)? {
            self.remove(tables::CHANGE, &key);
        }
        self.remove(tables::ACCOUNT, user.as_bytes());
        Ok(())
    }

    fn make_clean(&mut self, user: UserId, conversation: ConversationId) -> Result<(), StoreError> {
        let clean = self.clean(conversation)?;
        if !clean.contains(&user) {
            drop(clean); // so that it is changed in place
            let key = keys::member(conversation, user);
            self.put(tables::CLEAN, &key, values::EMPTY.to_vec());
            if let Some(mut clean) = self.cleans.get_mut(&conversation) {
                Arc::make_mut(&mut clean).insert(user);
            }
        }
        Ok(())
    }

    fn make_dirty(&mut self, user: UserId, conversation: ConversationId) -> Result<(), StoreError> {
        let clean = self.clean(conversation)?;
        if clean.contains(&user) {
            drop(clean); // so that it is changed in place
            self.remove(tables::CLEAN, &keys::member(conversation, user));
            if let Some(mut clean) = self.cleans.get_mut(&conversation) {
                Arc::make_mut(&mut clean).remove(&user);
            }
        }
        Ok(())
    }

    /// For whom a conversation is clean, as it is within the batch.
    fn clean(&mut self, conversation: ConversationId) -> Result<Arc<HashSet<UserId>>, StoreError> {
        if let Some(clean) = self.cleans.get(&conversation) {
            return Ok(Arc::clone(clean));
        }
        let mut clean = HashSet::new();
        let first = keys::member(conversation, UserId::from_bytes([0; 16]));
        let last = keys::member(conversation, UserId::from_bytes([0xFF; 16]));
        let range = KeyRange::closed(&first, &last);
        self.engine()
            .scan(tables::CLEAN, range, Order::Ascending, &mut |key, _| {
                clean.extend(user_of(key));
                ControlFlow::Continue(())
            })?;
        let gathered = self.group.rows.get(&tables::CLEAN);
        for (key, row) in gathered.into_iter().flatten() {
            let Some(user) = user_of(key).filter(|_| key.starts_with(&keys::cid(conversation)))
            else {
                continue;
            };
            if row.is_some() {
                clean.insert(user);
            } else {
                clean.remove(&user);
            }
        }
        let clean = Arc::new(clean);
        self.cleans.insert(conversation, Arc::clone(&clean));
        Ok(clean)
    }

    fn account_version(&self, user: UserId) -> Result<Option<u64>, StoreError> {
        let row = self.row(tables::ACCOUNT, user.as_bytes())?;
        row.map(|row| values::read_number(tables::ACCOUNT.name(), &row))
            .transpose()
    }

    fn put_account_version(&mut self, user: UserId, version: u64) {
        let value = values::write_number(version).to_vec();
        self.put(tables::ACCOUNT, user.as_bytes(), value);
    }
}

fn user_of(key: &[u8]) -> Option<UserId> {
    key.last_chunk().map(|id| UserId::from_bytes(*id))
}
