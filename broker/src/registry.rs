//! (user, Client Identifier) → live connection, or the session that is kept for a client that is away.
//!
//! Taking over, without races:
//! 1. A new connection claims its session: every earlier claim is asked to close with «session taken over».
//! 2. It waits for its turn. The turn is a permit that the earlier connection holds until it has told the plugin of its
//!    end and put its session back; claims get it in the order in which they came.
//! 3. It takes what is kept and lives, until a later claim asks it to close.
//!
//! A lock guards the table for a few instructions; waiting happens on the permit of one session only.

mod agenda;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use self::agenda::{Agenda, Deadline, Place};
use crate::codec::packet::Publish;
use crate::codec::reason::ReasonCode;
use crate::hooks::ClientInfo;
use crate::mailbox::Mailbox;
use crate::router::Subscriber;
use crate::session::SessionState;
use crate::session::queue::Queue;

/// Whose session: the user's key and the Client Identifier.
pub(crate) type SessionKey = Arc<(Arc<str>, ByteString)>;

/// All sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
    kept_max: usize,
    per_user_max: usize,
    /// There may be an earlier deadline than before.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// In order, so that they can be listed in pages.
    slots: BTreeMap<SessionKey, Slot>,
    agenda: Agenda,
}

#[derive(Debug)]
struct Slot {
    turn: Arc<Semaphore>,
    claims: Vec<(u64, Arc<Mailbox>)>,
    /// The client of the claim that has the turn, when it has been let in.
    live: Option<Arc<ClientInfo>>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    session: KeptSession,
    expiry: Place,
    will: Option<Place>,
}

/// A session without a connection.
#[derive(Debug)]
pub(crate) struct KeptSession {
    pub(crate) state: SessionState,
    pub(crate) subscriber: Subscriber,
    /// The will that is still to be published.
    pub(crate) will: Option<Box<PendingWill>>,
    /// When the session ends.
    pub(crate) expires_at: Instant,
}

/// The will of a client that is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingWill {
    /// When it is to be published.
    pub(crate) due: Instant,
    pub(crate) publish: Publish,
    /// The key of the user whose will it is.
    pub(crate) user: Arc<str>,
    /// The user's name: the rules are asked again then.
    pub(crate) name: Arc<str>,
    pub(crate) client_id: ByteString,
}

/// What a list shows of one session.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) key: SessionKey,
    pub(crate) live: Option<Arc<ClientInfo>>,
    pub(crate) kept: Option<SeenKept>,
}

/// What a list shows of a session without a connection.
#[derive(Debug)]
pub(crate) struct SeenKept {
    pub(crate) queue: Option<Arc<Queue>>,
    pub(crate) subscriptions: usize,
    pub(crate) expires_at: Instant,
}

impl Seen {
    pub(crate) fn queue(&self) -> Option<&Arc<Queue>> {
        match &self.live {
            Some(live) => live.vitals.queue(),
            None => self.kept.as_ref()?.queue.as_ref(),
        }
    }

    /// The name of the user; its key, if the client is away.
    pub(crate) fn shown_user(&self) -> &str {
        let live = self.live.as_ref();
        live.map_or(&*self.key.0, |live| &*live.identity.name)
    }
}

/// Something that is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// The session has ended. Its will is published if there is one.
    Expired(Box<KeptSession>),
    /// The delay of a will is over; the session, whose number at rest this is, goes on.
    Will(Box<PendingWill>, Option<u64>),
}

