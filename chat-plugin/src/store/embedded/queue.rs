//! The bounded queue between the callers and the writer thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use proto::ids::{ConversationId, DeviceId, Handle, InvitationId, MessageId, Seq, UserId};

use super::overlay::OverlayKey;
use crate::domain::account::Preferences;
use crate::domain::audit::{AuditKeep, AuditLine};
use crate::domain::contact::{ContactChange, ContactCounts, Decided};
use crate::domain::device::{Device, Inflight, SharedSubscription};
use crate::domain::entry::{Change, Draft, Outcome};
use crate::domain::held::Holding;
use crate::domain::joining::{Invitation, Requested};
use crate::domain::overlay::Report;
use crate::domain::presence::PresenceChange;
use crate::domain::profile::Profile;
use crate::domain::purge::{Purge, Purged};
use crate::domain::queue::{Queuing, ToDevice};
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::domain::user::{Token, User};
use crate::store::{AskToJoin, DroppedIds, Durability, Place, StoreError};

/// Where the result of a job goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer can be asked for.
pub(super) enum Job {
    Append(Vec<Draft>, Reply<Vec<Outcome>>),
    Settle(Vec<OverlayKey>, Reply<()>),
    PutDevice(Box<Device>, Option<Vec<Inflight>>, Durability, Reply<()>),
    TakeInflight(DeviceId, Reply<Vec<Inflight>>),
    RemoveDevice(UserId, DeviceId, Reply<()>),
    PutShared(Box<SharedSubscription>, usize, Reply<bool>),
    RemoveShared(UserId, DeviceId, Reply<()>),
    QueueEvent(Box<ToDevice>, Reply<Queuing>),
    EndDeviceEvents(DeviceId, Vec<u64>, Reply<()>),
    EndExchange(DeviceId, u16, Reply<bool>),
    EndExchanges(DeviceId, Reply<()>),
    HandOut(UserId, Vec<ConversationId>, Reply<u64>),
    NoteChanged(UserId, Vec<ConversationId>, Reply<()>),
    SetPreferences(UserId, ConversationId, Preferences, Reply<()>),
    Place(ConversationId, UserId, MessageId, Reply<Option<Place>>),
    CreateUser(Box<User>, Reply<()>),
    UpdateUser(Box<User>, Reply<()>),
    ReplaceProfile(UserId, Box<(Profile, Profile)>, Reply<bool>),
    PutPresence(Vec<PresenceChange>, Reply<()>),
    ChangeContact(
        (UserId, UserId),
        ContactChange,
        (ContactCounts, u64),
        Reply<Decided>,
    ),
    ChangeHandle(UserId, Box<(Handle, Handle)>, u64, Reply<bool>),
    PutToken(Box<Token>, Reply<()>),
    RemoveToken(UserId, String, Reply<bool>),
    PutInvitation(Box<Invitation>, [u8; 16], Reply<bool>),
    RevokeInvitation(ConversationId, InvitationId, Reply<bool>),
    AskToJoin(Box<AskToJoin>, Reply<Requested>),
    DropJoinRequest(
        ConversationId,
        UserId,
        Box<(Vec<UserId>, Option<Box<AuditLine>>)>,
        Reply<bool>,
    ),
    Hide((ConversationId, Seq), UserId, u64, Reply<bool>),
    Schedule(Box<Scheduled>, usize, Reply<Scheduling>),
    Reschedule(Box<(Scheduled, Option<Scheduled>)>, Reply<bool>),
    Expire(u64, Reply<usize>),
    Report(Box<Report>, Reply<bool>),
    SettleReport(Vec<u8>, Option<Box<AuditLine>>, Reply<bool>),
    CloseReport(Vec<u8>, Reply<bool>),
    DropIds(u16, Option<Vec<u8>>, Reply<DroppedIds>),
    Purge(ConversationId, Box<Purge>, Reply<Purged>),
    Forget(UserId, Reply<usize>),
    Trust(u64, Reply<()>),
    BroadcastTo((ConversationId, Seq), Option<UserId>, Reply<()>),
    Hold(Box<(Draft, String)>, Reply<Holding>),
    RejectHeld(
        ConversationId,
        UserId,
        Box<(MessageId, Option<Box<AuditLine>>)>,
        Reply<bool>,
    ),
    Audit(Box<AuditLine>, Option<u64>, Reply<u64>),
    ForgetAudit(Box<(UserId, Option<Handle>)>, Vec<Vec<u8>>, Reply<()>),
    Flush(Reply<()>),
    Maintain(u64, u64, AuditKeep, Reply<()>),
    Close(Reply<()>),
}

