//! Carries out effects, by the SDK. Both modes use it; what comes of them is for people already.

use std::sync::Arc;
use std::time::Duration;

use client_sdk::schema::rpc_reply::Result as Reply;
use client_sdk::schema::rpc_request::Params;
use client_sdk::schema::{ClientMessage, ConvPrefs, Member, MemberStatus, MessageStatus};
use client_sdk::{
    Advice, Client, Connection, Conversation, ConversationId, Draft, Entry, Error, History,
    MessageId, Pending, PendingKind, SearchCursor, Seq, Summary, Target, Typing, UserId,
};

use crate::clock::{self, Zone};
use crate::command::Which;
use crate::effect::{Act, Answer, Ask, At, Effect, Hit, Listing, Page};
use crate::items::{People, Reader, Row, waiting};
use crate::text::Shown;

/// Entries that are looked through for «the newest one».
const LOOKED_THROUGH: usize = 200;
/// Messages that are found at once.
const FOUND: usize = 50;
/// Searches that are made at most until something is found.
const SEARCHES_MAX: usize = 20;
/// How long a page waits for who is in it.
const MEMBERS_PATIENCE: Duration = Duration::from_secs(2);
/// «Until further notice».
const FOR_EVER_MS: u64 = (1 << 48) - 1;

/// What is needed to do it.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) client: Client,
    zone: Zone,
    people: Arc<People>,
}

impl Desk {
    pub(crate) fn new(client: Client, zone: Zone) -> Self {
        let people = Arc::default();
        Self {
            client,
            zone,
            people,
        }
    }
}

/// Does it. `None`: there is nothing to be told.
pub(crate) async fn perform(desk: &Desk, effect: Effect) -> Option<Answer> {
    let client = &desk.client;
    let done = match effect {
        Effect::List => {
            return Some(match list(desk).await {
                Ok(listing) => Answer::Listed(listing),
                Err(error) => Answer::NotListed(explain(&error)),
            });
        }
        Effect::Page(target, at, limit) => {
            return Some(match page(desk, &target, at, limit).await {
                Ok(page) => Answer::Paged(target, at, page),
                Err(error) => Answer::NoPage(target, at, explain(&error)),
            });
        }
        Effect::Find(search, words, within, after) => {
            return Some(match find(desk, &words, within, after).await {
                Ok((hits, after)) => Answer::Found(search, hits, after),
                Err(error) => Answer::NotFound(search, explain(&error)),
            });
        }
        Effect::Open(whom) => {
            return Some(match resolve(client, &whom).await {
                Ok(target) => Answer::Opened(whom, target),
                Err(why) => Answer::NotOpened(whom, why),
            });
        }
        Effect::Act(target, act) => return act_on(client, target, act).await,
        Effect::Retry(mid) => retry(client, mid).await,
        Effect::Discard(mid) => discard(client, mid).await,
        Effect::Ask(ask) => ask_for(desk, ask).await,
        // Hints: without a connection, or of somebody who does not show it, there is nothing to be told.
        Effect::Typing(target, is_typing) => {
            let typing = if is_typing {
                Typing::Typing
            } else {
                Typing::Stopped
            };
            if let Ok(conversation) = conversation(client, &target) {
                let _ = conversation.typing(typing).await;
            }
            return None;
        }
        Effect::Watch(handle) => {
            let _ = client.watch_presence(&handle).await;
            return None;
        }
        Effect::Unwatch(handle) => {
            let _ = client.unwatch_presence(&handle).await;
            return None;
        }
        Effect::Connect => match client.reconnect().await {
            Ok(()) => return None,
            Err(error) => Err(error),
        },
        Effect::Bell | Effect::Redraw | Effect::Quit => return None,
    };
    Some(done.unwrap_or_else(|error| Answer::Failed(explain(&error))))
}

