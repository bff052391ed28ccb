//! Places of which there is nothing to see: a page of the server tells a run of them as one entry, and so does a row.

use prost::Message;
use proto::ids::{ConversationId, Seq};
use proto::schema::{Gap, LogEntry};

use super::engine::Order;
use super::log::{Taken, gone, is_gone, span};
use super::{StoreError, Txn, rows};

impl Txn<'_> {
    /// The row that stands for a place, if there is one.
    pub(super) fn row_at(
        &self,
        cid: ConversationId,
        seq: Seq,
    ) -> Result<Option<LogEntry>, StoreError> {
        let range = rows::entry(cid, seq)..rows::behind(&rows::entries(cid));
        let rows = self.range(range, Order::Ascending, 1)?;
        let row = rows.first().map(|(_, value)| super::decode(value));
        Ok(row.transpose()?.filter(|row| span(row).0 <= seq))
    }

    /// A gap that begins before this place is two from now on.
    pub(super) fn split_gap(&mut self, cid: ConversationId, at: Seq) -> Result<(), StoreError> {
        if let Some(row) = self.row_at(cid, at)?
            && let Some(gap) = &row.gap
            && gap.from < at.get()
        {
            self.put_gap_row(cid, (gap.from, at.get() - 1), &gap.reason);
            self.put_gap_row(cid, (at.get(), gap.to), &gap.reason);
        }
        Ok(())
    }

    /// Takes a gap as far as it tells of places of which nothing is here. What is here of it has no body any more. Whether
    /// there was such a place.
    pub(super) fn put_gap(
        &mut self,
        cid: ConversationId,
        gap: &Gap,
        taken: &mut Taken,
    ) -> Result<bool, StoreError> {
        let (mut next, mut new) = (gap.from, false);
        while next <= gap.to {
            let range = rows::entry(cid, Seq::new(next))..rows::behind(&rows::entries(cid));
            let row = self.range(range, Order::Ascending, 1)?;
            let row = row
                .first()
                .map(|(_, value)| super::decode::<LogEntry>(value));
            let row = row.transpose()?;
            let (from, to) = row.as_ref().map_or((Seq::MAX, Seq::MAX), span);
            if next < from.get() {
                let last = gap.to.min(from.previous().get());
                self.put_gap_row(cid, (next, last), &gap.reason);
                new = true;
            }
            if let Some(row) = row.filter(|row| !is_gone(row) && row.seq <= gap.to) {
                self.end(cid, Seq::new(row.seq), &gap.reason)?;
                taken.updated.insert((cid, Seq::new(row.seq)));
            }
            let Some(after) = to.get().checked_add(1) else {
                break;
            };
            next = after;
        }
        Ok(new)
    }

    /// One row for places of which there is nothing to see.
    fn put_gap_row(&mut self, cid: ConversationId, (from, to): (u64, u64), reason: &str) {
        let mut row = LogEntry {
            cid: cid.to_string(),
            ..LogEntry::default()
        };
        if from == to {
            row.seq = to;
            row = gone(row, reason);
        } else {
            "gap".clone_into(&mut row.kind);
            let reason = reason.to_owned();
            row.gap = Some(Gap { from, to, reason });
        }
        self.put(rows::entry(cid, Seq::new(to)), row.encode_to_vec());
    }
}
