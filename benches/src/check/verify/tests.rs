//! For each rule a history that it passes, and the smallest one that it does not.

use super::*;
use crate::check::history::{Kind, Record, State};

const TO: &str = "g.1";

/// A client that has got all of [`log`], sent its first message, and is at its end.
fn history(name: &str, kind: Kind, events: Vec<Event>) -> History {
    let began = Event::Began {
        user: name.to_owned(),
        kind,
    };
    let records = [began].into_iter().chain(events).zip(1..);
    History {
        name: name.to_owned(),
        records: records.map(|(event, at)| Record { at, event }).collect(),
    }
}

fn chat(name: &str, events: Vec<Event>) -> Vec<History> {
    vec![history(name, Kind::Chat, events)]
}

fn text(id: &str) -> String {
    format!("{id} …")
}

fn send(id: &str) -> Event {
    Event::Send {
        id: id.to_owned(),
        to: TO.to_owned(),
        text: text(id),
        qos: 1,
        packet_id: 1,
    }
}

fn acked(id: &str, seq: u64) -> Event {
    Event::Acked {
        id: id.to_owned(),
        seq: Some(seq),
        dup: false,
    }
}

fn message(seq: u64, id: &str) -> Seen {
    Seen {
        to: TO.to_owned(),
        seq,
        kind: "message".to_owned(),
        from: id.split('-').next().unwrap_or_default().to_owned(),
        id: id.to_owned(),
        text: text(id),
        ts: 1_000 + seq,
        ..Seen::default()
    }
}

fn change(seq: u64, kind: &str, about: &[&str]) -> Seen {
    Seen {
        to: TO.to_owned(),
        seq,
        kind: kind.to_owned(),
        from: "a".to_owned(),
        about: about.iter().map(|one| (*one).to_owned()).collect(),
        ts: 1_000 + seq,
        ..Seen::default()
    }
}

fn got(seen: Seen) -> Event {
    Event::Got {
        seen,
        packet_id: None,
    }
}

fn log(entries: Vec<Seen>) -> Event {
    Event::Log {
        to: TO.to_owned(),
        head: entries.last().map_or(0, |last| last.seq),
        entries,
    }
}

fn created() -> Seen {
    change(1, "created", &["a", "b"])
}

fn connected() -> Event {
    Event::Connected { present: true }
}

fn ready() -> Event {
    Event::Ready {
        to: vec![TO.to_owned()],
    }
}

fn state(head: u64, mseq: u64, read: u64, unread: u64) -> Event {
    Event::State {
        to: TO.to_owned(),
        asked: 3,
        state: State {
            head,
            mseq,
            read,
            unread,
            ..State::default()
        },
    }
}

fn mark(seq: u64, private: bool) -> Event {
    Event::Mark {
        to: TO.to_owned(),
        seq,
        private,
    }
}

fn marked(seq: u64) -> Event {
    Event::Marked {
        to: TO.to_owned(),
        seq,
        private: false,
    }
}

fn receipt(user: &str, delivered: u64, read: u64) -> Event {
    Event::Receipt {
        to: TO.to_owned(),
        user: user.to_owned(),
        delivered,
        read,
    }
}

fn passes(histories: &[History]) {
    let verdict = verify(histories);
    assert!(verdict.is_clean(), "{:#?}", verdict.broken);
}

/// Only this rule is broken, and the counter-example is so many lines.
#[track_caller]
fn breaks(histories: &[History], rule: Rule, lines: usize) {
    let verdict = verify(histories);
    let rules: Vec<_> = verdict.broken.keys().collect();
    assert_eq!(rules, [&rule], "{:#?}", verdict.broken);
    let (_, finding) = verdict.shortest_first()[0];
    assert_eq!(finding.places.len(), lines, "{finding:?}");
    for place in &finding.places {
        let shown = place.show(histories);
        assert!(shown.contains(".jsonl:"), "{shown}");
    }
}

