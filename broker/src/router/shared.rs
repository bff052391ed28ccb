//! Shared Subscriptions (MQTT 5.0 §4.8.2): of a group of sessions, each message goes to one.
//!
//! A group is a share name with a filter. Its members take turns. Who is connected and has room goes before who is away;
//! only when nobody has room a message is dropped. What a member that leaves had not delivered goes to the others: each
//! message that waits for a session knows the group that it came by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::subscriptions::Subscription;
use crate::codec::packet::Qos;
use crate::session::queue::{Pushed, Queue, Queued, Shared};

/// The sessions that share one subscription.
#[derive(Debug)]
pub(crate) struct Group {
    /// The filter with `$share/{name}/` before it.
    name: Arc<str>,
    /// Names the group in the trie.
    number: u64,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Member>,
    /// Whose turn it is.
    next: usize,
}

/// One session of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) queue: Arc<Queue>,
    pub(crate) qos: Qos,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

impl Group {
    pub(crate) fn new(name: Arc<str>, number: u64) -> Self {
        Self {
            name,
            number,
            members: Mutex::default(),
        }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Adds a member, or changes its terms. True if it is new.
    pub(crate) fn join(&self, member: Member) -> bool {
        let mut members = self.lock();
        let number = member.queue.number();
        let known = members.list.iter_mut().find(|it| it.number() == number);
        if let Some(known) = known {
            *known = member;
            return false;
        }
        members.list.push(member);
        true
    }

    /// Lowers the QoS of a member. Returns its terms as they are then.
    pub(super) fn lower(&self, subscriber: u64, qos: Qos) -> Option<Subscription> {
        let mut members = self.lock();
        let member = members
            .list
            .iter_mut()
            .find(|it| it.number() == subscriber)?;
        member.qos = qos;
        Some(Subscription {
            queue: Arc::clone(&member.queue),
            qos,
            no_local: false,
            retain_as_published: member.retain_as_published,
            identifier: member.identifier,
        })
    }

    /// Removes a member; returns how many are left. It gets nothing from the group any more.
    pub(crate) fn part(&self, subscriber: u64) -> usize {
        let mut members = self.lock();
        members.list.retain(|it| it.number() != subscriber);
        members.list.len()
    }

    /// Gives a message to the member whose turn it is.
    pub(crate) fn give(&self, shared: &mut Shared) -> Pushed {
        let mut members = self.lock();
        let (before, from) = members.list.split_at(members.next.min(members.list.len()));
        let in_turn = || (members.next..).zip(from).chain((0..).zip(before));
        let connected = in_turn().filter(|(_, member)| member.queue.is_connected());
        let mut result = Pushed::Nobody;
        // Whoever comes or goes in between is tried at least once.
        for (place, member) in connected.chain(in_turn()) {
            match member.push(shared, &self.name) {
                Pushed::Waits => {
                    members.next = place + 1;
                    return Pushed::Waits;
                }
                Pushed::Full => result = Pushed::Full,
                Pushed::Nobody => {}
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn number(&self) -> u64 {
        self.queue.number()
    }

    fn push(&self, shared: &mut Shared, name: &Arc<str>) -> Pushed {
        let expires_at = shared.expires_at;
        let qos = shared.live().qos.min(self.qos);
        let retain = shared.live().retain && self.retain_as_published;
        self.queue.push(shared, qos, |publish| Queued {
            publish,
            expires_at,
            qos,
            retain,
            subscription_identifiers: self.identifier.into_iter().collect(),
            share: Some(Arc::clone(name)),
            stored: None,
        })
    }
}
