//! Devices, users and tokens; cursors and marks.

use std::collections::BTreeSet;

use broker::store::kv::{KeyRange, KvEngine, Table};
use proto::ids::{ConversationId, ConversationKind, DeviceId, UserId};

use super::super::keys;
use super::super::overlay::{OverlayKey, Waiting};
use super::super::values::{self, HandleRow};
use super::Writer;
use crate::domain::account::Subject;
use crate::domain::device::{Device, Inflight, SharedSubscription};
use crate::domain::member::Marks;
use crate::domain::presence::{PresenceChange, Standing};
use crate::domain::profile::Profile;
use crate::domain::search::words_of_user;
use crate::domain::user::{Token, User};
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    pub(super) fn end_exchange(
        &mut self,
        device: DeviceId,
        packet_id: u16,
    ) -> Result<bool, StoreError> {
        let key = keys::exchange(device, packet_id);
        let had = self.row(tables::EXCHANGE, &key)?.is_some();
        if had {
            self.remove(tables::EXCHANGE, &key);
        }
        Ok(had)
    }

    pub(super) fn end_exchanges(&mut self, device: DeviceId) -> Result<(), StoreError> {
        self.barrier()?;
        for key in self.exchange_keys(device)? {
            self.remove(tables::EXCHANGE, &key);
        }
        Ok(())
    }

    /// Scans, so it needs [`Writer::barrier`] before it.
    fn exchange_keys(&mut self, device: DeviceId) -> Result<Vec<Vec<u8>>, StoreError> {
        let first = keys::exchange(device, 0);
        let last = keys::exchange(device, u16::MAX);
        Ok(self.keys(tables::EXCHANGE, KeyRange::closed(&first, &last))?)
    }

    pub(super) fn put_device(
        &mut self,
        device: &Device,
        inflight: Option<&[Inflight]>,
    ) -> Result<(), StoreError> {
        let key = keys::device(device.user, device.id);
        if self.row(tables::DEVICE, &key)?.is_none() {
            if self.is_removed(device.user)? {
                return Ok(()); // its connection ends behind the removal
            }
            self.changed(device.user, Subject::Person(device.user))?;
        }
        self.put(tables::DEVICE, &key, values::write_device(device));
        match inflight {
            None => {}
            Some([]) => self.remove(tables::INFLIGHT, device.id.as_bytes()),
            Some(inflight) => {
                let value = values::write_inflight(inflight);
                self.put(tables::INFLIGHT, device.id.as_bytes(), value);
            }
        }
        Ok(())
    }

    pub(super) fn take_inflight(&mut self, device: DeviceId) -> Result<Vec<Inflight>, StoreError> {
        let Some(row) = self.row(tables::INFLIGHT, device.as_bytes())? else {
            return Ok(Vec::new());
        };
        let inflight = values::read_inflight(&row)?;
        self.remove(tables::INFLIGHT, device.as_bytes());
        Ok(inflight)
    }

    pub(super) fn remove_device(
        &mut self,
        user: UserId,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        self.barrier()?;
        if self
            .row(tables::DEVICE, &keys::device(user, device))?
            .is_some()
        {
            self.changed(user, Subject::Person(user))?;
        }
        self.remove_device_rows(user, device)
    }

    /// Scans, so it needs [`Writer::barrier`] before it.
    fn remove_device_rows(&mut self, user: UserId, device: DeviceId) -> Result<(), StoreError> {
        let first = keys::join::<33>(&[device.as_bytes(), &keys::FIRST_CID]);
        let last = keys::join::<33>(&[device.as_bytes(), &keys::LAST_CID]);
        let cursors = self.keys(tables::CURSOR, KeyRange::closed(&first, &last))?;
        let exchanges = self.exchange_keys(device)?;
        self.shared.overlay.forget_device(device);
        for key in cursors {
            self.remove(tables::CURSOR, &key);
        }
        for key in exchanges {
            self.remove(tables::EXCHANGE, &key);
        }
        self.remove_queue(user, device)?;
        self.remove(tables::INFLIGHT, device.as_bytes());
        self.remove(tables::DEVICE, &keys::device(user, device));
        Ok(())
    }

    /// Stores a shared subscription, one of at most `max` of its user, or that it is held now.
    pub(super) fn put_shared(
        &mut self,
        shared: &SharedSubscription,
        max: usize,
    ) -> Result<bool, StoreError> {
        self.check_user(shared.user)?;
        let key = keys::device(shared.user, shared.id);
        if self.row(tables::SHARED, &key)?.is_none() {
            self.barrier()?;
            if self.rows_of(tables::SHARED, shared.user)?.len() >= max {
                return Ok(false);
            }
        }
        self.put(tables::SHARED, &key, values::devices::write_shared(shared));
        Ok(true)
    }

    pub(super) fn remove_shared(&mut self, user: UserId, id: DeviceId) -> Result<(), StoreError> {
        self.barrier()?;
        self.remove(tables::SHARED, &keys::device(user, id));
        self.remove_device_rows(user, id) // its position
    }

    pub(super) fn create_user(&mut self, user: &User) -> Result<(), StoreError> {
        if self.row(tables::USER, user.id.as_bytes())?.is_some() {
            return Err(StoreError::HandleTaken);
        }
        self.check_handle(&user.handle, user.id, user.created_ms)?;
        self.put_handle(user, 0);
        self.put(tables::USER, user.id.as_bytes(), values::write_user(user));
        let words = words_of_user(user, &Profile::default());
        self.index(Subject::Person(user.id), &BTreeSet::new(), &words);
        Ok(())
    }

    pub(super) fn put_handle(&mut self, user: &User, freed_ms: u64) {
        let row = HandleRow {
            user: user.id,
            freed_ms,
        };
        let key = user.handle.as_str().as_bytes();
        self.put(tables::HANDLE, key, values::write_handle(row));
    }

    pub(super) fn update_user(&mut self, user: &User) -> Result<(), StoreError> {
        let row = self.row(tables::USER, user.id.as_bytes())?;
        let before = values::read_user(user.id, &row.ok_or(StoreError::NotFound)?)?;
        if before.handle != user.handle
            || (before.removed_ms.is_some() && user.removed_ms.is_none())
        {
            return Err(StoreError::NotFound);
        }
        let profile = self.profile(user.id)?;
        let words = words_of_user(&before, &profile);
        let is_shown_otherwise = before.name != user.name;
        if let (None, Some(removed_ms)) = (before.removed_ms, user.removed_ms) {
            self.barrier()?;
            self.remove_belongings(user.id)?;
            self.put_handle(user, removed_ms.max(1));
        } else if is_shown_otherwise {
            self.changed(user.id, Subject::Person(user.id))?;
        }
        self.index(
            Subject::Person(user.id),
            &words,
            &words_of_user(user, &profile),
        );
        self.put(tables::USER, user.id.as_bytes(), values::write_user(user));
        Ok(())
    }

    /// Removes what belongs to a user alone: tokens, devices, shared subscriptions, scheduled messages, account version, contacts,
    /// profile and presence.
    /// Scans, so it needs [`Writer::barrier`] before it.
    pub(super) fn remove_belongings(&mut self, user: UserId) -> Result<(), StoreError> {
        for (key, value) in self.rows_of(tables::USER_TOKEN, user)? {
            let hash = values::read_hash(&value)?;
            self.remove(tables::TOKEN, &hash);
            self.remove(tables::USER_TOKEN, &key);
        }
        self.remove_account(user)?;
        self.remove_all_scheduled(user)?;
        self.remove_contacts(user)?;
        for (key, _) in self.rows_of(tables::DEVICE, user)? {
            if let Some(device) = key.get(16..).and_then(|id| id.try_into().ok()) {
                self.remove_device_rows(user, DeviceId::from_bytes(device))?;
            }
        }
        for (key, _) in self.rows_of(tables::SHARED, user)? {
            if let Some(id) = key.get(16..).and_then(|id| id.try_into().ok()) {
                self.remove(tables::SHARED, &key);
                self.remove_device_rows(user, DeviceId::from_bytes(id))?;
            }
        }
        self.forget_places(user);
        self.remove(tables::PROFILE, user.as_bytes());
        self.remove(tables::PRESENCE, user.as_bytes());
        Ok(())
    }

    pub(super) fn replace_profile(
        &mut self,
        user: UserId,
        (before, after): &(Profile, Profile),
    ) -> Result<bool, StoreError> {
        let known = self.live_user(user)?;
        if self.profile(user)? != *before {
            return Ok(false);
        }
        let value = values::write_profile(after)?;
        if before != after {
            self.changed(user, Subject::Person(user))?;
        }
        self.put(tables::PROFILE, user.as_bytes(), value);
        self.index(
            Subject::Person(user),
            &words_of_user(&known, before),
            &words_of_user(&known, after),
        );
        Ok(true)
    }

    /// Of users who have been removed nothing more is kept.
    pub(super) fn put_presence(&mut self, changes: Vec<PresenceChange>) -> Result<(), StoreError> {
        for change in changes {
            let user = change.user;
            match self.check_user(user) {
                Err(StoreError::NotFound) => continue,
                other => other?,
            }
            let row = self.row(tables::PRESENCE, user.as_bytes())?;
            let before = row.map(|row| values::read_presence(&row)).transpose()?;
            let mut standing: Standing = before.clone().unwrap_or_default();
            standing.apply(change);
            if before.as_ref() != Some(&standing) {
                let value = values::write_presence(&standing);
                self.put(tables::PRESENCE, user.as_bytes(), value);
            }
        }
        Ok(())
    }

    pub(super) fn check_user(&self, user: UserId) -> Result<(), StoreError> {
        self.live_user(user).map(|_| ())
    }

    pub(super) fn put_token(&mut self, token: &Token) -> Result<(), StoreError> {
        let by_user = keys::user_token(token.user, &token.id);
        if let Some(row) = self.row(tables::USER_TOKEN, &by_user)? {
            let earlier = values::read_hash(&row)?;
            self.remove(tables::TOKEN, &earlier);
        }
        let value = values::write_hash(token.hash).to_vec();
        self.put(tables::USER_TOKEN, &by_user, value);
        self.put(tables::TOKEN, &token.hash, values::write_token(token));
        Ok(())
    }

    pub(super) fn remove_token(&mut self, user: UserId, id: &str) -> Result<bool, StoreError> {
        let by_user = keys::user_token(user, id);
        let Some(row) = self.row(tables::USER_TOKEN, &by_user)? else {
            return Ok(false);
        };
        let hash = values::read_hash(&row)?;
        self.remove(tables::TOKEN, &hash);
        self.remove(tables::USER_TOKEN, &by_user);
        Ok(true)
    }

    // -- relaxed moves

    /// Folds everything that waits into the batch.
    pub(super) fn fold_all(&mut self) {
        if self.shared.condition.is_over() {
            return;
        }
        let mut waiting = Vec::new();
        self.shared.overlay.copy_all(&mut waiting);
        for row in waiting {
            match self.fold(row) {
                Ok(()) => {}
                Err(StoreError::Corrupt(reason)) => {
                    // Tried again and again it would hold up all others; reads of the row will tell, too.
                    tracing::error!(%reason, "a cursor or mark is dropped");
                    self.group.folded.push(row);
                }
                Err(error) => return self.fail(error),
            }
        }
        self.group.is_forced |= self.relaxed_rows;
        self.group.is_durable |= !self.group.folded.is_empty() || self.relaxed_rows;
    }

    /// Folds what waits under these keys. What no longer waits has been committed.
    pub(super) fn settle(&mut self, keys: &[OverlayKey]) -> Result<(), StoreError> {
        for key in keys {
            if let Some(row) = self.shared.overlay.peek(*key) {
                self.fold(row)?;
            }
        }
        Ok(())
    }

    fn fold(&mut self, waiting: Waiting) -> Result<(), StoreError> {
        match waiting {
            Waiting::Cursor(device, conversation, seq) => {
                let key = keys::cursor(device, conversation);
                self.raise(tables::CURSOR, &key, seq.get())?;
            }
            Waiting::Marks(conversation, user, step) => {
                let key = keys::member(conversation, user);
                let before = self.marks(&key)?;
                let mut marks = before;
                step.fold_into(&mut marks);
                self.note_moved((conversation, user), (&before, &marks));
                if before != marks {
                    self.put(tables::MARKS, &key, values::write_marks(&marks));
                }
                let is_shown = before.own_read() != marks.own_read()
                    || before.read != marks.read
                    || before.unread_flag != marks.unread_flag;
                if is_shown {
                    self.changed_for(user, conversation)?;
                }
            }
            Waiting::ReceiptDue(user, conversation, ts_ms) => {
                let key = keys::user_conversation(user, conversation);
                let row = self.row(tables::RECEIPT_DUE, &key)?;
                let before = row.map(|row| values::read_time(tables::RECEIPT_DUE.name(), &row));
                if before.transpose()?.is_none_or(|before| before < ts_ms) {
                    self.put(tables::RECEIPT_DUE, &key, values::write_time(ts_ms));
                }
            }
        }
        self.group.folded.push(waiting);
        Ok(())
    }

    /// Keeps the time of a move: of one that read something, and in direct conversations of one that was delivered
    /// something. In a group the latter would be a row for each message and member.
    fn note_moved(
        &mut self,
        (conversation, user): (ConversationId, UserId),
        (before, now): (&Marks, &Marks),
    ) {
        let is_direct = conversation.kind() == ConversationKind::Direct;
        let delivered = (is_direct && now.delivered > before.delivered).then_some(now.delivered);
        let read = (now.read > before.read).then_some(now.read);
        for (is_read, seq) in [(false, delivered), (true, read)] {
            if let Some(seq) = seq {
                let key = keys::moved(conversation, user, is_read, seq);
                let time = values::write_time(now.moved_ms);
                self.group.batch.put(tables::MOVED, &key, &time);
            }
        }
    }

    fn raise(&mut self, table: Table, key: &[u8], to: u64) -> Result<(), StoreError> {
        let row = self.row(table, key)?;
        let before = row.map(|row| values::read_number(table.name(), &row));
        if before.transpose()?.is_none_or(|before| before < to) {
            self.put(table, key, values::write_number(to).to_vec());
        }
        Ok(())
    }
}
