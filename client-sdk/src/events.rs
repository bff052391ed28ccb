//! What an app is told: the feed of entries, from the store, and hints, from memory, as one stream.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use proto::ids::{ConversationId, MessageId, Seq, UserId};
use tokio::sync::Notify;

use crate::client::Handle;
use crate::entry::Entry;
use crate::error::{Error, Refusal, StoreError};
use crate::store;

/// Something that happened.
///
/// [`Event::Entry`] is the log, each entry once and in order; it waits on disk. Everything else is a hint that something is
/// different now: the newest of each subject, kept in memory, not over a restart.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The next entry of a conversation.
    Entry(Entry),
    /// The connection changed.
    Connection(Connection),
    /// The server has stored or done something from the outbox.
    Sent {
        /// The message id.
        mid: MessageId,
        /// In which conversation.
        cid: Option<ConversationId>,
        /// At which place; not of what is scheduled, waits for a moderator, or changed nothing.
        seq: Option<Seq>,
    },
    /// The server refuses something from the outbox. It stays there for [`Client::retry`](crate::Client::retry) or
    /// [`Client::discard`](crate::Client::discard).
    Failed {
        /// The message id.
        mid: MessageId,
        /// Why.
        refusal: Refusal,
    },
    /// A message is not what it was: edited, deleted, other reactions or pins.
    Updated {
        /// In which conversation.
        cid: ConversationId,
        /// Its place.
        seq: Seq,
    },
    /// A conversation is new, or its title, unread count, last entry … changed.
    Conversation(ConversationId),
    /// Others have got or read more of what this user sent.
    Receipts(ConversationId),
    /// Somebody is typing, or no longer. Forget it after 10 s without news.
    Typing {
        /// In which conversation.
        cid: ConversationId,
        /// Who.
        uid: UserId,
        /// How people call the user.
        handle: String,
        /// What.
        typing: Typing,
    },
    /// Somebody who is [watched](crate::Client::watch_presence).
    Presence(Presence),
    /// Unread messages in all conversations that are not muted.
    Badge(u64),
    /// The own profile, privacy or devices changed.
    Me,
    /// More happened than was kept: look again at everything that is shown.
    Refresh,
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// A connection is being made.
    Connecting,
    /// Everything works.
    Online,
    /// There is none. It is tried again.
    Offline {
        /// What was wrong, for people.
        reason: String,
    },
    /// The server does not let this user in. It is tried again after [`Client::sign_in`](crate::Client::sign_in).
    SignIn(String),
    /// Another program is connected as this device. It is tried again after [`Client::reconnect`](crate::Client::reconnect).
    Replaced,
    /// The user has as many devices as the server allows. It is tried again after
    /// [`Client::reconnect`](crate::Client::reconnect).
    TooManyDevices,
    /// The local store failed. Nothing more is done.
    Failed(StoreError),
    /// The client was closed.
    Closed,
}

impl Connection {
    /// Why nothing happens by itself any more, if it does not.
    pub(crate) fn end(&self) -> Option<Error> {
        match self {
            Self::Connecting | Self::Online | Self::Offline { .. } => None,
            Self::SignIn(why) => Some(Error::SignIn(why.clone())),
            Self::Replaced => Some(Error::Replaced),
            Self::TooManyDevices => Some(Error::TooManyDevices),
            Self::Failed(error) => Some(Error::Store(error.clone())),
            Self::Closed => Some(Error::Closed),
        }
    }

    /// There is no way on from here.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Closed)
    }
}

/// What somebody is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Typing {
    /// Writing.
    Typing,
    /// Recording.
    Recording,
    /// Neither, any more.
    Stopped,
}

impl Typing {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Typing => "1",
            Self::Recording => "rec",
            Self::Stopped => "0",
        }
    }

    pub(crate) fn read(text: &str) -> Self {
        match text {
            "1" => Self::Typing,
            "rec" => Self::Recording,
            _ => Self::Stopped,
        }
    }
}

/// How somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Who.
    pub uid: UserId,
    /// How people call the user.
    pub handle: String,
    /// `online`, `away`, `dnd`, `offline`; of oneself also `invisible`.
    pub state: String,
    /// What the user says of it.
    pub text: String,
    /// When the user was online last, to the minute, in ms since 1970, if that may be known.
    pub last_seen: Option<u64>,
}

/// What a hint is about: a newer one takes the place of an older one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Connection,
    Outbox(MessageId),
    Message(ConversationId, Seq),
    Conversation(ConversationId),
    Receipts(ConversationId),
    Typing(ConversationId, UserId),
    Presence(UserId),
    Badge,
    Me,
    All,
}

