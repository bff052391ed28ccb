//! `pairs`, `fanout`, `chat` and `group`: streams of numbered messages, one publisher each, one or many subscribers each.
//!
//! 1. Subscribers connect and subscribe, then publishers connect. In `group`, the first publisher of each makes it.
//! 2. All start at one moment. What is sent in the warm-up counts for loss, not for speed or latency.
//! 3. At the end of the time publishers stop and wait for their acks; then each tells its subscribers which messages were
//!    acknowledged, and they wait until these have arrived. Both waits are bounded.
//! 4. In chat, subscribers mark what they got as read, so that the next run finds nothing waiting.

mod args;
mod outcome;
mod publisher;
mod subscriber;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use broker::codec::packet::{ConnAck, Qos, Version};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Bench;
use super::pacer::Pacer;
use super::schedule::Schedule;
use crate::args::{Form, Topics};
use crate::bits::Bits;
use crate::client::{Client, Connected};
use crate::crowd::{Role, connect_all, handle, login};
use crate::error::BenchError;
use crate::progress::Goal;
use crate::report::Report;
use crate::rpc;
use crate::series::{Noted, Series, Tape};
use crate::stamp::Template;
use args::LoadArgs;
pub(super) use args::{ChatArgs, FanoutArgs, GroupArgs, PairsArgs};
use outcome::Outcome;
use publisher::{Pace, Publisher, PublisherSeen};
use subscriber::{Subscriber, SubscriberSeen};

/// N publishers, each with one subscriber of its own.
pub(super) async fn pairs(bench: Bench, args: &PairsArgs) -> Result<Report, BenchError> {
    let shape = Shape {
        topics: args.load.topics.unwrap_or(Topics::Plain),
        audiences: args.pairs.get().into(),
        publishers_each: 1,
        subscribers_each: 1,
        is_group: false,
        persistent: args.persistent,
        form: Form::In,
    };
    Load::new(bench, &args.load, shape).run("pairs").await
}

/// One publisher, N subscribers.
pub(super) async fn fanout(bench: Bench, args: &FanoutArgs) -> Result<Report, BenchError> {
    let shape = Shape {
        topics: args.load.topics.unwrap_or(Topics::Plain),
        audiences: 1,
        publishers_each: 1,
        subscribers_each: args.subscribers.get().into(),
        is_group: true,
        persistent: args.persistent,
        form: Form::In,
    };
    Load::new(bench, &args.load, shape).run("fanout").await
}

/// Direct messages.
pub(super) async fn chat(bench: Bench, args: &ChatArgs) -> Result<Report, BenchError> {
    let topics = args.load.topics.unwrap_or(Topics::Chat);
    let shape = Shape {
        topics,
        audiences: args.pairs.get().into(),
        publishers_each: 1,
        subscribers_each: 1,
        is_group: false,
        persistent: topics == Topics::Chat && !args.inbox.guests,
        form: args.inbox.form,
    };
    Load::new(bench, &args.load, shape).run("chat").await
}

/// Groups, in each of which some write and all others listen.
pub(super) async fn group(bench: Bench, args: &GroupArgs) -> Result<Report, BenchError> {
    let topics = args.load.topics.unwrap_or(Topics::Chat);
    let shape = Shape {
        topics,
        audiences: args.groups.get().into(),
        publishers_each: args.senders.get().into(),
        subscribers_each: args.members.get().into(),
        is_group: true,
        persistent: topics == Topics::Chat && !args.inbox.guests,
        form: args.inbox.form,
    };
    if shape.streams() > usize::from(u16::MAX) {
        let told = "more than 65,535 senders".to_owned();
        return Err(BenchError::Options(told));
    }
    Load::new(bench, &args.load, shape).run("group").await
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug)]
struct Shape {
    topics: Topics,
    /// Sets of subscribers that hear the same publishers: pairs, groups.
    audiences: usize,
    publishers_each: usize,
    subscribers_each: usize,
    /// In chat: a group, not a direct conversation.
    is_group: bool,
    persistent: bool,
    form: Form,
}

impl Shape {
    const fn streams(&self) -> usize {
        self.audiences * self.publishers_each
    }

    const fn subscribers(&self) -> usize {
        self.audiences * self.subscribers_each
    }
}

/// What a publisher and its subscribers share.
#[derive(Debug, Default)]
struct Stream {
    /// How many messages have been written, so that a subscriber can tell nonsense.
    sent: AtomicU32,
    /// Deliveries to all subscribers together: the window of QoS 0.
    delivered: AtomicU64,
    /// Open loop: how many messages may have been sent by now.
    ticks: AtomicU32,
    /// The publisher may go on.
    wake: Notify,
    /// Which messages were acknowledged (at QoS 0: sent), once the publisher is done.
    acked: OnceLock<Bits>,
}

impl Stream {
    fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Release);
        self.wake.notify_one();
    }
}

struct Load<'a> {
    bench: Bench,
    args: &'a LoadArgs,
    shape: Shape,
}

