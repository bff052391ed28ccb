//! Without a network, and when it comes back.

use std::net::{SocketAddr, TcpListener};

use client_sdk::{Connection, Draft, Event, PendingKind};
use tempfile::TempDir;

use super::world::{address, in_memory, next_texts, open, story, until};
use crate::harness::{Launch, Server};

/// An address where nobody listens, and where a server can.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn what_was_written_offline_is_sent_in_order_by_the_next_process() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let at = free_address();
    story(async {
        let url = format!("mqtt://{at}");
        let alice = open(&url, "alice", Some(folder.path())).await.unwrap();
        let chat = alice.direct("bob").unwrap();
        for text in ["one", "two", "three"] {
            chat.send(text).await.unwrap();
        }
        let mut told = alice.events().await.unwrap();
        until(&mut told, |event| {
            matches!(event, Event::Connection(Connection::Offline { .. }))
        })
        .await;
        drop(told);
        alice.close().await;

        let server = Launch::new(data.path())
            .dev()
            .listen(&at.to_string())
            .start();
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let alice = open(&url, "alice", Some(folder.path())).await.unwrap();
        assert_eq!(next_texts(&mut heard, 3).await, ["one", "two", "three"]);
        alice.flushed().await.unwrap();
        assert_eq!(alice.pending().await.unwrap(), []);
    });
}

#[test]
fn a_server_that_is_killed_and_comes_back_interrupts_nothing() {
    let at = free_address();
    let mut server = Server::in_new_directory(|launch| launch.dev().listen(&at.to_string()));
    story(async {
        let folder = TempDir::new().unwrap();
        let alice = in_memory(&server, "alice").await;
        let bob = super::world::in_folder(&server, "bob", folder.path()).await;
        bob.online().await.unwrap();
        alice.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        let mut wanted = Vec::new();
        for round in 0..4 {
            for number in 0..20 {
                let text = format!("{round}-{number}");
                chat.send(text.as_str()).await.unwrap();
                wanted.push(text);
            }
            server.restart();
        }
        assert_eq!(next_texts(&mut heard, 80).await, wanted);
        alice.flushed().await.unwrap();
    });
}

#[test]
fn too_fast_is_slower_and_still_in_order() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__USER_MESSAGES_PER_S", "50")
            .variable("MQCHAT_CHAT__USER_MESSAGES_BURST", "5")
    });
    story(async {
        let alice = in_memory(&server, "alice").await;
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        let wanted: Vec<_> = (0..40).map(|number| number.to_string()).collect();
        for text in &wanted {
            chat.send(text.as_str()).await.unwrap();
        }
        assert_eq!(next_texts(&mut heard, 40).await, wanted);
    });
}

#[test]
fn the_outbox_says_what_waits_and_when_it_is_full() {
    story(async {
        let mut limits = super::world::impatient();
        limits.outbox_messages_max = 2;
        let alice = client_sdk::Client::builder(format!("mqtt://{}", free_address()))
            .login("alice", "alice-secret")
            .limits(limits)
            .open()
            .await
            .unwrap();
        let chat = alice.direct("bob").unwrap();
        let mid = "my-own-id".parse().unwrap();
        let sent = chat.send(Draft::text("one").mid(mid)).await.unwrap();
        chat.send("two").await.unwrap();
        let full = chat.send("three").await.unwrap_err();
        assert_eq!(full.advice(), client_sdk::Advice::Wait, "{full}");
        let pending = chat.pending().await.unwrap();
        assert_eq!(pending.len(), 2);
        assert_eq!(pending[0].mid.as_ref(), Some(&sent));
        assert_eq!(pending[0].what, PendingKind::Message("one".into()));
        assert_eq!(pending[0].refusal, None);
        assert!(alice.discard(&sent).await.unwrap());
        chat.send("three").await.unwrap();
    });
}

#[test]
fn a_message_to_the_server_that_is_gone_is_not_told_as_sent() {
    let server = Server::dev();
    let url = address(&server);
    story(async {
        let alice = open(&url, "alice", None).await.unwrap();
        alice.online().await.unwrap();
        let mut told = alice.events().await.unwrap();
        drop(server);
        alice.note().send("lost?").await.unwrap();
        let next = until(&mut told, |event| {
            matches!(
                event,
                Event::Sent { .. } | Event::Connection(Connection::Offline { .. })
            )
        })
        .await;
        assert!(matches!(next, Event::Connection(_)), "{next:?}");
        assert_eq!(alice.pending().await.unwrap().len(), 1);
    });
}
