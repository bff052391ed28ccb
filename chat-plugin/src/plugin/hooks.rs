//! What the broker asks and tells.

use std::sync::Arc;

use async_trait::async_trait;
use broker::acl::Who;
use broker::codec::packet::{PacketId, Publish, SubscribeFilter};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use broker::hooks::{
    Access, AuthenticateRequest, ClientInfo, Credit, Delivery as Delivered, DeliveryOutcome,
    DeliveryRef, Hooks, Identity, PublishAnswer, Room, SessionEnd, SessionOpen, SessionRestored,
    Ticket,
};
use broker::scram::Credential;
use proto::ids::DeviceId;

use super::ChatPlugin;
use super::peer::Item;
use crate::accounts::AuthError;
use crate::domain::user::User;
use crate::store::Health;

#[async_trait]
impl Hooks for ChatPlugin {
    fn root(&self) -> &'static str {
        proto::topics::ROOT
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<Identity, ReasonCode> {
        if matches!(self.service.store.health(), Health::Poisoned(_)) {
            return Err(ReasonCode::ServerUnavailable);
        }
        let login = self.accounts.login(&request).await;
        let user = login.map_err(|error| refusal(&error, ReasonCode::BadUserNameOrPassword))?;
        let token = self.accounts.token_of(&request).await;
        let token = token.map_err(|error| refusal(&error, ReasonCode::BadUserNameOrPassword))?;
        let device = DeviceId::new(user.id, &request.client_id);
        match token {
            Some(token) => self.tokens.insert(device, token),
            None => drop(self.tokens.remove(&device)),
        }
        Ok(identity(&user))
    }

    async fn scram_credential(
        &self,
        name: &str,
        request: &AuthenticateRequest,
    ) -> Result<Option<Credential>, ReasonCode> {
        if !self.accounts.offers_scram() {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        if matches!(self.service.store.health(), Health::Poisoned(_)) {
            return Err(ReasonCode::ServerUnavailable);
        }
        let found = self.accounts.scram_credential(name, request).await;
        found.map_err(|error| refusal(&error, ReasonCode::NotAuthorized))
    }

    async fn scram_login(
        &self,
        name: &str,
        request: &AuthenticateRequest,
        proved: Option<&Credential>,
    ) -> Result<Identity, ReasonCode> {
        let login = self.accounts.scram_login(name, request, proved).await;
        let user = login.map_err(|error| refusal(&error, ReasonCode::NotAuthorized))?;
        Ok(identity(&user))
    }

    fn authorize(&self, _who: Who<'_>, _access: Access, _topic: &str) -> bool {
        self.ordinary_topics_open
    }

    async fn on_connected(
        &self,
        client: &Arc<ClientInfo>,
        open: SessionOpen,
    ) -> Result<SessionRestored, ReasonCode> {
        self.open(client, open).await.map_err(|error| {
            tracing::error!(client = ?client, %error, "a session could not be opened");
            ReasonCode::ServerUnavailable
        })
    }

    fn on_publish(
        &self,
        client: &Arc<ClientInfo>,
        batch: Vec<(Publish, Ticket<PublishAnswer>)>,
    ) -> Credit {
        let items = batch
            .into_iter()
            .map(|(publish, ticket)| Item::Publish(publish, ticket));
        self.queue(client, items);
        Credit::FULL
    }

    fn on_release(&self, client: &Arc<ClientInfo>, packet_id: PacketId, ticket: Ticket<bool>) {
        let (Some(peer), Some(plugin)) = (self.peer(client), self.me.upgrade()) else {
            return;
        };
        if !peer.sessions.exchanges {
            ticket.answer(false);
            return;
        }
        let tasks = peer.tasks.clone();
        self.tracker.spawn(tasks.track_future(async move {
            match plugin
                .service
                .store
                .end_exchange(peer.actor.device, packet_id.get())
                .await
            {
                Ok(existed) => ticket.answer(existed),
                Err(error) => {
                    tracing::error!(%error, "the end of a QoS 2 exchange could not be made durable");
                }
            }
        }));
    }

    fn on_subscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<SubscribeFilter>,
        identifier: Option<u32>,
        ticket: Ticket<Vec<ReasonCode>>,
    ) {
        self.queue(client, [Item::Subscribe(filters, identifier, ticket)]);
    }

    fn on_unsubscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<TopicFilter>,
        ticket: Ticket<Vec<ReasonCode>>,
    ) {
        self.queue(client, [Item::Unsubscribe(filters, ticket)]);
    }

    fn pull(&self, client: &Arc<ClientInfo>, room: Room) -> Vec<Delivered> {
        let Some(peer) = self.peer(client) else {
            return Vec::new();
        };
        self.delivery.pull(&peer.reader, room)
    }

    fn on_delivered(
        &self,
        client: &Arc<ClientInfo>,
        outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
    ) {
        if let Some(peer) = self.peer(client) {
            self.delivery.delivered(&peer.reader, &outcomes);
        }
    }

    fn on_disconnected(&self, client: &Arc<ClientInfo>, end: SessionEnd) {
        self.close(client, end);
    }

    async fn on_session_dropped(&self, user: &str, client_id: &str) -> Result<bool, ReasonCode> {
        let Ok(user) = user.parse() else {
            return Ok(false);
        };
        let dropped = self.drop_session(user, client_id).await;
        dropped.map_err(|error| {
            tracing::error!(%error, "a session could not be dropped");
            ReasonCode::ServerUnavailable
        })
    }

    async fn on_shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.progress.finish().await;
        self.presence.finish().await;
        if let Err(error) = self.service.store.flush().await {
            tracing::error!(%error, "cursors could not be flushed at shutdown");
        }
    }
}

/// Who an account is to the broker.
fn identity(user: &User) -> Identity {
    Identity {
        user: user.id.to_string().into(),
        name: user.handle.as_str().into(),
    }
}

/// What CONNACK says of a login that failed; `unproved` if the client proved to be nobody.
fn refusal(error: &AuthError, unproved: ReasonCode) -> ReasonCode {
    match error {
        AuthError::Incomplete | AuthError::BadCredentials => unproved,
        AuthError::Throttled { .. } => ReasonCode::ConnectionRateExceeded,
        AuthError::Busy => ReasonCode::ServerBusy,
        error => {
            tracing::error!(%error, "a login could not be checked");
            ReasonCode::ServerUnavailable
        }
    }
}
