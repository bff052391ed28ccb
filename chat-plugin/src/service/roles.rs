//! Roles and rights of members, and who owns a conversation.

use proto::ids::{ConversationId, UserId};
use serde_json::json;

use super::membership::{Proposal, Request, present};
use super::{Placed, Refusal, Service, permit};
use crate::domain::entry::{Change, EntryKind};
use crate::domain::member::Role;
use crate::domain::permission::Action;
use crate::domain::rights::Rights;

/// Rights that are said: `None` means those of the role, or all.
pub type RightsSaid = Option<Rights>;

impl Service {
    /// Gives a member another role.
    ///
    /// # Errors
    /// Why not.
    pub async fn set_role(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
        role: Role,
    ) -> Result<Placed, Refusal> {
        self.change_about(&request, id, &[user], |sight, scene| {
            let members = &scene.members;
            let theirs = present(members, user)?;
            permit(id, sight, Action::ChangeRole(theirs.role, role))?;
            let owners = members
                .iter()
                .filter(|member| member.is_present() && member.role == Role::Owner)
                .count();
            if theirs.role == role {
                return Ok(None);
            }
            if theirs.role == Role::Owner && role != Role::Owner && owners == 1 {
                return Err(Refusal::LastOwner);
            }
            self.check_seat(id, scene, (theirs.role, role))?;
            let body = json!({"uid": user, "role": role});
            Ok(Some(Proposal {
                kind: EntryKind::Role,
                body,
                changes: vec![Change::Role { user, role }],
            }))
        })
        .await
    }

    /// Hands the ownership over: the member becomes an owner, and the one who asks an admin, in one entry. Of two at once
    /// the second finds that it is not his any more.
    ///
    /// # Errors
    /// Why not.
    pub async fn transfer(
        &self,
        request: Request,
        id: ConversationId,
        heir: UserId,
    ) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        self.change_about(&request, id, &[heir], |sight, scene| {
            permit(id, sight, Action::Transfer)?;
            let theirs = present(&scene.members, heir)?;
            if heir == user {
                return Ok(None);
            }
            let mut changes = vec![Change::Role {
                user,
                role: Role::Admin,
            }];
            if theirs.role != Role::Owner {
                self.check_seat(id, scene, (theirs.role, Role::Owner))?;
                changes.push(Change::Role {
                    user: heir,
                    role: Role::Owner,
                });
            }
            Ok(Some(Proposal {
                kind: EntryKind::Role,
                body: json!({"uid": heir, "role": Role::Owner, "former": user}),
                changes,
            }))
        })
        .await
    }

    /// Gives a member rights beside the role, or those of the role again.
    ///
    /// # Errors
    /// Why not.
    pub async fn give_rights(
        &self,
        request: Request,
        id: ConversationId,
        user: UserId,
        rights: RightsSaid,
    ) -> Result<Placed, Refusal> {
        self.change_about(&request, id, &[user], |sight, scene| {
            let members = &scene.members;
            let theirs = present(members, user)?;
            let given = rights.unwrap_or_else(|| Rights::of_role(id.kind(), theirs.role));
            permit(id, sight, Action::Grant(theirs.role, given))?;
            if theirs.mask.given == rights {
                return Ok(None);
            }
            Ok(Some(Proposal {
                kind: EntryKind::Role,
                body: json!({"uid": user, "given": said(rights)}),
                changes: vec![Change::Given { user, rights }],
            }))
        })
        .await
    }

    /// Says which of the rights that are given one wants.
    ///
    /// # Errors
    /// Why not.
    pub async fn want_rights(
        &self,
        request: Request,
        id: ConversationId,
        rights: RightsSaid,
    ) -> Result<Placed, Refusal> {
        let user = request.actor.user;
        self.change(&request, id, |sight, _, _| {
            permit(id, sight, Action::Want)?;
            if sight.member.mask.want == rights {
                return Ok(None);
            }
            Ok(Some(Proposal {
                kind: EntryKind::Role,
                body: json!({"uid": user, "want": said(rights)}),
                changes: vec![Change::Want { user, rights }],
            }))
        })
        .await
    }
}

/// As on the wire.
fn said(rights: RightsSaid) -> String {
    rights.map_or_else(|| "default".to_owned(), |rights| rights.to_string())
}
