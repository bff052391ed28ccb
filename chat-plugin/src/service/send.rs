//! Sending: from what a client published to a draft, and from drafts to places in logs.

use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId, digest16};
use proto::topics::Target;
use std::borrow::Cow;

use super::{Actor, Content, Placed, Refusal, Service, permit};
use crate::conversations::{Live, Sight};
use crate::domain::entry::{Basis, Change, Draft, Entry, EntryKind, Mentioned, Outcome};
use crate::domain::member::Role;
use crate::domain::permission::Action;
use crate::domain::support::CaseState;
use crate::store::StoreError;

/// A message as its sender wrote it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Key of idempotency.
    pub mid: MessageId,
    /// The sender chose it.
    pub has_own_mid: bool,
    /// What it says.
    pub content: Content,
    /// The message that it quotes.
    pub reply_to: Option<Seq>,
    /// A message of the thread in which it is written, or the one that begins it.
    pub thread: Option<Seq>,
    /// Seconds that it lasts.
    pub ttl_s: Option<u32>,
    /// When it shall be sent, in ms since 1970; `None`, and what is past: now.
    pub at_ms: Option<u64>,
    /// Packet identifier of a QoS 2 exchange of a known device.
    pub exchange: Option<u16>,
}

/// A draft that was judged, and where it wants to go, so that it can be judged again.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What to append.
    pub draft: Draft,
    pub(super) target: Target,
    /// It opens the closed case of its sender again, before it is stored.
    reopens: bool,
}

/// What a message rests on.
struct Ground {
    conversation: ConversationId,
    basis: Basis,
    changes: Vec<Change>,
    /// The other one of a direct conversation.
    peer: Option<UserId>,
    /// Seconds that messages last there; 0: for ever.
    ttl_s: u32,
    /// Least time since the last message of the sender.
    slow_ms: u64,
}

impl Ground {
    fn of(live: &Live, sight: &Sight) -> Self {
        Self {
            conversation: live.id(),
            peer: live.peer(sight.member.user),
            basis: Basis::Version(sight.version),
            changes: Vec::new(),
            ttl_s: sight.ttl_s,
            slow_ms: if sight.member.role >= Role::Moderator {
                0
            } else {
                u64::from(sight.slow_s) * 1_000
            },
        }
    }
}

impl Message {
    /// What makes this message this message; also its id, unless each attempt gets another one.
    pub(super) fn digest(&self) -> [u8; 16] {
        let mid = if self.has_own_mid {
            self.mid.as_str().as_bytes()
        } else {
            b""
        };
        let Content { format, body, .. } = &self.content;
        let format = [format.to_byte()];
        if self.reply_to.is_none() && self.thread.is_none() {
            return digest16(&[b"message", &format, body, mid]);
        }
        let [reply_to, thread] =
            [self.reply_to, self.thread].map(|seq| seq.unwrap_or_default().get().to_be_bytes());
        digest16(&[b"reply", &format, body, mid, &reply_to, &thread])
    }
}

impl Service {
    /// Judges a message: may this user send it there, and may it be said?
    ///
    /// # Errors
    /// Why not.
    pub async fn judge(
        &self,
        actor: Actor,
        target: Target,
        message: Message,
    ) -> Result<Judged, Refusal> {
        let judged = self.judge_sender(actor, target, message).await?;
        self.check_content(&judged.draft).await?;
        Ok(judged)
    }

