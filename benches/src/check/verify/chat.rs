//! Logs of conversations: stored once at its place, dense, the same for all, offered to everybody, and to nobody else.

use std::collections::{BTreeMap, HashMap};

use super::facts::{Client, Facts, Log, Sight};
use super::{Finding, Place, Rule};
use crate::check::history::{Kind, SETUP, Seen};

/// What was acknowledged is in the log, at the place that was told; once; and what is there was sent.
pub(super) fn stored(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    let mut places: HashMap<(&str, &str), (u64, Place)> = HashMap::new();
    for known in facts.known.values() {
        for (seq, (seen, place)) in known {
            if !seen.is_message() || seen.id.is_empty() {
                continue;
            }
            judge_entry(facts, seen, *place, found);
            let first = places.insert((&seen.from, &seen.id), (*seq, *place));
            if let Some((before, at)) = first {
                found(Finding {
                    rule: Rule::StoredTwice,
                    what: format!("{} is stored at {before} and at {seq}", seen.id),
                    places: vec![at, *place],
                });
            }
        }
    }
    for (id, send) in &facts.sends {
        for (one, next) in send.acks.iter().zip(send.acks.iter().skip(1)) {
            let differ = one.seq.is_some() && next.seq.is_some() && one.seq != next.seq;
            if differ || (next.seq.is_some() && !next.dup) {
                found(Finding {
                    rule: Rule::Moved,
                    what: format!("{id} was acknowledged, and then again as something else"),
                    places: vec![one.place, next.place],
                });
            }
        }
        let Some(log) = facts.logs.get(send.to) else {
            continue;
        };
        let stored = places.get(&(send.user, *id));
        match (send.acks.first(), stored) {
            (Some(told), Some((seq, at))) if told.seq.is_some_and(|told| told != *seq) => {
                found(Finding {
                    rule: Rule::Moved,
                    what: format!("{id} was acknowledged at another place than {seq}"),
                    places: vec![told.place, *at],
                });
            }
            (Some(told), None) => found(Finding {
                rule: Rule::Lost,
                what: format!("{id} was acknowledged and is not in the log"),
                places: vec![
                    send.place,
                    told.place,
                    Place {
                        seq: told.seq,
                        ..log.place
                    },
                ],
            }),
            (None, None) if send.queued.is_some() && has_ended(facts, send.user) => {
                found(Finding {
                    rule: Rule::Lost,
                    what: format!("{id} was in the outbox and is not in the log"),
                    places: vec![send.queued.unwrap_or(send.place), log.place],
                });
            }
            _ => {}
        }
    }
}

fn has_ended(facts: &Facts<'_>, user: &str) -> bool {
    let mut clients = facts.clients.iter();
    clients.any(|client| client.user == user && client.ended)
}

/// Somebody sent it, and so.
fn judge_entry(facts: &Facts<'_>, seen: &Seen, place: Place, found: &mut dyn FnMut(Finding)) {
    let is_ours = facts.clients.iter().any(|client| client.user == seen.from);
    let mut torn = |what: &str, sent: Option<Place>| {
        found(Finding {
            rule: Rule::Torn,
            what: format!("{} {what}", seen.id),
            places: sent.into_iter().chain([place]).collect(),
        });
    };
    match facts.sends.get(seen.id.as_str()) {
        None if is_ours && !seen.id.starts_with(SETUP) => torn("was sent by nobody", None),
        Some(send) if send.user != seen.from || send.to != seen.to => {
            torn("was sent by somebody else, or elsewhere", Some(send.place));
        }
        Some(send) if send.text != seen.text => {
            torn("is not what was sent", Some(send.place));
        }
        _ => {}
    }
}

