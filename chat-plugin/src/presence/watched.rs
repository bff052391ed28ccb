//! One user who is watched, has just gone, or has something to be written. No I/O, no clock.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proto::ids::UserId;
use proto::payload::{PresenceChoice, PresenceState};
use tokio::time::Instant;

use super::{Watcher, WatcherKey};
use crate::domain::presence::{PresenceChange, Standing};

/// While what is at rest of a user is being read, his leaving waits so long.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// What is known of one user.
pub(super) struct Watched {
    /// Some connection is open, or was within the grace.
    is_present: bool,
    /// The last connection has ended: gone then, unless one comes back.
    leaves: Option<Instant>,
    /// As at rest, and what changed since; `None`: not read.
    standing: Option<Standing>,
    /// Gone at that time, which was before anything was read, in ms since 1970.
    gone_ms: u64,
    unwritten: Unwritten,
    /// Work under way that rests on this.
    holds: u32,
    pub(super) watchers: HashMap<WatcherKey, Watcher>,
    /// Those who have not been told anything.
    pub(super) fresh: HashSet<WatcherKey>,
    tell_at: Option<Instant>,
    told_at: Option<Instant>,
    /// Moves with the privacy of the user.
    pub(super) privacy: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unwritten {
    #[default]
    Nothing,
    Seen,
    Choice,
    /// One of these, and it is in line for the next commit.
    Queued {
        with_choice: bool,
    },
}

/// How a user is, as he himself sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: PresenceState,
    pub(super) text: String,
    pub(super) seen_ms: u64,
}

impl Shown {
    /// The state as others see it.
    pub(super) fn to_others(&self) -> PresenceState {
        match self.state {
            PresenceState::Invisible => PresenceState::Offline,
            state => state,
        }
    }
}

impl Watched {
    pub(super) fn new(is_present: bool) -> Self {
        Self {
            is_present,
            leaves: None,
            standing: None,
            gone_ms: 0,
            unwritten: Unwritten::Nothing,
            holds: 0,
            watchers: HashMap::new(),
            fresh: HashSet::new(),
            tell_at: None,
            told_at: None,
            privacy: 0,
        }
    }

    pub(super) fn hold(&mut self) {
        self.holds += 1;
    }

    pub(super) fn release(&mut self) {
        self.holds = self.holds.saturating_sub(1);
    }

    /// What is at rest has been read. What is known already is newer.
    pub(super) fn known(&mut self, mut standing: Standing) {
        if self.standing.is_none() {
            if !standing.is_invisible() {
                standing.seen(self.gone_ms);
            }
            self.standing = Some(standing);
        }
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        self.standing.clone()
    }

    /// How the user is; `None` before it has been read.
    pub(super) fn shown(&self) -> Option<Shown> {
        let standing = self.standing.as_ref()?;
        let state = if self.is_present {
            standing.choice.state
        } else {
            PresenceState::Offline
        };
        Some(Shown {
            state,
            text: standing.choice.text.clone(),
            seen_ms: standing.seen_ms,
        })
    }

    /// Connections came or went: the user is here, or leaves at that time. `true`: what is shown has changed.
    pub(super) fn follow_connections(&mut self, is_connected: bool, leaves: Instant) -> bool {
        if is_connected {
            self.leaves = None;
            return !std::mem::replace(&mut self.is_present, true);
        }
        if self.is_present && self.leaves.is_none() {
            self.leaves = Some(leaves);
        }
        false
    }

    /// Has the grace ended? `true`: what is shown has changed.
    pub(super) fn leave(&mut self, now: Instant, is_connected: bool, now_ms: u64) -> bool {
        if self.leaves.is_none_or(|at| at > now) {
            return false;
        }
        if is_connected {
            self.leaves = None;
            return false;
        }
        if self.standing.is_none() && self.holds > 0 {
            self.leaves = Some(now + READ_PAUSE);
            return false;
        }
        self.has_gone(now_ms)
    }

