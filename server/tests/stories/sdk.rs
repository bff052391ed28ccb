//! The Rust SDK against a real server: what `docs/sdk.md` promises.

mod chatting;
mod crash;
mod devices;
mod offline;
mod sessions;
mod transports;
mod world;

#[path = "../../../client-sdk/examples/two_users.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the example with which the README begins; the stories run its inner function"
)]
mod two_users;
