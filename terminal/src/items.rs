//! What is shown: conversations and lines of their logs, harmless and in words.
//!
//! Nothing of the network gets further than this without having become [`Shown`], but for the text of a message, which is
//! kept beside it for those who edit, and for the line mode, that escapes it in its own way.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use client_sdk::schema::{Change, ClientMessage};
use client_sdk::{
    Content, ConversationId, Entry, Message, MessageId, Pending, PendingKind, Seq, Summary, Target,
    UserId,
};

use crate::text::Shown;

/// How the conversation with oneself is called.
pub(crate) const NOTE: &str = "note to self";
const SOMEBODY: &str = "somebody";
/// People whose handles are remembered.
const PEOPLE_MAX: usize = 10_000;

/// A conversation of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or not by itself"
)]
pub(crate) struct Row {
    pub(crate) target: Target,
    /// Its title after `#`, or the handle of the other one after `@`.
    pub(crate) title: Shown,
    /// The handle of the other one, of a direct conversation.
    pub(crate) peer: Option<String>,
    /// It is the note to oneself.
    pub(crate) is_note: bool,
    pub(crate) unread: u64,
    pub(crate) mentions: u64,
    /// Marked as unread by hand.
    pub(crate) flagged: bool,
    pub(crate) muted: bool,
    pub(crate) archived: bool,
    pub(crate) pinned: bool,
    pub(crate) read: Seq,
}

impl Row {
    /// Reads what the SDK knows of it.
    pub(crate) fn of(summary: &Summary, me: Option<UserId>, now_ms: u64) -> Self {
        let details = &summary.details;
        let peer = summary.peer.as_ref();
        let is_note = peer.is_some_and(|peer| Some(peer.uid) == me);
        let title = match peer {
            _ if is_note => Shown::line(NOTE),
            Some(peer) => Shown::line(&format!("@{}", peer.handle)),
            None if summary.title.is_empty() => Shown::line(&format!("#{}", summary.cid)),
            // So no title can be taken for a person.
            None => Shown::line(&format!("#{}", summary.title)),
        };
        Self {
            target: Target::Conversation(summary.cid),
            title,
            peer: peer.map(|peer| peer.handle.clone()),
            is_note,
            unread: summary.unread,
            mentions: summary.mentions.min(summary.unread),
            flagged: summary.unread_flag,
            muted: details.muted_until > now_ms,
            archived: details.archived,
            pinned: details.pinned,
            read: summary.read,
        }
    }

    /// One of which nobody but this device knows yet: something waits for it.
    pub(crate) fn begun(target: &Target) -> Self {
        let title = match target {
            Target::Me => Shown::line(NOTE),
            target => Shown::line(&target.to_string()),
        };
        Self {
            target: target.clone(),
            title,
            peer: match target {
                Target::Handle(handle) => Some(handle.to_string()),
                _ => None,
            },
            is_note: *target == Target::Me,
            unread: 0,
            mentions: 0,
            flagged: false,
            muted: false,
            archived: false,
            pinned: false,
            read: Seq::ZERO,
        }
    }

    /// Its id, if it has one.
    pub(crate) fn cid(&self) -> Option<ConversationId> {
        match self.target {
            Target::Conversation(cid) => Some(cid),
            _ => None,
        }
    }

    /// Is it the conversation that is meant by this?
    pub(crate) fn is(&self, target: &Target) -> bool {
        match target {
            Target::Conversation(_) => self.target == *target,
            Target::Handle(handle) => self.peer.as_deref() == Some(handle.as_str()),
            Target::Me => self.is_note,
            Target::User(_) => false,
        }
    }

    /// There is something that was not read.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread > 0 || self.flagged
    }
}

/// Which line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One that the server has stored.
    At(Seq),
    /// One that waits for the server.
    Waiting(MessageId),
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) key: Key,
    /// In ms since 1970.
    pub(crate) ts: u64,
    /// The handle of who wrote it.
    pub(crate) author: Shown,
    pub(crate) mine: bool,
    pub(crate) body: Body,
}

/// What it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// A message.
    Words(Box<Words>),
    /// What happened, in words.
    Note(Shown),
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or not by itself"
)]
pub(crate) struct Words {
    /// As it is drawn.
    pub(crate) text: Shown,
    /// As it was written.
    pub(crate) raw: String,
    /// What it is beside its text: attachments, answers of a poll.
    pub(crate) beside: Vec<Shown>,
    pub(crate) reply_to: Option<Seq>,
    pub(crate) thread: Option<Seq>,
    pub(crate) edited: bool,
    pub(crate) pinned: bool,
    /// When it will be gone, in ms since 1970.
    pub(crate) expires: Option<u64>,
    /// Which, of how many, and of this user as well.
    pub(crate) reactions: Vec<(Shown, u32, bool)>,
    /// It mentions this user.
    pub(crate) mentions_me: bool,
    /// Of one that waits: it was refused, and why.
    pub(crate) refused: Option<Shown>,
    /// Of one that waits: it is another text for a message.
    pub(crate) is_edit: bool,
}

