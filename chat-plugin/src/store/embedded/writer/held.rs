//! Messages that wait for a moderator's decision.

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, MessageId, Seq, UserId};

use super::super::{keys, values};
use super::Writer;
use super::joining::Rows;
use super::waiting::Tally;
use crate::domain::audit::AuditLine;
use crate::domain::entry::{Draft, Outcome};
use crate::domain::held::{HELD_MAX, HELD_OF_SENDER_MAX, Held, Holding};
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    /// Puts a draft aside. Its exchange is as settled as that of a message that is stored.
    pub(super) fn hold(&mut self, draft: Draft, reason: String) -> Result<Holding, StoreError> {
        if self.exchanged(&draft)?.is_some() {
            return Ok(Holding::Held);
        }
        let (conversation, from) = (draft.conversation, draft.from);
        let key = keys::held(conversation, from, draft.mid.as_str());
        if let Some(row) = self.row(tables::HELD, &key)? {
            if values::read_held_digest(&row)? != draft.digest {
                return Ok(Holding::Conflict);
            }
            self.put_exchange(&draft, Seq::ZERO, draft.ts_ms);
            return Ok(Holding::Held);
        }
        match self.rejected(&draft)? {
            None => {}
            Some(Outcome::Conflict) => return Ok(Holding::Conflict),
            Some(_) => {
                self.put_exchange(&draft, Seq::ZERO, draft.ts_ms);
                return Ok(Holding::Held); // for who sent it nothing has changed
            }
        }
        let (of_all, of_sender) = (keys::cid(conversation), keys::member(conversation, from));
        let (all, own) = (self.tally(&of_all)?, self.tally(&of_sender)?);
        if all.count >= HELD_MAX || own.count >= HELD_OF_SENDER_MAX {
            return Ok(Holding::Full);
        }
        // In slow mode, what waits counts as what is said.
        let is_soon = own.count > 0 && draft.ts_ms.abs_diff(own.last_ms) < draft.slow_ms;
        let wait_ms = own.last_ms.saturating_add(draft.slow_ms);
        let soon = is_soon.then(|| wait_ms.saturating_sub(draft.ts_ms).clamp(1, draft.slow_ms));
        if let Some(retry_ms) = soon.max(self.too_soon(&draft)?) {
            return Ok(Holding::TooSoon { retry_ms });
        }
        self.put_tally(&of_all, all.and(draft.ts_ms));
        self.put_tally(&of_sender, own.and(draft.ts_ms));
        self.put_exchange(&draft, Seq::ZERO, draft.ts_ms);
        let value = values::write_held(&Held::of(draft, reason));
        self.occupied.insert(tables::HELD, true);
        self.put(tables::HELD, &key, value);
        Ok(Holding::Held)
    }

    /// Ends the holding of a message, and remembers that it was rejected. Says whether it was held.
    pub(super) fn reject_held(
        &mut self,
        (conversation, from, mid): (ConversationId, UserId, &MessageId),
        line: Option<&AuditLine>,
    ) -> Result<bool, StoreError> {
        let number = self.plan_audit(line)?;
        let key = keys::held(conversation, from, mid.as_str());
        let Some(row) = self.row(tables::HELD, &key)? else {
            return Ok(false);
        };
        let (digest, ts_ms) = (
            values::read_held_digest(&row)?,
            values::read_held_time(&row)?,
        );
        let rows = self.ends_hold(conversation, from, mid)?;
        self.write_rows(rows);
        self.occupied.insert(tables::REJECTED, true);
        let value = values::audit::write_rejected(digest, ts_ms);
        self.put(tables::REJECTED, &key, value);
        self.write_audit(line, number);
        Ok(true)
    }

    /// The answer to a message that a moderator has rejected, if it is one: that of before.
    pub(super) fn rejected(&mut self, draft: &Draft) -> Result<Option<Outcome>, StoreError> {
        if !self.has_any(tables::REJECTED)? {
            return Ok(None);
        }
        let key = keys::held(draft.conversation, draft.from, draft.mid.as_str());
        let Some(row) = self.row(tables::REJECTED, &key)? else {
            return Ok(None);
        };
        let (digest, _) = values::audit::read_rejected(&row)?;
        Ok(Some(if digest == draft.digest {
            Outcome::Held
        } else {
            Outcome::Conflict
        }))
    }

    /// The rows without one that is held.
    pub(super) fn ends_hold(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<Rows, StoreError> {
        let mut rows = vec![(
            tables::HELD,
            keys::held(conversation, from, mid.as_str()),
            None,
        )];
        for key in [
            keys::cid(conversation).to_vec(),
            keys::member(conversation, from).to_vec(),
        ] {
            let left = self.tally(&key)?.less(1);
            rows.push((tables::WAITING, key, left.row()));
        }
        Ok(rows)
    }

    /// Forgets what is held of one user, or was rejected. Scans, so what was gathered before must be committed.
    pub(super) fn end_holds_of(
        &mut self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<(), StoreError> {
        let low = keys::held(conversation, user, "");
        let high = keys::held(conversation, user, "\u{10FFFF}");
        for key in self.keys(tables::REJECTED, KeyRange::closed(&low, &high))? {
            self.remove(tables::REJECTED, &key);
        }
        let held = self.keys(tables::HELD, KeyRange::closed(&low, &high))?;
        if held.is_empty() {
            return Ok(());
        }
        let of_all = keys::cid(conversation);
        let left = self.tally(&of_all)?.less(held.len() as u64);
        self.put_tally(&of_all, left);
        self.put_tally(&keys::member(conversation, user), Tally::default());
        for key in held {
            self.remove(tables::HELD, &key);
        }
        Ok(())
    }
}
