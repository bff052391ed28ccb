//! The outbox: what waits for the server, by numbers that only grow.

use std::sync::atomic::Ordering;

use prost::Message;
use proto::ids::{ConversationId, Seq};
use proto::schema::{ChangedConversation, ClientMessage, LogEntry, User};
use proto::topics::Target;

use super::engine::Order;
use super::log::Taken;
use super::rows::{self, Meta, OutboxKind, OutboxRow};
use super::{Store, StoreError, Txn};

/// Rows that are read together.
const PAGE: usize = 256;

/// Something in the outbox, without its body.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) number: u64,
    pub(crate) target: String,
    /// The conversation, if it is known.
    pub(crate) cid: Option<ConversationId>,
    pub(crate) kind: OutboxKind,
    /// The mark, of a mark.
    pub(crate) seq: u64,
    pub(crate) failed: bool,
    pub(crate) mid: String,
}

/// What the server said of something that it has settled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) cid: Option<ConversationId>,
    pub(crate) seq: Option<Seq>,
    pub(crate) ts: u64,
}

impl Store {
    /// Puts something into the outbox; `None` if it is full.
    pub(crate) fn enqueue(
        &self,
        row: &OutboxRow,
        max: usize,
    ) -> Result<Option<Queued>, StoreError> {
        self.write(|txn| {
            if self.queued.load(Ordering::Relaxed) >= max {
                return Ok(None);
            }
            txn.queued_more += 1;
            let number = txn.number(Meta::Outbox)? + 1;
            txn.put_number(Meta::Outbox, number);
            if !row.mid.is_empty() {
                txn.put(rows::sending(&row.mid), number.to_be_bytes().to_vec());
            }
            txn.put(rows::outbox(number), row.encode_to_vec());
            let queued = txn.queued(number, row)?;
            if let Some(cid) = queued.cid.filter(|_| is_mark(queued.kind)) {
                let mut positions = txn.positions(cid)?;
                positions.read = positions.read.max(txn.mark(cid, row.seq)?);
                txn.put_positions(cid, &positions);
            }
            Ok(Some(queued))
        })
    }

    /// All of it, without bodies.
    pub(crate) fn outbox(&self) -> Result<Vec<Queued>, StoreError> {
        self.view().all_queued()
    }

    /// One of it.
    pub(crate) fn outbox_row(&self, number: u64) -> Result<Option<OutboxRow>, StoreError> {
        self.view().decoded(&rows::outbox(number))
    }

    /// Those of a conversation, or of all, oldest first.
    pub(crate) fn outbox_rows(
        &self,
        of: Option<&Target>,
    ) -> Result<Vec<(u64, OutboxRow)>, StoreError> {
        let txn = self.view();
        let cid = match of {
            Some(target) => txn.known_as(&target.to_string())?,
            None => None,
        };
        let name = of.map(ToString::to_string);
        let mut found = Vec::new();
        for queued in txn.all_queued()? {
            let known = cid.is_some() && queued.cid == cid;
            if name
                .as_ref()
                .is_none_or(|name| known || *name == queued.target)
                && let Some(row) = txn.decoded(&rows::outbox(queued.number))?
            {
                found.push((queued.number, row));
            }
        }
        Ok(found)
    }

    /// By message id.
    pub(crate) fn outbox_number(&self, mid: &str) -> Result<Option<u64>, StoreError> {
        let number = self.view().get(&rows::sending(mid))?;
        Ok(number.as_deref().and_then(rows::number_of))
    }

