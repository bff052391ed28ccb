//! Shared subscriptions to a log (`$share/{name}/chat/c/{cid}/log…`): each entry goes to one of the sessions that hold it.
//! No I/O.
//!
//! A shared subscription belongs to one user, so that nobody takes entries away from others; all its sessions have the same
//! rights. It has one position: everything up to there is settled. A session takes a run of entries when it has room for
//! them, and gives back what it has not acknowledged when it leaves; that goes to another one, first of all.
//!
//! Of the sessions one is called at a time, in turn: it calls the next one if there is more than it takes, if it has no
//! room, or if it has no turn now as what goes before has none. Nothing here calls a reader while it holds a lock: what is to be called is returned.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use proto::ids::{ConversationId, DeviceId, Seq, UserId};

use super::reader::{Key, Reader};
use crate::conversations::Live;
use crate::domain::member::Stretch;

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

#[derive(Default)]
struct State {
    places: Places,
    /// The next one that is called is in front.
    members: VecDeque<Member>,
}

/// What has become of the entries.
#[derive(Default)]
struct Places {
    /// The position, as far as it has been told.
    cursor: Seq,
    /// Everything up to here has been taken.
    sent: Seq,
    head: Seq,
    /// Which connection has taken what is not settled.
    open: BTreeMap<Seq, u64>,
    /// What was given back.
    returned: BTreeSet<Seq>,
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
    /// Makes it look; says whether it was not about to anyway. Not while a lock of a reader is held.
    pub(crate) fn make(self) -> bool {
        self.reader.called(self.key)
    }
}

/// Entries that one session has taken, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: Seq,
    pub(crate) to: Seq,
}

