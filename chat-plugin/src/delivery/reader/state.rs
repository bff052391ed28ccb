//! What a reader knows, behind its lock: filters, flows, and what waits.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use broker::codec::packet::{PacketId, Publish, Qos};
use bytestring::ByteString;
use proto::ids::{ConversationId, DeviceId, Seq};

use super::super::flow::{FORMS, Flow};
use super::super::shared::{Run, Shared};
use super::super::subscriptions::{Filters, Options};
use super::hints::Hints;
use super::queue::Queue;
use super::reference::Reference;
use super::{Attached, Key, Progressed};
use crate::conversations::{Held, Live};
use crate::receipts::Event;
use crate::render::Line;

#[derive(Default)]
pub(super) struct State {
    /// A device: its cursors are kept. Otherwise a guest.
    pub(super) known: bool,
    pub(super) inbox: [Filters<ConversationId>; FORMS],
    pub(super) receipts: Filters<ConversationId>,
    pub(super) replies_to: Filters<Box<str>>,
    pub(super) errors: Filters<Box<str>>,
    pub(super) logs: BTreeMap<u8, Log>,
    pub(super) attach: Attach,
    pub(super) flows: HashMap<ConversationId, Flow>,
    /// Channels that come to this inbox though nobody loads their readers.
    pub(super) following: HashMap<ConversationId, Held>,
    /// Where flows ended that are no longer held.
    pub(super) settled: HashMap<ConversationId, Seq>,
    pub(super) turn: VecDeque<Key>,
    pub(super) inbox_pages: Pages,
    pub(super) log_pages: Pages,
    pub(super) resend: Resend,
    pub(super) replies: VecDeque<(Arc<Publish>, Qos, Vec<u32>)>,
    pub(super) replies_bytes: usize,
    pub(super) receipt_events: HashMap<ConversationId, Event>,
    pub(super) receipt_turn: VecDeque<ConversationId>,
    /// Moves and counts in all receipts that wait.
    pub(super) receipt_details: usize,
    /// The oldest move of which the receipts that wait tell, in ms since 1970.
    pub(super) receipts_wait_since: Option<u64>,
    pub(super) catch_up: CatchUp,
    pub(super) hints: Hints,
    pub(super) queue: Queue,
}

#[derive(Default)]
pub(super) enum Attach {
    /// No inbox subscription yet.
    #[default]
    Detached,
    /// The conversations are being looked up.
    Attaching {
        since_ms: u64,
        /// These had entries meanwhile: (before the first, last).
        woken: HashMap<ConversationId, (Arc<Live>, Seq, Seq)>,
        /// Somebody has to look again: what was passed over may be wanted now.
        again: bool,
    },
    /// Flows follow the feed.
    Attached,
}

impl Attach {
    pub(super) fn begin() -> Self {
        Self::Attaching {
            since_ms: crate::clock::now_ms(),
            woken: HashMap::new(),
            again: false,
        }
    }
}

/// Which flows read ahead: few at a time, so that a reader who is behind everywhere holds little.
#[derive(Default)]
pub(super) struct Pages {
    /// At most [`PAGES_MAX`].
    pub(super) held: Vec<Key>,
    pub(super) waiting: VecDeque<Key>,
}

/// Receipts that have to be looked up.
#[derive(Default)]
pub(super) struct CatchUp {
    /// Somebody is at it.
    pub(super) running: bool,
    /// Since when: of all that is under way or to be looked up, in ms since 1970.
    pub(super) since_ms: Option<u64>,
    /// Of all conversations since then.
    pub(super) all_since_ms: Option<u64>,
    /// Of these, whatever moved.
    pub(super) only: HashSet<ConversationId>,
}

#[derive(Default)]
pub(super) struct Resend {
    pub(super) waiting: VecDeque<(PacketId, Reference)>,
    pub(super) loaded: VecDeque<(PacketId, Reference, Arc<Line>)>,
    pub(super) loading: Vec<(PacketId, Reference)>,
    /// Something changed that is being read: it has to be read again.
    pub(super) stale: bool,
}

