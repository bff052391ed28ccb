//! Calls about oneself, and users as calls name them.

use proto::ids::{ConversationId, UserId};
use proto::topics::Target;

use super::wire::{
    AskUser, AudienceAsked, Found, Hit, Me, Named, Nothing, PersonShown, Search, SetHandle, SetMe,
    SetPrivacy, Shown, UserAsked, Users,
};
use crate::domain::conversation::Conversation;
use crate::domain::profile::{Audience, Privacy, ProfileChange};
use crate::domain::user::User;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::people::check_name;
use crate::service::privacy::PrivacyChange;
use crate::service::search::HITS_MAX;

impl ChatPlugin {
    pub(super) async fn me_get(&self, peer: &Peer, _: Nothing) -> Result<Me, Refusal> {
        let user = self.service.me(peer.actor).await?;
        self.profile(peer, user).await
    }

    pub(super) async fn me_set(&self, peer: &Peer, asked: SetMe) -> Result<Me, Refusal> {
        let SetMe {
            name,
            status,
            photo,
            locale,
            tags,
        } = asked;
        let words = |tags: String| tags.split_whitespace().map(str::to_owned).collect();
        let change = ProfileChange {
            status,
            photo,
            locale,
            tags: tags.map(words),
        };
        if name.is_none() && change.is_empty() {
            return Err(Refusal::format("nothing to change"));
        }
        change.check().map_err(Refusal::Format)?;
        if let Some(name) = &name {
            check_name(name)?;
        }
        self.service
            .check_profile(peer.actor, name.as_deref(), &change)
            .await?;
        if let Some(name) = name {
            let set = self.service.set_name(&self.accounts, peer.actor, name);
            set.await?;
        }
        if !change.is_empty() {
            self.service.change_profile(peer.actor, &change).await?;
        }
        self.me_get(peer, Nothing {}).await
    }

    pub(super) async fn me_handle(&self, peer: &Peer, asked: SetHandle) -> Result<Me, Refusal> {
        let changed = self
            .service
            .change_handle(&self.accounts, peer.actor, asked.handle);
        let user = changed.await?;
        self.presence.changed(user.id);
        self.profile(peer, user).await
    }

    async fn profile(&self, peer: &Peer, user: User) -> Result<Me, Refusal> {
        let (unread, looked_at) = self.service.unread_by_conversation(peer.actor).await?;
        Self::charge(peer, looked_at);
        let mut profile = self.service.store.profile(user.id).await?;
        Ok(Me {
            uid: user.id,
            handle: user.handle,
            name: user.name,
            locale: std::mem::take(&mut profile.locale),
            profile: Shown::from(profile),
            unread: unread.values().sum(),
        })
    }

    pub(super) async fn people_get(
        &self,
        peer: &Peer,
        asked: AskUser,
    ) -> Result<PersonShown, Refusal> {
        let person = self.service.person(peer.actor, &asked.user.0).await?;
        Ok(PersonShown {
            deleted: person.user.removed_ms.is_some(),
            person: self.contact(person.contact).await?,
            profile: Shown::from(person.profile),
        })
    }

    pub(super) async fn search_users(&self, peer: &Peer, asked: Search) -> Result<Users, Refusal> {
        let limit = asked.limit.unwrap_or(HITS_MAX);
        let found = self.service.search_users(peer.actor, &asked.q, limit);
        let mut users = Vec::new();
        for uid in found.await? {
            users.push(self.named(uid).await?);
        }
        Ok(Users { users })
    }

    pub(super) async fn search_conversations(
        &self,
        peer: &Peer,
        asked: Search,
    ) -> Result<Found, Refusal> {
        let limit = asked.limit.unwrap_or(HITS_MAX);
        let found = self
            .service
            .search_conversations(peer.actor, &asked.q, limit);
        let hit = |(conversation, members): (Conversation, u64)| Hit {
            cid: conversation.id,
            kind: conversation.id.kind(),
            title: conversation.settings.title,
            description: conversation.settings.description,
            photo: conversation.settings.photo,
            tags: conversation.settings.tags,
            members,
            approval: conversation.settings.approval,
        };
        Ok(Found {
            conversations: found.await?.into_iter().map(hit).collect(),
        })
    }

    pub(super) async fn me_privacy(
        &self,
        peer: &Peer,
        asked: SetPrivacy,
    ) -> Result<Privacy, Refusal> {
        let change = PrivacyChange {
            presence: self.audience(peer, asked.presence).await?,
            last_seen: self.audience(peer, asked.last_seen).await?,
            profile: self.audience(peer, asked.profile).await?,
            search: asked.search,
            delivered: asked.delivered,
            read: asked.read,
        };
        if change == PrivacyChange::default() {
            return self.service.privacy(peer.actor).await;
        }
        let privacy = self.service.set_privacy(peer.actor, &change).await?;
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
        if peer.is_visitor {
            return Err(Refusal::NotFound("no such conversation".into()));
        }
        let other = self.service.user_of(peer.actor, target).await?;
        Ok(ConversationId::direct(peer.actor.user, other))
    }

    pub(super) async fn named(&self, uid: UserId) -> Result<Named, Refusal> {
        Ok(Named::new(uid, self.service.names.profile(uid).await?))
    }
}
