//! What a session of the server keeps for a device, and what it does not.

use std::collections::BTreeSet;
use std::path::Path;

use client_sdk::{Advice, Client, Connection, ConversationId, Event, Presence, Seq, schema};
use proto::ids::ConversationKind;
use tempfile::TempDir;

use super::world::{address, impatient, in_folder, in_memory, open, story, until};
use crate::harness::{Launch, PATIENCE, Server};

/// Lets this user see the presence of another one.
async fn add_contact(of: &Client, handle: &str) {
    let contact = schema::PeopleAdd {
        user: format!("@{handle}"),
        ..schema::PeopleAdd::default()
    };
    let params = schema::rpc_request::Params::PeopleAdd(contact);
    of.call("people.add", params).await.unwrap();
}

fn is_state(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Presence(Presence { state, .. }) if state == wanted)
}

async fn hasty(server: &str, handle: &str, folder: &Path) -> Client {
    let mut limits = impatient();
    limits.call_timeout = PATIENCE / 100;
    Client::builder(server)
        .login(handle, format!("{handle}-secret"))
        .folder(folder)
        .limits(limits)
        .open()
        .await
        .unwrap()
}

#[test]
fn who_is_watched_while_offline_is_told_of_with_the_next_connection() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let launch = |at: &str| Launch::new(data.path()).dev().listen(at).start();
    let server = launch("127.0.0.1:0");
    let at = server.address().to_string();
    story(async {
        let bob = in_memory(&server, "bob").await;
        let alice = hasty(&address(&server), "alice", folder.path()).await;
        alice.online().await.unwrap();
        bob.online().await.unwrap();
        add_contact(&bob, "alice").await;
        let mut told = alice.events().await.unwrap();
        drop(server);
        until(&mut told, |event| {
            matches!(event, Event::Connection(Connection::Offline { .. }))
        })
        .await;
        alice.watch_presence("bob").await.unwrap_err();
        let _server = launch(&at);
        until(&mut told, |event| is_state(event, "online")).await;
        alice.watch_presence("bob").await.unwrap();
    });
}

#[test]
fn who_was_watched_by_an_earlier_process_is_not_told_of() {
    let server = Server::dev();
    let folder = TempDir::new().unwrap();
    story(async {
        let bob = in_memory(&server, "bob").await;
        let alice = in_folder(&server, "alice", folder.path()).await;
        alice.online().await.unwrap();
        bob.online().await.unwrap();
        add_contact(&bob, "alice").await;
        let mut told = alice.events().await.unwrap();
        alice.watch_presence("bob").await.unwrap();
        until(&mut told, |event| is_state(event, "online")).await;
        drop(told);
        alice.close().await;

        let alice = in_folder(&server, "alice", folder.path()).await;
        let mut told = alice.events().await.unwrap();
        alice.online().await.unwrap();
        bob.set_presence("dnd", "in a meeting").await.unwrap();
        bob.direct("alice").unwrap().send("hello").await.unwrap();
        until(&mut told, |event| {
            assert!(!matches!(event, Event::Presence(_)), "{event:?}");
            matches!(event, Event::Entry(_))
        })
        .await;
    });
}

#[test]
fn a_device_too_many_is_told_so() {
    let server = Server::in_new_directory(|launch| {
        launch
            .dev()
            .variable("MQCHAT_CHAT__DEVICES_PER_USER_MAX", "1")
    });
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    story(async {
        let phone = in_folder(&server, "alice", folders[0].path()).await;
        phone.online().await.unwrap();
        let tablet = in_folder(&server, "alice", folders[1].path()).await;
        let refused = tablet.online().await.unwrap_err();
        assert_eq!(refused.advice(), Advice::Explain, "{refused}");
    });
}

