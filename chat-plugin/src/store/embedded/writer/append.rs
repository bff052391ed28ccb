//! Drafts: from a place in the queue to rows in the batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::store::kv::KvEngine;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};

use super::super::heads::Known;
use super::super::keys;
use super::super::values::{self, Exchanged, First, Head};
use super::Writer;
use super::acts::{Effect, mention_keys};
use super::joining::Rows;
use super::readers::{self, Planned};
use crate::domain::conversation::Settings;
use crate::domain::entry::{Basis, Change, Draft, Entry, EntryKind, Outcome};
use crate::domain::member::{Interval, Member};
use crate::domain::overlay::ActRefused;
use crate::domain::rights::Mask;
use crate::faults;
use crate::store::{Committed, StoreError, tables};

/// Stretches of the log that a member may see: the newest so many.
const INTERVALS_MAX: usize = 256;

/// What a draft becomes once all that it needs has been read.
pub(super) struct Place {
    pub(super) head: Head,
    /// Where those come in who join.
    joined: Seq,
    settings: Option<Arc<Settings>>,
    pub(super) members: BTreeMap<UserId, Planned>,
    /// New numbers of conversations that count against the limits of users.
    pub(super) counts: Vec<(UserId, u64)>,
    /// The new number of readers, if there is one.
    pub(super) readers: Option<u64>,
    own: Option<u64>,
    /// Of invitations, requests and bans, and of what waits under this message id.
    pub(super) rows: Rows,
    /// Members, roles, rights, bans or settings are others now.
    moves: bool,
}

