//! Readers of a channel in memory: never all of them, but those who follow it, and a few who were asked for lately.
//!
//! A row is read when somebody asks for it ([`Conversations::load_for`]), and stays as long as somebody holds it: a
//! connection that follows the channel, or a task that uses it ([`Loaded`]). When the feed tells that the reader came, went or
//! became another it is changed so, and old: whoever asks next reads it again.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use proto::ids::{ConversationId, ConversationKind, UserId};

use super::{Conversations, Live, State};
use crate::domain::member::{Marks, Member};
use crate::store::{ChatStore, StoreError};

/// Rows that nobody holds, of one channel.
const RECENT_MAX: usize = 256;

/// What is in memory of the readers of one channel.
#[derive(Default)]
pub(super) struct Readers {
    rows: HashMap<UserId, Row>,
    /// Who was let go of, the longest ago first. Some are held again.
    recent: VecDeque<UserId>,
    /// Those who follow, if it is known.
    followers: Option<Arc<[UserId]>>,
}

#[derive(Default)]
struct Row {
    /// `None`: no reader, as far as is known.
    known: Option<(Member, Marks)>,
    is_fresh: bool,
    /// Moves when what was read is old.
    version: u64,
    holders: usize,
    followers: usize,
}

/// Keeps one reader of a channel in memory.
pub struct Held {
    live: Arc<Live>,
    user: UserId,
    follows: bool,
}

/// A conversation with what one user may see of it, which stays in memory as long as this is kept: what is read meanwhile
/// is judged by it.
pub struct Loaded {
    live: Arc<Live>,
    _held: Option<Held>,
}

impl Deref for Loaded {
    type Target = Arc<Live>;

    fn deref(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.readers.release(self.user, self.follows);
    }
}

impl Readers {
    pub(super) fn of(&self, user: UserId) -> Option<&(Member, Marks)> {
        self.rows.get(&user)?.known.as_ref()
    }

    pub(super) fn of_mut(&mut self, user: UserId) -> Option<&mut (Member, Marks)> {
        self.rows.get_mut(&user)?.known.as_mut()
    }

    /// Those whom a connection keeps here.
    pub(super) fn followers(&mut self) -> Arc<[UserId]> {
        let rows = &self.rows;
        let followers = self.followers.get_or_insert_with(|| {
            let follow = rows.iter().filter(|(_, row)| row.followers > 0);
            follow.map(|(user, _)| *user).collect()
        });
        Arc::clone(followers)
    }

    /// What is known of these is old; of everybody, with `None`.
    pub(super) fn make_old(&mut self, users: Option<&[UserId]>) {
        let make_old = |row: &mut Row| {
            row.is_fresh = false;
            row.version += 1;
        };
        match users {
            Some(users) => {
                for user in users {
                    self.rows.get_mut(user).map(make_old);
                }
            }
            None => self.rows.values_mut().for_each(make_old),
        }
    }

    /// Who of them is in memory is as is told here, until he is read again.
    fn follow(
        &mut self,
        changed: &[Member],
        kind: ConversationKind,
        few: &HashMap<UserId, (Member, Marks)>,
    ) {
        for member in changed {
            let Some(row) = self.rows.get_mut(&member.user) else {
                continue;
            };
            row.is_fresh = false;
            row.version += 1;
            let known = row.known.as_ref().or_else(|| few.get(&member.user));
            let marks = known.map(|(_, marks)| *marks);
            let is_here = member.role.is_one_of_many(kind);
            row.known = marks
                .filter(|_| is_here)
                .map(|marks| (member.clone(), marks));
        }
    }

    fn hold(&mut self, user: UserId, follows: bool) {
        let row = self.rows.entry(user).or_default();
        row.holders += 1;
        if follows {
            row.followers += 1;
            self.followers = None;
        }
    }

