//! What members do to messages that are there: edit, delete, hide, react, pin, report.

use std::borrow::Cow;

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId, digest16};
use proto::payload::PollTerms;
use serde_json::json;

use super::send::placed;
use super::{Actor, Content, Placed, Refusal, Service, UNSEEN, permit};
use crate::conversations::{Loaded, Sight};
use crate::domain::entry::{Basis, BodyFormat, Draft, Entry, EntryKind, Mentioned, Outcome};
use crate::domain::overlay::{
    Act, ActRefused, EMOJI_BYTES_MAX, HiddenBy, Pin, REPORT_BYTES_MAX, React, Reactions, Report,
    VOTE,
};
use crate::domain::permission::Action;
use crate::store::{PageRange, StoreError};

/// Users in one page of reactions.
const REACTIONS_MAX: usize = 501;

/// Who acts on which message, and under which id.
#[derive(Clone, Debug)]
pub struct Acting {
    /// Who.
    pub actor: Actor,
    /// In which conversation.
    pub conversation: ConversationId,
    /// On which message.
    pub seq: Seq,
    /// Key of idempotency.
    pub mid: MessageId,
    /// The actor chose it.
    pub has_own_mid: bool,
    /// Packet identifier of a QoS 2 exchange of a known device.
    pub exchange: Option<u16>,
}

/// The entry that tells of an act, and the act.
struct Deed {
    kind: EntryKind,
    act: Act,
    format: BodyFormat,
    body: Bytes,
    opaque: bool,
    mentions: Mentioned,
}

impl Deed {
    fn system(kind: EntryKind, act: Act, body: &serde_json::Value) -> Self {
        Self {
            kind,
            act,
            format: BodyFormat::Json,
            body: Bytes::from(body.to_string()),
            opaque: false,
            mentions: Mentioned::default(),
        }
    }
}

impl Acting {
    /// What makes this act this act; also its id, unless each attempt gets another one.
    fn digest(&self, deed: &Deed) -> [u8; 16] {
        let mid = if self.has_own_mid {
            self.mid.as_str().as_bytes()
        } else {
            b""
        };
        digest16(&[
            b"act",
            &[deed.kind.to_byte(), deed.format.to_byte()],
            &self.seq.get().to_be_bytes(),
            &deed.body,
            mid,
        ])
    }
}

impl Service {
    /// Gives one's own message another body.
    ///
    /// # Errors
    /// [`Refusal::EditClosed`] if it is too late; why not otherwise.
    pub async fn edit(&self, acting: &Acting, content: Content) -> Result<Placed, Refusal> {
        let user = acting.actor.user;
        let mentions = self
            .mentioned(user, acting.conversation, &content.mentions)
            .await?;
        let window_ms = u64::from(self.config.edit_window_s) * 1_000;
        let deed = Deed {
            kind: EntryKind::Edit,
            act: Act::Edit,
            format: content.format,
            body: content.body,
            opaque: content.opaque,
            mentions,
        };
        let placed = self
            .act(acting, deed, |sight, message| {
                if message.from != user {
                    return Err(Refusal::Forbidden("only its sender edits a message"));
                }
                if acting.conversation.kind() == ConversationKind::Broadcast {
                    return Err(Refusal::Forbidden(
                        "what was sent to a broadcast list is not edited",
                    ));
                }
                permit(acting.conversation, sight, Action::Send)?;
                within(window_ms, message, "it is too late to edit this message")
            })
            .await?;
        placed.ok_or(Refusal::BUSY)
    }

    /// Deletes a message for everybody. `None`: it was deleted before.
    ///
    /// # Errors
    /// Why not.
    pub async fn delete(&self, acting: &Acting) -> Result<Option<Placed>, Refusal> {
        let user = acting.actor.user;
        let window_ms = u64::from(self.config.delete_window_s) * 1_000;
        let body = json!({"target": acting.seq});
        let deed = Deed::system(EntryKind::Deleted, Act::Delete, &body);
        self.act(acting, deed, |sight, message| {
            if permit(acting.conversation, sight, Action::DeleteOthers).is_ok() {
                return Ok(());
            }
            if message.from != user {
                return Err(Refusal::Forbidden(
                    "only its sender and moderators delete a message",
                ));
            }
            within(window_ms, message, "it is too late to delete this message")
        })
        .await
    }

