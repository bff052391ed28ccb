//! Messages that wait for their time.

use bytes::Bytes;
use proto::error::ErrorName;
use proto::ids::{ConversationId, DeviceId, MessageId, Seq, UserId};
use proto::topics::Target;

use super::entry::BodyFormat;

/// How far ahead a message may be scheduled, in ms: a leap year.
pub const AHEAD_MAX_MS: u64 = 366 * 24 * 3600 * 1000;

/// A message that its sender has written, and that is sent later. Its message id names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Who sends.
    pub user: UserId,
    /// From which device or connection.
    pub device: DeviceId,
    /// Key of idempotency, also of the message that it becomes.
    pub mid: MessageId,
    /// When it is due, in ms since 1970.
    pub at_ms: u64,
    /// When it is tried, in ms since 1970: later than it is due if it was over a rate then.
    pub due_ms: u64,
    /// To whom: a user or a conversation, by id.
    pub target: Target,
    /// The conversation that this is.
    pub conversation: ConversationId,
    /// Digest of everything that makes this message this message.
    pub digest: [u8; 16],
    /// How to read the body.
    pub format: BodyFormat,
    /// The body is encrypted.
    pub opaque: bool,
    /// The bytes, verbatim.
    pub body: Bytes,
    /// The message that it quotes.
    pub reply_to: Option<Seq>,
    /// A message of the thread in which it is written.
    pub thread: Option<Seq>,
    /// Seconds that it lasts, once it is sent.
    pub ttl_s: Option<u32>,
    /// Why it was not sent when it was due. It waits for its user then, not for its time.
    pub refused: Option<(ErrorName, String)>,
}

/// What the store did with a message that shall be sent later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// It waits now.
    Waits,
    /// It waited before.
    Waited,
    /// Another message waits, or waits for another time, under this message id.
    Conflict,
    /// As many wait as one user may have.
    Full,
}
