//! Entries of the log as an app sees them.

use std::time::Duration;

use proto::ids::{ConversationId, MessageId, Seq, UserId};
use proto::schema::{self, Change, ClientMessage, LogEntry};
use uuid::Uuid;

use crate::error::{Error, Refusal};

/// Somebody, as others see them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Person {
    /// The id, which stays.
    pub uid: UserId,
    /// The name by which people address the user.
    pub handle: String,
    /// The name that people are shown; may be empty.
    pub name: String,
}

impl Person {
    pub(crate) fn of(user: &schema::User) -> Option<Self> {
        Some(Self {
            uid: user.uid.parse().ok()?,
            handle: user.handle.clone(),
            name: user.name.clone(),
        })
    }
}

/// One line of a conversation's log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// In which conversation.
    pub cid: ConversationId,
    /// Its place: 1, 2, 3 … the same for everybody. Of a gap the last place.
    pub seq: Seq,
    /// When the server stored it, in ms since 1970.
    pub ts: u64,
    /// Who wrote it or did it. Not known of a gap, and perhaps not of what is gone.
    pub from: Option<Person>,
    /// The message id that its sender chose.
    pub mid: Option<MessageId>,
    /// What it is.
    pub content: Content,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A message, as its latest edit says it.
    Message(Box<Message>),
    /// A message was given another body; the message has it already.
    Edit {
        /// Which.
        target: Seq,
        /// The new body.
        body: Box<ClientMessage>,
    },
    /// A message was deleted for everybody; its body is gone already.
    Deleted {
        /// Which.
        target: Seq,
    },
    /// Somebody reacted.
    Reaction {
        /// To which message.
        target: Seq,
        /// With what; empty if all of this user were removed.
        emoji: String,
        /// `add`, `remove`, `clear` or `choose` (a vote).
        op: String,
    },
    /// A message was pinned or unpinned.
    Pin {
        /// Which.
        target: Seq,
        /// It is pinned now.
        pinned: bool,
    },
    /// Members or settings changed; `kind` is `created`, `added`, `removed`, `settings` … as in `docs/protocol.md`.
    Change {
        /// Which kind of change.
        kind: String,
        /// What changed.
        change: Box<Change>,
    },
    /// There is nothing to be seen any more.
    Gone {
        /// `deleted`, `expired`, `hidden`, `blocked`, `unseen`, `purged`.
        reason: String,
    },
    /// A run of entries that are gone, up to the place of this entry.
    Gap {
        /// The first of them.
        from: Seq,
        /// Why.
        reason: String,
    },
    /// Something that this version does not know.
    Other {
        /// How it is called.
        kind: String,
    },
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// What was written, whatever the form: text, media, poll …
    pub body: ClientMessage,
    /// The message that it quotes.
    pub reply_to: Option<Seq>,
    /// The message that began the thread in which it is.
    pub thread: Option<Seq>,
    /// When it was edited last, in ms since 1970.
    pub edited: Option<u64>,
    /// How people reacted.
    pub reactions: Vec<schema::Reaction>,
    /// It is pinned.
    pub pinned: bool,
    /// When it will be gone, in ms since 1970.
    pub expires: Option<u64>,
    /// Whom it mentions: uids, or `@all`.
    pub mentions: Vec<String>,
}

impl Entry {
    /// The text of a message.
    pub fn text(&self) -> Option<&str> {
        self.message().map(|message| message.body.t.as_str())
    }

    /// The message, if it is one.
    pub fn message(&self) -> Option<&Message> {
        match &self.content {
            Content::Message(message) => Some(message),
            _ => None,
        }
    }

    /// The handle of who wrote it, or nothing.
    pub fn author(&self) -> &str {
        self.from.as_ref().map_or("", |from| &from.handle)
    }

    /// Reads an entry of the wire, at this time in ms since 1970.
    pub(crate) fn read(entry: LogEntry, now_ms: u64) -> Result<Self, Error> {
        let bad = || Error::Protocol(format!("an entry of {:?}", entry.cid));
        let cid = entry.cid.parse().map_err(|_| bad())?;
        let seq = entry.gap.as_ref().map_or(entry.seq, |gap| gap.to);
        Ok(Self {
            cid,
            seq: Seq::new(seq),
            ts: entry.ts,
            from: entry.from.as_ref().and_then(Person::of),
            mid: entry.mid.parse().ok(),
            // It is taken off the disk a moment later.
            content: match entry.expires {
                Some(expires) if expires <= now_ms => Content::Gone {
                    reason: "expired".to_owned(),
                },
                _ => Content::read(entry),
            },
        })
    }
}

impl Content {
    fn read(entry: LogEntry) -> Self {
        let data = entry.data.clone().unwrap_or_default();
        let target = Seq::new(entry.target.or(data.target).unwrap_or(0));
        match entry.kind.as_str() {
            "message" => Self::Message(Box::new(Message::read(entry))),
            "edit" => Self::Edit {
                target,
                body: Box::new(body(entry)),
            },
            "deleted" => Self::Deleted { target },
            "reaction" => Self::Reaction {
                target,
                emoji: data.emoji,
                op: data.op,
            },
            "pin" => Self::Pin {
                target,
                pinned: data.pinned.unwrap_or(false),
            },
            "gone" => Self::Gone {
                reason: entry.reason,
            },
            "gap" => {
                let gap = entry.gap.unwrap_or_default();
                Self::Gap {
                    from: Seq::new(gap.from),
                    reason: gap.reason,
                }
            }
            _ if entry.data.is_some() => Self::Change {
                kind: entry.kind,
                change: Box::new(data),
            },
            _ => Self::Other { kind: entry.kind },
        }
    }
}

