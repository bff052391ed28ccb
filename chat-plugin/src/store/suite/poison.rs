//! What happens when a write cannot be made durable: nothing is acknowledged any more, and what was acknowledged stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::store::embedded::EmbeddedStore;
use crate::store::{ChatStore, Durability, Health, Move, StoreError, StoreOptions};
use broker::store::kv::{
    EngineError, EngineStats, KeyRange, KvBatch, KvEngine, Order, Stop, Table, Visit,
};
use broker::store::memory::MemoryEngine;

/// An engine whose n-th commit fails, and every later one: as a disk does. The failing one may or may not be seen.
struct FailingEngine {
    inner: Arc<MemoryEngine>,
    left: AtomicU32,
    shows_failed: bool,
}

impl FailingEngine {
    fn new(commits: u32, shows_failed: bool) -> Self {
        Self {
            inner: Arc::default(),
            left: AtomicU32::new(commits),
            shows_failed,
        }
    }

    fn spend(&self, batch: &KvBatch) -> Result<(), EngineError> {
        let spend = |left: u32| left.checked_sub(1);
        if self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
            .is_ok()
        {
            return Ok(());
        }
        if self.shows_failed {
            self.inner.commit_relaxed(batch)?;
        }
        Err(EngineError::Io("fsync: input/output error".to_owned()))
    }
}

impl KvEngine for FailingEngine {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn reads_in_memory(&self) -> bool {
        true
    }

    fn commit_durable(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.spend(batch)?;
        self.inner.commit_durable(batch)
    }

    fn commit_relaxed(&self, batch: &KvBatch) -> Result<(), EngineError> {
        self.spend(batch)?;
        self.inner.commit_relaxed(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange<'_>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.inner.scan(table, range, order, visit)
    }

    fn stats(&self) -> Result<EngineStats, EngineError> {
        self.inner.stats()
    }

    fn reclaim(&self, stop: &Stop<'_>) -> Result<bool, EngineError> {
        self.inner.reclaim(stop)
    }
}

fn start(engine: impl KvEngine) -> Arc<dyn ChatStore> {
    let clock = Arc::new(ManualClock::default());
    let options = StoreOptions::default();
    Arc::new(EmbeddedStore::start(engine, None, &options, clock).unwrap())
}

/// Tries every commit as the failing one.
async fn fail_at_each_commit(shows_failed: bool) {
    for commits in 2..12 {
        let engine = Arc::new(FailingEngine::new(commits, shows_failed));
        let store = start(Arc::clone(&engine));
        make_group(&*store, cid(1), &[1]).await;
        let mut acknowledged = 1;
        let mut reason = None;
        for number in 0..12 {
            let mid = format!("m{number}");
            match store.append(vec![draft(cid(1), 1, &mid, 1)]).await {
                Ok(_) if reason.is_none() => acknowledged += 1,
                Ok(_) => panic!("acknowledged after a failure"),
                Err(error) => reason = Some(error),
            }
        }
        assert!(
            matches!(reason, Some(StoreError::Unavailable(_))),
            "{reason:?}"
        );
        assert_eq!(acknowledged, commits - 1, "each one was its own commit");
        assert!(matches!(store.health(), Health::Poisoned(why) if why.contains("fsync")));
        assert_eq!(
            all(&*store, cid(1)).await.len(),
            acknowledged as usize,
            "reads stay"
        );
        let found = store.conversations(&[cid(1)]).await.unwrap();
        let head = found[0].as_ref().unwrap().head.get();
        assert_eq!(head, u64::from(acknowledged));
        assert!(store.close().await.is_err());
        drop(store);

        let again = start(Arc::clone(&engine.inner));
        let kept = all(&*again, cid(1)).await.len();
        let extra = kept - acknowledged as usize;
        assert!(extra <= usize::from(shows_failed));
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_commit() {
    fail_at_each_commit(false).await;
}

#[tokio::test]
async fn rows_of_a_failed_commit_are_not_shown() {
    fail_at_each_commit(true).await;
}

#[tokio::test]
async fn a_poisoned_store_refuses_every_kind_of_write() {
    let store = start(FailingEngine::new(2, false));
    make_group(&*store, cid(1), &[1]).await;
    assert!(store.create_user(user(1, "alice")).await.is_err());
    assert!(store.put_token(token(1, "t1")).await.is_err());
    assert!(store.end_exchange(dev(1), 1).await.is_err());
    assert!(store.remove_device(uid(1), dev(1)).await.is_err());
    assert!(store.take_inflight(dev(1)).await.is_err());
    assert!(store.maintain(0, 0, AuditKeep::ALL).await.is_err());
    assert!(store.flush().await.is_err());
    let cursor = Move::Cursor {
        device: dev(1),
        conversation: cid(1),
        seq: seq(1),
    };
    for durability in [Durability::Durable, Durability::Relaxed] {
        assert!(store.advance(vec![cursor], durability).await.is_err());
    }
    assert_eq!(store.user(uid(1)).await, Ok(None));
}

#[tokio::test]
async fn everybody_who_waits_is_told() {
    let store = start(FailingEngine::new(2, false));
    make_group(&*store, cid(1), &[1]).await;
    let one = |mid| store.append(vec![draft(cid(1), 1, mid, 1)]);
    let (a, b, c) = tokio::join!(one("a"), one("b"), one("c"));
    assert!(a.is_err() && b.is_err() && c.is_err());
    assert!(store.flush().await.is_err());
}

#[test]
fn a_store_whose_first_commit_fails_does_not_start() {
    let clock = Arc::new(ManualClock::default());
    let engine = FailingEngine::new(0, false);
    let started = EmbeddedStore::start(engine, None, &StoreOptions::default(), clock);
    assert!(matches!(started.err(), Some(StoreError::Unavailable(_))));
}
