//! Ordinary topics: acknowledged means delivered to every kept session, in order, and at QoS 2 once.

use std::collections::{HashMap, HashSet};

use super::facts::{Client, Facts};
use super::{Finding, Rule};
use crate::check::history::Kind;

/// What was acknowledged came, whole, in order, and at QoS 2 once.
pub(super) fn delivered(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for client in facts
        .clients
        .iter()
        .filter(|client| client.kind == Kind::Plain)
    {
        let got: HashSet<_> = client
            .got
            .iter()
            .map(|sight| sight.seen.id.as_str())
            .collect();
        for (id, send) in &facts.sends {
            if !client.ended || !client.ready.contains(send.to) || got.contains(id) {
                continue;
            }
            if let Some(told) = send.acks.first() {
                found(Finding {
                    rule: Rule::Lost,
                    what: format!("{id} was acknowledged and never came to {}", client.user),
                    places: vec![send.place, told.place],
                });
            }
        }
        arrivals(facts, client, found);
    }
}

fn arrivals(facts: &Facts<'_>, client: &Client<'_>, found: &mut dyn FnMut(Finding)) {
    let mut first = HashMap::new();
    let mut newest = HashMap::new();
    for sight in &client.got {
        let (seen, place) = (sight.seen, sight.place);
        let send = facts.sends.get(seen.id.as_str());
        if send.is_none_or(|send| send.to != seen.to || send.text != seen.text) {
            found(Finding {
                rule: Rule::Torn,
                what: format!("{} is not what was sent", seen.id),
                places: send
                    .map(|send| send.place)
                    .into_iter()
                    .chain([place])
                    .collect(),
            });
            continue;
        }
        if let Some(before) = first.get(seen.id.as_str()) {
            // Who lost his session cannot know what of it was settled.
            let sender = facts
                .clients
                .iter()
                .find(|one| Some(one.user) == send.map(|send| send.user));
            let forgotten = client.forgotten || sender.is_some_and(|sender| sender.forgotten);
            if sight.once && !forgotten {
                found(Finding {
                    rule: Rule::Repeated,
                    what: format!("{} came twice at QoS 2", seen.id),
                    places: vec![*before, place],
                });
            }
            continue;
        }
        first.insert(seen.id.as_str(), place);
        let Some(send) = send else { continue };
        let row = (send.user, send.to);
        if let Some((later, at)) = newest.get(&row)
            && send.place < *later
        {
            found(Finding {
                rule: Rule::Order,
                what: format!("{} came behind what was sent later", seen.id),
                places: vec![send.place, *later, *at, place],
            });
        } else {
            newest.insert(row, (send.place, place));
        }
    }
}
