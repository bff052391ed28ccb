//! The chat as plain data and rules: what each step must be answered, and what each user must see afterwards.
//!
//! Slow and simple on purpose: lists are searched from end to end, counts are counted. It knows nothing of topics, packets,
//! sessions and stores. `docs/protocol.md` says in words what is said here.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{ConversationId, UserId};
use serde_json::{Value, json};

use super::step::{History, How, Step, To, What};

mod acts;
mod cases;
mod lists;
mod marks;
mod members;
mod waiting;

use cases::Case;
pub(super) use waiting::Scheduled;

/// A user, by number.
pub(super) type User = usize;
/// A conversation, by number.
pub(super) type Place = usize;

/// How people call them.
pub(super) const NAMES: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Reader,
    Member,
    Moderator,
    Admin,
    Owner,
}

impl Role {
    pub(super) const ALL: [Self; 5] = [
        Self::Reader,
        Self::Member,
        Self::Moderator,
        Self::Admin,
        Self::Owner,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// What a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Direct,
    Group,
    Channel,
    Broadcast,
    Case,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Channel => "channel",
            Self::Broadcast => "broadcast",
            Self::Case => "support",
        }
    }

    /// Is who has this role there one of many, who come and go without a word, and of whom nothing is told?
    fn has_many(self, role: Role) -> bool {
        matches!(self, Self::Channel | Self::Broadcast) && role == Role::Reader
    }

    /// Do admins say who is in, and what it is?
    fn has_admins(self) -> bool {
        matches!(self, Self::Group | Self::Channel)
    }

    /// Is there anybody who moderates?
    pub(super) fn is_moderated(self) -> bool {
        matches!(self, Self::Group | Self::Channel | Self::Case)
    }

    /// Is what is doubtful held there? A case may have nobody who could decide.
    fn holds(self) -> bool {
        matches!(self, Self::Group | Self::Channel)
    }
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Stored as an entry, or stored before.
    Placed { seq: u64, dup: bool },
    /// Done; there is no entry of it.
    Done,
    /// Refused by this name.
    Refused(&'static str),
}

/// A part of a log, both ends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    from: u64,
    to: u64,
}

impl Stretch {
    /// Still going on.
    const OPEN: u64 = u64::MAX;

    fn has(self, seq: u64) -> bool {
        self.from <= seq && seq <= self.to
    }
}

/// One line of a log. What becomes of a message is kept with it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: &'static str,
    pub(super) from: User,
    /// What was written, in which format; of a message and of an edit.
    pub(super) text: String,
    format: &'static str,
    /// What changed; of all others.
    data: Value,
    pub(super) target: Option<u64>,
    pub(super) thread: Option<u64>,
    pub(super) deleted: bool,
    edits: Vec<u64>,
    /// In the order of first use.
    reactions: Vec<(String, BTreeSet<User>)>,
    pinned_by: Option<User>,
    hidden_from: BTreeSet<User>,
    /// Who had blocked its sender, and never sees it.
    pub(super) kept_from: Option<User>,
}

impl Entry {
    fn is_hidden_from(&self, user: User) -> bool {
        self.kept_from == Some(user) || self.hidden_from.contains(&user)
    }
}

/// How far a user has got, and what the user has decided.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one decision")]
pub(super) struct Marks {
    pub(super) read: u64,
    pub(super) private_read: u64,
    pub(super) unread_flag: bool,
    /// What devices have acknowledged is stored a moment later: after a crash it is between these two.
    pub(super) delivered: (u64, u64),
    /// As far as it is on the disk for certain.
    pub(super) delivered_for_certain: u64,
    pub(super) muted: bool,
    pub(super) archived: bool,
    pub(super) on_top: bool,
    /// It comes to the inbox, however many read it.
    pub(super) watch: bool,
    /// In a direct conversation: the other one is blocked, and is not told how far this user has got.
    blocks: bool,
}

impl Marks {
    /// Read, as the own unread count sees it.
    pub(super) fn own_read(&self) -> u64 {
        self.read.max(self.private_read)
    }

    /// As it is shown: what is read was delivered.
    pub(super) fn shown_delivered(&self) -> u64 {
        self.delivered.1.max(self.read)
    }

