//! The list of conversations, as account sync tells it, and whose store this is.

use prost::Message;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};
use proto::schema::{AccountEvent, ChangedConversation, LogEntry, Me};

use super::log::{Taken, is_gone};
use super::rows::{self, Meta};
use super::{Store, StoreError, Txn};

/// Who the user of this store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) uid: UserId,
    pub(crate) handle: String,
}

impl Store {
    /// Whose store it is, once that is known.
    pub(crate) fn profile(&self) -> Result<Option<Profile>, StoreError> {
        let txn = self.view();
        let uid = txn.user()?;
        let handle = txn.text(Meta::Handle)?.unwrap_or_default();
        Ok(uid.map(|uid| Profile { uid, handle }))
    }

    /// The server has said who the user is.
    ///
    /// # Errors
    /// [`StoreError::OtherUser`] if the store is another user's.
    pub(crate) fn adopt(&self, me: &Me) -> Result<Profile, StoreError> {
        self.write(|txn| {
            let uid: UserId = me
                .uid
                .parse()
                .map_err(|_| StoreError::Damaged("the server gave no user id".to_owned()))?;
            if txn.user()?.is_some_and(|owner| owner != uid) {
                let owner = txn.text(Meta::Handle)?.unwrap_or_default();
                return Err(StoreError::OtherUser { owner });
            }
            txn.put(Meta::Uid.key(), me.uid.clone().into_bytes());
            txn.put(Meta::Handle.key(), me.handle.clone().into_bytes());
            let handle = me.handle.clone();
            Ok(Profile { uid, handle })
        })
    }

    /// The filters that the session on the server has; nothing if that is not sure.
    pub(crate) fn subscribed(&self) -> Result<Option<String>, StoreError> {
        self.view().text(Meta::Subscribed)
    }

    /// The session on the server has these filters, and all that they told at first is here; or that is not sure any more.
    pub(crate) fn set_subscribed(&self, filters: Option<&str>) -> Result<(), StoreError> {
        self.write(|txn| {
            match filters {
                Some(filters) => txn.put(Meta::Subscribed.key(), filters.as_bytes().to_vec()),
                None => txn.remove(Meta::Subscribed.key()),
            }
            Ok(())
        })
    }

    /// The version of the account up to which everything is known; 0: nothing is.
    pub(crate) fn version(&self) -> Result<u64, StoreError> {
        self.view().number(Meta::Version)
    }
}

impl Txn<'_> {
    pub(super) fn user(&self) -> Result<Option<UserId>, StoreError> {
        Ok(self.text(Meta::Uid)?.and_then(|uid| uid.parse().ok()))
    }

    pub(super) fn take_account(
        &mut self,
        event: AccountEvent,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        for changed in event.conversations {
            let Ok(cid) = changed.cid.parse() else {
                continue;
            };
            self.take_changed(cid, changed, taken)?;
            taken.conversations.insert(cid);
        }
        if let Some(version) = event.ver {
            self.put_number(Meta::Version, version);
        }
        taken.badge = event.badge.or(taken.badge);
        taken.me |= event.me;
        Ok(())
    }

    fn take_changed(
        &mut self,
        cid: ConversationId,
        mut changed: ChangedConversation,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        // The last entry belongs to the log, where a deletion finds it.
        if let Some(last) = changed.last.take()
            && !changed.left
        {
            self.put_entry(cid, last, taken)?;
        }
        for seq in std::mem::take(&mut changed.hidden)
            .into_iter()
            .map(Seq::new)
        {
            self.hide_here(cid, seq, taken)?;
        }
        let mut positions = self.positions(cid)?;
        let pushed = !matches!(cid.kind(), ConversationKind::Channel);
        if pushed && !changed.left {
            positions.known = positions.known.max(changed.head);
        }
        if changed.left {
            // Nothing more comes: what is not there is not missing.
            positions.known = positions.covered_to;
        }
        if let Some(conversation) = &changed.conversation {
            positions.read = positions.read.max(conversation.read);
            positions.read = positions.read.max(conversation.private_read);
            if let Some(peer) = &conversation.peer {
                self.put(rows::handle(&peer.handle), rows::cid_value(cid));
            }
        }
        self.extend_known(cid, &mut positions)?;
        self.put_positions(cid, &positions);
        self.put(rows::conversation(cid), changed.encode_to_vec());
        Ok(())
    }

    /// Hidden on another device of this user.
    fn hide_here(
        &mut self,
        cid: ConversationId,
        seq: Seq,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        let entry: Option<LogEntry> = self.decoded(&rows::entry(cid, seq))?;
        if entry.is_some_and(|entry| !is_gone(&entry)) {
            self.end(cid, seq, "hidden")?;
            taken.updated.insert((cid, seq));
        }
        Ok(())
    }

    /// The last entry may be the next one of the run.
    fn extend_known(
        &mut self,
        cid: ConversationId,
        positions: &mut rows::Positions,
    ) -> Result<(), StoreError> {
        if positions.covered_to != 0 {
            self.extend(cid, positions)?;
            self.feed(cid, positions)?;
        }
        Ok(())
    }
}
