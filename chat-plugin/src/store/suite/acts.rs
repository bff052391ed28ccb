//! Edits, deletions, reactions, pins, hiding, expiry, reports: what pages and counts say of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::ids::{Seq, UserId};

use super::world::*;
use crate::domain::account::Preferences;
use crate::domain::entry::{BodyFormat, Draft, Entry, EntryKind, Outcome};
use crate::domain::overlay::{
    Act, ActRefused, EDITS_MAX, EMOJI_PER_MESSAGE_MAX, EMOJI_PER_USER_MAX, GoneReason, HiddenBy,
    PINS_MAX, React, Report,
};
use crate::store::{ChatStore, HIDDEN_LATELY_MAX, PageRange, StoreError};

super::stories![
    the_latest_edit_is_shown_in_the_place_of_the_message,
    a_page_stays_within_its_bytes_when_edits_are_long,
    a_deletion_leaves_the_place_only,
    reactions_are_a_set_of_each_user,
    reactions_are_bounded,
    pins_come_and_go,
    what_is_not_there_cannot_be_acted_on,
    acts_see_what_their_batch_has_stored,
    an_act_is_stored_once,
    readers_are_told_what_has_changed,
    the_last_that_a_user_has_hidden_are_known_in_their_order,
    what_is_hidden_is_so_for_one_user,
    what_expires_is_gone,
    unread_is_what_a_recount_says,
    acts_survive_a_kill,
    a_report_is_stored_once,
];

fn act(from: u8, mid: &str, target: Seq, act: Act) -> Draft {
    let kind = match act {
        Act::Edit => EntryKind::Edit,
        Act::Delete => EntryKind::Deleted,
        Act::React(_) => EntryKind::Reaction,
        Act::Pin(_) => EntryKind::Pin,
    };
    let format = match kind {
        EntryKind::Edit => BodyFormat::Text,
        _ => BodyFormat::Json,
    };
    Draft {
        kind,
        format,
        target: Some(target),
        act: Some(act),
        ..draft(cid(1), from, mid, 1)
    }
}

fn react(from: u8, mid: &str, target: Seq, emoji: &str) -> Draft {
    act(from, mid, target, Act::React(React::Add(emoji.into())))
}

async fn one(store: &dyn ChatStore, at: Seq) -> Entry {
    let range = PageRange {
        from: at,
        to: at,
        newest: false,
        limit: 1,
        bytes: 1,
        as_of: Seq::MAX,
    };
    store.page(cid(1), range).await.unwrap().remove(0)
}

async fn unread(store: &dyn ChatStore, user: u8, after: u64, to: u64) -> u64 {
    let count = |at| store.count_up_to(cid(1), uid(user), seq(at));
    let (to, from) = (count(to).await.unwrap(), count(after).await.unwrap());
    to.unread_since(from)
}

async fn the_latest_edit_is_shown_in_the_place_of_the_message(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "first").await;
    place(append(&*store, act(1, "second", message, Act::Edit)).await);
    let last = place(append(&*store, act(1, "third", message, Act::Edit)).await);
    let store = world.reopen(store).await;
    let shown = one(&*store, message).await;
    assert_eq!(&*shown.body, b"third");
    assert_eq!(shown.mid.as_str(), "first");
    let overlay = shown.overlay.unwrap();
    assert_eq!(
        (overlay.edits.last(), overlay.edited_ms),
        (Some(&last), 1_000)
    );
    assert_eq!(&*one(&*store, last).await.body, b"third");
    assert_eq!(&*one(&*store, seq(3)).await.body, b"second");
    assert_eq!(
        unread(&*store, 2, 0, 9).await,
        1,
        "an edit is not a message"
    );

    for number in 2..EDITS_MAX {
        place(append(&*store, act(1, &format!("e{number}"), message, Act::Edit)).await);
    }
    assert_eq!(
        append(&*store, act(1, "one-more", message, Act::Edit)).await,
        Outcome::Refused(ActRefused::Full)
    );
}

