//! Receipts: the notices that watermarks moved, for the senders of the affected messages only.
//!
//! Moves of a conversation are gathered and told together: at most one event per conversation, receiver and interval; the
//! interval doubles while moves go on. Cost is per move of a watermark, never per message × member.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::codec::packet::Publish;
use proto::ids::{ConversationId, ConversationKind, Seq, UserId};
use proto::payload;
use proto::topics::rcpt_topic;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::conversations::{Live, MarksMoved};
use crate::delivery::Online;
use crate::delivery::progress::Progress;
use crate::domain::member::{Marks, Member};
use crate::plugin::json_publish;
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

/// Places reached by marks that are looked up for each sender, when the messages are not in memory.
const REACHED_MAX: usize = 16;

/// Gathers moves and tells the senders.
pub(crate) struct Receipts {
    store: Arc<dyn ChatStore>,
    online: Arc<Online>,
    progress: Arc<Progress>,
    limits: ReceiptLimits,
    gathered: Mutex<HashMap<ConversationId, Gathered>>,
    notify: Notify,
}

/// Whose marks moved, and from where: (delivered, read) before the first move.
type Moves = HashMap<UserId, (Seq, Seq)>;

struct Gathered {
    live: Arc<Live>,
    moves: Moves,
    due: Instant,
    interval: Duration,
}

