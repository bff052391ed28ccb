//! Rows of the log: entries, what lies over them, and where a message was stored first.

use bytes::Bytes;
use proto::ids::{ConversationId, DeviceId, MessageId, Seq, UserId};

use super::super::keys;
use super::{EVERYBODY, FORMAT, Read, Reader, long, text, time};
use crate::domain::entry::{BodyFormat, Entry, EntryKind, Mentioned};
use crate::domain::overlay::{GoneReason, Overlay, Pin};

/// Where a message with some key of idempotency was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct First {
    pub(in super::super) seq: Seq,
    pub(in super::super) ts_ms: u64,
    pub(in super::super) digest: [u8; 16],
}

pub(in super::super) fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.reserve(MESSAGE_FIXED_BYTES + 64 + entry.body.len());
    let flags = [
        (entry.opaque, flag::OPAQUE),
        (entry.gone.is_some(), flag::GONE),
        (entry.target.is_some(), flag::TARGET),
        (entry.thread.is_some(), flag::THREAD),
        (entry.expires_ms.is_some(), flag::EXPIRES),
        (!entry.mentions.is_empty(), flag::MENTIONS),
        (entry.source.is_some(), flag::SOURCE),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    out.extend_from_slice(&[FORMAT, entry.kind.to_byte(), entry.format.to_byte(), flags]);
    time(out, entry.ts_ms);
    long(out, entry.mseq);
    out.extend_from_slice(entry.from.as_bytes());
    out.extend_from_slice(entry.device.as_bytes());
    let mid = entry.mid.as_str().as_bytes();
    out.push(u8::try_from(mid.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(mid);
    out.extend(entry.gone.map(reason_byte));
    for place in [entry.target, entry.thread].into_iter().flatten() {
        long(out, place.get());
    }
    if let Some(ms) = entry.expires_ms {
        time(out, ms);
    }
    if !entry.mentions.is_empty() {
        write_mentions(out, &entry.mentions);
    }
    match entry.source {
        Some((list, seq)) => {
            out.extend_from_slice(&keys::cid(list));
            long(out, seq.get());
        }
        None => out.extend_from_slice(&entry.body),
    }
}

fn write_mentions(out: &mut Vec<u8>, mentions: &Mentioned) {
    let all = mentions.all.then_some(&EVERYBODY);
    let users = all.into_iter().chain(&mentions.users);
    let users = users.take(usize::from(u8::MAX));
    let place = out.len();
    out.push(0);
    let mut count = 0;
    for user in users {
        out.extend_from_slice(user.as_bytes());
        count += 1;
    }
    if let Some(byte) = out.get_mut(place) {
        *byte = count;
    }
}

/// Bits of the flags of a message: what follows its `mid`.
mod flag {
    pub(super) const OPAQUE: u8 = 1;
    pub(super) const GONE: u8 = 2;
    pub(super) const TARGET: u8 = 4;
    pub(super) const THREAD: u8 = 8;
    pub(super) const EXPIRES: u8 = 16;
    pub(super) const MENTIONS: u8 = 32;
    pub(super) const SOURCE: u8 = 64;
}

/// Only what is gone for all is so at rest.
fn reason_byte(reason: GoneReason) -> u8 {
    match reason {
        GoneReason::Expired => 2,
        GoneReason::Purged => 3,
        _ => 1,
    }
}

pub(in super::super) fn write_overlay(overlay: &Overlay) -> Vec<u8> {
    let mut out = vec![FORMAT, u8::from(overlay.pinned)];
    let edits = u16::try_from(overlay.edits.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&edits.to_be_bytes());
    for edit in overlay.edits.iter().take(usize::from(edits)) {
        long(&mut out, edit.get());
    }
    time(&mut out, overlay.edited_ms);
    let reactions = u16::try_from(overlay.reactions.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&reactions.to_be_bytes());
    for (emoji, count) in overlay.reactions.iter().take(usize::from(reactions)) {
        text(&mut out, emoji);
        out.extend_from_slice(&count.to_be_bytes());
    }
    out
}

/// The emoji of one user on one message.
pub(in super::super) fn write_emoji(emoji: &[Box<str>]) -> Vec<u8> {
    let count = u8::try_from(emoji.len()).unwrap_or(u8::MAX);
    let mut out = vec![FORMAT, count];
    for one in emoji.iter().take(usize::from(count)) {
        text(&mut out, one);
    }
    out
}

pub(in super::super) fn write_pin(by: UserId, ts_ms: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(by.as_bytes());
    time(&mut out, ts_ms);
    out
}

pub(in super::super) fn write_first(out: &mut Vec<u8>, first: &First) {
    out.push(FORMAT);
    long(out, first.seq.get());
    time(out, first.ts_ms);
    out.extend_from_slice(&first.digest);
}

/// Bytes of a message before the length of its `mid`.
const MESSAGE_FIXED_BYTES: usize = 50;

pub(in super::super) fn read_entry(
    conversation: ConversationId,
    seq: Seq,
    value: &[u8],
) -> Read<Entry> {
    let mut reader = Reader::new("message", value)?;
    let kind = reader.byte()?;
    let kind = EntryKind::from_byte(kind).ok_or_else(|| reader.bad("unknown kind"))?;
    let format = reader.byte()?;
    let format = BodyFormat::from_byte(format).ok_or_else(|| reader.bad("unknown body format"))?;
    let flags = reader.byte()?;
    let ts_ms = reader.time()?;
    let mseq = reader.long()?;
    let from = reader.user()?;
    let device = DeviceId::from_bytes(reader.array()?);
    let len = usize::from(reader.byte()?);
    let mid = reader.bytes(len)?;
    let mid: MessageId = reader
        .utf8(mid)?
        .parse()
        .map_err(|_| reader.bad("bad message id"))?;
    let has = |bit: u8| flags & bit != 0;
    let gone = has(flag::GONE).then(|| reader.gone_reason()).transpose()?;
    let target = has(flag::TARGET).then(|| reader.seq()).transpose()?;
    let thread = has(flag::THREAD).then(|| reader.seq()).transpose()?;
    let expires_ms = has(flag::EXPIRES).then(|| reader.time()).transpose()?;
    let mentions = has(flag::MENTIONS).then(|| reader.mentions()).transpose()?;
    let source = if has(flag::SOURCE) {
        Some((reader.cid()?, reader.seq()?))
    } else {
        None
    };
    Ok(Entry {
        conversation,
        seq,
        mseq,
        ts_ms,
        from,
        device,
        mid,
        kind,
        format,
        opaque: has(flag::OPAQUE),
        body: Bytes::copy_from_slice(reader.rest),
        target,
        thread,
        expires_ms,
        mentions: mentions.unwrap_or_default(),
        gone,
        source,
        overlay: None,
    })
}

pub(in super::super) fn read_overlay(value: &[u8]) -> Read<Overlay> {
    let mut reader = Reader::new("overlay", value)?;
    let pinned = reader.byte()? & 1 != 0;
    let edits = (0..reader.short()?)
        .map(|_| reader.seq())
        .collect::<Read<_>>()?;
    let edited_ms = reader.time()?;
    let mut reactions = Vec::new();
    for _ in 0..reader.short()? {
        reactions.push((reader.text()?.into(), reader.word()?));
    }
    reader.end()?;
    Ok(Overlay {
        edits,
        edited_ms,
        reactions,
        pinned,
    })
}

pub(in super::super) fn read_emoji(value: &[u8]) -> Read<Vec<Box<str>>> {
    let mut reader = Reader::new("reaction", value)?;
    let count = reader.byte()?;
    let emoji = (0..count).map(|_| reader.text().map(Box::from));
    let emoji = emoji.collect::<Read<_>>()?;
    reader.end()?;
    Ok(emoji)
}

pub(in super::super) fn read_pin(seq: Seq, value: &[u8]) -> Read<Pin> {
    let mut reader = Reader::new("pin", value)?;
    let pin = Pin {
        seq,
        by: reader.user()?,
        ts_ms: reader.time()?,
    };
    reader.end()?;
    Ok(pin)
}

/// `mseq` of a message, without reading the rest.
pub(in super::super) fn read_entry_mseq(value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new("message", value)?;
    reader.bytes(9)?;
    reader.long()
}

pub(in super::super) fn read_first(value: &[u8]) -> Read<First> {
    let mut reader = Reader::new("idempotency", value)?;
    let first = First {
        seq: reader.seq()?,
        ts_ms: reader.time()?,
        digest: reader.array()?,
    };
    reader.end()?;
    Ok(first)
}
