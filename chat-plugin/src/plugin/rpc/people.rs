//! Calls about oneself, and users as calls name them.

use proto::ids::{ConversationId, UserId};
use proto::topics::Target;

use super::wire::{AudienceAsked, Me, Named, Nothing, SetMe, SetPrivacy, UserAsked};
use crate::domain::profile::{Audience, Privacy};
use crate::domain::user::User;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;

impl ChatPlugin {
    pub(super) async fn me_get(&self, peer: &Peer, _: Nothing) -> Result<Me, Refusal> {
        let user = self.service.me(peer.actor).await?;
        self.profile(peer, user).await
    }

    pub(super) async fn me_set(&self, peer: &Peer, asked: SetMe) -> Result<Me, Refusal> {
        let user = self
            .service
            .set_name(&self.accounts, peer.actor, asked.name)
            .await?;
        self.profile(peer, user).await
    }

    async fn profile(&self, peer: &Peer, user: User) -> Result<Me, Refusal> {
        let (unread, looked_at) = self.service.unread_by_conversation(peer.actor).await?;
        Self::charge(peer, looked_at);
        Ok(Me {
            uid: user.id,
            handle: user.handle,
            name: user.name,
            unread: unread.values().sum(),
        })
    }

    pub(super) async fn me_privacy(
        &self,
        peer: &Peer,
        asked: SetPrivacy,
    ) -> Result<Privacy, Refusal> {
        let presence = self.audience(peer, asked.presence).await?;
        let last_seen = self.audience(peer, asked.last_seen).await?;
        if presence.is_none() && last_seen.is_none() {
            return self.service.privacy(peer.actor).await;
        }
        let set = self.service.set_privacy(peer.actor, presence, last_seen);
        let privacy = set.await?;
        let judged = self.judge_watchers(peer.actor.user, None).await?;
        Self::charge(peer, judged);
        Ok(privacy)
    }

    async fn audience(
        &self,
        peer: &Peer,
        asked: Option<AudienceAsked>,
    ) -> Result<Option<Audience>, Refusal> {
        let Some(AudienceAsked { who, except }) = asked else {
            return Ok(None);
        };
        let except = self.users(peer, &except).await?;
        Ok(Some(Audience { who, except }))
    }

    /// Each user once, in the order of the request.
    pub(super) async fn users(
        &self,
        peer: &Peer,
        asked: &[UserAsked],
    ) -> Result<Vec<UserId>, Refusal> {
        if asked.len() > crate::plugin::size(self.service.config.group_members_max) {
            return Err(Refusal::Limit("too many members"));
        }
        Self::charge(peer, asked.len());
        let mut users: Vec<UserId> = Vec::with_capacity(asked.len());
        for one in asked {
            let user = self.service.user_of(peer.actor, &one.0).await?;
            if !users.contains(&user) {
                users.push(user);
            }
        }
        Ok(users)
    }

    /// The conversation that a target names: of a user, the direct one.
    pub(super) async fn cid(
        &self,
        peer: &Peer,
        target: &Target,
    ) -> Result<ConversationId, Refusal> {
        if let Target::Conversation(cid) = target {
            return Ok(*cid);
        }
        let other = self.service.user_of(peer.actor, target).await?;
        Ok(ConversationId::direct(peer.actor.user, other))
    }

    pub(super) async fn named(&self, uid: UserId) -> Result<Named, Refusal> {
        Ok(Named::new(uid, self.service.names.profile(uid).await?))
    }
}
