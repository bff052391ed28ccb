//! Marks that a client sets on purpose: read, received, unread. Durable before their ack.

use std::sync::Arc;

use proto::ids::{ConversationId, Seq};

use super::{Actor, Refusal, Service};
use crate::conversations::{Live, MarksChange, MarksMoved, Sight};
use crate::delivery::reader::Reader;
use crate::receipts::Receipts;
use crate::store::{Durability, Move};

/// A read mark as the client asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// Up to here; `None`: everything delivered to this device.
    pub seq: Option<Seq>,
    /// For the own devices only.
    pub private: bool,
}

impl Service {
    /// Moves the read watermark of a user.
    ///
    /// # Errors
    /// [`Refusal::Format`] for a mark beyond the head: nothing moves.
    pub(crate) async fn read(
        &self,
        actor: Actor,
        id: ConversationId,
        mark: ReadMark,
        reader: &Reader,
    ) -> Result<(), Refusal> {
        let (live, sight) = self.seen(actor.user, id).await?;
        let seq = match mark.seq {
            Some(seq) => seq,
            None => self
                .delivered_to(actor, id, reader)
                .await?
                .unwrap_or_else(|| sight.marks.delivered())
                .min(sight.last_visible()),
        };
        check_mark(seq, sight.last_visible())?;
        // Who does not want to tells nobody.
        let read = if mark.private || !self.shows(reader).await?.read {
            Seq::ZERO
        } else {
            let before = sight.marks.read;
            self.delivery
                .told_mark(&live, actor.user, (before, seq))
                .await?
        };
        let change = MarksChange {
            read,
            private_read: if read < seq { seq } else { Seq::ZERO },
            unread_flag: Some(false),
            ts_ms: crate::clock::now_ms(),
            ..MarksChange::default()
        };
        self.mark(&live, &sight, actor, (change, None)).await
    }

    /// The device says that it has everything up to `seq`.
    ///
    /// # Errors
    /// [`Refusal::Format`] for a mark beyond the head: nothing moves.
    pub(crate) async fn received(
        &self,
        actor: Actor,
        id: ConversationId,
        seq: Seq,
        reader: &Reader,
    ) -> Result<(), Refusal> {
        let (live, sight) = self.seen(actor.user, id).await?;
        check_mark(seq, sight.last_visible())?;
        let cursor = reader.is_known().then_some(Move::Cursor {
            device: actor.device,
            conversation: id,
            seq,
        });
        // Who does not want to tells nobody.
        let delivered = if self.shows(reader).await?.delivered {
            let before = sight.marks.delivered();
            let told = self.delivery.told_mark(&live, actor.user, (before, seq));
            told.await?
        } else {
            Seq::ZERO
        };
        let change = MarksChange {
            delivered,
            ts_ms: crate::clock::now_ms(),
            ..MarksChange::default()
        };
        self.mark(&live, &sight, actor, (change, cursor)).await?;
        reader.received(id, seq);
        Ok(())
    }

    /// Shows a conversation as unread, or no longer. Moves no watermark.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see it.
    pub(crate) async fn unread(
        &self,
        actor: Actor,
        id: ConversationId,
        flag: bool,
    ) -> Result<(), Refusal> {
        let (live, sight) = self.seen(actor.user, id).await?;
        let change = MarksChange {
            unread_flag: Some(flag),
            ts_ms: crate::clock::now_ms(),
            ..MarksChange::default()
        };
        self.mark(&live, &sight, actor, (change, None)).await
    }

    async fn mark(
        &self,
        live: &Arc<Live>,
        sight: &Sight,
        actor: Actor,
        (change, cursor): (MarksChange, Option<Move>),
    ) -> Result<(), Refusal> {
        let marks = Move::Marks {
            conversation: live.id(),
            user: actor.user,
            delivered: change.delivered,
            read: change.read,
            private_read: change.private_read,
            unread_flag: change.unread_flag,
            ts_ms: change.ts_ms,
        };
        let due = Receipts::due_with(live, actor.user, change);
        let moves = std::iter::once(marks).chain(cursor).chain(due).collect();
        // Before and after: who makes the conversation clean for an account sync between the two must not miss it, and what
        // is read again meanwhile may be older.
        live.move_marks(actor.user, change);
        self.store.advance(moves, Durability::Durable).await?;
        // Not the flag: of two that change at once the one that was stored last may be the first to come here.
        let read_again = MarksChange {
            unread_flag: None,
            ..change
        };
        live.move_marks(actor.user, read_again);
        // Told from where it stood before: a change of members may have read the new mark from the store already.
        let from = sight.marks;
        let to = change.applied_to(from);
        if from.own_read() != to.own_read()
            || from.read != to.read
            || from.unread_flag != to.unread_flag
        {
            self.delivery.account_changed(actor.user);
        }
        self.delivery
            .marks_moved(live, actor.user, MarksMoved { from, to });
        Ok(())
    }

    /// What this device has been delivered; `None` for a connection without a cursor, such as one that only publishes.
    async fn delivered_to(
        &self,
        actor: Actor,
        id: ConversationId,
        reader: &Reader,
    ) -> Result<Option<Seq>, Refusal> {
        if let Some(cursor) = reader.cursor(id) {
            return Ok(Some(cursor));
        }
        let stored = self.store.cursors(actor.device, Some(id)).await?;
        Ok(stored.first().map(|(_, cursor)| *cursor))
    }
}

fn check_mark(seq: Seq, head: Seq) -> Result<(), Refusal> {
    if seq > head {
        return Err(Refusal::format(format!(
            "mark {seq} is beyond the head {head}"
        )));
    }
    Ok(())
}
