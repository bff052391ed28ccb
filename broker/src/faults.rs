//! Promises that a build for tests breaks on purpose, so that whoever looks for broken promises can be seen to find them.
//!
//! Without the feature `faults` nothing is ever planted, and the compiler leaves out what asks. A release build cannot have it.

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` breaks promises on purpose: not in a release build");

#[cfg(feature = "faults")]
static PLANTED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// An ack is sent before its write is synced.
pub const ACK_BEFORE_SYNC: &str = "ack-before-sync";

/// Breaks this promise from now on, for as long as the process lives. The first one counts.
#[cfg(feature = "faults")]
pub fn plant(fault: String) {
    PLANTED.get_or_init(|| fault);
}

/// Is this promise to be broken?
#[cfg(feature = "faults")]
pub fn is_planted(fault: &str) -> bool {
    PLANTED.get().is_some_and(|planted| planted == fault)
}

/// Is this promise to be broken? Never.
#[cfg(not(feature = "faults"))]
pub const fn is_planted(_: &str) -> bool {
    false
}
