//! Re-authentication on a live connection (MQTT 5.0 §4.12.1): whose turn it is. What is said belongs to the method.

use bytestring::ByteString;

use super::{Action, ProtocolError, Session};
use crate::codec::packet::{Auth, Packet};
use crate::codec::properties::AuthProperties;
use crate::codec::reason::ReasonCode;

/// Whose AUTH comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// No authentication is going on: the client may begin one.
    #[default]
    Nobody,
    Client,
    Server,
}

impl Session {
    pub(super) fn handle_auth(
        &mut self,
        auth: Auth,
        out: &mut Vec<Action>,
    ) -> Result<(), ProtocolError> {
        let method = self.terms.authentication_method.as_ref();
        let method = method.ok_or(ProtocolError::UnexpectedAuth)?;
        if auth.properties.authentication_method.as_ref() != Some(method) {
            return Err(ProtocolError::AuthenticationMethodChanged);
        }
        let begin = match (auth.reason, self.authentication) {
            (ReasonCode::ReAuthenticate, Turn::Nobody) => true,
            (ReasonCode::ContinueAuthentication, Turn::Client) => false,
            _ => return Err(ProtocolError::AuthOutOfTurn),
        };
        self.authentication = Turn::Server;
        out.push(Action::Authenticate {
            begin,
            data: auth.properties.authentication_data.unwrap_or_default(),
        });
        Ok(())
    }

    /// The method by which the client was authenticated.
    pub(crate) fn authentication_method(&self) -> ByteString {
        let method = self.terms.authentication_method.clone();
        method.unwrap_or_default()
    }

    /// The method's answer: to go on, or (with `done`) that the client is who it was.
    pub(crate) fn handle_authenticated(
        &mut self,
        done: bool,
        data: Option<bytes::Bytes>,
        out: &mut Vec<Action>,
    ) {
        self.authentication = if done { Turn::Nobody } else { Turn::Client };
        let packet = auth_packet(self.authentication_method(), done, data);
        out.push(Action::Send(Box::new(Packet::Auth(packet))));
    }
}

/// AUTH from the server.
pub(crate) fn auth_packet(method: ByteString, done: bool, data: Option<bytes::Bytes>) -> Auth {
    Auth {
        reason: if done {
            ReasonCode::Success
        } else {
            ReasonCode::ContinueAuthentication
        },
        properties: AuthProperties {
            authentication_method: Some(method),
            authentication_data: data,
            ..AuthProperties::default()
        },
    }
}
