//! Deliveries that wait for their acknowledgement, in the order of the first sending (MQTT 5.0 §4.3, §4.4).
//!
//! Each entry owns a Packet Identifier. An entry of an earlier connection is *unsent* until it has been sent again on this
//! one; only sent entries count against the client's Receive Maximum.

use std::collections::VecDeque;
use std::sync::Arc;

use super::queue::Queued;
use crate::codec::packet::{PacketId, Publish};
use crate::hooks::DeliveryRef;

/// The unacknowledged deliveries of one session.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    entries: VecDeque<Entry>,
    /// Entries that have been sent on this connection.
    sent: usize,
    /// Ordinary entries that are still to be sent on this connection.
    unsent: usize,
    /// The identifier to try next.
    next: u16,
    /// How many identifiers from `next` on are known to be free.
    free: u16,
}

#[derive(Debug)]
struct Entry {
    packet_id: PacketId,
    sent: bool,
    content: Content,
}

/// What is in flight.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The plugin keeps the message: QoS 1.
    Plugin(DeliveryRef),
    /// An ordinary message: QoS 1, or QoS 2 before PUBREC.
    Message(Queued),
    /// QoS 2 after PUBREC: PUBREL was sent, PUBCOMP is missing.
    Released,
}

impl Entry {
    /// An ordinary entry that is still to be sent on this connection.
    const fn is_unsent(&self) -> bool {
        !self.sent && !matches!(self.content, Content::Plugin(_))
    }
}

impl Inflight {
    /// Takes a free identifier for something that is sent now. `None` when all 65,535 are taken.
    pub(crate) fn insert(&mut self, content: Content) -> Option<PacketId> {
        let packet_id = self.allocate()?;
        self.entries.push_back(Entry {
            packet_id,
            sent: true,
            content,
        });
        self.sent += 1;
        Some(packet_id)
    }

    /// Reserves the identifier of a delivery of an earlier connection. False if it is taken.
    pub(crate) fn reserve(&mut self, packet_id: PacketId, reference: DeliveryRef) -> bool {
        if self.position(packet_id).is_some() {
            return false;
        }
        self.entries.push_back(Entry {
            packet_id,
            sent: false,
            content: Content::Plugin(reference),
        });
        self.free = 0;
        true
    }

    /// Marks a reserved delivery of the plugin as sent again. False if there is none, or it has been sent already.
    pub(crate) fn resend(&mut self, packet_id: PacketId, reference: DeliveryRef) -> bool {
        let Some(entry) = self.entry_mut(packet_id) else {
            return false;
        };
        match entry.content {
            Content::Plugin(known) if known == reference && !entry.sent => entry.sent = true,
            _ => return false,
        }
        self.sent += 1;
        true
    }

    /// The first ordinary entry that has not been sent on this connection yet; it counts as sent from now on.
    pub(crate) fn next_unsent(&mut self) -> Option<(PacketId, &Content)> {
        if self.unsent == 0 {
            return None;
        }
        let entry = self.entries.iter_mut().find(|entry| entry.is_unsent())?;
        entry.sent = true;
        self.sent += 1;
        self.unsent -= 1;
        Some((entry.packet_id, &entry.content))
    }

    pub(crate) fn content(&self, packet_id: PacketId) -> Option<&Content> {
        let place = self.position(packet_id)?;
        self.entries.get(place).map(|entry| &entry.content)
    }

    /// PUBREC came: the message itself is not needed any more.
    pub(crate) fn release(&mut self, packet_id: PacketId) {
        if let Some(entry) = self.entry_mut(packet_id) {
            entry.content = Content::Released;
        }
    }

    /// The exchange is over: the identifier is free again.
    pub(crate) fn remove(&mut self, packet_id: PacketId) -> Option<Content> {
        let place = self.position(packet_id)?;
        let entry = self.entries.remove(place)?;
        self.sent -= usize::from(entry.sent);
        self.unsent -= usize::from(entry.is_unsent());
        if self.entries.is_empty() && self.entries.capacity() > IDLE_CAPACITY {
            self.entries = VecDeque::new();
        }
        Some(entry.content)
    }

    /// Number of entries sent on this connection.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    /// The connection has ended: takes out what the plugin keeps; the rest is unsent again.
    pub(crate) fn disconnect(&mut self) -> Vec<(PacketId, DeliveryRef)> {
        let mut plugin = Vec::new();
        self.entries.retain_mut(|entry| {
            entry.sent = false;
            match entry.content {
                Content::Plugin(reference) => {
                    plugin.push((entry.packet_id, reference));
                    false
                }
                Content::Message(_) | Content::Released => true,
            }
        });
        self.sent = 0;
        self.unsent = self.entries.len();
        self.entries.shrink_to_fit();
        plugin
    }

