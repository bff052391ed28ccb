//! Remote calls: JSON in, JSON out, or protobuf in, protobuf out, to the asking connection only.
//!
//! In 5.0 the reply goes to the Response Topic with the Correlation Data; in 3.1.1 to `chat/me/rpc/{req}`, where `req`
//! is the last level of the topic of the call. A method that changes something is idempotent by what names the request:
//! the `req` and the Correlation Data together. A call costs tokens of the rates of its device and user by its work: one,
//! and one more for each conversation that is looked at, each member that is added, and every sixteen that are listed.

mod contacts;
mod devices;
mod groups;
mod joining;
mod members;
mod messages;
mod moderation;
mod people;
mod purges;
mod queues;
mod reading;
mod scheduled;
mod support;
mod sync;
mod wire;

use std::sync::Arc;

use broker::acl;
use broker::codec::packet::{Publish, Qos};
use bytes::Bytes;
use bytestring::ByteString;
use proto::ids::{MessageId, UserId, digest16};
use proto::payload;
use proto::rpc::{Failure, RawReply, parse_request, protobuf};
use proto::topics::{self, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::ChatPlugin;
use super::answer::{json_bytes, server_publish};
use super::peer::Peer;
use crate::domain::contact::{ContactChange, ContactList};
use crate::service::membership::Request;
use crate::service::{Refusal, new_mid};

/// Entries or members in a reply that cost as much as one message.
const LISTED_PER_TOKEN: usize = 16;

/// Where a reply goes.
struct Address {
    topic: String,
    correlation: Option<Bytes>,
    qos: Qos,
    identifiers: Vec<u32>,
}

impl ChatPlugin {
    /// Runs a call and sends its reply. A refusal is told in the reply; where no reply can go, it is returned.
    pub(super) async fn call(
        &self,
        peer: &Arc<Peer>,
        method: &str,
        req: Option<RequestId>,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        Self::check_rate(peer)?;
        let address = self.address(peer, req.as_ref(), publish)?;
        if !peer.reader.takes_replies() {
            return Err(Refusal::Limit("too many replies wait; read them first"));
        }
        let request = Request {
            actor: peer.actor,
            id: Self::request_id(method, req.as_ref(), publish)?,
            digest: digest16(&[method.as_bytes(), &publish.payload]),
        };
        let content_type = publish.properties.content_type.as_deref();
        let protobuf = payload::protobuf_in(content_type, &publish.payload);
        let form = protobuf.map_or(ReplyForm::Json, |_| ReplyForm::Protobuf);
        let result = match protobuf {
            Some(payload) => self.run_protobuf(peer, method, request, payload).await,
            None => self
                .run(peer, method, request, &publish.payload)
                .await
                .map(done_in_json),
        };
        let Some(address) = address else {
            return result.map(|_| ());
        };
        let reply = match result {
            Ok(reply) => reply,
            Err(refusal @ Refusal::Store(_)) => return Err(refusal),
            Err(refusal) => form.refusal(&refusal),
        };
        let around = address.topic.len() + address.identifiers.len() * 5 + 64;
        let correlation = address.correlation.as_ref().map_or(0, Bytes::len);
        let fits = reply.len() + around + correlation <= packet_of(peer);
        let reply = if fits {
            reply
        } else {
            form.refusal(&Refusal::Limit("larger than your Maximum Packet Size"))
        };
        let mut message = form.publish(&address.topic, reply);
        if address.correlation.is_some() {
            message.properties.correlation_data = address.correlation;
        }
        peer.reader
            .reply(Arc::new(message), address.qos, address.identifiers);
        Ok(())
    }

    /// Runs a call that came in protobuf, and returns its reply.
    async fn run_protobuf(
        &self,
        peer: &Peer,
        method: &str,
        request: Request,
        payload: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        self.check_size(payload)?;
        let params = protobuf::request_as_json(method, payload).map_err(Refusal::Format)?;
        if method == "msg.history" {
            return self
                .msg_history_in_protobuf(peer, self.parse(&params)?)
                .await;
        }
        let result = self.run(peer, method, request, &params).await?;
        protobuf::reply_from_json(method, result.get()).map_err(|error| {
            tracing::error!(method, error, "a result is not what the schema says");
            Refusal::Format(error)
        })
    }

    fn address(
        &self,
        peer: &Peer,
        req: Option<&RequestId>,
        publish: &Publish,
    ) -> Result<Option<Address>, Refusal> {
        let correlation = publish.properties.correlation_data.clone();
        let named = match (&publish.properties.response_topic, req) {
            (Some(topic), _) if !is_chat(topic) => {
                let request = acl::Request::Publish {
                    topic,
                    qos: Qos::AtMostOnce,
                    retain: false,
                };
                if acl::permit(self, &peer.reader.client, request).is_err() {
                    return Err(Refusal::Forbidden(
                        "you may not publish to the response topic",
                    ));
                }
                let topic = topic.to_string();
                return Ok(Some(Address {
                    topic,
                    correlation,
                    qos: Qos::AtLeastOnce,
                    identifiers: Vec::new(),
                }));
            }
            (Some(topic), _) => topics::parse_rpc_reply_topic(topic)
                .ok_or_else(|| Refusal::format("the response topic must be chat/me/rpc/{req}"))?,
            (None, Some(req)) => req.clone(),
            (None, None) => return Ok(None),
        };
        let Some(matched) = peer.reader.reply_subscription(named.as_str()) else {
            return Ok(None);
        };
        let topic = topics::rpc_reply_topic(&named);
        Ok(Some(Address {
            topic,
            correlation,
            qos: matched.qos,
            identifiers: matched.identifiers,
        }))
    }

    /// The same for every retry of a request; new for one that has no name.
    fn request_id(
        method: &str,
        req: Option<&RequestId>,
        publish: &Publish,
    ) -> Result<MessageId, Refusal> {
        let response = publish
            .properties
            .response_topic
            .as_deref()
            .unwrap_or_default();
        let correlation = publish
            .properties
            .correlation_data
            .as_deref()
            .unwrap_or_default();
        let req = req.map_or(response, RequestId::as_str);
        if req.is_empty() && correlation.is_empty() {
            return new_mid();
        }
        let digest = digest16(&[method.as_bytes(), req.as_bytes(), correlation]);
        format!("rpc:{}", UserId::from_bytes(digest))
            .parse()
            .map_err(|error| Refusal::format(format!("{error}")))
    }

    async fn run(
        &self,
        peer: &Peer,
        method: &str,
        request: Request,
        payload: &[u8],
    ) -> Result<Box<RawValue>, Refusal> {
        if peer.is_visitor && !super::visitors::MAY_CALL.contains(&method) {
            return Err(super::visitors::REFUSED);
        }
        match method {
            "conv.create" => raw(self.conv_create(peer, request, self.parse(payload)?)).await,
            "conv.get" => raw(self.conv_get(peer, self.parse(payload)?)).await,
            "conv.list" => raw(self.conv_list(peer, self.parse(payload)?)).await,
            "conv.add" => raw(self.conv_add(peer, request, self.parse(payload)?)).await,
            "conv.remove" => raw(self.conv_remove(peer, request, self.parse(payload)?)).await,
            "conv.leave" => raw(self.conv_leave(peer, request, self.parse(payload)?)).await,
            "conv.role" => raw(self.conv_role(peer, request, self.parse(payload)?)).await,
            "conv.settings" => raw(self.conv_settings(peer, request, self.parse(payload)?)).await,
            "conv.transfer" => raw(self.conv_transfer(peer, request, self.parse(payload)?)).await,
            "conv.rights" => raw(self.conv_rights(peer, request, self.parse(payload)?)).await,
            "conv.ban" => raw(self.conv_ban(peer, request, self.parse(payload)?)).await,
            "conv.unban" => raw(self.conv_unban(peer, request, self.parse(payload)?)).await,
            "conv.readers" => raw(self.conv_readers(peer, self.parse(payload)?)).await,
            "conv.bans" => raw(self.conv_bans(peer, self.parse(payload)?)).await,
            "conv.invite" => raw(self.conv_invite(peer, request, self.parse(payload)?)).await,
            "conv.invitations" => raw(self.conv_invitations(peer, self.parse(payload)?)).await,
            "conv.revoke" => raw(self.conv_revoke(peer, self.parse(payload)?)).await,
            "conv.peek" => raw(self.conv_peek(peer, self.parse(payload)?)).await,
            "conv.join" => raw(self.conv_join(peer, request, self.parse(payload)?)).await,
            "conv.requests" => raw(self.conv_requests(peer, self.parse(payload)?)).await,
            "conv.approve" => raw(self.conv_approve(peer, request, self.parse(payload)?)).await,
            "conv.refuse" => raw(self.conv_refuse(peer, self.parse(payload)?)).await,
            "conv.withdraw" => raw(self.conv_withdraw(peer, self.parse(payload)?)).await,
            "case.open" => raw(self.case_open(peer, request, self.parse(payload)?)).await,
            "case.queue" => raw(self.case_queue(peer, self.parse(payload)?)).await,
            "case.claim" => raw(self.case_claim(peer, request, self.parse(payload)?)).await,
            "case.transfer" => raw(self.case_transfer(peer, request, self.parse(payload)?)).await,
            "case.close" => raw(self.case_close(peer, request, self.parse(payload)?)).await,
            "case.visitor" => raw(self.case_visitor(peer, request, self.parse(payload)?)).await,
            "conv.trim" => raw(self.conv_trim(peer, request, self.parse(payload)?)).await,
            "mod.purge_user" => raw(self.mod_purge_user(peer, request, self.parse(payload)?)).await,
            "mod.held" => raw(self.mod_held(peer, self.parse(payload)?)).await,
            "mod.approve" => raw(self.mod_approve(peer, self.parse(payload)?)).await,
            "mod.reject" => raw(self.mod_reject(peer, self.parse(payload)?)).await,
            "mod.reports" => raw(self.mod_reports(peer, self.parse(payload)?)).await,
            "mod.settle" => raw(self.mod_settle(peer, self.parse(payload)?)).await,
            "me.export" => raw(self.me_export(peer, self.parse(payload)?)).await,
            "me.erase" => raw(self.me_erase(peer, self.parse(payload)?)).await,
            "msg.history" => raw(self.msg_history(peer, self.parse(payload)?)).await,
            "msg.send" => raw(self.msg_send(peer, request, self.parse(payload)?)).await,
            "msg.edit" => raw(self.msg_edit(peer, request, self.parse(payload)?)).await,
            "msg.delete" => raw(self.msg_delete(peer, request, self.parse(payload)?)).await,
            "msg.react" => raw(self.msg_react(peer, request, self.parse(payload)?)).await,
            "msg.pin" => raw(self.msg_pin(peer, request, self.parse(payload)?)).await,
            "msg.report" => raw(self.msg_report(peer, request, self.parse(payload)?)).await,
            "msg.pins" => raw(self.msg_pins(peer, self.parse(payload)?)).await,
            "msg.reactions" => raw(self.msg_reactions(peer, self.parse(payload)?)).await,
            "msg.mentions" => raw(self.msg_mentions(peer, self.parse(payload)?)).await,
            "msg.scheduled" => raw(self.msg_scheduled(peer, self.parse(payload)?)).await,
            "msg.reschedule" => raw(self.msg_reschedule(peer, self.parse(payload)?)).await,
            "msg.unschedule" => raw(self.msg_unschedule(peer, self.parse(payload)?)).await,
            "msg.status" => raw(self.msg_status(peer, self.parse(payload)?)).await,
            "conv.prefs" => raw(self.conv_prefs(peer, self.parse(payload)?)).await,
            "sync.changes" => raw(self.sync_changes(peer, self.parse(payload)?)).await,
            "me.get" => raw(self.me_get(peer, self.parse(payload)?)).await,
            "me.set" => raw(self.me_set(peer, self.parse(payload)?)).await,
            "me.privacy" => raw(self.me_privacy(peer, self.parse(payload)?)).await,
            "me.handle" => raw(self.me_handle(peer, self.parse(payload)?)).await,
            "me.devices" => raw(self.me_devices(peer, self.parse(payload)?)).await,
            "me.revoke" => raw(self.me_revoke(peer, self.parse(payload)?)).await,
            "me.delete" => raw(self.me_delete(peer, self.parse(payload)?)).await,
            "dev.list" => raw(self.dev_list(peer, self.parse(payload)?)).await,
            "dev.send" => raw(self.dev_send(peer, request, self.parse(payload)?)).await,
            "people.get" => raw(self.people_get(peer, self.parse(payload)?)).await,
            "search.users" => raw(self.search_users(peer, self.parse(payload)?)).await,
            "search.conversations" => {
                raw(self.search_conversations(peer, self.parse(payload)?)).await
            }
            "people.add" => raw(self.people_add(peer, self.parse(payload)?)).await,
            "people.remove" | "people.block" | "people.unblock" => {
                let change = match method {
                    "people.remove" => ContactChange::Remove,
                    "people.block" => ContactChange::Block,
                    _ => ContactChange::Unblock,
                };
                raw(self.change_contact(peer, self.parse(payload)?, change)).await
            }
            "people.list" | "people.blocks" => {
                let list = match method {
                    "people.list" => ContactList::Contacts,
                    _ => ContactList::Blocked,
                };
                raw(self.list_people(peer, list, self.parse(payload)?)).await
            }
            _ => Err(Refusal::UnknownMethod),
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&self, payload: &'a [u8]) -> Result<T, Refusal> {
        self.check_size(payload)?;
        parse_request(payload, self.payload_limits.json_depth_max).map_err(Refusal::format)
    }

    fn check_size(&self, payload: &[u8]) -> Result<(), Refusal> {
        if payload.len() > self.payload_limits.body_bytes_max {
            return Err(Refusal::format("the request is too large"));
        }
        Ok(())
    }
}

/// In which form a reply goes: that of its request.
#[derive(Clone, Copy)]
enum ReplyForm {
    Json,
    Protobuf,
}

impl ReplyForm {
    fn refusal(self, refusal: &Refusal) -> Vec<u8> {
        let failure = Failure {
            code: refusal.name(),
            message: refusal.to_string(),
            retry_ms: match refusal {
                Refusal::Rate { retry_ms } => Some(*retry_ms),
                _ => None,
            },
        };
        match self {
            Self::Json => json_bytes(&RawReply::Error(failure)),
            Self::Protobuf => protobuf::refusal(&failure),
        }
    }

    fn publish(self, topic: &str, reply: Vec<u8>) -> Publish {
        match self {
            Self::Json => server_publish(topic, reply, payload::JSON),
            Self::Protobuf => server_publish(topic, reply, payload::PROTOBUF),
        }
    }
}

fn done_in_json(result: Box<RawValue>) -> Vec<u8> {
    json_bytes(&RawReply::Ok(result))
}

/// Bytes of a payload that fit into a packet for this client, with its properties.
fn room_of(peer: &Peer) -> usize {
    const OVERHEAD: usize = 1_024;
    let packet = packet_of(peer);
    packet - OVERHEAD.min(packet / 4)
}

/// Bytes of the largest packet that this client takes.
fn packet_of(peer: &Peer) -> usize {
    let packet = peer.reader.client.packet_bytes_max;
    packet.map_or(usize::MAX, super::size)
}

fn is_chat(topic: &ByteString) -> bool {
    topic.split('/').next() == Some(topics::ROOT)
}

async fn raw<T: Serialize>(
    result: impl Future<Output = Result<T, Refusal>>,
) -> Result<Box<RawValue>, Refusal> {
    to_raw_value(&result.await?).map_err(|error| Refusal::format(error.to_string()))
}