async fn a_page_stays_within_its_bytes_when_edits_are_long(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    for number in 2..=4 {
        say(&*store, cid(1), 1, &number.to_string()).await;
    }
    for number in 2..=4 {
        let long = Draft {
            body: Bytes::from(vec![b'x'; 100]),
            ..act(1, &format!("e{number}"), seq(number), Act::Edit)
        };
        place(append(&*store, long).await);
    }
    for (newest, limited, expected) in [
        (false, 250, vec![2, 3]),
        (true, 250, vec![3, 4]),
        (false, 1, vec![2]),
        (true, 1, vec![4]),
    ] {
        let range = PageRange {
            from: seq(2),
            to: seq(4),
            newest,
            limit: 9,
            bytes: limited,
            as_of: Seq::MAX,
        };
        let page = store.page(cid(1), range).await.unwrap();
        let seqs: Vec<u64> = page.iter().map(|entry| entry.seq.get()).collect();
        assert_eq!(seqs, expected, "{newest} {limited}");
    }
}

async fn a_deletion_leaves_the_place_only(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3]).await;
    let message = say(&*store, cid(1), 1, "secret-body").await;
    let edit = place(append(&*store, act(1, "secret-edit", message, Act::Edit)).await);
    place(append(&*store, react(2, "r", message, "👍")).await);
    place(append(&*store, act(1, "p", message, Act::Pin(true))).await);
    assert_eq!(store.hide(cid(1), message, uid(3), 5).await, Ok(true));
    let counts = store.count_up_to(cid(1), uid(2), Seq::MAX).await.unwrap();
    assert_eq!((counts.all, counts.excluded), (1, 0));

    place(append(&*store, act(1, "del", message, Act::Delete)).await);
    let store = world.reopen(store).await;
    for at in [message, edit] {
        let gone = one(&*store, at).await;
        assert_eq!(gone.gone, Some(GoneReason::Deleted));
        assert!(gone.body.is_empty() && gone.overlay.is_none());
        assert_eq!(gone.mseq, 1, "it keeps its place");
    }
    let reactions = store.reactions(cid(1), message, None, 9).await.unwrap();
    assert!(reactions.is_empty());
    assert!(store.pins(cid(1)).await.unwrap().is_empty());
    let hidden = store.hidden(cid(1), uid(3), vec![message]).await.unwrap();
    assert!(hidden.is_empty(), "it is gone for all");
    for user in 1..=4 {
        assert_eq!(unread(&*store, user, 0, 99).await, 0, "user {user}");
    }
    assert_eq!(
        append(&*store, act(1, "again", message, Act::Delete)).await,
        Outcome::Refused(ActRefused::NoTarget)
    );
    assert_eq!(store.hide(cid(1), message, uid(2), 5).await, Ok(false));
    store.close().await.unwrap();
    drop(store);
    #[cfg(all(feature = "fjall", feature = "sled"))]
    if world.is_on_disk() {
        let file = world.home.path().join("dump");
        super::crash::dump(&world.options, &file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        // Ids are kept: the mid of a message, which is its body here, is there once, in its row and in its key.
        let found = bytes.windows(11).filter(|part| part == b"secret-body");
        assert_eq!(found.count(), 2, "as mid, not as body");
    }
}

async fn reactions_are_a_set_of_each_user(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let remove = |mid, emoji: &str| act(2, mid, message, Act::React(React::Remove(emoji.into())));
    let unchanged = Outcome::Refused(ActRefused::Unchanged);
    place(append(&*store, react(2, "a", message, "👍")).await);
    assert_eq!(
        append(&*store, react(2, "b", message, "👍")).await,
        unchanged
    );
    place(append(&*store, react(3, "c", message, "👍")).await);
    place(append(&*store, react(2, "d", message, "🎉")).await);
    assert_eq!(append(&*store, remove("e", "🐛")).await, unchanged);
    place(append(&*store, remove("f", "👍")).await);
    let store = world.reopen(store).await;
    let overlay = one(&*store, message).await.overlay.unwrap();
    assert_eq!(overlay.reactions, [("👍".into(), 1), ("🎉".into(), 1)]);
    let all = store.reactions(cid(1), message, None, 9).await.unwrap();
    assert_eq!(
        all,
        [(uid(2), vec!["🎉".into()]), (uid(3), vec!["👍".into()])]
    );
    let after = store.reactions(cid(1), message, Some(uid(2)), 9).await;
    assert_eq!(after.unwrap(), [(uid(3), vec!["👍".into()])]);
    let own = store.reacted(cid(1), uid(2), vec![seq(1), message]).await;
    assert_eq!(own.unwrap(), [(message, vec!["🎉".into()])]);
    place(append(&*store, act(2, "g", message, Act::React(React::Clear))).await);
    let clear = act(2, "h", message, Act::React(React::Clear));
    assert_eq!(append(&*store, clear).await, unchanged);
    place(append(&*store, act(3, "i", message, Act::React(React::Clear))).await);
    assert_eq!(one(&*store, message).await.overlay, None);
}

