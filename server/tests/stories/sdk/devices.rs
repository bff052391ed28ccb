//! Several devices of one user, several clients in one process, and restored backups.

use std::fs;

use client_sdk::{Content, Error, Event, Seq, StoreError};
use tempfile::TempDir;

use super::world::{address, in_folder, in_memory, next_entry, next_texts, open, story, until};
use crate::harness::Server;

#[test]
fn another_device_gets_everything_and_what_was_read() {
    let server = Server::dev();
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    story(async {
        let alice = in_memory(&server, "alice").await;
        let phone = in_folder(&server, "bob", folders[0].path()).await;
        let tablet = in_folder(&server, "bob", folders[1].path()).await;
        phone.online().await.unwrap();
        tablet.online().await.unwrap();
        let mut on_phone = phone.events().await.unwrap();
        let mut on_tablet = tablet.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        chat.send("one").await.unwrap();
        chat.send("two").await.unwrap();
        assert_eq!(next_texts(&mut on_phone, 2).await, ["one", "two"]);
        assert_eq!(next_texts(&mut on_tablet, 2).await, ["one", "two"]);

        let cid = chat.id().await.unwrap().unwrap();
        let theirs = tablet.conversation(cid);
        while theirs
            .summary()
            .await
            .unwrap()
            .is_none_or(|known| known.unread != 2)
        {
            until(&mut on_tablet, |event| *event == Event::Conversation(cid)).await;
        }
        phone.conversation(cid).read(Seq::new(2)).await.unwrap();
        while theirs.summary().await.unwrap().unwrap().unread != 0 {
            until(&mut on_tablet, |event| *event == Event::Conversation(cid)).await;
        }
        // What one of them hides goes from the other.
        phone.conversation(cid).hide(Seq::new(1)).await.unwrap();
        let gone = Event::Updated {
            cid,
            seq: Seq::new(1),
        };
        until(&mut on_tablet, |event| *event == gone).await;
        let hidden = theirs.entry(Seq::new(1)).await.unwrap().unwrap();
        assert_eq!(hidden.text(), None);
        assert!(matches!(hidden.content, Content::Gone { .. }), "{hidden:?}");
        // What one of them writes is a message of its user on the other.
        phone
            .conversation(cid)
            .send("from the phone")
            .await
            .unwrap();
        let own = next_entry(&mut on_tablet).await;
        assert_eq!((own.author(), own.text()), ("bob", Some("from the phone")));
        assert_eq!(
            tablet.conversations().await.unwrap()[0]
                .peer
                .as_ref()
                .unwrap()
                .handle,
            "alice"
        );
    });
}

#[test]
fn a_folder_is_of_one_client_and_one_user() {
    let server = Server::dev();
    let folder = TempDir::new().unwrap();
    story(async {
        let alice = in_folder(&server, "alice", folder.path()).await;
        alice.online().await.unwrap();
        let again = open(&address(&server), "alice", Some(folder.path())).await;
        assert!(matches!(again, Err(Error::Store(StoreError::InUse))));
        alice.close().await;
        // There is something for bob that is pushed to whoever subscribes as bob.
        let carol = in_memory(&server, "carol").await;
        in_memory(&server, "bob").await.online().await.unwrap();
        carol.direct("bob").unwrap().send("secret").await.unwrap();
        carol.flushed().await.unwrap();
        let bob = in_folder(&server, "bob", folder.path()).await;
        let other = bob.online().await.unwrap_err();
        assert!(
            matches!(&other, Error::Store(StoreError::OtherUser { owner }) if owner == "alice"),
            "{other}"
        );
        bob.close().await;
        let alice = in_folder(&server, "alice", folder.path()).await;
        assert_eq!(alice.conversations().await.unwrap().len(), 0);
        assert_eq!(alice.search("secret", 9, None).await.unwrap().entries, []);
    });
}

#[test]
fn what_a_restored_backup_lacks_is_filled_once_and_in_order() {
    let server = Server::dev();
    let (folder, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    story(async {
        let alice = in_memory(&server, "alice").await;
        let bob = in_folder(&server, "bob", folder.path()).await;
        bob.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        chat.send("1").await.unwrap();
        assert_eq!(next_texts(&mut heard, 1).await, ["1"]);
        // Confirms it.
        heard.confirm_through(heard.position()).await.unwrap();
        drop(heard);
        bob.close().await;
        fs::copy(
            folder.path().join("store.redb"),
            backup.path().join("store.redb"),
        )
        .unwrap();

        let bob = in_folder(&server, "bob", folder.path()).await;
        let mut heard = bob.events().await.unwrap();
        for number in 2..=200 {
            chat.send(number.to_string()).await.unwrap();
        }
        next_texts(&mut heard, 199).await;
        alice.flushed().await.unwrap();
        drop(heard);
        bob.close().await;

        // The server believes that this device has all of it.
        let bob = in_folder(&server, "bob", backup.path()).await;
        let mut heard = bob.events().await.unwrap();
        let wanted: Vec<_> = (2..=200).map(|number| number.to_string()).collect();
        assert_eq!(next_texts(&mut heard, 199).await, wanted);
        chat.send("201").await.unwrap();
        assert_eq!(next_texts(&mut heard, 1).await, ["201"]);
    });
}
