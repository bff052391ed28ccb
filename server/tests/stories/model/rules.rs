//! The chat as plain data and rules: what each step must be answered, and what each user must see afterwards.
//!
//! Slow and simple on purpose: lists are searched from end to end, counts are counted. It knows nothing of topics, packets,
//! sessions and stores. `docs/protocol.md` says in words what is said here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::step::{History, How, Step, To, What};

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
    pub(super) direct: bool,
    pub(super) title: String,
    pub(super) history: History,
    pub(super) log: Vec<Entry>,
    pub(super) members: BTreeMap<User, Member>,
    banned: BTreeSet<User>,
    /// What was stored under which id.
    ids: BTreeMap<(User, String), (What, u64)>,
}

impl Conversation {
    fn new(cid: String, direct: bool) -> Self {
        Self {
            cid,
            direct,
            title: String::new(),
            history: History::Joined,
            log: Vec::new(),
            members: BTreeMap::new(),
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

    /// Some device of a user acknowledged everything up to here.
    pub(super) fn acknowledged(&mut self, user: User, seq: u64) {
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
                "uid" | "owner" | "former" => (name.clone(), uid(value)),
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
    pub(super) conversations: Vec<Conversation>,
    directs: BTreeMap<(User, User), Place>,
    /// Who has blocked whom.
    blocks: BTreeSet<(User, User)>,
    /// What an account sync has to tell each user.
    pub(super) changed: [BTreeSet<Place>; NAMES.len()],
}

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

    /// A step happens. `cid` names the conversation that it makes, if it makes one.
    pub(super) fn take(&mut self, step: &Step, cid: &str) -> Answer {
        self.judge(step, cid).unwrap_or_else(Answer::Refused)
    }

    fn judge(&mut self, step: &Step, cid: &str) -> Judged {
        let by = step.by;
        if let What::Create { .. } = &step.what {
            return Ok(self.create(step, cid));
        }
        if let What::Block { user, on } = step.what {
            return self.block(by, user, on);
        }
        let Some(place) = self.place_of(step) else {
            return Ok(self.write_first(step, cid));
        };
        let conversation = &self.conversations[place];
        if !conversation.members.contains_key(&by) {
            return Err("not_found");
        }
        // A retry is answered as the first attempt was, whatever its sender may do now.
        if let Some(id) = &step.id
            && let Some((what, seq)) = conversation.ids.get(&(by, id.clone()))
            && step.what.makes_entry()
        {
            return if *what == step.what {
                Ok(Answer::Placed {
                    seq: *seq,
                    dup: true,
                })
            } else {
                Err("idempotency_conflict")
            };
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
                ..
            } => self.prefer(by, place, (*muted, *archived, *on_top)),
            change => self.change(step, place, change),
        }
    }

    // -- writing

    fn create(&mut self, step: &Step, cid: &str) -> Answer {
        let What::Create {
            title,
            history,
            members,
        } = &step.what
        else {
            unreachable!("asked for before")
        };
        let all: Vec<(User, Role)> = std::iter::once((step.by, Role::Owner))
            .chain(members.iter().copied())
            .collect();
        let mut made = Conversation::new(cid.to_owned(), false);
        title.clone_into(&mut made.title);
        made.history = *history;
        for (user, role) in &all {
            made.members.insert(*user, new_member(*role, 1, 1));
        }
        self.conversations.push(made);
        let data = json!({"title": title, "members": listed(&all)});
        self.push(step, self.conversations.len() - 1, system("created", data))
    }

    /// The first message between two users makes their conversation.
    fn write_first(&mut self, step: &Step, cid: &str) -> Answer {
        let What::Send {
            to: To::User(other),
            text,
            ..
        } = &step.what
        else {
            unreachable!("all others say where")
        };
        let mut made = Conversation::new(cid.to_owned(), true);
        made.history = History::Joined;
        for user in [step.by, *other] {
            let mut member = Member {
                joined: 0,
                ..new_member(Role::Member, 1, 1)
            };
            let peer = if user == step.by { *other } else { step.by };
            member.marks.blocks = self.blocks.contains(&(user, peer));
            made.members.insert(user, member);
        }
        self.conversations.push(made);
        let place = self.conversations.len() - 1;
        let pair = (step.by.min(*other), step.by.max(*other));
        self.directs.insert(pair, place);
        self.push(step, place, written("message", step, text))
    }

    fn send(&mut self, step: &Step, place: Place, (how, text): (How, &str)) -> Judged {
        let conversation = &self.conversations[place];
        if !may_write(conversation, step.by) {
            return Err("forbidden");
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
        Ok(self.push(step, place, entry))
    }

    // -- what happens to messages

    /// The message on which a present member acts.
    fn acted_on(&self, by: User, place: Place, seq: u64) -> Result<&Entry, &'static str> {
        let conversation = &self.conversations[place];
        let found = conversation.message(by, seq);
        found
            .filter(|_| conversation.is_present(by))
            .ok_or("not_found")
    }

    fn edit(&mut self, step: &Step, place: Place, (seq, text): (u64, &str)) -> Judged {
        let message = self.acted_on(step.by, place, seq)?;
        if message.from != step.by || !may_write(&self.conversations[place], step.by) {
            return Err("forbidden");
        }
        if message.edits.len() >= EDITS_MAX {
            return Err("limit");
        }
        let mut entry = written("edit", step, text);
        entry.target = Some(seq);
        let answer = self.push(step, place, entry);
        let conversation = &mut self.conversations[place];
        let head = conversation.head();
        conversation.entry_mut(seq).unwrap().edits.push(head);
        Ok(answer)
    }

    fn delete(&mut self, step: &Step, place: Place, seq: u64) -> Judged {
        let conversation = &self.conversations[place];
        let member = &conversation.members[&step.by];
        let message = conversation
            .there(step.by, seq)
            .filter(|entry| entry.kind == "message" && member.is_present())
            .ok_or("not_found")?;
        let moderates = !conversation.direct && member.role >= Role::Moderator;
        if message.from != step.by && !moderates {
            return Err("forbidden");
        }
        if message.deleted {
            return Ok(Answer::Done);
        }
        let answer = self.push(step, place, act("deleted", seq, json!({"target": seq})));
        let conversation = &mut self.conversations[place];
        let edits = conversation.entry(seq).unwrap().edits.clone();
        for gone in edits.into_iter().chain([seq]) {
            let entry = conversation.entry_mut(gone).unwrap();
            entry.deleted = true;
            entry.reactions.clear();
            entry.pinned_by = None;
        }
        Ok(answer)
    }

    /// Any entry can be hidden, by former members as well.
    fn hide(&mut self, by: User, place: Place, seq: u64) -> Judged {
        let conversation = &mut self.conversations[place];
        conversation.there(by, seq).ok_or("not_found")?;
        let entry = conversation.entry_mut(seq).unwrap();
        if !entry.deleted && entry.hidden_from.insert(by) {
            self.own_change(by, place);
        }
        Ok(Answer::Done)
    }

    fn react(
        &mut self,
        step: &Step,
        place: Place,
        seq: u64,
        (emoji, add): (Option<&str>, bool),
    ) -> Judged {
        let by = step.by;
        let message = self.acted_on(by, place, seq)?;
        if !may_write(&self.conversations[place], by) {
            return Err("forbidden");
        }
        let own: Vec<&str> = message
            .reactions
            .iter()
            .filter(|(_, users)| users.contains(&by))
            .map(|(emoji, _)| emoji.as_str())
            .collect();
        let data = match emoji {
            Some(emoji) if add && own.contains(&emoji) => return Ok(Answer::Done),
            Some(_) if add && own.len() >= EMOJI_MAX => return Err("limit"),
            Some(emoji) if add => json!({"target": seq, "emoji": emoji, "op": "add"}),
            Some(emoji) if !own.contains(&emoji) => return Ok(Answer::Done),
            Some(emoji) => json!({"target": seq, "emoji": emoji, "op": "remove"}),
            None if own.is_empty() => return Ok(Answer::Done),
            None => json!({"target": seq, "op": "clear"}),
        };
        let answer = self.push(step, place, act("reaction", seq, data));
        let message = self.conversations[place].entry_mut(seq).unwrap();
        if let Some(emoji) = emoji.filter(|_| add) {
            let reactions = &mut message.reactions;
            match reactions.iter_mut().find(|(known, _)| known == emoji) {
                Some((_, users)) => {
                    users.insert(by);
                }
                None => reactions.push((emoji.to_owned(), BTreeSet::from([by]))),
            }
        } else {
            for (known, users) in &mut message.reactions {
                if emoji.is_none_or(|emoji| emoji == known) {
                    users.remove(&by);
                }
            }
            message.reactions.retain(|(_, users)| !users.is_empty());
        }
        Ok(answer)
    }

    fn pin(&mut self, step: &Step, place: Place, (seq, on): (u64, bool)) -> Judged {
        let message = self.acted_on(step.by, place, seq)?;
        let conversation = &self.conversations[place];
        if !conversation.direct && conversation.members[&step.by].role < Role::Moderator {
            return Err("forbidden");
        }
        if message.pinned_by.is_some() == on {
            return Ok(Answer::Done);
        }
        let data = json!({"target": seq, "pinned": on});
        let answer = self.push(step, place, act("pin", seq, data));
        let message = self.conversations[place].entry_mut(seq).unwrap();
        message.pinned_by = on.then_some(step.by);
        Ok(answer)
    }

    // -- marks and decisions of one user

    fn read(&mut self, by: User, place: Place, (seq, private): (Option<u64>, bool)) -> Judged {
        let conversation = &mut self.conversations[place];
        let last = conversation.last_visible(by);
        let marks = &mut conversation.members.get_mut(&by).unwrap().marks;
        let seq = seq.unwrap_or_else(|| marks.shown_delivered().min(last));
        if seq > last {
            return Err("format");
        }
        let before = (marks.read, marks.own_read(), marks.unread_flag);
        let told = if private {
            0
        } else {
            conversation.told_mark(by, (before.0, seq))
        };
        let marks = &mut conversation.members.get_mut(&by).unwrap().marks;
        marks.read = told.max(marks.read);
        if told < seq {
            marks.private_read = seq.max(marks.private_read);
        }
        marks.unread_flag = false;
        if before != (marks.read, marks.own_read(), marks.unread_flag) {
            self.own_change(by, place);
        }
        Ok(Answer::Done)
    }

    fn flag(&mut self, by: User, place: Place, flag: bool) -> Answer {
        let member = self.conversations[place].members.get_mut(&by).unwrap();
        if std::mem::replace(&mut member.marks.unread_flag, flag) != flag {
            self.own_change(by, place);
        }
        Answer::Done
    }

    fn received(&mut self, by: User, place: Place, seq: u64) -> Judged {
        let conversation = &mut self.conversations[place];
        if seq > conversation.last_visible(by) {
            return Err("format");
        }
        conversation.acknowledged(by, seq);
        let marks = &mut conversation.members.get_mut(&by).unwrap().marks;
        marks.delivered_for_certain = marks.delivered_for_certain.max(marks.delivered.0);
        Ok(Answer::Done)
    }

    fn prefer(
        &mut self,
        by: User,
        place: Place,
        (muted, archived, on_top): (Option<bool>, Option<bool>, Option<bool>),
    ) -> Judged {
        if !self.conversations[place].is_present(by) {
            return Err("not_found");
        }
        let member = self.conversations[place].members.get_mut(&by).unwrap();
        let marks = &mut member.marks;
        let before = (marks.muted, marks.archived, marks.on_top);
        marks.muted = muted.unwrap_or(marks.muted);
        marks.archived = archived.unwrap_or(marks.archived);
        marks.on_top = on_top.unwrap_or(marks.on_top);
        if before != (marks.muted, marks.archived, marks.on_top) {
            self.own_change(by, place);
        }
        Ok(Answer::Done)
    }

    fn block(&mut self, by: User, user: User, on: bool) -> Judged {
        if user == by {
            return Err("format");
        }
        if on {
            self.blocks.insert((by, user));
        } else {
            self.blocks.remove(&(by, user));
        }
        if let Some(place) = self.direct(by, user) {
            self.member(place, by).marks.blocks = on;
        }
        Ok(Answer::Done)
    }

    // -- members and settings

    fn change(&mut self, step: &Step, place: Place, change: &What) -> Judged {
        let conversation = &self.conversations[place];
        let own = &conversation.members[&step.by];
        if !own.is_present() {
            return Err("not_found");
        }
        let (role, is_group) = (own.role, !conversation.direct);
        let is_admin = is_group && role >= Role::Admin;
        let theirs = |user: &User| {
            let member = conversation.members.get(user);
            let present = member.filter(|member| member.is_present());
            present.map(|member| member.role).ok_or("not_found")
        };
        let owners = |except: User| {
            let others = conversation.present().filter(move |user| *user != except);
            others.filter(|user| conversation.members[user].role == Role::Owner)
        };
        let entry = match change {
            What::Add {
                users, role: given, ..
            } => {
                if !is_admin || *given >= role {
                    return Err("forbidden");
                }
                let coming: Vec<(User, Role)> = users
                    .iter()
                    .filter(|user| !conversation.is_present(**user))
                    .map(|user| (*user, *given))
                    .collect();
                if coming.is_empty() {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                if coming
                    .iter()
                    .any(|(user, _)| conversation.banned.contains(user))
                {
                    return Err("forbidden");
                }
                self.join(place, &coming);
                system("added", json!({"members": listed(&coming)}))
            }
            What::Remove { user, .. } if *user != step.by => {
                let theirs = theirs(user)?;
                if !is_admin || theirs >= role {
                    return Err("forbidden");
                }
                self.part(place, *user);
                system("removed", json!({"uid": user}))
            }
            What::Remove { .. } | What::Leave { .. } => {
                if !is_group {
                    return Err("forbidden");
                }
                let others = conversation.present().any(|user| user != step.by);
                let is_last_owner = role == Role::Owner && owners(step.by).next().is_none();
                let mut data = json!({"uid": step.by});
                if is_last_owner && others {
                    let heir = match change {
                        What::Leave { heir, .. } => heir.filter(|heir| *heir != step.by),
                        _ => None,
                    };
                    let heir = heir.ok_or("last_owner")?;
                    theirs(&heir)?;
                    data["owner"] = json!(heir);
                    self.member(place, heir).role = Role::Owner;
                }
                self.part(place, step.by);
                system("left", data)
            }
            What::Role {
                user, role: given, ..
            } => {
                let theirs = theirs(user)?;
                let may = role == Role::Owner || (is_admin && theirs < role && *given < role);
                if !is_group || !may {
                    return Err("forbidden");
                }
                if theirs == *given {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                if theirs == Role::Owner && owners(*user).next().is_none() {
                    return Err("last_owner");
                }
                self.member(place, *user).role = *given;
                system("role", json!({"uid": user, "role": given.name()}))
            }
            What::Transfer { user, .. } => {
                if !is_group || role != Role::Owner {
                    return Err("forbidden");
                }
                theirs(user)?;
                if *user == step.by {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                self.member(place, step.by).role = Role::Admin;
                self.member(place, *user).role = Role::Owner;
                system(
                    "role",
                    json!({"uid": user, "role": "owner", "former": step.by}),
                )
            }
            What::Ban { user, .. } => {
                let theirs = theirs(user);
                if !is_admin || theirs.unwrap_or(Role::Reader) >= role {
                    return Err("forbidden");
                }
                if conversation.banned.contains(user) {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                self.conversations[place].banned.insert(*user);
                if theirs.is_ok() {
                    self.part(place, *user);
                }
                system("banned", json!({"uid": user}))
            }
            What::Unban { user, .. } => {
                if !is_admin {
                    return Err("forbidden");
                }
                if !self.conversations[place].banned.remove(user) {
                    return Err("not_found");
                }
                system("unbanned", json!({"uid": user}))
            }
            What::Settings { title, history, .. } => {
                if !is_admin {
                    return Err("forbidden");
                }
                let conversation = &mut self.conversations[place];
                let mut data = json!({});
                if let Some(title) = title {
                    title.clone_into(&mut conversation.title);
                    data["title"] = json!(title);
                }
                if let Some(history) = history {
                    conversation.history = *history;
                    data["history"] = history.in_json();
                }
                system("settings", data)
            }
            _ => unreachable!("no change of members: {change:?}"),
        };
        Ok(self.push(step, place, entry))
    }

    fn member(&mut self, place: Place, user: User) -> &mut Member {
        self.conversations[place].members.get_mut(&user).unwrap()
    }

    /// Those join with the next entry, and see of the time before it what the policy of the moment grants.
    fn join(&mut self, place: Place, coming: &[(User, Role)]) {
        let conversation = &mut self.conversations[place];
        let at = conversation.head() + 1;
        let from = match conversation.history {
            History::All => 1,
            History::Joined => at,
            History::Last(count) => at.saturating_sub(count).max(1),
        };
        for (user, role) in coming {
            match conversation.members.get_mut(user) {
                Some(member) => {
                    member.role = *role;
                    member.join(from, at);
                }
                None => {
                    conversation
                        .members
                        .insert(*user, new_member(*role, from, at));
                }
            }
        }
    }

    /// One leaves with the next entry, which is the last one to be seen.
    fn part(&mut self, place: Place, user: User) {
        let at = self.conversations[place].head() + 1;
        self.member(place, user).leave(at);
        self.changed[user].insert(place);
    }

    // -- the log

    /// An entry is stored: all members have something new, but for who has blocked its sender.
    fn push(&mut self, step: &Step, place: Place, mut entry: Entry) -> Answer {
        entry.from = step.by;
        let conversation = &mut self.conversations[place];
        let others = conversation.members.keys().filter(|user| **user != step.by);
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
        let seq = conversation.head();
        if let Some(id) = &step.id {
            let key = (step.by, id.clone());
            conversation.ids.insert(key, (step.what.clone(), seq));
        }
        for user in self.conversations[place].present() {
            if kept_from != Some(user) {
                self.changed[user].insert(place);
            }
        }
        Answer::Placed { seq, dup: false }
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
    member.is_present() && (conversation.direct || member.role >= Role::Member)
}

fn new_member(role: Role, from: u64, joined: u64) -> Member {
    let mut member = Member {
        role,
        joined,
        visible: Vec::new(),
        awaited: Vec::new(),
        marks: Marks::default(),
    };
    member.join(from, joined);
    member
}

fn listed(members: &[(User, Role)]) -> Value {
    let one = |(user, role): &(User, Role)| json!({"uid": user, "role": role.name()});
    members.iter().map(one).collect()
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
