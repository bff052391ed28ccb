//! Reads of what happened to entries: merged into pages, and on their own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use broker::store::kv::{KeyRange, KvEngine, Order};
use proto::ids::{ConversationId, MessageId, Seq, UserId};

use super::{keys, readers, reads, values};
use crate::domain::entry::Entry;
use crate::domain::held::Held;
use crate::domain::member::Stretch;
use crate::domain::overlay::{Overlay, Pin, Reactions, Report};
use crate::store::{PageRange, StoreError, Written, tables};

/// Merges into the entries of a page what happened to them. Edits may be longer than what they replace: entries beyond
/// the bytes of the page are left out, but for one.
pub(super) fn merge(
    engine: &impl KvEngine,
    entries: &mut Vec<Entry>,
    range: &PageRange,
) -> Result<(), StoreError> {
    let mut overlays = overlays(engine, entries)?;
    if overlays.is_empty() && entries.iter().all(|entry| entry.source.is_none()) {
        return Ok(());
    }
    if range.newest {
        entries.reverse();
    }
    let mut bytes = 0;
    let mut kept = 0;
    for entry in entries.iter_mut() {
        readers::fetch_body(engine, entry)?;
        if entry.gone.is_none()
            && let Some(overlay) = overlays.remove(&entry.seq)
            && let Some(overlay) = as_of(overlay, range.as_of)
        {
            let edit = edit(engine, entry.conversation, &overlay)?;
            present(entry, overlay, edit);
        }
        bytes += entry.body.len();
        if bytes > range.bytes && kept > 0 {
            break;
        }
        kept += 1;
    }
    entries.truncate(kept);
    if range.newest {
        entries.reverse();
    }
    Ok(())
}

