//! Promises of the chat that a build for tests breaks on purpose; see [`broker::faults`].

pub(crate) use broker::faults::is_planted;

/// A message id is not looked up: a retry is stored again.
pub(crate) const NO_DEDUPE: &str = "no-dedupe";
/// The cursor of a device moves when an entry is handed out, not when it is acknowledged.
pub(crate) const EARLY_CURSOR: &str = "early-cursor";
/// Of what is read from the store for a device, one entry in sixteen is passed over.
pub(crate) const DROPPED_ON_REPLAY: &str = "dropped-on-replay";
