//! A bot that answers every message with its own words, once each, whatever happens to it.
//!
//! `cargo run -p client-sdk --example echo mqtt://127.0.0.1:1883 echo echo-secret FOLDER`

use client_sdk::{Client, Draft, Error, Event};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, handle, secret, folder] = arguments.as_slice() else {
        eprintln!("usage: echo SERVER HANDLE SECRET FOLDER");
        return Ok(());
    };
    let builder = Client::builder(server).login(handle, secret).folder(folder);
    let client = builder.open().await?;
    let mut events = client.events().await?;
    loop {
        let Event::Entry(entry) = events.next().await? else {
            continue;
        };
        let (Some(text), false) = (entry.text(), entry.author() == handle) else {
            continue;
        };
        // The answer's id follows from the question: if this process dies before it has confirmed the entry, it is handed out
        // again, and the answer is recognised as the same.
        let mid = format!("echo.{}.{}", entry.cid, entry.seq);
        let draft = Draft::text(text).reply_to(entry.seq);
        let draft = match mid.parse() {
            Ok(mid) => draft.mid(mid),
            Err(_) => draft,
        };
        let conversation = client.conversation(entry.cid);
        conversation.send(draft).await?;
        conversation.read(entry.seq).await?;
    }
}
