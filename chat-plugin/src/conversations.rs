//! Conversations in memory: what is needed to judge a message and to hand it out, loaded when needed.
//!
//! There is at most one [`Live`] per conversation at a time, so that all who use it see the same. It follows the store's
//! feed: an entry moves its head and joins its ring; a change of members makes it read the members again before it
//! answers the next question about them. The cache keeps the most recently used; whoever holds an `Arc` keeps his own.

mod readers;
mod ring;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use proto::ids::{ConversationId, ConversationKind, Seq, UserId};

use self::readers::Readers;
pub use self::readers::{Held, Loaded};
use self::ring::Ring;
pub use self::ring::RingLimits;
use crate::domain::conversation::Conversation;
use crate::domain::member::{Interval, Marks, Member, Stretch};
use crate::render::Line;
use crate::store::{ChatStore, StoreError};

/// Entries of one conversation of which it is known that they are gone before the feed tells so: it is behind by a moment.
const TAKEN_BACK_MAX: usize = 1_024;

/// All conversations that are in use.
pub struct Conversations {
    store: Arc<dyn ChatStore>,
    recent: quick_cache::sync::Cache<ConversationId, Arc<Live>>,
    known: Mutex<Known>,
    limits: RingLimits,
    /// Bytes in all rings.
    ring_bytes: Arc<AtomicUsize>,
    /// Counts what was committed: the time of the rings.
    commits: AtomicU64,
}

#[derive(Default)]
struct Known {
    map: HashMap<ConversationId, Weak<Live>>,
    sweep_at: usize,
}

impl Conversations {
    /// At most `cached_max` conversations are kept beside those in use.
    pub fn new(store: Arc<dyn ChatStore>, cached_max: usize, limits: RingLimits) -> Self {
        Self {
            store,
            recent: quick_cache::sync::Cache::new(cached_max.max(16)),
            known: Mutex::default(),
            limits,
            ring_bytes: Arc::default(),
            commits: AtomicU64::default(),
        }
    }

    /// The conversation, loaded; `None` if there is none.
    ///
    /// # Errors
    /// What the store says.
    pub async fn load(&self, id: ConversationId) -> Result<Option<Arc<Live>>, StoreError> {
        let live = self.live(id);
        live.refresh(&*self.store).await?;
        if live.exists() {
            if self.recent.get(&id).is_none() {
                self.recent.insert(id, Arc::clone(&live));
            }
            return Ok(Some(live));
        }
        self.forget(id, &live);
        Ok(None)
    }

    /// The conversation if it is in memory.
    pub fn in_memory(&self, id: ConversationId) -> Option<Arc<Live>> {
        self.known().map.get(&id).and_then(Weak::upgrade)
    }

    /// Follows the store's feed: an entry was committed, or earlier ones have changed.
    pub fn committed(
        &self,
        live: &Live,
        (line, changed): (Option<Arc<Line>>, Vec<Arc<Line>>),
        head: Seq,
        (members_changed, hidden_from): (bool, Option<UserId>),
    ) {
        let commit = self.commits.fetch_add(1, Ordering::Relaxed);
        live.follow(
            (line, changed),
            (head, hidden_from),
            members_changed,
            (self.limits, commit),
        );
        if self.ring_bytes.load(Ordering::Relaxed) > self.limits.total_bytes_max {
            self.empty_rings();
        }
    }

    /// The rings that have stood still for the longest time make room: their readers are served from the store.
    fn empty_rings(&self) {
        let mut lives: Vec<(u64, Arc<Live>)> = {
            let known = self.known();
            let lives = known.map.values().filter_map(Weak::upgrade);
            lives.map(|live| (live.pushed(), live)).collect()
        };
        lives.sort_unstable_by_key(|(pushed, _)| *pushed);
        let enough = self.limits.total_bytes_max / 4 * 3;
        for (_, live) in lives {
            if self.ring_bytes.load(Ordering::Relaxed) <= enough {
                return;
            }
            live.state().ring.clear();
        }
    }

    fn live(&self, id: ConversationId) -> Arc<Live> {
        let mut known = self.known();
        if let Some(live) = known.map.get(&id).and_then(Weak::upgrade) {
            return live;
        }
        if known.map.len() >= known.sweep_at.max(1_024) {
            known.map.retain(|_, live| live.strong_count() > 0);
            known.sweep_at = known.map.len() * 2;
        }
        let live = Arc::new(Live::new(id, Arc::clone(&self.ring_bytes)));
        known.map.insert(id, Arc::downgrade(&live));
        live
    }

