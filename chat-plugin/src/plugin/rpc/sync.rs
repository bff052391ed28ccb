//! Account sync: asked for by calls, or told on `chat/me/ev/account`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{ConversationId, Handle};
use proto::topics;
use serde_json::value::RawValue;

use super::wire::{AskChanges, ChangedConversation, Changes, Conversation, Prefer};
use super::{LISTED_PER_TOKEN, room_of};
use crate::delivery::reader::{From, Reader};
use crate::domain::entry::Entry;
use crate::plugin::peer::Peer;
use crate::plugin::{ChatPlugin, json_publish};
use crate::render::Line;
use crate::service::history::Overview;
use crate::service::sync::{Item, Position, Synced};
use crate::service::{Actor, Refusal};

/// Conversations in one event, and about how many bytes.
const EVENT_CONVERSATIONS: usize = 50;
const EVENT_BYTES: usize = 64 * 1024;
/// Bytes of one reply.
const REPLY_BYTES: usize = 128 * 1024;
/// Time between two events: it doubles while changes go on.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl ChatPlugin {
    pub(super) async fn sync_changes(
        &self,
        peer: &Peer,
        asked: AskChanges,
    ) -> Result<Changes, Refusal> {
        if asked.next.is_none() {
            let looked_at = self.service.look_at_channels(peer.actor).await?;
            Self::charge(peer, looked_at / LISTED_PER_TOKEN);
        }
        let position = match (asked.ver, asked.next) {
            (Some(_), Some(_)) => return Err(Refusal::format("ver or next, not both")),
            (_, Some(next)) => next.parse()?,
            (version, None) => Position::Since(version.unwrap_or(0)),
        };
        // JSON may lengthen a text.
        let bytes = (room_of(peer) / 2).min(REPLY_BYTES);
        let limit = asked.limit.unwrap_or(100);
        let synced = self
            .service
            .sync(peer.actor, position, (limit, bytes))
            .await?;
        Self::charge(peer, synced.list.len());
        let badge = if asked.badge {
            let (unread, looked_at) = self.service.unread_by_conversation(peer.actor).await?;
            Self::charge(peer, looked_at);
            Some(unread.values().sum())
        } else {
            None
        };
        self.changes(synced, badge).await
    }

    pub(super) async fn conv_prefs(
        &self,
        peer: &Peer,
        asked: Prefer,
    ) -> Result<Conversation, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let overview = self
            .service
            .prefer(peer.actor, cid, |preferences| {
                preferences.muted_until = asked.muted_until.unwrap_or(preferences.muted_until);
                preferences.archived = asked.archived.unwrap_or(preferences.archived);
                preferences.pinned = asked.pinned.unwrap_or(preferences.pinned);
                preferences.watch = asked.watch.unwrap_or(preferences.watch);
            })
            .await?;
        Ok(Conversation::from(overview))
    }

    /// Tells one connection of changes, in the background, until it has ended or unsubscribed.
    pub(in crate::plugin) fn watch_account(&self, reader: &Arc<Reader>) {
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        let reader = Arc::clone(reader);
        self.tracker.spawn(async move {
            let stop = plugin.stop.clone();
            let told = tokio::select! {
                told = plugin.tell_account(&reader) => told,
                () = stop.cancelled() => Ok(()),
            };
            if let Err(error) = told {
                tracing::error!(user = %reader.user, %error, "account changes could not be told");
                reader
                    .client
                    .close(broker::codec::reason::ReasonCode::ServerUnavailable);
            }
        });
    }

    async fn tell_account(&self, reader: &Reader) -> Result<(), Refusal> {
        let actor = Actor {
            user: reader.user,
            device: reader.device,
            from: None,
        };
        let packet = reader.client.packet_bytes_max.map(crate::plugin::size);
        let bytes = packet.map_or(EVENT_BYTES, |packet| (packet / 4).min(EVENT_BYTES));
        let (mut position, mut before) = (Position::Since(0), Position::Since(0));
        let mut unread: Option<HashMap<ConversationId, u64>> = None;
        let (mut more, mut pause) = (false, PAUSE_MIN);
        while let Some(next) = reader.account().next(more).await {
            match next.from {
                From::Version(version) => {
                    self.service.look_at_channels(actor).await?;
                    position = Position::Since(version);
                    unread = None;
                }
                From::LastEvent => position = before,
                From::Here => {}
            }
            before = position;
            let size = (EVENT_CONVERSATIONS, bytes);
            let synced = self.service.sync(actor, position, size).await?;
            position = synced.next;
            more = synced.more;
            let is_first = unread.is_none();
            let counts = match &mut unread {
                Some(counts) => counts,
                None => unread.insert(self.service.unread_by_conversation(actor).await?.0),
            };
            count(counts, &synced.list);
            if !synced.list.is_empty() || is_first {
                let version = match (position, more) {
                    (Position::Since(version), false) => version,
                    _ => 0,
                };
                let badge = (!more).then(|| counts.values().sum());
                let event = self.changes(synced, badge).await?;
                let message = json_publish(topics::ACCOUNT_TOPIC, &event);
                reader
                    .account()
                    .tell(Arc::new(message), version, next.changes);
                reader.client.wake();
                pause = (pause * 2).min(PAUSE_MAX);
            } else {
                pause = PAUSE_MIN;
            }
            if !more {
                // What changes in this time becomes one event.
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    async fn changes(&self, synced: Synced, badge: Option<u64>) -> Result<Changes, Refusal> {
        let Synced { list, next, more } = synced;
        let ver = match next {
            Position::Since(version) if !more => Some(version),
            _ => None,
        };
        let mut changes = Changes {
            ver,
            conversations: Vec::with_capacity(list.len()),
            people: Vec::new(),
            me: false,
            next: more.then(|| next.to_string()),
            badge,
        };
        for item in list {
            match item {
                Item::Member {
                    overview,
                    last,
                    hidden,
                } => {
                    let changed = changed_conversation(*overview, last)?;
                    let changed = ChangedConversation { hidden, ..changed };
                    changes.conversations.push(changed);
                }
                Item::Left { conversation, head } => {
                    changes.conversations.push(ChangedConversation {
                        cid: conversation,
                        head,
                        left: true,
                        conversation: None,
                        last: None,
                        hidden: Vec::new(),
                    });
                }
                Item::Person(contact) => changes.people.push(self.contact(contact).await?),
                Item::Me => changes.me = true,
            }
        }
        Ok(changes)
    }
}

/// Brings the unread messages of these conversations up to date.
fn count(unread: &mut HashMap<ConversationId, u64>, list: &[Item]) {
    let now_ms = crate::clock::now_ms();
    for item in list {
        match item {
            Item::Member { overview, .. } => {
                let id = overview.conversation.id;
                if overview.unread == 0 || overview.preferences.is_muted(now_ms) {
                    unread.remove(&id);
                } else {
                    unread.insert(id, overview.unread);
                }
            }
            Item::Left { conversation, .. } => {
                unread.remove(conversation);
            }
            Item::Person(_) | Item::Me => {}
        }
    }
}

fn changed_conversation(
    overview: Overview,
    last: Option<Box<(Entry, Option<Handle>)>>,
) -> Result<ChangedConversation, Refusal> {
    let last = last.map(|last| {
        let (entry, handle) = *last;
        Line::new(Arc::new(entry), handle).to_json(&[])
    });
    let last = last.map(RawValue::from_string).transpose();
    Ok(ChangedConversation {
        cid: overview.conversation.id,
        head: overview.conversation.head,
        left: false,
        conversation: Some(Box::new(Conversation::from(overview))),
        last: last.map_err(|error| Refusal::format(error.to_string()))?,
        hidden: Vec::new(),
    })
}
