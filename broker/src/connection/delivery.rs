//! What a client gets: from the plugin and from the queue, as much as there is room for.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::disconnect::End;
use super::{Connection, Plugin, Scratch};
use crate::codec::packet::Qos;
use crate::hooks::Room;
use crate::journal::{Change, QueueRow, Waiter};
use crate::mailbox::Answer;
use crate::session::Keep;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Tells the plugin what became of its deliveries.
    pub(super) fn report(&mut self) {
        let outcomes = self.session.take_outcomes();
        if !outcomes.is_empty() {
            self.server.hooks.on_delivered(&self.client, outcomes);
        }
    }

    /// Fills the output buffer with what the plugin and the queue have, each in its turn.
    pub(super) fn deliver(&mut self, scratch: &mut Scratch, now: Instant) -> Result<(), End> {
        if self.plugin == Plugin::WaitsForRoom && self.session.window() > 0 {
            self.plugin = Plugin::Ready;
        }
        let mut idle = 0;
        while self.is_delivering(self.has_store_room()) && idle < 2 {
            let found = if self.plugin_first {
                self.pull(scratch)
            } else {
                self.take_messages(scratch, now)
            };
            self.plugin_first = !self.plugin_first;
            idle = if found { 0 } else { idle + 1 };
            self.perform(scratch, now)?;
            self.report();
        }
        Ok(())
    }

    pub(super) fn room(&self) -> Room {
        let bytes_max = self.server.config.output_bytes_max;
        Room {
            packets: self.session.window(),
            bytes: bytes_max.saturating_sub(self.link.output_bytes()),
        }
    }

    fn pull(&mut self, scratch: &mut Scratch) -> bool {
        if self.plugin != Plugin::Ready {
            return false;
        }
        let room = self.room();
        let deliveries = self.server.hooks.pull(&self.client, room);
        self.server.metrics.publishes_pulled.add(deliveries.len());
        if deliveries.is_empty() {
            self.plugin = if room.packets == 0 {
                Plugin::WaitsForRoom
            } else {
                Plugin::Idle
            };
            return false;
        }
        self.session
            .handle_deliveries(deliveries, &mut scratch.actions);
        true
    }

    fn take_messages(&mut self, scratch: &mut Scratch, now: Instant) -> bool {
        let packets = self.session.queue_window();
        let mut bytes = self.room().bytes;
        if packets > 0 {
            bytes = bytes.min(self.session.queue_bytes());
        }
        let Some(queue) = self.subscriber.queue() else {
            return false;
        };
        queue.take(packets, bytes, &mut scratch.messages);
        let found = !scratch.messages.is_empty();
        for queued in scratch.messages.drain(..) {
            self.session
                .handle_message(now, queued, &mut scratch.actions);
        }
        found
    }

    /// Notes how far a delivery has come. At QoS 1 nobody waits for that: it would only be sent again.
    pub(super) fn keep(&self, keep: Keep) {
        let Some((session, mut entry)) = self.subscriber.number().zip(self.server.router.open())
        else {
            return;
        };
        let (change, waits_for) = match keep {
            Keep::Sent(queued, at, packet_id) => {
                let mut row = QueueRow::waiting(session, at, &queued);
                row.packet_id = Some(packet_id);
                let waits = queued.qos == Qos::ExactlyOnce;
                (Change::Moved(Box::new(row)), waits.then_some(packet_id))
            }
            Keep::Released(at, packet_id) => {
                let row = QueueRow::released(session, at, packet_id);
                (Change::Moved(Box::new(row)), Some(packet_id))
            }
            Keep::Settled(at) => (Change::Settled { session, at }, None),
        };
        entry.push(change);
        if let Some(packet_id) = waits_for {
            let number = packet_id.get().into();
            entry.commit(Waiter::letter(&self.client.mailbox, number, Answer::Kept));
        }
    }
}
