//! The verdict: what was promised, against what was recorded. A pure function over histories.
//!
//! 1. [`Facts`] gathers who sent, was told and was shown what.
//! 2. Each rule looks for its counter-examples, the smallest that it can find: a handful of lines.
//! 3. Of all counter-examples of a rule the one with the fewest lines is kept, the others are counted.

mod chat;
mod facts;
mod marks;
mod plain;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use super::history::{Event, History, Seen};
use facts::Facts;

/// What was broken; `docs/checker.md` says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Lost,
    Moved,
    Torn,
    StoredTwice,
    Dense,
    Order,
    Differs,
    Skipped,
    Repeated,
    MarkBack,
    Early,
    Unread,
    Leak,
    SessionLost,
    Settles,
    Starts,
}

impl Rule {
    /// Its name, and the promise behind it.
    pub(crate) const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Lost => ("lost", "P1"),
            Self::Moved => ("moved", "P1, P3"),
            Self::Torn => ("torn", "P1"),
            Self::StoredTwice => ("stored_twice", "P3"),
            Self::Dense => ("dense", "P5"),
            Self::Order => ("order", "P5"),
            Self::Differs => ("differs", "P5"),
            Self::Skipped => ("skipped", "P2, P5"),
            Self::Repeated => ("repeated", "P3, P5"),
            Self::MarkBack => ("mark_back", "P6"),
            Self::Early => ("early", "P6"),
            Self::Unread => ("unread", "P6"),
            Self::Leak => ("leak", "§6"),
            Self::SessionLost => ("session_lost", "P8"),
            Self::Settles => ("settles", "P1"),
            Self::Starts => ("starts", "P1"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().0)
    }
}

/// A line of a history, and of a line with many entries the one that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which history.
    pub(crate) history: usize,
    /// Which line, from 0.
    pub(crate) line: usize,
    /// Which entry.
    pub(crate) seq: Option<u64>,
}

/// One counter-example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// In words.
    pub(crate) what: String,
    /// The lines that show it, in the order in which to read them.
    pub(crate) places: Vec<Place>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Of each rule that was broken: how often, and the shortest counter-example.
    pub(crate) broken: BTreeMap<Rule, (u64, Finding)>,
    pub(crate) figures: Figures,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Messages that were sent, each once.
    pub(crate) sent: u64,
    /// Of those acknowledged.
    pub(crate) acked: u64,
    /// Settled and not stored: those of who was no member at the moment.
    pub(crate) refused: u64,
    /// Sent again after a connection or process had ended.
    pub(crate) retried: u64,
    /// Deliveries, and entries that the SDK showed.
    pub(crate) received: u64,
    pub(crate) connections: u64,
    /// Lives of workers.
    pub(crate) lives: u64,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// Of each rule that was broken how often, and the counter-example: the shortest of all first.
    pub(crate) fn shortest_first(&self) -> Vec<(u64, &Finding)> {
        let findings = self.broken.values();
        let mut findings: Vec<_> = findings.map(|(count, finding)| (*count, finding)).collect();
        findings.sort_by_key(|(_, finding)| finding.places.len());
        findings
    }

    fn add(&mut self, finding: Finding) {
        match self.broken.get_mut(&finding.rule) {
            None => {
                self.broken.insert(finding.rule, (1, finding));
            }
            Some((count, shortest)) => {
                *count += 1;
                if finding.places.len() < shortest.places.len() {
                    *shortest = finding;
                }
            }
        }
    }
}

/// Looks for counter-examples.
type Look = fn(&Facts<'_>, &mut dyn FnMut(Finding));

/// Judges.
pub(crate) fn verify(histories: &[History]) -> Verdict {
    let facts = Facts::gather(histories);
    let mut verdict = Verdict {
        figures: facts.figures,
        ..Verdict::default()
    };
    let rules: [Look; 9] = [
        endings,
        chat::stored,
        chat::logs,
        chat::offered,
        chat::order,
        marks::never_back,
        marks::not_early,
        marks::unread,
        plain::delivered,
    ];
    for rule in rules {
        rule(&facts, &mut |finding| verdict.add(finding));
    }
    verdict
}

/// Sessions, and servers and workers, that did not go on.
fn endings(facts: &Facts<'_>, found: &mut dyn FnMut(Finding)) {
    for (at, history) in facts.histories.iter().enumerate() {
        let place = |line| Place::new(at, line);
        let mut ready = None;
        for (line, record) in history.records.iter().enumerate() {
            match &record.event {
                Event::Ready { .. } => ready = ready.or(Some(line)),
                Event::Connected { present: false } => {
                    if let Some(before) = ready.take() {
                        found(Finding {
                            rule: Rule::SessionLost,
                            what: format!("the session of {} is gone", history.name),
                            places: vec![place(before), place(line)],
                        });
                    }
                }
                Event::Down { why } => found(Finding {
                    rule: Rule::Starts,
                    what: format!("the server does not start: {why}"),
                    places: vec![place(line)],
                }),
                Event::Stuck { user } => {
                    let open = facts.oldest_open(user);
                    let what = open.map_or_else(
                        || format!("{user} does not come to an end"),
                        |(id, _)| format!("{id} of {user} is never answered"),
                    );
                    found(Finding {
                        rule: Rule::Settles,
                        what,
                        places: open
                            .map(|(_, sent)| sent)
                            .into_iter()
                            .chain([place(line)])
                            .collect(),
                    });
                }
                _ => {}
            }
        }
    }
}

impl Place {
    pub(crate) const fn new(history: usize, line: usize) -> Self {
        Self {
            history,
            line,
            seq: None,
        }
    }

    pub(crate) const fn entry(self, seq: u64) -> Self {
        Self {
            seq: Some(seq),
            ..self
        }
    }

    /// `w0.jsonl:17`, and what stands there.
    pub(crate) fn show(self, histories: &[History]) -> String {
        let Some(history) = histories.get(self.history) else {
            return String::new();
        };
        let name = format!("{}.jsonl:{}", history.name, self.line + 1);
        let Some(record) = history.records.get(self.line) else {
            return name;
        };
        let entries = match &record.event {
            Event::Log { entries, .. } => Some(("log", entries)),
            Event::Shown { entries, .. } => Some(("shown", entries)),
            _ => None,
        };
        let text = match (entries, self.seq) {
            (Some((kind, entries)), Some(seq)) => {
                let holds = |seen: &&Seen| (seen.begin()..=seen.seq).contains(&seq);
                match entries.iter().find(holds) {
                    Some(seen) => format!("{kind}, at {seq}: {}", json(seen)),
                    None => format!("{kind}, at {seq}: nothing"),
                }
            }
            (Some((kind, entries)), None) => format!("{kind} of {} entries", entries.len()),
            (None, _) => json(record),
        };
        format!("{name}  {text}")
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
