//! Receipts: the notices that watermarks moved, for the senders of the affected messages only.
//!
//! Moves of a conversation are gathered and told together: at most one event per conversation, receiver and interval; the
//! interval doubles while moves go on. Cost is per move of a watermark, never per message × member.
//!
//! 1. A mark moves: `due_with` names the rows that go into the same commit, so that those who are away find out.
//! 2. `moved` gathers it; when the conversation is due, `passed` finds the senders.
//! 3. Those who are online get an event; the rest is found by `state` when they come back.

mod event;
mod passed;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::ids::{ConversationId, Seq, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::event::{Event, Others};
use self::passed::{Passed, Told};
use crate::agenda;
use crate::conversations::{Live, MarksChange, MarksMoved};
use crate::delivery::Online;
use crate::delivery::progress::Progress;
use crate::domain::member::{Marks, Member};
use crate::store::{ChatStore, Move, StoreError};

/// Bounds of the receipts, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptLimits {
    /// Least time between two events of one conversation to one receiver.
    pub interval: Duration,
    /// The interval doubles up to this while moves go on.
    pub interval_max: Duration,
    /// Members named in one event.
    pub moves_max: usize,
    /// Messages counted in one event.
    pub counts_max: usize,
}

/// Gathers moves and tells the senders.
pub(crate) struct Receipts {
    store: Arc<dyn ChatStore>,
    online: Arc<Online>,
    progress: Arc<Progress>,
    limits: ReceiptLimits,
    agenda: Mutex<Agenda>,
    notify: Notify,
}

/// Whose marks moved, and from where: (delivered, read) before the first move.
type Moves = HashMap<UserId, (Seq, Seq)>;

/// What is to be told, and when.
#[derive(Default)]
struct Agenda {
    gathered: HashMap<ConversationId, Gathered>,
    /// One for each of them.
    due: BTreeSet<(Instant, ConversationId)>,
}

struct Gathered {
    live: Arc<Live>,
    moves: Moves,
    due: Instant,
    interval: Duration,
}

impl Receipts {
    pub(crate) fn new(
        store: Arc<dyn ChatStore>,
        online: Arc<Online>,
        progress: Arc<Progress>,
        limits: ReceiptLimits,
    ) -> Self {
        Self {
            store,
            online,
            progress,
            limits,
            agenda: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// Marks of a user moved.
    pub(crate) fn moved(&self, live: &Arc<Live>, user: UserId, moved: MarksMoved) {
        let before = (moved.from.delivered(), moved.from.read);
        if live.is_reader(user) || before == (moved.to.delivered(), moved.to.read) {
            return; // one of many, a private mark or a flag: nobody else is told
        }
        let due = crate::clock::monotonic() + self.limits.interval / 5;
        let moves = Moves::from([(user, before)]);
        if self.agenda().gather(live, moves, due, self.limits.interval) {
            self.notify.notify_one();
        }
    }

    /// Tells what is due, until stopped.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let next = self.agenda().next();
            let stopping = tokio::select! {
                () = self.notify.notified() => false,
                () = agenda::sleep_until(next) => false,
                () = stop.cancelled() => true,
            };
            if stopping {
                return self.note_all();
            }
            let now = crate::clock::monotonic();
            let due = self.agenda().take_due(now, self.limits.interval_max);
            for (live, moves) in due {
                if let Err(error) = self.tell(&live, moves).await {
                    tracing::error!(conversation = %live.id(), %error, "receipts could not be told");
                }
            }
        }
    }

    /// Whom a move of marks concerns, noted together with the move, so that a crash between the move and the event loses
    /// nothing: the senders, where the messages are in memory; else all others of a small conversation. In a larger one
    /// the event notes it, seconds later.
    pub(crate) fn due_with(live: &Live, mover: UserId, change: MarksChange) -> Vec<Move> {
        const SMALL: usize = 16;
        let Some(sight) = live.sight(mover).filter(|_| !live.is_reader(mover)) else {
            return Vec::new();
        };
        let before = (sight.marks.delivered(), sight.marks.read);
        let now = (
            before.0.max(change.delivered).max(change.read),
            before.1.max(change.read),
        );
        let mut concerned = BTreeSet::new();
        for stretch in passed::stretches(before, now) {
            match live.recent_messages(stretch.after, stretch.to) {
                Some(messages) => concerned.extend(messages.into_iter().map(|(_, from)| from)),
                None if live.present().len() <= SMALL => concerned.extend(&*live.present()),
                None => {}
            }
        }
        concerned.remove(&mover);
        let due = |user| receipt_due(live, user, change.ts_ms);
        concerned.into_iter().map(due).collect()
    }

