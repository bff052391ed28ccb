//! What is done to entries that are stored: edits, deletions, reactions, pins; hiding, expiry.
//!
//! An act becomes rows and the changed entries first ([`Effect`]); they join the batch with the entry that tells of it,
//! or on their own.

use std::ops::ControlFlow;
use std::sync::Arc;

use broker::store::kv::{KeyRange, KvEngine, Order, Table};
use proto::ids::{ConversationId, Seq, UserId};

use super::super::values::{self, Head};
use super::super::{excluded, happened, keys, readers, reads};
use super::Writer;
use crate::domain::entry::{Draft, Entry, EntryKind};
use crate::domain::member::Marks;
use crate::domain::overlay::{
    Act, ActRefused, EDITS_MAX, EMOJI_PER_USER_MAX, GoneReason, HiddenBy, Overlay, PINS_MAX, React,
    VOTE,
};
use crate::store::{Committed, StoreError, tables};

/// Entries that expire in one commit.
const EXPIRED_AT_ONCE: usize = 256;

/// What an act comes to.
#[derive(Default)]
pub(super) struct Effect {
    rows: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// Earlier entries as they are from now on.
    pub(super) changed: Vec<Arc<Entry>>,
}

impl Effect {
    fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.rows.push((table, key.into(), Some(value.into())));
    }

    fn remove(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.rows.push((table, key.into(), None));
    }

    /// How many rows it takes.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    fn put_overlay(&mut self, key: [u8; 25], overlay: &Overlay) {
        if overlay.is_empty() {
            self.remove(tables::OVERLAY, key);
        } else {
            self.put(tables::OVERLAY, key, values::write_overlay(overlay));
        }
    }
}

impl<K: KvEngine> Writer<K> {
    /// What an act looks at must be seen by scans, and its target by its key: commits what has been gathered before it,
    /// if that may hold any of it.
    pub(super) fn settle_before(&mut self, draft: &Draft) -> Result<(), StoreError> {
        let Some(act) = &draft.act else {
            return Ok(());
        };
        let pending = self.group.conversations.get(&draft.conversation);
        let head = pending.filter(|pending| pending.is_changed).map(|pending| {
            pending
                .before
                .as_ref()
                .map_or(Seq::ZERO, |known| known.head.seq)
        });
        let is_new = head.is_some_and(|head| draft.target.is_some_and(|target| target > head));
        if is_new || matches!(act, Act::Delete | Act::Pin(_)) {
            self.commit_so_far()?;
        }
        Ok(())
    }

    /// Commits what has been gathered, in the midst of a job.
    pub(super) fn commit_so_far(&mut self) -> Result<(), StoreError> {
        if !self.group.batch.is_empty() {
            let is_durable = self.group.is_durable;
            self.commit();
            self.group.is_durable = is_durable;
        }
        self.shared.condition.refusal().map_or(Ok(()), Err)
    }

    /// What a draft does to its target, if it can be done. `head` is the place of the draft.
    pub(super) fn plan_act(
        &mut self,
        draft: &Draft,
        head: &Head,
    ) -> Result<Result<Effect, ActRefused>, StoreError> {
        let Some(act) = &draft.act else {
            return Ok(Ok(Effect::default()));
        };
        let Some(target) = self.live_message(draft.conversation, draft.target)? else {
            return Ok(Err(ActRefused::NoTarget));
        };
        match act {
            Act::Delete => self.plan_gone(target, GoneReason::Deleted).map(Ok),
            Act::Edit => self.plan_edit(target, draft, head),
            Act::React(react) => self.plan_reaction(target, draft.from, react),
            Act::Pin(pinned) => self.plan_pin(target, *pinned, (draft.from, head.ts_ms)),
        }
    }

    /// Joins the rows of an effect to the batch.
    pub(super) fn apply(&mut self, effect: Effect) -> Vec<Arc<Entry>> {
        for (table, key, value) in effect.rows {
            match value {
                Some(value) => self.put(table, &key, value),
                None => self.remove(table, &key),
            }
        }
        effect.changed
    }

    pub(super) fn live_message(
        &self,
        conversation: ConversationId,
        seq: Option<Seq>,
    ) -> Result<Option<Entry>, StoreError> {
        let Some(seq) = seq else { return Ok(None) };
        let entry = self.entry(conversation, seq)?;
        Ok(entry.filter(|entry| entry.kind == EntryKind::Message && entry.gone.is_none()))
    }

