//! An engine without a disk: ordered maps in memory. Nothing survives the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock};

use super::kv::{EngineError, EngineStats, KeyRange, KvBatch, KvEngine, Order, Stop, Table, Visit};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Ordered maps, one per table, behind one lock, so that a commit is seen as a whole.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    tables: RwLock<HashMap<Table, Rows>>,
}

impl KvEngine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn reads_in_memory(&self) -> bool {
        true
    }

    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.commit_relaxed(batch)
    }

    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for (table, key, value) in batch.lines() {
            let rows = tables.entry(table).or_default();
            match value {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange<'_>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rows) = tables.get(&table) else {
            return Ok(());
        };
        let rows = rows.range::<[u8], _>((range.from, range.to));
        let mut each = |(key, value): (&Vec<u8>, &Vec<u8>)| visit(key, value);
        let _stopped: ControlFlow<()> = match order {
            Order::Ascending => rows.into_iter().try_for_each(&mut each),
            Order::Descending => rows.into_iter().rev().try_for_each(&mut each),
        };
        Ok(())
    }

    fn stats(&self) -> Result<EngineStats, EngineError> {
        Ok(EngineStats::default())
    }

    fn reclaim(&self, _stop: &Stop<'_>) -> Result<bool, EngineError> {
        Ok(true)
    }
}
