//! What an operator sees and does while the broker serves: clients, sessions, retained messages.
//!
//! Lists come in pages: each call looks at a bounded number of sessions or topics, in the order of their keys, so that no
//! lock is held for long however many there are. A page may be empty and have a next one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use tokio::sync::oneshot;

use crate::acl;
use crate::clock;
use crate::codec::packet::{Qos, Version};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::hooks::{ClientInfo, Peer};
use crate::journal::Waiter;
use crate::mailbox::Mailbox;
use crate::registry::{PAGE, Seen};
use crate::server::Server;
use crate::session::queue::Load;
use crate::sys;

/// The user's key and the Client Identifier: what names a session.
pub type SessionId = (Arc<str>, ByteString);

/// A handle on a broker, before it serves and afterwards too. Cheap to clone.
#[derive(Clone, Default)]
pub struct Operator(Arc<OnceLock<Weak<Server>>>);

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Operator(serving: {})", self.is_serving())
    }
}

/// Why something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// It does not serve yet, or no more.
    #[error("the broker does not serve")]
    NotServing,
    /// These topics are the server's own.
    #[error("only the server publishes below $SYS")]
    OwnTopics,
    /// What was to be removed at rest may come back after a restart: the store has failed.
    #[error("it is gone from memory, but the store takes no writes")]
    NotAtRest,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, K> {
    /// What was found.
    pub items: Vec<T>,
    /// Behind what to go on; `None`: that was all.
    pub next: Option<K>,
}

/// A client that is connected.
#[derive(Clone, Debug)]
pub struct ConnectedClient {
    /// Key of its user, as the plugin gave it.
    pub user: Arc<str>,
    /// What logs call the user.
    pub name: Arc<str>,
    /// Its Client Identifier.
    pub client_id: ByteString,
    /// Where it comes from.
    pub peer: Peer,
    /// 3.1.1 or 5.0.
    pub version: Version,
    /// When it logged in, in ms since 1970.
    pub connected_ms: u64,
    /// Keep Alive in seconds; 0: none.
    pub keep_alive_s: u64,
    /// Subscriptions to ordinary topics.
    pub subscriptions: usize,
    /// Ordinary messages that wait for it.
    pub queue: QueueLoad,
    /// Deliveries at QoS 1 and 2 that wait for its acknowledgements.
    pub inflight: usize,
    /// For how long it has taken nothing of what waits to be sent; `None`: it takes what comes.
    pub blocked: Option<Duration>,
}

/// What waits in the queue of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLoad {
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Messages dropped because it was full, since the queue was made or the server started.
    pub dropped: u64,
}

/// A session, of a client that is connected or away.
#[derive(Clone, Debug)]
pub struct ListedSession {
    /// Key of its user.
    pub user: Arc<str>,
    /// Its Client Identifier.
    pub client_id: ByteString,
    /// The client is connected.
    pub connected: bool,
    /// For how long it is still kept, if the client is away.
    pub expires_in: Option<Duration>,
    /// Subscriptions to ordinary topics.
    pub subscriptions: usize,
    /// Ordinary messages that wait for it.
    pub queue: QueueLoad,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRetained {
    /// Its topic.
    pub topic: ByteString,
    /// With which QoS it was published.
    pub qos: Qos,
    /// Size of its payload.
    pub payload_bytes: usize,
    /// For how long it is kept, if not for ever.
    pub expires_in: Option<Duration>,
}

impl Operator {
    pub(crate) fn attach(&self, server: &Arc<Server>) {
        self.0.get_or_init(|| Arc::downgrade(server));
    }

    /// Does the broker serve, and take connections?
    pub fn is_serving(&self) -> bool {
        self.server().is_ok_and(|it| !it.stop.is_cancelled())
    }

    /// Clients that are connected, behind this one.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`].
    pub fn clients(
        &self,
        after: Option<&SessionId>,
    ) -> Result<Page<ConnectedClient, SessionId>, OperatorError> {
        let clock = Clock::now();
        self.page(after, |seen| Some(clock.client(seen.live.as_ref()?)))
    }