impl Subject {
    fn of(event: &Event) -> Self {
        match event {
            Event::Connection(_) => Self::Connection,
            Event::Sent { mid, .. } | Event::Failed { mid, .. } => Self::Outbox(mid.clone()),
            Event::Updated { cid, seq } => Self::Message(*cid, *seq),
            Event::Conversation(cid) => Self::Conversation(*cid),
            Event::Receipts(cid) => Self::Receipts(*cid),
            Event::Typing { cid, uid, .. } => Self::Typing(*cid, *uid),
            Event::Presence(presence) => Self::Presence(presence.uid),
            Event::Badge(_) => Self::Badge,
            Event::Me => Self::Me,
            Event::Entry(_) | Event::Refresh => Self::All,
        }
    }
}

/// The hints that wait, and the bell that rings for them and for the feed.
pub(crate) struct Hub {
    hints: Mutex<Hints>,
    bell: Notify,
    max: usize,
}

#[derive(Default)]
struct Hints {
    order: VecDeque<Subject>,
    newest: HashMap<Subject, Event>,
    /// Somebody listens; before that nothing is kept.
    wanted: bool,
}

impl Hub {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            hints: Mutex::default(),
            bell: Notify::new(),
            max,
        }
    }

    /// Tells.
    pub(crate) fn tell(&self, event: Event) {
        {
            let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
            if !hints.wanted {
                return;
            }
            let subject = Subject::of(&event);
            if hints.newest.insert(subject.clone(), event).is_none() {
                hints.order.push_back(subject);
            }
            if hints.order.len() > self.max {
                hints.order = [Subject::All].into();
                hints.newest = [(Subject::All, Event::Refresh)].into();
            }
        }
        self.ring();
    }

    /// The feed has something, or it is over.
    pub(crate) fn ring(&self) {
        self.bell.notify_waiters();
    }

    fn next(&self) -> Option<Event> {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = hints.order.pop_front()?;
        hints.newest.remove(&subject)
    }

    fn listen(&self, wanted: bool) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        *hints = Hints {
            wanted,
            ..Hints::default()
        };
    }
}

/// The events of a client, for one reader.
///
/// An entry is *confirmed* by asking for the next event. What is not confirmed when the process or this value ends is handed
/// out again; what is confirmed never is. For effects of your own that must happen exactly once see [`Events::position`].
pub struct Events {
    handle: Arc<Handle>,
    /// The last number that was handed out.
    handed: u64,
    confirmed: u64,
    /// Hints were handed out last: it is the turn of entries.
    entries_first: bool,
}

impl Events {
    pub(crate) async fn new(handle: Arc<Handle>) -> Result<Self, Error> {
        if !handle.take_events() {
            return Err(Error::EventsTaken);
        }
        // From here on, dropping this value gives them back.
        let mut events = Self {
            handle,
            handed: 0,
            confirmed: 0,
            entries_first: false,
        };
        events.handle.core.hub.listen(true);
        let confirmed = store::run(&events.handle.core.store, store::Store::confirmed).await?;
        (events.handed, events.confirmed) = (confirmed, confirmed);
        Ok(events)
    }

    /// The next event. Waits for one. Confirms the entry that was handed out before.
    ///
    /// Cancellation-safe: what is not returned is not handed out.
    ///
    /// # Errors
    /// When everything that waited was handed out: [`Error::SignIn`], [`Error::Replaced`], [`Error::TooManyDevices`] until
    /// something is done about that (then ask again), and [`Error::Closed`]; [`Error::Store`].
    pub async fn next(&mut self) -> Result<Event, Error> {
        let mut batch = self.next_batch(1).await?;
        // A batch has at least one event.
        batch.pop().ok_or(Error::Closed)
    }

    /// As [`Events::next`], but up to `max` at once: one confirmation, and one write to the disk, for all of them.
    /// [`Events::position`] is that of the last one then.
    ///
    /// # Errors
    /// Those of [`Events::next`].
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Event>, Error> {
        let max = max.clamp(1, 1_024);
        self.confirm_through(self.handed).await?;
        loop {
            let core = Arc::clone(&self.handle.core);
            let bell = core.hub.bell.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            // Entries and hints take turns: neither waits for the other to ebb.
            if self.entries_first {
                let batch = self.take_entries(max).await?;
                if !batch.is_empty() {
                    return Ok(batch);
                }
            }
            let hints: Vec<_> = std::iter::from_fn(|| core.hub.next()).take(max).collect();
            self.entries_first = !hints.is_empty();
            // Hints that were taken are handed out before anything is awaited: dropping this future loses none.
            if !hints.is_empty() {
                return Ok(hints);
            }
            let batch = self.take_entries(max).await?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            let end = core.state.borrow().end();
            if let Some(error) = end {
                return Err(error);
            }
            bell.await;
        }
    }

    async fn take_entries(&mut self, max: usize) -> Result<Vec<Event>, Error> {
        let (store, handed) = (&self.handle.core.store, self.handed);
        let fed = store::run(store, move |store| store.fed_after(handed, max)).await?;
        let mut batch = Vec::with_capacity(fed.len());
        for (number, entry) in fed {
            batch.push(Event::Entry(Entry::read(entry, store.now_ms())?));
            self.handed = number;
        }
        if !batch.is_empty() {
            self.entries_first = false;
        }
        Ok(batch)
    }

