//! Messages that wait for a moderator's decision.

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, MessageId, UserId};

use super::super::{keys, values};
use super::Writer;
use crate::domain::held::{HELD_MAX, Held, Holding};
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    pub(super) fn hold(&mut self, held: &Held) -> Result<Holding, StoreError> {
        let entry = &held.entry;
        let key = keys::held(entry.conversation, entry.from, entry.mid.as_str());
        if let Some(row) = self.row(tables::HELD, &key)? {
            let known = values::read_held(entry.conversation, &row)?;
            return Ok(if known.digest == held.digest {
                Holding::Held
            } else {
                Holding::Conflict
            });
        }
        self.commit_so_far()?;
        let low = keys::member(entry.conversation, UserId::from_bytes([0; 16]));
        let high = keys::held(
            entry.conversation,
            UserId::from_bytes([0xFF; 16]),
            "\u{10FFFF}",
        );
        if self
            .keys(tables::HELD, KeyRange::closed(&low, &high))?
            .len()
            >= HELD_MAX
        {
            return Ok(Holding::Full);
        }
        self.put(tables::HELD, &key, values::write_held(held));
        Ok(Holding::Held)
    }

    /// Says whether it was held.
    pub(super) fn end_hold(
        &mut self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<bool, StoreError> {
        let key = keys::held(conversation, from, mid.as_str());
        let was_held = self.row(tables::HELD, &key)?.is_some();
        if was_held {
            self.remove(tables::HELD, &key);
        }
        Ok(was_held)
    }

    /// Forgets what is held of one user. Scans, so what was gathered before must be committed.
    pub(super) fn end_holds_of(
        &mut self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<(), StoreError> {
        let low = keys::held(conversation, user, "");
        let high = keys::held(conversation, user, "\u{10FFFF}");
        for key in self.keys(tables::HELD, KeyRange::closed(&low, &high))? {
            self.remove(tables::HELD, &key);
        }
        Ok(())
    }
}
