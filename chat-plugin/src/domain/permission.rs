//! Who may do what in a conversation.

use proto::ids::ConversationKind;

use super::member::{Member, Role};
use super::rights::Rights;

/// Something that a member wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a message.
    Send,
    /// Add a member with this role, or let others in with it.
    Add(Role),
    /// Look at invitations and requests to join.
    Admit,
    /// Remove or ban a member who has this role.
    Remove(Role),
    /// Give a member of the first role the second one.
    ChangeRole(Role, Role),
    /// Give a member of this role these rights.
    Grant(Role, Rights),
    /// Say which of the rights that were given one wants.
    Want,
    /// Change title, description or policies.
    Settings,
    /// Close the conversation, or open it again.
    Close,
    /// Hand over the ownership.
    Transfer,
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

impl Action {
    /// Is it about messages, not about members?
    const fn is_of_messages(self) -> bool {
        matches!(
            self,
            Self::Send | Self::React | Self::Pin | Self::DeleteOthers
        )
    }

    /// May it be done with a broadcast list, by its owner?
    const fn is_of_list(self) -> bool {
        matches!(
            self,
            Self::Send | Self::Settings | Self::Leave | Self::Add(Role::Reader) | Self::Remove(_)
        )
    }

    /// Is it over in a conversation that was closed?
    pub const fn needs_open(self) -> bool {
        matches!(self, Self::Send | Self::Add(_) | Self::React | Self::Pin)
    }
}

/// May a member do this in a conversation of this kind? A former member may do nothing.
pub fn allows(kind: ConversationKind, member: &Member, action: Action) -> bool {
    if !member.is_present() {
        return false;
    }
    let (role, rights) = (member.role, member.rights(kind));
    if kind == ConversationKind::Direct {
        return matches!(
            action,
            Action::Send | Action::React | Action::Pin | Action::MentionAll
        );
    }
    if kind == ConversationKind::Broadcast && !action.is_of_list() {
        return false; // those to whom it goes do not know of it
    }
    if kind == ConversationKind::Support && !action.is_of_messages() {
        return false; // who is in a case follows from who has it
    }
    match action {
        Action::Leave | Action::Want => true,
        Action::Admit => rights.has(Rights::INVITE),
        Action::Send => rights.has(Rights::SEND),
        Action::React => rights.has(Rights::REACT),
        Action::Pin => rights.has(Rights::PIN),
        Action::DeleteOthers => rights.has(Rights::DELETE),
        Action::Settings => rights.has(Rights::SETTINGS),
        Action::MentionAll => role >= Role::Moderator,
        Action::Trim => rights.has(Rights::DELETE) && role >= Role::Admin,
        Action::Close | Action::Transfer | Action::Retention => role == Role::Owner,
        // Whoever may invite at all may invite members.
        Action::Add(wanted) => rights.has(Rights::INVITE) && wanted < role.max(Role::Moderator),
        Action::Remove(theirs) => rights.has(Rights::REMOVE) && theirs < role,
        Action::ChangeRole(from, to) => {
            rights.has(Rights::ROLES) && (role == Role::Owner || (from < role && to < role))
        }
        Action::Grant(theirs, given) => rights.has(Rights::ROLES.and(given)) && theirs < role,
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{Seq, UserId};

    use super::*;
    use crate::domain::member::Interval;
    use crate::domain::rights::Mask;

    fn member(role: Role) -> Member {
        Member {
            user: UserId::from_bytes([1; 16]),
            role,
            mask: Mask::default(),
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
    fn a_right_that_was_given_reaches_no_further_than_the_role() {
        let group = ConversationKind::Group;
        let with = |role, rights: &str| Member {
            mask: Mask {
                given: Some(rights.parse().unwrap()),
                want: None,
            },
            ..member(role)
        };
        let helper = with(Role::Member, "send invite remove roles");
        assert!(allows(group, &helper, Action::Add(Role::Member)));
        assert!(!allows(group, &helper, Action::Add(Role::Moderator)));
        assert!(allows(group, &helper, Action::Remove(Role::Reader)));
        assert!(!allows(group, &helper, Action::Remove(Role::Member)));
        let given = |rights| Action::Grant(Role::Reader, rights);
        assert!(allows(group, &helper, given(Rights::SEND)));
        assert!(!allows(group, &helper, given(Rights::PIN)), "not his own");
        let silent = with(Role::Admin, "react");
        assert!(!allows(group, &silent, Action::Send));
        assert!(allows(group, &silent, Action::Want));
        assert!(allows(ConversationKind::Direct, &silent, Action::Send));
    }

    #[test]
    fn only_an_owner_closes_and_hands_over() {
        for action in [Action::Close, Action::Transfer] {
            let group = ConversationKind::Group;
            assert!(allows(group, &member(Role::Owner), action));
            assert!(!allows(group, &member(Role::Admin), action));
            assert!(!allows(
                ConversationKind::Direct,
                &member(Role::Owner),
                action
            ));
        }
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
