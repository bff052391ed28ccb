//! A group of mqchat, made by remote call over MQTT.

use broker::codec::packet::{Packet, Publish, Qos};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::BenchError;

/// Makes a group of these handles and gives its `cid`.
pub(super) async fn create(
    client: &mut Client,
    handles: &[String],
    run: u32,
) -> Result<String, BenchError> {
    let members: Vec<_> = handles.iter().map(|handle| format!("@{handle}")).collect();
    let request = json!({"kind": "group", "title": "mqchat-bench", "members": members});
    let request_id = format!("mqb-{run:08x}");
    let reply_topic = format!("chat/me/rpc/{request_id}");
    client.subscribe("chat/me/rpc/+", Qos::AtLeastOnce).await?;
    let mut reply = None;
    let mut take = |publish: &Publish| {
        if *publish.topic == *reply_topic {
            reply = Some(publish.payload.clone());
        }
    };
    let topic = format!("chat/rpc/conv.create/{request_id}");
    let body = Bytes::from(request.to_string());
    let reason = client.publish_and_wait(&topic, body, &mut take).await?;
    if reason.is_error() {
        return Err(BenchError::Group(format!("{reason:?}")));
    }
    // The reply may come before or after the ack.
    let reply = loop {
        if let Some(reply) = reply {
            break reply;
        }
        match client.answer().await? {
            Packet::Publish(publish) => {
                client.acknowledge(&publish);
                reply = (*publish.topic == *reply_topic).then_some(publish.payload);
            }
            other => return Err(client.unexpected(&other)),
        }
    };
    let parsed: Value = serde_json::from_slice(&reply).unwrap_or_default();
    match parsed.pointer("/ok/cid").and_then(Value::as_str) {
        Some(cid) => Ok(cid.to_owned()),
        None => Err(BenchError::Group(
            String::from_utf8_lossy(&reply).into_owned(),
        )),
    }
}
