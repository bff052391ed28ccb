//! Rows of conversations, their members, and what users have decided about them.

use proto::ids::{Seq, UserId};

use super::{FORMAT, NO_RIGHTS_SAID, Read, Reader, long, time};
use crate::domain::account::Preferences;
use crate::domain::conversation::Settings;
use crate::domain::member::{Interval, Marks, Member, Role};
use crate::domain::rights::{Mask, Rights};
use crate::store::StoreError;

/// The part of a conversation that changes with every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Head {
    pub(in super::super) seq: Seq,
    pub(in super::super) mseq: u64,
    pub(in super::super) ts_ms: u64,
    pub(in super::super) version: u32,
}

/// What a user has decided about a conversation, and the account version of its last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Changed {
    /// 0: none yet.
    pub(in super::super) version: u64,
    pub(in super::super) preferences: Preferences,
    /// Of a channel that the user reads: up to here his devices have been told of it.
    pub(in super::super) told: Seq,
    /// What the user has hidden from himself lately, in this order.
    pub(in super::super) hidden: Vec<Seq>,
}

pub(in super::super) fn write_head(out: &mut Vec<u8>, head: &Head) {
    out.push(FORMAT);
    long(out, head.seq.get());
    long(out, head.mseq);
    time(out, head.ts_ms);
    out.extend_from_slice(&head.version.to_be_bytes());
}

pub(in super::super) fn write_settings(settings: &Settings) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![FORMAT];
    serde_json::to_writer(&mut out, settings)
        .map_err(|error| StoreError::Corrupt(format!("settings cannot be written: {error}")))?;
    Ok(out)
}

pub(in super::super) fn write_member(member: &Member) -> Vec<u8> {
    let mut out = Vec::with_capacity(14 + 24 * member.intervals.len());
    out.extend_from_slice(&[FORMAT, member.role.to_byte()]);
    for rights in [member.mask.given, member.mask.want] {
        let bits = rights.map_or(NO_RIGHTS_SAID, Rights::to_bits);
        out.extend_from_slice(&bits.to_be_bytes());
    }
    long(&mut out, member.joined.get());
    for interval in &member.intervals {
        long(&mut out, interval.from.get());
        long(&mut out, interval.joined.get());
        long(&mut out, interval.to.get());
    }
    out
}

pub(in super::super) fn write_marks(marks: &Marks) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    let has_hidden = marks.hidden > Seq::ZERO;
    let flags =
        u8::from(marks.unread_flag) | u8::from(has_hidden) << 1 | u8::from(marks.blocks) << 2;
    out.extend_from_slice(&[FORMAT, flags]);
    long(&mut out, marks.delivered.get());
    long(&mut out, marks.read.get());
    long(&mut out, marks.private_read.get());
    time(&mut out, marks.moved_ms);
    if has_hidden {
        long(&mut out, marks.hidden.get());
    }
    out
}

pub(in super::super) fn write_changed(changed: &Changed) -> Vec<u8> {
    let preferences = changed.preferences;
    let mut out = vec![FORMAT];
    long(&mut out, changed.version);
    time(&mut out, preferences.muted_until);
    let flags = u8::from(preferences.archived)
        | u8::from(preferences.pinned) << 1
        | u8::from(preferences.watch) << 2
        | u8::from(changed.told > Seq::ZERO) << 3;
    out.push(flags);
    if changed.told > Seq::ZERO {
        long(&mut out, changed.told.get());
    }
    for seq in &changed.hidden {
        long(&mut out, seq.get());
    }
    out
}

/// A user is a member of a conversation.
pub(in super::super) const USER_CONVERSATION: &[u8] = &[FORMAT];

/// A user was one.
pub(in super::super) const LEFT_CONVERSATION: &[u8] = &[FORMAT, 1];

pub(in super::super) fn read_head(value: &[u8]) -> Read<Head> {
    let mut reader = Reader::new("conversation", value)?;
    let head = Head {
        seq: reader.seq()?,
        mseq: reader.long()?,
        ts_ms: reader.time()?,
        version: reader.word()?,
    };
    reader.end()?;
    Ok(head)
}

pub(in super::super) fn read_settings(value: &[u8]) -> Read<Settings> {
    let reader = Reader::new("settings", value)?;
    serde_json::from_slice(reader.rest).map_err(|error| reader.bad(&error.to_string()))
}

pub(in super::super) fn read_member(user: UserId, value: &[u8]) -> Read<Member> {
    let mut reader = Reader::new("member", value)?;
    let role = reader.byte()?;
    let role = Role::from_byte(role).ok_or_else(|| reader.bad("unknown role"))?;
    let mask = Mask {
        given: reader.rights()?,
        want: reader.rights()?,
    };
    let joined = reader.seq()?;
    let mut intervals = Vec::with_capacity(reader.rest.len() / 24);
    while !reader.rest.is_empty() {
        intervals.push(Interval {
            from: reader.seq()?,
            joined: reader.seq()?,
            to: reader.seq()?,
        });
    }
    Ok(Member {
        user,
        role,
        mask,
        joined,
        intervals,
    })
}

pub(in super::super) fn read_marks(value: &[u8]) -> Read<Marks> {
    let mut reader = Reader::new("marks", value)?;
    let flags = reader.byte()?;
    let marks = Marks {
        delivered: reader.seq()?,
        read: reader.seq()?,
        private_read: reader.seq()?,
        unread_flag: flags & 1 != 0,
        moved_ms: reader.time()?,
        hidden: if flags & 2 == 0 {
            Seq::ZERO
        } else {
            reader.seq()?
        },
        blocks: flags & 4 != 0,
    };
    reader.end()?;
    Ok(marks)
}

pub(in super::super) fn read_changed(value: &[u8]) -> Read<Changed> {
    let mut reader = Reader::new("changed", value)?;
    let version = reader.long()?;
    let muted_until = reader.time()?;
    let flags = reader.byte()?;
    let told = if flags & 8 == 0 {
        Seq::ZERO
    } else {
        reader.seq()?
    };
    let mut hidden = Vec::with_capacity(reader.rest.len() / 8);
    while !reader.rest.is_empty() {
        hidden.push(reader.seq()?);
    }
    Ok(Changed {
        version,
        told,
        hidden,
        preferences: Preferences {
            muted_until,
            archived: flags & 1 != 0,
            pinned: flags & 2 != 0,
            watch: flags & 4 != 0,
        },
    })
}
