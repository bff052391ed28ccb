//! Messages that wait for a moderator's decision.

use super::entry::Entry;

/// Most of them in one conversation.
pub const HELD_MAX: usize = 1_000;

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

/// What came of holding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It is held, now or since it came first.
    Held,
    /// Another message has this id.
    Conflict,
    /// There are as many as may be.
    Full,
}
