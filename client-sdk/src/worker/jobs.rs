//! What takes time: each job ends by itself and reports back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::error::ErrorName;
use proto::ids::{ConversationId, Seq};
use proto::schema::rpc_reply::Result as Reply;
use proto::schema::rpc_request::Params;
use proto::schema::{
    AccountEvent, LogEntry, MeGet, Message, MsgHistory, PresenceEvent, Receipts, RpcRequest,
    SyncChanges, TypingEvent,
};
use rumqttc::{AsyncClient, Publish};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{AGAIN, Command, Core, Done, Outcome};
use crate::clock;
use crate::connection::{self, Acked, Outgoing};
use crate::error::{Error, Refusal};
use crate::events::{Event, Presence, Typing};
use crate::store::{self, Inbound, OutboxKind, Page, Profile, Queued, Settled, Stale, Taken};

/// Entries that are asked for at once.
const PAGE: u32 = 500;
/// Messages that are fetched again in one job.
const REFRESH_MAX: usize = 16;

/// Calls a method, and waits for the reply.
pub(crate) async fn call(core: &Core, method: &str, params: Params) -> Result<Reply, Error> {
    call_as(core, Uuid::now_v7(), method, params).await
}

/// The same by a request id: what was asked under it is done once.
pub(crate) async fn call_as(
    core: &Core,
    id: Uuid,
    method: &str,
    params: Params,
) -> Result<Reply, Error> {
    let request = RpcRequest {
        params: Some(params),
    };
    let (reply, answer) = oneshot::channel();
    let request = (method.to_owned(), request.encode_to_vec().into());
    let command = Command::Call(id, request, reply);
    let timeout = core.config.limits.call_timeout;
    let asked = async {
        core.commands
            .send(command)
            .await
            .map_err(|_| core.ended())?;
        answer.await.map_err(|_| core.ended())?
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Timeout(timeout)),
    }
}

/// The same for what the worker needs itself: if it was too fast, it waits and asks again.
async fn call_patiently(core: &Core, method: &str, params: Params) -> Result<Reply, Error> {
    loop {
        match call(core, method, params.clone()).await {
            Err(Error::Refused(Refusal {
                retry_after: Some(after),
                ..
            })) => clock::sleep_until(Some(clock::now() + after + clock::chance(after))).await,
            answer => return answer,
        }
    }
}

/// A page of the log, from the server.
pub(crate) async fn history(core: &Core, asked: MsgHistory) -> Result<Page, Error> {
    match call_patiently(core, "msg.history", Params::MsgHistory(asked)).await? {
        Reply::History(page) => Ok(Page {
            entries: page.entries,
            more: page.more,
            head: page.head,
        }),
        _ => Err(unexpected("msg.history")),
    }
}

pub(crate) fn unexpected(method: &str) -> Error {
    Error::Protocol(format!("an odd reply to {method}"))
}

/// Puts publishes into the store.
pub(super) async fn take(core: Arc<Core>, publishes: Vec<Publish>, generation: u64) -> Done {
    let batch: Vec<_> = publishes.iter().filter_map(inbound).collect();
    let taken = store::run(&core.store, move |store| store.take(batch)).await;
    Done::Taken {
        taken,
        publishes,
        generation,
    }
}

/// What a publish is. What nobody can read is acked and passed over: it would come again for ever.
fn inbound(publish: &Publish) -> Option<Inbound> {
    let topic = std::str::from_utf8(&publish.topic).ok()?;
    let read = match topic.strip_prefix("chat/me/")?.split_once('/')? {
        ("pb", _) => LogEntry::decode(publish.payload.clone())
            .ok()
            .and_then(|entry| {
                let cid = entry.cid.parse().ok()?;
                Some(Inbound::Entry(cid, Box::new(entry)))
            }),
        ("rcpt", _) => json::<Receipts>(publish).and_then(|receipts| {
            let cid = receipts.cid.parse().ok()?;
            Some(Inbound::Receipts(cid, receipts))
        }),
        ("ev", "account") => {
            json::<AccountEvent>(publish).map(|event| Inbound::Account(Box::new(event)))
        }
        _ => None,
    };
    if read.is_none() {
        tracing::warn!(topic, "the server sent what cannot be read");
    }
    read
}

/// The filter by which a publish of presence was asked for: its topic.
pub(super) fn presence_filter(publish: &Publish) -> Option<&str> {
    let topic = std::str::from_utf8(&publish.topic).ok()?;
    topic.starts_with("chat/u/").then_some(topic)
}

