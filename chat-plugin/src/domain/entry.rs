//! Entries: the lines of a conversation's log.

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, DeviceId, MessageId, Seq, UserId};

use super::audit::AuditLine;
use super::overlay::{Act, ActRefused, GoneReason, Overlay};
use super::rights::Rights;
use super::scheduled::Scheduled;

pub use proto::payload::Mentioned;

/// One line of a conversation's log, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it belongs.
    pub conversation: ConversationId,
    /// Its place: dense from 1.
    pub seq: Seq,
    /// How many countable entries the log has up to and including this one.
    pub mseq: u64,
    /// The server's clock in ms since 1970; never going back inside a conversation.
    pub ts_ms: u64,
    /// Who wrote it, or whose action it tells of.
    pub from: UserId,
    /// The device or guest connection that it came from; for No Local.
    pub device: DeviceId,
    /// The sender's idempotency key.
    pub mid: MessageId,
    /// What it is.
    pub kind: EntryKind,
    /// How to read `body`.
    pub format: BodyFormat,
    /// The body is not for the server to read (end-to-end encryption).
    pub opaque: bool,
    /// The sender's bytes, verbatim; for changes made by the server: JSON.
    pub body: Bytes,
    /// Of an action: the message that it acts on; of a message: the one that it quotes.
    pub target: Option<Seq>,
    /// The message that began the thread in which this one was written.
    pub thread: Option<Seq>,
    /// From then on there is nothing to see any more, in ms since 1970.
    pub expires_ms: Option<u64>,
    /// Which members it mentions. With an edit, those of the latest one.
    pub mentions: Mentioned,
    /// There is nothing to see any more, and why: the body is empty.
    pub gone: Option<GoneReason>,
    /// Where its body is at rest, if not with it: in the log of the broadcast list to which it was sent.
    pub source: Option<(ConversationId, Seq)>,
    /// What happened to it since. With an edit, `format` and `body` are those of the latest one.
    pub overlay: Option<Box<Overlay>>,
}

impl Entry {
    /// Is it to be brought to those to whom a broadcast list goes?
    pub fn is_broadcast(&self) -> bool {
        self.conversation.kind() == ConversationKind::Broadcast
            && matches!(self.kind, EntryKind::Message | EntryKind::Deleted)
    }
}

/// What an entry is. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum EntryKind {
    /// A message of a member. The only countable kind.
    Message = 1,
    /// The conversation was made: body `{"title":…,"members":[{"uid":…,"role":…}]}`.
    Created = 2,
    /// Members came: body `{"members":[{"uid":…,"role":…}]}`.
    Added = 3,
    /// A member was removed by somebody else: body `{"uid":…}`.
    Removed = 4,
    /// A member left: body `{"uid":…}`, with `"owner":…` when ownership went over.
    Left = 5,
    /// A role, or rights, changed: body `{"uid":…}` with what is new of `role`, `given` and `want`, and with `former` who
    /// handed over the ownership.
    Role = 6,
    /// Settings of the conversation changed: body holds the new values only.
    Settings = 7,
    /// The target has this body now.
    Edit = 8,
    /// The target was deleted for everybody: body `{"target":…}`.
    Deleted = 9,
    /// A member's reactions to the target changed: body `{"target":…,"emoji":…,"op":"add"}`.
    Reaction = 10,
    /// The target was pinned, or is no longer: body `{"target":…,"pinned":true}`.
    Pin = 11,
    /// Somebody joined by himself, or was let in: body `{"uid":…,"role":…,"via":"link"}`.
    Joined = 12,
    /// Somebody was banned: body `{"uid":…}`; the last entry that he gets if he was a member.
    Banned = 13,
    /// A ban was lifted: body `{"uid":…}`.
    Unbanned = 14,
    /// A support case stands elsewhere: body `{"state":…}`, with `"agent":…` who has it and `"former":…` who had it.
    Case = 15,
    /// Messages of a range are gone: body `{"from":…,"to":…,"uid":…}`, `uid` if only those of one user. What it announces is done behind it.
    Purged = 16,
}

