//! Everything that carries MQTT, and who is let in.

use std::fs;

use client_sdk::{Advice, Client, Connection, Error, Event, Seq, Status, StoreError};

use super::world::{impatient, next_texts, story, until};
use crate::harness::{Launch, Server};
use crate::transports::{Site, address};

#[test]
fn the_sdk_chats_over_tls_and_websocket() {
    let site = Site::new();
    let plain = "[[broker.listeners]]\nprotocol = \"ws\"\naddress = \"127.0.0.1:0\"\n";
    let config = [plain, &site.tls("tls"), &site.tls("wss")].concat();
    let (_server, lines) = site.serve(&config, Launch::dev);
    let authority = fs::read(site.file("ca.pem")).unwrap();
    story(async {
        for (line, scheme) in [(1, "ws"), (2, "mqtts"), (3, "wss")] {
            let port = address(&lines[line]).port();
            let builder = Client::builder(format!("{scheme}://localhost:{port}"))
                .login("alice", "alice-secret")
                .limits(impatient());
            let trusting = builder.clone().roots_pem(authority.clone());
            let alice = trusting.open().await.unwrap();
            alice.online().await.unwrap();
            // Larger than a frame and than any buffer on the way.
            let long = "x".repeat(60_000);
            alice.note().send(long.as_str()).await.unwrap();
            let mut events = alice.events().await.unwrap();
            let heard = super::world::next_texts(&mut events, 1).await;
            assert!(heard[0] == long, "{scheme}");
            drop(events);
            alice.close().await;

            if scheme != "ws" {
                let strange = builder.open().await.unwrap();
                let mut told = strange.events().await.unwrap();
                super::world::until(&mut told, |event| {
                    format!("{event:?}").contains("UnknownIssuer")
                })
                .await;
            }
        }
    });
}

#[test]
fn a_device_logs_in_with_its_token_until_that_is_revoked() {
    let server = Server::in_new_directory(|launch| launch);
    let added = server.command(&["user", "add", "alice"], "alice-secret\n");
    assert!(added.status.success(), "{added:?}");
    let issued = server.command(&["token", "issue", "alice", "--label", "phone"], "");
    let issued = String::from_utf8(issued.stdout).unwrap();
    let token = issued
        .split_whitespace()
        .max_by_key(|word| word.len())
        .unwrap();
    let login = |secret: &str| {
        Client::builder(super::world::address(&server))
            .login("alice", secret)
            .limits(impatient())
    };
    story(async {
        let alice = login(token).open().await.unwrap();
        alice.online().await.unwrap();
        assert_eq!(alice.user().await.unwrap().unwrap().1, "alice");
        assert_eq!(alice.me().await.unwrap().handle, "alice");

        let wrong = login("wrong").open().await.unwrap();
        let refused = wrong.online().await.unwrap_err();
        assert!(matches!(refused, Error::SignIn(_)), "{refused}");
        assert_eq!(refused.advice(), Advice::SignIn);
        assert!(matches!(wrong.me().await, Err(Error::SignIn(_))));
    });
}

#[test]
fn whose_password_has_changed_signs_in_again_and_loses_nothing() {
    let server = Server::in_new_directory(|launch| launch);
    for (handle, secret) in [("alice", "old-secret\n"), ("bob", "bob-secret\n")] {
        let added = server.command(&["user", "add", handle], secret);
        assert!(added.status.success(), "{added:?}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    story(async {
        let alice = Client::builder(super::world::address(&server))
            .login("alice", "old-secret")
            .folder(folder.path())
            .limits(impatient());
        let alice = alice.open().await.unwrap();
        alice.online().await.unwrap();
        let mut told = alice.events().await.unwrap();

        let changed = server.command(&["user", "passwd", "alice"], "new-secret\n");
        assert!(changed.status.success(), "{changed:?}");
        let end = loop {
            if let Err(error) = told.next().await {
                break error;
            }
        };
        assert!(matches!(end, Error::SignIn(_)), "{end}");
        // The app is as it is without a network: what is written waits.
        let mid = alice.direct("bob").unwrap().send("hello").await.unwrap();
        assert!(matches!(alice.flushed().await, Err(Error::SignIn(_))));
        let bob = alice.direct("bob").unwrap();
        let waiting = bob.progress(&mid).await.unwrap().unwrap();
        assert_eq!(waiting.status, Status::Pending);

        alice.sign_in("alice", "wrong").await.unwrap();
        let refused = alice.online().await.unwrap_err();
        assert!(matches!(refused, Error::SignIn(_)), "{refused}");
        alice.sign_in("alice", "new-secret").await.unwrap();
        alice.flushed().await.unwrap();
        let stored = bob.progress(&mid).await.unwrap().unwrap();
        assert_eq!(
            (stored.seq, stored.status),
            (Some(Seq::new(1)), Status::Sent)
        );
        // The same reader goes on.
        assert_eq!(next_texts(&mut told, 1).await, ["hello"]);

        // Somebody else gets nothing of what is in this folder.
        alice.note().send("for me alone").await.unwrap();
        alice.flushed().await.unwrap();
        alice.sign_in("bob", "bob-secret").await.unwrap();
        let other = alice.online().await.unwrap_err();
        assert!(
            matches!(other, Error::Store(StoreError::OtherUser { .. })),
            "{other}"
        );
    });
}

#[test]
fn two_programs_of_one_device_do_not_throw_each_other_out_for_ever() {
    let server = Server::dev();
    story(async {
        let login = || {
            Client::builder(super::world::address(&server))
                .login("alice", "alice-secret")
                .device("phone")
                .limits(impatient())
        };
        let first = login().open().await.unwrap();
        first.online().await.unwrap();
        let mut told = first.events().await.unwrap();
        let second = login().open().await.unwrap();
        second.online().await.unwrap();
        let end = loop {
            if let Err(error) = told.next().await {
                break error;
            }
        };
        assert!(matches!(end, Error::Replaced), "{end}");
        second.note().send("still here").await.unwrap();
        second.flushed().await.unwrap();
        // «Use here.»
        first.reconnect().await.unwrap();
        until(&mut told, |event| {
            *event == Event::Connection(Connection::Online)
        })
        .await;
        let mut others = second.events().await.unwrap();
        let end = loop {
            if let Err(error) = others.next().await {
                break error;
            }
        };
        assert!(matches!(end, Error::Replaced), "{end}");
    });
}