#[test]
fn a_clean_history_passes_every_rule() {
    let a = vec![
        connected(),
        ready(),
        send("a-0"),
        acked("a-0", 2),
        got(message(2, "a-0")),
        connected(),
        got(message(2, "a-0")), // a repeat after a reconnect
        got(message(3, "b-0")),
        mark(3, false),
        marked(3),
        state(3, 2, 3, 0),
        receipt("b", 3, 2),
        Event::Quiet,
        state(3, 2, 3, 0),
        log(vec![created(), message(2, "a-0"), message(3, "b-0")]),
        Event::Ended,
    ];
    let b = vec![
        got(message(2, "a-0")),
        got(message(3, "b-0")),
        mark(2, false),
        send("b-0"),
        acked("b-0", 3),
    ];
    let b = history("b", Kind::Chat, b);
    let mut all = vec![b];
    all.extend(chat("a", a));
    passes(&all);
}

#[test]
fn acknowledged_and_not_in_the_log_is_lost() {
    let events = vec![send("a-0"), acked("a-0", 2), log(vec![created()])];
    breaks(&chat("a", events), Rule::Lost, 3);
}

#[test]
fn not_acknowledged_may_be_there_or_not() {
    let sent = || vec![send("a-0")];
    let with = |entries| [sent(), vec![log(entries)]].concat();
    passes(&chat("a", with(vec![created()])));
    passes(&chat("a", with(vec![created(), message(2, "a-0")])));
}

#[test]
fn what_the_sdk_had_in_its_outbox_is_there_in_the_end() {
    let queued = Event::Queued {
        id: "a-0".to_owned(),
        to: TO.to_owned(),
        text: text("a-0"),
    };
    let with = |entries| {
        let a = vec![send("a-0"), queued.clone(), Event::Ended];
        let b = vec![log(entries)];
        vec![history("a", Kind::Sdk, a), history("b", Kind::Chat, b)]
    };
    passes(&with(vec![created(), message(2, "a-0")]));
    breaks(&with(vec![created()]), Rule::Lost, 2);
}

#[test]
fn another_place_than_the_ack_told_has_moved() {
    let with = |told| {
        let entries = vec![created(), message(2, "a-0")];
        chat("a", vec![send("a-0"), acked("a-0", told), log(entries)])
    };
    passes(&with(2));
    breaks(&with(3), Rule::Moved, 2);
}

#[test]
fn a_retry_that_is_no_duplicate_or_at_another_place_has_moved() {
    let again = |seq, dup| Event::Acked {
        id: "a-0".to_owned(),
        seq: Some(seq),
        dup,
    };
    let with = |retry| chat("a", vec![send("a-0"), acked("a-0", 2), send("a-0"), retry]);
    passes(&with(again(2, true)));
    breaks(&with(again(3, true)), Rule::Moved, 2);
    breaks(&with(again(2, false)), Rule::Moved, 2);
}

#[test]
fn another_text_is_torn_and_so_is_what_nobody_sent() {
    let mut other = message(2, "a-0");
    let with = |seen| chat("a", vec![send("a-0"), log(vec![created(), seen])]);
    passes(&with(other.clone()));
    other.text = "a-0 …but".to_owned();
    breaks(&with(other), Rule::Torn, 2);
    breaks(&with(message(2, "a-7")), Rule::Torn, 1);
}

#[test]
fn one_id_at_two_places_is_stored_twice() {
    let entries = vec![created(), message(2, "a-0"), message(3, "a-0")];
    breaks(
        &chat("a", vec![send("a-0"), log(entries)]),
        Rule::StoredTwice,
        2,
    );
}

