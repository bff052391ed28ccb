//! The topic grammar: every Topic Name and Topic Filter below `chat/`, parsed once into an enum.
//!
//! [`PublishTopic`] is what a client may publish to, [`FilterTopic`] what it may subscribe to. Whatever is in neither is
//! refused: `chat/me/#` and `chat/me/+/+` as well. `$share/{name}/` is taken off by the caller before parsing. Text and
//! value are one: `parse(&value.to_string()) == value`, and `parse(text).to_string() == text`. Rights are not judged here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ErrorName;
use crate::ids::{ConversationId, Handle, MessageId, Seq, UserId};
use crate::quote::quoted;

/// The first level of all topics of chat.
pub const ROOT: &str = "chat";

/// Why a text is not a topic of chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Not in the table of topics.
    #[error("no such topic in chat/")]
    Unknown,
    /// Neither `@handle`, `u.{uid}`, a conversation id nor `me`.
    #[error("not a handle, user, conversation or me")]
    Target,
    /// Not a conversation id.
    #[error("not a conversation id")]
    Conversation,
    /// Not a number in plain decimal digits, without leading zeros.
    #[error("not a number")]
    Number,
    /// Not a message id.
    #[error("a message id is 1 to 64 characters of A-Z, a-z, 0-9 and . _ ~ : -")]
    MessageId,
    /// Not a request id.
    #[error("a request id is 1 to 64 characters of A-Z, a-z, 0-9 and . _ ~ : -")]
    RequestId,
}

impl TopicError {
    /// How a publish to such a topic is refused.
    pub const fn refusal(self) -> ErrorName {
        match self {
            Self::Unknown | Self::Target | Self::Conversation | Self::Number => ErrorName::NotFound,
            Self::MessageId | Self::RequestId => ErrorName::Format,
        }
    }
}

/// The caller's name for one remote call: `[A-Za-z0-9._~:-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(MessageId);

impl RequestId {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RequestId {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        text.parse()
            .map(Self)
            .map_err(|_: crate::ids::IdError| TopicError::RequestId)
    }
}

/// Whom or what a topic is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `@alice`.
    Handle(Handle),
    /// `u.` and the user's id.
    User(UserId),
    /// A conversation id.
    Conversation(ConversationId),
    /// `me`: whoever is connected.
    Me,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(handle) => write!(f, "@{handle}"),
            Self::User(user) => write!(f, "u.{user}"),
            Self::Conversation(cid) => write!(f, "{cid}"),
            Self::Me => f.write_str("me"),
        }
    }
}

impl FromStr for Target {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text == "me" {
            return Ok(Self::Me);
        }
        if let Some(handle) = text.strip_prefix('@') {
            return handle
                .parse()
                .map(Self::Handle)
                .map_err(|_| TopicError::Target);
        }
        if let Some(user) = text.strip_prefix("u.") {
            return user.parse().map(Self::User).map_err(|_| TopicError::Target);
        }
        text.parse()
            .map(Self::Conversation)
            .map_err(|_| TopicError::Target)
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bad = |error| serde::de::Error::custom(format!("{error}: {}", quoted(&text)));
        text.parse().map_err(|error: TopicError| bad(error))
    }
}

/// A Topic Name that a client may publish to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishTopic<'a> {
    /// `chat/to/{target}` and `chat/to/{target}/{mid}`: send.
    To {
        /// To whom.
        target: Target,
        /// The message id, if it is in the topic.
        mid: Option<MessageId>,
    },
    /// `chat/c/{cid}/m/{seq}/{action}`: do something with one entry.
    Message {
        /// In which conversation.
        cid: ConversationId,
        /// With which entry.
        seq: Seq,
        /// What.
        action: MessageAction,
    },
    /// `chat/c/{cid}/read`: move the read watermark.
    Read {
        /// In which conversation.
        cid: ConversationId,
    },
    /// `chat/c/{cid}/unread`: the mark-unread flag.
    Unread {
        /// In which conversation.
        cid: ConversationId,
    },
    /// `chat/c/{cid}/recv`: move the delivered cursor of this device.
    Recv {
        /// In which conversation.
        cid: ConversationId,
    },
    /// `chat/c/{cid}/typing`.
    Typing {
        /// In which conversation.
        cid: ConversationId,
    },
    /// `chat/me/presence`.
    Presence,
    /// `chat/rpc/{method}` and `chat/rpc/{method}/{req}`: call.
    Rpc {
        /// Any one level; whether there is such a method is for the service to say.
        method: &'a str,
        /// The request id, if it is in the topic.
        req: Option<RequestId>,
    },
}

