//! Calls about support cases.

use proto::ids::{ConversationId, Handle, UserId, digest16};
use proto::topics::Target;
use serde::{Deserialize, Serialize};

use super::groups::changed;
use super::wire::{Changed, Conversation, Get, UserAsked};
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::support::{Case, CaseState};
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::membership::Request;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenCase {
    desk: ConversationId,
    #[serde(default)]
    title: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskQueue {
    desk: ConversationId,
    state: Option<CaseState>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HandOn {
    cid: Target,
    to: Option<UserAsked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MakeVisitor {
    desk: ConversationId,
}

#[derive(Serialize)]
pub(super) struct Queue {
    cases: Vec<CaseShown>,
    /// There are more: they begin behind this.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct CaseShown {
    cid: ConversationId,
    title: String,
    #[serde(flatten)]
    case: Case,
}

#[derive(Serialize)]
pub(super) struct Visitor {
    uid: UserId,
    handle: Handle,
    token: String,
}

impl ChatPlugin {
    pub(super) async fn case_open(
        &self,
        peer: &Peer,
        request: Request,
        asked: OpenCase,
    ) -> Result<Conversation, Refusal> {
        let cid = self.service.open_case(request, asked.desk, asked.title);
        let cid = cid.await?;
        self.conversation(peer, cid).await
    }

    pub(super) async fn case_queue(&self, peer: &Peer, asked: AskQueue) -> Result<Queue, Refusal> {
        const CASE_BYTES: usize = 600;
        let limit = asked.limit.unwrap_or(100).min(room_of(peer) / CASE_BYTES);
        let limit = limit.clamp(1, 500);
        let after = asked.after.as_deref().map(read_place).transpose()?;
        let queue = (asked.desk, asked.state.unwrap_or(CaseState::Queued));
        let found = self.service.queue(peer.actor, queue, after, limit + 1);
        let mut found = found.await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Self::charge(peer, found.len() / LISTED_PER_TOKEN);
        let last = found.last().filter(|_| more);
        Ok(Queue {
            next: last.map(|last| format!("{}.{}", last.case.since, last.conversation)),
            cases: found
                .into_iter()
                .map(|listed| CaseShown {
                    cid: listed.conversation,
                    title: listed.title,
                    case: listed.case,
                })
                .collect(),
        })
    }

    pub(super) async fn case_claim(
        &self,
        peer: &Peer,
        request: Request,
        asked: Get,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        changed(self.service.claim(request, cid)).await
    }

    pub(super) async fn case_transfer(
        &self,
        peer: &Peer,
        request: Request,
        asked: HandOn,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let to = match &asked.to {
            Some(to) => Some(self.service.user_of(peer.actor, &to.0).await?),
            None => None,
        };
        changed(self.service.hand_on(request, cid, to)).await
    }

    pub(super) async fn case_close(
        &self,
        peer: &Peer,
        request: Request,
        asked: Get,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        changed(self.service.close_case(request, cid)).await
    }

    /// Makes a user who can do nothing but talk to desks. The same request gets another token of the same one.
    pub(super) async fn case_visitor(
        &self,
        peer: &Peer,
        request: Request,
        asked: MakeVisitor,
    ) -> Result<Visitor, Refusal> {
        self.service.check_host(peer.actor, asked.desk).await?;
        let id = request.id.as_str().as_bytes();
        let digest = digest16(&[b"visitor", peer.actor.user.as_bytes(), id, &request.digest]);
        let (user, token) = self.accounts.make_visitor(digest).await.map_err(refused)?;
        Ok(Visitor {
            uid: user.id,
            handle: user.handle,
            token,
        })
    }
}

/// Where a page of the queue begins: a time and a case.
fn read_place(text: &str) -> Result<(u64, ConversationId), Refusal> {
    let parse = || {
        let (since, cid) = text.split_once('.')?;
        Some((since.parse().ok()?, cid.parse().ok()?))
    };
    parse().ok_or_else(|| Refusal::format("after must be what the page before said"))
}

fn refused(error: crate::accounts::AccountError) -> Refusal {
    match error {
        crate::accounts::AccountError::Store(error) => error.into(),
        crate::accounts::AccountError::TooManyTokens { .. } => {
            Refusal::Limit("as many tokens as one visitor may have")
        }
        other => Refusal::format(other.to_string()),
    }
}
