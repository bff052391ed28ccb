//! The end of a connection: DISCONNECT, the will, and what is kept of the session.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::Connection;
use super::handshake::{end_all, permit_will};
use super::link::Link;
use crate::clock;
use crate::codec::decode::DecodeError;
use crate::codec::encode::encoded_len;
use crate::codec::packet::{Disconnect, Packet, Version, Will};
use crate::codec::properties::DisconnectProperties;
use crate::codec::reason::ReasonCode;
use crate::hooks::SessionEnd;
use crate::journal::{Change, WillRow};
use crate::registry::{KeptSession, PendingWill, expires_at};
use crate::server::{Server, session_row};
use crate::session::{ProtocolError, will};

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("client disconnected")]
    Client { publish_will: bool },
    #[error("client closed the connection")]
    Closed,
    #[error("connection lost: {0}")]
    Lost(io::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("asked to close: {0:?}")]
    Asked(ReasonCode),
    #[error("client takes nothing")]
    WriteTimeout,
    #[error("server shuts down")]
    Shutdown,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn count(&self, end: &End) {
        let metrics = &self.server.metrics;
        match end {
            End::Decode(_) => metrics.protocol_errors.increment(),
            // What is below MQTT, TLS or WebSocket, found something wrong.
            End::Lost(error) if error.kind() == io::ErrorKind::InvalidData => {
                metrics.protocol_errors.increment();
            }
            End::Protocol(ProtocolError::KeepAliveTimeout) => {
                metrics.keep_alive_timeouts.increment();
            }
            End::Protocol(ProtocolError::ReceiveMaximumExceeded { .. }) => {
                metrics.receive_maximum_exceeded.increment();
                metrics.protocol_errors.increment();
            }
            End::Protocol(error) if error.is_violation() => metrics.protocol_errors.increment(),
            End::WriteTimeout => metrics.write_timeouts.increment(),
            _ => {}
        }
    }

    /// DISCONNECT, in 5.0 and where there is somebody to read it.
    pub(super) fn say_goodbye(&mut self, end: &End) {
        let reason = match end {
            End::Decode(error) => error.reason_code(),
            End::Protocol(error) => error.reason_code(),
            End::Asked(reason) => *reason,
            End::Shutdown => ReasonCode::ServerShuttingDown,
            End::Client { .. } | End::Closed | End::Lost(_) | End::WriteTimeout => return,
        };
        if self.session.version() == Version::V311 {
            return;
        }
        let explained = matches!(end, End::Decode(_) | End::Protocol(_));
        let mut disconnect = Disconnect {
            reason,
            properties: DisconnectProperties {
                reason_string: explained.then(|| end.to_string().into()),
                ..DisconnectProperties::default()
            },
        };
        let len = encoded_len(&Packet::Disconnect(disconnect.clone()), Version::V5);
        if !self.session.fits(|| len) {
            disconnect.properties = DisconnectProperties::default();
        }
        self.link.send(&Packet::Disconnect(disconnect), Version::V5);
    }

    /// Ends the session's part of the connection: the plugin is told, the session kept or discarded, the claim given up.
    #[expect(
        clippy::boxed_local,
        reason = "unboxed, the task would hold the connection twice"
    )]
    pub(super) fn finish(mut self: Box<Self>, end: &End) -> (Arc<Server>, Link<S>) {
        self.report();
        let now = clock::now();
        let server = self.server;
        let ended = self.session.end();
        let discarded = ended.session_expiry == 0;
        self.client.mailbox.shut();
        server.hooks.on_disconnected(
            &self.client,
            SessionEnd {
                discarded,
                session_expiry: ended.session_expiry,
                inflight: ended.inflight,
            },
        );
        let goodbye = matches!(
            end,
            End::Client {
                publish_will: false
            }
        );
        let mut pending_will = None;
        // Judged again: the rules may have been replaced since CONNECT.
        let allowed = |will: &Will| permit_will(&server, &self.client, will).is_ok();
        if let Some(will) = self.will.filter(|will| !goodbye && allowed(will)) {
            let due = will::due_at(&will, ended.session_expiry, now);
            let publish = will::into_publish(*will);
            match due {
                Some(due) => {
                    pending_will = Some(Box::new(PendingWill {
                        due,
                        publish,
                        name: Arc::clone(&self.client.identity.name),
                        client_id: self.client.client_id.clone(),
                    }));
                }
                None => server.publish_will(publish, self.subscriber.number(), now),
            }
        }
        if discarded {
            server.end_subscriber(&mut self.subscriber, ended.state, None);
            drop(self.claim);
        } else {
            let number = self.subscriber.number();
            if let Some((number, mut entry)) = number.zip(server.router.open()) {
                let expiry = ended.session_expiry;
                entry.push(session_row(&self.client, number, expiry, Some(now)));
                entry.push(match &pending_will {
                    Some(will) => Change::Will(Box::new(WillRow {
                        session: number,
                        due: Some(will.due),
                        delay: 0,
                        publish: will.publish.clone(),
                    })),
                    None => Change::NoWill(number),
                });
            }
            if let Some(queue) = self.subscriber.queue() {
                queue.leave();
            }
            let evicted = self.claim.keep(KeptSession {
                state: ended.state,
                subscriber: self.subscriber,
                will: pending_will,
                expires_at: expires_at(now, ended.session_expiry),
            });
            end_all(&server, evicted);
        }
        (server, self.link)
    }
}

/// Writes what waits and lets the peer read it, for a bounded time. How that ends changes nothing.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(server: &Server, link: &mut Link<S>) {
    match timeout(server.config.close_timeout(), link.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection ended while it was closed"),
        Err(_) => debug!("peer did not close in time"),
    }
}

/// Closes without waiting for the peer: TLS and WebSocket have a last word of their own.
pub(super) async fn hang_up<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Server,
    link: &mut Link<S>,
) {
    match timeout(server.config.close_timeout(), link.shut()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection ended while it was closed"),
        Err(_) => debug!("peer took nothing more"),
    }
}
