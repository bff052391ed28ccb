//! Who sent, was told and was shown what, by message, place and client.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Figures, Place};
use crate::check::history::{Event, History, Kind, Seen, unsettled};

/// What the rules ask.
pub(super) struct Facts<'a> {
    pub(super) histories: &'a [History],
    pub(super) clients: Vec<Client<'a>>,
    /// By message id.
    pub(super) sends: HashMap<&'a str, Send<'a>>,
    /// By conversation: each place, as it was shown first, the log before all others.
    pub(super) known: BTreeMap<&'a str, BTreeMap<u64, (&'a Seen, Place)>>,
    /// By conversation: the longest log.
    pub(super) logs: BTreeMap<&'a str, Log<'a>>,
    /// When the server lost what it had in memory.
    pub(super) crashes: Vec<(u64, u64)>,
    pub(super) figures: Figures,
}

/// One history that is a client's.
pub(super) struct Client<'a> {
    pub(super) at: usize,
    pub(super) user: &'a str,
    pub(super) kind: Kind,
    /// Deliveries in the order in which they came, with the number of their connection; what the SDK showed is on one.
    pub(super) got: Vec<Sight<'a>>,
    /// The last log of each conversation, as it saw it.
    pub(super) logs: BTreeMap<&'a str, Log<'a>>,
    /// Topics and conversations of its subscriptions.
    pub(super) ready: HashSet<&'a str>,
    /// It has seen all that it was to see.
    pub(super) ended: bool,
    /// The server forgot its session.
    pub(super) forgotten: bool,
}

/// Something that a client was shown.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) seen: &'a Seen,
    pub(super) connection: u32,
    pub(super) place: Place,
    /// At QoS 2.
    pub(super) once: bool,
}

/// A message.
pub(super) struct Send<'a> {
    pub(super) user: &'a str,
    pub(super) to: &'a str,
    pub(super) text: &'a str,
    /// The first time, and on which connection.
    pub(super) place: Place,
    pub(super) connection: u32,
    pub(super) queued: Option<Place>,
    pub(super) acks: Vec<Told>,
}

/// An ack.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) seq: Option<u64>,
    pub(super) dup: bool,
    pub(super) place: Place,
    pub(super) connection: u32,
}

/// A log.
#[derive(Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) entries: &'a [Seen],
    pub(super) head: u64,
    pub(super) place: Place,
}

impl<'a> Facts<'a> {
    pub(super) fn gather(histories: &'a [History]) -> Self {
        let mut facts = Self {
            histories,
            clients: Vec::new(),
            sends: HashMap::new(),
            known: BTreeMap::new(),
            logs: BTreeMap::new(),
            crashes: Vec::new(),
            figures: Figures::default(),
        };
        for (at, history) in histories.iter().enumerate() {
            facts.read(at, history);
        }
        let mut down = None;
        for record in histories.iter().flat_map(|history| &history.records) {
            match record.event {
                Event::Fault { crash: true, .. } | Event::Down { .. } => {
                    down = down.or(Some(record.at));
                }
                Event::Up => facts
                    .crashes
                    .extend(down.take().map(|from| (from, record.at))),
                _ => {}
            }
        }
        facts.crashes.extend(down.map(|from| (from, u64::MAX)));
        facts.learn();
        facts
    }

