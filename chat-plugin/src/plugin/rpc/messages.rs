//! Calls that send messages and act on them.

use std::sync::Arc;

use proto::ids::{MessageId, Seq, UserId};
use proto::payload;
use proto::topics::Target;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::wire::Changed;
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::overlay::React;
use crate::plugin::ChatPlugin;
use crate::plugin::acts::Written;
use crate::plugin::peer::Peer;
use crate::render::Line;
use crate::service::acts::Acting;
use crate::service::membership::Request;
use crate::service::mentions::Ended;
use crate::service::send::Message;
use crate::service::{Placed, Refusal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Send {
    cid: Target,
    t: Option<String>,
    m: Option<Box<RawValue>>,
    mid: Option<MessageId>,
    reply_to: Option<Seq>,
    thread: Option<Seq>,
    ttl_s: Option<u32>,
    at: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    cid: Target,
    seq: Seq,
    t: Option<String>,
    m: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum For {
    All,
    Me,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    cid: Target,
    seq: Seq,
    r#for: For,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Add,
    Remove,
    Clear,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskReact {
    cid: Target,
    seq: Seq,
    emoji: Option<Box<str>>,
    op: Option<Op>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskPin {
    cid: Target,
    seq: Seq,
    #[serde(default)]
    pinned: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskReport {
    cid: Target,
    seq: Seq,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskReactions {
    cid: Target,
    seq: Seq,
    after: Option<UserId>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskMentions {
    cid: Option<Target>,
    next: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct MentionsPage {
    mentions: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ReactionsPage {
    reactions: Vec<UserReactions>,
    more: bool,
}

#[derive(Serialize)]
struct UserReactions {
    uid: UserId,
    emoji: Vec<Box<str>>,
}

#[derive(Serialize)]
pub(super) struct Pins {
    pins: Vec<PinReply>,
}

#[derive(Serialize)]
struct PinReply {
    seq: Seq,
    by: UserId,
    ts: u64,
}

impl ChatPlugin {
    pub(super) async fn msg_send(
        &self,
        peer: &Peer,
        request: Request,
        asked: Send,
    ) -> Result<Changed, Refusal> {
        let written = self.body(asked.t.as_deref(), asked.m.as_deref())?;
        let agreed = |asked: Option<Seq>, in_body: Option<Seq>| match (asked, in_body) {
            (Some(asked), Some(in_body)) if asked != in_body => {
                Err(Refusal::format("two messages to refer to that differ"))
            }
            (asked, in_body) => Ok(asked.or(in_body)),
        };
        let mid = asked.mid.or(written.mid);
        let message = Message {
            mid: mid.unwrap_or(request.id),
            has_own_mid: true,
            content: written.content,
            reply_to: agreed(asked.reply_to, written.reply_to)?,
            thread: agreed(asked.thread, written.thread)?,
            ttl_s: asked.ttl_s.or(written.ttl_s),
            at_ms: asked.at.or(written.at_ms),
            exchange: None,
        };
        if let Some(at_ms) = message.at_ms.filter(|at| *at > crate::clock::now_ms()) {
            let arranged = self.service.schedule(peer.actor, asked.cid, message, at_ms);
            return arranged.await.map(Changed::from);
        }
        let judged = self
            .service
            .judge(peer.actor, asked.cid.clone(), message.clone())
            .await;
        let judged = match judged {
            Ok(judged) => judged,
            Err(refusal @ (Refusal::Forbidden(_) | Refusal::NotFound(_))) => {
                let before = self.service.stored_before(peer.actor, &asked.cid, &message);
                return before.await?.map(Changed::from).ok_or(refusal);
            }
            Err(Refusal::Held(cid)) => return Ok(Changed::held(cid)),
            Err(refusal) => return Err(refusal),
        };
        let mut results = self.service.append(peer.actor, vec![judged]).await;
        match results.pop().unwrap_or(Err(Refusal::BUSY)) {
            Err(Refusal::Held(cid)) => Ok(Changed::held(cid)), // it was, and a moderator has rejected it
            placed => placed.map(Changed::from),
        }
    }

    pub(super) async fn msg_edit(
        &self,
        peer: &Peer,
        request: Request,
        asked: Edit,
    ) -> Result<Changed, Refusal> {
        let Written { content, at_ms, .. } = self.body(asked.t.as_deref(), asked.m.as_deref())?;
        if at_ms.is_some() {
            return Err(Refusal::format("an edit does not wait for a time"));
        }
        let acting = self.acting_in(peer, request, &asked.cid, asked.seq).await?;
        let place = self.service.edit(&acting, content).await?;
        Ok(Changed::from(place))
    }

    pub(super) async fn msg_delete(
        &self,
        peer: &Peer,
        request: Request,
        asked: Delete,
    ) -> Result<Changed, Refusal> {
        let acting = self.acting_in(peer, request, &asked.cid, asked.seq).await?;
        let place = match asked.r#for {
            For::All => self.service.delete(&acting).await?,
            For::Me => self.service.hide(&acting).await.map(|()| None)?,
        };
        Ok(acted(&acting, place))
    }

    pub(super) async fn msg_react(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskReact,
    ) -> Result<Changed, Refusal> {
        let react = match (asked.op.unwrap_or(Op::Add), asked.emoji) {
            (Op::Add, Some(emoji)) => React::Add(emoji),
            (Op::Remove, Some(emoji)) => React::Remove(emoji),
            (Op::Clear, None) => React::Clear,
            _ => return Err(Refusal::format("an emoji to add or remove, none to clear")),
        };
        let acting = self.acting_in(peer, request, &asked.cid, asked.seq).await?;
        let place = self.service.react(&acting, react).await?;
        Ok(acted(&acting, place))
    }

    pub(super) async fn msg_pin(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskPin,
    ) -> Result<Changed, Refusal> {
        let acting = self.acting_in(peer, request, &asked.cid, asked.seq).await?;
        let place = self.service.pin(&acting, asked.pinned).await?;
        Ok(acted(&acting, place))
    }

    pub(super) async fn msg_report(
        &self,
        peer: &Peer,
        request: Request,
        asked: AskReport,
    ) -> Result<Changed, Refusal> {
        let acting = self.acting_in(peer, request, &asked.cid, asked.seq).await?;
        self.service.report(&acting, &asked.text).await?;
        Ok(acted(&acting, None))
    }

    pub(super) async fn msg_pins(
        &self,
        peer: &Peer,
        asked: super::wire::Get,
    ) -> Result<Pins, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let pins = self.service.pins(peer.actor, cid).await?;
        Self::charge(peer, pins.len() / LISTED_PER_TOKEN);
        let pins = pins.into_iter().map(|pin| PinReply {
            seq: pin.seq,
            by: pin.by,
            ts: pin.ts_ms,
        });
        Ok(Pins {
            pins: pins.collect(),
        })
    }

    pub(super) async fn msg_reactions(
        &self,
        peer: &Peer,
        asked: AskReactions,
    ) -> Result<ReactionsPage, Refusal> {
        // A user has at most eight, of 64 bytes, which JSON may lengthen.
        const USER_BYTES: usize = 2_048;
        let cid = self.cid(peer, &asked.cid).await?;
        let room = (room_of(peer) / USER_BYTES).max(1);
        let limit = asked.limit.unwrap_or(100).clamp(1, 500).min(room);
        let page = (asked.after, limit + 1);
        let mut found = self
            .service
            .reactions(peer.actor, (cid, asked.seq), page)
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Self::charge(peer, found.len() / LISTED_PER_TOKEN);
        let reactions = found
            .into_iter()
            .map(|(uid, emoji)| UserReactions { uid, emoji });
        Ok(ReactionsPage {
            reactions: reactions.collect(),
            more,
        })
    }

    pub(super) async fn msg_mentions(
        &self,
        peer: &Peer,
        asked: AskMentions,
    ) -> Result<MentionsPage, Refusal> {
        let cid = match &asked.cid {
            Some(cid) => Some(self.cid(peer, cid).await?),
            None => None,
        };
        let from = asked.next.as_deref().map(parse_ended).transpose()?;
        // JSON may lengthen a text.
        let size = (asked.limit.unwrap_or(50), room_of(peer) / 2);
        let page = self.service.mentions(peer.actor, cid, from, size).await?;
        Self::charge(peer, page.looked_at + page.list.len() / LISTED_PER_TOKEN);
        let mut mentions = Vec::with_capacity(page.list.len());
        for (entry, handle) in page.list {
            let line = Line::new(Arc::new(entry), handle).to_json(&[]);
            let line = RawValue::from_string(line);
            mentions.push(line.map_err(|error| Refusal::format(error.to_string()))?);
        }
        let next = page.next.map(|(id, seq)| format!("{id}:{seq}"));
        Ok(MentionsPage { mentions, next })
    }

    /// A body as `t` or `m`.
    pub(super) fn body(&self, t: Option<&str>, m: Option<&RawValue>) -> Result<Written, Refusal> {
        let (content_type, bytes) = match (t, m) {
            (Some(text), None) => (payload::TEXT, text.as_bytes()),
            (None, Some(json)) => (payload::JSON, json.get().as_bytes()),
            _ => return Err(Refusal::format("a body as t or as m")),
        };
        self.written(Some(content_type), bytes)
    }

    async fn acting_in(
        &self,
        peer: &Peer,
        request: Request,
        cid: &Target,
        seq: Seq,
    ) -> Result<Acting, Refusal> {
        Ok(Acting {
            actor: peer.actor,
            conversation: self.cid(peer, cid).await?,
            seq,
            mid: request.id,
            has_own_mid: true,
            exchange: None,
        })
    }
}

/// Where a page ended, as it told it.
fn parse_ended(text: &str) -> Result<Ended, Refusal> {
    let parse = || {
        let (id, seq) = text.split_once(':')?;
        Some((id.parse().ok()?, Seq::new(seq.parse().ok()?)))
    };
    parse().ok_or_else(|| Refusal::format("next must be what the page before said"))
}

fn acted(acting: &Acting, place: Option<Placed>) -> Changed {
    place.map_or(
        Changed {
            cid: acting.conversation,
            seq: None,
            dup: false,
            at: None,
            held: false,
        },
        Changed::from,
    )
}
