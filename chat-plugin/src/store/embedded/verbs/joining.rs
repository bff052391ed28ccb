//! [`JoiningStore`] of the embedded store.

use async_trait::async_trait;
use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, InvitationId, UserId};

use super::super::queue::Job;
use super::super::{EmbeddedStore, joining, keys, values};
use crate::domain::audit::AuditLine;
use crate::domain::joining::{Ban, Invitation, JoinRequest, Requested};
use crate::store::{AskToJoin, JoiningStore, StoreError, tables};

#[async_trait]
impl<K: KvEngine> JoiningStore for EmbeddedStore<K> {
    async fn put_invitation(
        &self,
        invitation: Invitation,
        hash: [u8; 16],
    ) -> Result<bool, StoreError> {
        self.ask_to_write(|reply| Job::PutInvitation(Box::new(invitation), hash, reply))
            .await
    }

    async fn invited(&self, hash: [u8; 16]) -> Result<Option<Invitation>, StoreError> {
        self.read(move |engine, _| joining::invited(engine, hash))
            .await
    }

    async fn invitations(
        &self,
        conversation: ConversationId,
    ) -> Result<Vec<Invitation>, StoreError> {
        let rows = self.read(move |engine, _| joining::invitations(engine, conversation));
        Ok(rows.await?.into_iter().map(|row| row.invitation).collect())
    }

    async fn revoke_invitation(
        &self,
        conversation: ConversationId,
        id: InvitationId,
    ) -> Result<bool, StoreError> {
        self.ask(|reply| Job::RevokeInvitation(conversation, id, reply))
            .await
    }

    async fn ask_to_join(&self, asked: AskToJoin) -> Result<Requested, StoreError> {
        self.ask_to_write(|reply| Job::AskToJoin(Box::new(asked), reply))
            .await
    }

    async fn drop_join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
        tell: Vec<UserId>,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError> {
        let told = Box::new((tell, line));
        self.ask(|reply| Job::DropJoinRequest(conversation, user, told, reply))
            .await
    }

    async fn join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<JoinRequest>, StoreError> {
        let key = keys::member(conversation, user);
        self.read_row(tables::JOIN_REQUEST, key, move |row| {
            values::joining::read_join_request(conversation, user, row)
        })
        .await
    }

    async fn join_requests(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<JoinRequest>, StoreError> {
        self.read(move |engine, _| joining::requests(engine, conversation, after, limit))
            .await
    }

    async fn ban(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<Ban>, StoreError> {
        let key = keys::member(conversation, user);
        self.read_row(tables::BAN, key, move |row| {
            values::joining::read_ban(user, row)
        })
        .await
    }

    async fn bans(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError> {
        self.read(move |engine, _| joining::bans(engine, conversation, after, limit))
            .await
    }
}