/// Chats a little. The groups of which was told meanwhile, in which nothing happened.
async fn live(
    bob: &Client,
    server: &Server,
    (folder, round): (&Path, u32),
) -> BTreeSet<ConversationId> {
    let alice = in_folder(server, "alice", folder).await;
    let mut told = alice.events().await.unwrap();
    alice.online().await.unwrap();
    let chat = bob.direct("alice").unwrap();
    for number in 0..20 {
        let text = format!("{round}-{number}");
        chat.send(text).await.unwrap();
    }
    bob.flushed().await.unwrap();
    let theirs = alice.conversation(chat.id().await.unwrap().unwrap());
    let head = chat.history(None, 1).await.unwrap().entries[0].seq.get();
    let mut groups = BTreeSet::new();
    let mut take = |event: &Event| {
        if let Event::Conversation(cid) = event
            && cid.kind() == ConversationKind::Group
        {
            groups.insert(*cid);
        }
    };
    // Until the account has told of the last one, too: what it tells first comes before that.
    while theirs
        .summary()
        .await
        .unwrap()
        .is_none_or(|known| known.details.head < head)
    {
        take(&told.next().await.unwrap());
    }
    // And what was told with that.
    let last = alice.note().send("last").await.unwrap();
    let is_last = |event: &Event| matches!(event, Event::Sent { mid, .. } if *mid == last);
    while !told
        .next_batch(1_024)
        .await
        .unwrap()
        .iter()
        .inspect(|event| take(event))
        .any(is_last)
    {}
    drop(told);
    alice.close().await;
    groups
}

#[test]
fn a_process_that_goes_on_is_told_only_what_changed() {
    let server = Server::dev();
    let folder = TempDir::new().unwrap();
    story(async {
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let alice = in_folder(&server, "alice", folder.path()).await;
        alice.online().await.unwrap();
        for title in ["one", "two", "three"] {
            alice.create_group(title, &["@bob"]).await.unwrap();
        }
        alice.close().await;
        // As soon as it is sure that all was told once.
        let mut round = 0;
        while !live(&bob, &server, (folder.path(), round)).await.is_empty() {
            round += 1;
        }
    });
}

#[test]
fn the_newest_of_a_channel_that_is_not_pushed_is_there() {
    let server = Server::in_new_directory(|launch| {
        launch.dev().variable("MQCHAT_CHAT__CHANNEL_INBOX_MAX", "1")
    });
    let folder = TempDir::new().unwrap();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let _carol = in_memory(&server, "carol").await.online().await;
        let bob = in_folder(&server, "bob", folder.path()).await;
        bob.online().await.unwrap();
        alice.online().await.unwrap();
        let channel = schema::ConvCreate {
            kind: "channel".into(),
            title: Some("News".into()),
            members: vec!["@bob".into(), "@carol".into()],
            ..schema::ConvCreate::default()
        };
        let params = schema::rpc_request::Params::ConvCreate(channel);
        let made = alice.call("conv.create", params).await.unwrap();
        let schema::rpc_reply::Result::Conversation(made) = made else {
            panic!("{made:?}")
        };
        let cid = made.cid.parse().unwrap();
        let news = alice.conversation(cid);
        let theirs = bob.conversation(cid);
        for round in 1..=3 {
            for number in 0..100 {
                news.send(format!("{round}-{number}")).await.unwrap();
            }
            alice.flushed().await.unwrap();
            let head = alice
                .conversation(cid)
                .history(None, 1)
                .await
                .unwrap()
                .entries[0]
                .seq;
            let page = theirs.history(None, 50).await.unwrap();
            let seqs: Vec<_> = page.entries.iter().map(|entry| entry.seq.get()).collect();
            assert_eq!(seqs, (head.get() - 49..=head.get()).collect::<Vec<_>>());
            let text = page.entries[49].text().unwrap();
            assert_eq!(text, format!("{round}-99"));
        }
        bob.close().await;
        let away = open("mqtt://127.0.0.1:1", "bob", Some(folder.path()))
            .await
            .unwrap();
        let page = away
            .conversation(cid)
            .history(Some(Seq::new(250)), 100)
            .await
            .unwrap();
        assert_eq!(page.entries.len(), 100, "without a network");
    });
}