    /// Some device acknowledged everything up to here.
    fn acknowledged(&mut self, seq: u64) {
        self.delivered = (self.delivered.0.max(seq), self.delivered.1.max(seq));
    }

    /// The server may have lost the last moment of acknowledgements.
    pub(super) fn crashed(&mut self) {
        self.delivered.0 = self.delivered_for_certain.min(self.delivered.0);
    }

    /// The server has written down everything.
    pub(super) fn stopped(&mut self) {
        self.delivered_for_certain = self.delivered.0;
    }

    /// The server shows this: if it can be, it is so.
    pub(super) fn learn(&mut self, shown: u64) {
        let (least, most) = self.delivered;
        if shown > self.read && (least..=most).contains(&shown) {
            self.delivered = (shown, shown);
        } else if shown == self.read && least <= shown {
            self.delivered.1 = most.min(shown).max(least);
        }
    }
}

/// A user in a conversation, now or once.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) role: Role,
    /// Where this user joined first; 0: it was made with him.
    pub(super) joined: u64,
    /// What may be seen: from each joining, or what it granted before, to the next leaving.
    visible: Vec<Stretch>,
    /// What is delivered and counted: from each joining to the next leaving.
    awaited: Vec<Stretch>,
    /// A reader of a channel who has gone is handed nothing more, what waited until then neither, also when he comes back; nor
    /// is one who begins to watch a large one handed what was said before.
    forgone: u64,
    pub(super) marks: Marks,
}

impl Member {
    pub(super) fn is_present(&self) -> bool {
        self.awaited
            .last()
            .is_some_and(|last| last.to == Stretch::OPEN)
    }

    pub(super) fn was_always_there(&self) -> bool {
        self.is_present() && self.awaited.len() == 1
    }

    pub(super) fn sees(&self, seq: u64) -> bool {
        self.visible.iter().any(|stretch| stretch.has(seq))
    }

    pub(super) fn awaits(&self, seq: u64) -> bool {
        self.awaited.iter().any(|stretch| stretch.has(seq))
    }

    fn join(&mut self, granted_from: u64, at: u64) {
        let open = |from| Stretch {
            from,
            to: Stretch::OPEN,
        };
        self.visible.push(open(granted_from));
        self.awaited.push(open(at));
    }

    fn leave(&mut self, at: u64) {
        if self.visible.last().is_some_and(|last| last.from > at) {
            self.visible.pop(); // without anything to see
            self.awaited.pop();
            return;
        }
        for stretches in [&mut self.visible, &mut self.awaited] {
            if let Some(last) = stretches.last_mut() {
                last.to = at;
            }
        }
    }
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    /// How the server calls it.
    pub(super) cid: String,
    pub(super) kind: Kind,
    /// Its members answer support cases.
    pub(super) desk: bool,
    public: bool,
    /// It does not come to the inboxes of readers, but of those who watch it.
    is_large: bool,
    /// Where it stands, if it is a support case.
    pub(super) case: Option<Case>,
    pub(super) title: String,
    pub(super) history: History,
    pub(super) log: Vec<Entry>,
    pub(super) members: BTreeMap<User, Member>,
    /// To whom a broadcast list goes, who do not know of it.
    listed: BTreeMap<User, Member>,
    /// The direct messages that a message of a broadcast list became.
    copies: BTreeMap<u64, Vec<(User, Place, u64)>>,
    /// Messages that wait for a moderator, by sender and id.
    pub(super) held: BTreeMap<(User, String), (What, Entry)>,
    /// Those of them that a moderator has let in.
    pub(super) approved: Vec<(User, String)>,
    banned: BTreeSet<User>,
    /// What was stored under which id.
    ids: BTreeMap<(User, String), (What, u64)>,
}