/// What may be done with one entry of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageAction {
    /// Quote it.
    Reply,
    /// Write in the thread of which it is the root.
    Thread,
    /// Replace its body.
    Edit,
    /// Delete it for everybody, or hide it for oneself.
    Delete,
    /// Add or remove a reaction.
    React,
    /// Pin or unpin it.
    Pin,
    /// Report abuse.
    Report,
}

impl MessageAction {
    /// Every action.
    pub const ALL: [Self; 7] = [
        Self::Reply,
        Self::Thread,
        Self::Edit,
        Self::Delete,
        Self::React,
        Self::Pin,
        Self::Report,
    ];

    /// The last level of the topic.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Thread => "thread",
            Self::Edit => "edit",
            Self::Delete => "del",
            Self::React => "react",
            Self::Pin => "pin",
            Self::Report => "report",
        }
    }
}

impl<'a> PublishTopic<'a> {
    /// Parses a Topic Name.
    ///
    /// # Errors
    /// What is wrong with it; [`TopicError::refusal`] says how the publish is refused.
    pub fn parse(topic: &'a str) -> Result<Self, TopicError> {
        let mut levels = topic.split('/');
        if levels.next() != Some(ROOT) {
            return Err(TopicError::Unknown);
        }
        let parsed = match (levels.next(), levels.next()) {
            (Some("to"), Some(target)) => Self::To {
                target: target.parse()?,
                mid: levels
                    .next()
                    .map(|mid| mid.parse().map_err(|_| TopicError::MessageId))
                    .transpose()?,
            },
            (Some("c"), Some(cid)) => {
                let cid = parse_conversation(cid)?;
                match levels.next() {
                    Some("m") => Self::parse_message(cid, levels.next(), levels.next())?,
                    Some("read") => Self::Read { cid },
                    Some("unread") => Self::Unread { cid },
                    Some("recv") => Self::Recv { cid },
                    Some("typing") => Self::Typing { cid },
                    _ => return Err(TopicError::Unknown),
                }
            }
            (Some("me"), Some("presence")) => Self::Presence,
            (Some("rpc"), Some(method)) if !method.is_empty() => Self::Rpc {
                method,
                req: levels.next().map(str::parse).transpose()?,
            },
            _ => return Err(TopicError::Unknown),
        };
        match levels.next() {
            None => Ok(parsed),
            Some(_) => Err(TopicError::Unknown),
        }
    }

    fn parse_message(
        cid: ConversationId,
        seq: Option<&str>,
        action: Option<&str>,
    ) -> Result<Self, TopicError> {
        let (Some(seq), Some(action)) = (seq, action) else {
            return Err(TopicError::Unknown);
        };
        let action = MessageAction::ALL
            .into_iter()
            .find(|known| known.name() == action)
            .ok_or(TopicError::Unknown)?;
        let seq = Seq::new(parse_number(seq)?);
        Ok(Self::Message { cid, seq, action })
    }
}

impl fmt::Display for PublishTopic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To { target, mid: None } => write!(f, "chat/to/{target}"),
            Self::To {
                target,
                mid: Some(mid),
            } => write!(f, "chat/to/{target}/{mid}"),
            Self::Message { cid, seq, action } => {
                write!(f, "chat/c/{cid}/m/{seq}/{}", action.name())
            }
            Self::Read { cid } => write!(f, "chat/c/{cid}/read"),
            Self::Unread { cid } => write!(f, "chat/c/{cid}/unread"),
            Self::Recv { cid } => write!(f, "chat/c/{cid}/recv"),
            Self::Typing { cid } => write!(f, "chat/c/{cid}/typing"),
            Self::Presence => f.write_str("chat/me/presence"),
            Self::Rpc { method, req: None } => write!(f, "chat/rpc/{method}"),
            Self::Rpc {
                method,
                req: Some(req),
            } => write!(f, "chat/rpc/{method}/{req}"),
        }
    }
}

/// In which form entries arrive in an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// `chat/me/in`: JSON `LogEntry`.
    In,
    /// `chat/me/txt`: one line of text.
    Txt,
    /// `chat/me/pb`: protobuf `LogEntry`.
    Pb,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::In, Self::Txt, Self::Pb];

    /// The third level of the topic.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Txt => "txt",
            Self::Pb => "pb",
        }
    }

    /// The topic in this form of a conversation.
    pub fn topic(self, cid: ConversationId) -> String {
        format!("chat/me/{}/{cid}", self.name())
    }
}

/// `+`, or one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `+`: all conversations of the user.
    All,
    /// One of them.
    One(ConversationId),
}

impl Scope {
    /// Does it include `cid`?
    pub fn covers(self, cid: ConversationId) -> bool {
        match self {
            Self::All => true,
            Self::One(only) => only == cid,
        }
    }

