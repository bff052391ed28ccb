//! The commit of a batch, and what becomes of those who wait for it.

use std::time::Duration;

use broker::store::kv::KvEngine;
use broker::store::recover::CommitRow;
use tokio::sync::mpsc::error::TrySendError;

use super::super::{keys, values};
use super::{FEED_PAUSE, Pending, Writer};
use crate::store::{StoreError, tables};

impl<K: KvEngine> Writer<K> {
    pub(super) fn commit(&mut self) {
        let follows_relaxed = self.group.is_durable && self.relaxed_rows;
        let is_nothing = self.group.batch.is_empty() && !self.group.is_forced && !follows_relaxed;
        if self.shared.condition.is_poisoned() {
            return self.fail_group();
        }
        if is_nothing {
            return self.finish_group();
        }
        let began = self.shared.clock.elapsed();
        if let Err(error) = self.commit_rows() {
            return self.fail(error);
        }
        self.measure(began);
        for (id, pending) in self.group.conversations.drain() {
            if let Pending {
                now: Some(known),
                is_changed: true,
                ..
            } = pending
            {
                self.shared.heads.publish(id, known);
            }
        }
        for (key, count) in self.group.owns.drain() {
            self.owns.insert(key, count);
        }
        self.feed();
        self.shared.overlay.settle(&self.group.folded);
        self.finish_group();
    }

    pub(super) fn commit_rows(&mut self) -> Result<(), StoreError> {
        let batch = &mut self.group.batch;
        for (id, pending) in &self.group.conversations {
            let Pending {
                now: Some(known),
                is_changed: true,
                ..
            } = pending
            else {
                continue;
            };
            let key = keys::cid(*id);
            batch.put_with(tables::CONVERSATION, &key, |out| {
                values::write_head(out, &known.head);
            });
            if pending.settings_changed {
                let value = values::write_settings(&known.settings)?;
                batch.put(tables::SETTINGS, &key, &value);
                let settings = &known.settings;
                if settings.retention_days > 0 || settings.retention_messages > 0 {
                    batch.put(tables::LIMITED, &key, values::PRESENT);
                } else {
                    batch.remove(tables::LIMITED, &key);
                }
            }
        }
        let row = CommitRow {
            number: self.last.number + 1,
            clock_ms: self.uptime_ms(),
        };
        let batch = &mut self.group.batch;
        row.put(batch);
        if self.group.is_durable {
            self.opened.engine.commit_durable(batch)?;
            self.durable = row.number;
            self.relaxed_rows = false;
        } else {
            self.opened.engine.commit_relaxed(batch)?;
            self.relaxed_rows = true;
        }
        self.disk.note_written(batch.bytes());
        self.last = row;
        Ok(())
    }

    pub(super) fn measure(&self, began: Duration) {
        let metrics = &self.shared.metrics;
        let committed = self.group.committed.iter();
        metrics
            .entries
            .add(committed.filter(|one| one.entry.is_some()).count());
        if self.group.is_durable {
            let took = self.shared.clock.elapsed().saturating_sub(began);
            metrics.commits.note(took, self.group.done.len());
        }
    }

    /// Tells the receiver of the feed, and waits while it has no room.
    pub(super) fn feed(&mut self) {
        let Some(sender) = self.shared.feed_sender() else {
            self.group.committed.clear();
            return;
        };
        for committed in self.group.committed.drain(..) {
            let mut waiting = committed;
            loop {
                match sender.try_send(waiting) {
                    Ok(()) => break,
                    Err(TrySendError::Full(back)) if !self.shared.queue.is_closed() => {
                        waiting = back;
                        std::thread::park_timeout(FEED_PAUSE);
                    }
                    Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                        self.shared.end_feed();
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn finish_group(&mut self) {
        for done in self.group.done.drain(..) {
            done.finish(Ok(()));
        }
        self.group.clear();
    }

    pub(super) fn fail_group(&mut self) {
        let error = self.shared.condition.refusal().unwrap_or_else(|| {
            StoreError::Unavailable("a write could not be made durable".to_owned())
        });
        for done in self.group.done.drain(..) {
            done.finish(Err(error.clone()));
        }
        self.group.clear();
    }

    pub(super) fn fail(&mut self, error: StoreError) {
        match error {
            StoreError::Unavailable(reason) => self.poison(reason),
            other => self.poison(other.to_string()),
        }
    }

    /// The end of all writing: whatever waits fails, readers keep the state before this batch.
    pub(super) fn poison(&mut self, reason: String) {
        tracing::error!(%reason, "the store could not make a write durable and takes no more");
        let conversations = self.group.conversations.drain();
        let before = conversations.map(|(id, pending)| (id, pending.before));
        self.shared.heads.pin(before.collect());
        self.shared.condition.poison(reason);
        self.fail_group();
        if let Some(maintenance) = self.maintenance.take() {
            let refusal = self.shared.condition.refusal().map_or(Ok(()), Err);
            maintenance.finish(&refusal);
        }
    }
}
