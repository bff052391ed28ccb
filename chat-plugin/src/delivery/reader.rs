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
mod state;
mod subscribing;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use broker::codec::packet::{PacketId, Publish, Qos};
use broker::hooks::{ClientInfo, Delivery, DeliveryOutcome, DeliveryRef, Room};
use bytestring::ByteString;
use proto::ids::{ConversationId, DeviceId, Seq, UserId};

pub(crate) use self::account::{Account, From};
use self::pull::Out;
pub(crate) use self::reference::Reference;
use self::state::{Attach, CatchUp, Pages, State};
use super::flow::Flow;
use super::shared::Call;
use super::subscriptions::{Matched, Options};
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

/// A part of the receipts that have to be looked up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Those of conversations in which something moved since then, in ms since 1970.
    Since(u64),
    /// That of one conversation.
    Of(ConversationId),
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
        let for_inbox = is_for_inbox && state.announce_inbox(live, seq.previous(), seq);
        let woken = state.announce_to_logs(live.id(), seq) || for_inbox;
        drop(state);
        if woken {
            self.client.wake();
        }
    }

    /// The same for logs alone.
    pub(crate) fn announce_to_logs(&self, live: &Live, seq: Seq) {
        let woken = self
            .made()
            .is_some_and(|mut state| state.announce_to_logs(live.id(), seq));
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