    fn parse(level: &str) -> Result<Self, TopicError> {
        if level == "+" {
            return Ok(Self::All);
        }
        parse_conversation(level).map(Self::One)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("+"),
            Self::One(cid) => fmt::Display::fmt(cid, f),
        }
    }
}

/// `+`, or one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Names<T> {
    /// `+`: all of them.
    All,
    /// One of them.
    One(T),
}

impl<T: FromStr<Err = TopicError> + PartialEq> Names<T> {
    /// Does it include `name`?
    pub fn covers(&self, name: &T) -> bool {
        match self {
            Self::All => true,
            Self::One(only) => only == name,
        }
    }

    fn parse(level: &str) -> Result<Self, TopicError> {
        if level == "+" {
            return Ok(Self::All);
        }
        level.parse().map(Self::One)
    }
}

impl<T: fmt::Display> fmt::Display for Names<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("+"),
            Self::One(name) => fmt::Display::fmt(name, f),
        }
    }
}

/// Under which name a refusal is told: the last level of `chat/me/err/…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKey {
    /// The message id of the refused publish.
    Mid(MessageId),
    /// `@` and its Packet Identifier, if it had no valid message id; `@0` for QoS 0.
    Packet(u16),
}

impl fmt::Display for ErrorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mid(mid) => fmt::Display::fmt(mid, f),
            Self::Packet(id) => write!(f, "@{id}"),
        }
    }
}

impl FromStr for ErrorKey {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        if let Some(id) = text.strip_prefix('@') {
            let id = parse_number(id)?;
            return u16::try_from(id)
                .map(Self::Packet)
                .map_err(|_| TopicError::Number);
        }
        text.parse()
            .map(Self::Mid)
            .map_err(|_| TopicError::MessageId)
    }
}

/// Where a `…/log` subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStart {
    /// `…/log`: only what comes from now on.
    Live,
    /// `…/log/from/{seq}`: this entry and all after it.
    From(Seq),
    /// `…/log/last/{n}`: the newest `n`, then what comes.
    Last(u32),
}

/// A Topic Filter that a client may subscribe to, without `$share/{name}/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FilterTopic {
    /// `chat/me/in/…`, `chat/me/txt/…`, `chat/me/pb/…`: entries.
    Inbox {
        /// In which form.
        form: Form,
        /// Of which conversations.
        scope: Scope,
    },
    /// `chat/me/rcpt/…`: receipts.
    Receipts(Scope),
    /// `chat/me/ev/account`: changes of the chat list.
    Account,
    /// `chat/me/ev/typing/…`.
    Typing(Scope),
    /// `chat/me/dev`: the private queue of this device.
    Device,
    /// `chat/me/rpc/…`: replies.
    Rpc(Names<RequestId>),
    /// `chat/me/err/…`: refusals.
    Errors(Names<ErrorKey>),
    /// `chat/c/{cid}/log…`: the log of one conversation.
    Log {
        /// Of which conversation.
        cid: ConversationId,
        /// From where.
        start: LogStart,
    },
    /// `chat/u/{target}/presence`: of a user.
    Presence(Target),
}

impl FilterTopic {
    /// Parses a Topic Filter.
    ///
    /// # Errors
    /// What is wrong with it; it is refused in SUBACK whatever that is.
    pub fn parse(filter: &str) -> Result<Self, TopicError> {
        let mut levels = filter.split('/');
        if levels.next() != Some(ROOT) {
            return Err(TopicError::Unknown);
        }
        let parsed = match (levels.next(), levels.next()) {
            (Some("me"), Some(kind)) => Self::parse_own(kind, &mut levels)?,
            (Some("c"), Some(cid)) => {
                let cid = parse_conversation(cid)?;
                if levels.next() != Some("log") {
                    return Err(TopicError::Unknown);
                }
                Self::Log {
                    cid,
                    start: parse_log_start(&mut levels)?,
                }
            }
            (Some("u"), Some(target)) => {
                let target = target.parse()?;
                if matches!(target, Target::Conversation(_)) {
                    return Err(TopicError::Target);
                }
                if levels.next() != Some("presence") {
                    return Err(TopicError::Unknown);
                }
                Self::Presence(target)
            }
            _ => return Err(TopicError::Unknown),
        };
        match levels.next() {
            None => Ok(parsed),
            Some(_) => Err(TopicError::Unknown),
        }
    }

