//! The rules of MQTT over loopback: one test per rule, in one binary.
//!
//! A test cites the rules that it checks as `[MQTT-…]` in its documentation, those of 3.1.1 behind «3.1.1» on a line.
//! `docs/conformance.md` lists all rules with their tests; `table` keeps the two the same.
//!
//! `world` runs a broker with a recording plugin; `client` speaks packets, or plain bytes where packets are too polite.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic like tests"
)]

mod acks;
mod acl;
mod aliases;
mod auth;
mod client;
mod connect;
mod connect_packet;
mod delivery;
mod disconnect;
mod encoding;
mod filters;
mod flow;
mod limits;
mod plugin;
mod publish;
mod rates;
mod retain;
mod session;
mod shared;
mod shutdown;
mod subscribe;
mod sys;
mod table;
mod transports;
mod will;
mod world;
