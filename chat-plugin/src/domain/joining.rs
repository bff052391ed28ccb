//! How strangers become members: invitations by code, requests to join; and who may not.

use proto::ids::{ConversationId, InvitationId, UserId};

use super::member::Role;

/// Lets in whoever has one of its codes, of which only hashes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Where to.
    pub conversation: ConversationId,
    /// How it is called by those who manage it.
    pub id: InvitationId,
    /// Who made it. It is worth nothing once this user may not invite any more.
    pub by: UserId,
    /// As what one joins.
    pub role: Role,
    /// Whoever has the code only asks to join.
    pub approval: bool,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// From then on it is worth nothing; 0: never.
    pub expires_ms: u64,
    /// How often it can be used; 0: without end.
    pub uses_max: u32,
    /// How often it was.
    pub uses: u32,
}

impl Invitation {
    /// Can it still be used at this time?
    pub fn is_open(&self, now_ms: u64) -> bool {
        let is_used_up = self.uses_max > 0 && self.uses >= self.uses_max;
        !is_used_up && (self.expires_ms == 0 || now_ms < self.expires_ms)
    }
}

/// Somebody wants to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: Role,
    /// Since when, in ms since 1970.
    pub ts_ms: u64,
}

/// What became of a request to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// It waits for approval.
    Waits,
    /// There are as many as one conversation may have.
    Full,
    /// The invitation that it rests on is worth nothing any more.
    Void,
    /// This user was banned.
    Banned,
    /// This user is a member.
    Member,
}

/// Somebody who may not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub user: UserId,
    /// Who banned him.
    pub by: UserId,
    /// When, in ms since 1970.
    pub ts_ms: u64,
}

/// Invitations of one conversation.
pub const INVITATIONS_MAX: usize = 100;
/// Codes of one invitation: each retry of its making gets one more.
pub const CODES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::ConversationKind;

    #[test]
    fn an_invitation_ends_with_its_time_and_with_its_uses() {
        let open = Invitation {
            conversation: ConversationId::from_parts(ConversationKind::Group, [1; 16]),
            id: InvitationId::from_bytes([2; 16]),
            by: UserId::from_bytes([3; 16]),
            role: Role::Member,
            approval: false,
            created_ms: 1,
            expires_ms: 0,
            uses_max: 0,
            uses: 9,
        };
        assert!(open.is_open(u64::MAX));
        let used_up = Invitation {
            uses_max: 9,
            ..open.clone()
        };
        assert!(!used_up.is_open(1));
        let expires = Invitation {
            expires_ms: 7,
            ..open
        };
        assert!(expires.is_open(6) && !expires.is_open(7));
    }
}
