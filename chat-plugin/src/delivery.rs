//! Delivery: cursors, windows, live fan-out and replay.
//!
//! Nothing is copied per recipient. A committed entry joins the ring of its conversation and wakes the online readers of
//! the members; each pulls what its window allows, from the ring, or from the store when it lags or comes back. What a
//! reader has is a cursor.
//!
//! 1. The store's feed brings committed entries in order ([`Delivery::follow`]).
//! 2. [`Reader::announce`] extends the window of each online reader who may see the entry, and wakes its connection.
//! 3. The connection pulls; what is not in memory is read in the background and the connection is woken again.
//! 4. Acks settle copies; cursors and delivered marks move through [`Progress`].

mod channels;
mod feed;
pub(crate) mod flow;
pub(crate) mod progress;
pub(crate) mod reader;
pub(crate) mod shared;
mod sight;
pub(crate) mod subscriptions;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use broker::codec::packet::PacketId;
use broker::codec::reason::ReasonCode;
use broker::hooks::{DeliveryOutcome, DeliveryRef, Room};
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::channels::Admissions;
use self::feed::Marks;
use self::progress::Progress;
use self::reader::{Attached, Key, LOG_SLOT, Pulled, Reader, Reference, Settled, Wanted};
use self::shared::{Shared, SharedLogs};
use crate::conversations::{Conversations, Live, MarksChange, MarksMoved, Sight};
use crate::domain::entry::Entry;
use crate::domain::profile::Shows;
use crate::names::Names;
use crate::receipts::Receipts;
use crate::render::{self, Line};
use crate::store::{ChatStore, Committed, Move, PageRange, StoreError};

/// Entries that one read from the store brings, and their bytes.
const PAGE_ENTRIES: usize = 64;
const PAGE_BYTES: usize = 256 * 1024;

/// Carries entries from the store to the connections.
pub(crate) struct Delivery {
    store: Arc<dyn ChatStore>,
    conversations: Arc<Conversations>,
    names: Arc<Names>,
    pub(crate) progress: Arc<Progress>,
    receipts: Arc<Receipts>,
    online: Arc<Online>,
    marks: Marks,
    pub(crate) shared: SharedLogs,
    tracker: TaskTracker,
    /// Up to so many readers a channel comes to their inboxes.
    channel_inbox_max: u64,
    admissions: Admissions,
}

/// Who is connected.
#[derive(Default)]
pub(crate) struct Online {
    readers: RwLock<HashMap<UserId, Vec<Arc<Reader>>>>,
}

impl Online {
    pub(crate) fn insert(&self, reader: Arc<Reader>) {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        readers.entry(reader.user).or_default().push(reader);
    }

    pub(crate) fn remove(&self, reader: &Reader) {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_user) = readers.get_mut(&reader.user) {
            of_user.retain(|other| other.client.connection != reader.client.connection);
            if of_user.is_empty() {
                readers.remove(&reader.user);
            }
        }
    }

    pub(crate) fn of(&self, user: UserId) -> Vec<Arc<Reader>> {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.get(&user).cloned().unwrap_or_default()
    }

    /// These entries are not what they were, for these users.
    fn changed(&self, users: &[UserId], live: &Live, seqs: &[Seq]) {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        for reader in users.iter().filter_map(|user| readers.get(user)).flatten() {
            reader.changed(live.id(), seqs);
        }
    }

    /// Is any connection of this user open?
    pub(crate) fn has(&self, user: UserId) -> bool {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.contains_key(&user)
    }

    /// Connections of these users that want to know who is typing there.
    pub(crate) fn typing_listeners(
        &self,
        users: impl Iterator<Item = UserId>,
        conversation: ConversationId,
    ) -> Vec<Arc<Reader>> {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        let of_users = users.filter_map(|user| readers.get(&user)).flatten();
        let listening = of_users.filter(|reader| reader.wants_typing(conversation));
        listening.cloned().collect()
    }

    fn announce(&self, users: &[UserId], live: &Arc<Live>, seq: Seq) {
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        for reader in users.iter().filter_map(|user| readers.get(user)).flatten() {
            reader.announce(live, seq);
        }
    }
}