    /// Deletes what a broadcast list brought, as its message was. `None`: it was deleted before.
    pub(super) async fn delete_copy(&self, acting: &Acting) -> Result<Option<Placed>, Refusal> {
        let body = json!({"target": acting.seq});
        let deed = Deed::system(EntryKind::Deleted, Act::Delete, &body);
        self.act(acting, deed, |_, _| Ok(())).await
    }

    /// Changes one's reactions to a message. `None`: they were so before.
    ///
    /// # Errors
    /// [`Refusal::Format`] for what is no emoji; why not otherwise.
    pub async fn react(&self, acting: &Acting, react: React) -> Result<Option<Placed>, Refusal> {
        let is_vote = |emoji: &str| emoji.starts_with(VOTE);
        let may_vote = match &react {
            React::Add(emoji) | React::Choose(emoji) | React::Remove(emoji) => is_vote(emoji),
            React::Clear => true,
        };
        let poll = if may_vote {
            self.poll(acting).await
        } else {
            Ok(None)
        };
        let poll = match poll {
            Ok(poll) => poll,
            Err(refusal @ Refusal::Store(_)) => return Err(refusal),
            Err(_) => None, // judged below, where a retry is known
        };
        let react = match react {
            React::Add(emoji) if is_vote(&emoji) && poll.is_some_and(|poll| !poll.multiple) => {
                React::Choose(emoji)
            }
            react => react,
        };
        let (op, emoji) = match &react {
            React::Add(emoji) => ("add", Some(emoji)),
            React::Choose(emoji) => ("choose", Some(emoji)),
            React::Remove(emoji) => ("remove", Some(emoji)),
            React::Clear => ("clear", None),
        };
        let mut body = json!({"target": acting.seq, "op": op});
        if let Some(emoji) = emoji {
            check_emoji(emoji)?;
            body = json!({"target": acting.seq, "emoji": emoji, "op": op});
        }
        let choice = emoji.and_then(|emoji| emoji.strip_prefix(VOTE));
        let choice = choice.map(str::to_owned);
        let deed = Deed::system(EntryKind::Reaction, Act::React(react), &body);
        self.act(acting, deed, |sight, _| {
            permit(acting.conversation, sight, Action::React)?;
            poll.as_ref()
                .map_or(Ok(()), |poll| votes(poll, choice.as_deref()))
        })
        .await
    }

    /// What may be chosen, if the message is a poll.
    async fn poll(&self, acting: &Acting) -> Result<Option<PollTerms>, Refusal> {
        let (_, sight) = self.seen(acting.actor.user, acting.conversation).await?;
        let message = self
            .message(&sight, acting.conversation, acting.seq)
            .await?;
        let body = super::looked_at(message.format, &message.body);
        Ok(body.and_then(|body| body.poll()))
    }

    /// Pins a message, or unpins it. `None`: it was so before.
    ///
    /// # Errors
    /// Why not.
    pub async fn pin(&self, acting: &Acting, pinned: bool) -> Result<Option<Placed>, Refusal> {
        let body = json!({"target": acting.seq, "pinned": pinned});
        let deed = Deed::system(EntryKind::Pin, Act::Pin(pinned), &body);
        let may = |sight: &Sight, _: &Entry| permit(acting.conversation, sight, Action::Pin);
        self.act(acting, deed, may).await
    }

    /// Can the actor see the conversation at all? Asked before anything else is said.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if not.
    pub async fn check_seen(&self, acting: &Acting) -> Result<(), Refusal> {
        self.seen(acting.actor.user, acting.conversation).await?;
        Ok(())
    }

    /// Hides an entry from the actor, on all devices, for ever.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see it.
    pub async fn hide(&self, acting: &Acting) -> Result<(), Refusal> {
        let user = acting.actor.user;
        let (live, sight) = self.seen(user, acting.conversation).await?;
        self.entry(&sight, acting.conversation, acting.seq).await?;
        let ts_ms = crate::clock::now_ms();
        live.hide(user, acting.seq); // an account sync between this and the commit must not miss it
        let hidden = self
            .store
            .hide(acting.conversation, acting.seq, user, ts_ms)
            .await?;
        if hidden {
            self.delivery.hide(&live, user, acting.seq);
        }
        Ok(())
    }