impl<K: KvEngine> Writer<K> {
    pub(super) fn append(&mut self, drafts: Vec<Draft>) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            outcomes.push(self.append_one(draft)?);
        }
        Ok(outcomes)
    }

    /// Reads everything first and writes afterwards, so that a row that cannot be read leaves nothing half done.
    fn append_one(&mut self, draft: Draft) -> Result<Outcome, StoreError> {
        match self.exchanged(&draft)? {
            Some(row) if row.seq == Seq::ZERO => return Ok(Outcome::Held),
            Some(row) => {
                return Ok(Outcome::Duplicate {
                    seq: row.seq,
                    ts_ms: row.ts_ms,
                });
            }
            None => {}
        }
        if !self.is_due(&draft)? {
            return Ok(Outcome::Rescheduled);
        }
        self.settle_before(&draft)?;
        let current = self.conversation(draft.conversation)?;
        let mut mid_key = Vec::with_capacity(99);
        keys::idempotency(&mut mid_key, draft.conversation, draft.from, &draft.mid);
        if current.is_some()
            && !faults::is_planted(faults::NO_DEDUPE)
            && let Some(first) = self.first(draft.conversation, &mut mid_key)?
        {
            return self.repeated(&draft, first);
        }
        if self.is_taken_back(&draft)? {
            return Ok(Outcome::Refused(ActRefused::NoTarget));
        }
        let waiting = match self.plan_waiting(&draft)? {
            Ok(rows) => rows,
            Err(outcome) => return Ok(outcome),
        };
        let creates = match (&current, draft.basis) {
            (None, Basis::Create) => true,
            (None, Basis::Version(_)) => return Ok(Outcome::MembersMoved),
            (Some(known), Basis::Version(version)) => {
                // Readers come and go without a new version.
                let is_said = draft.act.is_some() || draft.kind == EntryKind::Message;
                let is_gone = is_said && self.is_no_reader_any_more(&draft)?;
                if known.head.version != version || is_gone {
                    return Ok(Outcome::MembersMoved);
                }
                false
            }
            (Some(_), Basis::Create) if draft.kind == EntryKind::Created => {
                return self.created_before(&draft);
            }
            (Some(_), Basis::Create) => {
                if !self.is_member(&draft)? {
                    return Ok(Outcome::MembersMoved);
                }
                false
            }
        };
        if let Some(retry_ms) = self.too_soon(&draft)? {
            return Ok(Outcome::TooSoon { retry_ms });
        }
        let rows = match self.plan_joining(&draft, creates)? {
            Ok(rows) => rows,
            Err(outcome) => return Ok(outcome),
        };
        let number = self.plan_audit(draft.audit.as_deref())?;
        let is_silent = !creates && self.is_silent(&draft)?;
        let mut place = self.place(&draft, current, (creates, is_silent))?;
        place.rows.extend(rows);
        place.rows.extend(waiting);
        if is_silent {
            let outcome = self.store_silently(&draft, place, mid_key)?;
            self.write_audit(draft.audit.as_deref(), number);
            return Ok(outcome);
        }
        match self.plan_act(&draft, &place.head)? {
            Ok(mut effect) => {
                let hidden_from = self.blocker(&draft)?;
                if let Some(user) = hidden_from {
                    self.plan_hidden_by_block(&mut effect, &draft, &place.head, user)?;
                }
                self.tell_accounts(draft.conversation, &place, hidden_from)?;
                self.tell_others(&draft)?;
                self.write_audit(draft.audit.as_deref(), number);
                Ok(self.store(draft, place, (effect, hidden_from), mid_key))
            }
            Err(refused) => Ok(Outcome::Refused(refused)),
        }
    }

    /// The answer to a message id that was stored before.
    fn repeated(&mut self, draft: &Draft, first: First) -> Result<Outcome, StoreError> {
        if first.digest != draft.digest {
            return Ok(Outcome::Conflict);
        }
        if let Ok(rows) = self.plan_waiting(draft)? {
            self.write_rows(rows);
        }
        self.put_exchange(draft, first.seq, first.ts_ms);
        Ok(Outcome::Duplicate {
            seq: first.seq,
            ts_ms: first.ts_ms,
        })
    }

    /// What came of the exchange of this draft, if it came before: another message under the same packet identifier begins
    /// another exchange. Held: the place is zero.
    pub(super) fn exchanged(&self, draft: &Draft) -> Result<Option<Exchanged>, StoreError> {
        let Some((device, packet_id)) = draft.exchange else {
            return Ok(None);
        };
        let row = self.row(tables::EXCHANGE, &keys::exchange(device, packet_id))?;
        let row = row.map(|row| values::read_exchanged(&row)).transpose()?;
        Ok(row.filter(|row| row.conversation == draft.conversation && row.digest == draft.digest))
    }

    /// The answer to a second creation whose key of idempotency is gone: the first entry tells.
    fn created_before(&mut self, draft: &Draft) -> Result<Outcome, StoreError> {
        let seq = Seq::ZERO.next();
        let row = self.row(tables::MESSAGE, &keys::message(draft.conversation, seq))?;
        let Some(row) = row else {
            return Ok(Outcome::Conflict);
        };
        let entry = values::read_entry(draft.conversation, seq, &row)?;
        let is_same = entry.kind == EntryKind::Created
            && entry.from == draft.from
            && entry.mid == draft.mid
            && entry.body == draft.body;
        if !is_same {
            return Ok(Outcome::Conflict);
        }
        self.repeated(
            draft,
            First {
                seq,
                ts_ms: entry.ts_ms,
                digest: draft.digest,
            },
        )
    }

    pub(super) fn is_member(&mut self, draft: &Draft) -> Result<bool, StoreError> {
        let member = self.member(draft.conversation, draft.from)?;
        Ok(member.is_some_and(|member| member.is_present()))
    }

    /// Works out what the draft becomes. Changes of an existing conversation under [`Basis::Create`] are not applied.
    fn place(
        &mut self,
        draft: &Draft,
        current: Option<Known>,
        (creates, is_silent): (bool, bool),
    ) -> Result<Place, StoreError> {
        let before = current.map(|known| known.head).unwrap_or_default();
        let conversation = draft.conversation;
        let applies = creates || draft.basis != Basis::Create;
        let changes: &[Change] = if applies { &draft.changes } else { &[] };
        let is_countable = draft.kind.is_countable();
        let next = Head {
            seq: before.seq.next(),
            mseq: before.mseq + u64::from(is_countable),
            ts_ms: draft.ts_ms.max(before.ts_ms).min(values::TIME_MAX),
            version: before
                .version
                .saturating_add(u32::from(creates || changes.iter().any(moves))),
        };
        let head = if is_silent { before } else { next };
        let own = match (is_countable, creates) {
            (false, _) => None,
            (true, true) => Some(1),
            (true, false) => Some(self.own_count(conversation, draft.from)? + 1),
        };
        let mut place = Place {
            head,
            joined: next.seq,
            settings: None,
            members: BTreeMap::new(),
            counts: Vec::new(),
            readers: None,
            own,
            rows: Rows::new(),
            moves: head.version != before.version,
        };
        for change in changes {
            self.plan(conversation, change, creates, &mut place)?;
        }
        place.readers = self.count_readers(conversation, &place.members)?;
        for (user, planned) in &place.members {
            if planned.moved && counts(draft, *user, planned) {
                let before = self.conversation_count(*user)?;
                let now = if planned.member.is_present() {
                    before + 1
                } else {
                    before.saturating_sub(1)
                };
                place.counts.push((*user, now));
            }
        }
        Ok(place)
    }

    fn conversation_count(&self, user: UserId) -> Result<u64, StoreError> {
        let table = tables::CONVERSATION_COUNT;
        let row = self.row(table, user.as_bytes())?;
        row.map_or(Ok(0), |row| values::read_number(table.name(), &row))
    }

    /// The devices of those whom this entry concerns have to look again.
    fn tell_accounts(
        &mut self,
        conversation: ConversationId,
        place: &Place,
        hidden_from: Option<UserId>,
    ) -> Result<(), StoreError> {
        self.tell_movers(conversation, place, hidden_from)?;
        self.changed_for_all(conversation, hidden_from)
    }

    /// The devices of those who came or went have to look again, and of a reader who is more now: he was not among those who
    /// are told.
    pub(super) fn tell_movers(
        &mut self,
        conversation: ConversationId,
        place: &Place,
        hidden_from: Option<UserId>,
    ) -> Result<(), StoreError> {
        for (user, planned) in &place.members {
            let is_other = planned.moved || planned.is_one_of_few_now(conversation);
            if !is_other || planned.is_unknowing(conversation) {
                continue;
            }
            if hidden_from == Some(*user) {
                self.joined_unknowing(*user, conversation)?;
            } else {
                self.changed(*user, conversation.into())?;
            }
        }
        Ok(())
    }

    /// Other conversations that look different with this entry.
    fn tell_others(&mut self, draft: &Draft) -> Result<(), StoreError> {
        for change in &draft.changes {
            if let Change::Tell { user, conversation } = change {
                self.changed_for(*user, *conversation)?;
            }
        }
        Ok(())
    }

    /// Applies one change to the planned rows.
    fn plan(
        &mut self,
        conversation: ConversationId,
        change: &Change,
        creates: bool,
        place: &mut Place,
    ) -> Result<(), StoreError> {
        let (seq, joined) = (place.head.seq, place.joined);
        let user = match change {
            Change::Settings(settings) => {
                place.settings = Some(Arc::new(settings.clone()));
                return Ok(());
            }
            Change::Purge(range) => {
                let key = keys::purge(false, conversation, seq).to_vec();
                let value = values::write_purge(range, 0);
                place.rows.push((tables::PURGE, key, Some(value)));
                return Ok(());
            }
            Change::Join { user, .. }
            | Change::Leave { user }
            | Change::Role { user, .. }
            | Change::Given { user, .. }
            | Change::Want { user, .. } => *user,
            Change::Ban { .. }
            | Change::Unban { .. }
            | Change::Invited { .. }
            | Change::Approved { .. }
            | Change::Tell { .. } => return Ok(()),
        };
        let (mut member, mut moved, before) = match place.members.remove(&user) {
            Some(planned) => (Some(planned.member), planned.moved, planned.before),
            None if creates => (None, false, None),
            None => match self.seat(conversation, user)? {
                Some((member, table)) => {
                    let before = Some((table, member.is_present()));
                    (Some(member), false, before)
                }
                None => (None, false, None),
            },
        };
        match change {
            Change::Join {
                role, history_from, ..
            } => {
                let is_direct = creates && conversation.kind() == ConversationKind::Direct;
                let member = member.get_or_insert_with(|| Member {
                    user,
                    role: *role,
                    mask: Mask::default(),
                    joined: if is_direct { Seq::ZERO } else { joined },
                    intervals: Vec::new(),
                });
                member.role = *role;
                if !member.is_present() {
                    member.mask = member.mask.on_return(conversation.kind(), *role);
                    let from = history_from.unwrap_or(joined);
                    open_interval(&mut member.intervals, from, joined);
                    moved = true;
                }
            }
            Change::Leave { .. } => {
                if let Some(member) = member.as_mut().filter(|member| member.is_present()) {
                    close_interval(&mut member.intervals, seq);
                    moved = true;
                }
            }
            Change::Role { role, .. } => {
                if let Some(member) = &mut member {
                    member.role = *role;
                    member.mask.given = None; // another role begins with its own rights
                }
            }
            Change::Given { rights, .. } => {
                if let Some(member) = &mut member {
                    member.mask.given = *rights;
                }
            }
            Change::Want { rights, .. } => {
                if let Some(member) = &mut member {
                    member.mask.want = *rights;
                }
            }
            _ => {}
        }
        if let Some(member) = member {
            let planned = Planned {
                member,
                moved,
                before,
            };
            place.members.insert(user, planned);
        }
        Ok(())
    }

    /// Writes all rows of an entry into the batch. Nothing here can fail.
    fn store(
        &mut self,
        draft: Draft,
        place: Place,
        (effect, hidden_from): (Effect, Option<UserId>),
        mid_key: Vec<u8>,
    ) -> Outcome {
        let Place {
            head,
            settings,
            members,
            counts,
            own,
            rows,
            moves: members_changed,
            readers,
            ..
        } = place;
        self.write_rows(rows);
        self.write_members(draft.conversation, &members);
        self.write_counts(draft.conversation, counts, readers);
        let readers = readers::concerned(draft.conversation, &members);
        let first = First {
            seq: head.seq,
            ts_ms: head.ts_ms,
            digest: draft.digest,
        };
        self.put_first(mid_key, first);
        let batch = &mut self.group.batch;
        if let Some(count) = own {
            let key = keys::own(draft.conversation, draft.from, head.seq);
            batch.put(tables::OWN, &key, &values::write_number(count));
            let key = keys::member(draft.conversation, draft.from);
            self.group.owns.insert(key, count);
        }
        self.put_exchange(&draft, head.seq, head.ts_ms);
        self.put_copy((&draft, head.seq));
        let entry = Entry {
            conversation: draft.conversation,
            seq: head.seq,
            mseq: head.mseq,
            ts_ms: head.ts_ms,
            from: draft.from,
            device: draft.device,
            mid: draft.mid,
            kind: draft.kind,
            format: draft.format,
            opaque: draft.opaque,
            body: draft.body,
            target: draft.target,
            thread: draft.thread,
            expires_ms: draft.expires_ms,
            mentions: draft.mentions,
            gone: None,
            source: draft.source,
            overlay: None,
        };
        let changed = self.apply(effect);
        if let Some(at_ms) = entry.expires_ms {
            let key = keys::expiry(at_ms, entry.conversation, entry.seq);
            self.group.batch.put(tables::EXPIRY, &key, values::PRESENT);
        }
        if entry.kind == EntryKind::Message {
            for key in mention_keys(&entry) {
                let value = values::write_user_id(entry.from);
                self.group.batch.put(tables::MENTION, &key, &value);
            }
        }
        let key = keys::message(entry.conversation, entry.seq);
        if matches!(entry.kind, EntryKind::Created | EntryKind::Edit) {
            let mut value = Vec::new();
            values::write_entry(&mut value, &entry);
            self.put(tables::MESSAGE, &key, value);
        } else {
            self.group.batch.put_with(tables::MESSAGE, &key, |out| {
                values::write_entry(out, &entry);
            });
        }
        self.move_head(entry.conversation, head, settings);
        if entry.is_broadcast() {
            let value = values::write_user_id(keys::NO_USER).to_vec();
            self.put(tables::BROADCAST, &key, value);
        }
        self.group.committed.push(Committed {
            conversation: entry.conversation,
            head: entry.seq,
            entry: Some(Arc::new(entry)),
            changed,
            members_changed,
            hidden_from,
            readers,
        });
        Outcome::Stored {
            seq: head.seq,
            mseq: head.mseq,
            ts_ms: head.ts_ms,
            hidden_from,
        }
    }

    /// Where a message with this key of idempotency is.
    pub(super) fn put_first(&mut self, mut mid_key: Vec<u8>, first: First) {
        keys::set_week(&mut mid_key, self.week());
        let batch = &mut self.group.batch;
        batch.put_with(tables::IDEMPOTENCY, &mid_key, |out| {
            values::write_first(out, &first);
        });
        keys::set_week(&mut mid_key, 0);
        self.group.mids.insert(mid_key, first);
    }

    fn move_head(&mut self, id: ConversationId, head: Head, settings: Option<Arc<Settings>>) {
        let Some(pending) = self.group.conversations.get_mut(&id) else {
            debug_assert!(false, "the conversation was looked up before");
            return;
        };
        pending.is_changed = true;
        pending.settings_changed |= settings.is_some();
        let now = pending.now.get_or_insert_with(|| Known {
            head,
            settings: Arc::default(),
        });
        now.head = head;
        if let Some(settings) = settings {
            now.settings = settings;
        }
    }

    /// The result of a QoS 2 exchange, if the draft came in one.
    pub(super) fn put_exchange(&mut self, draft: &Draft, seq: Seq, ts_ms: u64) {
        let Some((device, packet_id)) = draft.exchange else {
            return;
        };
        let value = values::write_exchanged(&Exchanged {
            conversation: draft.conversation,
            seq,
            ts_ms,
            digest: draft.digest,
        });
        self.put(tables::EXCHANGE, &keys::exchange(device, packet_id), value);
    }
}

