//! The state of the client, without terminal, network or clock: inputs go in, what is to be done comes out.

mod choice;
mod keys;
mod room;
mod select;

use std::collections::{BTreeMap, HashMap};

use client_sdk::{Connection, ConversationId, Seq, Target, UserId};
use crossterm::event::KeyEvent;

pub(crate) use choice::{Confirm, Mode, Prompt, PromptKind, Search, Switch, Told};
pub(crate) use keys::effect;
pub(crate) use room::{Anchor, Room};

use crate::clock::Zone;
use crate::command::HELP;
use crate::compose::Compose;
use crate::effect::{Act, Answer, Ask, At, Effect, Listing};
use crate::items::{Item, NOTE, Row};
use crate::layout::{Look, lines, seen};
use crate::text::Shown;

/// Texts that were begun, of other conversations.
const DRAFTS_MAX: usize = 100;
/// Lines that were typed and can be had again.
const PAST_MAX: usize = 200;
/// How long a word to the user stays.
const NOTICE_MS: u64 = 8_000;
/// How long somebody is typing without saying so again.
const TYPING_MS: u64 = 6_000;
/// How often it is said that this user is typing.
const TYPING_AGAIN_MS: u64 = 3_000;
/// People whose presence or typing is remembered.
const PEOPLE_MAX: usize = 1_000;
/// With fewer columns the list is not shown beside the log.
const NARROW: u16 = 60;

/// Something that happens to the model.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The screen has another size.
    Resize(u16, u16),
    /// The terminal is in front, or no longer.
    Focus(bool),
    /// Time has passed.
    Tick,
    /// The connection changed.
    Connection(Connection),
    /// A conversation changed: anything of it, or only its receipts.
    Changed(ConversationId),
    /// Something in the outbox is settled, or was refused, and why.
    Settled(Option<ConversationId>, Option<String>),
    /// Somebody is typing, or no longer.
    Typing(ConversationId, String, bool),
    /// How somebody is.
    Presence(String, String),
    /// Look at everything again.
    Refresh,
    /// What came of an effect.
    Answer(Answer),
}

/// How things are with the server, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Not connected yet, or not now.
    Away(Shown),
    /// Connected.
    Online,
    /// It will not be tried again.
    Ended(Shown),
}

/// A word to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: Shown,
    pub(crate) is_trouble: bool,
    until: u64,
}

/// All that is shown.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is true or not by itself"
)]
pub(crate) struct Model {
    pub(crate) login: String,
    pub(crate) me: Option<(UserId, String)>,
    pub(crate) zone: Zone,
    pub(crate) ascii: bool,
    pub(crate) size: (u16, u16),
    pub(crate) link: Link,
    pub(crate) rows: Vec<Row>,
    pub(crate) is_listed: bool,
    pub(crate) waiting: usize,
    pub(crate) refused: usize,
    pub(crate) room: Option<Room>,
    pub(crate) mode: Mode,
    pub(crate) notice: Option<Notice>,
    pub(crate) is_focused: bool,
    pub(crate) now: u64,
    presence: HashMap<String, String>,
    typing: BTreeMap<(ConversationId, String), u64>,
    drafts: HashMap<Target, Compose>,
    past: Vec<String>,
    /// Which of `past` is shown, and what was written before.
    recalled: Option<(usize, String)>,
    typed: u64,
    /// Keys that were pressed, and how many there were when a group was asked for.
    touched: u64,
    asked_at: u64,
    /// Searches that were made.
    searches: u64,
    /// Whose presence is watched.
    watched: Option<String>,
    listing: bool,
    list_stale: bool,
    /// Counts unread messages that ring.
    rung: u64,
}

impl Model {
    /// At this time, before anything is known.
    pub(crate) fn new(login: &str, zone: Zone, ascii: bool, now: u64) -> Self {
        Self {
            login: login.to_owned(),
            me: None,
            zone,
            ascii,
            size: (80, 24),
            link: Link::Away(Shown::line("connecting")),
            rows: Vec::new(),
            is_listed: false,
            waiting: 0,
            refused: 0,
            room: None,
            mode: Mode::Write,
            notice: None,
            is_focused: true,
            now,
            presence: HashMap::new(),
            typing: BTreeMap::new(),
            drafts: HashMap::new(),
            past: Vec::new(),
            recalled: None,
            typed: 0,
            touched: 0,
            asked_at: 0,
            searches: 0,
            watched: None,
            listing: false,
            list_stale: false,
            rung: 0,
        }
    }

