//! The table of subscriptions: sessions and groups by the filters that they subscribed to.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use super::Router;
use super::shared::{Group, Member};
use super::trie::Trie;
use crate::codec::packet::Qos;
use crate::codec::topic::TopicFilter;
use crate::session::queue::Queue;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) trie: Trie<Entry>,
    /// By their names. A group with nobody in it is not here.
    pub(super) groups: HashMap<Arc<str>, Arc<Group>>,
    /// Of sessions alone.
    pub(super) subscriptions: usize,
    /// Of members of groups.
    pub(super) shared: usize,
}

/// Who subscribed to a filter: one session, or a group that shares the subscription.
#[derive(Debug)]
pub(super) enum Entry {
    Session(Subscription),
    Group(Arc<Group>),
}

#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) queue: Arc<Queue>,
    pub(super) qos: Qos,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<u32>,
}

impl Router {
    /// Adds a subscription, or changes its terms. True if it is new, or shared.
    pub(super) fn subscribe(&self, filter: &TopicFilter, subscription: Subscription) -> bool {
        if filter.split_share().0.is_none() {
            return self.insert(filter.as_str(), subscription);
        }
        let member = Member {
            queue: subscription.queue,
            qos: subscription.qos,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
        };
        self.join(filter, member);
        true
    }

    /// True if the subscription is new.
    fn insert(&self, filter: &str, subscription: Subscription) -> bool {
        let number = subscription.queue.number();
        let entry = Entry::Session(subscription);
        let mut table = self.write();
        let new = table.trie.insert(filter, number, entry).is_none();
        table.subscriptions += usize::from(new);
        self.generation.fetch_add(1, Ordering::Release);
        new
    }

    pub(super) fn remove(&self, filter: &str, subscriber: u64) {
        let mut table = self.write();
        let removed = table.trie.remove(filter, subscriber).is_some();
        table.subscriptions -= usize::from(removed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds a session to the group of a shared subscription.
    fn join(&self, filter: &TopicFilter, member: Member) {
        let mut table = self.write();
        if let Some(group) = table.groups.get(filter.as_str()) {
            let new = group.join(member);
            table.shared += usize::from(new);
            return;
        }
        let name: Arc<str> = filter.as_str().into();
        let group = Arc::new(Group::new(Arc::clone(&name), self.next_number()));
        group.join(member);
        let entry = Entry::Group(Arc::clone(&group));
        let (_, shared) = filter.split_share();
        table.trie.insert(shared, group.number(), entry);
        table.groups.insert(name, group);
        table.shared += 1;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Removes a member from its group. True if others are left.
    pub(super) fn part(&self, filter: &TopicFilter, subscriber: u64) -> bool {
        let mut table = self.write();
        let Some(group) = table.groups.get(filter.as_str()) else {
            return false;
        };
        let (number, left) = (group.number(), group.part(subscriber));
        table.shared -= 1;
        if left > 0 {
            return true;
        }
        table.trie.remove(filter.split_share().1, number);
        table.groups.remove(filter.as_str());
        self.generation.fetch_add(1, Ordering::Release);
        false
    }

    pub(super) fn group(&self, name: &str) -> Option<Arc<Group>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.groups.get(name).cloned()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