    /// Sessions, behind this one.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`].
    pub fn sessions(
        &self,
        after: Option<&SessionId>,
    ) -> Result<Page<ListedSession, SessionId>, OperatorError> {
        let now = clock::now();
        self.page(after, |seen| session(seen, now))
    }

    /// At most so many of the clients that keep up worst: those that have taken nothing for longest, then those for which
    /// most waits. Looks at all sessions, page by page.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`].
    pub async fn slow_clients(&self, max: usize) -> Result<Vec<ConnectedClient>, OperatorError> {
        let mut slowest: BinaryHeap<Reverse<Slow>> = BinaryHeap::new();
        let mut after = None;
        loop {
            let page = self.clients(after.as_ref())?;
            for client in page.items {
                if client.blocked.is_some() || client.queue != QueueLoad::default() {
                    slowest.push(Reverse(Slow(client)));
                }
                if slowest.len() > max {
                    slowest.pop();
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let sorted = slowest.into_sorted_vec().into_iter();
        Ok(sorted.map(|Reverse(Slow(client))| client).collect())
    }

    /// Closes the connection of a client, with DISCONNECT 0x98 in 5.0; its session goes on, its will is published. False:
    /// it is not connected.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`].
    pub fn kick(&self, user: &str, client_id: &str) -> Result<bool, OperatorError> {
        let live = self.server()?.registry.live(&id(user, client_id));
        if let Some(client) = &live {
            client.close(ReasonCode::AdministrativeAction);
        }
        Ok(live.is_some())
    }

    /// Ends a session for good: its connection, if there is one; subscriptions and messages, in memory and at rest; what
    /// the plugin keeps of it. False: there was none.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`]; [`OperatorError::NotAtRest`] if it is gone, but may come back after a restart.
    pub async fn drop_session(&self, user: &str, client_id: &str) -> Result<bool, OperatorError> {
        let server = self.server()?;
        let key = Arc::new(id(user, client_id));
        // Before the claim below asks it to close because of a takeover: the first reason counts.
        let live = server.registry.live(&key);
        if let Some(client) = &live {
            client.close(ReasonCode::AdministrativeAction);
        }
        // As a connection that comes: the earlier ones have ended when it is its turn, later ones wait for its end.
        let mailbox: Arc<Mailbox> = Arc::default();
        let connection = server.next_connection();
        let (claim, _) = server
            .registry
            .claim(Arc::clone(&key), connection, &mailbox)
            .await;
        let kept = claim.take_kept();
        let existed = live.is_some() || kept.is_some();
        let mut at_rest = true;
        if let Some(session) = kept {
            let waits = session.subscriber.number().is_some();
            let (gone, is_gone) = oneshot::channel();
            server.end_session(session, clock::now(), Some(Waiter::Signal(gone)));
            at_rest = !waits || is_gone.await.is_ok();
        }
        let known = server.hooks.on_session_dropped(user, client_id).await;
        drop(claim);
        match known {
            Ok(known) if at_rest => Ok(existed || known),
            _ => Err(OperatorError::NotAtRest),
        }
    }

    /// Retained messages whose topics match a filter, behind this topic.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`].
    pub fn retained(
        &self,
        filter: &TopicFilter,
        after: Option<&str>,
    ) -> Result<Page<ListedRetained, ByteString>, OperatorError> {
        let now = clock::now();
        let (found, next) = self
            .server()?
            .router
            .page_retained(filter.as_str(), after, PAGE);
        let items = found.into_iter().map(|message| ListedRetained {
            topic: ByteString::from(&*message.publish.topic),
            qos: message.publish.qos,
            payload_bytes: message.publish.payload.len(),
            expires_in: message
                .expires_at
                .map(|at| at.saturating_duration_since(now)),
        });
        Ok(Page {
            items: items.collect(),
            next,
        })
    }

    /// Clears the retained messages whose topics match a filter, in memory and at rest. Who has subscribed is not told.
    /// Returns how many there were.
    ///
    /// # Errors
    /// [`OperatorError::NotServing`], [`OperatorError::OwnTopics`], [`OperatorError::NotAtRest`].
    pub async fn clear_retained(&self, filter: &TopicFilter) -> Result<usize, OperatorError> {
        if acl::is_below(sys::ROOT, filter.as_str()) {
            return Err(OperatorError::OwnTopics);
        }
        let server = self.server()?;
        let (mut cleared, mut after) = (0, None);
        loop {
            let (count, next, entry) =
                server
                    .router
                    .clear_retained(filter.as_str(), after.as_deref(), PAGE);
            cleared += count;
            if let Some(entry) = entry.filter(|entry| !entry.is_empty()) {
                let (gone, is_gone) = oneshot::channel();
                entry.commit(Waiter::Signal(gone));
                is_gone.await.map_err(|_| OperatorError::NotAtRest)?;
            }
            after = next;
            if after.is_none() {
                return Ok(cleared);
            }
            tokio::task::yield_now().await;
        }
    }

    fn server(&self) -> Result<Arc<Server>, OperatorError> {
        let server = self.0.get().and_then(Weak::upgrade);
        server.ok_or(OperatorError::NotServing)
    }

    fn page<T>(
        &self,
        after: Option<&SessionId>,
        item: impl Fn(&Seen) -> Option<T>,
    ) -> Result<Page<T, SessionId>, OperatorError> {
        let (page, next) = self.server()?.registry.page(after, PAGE);
        Ok(Page {
            items: page.iter().filter_map(item).collect(),
            next,
        })
    }
}

/// Both clocks at one moment.
struct Clock {
    now: Instant,
    wall_ms: u64,
}

impl Clock {
    fn now() -> Self {
        Self {
            now: clock::now(),
            wall_ms: clock::wall_ms(),
        }
    }

    fn client(&self, client: &Arc<ClientInfo>) -> ConnectedClient {
        let age = self
            .now
            .saturating_duration_since(client.authenticated_since);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        ConnectedClient {
            user: Arc::clone(&client.identity.user),
            name: Arc::clone(&client.identity.name),
            client_id: client.client_id.clone(),
            peer: client.peer,
            version: client.version,
            connected_ms: self.wall_ms.saturating_sub(age_ms),
            keep_alive_s: client.vitals.keep_alive_s,
            subscriptions: client.vitals.subscriptions(),
            queue: client
                .vitals
                .queue()
                .map(|it| it.load().into())
                .unwrap_or_default(),
            inflight: client.vitals.inflight(),
            blocked: client.vitals.blocked_for(age),
        }
    }
}

fn session(seen: &Seen, now: Instant) -> Option<ListedSession> {
    let kept = seen.kept.as_ref();
    if seen.live.is_none() && kept.is_none() {
        return None;
    }
    let subscriptions = match &seen.live {
        Some(live) => live.vitals.subscriptions(),
        None => kept.map_or(0, |kept| kept.subscriptions),
    };
    Some(ListedSession {
        user: Arc::clone(&seen.key.0),
        client_id: seen.key.1.clone(),
        connected: seen.live.is_some(),
        expires_in: kept.map(|kept| kept.expires_at.saturating_duration_since(now)),
        subscriptions,
        queue: seen.queue().map(|it| it.load().into()).unwrap_or_default(),
    })
}

fn id(user: &str, client_id: &str) -> SessionId {
    (user.into(), client_id.into())
}

impl From<Load> for QueueLoad {
    fn from(load: Load) -> Self {
        Self {
            messages: load.messages,
            bytes: load.bytes,
            dropped: load.dropped,
        }
    }
}

/// In the order of who keeps up worse.
struct Slow(ConnectedClient);

impl Slow {
    const fn weight(&self) -> (Option<Duration>, usize, u64) {
        let queue = &self.0.queue;
        (self.0.blocked, queue.messages, queue.dropped)
    }
}

impl Ord for Slow {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.weight().cmp(&other.weight())
    }
}

impl PartialOrd for Slow {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Slow {
    fn eq(&self, other: &Self) -> bool {
        self.weight() == other.weight()
    }
}

impl Eq for Slow {}
