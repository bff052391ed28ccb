//! Who is meant by a message: `@handle` and `@all` in its text, and what its sender names beside it.

use super::Body;
use crate::ids::{Handle, UserId};

/// Users that one message may mention.
pub const MENTIONS_MAX: usize = 64;
/// The word that means everybody.
const ALL: &str = "all";

/// Somebody whom a message names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mention {
    /// Everybody: `@all`.
    All,
    /// By handle.
    Handle(Handle),
    /// By id.
    User(UserId),
}

/// Whom a message that was stored mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentioned {
    /// Everybody.
    pub all: bool,
    /// These members.
    pub users: Box<[UserId]>,
}

impl Mentioned {
    /// Nobody.
    pub fn is_empty(&self) -> bool {
        !self.all && self.users.is_empty()
    }

    /// As it is in a `LogEntry`: `@all`, and uids.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let all = self.all.then(|| format!("@{ALL}"));
        all.into_iter()
            .chain(self.users.iter().map(UserId::to_string))
    }
}

impl Mention {
    /// Reads `@alice`, `@all`, or `u.` and a uid; letters of a handle may be large.
    pub fn parse(word: &str) -> Option<Self> {
        if let Some(id) = word.strip_prefix("u.") {
            return id.parse().map(Self::User).ok();
        }
        let name = word.strip_prefix('@')?.to_ascii_lowercase();
        if name == ALL {
            return Some(Self::All);
        }
        name.parse().map(Self::Handle).ok()
    }
}

impl Body<'_> {
    /// Whom the body names, each once, at most [`MENTIONS_MAX`]. The text of what is encrypted is not looked at: only
    /// whom its sender names beside it is told to the server.
    pub fn mentions(&self) -> Vec<Mention> {
        let mut found = Vec::new();
        let (named, text) = match self {
            Self::Text(text) => (&[][..], *text),
            Self::Json(_, message) | Self::Protobuf(_, message) => {
                let text = if message.opaque.is_empty() {
                    message.t.as_str()
                } else {
                    ""
                };
                (&*message.mentions, text)
            }
        };
        let named = named.iter().filter_map(|word| Mention::parse(word));
        for mention in named.chain(in_text(text)) {
            if found.len() == MENTIONS_MAX {
                break;
            }
            if !found.contains(&mention) {
                found.push(mention);
            }
        }
        found
    }
}

/// Each `@` at the beginning of a word, and what can belong to a handle behind it. Dots and dashes at the end are those of
/// the sentence.
fn in_text(text: &str) -> impl Iterator<Item = Mention> {
    text.match_indices('@').filter_map(|(place, _)| {
        let (before, at) = text.split_at_checked(place)?;
        let is_inside = |c: char| c.is_alphanumeric() || "._-@".contains(c);
        if before.ends_with(is_inside) {
            return None;
        }
        let belongs = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let end = at.char_indices().skip(1);
        let end = end.filter(|(_, c)| !belongs(*c)).map(|(end, _)| end).next();
        let word = at.get(..end.unwrap_or(at.len()))?;
        Mention::parse(word.trim_end_matches(['.', '_', '-']))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::{JSON, PayloadLimits, classify};

    fn words(text: &str) -> Vec<String> {
        let found = Body::Text(text).mentions();
        let word = |mention| match mention {
            Mention::All => "@all".to_owned(),
            Mention::Handle(handle) => format!("@{handle}"),
            Mention::User(id) => format!("u.{id}"),
        };
        found.into_iter().map(word).collect()
    }

    #[test]
    fn a_mention_is_a_word_that_begins_with_an_at() {
        for (text, expected) in [
            ("@bob", &["@bob"][..]),
            ("hello @bob, and @Carol!", &["@bob", "@carol"]),
            ("(@bob) \"@a.b-c_d\": @bob.", &["@bob", "@a.b-c_d"]),
            ("first line\n@all...", &["@all"]),
            ("ü@bob", &[]),
            ("bob@example.com x@all", &[]),
            ("@@bob", &[]),
            ("@", &[]),
            ("@ bob @ä @---", &[]),
            ("日本 @bob日本", &["@bob"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        assert!(
            words(&format!("@{}", "x".repeat(51))).is_empty(),
            "no handle"
        );
    }

    #[test]
    fn mentions_are_bounded() {
        let many: Vec<_> = (0..100).map(|number| format!("@user{number}")).collect();
        assert_eq!(words(&many.join(" ")).len(), MENTIONS_MAX);
        assert_eq!(words(&"@bob ".repeat(1_000)), ["@bob"]);
    }

    #[test]
    fn a_sender_names_people_beside_the_text() {
        let found = |json: &str| {
            let limits = PayloadLimits::default();
            classify(Some(JSON), json.as_bytes(), &limits).map(|body| body.mentions())
        };
        let bob = Mention::Handle("bob".parse().unwrap());
        let named =
            found(r#"{"t":"@Bob @all","mentions":["@bob","u.00000000000000000000000000"]}"#);
        let user = Mention::User(UserId::from_bytes([0; 16]));
        assert_eq!(named, Ok(vec![bob.clone(), user, Mention::All]));
        let secret = found(r#"{"t":"@all @carol","mentions":["@bob"],"opaque":"AAEC"}"#);
        assert_eq!(secret, Ok(vec![bob]), "what is encrypted is not looked at");
        for bad in ["bob", "@", "@a b", "u.x", ""] {
            let json = serde_json::json!({"t": "x", "mentions": [bad]});
            assert!(found(&json.to_string()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_text_can_be_looked_at(text in "(?s)[@a.ä ]{0,40}") {
            for word in words(&text) {
                prop_assert!(text.contains(&word), "{word}");
            }
        }
    }
}
