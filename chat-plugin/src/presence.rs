//! Presence: who is online, told to those who watch and may.
//!
//! Nothing is kept of a user who is merely connected. One who is watched, has just gone, or has something to be written has
//! a [`Watched`] in memory; there is at most one time in the agenda for each, and one task for all.
//!
//! 1. A connection comes or goes: `connected`, `disconnected`. The last one to go begins the grace.
//! 2. A user is watched ([`Presence::watch`]), and whoever asks is judged by the privacy of that user (`service::privacy`).
//! 3. What changes is told when it is due, to all watchers; the state of now at once, to new ones. Each connection holds the
//!    newest only.
//! 4. When a user goes offline, or chooses how to be seen, his row is written a second later, with those of others.

mod forms;
mod watched;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use proto::ids::UserId;
use proto::payload::PresenceChoice;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::forms::Forms;
use self::watched::{Shown, Watched};
use crate::agenda::{Agenda, sleep_until};
use crate::config::Config;
use crate::delivery::Online;
use crate::delivery::reader::Reader;
use crate::domain::presence::Standing;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::store::{ChatStore, StoreError};

/// What is to be written gathers for so long.
const WRITE_DELAY: Duration = Duration::from_secs(1);

/// Bounds of presence, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PresenceLimits {
    /// Who comes back within it has not been away.
    pub(crate) grace: Duration,
    /// Least time between two changes of one user that are told.
    pub(crate) interval: Duration,
    /// Connections that watch one user.
    pub(crate) watchers_max: usize,
}

impl PresenceLimits {
    /// Those of the configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            grace: Duration::from_millis(u64::from(config.presence_grace_ms)),
            interval: Duration::from_millis(u64::from(config.presence_interval_ms)),
            watchers_max: usize::try_from(config.presence_watchers_per_user_max)
                .unwrap_or(usize::MAX),
        }
    }
}

/// What one user may see of the presence of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Not even whether there is such a user.
    Nothing,
    /// That he is offline, whatever he is, and has been since that time at the latest, in ms since 1970; `None`: not since
    /// when.
    Offline(Option<u64>),
    /// The state and the text.
    State,
    /// And when the user was online last.
    LastSeen,
    /// Everything: it is he himself.
    Own,
}

/// Who watches: a connection, under a topic.
pub(crate) type WatcherKey = (u64, ByteString);

/// A connection that wants to watch a user.
pub(crate) struct Wish {
    pub(crate) user: UserId,
    /// The filter as subscribed: events come under it.
    pub(crate) topic: ByteString,
    pub(crate) identifier: Option<u32>,
    /// The state of now is wanted.
    pub(crate) is_told: bool,
}

/// One subscription to the presence of a user.
#[derive(Clone)]
struct Watcher {
    reader: Arc<Reader>,
    topic: ByteString,
    sight: Sight,
}

/// Knows who is online, and tells it.
pub(crate) struct Presence {
    store: Arc<dyn ChatStore>,
    names: Arc<Names>,
    online: Arc<Online>,
    metrics: Arc<Metrics>,
    limits: PresenceLimits,
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Default)]
struct State {
    users: HashMap<UserId, Watched>,
    agenda: Agenda<UserId>,
    /// Those with something to be written, and when that is done.
    unwritten: Vec<UserId>,
    write_at: Option<Instant>,
}

/// What is to be told of a user, and to whom.
struct Telling {
    user: UserId,
    shown: Shown,
    to: Vec<Watcher>,
}