#[test]
fn a_log_with_a_hole_or_whose_time_goes_back_is_not_dense() {
    let sent = || vec![send("a-0"), send("a-1")];
    let with = |entries| chat("a", [sent(), vec![log(entries)]].concat());
    passes(&with(vec![created(), message(2, "a-0"), message(3, "a-1")]));
    breaks(
        &with(vec![created(), message(2, "a-0"), message(4, "a-1")]),
        Rule::Dense,
        1,
    );
    let mut early = message(3, "a-1");
    early.ts = 7;
    breaks(
        &with(vec![created(), message(2, "a-0"), early]),
        Rule::Dense,
        2,
    );
}

#[test]
fn later_publishes_at_earlier_places_are_out_of_order() {
    let with = |one, next| {
        chat(
            "a",
            vec![
                connected(),
                send("a-0"),
                send("a-1"),
                acked("a-0", one),
                acked("a-1", next),
            ],
        )
    };
    passes(&with(2, 3));
    breaks(&with(3, 2), Rule::Order, 4);
}

#[test]
fn a_retry_on_another_connection_may_come_behind_what_was_sent_later() {
    let events = vec![
        connected(),
        send("a-0"),
        send("a-1"),
        acked("a-1", 2),
        connected(),
        send("a-0"),
        acked("a-0", 3),
    ];
    passes(&chat("a", events));
}

#[test]
fn two_entries_at_one_place_differ() {
    let with = |seen| {
        let a = vec![got(created()), send("a-0"), got(message(2, "a-0"))];
        let b = vec![got(created()), send("b-0"), got(seen)];
        vec![history("a", Kind::Chat, a), history("b", Kind::Chat, b)]
    };
    passes(&with(message(2, "a-0")));
    breaks(&with(message(2, "b-0")), Rule::Differs, 2);
}

#[test]
fn a_place_that_is_passed_over_on_a_connection_is_skipped() {
    let with = |next| {
        let events = vec![
            send("a-0"),
            send("a-1"),
            connected(),
            got(created()),
            got(message(2, "a-0")),
            got(message(next, "a-1")),
        ];
        chat("a", events)
    };
    passes(&with(3));
    breaks(&with(4), Rule::Skipped, 2);
}

#[test]
fn a_gap_that_is_told_is_not_skipped() {
    let mut gap = message(4, "");
    (gap.kind, gap.first, gap.from, gap.text) = ("gap".to_owned(), 2, String::new(), String::new());
    let events = vec![
        send("a-0"),
        got(created()),
        got(gap),
        got(message(5, "a-0")),
    ];
    passes(&chat("a", events));
}

/// What a cursor that moved too early does: the place is missing between two connections.
#[test]
fn a_place_that_is_never_shown_is_skipped() {
    let with = |first: Vec<Event>| {
        let rest = vec![
            connected(),
            got(message(3, "a-1")),
            log(vec![created(), message(2, "a-0"), message(3, "a-1")]),
            Event::Ended,
        ];
        let begin = vec![
            ready(),
            send("a-0"),
            send("a-1"),
            connected(),
            got(created()),
        ];
        chat("a", [begin, first, rest].concat())
    };
    passes(&with(vec![got(message(2, "a-0"))]));
    breaks(&with(vec![]), Rule::Skipped, 2);
}

#[test]
fn a_repeat_on_one_connection_is_one_and_so_is_any_of_the_sdk() {
    let twice = vec![
        send("a-0"),
        connected(),
        got(message(2, "a-0")),
        got(message(2, "a-0")),
    ];
    breaks(
        &[history(
            "a",
            Kind::Chat,
            [vec![got(created())], twice].concat(),
        )],
        Rule::Repeated,
        2,
    );
    let shown = |position, entries| Event::Shown { position, entries };
    let with = |again: Seen| {
        let begun = Event::Began {
            user: "a".to_owned(),
            kind: Kind::Sdk,
        };
        let events = vec![
            send("a-0"),
            send("a-1"),
            shown(2, vec![created(), message(2, "a-0")]),
            begun,
            shown(3, vec![again]),
        ];
        vec![history("a", Kind::Sdk, events)]
    };
    passes(&with(message(3, "a-1")));
    breaks(&with(message(2, "a-0")), Rule::Repeated, 2);
}

