//! Rows of what is not in a log: scheduled and held messages, reports, ranges that are purged.

use bytes::Bytes;
use proto::ids::{ConversationId, DeviceId, MessageId, Seq, UserId};

use super::super::keys;
use super::super::writer::waiting::Tally;
use super::{FORMAT, Read, Reader, long, read_entry, text, time, write_entry};
use crate::domain::entry::BodyFormat;
use crate::domain::held::Held;
use crate::domain::member::Stretch;
use crate::domain::overlay::Report;
use crate::domain::purge::Range;
use crate::domain::scheduled::Scheduled;

pub(in super::super) fn write_scheduled(scheduled: &Scheduled) -> Vec<u8> {
    let flags = [
        scheduled.opaque,
        scheduled.refused.is_some(),
        scheduled.reply_to.is_some(),
        scheduled.thread.is_some(),
        scheduled.ttl_s.is_some(),
    ];
    let flags = flags
        .into_iter()
        .rev()
        .fold(0, |all, flag| all << 1 | u8::from(flag));
    let mut out = Vec::with_capacity(128 + scheduled.body.len());
    out.extend_from_slice(&[FORMAT, flags, scheduled.format.to_byte()]);
    time(&mut out, scheduled.at_ms);
    time(&mut out, scheduled.due_ms);
    out.extend_from_slice(scheduled.device.as_bytes());
    out.extend_from_slice(&scheduled.digest);
    out.extend_from_slice(&keys::cid(scheduled.conversation));
    text(&mut out, &scheduled.target.to_string());
    if let Some((name, said)) = &scheduled.refused {
        text(&mut out, name.name());
        text(&mut out, said);
    }
    for place in [scheduled.reply_to, scheduled.thread].into_iter().flatten() {
        long(&mut out, place.get());
    }
    out.extend(scheduled.ttl_s.iter().flat_map(|ttl_s| ttl_s.to_be_bytes()));
    out.extend_from_slice(&scheduled.body);
    out
}

pub(in super::super) fn write_report(report: &Report) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::cid(report.conversation));
    long(&mut out, report.seq.get());
    out.push(u8::from(report.settled));
    text(&mut out, &report.text);
    out
}

/// What is left of a purge under way, and the messages that went so far.
pub(in super::super) fn write_purge(range: &Range, messages: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    long(&mut out, messages);
    out.push(u8::from(range.by.is_some()));
    out.extend(range.by.iter().flat_map(UserId::as_bytes));
    for part in &range.parts {
        long(&mut out, part.from.get());
        long(&mut out, part.to.get());
    }
    out
}

pub(in super::super) fn write_held(held: &Held) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, held.entry.ts_ms);
    out.extend_from_slice(&held.digest);
    text(&mut out, &held.reason);
    write_entry(&mut out, &held.entry);
    out
}

pub(in super::super) fn write_tally(tally: Tally) -> Vec<u8> {
    let mut out = vec![FORMAT];
    long(&mut out, tally.count);
    time(&mut out, tally.last_ms);
    out
}

pub(in super::super) fn read_scheduled(
    user: UserId,
    mid: MessageId,
    value: &[u8],
) -> Read<Scheduled> {
    let mut reader = Reader::new("scheduled", value)?;
    let flags = reader.byte()?;
    let has = |bit: u8| flags & 1 << bit != 0;
    let format = reader.byte()?;
    let format = BodyFormat::from_byte(format).ok_or_else(|| reader.bad("unknown body format"))?;
    let (at_ms, due_ms) = (reader.time()?, reader.time()?);
    let device = DeviceId::from_bytes(reader.array()?);
    let digest = reader.array()?;
    let conversation = reader.cid()?;
    let target = reader.text()?.parse();
    let target = target.map_err(|_| reader.bad("no target"))?;
    let refused = has(1).then(|| reader.refusal()).transpose()?;
    let reply_to = has(2).then(|| reader.seq()).transpose()?;
    let thread = has(3).then(|| reader.seq()).transpose()?;
    let ttl_s = has(4).then(|| reader.word()).transpose()?;
    Ok(Scheduled {
        user,
        device,
        mid,
        at_ms,
        due_ms,
        target,
        conversation,
        digest,
        format,
        opaque: has(0),
        body: Bytes::copy_from_slice(reader.rest),
        reply_to,
        thread,
        ttl_s,
        refused,
    })
}

/// What the key of a report says is given: when, by whom, and under which id.
pub(in super::super) fn read_report(
    (ts_ms, by, mid): (u64, UserId, MessageId),
    value: &[u8],
) -> Read<Report> {
    let mut reader = Reader::new("report", value)?;
    let report = Report {
        ts_ms,
        by,
        mid,
        conversation: reader.cid()?,
        seq: reader.seq()?,
        settled: reader.byte()? != 0,
        text: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(report)
}

pub(in super::super) fn read_purge(value: &[u8]) -> Read<(Range, u64)> {
    let mut reader = Reader::new("purge", value)?;
    let messages = reader.long()?;
    let by = match reader.byte()? {
        0 => None,
        _ => Some(reader.user()?),
    };
    let mut parts = Vec::with_capacity(reader.rest.len() / 16);
    while !reader.rest.is_empty() {
        let (from, to) = (reader.seq()?, reader.seq()?);
        parts.push(Stretch { from, to });
    }
    Ok((Range { parts, by }, messages))
}

pub(in super::super) fn read_held(conversation: ConversationId, value: &[u8]) -> Read<Held> {
    let mut reader = Reader::new("held", value)?;
    let (_, digest) = (reader.time()?, reader.array()?);
    Ok(Held {
        digest,
        reason: reader.text()?.to_owned(),
        entry: read_entry(conversation, Seq::ZERO, reader.rest)?,
    })
}

/// What makes a message that is held this message.
pub(in super::super) fn read_held_digest(value: &[u8]) -> Read<[u8; 16]> {
    let mut reader = Reader::new("held", value)?;
    reader.time()?;
    reader.array()
}

pub(in super::super) fn read_tally(value: &[u8]) -> Read<Tally> {
    let mut reader = Reader::new("waiting", value)?;
    let tally = Tally {
        count: reader.long()?,
        last_ms: reader.time()?,
    };
    reader.end()?;
    Ok(tally)
}

/// When a message was held.
pub(in super::super) fn read_held_time(value: &[u8]) -> Read<u64> {
    Reader::new("held", value)?.time()
}
