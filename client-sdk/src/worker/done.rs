//! What becomes of jobs: what they made is told, and what follows from it begins.

use std::time::Duration;

use proto::error::ErrorName;
use proto::ids::MessageId;
use rumqttc::QoS;

use super::{AGAIN, Done, EXPIRE_MS_MAX, Outcome, REFUSED_MAX, SETTLED, Worker, jobs};
use crate::clock;
use crate::connection::{Acked, Down};
use crate::error::{Error, Refusal};
use crate::events::{Connection, Event};
use crate::store::{Queued, Taken};

impl Worker {
    pub(super) async fn on_done(&mut self, done: Done) {
        match done {
            Done::Taken {
                taken,
                publishes,
                generation,
            } => {
                self.taking = false;
                let Some(taken) = self.checked(taken) else {
                    return;
                };
                self.tell(taken);
                if generation == self.generation
                    && let Some(live) = &self.live
                {
                    for publish in publishes.iter().filter(|one| one.qos == QoS::AtLeastOnce) {
                        live.link.ack(publish).await;
                    }
                }
            }
            Done::Subscribed {
                answered,
                generation,
            } => {
                if generation == self.generation && self.live.is_some() {
                    self.on_suback(answered);
                }
            }
            Done::Watched {
                answered,
                generation,
            } => {
                if generation == self.generation
                    && let Some(answered) = answered
                {
                    self.watches.answered(answered);
                    self.watch();
                }
            }
            Done::Hello { hello, generation } => {
                if generation == self.generation && self.live.is_some() {
                    self.on_hello(hello);
                }
            }
            Done::Sent { queued, outcome } => self.on_sent(queued, outcome),
            Done::Asked(id, Acked::Refused(refusal)) => self.calls.refuse(id, refusal),
            Done::Asked(..) => {}
            Done::Filled(cid, filled) => {
                self.filling.remove(&cid);
                match filled {
                    Err(Error::Store(error)) => self.fail(error),
                    Err(error) => {
                        tracing::info!(%cid, %error, "a gap was not filled");
                        self.gaps.found(cid, clock::now() + AGAIN);
                    }
                    Ok(taken) => self.tell(taken),
                }
            }
            Done::Refreshed(refreshed) => {
                self.refreshing = false;
                if let Some(taken) = self.checked(refreshed) {
                    self.tell(taken);
                }
            }
            Done::Expired(next) => {
                if let Some(next) = self.checked(next) {
                    let now_ms = self.core.store.now_ms();
                    let wait = next.map(|ts| ts.saturating_sub(now_ms).max(1_000));
                    let wait = wait.unwrap_or(u64::MAX).min(EXPIRE_MS_MAX);
                    self.expire_at = Some(clock::now() + Duration::from_millis(wait));
                }
            }
            Done::Stored(done) => {
                self.checked(done);
            }
        }
    }

    fn on_suback(&mut self, answered: Option<Vec<(String, Option<Refusal>)>>) {
        let Some(answered) = answered else {
            return; // The connection is over, and says so itself.
        };
        let refused = answered
            .into_iter()
            .find_map(|(filter, refusal)| Some((filter, refusal?)));
        let Some((filter, refusal)) = refused else {
            self.refused_in_a_row = 0;
            let patience = self.core.config.limits.gap_patience;
            self.settled_at = Some(clock::now() + patience * SETTLED);
            self.on_subscribed();
            return;
        };
        self.refused_in_a_row += 1;
        // Once, it may be the rate of this device.
        if refusal.is(ErrorName::Limit) && self.refused_in_a_row >= REFUSED_MAX {
            self.on_down(Down::TooManyDevices);
        } else {
            self.on_down(Down::Lost(format!(
                "the server refuses {filter}: {refusal}"
            )));
        }
    }

    fn on_hello(&mut self, hello: Result<jobs::Greeting, Error>) {
        match hello {
            Ok((_, taken, gaps)) => {
                self.has_profile = true;
                self.tell(taken);
                let now = clock::now();
                for cid in gaps {
                    self.gaps.found(cid, now);
                }
                if let Some(live) = &mut self.live {
                    live.greeted = true;
                }
                self.stale = true;
                self.core.set_state(Connection::Online);
            }
            Err(Error::Store(error)) => self.fail(error),
            Err(error) => {
                // Where replies cannot go: the session does not have the filters.
                self.has_subscribed = false;
                self.on_down(Down::Lost(error.to_string()));
            }
        }
    }

    fn on_sent(&mut self, queued: Queued, outcome: Result<Outcome, Error>) {
        let number = queued.number;
        let mid = queued.mid.parse::<MessageId>().ok();
        let Some(outcome) = self.checked(outcome) else {
            return;
        };
        match outcome {
            Outcome::Settled { taken, cid, seq } => {
                if let Some(cid) = cid {
                    self.outbox.learn(&queued.target, cid);
                }
                self.outbox.remove(number);
                self.tell(taken);
                if let Some(mid) = mid {
                    self.core.hub.tell(Event::Sent { mid, cid, seq });
                }
            }
            Outcome::Failed { refusal, taken } => {
                self.outbox.refused(number);
                self.tell(taken);
                if let Some(mid) = mid {
                    self.core.hub.tell(Event::Failed { mid, refusal });
                }
            }
            Outcome::Again(after) => {
                let until = after.map(|after| clock::now() + after);
                self.outbox.again(queued, until);
            }
        }
    }

    /// What a commit changed.
    pub(super) fn tell(&mut self, taken: Taken) {
        let hub = &self.core.hub;
        for (number, cid, seq) in taken.stored {
            self.outbox.remove(number);
            if let Some(mid) = taken.stored_mids.get(&number) {
                let (cid, seq) = (Some(cid), Some(seq));
                let mid = mid.clone();
                hub.tell(Event::Sent { mid, cid, seq });
            }
        }
        for cid in taken.receipts {
            hub.tell(Event::Receipts(cid));
        }
        for (cid, seq) in taken.updated {
            hub.tell(Event::Updated { cid, seq });
        }
        if let Some(badge) = taken.badge {
            hub.tell(Event::Badge(badge));
        }
        if taken.me {
            hub.tell(Event::Me);
        }
        let now = clock::now();
        for cid in taken.conversations {
            hub.tell(Event::Conversation(cid));
            if !taken.gaps.contains(&cid) {
                self.gaps.closed(cid);
            } else if !self.filling.contains(&cid) {
                self.gaps.found(cid, now);
            }
        }
        for cid in taken.shrunk {
            self.gaps.shrank(cid, now);
        }
        if let Some(ts) = taken.expires {
            let wait = ts
                .saturating_sub(self.core.store.now_ms())
                .min(EXPIRE_MS_MAX);
            let due = now + Duration::from_millis(wait);
            // None: it is being looked at, and the next time is told then.
            self.expire_at = self.expire_at.map(|at| at.min(due));
        }
        if !self.knew_time && self.expire_at.is_some() && self.core.store.knows_time() {
            self.knew_time = true;
            self.expire_at = Some(now);
        }
        self.stale |= taken.stale;
        hub.ring();
    }

    /// What a job made, unless the store failed: then everything ends.
    fn checked<T>(&mut self, made: Result<T, Error>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(Error::Store(error)) => {
                self.fail(error);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a job was given up");
                None
            }
        }
    }
}