    /// Someone asked for a conversation that does not exist: leave no trace of the question.
    fn forget(&self, id: ConversationId, live: &Arc<Live>) {
        let mut known = self.known();
        let unused = Arc::strong_count(live) == 1;
        if unused
            && known
                .map
                .get(&id)
                .is_some_and(|kept| std::ptr::eq(kept.as_ptr(), Arc::as_ptr(live)))
        {
            known.map.remove(&id);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One conversation in memory.
pub struct Live {
    id: ConversationId,
    loading: tokio::sync::Mutex<()>,
    changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    conversation: Option<Conversation>,
    head: Seq,
    /// All members; of a channel, those who are more than readers.
    members: HashMap<UserId, (Member, Marks)>,
    readers: Readers,
    present: Arc<[UserId]>,
    /// Moves when what was read of the members is old.
    generation: u64,
    /// Generation of what was read; 0: nothing yet.
    loaded: u64,
    ring: Ring,
    /// Gone, though the feed has not told so.
    taken_back: BTreeSet<Seq>,
    /// Up to here the marks say what is hidden. What was stored since may be known of already, but not whether a block
    /// hides it from somebody.
    judged: Seq,
    /// The commit that was pushed last.
    pushed: u64,
}

/// What [`Live::sight`] tells about one user and a conversation.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The membership.
    pub member: Member,
    /// The marks.
    pub marks: Marks,
    /// Version of the membership that this was read from.
    pub version: u32,
    /// The head.
    pub head: Seq,
    /// Seconds that messages last here; 0: for ever.
    pub ttl_s: u32,
    /// Seconds between two messages of one member here; 0: none.
    pub slow_s: u32,
    /// Nothing more is said here.
    pub closed: bool,
}

/// A wish to move marks; zero moves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarksChange {
    /// Some device has everything up to here.
    pub delivered: Seq,
    /// Read, for all to see.
    pub read: Seq,
    /// Read, for the own devices.
    pub private_read: Seq,
    /// Shown as unread.
    pub unread_flag: Option<bool>,
    /// Now.
    pub ts_ms: u64,
}

impl MarksChange {
    /// The marks after this change.
    pub fn applied_to(self, from: Marks) -> Marks {
        from.merged(Marks {
            delivered: self.delivered,
            read: self.read,
            private_read: self.private_read,
            unread_flag: self.unread_flag.unwrap_or(from.unread_flag),
            moved_ms: self.ts_ms,
            ..Marks::default()
        })
    }
}

impl Sight {
    /// The last entry that this user may see: the head for a member, the entry of leaving for a former one.
    pub fn last_visible(&self) -> Seq {
        let last = self.member.intervals.last();
        last.map_or(Seq::ZERO, |interval| interval.to.min(self.head))
    }
}

/// How the marks of a user moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarksMoved {
    /// Before.
    pub from: Marks,
    /// Now.
    pub to: Marks,
}

