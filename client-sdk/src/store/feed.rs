//! The feed: what waits for the app, by numbers that only grow.

use proto::ids::Seq;
use proto::schema::LogEntry;

use super::engine::Order;
use super::rows::{self, Fed, Meta};
use super::{Store, StoreError};

/// Rows that are removed together.
const PAGE: usize = 1_024;

impl Store {
    /// What comes behind a number, and its own number.
    pub(crate) fn fed_after(
        &self,
        number: u64,
        limit: usize,
    ) -> Result<Vec<(u64, LogEntry)>, StoreError> {
        let txn = self.view();
        let start = rows::fed(number.saturating_add(1));
        let mut found = Vec::new();
        for (key, value) in txn.range(start..rows::fed(u64::MAX), Order::Ascending, limit)? {
            let damaged = || StoreError::Damaged("the feed".to_owned());
            let fed: Fed = super::decode(&value)?;
            let cid = rows::cid_of(&fed.cid).ok_or_else(damaged)?;
            let entry = txn.decoded(&rows::entry(cid, Seq::new(fed.seq)))?;
            let number = rows::number_of(&key).ok_or_else(damaged)?;
            found.push((number, entry.ok_or_else(damaged)?));
        }
        Ok(found)
    }

    /// How much waits for the app.
    pub(crate) fn waiting(&self) -> Result<u64, StoreError> {
        self.view().waiting()
    }

    /// The last number that the app has confirmed.
    pub(crate) fn confirmed(&self) -> Result<u64, StoreError> {
        self.view().number(Meta::Confirmed)
    }

    /// The app has done with everything up to this number. How much waits then.
    pub(crate) fn confirm(&self, number: u64) -> Result<u64, StoreError> {
        loop {
            let (reached, waiting) = self.write(|txn| {
                let confirmed = txn.number(Meta::Confirmed)?;
                let number = number.min(txn.number(Meta::Feed)?);
                if number <= confirmed {
                    return Ok((true, txn.waiting()?));
                }
                let end = rows::fed(number.saturating_add(1));
                let rows = txn.range(rows::fed(0)..end, Order::Ascending, PAGE)?;
                let last = rows.last().and_then(|(key, _)| rows::number_of(key));
                let reached = rows.len() < PAGE;
                let last = if reached {
                    number
                } else {
                    last.unwrap_or(number)
                };
                for (key, _) in rows {
                    txn.remove(key);
                }
                txn.put_number(Meta::Confirmed, last);
                Ok((reached, txn.waiting()?))
            })?;
            if reached {
                return Ok(waiting);
            }
        }
    }
}