impl Item {
    /// The place, of what the server has stored.
    pub(crate) fn seq(&self) -> Option<Seq> {
        match self.key {
            Key::At(seq) => Some(seq),
            Key::Waiting(_) => None,
        }
    }

    pub(crate) fn words(&self) -> Option<&Words> {
        match &self.body {
            Body::Words(words) => Some(words),
            Body::Note(_) => None,
        }
    }
}

/// Who people are, as far as they were seen: handles by uid.
#[derive(Debug, Default)]
pub(crate) struct People {
    handles: Mutex<HashMap<String, String>>,
    /// Whose members were asked for.
    asked: Mutex<HashSet<ConversationId>>,
}

impl People {
    /// Remembers somebody.
    pub(crate) fn learn(&self, uid: &str, handle: &str) {
        let mut known = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PEOPLE_MAX {
            known.clear();
        }
        if !handle.is_empty() {
            known.insert(uid.to_owned(), handle.to_owned());
        }
    }

    /// Are the members of this conversation to be asked for? Once: who has left is not among them.
    pub(crate) fn ask(&self, cid: ConversationId) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= PEOPLE_MAX {
            asked.clear();
        }
        asked.insert(cid)
    }

    fn handle(&self, uid: &str) -> Option<String> {
        let known = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(uid).cloned()
    }
}

/// Turns entries into lines.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    me: Option<UserId>,
    people: &'a People,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(me: Option<UserId>, people: &'a People) -> Self {
        Self { me, people }
    }

    /// The lines of a page. What changed a message is seen there, and is no line.
    pub(crate) fn items(&self, entries: &[Entry]) -> Vec<Item> {
        for from in entries.iter().filter_map(|entry| entry.from.as_ref()) {
            self.people.learn(&from.uid.to_string(), &from.handle);
        }
        entries
            .iter()
            .filter_map(|entry| self.item(entry))
            .collect()
    }

    /// Is somebody in it of whom nothing is known?
    pub(crate) fn misses_somebody(&self, entries: &[Entry]) -> bool {
        let is_unknown = |uid: &str| !uid.is_empty() && self.people.handle(uid).is_none();
        entries.iter().any(|entry| match &entry.content {
            Content::Change { change, .. } => {
                let members = change.members.iter().map(|member| member.uid.as_str());
                members.chain([change.uid.as_str()]).any(is_unknown)
            }
            _ => false,
        })
    }

    fn item(&self, entry: &Entry) -> Option<Item> {
        let author = entry.author();
        let mine = entry
            .from
            .as_ref()
            .is_some_and(|from| Some(from.uid) == self.me);
        let who = match author {
            _ if mine => "you",
            "" => SOMEBODY,
            author => author,
        };
        let body = match &entry.content {
            Content::Message(message) => Body::Words(Box::new(self.words(message))),
            Content::Edit { .. } | Content::Deleted { .. } | Content::Reaction { .. } => {
                return None;
            }
            Content::Pin { target, pinned } => {
                let done = if *pinned { "pinned" } else { "unpinned" };
                note(&format!("{who} {done} #{target}"))
            }
            Content::Change { kind, change } => note(&self.changed(who, kind, change)),
            Content::Gone { reason } => note(&format!("a message is gone: {reason}")),
            Content::Gap { from, reason } => {
                note(&format!("#{from} to #{} are gone: {reason}", entry.seq))
            }
            Content::Other { kind } => note(&format!(
                "something that this version does not know: {kind}"
            )),
            _ => note("something that this version does not know"),
        };
        Some(Item {
            key: Key::At(entry.seq),
            ts: entry.ts,
            author: Shown::line(author),
            mine,
            body,
        })
    }

    fn words(&self, message: &Message) -> Words {
        let me = self.me.map(|me| me.to_string());
        let is_me = |who: &String| who == "@all" || Some(who) == me.as_ref();
        Words {
            text: Shown::block(&message.body.t),
            raw: message.body.t.clone(),
            beside: beside(&message.body),
            reply_to: message.reply_to,
            thread: message.thread,
            edited: message.edited.is_some(),
            pinned: message.pinned,
            expires: message.expires,
            reactions: message
                .reactions
                .iter()
                .map(|one| (Shown::line(&one.emoji), one.count, one.mine))
                .collect(),
            mentions_me: message.mentions.iter().any(is_me),
            refused: None,
            is_edit: false,
        }
    }

    /// How somebody is called in a sentence.
    fn called(&self, uid: &str) -> String {
        let is_me = self.me.is_some_and(|me| me.to_string() == uid);
        if is_me {
            return "you".to_owned();
        }
        self.people
            .handle(uid)
            .unwrap_or_else(|| SOMEBODY.to_owned())
    }

    fn changed(&self, who: &str, kind: &str, change: &Change) -> String {
        let whom = match change.uid.as_str() {
            "" => who.to_owned(),
            uid => self.called(uid),
        };
        let members = change.members.iter().map(|member| self.called(&member.uid));
        let members: Vec<_> = members.filter(|member| member != who).collect();
        let members = members.join(", ");
        let is = if whom == "you" { "are" } else { "is" };
        match kind {
            "created" if members.is_empty() => format!("{who} began this conversation"),
            "created" => format!("{who} began this conversation with {members}"),
            "added" => format!("{who} added {members}"),
            "joined" => format!("{whom} joined"),
            "removed" => format!("{who} removed {whom}"),
            "banned" => format!("{who} banned {whom}"),
            "unbanned" => format!("{who} unbanned {whom}"),
            "left" => format!("{whom} left"),
            "role" => format!("{whom} {is} {} now", change.role),
            "settings" => format!("{who} changed the settings{}", settings(change)),
            "purged" => format!("{who} removed messages"),
            "case" => format!("the case is {}", change.state),
            _ => format!("{who}: {kind}"),
        }
    }
}