/// Does this change what the next draft is judged on?
fn moves(change: &Change) -> bool {
    !matches!(change, Change::Purge(_))
}

/// Does this conversation count against the limit of this user? A direct one does for who begins it only: otherwise
/// strangers could use up somebody's limit.
fn counts(draft: &Draft, user: UserId, planned: &Planned) -> bool {
    match draft.conversation.kind() {
        ConversationKind::Direct => user == draft.from,
        _ => !planned.is_unknowing(draft.conversation),
    }
}

/// Ends a membership at `at`, or before it showed anything. One that nothing waited for yet shows what it had granted.
fn close_interval(intervals: &mut Vec<Interval>, at: Seq) {
    let Some(last) = intervals.last_mut() else {
        return;
    };
    if last.from > at {
        intervals.pop();
    } else {
        last.to = at;
    }
}

/// Begins a membership at `joined` that shows what there is from `from` on: each membership before it shows the part of that
/// before its own leaving, so that all stay disjoint. One that goes on without a gap is the same.
fn open_interval(intervals: &mut Vec<Interval>, from: Seq, joined: Seq) {
    let goes_on = |last: &mut Interval| joined <= last.to.next();
    let opened = match intervals.pop_if(goes_on) {
        Some(last) => Interval {
            to: Seq::MAX,
            ..last
        },
        None => Interval {
            from: joined,
            joined,
            to: Seq::MAX,
        },
    };
    intervals.push(opened);
    let mut next = from.max(Seq::ZERO.next());
    for interval in intervals.iter_mut() {
        if next <= interval.to {
            interval.from = interval.from.min(next);
            next = interval.to.next();
        }
    }
    if intervals.len() > INTERVALS_MAX {
        let forgotten = intervals.remove(0);
        if let Some(first) = intervals.first_mut()
            && first.from == forgotten.to.next()
        {
            first.from = forgotten.from; // still seen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(intervals: &[(u64, u64, u64)]) -> Vec<Interval> {
        let interval = |(from, joined, to): &(u64, u64, u64)| Interval {
            from: Seq::new(*from),
            joined: Seq::new(*joined),
            to: Seq::new(*to),
        };
        intervals.iter().map(interval).collect()
    }

    #[test]
    fn intervals_stay_ascending_and_disjoint() {
        const OPEN: u64 = u64::MAX;
        let opened = |before: &[_], from, joined| {
            let mut opened = intervals(before);
            open_interval(&mut opened, Seq::new(from), Seq::new(joined));
            opened
        };
        let twice = [(3, 5, 10), (20, 20, 30)];
        assert_eq!(
            opened(&twice, 40, 40),
            intervals(&[(3, 5, 10), (20, 20, 30), (40, 40, OPEN)])
        );
        assert_eq!(
            opened(&twice, 35, 40),
            intervals(&[(3, 5, 10), (20, 20, 30), (35, 40, OPEN)])
        );
        assert_eq!(
            opened(&twice, 25, 40),
            intervals(&[(3, 5, 10), (20, 20, 30), (31, 40, OPEN)])
        );
        assert_eq!(
            opened(&twice, 7, 40),
            intervals(&[(3, 5, 10), (11, 20, 30), (31, 40, OPEN)])
        );
        assert_eq!(
            opened(&twice, 0, 40),
            intervals(&[(1, 5, 10), (11, 20, 30), (31, 40, OPEN)])
        );
        assert_eq!(
            opened(&twice, 31, 31),
            intervals(&[(3, 5, 10), (20, 20, OPEN)]),
            "without a gap"
        );
        assert_eq!(opened(&[], 0, 1), intervals(&[(1, 1, OPEN)]));
        assert_eq!(opened(&[], 4, 9), intervals(&[(4, 9, OPEN)]));
    }

    #[test]
    fn a_membership_that_nothing_was_said_in_made_nothing_wait() {
        let closed = |from| {
            let mut intervals = intervals(&[(from, 6, u64::MAX)]);
            close_interval(&mut intervals, Seq::new(5));
            intervals
        };
        assert_eq!(closed(2), intervals(&[(2, 6, 5)]), "what it granted");
        assert_eq!(closed(6), [], "nothing");
    }

    #[test]
    fn who_comes_and_goes_without_end_sees_what_the_last_joining_granted() {
        let mut intervals = Vec::new();
        for joined in (1..=2 * INTERVALS_MAX as u64).map(|turn| 10 * turn) {
            open_interval(&mut intervals, Seq::new(1), Seq::new(joined));
            intervals.last_mut().unwrap().to = Seq::new(joined + 5);
        }
        assert_eq!(intervals.len(), INTERVALS_MAX);
        assert_eq!(intervals[0].from, Seq::new(1));
        let follows = |pair: &[Interval]| pair[1].from == pair[0].to.next();
        assert!(intervals.windows(2).all(follows));
    }
}
