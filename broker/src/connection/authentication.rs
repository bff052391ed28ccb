//! Enhanced authentication (MQTT 5.0 §4.12): the dialogue between a client and a method.
//!
//! At CONNECT the dialogue is carried on before anything else happens. On a live connection each step runs beside it, and
//! comes back by its mailbox.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::Connection;
use super::handshake::{Cause, Refused};
use super::link::Link;
use crate::codec::encode::encoded_len;
use crate::codec::packet::{Connect, Packet, Version};
use crate::codec::reason::ReasonCode;
use crate::hooks::{AuthenticateRequest, Authentication, AuthenticationStep, ClientInfo, Identity};
use crate::scram::{self, Scram};
use crate::server::Server;
use crate::session::{Action, auth_packet};

/// A step on a live connection, and what it came to.
pub(crate) struct Stepped {
    /// To go on with.
    pub(crate) dialogue: Box<dyn Authentication>,
    pub(crate) step: AuthenticationStep,
}

/// Asks who a CONNECT with an authentication method is. Returns also what CONNACK is to carry.
pub(super) async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Server,
    link: &mut Link<S>,
    connect: &mut Connect,
    method: &ByteString,
    request: AuthenticateRequest,
) -> Result<(Identity, Option<Bytes>), Refused> {
    let refuse = |reason| Refused::with(Version::V5, reason);
    let mut dialogue = begin(server, method, request).await.map_err(refuse)?;
    let mut data = connect.properties.authentication_data.take();
    loop {
        let step = dialogue.step(data.unwrap_or_default()).await;
        let challenge = match step.map_err(refuse)? {
            AuthenticationStep::Done { identity, data } => return Ok((identity, data)),
            AuthenticationStep::Continue(challenge) => challenge,
        };
        let auth = Packet::Auth(auth_packet(method.clone(), false, Some(challenge)));
        let len = encoded_len(&auth, Version::V5) as u64;
        let max = connect.properties.maximum_packet_size;
        if max.is_some_and(|max| len > u64::from(max)) {
            return Err(Refused::silently(Cause::AnswerTooLarge));
        }
        link.send(&auth, Version::V5);
        data = answer(link, method).await?;
    }
}

/// The client's next AUTH; until CONNACK it may send nothing else but DISCONNECT [MQTT-3.1.2-30].
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    method: &ByteString,
) -> Result<Option<Bytes>, Refused> {
    link.flush()
        .await
        .map_err(|error| Refused::silently(Cause::Read(error.into())))?;
    match link.read_packet().await {
        Ok(Some(Packet::Auth(auth)))
            if auth.reason == ReasonCode::ContinueAuthentication
                && auth.properties.authentication_method.as_ref() == Some(method) =>
        {
            Ok(auth.properties.authentication_data)
        }
        Ok(None | Some(Packet::Disconnect(_))) => Err(Refused::silently(Cause::Closed)),
        Ok(Some(_)) => Err(Refused::with(Version::V5, ReasonCode::ProtocolError)),
        Err(error) => Err(Refused::unreadable(error, Some(Version::V5))),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes a step of a re-authentication, beside the connection. A refusal asks the connection to close.
    pub(super) fn authenticate(&mut self, begin: bool, data: Bytes) {
        let dialogue = self.dialogue.take().filter(|_| !begin);
        let (server, client) = (Arc::clone(&self.server), Arc::clone(&self.client));
        let method = self.session.authentication_method();
        self.server.tasks.spawn(async move {
            let step = step(&server, &client, &method, dialogue, data);
            match server.stop.run_until_cancelled(step).await {
                Some(Ok(stepped)) => client.mailbox.stepped(stepped),
                Some(Err(reason)) => client.mailbox.close(reason),
                None => {}
            }
        });
    }

    pub(super) fn handle_stepped(&mut self, stepped: Stepped, out: &mut Vec<Action>) {
        match stepped.step {
            AuthenticationStep::Continue(data) => {
                self.dialogue = Some(stepped.dialogue);
                self.session.handle_authenticated(false, Some(data), out);
            }
            AuthenticationStep::Done { data, .. } => {
                self.session.handle_authenticated(true, data, out);
            }
        }
    }
}

/// A step of a re-authentication. The reasons are those that DISCONNECT may carry.
async fn step(
    server: &Server,
    client: &ClientInfo,
    method: &ByteString,
    dialogue: Option<Box<dyn Authentication>>,
    data: Bytes,
) -> Result<Stepped, ReasonCode> {
    let stepping = async {
        let mut dialogue = match dialogue {
            Some(dialogue) => dialogue,
            None => begin(server, method, again(client)).await?,
        };
        let step = dialogue.step(data).await?;
        Ok(Stepped { dialogue, step })
    };
    match timeout(server.config.connect_timeout(), stepping).await {
        Ok(Ok(stepped)) => match &stepped.step {
            AuthenticationStep::Done { identity, .. } if identity.user != client.identity.user => {
                Err(ReasonCode::NotAuthorized)
            }
            _ => Ok(stepped),
        },
        Ok(Err(ReasonCode::ServerBusy | ReasonCode::ServerUnavailable)) | Err(_) => {
            Err(ReasonCode::ServerBusy)
        }
        Ok(Err(_)) => Err(ReasonCode::NotAuthorized),
    }
}

/// What is asked of somebody who was let in before.
fn again(client: &ClientInfo) -> AuthenticateRequest {
    AuthenticateRequest {
        client_id: client.client_id.clone(),
        user_name: None,
        password: None,
        certificate: None,
        peer: client.peer,
        version: client.version,
    }
}

async fn begin(
    server: &Server,
    method: &str,
    request: AuthenticateRequest,
) -> Result<Box<dyn Authentication>, ReasonCode> {
    if method != scram::METHOD {
        return server.hooks.begin_authentication(method, request).await;
    }
    let secret = server
        .scram_secret()
        .map_err(|_| ReasonCode::ServerUnavailable)?;
    Ok(Box::new(Scram::new(
        Arc::clone(&server.hooks),
        secret,
        request,
    )))
}

impl std::fmt::Debug for Stepped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stepped").finish_non_exhaustive()
    }
}
