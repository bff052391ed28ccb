//! Deliveries that wait for their acknowledgement, in the order of the first sending (MQTT 5.0 §4.3, §4.4).
//!
//! Each entry owns a Packet Identifier. An entry of an earlier connection is *unsent* until it has been sent again on this
//! one; only sent entries count against the client's Receive Maximum.
//!
//! A QoS 2 message of a session at rest is sent, and released, only when that is at rest: otherwise the server would not
//! know after a crash what the client knows. Such an entry *waits*; its place in the window is taken. What comes behind a
//! message that waits stands in line: the order is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use super::queue::{self, Queued, Stored};
use crate::budget::{CONNECTED_BYTES, Share};
use crate::codec::packet::{PacketId, Publish, Qos};
use crate::hooks::DeliveryRef;

/// The unacknowledged deliveries of one session.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    entries: VecDeque<Entry>,
    /// Entries that have been sent on this connection.
    sent: usize,
    /// Ordinary entries that are still to be sent on this connection.
    unsent: usize,
    /// Size of the messages.
    bytes: usize,
    /// Of the bytes for all sessions.
    share: Share,
    /// Messages that wait to be sent, in order.
    line: VecDeque<PacketId>,
    /// Released entries that have waited long enough.
    ready: VecDeque<PacketId>,
    /// The identifier to try next.
    next: u16,
    /// How many identifiers from `next` on are known to be free.
    free: u16,
}

#[derive(Debug)]
struct Entry {
    packet_id: PacketId,
    sent: bool,
    /// It has been sent, on this connection or an earlier one: the client may have it.
    begun: bool,
    content: Content,
    /// Answers of the store that are awaited.
    awaited: usize,
    /// What it is now is at rest, or need not be.
    at_rest: bool,
}

/// An entry that is to be sent.
#[derive(Debug)]
pub(super) struct Unsent<'a> {
    pub(super) packet_id: PacketId,
    pub(super) content: &'a Content,
    pub(super) dup: bool,
    /// It is not at rest as it is now.
    pub(super) asks: bool,
    /// Not now.
    pub(super) waits: bool,
}

/// What is in flight.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The plugin keeps the message: QoS 1.
    Plugin(DeliveryRef),
    /// An ordinary message: QoS 1, or QoS 2 before PUBREC.
    Message(Queued),
    /// QoS 2 after PUBREC: PUBCOMP is missing. Where the message is at rest.
    Released(Option<Stored>),
}

impl Entry {
    /// An ordinary entry that is still to be sent on this connection.
    const fn is_unsent(&self) -> bool {
        !self.sent && !matches!(self.content, Content::Plugin(_))
    }

    const fn as_unsent(&self) -> Unsent<'_> {
        Unsent {
            packet_id: self.packet_id,
            content: &self.content,
            dup: self.begun,
            asks: false,
            waits: false,
        }
    }
}

impl Content {
    /// Where it is at rest.
    pub(super) fn stored(&self) -> Option<Stored> {
        match self {
            Self::Plugin(_) => None,
            Self::Message(message) => message.stored,
            Self::Released(stored) => *stored,
        }
    }

    /// What it counts in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => queue::size(&message.publish),
            Self::Plugin(_) | Self::Released(_) => 0,
        }
    }

    /// Is it sent only when it is at rest?
    fn must_rest(&self) -> bool {
        match self {
            Self::Plugin(_) => false,
            Self::Message(message) => message.qos == Qos::ExactlyOnce && message.stored.is_some(),
            Self::Released(stored) => stored.is_some(),
        }
    }
}

impl Inflight {
    pub(crate) fn new(share: Share) -> Self {
        Self {
            share,
            ..Self::default()
        }
    }

