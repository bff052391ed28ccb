//! Messages that are made gone many at a time, in steps that do not hold up commits.

use std::ops::ControlFlow;
use std::sync::Arc;

use broker::store::kv::{KeyRange, KvEngine, Order, Table};
use proto::ids::{ConversationId, Seq, UserId};

use super::super::values::{self, First};
use super::super::{happened, keys};
use super::Writer;
use super::acts::{Effect, wipe};
use crate::domain::entry::{Entry, EntryKind};
use crate::domain::overlay::{GoneReason, React};
use crate::domain::purge::{Purge, Purged};
use crate::store::{Committed, StoreError, tables};

/// Places that one step looks at.
const LOOKED_AT_MAX: usize = 512;
/// Entries that are made gone in one step.
const GONE_MAX: usize = 128;

impl<K: KvEngine> Writer<K> {
    /// One step of a purge.
    pub(super) fn purge(
        &mut self,
        conversation: ConversationId,
        purge: Purge,
    ) -> Result<Purged, StoreError> {
        self.commit_so_far()?;
        let Some(known) = self.conversation(conversation)? else {
            return Ok(Purged::default());
        };
        let head = known.head;
        let (table, first, last) = match purge {
            Purge::Range { from, to } => log(conversation, from, to),
            Purge::Traces { from, .. } => log(conversation, from, Seq::MAX),
            Purge::Old(_) => {
                let from = self.trimmed(conversation)?.next();
                log(conversation, from, Seq::MAX)
            }
            Purge::Written { by, from, to, .. } => (
                tables::OWN,
                keys::own(conversation, by, from).to_vec(),
                keys::own(conversation, by, to).to_vec(),
            ),
        };
        let seqs = self.seqs(table, KeyRange::closed(&first, &last))?;
        let is_all = seqs.len() < LOOKED_AT_MAX;
        if let Purge::Traces { of, from } = purge
            && from == Seq::ZERO
        {
            self.end_holds_of(conversation, of)?;
        }
        let mut purged = Purged::default();
        let mut changed = Vec::new();
        let mut last = None;
        for seq in seqs {
            if changed.len() >= GONE_MAX {
                purged.next = Some(seq);
                break;
            }
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
            if entry.gone.is_none() && wants(&purge, &entry) {
                self.purge_one(entry, &purge, &mut purged, &mut changed)?;
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

    fn purge_one(
        &mut self,
        entry: Entry,
        purge: &Purge,
        purged: &mut Purged,
        changed: &mut Vec<Arc<Entry>>,
    ) -> Result<(), StoreError> {
        let is_traces = matches!(purge, Purge::Traces { .. });
        if is_traces {
            self.forget_digest(&entry)?;
        }
        let effect = match entry.kind {
            EntryKind::Message => {
                purged.messages += 1;
                self.plan_gone(entry, GoneReason::Purged)?
            }
            EntryKind::Reaction => {
                if let Some(effect) = self.plan_unreact(&entry)? {
                    purged.reactions += 1;
                    changed.extend(self.apply(effect));
                }
                wiped(entry)
            }
            _ => wiped(entry),
        };
        changed.extend(self.apply(effect));
        Ok(())
    }

    /// Takes back what the sender of this entry reacted to its target with.
    fn plan_unreact(&mut self, entry: &Entry) -> Result<Option<Effect>, StoreError> {
        let Some(target) = self.live_message(entry.conversation, entry.target)? else {
            return Ok(None);
        };
        let planned = self.plan_reaction(target, entry.from, &React::Clear)?;
        Ok(planned.ok())
    }

    /// A message that comes again is still known as such, but not by what it said.
    fn forget_digest(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let mut key = Vec::new();
        keys::idempotency(&mut key, entry.conversation, entry.from, &entry.mid);
        let week = self.week();
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
        }
        Ok(())
    }

    /// Up to where retention has looked.
    fn trimmed(&self, conversation: ConversationId) -> Result<Seq, StoreError> {
        let row = self.row(tables::TRIMMED, &keys::cid(conversation))?;
        let seq = row.map(|row| values::read_number(tables::TRIMMED.name(), &row));
        Ok(seq.transpose()?.map_or(Seq::ZERO, Seq::new))
    }

    fn seqs(&self, table: Table, range: KeyRange<'_>) -> Result<Vec<Seq>, StoreError> {
        let mut seqs = Vec::new();
        let mut failed = Ok(());
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, _| {
                match happened::tail_seq(key) {
                    Ok(seq) => seqs.push(seq),
                    Err(error) => failed = Err(error),
                }
                if failed.is_ok() && seqs.len() < LOOKED_AT_MAX {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        failed.map(|()| seqs)
    }

    /// What a user told of himself goes: profile (but for the privacy of who stays), presence, scheduled messages, the words of reports. Says how many reports there were.
    pub(super) fn forget_user(&mut self, user: UserId) -> Result<usize, StoreError> {
        self.commit_so_far()?;
        self.forget_profile(user)?;
        self.remove(tables::PRESENCE, user.as_bytes());
        self.remove_all_scheduled(user)?;
        self.forget_events_of(user)?;
        let mut reports = Vec::new();
        let mut failed = Ok(());
        self.engine().scan(
            tables::REPORT,
            KeyRange::ALL,
            Order::Ascending,
            &mut |key, row| {
                let report = happened::read_report(key, row);
                match report {
                    Ok(report) if report.by == user && !report.text.is_empty() => {
                        reports.push((key.to_vec(), report));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        failed = Err(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            },
        )?;
        failed?;
        for (key, report) in &mut reports {
            report.text.clear();
            self.put(tables::REPORT, key, values::write_report(report));
        }
        Ok(reports.len())
    }
}

fn log(conversation: ConversationId, from: Seq, to: Seq) -> (Table, Vec<u8>, Vec<u8>) {
    let key = |seq| keys::message(conversation, seq).to_vec();
    (tables::MESSAGE, key(from), key(to))
}

fn wants(purge: &Purge, entry: &Entry) -> bool {
    let is_message = entry.kind == EntryKind::Message;
    match purge {
        Purge::Range { .. } | Purge::Old(_) => is_message,
        Purge::Written {
            since_ms, until_ms, ..
        } => is_message && (*since_ms..*until_ms).contains(&entry.ts_ms),
        Purge::Traces { of, .. } => {
            entry.from == *of && (entry.kind.is_written() || entry.kind == EntryKind::Reaction)
        }
    }
}

fn wiped(entry: Entry) -> Effect {
    let mut effect = Effect::default();
    wipe(entry, GoneReason::Purged, &mut effect);
    effect
}
