//! The log: what the server pushes and what is asked for becomes rows, one run without holes, and the feed of the app.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use proto::ids::{ConversationId, MessageId, Seq, UserId};
use proto::schema::{AccountEvent, Edited, LogEntry, Receipts};

use super::engine::Order;
use super::rows::{self, Fed, Meta, Positions, Watermark};
use super::{Store, StoreError, Txn};

/// Rows that are looked at together.
const PAGE: usize = 256;

/// Something that came from the server by itself.
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    Entry(ConversationId, Box<LogEntry>),
    Receipts(ConversationId, Receipts),
    Account(Box<AccountEvent>),
}

/// What a commit changed, for whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Conversations with anything new.
    pub(crate) conversations: BTreeSet<ConversationId>,
    /// Conversations whose marks of others moved.
    pub(crate) receipts: BTreeSet<ConversationId>,
    /// Own messages, known by their ids to be stored: what waits in the outbox, and where it was stored.
    pub(crate) stored: Vec<(u64, ConversationId, Seq)>,
    /// Their message ids, by number.
    pub(crate) stored_mids: BTreeMap<u64, MessageId>,
    /// Those of the conversations of which something was missing, and some of that came by itself.
    pub(crate) shrunk: BTreeSet<ConversationId>,
    /// Those of the conversations that have a gap which concerns the app.
    pub(crate) gaps: BTreeSet<ConversationId>,
    /// Messages that were changed by what came.
    pub(crate) updated: BTreeSet<(ConversationId, Seq)>,
    /// Something is to be fetched again.
    pub(crate) stale: bool,
    /// Unread messages in all, if that was told.
    pub(crate) badge: Option<u64>,
    /// The own profile, privacy or devices changed.
    pub(crate) me: bool,
    /// When the first of the bodies that came ends.
    pub(crate) expires: Option<u64>,
}

impl Taken {
    /// With what a later commit changed.
    pub(crate) fn merge(&mut self, later: Self) {
        self.conversations.extend(later.conversations);
        self.receipts.extend(later.receipts);
        self.stored.extend(later.stored);
        self.stored_mids.extend(later.stored_mids);
        self.shrunk.extend(later.shrunk);
        self.gaps.extend(later.gaps);
        self.updated.extend(later.updated);
        self.stale |= later.stale;
        self.badge = later.badge.or(self.badge);
        self.me |= later.me;
        self.expires = self.expires.into_iter().chain(later.expires).min();
    }
}

/// A message that is to be fetched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) cid: ConversationId,
    pub(crate) seq: Seq,
    /// The entry that says so.
    pub(crate) by: u64,
}

/// A page of `msg.history`.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) more: bool,
    pub(crate) head: u64,
}

impl Store {
    /// Takes what the server pushed.
    pub(crate) fn take(&self, batch: Vec<Inbound>) -> Result<Taken, StoreError> {
        for one in &batch {
            if let Inbound::Entry(_, entry) = one {
                self.time.heard(entry.ts);
            }
        }
        self.write(|txn| {
            let mut taken = Taken::default();
            for one in batch {
                match one {
                    Inbound::Entry(cid, entry) => txn.take_pushed(cid, *entry, &mut taken)?,
                    Inbound::Receipts(cid, receipts) => {
                        txn.take_receipts(cid, &receipts)?;
                        taken.receipts.insert(cid);
                    }
                    Inbound::Account(event) => txn.take_account(*event, &mut taken)?,
                }
            }
            txn.sum_up(&mut taken)?;
            Ok(taken)
        })
    }

    /// Takes a page that was asked for to fill the gap behind the run.
    pub(crate) fn fill(&self, cid: ConversationId, page: Page) -> Result<Taken, StoreError> {
        self.write(|txn| {
            let mut taken = Taken::default();
            let end = match page.entries.last() {
                _ if !page.more => page.head,
                Some(last) => span(last).1.get(),
                None => 0,
            };
            for entry in page.entries {
                txn.put_entry(cid, entry, &mut taken)?;
            }
            let mut positions = txn.positions(cid)?;
            positions.covered_to = positions.covered_to.max(end);
            positions.known = positions.known.max(page.head);
            txn.extend(cid, &mut positions)?;
            txn.feed(cid, &mut positions)?;
            txn.put_positions(cid, &positions);
            taken.conversations.insert(cid);
            txn.sum_up(&mut taken)?;
            Ok(taken)
        })
    }

