//! What is left of a user who is erased, and the files afterwards.

use proto::ids::Seq;
use proto::payload::{PresenceChoice, PresenceState};
use tokio_util::sync::CancellationToken;

use super::world::*;
use crate::domain::contact::{Contact, ContactChange, ContactCounts, Decided};
use crate::domain::entry::{BodyFormat, Draft, EntryKind, Outcome};
use crate::domain::overlay::{Act, Report};
use crate::domain::presence::PresenceChange;
use crate::domain::profile::{Circle, Profile};
use crate::domain::purge::Purge;
use crate::domain::user::User;
use crate::store::{ChatStore, StoreError};

super::stories![
    what_a_user_told_of_himself_is_forgotten,
    of_a_removed_user_all_is_forgotten,
    what_was_sent_is_not_recognised_by_what_it_said,
    files_are_written_anew_by_one_at_a_time_and_not_after_the_end,
];

fn report(by: u8, mid: &str) -> Report {
    Report {
        settled: false,
        ts_ms: 5,
        by: uid(by),
        mid: mid.parse().unwrap(),
        conversation: cid(1),
        seq: seq(2),
        text: "he is rude".to_owned(),
    }
}

/// Two users; the first one has told much of himself.
async fn fill(store: &dyn ChatStore) {
    make_group(store, cid(1), &[1, 2]).await;
    say(store, cid(1), 1, "m").await;
    for (number, handle) in [(1, "alice"), (2, "bob")] {
        store.create_user(user(number, handle)).await.unwrap();
        store.report(report(number, handle)).await.unwrap();
        store.put_token(token(number, handle)).await.unwrap();
    }
    let mut profile = Profile::default();
    profile.privacy.presence.who = Circle::Nobody;
    profile.status = "in love".to_owned();
    let before = Profile::default();
    let replaced = store.replace_profile(uid(1), before, profile).await;
    assert!(replaced.unwrap());
    for (of, other) in [(1, 2), (2, 1)] {
        let called = "Bobby".to_owned();
        let add = ContactChange::Add { called };
        let max = ContactCounts {
            contacts: 9,
            blocked: 9,
        };
        let changed = store.change_contact(uid(of), uid(other), add, max, 7).await;
        assert_eq!(changed, Ok(Decided::Changed));
    }
    let choice = PresenceChoice {
        state: PresenceState::Invisible,
        text: "hiding".to_owned(),
    };
    let change = PresenceChange {
        user: uid(1),
        choice: Some(choice),
        seen_ms: 60_000,
    };
    store.put_presence(vec![change]).await.unwrap();
}

async fn what_a_user_told_of_himself_is_forgotten(world: World) {
    let store = world.open();
    fill(&*store).await;
    assert_eq!(store.forget(uid(1)).await, Ok(1));
    let store = world.reopen(store).await;
    let mut stays = Profile::default();
    stays.privacy.presence.who = Circle::Nobody;
    assert_eq!(store.profile(uid(1)).await.unwrap(), stays);
    let contact = store.contact(uid(1), uid(2)).await.unwrap();
    assert_eq!((contact.called.as_str(), contact.added_ms), ("", Some(7)));
    let contact = store.contact(uid(2), uid(1)).await.unwrap();
    assert_eq!(contact.called, "Bobby", "it is the other one's");
    let presence = store.presence(uid(1)).await.unwrap();
    assert_eq!(presence.choice.state, PresenceState::Invisible);
    assert_eq!(presence.choice.text, "");
    let labels = async |number| {
        let tokens = store.tokens(uid(number)).await.unwrap();
        tokens
            .into_iter()
            .map(|token| token.label)
            .collect::<Vec<_>>()
    };
    assert_eq!(labels(1).await, [""]);
    assert_eq!(labels(2).await, ["laptop"]);
    let reports = store.reports(None, 9).await.unwrap();
    let empty: Vec<_> = reports.iter().map(|one| one.text.is_empty()).collect();
    assert_eq!(empty, [true, false], "the report stays, its words go");
    assert_eq!(store.forget(uid(1)).await, Ok(0));
}

async fn of_a_removed_user_all_is_forgotten(world: World) {
    let store = world.open();
    fill(&*store).await;
    let removed = User {
        removed_ms: Some(9),
        ..user(1, "alice")
    };
    store.update_user(removed).await.unwrap();
    // Whatever came after the removal.
    store.put_token(token(1, "late")).await.unwrap();
    assert_eq!(store.forget(uid(1)).await, Ok(1));
    assert_eq!(store.profile(uid(1)).await.unwrap(), Profile::default());
    assert_eq!(store.tokens(uid(1)).await.unwrap(), []);
    let contact = store.contact(uid(1), uid(2)).await.unwrap();
    assert_eq!(contact, Contact::none(uid(2)));
    assert_eq!(store.presence(uid(1)).await.unwrap().choice.text, "");
}

async fn what_was_sent_is_not_recognised_by_what_it_said(world: World) {
    let store = world.open();
    fill(&*store).await;
    let edit = Draft {
        kind: EntryKind::Edit,
        target: Some(seq(2)),
        act: Some(Act::Edit),
        ..draft(cid(1), 1, "edit", 1)
    };
    place(append(&*store, edit).await);
    let deletion = Draft {
        kind: EntryKind::Deleted,
        format: BodyFormat::Json,
        target: Some(seq(2)),
        act: Some(Act::Delete),
        ..draft(cid(1), 1, "deletion", 1)
    };
    place(append(&*store, deletion).await);
    let traces = Purge::Traces {
        of: uid(1),
        from: Seq::ZERO,
    };
    store.purge(cid(1), traces).await.unwrap();
    store.forget(uid(1)).await.unwrap();
    let digest = async |by: u8, mid: &str| {
        let place = store.place_of(cid(1), uid(by), &mid.parse().unwrap()).await;
        place.unwrap().unwrap().digest
    };
    for mid in ["created", "m", "edit", "deletion", "alice"] {
        assert_eq!(digest(1, mid).await, [0; 16], "{mid}");
    }
    assert_ne!(digest(2, "bob").await, [0; 16]);
    let again = append(&*store, draft(cid(1), 1, "m", 1)).await;
    assert_eq!(again, Outcome::Conflict);
}

async fn files_are_written_anew_by_one_at_a_time_and_not_after_the_end(world: World) {
    let store = world.open();
    fill(&*store).await;
    let goes_on = CancellationToken::new();
    let ended = CancellationToken::new();
    ended.cancel();
    let is_fjall = world.options.engine == crate::store::EngineKind::Fjall;
    if is_fjall {
        let refused = store.reclaim(&ended).await;
        assert!(matches!(refused, Err(StoreError::NotNow(_))), "{refused:?}");
        let (one, other) = tokio::join!(store.reclaim(&goes_on), store.reclaim(&goes_on));
        assert_eq!(one, Ok(true));
        assert!(matches!(other, Err(StoreError::NotNow(_))), "{other:?}");
    }
    assert_eq!(say(&*store, cid(1), 2, "later").await, seq(3), "it goes on");
}
