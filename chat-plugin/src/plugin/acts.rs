//! What is published to `chat/c/{cid}/m/{seq}/…`, but for replies, which are messages.

use broker::codec::packet::{PacketId, Publish, Qos};
use bytes::Bytes;
use proto::ids::{ConversationId, IdError, MessageId, Seq};
use proto::payload;
use proto::quote::quoted;
use proto::topics::MessageAction;

use super::ChatPlugin;
use super::ingest::property;
use super::peer::Peer;
use crate::domain::entry::BodyFormat;
use crate::domain::overlay::React;
use crate::service::acts::Acting;
use crate::service::{Content, Placed, Refusal};

/// What somebody wrote, and what the server reads of it.
pub(super) struct Written {
    /// Its body is in memory of its own: a slice would keep the whole buffer that it was read into.
    pub(super) content: Content,
    pub(super) mid: Option<MessageId>,
    pub(super) reply_to: Option<Seq>,
    pub(super) thread: Option<Seq>,
    pub(super) ttl_s: Option<u32>,
    pub(super) at_ms: Option<u64>,
}

impl ChatPlugin {
    /// Does it. `None`: done, and no entry was stored for it.
    pub(super) async fn act(
        &self,
        acting: Acting,
        action: MessageAction,
        publish: &Publish,
    ) -> Result<Option<Placed>, Refusal> {
        self.service.check_seen(&acting).await?;
        match action {
            MessageAction::Edit => {
                let written = self.written_in(publish)?;
                if written.mid.is_some_and(|mid| mid != acting.mid) {
                    return Err(Refusal::format("two message ids that differ"));
                }
                if written.at_ms.is_some() {
                    return Err(Refusal::format("an edit does not wait for a time"));
                }
                let edited = self.service.edit(&acting, written.content);
                edited.await.map(Some)
            }
            MessageAction::Delete => match text(publish)? {
                "all" => self.service.delete(&acting).await,
                "me" => self.service.hide(&acting).await.map(|()| None),
                _ => Err(Refusal::format("all or me is wanted")),
            },
            MessageAction::React => {
                let react = match text(publish)? {
                    "" => React::Clear,
                    emoji => match emoji.strip_prefix('-') {
                        Some(emoji) => React::Remove(emoji.into()),
                        None => React::Add(emoji.into()),
                    },
                };
                self.service.react(&acting, react).await
            }
            MessageAction::Pin => match text(publish)? {
                "1" => self.service.pin(&acting, true).await,
                "0" => self.service.pin(&acting, false).await,
                _ => Err(Refusal::format("1 or 0 is wanted")),
            },
            MessageAction::Report => {
                let report = self.service.report(&acting, text(publish)?);
                report.await.map(|()| None)
            }
            MessageAction::Reply | MessageAction::Thread => {
                Err(Refusal::format("a reply is a message"))
            }
        }
    }

    /// Who acts, and under which id: from the user property, from the body of an edit, or a new one.
    pub(super) fn acting(
        &self,
        peer: &Peer,
        (conversation, seq): (ConversationId, Seq),
        action: MessageAction,
        publish: &Publish,
    ) -> Result<Acting, Refusal> {
        let mut own = mid_property(publish)?;
        if own.is_none() && action == MessageAction::Edit {
            own = self.written_in(publish)?.mid;
        }
        let has_own_mid = own.is_some();
        let mid = match own {
            Some(mid) => mid,
            None => crate::service::new_mid()?,
        };
        Ok(Acting {
            actor: peer.actor,
            conversation,
            seq,
            mid,
            has_own_mid,
            exchange: exchange(peer, publish),
        })
    }

    /// Looks at the payload of a publish.
    pub(super) fn written_in(&self, publish: &Publish) -> Result<Written, Refusal> {
        let content_type = publish.properties.content_type.as_deref();
        self.written(content_type, &publish.payload)
    }

    /// Looks at a body.
    pub(super) fn written(
        &self,
        content_type: Option<&str>,
        payload: &[u8],
    ) -> Result<Written, Refusal> {
        let body = payload::classify(content_type, payload, &self.payload_limits)
            .map_err(|error| Refusal::format(error.to_string()))?;
        let format = match body {
            payload::Body::Text(_) => BodyFormat::Text,
            payload::Body::Json(..) => BodyFormat::Json,
            payload::Body::Protobuf(..) => BodyFormat::Protobuf,
        };
        let message = body.message();
        let ttl_s = message.and_then(|message| message.ttl_s);
        Ok(Written {
            content: Content {
                format,
                body: Bytes::copy_from_slice(body.bytes()),
                opaque: message.is_some_and(|message| !message.opaque.is_empty()),
                mentions: body.mentions(),
            },
            mid: body.mid(),
            reply_to: message.and_then(|message| message.reply_to).map(Seq::new),
            thread: message.and_then(|message| message.thread).map(Seq::new),
            at_ms: message.and_then(|message| message.at),
            ttl_s: ttl_s.map(|ttl_s| u32::try_from(ttl_s).unwrap_or(u32::MAX)),
        })
    }
}

/// The message id in the user property `mid`.
pub(super) fn mid_property(publish: &Publish) -> Result<Option<MessageId>, Refusal> {
    let mid = property(publish, "mid").map(|mid| {
        let bad = |error: IdError| Refusal::format(format!("{error}: {}", quoted(mid)));
        mid.parse::<MessageId>().map_err(bad)
    });
    mid.transpose()
}

/// The QoS 2 exchange of a device whose exchanges are kept.
pub(super) fn exchange(peer: &Peer, publish: &Publish) -> Option<u16> {
    let is_exchange = publish.qos == Qos::ExactlyOnce && peer.sessions.exchanges;
    publish.packet_id.filter(|_| is_exchange).map(PacketId::get)
}

fn text(publish: &Publish) -> Result<&str, Refusal> {
    std::str::from_utf8(publish.payload.trim_ascii())
        .map_err(|_| Refusal::format("text must be UTF-8"))
}