    /// Takes a page of the past: that before the run, or the newest if there is no run.
    pub(crate) fn backfill(&self, cid: ConversationId, page: Page) -> Result<Taken, StoreError> {
        self.write(|txn| {
            let mut taken = Taken::default();
            let mut positions = txn.positions(cid)?;
            if positions.covered_to == 0 {
                positions.covered_from = page.head + 1;
                positions.covered_to = page.head;
            }
            let first = page.entries.first().map(|entry| span(entry).0.get());
            let from = if page.more { first.unwrap_or(1) } else { 1 };
            for entry in page.entries {
                txn.put_entry(cid, entry, &mut taken)?;
            }
            positions.covered_from = positions.covered_from.min(from).max(1);
            positions.known = positions.known.max(page.head);
            txn.extend(cid, &mut positions)?;
            txn.put_positions(cid, &positions);
            Ok(taken)
        })
    }

    /// Gives the run of a conversation up that is not fed: the next page of the past begins a new one.
    pub(crate) fn begin_anew(&self, cid: ConversationId) -> Result<(), StoreError> {
        self.write(|txn| {
            let mut positions = txn.positions(cid)?;
            (positions.covered_from, positions.covered_to) = (0, 0);
            txn.put_positions(cid, &positions);
            Ok(())
        })
    }

    /// Takes a message as it is now. It is still to be fetched again if it was marked once more meanwhile.
    pub(crate) fn refresh(
        &self,
        stale: &Stale,
        entry: Option<LogEntry>,
    ) -> Result<Taken, StoreError> {
        self.write(|txn| {
            let mut taken = Taken::default();
            if let Some(entry) = entry {
                txn.put_entry(stale.cid, entry, &mut taken)?;
            }
            let key = rows::stale(stale.cid, stale.seq);
            if txn.get(&key)?.as_deref().and_then(rows::number_of) == Some(stale.by) {
                txn.remove(key);
            } else {
                taken.stale = true;
            }
            taken.updated.insert((stale.cid, stale.seq));
            Ok(taken)
        })
    }

    /// Some of the messages that are to be fetched again.
    pub(crate) fn stale(&self, limit: usize) -> Result<Vec<Stale>, StoreError> {
        let rows = self.view().prefix(rows::STALE, limit)?;
        let stale = rows.iter().filter_map(|(key, value)| {
            let ((cid, seq), by) = (rows::place_of(key)?, rows::number_of(value)?);
            Some(Stale { cid, seq, by })
        });
        Ok(stale.collect())
    }

    /// Where the run of a conversation ends, and the last place that is known of, if there is a gap between them that concerns
    /// the app.
    pub(crate) fn gap(&self, cid: ConversationId) -> Result<Option<(Seq, Seq)>, StoreError> {
        let positions = self.view().positions(cid)?;
        let ends = (Seq::new(positions.covered_to), Seq::new(positions.known));
        Ok(has_gap(&positions).then_some(ends))
    }

    /// All conversations with a gap.
    pub(crate) fn gaps(&self) -> Result<Vec<ConversationId>, StoreError> {
        let rows = self.view().prefix(rows::POSITIONS, usize::MAX / 2)?;
        let mut gaps = Vec::new();
        for (key, value) in rows {
            let positions: Positions = super::decode(&value)?;
            if has_gap(&positions) {
                gaps.extend(rows::cid_of(&key));
            }
        }
        Ok(gaps)
    }

    /// Ends bodies whose time is over; some at a time. When the next one is due. Nothing is ended by the clock of this device
    /// alone, which may be wrong: before the server has said anything, what is over is not shown, and stays.
    pub(crate) fn expire(&self) -> Result<Option<u64>, StoreError> {
        if !self.knows_time() {
            return Ok(None);
        }
        self.write(|txn| {
            let (start, end) = rows::expiries_until(txn.now);
            for (key, _) in txn.range(start.clone()..end, Order::Ascending, PAGE)? {
                if let Some((cid, seq)) = rows::place_of(&key) {
                    txn.end(cid, seq, "expired")?;
                }
                txn.remove(key);
            }
            let next = txn.prefix(&start, 1)?;
            let due = next
                .first()
                .and_then(|(key, _)| key.get(1..9)?.try_into().ok());
            Ok(due.map(u64::from_be_bytes))
        })
    }
}

