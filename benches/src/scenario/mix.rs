//! `mix`: what people do with a chat. They are in groups of different sizes and in direct conversations, write short and
//! long messages, and read far more than they write.
//!
//! 1. Everybody connects, with an inbox on a persistent session. Groups are made, with sizes around the average; each conversation
//!    gets as many messages as a page of history has.
//! 2. An open loop: each operation is due at a fixed time, and which one it is follows from the seed. A message goes to a
//!    conversation, from one of its members; a read is a page of history (`msg.history`, or `…/log/last/n`), a read mark,
//!    or `sync.changes`, by somebody in a conversation of his.
//! 3. A person reads one thing at a time, and writes beside. What waits, waits on the clock: latency counts from when it was due.
//! 4. At the end each member has to have every message that was acknowledged in his conversations, once, in the order of its sender.

mod args;
mod person;
mod plan;
mod prepare;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Bench;
use super::pacer::Pacer;
use super::schedule::Schedule;
use crate::args::Topics;
use crate::bits::Bits;
use crate::error::BenchError;
use crate::progress::Goal;
use crate::report::{self, Latency, Report, Value, float};
use crate::rpc;
use crate::series::{Noted, Series, Tape};
pub(super) use args::MixArgs;
use args::ReadKind;
use person::{Person, Seen};
use plan::{Op, Plan};

/// A conversation, and what its members have written.
#[derive(Debug)]
struct Conversation {
    /// Numbers of people.
    members: Vec<usize>,
    is_group: bool,
    cid: OnceLock<String>,
    /// How many messages each member has written.
    written: Vec<AtomicU32>,
    /// Which of them were acknowledged, once he is done.
    acked: Vec<OnceLock<Bits>>,
}

impl Conversation {
    fn new(members: Vec<usize>, is_group: bool) -> Self {
        Self {
            cid: OnceLock::new(),
            written: members.iter().map(|_| AtomicU32::new(0)).collect(),
            acked: members.iter().map(|_| OnceLock::new()).collect(),
            members,
            is_group,
        }
    }

    fn cid(&self) -> &str {
        self.cid.get().map_or("", String::as_str)
    }

    /// Where a person is among the members.
    fn place(&self, person: usize) -> Option<usize> {
        self.members.iter().position(|member| *member == person)
    }
}

/// What was due in the measured time.
#[derive(Debug, Default)]
struct Offered {
    deliveries: AtomicU64,
    /// Operations that a person had no room for.
    overrun: AtomicU64,
}

pub(super) async fn run(bench: Bench, args: &MixArgs) -> Result<Report, BenchError> {
    let bench = bench.on(Topics::Chat);
    let seed = args.seed.unwrap_or_default();
    let plan = Plan::new(args, seed)?;
    rpc::ask_for_chat(&bench).await?;
    let conversations = Arc::clone(&plan.conversations);
    let people = prepare::people(&bench, args, &conversations).await?;

    let schedule = Schedule::new(bench.clock, args.warmup, args.seconds.get(), args.drain);
    let series = Series::new(schedule.measure_from, schedule.stop);
    let (mut tasks, mut queues) = (JoinSet::new(), Vec::new());
    for (number, ready) in people.into_iter().enumerate() {
        let (queue, ops) = mpsc::channel(QUEUED_MAX);
        queues.push(queue);
        let tapes = [Noted::Ack, Noted::Delivery].map(|noted| Tape::new(&series, noted));
        let task = person::Task {
            number,
            run: bench.run,
            page: args.page.get(),
            conversations: Arc::clone(&conversations),
            schedule,
            tapes,
            progress: bench.progress.clone(),
        };
        tasks.spawn(Person::new(ready, task, ops).run());
    }
    let offered = Arc::new(Offered::default());
    let pacer = start(args, plan, (schedule, queues), Arc::clone(&offered))?;
    let server = bench.server.as_ref();
    let used = schedule.watch(server, &series, &bench.progress).await?;
    drop(pacer); // and with it the queues: nothing more comes
    let mut seen = Seen::default();
    let mut clients = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        let (one, client) = finished??;
        seen.add(&one);
        clients.push(client);
    }
    bench.progress.phase("leaving", Goal::None);
    let mut left = Ok(());
    for client in clients {
        left = left.and(client.disconnect().await);
    }
    let mut report = report(args, (seed, &conversations), &seen, &offered);
    let operations = seen.acked_measured + seen.reads_measured;
    used.tell(("server_cpu_us_per_operation", operations), &mut report);
    judge(&seen, &mut report);
    report.series = Some(series.table());
    if let Err(error) = left {
        report.note(format!("leaving: {error}"));
    }
    Ok(report)
}

