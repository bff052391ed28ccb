//! One connection as a reader: its subscriptions, its windows over the logs, and what else waits for it. No I/O: what has
//! to be read from the store is named, and brought by [`Reader::arrived`].
//!
//! Order of a pull: deliveries that an earlier connection left unacknowledged, then replies, then receipts, then the
//! conversations by turns of so many entries each.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::codec::packet::{PacketId, Publish, Qos};
use broker::hooks::{ClientInfo, Delivery, DeliveryOutcome, DeliveryRef, Room};
use bytestring::ByteString;
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId};

use super::flow::{FORMS, Flow};
use super::subscriptions::{Filters, Matched, Options};
use crate::conversations::Live;
use crate::receipts::Event;
use crate::render::{Form, Line};

/// `…/log` subscriptions have slots from here; below are the forms of the inbox.
const LOG_SLOT: u8 = 128;

/// One connection as a reader.
pub(crate) struct Reader {
    pub(crate) client: Arc<ClientInfo>,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    limits: ReaderLimits,
    state: Mutex<State>,
}

/// Bounds of one reader, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderLimits {
    pub(crate) turn_entries: usize,
    pub(crate) replies_max: usize,
}

#[derive(Default)]
struct State {
    /// A device: its cursors are kept. Otherwise a guest.
    known: bool,
    inbox: [Filters<ConversationId>; FORMS],
    receipts: Filters<ConversationId>,
    replies_to: Filters<Box<str>>,
    errors: Filters<Box<str>>,
    logs: BTreeMap<u8, Log>,
    attach: Attach,
    flows: HashMap<ConversationId, Flow>,
    /// Where flows ended that are no longer held.
    settled: HashMap<ConversationId, Seq>,
    turn: VecDeque<Key>,
    resend: Resend,
    replies: VecDeque<(Arc<Publish>, Qos, Vec<u32>)>,
    receipt_events: HashMap<ConversationId, Event>,
    receipt_turn: VecDeque<ConversationId>,
}

#[derive(Default)]
enum Attach {
    /// No inbox subscription yet.
    #[default]
    Detached,
    /// The conversations are being looked up; these had entries meanwhile: (before the first, last).
    Attaching(HashMap<ConversationId, (Arc<Live>, Seq, Seq)>),
    /// Flows follow the feed.
    Attached,
}

#[derive(Default)]
struct Resend {
    waiting: VecDeque<(PacketId, Reference)>,
    loaded: VecDeque<(PacketId, Reference, Arc<Line>)>,
    loading: bool,
}

struct Log {
    flow: Flow,
    topic: ByteString,
    options: Options,
    /// Under this id the position is stored, for devices.
    position: DeviceId,
}

/// One line of business of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Inbox(ConversationId),
    Log(u8),
}

/// Something that has to be read from the store.
pub(crate) enum Wanted {
    /// Entries of one conversation from here on.
    Page {
        key: Key,
        live: Arc<Live>,
        from: Seq,
    },
    /// Single entries, for deliveries that go out again.
    Resend(Vec<(PacketId, Reference)>),
}

/// What a reader's progress means for others.
#[derive(Clone)]
pub(crate) struct Progressed {
    pub(crate) live: Arc<Live>,
    /// Whose cursor: of the device, or the position of a `…/log`.
    pub(crate) cursor_of: Option<DeviceId>,
    pub(crate) cursor: Seq,
    /// Acknowledged by a known device up to here: the delivered mark of the user.
    pub(crate) delivered: Option<Seq>,
}

/// Result of a pull.
#[derive(Default)]
pub(crate) struct Pulled {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) progressed: Vec<Progressed>,
}

/// The plugin's meaning of a [`DeliveryRef`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// An entry in a form (slot 0 to 2), or of a `…/log` (slot 128 and above).
    Entry {
        slot: u8,
        conversation: ConversationId,
        seq: Seq,
    },
    /// A reply, an error or a receipt: nothing to settle.
    State,
}

/// How a look-up of the conversations begins and what it found.
pub(crate) struct Attached {
    /// Conversations with something to hand out, most recently active first.
    pub(crate) behind: Vec<(Arc<Live>, Seq)>,
    /// Conversations without: where they stand.
    pub(crate) settled: HashMap<ConversationId, Seq>,
}

