//! Moves of cursors and marks that are not durable yet: kept in memory, merged by maximum, seen by every read.
//!
//! 1. A caller merges its move in (and, if it must be durable, asks the writer to settle that key).
//! 2. The writer takes copies, folds them into the rows, commits.
//! 3. Only then what has not moved meanwhile is forgotten. A reader that looks here first and into the engine afterwards
//!    therefore misses nothing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId};

use crate::domain::member::Marks;
use crate::store::Move;

/// Number of locks per kind of move; a power of two.
const SHARDS: usize = 16;

/// A move of marks: what is merged into [`Marks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MarksMove {
    delivered: Seq,
    read: Seq,
    private_read: Seq,
    unread_flag: Option<bool>,
    ts_ms: u64,
}

impl MarksMove {
    /// Merges this move into the marks.
    pub(super) fn fold_into(self, marks: &mut Marks) {
        if self.delivered > marks.delivered || self.read > marks.read {
            marks.moved_ms = marks.moved_ms.max(self.ts_ms);
        }
        marks.delivered = marks.delivered.max(self.delivered);
        marks.read = marks.read.max(self.read);
        marks.private_read = marks.private_read.max(self.private_read);
        marks.unread_flag = self.unread_flag.unwrap_or(marks.unread_flag);
    }
}

/// What can wait in the overlay.
trait Merge: Copy + PartialEq {
    fn merge(&mut self, later: Self);
}

impl Merge for Seq {
    fn merge(&mut self, later: Self) {
        *self = (*self).max(later);
    }
}

impl Merge for u64 {
    fn merge(&mut self, later: Self) {
        *self = (*self).max(later);
    }
}

impl Merge for MarksMove {
    fn merge(&mut self, later: Self) {
        if later.delivered > self.delivered || later.read > self.read {
            self.ts_ms = self.ts_ms.max(later.ts_ms);
        }
        self.delivered = self.delivered.max(later.delivered);
        self.read = self.read.max(later.read);
        self.private_read = self.private_read.max(later.private_read);
        self.unread_flag = later.unread_flag.or(self.unread_flag);
    }
}

/// Key of a row that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum OverlayKey {
    Cursor(DeviceId, ConversationId),
    Marks(ConversationId, UserId),
    ReceiptDue(UserId, ConversationId),
}

impl OverlayKey {
    /// The key that a move touches.
    pub(super) fn of(step: &Move) -> Self {
        match *step {
            Move::Cursor {
                device,
                conversation,
                ..
            } => Self::Cursor(device, conversation),
            Move::Marks {
                conversation, user, ..
            } => Self::Marks(conversation, user),
            Move::ReceiptDue {
                user, conversation, ..
            } => Self::ReceiptDue(user, conversation),
        }
    }
}

/// A copy of what waits under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Cursor(DeviceId, ConversationId, Seq),
    Marks(ConversationId, UserId, MarksMove),
    ReceiptDue(UserId, ConversationId, u64),
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    cursors: Sharded<DeviceId, ConversationId, Seq>,
    marks: Sharded<ConversationId, UserId, MarksMove>,
    due: Sharded<UserId, ConversationId, u64>,
    len: AtomicUsize,
}

impl Overlay {
    /// Merges moves in. Says whether the overlay was empty before: then the writer has to be told.
    pub(super) fn merge(&self, moves: &[Move]) -> bool {
        let added: usize = moves
            .iter()
            .map(|step| usize::from(self.merge_one(step)))
            .sum();
        added > 0 && self.len.fetch_add(added, Ordering::AcqRel) == 0
    }

    fn merge_one(&self, step: &Move) -> bool {
        match *step {
            Move::Cursor {
                device,
                conversation,
                seq,
            } => self.cursors.merge(device, conversation, seq),
            Move::Marks {
                conversation,
                user,
                delivered,
                read,
                private_read,
                unread_flag,
                ts_ms,
            } => {
                let step = MarksMove {
                    delivered,
                    read,
                    private_read,
                    unread_flag,
                    ts_ms,
                };
                self.marks.merge(conversation, user, step)
            }
            Move::ReceiptDue {
                user,
                conversation,
                ts_ms,
            } => self.due.merge(user, conversation, ts_ms),
        }
    }

