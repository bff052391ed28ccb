//! A pull: what goes out, in which order, as far as there is room.

use std::sync::Arc;

use broker::codec::packet::{Publish, Qos};
use broker::hooks::{Delivery, Room};
use proto::ids::{ConversationId, Seq};
use proto::payload::Gap;

use super::{
    Key, LOG_SLOT, Matched, Options, PAGES_MAX, Pages, Pulled, Reader, Reference, State, Wanted,
};
use crate::delivery::flow::form_of;
use crate::delivery::shared::Run;
use crate::faults;
use crate::render::{self, Line};

/// A pull under way.
pub(super) struct Out<'a> {
    pub(super) room: Room,
    pub(super) pulled: Pulled,
    pub(super) me: &'a Reader,
    pub(super) now_ms: u64,
}

/// What one step of a turn came to.
enum Step {
    /// One entry was passed.
    Passed,
    /// The room is used up.
    NoRoom,
    /// The next entry has to be read first; what brings it also brings this flow back here.
    Wanted,
    /// There is nothing more.
    Done,
}

impl Out<'_> {
    pub(super) fn fits(&self, qos: Qos) -> bool {
        self.room.bytes > 0 && (qos == Qos::AtMostOnce || self.room.packets > 0)
    }

    pub(super) fn deliver(
        &mut self,
        reference: Reference,
        message: Arc<Publish>,
        matched: &Matched,
    ) {
        self.push(Delivery {
            reference: reference.encode(),
            qos: matched.qos,
            retain: false,
            resend: None,
            subscription_identifiers: matched.identifiers.clone(),
            message,
        });
    }

    /// The account changes that wait, if there is room.
    pub(super) fn pull_account(&mut self) {
        let fits = |options: Options| self.fits(options.qos);
        let Some((message, version, options)) = self.me.account.take(fits) else {
            return;
        };
        let matched = Matched {
            qos: options.qos,
            no_local: false,
            identifiers: options.identifier.into_iter().collect(),
        };
        self.deliver(Reference::Account { version }, message, &matched);
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        const OVERHEAD: usize = 256;
        self.room.bytes = self
            .room
            .bytes
            .saturating_sub(delivery.message.payload.len() + OVERHEAD);
        if delivery.qos != Qos::AtMostOnce {
            self.room.packets = self.room.packets.saturating_sub(1);
        }
        self.pulled.deliveries.push(delivery);
    }
}

impl State {
    /// `false`: some of these are still to come; they go first.
    pub(super) fn pull_resend(&mut self, out: &mut Out<'_>) -> bool {
        const AT_ONCE: usize = 16;
        while let Some((packet_id, reference, line)) = self.resend.loaded.pop_front() {
            if out.room.packets == 0 || out.room.bytes == 0 {
                self.resend.loaded.push_front((packet_id, reference, line));
                return false;
            }
            let line = line.present(out.now_ms);
            let (message, identifiers) = self.again(reference, &line);
            out.push(Delivery {
                reference: reference.encode(),
                message,
                qos: Qos::AtLeastOnce,
                retain: false,
                resend: Some(packet_id),
                subscription_identifiers: identifiers,
            });
        }
        if self.resend.loading.is_empty() && !self.resend.waiting.is_empty() {
            let count = self.resend.waiting.len().min(AT_ONCE);
            self.resend.loading = self.resend.waiting.drain(..count).collect();
            let wanted = Wanted::Resend(self.resend.loading.clone());
            out.pulled.wanted.push(wanted);
        }
        self.resend.loading.is_empty()
    }

