//! The client: what an app holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::ids::{ConversationId, Handle as UserHandle, MessageId, UserId};
use proto::schema::rpc_reply::Result as Reply;
use proto::schema::rpc_request::Params;
use proto::schema::{ConvCreate, Me, MeGet};
use proto::topics::Target;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::{Builder, Config, Login};
use crate::conversation::{Conversation, Summary};
use crate::entry::Entry;
use crate::error::{Error, Refusal};
use crate::events::{Connection, Events, Hub};
use crate::store::{self, OutboxKind, OutboxRow, SearchPlace, Store};
use crate::worker::{self, Command, Core, Worker};

/// Commands that may wait for the worker.
const COMMANDS_MAX: usize = 256;

/// A user of mqchat on one device. Clones are the same client.
///
/// It connects by itself, and again whenever a connection ends, until it is closed or the last clone is dropped. Everything
/// that it knows is in its store and can be read at any time.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Ends the worker with the last clone.
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    events_taken: AtomicBool,
}

impl Handle {
    pub(crate) fn take_events(&self) -> bool {
        !self.events_taken.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn give_events_back(&self) {
        self.events_taken.store(false, Ordering::Release);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.stop.cancel();
    }
}

/// Something that waits for the server, or that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// The message id; none of read marks.
    pub mid: Option<MessageId>,
    /// The conversation, or the handle of the user with whom there is none yet.
    pub target: Target,
    /// What it is: the text of a message or edit, otherwise `reaction`, `delete` …
    pub what: PendingKind,
    /// When it was put here, in ms since 1970.
    pub created: u64,
    /// Why the server refused it. Then it waits for [`Client::retry`] or [`Client::discard`].
    pub refusal: Option<Refusal>,
}

/// What something in the outbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingKind {
    /// A message, with its text.
    Message(String),
    /// An edit, with the new text.
    Edit(String),
    /// Something else that is done to a message.
    Action,
    /// A read mark, or that a conversation shall show as unread.
    Mark,
}

impl Pending {
    pub(crate) fn of(row: &OutboxRow) -> Option<Self> {
        use proto::schema::{ClientMessage, Message};
        let text = || ClientMessage::decode(row.payload.clone()).map(|body| body.t);
        Some(Self {
            mid: row.mid(),
            target: row.target.parse().ok()?,
            what: match row.kind() {
                OutboxKind::Message => PendingKind::Message(text().ok()?),
                OutboxKind::Edit => PendingKind::Edit(text().ok()?),
                OutboxKind::Read | OutboxKind::ReadPrivately | OutboxKind::Unread => {
                    PendingKind::Mark
                }
                _ => PendingKind::Action,
            },
            created: row.created,
            refusal: row.refusal(),
        })
    }
}

/// A page of what was found in the local log.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Found {
    /// Messages, the newest of each conversation first.
    pub entries: Vec<Entry>,
    /// There may be more: give it to the next search.
    pub next: Option<SearchCursor>,
}

/// Names a call, so that it can be made again without being carried out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// One that nobody else has.
    pub fn by_chance() -> Self {
        Self(Uuid::now_v7())
    }

    /// One that was kept.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// To be kept.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

/// Where a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchCursor(SearchPlace);

impl Client {
    /// Begins to make a client of the server at `mqtt://host`, `mqtts://host`, `ws://host/mqtt` or `wss://host/mqtt`, each with
    /// a port if it is not the usual one.
    pub fn builder(server: impl Into<String>) -> Builder {
        Builder::new(server)
    }

