//! What a client publishes and subscribes to below `chat/`, in the order of asking.
//!
//! One task per connection works off its queue while there is something in it. Messages that follow each other are
//! judged and appended as one batch; while the store makes it durable, the next batch gathers. Everything else (marks,
//! calls) waits for the messages before it.

use std::borrow::Cow;
use std::sync::Arc;

use broker::codec::packet::{PacketId, Publish};
use broker::hooks::{PublishAnswer, Ticket};
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};
use proto::error::ErrorName;
use proto::ids::{ConversationId, MessageId, Seq};
use proto::payload;
use proto::quote::quoted;
use proto::topics::{
    MessageAction, PublishTopic, Target, TopicError, err_topic_mid, err_topic_packet,
};

use super::acts::{exchange, mid_property};
use super::peer::{Item, Peer};
use super::{ChatPlugin, answer, visitors};
use crate::service::marks::ReadMark;
use crate::service::scheduled::Arranged;
use crate::service::send::{Judged, Message};
use crate::service::{Placed, Refusal, new_mid};
use crate::store::StoreError;

/// Messages appended at once for one connection.
const BATCH_MAX: usize = 256;
/// Messages of one connection about which the filter is asked at once.
const ASKED_AT_ONCE: usize = 8;

/// Messages that were judged and wait to be appended together.
#[derive(Default)]
struct Batch {
    judged: Vec<Judged>,
    waiting: Vec<Waiting>,
}

/// Who waits for the result of a publish, and how it is told.
struct Waiting {
    ticket: Ticket<PublishAnswer>,
    topic: bytestring::ByteString,
    packet_id: Option<PacketId>,
    mid: Option<MessageId>,
    /// The client does not know `mid`: it gave none.
    mid_is_ours: bool,
}

impl ChatPlugin {
    /// Works off the queue of a connection until it is empty.
    pub(super) async fn ingest(&self, peer: &Arc<Peer>) {
        loop {
            let items = peer.take();
            if items.is_empty() {
                return;
            }
            let mut batch = Batch::default();
            for item in items {
                if self.gives_up(peer) {
                    continue; // without an answer: nothing of it was settled
                }
                match item {
                    Item::Publish(publish, ticket) => {
                        self.take_one(peer, publish, ticket, &mut batch).await;
                    }
                    Item::Subscribe(filters, identifier, ticket) => {
                        self.append(peer, &mut batch).await;
                        match self.subscribe(peer, filters, identifier).await {
                            Ok(reasons) => ticket.answer(reasons),
                            Err(error) => {
                                tracing::error!(%error, "a subscription could not be made durable");
                            }
                        }
                    }
                    Item::Unsubscribe(filters, ticket) => {
                        self.append(peer, &mut batch).await;
                        match self.unsubscribe(peer, &filters).await {
                            Ok(reasons) => ticket.answer(reasons),
                            Err(error) => {
                                tracing::error!(%error, "an unsubscription could not be made durable");
                            }
                        }
                    }
                }
                if batch.judged.len() >= BATCH_MAX {
                    self.append(peer, &mut batch).await;
                }
            }
            self.append(peer, &mut batch).await;
        }
    }

