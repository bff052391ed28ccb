//! Everything that carries MQTT, and who is let in.

use std::fs;

use client_sdk::{Advice, Client, Error};

use super::world::{impatient, story};
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
    });
}
