//! `pairs` and `fanout`: streams of numbered messages, one publisher each, one or many subscribers each.
//!
//! 1. Subscribers connect and subscribe, then publishers connect. In chat, `fanout` makes a group.
//! 2. All start at one moment. What is sent in the warm-up counts for loss, not for speed or latency.
//! 3. At the end of the time publishers stop and wait for their acks; then each tells its subscribers which messages were
//!    acknowledged, and they wait until these have arrived. Both waits are bounded.
//! 4. In chat, subscribers mark what they got as read, so that the next run finds nothing waiting.

mod pacer;
mod publisher;
mod subscriber;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use broker::codec::packet::{ConnAck, Qos, Version};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::args::{FanoutArgs, Form, LoadArgs, PairsArgs, Target, Topics};
use crate::bits::Bits;
use crate::client::{Client, Connected};
use crate::clock::{Clock, nanos, run_number};
use crate::crowd::{Role, connect_all, handle, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::report::{Latency, Report, Value, float};
use crate::rpc;
use crate::stamp::Template;
use pacer::Pacer;
use publisher::{Pace, Publisher, PublisherSeen};
use subscriber::{Subscriber, SubscriberSeen};

/// N publishers, each with one subscriber of its own.
pub(crate) async fn pairs(target: &Target, args: &PairsArgs) -> Result<Report, BenchError> {
    let pairs = usize::from(args.pairs.get());
    Load::new(target, &args.load, pairs, 1).run("pairs").await
}

/// One publisher, N subscribers.
pub(crate) async fn fanout(target: &Target, args: &FanoutArgs) -> Result<Report, BenchError> {
    let subscribers = usize::from(args.subscribers.get());
    Load::new(target, &args.load, 1, subscribers)
        .run("fanout")
        .await
}

/// What a publisher and its subscribers share.
#[derive(Debug)]
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
    acked: watch::Sender<Option<Arc<Bits>>>,
}

impl Stream {
    fn new() -> Self {
        Self {
            sent: AtomicU32::new(0),
            delivered: AtomicU64::new(0),
            ticks: AtomicU32::new(0),
            wake: Notify::new(),
            acked: watch::Sender::new(None),
        }
    }
}

/// The moments of a run, in nanoseconds of the clock.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    clock: Clock,
    start: u64,
    measure_from: u64,
    stop: u64,
    drain: Duration,
}

impl Schedule {
    fn new(clock: Clock, args: &LoadArgs) -> Self {
        let start = clock.nanos() + nanos(Duration::from_millis(20));
        let measure_from = start + nanos(Duration::from_secs(args.warmup.into()));
        Self {
            clock,
            start,
            measure_from,
            stop: measure_from + nanos(Duration::from_secs(args.seconds.get().into())),
            drain: Duration::from_secs(args.drain.into()),
        }
    }

    /// Is this moment measured?
    const fn measures(&self, at: u64) -> bool {
        at >= self.measure_from && at < self.stop
    }

    fn deadline(&self, at: u64) -> tokio::time::Instant {
        self.clock.deadline(Duration::from_nanos(at))
    }
}

struct Load<'a> {
    target: Target,
    args: &'a LoadArgs,
    clock: Clock,
    run: u32,
    streams: usize,
    subscribers_each: usize,
}

impl<'a> Load<'a> {
    fn new(target: &Target, args: &'a LoadArgs, streams: usize, subscribers_each: usize) -> Self {
        let mut target = target.clone();
        if args.topics == Topics::Chat {
            target.user = None;
            target.user_prefix.get_or_insert_with(|| "bench".to_owned());
        }
        if target.user_prefix.is_some() {
            target
                .password
                .get_or_insert_with(|| "bench-password".to_owned());
        }
        Self {
            target,
            args,
            clock: Clock::start(),
            run: run_number(),
            streams,
            subscribers_each,
        }
    }

    async fn run(self, name: &'static str) -> Result<Report, BenchError> {
        let subscribers = self.connect_subscribers().await?;
        let mut publishers = self.connect_publishers().await?;
        let topics = self.topics(&mut publishers).await?;
        let streams: Vec<_> = (0..self.streams).map(|_| Arc::new(Stream::new())).collect();
        let schedule = Schedule::new(self.clock, self.args);

        let mut publishing = JoinSet::new();
        let each = publishers.into_iter().zip(topics).zip(&streams);
        for (index, ((connected, topic), stream)) in each.enumerate() {
            let stream = Arc::clone(stream);
            let publisher = self.publisher(index, connected, &topic, stream, schedule)?;
            publishing.spawn(publisher.run());
        }
        let mut subscribing = JoinSet::new();
        let listened = streams
            .iter()
            .flat_map(|stream| std::iter::repeat_n(stream, self.subscribers_each));
        for (index, (client, stream)) in subscribers.into_iter().zip(listened).enumerate() {
            let subscriber = self.subscriber(index, client, Arc::clone(stream), schedule);
            subscribing.spawn(subscriber.run());
        }
        let pacer = self
            .args
            .rate
            .map(|rate| Pacer::start(rate, streams, schedule));

        let (before, after) = self.watch_processes(schedule).await?;
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
        self.clean_up(clients).await?;
        Ok(self.report(name, &published, &delivered, &before, &after))
    }

