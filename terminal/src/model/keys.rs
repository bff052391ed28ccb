//! What keys do.

use client_sdk::Target;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::choice::REACTIONS;
use super::{Mode, Model, Prompt, PromptKind, Search, Switch};
use crate::command::{self, Command, Entered, Which};
use crate::compose::Compose;
use crate::effect::{Act, Ask, Effect};

/// Keys that wait for a conversation.
const HELD_MAX: usize = 1_000;

/// Keys, with what they do.
pub(super) const HELP: &[(&str, &str)] = &[
    ("Enter", "send; Alt-Enter begins a new line"),
    (
        "Ctrl-N  Ctrl-P",
        "the next, the previous conversation (also Alt-Down, Alt-Up)",
    ),
    ("Ctrl-K", "go to a conversation, or write to somebody"),
    ("Ctrl-G", "make a group"),
    ("Ctrl-F", "search"),
    ("PgUp  PgDn  Ctrl-End", "through the log; to its end"),
    ("Ctrl-Up  Ctrl-Down", "select a message, then:"),
    (
        "  r e d h",
        "reply, edit, delete for all, hide from yourself",
    ),
    ("  + p i", "react, pin, who read it"),
    ("  r x", "of one that was refused: try again, drop"),
    (
        "Up  Down",
        "what was typed; Up on an empty line edits the last message",
    ),
    ("Tab", "complete @handle"),
    ("Esc", "back"),
    ("Ctrl-L", "paint the screen anew"),
    ("F1  Ctrl-C  Ctrl-Q", "this help; quit"),
];

impl Model {
    pub(super) fn paste(&mut self, text: &str, todo: &mut Vec<Effect>) {
        match &mut self.mode {
            Mode::Prompt(prompt) => prompt.field.insert(text),
            Mode::Switch(switch) => switch.field.insert(text),
            Mode::Search(search) => search.field.insert(text),
            Mode::Write | Mode::Select => {
                self.mode = Mode::Write;
                if let Some(room) = &mut self.room {
                    room.selected = None;
                    room.compose.insert(text);
                }
                self.go_on_typing(todo);
            }
            Mode::Going(..) | Mode::Told(_) | Mode::Confirm(_) => {}
        }
    }

    /// Asks for a conversation. What is typed meanwhile is meant for it.
    pub(super) fn go(&mut self, whom: String, todo: &mut Vec<Effect>) {
        self.mode = Mode::Going(whom.clone(), Vec::new());
        todo.push(Effect::Open(whom));
    }

    /// Keys that waited for a conversation; without it nothing of them is sent.
    pub(super) fn type_again(
        &mut self,
        held: Vec<KeyEvent>,
        is_there: bool,
        todo: &mut Vec<Effect>,
    ) {
        for key in held {
            if is_there || matches!(key.code, KeyCode::Char(_)) {
                self.key(key, todo);
            }
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        self.touched += 1;
        if self.key_everywhere(key, todo) {
            return;
        }
        match &mut self.mode {
            Mode::Write => self.key_to_write(key, todo),
            Mode::Going(..) if key.code == KeyCode::Esc => self.mode = Mode::Write,
            Mode::Going(_, held) => {
                if held.len() < HELD_MAX {
                    held.push(key);
                }
            }
            Mode::Select => self.key_to_select(key, todo),
            Mode::Prompt(_) => self.key_to_answer(key, todo),
            Mode::Switch(_) => self.key_to_switch(key, todo),
            Mode::Search(_) => self.key_to_search(key, todo),
            Mode::Told(told) => match key.code {
                KeyCode::Up => told.from = told.from.saturating_sub(1),
                KeyCode::PageUp => told.from = told.from.saturating_sub(10),
                KeyCode::Down => {
                    told.from = (told.from + 1).min(told.lines.len().saturating_sub(1));
                }
                KeyCode::PageDown => {
                    told.from = (told.from + 10).min(told.lines.len().saturating_sub(1));
                }
                _ => self.mode = Mode::Write,
            },
            Mode::Confirm(confirm) => {
                if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                    todo.push(confirm.effect.clone());
                }
                self.mode = Mode::Write;
                self.unselect();
            }
        }
    }

