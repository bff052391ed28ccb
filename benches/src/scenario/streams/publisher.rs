//! One publisher: keeps its window full, or its rate, and measures how long acks take.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos};
use broker::codec::reason::ReasonCode;
use tokio::time::sleep_until;

use super::Stream;
use crate::bits::Bits;
use crate::client::Client;
use crate::error::BenchError;
use crate::report::Latency;
use crate::rpc;
use crate::scenario::pacer::due_at;
use crate::scenario::schedule::Schedule;
use crate::series::Tape;
use crate::stamp::{Stamp, Template};

/// What a publisher has to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) template: Template,
    pub(super) qos: Qos,
    pub(super) run: u32,
    pub(super) stream_number: u16,
    pub(super) stream: Arc<Stream>,
    pub(super) schedule: Schedule,
    /// Unacknowledged publishes, at most Receive Maximum of the broker [MQTT-3.3.4-7].
    pub(super) window: u16,
    pub(super) pace: Pace,
    pub(super) tape: Tape,
}

/// What a publisher waits for before it sends the next message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// A free place in the window of unacknowledged publishes.
    Acks,
    /// QoS 0: a free place in the window of undelivered messages.
    Deliveries {
        /// In deliveries.
        window: u64,
        /// Deliveries of one message.
        each: u64,
    },
    /// Its time, and a free place in the window of unacknowledged publishes.
    Ticks {
        /// Of all publishers.
        rate: u32,
        /// How many publishers take turns.
        streams: u64,
    },
}

/// What a publisher has seen, or all of them.
#[derive(Debug, Default)]
pub(super) struct PublisherSeen {
    pub(super) sent: u64,
    pub(super) sent_measured: u64,
    pub(super) acked: u64,
    pub(super) acked_measured: u64,
    pub(super) refused: u64,
    pub(super) first_refusal: Option<ReasonCode>,
    pub(super) unacked: u64,
    /// Open loop: due and not sent.
    pub(super) unsent: u64,
    /// QoS 0: windows given up.
    pub(super) stalls: u64,
    /// From the sending, in an open loop from its intended time, to PUBACK or PUBCOMP.
    pub(super) ack: Latency,
    /// Open loop: how long those that were not sent had waited when the run stopped.
    pub(super) kept_back: Latency,
    /// Open loop: from the intended to the real time of sending.
    pub(super) lag: Latency,
    /// Of that, without what the window held back.
    pub(super) own_lag: Latency,
}

impl PublisherSeen {
    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_measured += other.sent_measured;
        self.acked += other.acked;
        self.acked_measured += other.acked_measured;
        self.refused += other.refused;
        self.first_refusal = self.first_refusal.or(other.first_refusal);
        self.unacked += other.unacked;
        self.unsent += other.unsent;
        self.stalls += other.stalls;
        self.ack.add(&other.ack);
        self.kept_back.add(&other.kept_back);
        self.lag.add(&other.lag);
        self.own_lag.add(&other.own_lag);
    }
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    number: u32,
    sent_at: u64,
    /// 3.1.1: told on `chat/me/err/…`, before the ack.
    refused: bool,
}

#[derive(Debug)]
pub(super) struct Publisher {
    client: Client,
    task: Task,
    /// The place of a message is its Packet Identifier minus 1.
    in_flight: Vec<Option<InFlight>>,
    free: Vec<u16>,
    /// When the window, or the buffer of the connection, was last full.
    full_until: u64,
    /// What is queued had reached its bound.
    was_full: bool,
    sent: u32,
    acked: Bits,
    /// QoS 0: deliveries that are not waited for any more.
    given_up: u64,
    seen: PublisherSeen,
}

impl Publisher {
    pub(super) fn new(client: Client, task: Task) -> Self {
        Self {
            client,
            in_flight: vec![None; usize::from(task.window)],
            free: (1..=task.window).rev().collect(),
            full_until: 0,
            was_full: false,
            sent: 0,
            acked: Bits::default(),
            given_up: 0,
            seen: PublisherSeen::default(),
            task,
        }
    }

