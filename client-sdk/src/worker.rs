//! The one task where connection, store and outbox meet.
//!
//! It never waits for the disk or the network: what takes time is a job, and reports back as [`Done`]. What came from the
//! server goes into the store one batch at a time, and is acked when the batch is durable.

mod commands;
mod done;
mod gaps;
mod jobs;
mod watches;

pub(crate) use self::jobs::{call_as, history, publish, settled, unexpected};

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use proto::ids::{ConversationId, Seq};
use rumqttc::{Publish, QoS};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::calls::{Calls, Reply};
use crate::clock;
use crate::config::{Config, Login};
use crate::connection::{Acked, Arrival, Down, Link, Outgoing};
use crate::error::{Error, Refusal, StoreError};
use crate::events::{Connection, Event, Hub};
use crate::outbox::Outbox;
use crate::store::{Queued, Store, Taken};
use crate::worker::gaps::Gaps;
use crate::worker::watches::Watches;

/// Publishes that go into one commit.
const BATCH_MAX: usize = 512;
/// Conversations that are filled at once.
const FILLS_MAX: usize = 4;
/// Wait before something is tried again that the server could not do, and did not say when it could.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest time between two looks for bodies that have ended: the wall clock may jump.
const EXPIRE_MS_MAX: u64 = 3_600_000;
/// Refusals of what every client wants, one after the other, until it is clear that it is not for being too fast.
const REFUSED_MAX: u32 = 3;
/// So many times the patience with gaps after SUBACK, all that a subscription tells at first has come.
const SETTLED: u32 = 5;
/// Time for what is under way when the client is closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// What every client always wants.
const FILTERS: [(&str, QoS); 5] = [
    // A reply that is lost with its connection is asked for again: it needs no ack, which would have to wait for the acks of
    // entries before it [MQTT-4.6.0-2].
    ("chat/me/rpc/+", QoS::AtMostOnce),
    ("chat/me/pb/+", QoS::AtLeastOnce),
    ("chat/me/rcpt/+", QoS::AtLeastOnce),
    ("chat/me/ev/account", QoS::AtLeastOnce),
    ("chat/me/ev/typing/+", QoS::AtMostOnce),
];

/// Those filters in one line: another list is not the one that a session has.
pub(crate) fn filters() -> String {
    FILTERS.map(|(filter, _)| filter).join(" ")
}

/// What the parts of a client share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) hub: Hub,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) state: watch::Sender<Connection>,
    /// Nothing waits in the outbox.
    pub(crate) flushed: watch::Sender<bool>,
    /// The app has taken something: there may be room for more.
    pub(crate) room: Notify,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Core {
    /// Why nothing more is done.
    pub(crate) fn ended(&self) -> Error {
        self.state.borrow().end().unwrap_or(Error::Closed)
    }

    fn set_state(&self, state: Connection) {
        let changed = self.state.send_if_modified(|now| {
            let changed = *now != state;
            now.clone_from(&state);
            changed
        });
        if changed {
            self.hub.tell(Event::Connection(state));
            self.hub.ring();
        }
    }
}

/// Is there a connection on which calls can be made?
pub(crate) fn is_online(core: &Core) -> bool {
    *core.state.borrow() == Connection::Online
}

/// What the worker is asked for.
pub(crate) enum Command {
    /// Something was put into the outbox.
    Queued(Queued),
    /// Something is to be taken out of the outbox, unless it is under way. Whether it was.
    Discard(u64, oneshot::Sender<Result<bool, Error>>),
    /// A remote call.
    Call(Uuid, (String, Bytes), Reply),
    /// A publish that is not kept: what became of it.
    Publish(Outgoing, oneshot::Sender<Result<(), Error>>),
    /// What somebody asked for is in the store.
    Taken(Box<Taken>),
    /// If there is no connection, one is tried now, also after a refusal.
    Connect(oneshot::Sender<()>),
    /// With another login from now on.
    SignIn(Login, oneshot::Sender<()>),
    /// At QoS 0, if there is a connection.
    Hint(String, Bytes),
    /// One more filter. Whether the server grants it.
    Watch(String, oneshot::Sender<Result<(), Error>>),
    /// One less.
    Unwatch(String),
}

