//! A group: made, written to, acted on, searched and left. Needs `mqchat serve --dev`.
//!
//! `cargo run -p client-sdk --example group_chat [SERVER]`

#![allow(clippy::print_stdout, reason = "an example")]

use client_sdk::{Client, Content, ConversationId, Draft, Entry, Error, Event, Events, Typing};

/// The next entry of this conversation; others are none of this example's business.
async fn next_entry(events: &mut Events, cid: Option<ConversationId>) -> Result<Entry, Error> {
    loop {
        if let Event::Entry(entry) = events.next().await?
            && Some(entry.cid) == cid
        {
            return Ok(entry);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = std::env::args().nth(1);
    let server = server.unwrap_or_else(|| "mqtt://127.0.0.1:1883".to_owned());
    let alice = Client::builder(&server).login("alice", "secret-a");
    let bob = Client::builder(&server).login("bob", "secret-b");
    let (alice, bob) = (alice.open().await?, bob.open().await?);
    bob.online().await?;
    let mut heard = bob.events().await?;

    // Membership asks the server; writing does not have to.
    let group = alice.create_group("Lunch", &["@bob"]).await?;
    let cid = group.id().await?;
    group.send("Who is hungry?").await?;
    let question = loop {
        let entry = next_entry(&mut heard, cid).await?;
        if entry.text().is_some() {
            break entry;
        }
    };
    let theirs = bob.conversation(question.cid);
    theirs.typing(Typing::Typing).await?;
    theirs.react(question.seq, "🙋").await?;
    theirs
        .send(Draft::text("Me!").reply_to(question.seq))
        .await?;
    theirs.read(question.seq).await?;
    bob.flushed().await?;

    group.edit(question.seq, "Who is hungry now?").await?;
    group.pin(question.seq, true).await?;
    loop {
        let entry = next_entry(&mut heard, cid).await?;
        match entry.content {
            Content::Pin { target, .. } => {
                println!(
                    "{} pinned {target}",
                    entry.from.map_or(String::new(), |from| from.handle)
                );
                break;
            }
            content => println!("{}: {content:?}", entry.seq),
        }
    }
    for member in group.members().await? {
        println!("{} is {}", member.handle, member.role);
    }
    println!(
        "{:?}",
        theirs.search("hungry", 10, None).await?.entries.len()
    );
    println!("{:?}", group.status(question.seq).await?);
    theirs.leave(None).await?;
    alice.close().await;
    bob.close().await;
    Ok(())
}
