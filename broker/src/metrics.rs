//! Counters of the broker: written with relaxed atomics, read by whoever exports them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: usize) {
        if count > 0 {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        let value = u64::try_from(value).unwrap_or(u64::MAX);
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Everything that the broker counts since it was started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Network connections that are open now.
    pub connections_open: Gauge,
    /// Clients that are connected: their CONNECT was accepted.
    pub clients_connected: Gauge,
    /// Sessions that are kept for clients that are away.
    pub sessions_kept: Gauge,
    /// Network connections accepted.
    pub connections_accepted: Counter,
    /// Network connections closed at once because of a limit.
    pub connections_over_limit: Counter,
    /// TLS, WebSocket or PROXY protocol handshakes that failed, or took too long.
    pub handshakes_failed: Counter,
    /// Certificate files that could not be used; the certificate in use stays.
    pub certificates_rejected: Counter,
    /// `accept` failed.
    pub accept_errors: Counter,
    /// CONNECT packets accepted.
    pub connects_accepted: Counter,
    /// CONNECT packets refused, or not there in time.
    pub connects_refused: Counter,
    /// CONNECT packets refused, among those, because their address connects too often.
    pub connects_over_rate: Counter,
    /// Connections ended because the client broke a rule of the protocol.
    pub protocol_errors: Counter,
    /// Connections ended, among those, because the client had more unacknowledged publishes than it may have.
    pub receive_maximum_exceeded: Counter,
    /// Connections taken over by a later one of the same session.
    pub takeovers: Counter,
    /// Connections ended because the client stopped reading.
    pub write_timeouts: Counter,
    /// Connections ended because the Keep Alive ran out.
    pub keep_alive_timeouts: Counter,
    /// Bytes read.
    pub bytes_received: Counter,
    /// Bytes written.
    pub bytes_sent: Counter,
    /// Packets received, of all kinds.
    pub packets_received: Counter,
    /// Packets sent, of all kinds.
    pub packets_sent: Counter,
    /// Bytes of the payloads of PUBLISH packets received.
    pub publish_bytes_received: Counter,
    /// Bytes of the payloads of PUBLISH packets sent.
    pub publish_bytes_sent: Counter,
    /// PUBLISH packets to ordinary topics received.
    pub publishes_received: Counter,
    /// PUBLISH packets handed over to the plugin.
    pub publishes_handed_over: Counter,
    /// PUBLISH packets refused: not authorized.
    pub publishes_refused: Counter,
    /// PUBLISH packets refused or dropped because the client sends too much.
    pub publishes_over_rate: Counter,
    /// Connections were read no further for a while because the client sends too much.
    pub rate_pauses: Counter,
    /// Ordinary subscriptions refused: not authorized.
    pub subscriptions_refused: Counter,
    /// Ordinary subscriptions refused: the session has as many as it may have.
    pub subscriptions_over_limit: Counter,
    /// Ordinary subscriptions ended because they are no longer allowed.
    pub subscriptions_revoked: Counter,
    /// PUBLISH packets sent.
    pub publishes_sent: Counter,
    /// Ordinary messages dropped because the queue of a session was full.
    pub messages_dropped_queue_full: Counter,
    /// Messages not sent because they are larger than the client's Maximum Packet Size.
    pub messages_dropped_too_large: Counter,
    /// Ordinary messages not sent because they had expired.
    pub messages_dropped_expired: Counter,
    /// Ordinary messages not sent because the client may no longer subscribe to their topics.
    pub messages_dropped_not_allowed: Counter,
    /// Retained messages refused because the limit was reached.
    pub retained_refused: Counter,
    /// Kept sessions whose time was over.
    pub sessions_expired: Counter,
    /// Kept sessions that were discarded because there were too many.
    pub sessions_evicted: Counter,
}