    /// What is to be done first; where to go.
    pub(crate) fn start(&mut self, to: Option<&str>) -> Vec<Effect> {
        let mut todo = Vec::new();
        self.relist(&mut todo);
        if let Some(whom) = to {
            self.go(whom.to_owned(), &mut todo);
        }
        todo
    }

    /// Something happened at this time. What is to be done, in order.
    pub(crate) fn update(&mut self, now: u64, input: Input) -> Vec<Effect> {
        self.now = now;
        let mut todo = Vec::new();
        self.forget_the_past();
        match input {
            Input::Key(key) => self.key(key, &mut todo),
            Input::Paste(text) => self.paste(&text, &mut todo),
            Input::Resize(columns, rows) => self.size = (columns, rows),
            Input::Focus(is_focused) => self.is_focused = is_focused,
            Input::Tick => {}
            Input::Connection(connection) => self.connected(connection, &mut todo),
            Input::Changed(cid) => {
                self.relist(&mut todo);
                if self.room.as_ref().is_some_and(|room| room.cid == Some(cid)) {
                    self.refresh(&mut todo);
                }
            }
            Input::Settled(cid, refused) => self.settled(cid, refused, &mut todo),
            Input::Typing(cid, handle, is_typing) => self.heard_typing(cid, handle, is_typing),
            Input::Presence(handle, state) => {
                if self.presence.len() < PEOPLE_MAX || self.presence.contains_key(&handle) {
                    self.presence.insert(handle, state);
                }
            }
            Input::Refresh => {
                self.relist(&mut todo);
                self.refresh(&mut todo);
            }
            Input::Answer(answer) => self.answered(answer, &mut todo),
        }
        self.fill(&mut todo);
        self.mark_read(&mut todo);
        todo
    }

    /// Something on the screen ends by itself.
    pub(crate) fn wants_ticks(&self) -> bool {
        self.notice.is_some() || !self.typing.is_empty()
    }

    fn forget_the_past(&mut self) {
        let now = self.now;
        self.typing.retain(|_, until| *until > now);
        if self
            .notice
            .as_ref()
            .is_some_and(|notice| notice.until <= now)
        {
            self.notice = None;
        }
    }

    /// Tells the user a word.
    pub(crate) fn say(&mut self, text: &str) {
        self.notify(text, false);
    }

    /// Tells the user what is wrong.
    pub(crate) fn complain(&mut self, text: &str) {
        self.notify(text, true);
    }

    fn notify(&mut self, text: &str, is_trouble: bool) {
        self.notice = Some(Notice {
            text: Shown::line(text),
            is_trouble,
            until: self.now.saturating_add(NOTICE_MS),
        });
    }

    fn connected(&mut self, connection: Connection, todo: &mut Vec<Effect>) {
        let ended = |why: &str| Link::Ended(Shown::line(why));
        self.link = match connection {
            Connection::Online => Link::Online,
            Connection::Connecting => Link::Away(Shown::line("connecting")),
            Connection::Offline { reason } => {
                Link::Away(Shown::line(&format!("offline: {reason}")))
            }
            Connection::SignIn(why) => ended(&format!(
                "not let in: {why}; start again with the right password"
            )),
            Connection::Replaced => ended("another program is connected as this device"),
            Connection::TooManyDevices => ended("this user has too many devices"),
            Connection::Failed(error) => ended(&error.to_string()),
            _ => ended("closed"),
        };
        if self.link == Link::Online {
            if let Some(room) = &mut self.room {
                room.hope();
            }
            self.relist(todo);
            self.refresh(todo);
        } else {
            self.presence.clear();
        }
    }

    fn settled(
        &mut self,
        cid: Option<ConversationId>,
        refused: Option<String>,
        todo: &mut Vec<Effect>,
    ) {
        if let Some(why) = refused {
            self.complain(&format!(
                "not sent: {why}; Ctrl-Up selects it, r tries again, x drops it"
            ));
        }
        self.relist(todo);
        let is_here = |room: &Room| cid.is_none() || room.cid.is_none() || room.cid == cid;
        if self.room.as_ref().is_some_and(is_here) {
            self.refresh(todo);
        }
    }