    fn parse_own<'a>(
        kind: &str,
        levels: &mut impl Iterator<Item = &'a str>,
    ) -> Result<Self, TopicError> {
        let mut next = || levels.next().ok_or(TopicError::Unknown);
        let inbox =
            |form, level: &str| Scope::parse(level).map(|scope| Self::Inbox { form, scope });
        match kind {
            "in" => inbox(Form::In, next()?),
            "txt" => inbox(Form::Txt, next()?),
            "pb" => inbox(Form::Pb, next()?),
            "rcpt" => Scope::parse(next()?).map(Self::Receipts),
            "ev" => match next()? {
                "account" => Ok(Self::Account),
                "typing" => Scope::parse(next()?).map(Self::Typing),
                _ => Err(TopicError::Unknown),
            },
            "dev" => Ok(Self::Device),
            "rpc" => Names::parse(next()?).map(Self::Rpc),
            "err" => Names::parse(next()?).map(Self::Errors),
            _ => Err(TopicError::Unknown),
        }
    }
}

impl fmt::Display for FilterTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox { form, scope } => write!(f, "chat/me/{}/{scope}", form.name()),
            Self::Receipts(scope) => write!(f, "chat/me/rcpt/{scope}"),
            Self::Account => f.write_str(ACCOUNT_TOPIC),
            Self::Typing(scope) => write!(f, "chat/me/ev/typing/{scope}"),
            Self::Device => f.write_str(DEVICE_TOPIC),
            Self::Rpc(names) => write!(f, "chat/me/rpc/{names}"),
            Self::Errors(names) => write!(f, "chat/me/err/{names}"),
            Self::Log { cid, start } => f.write_str(&log_topic(*cid, *start)),
            Self::Presence(target) => write!(f, "chat/u/{target}/presence"),
        }
    }
}

/// `chat/me/in/{cid}`: where entries arrive as JSON.
pub fn in_topic(cid: ConversationId) -> String {
    Form::In.topic(cid)
}

/// `chat/me/txt/{cid}`: where messages arrive as lines of text.
pub fn txt_topic(cid: ConversationId) -> String {
    Form::Txt.topic(cid)
}

/// Where changes of the own list of conversations arrive.
pub const ACCOUNT_TOPIC: &str = "chat/me/ev/account";

/// Where the private queue of a device arrives.
pub const DEVICE_TOPIC: &str = "chat/me/dev";

/// `chat/me/pb/{cid}`: where entries arrive in protobuf.
pub fn pb_topic(cid: ConversationId) -> String {
    Form::Pb.topic(cid)
}

/// `chat/me/rcpt/{cid}`: where receipts arrive.
pub fn rcpt_topic(cid: ConversationId) -> String {
    format!("chat/me/rcpt/{cid}")
}

/// `chat/me/ev/typing/{cid}`: where it is told who is typing.
pub fn typing_topic(cid: ConversationId) -> String {
    format!("chat/me/ev/typing/{cid}")
}

/// `chat/me/rpc/{req}`: where the reply to a call arrives.
pub fn rpc_reply_topic(req: &RequestId) -> String {
    format!("chat/me/rpc/{req}")
}

/// The request id of a reply topic; `None` if `topic` is another topic.
pub fn parse_rpc_reply_topic(topic: &str) -> Option<RequestId> {
    topic.strip_prefix("chat/me/rpc/")?.parse().ok()
}

/// `chat/me/err/{mid}`: where the refusal of a publish with this message id is told.
pub fn err_topic_mid(mid: &MessageId) -> String {
    format!("chat/me/err/{mid}")
}

/// `chat/me/err/@{packet id}`: where the refusal of a publish without a valid message id is told; 0 for QoS 0.
pub fn err_topic_packet(id: u16) -> String {
    format!("chat/me/err/@{id}")
}

/// `chat/c/{cid}/log…`: the same text as the filter, so that a client can tell its subscriptions apart.
pub fn log_topic(cid: ConversationId, start: LogStart) -> String {
    match start {
        LogStart::Live => format!("chat/c/{cid}/log"),
        LogStart::From(seq) => format!("chat/c/{cid}/log/from/{seq}"),
        LogStart::Last(count) => format!("chat/c/{cid}/log/last/{count}"),
    }
}

fn parse_conversation(level: &str) -> Result<ConversationId, TopicError> {
    level.parse().map_err(|_| TopicError::Conversation)
}

fn parse_log_start<'a>(levels: &mut impl Iterator<Item = &'a str>) -> Result<LogStart, TopicError> {
    let Some(word) = levels.next() else {
        return Ok(LogStart::Live);
    };
    let number = parse_number(levels.next().ok_or(TopicError::Unknown)?);
    match word {
        "from" => Ok(LogStart::From(Seq::new(number?))),
        "last" => u32::try_from(number?)
            .map(LogStart::Last)
            .map_err(|_| TopicError::Number),
        _ => Err(TopicError::Unknown),
    }
}

/// Plain digits without leading zeros, so that every number has one text.
fn parse_number(text: &str) -> Result<u64, TopicError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(TopicError::Number);
    }
    text.parse().map_err(|_| TopicError::Number)
}

#[cfg(test)]
mod tests;
