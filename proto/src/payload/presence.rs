//! Presence and typing: what clients say, and the events that others get.

use serde::{Deserialize, Serialize};

use super::PayloadError;
use crate::ids::{ConversationId, Handle, UserId};

/// Longest text beside a presence, in bytes.
pub const PRESENCE_TEXT_MAX: usize = 256;

/// How a user is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// Some connection is open.
    Online,
    /// Not at the screen.
    Away,
    /// Do not disturb.
    Dnd,
    /// Connected, and shown as offline; only to oneself.
    Invisible,
    /// No connection is open.
    Offline,
}

/// What a user publishes to `chat/me/presence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChoice {
    /// Any but [`PresenceState::Offline`].
    pub state: PresenceState,
    /// At most [`PRESENCE_TEXT_MAX`] bytes, no control characters.
    pub text: String,
}

impl PresenceChoice {
    /// Parses `away Back at two` or `{"state":"away","text":"Back at two"}`. Blanks around are ignored.
    ///
    /// # Errors
    /// [`PayloadError::NotAPresence`] for anything else.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let payload = payload.trim_ascii();
        let (state, text) = if payload.first() == Some(&b'{') {
            Self::parse_json(payload)?
        } else {
            let line = std::str::from_utf8(payload).map_err(|_| PayloadError::NotAPresence)?;
            let (word, text) = line.split_once(' ').unwrap_or((line, ""));
            let state = match word {
                "online" => PresenceState::Online,
                "away" => PresenceState::Away,
                "dnd" => PresenceState::Dnd,
                "invisible" => PresenceState::Invisible,
                _ => return Err(PayloadError::NotAPresence),
            };
            (state, text.to_owned())
        };
        let text = text.trim();
        let is_good = text.len() <= PRESENCE_TEXT_MAX && !text.chars().any(char::is_control);
        if !is_good || state == PresenceState::Offline {
            return Err(PayloadError::NotAPresence);
        }
        Ok(Self {
            state,
            text: text.to_owned(),
        })
    }

    fn parse_json(payload: &[u8]) -> Result<(PresenceState, String), PayloadError> {
        #[derive(Deserialize)]
        struct Json {
            state: PresenceState,
            #[serde(default)]
            text: String,
        }
        let json: Json = serde_json::from_slice(payload).map_err(|_| PayloadError::NotAPresence)?;
        Ok((json.state, json.text))
    }
}

/// What watchers of a user get on `chat/u/{target}/presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whose.
    pub uid: UserId,
    /// How people call the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Handle>,
    /// How the user is shown.
    pub state: PresenceState,
    /// In the words of the user; empty while offline.
    pub text: String,
    /// When the user was last shown as anything but offline, to the minute, in ms since 1970; absent where that is not
    /// known or not to be seen, and while the user is not offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
}

/// What a user does in a conversation before there is a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TypingState {
    /// Types.
    #[serde(rename = "1")]
    Typing,
    /// Does not, or no longer.
    #[serde(rename = "0")]
    Stopped,
    /// Records a voice message.
    #[serde(rename = "rec")]
    Recording,
}

impl TypingState {
    /// Parses the payload of `chat/c/{cid}/typing`: `1`, `0` or `rec`.
    ///
    /// # Errors
    /// [`PayloadError::NotTyping`] for anything else.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        match payload.trim_ascii() {
            b"1" => Ok(Self::Typing),
            b"0" => Ok(Self::Stopped),
            b"rec" => Ok(Self::Recording),
            _ => Err(PayloadError::NotTyping),
        }
    }
}

/// What members get on `chat/me/ev/typing/{cid}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// Where.
    pub cid: ConversationId,
    /// Who.
    pub uid: UserId,
    /// How people call the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Handle>,
    /// What the user does.
    pub typing: TypingState,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(state: PresenceState, text: &str) -> PresenceChoice {
        let text = text.to_owned();
        PresenceChoice { state, text }
    }

    #[test]
    fn a_choice_is_a_word_and_a_text_or_json() {
        for (payload, expected) in [
            ("online", choice(PresenceState::Online, "")),
            (
                " away  Back at two\n",
                choice(PresenceState::Away, "Back at two"),
            ),
            ("dnd 🎬", choice(PresenceState::Dnd, "🎬")),
            (
                r#"{"state":"invisible"}"#,
                choice(PresenceState::Invisible, ""),
            ),
            (
                r#"{"state":"away","text":"x","emoji":1}"#,
                choice(PresenceState::Away, "x"),
            ),
        ] {
            let parsed = PresenceChoice::parse(payload.as_bytes());
            assert_eq!(parsed, Ok(expected), "{payload}");
        }
        for bad in [
            "",
            "offline",
            "awayx",
            "away a\u{7}b",
            r#"{"state":"offline"}"#,
            r#"{"text":"x"}"#,
        ] {
            let parsed = PresenceChoice::parse(bad.as_bytes());
            assert_eq!(parsed, Err(PayloadError::NotAPresence), "{bad}");
        }
        let longest = format!("away {}", "x".repeat(PRESENCE_TEXT_MAX));
        assert!(PresenceChoice::parse(longest.as_bytes()).is_ok());
        let longer = format!("{longest}x");
        assert!(PresenceChoice::parse(longer.as_bytes()).is_err());
        assert!(PresenceChoice::parse(b"away \xFF").is_err());
    }

    #[test]
    fn typing_is_one_of_three_words() {
        assert_eq!(TypingState::parse(b"1"), Ok(TypingState::Typing));
        assert_eq!(TypingState::parse(b"0\n"), Ok(TypingState::Stopped));
        assert_eq!(TypingState::parse(b"rec"), Ok(TypingState::Recording));
        for bad in [&b""[..], b"2", b"true", b"recording", b"\xFF"] {
            assert_eq!(TypingState::parse(bad), Err(PayloadError::NotTyping));
        }
    }

    #[test]
    fn events_have_the_fields_of_the_documentation() {
        let uid = UserId::from_bytes([0; 16]);
        let presence = Presence {
            uid,
            handle: "bob".parse().ok(),
            state: PresenceState::Dnd,
            text: String::new(),
            last_seen: None,
        };
        assert_eq!(
            serde_json::to_string(&presence).unwrap(),
            format!(r#"{{"uid":"{uid}","handle":"bob","state":"dnd","text":""}}"#)
        );
        let cid = ConversationId::direct(uid, uid);
        let typing = Typing {
            cid,
            uid,
            handle: None,
            typing: TypingState::Recording,
        };
        assert_eq!(
            serde_json::to_string(&typing).unwrap(),
            format!(r#"{{"cid":"{cid}","uid":"{uid}","typing":"rec"}}"#)
        );
    }

    #[test]
    fn events_are_those_of_the_schema() {
        fn around<T: Serialize + serde::de::DeserializeOwned>(event: &impl Serialize) {
            let json = serde_json::to_value(event).unwrap();
            let read: T = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), json);
        }
        let uid = UserId::from_bytes([1; 16]);
        around::<crate::schema::PresenceEvent>(&Presence {
            uid,
            handle: "bob".parse().ok(),
            state: PresenceState::Offline,
            text: "x".to_owned(),
            last_seen: Some(60_000),
        });
        around::<crate::schema::TypingEvent>(&Typing {
            cid: ConversationId::direct(uid, uid),
            uid,
            handle: "bob".parse().ok(),
            typing: TypingState::Stopped,
        });
    }
}