impl Reader {
    pub(crate) fn new(
        client: Arc<ClientInfo>,
        user: UserId,
        device: DeviceId,
        limits: ReaderLimits,
    ) -> Self {
        Self {
            client,
            user,
            device,
            limits,
            state: Mutex::default(),
        }
    }

    /// From now on a device.
    pub(crate) fn make_known(&self) {
        self.state().known = true;
    }

    pub(crate) fn is_known(&self) -> bool {
        self.state().known
    }

    /// Subscribes a form of the inbox. `None`: all conversations.
    pub(crate) fn subscribe_inbox(
        &self,
        form: Form,
        conversation: Option<ConversationId>,
        options: Options,
    ) {
        let mut state = self.state();
        if let Some(filters) = state.inbox.get_mut(form.slot()) {
            filters.insert(conversation, options);
        }
        state.rewant();
    }

    pub(crate) fn unsubscribe_inbox(
        &self,
        form: Form,
        conversation: Option<ConversationId>,
    ) -> bool {
        let mut state = self.state();
        let existed = state
            .inbox
            .get_mut(form.slot())
            .is_some_and(|filters| filters.remove(conversation.as_ref()));
        state.rewant();
        existed
    }

    pub(crate) fn has_inbox(&self) -> bool {
        self.state().inbox.iter().any(|filters| !filters.is_empty())
    }

    pub(crate) fn subscribe_receipts(
        &self,
        conversation: Option<ConversationId>,
        options: Options,
    ) {
        self.state().receipts.insert(conversation, options);
    }

    pub(crate) fn unsubscribe_receipts(&self, conversation: Option<ConversationId>) -> bool {
        self.state().receipts.remove(conversation.as_ref())
    }

    pub(crate) fn wants_receipts(&self, conversation: ConversationId) -> bool {
        self.state().receipts.matched(&conversation).is_some()
    }

    pub(crate) fn subscribe_replies(&self, name: Option<&str>, options: Options) {
        self.state().replies_to.insert(name.map(Box::from), options);
    }

    pub(crate) fn unsubscribe_replies(&self, name: Option<&str>) -> bool {
        self.state().replies_to.remove(name)
    }

    pub(crate) fn subscribe_errors(&self, name: Option<&str>, options: Options) {
        self.state().errors.insert(name.map(Box::from), options);
    }

    pub(crate) fn unsubscribe_errors(&self, name: Option<&str>) -> bool {
        self.state().errors.remove(name)
    }

    /// Subscribes `…/log`: entries after `after`, then the live tail. The same slot again begins anew.
    pub(crate) fn subscribe_log(
        &self,
        slot: u8,
        topic: ByteString,
        options: Options,
        position: DeviceId,
        (live, after): (Arc<Live>, Seq),
    ) {
        let mut state = self.state();
        let slot = LOG_SLOT.saturating_add(slot);
        let head = live.head();
        let mut flow = Flow::new(live, after, head);
        flow.want(0, true);
        state.logs.insert(
            slot,
            Log {
                flow,
                topic,
                options,
                position,
            },
        );
        state.enqueue(Key::Log(slot));
        drop(state);
        self.client.wake();
    }

    pub(crate) fn unsubscribe_log(&self, slot: u8) -> bool {
        self.state()
            .logs
            .remove(&LOG_SLOT.saturating_add(slot))
            .is_some()
    }

    /// Deliveries of an earlier connection that are still unacknowledged, with where the cursors of their
    /// conversations stand. Before [`Self::begin_attach`].
    pub(crate) fn restore(
        &self,
        inflight: Vec<(PacketId, Reference)>,
        flows: Vec<(Arc<Live>, Seq)>,
    ) {
        let mut state = self.state();
        for (live, cursor) in flows {
            let head = live.head();
            state.insert_flow(Flow::new(live, cursor, head));
        }
        for (_, reference) in &inflight {
            let Reference::Entry {
                slot,
                conversation,
                seq,
            } = *reference
            else {
                continue;
            };
            if let Some(log) = state.logs.get_mut(&slot) {
                log.flow.restore(0, seq);
            } else if let Some(flow) = state.flows.get_mut(&conversation) {
                flow.restore(usize::from(slot), seq);
            }
        }
        state.resend.waiting = inflight.into();
    }