    /// Deliveries that were found at rest, in their order: their client is away. Identifiers that are taken are left out.
    pub(crate) fn restored(
        deliveries: impl IntoIterator<Item = (PacketId, Content)>,
        share: Share,
    ) -> Self {
        let mut inflight = Self::new(share);
        for (packet_id, content) in deliveries {
            if inflight.position(packet_id).is_none() {
                inflight.bytes += content.bytes();
                inflight.entries.push_back(Entry {
                    packet_id,
                    sent: false,
                    begun: true,
                    content,
                    awaited: 0,
                    at_rest: true,
                });
            }
        }
        inflight.unsent = inflight.entries.len();
        inflight.share.hold(inflight.bytes);
        inflight
    }

    /// Takes a free identifier for something that is sent now, or waits to be. `None` when all 65,535 are taken.
    pub(crate) fn insert(&mut self, content: Content) -> Option<PacketId> {
        let packet_id = self.allocate()?;
        let waits = content.must_rest();
        self.bytes += content.bytes();
        self.share.hold(self.bytes);
        self.entries.push_back(Entry {
            packet_id,
            sent: true,
            begun: false,
            content,
            awaited: usize::from(waits),
            at_rest: !waits,
        });
        if waits || !self.line.is_empty() {
            self.line.push_back(packet_id);
        }
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
            begun: true,
            content: Content::Plugin(reference),
            awaited: 0,
            at_rest: true,
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
    pub(super) fn next_unsent(&mut self) -> Option<Unsent<'_>> {
        if self.unsent == 0 {
            return None;
        }
        let entry = self.entries.iter_mut().find(|entry| entry.is_unsent())?;
        let asks = !entry.at_rest;
        let mut waits = asks;
        if let Content::Message(_) = entry.content
            && (asks || !self.line.is_empty())
        {
            self.line.push_back(entry.packet_id);
            waits = true;
        }
        entry.sent = true;
        entry.awaited += usize::from(asks);
        self.sent += 1;
        self.unsent -= 1;
        Some(Unsent {
            asks,
            waits,
            ..entry.as_unsent()
        })
    }