impl EntryKind {
    /// The byte at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The kind of a byte at rest.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Message,
            2 => Self::Created,
            3 => Self::Added,
            4 => Self::Removed,
            5 => Self::Left,
            6 => Self::Role,
            7 => Self::Settings,
            8 => Self::Edit,
            9 => Self::Deleted,
            10 => Self::Reaction,
            11 => Self::Pin,
            12 => Self::Joined,
            13 => Self::Banned,
            14 => Self::Unbanned,
            15 => Self::Case,
            16 => Self::Purged,
            _ => return None,
        })
    }

    /// The name on the wire (user property `kind`, JSON field `kind`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Created => "created",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Left => "left",
            Self::Role => "role",
            Self::Settings => "settings",
            Self::Edit => "edit",
            Self::Deleted => "deleted",
            Self::Reaction => "reaction",
            Self::Pin => "pin",
            Self::Joined => "joined",
            Self::Banned => "banned",
            Self::Unbanned => "unbanned",
            Self::Case => "case",
            Self::Purged => "purged",
        }
    }

    /// Is its body what a member wrote?
    pub const fn is_written(self) -> bool {
        matches!(self, Self::Message | Self::Edit)
    }

    /// Does it advance `mseq` and count as unread?
    pub const fn is_countable(self) -> bool {
        matches!(self, Self::Message)
    }
}

/// How a body is to be read. Numbers are those at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum BodyFormat {
    /// UTF-8 text.
    Text = 1,
    /// A JSON `ClientMessage`, as sent.
    Json = 2,
    /// A protobuf `ClientMessage`, as sent.
    Protobuf = 3,
}

impl BodyFormat {
    /// The byte at rest.
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// The format of a byte at rest.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Text,
            2 => Self::Json,
            3 => Self::Protobuf,
            _ => return None,
        })
    }
}

impl Entry {
    /// Of an edit: the message whose body it replaces.
    pub fn edited(&self) -> Option<Seq> {
        self.target.filter(|_| self.kind == EntryKind::Edit)
    }
}

/// An entry before the store has given it a place.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where it shall go.
    pub conversation: ConversationId,
    /// What has to be true, or to be made, for it to be stored.
    pub basis: Basis,
    /// Who writes.
    pub from: UserId,
    /// Of what is written in a direct conversation: the other one, who never sees it if he has blocked the sender.
    pub peer: Option<UserId>,
    /// From which device or connection.
    pub device: DeviceId,
    /// Key of idempotency within (conversation, sender).
    pub mid: MessageId,
    /// Digest of everything that makes this message this message; the same `mid` with another digest is a conflict.
    pub digest: [u8; 16],
    /// The server's clock when it was taken; the store raises it where the log is ahead.
    pub ts_ms: u64,
    /// What it is.
    pub kind: EntryKind,
    /// How to read `body`.
    pub format: BodyFormat,
    /// Not for the server to read.
    pub opaque: bool,
    /// The bytes.
    pub body: Bytes,
    /// Of an action: the message that it acts on; of a message: the one that it quotes.
    pub target: Option<Seq>,
    /// The message that began the thread in which this one is written.
    pub thread: Option<Seq>,
    /// From then on there is nothing to see any more, in ms since 1970.
    pub expires_ms: Option<u64>,
    /// Which members it mentions.
    pub mentions: Mentioned,
    /// Of a message that was sent to a broadcast list: where its body is.
    pub source: Option<(ConversationId, Seq)>,
    /// The scheduled message that this is the sending of: its row goes with the commit, and must be as it is here.
    pub scheduled: Option<Box<Scheduled>>,
    /// It was held, and a moderator lets it in: its row goes with the commit, and must be there.
    pub was_held: bool,
    /// What it does to its target.
    pub act: Option<Act>,
    /// Not within so many ms of the last message of this sender; 0: at any time.
    pub slow_ms: u64,
    /// A QoS 2 exchange of a known device: its result becomes part of the commit. If there is a row of this exchange with
    /// the same conversation and digest already, nothing is stored and the row's result is returned as a duplicate,
    /// whatever `mid` says.
    pub exchange: Option<(DeviceId, u16)>,
    /// Changes of membership and settings that become true with this entry.
    pub changes: Vec<Change>,
    /// Goes into the audit log with the commit that stores it.
    pub audit: Option<Box<AuditLine>>,
}