/// What was changed that people want to see.
fn settings(change: &Change) -> String {
    let title = change.title.as_ref();
    let title = title.map_or(String::new(), |title| format!(": it is called {title}"));
    let closed = match change.closed {
        Some(true) => ": it is closed",
        Some(false) => ": it is open",
        None => "",
    };
    title + closed
}

fn note(text: &str) -> Body {
    Body::Note(Shown::line(text))
}

fn beside(body: &ClientMessage) -> Vec<Shown> {
    let mut lines = Vec::new();
    for media in &body.media {
        let name = if media.name.is_empty() {
            &media.id
        } else {
            &media.name
        };
        lines.push(Shown::line(&format!(
            "[{} {name}, {} bytes]",
            media.mime, media.size
        )));
    }
    if let Some(place) = &body.location {
        lines.push(Shown::line(&format!(
            "[place {:.5}, {:.5} {}]",
            place.lat, place.lon, place.name
        )));
    }
    if let Some(contact) = &body.contact {
        lines.push(Shown::line(&format!("[contact {}]", contact.name)));
    }
    if let Some(poll) = &body.poll {
        for (index, option) in poll.options.iter().enumerate() {
            lines.push(Shown::line(&format!("#{} {option}", index + 1)));
        }
    }
    lines
}

/// What waits for the server, as a line; nothing of read marks.
pub(crate) fn waiting(pending: &Pending) -> Option<Item> {
    let (text, is_edit) = match &pending.what {
        PendingKind::Message(text) => (text.clone(), false),
        PendingKind::Edit(text) => (text.clone(), true),
        // What waits to be done to a message is worth a line only if it was refused.
        PendingKind::Action if pending.refusal.is_some() => ("(an action)".to_owned(), false),
        _ => return None,
    };
    let refused = pending.refusal.as_ref();
    Some(Item {
        key: Key::Waiting(pending.mid.clone()?),
        ts: pending.created,
        author: Shown::default(),
        mine: true,
        body: Body::Words(Box::new(Words {
            text: Shown::block(&text),
            raw: text,
            refused: refused.map(|refusal| Shown::line(&refusal.to_string())),
            is_edit,
            ..Words::default()
        })),
    })
}

#[cfg(test)]
mod tests {
    use client_sdk::schema::{Media, Member, Poll};

    use super::*;

    #[test]
    fn what_a_message_has_beside_its_text_is_told() {
        let body = ClientMessage {
            media: vec![Media {
                id: "x".into(),
                mime: "image/png".into(),
                name: "a\u{1b}[2J.png".into(),
                size: 3,
                ..Media::default()
            }],
            poll: Some(Poll {
                options: vec!["yes".into(), "no".into()],
                ..Poll::default()
            }),
            ..ClientMessage::default()
        };
        let lines: Vec<_> = beside(&body).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [r"[image/png a\u{1b}[2J.png, 3 bytes]", "#1 yes", "#2 no"]
        );
    }

    #[test]
    fn changes_are_told_in_words() {
        let people = People::default();
        people.learn("u1", "bob");
        let me: UserId = "01jz0000000000000000000000".parse().unwrap();
        let reader = Reader::new(Some(me), &people);
        let change = |uid: &str| Change {
            uid: uid.into(),
            role: "admin".into(),
            title: Some("Lunch".into()),
            members: ["u1", "u2", "01jz0000000000000000000000"]
                .map(|uid| Member {
                    uid: uid.into(),
                    ..Member::default()
                })
                .into(),
            ..Change::default()
        };
        for (kind, uid, told) in [
            (
                "created",
                "",
                "alice began this conversation with bob, somebody, you",
            ),
            ("role", "01jz0000000000000000000000", "you are admin now"),
            ("removed", "u1", "alice removed bob"),
            ("left", "", "alice left"),
            ("role", "u1", "bob is admin now"),
            (
                "settings",
                "",
                "alice changed the settings: it is called Lunch",
            ),
            ("novelty", "", "alice: novelty"),
        ] {
            assert_eq!(reader.changed("alice", kind, &change(uid)), told);
        }
    }
}