impl Conversation {
    fn new(cid: String, kind: Kind) -> Self {
        Self {
            cid,
            kind,
            desk: false,
            public: false,
            is_large: false,
            case: None,
            title: String::new(),
            history: History::Joined,
            log: Vec::new(),
            members: BTreeMap::new(),
            listed: BTreeMap::new(),
            copies: BTreeMap::new(),
            held: BTreeMap::new(),
            approved: Vec::new(),
            banned: BTreeSet::new(),
            ids: BTreeMap::new(),
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn entry(&self, seq: u64) -> Option<&Entry> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.log.get(index)
    }

    fn entry_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.log.get_mut(index)
    }

    /// Messages up to here.
    pub(super) fn mseq(&self, seq: u64) -> u64 {
        let up_to = usize::try_from(seq).unwrap();
        let messages = self.log.iter().take(up_to);
        messages.filter(|entry| entry.kind == "message").count() as u64
    }

    pub(super) fn present(&self) -> impl Iterator<Item = User> {
        let present = |(user, member): (&User, &Member)| member.is_present().then_some(*user);
        self.members.iter().filter_map(present)
    }

    pub(super) fn is_present(&self, user: User) -> bool {
        self.members.get(&user).is_some_and(Member::is_present)
    }

    /// Does it have to be handed to each device of a user?
    pub(super) fn claims(&self, user: User, seq: u64) -> bool {
        let member = &self.members[&user];
        member.awaits(seq) && seq > member.forgone && !self.is_only_looked_at(user)
    }

    /// Is it a channel with many readers, of whom this one does not watch it?
    pub(super) fn is_only_looked_at(&self, user: User) -> bool {
        self.is_large && self.is_many(user) && !self.members[&user].marks.watch
    }

    /// A channel begins to come to the inbox of a user: what was said before need not.
    fn comes_from_now_on(&mut self, user: User) {
        let head = self.head();
        if self.is_large && self.is_many(user) {
            self.members.get_mut(&user).unwrap().forgone = head;
        }
    }

    pub(super) fn is_direct(&self) -> bool {
        self.kind == Kind::Direct
    }

    /// Is this user a reader of a channel, present or former?
    pub(super) fn is_many(&self, user: User) -> bool {
        let member = self.members.get(&user);
        member.is_some_and(|member| self.kind.has_many(member.role))
    }

    /// Those of whom others are told: not the readers of a channel.
    pub(super) fn told_of(&self) -> impl Iterator<Item = User> {
        self.present().filter(|user| !self.is_many(*user))
    }

    /// The last entry of which a user knows: the head for a member, the entry of leaving for a former one.
    pub(super) fn last_visible(&self, user: User) -> u64 {
        let last = self.members[&user].awaited.last();
        last.map_or(0, |last| last.to.min(self.head()))
    }

    /// A message that is there for a user.
    fn message(&self, user: User, seq: u64) -> Option<&Entry> {
        let entry = self.there(user, seq)?;
        (entry.kind == "message" && !entry.deleted).then_some(entry)
    }

    /// An entry that is there for a user, though it may be gone: what a block hides is not.
    fn there(&self, user: User, seq: u64) -> Option<&Entry> {
        let sees = self.members[&user].sees(seq);
        self.entry(seq)
            .filter(|entry| sees && entry.kept_from != Some(user))
    }

    /// Messages that a user has not read: of others, not gone, not hidden.
    pub(super) fn unread(&self, user: User) -> u64 {
        let member = &self.members[&user];
        let after = member.marks.own_read() + 1;
        let counts = |seq: &u64| {
            let entry = self.entry(*seq).unwrap();
            let is_there = !entry.deleted && !entry.is_hidden_from(user);
            entry.kind == "message" && entry.from != user && is_there && member.awaits(*seq)
        };
        (after..=self.head()).filter(counts).count() as u64
    }

    /// How far others are told that a user has got, who is at a mark: nothing while he blocks the other one, and not to where
    /// the last messages of the other one are such as were hidden from him then.
    fn told_mark(&self, user: User, (from, to): (u64, u64)) -> u64 {
        if self.blocks(user) {
            return from;
        }
        let entry = |seq: u64| self.entry(seq).unwrap();
        let is_kept = |seq: &u64| entry(*seq).kept_from == Some(user);
        let is_theirs = |seq: u64| entry(seq).kind == "message" && entry(seq).from != user;
        let mut mark = to;
        while let Some(kept) = (from + 1..=mark).rev().find(is_kept)
            && !(kept + 1..=mark).any(is_theirs)
        {
            mark = kept - 1;
        }
        mark.max(from)
    }

