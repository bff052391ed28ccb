//! Bytes ⇄ packets: MQTT 3.1.1 and 5.0 in one model. Strict, zero-copy, without panics.
//!
//! [`decode::Decoder`] takes what has arrived on a Network Connection and gives whole packets; [`encode`] writes them.
//! A packet that decodes is well-formed by itself: what needs the state of a Session (packet identifiers in use, topic
//! aliases, quotas) is judged elsewhere.

pub mod decode;
pub mod encode;
pub mod error;
pub mod packet;
pub mod properties;
pub mod reason;
pub mod topic;
pub mod varint;

#[cfg(test)]
mod tests;
