//! One subscriber: checks what arrives, number by number, and how long it took.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, Publish};
use tokio::time::sleep_until;

use super::{Schedule, Stream, add_latency};
use crate::bits::Bits;
use crate::client::Client;
use crate::error::BenchError;
use crate::report::Latency;
use crate::stamp::Stamp;

/// What a subscriber has to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) run: u32,
    pub(super) stream_number: u16,
    /// Its publisher waits for deliveries.
    pub(super) wakes_publisher: bool,
    /// QoS 0: do not wait long for what does not come.
    pub(super) may_lose: bool,
    pub(super) stream: Arc<Stream>,
    pub(super) schedule: Schedule,
}

/// What a subscriber has seen, or all of them.
#[derive(Debug, Default)]
pub(super) struct SubscriberSeen {
    /// Different messages.
    pub(super) delivered: u64,
    pub(super) delivered_measured: u64,
    /// Acknowledged to the publisher, and not arrived.
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    /// Came after a message with a higher number.
    pub(super) reordered: u64,
    /// Messages of another run.
    pub(super) foreign: u64,
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
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        add_latency(&mut self.delivery, &other.delivery);
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    client: Client,
    task: Task,
    received: Bits,
    highest: Option<u32>,
    stamp_hint: usize,
    last_arrival: u64,
    seen: SubscriberSeen,
}

impl Subscriber {
    pub(super) fn new(client: Client, task: Task) -> Self {
        Self {
            client,
            task,
            received: Bits::default(),
            highest: None,
            stamp_hint: 0,
            last_arrival: 0,
            seen: SubscriberSeen::default(),
        }
    }

    /// Ends when all that was acknowledged has arrived, or nothing more can be expected. Gives the client back.
    pub(super) async fn run(mut self) -> Result<(SubscriberSeen, Client), BenchError> {
        let schedule = self.task.schedule;
        let mut acked = self.task.stream.acked.subscribe();
        let mut expected: Option<Arc<Bits>> = None;
        let mut check = tokio::time::interval(CHECK);
        let give_up = sleep_until(schedule.deadline(schedule.stop) + 2 * schedule.drain);
        tokio::pin!(give_up);
        loop {
            tokio::select! {
                pumped = self.client.pump() => {
                    pumped?;
                    self.handle_packets()?;
                    self.client.write()?;
                }
                changed = acked.changed(), if expected.is_none() => {
                    if changed.is_err() {
                        break;
                    }
                    expected.clone_from(&acked.borrow_and_update());
                }
                _ = check.tick(), if expected.is_some() => {
                    if expected.as_ref().is_some_and(|expected| self.is_done(expected)) {
                        break;
                    }
                }
                () = &mut give_up => break,
            }
        }
        self.seen.delivered = self.received.len();
        self.seen.lost = expected.map_or(0, |expected| expected.missing_in(&self.received));
        Ok((self.seen, self.client))
    }

    /// Everything is there, and for a while nothing came that would be too much.
    fn is_done(&self, expected: &Bits) -> bool {
        let quiet = self
            .task
            .schedule
            .clock
            .nanos()
            .saturating_sub(self.last_arrival);
        let quiet = Duration::from_nanos(quiet);
        let complete = expected.missing_in(&self.received) == 0;
        quiet >= LINGER && (complete || (self.task.may_lose && quiet >= LOST_AFTER))
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
            if self.task.wakes_publisher {
                self.task
                    .stream
                    .delivered
                    .fetch_add(arrived, Ordering::AcqRel);
                self.task.stream.wake.notify_one();
            }
        }
        Ok(())
    }

    /// True if it is a message of this stream, and new.
    fn note_arrival(&mut self, publish: &Publish, now: u64) -> bool {
        let Some(stamp) = Stamp::find(&publish.payload, &mut self.stamp_hint) else {
            return false; // Entries of a group that are not messages.
        };
        let known = stamp.run == self.task.run
            && stamp.stream == self.task.stream_number
            && stamp.number < self.task.stream.sent.load(Ordering::Acquire);
        if !known {
            self.seen.foreign += 1;
            return false;
        }
        if !self.received.insert(stamp.number) {
            self.seen.duplicates += 1;
            self.last_arrival = now;
            return false;
        }
        if self.highest.is_some_and(|highest| stamp.number < highest) {
            self.seen.reordered += 1;
        }
        self.highest = self.highest.max(Some(stamp.number));
        if self.seen.conversation.is_none() {
            self.seen.conversation = conversation(&publish.topic);
        }
        let schedule = &self.task.schedule;
        if schedule.measures(now) {
            self.seen.delivered_measured += 1;
        }
        if schedule.measures(stamp.sent_at) {
            self.seen.delivery.record(now.saturating_sub(stamp.sent_at));
        }
        true
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
