//! What is at rest of a session and of what its client published: changes become durable in order, some time later; a
//! crash loses the rest.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::*;
use crate::session::action::Keep;
use crate::session::queue::Stored;

#[derive(Default)]
pub(super) struct Disk {
    pending: VecDeque<Change>,
    next_place: u64,
    rows: BTreeMap<u64, Row>,
    received: HashSet<PacketId>,
    /// Payloads that the server has accepted, durably.
    pub(super) accepted: Vec<u32>,
    /// Numbers of messages to the client that were lost before they were durable: nobody was told that they were.
    pub(super) lost: HashSet<u32>,
}

struct Change {
    what: What,
    answer: Option<(u64, Answer)>,
}

enum What {
    Row(u64, Option<Row>),
    Received(PacketId, Option<u32>),
    Accepted(u32),
    Released(PacketId),
}

struct Row {
    queued: Option<Queued>,
    packet_id: Option<PacketId>,
}

impl Disk {
    pub(super) fn queue(&mut self, queued: &mut Queued) {
        let place = self.next_place;
        self.next_place += 1;
        queued.stored = Some(Stored {
            place,
            message: place + 1,
        });
        let row = Row {
            queued: Some(queued.clone()),
            packet_id: None,
        };
        self.push(What::Row(place, Some(row)), None);
    }

    pub(super) fn route(&mut self, publish: &Publish, number: u64, answer: Answer) {
        let payload = number_of(publish);
        let what = match (publish.qos, publish.packet_id) {
            (Qos::ExactlyOnce, Some(id)) => What::Received(id, Some(payload)),
            _ => What::Accepted(payload),
        };
        self.push(what, Some((number, answer)));
    }

    pub(super) fn note(&mut self, action: Action) {
        let kept = |id: PacketId| Some((id.get().into(), Answer::Kept));
        let (what, answer) = match action {
            Action::Accept(id, number) => {
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                (What::Received(id, None), Some((number, answer)))
            }
            Action::Forget(id, number) => {
                (What::Released(id), Some((number, Answer::Released(true))))
            }
            Action::Keep(Keep::Sent(queued, at, id)) => {
                let exactly = queued.qos == Qos::ExactlyOnce;
                let row = Row {
                    queued: Some(*queued),
                    packet_id: Some(id),
                };
                let answer = kept(id).filter(|_| exactly);
                (What::Row(at.place, Some(row)), answer)
            }
            Action::Keep(Keep::Released(at, id)) => {
                let row = Row {
                    queued: None,
                    packet_id: Some(id),
                };
                (What::Row(at.place, Some(row)), kept(id))
            }
            Action::Keep(Keep::Settled(at)) => (What::Row(at.place, None), None),
            other => panic!("{other:?}"),
        };
        self.push(what, answer);
    }

    fn push(&mut self, what: What, answer: Option<(u64, Answer)>) {
        self.pending.push_back(Change { what, answer });
    }

    /// Answers of an ended connection reach nobody.
    pub(super) fn disconnect(&mut self) {
        self.pending.iter_mut().for_each(|it| it.answer = None);
    }

    fn apply(&mut self, what: What) {
        match what {
            What::Row(place, Some(row)) => {
                self.rows.insert(place, row);
            }
            What::Row(place, None) => {
                self.rows.remove(&place);
            }
            What::Received(id, payload) => {
                self.received.insert(id);
                self.accepted.extend(payload);
            }
            What::Accepted(payload) => self.accepted.push(payload),
            What::Released(id) => {
                self.received.remove(&id);
            }
        }
    }

    fn crash(&mut self) {
        let mut places: HashSet<u64> = self.rows.keys().copied().collect();
        for change in self.pending.drain(..) {
            if let What::Row(place, Some(row)) = change.what
                && row.packet_id.is_none()
                && places.insert(place)
            {
                let lost = row.queued.iter();
                self.lost.extend(lost.map(|it| number_of(&it.publish)));
            }
        }
    }
}

impl Pair {
    pub(super) fn at_rest(version: Version, change: impl FnOnce(&mut Config)) -> Self {
        let mut pair = Self::new(version, change);
        pair.disconnect();
        pair.disk = Some(Disk::default());
        pair.connect();
        pair
    }

    /// So many changes become durable. False if there was none.
    pub(super) fn commit(&mut self, count: usize) -> bool {
        for done in 0..count {
            let change = self.disk.as_mut().and_then(|it| it.pending.pop_front());
            let Some(Change { what, answer }) = change else {
                return done > 0;
            };
            self.disk.as_mut().unwrap().apply(what);
            if let Some((number, answer)) = answer {
                self.turn(|session, out| session.handle_answer(number, answer, out));
            }
        }
        true
    }

    /// The server is killed and comes back.
    pub(super) fn crash(&mut self) {
        self.disconnect();
        let disk = self.disk.as_mut().unwrap();
        disk.crash();
        self.accepted.clone_from(&disk.accepted);
        self.queue.clear();
        let mut inflight = Vec::new();
        for (place, row) in &disk.rows {
            let at = |message| Stored {
                place: *place,
                message,
            };
            match (&row.queued, row.packet_id) {
                (Some(queued), None) => self.queue.push_back(queued.clone()),
                (Some(queued), Some(id)) => inflight.push((id, Content::Message(queued.clone()))),
                (None, Some(id)) => inflight.push((id, Content::Released(Some(at(0))))),
                (None, None) => panic!("an empty row"),
            }
        }
        self.kept =
            SessionState::restored(inflight, disk.received.iter().copied(), Share::default());
        self.connect();
    }
}
