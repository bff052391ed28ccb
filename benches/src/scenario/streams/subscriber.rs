//! One subscriber: checks what arrives, number by number, and how long it took.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, Publish};

use super::Stream;
use crate::client::Client;
use crate::error::BenchError;
use crate::heard::{Arrival, Heard};
use crate::progress::Progress;
use crate::report::Latency;
use crate::scenario::schedule::{Patience, Schedule};
use crate::series::Tape;
use crate::stamp::Stamp;

/// What a subscriber has to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) run: u32,
    /// The number of the first stream that comes to it.
    pub(super) first_stream: u16,
    pub(super) streams: Vec<Arc<Stream>>,
    /// The publishers wait for deliveries.
    pub(super) wakes_publishers: bool,
    /// QoS 0: do not wait long for what does not come.
    pub(super) may_lose: bool,
    pub(super) schedule: Schedule,
    pub(super) tape: Tape,
    pub(super) progress: Progress,
}

/// One stream, as it came.
#[derive(Debug)]
struct Listened {
    stream: Arc<Stream>,
    heard: Heard,
    /// Since the publisher was told.
    arrived: u64,
}

/// What a subscriber has seen, or all of them.
#[derive(Debug, Default)]
pub(super) struct SubscriberSeen {
    /// Different messages.
    pub(super) delivered: u64,
    pub(super) delivered_measured: u64,
    /// Acknowledged to the publisher, and not arrived, when nothing came any more.
    pub(super) lost: u64,
    /// The same, when others still came.
    pub(super) late: u64,
    /// Streams of which nobody told what was acknowledged.
    pub(super) unjudged: u64,
    pub(super) duplicates: u64,
    /// Came after a message with a higher number.
    pub(super) reordered: u64,
    /// Messages of another run.
    pub(super) foreign: u64,
    /// Messages of this run that were for others, or that nobody has sent.
    pub(super) misdelivered: u64,
    /// From the sending, in an open loop from its intended time, to the arrival.
    pub(super) delivery: Latency,
    /// In chat: where the messages came from.
    pub(super) conversation: Option<String>,
}

impl SubscriberSeen {
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.delivered_measured += other.delivered_measured;
        self.lost += other.lost;
        self.late += other.late;
        self.unjudged += other.unjudged;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.misdelivered += other.misdelivered;
        self.delivery.add(&other.delivery);
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    client: Client,
    task: Task,
    listened: Vec<Listened>,
    stamp_hint: usize,
    last_arrival: u64,
    seen: SubscriberSeen,
}

impl Subscriber {
    pub(super) fn new(client: Client, task: Task) -> Self {
        let listened = task.streams.iter().map(|stream| Listened {
            stream: Arc::clone(stream),
            heard: Heard::default(),
            arrived: 0,
        });
        Self {
            client,
            listened: listened.collect(),
            task,
            stamp_hint: 0,
            last_arrival: 0,
            seen: SubscriberSeen::default(),
        }
    }

    /// Ends when all that was acknowledged has arrived, or nothing more can be expected. Gives the client back.
    pub(super) async fn run(mut self) -> Result<(SubscriberSeen, Client), BenchError> {
        let schedule = self.task.schedule;
        let stop = schedule.deadline(schedule.stop);
        let mut check = tokio::time::interval_at(stop, CHECK);
        let patience = loop {
            tokio::select! {
                pumped = self.client.pump() => {
                    pumped?;
                    self.handle_packets()?;
                    self.client.write()?;
                }
                _ = check.tick() => {
                    let now = schedule.clock.nanos();
                    let patience = schedule.patience(now, self.last_arrival);
                    if self.is_done(now) || patience != Patience::Wait {
                        break patience;
                    }
                }
            }
        };
        self.judge(patience);
        Ok((self.seen, self.client))
    }

    /// Nothing more is waited for.
    fn judge(&mut self, patience: Patience) {
        for listened in &self.listened {
            self.seen.delivered += listened.heard.count();
            match (listened.missing(), patience) {
                (Some(missing), Patience::Late) => self.seen.late += missing,
                (Some(missing), _) => self.seen.lost += missing,
                (None, _) => self.seen.unjudged += 1,
            }
        }
    }

    /// Everything is there, and for a while nothing came that would be too much.
    fn is_done(&self, now: u64) -> bool {
        let quiet = Duration::from_nanos(now.saturating_sub(self.last_arrival));
        let mut missing = self.listened.iter().map(Listened::missing);
        if quiet < LINGER {
            false
        } else if self.task.may_lose && quiet >= LOST_AFTER {
            missing.all(|missing| missing.is_some())
        } else {
            missing.all(|missing| missing == Some(0))
        }
    }

    fn handle_packets(&mut self) -> Result<(), BenchError> {
        let now = self.task.schedule.clock.nanos();
        let mut arrived = 0;
        while let Some(packet) = self.client.next_packet()? {
            match &packet {
                Packet::Publish(publish) => {
                    arrived += u64::from(self.note_arrival(publish, now));
                    self.client.acknowledge(publish);
                }
                Packet::PubRel(ack) => {
                    let complete = Ack::success(ack.packet_id);
                    self.client.push(&Packet::PubComp(complete));
                }
                other => return Err(self.client.unexpected(other)),
            }
        }
        if arrived > 0 {
            self.last_arrival = now;
            self.task.progress.advance(arrived);
            if self.task.wakes_publishers {
                self.listened.iter_mut().for_each(Listened::tell);
            }
        }
        Ok(())
    }

