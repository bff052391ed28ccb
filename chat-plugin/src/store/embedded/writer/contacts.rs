//! What users decide about each other.

use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, UserId};

use super::super::keys::{self, NO_USER};
use super::super::values;
use super::Writer;
use crate::domain::account::Subject;
use crate::domain::contact::{Contact, ContactChange, ContactCounts, Decided};
use crate::domain::member::Marks;
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    pub(super) fn change_contact(
        &mut self,
        (user, other): (UserId, UserId),
        change: &ContactChange,
        (max, now_ms): (ContactCounts, u64),
    ) -> Result<Decided, StoreError> {
        self.check_user(user)?;
        let key = keys::contact(user, other);
        let row = self.row(tables::CONTACT, &key)?;
        let before = row.map(|row| values::read_contact(other, &row));
        let before = before.transpose()?;
        let before = before.unwrap_or_else(|| Contact::none(other));
        let after = before.clone().changed(change, now_ms);
        if after == before {
            return Ok(Decided::AsItWas);
        }
        let counts_key = keys::contact(user, NO_USER);
        let counts = self.row(tables::CONTACT, &counts_key)?;
        let counts = counts.map(|row| values::read_contact_counts(&row));
        let counts = counts.transpose()?.unwrap_or_default();
        let counts_after = counts.changed(&before, &after);
        if let Some(list) = counts.overfull(counts_after, max) {
            return Ok(Decided::Full(list));
        }
        let marks_key = keys::member(ConversationId::direct(user, other), user);
        let marks = self.marks(&marks_key)?;
        // Read before anything is written, so that a row that cannot be read leaves nothing half done.
        self.changed(user, Subject::Person(other))?;
        if after.is_none() {
            self.remove(tables::CONTACT, &key);
        } else {
            self.put(tables::CONTACT, &key, values::write_contact(&after));
        }
        let counts = values::write_contact_counts(counts_after);
        self.put(tables::CONTACT, &counts_key, counts);
        if before.is_blocked() != after.is_blocked() {
            let blocks = after.is_blocked();
            let marks = values::write_marks(&Marks { blocks, ..marks });
            self.put(tables::MARKS, &marks_key, marks);
            self.blocks.remove(&marks_key);
        }
        Ok(Decided::Changed)
    }

    /// Has this user of a direct conversation blocked the other one?
    pub(super) fn has_blocked(
        &mut self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<bool, StoreError> {
        let key = keys::member(conversation, user);
        if let Some(blocks) = self.blocks.get(&key) {
            return Ok(*blocks);
        }
        let blocks = self.marks(&key)?.blocks;
        self.blocks.insert(key, blocks);
        Ok(blocks)
    }

    /// Marks as they are within the batch, by `cid uid`.
    pub(super) fn marks(&self, key: &[u8; 33]) -> Result<Marks, StoreError> {
        let row = self.row(tables::MARKS, key)?;
        let marks = row.map(|row| values::read_marks(&row)).transpose()?;
        Ok(marks.unwrap_or_default())
    }

    /// How a user calls others goes; that they are his contacts stays. Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn forget_names(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, row) in self.rows_of(tables::CONTACT, user)? {
            let other = super::super::reads::tail_user(&key)?;
            if other == NO_USER {
                continue; // how many there are
            }
            let mut contact = values::read_contact(other, &row)?;
            if !contact.called.is_empty() {
                contact.called.clear();
                self.put(tables::CONTACT, &key, values::write_contact(&contact));
                self.changed(user, Subject::Person(other))?;
            }
        }
        Ok(())
    }

    /// Removes what a user has decided about others. Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn remove_contacts(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, _) in self.rows_of(tables::CONTACT, user)? {
            self.remove(tables::CONTACT, &key);
        }
        Ok(())
    }
}