    fn heard_typing(&mut self, cid: ConversationId, handle: String, is_typing: bool) {
        let key = (cid, handle);
        if !is_typing {
            self.typing.remove(&key);
        } else if self.typing.len() < PEOPLE_MAX || self.typing.contains_key(&key) {
            self.typing.insert(key, self.now.saturating_add(TYPING_MS));
        }
    }

    /// Who is typing in the conversation that is open.
    pub(crate) fn typists(&self) -> Vec<&str> {
        let cid = self.room.as_ref().and_then(|room| room.cid);
        let here = self.typing.keys().filter(|(at, _)| Some(*at) == cid);
        here.map(|(_, handle)| handle.as_str()).collect()
    }

    /// How the other one of a direct conversation is, as far as that is known.
    pub(crate) fn peer_presence(&self) -> Option<&str> {
        let peer = self.peer()?;
        self.presence.get(&peer).map(String::as_str)
    }

    fn peer(&self) -> Option<String> {
        let room = self.room.as_ref()?;
        match (&room.target, self.row_of(&room.target)) {
            (Target::Handle(handle), _) => Some(handle.to_string()),
            (_, Some(row)) if !row.is_note => row.peer.clone(),
            _ => None,
        }
    }

    fn answered(&mut self, answer: Answer, todo: &mut Vec<Effect>) {
        match answer {
            Answer::Listed(listing) => self.listed(listing, todo),
            Answer::Paged(target, at, page) => {
                if let Some(room) = self.room.as_mut().filter(|room| room.target == target) {
                    todo.extend(room.take(at, page));
                    self.name_the_room(todo);
                }
            }
            Answer::NoPage(target, at, why) => {
                if let Some(room) = self.room.as_mut().filter(|room| room.target == target) {
                    todo.extend(room.fail(at));
                    self.complain(&why);
                }
            }
            Answer::NotListed(why) => {
                self.listing = false;
                self.complain(&why);
            }
            Answer::Found(number, hits, after) => {
                if let Mode::Search(search) = &mut self.mode {
                    search.take(number, hits, after);
                }
            }
            Answer::NotFound(number, why) => {
                if let Mode::Search(search) = &mut self.mode {
                    search.fail(number);
                }
                self.complain(&why);
            }
            Answer::Opened(whom, target) => {
                if let Some(held) = self.stop_going(&whom) {
                    self.open(target, todo);
                    self.type_again(held, true, todo);
                }
            }
            Answer::NotOpened(whom, why) => {
                if let Some(held) = self.stop_going(&whom) {
                    self.type_again(held, false, todo);
                }
                self.complain(&why);
            }
            // Only who still waits for it is taken there.
            Answer::Made(target) => {
                if matches!(self.mode, Mode::Write) && self.touched == self.asked_at {
                    self.open(target, todo);
                } else {
                    self.say("the group is made: Ctrl-K goes there");
                }
                self.relist(todo);
            }
            Answer::Queued(target, _) => {
                self.relist(todo);
                if self.room.as_ref().is_some_and(|room| room.target == target) {
                    self.refresh(todo);
                }
            }
            Answer::NotQueued(target, text, why) => self.give_back(&target, text, &why),
            Answer::Done(word) => {
                self.say(&word);
                self.relist(todo);
                self.refresh(todo);
            }
            Answer::Failed(why) => self.complain(&why),
            Answer::Told(title, lines) => {
                if matches!(self.mode, Mode::Write) {
                    self.mode = Mode::Told(Told::new(title, lines));
                } else {
                    self.say(title.as_str());
                }
            }
        }
    }

    /// The keys that waited for this, if it is still what is waited for.
    fn stop_going(&mut self, to: &str) -> Option<Vec<KeyEvent>> {
        let Mode::Going(whom, held) = &mut self.mode else {
            return None;
        };
        if whom != to {
            return None;
        }
        let held = std::mem::take(held);
        self.mode = Mode::Write;
        Some(held)
    }