#[test]
fn marks_and_heads_do_not_go_back() {
    let with = |read| chat("a", vec![state(9, 8, 5, 0), state(9, 8, read, 0)]);
    passes(&with(5));
    breaks(&with(4), Rule::MarkBack, 2);
    breaks(
        &chat("a", vec![state(9, 8, 5, 0), state(8, 8, 5, 0)]),
        Rule::MarkBack,
        2,
    );
    breaks(
        &chat("a", vec![marked(6), state(9, 8, 5, 0)]),
        Rule::MarkBack,
        2,
    );
}

#[test]
fn a_crash_may_take_back_how_far_somebody_got_but_no_read_mark() {
    let with = |delivered, read, crash| {
        let fault = Event::Fault {
            fault: "SIGKILL".to_owned(),
            crash,
        };
        let a = vec![
            receipt("x", 5, 4),
            Event::Quiet,
            receipt("x", delivered, read),
        ];
        let nemesis = vec![fault];
        let mut all = chat("a", a);
        all.push(history("nemesis", Kind::Nemesis, nemesis));
        for (at, record) in all[0].records.iter_mut().enumerate() {
            record.at = at as u64;
        }
        let got = |seq| got(change(seq, "other", &[]));
        let x = vec![mark(4, false), got(1), got(2), got(3), got(4), got(5)];
        let mut x = history("x", Kind::Chat, x);
        x.records.iter_mut().for_each(|record| record.at = 0);
        all.push(x);
        all
    };
    passes(&with(4, 4, true));
    breaks(&with(4, 4, false), Rule::MarkBack, 2);
    breaks(&with(5, 3, true), Rule::MarkBack, 2);
}

#[test]
fn nobody_has_got_or_read_before_he_did() {
    let with = |delivered, read| {
        let b = vec![
            got(created()),
            got(message(2, "a-0")),
            mark(1, false),
            mark(2, true),
        ];
        let a = vec![
            send("a-0"),
            Event::Quiet,
            Event::Quiet,
            Event::Quiet,
            receipt("b", delivered, read),
        ];
        vec![history("a", Kind::Chat, a), history("b", Kind::Chat, b)]
    };
    passes(&with(2, 1));
    breaks(&with(3, 1), Rule::Early, 2);
    breaks(&with(2, 2), Rule::Early, 2); // the mark was private
}

#[test]
fn unread_is_what_the_log_counts_to() {
    let with = |mseq, unread| {
        let entries = vec![
            created(),
            message(2, "a-0"),
            message(3, "b-0"),
            message(4, "b-1"),
        ];
        let a = vec![
            send("a-0"),
            Event::Quiet,
            state(4, mseq, 3, unread),
            log(entries),
        ];
        let b = vec![send("b-0"), send("b-1")];
        vec![history("a", Kind::Chat, a), history("b", Kind::Chat, b)]
    };
    passes(&with(3, 1));
    breaks(&with(3, 2), Rule::Unread, 2);
    breaks(&with(4, 1), Rule::Unread, 2);
}

#[test]
fn what_a_former_member_is_shown_or_stores_leaks() {
    let entries = || {
        vec![
            created(),
            message(2, "a-0"),
            change(3, "removed", &["b"]),
            message(4, "a-1"),
            change(5, "added", &["b"]),
            message(6, "a-2"),
        ]
    };
    let with = |shown: Vec<Seen>| {
        let a = vec![send("a-0"), send("a-1"), send("a-2"), log(entries())];
        let b = shown.into_iter().map(got).collect();
        vec![history("a", Kind::Chat, a), history("b", Kind::Chat, b)]
    };
    let all = entries();
    let allowed = [0, 1, 2, 4, 5].map(|at: usize| all[at].clone());
    passes(&with(allowed.into()));
    breaks(&with(vec![all[2].clone(), all[3].clone()]), Rule::Leak, 2);
    let mut written = entries();
    written[3] = message(4, "b-0");
    let a = vec![send("a-0"), send("a-2"), log(written)];
    let b = vec![send("b-0")];
    let all = vec![history("a", Kind::Chat, a), history("b", Kind::Chat, b)];
    breaks(&all, Rule::Leak, 1);
}