/// An error, and what can be done about it, harmless and on one line.
pub(crate) fn explain(error: &Error) -> String {
    let advice = match error.advice() {
        Advice::Retry(after) if after.is_zero() => "try it again".to_owned(),
        Advice::Retry(after) => format!("try it again in {:.1} s", after.as_secs_f64()),
        Advice::SignIn => "start again with the right password or token".to_owned(),
        Advice::Wait => "wait a moment, then look and try it again".to_owned(),
        Advice::CheckStorage => "look after the disk or the folder, then start again".to_owned(),
        Advice::Update => "install a newer mqchat".to_owned(),
        Advice::CloseOther => "close the other program, or take another --folder".to_owned(),
        _ => String::new(),
    };
    let text = Shown::line(&error.to_string());
    if advice.is_empty() {
        text.to_string()
    } else {
        format!("{text} ({advice})")
    }
}

/// The conversation that is meant.
pub(crate) fn conversation(client: &Client, target: &Target) -> Result<Conversation, Error> {
    match target {
        Target::Handle(handle) => client.direct(handle.as_str()),
        Target::Conversation(cid) => Ok(client.conversation(*cid)),
        Target::Me => Ok(client.note()),
        Target::User(_) => Err(Error::Invalid("say @handle".to_owned())),
    }
}

async fn list(Desk { client, people, .. }: &Desk) -> Result<Listing, Error> {
    let me = client.user().await?;
    let uid = me.as_ref().map(|(uid, _)| *uid);
    let now = clock::now_ms();
    let summaries = client.conversations().await?;
    for peer in summaries.iter().filter_map(|one| one.peer.as_ref()) {
        people.learn(&peer.uid.to_string(), &peer.handle);
    }
    let mut rows: Vec<_> = summaries.iter().map(|one| Row::of(one, uid, now)).collect();
    let pending = client.pending().await?;
    let refused = pending.iter().filter(|one| one.refusal.is_some()).count();
    for one in pending.iter().filter(|one| one.what != PendingKind::Mark) {
        if !rows.iter().any(|row| row.is(&one.target)) {
            rows.insert(0, Row::begun(&one.target));
        }
    }
    // Marks go by themselves, and interest nobody.
    let is_waiting = |one: &&Pending| one.refusal.is_none() && one.what != PendingKind::Mark;
    Ok(Listing {
        me,
        rows,
        waiting: pending.iter().filter(is_waiting).count(),
        refused,
    })
}

async fn uid(client: &Client) -> Result<Option<UserId>, Error> {
    Ok(client.user().await?.map(|(uid, _)| uid))
}

async fn page(desk: &Desk, target: &Target, at: At, limit: usize) -> Result<Page, Error> {
    let client = &desk.client;
    let conversation = conversation(client, target)?;
    let before = match at {
        At::Newest => None,
        At::Before(seq) => Some(seq),
        At::From(seq) => Some(Seq::new(seq.get().saturating_add(limit as u64))),
    };
    let cid = known_id(&conversation).await?;
    let History { entries, more, .. } = match cid {
        Some(_) => conversation.history(before, limit).await?,
        None => History::default(),
    };
    let reader = Reader::new(uid(client).await?, &desk.people);
    let mut items = reader.items(&entries);
    if reader.misses_somebody(&entries) && learn_members(desk, &conversation, cid).await {
        items = reader.items(&entries);
    }
    let span = entries.first().zip(entries.last());
    let pending = conversation.pending().await?;
    Ok(Page {
        cid,
        items,
        span: span.map(|(first, last)| (first.seq, last.seq)),
        more,
        waiting: pending.iter().filter_map(waiting).collect(),
        reached: match cid {
            Some(_) => conversation.reached().await?,
            None => client_sdk::Reached::default(),
        },
    })
}

/// Its id, if there is such a conversation. That of the note to oneself is known before there is one.
async fn known_id(conversation: &Conversation) -> Result<Option<ConversationId>, Error> {
    if *conversation.target() == Target::Me
        && conversation.summary().await?.is_none()
        && conversation.entry(Seq::new(1)).await?.is_none()
    {
        return Ok(None);
    }
    conversation.id().await
}

