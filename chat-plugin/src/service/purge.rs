//! Making messages gone many at a time: by moderators, by retention.

use std::sync::OnceLock;
use std::time::Duration;

use proto::ids::{ConversationId, Seq};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::history::visible;
use super::membership::{Proposal, Request};
use super::{Placed, Refusal, Service, permit};
use crate::conversations::Sight;
use crate::domain::entry::{Change, EntryKind};
use crate::domain::member::{Role, Stretch};
use crate::domain::permission::Action;
use crate::domain::purge::{Limits, Purge, Purged, Range};
use crate::store::{ChatStore, StoreError};

/// Steps of a purge while the caller waits: some thousand entries. The rest is done behind the reply.
const STEPS_PER_CALL: usize = 16;
/// How far the wall clock that is trusted is noted apart.
const TRUST_STEP_MS: u64 = 10 * 60 * 1_000;

/// What a purge has come to so far.
#[derive(Clone, Copy, Debug)]
pub struct Trimmed {
    /// Of the entry that has announced it.
    pub place: Placed,
    /// Messages that went.
    pub messages: u64,
    /// Entries that were looked at for this call.
    pub looked_at: u64,
    /// The rest goes behind the reply.
    pub more: bool,
}

impl Service {
    /// Makes the messages of a range gone for everybody. First an entry announces it; from then on it is done, whatever happens:
    /// by this call, by a retry of it, or by [`Self::finish_purges`]. The range ends with what there is at the announcement, and
    /// is of what the actor sees, unless an owner trims. One at a time is under way in a conversation.
    ///
    /// # Errors
    /// Why not.
    pub async fn purge(
        &self,
        request: Request,
        id: ConversationId,
        range: Range,
    ) -> Result<Trimmed, Refusal> {
        let action = match range.by {
            Some(_) => Action::DeleteOthers,
            None => Action::Trim,
        };
        if range.ends().is_none_or(|(from, to)| from > to) {
            return Err(Refusal::format("the range ends before it begins"));
        }
        self.present(request.actor.user, id).await?;
        let is_under_way = self.is_under_way(id).await?;
        let place = self
            .change(&request, id, |sight, _, _| {
                permit(id, sight, action)?;
                if is_under_way {
                    return Err(Refusal::BUSY);
                }
                let range = cut(&range, sight);
                Ok(Some(Proposal {
                    kind: EntryKind::Purged,
                    body: told(&range)?,
                    changes: vec![Change::Purge(range)],
                }))
            })
            .await?;
        let announced = Purge::Announced { at: place.seq };
        let (store, stop) = (&*self.store, CancellationToken::new());
        let purged = purge_steps(store, id, announced, (STEPS_PER_CALL, &stop)).await?;
        let more = purged.next.is_some();
        if more {
            self.unfinished.notify_one();
        }
        self.delivery.catch_up().await;
        Ok(Trimmed {
            place,
            messages: purged.messages,
            looked_at: purged.looked_at,
            more,
        })
    }

    async fn is_under_way(&self, id: ConversationId) -> Result<bool, StoreError> {
        let before = Some((id, Seq::ZERO));
        let next = self.store.purges_under_way(before, 1).await?;
        Ok(next.first().is_some_and(|(found, _)| *found == id))
    }

