//! The tail of a conversation in memory: for live delivery and short absences.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::ids::{Seq, UserId};

use crate::render::Line;

/// How much of the tails of conversations stays in memory for live delivery.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Entries of one conversation.
    pub entries_max: usize,
    /// Bytes of their bodies.
    pub bytes_max: usize,
    /// Bytes of all conversations.
    pub total_bytes_max: usize,
}

/// The newest entries of one conversation, without a gap.
#[derive(Default)]
pub(super) struct Ring {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    /// Bytes in all rings.
    total: Arc<AtomicUsize>,
}

impl Ring {
    /// `total` counts what all rings hold.
    pub(super) fn new(total: Arc<AtomicUsize>) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            total,
        }
    }

    /// Takes a new entry; after a gap it is the only one.
    pub(super) fn push(&mut self, line: Arc<Line>, limits: RingLimits) {
        let last = self.lines.back();
        if last.is_some_and(|last| last.entry.seq.next() != line.entry.seq) {
            self.clear();
        }
        self.bytes += line.size();
        self.total.fetch_add(line.size(), Ordering::Relaxed);
        self.lines.push_back(line);
        while self.lines.len() > limits.entries_max
            || (self.bytes > limits.bytes_max && self.lines.len() > 1)
        {
            if let Some(old) = self.lines.pop_front() {
                self.bytes -= old.size();
                self.total.fetch_sub(old.size(), Ordering::Relaxed);
            }
        }
    }

    /// An entry as it is from now on, if it is there.
    pub(super) fn replace(&mut self, line: Arc<Line>) {
        let Some(first) = self.lines.front().map(|first| first.entry.seq) else {
            return;
        };
        let index = line.entry.seq.get().checked_sub(first.get());
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(place) = index.and_then(|index| self.lines.get_mut(index)) {
            let (old, new) = (place.size(), line.size());
            *place = line;
            self.bytes = self.bytes + new - old;
            self.total.fetch_add(new, Ordering::Relaxed);
            self.total.fetch_sub(old, Ordering::Relaxed);
        }
    }

    /// The entry at `seq`, if it is there.
    pub(super) fn get(&self, seq: Seq) -> Option<Arc<Line>> {
        let first = self.lines.front()?.entry.seq;
        let index = usize::try_from(seq.get().checked_sub(first.get())?).ok()?;
        self.lines.get(index).cloned()
    }

    /// The messages after `after` up to `to`, and who wrote them; `None` if they are not all there.
    pub(super) fn messages(&self, after: Seq, to: Seq) -> Option<Vec<(Seq, UserId)>> {
        let before_first = self.lines.front()?.entry.seq.previous();
        let index = |seq: Seq| usize::try_from(seq.get().checked_sub(before_first.get())?).ok();
        let (start, end) = (index(after)?, index(to)?);
        if end > self.lines.len() || start > end {
            return None;
        }
        let entries = self.lines.range(start..end).map(|line| &*line.entry);
        let messages = entries.filter(|entry| entry.kind.is_countable());
        Some(messages.map(|entry| (entry.seq, entry.from)).collect())
    }

    /// Lets go of all of it.
    pub(super) fn clear(&mut self) {
        self.lines = VecDeque::new();
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::ids::{ConversationId, DeviceId, MessageId};

    use super::*;
    use crate::domain::entry::{BodyFormat, Entry, EntryKind, Mentioned};

    const LIMITS: RingLimits = RingLimits {
        entries_max: 8,
        bytes_max: usize::MAX,
        total_bytes_max: usize::MAX,
    };

    fn line(seq: u64) -> Arc<Line> {
        let user = UserId::new(1, [0; 10]);
        let entry = Entry {
            conversation: ConversationId::direct(user, user),
            seq: Seq::new(seq),
            mseq: seq,
            ts_ms: seq,
            from: user,
            device: DeviceId::from_bytes([0; 16]),
            mid: "m".parse::<MessageId>().unwrap(),
            kind: EntryKind::Message,
            format: BodyFormat::Text,
            opaque: false,
            body: Bytes::from_static(b"twenty bytes of text"),
            target: None,
            thread: None,
            expires_ms: None,
            mentions: Mentioned::default(),
            gone: None,
            source: None,
            overlay: None,
        };
        Arc::new(Line::new(Arc::new(entry), None))
    }

    fn full_ring(total: &Arc<AtomicUsize>) -> Ring {
        let mut ring = Ring::new(Arc::clone(total));
        for seq in 1..=10 {
            ring.push(line(seq), LIMITS);
        }
        ring
    }

    fn messages(ring: &Ring, after: u64, to: u64) -> Option<Vec<u64>> {
        let found = ring.messages(Seq::new(after), Seq::new(to))?;
        Some(found.into_iter().map(|(seq, _)| seq.get()).collect())
    }

    #[test]
    fn a_stretch_is_known_only_if_all_of_it_is_in_memory() {
        let ring = full_ring(&Arc::default());
        assert_eq!(messages(&ring, 7, 9), Some(vec![8, 9]));
        assert_eq!(messages(&ring, 2, 3), Some(vec![3]));
        assert_eq!(messages(&ring, 1, 3), None, "2 is gone");
        assert_eq!(messages(&ring, 9, 11), None, "11 is not there yet");
        assert_eq!(messages(&ring, 0, 2), None);
    }

    #[test]
    fn a_changed_entry_takes_the_place_of_what_it_was() {
        let total = Arc::new(AtomicUsize::default());
        let mut ring = full_ring(&total);
        let mut entry = (*line(5).entry).clone();
        entry.make_gone(crate::domain::overlay::GoneReason::Deleted);
        let gone = Arc::new(Line::new(Arc::new(entry), None));
        ring.replace(Arc::clone(&gone));
        let found = ring.get(Seq::new(5)).unwrap();
        assert!(Arc::ptr_eq(&found, &gone));
        assert_eq!(ring.get(Seq::new(6)).unwrap().entry.gone, None);
        ring.replace(line(1));
        ring.replace(line(11));
        assert!(ring.get(Seq::new(1)).is_none(), "it is not there");
        drop((found, ring));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn rings_count_what_they_hold() {
        let total = Arc::new(AtomicUsize::default());
        let one = line(1).size();
        let mut ring = full_ring(&total);
        assert_eq!(total.load(Ordering::Relaxed), 8 * one);
        ring.push(line(20), LIMITS);
        assert_eq!(total.load(Ordering::Relaxed), one);
        drop(ring);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
