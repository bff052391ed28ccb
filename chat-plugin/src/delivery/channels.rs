//! Channels: who of their many readers has them in the inbox.
//!
//! A channel with few readers comes to all of them, like a group. One with many comes to those who watch it, by their
//! preference or by a filter of its own (`chat/me/in/{cid}`); everybody else reads `…/log` and the history. It is looked at when a
//! connection subscribes, and when its user comes, goes or decides otherwise; not when others come.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::ids::{ConversationId, ConversationKind, Seq, UserId};

use super::Delivery;
use super::reader::Reader;
use crate::conversations::Live;
use crate::domain::member::Member;
use crate::store::StoreError;

/// Who has come into channels or gone, and has not been looked at since: of those who are connected, each once in a channel. One
/// task looks at those of a channel, one after the other, so that what it finds last holds.
#[derive(Default)]
pub(super) struct Admissions(Mutex<HashMap<ConversationId, BTreeMap<UserId, Seq>>>);

impl Admissions {
    /// Is he the first one of this channel, for whom nobody comes yet?
    fn add(&self, id: ConversationId, (user, behind): (UserId, Seq)) -> bool {
        let mut waiting = self.waiting();
        let is_first = !waiting.contains_key(&id);
        let of_channel = waiting.entry(id).or_default();
        let place = of_channel.entry(user).or_insert(behind);
        *place = (*place).min(behind);
        is_first
    }

    /// The next one of this channel, if there is one; otherwise whoever asked has done his work.
    fn next(&self, id: ConversationId) -> Option<(UserId, Seq)> {
        let mut waiting = self.waiting();
        let next = waiting.get_mut(&id)?.pop_first();
        if next.is_none() {
            waiting.remove(&id);
        }
        next
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ConversationId, BTreeMap<UserId, Seq>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    /// Does the connection get in its inbox what is said here? If this is a channel that comes to it, it follows from now on;
    /// and is told of what was said behind a place, if there is one.
    pub(super) async fn admit(
        &self,
        reader: &Reader,
        live: &Arc<Live>,
        behind: Option<Seq>,
    ) -> Result<bool, StoreError> {
        if !live.is_reader(reader.user) {
            reader.follow(live, None, None); // a group, or one who is more than a reader
            return Ok(true);
        }
        if !live.is_present(reader.user) || !self.comes_to_inbox(reader, live).await? {
            reader.follow(live, None, None);
            return Ok(false);
        }
        let held = self.conversations.follow(live, reader.user).await?;
        reader.follow(live, held, behind);
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

    /// These have come, gone or become others, behind this place. Who of them is connected is looked at behind the feed: that
    /// takes the store, and nobody else waits for it. Nothing is missed meanwhile: what follows begins at the place.
    pub(super) fn readers_changed(
        self: &Arc<Self>,
        live: &Arc<Live>,
        (readers, behind): (&[Member], Seq),
    ) {
        let mut found = false;
        for user in readers.iter().map(|member| member.user) {
            if self.online.has(user) {
                self.account_changed(user);
                found |= self.admissions.add(live.id(), (user, behind));
            }
        }
        if found {
            let (delivery, live) = (Arc::clone(self), Arc::clone(live));
            self.tracker
                .spawn(async move { delivery.admit_all(&live).await });
        }
    }

    /// Looks at those who have come or gone, until nobody is left.
    async fn admit_all(&self, live: &Arc<Live>) {
        while let Some((user, behind)) = self.admissions.next(live.id()) {
            if let Err(error) = self.admit_user(live, user, behind).await {
                let conversation = live.id();
                tracing::error!(%conversation, %user, %error, "a reader is not told of what is said; he gets it when he comes back");
            }
        }
    }

    /// Whoever is there follows from now on, and gets what was said behind this place; who has gone follows no longer.
    async fn admit_user(
        &self,
        live: &Arc<Live>,
        user: UserId,
        behind: Seq,
    ) -> Result<(), StoreError> {
        let _held = self.conversations.keep(live, user).await?;
        for reader in self.online.of(user) {
            if reader.has_inbox() {
                self.admit(&reader, live, Some(behind)).await?;
            }
            if live.head() > behind {
                reader.announce_to_logs(live, live.head());
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
            self.admit(&reader, live, None).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
