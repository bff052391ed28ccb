//! Calls that make many messages gone, and those that hand out and erase what the caller wrote.

use proto::ids::{ConversationId, Seq};
use proto::topics::Target;
use serde::{Deserialize, Serialize};

use super::wire::UserAsked;
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::purge::Range;
use crate::personal::{self, BadProgress, PageError, Progress, Size};
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::membership::Request;
use crate::service::purge::Trimmed;

/// Bytes of lines in one page of an export.
const EXPORT_BYTES: usize = 128 * 1024;
/// What stands around them in a reply: `{"ok":{"lines":[…],"next":"…"}}`.
const AROUND_LINES: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskTrim {
    cid: Target,
    from: Option<Seq>,
    to: Seq,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskPurgeUser {
    cid: Target,
    user: UserAsked,
    from: Option<Seq>,
    to: Option<Seq>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskPage {
    next: Option<String>,
}

#[derive(Serialize)]
pub(super) struct PurgedReply {
    cid: ConversationId,
    seq: Seq,
    messages: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

#[derive(Serialize)]
pub(super) struct ErasedReply {
    conversations: u64,
    messages: u64,
    reactions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ExportReply {
    lines: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl ChatPlugin {
    pub(super) async fn conv_trim(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskTrim,
    ) -> Result<PurgedReply, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let range = Range::between(asked.from.unwrap_or_default(), asked.to, None);
        self.purge(peer, request, cid, range).await
    }

    pub(super) async fn mod_purge_user(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskPurgeUser,
    ) -> Result<PurgedReply, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.service.member_of(peer.actor, cid, &asked.user.0);
        let (from, to) = (asked.from.unwrap_or_default(), asked.to.unwrap_or(Seq::MAX));
        let range = Range::between(from, to, Some(user.await?));
        self.purge(peer, request, cid, range).await
    }

    async fn purge(
        &self,
        peer: &Peer,
        request: Request,
        cid: ConversationId,
        range: Range,
    ) -> Result<PurgedReply, Refusal> {
        let trimmed = self.service.purge(request, cid, range).await?;
        let Trimmed {
            place,
            messages,
            looked_at,
            more,
        } = trimmed;
        Self::charge(peer, crate::plugin::size(looked_at) / LISTED_PER_TOKEN);
        Ok(PurgedReply {
            cid,
            seq: place.seq,
            messages,
            more,
        })
    }

    pub(super) async fn me_export(
        &self,
        peer: &Peer,
        asked: AskPage,
    ) -> Result<ExportReply, Refusal> {
        let from = progress(asked)?;
        let room = room_of(peer).saturating_sub(AROUND_LINES);
        let size = Size {
            page: room.min(EXPORT_BYTES),
            line: room,
        };
        let store = &*self.service.store;
        let page = personal::export(store, peer.actor.user, from, size).await;
        let page = page.map_err(refusal)?;
        Self::charge(peer, crate::plugin::size(page.looked_at) / LISTED_PER_TOKEN);
        Ok(ExportReply {
            lines: page.lines,
            next: page.next.map(|next| next.to_string()),
        })
    }

    pub(super) async fn me_erase(
        &self,
        peer: &Peer,
        asked: AskPage,
    ) -> Result<ErasedReply, Refusal> {
        let from = progress(asked)?;
        let store = &*self.service.store;
        let erased = personal::erase(store, peer.actor.user, from).await;
        let erased = erased.map_err(refusal)?;
        self.service.delivery.catch_up().await;
        let work = erased.looked_at + erased.conversations;
        Self::charge(peer, crate::plugin::size(work) / LISTED_PER_TOKEN);
        Ok(ErasedReply {
            conversations: erased.conversations,
            messages: erased.messages,
            reactions: erased.reactions,
            next: erased.next.map(|next| next.to_string()),
        })
    }
}

fn progress(asked: AskPage) -> Result<Progress, Refusal> {
    let Some(next) = asked.next else {
        return Ok(Progress::default());
    };
    let wrong = |error: BadProgress| refusal(error.into());
    next.parse().map_err(wrong)
}

fn refusal(error: PageError) -> Refusal {
    match error {
        PageError::Progress(error) => Refusal::format(error.to_string()),
        PageError::Store(error) => Refusal::Store(error),
    }
}