    pub(crate) async fn start(config: Config) -> Result<Self, Error> {
        let (storage, device) = (config.storage.clone(), config.device.clone());
        let feeds = config.feeds;
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&storage, device.as_deref(), feeds)?;
            let client_id = store.client_id()?;
            let queued = store.outbox()?;
            let subscribed = store.subscribed()?;
            Ok::<_, Error>((store, client_id, queued, subscribed))
        });
        let (store, client_id, queued, subscribed) = opened.await.map_err(|_| Error::Closed)??;
        let has_subscribed = subscribed.is_some_and(|filters| filters == worker::filters());
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let core = Arc::new(Core {
            hub: Hub::new(config.limits.hints_max),
            config,
            store: Arc::new(store),
            commands,
            state: watch::Sender::new(Connection::Connecting),
            flushed: watch::Sender::new(queued.is_empty()),
            room: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let worker = Worker::new(
            Arc::clone(&core),
            receiver,
            client_id,
            queued,
            has_subscribed,
        );
        core.tasks.spawn(worker.run());
        let events_taken = AtomicBool::new(false);
        Ok(Self {
            handle: Arc::new(Handle { core, events_taken }),
        })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// Waits until the client is connected and knows what changed. Returns at once if it is.
    ///
    /// # Errors
    /// [`Error::SignIn`], [`Error::Replaced`], [`Error::TooManyDevices`] until something is done about that, [`Error::Store`] or
    /// [`Error::Closed`]. While the network is
    /// away, it waits.
    pub async fn online(&self) -> Result<(), Error> {
        let mut state = self.core().state.subscribe();
        loop {
            {
                let now = state.borrow_and_update();
                if *now == Connection::Online {
                    return Ok(());
                }
                if let Some(error) = now.end() {
                    return Err(error);
                }
            }
            state.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// The network is back, or the app is in front again: if there is no connection, the next one is tried now and not after the
    /// wait. Also after [`Connection::Replaced`] («use here») and [`Connection::TooManyDevices`].
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Store`].
    pub async fn reconnect(&self) -> Result<(), Error> {
        let (done, heard) = oneshot::channel();
        self.command(Command::Connect(done)).await?;
        heard.await.map_err(|_| self.core().ended())
    }

    /// Connects anew, now, with this handle and this password or token: what is to be done about [`Connection::SignIn`], and
    /// before a token ends. What waits in the outbox stays. It has to be the same user: otherwise the client ends with
    /// [`StoreError::OtherUser`](crate::StoreError::OtherUser).
    ///
    /// # Errors
    /// [`Error::Invalid`] without a handle, [`Error::Closed`], [`Error::Store`].
    pub async fn sign_in(
        &self,
        handle: impl Into<String>,
        secret: impl Into<String>,
    ) -> Result<(), Error> {
        let login = Login::new(handle, secret)?;
        let (done, heard) = oneshot::channel();
        self.command(Command::SignIn(login, done)).await?;
        heard.await.map_err(|_| self.core().ended())
    }

    /// How the connection is.
    pub fn connection(&self) -> Connection {
        self.core().state.borrow().clone()
    }

    /// What happens, for one reader at a time.
    ///
    /// # Errors
    /// [`Error::EventsTaken`] while there is another one.
    pub async fn events(&self) -> Result<Events, Error> {
        Events::new(Arc::clone(&self.handle)).await
    }

    /// Entries that wait for [`Client::events`], or were handed out and not confirmed. If they are more than
    /// [`Limits::feed_entries_max`](crate::Limits::feed_entries_max) nothing more comes from the server: the app has to take them.
    pub fn waiting(&self) -> u64 {
        self.core().store.waiting()
    }

    /// Who this is; `None` before the first connection.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn user(&self) -> Result<Option<(UserId, String)>, Error> {
        let profile = store::run(&self.core().store, Store::profile).await?;
        Ok(profile.map(|profile| (profile.uid, profile.handle)))
    }

    /// The conversation with one user, by handle, with or without `@`. It is made by its first message.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no handle.
    pub fn direct(&self, handle: &str) -> Result<Conversation, Error> {
        let handle = handle.strip_prefix('@').unwrap_or(handle);
        let handle: UserHandle = handle
            .parse()
            .map_err(|error| Error::Invalid(format!("{handle}: {error}")))?;
        Ok(Conversation::new(self.clone(), Target::Handle(handle)))
    }

    /// The note to oneself.
    pub fn note(&self) -> Conversation {
        Conversation::new(self.clone(), Target::Me)
    }

    /// A conversation by its id.
    pub fn conversation(&self, cid: ConversationId) -> Conversation {
        Conversation::new(self.clone(), Target::Conversation(cid))
    }

    /// All conversations of the local store, the one with the newest entry first.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Protocol`].
    pub async fn conversations(&self) -> Result<Vec<Summary>, Error> {
        let known = store::run(&self.core().store, Store::conversations).await?;
        let now_ms = self.core().store.now_ms();
        let summaries = known.into_iter().map(|known| Summary::of(known, now_ms));
        summaries.collect()
    }

    /// Makes a group of oneself and these users (`@bob`, `u.…`). Asks the server. To try again after a timeout without making a
    /// second one, use [`Client::call_as`] with `conv.create`.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn create_group(&self, title: &str, members: &[&str]) -> Result<Conversation, Error> {
        let asked = ConvCreate {
            title: Some(title.to_owned()),
            members: members.iter().map(|&member| member.to_owned()).collect(),
            ..ConvCreate::default()
        };
        match self.call("conv.create", Params::ConvCreate(asked)).await? {
            Reply::Conversation(made) => {
                let cid = made
                    .cid
                    .parse()
                    .map_err(|_| Error::Protocol(format!("no conversation id: {:?}", made.cid)))?;
                Ok(self.conversation(cid))
            }
            _ => Err(worker::unexpected("conv.create")),
        }
    }

    /// The own profile, as the server has it.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn me(&self) -> Result<Me, Error> {
        match self.call("me.get", Params::MeGet(MeGet {})).await? {
            Reply::Me(me) => Ok(me),
            _ => Err(worker::unexpected("me.get")),
        }
    }

    /// Calls any method of the server (`docs/protocol.md` §7), as `conv.invite` with [`Params::ConvInvite`]. If the connection
    /// ends meanwhile it is asked again on the next one; what it changes is changed once.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Timeout`] (it may still be carried out: see [`Client::call_as`]), [`Error::Busy`], [`Error::Closed`].
    pub async fn call(&self, method: &str, params: Params) -> Result<Reply, Error> {
        self.call_as(RequestId::by_chance(), method, params).await
    }

    /// The same by a request id that the app knows, and may keep over a restart: after [`Error::Timeout`] the same request is made again, and what it
    /// changes is changed once.
    ///
    /// # Errors
    /// Those of [`Client::call`]; [`Error::Invalid`] while a request with this id is being made.
    pub async fn call_as(
        &self,
        request: RequestId,
        method: &str,
        params: Params,
    ) -> Result<Reply, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
        if !method.bytes().all(plain) {
            return Err(Error::Invalid(format!("not a method: {method}")));
        }
        worker::call_as(self.core(), request.0, method, params).await
    }

    /// Messages of the local log that have all these words in their text, whatever their case: at most `limit`, 1 to 100. It
    /// looks at a bounded number of messages and may find none and yet tell where to go on.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a word; [`Error::Store`].
    pub async fn search(
        &self,
        words: &str,
        limit: usize,
        after: Option<SearchCursor>,
    ) -> Result<Found, Error> {
        self.search_in(None, words, limit, after).await
    }

    pub(crate) async fn search_in(
        &self,
        cid: Option<ConversationId>,
        words: &str,
        limit: usize,
        after: Option<SearchCursor>,
    ) -> Result<Found, Error> {
        let words: Vec<_> = words.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() {
            return Err(Error::Invalid("nothing to search for".to_owned()));
        }
        let (limit, after) = (limit.clamp(1, 100), after.map(|after| after.0));
        let search = move |store: &Store| store.search(&words, cid, after, limit);
        let (found, next) = store::run(&self.core().store, search).await?;
        let now_ms = self.core().store.now_ms();
        let entries = found.into_iter().map(|entry| Entry::read(entry, now_ms));
        Ok(Found {
            entries: entries.collect::<Result<_, _>>()?,
            next: next.map(SearchCursor),
        })
    }

    /// Everything that waits for the server or was refused, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn pending(&self) -> Result<Vec<Pending>, Error> {
        let rows = store::run(&self.core().store, |store| store.outbox_rows(None)).await?;
        Ok(rows
            .iter()
            .filter_map(|(_, row)| Pending::of(row))
            .collect())
    }

    /// Waits until nothing waits for the server any more. What was refused does not wait.
    ///
    /// # Errors
    /// Those of [`Client::online`].
    pub async fn flushed(&self) -> Result<(), Error> {
        let mut flushed = self.core().flushed.subscribe();
        let mut state = self.core().state.subscribe();
        loop {
            // What was queued before this call has to be known to the worker.
            let (reply, answer) = oneshot::channel();
            let ask = Command::Discard(0, reply);
            let core = self.core();
            core.commands.send(ask).await.map_err(|_| core.ended())?;
            answer.await.map_err(|_| core.ended())??;
            if *flushed.borrow_and_update() {
                return Ok(());
            }
            if let Some(error) = state.borrow_and_update().end() {
                return Err(error);
            }
            tokio::select! {
                changed = flushed.changed() => changed.map_err(|_| Error::Closed)?,
                changed = state.changed() => changed.map_err(|_| Error::Closed)?,
            }
        }
    }

    /// Tries something again that the server refused. Whether there was such a thing. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`].
    pub async fn retry(&self, mid: &MessageId) -> Result<bool, Error> {
        let Some(number) = self.number_of(mid).await? else {
            return Ok(false);
        };
        // From the commit on it waits, also if this future is dropped before the worker hears of it: the job tells it.
        let commands = self.core().commands.clone();
        let retry = move |store: &Store| {
            let retried = store.retry(number)?;
            let is_there = retried.is_some();
            if let Some(queued) = retried {
                // Closed: it waits for the next time that the store is opened.
                let _ = commands.blocking_send(Command::Queued(queued));
            }
            Ok(is_there)
        };
        store::run(&self.core().store, retry).await
    }

    /// Takes something out of the outbox. `false` if it is not there, or on its way at this moment. What was on its way before,
    /// and lost its connection then, may have been stored all the same.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`], [`Error::Timeout`].
    pub async fn discard(&self, mid: &MessageId) -> Result<bool, Error> {
        let Some(number) = self.number_of(mid).await? else {
            return Ok(false);
        };
        let (reply, answer) = oneshot::channel();
        worker::settled(self.core(), Command::Discard(number, reply), answer).await
    }

    async fn number_of(&self, mid: &MessageId) -> Result<Option<u64>, Error> {
        let mid = mid.to_string();
        store::run(&self.core().store, move |store| store.outbox_number(&mid)).await
    }

    /// Says how this user wants to be seen: `online`, `away`, `dnd` or `invisible`, and a text of at most 256 bytes beside it.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Timeout`] without a connection.
    pub async fn set_presence(&self, state: &str, text: &str) -> Result<(), Error> {
        let choice = serde_json::json!({"state": state, "text": text}).to_string();
        worker::publish(self.core(), "chat/me/presence", choice.into()).await
    }

    /// Tells of the presence of a user by [`Event::Presence`](crate::Event::Presence), from now until
    /// [`Client::unwatch_presence`].
    ///
    /// # Errors
    /// [`Error::Refused`] if this user may not see it, or watches as many as may be; [`Error::Timeout`] if that is not known yet; then it is asked for as soon
    /// as there is a connection.
    pub async fn watch_presence(&self, handle: &str) -> Result<(), Error> {
        let filter = presence_filter(handle)?;
        let (reply, answer) = oneshot::channel();
        worker::settled(self.core(), Command::Watch(filter, reply), answer).await
    }

    /// No longer tells of it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Closed`].
    pub async fn unwatch_presence(&self, handle: &str) -> Result<(), Error> {
        self.command(Command::Unwatch(presence_filter(handle)?))
            .await
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), Error> {
        let sent = self.core().commands.send(command).await;
        sent.map_err(|_| self.core().ended())
    }

    /// Ends the connection, waits for what is under way, and ends the client, with all its clones and conversations. What waits
    /// in the outbox stays there. The folder is free then.
    pub async fn close(self) {
        let core = self.core();
        core.stop.cancel();
        core.tasks.close();
        core.tasks.wait().await;
        let store = Arc::clone(&core.store);
        if tokio::task::spawn_blocking(move || store.close())
            .await
            .is_err()
        {
            tracing::debug!("the runtime ended before the store was closed");
        }
    }
}

fn presence_filter(handle: &str) -> Result<String, Error> {
    let handle = handle.strip_prefix('@').unwrap_or(handle);
    let handle: UserHandle = handle
        .parse()
        .map_err(|error| Error::Invalid(format!("{handle}: {error}")))?;
    Ok(format!("chat/u/@{handle}/presence"))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.core().config.address.to_string())
            .field("handle", &self.core().config.login.handle)
            .finish_non_exhaustive()
    }
}
