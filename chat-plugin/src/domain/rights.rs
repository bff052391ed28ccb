//! What members may do, as sets: those that a role has, those that admins gave, those that the member wants.

use std::fmt;
use std::str::FromStr;

use proto::ids::ConversationKind;
use serde::{Serialize, Serializer};

use super::member::Role;

/// A set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u16);

/// A word that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rights are words of: send react pin delete invite remove settings roles")]
pub struct RightsError;

impl Rights {
    /// None.
    pub const NONE: Self = Self(0);
    /// Write messages.
    pub const SEND: Self = Self(1);
    /// React to messages.
    pub const REACT: Self = Self(1 << 1);
    /// Pin messages.
    pub const PIN: Self = Self(1 << 2);
    /// Delete what others wrote, for everybody.
    pub const DELETE: Self = Self(1 << 3);
    /// Add members, make invitations, approve requests to join.
    pub const INVITE: Self = Self(1 << 4);
    /// Remove and ban members.
    pub const REMOVE: Self = Self(1 << 5);
    /// Change title, description and policies.
    pub const SETTINGS: Self = Self(1 << 6);
    /// Give roles and rights.
    pub const ROLES: Self = Self(1 << 7);
    /// All of them.
    pub const ALL: Self = Self((1 << Self::NAMES.len()) - 1);

    /// Bit by bit.
    const NAMES: [&'static str; 8] = [
        "send", "react", "pin", "delete", "invite", "remove", "settings", "roles",
    ];

    /// Those that a role has in a conversation of this kind, unless others were given.
    pub fn of_role(kind: ConversationKind, role: Role) -> Self {
        let talk = Self::SEND.and(Self::REACT);
        if kind == ConversationKind::Direct {
            return talk.and(Self::PIN);
        }
        match role {
            Role::Reader if kind == ConversationKind::Channel => Self::REACT,
            Role::Reader => Self::NONE,
            Role::Member => talk,
            Role::Moderator => talk.and(Self::PIN).and(Self::DELETE),
            Role::Admin | Role::Owner => Self::ALL,
        }
    }

    /// The rights of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rights that both have.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Are these all among them?
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The bits at rest.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The rights of bits at rest.
    pub const fn from_bits(bits: u16) -> Option<Self> {
        let rights = Self(bits);
        if Self::ALL.has(rights) {
            Some(rights)
        } else {
            None
        }
    }
}

/// Words with blanks between them, as on the wire.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.into_iter().enumerate();
        let mut between = "";
        for (_, name) in names.filter(|(bit, _)| self.0 & (1 << bit) != 0) {
            write!(f, "{between}{name}")?;
            between = " ";
        }
        Ok(())
    }
}

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Self, RightsError> {
        let mut rights = Self::NONE;
        for word in text.split_ascii_whitespace() {
            let bit = Self::NAMES.iter().position(|name| *name == word);
            rights = rights.and(Self(1 << bit.ok_or(RightsError)?));
        }
        Ok(rights)
    }
}

impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What was decided about the rights of one member: he may do what both are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// Given by admins; `None`: those of the role.
    pub given: Option<Rights>,
    /// Wanted by the member; `None`: whatever is given.
    pub want: Option<Rights>,
}

impl Mask {
    /// What may be done by a member of this role.
    pub fn rights(self, kind: ConversationKind, role: Role) -> Rights {
        let given = self.given.unwrap_or_else(|| Rights::of_role(kind, role));
        given.within(self.want.unwrap_or(Rights::ALL))
    }

    /// After leaving: what was taken away stays so, what was given beyond the role is over.
    #[must_use]
    pub fn on_return(self, kind: ConversationKind, role: Role) -> Self {
        let given = self
            .given
            .map(|given| given.within(Rights::of_role(kind, role)));
        Self { given, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_words_and_bits() {
        let rights: Rights = "pin  send".parse().unwrap();
        assert_eq!(rights.to_string(), "send pin");
        assert_eq!(Rights::from_bits(rights.to_bits()), Some(rights));
        assert_eq!("".parse(), Ok(Rights::NONE));
        assert_eq!("send fly".parse::<Rights>(), Err(RightsError));
        assert_eq!(Rights::from_bits(1 << 8), None);
        assert_eq!(Rights::ALL.to_string().parse(), Ok(Rights::ALL));
    }

    #[test]
    fn a_member_may_what_is_given_and_wanted() {
        let kind = ConversationKind::Group;
        let mask = |given: Option<&str>, want: Option<&str>| Mask {
            given: given.map(|text| text.parse().unwrap()),
            want: want.map(|text| text.parse().unwrap()),
        };
        let rows = [
            (mask(None, None), Role::Member, "send react"),
            (mask(Some("react"), None), Role::Member, "react"),
            (
                mask(Some("send pin"), Some("pin roles")),
                Role::Member,
                "pin",
            ),
            (mask(None, Some("send")), Role::Admin, "send"),
            (mask(Some(""), None), Role::Admin, ""),
            (mask(None, Some("send")), Role::Reader, ""),
        ];
        for (mask, role, rights) in rows {
            assert_eq!(mask.rights(kind, role).to_string(), rights, "{mask:?}");
        }
        let back = mask(Some("react pin"), Some("pin")).on_return(kind, Role::Member);
        assert_eq!(back, mask(Some("react"), Some("pin")));
    }
}