    pub(super) async fn run(mut self) -> Result<PublisherSeen, BenchError> {
        let schedule = self.task.schedule;
        sleep_until(schedule.deadline(schedule.start)).await;
        let first_check = schedule.deadline(schedule.start) + STALL;
        let mut stall_check = tokio::time::interval_at(first_check, STALL);
        let stop = sleep_until(schedule.deadline(schedule.stop));
        let give_up = sleep_until(schedule.deadline(schedule.stop) + schedule.drain);
        tokio::pin!(stop, give_up);
        let (mut stopping, mut delivered_before) = (false, 0);
        loop {
            if !stopping {
                self.fill();
            }
            self.client.write()?;
            let nothing_in_flight = self.free.len() == self.in_flight.len();
            if stopping && nothing_in_flight && self.client.queued() == 0 {
                break;
            }
            tokio::select! {
                pumped = self.client.pump() => {
                    pumped?;
                    self.handle_packets()?;
                }
                () = self.task.stream.wake.notified(), if !stopping => {}
                () = &mut stop, if !stopping => stopping = true,
                () = &mut give_up, if stopping => break,
                _ = stall_check.tick(), if !stopping => {
                    delivered_before = self.check_stall(delivered_before);
                }
            }
        }
        Ok(self.finish().await)
    }

    /// Queues what may be sent now.
    fn fill(&mut self) {
        let schedule = self.task.schedule;
        let now = schedule.clock.nanos();
        if std::mem::replace(&mut self.was_full, self.client.queued() >= QUEUED_MAX) {
            self.full_until = now;
        }
        while now < schedule.stop && self.may_send() {
            self.send(self.due(self.sent).unwrap_or(now), now);
        }
        self.was_full |= self.client.queued() >= QUEUED_MAX;
    }

    /// Open loop: when this message is to be sent.
    fn due(&self, number: u32) -> Option<u64> {
        let Pace::Ticks { rate, streams } = self.task.pace else {
            return None;
        };
        let number = u64::from(number) * streams + u64::from(self.task.stream_number);
        Some(due_at(&self.task.schedule, rate, number))
    }

    fn may_send(&self) -> bool {
        let in_time = match self.task.pace {
            Pace::Acks => true,
            Pace::Ticks { .. } => self.sent < self.task.stream.ticks.load(Ordering::Acquire),
            Pace::Deliveries { window, each } => {
                let settled = self.task.stream.delivered.load(Ordering::Acquire) + self.given_up;
                u64::from(self.sent) * each < settled + window
            }
        };
        let has_place = self.task.qos == Qos::AtMostOnce || !self.free.is_empty();
        in_time && has_place && self.client.queued() < QUEUED_MAX && self.sent < u32::MAX
    }

    fn send(&mut self, sent_at: u64, now: u64) {
        let number = self.sent;
        self.sent += 1;
        let mut packet_id = 0;
        if self.task.qos == Qos::AtMostOnce {
            self.acked.insert(number);
        } else if let Some(free) = self.free.pop() {
            packet_id = free;
            if let Some(place) = self.in_flight.get_mut(usize::from(free) - 1) {
                let refused = false;
                *place = Some(InFlight {
                    number,
                    sent_at,
                    refused,
                });
            }
        }
        self.task.stream.sent.store(self.sent, Ordering::Release);
        let stamp = Stamp {
            run: self.task.run,
            stream: self.task.stream_number,
            number,
            sent_at,
        };
        self.task
            .template
            .write(packet_id, stamp, self.client.output());
        if self.task.schedule.measures(now) {
            self.seen.sent_measured += 1;
        }
        if matches!(self.task.pace, Pace::Ticks { .. }) && self.task.schedule.measures(sent_at) {
            self.seen.lag.record(now.saturating_sub(sent_at));
            let could = sent_at.max(self.full_until);
            self.seen.own_lag.record(now.saturating_sub(could));
        }
    }

