//! Presence and typing on their way to one connection: state, so only the newest of each waits, at QoS 0.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use broker::codec::packet::{Publish, Qos};
use broker::hooks::Delivery;
use bytes::Bytes;
use bytestring::ByteString;
use proto::ids::{ConversationId, UserId};
use proto::topics::typing_topic;

use super::pull::Out;
use super::{Matched, Options, Reader, Reference};
use crate::delivery::subscriptions::Filters;
use crate::plugin::json_message;

/// Users who are typing somewhere, of whom one connection is told at once. Of more it is not told: it does not read.
const TYPING_WAITING_MAX: usize = 256;

/// What a connection wants to know of presence and typing, and what waits for it.
#[derive(Default)]
pub(super) struct Hints {
    watches: HashMap<ByteString, Watch>,
    /// Watches with something to tell.
    watch_turn: VecDeque<ByteString>,
    typing: Filters<ConversationId>,
    typing_events: HashMap<(ConversationId, UserId), Bytes>,
    typing_turn: VecDeque<(ConversationId, UserId)>,
}

/// One subscription to the presence of a user.
struct Watch {
    user: UserId,
    identifier: Option<u32>,
    /// The state that was handed out last, or waits.
    newest: Option<Bytes>,
    is_waiting: bool,
    /// What goes out next is the state at the beginning, not a change of it.
    is_first: bool,
}

impl Reader {
    /// Watches a user under this topic, from anew. `is_told`: the state of now will be told, like a retained message.
    pub(crate) fn watch(
        &self,
        topic: ByteString,
        user: UserId,
        identifier: Option<u32>,
        is_told: bool,
    ) {
        let mut state = self.state();
        let before = state.hints.watches.get(&topic);
        let watch = Watch {
            user,
            identifier,
            newest: None,
            is_waiting: before.is_some_and(|watch| watch.is_waiting), // it has its place in the turn
            is_first: is_told,
        };
        state.hints.watches.insert(topic, watch);
    }

    /// The same user is watched under this topic as before, and nothing that waits is lost. `false`: he is not watched.
    pub(crate) fn watch_on(&self, topic: &str, user: UserId, identifier: Option<u32>) -> bool {
        let mut state = self.state();
        let watch = state.hints.watches.get_mut(topic);
        let Some(watch) = watch.filter(|watch| watch.user == user) else {
            return false;
        };
        watch.identifier = identifier;
        true
    }

    /// Watches no longer under this topic; whom it was.
    pub(crate) fn unwatch(&self, topic: &str) -> Option<UserId> {
        let mut state = self.state();
        let watch = state.hints.watches.remove(topic)?;
        if watch.is_waiting {
            state.hints.watch_turn.retain(|waiting| waiting != topic);
        }
        Some(watch.user)
    }

    /// Everybody who is watched, and under which topics.
    pub(crate) fn watched(&self) -> Vec<(ByteString, UserId)> {
        let Some(state) = self.made() else {
            return Vec::new();
        };
        let watches = state.hints.watches.iter();
        let pairs = watches.map(|(topic, watch)| (topic.clone(), watch.user));
        pairs.collect()
    }

    /// The state of a user who is watched under this topic. `false`: it is not watched, or known to be so.
    pub(crate) fn presence(&self, topic: &ByteString, state: &Bytes) -> bool {
        let mut guard = self.state();
        let is_new = guard.hints.tell(topic, state);
        drop(guard);
        if is_new {
            self.client.wake();
        }
        is_new
    }

    /// The user is not to be seen any more: whoever was told of him is told this last state, and others nothing.
    pub(crate) fn hide_presence(&self, topic: &ByteString, state: &Bytes) -> bool {
        let told = {
            let state = self.state();
            let watch = state.hints.watches.get(topic);
            watch.is_some_and(|watch| watch.newest.is_some())
        };
        told && self.presence(topic, state)
    }

    /// The user is offline for this reader, whatever he does: told to whoever was told of him or waits for the first state,
    /// once, so that not even the time of a change shows.
    pub(crate) fn offline_presence(&self, topic: &ByteString, state: &Bytes) -> bool {
        let told = {
            let state = self.state();
            let watch = state.hints.watches.get(topic);
            watch.is_some_and(|watch| watch.is_first || watch.newest.is_some())
        };
        told && self.presence(topic, state)
    }

    /// Subscribes to who is typing. `None`: in all conversations.
    pub(crate) fn subscribe_typing(&self, conversation: Option<ConversationId>, options: Options) {
        self.state().hints.typing.insert(conversation, options);
    }

    pub(crate) fn unsubscribe_typing(&self, conversation: Option<ConversationId>) -> bool {
        self.state().hints.typing.remove(conversation.as_ref())
    }