/// Hands each operation to who is to do it, when it is due.
fn start(
    args: &MixArgs,
    mut plan: Plan,
    (schedule, queues): (Schedule, Vec<mpsc::Sender<Op>>),
    offered: Arc<Offered>,
) -> Result<Pacer, BenchError> {
    let each = args.reads.saturating_add(1);
    let all = args.rate.checked_mul(each.try_into().unwrap_or(args.rate));
    let all = all.ok_or_else(|| BenchError::Options("too many reads per second".to_owned()))?;
    Ok(Pacer::start(all, schedule, move |due| {
        let (person, op, receivers) = plan.next(due);
        if schedule.measures(due) {
            offered.deliveries.fetch_add(receivers, Ordering::Relaxed);
        }
        let queue = queues.get(person);
        if queue.is_none_or(|queue| queue.try_send(op).is_err()) {
            offered.overrun.fetch_add(1, Ordering::Relaxed);
        }
    }))
}

fn report(
    args: &MixArgs,
    (seed, conversations): (u64, &[Conversation]),
    seen: &Seen,
    offered: &Offered,
) -> Report {
    let seconds = f64::from(args.seconds.get());
    let per_second = |count: u64| Value::Rate(float(count) / seconds);
    let mut report = Report::new("mix");
    let groups = conversations.iter().filter(|it| it.is_group);
    let sizes: Vec<_> = groups.map(|group| group.members.len() as u64).collect();
    let average = float(sizes.iter().sum()) / float(sizes.len().max(1) as u64);
    report.value("seed", Value::Count(seed));
    report.value("users", Value::Count(args.users.get().into()));
    report.value("groups", Value::Count(sizes.len() as u64));
    report.value("group_size_average", Value::Fraction(average));
    let direct = conversations.len() - sizes.len();
    report.value("direct_conversations", Value::Count(direct as u64));
    report.value("sent", Value::Count(seen.sent));
    report.value("acked", Value::Count(seen.acked));
    report.value("delivered", Value::Count(seen.delivered));
    report.value("reads", Value::Count(seen.reads));
    report.value("offered_per_s", Value::Count(args.rate.get().into()));
    let deliveries = offered.deliveries.load(Ordering::Relaxed);
    report.value("offered_deliveries_per_s", per_second(deliveries));
    let reads = u64::from(args.rate.get()) * u64::from(args.reads);
    report.value("offered_reads_per_s", Value::Count(reads));
    report.value("acked_per_s", per_second(seen.acked_measured));
    report.value("delivered_per_s", per_second(seen.delivered_measured));
    report.value("reads_per_s", per_second(seen.reads_measured));
    report.latency("ack", &seen.ack);
    report.latency("delivery", &seen.delivery);
    for kind in ReadKind::ALL {
        let of_kind = seen.read.get(kind as usize);
        let latency = of_kind.map_or_else(Latency::default, Latency::clone);
        report.latency(&format!("read_{}", kind.name()), &latency);
    }
    report.latency("generator_lag", &seen.own_lag);
    report.value("lost", Value::Count(seen.lost));
    report.value("late", Value::Count(seen.late));
    report.value("misdelivered", Value::Count(seen.misdelivered));
    report.value("duplicates", Value::Count(seen.duplicates));
    report.value("reordered", Value::Count(seen.reordered));
    report.value("refused", Value::Count(seen.refused));
    report.value("unacked", Value::Count(seen.unacked));
    let unsent = seen.unsent + offered.overrun.load(Ordering::Relaxed);
    report.value("unsent", Value::Count(unsent));
    if unsent > 0 {
        report.note(format!(
            "behind the rate: {unsent} operations were due and not begun"
        ));
    }
    report
}

fn judge(seen: &Seen, report: &mut Report) {
    if let Some(refusal) = &seen.first_refusal {
        report.note(format!("first refusal: {refusal}"));
    }
    if seen.foreign > 0 {
        let foreign = seen.foreign;
        report.note(format!("{foreign} messages of an earlier run were waiting"));
    }
    report.fault_if(seen.lost > 0, "acknowledged messages were lost");
    report.fault_if(seen.late > 0, report::LATE);
    report.fault_if(
        seen.unjudged > 0,
        "nobody told what was acknowledged: loss was not judged",
    );
    report.fault_if(
        seen.misdelivered > 0,
        "messages came to who must not have them",
    );
    report.fault_if(seen.duplicates > 0, "messages came twice");
    report.fault_if(seen.reordered > 0, "messages came out of order");
    report.fault_if(seen.refused > 0, "publishes or reads were refused");
    report.fault_if(seen.unacked > 0, "publishes or reads were not answered");
    report.fault_if(seen.delivered == 0, "nothing was delivered");
    report.checks(report::ALL_CAME);
}

/// Operations that may wait for one person.
const QUEUED_MAX: usize = 4_096;
