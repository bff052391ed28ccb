//! The use cases of chat, one function each: domain and store, no MQTT.

pub mod acts;
mod audit;
pub mod bans;
pub mod broadcast;
pub mod channels;
pub mod contacts;
pub mod departure;
pub mod history;
pub mod inviting;
pub mod joining;
pub mod marks;
pub mod membership;
pub mod mentions;
pub mod moderation;
pub mod people;
pub(crate) mod privacy;
pub mod purge;
pub mod queues;
pub(crate) mod rates;
pub mod roles;
pub mod scheduled;
pub mod search;
pub mod send;
pub mod settings;
pub mod support;
pub mod sync;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::hooks::Peer;
use bytes::Bytes;
use proto::error::ErrorName;
use proto::ids::{ConversationId, DeviceId, MessageId, Seq, UserId};
use proto::payload::{self, Mention, PayloadLimits};
use tokio::sync::Notify;

use self::rates::UserRates;
use crate::config::Config;
use crate::conversations::{Conversations, Loaded, Sight};
use crate::delivery::Delivery;
use crate::domain::entry::BodyFormat;
use crate::domain::permission::{Action, allows};
use crate::filter::ContentFilter;
use crate::names::Names;
use crate::rate::{Buckets, take_all};
use crate::store::{ChatStore, StoreError};

/// Everything that the use cases need.
pub struct Service {
    pub(crate) store: Arc<dyn ChatStore>,
    pub(crate) conversations: Arc<Conversations>,
    pub(crate) names: Arc<Names>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) rates: UserRates,
    pub(crate) conversation_rates: Buckets<ConversationId>,
    pub(crate) filter: OnceLock<Arc<dyn ContentFilter>>,
    /// Something was sent to a broadcast list.
    pub(crate) broadcast: Notify,
    pub(crate) config: Config,
    pub(crate) trust: purge::Trust,
    /// A purge is left for those who finish them.
    pub(crate) unfinished: Notify,
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// The device or guest connection.
    pub device: DeviceId,
    /// Where the connection comes from; `None`: the server does it for the user.
    pub from: Option<Peer>,
}

/// What somebody wrote.
#[derive(Clone, Debug)]
pub struct Content {
    /// How to read the body.
    pub format: BodyFormat,
    /// The bytes, verbatim.
    pub body: Bytes,
    /// It is encrypted: not for the server to read.
    pub opaque: bool,
    /// Whom it names.
    pub mentions: Vec<Mention>,
}