/// Asks who is in it, if that is quick. Changes of members tell ids only.
async fn learn_members(
    desk: &Desk,
    conversation: &Conversation,
    cid: Option<ConversationId>,
) -> bool {
    let is_online = desk.client.connection() == Connection::Online;
    if !is_online || !cid.is_some_and(|cid| desk.people.ask(cid)) {
        return false;
    }
    let members = tokio::time::timeout(MEMBERS_PATIENCE, conversation.members());
    let Ok(Ok(members)) = members.await else {
        return false;
    };
    for member in &members {
        desk.people.learn(&member.uid, &member.handle);
    }
    true
}

async fn find(
    Desk { client, people, .. }: &Desk,
    words: &str,
    within: Option<Target>,
    mut after: Option<SearchCursor>,
) -> Result<(Vec<Hit>, Option<SearchCursor>), Error> {
    let reader = Reader::new(uid(client).await?, people);
    let mut hits = Vec::new();
    for _ in 0..SEARCHES_MAX {
        let found = match &within {
            Some(target) => {
                let conversation = conversation(client, target)?;
                conversation.search(words, FOUND, after).await?
            }
            None => client.search(words, FOUND, after).await?,
        };
        for entry in &found.entries {
            let items = reader.items(std::slice::from_ref(entry));
            hits.extend(items.into_iter().map(|item| Hit {
                cid: entry.cid,
                item,
            }));
        }
        after = found.next;
        if after.is_none() || hits.len() >= FOUND {
            break;
        }
    }
    Ok((hits, after))
}

/// Which conversation is meant by `@bob`, `bob`, `me`, an id or `#title`.
///
/// # Errors
/// In words.
pub(crate) async fn resolve(client: &Client, whom: &str) -> Result<Target, String> {
    let whom = whom.trim();
    if let Some(title) = whom.strip_prefix('#') {
        return by_title(client, title).await;
    }
    let target = whom.parse().or_else(|_| format!("@{whom}").parse());
    let Ok(target) = target else {
        let shown = proto::quote::quoted(whom);
        return Err(format!(
            "{shown} is no @handle, me, conversation id or #title"
        ));
    };
    let found = match conversation(client, &target) {
        Ok(conversation) => known_id(&conversation).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(cid) => Ok(cid.map_or(target, Target::Conversation)),
        Err(error) => Err(explain(&error)),
    }
}

async fn by_title(client: &Client, title: &str) -> Result<Target, String> {
    let known = client.conversations().await;
    let known = known.map_err(|error| explain(&error))?;
    let called = |one: &&Summary| one.title.eq_ignore_ascii_case(title.trim());
    let mut found = known.iter().filter(called);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Target::Conversation(one.cid)),
        (None, _) => Err(format!(
            "no conversation is called {}",
            proto::quote::quoted(title)
        )),
        _ => Err("several conversations are called so: take the id".to_owned()),
    }
}

async fn act_on(client: &Client, target: Target, act: Act) -> Option<Answer> {
    let text = match &act {
        Act::Send(text, _) => Some(text.clone()),
        _ => None,
    };
    match queue(client, &target, act).await {
        Ok(Some(mid)) => Some(Answer::Queued(target, mid)),
        Ok(None) => None,
        Err(error) => {
            let why = explain(&error);
            Some(match text {
                Some(text) => Answer::NotQueued(target, text, why),
                None => Answer::Failed(why),
            })
        }
    }
}