/// What a draft rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The conversation exists and its membership still has this version.
    Version(u32),
    /// Made with this entry if it does not exist (a group by `conv.create`, a direct conversation by its first message:
    /// its members are among `changes`). If it exists, the changes are not applied, and the entry is stored if `from` is
    /// a member now; a `Created` entry is not stored a second time but answered by its `mid`.
    Create,
}

/// A change that is committed with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Becomes a member, or a member again, at this entry.
    Join {
        /// Who.
        user: UserId,
        /// As what.
        role: super::member::Role,
        /// First entry that the member may see; `None`: this entry.
        history_from: Option<Seq>,
    },
    /// Is no member any more; this entry is the last one seen.
    Leave {
        /// Who.
        user: UserId,
    },
    /// Has another role.
    Role {
        /// Who.
        user: UserId,
        /// As what.
        role: super::member::Role,
    },
    /// Has these rights given beside the role.
    Given {
        /// Who.
        user: UserId,
        /// `None`: those of the role.
        rights: Option<Rights>,
    },
    /// Wants these of the rights that are given.
    Want {
        /// Who.
        user: UserId,
        /// `None`: all.
        rights: Option<Rights>,
    },
    /// May not come back. A present member has to leave by a change of its own.
    Ban {
        /// Who.
        user: UserId,
    },
    /// May come back.
    Unban {
        /// Who.
        user: UserId,
    },
    /// Rests on this code of an invitation, and uses it.
    Invited {
        /// Of the code.
        hash: [u8; 16],
    },
    /// Rests on a request to join, and ends it.
    Approved {
        /// Who asked.
        user: UserId,
        /// As what.
        role: super::member::Role,
    },
    /// Another conversation, of which this user is a member, looks different for him with this entry.
    Tell {
        /// Whom.
        user: UserId,
        /// Of which.
        conversation: ConversationId,
    },
    /// Settings of the conversation; replaces them all.
    Settings(super::conversation::Settings),
    /// Announces a purge: the store knows that it is under way until it has been done.
    Purge(super::purge::Range),
}

/// What the store did with a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now, at this place.
    Stored {
        /// The place.
        seq: Seq,
        /// Number of countable entries up to it.
        mseq: u64,
        /// Its time.
        ts_ms: u64,
        /// Who has blocked the sender, and never sees it. Not for the sender to know.
        hidden_from: Option<UserId>,
    },
    /// Stored before, at this place; nothing was stored now.
    Duplicate {
        /// The place of the first.
        seq: Seq,
        /// Its time.
        ts_ms: u64,
    },
    /// Readers came or went, as its changes say, and nothing else: of that the log does not tell.
    Silent {
        /// The head.
        seq: Seq,
        /// When.
        ts_ms: u64,
    },
    /// The same `mid` was stored with another digest.
    Conflict,
    /// The membership is not what the draft was judged on: judge again.
    MembersMoved,
    /// The scheduled message that it is the sending of was changed or cancelled meanwhile; nothing was stored.
    Rescheduled,
    /// It is held by the exchange in which it came, or a moderator has rejected it; nothing was stored.
    Held,
    /// It was to be let in, and is not held any more; nothing was stored.
    NotHeld,
    /// Its action could not be done, and nothing was stored.
    Refused(ActRefused),
    /// Somebody who was to join was banned.
    Banned,
    /// The invitation or request that it rests on is no more.
    Void,
    /// Sooner after the last message of its sender than is allowed.
    TooSoon {
        /// When to try again.
        retry_ms: u64,
    },
}
