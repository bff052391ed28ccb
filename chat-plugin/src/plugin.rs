//! MQTT ⇄ service: the chat as a plugin of the broker.
//!
//! A connection is a `Peer`: its user, its device, the queue of what it asks for, and its `Reader`. What it asks for goes
//! through `ingest` (publishes), `subscribe` and `rpc`; deliveries are pulled from the reader.

mod acts;
mod answer;
mod broadcast;
mod connections;
mod dropped;
mod hooks;
mod ingest;
mod logins;
mod peer;
mod presence;
mod rates;
mod revoked;
mod rpc;
mod scheduled;
mod subscribe;
mod upkeep;
mod visitors;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::Duration;

use broker::operator::Operator;
use proto::ids::DeviceId;
use proto::payload;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::answer::{json_message, json_publish, pair, server_publish};
use self::logins::Logins;
use self::peer::Peer;
use self::rates::Rates;
use crate::accounts::Accounts;
use crate::config::Config;
use crate::conversations::{Conversations, RingLimits};
use crate::delivery::progress::Progress;
use crate::delivery::{Delivery, Online};
use crate::filter::ContentFilter;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::presence::{Presence, PresenceLimits};
use crate::rate::{Buckets, Rate};
use crate::receipts::{ReceiptLimits, Receipts};
use crate::service::Service;
use crate::service::purge::Trust;
use crate::service::rates::UserRates;
use crate::store::ChatStore;
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
}

fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