/// What is only told, and not kept.
pub(super) fn hint(publish: &Publish) -> Option<Event> {
    let topic = std::str::from_utf8(&publish.topic).ok()?;
    if topic.starts_with("chat/me/ev/typing/") {
        let event: TypingEvent = json(publish)?;
        return Some(Event::Typing {
            cid: event.cid.parse().ok()?,
            uid: event.uid.parse().ok()?,
            typing: Typing::read(&event.typing),
            handle: event.handle,
        });
    }
    if topic.starts_with("chat/u/") {
        let event: PresenceEvent = json(publish)?;
        return Some(Event::Presence(Presence {
            uid: event.uid.parse().ok()?,
            handle: event.handle,
            state: event.state,
            text: event.text,
            last_seen: event.last_seen,
        }));
    }
    None
}

fn json<T: for<'de> serde::Deserialize<'de>>(publish: &Publish) -> Option<T> {
    serde_json::from_slice(&publish.payload).ok()
}

/// Sends one of the outbox, and settles it.
pub(super) async fn send(core: Arc<Core>, client: AsyncClient, queued: Queued) -> Done {
    let outcome = send_row(&core, client, queued.number).await;
    Done::Sent { queued, outcome }
}

async fn send_row(core: &Core, client: AsyncClient, number: u64) -> Result<Outcome, Error> {
    let row = store::run(&core.store, move |store| store.outbox_row(number)).await?;
    let Some(row) = row else {
        return Ok(Outcome::Settled {
            taken: Taken::default(),
            cid: None,
            seq: None,
        });
    };
    let outgoing = match row.kind() {
        OutboxKind::Message | OutboxKind::Edit => Outgoing::protobuf(row.topic, row.payload),
        _ => Outgoing::plain(row.topic, row.payload),
    };
    match connection::publish(client, outgoing.mid(&row.mid)).await {
        Acked::Done(properties) => settle(core, number, properties).await,
        Acked::Refused(refusal) => refuse(core, number, refusal).await,
        Acked::Lost => Ok(Outcome::Again(None)),
    }
}

async fn settle(
    core: &Core,
    number: u64,
    properties: Vec<(String, String)>,
) -> Result<Outcome, Error> {
    let properties: BTreeMap<_, _> = properties.into_iter().collect();
    let settled = Settled {
        cid: properties.get("cid").and_then(|cid| cid.parse().ok()),
        seq: properties.get("seq").and_then(|seq| seq.parse().ok()),
        ts: properties
            .get("ts")
            .and_then(|ts| ts.parse().ok())
            .unwrap_or(0),
    };
    let (cid, seq) = (settled.cid, settled.seq);
    let taken = store::run(&core.store, move |store| store.settle(number, &settled)).await?;
    Ok(Outcome::Settled { taken, cid, seq })
}

async fn refuse(core: &Core, number: u64, refusal: Refusal) -> Result<Outcome, Error> {
    if refusal.is(ErrorName::Rate) || refusal.is(ErrorName::Unavailable) {
        return Ok(Outcome::Again(Some(refusal.retry_after.unwrap_or(AGAIN))));
    }
    let (code, message) = (refusal.code.clone(), refusal.message.clone());
    let fail = move |store: &store::Store| store.fail(number, &code, &message);
    let taken = store::run(&core.store, fail).await?;
    Ok(Outcome::Failed { refusal, taken })
}

/// Who the user is, what changed, and where something is missing.
pub(super) type Greeting = (Profile, Taken, Vec<ConversationId>);

/// Learns who the user is, and what changed since the last time.
pub(super) async fn hello(core: Arc<Core>, introduce: bool, generation: u64) -> Done {
    let hello = greet(&core, introduce).await;
    Done::Hello { hello, generation }
}

async fn greet(core: &Core, introduce: bool) -> Result<Greeting, Error> {
    let known = store::run(&core.store, store::Store::profile).await?;
    let profile = match known {
        Some(profile) if !introduce => profile,
        _ => match call_patiently(core, "me.get", Params::MeGet(MeGet {})).await? {
            Reply::Me(me) => store::run(&core.store, move |store| store.adopt(&me)).await?,
            _ => return Err(unexpected("me.get")),
        },
    };
    let version = store::run(&core.store, store::Store::version).await?;
    // A new store is told everything by the subscription.
    let mut taken = Taken::default();
    if version > 0 {
        sync(core, version, &mut taken).await?;
    }
    let gaps = store::run(&core.store, store::Store::gaps).await?;
    Ok((profile, taken, gaps))
}

