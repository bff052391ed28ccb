//! An app on the SDK: it writes, and journals what it is shown, with the position behind it.
//!
//! What the journal has was shown; the position in it goes back to the SDK in the next life, so that nothing is shown twice,
//! wherever the process was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use client_sdk::schema::ConvGet;
use client_sdk::schema::rpc_reply::Result as Reply;
use client_sdk::schema::rpc_request::Params;
use client_sdk::{
    Client, Content, ConversationId, Draft, Entry, Error, Event as Told, Events, Limits, Seq,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Phase, abandoned, say, text};
use crate::check::history::{Event, Journal, Record, SETUP, Seen, State, unsettled};
use crate::check::world::{Part, World};
use crate::clock::{self, Clock};
use crate::error::BenchError;
use crate::random::Random;

/// One life of the app.
pub(super) struct App<'a> {
    world: &'a World,
    part: &'a Part,
    folder: &'a Path,
    phase: watch::Receiver<Phase>,
}

/// Client, events and journal of a life.
struct Life<'a> {
    app: App<'a>,
    client: Client,
    journal: Journal,
    random: Random,
    clock: Clock,
    next: u64,
    /// Own messages that came back.
    back: u64,
    reached: BTreeMap<String, u64>,
    marked: BTreeMap<String, u64>,
}

impl<'a> App<'a> {
    pub(super) const fn new(
        world: &'a World,
        part: &'a Part,
        folder: &'a Path,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            world,
            part,
            folder,
            phase,
        }
    }

    pub(super) async fn live(
        self,
        mut journal: Journal,
        before: &[Record],
    ) -> Result<(), BenchError> {
        let client = self.open().await?;
        let mut events = client.events().await?;
        let position = before.iter().rev().find_map(|one| match &one.event {
            Event::Shown { position, .. } => Some(*position),
            _ => None,
        });
        events.confirm_through(position.unwrap_or(0)).await?;
        let is_ready = before
            .iter()
            .any(|one| matches!(one.event, Event::Ready { .. }));
        if !is_ready {
            client.online().await?;
            let to = self.part.listen.clone();
            journal.write(Event::Ready { to })?;
        }
        say("ready")?;
        let lives = before
            .iter()
            .filter(|one| matches!(one.event, Event::Began { .. }));
        let life = format!("{}-{}", self.part.name, lives.count());
        let (next, open) = unsettled(before);
        let mut life = Life {
            random: Random::named(self.world.seed, &life),
            app: self,
            client,
            journal,
            clock: Clock::start(),
            next,
            back: 0,
            reached: BTreeMap::new(),
            marked: BTreeMap::new(),
        };
        for record in before {
            life.recall(&record.event);
        }
        for event in open.into_values() {
            // What was about to go into the outbox may be there or not.
            if let Event::Send { id, to, .. } = event {
                life.queue(id, &to).await?;
            }
        }
        life.live(&mut events).await?;
        drop(events);
        life.client.close().await;
        Ok(())
    }

    async fn open(&self) -> Result<Client, BenchError> {
        let mut limits = Limits::default();
        limits.reconnect_min = Duration::from_millis(20);
        limits.reconnect_max = Duration::from_millis(200);
        limits.gap_patience = Duration::from_millis(100);
        limits.connect_timeout = Duration::from_secs(3);
        limits.keep_alive = Duration::from_secs(2);
        limits.call_timeout = Duration::from_secs(5);
        let name = &self.part.name;
        let builder = Client::builder(format!("mqtt://{}", self.world.address))
            .login(name, self.part.password.clone().unwrap_or_default())
            .device(format!("check-{name}"))
            .folder(self.folder.join(format!("{name}.store")))
            .limits(limits);
        Ok(builder.open().await?)
    }
}

