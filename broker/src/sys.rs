//! `$SYS/broker/…`: what the broker tells about itself, as retained messages.
//!
//! The names are those of Mosquitto where it has them. A value is published when it has changed; who subscribes gets all
//! of them at once. They live beside the retained messages of clients: no limit touches them, and nothing keeps them over
//! a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::codec::packet::{Publish, Qos};
use crate::codec::properties::PublishProperties;
use crate::router::Publisher;
use crate::server::Server;

/// The first level of these topics: only the server publishes there.
pub(crate) const ROOT: &str = "$SYS";

/// Publishes, and knows what it has published.
pub(crate) struct Statistics {
    server: Arc<Server>,
    publisher: Publisher,
    started: Instant,
    last: Instant,
    loads: [Load; LOADS],
    published: Vec<String>,
}

/// A counter, and how much it grew per minute over the last 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    total: u64,
    per_minute: [f64; PERIODS.len()],
}

/// Counters with their names, in the order of the loads.
type Totals = [(&'static str, u64); LOADS];

impl Statistics {
    /// Publishes for the first time.
    pub(crate) fn begin(server: Arc<Server>) -> Self {
        let now = clock::now();
        let mut statistics = Self {
            server,
            publisher: Publisher::default(),
            started: now,
            last: now,
            loads: [Load::default(); LOADS],
            published: Vec::new(),
        };
        statistics.publish(now);
        statistics
    }

    /// Publishes at this interval until the broker stops.
    pub(crate) async fn run(mut self, interval: Duration) {
        loop {
            tokio::select! {
                () = self.server.stop.cancelled() => return,
                () = clock::sleep_until(self.last.checked_add(interval)) => {}
            }
            let now = clock::now();
            let totals = self.totals();
            let elapsed = now.saturating_duration_since(self.last);
            for (load, (_, total)) in self.loads.iter_mut().zip(totals) {
                load.update(total, elapsed);
            }
            self.last = now;
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Instant) {
        for (place, (name, value)) in self.values(now).into_iter().enumerate() {
            match self.published.get_mut(place) {
                Some(known) if *known == value => continue,
                Some(known) => known.clone_from(&value),
                None => self.published.push(value.clone()),
            }
            let publish = Publish {
                dup: false,
                // A client that is away is not to find hours of old values.
                qos: Qos::AtMostOnce,
                retain: true,
                topic: format!("{ROOT}/broker/{name}").into(),
                packet_id: None,
                payload: value.into(),
                properties: PublishProperties::default().into(),
            };
            self.server
                .route(Arc::new(publish), &mut self.publisher, now);
        }
    }

    /// All values with their names, always the same names in the same order.
    fn values(&self, now: Instant) -> Vec<(String, String)> {
        let metrics = &self.server.metrics;
        let counts = self.server.router.counts();
        let uptime = now.saturating_duration_since(self.started).as_secs();
        let connected = metrics.clients_connected.value();
        let away = metrics.sessions_kept.value();
        let dropped = [
            &metrics.messages_dropped_queue_full,
            &metrics.messages_dropped_too_large,
            &metrics.messages_dropped_expired,
            &metrics.messages_dropped_not_allowed,
        ];
        let dropped: u64 = dropped.iter().map(|counter| counter.value()).sum();
        let mut values = vec![
            ("version".to_owned(), VERSION.to_owned()),
            ("uptime".to_owned(), format!("{uptime} seconds")),
        ];
        let mut number = |name: &str, value: u64| values.push((name.to_owned(), value.to_string()));
        number("clients/connected", connected);
        number("clients/disconnected", away);
        number("clients/total", connected + away);
        number("clients/expired", metrics.sessions_expired.value());
        number("subscriptions/count", counts.subscriptions as u64);
        number("shared_subscriptions/count", counts.shared as u64);
        number("retained messages/count", counts.retained as u64);
        number("publish/messages/dropped", dropped);
        number("queues/messages/count", metrics.queue_messages.value());
        number(
            "queues/messages/largest",
            metrics.queue_messages_largest.value(),
        );
        number("queues/bytes/count", metrics.queue_bytes.value());
        for (name, total) in self.totals() {
            number(name, total);
        }
        for ((name, _), load) in self.totals().iter().zip(&self.loads) {
            for (per_minute, minutes) in load.per_minute.iter().zip(PERIODS) {
                let name = format!("load/{name}/{minutes}min");
                values.push((name, format!("{per_minute:.2}")));
            }
        }
        values
    }

    fn totals(&self) -> Totals {
        let metrics = &self.server.metrics;
        let publishes = metrics.publishes_received.value() + metrics.publishes_handed_over.value();
        [
            ("messages/received", metrics.packets_received.value()),
            ("messages/sent", metrics.packets_sent.value()),
            ("bytes/received", metrics.bytes_received.value()),
            ("bytes/sent", metrics.bytes_sent.value()),
            ("publish/messages/received", publishes),
            (
                "publish/messages/sent",
                metrics.publish_packets_sent.total(),
            ),
            (
                "publish/bytes/received",
                metrics.publish_bytes_received.total(),
            ),
            ("publish/bytes/sent", metrics.publish_bytes_sent.total()),
        ]
    }
}

impl Load {
    /// A moving average in which what happened within the period weighs two thirds.
    fn update(&mut self, total: u64, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
        let rate = total.saturating_sub(self.total) as f64 / minutes;
        self.total = total;
        for (average, period) in self.per_minute.iter_mut().zip(PERIODS) {
            let kept = (-minutes / f64::from(period)).exp();
            *average = rate + kept * (*average - rate);
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Counters that have loads.
const LOADS: usize = 8;
/// Minutes that the loads look back.
const PERIODS: [u32; 3] = [1, 5, 15];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_comes_near_the_rate_and_forgets_it_in_its_period() {
        let mut load = Load::default();
        let second = Duration::from_secs(1);
        for total in 1..=60 {
            load.update(total * 10, second);
        }
        let [short, long, _] = load.per_minute;
        assert!((370.0..390.0).contains(&short), "{short}");
        assert!((105.0..115.0).contains(&long), "{long}");
        for _ in 0..600 {
            load.update(600, second);
        }
        assert!(load.per_minute[0] < 0.1);
        load.update(0, Duration::ZERO);
        assert!(load.per_minute[0].is_finite());
    }
}
