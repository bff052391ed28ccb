//! What an app reads: conversations, pages of the log, how far messages have got, search.

use proto::ids::{ConversationId, Seq};
use proto::schema::{ChangedConversation, LogEntry};
use proto::topics::Target;

use super::engine::Order;
use super::log::{is_gone, span};
use super::rows::{self, OutboxRow, Positions, Watermark};
use super::{Store, StoreError, Txn};
use crate::entry::{Progress, Reached, Status};

/// Messages that are counted at most as unread behind what the server has counted.
const UNREAD_MAX: usize = 1_000;
/// Rows that one call of search looks at.
const SEARCHED_MAX: usize = 5_000;
const PAGE: usize = 512;

/// A conversation of the list.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) cid: ConversationId,
    pub(crate) told: ChangedConversation,
    pub(crate) positions: Positions,
    pub(crate) last: Option<LogEntry>,
    pub(crate) unread: u64,
}

/// Where a search goes on: behind this conversation, or in it before this place.
pub(crate) type SearchPlace = (ConversationId, Seq);

impl Store {
    /// Which conversation a target is.
    pub(crate) fn known_as(&self, target: &str) -> Result<Option<ConversationId>, StoreError> {
        self.view().known_as(target)
    }

    /// One conversation.
    pub(crate) fn conversation(&self, cid: ConversationId) -> Result<Option<Known>, StoreError> {
        let txn = self.view();
        let told = txn.decoded(&rows::conversation(cid))?;
        told.map(|told| txn.known(cid, told)).transpose()
    }

    /// All conversations, the one with the newest entry first.
    pub(crate) fn conversations(&self) -> Result<Vec<Known>, StoreError> {
        let txn = self.view();
        let mut known = Vec::new();
        for (key, value) in txn.prefix(rows::CONVERSATIONS, usize::MAX / 2)? {
            let told: ChangedConversation = super::decode(&value)?;
            if let Some(cid) = rows::cid_of(&key)
                && !told.left
            {
                known.push(txn.known(cid, told)?);
            }
        }
        known.sort_by_key(|known| {
            let told = known.told.conversation.as_ref().map_or(0, |told| told.ts);
            let last = known.last.as_ref().map_or(0, |last| last.ts);
            (std::cmp::Reverse(told.max(last)), known.cid)
        });
        Ok(known)
    }

    /// Where this device stands.
    pub(crate) fn positions(&self, cid: ConversationId) -> Result<Positions, StoreError> {
        self.view().positions(cid)
    }

    /// Entries of the run before a place, ascending, at most `limit`.
    pub(crate) fn page(
        &self,
        cid: ConversationId,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let txn = self.view();
        let positions = txn.positions(cid)?;
        let last = positions.covered_to.saturating_add(1);
        let end = before.map_or(last, |before| before.get().min(last));
        let start = rows::entry(cid, Seq::new(positions.covered_from));
        let rows = txn.range(
            start..rows::entry(cid, Seq::new(end)),
            Order::Descending,
            limit,
        )?;
        let entries = rows.iter().rev();
        entries.map(|(_, value)| super::decode(value)).collect()
    }

    /// One entry.
    pub(crate) fn entry(
        &self,
        cid: ConversationId,
        seq: Seq,
    ) -> Result<Option<LogEntry>, StoreError> {
        self.view().decoded(&rows::entry(cid, seq))
    }

    /// How far own messages have got: up to where all others have been delivered everything, and have read it.
    pub(crate) fn reached(&self, cid: ConversationId) -> Result<Reached, StoreError> {
        self.view().reached(cid)
    }

    /// The same of one message by its id: as it waits in the outbox, or where in the log it is.
    pub(crate) fn progress(
        &self,
        target: &Target,
        mid: &str,
    ) -> Result<Option<Progress>, StoreError> {
        let txn = self.view();
        let name = target.to_string();
        let cid = txn.known_as(&name)?;
        let number = txn.get(&rows::sending(mid))?;
        if let Some(number) = number.as_deref().and_then(rows::number_of)
            && let Some(row) = txn.decoded::<OutboxRow>(&rows::outbox(number))?
            && (row.target == name || cid.is_some() && txn.known_as(&row.target)? == cid)
        {
            return Ok(Some(Progress {
                seq: None,
                status: Status::Pending,
                refusal: row.refusal(),
            }));
        }
        let Some(cid) = cid else { return Ok(None) };
        let seq = txn.get(&rows::own(cid, mid))?;
        let Some(seq) = seq.as_deref().and_then(rows::number_of).map(Seq::new) else {
            return Ok(None);
        };
        Ok(Some(Progress {
            seq: Some(seq),
            status: txn.reached(cid)?.status(seq),
            refusal: None,
        }))
    }