async fn reactions_are_bounded(world: World) {
    let store = world.open();
    let users: Vec<u8> = (1..=10).collect();
    make_group(&*store, cid(1), &users).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let full = Outcome::Refused(ActRefused::Full);
    let mut drafts = Vec::new();
    for number in 0..EMOJI_PER_MESSAGE_MAX {
        let from = users[number / EMOJI_PER_USER_MAX];
        drafts.push(react(
            from,
            &format!("r{number}"),
            message,
            &format!("e{number}"),
        ));
    }
    for outcome in store.append(drafts).await.unwrap() {
        place(outcome);
    }
    assert_eq!(
        append(&*store, react(1, "x", message, "one-more")).await,
        full,
        "of one user"
    );
    assert_eq!(
        append(&*store, react(10, "y", message, "one-more")).await,
        full,
        "on one message"
    );
    place(append(&*store, react(10, "z", message, "e0")).await);
}

async fn pins_come_and_go(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let other = say(&*store, cid(1), 1, "n").await;
    let unchanged = Outcome::Refused(ActRefused::Unchanged);
    place(append(&*store, act(2, "a", other, Act::Pin(true))).await);
    place(append(&*store, act(2, "b", message, Act::Pin(true))).await);
    assert_eq!(
        append(&*store, act(2, "c", message, Act::Pin(true))).await,
        unchanged
    );
    let store = world.reopen(store).await;
    let pins = store.pins(cid(1)).await.unwrap();
    let seqs: Vec<Seq> = pins.iter().map(|pin| pin.seq).collect();
    assert_eq!(seqs, [message, other]);
    assert_eq!((pins[0].by, pins[0].ts_ms), (uid(2), 1_000));
    assert!(one(&*store, message).await.overlay.unwrap().pinned);
    place(append(&*store, act(1, "d", message, Act::Pin(false))).await);
    assert_eq!(
        append(&*store, act(1, "e", message, Act::Pin(false))).await,
        unchanged
    );
    assert_eq!(store.pins(cid(1)).await.unwrap().len(), 1);
    assert_eq!(one(&*store, message).await.overlay, None);
    for number in 1..PINS_MAX {
        let message = say(&*store, cid(1), 1, &format!("m{number}")).await;
        place(
            append(
                &*store,
                act(1, &format!("p{number}"), message, Act::Pin(true)),
            )
            .await,
        );
    }
    assert_eq!(
        append(&*store, act(1, "too-many", message, Act::Pin(true))).await,
        Outcome::Refused(ActRefused::Full)
    );
}

async fn what_is_not_there_cannot_be_acted_on(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let reaction = place(append(&*store, react(2, "r", message, "👍")).await);
    let refused = Outcome::Refused(ActRefused::NoTarget);
    for (number, target) in [Seq::ZERO, seq(1), reaction, seq(99)]
        .into_iter()
        .enumerate()
    {
        for (kind, act_) in [Act::Edit, Act::Delete, Act::Pin(true)]
            .into_iter()
            .enumerate()
        {
            let draft = act(1, &format!("{number}-{kind}"), target, act_);
            assert_eq!(append(&*store, draft).await, refused, "{target}");
        }
        let draft = react(1, &format!("{number}-r"), target, "👍");
        assert_eq!(append(&*store, draft).await, refused, "{target}");
    }
    assert_eq!(all(&*store, cid(1)).await.len(), 3, "nothing was stored");
    let none = store.hide(cid(1), seq(99), uid(1), 1).await;
    assert_eq!(none, Err(StoreError::NotFound));
}

