//! Calls about messages that wait for their time.

use proto::error::ErrorName;
use proto::ids::{ConversationId, MessageId, Seq};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::wire::Changed;
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::entry::BodyFormat;
use crate::domain::scheduled::Scheduled;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::scheduled::{Arranged, Rearranged};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskScheduled {
    after: Option<MessageId>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reschedule {
    mid: MessageId,
    at: Option<u64>,
    t: Option<String>,
    m: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unschedule {
    mid: MessageId,
}

#[derive(Serialize)]
pub(super) struct ScheduledPage {
    scheduled: Vec<ScheduledMessage>,
    more: bool,
}

#[derive(Serialize)]
pub(super) struct Unscheduled {
    mid: MessageId,
    cancelled: bool,
}

#[derive(Serialize)]
pub(super) struct ScheduledMessage {
    mid: MessageId,
    at: u64,
    cid: ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_s: Option<u32>,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize)]
struct Failure {
    code: ErrorName,
    message: String,
}

impl TryFrom<Scheduled> for ScheduledMessage {
    type Error = Refusal;

    fn try_from(scheduled: Scheduled) -> Result<Self, Refusal> {
        let text = || String::from_utf8_lossy(&scheduled.body).into_owned();
        let (format, t, m) = match scheduled.format {
            BodyFormat::Text => ("text", Some(text()), None),
            BodyFormat::Json => ("json", None, Some(text())),
            BodyFormat::Protobuf => {
                let json = proto::payload::json_of(&scheduled.body);
                ("protobuf", None, Some(json))
            }
        };
        let m = m.map(RawValue::from_string).transpose();
        let failure = |(code, message)| Failure { code, message };
        Ok(Self {
            mid: scheduled.mid,
            at: scheduled.at_ms,
            cid: scheduled.conversation,
            reply_to: scheduled.reply_to,
            thread: scheduled.thread,
            ttl_s: scheduled.ttl_s,
            format,
            t,
            m: m.map_err(|error| Refusal::format(error.to_string()))?,
            error: scheduled.refused.map(failure),
        })
    }
}

impl From<Arranged> for Changed {
    fn from(arranged: Arranged) -> Self {
        match arranged {
            Arranged::Sent(place) => place.into(),
            Arranged::Waits {
                conversation,
                at_ms,
                duplicate,
            } => Self {
                cid: conversation,
                seq: None,
                dup: duplicate,
                at: Some(at_ms),
                held: false,
            },
        }
    }
}

impl ChatPlugin {
    pub(super) async fn msg_scheduled(
        &self,
        peer: &Peer,
        asked: AskScheduled,
    ) -> Result<ScheduledPage, Refusal> {
        // JSON may lengthen a text.
        let size = (
            asked.limit.unwrap_or(16),
            (room_of(peer) / 2).min(128 * 1024),
        );
        let found = self.service.scheduled(peer.actor, asked.after, size);
        let (found, more) = found.await?;
        Self::charge(peer, found.len() / LISTED_PER_TOKEN);
        let scheduled = found.into_iter().map(ScheduledMessage::try_from);
        Ok(ScheduledPage {
            scheduled: scheduled.collect::<Result<_, _>>()?,
            more,
        })
    }

    pub(super) async fn msg_reschedule(
        &self,
        peer: &Peer,
        asked: Reschedule,
    ) -> Result<ScheduledMessage, Refusal> {
        let mut change = Rearranged {
            at_ms: asked.at,
            content: None,
        };
        if asked.t.is_some() || asked.m.is_some() {
            let written = self.body(asked.t.as_deref(), asked.m.as_deref())?;
            if written.mid.is_some_and(|mid| mid != asked.mid) {
                return Err(Refusal::format("two message ids that differ"));
            }
            if written.reply_to.is_some() || written.thread.is_some() || written.ttl_s.is_some() {
                return Err(Refusal::format(
                    "what it quotes, its thread and its time to live stay as they were",
                ));
            }
            change.at_ms = change.at_ms.or(written.at_ms);
            change.content = Some(written.content);
        }
        let changed = self.service.reschedule(peer.actor, &asked.mid, change);
        changed.await?.try_into()
    }

    pub(super) async fn msg_unschedule(
        &self,
        peer: &Peer,
        asked: Unschedule,
    ) -> Result<Unscheduled, Refusal> {
        let cancelled = self.service.unschedule(peer.actor, &asked.mid).await?;
        Ok(Unscheduled {
            mid: asked.mid,
            cancelled,
        })
    }
}
