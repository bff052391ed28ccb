//! The Rust client library of mqchat: connection, outbox, local store, sync and events.
//!
//! Nothing is here yet: stock MQTT clients chat without it. `docs/architecture.md` says what it will hold.