impl Life<'_> {
    fn recall(&mut self, event: &Event) {
        match event {
            Event::Shown { entries, .. } => self.reach(entries),
            Event::Mark { to, seq, .. } => {
                self.marked.insert(to.clone(), *seq);
            }
            _ => {}
        }
    }

    fn reach(&mut self, entries: &[Seen]) {
        for seen in entries {
            self.reached.insert(seen.to.clone(), seen.seq);
            self.back += u64::from(seen.from == self.app.part.name && !seen.id.starts_with(SETUP));
        }
    }

    fn phase(&self) -> Phase {
        *self.app.phase.borrow()
    }

    async fn live(&mut self, events: &mut Events) -> Result<(), BenchError> {
        let mut send = Duration::ZERO;
        let mut mark = Duration::from_millis(300);
        let mut is_quiet = false;
        loop {
            self.show(events, TICK).await?;
            let now = self.clock.elapsed();
            match self.phase() {
                Phase::Wait => {}
                Phase::Go => {
                    if now >= send && self.next.saturating_sub(self.back) < WINDOW {
                        send = now + Duration::from_millis(self.random.between(10, 50));
                        self.write().await?;
                    }
                    if now >= mark {
                        mark = now + Duration::from_millis(self.random.between(300, 900));
                        self.mark().await?;
                    }
                }
                Phase::Quiet if is_quiet => {}
                Phase::Quiet => {
                    if timeout(TICK, self.client.flushed()).await.is_ok() {
                        is_quiet = true;
                        self.journal.write(Event::Quiet)?;
                        say("quiet")?;
                    }
                }
                Phase::End => {
                    self.finish(events).await?;
                    self.journal.write(Event::Ended)?;
                    return say("end");
                }
                Phase::Gone => return Err(abandoned()),
            }
        }
    }

    /// Journals what is shown within this time.
    async fn show(&mut self, events: &mut Events, within: Duration) -> Result<(), BenchError> {
        let Ok(batch) = timeout(within, events.next_batch(BATCH)).await else {
            return Ok(());
        };
        let mut entries = Vec::new();
        for told in batch? {
            match told {
                Told::Entry(entry) => entries.push(seen(&entry)),
                Told::Sent { mid, seq, .. } => self.journal.write(Event::Acked {
                    id: mid.to_string(),
                    seq: seq.map(Seq::get),
                    dup: true, // it does not tell
                })?,
                Told::Failed { mid, refusal } => self.journal.write(Event::Refused {
                    id: mid.to_string(),
                    reason: refusal.to_string(),
                })?,
                _ => {}
            }
        }
        if !entries.is_empty() {
            self.reach(&entries);
            let position = events.position();
            self.journal.write(Event::Shown { position, entries })?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), BenchError> {
        let targets: Vec<_> = self.app.part.to.iter().map(String::as_str).collect();
        let Some(to) = self.random.pick(&targets) else {
            return Ok(());
        };
        let id = format!("{}-{}", self.app.part.name, self.next);
        self.next += 1;
        self.journal.write(Event::Send {
            id: id.clone(),
            to: to.to_owned(),
            text: text(&id),
            qos: 1,
            packet_id: 0,
        })?;
        let to = to.to_owned();
        self.queue(id, &to).await
    }

    async fn queue(&mut self, id: String, to: &str) -> Result<(), BenchError> {
        let text = text(&id);
        let mid = id
            .parse()
            .map_err(|_| BenchError::Check(format!("{id} is no message id")))?;
        let draft = Draft::text(text.as_str()).mid(mid);
        match self.conversation(to)?.send(draft).await {
            Ok(_) => {
                let to = to.to_owned();
                self.journal.write(Event::Queued { id, to, text })
            }
            Err(Error::OutboxFull(_)) => self.journal.write(Event::Refused {
                id,
                reason: "outbox full".to_owned(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn conversation(&self, to: &str) -> Result<client_sdk::Conversation, BenchError> {
        let cid: Result<ConversationId, _> = to.parse();
        let cid = cid.map_err(|_| BenchError::Check(format!("{to} is no conversation")))?;
        Ok(self.client.conversation(cid))
    }

    async fn mark(&mut self) -> Result<(), BenchError> {
        let listened: Vec<_> = self.app.part.listen.iter().map(String::as_str).collect();
        let Some(to) = self.random.pick(&listened).map(str::to_owned) else {
            return Ok(());
        };
        let reached = self.reached.get(&to).copied().unwrap_or(0);
        let marked = self.marked.get(&to).copied().unwrap_or(0);
        if reached <= marked {
            return Ok(());
        }
        let seq = self.random.between(marked + 1, reached + 1);
        self.marked.insert(to.clone(), seq);
        let private = self.random.below(4) == 0;
        self.journal.write(Event::Mark {
            to: to.clone(),
            seq,
            private,
        })?;
        let conversation = self.conversation(&to)?;
        if private {
            conversation.read_privately(Seq::new(seq)).await?;
        } else {
            conversation.read(Seq::new(seq)).await?;
        }
        Ok(())
    }

    /// Takes what is still to come, and records what the server has.
    async fn finish(&mut self, events: &mut Events) -> Result<(), BenchError> {
        for to in self.app.part.listen.clone() {
            let asked = clock::monotonic_micros();
            let Some(state) = self.state(&to).await? else {
                continue;
            };
            let (mut arrived, mut last) = (self.clock.elapsed(), 0);
            while last < state.head && self.clock.elapsed().saturating_sub(arrived) < SILENCE {
                self.show(events, TICK).await?;
                let reached = self.reached.get(&to).copied().unwrap_or(0);
                if reached > last {
                    (arrived, last) = (self.clock.elapsed(), reached);
                }
            }
            self.journal.write(Event::State { to, asked, state })?;
        }
        Ok(())
    }

    async fn state(&self, to: &str) -> Result<Option<State>, BenchError> {
        loop {
            let asked = Params::ConvGet(ConvGet { cid: to.to_owned() });
            match self.client.call("conv.get", asked).await {
                Ok(Reply::Conversation(told)) => {
                    return Ok(Some(State {
                        head: told.head,
                        mseq: told.mseq,
                        read: told.read,
                        private_read: told.private_read,
                        delivered: told.delivered,
                        unread: told.unread,
                    }));
                }
                Ok(_) | Err(Error::Refused(_)) => return Ok(None),
                Err(Error::Timeout(_) | Error::Busy(_)) if self.phase() != Phase::Gone => {
                    sleep(TICK).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn seen(entry: &Entry) -> Seen {
    let (kind, first) = match &entry.content {
        Content::Message(_) => ("message", 0),
        Content::Edit { .. } => ("edit", 0),
        Content::Deleted { .. } => ("deleted", 0),
        Content::Reaction { .. } => ("reaction", 0),
        Content::Pin { .. } => ("pin", 0),
        Content::Change { kind, .. } | Content::Other { kind } => (kind.as_str(), 0),
        Content::Gone { .. } => ("gone", 0),
        Content::Gap { from, .. } => ("gap", from.get()),
        _ => ("?", 0),
    };
    Seen {
        to: entry.cid.to_string(),
        seq: entry.seq.get(),
        first,
        kind: kind.to_owned(),
        from: entry.author().to_owned(),
        id: entry
            .mid
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        text: entry.text().unwrap_or_default().to_owned(),
        ts: entry.ts,
        about: Vec::new(),
    }
}

/// Own messages that have not come back; the outbox could hold far more.
const WINDOW: u64 = 100;
/// Entries that are shown, and journalled, at once.
const BATCH: usize = 8;
const TICK: Duration = Duration::from_millis(10);
/// So long after the last entry nothing is expected any more, if something is missing.
const SILENCE: Duration = Duration::from_secs(8);