async fn sync(core: &Core, version: u64, taken: &mut Taken) -> Result<(), Error> {
    let mut asked = SyncChanges {
        ver: Some(version),
        limit: Some(200),
        ..SyncChanges::default()
    };
    loop {
        let reply = call_patiently(core, "sync.changes", Params::SyncChanges(asked)).await?;
        let Reply::Changes(event) = reply else {
            return Err(unexpected("sync.changes"));
        };
        let next = event.next.clone();
        let batch = vec![Inbound::Account(Box::new(event))];
        taken.merge(store::run(&core.store, move |store| store.take(batch)).await?);
        match next {
            Some(next) => {
                asked = SyncChanges {
                    next: Some(next),
                    limit: Some(200),
                    ..SyncChanges::default()
                }
            }
            None => return Ok(()),
        }
    }
}

/// Fills the gap behind the run of a conversation, page by page, until there is none, or the app has enough to do.
pub(super) async fn fill(core: Arc<Core>, cid: ConversationId) -> Done {
    Done::Filled(cid, fill_all(&core, cid).await)
}

async fn fill_all(core: &Core, cid: ConversationId) -> Result<Taken, Error> {
    let mut filled = Taken::default();
    let mut reached = None;
    loop {
        let gap = store::run(&core.store, move |store| store.gap(cid)).await?;
        let Some((after, known)) = gap else {
            filled.gaps.clear();
            return Ok(filled);
        };
        let room = core
            .config
            .limits
            .feed_entries_max
            .saturating_sub(core.store.waiting());
        // A page that led nowhere is not asked for again at once.
        if room == 0 || reached == Some(after) {
            filled.conversations.insert(cid);
            filled.gaps.insert(cid);
            return Ok(filled);
        }
        reached = Some(after);
        let asked = MsgHistory {
            cid: cid.to_string(),
            after: Some(after.get()),
            limit: Some(u32::try_from(room).unwrap_or(PAGE).min(PAGE)),
            ..MsgHistory::default()
        };
        filled.merge(fill_page(core, cid, known, asked).await?);
    }
}

async fn fill_page(
    core: &Core,
    cid: ConversationId,
    known: Seq,
    asked: MsgHistory,
) -> Result<Taken, Error> {
    let mut page = match history(core, asked).await {
        // Not a member any more: there is nothing to be had.
        Err(Error::Refused(refusal)) if refusal.is(ErrorName::NotFound) => Page {
            entries: Vec::new(),
            more: false,
            head: 0,
        },
        page => page?,
    };
    // What was known of and is not told is not to be had.
    page.head = page.head.max(known.get());
    store::run(&core.store, move |store| store.fill(cid, page)).await
}

/// Fetches some messages again that were marked as stale.
pub(super) async fn refresh(core: Arc<Core>) -> Done {
    Done::Refreshed(refresh_some(&core).await)
}

async fn refresh_some(core: &Core) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let all = store::run(&core.store, |store| store.stale(REFRESH_MAX)).await?;
    for stale in all {
        let Stale { cid, seq, .. } = stale;
        let asked = MsgHistory {
            cid: cid.to_string(),
            after: Some(seq.previous().get()),
            limit: Some(1),
            ..MsgHistory::default()
        };
        let entry = match history(core, asked).await {
            Ok(page) => page
                .entries
                .into_iter()
                .find(|entry| entry.seq == seq.get()),
            // It stays, and is asked for again when the next one is marked, or with the next connection.
            Err(Error::Refused(refusal)) if refusal.is(ErrorName::Unavailable) => continue,
            Err(Error::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        taken.merge(store::run(&core.store, move |store| store.refresh(&stale, entry)).await?);
        // There may be more of them.
        taken.stale = true;
    }
    Ok(taken)
}

/// Ends bodies whose time is over.
pub(super) async fn expire(core: Arc<Core>) -> Done {
    Done::Expired(store::run(&core.store, store::Store::expire).await)
}

/// A publish that is not kept: presence.
pub(crate) async fn publish(core: &Core, topic: &str, payload: Bytes) -> Result<(), Error> {
    let (reply, answer) = oneshot::channel();
    let command = Command::Publish(Outgoing::plain(topic, payload), reply);
    settled(core, command, answer).await
}

/// Asks the worker, and waits as long as for a call.
pub(crate) async fn settled<T>(
    core: &Core,
    command: Command,
    answer: oneshot::Receiver<Result<T, Error>>,
) -> Result<T, Error> {
    let timeout: Duration = core.config.limits.call_timeout;
    let asked = async {
        core.commands
            .send(command)
            .await
            .map_err(|_| core.ended())?;
        answer.await.map_err(|_| core.ended())?
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Timeout(timeout)),
    }
}
