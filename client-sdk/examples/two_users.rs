use client_sdk::{Client, Error, Event};

async fn chat(server: &str) -> Result<String, Error> {
    let alice = Client::builder(server)
        .login("alice", "alice-secret")
        .open()
        .await?;
    let bob = Client::builder(server)
        .login("bob", "bob-secret")
        .open()
        .await?;
    let mut events = bob.events().await?;
    bob.online().await?;
    alice.direct("bob")?.send("Hello Bob!").await?;
    loop {
        if let Event::Entry(entry) = events.next().await? {
            let (author, text) = (entry.author(), entry.text().unwrap_or_default());
            return Ok(format!("{author}: {text}"));
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    println!("{}", chat("mqtt://127.0.0.1:1883").await?);
    Ok(())
}
