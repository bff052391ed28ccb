//! Watermarks and counts: never back, never ahead of the user, and what the log counts to.

use std::collections::{BTreeMap, HashMap};

use super::facts::Facts;
use super::{Finding, Place, Rule};
use crate::check::history::{Event, Kind, Record, State};

/// What was told once is not lower later. How far somebody has got is stored a moment after it is told (DESIGN §4.4): a crash
/// may take that back.
pub(super) fn never_back(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in &facts.clients {
        let mut highest: HashMap<Mark<'_>, Step> = HashMap::new();
        let mut marked: HashMap<Mark<'_>, Vec<Step>> = HashMap::new();
        let records = facts
            .histories
            .get(client.at)
            .map(|history| &history.records);
        for (line, record) in records.into_iter().flatten().enumerate() {
            let place = Place::new(client.at, line);
            if let Event::Marked { to, seq, private } = &record.event {
                let name = if *private { PRIVATE_READ } else { READ };
                let steps = marked.entry((to, "", name)).or_default();
                if steps.last().is_none_or(|last| last.1 < *seq) {
                    steps.push((record.at, *seq, place));
                }
            }
            for (mark, now) in told(&record.event) {
                let step = (record.at, now, place);
                let last = highest.get(&mark).copied();
                let may_fall = mark.2 == DELIVERED
                    && last.is_some_and(|last| facts.has_crashed(last.0, record.at));
                let acked = match &record.event {
                    Event::State { asked, .. } => reached(marked.get(&mark), *asked),
                    _ => None,
                };
                let before = [last.filter(|_| !may_fall), acked].into_iter().flatten();
                let before = before.max_by_key(|before| before.1);
                if let Some(before) = before.filter(|before| now < before.1) {
                    found(Finding {
                        rule: Rule::MarkBack,
                        what: format!("{} was {} and is {now}", mark.2, before.1),
                        places: vec![before.2, place],
                    });
                }
                if may_fall || last.is_none_or(|last| last.1 < now) {
                    highest.insert(mark, step);
                }
            }
        }
    }
}

/// Conversation, user (empty: the own one), and which mark.
type Mark<'a> = (&'a str, &'a str, &'static str);

/// When which place was reached, and the line.
type Step = (u64, u64, Place);

/// How far it was at this time.
fn reached(steps: Option<&Vec<Step>>, at: u64) -> Option<Step> {
    let steps = steps?;
    let before = steps.partition_point(|step| step.0 <= at);
    before
        .checked_sub(1)
        .and_then(|last| steps.get(last))
        .copied()
}

/// What a line tells of marks.
fn told(event: &Event) -> Vec<(Mark<'_>, u64)> {
    match event {
        Event::State { to, state, .. } => [
            (HEAD, state.head),
            (MSEQ, state.mseq),
            (READ, state.read),
            (PRIVATE_READ, state.private_read),
            (DELIVERED, state.delivered),
        ]
        .map(|(name, now)| ((to.as_str(), "", name), now))
        .into(),
        Event::Receipt {
            to,
            user,
            delivered,
            read,
        } => [(DELIVERED, *delivered), (READ, *read)]
            .map(|(name, now)| ((to.as_str(), user.as_str(), name), now))
            .into(),
        _ => Vec::new(),
    }
}

/// Nobody is said to have got what he did not get, or to have read what he did not say.
pub(super) fn not_early(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    let progress = progress(facts);
    for (at, history) in facts.histories.iter().enumerate() {
        for (line, record) in history.records.iter().enumerate() {
            let Event::Receipt {
                to,
                user,
                delivered,
                read,
            } = &record.event
            else {
                continue;
            };
            let reached = |what| {
                let steps = progress.get(&(to.as_str(), user.as_str(), what));
                reached(steps, record.at)
            };
            let mut judge = |told: u64, what: &str, reached: Option<Step>| {
                if told > reached.map_or(0, |(_, seq, _)| seq) {
                    let last = reached.map(|(_, _, place)| place);
                    found(Finding {
                        rule: Rule::Early,
                        what: format!("{user} is said to have {what} {told}"),
                        places: last.into_iter().chain([Place::new(at, line)]).collect(),
                    });
                }
            };
            let got = reached(What::Got);
            judge(*read, "read", reached(What::Read));
            // The SDK acknowledges when it has stored an entry, which it shows later.
            if got.is_some() || is_seen_whole(facts, user) {
                judge((*delivered).max(*read), "got", got);
            }
        }
    }
}

fn is_seen_whole(facts: &Facts<'_>, user: &str) -> bool {
    let mut clients = facts.clients.iter();
    clients.any(|client| client.user == user && client.kind == Kind::Chat)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Got,
    Read,
}

/// When a user had got, or had marked for others to see, up to which place: time, place, line; both ascending.
type Steps<'a> = HashMap<(&'a str, &'a str, What), Vec<Step>>;

fn progress<'a>(facts: &Facts<'a>) -> Steps<'a> {
    let mut steps: Steps<'a> = HashMap::new();
    for client in &facts.clients {
        let Some(history) = facts.histories.get(client.at) else {
            continue;
        };
        for (line, Record { at, event }) in history.records.iter().enumerate() {
            let place = Place::new(client.at, line);
            let (to, seq, what) = match event {
                Event::Got { seen, .. } => (&seen.to, seen.seq, What::Got),
                Event::Mark {
                    to,
                    seq,
                    private: false,
                } => (to, *seq, What::Read),
                _ => continue,
            };
            let steps = steps.entry((to, client.user, what)).or_default();
            if steps.last().is_none_or(|last| last.1 < seq) {
                steps.push((*at, seq, place));
            }
        }
    }
    steps
}

/// At rest the counts are those of the log.
pub(super) fn unread(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in &facts.clients {
        for (to, (state, place)) in last_states(facts, client.at) {
            let (Some(own), Some(log)) = (client.logs.get(to), facts.logs.get(to)) else {
                continue;
            };
            let visible = facts.visible(to, client.user);
            let may_see = |seq: u64| {
                visible
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&seq))
            };
            let read = state.read.max(state.private_read);
            let unread = own.entries.iter().filter(|seen| {
                seen.is_message()
                    && seen.seq > read
                    && seen.from != client.user
                    && may_see(seen.seq)
            });
            let messages = log.entries.iter().filter(|seen| seen.is_message());
            let counts = [
                ("unread", state.unread, unread.count() as u64, own.place),
                (MSEQ, state.mseq, messages.count() as u64, log.place),
                (HEAD, state.head, log.head, log.place),
            ];
            for (name, told, counted, against) in counts {
                if told != counted {
                    found(Finding {
                        rule: Rule::Unread,
                        what: format!(
                            "{name} of {} is {told}, and the log has {counted}",
                            client.user
                        ),
                        places: vec![place, against],
                    });
                }
            }
        }
    }
}

/// Of each conversation the last state that was told when all were quiet.
fn last_states<'a>(facts: &Facts<'a>, at: usize) -> BTreeMap<&'a str, (&'a State, Place)> {
    let records = facts.histories.get(at).map(|history| &history.records);
    let mut states = BTreeMap::new();
    let mut quiet = false;
    for (line, record) in records.into_iter().flatten().enumerate() {
        match &record.event {
            Event::Quiet => quiet = true,
            Event::State { to, state, .. } if quiet => {
                states.insert(to.as_str(), (state, Place::new(at, line)));
            }
            _ => {}
        }
    }
    states
}

const HEAD: &str = "head";
const MSEQ: &str = "mseq";
const DELIVERED: &str = "delivered";
const READ: &str = "read";
const PRIVATE_READ: &str = "private read";
