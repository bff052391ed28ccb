//! The Rust SDK against a real server: what `docs/sdk.md` promises.

mod chatting;
mod crash;
mod transports;
mod world;

/// The example with which the README begins.
mod two_users {
    #![allow(
        dead_code,
        clippy::print_stdout,
        reason = "an example, of which the stories run the inner function"
    )]

    include!("../../../client-sdk/examples/two_users.rs");

    pub(super) async fn run(server: &str) -> Result<String, Error> {
        chat(server).await
    }
}
