//! Reads of invitations, requests to join and bans.

use std::ops::Bound;

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, InvitationId, UserId};

use super::values::joining::{self as values, InvitationRow};
use super::{keys, reads};
use crate::domain::joining::{Ban, Invitation, JoinRequest};
use crate::domain::support::CaseState;
use crate::store::{StoreError, tables};

/// The invitation to which a code with this hash belongs.
pub(super) fn invited(
    engine: &impl KvEngine,
    hash: [u8; 16],
) -> Result<Option<Invitation>, StoreError> {
    let Some(row) = engine.get(tables::CODE, &hash)? else {
        return Ok(None);
    };
    let (conversation, id) = values::read_code(&row)?;
    let row = engine.get(tables::INVITATION, &keys::invitation(conversation, id))?;
    let row = row.map(|row| values::read_invitation(conversation, id, &row));
    Ok(row.transpose()?.map(|row| row.invitation))
}

/// All invitations of a conversation: they are bounded.
pub(super) fn invitations(
    engine: &impl KvEngine,
    conversation: ConversationId,
) -> Result<Vec<InvitationRow>, StoreError> {
    let first = keys::invitation(conversation, InvitationId::from_bytes([0; 16]));
    let last = keys::invitation(conversation, InvitationId::from_bytes([0xFF; 16]));
    let range = KeyRange::closed(&first, &last);
    let mut found = Vec::new();
    reads::visit(engine, tables::INVITATION, range, usize::MAX, |key, row| {
        let id = key.last_chunk().map(|id| InvitationId::from_bytes(*id));
        let id = id.ok_or_else(|| reads::bad_key(tables::INVITATION))?;
        found.push(values::read_invitation(conversation, id, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Requests to join, in the order of the users, at most `limit` after `after`.
pub(super) fn requests(
    engine: &impl KvEngine,
    conversation: ConversationId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<JoinRequest>, StoreError> {
    let mut found = Vec::new();
    let (first, last) = users_after(conversation, after);
    let range = KeyRange {
        from: first.as_ref().map(<[u8; 33]>::as_slice),
        to: Bound::Included(&last),
    };
    reads::visit(engine, tables::JOIN_REQUEST, range, limit, |key, row| {
        let user = reads::tail_user(key)?;
        found.push(values::read_join_request(conversation, user, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Banned users, in the order of their ids, at most `limit` after `after`.
pub(super) fn bans(
    engine: &impl KvEngine,
    conversation: ConversationId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<Ban>, StoreError> {
    let mut found = Vec::new();
    let (first, last) = users_after(conversation, after);
    let range = KeyRange {
        from: first.as_ref().map(<[u8; 33]>::as_slice),
        to: Bound::Included(&last),
    };
    reads::visit(engine, tables::BAN, range, limit, |key, row| {
        found.push(values::read_ban(reads::tail_user(key)?, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Support cases of a desk that stand there, in the order of time, at most `limit` behind this one.
pub(super) fn cases(
    engine: &impl KvEngine,
    (desk, state): (ConversationId, CaseState),
    after: Option<(u64, ConversationId)>,
    limit: usize,
) -> Result<Vec<(u64, ConversationId)>, StoreError> {
    let prefix: [u8; 18] = keys::join(&[&keys::cid(desk), &[state.to_byte()]]);
    let first = match after {
        Some((since_ms, id)) => keys::case(desk, state, since_ms, id),
        None => keys::join(&[&prefix, &[0; 23]]),
    };
    let last: [u8; 41] = keys::join(&[&prefix, &[0xFF; 23]]);
    let range = KeyRange {
        from: Bound::Excluded(&first),
        to: Bound::Included(&last),
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::CASE, range, limit, |key, _| {
        let since = key.get(18..24).and_then(|since| since.try_into().ok());
        let since: [u8; 6] = since.ok_or_else(|| reads::bad_key(tables::CASE))?;
        let since_ms = u64::from_be_bytes(keys::join(&[&[0, 0], &since]));
        found.push((since_ms, reads::tail_cid(key)?));
        Ok(())
    })?;
    Ok(found)
}

/// The keys of a conversation and the users behind this one.
fn users_after(conversation: ConversationId, after: Option<UserId>) -> (Bound<[u8; 33]>, [u8; 33]) {
    let first = match after {
        Some(after) => Bound::Excluded(keys::member(conversation, after)),
        None => Bound::Included(keys::member(conversation, UserId::from_bytes([0; 16]))),
    };
    let last = keys::member(conversation, UserId::from_bytes([0xFF; 16]));
    (first, last)
}

/// Conversations that have support cases, at most `limit` behind this one: one look for each.
pub(super) fn desks(
    engine: &impl KvEngine,
    after: Option<ConversationId>,
    limit: usize,
) -> Result<Vec<ConversationId>, StoreError> {
    let mut found: Vec<ConversationId> = Vec::new();
    while found.len() < limit {
        let behind = found.last().copied().or(after);
        let behind = behind.map(|desk| keys::join::<41>(&[&keys::cid(desk), &[0xFF; 24]]));
        let range = KeyRange {
            from: behind
                .as_ref()
                .map_or(Bound::Unbounded, |key| Bound::Excluded(key)),
            to: Bound::Unbounded,
        };
        let known = found.len();
        reads::visit(engine, tables::CASE, range, 1, |key, _| {
            let desk = key.get(..17).ok_or_else(|| reads::bad_key(tables::CASE))?;
            found.push(reads::tail_cid(desk)?);
            Ok(())
        })?;
        if found.len() == known {
            break;
        }
    }
    Ok(found)
}
