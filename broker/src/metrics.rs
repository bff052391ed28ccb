//! What the broker and its stores measure: written with relaxed atomics, read by whoever exports it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::codec::packet::Qos;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more. Nothing is written for 0.
    pub fn add(&self, count: usize) {
        if count > 0 {
            self.0.fetch_add(as_u64(count), Ordering::Relaxed);
        }
    }
}

/// A number of each QoS that only grows.
#[derive(Debug, Default)]
pub struct ByQos([Counter; 3]);

impl ByQos {
    /// The values now, of QoS 0, 1 and 2.
    pub fn values(&self) -> [u64; 3] {
        self.0.each_ref().map(Counter::value)
    }

    /// The value of all of them now.
    pub fn total(&self) -> u64 {
        self.values().iter().sum()
    }

    pub(crate) fn add(&self, tally: QosTally) {
        for (counter, count) in self.0.iter().zip(tally.0) {
            counter.add(count);
        }
    }
}

/// Numbers of each QoS, gathered by one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QosTally([usize; 3]);

impl QosTally {
    pub(crate) const fn add(&mut self, qos: Qos, count: usize) {
        let [zero, one, two] = &mut self.0;
        *match qos {
            Qos::AtMostOnce => zero,
            Qos::AtLeastOnce => one,
            Qos::ExactlyOnce => two,
        } += count;
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

    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(as_u64(value), Ordering::Relaxed);
    }
}

/// How often values came to lie below each of some bounds: 1, 2, 5, 10, … 100,000 times `UNIT`.
#[derive(Debug, Default)]
pub struct Histogram<const UNIT: u64> {
    /// The last one is for what lies above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// Times in microseconds: from 100 µs to 10 s.
pub type Latency = Histogram<100>;

/// Numbers of things.
pub type Sizes = Histogram<1>;

/// What a histogram holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Each bound, and how many values were not above it.
    pub up_to: [(u64, u64); BOUNDS.len()],
    /// How many values there were.
    pub count: u64,
    /// Of all values.
    pub sum: u64,
}

impl<const UNIT: u64> Histogram<UNIT> {
    /// So many values were this one.
    pub fn observe(&self, value: u64, count: u64) {
        let place = BOUNDS.partition_point(|bound| bound * UNIT < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum
            .fetch_add(value.saturating_mul(count), Ordering::Relaxed);
    }

    /// What it holds now. Values that come meanwhile may be in one number and not in another.
    pub fn read(&self) -> Distribution {
        let sum = self.sum.load(Ordering::Relaxed);
        let mut buckets = self.buckets.iter();
        let mut count = 0;
        let mut next = || {
            count += buckets.next().map_or(0, |it| it.load(Ordering::Relaxed));
            count
        };
        let up_to = BOUNDS.map(|bound| (bound * UNIT, next()));
        Distribution {
            up_to,
            count: next(),
            sum,
        }
    }
}

impl Latency {
    /// So many things took this long.
    pub fn took(&self, time: Duration, count: usize) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.observe(micros, as_u64(count));
    }
}

/// How the commits of a store were.
#[derive(Debug, Default)]
pub struct Commits {
    /// From the first row to durable.
    pub latency: Latency,
    /// Requests that shared a commit.
    pub batch: Sizes,
}

impl Commits {
    /// A commit of so many requests took this long.
    pub fn note(&self, took: Duration, requests: usize) {
        self.latency.took(took, 1);
        self.batch.observe(as_u64(requests), 1);
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
    /// PUBLISH packets received, by their QoS.
    pub publish_packets_received: ByQos,
    /// PUBLISH packets sent, by their QoS.
    pub publish_packets_sent: ByQos,
    /// Bytes of the payloads of PUBLISH packets received.
    pub publish_bytes_received: ByQos,
    /// Bytes of the payloads of PUBLISH packets sent.
    pub publish_bytes_sent: ByQos,
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
    /// PUBLISH packets that the plugin gave for clients.
    pub publishes_pulled: Counter,
    /// From receiving a PUBLISH at QoS 1 or 2 to its PUBACK or PUBREC: ordinary topics.
    pub ack_latency: Latency,
    /// The same: topics of the plugin.
    pub ack_latency_plugin: Latency,
    /// Subscriptions to ordinary topics, shared ones included; as the last look found it, like all gauges from here on.
    pub subscriptions: Gauge,
    /// Subscriptions, among those, that groups share.
    pub subscriptions_shared: Gauge,
    /// Retained messages of clients.
    pub retained: Gauge,
    /// Ordinary messages that wait for sessions.
    pub queue_messages: Gauge,
    /// Their bytes.
    pub queue_bytes: Gauge,
    /// Messages in the longest queue.
    pub queue_messages_largest: Gauge,
    /// Queues that have dropped messages since the look before.
    pub queues_dropping: Gauge,
    /// Clients that have taken nothing of what is to be sent to them for longer than `slow_client_s`.
    pub clients_blocked: Gauge,
    /// A queue began to drop messages.
    pub queue_overflows: Counter,
    /// A client took nothing for longer than `slow_client_s`.
    pub client_stalls: Counter,
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

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Of the buckets of all histograms, in their units.
const BOUNDS: [u64; 16] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_every_bound_that_it_does_not_exceed() {
        let latency = Latency::default();
        latency.took(Duration::from_micros(200), 2);
        latency.took(Duration::from_micros(201), 1);
        latency.took(Duration::from_secs(11), 1);
        latency.took(Duration::ZERO, 1);
        let read = latency.read();
        assert_eq!(read.up_to[..4], [(100, 1), (200, 3), (500, 4), (1_000, 4)]);
        assert_eq!(read.up_to[15], (10_000_000, 4));
        assert_eq!((read.count, read.sum), (5, 11_000_601));
    }
}