/// Why an action was not done. Each has its row in the result table of `docs/protocol.md`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A member who lacks this right.
    #[error("{0}")]
    Forbidden(&'static str),
    /// No such user, message, or conversation that this user can see.
    #[error("{0}")]
    NotFound(Cow<'static, str>),
    /// The content filter refused it, and says why.
    #[error("refused: {0}")]
    Content(String),
    /// Settled, but not refused: it waits for a moderator of this conversation.
    #[error("it waits for a moderator")]
    Held(ConversationId),
    /// Not now: over a rate, or what has to look at it gave no answer.
    #[error("not now; try again in {retry_ms} ms")]
    Rate {
        /// When to try again.
        retry_ms: u64,
    },
    /// A limit on what may exist.
    #[error("{0}")]
    Limit(&'static str),
    /// Bad payload, bad message id, a mark beyond the head.
    #[error("{0}")]
    Format(String),
    /// The same message id with another body.
    #[error("this message id was used for another body")]
    IdempotencyConflict,
    /// The time in which a message can be edited, or deleted by its sender, is over.
    #[error("{0}")]
    EditClosed(&'static str),
    /// Somebody else changed it first.
    #[error("{0}")]
    Conflict(&'static str),
    /// The last owner cannot leave without handing over.
    #[error("the last owner hands over before leaving")]
    LastOwner,
    /// There is no such remote call.
    #[error("there is no such method")]
    UnknownMethod,
    /// The store cannot make it durable now: no answer is given, the connection closes.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal {
    /// The name on the wire; [`Refusal::Store`] is never told on PUBACK.
    pub fn name(&self) -> ErrorName {
        match self {
            Self::Forbidden(_) | Self::Content(_) | Self::Held(_) => ErrorName::Forbidden,
            Self::NotFound(_) => ErrorName::NotFound,
            Self::Rate { .. } => ErrorName::Rate,
            Self::Limit(_) => ErrorName::Limit,
            Self::Format(_) => ErrorName::Format,
            Self::IdempotencyConflict => ErrorName::IdempotencyConflict,
            Self::EditClosed(_) => ErrorName::EditClosed,
            Self::Conflict(_) => ErrorName::Conflict,
            Self::LastOwner => ErrorName::LastOwner,
            Self::UnknownMethod => ErrorName::UnknownMethod,
            Self::Store(_) => ErrorName::Unavailable,
        }
    }

    /// Too much at once, for so long.
    pub(crate) fn rate(wait: Duration) -> Self {
        let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self::Rate {
            retry_ms: retry_ms.max(1),
        }
    }

    /// Others change the same all the time.
    pub(crate) const BUSY: Self = Self::Rate { retry_ms: 1_000 };

    pub(crate) fn format(text: impl Into<String>) -> Self {
        Self::Format(text.into())
    }
}

/// What was stored, or had been stored before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// Its time, in ms since 1970.
    pub ts_ms: u64,
    /// It had been stored before.
    pub duplicate: bool,
}

/// A message id for a sender who chose none: a version 7 UUID.
pub(crate) fn new_mid() -> Result<MessageId, Refusal> {
    let ms = crate::clock::now_ms();
    let mut random = [0; 10];
    getrandom::fill(&mut random)
        .map_err(|error| StoreError::Unavailable(format!("no randomness: {error}")))?;
    let text = uuid::Builder::from_unix_timestamp_millis(ms, &random)
        .into_uuid()
        .hyphenated()
        .to_string();
    text.parse()
        .map_err(|error| Refusal::format(format!("{error}")))
}

/// A body at rest, as its sender's client was understood.
fn looked_at(format: BodyFormat, body: &[u8]) -> Option<payload::Body<'_>> {
    const ANY: PayloadLimits = PayloadLimits {
        body_bytes_max: usize::MAX,
        json_depth_max: usize::MAX,
    };
    let content_type = match format {
        BodyFormat::Text => payload::TEXT,
        BodyFormat::Json => payload::JSON,
        BodyFormat::Protobuf => payload::PROTOBUF,
    };
    payload::classify(Some(content_type), body, &ANY).ok()
}

/// No conversation, or none for this user.
const UNSEEN: Refusal = Refusal::NotFound(Cow::Borrowed("no such conversation"));

/// May this member do this, in the conversation as it is now? Every action asks.
pub(crate) fn permit(id: ConversationId, sight: &Sight, action: Action) -> Result<(), Refusal> {
    if !allows(id.kind(), &sight.member, action) {
        return Err(Refusal::Forbidden("your rights here do not allow this"));
    }
    if sight.closed && action.needs_open() {
        return Err(Refusal::Forbidden("this conversation is closed"));
    }
    Ok(())
}

impl Service {
    /// One more message or act in a conversation, by somebody who may.
    fn check_conversation_rate(&self, id: ConversationId) -> Result<(), Refusal> {
        let Some(bucket) = self.conversation_rates.of(id) else {
            return Ok(());
        };
        take_all([&bucket], crate::clock::monotonic()).map_err(Refusal::rate)
    }

    /// The conversation as this user may see it. Whether there is none, or none for this user, cannot be told apart.
    async fn seen(&self, user: UserId, id: ConversationId) -> Result<(Loaded, Sight), Refusal> {
        let live = self.conversations.load_for(id, user).await?;
        let live = live.ok_or(UNSEEN)?;
        let sight = live.sight(user).ok_or(UNSEEN)?;
        Ok((live, sight))
    }

    /// The conversation, for members of today only: what it is now is not for those who left.
    pub(crate) async fn present(
        &self,
        user: UserId,
        id: ConversationId,
    ) -> Result<(Loaded, Sight), Refusal> {
        let (live, sight) = self.seen(user, id).await?;
        if !sight.member.is_present() {
            return Err(UNSEEN);
        }
        Ok((live, sight))
    }
}