    fn release(&mut self, user: UserId, follows: bool) {
        let Some(row) = self.rows.get_mut(&user) else {
            return;
        };
        row.holders = row.holders.saturating_sub(1);
        if follows {
            row.followers = row.followers.saturating_sub(1);
            self.followers = None;
        }
        if row.holders > 0 {
            return;
        }
        if row.known.is_none() {
            self.rows.remove(&user);
            return;
        }
        self.recent.retain(|known| *known != user);
        self.recent.push_back(user);
        while self.recent.len() > RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            if self.rows.get(&oldest).is_some_and(|row| row.holders == 0) {
                self.rows.remove(&oldest);
            }
        }
    }

    fn install(&mut self, user: UserId, version: u64, read: Option<(Member, Marks)>) {
        let Some(row) = self
            .rows
            .get_mut(&user)
            .filter(|row| row.version == version)
        else {
            return; // changed while it was read: the caller reads again
        };
        row.is_fresh = true;
        let before = std::mem::replace(&mut row.known, read);
        if let (Some((_, read)), Some((_, before))) = (&mut row.known, before) {
            *read = read.merged(before); // what moved since may not have reached the store yet
        }
    }
}

impl Conversations {
    /// The conversation, loaded with what one user may see of it; `None` if there is none. [`Conversations::load`] is
    /// enough where there are no readers whom nobody loads.
    ///
    /// # Errors
    /// What the store says.
    pub async fn load_for(
        &self,
        id: ConversationId,
        user: UserId,
    ) -> Result<Option<Loaded>, StoreError> {
        let Some(live) = self.load(id).await? else {
            return Ok(None);
        };
        let held = self.keep(&live, user).await?;
        Ok(Some(Loaded { live, _held: held }))
    }

    /// As long as this is kept, it is known what the user may see here. Nothing is kept where all members are in memory anyway.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn keep(
        &self,
        live: &Arc<Live>,
        user: UserId,
    ) -> Result<Option<Held>, StoreError> {
        if live.id().kind() != ConversationKind::Channel || live.is_member(user) {
            return Ok(None);
        }
        self.hold(live, user, false).await.map(Some)
    }

    /// As long as this is kept, the user is told of what is said in this channel, and is in memory. Nothing is kept where
    /// all members are in memory anyway.
    ///
    /// # Errors
    /// What the store says.
    pub async fn follow(&self, live: &Arc<Live>, user: UserId) -> Result<Option<Held>, StoreError> {
        if live.id().kind() != ConversationKind::Channel {
            return Ok(None);
        }
        self.hold(live, user, true).await.map(Some)
    }

    async fn hold(
        &self,
        live: &Arc<Live>,
        user: UserId,
        follows: bool,
    ) -> Result<Held, StoreError> {
        live.state().readers.hold(user, follows);
        let held = Held {
            live: Arc::clone(live),
            user,
            follows,
        };
        live.read_reader(&*self.store, user).await?;
        Ok(held)
    }
}

impl Live {
    /// Is this user one of those who are in memory anyway?
    pub(crate) fn is_member(&self, user: UserId) -> bool {
        self.state().members.contains_key(&user)
    }

    /// What is known of these readers is old.
    pub(crate) fn readers_changed(&self, users: &[UserId]) {
        self.state().readers.make_old(Some(users));
    }

    /// The feed tells that these have come, gone or become others: from now on nobody of them sees more than he may.
    pub(crate) fn readers_are(&self, members: &[Member]) {
        let mut state = self.state();
        let State {
            readers,
            members: few,
            ..
        } = &mut *state;
        readers.follow(members, self.id().kind(), few);
    }

    /// Is this user a reader of a channel, of whom nobody is told what he has and has read?
    pub fn is_reader(&self, user: UserId) -> bool {
        let kind = self.id().kind();
        let state = self.state();
        let found = state.of(user);
        found.is_some_and(|(member, _)| member.role.is_one_of_many(kind))
    }

    /// All whom a new entry is announced to.
    pub fn audience(&self) -> Arc<[UserId]> {
        let mut state = self.state();
        if self.id().kind() != ConversationKind::Channel {
            return Arc::clone(&state.present);
        }
        let followers = state.readers.followers();
        if state.present.is_empty() {
            return followers;
        }
        let writers = state.present.iter();
        let others = followers
            .iter()
            .filter(|user| !state.members.contains_key(user));
        writers.chain(others).copied().collect()
    }

    /// Reads a reader who is held.
    async fn read_reader(&self, store: &dyn ChatStore, user: UserId) -> Result<(), StoreError> {
        loop {
            let version = {
                let state = self.state();
                match state.readers.rows.get(&user) {
                    Some(row) if !row.is_fresh => row.version,
                    _ => return Ok(()),
                }
            };
            let read = store.readers_among(self.id(), vec![user]).await?.pop();
            self.state().readers.install(user, version, read);
        }
    }
}
