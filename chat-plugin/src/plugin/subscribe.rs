//! SUBSCRIBE and UNSUBSCRIBE below `chat/`. Those of a persistent session are durable before their SUBACK.

use std::sync::Arc;

use broker::codec::packet::{Qos, RetainHandling, SubscribeFilter};
use broker::codec::reason::ReasonCode;
use broker::codec::topic::TopicFilter;
use bytestring::ByteString;
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, digest16};
use proto::topics::{FilterTopic, LogStart, Names, Scope, TopicError};

use super::ChatPlugin;
use super::peer::{Peer, Record};
use crate::conversations::{Held, Live, Loaded, Sight};
use crate::delivery::reader::{LogSubscription, Missing, Reader};
use crate::delivery::shared::Shared;
use crate::delivery::subscriptions::Options;
use crate::domain::device::{Device, SharedSubscription, Subscription};
use crate::store::{Durability, Health, Move, StoreError};

/// Filters that one session may hold below `chat/`.
const SUBSCRIPTIONS_MAX: usize = 1_024;
/// `…/log` filters of one session: the range of the slots.
const LOG_SLOTS: u8 = 128;
/// Bytes of a shared filter.
const SHARED_BYTES_MAX: usize = 256;
/// Marks that moved while the last moment of a connection was being stored are told again.
const RECEIPTS_OVERLAP_MS: u64 = 10_000;