/// One event for one receiver; also what waits for a slow one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) conversation: ConversationId,
    /// When the oldest move that it tells of may have been, in ms since 1970.
    pub(crate) since_ms: u64,
    pub(crate) delivered_all: Seq,
    pub(crate) read_all: Seq,
    pub(crate) moves: BTreeMap<UserId, (Seq, Seq)>,
    pub(crate) counts: BTreeMap<Seq, (u32, u32)>,
    moves_max: usize,
    counts_max: usize,
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
            gathered: Mutex::default(),
            notify: Notify::new(),
        }
    }

    /// Marks of a user moved.
    pub(crate) fn moved(&self, live: &Arc<Live>, user: UserId, moved: MarksMoved) {
        let before = (moved.from.delivered(), moved.from.read);
        if before == (moved.to.delivered(), moved.to.read) {
            return; // a private mark or a flag: nobody else is told
        }
        let mut gathered = self.gathered();
        let of_conversation = gathered.entry(live.id()).or_insert_with(|| Gathered {
            live: Arc::clone(live),
            moves: HashMap::new(),
            due: crate::clock::monotonic() + self.limits.interval / 5,
            interval: self.limits.interval,
        });
        of_conversation.moves.entry(user).or_insert(before);
        drop(gathered);
        self.notify.notify_one();
    }

    /// Tells what is due, until stopped.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            let next = self.gathered().values().map(|gathered| gathered.due).min();
            let stopping = tokio::select! {
                () = self.notify.notified() => false,
                () = sleep_until(next) => false,
                () = stop.cancelled() => true,
            };
            let now = crate::clock::monotonic();
            // At the end all of it, so that it is noted for those who come back.
            let now = if stopping {
                now + 2 * self.limits.interval_max
            } else {
                now
            };
            for (live, moves) in self.take_due(now) {
                if let Err(error) = self.tell(&live, &moves).await {
                    tracing::error!(conversation = %live.id(), %error, "receipts could not be told");
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Whom a move of marks may concern in a small conversation: noted together with the move, so that a crash between
    /// the move and the event loses nothing. In a larger one the event notes it, seconds later.
    pub(crate) fn due_with(live: &Live, mover: UserId, ts_ms: u64) -> Vec<Move> {
        const SMALL: usize = 16;
        let present = live.present();
        if present.len() > SMALL {
            return Vec::new();
        }
        let others = present.iter().filter(|user| **user != mover);
        let conversation = live.id();
        others
            .map(|user| Move::ReceiptDue {
                user: *user,
                conversation,
                ts_ms,
            })
            .collect()
    }

    fn take_due(&self, now: Instant) -> Vec<(Arc<Live>, Moves)> {
        let mut due = Vec::new();
        let interval_max = self.limits.interval_max;
        self.gathered().retain(|_, gathered| {
            if gathered.due > now {
                return true;
            }
            if gathered.moves.is_empty() {
                return false; // a whole interval without a move
            }
            due.push((
                Arc::clone(&gathered.live),
                std::mem::take(&mut gathered.moves),
            ));
            gathered.due = now + gathered.interval;
            gathered.interval = (gathered.interval * 2).min(interval_max);
            true
        });
        due
    }

    async fn tell(&self, live: &Arc<Live>, moves: &Moves) -> Result<(), StoreError> {
        let members = live.members();
        let present = members.iter().filter(|(member, _)| member.is_present());
        let now: HashMap<UserId, Marks> = present
            .map(|(member, marks)| (member.user, *marks))
            .collect();
        let ts_ms = crate::clock::now_ms();
        for (sender, own) in self.affected(live, &members, moves, &now).await? {
            if !now.contains_key(&sender) {
                continue; // a former member is told nothing more
            }
            let of_others = moves.iter().filter(|(user, _)| **user != sender);
            let touched: BTreeMap<UserId, (Seq, Seq)> = of_others
                .filter(|(user, before)| {
                    now.get(user)
                        .is_some_and(|marks| touches(&own, **before, *marks))
                })
                .filter_map(|(user, _)| {
                    now.get(user)
                        .map(|marks| (*user, (marks.delivered(), marks.read)))
                })
                .take(self.limits.moves_max)
                .collect();
            if touched.is_empty() {
                continue;
            }
            self.progress.push([Move::ReceiptDue {
                user: sender,
                conversation: live.id(),
                ts_ms,
            }]);
            let readers = self.online.of(sender);
            if readers
                .iter()
                .any(|reader| reader.wants_receipts(live.id()))
            {
                let event = self.event(live, &members, sender, (touched, ts_ms), &own);
                for reader in &readers {
                    reader.receipt(event.clone());
                }
            }
        }
        Ok(())
    }

    /// Senders with messages among those that the moves passed, and these messages as far as they are known singly.
    async fn affected(
        &self,
        live: &Live,
        members: &[(Member, Marks)],
        moves: &Moves,
        now: &HashMap<UserId, Marks>,
    ) -> Result<HashMap<UserId, Vec<Seq>>, StoreError> {
        let after = moves
            .values()
            .map(|(delivered, read)| *delivered.min(read))
            .min()
            .unwrap_or_default();
        let moved = moves.keys().filter_map(|user| now.get(user));
        let to = moved
            .map(|marks| marks.delivered().max(marks.read))
            .max()
            .unwrap_or_default();
        let mut senders: HashMap<UserId, Vec<Seq>> = HashMap::new();
        if let Some(recent) = live.recent_senders(after, to) {
            for (seq, sender) in recent {
                senders.entry(sender).or_default().push(seq);
            }
            return Ok(senders);
        }
        // Not in memory: of each sender the last message before each place that was reached.
        let reached = moves.keys().filter_map(|user| now.get(user));
        let mut reached: Vec<Seq> = reached
            .flat_map(|marks| [marks.delivered(), marks.read])
            .filter(|seq| *seq > after)
            .collect();
        reached.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
        reached.dedup();
        reached.truncate(REACHED_MAX);
        for (member, _) in members {
            let mut own = Vec::new();
            for seq in &reached {
                let last = self.store.last_own(live.id(), member.user, *seq).await?;
                own.extend(last.filter(|last| *last > after));
            }
            own.sort_unstable();
            own.dedup();
            if !own.is_empty() {
                senders.insert(member.user, own);
            }
        }
        Ok(senders)
    }

    fn event(
        &self,
        live: &Live,
        members: &[(Member, Marks)],
        receiver: UserId,
        (moves, since_ms): (BTreeMap<UserId, (Seq, Seq)>, u64),
        own: &[Seq],
    ) -> Event {
        let others = Others::new(members, receiver);
        let newest = own.len().saturating_sub(self.limits.counts_max);
        let counted = if live.id().kind() == ConversationKind::Direct {
            &[]
        } else {
            own.get(newest..).unwrap_or(&[])
        };
        Event {
            conversation: live.id(),
            since_ms,
            delivered_all: others.delivered_all(),
            read_all: others.read_all(),
            moves,
            counts: counted
                .iter()
                .map(|seq| (*seq, others.count(*seq)))
                .collect(),
            moves_max: self.limits.moves_max,
            counts_max: self.limits.counts_max,
        }
    }

    /// The state of a conversation for one receiver: for a subscription, and after an absence.
    pub(crate) fn state(&self, live: &Live, receiver: UserId, since_ms: u64) -> Event {
        let members = live.members();
        let present = members
            .iter()
            .filter(|(member, _)| member.is_present() && member.user != receiver);
        let moves = present
            .filter(|(_, marks)| marks.delivered() > Seq::ZERO)
            .map(|(member, marks)| (member.user, (marks.delivered(), marks.read)))
            .take(self.limits.moves_max)
            .collect();
        self.event(live, &members, receiver, (moves, since_ms), &[])
    }

    fn gathered(&self) -> MutexGuard<'_, HashMap<ConversationId, Gathered>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Did a mark pass one of these messages when it moved from `before` to `now`?
fn touches(own: &[Seq], before: (Seq, Seq), now: Marks) -> bool {
    own.iter().any(|seq| {
        (before.0 < *seq && *seq <= now.delivered()) || (before.1 < *seq && *seq <= now.read)
    })
}

/// The marks of all present members but one, sorted, so that a message is counted in O(log members).
pub(crate) struct Others {
    joined: Vec<Seq>,
    delivered: Vec<Seq>,
    read: Vec<Seq>,
}

impl Others {
    pub(crate) fn new(members: &[(Member, Marks)], receiver: UserId) -> Self {
        let mut others = Self {
            joined: Vec::new(),
            delivered: Vec::new(),
            read: Vec::new(),
        };
        for (member, marks) in members {
            if member.is_present() && member.user != receiver {
                // What was written before somebody joined is not waiting for that member.
                let before = member.joined.previous();
                others.joined.push(member.joined);
                others.delivered.push(marks.delivered().max(before));
                others.read.push(marks.read.max(before));
            }
        }
        others.joined.sort_unstable();
        others.delivered.sort_unstable();
        others.read.sort_unstable();
        others
    }

    fn delivered_all(&self) -> Seq {
        self.delivered.first().copied().unwrap_or_default()
    }

    fn read_all(&self) -> Seq {
        self.read.first().copied().unwrap_or_default()
    }

    /// How many of those who were there have the message at `seq`, and how many have read it.
    pub(crate) fn count(&self, seq: Seq) -> (u32, u32) {
        let later = self.joined.len() - self.joined.partition_point(|joined| *joined <= seq);
        let at_least =
            |marks: &[Seq]| marks.len() - marks.partition_point(|mark| *mark < seq) - later;
        (
            number(at_least(&self.delivered)),
            number(at_least(&self.read)),
        )
    }

    /// How many were there when the message at `seq` was written.
    pub(crate) fn of(&self, seq: Seq) -> u32 {
        number(self.joined.partition_point(|joined| *joined <= seq))
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Event {
    /// The event as it goes out.
    pub(crate) fn publish(self) -> Publish {
        let moves = self
            .moves
            .into_iter()
            .map(|(u, (d, r))| payload::WatermarkMove { u, d, r });
        let counts = self
            .counts
            .into_iter()
            .map(|(seq, (d, r))| payload::SenderCount { seq, d, r });
        let receipts = payload::Receipts {
            cid: self.conversation,
            delivered_all: self.delivered_all,
            read_all: self.read_all,
            moves: moves.collect(),
            counts: counts.collect(),
        };
        json_publish(&rcpt_topic(self.conversation), &receipts)
    }

    /// A later event of the same conversation joins this one.
    pub(crate) fn join(&mut self, later: Self) {
        self.since_ms = self.since_ms.min(later.since_ms);
        self.delivered_all = self.delivered_all.max(later.delivered_all);
        self.read_all = self.read_all.max(later.read_all);
        self.moves.extend(later.moves);
        self.counts.extend(later.counts);
        while self.moves.len() > self.moves_max {
            self.moves.pop_last();
        }
        while self.counts.len() > self.counts_max {
            self.counts.pop_first();
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