impl Job {
    /// Answers a job that is not going to be done.
    pub(super) fn refuse(self, error: StoreError) {
        // A caller that no longer waits does not want the answer either.
        let _gone = match self {
            Self::Append(_, reply) => reply.send(Err(error)).is_err(),
            Self::TakeInflight(_, reply) => reply.send(Err(error)).is_err(),
            Self::HandOut(_, _, reply) | Self::Audit(_, _, reply) => {
                reply.send(Err(error)).is_err()
            }
            Self::Place(_, _, _, reply) => reply.send(Err(error)).is_err(),
            Self::AskToJoin(_, reply) => reply.send(Err(error)).is_err(),
            Self::Expire(_, reply) | Self::Forget(_, reply) => reply.send(Err(error)).is_err(),
            Self::Purge(_, _, reply) => reply.send(Err(error)).is_err(),
            Self::DropIds(_, _, reply) => reply.send(Err(error)).is_err(),
            Self::Schedule(_, _, reply) => reply.send(Err(error)).is_err(),
            Self::Hold(_, reply) => reply.send(Err(error)).is_err(),
            Self::ChangeContact(_, _, _, reply) => reply.send(Err(error)).is_err(),
            Self::QueueEvent(_, reply) => reply.send(Err(error)).is_err(),
            Self::EndExchange(_, _, reply)
            | Self::Reschedule(_, reply)
            | Self::PutShared(_, _, reply)
            | Self::RejectHeld(_, _, _, reply)
            | Self::ReplaceProfile(_, _, reply)
            | Self::RemoveToken(_, _, reply)
            | Self::PutInvitation(_, _, reply)
            | Self::RevokeInvitation(_, _, reply)
            | Self::SettleReport(_, _, reply)
            | Self::CloseReport(_, reply)
            | Self::Report(_, reply)
            | Self::DropJoinRequest(_, _, _, reply)
            | Self::ChangeHandle(_, _, _, reply)
            | Self::Hide(_, _, _, reply) => reply.send(Err(error)).is_err(),
            Self::Settle(_, reply)
            | Self::Trust(_, reply)
            | Self::PutDevice(_, _, _, reply)
            | Self::RemoveDevice(_, _, reply)
            | Self::RemoveShared(_, _, reply)
            | Self::EndDeviceEvents(_, _, reply)
            | Self::EndExchanges(_, reply)
            | Self::SetPreferences(_, _, _, reply)
            | Self::CreateUser(_, reply)
            | Self::UpdateUser(_, reply)
            | Self::PutPresence(_, reply)
            | Self::PutToken(_, reply)
            | Self::BroadcastTo(_, _, reply)
            | Self::NoteChanged(_, _, reply)
            | Self::Flush(reply)
            | Self::Maintain(_, _, _, reply)
            | Self::ForgetAudit(_, _, reply)
            | Self::Close(reply) => reply.send(Err(error)).is_err(),
        };
    }

    /// How much of a commit it takes.
    pub(super) fn size(&self) -> Size {
        match self {
            Self::Append(drafts, _) => drafts
                .iter()
                .map(draft_size)
                .fold(Size::default(), Size::and),
            Self::HandOut(_, conversations, _) | Self::NoteChanged(_, conversations, _) => Size {
                items: conversations.len().max(1),
                bytes: conversations.len().max(1) * ROW_BYTES,
            },
            Self::Hold(held, _) => Size {
                items: 1,
                bytes: ROW_BYTES + held.0.body.len(),
            },
            Self::QueueEvent(sent, _) => Size {
                items: 1,
                bytes: ROW_BYTES + sent.event.data.len(),
            },
            Self::EndDeviceEvents(_, places, _) => Size {
                items: places.len().max(1),
                bytes: places.len().max(1) * ROW_BYTES,
            },
            Self::ForgetAudit(_, keys, _) => Size {
                items: keys.len().max(1),
                bytes: keys.len().max(1) * ROW_BYTES,
            },
            Self::Settle(keys, _) => Size {
                items: keys.len(),
                bytes: keys.len() * ROW_BYTES,
            },
            Self::PutPresence(changes, _) => Size {
                items: changes.len(),
                bytes: changes.len() * ROW_BYTES,
            },
            Self::Schedule(scheduled, _, _) => Size {
                items: 1,
                bytes: ROW_BYTES + scheduled.body.len(),
            },
            Self::Reschedule(change, _) => Size {
                items: 1,
                bytes: ROW_BYTES + change.1.as_ref().map_or(0, |after| after.body.len()),
            },
            _ => Size {
                items: 1,
                bytes: ROW_BYTES,
            },
        }
    }
}

