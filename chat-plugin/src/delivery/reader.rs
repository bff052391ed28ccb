//! One connection as a reader: its subscriptions, its windows over the logs, and what else waits for it. No I/O: what has
//! to be read from the store is named, and brought by [`Reader::arrived`].
//!
//! Order of a pull: deliveries that an earlier connection left unacknowledged, then replies, receipts, presence and
//! typing, account changes, then the conversations by turns of so many entries each.

mod account;
mod hints;
mod pull;
mod queue;
mod reference;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use broker::codec::packet::{PacketId, Publish, Qos};
use broker::hooks::{ClientInfo, Delivery, DeliveryOutcome, DeliveryRef, Room};
use bytestring::ByteString;
use proto::ids::{ConversationId, DeviceId, Seq, UserId};
use proto::topics::Form;

pub(crate) use self::account::{Account, From};
use self::hints::Hints;
use self::pull::Out;
use self::queue::Queue;
pub(crate) use self::reference::Reference;
use super::flow::{self, FORMS, Flow};
use super::shared::{Call, Run, Shared};
use super::subscriptions::{Filters, Matched, Options};
use crate::conversations::{Held, Live};
use crate::domain::profile::Shows;
use crate::receipts::Event;
use crate::render::Line;

/// `…/log` subscriptions have slots from here; below are the forms of the inbox.
pub(crate) const LOG_SLOT: u8 = 128;

/// Bytes of replies that may wait for one connection before its next call is refused.
const REPLIES_BYTES_MAX: usize = 1024 * 1024;

/// Moves and counts in receipts that may wait for one connection: twice what the largest event has.
const RECEIPT_DETAILS_MAX: usize = 10_000;

/// Pages of entries that one connection holds of its inbox, and of its logs.
const PAGES_MAX: usize = 4;

/// One connection as a reader.
pub(crate) struct Reader {
    pub(crate) client: Arc<ClientInfo>,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    limits: ReaderLimits,
    ended: AtomicBool,
    /// What others are told of marks: [`SHOWN_KNOWN`] and the others; 0 before it is known.
    shows: AtomicU8,
    account: Account,
    /// Made when something is asked of it: a client that does not chat holds none.
    state: OnceLock<Box<Mutex<State>>>,
}

/// Bounds of one reader, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderLimits {
    pub(crate) turn_entries: usize,
    pub(crate) replies_max: usize,
    /// Of more missed entries only the newest so many are handed out, if the client wants it so.
    pub(crate) replay_window: Option<u64>,
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
    /// Channels that come to this inbox though nobody loads their readers.
    following: HashMap<ConversationId, Held>,
    /// Where flows ended that are no longer held.
    settled: HashMap<ConversationId, Seq>,
    turn: VecDeque<Key>,
    inbox_pages: Pages,
    log_pages: Pages,
    resend: Resend,
    replies: VecDeque<(Arc<Publish>, Qos, Vec<u32>)>,
    replies_bytes: usize,
    receipt_events: HashMap<ConversationId, Event>,
    receipt_turn: VecDeque<ConversationId>,
    /// Moves and counts in all receipts that wait.
    receipt_details: usize,
    /// The oldest move of which the receipts that wait tell, in ms since 1970.
    receipts_wait_since: Option<u64>,
    catch_up: CatchUp,
    hints: Hints,
    queue: Queue,
}

#[derive(Default)]
enum Attach {
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
    fn begin() -> Self {
        Self::Attaching {
            since_ms: crate::clock::now_ms(),
            woken: HashMap::new(),
            again: false,
        }
    }
}

/// Which flows read ahead: few at a time, so that a reader who is behind everywhere holds little.
#[derive(Default)]
struct Pages {
    /// At most [`PAGES_MAX`].
    held: Vec<Key>,
    waiting: VecDeque<Key>,
}

/// Receipts that have to be looked up.
#[derive(Default)]
struct CatchUp {
    /// Somebody is at it.
    running: bool,
    /// Since when: of all that is under way or to be looked up, in ms since 1970.
    since_ms: Option<u64>,
    /// Of all conversations since then.
    all_since_ms: Option<u64>,
    /// Of these, whatever moved.
    only: HashSet<ConversationId>,
}

/// A part of the receipts that have to be looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Those of conversations in which something moved since then, in ms since 1970.
    Since(u64),
    /// That of one conversation.
    Of(ConversationId),
}

