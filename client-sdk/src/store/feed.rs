//! The feed: what waits for the app, by numbers that only grow.

use std::sync::atomic::Ordering;

use proto::ids::Seq;
use proto::schema::LogEntry;

use super::engine::Order;
use super::rows::{self, Fed, Meta};
use super::{Store, StoreError, Txn};
use crate::clock;

/// Rows that are removed together.
const PAGE: usize = 1_024;
/// The feed leaps less than this: more than it ever has rows, and few enough for 63 bits.
const LEAP_MAX: u64 = 1 << 36;

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
    pub(crate) fn waiting(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    pub(super) fn count_fed(&self) -> Result<u64, StoreError> {
        let rows = self.view().prefix(rows::FEED, usize::MAX / 2)?;
        Ok(rows.len() as u64)
    }

    /// The last number that the app has confirmed.
    pub(crate) fn confirmed(&self) -> Result<u64, StoreError> {
        self.view().number(Meta::Confirmed)
    }

    /// The app has done with everything up to this number. `false` if it is none that was given here.
    pub(crate) fn confirm(&self, number: u64) -> Result<bool, StoreError> {
        loop {
            let reached = self.write(|txn| {
                if number <= txn.number(Meta::Confirmed)? {
                    return Ok(Some(number >= txn.number(Meta::Began)?));
                }
                if txn.get(&rows::fed(number))?.is_none() {
                    return Ok(Some(false));
                }
                let end = rows::fed(number.saturating_add(1));
                let rows = txn.range(rows::fed(0)..end, Order::Ascending, PAGE)?;
                let last = rows.last().and_then(|(key, _)| rows::number_of(key));
                for (key, _) in rows {
                    txn.remove(key);
                    txn.fed_more -= 1;
                }
                let last = last.unwrap_or(number);
                txn.put_number(Meta::Confirmed, last);
                Ok((last >= number).then_some(true))
            })?;
            if let Some(given) = reached {
                return Ok(given);
            }
        }
    }
}

impl Txn<'_> {
    /// The feed begins at a number by chance: one that another store gave is none of this.
    pub(super) fn begin_feed(&mut self) {
        let began = clock::large_number() / 2;
        for meta in [Meta::Began, Meta::Feed, Meta::Confirmed] {
            self.put_number(meta, began);
        }
    }

    /// Each time that it is opened it goes on at a number by chance: one that was given before the folder was restored from a
    /// backup is none that is given then.
    pub(super) fn leap_feed(&mut self) -> Result<(), StoreError> {
        let leap = clock::large_number() % LEAP_MAX;
        self.put_number(Meta::Feed, self.number(Meta::Feed)?.saturating_add(leap));
        Ok(())
    }
}
