//! Messages that are made gone many at a time, in steps that do not hold up commits.

use std::sync::Arc;

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, MessageId, Seq, UserId};

use super::super::values::{self, First};
use super::super::{happened, keys};
use super::Writer;
use super::acts::{Effect, wipe};
use crate::domain::entry::{Entry, EntryKind};
use crate::domain::overlay::{GoneReason, React, Report};
use crate::domain::purge::{Purge, Purged};
use crate::store::{Committed, StoreError, tables};

/// Places that one step looks at.
const LOOKED_AT_MAX: usize = 512;
/// Rows that are written in one step, but for those of one entry: what a hundred messages take.
const ROWS_MAX: usize = 2_048;

impl<K: KvEngine> Writer<K> {
    /// One step of a purge.
    pub(super) fn purge(
        &mut self,
        conversation: ConversationId,
        purge: Purge,
    ) -> Result<Purged, StoreError> {
        self.settle_before_purge(conversation)?;
        match purge {
            Purge::Announced { at } => self.purge_announced(conversation, at),
            purge => self.purge_step(conversation, purge),
        }
    }

    /// One step of what an entry has announced. How far it is and what came of it is written with the very rows.
    fn purge_announced(
        &mut self,
        conversation: ConversationId,
        at: Seq,
    ) -> Result<Purged, StoreError> {
        let key = keys::purge(false, conversation, at);
        let Some(row) = self.row(tables::PURGE, &key)? else {
            let row = self.row(tables::PURGE, &keys::purge(true, conversation, at))?;
            let read = |row: Vec<u8>| values::read_number(tables::PURGE.name(), &row);
            return Ok(Purged {
                messages: row.map(read).transpose()?.unwrap_or_default(),
                ..Purged::default()
            });
        };
        let (mut range, before) = values::read_purge(&row)?;
        let mut step = match range.purge() {
            Some(purge) => self.purge_step(conversation, purge)?,
            None => Purged::default(),
        };
        step.messages += before;
        step.next = range.advance(step.next);
        if step.next.is_some() {
            let left = values::write_purge(&range, step.messages);
            self.put(tables::PURGE, &key, left);
        } else {
            self.remove(tables::PURGE, &key);
            let done = values::write_number(step.messages).to_vec();
            self.put(tables::PURGE, &keys::purge(true, conversation, at), done);
        }
        Ok(step)
    }

    /// A purge looks by scans: commits what has been gathered before it, if that may hold any of this conversation.
    fn settle_before_purge(&mut self, conversation: ConversationId) -> Result<(), StoreError> {
        let pending = self.group.conversations.get(&conversation);
        let prefix = keys::cid(conversation);
        let is_of_it = |key: &Vec<u8>| key.starts_with(&prefix);
        let mut rows = self.group.rows.values();
        if pending.is_some_and(|pending| pending.is_changed)
            || rows.any(|rows| rows.keys().any(is_of_it))
        {
            self.commit_so_far()?;
        }
        Ok(())
    }

    fn purge_step(
        &mut self,
        conversation: ConversationId,
        purge: Purge,
    ) -> Result<Purged, StoreError> {
        let Some(known) = self.conversation(conversation)? else {
            return Ok(Purged::default());
        };
        let head = known.head;
        let seqs = match purge {
            Purge::Range { from, to } | Purge::Written { from, to, .. } => {
                places(from, to.min(head.seq))
            }
            Purge::Traces { from, .. } => places(from, head.seq),
            Purge::Old(_) => places(self.trimmed(conversation)?.next(), head.seq),
            // Its range is taken from its row.
            Purge::Announced { .. } => Vec::new(),
        };
        let is_all = seqs.len() < LOOKED_AT_MAX;
        if let Purge::Traces { of, from } = purge
            && from == Seq::ZERO
        {
            self.end_holds_of(conversation, of)?;
        }
        let mut purged = Purged::default();
        let mut changed = Vec::new();
        let (mut rows, mut last) = (0, None);
        for seq in seqs {
            if rows >= ROWS_MAX {
                purged.next = Some(seq);
                break;
            }
            purged.looked_at += 1;
            // As it is in this very batch: an earlier one may have taken it along.
            let Some(entry) = self.entry(conversation, seq)? else {
                continue;
            };
            if let Purge::Old(retention) = purge
                && !retention.is_over(entry.ts_ms, entry.mseq, head.mseq)
            {
                purged.next = None;
                break;
            }
            last = Some(seq);
            if let Purge::Traces { of, .. } = purge
                && entry.from == of
            {
                rows += self.forget_digest(conversation, of, &entry.mid)?;
            }
            if entry.gone.is_none() && wants(&purge, &entry) {
                rows += self.purge_one(entry, &purge, &mut purged, &mut changed)?;
            }
            if !is_all {
                purged.next = Some(seq.next());
            }
        }
        if let (Purge::Old(_), Some(last)) = (purge, last) {
            let value = values::write_number(last.get()).to_vec();
            self.put(tables::TRIMMED, &keys::cid(conversation), value);
        }
        if !changed.is_empty() {
            self.changed_for_all(conversation, None)?;
            self.group.committed.push(Committed {
                conversation,
                head: head.seq,
                entry: None,
                changed,
                members_changed: false,
                hidden_from: None,
                readers: Vec::new(),
            });
        }
        Ok(purged)
    }

