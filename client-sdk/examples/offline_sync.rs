//! An app in a folder: shows what it knows without a network, writes, and follows what happens until it is stopped. Start it
//! with the server away, write, and start the server.
//!
//! `cargo run -p client-sdk --example offline_sync mqtt://127.0.0.1:1883 alice secret-a FOLDER [@bob "a message"]`

#![allow(clippy::print_stdout, reason = "an example")]

use client_sdk::{Advice, Client, Error, Event};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, handle, secret, folder, message @ ..] = arguments.as_slice() else {
        eprintln!("usage: offline_sync SERVER HANDLE SECRET FOLDER [@HANDLE MESSAGE]");
        return Ok(());
    };
    let builder = Client::builder(server).login(handle, secret).folder(folder);
    let client = builder.open().await?;

    // The list, and the newest messages of each conversation, are here.
    for summary in client.conversations().await? {
        let name = summary.peer.map_or(summary.title, |peer| peer.handle);
        println!("{name}, {} unread", summary.unread);
        let page = client.conversation(summary.cid).history(None, 3).await;
        for entry in page.unwrap_or_default().entries {
            println!("  {}: {}", entry.author(), entry.text().unwrap_or("…"));
        }
    }
    if let [to, text] = message {
        client.direct(to)?.send(text.as_str()).await?;
    }
    for waiting in client.pending().await? {
        println!("to {}: {:?}", waiting.target, waiting.what);
    }

    let mut events = client.events().await?;
    loop {
        match events.next().await {
            Ok(Event::Entry(entry)) => {
                println!("{}: {}", entry.author(), entry.text().unwrap_or("…"));
            }
            Ok(Event::Failed { refusal, .. }) => println!("not sent: {refusal}"),
            Ok(hint) => println!("({hint:?})"),
            Err(error) if error.advice() == Advice::SignIn => {
                println!("please sign in again: {error}");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}