/// Puts it into the outbox; its message id, if it has one.
pub(crate) async fn queue(
    client: &Client,
    target: &Target,
    act: Act,
) -> Result<Option<MessageId>, Error> {
    let conversation = conversation(client, target)?;
    let place = |which| place(client, &conversation, which);
    Ok(Some(match act {
        Act::Send(text, None) => conversation.send(text).await?,
        Act::Send(text, Some(quoted)) => {
            let quoted = place(quoted).await?;
            conversation
                .send(Draft::text(text).reply_to(quoted))
                .await?
        }
        Act::Edit(which, text) => {
            let seq = place(which).await?;
            conversation
                .edit(seq, edited(&conversation, seq, text).await?)
                .await?
        }
        Act::Delete(which) => conversation.delete(place(which).await?).await?,
        Act::Hide(which) => conversation.hide(place(which).await?).await?,
        Act::React(which, emoji) => {
            let seq = place(which).await?;
            match emoji.strip_prefix('-') {
                Some(emoji) => conversation.unreact(seq, emoji).await?,
                None => conversation.react(seq, &emoji).await?,
            }
        }
        Act::Pin(which, pinned) => conversation.pin(place(which).await?, pinned).await?,
        Act::Read(seq) => {
            let seq = match seq {
                Some(seq) => Some(seq),
                None => conversation.summary().await?.map(|summary| summary.head),
            };
            if let Some(seq) = seq.filter(|seq| *seq > Seq::ZERO) {
                conversation.read(seq).await?;
            }
            return Ok(None);
        }
        Act::Unread(unread) => {
            conversation.mark_unread(unread).await?;
            return Ok(None);
        }
    }))
}

/// The place of the message that is meant, as far as the local log knows: nothing that was written waits for the network here.
async fn place(client: &Client, conversation: &Conversation, which: Which) -> Result<Seq, Error> {
    let wanted = match which {
        Which::At(seq) => return Ok(seq),
        Which::Newest => None,
        Which::NewestOwn => Some(true),
        Which::NewestOther => Some(false),
    };
    // What is not sent yet has no place, and is newer than all that have one.
    let pending = conversation.pending().await?;
    let is_message = |one: &Pending| matches!(one.what, PendingKind::Message(_));
    if wanted != Some(false) && pending.iter().any(is_message) {
        let why = "the newest one is not sent yet; name another one as #12";
        return Err(Error::Invalid(why.to_owned()));
    }
    let me = uid(client).await?;
    let newest = conversation.history(None, 1).await?.entries.pop();
    let mut next = newest.map(|entry| entry.seq.get()).unwrap_or_default();
    for _ in 0..LOOKED_THROUGH {
        let Some(entry) = conversation.entry(Seq::new(next)).await? else {
            break;
        };
        let mine = entry.from.as_ref().map(|from| from.uid) == me;
        if entry.message().is_some() && wanted.is_none_or(|wanted| wanted == mine) {
            return Ok(entry.seq);
        }
        next = next.saturating_sub(1);
    }
    let why = "there is no such message here; name it as #12";
    Err(Error::Invalid(why.to_owned()))
}

/// Another text for a message; what it has beside its text stays.
async fn edited(conversation: &Conversation, seq: Seq, text: String) -> Result<Draft, Error> {
    let entry = conversation.entry(seq).await?;
    let Some(message) = entry.as_ref().and_then(Entry::message) else {
        return Ok(Draft::text(text));
    };
    let before = message.body.clone();
    Ok(Draft::body(ClientMessage {
        t: text,
        mid: None,
        reply_to: None,
        thread: None,
        ttl_s: None,
        at: None,
        ..before
    }))
}

async fn retry(client: &Client, mid: Option<MessageId>) -> Result<Answer, Error> {
    let mut count = 0;
    for mid in refused(client, mid).await? {
        count += usize::from(client.retry(&mid).await?);
    }
    Ok(Answer::Done(format!("{count} tried again")))
}

async fn discard(client: &Client, mid: Option<MessageId>) -> Result<Answer, Error> {
    let mut count = 0;
    for mid in refused(client, mid).await? {
        count += usize::from(client.discard(&mid).await?);
    }
    Ok(Answer::Done(format!("{count} dropped")))
}

async fn refused(client: &Client, mid: Option<MessageId>) -> Result<Vec<MessageId>, Error> {
    if let Some(mid) = mid {
        return Ok(vec![mid]);
    }
    let pending = client.pending().await?;
    let refused = pending.into_iter().filter(|one| one.refusal.is_some());
    Ok(refused.filter_map(|one| one.mid).collect())
}