impl Presence {
    pub(crate) fn new(
        store: Arc<dyn ChatStore>,
        (names, online): (Arc<Names>, Arc<Online>),
        metrics: Arc<Metrics>,
        limits: PresenceLimits,
    ) -> Self {
        Self {
            store,
            names,
            online,
            metrics,
            limits,
            state: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// A connection of this user has opened.
    pub(crate) fn connected(&self, user: UserId) {
        let mut state = self.state();
        if state.users.contains_key(&user) {
            self.follow_connections(&mut state, user);
        }
    }

    /// A connection has ended, and is not among those online: it watches nobody any more, and its user is perhaps leaving.
    pub(crate) fn disconnected(&self, reader: &Reader) {
        let mut state = self.state();
        for (topic, user) in reader.watched() {
            reader.unwatch(&topic);
            self.remove_watcher(&mut state, user, &(reader.client.connection, topic));
        }
        if !self.online.has(reader.user) {
            let user = state.users.entry(reader.user);
            user.or_insert_with(|| Watched::new(true));
            self.follow_connections(&mut state, reader.user);
        }
    }

    /// A user says how he wants to be seen.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn choose(
        &self,
        user: UserId,
        choice: PresenceChoice,
    ) -> Result<(), StoreError> {
        self.hold(user).await?;
        let mut state = self.state();
        let has_changed = match state.users.get_mut(&user) {
            Some(watched) => {
                watched.release();
                watched.choose(choice, crate::clock::now_ms())
            }
            None => false,
        };
        if has_changed {
            self.tell_later(&mut state, user);
        }
        self.settle(&mut state, user);
        Ok(())
    }

    /// What a user said beside his state goes, also if it is only in memory.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn forget_text(&self, user: UserId) -> Result<(), StoreError> {
        let known = self.state().users.get(&user).and_then(Watched::standing);
        let Some(Standing { choice, .. }) = known else {
            return Ok(()); // whoever reads it finds none
        };
        let text = String::new();
        self.choose(user, PresenceChoice { text, ..choice }).await
    }