    fn read(&mut self, at: usize, history: &'a History) {
        let first = history.records.iter().find_map(|one| match &one.event {
            Event::Began { user, kind } if *kind != Kind::Nemesis => Some((user, *kind)),
            _ => None,
        });
        let Some((user, kind)) = first else {
            return;
        };
        let mut client = Client {
            at,
            user,
            kind,
            got: Vec::new(),
            logs: BTreeMap::new(),
            ready: HashSet::new(),
            ended: false,
            forgotten: false,
        };
        let mut connection = 0;
        for (line, record) in history.records.iter().enumerate() {
            let place = Place::new(at, line);
            match &record.event {
                Event::Began { .. } => self.figures.lives += 1,
                Event::Connected { present } => {
                    connection += 1;
                    self.figures.connections += 1;
                    client.forgotten |= !present && !client.ready.is_empty();
                }
                Event::Ready { to } => client.ready.extend(to.iter().map(String::as_str)),
                Event::Send { id, to, text, .. } => {
                    self.send(id, (user, to, text), place, connection);
                }
                Event::Queued { id, to, text } => {
                    self.send(id, (user, to, text), place, connection);
                    if let Some(send) = self.sends.get_mut(id.as_str()) {
                        send.queued = send.queued.or(Some(place));
                    }
                }
                Event::Acked { id, seq, dup } => {
                    let told = Told {
                        seq: *seq,
                        dup: *dup,
                        place,
                        connection,
                    };
                    if let Some(send) = self.sends.get_mut(id.as_str()) {
                        self.figures.acked += u64::from(send.acks.is_empty());
                        send.acks.push(told);
                    }
                }
                Event::Refused { .. } => self.figures.refused += 1,
                Event::Got { seen, packet_id } => client.got.push(Sight {
                    seen,
                    connection,
                    place: if seen.seq == 0 {
                        place
                    } else {
                        place.entry(seen.seq)
                    },
                    once: packet_id.is_some(),
                }),
                Event::Shown { entries, .. } => {
                    client.got.extend(entries.iter().map(|seen| Sight {
                        seen,
                        connection: 0,
                        place: place.entry(seen.seq),
                        once: true,
                    }));
                }
                Event::Log { to, head, entries } => {
                    let log = Log {
                        entries,
                        head: *head,
                        place,
                    };
                    client.logs.insert(to, log);
                }
                Event::Ended => client.ended = true,
                _ => {}
            }
        }
        self.figures.received += client.got.len() as u64;
        self.clients.push(client);
    }

    fn send(
        &mut self,
        id: &'a str,
        (user, to, text): (&'a str, &'a str, &'a str),
        place: Place,
        connection: u32,
    ) {
        if self.sends.contains_key(id) {
            self.figures.retried += 1;
            return;
        }
        self.figures.sent += 1;
        let send = Send {
            user,
            to,
            text,
            place,
            connection,
            queued: None,
            acks: Vec::new(),
        };
        self.sends.insert(id, send);
    }

    /// Each place as it was shown first.
    fn learn(&mut self) {
        for client in &self.clients {
            for (to, log) in &client.logs {
                let longest = self.logs.entry(to).or_insert(*log);
                if log.entries.len() > longest.entries.len() {
                    *longest = *log;
                }
            }
        }
        for (to, log) in &self.logs {
            let known = self.known.entry(to).or_default();
            for seen in log.entries {
                known.insert(seen.seq, (seen, log.place.entry(seen.seq)));
            }
        }
        for sight in self.clients.iter().flat_map(|client| &client.got) {
            if sight.seen.seq > 0 {
                let known = self.known.entry(&sight.seen.to).or_default();
                known
                    .entry(sight.seen.seq)
                    .or_insert((sight.seen, sight.place));
            }
        }
    }

    /// Where a user may see the log of a conversation, as far as is known: from the first to the last place.
    pub(super) fn visible(&self, to: &str, user: &str) -> Vec<(u64, u64)> {
        let Some(known) = self.known.get(to) else {
            return Vec::new();
        };
        let mut visible = Vec::new();
        let mut from = None;
        for (seq, (seen, _)) in known {
            if !seen.about.iter().any(|about| about == user) {
                continue;
            }
            match seen.kind.as_str() {
                "created" | "added" | "joined" => from = from.or(Some(*seq)),
                "removed" | "left" | "banned" => {
                    visible.extend(from.take().map(|from| (from, *seq)));
                }
                _ => {}
            }
        }
        let is_direct = known.values().all(|(seen, _)| seen.about.is_empty());
        let open = from.or_else(|| is_direct.then_some(1));
        visible.extend(open.map(|from| (from, u64::MAX)));
        visible
    }

    /// The server lost what it had in memory between these times.
    pub(super) fn has_crashed(&self, from: u64, to: u64) -> bool {
        let first = self.crashes.partition_point(|crash| crash.1 < from);
        self.crashes.get(first).is_some_and(|crash| crash.0 <= to)
    }

    /// The oldest message of a user that was never answered.
    pub(super) fn oldest_open(&self, user: &str) -> Option<(&str, Place)> {
        let is_of = |client: &&Client<'_>| client.user == user;
        let client = self.clients.iter().find(is_of)?;
        let (_, open) = unsettled(&self.histories.get(client.at)?.records);
        let sends = open
            .keys()
            .filter_map(|id| self.sends.get_key_value(id.as_str()));
        sends
            .map(|(id, send)| (*id, send.place))
            .min_by_key(|(_, place)| *place)
    }
}