    /// Judges a message, but for what it says.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn judge_sender(
        &self,
        actor: Actor,
        target: Target,
        message: Message,
    ) -> Result<Judged, Refusal> {
        let ground = self.ground(actor.user, &target).await?;
        if ground.conversation.kind() == ConversationKind::Broadcast {
            self.check_broadcast(actor.user, &message)?;
        }
        let reopens = self.reopens(actor.user, ground.conversation, &message.mid);
        let reopens = reopens.await?;
        let digest = message.digest();
        let (quoted, thread) = self.references(actor.user, &ground, &message).await?;
        self.check_conversation_rate(ground.conversation)?;
        let Message {
            mid,
            content,
            ttl_s,
            exchange,
            ..
        } = message;
        let mentions = self
            .mentioned(actor.user, ground.conversation, &content.mentions)
            .await?;
        let Ground {
            conversation,
            basis,
            changes,
            peer,
            ttl_s: of_conversation,
            slow_ms,
        } = ground;
        let ts_ms = crate::clock::now_ms();
        let draft = Draft {
            conversation,
            basis,
            from: actor.user,
            peer,
            device: actor.device,
            mid,
            digest,
            ts_ms,
            kind: EntryKind::Message,
            format: content.format,
            opaque: content.opaque,
            body: content.body,
            target: quoted,
            thread,
            expires_ms: Self::expiry(ts_ms, ttl_s, of_conversation),
            mentions,
            source: None,
            scheduled: None,
            was_held: false,
            act: None,
            slow_ms,
            exchange: exchange.map(|packet_id| (actor.device, packet_id)),
            changes,
            audit: None,
        };
        Ok(Judged {
            draft,
            target,
            reopens,
        })
    }

    /// Is it something new that a visitor says in a case of his that was closed?
    async fn reopens(
        &self,
        user: UserId,
        id: ConversationId,
        mid: &MessageId,
    ) -> Result<bool, StoreError> {
        if id.kind() != ConversationKind::Support {
            return Ok(false);
        }
        let live = self.conversations.load(id).await?;
        let conversation = live.and_then(|live| live.conversation());
        let case = conversation.and_then(|conversation| conversation.settings.case);
        let is_closed =
            case.is_some_and(|case| case.visitor == user && case.state == CaseState::Closed);
        Ok(is_closed && self.store.place_of(id, user, mid).await?.is_none())
    }

    /// Opens the case before a message that does so.
    async fn reopened(&self, actor: Actor, judged: Judged) -> Result<Judged, Refusal> {
        let Judged { draft, .. } = &judged;
        self.reopen_by(actor, draft.conversation, &draft.mid)
            .await?;
        self.judge_again(actor, judged).await
    }

    /// A message of a broadcast list as a direct message, under this message id; to nobody who is no more.
    pub(super) async fn copy_for(
        &self,
        actor: Actor,
        entry: &Entry,
        (to, mid): (UserId, MessageId),
    ) -> Result<Judged, Refusal> {
        let target = Target::User(to);
        self.check_person(to).await?;
        let ground = self.ground(actor.user, &target).await?;
        let draft = Draft {
            conversation: ground.conversation,
            basis: ground.basis,
            from: actor.user,
            peer: ground.peer,
            device: actor.device,
            digest: digest16(&[b"broadcast", mid.as_str().as_bytes()]),
            mid,
            ts_ms: crate::clock::now_ms(),
            kind: EntryKind::Message,
            format: entry.format,
            opaque: entry.opaque,
            body: entry.body.clone(),
            target: None,
            thread: None,
            expires_ms: entry.expires_ms,
            mentions: Mentioned::default(),
            source: Some((entry.conversation, entry.seq)),
            scheduled: None,
            was_held: false,
            act: None,
            slow_ms: 0,
            exchange: None,
            changes: ground.changes,
            audit: None,
        };
        Ok(Judged {
            draft,
            target,
            reopens: false,
        })
    }

    /// A retry of something that was stored while the sender still had the right: its first place.
    ///
    /// # Errors
    /// [`Refusal::IdempotencyConflict`] if it was stored with another body.
    pub async fn stored_before(
        &self,
        actor: Actor,
        target: &Target,
        message: &Message,
    ) -> Result<Option<Placed>, Refusal> {
        let mut conversation = self.conversation_of(actor, target).await?;
        if let (None, Target::Handle(handle)) = (conversation, target) {
            // It names nobody any more: whom it was sent to has another one now.
            let last = self.store.last_of_handle(handle).await?;
            conversation = last.map(|last| ConversationId::direct(actor.user, last));
        }
        let Some(conversation) = conversation else {
            return Ok(None);
        };
        let Some(place) = self
            .store
            .place_of(conversation, actor.user, &message.mid)
            .await?
        else {
            return Ok(None);
        };
        if place.digest != message.digest() {
            return Err(Refusal::IdempotencyConflict);
        }
        Ok(Some(Placed {
            conversation,
            seq: place.seq,
            ts_ms: place.ts_ms,
            duplicate: true,
        }))
    }

    /// What a QoS 2 publish that comes again was stored as, if it was: its result is settled, whatever the sender may do now.
    ///
    /// # Errors
    /// The store's, and [`Refusal::Held`] if it is held.
    pub(crate) async fn exchanged_before(
        &self,
        actor: Actor,
        target: &Target,
        message: &Message,
    ) -> Result<Option<Placed>, Refusal> {
        let Some(packet_id) = message.exchange else {
            return Ok(None);
        };
        let Some(found) = self.store.exchange(actor.device, packet_id).await? else {
            return Ok(None);
        };
        // A handle that names nobody any more named whom it was sent to.
        let conversation = self.conversation_of(actor, target).await?;
        let is_same = found.place.digest == message.digest()
            && conversation.is_none_or(|conversation| conversation == found.conversation);
        if is_same && found.place.seq == Seq::ZERO {
            return Err(Refusal::Held(found.conversation));
        }
        Ok(is_same.then_some(Placed {
            conversation: found.conversation,
            seq: found.place.seq,
            ts_ms: found.place.ts_ms,
            duplicate: true,
        }))
    }

    /// Where this goes, whether or not the sender may write there.
    async fn conversation_of(
        &self,
        actor: Actor,
        target: &Target,
    ) -> Result<Option<ConversationId>, StoreError> {
        let other = match target {
            Target::Conversation(id) => return Ok(Some(*id)),
            Target::Me => Some(actor.user),
            Target::User(other) => Some(*other),
            Target::Handle(handle) => self.names.user(handle).await?,
        };
        Ok(other.map(|other| ConversationId::direct(actor.user, other)))
    }

    async fn judge_again(&self, actor: Actor, mut judged: Judged) -> Result<Judged, Refusal> {
        let Ground {
            conversation,
            basis,
            peer,
            changes,
            slow_ms,
            ..
        } = self.ground(actor.user, &judged.target).await?;
        judged.draft = Draft {
            conversation,
            basis,
            peer,
            slow_ms,
            changes,
            ..judged.draft
        };
        Ok(judged)
    }

    /// The message that is quoted and the root of the thread, if these are messages that the sender may see.
    async fn references(
        &self,
        user: UserId,
        ground: &Ground,
        message: &Message,
    ) -> Result<(Option<Seq>, Option<Seq>), Refusal> {
        if message.reply_to.is_none() && message.thread.is_none() {
            return Ok((None, None));
        }
        let id = ground.conversation;
        let (_, sight) = self.seen(user, id).await?;
        let mut root = None;
        if let Some(seq) = message.reply_to {
            root = self.message(&sight, id, seq).await?.thread;
        }
        if let Some(seq) = message.thread {
            let member = self.message(&sight, id, seq).await?;
            root = Some(member.thread.unwrap_or(member.seq));
        }
        Ok((message.reply_to, root))
    }

    async fn ground(&self, user: UserId, target: &Target) -> Result<Ground, Refusal> {
        let other = match target {
            Target::Conversation(id) => return self.ground_of(user, *id).await,
            Target::Me => user,
            Target::User(other) => *other,
            Target::Handle(handle) => self
                .names
                .user(handle)
                .await?
                .ok_or(Refusal::NotFound(Cow::Borrowed("no such user")))?,
        };
        let id = ConversationId::direct(user, other);
        if let Some(live) = self.conversations.load(id).await?
            && let Some(sight) = live.sight(user)
        {
            return Ok(Ground::of(&live, &sight));
        }
        self.check_person(other).await?;
        self.check_conversations(user).await?;
        Ok(Ground {
            conversation: id,
            basis: Basis::Create,
            changes: direct_members(user, other),
            peer: Some(other).filter(|other| *other != user),
            ttl_s: 0,
            slow_ms: 0,
        })
    }

    async fn ground_of(&self, user: UserId, id: ConversationId) -> Result<Ground, Refusal> {
        let (live, sight) = self.seen(user, id).await?;
        permit(id, &sight, Action::Send)?;
        Ok(Ground::of(&live, &sight))
    }

    /// Appends judged drafts of one connection, in order. Drafts whose membership moved meanwhile are judged again, in
    /// order, before this returns.
    pub async fn append(&self, actor: Actor, judged: Vec<Judged>) -> Vec<Result<Placed, Refusal>> {
        const TRIES: usize = 32;
        let mut results: Vec<Option<Result<Placed, Refusal>>> =
            judged.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Judged)> = Vec::with_capacity(judged.len());
        for (index, judged) in judged.into_iter().enumerate() {
            if !judged.reopens {
                open.push((index, judged));
                continue;
            }
            match self.reopened(actor, judged).await {
                Ok(judged) => open.push((index, judged)),
                Err(refusal) => set(&mut results, index, Err(refusal)),
            }
        }
        for _ in 0..TRIES {
            if open.is_empty() {
                break;
            }
            let mut rest = open.split_off(same_basis(&open));
            let batch = open
                .iter()
                .map(|(_, judged)| judged.draft.clone())
                .collect();
            let outcomes = match self.store.append(batch).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    for (index, _) in open.drain(..).chain(rest) {
                        set(&mut results, index, Err(Refusal::Store(error.clone())));
                    }
                    break;
                }
            };
            let mut again = Vec::new();
            for ((index, judged), outcome) in open.into_iter().zip(outcomes) {
                match placed(&judged.draft, outcome) {
                    Some(result) => {
                        self.follow_own(&judged.draft, Some(outcome));
                        set(&mut results, index, result);
                    }
                    None => match self.moved(actor, judged).await {
                        Ok(judged) => again.push((index, judged)),
                        Err(refusal) => set(&mut results, index, Err(refusal)),
                    },
                }
            }
            again.append(&mut rest);
            open = again;
        }
        results
            .into_iter()
            .map(|result| result.unwrap_or(Err(Refusal::BUSY)))
            .collect()
    }

    /// Who has an ack must find what it tells of: the feed may be behind.
    pub(super) fn follow_own(&self, draft: &Draft, outcome: Option<Outcome>) {
        let (last, hidden_from) = match outcome {
            Some(Outcome::Stored {
                seq,
                mseq,
                ts_ms,
                hidden_from,
            }) => ((seq, mseq, ts_ms), hidden_from),
            Some(Outcome::Duplicate { seq, ts_ms }) => ((seq, 0, ts_ms), None),
            Some(Outcome::Silent { .. }) => return self.readers_changed(draft),
            _ => return,
        };
        if draft.conversation.kind() == ConversationKind::Broadcast {
            self.broadcast.notify_one();
        }
        self.readers_changed(draft);
        if let Some(live) = self.conversations.in_memory(draft.conversation) {
            let members_changed = draft.basis != Basis::Create && !draft.changes.is_empty();
            live.stored(last, hidden_from, members_changed);
        }
    }

    /// The membership moved under a draft: the feed may not have told us yet, so wait for it before judging again.
    async fn moved(&self, actor: Actor, judged: Judged) -> Result<Judged, Refusal> {
        if let Some(live) = self.conversations.in_memory(judged.draft.conversation) {
            live.invalidate();
        }
        self.judge_again(actor, judged).await
    }
}

