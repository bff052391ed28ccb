//! Broadcast lists: one body, and as many direct messages as the list is long.
//!
//! 1. The owner sends to the list: an entry of its log, which has the body.
//! 2. With the entry comes a row that says that it is on its way. Page by page those to whom the list went at that time get a
//!    direct message that refers to the body, under a message id that follows from the list, the place and the user: so
//!    each gets it once, however often a page is begun. Each is stored with its place, where a deletion finds it. The row says
//!    how far it has come, and goes when all have it.
//! 3. A deletion goes the same way. What is deleted in the list is stored for nobody any more, and what is in memory of it is
//!    let go of before the deletion is acknowledged.

use proto::ids::{ConversationId, DeviceId, MessageId, Seq, UserId, digest16};

use super::acts::Acting;
use super::history::{MemberStatus, Status};
use super::send::{Judged, Message};
use super::{Actor, Placed, Refusal, Service};
use crate::domain::entry::{Entry, EntryKind};
use crate::domain::overlay::HiddenBy;
use crate::store::{Broadcast, PageRange, StoreError};

/// Direct conversations that one step reaches.
const AT_ONCE: usize = 64;
/// Lists that are looked at at once.
const UNDER_WAY_MAX: usize = 64;
/// Those to whom a list goes, in one status; more than [`crate::config::Config::broadcast_recipients_max`] can be.
const COPIES_MAX: usize = 1_024;
/// Members named in one status.
const NAMED_MAX: usize = 256;

/// How far a step of a broadcast got.
enum Step {
    /// There may be more behind the user.
    Reached(Option<UserId>),
    /// Something is too busy now.
    Later,
}

impl Service {
    /// What may be said to a broadcast list, and how often.
    pub(super) fn check_broadcast(&self, user: UserId, message: &Message) -> Result<(), Refusal> {
        if message.reply_to.is_some() || message.thread.is_some() {
            return Err(Refusal::format(
                "a message to a broadcast list neither quotes nor is in a thread",
            ));
        }
        self.rates.broadcasts.take(user)
    }

