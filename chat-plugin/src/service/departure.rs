//! What becomes of the memberships of a user who was removed: nobody is left to leave by himself.

use std::cmp::Reverse;

use proto::ids::{ConversationId, ConversationKind, DeviceId, UserId};

use super::membership::Request;
use super::{Actor, Refusal, Service, new_mid};
use crate::domain::member::Member;

impl Service {
    /// Takes a removed user out of all groups and cases, and says how many. What was a last owner's goes to the senior member.
    /// Done again it goes on where it was cut off.
    ///
    /// # Errors
    /// What the store says of one of them; the others are done.
    pub async fn depart(&self, user: UserId) -> Result<usize, Refusal> {
        const PAGE: usize = 256;
        let actor = Actor {
            user,
            device: DeviceId::new(user, ""),
            from: None,
        };
        let (mut left, mut after, mut failed) = (0, None, None);
        loop {
            let ids = self.store.memberships_of(user, after, PAGE).await?;
            let Some(last) = ids.last().copied() else {
                return failed.map_or(Ok(left), Err);
            };
            after = Some(last);
            for id in ids {
                let done = match id.kind() {
                    ConversationKind::Direct => continue,
                    ConversationKind::Support => self.leave_case(actor, id).await,
                    _ => self.leave_group(actor, id).await,
                };
                match done {
                    Ok(has_left) => left += usize::from(has_left),
                    Err(error) => failed = Some(error),
                }
            }
        }
    }

    async fn leave_group(&self, actor: Actor, id: ConversationId) -> Result<bool, Refusal> {
        let request = Request {
            actor,
            id: new_mid()?, // one that the user cannot have used before
            digest: [0; 16],
        };
        let left = self.leave_to(request, id, &[], |scene| {
            (senior(&scene.members, actor.user), false)
        });
        left.await?;
        Ok(true)
    }
}

/// Who stands next to a member: the highest role, then the longest membership.
fn senior(members: &[Member], user: UserId) -> Option<UserId> {
    members
        .iter()
        .filter(|member| member.is_present() && member.user != user)
        .max_by_key(|member| (member.role, Reverse((member.joined, member.user))))
        .map(|member| member.user)
}

#[cfg(test)]
mod tests {
    use proto::ids::Seq;

    use super::*;
    use crate::domain::member::{Interval, Role};
    use crate::domain::rights::Mask;

    fn member(number: u8, role: Role, joined: u64, to: Seq) -> Member {
        Member {
            user: UserId::from_bytes([number; 16]),
            role,
            mask: Mask::default(),
            joined: Seq::new(joined),
            intervals: vec![Interval {
                from: Seq::new(1),
                joined: Seq::new(joined),
                to,
            }],
        }
    }

    #[test]
    fn the_highest_role_inherits_then_the_longest_membership() {
        let members = [
            member(1, Role::Owner, 1, Seq::MAX),
            member(2, Role::Member, 1, Seq::MAX),
            member(3, Role::Admin, 9, Seq::MAX),
            member(4, Role::Admin, 5, Seq::MAX),
            member(5, Role::Admin, 5, Seq::MAX),
            member(6, Role::Owner, 1, Seq::new(7)),
        ];
        let heir = |members| senior(members, UserId::from_bytes([1; 16]));
        assert_eq!(heir(&members), Some(UserId::from_bytes([4; 16])));
        assert_eq!(heir(&members[..2]), Some(UserId::from_bytes([2; 16])));
        assert_eq!(heir(&members[..1]), None);
    }
}