    /// Reports a message to those who run the server.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see it.
    pub async fn report(&self, acting: &Acting, text: &str) -> Result<(), Refusal> {
        if text.len() > REPORT_BYTES_MAX {
            return Err(Refusal::format(format!(
                "a report has at most {REPORT_BYTES_MAX} bytes"
            )));
        }
        let user = acting.actor.user;
        let (_, sight) = self.seen(user, acting.conversation).await?;
        self.entry(&sight, acting.conversation, acting.seq).await?;
        let report = Report {
            settled: false,
            ts_ms: crate::clock::now_ms(),
            by: user,
            mid: acting.mid.clone(),
            conversation: acting.conversation,
            seq: acting.seq,
            text: text.to_owned(),
        };
        if self.store.report(report).await? {
            return Ok(());
        }
        Err(Refusal::IdempotencyConflict)
    }

    /// The pinned messages of a conversation that this user may see.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see the conversation.
    pub async fn pins(&self, actor: Actor, id: ConversationId) -> Result<Vec<Pin>, Refusal> {
        let (live, _) = self.present(actor.user, id).await?;
        Ok(self.delivery.pins(actor.user, &live).await?)
    }

    /// Who reacted to a message, and with what: at most `limit` users after `after`, in the order of their ids.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see it.
    pub async fn reactions(
        &self,
        actor: Actor,
        (id, seq): (ConversationId, Seq),
        (after, limit): (Option<UserId>, usize),
    ) -> Result<Reactions, Refusal> {
        let (live, sight) = self.present(actor.user, id).await?;
        self.message(&sight, id, seq).await?;
        let limit = limit.clamp(1, REACTIONS_MAX);
        let mut reactions = self.store.reactions(id, seq, after, limit).await?;
        if live.blocks(actor.user) {
            reactions.retain(|(user, _)| *user == actor.user);
        }
        Ok(reactions)
    }

    /// An entry that this user may see.
    async fn entry(&self, sight: &Sight, id: ConversationId, seq: Seq) -> Result<Entry, Refusal> {
        const NO_MESSAGE: Refusal = Refusal::NotFound(Cow::Borrowed("no such message"));
        if !sight.member.sees(seq) || seq == Seq::ZERO {
            return Err(NO_MESSAGE);
        }
        let range = PageRange {
            from: seq,
            to: seq,
            newest: false,
            limit: 1,
            bytes: 1,
            as_of: Seq::MAX,
        };
        // What a block hides is not there, whatever it is.
        let (marks, user) = (sight.marks, sight.member.user);
        if id.kind() == ConversationKind::Direct && (marks.blocks || seq <= marks.hidden) {
            let hidden = self.store.hidden(id, user, vec![seq]).await?;
            if hidden.iter().any(|(_, by)| *by == HiddenBy::Block) {
                return Err(NO_MESSAGE);
            }
        }
        let mut found = self.store.page(id, range).await?;
        found.pop().ok_or(NO_MESSAGE)
    }

    /// A message that this user may see, and that is not gone.
    pub(super) async fn message(
        &self,
        sight: &Sight,
        id: ConversationId,
        seq: Seq,
    ) -> Result<Entry, Refusal> {
        let entry = self.entry(sight, id, seq).await?;
        if entry.kind != EntryKind::Message || entry.gone_at(crate::clock::now_ms()).is_some() {
            return Err(Refusal::NotFound(Cow::Borrowed("no such message")));
        }
        Ok(entry)
    }

