//! Bytes ⇄ packets: MQTT 3.1.1 and 5.0 in one model. Strict, zero-copy, without panics.

pub mod packet;
pub mod properties;
pub mod reason;
pub mod topic;