    fn handle_packets(&mut self) -> Result<(), BenchError> {
        let now = self.task.schedule.clock.nanos();
        while let Some(packet) = self.client.next_packet()? {
            match &packet {
                Packet::PubAck(ack) if self.task.qos == Qos::AtLeastOnce => {
                    self.settle(ack, now, &packet)?;
                }
                Packet::PubRec(ack) if ack.reason.is_error() => self.settle(ack, now, &packet)?,
                Packet::PubRec(ack) => {
                    let release = Ack::success(ack.packet_id);
                    self.client.push(&Packet::PubRel(release));
                }
                Packet::PubComp(ack) => self.settle(ack, now, &packet)?,
                Packet::Publish(publish) => {
                    self.note_refusal(publish);
                    self.client.acknowledge(publish);
                }
                Packet::PubRel(ack) => {
                    let complete = Ack::success(ack.packet_id);
                    self.client.push(&Packet::PubComp(complete));
                }
                other => return Err(self.client.unexpected(other)),
            }
        }
        Ok(())
    }

    fn settle(&mut self, ack: &Ack, now: u64, packet: &Packet) -> Result<(), BenchError> {
        let Some(in_flight) = self.place(ack.packet_id).and_then(Option::take) else {
            return Err(self.client.unexpected(packet));
        };
        if self.free.is_empty() {
            self.full_until = now;
        }
        self.free.push(ack.packet_id.get());
        if ack.reason.is_error() || in_flight.refused {
            self.seen.refused += 1;
            self.seen.first_refusal.get_or_insert(ack.reason);
            return Ok(());
        }
        self.acked.insert(in_flight.number);
        if self.task.schedule.measures(now) {
            self.seen.acked_measured += 1;
        }
        let took = now.saturating_sub(in_flight.sent_at);
        self.task.tape.note(now, took);
        if self.task.schedule.measures(in_flight.sent_at) {
            self.seen.ack.record(took);
        }
        Ok(())
    }

    /// 3.1.1 tells which publish was refused before its ack.
    fn note_refusal(&mut self, publish: &Publish) {
        if let Some(packet_id) = rpc::refused_id(&publish.topic)
            && let Some(Some(in_flight)) = self.place(packet_id)
        {
            in_flight.refused = true;
        }
    }

    fn place(&mut self, packet_id: PacketId) -> Option<&mut Option<InFlight>> {
        self.in_flight.get_mut(usize::from(packet_id.get()) - 1)
    }

    /// QoS 0 may lose messages: a window that nothing comes of is given up, so that the run goes on.
    fn check_stall(&mut self, delivered_before: u64) -> u64 {
        let delivered = self.task.stream.delivered.load(Ordering::Acquire);
        if let Pace::Deliveries { each, .. } = self.task.pace
            && delivered == delivered_before
            && !self.may_send()
        {
            self.given_up = (u64::from(self.sent) * each).saturating_sub(delivered);
            self.seen.stalls += 1;
        }
        delivered
    }

    async fn finish(mut self) -> PublisherSeen {
        let ticks = self.task.stream.ticks.load(Ordering::Acquire);
        self.seen.sent = u64::from(self.sent);
        self.seen.unsent = u64::from(ticks.saturating_sub(self.sent));
        let schedule = self.task.schedule;
        for number in self.sent..ticks {
            if let Some(due) = self.due(number)
                && schedule.measures(due)
            {
                self.seen.kept_back.record(schedule.stop - due);
            }
        }
        self.seen.unacked = (self.in_flight.len() - self.free.len()) as u64;
        if self.task.qos > Qos::AtMostOnce {
            self.seen.acked = self.acked.len();
        }
        // Only this publisher sets it.
        drop(self.task.stream.acked.set(std::mem::take(&mut self.acked)));
        if let Err(error) = self.client.disconnect().await {
            eprintln!("mqchat-bench: {error}");
        }
        self.seen
    }
}

