//! Calls about invitations, joining, and requests to join.

use proto::ids::{ConversationId, Handle, InvitationCode, InvitationId, Seq, UserId};
use proto::topics::Target;
use serde::{Deserialize, Serialize};

use super::LISTED_PER_TOKEN;
use super::groups::changed;
use super::members::{AskMember, AskUsers};
use super::wire::{Changed, Get, role_in};
use crate::domain::joining::Invitation;
use crate::domain::member::Role;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::inviting::Offer;
use crate::service::joining::{Joined, Way};
use crate::service::membership::Request;

/// A week.
const EXPIRES_S: u64 = 7 * 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invite {
    cid: Target,
    role: Option<Role>,
    #[serde(default)]
    approval: bool,
    expires_s: Option<u64>,
    #[serde(default)]
    uses: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    cid: Target,
    id: InvitationId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskToJoin {
    code: Option<String>,
    cid: Option<Target>,
}

#[derive(Serialize)]
pub(super) struct InvitationShown {
    id: InvitationId,
    /// Only to its maker, and only once.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<InvitationCode>,
    by: UserId,
    role: Role,
    approval: bool,
    created: u64,
    expires: u64,
    uses_max: u32,
    uses: u32,
}

impl InvitationShown {
    fn new(invitation: &Invitation, code: Option<InvitationCode>) -> Self {
        Self {
            id: invitation.id,
            code,
            by: invitation.by,
            role: invitation.role,
            approval: invitation.approval,
            created: invitation.created_ms,
            expires: invitation.expires_ms,
            uses_max: invitation.uses_max,
            uses: invitation.uses,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Invitations {
    invitations: Vec<InvitationShown>,
}

/// What a stranger is shown, and nothing else.
#[derive(Serialize)]
pub(super) struct Peeked {
    title: String,
    members: usize,
    approval: bool,
}

#[derive(Serialize)]
pub(super) struct JoinReply {
    cid: ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dup: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pending: bool,
}

#[derive(Serialize)]
pub(super) struct JoinRequests {
    requests: Vec<Waiting>,
    more: bool,
}

#[derive(Serialize)]
struct Waiting {
    uid: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    role: Role,
    ts: u64,
}

impl ChatPlugin {
    pub(super) async fn conv_invite(
        &self,
        peer: &Peer,
        request: Request,
        asked: Invite,
    ) -> Result<InvitationShown, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let offer = Offer {
            role: asked.role.unwrap_or_else(|| role_in(cid.kind())),
            approval: asked.approval,
            expires_s: asked.expires_s.unwrap_or(EXPIRES_S),
            uses_max: asked.uses,
        };
        let (invitation, code) = self.service.invite(&request, cid, offer).await?;
        Ok(InvitationShown::new(&invitation, Some(code)))
    }

    pub(super) async fn conv_invitations(
        &self,
        peer: &Peer,
        asked: Get,
    ) -> Result<Invitations, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let all = self.service.invitations(peer.actor, cid).await?;
        Self::charge(peer, all.len() / LISTED_PER_TOKEN);
        let shown = all.iter().map(|one| InvitationShown::new(one, None));
        Ok(Invitations {
            invitations: shown.collect(),
        })
    }

    pub(super) async fn conv_revoke(&self, peer: &Peer, asked: Revoke) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        self.service.revoke(peer.actor, cid, asked.id).await?;
        Ok(Changed::without_entry(cid))
    }

    pub(super) async fn conv_peek(&self, peer: &Peer, asked: AskToJoin) -> Result<Peeked, Refusal> {
        let way = self.way(peer, asked).await?;
        let glimpse = self.service.glimpse(peer.actor, &way).await?;
        Ok(Peeked {
            title: glimpse.title,
            members: glimpse.members,
            approval: glimpse.approval,
        })
    }

    pub(super) async fn conv_join(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskToJoin,
    ) -> Result<JoinReply, Refusal> {
        let way = self.way(peer, asked).await?;
        Ok(match self.service.join(request, &way).await? {
            Joined::In(place) => JoinReply {
                cid: place.conversation,
                seq: Some(place.seq),
                dup: place.duplicate,
                pending: false,
            },
            Joined::Waits(cid) => JoinReply {
                cid,
                seq: None,
                dup: false,
                pending: true,
            },
        })
    }

    pub(super) async fn conv_requests(
        &self,
        peer: &Peer,
        asked: AskUsers,
    ) -> Result<JoinRequests, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let limit = asked.limit(peer);
        let found = self
            .service
            .join_requests(peer.actor, cid, asked.after, limit + 1);
        let mut found = found.await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Self::charge(peer, found.len() / LISTED_PER_TOKEN);
        let mut requests = Vec::with_capacity(found.len());
        for request in found {
            requests.push(Waiting {
                uid: request.user,
                handle: self.service.names.handle(request.user).await?,
                role: request.role,
                ts: request.ts_ms,
            });
        }
        Ok(JoinRequests { requests, more })
    }

    pub(super) async fn conv_approve(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskMember,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.member(peer, cid, &asked.member).await?;
        changed(self.service.approve(request, cid, user)).await
    }

    pub(super) async fn conv_refuse(
        &self,
        peer: &Peer,
        asked: AskMember,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self
            .service
            .anybody(peer.actor, cid, &asked.member.0)
            .await?;
        self.service.refuse_request(peer.actor, cid, user).await?;
        Ok(Changed::without_entry(cid))
    }

    pub(super) async fn conv_withdraw(&self, peer: &Peer, asked: Get) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        self.service.withdraw(peer.actor, cid).await?;
        Ok(Changed::without_entry(cid))
    }

    async fn way(&self, peer: &Peer, asked: AskToJoin) -> Result<Way, Refusal> {
        match (asked.code, asked.cid) {
            (Some(code), None) => Ok(Way::Code(code)),
            (None, Some(cid)) => Ok(Way::Open(self.cid(peer, &cid).await?)),
            _ => Err(Refusal::format("code or cid")),
        }
    }
}
