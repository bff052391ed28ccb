//! Channels: who of their many readers has them in the inbox.
//!
//! A channel with few readers comes to all of them, like a group. One with many comes to those who watch it, by their
//! preference or by a filter of its own (`chat/me/in/{cid}`); everybody else reads `…/log` and the history. It is looked at when a
//! connection subscribes, and when its user comes, goes or decides otherwise; not when others come.

use std::sync::Arc;

use proto::ids::{ConversationKind, UserId};

use super::Delivery;
use super::reader::Reader;
use crate::conversations::Live;
use crate::store::StoreError;

impl Delivery {
    /// Does the connection get in its inbox what is said here? If this is a channel that comes to it, it follows from now on.
    pub(super) async fn admit(
        &self,
        reader: &Reader,
        live: &Arc<Live>,
    ) -> Result<bool, StoreError> {
        if !live.is_reader(reader.user) {
            reader.follow(live.id(), None); // a group, or one who is more than a reader
            return Ok(true);
        }
        if !live.is_present(reader.user) || !self.comes_to_inbox(reader, live).await? {
            reader.follow(live.id(), None);
            return Ok(false);
        }
        let held = self.conversations.follow(live, reader.user).await?;
        reader.follow(live.id(), held);
        Ok(true)
    }

    async fn comes_to_inbox(&self, reader: &Reader, live: &Live) -> Result<bool, StoreError> {
        let id = live.id();
        if reader.wants_only(id) || self.store.reader_count(id).await? <= self.channel_inbox_max {
            return Ok(true);
        }
        let preferences = self.store.preferences(reader.user, vec![id]).await?;
        Ok(preferences.first().is_some_and(|found| found.watch))
    }

    /// These readers have come, gone or become others: whoever is there follows from now on.
    pub(super) async fn readers_changed(
        &self,
        live: &Arc<Live>,
        users: &[UserId],
    ) -> Result<(), StoreError> {
        self.conversations.readers_changed(live, users).await?;
        for user in users.iter().filter(|user| self.online.has(**user)) {
            self.account_changed(*user);
            let _held = self.conversations.keep(live, *user).await?;
            if live.is_present(*user) {
                self.watch_changed(live, *user).await?;
            }
        }
        Ok(())
    }

    /// Who of them has gone follows no longer: after he was told so.
    pub(super) async fn readers_gone(
        &self,
        live: &Arc<Live>,
        users: &[UserId],
    ) -> Result<(), StoreError> {
        for user in users.iter().filter(|user| self.online.has(**user)) {
            if !live.is_present(*user) {
                self.watch_changed(live, *user).await?;
            }
        }
        Ok(())
    }

    /// A reader decides otherwise about a channel, or has become one.
    pub(crate) async fn watch_changed(
        &self,
        live: &Arc<Live>,
        user: UserId,
    ) -> Result<(), StoreError> {
        if live.id().kind() != ConversationKind::Channel {
            return Ok(());
        }
        let mut readers = self.online.of(user);
        readers.retain(|reader| reader.has_inbox());
        if readers.is_empty() {
            return Ok(());
        }
        let _held = self.conversations.keep(live, user).await?;
        for reader in readers {
            self.admit(&reader, live).await?;
        }
        Ok(())
    }
}