async fn ask_for(
    Desk {
        client,
        zone,
        people,
    }: &Desk,
    ask: Ask,
) -> Result<Answer, Error> {
    match ask {
        Ask::Group(title, members) => {
            let members: Vec<_> = members.iter().map(|one| named(one)).collect();
            let members: Vec<_> = members.iter().map(String::as_str).collect();
            let made = client.create_group(&title, &members).await?;
            Ok(Answer::Made(made.target().clone()))
        }
        Ask::Add(target, members) => {
            let members: Vec<_> = members.iter().map(|one| named(one)).collect();
            let members: Vec<_> = members.iter().map(String::as_str).collect();
            conversation(client, &target)?.add(&members).await?;
            Ok(Answer::Done("added".to_owned()))
        }
        Ask::Remove(target, member) => {
            conversation(client, &target)?
                .remove(&named(&member))
                .await?;
            Ok(Answer::Done("removed".to_owned()))
        }
        Ask::Leave(target, owner) => {
            let owner = owner.as_deref().map(named);
            conversation(client, &target)?
                .leave(owner.as_deref())
                .await?;
            Ok(Answer::Done("left".to_owned()))
        }
        Ask::Members(target) => {
            let members = conversation(client, &target)?.members().await?;
            for member in &members {
                people.learn(&member.uid, &member.handle);
            }
            let lines = members.iter().map(member).collect();
            Ok(Answer::Told(
                Shown::line(&format!("{} members", members.len())),
                lines,
            ))
        }
        Ask::Status(target, which) => {
            let conversation = conversation(client, &target)?;
            let seq = place(client, &conversation, which).await?;
            let status = conversation.status_by_member(seq).await?;
            Ok(told_status(&status, zone))
        }
        Ask::Mute(target, muted) => {
            let until = if muted { FOR_EVER_MS } else { 0 };
            let prefs = ConvPrefs {
                muted_until: Some(until),
                ..ConvPrefs::default()
            };
            prefer(client, &target, prefs).await
        }
        Ask::Archive(target, archived) => {
            let prefs = ConvPrefs {
                archived: Some(archived),
                ..ConvPrefs::default()
            };
            prefer(client, &target, prefs).await
        }
        Ask::Top(target, pinned) => {
            let prefs = ConvPrefs {
                pinned: Some(pinned),
                ..ConvPrefs::default()
            };
            prefer(client, &target, prefs).await
        }
        Ask::Presence(state, text) => {
            client.set_presence(&state, &text).await?;
            Ok(Answer::Done(format!(
                "you are {}",
                proto::quote::shown(&state)
            )))
        }
    }
}

async fn prefer(client: &Client, target: &Target, prefs: ConvPrefs) -> Result<Answer, Error> {
    let cid = target.to_string();
    let prefs = Params::ConvPrefs(ConvPrefs { cid, ..prefs });
    match client.call("conv.prefs", prefs).await? {
        Reply::Conversation(_) => Ok(Answer::Done("done".to_owned())),
        _ => Err(Error::Protocol("an odd reply to conv.prefs".to_owned())),
    }
}

/// `bob` is `@bob`; ids stay.
fn named(who: &str) -> String {
    match who.parse::<Target>() {
        Ok(_) => who.to_owned(),
        Err(_) => format!("@{who}"),
    }
}

fn member(member: &Member) -> Shown {
    let name = if member.name.is_empty() {
        String::new()
    } else {
        format!(" ({})", member.name)
    };
    Shown::line(&format!("@{}{name}, {}", member.handle, member.role))
}

fn told_status(status: &MessageStatus, zone: &Zone) -> Answer {
    let title = format!(
        "#{}: delivered to {} and read by {} of {}",
        status.seq, status.delivered, status.read, status.of
    );
    let line = |one: &MemberStatus| {
        let at = |ts: Option<u64>| ts.map_or(String::new(), |ts| format!(" {}", zone.minute(ts)));
        let state = match (one.read, one.delivered) {
            (true, _) => format!("read{}", at(one.read_ts)),
            (false, true) => format!("delivered{}", at(one.delivered_ts)),
            (false, false) => "sent".to_owned(),
        };
        Shown::line(&format!("@{}: {state}", one.handle))
    };
    Answer::Told(
        Shown::line(&title),
        status.members.iter().map(line).collect(),
    )
}
