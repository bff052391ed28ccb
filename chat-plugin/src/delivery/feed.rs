//! The feed of the store as it is followed. Who asks can wait until it has been followed as far as it goes now.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::store::Committed;

/// Most that somebody waits for those who hold messages in memory. They hear of what is gone within a moment.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Those who may wait at once; more wait for room.
const MARKS_MAX: usize = 64;

/// To be answered when all that was committed before it has been followed.
type Mark = oneshot::Sender<()>;

/// Where marks are set.
pub(super) struct Marks {
    sender: mpsc::Sender<Mark>,
    receiver: Mutex<Option<mpsc::Receiver<Mark>>>,
}

impl Default for Marks {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(MARKS_MAX);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Marks {
    /// Waits until all that is committed now has been followed.
    pub(super) async fn passed(&self) {
        let passed = async {
            let (mark, passed) = oneshot::channel();
            // At the end of the server nobody follows, and nobody is handed anything.
            if self.sender.send(mark).await.is_ok() {
                let _end = passed.await.is_err();
            }
        };
        if tokio::time::timeout(TIMEOUT, passed).await.is_err() {
            tracing::warn!("what is gone is late in reaching the readers");
        }
    }

    /// The feed with its marks; once.
    pub(super) fn in_feed(&self, committed: mpsc::Receiver<Committed>) -> Option<Feed> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Feed {
            committed,
            marks: receiver.take()?,
            due: VecDeque::new(),
        })
    }
}

/// The feed with its marks.
pub(super) struct Feed {
    committed: mpsc::Receiver<Committed>,
    marks: mpsc::Receiver<Mark>,
    /// With how many commits before each.
    due: VecDeque<(usize, Mark)>,
}

impl Feed {
    /// The next commit. All before it have been followed. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Committed> {
        loop {
            while let Some((_, mark)) = self.due.pop_front_if(|(before, _)| *before == 0) {
                let _given_up = mark.send(()).is_err();
            }
            tokio::select! {
                biased; // a mark waits for no more than was there when it was set
                Some(mark) = self.marks.recv() => {
                    self.due.push_back((self.committed.len(), mark));
                }
                committed = self.committed.recv() => {
                    for (before, _) in &mut self.due {
                        *before = before.saturating_sub(1);
                    }
                    return committed;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{ConversationId, ConversationKind, Seq};

    use super::*;

    fn committed(seq: u64) -> Committed {
        Committed {
            conversation: ConversationId::from_parts(ConversationKind::Group, [1; 16]),
            head: Seq::new(seq),
            entry: None,
            changed: Vec::new(),
            members_changed: false,
            hidden_from: None,
            readers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_mark_is_passed_when_all_before_it_was_followed() {
        let marks = Marks::default();
        let (sender, receiver) = mpsc::channel(9);
        let mut feed = marks.in_feed(receiver).unwrap();
        for seq in 1..=3 {
            sender.send(committed(seq)).await.unwrap();
        }
        let (mark, mut passed) = oneshot::channel();
        marks.sender.send(mark).await.unwrap();
        for _ in 1..=3 {
            assert!(feed.next().await.is_some());
            assert!(passed.try_recv().is_err(), "it is being followed");
        }
        sender.send(committed(4)).await.unwrap();
        assert!(feed.next().await.is_some());
        passed.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_a_feed_that_has_ended() {
        let marks = Marks::default();
        let (_sender, receiver) = mpsc::channel(9);
        drop(marks.in_feed(receiver));
        marks.passed().await;
    }
}
