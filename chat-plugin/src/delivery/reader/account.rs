//! Changes of the own list of conversations, on their way to one connection: at most one event waits, and the next one is
//! made when it has gone out, of what changed until then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::codec::packet::Publish;
use tokio::sync::Notify;

use super::Options;

/// The subscription to `chat/me/ev/account` of one connection.
#[derive(Default)]
pub(crate) struct Account {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Default)]
struct State {
    options: Option<Options>,
    /// A task makes events.
    running: bool,
    /// Begin after this account version.
    restart: Option<u64>,
    due: Due,
    /// Counts changes of entries.
    changes: u64,
    event: Option<Event>,
    /// The client has everything up to this account version.
    acknowledged: u64,
    ended: bool,
}

/// Why there is to be an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// There is no reason.
    #[default]
    Nothing,
    /// Something changed.
    News,
    /// What was made last must not go out: entries in it are not what they were.
    Again,
}

/// What the task has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// From where.
    pub(crate) from: From,
    /// To be given to [`Account::tell`].
    pub(crate) changes: u64,
}

/// From where the next event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// After this account version, anew.
    Version(u64),
    /// From where the last event did, which did not go out.
    LastEvent,
    /// From where the last event ended.
    Here,
}

/// An event that waits.
struct Event {
    message: Arc<Publish>,
    /// Who has it knows everything up to this account version; 0: it is part of a longer story.
    version: u64,
}

impl Account {
    /// Subscribes, from an account version on. `true`: a task has to be started that makes the events.
    pub(crate) fn subscribe(&self, options: Options, since: u64) -> bool {
        let mut state = self.lock();
        state.options = Some(options);
        state.restart = Some(since);
        state.acknowledged = since;
        state.event = None;
        let starts = !std::mem::replace(&mut state.running, true);
        drop(state);
        self.notify.notify_one();
        starts
    }

    pub(crate) fn unsubscribe(&self) -> bool {
        let mut state = self.lock();
        state.event = None;
        let existed = state.options.take().is_some();
        drop(state);
        self.notify.notify_one();
        existed
    }

    /// The connection has ended.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.notify.notify_one();
    }

    /// Something changed.
    pub(crate) fn changed(&self) {
        let mut state = self.lock();
        if state.options.is_some() && state.due == Due::Nothing {
            state.due = Due::News;
            drop(state);
            self.notify.notify_one();
        }
    }

    /// Entries that were told of are not what they were: the event that waits is made again.
    pub(crate) fn entries_changed(&self) {
        let mut state = self.lock();
        if state.options.is_none() {
            return;
        }
        state.changes += 1;
        let due = match state.event.take() {
            Some(_) => Due::Again,
            None => Due::News,
        };
        state.due = state.due.max(due);
        drop(state);
        self.notify.notify_one();
    }

    /// Waits until something is to be told, and there is room. `more`: there is, in any case. `None`: nobody wants to know
    /// any more, and the task ends.
    pub(crate) async fn next(&self, more: bool) -> Option<Next> {
        loop {
            {
                let mut state = self.lock();
                if state.options.is_none() || state.ended {
                    state.running = false;
                    return None;
                }
                let is_wanted = more || state.due > Due::Nothing || state.restart.is_some();
                if is_wanted && state.event.is_none() {
                    let due = std::mem::take(&mut state.due);
                    let from = match state.restart.take() {
                        Some(version) => From::Version(version),
                        None if due == Due::Again => From::LastEvent,
                        None => From::Here,
                    };
                    let changes = state.changes;
                    return Some(Next { from, changes });
                }
            }
            self.notify.notified().await;
        }
    }

    /// The next event, made since the [`Self::next`] that said `changes`. It is dropped if the story begins anew, and made
    /// again if entries changed meanwhile.
    pub(crate) fn tell(&self, message: Arc<Publish>, version: u64, changes: u64) {
        let mut state = self.lock();
        if state.options.is_none() || state.restart.is_some() {
            return;
        }
        if state.changes == changes {
            state.event = Some(Event { message, version });
        } else {
            state.due = Due::Again;
        }
    }

    /// Takes the event that waits, if it may go out.
    pub(super) fn take(
        &self,
        fits: impl FnOnce(Options) -> bool,
    ) -> Option<(Arc<Publish>, u64, Options)> {
        let mut state = self.lock();
        let options = state.options?;
        if state.event.is_none() || !fits(options) {
            return None;
        }
        let event = state.event.take()?;
        drop(state);
        self.notify.notify_one();
        Some((event.message, event.version, options))
    }

    /// The client has an event.
    pub(super) fn acknowledge(&self, version: u64) {
        let mut state = self.lock();
        state.acknowledged = state.acknowledged.max(version);
    }

    /// The client has everything up to this account version.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
