//! People who are connected, conversations that are made and have a page of history.

use std::sync::Arc;
use std::time::Duration;

use broker::codec::packet::{Packet, Qos, Version};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Conversation;
use super::args::MixArgs;
use crate::client::Client;
use crate::crowd::{Role, connect_all, handle, login};
use crate::error::BenchError;
use crate::progress::Goal;
use crate::rpc;
use crate::scenario::Bench;

/// Somebody who can begin.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) client: Client,
    /// Requests that may be open, at most Receive Maximum of the broker [MQTT-3.3.4-7].
    pub(super) window: u16,
    /// Of the account, as it is known.
    pub(super) ver: u64,
}

/// All of them, in the order of their numbers.
pub(super) async fn people(
    bench: &Bench,
    args: &MixArgs,
    conversations: &Arc<[Conversation]>,
) -> Result<Vec<Ready>, BenchError> {
    let mut people = connect(bench, args).await?;
    make_groups(bench, &mut people, conversations).await?;
    let all = conversations.len() as u64 * u64::from(args.page.get());
    bench.progress.phase("writing history", Goal::Count(all));
    let mut tasks = JoinSet::new();
    for (number, ready) in people.into_iter().enumerate() {
        let (bench, conversations) = (bench.clone(), Arc::clone(conversations));
        let page = args.page.get();
        tasks.spawn(async move {
            let ready = write_history(ready, &bench, number, (&conversations, page)).await?;
            Ok::<_, BenchError>((number, ready))
        });
    }
    let written = all_of(tasks).await?;
    bench.progress.phase("waiting for quiet", Goal::None);
    let mut tasks = JoinSet::new();
    for (number, ready) in written.into_iter().enumerate() {
        let run = bench.run;
        tasks.spawn(async move { Ok((number, look_around(ready, run).await?)) });
    }
    all_of(tasks).await
}

async fn all_of(
    mut tasks: JoinSet<Result<(usize, Ready), BenchError>>,
) -> Result<Vec<Ready>, BenchError> {
    let mut people = Vec::with_capacity(tasks.len());
    while let Some(finished) = tasks.join_next().await {
        people.push(finished??);
    }
    people.sort_unstable_by_key(|(number, _)| *number);
    Ok(people.into_iter().map(|(_, ready)| ready).collect())
}

async fn connect(bench: &Bench, args: &MixArgs) -> Result<Vec<Ready>, BenchError> {
    let users = usize::from(args.users.get());
    bench
        .progress
        .phase("connecting", Goal::Count(users as u64));
    let (target, run) = (&bench.target, bench.run);
    let logins = (0..users).map(|user| login(target, Role::Subscriber, user, user, run, true));
    let mut people = Vec::with_capacity(users);
    for connected in connect_all(bench, logins.collect()).await? {
        let mut client = connected.client;
        client.subscribe("chat/me/in/+", Qos::AtLeastOnce).await?;
        rpc::subscribe(&mut client).await?;
        if target.mqtt == Version::V311 {
            client.subscribe("chat/me/err/+", Qos::AtLeastOnce).await?;
        }
        let limit = connected.connack.properties.receive_maximum;
        people.push(Ready {
            client,
            window: limit.unwrap_or(u16::MAX).min(OPEN_MAX),
            ver: 0,
        });
    }
    Ok(people)
}

async fn make_groups(
    bench: &Bench,
    people: &mut [Ready],
    conversations: &[Conversation],
) -> Result<(), BenchError> {
    let groups = conversations.iter().filter(|it| it.is_group);
    let count = groups.clone().count() as u64;
    bench.progress.phase("making groups", Goal::Count(count));
    for (number, group) in groups.enumerate() {
        let [owner, others @ ..] = group.members.as_slice() else {
            continue;
        };
        let others = others.iter();
        let handles: Vec<_> = others
            .filter_map(|other| handle(&bench.target, Role::Subscriber, *other))
            .collect();
        let Some(owner) = people.get_mut(*owner) else {
            continue;
        };
        let id = format!("mqb-{:08x}-g{number}", bench.run);
        let cid = rpc::create_group(&mut owner.client, &handles, &id).await?;
        // It is set here and nowhere else.
        drop(group.cid.set(cid));
        bench.progress.advance(1);
    }
    Ok(())
}

/// The first member of each conversation writes as many messages as a page has. Direct conversations begin with them.
async fn write_history(
    mut ready: Ready,
    bench: &Bench,
    person: usize,
    (conversations, page): (&[Conversation], u16),
) -> Result<Ready, BenchError> {
    for (number, conversation) in conversations.iter().enumerate() {
        let [first, second, ..] = conversation.members.as_slice() else {
            continue;
        };
        if *first != person {
            continue;
        }
        let other = handle(&bench.target, Role::Subscriber, *second).unwrap_or_default();
        for line in 0..page {
            let to = match conversation.cid.get() {
                Some(cid) => cid.clone(),
                None => format!("@{other}"),
            };
            let request = json!({"cid": to, "t": format!("line {line} of the history")});
            let id = format!("mqb-{:08x}-{number}-{line}", bench.run);
            let client = &mut ready.client;
            let sent = rpc::call(client, "msg.send", &request, &id, rpc::drop_it).await?;
            if conversation.cid.get().is_none() {
                let cid = sent.get("cid").and_then(Json::as_str).unwrap_or_default();
                drop(conversation.cid.set(cid.to_owned()));
            }
            bench.progress.advance(1);
        }
    }
    Ok(ready)
}

/// Takes what has come so far, and learns the version of the account.
async fn look_around(mut ready: Ready, run: u32) -> Result<Ready, BenchError> {
    let mut request = json!({"limit": 200});
    for page in 0..PAGES_MAX {
        let id = format!("mqb-{run:08x}-v{page}");
        let client = &mut ready.client;
        let changes = rpc::call(client, "sync.changes", &request, &id, rpc::drop_it).await?;
        if let Some(ver) = changes.get("ver").and_then(Json::as_u64) {
            ready.ver = ver;
            break;
        }
        request = json!({"next": changes.get("next"), "limit": 200});
    }
    while let Ok(packet) = timeout(QUIET, ready.client.next()).await {
        if let Packet::Publish(publish) = packet? {
            ready.client.acknowledge(&publish);
        }
    }
    Ok(ready)
}

/// Requests of one person at once; more wait.
const OPEN_MAX: u16 = 32;
/// Conversations of one user, by 200.
const PAGES_MAX: u32 = 100;
const QUIET: Duration = Duration::from_millis(500);
