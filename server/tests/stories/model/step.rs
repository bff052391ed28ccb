//! One step of a walk, and the words for it.

use std::fmt;

use serde_json::{Value, json};

use super::rules::{Kind, NAMES, Place, Role, User};

/// What later members see of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    All,
    Joined,
    Last(u64),
}

impl History {
    pub(super) fn in_json(self) -> Value {
        match self {
            Self::All => json!("all"),
            Self::Joined => json!("joined"),
            Self::Last(count) => json!({"last": count}),
        }
    }
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Conversation(Place),
    User(User),
}

/// What a message refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Plain,
    Reply(u64),
    Thread(u64),
}

/// By which way a step is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Topic,
    Call,
}

/// Somebody does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) by: User,
    pub(super) way: Way,
    /// The message id, or the request id.
    pub(super) id: Option<String>,
    pub(super) what: What,
}

/// What is done. Those with a `place` happen in that conversation, those with a `seq` to that entry of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Send {
        to: To,
        how: How,
        text: String,
    },
    Edit {
        place: Place,
        seq: u64,
        text: String,
    },
    Delete {
        place: Place,
        seq: u64,
    },
    Hide {
        place: Place,
        seq: u64,
    },
    /// Without an emoji: takes back all.
    React {
        place: Place,
        seq: u64,
        emoji: Option<String>,
        add: bool,
    },
    Pin {
        place: Place,
        seq: u64,
        on: bool,
    },
    Report {
        place: Place,
        seq: u64,
    },
    /// Without a `seq`: everything that was delivered.
    Read {
        place: Place,
        seq: Option<u64>,
        private: bool,
    },
    Unread {
        place: Place,
        flag: bool,
    },
    Received {
        place: Place,
        seq: u64,
    },
    Prefer {
        place: Place,
        muted: Option<bool>,
        archived: Option<bool>,
        on_top: Option<bool>,
        watch: Option<bool>,
    },
    Block {
        user: User,
        on: bool,
    },
    Create {
        kind: Kind,
        desk: bool,
        public: bool,
        title: String,
        history: History,
        members: Vec<(User, Role)>,
    },
    Add {
        place: Place,
        users: Vec<User>,
        role: Role,
    },
    Remove {
        place: Place,
        user: User,
    },
    Leave {
        place: Place,
        heir: Option<User>,
    },
    Role {
        place: Place,
        user: User,
        role: Role,
    },
    Transfer {
        place: Place,
        user: User,
    },
    Ban {
        place: Place,
        user: User,
    },
    Unban {
        place: Place,
        user: User,
    },
    Settings {
        place: Place,
        title: Option<String>,
        history: Option<History>,
    },
    /// By himself, into what is public.
    Join {
        place: Place,
    },
    OpenCase {
        desk: Place,
    },
    Claim {
        place: Place,
    },
    /// Without another agent: back to the queue.
    HandOn {
        place: Place,
        to: Option<User>,
    },
    CloseCase {
        place: Place,
    },
    /// A message that is held.
    Approve {
        place: Place,
        from: User,
        id: String,
    },
    Reject {
        place: Place,
        from: User,
        id: String,
    },
    /// A message that waits, for longer than a walk lasts.
    Schedule {
        to: To,
        text: String,
        id: String,
    },
    Reschedule {
        id: String,
        text: String,
    },
    /// The time of one that waits has come.
    SendNow {
        id: String,
    },
    Cancel {
        id: String,
    },
}

impl What {
    /// In which conversation.
    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Self::Send {
                to: To::User(_), ..
            }
            | Self::Create { .. }
            | Self::Block { .. }
            | Self::OpenCase { .. }
            | Self::Schedule { .. }
            | Self::Reschedule { .. }
            | Self::SendNow { .. }
            | Self::Cancel { .. } => None,
            Self::Send {
                to: To::Conversation(place),
                ..
            }
            | Self::Edit { place, .. }
            | Self::Delete { place, .. }
            | Self::Hide { place, .. }
            | Self::React { place, .. }
            | Self::Pin { place, .. }
            | Self::Report { place, .. }
            | Self::Read { place, .. }
            | Self::Unread { place, .. }
            | Self::Received { place, .. }
            | Self::Prefer { place, .. }
            | Self::Add { place, .. }
            | Self::Remove { place, .. }
            | Self::Leave { place, .. }
            | Self::Role { place, .. }
            | Self::Transfer { place, .. }
            | Self::Ban { place, .. }
            | Self::Unban { place, .. }
            | Self::Settings { place, .. }
            | Self::Join { place }
            | Self::Claim { place }
            | Self::HandOn { place, .. }
            | Self::CloseCase { place }
            | Self::Approve { place, .. }
            | Self::Reject { place, .. } => Some(*place),
        }
    }

    /// Is there no topic for it?
    pub(super) fn is_call_only(&self) -> bool {
        !matches!(
            self,
            Self::Send { .. }
                | Self::Edit { .. }
                | Self::Delete { .. }
                | Self::Hide { .. }
                | Self::React { .. }
                | Self::Pin { .. }
                | Self::Report { .. }
                | Self::Read { .. }
                | Self::Unread { .. }
                | Self::Received { .. }
        )
    }

    /// Is its answer a conversation?
    pub(super) fn makes_conversation(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::OpenCase { .. })
    }

    /// Is it done once under an id that its sender chooses?
    pub(super) fn takes_id(&self) -> bool {
        matches!(
            self,
            Self::Send { .. }
                | Self::Edit { .. }
                | Self::Delete { .. }
                | Self::React { .. }
                | Self::Pin { .. }
                | Self::Add { .. }
                | Self::Remove { .. }
                | Self::Leave { .. }
                | Self::Role { .. }
                | Self::Transfer { .. }
                | Self::Ban { .. }
                | Self::Unban { .. }
                | Self::Settings { .. }
        )
    }
}

impl Step {
    /// In which form this user writes: users differ, so that all clients share the conversations.
    pub(super) fn format(&self) -> &'static str {
        if self.way == Way::Call {
            return "text";
        }
        Client::of(self.by).format()
    }
}

/// The kinds of acting connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// MQTT 3.1.1, plain text.
    Text,
    /// MQTT 5, JSON.
    Json,
    /// MQTT 5, protobuf.
    Protobuf,
}

impl Client {
    pub(super) fn of(user: User) -> Self {
        [Self::Text, Self::Json, Self::Protobuf][user % 3]
    }

    fn format(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", NAMES[self.by], self.what)?;
        if self.way == Way::Call {
            f.write_str(", by call")?;
        }
        match &self.id {
            Some(id) => write!(f, ", as {id}"),
            None => Ok(()),
        }
    }
}