    /// The user has gone, if he is leaving. Others saw him until now, unless he was invisible. `true`: he has.
    pub(super) fn has_gone(&mut self, now_ms: u64) -> bool {
        if self.leaves.take().is_none() {
            return false;
        }
        self.is_present = false;
        match &mut self.standing {
            Some(standing) if standing.is_invisible() => {}
            Some(standing) => {
                standing.seen(now_ms);
                self.note(Unwritten::Seen);
            }
            None => {
                self.gone_ms = now_ms;
                self.note(Unwritten::Seen);
            }
        }
        true
    }

    /// Others see the user at that time, if he is there and not invisible.
    pub(super) fn is_seen(&mut self, now_ms: u64) {
        let is_present = self.is_present;
        let Some(standing) = self.standing.as_mut() else {
            return;
        };
        if is_present && !standing.is_invisible() {
            standing.seen(now_ms);
            self.note(Unwritten::Seen);
        }
    }

    /// The user wants to be seen like this. `true`: that is new.
    pub(super) fn choose(&mut self, choice: PresenceChoice, now_ms: u64) -> bool {
        let is_present = self.is_present;
        let Some(standing) = self.standing.as_mut() else {
            return false;
        };
        if standing.choice == choice {
            return false;
        }
        let hides = choice.state == PresenceState::Invisible && !standing.is_invisible();
        if hides && is_present {
            standing.seen(now_ms);
        }
        standing.choice = choice;
        self.note(Unwritten::Choice);
        true
    }

    /// All watchers are to be told, but not sooner than this after the last time.
    pub(super) fn tell_later(&mut self, now: Instant, interval: Duration) {
        if self.tell_at.is_none() && !self.watchers.is_empty() {
            let earliest = self.told_at.map_or(now, |told| told + interval);
            self.tell_at = Some(earliest.max(now));
        }
    }

