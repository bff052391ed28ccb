//! Calls that make a conversation or change who and what it is.

use proto::ids::{ConversationId, UserId};

use super::wire::{
    Add, ChangeRole, ChangeSettings, Changed, Conversation, Create, Kind, Leave, Remove, UserAsked,
};
use crate::domain::conversation::Settings;
use crate::domain::member::Role;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::membership::Request;
use crate::service::settings::SettingsChange;
use crate::service::{Placed, Refusal};

impl ChatPlugin {
    pub(super) async fn conv_create(
        &self,
        peer: &Peer,
        request: Request,
        asked: Create,
    ) -> Result<Conversation, Refusal> {
        let Create {
            kind,
            title,
            description,
            history,
            ttl_s,
            photo,
            public,
            approval,
            slow_s,
            desk,
            members,
            roles,
        } = asked;
        match kind {
            Kind::Direct => {
                let [other] = members.as_slice() else {
                    return Err(Refusal::format(
                        "a direct conversation has one other member",
                    ));
                };
                if title.is_some() || !roles.is_empty() {
                    return Err(Refusal::format(
                        "a direct conversation has neither title nor roles",
                    ));
                }
                let other = self.service.user_of(peer.actor, &other.0).await?;
                let cid = self.service.direct(peer.actor, other).await?;
                match self.conversation(peer, cid).await {
                    Err(Refusal::NotFound(_)) => self.unused(peer.actor.user, other, cid).await,
                    found => found,
                }
            }
            Kind::Group => {
                const STRANGER: &str = "a role for somebody who is not among the members";
                let made = request.group();
                if self.service.done_before(&request, made).await?.is_some() {
                    return self.conversation(peer, made).await;
                }
                if roles.len() > members.len() {
                    return Err(Refusal::format(STRANGER));
                }
                let members = self.users(peer, &members).await?;
                let mut with_roles = Vec::new();
                for (user, role) in roles {
                    with_roles.push((self.service.user_of(peer.actor, &user.0).await?, role));
                }
                if with_roles.iter().any(|(user, _)| !members.contains(user)) {
                    return Err(Refusal::format(STRANGER));
                }
                let role = |user: &UserId| {
                    with_roles
                        .iter()
                        .find(|(known, _)| known == user)
                        .map(|(_, role)| *role)
                };
                let members = members
                    .into_iter()
                    .map(|user| (user, role(&user).unwrap_or(Role::Member)))
                    .collect();
                let settings = Settings {
                    title: title.unwrap_or_default(),
                    description,
                    history,
                    ttl_s,
                    photo,
                    public,
                    approval,
                    slow_s,
                    desk,
                    ..Settings::default()
                };
                let place = self
                    .service
                    .create_group(request, settings, members)
                    .await?;
                self.conversation(peer, place.conversation).await
            }
        }
    }

    pub(super) async fn conv_add(
        &self,
        peer: &Peer,
        request: Request,
        asked: Add,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        if let Some(place) = self.service.done_before(&request, cid).await? {
            return Ok(place.into());
        }
        let users = self.users(peer, &asked.members).await?;
        let members = users.into_iter().map(|user| (user, asked.role)).collect();
        let added = self
            .service
            .add_members(request, cid, members, asked.history);
        changed(added).await
    }

    pub(super) async fn conv_remove(
        &self,
        peer: &Peer,
        request: Request,
        asked: Remove,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.member(peer, cid, &asked.member).await?;
        changed(self.service.remove_member(request, cid, user)).await
    }

    pub(super) async fn conv_leave(
        &self,
        peer: &Peer,
        request: Request,
        asked: Leave,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let heir = match &asked.owner {
            Some(heir) => Some(self.member(peer, cid, heir).await?),
            None => None,
        };
        changed(self.service.leave(request, cid, heir)).await
    }

    pub(super) async fn conv_role(
        &self,
        peer: &Peer,
        request: Request,
        asked: ChangeRole,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let user = self.member(peer, cid, &asked.member).await?;
        changed(self.service.set_role(request, cid, user, asked.role)).await
    }

    pub(super) async fn conv_settings(
        &self,
        peer: &Peer,
        request: Request,
        asked: ChangeSettings,
    ) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let change = SettingsChange {
            title: asked.title,
            description: asked.description,
            history: asked.history,
            ttl_s: asked.ttl_s,
            photo: asked.photo,
            public: asked.public,
            approval: asked.approval,
            slow_s: asked.slow_s,
            closed: asked.closed,
            desk: asked.desk,
            retention_days: asked.retention_days,
            retention_messages: asked.retention_messages,
        };
        let retains = change.retention_days.is_some() || change.retention_messages.is_some();
        let changed = changed(self.service.change_settings(request, cid, change)).await?;
        if retains {
            self.retain_soon(cid);
        }
        Ok(changed)
    }

    pub(super) async fn member(
        &self,
        peer: &Peer,
        cid: ConversationId,
        member: &UserAsked,
    ) -> Result<UserId, Refusal> {
        self.service.member_of(peer.actor, cid, &member.0).await
    }
}

pub(super) async fn changed(
    change: impl Future<Output = Result<Placed, Refusal>>,
) -> Result<Changed, Refusal> {
    change.await.map(Changed::from)
}