    /// Says how many rows it takes.
    fn purge_one(
        &mut self,
        entry: Entry,
        purge: &Purge,
        purged: &mut Purged,
        changed: &mut Vec<Arc<Entry>>,
    ) -> Result<usize, StoreError> {
        let mut rows = 0;
        let effect = match entry.kind {
            EntryKind::Message => {
                purged.messages += 1;
                self.plan_gone(entry, GoneReason::Purged)?
            }
            // One that only its place is in a range: the message of another place has it still.
            EntryKind::Reaction if is_of_one(purge) => {
                if let Some(effect) = self.plan_unreact(&entry)? {
                    purged.reactions += 1;
                    rows += effect.rows();
                    changed.extend(self.apply(effect));
                }
                wiped(entry)
            }
            _ => wiped(entry),
        };
        rows += effect.rows();
        changed.extend(self.apply(effect));
        Ok(rows)
    }

    /// Takes back what the sender of this entry reacted to its target with.
    fn plan_unreact(&mut self, entry: &Entry) -> Result<Option<Effect>, StoreError> {
        let Some(target) = self.live_message(entry.conversation, entry.target)? else {
            return Ok(None);
        };
        let planned = self.plan_reaction(target, entry.from, &React::Clear)?;
        Ok(planned.ok())
    }

    /// What comes again is still known as such, but not by what it said. Says how many rows that takes.
    fn forget_digest(
        &mut self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<usize, StoreError> {
        let mut key = Vec::new();
        keys::idempotency(&mut key, conversation, from, mid);
        let week = self.week();
        let mut rows = 0;
        for week in [Some(week), week.checked_sub(1)].into_iter().flatten() {
            keys::set_week(&mut key, week);
            let Some(row) = self.row(tables::IDEMPOTENCY, &key)? else {
                continue;
            };
            let first = First {
                digest: [0; 16],
                ..values::read_first(&row)?
            };
            let mut value = Vec::new();
            values::write_first(&mut value, &first);
            self.put(tables::IDEMPOTENCY, &key, value);
            rows += 1;
        }
        Ok(rows)
    }

    /// Up to where retention has looked.
    fn trimmed(&self, conversation: ConversationId) -> Result<Seq, StoreError> {
        let row = self.row(tables::TRIMMED, &keys::cid(conversation))?;
        let seq = row.map(|row| values::read_number(tables::TRIMMED.name(), &row));
        Ok(seq.transpose()?.map_or(Seq::ZERO, Seq::new))
    }

    /// What a user told of himself goes: profile (but for the privacy of who stays), presence, scheduled messages, how he calls
    /// others, what his tokens are for, the words of reports. Says how many reports there were.
    pub(super) fn forget_user(&mut self, user: UserId) -> Result<usize, StoreError> {
        self.commit_so_far()?;
        self.forget_profile(user)?;
        self.forget_events_of(user)?;
        match self.live_user(user) {
            Ok(_) => self.forget_words(user)?,
            Err(StoreError::NotFound) => self.remove_belongings(user)?,
            Err(error) => return Err(error),
        }
        let reports = self.reports_of(user)?;
        let count = reports.len();
        for (key, mut report) in reports {
            report.text.clear();
            self.forget_digest(report.conversation, user, &report.mid)?;
            self.put(tables::REPORT, &key, values::write_report(&report));
        }
        Ok(count)
    }

    /// Of a user who stays: his words go, and what they were about stays. Scans, as [`Self::forget_user`] does.
    fn forget_words(&mut self, user: UserId) -> Result<(), StoreError> {
        self.remove_all_scheduled(user)?;
        self.forget_names(user)?;
        if let Some(row) = self.row(tables::PRESENCE, user.as_bytes())? {
            let mut standing = values::read_presence(&row)?;
            standing.choice.text.clear();
            let value = values::write_presence(&standing);
            self.put(tables::PRESENCE, user.as_bytes(), value);
        }
        for (_, row) in self.rows_of(tables::USER_TOKEN, user)? {
            let hash = values::read_hash(&row)?;
            if let Some(row) = self.row(tables::TOKEN, &hash)? {
                let mut token = values::read_token(hash, &row)?;
                token.label.clear();
                self.put(tables::TOKEN, &hash, values::write_token(&token));
            }
        }
        Ok(())
    }

    /// Reports of one user that have words. Scans, as [`Self::forget_user`] does.
    fn reports_of(&self, user: UserId) -> Result<Vec<(Vec<u8>, Report)>, StoreError> {
        let mut reports = Vec::new();
        for (key, row) in self.rows_in(tables::REPORT, KeyRange::ALL)? {
            let report = happened::read_report(&key, &row)?;
            if report.by == user && !report.text.is_empty() {
                reports.push((key, report));
            }
        }
        Ok(reports)
    }
}

/// The places of one step: they are dense.
fn places(from: Seq, to: Seq) -> Vec<Seq> {
    let from = from.get().max(1);
    let all = (from..=to.get()).map(Seq::new);
    all.take(LOOKED_AT_MAX).collect()
}

fn wants(purge: &Purge, entry: &Entry) -> bool {
    // An edit goes with its message.
    let is_said = matches!(entry.kind, EntryKind::Message | EntryKind::Reaction);
    match purge {
        Purge::Range { .. } | Purge::Old(_) => is_said,
        Purge::Written {
            by,
            since_ms,
            until_ms,
            ..
        } => is_said && entry.from == *by && (*since_ms..*until_ms).contains(&entry.ts_ms),
        Purge::Traces { of, .. } => entry.from == *of && (is_said || entry.kind.is_written()),
        Purge::Announced { .. } => false,
    }
}

/// Is it about what one user did, wherever?
fn is_of_one(purge: &Purge) -> bool {
    matches!(purge, Purge::Written { .. } | Purge::Traces { .. })
}

fn wiped(entry: Entry) -> Effect {
    let mut effect = Effect::default();
    wipe(entry, GoneReason::Purged, &mut effect);
    effect
}
