//! Channels: a few write, and very many read, who are members one of many ([`Role::is_one_of_many`]).

use proto::ids::{ConversationId, ConversationKind, UserId};

use super::{Actor, Refusal, Service, permit};
use crate::domain::entry::{Change, Draft};
use crate::domain::member::{Member, Role};
use crate::domain::permission::Action;
use crate::store::StoreError;

/// Readers in one page of the list.
const READERS_MAX: usize = 501;
/// Readers that one read of the store looks at.
const READERS_AT_ONCE: usize = 256;
/// Channels that one read of the store looks at.
const LOOK_AT_ONCE: usize = 256;

impl Service {
    /// Readers of a channel, or those to whom a broadcast list goes, in the order of their ids, at most `limit` after `after`:
    /// for those who may remove them. And how many were looked at, those who have gone included.
    ///
    /// # Errors
    /// Why not.
    pub async fn readers(
        &self,
        actor: Actor,
        id: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<(Vec<Member>, usize), Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::Remove(Role::Reader))?;
        let limit = limit.clamp(1, READERS_MAX);
        let (mut readers, mut looked_at, mut after) = (Vec::new(), 0, after);
        loop {
            let found = self.store.readers(id, after, READERS_AT_ONCE).await?;
            let is_last = found.len() < READERS_AT_ONCE;
            looked_at += found.len();
            after = found.last().map(|last| last.user);
            readers.extend(found.into_iter().filter(Member::is_present));
            if is_last || readers.len() >= limit {
                readers.truncate(limit);
                return Ok((readers, looked_at));
            }
        }
    }

    /// What was said in the channels that a user reads since his devices were told of them is told by the next sync. Says how
    /// many were looked at.
    ///
    /// # Errors
    /// The store's.
    pub async fn look_at_channels(&self, actor: Actor) -> Result<usize, StoreError> {
        let (mut looked_at, mut after) = (0, None);
        loop {
            let behind = self.store.channels_behind(actor.user, after, LOOK_AT_ONCE);
            let behind = behind.await?;
            looked_at += behind.looked_at;
            if !behind.found.is_empty() {
                self.store.note_changed(actor.user, behind.found).await?;
            }
            if behind.next.is_none() {
                return Ok(looked_at);
            }
            after = behind.next;
        }
    }

    /// How many readers there are; `None` where there are none of their own kind.
    pub(super) async fn readers_shown(&self, id: ConversationId) -> Result<Option<u64>, Refusal> {
        if !Role::Reader.is_one_of_many(id.kind()) {
            return Ok(None);
        }
        Ok(Some(self.store.reader_count(id).await?))
    }

    /// Who has an ack must find what it tells of: the feed may be behind.
    pub(super) fn readers_changed(&self, draft: &Draft) {
        if draft.conversation.kind() != ConversationKind::Channel {
            return;
        }
        let users = draft.changes.iter().filter_map(|change| match change {
            Change::Join { user, .. }
            | Change::Leave { user }
            | Change::Role { user, .. }
            | Change::Given { user, .. }
            | Change::Want { user, .. } => Some(*user),
            _ => None,
        });
        let users: Vec<UserId> = users.collect();
        if let Some(live) = self.conversations.in_memory(draft.conversation) {
            live.readers_changed(&users);
        }
    }
}