    async fn take_one(
        &self,
        peer: &Arc<Peer>,
        publish: Publish,
        ticket: Ticket<PublishAnswer>,
        batch: &mut Batch,
    ) {
        let mut waiting = Waiting {
            ticket,
            topic: publish.topic.clone(),
            packet_id: publish.packet_id,
            mid: None,
            mid_is_ours: false,
        };
        let topic = waiting.topic.clone();
        let parsed = match PublishTopic::parse(&topic) {
            Ok(parsed) if peer.is_visitor && !visitors::may_publish(&parsed) => {
                return self.refuse(peer, waiting, &visitors::REFUSED);
            }
            Ok(parsed) if !publish.retain => parsed,
            Ok(_) => {
                return self.refuse(
                    peer,
                    waiting,
                    &Refusal::format("nothing in chat/ is retained"),
                );
            }
            Err(error) => return self.refuse(peer, waiting, &bad_topic(error, &topic)),
        };
        let addressed = match &parsed {
            PublishTopic::To { target, mid } => Some((target.clone(), mid.clone(), None)),
            PublishTopic::Message { cid, seq, action }
                if matches!(action, MessageAction::Reply | MessageAction::Thread) =>
            {
                Some((Target::Conversation(*cid), None, Some((*seq, *action))))
            }
            _ => None,
        };
        if let Some((target, mid, to)) = addressed {
            let taken = self
                .take_message(peer, &publish, (target, mid, to), &mut waiting)
                .await;
            match taken {
                Ok(Taken::Judged(judged)) => {
                    if batch.mixes_versions(&judged) {
                        self.append(peer, batch).await;
                    }
                    batch.judged.push(*judged);
                    batch.waiting.push(waiting);
                }
                Ok(Taken::Arranged(arranged)) => {
                    self.append(peer, batch).await;
                    waiting
                        .ticket
                        .answer(answer::arranged(&arranged, waiting.mid.as_ref()));
                }
                Ok(Taken::Placed(place)) => {
                    self.append(peer, batch).await;
                    self.settle(peer, waiting, Ok(place));
                }
                Err(refusal) => self.refuse(peer, waiting, &refusal),
            }
            return;
        }
        self.append(peer, batch).await;
        if let PublishTopic::Message { cid, seq, action } = parsed {
            match self
                .take_act(peer, &publish, ((cid, seq), action), &mut waiting)
                .await
            {
                Ok(Some(place)) => self.settle(peer, waiting, Ok(place)),
                Ok(None) => waiting.ticket.answer(PublishAnswer::SUCCESS),
                Err(refusal) => self.refuse(peer, waiting, &refusal),
            }
            return;
        }
        let result = match parsed {
            PublishTopic::Read { cid } => self.take_read(peer, cid, &publish).await,
            PublishTopic::Recv { cid } => self.take_received(peer, cid, &publish).await,
            PublishTopic::Unread { cid } => self.take_unread(peer, cid, &publish).await,
            PublishTopic::Typing { cid } => self.take_typing(peer, cid, &publish).await,
            PublishTopic::Presence => self.take_presence(peer, &publish).await,
            PublishTopic::Rpc { method, req } => self.call(peer, method, req, &publish).await,
            _ => Err(Refusal::NotFound(Cow::Borrowed(
                "not offered by this server",
            ))),
        };
        match result {
            Ok(()) => waiting.ticket.answer(PublishAnswer::SUCCESS),
            Err(refusal) => self.refuse(peer, waiting, &refusal),
        }
    }

