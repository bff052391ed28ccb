//! One read after the other: a call, a mark, or a page by SUBSCRIBE.

use std::sync::Arc;

use broker::codec::packet::{
    Packet, PacketId, Publish, Qos, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe,
};
use broker::codec::properties::{PublishProperties, SubscribeProperties};
use broker::codec::topic::TopicFilter;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::{Op, Open, Person, ReadKind, What};
use crate::error::BenchError;

/// The read that goes on.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) kind: ReadKind,
    due: u64,
    pub(super) packet_id: PacketId,
    /// Where its answer comes.
    pub(super) topic: String,
    /// Entries that are missing in a page by SUBSCRIBE.
    pub(super) left: u16,
    pub(super) is_subscribed: bool,
    /// A call: the request has its PUBACK, the reply is missing.
    pub(super) is_acked: bool,
}

/// A reply, as far as it is looked at.
#[derive(Deserialize)]
struct Reply {
    ok: Option<Changes>,
}

#[derive(Deserialize)]
struct Changes {
    ver: Option<u64>,
}

impl Person {
    /// Begins one.
    pub(super) fn read(&mut self, op: Op) -> Result<(), BenchError> {
        let conversations = Arc::clone(&self.task.conversations);
        let (Some(conversation), What::Read(kind)) = (conversations.get(op.conversation), op.what)
        else {
            return Ok(());
        };
        let is_call = matches!(kind, ReadKind::History | ReadKind::Changes);
        let open = if is_call { Open::Call } else { Open::Reading };
        let Some(packet_id) = self.reserve(open) else {
            return Ok(());
        };
        self.calls += 1;
        let (cid, page) = (conversation.cid(), self.task.page);
        let id = format!("mqb-{:08x}-r{}", self.task.run, self.calls);
        let topic = match kind {
            ReadKind::History => {
                // Every other one goes back to the beginning.
                let request = if self.calls.is_multiple_of(2) {
                    json!({"cid": cid, "limit": page})
                } else {
                    json!({"cid": cid, "after": self.calls % u64::from(page), "limit": page})
                };
                let to = format!("chat/rpc/msg.history/{id}");
                self.publish(&to, packet_id, request.to_string().into());
                format!("chat/me/rpc/{id}")
            }
            ReadKind::Changes => {
                let request = json!({"ver": self.ver, "limit": 100}).to_string();
                let to = format!("chat/rpc/sync.changes/{id}");
                self.publish(&to, packet_id, request.into());
                format!("chat/me/rpc/{id}")
            }
            ReadKind::Mark => {
                // All that has come to this device.
                self.publish(&format!("chat/c/{cid}/read"), packet_id, Bytes::new());
                String::new()
            }
            ReadKind::Last => {
                let filter = format!("chat/c/{cid}/log/last/{page}");
                let subscribe = Packet::Subscribe(Subscribe {
                    packet_id,
                    properties: SubscribeProperties::default(),
                    filters: vec![SubscribeFilter {
                        filter: topic_filter(&filter)?,
                        qos: Qos::AtLeastOnce,
                        no_local: false,
                        retain_as_published: false,
                        retain_handling: RetainHandling::Always,
                    }],
                });
                self.client.push(&subscribe);
                filter
            }
        };
        self.reading = Some(Reading {
            kind,
            due: op.due,
            packet_id,
            topic,
            left: page,
            is_subscribed: false,
            is_acked: false,
        });
        Ok(())
    }

    fn publish(&mut self, topic: &str, packet_id: PacketId, payload: Bytes) {
        self.client.push(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            packet_id: Some(packet_id),
            payload,
            properties: PublishProperties::default().into(),
        }));
    }

    /// A call was answered.
    pub(super) fn handle_reply(&mut self, payload: &[u8], now: u64) {
        if let Ok(Reply { ok: Some(changes) }) = serde_json::from_slice(payload) {
            self.ver = changes.ver.unwrap_or(self.ver);
            self.finish_reading(now);
        } else {
            let told = String::from_utf8_lossy(payload);
            self.seen.refuse(told.chars().take(200).collect());
            self.reading = None;
        }
    }

    /// A page by SUBSCRIBE is complete: it was read, and nothing more is wanted.
    pub(super) fn check_page(&mut self, now: u64) -> Result<(), BenchError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        if reading.left > 0 || !reading.is_subscribed {
            return Ok(());
        }
        reading.is_subscribed = false; // once
        let unsubscribe = Packet::Unsubscribe(Unsubscribe {
            packet_id: reading.packet_id,
            properties: SubscribeProperties::default(),
            filters: vec![topic_filter(&reading.topic)?],
        });
        self.client.push(&unsubscribe);
        let (kind, due) = (reading.kind, reading.due);
        self.note_read(kind, due, now);
        Ok(())
    }

    pub(super) fn finish_reading(&mut self, now: u64) {
        if let Some(reading) = self.reading.take() {
            self.note_read(reading.kind, reading.due, now);
        }
    }

    /// Its answer is not waited for any more: it counts as long as it has waited.
    pub(super) fn give_up_reading(&mut self) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        // Of all others a place is open, and counted.
        self.seen.unacked += u64::from(reading.is_acked);
        let schedule = self.task.schedule;
        if schedule.measures(reading.due) {
            let waited = schedule.clock.nanos().saturating_sub(reading.due);
            self.seen.kept_back(What::Read(reading.kind), waited);
        }
    }

    fn note_read(&mut self, kind: ReadKind, due: u64, now: u64) {
        let schedule = self.task.schedule;
        let took = schedule.measures(due).then(|| now.saturating_sub(due));
        self.seen.note_read(kind, took, schedule.measures(now));
    }
}

fn topic_filter(filter: &str) -> Result<TopicFilter, BenchError> {
    TopicFilter::parse(filter.into()).map_err(|_| BenchError::Filter(filter.to_owned()))
}