    /// Rows that wait.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The waiting cursor of a device.
    pub(super) fn cursor(&self, device: DeviceId, conversation: ConversationId) -> Option<Seq> {
        self.cursors.get(device, conversation)
    }

    /// All waiting cursors of a device.
    pub(super) fn cursors(&self, device: DeviceId) -> Vec<(ConversationId, Seq)> {
        self.cursors.of(device, first_cid()..=last_cid())
    }

    /// The waiting moves of marks in a conversation, by user.
    pub(super) fn marks(
        &self,
        conversation: ConversationId,
        users: RangeInclusive<UserId>,
    ) -> Vec<(UserId, MarksMove)> {
        self.marks.of(conversation, users)
    }

    /// Waiting receipts for a user.
    pub(super) fn receipts_due(&self, user: UserId) -> Vec<(ConversationId, u64)> {
        self.due.of(user, first_cid()..=last_cid())
    }

    /// A copy of what waits under `key`.
    pub(super) fn peek(&self, key: OverlayKey) -> Option<Waiting> {
        Some(match key {
            OverlayKey::Cursor(a, b) => Waiting::Cursor(a, b, self.cursors.get(a, b)?),
            OverlayKey::Marks(a, b) => Waiting::Marks(a, b, self.marks.get(a, b)?),
            OverlayKey::ReceiptDue(a, b) => Waiting::ReceiptDue(a, b, self.due.get(a, b)?),
        })
    }

    /// Appends copies of everything that waits.
    pub(super) fn copy_all(&self, out: &mut Vec<Waiting>) {
        self.cursors
            .each(|a, b, seq| out.push(Waiting::Cursor(a, b, seq)));
        self.marks
            .each(|a, b, step| out.push(Waiting::Marks(a, b, step)));
        self.due
            .each(|a, b, ts| out.push(Waiting::ReceiptDue(a, b, ts)));
    }

    /// Forgets what has been committed and has not moved since.
    pub(super) fn settle(&self, written: &[Waiting]) {
        let gone: usize = written
            .iter()
            .map(|row| {
                usize::from(match *row {
                    Waiting::Cursor(a, b, seq) => self.cursors.remove_if(a, b, seq),
                    Waiting::Marks(a, b, step) => self.marks.remove_if(a, b, step),
                    Waiting::ReceiptDue(a, b, ts) => self.due.remove_if(a, b, ts),
                })
            })
            .sum();
        self.len.fetch_sub(gone, Ordering::AcqRel);
    }

    /// Forgets the cursors of a device.
    pub(super) fn forget_device(&self, device: DeviceId) {
        let gone = self.cursors.remove_all(device, first_cid()..=last_cid());
        self.len.fetch_sub(gone, Ordering::AcqRel);
    }
}

const fn first_cid() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Direct, [0; 16])
}

const fn last_cid() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Support, [0xFF; 16])
}

/// An id that says which lock it belongs to.
trait ShardKey: Copy + Ord {
    fn shard(self) -> usize;
}

impl ShardKey for UserId {
    fn shard(self) -> usize {
        last_byte(self.as_bytes())
    }
}

impl ShardKey for DeviceId {
    fn shard(self) -> usize {
        last_byte(self.as_bytes())
    }
}

impl ShardKey for ConversationId {
    fn shard(self) -> usize {
        last_byte(self.as_bytes())
    }
}

fn last_byte(bytes: &[u8; 16]) -> usize {
    usize::from(bytes.last().copied().unwrap_or_default()) & (SHARDS - 1)
}

