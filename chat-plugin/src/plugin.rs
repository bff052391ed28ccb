//! MQTT ⇄ service: the chat as a plugin of the broker.
//!
//! A connection is a `Peer`: its user, its device, the queue of what it asks for, and its `Reader`. What it asks for goes
//! through `ingest` (publishes), `subscribe` and `rpc`; deliveries are pulled from the reader.

mod acts;
mod answer;
mod broadcast;
mod dropped;
mod ingest;
mod logins;
mod peer;
mod presence;
mod rates;
mod revoked;
mod rpc;
mod scheduled;
mod subscribe;
mod visitors;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use broker::acl::Who;
use broker::codec::packet::{PacketId, Publish, SubscribeFilter};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use broker::hooks::{
    Access, AuthenticateRequest, ClientInfo, Credit, Delivery as Delivered, DeliveryOutcome,
    DeliveryRef, Hooks, Identity, PublishAnswer, Room, SessionEnd, SessionOpen, SessionRestored,
    Ticket,
};
use broker::operator::Operator;
use broker::scram::Credential;
use proto::ids::{ConversationId, DeviceId, UserId};
use proto::payload;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::answer::{json_message, json_publish, pair, server_publish};
use self::logins::Logins;
use self::peer::{Item, Peer, Record, Sessions};
use self::rates::Rates;
use self::subscribe::Start;
use crate::accounts::{Accounts, AuthError, UserChange, UserEvent};
use crate::config::Config;
use crate::conversations::{Conversations, RingLimits};
use crate::delivery::progress::{Departed, Progress};
use crate::delivery::reader::{Reader, ReaderLimits, Reference};
use crate::delivery::{Delivery, Online};
use crate::domain::audit::AuditKeep;
use crate::domain::device::{Device, Inflight, SharedSubscription, Subscription};
use crate::domain::support::is_visitor;
use crate::domain::user::User;
use crate::filter::ContentFilter;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::presence::{Presence, PresenceLimits};
use crate::rate::{Buckets, Rate};
use crate::receipts::{ReceiptLimits, Receipts};
use crate::service::purge::Trust;
use crate::service::rates::UserRates;
use crate::service::{Actor, Service};
use crate::store::{ChatStore, Durability, Health, StoreError};
use crate::typing::{Typing, TypingLimits};

/// Logins by token that are on the way in at once.
const TOKENS_MAX: usize = 16_384;
/// How long after the end of its connection something may still wait for the content filter.
const LATE: Duration = Duration::from_secs(3);

/// The chat, to be given to the broker.
pub struct ChatPlugin {
    service: Service,
    accounts: Arc<Accounts>,
    delivery: Arc<Delivery>,
    progress: Arc<Progress>,
    receipts: Arc<Receipts>,
    presence: Arc<Presence>,
    typing: Arc<Typing>,
    online: Arc<Online>,
    peers: RwLock<HashMap<u64, Arc<Peer>>>,
    /// Connections that have ended, but not what was being done for them.
    leaving: Mutex<HashMap<DeviceId, Arc<Peer>>>,
    rates: Rates,
    logins: Logins,
    /// With which tokens those log in who are on the way in.
    tokens: quick_cache::sync::Cache<DeviceId, String>,
    /// What ends sessions, once the broker is made.
    operator: OnceLock<Operator>,
    started_ms: u64,
    payload_limits: payload::PayloadLimits,
    ordinary_topics_open: bool,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    stop: CancellationToken,
    me: Weak<Self>,
}