pub(super) struct Log {
    /// Of a shared subscription only what is read: what it hands out is for all its sessions to say.
    pub(super) flow: Flow,
    pub(super) shared: Option<Part>,
    pub(super) topic: ByteString,
    pub(super) options: Options,
    /// Under this id the position is stored, if the session is kept.
    pub(super) position: Option<DeviceId>,
    /// Which of the subscriptions that had this slot in their time.
    pub(super) generation: u32,
    /// Told of new entries as long as this is kept.
    pub(super) _held: Option<Held>,
}

/// The part of one session in a shared subscription.
pub(super) struct Part {
    pub(super) shared: Arc<Shared>,
    /// What it has taken and not handed out yet.
    pub(super) run: Option<Run>,
}

impl State {
    /// Does some inbox filter cover this conversation?
    pub(super) fn wants(&self, conversation: ConversationId) -> bool {
        self.inbox
            .iter()
            .any(|filters| filters.matched(&conversation).is_some())
    }

    /// The filters changed: tell the flows which forms are wanted.
    pub(super) fn rewant(&mut self) {
        for (id, flow) in &mut self.flows {
            for (form, filters) in self.inbox.iter().enumerate() {
                flow.want(form, filters.matched(id).is_some());
            }
        }
        let keys: Vec<Key> = self.flows.keys().map(|id| Key::Inbox(*id)).collect();
        for key in keys {
            self.enqueue(key);
        }
    }

    pub(super) fn begin_attach(&mut self, again: bool) -> bool {
        if let Attach::Attaching { again: is_due, .. } = &mut self.attach {
            *is_due |= again;
            return false;
        }
        self.attach = Attach::begin();
        true
    }

