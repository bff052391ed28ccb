//! Remote calls of mqchat, one at a time. One that changes something is sent again, under its id, until its reply comes.

use broker::codec::packet::{Packet, PacketId, Publish, Qos};
use broker::codec::properties::PublishProperties;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Worker;
use crate::check::history::{Event, State};
use crate::check::worker::entry;
use crate::client::Client;
use crate::clock;
use crate::error::BenchError;

/// A call under way.
#[derive(Clone, Debug)]
pub(super) struct Call {
    id: String,
    method: &'static str,
    body: String,
    /// About which conversation.
    to: String,
    purpose: Purpose,
    asked: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is waited for.
    Wait,
    /// Its reply is recorded.
    State,
    /// It changes something.
    Change,
}

/// What a call that is waited for came to.
#[derive(Debug)]
pub(super) enum Reply {
    Result(Value),
    Refused,
}

impl Worker<'_> {
    fn call(&mut self, call: Call, client: &mut Client) {
        client.push(&call.publish());
        self.call = Some(call);
    }

    fn new_call(&self, method: &'static str, body: &Value, to: &str, purpose: Purpose) -> Call {
        let asked = clock::monotonic_micros();
        Call {
            id: format!("{}-c{asked}", self.part.name),
            method,
            body: body.to_string(),
            to: to.to_owned(),
            purpose,
            asked,
        }
    }

    /// Asks how a conversation is; the reply is recorded when it comes.
    pub(super) fn ask_state(&mut self, to: &str, client: &mut Client) {
        let call = self.new_call("conv.get", &json!({"cid": to}), to, Purpose::State);
        self.call(call, client);
    }

    /// Removes the one who is to be removed now and then, or adds him.
    pub(super) fn remove_or_add(&mut self, client: &mut Client) -> Result<(), BenchError> {
        let Some((cid, user)) = &self.part.removes else {
            return Ok(());
        };
        let member = format!("@{user}");
        let (method, body) = if self.has_removed {
            ("conv.add", json!({"cid": cid, "members": [member]}))
        } else {
            (REMOVE, json!({"cid": cid, "member": member}))
        };
        self.has_removed = !self.has_removed;
        let call = self.new_call(method, &body, cid, Purpose::Change);
        self.journal.write(Event::Called {
            id: call.id.clone(),
            method: method.to_owned(),
        })?;
        self.call(call, client);
        Ok(())
    }

    /// A new connection: what only asked is forgotten.
    pub(super) fn ask_again(&mut self, client: &mut Client) {
        self.reply = None;
        match self.call.take() {
            Some(call) if call.purpose == Purpose::Change => self.call(call, client),
            _ => {}
        }
    }

    /// A reply came.
    pub(super) fn replied(&mut self, id: &str, mut value: Value) -> Result<(), BenchError> {
        let Some(call) = self.call.take_if(|call| call.id == id) else {
            return Ok(()); // of an earlier one
        };
        let result = value.get_mut("ok").map(Value::take);
        let Call { id, to, asked, .. } = call;
        match (call.purpose, result) {
            (Purpose::Wait, Some(result)) => self.reply = Some(Reply::Result(result)),
            (Purpose::Wait, None) => self.reply = Some(Reply::Refused),
            (Purpose::State, Some(result)) => {
                let state = entry::state(&result);
                self.journal.write(Event::State { to, asked, state })?;
            }
            (Purpose::Change, Some(result)) => {
                let seq = entry::number(&result, "seq");
                self.journal.write(Event::Answered { id, to, seq })?;
            }
            (Purpose::State | Purpose::Change, None) => {} // refused: no member at the moment
        }
        Ok(())
    }

    /// Calls and waits for the reply; `None` if it is refused.
    pub(super) async fn ask(
        &mut self,
        method: &'static str,
        body: &Value,
        client: &mut Client,
    ) -> Result<Option<Value>, BenchError> {
        let call = self.new_call(method, body, "", Purpose::Wait);
        self.call(call, client);
        loop {
            self.turn(client).await?;
            match self.reply.take() {
                Some(Reply::Result(result)) => return Ok(Some(result)),
                Some(Reply::Refused) => return Ok(None),
                None => {}
            }
        }
    }

    /// How a conversation is now; `None` for who is no member.
    pub(super) async fn state_of(
        &mut self,
        to: &str,
        client: &mut Client,
    ) -> Result<Option<State>, BenchError> {
        let reply = self.ask("conv.get", &json!({"cid": to}), client).await?;
        Ok(reply.as_ref().map(entry::state))
    }
}

impl Call {
    fn publish(&self) -> Packet {
        Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: format!("chat/rpc/{}/{}", self.method, self.id).into(),
            packet_id: Some(CALL_ID),
            payload: Bytes::from(self.body.clone()),
            properties: PublishProperties::default().into(),
        })
    }
}

pub(super) const REMOVE: &str = "conv.remove";

/// One call at a time; its reply comes when it is settled, and its PUBACK is not waited for.
const CALL_ID: PacketId = match PacketId::new(60_001) {
    Some(packet_id) => packet_id,
    None => unreachable!(),
};