    /// Some device of a user acknowledged everything up to here. Of readers nobody is told, so it is not noted.
    pub(super) fn acknowledged(&mut self, user: User, seq: u64) {
        if !self.is_many(user) {
            self.received(user, seq);
        }
    }

    /// A user has everything up to here.
    fn received(&mut self, user: User, seq: u64) {
        if !self.blocks(user) {
            let told = self.told_mark(user, (0, seq));
            let member = self.members.get_mut(&user).unwrap();
            member.marks.acknowledged(told);
        }
    }

    /// The last own message up to a mark; 0: there is none.
    pub(super) fn last_own(&self, user: User, mark: u64) -> u64 {
        let own = |seq: &u64| {
            let entry = self.entry(*seq);
            entry.is_some_and(|entry| entry.kind == "message" && entry.from == user)
        };
        (1..=mark).rev().find(own).unwrap_or(0)
    }

    /// The last own message that somebody never sees, who had blocked this user; 0: there is none.
    pub(super) fn last_kept(&self, user: User) -> u64 {
        let kept = |seq: &u64| {
            let entry = self.entry(*seq).unwrap();
            entry.kind == "message" && entry.from == user && entry.kept_from.is_some()
        };
        (1..=self.head()).rev().find(kept).unwrap_or(0)
    }

    /// The last message of a user up to a mark of somebody whom it waited for; 0: there is none.
    pub(super) fn last_owned(&self, user: User, other: User, mark: u64) -> u64 {
        let is_it = |seq: &u64| {
            let entry = self.entry(*seq).unwrap();
            let is_own = entry.kind == "message" && entry.from == user && !entry.deleted;
            is_own && self.members[&other].awaits(*seq)
        };
        (1..=mark).rev().find(is_it).unwrap_or(0)
    }

    /// Nothing up to here waits for this present member any more, whose mark stands there.
    pub(super) fn reached(&self, user: User, mark: u64) -> u64 {
        let member = &self.members[&user];
        let next = (mark + 1..=self.head() + 1).find(|seq| member.awaits(*seq));
        next.map_or(mark, |next| next - 1)
    }

    /// Pinned messages that this user sees, and by whom. While somebody is blocked his pins are not seen.
    pub(super) fn pins(&self, user: User) -> Vec<(u64, User)> {
        let pin = |seq: u64| {
            let entry = self.entry(seq)?;
            let by = entry.pinned_by.filter(|by| self.sees_acts_of(user, *by))?;
            (!entry.is_hidden_from(user)).then_some((seq, by))
        };
        let seen = (1..=self.head()).filter(|seq| self.members[&user].sees(*seq));
        seen.filter_map(pin).collect()
    }

    fn sees_acts_of(&self, user: User, by: User) -> bool {
        by == user || !self.blocks(user)
    }

    /// Who reacted how to a message, in the order of users, as `user` sees it.
    pub(super) fn reactions(&self, user: User, seq: u64) -> BTreeMap<User, BTreeSet<String>> {
        let mut reactions: BTreeMap<User, BTreeSet<String>> = BTreeMap::new();
        for (emoji, users) in self.seen_reactions(user, self.entry(seq).unwrap()) {
            for by in users {
                reactions.entry(by).or_default().insert(emoji.clone());
            }
        }
        reactions
    }

    /// While somebody is blocked his reactions are not seen.
    fn seen_reactions(&self, user: User, message: &Entry) -> Vec<(String, BTreeSet<User>)> {
        let is_seen = |by: &User| self.sees_acts_of(user, *by);
        let seen = |(emoji, users): &(String, BTreeSet<User>)| {
            let users: BTreeSet<User> = users.iter().copied().filter(is_seen).collect();
            (!users.is_empty()).then(|| (emoji.clone(), users))
        };
        message.reactions.iter().filter_map(seen).collect()
    }

    /// Has this user of a direct conversation blocked the other one?
    pub(super) fn blocks(&self, user: User) -> bool {
        self.members
            .get(&user)
            .is_some_and(|member| member.marks.blocks)
    }

