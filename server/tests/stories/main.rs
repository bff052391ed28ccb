//! End-to-end stories: the real `mqchat` process, unmodified mosquitto tools, and a client made of `broker::codec`.
//!
//! Each story makes its own server on a port of its own with a data directory of its own, and waits for events with a
//! deadline. What the server promises is in `docs/protocol.md`; these are the stories that hold it to that.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod acl;
mod actions;
mod asyncapi;
mod audit;
mod broadcasts;
mod campaign;
mod capabilities;
mod channels;
mod clients;
mod crash;
mod delivery;
mod departures;
mod edges;
mod erasure;
mod filter;
mod flags;
mod forms;
mod group;
mod harness;
mod hostile;
mod ids;
mod import;
mod joining;
mod kinds;
mod leaks;
mod login;
mod membership;
mod mentions;
mod model;
mod monitor;
mod operation;
mod people;
mod permissions;
mod persistence;
mod presence;
mod profiles;
mod protobuf;
mod queues;
mod rates;
mod refusals;
mod reports;
mod retention;
mod rows;
mod rpc;
mod scenarios;
mod scheduled;
mod scram;
mod sdk;
mod shared;
mod strangers;
mod support;
mod sync;
#[cfg(feature = "chat")]
mod terminal;
mod transports;
mod walkthrough;