    /// The next entry that has waited long enough.
    pub(super) fn next_ready(&mut self) -> Option<Unsent<'_>> {
        let packet_id = match self.ready.pop_front() {
            Some(packet_id) => packet_id,
            None => self.first_in_line()?,
        };
        self.entry_mut(packet_id).map(|entry| entry.as_unsent())
    }

    /// Takes the first message in line, if it need not wait any more.
    fn first_in_line(&mut self) -> Option<PacketId> {
        while let Some(packet_id) = self.line.front().copied() {
            match self.entry_mut(packet_id) {
                Some(Entry {
                    content: Content::Message(_),
                    at_rest,
                    ..
                }) => {
                    if !*at_rest {
                        return None;
                    }
                    self.line.pop_front();
                    return Some(packet_id);
                }
                // The client has answered what it had from an earlier connection.
                _ => self.line.pop_front(),
            };
        }
        None
    }

    /// The message is sent now.
    pub(super) fn begin(&mut self, packet_id: PacketId) {
        // Mostly it has just been inserted.
        let mut entries = self.entries.iter_mut().rev();
        if let Some(entry) = entries.find(|entry| entry.packet_id == packet_id) {
            entry.begun = true;
        }
    }

    /// Does the entry that was inserted last stand in line?
    pub(super) fn is_last_in_line(&self, packet_id: PacketId) -> bool {
        self.line.back() == Some(&packet_id)
    }

    /// One answer of the store for this entry.
    pub(crate) fn handle_kept(&mut self, packet_id: PacketId) {
        let Some(entry) = self.entry_mut(packet_id) else {
            return;
        };
        entry.awaited = entry.awaited.saturating_sub(1);
        if entry.awaited > 0 || entry.at_rest {
            return;
        }
        entry.at_rest = true;
        if let Content::Released(_) = entry.content {
            self.ready.push_back(packet_id);
        }
    }

    pub(crate) fn content(&self, packet_id: PacketId) -> Option<&Content> {
        let place = self.position(packet_id)?;
        self.entries.get(place).map(|entry| &entry.content)
    }

    /// Is the entry sent only when an answer of the store has come?
    pub(crate) fn waits(&self, packet_id: PacketId) -> bool {
        let place = self.position(packet_id);
        let entry = place.and_then(|place| self.entries.get(place));
        entry.is_some_and(|entry| !entry.at_rest)
    }

    /// PUBREC came: the message itself is not needed any more. Returns where it is at rest: PUBREL waits for that then.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> Option<Stored> {
        let entry = self.entry_mut(packet_id)?;
        let stored = entry.content.stored();
        // The place stays, the message goes.
        let place = |at: Stored| Stored { message: 0, ..at };
        let message = std::mem::replace(&mut entry.content, Content::Released(stored.map(place)));
        if stored.is_some() {
            entry.awaited += 1;
            entry.at_rest = false;
        }
        self.bytes -= message.bytes();
        self.share.hold(self.bytes);
        stored
    }

    /// The exchange is over: the identifier is free again.
    pub(crate) fn remove(&mut self, packet_id: PacketId) -> Option<Content> {
        let place = self.position(packet_id)?;
        let entry = self.entries.remove(place)?;
        self.bytes -= entry.content.bytes();
        self.share.hold(self.bytes);
        self.sent -= usize::from(entry.sent);
        self.unsent -= usize::from(entry.is_unsent());
        if self.entries.is_empty() && self.entries.capacity() > IDLE_CAPACITY {
            self.entries = VecDeque::new();
        }
        Some(entry.content)
    }

    /// Takes out the messages that are over and were never sent, on whatever connection.
    pub(crate) fn take_unbegun(&mut self, over: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let is_over = |entry: &Entry| match &entry.content {
            Content::Message(message) if !entry.begun => over(message),
            _ => false,
        };
        let ids = self.entries.iter().filter(|entry| is_over(entry));
        let ids: Vec<PacketId> = ids.map(|entry| entry.packet_id).collect();
        self.line.retain(|packet_id| !ids.contains(packet_id));
        let taken = ids
            .into_iter()
            .filter_map(|packet_id| self.remove(packet_id));
        taken
            .filter_map(|content| match content {
                Content::Message(message) => Some(message),
                Content::Plugin(_) | Content::Released(_) => None,
            })
            .collect()
    }

    /// Number of entries sent on this connection.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    /// How many bytes more may be in flight, if this is the most.
    pub(crate) fn room(&self, bytes_max: usize) -> usize {
        let room = bytes_max.saturating_sub(self.bytes);
        room.min(self.share.room(self.bytes))
    }

    /// Are there ordinary entries that are still to be sent on this connection?
    pub(crate) const fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// May there be something that has waited long enough?
    pub(crate) fn has_ready(&self) -> bool {
        let waits = |entry: &Entry| matches!(entry.content, Content::Message(_)) && !entry.at_rest;
        let first = self.line.front().map(|packet_id| self.position(*packet_id));
        let first = first.map(|place| place.and_then(|place| self.entries.get(place)));
        !self.ready.is_empty() || first.is_some_and(|entry| !entry.is_some_and(waits))
    }

    /// A connection has come.
    pub(crate) fn connect(&mut self) {
        self.share.set_free(CONNECTED_BYTES, self.bytes);
    }

    /// The connection has ended: takes out what the plugin keeps; the rest is unsent again.
    pub(crate) fn disconnect(&mut self) -> Vec<(PacketId, DeliveryRef)> {
        let mut plugin = Vec::new();
        self.entries.retain_mut(|entry| {
            entry.sent = false;
            entry.awaited = 0;
            match entry.content {
                Content::Plugin(reference) => {
                    plugin.push((entry.packet_id, reference));
                    false
                }
                Content::Message(_) | Content::Released(_) => true,
            }
        });
        self.sent = 0;
        self.ready = VecDeque::new();
        self.line = VecDeque::new();
        self.unsent = self.entries.len();
        self.entries.shrink_to_fit();
        self.share.set_free(0, self.bytes);
        plugin
    }

    /// Makes the messages independent of the buffers that they were read into. What is at rest is so from the beginning, and
    /// shared with others.
    pub(crate) fn compact(&mut self, copy: impl Fn(&Publish) -> Publish) {
        for entry in &mut self.entries {
            if let Content::Message(message) = &mut entry.content
                && message.stored.is_none()
            {
                message.publish = Arc::new(copy(&message.publish));
            }
        }
    }

    /// The messages themselves, in order, and whether the client may have each.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = (Queued, bool)> {
        self.entries
            .into_iter()
            .filter_map(|entry| match entry.content {
                Content::Message(message) => Some((message, entry.begun)),
                Content::Plugin(_) | Content::Released(_) => None,
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
    use crate::budget::Budgets;
    use crate::codec::properties::PublishProperties;
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
                        let new = inflight.insert(Content::Released(None)).unwrap();
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
            .map(|_| inflight.insert(Content::Released(None)).unwrap())
            .collect();
        assert_eq!(ids.len(), 65_535);
        assert_eq!(inflight.insert(Content::Released(None)), None);
        inflight.remove(id(9));
        assert_eq!(inflight.insert(Content::Released(None)), Some(id(9)));
    }

    #[test]
    fn what_is_in_flight_counts_against_what_all_sessions_may_hold() {
        let budgets = Budgets::new(100_000, 50_000);
        let share = || budgets.share(&"alice".into());
        let other = Inflight::new(share());
        let mut inflight = Inflight::new(share());
        inflight.connect();
        assert_eq!(inflight.room(usize::MAX), CONNECTED_BYTES + 50_000);
        let packet_id = inflight.insert(message(80_000)).unwrap();
        assert_eq!(inflight.room(usize::MAX), 0);
        assert_eq!(other.room(usize::MAX), 0);
        inflight.remove(packet_id);
        assert_eq!(other.room(usize::MAX), 50_000);
    }

    fn message(bytes: usize) -> Content {
        Content::Message(Queued {
            publish: Arc::new(Publish {
                dup: false,
                qos: Qos::AtLeastOnce,
                retain: false,
                topic: "t".into(),
                packet_id: None,
                payload: vec![0; bytes].into(),
                properties: PublishProperties::default().into(),
            }),
            expires_at: None,
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_identifiers: Vec::new(),
            share: None,
            stored: None,
        })
    }

    #[test]
    fn what_was_never_sent_can_be_taken_out() {
        let mut inflight = Inflight::default();
        let ids = [1, 2, 3].map(|bytes| inflight.insert(message(bytes)).unwrap());
        inflight.begin(ids[0]);
        inflight.disconnect();
        let is_short = |queued: &Queued| queued.publish.payload.len() < 3;
        let taken = inflight.take_unbegun(is_short);
        let lengths: Vec<_> = taken.iter().map(|it| it.publish.payload.len()).collect();
        assert_eq!(lengths, [2]);
        let mut left = Vec::new();
        while let Some(unsent) = inflight.next_unsent() {
            left.push(unsent.packet_id);
        }
        assert_eq!((left, inflight.sent()), (vec![ids[0], ids[2]], 2));
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
        let second = inflight.insert(Content::Released(None)).unwrap();
        let third = inflight
            .insert(Content::Plugin(DeliveryRef([3; 32])))
            .unwrap();
        assert_eq!(
            inflight.disconnect(),
            [(first, DeliveryRef([1; 32])), (third, DeliveryRef([3; 32]))]
        );
        assert_eq!(inflight.sent(), 0);
        assert_eq!(inflight.next_unsent().map(|it| it.packet_id), Some(second));
        assert!(inflight.next_unsent().is_none());
    }
}