/// The right of one connection to a session. Dropped, it lets the next one in.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<Registry>,
    key: SessionKey,
    connection: u64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Registry {
    /// At most so many sessions are kept, and so many of one user.
    pub(crate) fn new(kept_max: usize, per_user_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            kept_max,
            per_user_max,
            changed: Notify::new(),
        }
    }

    /// Claims a session for a connection, asks the earlier ones to close, and waits for their end. Returns the session
    /// that is kept, and how many connections had to go.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        key: SessionKey,
        connection: u64,
        mailbox: &Arc<Mailbox>,
    ) -> (Claim, usize) {
        let (turn, others) = self.lock().claim(&key, connection, mailbox);
        for other in &others {
            other.close(ReasonCode::SessionTakenOver);
        }
        let mut claim = Claim {
            registry: Arc::clone(self),
            key,
            connection,
            permit: None,
        };
        // The semaphore is never closed.
        claim.permit = turn.acquire_owned().await.ok();
        (claim, others.len())
    }

    /// What is due now, and when to ask again.
    pub(crate) fn due(&self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let mut inner = self.lock();
        let mut due = Vec::new();
        while let Some(deadline) = inner.agenda.take_due(now) {
            due.extend(match deadline {
                Deadline::Expiry(key) => inner
                    .take_kept(&key)
                    .map(|session| Due::Expired(Box::new(session))),
                Deadline::Will(key) => inner
                    .take_will(&key)
                    .map(|(will, session)| Due::Will(will, session)),
            });
        }
        (due, inner.agenda.next())
    }

    /// Keeps a session that was found at rest, before any connection.
    pub(crate) fn restore(&self, key: &SessionKey, session: KeptSession) {
        let mut inner = self.lock();
        inner.slot(key);
        inner.keep(key, session);
    }

    /// At most `max` sessions behind `after`, in the order of their keys, and behind which one to go on.
    pub(crate) fn page(
        &self,
        after: Option<&(Arc<str>, ByteString)>,
        max: usize,
    ) -> (Vec<Seen>, Option<(Arc<str>, ByteString)>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.lock();
        let slots = inner
            .slots
            .range::<(Arc<str>, ByteString), _>((from, Bound::Unbounded));
        let seen: Vec<_> = slots.take(max).map(|(key, slot)| slot.seen(key)).collect();
        let last = seen.last().filter(|_| seen.len() == max);
        let next = last.map(|seen| (*seen.key).clone());
        (seen, next)
    }

    /// The client that is connected with this session.
    pub(crate) fn live(&self, key: &(Arc<str>, ByteString)) -> Option<Arc<ClientInfo>> {
        self.lock().slots.get(key)?.live.clone()
    }

    /// Waits until there may be an earlier deadline.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Wakes all connections.
    pub(crate) fn wake_all(&self) {
        let mailboxes: Vec<_> = {
            let inner = self.lock();
            let claims = inner.slots.values().flat_map(|slot| &slot.claims);
            claims.map(|(_, mailbox)| Arc::clone(mailbox)).collect()
        };
        for mailbox in mailboxes {
            mailbox.wake();
        }
    }

    /// Number of kept sessions.
    pub(crate) fn kept(&self) -> usize {
        self.lock().agenda.kept()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn claim(
        &mut self,
        key: &SessionKey,
        connection: u64,
        mailbox: &Arc<Mailbox>,
    ) -> (Arc<Semaphore>, Vec<Arc<Mailbox>>) {
        let slot = self.slot(key);
        let others = slot
            .claims
            .iter()
            .map(|(_, mailbox)| Arc::clone(mailbox))
            .collect();
        slot.claims.reserve_exact(1);
        slot.claims.push((connection, Arc::clone(mailbox)));
        (Arc::clone(&slot.turn), others)
    }

    fn slot(&mut self, key: &SessionKey) -> &mut Slot {
        self.slots.entry(Arc::clone(key)).or_insert_with(|| Slot {
            turn: Arc::new(Semaphore::new(1)),
            claims: Vec::new(),
            live: None,
            kept: None,
        })
    }

    fn keep(&mut self, key: &SessionKey, session: KeptSession) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let will = session
            .will
            .as_ref()
            .map(|will| self.agenda.add_will(will.due, key));
        let expiry = self.agenda.add_expiry(session.expires_at, key);
        slot.kept = Some(Kept {
            session,
            expiry,
            will,
        });
    }

    fn take_kept(&mut self, key: &SessionKey) -> Option<KeptSession> {
        let slot = self.slots.get_mut(key)?;
        let kept = slot.kept.take()?;
        if slot.claims.is_empty() {
            self.slots.remove(key);
        }
        self.agenda.remove(kept.expiry, kept.will);
        Some(kept.session)
    }

    fn take_will(&mut self, key: &SessionKey) -> Option<(Box<PendingWill>, Option<u64>)> {
        let kept = self.slots.get_mut(key)?.kept.as_mut()?;
        kept.will = None;
        let will = kept.session.will.take()?;
        Some((will, kept.session.subscriber.number()))
    }

    /// Takes those that are too many: of this user, and in all. One user with many sessions makes room for the others.
    fn evict(&mut self, user: &Arc<str>, kept_max: usize, per_user_max: usize) -> Vec<KeptSession> {
        let mut evicted = Vec::new();
        loop {
            let next = if self.agenda.kept_of(user) > per_user_max {
                self.agenda.first_of(user)
            } else if self.agenda.kept() > kept_max {
                self.agenda.first_of_most()
            } else {
                None
            };
            let Some(session) = next.and_then(|key| self.take_kept(&key)) else {
                return evicted;
            };
            evicted.push(session);
        }
    }
}