/// What a job reports.
enum Done {
    Taken {
        taken: Result<Taken, Error>,
        publishes: Vec<Publish>,
        generation: u64,
    },
    Subscribed {
        answered: Option<Vec<(String, Option<Refusal>)>>,
        generation: u64,
    },
    Watched {
        answered: Option<Vec<(String, Option<Refusal>)>>,
        generation: u64,
    },
    Hello {
        hello: Result<jobs::Greeting, Error>,
        generation: u64,
    },
    Sent {
        queued: Queued,
        outcome: Result<Outcome, Error>,
    },
    Asked(Uuid, Acked),
    Filled(ConversationId, Result<Taken, Error>),
    Refreshed(Result<Taken, Error>),
    Expired(Result<Option<u64>, Error>),
    Stored(Result<(), Error>),
}

/// What became of something in the outbox.
enum Outcome {
    Settled {
        taken: Taken,
        cid: Option<ConversationId>,
        seq: Option<Seq>,
    },
    Failed {
        refusal: Refusal,
        taken: Taken,
    },
    Again(Option<Duration>),
}

struct Live {
    link: Link,
    arrivals: mpsc::Receiver<Arrival>,
    /// Replies would arrive: calls may be made.
    subscribed: bool,
    /// It is known who the user is, and what changed.
    greeted: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub(crate) struct Worker {
    core: Arc<Core>,
    commands: mpsc::Receiver<Command>,
    client_id: String,
    login: Login,
    live: Option<Live>,
    generation: u64,
    reconnect_at: Option<Instant>,
    backoff: Backoff,
    /// A session that is resumed has the filters.
    has_subscribed: bool,
    /// When that is written down, so that the next process knows.
    settled_at: Option<Instant>,
    refused_in_a_row: u32,
    /// The server has said who the user is, and the store is that user's.
    has_profile: bool,
    outbox: Outbox,
    calls: Calls,
    watches: Watches,
    /// Came from the server and is not in the store.
    incoming: VecDeque<Publish>,
    taking: bool,
    is_behind: bool,
    gaps: Gaps,
    filling: BTreeSet<ConversationId>,
    stale: bool,
    refreshing: bool,
    expire_at: Option<Instant>,
    /// Bodies were looked at since the server said what time it is.
    knew_time: bool,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Worker {
    pub(crate) fn new(
        core: Arc<Core>,
        commands: mpsc::Receiver<Command>,
        client_id: String,
        queued: Vec<Queued>,
        has_subscribed: bool,
    ) -> Self {
        let limits = &core.config.limits;
        let backoff = Backoff::new(limits.reconnect_min, limits.reconnect_max);
        let gaps = Gaps::new(limits.gap_patience);
        let mut outbox = Outbox::default();
        // A mark that another one takes the place of, and that was under way when the process ended, is not kept.
        let replaced: Vec<_> = queued
            .into_iter()
            .filter_map(|queued| outbox.add(queued))
            .collect();
        let jobs = FuturesUnordered::new();
        for number in replaced {
            jobs.push(discard(Arc::clone(&core.store), number));
        }
        Self {
            login: core.config.login.clone(),
            core,
            commands,
            client_id,
            live: None,
            generation: 0,
            reconnect_at: Some(clock::now()),
            backoff,
            has_subscribed,
            settled_at: None,
            refused_in_a_row: 0,
            has_profile: false,
            outbox,
            calls: Calls::default(),
            watches: Watches::default(),
            incoming: VecDeque::new(),
            taking: false,
            is_behind: false,
            gaps,
            filling: BTreeSet::new(),
            stale: true,
            refreshing: false,
            expire_at: Some(clock::now()),
            knew_time: false,
            jobs,
        }
    }

    /// Works until the client is closed, or nothing can be done any more.
    pub(crate) async fn run(mut self) {
        self.tell_whether_flushed();
        while !self.core.state.borrow().is_final() {
            self.begin_what_can_begin();
            let timeout = self.next_timeout();
            tokio::select! {
                () = self.core.stop.cancelled() => break,
                arrival = next_arrival(self.live.as_mut()) => self.on_arrival(arrival),
                Some(done) = self.jobs.next() => self.on_done(done).await,
                Some(command) = self.commands.recv() => self.on_command(command),
                () = self.core.room.notified() => {}
                () = clock::sleep_until(timeout) => self.on_timeout(),
            }
            self.tell_whether_flushed();
        }
        self.finish().await;
    }

    fn tell_whether_flushed(&self) {
        let empty = self.outbox.is_empty();
        self.core.flushed.send_if_modified(|flushed| {
            let changed = *flushed != empty;
            *flushed = empty;
            changed
        });
    }

    /// Lets go of the connection and of the store.
    async fn finish(mut self) {
        self.live = None;
        self.commands.close();
        self.calls = Calls::default();
        let rest = async { while self.jobs.next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, rest).await.is_err() {
            tracing::warn!("jobs were left behind");
        }
        if !self.core.state.borrow().is_final() {
            self.core.set_state(Connection::Closed);
        }
        self.core.hub.ring();
    }

    fn next_timeout(&self) -> Option<Instant> {
        let gap = self.gaps.next_timeout().filter(|_| self.may_fill());
        let paused = self.outbox.next_timeout().filter(|_| self.greeted());
        [
            self.reconnect_at,
            paused,
            gap,
            self.expire_at,
            self.settled_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The app has room for more.
    fn has_room(&self) -> bool {
        let config = &self.core.config;
        !config.feeds || self.core.store.waiting() <= config.limits.feed_entries_max
    }

    fn may_fill(&self) -> bool {
        self.greeted() && self.filling.len() < FILLS_MAX && self.has_room()
    }

    fn greeted(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.greeted)
    }

    fn begin_what_can_begin(&mut self) {
        self.take_incoming();
        if !self.greeted() {
            return;
        }
        let now = clock::now();
        while let Some(queued) = self.outbox.next(now) {
            if let Some(live) = &self.live {
                let job = jobs::send(Arc::clone(&self.core), live.link.client(), queued);
                self.jobs.push(Box::pin(job));
            }
        }
        if self.stale && !self.refreshing {
            self.stale = false;
            self.refreshing = true;
            self.jobs
                .push(Box::pin(jobs::refresh(Arc::clone(&self.core))));
        }
    }

    /// One batch at a time, and none while the app is too far behind, or it is not known whether the store is that of this user.
    fn take_incoming(&mut self) {
        if self.taking || self.incoming.is_empty() || !self.has_profile {
            return;
        }
        let is_behind = !self.has_room();
        if is_behind && !self.is_behind {
            let waiting = self.core.store.waiting();
            tracing::warn!(
                waiting,
                "the app does not take its entries: nothing more is taken from the server"
            );
        }
        self.is_behind = is_behind;
        if is_behind {
            return;
        }
        self.taking = true;
        let count = self.incoming.len().min(BATCH_MAX);
        let publishes: Vec<_> = self.incoming.drain(..count).collect();
        let job = jobs::take(Arc::clone(&self.core), publishes, self.generation);
        self.jobs.push(Box::pin(job));
    }

    fn on_timeout(&mut self) {
        let now = clock::now();
        if self.reconnect_at.is_some_and(|at| at <= now) {
            self.reconnect_at = None;
            self.connect();
        }
        if self.settled_at.is_some_and(|at| at <= now) {
            self.settled_at = None;
            self.put_subscribed(true);
        }
        if self.expire_at.is_some_and(|at| at <= now) {
            self.expire_at = None;
            self.jobs
                .push(Box::pin(jobs::expire(Arc::clone(&self.core))));
        }
        if !self.may_fill() {
            return;
        }
        let limit = FILLS_MAX.saturating_sub(self.filling.len());
        for cid in self.gaps.take_due(now, limit) {
            if self.filling.insert(cid) {
                let job = jobs::fill(Arc::clone(&self.core), cid);
                self.jobs.push(Box::pin(job));
            }
        }
    }

    fn connect(&mut self) {
        self.core.set_state(Connection::Connecting);
        self.generation += 1;
        let core = &self.core;
        let durable = core.store.is_durable();
        let (link, arrivals) = Link::start(
            &core.config,
            &self.login,
            &self.client_id,
            durable,
            &core.tasks,
        );
        self.live = Some(Live {
            link,
            arrivals,
            subscribed: false,
            greeted: false,
        });
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Up { resumed } => self.on_up(resumed),
            Arrival::Publish(publish) => self.on_publish(publish),
            Arrival::Down(down) => self.on_down(down),
        }
    }

    fn on_up(&mut self, resumed: bool) {
        self.backoff.up(clock::now());
        let Some(live) = &self.live else { return };
        let client = live.link.client();
        self.watches.connected(resumed);
        self.has_subscribed &= resumed;
        if self.has_subscribed {
            self.on_subscribed();
            return;
        }
        self.put_subscribed(false);
        let filters = FILTERS.map(|(filter, qos)| (filter.to_owned(), qos));
        let generation = self.generation;
        self.jobs.push(Box::pin(async move {
            let answered = Link::subscribe(client, filters.to_vec()).await;
            Done::Subscribed {
                answered,
                generation,
            }
        }));
    }

    fn put_subscribed(&mut self, subscribed: bool) {
        let store = Arc::clone(&self.core.store);
        self.jobs.push(Box::pin(async move {
            let filters = subscribed.then(filters);
            let put = move |store: &Store| store.set_subscribed(filters.as_deref());
            Done::Stored(crate::store::run(&store, put).await)
        }));
    }

    /// Calls may be made from now on.
    fn on_subscribed(&mut self) {
        self.has_subscribed = true;
        if let Some(live) = &mut self.live {
            live.subscribed = true;
        }
        for id in self.calls.waiting() {
            self.ask(id);
        }
        self.watch();
        let job = jobs::hello(Arc::clone(&self.core), !self.has_profile, self.generation);
        self.jobs.push(Box::pin(job));
    }

    fn on_publish(&mut self, publish: Publish) {
        if publish.topic.starts_with(b"chat/me/rpc/") {
            self.calls.answer(&publish);
        } else if let Some(filter) = jobs::presence_filter(&publish)
            && !self.watches.is_wanted(filter)
        {
            // Of an earlier process, or an UNSUBSCRIBE that was lost.
            if let Some(live) = &self.live {
                live.link.unsubscribe(filter.to_owned());
            }
        } else if let Some(hint) = jobs::hint(&publish) {
            self.core.hub.tell(hint);
        } else {
            self.incoming.push_back(publish);
        }
    }

    fn on_down(&mut self, down: Down) {
        self.live = None;
        // What is not acked comes again.
        self.incoming.clear();
        // What a subscription told at first may not have come whole.
        if self.settled_at.take().is_some() {
            self.has_subscribed = false;
        }
        match down {
            Down::Lost(reason) => {
                let wait = self.backoff.down(clock::now(), clock::chance);
                self.reconnect_at = Some(clock::now() + wait);
                self.core.set_state(Connection::Offline { reason });
            }
            Down::SignIn(why) => self.pause(Connection::SignIn(why)),
            Down::Replaced => self.pause(Connection::Replaced),
            Down::TooManyDevices => self.pause(Connection::TooManyDevices),
        }
    }

    /// Waits until the app has done something about it. Whoever waits for a reply is told; the outbox stays.
    fn pause(&mut self, state: Connection) {
        self.core.set_state(state);
        self.calls.end(&self.core.ended());
    }

    fn fail(&mut self, error: StoreError) {
        tracing::error!(%error, "the local store failed");
        self.live = None;
        self.core.set_state(Connection::Failed(error));
    }
}

/// Something in the outbox is not to be sent.
fn discard(store: Arc<Store>, number: u64) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let done = crate::store::run(&store, move |store| store.discard(number)).await;
        Done::Stored(done.map(|_| ()))
    })
}

async fn next_arrival(live: Option<&mut Live>) -> Arrival {
    match live {
        Some(live) => match live.arrivals.recv().await {
            Some(arrival) => arrival,
            None => Arrival::Down(Down::Lost("the connection ended".to_owned())),
        },
        None => std::future::pending().await,
    }
}
