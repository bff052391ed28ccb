//! Writing, reading and everything that is done to messages.

use std::time::Duration;

use client_sdk::{Advice, Content, Draft, Error, Event, PendingKind, Seq, Status, Typing, schema};

use super::world::{in_folder, in_memory, next_entry, next_texts, open, story, until};
use crate::harness::Server;

#[test]
fn the_first_example_of_the_readme_works() {
    let server = Server::dev();
    let said = story(super::two_users::chat(&super::world::address(&server)));
    assert_eq!(said.unwrap(), "alice: Hello Bob!");
}

#[test]
fn a_message_is_pending_sent_delivered_and_read() {
    let server = Server::dev();
    story(async {
        let folder = tempfile::TempDir::new().unwrap();
        let alice = in_memory(&server, "alice").await;
        let bob = in_folder(&server, "bob", folder.path()).await;
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
        // Now alice knows which conversation it is, too.
        alice.flushed().await.unwrap();

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

#[test]
fn history_is_paged_from_the_server_and_then_from_the_log() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let folder = tempfile::TempDir::new().unwrap();
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        for number in 0..120 {
            chat.send(number.to_string()).await.unwrap();
        }
        alice.flushed().await.unwrap();
        let cid = chat.id().await.unwrap().unwrap();
        bob.conversation(cid).read(Seq::new(120)).await.unwrap();
        bob.flushed().await.unwrap();

        // A new device: nothing is unread, thus nothing is pushed.
        let tablet = in_folder(&server, "bob", folder.path()).await;
        tablet.online().await.unwrap();
        let theirs = tablet.conversation(cid);
        let (mut before, mut texts) = (None, Vec::new());
        loop {
            let page = theirs.history(before, 50).await.unwrap();
            before = page.entries.first().map(|entry| entry.seq);
            let older = page
                .entries
                .iter()
                .map(|entry| entry.text().unwrap().to_owned());
            texts.splice(0..0, older);
            if !page.more {
                break;
            }
        }
        assert_eq!(
            texts,
            (0..120)
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
        );
        tablet.close().await;

        let away = open("mqtt://127.0.0.1:1", "bob", Some(folder.path()))
            .await
            .unwrap();
        let page = away
            .conversation(cid)
            .history(Some(Seq::new(3)), 10)
            .await
            .unwrap();
        assert_eq!(page.entries.len(), 2, "without a network");
        let found = away.search("119", 10, None).await.unwrap();
        assert_eq!(found.entries[0].seq, Seq::new(120));
        assert_eq!(found.next, None);
    });
}

#[test]
fn a_group_is_made_changed_and_left() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let bob = in_memory(&server, "bob").await;
        let carol = in_memory(&server, "carol").await;
        bob.online().await.unwrap();
        carol.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let group = alice.create_group("Lunch", &["@bob"]).await.unwrap();
        group.send("who is hungry?").await.unwrap();
        assert_eq!(next_texts(&mut heard, 1).await, ["who is hungry?"]);
        let cid = group.id().await.unwrap().unwrap();
        let theirs = bob.conversation(cid);
        while theirs
            .summary()
            .await
            .unwrap()
            .is_none_or(|known| known.title != "Lunch")
        {
            until(&mut heard, |event| *event == Event::Conversation(cid)).await;
        }
        group.add(&["@carol"]).await.unwrap();
        let added = next_entry(&mut heard).await;
        assert!(matches!(&added.content, Content::Change { kind, .. } if kind == "added"));
        assert_eq!(group.members().await.unwrap().len(), 3);
        let refused = theirs.remove("@carol").await.unwrap_err();
        assert_eq!(refused.advice(), Advice::Explain, "{refused}");
        group.remove("@carol").await.unwrap();
        theirs.leave(None).await.unwrap();
        assert_eq!(group.members().await.unwrap().len(), 1);
        let refused = theirs.members().await.unwrap_err();
        assert!(matches!(&refused, Error::Refused(refusal) if refusal.code == "not_found"));
    });
}

#[test]
fn typing_and_presence_are_told_while_they_last() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let bob = in_memory(&server, "bob").await;
        bob.online().await.unwrap();
        let mut told = alice.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        assert!(matches!(
            chat.typing(Typing::Typing).await,
            Err(Error::UnknownConversation)
        ));
        chat.send("hello").await.unwrap();
        alice.flushed().await.unwrap();
        let theirs = bob.conversation(chat.id().await.unwrap().unwrap());
        theirs.typing(Typing::Typing).await.unwrap();
        until(&mut told, |event| {
            matches!(event, Event::Typing { handle, typing: Typing::Typing, .. } if handle == "bob")
        })
        .await;

        let refused = alice.watch_presence("bob").await.unwrap_err();
        assert!(matches!(refused, Error::Refused(_)), "{refused}");
        let contact = schema::PeopleAdd {
            user: "@alice".into(),
            ..schema::PeopleAdd::default()
        };
        let params = schema::rpc_request::Params::PeopleAdd(contact);
        bob.call("people.add", params).await.unwrap();
        alice.watch_presence("bob").await.unwrap();
        let seen = |event: &Event, wanted: &str| matches!(event, Event::Presence(presence) if presence.state == wanted);
        until(&mut told, |event| seen(event, "online")).await;
        bob.set_presence("dnd", "in a meeting").await.unwrap();
        until(&mut told, |event| seen(event, "dnd")).await;
        alice.unwatch_presence("bob").await.unwrap();
    });
}

