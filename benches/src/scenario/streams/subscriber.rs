//! One subscriber: checks what arrives, number by number, and how long it took.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, Publish};
use tokio::time::sleep_until;

use super::Stream;
use crate::bits::Bits;
use crate::client::Client;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::Latency;
use crate::scenario::schedule::Schedule;
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
struct Heard {
    stream: Arc<Stream>,
    received: Bits,
    highest: Option<u32>,
    /// Since the publisher was told.
    arrived: u64,
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
        self.delivery.add(&other.delivery);
    }
}

#[derive(Debug)]
pub(super) struct Subscriber {
    client: Client,
    task: Task,
    heard: Vec<Heard>,
    stamp_hint: usize,
    last_arrival: u64,
    seen: SubscriberSeen,
}

impl Subscriber {
    pub(super) fn new(client: Client, task: Task) -> Self {
        let heard = task.streams.iter().map(|stream| Heard {
            stream: Arc::clone(stream),
            received: Bits::default(),
            highest: None,
            arrived: 0,
        });
        Self {
            client,
            heard: heard.collect(),
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
        let give_up = sleep_until(stop + 2 * schedule.drain);
        tokio::pin!(give_up);
        loop {
            tokio::select! {
                pumped = self.client.pump() => {
                    pumped?;
                    self.handle_packets()?;
                    self.client.write()?;
                }
                _ = check.tick() => {
                    if self.is_done() {
                        break;
                    }
                }
                () = &mut give_up => break,
            }
        }
        self.seen.delivered = self.heard.iter().map(|heard| heard.received.len()).sum();
        self.seen.lost = self.heard.iter().map(|it| it.missing().unwrap_or(0)).sum();
        Ok((self.seen, self.client))
    }

    /// Everything is there, and for a while nothing came that would be too much.
    fn is_done(&self) -> bool {
        let now = self.task.schedule.clock.nanos();
        let quiet = Duration::from_nanos(now.saturating_sub(self.last_arrival));
        let mut missing = self.heard.iter().map(Heard::missing);
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
                self.heard.iter_mut().for_each(Heard::tell);
            }
        }
        Ok(())
    }

    /// True if it is a message of these streams, and new.
    fn note_arrival(&mut self, publish: &Publish, now: u64) -> bool {
        let Some(stamp) = Stamp::find(&publish.payload, &mut self.stamp_hint) else {
            return false; // Entries of a group that are not messages.
        };
        let index = stamp.stream.checked_sub(self.task.first_stream);
        let heard = index.and_then(|index| self.heard.get_mut(usize::from(index)));
        let Some(heard) = heard.filter(|heard| {
            stamp.run == self.task.run && stamp.number < heard.stream.sent.load(Ordering::Acquire)
        }) else {
            self.seen.foreign += 1;
            return false;
        };
        if !heard.received.insert(stamp.number) {
            self.seen.duplicates += 1;
            self.last_arrival = now;
            return false;
        }
        if heard.highest.is_some_and(|highest| stamp.number < highest) {
            self.seen.reordered += 1;
        }
        heard.highest = heard.highest.max(Some(stamp.number));
        heard.arrived += 1;
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

impl Heard {
    /// How many of those that were acknowledged have not come; nothing while the publisher is at work.
    fn missing(&self) -> Option<u64> {
        let acked = self.stream.acked.get()?;
        Some(acked.missing_in(&self.received))
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
