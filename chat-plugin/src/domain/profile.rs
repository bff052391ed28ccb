//! What a user decides about himself: a row of JSON, so that later fields need no migration.

use proto::ids::UserId;
use serde::{Deserialize, Serialize};

/// A profile at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Who may see what.
    pub privacy: Privacy,
}

/// Who may see what of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privacy {
    /// Whether the user is online, and his text.
    pub presence: Audience,
    /// When he was online last; only for those who may see the presence.
    pub last_seen: Audience,
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