    /// Does what entries have announced and nobody has finished: the server was stopped, or the caller did not wait for all.
    /// What cannot be read is told to the log, and left.
    ///
    /// # Errors
    /// The store's.
    pub async fn finish_purges(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        const PAGE: usize = 64;
        let mut after = None;
        loop {
            let page = self.store.purges_under_way(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (id, at) in page {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.purge_readable(id, Purge::Announced { at }, stop)
                    .await?;
            }
        }
    }

    /// Up to which time something may be found too old: now; `None` if the wall clock cannot be trusted. It is trusted as far
    /// as it goes with the time that has passed: no further ahead of what was trusted last than the server has been running
    /// since, and `retention_clock_ahead_h`. Without that bound a wrong clock would delete everything.
    ///
    /// # Errors
    /// The store's.
    pub async fn trusted_now(&self) -> Result<Option<u64>, StoreError> {
        let now_ms = crate::clock::now_ms();
        let ahead = Duration::from_hours(self.config.retention_clock_ahead_h.into());
        let known_ms = self.store.trusted_ms().await?;
        let now = crate::clock::monotonic();
        let until_ms = self.trust.until_ms(known_ms, now, ahead);
        if until_ms.is_some_and(|until_ms| now_ms > until_ms) {
            return Ok(None);
        }
        let is_old = |known_ms: u64| known_ms.saturating_add(TRUST_STEP_MS) <= now_ms;
        if known_ms.is_none_or(is_old) {
            self.store.trust(now_ms).await?;
        }
        Ok(Some(now_ms))
    }

    /// Lets go of the messages of all conversations that are over their limits; says how many there were. Without a time that
    /// can be trusted only of those beyond the newest so many. A conversation that cannot be read keeps what it has.
    ///
    /// # Errors
    /// The store's.
    pub async fn retain(
        &self,
        now_ms: Option<u64>,
        stop: &CancellationToken,
    ) -> Result<u64, StoreError> {
        let (mut messages, mut after) = (0, None);
        loop {
            let page = self.store.overdue(self.limits(now_ms), after).await?;
            for (id, retention) in page.found {
                if stop.is_cancelled() {
                    return Ok(messages);
                }
                let purge = Purge::Old(retention);
                messages += self.purge_readable(id, purge, stop).await?;
            }
            match page.next {
                Some(next) if !stop.is_cancelled() => after = Some(next),
                _ => return Ok(messages),
            }
        }
    }

    /// The same in one conversation.
    ///
    /// # Errors
    /// The store's.
    pub async fn retain_in(
        &self,
        id: ConversationId,
        stop: &CancellationToken,
    ) -> Result<u64, StoreError> {
        let now_ms = self.trusted_now().await?;
        let found = self.store.conversations(&[id]).await?.pop().flatten();
        let retention = found.and_then(|found| self.limits(now_ms).with(&found.settings));
        let Some(retention) = retention else {
            return Ok(0);
        };
        self.purge_readable(id, Purge::Old(retention), stop).await
    }

    fn limits(&self, now_ms: Option<u64>) -> Limits {
        Limits {
            now_ms,
            days: self.config.retention_days,
            messages: self.config.retention_messages,
        }
    }

    /// All steps of a purge, or those until it is stopped; says how many messages went. What is damaged stays as it is: it
    /// must not keep the others from being looked at.
    async fn purge_readable(
        &self,
        id: ConversationId,
        purge: Purge,
        stop: &CancellationToken,
    ) -> Result<u64, StoreError> {
        match purge_steps(&*self.store, id, purge, (usize::MAX, stop)).await {
            Ok(purged) => Ok(purged.messages),
            Err(StoreError::Corrupt(reason)) => {
                tracing::error!(conversation = %id, %reason, "messages that should go stay");
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

/// What of a range the actor may purge: up to what there is, and what he sees himself. To an owner belongs all of the log.
fn cut(range: &Range, sight: &Sight) -> Range {
    let is_owner = sight.member.role == Role::Owner;
    let mut parts: Vec<Stretch> = Vec::new();
    for part in &range.parts {
        let (from, to) = (part.from, part.to.min(sight.head));
        let seen = if range.by.is_none() && is_owner {
            vec![Stretch { from, to }]
        } else {
            visible(&sight.member.intervals, from, to)
        };
        for stretch in seen {
            match parts.last_mut() {
                Some(last) if last.to.next() == stretch.from => last.to = stretch.to,
                _ => parts.push(stretch),
            }
        }
    }
    parts.retain(|part| part.from <= part.to);
    Range {
        parts,
        by: range.by,
    }
}

/// What the announcement of a purge says.
fn told(range: &Range) -> Result<Value, Refusal> {
    let nothing = || Refusal::format("there is nothing in this range");
    let (from, to) = range.ends().ok_or_else(nothing)?;
    let mut body = Map::from_iter([("from".into(), json!(from)), ("to".into(), json!(to))]);
    if let Some(uid) = range.by {
        body.insert("uid".into(), json!(uid));
    }
    let gaps = range.gaps();
    let gaps: Vec<Value> = gaps
        .map(|gap| json!({"from": gap.from, "to": gap.to}))
        .collect();
    if !gaps.is_empty() {
        body.insert("gaps".into(), gaps.into());
    }
    Ok(body.into())
}

/// What is known of the wall clock since this process began.
pub(crate) struct Trust {
    /// What had been trusted then, once it has been read.
    at_start_ms: OnceLock<u64>,
    started: Instant,
}

impl Trust {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            at_start_ms: OnceLock::new(),
            started: now,
        }
    }

    /// Up to where the wall clock can be trusted; `None` if it has never been.
    fn until_ms(&self, known_ms: Option<u64>, now: Instant, ahead: Duration) -> Option<u64> {
        let known_ms = known_ms?;
        let at_start_ms = *self.at_start_ms.get_or_init(|| known_ms);
        let passed = ms(now.saturating_duration_since(self.started));
        let known_ms = known_ms.max(at_start_ms.saturating_add(passed));
        Some(known_ms.saturating_add(ms(ahead)))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// At most so many steps of a purge.
async fn purge_steps(
    store: &dyn ChatStore,
    id: ConversationId,
    mut purge: Purge,
    (steps, stop): (usize, &CancellationToken),
) -> Result<Purged, StoreError> {
    let is_announced = matches!(purge, Purge::Announced { .. });
    let mut sum = Purged::default();
    for _ in 0..steps {
        let step = store.purge(id, purge).await?;
        sum = Purged {
            // Of what was announced the store keeps the sum.
            messages: step.messages + if is_announced { 0 } else { sum.messages },
            reactions: sum.reactions + step.reactions,
            looked_at: sum.looked_at + step.looked_at,
            next: step.next,
        };
        match step.next {
            Some(next) if !stop.is_cancelled() => purge = purge.from(next),
            _ => break,
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_trusted_as_far_as_time_has_passed() {
        const HOUR: Duration = Duration::from_hours(1);
        let began = crate::clock::monotonic();
        let trust = Trust::new(began);
        assert_eq!(trust.until_ms(None, began, HOUR), None);
        let until = |known, passed| trust.until_ms(Some(known), began + passed, HOUR);
        assert_eq!(until(1_000, Duration::ZERO), Some(3_601_000));
        assert_eq!(until(1_000, HOUR), Some(7_201_000), "it has been running");
        assert_eq!(
            until(7_201_000, HOUR),
            Some(10_801_000),
            "an operator says so"
        );
    }
}