#[derive(Default)]
struct Resend {
    waiting: VecDeque<(PacketId, Reference)>,
    loaded: VecDeque<(PacketId, Reference, Arc<Line>)>,
    loading: Vec<(PacketId, Reference)>,
    /// Something changed that is being read: it has to be read again.
    stale: bool,
}

/// A `…/log` subscription, as it is to be served.
pub(crate) struct LogSubscription {
    /// 0 to 127.
    pub(crate) slot: u8,
    /// Differs from those that had the slot before.
    pub(crate) generation: u32,
    /// Under which its entries arrive.
    pub(crate) topic: ByteString,
    pub(crate) options: Options,
    /// Under this id the position is stored, if the session is kept.
    pub(crate) position: Option<DeviceId>,
    /// Of a channel: what makes this user one who is told of new entries.
    pub(crate) held: Option<Held>,
}

impl LogSubscription {
    /// How this reader calls it.
    pub(crate) fn key(&self) -> Key {
        Key::Log(LOG_SLOT.saturating_add(self.slot), self.generation)
    }
}

struct Log {
    /// Of a shared subscription only what is read: what it hands out is for all its sessions to say.
    flow: Flow,
    shared: Option<Part>,
    topic: ByteString,
    options: Options,
    /// Under this id the position is stored, if the session is kept.
    position: Option<DeviceId>,
    /// Which of the subscriptions that had this slot in their time.
    generation: u32,
    /// Told of new entries as long as this is kept.
    _held: Option<Held>,
}

/// The part of one session in a shared subscription.
struct Part {
    shared: Arc<Shared>,
    /// What it has taken and not handed out yet.
    run: Option<Run>,
}

/// One line of business of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Inbox(ConversationId),
    /// Slot and generation.
    Log(u8, u32),
}

/// Something that has to be read from the store.
pub(crate) enum Wanted {
    /// Entries of one conversation, from and up to here.
    Page {
        key: Key,
        live: Arc<Live>,
        from: Seq,
        to: Seq,
    },
    /// Single entries, for deliveries that go out again.
    Resend(Vec<(PacketId, Reference)>),
    /// What is in the queue of the device behind this place.
    Events { after: u64 },
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

/// What became of deliveries.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) progressed: Vec<Progressed>,
    /// Places in the queue of the device that are settled.
    pub(crate) events: Vec<u64>,
}

