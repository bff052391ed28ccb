//! The private queue of a device on its way to one connection: read by pages, each event handed out once and kept in the
//! store until it is acknowledged. What was not comes again to the next connection.

use std::collections::VecDeque;
use std::sync::Arc;

use broker::codec::packet::Publish;

use super::pull::Out;
use super::{Options, Reader, Reference, Wanted};
use crate::delivery::flow;
use crate::delivery::subscriptions::Matched;
use proto::topics::Form;

/// What a connection has of the queue of its device.
#[derive(Default)]
pub(super) struct Queue {
    options: Option<Options>,
    /// Everything up to here was read.
    read_up_to: u64,
    /// There may be more in the store.
    more: bool,
    loading: bool,
    ready: VecDeque<(u64, Arc<Publish>)>,
}

impl Reader {
    /// Subscribes to the queue of the own device.
    pub(crate) fn subscribe_queue(&self, options: Options) {
        let mut state = self.state();
        let queue = &mut state.queue;
        if queue.options.replace(options).is_none() {
            (queue.read_up_to, queue.more) = (0, true);
        }
        drop(state);
        self.client.wake();
    }

    pub(crate) fn unsubscribe_queue(&self) -> bool {
        let mut state = self.state();
        state.queue.ready.clear();
        state.queue.options.take().is_some()
    }

    /// Something new is in the queue of the own device.
    pub(crate) fn queue_grew(&self) {
        let Some(mut state) = self.made() else {
            return;
        };
        state.queue.more = true;
        drop(state);
        self.client.wake();
    }

    /// Does this connection read protobuf, and not JSON?
    pub(crate) fn reads_protobuf(&self) -> bool {
        self.made().is_some_and(|state| {
            let reads = |form| {
                let filters = state.inbox.get(flow::slot(form));
                filters.is_some_and(|filters| !filters.is_empty())
            };
            reads(Form::Pb) && !reads(Form::In)
        })
    }

    /// Events that were wanted, and whether there are more.
    pub(crate) fn arrived_events(
        &self,
        after: u64,
        (events, more): (Vec<(u64, Arc<Publish>)>, bool),
    ) {
        let mut state = self.state();
        let queue = &mut state.queue;
        queue.loading = false;
        queue.more |= more || after != queue.read_up_to;
        // If it was subscribed to anew meanwhile, it is read anew.
        if queue.options.is_some() && after == queue.read_up_to {
            queue.read_up_to = events.last().map_or(after, |(dseq, _)| *dseq);
            queue.ready.extend(events);
        }
        drop(state);
        self.client.wake();
    }
}

impl Queue {
    /// Hands out what waits, as far as there is room.
    pub(super) fn pull(&mut self, out: &mut Out<'_>) {
        let Some(options) = self.options else {
            return;
        };
        let matched = Matched {
            qos: options.qos,
            no_local: false,
            identifiers: options.identifier.into_iter().collect(),
        };
        while let Some((dseq, message)) = self.ready.pop_front() {
            if !out.fits(options.qos) {
                return self.ready.push_front((dseq, message));
            }
            out.deliver(Reference::Event { dseq }, message, &matched);
        }
        if self.more && !self.loading {
            (self.more, self.loading) = (false, true);
            let after = self.read_up_to;
            out.pulled.wanted.push(Wanted::Events { after });
        }
    }
}
