//! One conversation: writing to it, acting on its messages, reading its log.

use bytes::Bytes;
use proto::ids::{ConversationId, MessageId, Seq};
use proto::schema::rpc_reply::Result as Reply;
use proto::schema::rpc_request::Params;
use proto::schema::{
    self, ChangedConversation, ConvAdd, ConvGet, ConvLeave, ConvRemove, Message as _, MsgHistory,
    MsgStatus,
};
use proto::topics::Target;

use crate::client::{Client, Found, Pending, SearchCursor};
use crate::clock;
use crate::entry::{Draft, Entry, Person, Progress, Reached, Status, new_mid};
use crate::error::{Error, StoreError};
use crate::events::Typing;
use crate::store::{self, Known, OutboxKind, OutboxRow, Store, Taken};
use crate::worker::{self, Command};

/// Entries that are asked for at once.
const PAGE: u32 = 200;
/// Largest body that the server takes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Pages that one call of [`Conversation::history`] fetches at most.
const PAGES_MAX: usize = 8;
/// Entries that one call of [`Conversation::history`] goes on by.
const BEHIND_MAX: u64 = 1_600;

/// A conversation of a [`Client`]. Made by [`Client::direct`], [`Client::conversation`] and others; cheap to clone, and there
/// whether the server knows of it or not.
#[derive(Clone, Debug)]
pub struct Conversation {
    client: Client,
    target: Target,
}

/// A conversation as the list shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Its id.
    pub cid: ConversationId,
    /// Its title; empty for a direct conversation, see `peer`.
    pub title: String,
    /// The other one, of a direct conversation.
    pub peer: Option<Person>,
    /// Messages that are not read.
    pub unread: u64,
    /// How many of them mention this user, when the server said so last.
    pub mentions: u64,
    /// Marked as unread by hand.
    pub unread_flag: bool,
    /// Read up to here.
    pub read: Seq,
    /// The last place that is known of.
    pub head: Seq,
    /// The newest entry that is here.
    pub last: Option<Entry>,
    /// Not a member any more.
    pub left: bool,
    /// All that the server told of it last.
    pub details: schema::Conversation,
}

impl Summary {
    pub(crate) fn of(known: Known, now_ms: u64) -> Result<Self, Error> {
        let ChangedConversation {
            conversation, left, ..
        } = known.told;
        let details = conversation.unwrap_or_default();
        Ok(Self {
            cid: known.cid,
            title: details.title.clone(),
            peer: details.peer.as_ref().and_then(Person::of),
            unread: known.unread,
            mentions: details.mentions,
            unread_flag: details.unread_flag,
            read: Seq::new(known.positions.read),
            head: Seq::new(known.positions.known),
            last: known
                .last
                .map(|last| Entry::read(last, now_ms))
                .transpose()?,
            left,
            details,
        })
    }
}

/// A page of the log.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct History {
    /// In the order of `seq`.
    pub entries: Vec<Entry>,
    /// There are, or may be, older ones: go on with `before` = the place of the first one.
    pub more: bool,
}

impl Conversation {
    pub(crate) fn new(client: Client, target: Target) -> Self {
        Self { client, target }
    }

