//! Who may not come back: banned users stay out by every way in, until the ban is lifted.

use std::borrow::Cow;

use proto::ids::{ConversationId, ConversationKind, UserId};
use serde_json::json;

use super::membership::{Proposal, Request};
use super::{Actor, Placed, Refusal, Service, permit};
use crate::domain::entry::{Change, EntryKind};
use crate::domain::joining::Ban;
use crate::domain::member::Role;
use crate::domain::permission::Action;

/// Users in one page of the list.
const BANS_MAX: usize = 501;

pub(super) const BANNED: Refusal = Refusal::Forbidden("this user is banned here");

impl Service {
    /// Bans a user: a member is removed with the same entry, anybody else cannot come in.
    ///
    /// # Errors
    /// Why not.
    pub async fn ban(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
    ) -> Result<Placed, Refusal> {
        let is_banned = self.store.ban(id, user).await?.is_some();
        self.change_about(&request, id, &[user], |sight, scene| {
            let mut present = scene.members.iter().filter(|member| member.is_present());
            let theirs = present.find(|member| member.user == user);
            let role = theirs.map_or(Role::Reader, |theirs| theirs.role);
            permit(id, sight, Action::Remove(role))?;
            if id.kind() == ConversationKind::Broadcast {
                return Err(Refusal::Forbidden(
                    "nobody comes to a broadcast list by himself",
                ));
            }
            if is_banned && theirs.is_none() {
                return Ok(None);
            }
            let mut changes = vec![Change::Ban { user }];
            if theirs.is_some() {
                changes.push(Change::Leave { user });
            }
            Ok(Some(Proposal {
                kind: EntryKind::Banned,
                body: json!({"uid": user}),
                changes,
            }))
        })
        .await
    }

    /// Lifts a ban. The user may come back as everybody else.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user is not banned; why not otherwise.
    pub async fn unban(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
    ) -> Result<Placed, Refusal> {
        let is_banned = self.store.ban(id, user).await?.is_some();
        self.change(&request, id, |sight, _, _| {
            permit(id, sight, Action::Remove(Role::Reader))?;
            if !is_banned {
                return Err(Refusal::NotFound(Cow::Borrowed("this user is not banned")));
            }
            Ok(Some(Proposal {
                kind: EntryKind::Unbanned,
                body: json!({"uid": user}),
                changes: vec![Change::Unban { user }],
            }))
        })
        .await
    }

    /// Banned users, in the order of their ids, at most `limit` after `after`, for those who may lift it.
    ///
    /// # Errors
    /// Why not.
    pub async fn bans(
        &self,
        actor: Actor,
        id: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Ban>, Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::Remove(Role::Reader))?;
        let limit = limit.clamp(1, BANS_MAX);
        Ok(self.store.bans(id, after, limit).await?)
    }
}
