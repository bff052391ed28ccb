//! The rules of MQTT over loopback: one test per rule, in one binary.
//!
//! `world` runs a broker with a recording plugin; `client` speaks packets, or plain bytes where packets are too polite.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic like tests"
)]

mod aliases;
mod auth;
mod client;
mod connect;
mod flow;
mod limits;
mod plugin;
mod publish;
mod session;
mod shared;
mod shutdown;
mod subscribe;
mod sys;
mod transports;
mod world;