    /// How it is addressed.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its id, if that is known: after the first message to or from a user.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn id(&self) -> Result<Option<ConversationId>, Error> {
        if let Target::Conversation(cid) = self.target {
            return Ok(Some(cid));
        }
        let target = self.target.to_string();
        store::run(&self.client.core().store, move |store| {
            store.known_as(&target)
        })
        .await
    }

    async fn cid(&self) -> Result<ConversationId, Error> {
        self.id().await?.ok_or(Error::UnknownConversation)
    }

    /// Writes a message: a text, or a [`Draft`]. Once this returns it is in the outbox, which survives the process, and is sent
    /// as soon as it can be. [`Event::Sent`](crate::Event::Sent) or [`Event::Failed`](crate::Event::Failed) tell of it by the
    /// message id that is returned.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty or too large message, or a bad message id; [`Error::OutboxFull`]; [`Error::Store`].
    pub async fn send(&self, draft: impl Into<Draft>) -> Result<MessageId, Error> {
        let (body, mid) = draft.into().checked()?;
        let topic = format!("chat/to/{}", self.target);
        self.write(OutboxKind::Message, topic, body, mid).await
    }

    /// Gives an own message another body.
    ///
    /// # Errors
    /// As [`Conversation::send`]; [`Error::UnknownConversation`].
    pub async fn edit(&self, seq: Seq, draft: impl Into<Draft>) -> Result<MessageId, Error> {
        let (body, mid) = draft.into().checked()?;
        let topic = format!("chat/c/{}/m/{seq}/edit", self.cid().await?);
        self.write(OutboxKind::Edit, topic, body, mid).await
    }

    async fn write(
        &self,
        kind: OutboxKind,
        topic: String,
        body: schema::ClientMessage,
        mid: MessageId,
    ) -> Result<MessageId, Error> {
        if body.t.is_empty() {
            return Err(Error::Invalid("a message needs a text".to_owned()));
        }
        let payload = body.encode_to_vec();
        if payload.len() > BODY_BYTES_MAX {
            let bytes = payload.len();
            return Err(Error::Invalid(format!("{bytes} bytes are too many")));
        }
        self.queue(kind, topic, payload.into(), mid.to_string(), Seq::ZERO)
            .await?;
        Ok(mid)
    }

    /// Deletes a message for everybody.
    ///
    /// # Errors
    /// [`Error::UnknownConversation`], [`Error::OutboxFull`], [`Error::Store`].
    pub async fn delete(&self, seq: Seq) -> Result<MessageId, Error> {
        self.act(OutboxKind::Delete, seq, "del", "all").await
    }

    /// Hides a message from oneself. Here its body is gone as soon as the server has settled it; other own devices no longer get
    /// it from the server, but one that has it already keeps its copy.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn hide(&self, seq: Seq) -> Result<MessageId, Error> {
        self.act(OutboxKind::Hide, seq, "del", "me").await
    }

    /// Reacts to a message; in a poll, `#1` votes for the first answer.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn react(&self, seq: Seq, emoji: &str) -> Result<MessageId, Error> {
        self.act(OutboxKind::React, seq, "react", emoji).await
    }

    /// Takes a reaction back.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn unreact(&self, seq: Seq, emoji: &str) -> Result<MessageId, Error> {
        let taken_back = format!("-{emoji}");
        self.act(OutboxKind::React, seq, "react", &taken_back).await
    }

    /// Pins a message for all, or unpins it.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn pin(&self, seq: Seq, pinned: bool) -> Result<MessageId, Error> {
        let payload = if pinned { "1" } else { "0" };
        self.act(OutboxKind::Pin, seq, "pin", payload).await
    }

    async fn act(
        &self,
        kind: OutboxKind,
        seq: Seq,
        action: &str,
        payload: &str,
    ) -> Result<MessageId, Error> {
        let topic = format!("chat/c/{}/m/{seq}/{action}", self.cid().await?);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let mid = new_mid();
        self.queue(kind, topic, payload, mid.to_string(), seq)
            .await?;
        Ok(mid)
    }

    /// Says that everything up to here is read. Kept, and sent when there is a connection.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn read(&self, seq: Seq) -> Result<(), Error> {
        let topic = format!("chat/c/{}/read", self.cid().await?);
        let payload = seq.to_string().into();
        self.queue(OutboxKind::Read, topic, payload, String::new(), seq)
            .await
    }

    /// The same without telling anybody else.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn read_privately(&self, seq: Seq) -> Result<(), Error> {
        let topic = format!("chat/c/{}/read", self.cid().await?);
        let payload = serde_json::json!({"seq": seq, "private": true}).to_string();
        let kind = OutboxKind::ReadPrivately;
        self.queue(kind, topic, payload.into(), String::new(), seq)
            .await
    }

    /// Shows it as unread, or no longer.
    ///
    /// # Errors
    /// Those of [`Conversation::delete`].
    pub async fn mark_unread(&self, unread: bool) -> Result<(), Error> {
        let topic = format!("chat/c/{}/unread", self.cid().await?);
        let payload = Bytes::from_static(if unread { b"1" } else { b"0" });
        self.queue(OutboxKind::Unread, topic, payload, String::new(), Seq::ZERO)
            .await
    }

    async fn queue(
        &self,
        kind: OutboxKind,
        topic: String,
        payload: Bytes,
        mid: String,
        seq: Seq,
    ) -> Result<(), Error> {
        let core = self.client.core();
        if core.state.borrow().is_final() {
            return Err(core.ended());
        }
        let max = core.config.limits.outbox_messages_max;
        let row = OutboxRow {
            target: self.target.to_string(),
            topic,
            payload,
            mid,
            created: clock::wall_ms(),
            kind: kind as i32,
            seq: seq.get(),
            ..OutboxRow::default()
        };
        // From the commit on it is queued, also if this future is dropped before the worker hears of it: the job tells it.
        let commands = core.commands.clone();
        let queued = store::run(&core.store, move |store| {
            let queued = store.enqueue(&row, max)?;
            let full = queued.is_none();
            if let Some(queued) = queued {
                // Closed: it waits for the next time that the store is opened.
                let _ = commands.blocking_send(Command::Queued(queued));
            }
            Ok(full)
        });
        if queued.await? {
            return Err(Error::OutboxFull(max));
        }
        Ok(())
    }

    /// Tells the others that this user is typing, or no longer. Worth repeating every few seconds; lost without a
    /// connection.
    ///
    /// # Errors
    /// [`Error::UnknownConversation`], [`Error::Closed`].
    pub async fn typing(&self, typing: Typing) -> Result<(), Error> {
        let topic = format!("chat/c/{}/typing", self.cid().await?);
        let payload = Bytes::from_static(typing.as_str().as_bytes());
        self.client.command(Command::Hint(topic, payload)).await
    }

    /// What the list shows of it; `None` if the server has not told of it.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Protocol`].
    pub async fn summary(&self) -> Result<Option<Summary>, Error> {
        let Some(cid) = self.id().await? else {
            return Ok(None);
        };
        let store = &self.client.core().store;
        let known = store::run(store, move |store| store.conversation(cid)).await?;
        known
            .map(|known| Summary::of(known, store.now_ms()))
            .transpose()
    }

    /// Entries before a place, or the newest ones: at most `limit`, 1 to 500. From the local log; what is not there is asked
    /// for, as far as there is a connection.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Refused`] if the server does not show it.
    pub async fn history(&self, before: Option<Seq>, limit: usize) -> Result<History, Error> {
        let Some(cid) = self.id().await? else {
            return Ok(History::default());
        };
        let limit = limit.clamp(1, 500);
        let core = self.client.core();
        if worker::is_online(core) {
            self.catch_up(cid, before).await?;
        }
        let mut pages = 0;
        loop {
            let (entries, from) = store::run(&core.store, move |store: &Store| {
                let entries = store.page(cid, before, limit)?;
                Ok((entries, store.positions(cid)?))
            })
            .await?;
            let complete = from.covered_from == 1;
            let enough = entries.len() >= limit || complete || pages >= PAGES_MAX;
            if !enough && worker::is_online(core) {
                pages += 1;
                let asked = MsgHistory {
                    cid: cid.to_string(),
                    before: (from.covered_from > 0).then_some(from.covered_from),
                    limit: Some(PAGE),
                    ..MsgHistory::default()
                };
                let page = worker::history(core, asked).await?;
                self.put(move |store| store.backfill(cid, page)).await?;
                continue;
            }
            let first = entries.first().map(|entry| entry.seq);
            let now_ms = core.store.now_ms();
            let entries = entries.into_iter().map(|entry| Entry::read(entry, now_ms));
            return Ok(History {
                entries: entries.collect::<Result<_, _>>()?,
                more: !complete || first.is_some_and(|first| first > 1),
            });
        }
    }

    /// Fetches what came since of a conversation that is not pushed, of which this device does not hear in time; begins anew
    /// at the end if that is much.
    async fn catch_up(&self, cid: ConversationId, before: Option<Seq>) -> Result<(), Error> {
        let core = self.client.core();
        for _ in 0..PAGES_MAX {
            let positions = move |store: &Store| store.positions(cid);
            let positions = store::run(&core.store, positions).await?;
            let after = positions.covered_to;
            let is_inside = before.is_some_and(|before| before.get() <= after.saturating_add(1));
            if after == 0 || positions.fed_to.is_some() || is_inside {
                return Ok(());
            }
            let asked = MsgHistory {
                cid: cid.to_string(),
                after: Some(after),
                limit: Some(PAGE),
                ..MsgHistory::default()
            };
            let page = worker::history(core, asked).await?;
            if page.head.saturating_sub(after) > BEHIND_MAX {
                return store::run(&core.store, move |store| store.begin_anew(cid)).await;
            }
            let more = page.more;
            self.put(move |store| store.fill(cid, page)).await?;
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts what was asked for into the store. The worker hears of it, whatever becomes of this future.
    async fn put(
        &self,
        verb: impl FnOnce(&Store) -> Result<Taken, StoreError> + Send + 'static,
    ) -> Result<(), Error> {
        let core = self.client.core();
        let commands = core.commands.clone();
        store::run(&core.store, move |store| {
            let taken = verb(store)?;
            // Closed: there is nobody to be told.
            let _ = commands.blocking_send(Command::Taken(Box::new(taken)));
            Ok(())
        })
        .await
    }

    /// One entry of the local log.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Protocol`].
    pub async fn entry(&self, seq: Seq) -> Result<Option<Entry>, Error> {
        let Some(cid) = self.id().await? else {
            return Ok(None);
        };
        let store = &self.client.core().store;
        let entry = store::run(store, move |store| store.entry(cid, seq)).await?;
        entry
            .map(|entry| Entry::read(entry, store.now_ms()))
            .transpose()
    }

    /// What waits for the server here or was refused, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn pending(&self) -> Result<Vec<Pending>, Error> {
        let target = self.target.clone();
        let store = &self.client.core().store;
        let rows = store::run(store, move |store| store.outbox_rows(Some(&target))).await?;
        Ok(rows
            .iter()
            .filter_map(|(_, row)| Pending::of(row))
            .collect())
    }

    /// What has become of a message that was sent, by the id that [`Conversation::send`] returned; also after a restart, and of one
    /// that another device of this user sent. `None`: not known here, or scheduled, or it waits for a moderator.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn progress(&self, mid: &MessageId) -> Result<Option<Progress>, Error> {
        let (target, mid) = (self.target.clone(), mid.to_string());
        let store = &self.client.core().store;
        store::run(store, move |store| store.progress(&target, &mid)).await
    }

    /// How far an own message has got, as far as is known here.
    ///
    /// # Errors
    /// [`Error::UnknownConversation`], [`Error::Store`].
    pub async fn status(&self, seq: Seq) -> Result<Status, Error> {
        Ok(self.reached().await?.status(seq))
    }

    /// How far all own messages have got, as far as is known here: for a page of them.
    ///
    /// # Errors
    /// Those of [`Conversation::status`].
    pub async fn reached(&self) -> Result<Reached, Error> {
        let cid = self.cid().await?;
        let store = &self.client.core().store;
        store::run(store, move |store| store.reached(cid)).await
    }

    /// Who got and who read an own message. Asks the server.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn status_by_member(&self, seq: Seq) -> Result<schema::MessageStatus, Error> {
        let asked = MsgStatus {
            cid: self.target.to_string(),
            seq: seq.get(),
        };
        match self
            .client
            .call("msg.status", Params::MsgStatus(asked))
            .await?
        {
            Reply::Status(status) => Ok(status),
            _ => Err(worker::unexpected("msg.status")),
        }
    }

    /// The conversation with its members. Asks the server.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn members(&self) -> Result<Vec<schema::Member>, Error> {
        let asked = ConvGet {
            cid: self.target.to_string(),
        };
        match self.client.call("conv.get", Params::ConvGet(asked)).await? {
            Reply::Conversation(conversation) => Ok(conversation.members),
            _ => Err(worker::unexpected("conv.get")),
        }
    }

    /// Adds users (`@carol`, `u.…`) to a group. Asks the server.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn add(&self, members: &[&str]) -> Result<(), Error> {
        let asked = ConvAdd {
            cid: self.target.to_string(),
            members: members.iter().map(|&member| member.to_owned()).collect(),
            ..ConvAdd::default()
        };
        self.change("conv.add", Params::ConvAdd(asked)).await
    }

    /// Removes a user from a group. Asks the server.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn remove(&self, member: &str) -> Result<(), Error> {
        let asked = ConvRemove {
            cid: self.target.to_string(),
            member: member.to_owned(),
        };
        self.change("conv.remove", Params::ConvRemove(asked)).await
    }

    /// Leaves a group. Its last owner has to hand it over first, or names who becomes the owner. Asks the server.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn leave(&self, owner: Option<&str>) -> Result<(), Error> {
        let asked = ConvLeave {
            cid: self.target.to_string(),
            owner: owner.map(str::to_owned),
        };
        self.change("conv.leave", Params::ConvLeave(asked)).await
    }

    async fn change(&self, method: &str, params: Params) -> Result<(), Error> {
        match self.client.call(method, params).await? {
            Reply::Changed(_) => Ok(()),
            _ => Err(worker::unexpected(method)),
        }
    }

    /// Searches the local log of this conversation, as [`Client::search`] does.
    ///
    /// # Errors
    /// Those of [`Client::search`]; [`Error::UnknownConversation`].
    pub async fn search(
        &self,
        words: &str,
        limit: usize,
        after: Option<SearchCursor>,
    ) -> Result<Found, Error> {
        let cid = self.cid().await?;
        self.client.search_in(Some(cid), words, limit, after).await
    }
}