    /// The message of a delivery that goes out again, and the identifiers of the subscriptions that it has now.
    fn again(&self, reference: Reference, line: &Line) -> (Arc<Publish>, Vec<u32>) {
        let Reference::Entry {
            slot, conversation, ..
        } = reference
        else {
            return (line.json(), Vec::new());
        };
        if slot >= LOG_SLOT {
            return match self.logs.get(&slot) {
                Some(log) => {
                    let identifiers = log.options.identifier.into_iter().collect();
                    (line.log(&log.topic), identifiers)
                }
                None => (line.log(&line.log_topic()), Vec::new()),
            };
        }
        let message = form_of(slot).map(|form| line.publish_again(form));
        let filters = self.inbox.get(usize::from(slot));
        let matched = filters.and_then(|filters| filters.matched(&conversation));
        (
            message.unwrap_or_else(|| line.json()),
            matched.map_or_else(Vec::new, |matched| matched.identifiers),
        )
    }

    pub(super) fn pull_replies(&mut self, out: &mut Out<'_>) {
        while let Some((message, qos, identifiers)) = self.replies.pop_front() {
            if !out.fits(qos) {
                self.replies.push_front((message, qos, identifiers));
                return;
            }
            self.replies_bytes = self.replies_bytes.saturating_sub(message.payload.len());
            let matched = Matched {
                qos,
                no_local: false,
                identifiers,
            };
            out.deliver(Reference::now(), message, &matched);
        }
    }

    pub(super) fn pull_receipts(&mut self, out: &mut Out<'_>) {
        while let Some(id) = self.receipt_turn.pop_front() {
            let Some(matched) = self.receipts.matched(&id) else {
                if let Some(event) = self.receipt_events.remove(&id) {
                    self.receipt_details -= event.details();
                }
                continue;
            };
            if !out.fits(matched.qos) {
                self.receipt_turn.push_front(id);
                return;
            }
            if let Some(event) = self.receipt_events.remove(&id) {
                self.receipt_details -= event.details();
                let reference = Reference::State {
                    ts_ms: event.since_ms,
                };
                let packet_max = out.me.client.packet_bytes_max;
                let message = event.publish_within(packet_max);
                out.deliver(reference, Arc::new(message), &matched);
            }
        }
        self.receipts_wait_since = None;
    }

    pub(super) fn pull_turns(&mut self, out: &mut Out<'_>, entries_max: usize) {
        loop {
            self.admit_readers();
            let Some(key) = self.turn.pop_front() else {
                return;
            };
            let mut left = entries_max;
            let step = loop {
                if left == 0 {
                    break Step::Passed;
                }
                match self.step(key, out) {
                    Step::Passed => left -= 1,
                    other => break other,
                }
            };
            if let Some(flow) = self.flow(key) {
                flow.admitted = false; // it has read, or need not
            }
            match step {
                Step::Passed => self.turn.push_back(key),
                Step::NoRoom => self.turn.push_front(key),
                Step::Wanted | Step::Done => {
                    if let Some(flow) = self.flow(key) {
                        flow.queued = false;
                        if matches!(step, Step::Done) {
                            flow.drop_page();
                        }
                    }
                }
            }
            if let Some(progressed) = self.advance(key, out.me.device) {
                out.pulled.progressed.push(progressed);
                // Entries that nobody had to see may have been in the way of a skip.
                if self.flow(key).is_some_and(|flow| flow.next().is_some()) {
                    self.enqueue(key);
                }
            }
            if matches!(step, Step::NoRoom) {
                return;
            }
        }
    }

    /// What is still in line has no turn now: of shared subscriptions others may take it.
    pub(super) fn pass_on(&mut self, out: &mut Out<'_>) {
        let connection = out.me.client.connection;
        for log in self.logs.values().filter(|log| log.flow.queued) {
            if let Some(part) = &log.shared {
                out.pulled.calls.extend(part.shared.full(connection));
            }
        }
    }

