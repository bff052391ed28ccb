//! The event that watchers of a user get.

use bytes::Bytes;
use proto::ids::{Handle, UserId};
use proto::payload::{self, PresenceState};

use super::Sight;
use super::watched::Shown;
use crate::domain::presence::to_the_minute;

/// What is shown of a user, in the forms for those who may see more and less of it; each is made when it is needed.
pub(super) struct Forms {
    user: UserId,
    handle: Option<Handle>,
    shown: Shown,
    made: [Option<Bytes>; 4],
    /// The form that was made last for one who is not to know how the user is; it depends on who asks.
    offline: Option<Bytes>,
}

impl Forms {
    pub(super) fn new(user: UserId, handle: Option<Handle>, shown: Shown) -> Self {
        Self {
            user,
            handle,
            shown,
            made: Default::default(),
            offline: None,
        }
    }

    /// The event for those who may see this much.
    pub(super) fn of(&mut self, sight: Sight) -> &Bytes {
        let Self {
            user,
            handle,
            shown,
            made: [nothing, state, last_seen, own],
            offline,
        } = self;
        let place = match sight {
            Sight::Nothing => nothing,
            Sight::Offline(_) => {
                *offline = None;
                offline
            }
            Sight::State => state,
            Sight::LastSeen => last_seen,
            Sight::Own => own,
        };
        place.get_or_insert_with(|| {
            let state = match sight {
                Sight::Nothing | Sight::Offline(_) => PresenceState::Offline,
                Sight::Own => shown.state,
                _ => shown.to_others(),
            };
            let is_away = matches!(state, PresenceState::Offline | PresenceState::Invisible);
            let text = if state == PresenceState::Offline {
                String::new()
            } else {
                shown.text.clone()
            };
            let seen_ms = match sight {
                Sight::LastSeen | Sight::Own => shown.seen_ms,
                Sight::Offline(Some(since_ms)) => shown.seen_ms.min(to_the_minute(since_ms)),
                Sight::Offline(None) | Sight::State | Sight::Nothing => 0,
            };
            let event = payload::Presence {
                uid: *user,
                handle: handle.clone(),
                state,
                text,
                last_seen: (is_away && seen_ms > 0).then_some(seen_ms),
            };
            serde_json::to_vec(&event).unwrap_or_default().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(state: PresenceState) -> Forms {
        let shown = Shown {
            state,
            text: "at sea".to_owned(),
            seen_ms: 120_000,
        };
        Forms::new(UserId::from_bytes([0; 16]), None, shown)
    }

    #[test]
    fn invisible_and_offline_are_the_same_bytes_to_others() {
        let (mut invisible, mut offline) = (
            forms(PresenceState::Invisible),
            forms(PresenceState::Offline),
        );
        for sight in [Sight::Nothing, Sight::State, Sight::LastSeen] {
            assert_eq!(invisible.of(sight), offline.of(sight));
        }
        assert_ne!(invisible.of(Sight::Own), offline.of(Sight::Own));
    }

    #[test]
    fn who_is_blocked_sees_somebody_who_left_then() {
        let mut online = forms(PresenceState::Online);
        let mut offline = forms(PresenceState::Offline);
        let earlier = forms(PresenceState::Online)
            .of(Sight::Offline(Some(119_000)))
            .clone();
        let text = String::from_utf8(earlier.to_vec()).unwrap();
        assert!(text.ends_with(r#""state":"offline","text":"","last_seen":60000}"#));
        for since_ms in [120_000, 179_999, u64::MAX] {
            let since = Sight::Offline(Some(since_ms));
            assert_eq!(online.of(since), offline.of(Sight::LastSeen));
        }
        assert_eq!(online.of(Sight::Offline(None)), offline.of(Sight::State));
    }

    #[test]
    fn each_sees_what_he_may() {
        let mut offline = forms(PresenceState::Offline);
        let text = |form: &Bytes| String::from_utf8(form.to_vec()).unwrap();
        assert!(text(offline.of(Sight::LastSeen)).ends_with(r#""text":"","last_seen":120000}"#));
        assert!(text(offline.of(Sight::State)).ends_with(r#""state":"offline","text":""}"#));
        let mut away = forms(PresenceState::Away);
        for sight in [Sight::State, Sight::LastSeen, Sight::Own] {
            assert!(text(away.of(sight)).ends_with(r#""state":"away","text":"at sea"}"#));
        }
        assert!(text(away.of(Sight::Nothing)).ends_with(r#""state":"offline","text":""}"#));
    }
}
