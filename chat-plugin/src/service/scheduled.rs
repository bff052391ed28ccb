//! Messages that are sent later: taken, listed, changed, cancelled, and sent when they are due.

use std::borrow::Cow;
use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use proto::ids::{ConversationId, MessageId, UserId};
use proto::topics::Target;
use tokio_util::sync::CancellationToken;

use super::send::{Judged, Message};
use super::{Actor, Content, Placed, Refusal, Service};
use crate::domain::scheduled::{AHEAD_MAX_MS, Scheduled, Scheduling};
use crate::store::{Health, StoreError};

/// Messages that are sent before the clock is looked at again.
const AT_ONCE: usize = 256;
/// A message that is over a rate is tried again after this, at least.
const PAUSE_MIN_MS: u64 = 1_000;
/// One that the store cannot take is tried again after this.
const PAUSE_OF_DAMAGE_MS: u64 = 60_000;
/// Users whose messages are judged at once, and messages of one of them.
const USERS_AT_ONCE: usize = 32;
const JUDGED_AT_ONCE: usize = 8;
/// Scheduled messages in one page of the list.
const PAGE_MAX: usize = 16;

/// What became of a message that shall be sent later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arranged {
    /// It waits.
    Waits {
        /// Where it will go.
        conversation: ConversationId,
        /// When, in ms since 1970.
        at_ms: u64,
        /// It waited before.
        duplicate: bool,
    },
    /// It was sent before.
    Sent(Placed),
}

/// A change of a scheduled message.
#[derive(Debug, Default)]
pub struct Rearranged {
    /// Another time, in ms since 1970.
    pub at_ms: Option<u64>,
    /// Another body.
    pub content: Option<Content>,
}

const MISSING: Refusal = Refusal::NotFound(Cow::Borrowed("no such scheduled message"));

impl Service {
    /// Lets a message wait for its time, if it could be sent now.
    ///
    /// # Errors
    /// Why not.
    pub async fn schedule(
        &self,
        actor: Actor,
        target: Target,
        message: Message,
        at_ms: u64,
    ) -> Result<Arranged, Refusal> {
        if !message.has_own_mid {
            return Err(Refusal::format(
                "what is sent later needs a message id (mid)",
            ));
        }
        check_time(at_ms)?;
        if let Some(place) = self.stored_before(actor, &target, &message).await? {
            return Ok(Arranged::Sent(place));
        }
        let target = match target {
            Target::Handle(handle) => match self.names.user(&handle).await? {
                Some(user) => Target::User(user),
                None => return Err(Refusal::NotFound(Cow::Borrowed("no such user"))),
            },
            Target::Me => Target::User(actor.user),
            target => target,
        };
        let (reply_to, thread, ttl_s) = (message.reply_to, message.thread, message.ttl_s);
        // What it says is looked at when it is sent: words may be added until then.
        let judged = self.judge_sender(actor, target.clone(), message).await?;
        let draft = judged.draft;
        let scheduled = Scheduled {
            user: actor.user,
            device: actor.device,
            mid: draft.mid,
            at_ms,
            due_ms: at_ms,
            target,
            conversation: draft.conversation,
            digest: draft.digest,
            format: draft.format,
            opaque: draft.opaque,
            body: draft.body,
            reply_to,
            thread,
            ttl_s,
            refused: None,
        };
        let max = usize::try_from(self.config.scheduled_per_user_max).unwrap_or(usize::MAX);
        let conversation = scheduled.conversation;
        let waits = |duplicate| Arranged::Waits {
            conversation,
            at_ms,
            duplicate,
        };
        match self.store.schedule(scheduled, max).await? {
            Scheduling::Waits => Ok(waits(false)),
            Scheduling::Waited => Ok(waits(true)),
            Scheduling::Conflict => Err(Refusal::IdempotencyConflict),
            Scheduling::Full => Err(Refusal::Limit("too many scheduled messages")),
        }
    }