#[test]
fn what_is_refused_stays_until_the_app_decides() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let mut told = alice.events().await.unwrap();
        let nobody = alice.direct("nobody").unwrap();
        let mid = nobody.send("hello?").await.unwrap();
        let failed = until(&mut told, |event| matches!(event, Event::Failed { .. })).await;
        let Event::Failed { refusal, .. } = failed else {
            panic!()
        };
        assert_eq!(refusal.code, "not_found");
        let pending = nobody.pending().await.unwrap();
        assert_eq!(pending[0].refusal, Some(refusal));
        assert_eq!(pending[0].what, PendingKind::Message("hello?".into()));

        let _nobody = in_memory(&server, "nobody").await.online().await;
        assert!(alice.retry(&mid).await.unwrap());
        until(
            &mut told,
            |event| matches!(event, Event::Sent { mid: sent, .. } if *sent == mid),
        )
        .await;
        assert!(!alice.discard(&mid).await.unwrap(), "it is sent");

        let missing = alice.direct("missing").unwrap().send("x").await.unwrap();
        until(&mut told, |event| matches!(event, Event::Failed { .. })).await;
        assert!(alice.discard(&missing).await.unwrap());
        assert_eq!(alice.pending().await.unwrap(), []);
        assert!(matches!(nobody.send("").await, Err(Error::Invalid(_))));
    });
}

#[test]
fn drafts_carry_replies_threads_polls_and_an_end() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let note = alice.note();
        let mut told = alice.events().await.unwrap();
        note.send("root").await.unwrap();
        let root = next_entry(&mut told).await.seq;
        note.send(Draft::text("quoted").reply_to(root))
            .await
            .unwrap();
        note.send(Draft::text("deeper").thread(root)).await.unwrap();
        let ttl = Draft::text("brief").time_to_live(Duration::from_hours(1));
        note.send(ttl).await.unwrap();
        let poll = schema::ClientMessage {
            t: "tea or coffee?".into(),
            kind: "poll".into(),
            poll: Some(schema::Poll {
                options: vec!["tea".into(), "coffee".into()],
                ..schema::Poll::default()
            }),
            ..schema::ClientMessage::default()
        };
        note.send(Draft::body(poll.clone())).await.unwrap();
        let mut messages = Vec::new();
        while messages.len() < 4 {
            messages.extend(next_entry(&mut told).await.message().cloned());
        }
        assert_eq!(messages[0].reply_to, Some(root));
        assert_eq!(messages[1].thread, Some(root));
        assert_eq!(messages[3].body.poll, poll.poll);
        // What the server adds, the time at which it ends, comes with the copy in the inbox.
        alice.flushed().await.unwrap();
    });
}

#[test]
fn dropping_futures_loses_nothing_and_repeats_nothing() {
    let server = Server::dev();
    story(async {
        let folder = tempfile::TempDir::new().unwrap();
        let alice = in_memory(&server, "alice").await;
        let bob = in_folder(&server, "bob", folder.path()).await;
        bob.online().await.unwrap();
        let mut heard = bob.events().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        let mut wanted = Vec::new();
        for number in 0..60 {
            let text = number.to_string();
            if number % 3 == 0 {
                // Begun, and dropped: it is queued or it is not, but never half.
                let mid = format!("dropped-{number}").parse().unwrap();
                let send = chat.send(Draft::text(text.as_str()).mid(mid));
                let _ = tokio::time::timeout(Duration::from_micros(1), send).await;
            } else {
                chat.send(text.as_str()).await.unwrap();
                wanted.push(text);
            }
        }
        let mut texts = Vec::new();
        while texts.last() != wanted.last() {
            let next = tokio::time::timeout(Duration::from_micros(300), heard.next());
            if let Ok(event) = next.await
                && let Event::Entry(entry) = event.unwrap()
            {
                texts.push(entry.text().unwrap().to_owned());
            }
        }
        let once: std::collections::BTreeSet<_> = texts.iter().collect();
        assert_eq!(once.len(), texts.len(), "each once: {texts:?}");
        texts.retain(|text| wanted.contains(text));
        assert_eq!(texts, wanted);
    });
}

#[test]
fn an_app_that_does_not_read_holds_up_the_server_and_nothing_is_lost() {
    let server = Server::dev();
    story(async {
        let alice = in_memory(&server, "alice").await;
        let mut limits = super::world::impatient();
        limits.feed_entries_max = 5;
        limits.receive_maximum = 4;
        let bob = client_sdk::Client::builder(super::world::address(&server))
            .login("bob", "bob-secret")
            .limits(limits)
            .open()
            .await
            .unwrap();
        bob.online().await.unwrap();
        let chat = alice.direct("bob").unwrap();
        for number in 0..100 {
            chat.send(number.to_string()).await.unwrap();
        }
        alice.flushed().await.unwrap();
        let cid = chat.id().await.unwrap().unwrap();
        // What is here is what the feed may have, and one batch; the last message, which account sync tells, besides.
        let middle = bob.conversation(cid).entry(Seq::new(50)).await.unwrap();
        assert_eq!(middle, None);
        let mut heard = bob.events().await.unwrap();
        let wanted: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(next_texts(&mut heard, 100).await, wanted);
    });
}
