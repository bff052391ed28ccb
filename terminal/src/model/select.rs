//! Scrolling through the log, and what is done to the message that is selected there.

use std::ops::Range;

use client_sdk::Seq;
use crossterm::event::{KeyCode, KeyEvent};

use super::{Confirm, Mode, Model, Prompt, PromptKind};
use crate::command::Which;
use crate::compose::Compose;
use crate::effect::{Act, Ask, Effect};
use crate::items::{Body, Item, Key};
use crate::layout::{self, Line, lines, seen};
use crate::text::Shown;

impl Model {
    /// The lines of the log, which of them are seen, and in how many rows.
    fn laid_out(&self) -> Option<(Vec<Line>, Range<usize>, usize)> {
        let room = self.room.as_ref()?;
        let (_, rows) = self.log_size();
        let lines = lines(room, &self.look());
        let seen = seen(&lines, room.anchor.as_ref(), rows);
        Some((lines, seen, rows))
    }

    pub(super) fn page_up(&mut self, todo: &mut Vec<Effect>) {
        let Some((lines, seen, rows)) = self.laid_out() else {
            return;
        };
        let end = (seen.start + 1).max(rows.min(lines.len()));
        let anchor = end.checked_sub(1).and_then(|last| lines.get(last));
        let anchor = anchor.map(|line| line.anchor.clone());
        if let Some(room) = &mut self.room {
            if lines.len() > rows {
                room.anchor = anchor;
            }
            if end <= rows {
                todo.extend(room.load_older());
            }
        }
    }

    pub(super) fn page_down(&mut self, todo: &mut Vec<Effect>) {
        let Some((lines, seen, rows)) = self.laid_out() else {
            return;
        };
        let end = seen.end + rows.saturating_sub(1);
        let anchor = lines
            .get(end.saturating_sub(1))
            .map(|line| line.anchor.clone());
        let last = lines.last().map(|line| line.anchor.clone());
        if let Some(room) = &mut self.room {
            match anchor {
                Some(anchor) if end < lines.len() => room.anchor = Some(anchor),
                _ if room.detached => {
                    room.anchor = last;
                    todo.extend(room.load_newer());
                }
                _ => room.anchor = None,
            }
        }
    }

    pub(super) fn go_to_end(&mut self, todo: &mut Vec<Effect>) {
        if let Some(room) = &mut self.room {
            todo.extend(room.go_to_end());
        }
    }

    pub(super) fn unselect(&mut self) {
        if let Some(room) = &mut self.room {
            room.selected = None;
        }
    }

    /// Selects the last message that is seen.
    pub(super) fn select_last(&mut self) {
        let (Some((lines, seen, _)), Some(room)) = (self.laid_out(), &self.room) else {
            return;
        };
        let on_screen = lines.get(seen).unwrap_or_default().iter().rev();
        let keys = on_screen.map(|line| &line.anchor.key);
        let is_message = |key: &&Key| room.item(key).is_some_and(|item| item.words().is_some());
        let last = keys.clone().find(is_message).cloned();
        if let (Some(key), Some(room)) = (last, &mut self.room) {
            room.selected = Some(key);
            self.mode = Mode::Select;
        }
    }

    /// Selects another message, and shows it.
    fn select_next(&mut self, down: bool, todo: &mut Vec<Effect>) {
        let Some(room) = &self.room else { return };
        let messages = room
            .all()
            .filter(|item| matches!(item.body, Body::Words(_)));
        let keys: Vec<_> = messages.map(|item| item.key.clone()).collect();
        let at = keys
            .iter()
            .position(|key| room.selected.as_ref() == Some(key));
        let next = match (at, down) {
            (Some(at), true) => at + 1,
            (Some(at), false) => at.wrapping_sub(1),
            (None, _) => keys.len().wrapping_sub(1),
        };
        match keys.get(next).cloned() {
            Some(key) => self.show(key),
            None if down && !room.detached => {
                self.mode = Mode::Write;
                self.go_to_end(todo);
            }
            None if down => self.page_down(todo),
            None => {
                if let Some(room) = &mut self.room {
                    todo.extend(room.load_older());
                }
            }
        }
    }