impl<'a> Load<'a> {
    fn new(bench: Bench, args: &'a LoadArgs, shape: Shape) -> Self {
        let bench = bench.on(shape.topics);
        Self { bench, args, shape }
    }

    async fn run(self, name: &'static str) -> Result<Report, BenchError> {
        let connections = (self.shape.streams() + self.shape.subscribers()) as u64;
        let progress = self.bench.progress.clone();
        if self.shape.topics == Topics::Chat {
            rpc::ask_for_chat(&self.bench).await?;
        }
        progress.phase("connecting", Goal::Count(connections));
        let subscribers = self.connect_subscribers().await?;
        let mut publishers = self.connect_publishers().await?;
        let topics = self.topics(&mut publishers).await?;
        let streams: Vec<Arc<Stream>> = (0..self.shape.streams()).map(|_| Arc::default()).collect();
        let (args, clock) = (self.args, self.bench.clock);
        let schedule = Schedule::new(clock, args.warmup, args.seconds.get(), args.drain);
        let series = Series::new(schedule.measure_from, schedule.stop);

        let mut publishing = JoinSet::new();
        for (index, (connected, stream)) in publishers.into_iter().zip(&streams).enumerate() {
            let topic = topics.get(index / self.shape.publishers_each);
            let topic = topic.map_or("", String::as_str);
            let tape = Tape::new(&series, Noted::Ack);
            let stream = Arc::clone(stream);
            let publisher = self.publisher(index, connected, topic, stream, (schedule, tape))?;
            publishing.spawn(publisher.run());
        }
        let mut subscribing = JoinSet::new();
        let listened = streams
            .chunks(self.shape.publishers_each)
            .flat_map(|streams| std::iter::repeat_n(streams, self.shape.subscribers_each));
        for (index, (client, streams)) in subscribers.into_iter().zip(listened).enumerate() {
            let tape = Tape::new(&series, Noted::Delivery);
            let subscriber = self.subscriber(index, client, streams, schedule, tape);
            subscribing.spawn(subscriber.run());
        }
        let pacer = args.rate.map(|rate| {
            let mut turns = streams.into_iter().cycle();
            Pacer::start(rate, schedule, move |_| {
                if let Some(stream) = turns.next() {
                    stream.tick();
                }
            })
        });

        let server = self.bench.server.as_ref();
        let used = schedule.watch(server, &series, &progress).await?;
        let mut published = PublisherSeen::default();
        while let Some(seen) = publishing.join_next().await {
            published.add(&seen??);
        }
        let mut delivered = SubscriberSeen::default();
        let mut clients = Vec::new();
        while let Some(finished) = subscribing.join_next().await {
            let (seen, client) = finished??;
            delivered.add(&seen);
            clients.push((client, seen.conversation));
        }
        drop(pacer);
        let left = self.clean_up(clients).await;
        let outcome = Outcome {
            args,
            shape: self.shape,
            published,
            delivered,
            used,
        };
        let mut report = outcome.report(name);
        report.series = Some(series.table());
        if let Err(error) = left {
            report.note(format!("leaving: {error}"));
        }
        Ok(report)
    }

    async fn connect_subscribers(&self) -> Result<Vec<Client>, BenchError> {
        let (target, run, persistent) = (&self.bench.target, self.bench.run, self.shape.persistent);
        let logins = (0..self.shape.subscribers())
            .map(|index| login(target, Role::Subscriber, index, index, run, persistent));
        let connected = connect_all(&self.bench, logins.collect()).await?;
        let mut clients = Vec::with_capacity(connected.len());
        for (index, connected) in connected.into_iter().enumerate() {
            let Connected {
                mut client,
                connack,
                ..
            } = connected;
            let filter = match self.shape.topics {
                Topics::Plain => self.plain_topic(index / self.shape.subscribers_each),
                Topics::Chat => self.shape.form.filter().to_owned(),
            };
            check_qos(&connack, self.args.qos)?;
            match self.shape.topics {
                Topics::Plain => client.subscribe_at(&filter, self.args.qos).await?,
                // Chat delivers at 1 at most.
                Topics::Chat => drop(client.subscribe(&filter, self.args.qos).await?),
            }
            clients.push(client);
        }
        Ok(clients)
    }

    async fn connect_publishers(&self) -> Result<Vec<Connected>, BenchError> {
        let (target, run) = (&self.bench.target, self.bench.run);
        let logins = (0..self.shape.streams())
            .map(|index| login(target, Role::Publisher, index, index, run, false));
        let mut publishers = connect_all(&self.bench, logins.collect()).await?;
        if self.shape.topics == Topics::Chat && target.mqtt == Version::V311 {
            for connected in &mut publishers {
                // The only way in which 3.1.1 tells a refusal.
                connected
                    .client
                    .subscribe("chat/me/err/+", Qos::AtLeastOnce)
                    .await?;
            }
        }
        Ok(publishers)
    }

