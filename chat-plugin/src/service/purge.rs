//! Making messages gone many at a time: by moderators, by retention.

use proto::ids::{ConversationId, Seq, UserId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::acts::forgotten;
use super::membership::{Proposal, Request};
use super::{Placed, Refusal, Service, permit};
use crate::domain::conversation::Conversation;
use crate::domain::entry::EntryKind;
use crate::domain::permission::Action;
use crate::domain::purge::{Purge, Purged, Retention};
use crate::store::{ChatStore, PageRange, StoreError};

/// What is to be purged from a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First place.
    pub from: Seq,
    /// Last place.
    pub to: Seq,
    /// Only messages of this user.
    pub by: Option<UserId>,
}

impl Range {
    fn purge(&self) -> Purge {
        let Self { from, to, by } = *self;
        match by {
            Some(by) => Purge::Written {
                by,
                from,
                to,
                since_ms: 0,
                until_ms: u64::MAX,
            },
            None => Purge::Range { from, to },
        }
    }
}

impl Service {
    /// Makes the messages of a range gone for everybody, and tells of it by one entry; says how many there were. A range
    /// that holds none leaves no entry.
    ///
    /// # Errors
    /// Why not.
    pub async fn purge(
        &self,
        request: Request,
        id: ConversationId,
        range: Range,
    ) -> Result<(Placed, u64), Refusal> {
        let action = match range.by {
            Some(_) => Action::DeleteOthers,
            None => Action::Trim,
        };
        if range.from > range.to {
            return Err(Refusal::format("the range ends before it begins"));
        }
        let (live, sight) = self.present(request.actor.user, id).await?;
        if let Some(place) = self.done_before(&request, id).await? {
            return Ok((place, self.purged_at(id, place.seq).await?));
        }
        permit(id, &sight, action)?;
        let purged = purge_all(&*self.store, id, range.purge()).await?;
        let messages = purged.messages;
        let body = match range.by {
            Some(uid) => {
                json!({"from": range.from, "to": range.to, "uid": uid, "messages": messages})
            }
            None => json!({"from": range.from, "to": range.to, "messages": messages}),
        };
        let place = self
            .change(&request, id, |_, _, _| {
                // The right was judged before: what was done with it is told in any case.
                Ok((messages > 0).then(|| Proposal {
                    kind: EntryKind::Purged,
                    body: body.clone(),
                    changes: Vec::new(),
                }))
            })
            .await?;
        if messages > 0 {
            forgotten(&live, place.seq).await;
        }
        Ok((place, messages))
    }

    /// What an entry tells of a purge that was done before.
    async fn purged_at(&self, id: ConversationId, seq: Seq) -> Result<u64, Refusal> {
        let range = PageRange {
            from: seq,
            to: seq,
            newest: false,
            limit: 1,
            bytes: 1,
            as_of: Seq::MAX,
        };
        let entry = self.store.page(id, range).await?.pop();
        let told = entry.filter(|entry| entry.kind == EntryKind::Purged);
        let body = told.and_then(|entry| serde_json::from_slice(&entry.body).ok());
        let body: serde_json::Value = body.unwrap_or_default();
        let messages = body.get("messages").and_then(serde_json::Value::as_u64);
        Ok(messages.unwrap_or_default())
    }

    /// Lets go of the messages of all conversations that are over their limits; says how many there were.
    ///
    /// # Errors
    /// The store's.
    pub async fn retain(&self, stop: &CancellationToken) -> Result<u64, StoreError> {
        const PAGE: usize = 256;
        let (mut messages, mut after) = (0, None);
        loop {
            let page = self.store.all_conversations(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(messages);
            };
            after = Some(last.id);
            for conversation in &page {
                if stop.is_cancelled() {
                    return Ok(messages);
                }
                messages += self.retain_in(conversation).await?;
            }
        }
    }

    /// The same in one conversation.
    ///
    /// # Errors
    /// The store's.
    pub async fn retain_in(&self, conversation: &Conversation) -> Result<u64, StoreError> {
        let settings = &conversation.settings;
        let days = stricter(self.config.retention_days, settings.retention_days);
        let newest = stricter(self.config.retention_messages, settings.retention_messages);
        let Some(retention) = Retention::of(crate::clock::now_ms(), days, newest) else {
            return Ok(0);
        };
        let purge = Purge::Old(retention);
        Ok(purge_all(&*self.store, conversation.id, purge)
            .await?
            .messages)
    }
}

/// All steps of a purge.
pub(crate) async fn purge_all(
    store: &dyn ChatStore,
    id: ConversationId,
    mut purge: Purge,
) -> Result<Purged, StoreError> {
    let mut sum = Purged::default();
    loop {
        let step = store.purge(id, purge).await?;
        sum.messages += step.messages;
        sum.reactions += step.reactions;
        match step.next {
            Some(next) => purge = purge.from(next),
            None => return Ok(sum),
        }
    }
}

/// Of two limits, 0 being none.
fn stricter(a: u32, b: u32) -> u32 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_never_the_stricter_one() {
        assert_eq!(stricter(0, 0), 0);
        assert_eq!(stricter(0, 7), 7);
        assert_eq!(stricter(7, 0), 7);
        assert_eq!(stricter(7, 3), 3);
    }
}