    /// It was refused, and is not tried again unless the app says so. A mark, which has no message id by which the app could
    /// say so, is no more.
    pub(crate) fn fail(&self, number: u64, code: &str, message: &str) -> Result<Taken, StoreError> {
        self.write(|txn| {
            let mut taken = Taken::default();
            if let Some(mut row) = txn.decoded::<OutboxRow>(&rows::outbox(number))? {
                if row.mid.is_empty() {
                    txn.remove_outbox(number)?;
                    if let Some(cid) = txn.known_as(&row.target)? {
                        txn.take_mark_back(cid)?;
                        taken.conversations.insert(cid);
                    }
                } else {
                    code.clone_into(&mut row.error);
                    message.clone_into(&mut row.error_message);
                    txn.put(rows::outbox(number), row.encode_to_vec());
                }
            }
            txn.sum_up(&mut taken)?;
            Ok(taken)
        })
    }

    /// It waits again.
    pub(crate) fn retry(&self, number: u64) -> Result<Option<Queued>, StoreError> {
        self.write(|txn| {
            let Some(mut row) = txn.decoded::<OutboxRow>(&rows::outbox(number))? else {
                return Ok(None);
            };
            row.error.clear();
            row.error_message.clear();
            txn.put(rows::outbox(number), row.encode_to_vec());
            txn.queued(number, &row).map(Some)
        })
    }

    /// It is not to be sent any more. Whether it was there.
    pub(crate) fn discard(&self, number: u64) -> Result<bool, StoreError> {
        self.write(|txn| txn.remove_outbox(number))
    }

    /// The server has it: out of the outbox and, if it is a message, into the log.
    pub(crate) fn settle(&self, number: u64, settled: &Settled) -> Result<Taken, StoreError> {
        self.time.heard(settled.ts);
        self.write(|txn| {
            let mut taken = Taken::default();
            let Some(row) = txn.decoded::<OutboxRow>(&rows::outbox(number))? else {
                txn.sum_up(&mut taken)?;
                return Ok(taken);
            };
            txn.remove_outbox(number)?;
            if row.kind() == OutboxKind::Hide
                && let Some(cid) = txn.known_as(&row.target)?
            {
                let seq = Seq::new(row.seq);
                txn.end(cid, seq, "hidden")?;
                taken.updated.insert((cid, seq));
                taken.conversations.insert(cid);
            }
            if let Some(cid) = settled.cid {
                if let Some(handle) = row.target.strip_prefix('@') {
                    txn.put(rows::handle(handle), rows::cid_value(cid));
                }
                if let Some(seq) = settled.seq
                    && row.kind() == OutboxKind::Message
                {
                    let entry = txn.own_message(cid, seq, settled.ts, &row)?;
                    txn.put_own(cid, seq, entry, &mut taken)?;
                }
                taken.conversations.insert(cid);
            }
            txn.sum_up(&mut taken)?;
            Ok(taken)
        })
    }
}

fn is_mark(kind: OutboxKind) -> bool {
    matches!(kind, OutboxKind::Read | OutboxKind::ReadPrivately)
}

