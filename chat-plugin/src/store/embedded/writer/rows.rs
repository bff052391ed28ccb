//! Rows as they are within the batch that is being gathered.

use std::ops::{Bound, ControlFlow};

use broker::store::kv::{EngineError, KeyRange, KvEngine, Order, Table};
use proto::ids::{ConversationId, MessageId, Seq, UserId};

use super::super::heads::Known;
use super::super::values::First;
use super::super::{keys, values};
use super::{Pending, Row, Writer};
use crate::domain::member::Member;
use crate::store::{Place, StoreError, tables};

impl<K: KvEngine> Writer<K> {
    pub(super) fn engine(&self) -> &K {
        &self.opened.engine
    }

    /// A row as it is within the batch.
    pub(super) fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let rows = self.group.rows.get(&table);
        if let Some(row) = rows.and_then(|rows| rows.get(key)) {
            return Ok(row.clone());
        }
        self.engine().get(table, key)
    }

    /// Writes a row that may be looked up again within the batch.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.group.batch.put(table, key, &value);
        self.note(table, key, Some(value));
    }

    pub(super) fn remove(&mut self, table: Table, key: &[u8]) {
        self.group.batch.remove(table, key);
        self.note(table, key, None);
    }

    pub(super) fn note(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        self.group.has_rows = true;
        let rows = self.group.rows.entry(table).or_default();
        rows.insert(key.to_vec(), value);
    }

    /// Commits what has been gathered, so that a scan of the engine sees it.
    pub(super) fn barrier(&mut self) -> Result<(), StoreError> {
        if self.group.has_rows {
            self.commit();
        }
        self.shared.condition.refusal().map_or(Ok(()), Err)
    }

    pub(super) fn keys(
        &self,
        table: Table,
        range: KeyRange<'_>,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut found = Vec::new();
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, _| {
                found.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    pub(super) fn rows_in(
        &self,
        table: Table,
        range: KeyRange<'_>,
    ) -> Result<Vec<Row>, EngineError> {
        let mut found = Vec::new();
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    pub(super) fn rows_of(&self, table: Table, user: UserId) -> Result<Vec<Row>, EngineError> {
        let mut found = Vec::new();
        let prefix = user.as_bytes().as_slice();
        let range = KeyRange {
            from: Bound::Included(prefix),
            to: Bound::Unbounded,
        };
        self.engine()
            .scan(table, range, Order::Ascending, &mut |key, value| {
                if !key.starts_with(prefix) {
                    return ControlFlow::Break(());
                }
                found.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
        Ok(found)
    }

    /// A conversation as it is within the batch.
    pub(super) fn conversation(&mut self, id: ConversationId) -> Result<Option<Known>, StoreError> {
        if let Some(pending) = self.group.conversations.get(&id) {
            return Ok(pending.now.clone());
        }
        let known = self.shared.heads.find(&self.opened.engine, id)?;
        let pending = Pending {
            before: known.clone(),
            now: known.clone(),
            is_changed: false,
            settings_changed: false,
        };
        self.group.conversations.insert(id, pending);
        Ok(known)
    }

    pub(super) fn member(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<Member>, StoreError> {
        let seat = self.seat(conversation, user)?;
        Ok(seat.map(|(member, _)| member))
    }

    /// Where this key of idempotency was seen, in this batch, this week or the last one. The key's week is changed.
    pub(super) fn first(
        &self,
        conversation: ConversationId,
        key: &mut [u8],
    ) -> Result<Option<First>, StoreError> {
        keys::set_week(key, 0);
        if let Some(first) = self.group.mids.get(&*key) {
            return Ok(Some(*first));
        }
        let pending = self.group.conversations.get(&conversation);
        if pending.is_some_and(|pending| pending.before.is_none()) {
            return Ok(None); // made in this batch: the engine knows nothing of it
        }
        let week = self.week();
        for week in [Some(week), week.checked_sub(1)].into_iter().flatten() {
            keys::set_week(key, week);
            if let Some(row) = self.engine().get(tables::IDEMPOTENCY, key)? {
                return values::read_first(&row).map(Some);
            }
        }
        Ok(None)
    }

    pub(super) fn place_of(
        &self,
        conversation: ConversationId,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Place>, StoreError> {
        let mut key = Vec::new();
        keys::idempotency(&mut key, conversation, user, mid);
        let first = self.first(conversation, &mut key)?;
        Ok(first.map(|First { seq, ts_ms, digest }| Place { seq, ts_ms, digest }))
    }

    /// Number of own countable entries of a user.
    pub(super) fn own_count(
        &mut self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<u64, StoreError> {
        let key = keys::member(conversation, user);
        if let Some(count) = self.group.owns.get(&key).or_else(|| self.owns.get(&key)) {
            return Ok(*count);
        }
        super::super::reads::own_before(self.engine(), conversation, user, Seq::MAX)
            .map(|last| last.map_or(0, |(_, count)| count))
    }
}