    /// Why there is nothing to see of an entry, if there is not.
    pub(super) fn gone(&self, user: User, seq: u64) -> Option<&'static str> {
        let entry = self.entry(seq).unwrap();
        let edited = entry.target.filter(|_| entry.kind == "edit");
        let edited = edited.and_then(|seq| self.entry(seq));
        let mut both = [Some(entry), edited].into_iter().flatten();
        if both.clone().any(|entry| entry.kept_from == Some(user)) {
            Some("hidden") // and nobody is told whether it was deleted
        } else if entry.deleted {
            Some("deleted")
        } else if both.any(|entry| entry.is_hidden_from(user)) {
            Some("hidden")
        } else if entry.kind == "edit" && !self.members[&user].sees(entry.target.unwrap()) {
            Some("unseen")
        } else {
            None
        }
    }

    /// An entry as a user sees it. `uids` are the ids of all users.
    pub(super) fn shown(&self, user: User, seq: u64, uids: &[String]) -> Value {
        let entry = self.entry(seq).unwrap();
        let mut shown = json!({
            "seq": seq,
            "mseq": self.mseq(seq),
            "from": NAMES[entry.from],
            "kind": entry.kind,
        });
        let refers_as = if entry.kind == "message" {
            "reply_to"
        } else {
            "target"
        };
        if let Some(target) = entry.target {
            shown[refers_as] = json!(target);
        }
        if let Some(thread) = entry.thread {
            shown["thread"] = json!(thread);
        }
        if let Some(reason) = self.gone(user, seq) {
            shown["kind"] = json!("gone");
            shown["reason"] = json!(reason);
            return shown;
        }
        if !["message", "edit"].contains(&entry.kind) {
            shown["data"] = with_uids(&entry.data, uids);
            return shown;
        }
        // The latest edit that is not hidden; a former member sees what there was at the end.
        let last = self.last_visible(user);
        let is_seen =
            |edit: &&u64| **edit <= last && !self.entry(**edit).unwrap().is_hidden_from(user);
        let edit = entry.edits.iter().rfind(is_seen);
        let body = edit.map_or(entry, |edit| self.entry(*edit).unwrap());
        shown["text"] = json!(body.text);
        shown["format"] = json!(body.format);
        if let Some(edit) = edit {
            shown["edited"] = json!(edit);
        }
        if self.is_present(user) {
            let reaction = |(emoji, users): (String, BTreeSet<User>)| json!({"emoji": emoji, "count": users.len(), "mine": users.contains(&user)});
            let seen = self.seen_reactions(user, entry).into_iter();
            let reactions: Vec<Value> = seen.map(reaction).collect();
            if !reactions.is_empty() {
                shown["reactions"] = json!(reactions);
            }
            if entry
                .pinned_by
                .is_some_and(|by| self.sees_acts_of(user, by))
            {
                shown["pinned"] = json!(true);
            }
        }
        shown
    }
}

