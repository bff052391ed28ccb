//! Random changes against a naive model: what is found is what the model has, and no message too many is kept.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Begin(u64),
    End(u64),
    /// A message for these sessions, perhaps retained.
    Publish(Vec<u64>, bool),
    /// One of the rows there are goes to this session, perhaps after it has left its own.
    Handed(usize, u64, bool),
    /// One of the rows there are.
    Sent(usize),
    Released(usize),
    Settled(usize),
    Cleared(usize),
    Commit,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 1..4_u64;
    prop_oneof![
        2 => session().prop_map(Step::Begin),
        1 => session().prop_map(Step::End),
        8 => (prop::collection::vec(session(), 0..4), any::<bool>())
            .prop_map(|(to, retain)| Step::Publish(to, retain)),
        4 => (any::<usize>(), session(), any::<bool>())
            .prop_map(|(pick, to, leaves_first)| Step::Handed(pick, to, leaves_first)),
        4 => any::<usize>().prop_map(Step::Sent),
        3 => any::<usize>().prop_map(Step::Released),
        4 => any::<usize>().prop_map(Step::Settled),
        2 => any::<usize>().prop_map(Step::Cleared),
        6 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

fn qos(message: u64) -> Qos {
    if message.is_multiple_of(2) {
        Qos::AtLeastOnce
    } else {
        Qos::ExactlyOnce
    }
}

fn row(session: u64, place: u64, message: u64) -> QueueRow {
    QueueRow {
        qos: qos(message),
        ..super::row(session, place, message)
    }
}

/// Message, identifier if sent, and whether it was released.
type Row = (u64, Option<u16>, bool);

#[derive(Default)]
struct Model {
    sessions: BTreeSet<u64>,
    rows: BTreeMap<(u64, u64), Row>,
    retained: BTreeSet<u64>,
    next: u64,
    /// How often each session has ended: numbers are not used twice.
    ended: BTreeMap<u64, u64>,
}

impl Model {
    fn pick(&self, pick: usize) -> Option<((u64, u64), Row)> {
        let place = pick.checked_rem(self.rows.len())?;
        self.rows.iter().nth(place).map(|(key, row)| (*key, *row))
    }

    fn number(&self, session: u64) -> u64 {
        session + 10 * self.ended.get(&session).copied().unwrap_or(0)
    }

    fn changes(&mut self, step: &Step) -> Vec<Change> {
        let mut changes = Vec::new();
        match step {
            Step::Begin(session) => {
                let number = self.number(*session);
                self.sessions.insert(number);
                changes.push(super::session(number));
            }
            Step::End(session) => {
                let number = self.number(*session);
                *self.ended.entry(*session).or_default() += 1;
                self.sessions.remove(&number);
                self.rows.retain(|(session, _), _| *session != number);
                changes.push(Change::End(number));
            }
            Step::Publish(to, retain) => {
                self.next += 1;
                let number = self.next;
                let is_large = number.is_multiple_of(3);
                changes.push(if is_large {
                    large(number)
                } else {
                    message(number, None)
                });
                for session in to.iter().collect::<BTreeSet<_>>() {
                    let (session, place) = (self.number(*session), self.next);
                    if self.sessions.contains(&session) {
                        self.rows.insert((session, place), (number, None, false));
                    }
                    changes.push(Change::Queued(Box::new(row(session, place, number))));
                }
                if *retain {
                    self.retained.insert(number);
                    changes.push(retained(number));
                }
            }
            Step::Handed(pick, to, leaves_first) => {
                let to = self.number(*to);
                if let Some((from, (message, None, _))) = self.pick(*pick)
                    && self.sessions.contains(&to)
                {
                    self.next += 1;
                    self.rows.remove(&from);
                    self.rows.insert((to, self.next), (message, None, false));
                    changes.push(Change::Queued(Box::new(row(to, self.next, message))));
                    changes.push(settled(from.0, from.1, message));
                    if *leaves_first {
                        let last = changes.len() - 1;
                        changes.swap(last - 1, last);
                    }
                }
            }
            Step::Sent(pick) => {
                if let Some(((session, place), (message, None, _))) = self.pick(*pick) {
                    let packet_id = u16::try_from(place % 60_000).unwrap();
                    let known = (message, Some(packet_id), false);
                    self.rows.insert((session, place), known);
                    let mut row = row(session, place, message);
                    row.packet_id = Some(id(packet_id));
                    changes.push(Change::Moved(Box::new(row)));
                }
            }
            Step::Released(pick) => {
                if let Some(((session, place), (message, Some(packet_id), false))) =
                    self.pick(*pick)
                    && qos(message) == Qos::ExactlyOnce
                {
                    let row = (0, Some(packet_id), true);
                    self.rows.insert((session, place), row);
                    let row = QueueRow::released(session, Stored { place, message }, id(packet_id));
                    changes.push(Change::Moved(Box::new(row)));
                }
            }
            Step::Settled(pick) => {
                if let Some(((session, place), (message, ..))) = self.pick(*pick) {
                    self.rows.remove(&(session, place));
                    changes.push(settled(session, place, message));
                }
            }
            Step::Cleared(pick) => {
                let place = pick.checked_rem(self.retained.len());
                let number = place.and_then(|place| self.retained.iter().nth(place).copied());
                if let Some(number) = number {
                    self.retained.remove(&number);
                    changes.push(Change::Cleared(number));
                }
            }
            Step::Commit | Step::Reopen => {}
        }
        changes
    }

    fn messages(&self) -> Vec<u64> {
        let queued = self.rows.values().map(|(message, ..)| *message);
        let mut all: Vec<u64> = queued.chain(self.retained.iter().copied()).collect();
        all.retain(|message| *message > 0);
        all.sort_unstable();
        all.dedup();
        all
    }

    fn check(&self, found: &Found) -> Result<(), TestCaseError> {
        let mut rows = BTreeMap::new();
        for session in &found.sessions {
            for queued in &session.queue {
                let at = queued.stored.unwrap();
                rows.insert((session.number, at.place), (at.message, None, false));
            }
            for (packet_id, content) in &session.inflight {
                let (at, released) = match content {
                    Content::Message(queued) => (queued.stored.unwrap(), false),
                    Content::Released(at) => (at.unwrap(), true),
                    Content::Plugin(_) => panic!("not ours"),
                };
                let row = (at.message, Some(packet_id.get()), released);
                rows.insert((session.number, at.place), row);
            }
        }
        prop_assert_eq!(&rows, &self.rows);
        let sessions: BTreeSet<u64> = found.sessions.iter().map(|it| it.number).collect();
        prop_assert_eq!(&sessions, &self.sessions);
        let retained: BTreeSet<u64> = found.retained.iter().filter_map(|it| it.number).collect();
        prop_assert_eq!(&retained, &self.retained);
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_said(steps in prop::collection::vec(step(), 0..120)) {
        let world = World::new(EngineKind::Memory);
        let (mut store, _) = world.open();
        let mut model = Model::default();
        let mut changes = Vec::new();
        for step in steps.iter().chain(&[Step::Reopen]) {
            changes.extend(model.changes(step));
            if matches!(step, Step::Commit | Step::Reopen) {
                commit(&mut store, std::mem::take(&mut changes));
                let (apart, within) = apart_and_within(&world);
                let mut all = [apart, within].concat();
                all.sort_unstable();
                prop_assert_eq!(all, model.messages());
            }
            if let Step::Reopen = step {
                store.finish().unwrap();
                let found;
                (store, found) = world.open();
                model.check(&found)?;
            }
        }
    }
}
