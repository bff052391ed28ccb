//! Reads of members who are one of many, and of what goes to them.

use std::ops::Bound;

use broker::store::kv::{KeyRange, KvEngine};
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};

use super::heads::Heads;
use super::overlay::Overlay;
use super::{happened, keys, reads, values};
use crate::domain::entry::Entry;
use crate::domain::member::{Marks, Member};
use crate::store::{Behind, Broadcast, StoreError, tables};

pub(super) fn page(
    engine: &impl KvEngine,
    conversation: ConversationId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<Member>, StoreError> {
    let from = keys::member(conversation, after.unwrap_or(keys::NO_USER));
    let to = keys::member(conversation, UserId::from_bytes([0xFF; 16]));
    let range = KeyRange {
        from: Bound::Excluded(&from),
        to: Bound::Included(&to),
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::READER, range, limit, |key, row| {
        found.push(values::read_member(reads::tail_user(key)?, row)?);
        Ok(())
    })?;
    Ok(found)
}

/// Channels behind `after` of which the devices of a reader have not been told up to the head, among at most `limit`.
pub(super) fn behind<K: KvEngine>(
    engine: &K,
    heads: &Heads,
    (user, after): (UserId, Option<ConversationId>),
    limit: usize,
) -> Result<Behind, StoreError> {
    let id = |byte| ConversationId::from_parts(ConversationKind::Channel, [byte; 16]);
    let first = keys::user_conversation(user, after.unwrap_or_else(|| id(0)));
    let last = keys::user_conversation(user, id(0xFF));
    let from: &[u8] = &first;
    let range = KeyRange {
        from: after.map_or(Bound::Included(from), |_| Bound::Excluded(from)),
        to: Bound::Included(&last),
    };
    let (mut looked_at, mut channels) = (Vec::new(), Vec::new());
    reads::visit(
        engine,
        tables::USER_CONVERSATION,
        range,
        limit,
        |key, row| {
            looked_at.push(reads::tail_cid(key)?);
            if row == values::USER_CONVERSATION {
                channels.push(reads::tail_cid(key)?);
            }
            Ok(())
        },
    )?;
    let mut found = Vec::new();
    for channel in channels {
        let Some(known) = heads.find(engine, channel)? else {
            continue;
        };
        let row = engine.get(tables::CHANGED, &keys::changed(user, channel.into()))?;
        let row = row.map(|row| values::read_changed(&row)).transpose()?;
        let told = row.unwrap_or_default().told;
        let is_reader = || engine.get(tables::READER, &keys::member(channel, user));
        if told < known.head.seq && is_reader()?.is_some() {
            found.push(channel);
        }
    }
    let next = looked_at.last().copied();
    Ok(Behind {
        found,
        looked_at: looked_at.len(),
        next: next.filter(|_| looked_at.len() == limit),
    })
}

pub(super) fn among(
    engine: &impl KvEngine,
    overlay: &Overlay,
    conversation: ConversationId,
    users: Vec<UserId>,
) -> Result<Vec<(Member, Marks)>, StoreError> {
    let mut found = Vec::new();
    for user in users {
        let key = keys::member(conversation, user);
        // The overlay first: what leaves it meanwhile is in the engine already.
        let waiting = overlay.marks(conversation, user..=user);
        let Some(row) = engine.get(tables::READER, &key)? else {
            continue;
        };
        let member = values::read_member(user, &row)?;
        let marks = engine.get(tables::MARKS, &key)?;
        let marks = marks.map(|row| values::read_marks(&row)).transpose()?;
        let mut marks = marks.unwrap_or_default();
        for (_, step) in waiting {
            step.fold_into(&mut marks);
        }
        found.push((member, marks));
    }
    Ok(found)
}

/// Fetches the body of a message that was sent to a broadcast list. If that is gone, so is this.
pub(super) fn fetch_body(engine: &impl KvEngine, entry: &mut Entry) -> Result<(), StoreError> {
    let Some((list, seq)) = entry.source.filter(|_| entry.gone.is_none()) else {
        return Ok(());
    };
    let row = engine.get(tables::MESSAGE, &keys::message(list, seq))?;
    let row = row.ok_or_else(|| reads::hole(list, seq))?;
    take_body(entry, values::read_entry(list, seq, &row)?);
    Ok(())
}

/// The entry with the body of its source. Without one it is gone, but may still have to be made so: then it keeps the source.
pub(super) fn take_body(entry: &mut Entry, source: Entry) {
    match source.gone {
        Some(reason) => {
            let place = entry.source;
            entry.make_gone(reason);
            entry.source = place;
        }
        None => entry.body = source.body,
    }
}

/// The first entry of each list.
pub(super) fn broadcasts(
    engine: &impl KvEngine,
    after: Option<ConversationId>,
    limit: usize,
) -> Result<Vec<Broadcast>, StoreError> {
    let mut found: Vec<Broadcast> = Vec::new();
    let mut after = after;
    while found.len() < limit {
        let behind = after.map(|list| keys::message(list, Seq::MAX));
        let range = KeyRange {
            from: behind
                .as_ref()
                .map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice())),
            to: Bound::Unbounded,
        };
        let before = found.len();
        reads::visit(engine, tables::BROADCAST, range, 1, |key, row| {
            let list = key.get(..keys::CID_BYTES).and_then(keys::read_cid);
            let after = values::read_user_id(tables::BROADCAST.name(), row)?;
            found.push(Broadcast {
                list: list.ok_or_else(|| reads::bad_key(tables::BROADCAST))?,
                seq: happened::tail_seq(key)?,
                after: Some(after).filter(|after| *after != keys::NO_USER),
            });
            Ok(())
        })?;
        if found.len() == before {
            break;
        }
        after = found.last().map(|last| last.list);
    }
    Ok(found)
}

pub(super) fn copies(
    engine: &impl KvEngine,
    (list, seq): (ConversationId, Seq),
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<(UserId, Seq)>, StoreError> {
    let from = keys::entry_user(list, seq, after.unwrap_or(keys::NO_USER));
    let to = keys::entry_user(list, seq, UserId::from_bytes([0xFF; 16]));
    let range = KeyRange {
        from: Bound::Excluded(&from),
        to: Bound::Included(&to),
    };
    let mut found = Vec::new();
    reads::visit(engine, tables::COPY, range, limit, |key, row| {
        let at = values::read_number(tables::COPY.name(), row)?;
        found.push((reads::tail_user(key)?, Seq::new(at)));
        Ok(())
    })?;
    Ok(found)
}