impl ChatPlugin {
    /// Subscribes; one Reason Code per filter.
    pub(super) async fn subscribe(
        &self,
        peer: &Arc<Peer>,
        filters: Vec<SubscribeFilter>,
        identifier: Option<u32>,
    ) -> Result<Vec<ReasonCode>, StoreError> {
        if Self::check_rate(peer).is_err() {
            return Ok(vec![ReasonCode::QuotaExceeded; filters.len()]);
        }
        Self::charge(peer, filters.len().saturating_sub(1));
        let mut record = peer.record.lock().await;
        let mut wanted = record.clone();
        let mut reasons = Vec::with_capacity(filters.len());
        let mut granted = Vec::new();
        for filter in &filters {
            match self.judge_filter(peer, filter, &wanted.device).await? {
                Ok((parsed, qos)) => {
                    let subscription = subscription(filter, (&parsed, qos), identifier, &wanted);
                    let replaced = wanted.device.take(&subscription.filter);
                    granted.push(Granted {
                        at: reasons.len(),
                        is_new: !is_held(&record, &subscription),
                        is_told: match filter.retain_handling {
                            RetainHandling::Always => true,
                            RetainHandling::IfNew => replaced.is_none(),
                            RetainHandling::Never => false,
                        },
                        replaced,
                        subscription: subscription.clone(),
                        parsed,
                    });
                    wanted.device.subscriptions.push(subscription);
                    reasons.push(match qos {
                        Qos::AtMostOnce => ReasonCode::Success,
                        _ => ReasonCode::GrantedQos1,
                    });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        // What is at rest already is not written again, so that it goes on when nothing can be written.
        if peer.sessions.persistent && granted.iter().any(|one| one.is_new) {
            let stored = match self.put(peer, &mut wanted, &granted).await {
                Err(StoreError::ReadOnly(_)) => false,
                other => other?,
            };
            if !stored {
                for refused in granted.extract_if(.., |one| one.is_new) {
                    if let Some(reason) = reasons.get_mut(refused.at) {
                        *reason = ReasonCode::QuotaExceeded;
                    }
                }
                wanted = record.clone();
            }
        }
        *record = wanted;
        drop(record);
        let has_inbox = granted.iter().any(Granted::is_inbox);
        let look_up = has_inbox && peer.reader.begin_attach(false);
        for one in &granted {
            let start = Start::New {
                kept: peer.sessions.persistent,
            };
            self.activate(&peer.reader, &one.parsed, &one.subscription, start)
                .await?;
            if let FilterTopic::Presence(target) = &one.parsed {
                self.watch(&peer.reader, (target, &one.subscription), one.is_told)
                    .await?;
            }
        }
        self.catch_up_receipts(&peer.reader);
        if peer.sessions.persistent {
            let (user, device) = (peer.actor.user, peer.actor.device);
            let replaced = granted.iter().filter_map(|one| one.replaced.clone());
            let replaced: Vec<_> = replaced.collect();
            self.forget_positions(user, device, &replaced).await?;
        }
        // A look-up that was under way before may have ended before the filters took effect, or have passed over a channel
        // that comes to this inbox with them only.
        let again = granted.iter().any(Granted::is_of_channel);
        let look_up = look_up || (has_inbox && peer.reader.begin_attach(again));
        if look_up {
            self.delivery.attach(&peer.reader);
        }
        Ok(reasons)
    }

    /// Makes the subscriptions of a persistent session durable. `false`: the user has too many devices.
    async fn put(
        &self,
        peer: &Peer,
        wanted: &mut Record,
        granted: &[Granted],
    ) -> Result<bool, StoreError> {
        let store = &self.service.store;
        if !wanted.stored {
            // Known first: cursors need no room, and would stay behind without their device.
            if let Health::ReadOnly(reason) = store.health() {
                return Err(StoreError::ReadOnly(reason));
            }
            let limit = super::size(self.service.config.devices_per_user_max);
            let devices = store.devices(peer.actor.user).await?;
            if devices.len() >= limit && !self.drop_expired(&devices).await? {
                return Ok(false);
            }
        }
        if granted.iter().any(Granted::is_inbox) && !wanted.device.has_inbox {
            let cursors = self.delivery.first_cursors(&peer.reader).await?;
            store.advance(cursors, Durability::Durable).await?;
            wanted.device.has_inbox = true;
        }
        let wants_queue = |one: &Granted| matches!(one.parsed, FilterTopic::Device);
        wanted.device.has_queue |= granted.iter().any(wants_queue);
        store
            .put_device(wanted.device.clone(), None, Durability::Durable)
            .await?;
        if !wanted.stored {
            self.delivery.account_changed(peer.actor.user); // there is one more
        }
        wanted.stored = true;
        if wanted.device.has_inbox {
            peer.reader.make_known();
        }
        Ok(true)
    }

    /// Removes devices whose sessions are over. `true`: there was one.
    async fn drop_expired(&self, devices: &[Device]) -> Result<bool, StoreError> {
        let now_ms = crate::clock::now_ms();
        let mut dropped = false;
        for device in devices.iter().filter(|device| {
            let online = self.online.of(device.user);
            let is_offline = !online.iter().any(|reader| reader.device == device.id);
            let seen_ms = self.seen_ms(device);
            is_offline && super::upkeep::is_expired(device.session_expiry, seen_ms, now_ms)
        }) {
            self.forget_positions(device.user, device.id, &device.subscriptions)
                .await?;
            self.service
                .store
                .remove_device(device.user, device.id)
                .await?;
            dropped = true;
        }
        Ok(dropped)
    }

    async fn judge_filter(
        &self,
        peer: &Peer,
        filter: &SubscribeFilter,
        device: &Device,
    ) -> Result<Result<(FilterTopic, Qos), ReasonCode>, StoreError> {
        let (share, topic) = filter.filter.split_share();
        let Ok(parsed) = FilterTopic::parse(topic) else {
            return Ok(Err(ReasonCode::NotAuthorized));
        };
        if share.is_some() && !matches!(parsed, FilterTopic::Log { .. }) {
            return Ok(Err(ReasonCode::SharedSubscriptionsNotSupported));
        }
        let is_new = !device
            .subscriptions
            .iter()
            .any(|held| held.filter == filter.filter.as_str());
        if is_new && device.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Ok(Err(ReasonCode::QuotaExceeded));
        }
        let conversation = match &parsed {
            // A guest has no queue.
            FilterTopic::Device if !peer.sessions.persistent => {
                return Ok(Err(ReasonCode::NotAuthorized));
            }
            FilterTopic::Presence(_) if peer.is_visitor => {
                return Ok(Err(ReasonCode::NotAuthorized));
            }
            FilterTopic::Presence(target) => {
                let judged = self.judge_watch(peer.actor, target, (is_new, device));
                return Ok(judged.await?.map(|()| (parsed, Qos::AtMostOnce)));
            }
            FilterTopic::Inbox {
                scope: Scope::One(cid),
                ..
            }
            | FilterTopic::Receipts(Scope::One(cid))
            | FilterTopic::Typing(Scope::One(cid)) => Some(*cid),
            FilterTopic::Log { cid, .. } => {
                let logs = device
                    .subscriptions
                    .iter()
                    .filter(|held| is_log(&held.filter))
                    .count();
                let limit = super::size(self.service.config.log_subscriptions_per_connection_max);
                if is_new && logs >= limit.min(usize::from(LOG_SLOTS)) {
                    return Ok(Err(ReasonCode::QuotaExceeded));
                }
                Some(*cid)
            }
            _ => None,
        };
        if let Some(cid) = conversation {
            let user = peer.actor.user;
            let live = self.service.conversations.load_for(cid, user).await?;
            let sight = live.and_then(|live| live.sight(user));
            // A former member may look back, but gets nothing new.
            let past = matches!(parsed, FilterTopic::Log { .. });
            if !sight.is_some_and(|sight| past || sight.member.is_present()) {
                return Ok(Err(ReasonCode::NotAuthorized));
            }
            if share.is_some() && !self.keep_shared(peer, filter.filter.as_str(), cid).await? {
                return Ok(Err(ReasonCode::QuotaExceeded));
            }
        }
        let most = match parsed {
            FilterTopic::Typing(_) => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        };
        Ok(Ok((parsed, filter.qos.min(most))))
    }

    /// A shared subscription is at rest from now on, if it is not. `false`: there is no room for it.
    async fn keep_shared(
        &self,
        peer: &Peer,
        filter: &str,
        conversation: ConversationId,
    ) -> Result<bool, StoreError> {
        if filter.len() > SHARED_BYTES_MAX {
            return Ok(false);
        }
        let user = peer.actor.user;
        let shared = SharedSubscription {
            id: SharedSubscription::id_of(user, filter),
            user,
            conversation,
            filter: filter.to_owned(),
            seen_ms: crate::clock::now_ms(),
        };
        let limit = super::size(self.service.config.shared_subscriptions_per_user_max);
        match self.service.store.put_shared(shared, limit).await {
            Err(StoreError::ReadOnly(_)) => Ok(false),
            kept => kept,
        }
    }

    /// The subscriptions of a session at rest take effect again.
    pub(super) async fn resubscribe(
        &self,
        reader: &Arc<Reader>,
        device: &Device,
        start: Start,
    ) -> Result<(), StoreError> {
        for subscription in &device.subscriptions {
            match parse(&subscription.filter) {
                Ok(parsed) => {
                    self.activate(reader, &parsed, subscription, start).await?;
                }
                Err(error) => {
                    tracing::error!(filter = subscription.filter, %error, "a stored subscription makes no sense");
                }
            }
        }
        Ok(())
    }

    async fn activate(
        &self,
        reader: &Arc<Reader>,
        parsed: &FilterTopic,
        subscription: &Subscription,
        start: Start,
    ) -> Result<(), StoreError> {
        let options = Options {
            qos: if subscription.qos == 0 {
                Qos::AtMostOnce
            } else {
                Qos::AtLeastOnce
            },
            no_local: subscription.no_local,
            identifier: subscription.identifier,
        };
        match parsed {
            FilterTopic::Inbox { form, scope } => {
                if let Start::New { .. } = start {
                    self.service.shows(reader).await?; // known before the first ack
                }
                reader.subscribe_inbox(*form, one(*scope), options);
            }
            FilterTopic::Receipts(scope) => {
                reader.subscribe_receipts(one(*scope), options);
                // Receipts are state: who subscribes gets all of it, who comes back what moved meanwhile.
                let since_ms = match start {
                    Start::New { .. } => 0,
                    Start::Resumed { seen_ms, .. } => seen_ms.saturating_sub(RECEIPTS_OVERLAP_MS),
                };
                reader.miss_receipts(one(*scope), since_ms);
            }
            FilterTopic::Typing(scope) => reader.subscribe_typing(one(*scope), options),
            FilterTopic::Rpc(names) => reader.subscribe_replies(name(names).as_deref(), options),
            FilterTopic::Errors(names) => reader.subscribe_errors(name(names).as_deref(), options),
            FilterTopic::Account => {
                // State like receipts: who subscribes gets all of it, who comes back what changed meanwhile.
                let since = match start {
                    Start::New { .. } => 0,
                    Start::Resumed { account, .. } => account,
                };
                if reader.account().subscribe(options, since) {
                    self.watch_account(reader);
                }
            }
            FilterTopic::Device => reader.subscribe_queue(options),
            FilterTopic::Log { cid, start: from } => {
                self.activate_log(reader, (*cid, *from), (subscription, options), start)
                    .await?;
            }
            FilterTopic::Presence(_) => {}
        }
        Ok(())
    }

    async fn activate_log(
        &self,
        reader: &Arc<Reader>,
        (cid, from): (ConversationId, LogStart),
        (subscription, options): (&Subscription, Options),
        start: Start,
    ) -> Result<(), StoreError> {
        let conversations = &self.service.conversations;
        let Some(live) = conversations.load_for(cid, reader.user).await? else {
            return Ok(());
        };
        let held = conversations.follow(&live, reader.user).await?;
        let Some(sight) = live.sight(reader.user) else {
            return Ok(());
        };
        if is_shared(&subscription.filter) {
            let begins = log_begins(&sight, from);
            let live = (Arc::clone(&live), held);
            let joined = self.join_shared(reader, live, (subscription, options), begins);
            return joined.await;
        }
        let position = log_position(reader.device, subscription);
        let stored = match start {
            Start::New { .. } => None,
            Start::Resumed { .. } => self.service.store.cursors(position, Some(cid)).await?.pop(),
        };
        let after = match stored {
            Some((_, cursor)) => cursor.max(first_visible(&sight).previous()),
            None => log_begins(&sight, from),
        };
        let (Start::New { kept } | Start::Resumed { kept, .. }) = start;
        if kept && stored.is_none() {
            // So that it goes on here, even if it has acknowledged nothing when it comes back.
            let beginning = Move::Cursor {
                device: position,
                conversation: cid,
                seq: after,
            };
            let moves = vec![beginning];
            self.service
                .store
                .advance(moves, Durability::Durable)
                .await?;
        }
        let log = LogSubscription {
            slot: subscription.slot,
            generation: generation_of(subscription),
            topic: ByteString::from(subscription.filter.as_str()),
            options,
            position: kept.then_some(position),
            held,
        };
        reader.subscribe_log(log, Arc::clone(&live), after);
        Ok(())
    }

    /// Joins those who hold a shared subscription, which goes on at its position, whoever moved it.
    async fn join_shared(
        &self,
        reader: &Arc<Reader>,
        (live, held): (Arc<Live>, Option<Held>),
        (subscription, options): (&Subscription, Options),
        begins: Seq,
    ) -> Result<(), StoreError> {
        let log = LogSubscription {
            slot: subscription.slot,
            generation: generation_of(subscription),
            topic: ByteString::from(split_share(&subscription.filter).1),
            options,
            position: None,
            held,
        };
        if reader.resubscribe_log(&log) {
            return Ok(()); // by the same session: only the options are others
        }
        let (user, cid) = (reader.user, live.id());
        let id = SharedSubscription::id_of(user, &subscription.filter);
        // One that is in memory knows better; but those who hold it may leave meanwhile.
        let position = self.shared_position(id, cid, begins).await?;
        let shared = Shared::new(id, user, live, position);
        let shared = self.delivery.shared.join(shared, reader, log.key());
        reader.subscribe_shared(log, Arc::clone(&shared));
        if reader.has_ended() {
            self.delivery.leave_shared(reader, vec![shared]);
        }
        Ok(())
    }

    /// The position of a shared subscription at rest; it begins there if it has none.
    async fn shared_position(
        &self,
        id: DeviceId,
        conversation: ConversationId,
        begins: Seq,
    ) -> Result<Seq, StoreError> {
        let store = &self.service.store;
        self.progress.settled().await; // what those who held it before have acknowledged counts
        if let Some((_, stored)) = store.cursors(id, Some(conversation)).await?.pop() {
            return Ok(stored);
        }
        let beginning = Move::Cursor {
            device: id,
            conversation,
            seq: begins,
        };
        store.advance(vec![beginning], Durability::Durable).await?;
        Ok(begins)
    }

    /// Those are at an end which no session holds any more.
    async fn end_shared(&self, left: Vec<Arc<Shared>>) -> Result<(), StoreError> {
        for shared in left {
            let filter_id = |held: &Subscription| {
                is_shared(&held.filter)
                    && SharedSubscription::id_of(shared.user, &held.filter) == shared.id
            };
            let devices = self.service.store.devices(shared.user).await?;
            let mut held = devices.iter().flat_map(|device| &device.subscriptions);
            if held.any(filter_id) {
                continue;
            }
            self.progress.settled().await; // the last acks moved a position that is over now
            let is_held = self.delivery.shared.find(shared.live.id(), shared.id);
            if is_held.is_none() {
                let removed = self.service.store.remove_shared(shared.user, shared.id);
                removed.await?;
            }
        }
        Ok(())
    }

    /// Looks up the receipts that a connection misses, in the background, one look-up at a time for each connection.
    pub(super) fn catch_up_receipts(&self, reader: &Arc<Reader>) {
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        if !reader.begin_catch_up() {
            return;
        }
        let reader = Arc::clone(reader);
        self.tracker.spawn(async move {
            // A look-up that fails never ends: it is made again by the next connection.
            if let Err(error) = plugin.tell_missing(&reader).await {
                tracing::error!(user = %reader.user, %error, "receipts could not be read");
                reader.client.close(ReasonCode::ServerUnavailable);
            }
        });
    }

    async fn tell_missing(&self, reader: &Reader) -> Result<(), StoreError> {
        let limit = super::size(self.service.config.conversations_per_user_max);
        while let Some(missing) = reader.next_missing() {
            let (conversations, since_ms) = match missing {
                Missing::Of(conversation) => (vec![conversation], 0),
                Missing::Since(since_ms) => {
                    let store = &self.service.store;
                    let due = store.receipts_due(reader.user, since_ms, limit).await?;
                    (due, since_ms)
                }
            };
            for conversation in conversations {
                if reader.has_ended() || self.stop.is_cancelled() {
                    return Ok(());
                }
                self.tell_state(reader, conversation, since_ms).await?;
            }
        }
        Ok(())
    }

    async fn tell_state(
        &self,
        reader: &Reader,
        conversation: ConversationId,
        since_ms: u64,
    ) -> Result<(), StoreError> {
        if !reader.wants_receipts(conversation) {
            return Ok(());
        }
        let conversations = &self.service.conversations;
        let live = conversations.load_for(conversation, reader.user).await?;
        let is_member = |live: &Loaded| {
            let sight = live.sight(reader.user);
            sight.is_some_and(|sight| sight.member.is_present())
        };
        if let Some(live) = live.filter(is_member) {
            reader.receipt(self.receipts.state(&live, reader.user, since_ms));
        }
        Ok(())
    }

    /// Unsubscribes; one Reason Code per filter.
    pub(super) async fn unsubscribe(
        &self,
        peer: &Arc<Peer>,
        filters: &[TopicFilter],
    ) -> Result<Vec<ReasonCode>, StoreError> {
        let mut record = peer.record.lock().await;
        let mut device = record.device.clone();
        let mut gone = Vec::new();
        let mut reasons = Vec::with_capacity(filters.len());
        for filter in filters {
            let held = device
                .subscriptions
                .iter()
                .position(|held| held.filter == filter.as_str());
            reasons.push(match held {
                Some(index) => {
                    gone.push(device.subscriptions.remove(index));
                    ReasonCode::Success
                }
                None => ReasonCode::NoSubscriptionExisted,
            });
        }
        if record.stored && !gone.is_empty() {
            self.service
                .store
                .put_device(device.clone(), None, Durability::Durable)
                .await?;
        }
        let stored = record.stored;
        record.device = device;
        drop(record);
        let mut shared = Vec::new();
        for subscription in &gone {
            self.presence.unwatch(&peer.reader, &subscription.filter);
            if is_shared(&subscription.filter) {
                shared.extend(peer.reader.shared(Some(subscription.slot)));
            }
            deactivate(&peer.reader, subscription);
        }
        let left = self.delivery.leave_shared(&peer.reader, shared);
        self.end_shared(left).await?;
        if stored && gone.iter().any(|held| is_log(&held.filter)) {
            self.progress.settled().await; // the last acks moved positions that are over now
            self.forget_positions(peer.actor.user, peer.actor.device, &gone)
                .await?;
        }
        Ok(reasons)
    }
}

/// A filter of a SUBSCRIBE that is granted.
struct Granted {
    /// Which of the filters.
    at: usize,
    parsed: FilterTopic,
    subscription: Subscription,
    /// The session does not have it like this.
    is_new: bool,
    /// The state of now goes out, where there is one.
    is_told: bool,
    /// What the session had under this filter.
    replaced: Option<Subscription>,
}

impl Granted {
    fn is_inbox(&self) -> bool {
        matches!(self.parsed, FilterTopic::Inbox { .. })
    }

    fn is_of_channel(&self) -> bool {
        matches!(self.parsed, FilterTopic::Inbox { scope: Scope::One(id), .. }
            if id.kind() == ConversationKind::Channel)
    }
}

/// The subscription that a filter makes in this session.
fn subscription(
    filter: &SubscribeFilter,
    (parsed, qos): (&FilterTopic, Qos),
    identifier: Option<u32>,
    session: &Record,
) -> Subscription {
    let name = filter.filter.as_str();
    let held = session.device.subscription(name);
    // Later than the one that it replaces, also within one millisecond: their positions differ.
    let after = held.map_or(0, |held| held.made_ms + 1);
    let made_ms = crate::clock::now_ms().max(after);
    Subscription {
        filter: name.to_owned(),
        qos: qos as u8,
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        identifier,
        slot: session.device.slot_for(name, parsed),
        // A shared one goes on, with what it has in flight.
        made_ms: match held {
            Some(held) if is_shared(name) => held.made_ms,
            _ => made_ms,
        },
    }
}

/// Does this session have this very subscription? A `…/log` begins anew each time.
fn is_held(session: &Record, subscription: &Subscription) -> bool {
    let held = session.device.subscription(&subscription.filter);
    session.stored
        && !is_log(&subscription.filter)
        && held.is_some_and(|held| {
            *held
                == Subscription {
                    made_ms: held.made_ms,
                    ..subscription.clone()
                }
        })
}

/// How a subscription begins. `kept`: in a session that outlives the connection.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// By SUBSCRIBE.
    New { kept: bool },
    /// With a session that was kept; the connection before was last seen then.
    Resumed {
        seen_ms: u64,
        /// The account version that the device knows.
        account: u64,
        kept: bool,
    },
}

impl Device {
    fn subscription(&self, filter: &str) -> Option<&Subscription> {
        let mut held = self.subscriptions.iter();
        held.find(|held| held.filter == filter)
    }

