//! An MQTT 3.1.1 and 5.0 server that has never heard of chat.

pub mod codec;
pub mod hooks;
pub mod mailbox;