/// Numbers of users become their ids.
fn with_uids(data: &Value, uids: &[String]) -> Value {
    let uid = |value: &Value| {
        let user = value.as_u64().and_then(|user| usize::try_from(user).ok());
        json!(uids[user.unwrap()])
    };
    match data {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match name.as_str() {
                "uid" | "owner" | "former" | "agent" => (name.clone(), uid(value)),
                _ => (name.clone(), with_uids(value, uids)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| with_uids(item, uids)).collect(),
        other => other.clone(),
    }
}

/// Everything that there is.
#[derive(Debug, Default)]
pub(super) struct World {
    /// How the server calls the users.
    pub(super) uids: Vec<String>,
    /// When what waits for its time is due, if nothing is changed: after all walks.
    pub(super) far_ms: u64,
    /// As if they had very many readers.
    pub(super) channels_are_large: bool,
    pub(super) conversations: Vec<Conversation>,
    directs: BTreeMap<(User, User), Place>,
    /// Who has blocked whom.
    blocks: BTreeSet<(User, User)>,
    /// What an account sync has to tell each user.
    pub(super) changed: [BTreeSet<Place>; NAMES.len()],
    /// Up to where the devices of a reader were told of a channel.
    told: BTreeMap<(User, Place), u64>,
    /// Messages that wait for their time, by sender and id.
    pub(super) scheduled: BTreeMap<(User, String), Scheduled>,
    /// Direct conversations to which something of a broadcast list is on its way from this user.
    pub(super) under_way: Vec<(User, Place)>,
}

/// A word that the content filter wants a moderator to look at.
pub(super) const DOUBTFUL: &str = "doubtful";

/// Most edits of one message, and most emoji of one user on it.
pub(super) const EDITS_MAX: usize = 64;
pub(super) const EMOJI_MAX: usize = 16;

type Judged = Result<Answer, &'static str>;

impl World {
    /// The direct conversation of two users, if they have written to each other.
    pub(super) fn direct(&self, one: User, other: User) -> Option<Place> {
        let pair = (one.min(other), one.max(other));
        self.directs.get(&pair).copied()
    }

    /// How the server calls the conversation to which something goes.
    pub(super) fn cid_of(&self, by: User, to: To) -> String {
        match to {
            To::Conversation(place) => self.conversations[place].cid.clone(),
            To::User(other) => self.direct_cid(by, other),
        }
    }

    fn direct_cid(&self, one: User, other: User) -> String {
        let uid = |user: User| self.uids[user].parse::<UserId>().unwrap();
        ConversationId::direct(uid(one), uid(other)).to_string()
    }

    /// Whom a user has blocked.
    pub(super) fn blocked_by(&self, user: User) -> Vec<User> {
        let own = self.blocks.iter().filter(|(by, _)| *by == user);
        own.map(|(_, other)| *other).collect()
    }

    /// The conversation that the server calls so.
    pub(super) fn place_named(&self, cid: &str) -> Option<Place> {
        let mut all = self.conversations.iter();
        all.position(|conversation| conversation.cid == cid)
    }

    /// Where a step happens, if that is known before it has happened.
    pub(super) fn place_of(&self, step: &Step) -> Option<Place> {
        match &step.what {
            What::Send {
                to: To::User(other),
                ..
            } => self.direct(step.by, *other),
            what => what.place(),
        }
    }

    /// A step happens. `cid` names the conversation that it makes, if the server chooses how.
    pub(super) fn take(&mut self, step: &Step, cid: &str) -> Answer {
        self.judge(step, cid).unwrap_or_else(Answer::Refused)
    }

    fn judge(&mut self, step: &Step, cid: &str) -> Judged {
        let by = step.by;
        match &step.what {
            What::Create { .. } => return Ok(self.create(step, cid)),
            What::Block { user, on } => return self.block(by, *user, *on),
            What::Join { place } => return self.join_alone(step, *place),
            What::OpenCase { desk } => return self.open_case(by, *desk, cid),
            What::Claim { place } => return self.claim(by, *place),
            What::HandOn { place, to } => return self.hand_on(by, *place, *to),
            What::CloseCase { place } => return self.close_case(by, *place),
            What::Approve { place, from, id } => return self.approve(by, *place, (*from, id)),
            What::Reject { place, from, id } => return self.reject(by, *place, (*from, id)),
            What::Schedule { to, text, id } => return self.schedule(by, (*to, text), id),
            What::Reschedule { id, text } => return self.reschedule(by, id, text),
            What::SendNow { id } => return self.send_now(by, id),
            What::Cancel { id } => return Ok(self.cancel(by, id)),
            _ => {}
        }
        let Some(place) = self.place_of(step) else {
            return self.write_first(step);
        };
        let conversation = &self.conversations[place];
        if !conversation.members.contains_key(&by) {
            return Err("not_found");
        }
        // A retry is answered as the first attempt was, whatever its sender may do now.
        if let Some(answer) = self.repeated(place, step) {
            return answer;
        }
        match &step.what {
            What::Send { how, text, .. } => self.send(step, place, (*how, text)),
            What::Edit { seq, text, .. } => self.edit(step, place, (*seq, text)),
            What::Delete { seq, .. } => self.delete(step, place, *seq),
            What::Hide { seq, .. } => self.hide(by, place, *seq),
            What::React {
                seq, emoji, add, ..
            } => self.react(step, place, *seq, (emoji.as_deref(), *add)),
            What::Pin { seq, on, .. } => self.pin(step, place, (*seq, *on)),
            What::Report { seq, .. } => {
                let is_there = conversation.there(by, *seq).is_some();
                is_there.then_some(Answer::Done).ok_or("not_found")
            }
            What::Read { seq, private, .. } => self.read(by, place, (*seq, *private)),
            What::Unread { flag, .. } => Ok(self.flag(by, place, *flag)),
            What::Received { seq, .. } => self.received(by, place, *seq),
            What::Prefer {
                muted,
                archived,
                on_top,
                watch,
                ..
            } => self.prefer(by, place, [*muted, *archived, *on_top, *watch]),
            change => self.change(step, place, change),
        }
    }

    /// The answer to what was stored before.
    fn repeated(&self, place: Place, step: &Step) -> Option<Judged> {
        let id = step.id.as_ref().filter(|_| step.what.takes_id())?;
        let ids = &self.conversations[place].ids;
        let (what, seq) = ids.get(&(step.by, id.clone()))?;
        Some(if *what == step.what {
            Ok(Answer::Placed {
                seq: *seq,
                dup: true,
            })
        } else {
            Err("idempotency_conflict")
        })
    }

    // -- writing

    /// The direct conversation of two users: the first message makes it.
    fn direct_or_new(&mut self, one: User, other: User) -> Place {
        if let Some(place) = self.direct(one, other) {
            return place;
        }
        let mut made = Conversation::new(self.direct_cid(one, other), Kind::Direct);
        made.history = History::Joined;
        for user in [one, other] {
            let mut member = Member {
                joined: 0,
                ..new_member(Role::Member, 1, 1)
            };
            let peer = if user == one { other } else { one };
            member.marks.blocks = self.blocks.contains(&(user, peer));
            made.members.insert(user, member);
        }
        self.conversations.push(made);
        let place = self.conversations.len() - 1;
        let pair = (one.min(other), one.max(other));
        self.directs.insert(pair, place);
        place
    }

    fn write_first(&mut self, step: &Step) -> Judged {
        let What::Send {
            to: To::User(other),
            text,
            ..
        } = &step.what
        else {
            unreachable!("all others say where")
        };
        if text.contains(DOUBTFUL) {
            return Err("forbidden"); // where nobody moderates
        }
        let place = self.direct_or_new(step.by, *other);
        Ok(self.push(step, place, written("message", step, text)))
    }

    fn send(&mut self, step: &Step, place: Place, (how, text): (How, &str)) -> Judged {
        let conversation = &self.conversations[place];
        if !may_write(conversation, step.by) {
            return Err("forbidden");
        }
        if conversation.kind == Kind::Broadcast && how != How::Plain {
            return Err("format");
        }
        let mut entry = written("message", step, text);
        let message = |seq| conversation.message(step.by, seq).ok_or("not_found");
        match how {
            How::Plain => {}
            How::Reply(seq) => {
                entry.target = Some(seq);
                entry.thread = message(seq)?.thread;
            }
            How::Thread(seq) => entry.thread = Some(message(seq)?.thread.unwrap_or(seq)),
        }
        if text.contains(DOUBTFUL) {
            return self.hold(step, place, entry);
        }
        self.reopen(step.by, place)?;
        let answer = self.push(step, place, entry);
        if self.conversations[place].kind == Kind::Broadcast {
            self.broadcast(place);
        }
        Ok(answer)
    }

    // -- the log

    /// An entry of a step is stored.
    fn push(&mut self, step: &Step, place: Place, entry: Entry) -> Answer {
        self.append(place, step.by, entry);
        self.remember(step, place)
    }

    /// A step is done, at the head.
    fn remember(&mut self, step: &Step, place: Place) -> Answer {
        let conversation = &mut self.conversations[place];
        let seq = conversation.head();
        if let Some(id) = &step.id {
            let key = (step.by, id.clone());
            conversation.ids.insert(key, (step.what.clone(), seq));
        }
        Answer::Placed { seq, dup: false }
    }

    /// An entry is stored: all members have something new, but for who has blocked its sender, and readers, who look.
    fn append(&mut self, place: Place, from: User, mut entry: Entry) {
        entry.from = from;
        let conversation = &mut self.conversations[place];
        let others = conversation.members.keys().filter(|user| **user != from);
        let acts = !["message", "created"].contains(&entry.kind);
        let target = entry.target.filter(|_| acts);
        let target = target.and_then(|target| conversation.entry(target));
        entry.kept_from = others.copied().find(|user| {
            let blocks = conversation.blocks(*user);
            match target {
                Some(target) if target.kept_from == Some(*user) => true,
                // That a message was deleted which he had seen, he is told.
                Some(target) if entry.kind == "deleted" => blocks && target.is_hidden_from(*user),
                _ => blocks,
            }
        });
        let kept_from = entry.kept_from;
        conversation.log.push(entry);
        for user in self.conversations[place].told_of() {
            if kept_from != Some(user) {
                self.changed[user].insert(place);
            }
        }
    }

    /// What was said in the channels of a reader is told by the next sync.
    pub(super) fn look_at_channels(&mut self, user: User) {
        for (place, conversation) in self.conversations.iter().enumerate() {
            let reads = conversation.is_present(user) && conversation.is_many(user);
            let told = self.told.get(&(user, place)).copied().unwrap_or(0);
            if reads && told < conversation.head() {
                self.changed[user].insert(place);
            }
        }
    }

    /// A sync has told everything.
    pub(super) fn is_told(&mut self, user: User) -> BTreeSet<Place> {
        let changed = std::mem::take(&mut self.changed[user]);
        for place in &changed {
            let conversation = &self.conversations[*place];
            if conversation.is_present(user) && conversation.is_many(user) {
                self.told.insert((user, *place), conversation.head());
            }
        }
        changed
    }

    /// Something changed for one user only. Former members are told nothing more.
    fn own_change(&mut self, user: User, place: Place) {
        if self.conversations[place].is_present(user) {
            self.changed[user].insert(place);
        }
    }
}

/// Members and above write in groups, both do in a direct conversation.
fn may_write(conversation: &Conversation, user: User) -> bool {
    let member = &conversation.members[&user];
    member.is_present() && (conversation.is_direct() || member.role >= Role::Member)
}

/// Who writes reacts, and so do the readers of a channel; in a broadcast list nobody does.
fn may_react(conversation: &Conversation, user: User) -> bool {
    match conversation.kind {
        Kind::Broadcast => false,
        Kind::Channel => conversation.is_present(user),
        Kind::Direct | Kind::Group | Kind::Case => may_write(conversation, user),
    }
}

fn new_member(role: Role, from: u64, joined: u64) -> Member {
    let mut member = Member {
        role,
        joined,
        visible: Vec::new(),
        awaited: Vec::new(),
        forgone: 0,
        marks: Marks::default(),
    };
    member.join(from, joined);
    member
}

/// Members as the log tells of them: not those who are one of many.
fn listed(kind: Kind, members: &[(User, Role)]) -> Value {
    let told = members.iter().filter(|(_, role)| !kind.has_many(*role));
    let one = |(user, role): &(User, Role)| json!({"uid": user, "role": role.name()});
    told.map(one).collect()
}

fn system(kind: &'static str, data: Value) -> Entry {
    Entry {
        kind,
        from: 0,
        text: String::new(),
        format: "system",
        data,
        target: None,
        thread: None,
        deleted: false,
        edits: Vec::new(),
        reactions: Vec::new(),
        pinned_by: None,
        hidden_from: BTreeSet::new(),
        kept_from: None,
    }
}

/// An entry that tells what was done to a message.
fn act(kind: &'static str, target: u64, data: Value) -> Entry {
    Entry {
        target: Some(target),
        ..system(kind, data)
    }
}

fn written(kind: &'static str, step: &Step, text: &str) -> Entry {
    Entry {
        text: text.to_owned(),
        format: step.format(),
        ..system(kind, Value::Null)
    }
}
