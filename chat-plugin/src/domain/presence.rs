//! How a user wants to be seen, and when he was seen last.

use proto::ids::UserId;
use proto::payload::{PresenceChoice, PresenceState};

/// Times are told, and kept, to the minute.
const MINUTE_MS: u64 = 60_000;

/// What is at rest of the presence of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How the user wants to be seen.
    pub choice: PresenceChoice,
    /// When others saw the user last as anything but offline, in ms since 1970, to the minute; 0: never.
    pub seen_ms: u64,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            choice: PresenceChoice {
                state: PresenceState::Online,
                text: String::new(),
            },
            seen_ms: 0,
        }
    }
}

impl Standing {
    /// Is the user shown as offline whatever the connections say?
    pub fn is_invisible(&self) -> bool {
        self.choice.state == PresenceState::Invisible
    }

    /// Others saw the user at that time, in ms since 1970.
    pub fn seen(&mut self, ms: u64) {
        self.seen_ms = self.seen_ms.max(to_the_minute(ms));
    }

    /// Follows a change. That somebody was seen who is invisible came too late to be true.
    pub fn apply(&mut self, change: PresenceChange) {
        let is_certain = change.choice.is_some();
        if let Some(choice) = change.choice {
            self.choice = choice;
        }
        if is_certain || !self.is_invisible() {
            self.seen(change.seen_ms);
        }
    }
}

/// A change of what is at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Whose.
    pub user: UserId,
    /// The new choice, if it changed.
    pub choice: Option<PresenceChoice>,
    /// Seen at that time, in ms since 1970; without a choice, only if the user is not invisible.
    pub seen_ms: u64,
}

/// The beginning of the minute.
pub fn to_the_minute(ms: u64) -> u64 {
    ms - ms % MINUTE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(state: Option<PresenceState>, seen_ms: u64) -> PresenceChange {
        let text = String::new();
        PresenceChange {
            user: UserId::from_bytes([1; 16]),
            choice: state.map(|state| PresenceChoice { state, text }),
            seen_ms,
        }
    }

    #[test]
    fn who_is_invisible_is_not_seen() {
        let mut standing = Standing::default();
        standing.apply(change(None, 120_001));
        assert_eq!(standing.seen_ms, 120_000, "to the minute");
        standing.apply(change(Some(PresenceState::Invisible), 180_000));
        standing.apply(change(None, 240_000));
        assert_eq!(standing.seen_ms, 180_000, "until he became invisible");
        standing.apply(change(Some(PresenceState::Online), 0));
        assert_eq!(standing.seen_ms, 180_000);
        standing.apply(change(None, 300_000));
        assert_eq!(standing.seen_ms, 300_000);
    }
}