    /// Nothing that was typed is lost.
    fn give_back(&mut self, target: &Target, text: String, why: &str) {
        self.complain(why);
        let target = &self
            .row_of(target)
            .map_or_else(|| target.clone(), |row| row.target.clone());
        let compose = match &mut self.room {
            Some(room) if room.target == *target => &mut room.compose,
            _ => self.drafts.entry(target.clone()).or_default(),
        };
        if compose.is_empty() {
            *compose = Compose::with(text);
        } else {
            self.past.push(text);
        }
    }

    fn listed(&mut self, listing: Listing, todo: &mut Vec<Effect>) {
        self.listing = false;
        self.is_listed = true;
        let loud = |row: &&Row| !row.muted && !row.archived;
        let unread = listing.rows.iter().filter(loud).map(|row| row.unread).sum();
        if unread > self.rung
            && (!self.is_focused || unread > self.rung + self.unread_here(&listing))
        {
            todo.push(Effect::Bell);
        }
        self.rung = unread;
        self.me = listing.me.or_else(|| self.me.take());
        self.rows = listing.rows;
        // Those on top stay there; otherwise the newest first, as they come.
        self.rows.sort_by_key(|row| !row.pinned);
        (self.waiting, self.refused) = (listing.waiting, listing.refused);
        self.name_the_drafts();
        self.name_the_room(todo);
        self.greet(todo);
        // Never under somebody's hands.
        if self.room.is_none()
            && self.touched == 0
            && matches!(self.mode, Mode::Write)
            && let Some(first) = self.visible_rows().first().map(|row| row.target.clone())
        {
            self.open(first, todo);
        }
        if std::mem::take(&mut self.list_stale) {
            self.relist(todo);
        }
    }

    fn unread_here(&self, listing: &Listing) -> u64 {
        let room = self.room.as_ref();
        let here = room.and_then(|room| listing.rows.iter().find(|row| row.is(&room.target)));
        here.map_or(0, |row| row.unread)
    }

    /// What was begun for a user is found again when the conversation has its id.
    fn name_the_drafts(&mut self) {
        let begun = self
            .drafts
            .keys()
            .filter(|target| !matches!(target, Target::Conversation(_)));
        let begun: Vec<_> = begun.cloned().collect();
        for target in begun {
            if let Some(named) = self.row_of(&target).map(|row| row.target.clone())
                && named != target
                && let Some(compose) = self.drafts.remove(&target)
            {
                self.drafts.entry(named).or_insert(compose);
            }
        }
    }

    /// What the list knows of the open conversation is looked at once, as soon as it is there.
    fn greet(&mut self, todo: &mut Vec<Effect>) {
        let Some(room) = self.room.as_ref().filter(|room| !room.is_greeted) else {
            return;
        };
        let Some(row) = self.rows.iter().find(|row| row.is(&room.target)) else {
            return;
        };
        let (read, unread, flagged) = (row.read, row.unread, row.flagged);
        if let Some(room) = &mut self.room {
            room.is_greeted = true;
            if flagged {
                todo.push(Effect::Act(room.target.clone(), Act::Unread(false)));
            }
            if unread > 0 && room.new_after.is_none() {
                room.new_after = Some(read);
            }
            room.marked = room.marked.max(read);
        }
        self.watch(todo);
    }

    /// Watches the other one of the open conversation, and nobody else.
    fn watch(&mut self, todo: &mut Vec<Effect>) {
        let peer = self.peer();
        if self.watched != peer {
            todo.extend(self.watched.take().map(Effect::Unwatch));
            todo.extend(peer.clone().map(Effect::Watch));
            self.watched = peer;
        }
    }

    /// The conversation with a user gets its id with the first message.
    fn name_the_room(&mut self, todo: &mut Vec<Effect>) {
        let Some(room) = &mut self.room else { return };
        if matches!(room.target, Target::Conversation(_)) {
            return;
        }
        let row = self.rows.iter().find(|row| row.is(&room.target));
        if let Some(cid) = row.and_then(Row::cid) {
            let (anchor, compose) = (room.anchor.take(), std::mem::take(&mut room.compose));
            let (waiting, items) = (
                std::mem::take(&mut room.waiting),
                std::mem::take(&mut room.items),
            );
            let replying = room.replying;
            let mut named = Room::new(Target::Conversation(cid), compose);
            (named.anchor, named.waiting, named.items) = (anchor, waiting, items);
            named.replying = replying;
            *room = named;
            self.refresh(todo);
        }
    }

