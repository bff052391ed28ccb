//! Reading: packets that came go to the session, as long as there is room for what follows from them. Who sends more than
//! its rates allow is read no further for a while, or refused.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::disconnect::End;
use super::publish::refused;
use super::{Connection, Scratch};
use crate::codec::packet::Packet;
use crate::codec::reason::ReasonCode;
use crate::config::OverRate;
use crate::session::Action;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn read_packets(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        let read = self.read_into(&mut scratch.actions, now);
        // What came before a bad packet was in order and is carried out.
        self.perform(scratch, now)?;
        read
    }

    fn read_into(&mut self, actions: &mut Vec<Action>, now: Instant) -> Result<(), End> {
        self.input_used_up = false;
        while self.is_reading(self.has_store_room()) {
            let before = self.link.input_bytes();
            let Some(packet) = self.link.next_packet()? else {
                self.input_used_up = true;
                break;
            };
            if self.meter.is_some() {
                let bytes = before - self.link.input_bytes();
                self.handle_metered(packet, bytes, actions, now)?;
            } else {
                self.session.handle_packet(now, packet, actions)?;
            }
            // A goodbye is the last packet, and a SUBSCRIBE may be much work.
            if let Some(Action::Disconnect { .. } | Action::Subscribe(_)) = actions.last() {
                break;
            }
        }
        Ok(())
    }

    /// Handles a packet of this size, and counts it against the rates of the connection.
    fn handle_metered(
        &mut self,
        packet: Packet,
        bytes: usize,
        actions: &mut Vec<Action>,
        now: Instant,
    ) -> Result<(), End> {
        let Some(meter) = &mut self.meter else {
            return Ok(self.session.handle_packet(now, packet, actions)?);
        };
        let refuses = self.server.config.over_rate == OverRate::Refuse;
        let is_early = meter.wait(now).is_some();
        let is_publish = matches!(packet, Packet::Publish(_));
        match packet {
            Packet::Publish(publish) if refuses && is_early => {
                let refusal = refused(
                    ReasonCode::QuotaExceeded,
                    "too much for the rate of this connection",
                );
                let session = &mut self.session;
                if session.handle_excess(now, publish, refusal, actions)? {
                    self.server.metrics.publishes_over_rate.increment();
                    return Ok(());
                }
            }
            packet => self.session.handle_packet(now, packet, actions)?,
        }
        meter.charge(is_publish, bytes);
        if !refuses || (is_early && is_publish) {
            let wait = meter.wait(now);
            self.paused_until = wait.and_then(|wait| now.checked_add(wait));
            let paused = usize::from(self.paused_until.is_some());
            self.server.metrics.rate_pauses.add(paused);
        }
        Ok(())
    }
}