impl Slot {
    fn seen(&self, key: &SessionKey) -> Seen {
        Seen {
            key: Arc::clone(key),
            live: self.live.clone(),
            kept: self.kept.as_ref().map(|kept| SeenKept {
                queue: kept.session.subscriber.queue().cloned(),
                subscriptions: kept.session.subscriber.subscriptions(),
                expires_at: kept.session.expires_at,
            }),
        }
    }
}

impl Claim {
    /// The client has been let in: it is listed as long as the claim lives.
    pub(crate) fn enter(&self, client: &Arc<ClientInfo>) {
        if let Some(slot) = self.registry.lock().slots.get_mut(&self.key) {
            slot.live = Some(Arc::clone(client));
        }
    }

    /// Takes the session that is kept, if there is one.
    pub(crate) fn take_kept(&self) -> Option<KeptSession> {
        let kept = self.registry.lock().take_kept(&self.key);
        if kept.is_some() {
            // Whoever watches counts again.
            self.registry.changed.notify_one();
        }
        kept
    }

    /// Keeps the session for the client's return. Returns those that had to go because there are too many.
    pub(crate) fn keep(self, session: KeptSession) -> Vec<KeptSession> {
        let evicted = {
            let mut inner = self.registry.lock();
            inner.keep(&self.key, session);
            let Registry {
                kept_max,
                per_user_max,
                ..
            } = *self.registry;
            inner.evict(&self.key.0, kept_max, per_user_max)
        };
        self.registry.changed.notify_one();
        evicted
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        let Some(slot) = inner.slots.get_mut(&self.key) else {
            return;
        };
        slot.claims
            .retain(|(connection, _)| *connection != self.connection);
        let live = slot.live.as_ref();
        if live.is_some_and(|live| live.connection == self.connection) {
            slot.live = None;
        }
        if slot.claims.is_empty() && slot.kept.is_none() {
            inner.slots.remove(&self.key);
        }
        // The permit goes after this, so that the next one finds everything in order.
    }
}

/// When a session that lives on for this many seconds ends.
pub(crate) fn expires_at(now: Instant, session_expiry: u32) -> Instant {
    now.checked_add(Duration::from_secs(session_expiry.into()))
        .unwrap_or(now)
}