impl Shared {
    pub(crate) fn new(id: DeviceId, user: UserId, live: Arc<Live>, position: Seq) -> Self {
        let places = Places {
            cursor: position,
            sent: position,
            head: live.head(),
            ..Places::default()
        };
        let state = State {
            places,
            ..State::default()
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
        let sessions = u64::try_from(state.members.len()).unwrap_or(1);
        let visible = |seq| self.live.next_visible(self.user, seq);
        let run = state.places.take(connection, (most, sessions), visible);
        if let Some(member) = state.member(connection) {
            member.is_full = false;
        }
        let call = (run.is_some() && state.places.has_more())
            .then(|| state.next_but(connection))
            .flatten();
        (run, call)
    }

    /// An entry that a session took is settled. Says where the position is, if it has moved.
    pub(crate) fn settle(&self, connection: u64, seq: Seq) -> Option<Seq> {
        let mut state = self.lock();
        if let Some(member) = state.member(connection) {
            member.is_full = false;
        }
        state.places.settle(connection, seq)
    }

    /// A session has no room: another one is called, if there is something to be taken.
    pub(crate) fn full(&self, connection: u64) -> Option<Call> {
        let mut state = self.lock();
        let member = state.member(connection)?;
        if std::mem::replace(&mut member.is_full, true) {
            return None; // somebody was called then
        }
        state
            .places
            .has_more()
            .then(|| state.next_but(connection))
            .flatten()
    }

    /// Is there something to be taken?
    pub(crate) fn has_more(&self) -> bool {
        self.lock().places.has_more()
    }

    /// There are entries up to here: somebody is called who was not called before, as nobody knows when those will look.
    fn announce(&self, head: Seq) {
        let sessions = {
            let mut state = self.lock();
            state.places.head = state.places.head.max(head);
            state.members.len()
        };
        for _ in 0..sessions {
            let call = self.lock().next_but(0);
            if call.is_none_or(Call::make) {
                return;
            }
        }
    }

    fn join(&self, reader: &Arc<Reader>, key: Key) {
        let mut state = self.lock();
        state.places.head = state.places.head.max(self.live.head());
        state.members.push_front(Member {
            reader: Arc::downgrade(reader),
            connection: reader.client.connection,
            key,
            is_full: false,
        });
    }

    /// A session leaves; what it has not acknowledged is for another one. Says for whom, and whether somebody is left.
    fn leave(&self, connection: u64) -> (Option<Call>, bool) {
        let mut state = self.lock();
        state
            .members
            .retain(|member| member.connection != connection);
        state.places.give_back(connection);
        (state.next_but(0), !state.members.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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

impl Places {
    /// Takes entries in a row for one of so many sessions: what was given back first. `visible` is the next stretch that may
    /// be seen, from a place on.
    fn take(
        &mut self,
        connection: u64,
        (most, sessions): (u64, u64),
        visible: impl Fn(Seq) -> Option<Stretch>,
    ) -> Option<Run> {
        let run = self
            .take_returned(most, &visible)
            .or_else(|| self.take_new((most, sessions), &visible))?;
        let taken = (run.from.get()..=run.to.get()).map(|seq| (Seq::new(seq), connection));
        self.open.extend(taken);
        Some(run)
    }

    fn take_returned(
        &mut self,
        most: u64,
        visible: &impl Fn(Seq) -> Option<Stretch>,
    ) -> Option<Run> {
        while let Some(from) = self.returned.pop_first() {
            let next = visible(from).filter(|stretch| stretch.from == from);
            let Some(stretch) = next else {
                continue; // not to be seen any more
            };
            let end = from.get().saturating_add(most - 1).min(stretch.to.get());
            let mut to = from;
            while to.get() < end && self.returned.remove(&to.next()) {
                to = to.next();
            }
            return Some(Run { from, to });
        }
        None
    }

    fn take_new(
        &mut self,
        (most, sessions): (u64, u64),
        visible: &impl Fn(Seq) -> Option<Stretch>,
    ) -> Option<Run> {
        let stretch = visible(self.sent.next())?;
        let from = stretch.from;
        if from > self.head {
            return None;
        }
        self.sent = from.previous();
        let window = self.position().get().saturating_add(WINDOW);
        let end = stretch.to.min(self.head).get().min(window);
        let available = end.checked_sub(self.sent.get()).filter(|some| *some > 0)?;
        let count = available.div_ceil(sessions.max(1)).min(most);
        let to = Seq::new(self.sent.get() + count);
        self.sent = to;
        Some(Run { from, to })
    }

    /// A connection has settled an entry. Says where the position is, if it has moved.
    fn settle(&mut self, connection: u64, seq: Seq) -> Option<Seq> {
        if self.open.get(&seq) == Some(&connection) {
            self.open.remove(&seq);
        }
        let position = self.position();
        if position <= self.cursor {
            return None;
        }
        self.cursor = position;
        Some(position)
    }

    /// What a connection has taken and not settled is for others.
    fn give_back(&mut self, connection: u64) {
        let left = self.open.extract_if(.., |_, of| *of == connection);
        self.returned.extend(left.map(|(seq, _)| seq));
    }

    /// Everything up to here is settled.
    fn position(&self) -> Seq {
        let returned = self.returned.first();
        let open = self.open.first_key_value().map(|(seq, _)| seq);
        let first = returned.into_iter().chain(open).min();
        first.map_or(self.sent, |first| first.previous())
    }

    fn has_more(&self) -> bool {
        let window = self.position().get().saturating_add(WINDOW);
        !self.returned.is_empty() || self.sent.get() < self.head.get().min(window)
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
        let (call, is_held) = shared.leave(connection);
        if !is_held && let Some(of_conversation) = all.get_mut(&shared.live.id()) {
            of_conversation.retain(|other| other.id != shared.id);
            if of_conversation.is_empty() {
                all.remove(&shared.live.id());
            }
        }
        (call, is_held)
    }

    /// An entry has been committed: whoever may see it gets it.
    pub(super) fn announce(&self, live: &Live, seq: Seq) {
        let told: Vec<Arc<Shared>> = {
            let all = self
                .by_conversation
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let Some(of_conversation) = all.get(&live.id()) else {
                return;
            };
            let told = of_conversation.iter();
            told.filter(|shared| live.sees(shared.user, seq))
                .cloned()
                .collect()
        };
        for shared in told {
            shared.announce(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(seq: Seq) -> Option<Stretch> {
        let stretch = Stretch {
            from: seq.max(Seq::new(1)),
            to: Seq::MAX,
        };
        (seq < Seq::MAX).then_some(stretch)
    }

    fn places(head: u64) -> Places {
        Places {
            head: Seq::new(head),
            ..Places::default()
        }
    }

    fn run(taken: Option<Run>) -> (u64, u64) {
        let run = taken.unwrap();
        (run.from.get(), run.to.get())
    }

    #[test]
    fn entries_are_divided_among_the_sessions() {
        let mut places = places(7);
        assert_eq!(run(places.take(1, (16, 2), all)), (1, 4));
        assert_eq!(run(places.take(2, (2, 2), all)), (5, 6));
        assert_eq!(run(places.take(1, (16, 2), all)), (7, 7));
        assert_eq!(places.take(2, (16, 2), all), None);
        assert!(!places.has_more());
    }

    #[test]
    fn what_is_given_back_goes_first() {
        let mut places = places(9);
        places.take(1, (3, 1), all);
        places.take(2, (2, 1), all);
        assert_eq!(places.settle(1, Seq::new(2)), None, "1 is open");
        places.give_back(1);
        assert!(places.has_more());
        assert_eq!(places.settle(1, Seq::new(3)), None, "it has left");
        assert_eq!(run(places.take(2, (16, 1), all)), (1, 1));
        assert_eq!(run(places.take(2, (16, 1), all)), (3, 3));
        assert_eq!(run(places.take(2, (16, 1), all)), (6, 9));
        assert_eq!(places.settle(2, Seq::new(1)), Some(Seq::new(2)));
    }

    #[test]
    fn little_is_handed_out_behind_what_is_not_settled() {
        let mut places = places(10 * WINDOW);
        let mut taken = 0;
        while let Some(run) = places.take(1, (16, 1), all) {
            taken = run.to.get();
            for seq in run.from.get().max(2)..=taken {
                assert_eq!(places.settle(1, Seq::new(seq)), None);
            }
        }
        assert_eq!(taken, WINDOW);
        assert!(!places.has_more());
        assert_eq!(places.settle(1, Seq::new(1)), Some(Seq::new(WINDOW)));
        assert!(places.has_more());
    }

    #[test]
    fn what_may_not_be_seen_is_passed() {
        let some = |seq: Seq| {
            let parts = [(3, 4), (8, 9)].map(|(from, to)| Stretch {
                from: Seq::new(from).max(seq),
                to: Seq::new(to),
            });
            parts.into_iter().find(|part| seq <= part.to)
        };
        let mut places = places(20);
        assert_eq!(run(places.take(1, (16, 1), some)), (3, 4));
        assert_eq!(run(places.take(1, (16, 1), some)), (8, 9));
        assert_eq!(places.take(1, (16, 1), some), None);
        assert_eq!(places.settle(1, Seq::new(4)), Some(Seq::new(2)));
        assert_eq!(places.settle(1, Seq::new(3)), Some(Seq::new(7)));
        assert_eq!(places.settle(1, Seq::new(8)), Some(Seq::new(8)));
    }

    proptest! {
        /// Each entry is with one session at a time; what was settled is not handed out again, and in the end all is.
        #[test]
        fn every_entry_is_settled_once(steps in prop::collection::vec((0..4_u8, 1..4_u64, any::<u16>()), 1..200)) {
            let mut places = places(0);
            let (mut settled, mut position) = (BTreeSet::new(), Seq::ZERO);
            let mut held: BTreeMap<u64, BTreeSet<Seq>> = BTreeMap::new();
            for (step, connection, number) in steps {
                let of = held.entry(connection).or_default();
                match step {
                    0 => places.head = Seq::new(places.head.get() + u64::from(number % 40)),
                    1 => {
                        let most = u64::from(number % 16) + 1;
                        let Some(run) = places.take(connection, (most, 3), all) else { continue };
                        for seq in run.from.get()..=run.to.get() {
                            prop_assert!(!settled.contains(&seq));
                            prop_assert!(of.insert(Seq::new(seq)));
                        }
                        prop_assert!(run.to <= places.head);
                    }
                    2 => {
                        let chosen = of.iter().nth(usize::from(number) % of.len().max(1)).copied();
                        let Some(seq) = chosen else { continue };
                        of.remove(&seq);
                        settled.insert(seq.get());
                        if let Some(moved) = places.settle(connection, seq) {
                            prop_assert!(moved > position);
                            position = moved;
                        }
                    }
                    _ => {
                        of.clear();
                        places.give_back(connection);
                    }
                }
                let all_held: Vec<Seq> = held.values().flatten().copied().collect();
                let distinct: BTreeSet<Seq> = all_held.iter().copied().collect();
                prop_assert_eq!(all_held.len(), distinct.len());
                prop_assert!((1..=position.get()).all(|seq| settled.contains(&seq)));
            }
            for connection in 1..4 {
                places.give_back(connection);
            }
            while let Some(run) = places.take(9, (16, 1), all) {
                for seq in run.from.get()..=run.to.get() {
                    prop_assert!(settled.insert(seq));
                    places.settle(9, Seq::new(seq));
                }
            }
            prop_assert_eq!(places.position(), places.head);
            prop_assert_eq!(settled.len() as u64, places.head.get());
        }
    }
}
