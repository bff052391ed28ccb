//! What a user decides about himself: a row of JSON, so that later fields need no migration.

use proto::ids::UserId;
use serde::{Deserialize, Serialize};

/// A profile at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Who may see what.
    pub privacy: Privacy,
    /// A line about the user.
    pub status: String,
    /// Where the photo is.
    pub photo: String,
    /// In which language the user wants to be addressed: a language tag (RFC 5646). For the user and the server only.
    pub locale: String,
    /// Words by which the user wants to be found.
    pub tags: Vec<String>,
    /// When the handle changed lately, in ms since 1970.
    pub handle_changes: Vec<u64>,
}

/// Who may see what of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privacy {
    /// Whether the user is online, and his text.
    pub presence: Audience,
    /// When he was online last; only for those who may see the presence.
    pub last_seen: Audience,
    /// Status, photo and tags. Handle and name are known wherever the user is.
    pub profile: Audience,
    /// Found by the beginning of handle, name and tags; otherwise by the exact handle only.
    pub search: bool,
    /// Others are told what has been delivered to him.
    pub delivered: bool,
    /// Others are told what he has read.
    pub read: bool,
}

impl Privacy {
    /// What of his marks others are told.
    pub fn shows(&self) -> Shows {
        Shows {
            delivered: self.delivered,
            read: self.read,
        }
    }
}

/// What of the marks of a user others are told. What he does not show moves for his own devices only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shows {
    /// What has been delivered to him.
    pub delivered: bool,
    /// What he has read.
    pub read: bool,
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            presence: Audience::default(),
            last_seen: Audience::default(),
            profile: Audience {
                who: Circle::Everybody,
                except: Vec::new(),
            },
            search: true,
            delivered: true,
            read: true,
        }
    }
}

/// A change of one's own profile: what is given changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// A line about the user, at most [`STATUS_MAX`] bytes.
    pub status: Option<String>,
    /// Where the photo is, at most [`PHOTO_MAX`] bytes.
    pub photo: Option<String>,
    /// A language tag, or nothing.
    pub locale: Option<String>,
    /// Words by which the user wants to be found.
    pub tags: Option<Vec<String>>,
}

/// Bytes of a line about oneself.
pub const STATUS_MAX: usize = 256;
/// Bytes of a reference to a photo.
pub const PHOTO_MAX: usize = 512;
/// Bytes of a language tag.
const LOCALE_MAX: usize = 35;
/// Words by which one is found, and bytes of one.
const TAGS_MAX: usize = 16;
const TAG_MAX: usize = 32;

impl ProfileChange {
    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// What is not allowed, in words for the one who asks.
    pub fn check(&self) -> Result<(), String> {
        for (what, text, max) in [
            ("status", &self.status, STATUS_MAX),
            ("photo", &self.photo, PHOTO_MAX),
        ] {
            if let Some(text) = text
                && (text.len() > max || text.chars().any(char::is_control))
            {
                return Err(format!(
                    "{what} has at most {max} bytes and no control characters"
                ));
            }
        }
        let is_tag_char = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if let Some(locale) = &self.locale
            && (locale.len() > LOCALE_MAX || !locale.chars().all(is_tag_char))
        {
            return Err("locale is a language tag such as de-AT".to_owned());
        }
        let tags = self.tags.iter().flatten();
        let is_word = |tag: &String| tag.len() <= TAG_MAX && tag.chars().all(char::is_alphanumeric);
        if tags.clone().count() > TAGS_MAX || !tags.into_iter().all(is_word) {
            return Err(format!(
                "tags are at most {TAGS_MAX} words of letters and digits, each of at most {TAG_MAX} bytes"
            ));
        }
        Ok(())
    }

    /// Does it.
    pub fn apply(&self, profile: &mut Profile) {
        for (to, from) in [
            (&mut profile.status, &self.status),
            (&mut profile.photo, &self.photo),
            (&mut profile.locale, &self.locale),
        ] {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        if let Some(tags) = &self.tags {
            profile.tags = tags.iter().map(|tag| tag.to_lowercase()).collect();
            profile.tags.sort_unstable();
            profile.tags.dedup();
        }
    }
}

/// Who may see something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audience {
    /// These,
    pub who: Circle,
    /// but for these; of nobody, only these.
    pub except: Vec<UserId>,
}

/// A circle of users around one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Circle {
    /// Every user.
    Everybody,
    /// Those whom the user knows.
    #[default]
    Contacts,
    /// No user.
    Nobody,
}

impl Audience {
    /// Is `viewer` in it? `None`: if he is a contact.
    pub fn includes(&self, viewer: UserId) -> Option<bool> {
        let is_excepted = self.except.contains(&viewer);
        match self.who {
            Circle::Everybody => Some(!is_excepted),
            Circle::Contacts if is_excepted => Some(false),
            Circle::Contacts => None,
            Circle::Nobody => Some(is_excepted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_checked_and_applied() {
        let tags = |tags: &[&str]| ProfileChange {
            tags: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
            ..ProfileChange::default()
        };
        let mut profile = Profile::default();
        let change = tags(&["Schach", "go", "GO"]);
        assert_eq!(change.check(), Ok(()));
        change.apply(&mut profile);
        assert_eq!(profile.tags, ["go", "schach"]);
        let locale = |locale: &str| ProfileChange {
            locale: Some(locale.to_owned()),
            ..ProfileChange::default()
        };
        assert_eq!(locale("de-AT").check(), Ok(()));
        let status = ProfileChange {
            status: Some("a\u{1b}b".to_owned()),
            ..ProfileChange::default()
        };
        let long = "x".repeat(33);
        for bad in [
            locale("de_AT"),
            status,
            tags(&["a b"]),
            tags(&[&long]),
            tags(&["x"; 17]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(ProfileChange::default().is_empty());
    }

    #[test]
    fn exceptions_turn_each_circle_around() {
        let (bob, eve) = (UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let includes = |who, viewer| {
            let except = vec![eve];
            Audience { who, except }.includes(viewer)
        };
        assert_eq!(includes(Circle::Everybody, bob), Some(true));
        assert_eq!(includes(Circle::Everybody, eve), Some(false));
        assert_eq!(includes(Circle::Contacts, bob), None);
        assert_eq!(includes(Circle::Contacts, eve), Some(false));
        assert_eq!(includes(Circle::Nobody, bob), Some(false));
        assert_eq!(includes(Circle::Nobody, eve), Some(true));
    }
}
