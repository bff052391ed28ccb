//! What all connections share, and the task that looks after the sessions of clients that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::codec::packet::Publish;
use crate::config::Config;
use crate::hooks::Hooks;
use crate::metrics::Metrics;
use crate::registry::{Due, KeptSession, Registry};
use crate::router::{Publisher, Routed, Router};
use crate::session::queue::Queued;

/// What all connections share.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) router: Router,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the broker stops.
    pub(crate) stop: CancellationToken,
    /// All tasks.
    pub(crate) tasks: TaskTracker,
    connections: AtomicU64,
}

impl Server {
    pub(crate) fn new(
        config: Config,
        hooks: Arc<dyn Hooks>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            router: Router::new(&config),
            registry: Arc::new(Registry::new(config.sessions_kept_max)),
            metrics,
            stop,
            tasks: TaskTracker::new(),
            connections: AtomicU64::new(1),
            hooks,
            config,
        }
    }

    /// A number that no other connection of this process has.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
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

    /// Publishes a will: nobody waits for the result.
    pub(crate) fn publish_will(&self, will: Publish, now: Instant) {
        self.route(Arc::new(will), &mut Publisher::default(), now);
    }

    /// Gives what a session left behind to the others of its shared subscriptions.
    pub(crate) fn give_on(&self, left: impl IntoIterator<Item = Queued>) {
        let dropped = self.router.give_on(left);
        self.metrics.messages_dropped_queue_full.add(dropped);
    }

    /// A session is over for good.
    pub(crate) fn end_session(&self, mut session: KeptSession, now: Instant) {
        let queued = session.subscriber.end(&self.router);
        self.give_on(session.state.into_shared().chain(queued));
        if let Some((_, will)) = session.will {
            self.publish_will(*will, now);
        }
    }

    /// Ends kept sessions when they expire and publishes delayed wills, until the broker stops.
    pub(crate) async fn watch_sessions(self: Arc<Self>) {
        loop {
            let now = clock::now();
            let (due, next) = self.registry.due(now);
            for due in due {
                match due {
                    Due::Expired(session) => self.end_session(*session, now),
                    Due::Will(will) => self.publish_will(*will, now),
                }
            }
            self.metrics.sessions_kept.set(self.registry.kept());
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.registry.changed() => {}
                () = clock::sleep_until(next) => {}
            }
        }
    }
}