    /// The conversations are going to be looked up; what is committed from now on is remembered meanwhile.
    pub(crate) fn begin_attach(&self) {
        let mut state = self.state();
        if !matches!(state.attach, Attach::Attaching(_)) {
            state.attach = Attach::Attaching(HashMap::new());
        }
    }

    /// The conversations have been looked up.
    pub(crate) fn finish_attach(&self, attached: Attached) {
        let mut state = self.state();
        let Attach::Attaching(woken) = std::mem::replace(&mut state.attach, Attach::Attached)
        else {
            return;
        };
        for (live, cursor) in attached.behind {
            let (id, head) = (live.id(), live.head());
            if !state.wants(id) {
                continue;
            }
            match state.flows.get_mut(&id) {
                Some(flow) => flow.announce(head),
                None => state.insert_flow(Flow::new(live, cursor, head)),
            }
            state.enqueue(Key::Inbox(id));
        }
        for (id, cursor) in attached.settled {
            if !state.flows.contains_key(&id) {
                state.settled.insert(id, cursor);
            }
        }
        for (_, (live, before, head)) in woken {
            state.announce_inbox(&live, before, head);
        }
        drop(state);
        self.client.wake();
    }

    /// An entry that this user may see has been committed.
    pub(crate) fn announce(&self, live: &Arc<Live>, seq: Seq) {
        let mut state = self.state();
        let mut woken = state.announce_inbox(live, seq.previous(), seq);
        let slots = state
            .logs
            .iter_mut()
            .filter(|(_, log)| log.flow.live.id() == live.id());
        let slots: Vec<u8> = slots
            .map(|(slot, log)| {
                log.flow.announce(seq);
                *slot
            })
            .collect();
        for slot in slots {
            state.enqueue(Key::Log(slot));
            woken = true;
        }
        drop(state);
        if woken {
            self.client.wake();
        }
    }

    /// A reply or error for this connection. `false`: there is no room; nothing is kept.
    pub(crate) fn reply(&self, message: Arc<Publish>, qos: Qos, identifiers: Vec<u32>) -> bool {
        let mut state = self.state();
        if state.replies.len() >= self.limits.replies_max {
            return false;
        }
        state.replies.push_back((message, qos, identifiers));
        drop(state);
        self.client.wake();
        true
    }

    /// Is there room for one more reply?
    pub(crate) fn takes_replies(&self) -> bool {
        self.state().replies.len() < self.limits.replies_max
    }

    /// How this connection subscribed to replies under this name.
    pub(crate) fn reply_subscription(&self, name: &str) -> Option<Matched> {
        self.state().replies_to.matched(name)
    }

    /// How this connection subscribed to errors under this name.
    pub(crate) fn error_subscription(&self, name: &str) -> Option<Matched> {
        self.state().errors.matched(name)
    }

    /// Receipts for one of this user's conversations; joins what waits for the same conversation.
    pub(crate) fn receipt(&self, event: Event) {
        let mut state = self.state();
        if state.receipts.matched(&event.conversation).is_none() {
            return;
        }
        let id = event.conversation;
        if let Some(waiting) = state.receipt_events.get_mut(&id) {
            waiting.join(event);
        } else {
            state.receipt_events.insert(id, event);
            state.receipt_turn.push_back(id);
        }
        drop(state);
        self.client.wake();
    }

    /// Where this reader stands in a conversation, as far as it is in memory.
    pub(crate) fn cursor(&self, conversation: ConversationId) -> Option<Seq> {
        let state = self.state();
        let flow = state.flows.get(&conversation).map(Flow::cursor);
        flow.or_else(|| state.settled.get(&conversation).copied())
    }

    /// The client says that it has everything up to `seq`.
    pub(crate) fn received(&self, conversation: ConversationId, seq: Seq) {
        let mut state = self.state();
        if let Some(flow) = state.flows.get_mut(&conversation) {
            flow.settle_up_to(seq.max(flow.cursor()));
        } else if let Some(settled) = state.settled.get_mut(&conversation) {
            *settled = (*settled).max(seq);
        }
    }

    /// Takes what there is room for.
    pub(crate) fn pull(&self, room: Room) -> Pulled {
        let mut state = self.state();
        let mut out = Out {
            room,
            pulled: Pulled::default(),
            me: self,
        };
        if state.pull_resend(&mut out) {
            state.pull_replies(&mut out);
            state.pull_receipts(&mut out);
            state.pull_turns(&mut out, self.limits.turn_entries);
        }
        out.pulled
    }