    /// Whoever sees this user sees him now. From now on somebody may not: for him that was the last time.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn is_seen(&self, user: UserId) -> Result<(), StoreError> {
        self.hold(user).await?;
        let mut state = self.state();
        if let Some(watched) = state.users.get_mut(&user) {
            watched.release();
            watched.is_seen(crate::clock::now_ms());
        }
        self.settle(&mut state, user);
        Ok(())
    }

    /// Is this user shown as offline whatever he does?
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn is_invisible(&self, user: UserId) -> Result<bool, StoreError> {
        let known = self.state().users.get(&user).and_then(Watched::standing);
        match known {
            Some(standing) => Ok(standing.is_invisible()),
            None => Ok(self.store.presence(user).await?.is_invisible()),
        }
    }

    /// May one more connection watch this user?
    pub(crate) fn has_room(&self, user: UserId) -> bool {
        let state = self.state();
        let watched = state.users.get(&user);
        watched.is_none_or(|watched| watched.watchers.len() < self.limits.watchers_max)
    }

    /// A connection watches a user, and sees nothing until it has been [judged](Self::judged), by the privacy of the version
    /// that is returned. `None`: it does already and goes on, it has ended, or there are too many.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn watch(
        &self,
        reader: &Arc<Reader>,
        wish: Wish,
    ) -> Result<Option<u64>, StoreError> {
        let Wish {
            user,
            topic,
            identifier,
            is_told,
        } = wish;
        self.hold(user).await?;
        let mut state = self.state();
        let key = (reader.client.connection, topic.clone());
        if !is_told && reader.watch_on(&topic, user, identifier) {
            if let Some(watched) = state.users.get_mut(&user) {
                watched.release();
            }
            self.settle(&mut state, user);
            return Ok(None);
        }
        if let Some(before) = reader.unwatch(&topic) {
            self.remove_watcher(&mut state, before, &key);
        }
        let Some(watched) = state.users.get_mut(&user) else {
            return Ok(None);
        };
        watched.release();
        let has_room = watched.watchers.len() < self.limits.watchers_max;
        let version = (has_room && !reader.has_ended()).then(|| {
            reader.watch(topic.clone(), user, identifier, is_told);
            let watcher = Watcher {
                reader: Arc::clone(reader),
                topic,
                sight: Sight::Nothing,
            };
            if watched.watchers.insert(key, watcher).is_none() {
                self.metrics.presence_watches.increment();
            }
            watched.privacy
        });
        self.settle(&mut state, user);
        Ok(version)
    }

    /// What a watcher may see has been judged, by the privacy of this version. `fresh`: it is told the state of now.
    ///
    /// # Errors
    /// The version that the privacy has now, if it has moved: judge again.
    pub(crate) fn judged(
        &self,
        (user, key): (UserId, &WatcherKey),
        (sight, version): (Sight, u64),
        fresh: bool,
    ) -> Result<(), u64> {
        let mut state = self.state();
        let Some(watched) = state.users.get_mut(&user) else {
            return Ok(());
        };
        if watched.privacy != version {
            return Err(watched.privacy);
        }
        if let Some(watcher) = watched.watchers.get_mut(key) {
            watcher.sight = sight;
            if fresh && sight != Sight::Nothing {
                watched.fresh.insert(key.clone());
            }
        }
        self.settle(&mut state, user);
        Ok(())
    }

    /// What a user shows has changed, to all or to one: its new version, and who is to be judged by it.
    pub(crate) fn privacy_changed(
        &self,
        user: UserId,
        to: Option<UserId>,
    ) -> Option<(u64, Vec<(WatcherKey, UserId)>)> {
        let mut state = self.state();
        let watched = state.users.get_mut(&user)?;
        watched.privacy += 1;
        let watchers = watched.watchers.iter();
        let viewers = watchers.map(|(key, watcher)| (key.clone(), watcher.reader.user));
        let judged = viewers.filter(|(_, viewer)| to.is_none_or(|to| to == *viewer));
        Some((watched.privacy, judged.collect()))
    }

    /// Something has changed in what watchers of this user may see, or in how he is called.
    pub(crate) fn changed(&self, user: UserId) {
        let mut state = self.state();
        self.tell_later(&mut state, user);
        self.settle(&mut state, user);
    }

    /// A connection no longer watches under this topic.
    pub(crate) fn unwatch(&self, reader: &Reader, topic: &str) {
        let mut state = self.state();
        if let Some(user) = reader.unwatch(topic) {
            let key = (reader.client.connection, ByteString::from(topic));
            self.remove_watcher(&mut state, user, &key);
        }
    }

    /// Tells and writes what is due, until stopped.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let next = {
                let state = self.state();
                state.agenda.next().into_iter().chain(state.write_at).min()
            };
            tokio::select! {
                () = self.notify.notified() => {}
                () = sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
            while let Some(telling) = self.next_due() {
                self.tell(telling).await;
            }
            let now = crate::clock::monotonic();
            if self.state().write_at.is_some_and(|at| at <= now) {
                self.write().await;
            }
        }
    }

    /// At the end: whoever has just gone was seen, and everything is written.
    pub(crate) async fn finish(&self) {
        {
            let mut guard = self.state();
            let state = &mut *guard;
            let now_ms = crate::clock::now_ms();
            for (user, watched) in &mut state.users {
                if watched.has_gone(now_ms) {
                    state.unwritten.push(*user);
                }
            }
        }
        self.write().await;
    }

    /// Keeps a user in memory, with what is at rest of him, until released.
    async fn hold(&self, user: UserId) -> Result<(), StoreError> {
        let is_known = {
            let mut state = self.state();
            let watched = state
                .users
                .entry(user)
                .or_insert_with(|| Watched::new(self.online.has(user)));
            watched.hold();
            watched.standing().is_some()
        };
        if is_known {
            return Ok(());
        }
        let read = self.read(user).await;
        let mut state = self.state();
        let Some(watched) = state.users.get_mut(&user) else {
            return read.map(|_| ());
        };
        match read {
            Ok(standing) => watched.known(standing),
            Err(error) => {
                watched.release();
                self.settle(&mut state, user);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is at rest of a user. Devices that are noted as connected were when the server was killed, if they are not.
    async fn read(&self, user: UserId) -> Result<Standing, StoreError> {
        let mut standing = self.store.presence(user).await?;
        if !standing.is_invisible() {
            let devices = self.store.devices(user).await?;
            let connected = devices.iter().filter(|device| device.connected);
            let seen_ms = connected.map(|device| device.last_seen_ms).max();
            standing.seen(seen_ms.unwrap_or_default());
        }
        Ok(standing)
    }

    fn follow_connections(&self, state: &mut State, user: UserId) {
        let is_connected = self.online.has(user);
        let leaves = crate::clock::monotonic() + self.limits.grace;
        let watched = state.users.get_mut(&user);
        if watched.is_some_and(|watched| watched.follow_connections(is_connected, leaves)) {
            self.tell_later(state, user);
        }
        self.settle(state, user);
    }

    fn tell_later(&self, state: &mut State, user: UserId) {
        if let Some(watched) = state.users.get_mut(&user) {
            watched.tell_later(crate::clock::monotonic(), self.limits.interval);
        }
    }

    fn remove_watcher(&self, state: &mut State, user: UserId, key: &WatcherKey) {
        let Some(watched) = state.users.get_mut(&user) else {
            return;
        };
        if watched.watchers.remove(key).is_some() {
            watched.fresh.remove(key);
            self.metrics.presence_watches.decrement();
        }
        self.settle(state, user);
    }

    /// After every change of a user: his time in the agenda, what is to be written, and whether he is let go of.
    fn settle(&self, state: &mut State, user: UserId) {
        let Entry::Occupied(mut entry) = state.users.entry(user) else {
            return;
        };
        let watched = entry.get_mut();
        let now = crate::clock::monotonic();
        let mut is_sooner = state.agenda.set(user, watched.due(now));
        if watched.enqueue_write() {
            state.unwritten.push(user);
            if state.write_at.is_none() {
                state.write_at = Some(now + WRITE_DELAY);
                is_sooner = true;
            }
        }
        if watched.is_idle() {
            entry.remove();
        }
        if is_sooner {
            self.notify.notify_one();
        }
    }

    /// Does what is due until there is something to tell.
    fn next_due(&self) -> Option<Telling> {
        let mut state = self.state();
        let now = crate::clock::monotonic();
        while let Some(user) = state.agenda.pop_due(now) {
            let is_connected = self.online.has(user);
            let Some(watched) = state.users.get_mut(&user) else {
                continue;
            };
            if watched.leave(now, is_connected, crate::clock::now_ms()) {
                watched.tell_later(now, self.limits.interval);
            }
            let to = watched.take_listeners(now);
            let shown = watched.shown();
            self.settle(&mut state, user);
            if let (Some(shown), false) = (shown, to.is_empty()) {
                return Some(Telling { user, shown, to });
            }
        }
        None
    }

    async fn tell(&self, telling: Telling) {
        let Telling { user, shown, to } = telling;
        let handle = match self.names.handle(user).await {
            Ok(handle) => handle,
            Err(error) => {
                tracing::error!(%user, %error, "a user could not be named to those who watch");
                return;
            }
        };
        let mut forms = Forms::new(user, handle, shown);
        let mut told = 0;
        for watcher in to {
            let form = forms.of(watcher.sight);
            let is_told = match watcher.sight {
                Sight::Nothing => watcher.reader.hide_presence(&watcher.topic, form),
                Sight::Offline(_) => watcher.reader.offline_presence(&watcher.topic, form),
                _ => watcher.reader.presence(&watcher.topic, form),
            };
            told += usize::from(is_told);
        }
        self.metrics.presence_events.add(told);
    }

    async fn write(&self) {
        let changes: Vec<_> = {
            let mut state = self.state();
            state.write_at = None;
            let users = std::mem::take(&mut state.unwritten);
            let change = |user: &UserId| state.users.get_mut(user)?.take_change(*user);
            users.iter().filter_map(change).collect()
        };
        let users: Vec<_> = changes.iter().map(|change| change.user).collect();
        if changes.is_empty() {
            return;
        }
        self.metrics.presence_writes.add(changes.len());
        if let Err(error) = self.store.put_presence(changes).await {
            tracing::error!(%error, "when users were seen could not be stored");
        }
        let mut state = self.state();
        for user in users {
            if let Some(watched) = state.users.get_mut(&user) {
                watched.written();
            }
            self.settle(&mut state, user);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