    async fn connect_subscribers(&self) -> Result<Vec<Client>, BenchError> {
        let persistent = self.args.persistent;
        let logins = (0..self.streams * self.subscribers_each).map(|index| {
            login(
                &self.target,
                Role::Subscriber,
                index,
                index,
                self.run,
                persistent,
            )
        });
        let connected = connect_all(&self.target, logins.collect(), self.clock).await?;
        let mut clients = Vec::with_capacity(connected.len());
        for (
            index,
            Connected {
                mut client,
                connack,
                ..
            },
        ) in connected.into_iter().enumerate()
        {
            let filter = match (self.args.topics, self.args.form) {
                (Topics::Plain, _) => self.plain_topic(index / self.subscribers_each),
                (Topics::Chat, Form::In) => "chat/me/in/+".to_owned(),
                (Topics::Chat, Form::Txt) => "chat/me/txt/+".to_owned(),
                (Topics::Chat, Form::Pb) => "chat/me/pb/+".to_owned(),
            };
            check_qos(&connack, self.args.qos)?;
            client.subscribe(&filter, self.args.qos).await?;
            clients.push(client);
        }
        Ok(clients)
    }

    async fn connect_publishers(&self) -> Result<Vec<Connected>, BenchError> {
        let logins = (0..self.streams)
            .map(|index| login(&self.target, Role::Publisher, index, index, self.run, false));
        let mut publishers = connect_all(&self.target, logins.collect(), self.clock).await?;
        if self.args.topics == Topics::Chat && self.target.mqtt == Version::V311 {
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

    /// Where each publisher publishes.
    async fn topics(&self, publishers: &mut [Connected]) -> Result<Vec<String>, BenchError> {
        let to = |index| handle(&self.target, Role::Subscriber, index).unwrap_or_default();
        match (self.args.topics, publishers) {
            (Topics::Plain, _) => Ok((0..self.streams).map(|i| self.plain_topic(i)).collect()),
            (Topics::Chat, [publisher]) if self.subscribers_each > 1 => {
                let members: Vec<_> = (0..self.subscribers_each).map(to).collect();
                let cid = rpc::create_group(&mut publisher.client, &members, self.run).await?;
                Ok(vec![format!("chat/to/{cid}")])
            }
            (Topics::Chat, _) => {
                let topics = (0..self.streams).map(|index| format!("chat/to/@{}", to(index)));
                Ok(topics.collect())
            }
        }
    }

    fn plain_topic(&self, stream: usize) -> String {
        format!("bench/{:08x}/{stream}", self.run)
    }

    fn publisher(
        &self,
        index: usize,
        connected: Connected,
        topic: &str,
        stream: Arc<Stream>,
        schedule: Schedule,
    ) -> Result<Publisher, BenchError> {
        let (args, connack) = (self.args, &connected.connack);
        check_qos(connack, args.qos)?;
        let template = Template::new(topic, args.qos, args.payload, self.target.mqtt);
        let limit = connack.properties.maximum_packet_size.unwrap_or(u32::MAX);
        if template.len() > limit as usize {
            let bytes = template.len();
            return Err(BenchError::PacketTooLarge { bytes, limit });
        }
        let receive_maximum = connack.properties.receive_maximum.unwrap_or(u16::MAX);
        let pace = match (args.rate, args.qos) {
            (Some(rate), _) => Pace::Ticks {
                rate: rate.get(),
                streams: self.streams as u64,
            },
            (None, Qos::AtMostOnce) => Pace::Deliveries {
                window: u64::from(args.window.get()) * self.subscribers_each as u64,
                each: self.subscribers_each as u64,
            },
            (None, _) => Pace::Acks,
        };
        let window = args.window.get().min(receive_maximum);
        let name = stream_number(index);
        Ok(Publisher::new(
            connected.client,
            publisher::Task {
                template,
                qos: args.qos,
                run: self.run,
                stream_number: name,
                stream,
                schedule,
                window,
                pace,
            },
        ))
    }

    fn subscriber(
        &self,
        index: usize,
        client: Client,
        stream: Arc<Stream>,
        schedule: Schedule,
    ) -> Subscriber {
        let closed_at_qos0 = self.args.rate.is_none() && self.args.qos == Qos::AtMostOnce;
        Subscriber::new(
            client,
            subscriber::Task {
                run: self.run,
                stream_number: stream_number(index / self.subscribers_each),
                wakes_publisher: closed_at_qos0,
                may_lose: self.args.qos == Qos::AtMostOnce,
                stream,
                schedule,
            },
        )
    }

    /// What server and generator used in the measured time.
    async fn watch_processes(&self, schedule: Schedule) -> Result<(Usage, Usage), BenchError> {
        let server = self.target.server_pid.map(Process::new);
        tokio::time::sleep_until(schedule.deadline(schedule.measure_from)).await;
        let before = Usage::now(server.as_ref())?;
        tokio::time::sleep_until(schedule.deadline(schedule.stop)).await;
        Ok((before, Usage::now(server.as_ref())?))
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
        if self.args.persistent && self.target.mqtt == Version::V311 {
            // A clean session ends the one before it.
            let count = self.streams * self.subscribers_each;
            let logins = (0..count).map(|index| {
                let mut login = login(&self.target, Role::Subscriber, index, index, self.run, true);
                login.persistent = false;
                login
            });
            for connected in connect_all(&self.target, logins.collect(), self.clock).await? {
                connected.client.disconnect().await?;
            }
        }
        Ok(())
    }

    fn report(
        &self,
        name: &'static str,
        published: &PublisherSeen,
        delivered: &SubscriberSeen,
        before: &Usage,
        after: &Usage,
    ) -> Report {
        let seconds = f64::from(self.args.seconds.get());
        let per_second = |count: u64| Value::Rate(float(count) / seconds);
        let mut report = Report::new(name);
        report.value("publishers", Value::Count(self.streams as u64));
        let subscribers = self.streams * self.subscribers_each;
        report.value("subscribers", Value::Count(subscribers as u64));
        report.value("sent", Value::Count(published.sent));
        report.value("acked", Value::Count(published.acked));
        report.value("delivered", Value::Count(delivered.delivered));
        report.value("sent_per_s", per_second(published.sent_measured));
        report.value("acked_per_s", per_second(published.acked_measured));
        report.value("delivered_per_s", per_second(delivered.delivered_measured));
        report.latency("ack", &published.ack);
        report.latency("delivery", &delivered.delivery);
        report.latency("send_lag", &published.lag);
        report.value("lost", Value::Count(delivered.lost));
        report.value("duplicates", Value::Count(delivered.duplicates));
        report.value("reordered", Value::Count(delivered.reordered));
        report.value("refused", Value::Count(published.refused));
        report.value("unacked", Value::Count(published.unacked));
        if let (Some(cpu_before), Some(cpu), Some(rss)) =
            (before.server_cpu, after.server_cpu, after.server_rss_kb)
        {
            let micros = cpu.saturating_sub(cpu_before).as_secs_f64() * 1e6;
            let each = micros / float(delivered.delivered_measured.max(1));
            report.value("server_cpu_us_per_delivered", Value::Fraction(each));
            report.value("server_rss_kb", Value::Count(rss));
        }
        let own = after.own_cpu.saturating_sub(before.own_cpu).as_secs_f64();
        report.value(
            "generator_cpu_percent",
            Value::Fraction(100.0 * own / seconds),
        );
        self.judge(published, delivered, &mut report);
        report
    }

    fn judge(&self, published: &PublisherSeen, delivered: &SubscriberSeen, report: &mut Report) {
        if let Some(reason) = published.first_refusal {
            report.note(format!("first refusal: {reason:?}"));
        }
        if published.unsent > 0 {
            let unsent = published.unsent;
            report.note(format!(
                "behind the rate: {unsent} messages were due and not sent"
            ));
        }
        if published.stalls > 0 {
            let stalls = published.stalls;
            report.note(format!(
                "{stalls} times a window of QoS 0 messages did not arrive"
            ));
        }
        if delivered.foreign > 0 {
            let foreign = delivered.foreign;
            report.note(format!("{foreign} messages of an earlier run were waiting"));
        }
        let certain = self.args.qos > Qos::AtMostOnce;
        report.fault_if(
            certain && delivered.lost > 0,
            "acknowledged messages were lost",
        );
        report.fault_if(delivered.duplicates > 0, "messages came twice");
        report.fault_if(delivered.reordered > 0, "messages came out of order");
        report.fault_if(published.refused > 0, "publishes were refused");
        report.fault_if(published.unacked > 0, "publishes were not acknowledged");
        report.fault_if(delivered.delivered == 0, "nothing was delivered");
    }
}

#[derive(Debug)]
struct Usage {
    own_cpu: Duration,
    server_cpu: Option<Duration>,
    server_rss_kb: Option<u64>,
}

impl Usage {
    fn now(server: Option<&Process>) -> Result<Self, BenchError> {
        Ok(Self {
            own_cpu: Process::own().cpu()?,
            server_cpu: server.map(Process::cpu).transpose()?,
            server_rss_kb: server.map(Process::rss_kb).transpose()?,
        })
    }
}

fn check_qos(connack: &ConnAck, asked: Qos) -> Result<(), BenchError> {
    match connack.properties.maximum_qos {
        Some(broker) if broker < asked as u8 => Err(BenchError::MaximumQos { broker, asked }),
        _ => Ok(()),
    }
}

/// The numbers of publishers are given by options of 16 bits.
fn stream_number(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Adds up what tasks have seen.
fn add_latency(sum: &mut Latency, part: &Latency) {
    if part.count() > 0 {
        sum.add(part);
    }
}

impl Stream {
    fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Release);
        self.wake.notify_one();
    }
}
