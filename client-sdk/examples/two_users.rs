//! Alice says hello, and Bob hears it: the README begins with what follows here.
#![allow(
    clippy::missing_errors_doc,
    clippy::print_stdout,
    reason = "an example"
)]

use client_sdk::{Client, Error, Event};

/// Against a server that was started with `mqchat serve --dev`.
pub async fn chat(server: &str) -> Result<String, Error> {
    let alice = Client::builder(server).login("alice", "secret-a");
    let bob = Client::builder(server).login("bob", "secret-b");
    let (alice, bob) = (alice.open().await?, bob.open().await?);
    let mut events = bob.events().await?;
    bob.online().await?;
    alice.direct("bob")?.send("Hello Bob!").await?;
    loop {
        if let Event::Entry(entry) = events.next().await? {
            let text = entry.text().unwrap_or("something else");
            return Ok(format!("{}: {text}", entry.author()));
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("{}", chat("mqtt://127.0.0.1:1883").await?);
    Ok(())
}