    /// Messages with all these words (lower case) in their text, newest first inside of each conversation; at most `limit`,
    /// after looking at a bounded number of rows. Where to go on, if there may be more.
    pub(crate) fn search(
        &self,
        words: &[String],
        of: Option<ConversationId>,
        after: Option<SearchPlace>,
        limit: usize,
    ) -> Result<(Vec<LogEntry>, Option<SearchPlace>), StoreError> {
        let txn = self.view();
        let mut found = Vec::new();
        let mut looked = 0;
        let all = match of {
            Some(cid) => vec![cid],
            None => txn.with_log()?,
        };
        let first = after.map_or(0, |(cid, _)| all.partition_point(|one| *one < cid));
        for cid in all.into_iter().skip(first) {
            let mut before = match after {
                Some((at, seq)) if at == cid => seq,
                _ => Seq::MAX,
            };
            loop {
                let range = rows::entry(cid, Seq::ZERO)..rows::entry(cid, before);
                let rows = txn.range(range, Order::Descending, PAGE)?;
                let full = rows.len() == PAGE;
                for (key, value) in rows {
                    before = rows::place_of(&key).map_or(before, |(_, seq)| seq);
                    looked += 1;
                    let entry: LogEntry = super::decode(&value)?;
                    if matches(&entry, words, txn.now) {
                        found.push(entry);
                    }
                    if found.len() >= limit || looked >= SEARCHED_MAX {
                        return Ok((found, Some((cid, before))));
                    }
                }
                if !full {
                    break;
                }
            }
        }
        Ok((found, None))
    }
}

impl Txn<'_> {
    fn reached(&self, cid: ConversationId) -> Result<Reached, StoreError> {
        let positions = self.positions(cid)?;
        let (mut delivered, mut read) = (positions.delivered_all, positions.read_all);
        // In a direct conversation the one other is all.
        if cid.kind() == proto::ids::ConversationKind::Direct {
            for (_, value) in self.prefix(&rows::watermarks(cid), 2)? {
                let mark: Watermark = super::decode(&value)?;
                delivered = delivered.max(mark.delivered);
                read = read.max(mark.read);
            }
        }
        Ok(Reached {
            delivered: Seq::new(delivered.max(read)),
            read: Seq::new(read),
        })
    }

    fn known(&self, cid: ConversationId, told: ChangedConversation) -> Result<Known, StoreError> {
        let positions = self.positions(cid)?;
        let entries = rows::entries(cid);
        let last = self.range(
            entries.clone()..rows::behind(&entries),
            Order::Descending,
            1,
        )?;
        let last = last
            .first()
            .map(|(_, value)| super::decode(value))
            .transpose()?;
        let unread = self.unread(cid, &told, &positions)?;
        Ok(Known {
            cid,
            told,
            positions,
            last,
            unread,
        })
    }

    /// What the server has counted, and what came after that; or what is here, if the user has read on.
    fn unread(
        &self,
        cid: ConversationId,
        told: &ChangedConversation,
        positions: &Positions,
    ) -> Result<u64, StoreError> {
        let Some(conversation) = &told.conversation else {
            return Ok(0);
        };
        let marked = conversation.read.max(conversation.private_read);
        let here = positions.covered_from <= positions.read.saturating_add(1);
        let (counted, from) = if positions.read > marked && here {
            (0, positions.read)
        } else {
            (conversation.unread, conversation.head.max(positions.read))
        };
        let start = rows::entry(cid, Seq::new(from.saturating_add(1)));
        let rows = self.range(
            start..rows::behind(&rows::entries(cid)),
            Order::Ascending,
            UNREAD_MAX,
        )?;
        let me = self.user()?.map(|me| me.to_string()).unwrap_or_default();
        let mut unread = counted;
        for (_, value) in rows {
            let entry: LogEntry = super::decode(&value)?;
            let own = entry.from.as_ref().is_some_and(|from| from.uid == me);
            if entry.kind == "message" && !own {
                unread += 1;
            }
        }
        Ok(unread)
    }

    /// Conversations of which there may be a log.
    fn with_log(&self) -> Result<Vec<ConversationId>, StoreError> {
        let rows = self.prefix(rows::POSITIONS, usize::MAX / 2)?;
        let mut all: Vec<_> = rows
            .iter()
            .filter_map(|(key, _)| rows::cid_of(key))
            .collect();
        all.sort_unstable();
        Ok(all)
    }
}

fn matches(entry: &LogEntry, words: &[String], now: u64) -> bool {
    let over = entry.expires.is_some_and(|expires| expires <= now);
    if entry.kind != "message" || is_gone(entry) || over {
        return false;
    }
    debug_assert!(span(entry).0 == span(entry).1, "a message has one place");
    let text = entry.m.as_ref().map_or(entry.t.as_str(), |m| m.t.as_str());
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(word))
}