    /// Where the publishers of each audience publish.
    async fn topics(&self, publishers: &mut [Connected]) -> Result<Vec<String>, BenchError> {
        let (target, shape) = (&self.bench.target, self.shape);
        let listener = |index| handle(target, Role::Subscriber, index).unwrap_or_default();
        match (shape.topics, shape.is_group) {
            (Topics::Plain, _) => Ok((0..shape.audiences).map(|i| self.plain_topic(i)).collect()),
            (Topics::Chat, false) => {
                let topics = (0..shape.audiences).map(|i| format!("chat/to/@{}", listener(i)));
                Ok(topics.collect())
            }
            (Topics::Chat, true) => {
                self.bench.progress.phase("making groups", Goal::None);
                let mut topics = Vec::with_capacity(shape.audiences);
                let owners = publishers.chunks_mut(shape.publishers_each);
                for (group, senders) in owners.enumerate() {
                    let [owner, others @ ..] = senders else {
                        continue;
                    };
                    let first = group * shape.publishers_each + 1;
                    let others = (first..first + others.len())
                        .filter_map(|index| handle(target, Role::Publisher, index));
                    let first = group * shape.subscribers_each;
                    let members = others
                        .chain((first..first + shape.subscribers_each).map(listener))
                        .collect::<Vec<_>>();
                    let id = format!("mqb-{:08x}", self.bench.run);
                    let cid = rpc::create_group(&mut owner.client, &members, &id).await?;
                    topics.push(format!("chat/to/{cid}"));
                }
                Ok(topics)
            }
        }
    }

    fn plain_topic(&self, audience: usize) -> String {
        format!("bench/{:08x}/{audience}", self.bench.run)
    }

    fn publisher(
        &self,
        index: usize,
        connected: Connected,
        topic: &str,
        stream: Arc<Stream>,
        (schedule, tape): (Schedule, Tape),
    ) -> Result<Publisher, BenchError> {
        let (args, connack) = (self.args, &connected.connack);
        check_qos(connack, args.qos)?;
        let template = Template::new(topic, args.qos, args.payload, self.bench.target.mqtt);
        let limit = connack.properties.maximum_packet_size.unwrap_or(u32::MAX);
        if template.len() > limit as usize {
            let bytes = template.len();
            return Err(BenchError::PacketTooLarge { bytes, limit });
        }
        let receive_maximum = connack.properties.receive_maximum.unwrap_or(u16::MAX);
        let listeners = self.shape.subscribers_each as u64;
        let pace = match (args.rate, args.qos) {
            (Some(rate), _) => Pace::Ticks {
                rate: rate.get(),
                streams: self.shape.streams() as u64,
            },
            (None, Qos::AtMostOnce) => Pace::Deliveries {
                window: u64::from(args.window.get()) * listeners,
                each: listeners,
            },
            (None, _) => Pace::Acks,
        };
        Ok(Publisher::new(
            connected.client,
            publisher::Task {
                template,
                qos: args.qos,
                run: self.bench.run,
                stream_number: stream_number(index),
                stream,
                schedule,
                window: args.window.get().min(receive_maximum),
                pace,
                tape,
            },
        ))
    }

    fn subscriber(
        &self,
        index: usize,
        client: Client,
        streams: &[Arc<Stream>],
        schedule: Schedule,
        tape: Tape,
    ) -> Subscriber {
        let audience = index / self.shape.subscribers_each;
        let may_lose = self.args.qos == Qos::AtMostOnce;
        Subscriber::new(
            client,
            subscriber::Task {
                run: self.bench.run,
                first_stream: stream_number(audience * self.shape.publishers_each),
                streams: streams.to_vec(),
                wakes_publishers: self.args.rate.is_none() && may_lose,
                may_lose,
                schedule,
                tape,
                progress: self.bench.progress.clone(),
            },
        )
    }

    async fn clean_up(&self, clients: Vec<(Client, Option<String>)>) -> Result<(), BenchError> {
        for (mut client, conversation) in clients {
            if let Some(cid) = conversation {
                let topic = format!("chat/c/{cid}/read");
                client
                    .publish_and_wait(&topic, Bytes::new(), |_| {})
                    .await?;
            }
            client.disconnect().await?;
        }
        let target = &self.bench.target;
        if self.shape.persistent && target.mqtt == Version::V311 {
            // A clean session ends the one before it.
            let logins = (0..self.shape.subscribers()).map(|index| {
                let run = self.bench.run;
                let mut login = login(target, Role::Subscriber, index, index, run, true);
                login.persistent = false;
                login
            });
            for connected in connect_all(&self.bench, logins.collect()).await? {
                connected.client.disconnect().await?;
            }
        }
        Ok(())
    }
}

fn check_qos(connack: &ConnAck, asked: Qos) -> Result<(), BenchError> {
    match connack.properties.maximum_qos {
        Some(broker) if broker < asked as u8 => Err(BenchError::MaximumQos { broker, asked }),
        _ => Ok(()),
    }
}

/// There are no more publishers than numbers of 16 bits.
fn stream_number(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