impl ChatPlugin {
    /// Builds the chat over a store and starts its background work. `ordinary_topics_open`: topics outside `chat/` may be
    /// used by every user.
    pub fn new(
        store: Arc<dyn ChatStore>,
        accounts: Arc<Accounts>,
        config: Config,
        ordinary_topics_open: bool,
    ) -> Arc<Self> {
        let cached = usize::try_from(config.conversation_cache_max).unwrap_or(usize::MAX);
        let ring = RingLimits {
            entries_max: size(config.ring_entries_max),
            bytes_max: size(config.ring_bytes_max),
            total_bytes_max: size(config.ring_bytes_total_max),
        };
        let limits = ReceiptLimits {
            interval: Duration::from_millis(u64::from(config.receipt_interval_ms)),
            interval_max: Duration::from_millis(u64::from(config.receipt_interval_max_ms)),
            moves_max: size(config.receipt_moves_max),
            counts_max: size(config.receipt_counts_max),
        };
        let tracker = TaskTracker::new();
        let conversations = Arc::new(Conversations::new(Arc::clone(&store), cached, ring));
        let names = Arc::new(Names::new(Arc::clone(&store), cached));
        let progress = Arc::new(Progress::new(Arc::clone(&store)));
        let online = Arc::new(Online::default());
        let receipts = Arc::new(Receipts::new(
            Arc::clone(&store),
            Arc::clone(&online),
            Arc::clone(&progress),
            limits,
        ));
        let delivery = Arc::new(Delivery::new(
            Arc::clone(&store),
            (Arc::clone(&conversations), Arc::clone(&names)),
            Arc::clone(&progress),
            (Arc::clone(&receipts), Arc::clone(&online)),
            tracker.clone(),
            config.channel_inbox_max.into(),
        ));
        let metrics = Arc::new(Metrics::default());
        let presence = Arc::new(Presence::new(
            Arc::clone(&store),
            (Arc::clone(&names), Arc::clone(&online)),
            Arc::clone(&metrics),
            PresenceLimits::of(&config),
        ));
        let typing = Arc::new(Typing::new(
            (Arc::clone(&conversations), Arc::clone(&names)),
            (Arc::clone(&online), Arc::clone(&presence)),
            Arc::clone(&metrics),
            TypingLimits::of(&config),
        ));
        let payload_limits = payload::PayloadLimits {
            body_bytes_max: size(config.body_bytes_max),
            json_depth_max: size(config.json_depth_max),
        };
        let rates = Rates::new(&config);
        let service = Service {
            store,
            conversations,
            names,
            delivery: Arc::clone(&delivery),
            rates: UserRates::new(&config),
            filter: OnceLock::new(),
            broadcast: Notify::new(),
            conversation_rates: Buckets::new(
                Rate::per_s(
                    config.conversation_messages_per_s,
                    config.conversation_messages_burst,
                ),
                cached,
            ),
            config,
            trust: Trust::new(crate::clock::monotonic()),
            unfinished: tokio::sync::Notify::new(),
        };
        let plugin = Arc::new_cyclic(|me| Self {
            service,
            accounts,
            delivery,
            progress,
            receipts,
            presence,
            typing,
            online,
            peers: RwLock::default(),
            leaving: Mutex::default(),
            rates,
            logins: Logins::default(),
            tokens: quick_cache::sync::Cache::new(TOKENS_MAX),
            operator: OnceLock::new(),
            started_ms: crate::clock::now_ms(),
            payload_limits,
            ordinary_topics_open,
            metrics,
            tracker,
            stop: CancellationToken::new(),
            me: Weak::clone(me),
        });
        plugin.start();
        plugin
    }

    /// Who ends the sessions of devices that are revoked, and of users who go. Before the broker serves.
    pub fn attach(&self, operator: Operator) {
        self.operator.get_or_init(|| operator);
    }

    /// Messages are shown to this filter from now on. Called once, before anybody connects.
    pub fn set_filter(&self, filter: Arc<dyn ContentFilter>) {
        if self.service.filter.set(filter).is_err() {
            tracing::error!("there is a content filter already");
        }
    }

