//! The rules of chat, on top of `broker::hooks`.

pub mod accounts;
pub(crate) mod agenda;
pub mod clock;
pub mod config;
pub mod conversations;
pub(crate) mod delivery;
pub mod domain;
pub(crate) mod faults;
pub mod filter;
pub mod metrics;
pub mod names;
pub mod personal;
pub mod plugin;
pub(crate) mod presence;
pub(crate) mod rate;
pub mod receipts;
pub mod render;
pub mod service;
pub mod store;
pub(crate) mod typing;