    /// Copies are settled.
    pub(crate) fn settle(&self, outcomes: &[(DeliveryRef, DeliveryOutcome)]) -> Vec<Progressed> {
        let mut state = self.state();
        let mut touched = HashSet::new();
        for (reference, outcome) in outcomes {
            let Some(Reference::Entry {
                slot,
                conversation,
                seq,
            }) = Reference::decode(reference)
            else {
                continue;
            };
            let acknowledged = *outcome == DeliveryOutcome::Acknowledged;
            if let Some(log) = state.logs.get_mut(&slot) {
                log.flow.settle(seq, acknowledged);
                touched.insert(Key::Log(slot));
            } else if let Some(flow) = state.flows.get_mut(&conversation) {
                flow.settle(seq, acknowledged);
                touched.insert(Key::Inbox(conversation));
            }
        }
        touched
            .into_iter()
            .filter_map(|key| state.advance(key, self.device))
            .collect()
    }

    /// Entries that were wanted.
    pub(crate) fn arrived(&self, key: Key, lines: Vec<Arc<Line>>) {
        let mut state = self.state();
        if let Some(flow) = state.flow(key) {
            flow.arrived(lines);
            state.enqueue(key);
        }
        drop(state);
        self.client.wake();
    }

    /// Entries that were wanted to go out again.
    pub(crate) fn arrived_resend(&self, lines: Vec<(PacketId, Reference, Arc<Line>)>) {
        let mut state = self.state();
        state.resend.loading = false;
        state.resend.loaded = lines.into();
        drop(state);
        self.client.wake();
    }

