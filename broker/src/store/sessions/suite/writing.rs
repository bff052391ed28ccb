//! The writer thread between a journal and a store that may fail.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::journal::{Journal, Waiter};
use crate::mailbox::{Answer, Mailbox};
use crate::store::Health;
use crate::store::budget::{Budget, DiskGuard};
use crate::store::sessions::Sessions;

/// A store that commits when it is told to, well or badly.
struct Led {
    orders: Receiver<bool>,
    committed: Arc<Mutex<Vec<usize>>>,
}

impl SessionStore for Led {
    fn load(&mut self, _: Instant) -> Result<Found, EngineError> {
        Ok(Found::default())
    }

    fn commit(&mut self, changes: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError> {
        let count = changes.count();
        if self.orders.recv() == Ok(false) {
            let reason = "fsync: input/output error".to_owned();
            return Err(EngineError::Io(reason));
        }
        self.committed.lock().unwrap().push(count);
        Ok(())
    }

    fn budget(&mut self, _: &mut DiskGuard) -> Result<Budget, EngineError> {
        Ok(Budget::NotLooked)
    }

    fn holds_back(&self) -> bool {
        false
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn beat(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

struct Stage {
    sessions: Sessions,
    journal: Arc<Journal>,
    orders: Sender<bool>,
    committed: Arc<Mutex<Vec<usize>>>,
    mailbox: Arc<Mailbox>,
}

fn stage() -> Stage {
    let (orders, receiver) = channel();
    let committed: Arc<Mutex<Vec<usize>>> = Arc::default();
    let store = Led {
        orders: receiver,
        committed: Arc::clone(&committed),
    };
    let options = SessionOptions {
        engine: EngineKind::Memory,
        directory: PathBuf::new(),
        memory_bytes: 0,
        disk_bytes_max: 0,
        accept_loss: false,
    };
    let sessions = Sessions::start(store, &options).unwrap();
    Stage {
        journal: sessions.journal(),
        sessions,
        orders,
        committed,
        mailbox: Arc::default(),
    }
}

impl Stage {
    fn commit(&self, number: u64) {
        let mut entry = self.journal.open();
        entry.push(Change::End(number));
        let answer = Answer::Released(true);
        entry.commit(Waiter::letter(&self.mailbox, number, answer));
    }

    /// Waits for so many answers.
    async fn answers(&self, count: usize) -> Vec<(u64, bool)> {
        let mut got = Vec::new();
        while got.len() < count {
            let letters = std::future::poll_fn(|cx| self.mailbox.poll_take(cx)).await;
            let answers = letters.answers.into_iter();
            got.extend(answers.map(|(number, it)| (number, matches!(it, Answer::Released(true)))));
        }
        got
    }
}

#[tokio::test]
async fn nobody_is_told_before_the_commit() {
    let stage = stage();
    stage.commit(1);
    assert_eq!(stage.committed.lock().unwrap().len(), 0);
    stage.orders.send(true).unwrap();
    assert_eq!(stage.answers(1).await, [(1, true)]);
    assert_eq!(*stage.committed.lock().unwrap(), [1]);
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let stage = stage();
    // The first is being committed, or is about to be, while the others come.
    for number in 1..=100 {
        stage.commit(number);
    }
    for _ in 0..100 {
        stage.orders.send(true).unwrap();
    }
    let answers = stage.answers(100).await;
    assert!(answers.iter().map(|it| it.0).eq(1..=100));
    assert!(stage.committed.lock().unwrap().len() <= 2 + 100 / 2);
    assert_eq!(stage.committed.lock().unwrap().iter().sum::<usize>(), 100);
}

#[tokio::test]
async fn after_an_error_nothing_is_acknowledged_any_more() {
    let stage = stage();
    stage.commit(1);
    stage.orders.send(false).unwrap();
    assert_eq!(stage.answers(1).await, [(1, false)]);
    stage.commit(2);
    assert_eq!(stage.answers(1).await, [(2, false)]);
    let health = stage.sessions.health().health();
    assert!(matches!(health, Health::Poisoned(why) if why.contains("fsync")));
    assert!(stage.journal.has_room(), "nobody waits for room for ever");
    stage.sessions.close();
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_before_the_end() {
    let stage = stage();
    stage.journal.open().push(Change::End(1));
    stage.orders.send(true).unwrap();
    let committed = Arc::clone(&stage.committed);
    stage.sessions.close();
    assert_eq!(*committed.lock().unwrap(), [1]);
}