    fn take(&mut self, filter: &str) -> Option<Subscription> {
        let mut held = self.subscriptions.iter();
        let at = held.position(|held| held.filter == filter)?;
        Some(self.subscriptions.remove(at))
    }

    /// The slot of a `…/log` subscription: the one it has, or the lowest free one.
    fn slot_for(&self, filter: &str, parsed: &FilterTopic) -> u8 {
        if !matches!(parsed, FilterTopic::Log { .. }) {
            return 0;
        }
        if let Some(held) = self.subscription(filter) {
            return held.slot;
        }
        let taken = |slot: &u8| {
            self.subscriptions
                .iter()
                .any(|held| is_log(&held.filter) && held.slot == *slot)
        };
        (0..LOG_SLOTS).find(|slot| !taken(slot)).unwrap_or_default()
    }
}

fn deactivate(reader: &Reader, subscription: &Subscription) {
    let Ok(parsed) = parse(&subscription.filter) else {
        return;
    };
    let existed = match &parsed {
        FilterTopic::Inbox { form, scope } => reader.unsubscribe_inbox(*form, one(*scope)),
        FilterTopic::Receipts(scope) => reader.unsubscribe_receipts(one(*scope)),
        FilterTopic::Typing(scope) => reader.unsubscribe_typing(one(*scope)),
        FilterTopic::Presence(_) => true, // not watched at all, if there is no such user
        FilterTopic::Account => reader.account().unsubscribe(),
        FilterTopic::Rpc(names) => reader.unsubscribe_replies(name(names).as_deref()),
        FilterTopic::Errors(names) => reader.unsubscribe_errors(name(names).as_deref()),
        FilterTopic::Log { .. } => reader.unsubscribe_log(subscription.slot),
        FilterTopic::Device => reader.unsubscribe_queue(),
    };
    debug_assert!(existed, "{} was held", subscription.filter);
}

/// The position of a `…/log` subscription is stored like a cursor, under an id of its own; one made anew has another.
fn log_position(device: DeviceId, subscription: &Subscription) -> DeviceId {
    let made = subscription.made_ms.to_be_bytes();
    DeviceId::from_bytes(digest16(&[
        b"log",
        device.as_bytes(),
        subscription.filter.as_bytes(),
        &made,
    ]))
}

/// The ids under which the positions of the `…/log` subscriptions among these are stored.
pub(super) fn positions(
    device: DeviceId,
    subscriptions: &[Subscription],
) -> impl Iterator<Item = DeviceId> {
    let own = |held: &&Subscription| is_log(&held.filter) && !is_shared(&held.filter);
    let logs = subscriptions.iter().filter(own);
    logs.map(move |held| log_position(device, held))
}

/// What tells a `…/log` subscription from those that had its slot before.
fn generation_of(subscription: &Subscription) -> u32 {
    let [.., a, b, c, d] = subscription.made_ms.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The generation of a reference at rest: 0 for an inbox; `None` for a `…/log` that is not subscribed to any more.
pub(super) fn generation(device: &Device, form: u8, conversation: ConversationId) -> Option<u32> {
    let Some(slot) = form.checked_sub(LOG_SLOTS) else {
        return Some(0);
    };
    let of_conversation = |held: &&Subscription| {
        let parsed = FilterTopic::parse(&held.filter);
        held.slot == slot
            && matches!(parsed, Ok(FilterTopic::Log { cid, .. }) if cid == conversation)
    };
    device
        .subscriptions
        .iter()
        .find(of_conversation)
        .map(generation_of)
}

fn is_log(filter: &str) -> bool {
    split_share(filter).1.starts_with("chat/c/")
}

fn is_shared(filter: &str) -> bool {
    split_share(filter).0.is_some()
}

/// The share name of a filter, and what is behind it.
fn split_share(filter: &str) -> (Option<&str>, &str) {
    let shared = filter.strip_prefix("$share/");
    let parts = shared.and_then(|shared| shared.split_once('/'));
    parts.map_or((None, filter), |(name, topic)| (Some(name), topic))
}

/// What a filter says, shared or not.
fn parse(filter: &str) -> Result<FilterTopic, TopicError> {
    FilterTopic::parse(split_share(filter).1)
}

/// Behind which entry a `…/log` begins that has no position yet.
fn log_begins(sight: &Sight, from: LogStart) -> Seq {
    let after = match from {
        LogStart::Live => sight.head,
        LogStart::From(seq) => seq.previous(),
        LogStart::Last(count) => {
            let last = sight.last_visible().get();
            Seq::new(last.saturating_sub(u64::from(count)))
        }
    };
    after.max(first_visible(sight).previous())
}

/// The first entry that this user may see.
fn first_visible(sight: &Sight) -> Seq {
    let first = sight.member.intervals.first();
    first.map_or_else(|| sight.member.first_place(), |interval| interval.from)
}

fn one(scope: Scope) -> Option<ConversationId> {
    match scope {
        Scope::All => None,
        Scope::One(cid) => Some(cid),
    }
}

fn name<T: ToString>(names: &Names<T>) -> Option<String> {
    match names {
        Names::All => None,
        Names::One(name) => Some(name.to_string()),
    }
}
