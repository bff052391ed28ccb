//! Somebody with one device: writes, reads, and ticks off what comes to him.

mod reading;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::codec::packet::{Ack, Packet, PacketId, Publish, Qos};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::Conversation;
use super::args::ReadKind;
use super::plan::{Op, What};
use super::prepare::Ready;
use crate::bits::Bits;
use crate::client::Client;
use crate::error::BenchError;
use crate::heard::{Arrival, Heard};
use crate::progress::Progress;
use crate::rpc;
use crate::scenario::schedule::{Patience, Schedule};
use crate::series::Tape;
use crate::stamp::{Stamp, Template};
use reading::Reading;
pub(super) use seen::Seen;

/// Who it is, and what all share.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) number: usize,
    pub(super) run: u32,
    /// Entries in a page of history.
    pub(super) page: u16,
    pub(super) conversations: Arc<[Conversation]>,
    pub(super) schedule: Schedule,
    /// Acks and deliveries.
    pub(super) tapes: [Tape; 2],
    pub(super) progress: Progress,
}

/// What a packet identifier stands for.
#[derive(Clone, Copy, Debug)]
enum Open {
    Message {
        conversation: usize,
        /// Of this sender in this conversation.
        number: u32,
        due: u64,
    },
    /// The read that goes on.
    Reading,
    /// A call whose reply has come before its ack, or will come after it.
    Call,
}

/// A request that is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Place {
    what: Open,
    /// 3.1.1: told on `chat/me/err/…`, before the ack.
    refused: bool,
}

#[derive(Debug)]
pub(super) struct Person {
    client: Client,
    task: Task,
    ops: mpsc::Receiver<Op>,
    ver: u64,
    /// The place of a request is its Packet Identifier minus 1.
    open: Vec<Option<Place>>,
    free: Vec<PacketId>,
    writes: VecDeque<Op>,
    reads: VecDeque<Op>,
    reading: Option<Reading>,
    calls: u64,
    /// Nothing more comes from the plan.
    is_over: bool,
    /// Everybody knows what was acknowledged.
    is_settled: bool,
    /// By conversation: what was acknowledged to this person.
    acked: BTreeMap<usize, Bits>,
    /// By conversation, and in it by the place of the sender.
    heard: BTreeMap<usize, Vec<Heard>>,
    stamp_hint: usize,
    last_arrival: u64,
    seen: Seen,
}

impl Person {
    pub(super) fn new(ready: Ready, task: Task, ops: mpsc::Receiver<Op>) -> Self {
        let all = task.conversations.iter().enumerate();
        let mine = all.filter(|(_, conversation)| conversation.place(task.number).is_some());
        let heard = mine.map(|(number, conversation)| {
            let heard = conversation.members.iter().map(|_| Heard::default());
            (number, heard.collect())
        });
        Self {
            client: ready.client,
            ops,
            ver: ready.ver,
            open: vec![None; usize::from(ready.window)],
            free: (1..=ready.window).rev().filter_map(PacketId::new).collect(),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            reading: None,
            calls: 0,
            is_over: false,
            is_settled: false,
            acked: BTreeMap::new(),
            heard: heard.collect(),
            stamp_hint: 0,
            last_arrival: 0,
            seen: Seen::default(),
            task,
        }
    }

    /// Ends when everything that was acknowledged has come, or nothing more can be expected. Gives the client back.
    pub(super) async fn run(mut self) -> Result<(Seen, Client), BenchError> {
        let schedule = self.task.schedule;
        let stop = schedule.deadline(schedule.stop);
        let mut check = tokio::time::interval_at(stop, CHECK);
        let settle_by = sleep_until(stop + schedule.drain);
        tokio::pin!(settle_by);
        let patience = loop {
            self.begin()?;
            self.client.write()?;
            tokio::select! {
                op = self.ops.recv(), if !self.is_over => match op {
                    Some(op) => self.take(op),
                    None => self.stop(),
                },
                pumped = self.client.pump() => {
                    pumped?;
                    self.handle_packets()?;
                }
                _ = check.tick() => {
                    if self.is_over && !self.is_settled && self.is_idle() {
                        self.settle();
                    }
                    let now = schedule.clock.nanos();
                    let patience = schedule.patience(now, self.last_arrival);
                    if self.is_done(now) || self.is_settled && patience != Patience::Wait {
                        break patience;
                    }
                }
                () = &mut settle_by, if !self.is_settled => self.settle(),
            }
        };
        self.judge(patience);
        Ok((self.seen, self.client))
    }

    /// Nothing more is waited for.
    fn judge(&mut self, patience: Patience) {
        for (number, heard) in &self.heard {
            let Some(conversation) = self.task.conversations.get(*number) else {
                continue;
            };
            for (heard, acked) in heard.iter().zip(&conversation.acked) {
                self.seen.delivered += heard.count();
                match (acked.get().map(|acked| heard.missing(acked)), patience) {
                    (Some(missing), Patience::Late) => self.seen.late += missing,
                    (Some(missing), _) => self.seen.lost += missing,
                    (None, _) => self.seen.unjudged += 1,
                }
            }
        }
    }

