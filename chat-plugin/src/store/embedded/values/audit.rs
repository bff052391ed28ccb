//! Rows of the audit log, and of messages that were rejected.

use proto::ids::DeviceId;

use super::super::keys;
use super::{FORMAT, Read, Reader, text, time};
use crate::domain::audit::{AuditBy, AuditLine, AuditOutcome};

/// Bits of the flags of a line: what follows them.
mod flag {
    pub(super) const USER: u8 = 1;
    pub(super) const ABOUT: u8 = 2;
    pub(super) const CONVERSATION: u8 = 4;
}

pub(in super::super) fn write_line(line: &AuditLine) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, line.ts_ms);
    let mut flags = 0;
    if let AuditBy::User { .. } = line.by {
        flags |= flag::USER;
    }
    if line.about.is_some() {
        flags |= flag::ABOUT;
    }
    if line.conversation.is_some() {
        flags |= flag::CONVERSATION;
    }
    out.extend_from_slice(&[line.outcome.to_byte(), flags]);
    if let AuditBy::User { user, device } = line.by {
        out.extend_from_slice(user.as_bytes());
        out.extend_from_slice(device.as_bytes());
    }
    if let Some(about) = line.about {
        out.extend_from_slice(about.as_bytes());
    }
    if let Some(conversation) = line.conversation {
        out.extend_from_slice(&keys::cid(conversation));
    }
    text(&mut out, &line.from);
    text(&mut out, &line.action);
    text(&mut out, &line.detail);
    out
}

pub(in super::super) fn read_line(value: &[u8]) -> Read<AuditLine> {
    let mut reader = Reader::new("audit", value)?;
    let ts_ms = reader.time()?;
    let outcome = AuditOutcome::from_byte(reader.byte()?);
    let outcome = outcome.ok_or_else(|| reader.bad("unknown outcome"))?;
    let flags = reader.byte()?;
    let by = if flags & flag::USER == 0 {
        AuditBy::Operator
    } else {
        AuditBy::User {
            user: reader.user()?,
            device: DeviceId::from_bytes(reader.array()?),
        }
    };
    let about = (flags & flag::ABOUT != 0).then(|| reader.user());
    let about = about.transpose()?;
    let conversation = (flags & flag::CONVERSATION != 0).then(|| reader.cid());
    let line = AuditLine {
        ts_ms,
        by,
        conversation: conversation.transpose()?,
        about,
        from: reader.text()?.to_owned(),
        action: reader.text()?.to_owned(),
        detail: reader.text()?.to_owned(),
        outcome,
    };
    reader.end()?;
    Ok(line)
}

/// When a line was written.
pub(in super::super) fn read_line_time(value: &[u8]) -> Read<u64> {
    Reader::new("audit", value)?.time()
}

/// What makes a message that was rejected this message, and when it was sent.
pub(in super::super) fn write_rejected(digest: [u8; 16], ts_ms: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, ts_ms);
    out.extend_from_slice(&digest);
    out
}

pub(in super::super) fn read_rejected(value: &[u8]) -> Read<([u8; 16], u64)> {
    let mut reader = Reader::new("rejected", value)?;
    let (ts_ms, digest) = (reader.time()?, reader.array()?);
    reader.end()?;
    Ok((digest, ts_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::ids::{ConversationId, ConversationKind, UserId};

    use super::*;

    proptest! {
        #[test]
        fn lines_come_back(
            (ts_ms, by_user, outcome) in (0u64..1 << 48, any::<bool>(), 0u8..3),
            (about, conversation) in (any::<Option<[u8; 16]>>(), any::<Option<[u8; 16]>>()),
            texts in any::<[String; 3]>(),
        ) {
            let [from, action, detail] = texts;
            let user = AuditBy::User {
                user: UserId::from_bytes([1; 16]),
                device: DeviceId::from_bytes([2; 16]),
            };
            let group = |id| ConversationId::from_parts(ConversationKind::Group, id);
            let line = AuditLine {
                ts_ms,
                by: if by_user { user } else { AuditBy::Operator },
                from,
                action,
                conversation: conversation.map(group),
                about: about.map(UserId::from_bytes),
                detail,
                outcome: AuditOutcome::from_byte(outcome).unwrap(),
            };
            prop_assert_eq!(read_line(&write_line(&line)), Ok(line));
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let _ = (read_line(&bytes), read_rejected(&bytes));
        }
    }
}