    async fn take_message(
        &self,
        peer: &Peer,
        publish: &Publish,
        (target, mid, to): (Target, Option<MessageId>, Option<(Seq, MessageAction)>),
        waiting: &mut Waiting,
    ) -> Result<Taken, Refusal> {
        let message = self.read_message(peer, publish, (mid, to), waiting)?;
        if publish.dup
            && let Some(place) = self
                .service
                .exchanged_before(peer.actor, &target, &message)
                .await?
        {
            return Ok(Taken::Placed(place));
        }
        Self::check_rate(peer)?;
        if let Some(at_ms) = message.at_ms.filter(|at| *at > crate::clock::now_ms()) {
            if peer.is_visitor {
                return Err(visitors::REFUSED); // he could not take it back
            }
            let arranged = self.service.schedule(peer.actor, target, message, at_ms);
            return arranged.await.map(Taken::Arranged);
        }
        match self
            .service
            .judge_sender(peer.actor, target.clone(), message.clone())
            .await
        {
            Ok(judged) => Ok(Taken::Judged(Box::new(judged))),
            Err(refusal @ (Refusal::Forbidden(_) | Refusal::NotFound(_))) => {
                let before = self
                    .service
                    .stored_before(peer.actor, &target, &message)
                    .await?;
                before.map(Taken::Placed).ok_or(refusal)
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn read_message(
        &self,
        peer: &Peer,
        publish: &Publish,
        (in_topic, to): (Option<MessageId>, Option<(Seq, MessageAction)>),
        waiting: &mut Waiting,
    ) -> Result<Message, Refusal> {
        waiting.mid.clone_from(&in_topic);
        let in_property = mid_property(publish)?;
        if waiting.mid.is_none() {
            waiting.mid.clone_from(&in_property);
        }
        let written = self.written_in(publish)?;
        let mid = one_of(
            [in_topic, in_property, written.mid],
            "two message ids that differ",
        )?;
        let to_in_topic = |wanted| {
            to.filter(|(_, action)| *action == wanted)
                .map(|(seq, _)| seq)
        };
        let two = "two messages to refer to that differ";
        let reply_to = to_in_topic(MessageAction::Reply);
        let reply_to = one_of([reply_to, written.reply_to], two)?;
        let thread = to_in_topic(MessageAction::Thread);
        let thread = one_of([thread, written.thread], two)?;
        let expiry_s = publish.properties.message_expiry_interval;
        waiting.mid_is_ours = mid.is_none();
        let mid = match mid {
            Some(mid) => mid,
            None => new_mid()?,
        };
        waiting.mid = Some(mid.clone());
        Ok(Message {
            mid,
            has_own_mid: !waiting.mid_is_ours,
            content: written.content,
            reply_to,
            thread,
            ttl_s: expiry_s.into_iter().chain(written.ttl_s).min(),
            at_ms: written.at_ms,
            exchange: exchange(peer, publish),
        })
    }

    async fn take_act(
        &self,
        peer: &Peer,
        publish: &Publish,
        (message, action): ((ConversationId, Seq), MessageAction),
        waiting: &mut Waiting,
    ) -> Result<Option<Placed>, Refusal> {
        Self::check_rate(peer)?;
        let acting = self.acting(peer, message, action, publish)?;
        waiting.mid = Some(acting.mid.clone());
        waiting.mid_is_ours = !acting.has_own_mid;
        self.act(acting, action, publish).await
    }

    /// With a filter that may take its time, is there nobody any more who waits for an answer?
    fn gives_up(&self, peer: &Peer) -> bool {
        self.service.has_filter() && (peer.late.is_cancelled() || self.stop.is_cancelled())
    }

    /// Appends what was gathered. The filter is asked about some at a time, and what has passed is not kept waiting for the
    /// answers about what comes behind it.
    async fn append(&self, peer: &Peer, batch: &mut Batch) {
        let gathered = std::mem::take(batch);
        if !self.service.has_filter() {
            return self.store(peer, gathered).await;
        }
        let Batch { judged, waiting } = gathered;
        let asking: Vec<_> = judged
            .into_iter()
            .zip(waiting)
            .map(|(judged, waiting)| async {
                let passed = self.service.check_content(&judged.draft).await;
                (judged, waiting, passed)
            })
            .collect();
        let mut asking = stream::iter(asking).buffered(ASKED_AT_ONCE);
        let mut passed = Batch::default();
        loop {
            let answered = if let Some(answered) = asking.next().now_or_never() {
                answered
            } else {
                self.store(peer, std::mem::take(&mut passed)).await;
                tokio::select! {
                    answered = asking.next() => answered,
                    () = peer.late.cancelled() => return,
                    () = self.stop.cancelled() => return,
                }
            };
            match answered {
                Some((judged, waiting, Ok(()))) => {
                    passed.judged.push(judged);
                    passed.waiting.push(waiting);
                }
                Some((_, waiting, Err(refusal))) => self.refuse(peer, waiting, &refusal),
                None => return self.store(peer, passed).await,
            }
        }
    }

    async fn store(&self, peer: &Peer, batch: Batch) {
        let Batch { judged, waiting } = batch;
        if judged.is_empty() {
            return;
        }
        let results = self.service.append(peer.actor, judged).await;
        for (waiting, result) in waiting.into_iter().zip(results) {
            self.settle(peer, waiting, result);
        }
    }

    fn settle(&self, peer: &Peer, waiting: Waiting, result: Result<Placed, Refusal>) {
        match (result, &waiting.mid) {
            (Ok(place), Some(mid)) => {
                // Of a repeated exchange without a message id, the first id is not known here.
                let mid = Some(mid).filter(|_| !(place.duplicate && waiting.mid_is_ours));
                let answer = answer::placed(&place, mid);
                waiting.ticket.answer(answer);
            }
            (Ok(_), None) => waiting.ticket.answer(PublishAnswer::SUCCESS),
            (Err(refusal), _) => self.refuse(peer, waiting, &refusal),
        }
    }

    /// Tells a refusal: on PUBACK, and before it on `chat/me/err/…` to those who subscribed to it. What the store could
    /// not make durable gets no answer: the ticket is dropped, the connection closes, the client retries.
    fn refuse(&self, peer: &Peer, waiting: Waiting, refusal: &Refusal) {
        let Some(mut answer) = answer::refused(refusal) else {
            let user = peer.actor.user;
            if let Refusal::Store(StoreError::ReadOnly(_)) = refusal {
                // The store has told it once; each retry of each client comes here.
                tracing::debug!(%user, %refusal, "a publish could not be made durable");
            } else {
                tracing::error!(%user, %refusal, "a publish could not be made durable");
            }
            return;
        };
        if let Refusal::Held(_) = refusal {
            waiting.ticket.answer(answer);
            return;
        }
        tracing::debug!(user = %peer.actor.user, topic = %waiting.topic, error = %refusal.name(), "publish refused");
        self.metrics.refused(refusal.name());
        answer.notice = notice(peer, &waiting, refusal).map(Box::new);
        waiting.ticket.answer(answer);
    }

    async fn take_read(
        &self,
        peer: &Peer,
        id: ConversationId,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        let mark = payload::ReadMark::parse(&publish.payload)
            .map_err(|error| Refusal::format(error.to_string()))?;
        let mark = ReadMark {
            seq: mark.seq,
            private: mark.private,
        };
        self.service.read(peer.actor, id, mark, &peer.reader).await
    }

    async fn take_received(
        &self,
        peer: &Peer,
        id: ConversationId,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        let seq = payload::parse_seq(&publish.payload)
            .map_err(|error| Refusal::format(error.to_string()))?;
        self.service
            .received(peer.actor, id, seq, &peer.reader)
            .await
    }

    async fn take_unread(
        &self,
        peer: &Peer,
        id: ConversationId,
        publish: &Publish,
    ) -> Result<(), Refusal> {
        let flag = match &*publish.payload {
            b"1" => true,
            b"0" => false,
            _ => return Err(Refusal::format("1 or 0 is wanted")),
        };
        self.service.unread(peer.actor, id, flag).await
    }
}

/// What is told on `chat/me/err/…`, if the connection subscribed to it.
fn notice(peer: &Peer, waiting: &Waiting, refusal: &Refusal) -> Option<Publish> {
    let mid = waiting.mid.as_ref().filter(|_| !waiting.mid_is_ours);
    let (key, topic) = match (mid, waiting.packet_id) {
        (Some(mid), _) => (mid.to_string(), err_topic_mid(mid)),
        (None, id) => {
            let id = id.map_or(0, PacketId::get);
            (format!("@{id}"), err_topic_packet(id))
        }
    };
    let matched = peer.reader.error_subscription(&key)?;
    let mut notice = answer::notice(&topic, refusal, &waiting.topic, mid);
    if !matched.identifiers.is_empty() {
        notice.properties.subscription_identifiers = matched.identifiers;
    }
    Some(notice)
}

/// What became of a message before the store has seen it.
enum Taken {
    Judged(Box<Judged>),
    /// Stored already, by a sender who has lost the right since.
    Placed(Placed),
    /// It waits for its time.
    Arranged(Arranged),
}

impl Batch {
    /// Drafts of one conversation in one batch must rest on one membership: otherwise an earlier one could be sent back
    /// to be judged again while a later one is stored.
    fn mixes_versions(&self, judged: &Judged) -> bool {
        let same = |other: &&Judged| other.draft.conversation == judged.draft.conversation;
        let last = self.judged.iter().rev().find(same);
        last.is_some_and(|other| other.draft.basis != judged.draft.basis)
    }
}

fn bad_topic(error: TopicError, topic: &str) -> Refusal {
    let said = format!("{error}: {}", quoted(topic));
    match error.refusal() {
        ErrorName::Format => Refusal::Format(said),
        _ => Refusal::NotFound(said.into()),
    }
}

/// The value of a user property of a publish.
pub(super) fn property<'a>(publish: &'a Publish, name: &str) -> Option<&'a str> {
    let pairs = publish.properties.user_properties.iter();
    pairs
        .filter(|(key, _)| &**key == name)
        .map(|(_, value)| &**value)
        .next()
}

/// The same may be said in the topic, in a user property and in the body; where there are several they must agree.
fn one_of<T: PartialEq, const N: usize>(
    given: [Option<T>; N],
    otherwise: &str,
) -> Result<Option<T>, Refusal> {
    let mut given = given.into_iter().flatten();
    let first = given.next();
    if given.any(|other| Some(&other) != first.as_ref()) {
        return Err(Refusal::format(otherwise));
    }
    Ok(first)
}
