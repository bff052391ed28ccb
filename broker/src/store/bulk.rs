//! All rows of an engine, and rows by the million into one: for dumps and moves.

use std::ops::ControlFlow;

use super::kv::{EngineError, KeyRange, KvBatch, KvEngine, Order, Table};

/// Rows are loaded in commits of about this size.
const LOAD_BYTES: usize = 1024 * 1024;

/// What is called for each row: its table, its key and its value.
pub type Each<'a, E> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), E> + 'a;

/// Shows every row, table by table, until `each` fails.
///
/// # Errors
/// That of `each`, or a row cannot be read.
pub fn each_row<E: From<EngineError>>(
    engine: &impl KvEngine,
    tables: &[Table],
    each: &mut Each<'_, E>,
) -> Result<(), E> {
    for table in tables {
        let mut result = Ok(());
        engine.scan(
            *table,
            KeyRange::ALL,
            Order::Ascending,
            &mut |key, value| {
                result = each(*table, key, value);
                if result.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            },
        )?;
        result?;
    }
    Ok(())
}

/// Copies every row from one engine into another, empty one, durably. Returns their number.
///
/// # Errors
/// One of the engines refuses.
pub fn copy(
    from: &impl KvEngine,
    to: &impl KvEngine,
    tables: &[Table],
) -> Result<u64, EngineError> {
    let mut loader = Loader::new(to);
    each_row(from, tables, &mut |table, key, value| {
        loader.add(table, key, value)
    })?;
    loader.finish()
}

/// Writes rows in commits of bounded size; the last one is durable.
#[derive(Debug)]
pub struct Loader<'a, K> {
    engine: &'a K,
    batch: KvBatch,
    rows: u64,
}

impl<'a, K: KvEngine> Loader<'a, K> {
    /// A loader of rows into `engine`.
    pub fn new(engine: &'a K) -> Self {
        Self {
            engine,
            batch: KvBatch::default(),
            rows: 0,
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn add(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.batch.put(table, key, value);
        self.rows += 1;
        if self.batch.bytes() >= LOAD_BYTES {
            self.engine.commit_relaxed(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }

    /// Makes all rows durable, and says how many there were.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn finish(self) -> Result<u64, EngineError> {
        self.engine.commit_durable(&self.batch)?;
        Ok(self.rows)
    }
}