    /// Brings what was sent to broadcast lists a step further: one page of one entry of each list, one after the other in each.
    /// `true`: there is more to do now.
    ///
    /// # Errors
    /// The store's, about all writing; what was not done is done later.
    pub async fn broadcast(&self) -> Result<bool, StoreError> {
        let (mut has_moved, mut after) = (false, None);
        loop {
            let under_way = self.store.broadcasts(after, UNDER_WAY_MAX).await?;
            let Some(last) = under_way.last() else {
                return Ok(has_moved);
            };
            after = Some(last.list);
            for one in under_way {
                match self.broadcast_step(&one).await {
                    Ok(Step::Reached(after)) => {
                        self.store.broadcast_to(one.list, one.seq, after).await?;
                        has_moved = true;
                    }
                    Ok(Step::Later) => {}
                    // The other lists go on.
                    Err(error) if error.is_damage() => {
                        tracing::error!(list = %one.list, seq = %one.seq, %error, "a broadcast could not go on");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// What is deleted in a list is handed out to nobody from now on, wherever its deletion has come to.
    pub(super) async fn take_back(
        &self,
        from: UserId,
        (list, seq): (ConversationId, Seq),
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let copies = self.store.copies(list, seq, after, COPIES_MAX).await?;
            for (user, at) in &copies {
                let direct = ConversationId::direct(from, *user);
                if let Some(live) = self.conversations.in_memory(direct) {
                    self.delivery.take_back(&live, &[*at]);
                }
            }
            match copies.last() {
                Some((last, _)) if copies.len() == COPIES_MAX => after = Some(*last),
                _ => return Ok(()),
            }
        }
    }

    async fn broadcast_step(&self, one: &Broadcast) -> Result<Step, StoreError> {
        let range = PageRange {
            from: one.seq,
            to: one.seq,
            newest: false,
            limit: 1,
            bytes: usize::MAX,
            as_of: Seq::MAX,
        };
        let Some(entry) = self.store.page(one.list, range).await?.pop() else {
            return Ok(Step::Reached(None));
        };
        let is_gone = entry.gone_at(crate::clock::now_ms()).is_some();
        match (entry.kind, entry.target) {
            (EntryKind::Message, _) if !is_gone => self.copy(one, &entry).await,
            (EntryKind::Deleted, Some(target)) => self.delete_copies(one, &entry, target).await,
            _ => Ok(Step::Reached(None)),
        }
    }

    async fn copy(&self, one: &Broadcast, entry: &Entry) -> Result<Step, StoreError> {
        let readers = self.store.readers(one.list, one.after, AT_ONCE).await?;
        let last = readers.last().filter(|_| readers.len() == AT_ONCE);
        let last = last.map(|member| member.user);
        let actor = sender(entry);
        let (mut judged, mut users) = (Vec::new(), Vec::new());
        for reader in readers.iter().filter(|reader| reader.awaits(one.seq)) {
            match self.judge_copy(entry, reader.user).await {
                Ok(draft) => {
                    users.push(reader.user);
                    judged.push(draft);
                }
                Err(refusal) if is_over(entry, reader.user, &refusal)? => {}
                Err(_) => return Ok(Step::Later),
            }
        }
        let mut results = self.append(actor, judged.clone()).await;
        if judged.len() > 1 && results.iter().any(is_damaged) {
            results.clear(); // one of them keeps no other back
            for one in judged {
                results.extend(self.append(actor, vec![one]).await);
            }
        }
        for (user, result) in users.into_iter().zip(results) {
            if let Err(refusal) = result
                && !is_over(entry, user, &refusal)?
            {
                return Ok(Step::Later);
            }
        }
        Ok(Step::Reached(last))
    }

    async fn judge_copy(&self, entry: &Entry, to: UserId) -> Result<Judged, Refusal> {
        self.copy_for(sender(entry), entry, (to, mid_of(entry, to)?))
            .await
    }

    async fn delete_copies(
        &self,
        one: &Broadcast,
        entry: &Entry,
        target: Seq,
    ) -> Result<Step, StoreError> {
        let copies = self.store.copies(one.list, target, one.after, AT_ONCE);
        let copies = copies.await?;
        let last = copies.last().filter(|_| copies.len() == AT_ONCE);
        let last = last.map(|(user, _)| *user);
        for (user, at) in copies {
            let mid = match mid_of(entry, user) {
                Ok(mid) => mid,
                Err(refusal) if is_over(entry, user, &refusal)? => continue,
                Err(_) => return Ok(Step::Later),
            };
            let acting = Acting {
                actor: sender(entry),
                conversation: ConversationId::direct(entry.from, user),
                seq: at,
                mid,
                has_own_mid: true,
                exchange: None,
            };
            match self.delete_copy(&acting).await {
                Ok(_) => {}
                Err(refusal) if is_over(entry, user, &refusal)? => {}
                Err(_) => return Ok(Step::Later),
            }
        }
        Ok(Step::Reached(last))
    }

    /// Who of those to whom a list goes has one of its messages.
    pub(super) async fn broadcast_status(
        &self,
        from: UserId,
        (list, seq): (ConversationId, Seq),
    ) -> Result<Status, Refusal> {
        let readers = self.store.readers(list, None, COPIES_MAX).await?;
        let awaiting = readers.iter().filter(|reader| reader.awaits(seq)).count();
        let copies = self.store.copies(list, seq, None, COPIES_MAX).await?;
        let mut status = Status {
            delivered: 0,
            read: 0,
            of: u32::try_from(awaiting.max(copies.len())).unwrap_or(u32::MAX),
            members: Vec::new(),
        };
        for (user, at) in copies {
            let direct = ConversationId::direct(from, user);
            let live = self.conversations.load(direct).await?;
            let Some(marks) = live.and_then(|live| live.sight(user)).map(|own| own.marks) else {
                continue;
            };
            // He who had blocked the sender never had it, however far he has got since.
            let hidden = self.store.hidden(direct, user, vec![at]).await?;
            let is_kept_back = matches!(hidden.first(), Some((_, HiddenBy::Block)));
            let has = |mark: Seq| mark >= at && !is_kept_back;
            let (delivered, read) = (has(marks.delivered()), has(marks.read));
            status.delivered += u32::from(delivered);
            status.read += u32::from(read);
            if status.members.len() < NAMED_MAX {
                let have = Vec::from_iter(delivered.then_some(user));
                let moved = self.store.moved_over(direct, have, at).await?.pop();
                let moved = moved.map(|(_, moved)| moved).unwrap_or_default();
                status.members.push(MemberStatus {
                    user,
                    handle: self.names.handle(user).await?,
                    delivered,
                    read,
                    moved_ms: marks.moved_ms,
                    delivered_ms: moved.delivered_ms,
                    read_ms: moved.read_ms,
                });
            }
        }
        Ok(status)
    }
}

fn sender(entry: &Entry) -> Actor {
    Actor {
        user: entry.from,
        device: DeviceId::from_bytes(*entry.device.as_bytes()),
        from: None,
    }
}

/// The same for every attempt, and nothing that tells those to whom a list goes of one another.
fn mid_of(entry: &Entry, to: UserId) -> Result<MessageId, Refusal> {
    let (list, seq) = (entry.conversation.as_bytes(), entry.seq.get().to_be_bytes());
    let digest = digest16(&[b"broadcast", list, &seq, to.as_bytes()]);
    UserId::from_bytes(digest)
        .to_string()
        .parse()
        .map_err(|error| Refusal::format(format!("{error}")))
}

/// Is there nothing more to be done for this recipient? What is damaged of one keeps it back from nobody else.
fn is_over(entry: &Entry, user: UserId, refusal: &Refusal) -> Result<bool, StoreError> {
    let (list, seq) = (entry.conversation, entry.seq);
    match refusal {
        Refusal::Store(error) if !error.is_damage() => return Err(error.clone()),
        Refusal::Store(error) => {
            tracing::error!(%list, %seq, %user, %error, "a broadcast passes somebody over");
        }
        Refusal::Rate { .. } => return Ok(false),
        refusal => {
            tracing::debug!(%list, %seq, %user, %refusal, "a broadcast passes somebody over");
        }
    }
    Ok(true)
}

fn is_damaged(result: &Result<Placed, Refusal>) -> bool {
    matches!(result, Err(Refusal::Store(error)) if error.is_damage())
}
