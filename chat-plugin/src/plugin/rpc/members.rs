//! Calls about what members may do, and about those who may not come back.

use std::borrow::Cow;

use proto::ids::{Handle, UserId};
use proto::topics::Target;
use serde::{Deserialize, Deserializer, Serialize};

use super::groups::changed;
use super::wire::{Changed, Named, UserAsked};
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::rights::Rights;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::membership::Request;
use crate::service::roles::RightsSaid;

/// A member of a conversation, or somebody who is to be kept out of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskMember {
    pub(super) cid: Target,
    pub(super) member: UserAsked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRights {
    cid: Target,
    member: Option<UserAsked>,
    given: Option<RightsAsked>,
    want: Option<RightsAsked>,
}

/// `default`, or words with blanks between them.
struct RightsAsked(RightsSaid);

impl<'de> Deserialize<'de> for RightsAsked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        if text == "default" {
            return Ok(Self(None));
        }
        let rights: Result<Rights, _> = text.parse();
        rights
            .map(|rights| Self(Some(rights)))
            .map_err(serde::de::Error::custom)
    }
}

/// A page of a list of users.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskUsers {
    pub(super) cid: Target,
    pub(super) after: Option<UserId>,
    pub(super) limit: Option<usize>,
}

impl AskUsers {
    /// How many, if each takes some 200 bytes in a packet for this client.
    pub(super) fn limit(&self, peer: &Peer) -> usize {
        self.limit
            .unwrap_or(100)
            .min(room_of(peer) / 200)
            .clamp(1, 500)
    }
}

#[derive(Serialize)]
pub(super) struct Readers {
    readers: Vec<Named>,
    more: bool,
}

#[derive(Serialize)]
pub(super) struct Bans {
    bans: Vec<Banned>,
    more: bool,
}

#[derive(Serialize)]
struct Banned {
    uid: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    by: UserId,
    ts: u64,
}

impl ChatPlugin {
    pub(super) async fn conv_transfer(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskMember,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let heir = self.member(peer, cid, &asked.member).await?;
        changed(self.service.transfer(request, cid, heir)).await
    }

    pub(super) async fn conv_rights(
        &self,
        peer: &Peer,
        request: Request,
        asked: ChangeRights,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let service = &self.service;
        match (asked.member, asked.given, asked.want) {
            (Some(member), Some(given), None) => {
                let user = self.member(peer, cid, &member).await?;
                changed(service.give_rights(request, cid, user, given.0)).await
            }
            (None, None, Some(want)) => changed(service.want_rights(request, cid, want.0)).await,
            _ => Err(Refusal::format("member and given, or want")),
        }
    }

    pub(super) async fn conv_ban(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskMember,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.member(peer, cid, &asked.member).await?;
        changed(self.service.ban(request, cid, user)).await
    }

    pub(super) async fn conv_unban(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskMember,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self
            .service
            .anybody(peer.actor, cid, &asked.member.0)
            .await?;
        changed(self.service.unban(request, cid, user)).await
    }

    pub(super) async fn conv_readers(
        &self,
        peer: &Peer,
        asked: AskUsers,
    ) -> Result<Readers, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let limit = asked.limit(peer);
        let found = self
            .service
            .readers(peer.actor, cid, asked.after, limit + 1);
        let (mut found, looked_at) = found.await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Self::charge(peer, looked_at / LISTED_PER_TOKEN);
        let mut readers = Vec::with_capacity(found.len());
        for reader in found {
            readers.push(self.named(reader.user).await?);
        }
        Ok(Readers { readers, more })
    }

    pub(super) async fn conv_bans(&self, peer: &Peer, asked: AskUsers) -> Result<Bans, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let limit = asked.limit(peer);
        let found = self.service.bans(peer.actor, cid, asked.after, limit + 1);
        let mut found = found.await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Self::charge(peer, found.len() / LISTED_PER_TOKEN);
        let mut bans = Vec::with_capacity(found.len());
        for ban in found {
            bans.push(Banned {
                uid: ban.user,
                handle: self.service.names.handle(ban.user).await?,
                by: ban.by,
                ts: ban.ts_ms,
            });
        }
        Ok(Bans { bans, more })
    }
}
