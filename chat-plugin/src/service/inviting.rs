//! Invitations: codes that let in whoever has them. Only hashes of them are kept.

use std::borrow::Cow;

use proto::ids::{ConversationId, InvitationCode, InvitationId, digest16};

use super::membership::Request;
use super::{Actor, Refusal, Service, permit};
use crate::domain::joining::Invitation;
use crate::domain::member::Role;
use crate::domain::permission::Action;
use crate::store::StoreError;

/// Longest life of an invitation that ends, in seconds: ten years.
const EXPIRES_S_MAX: u64 = 10 * 365 * 24 * 3600;

/// No invitation, or none that is worth anything: which, nobody is told.
pub(super) const MISS: Refusal = Refusal::NotFound(Cow::Borrowed("no such invitation"));

/// What an invitation offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// As what one joins; below the maker's own role.
    pub role: Role,
    /// Whoever has the code only asks to join.
    pub approval: bool,
    /// Seconds from now, at most ten years; 0: for ever.
    pub expires_s: u64,
    /// How often it can be used; 0: without end.
    pub uses_max: u32,
}

impl Service {
    /// Makes an invitation, and says its code, which nobody can be told again. The same request gets another code of the
    /// same invitation: it may be that the first one did not arrive.
    ///
    /// # Errors
    /// Why not.
    pub async fn invite(
        &self,
        request: &Request,
        conversation: ConversationId,
        offer: Offer,
    ) -> Result<(Invitation, InvitationCode), Refusal> {
        let user = request.actor.user;
        let (_, sight) = self.present(user, conversation).await?;
        permit(conversation, &sight, Action::Admit)?;
        permit(conversation, &sight, Action::Add(offer.role))?;
        if offer.expires_s > EXPIRES_S_MAX {
            return Err(Refusal::format("an invitation lasts at most ten years"));
        }
        self.rates.invitations.take(user)?;
        let now_ms = crate::clock::now_ms();
        let id = digest16(&[
            b"invite",
            user.as_bytes(),
            request.id.as_str().as_bytes(),
            &request.digest,
        ]);
        let invitation = Invitation {
            conversation,
            id: InvitationId::from_bytes(id),
            by: user,
            role: offer.role,
            approval: offer.approval,
            created_ms: now_ms,
            expires_ms: match offer.expires_s {
                0 => 0,
                seconds => now_ms.saturating_add(seconds * 1_000),
            },
            uses_max: offer.uses_max,
            uses: 0,
        };
        let code = new_code()?;
        let put = self.store.put_invitation(invitation.clone(), code.hash());
        if !put.await? {
            return Err(Refusal::Limit("as many invitations as there may be"));
        }
        // The same request again: as the first one made it, and as it was used since.
        let stored = self.store.invited(code.hash()).await?;
        Ok((stored.unwrap_or(invitation), code))
    }

    /// The invitations of a conversation, for those who may invite.
    ///
    /// # Errors
    /// Why not.
    pub async fn invitations(
        &self,
        actor: Actor,
        id: ConversationId,
    ) -> Result<Vec<Invitation>, Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::Admit)?;
        Ok(self.store.invitations(id).await?)
    }

    /// Ends an invitation: one's own, or as an admin any. Done again it changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn revoke(
        &self,
        actor: Actor,
        conversation: ConversationId,
        id: InvitationId,
    ) -> Result<(), Refusal> {
        let (_, sight) = self.present(actor.user, conversation).await?;
        let all = self.store.invitations(conversation).await?;
        let is_own = |invitation: &Invitation| invitation.id == id && invitation.by == actor.user;
        if !all.iter().any(is_own) {
            permit(conversation, &sight, Action::Admit)?;
            if sight.member.role < Role::Admin && all.iter().any(|one| one.id == id) {
                return Err(Refusal::Forbidden("somebody else made this invitation"));
            }
        }
        self.store.revoke_invitation(conversation, id).await?;
        Ok(())
    }

    /// The invitation of a code, worth something or not, and the hash of the code.
    pub(super) async fn invited(&self, code: &str) -> Result<(Invitation, [u8; 16]), Refusal> {
        let code: InvitationCode = code.parse().map_err(|_| MISS)?;
        let invitation = self.store.invited(code.hash()).await?;
        Ok((invitation.ok_or(MISS)?, code.hash()))
    }
}

fn new_code() -> Result<InvitationCode, Refusal> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| StoreError::Unavailable(format!("no randomness: {error}")))?;
    Ok(InvitationCode::from_bytes(random))
}