    fn show(&mut self, key: Key) {
        let Some((lines, seen, rows)) = self.laid_out() else {
            return;
        };
        let first = lines.iter().position(|line| line.anchor.key == key);
        let last = lines.iter().rposition(|line| line.anchor.key == key);
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        let end = if last >= seen.end {
            Some(last)
        } else if first < seen.start {
            Some((first + rows.saturating_sub(1)).min(lines.len() - 1))
        } else {
            None
        };
        let anchor = end
            .and_then(|end| lines.get(end))
            .map(|line| line.anchor.clone());
        let is_end = end.is_some_and(|end| end + 1 == lines.len());
        if let Some(room) = &mut self.room {
            room.selected = Some(key);
            if anchor.is_some() {
                room.anchor = anchor.filter(|_| !is_end || room.detached);
            }
        }
    }

    pub(super) fn key_to_select(&mut self, key: KeyEvent, todo: &mut Vec<Effect>) {
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.select_next(false, todo),
            KeyCode::Down | KeyCode::Char('j') => self.select_next(true, todo),
            KeyCode::PageUp => {
                self.page_up(todo);
                self.select_last();
            }
            KeyCode::PageDown => {
                self.page_down(todo);
                self.select_last();
            }
            KeyCode::Char('?') => self.help(),
            KeyCode::Char(letter) => self.do_to_selected(letter, todo),
            KeyCode::Enter => self.do_to_selected('r', todo),
            _ => {
                self.mode = Mode::Write;
                self.unselect();
            }
        }
    }

    fn do_to_selected(&mut self, letter: char, todo: &mut Vec<Effect>) {
        let Some(room) = &mut self.room else { return };
        let Some(item) = room.selected_item() else {
            self.mode = Mode::Write;
            return;
        };
        let (mine, key) = (item.mine, item.key.clone());
        let Some(words) = item.words() else { return };
        let (raw, pinned) = (words.raw.clone(), words.pinned);
        let seq = match key {
            Key::At(seq) => seq,
            Key::Waiting(mid) => {
                match letter {
                    'r' => todo.push(Effect::Retry(Some(mid))),
                    'x' => todo.push(Effect::Discard(Some(mid))),
                    _ => {
                        self.say(
                            "it waits for the server: r tries again what was refused, x drops it",
                        );
                        return;
                    }
                }
                self.mode = Mode::Write;
                self.unselect();
                return;
            }
        };
        match letter {
            'r' => {
                room.replying = Some(seq);
                room.editing = None;
            }
            'e' if mine => {
                room.editing = Some(seq);
                room.replying = None;
                let begun = std::mem::replace(&mut room.compose, Compose::with(raw));
                if !begun.is_empty() {
                    self.remember(begun.text().to_owned());
                }
            }
            'd' | 'h' => {
                self.confirm_removal(seq, letter == 'd');
                return;
            }
            '+' => {
                self.mode = Mode::Prompt(Prompt::new(PromptKind::React(seq)));
                self.unselect();
                return;
            }
            'p' => self.act(Act::Pin(Which::At(seq), !pinned), todo),
            'i' => {
                self.unselect();
                self.mode = Mode::Write;
                self.ask(|target| Ask::Status(target, Which::At(seq)), todo);
                return;
            }
            'e' => {
                self.complain("only own messages can be edited");
                return;
            }
            _ => {
                self.say(
                    "r reply  + react  e edit  d delete  h hide  p pin  i who read it  Esc back",
                );
                return;
            }
        }
        self.mode = Mode::Write;
        self.unselect();
    }

    /// The message that is meant is shown before it is gone.
    pub(super) fn ask_to_delete(&mut self, which: Which) {
        let Some(room) = &self.room else { return };
        let own = room
            .items
            .iter()
            .rev()
            .find(|item| item.mine && item.words().is_some());
        match (which, own.and_then(Item::seq)) {
            (Which::At(seq), _) => self.confirm_removal(seq, true),
            (_, Some(seq)) if room.waiting.is_empty() => self.confirm_removal(seq, true),
            (_, Some(_)) => {
                self.complain("the newest one is not sent yet; Ctrl-Up selects it, x drops it");
            }
            (_, None) => self.complain("there is no own message here; name it as #12"),
        }
    }

    fn confirm_removal(&mut self, seq: Seq, for_all: bool) {
        let Some(room) = &self.room else { return };
        let what = layout::quotation(room, seq);
        let (act, question) = if for_all {
            (
                Act::Delete(Which::At(seq)),
                format!("Delete for everybody: «{what}»? y/n"),
            )
        } else {
            (
                Act::Hide(Which::At(seq)),
                format!("Hide from yourself: «{what}»? y/n"),
            )
        };
        self.mode = Mode::Confirm(Confirm {
            question: Shown::line(&question),
            effect: Effect::Act(room.target.clone(), act),
        });
    }
}