    /// True if it is a message of these streams, and new.
    fn note_arrival(&mut self, publish: &Publish, now: u64) -> bool {
        let Some(stamp) = Stamp::find(&publish.payload, &mut self.stamp_hint) else {
            return false; // Entries of a group that are not messages.
        };
        if stamp.run != self.task.run {
            self.seen.foreign += 1;
            return false;
        }
        let index = stamp.stream.checked_sub(self.task.first_stream);
        let listened = index.and_then(|index| self.listened.get_mut(usize::from(index)));
        let is_sent = |it: &Listened| stamp.number < it.stream.sent.load(Ordering::Acquire);
        let Some(listened) = listened.filter(|it| is_sent(it)) else {
            self.seen.misdelivered += 1;
            return false;
        };
        match listened.heard.note(stamp.number) {
            Arrival::New => {}
            Arrival::Reordered => self.seen.reordered += 1,
            Arrival::Repeated => {
                self.seen.duplicates += 1;
                self.last_arrival = now;
                return false;
            }
        }
        listened.arrived += 1;
        if self.seen.conversation.is_none() {
            self.seen.conversation = conversation(&publish.topic);
        }
        let took = now.saturating_sub(stamp.sent_at);
        self.task.tape.note(now, took);
        let schedule = &self.task.schedule;
        if schedule.measures(now) {
            self.seen.delivered_measured += 1;
        }
        if schedule.measures(stamp.sent_at) {
            self.seen.delivery.record(took);
        }
        true
    }
}

impl Listened {
    /// How many of those that were acknowledged have not come; nothing while the publisher is at work.
    fn missing(&self) -> Option<u64> {
        let acked = self.stream.acked.get()?;
        Some(self.heard.missing(acked))
    }

    /// QoS 0: its publisher may send as many more.
    fn tell(&mut self) {
        let arrived = std::mem::take(&mut self.arrived);
        if arrived > 0 {
            self.stream.delivered.fetch_add(arrived, Ordering::AcqRel);
            self.stream.wake.notify_one();
        }
    }
}

/// The `cid` of `chat/me/{form}/{cid}`.
fn conversation(topic: &str) -> Option<String> {
    let (_, cid) = topic.strip_prefix("chat/me/")?.split_once('/')?;
    Some(cid.to_owned())
}

const CHECK: Duration = Duration::from_millis(50);
/// How long a subscriber listens for surplus after the last arrival.
const LINGER: Duration = Duration::from_millis(250);
/// After how much quiet a message at QoS 0 counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use broker::codec::packet::{Qos, Version};
    use broker::codec::properties::PublishProperties;

    use super::*;
    use crate::bits::Bits;
    use crate::clock::Clock;
    use crate::series::{Noted, Series};

    const RUN: u32 = 7;

    /// Listens to the streams 3 and 4, of each of which ten messages were sent.
    async fn subscriber() -> Subscriber {
        let (client, _broker) = Client::of_test(Version::V5).await;
        let schedule = Schedule::new(Clock::start(), 0, 1, 1);
        let stream = || {
            let stream = Stream::default();
            stream.sent.store(10, Ordering::Release);
            Arc::new(stream)
        };
        let series = Series::new(schedule.measure_from, schedule.stop);
        Subscriber::new(
            client,
            Task {
                run: RUN,
                first_stream: 3,
                streams: vec![stream(), stream()],
                wakes_publishers: false,
                may_lose: false,
                schedule,
                tape: Tape::new(&series, Noted::Delivery),
                progress: Progress::start(true).0,
            },
        )
    }

    fn message(run: u32, stream: u16, number: u32) -> Packet {
        let stamp = Stamp {
            run,
            stream,
            number,
            sent_at: 0,
        };
        Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "bench".into(),
            packet_id: None,
            payload: stamp.payload(60),
            properties: PublishProperties::default().into(),
        })
    }

    fn acknowledge(listened: &Listened, numbers: impl IntoIterator<Item = u32>) {
        let mut acked = Bits::default();
        for number in numbers {
            acked.insert(number);
        }
        listened.stream.acked.set(acked).unwrap();
    }

    #[tokio::test]
    async fn what_is_lost_repeated_or_out_of_order_is_counted() {
        let mut subscriber = subscriber().await;
        for number in [0, 2, 1, 1, 5] {
            subscriber.client.hear(&message(RUN, 3, number));
        }
        subscriber.handle_packets().unwrap();
        // 3 and 4 were acknowledged and did not come, 6 was not acknowledged.
        acknowledge(&subscriber.listened[0], 0..6);
        acknowledge(&subscriber.listened[1], []);
        assert!(!subscriber.is_done(u64::MAX));
        subscriber.judge(Patience::Lost);
        let seen = &subscriber.seen;
        assert_eq!((seen.lost, seen.late, seen.unjudged), (2, 0, 0));
        assert_eq!((seen.duplicates, seen.reordered), (1, 1));
        assert_eq!((seen.delivered, seen.misdelivered, seen.foreign), (4, 0, 0));
    }

    #[tokio::test]
    async fn a_message_that_was_for_others_is_no_message_of_another_run() {
        let mut subscriber = subscriber().await;
        // To others (before and behind the own streams), and never sent.
        for (stream, number) in [(2, 0), (5, 0), (3, 10)] {
            subscriber.client.hear(&message(RUN, stream, number));
        }
        subscriber.client.hear(&message(RUN + 1, 3, 0));
        subscriber.handle_packets().unwrap();
        let seen = &subscriber.seen;
        assert_eq!((seen.misdelivered, seen.foreign), (3, 1));
    }

    #[tokio::test]
    async fn what_nobody_told_of_is_not_taken_for_complete() {
        let mut subscriber = subscriber().await;
        acknowledge(&subscriber.listened[0], 0..3);
        subscriber.judge(Patience::Late);
        let seen = &subscriber.seen;
        assert_eq!((seen.lost, seen.late, seen.unjudged), (0, 3, 1));
    }
}
