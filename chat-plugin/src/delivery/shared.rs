//! Shared subscriptions to a log (`$share/{name}/chat/c/{cid}/log…`): each entry goes to one of the sessions that hold it.
//! No I/O.
//!
//! A shared subscription belongs to one user, so that nobody takes entries away from others; all its sessions have the same
//! rights. It has one position: everything up to there is settled. A session takes a run of entries when it has room for
//! them, and gives back what it has not acknowledged when it leaves; that goes to another one, first of all.
//!
//! Of the sessions one is called at a time, in turn: it calls the next one if there is more than it takes, or if it has no
//! room. Nothing here calls a reader while it holds a lock: what is to be called is returned.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use proto::ids::{ConversationId, DeviceId, Seq, UserId};

use super::reader::{Key, Reader};
use crate::conversations::Live;

/// Entries that may be handed out behind one that is not settled: so many come again after a kill, at most.
const WINDOW: u64 = 1_024;
/// Entries that a session takes at once.
const RUN_MAX: u64 = 16;

/// One shared subscription, as long as somebody who is connected holds it.
pub(crate) struct Shared {
    /// Under which its position is stored.
    pub(crate) id: DeviceId,
    pub(crate) user: UserId,
    pub(crate) live: Arc<Live>,
    state: Mutex<State>,
}

struct State {
    /// The position, as far as it has been told.
    cursor: Seq,
    /// Everything up to here has been taken.
    sent: Seq,
    head: Seq,
    /// Who has taken what is not settled.
    open: BTreeMap<Seq, u64>,
    /// What was given back.
    returned: BTreeSet<Seq>,
    /// The next one that is called is in front.
    members: VecDeque<Member>,
}

struct Member {
    reader: Weak<Reader>,
    connection: u64,
    key: Key,
    /// It had no room, and nothing was settled since.
    is_full: bool,
}

/// A session that is to look for entries.
pub(crate) struct Call {
    reader: Arc<Reader>,
    key: Key,
}

impl Call {
    /// Makes it look. Not while a lock of a reader is held.
    pub(crate) fn make(self) {
        self.reader.called(self.key);
    }
}

/// Entries that one session has taken, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: Seq,
    pub(crate) to: Seq,
    /// Up to here it has to be looked up what the user sees.
    pub(crate) look_up: Seq,
}

impl Shared {
    pub(crate) fn new(id: DeviceId, user: UserId, live: Arc<Live>, position: Seq) -> Self {
        let state = State {
            cursor: position,
            sent: position,
            head: live.head(),
            open: BTreeMap::new(),
            returned: BTreeSet::new(),
            members: VecDeque::new(),
        };
        Self {
            id,
            user,
            live,
            state: Mutex::new(state),
        }
    }

    /// Takes entries for a session: at most `most`, and no more than its part of what there is.
    pub(crate) fn take(&self, connection: u64, most: usize) -> (Option<Run>, Option<Call>) {
        let mut state = self.lock();
        if state.member(connection).is_none() {
            return (None, None); // it has left
        }
        let most = u64::try_from(most).unwrap_or(RUN_MAX).clamp(1, RUN_MAX);
        let run = self
            .take_returned(&mut state, most)
            .or_else(|| self.take_new(&mut state, most));
        if let Some(run) = run {
            for seq in run.from.get()..=run.to.get() {
                state.open.insert(Seq::new(seq), connection);
            }
        }
        if let Some(member) = state.member(connection) {
            member.is_full = false;
        }
        let call = (run.is_some() && state.has_more())
            .then(|| state.next_but(connection))
            .flatten();
        (run, call)
    }

    fn take_returned(&self, state: &mut State, most: u64) -> Option<Run> {
        while let Some(from) = state.returned.pop_first() {
            let next = self.live.next_visible(self.user, from);
            let Some((stretch, look_up)) = next.filter(|(stretch, _)| stretch.from == from) else {
                continue; // not to be seen any more
            };
            let end = from.get().saturating_add(most - 1).min(stretch.to.get());
            let mut to = from;
            while to.get() < end && state.returned.remove(&to.next()) {
                to = to.next();
            }
            return Some(Run { from, to, look_up });
        }
        None
    }

    fn take_new(&self, state: &mut State, most: u64) -> Option<Run> {
        let (stretch, look_up) = self.live.next_visible(self.user, state.sent.next())?;
        let from = stretch.from;
        if from > state.head {
            return None;
        }
        state.sent = from.previous();
        let window = state.position().get().saturating_add(WINDOW);
        let end = stretch.to.min(state.head).get().min(window);
        let available = end.checked_sub(state.sent.get()).filter(|some| *some > 0)?;
        let sessions = u64::try_from(state.members.len()).unwrap_or(1).max(1);
        let count = available.div_ceil(sessions).min(most);
        let to = Seq::new(state.sent.get() + count);
        state.sent = to;
        Some(Run { from, to, look_up })
    }