#[test]
fn a_session_that_is_gone_is_one() {
    let present = |present| Event::Connected { present };
    passes(&chat("a", vec![present(false), ready(), present(true)]));
    breaks(
        &chat("a", vec![present(false), ready(), present(false)]),
        Rule::SessionLost,
        2,
    );
}

#[test]
fn what_is_never_answered_and_a_server_that_does_not_start_are_told() {
    let nemesis = |event| history("nemesis", Kind::Nemesis, vec![event]);
    let stuck = nemesis(Event::Stuck {
        user: "a".to_owned(),
    });
    let mut all = chat("a", vec![send("a-0")]);
    passes(&all);
    all.push(stuck);
    breaks(&all, Rule::Settles, 2);
    let down = nemesis(Event::Down {
        why: "exit 4".to_owned(),
    });
    breaks(&[down], Rule::Starts, 1);
}

/// Ordinary topics.
mod plain {
    use super::*;

    fn topic(mut event: Event) -> Event {
        match &mut event {
            Event::Send { to, .. } => *to = "t/1".to_owned(),
            Event::Got { seen, .. } => {
                (seen.to, seen.seq, seen.from) = ("t/1".to_owned(), 0, String::new());
            }
            Event::Ready { to } => *to = vec!["t/1".to_owned()],
            _ => {}
        }
        event
    }

    fn once(seen: Seen, packet_id: u16) -> Event {
        Event::Got {
            seen,
            packet_id: Some(packet_id),
        }
    }

    fn with(sent: &[&str], arrived: Vec<Event>) -> Vec<History> {
        let told = |id: &&str| {
            let acked = Event::Acked {
                id: (*id).to_owned(),
                seq: None,
                dup: false,
            };
            [topic(send(id)), acked]
        };
        let sender = sent.iter().flat_map(told).collect();
        let events = [vec![topic(ready())], arrived, vec![Event::Ended]].concat();
        let receiver = events.into_iter().map(topic).collect();
        vec![
            history("p", Kind::Plain, sender),
            history("s", Kind::Plain, receiver),
        ]
    }

    #[test]
    fn acknowledged_and_never_delivered_is_lost() {
        let first = || got(message(0, "p-0"));
        passes(&with(&["p-0"], vec![first(), first()]));
        breaks(&with(&["p-0", "p-1"], vec![first()]), Rule::Lost, 2);
    }

    #[test]
    fn first_arrivals_are_in_the_order_of_sending() {
        let (zero, one) = (|| got(message(0, "p-0")), || got(message(0, "p-1")));
        passes(&with(&["p-0", "p-1"], vec![zero(), one(), zero(), one()]));
        breaks(&with(&["p-0", "p-1"], vec![one(), zero()]), Rule::Order, 4);
    }

    #[test]
    fn at_qos_2_nothing_comes_twice() {
        let arrived = |again| vec![once(message(0, "p-0"), 1), again];
        passes(&with(&["p-0"], arrived(Event::Released { packet_id: 1 })));
        breaks(
            &with(&["p-0"], arrived(once(message(0, "p-0"), 2))),
            Rule::Repeated,
            2,
        );
    }

    #[test]
    fn what_arrives_is_what_was_sent() {
        let mut other = message(0, "p-0");
        other.text = "p-0 …but".to_owned();
        let arrived = vec![got(message(0, "p-0")), got(other)];
        breaks(&with(&["p-0"], arrived), Rule::Torn, 2);
    }
}
