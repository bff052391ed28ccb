//! The rules of chat, on top of `broker::hooks`.

pub mod domain;
pub mod store;
