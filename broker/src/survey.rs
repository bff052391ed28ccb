//! A look at all sessions now and then: how much waits in queues, and which clients do not keep up.
//!
//! Clients that do not keep up are told of in the log when that begins: a queue drops messages, or a connection takes
//! nothing for longer than `slow_client_s`. A few lines per look, then their number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::clock;
use crate::registry::{PAGE, Seen};
use crate::server::Server;

/// Looks until the broker stops.
pub(crate) async fn run(server: Arc<Server>) {
    let mut look = Look::new(&server);
    loop {
        look.all().await;
        let next = clock::now().checked_add(INTERVAL);
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = clock::sleep_until(next) => {}
        }
    }
}

struct Look<'a> {
    server: &'a Server,
    slow_after: Option<Duration>,
    found: Found,
}

/// In one look.
#[derive(Default)]
struct Found {
    messages: usize,
    bytes: usize,
    largest: usize,
    dropping: usize,
    blocked: usize,
    lines: usize,
}

impl<'a> Look<'a> {
    fn new(server: &'a Server) -> Self {
        Self {
            server,
            slow_after: server.config.slow_client(),
            found: Found::default(),
        }
    }

    /// Page by page: others have their turn.
    async fn all(&mut self) {
        self.found = Found::default();
        let mut after = None;
        loop {
            let (page, next) = self.server.registry.page(after.as_ref(), PAGE);
            let now = clock::now();
            for seen in &page {
                self.at(seen, now);
            }
            after = next;
            if after.is_none() || self.server.stop.is_cancelled() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(more) = self.found.lines.checked_sub(LINES_MAX)
            && more > 0
        {
            warn!("{more} more clients do not keep up: see `client list --slow`");
        }
        self.publish();
    }

    fn at(&mut self, seen: &Seen, now: Instant) {
        let found = &mut self.found;
        let (user, client_id) = (seen.shown_user(), &seen.key.1);
        if let Some(queue) = seen.queue() {
            let load = queue.look();
            found.messages += load.messages;
            found.bytes += load.bytes;
            found.largest = found.largest.max(load.messages);
            found.dropping += usize::from(load.dropped_lately > 0);
            if load.begins_to_drop {
                self.server.metrics.queue_overflows.increment();
                found.lines += 1;
                if found.lines <= LINES_MAX {
                    let (dropped, waiting) = (load.dropped_lately, load.messages);
                    warn!(
                        user,
                        ?client_id,
                        dropped,
                        waiting,
                        "the queue of a slow client is full: messages are dropped"
                    );
                }
            }
        }
        let Some(live) = &seen.live else { return };
        let age = now.saturating_duration_since(live.authenticated_since);
        let blocked = live.vitals.blocked_for(age);
        let blocked = blocked.filter(|time| self.slow_after.is_some_and(|after| *time >= after));
        let Some(time) = blocked else { return };
        found.blocked += 1;
        if live.vitals.tell() {
            self.server.metrics.client_stalls.increment();
            found.lines += 1;
            if found.lines <= LINES_MAX {
                warn!(user, ?client_id, peer = %live.peer, ?time, "a slow client takes nothing of what is sent to it");
            }
        }
    }

    fn publish(&self) {
        let (metrics, found) = (&self.server.metrics, &self.found);
        metrics.queue_messages.set(found.messages);
        metrics.queue_bytes.set(found.bytes);
        metrics.queue_messages_largest.set(found.largest);
        metrics.queues_dropping.set(found.dropping);
        metrics.clients_blocked.set(found.blocked);
        let counts = self.server.router.counts();
        metrics.subscriptions.set(counts.subscriptions);
        metrics.subscriptions_shared.set(counts.shared);
        metrics.retained.set(counts.retained);
    }
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// In the log, of one look.
const LINES_MAX: usize = 10;