    /// Hands out the next entry of one conversation, in every form that still needs it.
    fn step(&mut self, key: Key, out: &mut Out<'_>) -> Step {
        if self.part(key).is_some() {
            return self.step_shared(key, out);
        }
        let Some(flow) = self.flow(key) else {
            return Step::Done;
        };
        let Some(seq) = flow.next() else {
            return Step::Done;
        };
        // Each pull checks the right again. What may not be seen is not even read.
        let next = match key {
            Key::Inbox(_) => flow.live.next_awaited(out.me.user, seq),
            Key::Log(..) => flow.live.next_visible(out.me.user, seq),
        };
        let Some(visible) = next else {
            return Step::Done;
        };
        if visible.from > seq {
            flow.drop_page();
            // Not over what is open: its acks bring this flow back here.
            return if flow.skip_to(visible.from.previous()) {
                Step::Passed
            } else {
                Step::Wanted
            };
        }
        if let Key::Inbox(id) = key
            && let Some(window) = out.me.limits.replay_window
            && let Some(last) = flow.missed(window)
        {
            return self.step_over(id, (seq, last.min(visible.to)), out);
        }
        let Some(line) = flow.line(seq, out.me.user) else {
            self.want_page(key, (seq, visible.to), out);
            return Step::Wanted;
        };
        let line = line.present(out.now_ms);
        match key {
            Key::Inbox(id) => self.step_inbox(id, &line, out),
            Key::Log(slot, _) => self.step_log(slot, &line, out),
        }
    }

    /// Has a page read, or waits for its turn to: behind those who wait already.
    fn want_page(&mut self, key: Key, (from, to): (Seq, Seq), out: &mut Out<'_>) {
        let Some(flow) = self.flow(key) else {
            return;
        };
        flow.drop_page(); // it has not what is wanted
        let is_admitted = std::mem::take(&mut flow.admitted);
        let is_waiting = flow.waiting;
        let is_free = self.held_pages(key) < PAGES_MAX;
        let pages = self.pages(key);
        let may_read = is_admitted || (is_free && pages.waiting.is_empty());
        if may_read {
            pages.held.push(key);
        } else if !is_waiting {
            pages.waiting.push_back(key);
        }
        let Some(flow) = self.flow(key) else {
            return;
        };
        flow.waiting = !may_read;
        if may_read {
            flow.loading = true;
            let live = Arc::clone(&flow.live);
            out.pulled.wanted.push(Wanted::Page {
                key,
                live,
                from,
                to,
            });
        }
    }

    /// Those whose turn it is to read ahead are in line again.
    fn admit_readers(&mut self) {
        let kinds = [&self.inbox_pages, &self.log_pages];
        let firsts = kinds.map(|pages| pages.waiting.front().copied());
        for kind in firsts.into_iter().flatten() {
            while self.held_pages(kind) < PAGES_MAX
                && let Some(key) = self.pages(kind).waiting.pop_front()
            {
                let Some(flow) = self.flow(key) else {
                    continue; // gone
                };
                flow.waiting = false;
                flow.admitted = true;
                self.pages(kind).held.push(key);
                self.enqueue(key);
            }
        }
    }

    /// Pages that are held of the kind of this flow.
    fn held_pages(&mut self, key: Key) -> usize {
        let mut held = std::mem::take(&mut self.pages(key).held);
        held.retain(|key| self.flow(*key).is_some_and(|flow| flow.holds_page()));
        let count = held.len();
        self.pages(key).held = held;
        count
    }

    fn pages(&mut self, key: Key) -> &mut Pages {
        match key {
            Key::Inbox(_) => &mut self.inbox_pages,
            Key::Log(..) => &mut self.log_pages,
        }
    }

