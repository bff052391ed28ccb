//! The rules of chat, on top of `broker::hooks`.

pub mod accounts;
pub mod clock;
pub mod config;
pub mod domain;
pub mod store;