impl Message {
    fn read(entry: LogEntry) -> Self {
        Self {
            reply_to: entry.reply_to.map(Seq::new),
            thread: entry.thread.map(Seq::new),
            edited: entry.edited.as_ref().map(|edited| edited.ts),
            reactions: entry.reactions.clone(),
            pinned: entry.pinned,
            expires: entry.expires,
            mentions: entry.mentions.clone(),
            body: body(entry),
        }
    }
}

fn body(entry: LogEntry) -> ClientMessage {
    entry.m.unwrap_or_else(|| ClientMessage {
        t: entry.t,
        ..ClientMessage::default()
    })
}

/// How far a message has got.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Status {
    /// In the outbox.
    Pending,
    /// The server has stored it.
    Sent,
    /// All others have got it.
    Delivered,
    /// All others have read it.
    Read,
}

/// What has become of a message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Its place, once the server has stored it.
    pub seq: Option<Seq>,
    /// How far it has got.
    pub status: Status,
    /// Why the server refused it. Then it waits for [`Client::retry`](crate::Client::retry) or
    /// [`Client::discard`](crate::Client::discard).
    pub refusal: Option<Refusal>,
}

/// How far the own messages of a conversation have got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// All others have got everything up to here.
    pub delivered: Seq,
    /// All others have read everything up to here.
    pub read: Seq,
}

impl Reached {
    /// How far a message has got that the server has stored at this place.
    pub fn status(self, seq: Seq) -> Status {
        if seq <= self.read {
            Status::Read
        } else if seq <= self.delivered {
            Status::Delivered
        } else {
            Status::Sent
        }
    }
}

/// A message to be sent, with what goes beside its text.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "it goes into Conversation::send"]
pub struct Draft {
    pub(crate) body: ClientMessage,
    pub(crate) mid: Option<MessageId>,
    /// What shall be the message id and cannot be.
    pub(crate) bad_mid: Option<String>,
}

impl Draft {
    /// A message that is this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::body(ClientMessage {
            t: text.into(),
            ..ClientMessage::default()
        })
    }

    /// A message with this body: media, location, poll … Its `mid` is taken as the message id; if it is none, the message is
    /// not sent ([`Error::Invalid`]).
    pub fn body(mut body: ClientMessage) -> Self {
        let (mid, bad_mid) = match body.mid.take() {
            Some(mid) => match mid.parse() {
                Ok(mid) => (Some(mid), None),
                Err(_) => (None, Some(mid)),
            },
            None => (None, None),
        };
        Self { body, mid, bad_mid }
    }

    /// The body, and the message id.
    ///
    /// # Errors
    /// [`Error::Invalid`] if what shall be the message id is none.
    pub(crate) fn checked(self) -> Result<(ClientMessage, MessageId), Error> {
        if let Some(bad) = self.bad_mid {
            return Err(Error::Invalid(format!("not a message id: {bad}")));
        }
        Ok((self.body, self.mid.unwrap_or_else(new_mid)))
    }

    /// Quotes a message.
    pub fn reply_to(mut self, seq: Seq) -> Self {
        self.body.reply_to = Some(seq.get());
        self
    }

    /// In the thread that this message began.
    pub fn thread(mut self, root: Seq) -> Self {
        self.body.thread = Some(root.get());
        self
    }

    /// Gone after this time, to the second.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.body.ttl_s = Some(time.as_secs().max(1));
        self
    }

    /// To be sent by the server at this time, in ms since 1970.
    pub fn at(mut self, ts: u64) -> Self {
        self.body.at = Some(ts);
        self
    }

    /// Mentions a user, as `@bob`, or everybody by `@all`, beside what the text says.
    pub fn mention(mut self, who: impl Into<String>) -> Self {
        self.body.mentions.push(who.into());
        self
    }

    /// Attaches something that was uploaded.
    pub fn media(mut self, media: schema::Media) -> Self {
        self.body.media.push(media);
        self
    }

    /// With this message id. Without it, one by chance.
    pub fn mid(mut self, mid: MessageId) -> Self {
        self.mid = Some(mid);
        self.bad_mid = None;
        self
    }
}

impl From<&str> for Draft {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Draft {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// A message id by chance, in the order of time.
pub(crate) fn new_mid() -> MessageId {
    let text = Uuid::now_v7().to_string();
    text.parse().expect("a UUID is a message id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_message_id_is_not_replaced_by_another_one() {
        let body = |mid: &str| ClientMessage {
            mid: Some(mid.into()),
            ..ClientMessage::default()
        };
        let (_, mid) = Draft::body(body("order-42")).checked().unwrap();
        assert_eq!(mid.to_string(), "order-42");
        assert!(matches!(
            Draft::body(body("order#42")).checked(),
            Err(Error::Invalid(_))
        ));
    }

    #[test]
    fn an_entry_is_what_the_wire_says() {
        let cid = "g.01jz0000000000000000000000";
        let entry = |kind: &str| LogEntry {
            cid: cid.into(),
            seq: 7,
            kind: kind.into(),
            ..LogEntry::default()
        };
        let message = LogEntry {
            t: "hello".into(),
            format: "text".into(),
            ..entry("message")
        };
        assert_eq!(Entry::read(message, 0).unwrap().text(), Some("hello"));
        let gap = LogEntry {
            seq: 0,
            gap: Some(schema::Gap {
                from: 3,
                to: 5,
                reason: "deleted".into(),
            }),
            ..entry("gap")
        };
        assert_eq!(Entry::read(gap, 0).unwrap().seq, Seq::new(5));
        let odd = Entry::read(entry("novelty"), 0).unwrap();
        assert_eq!(
            odd.content,
            Content::Other {
                kind: "novelty".into()
            }
        );
        assert!(Entry::read(LogEntry::default(), 0).is_err());
    }
}