    /// Something is due.
    fn take(&mut self, op: Op) {
        let now = self.task.schedule.clock.nanos();
        if self.task.schedule.measures(op.due) {
            self.seen.own_lag.record(now.saturating_sub(op.due));
        }
        let queue = match op.what {
            What::Write(_) => &mut self.writes,
            What::Read(_) => &mut self.reads,
        };
        if queue.len() < WAITING_MAX {
            queue.push_back(op);
        } else {
            self.seen.unsent += 1;
        }
    }

    /// The time is over: what was not begun counts as long as it has waited.
    fn stop(&mut self) {
        self.is_over = true;
        let schedule = self.task.schedule;
        for op in self.writes.drain(..).chain(self.reads.drain(..)) {
            self.seen.unsent += 1;
            if schedule.measures(op.due) {
                self.seen.kept_back(op.what, schedule.stop - op.due);
            }
        }
    }

    /// Begins what can be begun.
    fn begin(&mut self) -> Result<(), BenchError> {
        while !self.free.is_empty()
            && self.client.queued() < QUEUED_MAX
            && let Some(op) = self.writes.pop_front()
        {
            self.write(op);
        }
        while self.reading.is_none()
            && !self.free.is_empty()
            && let Some(op) = self.reads.pop_front()
        {
            self.read(op)?;
        }
        Ok(())
    }

    fn reserve(&mut self, what: Open) -> Option<PacketId> {
        let packet_id = self.free.pop()?;
        let place = self.open.get_mut(usize::from(packet_id.get()) - 1)?;
        *place = Some(Place {
            what,
            refused: false,
        });
        Some(packet_id)
    }

    fn release(&mut self, packet_id: PacketId) -> Option<Place> {
        let place = self.open.get_mut(usize::from(packet_id.get()) - 1)?;
        let open = place.take()?;
        self.free.push(packet_id);
        Some(open)
    }

    fn write(&mut self, op: Op) {
        let conversations = Arc::clone(&self.task.conversations);
        let (Some(conversation), What::Write(bytes)) =
            (conversations.get(op.conversation), op.what)
        else {
            return;
        };
        let place = conversation.place(self.task.number).unwrap_or_default();
        let Some(written) = conversation.written.get(place) else {
            return;
        };
        let number = written.load(Ordering::Relaxed);
        let open = Open::Message {
            conversation: op.conversation,
            number,
            due: op.due,
        };
        let Some(packet_id) = self.reserve(open) else {
            return;
        };
        written.store(number + 1, Ordering::Release);
        let topic = format!("chat/to/{}", conversation.cid());
        let version = self.client.version();
        let mut template = Template::new(&topic, Qos::AtLeastOnce, bytes, version);
        // Everybody's numbers are his own, and tell whose they are.
        let (members, place) = (conversation.members.len(), place);
        let stamp = Stamp {
            run: self.task.run,
            stream: u16::try_from(op.conversation).unwrap_or(u16::MAX),
            number: u32::try_from(number as usize * members + place).unwrap_or(u32::MAX),
            sent_at: op.due,
        };
        template.write(packet_id.get(), stamp, self.client.output());
        self.seen.sent += 1;
    }

    fn handle_packets(&mut self) -> Result<(), BenchError> {
        let now = self.task.schedule.clock.nanos();
        while let Some(packet) = self.client.next_packet()? {
            match &packet {
                Packet::PubAck(ack) => self.handle_ack(ack, now),
                Packet::Publish(publish) => {
                    self.handle_publish(publish, now)?;
                    self.client.acknowledge(publish);
                }
                Packet::SubAck(suback) => {
                    let refusal = suback.reasons.iter().find(|reason| reason.is_error());
                    if let Some(reason) = refusal {
                        self.seen.refuse(format!("{reason:?}"));
                        self.release(suback.packet_id);
                        self.reading = None;
                    } else if let Some(reading) = &mut self.reading {
                        reading.is_subscribed = true;
                        self.check_page(now)?;
                    }
                }
                Packet::UnsubAck(unsuback) => {
                    self.release(unsuback.packet_id);
                    self.reading = None;
                }
                other => return Err(self.client.unexpected(other)),
            }
        }
        Ok(())
    }