async fn acts_see_what_their_batch_has_stored(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let outcomes = store
        .append(vec![
            draft(cid(1), 1, "m", 1),
            act(1, "edited", seq(2), Act::Edit),
            react(1, "r", seq(2), "👍"),
            react(1, "s", seq(2), "🎉"),
            draft(cid(1), 1, "n", 1),
            act(1, "p", seq(6), Act::Pin(true)),
            act(1, "d", seq(6), Act::Delete),
            act(1, "q", seq(2), Act::Pin(true)),
        ])
        .await
        .unwrap();
    let seqs: Vec<u64> = outcomes.into_iter().map(|one| place(one).get()).collect();
    assert_eq!(seqs, [2, 3, 4, 5, 6, 7, 8, 9]);
    let shown = one(&*store, seq(2)).await;
    assert_eq!(&*shown.body, b"edited");
    let overlay = shown.overlay.unwrap();
    assert_eq!(overlay.reactions.len(), 2);
    assert!(overlay.pinned);
    assert_eq!(one(&*store, seq(6)).await.gone, Some(GoneReason::Deleted));
    assert_eq!(store.pins(cid(1)).await.unwrap().len(), 1);
}

async fn an_act_is_stored_once(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let edit = place(append(&*store, act(1, "e", message, Act::Edit)).await);
    let deletion = place(append(&*store, act(1, "d", message, Act::Delete)).await);
    let store = world.reopen(store).await;
    let again = append(&*store, act(1, "d", message, Act::Delete)).await;
    assert_eq!(first(again), deletion);
    let again = append(&*store, act(1, "e", message, Act::Edit)).await;
    assert_eq!(first(again), edit, "and brings nothing back");
    assert!(one(&*store, edit).await.body.is_empty());
}

async fn readers_are_told_what_has_changed(world: World) {
    let store = world.open();
    let mut feed = store.feed();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let edit = place(append(&*store, act(1, "e", message, Act::Edit)).await);
    place(append(&*store, react(2, "r", message, "👍")).await);
    place(append(&*store, act(1, "d", message, Act::Delete)).await);
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(feed.recv().await.unwrap());
    }
    assert!(told[0].changed.is_empty() && told[1].changed.is_empty());
    let [edited] = &told[2].changed[..] else {
        panic!()
    };
    assert_eq!((edited.seq, &*edited.body), (message, &b"e"[..]));
    let [reacted] = &told[3].changed[..] else {
        panic!()
    };
    assert_eq!(&*reacted.body, b"e", "the edit is still shown");
    assert_eq!(
        reacted.overlay.as_ref().unwrap().reactions,
        [("👍".into(), 1)]
    );
    let gone: Vec<Seq> = told[4].changed.iter().map(|entry| entry.seq).collect();
    assert_eq!(gone, [message, edit]);
    assert!(told[4].changed.iter().all(|entry| entry.body.is_empty()));
    assert_eq!(told[4].entry.as_ref().unwrap().kind, EntryKind::Deleted);
}

async fn the_last_that_a_user_has_hidden_are_known_in_their_order(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let mut hidden = Vec::new();
    for number in 0..=HIDDEN_LATELY_MAX {
        hidden.push(say(&*store, cid(1), 1, &number.to_string()).await);
    }
    hidden.reverse();
    for seq in &hidden {
        store.hide(cid(1), *seq, uid(2), 5).await.unwrap();
        store.hide(cid(1), *seq, uid(2), 6).await.unwrap();
    }
    let preferences = Preferences {
        archived: true,
        ..Preferences::default()
    };
    let set = store.set_preferences(uid(2), cid(1), preferences);
    set.await.unwrap();
    let store = world.reopen(store).await;
    let lately = store.hidden_lately(cid(1), uid(2)).await.unwrap();
    assert_eq!(lately, hidden[1..]);
    assert_eq!(store.hidden_lately(cid(1), uid(1)).await, Ok(Vec::new()));
    let found = store.preferences(uid(2), vec![cid(1)]).await.unwrap();
    assert_eq!(found, [preferences]);
}