    /// The number of the last entry that was handed out; it grows with each one, not by one, and fits into 63 bits. An app with a database of its own stores
    /// it there, in the transaction in which it stores what it made of the entry.
    pub fn position(&self) -> u64 {
        self.handed
    }

    /// Everything up to this position is done; 0: nothing is. With the position from the app's own database, called before
    /// the first [`Events::next`], no entry is handed out twice, even if the process ended between the app's commit and the
    /// confirmation.
    ///
    /// # Errors
    /// [`Error::UnknownPosition`] if this store has not given it: the folder is another one, was made anew, or was restored
    /// from a backup. Nothing is confirmed then, and by conversation and `seq` of an entry the app sees whether it had
    /// it. [`Error::Store`].
    pub async fn confirm_through(&mut self, position: u64) -> Result<(), Error> {
        if position == self.confirmed || position == 0 {
            return Ok(());
        }
        let core = &self.handle.core;
        if !store::run(&core.store, move |store| store.confirm(position)).await? {
            return Err(Error::UnknownPosition(position));
        }
        self.confirmed = self.confirmed.max(position);
        self.handed = self.handed.max(position);
        core.room.notify_one();
        Ok(())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.handle.core.hub.listen(false);
        self.handle.give_events_back();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("position", &self.handed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proto::schema::LogEntry;

    use super::*;
    use crate::Client;
    use crate::store::Inbound;

    #[test]
    fn the_newest_hint_of_a_subject_waits_and_too_many_become_one() {
        let hub = Hub::new(2);
        hub.tell(Event::Badge(1));
        assert_eq!(hub.next(), None, "nobody listens");
        hub.listen(true);
        hub.tell(Event::Badge(1));
        hub.tell(Event::Me);
        hub.tell(Event::Badge(2));
        assert_eq!(hub.next(), Some(Event::Badge(2)));
        assert_eq!(hub.next(), Some(Event::Me));
        assert_eq!(hub.next(), None);
        hub.tell(Event::Badge(1));
        hub.tell(Event::Me);
        hub.tell(Event::Connection(Connection::Online));
        assert_eq!(hub.next(), Some(Event::Refresh));
        assert_eq!(hub.next(), None);
    }

    fn message(seq: u64) -> Inbound {
        let cid: ConversationId = "g.01jz0000000000000000000000".parse().unwrap();
        let entry = LogEntry {
            cid: cid.to_string(),
            seq,
            kind: "message".into(),
            t: seq.to_string(),
            ..LogEntry::default()
        };
        Inbound::Entry(cid, Box::new(entry))
    }

    /// A client without a server that was given these entries.
    async fn client(entries: impl IntoIterator<Item = u64>) -> Client {
        let client = Client::builder("mqtt://127.0.0.1:1").login("alice", "secret");
        let client = client.open().await.unwrap();
        let entries = entries.into_iter().map(message).collect();
        client.core().store.take(entries).unwrap();
        client
    }

    async fn next_entry(events: &mut Events) -> Entry {
        loop {
            if let Event::Entry(entry) = events.next().await.unwrap() {
                return entry;
            }
        }
    }

    #[tokio::test]
    async fn a_position_of_another_store_confirms_nothing() {
        let client = client(1..=3).await;
        let other = self::client(1..=9).await;
        let mut foreign = other.events().await.unwrap();
        for _ in 0..9 {
            next_entry(&mut foreign).await;
        }
        let mut events = client.events().await.unwrap();
        events.confirm_through(0).await.unwrap();
        assert_eq!(next_entry(&mut events).await.seq, Seq::new(1));
        let first = events.position();
        for position in [foreign.position(), first + 100, u64::MAX, 1] {
            let refused = events.confirm_through(position).await;
            assert!(refused.is_err(), "{position}");
        }
        drop(events);
        let mut events = client.events().await.unwrap();
        assert_eq!(next_entry(&mut events).await.seq, Seq::new(1));
        drop(events);
        let mut events = client.events().await.unwrap();
        events.confirm_through(first).await.unwrap();
        events.confirm_through(first).await.unwrap();
        assert_eq!(next_entry(&mut events).await.seq, Seq::new(2));
    }

    #[tokio::test]
    async fn entries_and_hints_take_turns() {
        let client = client(1..=3).await;
        let mut events = client.events().await.unwrap();
        let mut seqs = Vec::new();
        for number in 0..6 {
            // The next hint is always there before the app asks.
            client.core().hub.tell(Event::Badge(number));
            client.core().hub.tell(Event::Me);
            if let Event::Entry(entry) = events.next().await.unwrap() {
                seqs.push(entry.seq.get());
            }
        }
        assert_eq!(seqs, [1, 2, 3]);
    }
}
