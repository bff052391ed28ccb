//! Writing, reading and everything that is done to messages.

use client_sdk::{Content, Event, Status};

use super::world::{in_memory, next_entry, next_texts, story, until};
use crate::harness::Server;

#[test]
fn the_first_example_of_the_readme_works() {
    let server = Server::dev();
    let said = story(super::two_users::run(&super::world::address(&server)));
    assert_eq!(said.unwrap(), "alice: Hello Bob!");
}

#[test]
fn a_message_is_pending_sent_delivered_and_read() {
    let server = Server::dev();
    story(async {
        let folder = tempfile::TempDir::new().unwrap();
        let alice = in_memory(&server, "alice").await;
        let bob = super::world::in_folder(&server, "bob", folder.path()).await;
        bob.online().await.unwrap();
        let mut told = alice.events().await.unwrap();
        let mut heard = bob.events().await.unwrap();

        let chat = alice.direct("@bob").unwrap();
        let mid = chat.send("hello").await.unwrap();
        let sent = until(&mut told, |event| matches!(event, Event::Sent { .. })).await;
        let Event::Sent {
            mid: sent_mid,
            cid,
            seq: Some(seq),
        } = sent
        else {
            panic!("{sent:?}")
        };
        assert_eq!(sent_mid, mid);
        assert_eq!(chat.id().await.unwrap(), cid);
        assert_eq!(chat.pending().await.unwrap(), []);

        let entry = next_entry(&mut heard).await;
        assert_eq!(
            (entry.text(), entry.seq, entry.author()),
            (Some("hello"), seq, "alice")
        );
        while chat.status(seq).await.unwrap() < Status::Delivered {
            until(&mut told, |event| matches!(event, Event::Receipts(_))).await;
        }
        bob.conversation(entry.cid).read(entry.seq).await.unwrap();
        while chat.status(seq).await.unwrap() < Status::Read {
            until(&mut told, |event| matches!(event, Event::Receipts(_))).await;
        }
    });
}

#[test]
fn messages_are_sent_in_order_and_own_ones_are_in_the_log() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        let wanted: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        for text in &wanted {
            chat.send(text.as_str()).await.unwrap();
        }
        assert_eq!(next_texts(&mut heard, 50).await, wanted);
        alice.flushed().await.unwrap();
        let page = chat.history(None, 100).await.unwrap();
        let texts: Vec<_> = page
            .entries
            .iter()
            .map(|entry| entry.text().unwrap())
            .collect();
        assert_eq!(texts, wanted);
        assert!(!page.more);
    });
}

#[test]
fn edits_deletions_and_reactions_reach_the_log() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        chat.send("frist").await.unwrap();
        chat.send("secret").await.unwrap();
        let first = next_entry(&mut heard).await;
        let second = next_entry(&mut heard).await;
        let theirs = bob.conversation(first.cid);

        chat.edit(first.seq, "first").await.unwrap();
        let edit = next_entry(&mut heard).await;
        assert!(matches!(edit.content, Content::Edit { target, .. } if target == first.seq));
        let now = theirs.entry(first.seq).await.unwrap().unwrap();
        assert_eq!(now.text(), Some("first"));
        assert!(now.message().unwrap().edited.is_some());

        chat.delete(second.seq).await.unwrap();
        let deleted = next_entry(&mut heard).await;
        assert_eq!(deleted.content, Content::Deleted { target: second.seq });
        let now = theirs.entry(second.seq).await.unwrap().unwrap();
        assert!(matches!(now.content, Content::Gone { .. }), "{now:?}");

        theirs.react(first.seq, "👍").await.unwrap();
        let updated =
            |event: &Event| matches!(event, Event::Updated { seq, .. } if *seq == first.seq);
        loop {
            until(&mut heard, updated).await;
            let now = theirs.entry(first.seq).await.unwrap().unwrap();
            let reactions = &now.message().unwrap().reactions;
            if let [reaction] = reactions.as_slice() {
                assert_eq!(
                    (reaction.emoji.as_str(), reaction.count, reaction.mine),
                    ("👍", 1, true)
                );
                break;
            }
        }
    });
}