    /// Scheduled messages of the actor, in the order of their message ids, and whether there are more: at most `limit`
    /// after `after`, and about so many bytes, but one at least.
    ///
    /// # Errors
    /// The store's.
    pub async fn scheduled(
        &self,
        actor: Actor,
        after: Option<MessageId>,
        (limit, bytes): (usize, usize),
    ) -> Result<(Vec<Scheduled>, bool), Refusal> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut found = self.store.scheduled(actor.user, after, limit + 1).await?;
        let mut room = bytes;
        let fits = found.iter().take_while(|one| {
            let had = room > 0;
            room = room.saturating_sub(512 + one.body.len());
            had && room > 0
        });
        let kept = fits.count().clamp(1, limit);
        let more = found.len() > kept;
        found.truncate(kept);
        Ok((found, more))
    }

    /// Changes a scheduled message; one that was refused is tried again.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is none (any more).
    pub async fn reschedule(
        &self,
        actor: Actor,
        mid: &MessageId,
        change: Rearranged,
    ) -> Result<Scheduled, Refusal> {
        let before = self.store.scheduled_as(actor.user, mid).await?;
        let before = before.ok_or(MISSING)?;
        let mut after = before.clone();
        after.refused = None;
        if let Some(at_ms) = change.at_ms {
            check_time(at_ms)?;
            (after.at_ms, after.due_ms) = (at_ms, at_ms);
        }
        if let Some(content) = change.content {
            (after.format, after.opaque) = (content.format, content.opaque);
            after.body = content.body;
            after.digest = message(&after).digest();
        }
        if self.store.reschedule(before, Some(after.clone())).await? {
            return Ok(after);
        }
        Err(MISSING) // it is being sent
    }

    /// Cancels a scheduled message. Says whether there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn unschedule(&self, actor: Actor, mid: &MessageId) -> Result<bool, Refusal> {
        let before = self.store.scheduled_as(actor.user, mid).await?;
        match before {
            Some(before) => Ok(self.store.reschedule(before, None).await?),
            None => Ok(false),
        }
    }

    /// Sends what is due; what one user sends is stored in one commit, each in the commit that takes it from the list. What is
    /// refused stays in the list, and is returned. `true`: there may be more. Ends when it is stopped; what was not sent then is
    /// due again.
    ///
    /// # Errors
    /// The store's; what was not sent is due again.
    pub async fn send_due(
        &self,
        stop: &CancellationToken,
    ) -> Result<(Vec<(Scheduled, Refusal)>, bool), StoreError> {
        let mut refused = Vec::new();
        if self.store.health() != Health::Ready {
            return Ok((refused, false));
        }
        let due = self.store.due(crate::clock::now_ms(), AT_ONCE).await?;
        let may_be_more = !due.is_empty();
        let mut by_user: BTreeMap<UserId, Vec<Scheduled>> = BTreeMap::new();
        for scheduled in due {
            by_user.entry(scheduled.user).or_default().push(scheduled);
        }
        let users: Vec<_> = by_user
            .into_values()
            .map(|due| self.settle_due(due))
            .collect();
        let mut settled = stream::iter(users).buffer_unordered(USERS_AT_ONCE);
        loop {
            let of_one = tokio::select! {
                of_one = settled.next() => of_one,
                () = stop.cancelled() => return Ok((refused, false)),
            };
            match of_one {
                Some(Ok(mut of_one)) => refused.append(&mut of_one),
                Some(Err(error)) => {
                    tracing::warn!(%error, "scheduled messages could not be sent");
                    return Ok((refused, false));
                }
                None => return Ok((refused, may_be_more)),
            }
        }
    }

    /// Sends messages of one user, and notes what became of the others. Returns those that were refused.
    async fn settle_due(
        &self,
        due: Vec<Scheduled>,
    ) -> Result<Vec<(Scheduled, Refusal)>, StoreError> {
        let mut refused = Vec::new();
        for (scheduled, refusal) in self.send_of(due).await {
            let mut after = scheduled.clone();
            match refusal {
                Refusal::Held(_) => {
                    self.store.reschedule(scheduled, None).await?; // it waits for a moderator now
                }
                Refusal::Rate { retry_ms } => {
                    // Put off, so that others are not kept waiting behind it.
                    let wait_ms = retry_ms.max(PAUSE_MIN_MS);
                    after.due_ms = crate::clock::now_ms().saturating_add(wait_ms);
                    self.store.reschedule(scheduled, Some(after)).await?;
                }
                Refusal::Store(error) if !error.is_damage() => return Err(error),
                Refusal::Store(error) => {
                    let (user, mid) = (scheduled.user, &scheduled.mid);
                    tracing::error!(%user, %mid, %error, "a scheduled message could not be sent");
                    after.due_ms = crate::clock::now_ms().saturating_add(PAUSE_OF_DAMAGE_MS);
                    self.store.reschedule(scheduled, Some(after)).await?;
                }
                refusal => {
                    after.refused = Some((refusal.name(), refusal.to_string()));
                    let change = self.store.reschedule(scheduled, Some(after.clone()));
                    if change.await? {
                        refused.push((after, refusal));
                    }
                }
            }
        }
        Ok(refused)
    }

    /// Sends messages of one user; returns those that were not sent, and why.
    async fn send_of(&self, due: Vec<Scheduled>) -> Vec<(Scheduled, Refusal)> {
        let judging: Vec<_> = due
            .into_iter()
            .map(|scheduled| async {
                let judged = self.judge_due(&scheduled).await;
                (scheduled, judged)
            })
            .collect();
        let mut judging = stream::iter(judging).buffered(JUDGED_AT_ONCE);
        let (mut judged, mut sent, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((scheduled, result)) = judging.next().await {
            match result {
                Ok(one) => {
                    judged.push(one);
                    sent.push(scheduled);
                }
                Err(refusal) => unsent.push((scheduled, refusal)),
            }
        }
        let Some(actor) = sent.first().map(actor) else {
            return unsent;
        };
        let mut results = self.append(actor, judged.clone()).await;
        let is_damaged = |result: &Result<_, _>| matches!(result, Err(Refusal::Store(error)) if error.is_damage());
        if judged.len() > 1 && results.iter().any(is_damaged) {
            // One that cannot be stored is not to keep the others.
            results.clear();
            for one in judged {
                results.append(&mut self.append(actor, vec![one]).await);
            }
        }
        for (scheduled, result) in sent.into_iter().zip(results) {
            if let Err(refusal) = result {
                unsent.push((scheduled, refusal));
            }
        }
        unsent
    }

    async fn judge_due(&self, scheduled: &Scheduled) -> Result<Judged, Refusal> {
        let target = scheduled.target.clone();
        let mut judged = self
            .judge(actor(scheduled), target, message(scheduled))
            .await?;
        judged.draft.scheduled = Some(Box::new(scheduled.clone()));
        Ok(judged)
    }
}

fn actor(scheduled: &Scheduled) -> Actor {
    Actor {
        user: scheduled.user,
        device: scheduled.device,
        from: None,
    }
}

/// The message that a scheduled one becomes.
fn message(scheduled: &Scheduled) -> Message {
    let body = super::looked_at(scheduled.format, &scheduled.body);
    let mentions = body.map(|body| body.mentions()).unwrap_or_default();
    Message {
        mid: scheduled.mid.clone(),
        has_own_mid: true,
        content: Content {
            format: scheduled.format,
            body: scheduled.body.clone(),
            opaque: scheduled.opaque,
            mentions,
        },
        reply_to: scheduled.reply_to,
        thread: scheduled.thread,
        ttl_s: scheduled.ttl_s,
        at_ms: None,
        exchange: None,
    }
}

fn check_time(at_ms: u64) -> Result<(), Refusal> {
    if at_ms > crate::clock::now_ms().saturating_add(AHEAD_MAX_MS) {
        return Err(Refusal::format("at is at most a year ahead"));
    }
    Ok(())
}