    /// Counters of the chat.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn start(self: &Arc<Self>) {
        let feed = self.service.store.feed();
        let (delivery, stop) = (Arc::clone(&self.delivery), self.stop.clone());
        self.tracker
            .spawn(async move { delivery.follow(feed, stop).await });
        let (receipts, stop) = (Arc::clone(&self.receipts), self.stop.clone());
        self.tracker.spawn(async move { receipts.run(stop).await });
        let (presence, stop) = (Arc::clone(&self.presence), self.stop.clone());
        self.tracker.spawn(async move { presence.run(stop).await });
        let (typing, stop) = (Arc::clone(&self.typing), self.stop.clone());
        self.tracker.spawn(async move { typing.run(stop).await });
        let (progress, stop) = (Arc::clone(&self.progress), self.stop.clone());
        self.tracker.spawn(async move { progress.run(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker
            .spawn(async move { plugin.follow_accounts(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker
            .spawn(async move { plugin.maintain(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker.spawn(async move { plugin.sweep(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker.spawn(async move { plugin.retain(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker
            .spawn(async move { plugin.finish_purges(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker
            .spawn(async move { plugin.send_scheduled(stop).await });
        let (plugin, stop) = (Arc::clone(self), self.stop.clone());
        self.tracker
            .spawn(async move { plugin.broadcast(stop).await });
    }

    /// A changed password, a removed user or a revoked token ends the connections that rest on it.
    async fn follow_accounts(&self, stop: CancellationToken) {
        let mut events = self.accounts.events();
        let mut minutes = tokio::time::interval(Duration::from_mins(1));
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = minutes.tick() => {
                    self.accounts.tell_untold();
                    continue;
                }
                () = stop.cancelled() => {
                    self.accounts.tell_untold();
                    return;
                }
            };
            let Some(UserEvent { user, change, at }) = event else {
                return;
            };
            if let UserChange::DeviceRevoked(id) = change {
                self.delivery.account_changed(user);
                // Its connection is closed already, but for one that was on its way in meanwhile.
                self.logins.revoked(id, at);
                for reader in self.online.of(user) {
                    if reader.device == id && self.logins.is_revoked(id, &reader.client) {
                        self.end_late(&reader);
                    }
                }
                continue;
            }
            if change == UserChange::Erased {
                self.reread_name(user).await;
                if let Err(error) = self.follow_erasure(user).await {
                    tracing::error!(%error, "what an erased user said of himself may be told on");
                }
                self.delivery.account_changed(user);
                continue;
            }
            if change == UserChange::Removed {
                self.reread_name(user).await;
                if let Err(error) = self.judge_watchers(user, None).await {
                    tracing::error!(%error, "watchers of a removed user could not be judged");
                }
                if let Some(plugin) = self.me.upgrade() {
                    self.tracker.spawn(async move {
                        plugin.see_off(user).await;
                        if let Err(error) = plugin.drop_sessions(Some(user)).await {
                            tracing::error!(%user, %error, "sessions of a removed user are still there");
                        }
                    });
                }
            }
            // Noted first: who is on the way in finds it, and who is in already is found here.
            self.logins.changed(user, at);
            for reader in self.online.of(user) {
                if self.logins.are_over(user, &reader.client) {
                    reader.client.close(ReasonCode::NotAuthorized);
                }
            }
        }
    }

    /// What a user told of himself is gone from the store: it is told to nobody any more.
    async fn follow_erasure(&self, user: UserId) -> Result<(), StoreError> {
        self.presence.forget_text(user).await?;
        self.judge_watchers(user, None).await.map(|_| ())
    }

    async fn reread_name(&self, user: UserId) {
        match self.service.store.user(user).await {
            Ok(Some(changed)) => self.service.names.changed(&changed),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a user who was changed could not be read"),
        }
    }

    async fn maintain(&self, stop: CancellationToken) {
        const HOUR: Duration = Duration::from_hours(1);
        loop {
            if let Err(error) = self.see_off_removed().await {
                tracing::error!(%error, "removed users could not be looked for");
            }
            if let Err(error) = self.service.release_orphans().await {
                tracing::error!(%error, "cases of former agents could not be looked for");
            }
            tokio::select! {
                () = tokio::time::sleep(HOUR) => {}
                () = stop.cancelled() => return,
            }
            let now_ms = match self.service.trusted_now().await {
                Ok(Some(now_ms)) => now_ms,
                Ok(None) => {
                    tracing::error!(
                        "the clock is too far ahead of when the server ran last: nothing is removed for its age. If it is right, say so: mqchat trust-clock"
                    );
                    0
                }
                Err(error) => {
                    tracing::error!(%error, "the hourly upkeep could not begin");
                    continue;
                }
            };
            let oldest_ms = self.oldest_ms(now_ms);
            if let Err(error) = self.drop_old_devices(oldest_ms).await {
                tracing::error!(%error, "old devices could not be dropped");
            }
            let audit = self.audit_keep(now_ms);
            let upkeep = self.service.store.maintain(now_ms, oldest_ms, audit);
            if let Err(error) = upkeep.await {
                tracing::error!(%error, "the hourly upkeep of the store failed");
            }
        }
    }

    fn audit_keep(&self, now_ms: u64) -> AuditKeep {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        let config = &self.service.config;
        let kept_ms = match config.audit_days {
            0 => now_ms,
            days => u64::from(days) * DAY_MS,
        };
        AuditKeep {
            from_ms: now_ms.saturating_sub(kept_ms),
            lines_max: config.audit_lines_max.into(),
        }
    }

    /// Lets go of old messages every hour; at start only of those that are too many.
    async fn retain(&self, stop: CancellationToken) {
        let mut is_first = true;
        let mut hours = tokio::time::interval(Duration::from_hours(1));
        hours.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = hours.tick() => {}
                () = stop.cancelled() => return,
            }
            // A clock that is wrong at start may be set right meanwhile.
            let now_ms = if is_first {
                Ok(None)
            } else {
                self.service.trusted_now().await
            };
            is_first = false;
            let retained = match now_ms {
                Ok(now_ms) => self.service.retain(now_ms, &stop).await,
                Err(error) => Err(error),
            };
            match retained {
                Ok(0) => {}
                Ok(messages) => tracing::info!(messages, "old messages were removed"),
                Err(error) => tracing::error!(%error, "old messages could not be removed"),
            }
        }
    }

    /// Finishes purges that were announced: those of the time before, and those that callers have left.
    async fn finish_purges(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.service.finish_purges(&stop).await {
                tracing::error!(%error, "a purge that was announced could not be finished");
            }
            tokio::select! {
                () = self.service.unfinished.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Users who were removed while the server did not run, or whose departure was cut off.
    async fn see_off_removed(&self) -> Result<(), StoreError> {
        const PAGE: usize = 256;
        let mut after = None;
        loop {
            let users = self.service.store.users(after, PAGE).await?;
            let Some(last) = users.last() else {
                return self.drop_sessions(None).await;
            };
            after = Some(last.id);
            for user in users.iter().filter(|user| user.removed_ms.is_some()) {
                self.see_off(user.id).await;
            }
        }
    }

    /// Makes messages gone whose time is over. Whoever reads before that sees them as gone already.
    async fn sweep(&self, stop: CancellationToken) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = seconds.tick() => {}
                () = stop.cancelled() => return,
            }
            // Whoever reads goes by the clock as it is; but nothing goes for ever by one that may be wrong.
            let now_ms = match self.service.trusted_now().await {
                Ok(Some(now_ms)) => now_ms,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "messages whose time is over could not be removed");
                    return; // the store takes nothing more
                }
            };
            // A large number goes in many commits, with those of others between.
            while !stop.is_cancelled() {
                match self.service.store.expire(now_ms).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "messages whose time is over could not be removed");
                        if error.is_damage() {
                            break; // the next ones at the next tick
                        }
                        return; // the store takes nothing more
                    }
                }
            }
        }
    }

    /// Retention has changed in a conversation: what is over the limit need not wait for the hour.
    fn retain_soon(&self, conversation: ConversationId) {
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        self.tracker.spawn(async move {
            let retained = plugin.service.retain_in(conversation, &plugin.stop);
            if let Err(error) = retained.await {
                tracing::error!(%conversation, %error, "old messages could not be removed");
            }
        });
    }

    /// Takes a removed user out of all groups; what fails is tried again within the hour.
    async fn see_off(&self, user: UserId) {
        let departed = tokio::select! {
            departed = self.service.depart(user) => departed,
            () = self.stop.cancelled() => return,
        };
        match departed {
            Ok(0) => {}
            Ok(groups) => tracing::info!(%user, groups, "a removed user has left the groups"),
            Err(error) => tracing::error!(%user, %error, "a removed user is still in groups"),
        }
    }

    /// Devices that have not been seen for so long that their cursors are not kept any more.
    async fn drop_old_devices(&self, oldest_ms: u64) -> Result<(), StoreError> {
        const PAGE: usize = 256;
        let store = &self.service.store;
        let mut after = None;
        loop {
            let users = store.users(after, PAGE).await?;
            let Some(last) = users.last() else {
                return Ok(());
            };
            after = Some(last.id);
            for user in users {
                self.keep_shared_positions(user.id, oldest_ms).await?;
                for device in store.devices(user.id).await? {
                    let connected = self
                        .online
                        .of(user.id)
                        .iter()
                        .any(|reader| reader.device == device.id);
                    if self.seen_ms(&device) < oldest_ms && !connected {
                        self.forget_positions(user.id, device.id, &device.subscriptions)
                            .await?;
                        store.remove_device(user.id, device.id).await?;
                    }
                }
            }
        }
    }

    /// Shared subscriptions that somebody holds are kept, the others for as long as the cursors of a device.
    async fn keep_shared_positions(&self, user: UserId, oldest_ms: u64) -> Result<(), StoreError> {
        let store = &self.service.store;
        for shared in store.shared(user).await? {
            if self
                .delivery
                .shared
                .find(shared.conversation, shared.id)
                .is_some()
            {
                let seen_ms = crate::clock::now_ms();
                let _is_known = store
                    .put_shared(SharedSubscription { seen_ms, ..shared }, usize::MAX)
                    .await?;
            } else if shared.seen_ms < oldest_ms {
                store.remove_shared(user, shared.id).await?;
            }
        }
        Ok(())
    }

    /// Who has not been seen since then is not waited for any longer.
    fn oldest_ms(&self, now_ms: u64) -> u64 {
        let kept_ms = u64::from(self.service.config.cursor_days) * 24 * 3_600 * 1_000;
        now_ms.saturating_sub(kept_ms)
    }

    /// When a device that is not connected was seen last. One that was when the server was killed is noted as connected,
    /// with the time of its coming: it went when the server did.
    fn seen_ms(&self, device: &Device) -> u64 {
        if device.connected {
            return device.last_seen_ms.max(self.started_ms);
        }
        device.last_seen_ms
    }

    fn peer(&self, client: &ClientInfo) -> Option<Arc<Peer>> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&client.connection)
            .cloned()
    }

    async fn open(
        &self,
        client: &Arc<ClientInfo>,
        open: SessionOpen,
    ) -> Result<SessionRestored, StoreError> {
        let Ok(user) = client.identity.user.parse::<UserId>() else {
            return Err(StoreError::Corrupt("an identity that is no user".into()));
        };
        let device_id = DeviceId::new(user, &client.client_id);
        let leaving = self.leaving().get(&device_id).cloned();
        if let Some(peer) = leaving {
            peer.departed.cancelled().await;
        }
        self.progress.settled().await; // what the connection before left is in the store now
        let config = &self.service.config;
        let limits = ReaderLimits {
            turn_entries: size(config.turn_entries),
            replies_max: size(config.rpc_pending_max),
            replay_window: wants_window(client).then_some(u64::from(config.replay_max)),
        };
        let reader = Arc::new(Reader::new(Arc::clone(client), user, device_id, limits));
        let persistent = open.session_expiry > 0;
        let token = self.tokens.remove(&device_id).map(|(_, token)| token);
        let now_ms = crate::clock::now_ms();
        let mut restored = SessionRestored::default();
        let record = match self.service.store.device(user, device_id).await? {
            None => Record {
                device: Device {
                    token,
                    ..new_device(client, (user, device_id), open.session_expiry, now_ms)
                },
                stored: false,
            },
            Some(found) => {
                let inflight = self.service.store.take_inflight(device_id).await?;
                let is_over = is_expired(found.session_expiry, self.seen_ms(&found), now_ms);
                let kept = !open.clean_start && (open.present || (!open.authoritative && !is_over));
                let seen_ms = found.receipts_ms;
                let mut device = Device {
                    token,
                    last_seen_ms: now_ms,
                    session_expiry: open.session_expiry,
                    connected: true,
                    ..found
                };
                if !kept {
                    let ended = std::mem::take(&mut device.subscriptions);
                    self.forget_positions(user, device_id, &ended).await?;
                }
                // A session that ends with this connection is over at rest from now on.
                let mut at_rest = device.clone();
                if !persistent {
                    at_rest.subscriptions.clear();
                    at_rest.connected = false;
                }
                self.put_connected(&at_rest).await?;
                if persistent && device.has_inbox {
                    reader.make_known();
                }
                if kept && !device.subscriptions.is_empty() {
                    let start = Start::Resumed {
                        seen_ms,
                        account: device.account,
                        kept: persistent,
                    };
                    restored = self.restore(&reader, &device, start, inflight).await?;
                }
                if !persistent {
                    self.forget_positions(user, device_id, &device.subscriptions)
                        .await?;
                }
                Record {
                    device,
                    stored: persistent,
                }
            }
        };
        let limits = self.rates.of(user, device_id, client.peer.ip());
        let resumed = open.present || restored.present;
        if !resumed {
            // The client has forgotten its exchanges, so their packet identifiers begin new ones.
            self.service.store.end_exchanges(device_id).await?;
        }
        let actor = Actor {
            user,
            device: device_id,
            from: Some(client.peer),
        };
        let sessions = Sessions {
            persistent,
            exchanges: persistent || resumed,
        };
        let held = record.device.subscriptions.clone();
        let handle = self.service.names.handle(user).await?;
        let is_visitor = handle.is_some_and(|handle| is_visitor(&handle));
        let peer = Peer::new(
            (actor, is_visitor),
            Arc::clone(&reader),
            sessions,
            limits,
            record,
        );
        let peer = Arc::new(peer);
        self.peers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client.connection, Arc::clone(&peer));
        self.online.insert(Arc::clone(&reader));
        self.presence.connected(user);
        self.look_again(&reader).await;
        self.watch_again(&peer, &held);
        reader.catch_up_logs();
        self.catch_up_receipts(&reader);
        if reader.has_inbox() && reader.begin_attach(false) {
            self.delivery.attach(&reader);
        }
        if self.logins.are_over(user, client) {
            client.close(ReasonCode::NotAuthorized); // changed between login and here
        }
        if self.logins.is_revoked(device_id, client) {
            self.end_late(&reader);
        }
        Ok(restored)
    }

    /// What was changed by other devices before this reader was online was told to nobody: it is read, or told, from now on.
    async fn look_again(&self, reader: &Reader) {
        reader.account().changed();
        if reader.has_inbox()
            && let Err(error) = self.service.shows(reader).await
        {
            tracing::error!(%error, user = %reader.user, "what others are told could not be looked up");
            reader.client.close(ReasonCode::ServerUnavailable);
        }
    }

    /// Brings back the subscriptions of a session at rest, and what it had in flight.
    async fn restore(
        &self,
        reader: &Arc<Reader>,
        device: &Device,
        start: Start,
        inflight: Vec<Inflight>,
    ) -> Result<SessionRestored, StoreError> {
        self.resubscribe(reader, device, start).await?;
        let known = inflight.into_iter().filter_map(|one| {
            let generation = subscribe::generation(device, one.form, one.conversation)?;
            let reference = Reference::Entry {
                slot: one.form,
                conversation: one.conversation,
                seq: one.seq,
                generation,
            };
            Some((PacketId::new(one.packet_id)?, reference))
        });
        let known: Vec<(PacketId, Reference)> = known.collect();
        let flows = self.delivery.flows_of(reader, &known).await?;
        let restored = known
            .iter()
            .map(|(packet_id, reference)| (*packet_id, reference.encode()))
            .collect();
        reader.restore(known, flows);
        Ok(SessionRestored {
            present: true,
            inflight: restored,
        })
    }

    fn close(&self, client: &ClientInfo, end: SessionEnd) {
        let removed = self
            .peers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&client.connection);
        let Some(peer) = removed else { return };
        self.online.remove(&peer.reader);
        peer.reader.end();
        // What it has not acknowledged is for others. The position is on its way to the store.
        self.delivery
            .leave_shared(&peer.reader, peer.reader.shared(None));
        self.presence.disconnected(&peer.reader);
        peer.tasks.close();
        if peer.tasks.is_empty()
            && let Ok(record) = peer.record.try_lock()
        {
            self.depart(&peer, record.clone(), &end);
            return;
        }
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        // What was published before is still stored; the next connection of this device waits for it.
        self.leaving().insert(peer.actor.device, Arc::clone(&peer));
        self.tracker.spawn(async move {
            if tokio::time::timeout(LATE, peer.tasks.wait()).await.is_err() {
                peer.late.cancel();
                peer.tasks.wait().await;
            }
            let record = peer.record.lock().await.clone();
            plugin.depart(&peer, record, &end);
            let mut leaving = plugin.leaving();
            if leaving
                .get(&peer.actor.device)
                .is_some_and(|other| Arc::ptr_eq(other, &peer))
            {
                leaving.remove(&peer.actor.device);
            }
            drop(leaving);
            peer.departed.cancel();
        });
    }

    /// Queues work of a connection behind what it asked for before.
    fn queue(&self, client: &ClientInfo, items: impl IntoIterator<Item = Item>) {
        let (Some(peer), Some(plugin)) = (self.peer(client), self.me.upgrade()) else {
            return;
        };
        if peer.queue(items) {
            let tasks = peer.tasks.clone();
            let work = async move { plugin.ingest(&peer).await };
            self.tracker.spawn(tasks.track_future(work));
        }
    }

    /// Positions of `…/log` subscriptions that are over.
    async fn forget_positions(
        &self,
        user: UserId,
        device: DeviceId,
        ended: &[Subscription],
    ) -> Result<(), StoreError> {
        for position in subscribe::positions(device, ended) {
            self.service.store.remove_device(user, position).await?;
        }
        Ok(())
    }

    fn leaving(&self) -> MutexGuard<'_, HashMap<DeviceId, Arc<Peer>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a device is connected.
    async fn put_connected(&self, device: &Device) -> Result<(), StoreError> {
        self.service
            .store
            .put_device(device.clone(), Some(Vec::new()), Durability::Relaxed)
            .await
    }

    fn depart(&self, peer: &Peer, record: Record, end: &SessionEnd) {
        if !record.stored {
            return;
        }
        let inflight = if end.discarded {
            Vec::new()
        } else {
            inflight_at_rest(&peer.reader, &end.inflight)
        };
        // Receipts that may not have arrived are told again: those since the oldest of them was handed out, or waited.
        let unsure =
            end.inflight
                .iter()
                .filter_map(|(_, reference)| match Reference::decode(reference)? {
                    Reference::State { ts_ms } => Some(ts_ms),
                    Reference::Entry { .. }
                    | Reference::Account { .. }
                    | Reference::Event { .. } => None,
                });
        let now_ms = crate::clock::now_ms();
        let unsure = unsure.chain(peer.reader.receipts_wait_since());
        let mut device = Device {
            receipts_ms: unsure.fold(now_ms, u64::min),
            account: peer.reader.account().acknowledged(),
            last_seen_ms: now_ms,
            session_expiry: end.session_expiry,
            connected: false,
            ..record.device
        };
        let ended = if end.discarded {
            std::mem::take(&mut device.subscriptions)
        } else {
            Vec::new()
        };
        let positions = subscribe::positions(device.id, &ended).collect();
        self.progress.departed(Departed {
            device,
            inflight,
            positions,
        });
    }
}

fn new_device(
    client: &ClientInfo,
    (user, id): (UserId, DeviceId),
    session_expiry: u32,
    now_ms: u64,
) -> Device {
    Device {
        id,
        user,
        client_id: client.client_id.to_string(),
        subscriptions: Vec::new(),
        session_expiry,
        has_inbox: false,
        has_queue: false,
        connected: true,
        receipts_ms: now_ms,
        account: 0,
        first_seen_ms: now_ms,
        token: None,
        last_seen_ms: now_ms,
    }
}

fn inflight_at_rest(reader: &Reader, inflight: &[(PacketId, DeliveryRef)]) -> Vec<Inflight> {
    let kept = reader.keepable(inflight).into_iter();
    let at_rest = kept.filter_map(|(packet_id, reference)| match reference {
        Reference::Entry {
            slot,
            conversation,
            seq,
            ..
        } => Some(Inflight {
            packet_id: packet_id.get(),
            conversation,
            seq,
            form: slot,
        }),
        Reference::State { .. } | Reference::Account { .. } | Reference::Event { .. } => None,
    });
    at_rest.collect()
}

/// Does the client want no more than the newest entries of those that it has missed? Asked for at CONNECT.
fn wants_window(client: &ClientInfo) -> bool {
    let mut properties = client.user_properties.iter();
    properties.any(|(name, value)| &**name == "replay" && &**value == "window")
}

/// Is the session over that was last seen then?
fn is_expired(session_expiry: u32, seen_ms: u64, now_ms: u64) -> bool {
    let lasts_ms = u64::from(session_expiry) * 1_000;
    session_expiry != u32::MAX && now_ms > seen_ms.saturating_add(lasts_ms)
}

/// Who an account is to the broker.
fn identity(user: &User) -> Identity {
    Identity {
        user: user.id.to_string().into(),
        name: user.handle.as_str().into(),
    }
}

/// What CONNACK says of a login that failed; `unproved` if the client proved to be nobody.
fn refusal(error: &AuthError, unproved: ReasonCode) -> ReasonCode {
    match error {
        AuthError::Incomplete | AuthError::BadCredentials => unproved,
        AuthError::Throttled { .. } => ReasonCode::ConnectionRateExceeded,
        AuthError::Busy => ReasonCode::ServerBusy,
        error => {
            tracing::error!(%error, "a login could not be checked");
            ReasonCode::ServerUnavailable
        }
    }
}

fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

#[async_trait]
impl Hooks for ChatPlugin {
    fn root(&self) -> &'static str {
        proto::topics::ROOT
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<Identity, ReasonCode> {
        if matches!(self.service.store.health(), Health::Poisoned(_)) {
            return Err(ReasonCode::ServerUnavailable);
        }
        let login = self.accounts.login(&request).await;
        let user = login.map_err(|error| refusal(&error, ReasonCode::BadUserNameOrPassword))?;
        let token = self.accounts.token_of(&request).await;
        let token = token.map_err(|error| refusal(&error, ReasonCode::BadUserNameOrPassword))?;
        let device = DeviceId::new(user.id, &request.client_id);
        match token {
            Some(token) => self.tokens.insert(device, token),
            None => drop(self.tokens.remove(&device)),
        }
        Ok(identity(&user))
    }

    async fn scram_credential(
        &self,
        name: &str,
        request: &AuthenticateRequest,
    ) -> Result<Option<Credential>, ReasonCode> {
        if !self.accounts.offers_scram() {
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        if matches!(self.service.store.health(), Health::Poisoned(_)) {
            return Err(ReasonCode::ServerUnavailable);
        }
        let found = self.accounts.scram_credential(name, request).await;
        found.map_err(|error| refusal(&error, ReasonCode::NotAuthorized))
    }

    async fn scram_login(
        &self,
        name: &str,
        request: &AuthenticateRequest,
        proved: Option<&Credential>,
    ) -> Result<Identity, ReasonCode> {
        let login = self.accounts.scram_login(name, request, proved).await;
        let user = login.map_err(|error| refusal(&error, ReasonCode::NotAuthorized))?;
        Ok(identity(&user))
    }

    fn authorize(&self, _who: Who<'_>, _access: Access, _topic: &str) -> bool {
        self.ordinary_topics_open
    }

    async fn on_connected(
        &self,
        client: &Arc<ClientInfo>,
        open: SessionOpen,
    ) -> Result<SessionRestored, ReasonCode> {
        self.open(client, open).await.map_err(|error| {
            tracing::error!(client = ?client, %error, "a session could not be opened");
            ReasonCode::ServerUnavailable
        })
    }

    fn on_publish(
        &self,
        client: &Arc<ClientInfo>,
        batch: Vec<(Publish, Ticket<PublishAnswer>)>,
    ) -> Credit {
        let items = batch
            .into_iter()
            .map(|(publish, ticket)| Item::Publish(publish, ticket));
        self.queue(client, items);
        Credit::FULL
    }

    fn on_release(&self, client: &Arc<ClientInfo>, packet_id: PacketId, ticket: Ticket<bool>) {
        let (Some(peer), Some(plugin)) = (self.peer(client), self.me.upgrade()) else {
            return;
        };
        if !peer.sessions.exchanges {
            ticket.answer(false);
            return;
        }
        let tasks = peer.tasks.clone();
        self.tracker.spawn(tasks.track_future(async move {
            match plugin
                .service
                .store
                .end_exchange(peer.actor.device, packet_id.get())
                .await
            {
                Ok(existed) => ticket.answer(existed),
                Err(error) => {
                    tracing::error!(%error, "the end of a QoS 2 exchange could not be made durable");
                }
            }
        }));
    }

    fn on_subscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<SubscribeFilter>,
        identifier: Option<u32>,
        ticket: Ticket<Vec<ReasonCode>>,
    ) {
        self.queue(client, [Item::Subscribe(filters, identifier, ticket)]);
    }

    fn on_unsubscribe(
        &self,
        client: &Arc<ClientInfo>,
        filters: Vec<TopicFilter>,
        ticket: Ticket<Vec<ReasonCode>>,
    ) {
        self.queue(client, [Item::Unsubscribe(filters, ticket)]);
    }

    fn pull(&self, client: &Arc<ClientInfo>, room: Room) -> Vec<Delivered> {
        let Some(peer) = self.peer(client) else {
            return Vec::new();
        };
        self.delivery.pull(&peer.reader, room)
    }

    fn on_delivered(
        &self,
        client: &Arc<ClientInfo>,
        outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
    ) {
        if let Some(peer) = self.peer(client) {
            self.delivery.delivered(&peer.reader, &outcomes);
        }
    }

    fn on_disconnected(&self, client: &Arc<ClientInfo>, end: SessionEnd) {
        self.close(client, end);
    }

    async fn on_session_dropped(&self, user: &str, client_id: &str) -> Result<bool, ReasonCode> {
        let Ok(user) = user.parse() else {
            return Ok(false);
        };
        let dropped = self.drop_session(user, client_id).await;
        dropped.map_err(|error| {
            tracing::error!(%error, "a session could not be dropped");
            ReasonCode::ServerUnavailable
        })
    }

    async fn on_shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.progress.finish().await;
        self.presence.finish().await;
        if let Err(error) = self.service.store.flush().await {
            tracing::error!(%error, "cursors could not be flushed at shutdown");
        }
    }
}