    /// Keys that mean the same wherever one is.
    fn key_everywhere(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('c' | 'q') if control => todo.push(Effect::Quit),
            KeyCode::Char('k') if control => self.mode = Mode::Switch(Switch::default()),
            KeyCode::Char('f') if control => self.mode = Mode::Search(Search::default()),
            KeyCode::Char('g') if control => {
                self.mode = Mode::Prompt(Prompt::new(PromptKind::GroupTitle));
            }
            KeyCode::Char('n') if control => self.walk(true, todo),
            KeyCode::Char('p') if control => self.walk(false, todo),
            KeyCode::Down if alt => self.walk(true, todo),
            KeyCode::Up if alt => self.walk(false, todo),
            KeyCode::Char('l') if control => todo.push(Effect::Redraw),
            KeyCode::F(1) => self.help(),
            _ => return false,
        }
        true
    }

    /// To the next conversation of the list, or the one before.
    fn walk(&mut self, forward: bool, todo: &mut Vec<Effect>) {
        let rows = self.visible_rows();
        let open = self.room.as_ref().map(|room| &room.target);
        let at = rows
            .iter()
            .position(|row| open.is_some_and(|open| row.is(open)));
        let next = match (at, forward) {
            (None, _) => 0,
            (Some(at), true) => (at + 1) % rows.len(),
            (Some(at), false) => (at + rows.len() - 1) % rows.len(),
        };
        if let Some(target) = rows.get(next).map(|row| row.target.clone()) {
            self.open(target, todo);
        }
    }

    fn key_to_write(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::PageUp => self.page_up(todo),
            KeyCode::PageDown => self.page_down(todo),
            KeyCode::End if control => self.go_to_end(todo),
            KeyCode::Up | KeyCode::Down if control => self.select_last(),
            KeyCode::Esc => self.go_back(todo),
            _ => {}
        }
        let Some(room) = &mut self.room else {
            self.key_without_room(key);
            return;
        };
        match key.code {
            KeyCode::PageUp | KeyCode::PageDown | KeyCode::Esc => {}
            KeyCode::Up | KeyCode::Down | KeyCode::End if control => {}
            KeyCode::Enter if alt || key.modifiers.contains(KeyModifiers::SHIFT) => {
                room.compose.insert("\n");
            }
            // How a terminal without modifiers says Alt-Enter, or Ctrl-J.
            KeyCode::Char('j') if control => room.compose.insert("\n"),
            KeyCode::Enter => self.enter(todo),
            KeyCode::Tab => self.complete(),
            KeyCode::Up if !room.compose.up() => self.recall(true),
            KeyCode::Down if !room.compose.down() => self.recall(false),
            _ => {
                if room.compose.key(key) {
                    self.go_on_typing(todo);
                }
            }
        }
    }

    fn key_without_room(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('?') => self.help(),
            // The first thing that anybody does: name somebody.
            KeyCode::Char(_) if !control => {
                let mut switch = Switch::default();
                switch.field.key(key);
                self.mode = Mode::Switch(switch);
            }
            _ => {}
        }
    }

    /// Out of what was begun, then to the end of the log.
    fn go_back(&mut self, todo: &mut Vec<Effect>) {
        let Some(room) = &mut self.room else { return };
        if room.editing.take().is_some() {
            room.compose = Compose::default();
        } else if room.replying.take().is_none() {
            self.go_to_end(todo);
        }
    }

    fn enter(&mut self, todo: &mut Vec<Effect>) {
        let Some(room) = &mut self.room else { return };
        if room.compose.text().trim().is_empty() {
            return;
        }
        let text = room.compose.text().to_owned();
        let entered = match command::parse(&text) {
            // An edit is no command, whatever it begins with.
            _ if room.editing.is_some() => Entered::Message(text.clone()),
            Ok(entered) => entered,
            Err(why) => {
                self.complain(&why);
                return;
            }
        };
        room.compose.take();
        self.recalled = None;
        match entered {
            Entered::Command(command) => self.obey(command, todo),
            Entered::Message(message) => {
                let act = match (room.editing.take(), room.replying.take()) {
                    (Some(seq), _) => Act::Edit(Which::At(seq), message),
                    (None, quoted) => Act::Send(message, quoted.map(Which::At)),
                };
                room.new_after = None;
                self.stop_typing(todo);
                self.act(act, todo);
                self.go_to_end(todo);
            }
        }
        self.remember(text);
    }

    fn obey(&mut self, command: Command, todo: &mut Vec<Effect>) {
        let target = self.room.as_ref().map(|room| &room.target);
        match command {
            Command::To(whom) => self.go(whom, todo),
            Command::Delete(which) => self.ask_to_delete(which),
            Command::Group(title, members) => self.make_group(title, members, todo),
            Command::List => self.mode = Mode::Switch(Switch::default()),
            Command::History(_) => self.page_up(todo),
            Command::Search(words) => {
                let mut search = Search::default();
                search.field = Compose::with(words);
                todo.extend(search.go(None, &mut self.searches));
                self.mode = Mode::Search(search);
            }
            Command::Help => self.help(),
            Command::Quit => todo.push(Effect::Quit),
            command => match effect(command, target) {
                Ok(effect) => todo.push(effect),
                Err(why) => self.complain(&why),
            },
        }
    }

    /// What was typed before; on an empty line the last own message, to be edited.
    fn recall(&mut self, older: bool) {
        let Some(room) = &mut self.room else { return };
        if room.editing.is_some() {
            return;
        }
        if older && room.compose.is_empty() && self.recalled.is_none() && room.replying.is_none() {
            let own = room
                .items
                .iter()
                .rev()
                .find(|item| item.mine && item.words().is_some());
            if let Some((seq, words)) = own.and_then(|item| Some((item.seq()?, item.words()?)))
                && !words.raw.is_empty()
            {
                room.editing = Some(seq);
                room.compose = Compose::with(words.raw.clone());
                return;
            }
        }
        let count = self.past.len();
        let next = match (&self.recalled, older) {
            (None, true) => count.checked_sub(1),
            (Some((at, _)), true) => at.checked_sub(1),
            (Some((at, _)), false) if at + 1 < count => Some(at + 1),
            (Some((_, begun)), false) => {
                room.compose = Compose::with(begun.clone());
                self.recalled = None;
                return;
            }
            (None, false) => None,
        };
        if let Some((at, line)) = next.and_then(|at| Some((at, self.past.get(at)?))) {
            let begun = self.recalled.take().map(|(_, begun)| begun);
            let begun = begun.unwrap_or_else(|| room.compose.text().to_owned());
            room.compose = Compose::with(line.clone());
            self.recalled = Some((at, begun));
        }
    }

    /// Handles that begin like this: of the list, and of who wrote here.
    fn completions(&self, begun: &str) -> Vec<String> {
        let Some(begun) = begun.strip_prefix('@') else {
            return Vec::new();
        };
        let peers = self.rows.iter().filter_map(|row| row.peer.clone());
        let authors = self.room.iter().flat_map(|room| &room.items);
        let authors = authors
            .filter(|item| !item.mine)
            .map(|item| item.author.to_string());
        let mut found: Vec<_> = peers
            .chain(authors)
            .filter(|handle| handle.starts_with(begun) && handle.len() > begun.len())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    fn complete(&mut self) {
        let field = match (&self.mode, &self.room) {
            (Mode::Prompt(prompt), _) => &prompt.field,
            (_, Some(room)) => &room.compose,
            _ => return,
        };
        let found = self.completions(field.word());
        let word = match found.as_slice() {
            [] => return,
            [one] => format!("@{one} "),
            several => {
                let all = several.join("  @");
                let common = format!("@{}", common_beginning(several));
                self.say(&format!("@{all}"));
                common
            }
        };
        let field = match (&mut self.mode, &mut self.room) {
            (Mode::Prompt(prompt), _) => &mut prompt.field,
            (_, Some(room)) => &mut room.compose,
            _ => return,
        };
        field.replace_word(&word);
    }

    fn make_group(&mut self, title: String, members: Vec<String>, todo: &mut Vec<Effect>) {
        todo.push(Effect::Ask(Ask::Group(title, members)));
        self.asked_at = self.touched;
        self.say("asking the server for the group");
    }

    fn key_to_answer(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) {
        if key.code == KeyCode::Tab {
            self.complete();
            return;
        }
        let Mode::Prompt(prompt) = &mut self.mode else {
            return;
        };
        match key.code {
            KeyCode::Esc => self.mode = Mode::Write,
            KeyCode::Enter => {
                let answer = prompt.field.text().trim().to_owned();
                if answer.is_empty() {
                    return;
                }
                match prompt.kind.clone() {
                    PromptKind::GroupTitle => {
                        self.mode = Mode::Prompt(Prompt::new(PromptKind::GroupMembers(answer)));
                    }
                    PromptKind::GroupMembers(title) => {
                        let members = answer.split([' ', ',']).filter(|word| !word.is_empty());
                        let members = members.map(str::to_owned).collect();
                        self.mode = Mode::Write;
                        self.make_group(title, members, todo);
                    }
                    PromptKind::React(seq) => {
                        self.mode = Mode::Write;
                        self.act(Act::React(Which::At(seq), numbered(&answer)), todo);
                    }
                }
            }
            _ => {
                prompt.field.key(key);
            }
        }
    }

    fn key_to_switch(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) {
        let Mode::Switch(switch) = &mut self.mode else {
            return;
        };
        let choices = switch.choices(&self.rows);
        match key.code {
            KeyCode::Esc => self.mode = Mode::Write,
            KeyCode::Up => switch.at = switch.at.saturating_sub(1),
            KeyCode::Down => switch.at = (switch.at + 1).min(choices.len().saturating_sub(1)),
            KeyCode::Enter => match choices.into_iter().nth(switch.at).map(|one| one.target) {
                Some(Ok(target)) => self.open(target, todo),
                Some(Err(whom)) => self.go(whom, todo),
                None => {}
            },
            _ => {
                if switch.field.key(key) {
                    switch.at = 0;
                }
            }
        }
    }

    fn key_to_search(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) {
        let open = self.room.as_ref().map(|room| room.target.clone());
        let Mode::Search(search) = &mut self.mode else {
            return;
        };
        match key.code {
            KeyCode::Esc => self.mode = Mode::Write,
            KeyCode::Tab => {
                search.is_here = !search.is_here;
                search.searched = None;
                todo.extend(search.go(open.as_ref(), &mut self.searches));
            }
            KeyCode::Up => search.at = search.at.saturating_sub(1),
            KeyCode::Down => {
                search.at = (search.at + 1).min(search.hits.len().saturating_sub(1));
                if search.at + 1 >= search.hits.len() {
                    todo.extend(search.go(open.as_ref(), &mut self.searches));
                }
            }
            KeyCode::Enter => {
                let is_done = search.searched.as_deref() == Some(search.field.text().trim());
                let hit = search.hits.get(search.at).filter(|_| is_done);
                match hit.and_then(|hit| Some((hit.cid, hit.item.seq()?))) {
                    Some((cid, seq)) => self.jump(cid, seq, todo),
                    None => todo.extend(search.go(open.as_ref(), &mut self.searches)),
                }
            }
            _ => {
                search.field.key(key);
            }
        }
    }
}

