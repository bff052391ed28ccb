//! How users come into conversations, and who may not.

use async_trait::async_trait;
use proto::ids::{ConversationId, InvitationId, UserId};

use super::{AskToJoin, StoreError};
use crate::domain::audit::AuditLine;
use crate::domain::joining::{Ban, Invitation, JoinRequest, Requested};

/// How users come into conversations, and who may not.
#[async_trait]
pub trait JoiningStore: Send + Sync + 'static {
    /// Makes an invitation with a code of this hash, or gives the one with this id another code. `false`: there are as many
    /// as there may be.
    async fn put_invitation(
        &self,
        invitation: Invitation,
        hash: [u8; 16],
    ) -> Result<bool, StoreError>;

    /// The invitation of which this is the hash of a code, whether or not it can still be used.
    async fn invited(&self, hash: [u8; 16]) -> Result<Option<Invitation>, StoreError>;

    /// The invitations of a conversation: at most [`crate::domain::joining::INVITATIONS_MAX`].
    async fn invitations(
        &self,
        conversation: ConversationId,
    ) -> Result<Vec<Invitation>, StoreError>;

    /// Removes an invitation with its codes. Says whether there was one.
    async fn revoke_invitation(
        &self,
        conversation: ConversationId,
        id: InvitationId,
    ) -> Result<bool, StoreError>;

    /// Takes a request to join; one that waits already stays as it is.
    async fn ask_to_join(&self, asked: AskToJoin) -> Result<Requested, StoreError>;

    /// Ends a request to join; the conversation has changed for those in `tell`. Says whether there was one.
    async fn drop_join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
        tell: Vec<UserId>,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError>;

    /// The request to join of one user.
    async fn join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<JoinRequest>, StoreError>;

    /// Requests to join, in the order of the users, at most `limit` after `after`.
    async fn join_requests(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<JoinRequest>, StoreError>;

    /// The ban of one user. No draft by which that user would join is stored while there is one.
    async fn ban(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<Ban>, StoreError>;

    /// Banned users, in the order of their ids, at most `limit` after `after`.
    async fn bans(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError>;
}
