//! The wire contract of chat: identifiers, the topic grammar and payload kinds. No I/O, no clock, no tasks.
//!
//! `docs/protocol.md` says the same in words, for somebody who writes a client in another language.

pub mod error;
pub mod ids;
mod json;
pub mod payload;
pub mod quote;
pub mod rpc;
pub mod schema;
pub mod topics;
mod wire;