async fn what_is_hidden_is_so_for_one_user(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let other = say(&*store, cid(1), 1, "n").await;
    assert_eq!(store.hide(cid(1), message, uid(2), 5).await, Ok(true));
    assert_eq!(store.hide(cid(1), message, uid(2), 5).await, Ok(false));
    assert_eq!(
        store.hide(cid(1), other, uid(1), 5).await,
        Ok(true),
        "an own one"
    );
    let store = world.reopen(store).await;
    let hidden = store.hidden(cid(1), uid(2), vec![message, other]).await;
    assert_eq!(hidden.unwrap(), [(message, HiddenBy::Wish)]);
    let members = store.members(cid(1), None, 9).await.unwrap();
    let last: Vec<Seq> = members.iter().map(|(_, marks)| marks.hidden).collect();
    assert_eq!(last, [other, message]);
    assert_eq!(unread(&*store, 2, 0, 9).await, 1);
    assert_eq!(unread(&*store, 1, 0, 9).await, 0);
    let counts = store.count_up_to(cid(1), uid(1), Seq::MAX).await.unwrap();
    assert_eq!(
        (counts.own, counts.excluded),
        (2, 0),
        "own ones do not count anyway"
    );
}

async fn what_expires_is_gone(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let lasting = |mid, expires_ms| Draft {
        expires_ms: Some(expires_ms),
        ..draft(cid(1), 1, mid, 1)
    };
    let early = place(append(&*store, lasting("early", 2_000)).await);
    let edit = Draft {
        expires_ms: Some(2_000),
        ..act(1, "edit", early, Act::Edit)
    };
    place(append(&*store, edit).await);
    let late = place(append(&*store, lasting("late", 3_000)).await);
    assert_eq!(unread(&*store, 2, 0, 9).await, 2);
    assert_eq!(store.expire(1_999).await, Ok(0));
    let store = world.reopen(store).await;
    let mut feed = store.feed();
    assert_eq!(store.expire(2_000).await, Ok(2));
    assert_eq!(one(&*store, early).await.gone, Some(GoneReason::Expired));
    assert_eq!(one(&*store, seq(3)).await.gone, Some(GoneReason::Expired));
    assert_eq!(one(&*store, late).await.gone, None);
    assert_eq!(one(&*store, late).await.expires_ms, Some(3_000));
    assert_eq!(unread(&*store, 2, 0, 9).await, 1);
    let told = feed.recv().await.unwrap();
    assert!(told.entry.is_none() && !told.changed.is_empty());
    assert_eq!(told.head, late);
    assert_eq!(store.expire(2_500).await, Ok(0), "once");
    place(append(&*store, act(1, "del", late, Act::Delete)).await);
    assert_eq!(store.expire(9_000).await, Ok(0), "deleted before");
    assert_eq!(one(&*store, late).await.gone, Some(GoneReason::Deleted));
}

/// A sequence of numbers that is the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

async fn unread_is_what_a_recount_says(world: World) {
    const STEPS: u64 = 700;
    let mut numbers = Numbers(4);
    let mut store = world.open();
    make_group(&*store, cid(1), &[1, 2, 3]).await;
    let mut hidden: BTreeMap<UserId, BTreeSet<Seq>> = BTreeMap::new();
    let mut head = 1;
    for step in 0..STEPS {
        let user = u8::try_from(1 + numbers.below(3)).unwrap();
        let target = seq(1 + numbers.below(head));
        let mid = format!("s{step}");
        let outcome = match numbers.below(10) {
            0 => append(&*store, act(user, &mid, target, Act::Delete)).await,
            1 => append(&*store, act(user, &mid, target, Act::Edit)).await,
            2 => append(&*store, react(user, &mid, target, "👍")).await,
            3 | 4 => {
                if store.hide(cid(1), target, uid(user), step).await.unwrap() {
                    hidden.entry(uid(user)).or_default().insert(target);
                }
                continue;
            }
            5 => {
                store.expire(1_000 + step).await.unwrap();
                continue;
            }
            6 => {
                let lasting = Draft {
                    expires_ms: Some(1_000 + step + numbers.below(60)),
                    ..draft(cid(1), user, &mid, 1)
                };
                append(&*store, lasting).await
            }
            _ => append(&*store, draft(cid(1), user, &mid, 1)).await,
        };
        head += u64::from(matches!(outcome, Outcome::Stored { .. }));
        if step % 233 == 0 {
            store = world.reopen(store).await;
        }
    }
    assert!(head > 300, "more than one block of counters: {head}");
    let entries = all(&*store, cid(1)).await;
    assert_eq!(entries.len() as u64, head);
    for user in 1..=4 {
        let hides = |entry: &Entry| {
            let of_user = hidden.get(&uid(user));
            of_user.is_some_and(|seqs| seqs.contains(&entry.seq))
        };
        for after in (0..head).step_by(7) {
            for to in [after + 1, after + 40, head] {
                let recount = entries.iter().filter(|entry| {
                    (after + 1..=to).contains(&entry.seq.get())
                        && entry.kind.is_countable()
                        && entry.gone.is_none()
                        && entry.from != uid(user)
                        && !hides(entry)
                });
                let expected = recount.count() as u64;
                let counted = unread(&*store, user, after, to.min(head)).await;
                assert_eq!(counted, expected, "user {user}, ({after}, {to}]");
            }
        }
    }
}

