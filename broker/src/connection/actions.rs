//! Carrying out what the session decided.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::disconnect::End;
use super::{Connection, Scratch};
use crate::clock;
use crate::hooks::PublishAnswer;
use crate::journal::Change;
use crate::mailbox::Answer;
use crate::session::{Action, Came, Owner};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Carries out all actions, and those that follow from them. Never waits: output is queued up to its bound.
    pub(super) fn perform(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        while !scratch.actions.is_empty() {
            std::mem::swap(&mut scratch.actions, &mut scratch.running);
            for action in scratch.running.drain(..) {
                self.perform_one(action, now, &mut scratch.actions)?;
            }
        }
        Ok(())
    }

    fn perform_one(
        &mut self,
        action: Action,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        match action {
            Action::SendAck(kind, ack, came) => {
                self.link.send(&kind.packet(ack), self.session.version());
                self.note_acknowledged(came);
            }
            Action::Send(packet) => self.link.send(&packet, self.session.version()),
            Action::Deliver(outgoing) => {
                self.link.send_publish(&outgoing, self.session.version());
            }
            Action::Route(publish, number) => {
                self.session.handle_routed(&publish);
                if let Some(answer) = self.route(publish, number, now) {
                    let answer = Answer::Published(answer);
                    self.session.handle_answer(number, answer, out)?;
                }
            }
            Action::HandOver(batch) => self.hand_over(batch),
            Action::Release(packet_id, number) => self.release(packet_id, number),
            Action::Accept(packet_id, number) => {
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                self.note_exchange(number, answer, |session| Change::Received {
                    session,
                    packet_id,
                });
            }
            Action::Forget(packet_id, number) => {
                self.note_exchange(number, Answer::Released(true), |session| Change::Released {
                    session,
                    packet_id,
                });
            }
            Action::Keep(keep) => self.keep(keep),
            Action::Subscribe(wanted) => self.subscribe(wanted, now, out)?,
            Action::SubscribePlugin(wanted) => self.subscribe_plugin(wanted),
            Action::Unsubscribe(filters, number) => {
                let mut entry = self.open_if_durable();
                let reasons = self.unsubscribe(&filters, &mut entry);
                self.answer_reasons(number, reasons, entry, out)?;
            }
            Action::UnsubscribePlugin(filters, number) => {
                let ticket = self.ticket(number);
                self.server
                    .hooks
                    .on_unsubscribe(&self.client, filters, ticket);
            }
            Action::Authenticate { begin, data } => self.authenticate(begin, data),
            Action::Disconnect { publish_will } => return Err(End::Client { publish_will }),
        }
        Ok(())
    }

    /// Those that came together are counted together.
    fn note_acknowledged(&mut self, came: Option<Came>) {
        let Some(came) = came else { return };
        match &mut self.acknowledged {
            Some((known, count)) if *known == came => *count += 1,
            _ => {
                self.count_acknowledged();
                self.acknowledged = Some((came, 1));
            }
        }
    }

    pub(super) fn count_acknowledged(&mut self) {
        let Some((came, count)) = self.acknowledged.take() else {
            return;
        };
        let metrics = &self.server.metrics;
        let latency = match came.owner {
            Owner::Plugin => &metrics.ack_latency_plugin,
            Owner::Broker | Owner::Unknown => &metrics.ack_latency,
        };
        latency.took(clock::now().saturating_duration_since(came.at), count);
    }
}
