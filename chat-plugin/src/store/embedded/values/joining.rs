//! Rows of invitations, requests to join and bans.

use proto::ids::{ConversationId, InvitationId, UserId};

use super::super::keys;
use super::{FORMAT, Read, Reader, time};
use crate::domain::joining::{Ban, Invitation, JoinRequest};
use crate::domain::member::Role;

/// An invitation at rest: beside it the hashes of its codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct InvitationRow {
    pub(in super::super) invitation: Invitation,
    pub(in super::super) codes: Vec<[u8; 16]>,
}

pub(in super::super) fn write_invitation(row: &InvitationRow) -> Vec<u8> {
    let invitation = &row.invitation;
    let mut out = vec![FORMAT];
    out.extend_from_slice(invitation.by.as_bytes());
    out.extend_from_slice(&[invitation.role.to_byte(), u8::from(invitation.approval)]);
    time(&mut out, invitation.created_ms);
    time(&mut out, invitation.expires_ms);
    out.extend_from_slice(&invitation.uses_max.to_be_bytes());
    out.extend_from_slice(&invitation.uses.to_be_bytes());
    for code in &row.codes {
        out.extend_from_slice(code);
    }
    out
}

pub(in super::super) fn read_invitation(
    conversation: ConversationId,
    id: InvitationId,
    value: &[u8],
) -> Read<InvitationRow> {
    let mut reader = Reader::new("invitation", value)?;
    let invitation = Invitation {
        conversation,
        id,
        by: reader.user()?,
        role: reader.role()?,
        approval: reader.byte()? & 1 != 0,
        created_ms: reader.time()?,
        expires_ms: reader.time()?,
        uses_max: reader.word()?,
        uses: reader.word()?,
    };
    let mut codes = Vec::new();
    while !reader.rest.is_empty() {
        codes.push(reader.array()?);
    }
    Ok(InvitationRow { invitation, codes })
}

pub(in super::super) fn write_code(conversation: ConversationId, id: InvitationId) -> [u8; 34] {
    keys::join(&[&[FORMAT], &keys::invitation(conversation, id)])
}

pub(in super::super) fn read_code(value: &[u8]) -> Read<(ConversationId, InvitationId)> {
    let mut reader = Reader::new("code", value)?;
    let conversation = reader.cid()?;
    let id = InvitationId::from_bytes(reader.array()?);
    reader.end()?;
    Ok((conversation, id))
}

pub(in super::super) fn write_join_request(request: &JoinRequest) -> Vec<u8> {
    let mut out = vec![FORMAT, request.role.to_byte()];
    time(&mut out, request.ts_ms);
    out
}

pub(in super::super) fn read_join_request(
    conversation: ConversationId,
    user: UserId,
    value: &[u8],
) -> Read<JoinRequest> {
    let mut reader = Reader::new("join_request", value)?;
    let request = JoinRequest {
        conversation,
        user,
        role: reader.role()?,
        ts_ms: reader.time()?,
    };
    reader.end()?;
    Ok(request)
}

pub(in super::super) fn write_ban(by: UserId, ts_ms: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(by.as_bytes());
    time(&mut out, ts_ms);
    out
}

pub(in super::super) fn read_ban(user: UserId, value: &[u8]) -> Read<Ban> {
    let mut reader = Reader::new("ban", value)?;
    let ban = Ban {
        user,
        by: reader.user()?,
        ts_ms: reader.time()?,
    };
    reader.end()?;
    Ok(ban)
}

impl Reader<'_> {
    fn role(&mut self) -> Read<Role> {
        let byte = self.byte()?;
        Role::from_byte(byte).ok_or_else(|| self.bad("unknown role"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::ids::ConversationKind;

    fn cid() -> ConversationId {
        ConversationId::from_parts(ConversationKind::Group, [7; 16])
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let (id, user) = (
            InvitationId::from_bytes([2; 16]),
            UserId::from_bytes([3; 16]),
        );
        let row = InvitationRow {
            invitation: Invitation {
                conversation: cid(),
                id,
                by: user,
                role: Role::Reader,
                approval: true,
                created_ms: 5,
                expires_ms: 6,
                uses_max: 7,
                uses: 1,
            },
            codes: vec![[8; 16], [9; 16]],
        };
        assert_eq!(read_invitation(cid(), id, &write_invitation(&row)), Ok(row));
        assert_eq!(read_code(&write_code(cid(), id)), Ok((cid(), id)));
        let request = JoinRequest {
            conversation: cid(),
            user,
            role: Role::Member,
            ts_ms: 4,
        };
        let written = write_join_request(&request);
        assert_eq!(read_join_request(cid(), user, &written), Ok(request));
        let ban = Ban {
            user,
            by: UserId::from_bytes([4; 16]),
            ts_ms: 9,
        };
        assert_eq!(read_ban(user, &write_ban(ban.by, ban.ts_ms)), Ok(ban));
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic(value: Vec<u8>) {
            let (id, user) = (InvitationId::from_bytes([1; 16]), UserId::from_bytes([1; 16]));
            let _ = read_invitation(cid(), id, &value);
            let _ = read_code(&value);
            let _ = read_join_request(cid(), user, &value);
            let _ = read_ban(user, &value);
        }
    }
}