/// Sessions that are looked at under the lock at once.
pub(crate) const PAGE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn key(client_id: &'static str) -> SessionKey {
        key_of("user", client_id)
    }

    fn key_of(user: &'static str, client_id: &'static str) -> SessionKey {
        Arc::new((user.into(), client_id.into()))
    }

    fn session(expires_at: Instant) -> KeptSession {
        KeptSession {
            state: SessionState::default(),
            subscriber: Subscriber::default(),
            will: None,
            expires_at,
        }
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn claimed(registry: &Arc<Registry>, id: &'static str, connection: u64) -> Claim {
        claimed_key(registry, key(id), connection)
    }

    fn claimed_key(registry: &Arc<Registry>, key: SessionKey, connection: u64) -> Claim {
        let mailbox = Arc::default();
        match poll(pin!(registry.claim(key, connection, &mailbox))) {
            Poll::Ready((claim, _)) => claim,
            Poll::Pending => panic!("somebody else has the turn"),
        }
    }

    #[test]
    fn a_later_claim_closes_the_earlier_ones_and_waits_for_them() {
        let registry = Arc::new(Registry::new(10, 10));
        let mailboxes: [Arc<Mailbox>; 3] = Default::default();
        let mut first = pin!(registry.claim(key("a"), 1, &mailboxes[0]));
        let Poll::Ready((first, 0)) = poll(first.as_mut()) else {
            panic!("nobody is there")
        };
        let mut second = pin!(registry.claim(key("a"), 2, &mailboxes[1]));
        assert!(poll(second.as_mut()).is_pending());
        let mut third = pin!(registry.claim(key("a"), 3, &mailboxes[2]));
        assert!(poll(third.as_mut()).is_pending());
        let closed = mailboxes
            .each_ref()
            .map(|it| it.close_requested().is_some());
        assert_eq!(closed, [true, true, false]);

        first.keep(session(clock::now() + Duration::from_secs(9)));
        let Poll::Ready((second, _)) = poll(second.as_mut()) else {
            panic!("it is the second one's turn")
        };
        assert!(second.take_kept().is_some());
        drop(second);
        assert!(poll(third.as_mut()).is_ready());
    }

    #[test]
    fn a_claim_that_gives_up_leaves_nothing_behind() {
        let registry = Arc::new(Registry::new(10, 10));
        let first = claimed(&registry, "a", 1);
        {
            let mailbox = Arc::default();
            let mut second = pin!(registry.claim(key("a"), 2, &mailbox));
            assert!(poll(second.as_mut()).is_pending());
        }
        drop(first);
        assert!(registry.lock().slots.is_empty());
    }

    #[test]
    fn sessions_end_when_they_expire() {
        let registry = Arc::new(Registry::new(10, 10));
        let now = clock::now();
        let end = now + Duration::from_secs(5);
        claimed(&registry, "a", 1).keep(session(end));
        let (due, next) = registry.due(now);
        assert!(due.is_empty());
        assert_eq!(next, Some(end));
        let (due, next) = registry.due(end);
        assert!(matches!(due[..], [Due::Expired(_)]));
        assert_eq!(next, None);
        assert!(registry.lock().slots.is_empty());
    }

    #[test]
    fn too_many_sessions_push_out_the_one_that_expires_first() {
        let registry = Arc::new(Registry::new(1, 10));
        let now = clock::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        assert!(claimed(&registry, "a", 1).keep(session(late)).is_empty());
        let evicted = claimed(&registry, "b", 2).keep(session(soon));
        assert_eq!(evicted.len(), 1);
        assert_eq!(evicted[0].expires_at, soon);
        assert_eq!(registry.kept(), 1);
    }

    #[test]
    fn a_user_with_many_sessions_pushes_out_none_of_another() {
        let registry = Arc::new(Registry::new(4, 10));
        let now = clock::now();
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        let victim = claimed_key(&registry, key_of("victim", "a"), 1);
        assert!(victim.keep(session(soon)).is_empty());
        for id in ["a", "b", "c"] {
            let claim = claimed_key(&registry, key_of("mallory", id), 2);
            assert!(claim.keep(session(late)).is_empty());
        }
        let evicted = claimed_key(&registry, key_of("mallory", "d"), 2).keep(session(late));
        assert_eq!(evicted.len(), 1);
        assert_eq!(evicted[0].expires_at, late);
        let victim = claimed_key(&registry, key_of("victim", "a"), 3);
        assert!(victim.take_kept().is_some());
    }

    #[test]
    fn the_sessions_of_one_user_are_limited() {
        let registry = Arc::new(Registry::new(10, 1));
        let end = clock::now() + Duration::from_secs(9);
        for user in ["alice", "bob"] {
            let claim = claimed_key(&registry, key_of(user, "a"), 1);
            assert!(claim.keep(session(end)).is_empty());
        }
        let evicted = claimed_key(&registry, key_of("bob", "b"), 1).keep(session(end));
        assert_eq!((evicted.len(), registry.kept()), (1, 2));
    }

    #[test]
    fn sessions_are_listed_in_pages() {
        let registry = Arc::new(Registry::new(10, 10));
        let end = clock::now() + Duration::from_secs(5);
        for id in ["c", "a", "b"] {
            claimed(&registry, id, 1).keep(session(end));
        }
        let ids = |page: &[Seen]| -> Vec<_> { page.iter().map(|it| it.key.1.clone()).collect() };
        let (first, next) = registry.page(None, 2);
        assert_eq!(ids(&first), ["a", "b"]);
        let (second, end) = registry.page(next.as_ref(), 2);
        assert_eq!((ids(&second), end), (vec!["c".into()], None));
    }
}