impl Txn<'_> {
    fn take_pushed(
        &mut self,
        cid: ConversationId,
        entry: LogEntry,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        let (from, to) = span(&entry);
        let nothing_to_see = is_gone(&entry);
        let new = self.put_entry(cid, entry, taken)?;
        let mut positions = self.positions(cid)?;
        let (missing, covered_to) = (has_gap(&positions), positions.covered_to);
        positions.known = positions.known.max(to.get());
        match positions.fed_to {
            None => {
                self.split_gap(cid, from)?;
                // Here this device begins. A run that is elsewhere (paged history) is not the one that is fed.
                positions.fed_to = Some(from.previous().get());
                let inside = positions.covered_from <= from.get().saturating_add(1)
                    && from.previous().get() <= positions.covered_to;
                if positions.covered_to == 0 || !inside {
                    positions.covered_from = from.get();
                    positions.covered_to = from.previous().get();
                }
            }
            // It was told that there is nothing for this user, and there is: late is better than never.
            Some(fed_to) if new && to.get() <= fed_to => {
                if nothing_to_see {
                    taken.updated.insert((cid, to));
                } else {
                    self.put_fed(cid, to)?;
                }
            }
            Some(_) => {}
        }
        let touches = from.get() <= positions.covered_to.saturating_add(1)
            && positions.covered_from <= to.get().saturating_add(1);
        if touches {
            positions.covered_from = positions.covered_from.min(from.get());
            positions.covered_to = positions.covered_to.max(to.get());
        }
        self.extend(cid, &mut positions)?;
        self.feed(cid, &mut positions)?;
        self.put_positions(cid, &positions);
        taken.conversations.insert(cid);
        if missing && positions.covered_to > covered_to {
            taken.shrunk.insert(cid);
        }
        Ok(())
    }

    /// Extends the run over what follows it.
    pub(super) fn extend(
        &mut self,
        cid: ConversationId,
        positions: &mut Positions,
    ) -> Result<(), StoreError> {
        loop {
            let start = rows::entry(cid, Seq::new(positions.covered_to.saturating_add(1)));
            let rows = self.range(
                start..rows::behind(&rows::entries(cid)),
                Order::Ascending,
                PAGE,
            )?;
            let full = rows.len() == PAGE;
            for (_, value) in rows {
                let (from, to) = span(&super::decode(&value)?);
                if from.get() > positions.covered_to.saturating_add(1) {
                    return Ok(());
                }
                positions.covered_to = positions.covered_to.max(to.get());
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Feeds what the run has and the app was not given.
    pub(super) fn feed(
        &mut self,
        cid: ConversationId,
        positions: &mut Positions,
    ) -> Result<(), StoreError> {
        while let Some(fed_to) = positions.fed_to
            && fed_to < positions.covered_to
        {
            let start = rows::entry(cid, Seq::new(fed_to + 1));
            let end = rows::entry(cid, Seq::new(positions.covered_to.saturating_add(1)));
            let rows = self.range(start..end, Order::Ascending, PAGE)?;
            positions.fed_to = Some(positions.covered_to);
            let full = rows.len() == PAGE;
            for (key, _) in rows {
                if let Some((_, seq)) = rows::place_of(&key) {
                    self.put_fed(cid, seq)?;
                    if full {
                        positions.fed_to = Some(seq.get());
                    }
                }
            }
        }
        Ok(())
    }

    fn put_fed(&mut self, cid: ConversationId, seq: Seq) -> Result<(), StoreError> {
        if !self.feeds {
            return Ok(());
        }
        let number = self.number(Meta::Feed)? + 1;
        self.put_number(Meta::Feed, number);
        let fed = Fed {
            cid: rows::cid_value(cid),
            seq: seq.get(),
        };
        self.put(rows::fed(number), fed.encode_to_vec());
        self.fed_more += 1;
        Ok(())
    }

    /// What is to be said of a commit at its end.
    pub(super) fn sum_up(&self, taken: &mut Taken) -> Result<(), StoreError> {
        for cid in &taken.conversations {
            let positions = self.positions(*cid)?;
            if has_gap(&positions) {
                taken.gaps.insert(*cid);
            }
        }
        Ok(())
    }

    /// Puts an entry into the log, unless what is there is newer, and carries out what it does to others. Whether nothing
    /// stood for its place.
    pub(super) fn put_entry(
        &mut self,
        cid: ConversationId,
        mut entry: LogEntry,
        taken: &mut Taken,
    ) -> Result<bool, StoreError> {
        if let Some(gap) = &entry.gap {
            return self.put_gap(cid, gap, taken);
        }
        let seq = Seq::new(entry.seq);
        let key = rows::entry(cid, seq);
        let old = self.row_at(cid, seq)?;
        self.recognise(cid, &entry, taken)?;
        if let Some(old) = &old {
            let older = edit_of(old) > edit_of(&entry);
            if old.gap.is_some() || !is_gone(&entry) && (is_gone(old) || older) {
                return Ok(false);
            }
        } else if entry.kind == "message" {
            self.apply_known_edit(cid, &mut entry)?;
        }
        if let Some(expires) = entry.expires {
            self.put(rows::expiry(expires, cid, seq), Vec::new());
            taken.expires = taken.expires.into_iter().chain([expires]).min();
        }
        self.put(key, entry.encode_to_vec());
        self.act(cid, &entry, taken)?;
        Ok(old.is_none())
    }

    /// An own message is found by its id from now on; one that is in the log needs no sending.
    fn recognise(
        &mut self,
        cid: ConversationId,
        entry: &LogEntry,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        let from: Option<UserId> = entry.from.as_ref().and_then(|from| from.uid.parse().ok());
        if entry.mid.is_empty() || from.is_none() || from != self.me {
            return Ok(());
        }
        if entry.kind == "message" {
            let key = rows::own(cid, &entry.mid);
            self.put(key, entry.seq.to_be_bytes().to_vec());
        }
        let Some(number) = self.get(&rows::sending(&entry.mid))? else {
            return Ok(());
        };
        let Some(number) = rows::number_of(&number) else {
            return Ok(());
        };
        if self.is_to(number, cid)? {
            self.remove_outbox(number)?;
            taken.stored.push((number, cid, Seq::new(entry.seq)));
            if let Ok(mid) = entry.mid.parse() {
                taken.stored_mids.insert(number, mid);
            }
        }
        Ok(())
    }

    /// What an entry does to the entry that it is about.
    fn act(
        &mut self,
        cid: ConversationId,
        entry: &LogEntry,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        let data = entry.data.as_ref();
        let target = entry.target.or_else(|| data.and_then(|data| data.target));
        let target = target.map(Seq::new);
        match (entry.kind.as_str(), target) {
            ("edit", Some(target)) => {
                self.put(rows::edit(cid, target, Seq::new(entry.seq)), Vec::new());
                let key = rows::entry(cid, target);
                if let Some(mut message) = self.decoded::<LogEntry>(&key)?
                    && !is_gone(&message)
                    && edit_of(&message) < entry.seq
                {
                    amend(&mut message, entry);
                    self.put(key, message.encode_to_vec());
                    taken.updated.insert((cid, target));
                }
            }
            ("deleted", Some(target)) => {
                self.end(cid, target, "deleted")?;
                taken.updated.insert((cid, target));
            }
            ("reaction" | "pin", Some(target)) => {
                self.mark_stale(cid, (target, entry.seq), taken)?;
            }
            ("purged", _) => {
                let Some(data) = data else { return Ok(()) };
                let (mut from, to) = (data.from.unwrap_or(1), data.to.unwrap_or(entry.seq));
                for gap in &data.gaps {
                    self.purge(cid, from, gap.from.saturating_sub(1), &data.uid)?;
                    from = gap.to.saturating_add(1);
                }
                self.purge(cid, from, to, &data.uid)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What is here of a message is not how it is now.
    fn mark_stale(
        &mut self,
        cid: ConversationId,
        (seq, by): (Seq, u64),
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        if self.get(&rows::entry(cid, seq))?.is_some() {
            self.put(rows::stale(cid, seq), by.to_be_bytes().to_vec());
            taken.stale = true;
        }
        Ok(())
    }

    fn apply_known_edit(
        &self,
        cid: ConversationId,
        message: &mut LogEntry,
    ) -> Result<(), StoreError> {
        let edits = rows::edits(cid, Seq::new(message.seq));
        let last = self.range(edits.clone()..rows::behind(&edits), Order::Descending, 1)?;
        let Some(seq) = last.first().and_then(|(key, _)| rows::number_of(key)) else {
            return Ok(());
        };
        if let Some(edit) = self.decoded::<LogEntry>(&rows::entry(cid, Seq::new(seq)))?
            && edit.kind == "edit"
            && edit_of(message) < seq
        {
            amend(message, &edit);
        }
        Ok(())
    }

    /// The body of a message and of all its edits is no more.
    pub(super) fn end(
        &mut self,
        cid: ConversationId,
        seq: Seq,
        reason: &str,
    ) -> Result<(), StoreError> {
        let entry = self.row_at(cid, seq)?.unwrap_or_else(|| LogEntry {
            cid: cid.to_string(),
            seq: seq.get(),
            ..LogEntry::default()
        });
        if is_gone(&entry) {
            return Ok(());
        }
        self.put(rows::entry(cid, seq), gone(entry, reason).encode_to_vec());
        self.remove(rows::stale(cid, seq));
        for (key, _) in self.prefix(&rows::edits(cid, seq), PAGE)? {
            let Some(edit) = rows::number_of(&key) else {
                continue;
            };
            let key = rows::entry(cid, Seq::new(edit));
            if let Some(edit) = self.decoded::<LogEntry>(&key)? {
                self.put(key, gone(edit, reason).encode_to_vec());
            }
        }
        Ok(())
    }

    fn purge(
        &mut self,
        cid: ConversationId,
        from: u64,
        to: u64,
        uid: &str,
    ) -> Result<(), StoreError> {
        let mut next = from;
        loop {
            let start = rows::entry(cid, Seq::new(next));
            let end = rows::entry(cid, Seq::new(to.saturating_add(1)));
            let rows = self.range(start..end, Order::Ascending, PAGE)?;
            let full = rows.len() == PAGE;
            for (_, value) in rows {
                let entry: LogEntry = super::decode(&value)?;
                next = span(&entry).1.get().saturating_add(1);
                let by = entry.from.as_ref().map_or("", |from| from.uid.as_str());
                if entry.kind == "message" && (uid.is_empty() || by == uid) {
                    self.end(cid, Seq::new(entry.seq), "purged")?;
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn take_receipts(
        &mut self,
        cid: ConversationId,
        receipts: &Receipts,
    ) -> Result<(), StoreError> {
        for moved in &receipts.moves {
            let Ok(user) = moved.u.parse() else { continue };
            let key = rows::watermark(cid, user);
            let mut mark: Watermark = self.decoded(&key)?.unwrap_or_default();
            mark.delivered = mark.delivered.max(moved.d);
            mark.read = mark.read.max(moved.r);
            self.put(key, mark.encode_to_vec());
        }
        let mut positions = self.positions(cid)?;
        positions.delivered_all = positions.delivered_all.max(receipts.delivered_all);
        positions.read_all = positions.read_all.max(receipts.read_all);
        self.put_positions(cid, &positions);
        Ok(())
    }
}

/// Is something missing that the app should be given?
fn has_gap(positions: &Positions) -> bool {
    positions.fed_to.is_some() && positions.known > positions.covered_to
}

/// The places that an entry stands for: one, or those of a gap.
pub(super) fn span(entry: &LogEntry) -> (Seq, Seq) {
    match &entry.gap {
        Some(gap) => (Seq::new(gap.from), Seq::new(gap.to)),
        None => (Seq::new(entry.seq), Seq::new(entry.seq)),
    }
}

pub(super) fn is_gone(entry: &LogEntry) -> bool {
    matches!(entry.kind.as_str(), "gone" | "gap")
}

fn edit_of(entry: &LogEntry) -> u64 {
    entry.edited.as_ref().map_or(0, |edited| edited.seq)
}

fn amend(message: &mut LogEntry, edit: &LogEntry) {
    message.format.clone_from(&edit.format);
    message.t.clone_from(&edit.t);
    message.m.clone_from(&edit.m);
    message.json.clone_from(&edit.json);
    message.mentions.clone_from(&edit.mentions);
    message.edited = Some(Edited {
        seq: edit.seq,
        ts: edit.ts,
    });
}

/// What is left of an entry without its body.
pub(super) fn gone(entry: LogEntry, reason: &str) -> LogEntry {
    LogEntry {
        cid: entry.cid,
        seq: entry.seq,
        mseq: entry.mseq,
        ts: entry.ts,
        kind: "gone".to_owned(),
        from: entry.from,
        format: "none".to_owned(),
        reason: reason.to_owned(),
        thread: entry.thread,
        ..LogEntry::default()
    }
}
