//! The wire contract of chat: identifiers, the topic grammar and payload kinds. No I/O, no clock, no tasks.

pub mod ids;