    /// Judges an act on the membership of the moment and appends it, again when that moved meanwhile. A retry of one that
    /// was stored finds its place, whatever the actor may do now.
    async fn act(
        &self,
        acting: &Acting,
        deed: Deed,
        may: impl Fn(&Sight, &Entry) -> Result<(), Refusal>,
    ) -> Result<Option<Placed>, Refusal> {
        const TRIES: usize = 8;
        let digest = acting.digest(&deed);
        for _ in 0..TRIES {
            let judged = self.judge_act(acting, &deed, &may).await;
            let (live, version, message) = match judged {
                Ok(judged) => judged,
                Err(refusal @ Refusal::Store(_)) => return Err(refusal),
                Err(refusal) => {
                    let before = self.acted_before(acting, digest).await?;
                    return before.map(Some).ok_or(refusal);
                }
            };
            if message.gone.is_some() && message.source.is_none() {
                let before = self.acted_before(acting, digest).await?;
                return Ok(before); // it was deleted, and so it is
            }
            let mut draft = draft(acting, &deed, (version, digest), &message);
            draft.peer = live.peer(acting.actor.user);
            if deed.act == Act::Edit {
                self.check_content(&draft).await?;
            }
            let outcome = self.store.append(vec![draft.clone()]).await?.pop();
            if outcome == Some(Outcome::Refused(ActRefused::Unchanged)) {
                return Ok(None);
            }
            match outcome.and_then(|outcome| placed(&draft, outcome)) {
                Some(result) => {
                    self.follow_own(&draft, outcome);
                    let place = result?;
                    if deed.act == Act::Delete {
                        self.delivery.take_back(&live, &[acting.seq]);
                        self.handed_out_no_more(acting, place.duplicate).await?;
                    }
                    return Ok(Some(place));
                }
                None => live.invalidate(),
            }
        }
        Err(Refusal::BUSY)
    }

    /// What was deleted is in no memory any more when that is acknowledged. Nor is what a list has brought of it, also if the
    /// first attempt was cut off before.
    async fn handed_out_no_more(
        &self,
        acting: &Acting,
        is_repeated: bool,
    ) -> Result<(), StoreError> {
        let (list, seq) = (acting.conversation, acting.seq);
        let is_list = list.kind() == ConversationKind::Broadcast;
        if is_list || !is_repeated {
            self.delivery.catch_up().await;
        }
        if is_list {
            self.take_back(acting.actor.user, (list, seq)).await?;
        }
        Ok(())
    }

    async fn judge_act(
        &self,
        acting: &Acting,
        deed: &Deed,
        may: &impl Fn(&Sight, &Entry) -> Result<(), Refusal>,
    ) -> Result<(Loaded, u32, Entry), Refusal> {
        let (live, sight) = self.seen(acting.actor.user, acting.conversation).await?;
        let (id, seq) = (acting.conversation, acting.seq);
        let message = if deed.act == Act::Delete {
            // Also one that is gone: deleting it again is no mistake.
            let entry = self.entry(&sight, id, seq).await?;
            let is_message = entry.kind == EntryKind::Message;
            Some(entry)
                .filter(|_| is_message)
                .ok_or(Refusal::NotFound(Cow::Borrowed("no such message")))?
        } else {
            self.message(&sight, id, seq).await?
        };
        if !sight.member.is_present() {
            return Err(UNSEEN);
        }
        may(&sight, &message)?;
        // A deletion that a list brings was counted there, and is to come through.
        if message.source.is_none() || deed.act != Act::Delete {
            self.check_conversation_rate(id)?;
        }
        Ok((live, sight.version, message))
    }

    /// Where this act was stored, if it was.
    async fn acted_before(
        &self,
        acting: &Acting,
        digest: [u8; 16],
    ) -> Result<Option<Placed>, Refusal> {
        let placed = |seq, ts_ms| Placed {
            conversation: acting.conversation,
            seq,
            ts_ms,
            duplicate: true,
        };
        if let Some(packet_id) = acting.exchange
            && let Some(found) = self.store.exchange(acting.actor.device, packet_id).await?
            && found.conversation == acting.conversation
            && found.place.digest == digest
        {
            return Ok(Some(placed(found.place.seq, found.place.ts_ms)));
        }
        if !acting.has_own_mid {
            return Ok(None);
        }
        let (id, user) = (acting.conversation, acting.actor.user);
        match self.store.place_of(id, user, &acting.mid).await? {
            Some(place) if place.digest == digest => Ok(Some(placed(place.seq, place.ts_ms))),
            Some(_) => Err(Refusal::IdempotencyConflict),
            None => Ok(None),
        }
    }