    fn handle_ack(&mut self, ack: &Ack, now: u64) {
        let schedule = self.task.schedule;
        let Some(open) = self.release(ack.packet_id) else {
            return;
        };
        let is_reading = |it: &Reading| it.packet_id == ack.packet_id;
        let is_reading = self.reading.as_ref().is_some_and(is_reading);
        if ack.reason.is_error() || open.refused {
            let told = if open.refused {
                format!("chat/me/err/@{}", ack.packet_id.get())
            } else {
                format!("{:?}", ack.reason)
            };
            self.seen.refuse(told);
            if is_reading && !matches!(open.what, Open::Message { .. }) {
                self.reading = None;
            }
            return;
        }
        match open.what {
            Open::Message {
                conversation,
                number,
                due,
            } => {
                self.acked.entry(conversation).or_default().insert(number);
                self.seen.acked += 1;
                let took = now.saturating_sub(due);
                let [acks, _] = &mut self.task.tapes;
                acks.note(now, took);
                self.seen.acked_measured += u64::from(schedule.measures(now));
                if schedule.measures(due) {
                    self.seen.ack.record(took);
                }
            }
            Open::Reading => self.finish_reading(now),
            Open::Call => {
                if let Some(reading) = self.reading.as_mut().filter(|_| is_reading) {
                    reading.is_acked = true;
                }
            }
        }
    }

    fn handle_publish(&mut self, publish: &Publish, now: u64) -> Result<(), BenchError> {
        let topic = &*publish.topic;
        if topic.starts_with("chat/me/in/") {
            self.note_arrival(publish, now);
        } else if topic.starts_with("chat/me/err/") {
            // The only way in which 3.1.1 tells a refusal; the ack that follows is none.
            let packet_id = rpc::refused_id(topic);
            let place = packet_id.and_then(|it| self.open.get_mut(usize::from(it.get()) - 1));
            match place {
                Some(Some(open)) => open.refused = true,
                _ => self.seen.refuse(topic.to_owned()),
            }
        } else if let Some(reading) = &mut self.reading
            && *topic == *reading.topic
        {
            if reading.kind == ReadKind::Last {
                reading.left = reading.left.saturating_sub(1);
                self.check_page(now)?;
            } else {
                self.handle_reply(&publish.payload, now);
            }
        }
        Ok(())
    }

    fn note_arrival(&mut self, publish: &Publish, now: u64) {
        let Some(stamp) = Stamp::find(&publish.payload, &mut self.stamp_hint) else {
            return; // history, and entries that are no messages
        };
        if stamp.run != self.task.run {
            self.seen.foreign += 1;
            return;
        }
        let number = usize::from(stamp.stream);
        let Some(conversation) = self.task.conversations.get(number) else {
            self.seen.misdelivered += 1;
            return;
        };
        let members = u32::try_from(conversation.members.len())
            .unwrap_or(u32::MAX)
            .max(1);
        let (place, message) = ((stamp.number % members) as usize, stamp.number / members);
        let written = conversation.written.get(place);
        let is_written = written.is_some_and(|it| message < it.load(Ordering::Acquire));
        let heard = self.heard.get_mut(&number).and_then(|it| it.get_mut(place));
        let Some(heard) = heard.filter(|_| is_written) else {
            self.seen.misdelivered += 1;
            return;
        };
        self.last_arrival = now;
        match heard.note(message) {
            Arrival::New => {}
            Arrival::Reordered => self.seen.reordered += 1,
            Arrival::Repeated => {
                self.seen.duplicates += 1;
                return;
            }
        }
        let took = now.saturating_sub(stamp.sent_at);
        let [_, deliveries] = &mut self.task.tapes;
        deliveries.note(now, took);
        self.task.progress.advance(1);
        let schedule = self.task.schedule;
        self.seen.delivered_measured += u64::from(schedule.measures(now));
        if schedule.measures(stamp.sent_at) {
            self.seen.delivery.record(took);
        }
    }

    fn is_idle(&self) -> bool {
        self.free.len() == self.open.len() && self.reading.is_none()
    }

    /// Tells the others what was acknowledged.
    fn settle(&mut self) {
        self.is_settled = true;
        self.is_over = true;
        self.seen.unacked += (self.open.len() - self.free.len()) as u64;
        self.give_up_reading();
        for number in self.heard.keys() {
            let Some(conversation) = self.task.conversations.get(*number) else {
                continue;
            };
            let place = conversation.place(self.task.number);
            let acked = place.and_then(|place| conversation.acked.get(place));
            if let Some(acked) = acked {
                // Nobody else sets it.
                drop(acked.set(self.acked.remove(number).unwrap_or_default()));
            }
        }
    }

    /// Everything is there, and for a while nothing came that would be too much.
    fn is_done(&self, now: u64) -> bool {
        let quiet = Duration::from_nanos(now.saturating_sub(self.last_arrival));
        self.is_settled
            && quiet >= LINGER
            && self.heard.iter().all(|(number, heard)| {
                let conversation = self.task.conversations.get(*number);
                let acked = conversation.map_or(&[][..], |it| &it.acked);
                heard.iter().zip(acked).all(|(heard, acked)| {
                    let missing = acked.get().map(|acked| heard.missing(acked));
                    missing == Some(0)
                })
            })
    }
}

const CHECK: Duration = Duration::from_millis(50);
/// How long somebody listens for surplus after the last arrival.
const LINGER: Duration = Duration::from_millis(250);
/// Enough for one write; what is due beyond it waits.
const QUEUED_MAX: usize = 256 * 1024;
/// Operations of a kind that wait; more were not begun.
const WAITING_MAX: usize = 4_096;
