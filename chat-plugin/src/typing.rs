//! Typing: a hint that expires by itself, told to the other members who want to know, never stored.
//!
//! There is at most one hint per user and conversation, for a few seconds, and one task for all. `1` and `rec` are told at
//! most once per interval; what comes in between waits, and the newest is told. An end is told once, and at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{ConversationId, UserId};
use proto::payload::{self, TypingState};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agenda::{Agenda, sleep_until};
use crate::config::Config;
use crate::conversations::Conversations;
use crate::delivery::Online;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::presence::Presence;
use crate::store::StoreError;

/// Bounds of typing, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypingLimits {
    /// Least time between two beginnings of one user in one conversation that are told.
    pub(crate) interval: Duration,
    /// Without a repeat it ends after this.
    pub(crate) expiry: Duration,
    /// Hints at once; more are not told.
    pub(crate) hints_max: usize,
}

impl TypingLimits {
    /// Those of the configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            interval: Duration::from_millis(u64::from(config.typing_interval_ms)),
            expiry: Duration::from_millis(u64::from(config.typing_expiry_ms)),
            hints_max: usize::try_from(config.typing_hints_max).unwrap_or(usize::MAX),
        }
    }
}

/// A user in a conversation.
type Place = (ConversationId, UserId);

/// Tells who is typing.
pub(crate) struct Typing {
    conversations: Arc<Conversations>,
    names: Arc<Names>,
    online: Arc<Online>,
    presence: Arc<Presence>,
    metrics: Arc<Metrics>,
    limits: TypingLimits,
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Default)]
struct State {
    hints: HashMap<Place, Hint>,
    agenda: Agenda<Place>,
}

/// What one user does in one conversation.
struct Hint {
    /// What the others were told and believe.
    shown: Option<TypingState>,
    /// What the user said last; `None`: the end.
    wanted: Option<TypingState>,
    /// It has not been told.
    is_news: bool,
    /// The next beginning may be told then.
    next_at: Instant,
    ends: Instant,
}

