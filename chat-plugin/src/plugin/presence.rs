//! Presence and typing: what clients publish, and who watches whom.

use std::sync::Arc;

use broker::codec::packet::Publish;
use broker::codec::reason::ReasonCode;
use bytestring::ByteString;
use proto::ids::{ConversationId, ConversationKind, UserId};
use proto::payload::{PresenceChoice, TypingState};
use proto::topics::{FilterTopic, Target};

use super::ChatPlugin;
use super::peer::Peer;
use crate::delivery::reader::Reader;
use crate::domain::device::{Device, Subscription};
use crate::domain::permission::Action;
use crate::filter::ContentKind;
use crate::presence::Wish;
use crate::service::{Actor, Refusal, permit};
use crate::store::StoreError;

impl ChatPlugin {
    /// `chat/me/presence`: acked when it is in effect, stored a little later.
    pub(super) async fn take_presence(
        &self,
        peer: &Peer,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        let choice = PresenceChoice::parse(&publish.payload)
            .map_err(|error| Refusal::format(error.to_string()))?;
        Self::check_rate(peer)?;
        let about = (ContentKind::Presence, None);
        self.service
            .check_shown(peer.actor.user, about, &[&choice.text])
            .await?;
        self.presence.choose(peer.actor.user, choice).await?;
        Ok(())
    }

    /// `chat/c/{cid}/typing`, for those who may send there.
    pub(super) async fn take_typing(
        &self,
        peer: &Peer,
        cid: ConversationId,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        let state = TypingState::parse(&publish.payload)
            .map_err(|error| Refusal::format(error.to_string()))?;
        Self::check_rate(peer)?;
        let (_, sight) = self.service.present(peer.actor.user, cid).await?;
        permit(cid, &sight, Action::Send)?;
        if cid.kind() == ConversationKind::Channel {
            return Err(Refusal::Forbidden("a channel does not tell who is typing"));
        }
        self.typing.heard((cid, peer.actor.user), state);
        Ok(())
    }

    /// May this connection subscribe to the presence of whoever that is? Only who may see him learns that he has too many
    /// watchers.
    pub(super) async fn judge_watch(
        &self,
        actor: Actor,
        target: &Target,
        (is_new, device): (bool, &Device),
    ) -> Result<Result<(), ReasonCode>, StoreError> {
        let held = device.subscriptions.iter();
        let watching = held.filter(|held| is_presence(&held.filter)).count();
        let limit = self.service.config.presence_watched_per_connection_max;
        if is_new && watching >= super::size(limit) {
            return Ok(Err(ReasonCode::QuotaExceeded));
        }
        let Some(user) = self.service.watchable(actor, target).await? else {
            return Ok(Err(ReasonCode::NotAuthorized));
        };
        if is_new && !self.presence.has_room(user) {
            return Ok(Err(ReasonCode::QuotaExceeded));
        }
        Ok(Ok(()))
    }

    /// A subscription to the presence of a user takes effect. `is_told`: the state of now is wanted.
    pub(super) async fn watch(
        &self,
        reader: &Arc<Reader>,
        (target, subscription): (&Target, &Subscription),
        is_told: bool,
    ) -> Result<(), StoreError> {
        let actor = Actor {
            user: reader.user,
            device: reader.device,
            from: None,
        };
        let user = match self.service.user_of(actor, target).await {
            Ok(user) => user,
            Err(Refusal::Store(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let topic = ByteString::from(subscription.filter.as_str());
        let key = (reader.client.connection, topic.clone());
        let wish = Wish {
            user,
            topic,
            identifier: subscription.identifier,
            is_told,
        };
        let Some(mut version) = self.presence.watch(reader, wish).await? else {
            return Ok(());
        };
        loop {
            let sight = self.service.may_see_presence(reader.user, user).await?;
            let judged = (sight, version);
            match self.presence.judged((user, &key), judged, is_told) {
                Ok(()) => return Ok(()),
                Err(moved) => version = moved,
            }
        }
    }

    /// The users whom a resumed session watches are watched again, in the background.
    pub(super) fn watch_again(&self, peer: &Arc<Peer>, subscriptions: &[Subscription]) {
        let filters = subscriptions.iter().map(|held| held.filter.clone());
        let filters: Vec<_> = filters.filter(|filter| is_presence(filter)).collect();
        let (false, Some(plugin)) = (filters.is_empty(), self.me.upgrade()) else {
            return;
        };
        let tasks = peer.tasks.clone();
        let peer = Arc::clone(peer);
        self.tracker.spawn(tasks.track_future(async move {
            for filter in filters {
                if let Err(error) = plugin.watch_one_again(&peer, &filter).await {
                    tracing::error!(user = %peer.actor.user, %error, "a user could not be watched again");
                    peer.reader.client.close(ReasonCode::ServerUnavailable);
                    return;
                }
            }
        }));
    }

    async fn watch_one_again(&self, peer: &Peer, filter: &str) -> Result<(), StoreError> {
        // Locked, so that it does not come after an UNSUBSCRIBE.
        let record = peer.record.lock().await;
        let mut held = record.device.subscriptions.iter();
        let subscription = held.find(|held| held.filter == filter);
        if let Some(subscription) = subscription
            && let Ok(FilterTopic::Presence(target)) = FilterTopic::parse(filter)
            && !peer.reader.has_ended()
        {
            self.watch(&peer.reader, (&target, subscription), true)
                .await?;
        }
        Ok(())
    }

    /// What a user shows has changed, to all or to one, or he was removed: those who watch him are judged again. How many
    /// they were.
    pub(super) async fn judge_watchers(
        &self,
        user: UserId,
        to: Option<UserId>,
    ) -> Result<usize, StoreError> {
        let judged = self.presence.privacy_changed(user, to);
        let Some((mut version, watchers)) = judged.filter(|(_, watchers)| !watchers.is_empty())
        else {
            return Ok(0);
        };
        let count = watchers.len();
        for (key, viewer) in watchers {
            loop {
                let sight = self.service.may_see_presence(viewer, user).await?;
                let judged = (sight, version);
                match self.presence.judged((user, &key), judged, false) {
                    Ok(()) => break,
                    Err(moved) => version = moved,
                }
            }
        }
        self.presence.changed(user);
        Ok(count)
    }
}

/// Is this the filter of a subscription to somebody's presence?
fn is_presence(filter: &str) -> bool {
    filter.starts_with("chat/u/")
}