fn overlays(
    engine: &impl KvEngine,
    entries: &[Entry],
) -> Result<BTreeMap<Seq, Overlay>, StoreError> {
    let mut found = BTreeMap::new();
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(found);
    };
    let low = keys::message(first.conversation, first.seq);
    let high = keys::message(last.conversation, last.seq);
    let range = KeyRange::closed(&low, &high);
    reads::visit(engine, tables::OVERLAY, range, usize::MAX, |key, row| {
        found.insert(tail_seq(key)?, values::read_overlay(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// The latest edit. One that went meanwhile went with its message: whoever has read that is told of it.
fn edit(
    engine: &impl KvEngine,
    conversation: ConversationId,
    overlay: &Overlay,
) -> Result<Option<Entry>, StoreError> {
    let Some(seq) = overlay.edits.last().copied() else {
        return Ok(None);
    };
    let row = engine.get(tables::MESSAGE, &keys::message(conversation, seq))?;
    row.map(|row| values::read_entry(conversation, seq, &row))
        .transpose()
}

/// What of it had happened at this place. Of reactions and pins it is not known when they came.
fn as_of(overlay: Overlay, at: Seq) -> Option<Overlay> {
    if at == Seq::MAX {
        return Some(overlay);
    }
    let mut edits = overlay.edits;
    edits.retain(|edit| *edit <= at);
    (!edits.is_empty()).then(|| Overlay {
        edits,
        ..Overlay::default()
    })
}

/// The entry as it is now.
pub(super) fn present(entry: &mut Entry, mut overlay: Overlay, edit: Option<Entry>) {
    if let Some(edit) = edit.filter(|edit| edit.gone.is_none()) {
        overlay.edited_ms = edit.ts_ms;
        entry.format = edit.format;
        entry.opaque = edit.opaque;
        entry.mentions = edit.mentions;
        entry.body = edit.body;
    }
    entry.overlay = (!overlay.is_empty()).then(|| Box::new(overlay));
}

/// Messages of one user that are there, with the bodies of their latest edits: looks at so many behind `after`, and takes so
/// many bytes.
pub(super) fn written(
    engine: &impl KvEngine,
    (conversation, user): (ConversationId, UserId),
    after: Seq,
    (limit, bytes): (usize, usize),
) -> Result<Written, StoreError> {
    let low = keys::own(conversation, user, after);
    let high = keys::own(conversation, user, Seq::MAX);
    // The rows first: an engine may not be asked from within a scan.
    let mut seqs = Vec::new();
    let range = KeyRange::between(&low, &high);
    reads::visit(engine, tables::OWN, range, limit, |key, _| {
        seqs.push(tail_seq(key)?);
        Ok(())
    })?;
    let mut found = Written {
        next: seqs.last().copied().filter(|_| seqs.len() == limit),
        ..Written::default()
    };
    let mut left = bytes;
    let mut before = after;
    for seq in seqs {
        if let Some(entry) = shown(engine, conversation, seq)? {
            if entry.body.len() > left && !found.entries.is_empty() {
                found.next = Some(before);
                break;
            }
            left = left.saturating_sub(entry.body.len());
            found.entries.push(entry);
        }
        found.looked_at += 1;
        before = seq;
    }
    Ok(found)
}

/// An entry as it is now, if anything of it is there.
fn shown(
    engine: &impl KvEngine,
    conversation: ConversationId,
    seq: Seq,
) -> Result<Option<Entry>, StoreError> {
    let key = keys::message(conversation, seq);
    let row = engine.get(tables::MESSAGE, &key)?;
    let entry = row.map(|row| values::read_entry(conversation, seq, &row));
    let Some(mut entry) = entry.transpose()? else {
        return Ok(None);
    };
    readers::fetch_body(engine, &mut entry)?;
    if entry.gone.is_some() {
        return Ok(None);
    }
    if let Some(row) = engine.get(tables::OVERLAY, &key)? {
        let overlay = values::read_overlay(&row)?;
        let edit = edit(engine, conversation, &overlay)?;
        present(&mut entry, overlay, edit);
    }
    Ok(Some(entry))
}

pub(super) fn reactions(
    engine: &impl KvEngine,
    conversation: ConversationId,
    seq: Seq,
    (after, limit): (Option<UserId>, usize),
) -> Result<Reactions, StoreError> {
    let low = keys::entry_user(
        conversation,
        seq,
        after.unwrap_or(UserId::from_bytes([0; 16])),
    );
    let high = keys::entry_user(conversation, seq, UserId::from_bytes([0xFF; 16]));
    let range = KeyRange {
        from: if after.is_some() {
            Bound::Excluded(&low)
        } else {
            Bound::Included(&low)
        },
        to: Bound::Included(&high),
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::REACTION, range, limit, |key, row| {
        found.push((reads::tail_user(key)?, values::read_emoji(row)?));
        Ok(())
    })?;
    Ok(found)
}

/// Messages of others that mention a user, and that are not hidden from him: the newest first, at most `limit`.
pub(super) fn mentions(
    engine: &impl KvEngine,
    (conversation, user): (ConversationId, UserId),
    stretch: Stretch,
    limit: usize,
) -> Result<Vec<Seq>, StoreError> {
    let marks = engine.get(tables::MARKS, &keys::member(conversation, user))?;
    let marks = marks.map(|row| values::read_marks(&row)).transpose()?;
    let hidden_to = marks.unwrap_or_default().hidden;
    let mut found = BTreeSet::new();
    for who in [user, values::EVERYBODY] {
        let (mut part, mut room) = (stretch, limit);
        while room > 0 && part.from <= part.to {
            let (seqs, next) = mentions_of(engine, (conversation, who, user), part, room)?;
            for seq in seqs {
                let key = keys::entry_user(conversation, seq, user);
                if seq > hidden_to || engine.get(tables::HIDDEN, &key)?.is_none() {
                    found.insert(seq);
                    room -= 1;
                }
            }
            let Some(next) = next else { break };
            part.to = next.previous();
        }
    }
    Ok(found.into_iter().rev().take(limit).collect())
}

/// One piece of the rows of `who`, without what `user` wrote; and its last row, if there may be more.
fn mentions_of(
    engine: &impl KvEngine,
    (conversation, who, user): (ConversationId, UserId, UserId),
    Stretch { from, to }: Stretch,
    limit: usize,
) -> Result<(Vec<Seq>, Option<Seq>), StoreError> {
    let low = keys::own(conversation, who, from);
    let high = keys::own(conversation, who, to);
    let (mut seqs, mut seen, mut last) = (Vec::new(), 0, None);
    let mut failed = Ok(());
    engine.scan(
        tables::MENTION,
        KeyRange::closed(&low, &high),
        Order::Descending,
        &mut |key, row| {
            match (
                tail_seq(key),
                values::read_user_id(tables::MENTION.name(), row),
            ) {
                (Ok(seq), Ok(writer)) => {
                    seqs.extend((writer != user).then_some(seq));
                    last = Some(seq);
                }
                (Err(error), _) | (_, Err(error)) => failed = Err(error),
            }
            seen += 1;
            if failed.is_err() || seen == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )?;
    failed?;
    Ok((seqs, last.filter(|_| seen == limit)))
}

pub(super) fn pins(
    engine: &impl KvEngine,
    conversation: ConversationId,
) -> Result<Vec<Pin>, StoreError> {
    let low = keys::message(conversation, Seq::ZERO);
    let high = keys::message(conversation, Seq::MAX);
    let range = KeyRange::closed(&low, &high);
    let mut found = Vec::new();
    reads::visit(engine, tables::PIN, range, usize::MAX, |key, row| {
        found.push(values::read_pin(tail_seq(key)?, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Messages that are held, in the order of senders and message ids, at most so many and about so many bytes, and whether there
/// are more; `after` is the key of the last one that is known.
pub(super) fn held(
    engine: &impl KvEngine,
    conversation: ConversationId,
    after: Option<&[u8]>,
    (limit, bytes): (usize, usize),
) -> Result<(Vec<Held>, bool), StoreError> {
    let low = keys::cid(conversation);
    let high = keys::held(conversation, UserId::from_bytes([0xFF; 16]), "\u{10FFFF}");
    let range = KeyRange {
        from: Bound::Excluded(after.unwrap_or(&low)),
        to: Bound::Included(&high),
    };
    let (mut found, mut room, mut more) = (Vec::new(), bytes, false);
    let mut failed = Ok(());
    engine.scan(tables::HELD, range, Order::Ascending, &mut |_, row| {
        if found.len() == limit || !found.is_empty() && row.len() > room {
            more = true;
            return ControlFlow::Break(());
        }
        room = room.saturating_sub(row.len());
        match values::read_held(conversation, row) {
            Ok(held) => found.push(held),
            Err(error) => {
                failed = Err(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map(|()| (found, more))
}

pub(super) fn reports(
    engine: &impl KvEngine,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Report>, StoreError> {
    let range = KeyRange {
        from: after.map_or(Bound::Unbounded, Bound::Excluded),
        to: Bound::Unbounded,
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::REPORT, range, limit, |key, row| {
        found.push(read_report(key, row)?);
        Ok(())
    })?;
    Ok(found)
}

pub(super) fn read_report(key: &[u8], row: &[u8]) -> Result<Report, StoreError> {
    let key = read_report_key(key).ok_or_else(|| reads::bad_key(tables::REPORT))?;
    values::read_report(key, row)
}

/// Who made the report with this key.
pub(super) fn reporter(key: &[u8]) -> Option<UserId> {
    read_report_key(key).map(|(_, by, _)| by)
}

fn read_report_key(key: &[u8]) -> Option<(u64, UserId, MessageId)> {
    let (ts, rest) = key.split_first_chunk::<6>()?;
    let (by, mid) = rest.split_first_chunk::<16>()?;
    let mid = std::str::from_utf8(mid).ok()?.parse().ok()?;
    let ts_ms = u64::from_be_bytes(keys::join(&[&[0, 0], ts]));
    Some((ts_ms, UserId::from_bytes(*by), mid))
}

pub(super) fn tail_seq(key: &[u8]) -> Result<Seq, StoreError> {
    key.last_chunk()
        .map(|seq| Seq::new(u64::from_be_bytes(*seq)))
        .ok_or_else(|| StoreError::Corrupt("a key holds no place".to_owned()))
}
