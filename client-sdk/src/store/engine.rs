//! Rows in memory, or in one file by redb: point reads, ranges, atomic durable commits.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

use crate::error::StoreError;

/// A key with its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// New values by key; `None` removes.
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const FILE: &str = "store.redb";

/// From which end a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// Where the rows are.
pub(crate) enum Engine {
    Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>),
    Disk(Database),
}

impl Engine {
    /// Nothing yet, and nothing that stays.
    pub(crate) fn memory() -> Self {
        Self::Memory(RwLock::default())
    }

    /// The file in this folder; both are made if they are not there.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|error| StoreError::Io(error.to_string()))?;
        let database = Database::create(folder.join(FILE)).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            error => failed(error),
        })?;
        let transaction = database.begin_write().map_err(failed)?;
        transaction.open_table(ROWS).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self::Disk(database))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Memory(rows) => {
                let rows = rows.read().unwrap_or_else(PoisonError::into_inner);
                Ok(rows.get(key).cloned())
            }
            Self::Disk(database) => {
                let transaction = database.begin_read().map_err(failed)?;
                let table = transaction.open_table(ROWS).map_err(failed)?;
                let value = table.get(key).map_err(failed)?;
                Ok(value.map(|value| value.value().to_vec()))
            }
        }
    }

    /// At most `limit` rows of a range, from this end of it.
    pub(crate) fn range(
        &self,
        range: Range<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        match self {
            Self::Memory(rows) => {
                let rows = rows.read().unwrap_or_else(PoisonError::into_inner);
                let found = rows.range(range.start.to_vec()..range.end.to_vec());
                let copied = found.map(|(key, value)| (key.clone(), value.clone()));
                Ok(match order {
                    Order::Ascending => copied.take(limit).collect(),
                    Order::Descending => copied.rev().take(limit).collect(),
                })
            }
            Self::Disk(database) => {
                let transaction = database.begin_read().map_err(failed)?;
                let table = transaction.open_table(ROWS).map_err(failed)?;
                let mut found = table.range(range).map_err(failed)?;
                let mut rows = Vec::new();
                while rows.len() < limit {
                    let next = match order {
                        Order::Ascending => found.next(),
                        Order::Descending => found.next_back(),
                    };
                    let Some(row) = next else { break };
                    let (key, value) = row.map_err(failed)?;
                    rows.push((key.value().to_vec(), value.value().to_vec()));
                }
                Ok(rows)
            }
        }
    }

    /// All of these or none; durable once it returns.
    pub(crate) fn commit(&self, writes: &Writes) -> Result<(), StoreError> {
        match self {
            Self::Memory(rows) => {
                let mut rows = rows.write().unwrap_or_else(PoisonError::into_inner);
                for (key, value) in writes {
                    match value {
                        Some(value) => rows.insert(key.clone(), value.clone()),
                        None => rows.remove(key),
                    };
                }
                Ok(())
            }
            Self::Disk(database) => {
                let transaction = database.begin_write().map_err(failed)?;
                let mut table = transaction.open_table(ROWS).map_err(failed)?;
                for (key, value) in writes {
                    match value {
                        Some(value) => table.insert(key.as_slice(), value.as_slice()),
                        None => table.remove(key.as_slice()),
                    }
                    .map_err(failed)?;
                }
                drop(table);
                transaction.commit().map_err(failed)
            }
        }
    }
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        error => StoreError::Io(error.to_string()),
    }
}