    /// Tells of a run of entries that the client wants to ask for by itself.
    fn step_over(&mut self, id: ConversationId, (from, to): (Seq, Seq), out: &mut Out<'_>) -> Step {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Step::Done;
        };
        flow.drop_page();
        let gap = Gap {
            cid: id,
            from,
            to,
            reason: Gap::WINDOW,
        };
        for (slot, filters) in self.inbox.iter().enumerate() {
            if !flow.needs(slot, to) {
                continue;
            }
            let slot_byte = u8::try_from(slot).unwrap_or_default();
            let message = form_of(slot_byte).and_then(|form| render::gap(&gap, form));
            let Some((matched, message)) = filters.matched(&id).zip(message) else {
                flow.passed(slot, to, false);
                continue;
            };
            if !out.fits(matched.qos) {
                return Step::NoRoom;
            }
            let reference = Reference::Entry {
                generation: 0,
                slot: slot_byte,
                conversation: id,
                seq: to,
            };
            out.deliver(reference, Arc::new(message), &matched);
            flow.passed(slot, to, true);
        }
        Step::Passed
    }

    fn step_inbox(&mut self, id: ConversationId, line: &Arc<Line>, out: &mut Out<'_>) -> Step {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Step::Done;
        };
        let seq = line.entry.seq;
        let is_dropped = faults::is_planted(faults::DROPPED_ON_REPLAY)
            && flow.is_read(seq)
            && seq.get() % 16 == 5;
        for (slot, filters) in self.inbox.iter().enumerate() {
            if !flow.needs(slot, seq) {
                continue;
            }
            let shown = filters
                .matched(&id)
                .filter(|matched| !(matched.no_local && line.entry.device == out.me.device))
                .filter(|_| !is_dropped);
            let form = u8::try_from(slot).ok().and_then(form_of);
            let copy = shown.zip(form.and_then(|form| line.publish(form)));
            let Some((matched, message)) = copy else {
                flow.passed(slot, seq, false);
                continue;
            };
            if !out.fits(matched.qos) {
                return Step::NoRoom;
            }
            let reference = Reference::Entry {
                generation: 0,
                slot: u8::try_from(slot).unwrap_or_default(),
                conversation: id,
                seq,
            };
            out.deliver(reference, message, &matched);
            flow.passed(slot, seq, true);
        }
        Step::Passed
    }

    /// Hands out the next entry that this session has taken of a shared subscription, or takes some.
    fn step_shared(&mut self, key: Key, out: &mut Out<'_>) -> Step {
        let Key::Log(slot, generation) = key else {
            return Step::Done;
        };
        let connection = out.me.client.connection;
        let Some(log) = self.log_mut(slot, generation) else {
            return Step::Done;
        };
        let Some(part) = &mut log.shared else {
            return Step::Done;
        };
        if !out.fits(log.options.qos) {
            out.pulled.calls.extend(part.shared.full(connection));
            return Step::NoRoom;
        }
        if part.run.is_none() {
            let most = match log.options.qos {
                Qos::AtMostOnce => usize::MAX,
                _ => out.room.packets,
            };
            let (run, call) = part.shared.take(connection, most);
            part.run = run;
            out.pulled.calls.extend(call);
        }
        let Some(run) = part.run else {
            return Step::Done;
        };
        let seq = run.from;
        let Some(line) = log.flow.line(seq, out.me.user) else {
            self.want_page(key, (seq, run.to), out);
            return Step::Wanted;
        };
        let from = seq.next();
        part.run = (from <= run.to).then_some(Run { from, ..run });
        let matched = Matched {
            qos: log.options.qos,
            no_local: false,
            identifiers: log.options.identifier.into_iter().collect(),
        };
        let reference = Reference::Entry {
            generation,
            slot,
            conversation: log.flow.live.id(),
            seq,
        };
        let line = line.present(out.now_ms);
        out.deliver(reference, line.log(&log.topic), &matched);
        Step::Passed
    }

    fn step_log(&mut self, slot: u8, line: &Arc<Line>, out: &mut Out<'_>) -> Step {
        let Some(log) = self.logs.get_mut(&slot) else {
            return Step::Done;
        };
        let seq = line.entry.seq;
        if log.options.no_local && line.entry.device == out.me.device {
            log.flow.passed(0, seq, false);
            return Step::Passed;
        }
        if !out.fits(log.options.qos) {
            return Step::NoRoom;
        }
        let matched = Matched {
            qos: log.options.qos,
            no_local: log.options.no_local,
            identifiers: log.options.identifier.into_iter().collect(),
        };
        let reference = Reference::Entry {
            generation: log.generation,
            slot,
            conversation: log.flow.live.id(),
            seq,
        };
        out.deliver(reference, line.log(&log.topic), &matched);
        log.flow.passed(0, seq, true);
        Step::Passed
    }
}