    pub(super) fn entry(
        &self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<Option<Entry>, StoreError> {
        let row = self.row(tables::MESSAGE, &keys::message(conversation, seq))?;
        row.map(|row| values::read_entry(conversation, seq, &row))
            .transpose()
    }

    fn overlay_of(&self, entry: &Entry) -> Result<Overlay, StoreError> {
        let row = self.row(tables::OVERLAY, &key_of(entry))?;
        let overlay = row.map(|row| values::read_overlay(&row)).transpose()?;
        Ok(overlay.unwrap_or_default())
    }

    fn plan_edit(
        &mut self,
        target: Entry,
        draft: &Draft,
        head: &Head,
    ) -> Result<Result<Effect, ActRefused>, StoreError> {
        let mut overlay = self.overlay_of(&target)?;
        if overlay.edits.len() >= EDITS_MAX {
            return Ok(Err(ActRefused::Full));
        }
        let before = self.edited(target, &overlay)?;
        overlay.edits.push(head.seq);
        overlay.edited_ms = head.ts_ms;
        let mut effect = Effect::default();
        for key in mention_keys(&before) {
            effect.remove(tables::MENTION, key);
        }
        let edited = Entry {
            format: draft.format,
            opaque: draft.opaque,
            body: draft.body.clone(),
            mentions: draft.mentions.clone(),
            ..before
        };
        for key in mention_keys(&edited) {
            effect.put(tables::MENTION, key, values::write_user_id(edited.from));
        }
        Ok(Ok(changed_to(edited, overlay, effect)))
    }

    pub(super) fn plan_reaction(
        &mut self,
        target: Entry,
        user: UserId,
        react: &React,
    ) -> Result<Result<Effect, ActRefused>, StoreError> {
        let key = keys::entry_user(target.conversation, target.seq, user);
        let row = self.row(tables::REACTION, &key)?;
        let own = row.map(|row| values::read_emoji(&row)).transpose()?;
        let before = own.unwrap_or_default();
        let mut after = before.clone();
        match react {
            React::Add(emoji) if !before.contains(emoji) => after.push(emoji.clone()),
            React::Add(_) => {}
            React::Choose(emoji) => {
                after.retain(|known| !known.starts_with(VOTE) || known == emoji);
                if !after.contains(emoji) {
                    after.push(emoji.clone());
                }
            }
            React::Remove(emoji) => after.retain(|known| known != emoji),
            React::Clear => after.clear(),
        }
        if after == before {
            return Ok(Err(ActRefused::Unchanged));
        }
        let mut overlay = self.overlay_of(&target)?;
        for emoji in before.iter().filter(|emoji| !after.contains(emoji)) {
            let _fewer_have_room = overlay.count(emoji, false);
        }
        let added = after.iter().filter(|emoji| !before.contains(emoji));
        let mut has_room = after.len() <= EMOJI_PER_USER_MAX;
        for emoji in added {
            has_room &= overlay.count(emoji, true);
        }
        if !has_room {
            return Ok(Err(ActRefused::Full));
        }
        let mut effect = Effect::default();
        if after.is_empty() {
            effect.remove(tables::REACTION, key);
        } else {
            effect.put(tables::REACTION, key, values::write_emoji(&after));
        }
        let target = self.edited(target, &overlay)?;
        Ok(Ok(changed_to(target, overlay, effect)))
    }

    fn plan_pin(
        &mut self,
        target: Entry,
        pinned: bool,
        (by, ts_ms): (UserId, u64),
    ) -> Result<Result<Effect, ActRefused>, StoreError> {
        let mut overlay = self.overlay_of(&target)?;
        if overlay.pinned == pinned {
            return Ok(Err(ActRefused::Unchanged));
        }
        if pinned && happened::pins(self.engine(), target.conversation)?.len() >= PINS_MAX {
            return Ok(Err(ActRefused::Full));
        }
        overlay.pinned = pinned;
        let mut effect = Effect::default();
        if pinned {
            effect.put(tables::PIN, key_of(&target), values::write_pin(by, ts_ms));
        } else {
            effect.remove(tables::PIN, key_of(&target));
        }
        let target = self.edited(target, &overlay)?;
        Ok(Ok(changed_to(target, overlay, effect)))
    }

    /// The entry with its body, or that of its latest edit.
    fn edited(&self, mut entry: Entry, overlay: &Overlay) -> Result<Entry, StoreError> {
        if let Some((list, seq)) = entry.source
            && let Some(source) = self.entry(list, seq)?
        {
            readers::take_body(&mut entry, source);
        }
        let edit = match overlay.edits.last() {
            Some(seq) => self.entry(entry.conversation, *seq)?,
            None => None,
        };
        happened::present(&mut entry, Overlay::default(), edit);
        Ok(entry)
    }

    /// Nothing is left of an entry but its place: neither its edits nor what others did to it. Scans, so what was gathered
    /// before must be committed.
    pub(super) fn plan_gone(
        &mut self,
        entry: Entry,
        reason: GoneReason,
    ) -> Result<Effect, StoreError> {
        let mut effect = Effect::default();
        let (conversation, seq, from) = (entry.conversation, entry.seq, entry.from);
        let overlay = self.overlay_of(&entry)?;
        if !overlay.is_empty() {
            effect.remove(tables::OVERLAY, key_of(&entry));
        }
        if overlay.pinned {
            effect.remove(tables::PIN, key_of(&entry));
        }
        if entry.kind == EntryKind::Message {
            let shown = self.edited(entry.clone(), &overlay)?;
            for key in mention_keys(&shown) {
                effect.remove(tables::MENTION, key);
            }
        }
        let first = keys::entry_user(conversation, seq, UserId::from_bytes([0; 16]));
        let last = keys::entry_user(conversation, seq, UserId::from_bytes([0xFF; 16]));
        let range = KeyRange::closed(&first, &last);
        for key in self.keys(tables::REACTION, range)? {
            effect.remove(tables::REACTION, key);
        }
        let mut corrected = vec![(excluded::EVERYBODY, 1), (from, -1)];
        for (key, row) in self.rows_in(tables::HIDDEN, range)? {
            let user = reads::tail_user(&key)?;
            if user != from {
                corrected.push((user, -1));
            }
            // What a block hides is not even told to be gone.
            if values::read_hidden(&row)? == HiddenBy::Wish {
                effect.remove(tables::HIDDEN, key);
            }
        }
        if entry.kind.is_countable() {
            for (who, by) in corrected {
                self.count(&mut effect, (conversation, seq), who, by)?;
            }
        }
        wipe(entry, reason, &mut effect);
        for edit in overlay.edits {
            if let Some(edit) = self.entry(conversation, edit)? {
                wipe(edit, reason, &mut effect);
            }
        }
        Ok(effect)
    }

    /// Who is not to see a draft, as he has blocked its sender. A deletion of what he sees is for him as well; what is done
    /// later to what he never was to see is not.
    pub(super) fn blocker(&mut self, draft: &Draft) -> Result<Option<UserId>, StoreError> {
        let Some(peer) = draft.peer else {
            return Ok(None);
        };
        let has_blocked = self.has_blocked(draft.conversation, peer)?;
        let (Some(act), Some(target)) = (&draft.act, draft.target) else {
            return Ok(has_blocked.then_some(peer));
        };
        let key = keys::entry_user(draft.conversation, target, peer);
        let hidden = self.row(tables::HIDDEN, &key)?;
        let hidden = hidden.map(|row| values::read_hidden(&row)).transpose()?;
        let is_for_him = match hidden {
            Some(HiddenBy::Block) => false,
            Some(HiddenBy::Wish) => !has_blocked,
            None => !has_blocked || *act == Act::Delete,
        };
        Ok((!is_for_him).then_some(peer))
    }

    /// The entry of a draft is hidden, for ever, from a user who has blocked its sender.
    pub(super) fn plan_hidden_by_block(
        &self,
        effect: &mut Effect,
        draft: &Draft,
        head: &Head,
        user: UserId,
    ) -> Result<(), StoreError> {
        let (conversation, seq) = (draft.conversation, head.seq);
        let key = keys::entry_user(conversation, seq, user);
        effect.put(tables::HIDDEN, key, values::write_hidden(head.ts_ms, true));
        if draft.kind.is_countable() {
            self.count(effect, (conversation, seq), user, 1)?;
        }
        self.raise_hidden(effect, (conversation, seq), user)
    }

    fn raise_hidden(
        &self,
        effect: &mut Effect,
        (conversation, seq): (ConversationId, Seq),
        user: UserId,
    ) -> Result<(), StoreError> {
        let key = keys::member(conversation, user);
        let marks = self.marks(&key)?;
        let hidden = marks.hidden.max(seq);
        let marks = values::write_marks(&Marks { hidden, ..marks });
        effect.put(tables::MARKS, key, marks);
        Ok(())
    }

    /// Moves the counters of what is not unread.
    fn count(
        &self,
        effect: &mut Effect,
        (conversation, seq): (ConversationId, Seq),
        who: UserId,
        by: i64,
    ) -> Result<(), StoreError> {
        for (level, block) in excluded::path(seq) {
            let key = keys::excluded(conversation, who, level, block);
            let row = self.row(tables::EXCLUDED, &key)?;
            let before = row.map(|row| values::read_count(&row)).transpose()?;
            match before.unwrap_or_default().saturating_add(by) {
                0 => effect.remove(tables::EXCLUDED, key),
                count => effect.put(tables::EXCLUDED, key, values::write_count(count)),
            }
        }
        Ok(())
    }

    // -- without an entry

    pub(super) fn hide(
        &mut self,
        (conversation, seq): (ConversationId, Seq),
        user: UserId,
        ts_ms: u64,
    ) -> Result<bool, StoreError> {
        self.commit_so_far()?;
        let entry = self.entry(conversation, seq)?.ok_or(StoreError::NotFound)?;
        let key = keys::entry_user(conversation, seq, user);
        if entry.gone.is_some() || self.row(tables::HIDDEN, &key)?.is_some() {
            return Ok(false);
        }
        let mut effect = Effect::default();
        effect.put(tables::HIDDEN, key, values::write_hidden(ts_ms, false));
        if entry.kind.is_countable() && entry.from != user {
            self.count(&mut effect, (conversation, seq), user, 1)?;
        }
        self.raise_hidden(&mut effect, (conversation, seq), user)?;
        self.apply(effect);
        self.note_hidden(user, conversation, seq)?;
        Ok(true)
    }

    /// Makes entries gone whose time is over.
    pub(super) fn expire(&mut self, now_ms: u64) -> Result<usize, StoreError> {
        self.commit_so_far()?;
        let due = self.due(now_ms)?;
        for key in &due {
            let seq = happened::tail_seq(key)?;
            let conversation = key
                .get(6..23)
                .and_then(keys::read_cid)
                .ok_or_else(|| reads::bad_key(tables::EXPIRY))?;
            self.remove(tables::EXPIRY, key);
            let effect = match self.plan_expired(conversation, seq) {
                Ok(Some(effect)) => effect,
                Ok(None) => continue,
                Err(error @ StoreError::Corrupt(_)) => {
                    // It is not to keep all others.
                    tracing::error!(%conversation, %seq, %error, "a message cannot be removed");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let changed = self.apply(effect);
            self.changed_for_all(conversation, None)?;
            let known = self.conversation(conversation)?;
            self.group.committed.push(Committed {
                conversation,
                head: known.map_or(seq, |known| known.head.seq),
                entry: None,
                changed,
                members_changed: false,
                hidden_from: None,
                readers: Vec::new(),
            });
        }
        Ok(due.len())
    }

    fn plan_expired(
        &mut self,
        conversation: ConversationId,
        seq: Seq,
    ) -> Result<Option<Effect>, StoreError> {
        let entry = self.entry(conversation, seq)?;
        let Some(entry) = entry.filter(|entry| entry.gone.is_none()) else {
            return Ok(None);
        };
        self.plan_gone(entry, GoneReason::Expired).map(Some)
    }

    fn due(&self, now_ms: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let end = keys::short_time(now_ms.saturating_add(1));
        let range = KeyRange::between(&[], &end);
        let mut due = Vec::new();
        self.engine()
            .scan(tables::EXPIRY, range, Order::Ascending, &mut |key, _| {
                due.push(key.to_vec());
                if due.len() < EXPIRED_AT_ONCE {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        Ok(due)
    }
}

/// The overlay of an entry, and the entry as it is with it.
fn changed_to(mut entry: Entry, overlay: Overlay, mut effect: Effect) -> Effect {
    effect.put_overlay(key_of(&entry), &overlay);
    happened::present(&mut entry, overlay, None);
    effect.changed.push(Arc::new(entry));
    effect
}

/// The row and the entry without what was said.
pub(super) fn wipe(mut entry: Entry, reason: GoneReason, effect: &mut Effect) {
    if let Some(at_ms) = entry.expires_ms {
        effect.remove(
            tables::EXPIRY,
            keys::expiry(at_ms, entry.conversation, entry.seq),
        );
    }
    entry.make_gone(reason);
    let mut value = Vec::new();
    values::write_entry(&mut value, &entry);
    effect.put(tables::MESSAGE, key_of(&entry), value);
    effect.changed.push(Arc::new(entry));
}

/// The rows of those whom a message mentions. Nobody mentions himself, and who is meant with all is not named as well.
pub(super) fn mention_keys(entry: &Entry) -> Vec<[u8; 41]> {
    let users: &[UserId] = if entry.mentions.all {
        &[values::EVERYBODY]
    } else {
        &entry.mentions.users
    };
    let others = users.iter().filter(|user| **user != entry.from);
    let key = |user: &UserId| keys::own(entry.conversation, *user, entry.seq);
    others.map(key).collect()
}

fn key_of(entry: &Entry) -> [u8; 25] {
    keys::message(entry.conversation, entry.seq)
}