impl Live {
    /// `ring_bytes` counts what all rings hold.
    pub(crate) fn new(id: ConversationId, ring_bytes: Arc<AtomicUsize>) -> Self {
        let state = State {
            generation: 1,
            ring: Ring::new(ring_bytes),
            ..State::default()
        };
        Self {
            id,
            loading: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// Which conversation.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// Reads what is old. Afterwards the questions below are answered from the state at that time or later.
    async fn refresh(&self, store: &dyn ChatStore) -> Result<(), StoreError> {
        if self.is_fresh() {
            return Ok(());
        }
        let _only_one = self.loading.lock().await;
        while !self.is_fresh() {
            let generation = self.state().generation;
            let conversation = store.conversations(&[self.id]).await?.pop().flatten();
            let members = match conversation {
                Some(_) => read_members(store, self.id).await?,
                None => Vec::new(),
            };
            self.state().install(generation, conversation, members);
        }
        Ok(())
    }

    /// Reads what is old, for those who hold a conversation for long.
    ///
    /// # Errors
    /// What the store says.
    pub async fn refreshed(&self, conversations: &Conversations) -> Result<(), StoreError> {
        self.refresh(&*conversations.store).await
    }

    /// Waits for one's turn to change the members: changes of one conversation that are judged on the same members would
    /// send each other back.
    pub(crate) async fn turn_to_change(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    fn pushed(&self) -> u64 {
        self.state().pushed
    }

    fn is_fresh(&self) -> bool {
        let state = self.state();
        state.loaded == state.generation
    }

    fn exists(&self) -> bool {
        self.state().conversation.is_some()
    }

    /// What there is of the conversation beside log and members.
    pub fn conversation(&self) -> Option<Conversation> {
        let state = self.state();
        state.conversation.clone().map(|conversation| Conversation {
            head: state.head,
            ..conversation
        })
    }

    /// Place of the last entry.
    pub fn head(&self) -> Seq {
        self.state().head
    }

    /// An entry was stored here, and its sender is told: whoever asks from now on gets an answer that knows of it, though
    /// the feed may still be on its way.
    pub(crate) fn stored(
        &self,
        (seq, mseq, ts_ms): (Seq, u64, u64),
        hidden_from: Option<UserId>,
        members_changed: bool,
    ) {
        let mut state = self.state();
        state.raise(seq, hidden_from);
        state.count(mseq, ts_ms);
        if members_changed || state.conversation.is_none() {
            state.generation += 1;
        }
    }

    /// What was read of the members is old: the next question reads them again.
    pub(crate) fn invalidate(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.readers.make_old(None);
    }

    /// The conversation as `user` may see it; `None` for one who never was a member.
    pub fn sight(&self, user: UserId) -> Option<Sight> {
        let state = self.state();
        let (member, marks) = state.of(user)?;
        let conversation = state.conversation.as_ref();
        let settings = conversation.map(|conversation| &conversation.settings);
        Some(Sight {
            member: member.clone(),
            marks: *marks,
            version: conversation.map_or(0, |conversation| conversation.version),
            head: state.head,
            ttl_s: settings.map_or(0, |settings| settings.ttl_s),
            slow_s: settings.map_or(0, |settings| settings.slow_s),
            closed: settings.is_some_and(|settings| settings.closed),
        })
    }

    /// The next stretch of the log that this user may see, from `seq` on.
    pub fn next_visible(&self, user: UserId, seq: Seq) -> Option<Stretch> {
        self.next_of(user, seq, Interval::visible)
    }

    /// The same of what waits for this user.
    pub fn next_awaited(&self, user: UserId, seq: Seq) -> Option<Stretch> {
        self.next_of(user, seq, Interval::awaited)
    }

    fn next_of(
        &self,
        user: UserId,
        seq: Seq,
        part: impl Fn(&Interval) -> Stretch,
    ) -> Option<Stretch> {
        let state = self.state();
        let (member, _) = state.of(user)?;
        let mut parts = member.intervals.iter().map(part);
        let mut next = parts.find(|part| seq <= part.to)?;
        next.from = next.from.max(seq);
        Some(next)
    }

    /// Is this user a member?
    pub fn is_present(&self, user: UserId) -> bool {
        let state = self.state();
        let member = state.of(user);
        member.is_some_and(|(member, _)| member.is_present())
    }

    /// May this user see the entry at `seq`?
    pub fn sees(&self, user: UserId, seq: Seq) -> bool {
        let state = self.state();
        let member = state.of(user);
        member.is_some_and(|(member, _)| member.sees(seq))
    }

    /// The last place of which this user may know: [`Seq::MAX`] for a member.
    pub fn last_known(&self, user: UserId) -> Seq {
        let state = self.state();
        let member = state.of(user);
        let last = member.and_then(|(member, _)| member.intervals.last());
        last.map_or(Seq::ZERO, |interval| interval.to)
    }

    /// Which of these entries may be hidden from this user: what was read of them before has to be looked up.
    pub(crate) fn may_be_hidden(&self, user: UserId, mut seqs: Vec<Seq>) -> Vec<Seq> {
        let state = self.state();
        match state.of(user) {
            Some((_, marks)) => seqs.retain(|seq| state.may_be_hidden(self.id, marks, *seq)),
            None => seqs.clear(),
        }
        seqs
    }

    /// Must it be looked up how far others may be told that this user has got, from the first place on towards the second
    /// one, as a block may have hidden something from him there?
    pub(crate) fn may_keep_back(&self, user: UserId, (from, to): (Seq, Seq)) -> bool {
        if self.id.kind() != ConversationKind::Direct {
            return false; // nobody is blocked elsewhere
        }
        let state = self.state();
        let marks = state.of(user).map(|(_, marks)| marks);
        marks.is_some_and(|marks| from < marks.hidden || to > state.judged)
    }

    /// Up to where this user was delivered everything.
    pub(crate) fn delivered(&self, user: UserId) -> Seq {
        let state = self.state();
        let marks = state.of(user).map(|(_, marks)| marks.delivered());
        marks.unwrap_or_default()
    }

    /// An entry is hidden from this user from now on.
    pub(crate) fn hide(&self, user: UserId, seq: Seq) {
        self.state().hide(user, seq);
    }

    /// These entries are gone, whatever the feed still brings of them: until it tells so they are read from the store.
    pub(crate) fn take_back(&self, seqs: &[Seq]) {
        let mut state = self.state();
        for seq in seqs {
            let known = state.ring.get(*seq);
            if known.is_none_or(|line| line.entry.gone.is_none()) {
                state.taken_back.insert(*seq);
            }
        }
        while state.taken_back.len() > TAKEN_BACK_MAX {
            state.taken_back.pop_first();
        }
    }

    /// Has this user of a direct conversation blocked the other one?
    pub fn blocks(&self, user: UserId) -> bool {
        let state = self.state();
        let marks = state.of(user).map(|(_, marks)| marks.blocks);
        marks.unwrap_or_default()
    }

    /// Whom this user of a direct conversation has blocked.
    pub fn blocked_by(&self, user: UserId) -> Option<UserId> {
        self.peer(user).filter(|_| self.blocks(user))
    }

    /// The other one in a direct conversation; `None` in one with oneself, and in all others.
    pub fn peer(&self, user: UserId) -> Option<UserId> {
        if self.id.kind() != ConversationKind::Direct {
            return None;
        }
        let state = self.state();
        state.members.keys().find(|other| **other != user).copied()
    }

    /// All who are or were members, and of a channel's readers those who follow it.
    pub fn who_ever(&self) -> Vec<UserId> {
        let mut state = self.state();
        let followers = state.readers.followers();
        let members = state.members.keys();
        members.chain(&*followers).copied().collect()
    }

    /// All present members.
    pub fn present(&self) -> Arc<[UserId]> {
        Arc::clone(&self.state().present)
    }

    /// All who may see the entry at `seq`.
    pub fn who_sees(&self, seq: Seq) -> Vec<UserId> {
        let mut state = self.state();
        let followers = state.readers.followers();
        let followers = followers.iter().filter_map(|user| state.readers.of(*user));
        let all = state.members.values().chain(followers);
        let see = all.filter(|(member, _)| member.sees(seq));
        see.map(|(member, _)| member.user).collect()
    }

    /// Members and marks, former members included, but for the readers of a channel.
    pub fn members(&self) -> Vec<(Member, Marks)> {
        self.state().members.values().cloned().collect()
    }

    /// Moves marks of a user. `None`: nothing moved.
    pub fn move_marks(&self, user: UserId, change: MarksChange) -> Option<MarksMoved> {
        let mut state = self.state();
        let (_, own) = state.of_mut(user)?;
        let from = *own;
        *own = change.applied_to(from);
        (*own != from).then_some(MarksMoved { from, to: *own })
    }

    /// The entry at `seq`, if it is in memory and this user sees it as all others do; `None`: it has to be read, and looked
    /// up what the user sees of it, as something may be hidden there, or happened after the user left.
    pub(crate) fn recent_for(&self, user: UserId, seq: Seq) -> Option<Arc<Line>> {
        let state = self.state();
        let (member, marks) = state.of(user)?;
        let last = member.intervals.last()?;
        let is_as_it_was = last.to < Seq::MAX || seq < last.visible().from;
        if is_as_it_was || marks.blocks || state.may_be_hidden(self.id, marks, seq) {
            return None;
        }
        let line = state.ring.get(seq)?;
        // An edit shows no more than the message that it edits.
        let edited = line.entry.edited();
        let mut both = std::iter::once(seq).chain(edited);
        if both.any(|seq| state.taken_back.contains(&seq)) {
            return None;
        }
        let is_shown = |target| member.sees(target) && !state.may_be_hidden(self.id, marks, target);
        edited.is_none_or(is_shown).then_some(line)
    }

    /// The messages after `after` up to `to`, and who wrote them; `None` if they are not all in memory.
    pub fn recent_messages(&self, after: Seq, to: Seq) -> Option<Vec<(Seq, UserId)>> {
        self.state().ring.messages(after, to)
    }

    fn follow(
        &self,
        (line, changed): (Option<Arc<Line>>, Vec<Arc<Line>>),
        (head, hidden_from): (Seq, Option<UserId>),
        members_changed: bool,
        (limits, commit): (RingLimits, u64),
    ) {
        let mut state = self.state();
        if members_changed {
            state.generation += 1;
        }
        state.raise(head, hidden_from);
        state.judged = state.judged.max(head);
        let only_changes = !changed.is_empty();
        for line in changed {
            if line.entry.gone.is_some() {
                state.taken_back.remove(&line.entry.seq);
            }
            state.ring.replace(line);
        }
        let Some(line) = line else {
            if !only_changes {
                state.ring.clear();
            }
            return;
        };
        state.count(line.entry.mseq, line.entry.ts_ms);
        state.pushed = commit;
        state.ring.push(line, limits);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is in memory of one user.
    fn of(&self, user: UserId) -> Option<&(Member, Marks)> {
        self.members.get(&user).or_else(|| self.readers.of(user))
    }

    fn of_mut(&mut self, user: UserId) -> Option<&mut (Member, Marks)> {
        if self.members.contains_key(&user) {
            return self.members.get_mut(&user);
        }
        self.readers.of_mut(user)
    }

    /// There are so many messages, the last entry has this time.
    fn count(&mut self, mseq: u64, ts_ms: u64) {
        if let Some(conversation) = &mut self.conversation {
            conversation.mseq = conversation.mseq.max(mseq);
            conversation.ts_ms = conversation.ts_ms.max(ts_ms);
        }
    }

    /// An entry is stored, and hidden from a user in the same commit: nobody finds the one without the other.
    fn raise(&mut self, head: Seq, hidden_from: Option<UserId>) {
        self.head = self.head.max(head);
        if let Some(user) = hidden_from {
            self.hide(user, head);
        }
    }

    fn hide(&mut self, user: UserId, seq: Seq) {
        match self.of_mut(user) {
            Some((_, marks)) => marks.hidden = marks.hidden.max(seq),
            None => self.generation += 1, // whoever reads the members now may not find it yet
        }
    }

    fn may_be_hidden(&self, id: ConversationId, marks: &Marks, seq: Seq) -> bool {
        let is_direct = id.kind() == ConversationKind::Direct; // nobody is blocked elsewhere
        seq <= marks.hidden || (is_direct && seq > self.judged)
    }

    fn install(
        &mut self,
        generation: u64,
        conversation: Option<Conversation>,
        members: Vec<(Member, Marks)>,
    ) {
        if self.generation != generation {
            return; // changed while we read: the caller reads again
        }
        self.loaded = generation;
        let head = conversation.as_ref().map_or(Seq::ZERO, |read| read.head);
        self.head = self.head.max(head);
        self.judged = self.judged.max(head); // the members were read after it
        self.conversation = conversation;
        self.present = members
            .iter()
            .filter(|(member, _)| member.is_present())
            .map(|(member, _)| member.user)
            .collect();
        let before = std::mem::take(&mut self.members);
        self.members = members
            .into_iter()
            .map(|(member, marks)| (member.user, (member, marks)))
            .collect();
        for (user, (_, marks)) in before {
            if let Some((_, read)) = self.members.get_mut(&user) {
                *read = read.merged(marks); // what moved since may not have reached the store yet
            }
        }
    }
}

async fn read_members(
    store: &dyn ChatStore,
    id: ConversationId,
) -> Result<Vec<(Member, Marks)>, StoreError> {
    const PAGE: usize = 1_024;
    let mut members: Vec<(Member, Marks)> = Vec::new();
    loop {
        let after = members.last().map(|(member, _)| member.user);
        let page = store.members(id, after, PAGE).await?;
        let last = page.len() < PAGE;
        members.extend(page);
        if last {
            return Ok(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_while_the_members_are_read_is_not_missed() {
        let users = [1, 2].map(|number| UserId::from_bytes([number; 16]));
        let live = Live::new(ConversationId::direct(users[0], users[1]), Arc::default());
        let reading = live.state().generation;
        live.hide(users[1], Seq::new(1));
        live.state().install(reading, None, Vec::new());
        assert!(!live.is_fresh(), "they are read again");
    }
}
