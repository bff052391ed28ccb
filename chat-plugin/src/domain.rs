//! Pure values and rules of chat. No I/O, no clock, no tasks.

pub mod account;
pub mod audit;
pub mod contact;
pub mod conversation;
pub mod device;
pub mod entry;
pub mod held;
pub mod joining;
pub mod member;
pub mod overlay;
pub mod permission;
pub mod presence;
pub mod profile;
pub mod purge;
pub mod queue;
pub mod rights;
pub mod scheduled;
pub mod search;
pub mod support;
pub mod user;
