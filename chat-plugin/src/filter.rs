//! The content filter: looks at what people write, and at what they call themselves and their conversations, before it is stored.
//!
//! A filter lets through, refuses with a reason, or holds a message for a moderator's decision. It sees the text that people
//! would be shown, never an encrypted body. Where nobody moderates (in a direct conversation), and for all that is no new message,
//! holding is refusing. What it could not look at is not refused for good. Its latency holds up the connection that wrote, and no
//! other.

pub mod words;

use std::sync::Arc;

use async_trait::async_trait;
use proto::ids::{ConversationId, MessageId, UserId};
use serde::{Deserialize, Serialize};

/// What a filter is asked about.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Content<'a> {
    /// Where it is to go, or which conversation it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<ConversationId>,
    /// Who wrote it.
    pub from: UserId,
    /// Under which message id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mid: Option<&'a MessageId>,
    /// What it is.
    pub kind: ContentKind,
    /// What people would be shown.
    pub text: &'a str,
}

/// What a text is that others see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// A message.
    Message,
    /// A new text of one.
    Edit,
    /// Title, description and tags of a conversation, on a line each.
    Conversation,
    /// Name, status and tags of a user, on a line each.
    Profile,
    /// A handle that a user chooses.
    Handle,
    /// What a user lets others read beside being online, away …: changes often, and is forgotten soon.
    Presence,
}

/// What a filter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it.
    Allow,
    /// A moderator shall decide; why, for the moderator.
    Hold(String),
    /// Refused; why, for the sender.
    Reject(String),
    /// Nobody could look at it; what to do with it. What is not let through or held may be tried again.
    Failed(Policy),
}

/// What is done with what a filter has found, or could not look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Let it through.
    Allow,
    /// Let a moderator decide.
    Hold,
    /// Refuse it.
    #[default]
    Reject,
}

impl Policy {
    /// The verdict, for this reason.
    pub fn verdict(self, reason: &str) -> Verdict {
        match self {
            Self::Allow => Verdict::Allow,
            Self::Hold => Verdict::Hold(reason.to_owned()),
            Self::Reject => Verdict::Reject(reason.to_owned()),
        }
    }
}

/// Something that judges what members write. It answers in bounded time, whatever it asks.
#[async_trait]
pub trait ContentFilter: Send + Sync + 'static {
    /// Judges one text.
    async fn judge(&self, content: Content<'_>) -> Verdict;
}

/// Several filters in a row: the first that does not let through decides.
pub struct Filters(pub Vec<Arc<dyn ContentFilter>>);

#[async_trait]
impl ContentFilter for Filters {
    async fn judge(&self, content: Content<'_>) -> Verdict {
        for filter in &self.0 {
            match filter.judge(content).await {
                Verdict::Allow | Verdict::Failed(Policy::Allow) => {}
                verdict => return verdict,
            }
        }
        Verdict::Allow
    }
}