async fn acts_survive_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    let message = say(&*store, cid(1), 1, "m").await;
    let other = say(&*store, cid(1), 1, "n").await;
    place(append(&*store, act(1, "edit", message, Act::Edit)).await);
    place(append(&*store, react(2, "r", message, "👍")).await);
    place(append(&*store, act(1, "d", other, Act::Delete)).await);
    store.hide(cid(1), message, uid(2), 5).await.unwrap();
    let killed = world.killed().open();
    assert_eq!(all(&*killed, cid(1)).await, all(&*store, cid(1)).await);
    let hidden = killed.hidden(cid(1), uid(2), vec![message]).await;
    assert_eq!(hidden.unwrap(), [(message, HiddenBy::Wish)]);
    assert_eq!(unread(&*killed, 2, 0, 9).await, 0);
}

async fn a_report_is_stored_once(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1, 2]).await;
    say(&*store, cid(1), 1, "rude").await;
    let report = |ts_ms: u64, mid: &str, about: u64| Report {
        ts_ms,
        by: uid(2),
        mid: mid.parse().unwrap(),
        conversation: cid(1),
        seq: seq(about),
        text: "rude".to_owned(),
        settled: false,
    };
    assert_eq!(store.report(report(5, "a", 1)).await, Ok(true));
    assert_eq!(store.report(report(9, "a", 1)).await, Ok(true));
    let other = store.report(report(9, "a", 2)).await;
    assert_eq!(other, Ok(false), "something else under its message id");
    assert_eq!(store.report(report(7, "b", 2)).await, Ok(true));
    let store = world.reopen(store).await;
    assert_eq!(store.report(report(11, "b", 2)).await, Ok(true));
    let all = store.reports(None, 9).await.unwrap();
    assert_eq!(all, [report(5, "a", 1), report(7, "b", 2)]);
    let rest = store.reports(Some(&all[0].key()), 9).await.unwrap();
    assert_eq!(rest, [report(7, "b", 2)]);
    let key = all[0].key();
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    assert_eq!(store.reported(&key).await, Ok(Some(all[0].clone())));
    let settled = Report {
        settled: true,
        ..all[0].clone()
    };
    assert_eq!(store.settle_report(&key, None).await, Ok(true));
    assert_eq!(store.settle_report(&key, None).await, Ok(false), "again");
    let store = world.reopen(store).await;
    assert_eq!(store.reported(&key).await, Ok(Some(settled)), "it stays");
    assert_eq!(store.close_report(&key).await, Ok(true));
    assert_eq!(store.close_report(&key).await, Ok(false));
    assert_eq!(store.settle_report(&key, None).await, Ok(false));
    assert_eq!(store.reported(&key).await, Ok(None));
    assert_eq!(store.reports(None, 9).await.unwrap(), rest);
    let key = rest[0].key();
    assert_eq!(store.settle_report(&key, None).await, Ok(true));
    assert_eq!(store.report(report(12, "c", 2)).await, Ok(true));
    let all = store.reports(None, 9).await.unwrap();
    assert_eq!(all, [report(12, "c", 2)], "in the place of the one before");
}
