//! Who may do what in a conversation.

use proto::ids::ConversationKind;

use super::member::{Member, Role};

/// Something that a member wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a message.
    Send,
    /// Add a member with this role.
    Add(Role),
    /// Remove a member who has this role.
    Remove(Role),
    /// Give a member of the first role the second one.
    ChangeRole(Role, Role),
    /// Change title, description or policies.
    Settings,
    /// Leave.
    Leave,
    /// Say how long messages stay.
    Retention,
    /// Make the messages of a range gone, whoever wrote them.
    Trim,
    /// Delete what somebody else wrote, for everybody.
    DeleteOthers,
    /// React to a message.
    React,
    /// Pin a message, or unpin it.
    Pin,
    /// Mention everybody.
    MentionAll,
}

/// May a member do this in a conversation of this kind? A former member may do nothing.
pub fn allows(kind: ConversationKind, member: &Member, action: Action) -> bool {
    if !member.is_present() {
        return false;
    }
    let role = member.role;
    match (kind, action) {
        (ConversationKind::Direct, action) => {
            matches!(
                action,
                Action::Send | Action::React | Action::Pin | Action::MentionAll
            )
        }
        (_, Action::Leave) | (ConversationKind::Channel, Action::React) => true,
        (_, Action::Send | Action::React) => role >= Role::Member,
        (_, Action::DeleteOthers | Action::Pin | Action::MentionAll) => role >= Role::Moderator,
        (_, Action::Settings | Action::Trim) => role >= Role::Admin,
        (_, Action::Retention) => role >= Role::Owner,
        (_, Action::Add(wanted)) => role >= Role::Admin && wanted < role,
        (_, Action::Remove(theirs)) => role >= Role::Admin && theirs < role,
        (_, Action::ChangeRole(from, to)) => {
            role == Role::Owner || (role >= Role::Admin && from < role && to < role)
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{Seq, UserId};

    use super::*;
    use crate::domain::member::Interval;

    fn member(role: Role) -> Member {
        Member {
            user: UserId::from_bytes([1; 16]),
            role,
            joined: Seq::new(1),
            intervals: vec![Interval {
                from: Seq::new(1),
                joined: Seq::new(1),
                to: Seq::MAX,
            }],
        }
    }

    #[test]
    fn each_role_may_what_the_lower_ones_may() {
        let roles = [
            Role::Reader,
            Role::Member,
            Role::Moderator,
            Role::Admin,
            Role::Owner,
        ];
        let actions = [
            Action::Send,
            Action::Add(Role::Member),
            Action::Remove(Role::Member),
            Action::Settings,
            Action::Trim,
            Action::Retention,
            Action::DeleteOthers,
            Action::React,
            Action::Pin,
            Action::MentionAll,
        ];
        for action in actions {
            let allowed = roles.map(|role| allows(ConversationKind::Group, &member(role), action));
            assert!(allowed.is_sorted(), "{action:?}: {allowed:?}");
        }
    }

    #[test]
    fn nobody_reaches_equals_or_above() {
        let admin = member(Role::Admin);
        assert!(!allows(
            ConversationKind::Group,
            &admin,
            Action::Remove(Role::Admin)
        ));
        assert!(!allows(
            ConversationKind::Group,
            &admin,
            Action::ChangeRole(Role::Member, Role::Admin)
        ));
        assert!(!allows(
            ConversationKind::Group,
            &admin,
            Action::ChangeRole(Role::Owner, Role::Member)
        ));
        assert!(allows(
            ConversationKind::Group,
            &member(Role::Owner),
            Action::ChangeRole(Role::Admin, Role::Owner)
        ));
    }

    #[test]
    fn a_former_member_may_nothing() {
        let mut gone = member(Role::Owner);
        gone.intervals = vec![Interval {
            from: Seq::new(1),
            joined: Seq::new(1),
            to: Seq::new(5),
        }];
        assert!(!allows(ConversationKind::Group, &gone, Action::Send));
        assert!(!allows(ConversationKind::Group, &gone, Action::Settings));
    }

    #[test]
    fn readers_react_in_channels_only() {
        let reader = member(Role::Reader);
        assert!(allows(ConversationKind::Channel, &reader, Action::React));
        assert!(!allows(ConversationKind::Group, &reader, Action::React));
    }

    #[test]
    fn a_direct_conversation_has_no_admin() {
        assert!(allows(
            ConversationKind::Direct,
            &member(Role::Member),
            Action::Send
        ));
        assert!(!allows(
            ConversationKind::Direct,
            &member(Role::Owner),
            Action::Add(Role::Member)
        ));
        assert!(!allows(
            ConversationKind::Direct,
            &member(Role::Owner),
            Action::Leave
        ));
        let owner = member(Role::Owner);
        assert!(allows(ConversationKind::Direct, &owner, Action::Pin));
        assert!(!allows(
            ConversationKind::Direct,
            &owner,
            Action::DeleteOthers
        ));
    }
}
