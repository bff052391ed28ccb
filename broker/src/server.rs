//! What all connections share, and the task that looks after the sessions of clients that are away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::acl::{self, Rules, Who};
use crate::clock;
use crate::codec::packet::{Publish, Will};
use crate::config::Config;
use crate::hooks::{ClientInfo, Hooks};
use crate::journal::{Change, Entry, Journal, SessionRow, Waiter, WillRow};
use crate::metrics::Metrics;
use crate::rate::{Arrivals, Rate};
use crate::registry::{Due, KeptSession, PAGE, PendingWill, Registry};
use crate::router::{Publisher, Routed, Router, Subscriber};
use crate::session::queue::Queued;
use crate::session::{SessionState, will};
use crate::store::sessions::Found;

/// What all connections share.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) router: Router,
    pub(crate) registry: Arc<Registry>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) arrivals: Arrivals,
    pub(crate) metrics: Arc<Metrics>,
    /// What is to be at rest goes there; `None`: nothing is.
    pub(crate) journal: Option<Arc<Journal>>,
    /// Cancelled when the broker stops.
    pub(crate) stop: CancellationToken,
    /// All tasks.
    pub(crate) tasks: TaskTracker,
    connections: AtomicU64,
    scram_secret: OnceLock<[u8; 32]>,
}

