//! Watermarks and counts: never back, never ahead of the user, and what the log counts to.

use std::collections::{BTreeMap, HashMap};

use super::facts::Facts;
use super::{Finding, Place, Rule};
use crate::check::history::{Event, Kind, Record, State};

/// What was told once is not lower later.
pub(super) fn never_back(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in &facts.clients {
        let mut highest: HashMap<(&str, &str, &str), (u64, Place)> = HashMap::new();
        let records = facts
            .histories
            .get(client.at)
            .map(|history| &history.records);
        for (line, record) in records.into_iter().flatten().enumerate() {
            let place = Place::new(client.at, line);
            let mut told = |of: &[(&'static str, u64)], to, user| {
                for (name, now) in of {
                    let (before, at) = *highest.entry((to, user, name)).or_insert((*now, place));
                    if *now < before {
                        found(Finding {
                            rule: Rule::MarkBack,
                            what: format!("{name} was {before} and is {now}"),
                            places: vec![at, place],
                        });
                    } else if *now > before {
                        highest.insert((to, user, name), (*now, place));
                    }
                }
            };
            match &record.event {
                Event::State { to, state } => told(
                    &[
                        ("head", state.head),
                        ("mseq", state.mseq),
                        (READ, state.read),
                        (PRIVATE_READ, state.private_read),
                        ("delivered", state.delivered),
                    ],
                    to.as_str(),
                    "",
                ),
                Event::Receipt {
                    to,
                    user,
                    delivered,
                    read,
                } => told(&[("delivered", *delivered), (READ, *read)], to, user),
                Event::Marked { to, seq, private } => {
                    let name = if *private { PRIVATE_READ } else { READ };
                    let known = highest.entry((to, "", name)).or_insert((*seq, place));
                    if *seq > known.0 {
                        *known = (*seq, place);
                    }
                }
                _ => {}
            }
        }
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
                let steps = steps.map(Vec::as_slice).unwrap_or_default();
                let before = steps.partition_point(|step| step.0 <= record.at);
                before
                    .checked_sub(1)
                    .and_then(|last| steps.get(last))
                    .copied()
            };
            let mut judge = |told: u64, what: &str, reached: Option<(u64, u64, Place)>| {
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
type Steps<'a> = HashMap<(&'a str, &'a str, What), Vec<(u64, u64, Place)>>;

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
                ("mseq", state.mseq, messages.count() as u64, log.place),
                ("head", state.head, log.head, log.place),
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
            Event::State { to, state } if quiet => {
                states.insert(to.as_str(), (state, Place::new(at, line)));
            }
            _ => {}
        }
    }
    states
}

const READ: &str = "read";
const PRIVATE_READ: &str = "private read";