/// Enough for one write; what is due beyond it waits.
const QUEUED_MAX: usize = 256 * 1024;
/// How long QoS 0 deliveries may pause before the messages count as lost.
const STALL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use broker::codec::packet::Version;
    use broker::codec::properties::PublishProperties;

    use super::*;
    use crate::clock::Clock;
    use crate::series::{Noted, Series};

    /// Three messages are due, and its window takes two.
    async fn publisher(version: Version) -> Publisher {
        let (client, _broker) = Client::of_test(version).await;
        let clock = Clock::start();
        let schedule = Schedule {
            start: clock.nanos(),
            measure_from: 0,
            ..Schedule::new(clock, 0, 100, 1)
        };
        let series = Series::new(schedule.measure_from, schedule.stop);
        let stream = Arc::new(Stream::default());
        (0..3).for_each(|_| stream.tick());
        let task = Task {
            template: Template::new("bench", Qos::AtLeastOnce, 60, version),
            qos: Qos::AtLeastOnce,
            run: 7,
            stream_number: 0,
            stream,
            schedule,
            window: 2,
            pace: Pace::Ticks {
                rate: 1_000_000,
                streams: 1,
            },
            tape: Tape::new(&series, Noted::Ack),
        };
        Publisher::new(client, task)
    }

    fn ack(packet_id: u16, reason: ReasonCode) -> Packet {
        let mut ack = Ack::success(PacketId::new(packet_id).unwrap());
        ack.reason = reason;
        Packet::PubAck(ack)
    }

    #[tokio::test]
    async fn what_has_no_ack_and_what_was_not_sent_is_counted() {
        let mut publisher = publisher(Version::V5).await;
        let stream = Arc::clone(&publisher.task.stream);
        publisher.fill();
        publisher.client.hear(&ack(1, ReasonCode::Success));
        publisher.handle_packets().unwrap();
        let seen = publisher.finish().await;
        assert_eq!((seen.sent, seen.acked, seen.unacked), (2, 1, 1));
        assert_eq!((seen.unsent, seen.kept_back.count()), (1, 1));
        assert_eq!((seen.lag.count(), seen.own_lag.count()), (2, 2));
        assert_eq!(stream.acked.get().map(Bits::len), Some(1));
    }

    #[tokio::test]
    async fn what_is_refused_is_not_acknowledged() {
        let mut publisher = publisher(Version::V5).await;
        publisher.fill();
        publisher.client.hear(&ack(1, ReasonCode::QuotaExceeded));
        publisher.handle_packets().unwrap();
        let seen = publisher.finish().await;
        assert_eq!((seen.acked, seen.refused, seen.unacked), (0, 1, 1));
        assert_eq!(seen.first_refusal, Some(ReasonCode::QuotaExceeded));
    }

    #[tokio::test]
    async fn what_3_1_1_refuses_is_not_acknowledged() {
        let mut publisher = publisher(Version::V311).await;
        publisher.fill();
        let refusal = Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "chat/me/err/@2".into(),
            packet_id: None,
            payload: bytes::Bytes::new(),
            properties: PublishProperties::default().into(),
        });
        publisher.client.hear(&refusal);
        publisher.client.hear(&ack(2, ReasonCode::Success));
        publisher.handle_packets().unwrap();
        let seen = publisher.finish().await;
        assert_eq!((seen.acked, seen.refused), (0, 1));
    }

    #[tokio::test]
    async fn a_broker_that_does_not_read_is_not_the_lag_of_the_generator() {
        let mut publisher = publisher(Version::V5).await;
        publisher.client.output().resize(QUEUED_MAX, 0);
        publisher.fill();
        assert_eq!(publisher.sent, 0);
        publisher.client.output().clear();
        publisher.fill();
        let seen = publisher.finish().await;
        assert_eq!(seen.lag.count(), 2);
        assert!(seen.lag.micros_at(1.0) > seen.own_lag.micros_at(1.0));
    }

    #[tokio::test]
    async fn an_ack_of_nothing_is_an_error() {
        let mut publisher = publisher(Version::V5).await;
        publisher.fill();
        publisher.client.hear(&ack(7, ReasonCode::Success));
        assert!(publisher.handle_packets().is_err());
    }
}
