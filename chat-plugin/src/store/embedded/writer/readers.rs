//! Members who are one of many: readers of channels, and those to whom broadcast lists go. Each is a row of his own, which
//! no other member has to read; they come and go without an entry and without a new version.

use std::collections::BTreeMap;

use broker::store::kv::{KvEngine, Table};
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};

use super::super::keys;
use super::super::values::{self, First};
use super::Writer;
use super::append::Place;
use crate::domain::entry::{Change, Draft, EntryKind, Outcome};
use crate::domain::member::{Member, Role};
use crate::store::{Committed, StoreError, tables};

/// A member as he is planned to be.
pub(super) struct Planned {
    pub(super) member: Member,
    /// He came, or went.
    pub(super) moved: bool,
    /// Where his row was, and whether he was a member then.
    pub(super) before: Option<(Table, bool)>,
}

impl Planned {
    /// He was one of many, and is more now.
    pub(super) fn is_one_of_few_now(&self, conversation: ConversationId) -> bool {
        let was_one = self
            .before
            .is_some_and(|(table, _)| table == tables::READER);
        was_one && table_of(conversation, self.member.role) != tables::READER
    }

    /// A list goes to him, of which he does not know.
    pub(super) fn is_unknowing(&self, conversation: ConversationId) -> bool {
        conversation.kind() == ConversationKind::Broadcast
            && self.member.role.is_one_of_many(conversation.kind())
    }
}

/// Where the row of a member with this role is.
pub(super) fn table_of(conversation: ConversationId, role: Role) -> Table {
    if role.is_one_of_many(conversation.kind()) {
        tables::READER
    } else {
        tables::MEMBER
    }
}

/// Of whom a cache of the readers of a channel may know something that is old now.
pub(super) fn concerned(
    conversation: ConversationId,
    members: &BTreeMap<UserId, Planned>,
) -> Vec<Member> {
    if conversation.kind() == ConversationKind::Channel {
        let members = members.values();
        members.map(|planned| planned.member.clone()).collect()
    } else {
        Vec::new()
    }
}