    /// Who is to be told now: all, or those who have not been told anything.
    pub(super) fn take_listeners(&mut self, now: Instant) -> Vec<Watcher> {
        let fresh = std::mem::take(&mut self.fresh);
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            self.told_at = Some(now);
            return self.watchers.values().cloned().collect();
        }
        let watchers = fresh.iter().filter_map(|key| self.watchers.get(key));
        watchers.cloned().collect()
    }

    /// When there is something to do for this user.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let fresh = (!self.fresh.is_empty()).then_some(now);
        let times = [self.leaves, self.tell_at, fresh];
        times.into_iter().flatten().min()
    }

    /// Is there something to be written that is not in line yet? Then it is from now on.
    pub(super) fn enqueue_write(&mut self) -> bool {
        let with_choice = self.unwritten == Unwritten::Choice;
        let is_new = with_choice || self.unwritten == Unwritten::Seen;
        if is_new {
            self.unwritten = Unwritten::Queued { with_choice };
        }
        is_new
    }

    /// Takes what is to be written. It stays in memory until [`Self::written`].
    pub(super) fn take_change(&mut self, user: UserId) -> Option<PresenceChange> {
        let with_choice = match std::mem::take(&mut self.unwritten) {
            Unwritten::Nothing => return None,
            Unwritten::Seen => false,
            Unwritten::Choice => true,
            Unwritten::Queued { with_choice } => with_choice,
        };
        self.hold();
        let standing = self.standing.as_ref();
        let choice = standing.filter(|_| with_choice);
        Some(PresenceChange {
            user,
            choice: choice.map(|standing| standing.choice.clone()),
            seen_ms: standing.map_or(self.gone_ms, |standing| standing.seen_ms),
        })
    }

    pub(super) fn written(&mut self) {
        self.release();
    }

    /// May this be forgotten?
    pub(super) fn is_idle(&self) -> bool {
        self.holds == 0
            && self.leaves.is_none()
            && self.watchers.is_empty()
            && self.unwritten == Unwritten::Nothing
    }

    fn note(&mut self, what: Unwritten) {
        let has_choice = what == Unwritten::Choice;
        self.unwritten = match self.unwritten {
            Unwritten::Queued { with_choice } => Unwritten::Queued {
                with_choice: with_choice || has_choice,
            },
            Unwritten::Choice => Unwritten::Choice,
            Unwritten::Nothing | Unwritten::Seen => what,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn choice(state: PresenceState) -> PresenceChoice {
        PresenceChoice {
            state,
            text: String::new(),
        }
    }

    fn present() -> Watched {
        let mut user = Watched::new(true);
        user.known(Standing::default());
        user
    }

    fn seen(user: &Watched) -> u64 {
        user.standing().unwrap().seen_ms
    }

    #[test]
    fn who_is_there_is_seen_unless_invisible() {
        let mut user = present();
        user.is_seen(2 * MINUTE_MS + 1);
        assert_eq!(seen(&user), 2 * MINUTE_MS);
        assert!(user.enqueue_write());
        user.choose(choice(PresenceState::Invisible), 3 * MINUTE_MS);
        user.is_seen(4 * MINUTE_MS);
        assert_eq!(seen(&user), 3 * MINUTE_MS);
        let mut away = Watched::new(false);
        away.known(Standing::default());
        away.is_seen(MINUTE_MS);
        assert_eq!(seen(&away), 0);
    }

    #[test]
    fn who_comes_back_within_the_grace_was_not_away() {
        let now = crate::clock::monotonic();
        let grace = Duration::from_secs(10);
        let mut user = present();
        assert!(!user.follow_connections(false, now + grace));
        assert!(!user.leave(now + grace / 2, false, MINUTE_MS));
        assert!(!user.follow_connections(true, now + grace * 2));
        assert!(!user.leave(now + grace, true, MINUTE_MS));
        assert_eq!(user.shown().unwrap().state, PresenceState::Online);
        assert!(user.is_idle(), "nothing to write");

        assert!(!user.follow_connections(false, now + grace));
        assert!(
            !user.follow_connections(false, now + grace * 3),
            "the first counts"
        );
        assert!(user.leave(now + grace, false, 5 * MINUTE_MS + 1));
        assert_eq!(user.shown().unwrap().state, PresenceState::Offline);
        assert_eq!(seen(&user), 5 * MINUTE_MS);
        assert!(user.follow_connections(true, now), "back");
    }

    #[test]
    fn going_invisible_is_seen_like_going_offline_and_going_offline_then_is_not() {
        let now = crate::clock::monotonic();
        let mut user = present();
        assert!(user.choose(choice(PresenceState::Invisible), 3 * MINUTE_MS));
        assert_eq!(seen(&user), 3 * MINUTE_MS);
        assert!(!user.choose(choice(PresenceState::Invisible), 4 * MINUTE_MS));
        user.follow_connections(false, now);
        assert!(user.leave(now, false, 5 * MINUTE_MS));
        assert_eq!(seen(&user), 3 * MINUTE_MS);
        user.follow_connections(true, now);
        assert!(user.choose(choice(PresenceState::Online), 6 * MINUTE_MS));
        assert_eq!(seen(&user), 3 * MINUTE_MS);
    }

    #[test]
    fn what_is_not_read_before_a_user_goes_is_joined_later() {
        let now = crate::clock::monotonic();
        for (state, expected) in [
            (PresenceState::Away, 2 * MINUTE_MS),
            (PresenceState::Invisible, MINUTE_MS),
        ] {
            let mut user = Watched::new(true);
            user.follow_connections(false, now);
            assert!(user.leave(now, false, 2 * MINUTE_MS));
            assert!(user.enqueue_write() && !user.enqueue_write(), "once");
            user.known(Standing {
                choice: choice(state),
                seen_ms: MINUTE_MS,
            });
            assert_eq!(seen(&user), expected);
        }
    }

    #[test]
    fn it_is_kept_until_it_is_written() {
        let mut user = present();
        user.choose(choice(PresenceState::Dnd), 1);
        assert!(user.enqueue_write());
        let id = UserId::from_bytes([1; 16]);
        let change = user.take_change(id).unwrap();
        assert_eq!(change.choice, Some(choice(PresenceState::Dnd)));
        assert!(!user.is_idle());
        user.choose(choice(PresenceState::Away), 1);
        user.written();
        assert!(user.enqueue_write() && !user.is_idle(), "changed meanwhile");
        user.take_change(id).unwrap();
        user.written();
        assert!(user.is_idle());
    }
}