    /// Which of the unacknowledged deliveries are worth to be kept: those of entries whose copies had all been handed
    /// out. Others are offered anew from the cursor.
    pub(crate) fn keepable(
        &self,
        inflight: &[(PacketId, DeliveryRef)],
    ) -> Vec<(PacketId, Reference)> {
        let state = self.state();
        let decoded = inflight
            .iter()
            .filter_map(|(id, reference)| Some((*id, Reference::decode(reference)?)));
        decoded
            .filter(|(_, reference)| match reference {
                Reference::State => false,
                Reference::Entry { slot, .. } if *slot >= LOG_SLOT => state.logs.contains_key(slot),
                Reference::Entry {
                    conversation, seq, ..
                } => state
                    .flows
                    .get(conversation)
                    .is_some_and(|flow| *seq <= flow.complete_up_to()),
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pull under way.
struct Out<'a> {
    room: Room,
    pulled: Pulled,
    me: &'a Reader,
}

/// What one step of a turn came to.
enum Step {
    /// One entry was passed.
    Passed,
    /// The room is used up.
    NoRoom,
    /// The next entry has to be read first.
    Wanted,
    /// There is nothing more.
    Done,
}

impl Out<'_> {
    fn fits(&self, qos: Qos) -> bool {
        self.room.bytes > 0 && (qos == Qos::AtMostOnce || self.room.packets > 0)
    }

    fn deliver(&mut self, reference: Reference, message: Arc<Publish>, matched: &Matched) {
        self.push(Delivery {
            reference: reference.encode(),
            qos: matched.qos,
            retain: false,
            resend: None,
            subscription_identifiers: matched.identifiers.clone(),
            message,
        });
    }

    fn push(&mut self, delivery: Delivery) {
        const OVERHEAD: usize = 256;
        self.room.bytes = self
            .room
            .bytes
            .saturating_sub(delivery.message.payload.len() + OVERHEAD);
        if delivery.qos != Qos::AtMostOnce {
            self.room.packets = self.room.packets.saturating_sub(1);
        }
        self.pulled.deliveries.push(delivery);
    }
}

impl State {
    /// Does some inbox filter cover this conversation?
    fn wants(&self, conversation: ConversationId) -> bool {
        self.inbox
            .iter()
            .any(|filters| filters.matched(&conversation).is_some())
    }

    /// The filters changed: tell the flows which forms are wanted.
    fn rewant(&mut self) {
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

    fn insert_flow(&mut self, mut flow: Flow) {
        let id = flow.live.id();
        for (form, filters) in self.inbox.iter().enumerate() {
            flow.want(form, filters.matched(&id).is_some());
        }
        self.settled.remove(&id);
        self.flows.insert(id, flow);
    }

    fn announce_inbox(&mut self, live: &Arc<Live>, before: Seq, head: Seq) -> bool {
        let id = live.id();
        match &mut self.attach {
            Attach::Detached => return false,
            Attach::Attaching(woken) => {
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

    fn flow(&mut self, key: Key) -> Option<&mut Flow> {
        match key {
            Key::Inbox(id) => self.flows.get_mut(&id),
            Key::Log(slot) => self.logs.get_mut(&slot).map(|log| &mut log.flow),
        }
    }

    fn enqueue(&mut self, key: Key) {
        let Some(flow) = self.flow(key) else { return };
        if !flow.queued && !flow.loading {
            flow.queued = true;
            self.turn.push_back(key);
        }
    }

    /// `false`: some of these are still to come; they go first.
    fn pull_resend(&mut self, out: &mut Out<'_>) -> bool {
        const AT_ONCE: usize = 16;
        while let Some((packet_id, reference, line)) = self.resend.loaded.pop_front() {
            if out.room.packets == 0 || out.room.bytes == 0 {
                self.resend.loaded.push_front((packet_id, reference, line));
                return false;
            }
            let message = match reference {
                Reference::Entry { slot, .. } if slot < LOG_SLOT => Form::from_slot(slot)
                    .and_then(|form| line.publish(form))
                    .unwrap_or_else(|| line.json()),
                _ => line.log(
                    &self
                        .logs
                        .get(&log_slot(reference))
                        .map_or_else(|| line.log_topic(), |log| log.topic.clone()),
                ),
            };
            out.push(Delivery {
                reference: reference.encode(),
                message,
                qos: Qos::AtLeastOnce,
                retain: false,
                resend: Some(packet_id),
                subscription_identifiers: Vec::new(),
            });
        }
        if !self.resend.loading && !self.resend.waiting.is_empty() {
            self.resend.loading = true;
            let count = self.resend.waiting.len().min(AT_ONCE);
            out.pulled
                .wanted
                .push(Wanted::Resend(self.resend.waiting.drain(..count).collect()));
        }
        !self.resend.loading
    }

    fn pull_replies(&mut self, out: &mut Out<'_>) {
        while let Some((message, qos, identifiers)) = self.replies.pop_front() {
            if !out.fits(qos) {
                self.replies.push_front((message, qos, identifiers));
                return;
            }
            let matched = Matched {
                qos,
                no_local: false,
                identifiers,
            };
            out.deliver(Reference::State, message, &matched);
        }
    }

    fn pull_receipts(&mut self, out: &mut Out<'_>) {
        while let Some(id) = self.receipt_turn.pop_front() {
            let Some(matched) = self.receipts.matched(&id) else {
                self.receipt_events.remove(&id);
                continue;
            };
            if !out.fits(matched.qos) {
                self.receipt_turn.push_front(id);
                return;
            }
            if let Some(event) = self.receipt_events.remove(&id) {
                out.deliver(Reference::State, Arc::new(event.publish()), &matched);
            }
        }
    }

    fn pull_turns(&mut self, out: &mut Out<'_>, entries_max: usize) {
        while let Some(key) = self.turn.pop_front() {
            let mut left = entries_max;
            let step = loop {
                if left == 0 {
                    break Step::Passed;
                }
                match self.step(key, out) {
                    Step::Passed => left -= 1,
                    other => break other,
                }
            };
            match step {
                Step::Passed => self.turn.push_back(key),
                Step::NoRoom => self.turn.push_front(key),
                Step::Wanted | Step::Done => {
                    if let Some(flow) = self.flow(key) {
                        flow.queued = false;
                    }
                }
            }
            if let Some(progressed) = self.advance(key, out.me.device) {
                out.pulled.progressed.push(progressed);
            }
            if matches!(step, Step::NoRoom) {
                return;
            }
        }
    }

    /// Hands out the next entry of one conversation, in every form that still needs it.
    fn step(&mut self, key: Key, out: &mut Out<'_>) -> Step {
        let Some(flow) = self.flow(key) else {
            return Step::Done;
        };
        let Some(seq) = flow.next() else {
            return Step::Done;
        };
        let Some(line) = flow.line(seq) else {
            flow.loading = true;
            let live = Arc::clone(&flow.live);
            out.pulled.wanted.push(Wanted::Page {
                key,
                live,
                from: seq,
            });
            return Step::Wanted;
        };
        let visible = flow.live.may_see(out.me.user, seq);
        match key {
            Key::Inbox(id) => self.step_inbox(id, &line, visible, out),
            Key::Log(slot) => self.step_log(slot, &line, visible, out),
        }
    }

    fn step_inbox(
        &mut self,
        id: ConversationId,
        line: &Arc<Line>,
        visible: bool,
        out: &mut Out<'_>,
    ) -> Step {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Step::Done;
        };
        let seq = line.entry.seq;
        for (slot, filters) in self.inbox.iter().enumerate() {
            if !flow.needs(slot, seq) {
                continue;
            }
            let shown = filters.matched(&id).filter(|matched| {
                visible && !(matched.no_local && line.entry.device == out.me.device)
            });
            let form = u8::try_from(slot).ok().and_then(Form::from_slot);
            let copy = shown.zip(form.and_then(|form| line.publish(form)));
            let Some((matched, message)) = copy else {
                flow.passed(slot, seq, false);
                continue;
            };
            if !out.fits(matched.qos) {
                return Step::NoRoom;
            }
            let reference = Reference::Entry {
                slot: u8::try_from(slot).unwrap_or_default(),
                conversation: id,
                seq,
            };
            out.deliver(reference, message, &matched);
            flow.passed(slot, seq, true);
        }
        Step::Passed
    }

    fn step_log(&mut self, slot: u8, line: &Arc<Line>, visible: bool, out: &mut Out<'_>) -> Step {
        let Some(log) = self.logs.get_mut(&slot) else {
            return Step::Done;
        };
        let seq = line.entry.seq;
        if !visible || (log.options.no_local && line.entry.device == out.me.device) {
            log.flow.passed(0, seq, false);
            return Step::Passed;
        }
        if !out.fits(log.options.qos) {
            return Step::NoRoom;
        }
        let matched = Matched {
            qos: log.options.qos,
            no_local: log.options.no_local,
            identifiers: log.options.identifier.into_iter().collect(),
        };
        let reference = Reference::Entry {
            slot,
            conversation: log.flow.live.id(),
            seq,
        };
        out.deliver(reference, line.log(&log.topic), &matched);
        log.flow.passed(0, seq, true);
        Step::Passed
    }

    /// Moves the cursor of one flow, and lets go of a flow that has nothing more to do.
    fn advance(&mut self, key: Key, device: DeviceId) -> Option<Progressed> {
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
            Key::Log(slot) => {
                let log = self.logs.get_mut(&slot)?;
                let advance = log.flow.advance()?;
                Progressed {
                    live: Arc::clone(&log.flow.live),
                    cursor_of: known.then_some(log.position),
                    cursor: advance.cursor,
                    delivered: None,
                }
            }
        };
        Some(progressed)
    }
}

fn log_slot(reference: Reference) -> u8 {
    match reference {
        Reference::Entry { slot, .. } => slot,
        Reference::State => 0,
    }
}

impl Reference {
    /// Byte 0: 1 for an entry, 0 for state; 1: slot; 2: kind; 3 to 18: conversation; 19 to 26: seq.
    pub(crate) fn encode(self) -> DeliveryRef {
        let mut bytes = [0; 32];
        if let Self::Entry {
            slot,
            conversation,
            seq,
        } = self
        {
            let parts = [1, slot, conversation.kind().to_byte()];
            let all = parts
                .iter()
                .chain(conversation.as_bytes())
                .copied()
                .chain(seq.get().to_be_bytes());
            for (to, from) in bytes.iter_mut().zip(all) {
                *to = from;
            }
        }
        DeliveryRef(bytes)
    }

    pub(crate) fn decode(reference: &DeliveryRef) -> Option<Self> {
        let (head, rest) = reference.0.split_first_chunk::<3>()?;
        let [tag, slot, kind] = *head;
        if tag == 0 {
            return Some(Self::State);
        }
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (seq, _) = rest.split_first_chunk::<8>()?;
        let conversation = ConversationId::from_parts(ConversationKind::from_byte(kind)?, *id);
        Some(Self::Entry {
            slot,
            conversation,
            seq: Seq::new(u64::from_be_bytes(*seq)),
        })
    }
}