    pub(super) fn finish_attach(&mut self, attached: Attached) -> bool {
        let attach = std::mem::replace(&mut self.attach, Attach::Attached);
        let Attach::Attaching { woken, again, .. } = attach else {
            return false;
        };
        for (live, cursor) in attached.behind {
            let (id, head) = (live.id(), live.head());
            if !self.wants(id) {
                continue;
            }
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.announce(head);
            } else {
                // What this connection has settled may not have been in the store when it was looked up.
                let settled = self.settled.get(&id).copied().unwrap_or_default();
                self.insert_flow(Flow::new(live, cursor.max(settled), head));
            }
            self.enqueue(Key::Inbox(id));
        }
        for (id, cursor) in attached.settled {
            if !self.flows.contains_key(&id) {
                let settled = self.settled.entry(id).or_default();
                *settled = (*settled).max(cursor);
            }
        }
        for (_, (live, before, head)) in woken {
            self.announce_inbox(&live, before, head);
        }
        if again {
            self.attach = Attach::begin();
        }
        again
    }

    pub(super) fn received(&mut self, conversation: ConversationId, seq: Seq) {
        if let Some(flow) = self.flows.get_mut(&conversation) {
            flow.settle_up_to(seq.max(flow.cursor()));
        } else if matches!(self.attach, Attach::Attaching { .. }) {
            // The look-up may have read the cursor before.
            let settled = self.settled.entry(conversation).or_default();
            *settled = (*settled).max(seq);
        } else if let Some(settled) = self.settled.get_mut(&conversation) {
            *settled = (*settled).max(seq);
        }
    }

    pub(super) fn insert_flow(&mut self, mut flow: Flow) {
        let id = flow.live.id();
        for (form, filters) in self.inbox.iter().enumerate() {
            flow.want(form, filters.matched(&id).is_some());
        }
        self.settled.remove(&id);
        self.flows.insert(id, flow);
    }

    pub(super) fn announce_inbox(&mut self, live: &Arc<Live>, before: Seq, head: Seq) -> bool {
        let id = live.id();
        match &mut self.attach {
            Attach::Detached => return false,
            Attach::Attaching { woken, .. } => {
                let entry = woken
                    .entry(id)
                    .or_insert_with(|| (Arc::clone(live), before, head));
                entry.2 = entry.2.max(head);
                return false;
            }
            Attach::Attached => {}
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.announce(head);
        } else {
            let cursor = self.settled.get(&id).copied().unwrap_or(before);
            if head <= cursor || !self.wants(id) {
                return false;
            }
            self.insert_flow(Flow::new(Arc::clone(live), cursor, head));
        }
        self.enqueue(Key::Inbox(id));
        true
    }

    pub(super) fn announce_to_logs(&mut self, id: ConversationId, head: Seq) -> bool {
        let logs = self.logs.iter_mut();
        let slots = logs.filter(|(_, log)| log.flow.live.id() == id && log.shared.is_none());
        let keys: Vec<Key> = slots
            .map(|(slot, log)| {
                log.flow.announce(head);
                Key::Log(*slot, log.generation)
            })
            .collect();
        for key in &keys {
            self.enqueue(*key);
        }
        !keys.is_empty()
    }

    pub(super) fn log_mut(&mut self, slot: u8, generation: u32) -> Option<&mut Log> {
        let log = self.logs.get_mut(&slot)?;
        (log.generation == generation).then_some(log)
    }

    pub(super) fn flow(&mut self, key: Key) -> Option<&mut Flow> {
        match key {
            Key::Inbox(id) => self.flows.get_mut(&id),
            Key::Log(slot, generation) => self.log_mut(slot, generation).map(|log| &mut log.flow),
        }
    }

    /// The part in a shared subscription.
    pub(super) fn part(&mut self, key: Key) -> Option<&mut Part> {
        match key {
            Key::Inbox(_) => None,
            Key::Log(slot, generation) => self.log_mut(slot, generation)?.shared.as_mut(),
        }
    }

    /// Puts a flow in line for its turn. `false`: it is, or waits for the store.
    pub(super) fn enqueue(&mut self, key: Key) -> bool {
        let Some(flow) = self.flow(key) else {
            return false;
        };
        if flow.queued || flow.loading {
            return false;
        }
        flow.queued = true;
        self.turn.push_back(key);
        true
    }

    /// Moves the cursor of one flow, and lets go of a flow that has nothing more to do.
    pub(super) fn advance(&mut self, key: Key, device: DeviceId) -> Option<Progressed> {
        let known = self.known;
        let progressed = match key {
            Key::Inbox(id) => {
                let flow = self.flows.get_mut(&id)?;
                let advance = flow.advance();
                let live = Arc::clone(&flow.live);
                if flow.is_idle() {
                    let cursor = flow.cursor();
                    self.flows.remove(&id);
                    self.settled.insert(id, cursor);
                }
                let advance = advance?;
                Progressed {
                    live,
                    cursor_of: known.then_some(device),
                    cursor: advance.cursor,
                    delivered: advance.acknowledged.filter(|_| known),
                }
            }
            Key::Log(slot, generation) => {
                let log = self.log_mut(slot, generation)?;
                if log.shared.is_some() {
                    return None; // its position is that of all sessions
                }
                let advance = log.flow.advance()?;
                Progressed {
                    live: Arc::clone(&log.flow.live),
                    cursor_of: log.position,
                    cursor: advance.cursor,
                    delivered: None,
                }
            }
        };
        Some(progressed)
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::ConversationKind;

    use super::*;

    #[test]
    fn what_is_received_during_a_look_up_counts() {
        let id = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        let live = Arc::new(Live::new(id, Arc::default()));
        let mut state = State {
            attach: Attach::begin(),
            ..State::default()
        };
        let options = Options {
            qos: Qos::AtLeastOnce,
            no_local: false,
            identifier: None,
        };
        state.inbox[0].insert(None, options);
        state.received(id, Seq::new(5));
        state.finish_attach(Attached {
            behind: vec![(live, Seq::new(2))],
            settled: HashMap::new(),
        });
        assert_eq!(state.flows[&id].cursor(), Seq::new(5));
    }

    #[test]
    fn a_look_up_that_passed_over_what_is_wanted_now_is_done_again() {
        let nothing = || Attached {
            behind: Vec::new(),
            settled: HashMap::new(),
        };
        let mut reader = State::default();
        assert!(reader.begin_attach(false));
        assert!(!reader.begin_attach(false), "this one will do");
        assert!(!reader.finish_attach(nothing()));
        assert!(reader.begin_attach(false));
        assert!(!reader.begin_attach(true));
        assert!(reader.finish_attach(nothing()), "again");
        assert!(!reader.begin_attach(false), "it has begun");
        assert!(!reader.finish_attach(nothing()));
    }
}
