//! The Rust client library of mqchat: connection, outbox, local store, sync and events.
//!
//! [`Client`] is a user on one device, [`Conversation`] one of its conversations, [`Events`] what happens. What is sent goes
//! into an outbox that survives the process; what arrives goes into a local log, and from there to the app, each entry once
//! and in order. `docs/sdk.md` says how that is kept; the README begins with a chat of two users in a few lines.
//!
//! There is nothing global. It does not encrypt, does not upload media, and keeps no list of members: [`Client::call`] reaches
//! every method of the server.

#![deny(missing_docs)]

mod backoff;
mod calls;
mod client;
mod clock;
mod config;
mod connection;
mod conversation;
mod entry;
mod error;
mod events;
mod outbox;
mod store;
mod transport;
mod worker;

pub use client::{Client, Found, Pending, PendingKind, RequestId, SearchCursor};
pub use config::{Builder, Limits};
pub use conversation::{Conversation, History, Summary};
pub use entry::{Content, Draft, Entry, Message, Person, Progress, Reached, Status};
pub use error::{Advice, Error, Refusal, StoreError};
pub use events::{Connection, Event, Events, Presence, Typing};
pub use proto::ids::{ConversationId, MessageId, Seq, UserId};
/// Messages of the wire: bodies, calls and their results.
pub use proto::schema;
pub use proto::topics::Target;
