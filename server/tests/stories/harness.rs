//! A ready world in one line: a server process, clients, the mosquitto tools, and disks that fail.

mod calls;
mod client;
mod deadline;
mod disk;
mod monitor;
mod mosquitto;
mod program;
mod random;
mod scram;
mod server;
#[cfg(feature = "chat")]
mod terminal;

pub(crate) use calls::{reply_in_protobuf, request_in_protobuf};
pub(crate) use client::{Answer, Client, Login, Lost, with_mid};
pub(crate) use deadline::{PATIENCE, Stopwatch, eventually};
pub(crate) use disk::{Preload, SmallDisk, compile};
pub(crate) use monitor::Monitor;
pub(crate) use mosquitto::{
    Sub, attempt_publish, attempt_request, attempt_subscribe, publish, publish_lines,
};
pub(crate) use program::{node, python};
pub(crate) use random::Random;
pub(crate) use scram::Scram;
pub(crate) use server::{Launch, Server, mqchat};
#[cfg(feature = "chat")]
pub(crate) use terminal::{Chat, Terminal, chat, key};

/// Both protocol versions, for stories that are the same in each.
pub(crate) const VERSIONS: [broker::codec::packet::Version; 2] = [
    broker::codec::packet::Version::V311,
    broker::codec::packet::Version::V5,
];