impl<K: KvEngine> Writer<K> {
    /// A member, and the table in which he is.
    pub(super) fn seat(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<(Member, Table)>, StoreError> {
        let key = keys::member(conversation, user);
        let tables: &[Table] = if Role::Reader.is_one_of_many(conversation.kind()) {
            &[tables::MEMBER, tables::READER]
        } else {
            &[tables::MEMBER]
        };
        for table in tables {
            if let Some(row) = self.row(*table, &key)? {
                return Ok(Some((values::read_member(user, &row)?, *table)));
            }
        }
        Ok(None)
    }

    /// Whoever reacts in a channel must still be in it: that he went has moved no version.
    pub(super) fn is_no_reader_any_more(&mut self, draft: &Draft) -> Result<bool, StoreError> {
        let is_channel = draft.conversation.kind() == ConversationKind::Channel;
        Ok(is_channel && !self.is_member(draft)?)
    }

    /// Is it only about members who are one of many? Who was more once comes and goes with an entry. What one of many wants of
    /// his rights is told to nobody else.
    pub(super) fn is_silent(&self, draft: &Draft) -> Result<bool, StoreError> {
        let id = draft.conversation;
        let may_be = matches!(
            draft.kind,
            EntryKind::Added
                | EntryKind::Removed
                | EntryKind::Left
                | EntryKind::Joined
                | EntryKind::Role
        );
        if !may_be || !Role::Reader.is_one_of_many(id.kind()) {
            return Ok(false);
        }
        for change in &draft.changes {
            let user = match change {
                Change::Join { user, role, .. } if role.is_one_of_many(id.kind()) => user,
                Change::Leave { user } | Change::Want { user, .. } => user,
                Change::Invited { .. } | Change::Approved { .. } => continue,
                _ => return Ok(false),
            };
            let key = keys::member(id, *user);
            if self.row(tables::MEMBER, &key)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The new number of readers, if it is another one.
    pub(super) fn count_readers(
        &self,
        conversation: ConversationId,
        members: &BTreeMap<UserId, Planned>,
    ) -> Result<Option<u64>, StoreError> {
        let counts = |table, is_present| table == tables::READER && is_present;
        let (mut more, mut less) = (0_u64, 0_u64);
        for planned in members.values() {
            let member = &planned.member;
            let was = planned
                .before
                .is_some_and(|(table, was)| counts(table, was));
            let is = counts(table_of(conversation, member.role), member.is_present());
            more += u64::from(is && !was);
            less += u64::from(was && !is);
        }
        if more == less {
            return Ok(None);
        }
        let table = tables::READER_COUNT;
        let row = self.row(table, &keys::cid(conversation))?;
        let before = row.map(|row| values::read_number(table.name(), &row));
        let before = before.transpose()?.unwrap_or_default();
        Ok(Some(before.saturating_add(more).saturating_sub(less)))
    }

    pub(super) fn write_members(
        &mut self,
        conversation: ConversationId,
        members: &BTreeMap<UserId, Planned>,
    ) {
        for (user, planned) in members {
            let key = keys::member(conversation, *user);
            let table = table_of(conversation, planned.member.role);
            if let Some((before, _)) = planned.before
                && before != table
            {
                self.remove(before, &key);
            }
            self.put(table, &key, values::write_member(&planned.member));
            if planned.moved && !planned.is_unknowing(conversation) {
                let key = keys::user_conversation(*user, conversation);
                let row = if planned.member.is_present() {
                    values::USER_CONVERSATION
                } else {
                    values::LEFT_CONVERSATION
                };
                self.group.batch.put(tables::USER_CONVERSATION, &key, row);
            }
        }
    }

    pub(super) fn write_counts(
        &mut self,
        conversation: ConversationId,
        counts: Vec<(UserId, u64)>,
        readers: Option<u64>,
    ) {
        for (user, count) in counts {
            let value = values::write_number(count).to_vec();
            self.put(tables::CONVERSATION_COUNT, user.as_bytes(), value);
        }
        if let Some(count) = readers {
            let value = values::write_number(count).to_vec();
            self.put(tables::READER_COUNT, &keys::cid(conversation), value);
        }
    }

    /// What a draft changes, without an entry that tells of it.
    pub(super) fn store_silently(
        &mut self,
        draft: &Draft,
        place: Place,
        mid_key: Vec<u8>,
    ) -> Result<Outcome, StoreError> {
        let id = draft.conversation;
        self.tell_movers(id, &place, None)?;
        for change in &draft.changes {
            if let Change::Want { user, .. } = change {
                self.changed(*user, id.into())?;
            }
        }
        let Place {
            head,
            members,
            counts,
            readers,
            rows,
            ..
        } = place;
        self.write_rows(rows);
        self.write_members(id, &members);
        self.write_counts(id, counts, readers);
        let first = First {
            seq: head.seq,
            ts_ms: draft.ts_ms,
            digest: draft.digest,
        };
        self.put_first(mid_key, first);
        self.put_exchange(draft, head.seq, draft.ts_ms);
        let readers = concerned(id, &members);
        if !readers.is_empty() {
            self.group.committed.push(Committed {
                conversation: id,
                head: head.seq,
                entry: None,
                changed: Vec::new(),
                members_changed: false,
                hidden_from: None,
                readers,
            });
        }
        Ok(Outcome::Silent {
            seq: head.seq,
            ts_ms: draft.ts_ms,
        })
    }

    /// Was a draft sent to a broadcast list, and deleted there since?
    pub(super) fn is_taken_back(&self, draft: &Draft) -> Result<bool, StoreError> {
        let Some((list, seq)) = draft.source else {
            return Ok(false);
        };
        let source = self.entry(list, seq)?;
        Ok(source.is_none_or(|source| source.gone.is_some()))
    }

    /// Where a message of a broadcast list is, for its deletion.
    pub(super) fn put_copy(&mut self, (draft, seq): (&Draft, Seq)) {
        if let (Some((list, of)), Some(user)) = (draft.source, draft.peer) {
            let key = keys::entry_user(list, of, user);
            let value = values::write_number(seq.get()).to_vec();
            self.put(tables::COPY, &key, value);
        }
    }

    /// How far an entry of a broadcast list has come.
    pub(super) fn broadcast_to(
        &mut self,
        (list, seq): (ConversationId, Seq),
        after: Option<UserId>,
    ) -> Result<(), StoreError> {
        let key = keys::message(list, seq);
        if self.row(tables::BROADCAST, &key)?.is_none() {
            return Err(StoreError::NotFound);
        }
        match after {
            Some(user) => {
                let value = values::write_user_id(user).to_vec();
                self.put(tables::BROADCAST, &key, value);
            }
            None => self.remove(tables::BROADCAST, &key),
        }
        Ok(())
    }
}
