//! Calls that make a conversation or change who and what it is.

use proto::ids::{ConversationId, ConversationKind, UserId};

use super::wire::{
    Add, ChangeRole, ChangeSettings, Changed, Conversation, Create, Kind, Leave, Remove, UserAsked,
    role_in,
};
use crate::domain::conversation::Settings;
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
            tags,
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
            Kind::Group | Kind::Channel | Kind::Broadcast => {
                const STRANGER: &str = "a role for somebody who is not among the members";
                let kind = match kind {
                    Kind::Channel => ConversationKind::Channel,
                    Kind::Broadcast => ConversationKind::Broadcast,
                    _ => ConversationKind::Group,
                };
                let made = request.makes(kind);
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
                    .map(|user| (user, role(&user).unwrap_or_else(|| role_in(kind))))
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
                    tags: words(&tags),
                    ..Settings::default()
                };
                let place = self
                    .service
                    .create(request, kind, settings, members)
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
        let role = asked.role.unwrap_or_else(|| role_in(cid.kind()));
        let members = users.into_iter().map(|user| (user, role)).collect();
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
            tags: asked.tags.as_deref().map(words),
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

/// Tags as they are kept: in lower case, in order, each once.
fn words(tags: &str) -> Vec<String> {
    let mut tags: Vec<_> = tags.split_whitespace().map(str::to_lowercase).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

pub(super) async fn changed(
    change: impl Future<Output = Result<Placed, Refusal>>,
) -> Result<Changed, Refusal> {
    change.await.map(Changed::from)
}
