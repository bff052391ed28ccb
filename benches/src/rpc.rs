//! Remote calls of mqchat, one at a time.

use std::time::Duration;

use broker::codec::packet::{Packet, PacketId, Publish, Qos};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::Client;
use crate::crowd::{Role, connect_patiently, login};
use crate::error::BenchError;
use crate::scenario::Bench;

/// Lets this connection get replies; once, before the first call.
pub(crate) async fn subscribe(client: &mut Client) -> Result<(), BenchError> {
    client.subscribe("chat/me/rpc/+", Qos::AtLeastOnce).await?;
    Ok(())
}

/// Calls a method, under a request id of its own, and gives its result; other deliveries go to `other`.
pub(crate) async fn call(
    client: &mut Client,
    method: &'static str,
    request: &Value,
    id: &str,
    mut other: impl FnMut(&Publish),
) -> Result<Value, BenchError> {
    let refused = |told: String| BenchError::Call { method, told };
    let reply_topic = format!("chat/me/rpc/{id}");
    let mut reply = None;
    let mut take = |publish: &Publish| {
        if *publish.topic == *reply_topic {
            reply = Some(publish.payload.clone());
        } else {
            other(publish);
        }
    };
    let topic = format!("chat/rpc/{method}/{id}");
    let body = Bytes::from(request.to_string());
    let reason = client.publish_and_wait(&topic, body, &mut take).await?;
    if reason.is_error() {
        return Err(refused(format!("{reason:?}")));
    }
    // The reply may come before or after the ack.
    let reply = loop {
        if let Some(reply) = reply {
            break reply;
        }
        let answer = client.answer().await.map_err(|error| match error {
            // Any broker takes the request, as a message that nobody has subscribed to.
            BenchError::Timeout { .. } => refused("no reply: is it mqchat?".to_owned()),
            other => other,
        });
        match answer? {
            Packet::Publish(publish) => {
                client.acknowledge(&publish);
                if *publish.topic == *reply_topic {
                    reply = Some(publish.payload);
                } else {
                    other(&publish);
                }
            }
            unexpected => return Err(client.unexpected(&unexpected)),
        }
    };
    let mut parsed: Value = serde_json::from_slice(&reply).unwrap_or_default();
    match parsed.get_mut("ok") {
        Some(result) => Ok(result.take()),
        None => Err(refused(String::from_utf8_lossy(&reply).into_owned())),
    }
}

/// Is it mqchat? Any other broker acknowledges what is published to chat topics as well, and delivers nothing.
pub(crate) async fn ask_for_chat(bench: &Bench) -> Result<(), BenchError> {
    let mut login = login(&bench.target, Role::Subscriber, 0, 0, bench.run, false);
    login.client_id.push_str("-asks");
    let mut client = connect_patiently(&login, bench.clock).await?.client;
    subscribe(&mut client).await?;
    let (request, id) = (json!({"limit": 1}), format!("mqb-{:08x}-chat", bench.run));
    let asking = call(&mut client, "sync.changes", &request, &id, drop_it);
    let answered = timeout(CHAT_TIMEOUT, asking).await;
    answered.map_err(|_| BenchError::NotChat)??;
    client.disconnect().await
}

/// Makes a group of these handles, under a request id of its own, and gives its `cid`.
pub(crate) async fn create_group(
    client: &mut Client,
    handles: &[String],
    id: &str,
) -> Result<String, BenchError> {
    create(client, "group", handles, id).await
}

/// Makes a channel with these handles as readers, under a request id of its own, and gives its `cid`.
pub(crate) async fn create_channel(
    client: &mut Client,
    handles: &[String],
    id: &str,
) -> Result<String, BenchError> {
    create(client, "channel", handles, id).await
}

async fn create(
    client: &mut Client,
    kind: &str,
    handles: &[String],
    id: &str,
) -> Result<String, BenchError> {
    let members: Vec<_> = handles.iter().map(|handle| format!("@{handle}")).collect();
    let mut parts = members.chunks(MEMBERS_AT_ONCE);
    let first = parts.next().unwrap_or_default();
    let request = json!({"kind": kind, "title": "mqchat-bench", "members": first});
    subscribe(client).await?;
    let made = call(client, "conv.create", &request, id, drop_it).await?;
    let cid = made.get("cid").and_then(Value::as_str);
    let cid = cid.map(str::to_owned).ok_or_else(|| BenchError::Call {
        method: "conv.create",
        told: made.to_string(),
    })?;
    for (number, part) in parts.enumerate() {
        let request = json!({"cid": cid, "members": part});
        let id = format!("{id}-{number}");
        call(client, "conv.add", &request, &id, drop_it).await?;
    }
    Ok(cid)
}

/// `chat/me/err/@{packet id}` tells in 3.1.1 which publish was refused, before its ack.
pub(crate) fn refused_id(topic: &str) -> Option<PacketId> {
    let number = topic.strip_prefix("chat/me/err/@")?;
    PacketId::new(number.parse().ok()?)
}

/// A server that is there answers this at once.
const CHAT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request has a limited size.
const MEMBERS_AT_ONCE: usize = 500;

/// For who expects nothing else.
pub(crate) const fn drop_it(_: &Publish) {}