impl Delivery {
    pub(crate) fn new(
        store: Arc<dyn ChatStore>,
        (conversations, names): (Arc<Conversations>, Arc<Names>),
        progress: Arc<Progress>,
        (receipts, online): (Arc<Receipts>, Arc<Online>),
        tracker: TaskTracker,
        channel_inbox_max: u64,
    ) -> Self {
        Self {
            store,
            conversations,
            names,
            progress,
            receipts,
            online,
            marks: Marks::default(),
            shared: SharedLogs::default(),
            tracker,
            channel_inbox_max,
            admissions: Admissions::default(),
        }
    }

    /// Waits until all that is committed now has reached those who hold entries in memory: nobody is handed any more what is
    /// gone.
    pub(crate) async fn catch_up(&self) {
        self.marks.passed().await;
    }

    /// Follows the feed of the store until it ends or `stop` is cancelled. Once.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        feed: mpsc::Receiver<Committed>,
        stop: CancellationToken,
    ) {
        let Some(mut feed) = self.marks.in_feed(feed) else {
            return;
        };
        loop {
            let committed = tokio::select! {
                committed = feed.next() => committed,
                () = stop.cancelled() => None,
            };
            let Some(committed) = committed else { return };
            let conversation = committed.conversation;
            if let Err(error) = self.committed(committed).await {
                tracing::error!(%conversation, %error, "an entry could not be announced; readers get it when they come back");
            }
        }
    }

    async fn committed(self: &Arc<Self>, committed: Committed) -> Result<(), StoreError> {
        let Committed {
            conversation,
            head,
            entry,
            changed,
            members_changed,
            hidden_from,
            readers,
        } = committed;
        let live = match self.conversations.in_memory(conversation) {
            Some(live) => live,
            None => match self.conversations.load(conversation).await? {
                Some(live) => live,
                None => return Ok(()),
            },
        };
        if !readers.is_empty() && entry.is_none() && changed.is_empty() {
            live.readers_are(&readers);
            self.readers_changed(&live, (&readers, head));
            return Ok(());
        }
        let behind = if entry.is_some() {
            head.previous()
        } else {
            head
        };
        if let Some(user) = hidden_from {
            live.hide(user, head); // whatever fails below
        }
        let line = match entry {
            Some(entry) => Some(self.line(entry).await?),
            None => None,
        };
        let is_new = entry_is_new(line.as_ref(), &changed);
        let seqs: Vec<Seq> = changed.iter().map(|entry| entry.seq).collect();
        let mut lines = Vec::with_capacity(changed.len());
        for entry in changed {
            lines.push(self.line(entry).await?);
        }
        let members = (members_changed, hidden_from);
        self.conversations
            .committed(&live, (line, lines), head, members);
        live.readers_are(&readers);
        live.refreshed(&self.conversations).await?;
        if !seqs.is_empty() {
            self.online.changed(&live.who_ever(), &live, &seqs);
        }
        if is_new && members_changed {
            self.announce(&live.who_sees(head), &live, head);
        } else if is_new {
            self.announce(&live.audience(), &live, head);
        }
        self.readers_changed(&live, (&readers, behind)); // who was removed has been told
        Ok(())
    }

    fn announce(&self, users: &[UserId], live: &Arc<Live>, seq: Seq) {
        self.online.announce(users, live, seq);
        self.shared.announce(live, seq);
    }

    /// A reader holds these shared subscriptions no longer. Returns those that nobody who is connected holds.
    pub(crate) fn leave_shared(
        &self,
        reader: &Reader,
        mut left: Vec<Arc<Shared>>,
    ) -> Vec<Arc<Shared>> {
        left.retain(|shared| {
            let (call, is_held) = self.shared.leave(shared, reader.client.connection);
            if let Some(call) = call {
                call.make();
            }
            !is_held
        });
        left
    }

    async fn line(&self, entry: Arc<Entry>) -> Result<Arc<Line>, StoreError> {
        let handle = self.names.handle(entry.from).await?;
        Ok(Arc::new(Line::new(entry, handle)))
    }

    async fn lines(&self, entries: Vec<Entry>) -> Result<Vec<Arc<Line>>, StoreError> {
        let mut lines = Vec::with_capacity(entries.len());
        for entry in entries {
            lines.push(self.line(Arc::new(entry)).await?);
        }
        Ok(lines)
    }

    /// Hands out what the connection has room for; what has to be read first is read in the background.
    pub(crate) fn pull(
        self: &Arc<Self>,
        reader: &Arc<Reader>,
        room: Room,
    ) -> Vec<broker::hooks::Delivery> {
        let Pulled {
            deliveries,
            wanted,
            progressed,
            calls,
        } = reader.pull(room);
        for call in calls {
            call.make();
        }
        for wanted in wanted {
            let (delivery, reader) = (Arc::clone(self), Arc::clone(reader));
            self.tracker.spawn(async move {
                if let Err(error) = delivery.fetch(&reader, wanted).await {
                    tracing::error!(%error, user = %reader.user, "entries could not be read");
                    reader.client.close(ReasonCode::ServerUnavailable);
                }
            });
        }
        self.progressed(reader, progressed);
        deliveries
    }

    /// Copies are settled.
    pub(crate) fn delivered(
        self: &Arc<Self>,
        reader: &Reader,
        outcomes: &[(DeliveryRef, DeliveryOutcome)],
    ) {
        let Settled { progressed, events } = reader.settle(outcomes);
        if !events.is_empty() {
            self.progress.events_ended(reader.device, events);
        }
        self.progressed(reader, progressed);
    }

    fn progressed(self: &Arc<Self>, reader: &Reader, progressed: Vec<reader::Progressed>) {
        let mut moves = Vec::new();
        for one in progressed {
            let conversation = one.live.id();
            moves.extend(one.cursor_of.map(|device| Move::Cursor {
                device,
                conversation,
                seq: one.cursor,
            }));
            // Who has blocked the other one of a direct conversation tells him nothing, and who does not want to, nobody.
            let hides = reader.shows().is_some_and(|shows| !shows.delivered);
            let delivered = one
                .delivered
                .filter(|_| !hides && !one.live.blocks(reader.user));
            // Nor is it counted who of the readers of a channel has what.
            let delivered = delivered.filter(|_| !one.live.is_reader(reader.user));
            let Some(delivered) = delivered else {
                continue;
            };
            let before = one.live.delivered(reader.user);
            let stretch = (before, delivered);
            if one.live.may_keep_back(reader.user, stretch) {
                self.tell_delivered(one.live, reader, stretch);
            } else {
                moves.extend(self.has_delivered(&one.live, reader.user, delivered));
            }
        }
        if !moves.is_empty() {
            self.progress.push(moves);
        }
    }

    /// A user has something, which is told as far as it may be: that is looked up in the background.
    fn tell_delivered(self: &Arc<Self>, live: Arc<Live>, reader: &Reader, stretch: (Seq, Seq)) {
        let (delivery, user, client) = (Arc::clone(self), reader.user, Arc::clone(&reader.client));
        self.tracker.spawn(async move {
            match delivery.seen_mark(&live, user, stretch).await {
                Ok(told) => {
                    let moves = delivery.has_delivered(&live, user, told);
                    delivery.progress.push(moves);
                }
                Err(error) => {
                    tracing::error!(%error, %user, "what is hidden could not be looked up");
                    client.close(ReasonCode::ServerUnavailable);
                }
            }
        });
    }

    /// Moves what was delivered to a user, in memory; returns what has to be stored.
    fn has_delivered(&self, live: &Arc<Live>, user: UserId, delivered: Seq) -> Vec<Move> {
        let change = MarksChange {
            delivered,
            ts_ms: crate::clock::now_ms(),
            ..MarksChange::default()
        };
        let due = Receipts::due_with(live, user, change);
        match self.move_marks(live, user, change) {
            Some(moved) => std::iter::once(moved).chain(due).collect(),
            None => Vec::new(),
        }
    }

    /// Something that only this user's own devices are told of has changed, and is durable.
    pub(crate) fn account_changed(&self, user: UserId) {
        for reader in self.online.of(user) {
            reader.account().changed();
        }
    }

    /// A user has decided what of his marks others are told.
    pub(crate) fn shows_changed(&self, user: UserId, shows: Shows) {
        for reader in self.online.of(user) {
            reader.set_shows(shows);
        }
    }

    /// Marks have moved in memory and in the store: tells the receipts.
    pub(crate) fn marks_moved(&self, live: &Arc<Live>, user: UserId, moved: MarksMoved) {
        self.receipts.moved(live, user, moved);
    }

    /// Moves marks in memory and tells the receipts; returns what has to be stored, if anything moved.
    fn move_marks(&self, live: &Arc<Live>, user: UserId, change: MarksChange) -> Option<Move> {
        let moved = live.move_marks(user, change)?;
        self.receipts.moved(live, user, moved);
        Some(Move::Marks {
            conversation: live.id(),
            user,
            delivered: change.delivered,
            read: change.read,
            private_read: change.private_read,
            unread_flag: change.unread_flag,
            ts_ms: change.ts_ms,
        })
    }

    async fn fetch(&self, reader: &Arc<Reader>, wanted: Wanted) -> Result<(), StoreError> {
        match wanted {
            Wanted::Page {
                key,
                live,
                from,
                to,
            } => self.fetch_page(reader, key, &live, (from, to)).await,
            Wanted::Resend(references) => self.fetch_resend(reader, references).await,
            Wanted::Events { after } => self.fetch_events(reader, after).await,
        }
    }

    async fn fetch_page(
        &self,
        reader: &Reader,
        key: Key,
        live: &Arc<Live>,
        (from, to): (Seq, Seq),
    ) -> Result<(), StoreError> {
        let _held = self.conversations.keep(live, reader.user).await?;
        let range = PageRange {
            as_of: live.last_known(reader.user),
            ..page((from, to), false)
        };
        let entries = self.store.page(live.id(), range).await?;
        if entries.first().is_none_or(|first| first.seq != from) {
            return Err(StoreError::Corrupt(format!(
                "{} has no entry {from}",
                live.id()
            )));
        }
        let entries = self.as_seen(reader.user, live, entries).await?;
        reader.arrived(key, self.lines(entries).await?);
        Ok(())
    }

    /// These entries are gone: whatever is in memory of them, or comes there before the feed tells so, is handed out to nobody.
    pub(crate) fn take_back(&self, live: &Live, seqs: &[Seq]) {
        live.take_back(seqs);
        self.online.changed(&live.who_ever(), live, seqs);
    }

    /// An entry is hidden from one user from now on.
    pub(crate) fn hide(&self, live: &Live, user: UserId, seq: Seq) {
        live.hide(user, seq);
        self.online.changed(&[user], live, &[seq]);
    }

    async fn fetch_resend(
        &self,
        reader: &Reader,
        references: Vec<(PacketId, Reference)>,
    ) -> Result<(), StoreError> {
        let mut lines = Vec::with_capacity(references.len());
        for (packet_id, reference) in references {
            let Reference::Entry {
                conversation, seq, ..
            } = reference
            else {
                continue;
            };
            let found = match self
                .conversations
                .load_for(conversation, reader.user)
                .await?
            {
                Some(live) => {
                    let range = PageRange {
                        limit: 1,
                        as_of: live.last_known(reader.user),
                        ..page((seq, seq), false)
                    };
                    let found = self.store.page(conversation, range).await?;
                    self.as_seen(reader.user, &live, found).await?.pop()
                }
                None => None,
            };
            let Some(entry) = found else {
                return Err(StoreError::Corrupt(format!(
                    "{conversation} has no entry {seq}"
                )));
            };
            lines.push((packet_id, reference, self.line(Arc::new(entry)).await?));
        }
        reader.arrived_resend(lines);
        Ok(())
    }

    async fn fetch_events(&self, reader: &Reader, after: u64) -> Result<(), StoreError> {
        let now_ms = crate::clock::now_ms();
        let size = (PAGE_ENTRIES, PAGE_BYTES);
        let found = self.store.device_events(reader.device, after, size, now_ms);
        let (events, more) = found.await?;
        let protobuf = reader.reads_protobuf();
        let mut messages = Vec::with_capacity(events.len());
        for event in events {
            let handle = self.names.handle(event.from).await?;
            let message = render::event(&event, handle.as_ref(), protobuf, now_ms);
            messages.push((event.dseq, Arc::new(message)));
        }
        reader.arrived_events(after, (messages, more));
        Ok(())
    }

    /// Something is in the queue of a device.
    pub(crate) fn queue_grew(&self, user: UserId, device: DeviceId) {
        for reader in self.online.of(user) {
            if reader.device == device {
                reader.queue_grew();
            }
        }
    }

    /// Looks up what this reader has to get, in the background. What is committed since [`Reader::begin_attach`] is not
    /// missed.
    pub(crate) fn attach(self: &Arc<Self>, reader: &Arc<Reader>) {
        let (delivery, reader) = (Arc::clone(self), Arc::clone(reader));
        self.tracker.spawn(async move {
            loop {
                match delivery.look_up(&reader).await {
                    Ok(attached) => {
                        if !reader.finish_attach(attached) || reader.has_ended() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, user = %reader.user, "the conversations could not be looked up");
                        return reader.client.close(ReasonCode::ServerUnavailable);
                    }
                }
            }
        });
    }

    async fn look_up(&self, reader: &Reader) -> Result<Attached, StoreError> {
        self.progress.settled().await; // what this connection has acknowledged counts
        let cursors: HashMap<_, _> = if reader.is_known() {
            self.store
                .cursors(reader.device, None)
                .await?
                .into_iter()
                .collect()
        } else {
            HashMap::new()
        };
        let mut attached = Attached {
            behind: Vec::new(),
            settled: HashMap::new(),
        };
        let mut after = None;
        loop {
            let ids = self
                .store
                .conversations_of(reader.user, after, PAGE_ENTRIES)
                .await?;
            let Some(last) = ids.last().copied() else {
                break;
            };
            after = Some(last);
            for (id, found) in ids.iter().zip(self.store.conversations(&ids).await?) {
                if reader.has_ended() {
                    return Ok(attached);
                }
                let Some(found) = found else { continue };
                let cursor = cursors.get(id).copied();
                let is_channel = id.kind() == ConversationKind::Channel;
                if !is_channel && cursor.is_some_and(|cursor| cursor >= found.head) {
                    attached.settled.insert(*id, found.head);
                    continue;
                }
                self.look_up_one(reader, *id, cursor, &mut attached).await?;
            }
        }
        attached.behind.sort_by_key(|(live, _)| {
            std::cmp::Reverse(
                live.conversation()
                    .map_or(0, |conversation| conversation.ts_ms),
            )
        });
        Ok(attached)
    }

    async fn look_up_one(
        &self,
        reader: &Reader,
        id: ConversationId,
        cursor: Option<Seq>,
        attached: &mut Attached,
    ) -> Result<(), StoreError> {
        let Some(live) = self.conversations.load_for(id, reader.user).await? else {
            return Ok(());
        };
        let Some(sight) = live.sight(reader.user) else {
            return Ok(());
        };
        if !self.admit(reader, &live, None).await? {
            return Ok(());
        }
        let cursor = match cursor {
            Some(cursor) => cursor,
            None if reader.is_known() => sight.member.first_place().previous(),
            None => {
                let new_since_ms = reader.attaching_since_ms();
                self.unread_from(&live, &sight, new_since_ms).await?
            }
        };
        if cursor < live.head() {
            attached.behind.push((Arc::clone(&live), cursor));
        } else {
            attached.settled.insert(id, cursor);
        }
        Ok(())
    }

    /// Where a new device or a guest starts: at the read watermark, past own entries that directly follow it and are older
    /// than `new_since_ms` (in ms since 1970): what was written since then is new to it.
    async fn unread_from(
        &self,
        live: &Live,
        sight: &Sight,
        new_since_ms: u64,
    ) -> Result<Seq, StoreError> {
        let user = sight.member.user;
        let start = sight
            .marks
            .own_read()
            .max(sight.member.first_place().previous());
        let head = sight.last_visible();
        if start >= head {
            return Ok(start);
        }
        let entries = self.entries(live, (start.next(), head), false).await?;
        let passed = |entry: &&Entry| entry.from == user && entry.ts_ms < new_since_ms;
        let own = entries.iter().take_while(passed).count();
        let start = Seq::new(start.get() + own as u64);
        if own < entries.len() || start >= head {
            return Ok(start);
        }
        let end = self.end_of_own(live, user, (start, head)).await?;
        self.older_than(live, new_since_ms, (start, end)).await
    }

    /// The end of a long run of own messages (a bot, a note to oneself) is found by halves, through the counts.
    async fn end_of_own(
        &self,
        live: &Live,
        user: UserId,
        (start, head): (Seq, Seq),
    ) -> Result<Seq, StoreError> {
        let base = self.store.count_up_to(live.id(), user, start).await?;
        let (mut low, mut high) = (start.get(), head.get());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let counts = self
                .store
                .count_up_to(live.id(), user, Seq::new(middle))
                .await?;
            if counts.all - base.all == counts.own - base.own {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(Seq::new(low))
    }

    /// The last entry after `start` up to `end` that is older; few are not.
    async fn older_than(
        &self,
        live: &Live,
        new_since_ms: u64,
        (start, mut end): (Seq, Seq),
    ) -> Result<Seq, StoreError> {
        while start < end {
            let newest = self.entries(live, (start.next(), end), true).await?;
            let older = newest.iter().rev().find(|entry| entry.ts_ms < new_since_ms);
            if let Some(older) = older {
                return Ok(older.seq);
            }
            end = newest.first().map_or(start, |first| first.seq.previous());
        }
        Ok(start)
    }

    async fn entries(
        &self,
        live: &Live,
        (from, to): (Seq, Seq),
        newest: bool,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.page(live.id(), page((from, to), newest)).await
    }

    /// The cursors with which a new device begins, one for each conversation of the user.
    pub(crate) async fn first_cursors(&self, reader: &Reader) -> Result<Vec<Move>, StoreError> {
        let mut moves = Vec::new();
        let mut after = None;
        loop {
            let ids = self
                .store
                .conversations_of(reader.user, after, PAGE_ENTRIES)
                .await?;
            let Some(last) = ids.last().copied() else {
                return Ok(moves);
            };
            after = Some(last);
            for conversation in ids {
                let loaded = self.conversations.load_for(conversation, reader.user);
                let Some(live) = loaded.await? else {
                    continue;
                };
                let Some(sight) = live.sight(reader.user) else {
                    continue;
                };
                let seq = self.unread_from(&live, &sight, u64::MAX).await?;
                moves.push(Move::Cursor {
                    device: reader.device,
                    conversation,
                    seq,
                });
            }
        }
    }

    /// Flows of deliveries that an earlier connection left unacknowledged, each at its cursor.
    pub(crate) async fn flows_of(
        &self,
        reader: &Reader,
        inflight: &[(PacketId, Reference)],
    ) -> Result<Vec<(Arc<Live>, Seq)>, StoreError> {
        let mut flows: HashMap<ConversationId, (Arc<Live>, Seq)> = HashMap::new();
        for (_, reference) in inflight {
            let Reference::Entry {
                conversation, slot, ..
            } = *reference
            else {
                continue;
            };
            if slot >= LOG_SLOT {
                continue; // these have flows of their own
            }
            if flows.contains_key(&conversation) {
                continue;
            }
            let loaded = self.conversations.load_for(conversation, reader.user);
            let Some(live) = loaded.await? else {
                continue;
            };
            let Some(sight) = live.sight(reader.user) else {
                continue;
            };
            let stored = self
                .store
                .cursors(reader.device, Some(conversation))
                .await?;
            let cursor = stored.first().map_or_else(
                || sight.member.first_place().previous(),
                |(_, cursor)| *cursor,
            );
            flows.insert(conversation, (Arc::clone(&live), cursor));
        }
        Ok(flows.into_values().collect())
    }
}

/// One read from the store.
fn page((from, to): (Seq, Seq), newest: bool) -> PageRange {
    PageRange {
        from,
        to,
        newest,
        limit: PAGE_ENTRIES,
        bytes: PAGE_BYTES,
        as_of: Seq::MAX,
    }
}

/// Is there something to announce, or did only earlier entries change?
fn entry_is_new(line: Option<&Arc<Line>>, changed: &[Arc<Entry>]) -> bool {
    line.is_some() || changed.is_empty()
}