/// `2` is the second of the usual reactions.
fn numbered(answer: &str) -> String {
    let (minus, number) = answer
        .strip_prefix('-')
        .map_or(("", answer), |number| ("-", number));
    let index = number
        .parse()
        .ok()
        .and_then(|number: usize| number.checked_sub(1));
    let emoji = index.and_then(|index| REACTIONS.get(index));
    emoji.map_or_else(|| answer.to_owned(), |emoji| format!("{minus}{emoji}"))
}

fn common_beginning(words: &[String]) -> String {
    let Some((first, rest)) = words.split_first() else {
        return String::new();
    };
    let mut common = first.clone();
    while !rest.iter().all(|word| word.starts_with(&common)) {
        common.pop();
    }
    common
}

/// What a command is to do in this conversation; those that only change what is shown are done elsewhere.
///
/// # Errors
/// In words.
pub(crate) fn effect(command: Command, here: Option<&Target>) -> Result<Effect, String> {
    let target = || {
        here.cloned()
            .ok_or("no conversation is open; /to goes to one")
    };
    let act = |act| target().map(|target| Effect::Act(target, act));
    Ok(match command {
        Command::To(whom) => Effect::Open(whom),
        Command::List => Effect::List,
        Command::Search(words) => Effect::Find(0, words, None, None),
        Command::Group(title, members) => Effect::Ask(Ask::Group(title, members)),
        Command::Add(members) => Effect::Ask(Ask::Add(target()?, members)),
        Command::Remove(member) => Effect::Ask(Ask::Remove(target()?, member)),
        Command::Leave(owner) => Effect::Ask(Ask::Leave(target()?, owner)),
        Command::React(which, emoji) => act(Act::React(which, emoji))?,
        Command::Reply(which, text) => act(Act::Send(text, Some(which)))?,
        Command::Edit(which, text) => act(Act::Edit(which, text))?,
        Command::Delete(which) => act(Act::Delete(which))?,
        Command::Hide(which) => act(Act::Hide(which))?,
        Command::Pin(which, pinned) => act(Act::Pin(which, pinned))?,
        Command::Read => act(Act::Read(None))?,
        Command::Unread => act(Act::Unread(true))?,
        Command::Status(which) => Effect::Ask(Ask::Status(target()?, which)),
        Command::Who => Effect::Ask(Ask::Members(target()?)),
        Command::Mute(muted) => Effect::Ask(Ask::Mute(target()?, muted)),
        Command::Archive(archived) => Effect::Ask(Ask::Archive(target()?, archived)),
        Command::Top(top) => Effect::Ask(Ask::Top(target()?, top)),
        Command::Presence(state, text) => Effect::Ask(Ask::Presence(state, text)),
        Command::Retry => Effect::Retry(None),
        Command::Discard => Effect::Discard(None),
        Command::Connect => Effect::Connect,
        Command::Quit => Effect::Quit,
        Command::History(_) | Command::Help => return Err("not here".to_owned()),
    })
}