    /// The conversation of the list that is meant.
    pub(crate) fn row_of(&self, target: &Target) -> Option<&Row> {
        self.rows.iter().find(|row| row.is(target))
    }

    /// What the list shows.
    pub(crate) fn visible_rows(&self) -> Vec<&Row> {
        let open = self.room.as_ref().map(|room| &room.target);
        let is_shown = |row: &&Row| !row.archived || open.is_some_and(|open| row.is(open));
        self.rows.iter().filter(is_shown).collect()
    }

    /// How the conversation that is open is called.
    pub(crate) fn title(&self) -> Shown {
        let Some(room) = &self.room else {
            return Shown::default();
        };
        let row = self.row_of(&room.target);
        row.map_or_else(
            || match &room.target {
                Target::Me => Shown::line(NOTE),
                target => Shown::line(&target.to_string()),
            },
            |row| row.title.clone(),
        )
    }

    fn relist(&mut self, todo: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.listing, true) {
            self.list_stale = true;
        } else {
            todo.push(Effect::List);
        }
    }

    fn refresh(&mut self, todo: &mut Vec<Effect>) {
        if let Some(room) = &mut self.room {
            todo.extend(room.refresh());
        }
    }

    /// Opens a conversation.
    pub(crate) fn open(&mut self, target: Target, todo: &mut Vec<Effect>) {
        self.mode = Mode::Write;
        if self.room.as_ref().is_some_and(|room| room.target == target) {
            return;
        }
        self.leave(todo);
        let compose = self.drafts.remove(&target).unwrap_or_default();
        let mut room = Room::new(target, compose);
        todo.extend(room.refresh());
        self.room = Some(room);
        self.recalled = None;
        self.greet(todo);
        self.watch(todo);
    }

    fn leave(&mut self, todo: &mut Vec<Effect>) {
        self.stop_typing(todo);
        let Some(mut room) = self.room.take() else {
            return;
        };
        let compose = std::mem::take(&mut room.compose);
        if room.editing.is_none() && !compose.is_empty() {
            if self.drafts.len() >= DRAFTS_MAX
                && let Some(other) = self.drafts.keys().next().cloned()
                && let Some(lost) = self.drafts.remove(&other)
            {
                self.remember(lost.text().to_owned());
            }
            self.drafts.insert(room.target, compose);
        }
    }

    fn remember(&mut self, line: String) {
        if self.past.last() != Some(&line) {
            self.past.push(line);
        }
        if self.past.len() > PAST_MAX {
            self.past.remove(0);
        }
    }

    /// There is room for anything but an excuse.
    pub(crate) fn is_drawn(&self) -> bool {
        self.size.0 >= 20 && self.size.1 >= 6
    }

    /// Columns and rows of the log.
    pub(crate) fn log_size(&self) -> (usize, usize) {
        let (columns, rows) = self.size;
        let columns = columns.saturating_sub(self.list_columns());
        // A title, what is written, the line of state.
        let taken = 2 + self.compose_rows() + u16::from(self.is_quoting());
        // A column says what is selected.
        let columns = columns.saturating_sub(1).max(2);
        (
            usize::from(columns),
            usize::from(rows.saturating_sub(taken)),
        )
    }

    /// Columns of the list; 0 if it is not shown.
    pub(crate) fn list_columns(&self) -> u16 {
        let (columns, _) = self.size;
        if columns < NARROW {
            0
        } else {
            (columns / 4).clamp(20, 32)
        }
    }

    /// What is written answers or changes a message.
    pub(crate) fn is_quoting(&self) -> bool {
        let room = self.room.as_ref();
        room.is_some_and(|room| room.replying.is_some() || room.editing.is_some())
    }

    /// Rows of what is written: 1 to 6.
    pub(crate) fn compose_rows(&self) -> u16 {
        let (columns, rows) = self.size;
        let columns = columns.saturating_sub(self.list_columns() + 2);
        let lines = self
            .room
            .as_ref()
            .map_or(1, |room| room.compose.drawn(usize::from(columns)).0.len());
        let most = (rows / 3).clamp(1, 6);
        u16::try_from(lines).unwrap_or(most).clamp(1, most)
    }

    /// How the log is to be told.
    pub(crate) fn look(&self) -> Look<'_> {
        Look {
            zone: &self.zone,
            ascii: self.ascii,
            columns: self.log_size().0,
        }
    }

    /// What is not enough for a screen is filled up.
    fn fill(&mut self, todo: &mut Vec<Effect>) {
        let (_, rows) = self.log_size();
        let look = self.look();
        let Some(room) = self.room.as_ref().filter(|room| room.has_older()) else {
            return;
        };
        // Each item has a line.
        if room.anchor.is_none() && room.items.len() >= rows {
            return;
        }
        let lines = lines(room, &look);
        let is_short = seen(&lines, room.anchor.as_ref(), rows).start == 0;
        if is_short && let Some(room) = &mut self.room {
            todo.extend(room.load_older());
        }
    }

    /// What is on the screen at the end, before eyes, is read.
    fn mark_read(&mut self, todo: &mut Vec<Effect>) {
        let is_covered = matches!(self.mode, Mode::Told(_) | Mode::Search(_) | Mode::Switch(_));
        if !self.is_drawn() || self.log_size().1 == 0 {
            return;
        }
        let Some(room) = &mut self.room else { return };
        if !self.is_focused || is_covered || !room.is_at_end() {
            return;
        }
        let newest = room
            .items
            .iter()
            .rev()
            .find(|item| !item.mine && item.words().is_some());
        let Some(seq) = newest.and_then(Item::seq) else {
            return;
        };
        if seq > room.marked && room.cid.is_some() {
            let end = room.span.map_or(seq, |(_, last)| last);
            room.marked = end;
            todo.push(Effect::Act(room.target.clone(), Act::Read(Some(end))));
        }
    }

    fn stop_typing(&mut self, todo: &mut Vec<Effect>) {
        if self.typed > 0
            && let Some(room) = &self.room
        {
            todo.push(Effect::Typing(room.target.clone(), false));
        }
        self.typed = 0;
    }

    fn go_on_typing(&mut self, todo: &mut Vec<Effect>) {
        let Some(room) = &self.room else { return };
        if room.compose.is_empty() {
            self.stop_typing(todo);
            return;
        }
        let is_told = self.typed > 0 && self.now < self.typed.saturating_add(TYPING_AGAIN_MS);
        let is_command = room.compose.text().starts_with('/');
        if room.cid.is_some() && !is_told && !is_command {
            todo.push(Effect::Typing(room.target.clone(), true));
            self.typed = self.now.max(1);
        }
    }

    /// Keys and commands, to be read.
    fn help(&mut self) {
        let mut lines: Vec<_> = keys::HELP
            .iter()
            .chain(&[("", "")])
            .chain(HELP)
            .map(|(key, does)| Shown::line(&format!("{key:<24}{does}")))
            .collect();
        lines.push(Shown::default());
        let signs = if self.ascii {
            ". waiting   + sent   ++ delivered, read by all others   ! refused"
        } else {
            "⧗ waiting   ✓ sent   ✓✓ delivered to, read by all others   ✗ refused"
        };
        lines.push(Shown::line(signs));
        lines.push(Shown::line(
            "In the list: @ mentioned, * unread, ~ muted, ^ on top, > open",
        ));
        self.mode = Mode::Told(Told::new(Shown::line("Help"), lines));
    }

    fn ask(&mut self, make: impl FnOnce(Target) -> Ask, todo: &mut Vec<Effect>) {
        match &self.room {
            Some(room) => todo.push(Effect::Ask(make(room.target.clone()))),
            None => self.complain("no conversation is open"),
        }
    }

    fn act(&mut self, act: Act, todo: &mut Vec<Effect>) {
        match &self.room {
            Some(room) => todo.push(Effect::Act(room.target.clone(), act)),
            None => self.complain("no conversation is open"),
        }
    }

    /// Goes to a message.
    fn jump(&mut self, cid: ConversationId, seq: Seq, todo: &mut Vec<Effect>) {
        self.open(Target::Conversation(cid), todo);
        if let Some(room) = &mut self.room {
            // What `open` asked for is not what is to be seen.
            todo.retain(|effect| !matches!(effect, Effect::Page(_, At::Newest, _)));
            todo.extend(room.jump_to(seq));
            self.mode = Mode::Select;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