    /// Makes the messages independent of the buffers that they were read into.
    pub(crate) fn compact(&mut self, copy: impl Fn(&Publish) -> Publish) {
        for entry in &mut self.entries {
            if let Content::Message(message) = &mut entry.content {
                message.publish = Arc::new(copy(&message.publish));
            }
        }
    }

    /// The messages themselves, in order.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Queued> {
        self.entries
            .into_iter()
            .filter_map(|entry| match entry.content {
                Content::Message(message) => Some(message),
                Content::Plugin(_) | Content::Released => None,
            })
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.packet_id == packet_id)
    }

    fn entry_mut(&mut self, packet_id: PacketId) -> Option<&mut Entry> {
        let place = self.position(packet_id)?;
        self.entries.get_mut(place)
    }

    fn allocate(&mut self) -> Option<PacketId> {
        if self.entries.len() >= usize::from(u16::MAX) {
            return None;
        }
        while self.free == 0 {
            let next = self.next;
            // Entries are added behind `next` only, so that what is free ahead stays free.
            self.free = self
                .entries
                .iter()
                .map(|entry| entry.packet_id.get().wrapping_sub(next))
                .min()
                .unwrap_or(u16::MAX);
            if self.free == 0 {
                self.next = next.wrapping_add(1);
            }
        }
        let id = PacketId::new(self.next);
        self.next = self.next.wrapping_add(1);
        self.free -= 1;
        match id {
            Some(id) => Some(id),
            None => self.allocate(),
        }
    }
}

/// An empty table with more room than this gives its memory back.
const IDLE_CAPACITY: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const REFERENCE: DeliveryRef = DeliveryRef([0; 32]);

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    proptest! {
        #[test]
        fn an_identifier_is_never_given_twice(
            start: u16,
            reserved in prop::collection::hash_set(1..=u16::MAX, 0..20),
            steps in prop::collection::vec(any::<Option<u8>>(), 0..200),
        ) {
            let mut inflight = Inflight { next: start, ..Inflight::default() };
            let mut taken: Vec<PacketId> = Vec::new();
            for number in reserved {
                prop_assert!(inflight.reserve(id(number), REFERENCE));
                taken.push(id(number));
            }
            for step in steps {
                match step {
                    Some(pick) if !taken.is_empty() => {
                        let gone = taken.swap_remove(usize::from(pick) % taken.len());
                        prop_assert!(inflight.remove(gone).is_some());
                    }
                    _ => {
                        let new = inflight.insert(Content::Released).unwrap();
                        prop_assert!(!taken.contains(&new));
                        taken.push(new);
                    }
                }
            }
        }
    }

    #[test]
    fn all_identifiers_can_be_in_flight_and_no_more() {
        let mut inflight = Inflight::default();
        let ids: HashSet<PacketId> = (0..u16::MAX)
            .map(|_| inflight.insert(Content::Released).unwrap())
            .collect();
        assert_eq!(ids.len(), 65_535);
        assert_eq!(inflight.insert(Content::Released), None);
        inflight.remove(id(9));
        assert_eq!(inflight.insert(Content::Released), Some(id(9)));
    }

    #[test]
    fn a_restored_delivery_is_resent_once() {
        let mut inflight = Inflight::default();
        inflight.reserve(id(7), REFERENCE);
        assert_eq!(inflight.sent(), 0);
        assert!(inflight.resend(id(7), REFERENCE));
        assert!(!inflight.resend(id(7), REFERENCE));
        assert!(!inflight.resend(id(8), REFERENCE));
        assert_eq!(inflight.sent(), 1);
    }

    #[test]
    fn disconnect_gives_the_plugin_its_deliveries_in_order() {
        let mut inflight = Inflight::default();
        let first = inflight
            .insert(Content::Plugin(DeliveryRef([1; 32])))
            .unwrap();
        let second = inflight.insert(Content::Released).unwrap();
        let third = inflight
            .insert(Content::Plugin(DeliveryRef([3; 32])))
            .unwrap();
        assert_eq!(
            inflight.disconnect(),
            [(first, DeliveryRef([1; 32])), (third, DeliveryRef([3; 32]))]
        );
        assert_eq!(inflight.sent(), 0);
        assert_eq!(inflight.next_unsent().map(|(id, _)| id), Some(second));
        assert!(inflight.next_unsent().is_none());
    }
}
