//! What a connection subscribes to.

use std::sync::Arc;

use proto::ids::{ConversationId, Seq};
use proto::topics::Form;

use super::super::flow::{self, Flow};
use super::super::shared::Shared;
use super::super::subscriptions::Options;
use super::state::{Log, Part};
use super::{Key, LOG_SLOT, LogSubscription, Reader};
use crate::conversations::{Held, Live};

impl Reader {
    /// Subscribes a form of the inbox. `None`: all conversations.
    pub(crate) fn subscribe_inbox(
        &self,
        form: Form,
        conversation: Option<ConversationId>,
        options: Options,
    ) {
        let mut state = self.state();
        if let Some(filters) = state.inbox.get_mut(flow::slot(form)) {
            filters.insert(conversation, options);
        }
        state.rewant();
    }

    pub(crate) fn unsubscribe_inbox(
        &self,
        form: Form,
        conversation: Option<ConversationId>,
    ) -> bool {
        let mut state = self.state();
        let existed = state
            .inbox
            .get_mut(flow::slot(form))
            .is_some_and(|filters| filters.remove(conversation.as_ref()));
        state.rewant();
        drop(state);
        self.client.wake(); // what the form kept waiting may go on
        existed
    }

    pub(crate) fn has_inbox(&self) -> bool {
        self.made()
            .is_some_and(|state| state.inbox.iter().any(|filters| !filters.is_empty()))
    }

    /// Is there a filter for the inbox of this conversation alone?
    pub(crate) fn wants_only(&self, conversation: ConversationId) -> bool {
        self.made().is_some_and(|state| {
            let mut filters = state.inbox.iter();
            filters.any(|filters| filters.has_only(&conversation))
        })
    }

    /// Keeps what makes this user one to whom a channel comes; `None`: it comes no longer, or anyway.
    pub(crate) fn follow(&self, live: &Arc<Live>, held: Option<Held>, behind: Option<Seq>) {
        let Some(mut state) = self.made() else {
            return;
        };
        let before = match held {
            Some(held) => state.following.insert(live.id(), held),
            None => state.following.remove(&live.id()),
        };
        // In one breath: what is said next would begin where it stands.
        let woken = behind.is_some_and(|behind| state.announce_inbox(live, behind, live.head()));
        drop(state);
        drop(before);
        if woken {
            self.client.wake();
        }
    }

    pub(crate) fn subscribe_receipts(
        &self,
        conversation: Option<ConversationId>,
        options: Options,
    ) {
        self.state().receipts.insert(conversation, options);
    }

    pub(crate) fn unsubscribe_receipts(&self, conversation: Option<ConversationId>) -> bool {
        self.state().receipts.remove(conversation.as_ref())
    }

    pub(crate) fn wants_receipts(&self, conversation: ConversationId) -> bool {
        self.made()
            .is_some_and(|state| state.receipts.matched(&conversation).is_some())
    }

    pub(crate) fn subscribe_replies(&self, name: Option<&str>, options: Options) {
        self.state().replies_to.insert(name.map(Box::from), options);
    }

    pub(crate) fn unsubscribe_replies(&self, name: Option<&str>) -> bool {
        self.state().replies_to.remove(name)
    }

    pub(crate) fn subscribe_errors(&self, name: Option<&str>, options: Options) {
        self.state().errors.insert(name.map(Box::from), options);
    }

    pub(crate) fn unsubscribe_errors(&self, name: Option<&str>) -> bool {
        self.state().errors.remove(name)
    }

    /// Subscribes `…/log`: entries after `after`, then the live tail. The same slot again begins anew.
    pub(crate) fn subscribe_log(&self, log: LogSubscription, live: Arc<Live>, after: Seq) {
        let mut state = self.state();
        let slot = LOG_SLOT.saturating_add(log.slot);
        let head = live.head();
        let mut flow = Flow::new(live, after, head);
        flow.want(0, true);
        let generation = log.generation;
        state.logs.insert(
            slot,
            Log {
                flow,
                shared: None,
                topic: log.topic,
                options: log.options,
                position: log.position,
                generation,
                _held: log.held,
            },
        );
        state.enqueue(Key::Log(slot, generation));
        drop(state);
        self.client.wake();
    }

    /// Changes the options of a `…/log` that is subscribed to. `false`: this one is not.
    pub(crate) fn resubscribe_log(&self, log: &LogSubscription) -> bool {
        let Key::Log(slot, generation) = log.key() else {
            return false;
        };
        let mut state = self.state();
        let held = state.log_mut(slot, generation);
        held.map(|held| held.options = log.options).is_some()
    }

    /// Takes part in a shared subscription.
    pub(crate) fn subscribe_shared(&self, log: LogSubscription, shared: Arc<Shared>) {
        let key = log.key();
        let live = Arc::clone(&shared.live);
        let head = live.head();
        let held = Log {
            flow: Flow::new(live, head, head),
            shared: Some(Part { shared, run: None }),
            topic: log.topic,
            options: log.options,
            position: None,
            generation: log.generation,
            _held: log.held,
        };
        if let Key::Log(slot, _) = key {
            self.state().logs.insert(slot, held);
        }
        self.called(key);
    }

    /// Shared subscriptions of which this reader has a part: of one slot, or of all.
    pub(crate) fn shared(&self, slot: Option<u8>) -> Vec<Arc<Shared>> {
        let Some(state) = self.made() else {
            return Vec::new();
        };
        let slot = slot.map(|slot| LOG_SLOT.saturating_add(slot));
        let logs = state
            .logs
            .iter()
            .filter(|(of, _)| slot.is_none_or(|slot| slot == **of));
        let parts = logs.filter_map(|(_, log)| log.shared.as_ref());
        parts.map(|part| Arc::clone(&part.shared)).collect()
    }

    /// There is something to be taken of a shared subscription. `false`: it was in line already.
    pub(crate) fn called(&self, key: Key) -> bool {
        let is_new = self.made().is_some_and(|mut state| state.enqueue(key));
        if is_new {
            self.client.wake();
        }
        is_new
    }

    /// This reader is told of new entries from now on: those that came while it was being set up are caught up with.
    pub(crate) fn catch_up_logs(&self) {
        let Some(mut state) = self.made() else {
            return;
        };
        let keys = state.logs.iter_mut().map(|(slot, log)| {
            log.flow.announce(log.flow.live.head());
            Key::Log(*slot, log.generation)
        });
        let keys: Vec<Key> = keys.collect();
        for key in keys {
            state.enqueue(key);
        }
        drop(state);
        self.client.wake();
    }

    pub(crate) fn unsubscribe_log(&self, slot: u8) -> bool {
        self.state()
            .logs
            .remove(&LOG_SLOT.saturating_add(slot))
            .is_some()
    }
}