/// Each log is dense and its time goes on.
pub(super) fn logs(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in &facts.clients {
        for (to, log) in &client.logs {
            let visible = facts.visible(to, client.user);
            let hole = |from: u64, to: u64| first_visible(&visible, from, to);
            let mut dense = |what: String, places: Vec<Place>| {
                found(Finding {
                    rule: Rule::Dense,
                    what,
                    places,
                });
            };
            let (mut last, mut ts) = (0, 0);
            for seen in log.entries {
                let at = log.place.entry(seen.seq);
                if seen.begin() <= last {
                    dense(format!("{last} is not before {}", seen.begin()), vec![at]);
                } else if let Some(missing) = hole(last + 1, seen.begin() - 1) {
                    dense(
                        format!("there is nothing at {missing}"),
                        vec![log.place.entry(missing)],
                    );
                }
                if seen.ts > 0 && seen.ts < ts {
                    dense(
                        format!("time goes back at {}", seen.seq),
                        vec![log.place.entry(last), at],
                    );
                }
                (last, ts) = (seen.seq, ts.max(seen.ts));
            }
            if let Some(missing) = hole(last + 1, log.head) {
                dense(
                    format!("there is nothing at {missing}"),
                    vec![log.place.entry(missing)],
                );
            }
        }
    }
}

/// The first place from `from` to `to` that may be seen.
fn first_visible(visible: &[(u64, u64)], from: u64, to: u64) -> Option<u64> {
    let within = visible
        .iter()
        .map(|(low, high)| (from.max(*low), to.min(*high)));
    within
        .filter(|(low, high)| low <= high)
        .map(|(low, _)| low)
        .min()
}

/// Everybody is shown the same, all of it, in order, nothing twice, and nobody what is not for him.
pub(super) fn offered(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in facts
        .clients
        .iter()
        .filter(|client| client.kind != Kind::Plain)
    {
        let mut rows: BTreeMap<&str, Vec<Sight<'_>>> = BTreeMap::new();
        for sight in &client.got {
            rows.entry(&sight.seen.to).or_default().push(*sight);
        }
        for to in &client.ready {
            rows.entry(to).or_default();
        }
        for (to, sights) in rows {
            let visible = facts.visible(to, client.user);
            in_order(client, &visible, &sights, found);
            same_and_allowed(facts, &visible, &sights, found);
            if client.ended && client.ready.contains(to) {
                complete(facts, to, &visible, &sights, found);
            }
        }
        for (to, log) in &client.logs {
            let visible = facts.visible(to, client.user);
            let seen = |seen| Sight {
                seen,
                connection: 0,
                place: log.place,
                once: false,
            };
            let sights: Vec<_> = log.entries.iter().map(seen).collect();
            same_and_allowed(facts, &visible, &sights, found);
        }
    }
    from_members(facts, found);
}

/// On one connection each place follows the one before.
fn in_order(
    client: &Client<'_>,
    visible: &[(u64, u64)],
    sights: &[Sight<'_>],
    found: &mut dyn FnMut(Finding),
) {
    for (one, next) in sights.iter().zip(sights.iter().skip(1)) {
        if one.connection != next.connection {
            continue;
        }
        let (last, begin) = (one.seen.seq, next.seen.begin());
        if begin <= last {
            let same = |sight: &&Sight<'_>| {
                sight.connection == next.connection
                    && sight.place < next.place
                    && (sight.seen.begin()..=sight.seen.seq).contains(&begin)
            };
            let first = sights.iter().find(same).unwrap_or(one);
            found(Finding {
                rule: Rule::Repeated,
                what: format!("{} is shown {begin} after {last}", client.user),
                places: vec![first.place, next.place],
            });
        } else if let Some(missing) = first_visible(visible, last + 1, begin - 1) {
            found(Finding {
                rule: Rule::Skipped,
                what: format!(
                    "{} is not shown {missing} between {last} and {begin}",
                    client.user
                ),
                places: vec![one.place, next.place],
            });
        }
    }
}

