//! Messages that wait for a moderator's decision.

use proto::ids::Seq;

use super::entry::{Draft, Entry};

/// Most of them in one conversation.
pub const HELD_MAX: u64 = 1_000;
/// Most of them of one sender there: one must not take the places of all.
pub const HELD_OF_SENDER_MAX: u64 = 100;

/// A message that the content filter has held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// As it would be in the log, but without a place there.
    pub entry: Entry,
    /// Of what makes it this message.
    pub digest: [u8; 16],
    /// Why it is held.
    pub reason: String,
}

impl Held {
    /// A draft that is put aside, for this reason.
    pub fn of(draft: Draft, reason: String) -> Self {
        let entry = Entry {
            conversation: draft.conversation,
            seq: Seq::ZERO,
            mseq: 0,
            ts_ms: draft.ts_ms,
            from: draft.from,
            device: draft.device,
            mid: draft.mid,
            kind: draft.kind,
            format: draft.format,
            opaque: draft.opaque,
            body: draft.body,
            target: draft.target,
            thread: draft.thread,
            expires_ms: draft.expires_ms,
            mentions: draft.mentions,
            gone: None,
            source: None,
            overlay: None,
        };
        Self {
            entry,
            digest: draft.digest,
            reason,
        }
    }
}

/// What came of holding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It is held, now or since it came first.
    Held,
    /// Another message has this id.
    Conflict,
    /// There are as many as may be, in all or of its sender.
    Full,
    /// Sooner after the last message of its sender than is allowed.
    TooSoon {
        /// When to try again.
        retry_ms: u64,
    },
}