/// Result of a pull.
#[derive(Default)]
pub(crate) struct Pulled {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) progressed: Vec<Progressed>,
    /// Other sessions of shared subscriptions, which are to look for what this one leaves.
    pub(crate) calls: Vec<Call>,
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
            ended: AtomicBool::new(false),
            shows: AtomicU8::new(0),
            account: Account::default(),
            state: OnceLock::new(),
        }
    }

    /// The connection has ended: nothing more is looked up for it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.account.end();
    }

    /// The subscription to changes of the own list of conversations.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// What of the user's marks others are told, if it is known.
    pub(crate) fn shows(&self) -> Option<Shows> {
        shows_of(self.shows.load(Ordering::Relaxed))
    }

    /// It was read so; what it was changed to meanwhile counts more. Says how it is.
    pub(crate) fn learn(&self, read: Shows) -> Shows {
        let (new, order) = (byte_of(read), Ordering::Relaxed);
        let before = self.shows.compare_exchange(0, new, order, order);
        before.err().and_then(shows_of).unwrap_or(read)
    }

    /// It was changed.
    pub(crate) fn set_shows(&self, shows: Shows) {
        self.shows.store(byte_of(shows), Ordering::Relaxed);
    }

    /// From now on a device.
    pub(crate) fn make_known(&self) {
        self.state().known = true;
    }

    pub(crate) fn is_known(&self) -> bool {
        self.made().is_some_and(|state| state.known)
    }

    /// Subscribes a form of the inbox. `None`: all conversations.
    pub(crate) fn subscribe_inbox(
        &self,
        form: Form,
        conversation: Option<ConversationId>,
        options: Options,
    ) {
        let mut state = self.state();
        if let Some(filters) = state.inbox.get_mut(flow::slot(form)) {
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
            .get_mut(flow::slot(form))
            .is_some_and(|filters| filters.remove(conversation.as_ref()));
        state.rewant();
        drop(state);
        self.client.wake(); // what the form kept waiting may go on
        existed
    }

    pub(crate) fn has_inbox(&self) -> bool {
        self.made()
            .is_some_and(|state| state.inbox.iter().any(|filters| !filters.is_empty()))
    }

    /// Is there a filter for the inbox of this conversation alone?
    pub(crate) fn wants_only(&self, conversation: ConversationId) -> bool {
        self.made().is_some_and(|state| {
            let mut filters = state.inbox.iter();
            filters.any(|filters| filters.has_only(&conversation))
        })
    }

    /// Keeps what makes this user one to whom a channel comes; `None`: it comes no longer, or anyway.
    pub(crate) fn follow(&self, conversation: ConversationId, held: Option<Held>) {
        let Some(mut state) = self.made() else {
            return;
        };
        let before = match held {
            Some(held) => state.following.insert(conversation, held),
            None => state.following.remove(&conversation),
        };
        drop(state);
        drop(before);
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
        self.made()
            .is_some_and(|state| state.receipts.matched(&conversation).is_some())
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
    pub(crate) fn subscribe_log(&self, log: LogSubscription, live: Arc<Live>, after: Seq) {
        let mut state = self.state();
        let slot = LOG_SLOT.saturating_add(log.slot);
        let head = live.head();
        let mut flow = Flow::new(live, after, head);
        flow.want(0, true);
        let generation = log.generation;
        state.logs.insert(
            slot,
            Log {
                flow,
                shared: None,
                topic: log.topic,
                options: log.options,
                position: log.position,
                generation,
                _held: log.held,
            },
        );
        state.enqueue(Key::Log(slot, generation));
        drop(state);
        self.client.wake();
    }

    /// Changes the options of a `…/log` that is subscribed to. `false`: this one is not.
    pub(crate) fn resubscribe_log(&self, log: &LogSubscription) -> bool {
        let Key::Log(slot, generation) = log.key() else {
            return false;
        };
        let mut state = self.state();
        let held = state.log_mut(slot, generation);
        held.map(|held| held.options = log.options).is_some()
    }

    /// Takes part in a shared subscription.
    pub(crate) fn subscribe_shared(&self, log: LogSubscription, shared: Arc<Shared>) {
        let key = log.key();
        let live = Arc::clone(&shared.live);
        let head = live.head();
        let held = Log {
            flow: Flow::new(live, head, head),
            shared: Some(Part { shared, run: None }),
            topic: log.topic,
            options: log.options,
            position: None,
            generation: log.generation,
            _held: log.held,
        };
        if let Key::Log(slot, _) = key {
            self.state().logs.insert(slot, held);
        }
        self.called(key);
    }

    /// Shared subscriptions of which this reader has a part: of one slot, or of all.
    pub(crate) fn shared(&self, slot: Option<u8>) -> Vec<Arc<Shared>> {
        let Some(state) = self.made() else {
            return Vec::new();
        };
        let slot = slot.map(|slot| LOG_SLOT.saturating_add(slot));
        let logs = state
            .logs
            .iter()
            .filter(|(of, _)| slot.is_none_or(|slot| slot == **of));
        let parts = logs.filter_map(|(_, log)| log.shared.as_ref());
        parts.map(|part| Arc::clone(&part.shared)).collect()
    }

    /// There is something to be taken of a shared subscription. `false`: it was in line already.
    pub(crate) fn called(&self, key: Key) -> bool {
        let is_new = self.made().is_some_and(|mut state| state.enqueue(key));
        if is_new {
            self.client.wake();
        }
        is_new
    }

    /// This reader is told of new entries from now on: those that came while it was being set up are caught up with.
    pub(crate) fn catch_up_logs(&self) {
        let Some(mut state) = self.made() else {
            return;
        };
        let keys = state.logs.iter_mut().map(|(slot, log)| {
            log.flow.announce(log.flow.live.head());
            Key::Log(*slot, log.generation)
        });
        let keys: Vec<Key> = keys.collect();
        for key in keys {
            state.enqueue(key);
        }
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
                generation,
            } = *reference
            else {
                continue;
            };
            if slot >= LOG_SLOT {
                if let Some(log) = state.log_mut(slot, generation) {
                    log.flow.restore(seq);
                }
            } else if let Some(flow) = state.flows.get_mut(&conversation) {
                flow.restore(seq);
            }
        }
        state.resend.waiting = inflight.into();
    }

    /// The conversations are going to be looked up; what is committed from now on is remembered meanwhile. Before a new
    /// filter takes effect. `false`: a look-up is under way that will do for this filter as well, or that will be done `again`
    /// as it may have passed over what only this filter wants.
    pub(crate) fn begin_attach(&self, again: bool) -> bool {
        self.state().begin_attach(again)
    }

    /// Since when the conversations are being looked up, in ms since 1970: what came later is new to this reader.
    pub(crate) fn attaching_since_ms(&self) -> u64 {
        match self.state().attach {
            Attach::Attaching { since_ms, .. } => since_ms,
            Attach::Detached | Attach::Attached => u64::MAX,
        }
    }

    /// The conversations have been looked up. `true`: they are to be looked up again.
    pub(crate) fn finish_attach(&self, attached: Attached) -> bool {
        let again = self.state().finish_attach(attached);
        self.client.wake();
        again
    }

    /// An entry that this user may see has been committed.
    pub(crate) fn announce(&self, live: &Arc<Live>, seq: Seq) {
        if !live.is_reader(self.user) {
            self.account.changed();
        }
        let Some(mut state) = self.made() else {
            return;
        };
        // Of a channel one may read the log, and not have it in the inbox.
        let is_for_inbox = state.following.contains_key(&live.id()) || live.is_member(self.user);
        let mut woken = is_for_inbox && state.announce_inbox(live, seq.previous(), seq);
        let slots = state
            .logs
            .iter_mut()
            .filter(|(_, log)| log.flow.live.id() == live.id() && log.shared.is_none());
        let keys: Vec<Key> = slots
            .map(|(slot, log)| {
                log.flow.announce(seq);
                Key::Log(*slot, log.generation)
            })
            .collect();
        for key in keys {
            state.enqueue(key);
            woken = true;
        }
        drop(state);
        if woken {
            self.client.wake();
        }
    }

    /// A reply for this connection.
    pub(crate) fn reply(&self, message: Arc<Publish>, qos: Qos, identifiers: Vec<u32>) {
        let mut state = self.state();
        state.replies_bytes += message.payload.len();
        state.replies.push_back((message, qos, identifiers));
        drop(state);
        self.client.wake();
    }

    /// Is there room for one more reply? Asked before a call is run, by the one task that runs the calls of a connection.
    pub(crate) fn takes_replies(&self) -> bool {
        self.made().is_none_or(|state| {
            state.replies.len() < self.limits.replies_max && state.replies_bytes < REPLIES_BYTES_MAX
        })
    }

    /// How this connection subscribed to replies under this name.
    pub(crate) fn reply_subscription(&self, name: &str) -> Option<Matched> {
        self.made()?.replies_to.matched(name)
    }

    /// How this connection subscribed to errors under this name.
    pub(crate) fn error_subscription(&self, name: &str) -> Option<Matched> {
        self.made()?.errors.matched(name)
    }

    /// Receipts for one of this user's conversations; joins what waits for the same conversation.
    /// While too much waits, only the watermarks of all are kept; `msg.status` tells the rest.
    pub(crate) fn receipt(&self, event: Event) {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.receipts.matched(&event.conversation).is_none() {
            return;
        }
        let since = state.receipts_wait_since.get_or_insert(event.since_ms);
        *since = (*since).min(event.since_ms);
        let id = event.conversation;
        let waiting = match state.receipt_events.entry(id) {
            Entry::Occupied(waiting) => {
                let waiting = waiting.into_mut();
                state.receipt_details -= waiting.details();
                waiting.join(event);
                waiting
            }
            Entry::Vacant(free) => {
                state.receipt_turn.push_back(id);
                free.insert(event)
            }
        };
        if state.receipt_details + waiting.details() > RECEIPT_DETAILS_MAX {
            waiting.shed_details();
        }
        state.receipt_details += waiting.details();
        drop(guard);
        self.client.wake();
    }

    /// Receipts since then have not been handed out, if some have not; in ms since 1970.
    pub(crate) fn receipts_wait_since(&self) -> Option<u64> {
        let state = self.made()?;
        let waiting = state.receipts_wait_since.into_iter();
        waiting.chain(state.catch_up.since_ms).min()
    }

    /// Receipts since then (of one conversation, or of all) have to be looked up.
    pub(crate) fn miss_receipts(&self, conversation: Option<ConversationId>, since_ms: u64) {
        let mut state = self.state();
        let catch_up = &mut state.catch_up;
        let earlier = |since: Option<u64>| Some(since.map_or(since_ms, |at| at.min(since_ms)));
        catch_up.since_ms = earlier(catch_up.since_ms);
        match conversation {
            Some(conversation) => {
                catch_up.only.insert(conversation);
            }
            None => catch_up.all_since_ms = earlier(catch_up.all_since_ms),
        }
    }

    /// Begins to look up what is missing. `false`: nothing is, or somebody is at it.
    pub(crate) fn begin_catch_up(&self) -> bool {
        let Some(mut state) = self.made() else {
            return false;
        };
        let begins = state.catch_up.since_ms.is_some() && !state.catch_up.running;
        state.catch_up.running |= begins;
        begins
    }

    /// What is to be looked up next; `None`: all has been given to [`Self::receipt`], or the connection has ended.
    pub(crate) fn next_missing(&self) -> Option<Missing> {
        let mut state = self.state();
        let catch_up = &mut state.catch_up;
        let missing = match catch_up.all_since_ms.take() {
            Some(since_ms) => Some(Missing::Since(since_ms)),
            None => catch_up.only.iter().next().copied().map(Missing::Of),
        };
        if let Some(Missing::Of(conversation)) = missing {
            catch_up.only.remove(&conversation);
        }
        if missing.is_none() {
            *catch_up = CatchUp::default();
        }
        missing
    }

    /// Where this reader stands in a conversation, as far as it is in memory.
    pub(crate) fn cursor(&self, conversation: ConversationId) -> Option<Seq> {
        let state = self.made()?;
        let flow = state.flows.get(&conversation).map(Flow::cursor);
        flow.or_else(|| state.settled.get(&conversation).copied())
    }

    /// The client says that it has everything up to `seq`.
    pub(crate) fn received(&self, conversation: ConversationId, seq: Seq) {
        self.state().received(conversation, seq);
    }

    /// Takes what there is room for.
    pub(crate) fn pull(&self, room: Room) -> Pulled {
        let mut out = Out {
            room,
            pulled: Pulled::default(),
            me: self,
            now_ms: crate::clock::now_ms(),
        };
        let Some(mut state) = self.made() else {
            out.pull_account();
            return out.pulled;
        };
        if state.pull_resend(&mut out) {
            state.pull_replies(&mut out);
            state.queue.pull(&mut out);
            state.pull_receipts(&mut out);
            state.hints.pull(&mut out);
            out.pull_account();
            state.pull_turns(&mut out, self.limits.turn_entries);
        }
        state.pass_on(&mut out);
        out.pulled
    }

    /// Copies are settled.
    pub(crate) fn settle(&self, outcomes: &[(DeliveryRef, DeliveryOutcome)]) -> Settled {
        let mut state = self.state();
        let (mut progressed, mut events) = (Vec::new(), Vec::new());
        let mut touched = HashSet::new();
        for (reference, outcome) in outcomes {
            let (slot, conversation, seq, generation) = match Reference::decode(reference) {
                Some(Reference::Entry {
                    slot,
                    conversation,
                    seq,
                    generation,
                }) => (slot, conversation, seq, generation),
                Some(Reference::Account { version }) => {
                    let arrived = [DeliveryOutcome::Acknowledged, DeliveryOutcome::HandedOver];
                    if arrived.contains(outcome) {
                        self.account.acknowledge(version);
                    }
                    continue;
                }
                Some(Reference::Event { dseq }) => {
                    events.push(dseq);
                    continue;
                }
                Some(Reference::State { .. }) | None => continue,
            };
            let acknowledged = *outcome == DeliveryOutcome::Acknowledged;
            let key = if slot >= LOG_SLOT {
                Key::Log(slot, generation)
            } else {
                Key::Inbox(conversation)
            };
            if let Some(part) = state.part(key) {
                let shared = Arc::clone(&part.shared);
                let position = shared.settle(self.client.connection, seq);
                progressed.extend(position.map(|cursor| Progressed {
                    live: Arc::clone(&shared.live),
                    cursor_of: Some(shared.id),
                    cursor,
                    delivered: None,
                }));
                if shared.has_more() && state.enqueue(key) {
                    self.client.wake();
                }
            } else if let Some(flow) = state.flow(key) {
                flow.settle(seq, acknowledged);
                touched.insert(key);
            }
        }
        for key in touched {
            progressed.extend(state.advance(key, self.device));
            let goes_on = state.flow(key).is_some_and(|flow| flow.next().is_some());
            if goes_on && state.enqueue(key) {
                self.client.wake(); // it waited for this cursor to move
            }
        }
        Settled { progressed, events }
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
        let asked = std::mem::take(&mut state.resend.loading);
        if std::mem::take(&mut state.resend.stale) {
            for one in asked.into_iter().rev() {
                state.resend.waiting.push_front(one);
            }
        } else {
            state.resend.loaded = lines.into();
        }
        drop(state);
        self.client.wake();
    }

    /// These entries are not what they were: what was read of them, and not handed out yet, is read again.
    pub(crate) fn changed(&self, conversation: ConversationId, seqs: &[Seq]) {
        self.account.entries_changed();
        let Some(mut guard) = self.made() else {
            return;
        };
        let state = &mut *guard;
        if let Some(flow) = state.flows.get_mut(&conversation) {
            flow.changed(seqs);
        }
        for log in state.logs.values_mut() {
            if log.flow.live.id() == conversation {
                log.flow.changed(seqs);
            }
        }
        let concerns = |reference: &Reference| {
            matches!(reference, Reference::Entry { conversation: of, seq, .. }
                if *of == conversation && seqs.contains(seq))
        };
        let resend = &mut state.resend;
        resend.stale |= resend.loading.iter().any(|(_, of)| concerns(of));
        if resend.loaded.iter().any(|(_, of, _)| concerns(of)) {
            while let Some((packet_id, reference, _)) = resend.loaded.pop_back() {
                resend.waiting.push_front((packet_id, reference));
            }
        }
    }

    /// Which of the unacknowledged deliveries are worth to be kept: those of entries whose copies had all been handed
    /// out. Others are offered anew from the cursor.
    pub(crate) fn keepable(
        &self,
        inflight: &[(PacketId, DeliveryRef)],
    ) -> Vec<(PacketId, Reference)> {
        let Some(state) = self.made() else {
            return Vec::new();
        };
        let decoded = inflight
            .iter()
            .filter_map(|(id, reference)| Some((*id, Reference::decode(reference)?)));
        decoded
            .filter(|(_, reference)| match reference {
                Reference::State { .. } | Reference::Account { .. } | Reference::Event { .. } => {
                    false
                }
                Reference::Entry {
                    slot, generation, ..
                } if *slot >= LOG_SLOT => state
                    .logs
                    .get(slot)
                    .is_some_and(|log| log.generation == *generation && log.shared.is_none()),
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
        let state = self.state.get_or_init(Box::default);
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: nothing was asked of this reader yet.
    fn made(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.state.get()?;
        Some(state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const SHOWN_KNOWN: u8 = 1;
const SHOWN_DELIVERED: u8 = 2;
const SHOWN_READ: u8 = 4;

fn byte_of(shows: Shows) -> u8 {
    let delivered = if shows.delivered { SHOWN_DELIVERED } else { 0 };
    let read = if shows.read { SHOWN_READ } else { 0 };
    SHOWN_KNOWN | delivered | read
}

fn shows_of(byte: u8) -> Option<Shows> {
    (byte != 0).then_some(Shows {
        delivered: byte & SHOWN_DELIVERED != 0,
        read: byte & SHOWN_READ != 0,
    })
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

    fn begin_attach(&mut self, again: bool) -> bool {
        if let Attach::Attaching { again: is_due, .. } = &mut self.attach {
            *is_due |= again;
            return false;
        }
        self.attach = Attach::begin();
        true
    }

    fn finish_attach(&mut self, attached: Attached) -> bool {
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

    fn received(&mut self, conversation: ConversationId, seq: Seq) {
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

    fn log_mut(&mut self, slot: u8, generation: u32) -> Option<&mut Log> {
        let log = self.logs.get_mut(&slot)?;
        (log.generation == generation).then_some(log)
    }

    fn flow(&mut self, key: Key) -> Option<&mut Flow> {
        match key {
            Key::Inbox(id) => self.flows.get_mut(&id),
            Key::Log(slot, generation) => self.log_mut(slot, generation).map(|log| &mut log.flow),
        }
    }

    /// The part in a shared subscription.
    fn part(&mut self, key: Key) -> Option<&mut Part> {
        match key {
            Key::Inbox(_) => None,
            Key::Log(slot, generation) => self.log_mut(slot, generation)?.shared.as_mut(),
        }
    }

    /// Puts a flow in line for its turn. `false`: it is, or waits for the store.
    fn enqueue(&mut self, key: Key) -> bool {
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