impl Typing {
    pub(crate) fn new(
        (conversations, names): (Arc<Conversations>, Arc<Names>),
        (online, presence): (Arc<Online>, Arc<Presence>),
        metrics: Arc<Metrics>,
        limits: TypingLimits,
    ) -> Self {
        Self {
            conversations,
            names,
            online,
            presence,
            metrics,
            limits,
            state: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// A member who may write says what he does.
    pub(crate) fn heard(&self, place: Place, said: TypingState) {
        let now = crate::clock::monotonic();
        let mut guard = self.state();
        let state = &mut *guard;
        if !state.hints.contains_key(&place) {
            let is_full = state.hints.len() >= self.limits.hints_max;
            if said == TypingState::Stopped || is_full {
                return;
            }
        }
        let hint = state.hints.entry(place).or_insert_with(|| Hint::new(now));
        hint.heard(said, now + self.limits.expiry);
        if state.agenda.set(place, Some(hint.due(now))) {
            self.notify.notify_one();
        }
    }

    /// Tells what is due, until stopped.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let next = self.state().agenda.next();
            tokio::select! {
                () = self.notify.notified() => {}
                () = sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
            while let Some((place, state)) = self.next_due() {
                match self.tell(place, state).await {
                    Ok(true) => {}
                    Ok(false) => self.untold(place),
                    Err(error) => {
                        tracing::error!(conversation = %place.0, %error, "typing could not be told");
                    }
                }
            }
        }
    }

    /// Does what is due until there is something to tell.
    fn next_due(&self) -> Option<(Place, TypingState)> {
        let now = crate::clock::monotonic();
        let mut guard = self.state();
        let state = &mut *guard;
        while let Some(place) = state.agenda.pop_due(now) {
            let Some(hint) = state.hints.get_mut(&place) else {
                continue;
            };
            let told = hint.take_due(now, self.limits.interval);
            if hint.is_over(now) {
                state.hints.remove(&place);
            } else {
                state.agenda.set(place, Some(hint.due(now)));
            }
            if let Some(told) = told {
                return Some((place, told));
            }
        }
        None
    }

    /// Nobody was told that it began, so nobody has to be told that it ends.
    fn untold(&self, place: Place) {
        if let Some(hint) = self.state().hints.get_mut(&place) {
            hint.shown = None;
        }
    }

    /// `false`: there was nobody to tell.
    async fn tell(&self, (cid, uid): Place, typing: TypingState) -> Result<bool, StoreError> {
        let Some(live) = self.conversations.load(cid).await? else {
            return Ok(false);
        };
        let members = live.present();
        let others = members.iter().copied().filter(|member| *member != uid);
        // Who has blocked somebody tells him nothing, and hears nothing of him.
        let is_blocked = |other: &UserId| live.blocks(uid) || live.blocks(*other);
        let others = others.filter(|other| !is_blocked(other));
        let listeners = self.online.typing_listeners(others, cid);
        if listeners.is_empty() {
            return Ok(false);
        }
        let begins = typing != TypingState::Stopped;
        if begins && (!members.contains(&uid) || self.presence.is_invisible(uid).await?) {
            return Ok(false);
        }
        let event = payload::Typing {
            cid,
            uid,
            handle: self.names.handle(uid).await?,
            typing,
        };
        let event = Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
        for listener in &listeners {
            listener.typing((cid, uid), event.clone());
        }
        self.metrics.typing_events.add(listeners.len());
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hint {
    fn new(now: Instant) -> Self {
        Self {
            shown: None,
            wanted: None,
            is_news: false,
            next_at: now,
            ends: now,
        }
    }

    fn heard(&mut self, said: TypingState, ends: Instant) {
        self.wanted = Some(said).filter(|said| *said != TypingState::Stopped);
        self.is_news = self.wanted.is_some();
        self.ends = ends;
    }

    /// When there is something to do.
    fn due(&self, now: Instant) -> Instant {
        match (self.wanted, self.shown) {
            (Some(_), _) if self.is_news => self.next_at.min(self.ends),
            (Some(_), _) => self.ends,
            (None, Some(_)) => now,
            (None, None) => self.next_at,
        }
    }

    /// What is to be told now.
    fn take_due(&mut self, now: Instant, interval: Duration) -> Option<TypingState> {
        if self.ends <= now {
            self.wanted = None;
        }
        let Some(wanted) = self.wanted else {
            return self.shown.take().map(|_| TypingState::Stopped);
        };
        if !self.is_news || self.next_at > now {
            return None;
        }
        self.is_news = false;
        self.shown = Some(wanted);
        self.next_at = now + interval;
        Some(wanted)
    }

    /// Nothing to tell any more, and the next one may be told at once.
    fn is_over(&self, now: Instant) -> bool {
        self.wanted.is_none() && self.shown.is_none() && self.next_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3);
    const EXPIRY: Duration = Duration::from_secs(6);

    /// A hint and the seconds of a story.
    struct World {
        hint: Hint,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            let start = crate::clock::monotonic();
            let hint = Hint::new(start);
            Self { hint, start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Heard then; what is told at once.
        fn heard(&mut self, ms: u64, said: TypingState) -> Option<TypingState> {
            let now = self.at(ms);
            self.hint.heard(said, now + EXPIRY);
            self.told(ms)
        }

        fn told(&mut self, ms: u64) -> Option<TypingState> {
            let now = self.at(ms);
            (self.hint.due(now) <= now)
                .then(|| self.hint.take_due(now, INTERVAL))
                .flatten()
        }

        fn due_ms(&self, ms: u64) -> u128 {
            let due = self.hint.due(self.at(ms));
            due.duration_since(self.start).as_millis()
        }
    }

    #[test]
    fn beginnings_are_told_once_per_interval_and_the_newest_waits() {
        let mut world = World::new();
        let typing = Some(TypingState::Typing);
        assert_eq!(world.heard(0, TypingState::Typing), typing);
        for ms in [500, 1_000, 2_900] {
            assert_eq!(world.heard(ms, TypingState::Typing), None);
        }
        assert_eq!(world.heard(2_950, TypingState::Recording), None);
        assert_eq!(world.due_ms(2_950), 3_000);
        assert_eq!(world.told(3_000), Some(TypingState::Recording));
        assert_eq!(world.due_ms(3_000), 8_950, "without a repeat");
        assert_eq!(world.told(8_950), Some(TypingState::Stopped));
        assert!(world.hint.is_over(world.at(8_950)));
    }

    #[test]
    fn an_end_is_told_at_once_and_the_next_beginning_waits() {
        let mut world = World::new();
        world.heard(0, TypingState::Typing);
        let stopped = world.heard(100, TypingState::Stopped);
        assert_eq!(stopped, Some(TypingState::Stopped));
        assert_eq!(world.heard(200, TypingState::Stopped), None, "once");
        assert!(!world.hint.is_over(world.at(200)), "it keeps the interval");
        assert_eq!(world.heard(300, TypingState::Typing), None);
        assert_eq!(world.told(3_000), Some(TypingState::Typing));
        world.heard(3_100, TypingState::Stopped);
        assert_eq!(world.due_ms(3_100), 6_000);
        assert!(world.hint.is_over(world.at(6_000)));
    }

    #[test]
    fn what_ends_before_it_was_told_is_never_told() {
        let mut world = World::new();
        world.heard(0, TypingState::Typing);
        world.heard(100, TypingState::Stopped);
        assert_eq!(world.heard(200, TypingState::Typing), None);
        assert_eq!(world.heard(300, TypingState::Stopped), None);
        assert_eq!(world.told(3_000), None);
    }
}
