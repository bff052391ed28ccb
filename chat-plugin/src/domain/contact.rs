//! Contacts: whom a user knows, and whom he has blocked. Nobody else sees it.

use proto::ids::UserId;

/// What one user has decided about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// About whom.
    pub other: UserId,
    /// Since when this is a contact, in ms since 1970; `None`: it is none.
    pub added_ms: Option<u64>,
    /// Since when this user is blocked, in ms since 1970; `None`: not blocked.
    pub blocked_ms: Option<u64>,
    /// How the user calls this contact; empty: as everybody does.
    pub called: String,
}

impl Contact {
    /// Nothing is decided.
    pub fn none(other: UserId) -> Self {
        Self {
            other,
            added_ms: None,
            blocked_ms: None,
            called: String::new(),
        }
    }

    /// Is nothing decided?
    pub fn is_none(&self) -> bool {
        self.added_ms.is_none() && self.blocked_ms.is_none()
    }

    /// Is this a contact?
    pub fn is_contact(&self) -> bool {
        self.added_ms.is_some()
    }

    /// Is this user blocked?
    pub fn is_blocked(&self) -> bool {
        self.blocked_ms.is_some()
    }

    /// As it is after a change at that time.
    #[must_use]
    pub fn changed(mut self, change: &ContactChange, now_ms: u64) -> Self {
        match change {
            ContactChange::Add { called } => {
                self.added_ms.get_or_insert(now_ms);
                self.called.clone_from(called);
            }
            ContactChange::Remove => {
                self.added_ms = None;
                self.called.clear();
            }
            ContactChange::Block => {
                self.blocked_ms.get_or_insert(now_ms);
            }
            ContactChange::Unblock => self.blocked_ms = None,
        }
        self
    }
}

/// A change of what one user has decided about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactChange {
    /// Becomes a contact, or a contact with another name.
    Add {
        /// How the user calls this contact; empty: as everybody does.
        called: String,
    },
    /// Is no contact any more.
    Remove,
    /// Is blocked: what he writes in the direct conversation from now on is never seen.
    Block,
    /// Is no longer blocked. What was written meanwhile stays unseen.
    Unblock,
}

/// A list of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactList {
    /// The contacts.
    Contacts,
    /// Those who are blocked.
    Blocked,
}

impl ContactList {
    /// Does it show this?
    pub fn shows(self, contact: &Contact) -> bool {
        match self {
            Self::Contacts => contact.is_contact(),
            Self::Blocked => contact.is_blocked(),
        }
    }
}

/// What became of a change of what one user has decided about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is so now.
    Changed,
    /// It was so before.
    AsItWas,
    /// Nothing has changed: this list is as long as it may be.
    Full(ContactList),
}

/// How long the lists of a user are, or may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContactCounts {
    /// Contacts.
    pub contacts: u32,
    /// Blocked users.
    pub blocked: u32,
}

impl ContactCounts {
    /// After a change of one.
    #[must_use]
    pub fn changed(self, before: &Contact, after: &Contact) -> Self {
        let count = |count: u32, was: bool, is: bool| {
            count
                .saturating_sub(u32::from(was))
                .saturating_add(u32::from(is))
        };
        Self {
            contacts: count(self.contacts, before.is_contact(), after.is_contact()),
            blocked: count(self.blocked, before.is_blocked(), after.is_blocked()),
        }
    }

    /// The list that would become longer than it may be, if these became those.
    pub fn overfull(self, after: Self, max: Self) -> Option<ContactList> {
        if after.contacts > self.contacts.max(max.contacts) {
            Some(ContactList::Contacts)
        } else if after.blocked > self.blocked.max(max.blocked) {
            Some(ContactList::Blocked)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_and_a_contact_do_not_know_of_each_other() {
        let add = |called: &str| ContactChange::Add {
            called: called.to_owned(),
        };
        let contact = Contact::none(UserId::from_bytes([1; 16]));
        let contact = contact.changed(&ContactChange::Block, 5);
        let contact = contact.changed(&add("Bobby"), 6).changed(&add("Bob"), 7);
        assert_eq!((contact.added_ms, contact.blocked_ms), (Some(6), Some(5)));
        assert_eq!(contact.called, "Bob");
        let contact = contact.changed(&ContactChange::Remove, 8);
        assert!(contact.is_blocked() && !contact.is_contact() && contact.called.is_empty());
        assert!(contact.changed(&ContactChange::Unblock, 9).is_none());
    }

    #[test]
    fn lists_are_counted() {
        let none = Contact::none(UserId::from_bytes([1; 16]));
        let blocked = none.clone().changed(&ContactChange::Block, 1);
        let counts = ContactCounts::default().changed(&none, &blocked);
        assert_eq!((counts.contacts, counts.blocked), (0, 1));
        assert_eq!(counts.changed(&blocked, &blocked), counts);
        assert_eq!(counts.changed(&blocked, &none), ContactCounts::default());
    }
}
