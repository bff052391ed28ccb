//! Remote calls that wait for their reply. A call is asked again after a reconnect, with the same request id: what
//! it changes is changed once.

use std::collections::HashMap;

use bytes::Bytes;
use proto::schema::rpc_reply::Result as Outcome;
use proto::schema::{Message, RpcReply};
use rumqttc::Publish;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::connection::Outgoing;
use crate::error::{Error, Refusal};

/// Where replies come. The correlation data tell which call it is.
const RESPONSE_TOPIC: &str = "chat/me/rpc/sdk";

/// To whom a reply goes.
pub(crate) type Reply = oneshot::Sender<Result<Outcome, Error>>;

/// One call.
pub(crate) struct Call {
    method: String,
    request: Bytes,
    reply: Reply,
}

/// All that wait.
#[derive(Default)]
pub(crate) struct Calls(HashMap<Uuid, Call>);

impl Calls {
    /// Adds one, unless there are as many as there may be, or this one waits already.
    pub(crate) fn add(
        &mut self,
        id: Uuid,
        (method, request): (String, Bytes),
        reply: Reply,
        max: usize,
    ) -> bool {
        self.0.retain(|_, call| !call.reply.is_closed());
        if self.0.len() >= max {
            // Whoever called may have gone; then nobody is told.
            let _ = reply.send(Err(Error::Busy(max)));
            return false;
        }
        if self.0.contains_key(&id) {
            let twice = "this request is being made".to_owned();
            let _ = reply.send(Err(Error::Invalid(twice)));
            return false;
        }
        let call = Call {
            method,
            request,
            reply,
        };
        self.0.insert(id, call);
        true
    }

    /// All that have to be asked on a new connection.
    pub(crate) fn waiting(&mut self) -> Vec<Uuid> {
        self.0.retain(|_, call| !call.reply.is_closed());
        self.0.keys().copied().collect()
    }

    /// What to publish for one.
    pub(crate) fn request(&self, id: Uuid) -> Option<Outgoing> {
        let call = self.0.get(&id)?;
        let topic = format!("chat/rpc/{}", call.method);
        let correlation = Bytes::copy_from_slice(id.as_bytes());
        let outgoing = Outgoing::protobuf(topic, call.request.clone());
        Some(outgoing.reply_to(RESPONSE_TOPIC, correlation))
    }

    /// A reply has come.
    pub(crate) fn answer(&mut self, publish: &Publish) {
        let properties = publish.properties.as_ref();
        let id = properties.and_then(|all| Uuid::from_slice(all.correlation_data.as_deref()?).ok());
        let Some(call) = id.and_then(|id| self.0.remove(&id)) else {
            return; // An answer to a call that was given up, or asked twice.
        };
        let outcome = match RpcReply::decode(publish.payload.clone()) {
            Ok(RpcReply {
                result: Some(Outcome::Error(error)),
            }) => {
                let mut refusal = Refusal::new(error.code, error.message);
                refusal.retry_after = error.retry_ms.map(std::time::Duration::from_millis);
                Err(Error::Refused(refusal))
            }
            Ok(RpcReply {
                result: Some(outcome),
            }) => Ok(outcome),
            Ok(RpcReply { result: None }) => Err(Error::Protocol("an empty reply".to_owned())),
            Err(error) => Err(Error::Protocol(error.to_string())),
        };
        let _ = call.reply.send(outcome);
    }

    /// None of them will be asked.
    pub(crate) fn end(&mut self, error: &Error) {
        for (_, call) in self.0.drain() {
            let _ = call.reply.send(Err(error.clone()));
        }
    }

    /// It was refused before it was carried out.
    pub(crate) fn refuse(&mut self, id: Uuid, refusal: Refusal) {
        if let Some(call) = self.0.remove(&id) {
            let _ = call.reply.send(Err(Error::Refused(refusal)));
        }
    }
}