impl Txn<'_> {
    /// How far a read mark goes as far as one can tell here.
    fn mark(&self, cid: ConversationId, seq: u64) -> Result<u64, StoreError> {
        let told: Option<ChangedConversation> = self.decoded(&rows::conversation(cid))?;
        let head = told.map_or(0, |told| told.head);
        Ok(seq.min(self.positions(cid)?.known.max(head)))
    }

    /// Read up to where the server told, and the marks that still wait.
    fn take_mark_back(&mut self, cid: ConversationId) -> Result<(), StoreError> {
        let told: Option<ChangedConversation> = self.decoded(&rows::conversation(cid))?;
        let told = told.and_then(|told| told.conversation).unwrap_or_default();
        let mut read = told.read.max(told.private_read);
        for queued in self.all_queued()? {
            if is_mark(queued.kind) && queued.cid == Some(cid) {
                read = read.max(self.mark(cid, queued.seq)?);
            }
        }
        let mut positions = self.positions(cid)?;
        positions.read = read;
        self.put_positions(cid, &positions);
        Ok(())
    }

    fn all_queued(&self) -> Result<Vec<Queued>, StoreError> {
        let mut queued = Vec::new();
        let mut next = 0;
        loop {
            let range = rows::outbox(next)..rows::outbox(u64::MAX);
            let rows = self.range(range, Order::Ascending, PAGE)?;
            let full = rows.len() == PAGE;
            for (key, value) in rows {
                let number = rows::number_of(&key).unwrap_or(u64::MAX);
                next = number.saturating_add(1);
                queued.push(self.queued(number, &super::decode(&value)?)?);
            }
            if !full {
                return Ok(queued);
            }
        }
    }

    fn queued(&self, number: u64, row: &OutboxRow) -> Result<Queued, StoreError> {
        Ok(Queued {
            number,
            cid: self.known_as(&row.target)?,
            target: row.target.clone(),
            kind: row.kind(),
            seq: row.seq,
            failed: !row.error.is_empty(),
            mid: row.mid.clone(),
        })
    }

    /// Which conversation a target is, as far as that is known.
    pub(super) fn known_as(&self, target: &str) -> Result<Option<ConversationId>, StoreError> {
        Ok(match target.parse() {
            Ok(Target::Conversation(cid)) => Some(cid),
            Ok(Target::Handle(handle)) => {
                let cid = self.get(&rows::handle(handle.as_str()))?;
                cid.as_deref().and_then(rows::cid_of)
            }
            Ok(Target::User(user)) => self.user()?.map(|me| ConversationId::direct(me, user)),
            Ok(Target::Me) => self.user()?.map(|me| ConversationId::direct(me, me)),
            Err(_) => None,
        })
    }

    /// Does something in the outbox go to this conversation, as far as one can tell?
    pub(super) fn is_to(&self, number: u64, cid: ConversationId) -> Result<bool, StoreError> {
        let row: Option<OutboxRow> = self.decoded(&rows::outbox(number))?;
        Ok(match row {
            Some(row) => self.known_as(&row.target)?.is_none_or(|known| known == cid),
            None => false,
        })
    }

    pub(super) fn remove_outbox(&mut self, number: u64) -> Result<bool, StoreError> {
        let Some(row) = self.decoded::<OutboxRow>(&rows::outbox(number))? else {
            return Ok(false);
        };
        if !row.mid.is_empty() {
            self.remove(rows::sending(&row.mid));
        }
        self.remove(rows::outbox(number));
        self.queued_more -= 1;
        Ok(true)
    }

    fn own_message(
        &self,
        cid: ConversationId,
        seq: Seq,
        ts: u64,
        row: &OutboxRow,
    ) -> Result<LogEntry, StoreError> {
        let message: ClientMessage = super::decode(&row.payload)?;
        let from = User {
            uid: self.text(Meta::Uid)?.unwrap_or_default(),
            handle: self.text(Meta::Handle)?.unwrap_or_default(),
            name: String::new(),
        };
        Ok(LogEntry {
            cid: cid.to_string(),
            seq: seq.get(),
            ts,
            kind: "message".to_owned(),
            from: Some(from),
            mid: row.mid.clone(),
            format: "protobuf".to_owned(),
            reply_to: message.reply_to,
            thread: message.thread,
            m: Some(message),
            ..LogEntry::default()
        })
    }

    /// An own message at the place that it was given. It extends the run if it is next; otherwise it waits as an island.
    fn put_own(
        &mut self,
        cid: ConversationId,
        seq: Seq,
        entry: LogEntry,
        taken: &mut Taken,
    ) -> Result<(), StoreError> {
        if self.row_at(cid, seq)?.is_some() {
            return Ok(());
        }
        self.put_entry(cid, entry, taken)?;
        let mut positions = self.positions(cid)?;
        positions.known = positions.known.max(seq.get());
        if positions.covered_to != 0 {
            self.extend(cid, &mut positions)?;
            self.feed(cid, &mut positions)?;
        }
        self.put_positions(cid, &positions);
        Ok(())
    }
}