/// What is shown is what others are shown, and within what may be seen.
fn same_and_allowed(
    facts: &Facts<'_>,
    visible: &[(u64, u64)],
    sights: &[Sight<'_>],
    found: &mut dyn FnMut(Finding),
) {
    for sight in sights {
        let seen = sight.seen;
        let known = facts.known.get(seen.to.as_str());
        let at = Place {
            seq: Some(seen.seq),
            ..sight.place
        };
        if let Some((first, place)) = known.and_then(|known| known.get(&seen.seq))
            && !is_same(first, seen)
        {
            found(Finding {
                rule: Rule::Differs,
                what: format!("{} of {} is not the same for all", seen.seq, seen.to),
                places: vec![*place, at],
            });
        }
        if !seen.kind.starts_with('g') && first_visible(visible, seen.seq, seen.seq).is_none() {
            let ends = visible.iter().filter(|(_, end)| *end < seen.seq);
            let end = ends.map(|(_, end)| *end).next_back();
            let removal = end.and_then(|end| known?.get(&end).map(|(_, place)| *place));
            found(Finding {
                rule: Rule::Leak,
                what: format!("{} is shown to who is no member then", seen.seq),
                places: removal.into_iter().chain([at]).collect(),
            });
        }
    }
}

/// `gone` and `gap` tell nothing; the form in which a change is told may differ.
fn is_same(one: &Seen, other: &Seen) -> bool {
    let tells = |seen: &Seen| !matches!(seen.kind.as_str(), "gone" | "gap");
    !tells(one)
        || !tells(other)
        || (&one.kind, &one.from, &one.id, &one.text)
            == (&other.kind, &other.from, &other.id, &other.text)
}

/// Over all connections nothing is missing. What begins a stretch need not be shown: to have come into it,
/// or the first words of a direct conversation, which their sender has.
fn complete(
    facts: &Facts<'_>,
    to: &str,
    visible: &[(u64, u64)],
    sights: &[Sight<'_>],
    found: &mut dyn FnMut(Finding),
) {
    let (Some(known), Some(log)) = (facts.known.get(to), facts.logs.get(to)) else {
        return;
    };
    let mut covered: Vec<_> = sights
        .iter()
        .map(|one| (one.seen.begin(), one.seen.seq))
        .collect();
    covered.sort_unstable();
    let mut reached = 0;
    let mut missing = |from: u64, to: u64| {
        for (low, high) in visible {
            let first = from.max(low + 1);
            if first <= to.min(*high) {
                let before = sights.iter().rfind(|one| one.seen.seq < first);
                let place = known
                    .get(&first)
                    .map_or_else(|| log.place.entry(first), |(_, place)| *place);
                found(Finding {
                    rule: Rule::Skipped,
                    what: format!("{first} of {} is never shown", log_name(log, first)),
                    places: before
                        .map(|one| one.place)
                        .into_iter()
                        .chain([place])
                        .collect(),
                });
            }
        }
    };
    for (low, high) in covered {
        if low > reached + 1 {
            missing(reached + 1, low - 1);
        }
        reached = reached.max(high);
    }
    missing(reached + 1, log.head);
}

fn log_name<'a>(log: &Log<'a>, seq: u64) -> &'a str {
    let entry = log.entries.iter().find(|seen| seen.seq == seq);
    entry.map_or("the log", |seen| &seen.id)
}

/// Nothing is stored from who is no member.
fn from_members(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in &facts.clients {
        for (to, known) in &facts.known {
            let visible = facts.visible(to, client.user);
            for (seq, (seen, place)) in known {
                let is_own = seen.from == client.user && seen.is_message();
                if is_own && first_visible(&visible, *seq, *seq).is_none() {
                    found(Finding {
                        rule: Rule::Leak,
                        what: format!("{} is stored from who is no member then", seen.id),
                        places: vec![*place],
                    });
                }
            }
        }
    }
}

/// A message: where it was sent, at which place it came to be, and where that was told.
type Stored = (Place, u64, Place);

/// What a connection published for the first time came to places in that order, as far as its acks came on it.
pub(super) fn order(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    let mut rows: BTreeMap<(usize, u32, &str), Vec<Stored>> = BTreeMap::new();
    for send in facts.sends.values() {
        let Some(told) = send.acks.first() else {
            continue;
        };
        let here = told.connection == send.connection && told.place.history == send.place.history;
        if let (true, false, Some(seq)) = (here, told.dup, told.seq) {
            let row = (send.place.history, send.connection, send.to);
            rows.entry(row)
                .or_default()
                .push((send.place, seq, told.place));
        }
    }
    for row in rows.values_mut() {
        row.sort_unstable();
        for (one, next) in row.iter().zip(row.iter().skip(1)) {
            if next.1 <= one.1 {
                found(Finding {
                    rule: Rule::Order,
                    what: format!(
                        "what was published later came to {}, not behind {}",
                        next.1, one.1
                    ),
                    places: vec![one.0, next.0, one.2, next.2],
                });
            }
        }
    }
}
