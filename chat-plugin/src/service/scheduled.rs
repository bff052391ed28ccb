//! Messages that are sent later: taken, listed, changed, cancelled, and sent when they are due.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proto::ids::{ConversationId, MessageId, UserId};
use proto::topics::Target;

use super::send::Message;
use super::{Actor, Content, Placed, Refusal, Service};
use crate::domain::scheduled::{AHEAD_MAX_MS, Scheduled, Scheduling};
use crate::store::StoreError;

/// Messages that are sent before the clock is looked at again.
const AT_ONCE: usize = 256;
/// A message that is over a rate is tried again after this, at least.
const PAUSE_MIN_MS: u64 = 1_000;
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
            after.at_ms = at_ms;
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

    /// Sends what is due; those of one user in one commit, each in the commit that takes it from the list. What is refused
    /// stays in the list, and is returned. `true`: there may be more.
    ///
    /// # Errors
    /// The store's; what was not sent is due again.
    pub async fn send_due(&self) -> Result<(Vec<(Scheduled, Refusal)>, bool), StoreError> {
        let due = self.store.due(crate::clock::now_ms(), AT_ONCE).await?;
        let may_be_more = due.len() == AT_ONCE;
        let mut by_user: BTreeMap<UserId, Vec<Scheduled>> = BTreeMap::new();
        for scheduled in due {
            by_user.entry(scheduled.user).or_default().push(scheduled);
        }
        let mut refused = Vec::new();
        for scheduled in by_user.into_values() {
            for (scheduled, refusal) in self.send_of(scheduled).await? {
                let mut after = scheduled.clone();
                if let Refusal::Held(_) = refusal {
                    self.store.reschedule(scheduled, None).await?; // it waits for a moderator now
                    continue;
                }
                if let Refusal::Rate { retry_ms } = refusal {
                    // Put off, so that others are not kept waiting behind it.
                    after.at_ms = crate::clock::now_ms().saturating_add(retry_ms.max(PAUSE_MIN_MS));
                    self.store.reschedule(scheduled, Some(after)).await?;
                    continue;
                }
                after.refused = Some((refusal.name(), refusal.to_string()));
                if self
                    .store
                    .reschedule(scheduled, Some(after.clone()))
                    .await?
                {
                    refused.push((after, refusal));
                }
            }
        }
        Ok((refused, may_be_more))
    }

    /// Sends messages of one user; returns those that were refused.
    async fn send_of(&self, due: Vec<Scheduled>) -> Result<Vec<(Scheduled, Refusal)>, StoreError> {
        let Some(first) = due.first() else {
            return Ok(Vec::new());
        };
        let first = Actor {
            user: first.user,
            device: first.device,
        };
        let (mut judged, mut refused) = (Vec::new(), Vec::new());
        let mut sent = Vec::new();
        for scheduled in due {
            let actor = Actor {
                user: scheduled.user,
                device: scheduled.device,
            };
            let target = scheduled.target.clone();
            match self.judge(actor, target, message(&scheduled)).await {
                Ok(mut one) => {
                    one.draft.scheduled = Some(Box::new(scheduled.clone()));
                    judged.push(one);
                    sent.push(scheduled);
                }
                Err(Refusal::Store(error)) => return Err(error),
                Err(refusal) => refused.push((scheduled, refusal)),
            }
        }
        let results = self.append(first, judged).await;
        for (scheduled, result) in sent.into_iter().zip(results) {
            match result {
                Ok(_) => {}
                Err(Refusal::Store(error)) => return Err(error),
                Err(refusal) => refused.push((scheduled, refusal)),
            }
        }
        Ok(refused)
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