    pub(crate) fn wants_typing(&self, conversation: ConversationId) -> bool {
        self.made()
            .is_some_and(|state| state.hints.typing.matched(&conversation).is_some())
    }

    /// What somebody does in a conversation; it takes the place of what waits of the same user there.
    pub(crate) fn typing(&self, (conversation, user): (ConversationId, UserId), event: Bytes) {
        self.state().hints.hear((conversation, user), event);
        self.client.wake();
    }
}

impl Hints {
    fn hear(&mut self, place: (ConversationId, UserId), event: Bytes) {
        let is_full = self.typing_turn.len() >= TYPING_WAITING_MAX;
        match self.typing_events.entry(place) {
            Entry::Occupied(mut waiting) => {
                waiting.insert(event);
            }
            Entry::Vacant(_) if is_full => {}
            Entry::Vacant(free) => {
                free.insert(event);
                self.typing_turn.push_back(place);
            }
        }
    }

    fn tell(&mut self, topic: &ByteString, state: &Bytes) -> bool {
        let Some(watch) = self.watches.get_mut(topic) else {
            return false;
        };
        if watch.newest.as_ref() == Some(state) {
            return false;
        }
        watch.newest = Some(state.clone());
        if !std::mem::replace(&mut watch.is_waiting, true) {
            self.watch_turn.push_back(topic.clone());
        }
        true
    }

    /// Hands out what waits, as far as there is room.
    pub(super) fn pull(&mut self, out: &mut Out<'_>) {
        self.pull_presence(out);
        self.pull_typing(out);
    }

    fn pull_presence(&mut self, out: &mut Out<'_>) {
        while let Some(topic) = self.watch_turn.pop_front() {
            let Some(watch) = self.watches.get_mut(&topic) else {
                continue;
            };
            if !out.fits(Qos::AtMostOnce) {
                return self.watch_turn.push_front(topic);
            }
            watch.is_waiting = false;
            let Some(state) = watch.newest.clone() else {
                continue; // subscribed anew meanwhile
            };
            let retain = std::mem::replace(&mut watch.is_first, false);
            let identifiers = watch.identifier.into_iter().collect();
            out.push(hint(json_message(topic, state), retain, identifiers));
        }
    }

    fn pull_typing(&mut self, out: &mut Out<'_>) {
        while let Some(place) = self.typing_turn.pop_front() {
            let Some(Matched { identifiers, .. }) = self.typing.matched(&place.0) else {
                self.typing_events.remove(&place);
                continue;
            };
            if !out.fits(Qos::AtMostOnce) {
                return self.typing_turn.push_front(place);
            }
            if let Some(event) = self.typing_events.remove(&place) {
                let topic = ByteString::from(typing_topic(place.0));
                out.push(hint(json_message(topic, event), false, identifiers));
            }
        }
    }
}

fn hint(message: Publish, retain: bool, subscription_identifiers: Vec<u32>) -> Delivery {
    Delivery {
        reference: Reference::now().encode(),
        message: Arc::new(message),
        qos: Qos::AtMostOnce,
        retain,
        resend: None,
        subscription_identifiers,
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::ConversationKind;

    use super::*;

    #[test]
    fn of_a_watched_user_only_the_newest_state_waits() {
        let mut hints = Hints::default();
        let topic = ByteString::from_static("chat/u/@bob/presence");
        let (online, away) = (Bytes::from_static(b"online"), Bytes::from_static(b"away"));
        assert!(!hints.tell(&topic, &online), "not watched");
        let watch = Watch {
            user: UserId::from_bytes([1; 16]),
            identifier: None,
            newest: None,
            is_waiting: false,
            is_first: true,
        };
        hints.watches.insert(topic.clone(), watch);
        for _ in 0..1_000 {
            assert!(hints.tell(&topic, &online) && hints.tell(&topic, &away));
        }
        assert!(!hints.tell(&topic, &away), "known");
        assert_eq!(hints.watch_turn.len(), 1);
        let waiting = hints.watches.get(&topic).and_then(|it| it.newest.clone());
        assert_eq!(waiting, Some(away));
    }

    #[test]
    fn who_does_not_read_is_told_of_few_who_type() {
        let mut hints = Hints::default();
        let cid = ConversationId::from_parts(ConversationKind::Group, [1; 16]);
        let user = |number: u16| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            UserId::from_bytes(id)
        };
        for number in 0..1_000 {
            for said in ["1", "0", "rec"] {
                hints.hear((cid, user(number)), Bytes::from_static(said.as_bytes()));
            }
        }
        assert_eq!(hints.typing_turn.len(), TYPING_WAITING_MAX);
        assert_eq!(hints.typing_events.len(), TYPING_WAITING_MAX);
        let first = hints.typing_events.get(&(cid, user(0)));
        assert_eq!(first, Some(&Bytes::from_static(b"rec")));
    }
}