    /// An entry that a session took is settled. Says where the position is, if it has moved.
    pub(crate) fn settle(&self, connection: u64, seq: Seq) -> Option<Seq> {
        let mut state = self.lock();
        if let Some(member) = state.member(connection) {
            member.is_full = false;
        }
        if state.open.get(&seq) == Some(&connection) {
            state.open.remove(&seq);
        }
        let position = state.position();
        if position <= state.cursor {
            return None;
        }
        state.cursor = position;
        Some(position)
    }

    /// A session has no room: another one is called, if there is something to be taken.
    pub(crate) fn full(&self, connection: u64) -> Option<Call> {
        let mut state = self.lock();
        state.member(connection)?.is_full = true;
        state
            .has_more()
            .then(|| state.next_but(connection))
            .flatten()
    }

    /// Is there something to be taken?
    pub(crate) fn has_more(&self) -> bool {
        self.lock().has_more()
    }

    /// There are entries up to here.
    fn announce(&self, head: Seq) -> Option<Call> {
        let mut state = self.lock();
        state.head = state.head.max(head);
        state.next_but(0)
    }

    fn join(&self, reader: &Arc<Reader>, key: Key) {
        let mut state = self.lock();
        state.head = state.head.max(self.live.head());
        state.members.push_front(Member {
            reader: Arc::downgrade(reader),
            connection: reader.client.connection,
            key,
            is_full: false,
        });
    }

    /// A session leaves; what it has not acknowledged is for another one. `None`: it was the last one.
    fn leave(&self, connection: u64) -> Option<Option<Call>> {
        let mut state = self.lock();
        state
            .members
            .retain(|member| member.connection != connection);
        let open = std::mem::take(&mut state.open);
        for (seq, of) in open {
            if of == connection {
                state.returned.insert(seq);
            } else {
                state.open.insert(seq, of);
            }
        }
        if state.members.is_empty() {
            return None;
        }
        Some(state.next_but(0))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everything up to here is settled.
    fn position(&self) -> Seq {
        let first = self.returned.first().into_iter();
        let first = first.chain(self.open.first_key_value().map(|(seq, _)| seq));
        first.min().map_or(self.sent, |first| first.previous())
    }

    fn has_more(&self) -> bool {
        let window = self.position().get().saturating_add(WINDOW);
        !self.returned.is_empty() || self.sent.get() < self.head.get().min(window)
    }

    fn member(&mut self, connection: u64) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.connection == connection)
    }

    /// The next session in turn that has room, but not this one.
    fn next_but(&mut self, connection: u64) -> Option<Call> {
        for _ in 0..self.members.len() {
            let member = self.members.pop_front()?;
            let is_it = member.connection != connection && !member.is_full;
            let reader = if is_it { member.reader.upgrade() } else { None };
            let key = member.key;
            self.members.push_back(member);
            if let Some(reader) = reader {
                return Some(Call { reader, key });
            }
        }
        None
    }
}

/// The shared subscriptions that somebody who is connected holds.
#[derive(Default)]
pub(crate) struct SharedLogs {
    by_conversation: RwLock<HashMap<ConversationId, Vec<Arc<Shared>>>>,
}

impl SharedLogs {
    /// The one with this id.
    pub(crate) fn find(&self, conversation: ConversationId, id: DeviceId) -> Option<Arc<Shared>> {
        let all = self
            .by_conversation
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let shared = all.get(&conversation)?.iter();
        shared.into_iter().find(|shared| shared.id == id).cloned()
    }

    /// A session holds it from now on. If nobody did, it begins as `new` says.
    pub(crate) fn join(&self, new: Shared, reader: &Arc<Reader>, key: Key) -> Arc<Shared> {
        let mut all = self
            .by_conversation
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let of_conversation = all.entry(new.live.id()).or_default();
        let known = of_conversation.iter().find(|shared| shared.id == new.id);
        let shared = known.cloned().unwrap_or_else(|| {
            let shared = Arc::new(new);
            of_conversation.push(Arc::clone(&shared));
            shared
        });
        shared.join(reader, key);
        shared
    }

    /// A session holds it no longer. Says who gets what it left, and whether somebody who is connected still holds it.
    pub(crate) fn leave(&self, shared: &Shared, connection: u64) -> (Option<Call>, bool) {
        let mut all = self
            .by_conversation
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let left = shared.leave(connection);
        if left.is_none()
            && let Some(of_conversation) = all.get_mut(&shared.live.id())
        {
            of_conversation.retain(|other| other.id != shared.id);
            if of_conversation.is_empty() {
                all.remove(&shared.live.id());
            }
        }
        let is_held = left.is_some();
        (left.flatten(), is_held)
    }

    /// An entry that these users may see has been committed.
    pub(super) fn announce(&self, users: &[UserId], live: &Live, seq: Seq) {
        let calls: Vec<Call> = {
            let all = self
                .by_conversation
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let Some(of_conversation) = all.get(&live.id()) else {
                return;
            };
            let told = of_conversation
                .iter()
                .filter(|shared| users.contains(&shared.user));
            told.filter_map(|shared| shared.announce(seq)).collect()
        };
        calls.into_iter().for_each(Call::make);
    }
}