    /// When a message with this time to live is over, in a conversation with that one; 0 and `None`: never.
    pub(super) fn expiry(now_ms: u64, own_s: Option<u32>, conversation_s: u32) -> Option<u64> {
        let of_conversation = (conversation_s > 0).then_some(conversation_s);
        let shortest = own_s.into_iter().chain(of_conversation).min()?;
        Some(now_ms.saturating_add(u64::from(shortest) * 1_000))
    }
}

fn draft(
    acting: &Acting,
    deed: &Deed,
    (version, digest): (u32, [u8; 16]),
    message: &Entry,
) -> Draft {
    let is_edit = deed.act == Act::Edit;
    let of_other = deed.act == Act::Delete && message.from != acting.actor.user;
    let noted = || {
        let about = (acting.conversation, Some(message.from));
        let detail = json!({"seq": acting.seq});
        acting.actor.noted("msg.delete", about, &detail)
    };
    Draft {
        conversation: acting.conversation,
        basis: Basis::Version(version),
        from: acting.actor.user,
        peer: None,
        device: acting.actor.device,
        mid: acting.mid.clone(),
        digest,
        ts_ms: crate::clock::now_ms(),
        kind: deed.kind,
        format: deed.format,
        opaque: deed.opaque,
        body: deed.body.clone(),
        target: Some(acting.seq),
        thread: None,
        // An edit lasts no longer than what it edits.
        expires_ms: message.expires_ms.filter(|_| is_edit),
        mentions: deed.mentions.clone(),
        source: None,
        scheduled: None,
        was_held: false,
        act: Some(deed.act.clone()),
        slow_ms: 0,
        exchange: acting
            .exchange
            .map(|packet_id| (acting.actor.device, packet_id)),
        changes: Vec::new(),
        audit: of_other.then(noted).flatten(),
    }
}

/// What a client is told when the store could not do an act.
pub(super) fn refusal(refused: ActRefused) -> Refusal {
    match refused {
        ActRefused::NoTarget => Refusal::NotFound(Cow::Borrowed("no such message")),
        ActRefused::Unchanged | ActRefused::Full => {
            Refusal::Limit("as many as one message or conversation may have")
        }
    }
}

/// Is this a choice that the poll offers, at this time? `None`: all are withdrawn.
fn votes(poll: &PollTerms, choice: Option<&str>) -> Result<(), Refusal> {
    if poll
        .closes
        .is_some_and(|closes| closes <= crate::clock::now_ms())
    {
        return Err(Refusal::EditClosed("the poll is closed"));
    }
    let offered = |choice: &str| (1..=poll.options).any(|number| number.to_string() == choice);
    if choice.is_none_or(offered) {
        return Ok(());
    }
    Err(Refusal::format("the poll has no such answer"))
}

/// Is a message young enough? A window of 0 never closes.
fn within(window_ms: u64, message: &Entry, late: &'static str) -> Result<(), Refusal> {
    let age_ms = crate::clock::now_ms().saturating_sub(message.ts_ms);
    if window_ms > 0 && age_ms > window_ms {
        return Err(Refusal::EditClosed(late));
    }
    Ok(())
}

/// One emoji, or a short text in its place: nothing that breaks a line or hides.
fn check_emoji(emoji: &str) -> Result<(), Refusal> {
    let is_hidden = |c: char| c.is_control() || c.is_whitespace();
    let is_long = emoji.len() > EMOJI_BYTES_MAX;
    if emoji.is_empty() || is_long || emoji.starts_with('-') || emoji.contains(is_hidden) {
        return Err(Refusal::format(format!(
            "a reaction is one emoji of at most {EMOJI_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_to_live_counts() {
        assert_eq!(Service::expiry(1_000, None, 0), None);
        assert_eq!(Service::expiry(1_000, Some(2), 0), Some(3_000));
        assert_eq!(Service::expiry(1_000, Some(9), 5), Some(6_000));
        assert_eq!(Service::expiry(1_000, Some(0), 5), Some(1_000));
    }

    #[test]
    fn a_reaction_is_short_and_visible() {
        for good in ["👍", "👩‍👩‍👧‍👦", "❤️", "+1", ":tada:"] {
            assert!(check_emoji(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", "a b", "a\n", "\u{1b}", &"x".repeat(65)] {
            assert!(check_emoji(bad).is_err(), "{bad:?}");
        }
    }
}