impl Server {
    pub(crate) fn new(
        config: Config,
        hooks: Arc<dyn Hooks>,
        rules: Arc<Rules>,
        metrics: Arc<Metrics>,
        journal: Option<Arc<Journal>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            router: Router::new(&config).with_journal(journal.clone()),
            journal,
            registry: Arc::new(Registry::new(config.sessions_kept_max)),
            rules,
            arrivals: Arrivals::new(Rate::new(
                config.address_connects_per_s,
                config.address_connects_burst,
            )),
            metrics,
            stop,
            tasks: TaskTracker::new(),
            connections: AtomicU64::new(1),
            scram_secret: OnceLock::new(),
            hooks,
            config,
        }
    }

    /// A number that no other connection of this process has.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes up salts for users who do not exist; random, the same while the process lives.
    pub(crate) fn scram_secret(&self) -> Result<[u8; 32], getrandom::Error> {
        if let Some(secret) = self.scram_secret.get() {
            return Ok(*secret);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(*self.scram_secret.get_or_init(|| secret))
    }

    /// Routes an ordinary publish, and counts what became of it.
    pub(crate) fn route(
        &self,
        publish: Arc<Publish>,
        publisher: &mut Publisher,
        now: Instant,
    ) -> Routed {
        let routed = self.router.publish(publish, publisher, now);
        self.metrics.messages_dropped_queue_full.add(routed.dropped);
        self.metrics
            .retained_refused
            .add(routed.retained_refused.into());
        routed
    }

    /// Publishes a will: nobody waits for the result. `session` had it at rest, and has it no more.
    pub(crate) fn publish_will(&self, will: Publish, session: Option<u64>, now: Instant) {
        let routed = self.route(Arc::new(will), &mut Publisher::default(), now);
        if let Some(number) = session
            && let Some(mut entry) = routed.entry.or_else(|| self.router.open())
        {
            entry.push(Change::NoWill(number));
        }
    }

    /// Publishes the will of a client that is away, if the rules and the rights of now allow it.
    fn publish_pending_will(&self, will: PendingWill, session: Option<u64>, now: Instant) {
        let who = Who {
            user: &will.name,
            client_id: &will.client_id,
        };
        if !acl::permit_absent(&*self.hooks, &self.rules, who, &will.publish) {
            self.metrics.publishes_refused.increment();
            debug!(user = %will.name, topic = %will.publish.topic, "will not authorized");
            if let Some((number, mut entry)) = session.zip(self.router.open()) {
                entry.push(Change::NoWill(number));
            }
            return;
        }
        self.publish_will(will.publish, session, now);
    }

    /// Gives what a session left behind to the others of its shared subscriptions.
    pub(crate) fn give_on(
        &self,
        left: impl IntoIterator<Item = Queued>,
        entry: &mut Option<Entry>,
    ) {
        let dropped = self.router.give_on(left, entry);
        self.metrics.messages_dropped_queue_full.add(dropped);
    }

    /// A session is over for good.
    pub(crate) fn end_session(&self, session: KeptSession, now: Instant, waiter: Option<Waiter>) {
        let KeptSession {
            state,
            mut subscriber,
            will,
            ..
        } = session;
        if let Some(will) = will {
            self.publish_pending_will(*will, subscriber.number(), now);
        }
        self.end_subscriber(&mut subscriber, state, waiter);
    }

    /// The end of what a session had. The waiter is told when it is durable; one for nothing is dropped.
    pub(crate) fn end_subscriber(
        &self,
        subscriber: &mut Subscriber,
        state: SessionState,
        waiter: Option<Waiter>,
    ) {
        let queued = subscriber.end(&self.router);
        let mut entry = self.router.open();
        self.give_on(state.into_shared().chain(queued), &mut entry);
        if let (Some(mut entry), Some(number)) = (entry, subscriber.number()) {
            entry.push(Change::End(number));
            if let Some(waiter) = waiter {
                entry.commit(waiter);
            }
        }
    }

    /// Notes a session that begins or goes on. Its subscriptions and messages are at rest if it outlives the connection;
    /// its row is there for its will also otherwise, so that the will survives the server. Returns what tells when a new
    /// session that outlives the connection is at rest.
    pub(crate) fn note_session(
        &self,
        client: &ClientInfo,
        subscriber: &mut Subscriber,
        session_expiry: u32,
        will: Option<&Will>,
    ) -> Option<oneshot::Receiver<()>> {
        let mut entry = self.router.open()?;
        let known = subscriber.number();
        if known.is_some() || session_expiry > 0 || will.is_some() {
            let number = known.unwrap_or_else(|| {
                let number = self.router.next_number();
                *subscriber = Subscriber::at_rest(number);
                number
            });
            entry.push(session_row(client, number, session_expiry, None));
            match will {
                Some(will) => entry.push(Change::Will(Box::new(WillRow {
                    session: number,
                    due: None,
                    delay: will.properties.will_delay_interval.unwrap_or(0),
                    publish: will::into_publish(will.clone()),
                }))),
                None if known.is_some() => entry.push(Change::NoWill(number)),
                None => {}
            }
        }
        subscriber.set_durable(session_expiry > 0);
        if known.is_some() || session_expiry == 0 {
            return None;
        }
        let (noted, is_noted) = oneshot::channel();
        entry.commit(Waiter::Signal(noted));
        Some(is_noted)
    }

    /// Brings back what was found at rest: every client is away.
    pub(crate) fn restore(&self, found: Found) {
        self.router.reserve_numbers(found.last_session);
        let refused = self.router.restore_retained(found.retained);
        if refused > 0 {
            self.metrics.retained_refused.add(refused);
            warn!(
                count = refused,
                "retained messages are cleared: there is no room for them"
            );
        }
        for session in found.sessions {
            let key = Arc::new((session.user, session.client_id));
            let subscriber = Subscriber::restored(
                &self.router,
                session.number,
                session.subscriptions,
                session.queue,
                session.next_place,
            );
            let kept = KeptSession {
                state: SessionState::restored(session.inflight, session.received),
                subscriber,
                will: session.will,
                expires_at: session.expires_at,
            };
            self.registry.restore(&key, kept);
        }
    }

    /// Forgets what has expired of what waits for clients that are away, and of what is retained.
    async fn sweep(&self, now: Instant) {
        let mut after = None;
        loop {
            let (page, next) = self.registry.page(after.as_ref(), PAGE);
            let kept = page.iter().filter_map(|seen| seen.kept.as_ref());
            for queue in kept.filter_map(|kept| kept.queue.as_ref()) {
                let expired = self.router.expire_queued(queue, now);
                self.metrics.messages_dropped_expired.add(expired);
            }
            after = next;
            if after.is_none() {
                break;
            }
            // There may be many, and others have their turn, too.
            tokio::task::yield_now().await;
        }
        self.router.expire_retained(now);
    }

    /// Ends kept sessions when they expire and publishes delayed wills, until the broker stops.
    pub(crate) async fn watch_sessions(self: Arc<Self>) {
        let mut sweep_at = clock::now() + SWEEP_INTERVAL;
        loop {
            let now = clock::now();
            let (due, next) = self.registry.due(now);
            for due in due {
                match due {
                    Due::Expired(session) => {
                        self.metrics.sessions_expired.increment();
                        self.end_session(*session, now, None);
                    }
                    Due::Will(will, session) => self.publish_pending_will(*will, session, now),
                }
            }
            if sweep_at <= now {
                self.sweep(now).await;
                sweep_at = now + SWEEP_INTERVAL;
            }
            let next = next.map_or(sweep_at, |next| next.min(sweep_at));
            self.metrics.sessions_kept.set(self.registry.kept());
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.registry.changed() => {}
                () = clock::sleep_until(Some(next)) => {}
            }
        }
    }

    /// Has every connection look at its subscriptions when the rules were replaced, until the broker stops.
    pub(crate) async fn watch_rules(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.rules.replaced() => self.registry.wake_all(),
            }
        }
    }
}

/// The row of a session: its client is connected, or away since then.
pub(crate) fn session_row(
    client: &ClientInfo,
    number: u64,
    expiry: u32,
    away_since: Option<Instant>,
) -> Change {
    Change::Session(Box::new(SessionRow {
        number,
        user: Arc::clone(&client.identity.user),
        name: Arc::clone(&client.identity.name),
        client_id: client.client_id.clone(),
        expiry,
        away_since,
    }))
}

/// What has expired is looked for so often.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