/// An ordered map in [`SHARDS`] pieces; all rows of one `A` are in one piece.
#[derive(Debug)]
struct Sharded<A, B, V> {
    shards: [Mutex<BTreeMap<(A, B), V>>; SHARDS],
}

impl<A, B, V> Default for Sharded<A, B, V> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl<A: ShardKey, B: Copy + Ord, V: Merge> Sharded<A, B, V> {
    fn lock(&self, a: A) -> Option<MutexGuard<'_, BTreeMap<(A, B), V>>> {
        let shard = self.shards.get(a.shard())?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whether the row is new.
    fn merge(&self, a: A, b: B, value: V) -> bool {
        let Some(mut rows) = self.lock(a) else {
            return false;
        };
        let mut is_new = false;
        rows.entry((a, b))
            .and_modify(|row| row.merge(value))
            .or_insert_with(|| {
                is_new = true;
                value
            });
        is_new
    }

    fn get(&self, a: A, b: B) -> Option<V> {
        self.lock(a)?.get(&(a, b)).copied()
    }

    fn of(&self, a: A, range: RangeInclusive<B>) -> Vec<(B, V)> {
        if range.is_empty() {
            return Vec::new();
        }
        self.lock(a).map_or_else(Vec::new, |rows| {
            rows.range((a, *range.start())..=(a, *range.end()))
                .map(|((_, b), value)| (*b, *value))
                .collect()
        })
    }

    fn each(&self, mut visit: impl FnMut(A, B, V)) {
        for shard in &self.shards {
            let rows = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for ((a, b), value) in rows.iter() {
                visit(*a, *b, *value);
            }
        }
    }

    fn remove_if(&self, a: A, b: B, value: V) -> bool {
        let Some(mut rows) = self.lock(a) else {
            return false;
        };
        rows.get(&(a, b)) == Some(&value) && rows.remove(&(a, b)).is_some()
    }

    fn remove_all(&self, a: A, range: RangeInclusive<B>) -> usize {
        let Some(mut rows) = self.lock(a) else {
            return 0;
        };
        let keys: Vec<_> = rows
            .range((a, *range.start())..=(a, *range.end()))
            .map(|(key, _)| *key)
            .collect();
        for key in &keys {
            rows.remove(key);
        }
        keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seq: u64) -> Move {
        Move::Cursor {
            device: DeviceId::from_bytes([1; 16]),
            conversation: first_cid(),
            seq: Seq::new(seq),
        }
    }

    #[test]
    fn what_moved_after_the_copy_stays() {
        let overlay = Overlay::default();
        assert!(overlay.merge(&[step(3)]), "it was empty");
        assert!(!overlay.merge(&[step(2)]));
        let mut copies = Vec::new();
        overlay.copy_all(&mut copies);
        overlay.merge(&[step(4)]);
        overlay.settle(&copies);
        let device = DeviceId::from_bytes([1; 16]);
        assert_eq!(overlay.cursors(device), [(first_cid(), Seq::new(4))]);

        copies.clear();
        overlay.copy_all(&mut copies);
        overlay.settle(&copies);
        assert_eq!(overlay.len(), 0);
        assert_eq!(overlay.cursor(device, first_cid()), None);
    }

    #[test]
    fn marks_merge_by_maximum_and_the_last_flag_wins() {
        let mut marks = Marks {
            read: Seq::new(5),
            ..Marks::default()
        };
        let mut step = MarksMove {
            delivered: Seq::new(7),
            read: Seq::new(4),
            unread_flag: Some(true),
            ts_ms: 10,
            ..MarksMove::default()
        };
        step.merge(MarksMove {
            unread_flag: Some(false),
            ts_ms: 11,
            ..MarksMove::default()
        });
        step.fold_into(&mut marks);
        assert_eq!(marks.delivered, Seq::new(7));
        assert_eq!(marks.read, Seq::new(5));
        assert!(!marks.unread_flag);
        assert_eq!(marks.moved_ms, 10, "the flag is no move");
    }
}
