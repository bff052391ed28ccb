//! What is to be done outside of the model, and what comes of it.

use client_sdk::{ConversationId, MessageId, SearchCursor, Seq, Target, UserId};

use crate::command::Which;
use crate::items::{Item, Row};
use crate::text::Shown;
use client_sdk::Reached;

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Read the list of conversations, and what waits for the server.
    List,
    /// Read a page of a log.
    Page(Target, At, usize),
    /// Search the local log, all of it or one conversation; which search it is.
    Find(u64, String, Option<Target>, Option<SearchCursor>),
    /// Find out which conversation is meant.
    Open(String),
    /// Do something that goes into the outbox.
    Act(Target, Act),
    /// Try again what was refused: this, or all.
    Retry(Option<MessageId>),
    /// Drop what was refused, or waits: this, or all that was refused.
    Discard(Option<MessageId>),
    /// Ask the server for something.
    Ask(Ask),
    /// Tell that this user is typing, or no longer.
    Typing(Target, bool),
    /// Watch the presence of a user.
    Watch(String),
    /// No longer.
    Unwatch(String),
    /// Try to connect now.
    Connect,
    /// Ring.
    Bell,
    /// Paint the screen anew.
    Redraw,
    /// End.
    Quit,
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// At the end.
    Newest,
    /// Before a place.
    Before(Seq),
    /// From a place on.
    From(Seq),
}

/// What goes into the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A message, which may quote another one.
    Send(String, Option<Which>),
    /// Another text.
    Edit(Which, String),
    /// Delete for everybody.
    Delete(Which),
    /// Delete for oneself.
    Hide(Which),
    /// React; with `-` before it: no longer.
    React(Which, String),
    /// Pin or unpin.
    Pin(Which, bool),
    /// Read up to here, or all.
    Read(Option<Seq>),
    /// Show as unread, or no longer.
    Unread(bool),
}

/// What the server is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Make a group.
    Group(String, Vec<String>),
    /// Add members.
    Add(Target, Vec<String>),
    /// Remove a member.
    Remove(Target, String),
    /// Leave; who is the next owner.
    Leave(Target, Option<String>),
    /// Who is in it.
    Members(Target),
    /// Who got and who read a message.
    Status(Target, Which),
    /// What this user wants of the conversation.
    Mute(Target, bool),
    /// The same: put it away.
    Archive(Target, bool),
    /// The same: on top of the list.
    Top(Target, bool),
    /// How this user wants to be seen.
    Presence(String, String),
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// The list.
    Listed(Listing),
    /// No list: why.
    NotListed(String),
    /// A page of a log.
    Paged(Target, At, Page),
    /// No page: why.
    NoPage(Target, At, String),
    /// What was found by which search.
    Found(u64, Vec<Hit>, Option<SearchCursor>),
    /// No search: why.
    NotFound(u64, String),
    /// What was asked for, and the conversation that is meant.
    Opened(String, Target),
    /// What was asked for, and why there is no such conversation.
    NotOpened(String, String),
    /// The group that was asked for.
    Made(Target),
    /// It is in the outbox.
    Queued(Target, MessageId),
    /// A text that could not be put into the outbox: to be given back.
    NotQueued(Target, String, String),
    /// It is done: a word to the user, if it is worth one.
    Done(String),
    /// It cannot be done.
    Failed(String),
    /// Lines to be read.
    Told(Shown, Vec<Shown>),
}

/// The conversations, and the outbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Listing {
    pub(crate) me: Option<(UserId, String)>,
    pub(crate) rows: Vec<Row>,
    /// Waits for the server.
    pub(crate) waiting: usize,
    /// Was refused.
    pub(crate) refused: usize,
}

/// A page of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page {
    pub(crate) cid: Option<ConversationId>,
    pub(crate) items: Vec<Item>,
    /// The places that it covers, whatever is shown of them.
    pub(crate) span: Option<(Seq, Seq)>,
    /// There are older ones.
    pub(crate) more: bool,
    /// What waits for the server here.
    pub(crate) waiting: Vec<Item>,
    pub(crate) reached: Reached,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) cid: ConversationId,
    pub(crate) item: Item,
}