/// How much of a commit a draft takes.
pub(super) fn draft_size(draft: &Draft) -> Size {
    let rows: usize = draft
        .changes
        .iter()
        .map(|change| match change {
            Change::Settings(settings) => settings.title.len() + settings.description.len(),
            _ => ROW_BYTES,
        })
        .sum();
    let audit = draft
        .audit
        .as_ref()
        .map_or(0, |line| ROW_BYTES + line.detail.len());
    Size {
        items: 1,
        bytes: ROW_BYTES + draft.body.len() + rows + audit,
    }
}

/// Items and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Size {
    /// The sum of two.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            items: self.items + other.items,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Beyond what one commit takes.
    pub(super) fn fills_a_commit(self) -> bool {
        self.items >= GROUP_ITEMS_MAX || self.bytes >= GROUP_BYTES_MAX
    }

    /// Permits of the queue: a small item costs 4, a large one its KiB.
    fn permits(self) -> u32 {
        let wanted = (self.items * ITEM_PERMITS).max(self.bytes / 1024);
        u32::try_from(wanted.clamp(1, QUEUE_PERMITS)).unwrap_or(u32::MAX)
    }
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Job, Size)>,
    /// Somebody put relaxed moves into the empty overlay.
    nudged: bool,
    /// No more jobs come.
    closed: bool,
}

/// Why the writer woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// There are jobs, or relaxed moves have begun to wait.
    Work,
    /// The time is over.
    TimedOut,
    /// The queue is closed and empty.
    Closed,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            ready: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_PERMITS)),
        }
    }

    /// Puts a job in, and waits for room before. A refused job's waiter sees its channel closed.
    pub(super) async fn push(&self, job: Job) -> Result<(), StoreError> {
        let size = job.size();
        let permits = self.room.acquire_many(size.permits()).await;
        let permits = permits.map_err(|_| closed())?;
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        permits.forget();
        state.jobs.push_back((job, size));
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Wakes the writer because relaxed moves wait.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.ready.notify_one();
    }

    /// Takes what one commit can hold, one job at least; waits for it, at most `timeout`.
    pub(super) fn take(&self, group: &mut Vec<Job>, timeout: Duration) -> Wake {
        let state = self.lock();
        let (mut state, timed_out) = self
            .ready
            .wait_timeout_while(state, timeout, |state| {
                state.jobs.is_empty() && !state.nudged && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.nudged = false;
        if state.jobs.is_empty() {
            return match (state.closed, timed_out.timed_out()) {
                (true, _) => Wake::Closed,
                (_, true) => Wake::TimedOut,
                _ => Wake::Work,
            };
        }
        let mut total = Size::default();
        let mut permits = 0;
        while let Some((job, size)) = state.jobs.pop_front() {
            permits += size.permits();
            total = total.and(size);
            group.push(job);
            let next = state
                .jobs
                .front()
                .map_or(total, |(_, next)| total.and(*next));
            if total.fills_a_commit() || next.bytes > GROUP_BYTES_MAX {
                break;
            }
        }
        drop(state);
        self.room.add_permits(permits as usize);
        Wake::Work
    }

    /// No more jobs come in.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Forgets all jobs: their callers see that the answer will not come.
    pub(super) fn abandon(&self) {
        self.close();
        let jobs = std::mem::take(&mut self.lock().jobs);
        drop(jobs);
    }

    /// Takes no more jobs. Those that are in stay.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

/// Most items of one commit.
pub(super) const GROUP_ITEMS_MAX: usize = 512;
/// A commit is full at so many bytes.
pub(super) const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Room of the queue: 4,096 small items or 16 MiB.
const QUEUE_PERMITS: usize = 16 * 1024;
const ITEM_PERMITS: usize = 4;
/// What a small row counts.
const ROW_BYTES: usize = 256;
