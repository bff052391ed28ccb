//! What a connection waits for: input, letters, messages, room in the socket and in the store, time, the stop token.

use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::disconnect::End;
use super::{Connection, Plugin};
use crate::clock;
use crate::journal::Journal;
use crate::mailbox::Letters;

/// What has come while a connection waited, beside messages in its queue and the timer.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) stop: bool,
    pub(super) letters: Letters,
    pub(super) read: Option<io::Result<usize>>,
    /// At some moment nothing was read, or something was left of what had been.
    pub(super) deaf: bool,
    pub(super) written: io::Result<()>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            stop: false,
            letters: Letters::default(),
            read: None,
            deaf: false,
            written: Ok(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Looks at everything that may have come; all of it each time, so that nothing that comes often holds up the rest.
    pub(super) fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Events) -> bool {
        let mut ready = false;
        if let Poll::Ready(letters) = self.client.mailbox.poll_take(cx) {
            events.letters = letters;
            ready = true;
        }
        // First: it makes room for what follows.
        if self.link.has_output()
            && let Poll::Ready(written) = self.link.poll_write(cx)
        {
            events.written = written;
            ready = true;
        }
        // Asked once: the writer changes it at any moment, and all that follows has to mean the same.
        let store_room = self.poll_store_room(cx).is_ready();
        let reading = self.is_reading(store_room);
        let delivering = self.is_delivering(store_room);
        ready |= reading && !self.input_used_up || delivering && self.plugin == Plugin::Ready;
        ready |= self.has_room() && self.session.is_resuming();
        if reading && let Poll::Ready(read) = self.link.poll_read(cx) {
            events.read = Some(read);
            ready = true;
        }
        events.deaf |= !reading || !self.input_used_up;
        if delivering && let Some(queue) = self.subscriber.queue() {
            ready |= queue.poll_ready(self.session.queue_window(), cx).is_ready();
        }
        if self.armed_for.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed_for = None;
            ready = true;
        }
        ready
    }

    /// What the next turn does not do anyway. Returns what that one is to handle.
    pub(super) fn handle_events(&mut self, events: Events) -> Result<Letters, End> {
        events.written.map_err(End::Lost)?;
        let silent = !events.deaf && events.read.is_none();
        if let Some(read) = events.read
            && read.map_err(End::Lost)? == 0
        {
            return Err(End::Closed);
        }
        let now = clock::now();
        if events.stop {
            self.drain_until = now.checked_add(self.server.config.drain_timeout());
        }
        if self.write_deadline().is_some_and(|at| at <= now) {
            return Err(End::WriteTimeout);
        }
        self.session.handle_timeout(now, silent)?;
        Ok(events.letters)
    }

    pub(super) fn end_if_drained(&self, now: Instant) -> Result<(), End> {
        match self.drain_until {
            Some(until) if until <= now || self.session.is_settled() => Err(End::Shutdown),
            _ => Ok(()),
        }
    }

    /// Sets the timer for the next deadline. A deadline that moves away does not touch it: it rings early, once, and is
    /// set again then.
    pub(super) fn arm(&mut self) {
        let deadlines = [
            self.session.next_timeout(),
            self.write_deadline(),
            self.paused_until,
            self.drain_until,
        ];
        let Some(next) = deadlines.into_iter().flatten().min() else {
            return;
        };
        if self.armed_for.is_none_or(|armed| next < armed) {
            self.timer.as_mut().reset(next.into());
            self.armed_for = Some(next);
        }
    }

    fn write_deadline(&self) -> Option<Instant> {
        let since = self.link.blocked_since()?;
        since.checked_add(self.server.config.write_timeout())
    }

    fn has_room(&self) -> bool {
        self.link.output_bytes() < self.server.config.output_bytes_max
    }

    /// The store keeps up with what is to be at rest.
    pub(super) fn has_store_room(&self) -> bool {
        let journal = self.server.journal.as_deref();
        journal.is_none_or(Journal::has_room)
    }

    /// As `has_store_room`; without room, whoever waits is woken when there is some.
    fn poll_store_room(&self, cx: &Context<'_>) -> Poll<()> {
        let journal = self.server.journal.as_deref();
        journal.map_or(Poll::Ready(()), |journal| journal.poll_room(cx))
    }

    pub(super) fn is_reading(&self, store_room: bool) -> bool {
        store_room
            && self.drain_until.is_none()
            && self.paused_until.is_none()
            && self.answering.is_none()
            && self.session.wants_input()
            && self.has_room()
    }

    pub(super) fn is_delivering(&self, store_room: bool) -> bool {
        store_room && self.drain_until.is_none() && self.has_room() && !self.session.is_holding()
    }
}