    async fn tell(&self, live: &Arc<Live>, moves: Moves) -> Result<(), StoreError> {
        let members = live.members();
        let Passed { senders, later } =
            passed::look_up(&*self.store, live, &members, moves).await?;
        if !later.is_empty() {
            let due = crate::clock::monotonic() + self.limits.interval;
            let mut agenda = self.agenda();
            agenda.gather(live, later, due, self.limits.interval);
            agenda.hurry(live.id(), due);
        }
        // Marks may have moved on while the store was asked, and who came meanwhile was told so: nobody is told less now.
        let members = live.members();
        let ts_ms = crate::clock::now_ms();
        for (sender, told) in senders {
            self.progress.push([receipt_due(live, sender, ts_ms)]);
            let mut readers = self.online.of(sender);
            readers.retain(|reader| reader.wants_receipts(live.id()));
            if !readers.is_empty() {
                let event = self.event(live, &members, (sender, ts_ms), told);
                for reader in readers {
                    reader.receipt(event.clone());
                }
            }
        }
        Ok(())
    }

    fn event(
        &self,
        live: &Live,
        members: &[(Member, Marks)],
        receiver: (UserId, u64),
        told: Told,
    ) -> Event {
        let Told { mut moves, own } = told;
        while moves.len() > self.limits.moves_max {
            moves.pop_last();
        }
        Event::new(live, members, receiver, moves, &own, &self.limits)
    }

    /// The state of a conversation for one receiver: for a subscription, and after an absence.
    pub(crate) fn state(&self, live: &Live, receiver: UserId, since_ms: u64) -> Event {
        let members = live.members();
        let others = members
            .iter()
            .filter(|(member, _)| member.is_present() && member.user != receiver);
        let moves = others
            .filter(|(_, marks)| marks.delivered() > Seq::ZERO)
            .map(|(member, marks)| (member.user, (marks.delivered(), marks.read)))
            .collect();
        let own = BTreeSet::new();
        self.event(live, &members, (receiver, since_ms), Told { moves, own })
    }

    /// At the end: what has not been told is noted for all who may be concerned, so that they find it when they come back.
    fn note_all(&self) {
        let ts_ms = crate::clock::now_ms();
        for gathered in std::mem::take(&mut *self.agenda()).gathered.into_values() {
            if !gathered.moves.is_empty() {
                let live = &gathered.live;
                let due = |user: &UserId| receipt_due(live, *user, ts_ms);
                self.progress.push(live.present().iter().map(due));
            }
        }
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agenda {
    /// Adds moves; a conversation that is not gathered yet is due then. `true`: nothing is due earlier.
    fn gather(&mut self, live: &Arc<Live>, moves: Moves, due: Instant, interval: Duration) -> bool {
        let id = live.id();
        let of_conversation = self.gathered.entry(id).or_insert_with(|| {
            self.due.insert((due, id));
            Gathered {
                live: Arc::clone(live),
                moves: HashMap::new(),
                due,
                interval,
            }
        });
        for (user, (delivered, read)) in moves {
            let before = of_conversation.moves.entry(user);
            let before = before.or_insert((delivered, read));
            *before = (before.0.min(delivered), before.1.min(read));
        }
        self.next() == Some(due)
    }

    /// What is gathered of a conversation is due at this time, if not earlier.
    fn hurry(&mut self, id: ConversationId, due: Instant) {
        let planned = self.gathered.get_mut(&id).map(|of| &mut of.due);
        if let Some(planned) = planned.filter(|planned| **planned > due) {
            self.due.remove(&(*planned, id));
            self.due.insert((due, id));
            *planned = due;
        }
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is due by now. A conversation without a move for a whole interval is let go of.
    fn take_due(&mut self, now: Instant, interval_max: Duration) -> Vec<(Arc<Live>, Moves)> {
        let mut taken = Vec::new();
        while let Some((due, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, id));
            let Some(gathered) = self.gathered.get_mut(&id) else {
                continue;
            };
            if gathered.moves.is_empty() {
                self.gathered.remove(&id);
                continue;
            }
            let moves = std::mem::take(&mut gathered.moves);
            taken.push((Arc::clone(&gathered.live), moves));
            gathered.due = now + gathered.interval;
            self.due.insert((gathered.due, id));
            gathered.interval = (gathered.interval * 2).min(interval_max);
        }
        taken
    }
}

fn receipt_due(live: &Live, user: UserId, ts_ms: u64) -> Move {
    Move::ReceiptDue {
        user,
        conversation: live.id(),
        ts_ms,
    }
}
