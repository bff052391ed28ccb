//! Reads: from the engine, merged with what waits in the overlay.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::{Bound, ControlFlow};

use broker::store::kv::{KeyRange, KvEngine, Order, Table};
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId};

use super::overlay::Overlay;
use super::{happened, keys, values};
use crate::domain::account::{Changes, Subject};
use crate::domain::contact::{Contact, ContactList};
use crate::domain::entry::Entry;
use crate::domain::member::{Marks, Member};
use crate::domain::overlay::HiddenBy;
use crate::domain::queue::DeviceEvent;
use crate::store::{MovedOver, PageRange, StoreError, tables};

/// Shows at most `limit` rows to `each`, in ascending order.
pub(super) fn visit(
    engine: &impl KvEngine,
    table: Table,
    range: KeyRange<'_>,
    limit: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut left = limit;
    let mut failed = Ok(());
    if left == 0 {
        return Ok(());
    }
    engine.scan(table, range, Order::Ascending, &mut |key, value| {
        failed = each(key, value);
        left -= 1;
        if failed.is_err() || left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    failed
}

/// Shows the rows that begin with a user, without that beginning.
pub(super) fn visit_user(
    engine: &impl KvEngine,
    table: Table,
    user: UserId,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let prefix = user.as_bytes().as_slice();
    let mut rows = Vec::new();
    let range = KeyRange {
        from: Bound::Included(prefix),
        to: Bound::Unbounded,
    };
    engine.scan(table, range, Order::Ascending, &mut |key, value| {
        let Some(rest) = key.strip_prefix(prefix) else {
            return ControlFlow::Break(());
        };
        rows.push((rest.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    rows.iter().try_for_each(|(rest, row)| each(rest, row))
}

/// When a mark of a user moved over an entry: the first move that ended there or behind it.
fn moved_at(
    engine: &impl KvEngine,
    (conversation, user): (ConversationId, UserId),
    read: bool,
    seq: Seq,
) -> Result<Option<u64>, StoreError> {
    let first = keys::moved(conversation, user, read, seq);
    let last = keys::moved(conversation, user, read, Seq::MAX);
    let mut found = None;
    let range = KeyRange::closed(&first, &last);
    visit(engine, tables::MOVED, range, 1, |_, row| {
        found = Some(values::read_time(tables::MOVED.name(), row)?);
        Ok(())
    })?;
    Ok(found)
}

/// When marks of these users moved over an entry.
pub(super) fn moved_over(
    engine: &impl KvEngine,
    conversation: ConversationId,
    users: Vec<UserId>,
    seq: Seq,
) -> Result<Vec<(UserId, MovedOver)>, StoreError> {
    let of_user = |user| {
        let of = (conversation, user);
        let read_ms = moved_at(engine, of, true, seq)?;
        let delivered_ms = if conversation.kind() == ConversationKind::Direct {
            moved_at(engine, of, false, seq)?
        } else {
            None
        };
        // What was read had been delivered.
        let delivered_ms = delivered_ms.into_iter().chain(read_ms).min();
        let moved = MovedOver {
            delivered_ms,
            read_ms,
        };
        Ok((user, moved))
    };
    users.into_iter().map(of_user).collect()
}

/// Whose queue a key is of, and which place in it.
pub(super) fn device_event_of(key: &[u8]) -> Result<(DeviceId, u64), StoreError> {
    let bad = || bad_key(tables::DEVICE_EVENT);
    let (device, dseq) = key.split_first_chunk::<16>().ok_or_else(bad)?;
    let dseq: [u8; 8] = dseq.try_into().map_err(|_| bad())?;
    Ok((DeviceId::from_bytes(*device), u64::from_be_bytes(dseq)))
}

/// What waits in the queue of a device after `after`, ascending, at most so many and so many bytes of data, but one; without
/// what is over. Says whether there may be more.
pub(super) fn device_events(
    engine: &impl KvEngine,
    device: DeviceId,
    after: u64,
    (limit, bytes): (usize, usize),
    now_ms: u64,
) -> Result<(Vec<DeviceEvent>, bool), StoreError> {
    let first = keys::device_event(device, after.saturating_add(1).max(1));
    let last = keys::device_event(device, u64::MAX);
    let mut found = Vec::new();
    let (mut used, mut more) = (0_u64, false);
    let range = KeyRange::closed(&first, &last);
    visit(
        engine,
        tables::DEVICE_EVENT,
        range,
        usize::MAX,
        |key, row| {
            let (event, size) = values::devices::read_event(device_event_of(key)?.1, row)?;
            let is_over = event.expires_ms <= now_ms;
            let fits = found.len() < limit
                && (found.is_empty() || used.saturating_add(size) <= bytes as u64);
            more |= !is_over && !fits;
            if !is_over && !more {
                used = used.saturating_add(size);
                found.push(event);
            }
            Ok(())
        },
    )?;
    for event in &mut found {
        let key = keys::device_event(device, event.dseq);
        // It may have been acknowledged meanwhile.
        if let Some(row) = engine.get(tables::DEVICE_DATA, &key)? {
            event.data = values::devices::read_data(&row)?;
        } else {
            event.dseq = 0;
        }
    }
    found.retain(|event| event.dseq > 0);
    Ok((found, more))
}

/// Are both members of one conversation, channels and broadcast lists aside?
pub(super) fn share_conversation(
    engine: &impl KvEngine,
    (one, other): (UserId, UserId),
) -> Result<bool, StoreError> {
    let is_member = |row: &[u8]| row != values::LEFT_CONVERSATION;
    let of_one: HashSet<ConversationId> =
        conversations_of(engine, one, None, usize::MAX, is_member)?
            .into_iter()
            .filter(|id| is_shared_with_all(id.kind()))
            .collect();
    let mut shares = false;
    let from = keys::join::<33>(&[other.as_bytes(), &keys::FIRST_CID]);
    let to = keys::join::<33>(&[other.as_bytes(), &keys::LAST_CID]);
    let range = KeyRange::closed(&from, &to);
    let mut failed = Ok(());
    let table = tables::USER_CONVERSATION;
    engine.scan(table, range, Order::Ascending, &mut |key, row| {
        match tail_cid(key) {
            Ok(id) => shares = is_member(row) && of_one.contains(&id),
            Err(error) => failed = Err(error),
        }
        if shares || failed.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    failed.map(|()| shares)
}

/// Do its members know each other?
fn is_shared_with_all(kind: ConversationKind) -> bool {
    use ConversationKind::{Direct, Group, Support};
    matches!(kind, Direct | Group | Support)
}

/// Conversations of a user after `after`, at most `limit`, of those whose rows are wanted.
pub(super) fn conversations_of(
    engine: &impl KvEngine,
    user: UserId,
    after: Option<ConversationId>,
    limit: usize,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<ConversationId>, StoreError> {
    let from = after.map_or(keys::FIRST_CID, keys::cid);
    let from = keys::join::<33>(&[user.as_bytes(), &from]);
    let to = keys::join::<33>(&[user.as_bytes(), &keys::LAST_CID]);
    let range = KeyRange {
        from: Bound::Excluded(&from),
        to: Bound::Included(&to),
    };
    let mut found = Vec::new();
    let mut failed = Ok(());
    engine.scan(
        tables::USER_CONVERSATION,
        range,
        Order::Ascending,
        &mut |key, row| {
            if found.len() == limit {
                return ControlFlow::Break(());
            }
            if is_wanted(row) {
                match tail_cid(key) {
                    Ok(cid) => found.push(cid),
                    Err(error) => {
                        failed = Err(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        },
    )?;
    failed.map(|()| found)
}

/// A page that is being filled.
struct Page {
    conversation: ConversationId,
    range: PageRange,
    /// The place that has to come next.
    expected: Seq,
    entries: VecDeque<Entry>,
    bytes: usize,
    is_full: bool,
}

impl Page {
    fn new(conversation: ConversationId, from: Seq, range: PageRange) -> Self {
        Self {
            conversation,
            range,
            expected: from,
            entries: VecDeque::new(),
            bytes: 0,
            is_full: false,
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<ControlFlow<()>, StoreError> {
        if *key != keys::message(self.conversation, self.expected) {
            return Err(hole(self.conversation, self.expected));
        }
        let entry = values::read_entry(self.conversation, self.expected, value)?;
        self.bytes += entry.body.len();
        let is_over = self.bytes > self.range.bytes && !self.entries.is_empty();
        if is_over && !self.range.newest {
            self.is_full = true;
            return Ok(ControlFlow::Break(()));
        }
        self.expected = self.expected.next();
        self.entries.push_back(entry);
        while self.bytes > self.range.bytes && self.entries.len() > 1 {
            let oldest = self.entries.pop_front();
            self.bytes -= oldest.map_or(0, |entry| entry.body.len());
        }
        if !self.range.newest && self.entries.len() >= self.range.limit {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The entries of a range, at most up to the head. The log is dense: a hole is damage.
pub(super) fn page(
    engine: &impl KvEngine,
    conversation: ConversationId,
    head: Seq,
    range: PageRange,
) -> Result<Vec<Entry>, StoreError> {
    let to = range.to.min(head);
    let mut from = range.from.max(Seq::ZERO.next());
    if from > to || range.limit == 0 {
        return Ok(Vec::new());
    }
    let limit = u64::try_from(range.limit).unwrap_or(u64::MAX);
    if range.newest {
        from = from.max(Seq::new(to.get().saturating_sub(limit - 1)));
    }
    let (low, high) = (
        keys::message(conversation, from),
        keys::message(conversation, to),
    );
    let mut page = Page::new(conversation, from, range);
    let mut failed = Ok(());
    engine.scan(
        tables::MESSAGE,
        KeyRange::closed(&low, &high),
        Order::Ascending,
        &mut |key, value| match page.add(key, value) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Err(error);
                ControlFlow::Break(())
            }
        },
    )?;
    failed?;
    let Page {
        entries,
        is_full,
        expected,
        ..
    } = page;
    let wanted = (to.get() - from.get()).saturating_add(1).min(limit);
    if !is_full && expected.get() - from.get() < wanted {
        return Err(hole(conversation, expected));
    }
    let mut entries = entries.into();
    happened::merge(engine, &mut entries, &range)?;
    Ok(entries)
}

pub(super) fn members(
    engine: &impl KvEngine,
    overlay: &Overlay,
    conversation: ConversationId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<(Member, Marks)>, StoreError> {
    let last_user = UserId::from_bytes([0xFF; 16]);
    let first_user = UserId::from_bytes([0; 16]);
    // The overlay first: what leaves it meanwhile is in the engine already.
    let waiting = overlay.marks(conversation, after.unwrap_or(first_user)..=last_user);
    let from = keys::member(conversation, after.unwrap_or(first_user));
    let to = keys::member(conversation, last_user);
    let range = KeyRange {
        from: if after.is_some() {
            Bound::Excluded(&from)
        } else {
            Bound::Included(&from)
        },
        to: Bound::Included(&to),
    };
    let mut found = Vec::new();
    visit(engine, tables::MEMBER, range, limit, |key, row| {
        found.push((values::read_member(tail_user(key)?, row)?, Marks::default()));
        Ok(())
    })?;
    let Some((last, _)) = found.last() else {
        return Ok(found);
    };
    let to = keys::member(conversation, last.user);
    let mut marks: BTreeMap<UserId, Marks> = BTreeMap::new();
    let range = KeyRange {
        from: Bound::Included(&from),
        to: Bound::Included(&to),
    };
    visit(engine, tables::MARKS, range, usize::MAX, |key, row| {
        marks.insert(tail_user(key)?, values::read_marks(row)?);
        Ok(())
    })?;
    for (user, step) in waiting {
        step.fold_into(marks.entry(user).or_default());
    }
    for (member, place) in &mut found {
        *place = marks.get(&member.user).copied().unwrap_or_default();
    }
    Ok(found)
}

pub(super) fn all_cursors(
    engine: &impl KvEngine,
    device: DeviceId,
    waiting: Vec<(ConversationId, Seq)>,
) -> Result<Vec<(ConversationId, Seq)>, StoreError> {
    let mut cursors: BTreeMap<_, _> = waiting.into_iter().collect();
    let from = keys::join::<33>(&[device.as_bytes(), &keys::FIRST_CID]);
    let to = keys::join::<33>(&[device.as_bytes(), &keys::LAST_CID]);
    let range = KeyRange::closed(&from, &to);
    visit(engine, tables::CURSOR, range, usize::MAX, |key, row| {
        let known = cursors.entry(tail_cid(key)?).or_default();
        *known = (*known).max(read_seq(row)?);
        Ok(())
    })?;
    Ok(cursors.into_iter().collect())
}

/// The last own countable entry at or before `seq`, and how many there are up to it.
pub(super) fn own_before(
    engine: &impl KvEngine,
    conversation: ConversationId,
    user: UserId,
    seq: Seq,
) -> Result<Option<(Seq, u64)>, StoreError> {
    let from = keys::own(conversation, user, Seq::ZERO);
    let to = keys::own(conversation, user, seq);
    let mut found = None;
    engine.scan(
        tables::OWN,
        KeyRange::closed(&from, &to),
        Order::Descending,
        &mut |key, value| {
            let seq = key
                .last_chunk()
                .map(|seq| Seq::new(u64::from_be_bytes(*seq)));
            let count = values::read_number(tables::OWN.name(), value);
            found = Some((seq, count));
            ControlFlow::Break(())
        },
    )?;
    let Some((seq, count)) = found else {
        return Ok(None);
    };
    Ok(Some((seq.ok_or_else(|| bad_key(tables::OWN))?, count?)))
}

/// How far the other one may be told that this user has got: as [`crate::store::MarkStore::told_mark`] says.
pub(super) fn told_mark(
    engine: &impl KvEngine,
    conversation: ConversationId,
    (user, other): (UserId, UserId),
    (from, to): (Seq, Seq),
) -> Result<Seq, StoreError> {
    let Some(hidden) = hidden_by_block(engine, conversation, user, (from, to))? else {
        return Ok(from);
    };
    // In each stretch between two hidden ones: does something stand there that he sees?
    let mut mark = to;
    for hidden in hidden {
        let last = own_before(engine, conversation, other, mark)?;
        if last.is_some_and(|(last, _)| last > hidden) {
            break;
        }
        mark = hidden.previous();
    }
    Ok(mark.max(from))
}

/// Entries behind the first place up to the second that a block hides from a user, the last one first; `None`: too much is
/// hidden there.
fn hidden_by_block(
    engine: &impl KvEngine,
    conversation: ConversationId,
    user: UserId,
    (from, to): (Seq, Seq),
) -> Result<Option<Vec<Seq>>, StoreError> {
    const LOOKED_AT_MAX: usize = 1_024;
    let first = keys::entry_user(conversation, from.next(), UserId::from_bytes([0; 16]));
    let last = keys::entry_user(conversation, to, UserId::from_bytes([0xFF; 16]));
    if first > last {
        return Ok(Some(Vec::new()));
    }
    let range = KeyRange::closed(&first, &last);
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let mut failed = Ok(());
    engine.scan(tables::HIDDEN, range, Order::Descending, &mut |key, row| {
        looked_at += 1;
        let seq = key.get(keys::CID_BYTES..keys::CID_BYTES + 8);
        let seq = seq
            .and_then(|seq| seq.try_into().ok())
            .map(u64::from_be_bytes);
        match (seq, tail_user(key), values::read_hidden(row)) {
            (Some(seq), Ok(of), Ok(by)) => {
                if of == user && by == HiddenBy::Block {
                    found.push(Seq::new(seq));
                }
            }
            (_, Err(error), _) | (_, _, Err(error)) => failed = Err(error),
            (None, _, _) => failed = Err(bad_key(tables::HIDDEN)),
        }
        if failed.is_err() || looked_at > LOOKED_AT_MAX {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    failed?;
    Ok((looked_at <= LOOKED_AT_MAX).then_some(found))
}

/// What changed for a user after the version `since`, at most `limit`. The version is read first: a change
/// that is on its way meanwhile has a higher one.
pub(super) fn changes(
    engine: &impl KvEngine,
    user: UserId,
    since: u64,
    limit: usize,
) -> Result<Changes, StoreError> {
    let row = engine.get(tables::ACCOUNT, user.as_bytes())?;
    let version = row.map(|row| values::read_number(tables::ACCOUNT.name(), &row));
    let Some(version) = version.transpose()? else {
        return Ok(Changes::default());
    };
    let (from, to) = (keys::change(user, since), keys::change(user, version));
    let range = KeyRange {
        from: Bound::Excluded(&from),
        to: Bound::Included(&to),
    };
    let mut list = Vec::new();
    visit(
        engine,
        tables::CHANGE,
        range,
        limit.saturating_add(1),
        |key, row| {
            let version = key.last_chunk().map(|version| u64::from_be_bytes(*version));
            let version = version.ok_or_else(|| bad_key(tables::CHANGE))?;
            list.push((version, values::read_subject(row)?));
            Ok(())
        },
    )?;
    let more = list.len() > limit;
    list.truncate(limit);
    let last = list.last().map(|(version, _)| *version);
    Ok(Changes {
        upto: last.filter(|_| more).unwrap_or(version),
        list,
        more,
    })
}

/// People in a list of a user after `after`, at most `limit`.
pub(super) fn contacts(
    engine: &impl KvEngine,
    user: UserId,
    list: ContactList,
    (after, limit): (Option<UserId>, usize),
) -> Result<Vec<Contact>, StoreError> {
    let from = keys::contact(user, after.unwrap_or(keys::NO_USER));
    let to = keys::contact(user, UserId::from_bytes([0xFF; 16]));
    let range = KeyRange {
        from: Bound::Excluded(&from),
        to: Bound::Included(&to),
    };
    let mut found = Vec::new();
    let mut failed = Ok(());
    engine.scan(tables::CONTACT, range, Order::Ascending, &mut |key, row| {
        if found.len() == limit {
            return ControlFlow::Break(());
        }
        let contact = tail_user(key).and_then(|other| values::read_contact(other, row));
        match contact {
            Ok(contact) if list.shows(&contact) => found.push(contact),
            Ok(_) => {}
            Err(error) => {
                failed = Err(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map(|()| found)
}

/// Users, or conversations, that are found by words with this beginning, at most `limit`. Looks at a bounded number of rows.
pub(super) fn search(
    engine: &impl KvEngine,
    prefix: &str,
    people: bool,
    limit: usize,
) -> Result<Vec<Subject>, StoreError> {
    const LOOKED_AT_MAX: usize = 4_096;
    let prefix = keys::search_from(people, prefix);
    let range = KeyRange {
        from: Bound::Included(&prefix),
        to: Bound::Unbounded,
    };
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let mut failed = Ok(());
    engine.scan(tables::SEARCH, range, Order::Ascending, &mut |key, _| {
        looked_at += 1;
        if !key.starts_with(&prefix) || found.len() == limit || looked_at > LOOKED_AT_MAX {
            return ControlFlow::Break(());
        }
        let about = key.last_chunk::<{ keys::CID_BYTES }>();
        let Some(about) = about.and_then(|about| keys::read_subject(about)) else {
            failed = Err(bad_key(tables::SEARCH));
            return ControlFlow::Break(());
        };
        if !found.contains(&about) {
            found.push(about);
        }
        ControlFlow::Continue(())
    })?;
    failed.map(|()| found)
}

pub(super) fn read_seq(row: &[u8]) -> Result<Seq, StoreError> {
    values::read_number(tables::CURSOR.name(), row).map(Seq::new)
}

pub(super) fn tail_cid(key: &[u8]) -> Result<ConversationId, StoreError> {
    key.last_chunk::<{ keys::CID_BYTES }>()
        .and_then(|cid| keys::read_cid(cid))
        .ok_or_else(|| StoreError::Corrupt("a key holds no conversation id".to_owned()))
}

pub(super) fn tail_user(key: &[u8]) -> Result<UserId, StoreError> {
    key.last_chunk()
        .map(|id| UserId::from_bytes(*id))
        .ok_or_else(|| bad_key(tables::MEMBER))
}

pub(super) fn bad_key(table: Table) -> StoreError {
    StoreError::Corrupt(format!("a key of table {} is too short", table.name()))
}

pub(super) fn hole(conversation: ConversationId, seq: Seq) -> StoreError {
    StoreError::Corrupt(format!("entry {seq} of {conversation} is missing"))
}