/// How many drafts from the first one rest on one membership of each conversation. What comes behind waits: an earlier
/// one of the same conversation could be sent back while it is stored.
fn same_basis(open: &[(usize, Judged)]) -> usize {
    let mut bases: Vec<(ConversationId, Basis)> = Vec::new();
    let differs = open.iter().position(|(_, judged)| {
        let (id, basis) = (judged.draft.conversation, judged.draft.basis);
        if let Some((_, known)) = bases.iter().find(|(known, _)| *known == id) {
            *known != basis
        } else {
            bases.push((id, basis));
            false
        }
    });
    differs.unwrap_or(open.len())
}

fn set(
    results: &mut [Option<Result<Placed, Refusal>>],
    index: usize,
    result: Result<Placed, Refusal>,
) {
    if let Some(place) = results.get_mut(index) {
        *place = Some(result);
    }
}

/// `None`: to be judged again.
pub(super) fn placed(draft: &Draft, outcome: Outcome) -> Option<Result<Placed, Refusal>> {
    Some(match outcome {
        Outcome::Stored { seq, ts_ms, .. } | Outcome::Silent { seq, ts_ms } => Ok(Placed {
            conversation: draft.conversation,
            seq,
            ts_ms,
            duplicate: false,
        }),
        Outcome::Duplicate { seq, ts_ms } => Ok(Placed {
            conversation: draft.conversation,
            seq,
            ts_ms,
            duplicate: true,
        }),
        Outcome::Conflict => Err(Refusal::IdempotencyConflict),
        Outcome::MembersMoved => return None,
        Outcome::Rescheduled => Err(Refusal::BUSY),
        Outcome::Held => Err(Refusal::Held(draft.conversation)),
        Outcome::NotHeld => Err(super::moderation::NOT_HELD),
        Outcome::Refused(refused) => Err(super::acts::refusal(refused)),
        Outcome::Banned => Err(super::bans::BANNED),
        Outcome::Void => Err(super::inviting::MISS),
        Outcome::TooSoon { retry_ms } => Err(Refusal::Rate { retry_ms }),
    })
}

/// The two (or one, with oneself) with whom a direct conversation is made.
fn direct_members(user: UserId, other: UserId) -> Vec<Change> {
    let join = |user| Change::Join {
        user,
        role: Role::Member,
        history_from: Some(Seq::new(1)),
    };
    if user == other {
        vec![join(user)]
    } else {
        vec![join(user), join(other)]
    }
}
